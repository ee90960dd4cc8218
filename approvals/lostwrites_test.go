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

// lostWrites returns the reports of lost writes in this Redis.
func (w *fixture) lostWrites() []LostWrites {
	w.t.Helper()
	list, err := w.store.LostWrites(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

// resume confirms all lost writes that are reported, so that the processes resume.
func (w *fixture) resume() {
	w.t.Helper()
	if err := w.store.Resume(w.t.Context(), w.lostWrites(), "The operator"); err != nil {
		w.t.Fatal(err)
	}
}

// newSubmit returns a request that is not identical to any other one.
func (w *fixture) newSubmit() Submit {
	return Submit{Plan: deletionPlan(ClassDestroy, dana, "x-"+w.op()), Requester: hanna, Justification: "x", Ticket: "INC-7", Verified: "callback"}
}

func describeCommits(list []Commit) (all []string) {
	for _, c := range list {
		all = append(all, c.Request+": "+c.What)
	}
	return all
}

// The next commit detects what Redis has lost, before it writes anything. The lost
// commits are listed, execution first.
func TestLostWritesAreListed(t *testing.T) {
	t.Parallel()
	for _, everything := range []bool{false, true} {
		t.Run(map[bool]string{true: "everything", false: "the last commits"}[everything], func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, longTimings())
			ctx := t.Context()
			r := w.approved(deletionPlan(ClassDestroy, dana, "m1", "m2"))
			lose := func() { w.server.Kill(t); w.server.Restart(t) }
			if everything {
				if !w.server.Real() { // a real server loses nothing when its process is killed
					lose = func() { w.server.Empty(t) }
				}
			} else {
				lose = w.server.Save(t)
			}
			kept := parseInt(w.rdb.Get(ctx, w.store.keys.sequence()).Val())
			snap, err := w.store.claim(ctx, w.load(r.ID), "worker")
			if err != nil {
				t.Fatal(err)
			}
			next := snap.Request
			for _, step := range []struct {
				op string
				a  Action
			}{{"begin:0", StartStep{Step: 0}}, {"end:0", EndStep{Step: 0, Result: Result{State: StepDone}}}} {
				if next, err = w.store.advance(ctx, next, snap.Now, step.op, step.a); err != nil {
					t.Fatal(err)
				}
			}
			asked := w.submit(deletionPlan(ClassDestroy, sam, "m3"))
			known := parseInt(w.rdb.Get(ctx, w.store.keys.sequence()).Val())
			if _, err := w.service.Approve(ctx, w.op(), asked.ID, bo); code(err) == "" {
				t.Fatal("a disabled account approved")
			}
			lose()

			before := w.server.Dump(t)
			op := w.op()
			if _, err := w.service.Submit(ctx, op, w.newSubmit()); !errors.Is(err, ErrLostWrites) {
				t.Fatalf("a commit after a rollback: %v", err)
			}
			if _, err := w.store.advance(ctx, next, snap.Now, "begin:1", StartStep{Step: 1}); !errors.Is(err, ErrLostWrites) {
				t.Fatalf("a step after a rollback: %v", err)
			}
			after := w.server.Dump(t)
			delete(after, w.store.keys.lost())
			if !sameJSON(t, before, after) {
				t.Errorf("a refused commit changed Redis from\n%v\nto\n%v", before, after)
			}

			list := w.lostWrites()
			if len(list) != 1 {
				t.Fatalf("%d processes report lost writes: %+v", len(list), list)
			}
			want := []string{r.ID + ": step 1 ended as done", r.ID + ": step 1 was started", r.ID + ": its execution was started",
				asked.ID + ": refused to approve, by account " + bo.ID, asked.ID + ": requested, by account " + hanna.ID}
			if everything {
				kept = 0
				want = append(want, r.ID+": approved, by account "+ravi.ID, r.ID+": requested, by account "+hanna.ID)
			}
			if got := describeCommits(list[0].Commits); !slices.Equal(got, want) {
				t.Errorf("listed:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if got := list[0]; got.Kept != kept || got.Sequence != kept || got.Known != known+1 || got.Process == "" || got.Host == "" || time.Since(got.At) > time.Minute {
				t.Errorf("the report is %+v, and the sequence went back from %d to %d", got, known+1, kept)
			}
			if text := fmt.Sprint(list, SummarizeLostWrites(list)); strings.Contains(text, "fernhill") || strings.Contains(text, "Hanna") {
				t.Errorf("it names a person: %s", text)
			}
			if sealed := after[w.store.keys.lost()]; strings.Contains(sealed, hanna.ID) || strings.Contains(sealed, r.ID) {
				t.Errorf("it is not encrypted: %s", sealed)
			}
		})
	}
}

// The rollback is detected although another process, which does not know of it, has
// increased the sequence beyond the old number.
func TestRollbackIsDetectedWhenSequenceIsAhead(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	restore := w.server.Save(t)
	r := w.submit(deletionPlan(ClassDestroy, dana, "m1"))
	known := w.rdb.Get(ctx, w.store.keys.sequence()).Val()
	restore()
	other, service := w.newProcess(w.server.Client(t))
	for range 5 {
		if _, err := service.Submit(ctx, w.op(), w.newSubmit()); err != nil {
			t.Fatal(err)
		}
	}
	if now := w.rdb.Get(ctx, w.store.keys.sequence()).Val(); parseInt(now) <= parseInt(known) {
		t.Fatalf("the sequence is %s and was %s: the test does not work", now, known)
	}
	if _, err := w.service.Submit(ctx, w.op(), w.newSubmit()); !errors.Is(err, ErrLostWrites) {
		t.Fatalf("a commit of a process whose commits are lost: %v", err)
	}
	if list := w.lostWrites(); len(list) != 1 || !slices.Equal(describeCommits(list[0].Commits), []string{r.ID + ": requested, by account " + hanna.ID}) {
		t.Errorf("listed: %+v", list)
	}
	if _, err := service.Submit(ctx, w.op(), w.newSubmit()); !errors.Is(err, ErrLostWrites) {
		t.Errorf("a commit of the process that did not know of it: %v", err)
	}
	if !other.HasLostWrites() {
		t.Error("the process does not know that it has stopped")
	}
}

// A process that commits nothing itself remembers the highest sequence that it has read.
func TestIdleProcessDetectsLostWritesOfDeadProcess(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	restore := w.server.Save(t)
	w.submit(deletionPlan(ClassDestroy, dana, "m1")) // and this process does nothing more
	observer, _ := w.newProcess(w.server.Client(t))
	if err := observer.checkRollback(ctx); err != nil {
		t.Fatal(err)
	}
	restore()
	_, newcomer := w.newProcess(w.server.Client(t))
	for range 3 {
		if _, err := newcomer.Submit(ctx, w.op(), w.newSubmit()); err != nil {
			t.Fatal(err)
		}
	}
	if err := observer.checkRollback(ctx); !errors.Is(err, ErrLostWrites) {
		t.Fatalf("checking for a rollback: %v", err)
	}
	if list := w.lostWrites(); len(list) != 1 || len(list[0].Commits) != 0 || list[0].Known != 1 {
		t.Errorf("reported: %+v", list)
	}
}

// All processes stop, including those that lost nothing and those that are started
// later, until a person has confirmed what was lost. Then they resume by themselves.
func TestAllStopUntilResumed(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	w.log, w.service.Log = discard, discard
	approved := w.submit(deletionPlan(ClassDestroy, dana, "m1"))
	if approved.Requirements.Approvals != 1 {
		t.Fatal("the test needs a request with one approval")
	}
	restore := w.server.Save(t)
	late := w.op()
	if _, err := w.service.Approve(ctx, late, approved.ID, ravi); err != nil {
		t.Fatal(err)
	}
	restore()
	// A process that has lost nothing, and this one, each with a runner.
	_, other := w.newProcess(w.server.Client(t))
	w.startRunner(other, "other")
	w.startRunner(w.service, "this")
	waitFor(t, "both to have stopped", func() bool { return w.store.HasLostWrites() && other.Store.HasLostWrites() })
	_, started := w.newProcess(w.server.Client(t))
	w.startRunner(started, "started later")
	for name, service := range map[string]*Service{"the one that lost": w.service, "another": other, "one started later": started} {
		if _, err := service.Approve(ctx, w.op(), approved.ID, ravi); !errors.Is(err, ErrLostWrites) {
			t.Errorf("approving through %s: %v", name, err)
		}
		if _, err := service.Store.Load(ctx, approved.ID); err != nil {
			t.Errorf("reading through %s: %v", name, err)
		}
	}

	list := w.lostWrites()
	if len(list) != 1 || list[0].Process != w.store.rollback.process {
		t.Fatalf("the lost writes were reported by %+v", list)
	}
	stale := slices.Clone(list)
	stale[0].sealed = "another"
	for name, seen := range map[string][]LostWrites{"something else": stale, "too much": append(slices.Clone(list), LostWrites{Process: "x"})} {
		if err := w.store.Resume(ctx, seen, "The operator"); !errors.Is(err, ErrMoreLostWrites) {
			t.Errorf("resuming after having seen %s: %v", name, err)
		}
	}
	if err := w.store.Resume(ctx, nil, "The operator"); err == nil {
		t.Error("somebody resumed without having seen anything")
	}
	if !w.store.HasLostWrites() {
		t.Error("it resumed although nobody confirmed the loss")
	}
	w.resume()
	waitFor(t, "all to resume", func() bool {
		return !w.store.HasLostWrites() && !other.Store.HasLostWrites() && !started.Store.HasLostWrites()
	})
	if list := w.lostWrites(); len(list) > 0 {
		t.Errorf("lost writes after resuming: %+v", list)
	}
	if _, err := w.service.Approve(ctx, w.op(), approved.ID, ravi); err != nil {
		t.Fatalf("approving again: %v", err)
	}
	if got := w.waitFinal(approved.ID); got.Outcome != OutcomeSucceeded {
		t.Errorf("it is %s because %q", got.Summary(), got.Why)
	}
	w.tenant.wantDeletedOnce(t, "m1")
	w.checkInvariants()
	var told []audit.Event
	for _, e := range w.events() {
		if e.Kind == audit.Alarm {
			told = append(told, e)
		}
	}
	if len(told) != 1 || !strings.Contains(told[0].Reason, "The operator resumed") || !strings.Contains(told[0].Reason, "One write") {
		t.Errorf("the audit events are %+v", told)
	}
	// It can lose writes again.
	restore = w.server.Save(t)
	w.submit(deletionPlan(ClassDestroy, sam, "m2"))
	restore()
	waitFor(t, "it to be detected again", w.store.HasLostWrites)
	// Each process that has read the request stops and reports it. It may do so after
	// the report of another process has been confirmed.
	waitFor(t, "all to resume again", func() bool {
		if list := w.lostWrites(); len(list) > 0 {
			if err := w.store.Resume(ctx, list, "The operator"); err != nil && !errors.Is(err, ErrMoreLostWrites) {
				t.Fatal(err)
			}
			return false
		}
		return !w.store.HasLostWrites() && !other.Store.HasLostWrites() && !started.Store.HasLostWrites()
	})
}

// The number of a lost claim is used again. A worker that held the lost claim, and was
// still executing a step when a person resumed, does not write to the other worker's
// execution.
func TestWorkerWithRolledBackClaimDoesNotWrite(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	w.log, w.service.Log = discard, discard
	r := w.approved(deletionPlan(ClassDestroy, dana, "m1"))
	restore := w.server.Save(t)
	inProgress, resume := make(chan struct{}), make(chan struct{})
	w.tenant.setScript(func(job Job) (Result, bool) {
		if job.Kind == JobRun {
			close(inProgress)
			<-resume
		}
		return Result{}, false
	})
	stop := w.startRunner(w.service, "slow")
	<-inProgress
	restore()
	waitFor(t, "it to have stopped", w.store.HasLostWrites)
	waitFor(t, "it to be reported", func() bool { return len(w.lostWrites()) == 1 })
	w.resume()
	waitFor(t, "it to resume", func() bool { return !w.store.HasLostWrites() })
	other, _ := w.newProcess(w.server.Client(t))
	snap, err := other.claim(ctx, w.load(r.ID), "other")
	if err != nil || snap.Claim != 1 {
		t.Fatalf("the claim is %d (%v): the test does not work", snap.Claim, err)
	}
	close(resume)
	stop()
	if got := w.load(r.ID); got.Worker != "other" || got.Journal[0].State != StepWaiting {
		t.Errorf("it is %s, journal %+v", got.Summary(), got.Journal)
	}
	if _, err := other.advance(ctx, snap.Request, snap.Now, "begin:0", StartStep{Step: 0}); err != nil {
		t.Errorf("the other worker: %v", err)
	}
}

// A process that was disconnected while a person resumed, and has lost writes that
// nobody has seen, stops everything again. A process that has lost nothing does not.
func TestUnseenLossStopsAgain(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	idle, harmless := w.newProcess(w.server.Client(t))
	if err := idle.checkRollback(ctx); err != nil {
		t.Fatal(err)
	}
	restore := w.server.Save(t)
	w.submit(deletionPlan(ClassDestroy, dana, "m1"))
	_, away := w.newProcess(w.server.Client(t))
	lost, err := away.Submit(ctx, w.op(), w.newSubmit())
	if err != nil {
		t.Fatal(err)
	}
	restore()
	if err := w.store.checkRollback(ctx); !errors.Is(err, ErrLostWrites) {
		t.Fatal(err)
	}
	w.resume()
	if err := w.store.checkRollback(ctx); err != nil {
		t.Fatalf("after a person has confirmed it: %v", err)
	}
	if _, err := harmless.Submit(ctx, w.op(), w.newSubmit()); err != nil {
		t.Fatalf("a process that was disconnected and lost nothing: %v", err)
	}
	if _, err := away.Submit(ctx, w.op(), w.newSubmit()); !errors.Is(err, ErrLostWrites) {
		t.Fatalf("a process that was disconnected and lost something: %v", err)
	}
	if list := w.lostWrites(); len(list) != 1 || !slices.Equal(describeCommits(list[0].Commits), []string{lost.ID + ": requested, by account " + hanna.ID}) {
		t.Errorf("listed: %+v", list)
	}
	if err := w.store.checkRollback(ctx); !errors.Is(err, ErrLostWrites) {
		t.Errorf("the others: %v", err)
	}
}

// If Redis is rolled back again before a person has confirmed the loss, and the report
// is lost too, the loss is reported again and nobody resumes.
func TestRepeatedRollback(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	// Also if somebody has resumed before.
	restore := w.server.Save(t)
	w.submit(deletionPlan(ClassDestroy, sam, "m2"))
	restore()
	if err := w.store.checkRollback(ctx); !errors.Is(err, ErrLostWrites) {
		t.Fatal(err)
	}
	w.resume()
	if err := w.store.checkRollback(ctx); err != nil {
		t.Fatal(err)
	}
	again := w.server.Save(t)
	w.submit(deletionPlan(ClassDestroy, dana, "m1"))
	for range 3 {
		again()
		if err := w.store.checkRollback(ctx); !errors.Is(err, ErrLostWrites) {
			t.Fatalf("checking for a rollback: %v", err)
		}
		if list := w.lostWrites(); len(list) != 1 || len(list[0].Commits) != 1 {
			t.Fatalf("reported: %+v", list)
		}
	}
}

// divertedConn delays one commit. Then it sends the commit to the server that runs by
// then, as a proxy may do, or it fails, so that the client sends it again.
type divertedConn struct {
	net.Conn
	addr     string
	contains []string // what the commit must contain
	fail     bool
	held     *atomic.Bool
	do       func()
}

func (d *divertedConn) Write(b []byte) (int, error) {
	lacks := func(word string) bool { return !strings.Contains(string(b), word) }
	if slices.ContainsFunc(d.contains, lacks) || !d.held.CompareAndSwap(false, true) {
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

// A commit is in flight while its sender gets the reply to another one, and Redis is
// rolled back to before that one. If the commit is sent again, it contains what is
// known by then, and is refused. If it was only delayed, it is written, and its reply
// shows the rollback.
func TestCommitInFlightDuringRollback(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		for _, others := range []int{0, 3} {
			t.Run(fmt.Sprintf("resent %v/%d commits of others", again, others), func(t *testing.T) {
				t.Parallel()
				w := newFixture(t, longTimings())
				ctx := t.Context()
				var restore func()
				var confirmed Request
				var service *Service
				var held atomic.Bool
				held.Store(true)
				late := w.op()
				rdb := w.server.ClientWith(t, func(o *redis.UniversalOptions) {
					o.Dialer = func(dialling context.Context, network, addr string) (net.Conn, error) {
						conn, err := (&net.Dialer{}).DialContext(dialling, network, addr)
						return &divertedConn{Conn: conn, addr: addr, contains: []string{w.store.commit.Hash(), late}, fail: again, held: &held, do: func() {
							var err error
							if confirmed, err = service.Submit(ctx, w.op(), w.newSubmit()); err != nil {
								t.Error(err)
							}
							restore()
							if err := w.store.commit.Load(ctx, w.rdb).Err(); err != nil {
								t.Error(err)
							}
							_, other := w.newProcess(w.server.Client(t))
							for range others {
								if _, err := other.Submit(ctx, w.op(), w.newSubmit()); err != nil {
									t.Error(err)
								}
							}
						}}, err
					}
				})
				_, service = w.newProcess(rdb)
				if _, err := service.Submit(ctx, w.op(), w.newSubmit()); err != nil { // so that Redis knows this process
					t.Fatal(err)
				}
				restore = w.server.Save(t)
				held.Store(false)
				if _, err := service.Submit(ctx, late, w.newSubmit()); !errors.Is(err, ErrLostWrites) {
					t.Errorf("the commit in flight: %v", err)
				}
				switch _, err := w.store.Load(ctx, RequestID(late)); {
				case again && !errors.Is(err, ErrNoRequest):
					t.Errorf("it was written: %v", err)
				case !again && err != nil:
					t.Errorf("it did not arrive: the test does not work: %v", err)
				}
				if _, err := service.Submit(ctx, w.op(), w.newSubmit()); !errors.Is(err, ErrLostWrites) {
					t.Errorf("the next: %v", err)
				}
				list := w.lostWrites()
				if len(list) != 1 || !slices.ContainsFunc(list[0].Commits, func(c Commit) bool { return c.Request == confirmed.ID }) {
					t.Errorf("%s is lost, and listed are %+v", confirmed.ID, list)
				}
			})
		}
	}
}

// The event of a resume gets an id higher than all ids that anybody has read, although
// the clock of this server is behind the clock that generated them.
func TestEventsAfterRollbackGetHigherIDs(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	restore := w.server.Save(t)
	w.submit(deletionPlan(ClassDestroy, dana, "m1"))
	ahead := time.Now().Add(time.Hour).UnixMilli()
	w.store.rollback.recordEvent(fmt.Sprintf("%d-7", ahead))
	w.store.rollback.recordEvent("5-99")
	restore()
	if err := w.store.checkRollback(ctx); !errors.Is(err, ErrLostWrites) {
		t.Fatal(err)
	}
	w.resume()
	if err := w.store.checkRollback(ctx); err != nil {
		t.Fatal(err)
	}
	w.submit(deletionPlan(ClassDestroy, dana, "m1"))
	var ids []string
	for _, e := range w.events() {
		ids = append(ids, e.ID)
	}
	if want := []string{fmt.Sprintf("%d-8", ahead), fmt.Sprintf("%d-9", ahead)}; !slices.Equal(ids, want) {
		t.Errorf("the events have the ids %v, want %v", ids, want)
	}
	// If the stream is ahead of what anybody has read, it continues from its last id.
	restore = w.server.Save(t)
	w.submit(deletionPlan(ClassDestroy, sam, "m2"))
	w.store.rollback.event = "5-99"
	restore()
	if err := w.store.checkRollback(ctx); !errors.Is(err, ErrLostWrites) {
		t.Fatal(err)
	}
	w.resume()
	if all := w.events(); all[len(all)-1].ID != fmt.Sprintf("%d-10", ahead) {
		t.Errorf("the last event has the id %s", all[len(all)-1].ID)
	}
}

// Detecting a rollback, reporting it and resuming: each of them fails once without
// being applied, and once although it was applied.
func TestRollbackHandlingIsAttacked(t *testing.T) {
	t.Parallel()
	for _, replies := range []bool{false, true} {
		t.Run(map[bool]string{false: "request lost", true: "reply lost"}[replies], func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, longTimings())
			ctx := t.Context()
			for range 2 { // so that the scripts are loaded and something can be lost
				w.submit(deletionPlan(ClassDestroy, dana, "x-"+w.op()))
			}
			sab := &saboteur{}
			store, service := w.newProcess(sab.client(t, w.server, false))
			cut := func(script *redis.Script, again func() error) {
				t.Helper()
				if err := script.Load(ctx, w.rdb).Err(); err != nil {
					t.Fatal(err)
				}
				sab.arm(replies, 1, script.Hash())
				if err := again(); err == nil {
					t.Error("the connection was cut, and there is no error")
				}
				if sab.struck() != 1 {
					t.Error("the connection was not cut")
				}
			}
			look := func() error { return store.checkRollback(ctx) }
			cut(checkRollbackScript, look)
			if err := look(); err != nil {
				t.Fatalf("checking again: %v", err)
			}
			if score := w.rdb.ZScore(ctx, w.store.keys.processes(), store.rollback.process).Val(); int64(score) != store.rollback.known || score != 2 {
				t.Errorf("Redis has the number %v for it, and it knows %d", score, store.rollback.known)
			}
			lost, err := service.Submit(ctx, w.op(), w.newSubmit())
			if err != nil {
				t.Fatal(err)
			}
			w.rdb.ZRem(ctx, w.store.keys.processes(), store.rollback.process) // as in an older copy
			cut(lostScript, func() error {
				_, err := service.Submit(ctx, w.op(), w.newSubmit())
				if !errors.Is(err, ErrLostWrites) {
					t.Errorf("detecting it: %v", err)
				}
				return err
			})
			if n := len(w.lostWrites()); n != map[bool]int{true: 1}[replies] {
				t.Errorf("%d processes have reported the rollback", n)
			}
			if _, err := service.Submit(ctx, w.op(), w.newSubmit()); !errors.Is(err, ErrLostWrites) {
				t.Errorf("a submit after the rollback, reported or not: %v", err)
			}
			if err := look(); !errors.Is(err, ErrLostWrites) {
				t.Errorf("checking: %v", err)
			}
			list := w.lostWrites()
			if len(list) != 1 || len(list[0].Commits) != 1 || list[0].Commits[0].Request != lost.ID {
				t.Fatalf("listed: %+v", list)
			}
			cut(resumeScript, func() error { return store.Resume(ctx, list, "The operator") })
			if again := w.lostWrites(); len(again) != len(list) && !replies || len(again) != 0 && replies {
				t.Errorf("after a failed resume, the lost writes are %+v", again)
			}
			if err := store.Resume(ctx, list, "The operator"); replies != errors.Is(err, ErrMoreLostWrites) || !replies && err != nil {
				t.Errorf("resuming again: %v", err)
			}
			if err := look(); err != nil {
				t.Errorf("checking after the resume: %v", err)
			}
			if _, err := service.Submit(ctx, w.op(), w.newSubmit()); err != nil {
				t.Errorf("submitting after the resume: %v", err)
			}
			if n := slices.Index(w.eventKinds(""), audit.Alarm); n < 0 || slices.Contains(w.eventKinds("")[n+1:], audit.Alarm) {
				t.Errorf("the events are %v", w.eventKinds(""))
			}
			w.checkInvariants()
		})
	}
}

// modelHistory is what commit.lua stores, and the commits, in a Redis that is rolled
// back now and then.
type modelHistory struct {
	sequence    int64
	processes   [3]int64
	commits     []int
	lastArrival int // of the last message that arrived
}

// message is a commit, or a check for a rollback, whose reply was not received yet.
type message struct {
	by      int
	isCheck bool
	stale   bool // its content was fixed when it was sent
	sent    requestMeta
	order   int // of its arrival, 0 before
	answer  reply
	commits []int // the commits in Redis at that time
}

// Messages are in flight, late or never answered while Redis is rolled back. No process
// writes to a Redis that has lost a commit that was confirmed to it, accepts a commit
// although an earlier one is lost, or reports a rollback without reason.
func TestRollbackDetector(t *testing.T) {
	t.Parallel()
	seedRapid(t)
	for _, stale := range []bool{false, true} {
		t.Run(map[bool]string{false: "content updated with every attempt", true: "content fixed when sent"}[stale], rapid.MakeCheck(func(t *rapid.T) {
			var now modelHistory // of this Redis
			var copies []modelHistory
			restored := -1 // the oldest copy that was restored
			var memories [3]*rollbackDetector
			var heard, silent [3][]*message // per process: commits with a reply, and applied messages without one
			var latest [3]int               // order of the last message whose reply was received
			for i := range memories {
				memories[i] = &rollbackDetector{process: fmt.Sprint(i)}
			}
			var flying []*message
			order := 0
			tell := func(f *message) {
				told := writeReport{memory: memories[f.by], commit: !f.isCheck}
				raw, err := told.MarshalBinary()
				if err != nil {
					t.Fatal(err)
				}
				f.sent = told.sent
				if _, err := fmt.Sscan(string(raw), &f.sent.known, &f.sent.seen); err != nil {
					t.Fatal(err)
				}
			}
			missing := func(c *message, there []int) bool { return !slices.Contains(there, c.order) }
			t.Repeat(map[string]func(*rapid.T){
				"send": func(t *rapid.T) {
					f := &message{by: rapid.IntRange(0, 2).Draw(t, "by"), isCheck: rapid.IntRange(0, 3).Draw(t, "is a check") == 0, stale: stale && rapid.Bool().Draw(t, "stale")}
					tell(f)
					flying = append(flying, f)
				},
				"arrive": func(t *rapid.T) {
					var under []*message
					for _, f := range flying {
						if f.order == 0 {
							under = append(under, f)
						}
					}
					if len(under) == 0 {
						t.Skip("nothing is in flight")
					}
					f := rapid.SampledFrom(under).Draw(t, "which")
					if !f.stale {
						tell(f)
					}
					order++
					f.order, now.lastArrival = order, order
					kept := now.processes[f.by]
					f.answer = reply{status: "ok", kept: kept}
					switch {
					case kept < f.sent.known || now.sequence < f.sent.seen:
						f.answer.status = "rewound"
					case f.isCheck:
						now.processes[f.by] = now.sequence
					default:
						now.sequence++
						now.processes[f.by] = now.sequence
						now.commits = append(slices.Clone(now.commits), f.order)
						for _, c := range heard[f.by] {
							// Except if the reply to c was received only after the
							// next message had been applied to what Redis was by then.
							late := slices.ContainsFunc(silent[f.by], func(o *message) bool { return o != f && o.order > c.order && missing(c, o.commits) })
							if missing(c, now.commits) && !stale && !late {
								t.Fatalf("process %d wrote to a Redis that has lost commit %d of it", f.by, c.answer.sequence)
							}
						}
					}
					f.answer.sequence, f.commits = now.sequence, now.commits
					if f.answer.status == "ok" {
						silent[f.by] = append(silent[f.by], f)
					}
				},
				"receive the reply": func(t *rapid.T) {
					if len(flying) == 0 {
						t.Skip("nothing is in flight")
					}
					f := rapid.SampledFrom(flying).Draw(t, "which")
					if f.order == 0 {
						t.Skip("it has not arrived")
					}
					flying = slices.DeleteFunc(flying, func(o *message) bool { return o == f })
					m, r, p := memories[f.by], f.answer, f.by
					if r.status == "ok" {
						latest[p] = max(latest[p], f.order)
					}
					if r.status == "rewound" {
						m.recordRejectedCommit(f.sent, r.kept, r.sequence)
					} else {
						l := knownLink{from: r.kept, to: r.sequence}
						if !f.isCheck {
							l.commit = Commit{Sequence: r.sequence, What: "x"}
						}
						sound := m.recordCommit(l, r.sequence)
						silent[p] = slices.DeleteFunc(silent[p], func(o *message) bool { return o == f })
						if !f.isCheck {
							for _, c := range heard[p] {
								first, second := c, f
								if second.order < first.order {
									first, second = f, c
								}
								// A message without a received reply may have been applied there.
								if missing(first, second.commits) && sound && len(silent[p]) == 0 {
									t.Fatalf("process %d accepts commit %d, and commit %d before it is lost", p, second.answer.sequence, first.answer.sequence)
								}
							}
							heard[p] = append(heard[p], f)
						}
					}
					if m.back != nil && (restored < 0 || restored >= latest[p]) {
						t.Fatalf("process %d reports a rollback, and Redis has lost nothing that it confirmed to the process", p)
					}
				},
				"lose the reply": func(t *rapid.T) {
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
					if restored < 0 || now.lastArrival < restored {
						restored = now.lastArrival
					}
				},
			})
		}))
	}
}

// Replies that a process reads late, because it stalled, and in another order than Redis
// sent them, are not taken for a rollback.
func TestLateAnswersAreNoRollback(t *testing.T) {
	commit := Commit{Sequence: 20, What: "approved"}
	for name, order := range map[string][]knownLink{
		"a refused commit between two checks": {{from: 0, to: 10}, {from: 10, to: 15}, {from: 10, to: 10}},
		"a commit between two checks":         {{from: 0, to: 10}, {from: 20, to: 25}, {from: 10, to: 20, commit: commit}},
		"checks in reverse order":             {{from: 20, to: 25}, {from: 15, to: 20}, {from: 0, to: 15}},
	} {
		m := rollbackDetector{process: "me"}
		for _, l := range order {
			if !m.recordCommit(l, 30) {
				t.Errorf("%s: %+v is taken for a rollback", name, l)
			}
		}
		if _, back := m.unreportedLoss(); back {
			t.Errorf("%s: a rollback is reported", name)
		}
	}
	m := rollbackDetector{process: "me"}
	m.recordCommit(knownLink{from: 0, to: 10}, 10)
	m.recordCommit(knownLink{from: 10, to: 20, commit: commit}, 20)
	if m.recordCommit(knownLink{from: 10, to: 21}, 21) {
		t.Error("two commits after the same number are not detected")
	}
}
