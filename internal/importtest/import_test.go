// Package importtest holds the arrows of the architecture: who may import
// whom. It has nothing but this test. A new package has to be entered here,
// with what it may know.
package importtest

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

// arrows are the packages of this module and which others each may import:
//
//	cmd → bot → commands → {approvals, entra}    approvals → audit
//
// A package may also import what stands below its neighbours. Nobody imports
// cmd, only cmd and tests import the sandbox, and only tests import
// internal/redistest, internal/testnet, internal/testparallel, internal/testseed and internal/writes.
var arrows = map[string][]string{
	"cmd/countersign": {"bot", "commands", "approvals", "entra", "audit", "sandbox", "sandbox/entra", "sandbox/slack"},
	"bot":             {"commands", "approvals", "audit"}, // it calls no Graph
	"commands":        {"approvals", "entra", "audit"},    // it knows no Slack
	"approvals":       {"audit", "internal/files"},        // it knows neither
	"entra":           {},
	"audit":           {"internal/files"},

	"sandbox":       {"sandbox/entra", "sandbox/slack"},
	"sandbox/entra": {},
	"sandbox/slack": {},

	"internal/files":        {},
	"internal/redistest":    {},
	"internal/testnet":      {},
	"internal/testparallel": {},
	"internal/testseed":     {},
	"internal/wording":      {},
	"internal/writes":       {},
}

// forTests is what a test of any package may import besides.
var forTests = []string{"sandbox", "sandbox/entra", "sandbox/slack", "internal/redistest", "internal/testnet", "internal/testparallel", "internal/testseed", "internal/writes"}

// strangers are modules that a package must not even reach through others,
// its tests included.
var strangers = map[string][]string{
	"approvals": {"github.com/microsoftgraph/", "github.com/microsoft/kiota", "github.com/Azure/", "github.com/slack-go/"},
	"audit":     {"github.com/microsoftgraph/", "github.com/microsoft/kiota", "github.com/Azure/", "github.com/slack-go/", "github.com/redis/"},
	"entra":     {"github.com/slack-go/", "github.com/redis/"},
	"commands":  {"github.com/slack-go/"},
}

const (
	module = "countersign"
	// The root package of the Graph SDK pulls in every request builder there
	// is: minutes of compiling, and a binary several times the size.
	sdk = "github.com/microsoftgraph/msgraph-sdk-go"
)

type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// list runs go list in the root of the module.
func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports"}, args...)...)
	cmd.Dir = path.Join("..", "..")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("go list answered something else than JSON: %v", err)
		}
		all = append(all, p)
	}
}

// ours is the path of a package within this module.
func ours(importPath string) (string, bool) {
	return strings.CutPrefix(importPath, module+"/")
}

func TestArrows(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range list(t, "./...") {
		name, ok := ours(p.ImportPath)
		if !ok || name == "internal/importtest" {
			continue
		}
		seen[name] = true
		allowed, known := arrows[name]
		if !known {
			t.Errorf("%s is not in the list of arrows: enter what it may import", name)
			continue
		}
		for _, imported := range p.Imports {
			if to, own := ours(imported); own && !slices.Contains(allowed, to) {
				t.Errorf("%s imports %s; it may import %v", name, to, allowed)
			}
			if name != "entra" && name != "commands" && name != "cmd/countersign" && strings.HasPrefix(imported, sdk) {
				t.Errorf("%s imports %s: only entra and what stands on it talk to Graph", name, imported)
			}
		}
		for _, imported := range slices.Concat(p.TestImports, p.XTestImports) {
			if to, own := ours(imported); own && to != name && !slices.Contains(allowed, to) && !slices.Contains(forTests, to) {
				t.Errorf("a test of %s imports %s; it may import %v and %v", name, to, allowed, forTests)
			}
		}
	}
	for name := range maps.Keys(arrows) {
		if !seen[name] {
			t.Errorf("%s is in the list of arrows and not in the module", name)
		}
	}
}

func TestStrangers(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(strangers)) {
		deps := list(t, "-deps", "-test", "./"+name)
		if name == "entra" || name == "commands" { // their tests start the whole sandbox
			deps = list(t, "-deps", "./"+name)
		}
		if len(deps) < 10 {
			t.Errorf("%s has %d dependencies, which cannot be", name, len(deps))
		}
		for _, p := range deps {
			if i := slices.IndexFunc(strangers[name], func(s string) bool { return strings.HasPrefix(p.ImportPath, s) }); i >= 0 {
				t.Errorf("%s reaches %s", name, p.ImportPath)
			}
		}
	}
}

func TestNobodyImportsTheWholeSDK(t *testing.T) {
	for _, p := range list(t, "-deps", "-test", "./...") {
		if importPath, _, _ := strings.Cut(p.ImportPath, " "); importPath == sdk { // the rest names a test's variant
			t.Errorf("the module reaches %s; import its subpackages", sdk)
		}
	}
}
