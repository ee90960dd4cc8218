package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
			"- It needs 1 approval within ", "by members of approvers", "- The command asks for: verified.", "Not looked at",
		}},
		{"hanna.okafor@fernhill.example", "/entra-reset-password", "gloria.adeyemi@fernhill.example", false, []string{"- Refused (protected): Gloria Adeyemi", "Global Administrator"}},
		{"olga.lindqvist@fernhill.example", "block-signin", "dana.whitfield@fernhill.example", false, []string{"- Olga Lindqvist (olga.lindqvist@fernhill.example) may break the glass, 3 times within 1h"}},
		{"dana.whitfield@fernhill.example", "methods", "hanna.okafor@fernhill.example", false, []string{"- Refused (not-allowed): You may not use this command."}},
		{"hanna.okafor@fernhill.example", "make-coffee", "dana.whitfield@fernhill.example", true, []string{`there is no command "make-coffee"`}},
		{"hanna", "methods", "", true, []string{`-as: no single account is called "hanna"`}},
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
}
