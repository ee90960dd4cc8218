package approvals

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"countersign/internal/redistest"
)

// limited is a store whose Redis user has these words of an ACL rule and
// nothing else.
func limited(t *testing.T, server *redistest.Server, words []string) *Store {
	t.Helper()
	rule := append([]string{"acl", "setuser", "limited", "reset", "on", ">secret", "resetchannels", "-@all"}, words...)
	if len(server.Addrs()) > 1 {
		rule = append(rule, "+cluster|slots") // where the keys are, which the client of a cluster asks
	}
	args := make([]any, len(rule))
	for i, word := range rule {
		args[i] = word
	}
	server.Each(t, func(rdb *redis.Client) {
		if err := rdb.Do(t.Context(), args...).Err(); err != nil {
			t.Fatalf("the rule %s: %v", strings.Join(words, " "), err)
		}
	})
	rdb := server.ClientWith(t, func(o *redis.UniversalOptions) {
		o.Username, o.Password, o.DisableIdentity = "limited", "secret", true
	})
	ring, err := ParseRing(testKeys)
	if err != nil {
		t.Fatal(err)
	}
	return NewStore(rdb, ring, "", longTimings())
}

// Access names exactly what the user lacks, whatever that is, and leaves
// nothing behind. What the rule must hold is shown by running with it: see
// the package cmd/countersign.
func TestMissingACLRules(t *testing.T) {
	server := redistest.Start(t)
	if !server.Real() {
		t.Skip("miniredis has no users: this needs a real redis-server")
	}
	words := ACLRules("")
	check := func(given, want []string) {
		t.Helper()
		missing, err := limited(t, server, given).MissingACLRules(t.Context())
		if err != nil || !slices.Equal(missing, want) {
			t.Errorf("missing: %v %v, want %v", missing, err, want)
		}
	}
	check(words, nil)
	for i, word := range words {
		check(slices.Delete(slices.Clone(words), i, i+1), []string{word})
	}
	foreign := slices.Clone(words)
	foreign[0] = ACLRules("another")[0]
	check(foreign, words[:1])
	check(slices.Delete(slices.Clone(words), 1, 3), words[1:3])
	if left := server.Keys(t, "*"); len(left) > 0 {
		t.Errorf("asking left %v", left)
	}
}

// The rule has what the sources use, and nothing else.
func TestACLRulesAreWhatIsUsed(t *testing.T) {
	names := map[string]string{ // methods that are not called as their command is
		"XPendingExt": "xpending", "XRangeN": "xrange", "XTrimMinID": "xtrim", "ZAddArgs": "zadd", "SetNX": "set", "SetArgs": "set",
		"XGroupCreateMkStream": "xgroup|create", "ZRangeByScoreWithScores": "zrangebyscore", "ZRangeWithScores": "zrange",
		"TxPipeline": "multi exec", "Pipeline": "", "Keys": "",
	}
	client := reflect.TypeFor[redis.Cmdable]()
	for i := range client.NumMethod() {
		name := client.Method(i).Name
		if _, known := names[name]; !known {
			names[name] = strings.ToLower(name)
		}
	}
	used := map[string]bool{"eval": true, "evalsha": true}
	inScript := regexp.MustCompile(`redis\.p?call\('(\w+)'`)
	all, err := filepath.Glob("*.*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if strings.HasSuffix(name, "_test.go") || name == "access.go" {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range inScript.FindAllStringSubmatch(string(text), -1) {
			used[strings.ToLower(call[1])] = true
		}
		if !strings.HasSuffix(name, ".go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, text, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			asked := len(call.Args) == 0
			if !asked {
				first, named := call.Args[0].(*ast.Ident)
				asked = named && first.Name == "ctx"
			}
			if command := names[sel.Sel.Name]; asked && command != "" {
				for word := range strings.FieldsSeq(command) {
					used[word] = true
				}
			}
			if sel.Sel.Name == "Do" && len(call.Args) > 1 {
				if word, literal := call.Args[1].(*ast.BasicLit); literal {
					used[strings.ToLower(strings.Trim(word.Value, `"`))] = true
				}
			}
			return true
		})
	}
	granted := map[string]bool{}
	for _, word := range ACLRules("")[1:] {
		granted[strings.TrimPrefix(word, "+")] = true
	}
	for _, command := range sortedKeys(used) {
		if !granted[command] {
			t.Errorf("%s is used and not granted: enter a sample of it in access.go", command)
		}
	}
	for _, command := range sortedKeys(granted) {
		if !used[command] {
			t.Errorf("%s is granted and not used any more: take it out of access.go", command)
		}
	}
}

// A Redis that knows no users, or is not asked as one, lacks nothing.
func TestACLRulesForEverybody(t *testing.T) {
	w := newFixture(t, longTimings())
	if missing, err := w.store.MissingACLRules(t.Context()); err != nil || len(missing) > 0 {
		t.Errorf("missing: %v %v", missing, err)
	}
}
