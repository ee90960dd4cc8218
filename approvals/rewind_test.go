package approvals

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"countersign/audit"
)

// losses is what is written about this Redis having gone back.
func (w *world) losses() []Lost {
	w.t.Helper()
	list, err := w.store.Losses(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

// resume says go on.
func (w *world) resume() {
	w.t.Helper()
	if err := w.store.Resume(w.t.Context(), w.losses(), "The operator"); err != nil {
		w.t.Fatal(err)
	}
}

// wants is a wish that nobody else has.
func (w *world) wants() Ask {
	return Ask{Plan: deletes(ClassDestroy, dana, "x-"+w.op()), Requester: hanna, Justification: "x", Ticket: "INC-7", Verified: "callback"}
}

func words(list []Commit) (all []string) {
	for _, c := range list {
		all = append(all, c.Request+": "+c.What)
	}
	return all
}

// What a Redis has lost is noticed by the next commit, before anything of that
// is written, and is named: execution first.
func TestWhatRedisLostIsNamed(t *testing.T) {
	t.Parallel()
	for _, everything := range []bool{false, true} {
		t.Run(map[bool]string{true: "everything", false: "the last commits"}[everything], func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, calm())
			ctx := t.Context()
			r := w.approved(deletes(ClassDestroy, dana, "m1", "m2"))
			lose := func() { w.server.Kill(t); w.server.Restart(t) }
			if everything {
				if !w.server.Real() { // which loses nothing with its process
					lose = func() { w.server.Empty(t) }
				}
			} else {
				lose = w.server.Save(t)
			}
			kept := number(w.rdb.Get(ctx, w.store.keys.sequence()).Val())
			snap, err := w.store.claim(ctx, w.load(r.ID), "worker")
			if err != nil {
				t.Fatal(err)
			}
			next := snap.Request
			for _, step := range []struct {
				op string
				a  Action
			}{{"begin:0", Begin{Step: 0}}, {"end:0", End{Step: 0, Result: Result{State: StepDone}}}} {
				if next, err = w.store.advance(ctx, next, snap.Now, step.op, step.a); err != nil {
					t.Fatal(err)
				}
			}
			asked := w.ask(deletes(ClassDestroy, sam, "m3"))
			known := number(w.rdb.Get(ctx, w.store.keys.sequence()).Val())
			if _, err := w.desk.Approve(ctx, w.op(), asked.ID, bo); code(err) == "" {
				t.Fatal("a disabled account approved")
			}
			lose()

			before := w.server.Dump(t)
			op := w.op()
			if _, err := w.desk.Ask(ctx, op, w.wants()); !errors.Is(err, ErrRewound) {
				t.Fatalf("a commit on a Redis that has gone back: %v", err)
			}
			if _, err := w.store.advance(ctx, next, snap.Now, "begin:1", Begin{Step: 1}); !errors.Is(err, ErrRewound) {
				t.Fatalf("a step on a Redis that has gone back: %v", err)
			}
			after := w.server.Dump(t)
			delete(after, w.store.keys.lost())
			if !same(t, before, after) {
				t.Errorf("it was\n%v\nand a refused commit made it\n%v", before, after)
			}

			list := w.losses()
			if len(list) != 1 {
				t.Fatalf("%d processes say that something is lost: %+v", len(list), list)
			}
			want := []string{r.ID + ": step 1 ended as done", r.ID + ": step 1 was begun", r.ID + ": its execution was started",
				asked.ID + ": refused to approve, by account " + bo.ID, asked.ID + ": requested, by account " + hanna.ID}
			if everything {
				kept = 0
				want = append(want, r.ID+": approved, by account "+ravi.ID, r.ID+": requested, by account "+hanna.ID)
			}
			if got := words(list[0].Commits); !slices.Equal(got, want) {
				t.Errorf("named are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if got := list[0]; got.Kept != kept || got.Sequence != kept || got.Known != known+1 || got.Process == "" || got.Host == "" || time.Since(got.At) > time.Minute {
				t.Errorf("it says %+v, and it went back from %d to %d", got, known+1, kept)
			}
			if text := fmt.Sprint(list, Says(list)); strings.Contains(text, "fernhill") || strings.Contains(text, "Hanna") {
				t.Errorf("somebody is named in it: %s", text)
			}
			if sealed := after[w.store.keys.lost()]; strings.Contains(sealed, hanna.ID) || strings.Contains(sealed, r.ID) {
				t.Errorf("it is not sealed: %s", sealed)
			}
		})
	}
}

// Another process that knows nothing of it has carried the number further than
// it was before.
func TestItIsNoticedHoweverFarOthersHaveCome(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	ctx := t.Context()
	restore := w.server.Save(t)
	r := w.ask(deletes(ClassDestroy, dana, "m1"))
	known := w.rdb.Get(ctx, w.store.keys.sequence()).Val()
	restore()
	other, desk := w.process(w.server.Client(t))
	for range 5 {
		if _, err := desk.Ask(ctx, w.op(), w.wants()); err != nil {
			t.Fatal(err)
		}
	}
	if now := w.rdb.Get(ctx, w.store.keys.sequence()).Val(); number(now) <= number(known) {
		t.Fatalf("the sequence is %s and was %s: this tests nothing", now, known)
	}
	if _, err := w.desk.Ask(ctx, w.op(), w.wants()); !errors.Is(err, ErrRewound) {
		t.Fatalf("a commit of a process whose commits are lost: %v", err)
	}
	if list := w.losses(); len(list) != 1 || !slices.Equal(words(list[0].Commits), []string{r.ID + ": requested, by account " + hanna.ID}) {
		t.Errorf("named are %+v", list)
	}
	if _, err := desk.Ask(ctx, w.op(), w.wants()); !errors.Is(err, ErrRewound) {
		t.Errorf("a commit of the process that knew nothing of it: %v", err)
	}
	if !other.Rewound() {
		t.Error("it does not know that it has stopped")
	}
}

// One that commits nothing itself remembers how far it saw the others come.
func TestALookerNoticesWhatADeadProcessLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	ctx := t.Context()
	restore := w.server.Save(t)
	w.ask(deletes(ClassDestroy, dana, "m1")) // and this process is never heard of again
	looker, _ := w.process(w.server.Client(t))
	if err := looker.look(ctx); err != nil {
		t.Fatal(err)
	}
	restore()
	_, newcomer := w.process(w.server.Client(t))
	for range 3 {
		if _, err := newcomer.Ask(ctx, w.op(), w.wants()); err != nil {
			t.Fatal(err)
		}
	}
	if err := looker.look(ctx); !errors.Is(err, ErrRewound) {
		t.Fatalf("it looks, and says %v", err)
	}
	if list := w.losses(); len(list) != 1 || len(list[0].Commits) != 0 || list[0].Known != 1 {
		t.Errorf("written is %+v", list)
	}
}

// All stop, those that lost nothing and those that are started later too, until
// a person has seen what was lost. Then they go on by themselves.
func TestAllStopUntilAPersonSaysGoOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	ctx := t.Context()
	w.log, w.desk.Log = discard, discard
	approved := w.ask(deletes(ClassDestroy, dana, "m1"))
	if approved.Terms.Approvals != 1 {
		t.Fatal("this needs one approval")
	}
	restore := w.server.Save(t)
	late := w.op()
	if _, err := w.desk.Approve(ctx, late, approved.ID, ravi); err != nil {
		t.Fatal(err)
	}
	restore()
	// A process that never lost anything, and this one, each with a runner.
	_, other := w.process(w.server.Client(t))
	w.run(other, "other")
	w.run(w.desk, "this")
	waitFor(t, "both to have stopped", func() bool { return w.store.Rewound() && other.Store.Rewound() })
	_, started := w.process(w.server.Client(t))
	w.run(started, "started later")
	for name, desk := range map[string]*Desk{"the one that lost": w.desk, "another": other, "one started later": started} {
		if _, err := desk.Approve(ctx, w.op(), approved.ID, ravi); !errors.Is(err, ErrRewound) {
			t.Errorf("approving through %s: %v", name, err)
		}
		if _, err := desk.Store.Load(ctx, approved.ID); err != nil {
			t.Errorf("reading through %s: %v", name, err)
		}
	}

	list := w.losses()
	if len(list) != 1 || list[0].Process != w.store.memory.me {
		t.Fatalf("what was lost was written by %+v", list)
	}
	stale := slices.Clone(list)
	stale[0].sealed = "another"
	for name, seen := range map[string][]Lost{"something else": stale, "too much": append(slices.Clone(list), Lost{Process: "x"})} {
		if err := w.store.Resume(ctx, seen, "The operator"); !errors.Is(err, ErrLostMore) {
			t.Errorf("going on after having seen %s: %v", name, err)
		}
	}
	if err := w.store.Resume(ctx, nil, "The operator"); err == nil {
		t.Error("somebody went on without having seen anything")
	}
	if !w.store.Rewound() {
		t.Error("it goes on although nobody said so")
	}
	w.resume()
	waitFor(t, "all to go on", func() bool { return !w.store.Rewound() && !other.Store.Rewound() && !started.Store.Rewound() })
	if list := w.losses(); len(list) > 0 {
		t.Errorf("still lost: %+v", list)
	}
	if _, err := w.desk.Approve(ctx, w.op(), approved.ID, ravi); err != nil {
		t.Fatalf("approving again: %v", err)
	}
	if got := w.until(approved.ID); got.Outcome != Succeeded {
		t.Errorf("it is %s because %q", got.Says(), got.Why)
	}
	w.tenant.once(t, "m1")
	w.invariants()
	var told []audit.Event
	for _, e := range w.events() {
		if e.Kind == audit.Alarm {
			told = append(told, e)
		}
	}
	if len(told) != 1 || !strings.Contains(told[0].Reason, "The operator said") || !strings.Contains(told[0].Reason, "One write") {
		t.Errorf("on the record is %+v", told)
	}
	// And once more: it can lose again.
	restore = w.server.Save(t)
	w.ask(deletes(ClassDestroy, sam, "m2"))
	restore()
	waitFor(t, "it to be noticed once more", w.store.Rewound)
	// Whoever has seen the request stops for itself, and may do so when another's
	// loss has been seen already.
	waitFor(t, "all to go on once more", func() bool {
		if list := w.losses(); len(list) > 0 {
			if err := w.store.Resume(ctx, list, "The operator"); err != nil && !errors.Is(err, ErrLostMore) {
				t.Fatal(err)
			}
			return false
		}
		return !w.store.Rewound() && !other.Store.Rewound() && !started.Store.Rewound()
	})
}

// A claim that was lost is given out again. A worker that held it, and was still
// at a step when a person said go on, does not write into the other one's run.
func TestAClaimThatWasLostIsNoFence(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	ctx := t.Context()
	w.log, w.desk.Log = discard, discard
	r := w.approved(deletes(ClassDestroy, dana, "m1"))
	restore := w.server.Save(t)
	inHand, goOn := make(chan struct{}), make(chan struct{})
	w.tenant.says(func(job Job) (Result, bool) {
		if job.Kind == Run {
			close(inHand)
			<-goOn
		}
		return Result{}, false
	})
	stop := w.run(w.desk, "slow")
	<-inHand
	restore()
	waitFor(t, "it to have stopped", w.store.Rewound)
	waitFor(t, "it to be written", func() bool { return len(w.losses()) == 1 })
	w.resume()
	waitFor(t, "it to go on", func() bool { return !w.store.Rewound() })
	other, _ := w.process(w.server.Client(t))
	snap, err := other.claim(ctx, w.load(r.ID), "other")
	if err != nil || snap.Claim != 1 {
		t.Fatalf("the claim is %d (%v): this tests nothing", snap.Claim, err)
	}
	close(goOn)
	stop()
	if got := w.load(r.ID); got.Worker != "other" || got.Journal[0].State != StepWaiting {
		t.Errorf("it is %s, journal %+v", got.Says(), got.Journal)
	}
	if _, err := other.advance(ctx, snap.Request, snap.Now, "begin:0", Begin{Step: 0}); err != nil {
		t.Errorf("the other one: %v", err)
	}
}

// A process that was away while a person said go on, and has lost what nobody
// has seen, stops everything again. One that has lost nothing does not.
func TestWhatNobodySawStopsItAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	ctx := t.Context()
	idle, harmless := w.process(w.server.Client(t))
	if err := idle.look(ctx); err != nil {
		t.Fatal(err)
	}
	restore := w.server.Save(t)
	w.ask(deletes(ClassDestroy, dana, "m1"))
	_, away := w.process(w.server.Client(t))
	lost, err := away.Ask(ctx, w.op(), w.wants())
	if err != nil {
		t.Fatal(err)
	}
	restore()
	if err := w.store.look(ctx); !errors.Is(err, ErrRewound) {
		t.Fatal(err)
	}
	w.resume()
	if err := w.store.look(ctx); err != nil {
		t.Fatalf("after a person has seen it: %v", err)
	}
	if _, err := harmless.Ask(ctx, w.op(), w.wants()); err != nil {
		t.Fatalf("a process that was away and lost nothing: %v", err)
	}
	if _, err := away.Ask(ctx, w.op(), w.wants()); !errors.Is(err, ErrRewound) {
		t.Fatalf("a process that was away and lost something: %v", err)
	}
	if list := w.losses(); len(list) != 1 || !slices.Equal(words(list[0].Commits), []string{lost.ID + ": requested, by account " + hanna.ID}) {
		t.Errorf("named are %+v", list)
	}
	if err := w.store.look(ctx); !errors.Is(err, ErrRewound) {
		t.Errorf("the others: %v", err)
	}
}

// Where Redis goes back once more before a person has looked, and has forgotten
// that it had gone back, it is written again and nobody goes on.
func TestARedisThatForgetsThatItForgot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	ctx := t.Context()
	// Also where somebody has said go on before.
	restore := w.server.Save(t)
	w.ask(deletes(ClassDestroy, sam, "m2"))
	restore()
	if err := w.store.look(ctx); !errors.Is(err, ErrRewound) {
		t.Fatal(err)
	}
	w.resume()
	if err := w.store.look(ctx); err != nil {
		t.Fatal(err)
	}
	again := w.server.Save(t)
	w.ask(deletes(ClassDestroy, dana, "m1"))
	for range 3 {
		again()
		if err := w.store.look(ctx); !errors.Is(err, ErrRewound) {
			t.Fatalf("it says %v", err)
		}
		if list := w.losses(); len(list) != 1 || len(list[0].Commits) != 1 {
			t.Fatalf("written is %+v", list)
		}
	}
}

// detour holds up one commit on its way. Then it brings it to the server that is
// there by now, as a proxy may; or it fails, so that the client sends again.
type detour struct {
	net.Conn
	addr string
	word []string // what it has in it
	fail bool
	held *atomic.Bool
	do   func()
}

func (d *detour) Write(b []byte) (int, error) {
	lacks := func(word string) bool { return !strings.Contains(string(b), word) }
	if slices.ContainsFunc(d.word, lacks) || !d.held.CompareAndSwap(false, true) {
		return d.Conn.Write(b)
	}
	d.do()
	d.Conn.Close()
	if d.fail {
		return 0, io.EOF
	}
	conn, err := net.Dial("tcp", d.addr)
	if err != nil {
		return 0, err
	}
	d.Conn = conn
	return d.Conn.Write(b)
}

// A commit is under way while its sender hears of another, and Redis goes back
// to before that one. Sent again, it tells what is known by now, and is refused.
// Held up on its way it is made, and its answer gives that away.
func TestACommitUnderWayWhileRedisGoesBack(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		for _, others := range []int{0, 3} {
			t.Run(fmt.Sprintf("sent again %v/%d commits of others", again, others), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, calm())
				ctx := t.Context()
				var restore func()
				var confirmed Request
				var desk *Desk
				var held atomic.Bool
				held.Store(true)
				late := w.op()
				rdb := w.server.ClientWith(t, func(o *redis.UniversalOptions) {
					o.Dialer = func(dialling context.Context, network, addr string) (net.Conn, error) {
						conn, err := (&net.Dialer{}).DialContext(dialling, network, addr)
						return &detour{Conn: conn, addr: addr, word: []string{w.store.commit.Hash(), late}, fail: again, held: &held, do: func() {
							var err error
							if confirmed, err = desk.Ask(ctx, w.op(), w.wants()); err != nil {
								t.Error(err)
							}
							restore()
							if err := w.store.commit.Load(ctx, w.rdb).Err(); err != nil {
								t.Error(err)
							}
							_, other := w.process(w.server.Client(t))
							for range others {
								if _, err := other.Ask(ctx, w.op(), w.wants()); err != nil {
									t.Error(err)
								}
							}
						}}, err
					}
				})
				_, desk = w.process(rdb)
				if _, err := desk.Ask(ctx, w.op(), w.wants()); err != nil { // it has a past in this Redis
					t.Fatal(err)
				}
				restore = w.server.Save(t)
				held.Store(false)
				if _, err := desk.Ask(ctx, late, w.wants()); !errors.Is(err, ErrRewound) {
					t.Errorf("the commit that was under way: %v", err)
				}
				switch _, err := w.store.Load(ctx, RequestID(late)); {
				case again && !errors.Is(err, ErrNoRequest):
					t.Errorf("it was made: %v", err)
				case !again && err != nil:
					t.Errorf("it did not arrive, and this tests nothing: %v", err)
				}
				if _, err := desk.Ask(ctx, w.op(), w.wants()); !errors.Is(err, ErrRewound) {
					t.Errorf("the next: %v", err)
				}
				list := w.losses()
				if len(list) != 1 || !slices.ContainsFunc(list[0].Commits, func(c Commit) bool { return c.Request == confirmed.ID }) {
					t.Errorf("%s is lost, and named are %+v", confirmed.ID, list)
				}
			})
		}
	}
}

// A person's go-on gets an event with an id beyond all that anybody has read,
// although this server's clock is behind the one that gave those out.
func TestEventsAfterALossGetHigherIDs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	ctx := t.Context()
	restore := w.server.Save(t)
	w.ask(deletes(ClassDestroy, dana, "m1"))
	ahead := time.Now().Add(time.Hour).UnixMilli()
	w.store.memory.heard(fmt.Sprintf("%d-7", ahead))
	w.store.memory.heard("5-99")
	restore()
	if err := w.store.look(ctx); !errors.Is(err, ErrRewound) {
		t.Fatal(err)
	}
	w.resume()
	if err := w.store.look(ctx); err != nil {
		t.Fatal(err)
	}
	w.ask(deletes(ClassDestroy, dana, "m1"))
	var ids []string
	for _, e := range w.events() {
		ids = append(ids, e.ID)
	}
	if want := []string{fmt.Sprintf("%d-8", ahead), fmt.Sprintf("%d-9", ahead)}; !slices.Equal(ids, want) {
		t.Errorf("the events have the ids %v, want %v", ids, want)
	}
	// A stream that is further than anybody has read goes on from where it is.
	restore = w.server.Save(t)
	w.ask(deletes(ClassDestroy, sam, "m2"))
	w.store.memory.event = "5-99"
	restore()
	if err := w.store.look(ctx); !errors.Is(err, ErrRewound) {
		t.Fatal(err)
	}
	w.resume()
	if all := w.events(); all[len(all)-1].ID != fmt.Sprintf("%d-10", ahead) {
		t.Errorf("the last event has the id %s", all[len(all)-1].ID)
	}
}

// Noticing it, telling it to the others and going on, each failed and not
// applied, and failed but applied.
func TestGoingBackIsAttacked(t *testing.T) {
	t.Parallel()
	for _, replies := range []bool{false, true} {
		t.Run(map[bool]string{false: "request lost", true: "reply lost"}[replies], func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, calm())
			ctx := t.Context()
			for range 2 { // a copy that knows the scripts, and one of which something is lost
				w.ask(deletes(ClassDestroy, dana, "x-"+w.op()))
			}
			sab := &saboteur{}
			store, desk := w.process(sab.client(t, w.server, false))
			cut := func(script *redis.Script, again func() error) {
				t.Helper()
				if err := script.Load(ctx, w.rdb).Err(); err != nil {
					t.Fatal(err)
				}
				sab.arm(replies, 1, script.Hash())
				if err := again(); err == nil {
					t.Error("it was cut, and says nothing of it")
				}
				if sab.struck() != 1 {
					t.Error("nothing was cut")
				}
			}
			look := func() error { return store.look(ctx) }
			cut(lookScript, look)
			if err := look(); err != nil {
				t.Fatalf("looking again: %v", err)
			}
			if score := w.rdb.ZScore(ctx, w.store.keys.processes(), store.memory.me).Val(); int64(score) != store.memory.known || score != 2 {
				t.Errorf("Redis has seen it at %v, and it knows %d", score, store.memory.known)
			}
			lost, err := desk.Ask(ctx, w.op(), w.wants())
			if err != nil {
				t.Fatal(err)
			}
			w.rdb.ZRem(ctx, w.store.keys.processes(), store.memory.me) // as in a copy from before that
			cut(lostScript, func() error {
				_, err := desk.Ask(ctx, w.op(), w.wants())
				if !errors.Is(err, ErrRewound) {
					t.Errorf("noticing it: %v", err)
				}
				return err
			})
			if n := len(w.losses()); n != map[bool]int{true: 1}[replies] {
				t.Errorf("%d processes have written that it went back", n)
			}
			if _, err := desk.Ask(ctx, w.op(), w.wants()); !errors.Is(err, ErrRewound) {
				t.Errorf("whether the others know or not: %v", err)
			}
			if err := look(); !errors.Is(err, ErrRewound) {
				t.Errorf("looking: %v", err)
			}
			list := w.losses()
			if len(list) != 1 || len(list[0].Commits) != 1 || list[0].Commits[0].Request != lost.ID {
				t.Fatalf("named are %+v", list)
			}
			cut(resumeScript, func() error { return store.Resume(ctx, list, "The operator") })
			if again := w.losses(); len(again) != len(list) && !replies || len(again) != 0 && replies {
				t.Errorf("after a go-on that failed, lost are %+v", again)
			}
			if err := store.Resume(ctx, list, "The operator"); replies != errors.Is(err, ErrLostMore) || !replies && err != nil {
				t.Errorf("once more: %v", err)
			}
			if err := look(); err != nil {
				t.Errorf("looking then: %v", err)
			}
			if _, err := desk.Ask(ctx, w.op(), w.wants()); err != nil {
				t.Errorf("asking then: %v", err)
			}
			if n := slices.Index(w.kinds(""), audit.Alarm); n < 0 || slices.Contains(w.kinds("")[n+1:], audit.Alarm) {
				t.Errorf("the events are %v", w.kinds(""))
			}
			w.invariants()
		})
	}
}

// history is what commit.lua keeps, with who committed what, in a Redis that
// goes back now and then.
type history struct {
	sequence  int64
	processes [3]int64
	commits   []int
	order     int // of the last thing that arrived
}

// flight is a commit, or a look, that was sent and whose answer was not heard.
type flight struct {
	by     int
	looks  bool
	stale  bool // what it tells was settled when it was sent
	sent   sent
	order  int // in which it arrived, 0 while it has not
	answer reply
	there  []int // what Redis had then
}

// Whatever is under way, comes late or is never heard while Redis goes back: no
// process writes to a Redis that has lost what was confirmed to it, none takes
// what was under way for good, and none is told without reason.
func TestMemoryOfConfirmedCommits(t *testing.T) {
	t.Parallel()
	seedRapid(t)
	for _, stale := range []bool{false, true} {
		t.Run(map[bool]string{false: "told with every attempt", true: "told before"}[stale], rapid.MakeCheck(func(t *rapid.T) {
			var now history // of this Redis
			var copies []history
			restored := -1 // the oldest copy that was put back
			var memories [3]*memory
			var heard, silent [3][]*flight // of each, by whether it has heard the answer: commits, and all that was written
			var latest [3]int              // that it was told of
			for i := range memories {
				memories[i] = &memory{me: fmt.Sprint(i)}
			}
			var flying []*flight
			order := 0
			tell := func(f *flight) {
				told := telling{memory: memories[f.by], commit: !f.looks}
				raw, err := told.MarshalBinary()
				if err != nil {
					t.Fatal(err)
				}
				f.sent = told.sent
				if _, err := fmt.Sscan(string(raw), &f.sent.known, &f.sent.seen); err != nil {
					t.Fatal(err)
				}
			}
			missing := func(c *flight, there []int) bool { return !slices.Contains(there, c.order) }
			t.Repeat(map[string]func(*rapid.T){
				"send": func(t *rapid.T) {
					f := &flight{by: rapid.IntRange(0, 2).Draw(t, "by"), looks: rapid.IntRange(0, 3).Draw(t, "looks") == 0, stale: stale && rapid.Bool().Draw(t, "stale")}
					tell(f)
					flying = append(flying, f)
				},
				"arrive": func(t *rapid.T) {
					var under []*flight
					for _, f := range flying {
						if f.order == 0 {
							under = append(under, f)
						}
					}
					if len(under) == 0 {
						t.Skip("nothing is under way")
					}
					f := rapid.SampledFrom(under).Draw(t, "which")
					if !f.stale {
						tell(f)
					}
					order++
					f.order, now.order = order, order
					kept := now.processes[f.by]
					f.answer = reply{status: "ok", kept: kept}
					switch {
					case kept < f.sent.known || now.sequence < f.sent.seen:
						f.answer.status = "rewound"
					case f.looks:
						now.processes[f.by] = now.sequence
					default:
						now.sequence++
						now.processes[f.by] = now.sequence
						now.commits = append(slices.Clone(now.commits), f.order)
						for _, c := range heard[f.by] {
							// Unless it heard of that one only after the next had
							// been made on what Redis was by then.
							late := slices.ContainsFunc(silent[f.by], func(o *flight) bool { return o != f && o.order > c.order && missing(c, o.there) })
							if missing(c, now.commits) && !stale && !late {
								t.Fatalf("process %d wrote to a Redis that has lost commit %d of it", f.by, c.answer.sequence)
							}
						}
					}
					f.answer.sequence, f.there = now.sequence, now.commits
					if f.answer.status == "ok" {
						silent[f.by] = append(silent[f.by], f)
					}
				},
				"hear": func(t *rapid.T) {
					if len(flying) == 0 {
						t.Skip("nothing is under way")
					}
					f := rapid.SampledFrom(flying).Draw(t, "which")
					if f.order == 0 {
						t.Skip("it has not arrived")
					}
					flying = slices.DeleteFunc(flying, func(o *flight) bool { return o == f })
					m, r, p := memories[f.by], f.answer, f.by
					if r.status == "ok" {
						latest[p] = max(latest[p], f.order)
					}
					if r.status == "rewound" {
						m.refused(f.sent, r.kept, r.sequence)
					} else {
						l := link{from: r.kept, to: r.sequence}
						if !f.looks {
							l.commit = Commit{Sequence: r.sequence, What: "x"}
						}
						sound := m.learn(l, r.sequence)
						silent[p] = slices.DeleteFunc(silent[p], func(o *flight) bool { return o == f })
						if !f.looks {
							for _, c := range heard[p] {
								first, second := c, f
								if second.order < first.order {
									first, second = f, c
								}
								// What it was never told of may have stood there.
								if missing(first, second.there) && sound && len(silent[p]) == 0 {
									t.Fatalf("process %d takes commit %d for good, and commit %d before it is lost", p, second.answer.sequence, first.answer.sequence)
								}
							}
							heard[p] = append(heard[p], f)
						}
					}
					if m.back != nil && (restored < 0 || restored >= latest[p]) {
						t.Fatalf("process %d says that Redis has gone back, and it has lost nothing that it told the process", p)
					}
				},
				"never hear": func(t *rapid.T) {
					if len(flying) > 0 {
						i := rapid.IntRange(0, len(flying)-1).Draw(t, "which")
						flying = slices.Delete(flying, i, i+1)
					}
				},
				"save": func(*rapid.T) { copies = append(copies, now) },
				"restore": func(t *rapid.T) {
					if len(copies) == 0 {
						t.Skip("there is no copy")
					}
					i := rapid.IntRange(0, len(copies)-1).Draw(t, "which")
					now, copies = copies[i], copies[:i+1]
					if restored < 0 || now.order < restored {
						restored = now.order
					}
				},
			})
		}))
	}
}

// Answers that a process reads late, because it stood still, and in another
// order than Redis gave them, are no sign of anything.
func TestAnswersReadLateAreNoRewind(t *testing.T) {
	commit := Commit{Sequence: 20, What: "approved"}
	for name, order := range map[string][]link{
		"a refused commit between two looks": {{from: 0, to: 10}, {from: 10, to: 15}, {from: 10, to: 10}},
		"a commit between two looks":         {{from: 0, to: 10}, {from: 20, to: 25}, {from: 10, to: 20, commit: commit}},
		"looks backwards":                    {{from: 20, to: 25}, {from: 15, to: 20}, {from: 0, to: 15}},
	} {
		m := memory{me: "me"}
		for _, l := range order {
			if !m.learn(l, 30) {
				t.Errorf("%s: %+v is taken for another history", name, l)
			}
		}
		if _, back := m.unwritten(); back {
			t.Errorf("%s: this Redis is said to have gone back", name)
		}
	}
	m := memory{me: "me"}
	m.learn(link{from: 0, to: 10}, 10)
	m.learn(link{from: 10, to: 20, commit: commit}, 20)
	if m.learn(link{from: 10, to: 21}, 21) {
		t.Error("two steps from one number are taken for one history")
	}
}
