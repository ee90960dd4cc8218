package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A cluster here is three masters without replicas that divide the slots
// among themselves. They are started with what they know of one another
// written down already, so nobody has to be introduced to anybody.

const (
	masters = 3
	slots   = 16384
)

// homeKey has the hash tag of the keys that are looked for: what Countersign
// uses unless it is told otherwise.
const homeKey = "{countersign}"

// Cluster asks for a Redis Cluster, whatever the environment asks for. Without
// a redis-server the test is skipped, or fails where CI is set.
func Cluster() Option { return func(s *Server) { s.asked = "cluster" } }

// spare has the emptied clusters of tests that are over. It is the only thing
// that the tests of one binary share, and only because a master takes no
// writes in the first two seconds of its life.
var spare struct {
	sync.Mutex
	keep     bool
	clusters []*cluster
}

// Keep makes the tests of m hand on their clusters, instead of waiting for new
// ones: whoever comes next gets one without keys, scripts, connections or
// changed settings. A cluster that was killed, or in which the settings were
// changed, is not handed on. It is for TestMain, as m is.
func Keep(m *testing.M) interface{ Run() int } { return keeper{m} }

type keeper struct{ *testing.M }

func (k keeper) Run() int {
	spare.Lock()
	spare.keep = true
	spare.Unlock()
	code := k.M.Run()
	spare.Lock()
	defer spare.Unlock()
	for _, c := range spare.clusters {
		c.stop()
	}
	spare.keep, spare.clusters = false, nil
	return code
}

// cluster is the processes of one Redis Cluster.
type cluster struct {
	dir   string
	nodes []*daemon
	home  *daemon // which has the slot of homeKey
	asNew string  // settings and users of all nodes at the beginning
	worn  bool    // not to be handed on
}

func (s *Server) startCluster(t testing.TB, bin string) {
	t.Helper()
	var c *cluster
	special := s.appendOnly || len(s.with) > 0
	spare.Lock()
	if n := len(spare.clusters); n > 0 && !special {
		c, spare.clusters = spare.clusters[n-1], spare.clusters[:n-1]
	}
	spare.Unlock()
	if c == nil {
		var err error
		for range 5 { // somebody else may take the free ports before Redis does
			if c, err = newCluster(t, bin, s.appendOnly, s.with); err == nil {
				break
			}
		}
		if err != nil {
			t.Fatalf("redistest: the cluster does not start: %v", err)
		}
		c.worn = special
	}
	s.cluster, s.daemon = c, c.home
	t.Cleanup(func() {
		spare.Lock()
		keep := spare.keep && !c.worn
		spare.Unlock()
		if !keep || !c.empty() {
			c.stop()
			return
		}
		spare.Lock()
		defer spare.Unlock()
		spare.clusters = append(spare.clusters, c)
	})
}

func newCluster(t testing.TB, bin string, appendOnly bool, with []string) (c *cluster, err error) {
	c = &cluster{}
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	if c.dir, err = os.MkdirTemp("", "countersign-cluster-"); err != nil { // it may outlive the test
		return c, err
	}
	ports, err := freePorts(2 * masters)
	if err != nil {
		return c, err
	}
	var known [masters]string
	for i := range masters {
		known[i] = fmt.Sprintf("%040x 127.0.0.1:%s@%s %%s - 0 0 %d connected %d-%d\n", i+1, ports[i], ports[masters+i], i+1, firstSlot(i), firstSlot(i+1)-1)
	}
	var started sync.WaitGroup
	defer started.Wait() // nothing is started behind the stop
	var failed [masters]error
	for i := range masters {
		n := &daemon{bin: bin, dir: filepath.Join(c.dir, strconv.Itoa(i)), appendOnly: appendOnly, more: append([]string{
			"--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-port", ports[masters+i],
			// A machine that stands still for seconds is no dead node.
			"--cluster-node-timeout", "15000",
		}, with...)}
		c.nodes = append(c.nodes, n)
		conf := ""
		for j, line := range known {
			conf += fmt.Sprintf(line, map[bool]string{true: "myself,master", false: "master"}[i == j])
		}
		conf += fmt.Sprintf("vars currentEpoch %d lastVoteEpoch 0\n", masters)
		if err := os.Mkdir(n.dir, 0o700); err != nil {
			return c, err
		}
		if err := os.WriteFile(filepath.Join(n.dir, "nodes.conf"), []byte(conf), 0o600); err != nil {
			return c, err
		}
		started.Go(func() { failed[i] = n.run(t, "127.0.0.1:"+ports[i]) })
	}
	started.Wait()
	if err := errors.Join(failed[:]...); err != nil {
		return c, err
	}
	if err := c.await(); err != nil {
		return c, err
	}
	rdb := c.nodes[0].client()
	defer rdb.Close()
	slot, err := rdb.ClusterKeySlot(context.Background(), homeKey).Result()
	if err != nil {
		return c, err
	}
	for i := range masters {
		if firstSlot(i) <= int(slot) && int(slot) < firstSlot(i+1) {
			c.home = c.nodes[i]
		}
	}
	c.asNew, err = c.settings()
	return c, err
}

// firstSlot is the first one of a master's; of the one behind the last it is
// the number of slots.
func firstSlot(master int) int { return master * slots / masters }

func freePorts(n int) (ports []string, err error) {
	for range n {
		free, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("looking for a free port: %w", err)
		}
		defer free.Close() // all at the end, so that no two are the same
		_, port, err := net.SplitHostPort(free.Addr().String())
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return ports, nil
}

// await waits until every node serves, reaches every other, and knows where
// every slot is.
func (c *cluster) await() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, n := range c.nodes {
		rdb := n.client()
		defer rdb.Close()
		for {
			info, err := rdb.ClusterInfo(ctx).Result()
			links, err2 := rdb.ClusterNodes(ctx).Result()
			if err = errors.Join(err, err2); err == nil && strings.Contains(info, "cluster_state:ok\r\n") &&
				strings.Contains(info, fmt.Sprintf("cluster_slots_ok:%d\r\n", slots)) && strings.Count(links, " connected ") == masters {
				break
			}
			if again := n.process.wait(ctx, 20*time.Millisecond); again != nil {
				return errors.Join(fmt.Errorf("the node at %s is not ready: %w", n.addr, again), err, fmt.Errorf("%s%s", info, links))
			}
		}
	}
	return nil
}

// settings is what a test might have changed beside the data.
func (c *cluster) settings() (string, error) {
	all := ""
	for _, n := range c.nodes {
		rdb := n.client()
		defer rdb.Close()
		config, err := rdb.ConfigGet(context.Background(), "*").Result()
		if err != nil {
			return "", err
		}
		users, err := rdb.ACLList(context.Background()).Result()
		if err != nil {
			return "", err
		}
		all += fmt.Sprintln(n.addr, config, users)
	}
	return all, nil
}

// empty makes a cluster as it was at the beginning, and says whether it is.
func (c *cluster) empty() bool {
	for _, n := range c.nodes {
		rdb := n.client()
		defer rdb.Close()
		ctx := context.Background()
		// What a client sent last may not have been read yet; its connection
		// ends before the keys do.
		if rdb.ClientKillByFilter(ctx, "TYPE", "normal", "SKIPME", "yes").Err() != nil ||
			rdb.FlushAll(ctx).Err() != nil || rdb.ScriptFlush(ctx).Err() != nil {
			return false
		}
	}
	now, err := c.settings()
	return err == nil && now == c.asNew && c.await() == nil
}

func (c *cluster) stop() {
	for _, n := range c.nodes {
		n.stop()
	}
	if c.dir != "" {
		os.RemoveAll(c.dir) //nolint:errcheck // a leftover of a temporary directory
	}
}
