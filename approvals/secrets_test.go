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
func passwords(from SecretFrom) Plan {
	p := deletes(ClassDestroy, dana, "m1")
	p.Command, p.Steps[0].Op, p.Steps[0].Secret = "entra-reset-password", "reset", from
	return p
}

// sets is a tenant that sets passwords; set is what is in force.
func (w *world) sets(set *list[string]) {
	w.tenant.says(func(job Job) (Result, bool) {
		switch {
		case job.Kind == Check:
			return Result{State: StepDone}, true
		case job.Kind == Prepare:
			return Result{State: StepDone, Secret: fmt.Sprintf("made-%d", len(w.tenant.did(Prepare)))}, true
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
	for from, want := range map[SecretFrom]string{SecretPrepared: "made-1", SecretFromAnswer: "answered-1"} {
		t.Run(string(from), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, calm())
			ctx := t.Context()
			var set list[string]
			w.sets(&set)
			w.run(w.desk, "w")
			r := w.until(w.approved(passwords(from)).ID).Request
			if offered, err := w.store.Offered(ctx, r); err != nil || !offered || r.Outcome != Succeeded {
				t.Fatalf("it is %s, offered %v, %v", r.Says(), offered, err)
			}
			for i, who := range []Person{ravi, dana, {Slack: "U0X"}} {
				if _, err := w.desk.Reveal(ctx, fmt.Sprint("peek-", i), r.ID, who); code(err) != CodeNotRequester {
					t.Errorf("%s opens it: %v", who, err)
				}
			}
			w.directory.change(hanna, func(s *Standing) { s.Enabled = false })
			if _, err := w.desk.Reveal(ctx, "blocked", r.ID, hanna); code(err) != CodeDisabled {
				t.Errorf("a blocked requester opens it: %v", err)
			}
			w.directory.change(hanna, func(s *Standing) { s.Enabled = true })
			if _, err := w.desk.Reveal(ctx, "blocked", r.ID, hanna); code(err) != CodeDisabled {
				t.Errorf("the refused press, redelivered: %v", err)
			}
			var secret Secret
			for range 2 { // a view that failed to fill is opened again
				var err error
				if secret, err = w.desk.Reveal(ctx, w.op(), r.ID, hanna); err != nil || secret.Value != want {
					t.Errorf("the secret is %q, %v; want %q", secret.Value, err, want)
				}
			}
			for key, value := range w.server.Dump(t) {
				if strings.Contains(value, want) {
					t.Errorf("%s shows the secret", key)
				}
			}
			if err := w.desk.Shown(ctx, r.ID, secret); err != nil {
				t.Fatal(err)
			}
			if _, err := w.desk.Reveal(ctx, w.op(), r.ID, hanna); code(err) != CodeNothing {
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
	timing := calm()
	timing.SecretLife = 50 * time.Millisecond
	w := newWorld(t, timing)
	var set list[string]
	w.sets(&set)
	for i := range 2 { // both tell of it, and it is told once
		_, desk := w.process(w.server.Client(t))
		w.run(desk, fmt.Sprint("worker-", i))
	}
	r := w.until(w.approved(passwords(SecretPrepared)).ID)
	told := func() int {
		n := 0
		for _, k := range w.kinds(r.ID) {
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
	if _, err := w.desk.Reveal(t.Context(), w.op(), r.ID, hanna); code(err) != CodeNothing {
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
	w := newWorld(t, calm())
	ctx := t.Context()
	var set list[string]
	w.sets(&set)
	late := w.claimed(passwords(SecretPrepared))
	w.die(late.ID)
	w.run(w.desk, "worker-2")
	w.until(late.ID)

	if err := w.store.stash(ctx, late.Request, 0, Secret{Value: "another"}, time.Minute, true); !errors.Is(err, ErrFenced) {
		t.Errorf("a late worker puts its secret there: %v", err)
	}
	if err := w.store.dropSecret(ctx, late.ID, 0, exactly(late.Claim), ""); !errors.Is(err, ErrFenced) {
		t.Errorf("a late worker takes the secret away: %v", err)
	}
	got, err := w.desk.Reveal(ctx, w.op(), late.ID, hanna)
	if err != nil || !slices.Equal(set.all(), []string{got.Value}) {
		t.Errorf("revealed %q, %v; in force %v", got.Value, err, set.all())
	}
}

// A password that was begun with is sent again by whoever reconciles, and is
// the one that is revealed, whichever write was lost.
func TestSecretsSurviveLostWrites(t *testing.T) {
	t.Parallel()
	for _, words := range [][]string{
		{"evalsha", "secret:", ms(preparedLife)},
		{"evalsha", "secret:", ms(calm().SecretLife)}, // offered
		{"evalsha", "run:1:begin:0"},
		{"evalsha", "run:1:end:0"},
	} {
		for _, replies := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%s lost", words[len(words)-1], map[bool]string{false: "request", true: "reply"}[replies]), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, calm())
				w.log = discard
				var set list[string]
				w.sets(&set)
				if err := errors.Join(w.store.commit.Load(t.Context(), w.rdb).Err(), keepScript.Load(t.Context(), w.rdb).Err()); err != nil {
					t.Fatal(err)
				}
				r := w.approved(passwords(SecretPrepared))
				sab := &saboteur{}
				sab.arm(replies, 1, words...)
				_, desk := w.process(sab.client(t, w.server, false))
				first, _ := w.runner(desk, "its line is cut")
				waitFor(t, "the line to be cut", func() bool { return sab.struck() == 1 })
				_, other := w.process(w.server.Client(t))
				second, _ := w.runner(other, "another one")
				if got := w.carried(r.ID, first, second); got.Outcome != Succeeded {
					t.Errorf("it is %s because %q, journal %+v", got.Says(), got.Why, got.Journal)
				}
				got, err := w.desk.Reveal(t.Context(), w.op(), r.ID, hanna)
				all := set.all()
				if err != nil || len(all) == 0 || all[len(all)-1] != got.Value {
					t.Errorf("revealed %q, %v; set one after another %v", got.Value, err, all)
				}
				w.invariants()
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
	timing := calm()
	timing.Remind = 30 * time.Millisecond
	w := newWorld(t, timing)
	ctx := t.Context()
	w.run(w.desk, "w")
	plan := deletes(ClassDestroy, dana, "m1", "by hand")
	plan.Steps[1].ByPeople = true
	delete(plan.Assumes, "by hand")
	r := w.approved(plan)
	waitFor(t, "a reminder", func() bool { return slices.Contains(w.kinds(r.ID), audit.Reminded) })
	got := w.load(r.ID)
	if got.State != HandedOff || got.Journal[0].State != StepDone {
		t.Errorf("it is %s", got.Says())
	}
	// It holds neither its target nor a worker.
	if other := w.until(w.approved(deletes(ClassDestroy, dana, "m2")).ID); other.Outcome != Succeeded {
		t.Errorf("another one for the same target is %s", other.Says())
	}
	if _, err := w.desk.Confirm(ctx, w.op(), r.ID, olga); code(err) != CodeNotRunning {
		t.Errorf("confirming what nobody did: %v", err)
	}
	for i, tt := range []struct {
		who  Person
		want Code
	}{{sam, CodeNotAllowed}, {dana, CodeNotAllowed}, {pat, CodeGuest}, {hanna, ""}, {ravi, CodeTwice}} {
		if _, err := w.desk.Attest(ctx, fmt.Sprint("attest-", i), r.ID, tt.who); code(err) != tt.want {
			t.Errorf("%s says that it is done: %v, want %q", tt.who, err, tt.want)
		}
	}
	if _, err := w.desk.Cancel(ctx, w.op(), r.ID, hanna); code(err) != CodeDecided {
		t.Errorf("cancelling what was done: %v", err)
	}
	for i, tt := range []struct {
		who  Person
		want Code
	}{{hanna, CodeTwice}, {sam, CodeNotAllowed}, {olga, ""}, {ravi, CodeDecided}} {
		if _, err := w.desk.Confirm(ctx, fmt.Sprint("confirm-", i), r.ID, tt.who); code(err) != tt.want {
			t.Errorf("%s confirms: %v, want %q", tt.who, err, tt.want)
		}
	}
	got = w.until(r.ID)
	if got.Outcome != Attested || got.Journal[1].State != StepAttested {
		t.Errorf("it is %s, journal %+v", got.Says(), got.Journal)
	}
	lint(t, got.Journal[1].Detail)
	w.invariants()
}

// Nothing is handed off behind a halt.
func TestNothingIsHandedOffBehindAHalt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	plan := deletes(ClassDestroy, dana, "m1")
	plan.Steps[0].ByPeople = true
	snap := w.claimed(plan)
	if _, err := w.desk.Stop(t.Context(), w.op(), snap.ID, ravi, "wait"); err != nil {
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
	}{"the check": {Check, Failed}, "the step": {Run, Failed}, "the step, in doubt": {"", Uncertain}, "the reconciliation": {Reconcile, Uncertain}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timing := calm()
			timing.RunFor = 100 * time.Millisecond
			w := newWorld(t, timing)
			w.tenant.says(func(job Job) (Result, bool) {
				doubt := tt.kind == "" && (job.Kind == Run || job.Kind == Reconcile)
				return Result{State: StepThrottled, After: 10 * time.Millisecond, Unsure: doubt}, doubt || job.Kind == tt.kind
			})
			snap := w.claimed(deletes(ClassDestroy, dana, "m1"))
			if tt.kind == Reconcile {
				if _, err := w.store.advance(t.Context(), snap.Request, snap.Now, "begin:0", Begin{Step: 0}); err != nil {
					t.Fatal(err)
				}
			}
			w.die(snap.ID)
			w.run(w.desk, "w")
			if got := w.until(snap.ID); got.Outcome != tt.outcome {
				t.Errorf("it is %s because %q", got.Says(), got.Why)
			}
			w.tenant.untouched(t)
			w.invariants()
		})
	}
}
