package approvals

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// inbox is an inbox of another process, with the client an ack needs.
func (w *fixture) inbox() *Inbox {
	return NewInbox(w.store, w.quick(), w.log)
}

// quick is the client that an ack needs.
func (w *fixture) quick() redis.UniversalClient {
	return w.server.ClientWith(w.t, func(o *redis.UniversalOptions) {
		// In a cluster it goes where it is sent to.
		o.MaxRetries, o.MaxRedirects, o.ContextTimeoutEnabled = -1, 2, true
	})
}

// list is what several goroutines add to.
type list[T any] struct {
	mu    sync.Mutex
	items []T
}

func (l *list[T]) add(item T) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.items = append(l.items, item)
	return len(l.items)
}

func (l *list[T]) all() []T {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.items)
}

// empty says that no entry waits in the inbox or in anybody's hand.
func (w *fixture) empty() bool {
	n, err := w.rdb.XLen(w.t.Context(), w.store.keys.inbox()).Result()
	if err != nil {
		w.t.Fatal(err)
	}
	pending, err := w.rdb.XPending(w.t.Context(), w.store.keys.inbox(), inboxGroup).Result()
	return n == 0 && (err != nil || pending.Count == 0)
}

func TestInboxHandsOutEachEnvelopeOnce(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	in := w.inbox()
	for i := range 20 {
		for range 3 { // Slack delivers again what was not acked in time
			if err := in.Put(t.Context(), fmt.Sprint("envelope-", i), fmt.Appendf(nil, "payload %d", i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	var got list[Arrival]
	for i := range 3 {
		other := w.inbox()
		background(t, func(ctx context.Context) {
			other.Consume(ctx, fmt.Sprint("reader-", i), 2, func(_ context.Context, e Arrival) error { got.add(e); return nil })
		})
	}
	waitFor(t, "the inbox to be empty", w.empty)
	seen := map[string]int{}
	for _, e := range got.all() {
		seen[e.Envelope+" "+string(e.Payload)]++
		if e.Stale || e.Poisoned || e.Deliveries != 1 || e.At.IsZero() {
			t.Errorf("%s arrived as %+v", e.Envelope, e)
		}
	}
	for i := range 20 {
		if n := seen[fmt.Sprintf("envelope-%d payload %d", i, i)]; n != 1 {
			t.Errorf("envelope %d came %d times", i, n)
		}
	}
	// Redelivered when it is long done, it is still the same envelope.
	if err := in.Put(t.Context(), "envelope-3", []byte("payload 3")); err != nil || !w.empty() {
		t.Errorf("an envelope that was done came again: %v", err)
	}
}

// idles makes an entry in a reader's hand one that it has not been heard of for
// longer than anybody waits. That counts as no delivery.
func (w *fixture) idles(reader, entry string) {
	w.t.Helper()
	inbox := w.store.keys.inbox()
	in, err := w.rdb.XPendingExt(w.t.Context(), &redis.XPendingExtArgs{Stream: inbox, Group: inboxGroup, Start: entry, End: entry, Count: 1}).Result()
	if err != nil || len(in) != 1 {
		w.t.Fatalf("in hand is %+v, %v", in, err)
	}
	idle := (10 * w.timing.Takeover).Milliseconds() // miniredis counts a delivery unless it is told the number
	if err := w.rdb.Do(w.t.Context(), "XCLAIM", inbox, inboxGroup, reader, 0, entry, "IDLE", idle, "RETRYCOUNT", in[0].RetryCount, "JUSTID").Err(); err != nil {
		w.t.Fatal(err)
	}
}

// What a reader had in hand when it died is done by another one.
func TestADeadReadersEntriesAreTakenOver(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	in := w.inbox()
	ctx := t.Context()
	for i := range 5 {
		if err := in.Put(ctx, fmt.Sprint("envelope-", i), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	// A reader that takes three and is never heard of again.
	if err := w.rdb.XGroupCreate(ctx, w.store.keys.inbox(), inboxGroup, "0").Err(); err != nil {
		t.Fatal(err)
	}
	read, err := w.rdb.XReadGroup(ctx, &redis.XReadGroupArgs{Group: inboxGroup, Consumer: "dead", Streams: []string{w.store.keys.inbox(), ">"}, Count: 3}).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range read[0].Messages {
		w.idles("dead", m.ID)
	}
	var got list[Arrival]
	background(t, func(ctx context.Context) {
		in.Consume(ctx, "alive", 2, func(_ context.Context, e Arrival) error { got.add(e); return nil })
	})
	waitFor(t, "the inbox to be empty", w.empty)
	deliveries := map[string]int64{}
	for _, e := range got.all() {
		deliveries[e.Envelope] = e.Deliveries
	}
	for i := range 5 {
		want := int64(1)
		if i < 3 {
			want = 2
		}
		if n := deliveries[fmt.Sprint("envelope-", i)]; n != want {
			t.Errorf("envelope %d came in delivery %d, want %d", i, n, want)
		}
	}
}

// A handler that takes its time is not taken for a dead one: again and again
// the group hears that its reader is at work, and that counts as no delivery.
func TestASlowReadersEntryStaysItsOwn(t *testing.T) {
	t.Parallel()
	timing := longTimings()
	timing.Takeover = 90 * time.Millisecond
	w := newFixture(t, timing)
	if err := w.inbox().Put(t.Context(), "envelope", []byte("x")); err != nil {
		t.Fatal(err)
	}
	var got list[Arrival]
	in := w.inbox()
	inProgress, resume := make(chan struct{}, 10), make(chan struct{})
	// With one hand it takes nothing over while it is at work, and nobody else
	// looks: a reader that is late with its word loses nothing here.
	background(t, func(ctx context.Context) {
		in.Consume(ctx, "reader", 1, func(_ context.Context, e Arrival) error {
			got.add(e)
			inProgress <- struct{}{}
			<-resume
			return nil
		})
	})
	<-inProgress
	for range 5 { // for longer than others would wait
		w.idles("reader", w.pending().ID)
		var p redis.XPendingExt
		waitFor(t, "word of the reader", func() bool { p = w.pending(); return p.Idle < 10*timing.Takeover })
		if p.RetryCount != 1 || p.Consumer != "reader" {
			t.Errorf("while its reader is at work it is %+v", p)
		}
	}
	close(resume)
	waitFor(t, "the inbox to be empty", w.empty)
	if all := got.all(); len(all) != 1 || all[0].Deliveries != 1 {
		t.Errorf("it was handed out as %+v", all)
	}
}

func TestAPoisonedEntryIsADeadLetter(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func() error{
		"an error": func() error { return errors.New("no") },
		"a panic":  func() error { panic("a nil map") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, longTimings())
			w.log = discard
			in := w.inbox()
			for _, e := range []string{"good-1", "poison", "good-2"} {
				if err := in.Put(t.Context(), e, []byte("payload of "+e)); err != nil {
					t.Fatal(err)
				}
			}
			var got list[Arrival]
			background(t, func(ctx context.Context) {
				in.Consume(ctx, "reader", 3, func(_ context.Context, e Arrival) error {
					got.add(e)
					if e.Envelope == "poison" {
						return fail()
					}
					return nil
				})
			})
			for try := range maxDeliveries { // what failed comes again when it has been left alone for a while
				waitFor(t, "the other two to be done, and a try", func() bool {
					return w.rdb.XLen(t.Context(), w.store.keys.inbox()).Val() == 1 && len(got.all()) == 2+try+1
				})
				w.idles("reader", w.pending().ID)
			}
			waitFor(t, "the inbox to be empty", w.empty)
			var told []string
			for _, e := range got.all() {
				if e.Envelope == "poison" {
					told = append(told, fmt.Sprint(e.Deliveries, e.Poisoned))
				} else if e.Poisoned {
					t.Errorf("%s is poisoned", e.Envelope)
				}
			}
			if want := []string{"1 false", "2 false", "3 false", "4 false", "5 false", "6 true"}; !slices.Equal(told, want) {
				t.Errorf("the poison was delivered as %v, want %v", told, want)
			}
			aside, err := w.rdb.XRange(t.Context(), w.store.keys.deadLetters(), "-", "+").Result()
			if err != nil || len(aside) != 1 || aside[0].Values["envelope"] != "poison" {
				t.Fatalf("aside: %v, %v", aside, err)
			}
			if plain, err := in.ring.Open("inbox", "poison", fmt.Sprint(aside[0].Values["body"])); err != nil || string(plain) != "payload of poison" {
				t.Errorf("what was set aside is %q, %v", plain, err)
			}
		})
	}
}

// An entry that somebody else sealed, or moved, is not executed.
func TestAForeignEntryIsADeadLetter(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	w.log = discard
	in := w.inbox()
	foreign := ring(t, "k1:"+key(9)).Seal("inbox", "foreign", []byte("approve everything"))
	moved := in.ring.Seal("inbox", "another", []byte("approve everything"))
	for envelope, body := range map[string]string{"foreign": foreign, "moved": moved, "plain": "approve everything"} {
		if err := w.rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: w.store.keys.inbox(), Values: []string{"envelope", envelope, "body", body}}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	var got list[Arrival]
	background(t, func(ctx context.Context) {
		in.Consume(ctx, "reader", 1, func(_ context.Context, e Arrival) error { got.add(e); return nil })
	})
	waitFor(t, "the inbox to be empty", w.empty)
	if list := got.all(); len(list) > 0 {
		t.Errorf("carried out: %+v", list)
	}
	if n := w.rdb.XLen(t.Context(), w.store.keys.deadLetters()).Val(); n != 3 {
		t.Errorf("%d entries are set aside, want 3", n)
	}
}

func TestOldEntriesAreFlagged(t *testing.T) {
	t.Parallel()
	timing := longTimings()
	timing.Stale = 30 * time.Millisecond
	w := newFixture(t, timing)
	in := w.inbox()
	if err := in.Put(t.Context(), "old", []byte("x")); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	waitFor(t, "it to grow old", func() bool { return time.Since(start) > 2*timing.Stale })
	var got list[Arrival]
	background(t, func(ctx context.Context) {
		in.Consume(ctx, "reader", 1, func(_ context.Context, e Arrival) error { got.add(e); return nil })
	})
	waitFor(t, "the inbox to be empty", w.empty)
	if list := got.all(); len(list) != 1 || !list[0].Stale || list[0].Poisoned {
		t.Errorf("it arrived as %+v", list)
	}
}

// A Redis that lost the stream, or was away, is read again.
func TestTheInboxSurvivesItsRedis(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	w.log = discard
	in := w.inbox()
	var got list[Arrival]
	background(t, func(ctx context.Context) {
		in.Consume(ctx, "reader", 2, func(_ context.Context, e Arrival) error { got.add(e); return nil })
	})
	put := func(envelope string) {
		t.Helper()
		waitFor(t, envelope+" to be stored", func() bool { return in.Put(t.Context(), envelope, []byte("x")) == nil })
		waitFor(t, envelope+" to arrive", func() bool {
			return slices.ContainsFunc(got.all(), func(e Arrival) bool { return e.Envelope == envelope })
		})
	}
	put("before")
	w.server.Empty(t)
	put("after it was emptied")
	w.server.Kill(t)
	if err := in.Put(t.Context(), "while it is away", []byte("x")); err == nil {
		t.Error("a dead Redis confirmed an entry")
	}
	w.server.Restart(t)
	put("after it came back")
}

// A stop finishes what is in hand, and leaves nothing delivered and undone.
func TestStoppingTheInbox(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	in := w.inbox()
	for i := range 30 {
		if err := in.Put(t.Context(), fmt.Sprint("envelope-", i), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	var got list[Arrival]
	started, resume := make(chan struct{}), make(chan struct{})
	stop := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(stop)
		in.Consume(ctx, "first", 2, func(ctx context.Context, e Arrival) error {
			if got.add(e) == 2 {
				close(started)
			}
			<-resume
			return ctx.Err() // what is in hand is not cancelled
		})
	}()
	<-started
	cancel()
	close(resume)
	<-stop
	pending, err := w.rdb.XPending(t.Context(), w.store.keys.inbox(), inboxGroup).Result()
	if err != nil || pending.Count != 0 {
		t.Errorf("after the stop, delivered and not done: %+v, %v", pending, err)
	}
	left := w.rdb.XLen(t.Context(), w.store.keys.inbox()).Val()
	if done := len(got.all()); int64(done)+left != 30 {
		t.Errorf("%d done and %d left of 30", done, left)
	}
	background(t, func(ctx context.Context) {
		in.Consume(ctx, "second", 2, func(_ context.Context, e Arrival) error { got.add(e); return nil })
	})
	waitFor(t, "the inbox to be empty", w.empty)
	if n := len(got.all()); n != 30 {
		t.Errorf("%d of 30 were done", n)
	}
}

// Slack waits three seconds. A Redis that hangs must not take them.
func TestPutReturnsInTimeWhenRedisHangs(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var held sync.WaitGroup
	var conns list[net.Conn]
	held.Go(func() {
		for {
			c, err := silent.Accept()
			if err != nil {
				return
			}
			conns.add(c) // and never a word
		}
	})
	t.Cleanup(func() {
		silent.Close()
		held.Wait()
		for _, c := range conns.all() {
			c.Close()
		}
	})
	timing := longTimings()
	timing.InboxWrite = 150 * time.Millisecond
	// A client that would wait for ever by itself: that Put returns at all is
	// because of the deadline it gives.
	rdb := redis.NewClient(&redis.Options{Addr: silent.Addr().String(), MaxRetries: -1, ContextTimeoutEnabled: true,
		DialTimeout: time.Hour, ReadTimeout: -1, WriteTimeout: -1, PoolTimeout: time.Hour})
	t.Cleanup(func() { rdb.Close() })
	rdb.AddHook(within{func(ctx context.Context) {
		if end, ok := ctx.Deadline(); !ok || time.Until(end) > timing.InboxWrite {
			t.Errorf("Put waits until %v (%v)", end, ok)
		}
	}})
	store := NewStore(rdb, ring(t, testKeys), "", timing)
	in := NewInbox(store, rdb, discard)
	var all []error
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		all = atOnce(30, func(i int) error { return in.Put(context.Background(), fmt.Sprint("envelope-", i), []byte("x")) })
	}()
	waitClosed(t, "all to return", returned)
	for _, err := range all {
		if err == nil || !strings.Contains(err.Error(), "did not confirm") {
			t.Errorf("a Redis that hangs confirmed: %v", err)
		}
	}
}

// within is a hook that looks at the context of each command.
type within struct{ look func(context.Context) }

func (h within) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h within) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		h.look(ctx)
		return next(ctx, cmd)
	}
}

func (h within) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
