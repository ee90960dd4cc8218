package approvals

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign/audit"
)

// The rings of a rotation: before it, behind its first step, behind its second.
var (
	laterKey = "k2:" + key(2)
	oldRing  = testKeys
	bothRing = testKeys + "," + laterKey
	newRing  = laterKey + "," + testKeys
)

// replica is a process with a ring of its own.
type replica struct {
	*fixture
	store   *Store
	service *Service
	in      *Inbox
	log     *slog.Logger
	said    *list[string] // what it logged, a line each
	gave    atomic.Int32  // how often it gave an entry of the inbox back
	all     []func()
}

func (w *fixture) replica(keys string) *replica {
	w.t.Helper()
	r := &replica{fixture: w, said: &list[string]{}}
	r.log = slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) { r.said.add(string(b)); return len(b), nil }), nil))
	rdb := w.server.Client(w.t)
	rdb.AddHook(beforeHook{"xclaim", func() { r.gave.Add(1) }})
	r.store, r.service = w.newProcessWithKeys(rdb, keys)
	r.service.Log = r.log
	r.in = NewInbox(r.store, w.quick(), r.log)
	return r
}

func (r *replica) background(f func(context.Context)) { r.all = append(r.all, background(r.t, f)) }

func (r *replica) runs() {
	r.background((&Runner{Service: r.service, Work: r.tenant.Work, Name: "one name for all", Concurrency: 4, Log: r.log}).Run)
}

func (r *replica) reads(name string, handle func(context.Context, Arrival) error) {
	r.background(func(ctx context.Context) { r.in.Consume(ctx, name, 2, handle) })
}

func (r *replica) follows(handle func(context.Context, []audit.Event) (int, error)) {
	r.background(func(ctx context.Context) {
		r.store.Follow(ctx, "one name for all", Projection{Name: "cards", Handle: handle}, r.log)
	})
}

func (r *replica) stop() {
	for _, stop := range r.all {
		stop()
	}
	r.all = nil
}

func (r *replica) put(envelope string) {
	r.t.Helper()
	if err := r.in.Put(r.t.Context(), envelope, []byte(envelope)); err != nil {
		r.t.Fatal(err)
	}
}

// lines are those it logged that have these words.
func (r *replica) lines(words string) (list []string) {
	for _, line := range r.said.all() {
		if strings.Contains(line, words) {
			list = append(list, line)
		}
	}
	return list
}

// lacks fails the test when it did not say, or said more than once, which key
// it lacks; or shows one, or makes noise about it.
func (r *replica) lacks(name string) {
	r.t.Helper()
	waitFor(r.t, "it to say which key it lacks", func() bool { return len(r.lines("COUNTERSIGN_KEYS here too")) > 0 })
	all := r.said.all()
	if said := r.lines("key=" + name); len(said) != 1 || len(all) != 1 || strings.Contains(said[0], key(2)) {
		r.t.Errorf("it says %q", all)
	}
}

// pending is the one entry that is in somebody's hand.
func (w *fixture) pending() redis.XPendingExt {
	w.t.Helper()
	list, err := w.rdb.XPendingExt(w.t.Context(), &redis.XPendingExtArgs{Stream: w.store.keys.inbox(), Group: inboxGroup, Start: "-", End: "+", Count: 2}).Result()
	if err != nil || len(list) != 1 {
		w.t.Fatalf("in hand are %+v, %v", list, err)
	}
	return list[0]
}

func (w *fixture) aside() int64 { return w.rdb.XLen(w.t.Context(), w.store.keys.deadLetters()).Val() }

// A click that one process sealed with a key that the other does not have yet
// waits for none of the time after which a reader counts as dead.
func TestAnEntryOfAnotherKeyIsSkipped(t *testing.T) {
	t.Parallel()
	timing := longTimings()
	timing.Takeover = time.Minute
	w := newFixture(t, timing)
	old, later := w.replica(oldRing), w.replica(newRing)
	var got, own list[Arrival]
	old.reads("old", func(_ context.Context, e Arrival) error {
		if own.add(e); !strings.HasPrefix(e.Envelope, "own") {
			t.Errorf("it opened %s without its key", e.Envelope)
		}
		return nil
	})
	later.put("click")
	waitFor(t, "it to be left", func() bool { return old.gave.Load() > 0 })
	var p redis.XPendingExt
	waitFor(t, "everybody to be free to take it", func() bool { p = w.pending(); return p.Idle >= timing.Takeover })
	if p.RetryCount != 0 { // in the same look: another one may be on its way
		t.Errorf("%d tries count", p.RetryCount)
	}
	for i := range 20 {
		old.put(fmt.Sprint("own-", i))
		waitFor(t, "it to go on with what it can open", func() bool { return len(own.all()) == i+1 })
	}
	if n := old.gave.Load(); n > 2 { // a look may have been on its way
		t.Errorf("it took what it had left %d times", n-1)
	}
	later.reads("later", func(_ context.Context, e Arrival) error { got.add(e); return nil })
	for i := range 5 {
		later.put(fmt.Sprint("click-", i))
	}
	waitFor(t, "the inbox to be empty", w.empty)
	seen := map[string]int{}
	for _, e := range got.all() {
		seen[e.Envelope+" "+string(e.Payload)]++
		if e.Deliveries != 1 || e.Stale || e.Poisoned {
			t.Errorf("%s arrived as %+v", e.Envelope, e)
		}
	}
	for _, envelope := range []string{"click", "click-0", "click-1", "click-2", "click-3", "click-4"} {
		if n := seen[envelope+" "+envelope]; n != 1 {
			t.Errorf("%s was handled %d times", envelope, n)
		}
	}
	old.lacks("k2")

	// What is no ciphertext of another ring goes aside at once, as ever.
	opens := later.store.ring.Seal("inbox", "another", []byte("approve everything"))
	later.stop()
	for _, body := range []string{"approve everything", ring(t, "k1:"+key(9)).Seal("inbox", "tampered", []byte("approve everything"))} {
		w.rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: w.store.keys.inbox(), Values: []string{"envelope", "tampered", "body", body}})
	}
	waitFor(t, "the inbox to be empty", w.empty)
	old.stop()
	later.reads("later", func(_ context.Context, e Arrival) error { t.Errorf("it took %s", e.Envelope); return nil })
	w.rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: w.store.keys.inbox(), Values: []string{"envelope", "tampered", "body", opens}})
	waitFor(t, "the inbox to be empty", w.empty)
	if n := w.aside(); n != 3 {
		t.Errorf("%d entries are aside, want 3", n)
	}
}

// looks has a process look at the inbox once: what it finds it carries through
// handle. It says which entry that was; none where nothing was for it to take.
func (r *replica) looks(handle func(context.Context, Arrival) error) (entry string) {
	r.t.Helper()
	found, _, err := r.in.next(r.t.Context(), "one name for all", 1, "0-0")
	if err != nil || len(found) > 1 {
		r.t.Fatalf("looking: %v, %v", found, err)
	}
	for _, d := range found {
		entry = d.ID
		r.in.process(r.t.Context(), "one name for all", d, handle)
	}
	return entry
}

// grouped makes the group of the inbox, as its first reader does.
func (w *fixture) grouped() {
	w.t.Helper()
	if err := w.rdb.XGroupCreateMkStream(w.t.Context(), w.store.keys.inbox(), inboxGroup, "0").Err(); err != nil {
		w.t.Fatal(err)
	}
}

// However often those without the key look, whoever has it is the first to try.
// They look here by turns: a look that took longer than the time after which
// others take an entry over would count, as that of a dead reader does.
func TestASkippedEntryIsNoDelivery(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	w.grouped()
	later := w.replica(newRing)
	later.put("click")
	olds := []*replica{w.replica(oldRing), w.replica(oldRing), w.replica(oldRing)}
	opens := func(_ context.Context, e Arrival) error {
		t.Errorf("%s was opened without its key", e.Envelope)
		return nil
	}
	for look := range 5 * maxDeliveries {
		old := olds[look%len(olds)]
		if old.looks(opens) == "" {
			t.Fatalf("look %d found nothing, and it was left to all", look+1)
		}
		if old.looks(opens) != "" {
			t.Fatal("it does not come last, behind its own look")
		}
		if p := w.pending(); p.RetryCount != 0 || w.aside() > 0 {
			t.Fatalf("after look %d, %d tries count, and %d entries are aside", look+1, p.RetryCount, w.aside())
		}
		old.in.yields.Store(nil) // the time for which it comes last is over
	}
	var got list[Arrival]
	later.reads("later", func(_ context.Context, e Arrival) error { got.add(e); return nil })
	waitFor(t, "the inbox to be empty", w.empty)
	if all := got.all(); len(all) != 1 || all[0].Deliveries != 1 || all[0].Poisoned {
		t.Errorf("it arrived as %+v", all)
	}
}

// Where nobody comes who has the key, the entry is tried as often as any other
// from the time on when it is too late for it, and then the log has to say it:
// nobody can tell its author.
func TestAnEntryWhoseKeyIsLostIsADeadLetter(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	w.grouped()
	old := w.replica(oldRing)
	w.replica(newRing).put("click")
	opens := func(context.Context, Arrival) error { return nil }
	for range 2 * maxDeliveries {
		if old.looks(opens) == "" {
			t.Fatal("it was left, and the next look does not find it")
		}
		old.in.yields.Store(nil)
	}
	if p := w.pending(); p.RetryCount != 0 || w.aside() > 0 {
		t.Fatalf("while it is worth carrying out, %d tries count, and %d entries are aside", p.RetryCount, w.aside())
	}
	old.in.timing.Stale = -1 // by now it is too late
	for try := range maxDeliveries {
		id := old.looks(opens)
		if id == "" || w.aside() > 0 {
			t.Fatalf("it was not there for try %d, or is aside already", try+1)
		}
		old.in.yields.Store(nil)
		if old.looks(opens) != "" {
			t.Fatalf("after try %d it did not wait until it was taken over", try+1)
		}
		if p := w.pending(); p.RetryCount != int64(try+1) {
			t.Errorf("after %d tries %d count", try+1, p.RetryCount)
		}
		w.idles("one name for all", id)
	}
	if old.looks(opens) == "" || !w.empty() {
		t.Error("it is not set aside at last")
	}
	entries := w.rdb.XRange(t.Context(), w.store.keys.deadLetters(), "-", "+").Val()
	if len(entries) != 1 || entries[0].Values["envelope"] != "click" {
		t.Fatalf("aside is %v", entries)
	}
	if said := old.lines("level=ERROR msg=\"an inbox entry is moved to the dead letters"); len(said) != 1 || !strings.Contains(said[0], "envelope=click") || !strings.Contains(said[0], "k2") {
		t.Errorf("the log says %q", old.said.all())
	}
}

// A process that can open what a person did, and not what it is about, leaves
// that to the others too.
func TestADecisionOnARequestOfAnotherKeyIsSkipped(t *testing.T) {
	t.Parallel()
	timing := longTimings()
	timing.Takeover = time.Minute
	w := newFixture(t, timing)
	old, later := w.replica(oldRing), w.replica(newRing)
	w.store, w.service = later.store, later.service
	r := w.submit(deletionPlan(ClassDestroy, dana, "m1"))
	var tries list[int64]
	press := func(by *replica) func(context.Context, Arrival) error {
		return func(ctx context.Context, e Arrival) error {
			tries.add(e.Deliveries)
			_, err := by.service.Approve(ctx, e.Envelope, r.ID, ravi)
			return err
		}
	}
	old.put("press")
	old.reads("old", press(old))
	waitFor(t, "it to be left", func() bool { return old.gave.Load() > 0 })
	later.reads("later", press(later))
	waitFor(t, "the inbox to be empty", w.empty)
	if got := w.load(r.ID); got.State != StateApproved || len(got.Approvals) != 1 || w.aside() > 0 {
		t.Errorf("it is %s with %d approvals, and aside are %d", got.Summary(), len(got.Approvals), w.aside())
	}
	// Nobody may be told that it certainly was not executed. The old one may
	// have looked once more just as it gave it back.
	if all := slices.Compact(tries.all()); !slices.Equal(all, []int64{1, 2}) {
		t.Errorf("it came in deliveries %v", all)
	}
	old.lacks("k2")
	w.checkInvariants()
}

// A projection that cannot go on without a key, of an event or of what
// that is about, is led by a process that has the key.
func TestAProjectionSkipsEventsOfAnotherKey(t *testing.T) {
	t.Parallel()
	for name, about := range map[string]bool{"of an event": false, "of what it is about": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, longTimings()) // with a lease that does not run out
			old, later := w.replica(oldRing), w.replica(newRing)
			tell := func(by *replica, title string) {
				t.Helper()
				if _, err := by.store.note(t.Context(), title, "ok", Request{}, audit.Event{Kind: audit.Read, Title: title}); err != nil {
					t.Fatal(err)
				}
			}
			var got list[string]
			met := atomic.Int32{}
			handle := func(by *replica) func(context.Context, []audit.Event) (int, error) {
				return func(_ context.Context, batch []audit.Event) (int, error) {
					for i, e := range batch {
						if about && e.Title == "b" && by == old {
							met.Add(1)
							return i, fmt.Errorf("its request: %w", missingKeyError{"k2"})
						}
						got.add(e.Title)
					}
					return len(batch), nil
				}
			}
			tell(old, "a")
			if about {
				tell(old, "b")
			} else {
				tell(later, "b")
			}
			old.follows(handle(old))
			waitFor(t, "it to resign", func() bool {
				return len(got.all()) > 0 && len(old.lines("key=k2")) > 0 && w.rdb.Exists(t.Context(), w.store.keys.lead("cards")).Val() == 0
			})
			later.follows(handle(later))
			waitFor(t, "the second", func() bool { return len(got.all()) == 2 })
			tell(old, "c")
			tell(later, "d")
			waitFor(t, "the others", func() bool { return len(got.all()) == 4 })
			if want := []string{"a", "b", "c", "d"}; !slices.Equal(got.all(), want) || met.Load() > 1 {
				t.Errorf("handled %v, want %v; tried %d times in vain", got.all(), want, met.Load())
			}
			old.lacks("k2")
		})
	}
}

// A request is run by whoever can read it, and is put off by nobody else.
func TestARequestOfAnotherKeyIsSkipped(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings()) // with a lease as long as anything here may take
	old, later := w.replica(oldRing), w.replica(newRing)
	w.store, w.service = later.store, later.service
	r := w.approved(deletionPlan(ClassDestroy, dana, "m1"))
	due := w.rdb.ZScore(t.Context(), w.store.keys.due(), r.ID).Val()
	old.runs()
	old.lacks("k2")
	waitFor(t, "it to be left", func() bool { return old.store.missingKeys.count() == 1 })
	if now := w.rdb.ZScore(t.Context(), w.store.keys.due(), r.ID).Val(); now != due || w.load(r.ID).State != StateApproved {
		t.Errorf("it is %s, and due at %v instead of %v", w.load(r.ID).Summary(), now, due)
	}
	later.runs()
	if got := w.waitFinal(r.ID); got.Outcome != OutcomeSucceeded {
		t.Errorf("it is %s because %q", got.Summary(), got.Why)
	}
	w.tenant.wantDeletedOnce(t, "m1")
	old.lacks("k2")
	w.checkInvariants()
}

// What nobody here can read is no obstacle to the rest, however much it is.
func TestRequestsOfMissingKeysDelayNobody(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	other := ring(t, laterKey)
	pipe := w.rdb.Pipeline()
	for i := range 2*dueBatch + 50 {
		id := fmt.Sprint("R-OTHER", i)
		pipe.HSet(ctx, w.store.keys.request(id), "state", "approved", "version", "3", "claim", "0", "body", other.Seal("request", id, []byte("{}")))
		pipe.ZAdd(ctx, w.store.keys.due(), redisZ(0, id))
		pipe.ZAdd(ctx, w.store.keys.offers(), redisZ(0, offer(id, 0)))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	at := finishedWithSecret(time.Millisecond)(w)
	w.tenant.setScript(nil)
	old := w.replica(oldRing)
	old.runs()
	if got := w.waitFinal(w.approved(deletionPlan(ClassDestroy, dana, "m1")).ID); got.Outcome != OutcomeSucceeded {
		t.Errorf("it is %s", got.Summary())
	}
	waitFor(t, "the end of the offer to be told", func() bool { return w.told(at.ID, audit.Unseen) == 1 })
	old.lacks("k2")
}

// A worker that is halted by a word which it cannot read takes no other step,
// and makes room at once for somebody who can read it.
func TestAHaltOfAnotherKeyHalts(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	old, later := w.replica(oldRing), w.replica(newRing)
	r := w.approved(deletionPlan(ClassDestroy, dana, "m1", "m2"))
	w.store, w.service = later.store, later.service
	w.tenant.setScript(func(job Job) (Result, bool) {
		if job.Kind == JobRun && job.Step == 0 {
			if _, err := later.service.Stop(t.Context(), "halt", r.ID, ravi, "wrong account"); err != nil {
				t.Error(err)
			}
		}
		return Result{}, false
	})
	old.runs()
	waitFor(t, "it to be left", func() bool { return old.store.missingKeys.count() == 1 })
	later.runs()
	if got := w.waitFinal(r.ID); got.Outcome != OutcomePartial || !strings.Contains(got.Why, "wrong account") {
		t.Errorf("it is %s because %q", got.Summary(), got.Why)
	}
	w.tenant.wantDeletedOnce(t, "m1")
	if n := w.tenant.deletions("m2"); n > 0 {
		t.Errorf("the step behind the halt was taken %d times", n)
	}
	old.lacks("k2")
	w.checkInvariants()
}

// The end of an offer is told by whoever can read whose it was.
func TestASecretOfAnotherKeyIsSkipped(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	old, later := w.replica(oldRing), w.replica(newRing)
	w.store, w.service = later.store, later.service
	at := finishedWithSecret(time.Millisecond)(w)
	old.runs()
	old.lacks("k2")
	if n := w.told(at.ID, audit.Unseen); n != 0 || len(w.remainingSecrets()) != 1 {
		t.Errorf("told %d times, and there is left %v", n, w.remainingSecrets())
	}
	later.runs()
	waitFor(t, "the offer to be gone", func() bool { return len(w.remainingSecrets()) == 0 })
	if n := w.told(at.ID, audit.Unseen); n != 1 {
		t.Errorf("told %d times", n)
	}
	old.lacks("k2")
	old.stop()
	later.stop()

	// A prepared secret that does not open here is not lost either.
	h := w.startedExecution(passwords(SecretPrepared))
	if value, err := old.store.secretValue(ctx, h.req.ID, 0); !errors.Is(err, ErrNoKey) || value != "" {
		t.Errorf("it is %q, %v", value, err)
	}
	if value, err := later.store.secretValue(ctx, h.req.ID, 0); err != nil || value == "" {
		t.Errorf("it is %q, %v", value, err)
	}
}

// As docs/setup.md has it: a new key comes last on every process, and first
// when all have it. Two replicas are restarted one after the other, each time
// while the other one works, and none ever meets what it cannot open.
func TestAKeyIsRotatedInTwoSteps(t *testing.T) {
	t.Parallel()
	timing := longTimings()
	timing.Takeover = time.Minute
	w := newFixture(t, timing)
	ctx := t.Context()
	w.tenant = newTestTenant()
	var told list[string]
	start := func(keys string) *replica {
		r := w.replica(keys)
		w.store, w.service = r.store, r.service // the latest ring is the best to look with
		r.runs()
		r.reads(keys, func(ctx context.Context, e Arrival) error {
			_, err := r.service.Approve(ctx, e.Envelope, string(e.Payload), ravi)
			return err
		})
		r.follows(func(_ context.Context, batch []audit.Event) (int, error) {
			for _, e := range batch {
				if e.Kind == audit.Requested {
					told.add(e.Request)
				}
			}
			return len(batch), nil
		})
		return r
	}
	ask := func(by *replica, stage string) Request {
		t.Helper()
		w.tenant.mu.Lock()
		w.tenant.methods[stage] = true
		w.tenant.mu.Unlock()
		r, err := by.service.Submit(ctx, "ask "+stage, Submit{Plan: deletionPlan(ClassDestroy, dana, stage), Requester: hanna, Justification: "lost her phone", Ticket: "INC-7", Verified: "callback"})
		if err != nil {
			t.Fatalf("%s: %v", stage, err)
		}
		return r
	}
	approve := func(by *replica, r Request) {
		t.Helper()
		if err := by.in.Put(ctx, "approve "+r.ID, []byte(r.ID)); err != nil {
			t.Fatal(err)
		}
	}
	rounds := [][2]string{{oldRing, oldRing}, {oldRing, bothRing}, {bothRing, bothRing}, {bothRing, newRing}, {newRing, newRing}}
	all := []*replica{start(oldRing), start(oldRing)}
	var asked []string
	var open []Request // asked for in the round before, of either
	for n, rings := range rounds {
		if n > 0 { // one of the two is restarted
			i := (n + 1) % 2
			all[i].stop()
			all[i] = start(rings[1])
		}
		for _, r := range open {
			approve(all[n%2], r)
			if got := w.waitFinal(r.ID); got.Outcome != OutcomeSucceeded {
				t.Errorf("%v: %s is %s because %q", rings, r.ID, got.Summary(), got.Why)
			}
		}
		open = nil
		for i, by := range all {
			now, later := ask(by, fmt.Sprint("now-", n, i)), ask(by, fmt.Sprint("later-", n, i))
			asked = append(asked, now.ID, later.ID)
			open = append(open, later)
			approve(all[1-i], now)
			if got := w.waitFinal(now.ID); got.Outcome != OutcomeSucceeded {
				t.Errorf("%v: %s is %s because %q", rings, now.ID, got.Summary(), got.Why)
			}
		}
		waitFor(t, "the inbox to be empty", w.empty)
		waitFor(t, "the projection", func() bool { return len(told.all()) >= len(asked) && w.lag("cards") == 0 })
		for _, r := range all {
			if said := r.said.all(); len(said) > 0 {
				t.Errorf("%v: it says %q", rings, said)
			}
		}
	}
	if !slices.Equal(told.all(), asked) || w.aside() > 0 {
		t.Errorf("told of %v, want %v; aside are %d", told.all(), asked, w.aside())
	}
	w.checkInvariants()
	// What is new needs the old key no more.
	alone, _ := w.newProcessWithKeys(w.rdb, laterKey)
	for i, id := range []string{asked[0], asked[len(asked)-1]} {
		if _, err := alone.Load(ctx, id); errors.Is(err, ErrNoKey) != (i == 0) || i == 1 && err != nil {
			t.Errorf("without the old key, %s: %v", id, err)
		}
	}
}
