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

// claimExecution claims a request as a runner does. The test makes the writes that
// follow, so that it can simulate a worker that dies at any point.
func (w *fixture) claimExecution(id string) *execution {
	w.t.Helper()
	runner := &Runner{Service: w.service, Work: w.tenant.Work, Name: "mortal", Log: w.log}
	h, err := runner.claim(w.t.Context(), id, true)
	if err != nil || h == nil {
		w.t.Fatalf("claiming %s: %v, %v", id, h, err)
	}
	h.ctx = w.t.Context()
	return h
}

// startedExecution returns the execution of a plan whose first step is started and
// whose secret is prepared.
func (w *fixture) startedExecution(p Plan) *execution {
	w.t.Helper()
	h := w.claimExecution(w.approved(p).ID)
	if ended, err := h.prepare(0); ended || err != nil {
		w.t.Fatalf("preparing: %v, %v", ended, err)
	}
	if err := h.advance("begin:0", StartStep{Step: 0}); err != nil {
		w.t.Fatal(err)
	}
	return h
}

// finishedWithSecret returns a function that makes a finished request with a secret
// that is offered for the given time.
func finishedWithSecret(life time.Duration) func(w *fixture) Snapshot {
	return func(w *fixture) Snapshot {
		var set list[string]
		w.sets(&set)
		h := w.startedExecution(passwords(SecretPrepared))
		if err := w.store.storeSecret(w.t.Context(), h.req, 0, Secret{Value: "offered"}, life, true); err != nil {
			w.t.Fatal(err)
		}
		for i, a := range []Action{EndStep{Step: 0, Result: Result{State: StepDone}}, Finish{}} {
			if err := h.advance(fmt.Sprint("write-", i), a); err != nil {
				w.t.Fatal(err)
			}
		}
		if life < time.Second {
			waitFor(w.t, "the offer to expire", func() bool { return w.rdb.Exists(w.t.Context(), w.store.keys.secret(offer(h.req.ID, 0))).Val() == 0 })
		}
		return w.load(h.req.ID)
	}
}

// remainingSecrets lists the keys in Redis that still belong to secrets.
func (w *fixture) remainingSecrets() []string {
	var left []string
	for key := range w.server.Dump(w.t) {
		if strings.Contains(key, ":secret:") || strings.HasSuffix(key, ":offers") {
			left = append(left, key)
		}
	}
	slices.Sort(left)
	return left
}

// wantNoSecret fails the test if there is a secret to reveal.
func (w *fixture) wantNoSecret(r Request) {
	w.t.Helper()
	if offered, err := w.store.OfferedSecret(w.t.Context(), r); err != nil || offered {
		w.t.Errorf("it has an offered secret: %v, %v", offered, err)
	}
	if got, err := w.service.Reveal(w.t.Context(), w.op(), r.ID, hanna); code(err) != CodeNoSteps || got.Value != "" {
		w.t.Errorf("it reveals %q, %v", got.Value, err)
	}
	if left := w.remainingSecrets(); len(left) > 0 {
		w.t.Errorf("Redis still has %v", left)
	}
}

// A secret is stored only in encrypted form: it is not in the request, an event, a
// log, an error, a key or a value, although Graph repeats it in an error.
func TestSecretIsNowhereInPlaintext(t *testing.T) {
	t.Parallel()
	for _, from := range []SecretSource{SecretPrepared, SecretFromAnswer} {
		t.Run(string(from), func(t *testing.T) {
			t.Parallel()
			const value = "wolf-Lantern-42-orbit"
			w := newFixture(t, longTimings())
			ctx := t.Context()
			var log list[string]
			w.log = slog.New(slog.NewJSONHandler(writerFunc(func(b []byte) (int, error) { log.add(string(b)); return len(b), nil }), &slog.HandlerOptions{Level: slog.LevelDebug}))
			w.store, w.service = w.newProcess(w.rdb)
			var jobs list[string]
			until := time.Date(2026, 11, 23, 13, 0, 0, 0, time.UTC)
			waits := 0
			w.tenant.setScript(func(job Job) (Result, bool) {
				jobs.add(fmt.Sprintf("%v %+v %#v", job, &job, []Job{job}))
				// The first throttled call is run again, the others are reconciled.
				if (job.Kind == JobRun || job.Kind == JobReconcile) && waits < 3 {
					waits++
					return Result{State: StepThrottled, After: 10 * time.Millisecond, Unsure: waits == 2, Secret: value, Detail: "Too many, says Graph, of " + value + "."}, true
				}
				switch {
				case job.Kind == JobCheck:
					return Result{State: StepDone}, true
				case job.Kind == JobPrepare:
					return Result{State: StepDone, Secret: value}, true
				case job.Step == 0 && from == SecretPrepared && job.Secret != value:
					t.Errorf("the step is run with %q", job.Secret)
				case job.Step == 1: // a second step, which Graph refuses
					return Result{State: StepFailed, Detail: "Graph says that " + value + " is too weak.", Secret: value}, true
				}
				return Result{State: StepDone, Secret: map[SecretSource]string{SecretFromAnswer: value}[from], Until: until, Detail: "Set to " + value + "."}, true
			})
			plan := passwords(from)
			plan.Steps = append(plan.Steps, Step{Op: "reset", Words: "Once more", Secret: from})
			w.startRunner(w.service, "w")
			got := w.waitFinal(w.approved(plan).ID)
			if got.Outcome != OutcomePartial || got.Journal[0].Detail != "Set to [secret]." || got.Journal[1].Detail != "Graph says that [secret] is too weak." {
				t.Errorf("it is %s, journal %+v", got.Summary(), got.Journal)
			}
			if n := w.told(got.ID, audit.Waiting); n != 3 {
				t.Errorf("it waited %d times, want 3", n)
			}
			if _, err := w.service.Reveal(ctx, w.op(), got.ID, ravi); code(err) != CodeNotRequester {
				t.Errorf("an approver reveals it: %v", err)
			}
			search := func(where, text string) {
				t.Helper()
				for word := range strings.FieldsSeq(text) {
					if raw, err := base64.RawStdEncoding.DecodeString(strings.TrimPrefix(word, "k1.")); err == nil {
						text += string(raw)
					}
				}
				if strings.Contains(text, value) {
					t.Errorf("%s contains the secret: %s", where, text)
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
			secret, err := w.service.Reveal(ctx, w.op(), got.ID, hanna)
			if err != nil || secret.Value != value || secret.Step != 0 || from == SecretFromAnswer && !secret.Until.Equal(until) {
				t.Errorf("revealed %q of step %d until %v, %v", secret.Value, secret.Step, secret.Until, err)
			}
			everywhere()
			if left := w.remainingSecrets(); len(left) != 2 {
				t.Errorf("want one secret and the list of offers, got %v", left)
			}
			if err := w.service.Shown(ctx, got.ID, secret); err != nil {
				t.Fatal(err)
			}
			w.wantNoSecret(got.Request)
			everywhere()
			w.checkInvariants()
		})
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// Values that contain a secret can be formatted and logged safely.
func TestSecretTypesAreRedacted(t *testing.T) {
	const value = "Zq7-hunter"
	secret := Secret{Value: value, Step: 1}
	result := Result{State: StepDone, Secret: value, Detail: "Done."}
	job := Job{Kind: JobRun, Secret: value, Request: Request{ID: "R-TEST"}}
	for _, v := range []any{secret, &secret, []Secret{secret}, struct{ S Secret }{secret}, result, &result, []Result{result}, EndStep{Result: result}, map[string]Result{"a": result}, job, &job} {
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
				t.Errorf("%T contains %s in %s", v, bad, out.String())
			}
		}
	}
	if got, want := fmt.Sprintf("%+v", result), "{State:done Detail:Done. RequestID: After:0s Unsure:false Secret:[secret] Until:0001-01-01 00:00:00 +0000 UTC}"; got != want {
		t.Errorf("a result is formatted as %s, want %s", got, want)
	}
}

// If a worker dies after its call, the next worker sends the same password again, and
// no other one.
func TestSamePasswordIsResent(t *testing.T) {
	t.Parallel()
	for name, offered := range map[string]bool{"died after the call": false, "died after the offer": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, longTimings())
			var set list[string]
			w.sets(&set)
			h := w.startedExecution(passwords(SecretPrepared))
			value, err := w.store.secretValue(t.Context(), h.req.ID, 0)
			if err != nil || value != "made-1" {
				t.Fatalf("prepared %q, %v", value, err)
			}
			job := Job{Kind: JobRun, Request: h.req, Step: 0, Secret: value}
			got := h.call(t.Context(), job)
			if offered {
				if _, err := h.keepSecret(job, got); err != nil {
					t.Fatal(err)
				}
			}
			w.wantNoSecretYet(h.req.ID)
			w.expireLease(h.req.ID)
			for i := range 3 {
				_, service := w.newProcess(w.server.Client(t))
				w.startRunner(service, fmt.Sprint("worker-", i))
			}
			if got := w.waitFinal(h.req.ID); got.Outcome != OutcomeSucceeded {
				t.Errorf("it is %s because %q", got.Summary(), got.Why)
			}
			if all := set.all(); !slices.Equal(all, []string{"made-1", "made-1"}) || len(w.tenant.jobsOfKind(JobPrepare)) != 1 || len(w.tenant.jobsOfKind(JobReconcile)) != 1 {
				t.Errorf("set in this order: %v; jobs %v", all, w.tenant.jobsOfKind(""))
			}
			if secret, err := w.service.Reveal(t.Context(), w.op(), h.req.ID, hanna); err != nil || secret.Value != "made-1" {
				t.Errorf("revealed %q, %v", secret.Value, err)
			}
			if n := w.rdb.ZCard(t.Context(), w.store.keys.offers()).Val(); n != 1 || w.told(h.req.ID, audit.Unseen) != 0 {
				t.Errorf("%d offers, %d expiry events", n, w.told(h.req.ID, audit.Unseen))
			}
			w.checkInvariants()
		})
	}
}

// wantNoSecretYet fails the test if a secret can be revealed before its step has ended
// in the journal.
func (w *fixture) wantNoSecretYet(id string) {
	w.t.Helper()
	if got, err := w.service.Reveal(w.t.Context(), w.op(), id, hanna); code(err) != CodeNoSteps || got.Value != "" {
		w.t.Errorf("it reveals %q before the step has ended, %v", got.Value, err)
	}
}

// If the answer with a pass was lost because the worker died, another pass is issued.
// The offered pass is the valid one.
func TestPassWithLostAnswerIsReissued(t *testing.T) {
	t.Parallel()
	for name, offered := range map[string]bool{"died after the call": false, "died after the offer": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, longTimings())
			var set list[string]
			w.sets(&set)
			h := w.startedExecution(passwords(SecretFromAnswer))
			job := Job{Kind: JobRun, Request: h.req, Step: 0}
			got := h.call(t.Context(), job)
			if offered {
				if _, err := h.keepSecret(job, got); err != nil {
					t.Fatal(err)
				}
			}
			w.wantNoSecretYet(h.req.ID)
			w.expireLease(h.req.ID)
			w.startRunner(w.service, "worker-2")
			if got := w.waitFinal(h.req.ID); got.Outcome != OutcomeSucceeded {
				t.Errorf("it is %s because %q", got.Summary(), got.Why)
			}
			if secret, err := w.service.Reveal(t.Context(), w.op(), h.req.ID, hanna); err != nil || secret.Value != "answered-2" || len(set.all()) != 2 {
				t.Errorf("revealed %q, %v; issued %d times", secret.Value, err, len(set.all()))
			}
			if n := w.rdb.ZCard(t.Context(), w.store.keys.offers()).Val(); n != 1 {
				t.Errorf("%d offers", n)
			}
			w.checkInvariants()
		})
	}
}

// If a reconciliation finds that the step was done and the secret is not known,
// the request reports that it is lost. The secret of an earlier attempt is not
// offered instead.
func TestLostSecretIsReported(t *testing.T) {
	t.Parallel()
	for _, from := range []SecretSource{SecretPrepared, SecretFromAnswer} {
		t.Run(string(from), func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, longTimings())
			w.tenant.setScript(func(job Job) (Result, bool) {
				if job.Kind == JobReconcile && job.Secret != "" {
					t.Errorf("reconciled with %q", job.Secret)
				}
				return Result{State: StepDone, Secret: map[JobKind]string{JobPrepare: "made", JobRun: "answered"}[job.Kind]}, true
			})
			h := w.startedExecution(passwords(from))
			switch from {
			case SecretPrepared: // Redis evicted it, or somebody overwrote it
				if err := w.rdb.Set(t.Context(), w.store.keys.secret(offer(h.req.ID, 0)), "k1.AAAA", 0).Err(); err != nil {
					t.Fatal(err)
				}
			case SecretFromAnswer:
				if _, err := h.keepSecret(Job{Kind: JobRun}, Result{State: StepDone, Secret: "answered"}); err != nil {
					t.Fatal(err)
				}
			}
			w.expireLease(h.req.ID)
			w.startRunner(w.service, "worker-2")
			got := w.waitFinal(h.req.ID)
			if got.Outcome != OutcomeSucceeded || got.Journal[0].Detail != "It was carried out, but its secret is lost: request it again." {
				t.Errorf("it is %s, journal %+v", got.Summary(), got.Journal)
			}
			w.wantNoSecret(got.Request)
			w.checkInvariants()
		})
	}
}

// If a prepared password is lost before the call, the call is not made.
func TestPasswordLostBeforeCall(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	var set list[string]
	w.sets(&set)
	h := w.startedExecution(passwords(SecretPrepared))
	if err := w.rdb.Del(t.Context(), w.store.keys.secret(offer(h.req.ID, 0))).Err(); err != nil {
		t.Fatal(err)
	}
	if gaveBack, err := h.runStep(Job{Kind: JobRun, Step: 0}); gaveBack || err != nil {
		t.Fatal(gaveBack, err)
	}
	if h.req.Journal[0].State != StepFailed || len(set.all()) > 0 {
		t.Errorf("journal %+v, set %q", h.req.Journal, set.all())
	}
	lint(t, h.req.Journal[0].Detail)
}

// If it is not certain that a step was executed, its secret may be useless and is
// not revealed.
func TestSecretOfUnsuccessfulStep(t *testing.T) {
	t.Parallel()
	for _, from := range []SecretSource{SecretPrepared, SecretFromAnswer} {
		for _, state := range []StepState{StepFailed, StepUncertain, StepAlready, ""} {
			for _, kind := range []JobKind{JobRun, JobReconcile} {
				t.Run(fmt.Sprintf("%s/%s/%s", from, state, kind), func(t *testing.T) {
					t.Parallel()
					w := newFixture(t, longTimings())
					w.log = discard
					w.tenant.setScript(func(job Job) (Result, bool) {
						if job.Kind == JobCheck || job.Kind == JobPrepare {
							return Result{State: StepDone, Secret: "made"}, true
						}
						return Result{State: state, Secret: "answered"}, true
					})
					h := w.startedExecution(passwords(from))
					if kind == JobReconcile { // after a worker that had offered it already
						if _, err := h.keepSecret(Job{Kind: JobRun, Secret: "made"}, Result{State: StepDone}); err != nil {
							t.Fatal(err)
						}
						w.expireLease(h.req.ID)
						w.startRunner(w.service, "worker-2")
					} else if _, err := h.runStep(Job{Kind: JobRun, Step: 0}); err != nil {
						t.Fatal(err)
					} else if err := h.finish(""); err != nil {
						t.Fatal(err)
					}
					w.wantNoSecret(w.waitFinal(h.req.ID).Request)
					w.checkInvariants()
				})
			}
		}
	}
}

// A secret that was prepared for a step that never started is deleted.
func TestHaltBetweenPreparationAndCall(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	w.tenant.setScript(func(job Job) (Result, bool) {
		if job.Kind == JobPrepare {
			if _, err := w.service.Stop(context.Background(), "stop", job.Request.ID, olga, "wait"); err != nil {
				t.Errorf("halting: %v", err)
			}
			return Result{State: StepDone, Secret: "made"}, true
		}
		return Result{State: StepDone}, true
	})
	w.startRunner(w.service, "w")
	got := w.waitFinal(w.approved(passwords(SecretPrepared)).ID)
	if got.Outcome != OutcomeFailed || !strings.HasPrefix(got.Why, "Halted by Olga") || len(w.tenant.jobsOfKind(JobRun)) > 0 {
		t.Errorf("it is %s because %q, jobs %v", got.Summary(), got.Why, w.tenant.jobsOfKind(""))
	}
	w.wantNoSecret(got.Request)
	w.checkInvariants()
}

// A secret that cannot be prepared ends the request before anything is done.
func TestSecretCannotBePrepared(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func() Result{
		"failed": func() Result { return Result{State: StepFailed, Detail: "No randomness."} },
		"empty":  func() Result { return Result{State: StepDone} },
		"panic":  func() Result { panic("a nil map") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, longTimings())
			w.log = discard
			w.tenant.setScript(func(job Job) (Result, bool) {
				if job.Kind == JobPrepare {
					return prepare(), true
				}
				return Result{State: StepDone}, true
			})
			w.startRunner(w.service, "w")
			got := w.waitFinal(w.approved(passwords(SecretPrepared)).ID)
			if got.Outcome != OutcomeFailed || got.StartedStep() || len(w.tenant.jobsOfKind(JobPrepare)) != 1 || len(w.tenant.jobsOfKind(JobRun)) > 0 {
				t.Errorf("it is %s, jobs %v", got.Summary(), w.tenant.jobsOfKind(""))
			}
			lint(t, got.Why)
			w.wantNoSecret(got.Request)
			w.checkInvariants()
		})
	}
}

// A step that Graph throttles is prepared again, and the secret that is revealed is
// the one that was set in the end.
func TestThrottledBetweenPreparationAndSuccess(t *testing.T) {
	t.Parallel()
	for _, from := range []SecretSource{SecretPrepared, SecretFromAnswer} {
		t.Run(string(from), func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, longTimings())
			var mu sync.Mutex
			calls, sent := 0, ""
			w.tenant.setScript(func(job Job) (Result, bool) {
				mu.Lock()
				defer mu.Unlock()
				switch job.Kind {
				case JobPrepare:
					return Result{State: StepDone, Secret: fmt.Sprint("made-", len(w.tenant.jobsOfKind(JobPrepare)))}, true
				case JobRun:
					if calls++; calls < 3 {
						return Result{State: StepThrottled, After: 10 * time.Millisecond, Secret: "unused"}, true
					}
					if sent = job.Secret; from == SecretFromAnswer {
						sent = "answered"
					}
					return Result{State: StepDone, Secret: map[SecretSource]string{SecretFromAnswer: sent}[from]}, true
				}
				return Result{State: StepDone}, true
			})
			w.startRunner(w.service, "w")
			got := w.waitFinal(w.approved(passwords(from)).ID)
			secret, err := w.service.Reveal(t.Context(), w.op(), got.ID, hanna)
			mu.Lock()
			defer mu.Unlock()
			if got.Outcome != OutcomeSucceeded || err != nil || secret.Value != sent || sent == "" {
				t.Errorf("it is %s, revealed %q, %v, want %q", got.Summary(), secret.Value, err, sent)
			}
			if n := w.rdb.ZCard(t.Context(), w.store.keys.offers()).Val(); n != 1 {
				t.Errorf("%d offers", n)
			}
			w.checkInvariants()
		})
	}
}

// Redis fails while a secret is offered, briefly or as long as the worker lives. In
// the end the valid secret can be revealed, or the request reports that it is lost.
func TestKeepingASecretWithLostReplies(t *testing.T) {
	t.Parallel()
	for _, from := range []SecretSource{SecretPrepared, SecretFromAnswer} {
		for _, times := range []int{1, 2, 1000} {
			for _, replies := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%d times/%s lost", from, times, map[bool]string{false: "request", true: "reply"}[replies]), func(t *testing.T) {
					t.Parallel()
					timing := longTimings()
					forGood := times == 1000
					if forGood { // so that this worker gives up soon
						timing.Lease, timing.GraphCall, timing.GraphGrace = 500*time.Millisecond, 0, 0
					}
					w := newFixture(t, timing)
					w.log = discard
					var set list[string]
					w.sets(&set)
					if err := errors.Join(w.store.commit.Load(t.Context(), w.rdb).Err(), keepScript.Load(t.Context(), w.rdb).Err()); err != nil {
						t.Fatal(err)
					}
					r := w.approved(passwords(from))
					sab := &saboteur{}
					sab.arm(replies, times, "evalsha", "secret:"+offer(r.ID, 0), formatMillis(w.timing.SecretLife))
					_, service := w.newProcess(sab.client(t, w.server, false))
					service.Log = discard
					first, stop := w.startedRunner(service, "disconnected")
					waitFor(t, "the connection to be cut", func() bool { return sab.struck() >= min(times, 2) })
					if forGood { // before another worker takes over, or it would be slow instead of dead
						stop()
						w.timing = longTimings()
					}
					_, other := w.newProcess(w.server.Client(t))
					second, _ := w.startedRunner(other, "another worker")
					got := w.waitExecuted(r.ID, first, second)
					secret, err := w.service.Reveal(t.Context(), w.op(), r.ID, hanna)
					all := set.all()
					inForce := all[len(all)-1]
					if from == SecretFromAnswer {
						inForce = fmt.Sprint("answered-", len(all))
					}
					lost := strings.Contains(got.Journal[0].Detail, "its secret is lost")
					if got.Outcome != OutcomeSucceeded || lost == (err == nil) || err == nil && secret.Value != inForce {
						t.Errorf("it is %s, lost %v, revealed %q, %v; valid %q, set %v", got.Summary(), lost, secret.Value, err, inForce, all)
					}
					if from == SecretPrepared && len(slices.Compact(all)) != 1 {
						t.Errorf("several passwords were sent: %v", all)
					}
					if lost { // its worker could have retried
						t.Errorf("it was reported as lost, set %v", all)
					}
					w.checkInvariants()
				})
			}
		}
	}
}

// Dropping a secret is attacked as well: the next attempt after a failure succeeds,
// and dropping it twice has the same effect as once.
func TestDroppingASecretWithLostReplies(t *testing.T) {
	t.Parallel()
	for _, replies := range []bool{false, true} {
		w := newFixture(t, longTimings())
		ctx := t.Context()
		if err := dropScript.Load(ctx, w.rdb).Err(); err != nil {
			t.Fatal(err)
		}
		at := finishedWithSecret(time.Minute)(w)
		sab := &saboteur{}
		_, service := w.newProcess(sab.client(t, w.server, false))
		sab.arm(replies, 1, "evalsha", offer(at.ID, 0))
		secret, err := w.service.Reveal(ctx, w.op(), at.ID, hanna)
		if err != nil {
			t.Fatal(err)
		}
		if err := service.Shown(ctx, at.ID, secret); err == nil {
			t.Error("dropping the secret was confirmed, but Redis did not confirm it")
		}
		if err := service.Shown(ctx, at.ID, secret); err != nil {
			t.Errorf("second attempt: %v", err)
		}
		w.wantNoSecret(at.Request)
	}
}

func TestRevealingIsRefused(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	at := finishedWithSecret(time.Minute)(w)
	refused := func(op string, who Person, want Code) {
		t.Helper()
		got, err := w.service.Reveal(ctx, op, at.ID, who)
		if code(err) != want || got.Value != "" {
			t.Errorf("%s by %s reveals %q, %v; want %q", op, who, got.Value, err, want)
			return
		}
		all := w.events()
		if e := all[len(all)-1]; e.Kind != audit.Refused || e.Actor != who || e.Reason != err.Error() || e.Outcome != "open the secret" || e.Request != at.ID || e.Version != at.Version {
			t.Errorf("%s by %s recorded the event %+v", op, who, e)
		}
		if _, twice := w.service.Reveal(ctx, op, at.ID, who); twice == nil || twice.Error() != err.Error() || len(w.events()) != len(all) {
			t.Errorf("%s by %s, redelivered: %v", op, who, twice)
		}
		lint(t, err.Error())
	}
	for i, who := range []Person{ravi, olga, dana, gloria, {Slack: hanna.Slack}} {
		refused(fmt.Sprint("peek-", i), who, CodeNotRequester)
	}
	// Its requester, whose account may be taken over by now, or who changed jobs.
	if err := w.rdb.Set(ctx, w.store.keys.mark(hanna.ID), "R-X", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	refused("target", hanna, CodeRecentTarget)
	w.rdb.Del(ctx, w.store.keys.mark(hanna.ID))
	w.directory.change(hanna, func(s *Account) { s.Groups = nil })
	refused("left", hanna, CodeNotAllowed)
	w.directory.change(hanna, func(s *Account) { s.Groups = []string{helpDesk} })

	for range 2 {
		if _, err := w.service.Reveal(ctx, "nothing", "R-NOTHING", hanna); code(err) != CodeNoRequest {
			t.Errorf("for a request that does not exist: %v", err)
		}
	}
	if n := len(w.eventKinds("")); n != len(w.eventKinds(at.ID))+1 {
		t.Errorf("%d other events, want one for the request that does not exist", n-len(w.eventKinds(at.ID)))
	}
	plain := w.waitFinal(w.approvedAndRun(deletionPlan(ClassDestroy, sam, "m2")).ID)
	if _, err := w.service.Reveal(ctx, w.op(), plain.ID, hanna); code(err) != CodeNoSteps {
		t.Errorf("for a request without a secret: %v", err)
	}

	secret, err := w.service.Reveal(ctx, "press", at.ID, hanna)
	if err != nil || secret.Value != "offered" {
		t.Fatalf("its requester reveals %q, %v", secret.Value, err)
	}
	if again, err := w.service.Reveal(ctx, "press", at.ID, hanna); err != nil || again != secret || w.told(at.ID, audit.Revealed) != 1 {
		t.Errorf("the same action reveals %q, %v, recorded %d times", again.Value, err, w.told(at.ID, audit.Revealed))
	}
	if err := w.service.Shown(ctx, at.ID, secret); err != nil {
		t.Fatal(err)
	}
	// The answer to a repeated action is a refusal if the secret is gone by now.
	if again, err := w.service.Reveal(ctx, "press", at.ID, hanna); code(err) != CodeNoSteps || again.Value != "" {
		t.Errorf("the same action, after the secret was shown, reveals %q, %v", again.Value, err)
	}
	w.checkInvariants()
}

// approvedAndRun returns a request that a runner has executed.
func (w *fixture) approvedAndRun(p Plan) Request {
	w.t.Helper()
	w.tenant.setScript(nil)
	r := w.approved(p)
	stop := w.startRunner(w.service, "w")
	w.waitFinal(r.ID)
	stop()
	return r
}

// A request for self makes its requester a recent target. That does not stop them
// from revealing its secret.
func TestRevealingSecretOfRequestForSelf(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	letAskForSelf(w.service)
	var set list[string]
	w.sets(&set)
	w.startRunner(w.service, "w")
	plan := passwords(SecretPrepared)
	plan.Target = hanna
	r := w.waitFinal(w.approved(plan).ID)
	if secret, err := w.service.Reveal(t.Context(), w.op(), r.ID, hanna); err != nil || secret.Value != "made-1" {
		t.Errorf("it is %s, revealed %q, %v", r.Summary(), secret.Value, err)
	}
}

// A plan may have several secrets: they are revealed one after another.
func TestSeveralSecrets(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	var set list[string]
	w.sets(&set)
	w.startRunner(w.service, "w")
	plan := passwords(SecretPrepared)
	plan.Steps = append(plan.Steps, Step{Op: "pass", Words: "Issue a pass", Secret: SecretFromAnswer})
	r := w.waitFinal(w.approved(plan).ID)
	for step, want := range []string{"made-1", "answered-2"} {
		for range 2 {
			secret, err := w.service.Reveal(t.Context(), w.op(), r.ID, hanna)
			if err != nil || secret.Value != want || secret.Step != step {
				t.Errorf("revealed %q of step %d, %v; want %q", secret.Value, secret.Step, err, want)
			}
		}
		if err := w.service.Shown(t.Context(), r.ID, Secret{Step: step}); err != nil {
			t.Fatal(err)
		}
	}
	w.wantNoSecret(r.Request)
}

// The event that the expiry of an offer records, and when there is none.
func TestSecretOfferExpires(t *testing.T) {
	t.Parallel()
	due := func(w *fixture, name string) {
		if err := w.rdb.ZAdd(w.t.Context(), w.store.keys.offers(), redisZ(1, name)).Err(); err != nil {
			w.t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		prepare func(w *fixture) string // the request
		told    int
		outcome string
		broken  bool
	}{
		"never opened": {func(w *fixture) string { return finishedWithSecret(time.Millisecond)(w).ID }, 1, "", false},
		"revealed, and not confirmed as shown": {func(w *fixture) string {
			at := finishedWithSecret(time.Minute)(w)
			if _, err := w.service.Reveal(w.t.Context(), w.op(), at.ID, hanna); err != nil {
				w.t.Fatal(err)
			}
			due(w, offer(at.ID, 0))
			return at.ID
		}, 1, "opened", false},
		"only an approver tried": {func(w *fixture) string {
			at := finishedWithSecret(time.Minute)(w)
			if _, err := w.service.Reveal(w.t.Context(), w.op(), at.ID, ravi); err == nil {
				w.t.Fatal("an approver revealed it")
			}
			due(w, offer(at.ID, 0))
			return at.ID
		}, 1, "", false},
		"the step must still be reconciled": {func(w *fixture) string {
			var set list[string]
			w.sets(&set)
			h := w.startedExecution(passwords(SecretFromAnswer))
			if _, err := h.keepSecret(Job{Kind: JobRun}, Result{State: StepDone, Secret: "x"}); err != nil {
				w.t.Fatal(err)
			}
			due(w, offer(h.req.ID, 0))
			return h.req.ID
		}, 0, "", false},
		"the request is deleted": {func(w *fixture) string { due(w, "R-GONE/0"); return "R-GONE" }, 0, "", false},
		"the request cannot be decrypted": {func(w *fixture) string {
			at := finishedWithSecret(time.Minute)(w)
			w.rdb.HSet(w.t.Context(), w.store.keys.request(at.ID), "body", "k1.AAAA")
			due(w, offer(at.ID, 0))
			return at.ID
		}, 0, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, longTimings())
			id := tt.prepare(w)
			for i, err := range atOnce(4, func(int) error { return w.store.expireSecrets(context.Background()) }) {
				if err != nil && !tt.broken {
					t.Errorf("sweep %d: %v", i, err)
				}
			}
			if err := w.store.expireSecrets(t.Context()); err != nil {
				t.Errorf("another sweep: %v", err)
			}
			if left := w.remainingSecrets(); len(left) > 0 {
				t.Errorf("Redis still has %v", left)
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
				t.Errorf("%d expiry events, want %d", told, tt.told)
			}
			if !tt.broken {
				w.checkInvariants()
			}
		})
	}
}

// An offer whose expiry cannot be recorded does not block the others. An offer that
// replaced another one does not expire with the old one, and its own expiry is
// recorded too.
func TestOffersExpireIndependently(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	first := finishedWithSecret(time.Millisecond)(w)
	if err := w.rdb.Set(ctx, w.store.keys.request("R-ODD"), "no hash", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := w.rdb.ZAdd(ctx, w.store.keys.offers(), redisZ(0, "R-ODD/0")).Err(); err != nil {
		t.Fatal(err)
	}
	if err := w.store.expireSecrets(ctx); err == nil {
		t.Error("an offer that cannot be read causes no error")
	}
	if n := w.told(first.ID, audit.Unseen); n != 1 {
		t.Errorf("%d expiry events", n)
	}
	w.rdb.Del(ctx, w.store.keys.request("R-ODD"))

	stash := func(life time.Duration) {
		t.Helper()
		if err := w.store.storeSecret(ctx, first.Request, 0, Secret{Value: "replaced"}, life, true); err != nil {
			t.Fatal(err)
		}
	}
	stash(time.Minute)
	if err := w.store.expireSecret(ctx, offer(first.ID, 0), "1"); err != nil { // what a slow sweep had read before
		t.Error(err)
	}
	if got, err := w.service.Reveal(ctx, w.op(), first.ID, hanna); err != nil || got.Value != "replaced" {
		t.Errorf("the new offer reveals %q, %v", got.Value, err)
	}
	before := w.told(first.ID, audit.Unseen)
	stash(time.Millisecond)
	waitFor(t, "the second expiry to be recorded", func() bool {
		if err := w.store.expireSecrets(ctx); err != nil {
			t.Error(err)
		}
		return w.told(first.ID, audit.Unseen) == before+1
	})
	w.wantNoSecret(first.Request)
}

// A request of an earlier version of Countersign has no start time: its run limit
// counts from the next claim.
func TestOldRequestIsNotGivenUpImmediately(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	snap := w.claimed(deletionPlan(ClassDestroy, dana, "m1"))
	snap.StartedAt = time.Time{}
	fields, err := w.store.sealBody(snap.Request)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.rdb.HSet(t.Context(), w.store.keys.request(snap.ID), fields).Err(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	w.tenant.setScript(func(job Job) (got Result, says bool) {
		if job.Kind == JobRun {
			once.Do(func() { got, says = Result{State: StepThrottled, After: time.Millisecond}, true })
		}
		return got, says
	})
	w.expireLease(snap.ID)
	w.startRunner(w.service, "w")
	if got := w.waitFinal(snap.ID); got.Outcome != OutcomeSucceeded || got.StartedAt.IsZero() {
		t.Errorf("it is %s, started %v, journal %+v", got.Summary(), got.StartedAt, got.Journal)
	}
	w.tenant.wantDeletedOnce(t, "m1")
	w.checkInvariants()
}

// If Graph asks to wait for longer than a request may run, the runner does not wait.
// What was done before stays done.
func TestWaitBeyondRunLimit(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		unsure  bool
		outcome Outcome
		step    StepState
		says    string
	}{
		"nothing was done":      {false, OutcomePartial, StepFailed, "given up and not done"},
		"something may be done": {true, OutcomeUncertain, StepUncertain, "what became of this step is not known"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, longTimings())
			w.tenant.setScript(func(job Job) (Result, bool) {
				return Result{State: StepThrottled, Unsure: tt.unsure, After: time.Hour, RequestID: "g1"}, job.Kind == JobRun && job.Step == 1
			})
			w.startRunner(w.service, "w")
			got := w.waitFinal(w.approved(deletionPlan(ClassDestroy, dana, "m1", "m2", "m3")).ID)
			if e := got.Journal[1]; got.Outcome != tt.outcome || e.State != tt.step || e.RequestID != "g1" || !strings.Contains(e.Detail, tt.says) || got.Journal[2].State != StepSkipped {
				t.Errorf("it is %s, journal %+v", got.Summary(), got.Journal)
			}
			lint(t, got.Journal[1].Detail)
			if n := w.told(got.ID, audit.Waiting); n != 0 {
				t.Errorf("it waited %d times", n)
			}
			w.checkInvariants()
		})
	}
}
