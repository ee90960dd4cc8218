package approvals

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"countersign/audit"
)

// hold takes a request as a runner does, and leaves what comes next to the
// test: to let it die where it likes.
func (w *world) hold(id string) *hand {
	w.t.Helper()
	runner := &Runner{Desk: w.desk, Work: w.tenant.Work, Name: "mortal", Log: w.log}
	h, err := runner.take(w.t.Context(), id, true)
	if err != nil || h == nil {
		w.t.Fatalf("taking %s: %v, %v", id, h, err)
	}
	h.ctx = w.t.Context()
	return h
}

// begunWith is a worker that has begun the first step of a plan, with its
// secret made.
func (w *world) begunWith(p Plan) *hand {
	w.t.Helper()
	h := w.hold(w.approved(p).ID)
	if ended, err := h.prepare(0); ended || err != nil {
		w.t.Fatalf("preparing: %v, %v", ended, err)
	}
	if err := h.advance("begin:0", Begin{Step: 0}); err != nil {
		w.t.Fatal(err)
	}
	return h
}

// offeredFor is a request that is over and has a secret to be revealed.
func offeredFor(life time.Duration) func(w *world) Snapshot {
	return func(w *world) Snapshot {
		var set list[string]
		w.sets(&set)
		h := w.begunWith(passwords(SecretPrepared))
		if err := w.store.stash(w.t.Context(), h.req, 0, Secret{Value: "offered"}, life, true); err != nil {
			w.t.Fatal(err)
		}
		for i, a := range []Action{End{Step: 0, Result: Result{State: StepDone}}, Finish{}} {
			if err := h.advance(fmt.Sprint("write-", i), a); err != nil {
				w.t.Fatal(err)
			}
		}
		if life < time.Second {
			waitFor(w.t, "the offer to end", func() bool { return w.rdb.Exists(w.t.Context(), w.store.keys.secret(offer(h.req.ID, 0))).Val() == 0 })
		}
		return w.load(h.req.ID)
	}
}

// secretsLeft lists what is left of secrets in Redis.
func (w *world) secretsLeft() []string {
	var left []string
	for key := range w.server.Dump(w.t) {
		if strings.Contains(key, ":secret:") || strings.HasSuffix(key, ":offers") {
			left = append(left, key)
		}
	}
	slices.Sort(left)
	return left
}

// revealsNothing fails the test when there is something to open.
func (w *world) revealsNothing(r Request) {
	w.t.Helper()
	if offered, err := w.store.Offered(w.t.Context(), r); err != nil || offered {
		w.t.Errorf("it offers a secret: %v, %v", offered, err)
	}
	if got, err := w.desk.Reveal(w.t.Context(), w.op(), r.ID, hanna); code(err) != CodeNothing || got.Value != "" {
		w.t.Errorf("it reveals %q, %v", got.Value, err)
	}
	if left := w.secretsLeft(); len(left) > 0 {
		w.t.Errorf("in Redis there is still %v", left)
	}
}

// A secret stands nowhere but under its seal: not in the request, an event, a
// log, an error, a key or a value, although Graph repeats it in an error.
func TestASecretIsNowhereInTheClear(t *testing.T) {
	t.Parallel()
	for _, from := range []SecretFrom{SecretPrepared, SecretFromAnswer} {
		t.Run(string(from), func(t *testing.T) {
			t.Parallel()
			const value = "wolf-Lantern-42-orbit"
			w := newWorld(t, calm())
			ctx := t.Context()
			var log list[string]
			w.log = slog.New(slog.NewJSONHandler(writerFunc(func(b []byte) (int, error) { log.add(string(b)); return len(b), nil }), &slog.HandlerOptions{Level: slog.LevelDebug}))
			w.store, w.desk = w.process(w.rdb)
			var jobs list[string]
			until := time.Date(2026, 11, 23, 13, 0, 0, 0, time.UTC)
			waits := 0
			w.tenant.says(func(job Job) (Result, bool) {
				jobs.add(fmt.Sprintf("%v %+v %#v", job, &job, []Job{job}))
				// The first is run anew, the others are reconciled.
				if (job.Kind == Run || job.Kind == Reconcile) && waits < 3 {
					waits++
					return Result{State: StepThrottled, After: 10 * time.Millisecond, Unsure: waits == 2, Secret: value, Detail: "Too many, says Graph, of " + value + "."}, true
				}
				switch {
				case job.Kind == Check:
					return Result{State: StepDone}, true
				case job.Kind == Prepare:
					return Result{State: StepDone, Secret: value}, true
				case job.Step == 0 && from == SecretPrepared && job.Secret != value:
					t.Errorf("the step is run with %q", job.Secret)
				case job.Step == 1: // a second one, that Graph refuses
					return Result{State: StepFailed, Detail: "Graph says that " + value + " is too weak.", Secret: value}, true
				}
				return Result{State: StepDone, Secret: map[SecretFrom]string{SecretFromAnswer: value}[from], Until: until, Detail: "Set to " + value + "."}, true
			})
			plan := passwords(from)
			plan.Steps = append(plan.Steps, Step{Op: "reset", Words: "Once more", Secret: from})
			w.run(w.desk, "w")
			got := w.until(w.approved(plan).ID)
			if got.Outcome != Partial || got.Journal[0].Detail != "Set to [secret]." || got.Journal[1].Detail != "Graph says that [secret] is too weak." {
				t.Errorf("it is %s, journal %+v", got.Says(), got.Journal)
			}
			if n := w.told(got.ID, audit.Waiting); n != 3 {
				t.Errorf("%d times waiting, want 3", n)
			}
			if _, err := w.desk.Reveal(ctx, w.op(), got.ID, ravi); code(err) != CodeNotRequester {
				t.Errorf("an approver opens it: %v", err)
			}
			search := func(where, text string) {
				t.Helper()
				for word := range strings.FieldsSeq(text) {
					if raw, err := base64.RawStdEncoding.DecodeString(strings.TrimPrefix(word, "k1.")); err == nil {
						text += string(raw)
					}
				}
				if strings.Contains(text, value) {
					t.Errorf("%s shows the secret: %s", where, text)
				}
			}
			everywhere := func() {
				t.Helper()
				for key, text := range w.server.Dump(t) {
					search(key, key+" "+text)
				}
				for _, e := range w.events() {
					search("an event", fmt.Sprintf("%+v %s", e, e.Line()))
				}
				snap := w.load(got.ID)
				raw, err := json.Marshal(snap.Request)
				if err != nil {
					t.Fatal(err)
				}
				search("the request", fmt.Sprintf("%s %+v %v", raw, snap.Request, snap.ops))
				search("the log", strings.Join(log.all(), ""))
				search("a job", strings.Join(jobs.all(), ""))
			}
			everywhere()
			secret, err := w.desk.Reveal(ctx, w.op(), got.ID, hanna)
			if err != nil || secret.Value != value || secret.Step != 0 || from == SecretFromAnswer && !secret.Until.Equal(until) {
				t.Errorf("revealed %q of step %d until %v, %v", secret.Value, secret.Step, secret.Until, err)
			}
			everywhere()
			if left := w.secretsLeft(); len(left) != 2 {
				t.Errorf("one secret and the list of offers are kept, and there is %v", left)
			}
			if err := w.desk.Shown(ctx, got.ID, secret); err != nil {
				t.Fatal(err)
			}
			w.revealsNothing(got.Request)
			everywhere()
			w.invariants()
		})
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// Whatever holds a secret can be formatted and logged without a thought.
func TestWhatHoldsASecretIsNotLogged(t *testing.T) {
	const value = "Zq7-hunter"
	secret := Secret{Value: value, Step: 1}
	result := Result{State: StepDone, Secret: value, Detail: "Done."}
	job := Job{Kind: Run, Secret: value, Request: Request{ID: "R-TEST"}}
	for _, v := range []any{secret, &secret, []Secret{secret}, struct{ S Secret }{secret}, result, &result, []Result{result}, End{Result: result}, map[string]Result{"a": result}, job, &job} {
		var out bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "%t", "%50.5v"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		fmt.Fprintln(&out, v, errors.New(fmt.Sprint(v)))
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "it", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "it", v)
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(raw)
		for _, bad := range []string{value, fmt.Sprintf("%x", value), fmt.Sprintf("%X", value), "hunter", "!BADFORMAT"} {
			if strings.Contains(out.String(), bad) {
				t.Errorf("%T shows %s in %s", v, bad, out.String())
			}
		}
	}
	if got, want := fmt.Sprintf("%+v", result), "{State:done Detail:Done. RequestID: After:0s Unsure:false Secret:[secret] Until:0001-01-01 00:00:00 +0000 UTC}"; got != want {
		t.Errorf("a result is written %s, want %s", got, want)
	}
}

// A worker that dies behind its call leaves the password that it sent to its
// successor, who sends that one and no other.
func TestTheSamePasswordIsSentAgain(t *testing.T) {
	t.Parallel()
	for name, offered := range map[string]bool{"dead behind the call": false, "dead behind the offer": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, calm())
			var set list[string]
			w.sets(&set)
			h := w.begunWith(passwords(SecretPrepared))
			value, err := w.store.secretValue(t.Context(), h.req.ID, 0)
			if err != nil || value != "made-1" {
				t.Fatalf("prepared %q, %v", value, err)
			}
			job := Job{Kind: Run, Request: h.req, Step: 0, Secret: value}
			got := h.call(t.Context(), job)
			if offered {
				if _, err := h.keepSecret(job, got); err != nil {
					t.Fatal(err)
				}
			}
			w.revealsNothingYet(h.req.ID)
			w.die(h.req.ID)
			for i := range 3 {
				_, desk := w.process(w.server.Client(t))
				w.run(desk, fmt.Sprint("worker-", i))
			}
			if got := w.until(h.req.ID); got.Outcome != Succeeded {
				t.Errorf("it is %s because %q", got.Says(), got.Why)
			}
			if all := set.all(); !slices.Equal(all, []string{"made-1", "made-1"}) || len(w.tenant.did(Prepare)) != 1 || len(w.tenant.did(Reconcile)) != 1 {
				t.Errorf("set one after another %v; jobs %v", all, w.tenant.did(""))
			}
			if secret, err := w.desk.Reveal(t.Context(), w.op(), h.req.ID, hanna); err != nil || secret.Value != "made-1" {
				t.Errorf("revealed %q, %v", secret.Value, err)
			}
			if n := w.rdb.ZCard(t.Context(), w.store.keys.offers()).Val(); n != 1 || w.told(h.req.ID, audit.Unseen) != 0 {
				t.Errorf("%d offers, told of %d that ended", n, w.told(h.req.ID, audit.Unseen))
			}
			w.invariants()
		})
	}
}

// revealsNothingYet says that what a worker has not journalled is not shown.
func (w *world) revealsNothingYet(id string) {
	w.t.Helper()
	if got, err := w.desk.Reveal(w.t.Context(), w.op(), id, hanna); code(err) != CodeNothing || got.Value != "" {
		w.t.Errorf("it reveals %q before the step has ended, %v", got.Value, err)
	}
}

// A pass whose answer was lost with its worker is asked for again, and the
// one that is in force is the one that is offered.
func TestALostAnswerIsAskedForAgain(t *testing.T) {
	t.Parallel()
	for name, offered := range map[string]bool{"dead behind the call": false, "dead behind the offer": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, calm())
			var set list[string]
			w.sets(&set)
			h := w.begunWith(passwords(SecretFromAnswer))
			job := Job{Kind: Run, Request: h.req, Step: 0}
			got := h.call(t.Context(), job)
			if offered {
				if _, err := h.keepSecret(job, got); err != nil {
					t.Fatal(err)
				}
			}
			w.revealsNothingYet(h.req.ID)
			w.die(h.req.ID)
			w.run(w.desk, "worker-2")
			if got := w.until(h.req.ID); got.Outcome != Succeeded {
				t.Errorf("it is %s because %q", got.Says(), got.Why)
			}
			if secret, err := w.desk.Reveal(t.Context(), w.op(), h.req.ID, hanna); err != nil || secret.Value != "answered-2" || len(set.all()) != 2 {
				t.Errorf("revealed %q, %v; asked for %d times", secret.Value, err, len(set.all()))
			}
			if n := w.rdb.ZCard(t.Context(), w.store.keys.offers()).Val(); n != 1 {
				t.Errorf("%d offers", n)
			}
			w.invariants()
		})
	}
}

// Where a reconciliation finds that it was done and cannot tell the secret,
// people are told that it is lost, and an earlier attempt's is not offered in
// its place.
func TestALostSecretIsToldToBeLost(t *testing.T) {
	t.Parallel()
	for _, from := range []SecretFrom{SecretPrepared, SecretFromAnswer} {
		t.Run(string(from), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, calm())
			w.tenant.says(func(job Job) (Result, bool) {
				if job.Kind == Reconcile && job.Secret != "" {
					t.Errorf("reconciled with %q", job.Secret)
				}
				return Result{State: StepDone, Secret: map[JobKind]string{Prepare: "made", Run: "answered"}[job.Kind]}, true
			})
			h := w.begunWith(passwords(from))
			switch from {
			case SecretPrepared: // Redis evicted it, or somebody put another thing there
				if err := w.rdb.Set(t.Context(), w.store.keys.secret(offer(h.req.ID, 0)), "k1.AAAA", 0).Err(); err != nil {
					t.Fatal(err)
				}
			case SecretFromAnswer:
				if _, err := h.keepSecret(Job{Kind: Run}, Result{State: StepDone, Secret: "answered"}); err != nil {
					t.Fatal(err)
				}
			}
			w.die(h.req.ID)
			w.run(w.desk, "worker-2")
			got := w.until(h.req.ID)
			if got.Outcome != Succeeded || got.Journal[0].Detail != "It was carried out, but its secret is lost: request it again." {
				t.Errorf("it is %s, journal %+v", got.Says(), got.Journal)
			}
			w.revealsNothing(got.Request)
			w.invariants()
		})
	}
}

// A password that is gone between its preparation and the call sets nothing.
func TestAPasswordLostBeforeTheCall(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	var set list[string]
	w.sets(&set)
	h := w.begunWith(passwords(SecretPrepared))
	if err := w.rdb.Del(t.Context(), w.store.keys.secret(offer(h.req.ID, 0))).Err(); err != nil {
		t.Fatal(err)
	}
	if gaveBack, err := h.settle(Job{Kind: Run, Step: 0}); gaveBack || err != nil {
		t.Fatal(gaveBack, err)
	}
	if h.req.Journal[0].State != StepFailed || len(set.all()) > 0 {
		t.Errorf("journal %+v, set %q", h.req.Journal, set.all())
	}
	lint(t, h.req.Journal[0].Detail)
}

// Where a step was not carried out for certain, its secret opens nothing and
// is not shown.
func TestTheSecretOfAStepThatDidNotSucceed(t *testing.T) {
	t.Parallel()
	for _, from := range []SecretFrom{SecretPrepared, SecretFromAnswer} {
		for _, state := range []StepState{StepFailed, StepUncertain, StepAlready, ""} {
			for _, kind := range []JobKind{Run, Reconcile} {
				t.Run(fmt.Sprintf("%s/%s/%s", from, state, kind), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, calm())
					w.log = discard
					w.tenant.says(func(job Job) (Result, bool) {
						if job.Kind == Check || job.Kind == Prepare {
							return Result{State: StepDone, Secret: "made"}, true
						}
						return Result{State: state, Secret: "answered"}, true
					})
					h := w.begunWith(passwords(from))
					if kind == Reconcile { // of a worker that even offered it
						if _, err := h.keepSecret(Job{Kind: Run, Secret: "made"}, Result{State: StepDone}); err != nil {
							t.Fatal(err)
						}
						w.die(h.req.ID)
						w.run(w.desk, "worker-2")
					} else if _, err := h.settle(Job{Kind: Run, Step: 0}); err != nil {
						t.Fatal(err)
					} else if err := h.finish(""); err != nil {
						t.Fatal(err)
					}
					w.revealsNothing(w.until(h.req.ID).Request)
					w.invariants()
				})
			}
		}
	}
}

// A secret that was made for a step which then never began is forgotten.
func TestAHaltBetweenPreparationAndCall(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	w.tenant.says(func(job Job) (Result, bool) {
		if job.Kind == Prepare {
			if _, err := w.desk.Stop(context.Background(), "stop", job.Request.ID, olga, "wait"); err != nil {
				t.Errorf("halting: %v", err)
			}
			return Result{State: StepDone, Secret: "made"}, true
		}
		return Result{State: StepDone}, true
	})
	w.run(w.desk, "w")
	got := w.until(w.approved(passwords(SecretPrepared)).ID)
	if got.Outcome != Failed || !strings.HasPrefix(got.Why, "Halted by Olga") || len(w.tenant.did(Run)) > 0 {
		t.Errorf("it is %s because %q, jobs %v", got.Says(), got.Why, w.tenant.did(""))
	}
	w.revealsNothing(got.Request)
	w.invariants()
}

// A secret that cannot be made ends the request, before anything is done.
func TestASecretThatCannotBeMade(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func() Result{
		"failed": func() Result { return Result{State: StepFailed, Detail: "No randomness."} },
		"empty":  func() Result { return Result{State: StepDone} },
		"panic":  func() Result { panic("a nil map") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, calm())
			w.log = discard
			w.tenant.says(func(job Job) (Result, bool) {
				if job.Kind == Prepare {
					return prepare(), true
				}
				return Result{State: StepDone}, true
			})
			w.run(w.desk, "w")
			got := w.until(w.approved(passwords(SecretPrepared)).ID)
			if got.Outcome != Failed || got.Begun() || len(w.tenant.did(Prepare)) != 1 || len(w.tenant.did(Run)) > 0 {
				t.Errorf("it is %s, jobs %v", got.Says(), w.tenant.did(""))
			}
			lint(t, got.Why)
			w.revealsNothing(got.Request)
			w.invariants()
		})
	}
}

// A step that Graph throttles is prepared anew, and what is shown is what was
// set in the end.
func TestThrottledBetweenPreparationAndSuccess(t *testing.T) {
	t.Parallel()
	for _, from := range []SecretFrom{SecretPrepared, SecretFromAnswer} {
		t.Run(string(from), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, calm())
			var mu sync.Mutex
			calls, sent := 0, ""
			w.tenant.says(func(job Job) (Result, bool) {
				mu.Lock()
				defer mu.Unlock()
				switch job.Kind {
				case Prepare:
					return Result{State: StepDone, Secret: fmt.Sprint("made-", len(w.tenant.did(Prepare)))}, true
				case Run:
					if calls++; calls < 3 {
						return Result{State: StepThrottled, After: 10 * time.Millisecond, Secret: "of nothing"}, true
					}
					if sent = job.Secret; from == SecretFromAnswer {
						sent = "answered"
					}
					return Result{State: StepDone, Secret: map[SecretFrom]string{SecretFromAnswer: sent}[from]}, true
				}
				return Result{State: StepDone}, true
			})
			w.run(w.desk, "w")
			got := w.until(w.approved(passwords(from)).ID)
			secret, err := w.desk.Reveal(t.Context(), w.op(), got.ID, hanna)
			mu.Lock()
			defer mu.Unlock()
			if got.Outcome != Succeeded || err != nil || secret.Value != sent || sent == "" {
				t.Errorf("it is %s, revealed %q, %v, want %q", got.Says(), secret.Value, err, sent)
			}
			if n := w.rdb.ZCard(t.Context(), w.store.keys.offers()).Val(); n != 1 {
				t.Errorf("%d offers", n)
			}
			w.invariants()
		})
	}
}

// Redis is in trouble while a secret is offered, for a moment or for as long
// as that worker lives: in the end the one that is in force can be revealed,
// or people are told that it is lost.
func TestOfferingIsAttacked(t *testing.T) {
	t.Parallel()
	for _, from := range []SecretFrom{SecretPrepared, SecretFromAnswer} {
		for _, times := range []int{1, 2, 1000} {
			for _, replies := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%d times/%s lost", from, times, map[bool]string{false: "request", true: "reply"}[replies]), func(t *testing.T) {
					t.Parallel()
					timing := calm()
					forGood := times == 1000
					if forGood { // so that this worker gives up
						timing.Lease, timing.GraphCall, timing.GraphGrace = 500*time.Millisecond, 0, 0
					}
					w := newWorld(t, timing)
					w.log = discard
					var set list[string]
					w.sets(&set)
					if err := errors.Join(w.store.commit.Load(t.Context(), w.rdb).Err(), keepScript.Load(t.Context(), w.rdb).Err()); err != nil {
						t.Fatal(err)
					}
					r := w.approved(passwords(from))
					sab := &saboteur{}
					sab.arm(replies, times, "evalsha", "secret:"+offer(r.ID, 0), ms(w.timing.SecretLife))
					_, desk := w.process(sab.client(t, w.server, false))
					desk.Log = discard
					first, stop := w.runner(desk, "its line is cut")
					waitFor(t, "the line to be cut", func() bool { return sab.struck() >= min(times, 2) })
					if forGood { // before it is succeeded, or it would not be dead but slow
						stop()
						w.timing = calm()
					}
					_, other := w.process(w.server.Client(t))
					second, _ := w.runner(other, "another one")
					got := w.carried(r.ID, first, second)
					secret, err := w.desk.Reveal(t.Context(), w.op(), r.ID, hanna)
					all := set.all()
					inForce := all[len(all)-1]
					if from == SecretFromAnswer {
						inForce = fmt.Sprint("answered-", len(all))
					}
					lost := strings.Contains(got.Journal[0].Detail, "its secret is lost")
					if got.Outcome != Succeeded || lost == (err == nil) || err == nil && secret.Value != inForce {
						t.Errorf("it is %s, lost %v, revealed %q, %v; in force %q, set %v", got.Says(), lost, secret.Value, err, inForce, all)
					}
					if from == SecretPrepared && len(slices.Compact(all)) != 1 {
						t.Errorf("several passwords were sent: %v", all)
					}
					if lost { // who lost it could ask again
						t.Errorf("it was told to be lost, set %v", all)
					}
					w.invariants()
				})
			}
		}
	}
}

// Dropping is attacked as well: what failed once is done at the next attempt,
// and twice is once.
func TestDroppingIsAttacked(t *testing.T) {
	t.Parallel()
	for _, replies := range []bool{false, true} {
		w := newWorld(t, calm())
		ctx := t.Context()
		if err := dropScript.Load(ctx, w.rdb).Err(); err != nil {
			t.Fatal(err)
		}
		at := offeredFor(time.Minute)(w)
		sab := &saboteur{}
		_, desk := w.process(sab.client(t, w.server, false))
		sab.arm(replies, 1, "evalsha", offer(at.ID, 0))
		secret, err := w.desk.Reveal(ctx, w.op(), at.ID, hanna)
		if err != nil {
			t.Fatal(err)
		}
		if err := desk.Shown(ctx, at.ID, secret); err == nil {
			t.Error("what could not be confirmed was confirmed")
		}
		if err := desk.Shown(ctx, at.ID, secret); err != nil {
			t.Errorf("again: %v", err)
		}
		w.revealsNothing(at.Request)
	}
}

func TestRevealingIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	ctx := t.Context()
	at := offeredFor(time.Minute)(w)
	refused := func(op string, who Person, want Code) {
		t.Helper()
		got, err := w.desk.Reveal(ctx, op, at.ID, who)
		if code(err) != want || got.Value != "" {
			t.Errorf("%s by %s reveals %q, %v; want %q", op, who, got.Value, err, want)
			return
		}
		all := w.events()
		if e := all[len(all)-1]; e.Kind != audit.Refused || e.Actor != who || e.Reason != err.Error() || e.Outcome != "open the secret" || e.Request != at.ID || e.Version != at.Version {
			t.Errorf("%s by %s left the event %+v", op, who, e)
		}
		if _, twice := w.desk.Reveal(ctx, op, at.ID, who); twice == nil || twice.Error() != err.Error() || len(w.events()) != len(all) {
			t.Errorf("%s by %s, redelivered: %v", op, who, twice)
		}
		lint(t, err.Error())
	}
	for i, who := range []Person{ravi, olga, dana, gloria, {Slack: hanna.Slack}} {
		refused(fmt.Sprint("peek-", i), who, CodeNotRequester)
	}
	// Its requester, who by now is somebody else's puppet, or has another job.
	if err := w.rdb.Set(ctx, w.store.keys.mark(hanna.ID), "R-X", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	refused("target", hanna, CodeRecentTarget)
	w.rdb.Del(ctx, w.store.keys.mark(hanna.ID))
	w.directory.change(hanna, func(s *Standing) { s.Groups = nil })
	refused("left", hanna, CodeNotAllowed)
	w.directory.change(hanna, func(s *Standing) { s.Groups = []string{helpDesk} })

	for range 2 {
		if _, err := w.desk.Reveal(ctx, "nothing", "R-NOTHING", hanna); code(err) != CodeNoRequest {
			t.Errorf("of no request: %v", err)
		}
	}
	if n := len(w.kinds("")); n != len(w.kinds(at.ID))+1 {
		t.Errorf("%d events beside those of the request, want one of the request that is not there", n-len(w.kinds(at.ID)))
	}
	plain := w.until(w.approvedAndRun(deletes(ClassDestroy, sam, "m2")).ID)
	if _, err := w.desk.Reveal(ctx, w.op(), plain.ID, hanna); code(err) != CodeNothing {
		t.Errorf("of a request without a secret: %v", err)
	}

	secret, err := w.desk.Reveal(ctx, "press", at.ID, hanna)
	if err != nil || secret.Value != "offered" {
		t.Fatalf("its requester reveals %q, %v", secret.Value, err)
	}
	if again, err := w.desk.Reveal(ctx, "press", at.ID, hanna); err != nil || again != secret || w.told(at.ID, audit.Revealed) != 1 {
		t.Errorf("the same press reveals %q, %v, told %d times", again.Value, err, w.told(at.ID, audit.Revealed))
	}
	if err := w.desk.Shown(ctx, at.ID, secret); err != nil {
		t.Fatal(err)
	}
	// A press that was answered with what is gone by now is no empty yes.
	if again, err := w.desk.Reveal(ctx, "press", at.ID, hanna); code(err) != CodeNothing || again.Value != "" {
		t.Errorf("the same press, after it was shown, reveals %q, %v", again.Value, err)
	}
	w.invariants()
}

// approvedAndRun is a request that a runner has seen to.
func (w *world) approvedAndRun(p Plan) Request {
	w.t.Helper()
	w.tenant.says(nil)
	r := w.approved(p)
	stop := w.run(w.desk, "w")
	w.until(r.ID)
	stop()
	return r
}

// Whoever asked for themselves became a recent target with that very request.
func TestRevealingOnesOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	letAskForSelf(w.desk)
	var set list[string]
	w.sets(&set)
	w.run(w.desk, "w")
	plan := passwords(SecretPrepared)
	plan.Target = hanna
	r := w.until(w.approved(plan).ID)
	if secret, err := w.desk.Reveal(t.Context(), w.op(), r.ID, hanna); err != nil || secret.Value != "made-1" {
		t.Errorf("it is %s, revealed %q, %v", r.Says(), secret.Value, err)
	}
}

// A plan may have several secrets: they are shown one after another.
func TestSeveralSecrets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	var set list[string]
	w.sets(&set)
	w.run(w.desk, "w")
	plan := passwords(SecretPrepared)
	plan.Steps = append(plan.Steps, Step{Op: "pass", Words: "Issue a pass", Secret: SecretFromAnswer})
	r := w.until(w.approved(plan).ID)
	for step, want := range []string{"made-1", "answered-2"} {
		for range 2 {
			secret, err := w.desk.Reveal(t.Context(), w.op(), r.ID, hanna)
			if err != nil || secret.Value != want || secret.Step != step {
				t.Errorf("revealed %q of step %d, %v; want %q", secret.Value, secret.Step, err, want)
			}
		}
		if err := w.desk.Shown(t.Context(), r.ID, Secret{Step: step}); err != nil {
			t.Fatal(err)
		}
	}
	w.revealsNothing(r.Request)
}

// What an offer's end is told as, and when it is not told.
func TestTheEndOfAnOffer(t *testing.T) {
	t.Parallel()
	due := func(w *world, name string) {
		if err := w.rdb.ZAdd(w.t.Context(), w.store.keys.offers(), redisZ(1, name)).Err(); err != nil {
			w.t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		prepare func(w *world) string // the request
		told    int
		outcome string
		broken  bool
	}{
		"never opened": {func(w *world) string { return offeredFor(time.Millisecond)(w).ID }, 1, "", false},
		"opened, and not known to be seen": {func(w *world) string {
			at := offeredFor(time.Minute)(w)
			if _, err := w.desk.Reveal(w.t.Context(), w.op(), at.ID, hanna); err != nil {
				w.t.Fatal(err)
			}
			due(w, offer(at.ID, 0))
			return at.ID
		}, 1, "opened", false},
		"somebody else tried": {func(w *world) string {
			at := offeredFor(time.Minute)(w)
			if _, err := w.desk.Reveal(w.t.Context(), w.op(), at.ID, ravi); err == nil {
				w.t.Fatal("an approver opened it")
			}
			due(w, offer(at.ID, 0))
			return at.ID
		}, 1, "", false},
		"of a step that is still to be reconciled": {func(w *world) string {
			var set list[string]
			w.sets(&set)
			h := w.begunWith(passwords(SecretFromAnswer))
			if _, err := h.keepSecret(Job{Kind: Run}, Result{State: StepDone, Secret: "x"}); err != nil {
				w.t.Fatal(err)
			}
			due(w, offer(h.req.ID, 0))
			return h.req.ID
		}, 0, "", false},
		"of a request that is gone": {func(w *world) string { due(w, "R-GONE/0"); return "R-GONE" }, 0, "", false},
		"of a request that does not open": {func(w *world) string {
			at := offeredFor(time.Minute)(w)
			w.rdb.HSet(w.t.Context(), w.store.keys.request(at.ID), "body", "k1.AAAA")
			due(w, offer(at.ID, 0))
			return at.ID
		}, 0, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, calm())
			id := tt.prepare(w)
			for i, err := range atOnce(4, func(int) error { return w.store.endOffers(context.Background()) }) {
				if err != nil && !tt.broken {
					t.Errorf("sweep %d: %v", i, err)
				}
			}
			if err := w.store.endOffers(t.Context()); err != nil {
				t.Errorf("once more: %v", err)
			}
			if left := w.secretsLeft(); len(left) > 0 {
				t.Errorf("in Redis there is still %v", left)
			}
			told := 0
			for _, e := range w.events() {
				if e.Kind == audit.Unseen {
					told++
					if e.Request != id || e.Outcome != tt.outcome || e.Actor != (Person{}) || e.Requester != hanna {
						t.Errorf("the event is %+v", e)
					}
				}
			}
			if told != tt.told {
				t.Errorf("told %d times, want %d", told, tt.told)
			}
			if !tt.broken {
				w.invariants()
			}
		})
	}
}

// An offer whose end cannot be told of is in nobody's way; one that was made
// anew is not ended with the old one, and is told of once more.
func TestOffersAreEndedOneByOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	ctx := t.Context()
	first := offeredFor(time.Millisecond)(w)
	if err := w.rdb.Set(ctx, w.store.keys.request("R-ODD"), "no hash", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := w.rdb.ZAdd(ctx, w.store.keys.offers(), redisZ(0, "R-ODD/0")).Err(); err != nil {
		t.Fatal(err)
	}
	if err := w.store.endOffers(ctx); err == nil {
		t.Error("an offer that cannot be read is not complained of")
	}
	if n := w.told(first.ID, audit.Unseen); n != 1 {
		t.Errorf("told %d times", n)
	}
	w.rdb.Del(ctx, w.store.keys.request("R-ODD"))

	stash := func(life time.Duration) {
		t.Helper()
		if err := w.store.stash(ctx, first.Request, 0, Secret{Value: "anew"}, life, true); err != nil {
			t.Fatal(err)
		}
	}
	stash(time.Minute)
	if err := w.store.endOffer(ctx, offer(first.ID, 0), "1"); err != nil { // what a slow sweep found before
		t.Error(err)
	}
	if got, err := w.desk.Reveal(ctx, w.op(), first.ID, hanna); err != nil || got.Value != "anew" {
		t.Errorf("the new offer reveals %q, %v", got.Value, err)
	}
	before := w.told(first.ID, audit.Unseen)
	stash(time.Millisecond)
	waitFor(t, "the second end to be told", func() bool {
		if err := w.store.endOffers(ctx); err != nil {
			t.Error(err)
		}
		return w.told(first.ID, audit.Unseen) == before+1
	})
	w.revealsNothing(first.Request)
}

// A request of an earlier version does not know when it began: its time runs
// from the moment it is taken up.
func TestAnOldRequestIsNotGivenUpAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	snap := w.claimed(deletes(ClassDestroy, dana, "m1"))
	snap.Began = time.Time{}
	fields, err := w.store.body(snap.Request)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.rdb.HSet(t.Context(), w.store.keys.request(snap.ID), fields).Err(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	w.tenant.says(func(job Job) (got Result, says bool) {
		if job.Kind == Run {
			once.Do(func() { got, says = Result{State: StepThrottled, After: time.Millisecond}, true })
		}
		return got, says
	})
	w.die(snap.ID)
	w.run(w.desk, "w")
	if got := w.until(snap.ID); got.Outcome != Succeeded || got.Began.IsZero() {
		t.Errorf("it is %s, began %v, journal %+v", got.Says(), got.Began, got.Journal)
	}
	w.tenant.once(t, "m1")
	w.invariants()
}

// Who asks to wait for longer than a request may run is not waited for, and
// what was done before stays done.
func TestAWaitBeyondTheTimeARequestMayRun(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		unsure  bool
		outcome Outcome
		step    StepState
		says    string
	}{
		"nothing was done":      {false, Partial, StepFailed, "given up and not done"},
		"something may be done": {true, Uncertain, StepUncertain, "what became of this step is not known"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, calm())
			w.tenant.says(func(job Job) (Result, bool) {
				return Result{State: StepThrottled, Unsure: tt.unsure, After: time.Hour, RequestID: "g1"}, job.Kind == Run && job.Step == 1
			})
			w.run(w.desk, "w")
			got := w.until(w.approved(deletes(ClassDestroy, dana, "m1", "m2", "m3")).ID)
			if e := got.Journal[1]; got.Outcome != tt.outcome || e.State != tt.step || e.RequestID != "g1" || !strings.Contains(e.Detail, tt.says) || got.Journal[2].State != StepSkipped {
				t.Errorf("it is %s, journal %+v", got.Says(), got.Journal)
			}
			lint(t, got.Journal[1].Detail)
			if n := w.told(got.ID, audit.Waiting); n != 0 {
				t.Errorf("waited %d times", n)
			}
			w.invariants()
		})
	}
}
