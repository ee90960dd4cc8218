package approvals

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"countersign/audit"
)

// byHand is a plan that deletes methods and then hands the rest to people.
func byHand(ids ...string) Plan {
	p := deletionPlan(ClassDestroy, dana, ids...)
	p.Command, p.Title = "entra-delete-app-passwords", "Delete app passwords"
	p.Steps = append(p.Steps, Step{Op: "people", Words: "Delete the app passwords in the Entra admin center", ByPeople: true})
	return p
}

// handedOff is a request that waits for people, and attested one that waits
// for somebody to confirm what Ravi says that he did.
func handedOff(w *fixture) Snapshot {
	snap := w.claimed(byHand())
	if _, err := w.store.advance(w.t.Context(), snap.Request, snap.Now, "hand-off:0", HandOff{Step: 0}); err != nil {
		w.t.Fatal(err)
	}
	return w.load(snap.ID)
}

func attested(w *fixture) Snapshot {
	at := handedOff(w)
	if _, err := w.service.Attest(w.t.Context(), w.op(), at.ID, ravi); err != nil {
		w.t.Fatal(err)
	}
	return w.load(at.ID)
}

// untilIn waits for a request to be in a state.
func (w *fixture) untilIn(id string, s State) Snapshot {
	w.t.Helper()
	var snap Snapshot
	waitFor(w.t, fmt.Sprint(id, " to be ", s), func() bool { snap = w.load(id); return snap.State == s })
	return snap
}

// told counts the events of a kind.
func (w *fixture) told(id string, kind audit.Kind) int {
	w.t.Helper()
	n := 0
	for _, k := range w.eventKinds(id) {
		if k == kind {
			n++
		}
	}
	return n
}

// What came before a hand-off decides what it comes to.
func TestHandOffsBehindOtherSteps(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		first   Result
		carryOn bool
		state   State // after the runner has done its part
		outcome Outcome
		last    StepState
	}{
		{"done", Result{State: StepDone}, false, StateHandedOff, OutcomeAttested, StepAttested},
		{"already so", Result{State: StepAlready}, false, StateHandedOff, OutcomeAttested, StepAttested},
		{"failed, carrying on", Result{State: StepFailed}, true, StateHandedOff, OutcomePartial, StepAttested},
		{"uncertain, carrying on", Result{State: StepUncertain}, true, StateHandedOff, OutcomeUncertain, StepAttested},
		{"failed", Result{State: StepFailed}, false, StateDone, OutcomeFailed, StepSkipped},
		{"uncertain", Result{State: StepUncertain}, false, StateDone, OutcomeUncertain, StepSkipped},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, longTimings())
			w.tenant.setScript(func(job Job) (Result, bool) { return tt.first, job.Kind == JobRun })
			w.startRunner(w.service, "w")
			plan := byHand("m1")
			plan.Steps[0].CarryOn = tt.carryOn
			got := w.untilIn(w.approved(plan).ID, tt.state)
			if tt.state == StateHandedOff {
				events := w.events()
				if e := events[len(events)-1]; e.Kind != audit.HandedOff || len(e.Steps) != 2 || e.Steps[0].State != string(tt.first.State) || e.Steps[1].State != string(StepHandedOff) {
					t.Errorf("the event is %+v", e)
				}
				for i, press := range []func(context.Context, string, string, Person) (Request, error){w.service.Attest, w.service.Confirm} {
					if _, err := press(t.Context(), w.op(), got.ID, []Person{ravi, olga}[i]); err != nil {
						t.Fatal(err)
					}
				}
				got = w.waitFinal(got.ID)
			}
			if got.Outcome != tt.outcome || got.Journal[1].State != tt.last {
				t.Errorf("it is %s, journal %+v", got.Summary(), got.Journal)
			}
			if jobs := w.tenant.jobsOfKind(JobRun); len(jobs) != 1 {
				t.Errorf("what people do was given to the tenant: %v", jobs)
			}
			w.checkInvariants()
		})
	}
}

// An open hand-off lies on the service and is reminded of, by one process at a
// time, until it is closed; it is in nobody's way but that of its like.
func TestAnOpenHandOffStaysOpen(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings()) // reminders are an hour apart
	ctx := t.Context()
	rdb := w.server.Client(t)
	sweeps := w.countSweeps(rdb)
	for i := range 3 {
		line := rdb
		if i > 0 {
			line = w.server.Client(t)
		}
		_, service := w.newProcess(line)
		w.startRunner(service, fmt.Sprint("worker-", i))
	}
	r := w.untilIn(w.approved(byHand()).ID, StateHandedOff)
	ask := Submit{Plan: byHand(), Requester: hanna, Justification: "again"}
	if _, err := w.service.Submit(ctx, w.op(), ask); code(err) != CodeIdentical {
		t.Errorf("the same while it is open: %v", err)
	}
	if other := w.waitFinal(w.approved(deletionPlan(ClassDestroy, dana, "m1", "m2")).ID); other.Outcome != OutcomeSucceeded {
		t.Errorf("another one for its target is %s", other.Summary())
	}
	swept := func() {
		t.Helper()
		before := sweeps()
		waitFor(t, "some sweeps", func() bool { return sweeps() > before+20 })
	}
	// Each time an hour has passed, one of the three reminds of it, and once.
	reminders := 0
	hourPasses := func() {
		t.Helper()
		reminders++
		w.expireLease(r.ID)
		waitFor(t, "a reminder", func() bool { return w.told(r.ID, audit.Reminded) >= reminders })
		swept()
		if n := w.told(r.ID, audit.Reminded); n != reminders {
			t.Errorf("after %d hours it was reminded of %d times", reminders, n)
		}
		if got := w.load(r.ID); got.Lease.Sub(got.Now) > w.timing.Remind || got.Lease.Sub(got.Now) < w.timing.Remind-10*time.Minute {
			t.Errorf("the next reminder is due in %v", got.Lease.Sub(got.Now))
		}
	}
	for range 3 {
		hourPasses()
	}
	if _, err := w.service.Attest(ctx, w.op(), r.ID, hanna); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		hourPasses() // until somebody confirms it
	}
	open, err := w.store.Open(ctx)
	if err != nil || len(open) != 1 || open[0].ID != r.ID || open[0].State != StateHandedOff {
		t.Errorf("the desk has %+v, %v", open, err)
	}
	if _, err := w.service.Confirm(ctx, w.op(), r.ID, ravi); err != nil {
		t.Fatal(err)
	}
	w.rdb.ZAdd(ctx, w.store.keys.due(), redisZ(1, r.ID)) // as whoever read it before it was closed
	swept()
	w.rdb.ZRem(ctx, w.store.keys.due(), r.ID)
	if n := w.told(r.ID, audit.Reminded); n != reminders {
		t.Errorf("reminded %d times of what is closed", n-reminders)
	}
	if open, err := w.store.Open(ctx); err != nil || len(open) != 0 {
		t.Errorf("the desk still has %+v, %v", open, err)
	}
	reasons := map[string]bool{}
	for _, e := range w.events() {
		if e.Kind != audit.Reminded {
			continue
		}
		reasons[e.Reason] = true
		lint(t, e.Reason)
	}
	if len(reasons) != 2 {
		t.Errorf("the reminders say %v", reasons)
	}
	if _, err := w.service.Submit(ctx, w.op(), ask); err != nil {
		t.Errorf("the same once it is closed: %v", err)
	}
	w.checkInvariants()
}

// Who read it a moment too early reminds of nothing, and brings nothing back.
func TestALateReminder(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	at := attested(w)
	if err := w.store.remind(ctx, at); err != nil || w.told(at.ID, audit.Reminded) != 0 {
		t.Errorf("it reminded before its time: %v", err)
	}
	w.expireLease(at.ID)
	at = w.load(at.ID)
	for _, err := range atOnce(8, func(int) error { return w.store.remind(context.Background(), at) }) {
		if err != nil {
			t.Error(err)
		}
	}
	if n := w.told(at.ID, audit.Reminded); n != 1 {
		t.Errorf("eight processes reminded %d times", n)
	}
	w.expireLease(at.ID)
	stale := w.load(at.ID)
	if _, err := w.service.Confirm(ctx, w.op(), at.ID, olga); err != nil {
		t.Fatal(err)
	}
	if err := w.store.remind(ctx, stale); err != nil {
		t.Error(err)
	}
	if got := w.load(at.ID); got.State != StateDone || got.Version != stale.Version+1 || w.told(at.ID, audit.Reminded) != 1 {
		t.Errorf("it is %s, version %d after %d", got.Summary(), got.Version, stale.Version)
	}
	w.checkInvariants()
}

// The requester may take a hand-off back for as long as nobody says that it
// is done. What was executed before it stays told.
func TestAHandOffIsTakenBack(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	w.startRunner(w.service, "w")
	r := w.untilIn(w.approved(byHand("m1")).ID, StateHandedOff)
	if _, err := w.service.Cancel(ctx, w.op(), r.ID, ravi); code(err) != CodeNotRequester {
		t.Errorf("an approver cancels it: %v", err)
	}
	if _, err := w.service.Cancel(ctx, w.op(), r.ID, hanna); err != nil {
		t.Errorf("its requester cancels it: %v", err)
	}
	got := w.load(r.ID)
	if got.State != StateCancelled || got.Journal[0].State != StepDone || got.Journal[1].State != StepSkipped {
		t.Errorf("it is %s, journal %+v", got.Summary(), got.Journal)
	}
	events := w.events()
	if e := events[len(events)-1]; e.Kind != audit.Cancelled || len(e.Steps) != 2 || e.Steps[0].State != string(StepDone) || e.Steps[1].State != string(StepSkipped) {
		t.Errorf("the event is %+v", e)
	}
	if _, err := w.service.Attest(ctx, w.op(), r.ID, ravi); code(err) != CodeDecided {
		t.Errorf("somebody did what was cancelled: %v", err)
	}
	again := w.untilIn(w.approved(byHand("m2")).ID, StateHandedOff)
	if _, err := w.service.Attest(ctx, w.op(), again.ID, ravi); err != nil {
		t.Fatal(err)
	}
	_, err := w.service.Cancel(ctx, w.op(), again.ID, hanna)
	if code(err) != CodeDecided || !strings.Contains(err.Error(), "Ravi Menon (ravi.menon@fernhill.example) says that it is done") {
		t.Errorf("cancelling what was done: %v", err)
	}
	w.checkInvariants()
}

// Every no about a hand-off is recorded, and is the same when the press comes
// again.
func TestRefusalsAboutAHandOffAreRecorded(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	at := attested(w)
	w.directory.change(dana, func(s *Account) { s.Groups = []string{helpDesk, approvers} }) // whom the policy would let
	if err := w.rdb.Set(ctx, w.store.keys.mark(mina.ID), "R-OLD", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	if err := w.rdb.Del(ctx, w.store.keys.mark(dana.ID)).Err(); err != nil {
		t.Fatal(err)
	}
	for verb, press := range map[string]func(context.Context, string, string, Person) (Request, error){"report it as done": w.service.Attest, "confirm": w.service.Confirm} {
		for i, tt := range []struct {
			who  Person
			want Code
		}{
			{ravi, CodeAlreadyDecided}, // he attested it
			{dana, CodeTarget}, {sam, CodeNotAllowed}, {pat, CodeGuest}, {bo, CodeDisabled}, {mina, CodeRecentTarget}, {Person{Slack: "U0X"}, CodeUnknownPerson},
		} {
			op := fmt.Sprint(verb, i)
			_, err := press(ctx, op, at.ID, tt.who)
			if code(err) != tt.want {
				t.Errorf("%s by %s: %v, want %q", verb, tt.who, err, tt.want)
				continue
			}
			all := w.events()
			if e := all[len(all)-1]; e.Kind != audit.Refused || e.Actor != tt.who || e.Outcome != verb || e.Reason != err.Error() || e.Request != at.ID {
				t.Errorf("%s by %s left the event %+v", verb, tt.who, e)
			}
			if _, twice := press(ctx, op, at.ID, tt.who); twice == nil || twice.Error() != err.Error() || len(w.events()) != len(all) {
				t.Errorf("%s by %s, redelivered: %v", verb, tt.who, twice)
			}
		}
		if _, err := press(ctx, "none"+verb, "R-NOTHING", ravi); code(err) != CodeNoRequest {
			t.Errorf("%s of nothing: %v", verb, err)
		}
	}
	if got := w.load(at.ID); got.Version != at.Version || got.State != StateHandedOff {
		t.Errorf("after all that it is %s, version %d", got.Summary(), got.Version)
	}
	w.checkInvariants()
}

// However many say so at one moment, one did it and one other confirms it.
func TestHandOffsAtOneMoment(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	at := handedOff(w)
	people := []Person{hanna, ravi, olga, mina}
	for _, press := range []struct {
		name string
		by   func(context.Context, string, string, Person) (Request, error)
	}{{"attest", w.service.Attest}, {"confirm", w.service.Confirm}} {
		yes := 0
		for i, err := range atOnce(16, func(i int) error { // each of them twice, and delivered twice
			_, err := press.by(context.Background(), fmt.Sprint(press.name, i%8), at.ID, people[i%4])
			return err
		}) {
			switch code(err) {
			case "":
				yes++
			case CodeAlreadyDecided, CodeDecided:
			default:
				t.Errorf("%s %d: %v", press.name, i, err)
			}
		}
		if yes != 2 {
			t.Errorf("%s: %d presses heard yes, want the two deliveries of one", press.name, yes)
		}
	}
	got := w.waitFinal(at.ID)
	if e := got.Journal[0]; e.DoneBy == nil || e.Confirmed == nil || e.DoneBy.By.ID == e.Confirmed.By.ID {
		t.Errorf("journal %+v", e)
	}
	want := []audit.Kind{audit.Requested, audit.Approved, audit.Started, audit.HandedOff, audit.Attested, audit.Confirmed, audit.Finished}
	if kinds := slices.DeleteFunc(w.eventKinds(at.ID), func(k audit.Kind) bool { return k == audit.Refused }); !slices.Equal(kinds, want) {
		t.Errorf("events %v, want %v", kinds, want)
	}
	w.checkInvariants()
}

// A worker that died before its hand-off, wherever it stood, is succeeded by
// one that hands off.
func TestADeadWorkersHandOff(t *testing.T) {
	t.Parallel()
	for steps, name := range []string{"behind the claim", "in the middle of a step", "between the steps"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, longTimings())
			snap := w.claimed(byHand("m1"))
			r := snap.Request
			for i, a := range []Action{StartStep{Step: 0}, EndStep{Step: 0, Result: Result{State: StepDone}}}[:steps] {
				var err error
				if r, err = w.store.advance(t.Context(), r, snap.Now, fmt.Sprint("write-", i), a); err != nil {
					t.Fatal(err)
				}
				if i == 0 {
					w.tenant.Work(t.Context(), Job{Kind: JobRun, Request: r, Step: 0})
				}
			}
			w.expireLease(snap.ID)
			for i := range 2 {
				_, service := w.newProcess(w.server.Client(t))
				w.startRunner(service, fmt.Sprint("worker-", i))
			}
			got := w.untilIn(snap.ID, StateHandedOff)
			if got.Journal[0].State != StepDone || w.told(snap.ID, audit.HandedOff) != 1 {
				t.Errorf("it is %s, journal %+v", got.Summary(), got.Journal)
			}
			w.tenant.wantDeletedOnce(t, "m1")
			w.checkInvariants()

			// And the dead worker, awake again, changes nothing any more.
			if _, err := w.store.advance(t.Context(), r, snap.Now, "finish", Finish{}); code(err) == "" {
				t.Error("a late worker finished it")
			}
			if _, err := w.service.Attest(t.Context(), w.op(), snap.ID, ravi); err != nil {
				t.Error(err)
			}
		})
	}
}

// A halt during the step before it keeps the rest from being handed off.
func TestAHaltBeforeAHandOff(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	var once sync.Once
	w.tenant.setScript(func(job Job) (Result, bool) {
		if job.Kind == JobRun {
			once.Do(func() {
				if _, err := w.service.Stop(context.Background(), "stop", job.Request.ID, olga, "it is the wrong Dana"); err != nil {
					t.Errorf("halting: %v", err)
				}
			})
		}
		return Result{}, false
	})
	w.startRunner(w.service, "w")
	got := w.waitFinal(w.approved(byHand("m1")).ID)
	if got.Outcome != OutcomePartial || got.Journal[1].State != StepSkipped || !strings.HasPrefix(got.Why, "Halted by Olga") || w.told(got.ID, audit.HandedOff) != 0 {
		t.Errorf("it is %s because %q, journal %+v", got.Summary(), got.Why, got.Journal)
	}
	w.checkInvariants()
}

func TestOnlyTheLastStepIsHandedOff(t *testing.T) {
	plan := byHand()
	plan.Steps = append(plan.Steps, Step{Op: "delete", Words: "Delete m1"})
	if _, _, err := Apply(Request{ID: "R-TEST"}, Submit{Plan: plan, Requester: hanna, Requirements: Requirements{Approvals: 1}}, noon); err == nil {
		t.Error("a plan goes on behind a hand-off, which no worker would come back to")
	}
}
