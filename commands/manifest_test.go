package commands

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"countersign/entra"
)

// The schema is Slack's own (see testdata/README.md). What it lets through
// although Slack does not is checked manually.
func TestManifest(t *testing.T) {
	f, err := os.Open("testdata/slack-manifest.schema.1.0.0.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	schema, err := jsonschema.UnmarshalJSON(f)
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	// Go has no look-ahead; the two patterns with one are about domains, of
	// which our manifest has none.
	compiler.UseRegexpEngine(func(s string) (jsonschema.Regexp, error) {
		return regexp.Compile(strings.ReplaceAll(s, `(?![\.\-])`, ""))
	})
	if err := compiler.AddResource("manifest.json", schema); err != nil {
		t.Fatal(err)
	}
	compiled, err := compiler.Compile("manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"entra-", "fernhill-", ""} {
		var tree any
		if err := yaml.Unmarshal(Manifest(prefix), &tree); err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(tree)
		if err != nil {
			t.Fatal(err)
		}
		instance, err := jsonschema.UnmarshalJSON(strings.NewReader(string(data)))
		if err != nil {
			t.Fatal(err)
		}
		if err := compiled.Validate(instance); err != nil {
			t.Errorf("prefix %q: %v", prefix, err)
		}
	}

	var m manifest
	if err := yaml.Unmarshal(Manifest("entra-"), &m); err != nil {
		t.Fatal(err)
	}
	known := regexp.MustCompile(`^(commands|chat:write|im:write|users:read|users:read\.email|usergroups:read|channels:read|groups:read)$`)
	for _, s := range m.OAuth.Scopes.Bot {
		if !known.MatchString(s) {
			t.Errorf("scope %s", s)
		}
	}
	if !regexp.MustCompile(`^#[0-9a-f]{6}$`).MatchString(m.Display.Background) || !slices.Equal(m.Settings.Events.Bot, []string{"app_home_opened"}) ||
		!m.Settings.SocketMode || !m.Settings.Interactivity.Enabled {
		t.Errorf("%+v", m)
	}
	if len(m.Features.Commands) != len(Table()) {
		t.Errorf("%d commands", len(m.Features.Commands))
	}
	for _, c := range m.Features.Commands {
		if !regexp.MustCompile(`^/[a-z-]{1,31}$`).MatchString(c.Command) || !c.Escape || utf8.RuneCountInString(c.Description) > 100 {
			t.Errorf("%+v", c)
		}
	}
}

func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Table() {
		if seen[c.Name] {
			t.Errorf("%s is there twice", c.Name)
		}
		seen[c.Name] = true
		if got, ok := Lookup(c.Name); !ok || got.Name != c.Name {
			t.Errorf("%s is not found", c.Name)
		}
		if c.Title == "" || c.Usage == "" || c.Does == "" || len(c.Help) < 100 || len(c.Permissions) == 0 || c.Class == "" || (c.plan != nil) != (c.Class != "read") {
			t.Errorf("something is missing in %+v", c)
		}
		if needs := Verifications(c) != nil; needs != slices.Contains(Missing(c, Input{}, Needs{}), FieldVerified) {
			t.Errorf("%s: verifications are offered: %v", c.Name, needs)
		}
		if in, problems := Parse(c, c.Usage); c.Target && (len(problems) != 1 || problems[0].Field != FieldTarget) {
			t.Errorf("the usage %q is read as %v with %v", c.Usage, show(in), problems)
		}
	}
	if _, ok := Lookup("entra-methods"); ok {
		t.Error("the prefix is not part of the name")
	}
	for _, p := range Permissions() {
		if len(UsedBy(p)) == 0 {
			t.Errorf("nothing needs %s", p)
		}
	}
	if got := UsedBy(entra.PermPasskeyWrite); !slices.Contains(got, "require-reregister everything") || slices.Contains(got, "require-reregister") {
		t.Errorf("passkeys are deleted by %q", got)
	}
	lines := strings.Split(strings.TrimSpace(MarkdownTable("entra-")), "\n")
	if len(lines) != len(Table())+2 || !strings.HasPrefix(lines[2], "| `/entra-methods @user` | show a person") || !strings.Contains(lines[len(lines)-2], `[mine\|pending\|ID]`) {
		t.Errorf("the README's table:\n%s", strings.Join(lines, "\n"))
	}
}
