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

func TestApprovedRequestIsExecuted(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	w.startRunner(w.service, "worker-1")
	r := w.approved(deletionPlan(ClassDestroy, dana, "m1", "m2"))
	got := w.waitFinal(r.ID)
	if got.Outcome != OutcomeSucceeded || got.Why != "" || got.Claim != 1 || got.Worker != "worker-1" {
		t.Errorf("it is %s, why %q, claim %d, worker %q", got.Summary(), got.Why, got.Claim, got.Worker)
	}
	for i, e := range got.Journal {
		if e.State != StepDone || e.Started.IsZero() || e.Ended.Before(e.Started) || e.RequestID == "" {
			t.Errorf("the journal entry of step %d is %+v", i+1, e)
		}
	}
	w.tenant.wantDeletedOnce(t, "m1", "m2")
	want := []audit.Kind{audit.Requested, audit.Approved, audit.Started, audit.StepEnded, audit.StepEnded, audit.Finished}
	if kinds := w.eventKinds(r.ID); !slices.Equal(kinds, want) {
		t.Errorf("events %v, want %v", kinds, want)
	}
	if jobs := w.tenant.jobsOfKind(""); len(jobs) != 3 || !strings.HasPrefix(jobs[0], "check") {
		t.Errorf("jobs %v", jobs)
	}
	recent, err := w.store.RecentTarget(t.Context(), dana.ID, "")
	if err != nil || !recent {
		t.Errorf("recent target: %v, %v", recent, err)
	}
	w.checkInvariants()
}

// A request for one's own account makes that account a recent target. This excludes
// the requester as soon as another request also changed the account: an intruder's
// older request, or its secret, must not stay usable after the rescue.
func TestRecentTargetWithOwnRequests(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	letAskForSelf(w.service)
	var set list[string]
	w.sets(&set)
	w.startRunner(w.service, "worker")
	approve := func(r Request, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		for _, by := range []Person{olga, mina}[:r.Requirements.Approvals] {
			if _, err := w.service.Approve(ctx, w.op(), r.ID, by); err != nil {
				t.Fatal(err)
			}
		}
		return r.ID
	}
	own := func(p Plan) (Request, error) {
		return w.service.Submit(ctx, w.op(), Submit{Plan: p, Requester: hanna, Justification: "new phone"})
	}
	secret := passwords(SecretPrepared)
	secret.Target = hanna
	first, err := own(secret)
	if err != nil {
		t.Fatal(err)
	}
	second, err := own(deletionPlan(ClassDestroy, hanna, "m2"))
	if err != nil {
		t.Fatal(err)
	}
	if got := w.waitFinal(approve(first, nil)); got.Outcome != OutcomeSucceeded {
		t.Fatalf("her own request is %s because %q", got.Summary(), got.Why)
	}
	if _, err := w.service.Reveal(ctx, w.op(), first.ID, hanna); err != nil {
		t.Errorf("her own request made her a recent target, so she cannot reveal its secret: %v", err)
	}
	// A colleague requests the rescue.
	if got := w.waitFinal(approve(w.service.Submit(ctx, w.op(), Submit{Plan: deletionPlan(ClassDestroy, hanna, "m1"), Requester: ravi, Justification: "it was not her"}))); got.Outcome != OutcomeSucceeded {
		t.Fatalf("the rescue is %s because %q", got.Summary(), got.Why)
	}
	if _, err := w.service.Reveal(ctx, w.op(), first.ID, hanna); code(err) != CodeRecentTarget {
		t.Errorf("after the rescue the older secret can still be revealed: %v", err)
	}
	if got := w.waitFinal(approve(second, nil)); got.Outcome != OutcomeFailed || !strings.Contains(got.Why, "was the target of such a request in the last 48 hours") {
		t.Errorf("after the rescue the older request is %s because %q", got.Summary(), got.Why)
	}
	w.checkInvariants()
}

func TestContainmentMarksNoRecentTarget(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	w.startRunner(w.service, "w")
	w.waitFinal(w.approved(deletionPlan(ClassContain, dana, "m1")).ID)
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
			outcome: OutcomeFailed, journal: []StepState{StepFailed, StepSkipped, StepSkipped}, why: "Stopped behind step 1, which did not succeed."},
		{name: "the second fails and stops the rest", results: map[int]Result{1: {State: StepFailed}},
			outcome: OutcomePartial, journal: []StepState{StepDone, StepFailed, StepSkipped}, why: "Stopped behind step 2, which did not succeed."},
		{name: "the last fails", results: map[int]Result{2: {State: StepFailed}},
			outcome: OutcomePartial, journal: []StepState{StepDone, StepDone, StepFailed}},
		{name: "the first fails and the rest continue", plan: func(p *Plan) { p.Steps[0].CarryOn = true }, results: map[int]Result{0: {State: StepFailed}},
			outcome: OutcomePartial, journal: []StepState{StepFailed, StepDone, StepDone}},
		{name: "an uncertain one stops the rest", results: map[int]Result{0: {State: StepUncertain}},
			outcome: OutcomeUncertain, journal: []StepState{StepUncertain, StepSkipped, StepSkipped}, why: "Stopped behind step 1, which did not succeed."},
		{name: "an uncertain one does not stop the rest", plan: func(p *Plan) { p.Steps[0].CarryOn = true }, results: map[int]Result{0: {State: StepUncertain}},
			outcome: OutcomeUncertain, journal: []StepState{StepUncertain, StepDone, StepDone}},
		{name: "already done", results: map[int]Result{0: {State: StepAlready}},
			outcome: OutcomeSucceeded, journal: []StepState{StepAlready, StepDone, StepDone}},
		{name: "an empty result", results: map[int]Result{1: {}},
			outcome: OutcomeUncertain, journal: []StepState{StepDone, StepUncertain, StepSkipped}, why: "Stopped behind step 2, which did not succeed."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, longTimings())
			w.tenant.setScript(func(job Job) (Result, bool) {
				got, ok := tt.results[job.Step]
				return got, ok && job.Kind == JobRun
			})
			w.startRunner(w.service, "w")
			plan := deletionPlan(ClassDestroy, dana, "m1", "m2", "m3")
			if tt.plan != nil {
				tt.plan(&plan)
			}
			got := w.waitFinal(w.approved(plan).ID)
			var journal []StepState
			for _, e := range got.Journal {
				journal = append(journal, e.State)
			}
			if got.Outcome != tt.outcome || got.Why != tt.why || !slices.Equal(journal, tt.journal) {
				t.Errorf("%s, why %q, journal %q\nwant %s, %q, %q", got.Outcome, got.Why, journal, tt.outcome, tt.why, tt.journal)
			}
			w.checkInvariants()
		})
	}
}

func TestPanickingStepIsUncertain(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	w.tenant.setScript(func(job Job) (Result, bool) {
		if job.Kind == JobRun && job.Step == 1 {
			panic("a nil map")
		}
		return Result{}, false
	})
	w.startRunner(w.service, "w")
	got := w.waitFinal(w.approved(deletionPlan(ClassDestroy, dana, "m1", "m2", "m3")).ID)
	if got.Outcome != OutcomeUncertain || got.Journal[1].State != StepUncertain || got.Journal[2].State != StepSkipped {
		t.Errorf("it is %s, journal %+v", got.Summary(), got.Journal)
	}
	lint(t, got.Journal[1].Detail)
	w.checkInvariants()
}

func TestDriftEndsRequestBeforeFirstStep(t *testing.T) {
	t.Parallel()
	for name, check := range map[string]Result{
		"drift":                    {State: StepFailed, Detail: "A method was added since this was approved."},
		"the state is not known":   {State: StepUncertain, Detail: "Graph did not answer."},
		"an answer with no reason": {State: StepFailed},
		"no answer":                {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, longTimings())
			w.tenant.setScript(func(job Job) (Result, bool) { return check, job.Kind == JobCheck })
			w.startRunner(w.service, "w")
			got := w.waitFinal(w.approved(deletionPlan(ClassDestroy, dana, "m1", "m2")).ID)
			if got.Outcome != OutcomeFailed || check.Detail != "" && got.Why != check.Detail || got.StartedStep() {
				t.Errorf("it is %s because %q, step started: %v", got.Summary(), got.Why, got.StartedStep())
			}
			lint(t, got.Why)
			w.tenant.wantUntouched(t)
			w.checkInvariants()
		})
	}
}

// failingAccounts are Slack accounts for which the check returns an error.
type failingAccounts map[string]error

func (a failingAccounts) Active(_ context.Context, slackID string) error { return a[slackID] }

// Everything that was checked when a request was submitted and approved is checked
// again when it runs.
func TestRecheck(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		class  Class
		change func(w *fixture)
		why    string
	}{
		"an approver lost membership":      {ClassDestroy, func(w *fixture) { w.directory.change(ravi, func(s *Account) { s.Groups = nil }) }, "Ravi Menon (ravi.menon@fernhill.example), who approved it, may not decide such requests any more."},
		"an approver was disabled":         {ClassDestroy, func(w *fixture) { w.directory.change(ravi, func(s *Account) { s.Enabled = false }) }, "Ravi Menon (ravi.menon@fernhill.example), who approved it, may not decide such requests any more."},
		"an approver is gone":              {ClassDestroy, func(w *fixture) { w.directory.change(ravi, func(s *Account) { s.ID = "" }) }, "Microsoft Entra answered about another account"},
		"an approver was a target":         {ClassDestroy, func(w *fixture) { w.rdb.Set(w.t.Context(), w.store.keys.mark(ravi.ID), "R-X", time.Minute) }, "Ravi Menon (ravi.menon@fernhill.example), who approved it, was the target of such a request in the last 48 hours."},
		"the requester was a target":       {ClassDestroy, func(w *fixture) { w.rdb.Set(w.t.Context(), w.store.keys.mark(hanna.ID), "R-X", time.Minute) }, "Hanna Okafor (hanna.okafor@fernhill.example), who requested it, was the target of such a request in the last 48 hours."},
		"the requester left the help desk": {ClassDestroy, func(w *fixture) { w.directory.change(hanna, func(s *Account) { s.Groups = nil }) }, "Hanna Okafor (hanna.okafor@fernhill.example), who requested it, may not request such things any more."},
		"the target became protected": {ClassDestroy, func(w *fixture) {
			w.directory.change(dana, func(s *Account) { s.Protected = []string{"is in a protected group"} })
		}, "is a protected target"},
		"containment now needs more approvals": {ClassContain, func(w *fixture) {
			w.directory.change(dana, func(s *Account) { s.Protected = []string{"is in a protected group"} })
		}, "now needs 2 approvals and has 1"},
		"the directory does not answer": {ClassDestroy, func(w *fixture) {
			w.directory.goDown(errors.New("no route"))
			w.store.timing.LookUps = 50 * time.Millisecond
		}, "what cannot be checked is refused"},
		"an approver left Slack": {ClassDestroy, func(w *fixture) {
			w.service.SlackAccounts = failingAccounts{ravi.Slack: refuse(CodeNotMember, "This Slack account is deactivated.")}
		}, "Ravi Menon (ravi.menon@fernhill.example), who approved it, is not a full member of the Slack workspace any more."},
		"the requester is a guest in Slack": {ClassContain, func(w *fixture) {
			w.service.SlackAccounts = failingAccounts{hanna.Slack: refuse(CodeGuest, "You are a guest in this workspace.")}
		}, "Hanna Okafor (hanna.okafor@fernhill.example), who requested it, is not a full member of the Slack workspace any more."},
		"Slack does not answer": {ClassDestroy, func(w *fixture) { w.service.SlackAccounts = failingAccounts{ravi.Slack: errors.New("no route")} },
			"Slack did not say whether Ravi Menon (ravi.menon@fernhill.example), who approved it, is still a full member of the workspace, and what cannot be checked is refused."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, longTimings())
			r := w.approved(deletionPlan(tt.class, dana, "m1"))
			tt.change(w)
			w.startRunner(w.service, "w")
			got := w.waitFinal(r.ID)
			if got.Outcome != OutcomeFailed || !strings.HasPrefix(got.Why, "Stopped before its next step: ") || !strings.Contains(got.Why, tt.why) {
				t.Errorf("it is %s because %q, want %q", got.Summary(), got.Why, tt.why)
			}
			lint(t, got.Why)
			w.tenant.wantUntouched(t)
			w.checkInvariants()
		})
	}
}

// The requester of a request for self is a recent target from the moment it runs.
// That must not stop this request.
func TestRequestForSelfRuns(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	letAskForSelf(w.service)
	w.startRunner(w.service, "w")
	if got := w.waitFinal(w.approved(deletionPlan(ClassDestroy, hanna, "m1")).ID); got.Outcome != OutcomeSucceeded {
		t.Errorf("it is %s because %q", got.Summary(), got.Why)
	}
}

// When Graph throttles, the request is released and claimed again later. The step
// that was not executed is run, not reconciled.
func TestThrottledRequestIsReleasedAndResumed(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	var mu sync.Mutex
	throttled := map[string]int{}
	w.tenant.setScript(func(job Job) (Result, bool) {
		mu.Lock()
		defer mu.Unlock()
		throttled[fmt.Sprint(job.Kind, job.Step)]++
		if job.Step != 0 && throttled[fmt.Sprint(job.Kind, job.Step)] == 1 {
			return Result{State: StepThrottled, Detail: "Graph asked to wait.", After: 30 * time.Millisecond}, true
		}
		return Result{}, false
	})
	w.startRunner(w.service, "w")
	r := w.approved(deletionPlan(ClassDestroy, dana, "m1", "m2"))
	got := w.waitFinal(r.ID)
	if got.Outcome != OutcomeSucceeded || got.Claim < 3 {
		t.Errorf("it is %s, claim %d", got.Summary(), got.Claim)
	}
	w.tenant.wantDeletedOnce(t, "m1", "m2")
	if n := w.tenant.jobsOfKind(JobReconcile); len(n) > 0 {
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
		t.Errorf("it waited %d times, want at least 2", waits)
	}
	w.checkInvariants()
}

// Graph throttles when a step is done, or may be done: the step stays started. After
// the wait it is reconciled by reading, the plan continues, and nothing is done
// twice or mistaken for somebody else's change.
func TestThrottledStepOfUnknownOutcomeIsReconciled(t *testing.T) {
	t.Parallel()
	for name, done := range map[string]bool{"it is done": true, "it is not": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, longTimings())
			const wait = 10 * time.Minute
			var asked, over atomic.Bool
			w.tenant.setScript(func(job Job) (Result, bool) {
				switch {
				case job.Step != 0:
				case job.Kind == JobRun && asked.Swap(true):
					t.Error("the step is run again")
				case job.Kind == JobRun:
					if done {
						w.tenant.deleteMethod("m1")
					}
					return Result{State: StepThrottled, Unsure: true, Detail: "Graph asked to wait.", After: wait}, true
				case job.Kind == JobReconcile && !over.Load():
					t.Error("the step is reconciled before the wait is over")
				}
				return Result{}, false
			})
			sweeps := w.countSweeps(w.rdb)
			w.startRunner(w.service, "w")
			r := w.approved(deletionPlan(ClassDestroy, dana, "m1", "m2"))
			waitFor(t, "the wait", func() bool { return w.told(r.ID, audit.Waiting) == 1 })
			before := sweeps()
			waitFor(t, "some sweeps", func() bool { return sweeps() > before+20 })
			got := w.load(r.ID)
			if got.State != StateRunning || got.Journal[0].State != StepStarted || got.NotBefore.IsZero() {
				t.Errorf("while it waits it is %s, journal %+v", got.Summary(), got.Journal)
			}
			// With a tolerance of a second, because these times come from two clocks.
			if e := got.Journal[0]; got.NotBefore.Sub(e.Started) < wait-time.Second || got.Lease.Before(got.NotBefore.Add(-time.Second)) {
				t.Errorf("started at %v, it waits until %v, and its lease ends at %v", e.Started, got.NotBefore, got.Lease)
			}
			over.Store(true)
			w.expireLease(r.ID)
			if got := w.waitFinal(r.ID); got.Outcome != OutcomeSucceeded || got.Claim != 2 {
				t.Errorf("it is %s because %q, claim %d, journal %+v", got.Summary(), got.Why, got.Claim, got.Journal)
			}
			w.tenant.wantDeletedOnce(t, "m1", "m2")
			if n := len(w.tenant.jobsOfKind(JobReconcile)); n != 1 {
				t.Errorf("reconciled %d times", n)
			}
			w.checkInvariants()
		})
	}
}

// A throttled request occupies no worker, but it still holds its target.
func TestThrottledRequestHoldsTarget(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	var free atomic.Bool
	w.tenant.setScript(func(job Job) (Result, bool) {
		first := job.Request.Plan.Steps[0].Args["id"] == "m1"
		return Result{State: StepThrottled, After: 10 * time.Millisecond}, first && job.Kind == JobRun && !free.Load()
	})
	r := &Runner{Service: w.service, Work: w.tenant.Work, Name: "w", Concurrency: 1, Log: w.log}
	background(t, r.Run)
	first := w.approved(deletionPlan(ClassDestroy, dana, "m1"))
	waitFor(t, "the first to wait", func() bool { return w.load(first.ID).Claim > 1 })
	second := w.approved(deletionPlan(ClassDestroy, dana, "m2"))
	other := w.approved(deletionPlan(ClassDestroy, sam, "m3"))
	if got := w.waitFinal(other.ID); got.Outcome != OutcomeSucceeded { // the only worker is free for others
		t.Errorf("the request for the other target is %s", got.Summary())
	}
	if got := w.load(second.ID); got.State != StateApproved {
		t.Errorf("the second request for the target is %s while the first one waits", got.Summary())
	}
	free.Store(true)
	if a, b := w.waitFinal(first.ID), w.waitFinal(second.ID); a.Outcome != OutcomeSucceeded || b.Outcome != OutcomeSucceeded || b.Journal[0].Started.Before(a.Ended) {
		t.Errorf("the first is %s, the second %s", a.Summary(), b.Summary())
	}
	w.tenant.wantDeletedOnce(t, "m1", "m2", "m3")
	w.checkInvariants()
}

// A request starts immediately after the action that approves it, or after what it
// waited for has ended. It does not wait for the next sweep.
func TestWorkStartsWithoutSweep(t *testing.T) {
	t.Parallel()
	timing := longTimings()
	timing.Sweep = time.Hour
	w := newFixture(t, timing)
	r := &Runner{Service: w.service, Work: w.tenant.Work, Name: "w", Concurrency: 1, Log: w.log}
	background(t, r.Run)
	inProgress, resume := make(chan struct{}), make(chan struct{})
	w.tenant.setScript(func(job Job) (Result, bool) {
		if job.Kind == JobRun && job.Request.Plan.Steps[0].Args["id"] == "m1" {
			close(inProgress)
			<-resume
		}
		return Result{}, false
	})
	first := w.approved(deletionPlan(ClassDestroy, dana, "m1"))
	<-inProgress
	second := w.approved(deletionPlan(ClassDestroy, dana, "m2")) // waits for the target
	third := w.approved(deletionPlan(ClassDestroy, sam, "m3"))   // waits for a free worker
	close(resume)
	for _, id := range []string{first.ID, second.ID, third.ID} {
		if got := w.waitFinal(id); got.Outcome != OutcomeSucceeded {
			t.Errorf("%s is %s", id, got.Summary())
		}
	}
	w.checkInvariants()
}

// A worker that stalls between its write and its call, for so long that its lease
// may run out during the call, does not make the call.
func TestStalledWorkerDoesNotCallGraph(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	snap := begun(w)
	r := &Runner{Service: w.service, Work: w.tenant.Work, Name: "w", Concurrency: 1, Log: w.log}
	h := &execution{Runner: r, ctx: t.Context(), req: snap.Request, at: clock(snap.Now), renewed: time.Now().Add(longTimings().GraphCall + longTimings().GraphGrace - longTimings().Lease)}
	if _, err := h.runStep(Job{Kind: JobRun, Step: 0}); !errors.Is(err, ErrFenced) {
		t.Errorf("it continues: %v", err)
	}
	w.tenant.wantUntouched(t)
	if got := w.load(snap.ID); got.Journal[0].State != StepStarted {
		t.Errorf("its step is %s, want it started, so that it is reconciled", got.Journal[0].State)
	}
}

// countSweeps counts the sweeps of the processes that use this client. Each sweep
// checks for a rollback once.
func (w *fixture) countSweeps(rdb redis.UniversalClient) (soFar func() int) {
	var n atomic.Int32
	rdb.AddHook(beforeHook{checkRollbackScript.Hash(), func() { n.Add(1) }})
	return func() int { return int(n.Load()) }
}

// A request that cannot start must not be retried in a busy loop: there are two
// requests for one target, and the first one is slow. The sweep interval is long
// here, so that the runner sweeps only when the test wakes it.
func TestBlockedRequestIsNotRetriedInBusyLoop(t *testing.T) {
	t.Parallel()
	timing := longTimings()
	timing.Sweep = time.Hour
	w := newFixture(t, timing)
	release := make(chan struct{})
	w.tenant.setScript(func(job Job) (Result, bool) {
		if job.Kind == JobRun && job.Request.Plan.Steps[0].Args["id"] == "m1" {
			<-release
		}
		return Result{}, false
	})
	first := w.approved(deletionPlan(ClassDestroy, dana, "m1"))
	second := w.approved(deletionPlan(ClassDestroy, dana, "m2"))
	rdb := w.server.Client(t)
	sweeps := w.countSweeps(rdb)
	store, service := w.newProcess(rdb)
	w.startRunner(service, "w")
	const asked = 10
	for range asked {
		before := sweeps()
		store.wakeRunner()
		waitFor(t, "a sweep", func() bool { return sweeps() > before })
	}
	waitFor(t, "the first to be running", func() bool { return len(w.tenant.jobsOfKind(JobRun)) > 0 })
	<-time.After(100 * time.Millisecond) // time for sweeps that the test did not request
	if n := sweeps(); n != asked {
		t.Errorf("%d sweeps, and %d were requested", n, asked)
	}
	close(release)
	if a, b := w.waitFinal(first.ID), w.waitFinal(second.ID); a.Outcome != OutcomeSucceeded || b.Outcome != OutcomeSucceeded {
		t.Errorf("the first is %s, the second %s", a.Summary(), b.Summary())
	}
	w.checkInvariants()
}

func TestHaltedBetweenSteps(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	inProgress, resume := make(chan string), make(chan struct{})
	w.tenant.setScript(func(job Job) (Result, bool) {
		if job.Kind == JobRun && job.Step == 0 {
			inProgress <- job.Request.ID
			<-resume
		}
		return Result{}, false
	})
	w.startRunner(w.service, "w")
	r := w.approved(deletionPlan(ClassDestroy, dana, "m1", "m2"))
	<-inProgress
	if _, err := w.service.Stop(t.Context(), "stop", r.ID, sam, "I like it"); code(err) != CodeNotAllowed {
		t.Errorf("somebody who is not allowed to halts it: %v", err)
	}
	if _, err := w.service.Stop(t.Context(), "stop-1", r.ID, olga, "it is the wrong Dana"); err != nil {
		t.Errorf("halting: %v", err)
	}
	if _, err := w.service.Stop(t.Context(), "stop-2", r.ID, hanna, "me too"); code(err) != CodeDecided {
		t.Errorf("halting again: %v", err)
	}
	if _, err := w.service.Stop(t.Context(), "stop-1", r.ID, olga, "it is the wrong Dana"); err != nil {
		t.Errorf("halting, redelivered: %v", err)
	}
	close(resume)
	got := w.waitFinal(r.ID)
	if got.Outcome != OutcomePartial || got.Why != "Halted by Olga Lindqvist (olga.lindqvist@fernhill.example): it is the wrong Dana" {
		t.Errorf("it is %s because %q", got.Summary(), got.Why)
	}
	w.tenant.wantDeletedOnce(t, "m1")
	if n := w.tenant.jobsOfKind(JobRun); len(n) != 1 {
		t.Errorf("ran %v", n)
	}
	w.checkInvariants()
}

// Once a halt is confirmed, no further step starts, even if the halt comes between
// the worker's read and its write.
func TestNoStepStartsAfterHalt(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	snap := w.claimed(deletionPlan(ClassDestroy, dana, "m1"))
	seen := w.load(snap.ID) // the worker's read
	if _, err := w.service.Stop(t.Context(), w.op(), snap.ID, ravi, "wait"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.advance(t.Context(), seen.Request, seen.Now, "begin:0", StartStep{Step: 0}); !errors.Is(err, errHalted) {
		t.Errorf("a step starts after a halt: %v", err)
	}
	if got := w.load(snap.ID); got.StartedStep() {
		t.Errorf("journal %+v", got.Journal)
	}
}

// Halts come at random moments: once a halt is confirmed, no step starts after it.
func TestHaltsAtRandomMoments(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	var mu sync.Mutex
	halted, broken := map[string]bool{}, map[string]bool{}
	w.tenant.setScript(func(job Job) (Result, bool) {
		mu.Lock()
		defer mu.Unlock()
		if job.Kind == JobRun && halted[job.Request.ID] {
			broken[job.Request.ID] = true
		}
		return Result{State: StepDone}, true
	})
	w.startRunner(w.service, "w")
	for round := range 10 {
		r := w.approved(deletionPlan(ClassDestroy, dana, fmt.Sprint(round), "x", "y", "z"))
		waitFor(t, "it to run", func() bool {
			_, err := w.service.Stop(t.Context(), w.op(), r.ID, ravi, "enough")
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				// The step that runs at the halt may have started before it.
				if now := w.load(r.ID); now.State == StateRunning && !slices.ContainsFunc(now.Journal, func(e JournalEntry) bool { return e.State == StepStarted }) {
					halted[r.ID] = true
				}
			}
			return err == nil || w.load(r.ID).State.Final()
		})
		w.waitFinal(r.ID)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(broken) > 0 {
		t.Errorf("steps started after a halt: %v", slices.Sorted(maps.Keys(broken)))
	}
	w.checkInvariants()
}

// A step that a worker started and did not end is reconciled by the next worker,
// once, and the request continues from there.
func TestDeadWorkersStepIsReconciled(t *testing.T) {
	t.Parallel()
	for name, applied := range map[string]bool{"the call succeeded": true, "the call was not made": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, longTimings())
			snap := w.claimed(deletionPlan(ClassDestroy, dana, "m1", "m2", "m3"))
			ctx, r := t.Context(), snap.Request
			for i, a := range []Action{StartStep{Step: 0}, EndStep{Step: 0, Result: w.tenant.Work(ctx, Job{Kind: JobRun, Request: r, Step: 0})}, StartStep{Step: 1}} {
				var err error
				if r, err = w.store.advance(ctx, r, snap.Now, fmt.Sprint("write-", i), a); err != nil {
					t.Fatal(err)
				}
			}
			if applied {
				w.tenant.Work(ctx, Job{Kind: JobRun, Request: r, Step: 1})
			}
			w.expireLease(snap.ID)
			for i := range 3 {
				_, service := w.newProcess(w.server.Client(t))
				w.startRunner(service, fmt.Sprint("worker-", i))
			}
			got := w.waitFinal(snap.ID)
			if got.Outcome != OutcomeSucceeded || got.Claim < 2 {
				t.Errorf("it is %s because %q, claim %d", got.Summary(), got.Why, got.Claim)
			}
			w.tenant.wantDeletedOnce(t, "m1", "m2", "m3")
			if n := w.tenant.jobsOfKind(JobReconcile); len(n) != 1 {
				t.Errorf("reconciled %v, want once", n)
			}
			w.checkInvariants()
		})
	}
}

// After a halt, or if the request is not allowed any more, a dead worker's step is
// read and not repeated.
func TestDeadWorkersStepIsNotRepeatedWhenForbidden(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		word func(w *fixture, id string)
		why  string
	}{
		"halted": {func(w *fixture, id string) {
			if _, err := w.service.Stop(w.t.Context(), w.op(), id, ravi, "wrong person"); err != nil {
				w.t.Fatal(err)
			}
		}, ""},
		"not allowed any more": {func(w *fixture, id string) { w.directory.change(ravi, func(s *Account) { s.Groups = nil }) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, longTimings())
			snap := w.claimed(deletionPlan(ClassDestroy, dana, "m1", "m2"))
			if _, err := w.store.advance(t.Context(), snap.Request, snap.Now, "begin:0", StartStep{Step: 0}); err != nil {
				t.Fatal(err)
			}
			tt.word(w, snap.ID)
			w.expireLease(snap.ID)
			w.startRunner(w.service, "worker-2")
			got := w.waitFinal(snap.ID)
			if got.Outcome != OutcomeFailed || got.Journal[0].State != StepFailed || got.Journal[1].State != StepSkipped {
				t.Errorf("it is %s because %q, journal %+v", got.Summary(), got.Why, got.Journal)
			}
			w.tenant.wantUntouched(t)
			if jobs := w.tenant.jobsOfKind(""); len(jobs) != 1 || !strings.HasSuffix(jobs[0], "read-only") {
				t.Errorf("jobs %v", jobs)
			}
			w.checkInvariants()
		})
	}
}

// A reconciliation that Graph throttles is repeated as a reconciliation: the outcome
// of the dead worker's step is still not known.
func TestThrottledReconciliationIsRepeated(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	var throttled atomic.Int32
	w.tenant.setScript(func(job Job) (Result, bool) {
		return Result{State: StepThrottled, After: 10 * time.Millisecond}, job.Kind == JobReconcile && throttled.Add(1) <= 2
	})
	snap := w.claimed(deletionPlan(ClassDestroy, dana, "m1"))
	r, err := w.store.advance(t.Context(), snap.Request, snap.Now, "begin:0", StartStep{Step: 0})
	if err != nil {
		t.Fatal(err)
	}
	w.tenant.Work(t.Context(), Job{Kind: JobRun, Request: r, Step: 0}) // the call succeeded
	w.expireLease(snap.ID)
	w.startRunner(w.service, "worker-2")
	got := w.waitFinal(snap.ID)
	if got.Outcome != OutcomeSucceeded {
		t.Errorf("it is %s because %q, journal %+v", got.Summary(), got.Why, got.Journal)
	}
	w.tenant.wantDeletedOnce(t, "m1")
	w.checkInvariants()
}

// If a worker died after its last step, or after a step that stops the rest, there
// is nothing left to check: the next worker only finishes the request.
func TestDeadWorkersRequestIsFinished(t *testing.T) {
	t.Parallel()
	for _, state := range []StepState{StepDone, StepFailed} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, longTimings())
			snap := w.claimed(deletionPlan(ClassDestroy, dana, "m1"))
			r := snap.Request
			for _, a := range []Action{StartStep{Step: 0}, EndStep{Step: 0, Result: Result{State: state}}} {
				var err error
				if r, err = w.store.advance(t.Context(), r, snap.Now, fmt.Sprintf("%T", a), a); err != nil {
					t.Fatal(err)
				}
			}
			w.directory.goDown(errors.New("no route to Graph"))
			w.expireLease(snap.ID)
			w.startRunner(w.service, "worker-2")
			got := w.waitFinal(snap.ID)
			if want := map[StepState]Outcome{StepDone: OutcomeSucceeded, StepFailed: OutcomeFailed}[state]; got.Outcome != want || got.Why != "" {
				t.Errorf("it is %s because %q", got.Summary(), got.Why)
			}
			if jobs := w.tenant.jobsOfKind(""); len(jobs) > 0 {
				t.Errorf("jobs %v", jobs)
			}
			w.checkInvariants()
		})
	}
}

// The claim is a fencing token: a worker that lost it cannot write any more.
func TestWritesWithLostClaimAreRefused(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	first := w.claimed(deletionPlan(ClassDestroy, dana, "m1", "m2"))
	mine, err := w.store.advance(ctx, first.Request, first.Now, "begin:0", StartStep{Step: 0})
	if err != nil {
		t.Fatal(err)
	}

	second, service := w.newProcess(w.server.Client(t))
	if _, err := second.claim(ctx, w.load(first.ID), "worker-2"); err == nil {
		t.Error("a second worker claims it while the first one's lease is valid")
	}
	early := w.load(first.ID)
	early.Now = early.Lease.Add(time.Millisecond) // a worker whose clock is wrong
	if _, err := second.claim(ctx, early, "worker-2"); !errors.Is(err, ErrFenced) {
		t.Errorf("a second worker with a wrong clock: %v", err)
	}
	w.expireLease(first.ID)
	taken, err := second.claim(ctx, w.load(first.ID), "worker-2")
	if err != nil || taken.Claim != 2 {
		t.Fatalf("taking over: claim %d, %v", taken.Claim, err)
	}

	state := w.load(first.ID)
	for name, a := range map[string]Action{
		"begin:0": StartStep{Step: 0}, // a write that succeeded: its replay must not let the worker continue
		"begin:1": StartStep{Step: 1}, "end:0": EndStep{Step: 0, Result: Result{State: StepDone}},
		"wait:0": Release{Step: 0, After: time.Second}, "give-back": Release{Step: -1}, "finish": Finish{},
	} {
		from := mine
		switch name {
		case "begin:0":
			from = first.Request
		case "finish", "begin:1":
			from.Journal = []JournalEntry{{State: StepDone}, {}}
		}
		if _, err := w.store.advance(ctx, from, first.Now, name, a); !errors.Is(err, ErrFenced) {
			t.Errorf("%s of the first worker: %v", name, err)
		}
	}
	if now := w.load(first.ID); now.Version != state.Version || !sameJSON(t, now.Request, state.Request) {
		t.Errorf("the first worker changed it:\n%+v\n%+v", state.Request, now.Request)
	}
	w.expireLease(first.ID)
	w.startRunner(service, "worker-3")
	if got := w.waitFinal(first.ID); got.Outcome != OutcomeSucceeded {
		t.Errorf("it is %s because %q", got.Summary(), got.Why)
	}
	w.checkInvariants()
}

// Two processes with the same name are still two workers.
func TestWorkersWithSameName(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	snap := w.load(w.approved(deletionPlan(ClassDestroy, dana, "m1")).ID)
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
		t.Errorf("%d of 8 workers with the same name hold it", won)
	}
	w.checkInvariants()
}

// Many requests for two targets, and many workers: one request at a time per target.
func TestRequestsForOneTargetNeverInterleave(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	w.tenant = newTestTenant()
	w.tenant.setScript(func(job Job) (Result, bool) {
		if job.Kind == JobRun {
			<-time.After(time.Millisecond) // time for another request to interleave
		}
		return Result{}, false
	})
	var ids []string
	for i := range 6 {
		for _, target := range []Person{dana, sam} {
			a, b := fmt.Sprintf("%s-%d-a", target.Name, i), fmt.Sprintf("%s-%d-b", target.Name, i)
			w.tenant.methods[a], w.tenant.methods[b] = true, true
			ids = append(ids, w.approved(deletionPlan(ClassDestroy, target, a, b)).ID)
		}
	}
	for i := range 4 {
		_, service := w.newProcess(w.server.Client(t))
		w.startRunner(service, fmt.Sprint("worker-", i))
	}
	type span struct{ from, to time.Time }
	ran := map[string][]span{}
	for _, id := range ids {
		got := w.waitFinal(id)
		if got.Outcome != OutcomeSucceeded {
			t.Errorf("%s is %s because %q", id, got.Summary(), got.Why)
		}
		ran[got.Plan.Target.ID] = append(ran[got.Plan.Target.ID], span{got.Journal[0].Started, got.Ended})
	}
	if w.tenant.overlapped() {
		t.Error("two requests ran for one target at the same time")
	}
	for target, spans := range ran {
		slices.SortFunc(spans, func(a, b span) int { return a.from.Compare(b.from) })
		for i := range spans[1:] {
			if spans[i+1].from.Before(spans[i].to) {
				t.Errorf("%s: one ran from %v, the one before it until %v", target, spans[i+1].from, spans[i].to)
			}
		}
	}
	w.checkInvariants()
}

// A runner that stops lets the current step finish and releases the request
// immediately, so that another process can resume it without waiting for the lease.
func TestStoppingReleasesImmediately(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings()) // with a lease that does not run out
	inProgress, resume := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.tenant.setScript(func(job Job) (Result, bool) {
		if job.Kind == JobRun && job.Step == 0 {
			once.Do(func() { close(inProgress); <-resume })
		}
		return Result{}, false
	})
	r := w.approved(deletionPlan(ClassDestroy, dana, "m1", "m2"))
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	first := &Runner{Service: w.service, Work: w.tenant.Work, Name: "first", Concurrency: 1, Log: w.log}
	go func() { defer close(stopped); first.Run(ctx) }()
	<-inProgress
	cancel()
	select {
	case <-stopped:
		t.Fatal("it did not wait for the current step")
	case <-time.After(20 * time.Millisecond):
	}
	close(resume)
	<-stopped
	got := w.load(r.ID)
	if got.State != StateRunning || got.Journal[0].State != StepDone || got.Journal[1].State != StepWaiting || got.Lease.After(got.Now) {
		t.Errorf("it was left %s, journal %+v, lease %v, now %v", got.Summary(), got.Journal, got.Lease, got.Now)
	}
	_, service := w.newProcess(w.server.Client(t))
	w.startRunner(service, "second")
	if got := w.waitFinal(r.ID); got.Outcome != OutcomeSucceeded || got.Worker != "second" {
		t.Errorf("it is %s by %s", got.Summary(), got.Worker)
	}
	w.tenant.wantDeletedOnce(t, "m1", "m2")
	w.checkInvariants()
}

// A runner that stops during the checks before the first step does not end the
// request, and does not wait for the checks.
func TestStoppingDuringChecks(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"recheck", "check"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, longTimings()) // so that neither look-ups nor calls time out
			r := w.approved(deletionPlan(ClassDestroy, dana, "m1"))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			work := w.tenant.Work
			if where == "recheck" {
				w.directory.goDown(errors.New("no route"))
			} else {
				work = func(ctx context.Context, job Job) Result {
					cancel()
					<-ctx.Done() // like a call to Graph that hangs
					return Result{State: StepFailed, Detail: "Graph did not answer."}
				}
			}
			runner := &Runner{Service: w.service, Work: work, Name: "first", Concurrency: 1, Log: w.log}
			stopped := make(chan struct{})
			go func() { defer close(stopped); runner.Run(ctx) }()
			if where == "recheck" {
				waitFor(t, "it to be claimed", func() bool { return w.load(r.ID).Claim == 1 })
				cancel()
			}
			waitClosed(t, "it to stop", stopped)
			got := w.load(r.ID)
			if got.State != StateRunning || got.StartedStep() || got.Lease.After(got.Now) {
				t.Errorf("it was left %s because %q, lease %v, now %v", got.Summary(), got.Why, got.Lease, got.Now)
			}
			w.directory.goDown(nil)
			w.startRunner(w.service, "second")
			if got := w.waitFinal(r.ID); got.Outcome != OutcomeSucceeded {
				t.Errorf("it is %s because %q", got.Summary(), got.Why)
			}
			w.checkInvariants()
		})
	}
}

func TestSweepExpiresRequests(t *testing.T) {
	t.Parallel()
	timing := longTimings()
	timing.RunWithin = 30 * time.Millisecond
	w := newFixture(t, timing)
	w.service.Policy.Commands = map[string]Rule{"entra-require-reregister": {Lifetime: 30 * time.Millisecond}}
	undecided := w.submit(deletionPlan(ClassDestroy, dana, "m1"))

	// A request that is approved in time, but whose target is not free in time.
	w.service.Policy.Commands = nil
	release := w.blockTarget(sam)
	blocked := w.approved(deletionPlan(ClassDestroy, sam, "m2"))
	for i := range 3 {
		_, service := w.newProcess(w.server.Client(t))
		w.startRunner(service, fmt.Sprint("worker-", i))
	}
	for id, why := range map[string]string{undecided.ID: "Nobody decided in time.", blocked.ID: "It was approved, but could not be started in time."} {
		if got := w.waitFinal(id); got.State != StateExpired || got.Why != why {
			t.Errorf("it is %s because %q, want %q", got.Summary(), got.Why, why)
		}
	}
	w.tenant.wantUntouched(t)
	release()
	w.checkInvariants()
}

// blockTarget makes a request that never ends hold a target.
func (w *fixture) blockTarget(target Person) (release func()) {
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

// deleteRequest deletes a request, and removes it from the lists.
func (w *fixture) deleteRequest(id string) {
	w.t.Helper()
	ctx, k := w.t.Context(), w.store.keys
	if err := errors.Join(w.rdb.Del(ctx, k.request(id)).Err(), w.rdb.ZRem(ctx, k.open(), id).Err(), w.rdb.ZRem(ctx, k.due(), id).Err()); err != nil {
		w.t.Fatal(err)
	}
}

// A request whose hash was deleted before it ended blocks neither other requests for
// its target nor an identical request.
func TestDeletedRequestBlocksNothing(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	gone := w.claimed(deletionPlan(ClassDestroy, dana, "m1"))
	w.deleteRequest(gone.ID)
	waiting := w.approved(deletionPlan(ClassDestroy, dana, "m2"))
	again := w.approved(deletionPlan(ClassDestroy, dana, "m1"))
	w.startRunner(w.service, "worker")
	for _, id := range []string{waiting.ID, again.ID} {
		if got := w.waitFinal(id); got.Outcome != OutcomeSucceeded {
			t.Errorf("it is %s because %q", got.Summary(), got.Why)
		}
	}
	w.tenant.wantDeletedOnce(t, "m1", "m2")
	w.checkInvariants()
}

// Containment does not expire while another request may still hold its target.
func TestContainmentWaitsForItsTarget(t *testing.T) {
	t.Parallel()
	timing := longTimings()
	timing.RunWithin = 30 * time.Millisecond
	w := newFixture(t, timing)
	ctx := t.Context()
	w.startRunner(w.service, "worker")
	release := w.blockTarget(dana)
	other := w.approved(deletionPlan(ClassDestroy, dana, "m1"))
	r := w.submit(deletionPlan(ClassContain, dana, "m2"))
	if _, err := w.service.BreakGlass(ctx, w.op(), r.ID, olga, "an intruder"); err != nil {
		t.Fatal(err)
	}
	if left := w.load(r.ID).Deadline.Sub(w.load(r.ID).Now); left <= timing.RunFor/2 {
		t.Errorf("it has %s to start", left)
	}
	if got := w.waitFinal(other.ID); got.State != StateExpired {
		t.Errorf("the request that is no containment is %s", got.Summary())
	}
	release()
	waitFor(t, "the containment", func() bool { return w.load(r.ID).State == StateReview })
	w.tenant.wantDeletedOnce(t, "m2")
	w.checkInvariants()
}

// More requests than one sweep reads wait for a target, and the worker of the request
// that holds it has died. That request is taken over, although the others are due
// before it.
func TestBlockedRequestsDoNotHideTheirBlocker(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	held := w.claimed(deletionPlan(ClassContain, dana, "m1"))
	for i := range dueBatch + 50 {
		r := w.approved(deletionPlan(ClassContain, dana, fmt.Sprint("x", i)))
		w.rdb.ZAdd(t.Context(), w.store.keys.due(), redisZ(1, r.ID))
	}
	w.expireLease(held.ID)
	w.rdb.ZAdd(t.Context(), w.store.keys.due(), redisZ(2, held.ID)) // after all of them
	w.startRunner(w.service, "worker")
	if got := w.waitFinal(held.ID); got.Outcome != OutcomeSucceeded {
		t.Errorf("it is %s because %q", got.Summary(), got.Why)
	}
	w.tenant.wantDeletedOnce(t, "m1")
}

// Requests that cannot be decrypted do not block the others.
func TestUndecodableRequestsDoNotBlockOthers(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	pipe := w.rdb.Pipeline()
	for i := range dueBatch + 50 {
		id := fmt.Sprint("R-BROKEN", i)
		pipe.HSet(ctx, w.store.keys.request(id), "state", "approved", "version", "3", "claim", "0", "body", "k1.AAAA")
		pipe.ZAdd(ctx, w.store.keys.due(), redisZ(0, id))
		pipe.ZAdd(ctx, w.store.keys.open(), redisZ(0, id))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	w.log = discard
	_, service := w.newProcess(w.rdb)
	service.Log = discard
	w.startRunner(service, "w")
	r := w.approved(deletionPlan(ClassDestroy, dana, "m1"))
	if got := w.waitFinal(r.ID); got.Outcome != OutcomeSucceeded {
		t.Errorf("it is %s", got.Summary())
	}
	w.rdb.ZAdd(ctx, w.store.keys.open(), redisZ(-1, r.ID))
	if open, err := w.store.Open(ctx); err != nil || len(open) != 1 {
		t.Errorf("the list of open requests: %d, %v", len(open), err)
	}
}

// Nothing is started while the audit log is not being written.
func TestNothingStartsWhileAuditLags(t *testing.T) {
	t.Parallel()
	timing := longTimings()
	timing.AuditLag = 30 * time.Millisecond
	w := newFixture(t, timing)
	w.service.Log = discard
	runner := &Runner{Service: w.service, Work: w.tenant.Work, Name: "w", Audit: "audit", Concurrency: 1, Log: discard}
	r := w.approved(deletionPlan(ClassDestroy, dana, "m1"))
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
	if got := w.load(r.ID); got.State != StateApproved {
		t.Errorf("it is %s", got.Summary())
	}
	background(t, func(ctx context.Context) {
		w.store.Follow(ctx, "reader", Projection{Name: "audit", Handle: func(_ context.Context, batch []audit.Event) (int, error) { return len(batch), nil }}, w.log)
	})
	if got := w.waitFinal(r.ID); got.Outcome != OutcomeSucceeded {
		t.Errorf("it is %s", got.Summary())
	}
	w.checkInvariants()
}

// Nothing is executed on a Redis that lost confirmed writes.
func TestRollbackIsDetectedWithoutCommit(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(w *fixture){
		"emptied": func(w *fixture) { w.server.Empty(w.t) },
		"restored": func(w *fixture) {
			// As after a failover: everything is there except the last writes.
			w.rdb.DecrBy(w.t.Context(), w.store.keys.sequence(), 2)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, longTimings())
			r := w.approved(deletionPlan(ClassDestroy, dana, "m1"))
			lose(w)
			w.service.Log = discard
			runner := &Runner{Service: w.service, Work: w.tenant.Work, Name: "w", Concurrency: 1, Log: discard}
			stop := background(t, runner.Run)
			waitFor(t, "it to be detected without any action", w.store.HasLostWrites)
			if _, err := w.service.Submit(t.Context(), w.op(), Submit{Plan: deletionPlan(ClassDestroy, sam, "m2"), Requester: hanna}); !errors.Is(err, ErrLostWrites) {
				t.Errorf("submitting: %v", err)
			}
			start := time.Now()
			waitFor(t, "some sweeps", func() bool { return time.Since(start) > 20*w.timing.Sweep })
			if jobs := w.tenant.jobsOfKind(""); len(jobs) > 0 {
				t.Errorf("jobs %v", jobs)
			}
			if name == "restored" {
				if got := w.load(r.ID); got.State != StateApproved {
					t.Errorf("it is %s", got.Summary())
				}
			}
			stop()
		})
	}

	// Also when it happens while a request is running.
	w := newFixture(t, longTimings())
	w.tenant.setScript(func(job Job) (Result, bool) {
		if job.Kind == JobRun && job.Step == 0 {
			w.rdb.DecrBy(context.Background(), w.store.keys.sequence(), 3)
		}
		return Result{}, false
	})
	runner := &Runner{Service: w.service, Work: w.tenant.Work, Name: "w", Concurrency: 1, Log: discard}
	background(t, runner.Run)
	w.approved(deletionPlan(ClassDestroy, dana, "m1", "m2"))
	waitFor(t, "it to be detected", w.store.HasLostWrites)
	if n := w.tenant.jobsOfKind(JobRun); len(n) != 1 {
		t.Errorf("ran %v", n)
	}
}

// The runner waits for a Redis that is unavailable for a moment and loses nothing.
func TestRedisRestartIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings(), redistest.AppendOnly())
	w.service.Log = discard
	w.log = discard
	inProgress, resume := make(chan struct{}), make(chan struct{})
	w.tenant.setScript(func(job Job) (Result, bool) {
		if job.Kind == JobRun && job.Step == 0 {
			close(inProgress)
			<-resume
		}
		return Result{}, false
	})
	w.startRunner(w.service, "w")
	r := w.approved(deletionPlan(ClassDestroy, dana, "m1", "m2"))
	<-inProgress
	w.server.Kill(t)
	close(resume) // the outcome of the first step cannot be written to the journal yet
	<-time.After(50 * time.Millisecond)
	w.server.Restart(t)
	got := w.waitFinal(r.ID)
	if got.Outcome != OutcomeSucceeded || got.Claim != 1 {
		t.Errorf("it is %s because %q, claim %d", got.Summary(), got.Why, got.Claim)
	}
	w.tenant.wantDeletedOnce(t, "m1", "m2")
	w.checkInvariants()
}
