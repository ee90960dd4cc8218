package approvals

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign/audit"
	"countersign/internal/redistest"
)

// saboteur stands between a client and Redis. It either drops a request
// before it is sent, or lets it through and drops the reply: to the client
// both look alike, to Redis they are opposites.
type saboteur struct {
	mu      sync.Mutex
	words   []string // a request is hit when it has all of them
	replies bool     // drop the reply and not the request
	times   int      // how often
	hits    int
}

// arm sets the next target.
func (s *saboteur) arm(replies bool, times int, words ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.words, s.replies, s.times, s.hits = words, replies, times, 0
}

func (s *saboteur) struck() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hits
}

func (s *saboteur) strikes(request []byte) (hit, reply bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hits >= s.times {
		return false, false
	}
	for _, word := range s.words {
		if !bytes.Contains(request, []byte(word)) {
			return false, false
		}
	}
	s.hits++
	return true, s.replies
}

func (s *saboteur) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &sabotaged{Conn: conn, by: s}, nil
}

// client is one whose requests the saboteur sees. With patient it sends again
// by itself, as go-redis does by default.
func (s *saboteur) client(t *testing.T, server *redistest.Server, patient bool) redis.UniversalClient {
	retries := -1
	if patient {
		retries = 3
	}
	return server.ClientWith(t, func(o *redis.UniversalOptions) {
		o.Dialer, o.MaxRetries, o.MinRetryBackoff, o.MaxRetryBackoff = s.dial, retries, time.Millisecond, 5*time.Millisecond
	})
}

type sabotaged struct {
	net.Conn
	by      *saboteur
	mu      sync.Mutex
	swallow bool
}

func (c *sabotaged) Write(b []byte) (int, error) {
	hit, reply := c.by.strikes(b)
	if hit && !reply {
		c.Conn.Close()
		return 0, io.EOF // what go-redis takes for a reason to send again
	}
	c.mu.Lock()
	c.swallow = c.swallow || hit
	c.mu.Unlock()
	return c.Conn.Write(b)
}

func (c *sabotaged) Read(b []byte) (int, error) {
	c.mu.Lock()
	swallow := c.swallow
	c.mu.Unlock()
	n, err := c.Conn.Read(b) // the reply: so it was applied
	if swallow {
		c.Conn.Close()
		return 0, io.EOF
	}
	return n, err
}

// faulty is every write of commit.lua, with what must be there after it was
// made once. internal/writes knows where all writes are.
var faulty = []struct {
	name  string
	words []string // what its request has in it
	// prepare makes the ground, on a sound connection.
	prepare func(w *fixture) Snapshot
	// write is the attempt, by a process whose line is cut; it is repeated with
	// the same operation until it says yes or no.
	write func(store *Store, service *Service, at Snapshot) error
	code  Code         // the refusal, where it is one
	kinds []audit.Kind // the events of the request, or all where there is none
	state State
}{
	{name: "create", words: []string{"evalsha", "op-x"}, prepare: func(*fixture) Snapshot { return Snapshot{Request: Request{ID: RequestID("op-x")}} },
		write: func(_ *Store, d *Service, _ Snapshot) error {
			_, err := d.Submit(context.Background(), "op-x", Submit{Plan: deletionPlan(ClassDestroy, dana, "m1"), Requester: hanna})
			return err
		}, kinds: []audit.Kind{audit.Requested}, state: StatePending},
	{name: "approve", words: []string{"evalsha", "op-x"}, prepare: pending,
		write: func(_ *Store, d *Service, at Snapshot) error {
			_, err := d.Approve(context.Background(), "op-x", at.ID, ravi)
			return err
		}, kinds: []audit.Kind{audit.Requested, audit.Approved}, state: StateApproved},
	{name: "deny", words: []string{"evalsha", "op-x"}, prepare: pending,
		write: func(_ *Store, d *Service, at Snapshot) error {
			_, err := d.Deny(context.Background(), "op-x", at.ID, ravi, "no")
			return err
		}, kinds: []audit.Kind{audit.Requested, audit.Denied}, state: StateDenied},
	{name: "cancel", words: []string{"evalsha", "op-x"}, prepare: pending,
		write: func(_ *Store, d *Service, at Snapshot) error {
			_, err := d.Cancel(context.Background(), "op-x", at.ID, hanna)
			return err
		}, kinds: []audit.Kind{audit.Requested, audit.Cancelled}, state: StateCancelled},
	{name: "halt", words: []string{"evalsha", "op-x"}, prepare: held,
		write: func(_ *Store, d *Service, at Snapshot) error {
			_, err := d.Stop(context.Background(), "op-x", at.ID, ravi, "wait")
			return err
		}, kinds: []audit.Kind{audit.Requested, audit.Approved, audit.Started, audit.Halted}, state: StateRunning},
	{name: "note of a refused press", words: []string{"evalsha", "op-x"}, prepare: pending,
		write: func(_ *Store, d *Service, at Snapshot) error {
			_, err := d.Approve(context.Background(), "op-x", at.ID, sam)
			return err
		}, code: CodeNotAllowed, kinds: []audit.Kind{audit.Requested, audit.Refused}, state: StatePending},
	{name: "note of a refused wish", words: []string{"evalsha", "op-x"}, prepare: func(*fixture) Snapshot { return Snapshot{} },
		write: func(_ *Store, d *Service, at Snapshot) error {
			_, err := d.Submit(context.Background(), "op-x", Submit{Plan: deletionPlan(ClassDestroy, dana, "m1"), Requester: olga})
			return err
		}, code: CodeNotAllowed, kinds: []audit.Kind{audit.Refused}},
	{name: "note of a read", words: []string{"evalsha", "op-x"}, prepare: func(*fixture) Snapshot { return Snapshot{} },
		write: func(_ *Store, d *Service, _ Snapshot) error {
			return d.AuthorizeRead(context.Background(), "op-x", "entra-methods", "Methods", hanna, dana)
		}, kinds: []audit.Kind{audit.Read}},
	{name: "expire", words: []string{"evalsha", "expire:1"}, prepare: func(w *fixture) Snapshot {
		snap := pending(w)
		w.rdb.HSet(w.t.Context(), w.store.keys.request(snap.ID), "deadline", 1)
		return w.load(snap.ID)
	},
		write: func(s *Store, _ *Service, at Snapshot) error { return s.expire(context.Background(), at) },
		kinds: []audit.Kind{audit.Requested, audit.Expired}, state: StateExpired},
	{name: "claim", words: []string{"evalsha", "claim:1"}, prepare: func(w *fixture) Snapshot { return w.load(w.approved(deletionPlan(ClassDestroy, dana, "m1", "m2")).ID) },
		write: func(s *Store, _ *Service, at Snapshot) error {
			_, err := s.claim(context.Background(), at, "worker")
			if errors.Is(err, ErrFenced) {
				return nil // its own first attempt was there before: the lease has to run out
			}
			return err
		}, kinds: []audit.Kind{audit.Requested, audit.Approved, audit.Started}, state: StateRunning},
	{name: "begin", words: []string{"evalsha", "run:1:begin:0"}, prepare: held, write: advances("begin:0", StartStep{Step: 0}),
		kinds: []audit.Kind{audit.Requested, audit.Approved, audit.Started}, state: StateRunning},
	{name: "end", words: []string{"evalsha", "run:1:end:0"}, prepare: begun, write: advances("end:0", EndStep{Step: 0, Result: Result{State: StepDone}}),
		kinds: []audit.Kind{audit.Requested, audit.Approved, audit.Started, audit.StepEnded}, state: StateRunning},
	{name: "wait", words: []string{"evalsha", "run:1:wait:0"}, prepare: begun, write: advances("wait:0", Release{Step: 0, After: time.Minute}),
		kinds: []audit.Kind{audit.Requested, audit.Approved, audit.Started, audit.Waiting}, state: StateRunning},
	{name: "give back", words: []string{"evalsha", "run:1:give-back:0"}, prepare: held, write: advances("give-back:0", Release{Step: -1}),
		kinds: []audit.Kind{audit.Requested, audit.Approved, audit.Started}, state: StateRunning},
	{name: "finish", words: []string{"evalsha", "run:1:finish"}, prepare: held, write: advances("finish", Finish{Why: "enough"}),
		kinds: []audit.Kind{audit.Requested, audit.Approved, audit.Started, audit.Finished}, state: StateDone},
	{name: "hand off", words: []string{"evalsha", "run:1:hand-off:0"}, prepare: func(w *fixture) Snapshot { return w.claimed(byHand()) }, write: advances("hand-off:0", HandOff{Step: 0}),
		kinds: []audit.Kind{audit.Requested, audit.Approved, audit.Started, audit.HandedOff}, state: StateHandedOff},
	{name: "remind", words: []string{"evalsha", "remind:"}, prepare: func(w *fixture) Snapshot { at := handedOff(w); w.expireLease(at.ID); return w.load(at.ID) },
		write: func(s *Store, _ *Service, at Snapshot) error { return s.remind(context.Background(), at) },
		kinds: []audit.Kind{audit.Requested, audit.Approved, audit.Started, audit.HandedOff, audit.Reminded}, state: StateHandedOff},
	{name: "remind of a review", words: []string{"evalsha", "remind:"}, prepare: func(w *fixture) Snapshot { at := inReview(w); w.expireLease(at.ID); return w.load(at.ID) },
		write: func(s *Store, _ *Service, at Snapshot) error { return s.remind(context.Background(), at) },
		kinds: []audit.Kind{audit.Requested, audit.UsedBreakGlass, audit.Started, audit.StepEnded, audit.Finished, audit.Reminded}, state: StateReview},
	{name: "warn", words: []string{"evalsha", "warn"}, prepare: func(w *fixture) Snapshot { at := pending(w); w.endsIn(at.ID, time.Second*50); return w.load(at.ID) },
		write: func(s *Store, _ *Service, at Snapshot) error { return s.remindExpiry(context.Background(), at) },
		kinds: []audit.Kind{audit.Requested, audit.Reminded}, state: StatePending},
	{name: "use break-glass", words: []string{"evalsha", "op-x"}, prepare: emergency,
		write: func(_ *Store, d *Service, at Snapshot) error {
			_, err := d.BreakGlass(context.Background(), "op-x", at.ID, olga, "an intruder reads her mail")
			return err
		}, kinds: []audit.Kind{audit.Requested, audit.UsedBreakGlass}, state: StateApproved},
	{name: "review", words: []string{"evalsha", "op-x"}, prepare: inReview,
		write: func(_ *Store, d *Service, at Snapshot) error {
			_, err := d.Review(context.Background(), "op-x", at.ID, ravi, VerdictNotJustified, "she was on a train")
			return err
		}, kinds: []audit.Kind{audit.Requested, audit.UsedBreakGlass, audit.Started, audit.StepEnded, audit.Finished, audit.Reviewed}, state: StateDone},
	{name: "attest", words: []string{"evalsha", "op-x"}, prepare: handedOff,
		write: func(_ *Store, d *Service, at Snapshot) error {
			_, err := d.Attest(context.Background(), "op-x", at.ID, ravi)
			return err
		}, kinds: []audit.Kind{audit.Requested, audit.Approved, audit.Started, audit.HandedOff, audit.Attested}, state: StateHandedOff},
	{name: "confirm", words: []string{"evalsha", "op-x"}, prepare: attested,
		write: func(_ *Store, d *Service, at Snapshot) error {
			_, err := d.Confirm(context.Background(), "op-x", at.ID, olga)
			return err
		}, kinds: []audit.Kind{audit.Requested, audit.Approved, audit.Started, audit.HandedOff, audit.Attested, audit.Confirmed, audit.Finished}, state: StateDone},
	{name: "cancel a hand-off", words: []string{"evalsha", "op-x"}, prepare: handedOff,
		write: func(_ *Store, d *Service, at Snapshot) error {
			_, err := d.Cancel(context.Background(), "op-x", at.ID, hanna)
			return err
		}, kinds: []audit.Kind{audit.Requested, audit.Approved, audit.Started, audit.HandedOff, audit.Cancelled}, state: StateCancelled},
	{name: "reveal", words: []string{"evalsha", "op-x"}, prepare: finishedWithSecret(time.Minute),
		write: func(_ *Store, d *Service, at Snapshot) error {
			secret, err := d.Reveal(context.Background(), "op-x", at.ID, hanna)
			if err == nil && secret.Value != "offered" {
				return errors.New("it reveals nothing")
			}
			return err
		}, kinds: []audit.Kind{audit.Requested, audit.Approved, audit.Started, audit.StepEnded, audit.Finished, audit.Revealed}, state: StateDone},
	{name: "unseen", words: []string{"evalsha", "unseen:"}, prepare: finishedWithSecret(time.Millisecond),
		write: func(s *Store, _ *Service, _ Snapshot) error { return s.expireSecrets(context.Background()) },
		kinds: []audit.Kind{audit.Requested, audit.Approved, audit.Started, audit.StepEnded, audit.Finished, audit.Unseen}, state: StateDone},
}

func pending(w *fixture) Snapshot {
	return w.load(w.submit(deletionPlan(ClassDestroy, dana, "m1", "m2")).ID)
}
func held(w *fixture) Snapshot { return w.claimed(deletionPlan(ClassDestroy, dana, "m1", "m2")) }
func begun(w *fixture) Snapshot {
	snap := held(w)
	next, err := w.store.advance(w.t.Context(), snap.Request, snap.Now, "begin:0", StartStep{Step: 0})
	if err != nil {
		w.t.Fatal(err)
	}
	return Snapshot{Request: next, Now: snap.Now}
}

func advances(op string, a Action) func(*Store, *Service, Snapshot) error {
	return func(s *Store, _ *Service, at Snapshot) error {
		_, err := s.advance(context.Background(), at.Request, at.Now, op, a)
		return err
	}
}

// Each write, failed and not applied, and failed but applied; repeated by the
// client itself, or by whoever asked for it.
func TestEveryWriteIsAttacked(t *testing.T) {
	t.Parallel()
	for _, tt := range faulty {
		for _, replies := range []bool{false, true} {
			for _, patient := range []bool{false, true} {
				lost := map[bool]string{false: "request", true: "reply"}[replies]
				again := map[bool]string{false: "asked again", true: "sent again"}[patient]
				t.Run(fmt.Sprintf("%s/%s lost/%s", tt.name, lost, again), func(t *testing.T) {
					t.Parallel()
					w := newFixture(t, longTimings())
					if err := w.store.commit.Load(t.Context(), w.rdb).Err(); err != nil {
						t.Fatal(err)
					}
					at := tt.prepare(w)
					before := len(w.events())
					sab := &saboteur{}
					store, service := w.newProcess(sab.client(t, w.server, patient))
					sab.arm(replies, 2, tt.words...)
					var err error
					tries := 0
					for {
						tries++
						err = tt.write(store, service, at)
						if no := (*Refusal)(nil); err == nil || errors.As(err, &no) {
							break
						}
						if tries == 1 && !replies && len(w.events()) != before {
							t.Error("a request that was never sent left an event")
						}
						if tries > 5 {
							t.Fatalf("it fails again and again: %v", err)
						}
					}
					if code(err) != tt.code {
						t.Errorf("it ends with %v, want %q", err, tt.code)
					}
					if n := sab.struck(); n == 0 || patient && tries != 1 || !patient && tries == 1 {
						t.Errorf("%d requests were hit, and it was tried %d times", n, tries)
					}
					// Once more, now that all is well: the same answer.
					if tt.name != "expire" { // which is over, and not asked again with what was read before
						if err := tt.write(store, service, at); code(err) != tt.code {
							t.Errorf("once more: %v, want %q", err, tt.code)
						}
					}
					if at.ID != "" {
						if got := w.load(at.ID); got.State != tt.state {
							t.Errorf("it is %s, want %s", got.Summary(), tt.state)
						}
					}
					if got := w.eventKinds(at.ID); !slices.Equal(got, tt.kinds) {
						t.Errorf("events %v, want %v", got, tt.kinds)
					}
					w.checkInvariants()
				})
			}
		}
	}
}

// A whole run, with one write of it failing until somebody notices: it is
// carried on, by this process or another, and each step is applied once.
func TestARunSurvivesEveryLostWrite(t *testing.T) {
	t.Parallel()
	for _, write := range []string{"claim:1", "run:1:begin:0", "run:1:end:0", "run:1:begin:1", "run:1:end:1", "run:1:finish"} {
		for _, replies := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%s lost", write, map[bool]string{false: "request", true: "reply"}[replies]), func(t *testing.T) {
				t.Parallel()
				w := newFixture(t, longTimings())
				w.log = discard
				if err := w.store.commit.Load(t.Context(), w.rdb).Err(); err != nil {
					t.Fatal(err)
				}
				r := w.approved(deletionPlan(ClassDestroy, dana, "m1", "m2"))
				sab := &saboteur{}
				sab.arm(replies, 1, "evalsha", write)
				_, service := w.newProcess(sab.client(t, w.server, false))
				first, _ := w.startedRunner(service, "its line is cut")
				waitFor(t, "the line to be cut", func() bool { return sab.struck() == 1 })
				_, other := w.newProcess(w.server.Client(t))
				second, _ := w.startedRunner(other, "another one")
				if got := w.waitExecuted(r.ID, first, second); got.Outcome != OutcomeSucceeded {
					t.Errorf("it is %s because %q, journal %+v", got.Summary(), got.Why, got.Journal)
				}
				w.tenant.wantDeletedOnce(t, "m1", "m2")
				w.checkInvariants()
			})
		}
	}
}

// The writes beside requests may be repeated as they are.
func TestPlainWritesAreAttacked(t *testing.T) {
	t.Parallel()
	for _, replies := range []bool{false, true} {
		w := newFixture(t, longTimings())
		ctx := t.Context()
		if err := pinScript.Load(ctx, w.rdb).Err(); err != nil {
			t.Fatal(err)
		}
		r := w.submit(deletionPlan(ClassDestroy, dana, "m1"))
		sab := &saboteur{}
		store, _ := w.newProcess(sab.client(t, w.server, false))
		for _, tt := range []struct {
			name, word string
			write      func() error
			is         func() string
			want       string
		}{
			{"pin", "evalsha", func() error {
				ok, err := store.Pin(ctx, "U1", "a")
				if err == nil && !ok {
					t.Error("the pin was refused")
				}
				return err
			}, func() string { return w.server.Dump(t)[w.store.keys.pins("entra")] }, "a U1"},
			{"card", "hset", func() error { return store.SetCard(ctx, r.ID, "approvers", Card{"C1", "1.1"}) },
				func() string { return w.server.Dump(t)[w.store.keys.cards(r.ID)] }, `approvers {"channel":"C1","ts":"1.1"}`},
			{"postpone", "zadd", func() error { return store.postpone(ctx, r.ID, time.Hour) }, func() string {
				left := time.UnixMilli(int64(w.rdb.ZScore(ctx, w.store.keys.due(), r.ID).Val())).Sub(w.now())
				return fmt.Sprint(left > 50*time.Minute)
			}, "true"},
			{"postpone what is gone", "zadd", func() error { return store.postpone(ctx, "R-GONE", time.Hour) },
				func() string { return fmt.Sprint(w.rdb.ZCard(ctx, w.store.keys.due()).Val()) }, "1"},
			{"trim", "xtrim", func() error {
				w.rdb.Set(ctx, w.store.keys.cursor("p"), w.events()[0].ID, 0)
				return store.Trim(ctx, []string{"p"}, 0)
			},
				func() string { return fmt.Sprint(len(w.events())) }, "1"},
		} {
			sab.arm(replies, 1, tt.word)
			if err := tt.write(); err == nil {
				t.Errorf("%s: what could not be confirmed was confirmed", tt.name)
			}
			if err := tt.write(); err != nil {
				t.Errorf("%s, again: %v", tt.name, err)
			}
			if got := tt.is(); got != tt.want {
				t.Errorf("%s left %s, want %s", tt.name, got, tt.want)
			}
		}
		// A use whose reply was lost counts, so a limit may bite too early and never too late.
		sab.arm(replies, 1, "incr")
		if _, err := store.Allow(ctx, "read", "x", 1, time.Minute); err == nil {
			t.Error("a use that could not be counted was allowed")
		}
		if ok, err := store.Allow(ctx, "read", "x", 1, time.Minute); err != nil || ok == replies {
			t.Errorf("replies lost %v: allowed again %v, %v", replies, ok, err)
		}
	}
}

// An entry that could not be confirmed is put again, and is there once.
func TestPutIsAttacked(t *testing.T) {
	t.Parallel()
	for _, replies := range []bool{false, true} {
		w := newFixture(t, longTimings())
		if err := putScript.Load(t.Context(), w.rdb).Err(); err != nil {
			t.Fatal(err)
		}
		sab := &saboteur{}
		in := NewInbox(w.store, sab.client(t, w.server, false), discard)
		sab.arm(replies, 1, "evalsha", "envelope-1")
		if err := in.Put(t.Context(), "envelope-1", []byte("x")); err == nil {
			t.Error("what could not be confirmed was confirmed")
		}
		if err := in.Put(t.Context(), "envelope-1", []byte("x")); err != nil {
			t.Errorf("put again: %v", err)
		}
		if n := w.rdb.XLen(t.Context(), w.store.keys.inbox()).Val(); n != 1 {
			t.Errorf("replies lost %v: %d entries, want 1", replies, n)
		}
	}
}

// An entry whose removal failed comes again, or is gone, and never stays.
func TestRemovalFromTheInboxIsAttacked(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"xack", "xreadgroup", "xautoclaim"} {
		for _, replies := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%s lost", word, map[bool]string{false: "request", true: "reply"}[replies]), func(t *testing.T) {
				t.Parallel()
				timing := longTimings()
				timing.Takeover = 50 * time.Millisecond
				w := newFixture(t, timing)
				if err := w.inbox().Put(t.Context(), "envelope-1", []byte("x")); err != nil {
					t.Fatal(err)
				}
				sab := &saboteur{}
				sab.arm(replies, 1, word)
				store, _ := w.newProcess(sab.client(t, w.server, false))
				in := NewInbox(store, store.rdb, discard)
				var got list[Arrival]
				background(t, func(ctx context.Context) {
					in.Consume(ctx, "reader", 1, func(_ context.Context, e Arrival) error { got.add(e); return nil })
				})
				waitFor(t, "the line to be cut", func() bool { return sab.struck() == 1 })
				waitFor(t, "the entry to be done and gone", func() bool { return len(got.all()) > 0 && w.empty() })
				if n := len(got.all()); n > 2 {
					t.Errorf("it was handed out %d times", n)
				}
			})
		}
	}
}

// A projection whose reads and cursor writes fail every few times handles
// every event at least once, and in order.
func TestProjectionsAreAttacked(t *testing.T) {
	t.Parallel()
	for _, replies := range []bool{false, true} {
		t.Run(fmt.Sprintf("%s lost", map[bool]string{false: "request", true: "reply"}[replies]), func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, longTimings())
			sab := &saboteur{}
			store, _ := w.newProcess(sab.client(t, w.server, false))
			var got list[string]
			background(t, func(ctx context.Context) {
				store.Follow(ctx, "reader", Projection{Name: "cards", Handle: func(_ context.Context, batch []audit.Event) (int, error) {
					for _, e := range batch {
						got.add(e.Title)
					}
					return len(batch), nil
				}}, discard)
			})
			var want []string
			for i, word := range []string{"evalsha", "xread", "evalsha", "evalsha", "xread"} {
				sab.arm(replies, 1, word)
				want = append(want, fmt.Sprint("event ", i))
				w.tell(want[i])
				waitFor(t, "the line to be cut", func() bool { return sab.struck() == 1 })
				waitFor(t, want[i], func() bool { return slices.Contains(got.all(), want[i]) })
			}
			waitFor(t, "the cursor", func() bool { return w.lag("cards") == 0 })
			var order []string
			for _, name := range got.all() {
				if !slices.Contains(order, name) {
					order = append(order, name)
				}
			}
			if !slices.Equal(order, want) {
				t.Errorf("handled %v, want %v", got.all(), want)
			}
		})
	}
}
