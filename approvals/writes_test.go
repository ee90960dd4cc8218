package approvals

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign/audit"
	"countersign/internal/files"
	"countersign/internal/writes"
)

// proc is a process with lines to Redis of its own. Where it is doomed, they
// are cut for good at one write, as when the process is killed there: either
// that got through and nobody was left to hear of it, or it did not.
type proc struct {
	*fixture
	store   *Store
	service *Service
	in      *Inbox
	by      *writes.Saboteur // nil for one that lives
	dead    atomic.Bool
}

// proc starts one.
func (w *fixture) proc(by *writes.Saboteur) *proc {
	w.t.Helper()
	p := &proc{fixture: w, by: by}
	line, quick := w.server.Client(w.t), w.server.Client(w.t)
	if by != nil {
		line.AddHook(p)
		quick.AddHook(p)
	}
	p.store, p.service = w.newProcess(line)
	p.in = NewInbox(p.store, quick, discard)
	return p
}

var errCut = fmt.Errorf("the line is cut: %w", io.EOF)

// onlyAsk are the commands that change nothing. Scripts are not among them:
// whoever runs one is on the list, or is known to be none of it.
var onlyAsk = []string{"get", "hget", "hgetall", "exists", "xread", "xrange", "xpending", "zrange", "zrangebyscore", "zrevrange",
	"ping", "hello", "client", "cluster", "command", "readonly"}

func (p *proc) DialHook(next redis.DialHook) redis.DialHook { return next }

func (p *proc) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		return p.passes([]redis.Cmder{cmd}, func() error { return next(ctx, cmd) })
	}
}

func (p *proc) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		return p.passes(cmds, func() error { return next(ctx, cmds) })
	}
}

func (p *proc) passes(cmds []redis.Cmder, pass func() error) error {
	fail := func() error {
		for _, cmd := range cmds {
			cmd.SetErr(errCut)
		}
		return errCut
	}
	if p.dead.Load() {
		return fail()
	}
	if slices.ContainsFunc(cmds, func(cmd redis.Cmder) bool { return !slices.Contains(onlyAsk, cmd.Name()) }) {
		if strike := p.by.Next(""); strike != nil {
			if strike.How == writes.Applied {
				err := pass()
				if redis.HasErrorPrefix(err, "NOSCRIPT") { // the script comes whole, and then it is applied
					strike.Missed()
					return err
				}
				if err != nil && !errors.Is(err, redis.Nil) {
					p.t.Errorf("what was to be applied was not: %v", err)
				}
			}
			p.dead.Store(true)
			strike.Hit()
			return fail()
		}
	}
	err := pass()
	if p.dead.Load() {
		return fail() // it was on its way when the line was cut
	}
	return err
}

// until waits for something, or for the end of this process.
func (p *proc) until(what string, so func() bool) {
	p.t.Helper()
	waitFor(p.t, what, func() bool { return p.dead.Load() || so() })
}

// runs has the runner work until something is so.
func (p *proc) runs(what string, so func() bool) {
	p.t.Helper()
	stop := background(p.t, (&Runner{Service: p.service, Work: p.tenant.Work, Name: "one name for all", Concurrency: 4, Log: discard}).Run)
	p.until(what, so)
	if p.by == nil {
		stop() // what is dead ends by itself, and holds nobody up
	}
}

// follows has a projection work until it is up to date.
func (p *proc) follows(handle func(context.Context, []audit.Event) (int, error)) {
	p.t.Helper()
	stop := background(p.t, func(ctx context.Context) {
		p.store.Follow(ctx, "one name for all", Projection{Name: "cards", Handle: handle}, discard)
	})
	p.until("the cursor", func() bool { return p.lag("cards") == 0 })
	stop()
}

// story is what meets a write. It is played by a process that is doomed to end
// at that write, and then by another one, to which the same comes again: the
// entry of the inbox, the next sweep, the next look.
type story struct {
	before func(w *fixture) Snapshot // makes the ground, on a sound line
	// play ends when all is as it should be, or when its process has ended.
	play func(p *proc, at Snapshot) error
	code Code // the refusal with which it ends, where it does
	then func(w *fixture, at Snapshot, how writes.How)
}

// brief lets everybody else go on soon where a process has ended.
func brief() Timing {
	t := longTimings()
	t.GraphCall, t.GraphGrace, t.Lease = 50*time.Millisecond, 10*time.Millisecond, 300*time.Millisecond
	t.Lead, t.Takeover = 150*time.Millisecond, 90*time.Millisecond
	return t
}

// Each write to Redis fails, applied or not, and the process ends with it. The
// next one goes on, and in the end all is as if nothing had happened, once.
func TestEveryWriteHasItsPair(t *testing.T) {
	t.Parallel()
	sources, err := writes.LoadSources()
	if err != nil {
		t.Fatal(err)
	}
	writes.Pairs(t, writes.In("approvals"), func(_ *testing.T, how writes.How) func(*testing.T, writes.Write) {
		return func(t *testing.T, write writes.Write) {
			t.Parallel()
			list := stories()[write.Where]
			if len(list) == 0 {
				t.Fatalf("no story tells how %s", write.What)
			}
			for _, s := range list {
				w := newFixture(t, brief())
				w.log = discard
				w.store, w.service = w.newProcess(w.rdb)
				var at Snapshot
				if s.before != nil {
					at = s.before(w)
				}
				by := writes.NewSaboteur(sources)
				strike := by.Arm(write, how)
				err := s.play(w.proc(by), at)
				// What was applied may show a moment before.
				waitFor(t, fmt.Sprintf("the write, and it ended with %v", err), strike.HasMet)
				if strangers := by.Strangers(); len(strangers) > 0 {
					t.Errorf("writes that are on no list: %q", strangers)
				}
				// Nobody waits for the lease of the dead.
				if at.ID != "" && w.rdb.HGet(t.Context(), w.store.keys.request(at.ID), "state").Val() == string(StateRunning) {
					w.expireLease(at.ID)
				}
				for range 2 { // and once more, when all is well
					if err := s.play(w.proc(nil), at); code(err) != s.code {
						t.Fatalf("the next process ends with %v, not with %q", err, s.code)
					}
				}
				if s.then != nil {
					s.then(w, at, how)
				}
				w.checkInvariants()
			}
		}
	})
}

// stories are the stories by write.
func stories() map[string][]story {
	all := map[string][]story{}
	tell := func(where string, s story) { all["approvals."+where] = append(all["approvals."+where], s) }

	// What is asked for, and comes again with the same operation.
	same := func(where string, names ...string) {
		for _, f := range faulty {
			if !slices.Contains(names, f.name) {
				continue
			}
			tell(where, story{
				before: f.prepare,
				play:   func(p *proc, at Snapshot) error { return f.write(p.store, p.service, at) },
				code:   f.code,
				then: func(w *fixture, at Snapshot, _ writes.How) {
					if got := w.eventKinds(at.ID); !slices.Equal(got, f.kinds) {
						w.t.Errorf("events %v, want %v", got, f.kinds)
					}
					if at.ID != "" && w.load(at.ID).State != f.state {
						w.t.Errorf("it is %s, want %s", w.load(at.ID).Summary(), f.state)
					}
				},
			})
		}
	}
	same("Store.create run Run", "create")
	same("Service.Approve decide Run", "approve")
	same("Service.Deny decide Run", "deny")
	same("Service.Cancel decide Run", "cancel", "cancel a hand-off")
	same("Service.Stop decide Run", "halt")
	same("Service.BreakGlass decide Run", "use break-glass")
	same("Service.Review decide Run", "review")
	same("Service.Attest decide Run", "attest")
	same("Service.Confirm decide Run", "confirm")
	same("Service.AuthorizeRead note Run", "note of a read")
	same("Service.recordRefusal note Run", "note of a refused press", "note of a refused wish")
	same("Service.Reveal note Run", "reveal")
	tell("Service.Retract decide Run", story{before: attested,
		play: func(p *proc, at Snapshot) error {
			_, err := p.service.Retract(p.t.Context(), "op-x", at.ID, olga)
			return err
		},
		then: func(w *fixture, at Snapshot, _ writes.How) {
			if n := w.told(at.ID, audit.Retracted); n != 1 || w.load(at.ID).State != StateHandedOff {
				w.t.Errorf("it is %s, and was taken back %d times", w.load(at.ID).Summary(), n)
			}
		}})
	tell("Service.RecordAlarm note Run", story{
		play: func(p *proc, _ Snapshot) error { return p.service.RecordAlarm(p.t.Context(), "op-x", sam, "strange") },
		then: func(w *fixture, _ Snapshot, _ writes.How) {
			if got := w.eventKinds(""); !slices.Equal(got, []audit.Kind{audit.Alarm}) {
				w.t.Errorf("events %v, want one alarm", got)
			}
		}})

	// What a runner does of itself. once is the event that must be there once.
	run := func(where string, once audit.Kind, before func(*fixture) Snapshot, what string, so func(*proc, Snapshot) bool, then func(*fixture, Snapshot)) {
		tell(where, story{before: before,
			play: func(p *proc, at Snapshot) error {
				p.runs(what, func() bool { return so(p, at) })
				return nil
			},
			then: func(w *fixture, at Snapshot, _ writes.How) {
				if n := w.told(at.ID, once); once != "" && n != 1 {
					w.t.Errorf("%s: %d events of %v", once, n, w.eventKinds(at.ID))
				}
				if then != nil {
					then(w, at)
				}
			}})
	}
	over := func(p *proc, at Snapshot) bool { return p.load(at.ID).State.Final() }
	told := func(k audit.Kind) func(*proc, Snapshot) bool {
		return func(p *proc, at Snapshot) bool { return p.fixture.told(at.ID, k) > 0 }
	}
	run("Store.expire run Run", audit.Expired, func(w *fixture) Snapshot { at := pending(w); w.endsIn(at.ID, -time.Second); return at }, "the end", over, nil)
	run("Store.remindExpiry run Run", audit.Reminded, func(w *fixture) Snapshot { at := pending(w); w.endsIn(at.ID, 50*time.Second); return at }, "the warning", told(audit.Reminded), nil)
	for _, before := range []func(*fixture) Snapshot{handedOff, inReview} {
		run("Store.remind run Run", audit.Reminded, func(w *fixture) Snapshot { at := before(w); w.expireLease(at.ID); return at }, "the reminder", told(audit.Reminded), nil)
	}
	unseen := func(p *proc, _ Snapshot) bool { return len(p.remainingSecrets()) == 0 }
	run("Store.expireSecret note Run", audit.Unseen, finishedWithSecret(time.Millisecond), "the end of the offer", unseen, nil)
	run("Store.expireSecret dropSecret Run", audit.Unseen, finishedWithSecret(time.Millisecond), "the end of the offer", unseen, nil)
	score := func(w *fixture, id string) float64 {
		return w.rdb.ZScore(w.t.Context(), w.store.keys.due(), id).Val()
	}
	sound := ""
	run("Store.postpone ZAddArgs", "", func(w *fixture) Snapshot {
		at := pending(w)
		key := w.store.keys.request(at.ID)
		sound = w.rdb.HGet(w.t.Context(), key, "body").Val()
		w.rdb.HSet(w.t.Context(), key, "body", "what does not open")
		w.rdb.ZAdd(w.t.Context(), w.store.keys.due(), redisZ(1, at.ID))
		return at
	}, "the request to make way", func(p *proc, at Snapshot) bool { return score(p.fixture, at.ID) > 1 }, func(w *fixture, at Snapshot) {
		w.rdb.HSet(w.t.Context(), w.store.keys.request(at.ID), "body", sound)
	})
	gone := "R-GONE0000"
	run("Runner.claim ZRem", "", func(w *fixture) Snapshot {
		w.rdb.ZAdd(w.t.Context(), w.store.keys.due(), redisZ(1, gone))
		w.rdb.ZAdd(w.t.Context(), w.store.keys.open(), redisZ(1, gone))
		return Snapshot{}
	}, "the lists to be empty", func(p *proc, _ Snapshot) bool {
		return p.rdb.ZCard(p.t.Context(), p.fixture.store.keys.due()).Val()+p.rdb.ZCard(p.t.Context(), p.fixture.store.keys.open()).Val() == 0
	}, nil)

	// kept leaves its target, or its wish, to a request that is gone.
	kept := func(w *fixture, what func(Snapshot) string) {
		at := w.claimed(deletionPlan(ClassDestroy, dana, "m1"))
		w.deleteRequest(at.ID)
		for _, key := range []string{w.store.keys.holder(dana.ID), w.store.keys.same(at.Fingerprint)} {
			if key != what(at) {
				w.rdb.Del(w.t.Context(), key)
			}
		}
	}
	tell("Store.release Run", story{
		before: func(w *fixture) Snapshot {
			kept(w, func(at Snapshot) string { return w.store.keys.same(at.Fingerprint) })
			return Snapshot{}
		},
		play: func(p *proc, _ Snapshot) error {
			_, err := p.service.Submit(p.t.Context(), "op-x", Submit{Plan: deletionPlan(ClassDestroy, dana, "m1"), Requester: hanna, Justification: "lost her phone"})
			return err
		},
		then: func(w *fixture, _ Snapshot, _ writes.How) {
			if n := w.told(RequestID("op-x"), audit.Requested); n != 1 {
				w.t.Errorf("it was requested %d times", n)
			}
		}})
	run("Store.release Run", audit.Finished, func(w *fixture) Snapshot {
		kept(w, func(Snapshot) string { return w.store.keys.holder(dana.ID) })
		return w.load(w.approved(deletionPlan(ClassDestroy, dana, "m2")).ID)
	}, "the end", over, func(w *fixture, _ Snapshot) { w.tenant.wantDeletedOnce(w.t, "m2") })

	// A whole run. Each step is taken once.
	ready := func(p Plan) func(*fixture) Snapshot {
		return func(w *fixture) Snapshot { return w.load(w.approved(p).ID) }
	}
	two := ready(deletionPlan(ClassDestroy, dana, "m1", "m2"))
	ran := func(w *fixture, at Snapshot) {
		if got := w.load(at.ID); got.Outcome != OutcomeSucceeded {
			w.t.Errorf("it is %s because %q, journal %+v", got.Summary(), got.Why, got.Journal)
		}
		w.tenant.wantDeletedOnce(w.t, "m1", "m2")
	}
	for _, where := range []string{"Store.claim run Run", "execution.execute advance#3 Run", "execution.runStep journal#2 Run", "execution.finish journal Run", "Store.checkRollback Run"} {
		run(where, audit.Finished, two, "the end", over, ran)
	}
	// throttled is a tenant that asks to wait at the first job of a kind.
	throttled := func(kind JobKind) func(w *fixture) Snapshot {
		return func(w *fixture) Snapshot {
			var asked atomic.Bool
			w.tenant.setScript(func(job Job) (Result, bool) {
				return Result{State: StepThrottled, After: 10 * time.Millisecond}, job.Kind == kind && asked.CompareAndSwap(false, true)
			})
			return two(w)
		}
	}
	run("execution.execute advance#1 Run", audit.Finished, throttled(JobCheck), "the end", over, ran)
	run("execution.runStep journal#1 Run", audit.Finished, throttled(JobRun), "the end", over, ran)
	run("execution.execute advance#2 Run", audit.HandedOff, ready(byHand("m1", "m2")), "the hand-off", func(p *proc, at Snapshot) bool { return p.load(at.ID).State == StateHandedOff },
		func(w *fixture, at Snapshot) { w.tenant.wantDeletedOnce(w.t, "m1", "m2") })
	tell("execution.release advance Run", story{before: two,
		play: func(p *proc, at Snapshot) error {
			if p.by == nil {
				p.tenant.setScript(nil)
				p.runs("the end", func() bool { return over(p, at) })
				return nil
			}
			begun, resume := make(chan struct{}), make(chan struct{})
			var once sync.Once
			p.tenant.setScript(func(job Job) (Result, bool) {
				if job.Kind != JobCheck { // it is reconciled where the first call came too late
					once.Do(func() { close(begun); <-resume })
				}
				return Result{}, false
			})
			ctx, stop := context.WithCancel(p.t.Context())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				(&Runner{Service: p.service, Work: p.tenant.Work, Name: "stops", Concurrency: 1, Log: discard}).Run(ctx)
			}()
			<-begun
			stop()
			close(resume)
			<-ended
			return nil
		},
		then: func(w *fixture, at Snapshot, _ writes.How) { ran(w, at) }})

	// Runs with a secret: what is in force is what can be opened.
	var set list[string]
	reset := func(w *fixture) Snapshot { w.sets(&set); return ready(passwords(SecretPrepared))(w) }
	opens := func(w *fixture, at Snapshot) {
		got, err := w.service.Reveal(w.t.Context(), w.op(), at.ID, hanna)
		if all := set.all(); err != nil || len(all) == 0 || got.Value != all[len(all)-1] {
			w.t.Errorf("Reveal gives %q, %v, and %q is in force", got.Value, err, all)
		}
	}
	run("execution.prepare storeSecret Run", audit.Finished, reset, "the end", over, opens)
	run("execution.keepSecret storeSecret Run", audit.Finished, reset, "the end", over, opens)
	nothing := func(w *fixture, at Snapshot) { w.wantNoSecret(w.load(at.ID).Request) }
	run("execution.keepSecret dropSecret Run", audit.Finished, func(w *fixture) Snapshot {
		at := reset(w)
		w.tenant.setScript(func(job Job) (Result, bool) {
			switch job.Kind {
			case JobPrepare:
				return Result{State: StepDone, Secret: "made"}, true
			case JobCheck:
				return Result{State: StepDone}, true
			}
			return Result{State: StepFailed, Detail: "no"}, true
		})
		return at
	}, "the end", over, nothing)
	run("execution.dropUnusedSecrets dropSecret Run", audit.Finished, func(w *fixture) Snapshot {
		w.sets(&set)
		h := w.claimExecution(w.approved(passwords(SecretPrepared)).ID)
		if ended, err := h.prepare(0); ended || err != nil {
			w.t.Fatalf("preparing: %v, %v", ended, err)
		}
		w.expireLease(h.req.ID)
		w.directory.change(ravi, func(s *Account) { s.Enabled = false }) // who approved it
		return w.load(h.req.ID)
	}, "the end", over, nothing)
	tell("Service.Shown dropSecret Run", story{before: finishedWithSecret(time.Minute),
		play: func(p *proc, at Snapshot) error { return p.service.Shown(p.t.Context(), at.ID, Secret{Step: 0}) },
		then: func(w *fixture, at Snapshot, _ writes.How) { nothing(w, at) }})

	// The inbox.
	putIn := func(w *fixture) Snapshot {
		if err := w.inbox().Put(w.t.Context(), "envelope-1", []byte("x")); err != nil {
			w.t.Fatal(err)
		}
		return Snapshot{}
	}
	// left is an entry that a dead reader had in hand, for the nth time.
	left := func(times int) func(w *fixture) Snapshot {
		return func(w *fixture) Snapshot {
			putIn(w)
			ctx, inbox := w.t.Context(), w.store.keys.inbox()
			if err := w.rdb.XGroupCreate(ctx, inbox, inboxGroup, "0").Err(); err != nil {
				w.t.Fatal(err)
			}
			read, err := w.rdb.XReadGroup(ctx, &redis.XReadGroupArgs{Group: inboxGroup, Consumer: "dead", Streams: []string{inbox, ">"}, Count: 1}).Result()
			if err != nil {
				w.t.Fatal(err)
			}
			if err := w.rdb.Do(ctx, "XCLAIM", inbox, inboxGroup, "dead", 0, read[0].Messages[0].ID, "IDLE", time.Hour.Milliseconds(), "RETRYCOUNT", times, "JUSTID").Err(); err != nil {
				w.t.Fatal(err)
			}
			return Snapshot{}
		}
	}
	reads := func(where string, before func(*fixture) Snapshot, aside int64, handle func(*proc) error) {
		handled := new(atomic.Int32)
		tell(where, story{before: before,
			play: func(p *proc, _ Snapshot) error {
				stop := background(p.t, func(ctx context.Context) {
					p.in.Consume(ctx, "one name for all", 1, func(context.Context, Arrival) error { handled.Add(1); return handle(p) })
				})
				p.until("the inbox to be empty", p.empty)
				stop()
				return nil
			},
			then: func(w *fixture, _ Snapshot, _ writes.How) {
				if n := handled.Load(); n < 1 || n > 2 {
					w.t.Errorf("it was handed out %d times", n)
				}
				if n := w.rdb.XLen(w.t.Context(), w.store.keys.deadLetters()).Val(); n != aside {
					w.t.Errorf("%d entries were set aside", n)
				}
			}})
	}
	tell("Inbox.Put Run", story{
		play: func(p *proc, _ Snapshot) error { return p.in.Put(p.t.Context(), "envelope-1", []byte("x")) },
		then: func(w *fixture, _ Snapshot, _ writes.How) {
			if n := w.rdb.XLen(w.t.Context(), w.store.keys.inbox()).Val(); n != 1 {
				w.t.Errorf("%d entries, want one", n)
			}
		}})
	carriesOut := func(*proc) error { return nil }
	reads("Inbox.Consume XGroupCreateMkStream", putIn, 0, carriesOut)
	reads("Inbox.next XReadGroup", putIn, 0, carriesOut)
	reads("Inbox.next XAutoClaim", left(1), 0, carriesOut)
	reads("Inbox.acknowledge Exec", putIn, 0, carriesOut)
	reads("Inbox.keepAlive Do", putIn, 0, func(p *proc) error {
		if p.by != nil {
			p.until("its end", func() bool { return false })
		}
		return nil
	})
	reads("Inbox.skipForMissingKey Do", putIn, 0, func(p *proc) error {
		if p.by != nil {
			return missingKeyError{"k2"}
		}
		return nil
	})
	reads("Inbox.moveToDeadLetters Exec", left(maxDeliveries), 1, func(*proc) error { return errors.New("no") })

	// The projections.
	follows := func(where string, patient bool) {
		var got list[string]
		tell(where, story{before: func(w *fixture) Snapshot { w.tell("a", "b"); return Snapshot{} },
			play: func(p *proc, _ Snapshot) error {
				p.follows(func(_ context.Context, batch []audit.Event) (int, error) {
					if p.by != nil && patient {
						p.until("its end", func() bool { return false })
					}
					for _, e := range batch {
						got.add(e.Title)
					}
					return len(batch), nil
				})
				return nil
			},
			then: func(w *fixture, _ Snapshot, _ writes.How) {
				if all := got.all(); !slices.Equal(all, []string{"a", "b"}) && !slices.Equal(all, []string{"a", "b", "a", "b"}) {
					w.t.Errorf("handled %q", all)
				}
			}})
	}
	follows("Store.followOnce lead#1 Run", false)
	follows("Store.followOnce lead#2 Run", false)
	follows("Store.followOnce lead#3 Run", false)
	follows("Store.handleBatch lead Run", true)
	follows("Store.Follow Run", false)
	tell("Store.Trim XTrimMinID", story{
		before: func(w *fixture) Snapshot {
			w.tell("a")
			waitFor(w.t, "another millisecond", func() bool { return w.lag("p") > 2*time.Millisecond })
			w.tell("b")
			w.rdb.Set(w.t.Context(), w.store.keys.cursor("p"), w.events()[1].ID, 0)
			return Snapshot{}
		},
		play: func(p *proc, _ Snapshot) error { return p.store.Trim(p.t.Context(), []string{"p"}, 0) },
		then: func(w *fixture, _ Snapshot, _ writes.How) {
			if got := w.events(); len(got) != 1 || got[0].Title != "b" {
				w.t.Errorf("what is left is %v", got)
			}
		}})

	// A Redis that loses confirmed writes. Each process that notices stops the others
	// by what it writes; where it ends before that, the next one has to notice.
	goesBack := func(w *fixture, store *Store, service *Service) error {
		restore := w.server.Save(w.t)
		if err := service.RecordAlarm(w.t.Context(), w.op(), sam, "strange"); err != nil {
			return err
		}
		restore()
		return store.checkRollback(w.t.Context())
	}
	tell("Store.writeLost Run", story{
		play: func(p *proc, _ Snapshot) error {
			if err := goesBack(p.fixture, p.store, p.service); !errors.Is(err, ErrLostWrites) {
				return fmt.Errorf("it goes on: %v", err)
			}
			return nil
		},
		then: func(w *fixture, _ Snapshot, _ writes.How) {
			if list := w.lostWrites(); len(list) != 1 {
				w.t.Errorf("%d processes say that something is lost", len(list))
			}
			w.resume()
		}})
	tell("Store.Resume Run", story{
		before: func(w *fixture) Snapshot {
			if err := goesBack(w, w.store, w.service); !errors.Is(err, ErrLostWrites) {
				w.t.Fatalf("it goes on: %v", err)
			}
			return Snapshot{}
		},
		play: func(p *proc, _ Snapshot) error {
			list, err := p.store.LostWrites(p.t.Context())
			if err != nil || len(list) == 0 {
				return err
			}
			return p.store.Resume(p.t.Context(), list, "The operator")
		},
		then: func(w *fixture, _ Snapshot, _ writes.How) {
			if got := w.eventKinds(""); !slices.Equal(got, []audit.Kind{audit.Alarm}) {
				w.t.Errorf("events %v, want one that it goes on", got)
			}
			if err := w.proc(nil).service.RecordAlarm(w.t.Context(), w.op(), sam, "strange"); err != nil {
				w.t.Errorf("nobody can go on: %v", err)
			}
		}})

	// The watermark of that, in a file. replaces is how a process writes it.
	replaces := func(p *proc) func(string, []byte) error {
		return func(name string, data []byte) error {
			if p.dead.Load() {
				return errCut
			}
			var strike *writes.Strike
			if p.by != nil {
				strike = p.by.Next("")
			}
			if strike == nil || strike.How == writes.Applied {
				if err := files.Replace(name, data); err != nil || strike == nil {
					return err
				}
			}
			p.dead.Store(true)
			strike.Hit()
			return errCut
		}
	}
	path := ""
	testifies := func(p *proc) error {
		watermark, err := p.store.openWatermark(p.t.Context(), path, replaces(p))
		if err == nil {
			err = p.service.RecordAlarm(p.t.Context(), p.op(), sam, "strange")
		}
		if err == nil {
			err = watermark.write(p.t.Context())
		}
		return err
	}
	tell("Watermark.write replace", story{
		before: func(w *fixture) Snapshot {
			path = filepath.Join(w.t.TempDir(), "watermark")
			if err := testifies(w.proc(nil)); err != nil {
				w.t.Fatal(err)
			}
			return Snapshot{}
		},
		play: func(p *proc, _ Snapshot) error { return testifies(p) },
		then: func(w *fixture, _ Snapshot, _ writes.How) {
			if list := w.lostWrites(); len(list) > 0 {
				w.t.Errorf("nothing is lost, and it says %+v", list)
			}
			restore := w.server.Save(w.t)
			if err := testifies(w.proc(nil)); err != nil {
				w.t.Fatal(err)
			}
			restore()
			if _, err := w.proc(nil).store.OpenWatermark(w.t.Context(), path); err != nil || len(w.lostWrites()) == 0 {
				w.t.Errorf("Redis has gone back, and the file does not tell: %v", err)
			}
			w.resume()
		}})

	// What is known of people and messages.
	tell("Store.Pin Run", story{
		play: func(p *proc, _ Snapshot) error {
			ok, err := p.store.Pin(p.t.Context(), "U1", "a")
			if err == nil && !ok {
				return errors.New("the pin was refused")
			}
			return err
		},
		then: func(w *fixture, _ Snapshot, _ writes.How) {
			if dump := w.server.Dump(w.t); dump["{countersign}:pins:entra"] != "a U1" || dump["{countersign}:pins:slack"] != "U1 a" {
				w.t.Errorf("it is pinned as %q and %q", dump["{countersign}:pins:entra"], dump["{countersign}:pins:slack"])
			}
		}})
	tell("Store.SetCard Exec", story{before: pending,
		play: func(p *proc, at Snapshot) error {
			return p.store.SetCard(p.t.Context(), at.ID, "approvers", Card{"C1", "1.1"})
		},
		then: func(w *fixture, at Snapshot, _ writes.How) {
			cards, err := w.store.Cards(w.t.Context(), at.ID)
			if err != nil || len(cards) != 1 || cards["approvers"] != (Card{"C1", "1.1"}) {
				w.t.Errorf("the cards are %v, %v", cards, err)
			}
		}})
	tell("Store.Allow Exec", story{
		play: func(p *proc, _ Snapshot) error {
			ok, err := p.store.Allow(p.t.Context(), "read", "x", 3, time.Minute)
			if err == nil && !ok {
				return errors.New("it was refused")
			}
			return err
		},
		then: func(w *fixture, _ Snapshot, how writes.How) {
			// What was counted and not heard of counts, so a limit may bite too
			// early and never too late.
			ok, err := w.store.Allow(w.t.Context(), "read", "x", 3, time.Minute)
			if err != nil || ok != (how == writes.NotApplied) {
				w.t.Errorf("the next one is allowed: %v, %v", ok, err)
			}
		}})
	return all
}
