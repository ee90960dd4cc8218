package approvals

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign/audit"
)

// tell puts n events into the log.
func (w *fixture) tell(names ...string) {
	w.t.Helper()
	for _, name := range names {
		if _, err := w.store.note(w.t.Context(), name, "ok", Request{}, audit.Event{Kind: audit.Read, Title: name}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// follow runs a projection in a process of its own.
func (w *fixture) follow(name string, handle func(context.Context, []audit.Event) (int, error)) (stop func()) {
	store, _ := w.newProcess(w.server.Client(w.t))
	return background(w.t, func(ctx context.Context) {
		store.Follow(ctx, "one name for all", Projection{Name: name, Handle: handle}, discard)
	})
}

func (w *fixture) lag(name string) time.Duration {
	w.t.Helper()
	lag, err := w.store.Lag(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return lag
}

func TestOneOfSeveralReadersLeads(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	w.tell("a", "b")
	var got list[string]
	var at atomic.Int32
	readers := make([]func(), 4)
	for i := range readers {
		readers[i] = w.follow("cards", func(_ context.Context, batch []audit.Event) (int, error) {
			if at.Add(1) > 1 {
				t.Error("two readers are at work at one moment")
			}
			defer at.Add(-1)
			for _, e := range batch {
				got.add(e.Title)
			}
			return len(batch), nil
		})
	}
	waitFor(t, "the first two", func() bool { return len(got.all()) == 2 })
	w.tell("c")
	waitFor(t, "the third", func() bool { return len(got.all()) == 3 })
	// A reader that stops makes room at once, although the lease is long.
	for i, stop := range readers[:3] {
		stop()
		name := fmt.Sprint("after stop ", i)
		w.tell(name)
		waitFor(t, name, func() bool { return slices.Contains(got.all(), name) })
	}
	if want := []string{"a", "b", "c", "after stop 0", "after stop 1", "after stop 2"}; !slices.Equal(got.all(), want) {
		t.Errorf("handled %v, want %v", got.all(), want)
	}
	waitFor(t, "the cursor", func() bool { return w.lag("cards") == 0 })
}

func TestAProjectionGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	w.tell("a", "b", "c", "d", "e")
	var got list[string]
	var failed atomic.Bool
	handle := func(_ context.Context, batch []audit.Event) (int, error) {
		for i, e := range batch {
			if e.Title == "c" && failed.CompareAndSwap(false, true) {
				return i, errors.New("Slack is away")
			}
			got.add(e.Title)
		}
		return len(batch), nil
	}
	stop := w.follow("cards", handle)
	waitFor(t, "all five", func() bool { return len(got.all()) == 5 })
	waitFor(t, "the cursor", func() bool { return w.lag("cards") == 0 })
	stop()
	w.tell("f")
	w.follow("cards", handle) // another process, later
	waitFor(t, "the sixth", func() bool { return len(got.all()) == 6 })
	if want := []string{"a", "b", "c", "d", "e", "f"}; !slices.Equal(got.all(), want) {
		t.Errorf("handled %v, want %v", got.all(), want)
	}
}

// A handler that panics, or says nonsense, is tried again and takes nobody
// else down.
func TestAProjectionThatFails(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	w.tell("a", "b")
	var got list[string]
	var tries atomic.Int32
	w.follow("cards", func(_ context.Context, batch []audit.Event) (int, error) {
		switch tries.Add(1) {
		case 1:
			panic("a nil map")
		case 2:
			return -1, nil
		case 3:
			return 0, nil
		}
		for _, e := range batch {
			got.add(e.Title)
		}
		return len(batch) + 7, nil
	})
	waitFor(t, "both", func() bool { return len(got.all()) == 2 })
	waitFor(t, "the cursor", func() bool { return w.lag("cards") == 0 })
	if n := tries.Load(); n != 4 {
		t.Errorf("%d tries, want 4", n)
	}
}

// What stands before an event that does not open is handled; the event itself
// holds its projection up, so that nobody can make one vanish.
func TestAnEventThatDoesNotOpen(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	w.tell("a", "b")
	log := w.rdb.XRange(t.Context(), w.store.keys.events(), "-", "+").Val()
	forged := log[0].Values
	forged["op"] = "b#1" // the event of another operation in this one's place
	if err := w.rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: w.store.keys.events(), Values: forged}).Err(); err != nil {
		t.Fatal(err)
	}
	w.tell("c")
	var got list[string]
	w.follow("cards", func(_ context.Context, batch []audit.Event) (int, error) {
		for _, e := range batch {
			got.add(e.Title)
		}
		return len(batch), nil
	})
	waitFor(t, "what stands before it", func() bool { return len(got.all()) == 2 })
	waitFor(t, "the lag to show", func() bool { return w.lag("cards") > 250*time.Millisecond })
	if want := []string{"a", "b"}; !slices.Equal(got.all(), want) {
		t.Errorf("handled %v, want %v", got.all(), want)
	}
}

// A handler that takes longer than the lease keeps the lead; one that lost it
// is told, and does not move the cursor back. There is one reader here, and who
// else would lead is played: another reader would be right to take the lead from
// one that could not run for as long as the lease lasts.
func TestTheLead(t *testing.T) {
	t.Parallel()
	timing := longTimings()
	timing.Lead = 300 * time.Millisecond
	w := newFixture(t, timing)
	ctx, lead := t.Context(), w.store.keys.lead("cards")
	w.tell("a")
	var got list[string]
	inProgress, resume, lost := make(chan struct{}), make(chan struct{}), make(chan struct{})
	w.follow("cards", func(handling context.Context, batch []audit.Event) (int, error) {
		got.add(batch[0].Title)
		switch batch[0].Title {
		case "a":
			close(inProgress)
			<-resume
			if handling.Err() != nil {
				t.Error("it lost the lead while it was at work")
			}
		case "b": // somebody else leads, handles this event, and goes
			if err := errors.Join(w.rdb.Set(ctx, lead, "somebody else", 0).Err(), w.rdb.Set(ctx, w.store.keys.cursor("cards"), batch[0].ID, 0).Err()); err != nil {
				t.Error(err)
			}
			<-handling.Done()
			if err := w.rdb.Del(ctx, lead).Err(); err != nil {
				t.Error(err)
			}
			close(lost)
		}
		return len(batch), nil
	})
	<-inProgress
	for range 5 { // it takes its lease anew, for longer than one lasts
		if err := w.rdb.PExpire(ctx, lead, time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
		if leads, _, err := w.store.lead(ctx, "somebody else", "cards", "", ""); err != nil || leads {
			t.Fatalf("somebody else leads: %v, %v", leads, err)
		}
		waitFor(t, "it to renew its lease", func() bool { return w.rdb.PTTL(ctx, lead).Val() <= timing.Lead })
	}
	close(resume)
	waitFor(t, "the slow one", func() bool { return w.lag("cards") == 0 })
	w.tell("b")
	waitClosed(t, "the lead to be lost", lost)
	w.tell("c")
	waitFor(t, "the last", func() bool { return w.lag("cards") == 0 })
	if want := []string{"a", "b", "c"}; !slices.Equal(got.all(), want) {
		t.Errorf("handled %v, want %v", got.all(), want)
	}
}

// A reader that was away while others led finds the cursor moved, and leaves
// it where it is.
func TestTheCursorIsNotMovedBack(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	w.tell("a", "b", "c")
	log := w.events()
	move := func(me, from, to string) bool {
		t.Helper()
		leads, _, err := w.store.lead(ctx, me, "cards", from, to)
		if err != nil {
			t.Fatal(err)
		}
		return leads
	}
	if !move("me", "", "") || move("other", "", "") {
		t.Error("the lease is not one reader's")
	}
	w.rdb.Del(ctx, w.store.keys.lead("cards")) // it runs out
	if !move("other", "0-0", log[2].ID) {
		t.Error("the next reader cannot move the cursor")
	}
	w.rdb.Del(ctx, w.store.keys.lead("cards"))
	if move("me", "0-0", log[0].ID) {
		t.Error("the first reader moves the cursor back")
	}
	if at := w.rdb.Get(ctx, w.store.keys.cursor("cards")).Val(); at != log[2].ID {
		t.Errorf("the cursor is at %s, want %s", at, log[2].ID)
	}
}

// Several projections have a cursor each; the log is trimmed behind the
// slowest.
func TestLagAndTrim(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	if lag := w.lag("cards"); lag != 0 {
		t.Errorf("an empty log lags by %v", lag)
	}
	w.tell("a", "b")
	first := w.events()[0].At
	waitFor(t, "time to pass", func() bool { return w.lag("cards") > 20*time.Millisecond })
	if now := w.now(); w.lag("cards") < now.Sub(first) {
		t.Errorf("it lags by %v, and the oldest is %v old", w.lag("cards"), now.Sub(first))
	}
	drain := func(name string, upTo int) {
		t.Helper()
		if err := w.rdb.Set(ctx, w.store.keys.cursor(name), w.events()[upTo].ID, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	drain("cards", 1)
	if lag := w.lag("cards"); lag != 0 {
		t.Errorf("a projection that is up to date lags by %v", lag)
	}
	trim := func(keep time.Duration) []string {
		t.Helper()
		if err := w.store.Trim(ctx, []string{"cards", "audit"}, keep); err != nil {
			t.Fatal(err)
		}
		var left []string
		for _, e := range w.events() {
			left = append(left, e.Title)
		}
		return left
	}
	if left := trim(0); len(left) != 2 {
		t.Errorf("one projection has read nothing, and left are %v", left)
	}
	waitFor(t, "the next millisecond", func() bool { return w.now().Sub(w.events()[1].At) > 2*time.Millisecond })
	w.tell("c")
	drain("audit", 0)
	if left := trim(0); !slices.Equal(left, []string{"a", "b", "c"}) && !slices.Equal(left, []string{"b", "c"}) {
		t.Errorf("one projection is at a, and left are %v", left)
	}
	drain("audit", len(w.events())-1)
	drain("cards", len(w.events())-1)
	if left := trim(time.Hour); !slices.Contains(left, "c") {
		t.Errorf("what is young was trimmed; left are %v", left)
	}
	waitFor(t, "it to be trimmed", func() bool { left := trim(0); return slices.Equal(left, []string{"c"}) })
	if lag := w.lag("audit"); lag != 0 {
		t.Errorf("after the trim it lags by %v", lag)
	}
}
