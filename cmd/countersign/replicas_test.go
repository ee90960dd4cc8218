//go:build unix

package main

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign/internal/redistest"
	"countersign/sandbox"
)

// The story on a Redis Cluster, with the rule that is printed for one.
func TestStoryOnACluster(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Cluster(), redistest.With(userArguments(clusterAt("anywhere"))...))
	w := beginOn(t, server, nil)
	tellStory(w)
	for _, address := range server.Addrs() {
		if !strings.Contains(w.log.String(), address+": appendonly is off") {
			t.Errorf("nothing is said about the node %s", address)
		}
		// Whoever knows only one node is told what else to write.
		log, err := startRedis(t, redisConfig{Username: redisUser}, secrets{RedisURL: "redis://" + address, RedisPassword: redisPassword})
		if address != server.Addr() && (err == nil || !strings.Contains(err.Error(), "redis.cluster.addresses")) {
			t.Errorf("a start with one node of a Cluster: %v\n%s", err, log)
		}
	}
}

// The story where Sentinels say who is the primary, and another one behind a
// fail-over. The users are those of the printed rules, at the Sentinels too.
func TestStoryOverSentinels(t *testing.T) {
	t.Parallel()
	servers := redistest.StartFailover(t)
	sentinels := servers.Options().SentinelAddrs
	permit(t, sentinels, sentinelACL())
	permit(t, everyNode(t, sentinels[0]), redisACL(redisConfig{}, false))
	r := sentinelsAt(redistest.MasterName, sentinels...)
	r.Username, r.Sentinel.Username = redisUser, redisUser
	w := beginOn(t, nil, nil, func(c *config) { c.Redis = r })
	tellStory(w)
	if !strings.Contains(w.log.String(), "A fail-over can lose what was confirmed") {
		t.Error("what a fail-over costs is not said")
	}

	// The bot never rests, so the replicas are never quite level; what counts
	// is that they have what was confirmed.
	conn := servers.Client(t).Conn() // WAIT is about what its own connection wrote
	defer conn.Close()
	w.pollUntil("the replicas to have what was confirmed", func() bool {
		conn.Set(t.Context(), "last", 1, 0)
		copies, err := conn.Wait(t.Context(), 2, time.Second).Result()
		return err == nil && copies == 2
	})
	servers.KillMaster(t)
	w.goesOn("mina.haddad@", "sam.ito@", "bo.castellan@")

	// What only the primary knew is lost with it. That is noticed, and nothing
	// is done until a person has said so.
	servers.CutOff(t)
	lost := w.losses()
	w.as(sandbox.Hanna, sandbox.HelpDesk).types("/entra-revoke-sessions alexa.morgan@fernhill.example phone stolen")
	w.as(sandbox.Ravi, sandbox.Approvals).reads("waiting for approval", "alexa.morgan@")
	servers.KillMaster(t)
	w.pollUntil("the loss to be noticed", func() bool { return w.losses() > lost })
	w.resume()
	w.goesOn("alex.morgan@", "dana.whitfield@")
	w.stop()
	refusedAt(t, sentinels)

	for _, c := range []struct {
		what string
		r    redisConfig
		s    secrets
		says string
	}{
		{"another name", sentinelsAt("nobody", sentinels...), secrets{}, "redis.sentinel.master"},
		{"a Sentinel for a Redis", redisConfig{}, secrets{RedisURL: "redis://" + sentinels[0]}, "belongs under redis.sentinel.addresses"},
		{"a wrong password", r, secrets{RedisPassword: redisPassword, SentinelPassword: "x"}, "COUNTERSIGN_REDIS_SENTINEL_PASSWORD"},
		{"a wrong password behind it", r, secrets{RedisPassword: "x", SentinelPassword: redisPassword}, "COUNTERSIGN_REDIS_PASSWORD"},
	} {
		if log, err := startRedis(t, c.r, c.s); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want a sentence with %q\n%s", c.what, err, c.says, log)
		}
	}
}

// goesOn has the sessions of one of these people revoked. On a busy machine
// Sentinels change their minds about whom they have promoted, and lose what
// that one had confirmed. Then the bot must have noticed, and goes on with the
// next one when a person has said so.
func (w *fixture) goesOn(targets ...string) {
	w.Helper()
	hanna, ravi, auditor := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals), w.as(sandbox.Gloria, sandbox.Audit)
	for _, target := range targets {
		lost, pressed := w.losses(), false
		w.pollUntil("the command to be taken", func() bool {
			answer := hanna.types("/entra-revoke-sessions " + target + "fernhill.example phone stolen")
			return !strings.Contains(string(answer.Response), "could not be confirmed")
		})
		done := func() bool { return len(auditor.messagesWith("Succeeded: ", target)) > 0 }
		w.pollUntil("an end, or the notice that there is none", func() bool {
			if cards := ravi.messagesWith("waiting for approval", target); len(cards) > 0 && !pressed {
				ravi.presses(cards[0], "approve")
				pressed = true
			}
			return done() || w.losses() > lost
		})
		if done() {
			return
		}
		w.resume()
	}
	w.Fatal("again and again what this Redis confirmed was lost")
}

// losses is how often the bot noticed that Redis has lost something.
func (w *fixture) losses() int {
	return strings.Count(w.log.String(), `msg="Redis has lost confirmed writes`) // and not what says that it is the reason
}

// resume says as an administrator that Countersign may go on. What was noticed
// may not be written down yet, and an answer may be lost behind the interaction.
func (w *fixture) resume() {
	w.Helper()
	failed, wentOn := false, func() int { return strings.Count(w.log.String(), "a person has resumed execution") }
	before := wentOn()
	w.pollUntil("it to be taken that Countersign goes on", func() bool {
		said, err := w.administrate("resume", "-yes")
		failed = failed || err != nil
		return err == nil && (strings.Contains(said, "Countersign has resumed") || failed && strings.Contains(said, "nothing to resume"))
	})
	w.pollUntil("the bot to notice", func() bool { return wentOn() > before }) // what is typed until then does not count
}

// permit makes the tests' user at each of these.
func permit(t *testing.T, addresses, words []string) {
	t.Helper()
	rule := []any{"acl", "setuser", redisUser, "reset", "on", fmt.Sprintf("#%x", sha256.Sum256([]byte(redisPassword)))}
	for _, word := range words {
		rule = append(rule, word)
	}
	for _, address := range addresses {
		rdb := redis.NewClient(&redis.Options{Addr: address})
		if err := rdb.Do(t.Context(), rule...).Err(); err != nil {
			t.Fatalf("the rule at %s: %v", address, err)
		}
		rdb.Close()
	}
}

// everyNode is where the primary and its replicas are.
func everyNode(t *testing.T, sentinel string) []string {
	t.Helper()
	rdb := redis.NewSentinelClient(&redis.Options{Addr: sentinel})
	defer rdb.Close()
	primary, err := rdb.GetMasterAddrByName(t.Context(), redistest.MasterName).Result()
	if err != nil {
		t.Fatal(err)
	}
	replicas, err := rdb.Replicas(t.Context(), redistest.MasterName).Result()
	if err != nil {
		t.Fatal(err)
	}
	all := []string{strings.Join(primary, ":")}
	for _, replica := range replicas {
		all = append(all, replica["ip"]+":"+replica["port"])
	}
	return all
}
