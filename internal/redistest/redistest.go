// Package redistest gives a test a Redis of its own: a redis-server process
// where one is on the PATH, miniredis otherwise. The same tests run on both,
// because miniredis is forgiving where Redis is not, and a machine with only
// Go must be able to test at all.
//
// COUNTERSIGN_TEST_REDIS=real or =mini asks for one of them. Where CI is set
// and nothing was asked for, a missing redis-server fails the test: a build
// that silently tests less is worse than a red one.
//
// Only tests import this package.
package redistest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// choice is the environment variable that asks for one kind of Redis.
const choice = "COUNTERSIGN_TEST_REDIS"

// Option changes how a server is started.
type Option func(*Server)

// AppendOnly makes a real server write every command to its append-only file
// before it answers, so that a Restart loses nothing. miniredis never loses
// anything on Restart, with or without it.
func AppendOnly() Option { return func(s *Server) { s.appendOnly = true } }

// Server is one private Redis. Its methods that take t fail the test instead
// of returning errors.
type Server struct {
	addr       string
	appendOnly bool
	dir        string // of a real server
	bin        string // of a real server
	process    *process
	mini       *miniredis.Miniredis
}

// process is one run of redis-server.
type process struct {
	cmd    *exec.Cmd
	log    *strings.Builder
	exited chan struct{} // closed when it is gone and log is complete
}

// Start starts a server that lives as long as the test.
func Start(t testing.TB, options ...Option) *Server {
	t.Helper()
	s := &Server{}
	for _, o := range options {
		o(s)
	}
	bin, missing := exec.LookPath("redis-server")
	switch asked := os.Getenv(choice); {
	case asked == "mini":
		s.startMini(t)
	case asked != "" && asked != "real":
		t.Fatalf("redistest: %s is %q; it is real or mini", choice, asked)
	case missing == nil:
		s.bin, s.dir = bin, t.TempDir()
		s.startReal(t)
	case asked == "real" || os.Getenv("CI") != "":
		t.Fatalf("redistest: there is no redis-server on the PATH (%v); install it, or set %s=mini", missing, choice)
	default:
		s.startMini(t)
	}
	return s
}

// Real says that this is a redis-server and not miniredis.
func (s *Server) Real() bool { return s.mini == nil }

// Addr is the host and port to connect to. It stays the same over Restart.
func (s *Server) Addr() string { return s.addr }

// Client returns a client with its default settings, closed when the test
// ends.
func (s *Server) Client(t testing.TB) *redis.Client {
	t.Helper()
	rdb := redis.NewClient(&redis.Options{Addr: s.addr})
	t.Cleanup(func() { rdb.Close() })
	return rdb
}

// Kill ends the server the hard way, as a power cut would. Connections to it
// fail until Restart.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if s.mini != nil {
		s.mini.Close()
		return
	}
	s.stop()
}

// Restart starts a killed server again, at the same address, with what it had
// on disk: everything with AppendOnly, nothing without.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if s.mini != nil {
		// Its context ended with Kill, and without one it would leave every
		// blocking command without an answer.
		s.mini.Ctx, s.mini.CtxCancel = context.WithCancel(context.Background())
		if err := s.mini.Restart(); err != nil {
			t.Fatalf("redistest: restarting miniredis: %v", err)
		}
		return
	}
	if err := s.run(t, s.addr); err != nil {
		t.Fatalf("redistest: restarting redis-server: %v", err)
	}
}

func (s *Server) startMini(t testing.TB) {
	t.Helper()
	s.mini = miniredis.NewMiniRedis()
	s.mini.ClockTTL(true) // as in a real one, keys expire by themselves
	if err := s.mini.Start(); err != nil {
		t.Fatalf("redistest: starting miniredis: %v", err)
	}
	t.Cleanup(s.mini.Close)
	s.addr = s.mini.Addr()
}

func (s *Server) startReal(t testing.TB) {
	t.Helper()
	t.Cleanup(s.stop)
	var err error
	for range 5 { // somebody else may take the free port before Redis does
		var free net.Listener
		if free, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatalf("redistest: looking for a free port: %v", err)
		}
		addr := free.Addr().String()
		free.Close()
		if err = s.run(t, addr); err == nil {
			s.addr = addr
			return
		}
	}
	t.Fatalf("redistest: redis-server does not start: %v", err)
}

// run starts one process and waits until it, and no other process that took
// the port, answers.
func (s *Server) run(t testing.TB, addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	appendOnly := "no"
	if s.appendOnly {
		appendOnly = "yes"
	}
	p := &process{log: &strings.Builder{}, exited: make(chan struct{})}
	p.cmd = exec.Command(s.bin,
		"--bind", "127.0.0.1", "--port", port, "--dir", s.dir, "--save", "", "--loglevel", "warning", "--databases", "1",
		"--maxmemory-policy", "noeviction", "--appendonly", appendOnly, "--appendfsync", "always")
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		return err
	}
	s.process = p
	go func() {
		p.cmd.Wait() //nolint:errcheck // it is killed; how it ended says nothing
		close(p.exited)
	}()

	rdb := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, DialerRetries: 1, PoolSize: 1})
	defer rdb.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		conn, err := net.Dial("tcp", addr) // a client would write to standard error about each refusal
		if err != nil {
			if err := p.wait(ctx); err != nil {
				s.stop()
				return err
			}
			continue
		}
		conn.Close()
		info, err := rdb.Info(ctx, "server").Result()
		if err == nil && strings.Contains(info, "process_id:"+strconv.Itoa(p.cmd.Process.Pid)+"\r\n") {
			return nil
		}
		if err := p.wait(ctx); err != nil {
			s.stop()
			return err
		}
	}
}

// wait is the pause between two looks whether a process answers.
func (p *process) wait(ctx context.Context) error {
	select {
	case <-p.exited:
		return errors.New(cmp.Or(strings.TrimSpace(p.log.String()), "it ended without a word"))
	case <-ctx.Done():
		return fmt.Errorf("no answer within 20s: %w", ctx.Err())
	case <-time.After(2 * time.Millisecond):
		return nil
	}
}

func (s *Server) stop() {
	if s.process == nil {
		return
	}
	s.process.cmd.Process.Kill() //nolint:errcheck // it may be gone already
	<-s.process.exited
	s.process = nil
}

// Dump reads every key of every type as text: what somebody with a copy of
// this Redis would see. Its keys are the names of the keys.
func (s *Server) Dump(t testing.TB) map[string]string {
	t.Helper()
	ctx, rdb := t.Context(), s.Client(t)
	dump := map[string]string{}
	all := rdb.Scan(ctx, 0, "*", 1000).Iterator()
	for all.Next(ctx) {
		key := all.Val()
		kind, err := rdb.Type(ctx, key).Result()
		if err != nil {
			t.Fatalf("redistest: the type of %s: %v", key, err)
		}
		text, err := read(ctx, rdb, key, kind)
		if err != nil {
			t.Fatalf("redistest: reading %s: %v", key, err)
		}
		if kind != "none" { // expired in the meantime
			dump[key] = text
		}
	}
	if err := all.Err(); err != nil {
		t.Fatalf("redistest: listing keys: %v", err)
	}
	return dump
}

func read(ctx context.Context, rdb *redis.Client, key, kind string) (string, error) {
	var lines []string
	switch kind {
	case "none":
		return "", nil
	case "string":
		text, err := rdb.Get(ctx, key).Result()
		if errors.Is(err, redis.Nil) {
			err = nil
		}
		return text, err
	case "list":
		list, err := rdb.LRange(ctx, key, 0, -1).Result()
		return strings.Join(list, "\n"), err
	case "set":
		list, err := rdb.SMembers(ctx, key).Result()
		slices.Sort(list)
		return strings.Join(list, "\n"), err
	case "zset":
		list, err := rdb.ZRangeWithScores(ctx, key, 0, -1).Result()
		if err != nil {
			return "", err
		}
		for _, z := range list {
			lines = append(lines, fmt.Sprintf("%v %.0f", z.Member, z.Score))
		}
	case "hash":
		fields, err := rdb.HGetAll(ctx, key).Result()
		if err != nil {
			return "", err
		}
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			lines = append(lines, name+" "+fields[name])
		}
	case "stream":
		entries, err := rdb.XRange(ctx, key, "-", "+").Result()
		if err != nil {
			return "", err
		}
		for _, e := range entries {
			lines = append(lines, e.ID)
			for _, name := range slices.Sorted(maps.Keys(e.Values)) {
				lines = append(lines, fmt.Sprintf("\t%s %v", name, e.Values[name]))
			}
		}
		groups, err := rdb.XInfoGroups(ctx, key).Result()
		if err != nil {
			return "", err
		}
		for _, g := range groups {
			lines = append(lines, "group "+g.Name)
			readers, err := rdb.XInfoConsumers(ctx, key, g.Name).Result()
			if err != nil {
				return "", err
			}
			for _, r := range readers {
				lines = append(lines, "\treader "+r.Name)
			}
		}
	default:
		return "", fmt.Errorf("a %s is none of the types this package can read", kind)
	}
	return strings.Join(lines, "\n"), nil
}

// URL is the server's address as a configuration has it.
func (s *Server) URL() string { return "redis://" + s.addr }
