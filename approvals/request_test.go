package approvals

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"countersign/audit"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// everyState makes a request in every state, by the actions that lead to it. Olga has
// approved the pending one and those that follow from it.
func everyState(t *testing.T, class Class) map[string]Request {
	t.Helper()
	do := func(r Request, actions ...Action) Request {
		for _, a := range actions {
			next, _, err := Apply(r, a, noon)
			if err != nil {
				t.Fatalf("%T: %v", a, err)
			}
			r = next
			switch a.(type) { // the times that the store sets
			case Submit:
				r.Deadline = noon.Add(time.Hour)
			case Approve:
				if r.State == StateApproved {
					r.Deadline = noon.Add(time.Minute)
				}
			case BreakGlass:
				r.Deadline = noon.Add(time.Minute)
			case Claim:
				r.Lease = noon.Add(time.Minute)
			}
		}
		return r
	}
	overdue := func(r Request) Request { r.Deadline = noon; return r }
	leaseless := func(r Request) Request { r.Lease = noon; return r }

	fresh := Request{ID: "R-TEST"}
	ask := Submit{
		Plan: deletionPlan(class, dana, "m1", "m2"), Requester: hanna, Justification: "lost her phone",
		Requirements: Requirements{Approvals: 2, Lifetime: time.Hour},
	}
	asked := do(fresh, ask)
	one := do(asked, Approve{By: olga})
	yes := do(one, Approve{By: mina})
	running := do(yes, Claim{Worker: "w"})
	expired, _, err := Apply(overdue(one), Expire{}, noon)
	if err != nil {
		t.Fatal(err)
	}
	if expired.Why != "Only 1 of 2 approvals came in time." {
		t.Errorf("Olga approved it, and it expired because %q", expired.Why)
	}
	byHand := running
	byHand.Plan = deletionPlan(class, dana, "m1", "m2")
	byHand.Plan.Steps[1].ByPeople = true
	byHand = do(byHand, StartStep{Step: 0}, EndStep{Step: 0, Result: Result{State: StepDone}})
	handedOff := do(byHand, HandOff{Step: 1})

	alarming := ask
	alarming.Plan, alarming.Requirements.BreakGlass = deletionPlan(ClassContain, dana, "m1"), true
	emergency := do(fresh, alarming)
	broken := do(emergency, BreakGlass{By: olga, Why: "an intruder reads her mail"})
	inReview := do(broken, Claim{Worker: "w"}, StartStep{Step: 0}, EndStep{Step: 0, Result: Result{State: StepDone}}, Finish{})
	return map[string]Request{
		"break-glass allowed": emergency,
		"used break-glass":    broken,
		"in review":           inReview,
		"reviewed":            do(inReview, ReviewBreakGlass{By: ravi, Verdict: VerdictJustified}),
		"manual step next":    byHand,
		"handed off":          handedOff,
		"attested":            do(handedOff, Attest{By: ravi}),
		"new":                 fresh,
		"submitted":           asked,
		"pending":             one,
		"pending overdue":     overdue(one),
		"approved":            yes,
		"approved overdue":    overdue(yes),
		"running":             running,
		"running, lease over": leaseless(running),
		"step started":        do(running, StartStep{Step: 0}),
		"halted":              do(running, Stop{By: ravi, Why: "wrong person"}),
		"done":                do(running, StartStep{Step: 0}, EndStep{Step: 0, Result: Result{State: StepFailed}}, Finish{Why: "Stopped behind step 1."}),
		"denied":              do(one, Deny{By: ravi, Reason: "not her"}),
		"cancelled":           do(one, Cancel{By: hanna}),
		"expired":             expired,
	}
}

// everyAction lists every action by every kind of person. The table below has the
// results.
func everyAction() map[string]Action {
	list := map[string]Action{
		"submit": Submit{Plan: deletionPlan(ClassDestroy, dana, "m1"), Requester: hanna, Requirements: Requirements{Approvals: 1, Lifetime: time.Hour}},

		"expire": Expire{}, "claim": Claim{Worker: "w2"}, "finish": Finish{Why: "because"},
		"start first": StartStep{Step: 0}, "start second": StartStep{Step: 1}, "start none": StartStep{Step: 2}, "start -1": StartStep{Step: -1},
		"end first": EndStep{Step: 0, Result: Result{State: StepDone}}, "end second": EndStep{Step: 1, Result: Result{State: StepDone}},
		"end as throttled": EndStep{Step: 0, Result: Result{State: StepThrottled}}, "end none": EndStep{Step: 7, Result: Result{State: StepDone}},
		"release": Release{Step: -1}, "wait": Release{Step: -1, After: time.Second, Detail: "Graph asked to wait."},
		"release first": Release{Step: 0, After: time.Second}, "release none": Release{Step: 9},
		"hand off first": HandOff{Step: 0}, "hand off second": HandOff{Step: 1}, "hand off none": HandOff{Step: -1},
	}
	for name, who := range map[string]Person{"requester": hanna, "target": dana, "approver": ravi, "approver again": olga, "nobody": {Slack: "U0X"}} {
		list["approve by "+name] = Approve{By: who}
		list["deny by "+name] = Deny{By: who, Reason: "no"}
		list["cancel by "+name] = Cancel{By: who}
		list["stop by "+name] = Stop{By: who, Why: "stop"}
		list["attest by "+name] = Attest{By: who}
		list["confirm by "+name] = Confirm{By: who}
		list["retract by "+name] = Retract{By: who}
		list["break-glass by "+name] = BreakGlass{By: who, Why: "it cannot wait"}
		list["review by "+name] = ReviewBreakGlass{By: who, Verdict: VerdictNotJustified, Remark: "nobody was in danger"}
	}
	list["break-glass without a reason"] = BreakGlass{By: ravi}
	list["review with an unknown verdict"] = ReviewBreakGlass{By: ravi, Verdict: "so so"}
	list["review without a remark"] = ReviewBreakGlass{By: ravi, Verdict: VerdictNotJustified}
	return list
}

// The result of every action in every state: the state after it, or the code of the
// refusal, or "illegal" if only a bug could cause it. A state that is not listed gives
// the "otherwise" of the action.
var transitions = map[string]struct {
	otherwise string
	in        map[string]string
}{
	"submit": {"illegal", map[string]string{"new": "pending"}},

	"approve by requester":      {"decided", map[string]string{"break-glass allowed": "requester", "submitted": "requester", "pending": "requester", "pending overdue": "expired", "expired": "expired"}},
	"approve by target":         {"decided", map[string]string{"break-glass allowed": "target", "submitted": "target", "pending": "target", "pending overdue": "expired", "expired": "expired"}},
	"approve by approver":       {"decided", map[string]string{"break-glass allowed": "pending", "submitted": "pending", "pending": "approved", "pending overdue": "expired", "expired": "expired"}},
	"approve by approver again": {"decided", map[string]string{"break-glass allowed": "pending", "submitted": "pending", "pending": "twice", "pending overdue": "expired", "expired": "expired"}},
	"approve by nobody":         {"nobody", nil},

	"deny by requester":      {"decided", map[string]string{"break-glass allowed": "requester", "submitted": "requester", "pending": "requester", "pending overdue": "expired", "expired": "expired"}},
	"deny by target":         {"decided", map[string]string{"break-glass allowed": "target", "submitted": "target", "pending": "target", "pending overdue": "expired", "expired": "expired"}},
	"deny by approver":       {"decided", map[string]string{"break-glass allowed": "denied", "submitted": "denied", "pending": "denied", "pending overdue": "expired", "expired": "expired"}},
	"deny by approver again": {"decided", map[string]string{"break-glass allowed": "denied", "submitted": "denied", "pending": "denied", "pending overdue": "expired", "expired": "expired"}},
	"deny by nobody":         {"nobody", nil},

	"cancel by requester": {"decided", map[string]string{
		"submitted": "cancelled", "pending": "cancelled", "approved": "cancelled",
		"pending overdue": "expired", "approved overdue": "expired", "new": "not-requester", "handed off": "cancelled",
		"break-glass allowed": "cancelled", "used break-glass": "cancelled",
	}},
	"cancel by target":         {"not-requester", nil},
	"cancel by approver":       {"not-requester", nil},
	"cancel by approver again": {"not-requester", nil},
	"cancel by nobody":         {"not-requester", nil},

	"stop by requester":      {"not-running", map[string]string{"running": "running", "running, lease over": "running", "step started": "running", "manual step next": "running", "halted": "decided"}},
	"stop by target":         {"not-running", map[string]string{"running": "running", "running, lease over": "running", "step started": "running", "manual step next": "running", "halted": "decided"}},
	"stop by approver":       {"not-running", map[string]string{"running": "running", "running, lease over": "running", "step started": "running", "manual step next": "running", "halted": "decided"}},
	"stop by approver again": {"not-running", map[string]string{"running": "running", "running, lease over": "running", "step started": "running", "manual step next": "running", "halted": "decided"}},
	"stop by nobody":         {"nobody", nil},

	"expire": {"illegal", map[string]string{"pending overdue": "expired", "approved overdue": "expired"}},
	"claim":  {"illegal", map[string]string{"used break-glass": "running", "approved": "running", "running, lease over": "running"}},

	"start first":      {"illegal", map[string]string{"running": "running", "running, lease over": "running"}},
	"start second":     {"illegal", nil}, // the first one has no outcome in any of the states
	"start none":       {"illegal", nil},
	"start -1":         {"illegal", nil},
	"end first":        {"illegal", map[string]string{"step started": "running"}},
	"end second":       {"illegal", nil},
	"end as throttled": {"illegal", nil},
	"end none":         {"illegal", nil},
	"release":          {"illegal", map[string]string{"running": "running", "running, lease over": "running", "step started": "running", "manual step next": "running", "halted": "running"}},
	"wait":             {"illegal", map[string]string{"running": "running", "running, lease over": "running", "step started": "running", "manual step next": "running", "halted": "running"}},
	"release first":    {"illegal", map[string]string{"step started": "running"}},
	"release none":     {"illegal", nil},
	"finish":           {"illegal", map[string]string{"running": "done", "running, lease over": "done", "manual step next": "done", "halted": "done"}},

	"hand off first":  {"illegal", nil},
	"hand off second": {"illegal", map[string]string{"manual step next": "handed-off"}},
	"hand off none":   {"illegal", nil},

	"break-glass by requester":      {"decided", breakGlassResults("approved")},
	"break-glass by target":         {"decided", breakGlassResults("target")},
	"break-glass by approver":       {"decided", breakGlassResults("approved")},
	"break-glass by approver again": {"decided", breakGlassResults("approved")},
	"break-glass by nobody":         {"nobody", nil},
	"break-glass without a reason":  {"decided", breakGlassResults("missing")},

	"review by requester":            {"decided", map[string]string{"in review": "requester"}},
	"review by target":               {"decided", map[string]string{"in review": "target"}},
	"review by approver":             {"decided", map[string]string{"in review": "done"}},
	"review by approver again":       {"decided", map[string]string{"in review": "twice"}}, // who used break-glass
	"review by nobody":               {"nobody", nil},
	"review with an unknown verdict": {"decided", map[string]string{"in review": "missing"}},
	"review without a remark":        {"decided", map[string]string{"in review": "missing"}},

	"attest by requester":      {"decided", map[string]string{"handed off": "handed-off", "attested": "twice"}},
	"attest by target":         {"decided", map[string]string{"handed off": "target", "attested": "target"}},
	"attest by approver":       {"decided", map[string]string{"handed off": "handed-off", "attested": "twice"}},
	"attest by approver again": {"decided", map[string]string{"handed off": "handed-off", "attested": "twice"}},
	"attest by nobody":         {"decided", map[string]string{"handed off": "nobody", "attested": "nobody"}},

	"confirm by requester":      {"decided", map[string]string{"handed off": "not-running", "attested": "done"}},
	"confirm by target":         {"decided", map[string]string{"handed off": "target", "attested": "target"}},
	"confirm by approver":       {"decided", map[string]string{"handed off": "not-running", "attested": "twice"}}, // who attested it
	"confirm by approver again": {"decided", map[string]string{"handed off": "not-running", "attested": "done"}},
	"confirm by nobody":         {"decided", map[string]string{"handed off": "nobody", "attested": "nobody"}},

	"retract by requester":      {"decided", map[string]string{"handed off": "not-running", "attested": "handed-off"}},
	"retract by target":         {"decided", map[string]string{"handed off": "target", "attested": "target"}},
	"retract by approver":       {"decided", map[string]string{"handed off": "not-running", "attested": "handed-off"}}, // who attested it
	"retract by approver again": {"decided", map[string]string{"handed off": "not-running", "attested": "handed-off"}},
	"retract by nobody":         {"decided", map[string]string{"handed off": "nobody", "attested": "nobody"}},
}

// breakGlassResults returns the results of break-glass. Where break-glass is allowed,
// the result is end.
func breakGlassResults(end string) map[string]string {
	return map[string]string{"break-glass allowed": end, "submitted": "not-allowed", "pending": "not-allowed", "pending overdue": "expired", "expired": "expired"}
}

func TestEveryActionInEveryState(t *testing.T) {
	states, actions := everyState(t, ClassDestroy), everyAction()
	if len(actions) != len(transitions) {
		t.Fatalf("%d actions, but the table has %d", len(actions), len(transitions))
	}
	for _, doing := range sortedKeys(actions) {
		row, ok := transitions[doing]
		if !ok {
			t.Errorf("%s is not in the table", doing)
		}
		for name := range row.in {
			if _, ok := states[name]; !ok {
				t.Errorf("%s: there is no state %q", doing, name)
			}
		}
		for _, name := range sortedKeys(states) {
			before := states[name]
			text, _ := json.Marshal(before)
			want, listed := row.in[name]
			if !listed {
				want = row.otherwise
			}
			after, events, err := Apply(before, actions[doing], noon)
			got := string(code(err))
			switch {
			case err == nil:
				got = string(after.State)
			case strings.HasPrefix(got, "error: "):
				got = "illegal"
			}
			if got != want {
				t.Errorf("%s when it is %s: %s, want %s (%v)", doing, name, got, want, err)
			}
			if err != nil && len(events) > 0 {
				t.Errorf("%s when it is %s: refused, with events %v", doing, name, events)
			}
			if after.State == StateApproved && len(after.Approvals) < after.Requirements.Approvals && after.BreakGlass == nil {
				t.Errorf("%s when it is %s: approved by %d of %d", doing, name, len(after.Approvals), after.Requirements.Approvals)
			}
			if now, _ := json.Marshal(before); string(now) != string(text) {
				t.Errorf("%s when it is %s changed its argument:\n%s\n%s", doing, name, text, now)
			}
			if no, ok := err.(*Refusal); ok {
				lint(t, no.Sentence)
			}
		}
	}
}

// lint finds badly composed sentences.
func lint(t *testing.T, sentence string) {
	t.Helper()
	for _, bad := range []string{"%!", "  ", "..", " .", ": .", "()", "nobody (", "<nil>", "\n"} {
		if strings.Contains(sentence, bad) {
			t.Errorf("the sentence %q has %q in it", sentence, bad)
		}
	}
	if !strings.HasSuffix(sentence, ".") || strings.ToUpper(sentence[:1]) != sentence[:1] {
		t.Errorf("%q is not a sentence", sentence)
	}
}

func TestRefusalSentences(t *testing.T) {
	in := everyState(t, ClassDestroy)
	contained := everyState(t, ClassContain)["running"]
	for _, tt := range []struct {
		r    Request
		a    Action
		want string
	}{
		{in["submitted"], Approve{By: hanna}, "You asked for R-TEST yourself. Somebody else has to decide; you can cancel it."},
		{in["submitted"], Approve{By: dana}, "R-TEST would change your own account, so you cannot decide about it. Somebody else has to decide."},
		{in["submitted"], Deny{By: dana}, "R-TEST would change your own account, so you cannot decide about it. Somebody else has to decide."},
		{in["pending"], Approve{By: olga}, "You have approved R-TEST already. It needs 2 different people."},
		{in["pending overdue"], Approve{By: ravi}, "R-TEST expired before you pressed, and nothing was done. Ask Hanna Okafor (hanna.okafor@fernhill.example) to request it again."},
		{in["expired"], Approve{By: ravi}, "R-TEST expired before you pressed, and nothing was done. Ask Hanna Okafor (hanna.okafor@fernhill.example) to request it again."},
		{in["denied"], Approve{By: mina}, "R-TEST is already decided: denied by Ravi Menon (ravi.menon@fernhill.example). Your press changed nothing."},
		{in["approved"], Deny{By: ravi}, "R-TEST is already decided: approved and about to start. Your press changed nothing."},
		{in["done"], Approve{By: ravi}, "R-TEST is already decided: done, failed. Your press changed nothing."},
		{in["cancelled"], Approve{By: ravi}, "R-TEST is already decided: cancelled by its requester. Your press changed nothing."},
		{in["submitted"], Cancel{By: ravi}, "Only Hanna Okafor (hanna.okafor@fernhill.example), who asked for R-TEST, can cancel it. If you may decide, press Deny instead."},
		{in["running"], Cancel{By: hanna}, "R-TEST is running already and cannot be cancelled."},
		{in["expired"], Cancel{By: hanna}, "R-TEST is over: expired. There is nothing left to cancel."},
		{in["pending"], Stop{By: ravi}, "R-TEST is not running, so there is nothing to halt: it is waiting for approval (1 of 2)."},
		{in["halted"], Stop{By: mina}, "R-TEST is being halted already."},
		{in["submitted"], BreakGlass{By: hanna, Why: "now"}, "Only containment, such as blocking sign-in, can be run before it is approved."},
		{in["break-glass allowed"], BreakGlass{By: hanna}, "Say why this cannot wait for an approval. It is recorded, everybody who could have approved is told, and somebody else reviews it."},
		{in["in review"], ReviewBreakGlass{By: olga, Verdict: VerdictJustified}, "You used break-glass for R-TEST yourself. Somebody else has to review it."},
		{in["in review"], Approve{By: ravi}, "R-TEST is already decided: carried out (succeeded) with break-glass, and waits for somebody else's review. Your press changed nothing."},
		{in["in review"], Cancel{By: hanna}, "R-TEST has been carried out, and waits for its review."},
		{in["reviewed"], ReviewBreakGlass{By: mina, Verdict: VerdictJustified}, "R-TEST does not wait for a review: it is done, succeeded, and reviewed: justified."},
		{contained, Stop{By: dana}, "R-TEST contains your own account, so you cannot halt it. If your account was not taken over, speak to Hanna Okafor (hanna.okafor@fernhill.example)."},
	} {
		_, _, err := Apply(tt.r, tt.a, noon)
		if err == nil || err.Error() != tt.want {
			t.Errorf("%T when it is %s:\n got %v\nwant %s", tt.a, tt.r.Summary(), err, tt.want)
		}
	}
}

// An intruder in the target's account must not stop what contains it.
func TestTargetCannotHaltContainment(t *testing.T) {
	for _, tt := range []struct {
		class    Class
		verified string
		by       Person
		want     Code
	}{
		{ClassContain, "", dana, CodeTarget},
		{ClassDestroy, VerifiedCompromise, dana, CodeTarget},
		{ClassTakeover, VerifiedCompromise, dana, CodeTarget},
		{ClassDestroy, "callback", dana, ""}, // this wasn't me
		{ClassContain, "", ravi, ""},
		{ClassContain, "", hanna, ""},
	} {
		r := everyState(t, tt.class)["running"]
		r.Verified = tt.verified
		if _, _, err := Apply(r, Stop{By: tt.by}, noon); code(err) != tt.want {
			t.Errorf("%s stops %s, verified %q: %v, want %q", tt.by, tt.class, tt.verified, err, tt.want)
		}
	}
	own := everyState(t, ClassContain)["running"]
	own.Requester = dana
	if _, _, err := Apply(own, Stop{By: dana}, noon); err != nil {
		t.Errorf("its requester must be allowed to halt it: %v", err)
	}
}

func TestPlanRunsInOrder(t *testing.T) {
	running := everyState(t, ClassDestroy)["running"]
	ended := func(r Request, step int, s StepState) Request {
		for _, a := range []Action{StartStep{Step: step}, EndStep{Step: step, Result: Result{State: s}}} {
			next, _, err := Apply(r, a, noon)
			if err != nil {
				t.Fatal(err)
			}
			r = next
		}
		return r
	}
	for _, tt := range []struct {
		first   StepState
		carryOn bool
		want    bool
	}{
		{StepDone, false, true}, {StepAlready, false, true}, {StepFailed, false, false}, {StepUncertain, false, false},
		{StepFailed, true, true}, {StepUncertain, true, true},
	} {
		r := running
		r.Plan = deletionPlan(ClassDestroy, dana, "m1", "m2")
		r.Plan.Steps[0].CarryOn = tt.carryOn
		_, _, err := Apply(ended(r, 0, tt.first), StartStep{Step: 1}, noon)
		if (err == nil) != tt.want {
			t.Errorf("step 2 after a step that is %s (CarryOn %v): %v", tt.first, tt.carryOn, err)
		}
	}
}

func TestOutcome(t *testing.T) {
	for _, tt := range []struct {
		steps []StepState
		want  Outcome
	}{
		{[]StepState{StepDone, StepDone}, OutcomeSucceeded},
		{[]StepState{StepDone, StepAlready}, OutcomeSucceeded},
		{[]StepState{StepAlready}, OutcomeSucceeded},
		{[]StepState{StepDone, StepFailed}, OutcomePartial},
		{[]StepState{StepDone, StepSkipped}, OutcomePartial},
		{[]StepState{StepFailed, StepSkipped}, OutcomeFailed},
		{[]StepState{StepSkipped, StepSkipped}, OutcomeFailed},
		{[]StepState{StepDone, StepUncertain, StepFailed}, OutcomeUncertain},
		{[]StepState{StepFailed, StepUncertain}, OutcomeUncertain},
		{[]StepState{StepDone, StepAttested}, OutcomeAttested},
		{[]StepState{StepFailed, StepAttested}, OutcomePartial},
	} {
		var journal []JournalEntry
		for _, s := range tt.steps {
			journal = append(journal, JournalEntry{State: s})
		}
		if got := outcomeOf(journal); got != tt.want {
			t.Errorf("%v is %s, want %s", tt.steps, got, tt.want)
		}
	}
}

// A complete scenario, and the event that each transition records.
func TestEventsOfScenario(t *testing.T) {
	r := Request{ID: "R-TEST"}
	plan := deletionPlan(ClassDestroy, dana, "m1", "m2")
	plan.Steps[0].CarryOn = true
	var told []string
	for _, a := range []Action{
		Submit{Plan: plan, Requester: hanna, Justification: "lost", Ticket: "INC-7", Verified: "callback", Requirements: Requirements{Approvals: 2, Lifetime: time.Hour}},
		Approve{By: ravi},
		Approve{By: olga},
		Claim{Worker: "w"},
		StartStep{Step: 0},
		Release{Step: 0, After: time.Second, Detail: "Graph asked to wait."},
		Claim{Worker: "w"},
		StartStep{Step: 0},
		EndStep{Step: 0, Result: Result{State: StepFailed, Detail: "Graph said no.", RequestID: "g1"}},
		StartStep{Step: 1},
		Stop{By: ravi, Why: "enough"},
		EndStep{Step: 1, Result: Result{State: StepDone}},
		Finish{},
	} {
		next, events, err := Apply(r, a, noon)
		if err != nil {
			t.Fatalf("%T: %v", a, err)
		}
		r = next
		if _, asked := a.(Submit); asked {
			r.Deadline = noon.Add(time.Hour)
		}
		for _, e := range events {
			r.Version++
			told = append(told, fmt.Sprintf("%s v%d by %s outcome %q steps %d", e.Kind, e.Version, e.Actor, e.Outcome, len(e.Steps)))
			if e.Request != "R-TEST" || e.Target != dana || e.Requester != hanna || e.Justification != "lost" || e.Ticket != "INC-7" || e.Verified != "callback" {
				t.Errorf("the event %s does not say what it is about: %+v", e.Kind, e)
			}
		}
	}
	want := []string{
		`requested v1 by Hanna Okafor (hanna.okafor@fernhill.example) outcome "" steps 0`,
		`approved v2 by Ravi Menon (ravi.menon@fernhill.example) outcome "pending" steps 0`,
		`approved v3 by Olga Lindqvist (olga.lindqvist@fernhill.example) outcome "approved" steps 0`,
		`started v4 by nobody outcome "" steps 0`,
		`waiting v5 by nobody outcome "" steps 0`,
		`stepped v6 by nobody outcome "" steps 1`,
		`halted v7 by Ravi Menon (ravi.menon@fernhill.example) outcome "" steps 0`,
		`stepped v8 by nobody outcome "" steps 1`,
		`finished v9 by nobody outcome "partial" steps 2`,
	}
	if !slices.Equal(told, want) {
		t.Errorf("events:\n%s\nwant:\n%s", strings.Join(told, "\n"), strings.Join(want, "\n"))
	}
	if r.Outcome != OutcomePartial || r.Claim != 2 || r.State != StateDone {
		t.Errorf("it ended as %s, %s, claim %d", r.State, r.Outcome, r.Claim)
	}
}

func TestIncompleteRequestIsRejected(t *testing.T) {
	good := Submit{Plan: deletionPlan(ClassDestroy, dana, "m1"), Requester: hanna, Requirements: Requirements{Approvals: 1}}
	for name, spoil := range map[string]func(*Submit){
		"a requester": func(a *Submit) { a.Requester.ID = "" },
		"a target":    func(a *Submit) { a.Plan.Target.ID = "" },
		"a step":      func(a *Submit) { a.Plan.Steps = nil },
		"an approval": func(a *Submit) { a.Requirements.Approvals = 0 },
	} {
		a := good
		spoil(&a)
		if _, events, err := Apply(Request{ID: "R-TEST"}, a, noon); err == nil || events != nil {
			t.Errorf("a request without %s was accepted", name)
		}
	}
	if _, events, err := Apply(Request{ID: "R-TEST"}, good, noon); err != nil || len(events) != 1 || events[0].Kind != audit.Requested {
		t.Errorf("a good request: %v, %v", events, err)
	}
}
