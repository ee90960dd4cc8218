package approvals

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign/audit"
	"countersign/internal/redistest"
)

func TestAnApprovedRequestIsCarriedOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	w.run(w.desk, "worker-1")
	r := w.approved(deletes(ClassDestroy, dana, "m1", "m2"))
	got := w.until(r.ID)
	if got.Outcome != Succeeded || got.Why != "" || got.Claim != 1 || got.Worker != "worker-1" {
		t.Errorf("it is %s, why %q, claim %d, worker %q", got.Says(), got.Why, got.Claim, got.Worker)
	}
	for i, e := range got.Journal {
		if e.State != StepDone || e.Started.IsZero() || e.Ended.Before(e.Started) || e.RequestID == "" {
			t.Errorf("step %d is journalled as %+v", i+1, e)
		}
	}
	w.tenant.once(t, "m1", "m2")
	want := []audit.Kind{audit.Requested, audit.Approved, audit.Started, audit.Stepped, audit.Stepped, audit.Finished}
	if kinds := w.kinds(r.ID); !slices.Equal(kinds, want) {
		t.Errorf("events %v, want %v", kinds, want)
	}
	if jobs := w.tenant.did(""); len(jobs) != 3 || !strings.HasPrefix(jobs[0], "check") {
		t.Errorf("jobs %v", jobs)
	}
	recent, err := w.store.RecentTarget(t.Context(), dana.ID, "")
	if err != nil || !recent {
		t.Errorf("its target is a recent one: %v, %v", recent, err)
	}
	w.invariants()
}

// Somebody asks for their own account, which makes it a recent target. That
// counts against them as soon as it was also another request: an intruder's
// older request must not outlive the rescue, nor its secret.
func TestARecentTargetWhoAskedForThemselves(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	ctx := t.Context()
	letAskForSelf(w.desk)
	var set list[string]
	w.sets(&set)
	w.run(w.desk, "worker")
	approve := func(r Request, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		for _, by := range []Person{olga, mina}[:r.Terms.Approvals] {
			if _, err := w.desk.Approve(ctx, w.op(), r.ID, by); err != nil {
				t.Fatal(err)
			}
		}
		return r.ID
	}
	own := func(p Plan) (Request, error) {
		return w.desk.Ask(ctx, w.op(), Ask{Plan: p, Requester: hanna, Justification: "new phone"})
	}
	secret := passwords(SecretPrepared)
	secret.Target = hanna
	first, err := own(secret)
	if err != nil {
		t.Fatal(err)
	}
	second, err := own(deletes(ClassDestroy, hanna, "m2"))
	if err != nil {
		t.Fatal(err)
	}
	if got := w.until(approve(first, nil)); got.Outcome != Succeeded {
		t.Fatalf("her own request is %s because %q", got.Says(), got.Why)
	}
	if _, err := w.desk.Reveal(ctx, w.op(), first.ID, hanna); err != nil {
		t.Errorf("her own request made her a recent target, and so she cannot open what it made: %v", err)
	}
	// A colleague requests the rescue.
	if got := w.until(approve(w.desk.Ask(ctx, w.op(), Ask{Plan: deletes(ClassDestroy, hanna, "m1"), Requester: ravi, Justification: "it was not her"}))); got.Outcome != Succeeded {
		t.Fatalf("the rescue is %s because %q", got.Says(), got.Why)
	}
	if _, err := w.desk.Reveal(ctx, w.op(), first.ID, hanna); code(err) != CodeRecentTarget {
		t.Errorf("after the rescue the older secret is still opened: %v", err)
	}
	if got := w.until(approve(second, nil)); got.Outcome != Failed || !strings.Contains(got.Why, "was the target of such a request in the last 48 hours") {
		t.Errorf("after the rescue the older request is %s because %q", got.Says(), got.Why)
	}
	w.invariants()
}

func TestContainmentMakesNobodyARecentTarget(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	w.run(w.desk, "w")
	w.until(w.approved(deletes(ClassContain, dana, "m1")).ID)
	if recent, err := w.store.RecentTarget(t.Context(), dana.ID, ""); err != nil || recent {
		t.Errorf("%v, %v", recent, err)
	}
}

func TestFailingSteps(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		plan    func(*Plan)
		results map[int]Result
		outcome Outcome
		journal []StepState
		why     string
	}{
		{name: "the first fails and stops the rest", results: map[int]Result{0: {State: StepFailed, Detail: "Graph said no."}},
			outcome: Failed, journal: []StepState{StepFailed, StepSkipped, StepSkipped}, why: "Stopped behind step 1, which did not succeed."},
		{name: "the second fails and stops the rest", results: map[int]Result{1: {State: StepFailed}},
			outcome: Partial, journal: []StepState{StepDone, StepFailed, StepSkipped}, why: "Stopped behind step 2, which did not succeed."},
		{name: "the last fails", results: map[int]Result{2: {State: StepFailed}},
			outcome: Partial, journal: []StepState{StepDone, StepDone, StepFailed}},
		{name: "the first fails and the rest carry on", plan: func(p *Plan) { p.Steps[0].CarryOn = true }, results: map[int]Result{0: {State: StepFailed}},
			outcome: Partial, journal: []StepState{StepFailed, StepDone, StepDone}},
		{name: "an uncertain one stops", results: map[int]Result{0: {State: StepUncertain}},
			outcome: Uncertain, journal: []StepState{StepUncertain, StepSkipped, StepSkipped}, why: "Stopped behind step 1, which did not succeed."},
		{name: "an uncertain one carries on", plan: func(p *Plan) { p.Steps[0].CarryOn = true }, results: map[int]Result{0: {State: StepUncertain}},
			outcome: Uncertain, journal: []StepState{StepUncertain, StepDone, StepDone}},
		{name: "already so", results: map[int]Result{0: {State: StepAlready}},
			outcome: Succeeded, journal: []StepState{StepAlready, StepDone, StepDone}},
		{name: "an answer that is none", results: map[int]Result{1: {}},
			outcome: Uncertain, journal: []StepState{StepDone, StepUncertain, StepSkipped}, why: "Stopped behind step 2, which did not succeed."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, calm())
			w.tenant.says(func(job Job) (Result, bool) {
				got, ok := tt.results[job.Step]
				return got, ok && job.Kind == Run
			})
			w.run(w.desk, "w")
			plan := deletes(ClassDestroy, dana, "m1", "m2", "m3")
			if tt.plan != nil {
				tt.plan(&plan)
			}
			got := w.until(w.approved(plan).ID)
			var journal []StepState
			for _, e := range got.Journal {
				journal = append(journal, e.State)
			}
			if got.Outcome != tt.outcome || got.Why != tt.why || !slices.Equal(journal, tt.journal) {
				t.Errorf("%s, why %q, journal %q\nwant %s, %q, %q", got.Outcome, got.Why, journal, tt.outcome, tt.why, tt.journal)
			}
			w.invariants()
		})
	}
}

func TestAStepThatPanicsIsUncertain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	w.tenant.says(func(job Job) (Result, bool) {
		if job.Kind == Run && job.Step == 1 {
			panic("a nil map")
		}
		return Result{}, false
	})
	w.run(w.desk, "w")
	got := w.until(w.approved(deletes(ClassDestroy, dana, "m1", "m2", "m3")).ID)
	if got.Outcome != Uncertain || got.Journal[1].State != StepUncertain || got.Journal[2].State != StepSkipped {
		t.Errorf("it is %s, journal %+v", got.Says(), got.Journal)
	}
	lint(t, got.Journal[1].Detail)
	w.invariants()
}

func TestDriftEndsARequestWithNothingDone(t *testing.T) {
	t.Parallel()
	for name, check := range map[string]Result{
		"drift":                    {State: StepFailed, Detail: "A method was added since this was approved."},
		"it cannot be told":        {State: StepUncertain, Detail: "Graph did not answer."},
		"an answer with no reason": {State: StepFailed},
		"no answer":                {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, calm())
			w.tenant.says(func(job Job) (Result, bool) { return check, job.Kind == Check })
			w.run(w.desk, "w")
			got := w.until(w.approved(deletes(ClassDestroy, dana, "m1", "m2")).ID)
			if got.Outcome != Failed || check.Detail != "" && got.Why != check.Detail || got.Begun() {
				t.Errorf("it is %s because %q, begun %v", got.Says(), got.Why, got.Begun())
			}
			lint(t, got.Why)
			w.tenant.untouched(t)
			w.invariants()
		})
	}
}

// accounts are Slack accounts with which something is wrong.
type accounts map[string]error

func (a accounts) Active(_ context.Context, slackID string) error { return a[slackID] }

// Everything that was asked at the desk is asked again when it runs.
func TestRecheck(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		class  Class
		change func(w *world)
		why    string
	}{
		"an approver lost membership": {ClassDestroy, func(w *world) { w.directory.change(ravi, func(s *Standing) { s.Groups = nil }) }, "Ravi Menon (ravi.menon@fernhill.example), who approved it, may not decide such requests any more."},
		"an approver was disabled":    {ClassDestroy, func(w *world) { w.directory.change(ravi, func(s *Standing) { s.Enabled = false }) }, "Ravi Menon (ravi.menon@fernhill.example), who approved it, may not decide such requests any more."},
		"an approver is gone":         {ClassDestroy, func(w *world) { w.directory.change(ravi, func(s *Standing) { s.ID = "" }) }, "Microsoft Entra answered about another account"},
		"an approver was a target":    {ClassDestroy, func(w *world) { w.rdb.Set(w.t.Context(), w.store.keys.mark(ravi.ID), "R-X", time.Minute) }, "Ravi Menon (ravi.menon@fernhill.example), who approved it, was the target of such a request in the last 48 hours."},
		"the requester was a target":  {ClassDestroy, func(w *world) { w.rdb.Set(w.t.Context(), w.store.keys.mark(hanna.ID), "R-X", time.Minute) }, "Hanna Okafor (hanna.okafor@fernhill.example), who requested it, was the target of such a request in the last 48 hours."},
		"the requester left the desk": {ClassDestroy, func(w *world) { w.directory.change(hanna, func(s *Standing) { s.Groups = nil }) }, "Hanna Okafor (hanna.okafor@fernhill.example), who requested it, may not request such things any more."},
		"the target became protected": {ClassDestroy, func(w *world) {
			w.directory.change(dana, func(s *Standing) { s.Protected = []string{"is in a protected group"} })
		}, "is a protected target"},
		"containment now needs more": {ClassContain, func(w *world) {
			w.directory.change(dana, func(s *Standing) { s.Protected = []string{"is in a protected group"} })
		}, "now needs 2 approvals and has 1"},
		"the directory does not answer": {ClassDestroy, func(w *world) {
			w.directory.goDown(errors.New("no route"))
			w.store.timing.LookUps = 50 * time.Millisecond
		}, "what cannot be checked is refused"},
		"an approver left Slack": {ClassDestroy, func(w *world) {
			w.desk.Accounts = accounts{ravi.Slack: refuse(CodeOutsider, "This Slack account is deactivated.")}
		}, "Ravi Menon (ravi.menon@fernhill.example), who approved it, is not a full member of the Slack workspace any more."},
		"the requester is a guest in Slack": {ClassContain, func(w *world) {
			w.desk.Accounts = accounts{hanna.Slack: refuse(CodeGuest, "You are a guest in this workspace.")}
		}, "Hanna Okafor (hanna.okafor@fernhill.example), who requested it, is not a full member of the Slack workspace any more."},
		"Slack does not tell": {ClassDestroy, func(w *world) { w.desk.Accounts = accounts{ravi.Slack: errors.New("no route")} },
			"Slack did not tell whether Ravi Menon (ravi.menon@fernhill.example), who approved it, is still a full member of the workspace, and what cannot be checked is refused."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, calm())
			r := w.approved(deletes(tt.class, dana, "m1"))
			tt.change(w)
			w.run(w.desk, "w")
			got := w.until(r.ID)
			if got.Outcome != Failed || !strings.HasPrefix(got.Why, "Stopped before its next step: ") || !strings.Contains(got.Why, tt.why) {
				t.Errorf("it is %s because %q, want %q", got.Says(), got.Why, tt.why)
			}
			lint(t, got.Why)
			w.tenant.untouched(t)
			w.invariants()
		})
	}
}

// Who asks for oneself is a recent target from the moment it runs; that must
// not stop the very request.
func TestAskingForOneselfRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	letAskForSelf(w.desk)
	w.run(w.desk, "w")
	if got := w.until(w.approved(deletes(ClassDestroy, hanna, "m1")).ID); got.Outcome != Succeeded {
		t.Errorf("it is %s because %q", got.Says(), got.Why)
	}
}

// When Graph asks to wait, the request is given back and taken up again; the
// step that was not carried out is run, not reconciled.
func TestThrottledWorkIsGivenBackAndResumed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	var mu sync.Mutex
	throttled := map[string]int{}
	w.tenant.says(func(job Job) (Result, bool) {
		mu.Lock()
		defer mu.Unlock()
		throttled[fmt.Sprint(job.Kind, job.Step)]++
		if job.Step != 0 && throttled[fmt.Sprint(job.Kind, job.Step)] == 1 {
			return Result{State: StepThrottled, Detail: "Graph asked to wait.", After: 30 * time.Millisecond}, true
		}
		return Result{}, false
	})
	w.run(w.desk, "w")
	r := w.approved(deletes(ClassDestroy, dana, "m1", "m2"))
	got := w.until(r.ID)
	if got.Outcome != Succeeded || got.Claim < 3 {
		t.Errorf("it is %s, claim %d", got.Says(), got.Claim)
	}
	w.tenant.once(t, "m1", "m2")
	if n := w.tenant.did(Reconcile); len(n) > 0 {
		t.Errorf("reconciled: %v", n)
	}
	waits := 0
	for _, e := range w.events() {
		if e.Kind == audit.Waiting {
			waits++
			if e.Reason != "Graph asked to wait." {
				t.Errorf("waiting because %q", e.Reason)
			}
		}
	}
	if waits < 2 {
		t.Errorf("%d times waiting, want at least 2", waits)
	}
	w.invariants()
}

// Graph asks to wait when a step is done, or may be: the step stays begun. Once
// the wait is over it is reconciled by reading, the plan goes on, and nothing is
// done twice or taken for somebody else's change.
func TestAThrottledStepThatMayBeDoneIsReconciled(t *testing.T) {
	t.Parallel()
	for name, done := range map[string]bool{"it is done": true, "it is not": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, calm())
			const wait = 10 * time.Minute
			var asked, over atomic.Bool
			w.tenant.says(func(job Job) (Result, bool) {
				switch {
				case job.Step != 0:
				case job.Kind == Run && asked.Swap(true):
					t.Error("it is run once more")
				case job.Kind == Run:
					if done {
						w.tenant.delete("m1")
					}
					return Result{State: StepThrottled, Unsure: true, Detail: "Graph asked to wait.", After: wait}, true
				case job.Kind == Reconcile && !over.Load():
					t.Error("it is looked at before the wait is over")
				}
				return Result{}, false
			})
			sweeps := w.sweeps(w.rdb)
			w.run(w.desk, "w")
			r := w.approved(deletes(ClassDestroy, dana, "m1", "m2"))
			waitFor(t, "the wait", func() bool { return w.told(r.ID, audit.Waiting) == 1 })
			before := sweeps()
			waitFor(t, "some sweeps", func() bool { return sweeps() > before+20 })
			got := w.load(r.ID)
			if got.State != Running || got.Journal[0].State != StepStarted || got.NotBefore.IsZero() {
				t.Errorf("while it waits it is %s, journal %+v", got.Says(), got.Journal)
			}
			// To the second, because these are instants of two clocks.
			if e := got.Journal[0]; got.NotBefore.Sub(e.Started) < wait-time.Second || got.Lease.Before(got.NotBefore.Add(-time.Second)) {
				t.Errorf("begun at %v, it waits until %v, and its lease ends at %v", e.Started, got.NotBefore, got.Lease)
			}
			over.Store(true)
			w.die(r.ID)
			if got := w.until(r.ID); got.Outcome != Succeeded || got.Claim != 2 {
				t.Errorf("it is %s because %q, claim %d, journal %+v", got.Says(), got.Why, got.Claim, got.Journal)
			}
			w.tenant.once(t, "m1", "m2")
			if n := len(w.tenant.did(Reconcile)); n != 1 {
				t.Errorf("reconciled %d times", n)
			}
			w.invariants()
		})
	}
}

// While it waits it holds no worker, but it still holds its target.
func TestWaitingHoldsTheTarget(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	var free atomic.Bool
	w.tenant.says(func(job Job) (Result, bool) {
		first := job.Request.Plan.Steps[0].Args["id"] == "m1"
		return Result{State: StepThrottled, After: 10 * time.Millisecond}, first && job.Kind == Run && !free.Load()
	})
	r := &Runner{Desk: w.desk, Work: w.tenant.Work, Name: "w", Hands: 1, Log: w.log}
	background(t, r.Run)
	first := w.approved(deletes(ClassDestroy, dana, "m1"))
	waitFor(t, "the first to wait", func() bool { return w.load(first.ID).Claim > 1 })
	second := w.approved(deletes(ClassDestroy, dana, "m2"))
	other := w.approved(deletes(ClassDestroy, sam, "m3"))
	if got := w.until(other.ID); got.Outcome != Succeeded { // the one hand is free for others
		t.Errorf("the other target's is %s", got.Says())
	}
	if got := w.load(second.ID); got.State != Approved {
		t.Errorf("the second for one target is %s while the first waits", got.Says())
	}
	free.Store(true)
	if a, b := w.until(first.ID), w.until(second.ID); a.Outcome != Succeeded || b.Outcome != Succeeded || b.Journal[0].Started.Before(a.Ended) {
		t.Errorf("the first is %s, the second %s", a.Says(), b.Says())
	}
	w.tenant.once(t, "m1", "m2", "m3")
	w.invariants()
}

// A press is followed by its effect at once, and so is the end of whatever a
// request waited for: nobody waits for the next sweep.
func TestNothingWaitsForTheSweep(t *testing.T) {
	t.Parallel()
	timing := calm()
	timing.Sweep = time.Hour
	w := newWorld(t, timing)
	r := &Runner{Desk: w.desk, Work: w.tenant.Work, Name: "w", Hands: 1, Log: w.log}
	background(t, r.Run)
	inHand, goOn := make(chan struct{}), make(chan struct{})
	w.tenant.says(func(job Job) (Result, bool) {
		if job.Kind == Run && job.Request.Plan.Steps[0].Args["id"] == "m1" {
			close(inHand)
			<-goOn
		}
		return Result{}, false
	})
	first := w.approved(deletes(ClassDestroy, dana, "m1"))
	<-inHand
	second := w.approved(deletes(ClassDestroy, dana, "m2")) // waits for the target
	third := w.approved(deletes(ClassDestroy, sam, "m3"))   // waits for a hand
	close(goOn)
	for _, id := range []string{first.ID, second.ID, third.ID} {
		if got := w.until(id); got.Outcome != Succeeded {
			t.Errorf("%s is %s", id, got.Says())
		}
	}
	w.invariants()
}

// A worker that stood still between its write and its call, for so long that
// its lease may run out during the call, does not make it.
func TestAWorkerThatStoodStillDoesNotCall(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	snap := begun(w)
	r := &Runner{Desk: w.desk, Work: w.tenant.Work, Name: "w", Hands: 1, Log: w.log}
	h := &hand{Runner: r, ctx: t.Context(), req: snap.Request, at: clock(snap.Now), renewed: time.Now().Add(calm().GraphCall + calm().GraphGrace - calm().Lease)}
	if _, err := h.settle(Job{Kind: Run, Step: 0}); !errors.Is(err, ErrFenced) {
		t.Errorf("it goes on: %v", err)
	}
	w.tenant.untouched(t)
	if got := w.load(snap.ID); got.Journal[0].State != StepStarted {
		t.Errorf("its step is %s, and has to be reconciled", got.Journal[0].State)
	}
}

// sweeps counts the sweeps of the processes with this line to Redis. In each of
// them they ask what is due.
func (w *world) sweeps(rdb redis.UniversalClient) (soFar func() int) {
	var n atomic.Int32
	rdb.AddHook(before{lookScript.Hash(), func() { n.Add(1) }})
	return func() int { return int(n.Load()) }
}

// What cannot start must not be tried without a pause: two requests for one
// target, and the first one takes its time. Here nothing is tried by itself, so
// that each sweep is one that somebody asked for.
func TestABlockedRequestIsNotTriedWithoutAPause(t *testing.T) {
	t.Parallel()
	timing := calm()
	timing.Sweep = time.Hour
	w := newWorld(t, timing)
	release := make(chan struct{})
	w.tenant.says(func(job Job) (Result, bool) {
		if job.Kind == Run && job.Request.Plan.Steps[0].Args["id"] == "m1" {
			<-release
		}
		return Result{}, false
	})
	first := w.approved(deletes(ClassDestroy, dana, "m1"))
	second := w.approved(deletes(ClassDestroy, dana, "m2"))
	rdb := w.server.Client(t)
	sweeps := w.sweeps(rdb)
	store, desk := w.process(rdb)
	w.run(desk, "w")
	const asked = 10
	for range asked {
		before := sweeps()
		store.nudge()
		waitFor(t, "a sweep", func() bool { return sweeps() > before })
	}
	waitFor(t, "the first to be at work", func() bool { return len(w.tenant.did(Run)) > 0 })
	<-time.After(100 * time.Millisecond) // room for those that nobody asked for
	if n := sweeps(); n != asked {
		t.Errorf("%d sweeps, and %d were asked for", n, asked)
	}
	close(release)
	if a, b := w.until(first.ID), w.until(second.ID); a.Outcome != Succeeded || b.Outcome != Succeeded {
		t.Errorf("the first is %s, the second %s", a.Says(), b.Says())
	}
	w.invariants()
}

func TestHaltedBetweenSteps(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	inHand, goOn := make(chan string), make(chan struct{})
	w.tenant.says(func(job Job) (Result, bool) {
		if job.Kind == Run && job.Step == 0 {
			inHand <- job.Request.ID
			<-goOn
		}
		return Result{}, false
	})
	w.run(w.desk, "w")
	r := w.approved(deletes(ClassDestroy, dana, "m1", "m2"))
	<-inHand
	if _, err := w.desk.Stop(t.Context(), "stop", r.ID, sam, "I like it"); code(err) != CodeNotAllowed {
		t.Errorf("somebody without a say halts it: %v", err)
	}
	if _, err := w.desk.Stop(t.Context(), "stop-1", r.ID, olga, "it is the wrong Dana"); err != nil {
		t.Errorf("halting: %v", err)
	}
	if _, err := w.desk.Stop(t.Context(), "stop-2", r.ID, hanna, "me too"); code(err) != CodeDecided {
		t.Errorf("halting again: %v", err)
	}
	if _, err := w.desk.Stop(t.Context(), "stop-1", r.ID, olga, "it is the wrong Dana"); err != nil {
		t.Errorf("halting, redelivered: %v", err)
	}
	close(goOn)
	got := w.until(r.ID)
	if got.Outcome != Partial || got.Why != "Halted by Olga Lindqvist (olga.lindqvist@fernhill.example): it is the wrong Dana" {
		t.Errorf("it is %s because %q", got.Says(), got.Why)
	}
	w.tenant.once(t, "m1")
	if n := w.tenant.did(Run); len(n) != 1 {
		t.Errorf("ran %v", n)
	}
	w.invariants()
}

// Once somebody was told that it is halted, no further step begins, however
// the halt falls between the worker's look and its write.
func TestNoStepBeginsBehindAHalt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	snap := w.claimed(deletes(ClassDestroy, dana, "m1"))
	seen := w.load(snap.ID) // the worker's look
	if _, err := w.desk.Stop(t.Context(), w.op(), snap.ID, ravi, "wait"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.advance(t.Context(), seen.Request, seen.Now, "begin:0", Begin{Step: 0}); !errors.Is(err, errHalted) {
		t.Errorf("a step begins behind a halt: %v", err)
	}
	if got := w.load(snap.ID); got.Begun() {
		t.Errorf("journal %+v", got.Journal)
	}
}

// Halts that come at random moments: whoever was told yes, no step began
// behind it.
func TestHaltsAtRandomMoments(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	var mu sync.Mutex
	halted, broken := map[string]bool{}, map[string]bool{}
	w.tenant.says(func(job Job) (Result, bool) {
		mu.Lock()
		defer mu.Unlock()
		if job.Kind == Run && halted[job.Request.ID] {
			broken[job.Request.ID] = true
		}
		return Result{State: StepDone}, true
	})
	w.run(w.desk, "w")
	for round := range 10 {
		r := w.approved(deletes(ClassDestroy, dana, fmt.Sprint(round), "x", "y", "z"))
		waitFor(t, "it to run", func() bool {
			_, err := w.desk.Stop(t.Context(), w.op(), r.ID, ravi, "enough")
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				// The step in hand at the halt may have begun before it.
				if now := w.load(r.ID); now.State == Running && !slices.ContainsFunc(now.Journal, func(e Entry) bool { return e.State == StepStarted }) {
					halted[r.ID] = true
				}
			}
			return err == nil || w.load(r.ID).State.Final()
		})
		w.until(r.ID)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(broken) > 0 {
		t.Errorf("steps began behind a halt: %v", slices.Sorted(maps.Keys(broken)))
	}
	w.invariants()
}

// A step that a worker began and did not end is reconciled by the next one,
// once, and the request goes on from there.
func TestADeadWorkersStepIsReconciled(t *testing.T) {
	t.Parallel()
	for name, applied := range map[string]bool{"the call went through": true, "the call did not go through": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, calm())
			snap := w.claimed(deletes(ClassDestroy, dana, "m1", "m2", "m3"))
			ctx, r := t.Context(), snap.Request
			for i, a := range []Action{Begin{Step: 0}, End{Step: 0, Result: w.tenant.Work(ctx, Job{Kind: Run, Request: r, Step: 0})}, Begin{Step: 1}} {
				var err error
				if r, err = w.store.advance(ctx, r, snap.Now, fmt.Sprint("write-", i), a); err != nil {
					t.Fatal(err)
				}
			}
			if applied {
				w.tenant.Work(ctx, Job{Kind: Run, Request: r, Step: 1})
			}
			w.die(snap.ID)
			for i := range 3 {
				_, desk := w.process(w.server.Client(t))
				w.run(desk, fmt.Sprint("worker-", i))
			}
			got := w.until(snap.ID)
			if got.Outcome != Succeeded || got.Claim < 2 {
				t.Errorf("it is %s because %q, claim %d", got.Says(), got.Why, got.Claim)
			}
			w.tenant.once(t, "m1", "m2", "m3")
			if n := w.tenant.did(Reconcile); len(n) != 1 {
				t.Errorf("reconciled %v, want once", n)
			}
			w.invariants()
		})
	}
}

// Behind a halt, or where the request is not allowed any more, a dead
// worker's step is looked at and not repeated.
func TestADeadWorkersStepIsNotRepeatedAgainstAWord(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		word func(w *world, id string)
		why  string
	}{
		"halted": {func(w *world, id string) {
			if _, err := w.desk.Stop(w.t.Context(), w.op(), id, ravi, "wrong person"); err != nil {
				w.t.Fatal(err)
			}
		}, ""},
		"not allowed any more": {func(w *world, id string) { w.directory.change(ravi, func(s *Standing) { s.Groups = nil }) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, calm())
			snap := w.claimed(deletes(ClassDestroy, dana, "m1", "m2"))
			if _, err := w.store.advance(t.Context(), snap.Request, snap.Now, "begin:0", Begin{Step: 0}); err != nil {
				t.Fatal(err)
			}
			tt.word(w, snap.ID)
			w.die(snap.ID)
			w.run(w.desk, "worker-2")
			got := w.until(snap.ID)
			if got.Outcome != Failed || got.Journal[0].State != StepFailed || got.Journal[1].State != StepSkipped {
				t.Errorf("it is %s because %q, journal %+v", got.Says(), got.Why, got.Journal)
			}
			w.tenant.untouched(t)
			if jobs := w.tenant.did(""); len(jobs) != 1 || !strings.HasSuffix(jobs[0], "look only") {
				t.Errorf("jobs %v", jobs)
			}
			w.invariants()
		})
	}
}

// A reconciliation that Graph asked to wait with is still one afterwards: what
// the dead worker did is not known any better.
func TestAThrottledReconciliationStaysOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	var throttled atomic.Int32
	w.tenant.says(func(job Job) (Result, bool) {
		return Result{State: StepThrottled, After: 10 * time.Millisecond}, job.Kind == Reconcile && throttled.Add(1) <= 2
	})
	snap := w.claimed(deletes(ClassDestroy, dana, "m1"))
	r, err := w.store.advance(t.Context(), snap.Request, snap.Now, "begin:0", Begin{Step: 0})
	if err != nil {
		t.Fatal(err)
	}
	w.tenant.Work(t.Context(), Job{Kind: Run, Request: r, Step: 0}) // it went through
	w.die(snap.ID)
	w.run(w.desk, "worker-2")
	got := w.until(snap.ID)
	if got.Outcome != Succeeded {
		t.Errorf("it is %s because %q, journal %+v", got.Says(), got.Why, got.Journal)
	}
	w.tenant.once(t, "m1")
	w.invariants()
}

// A worker that died behind its last step, or behind one that stops the rest,
// left nothing to check: the next one only says how it ended.
func TestADeadWorkersEndIsFinished(t *testing.T) {
	t.Parallel()
	for _, state := range []StepState{StepDone, StepFailed} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, calm())
			snap := w.claimed(deletes(ClassDestroy, dana, "m1"))
			r := snap.Request
			for _, a := range []Action{Begin{Step: 0}, End{Step: 0, Result: Result{State: state}}} {
				var err error
				if r, err = w.store.advance(t.Context(), r, snap.Now, fmt.Sprintf("%T", a), a); err != nil {
					t.Fatal(err)
				}
			}
			w.directory.goDown(errors.New("no route to Graph"))
			w.die(snap.ID)
			w.run(w.desk, "worker-2")
			got := w.until(snap.ID)
			if want := map[StepState]Outcome{StepDone: Succeeded, StepFailed: Failed}[state]; got.Outcome != want || got.Why != "" {
				t.Errorf("it is %s because %q", got.Says(), got.Why)
			}
			if jobs := w.tenant.did(""); len(jobs) > 0 {
				t.Errorf("jobs %v", jobs)
			}
			w.invariants()
		})
	}
}

// The claim is the fence: who lost it writes nothing any more.
func TestWritesOfALostClaimAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	ctx := t.Context()
	first := w.claimed(deletes(ClassDestroy, dana, "m1", "m2"))
	mine, err := w.store.advance(ctx, first.Request, first.Now, "begin:0", Begin{Step: 0})
	if err != nil {
		t.Fatal(err)
	}

	second, desk := w.process(w.server.Client(t))
	if _, err := second.claim(ctx, w.load(first.ID), "worker-2"); err == nil {
		t.Error("a second worker claims it while the first one's lease lasts")
	}
	early := w.load(first.ID)
	early.Now = early.Lease.Add(time.Millisecond) // a worker whose clock is wrong
	if _, err := second.claim(ctx, early, "worker-2"); !errors.Is(err, ErrFenced) {
		t.Errorf("a second worker with a wrong clock: %v", err)
	}
	w.die(first.ID)
	taken, err := second.claim(ctx, w.load(first.ID), "worker-2")
	if err != nil || taken.Claim != 2 {
		t.Fatalf("taking over: claim %d, %v", taken.Claim, err)
	}

	state := w.load(first.ID)
	for name, a := range map[string]Action{
		"begin:0": Begin{Step: 0}, // the very write that counted: its replay must not send the worker on
		"begin:1": Begin{Step: 1}, "end:0": End{Step: 0, Result: Result{State: StepDone}},
		"wait:0": LetGo{Step: 0, After: time.Second}, "give-back": LetGo{Step: -1}, "finish": Finish{},
	} {
		from := mine
		switch name {
		case "begin:0":
			from = first.Request
		case "finish", "begin:1":
			from.Journal = []Entry{{State: StepDone}, {}}
		}
		if _, err := w.store.advance(ctx, from, first.Now, name, a); !errors.Is(err, ErrFenced) {
			t.Errorf("%s of the first worker: %v", name, err)
		}
	}
	if now := w.load(first.ID); now.Version != state.Version || !same(t, now.Request, state.Request) {
		t.Errorf("the first worker changed it:\n%+v\n%+v", state.Request, now.Request)
	}
	w.die(first.ID)
	w.run(desk, "worker-3")
	if got := w.until(first.ID); got.Outcome != Succeeded {
		t.Errorf("it is %s because %q", got.Says(), got.Why)
	}
	w.invariants()
}

// Two processes of one name are still two.
func TestWorkersOfOneName(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	snap := w.load(w.approved(deletes(ClassDestroy, dana, "m1")).ID)
	errs := atOnce(8, func(int) error { _, err := w.store.claim(context.Background(), snap, "countersign-1"); return err })
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, ErrFenced) {
			t.Errorf("a claim that lost: %v", err)
		}
	}
	if won != 1 {
		t.Errorf("%d of 8 workers of one name hold it", won)
	}
	w.invariants()
}

// Many requests for two people, many workers: one at a time for each.
func TestRequestsForOneTargetNeverInterleave(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	w.tenant = newTenant()
	w.tenant.says(func(job Job) (Result, bool) {
		if job.Kind == Run {
			<-time.After(time.Millisecond) // room for another one to come in
		}
		return Result{}, false
	})
	var ids []string
	for i := range 6 {
		for _, target := range []Person{dana, sam} {
			a, b := fmt.Sprintf("%s-%d-a", target.Name, i), fmt.Sprintf("%s-%d-b", target.Name, i)
			w.tenant.methods[a], w.tenant.methods[b] = true, true
			ids = append(ids, w.approved(deletes(ClassDestroy, target, a, b)).ID)
		}
	}
	for i := range 4 {
		_, desk := w.process(w.server.Client(t))
		w.run(desk, fmt.Sprint("worker-", i))
	}
	type span struct{ from, to time.Time }
	ran := map[string][]span{}
	for _, id := range ids {
		got := w.until(id)
		if got.Outcome != Succeeded {
			t.Errorf("%s is %s because %q", id, got.Says(), got.Why)
		}
		ran[got.Plan.Target.ID] = append(ran[got.Plan.Target.ID], span{got.Journal[0].Started, got.Ended})
	}
	if w.tenant.overlapped() {
		t.Error("two requests were at work on one target at one moment")
	}
	for target, spans := range ran {
		slices.SortFunc(spans, func(a, b span) int { return a.from.Compare(b.from) })
		for i := range spans[1:] {
			if spans[i+1].from.Before(spans[i].to) {
				t.Errorf("%s: one ran from %v, the one before it until %v", target, spans[i+1].from, spans[i].to)
			}
		}
	}
	w.invariants()
}

// A stop lets the step in hand finish and gives the rest back at once, to be
// carried on by another process without waiting for a lease.
func TestStoppingGivesBackAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm()) // with a lease that does not run out
	inHand, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.tenant.says(func(job Job) (Result, bool) {
		if job.Kind == Run && job.Step == 0 {
			once.Do(func() { close(inHand); <-goOn })
		}
		return Result{}, false
	})
	r := w.approved(deletes(ClassDestroy, dana, "m1", "m2"))
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	first := &Runner{Desk: w.desk, Work: w.tenant.Work, Name: "first", Hands: 1, Log: w.log}
	go func() { defer close(stopped); first.Run(ctx) }()
	<-inHand
	cancel()
	select {
	case <-stopped:
		t.Fatal("it did not wait for the step in hand")
	case <-time.After(20 * time.Millisecond):
	}
	close(goOn)
	<-stopped
	got := w.load(r.ID)
	if got.State != Running || got.Journal[0].State != StepDone || got.Journal[1].State != StepWaiting || got.Lease.After(got.Now) {
		t.Errorf("it was left %s, journal %+v, lease %v, now %v", got.Says(), got.Journal, got.Lease, got.Now)
	}
	_, desk := w.process(w.server.Client(t))
	w.run(desk, "second")
	if got := w.until(r.ID); got.Outcome != Succeeded || got.Worker != "second" {
		t.Errorf("it is %s by %s", got.Says(), got.Worker)
	}
	w.tenant.once(t, "m1", "m2")
	w.invariants()
}

// A stop during the look-ups before the first step ends nothing and waits for
// nothing.
func TestStoppingDuringTheChecks(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"recheck", "check"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, calm()) // in which neither look-ups nor calls end by themselves
			r := w.approved(deletes(ClassDestroy, dana, "m1"))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			work := w.tenant.Work
			if where == "recheck" {
				w.directory.goDown(errors.New("no route"))
			} else {
				work = func(ctx context.Context, job Job) Result {
					cancel()
					<-ctx.Done() // as a call to Graph that hangs
					return Result{State: StepFailed, Detail: "Graph did not answer."}
				}
			}
			runner := &Runner{Desk: w.desk, Work: work, Name: "first", Hands: 1, Log: w.log}
			stopped := make(chan struct{})
			go func() { defer close(stopped); runner.Run(ctx) }()
			if where == "recheck" {
				waitFor(t, "it to be claimed", func() bool { return w.load(r.ID).Claim == 1 })
				cancel()
			}
			closed(t, "it to stop", stopped)
			got := w.load(r.ID)
			if got.State != Running || got.Begun() || got.Lease.After(got.Now) {
				t.Errorf("it was left %s because %q, lease %v, now %v", got.Says(), got.Why, got.Lease, got.Now)
			}
			w.directory.goDown(nil)
			w.run(w.desk, "second")
			if got := w.until(r.ID); got.Outcome != Succeeded {
				t.Errorf("it is %s because %q", got.Says(), got.Why)
			}
			w.invariants()
		})
	}
}

func TestTheSweepExpires(t *testing.T) {
	t.Parallel()
	timing := calm()
	timing.RunWithin = 30 * time.Millisecond
	w := newWorld(t, timing)
	w.desk.Policy.Commands = map[string]Rule{"entra-require-reregister": {Lifetime: 30 * time.Millisecond}}
	undecided := w.ask(deletes(ClassDestroy, dana, "m1"))

	// One that was approved in time, but whose target is not free in time.
	w.desk.Policy.Commands = nil
	letGo := w.holds(sam)
	blocked := w.approved(deletes(ClassDestroy, sam, "m2"))
	for i := range 3 {
		_, desk := w.process(w.server.Client(t))
		w.run(desk, fmt.Sprint("worker-", i))
	}
	for id, why := range map[string]string{undecided.ID: "Nobody decided in time.", blocked.ID: "It was approved, but could not be started in time."} {
		if got := w.until(id); got.State != Expired || got.Why != why {
			t.Errorf("it is %s because %q, want %q", got.Says(), got.Why, why)
		}
	}
	w.tenant.untouched(t)
	letGo()
	w.invariants()
}

// holds has some request that never ends run for a target.
func (w *world) holds(target Person) (letGo func()) {
	w.t.Helper()
	ctx, request, holder := w.t.Context(), w.store.keys.request("R-OTHER"), w.store.keys.holder(target.ID)
	if err := errors.Join(w.rdb.HSet(ctx, request, "state", "running").Err(), w.rdb.Set(ctx, holder, "R-OTHER", 0).Err()); err != nil {
		w.t.Fatal(err)
	}
	return func() {
		w.t.Helper()
		if err := errors.Join(w.rdb.Del(ctx, holder).Err(), w.rdb.Del(ctx, request).Err()); err != nil {
			w.t.Fatal(err)
		}
	}
}

// vanishes drops a request, and the lists have been rid of it.
func (w *world) vanishes(id string) {
	w.t.Helper()
	ctx, k := w.t.Context(), w.store.keys
	if err := errors.Join(w.rdb.Del(ctx, k.request(id)).Err(), w.rdb.ZRem(ctx, k.open(), id).Err(), w.rdb.ZRem(ctx, k.due(), id).Err()); err != nil {
		w.t.Fatal(err)
	}
}

// A request whose hash is gone, although it was never ended, keeps neither its
// target nor its wish from anybody.
func TestARequestThatIsGoneIsInNobodysWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	gone := w.claimed(deletes(ClassDestroy, dana, "m1"))
	w.vanishes(gone.ID)
	waiting := w.approved(deletes(ClassDestroy, dana, "m2"))
	again := w.approved(deletes(ClassDestroy, dana, "m1"))
	w.run(w.desk, "worker")
	for _, id := range []string{waiting.ID, again.ID} {
		if got := w.until(id); got.Outcome != Succeeded {
			t.Errorf("it is %s because %q", got.Says(), got.Why)
		}
	}
	w.tenant.once(t, "m1", "m2")
	w.invariants()
}

// Containment outlives what holds its target up, for as long as that may run.
func TestContainmentWaitsForItsTarget(t *testing.T) {
	t.Parallel()
	timing := calm()
	timing.RunWithin = 30 * time.Millisecond
	w := newWorld(t, timing)
	ctx := t.Context()
	w.run(w.desk, "worker")
	letGo := w.holds(dana)
	other := w.approved(deletes(ClassDestroy, dana, "m1"))
	r := w.ask(deletes(ClassContain, dana, "m2"))
	if _, err := w.desk.BreakGlass(ctx, w.op(), r.ID, olga, "an intruder"); err != nil {
		t.Fatal(err)
	}
	if left := w.load(r.ID).Deadline.Sub(w.load(r.ID).Now); left <= timing.RunFor/2 {
		t.Errorf("it has %s to start", left)
	}
	if got := w.until(other.ID); got.State != Expired {
		t.Errorf("what is no containment is %s", got.Says())
	}
	letGo()
	waitFor(t, "the containment", func() bool { return w.load(r.ID).State == Review })
	w.tenant.once(t, "m2")
	w.invariants()
}

// More requests than one sweep looks at wait for a target, and who holds it has
// died: it is taken over all the same, although they stand before it.
func TestThoseWhoWaitDoNotHideWhomTheyWaitFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	held := w.claimed(deletes(ClassContain, dana, "m1"))
	for i := range dueAtOnce + 50 {
		r := w.approved(deletes(ClassContain, dana, fmt.Sprint("x", i)))
		w.rdb.ZAdd(t.Context(), w.store.keys.due(), redisZ(1, r.ID))
	}
	w.die(held.ID)
	w.rdb.ZAdd(t.Context(), w.store.keys.due(), redisZ(2, held.ID)) // behind all of them
	w.run(w.desk, "worker")
	if got := w.until(held.ID); got.Outcome != Succeeded {
		t.Errorf("it is %s because %q", got.Says(), got.Why)
	}
	w.tenant.once(t, "m1")
}

// Requests that do not open are no obstacle to those that do.
func TestBrokenRequestsStarveNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	ctx := t.Context()
	pipe := w.rdb.Pipeline()
	for i := range dueAtOnce + 50 {
		id := fmt.Sprint("R-BROKEN", i)
		pipe.HSet(ctx, w.store.keys.request(id), "state", "approved", "version", "3", "claim", "0", "body", "k1.AAAA")
		pipe.ZAdd(ctx, w.store.keys.due(), redisZ(0, id))
		pipe.ZAdd(ctx, w.store.keys.open(), redisZ(0, id))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	w.log = discard
	_, desk := w.process(w.rdb)
	desk.Log = discard
	w.run(desk, "w")
	r := w.approved(deletes(ClassDestroy, dana, "m1"))
	if got := w.until(r.ID); got.Outcome != Succeeded {
		t.Errorf("it is %s", got.Says())
	}
	w.rdb.ZAdd(ctx, w.store.keys.open(), redisZ(-1, r.ID))
	if open, err := w.store.Open(ctx); err != nil || len(open) != 1 {
		t.Errorf("the list of open requests: %d, %v", len(open), err)
	}
}

// Nothing is started while the record of what was done is not being kept.
func TestNothingStartsWhileTheAuditLags(t *testing.T) {
	t.Parallel()
	timing := calm()
	timing.AuditLag = 30 * time.Millisecond
	w := newWorld(t, timing)
	w.desk.Log = discard
	runner := &Runner{Desk: w.desk, Work: w.tenant.Work, Name: "w", Audit: "audit", Hands: 1, Log: discard}
	r := w.approved(deletes(ClassDestroy, dana, "m1"))
	waitFor(t, "the audit to lag", func() bool {
		lag, err := w.store.Lag(t.Context(), "audit")
		if err != nil {
			t.Fatal(err)
		}
		return lag > timing.AuditLag
	})
	background(t, runner.Run)
	start := time.Now()
	waitFor(t, "some sweeps", func() bool { return time.Since(start) > 20*timing.Sweep })
	if got := w.load(r.ID); got.State != Approved {
		t.Errorf("it is %s", got.Says())
	}
	background(t, func(ctx context.Context) {
		w.store.Follow(ctx, "reader", Projection{Name: "audit", Handle: func(_ context.Context, batch []audit.Event) (int, error) { return len(batch), nil }}, w.log)
	})
	if got := w.until(r.ID); got.Outcome != Succeeded {
		t.Errorf("it is %s", got.Says())
	}
	w.invariants()
}

// A Redis that lost confirmed writes executes nothing.
func TestARedisThatWentBackIsNoticed(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(w *world){
		"emptied": func(w *world) { w.server.Empty(w.t) },
		"restored": func(w *world) {
			// As after a fail-over: everything is there but the last writes.
			w.rdb.DecrBy(w.t.Context(), w.store.keys.sequence(), 2)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, calm())
			r := w.approved(deletes(ClassDestroy, dana, "m1"))
			lose(w)
			w.desk.Log = discard
			runner := &Runner{Desk: w.desk, Work: w.tenant.Work, Name: "w", Hands: 1, Log: discard}
			stop := background(t, runner.Run)
			waitFor(t, "it to be noticed without any press", w.store.Rewound)
			if _, err := w.desk.Ask(t.Context(), w.op(), Ask{Plan: deletes(ClassDestroy, sam, "m2"), Requester: hanna}); !errors.Is(err, ErrRewound) {
				t.Errorf("asking: %v", err)
			}
			start := time.Now()
			waitFor(t, "some sweeps", func() bool { return time.Since(start) > 20*w.timing.Sweep })
			if jobs := w.tenant.did(""); len(jobs) > 0 {
				t.Errorf("jobs %v", jobs)
			}
			if name == "restored" {
				if got := w.load(r.ID); got.State != Approved {
					t.Errorf("it is %s", got.Says())
				}
			}
			stop()
		})
	}

	// Also when it happens under a running request.
	w := newWorld(t, calm())
	w.tenant.says(func(job Job) (Result, bool) {
		if job.Kind == Run && job.Step == 0 {
			w.rdb.DecrBy(context.Background(), w.store.keys.sequence(), 3)
		}
		return Result{}, false
	})
	runner := &Runner{Desk: w.desk, Work: w.tenant.Work, Name: "w", Hands: 1, Log: discard}
	background(t, runner.Run)
	w.approved(deletes(ClassDestroy, dana, "m1", "m2"))
	waitFor(t, "it to be noticed", w.store.Rewound)
	if n := w.tenant.did(Run); len(n) != 1 {
		t.Errorf("ran %v", n)
	}
}

// A Redis that is away for a moment is waited for, and forgets nothing.
func TestRedisGoesAwayAndComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm(), redistest.AppendOnly())
	w.desk.Log = discard
	w.log = discard
	inHand, goOn := make(chan struct{}), make(chan struct{})
	w.tenant.says(func(job Job) (Result, bool) {
		if job.Kind == Run && job.Step == 0 {
			close(inHand)
			<-goOn
		}
		return Result{}, false
	})
	w.run(w.desk, "w")
	r := w.approved(deletes(ClassDestroy, dana, "m1", "m2"))
	<-inHand
	w.server.Kill(t)
	close(goOn) // the outcome of the first step cannot be journalled yet
	<-time.After(50 * time.Millisecond)
	w.server.Restart(t)
	got := w.until(r.ID)
	if got.Outcome != Succeeded || got.Claim != 1 {
		t.Errorf("it is %s because %q, claim %d", got.Says(), got.Why, got.Claim)
	}
	w.tenant.once(t, "m1", "m2")
	w.invariants()
}
