package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"countersign/approvals"
	"countersign/commands"
	"countersign/internal/redistest"
)

// An administrator asks the policy, and is answered from the tenant.
func TestPolicyExplain(t *testing.T) {
	server, dir := redistest.Start(t), t.TempDir()
	spawn(t, `open (http://\S+)`, nil, "sandbox", "-addr", "127.0.0.1:0", "-dir", dir, "-redis", server.URL())
	raw, err := os.ReadFile(filepath.Join(dir, "env"))
	if err != nil {
		t.Fatal(err)
	}
	environ := strings.Split(strings.TrimSpace(string(raw)), "\n")
	for _, tt := range []struct {
		as, command, target string
		fails               bool
		want                []string
	}{
		{"hanna.okafor@fernhill.example", "require-reregister", "dana.whitfield@fernhill.example", false, []string{
			"/entra-require-reregister (class destroy), used by Hanna Okafor (hanna.okafor@fernhill.example) on Dana Whitfield (dana.whitfield@fernhill.example):",
			"- Hanna Okafor (hanna.okafor@fernhill.example) may ask: in help-desk through the Entra group ", "[policy.classes.destroy]",
			"- It needs 1 approval [", "], by members of approvers [policy.classes.destroy] who", "- The command asks for: how the caller was verified (verified=in-person, ", "- The command asks for: a justification or a ticket.", "Not looked at",
		}},
		{"hanna.okafor@fernhill.example", "/entra-reset-password", "gloria.adeyemi@fernhill.example", false, []string{`- Refused (protected). They would be told: "Gloria Adeyemi`, "Global Administrator"}},
		{"olga.lindqvist@fernhill.example", "block-signin", "dana.whitfield@fernhill.example", false, []string{"- Olga Lindqvist (olga.lindqvist@fernhill.example) may use break-glass, 3 times an hour"}},
		{"dana.whitfield@fernhill.example", "methods", "hanna.okafor@fernhill.example", false, []string{`- Refused (not-allowed). They would be told: "You may not use this command.`}},
		{"hanna.okafor@fernhill.example", "make-coffee", "dana.whitfield@fernhill.example", true, []string{`there is no command "make-coffee"`}},
		{"hanna", "methods", "", true, []string{`-as: no single account is called "hanna"`}},
		{"hanna.okafor@fernhill.example", "", "", true, []string{"say with -command which command"}},
		{"dana.whitfield@fernhill.example", "help", "hanna.okafor@fernhill.example", false, []string{"/entra-help (class read), used by Dana Whitfield (dana.whitfield@fernhill.example):", "-target counts for nothing", "answered to everybody"}},
		{"dana.whitfield@fernhill.example", "requests", "", false, []string{"Their own requests are shown to everybody", "and the requests of others:\n- Refused (not-allowed). They would be told:"}},
		{"hanna.okafor@fernhill.example", "requests", "", false, []string{"and the requests of others:\n- Hanna Okafor (hanna.okafor@fernhill.example) may ask: in help-desk"}},
		{"", "methods", "", true, []string{"say with -as who would use the command"}},
	} {
		cmd := itself(t, environ, "policy", "explain", "-config", filepath.Join(dir, "countersign.yaml"), "-as", tt.as, "-command", tt.command, "-target", tt.target)
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
		err := cmd.Run()
		if (err != nil) != tt.fails {
			t.Errorf("%s, %s: %v\n%s", tt.as, tt.command, err, &said)
		}
		for _, part := range tt.want {
			if !strings.Contains(said.String(), part) {
				t.Errorf("%s, %s does not say %q:\n%s", tt.as, tt.command, part, &said)
			}
		}
	}

	// A Redis that is away is named, and at once, where the policy needs it.
	path := filepath.Join(dir, "countersign.yaml")
	if raw, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	var settings map[string]any
	if err := yaml.Unmarshal(raw, &settings); err != nil {
		t.Fatal(err)
	}
	settings["redis"] = map[string]any{"url": "redis://127.0.0.1:1"}
	settings["policy"].(map[string]any)["groups"].(map[string]any)["night-shift"] = map[string]any{"slack_groups": []string{"S0NIGHT"}}
	if raw, err = yaml.Marshal(settings); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	environ = slices.DeleteFunc(environ, func(pair string) bool { return strings.HasPrefix(pair, "COUNTERSIGN_REDIS_") })
	cmd := itself(t, environ, "policy", "explain", "-config", path, "-as", "hanna.okafor@fernhill.example", "-command", "methods")
	if said, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(said), "Redis does not answer") {
		t.Errorf("without Redis: %v\n%s", err, said)
	}
}

// What a command asks for is what the form and the bot ask for: a ticket stands
// in for a justification, and nobody verifies themselves.
func TestRequiredFieldsOfCommands(t *testing.T) {
	const caller = "how the caller was verified (verified=in-person, video, callback, manager, compromise)"
	for _, c := range []struct {
		command string
		needs   commands.Needs
		want    string
	}{
		{"reset-password", commands.Needs{}, caller + "; a justification or a ticket"},
		{"reset-password", commands.Needs{Fields: []string{"ticket"}}, caller},
		{"reset-password", commands.Needs{Fields: []string{"justification"}, Verified: []string{"video"}}, "how the caller was verified (verified=video)"},
		{"reset-password", commands.Needs{Self: true}, "a justification or a ticket"},
		{"block-signin", commands.Needs{}, ""},
		{"methods", commands.Needs{}, ""},
	} {
		command, _ := commands.Lookup(c.command)
		if got := strings.Join(requiredFields(command, approvals.Person{ID: "x"}, c.needs), "; "); got != c.want {
			t.Errorf("%s with %+v: %q, want %q", c.command, c.needs, got, c.want)
		}
	}
}
