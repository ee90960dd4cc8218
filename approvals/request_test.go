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

// standing makes a request in each state there is, by the actions that lead
// to it. Olga has approved in all but the first.
func everyState(t *testing.T, class Class) map[string]Request {
	t.Helper()
	do := func(r Request, actions ...Action) Request {
		for _, a := range actions {
			next, _, err := Apply(r, a, noon)
			if err != nil {
				t.Fatalf("%T: %v", a, err)
			}
			r = next
			switch a.(type) { // what the store does with durations
			case Ask:
				r.Deadline = noon.Add(time.Hour)
			case Approve:
				if r.State == Approved {
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
	ask := Ask{
		Plan: deletes(class, dana, "m1", "m2"), Requester: hanna, Justification: "lost her phone",
		Terms: Terms{Approvals: 2, Lifetime: time.Hour},
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
	byHand.Plan = deletes(class, dana, "m1", "m2")
	byHand.Plan.Steps[1].ByPeople = true
	byHand = do(byHand, Begin{Step: 0}, End{Step: 0, Result: Result{State: StepDone}})
	handedOff := do(byHand, HandOff{Step: 1})

	alarming := ask
	alarming.Plan, alarming.Terms.Glass = deletes(ClassContain, dana, "m1"), true
	emergency := do(fresh, alarming)
	broken := do(emergency, BreakGlass{By: olga, Why: "an intruder reads her mail"})
	inReview := do(broken, Claim{Worker: "w"}, Begin{Step: 0}, End{Step: 0, Result: Result{State: StepDone}}, Finish{})
	return map[string]Request{
		"emergency":        emergency,
		"broken glass":     broken,
		"in review":        inReview,
		"reviewed":         do(inReview, Judge{By: ravi, Verdict: Justified}),
		"by hand next":     byHand,
		"handed off":       handedOff,
		"attested":         do(handedOff, Attest{By: ravi}),
		"new":              fresh,
		"asked":            asked,
		"pending":          one,
		"pending overdue":  overdue(one),
		"approved":         yes,
		"approved overdue": overdue(yes),
		"running":          running,
		"running freely":   leaseless(running),
		"step begun":       do(running, Begin{Step: 0}),
		"halted":           do(running, Stop{By: ravi, Why: "wrong person"}),
		"done":             do(running, Begin{Step: 0}, End{Step: 0, Result: Result{State: StepFailed}}, Finish{Why: "Stopped behind step 1."}),
		"denied":           do(one, Deny{By: ravi, Reason: "not her"}),
		"cancelled":        do(one, Cancel{By: hanna}),
		"expired":          expired,
	}
}

// everything lists every action in every voice. What it leads to is in the
// table below.
func everything() map[string]Action {
	list := map[string]Action{
		"ask": Ask{Plan: deletes(ClassDestroy, dana, "m1"), Requester: hanna, Terms: Terms{Approvals: 1, Lifetime: time.Hour}},

		"expire": Expire{}, "claim": Claim{Worker: "w2"}, "finish": Finish{Why: "because"},
		"begin first": Begin{Step: 0}, "begin second": Begin{Step: 1}, "begin none": Begin{Step: 2}, "begin -1": Begin{Step: -1},
		"end first": End{Step: 0, Result: Result{State: StepDone}}, "end second": End{Step: 1, Result: Result{State: StepDone}},
		"end oddly": End{Step: 0, Result: Result{State: StepThrottled}}, "end none": End{Step: 7, Result: Result{State: StepDone}},
		"let go": LetGo{Step: -1}, "wait": LetGo{Step: -1, After: time.Second, Detail: "Graph asked to wait."},
		"let first go": LetGo{Step: 0, After: time.Second}, "let none go": LetGo{Step: 9},
		"hand first off": HandOff{Step: 0}, "hand second off": HandOff{Step: 1}, "hand none off": HandOff{Step: -1},
	}
	for name, who := range map[string]Person{"requester": hanna, "target": dana, "approver": ravi, "approver again": olga, "nobody": {Slack: "U0X"}} {
		list["approve by "+name] = Approve{By: who}
		list["deny by "+name] = Deny{By: who, Reason: "no"}
		list["cancel by "+name] = Cancel{By: who}
		list["stop by "+name] = Stop{By: who, Why: "stop"}
		list["attest by "+name] = Attest{By: who}
		list["confirm by "+name] = Confirm{By: who}
		list["retract by "+name] = Retract{By: who}
		list["break by "+name] = BreakGlass{By: who, Why: "it cannot wait"}
		list["judge by "+name] = Judge{By: who, Verdict: NotJustified, Remark: "nobody was in danger"}
	}
	list["break in silence"] = BreakGlass{By: ravi}
	list["judge oddly"] = Judge{By: ravi, Verdict: "so so"}
	list["condemn in silence"] = Judge{By: ravi, Verdict: NotJustified}
	return list
}

// What every action leads to in every state: the state after it, or the code
// of the refusal, or "illegal" where only a fault of ours could ask for it.
// What is not listed is refused as the "otherwise" of its action says.
var transitions = map[string]struct {
	otherwise string
	in        map[string]string
}{
	"ask": {"illegal", map[string]string{"new": "pending"}},

	"approve by requester":      {"decided", map[string]string{"emergency": "requester", "asked": "requester", "pending": "requester", "pending overdue": "expired", "expired": "expired"}},
	"approve by target":         {"decided", map[string]string{"emergency": "target", "asked": "target", "pending": "target", "pending overdue": "expired", "expired": "expired"}},
	"approve by approver":       {"decided", map[string]string{"emergency": "pending", "asked": "pending", "pending": "approved", "pending overdue": "expired", "expired": "expired"}},
	"approve by approver again": {"decided", map[string]string{"emergency": "pending", "asked": "pending", "pending": "twice", "pending overdue": "expired", "expired": "expired"}},
	"approve by nobody":         {"nobody", nil},

	"deny by requester":      {"decided", map[string]string{"emergency": "requester", "asked": "requester", "pending": "requester", "pending overdue": "expired", "expired": "expired"}},
	"deny by target":         {"decided", map[string]string{"emergency": "target", "asked": "target", "pending": "target", "pending overdue": "expired", "expired": "expired"}},
	"deny by approver":       {"decided", map[string]string{"emergency": "denied", "asked": "denied", "pending": "denied", "pending overdue": "expired", "expired": "expired"}},
	"deny by approver again": {"decided", map[string]string{"emergency": "denied", "asked": "denied", "pending": "denied", "pending overdue": "expired", "expired": "expired"}},
	"deny by nobody":         {"nobody", nil},

	"cancel by requester": {"decided", map[string]string{
		"asked": "cancelled", "pending": "cancelled", "approved": "cancelled",
		"pending overdue": "expired", "approved overdue": "expired", "new": "not-requester", "handed off": "cancelled",
		"emergency": "cancelled", "broken glass": "cancelled",
	}},
	"cancel by target":         {"not-requester", nil},
	"cancel by approver":       {"not-requester", nil},
	"cancel by approver again": {"not-requester", nil},
	"cancel by nobody":         {"not-requester", nil},

	"stop by requester":      {"not-running", map[string]string{"running": "running", "running freely": "running", "step begun": "running", "by hand next": "running", "halted": "decided"}},
	"stop by target":         {"not-running", map[string]string{"running": "running", "running freely": "running", "step begun": "running", "by hand next": "running", "halted": "decided"}},
	"stop by approver":       {"not-running", map[string]string{"running": "running", "running freely": "running", "step begun": "running", "by hand next": "running", "halted": "decided"}},
	"stop by approver again": {"not-running", map[string]string{"running": "running", "running freely": "running", "step begun": "running", "by hand next": "running", "halted": "decided"}},
	"stop by nobody":         {"nobody", nil},

	"expire": {"illegal", map[string]string{"pending overdue": "expired", "approved overdue": "expired"}},
	"claim":  {"illegal", map[string]string{"broken glass": "running", "approved": "running", "running freely": "running"}},

	"begin first":  {"illegal", map[string]string{"running": "running", "running freely": "running"}},
	"begin second": {"illegal", nil}, // the first one has no outcome in any of the states
	"begin none":   {"illegal", nil},
	"begin -1":     {"illegal", nil},
	"end first":    {"illegal", map[string]string{"step begun": "running"}},
	"end second":   {"illegal", nil},
	"end oddly":    {"illegal", nil},
	"end none":     {"illegal", nil},
	"let go":       {"illegal", map[string]string{"running": "running", "running freely": "running", "step begun": "running", "by hand next": "running", "halted": "running"}},
	"wait":         {"illegal", map[string]string{"running": "running", "running freely": "running", "step begun": "running", "by hand next": "running", "halted": "running"}},
	"let first go": {"illegal", map[string]string{"step begun": "running"}},
	"let none go":  {"illegal", nil},
	"finish":       {"illegal", map[string]string{"running": "done", "running freely": "done", "by hand next": "done", "halted": "done"}},

	"hand first off":  {"illegal", nil},
	"hand second off": {"illegal", map[string]string{"by hand next": "handed-off"}},
	"hand none off":   {"illegal", nil},

	"break by requester":      {"decided", breaking("approved")},
	"break by target":         {"decided", breaking("target")},
	"break by approver":       {"decided", breaking("approved")},
	"break by approver again": {"decided", breaking("approved")},
	"break by nobody":         {"nobody", nil},
	"break in silence":        {"decided", breaking("missing")},

	"judge by requester":      {"decided", map[string]string{"in review": "requester"}},
	"judge by target":         {"decided", map[string]string{"in review": "target"}},
	"judge by approver":       {"decided", map[string]string{"in review": "done"}},
	"judge by approver again": {"decided", map[string]string{"in review": "twice"}}, // who broke the glass
	"judge by nobody":         {"nobody", nil},
	"judge oddly":             {"decided", map[string]string{"in review": "missing"}},
	"condemn in silence":      {"decided", map[string]string{"in review": "missing"}},

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

// breaking is what breaking the glass leads to, which is end where it may be
// broken.
func breaking(end string) map[string]string {
	return map[string]string{"emergency": end, "asked": "not-allowed", "pending": "not-allowed", "pending overdue": "expired", "expired": "expired"}
}

func TestEveryActionInEveryState(t *testing.T) {
	states, actions := everyState(t, ClassDestroy), everything()
	if len(actions) != len(transitions) {
		t.Fatalf("%d actions, but the table has %d", len(actions), len(transitions))
	}
	for _, doing := range sorted(actions) {
		row, ok := transitions[doing]
		if !ok {
			t.Errorf("%s is not in the table", doing)
		}
		for name := range row.in {
			if _, ok := states[name]; !ok {
				t.Errorf("%s: there is no state %q", doing, name)
			}
		}
		for _, name := range sorted(states) {
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
			if after.State == Approved && len(after.Approvals) < after.Terms.Approvals && after.Glass == nil {
				t.Errorf("%s when it is %s: approved by %d of %d", doing, name, len(after.Approvals), after.Terms.Approvals)
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

// lint catches sentences that were put together badly.
func lint(t *testing.T, sentence string) {
	t.Helper()
	for _, bad := range []string{"%!", "  ", "..", " .", ": .", "()", "nobody (", "<nil>", "\n"} {
		if strings.Contains(sentence, bad) {
			t.Errorf("the sentence %q has %q in it", sentence, bad)
		}
	}
	if !strings.HasSuffix(sentence, ".") || strings.ToUpper(sentence[:1]) != sentence[:1] {
		t.Errorf("%q is no sentence", sentence)
	}
}

func TestWhatPeopleAreTold(t *testing.T) {
	in := everyState(t, ClassDestroy)
	contained := everyState(t, ClassContain)["running"]
	for _, tt := range []struct {
		r    Request
		a    Action
		want string
	}{
		{in["asked"], Approve{By: hanna}, "You asked for R-TEST yourself. Somebody else has to decide; you can cancel it."},
		{in["asked"], Approve{By: dana}, "R-TEST would change your own account, so you have no say in it. Somebody else has to decide."},
		{in["asked"], Deny{By: dana}, "R-TEST would change your own account, so you have no say in it. Somebody else has to decide."},
		{in["pending"], Approve{By: olga}, "You have approved R-TEST already. It needs 2 different people."},
		{in["pending overdue"], Approve{By: ravi}, "R-TEST expired before you pressed, and nothing was done. Ask Hanna Okafor (hanna.okafor@fernhill.example) to request it again."},
		{in["expired"], Approve{By: ravi}, "R-TEST expired before you pressed, and nothing was done. Ask Hanna Okafor (hanna.okafor@fernhill.example) to request it again."},
		{in["denied"], Approve{By: mina}, "R-TEST is already decided: denied by Ravi Menon (ravi.menon@fernhill.example). Your press changed nothing."},
		{in["approved"], Deny{By: ravi}, "R-TEST is already decided: approved and about to start. Your press changed nothing."},
		{in["done"], Approve{By: ravi}, "R-TEST is already decided: done, failed. Your press changed nothing."},
		{in["cancelled"], Approve{By: ravi}, "R-TEST is already decided: cancelled by its requester. Your press changed nothing."},
		{in["asked"], Cancel{By: ravi}, "Only Hanna Okafor (hanna.okafor@fernhill.example), who asked for R-TEST, can cancel it. If you may decide, press Deny instead."},
		{in["running"], Cancel{By: hanna}, "R-TEST is running already and cannot be cancelled."},
		{in["expired"], Cancel{By: hanna}, "R-TEST is over: expired. There is nothing left to cancel."},
		{in["pending"], Stop{By: ravi}, "R-TEST is not running, so there is nothing to halt: it is waiting for approval (1 of 2)."},
		{in["halted"], Stop{By: mina}, "R-TEST is being halted already."},
		{in["asked"], BreakGlass{By: hanna, Why: "now"}, "Only containment, such as blocking sign-in, can be run before it is approved."},
		{in["emergency"], BreakGlass{By: hanna}, "Say why this cannot wait for an approval. It is recorded, everybody who could have approved is told, and somebody else reviews it."},
		{in["in review"], Judge{By: olga, Verdict: Justified}, "You broke the glass for R-TEST yourself. Somebody else has to review it."},
		{in["in review"], Approve{By: ravi}, "R-TEST is already decided: carried out (succeeded) with broken glass, and waits for somebody else's review. Your press changed nothing."},
		{in["in review"], Cancel{By: hanna}, "R-TEST has been carried out, and waits for its review."},
		{in["reviewed"], Judge{By: mina, Verdict: Justified}, "R-TEST does not wait for a review: it is done, succeeded, and reviewed: justified."},
		{contained, Stop{By: dana}, "R-TEST contains your own account, so you cannot halt it. If your account was not taken over, speak to Hanna Okafor (hanna.okafor@fernhill.example)."},
	} {
		_, _, err := Apply(tt.r, tt.a, noon)
		if err == nil || err.Error() != tt.want {
			t.Errorf("%T when it is %s:\n got %v\nwant %s", tt.a, tt.r.Says(), err, tt.want)
		}
	}
}

// An intruder in the target's account must not stop what contains it.
func TestTheTargetDoesNotHaltContainment(t *testing.T) {
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
		t.Errorf("who asked for it may halt it: %v", err)
	}
}

func TestAPlanIsRunInItsOrder(t *testing.T) {
	running := everyState(t, ClassDestroy)["running"]
	ended := func(r Request, step int, s StepState) Request {
		for _, a := range []Action{Begin{Step: step}, End{Step: step, Result: Result{State: s}}} {
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
		r.Plan = deletes(ClassDestroy, dana, "m1", "m2")
		r.Plan.Steps[0].CarryOn = tt.carryOn
		_, _, err := Apply(ended(r, 0, tt.first), Begin{Step: 1}, noon)
		if (err == nil) != tt.want {
			t.Errorf("step 2 behind a step that is %s (carry on %v): %v", tt.first, tt.carryOn, err)
		}
	}
}

func TestOutcome(t *testing.T) {
	for _, tt := range []struct {
		steps []StepState
		want  Outcome
	}{
		{[]StepState{StepDone, StepDone}, Succeeded},
		{[]StepState{StepDone, StepAlready}, Succeeded},
		{[]StepState{StepAlready}, Succeeded},
		{[]StepState{StepDone, StepFailed}, Partial},
		{[]StepState{StepDone, StepSkipped}, Partial},
		{[]StepState{StepFailed, StepSkipped}, Failed},
		{[]StepState{StepSkipped, StepSkipped}, Failed},
		{[]StepState{StepDone, StepUncertain, StepFailed}, Uncertain},
		{[]StepState{StepFailed, StepUncertain}, Uncertain},
		{[]StepState{StepDone, StepAttested}, Attested},
		{[]StepState{StepFailed, StepAttested}, Partial},
	} {
		var journal []Entry
		for _, s := range tt.steps {
			journal = append(journal, Entry{State: s})
		}
		if got := outcome(journal); got != tt.want {
			t.Errorf("%v is %s, want %s", tt.steps, got, tt.want)
		}
	}
}

// A whole story, and the event each transition leaves.
func TestEventsOfAStory(t *testing.T) {
	r := Request{ID: "R-TEST"}
	plan := deletes(ClassDestroy, dana, "m1", "m2")
	plan.Steps[0].CarryOn = true
	var told []string
	for _, a := range []Action{
		Ask{Plan: plan, Requester: hanna, Justification: "lost", Ticket: "INC-7", Verified: "callback", Terms: Terms{Approvals: 2, Lifetime: time.Hour}},
		Approve{By: ravi},
		Approve{By: olga},
		Claim{Worker: "w"},
		Begin{Step: 0},
		LetGo{Step: 0, After: time.Second, Detail: "Graph asked to wait."},
		Claim{Worker: "w"},
		Begin{Step: 0},
		End{Step: 0, Result: Result{State: StepFailed, Detail: "Graph said no.", RequestID: "g1"}},
		Begin{Step: 1},
		Stop{By: ravi, Why: "enough"},
		End{Step: 1, Result: Result{State: StepDone}},
		Finish{},
	} {
		next, events, err := Apply(r, a, noon)
		if err != nil {
			t.Fatalf("%T: %v", a, err)
		}
		r = next
		if _, asked := a.(Ask); asked {
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
	if r.Outcome != Partial || r.Claim != 2 || r.State != Done {
		t.Errorf("it ended as %s, %s, claim %d", r.State, r.Outcome, r.Claim)
	}
}

func TestARequestNeedsWhatItIsMadeOf(t *testing.T) {
	good := Ask{Plan: deletes(ClassDestroy, dana, "m1"), Requester: hanna, Terms: Terms{Approvals: 1}}
	for name, spoil := range map[string]func(*Ask){
		"a requester": func(a *Ask) { a.Requester.ID = "" },
		"a target":    func(a *Ask) { a.Plan.Target.ID = "" },
		"a step":      func(a *Ask) { a.Plan.Steps = nil },
		"an approval": func(a *Ask) { a.Terms.Approvals = 0 },
	} {
		a := good
		spoil(&a)
		if _, events, err := Apply(Request{ID: "R-TEST"}, a, noon); err == nil || events != nil {
			t.Errorf("a request without %s was made", name)
		}
	}
	if _, events, err := Apply(Request{ID: "R-TEST"}, good, noon); err != nil || len(events) != 1 || events[0].Kind != audit.Requested {
		t.Errorf("a good request: %v, %v", events, err)
	}
}
