package main

import (
	"context"
	"go/doc/comment"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The shell script in the sandbox's package comment plays the story with
// curl alone, against this bot.
func TestCurlStory(t *testing.T) {
	for _, tool := range []string{"sh", "curl", "grep", "cut", "tail", "sleep"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("CI needs %s", tool)
			}
			t.Skipf("there is no %s on the PATH", tool)
		}
	}
	file, err := parser.ParseFile(token.NewFileSet(), "../../sandbox/doc.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	for _, block := range new(comment.Parser).Parse(file.Doc.Text()).Content {
		if code, ok := block.(*comment.Code); ok && strings.Contains(code.Text, "curl") {
			script.WriteString(code.Text + "\n")
		}
	}
	w := startBot(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-eu", "-c", script.String())
	cmd.Env = append(os.Environ(), "B="+w.box.URL()+"/sandbox")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the script failed: %v\n%s", err, out)
	}
	dana, err := w.client.User(danaUPN)
	if err != nil {
		t.Fatal(err)
	}
	if got := kinds(dana); strings.Contains(got, "phone") || !strings.Contains(got, "fido2") {
		t.Errorf("after the script Dana has: %s", got)
	}
}
