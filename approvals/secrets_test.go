package approvals

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"countersign/audit"
)

// passwords is a plan whose only step sets a temporary password.
func passwords(from SecretSource) Plan {
	p := deletionPlan(ClassDestroy, dana, "m1")
	p.Command, p.Steps[0].Op, p.Steps[0].Secret = "entra-reset-password", "reset", from
	return p
}

// sets is a tenant that sets passwords; set is what is in force.
func (w *fixture) sets(set *list[string]) {
	w.tenant.setScript(func(job Job) (Result, bool) {
		switch {
		case job.Kind == JobCheck:
			return Result{State: StepDone}, true
		case job.Kind == JobPrepare:
			return Result{State: StepDone, Secret: fmt.Sprintf("made-%d", len(w.tenant.jobsOfKind(JobPrepare)))}, true
		case job.Request.Plan.Steps[job.Step].Secret == SecretPrepared:
			set.add(job.Secret)
			return Result{State: StepDone}, true
		}
		n := set.add("")
		return Result{State: StepDone, Secret: fmt.Sprintf("answered-%d", n)}, true
	})
}

func TestASecretIsRevealedToItsRequesterAlone(t *testing.T) {
	t.Parallel()
	for from, want := range map[SecretSource]string{SecretPrepared: "made-1", SecretFromAnswer: "answered-1"} {
		t.Run(string(from), func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, longTimings())
			ctx := t.Context()
			var set list[string]
			w.sets(&set)
			w.startRunner(w.service, "w")
			r := w.waitFinal(w.approved(passwords(from)).ID).Request
			if offered, err := w.store.OfferedSecret(ctx, r); err != nil || !offered || r.Outcome != OutcomeSucceeded {
				t.Fatalf("it is %s, offered %v, %v", r.Summary(), offered, err)
			}
			for i, who := range []Person{ravi, dana, {Slack: "U0X"}} {
				if _, err := w.service.Reveal(ctx, fmt.Sprint("peek-", i), r.ID, who); code(err) != CodeNotRequester {
					t.Errorf("%s opens it: %v", who, err)
				}
			}
			w.directory.change(hanna, func(s *Account) { s.Enabled = false })
			if _, err := w.service.Reveal(ctx, "blocked", r.ID, hanna); code(err) != CodeDisabled {
				t.Errorf("a blocked requester opens it: %v", err)
			}
			w.directory.change(hanna, func(s *Account) { s.Enabled = true })
			if _, err := w.service.Reveal(ctx, "blocked", r.ID, hanna); code(err) != CodeDisabled {
				t.Errorf("the refused press, redelivered: %v", err)
			}
			var secret Secret
			for range 2 { // a view that failed to fill is opened again
				var err error
				if secret, err = w.service.Reveal(ctx, w.op(), r.ID, hanna); err != nil || secret.Value != want {
					t.Errorf("the secret is %q, %v; want %q", secret.Value, err, want)
				}
			}
			for key, value := range w.server.Dump(t) {
				if strings.Contains(value, want) {
					t.Errorf("%s shows the secret", key)
				}
			}
			if err := w.service.Shown(ctx, r.ID, secret); err != nil {
				t.Fatal(err)
			}
			if _, err := w.service.Reveal(ctx, w.op(), r.ID, hanna); code(err) != CodeNoSteps {
				t.Errorf("what was shown is opened again: %v", err)
			}
			revealed := 0
			for _, e := range w.events() {
				if e.Kind == audit.Revealed {
					revealed++
				}
				if raw, _ := json.Marshal(e); bytes.Contains(raw, []byte(want)) {
					t.Errorf("an event shows the secret: %s", raw)
				}
			}
			if revealed != 2 {
				t.Errorf("%d events say that it was opened, want 2", revealed)
			}
		})
	}
}

func TestASecretNobodyOpensEnds(t *testing.T) {
	t.Parallel()
	timing := longTimings()
	timing.SecretLife = 50 * time.Millisecond
	w := newFixture(t, timing)
	var set list[string]
	w.sets(&set)
	for i := range 2 { // both tell of it, and it is told once
		_, service := w.newProcess(w.server.Client(t))
		w.startRunner(service, fmt.Sprint("worker-", i))
	}
	r := w.waitFinal(w.approved(passwords(SecretPrepared)).ID)
	told := func() int {
		n := 0
		for _, k := range w.eventKinds(r.ID) {
			if k == audit.Unseen {
				n++
			}
		}
		return n
	}
	waitFor(t, "people to be told", func() bool { return told() == 1 })
	waitFor(t, "it to be gone", func() bool {
		for key := range w.server.Dump(t) {
			if strings.Contains(key, ":secret:") || strings.HasSuffix(key, ":offers") {
				return false
			}
		}
		return true
	})
	if _, err := w.service.Reveal(t.Context(), w.op(), r.ID, hanna); code(err) != CodeNoSteps {
		t.Errorf("it is opened too late: %v", err)
	}
	if n := told(); n != 1 {
		t.Errorf("told %d times", n)
	}
}

// The claim is the fence for secrets too: a late worker neither puts another
// password in the place of the one that was set, nor takes that one away.
func TestALateWorkerLeavesSecretsAlone(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	var set list[string]
	w.sets(&set)
	late := w.claimed(passwords(SecretPrepared))
	w.expireLease(late.ID)
	w.startRunner(w.service, "worker-2")
	w.waitFinal(late.ID)

	if err := w.store.storeSecret(ctx, late.Request, 0, Secret{Value: "another"}, time.Minute, true); !errors.Is(err, ErrFenced) {
		t.Errorf("a late worker puts its secret there: %v", err)
	}
	if err := w.store.dropSecret(ctx, late.ID, 0, formatInt(late.Claim), ""); !errors.Is(err, ErrFenced) {
		t.Errorf("a late worker takes the secret away: %v", err)
	}
	got, err := w.service.Reveal(ctx, w.op(), late.ID, hanna)
	if err != nil || !slices.Equal(set.all(), []string{got.Value}) {
		t.Errorf("revealed %q, %v; in force %v", got.Value, err, set.all())
	}
}

// A password that was sent once is sent again by whoever reconciles, and is
// the one that is revealed, whichever write was lost.
func TestSecretsSurviveLostWrites(t *testing.T) {
	t.Parallel()
	for _, words := range [][]string{
		{"evalsha", "secret:", formatMillis(preparedLife)},
		{"evalsha", "secret:", formatMillis(longTimings().SecretLife)}, // offered
		{"evalsha", "run:1:begin:0"},
		{"evalsha", "run:1:end:0"},
	} {
		for _, replies := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%s lost", words[len(words)-1], map[bool]string{false: "request", true: "reply"}[replies]), func(t *testing.T) {
				t.Parallel()
				w := newFixture(t, longTimings())
				w.log = discard
				var set list[string]
				w.sets(&set)
				if err := errors.Join(w.store.commit.Load(t.Context(), w.rdb).Err(), keepScript.Load(t.Context(), w.rdb).Err()); err != nil {
					t.Fatal(err)
				}
				r := w.approved(passwords(SecretPrepared))
				sab := &saboteur{}
				sab.arm(replies, 1, words...)
				_, service := w.newProcess(sab.client(t, w.server, false))
				first, _ := w.startedRunner(service, "its line is cut")
				waitFor(t, "the line to be cut", func() bool { return sab.struck() == 1 })
				_, other := w.newProcess(w.server.Client(t))
				second, _ := w.startedRunner(other, "another one")
				if got := w.waitExecuted(r.ID, first, second); got.Outcome != OutcomeSucceeded {
					t.Errorf("it is %s because %q, journal %+v", got.Summary(), got.Why, got.Journal)
				}
				got, err := w.service.Reveal(t.Context(), w.op(), r.ID, hanna)
				all := set.all()
				if err != nil || len(all) == 0 || all[len(all)-1] != got.Value {
					t.Errorf("revealed %q, %v; set one after another %v", got.Value, err, all)
				}
				w.checkInvariants()
			})
		}
	}
}

// Secrets are not logged, whichever way somebody tries.
func TestASecretIsNotLogged(t *testing.T) {
	secret := Secret{Value: "Zq7-hunter"}
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "secret", secret)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "secret", secret)
	fmt.Fprintf(&out, "%v %+v %#v %s %q", secret, secret, secret, secret, secret)
	if strings.Contains(out.String(), "hunter") {
		t.Errorf("it is in %s", out.String())
	}
}

// What Graph cannot do is handed to people: one does it, another confirms it.
func TestAHandOff(t *testing.T) {
	t.Parallel()
	timing := longTimings()
	timing.Remind = 30 * time.Millisecond
	w := newFixture(t, timing)
	ctx := t.Context()
	w.startRunner(w.service, "w")
	plan := deletionPlan(ClassDestroy, dana, "m1", "by hand")
	plan.Steps[1].ByPeople = true
	delete(plan.Assumes, "by hand")
	r := w.approved(plan)
	waitFor(t, "a reminder", func() bool { return slices.Contains(w.eventKinds(r.ID), audit.Reminded) })
	got := w.load(r.ID)
	if got.State != StateHandedOff || got.Journal[0].State != StepDone {
		t.Errorf("it is %s", got.Summary())
	}
	// It holds neither its target nor a worker.
	if other := w.waitFinal(w.approved(deletionPlan(ClassDestroy, dana, "m2")).ID); other.Outcome != OutcomeSucceeded {
		t.Errorf("another one for the same target is %s", other.Summary())
	}
	if _, err := w.service.Confirm(ctx, w.op(), r.ID, olga); code(err) != CodeNotRunning {
		t.Errorf("confirming what nobody did: %v", err)
	}
	for i, tt := range []struct {
		who  Person
		want Code
	}{{sam, CodeNotAllowed}, {dana, CodeNotAllowed}, {pat, CodeGuest}, {hanna, ""}, {ravi, CodeAlreadyDecided}} {
		if _, err := w.service.Attest(ctx, fmt.Sprint("attest-", i), r.ID, tt.who); code(err) != tt.want {
			t.Errorf("%s says that it is done: %v, want %q", tt.who, err, tt.want)
		}
	}
	if _, err := w.service.Cancel(ctx, w.op(), r.ID, hanna); code(err) != CodeDecided {
		t.Errorf("cancelling what was done: %v", err)
	}
	for i, tt := range []struct {
		who  Person
		want Code
	}{{hanna, CodeAlreadyDecided}, {sam, CodeNotAllowed}, {olga, ""}, {ravi, CodeDecided}} {
		if _, err := w.service.Confirm(ctx, fmt.Sprint("confirm-", i), r.ID, tt.who); code(err) != tt.want {
			t.Errorf("%s confirms: %v, want %q", tt.who, err, tt.want)
		}
	}
	got = w.waitFinal(r.ID)
	if got.Outcome != OutcomeAttested || got.Journal[1].State != StepAttested {
		t.Errorf("it is %s, journal %+v", got.Summary(), got.Journal)
	}
	lint(t, got.Journal[1].Detail)
	w.checkInvariants()
}

// Nothing is handed off behind a halt.
func TestNothingIsHandedOffBehindAHalt(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	plan := deletionPlan(ClassDestroy, dana, "m1")
	plan.Steps[0].ByPeople = true
	snap := w.claimed(plan)
	if _, err := w.service.Stop(t.Context(), w.op(), snap.ID, ravi, "wait"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.advance(t.Context(), snap.Request, snap.Now, "hand-off:0", HandOff{Step: 0}); !errors.Is(err, errHalted) {
		t.Errorf("it is handed off: %v", err)
	}
}

// A request that Graph keeps throttling is given up in the end, wherever it
// stands.
func TestEndlessThrottlingIsGivenUp(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		kind    JobKind
		outcome Outcome
	}{"the check": {JobCheck, OutcomeFailed}, "the step": {JobRun, OutcomeFailed}, "the step, in doubt": {"", OutcomeUncertain}, "the reconciliation": {JobReconcile, OutcomeUncertain}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timing := longTimings()
			timing.RunFor = 100 * time.Millisecond
			w := newFixture(t, timing)
			w.tenant.setScript(func(job Job) (Result, bool) {
				doubt := tt.kind == "" && (job.Kind == JobRun || job.Kind == JobReconcile)
				return Result{State: StepThrottled, After: 10 * time.Millisecond, Unsure: doubt}, doubt || job.Kind == tt.kind
			})
			snap := w.claimed(deletionPlan(ClassDestroy, dana, "m1"))
			if tt.kind == JobReconcile {
				if _, err := w.store.advance(t.Context(), snap.Request, snap.Now, "begin:0", StartStep{Step: 0}); err != nil {
					t.Fatal(err)
				}
			}
			w.expireLease(snap.ID)
			w.startRunner(w.service, "w")
			if got := w.waitFinal(snap.ID); got.Outcome != tt.outcome {
				t.Errorf("it is %s because %q", got.Summary(), got.Why)
			}
			w.tenant.wantUntouched(t)
			w.checkInvariants()
		})
	}
}
