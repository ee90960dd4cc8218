//go:build unix

package redistest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// MasterName is what the sentinels of a Failover call their master.
const MasterName = "countersign"

// failoverPatience is how long a fail-over may take on a busy machine.
// Sentinels that were not scheduled for two seconds do nothing for thirty.
const failoverPatience = 150 * time.Second

// Failover is a master with two replicas, watched by three sentinels that
// promote one of the replicas when the master is gone. All are processes of the
// installed redis-server, because nothing else fails over as it does.
type Failover struct {
	members   []*member
	sentinels []*member
}

// member is one process of a Failover.
type member struct {
	addr    string
	process *process
	paused  bool
}

// StartFailover starts all six, and returns when the sentinels know each other
// and the replicas are level with the master. Where only miniredis is to be
// used the test is skipped.
func StartFailover(t testing.TB) *Failover {
	t.Helper()
	bin, missing := exec.LookPath("redis-server")
	switch asked := os.Getenv(choice); {
	case asked == "mini":
		t.Skip("miniredis has no sentinels")
	case missing != nil && (asked == "real" || os.Getenv("CI") != ""):
		t.Fatalf("redistest: there is no redis-server on the PATH (%v); install it, or set %s=mini", missing, choice)
	case missing != nil:
		t.Skip("there is no redis-server here, and miniredis has no sentinels")
	}
	f := &Failover{}
	t.Cleanup(f.stop)
	start := func(args func(dir, port string) []string) *member {
		t.Helper()
		var err error
		for range 5 { // somebody else may take the free port first
			var free net.Listener
			if free, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
				t.Fatalf("redistest: looking for a free port: %v", err)
			}
			addr := free.Addr().String()
			free.Close()
			_, port, _ := net.SplitHostPort(addr)
			dir := t.TempDir()
			var p *process
			if p, err = launch(t, addr, bin, args(dir, port)...); err == nil {
				return &member{addr: addr, process: p}
			}
		}
		t.Fatalf("redistest: redis-server does not start: %v", err)
		return nil
	}
	for i := range 3 {
		f.members = append(f.members, start(func(dir, port string) []string {
			args := []string{"--bind", "127.0.0.1", "--port", port, "--dir", dir, "--save", "", "--appendonly", "no", "--loglevel", "warning",
				"--databases", "1", "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"}
			if i > 0 {
				host, master, _ := net.SplitHostPort(f.members[0].addr)
				args = append(args, "--replicaof", host+" "+master)
			}
			return args
		}))
	}
	host, port, _ := net.SplitHostPort(f.members[0].addr)
	for range 3 {
		f.sentinels = append(f.sentinels, start(func(dir, own string) []string {
			// Sentinels keep what they learn in their configuration.
			config := filepath.Join(dir, "sentinel.conf")
			lines := []string{
				"bind 127.0.0.1", "port " + own, "dir " + dir, "loglevel warning",
				fmt.Sprintf("sentinel monitor %s %s %s 2", MasterName, host, port),
				fmt.Sprintf("sentinel down-after-milliseconds %s %d", MasterName, masterAlive.Milliseconds()),
				"sentinel failover-timeout " + MasterName + " 3000",
				"sentinel parallel-syncs " + MasterName + " 2",
			}
			if err := os.WriteFile(config, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
				t.Fatalf("redistest: configuring a sentinel: %v", err)
			}
			return []string{config, "--sentinel"}
		}))
	}
	f.until(t, "the sentinels to know everybody", func() bool {
		for _, s := range f.sentinels {
			about := f.about(t, s)
			if about["num-slaves"] != "2" || about["num-other-sentinels"] != "2" || about["flags"] != "master" {
				return false
			}
		}
		return true
	})
	f.Level(t)
	return f
}

// Options are those of a client that asks the sentinels where the master is.
func (f *Failover) Options() *redis.FailoverOptions {
	o := &redis.FailoverOptions{MasterName: MasterName}
	for _, s := range f.sentinels {
		o.SentinelAddrs = append(o.SentinelAddrs, s.addr)
	}
	return o
}

// Client follows the master, and is closed when the test ends.
func (f *Failover) Client(t testing.TB) *redis.Client {
	t.Helper()
	rdb := redis.NewFailoverClient(f.Options())
	t.Cleanup(func() { rdb.Close() })
	return rdb
}

// Master is the server that is the master now, to be looked at.
func (f *Failover) Master(t testing.TB) *Server {
	t.Helper()
	return &Server{daemon: &daemon{addr: f.master(t).addr}}
}

// Level waits until the replicas have all that the master has.
func (f *Failover) Level(t testing.TB) {
	t.Helper()
	rdb := f.Client(t)
	f.until(t, "the replicas to be level", func() bool {
		info, err := rdb.Info(t.Context(), "replication").Result()
		if err != nil {
			return false
		}
		offset, replicas, level := "", 0, 0
		for line := range strings.Lines(info) {
			if at, ok := strings.CutPrefix(strings.TrimSpace(line), "master_repl_offset:"); ok {
				offset = at
			}
		}
		for line := range strings.Lines(info) {
			if strings.HasPrefix(line, "slave") && strings.Contains(line, ",state=") {
				replicas++
				if strings.Contains(line, ",state=online,offset="+offset+",") {
					level++
				}
			}
		}
		return level == replicas && replicas == f.living()-1
	})
}

func (f *Failover) living() (n int) {
	for _, member := range f.members {
		if member.process != nil {
			n++
		}
	}
	return n
}

// CutOff stops the replicas and cuts their connections, so that whatever the
// master confirms from now on is known to it alone.
func (f *Failover) CutOff(t testing.TB) {
	t.Helper()
	master := f.master(t)
	for _, n := range f.members {
		if n != master && n.process != nil {
			n.signal(t, syscall.SIGSTOP)
			n.paused = true
		}
	}
	// What the master sends to a process that stands still waits in its socket,
	// and would be read when it goes on.
	rdb := redis.NewClient(&redis.Options{Addr: master.addr})
	defer rdb.Close()
	f.until(t, "the master to be without replicas", func() bool {
		if err := rdb.Do(t.Context(), "CLIENT", "KILL", "TYPE", "replica").Err(); err != nil {
			t.Fatalf("redistest: cutting off the replicas: %v", err)
		}
		info, err := rdb.Info(t.Context(), "replication").Result()
		return err == nil && strings.Contains(info, "connected_slaves:0")
	})
}

// KillMaster kills the master, lets the replicas go on where they were stopped,
// and waits for the sentinels to have promoted one.
func (f *Failover) KillMaster(t testing.TB) {
	t.Helper()
	old := f.master(t)
	old.process.kill()
	old.process = nil
	for _, n := range f.members {
		if n.paused {
			n.signal(t, syscall.SIGCONT)
			n.paused = false
		}
	}
	f.downAfter(t, masterKilled)
	defer f.downAfter(t, masterAlive)
	f.until(t, "another master", func() bool {
		for _, s := range f.sentinels {
			if about := f.about(t, s); net.JoinHostPort(about["ip"], about["port"]) == old.addr {
				return false
			}
		}
		rdb := redis.NewClient(&redis.Options{Addr: f.master(t).addr, MaxRetries: -1})
		defer rdb.Close()
		info, err := rdb.Info(t.Context(), "replication").Result()
		return err == nil && strings.Contains(info, "role:master")
	})
}

// How long the sentinels do not hear of a master before it counts as down. One
// that was not killed may well be silent for seconds on a busy machine, and a
// fail-over that no test asked for would lose what it has confirmed.
const (
	masterAlive  = 10 * time.Minute
	masterKilled = time.Second
)

func (f *Failover) downAfter(t testing.TB, silence time.Duration) {
	t.Helper()
	for _, s := range f.sentinels {
		rdb := redis.NewSentinelClient(&redis.Options{Addr: s.addr})
		err := rdb.Set(t.Context(), MasterName, "down-after-milliseconds", strconv.FormatInt(silence.Milliseconds(), 10)).Err()
		rdb.Close()
		if err != nil {
			t.Fatalf("redistest: configuring a sentinel: %v", err)
		}
	}
}

// master is the member that the sentinels say it is.
func (f *Failover) master(t testing.TB) *member {
	t.Helper()
	about := f.about(t, f.sentinels[0])
	i := slices.IndexFunc(f.members, func(n *member) bool { return n.addr == net.JoinHostPort(about["ip"], about["port"]) })
	if i < 0 {
		t.Fatalf("redistest: the sentinels follow %v, which is none of ours", about)
	}
	return f.members[i]
}

// about is what a sentinel says of the master.
func (f *Failover) about(t testing.TB, sentinel *member) map[string]string {
	t.Helper()
	rdb := redis.NewSentinelClient(&redis.Options{Addr: sentinel.addr})
	defer rdb.Close()
	about, err := rdb.Master(t.Context(), MasterName).Result()
	if err != nil {
		t.Fatalf("redistest: asking a sentinel: %v", err)
	}
	return about
}

func (f *Failover) until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(failoverPatience); !done(); {
		if time.Now().After(end) {
			t.Fatalf("redistest: waited in vain for %s", what)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func (n *member) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := n.process.cmd.Process.Signal(s); err != nil {
		t.Fatalf("redistest: signalling %s: %v", n.addr, err)
	}
}

// stop kills all of them, also those that stand still.
func (f *Failover) stop() {
	for _, n := range slices.Concat(f.sentinels, f.members) {
		if n.process != nil {
			n.process.kill()
		}
	}
}
