package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"countersign/internal/redistest"
	"countersign/sandbox"
)

// build builds the program once for a test.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "countersign")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	return path
}

// spawn starts a process, waits until a line of its standard output matches
// says, and stops it in order at the end. It gives the match.
func spawn(t *testing.T, says string, environ []string, name string, args ...string) []string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), environ...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errs := &buffer{}
	cmd.Stderr = errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s %s did not stop in order: %v\n%s", filepath.Base(name), args[0], err, errs)
		} else if t.Failed() {
			t.Logf("%s %s logged:\n%s", filepath.Base(name), args[0], errs)
		}
	})
	found := make(chan []string, 1)
	go func() {
		pattern := regexp.MustCompile(says)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if m := pattern.FindStringSubmatch(lines.Text()); m != nil {
				found <- m
				break
			}
		}
		close(found)
		io.Copy(io.Discard, out)
	}()
	select {
	case m := <-found:
		if m == nil {
			t.Fatalf("%s %s ended without saying %q:\n%s", filepath.Base(name), args[0], says, errs)
		}
		return m
	case <-time.After(patience):
		t.Fatalf("%s %s did not say %q in time:\n%s", filepath.Base(name), args[0], says, errs)
	}
	return nil
}

// Two serve processes, a sandbox process and a real redis-server tell the
// same story.
func TestStoryAcrossProcesses(t *testing.T) {
	server := redistest.Start(t)
	if !server.Real() {
		t.Skip("this needs a real redis-server: apt-get install redis-server")
	}
	program, dir := build(t), t.TempDir()
	address := spawn(t, `open (http://\S+)`, nil, program, "sandbox", "-addr", "127.0.0.1:0", "-dir", dir, "-redis", server.URL())[1]

	raw, err := os.ReadFile(filepath.Join(dir, "env"))
	if err != nil {
		t.Fatal(err)
	}
	environ := strings.Split(strings.TrimSpace(string(raw)), "\n")
	for range 2 {
		spawn(t, `ready`, environ, program, "serve", "-config", filepath.Join(dir, "countersign.yaml"))
	}
	tellStory(&world{T: t, client: sandbox.NewClient(address)})
}

// The demo says where it is at once, and works without anything around it.
func TestDemo(t *testing.T) {
	out, in := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	log := &buffer{}
	go func() {
		ended <- run(ctx, []string{"demo", "-addr", "127.0.0.1:0"}, environment{Getenv: func(string) string { return "" }, Stdout: in, Stderr: log})
		in.Close()
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the demo did not stop in order: %v\n%s", err, log)
		}
	})
	lines := bufio.NewReader(out)
	first, err := lines.ReadString('\n')
	if err != nil {
		t.Fatalf("the demo said nothing: %v\n%s", err, log)
	}
	go io.Copy(io.Discard, lines)
	address := regexp.MustCompile(`http://\S+`).FindString(first)
	w := &world{T: t, client: sandbox.NewClient(address)}
	// The address is printed before the bot is connected; a person needs a
	// moment to get there.
	deadline, stop := context.WithTimeout(ctx, patience)
	defer stop()
	err = w.client.Wait(deadline, func() (bool, error) {
		calls, err := w.client.SlackCalls()
		return calls.Sockets > 0, err
	})
	if err != nil {
		t.Fatalf("the bot did not connect: %v\n%s", err, log)
	}
	tellStory(w)
}
