package redistest

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(Keep(m)) }

// Every kind is tried, whatever the environment asks for.
func every(t *testing.T, test func(t *testing.T)) {
	for _, kind := range []string{"mini", "real", "cluster"} {
		t.Run(kind, func(t *testing.T) {
			if _, err := exec.LookPath("redis-server"); kind != "mini" && err != nil {
				t.Skip("there is no redis-server here")
			}
			t.Setenv(choice, kind)
			test(t)
		})
	}
}

func TestEachCallIsAServerOfItsOwn(t *testing.T) {
	every(t, func(t *testing.T) {
		one, two := Start(t), Start(t)
		if err := one.Client(t).Set(t.Context(), "k", "v", 0).Err(); err != nil {
			t.Fatal(err)
		}
		if n := two.Client(t).Exists(t.Context(), "k").Val(); n != 0 {
			t.Error("a key of one server is in the other")
		}
	})
}

func TestDumpReadsEveryType(t *testing.T) {
	every(t, func(t *testing.T) {
		s := Start(t)
		ctx, rdb := t.Context(), s.Client(t)
		pipe := rdb.Pipeline()
		pipe.Set(ctx, "string", "a", 0)
		pipe.RPush(ctx, "list", "b", "c")
		pipe.SAdd(ctx, "set", "e", "d")
		pipe.ZAdd(ctx, "zset", redis.Z{Score: 7, Member: "f"})
		pipe.HSet(ctx, "hash", "g", "h")
		pipe.XAdd(ctx, &redis.XAddArgs{Stream: "stream", ID: "1-1", Values: []string{"i", "j"}})
		pipe.XGroupCreate(ctx, "stream", "k", "0")
		pipe.XReadGroup(ctx, &redis.XReadGroupArgs{Group: "k", Consumer: "l", Streams: []string{"stream", ">"}})
		if _, err := pipe.Exec(ctx); err != nil {
			t.Fatal(err)
		}
		got := s.Dump(t)
		for key, want := range map[string]string{
			"string": "a", "list": "b\nc", "set": "d\ne", "zset": "f 7", "hash": "g h", "stream": "1-1\n\ti j\ngroup k\n\treader l",
		} {
			if got[key] != want {
				t.Errorf("%s is %q, want %q", key, got[key], want)
			}
		}
		if len(got) != 6 {
			t.Errorf("%d keys, want 6: %v", len(got), got)
		}
	})
}

func TestKeysExpireByThemselves(t *testing.T) {
	every(t, func(t *testing.T) {
		rdb := Start(t).Client(t)
		if err := rdb.Set(t.Context(), "k", "v", 20*time.Millisecond).Err(); err != nil {
			t.Fatal(err)
		}
		for rdb.Exists(t.Context(), "k").Val() == 1 {
			select {
			case <-t.Context().Done():
			case <-time.After(time.Millisecond):
			}
		}
	})
}

func TestRestartKeepsWhatWasWritten(t *testing.T) {
	every(t, func(t *testing.T) {
		s := Start(t, AppendOnly())
		rdb := s.Client(t)
		if err := rdb.Set(t.Context(), homeKey, "v", 0).Err(); err != nil {
			t.Fatal(err)
		}
		s.Kill(t)
		if conn, err := net.Dial("tcp", s.Addr()); err == nil {
			conn.Close()
			t.Error("a killed server answers")
		}
		s.Restart(t)
		if got := rdb.Get(t.Context(), homeKey).Val(); got != "v" {
			t.Errorf("after the restart k is %q", got)
		}
	})
}

// What has no key reaches every node.
func TestKeysAndEmptyMeanAllNodes(t *testing.T) {
	every(t, func(t *testing.T) {
		s := Start(t)
		for i := range 30 {
			if err := s.Client(t).Set(t.Context(), fmt.Sprint("k", i), "v", 0).Err(); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(s.Keys(t, "k*")); n != 30 {
			t.Errorf("%d keys, want 30", n)
		}
		s.Empty(t)
		if left := s.Keys(t, "*"); len(left) > 0 {
			t.Errorf("left are %v", left)
		}
	})
}

// Three nodes divide the slots, and the one that is killed has the slot of
// our keys.
func TestACluster(t *testing.T) {
	s := Start(t, Cluster())
	nodes := 0
	s.Each(t, func(rdb *redis.Client) {
		nodes++
		info := rdb.ClusterInfo(t.Context()).Val()
		for _, want := range []string{"cluster_state:ok", "cluster_slots_assigned:16384", "cluster_slots_ok:16384", "cluster_known_nodes:3", "cluster_size:3"} {
			if !strings.Contains(info, want+"\r\n") {
				t.Errorf("a node does not say %s but\n%s", want, info)
			}
		}
		err := rdb.Get(t.Context(), homeKey).Err()
		if home := rdb.Options().Addr == s.Addr(); home == redis.HasErrorPrefix(err, "MOVED") {
			t.Errorf("has our keys: %v, and it answers %v", home, err)
		}
		if err := rdb.Get(t.Context(), "elsewhere").Err(); !redis.HasErrorPrefix(err, "MOVED") && err != redis.Nil {
			t.Errorf("it answers %v", err)
		}
	})
	if nodes != 3 || len(s.Addrs()) != 3 {
		t.Errorf("%d nodes, addresses %v", nodes, s.Addrs())
	}
	o, err := redis.ParseClusterURL(s.URL())
	if err != nil || len(o.Addrs) != 3 {
		t.Errorf("%s has the addresses %v, %v", s.URL(), o, err)
	}
}

// A cluster that is handed on is as good as new; one that may not be is not
// handed on.
func TestHandedOnClusters(t *testing.T) {
	used := func(t *testing.T, do func(t *testing.T, s *Server)) (c *cluster) {
		t.Helper()
		if !t.Run("used", func(t *testing.T) {
			s := Start(t, Cluster())
			c = s.cluster
			do(t, s)
		}) {
			t.FailNow() // there may be nothing to compare with
		}
		if c == nil {
			t.Skip("there was no cluster to hand on, as the test used says")
		}
		return c
	}
	hash := ""
	first := used(t, func(t *testing.T, s *Server) {
		ctx, rdb := t.Context(), s.Client(t)
		for i := range 10 {
			if err := rdb.Set(ctx, fmt.Sprint("k", i), "v", 0).Err(); err != nil {
				t.Fatal(err)
			}
		}
		s.Each(t, func(rdb *redis.Client) { hash = rdb.ScriptLoad(ctx, "return 7").Val() })
	})
	again := used(t, func(t *testing.T, s *Server) {
		if left := s.Dump(t); len(left) > 0 {
			t.Errorf("the next test finds %v", left)
		}
		s.Each(t, func(rdb *redis.Client) {
			if known := rdb.ScriptExists(t.Context(), hash).Val(); hash == "" || known[0] {
				t.Errorf("the next test finds the script %q", hash)
			}
		})
		s.Each(t, func(rdb *redis.Client) { rdb.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru") })
	})
	if again != first {
		t.Error("it is not handed on")
	}
	third := used(t, func(t *testing.T, s *Server) {
		s.Each(t, func(rdb *redis.Client) {
			rdb.Do(t.Context(), "ACL", "SETUSER", "somebody", "on")
		})
	})
	if third == again {
		t.Error("changed settings are handed on")
	}
	fourth := used(t, func(t *testing.T, s *Server) { s.Kill(t); s.Restart(t) })
	if fourth == third {
		t.Error("new users are handed on")
	}
	if fifth := used(t, func(*testing.T, *Server) {}); fifth == fourth {
		t.Error("a cluster that was killed is handed on")
	}
}
