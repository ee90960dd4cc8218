// Package wording looks after the sentences of the program: what people read in
// Slack, on the command line and in the log. It has nothing but this test.
package wording

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// private are words that only somebody who has written this program would know,
// with the words to use instead.
var private = map[*regexp.Regexp]string{
	regexp.MustCompile(`(?i)\b(the|on the|our) desk\b`):                              "open requests, the service",
	regexp.MustCompile(`(?i)\b(br[eo]ak(s|ing)?|broke|broken) (the )?glass`):         "use break-glass, used break-glass",
	regexp.MustCompile(`(?i)\bglass (was )?broken`):                                  "break-glass was used",
	regexp.MustCompile(`(?i)\b(gone|went|goes|go) back in time`):                     "lost confirmed writes",
	regexp.MustCompile(`(?i)\bwitness`):                                              "watermark",
	regexp.MustCompile(`(?i)\b(deeds?|errands?)\b`):                                  "interaction, route",
	regexp.MustCompile(`(?i)\b(say|says|said) go on\b`):                              "resume",
	regexp.MustCompile(`(?i)\b(in vain|lest|thereof|wherein|of late|for want of)\b`): "modern English",
}

// clumsy are slips that a reader stumbles over.
var clumsy = map[*regexp.Regexp]string{
	regexp.MustCompile(`^[^
]*[^ 
]  +[^ 
][^
]*$`): "two spaces", // several lines may be a table
	regexp.MustCompile(`\pL ([,;:]|\.( \pL|$))`): "a space before punctuation",
}

// twice is a word that follows itself, empty where none does.
func twice(text string) string {
	words := strings.Fields(text)
	for i := 1; i < len(words); i++ {
		if strings.EqualFold(words[i-1], words[i]) && prose.MatchString(words[i-1]+" "+words[i]) {
			return words[i]
		}
	}
	return ""
}

// two words, with nothing but letters in them.
var prose = regexp.MustCompile(`\p{L}{2,} \p{L}{2,}|\p{L}{2,}, \p{L}{2,}`)

// notProse are functions whose argument is another language.
var notProse = map[string]bool{"regexp.MustCompile": true, "redis.NewScript": true}

type sentence struct {
	where, text string
}

// sentencesIn lists the texts of a file in their order. Texts that are joined with
// a plus sign are one.
func sentencesIn(name string) (list []sentence, err error) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	add := func(at ast.Node, text string) {
		if prose.MatchString(text) {
			list = append(list, sentence{fmt.Sprintf("%s:%d", filepath.ToSlash(name), files.Position(at.Pos()).Line), text})
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec:
			return false
		case *ast.Field: // a tag is no sentence
			return n.Tag == nil
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.SelectorExpr); ok {
				if of, ok := f.X.(*ast.Ident); ok && notProse[of.Name+"."+f.Sel.Name] {
					return false
				}
			}
		case *ast.BinaryExpr:
			if text, ok := joined(n); ok {
				add(n, text)
				return false
			}
		case *ast.BasicLit:
			if text, ok := joined(n); ok {
				add(n, text)
			}
		}
		return true
	})
	return list, nil
}

// joined is the text of literals that are joined with plus signs.
func joined(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind != token.STRING {
			return "", false
		}
		text, err := strconv.Unquote(e.Value)
		return text, err == nil
	case *ast.BinaryExpr:
		left, ok := joined(e.X)
		if !ok || e.Op != token.ADD {
			return "", false
		}
		right, ok := joined(e.Y)
		return left + right, ok
	}
	return "", false
}

// TestSentences prints every sentence that the program can say, to be read from
// top to bottom:
//
//	go test -run Sentences -v ./internal/wording
//
// It fails where one has a word that only we would know, or a slip.
func TestSentences(t *testing.T) {
	root := filepath.Join("..", "..")
	count := 0
	for _, room := range []string{"approvals", "audit", "bot", "cmd", "commands", "entra"} {
		err := filepath.WalkDir(filepath.Join(root, room), func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
				return err
			}
			list, err := sentencesIn(name)
			for _, s := range list {
				count++
				where := strings.TrimPrefix(s.where, "../../")
				if testing.Verbose() {
					fmt.Printf("%s\t%q\n", where, s.text)
				}
				for pattern, instead := range private {
					if word := pattern.FindString(s.text); word != "" {
						t.Errorf("%s: %q in %q: say %s", where, word, s.text, instead)
					}
				}
				for pattern, what := range clumsy {
					if found := pattern.FindString(s.text); found != "" {
						t.Errorf("%s: %s (%q) in %q", where, what, found, s.text)
					}
				}
				if word := twice(s.text); word != "" {
					t.Errorf("%s: %q twice in %q", where, word, s.text)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if count < 500 {
		t.Errorf("only %d sentences were found", count)
	}
}
