// Package redistest gives a test a Redis of its own: a redis-server process
// where one is on the PATH, miniredis otherwise. The same tests run on both,
// because miniredis is forgiving where Redis is not, and a machine with only
// Go must be able to test at all. They also run on a Redis Cluster, which
// refuses and forgets things that a single server does not.
//
// COUNTERSIGN_TEST_REDIS says which:
//
//	real     one redis-server
//	mini     miniredis, in the process of the test
//	cluster  three redis-servers that are one Redis Cluster
//
// Where CI is set and nothing was asked for, a missing redis-server fails the
// test: a build that silently tests less is worse than a red one.
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

// With starts real servers with more arguments, such as "--min-replicas-to-write",
// "1"; they win over those of this package. miniredis takes none.
func With(arguments ...string) Option {
	return func(s *Server) { s.with = append(s.with, arguments...) }
}

// WithPort starts real servers with one more port of their own, such as
// "--tls-port", and stores its number. Neither a cluster nor miniredis has one.
func WithPort(argument string, number *string) Option {
	return func(s *Server) { s.ports = append(s.ports, port{argument, number}) }
}

type port struct {
	argument string
	number   *string
}

// Server is one private Redis. Its methods that take t fail the test instead
// of returning errors.
type Server struct {
	*daemon    // the only one, or the one of the cluster that has the slot of {countersign}
	asked      string
	appendOnly bool
	with       []string // more arguments
	ports      []port   // more ports
	cluster    *cluster
	mini       *miniredis.Miniredis // then of the daemon there is only the address
}

// daemon is a redis-server at one address, and what it is started with.
type daemon struct {
	addr       string
	bin, dir   string
	appendOnly bool
	more       []string // arguments
	process    *process // nil while there is none
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
	environment := os.Getenv(choice)
	s := &Server{daemon: &daemon{}, asked: environment}
	for _, o := range options {
		o(s)
	}
	bin, missing := exec.LookPath("redis-server")
	switch {
	case !slices.Contains([]string{"", "real", "mini", "cluster"}, environment):
		t.Fatalf("redistest: %s is %q; it is real, mini or cluster", choice, environment)
	case s.asked == "mini":
		s.startMini(t)
	case missing == nil && s.asked == "cluster":
		s.startCluster(t, bin)
	case missing == nil:
		s.daemon = &daemon{bin: bin, dir: t.TempDir(), appendOnly: s.appendOnly}
		s.startReal(t)
	case s.asked == environment && environment != "" || os.Getenv("CI") != "":
		t.Fatalf("redistest: there is no redis-server on the PATH (%v); install it, or set %s=mini", missing, choice)
	case s.asked == "cluster":
		t.Skip("there is no redis-server here, and miniredis is no cluster")
	default:
		s.startMini(t)
	}
	return s
}

// Real says that this is redis-server and not miniredis.
func (s *Server) Real() bool { return s.mini == nil }

// Addr is the host and port to connect to; of a cluster, those of the node
// that has the slot of {countersign}. It stays the same over Restart.
func (s *Server) Addr() string { return s.addr }

// Addrs are the hosts and ports of all nodes of a cluster, or the only one.
func (s *Server) Addrs() []string {
	var all []string
	for _, d := range s.daemons() {
		all = append(all, d.addr)
	}
	return all
}

// URL is the address as a configuration has it; of a cluster, in the form of
// redis.ParseClusterURL.
func (s *Server) URL() string {
	all := s.Addrs()
	address := "redis://" + all[0]
	if len(all) > 1 {
		address += "?addr=" + strings.Join(all[1:], "&addr=")
	}
	return address
}

func (s *Server) daemons() []*daemon {
	if s.cluster != nil {
		return s.cluster.nodes
	}
	return []*daemon{s.daemon}
}

// Client returns a client with its default settings, closed when the test
// ends.
func (s *Server) Client(t testing.TB) redis.UniversalClient {
	t.Helper()
	return s.ClientWith(t, func(*redis.UniversalOptions) {})
}

// ClientWith returns a client with settings of the test's, closed when the
// test ends. MaxRetries -1 means also in a cluster that nothing is tried
// twice, unless MaxRedirects says something else.
func (s *Server) ClientWith(t testing.TB, set func(*redis.UniversalOptions)) redis.UniversalClient {
	t.Helper()
	o := &redis.UniversalOptions{Addrs: s.Addrs()}
	set(o)
	var rdb redis.UniversalClient
	if s.cluster != nil {
		c := o.Cluster()
		c.DisableRoutingPolicies = true // what has no key goes to one node and not to all
		if c.MaxRetries < 0 && c.MaxRedirects == 0 {
			c.MaxRedirects = -1
		}
		rdb = redis.NewClusterClient(c)
	} else {
		rdb = redis.NewClient(o.Simple())
	}
	t.Cleanup(func() { rdb.Close() })
	return rdb
}

// Each calls f with a client of every node of a cluster, or of the only
// server: for what has no key.
func (s *Server) Each(t testing.TB, f func(rdb *redis.Client)) {
	t.Helper()
	for _, d := range s.daemons() {
		rdb := redis.NewClient(&redis.Options{Addr: d.addr})
		f(rdb)
		rdb.Close()
	}
}

// Keys lists the keys that match pattern, wherever they are.
func (s *Server) Keys(t testing.TB, pattern string) []string {
	t.Helper()
	var all []string
	s.Each(t, func(rdb *redis.Client) {
		keys, err := rdb.Keys(t.Context(), pattern).Result()
		if err != nil {
			t.Fatalf("redistest: listing keys: %v", err)
		}
		all = append(all, keys...)
	})
	return all
}

// Empty removes all keys, wherever they are.
func (s *Server) Empty(t testing.TB) {
	t.Helper()
	s.Each(t, func(rdb *redis.Client) {
		if err := rdb.FlushAll(t.Context()).Err(); err != nil {
			t.Fatalf("redistest: removing all keys: %v", err)
		}
	})
}

// Kill ends the server the hard way, as a power cut would. Connections to it
// fail until Restart. Of a cluster it ends the node that has the slot of
// {countersign}; the others answer as they do then.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if s.mini != nil {
		// Its Close alone would make a script that is running answer with an error,
		// which a process that is killed never does. This cuts the connections and
		// waits for the scripts first.
		s.mini.CtxCancel()
		s.mini.Server().Close()
		s.mini.Close()
		return
	}
	if s.cluster != nil {
		s.cluster.worn = true
	}
	s.stop()
}

// Restart starts a killed server again, at the same address, with what it had
// on disk: everything with AppendOnly, nothing without. Of a cluster it waits
// until all nodes serve again.
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
	err := s.run(t, s.addr)
	// Meanwhile the system may have given the port to a connection, which ends soon.
	for tries := 0; err != nil && strings.Contains(err.Error(), "Address already in use") && tries < 100; tries++ {
		time.Sleep(100 * time.Millisecond)
		err = s.run(t, s.addr)
	}
	if err != nil {
		t.Fatalf("redistest: restarting redis-server: %v", err)
	}
	if s.cluster != nil {
		if err := s.cluster.await(); err != nil {
			t.Fatalf("redistest: restarting a node of the cluster: %v", err)
		}
	}
}

func (s *Server) startMini(t testing.TB) {
	t.Helper()
	s.mini = miniredis.NewMiniRedis()
	if err := s.mini.Start(); err != nil {
		t.Fatalf("redistest: starting miniredis: %v", err)
	}
	t.Cleanup(s.mini.Close)
	t.Cleanup(expireKeys(s.mini))
	s.addr = s.mini.Addr()
}

// expireKeys lets keys expire by themselves, as in a real Redis, to the precision
// of a few milliseconds, until stop. With ClockTTL miniredis does so too, but then
// it sorts all keys at every command, which makes thousands of keys slow.
func expireKeys(m *miniredis.Miniredis) (stop func()) {
	const precision = 10 * time.Millisecond
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(precision)
		defer tick.Stop()
		for last := time.Now(); ; {
			select {
			case <-done:
				return
			case now := <-tick.C:
				m.FastForward(now.Sub(last))
				last = now
			}
		}
	}()
	return func() { close(done); <-ended }
}

func (s *Server) startReal(t testing.TB) {
	t.Helper()
	t.Cleanup(s.stop)
	var err error
	for range 5 { // somebody else may take the free ports before Redis does
		var numbers []string
		if numbers, err = freePorts(1 + len(s.ports)); err != nil {
			t.Fatalf("redistest: %v", err)
		}
		s.more = slices.Clone(s.with)
		for i, p := range s.ports {
			*p.number = numbers[i+1]
			s.more = append(s.more, p.argument, *p.number)
		}
		if err = s.run(t, net.JoinHostPort("127.0.0.1", numbers[0])); err == nil {
			return
		}
	}
	t.Fatalf("redistest: redis-server does not start: %v", err)
}

// run starts one process and waits until it, and no other process that took
// the port, answers.
func (d *daemon) run(t testing.TB, addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	appendOnly := "no"
	if d.appendOnly {
		appendOnly = "yes"
	}
	args := []string{
		"--bind", "127.0.0.1", "--port", port, "--dir", d.dir, "--save", "", "--loglevel", "warning", "--databases", "1",
		"--maxmemory-policy", "noeviction", "--appendonly", appendOnly, "--appendfsync", "always",
	}
	d.addr = addr
	d.process, err = launch(t, addr, d.bin, append(args, d.more...)...)
	return err
}

// client talks to this server alone, whatever it knows of others.
func (d *daemon) client() *redis.Client {
	return redis.NewClient(&redis.Options{Addr: d.addr, MaxRetries: -1, DialerRetries: 1, PoolSize: 1})
}

// launch starts one process and waits until it answers at addr.
func launch(t testing.TB, addr, bin string, args ...string) (*process, error) {
	p := &process{log: &strings.Builder{}, exited: make(chan struct{})}
	p.cmd = exec.Command(bin, args...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.cmd.Wait() //nolint:errcheck // it is killed; how it ended says nothing
		close(p.exited)
	}()

	rdb := (&daemon{addr: addr}).client()
	defer rdb.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		conn, err := net.Dial("tcp", addr) // a client would write to standard error about each refusal
		if err != nil {
			if err := p.wait(ctx, 2*time.Millisecond); err != nil {
				p.kill()
				return nil, err
			}
			continue
		}
		conn.Close()
		info, err := rdb.Info(ctx, "server").Result()
		if err == nil && strings.Contains(info, "process_id:"+strconv.Itoa(p.cmd.Process.Pid)+"\r\n") {
			return p, nil
		}
		if err := p.wait(ctx, 2*time.Millisecond); err != nil {
			p.kill()
			return nil, err
		}
	}
}

// wait is the pause between two looks whether a process answers.
func (p *process) wait(ctx context.Context, pause time.Duration) error {
	select {
	case <-p.exited:
		return errors.New(cmp.Or(strings.TrimSpace(p.log.String()), "it ended without a word"))
	case <-ctx.Done():
		return fmt.Errorf("it does not answer: %w", ctx.Err())
	case <-time.After(pause):
		return nil
	}
}

func (d *daemon) stop() {
	if d.process == nil {
		return
	}
	d.process.kill()
	d.process = nil
}

func (p *process) kill() {
	p.cmd.Process.Kill() //nolint:errcheck // it may be gone already
	<-p.exited
}

// Dump reads every key of every type as text: what somebody with a copy of
// this Redis would see. Its keys are the names of the keys.
func (s *Server) Dump(t testing.TB) map[string]string {
	t.Helper()
	dump := map[string]string{}
	s.Each(t, func(rdb *redis.Client) { dumpInto(t, rdb, dump) })
	return dump
}

func dumpInto(t testing.TB, rdb *redis.Client, dump map[string]string) {
	t.Helper()
	ctx := t.Context()
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
