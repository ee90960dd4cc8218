package redistest

import (
	"net"
	"os/exec"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Both kinds are tried, whatever the environment asks for.
func both(t *testing.T, test func(t *testing.T)) {
	t.Run("mini", func(t *testing.T) {
		t.Setenv(choice, "mini")
		test(t)
	})
	t.Run("real", func(t *testing.T) {
		if _, err := exec.LookPath("redis-server"); err != nil {
			t.Skip("there is no redis-server here")
		}
		t.Setenv(choice, "real")
		test(t)
	})
}

func TestEachCallIsAServerOfItsOwn(t *testing.T) {
	both(t, func(t *testing.T) {
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
	both(t, func(t *testing.T) {
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
	both(t, func(t *testing.T) {
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
	both(t, func(t *testing.T) {
		s := Start(t, AppendOnly())
		rdb := s.Client(t)
		if err := rdb.Set(t.Context(), "k", "v", 0).Err(); err != nil {
			t.Fatal(err)
		}
		s.Kill(t)
		if conn, err := net.Dial("tcp", s.Addr()); err == nil {
			conn.Close()
			t.Error("a killed server answers")
		}
		s.Restart(t)
		if got := rdb.Get(t.Context(), "k").Val(); got != "v" {
			t.Errorf("after the restart k is %q", got)
		}
	})
}
