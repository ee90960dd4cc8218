package writes

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

const module = "countersign"

// notProgram are folders that Countersign at work has no part of.
var notProgram = []string{"sandbox", "internal/importtest", "internal/redistest", "internal/testnet", "internal/testseed", "internal/writes"}

// Sources are the program's own source files, without its tests and without
// the sandbox. They tell a place in the code by the names it has there, which
// a reader understands and which an edit further up does not change, as it
// does line numbers.
type Sources struct {
	root    string
	files   map[string]*file       // by the path within the module
	helpers map[string][]*function // those of the list, by package and last name
	ends    map[string]bool        // the calls with which a way in the list ends: package and name
	listed  map[string]bool        // the ways in the list
}

type file struct {
	syntax    *ast.File
	functions []*function
}

// function is a declared function with all function literals inside it. What
// stands outside of functions is one, too.
type function struct {
	pkg      string // the folder
	name     string // package.Type.name
	of, self string // of a method: the type, and what it calls its own value
	from, to int    // lines
	params   int
	variadic bool
	decl     *ast.FuncDecl // nil for what stands outside
	calls    []call        // in the order in which they are written
}

type call struct {
	name     string
	on       string // what it is called on, as it is written
	args     int
	first    string // the first of them, as it is written
	from, to int    // lines
}

// notCalled stands for the arguments of what is only named.
const notCalled = -1

// LoadSources reads the module around the working directory.
func LoadSources() (*Sources, error) {
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		if root == filepath.Dir(root) {
			return nil, fmt.Errorf("writes: there is no module around the working directory")
		}
		root = filepath.Dir(root)
	}
	s := &Sources{root: root, files: map[string]*file{}, helpers: map[string][]*function{}, ends: map[string]bool{}, listed: map[string]bool{}}
	known := slices.Collect(maps.Keys(beside()))
	for _, w := range All() {
		known = append(known, w.Where)
		s.listed[w.Where] = true
	}
	for _, way := range known {
		words := strings.Fields(way)
		s.ends[Write{Where: way}.Package()+" "+unnumbered(words[len(words)-1])] = true
	}
	err = filepath.WalkDir(root, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, at)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		switch {
		case d.IsDir() && (slices.Contains(notProgram, name) || strings.HasPrefix(d.Name(), ".") && name != "."):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		return s.add(at, name)
	})
	return s, err
}

func (s *Sources) add(at, name string) error {
	set := token.NewFileSet()
	syntax, err := parser.ParseFile(set, at, nil, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	f := &file{syntax: syntax}
	pkg := path.Dir(name)
	line := func(p token.Pos) int { return set.Position(p).Line }
	apart := &function{pkg: pkg, name: pkg + ".(outside)"}
	for _, decl := range syntax.Decls {
		fn := apart
		if d, ok := decl.(*ast.FuncDecl); ok {
			of, self := receiver(d)
			fn = &function{pkg: pkg, name: strings.ReplaceAll(pkg+"."+of+"."+d.Name.Name, "..", "."), of: of, self: self, from: line(d.Pos()), to: line(d.End()), decl: d}
			for _, p := range d.Type.Params.List {
				fn.params += max(len(p.Names), 1)
				_, fn.variadic = p.Type.(*ast.Ellipsis)
			}
			f.functions = append(f.functions, fn)
			if slices.Contains(helpers(), fn.name) {
				key := pkg + " " + d.Name.Name
				s.helpers[key] = append(s.helpers[key], fn)
			}
		}
		called := map[ast.Node]bool{}
		ast.Inspect(decl, func(n ast.Node) bool {
			var one call
			fun, isExpr := n.(ast.Expr)
			if c, ok := n.(*ast.CallExpr); ok {
				one = call{args: len(c.Args)}
				if len(c.Args) > 0 {
					one.first = written(c.Args[0])
				}
				fun = ast.Unparen(c.Fun)
				called[fun] = true
				if index, ok := fun.(*ast.IndexExpr); ok { // of a function with a type parameter
					fun = index.X
				}
			} else if _, ok := n.(*ast.SelectorExpr); ok && isExpr && !called[n] {
				one.args = notCalled // here; but it may be where it goes
			} else {
				return true
			}
			one.from, one.to = line(n.Pos()), line(n.End())
			switch fun := fun.(type) {
			case *ast.SelectorExpr:
				one.name, one.on = fun.Sel.Name, written(fun.X)
			case *ast.Ident:
				one.name = fun.Name
			default:
				return true
			}
			fn.calls = append(fn.calls, one)
			return true
		})
	}
	f.functions = append(f.functions, apart)
	s.files[name] = f
	return nil
}

func receiver(d *ast.FuncDecl) (of, self string) {
	if d.Recv == nil {
		return "", ""
	}
	if names := d.Recv.List[0].Names; len(names) > 0 {
		self = names[0].Name
	}
	return strings.TrimSuffix(written(d.Recv.List[0].Type), "[]"), self
}

// written is an expression as it is written, as far as names and dots go.
func written(e ast.Expr) string {
	switch e := ast.Unparen(e).(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return written(e.X) + "." + e.Sel.Name
	case *ast.CallExpr:
		return written(e.Fun) + "()"
	case *ast.IndexExpr:
		return written(e.X) + "[]"
	case *ast.StarExpr:
		return written(e.X)
	}
	return "?"
}

// helper is the helper that a call in a function calls, or nil. Of two with
// one name it is that of the type on which it is called, as far as that shows:
// d.Store.decide is the Store's.
func (s *Sources) helper(in *function, c call) *function {
	on := c.on[strings.LastIndexByte(c.on, '.')+1:]
	if on == in.self && on != "" {
		on = in.of
	}
	var found *function
	for _, h := range s.helpers[in.pkg+" "+c.name] {
		switch fits := c.args == h.params || c.args == notCalled || h.variadic && c.args >= h.params-1; {
		case fits && h.of == on:
			return h
		case fits:
			found = h
		}
	}
	return found
}

// way names a write by the function that makes it, the call there, and the
// last call of all. Where the list numbers the calls of one name in one
// function, so does the name.
func (s *Sources) way(fn *function, in call, last string) string {
	n := 1
	for _, c := range fn.calls {
		if c == in {
			break
		}
		if c.name == in.name && s.helper(fn, c) == s.helper(fn, in) {
			n++
		}
	}
	plain, numbered := fn.name+" "+in.name, fmt.Sprintf("%s %s#%d", fn.name, in.name, n)
	if s.helper(fn, in) != nil {
		plain, numbered = plain+" "+last, numbered+" "+last
	}
	if first := strings.Replace(numbered, fmt.Sprintf("#%d", n), "#1", 1); s.listed[first] {
		return numbered
	}
	return plain
}

// unnumbered is the name of a call in the list without its number.
func unnumbered(word string) string {
	name, _, _ := strings.Cut(word, "#")
	return name
}

// Here names the write that the program is making at this moment, by who
// called whom. It has to be asked in the goroutine of that call, by whatever
// stands between the program and the world. Where that call is on no way in
// the list it is a stranger, and told by its place in the sources. Both are
// empty where the program has no part in it, or where a test has called one of
// its helpers.
func (s *Sources) Here() (where, stranger string) {
	pcs := make([]uintptr, 200)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	var fn *function // the innermost one so far that is not just a helper's caller
	var in call
	last := ""
	for more := true; more; {
		var at runtime.Frame
		at, more = frames.Next()
		here := s.around(at)
		switch {
		case here == nil, slices.Contains(carriers(), here.name):
			continue
		case fn == nil: // the call itself
			fn = here
			for _, c := range fn.calls {
				if c.from <= at.Line && at.Line <= c.to && s.ends[fn.pkg+" "+c.name] {
					in, last = c, c.name
				}
			}
			if last == "" {
				return "", fmt.Sprintf("%s (%s:%d)", fn.name, filepath.Base(at.File), at.Line)
			}
		default: // does it call the helper in which we are?
			for _, c := range here.calls {
				if c.from <= at.Line && at.Line <= c.to && s.helper(here, c) == fn {
					fn, in = here, c
					break
				}
			}
		}
		if !slices.Contains(helpers(), fn.name) {
			switch where = s.way(fn, in, last); {
			case s.listed[where]:
				return where, ""
			case beside()[where] != "":
				return "", ""
			}
			return "", fmt.Sprintf("%s (%s:%d)", where, filepath.Base(at.File), at.Line)
		}
	}
	return "", ""
}

// around is the function of the program at a place on the stack.
func (s *Sources) around(at runtime.Frame) *function {
	name, ours := strings.CutPrefix(filepath.ToSlash(at.File), filepath.ToSlash(s.root)+"/")
	if !ours { // built without paths
		name, ours = strings.CutPrefix(at.File, module+"/")
	}
	if f := s.files[name]; ours && f != nil {
		for _, fn := range f.functions {
			if fn.from <= at.Line && at.Line <= fn.to {
				return fn
			}
		}
	}
	return nil
}
