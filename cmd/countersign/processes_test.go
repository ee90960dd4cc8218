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

	"github.com/redis/go-redis/v9"

	"countersign/internal/redistest"
	"countersign/internal/testparallel"
	"countersign/sandbox"
)

// asTheProgram is the environment variable that makes the test binary be
// countersign itself, so that processes are tested with the race detector.
const asTheProgram = "COUNTERSIGN_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asTheProgram) != "" {
		main()
		return
	}
	redis.SetLogger(discardLogger{}) // as in main
	testparallel.Double()
	os.Exit(m.Run())
}

// itself is how to run the program as a process of its own.
func itself(t *testing.T, environ []string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(append(os.Environ(), asTheProgram+"=yes"), environ...)
	return cmd
}

// spawn starts a process, waits until a line of its standard output matches
// says, and stops it in order at the end. It gives the match.
func spawn(t *testing.T, says string, environ []string, args ...string) []string {
	t.Helper()
	cmd := itself(t, environ, args...)
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
			t.Errorf("%s did not stop in order: %v\n%s", args[0], err, errs)
		} else if t.Failed() {
			t.Logf("%s logged:\n%s", args[0], errs)
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
			t.Fatalf("%s ended without saying %q:\n%s", args[0], says, errs)
		}
		return m
	case <-time.After(patience):
		t.Fatalf("%s did not say %q in time:\n%s", args[0], says, errs)
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
	dir := t.TempDir()
	address := spawn(t, `open (http://\S+)`, nil, "sandbox", "-addr", "127.0.0.1:0", "-dir", dir, "-redis", server.URL())[1]

	raw, err := os.ReadFile(filepath.Join(dir, "env"))
	if err != nil {
		t.Fatal(err)
	}
	environ := strings.Split(strings.TrimSpace(string(raw)), "\n")
	for range 2 {
		spawn(t, `ready`, environ, "serve", "-config", filepath.Join(dir, "countersign.yaml"))
	}
	tellStory(&fixture{T: t, client: sandbox.NewClient(address)})
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
	w := &fixture{T: t, client: sandbox.NewClient(address)}
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
