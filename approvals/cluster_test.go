package approvals

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign/audit"
	"countersign/internal/redistest"
)

// In a Redis Cluster only the node that has our keys is asked for anything.
// That holds for the time as well, because the clocks of the others differ.
func TestOnlyTheNodeWithOurKeysIsAsked(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings(), redistest.Cluster())
	ctx := t.Context()
	used := func(node *redis.Client) (commands []string) {
		for line := range strings.Lines(node.Info(ctx, "commandstats").Val()) {
			if name, _, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":"); ok {
				commands = append(commands, name)
			}
		}
		return commands
	}
	w.server.Each(t, func(node *redis.Client) {
		if err := node.ConfigResetStat(ctx).Err(); err != nil {
			t.Fatal(err)
		}
	})

	// A life of everything: people, requests, a secret, an inbox, projections.
	stop := w.startRunner(w.service, "w")
	finished := w.waitFinal(w.approved(deletionPlan(ClassDestroy, dana, "m1", "m2")).ID)
	stop()
	if finished.Outcome != OutcomeSucceeded {
		t.Fatalf("it is %s", finished.Summary())
	}
	seen := finishedWithSecret(time.Minute)(w)
	if _, err := w.service.Reveal(ctx, w.op(), seen.ID, hanna); err != nil {
		t.Fatal(err)
	}
	in := w.inbox()
	if err := in.Put(ctx, "envelope", []byte("x")); err != nil {
		t.Fatal(err)
	}
	var arrived, shown list[string]
	background(t, func(ctx context.Context) {
		in.Consume(ctx, "w", 1, func(_ context.Context, a Arrival) error { arrived.add(a.Envelope); return nil })
	})
	background(t, func(ctx context.Context) {
		w.store.Follow(ctx, "w", Projection{Name: "cards", Handle: func(_ context.Context, batch []audit.Event) (int, error) {
			shown.add(batch[0].Title)
			return len(batch), nil
		}}, w.log)
	})
	waitFor(t, "the inbox and the events to be read", func() bool {
		return len(arrived.all()) > 0 && w.empty() && len(shown.all()) > 0 && w.lag("cards") == 0
	})
	for what, call := range map[string]func() error{
		"trimming":         func() error { return w.store.Trim(ctx, []string{"cards"}, 0) },
		"putting off":      func() error { return w.store.postpone(ctx, seen.ID, time.Minute) },
		"counting":         func() error { _, err := w.store.Allow(ctx, "read", "x", 1, time.Minute); return err },
		"pinning":          func() error { _, err := w.store.Pin(ctx, "U1", "a"); return err },
		"keeping a card":   func() error { return w.store.SetCard(ctx, seen.ID, "approvers", Card{"C1", "1.1"}) },
		"listing requests": func() error { _, err := w.store.Mine(ctx, hanna.ID); return err },
		"the desk":         func() error { _, err := w.store.Open(ctx); return err },
	} {
		if err := call(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}

	// What a client needs to find its way, and this test to look.
	way := []string{"hello", "client", "cluster", "command", "ping", "info", "config"}
	w.server.Each(t, func(node *redis.Client) {
		commands := used(node)
		if node.Options().Addr == w.server.Addr() {
			for _, name := range []string{"time", "evalsha", "xreadgroup", "xread", "zadd", "hset"} {
				if !slices.Contains(commands, name) {
					t.Errorf("the node with our keys did no %s in all this; it did %v", name, commands)
				}
			}
			return
		}
		commands = slices.DeleteFunc(commands, func(name string) bool {
			group, _, _ := strings.Cut(name, "|")
			return slices.Contains(way, group)
		})
		if len(commands) > 0 {
			t.Error("another node was asked for ", fmt.Sprint(commands))
		}
	})
}
