package writes

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/slack-go/slack"
	"github.com/slack-go/slack/socketmode"
)

// reads are the calls that leave the program and change nothing out there.
// What is neither here nor on the list fails the test, be it ever so harmless.
var reads = map[System][]string{
	Slack: {"AuthTestContext", "GetConversationInfoContext", "GetUserInfoContext", "GetUserByEmailContext", "GetUserGroupsContext", "GetPermalinkContext",
		"RunContext"}, // keeps the socket: apps.connections.open makes nothing that outlives it
	// TIME is not among them: any node of a cluster answers it, by a clock of its own.
	Redis: {"HGet", "HGetAll", "Get", "Exists", "XRead", "XRangeN", "XPendingExt", "ZRange", "ZRangeByScore", "ZRangeByScoreWithScores", "ZRevRange", "RunRO",
		"Ping", "Info", "ConfigGet", "Close", "Pipeline", "TxPipeline"},
	Graph: {"Get"},
	Disk:  {"Open", "ReadFile", "Stat", "Hostname", "Exit", "Getenv", "File", "PathError", "Stdin", "Stdout", "Stderr", "Args", "Interrupt"},
}

// elsewhere are the modules and packages that can reach something outside, or
// not, as we know them. One that is not here has to be looked at first.
var elsewhere = map[string]string{
	"github.com/redis/go-redis/":         "a rule looks at it",
	"github.com/slack-go/slack":          "a rule looks at it",
	"github.com/microsoft":               "a rule looks at it",
	"github.com/Azure/azure-sdk-for-go/": "gets tokens, and changes nothing",
	"github.com/alicebob/miniredis/":     "the Redis of demo and sandbox",
	"github.com/nyaruka/phonenumbers":    "computes",
	"go.yaml.in/yaml/":                   "computes",
	"golang.org/x/mod/sumdb/":            "computes",
	"golang.org/x/text/":                 "computes",
	"os":                                 "a rule looks at it",
	"net/http":                           "a rule looks at it",
	"net/http/httptrace":                 "watches",
	"net":                                "addresses, and what listens",
	"os/signal":                          "waits",
	"os/exec":                            "",
	"net/smtp":                           "",
	"net/rpc":                            "",
	"database/sql":                       "",
	"log/syslog":                         "",
	"syscall":                            "the lock of the audit log",
	"io/ioutil":                          "",
	"plugin":                             "",
}

// rules are how a call is known to leave the program for a system, in the
// packages that import something. They go by names, and rather find too much.
func rules() map[System]struct {
	imports string
	finds   func(*program, *function) []call
} {
	type rule = struct {
		imports string
		finds   func(*program, *function) []call
	}
	inSlack := methods(reflect.TypeFor[*slack.Client](), reflect.TypeFor[*socketmode.Client]())
	inRedis := methods(reflect.TypeFor[redis.UniversalClient](), reflect.TypeFor[redis.Pipeliner](), reflect.TypeFor[*redis.Script]())
	return map[System]rule{
		// A method of one of slack-go's clients, whatever it is called on where
		// the name can mean nothing else; and its functions, but for those that
		// make something to be sent.
		Slack: {"github.com/slack-go/slack", func(p *program, fn *function) []call {
			return those(fn, func(c call) bool {
				if c.on == "slack" || c.on == "socketmode" {
					return c.args != notCalled && !strings.HasPrefix(c.name, "New") && !strings.Contains(c.name, "Option")
				}
				return inSlack[c.name] && (p.known[fn.pkg][c.last()] || strings.HasSuffix(c.name, "Context") || strings.HasSuffix(c.name, "Ctx"))
			})
		}},
		// A method of a client, a pipeline or a script. A pipeline queues; what
		// sends it is its Exec, which is a write where one of those queued is.
		Redis: {"github.com/redis/go-redis/", func(p *program, fn *function) []call {
			queues := map[string]bool{}
			return those(fn, func(c call) bool {
				switch {
				case !inRedis[c.name] || !p.known[fn.pkg][c.last()]:
					return false
				case !p.pipes[fn.pkg][c.last()]:
					return true
				case c.name != "Exec":
					queues[c.on] = queues[c.on] || !slices.Contains(reads[Redis], c.name)
					return false
				}
				return queues[c.on]
			})
		}},
		// A verb of one of the SDK's builders, or a request sent as it is. What
		// decodes answers, send, is for questions only: in a function that makes
		// a request of another kind it is a way out, too.
		Graph: {"github.com/microsoft", func(_ *program, fn *function) []call {
			changes := slices.ContainsFunc(fn.calls, func(c call) bool {
				made, _ := strings.CutPrefix(c.name, "To")
				made, found := strings.CutSuffix(made, "RequestInformation")
				return found && made != "Get" || c.name == "request" && c.first != "abstractions.GET"
			})
			return those(fn, func(c call) bool {
				switch c.name {
				case "Post", "Put", "Patch", "Delete":
					return !strings.HasSuffix(c.on, "eader") && !strings.HasSuffix(c.on, "eaders")
				case "Send", "SendCollection", "SendPrimitive", "SendPrimitiveCollection", "SendEnum", "SendEnumCollection", "SendNoContent":
					return c.name == "SendNoContent" || fn.name != "entra.send"
				case "Do":
					return true
				}
				return c.name == "send" && changes
			})
		}},
		// What opens a file for writing, or changes a folder; and the audit
		// log's own way to its files.
		Disk: {"", func(_ *program, fn *function) []call {
			return those(fn, func(c call) bool {
				return c.on == "os" && !strings.HasPrefix(c.name, "O_") || c.on == "files" || c.name == "RoundTrip" || strings.HasSuffix(c.on, ".disk") || c.name == "replace" && c.on != "" ||
					c.on == "http" && slices.Contains([]string{"Get", "Head", "Post", "PostForm", "NewRequest", "NewRequestWithContext"}, c.name) ||
					c.last() == "DefaultClient" || c.on == "net" && strings.HasPrefix(c.name, "Dial")
			})
		}},
	}
}

func methods(types ...reflect.Type) map[string]bool {
	all := map[string]bool{}
	for _, t := range types {
		for i := range t.NumMethod() {
			all[t.Method(i).Name] = true
		}
	}
	return all
}

func those(fn *function, so func(call) bool) []call {
	var some []call
	for _, c := range fn.calls {
		if so(c) {
			some = append(some, c)
		}
	}
	return some
}

// last is the last name of what a call is called on.
func (c call) last() string { return c.on[strings.LastIndexByte(c.on, '.')+1:] }

// program is the sources with what the rules know of their names.
type program struct {
	*Sources
	imports map[string]map[string]bool // by package
	known   map[string]map[string]bool // by package: names of clients, pipelines and scripts
	pipes   map[string]map[string]bool // and of pipelines alone
}

func load(t *testing.T) *program {
	t.Helper()
	s, err := LoadSources()
	if err != nil {
		t.Fatal(err)
	}
	p := &program{s, map[string]map[string]bool{}, map[string]map[string]bool{}, map[string]map[string]bool{}}
	for name, f := range s.files {
		pkg := path.Dir(name)
		if p.imports[pkg] == nil {
			p.imports[pkg], p.known[pkg], p.pipes[pkg] = map[string]bool{}, map[string]bool{}, map[string]bool{}
		}
		for _, i := range f.syntax.Imports {
			what, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			p.imports[pkg][what] = true
			if i.Name != nil && (strings.Contains(what, "go-redis") || strings.Contains(what, "slack-go")) {
				t.Errorf("%s gives %s another name, and what it does with it is not found", name, what)
			}
		}
	}
	for grows := true; grows; {
		grows = p.learn()
	}
	return p
}

// learn notes the names that are declared with a type of go-redis' clients or
// slack-go's, or are given what one of their functions makes, or another such
// name. It says whether it has learned of any.
func (p *program) learn() (any bool) {
	for name, f := range p.files {
		pkg := path.Dir(name)
		note := func(name, from ast.Expr) {
			if from == nil {
				return
			}
			text, known := written(from), false
			pipe := strings.HasSuffix(text, "ipeline()") || text == "redis.Pipeliner"
			ast.Inspect(from, func(n ast.Node) bool {
				if of, ok := n.(*ast.SelectorExpr); ok {
					text := written(of)
					known = known || strings.HasPrefix(text, "redis.") || text == "slack.Client" || text == "slack.New" || strings.HasPrefix(text, "socketmode.")
				}
				return true
			})
			last := call{on: written(name)}.last()
			alias := call{on: text}.last()
			known = known || pipe || p.known[pkg][alias] && text != "?"
			pipe = pipe || p.pipes[pkg][alias]
			if last == "_" || last == "err" || !known || p.known[pkg][last] && p.pipes[pkg][last] == pipe {
				return
			}
			p.known[pkg][last], any = true, true
			p.pipes[pkg][last] = p.pipes[pkg][last] || pipe
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Field:
				for _, name := range n.Names {
					note(name, n.Type)
				}
			case *ast.ValueSpec:
				for i, name := range n.Names {
					note(name, n.Type)
					if i < len(n.Values) {
						note(name, n.Values[i])
					}
				}
			case *ast.AssignStmt:
				for i, name := range n.Lhs {
					if i < len(n.Rhs) {
						note(name, n.Rhs[i])
					}
				}
			}
			return true
		})
	}
	return any
}

// found are all ways out in the sources, with how many calls each has.
func (p *program) found() map[string]int {
	leave := map[*function][]call{}
	for name, f := range p.files {
		imports := slices.Collect(maps.Keys(p.imports[path.Dir(name)]))
		for system, r := range rules() {
			if !slices.ContainsFunc(imports, func(i string) bool { return strings.HasPrefix(i, r.imports) }) {
				continue
			}
			for _, fn := range f.functions {
				for _, c := range r.finds(p, fn) {
					if !slices.Contains(reads[system], c.name) {
						leave[fn] = append(leave[fn], c)
					}
				}
			}
		}
	}
	// The last calls behind a helper.
	var through func(h *function) []string
	through = func(h *function) []string {
		last := map[string]bool{}
		for _, c := range leave[h] {
			last[c.name] = true
		}
		for _, c := range h.calls {
			if next := p.helper(h, c); next != nil && next != h {
				for _, name := range through(next) {
					last[name] = true
				}
			}
		}
		return slices.Sorted(maps.Keys(last))
	}
	ways := map[string]int{}
	for _, f := range p.files {
		for _, fn := range f.functions {
			if slices.Contains(helpers(), fn.name) {
				continue
			}
			for _, c := range leave[fn] {
				ways[p.way(fn, c, "")]++
			}
			for _, c := range fn.calls {
				if h := p.helper(fn, c); h != nil {
					for _, last := range through(h) {
						ways[p.way(fn, c, last)]++
					}
				}
			}
		}
	}
	return ways
}

func TestTheListIsWhole(t *testing.T) {
	p := load(t)
	listed := map[string]int{}
	for _, w := range All() {
		listed[w.Where] += max(w.Calls, 1)
	}
	found := p.found()
	for _, way := range slices.Sorted(maps.Keys(found)) {
		switch n := listed[way]; {
		case beside()[way] != "" && n == 0:
		case n == 0:
			t.Errorf("%s leaves the program and is on no list. A write: enter it in writes.go, with its pair of tests. A read: enter it in this file", way)
		case n != found[way]:
			t.Errorf("%s: %d calls in the sources, %d in the list", way, found[way], n)
		}
	}
	for _, way := range slices.Sorted(maps.Keys(listed)) {
		if found[way] == 0 {
			t.Errorf("%s is in the list and not in the sources", way)
		}
	}
	for _, way := range slices.Sorted(maps.Keys(beside())) {
		if found[way] == 0 && !strings.Contains(way, "NewFile") {
			t.Errorf("%s is said to be no write, and is not in the sources", way)
		}
	}
	for _, name := range helpers() {
		if len(p.helpers[packageOf(name)+" "+name[strings.LastIndexByte(name, '.')+1:]]) == 0 {
			t.Errorf("the helper %s is not in the sources", name)
		}
	}
}

// What people are told is listed by who tells it: a function that posts for
// several others, and hands them the error, is a helper.
func TestHelpersAreKnown(t *testing.T) {
	p := load(t)
	posts := map[string]bool{}
	for way := range p.found() {
		name, _, _ := strings.Cut(way, " ")
		posts[name] = true
	}
	for _, f := range p.files {
		for _, fn := range f.functions {
			if fn.pkg != "bot" || !posts[fn.name] || fn.decl.Type.Results == nil {
				continue
			}
			last := fn.decl.Type.Results.List[len(fn.decl.Type.Results.List)-1]
			if written(last.Type) != "error" {
				continue
			}
			callers := 0
			for _, other := range p.files {
				for _, caller := range other.functions {
					callers += len(those(caller, func(c call) bool {
						return caller.pkg == fn.pkg && c.name == fn.decl.Name.Name && strings.HasSuffix("."+c.on, "."+caller.self)
					}))
				}
			}
			if callers > 1 {
				t.Errorf("%s posts for %d others: make it a helper in writes.go, so that each of them is a write", fn.name, callers)
			}
		}
	}
}

// Nothing reaches the world by a way that no rule looks at.
func TestNothingElseLeaves(t *testing.T) {
	p := load(t)
	for _, pkg := range slices.Sorted(maps.Keys(p.imports)) {
		for _, what := range slices.Sorted(maps.Keys(p.imports[pkg])) {
			why, known := elsewhere[what]
			for prefix, reason := range elsewhere {
				if strings.Contains(prefix, ".") && strings.HasPrefix(what, prefix) {
					why, known = reason, true
				}
			}
			foreign := strings.Contains(what, ".")
			if known && why == "" || foreign && !known {
				t.Errorf("%s imports %s: say here what that can change, and add a rule that finds it", pkg, what)
			}
		}
	}
}

// Every package with writes has a test that attacks them all.
func TestThePairsAreDriven(t *testing.T) {
	p := load(t)
	driven := map[string]bool{}
	err := filepath.WalkDir(p.root, func(at string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(at, "_test.go") || filepath.Dir(at) == filepath.Join(p.root, "internal", "writes") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), at, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range f.Decls {
			test, ok := decl.(*ast.FuncDecl)
			if !ok || test.Recv != nil || !strings.HasPrefix(test.Name.Name, "Test") {
				continue
			}
			ast.Inspect(test, func(n ast.Node) bool {
				pairs, ok := n.(*ast.CallExpr)
				if !ok || written(pairs.Fun) != "writes.Pairs" {
					return true
				}
				if in, ok := pairs.Args[1].(*ast.CallExpr); ok && written(in.Fun) == "writes.In" {
					if pkg, ok := in.Args[0].(*ast.BasicLit); ok {
						driven[pkg.Value] = true
					}
				}
				return true
			})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range All() {
		if pkg := strconv.Quote(w.Package()); !driven[pkg] {
			t.Errorf("no test attacks the writes of package %s with writes.Pairs(t, writes.In(%[1]s), …)", pkg)
			driven[pkg] = true // said
		}
	}
}

func packageOf(function string) string {
	folder, _, _ := strings.Cut(function, ".")
	return folder
}
