package approvals

import (
	"fmt"
	"slices"
	"time"

	"countersign/audit"
)

// State is the state of a request.
type State string

// The states of a request. Denied, Expired, Cancelled and Done are final.
const (
	StatePending   State = "pending"    // waits for decisions
	StateApproved  State = "approved"   // waits for a worker
	StateRunning   State = "running"    // a worker holds it, or held it and let go
	StateHandedOff State = "handed-off" // the rest is for people to do by hand; no worker holds it
	StateReview    State = "review"     // it ran before anybody approved it, and waits for somebody else to say whether that was right
	StateDone      State = "done"       // nothing is left to do; Outcome says how it went
	StateDenied    State = "denied"     // an approver said no
	StateExpired   State = "expired"    // nobody decided, or nobody could run it, in time
	StateCancelled State = "cancelled"  // the requester took it back
)

// Final reports whether a request in this state never changes again.
func (s State) Final() bool {
	return s == StateDone || s == StateDenied || s == StateExpired || s == StateCancelled
}

// Outcome is how the execution of a request ended.
type Outcome string

// The outcomes. Uncertain means that a step may or may not have been carried
// out and a person has to look.
const (
	OutcomeSucceeded Outcome = "succeeded"
	OutcomePartial   Outcome = "partial"
	OutcomeFailed    Outcome = "failed"
	OutcomeUncertain Outcome = "uncertain"
	OutcomeAttested  Outcome = "attested" // people did it by hand and said so; Countersign executed nothing of that
)

// The verdicts of a review.
const (
	VerdictJustified    = "justified"
	VerdictNotJustified = "not justified"
)

// StepState is what is known about one step.
type StepState string

// The states of a step. StepStarted without a later state is what a killed
// worker leaves behind: it is reconciled, never blindly repeated.
const (
	StepWaiting   StepState = ""
	StepStarted   StepState = "started"
	StepDone      StepState = "done"
	StepAlready   StepState = "already so"
	StepFailed    StepState = "failed"
	StepUncertain StepState = "uncertain"
	StepSkipped   StepState = "skipped"
	StepHandedOff StepState = "handed-off" // waits for people
	StepAttested  StepState = "attested"   // one person did it, another confirmed it
	StepThrottled StepState = "throttled"  // a result only, never journalled: the step goes back to waiting, or stays begun where the result is unsure
)

// Result is the result of one job.
type Result struct {
	State     StepState
	Detail    string        // what it means and who can fix it, for people; masked
	RequestID string        // Graph's request-id
	After     time.Duration // with StepThrottled: how long Graph asked to wait
	Unsure    bool          // with StepThrottled: something was done all the same, or may have been
	Secret    string        `json:"-"` // of a step that has one: kept sealed beside the request, never in it
	Until     time.Time     // until when the secret is good for anything; zero where it does not end
}

// JournalEntry is the journal of one step.
type JournalEntry struct {
	State     StepState `json:"state,omitempty"`
	Started   time.Time `json:"started,omitzero"`
	Ended     time.Time `json:"ended,omitzero"`
	Detail    string    `json:"detail,omitempty"`
	RequestID string    `json:"request_id,omitempty"`
	DoneBy    *Decision `json:"done_by,omitempty"` // of a hand-off: who says that they did it
	Confirmed *Decision `json:"confirmed,omitempty"`
}

// Decision is one approver's decision.
type Decision struct {
	By     Person    `json:"by"`
	At     time.Time `json:"at"`
	Reason string    `json:"reason,omitempty"` // of a denial
}

// Requirements are what the policy required when the request was submitted.
type Requirements struct {
	Approvals  int           `json:"approvals"` // distinct people who must say yes
	Lifetime   time.Duration `json:"lifetime"`  // how long the request waits for them
	Why        []string      `json:"why,omitempty"`
	BreakGlass bool          `json:"glass,omitempty"` // it may be run before anybody approved it, by those the policy names for that
}

// Verdict is another person's review of a break-glass request.
type Verdict struct {
	By      Person    `json:"by"`
	At      time.Time `json:"at"`
	Verdict string    `json:"verdict"` // Justified or NotJustified
	Remark  string    `json:"remark,omitempty"`
}

// Request is a plan that was submitted. Only Apply makes a changed one.
type Request struct {
	ID      string `json:"id"`
	Version int64  `json:"-"` // raised by every commit that changes the request
	Claim   int64  `json:"-"` // raised by claiming only: the fence

	State    State     `json:"-"`
	Deadline time.Time `json:"-"` // of a pending or approved request, on Redis' clock
	Lease    time.Time `json:"-"` // of a running request: when another worker may take over; of one that was handed off: when people are reminded
	Halt     *Halt     `json:"-"` // the one outside write to a running request

	Outcome       Outcome      `json:"outcome,omitempty"`
	Plan          Plan         `json:"plan"`
	Requester     Person       `json:"requester"`
	Justification string       `json:"justification,omitempty"`
	Ticket        string       `json:"ticket,omitempty"`
	Verified      string       `json:"verified,omitempty"`
	Channel       string       `json:"channel,omitempty"` // where it was asked
	Requirements  Requirements `json:"terms"`
	Created       time.Time    `json:"created"`
	StartedAt     time.Time    `json:"began,omitzero"` // when it was claimed for the first time
	Ended         time.Time    `json:"ended,omitzero"`
	Worker        string       `json:"worker,omitempty"` // who claimed it last, for operators
	Fingerprint   string       `json:"print,omitempty"`  // the same for two requests that ask for the same thing

	Approvals  []Decision     `json:"approvals,omitempty"`
	Denial     *Decision      `json:"denial,omitempty"`
	BreakGlass *Decision      `json:"glass,omitempty"`    // who used break-glass, and why: it runs without those approvals
	Reviewed   *Verdict       `json:"reviewed,omitempty"` // of a request with break-glass
	Journal    []JournalEntry `json:"journal,omitempty"`  // one entry a step, in the plan's order
	NotBefore  time.Time      `json:"not_before,omitzero"`
	Why        string         `json:"why,omitempty"` // why it ended without all of its steps
}

// Halt records who wants a running request to stop, and why.
type Halt struct {
	By  Person    `json:"by"`
	At  time.Time `json:"at"`
	Why string    `json:"why"`
}

// Approvers are the people who approved, in order.
func (r Request) Approvers() []Person {
	people := make([]Person, len(r.Approvals))
	for i, d := range r.Approvals {
		people[i] = d.By
	}
	return people
}

// forSelf reports whether the requester requested for their own account.
func (r Request) forSelf() bool { return r.Requester.ID == r.Plan.Target.ID }

// StartedStep reports whether a step was started, so that something may have
// changed.
func (r Request) StartedStep() bool {
	return slices.ContainsFunc(r.Journal, func(e JournalEntry) bool { return e.State != StepWaiting && e.State != StepSkipped })
}

// Action is an input of the state machine. It carries everything that the
// machine needs, which has neither a clock nor a store.
type Action interface{ action() }

// VerifiedCompromise replaces a caller verification: nobody called, and the
// account is believed to be compromised.
const VerifiedCompromise = "compromise"

// Submit makes a new request.
type Submit struct {
	Plan          Plan
	Requester     Person
	Justification string
	Ticket        string
	Verified      string
	Channel       string
	Requirements  Requirements
}

// Approve is one approver's approval.
type Approve struct{ By Person }

// Deny is one approver's denial. One is enough, and it is final.
type Deny struct {
	By     Person
	Reason string
}

// Cancel withdraws a request of one's own.
type Cancel struct{ By Person }

// BreakGlass runs a containment before enough people have approved it. Another
// person reviews it afterwards.
type BreakGlass struct {
	By  Person
	Why string
}

// ReviewBreakGlass is another person's review of a break-glass request.
type ReviewBreakGlass struct {
	By      Person
	Verdict string // Justified or VerdictNotJustified
	Remark  string
}

// Expire ends a request whose deadline has passed.
type Expire struct{}

// Claim gives a worker the right to execute a request; only its writes count
// from then on. It is legal for an approved request, and for a running one whose
// lease has expired.
type Claim struct{ Worker string }

// StartStep journals that a step is about to be executed.
type StartStep struct{ Step int }

// EndStep journals the outcome of a step.
type EndStep struct {
	Step   int
	Result Result
}

// Release releases a running request, because the worker stops or Graph asked to
// wait. A step that was started and certainly not executed returns to waiting.
// Any other stays started and is reconciled.
type Release struct {
	Step   int // -1 for none
	After  time.Duration
	Detail string
}

// Stop halts a running request before its next step.
type Stop struct {
	By  Person
	Why string
}

// HandOff hands a running request over to people, because only they can do the
// next step.
type HandOff struct{ Step int }

// Attest says that a person has done what a hand-off asks for.
type Attest struct{ By Person }

// Confirm is a second person's confirmation, which ends the hand-off.
type Confirm struct{ By Person }

// Retract says that what was attested is not so. The hand-off waits for people
// again.
type Retract struct{ By Person }

// Finish ends a running request. Steps that were never started are skipped, and
// Why says why.
type Finish struct{ Why string }

func (Submit) action()           {}
func (Approve) action()          {}
func (Deny) action()             {}
func (Cancel) action()           {}
func (BreakGlass) action()       {}
func (ReviewBreakGlass) action() {}
func (Expire) action()           {}
func (Claim) action()            {}
func (StartStep) action()        {}
func (EndStep) action()          {}
func (Release) action()          {}
func (Stop) action()             {}
func (HandOff) action()          {}
func (Attest) action()           {}
func (Confirm) action()          {}
func (Retract) action()          {}
func (Finish) action()           {}

// Apply is the state machine. It returns the request after the action at the
// instant at, and the events, or an error. A *Refusal is for the person who
// acted; any other error is a fault of ours.
//
// It does not change its argument. Durations that the store turns into instants
// of Redis' clock (deadline, lease) are not set here.
func Apply(r Request, a Action, at time.Time) (Request, []audit.Event, error) {
	r.Approvals = slices.Clone(r.Approvals)
	r.Journal = slices.Clone(r.Journal)
	switch a := a.(type) {
	case Submit:
		return submit(r, a, at)
	case Approve:
		return approve(r, a, at)
	case Deny:
		// Whoever said yes and sees the mistake in time may still say no.
		if refusal := mayDecide(r, a.By, at); refusal != nil && refusal.Code != CodeAlreadyDecided {
			return r, nil, refusal
		}
		r.State, r.Ended = StateDenied, at
		r.Denial = &Decision{By: a.By, At: at, Reason: a.Reason}
		e := r.event(audit.Denied, a.By)
		e.Reason = a.Reason
		return r, []audit.Event{e}, nil
	case Cancel:
		if refusal := mayCancel(r, a.By, at); refusal != nil {
			return r, nil, refusal
		}
		e := r.event(audit.Cancelled, a.By)
		if r.State == StateHandedOff { // what came before the hand-off was executed
			last := len(r.Journal) - 1
			r.Journal[last] = JournalEntry{State: StepSkipped}
			for i := range r.Journal {
				e.Steps = append(e.Steps, r.step(i))
			}
		}
		r.State, r.Ended = StateCancelled, at
		return r, []audit.Event{e}, nil
	case BreakGlass:
		if refusal := mayBreakGlass(r, a, at); refusal != nil {
			return r, nil, refusal
		}
		r.State = StateApproved
		r.BreakGlass = &Decision{By: a.By, At: at, Reason: a.Why}
		e := r.event(audit.UsedBreakGlass, a.By)
		e.Reason = a.Why
		return r, []audit.Event{e}, nil
	case ReviewBreakGlass:
		if refusal := mayReview(r, a); refusal != nil {
			return r, nil, refusal
		}
		r.State = StateDone
		r.Reviewed = &Verdict{By: a.By, At: at, Verdict: a.Verdict, Remark: a.Remark}
		e := r.event(audit.Reviewed, a.By)
		e.Outcome, e.Reason = a.Verdict, a.Remark
		return r, []audit.Event{e}, nil
	case Expire:
		if r.State != StatePending && r.State != StateApproved {
			return r, nil, illegal(r, a)
		}
		if at.Before(r.Deadline) {
			return r, nil, fmt.Errorf("approvals: %s does not expire before %s", r.ID, r.Deadline.Format(time.RFC3339))
		}
		r.Why = "Nobody decided in time."
		if len(r.Approvals) > 0 {
			r.Why = fmt.Sprintf("Only %d of %d approvals came in time.", len(r.Approvals), r.Requirements.Approvals)
		}
		if r.State == StateApproved {
			r.Why = "It was approved, but could not be started in time."
		}
		if r.BreakGlass != nil {
			r.Why = "Break-glass was used, but it could not be started in time."
		}
		r.State, r.Ended = StateExpired, at
		e := r.event(audit.Expired, Person{})
		e.Reason = r.Why
		return r, []audit.Event{e}, nil
	case Stop:
		if refusal := mayStop(r, a.By); refusal != nil {
			return r, nil, refusal
		}
		r.Halt = &Halt{By: a.By, At: at, Why: a.Why}
		e := r.event(audit.Halted, a.By)
		e.Reason = a.Why
		return r, []audit.Event{e}, nil
	case Attest, Confirm, Retract:
		return attest(r, a, at)
	case Claim:
		return claim(r, a, at)
	}
	return applyExecution(r, a, at)
}

func submit(r Request, a Submit, at time.Time) (Request, []audit.Event, error) {
	switch {
	case r.State != "":
		return r, nil, illegal(r, a)
	case a.Requester.ID == "" || a.Plan.Target.ID == "":
		return r, nil, fmt.Errorf("approvals: a request needs a requester and a target with object ids")
	case len(a.Plan.Steps) == 0:
		return r, nil, fmt.Errorf("approvals: a plan without steps is not a request")
	case slices.ContainsFunc(a.Plan.Steps[:len(a.Plan.Steps)-1], func(s Step) bool { return s.ByPeople }):
		return r, nil, fmt.Errorf("approvals: only the last step of a plan is handed to people")
	case a.Requirements.Approvals < 1:
		return r, nil, fmt.Errorf("approvals: a request needs at least one approval, not %d", a.Requirements.Approvals)
	}
	r.State, r.Plan, r.Requester = StatePending, a.Plan, a.Requester
	r.Justification, r.Ticket, r.Verified = a.Justification, a.Ticket, a.Verified
	r.Channel, r.Requirements, r.Created = a.Channel, a.Requirements, at
	r.Journal = make([]JournalEntry, len(a.Plan.Steps))
	return r, []audit.Event{r.event(audit.Requested, a.Requester)}, nil
}

func approve(r Request, a Approve, at time.Time) (Request, []audit.Event, error) {
	if refusal := mayDecide(r, a.By, at); refusal != nil {
		return r, nil, refusal
	}
	r.Approvals = append(r.Approvals, Decision{By: a.By, At: at})
	if len(r.Approvals) >= r.Requirements.Approvals {
		r.State = StateApproved
	}
	e := r.event(audit.Approved, a.By)
	e.Outcome = string(r.State)
	return r, []audit.Event{e}, nil
}

// attest applies the attestation of a hand-off, its confirmation by a second
// person, and its retraction. People are compared by Entra object id, and the
// target may do none of it.
func attest(r Request, a Action, at time.Time) (Request, []audit.Event, error) {
	var by Person
	switch a := a.(type) {
	case Attest:
		by = a.By
	case Confirm:
		by = a.By
	case Retract:
		by = a.By
	}
	step := slices.IndexFunc(r.Journal, func(e JournalEntry) bool { return e.State == StepHandedOff })
	switch {
	case r.State != StateHandedOff || step < 0:
		return r, nil, refuse(CodeDecided, "%s does not wait for anybody to do something by hand: it is %s.", r.ID, r.Summary())
	case by.ID == "":
		return r, nil, refuse(CodeUnknownPerson, "Countersign does not know which Entra account you are.")
	case by.ID == r.Plan.Target.ID:
		return r, nil, refuse(CodeTarget, "%s is about your own account, so you cannot decide about it.", r.ID)
	}
	j := &r.Journal[step]
	_, attesting := a.(Attest)
	_, confirming := a.(Confirm)
	switch {
	case attesting && j.DoneBy != nil:
		return r, nil, refuse(CodeAlreadyDecided, "%s has said already that it is done. It waits for a second person to confirm it.", j.DoneBy.By)
	case attesting:
		j.DoneBy = &Decision{By: by, At: at}
		return r, []audit.Event{r.event(audit.Attested, by)}, nil
	case j.DoneBy == nil:
		return r, nil, refuse(CodeNotRunning, "Nobody has said yet that it is done. Whoever did it presses Done first; then somebody else confirms.")
	case !confirming:
		e := r.event(audit.Retracted, by)
		e.Reason = j.DoneBy.By.String() + " had said that it was done."
		j.DoneBy = nil
		return r, []audit.Event{e}, nil
	case j.DoneBy.By.ID == by.ID:
		return r, nil, refuse(CodeAlreadyDecided, "You said yourself that it is done. Somebody else has to look and confirm it.")
	}
	j.Confirmed, j.State, j.Ended = &Decision{By: by, At: at}, StepAttested, at
	j.Detail = fmt.Sprintf("Done by %s and confirmed by %s, by their own word. Countersign did not carry this out.", j.DoneBy.By, by)
	confirmed := r.event(audit.Confirmed, by)
	r, ended := finish(r, "", at)
	return r, []audit.Event{confirmed, ended}, nil
}

// mayDecide has every rule about decisions that does not depend on the policy:
// requester, approvers and target are different people, and a decision is final.
func mayDecide(r Request, by Person, at time.Time) *Refusal {
	switch {
	case by.ID == "":
		return refuse(CodeUnknownPerson, "Countersign does not know which Entra account you are, so you cannot decide.")
	case r.State == StateExpired || r.State == StatePending && r.overdue(at):
		return expiredRefusal(r)
	case r.State != StatePending:
		return refuse(CodeDecided, "%s is already decided: %s. Your press changed nothing.", r.ID, r.Summary())
	case by.ID == r.Requester.ID:
		return refuse(CodeRequester, "You asked for %s yourself. Somebody else has to decide; you can cancel it.", r.ID)
	case by.ID == r.Plan.Target.ID:
		return refuse(CodeTarget, "%s would change your own account, so you cannot decide about it. Somebody else has to decide.", r.ID)
	case r.approvedBy(by.ID):
		return refuse(CodeAlreadyDecided, "You have approved %s already. It needs %d different people.", r.ID, r.Requirements.Approvals)
	}
	return nil
}

// mayBreakGlass has the rules about break-glass that do not depend on the
// policy. The requester may use it, or somebody else, but never the target.
func mayBreakGlass(r Request, a BreakGlass, at time.Time) *Refusal {
	switch {
	case a.By.ID == "":
		return refuse(CodeUnknownPerson, "Countersign does not know which Entra account you are, so you cannot use break-glass.")
	case r.State == StateExpired || r.State == StatePending && r.overdue(at):
		return expiredRefusal(r)
	case r.State != StatePending:
		return refuse(CodeDecided, "%s does not wait for approval any more: it is %s. Your press changed nothing.", r.ID, r.Summary())
	case r.Plan.Class != ClassContain || slices.ContainsFunc(r.Plan.Steps, func(s Step) bool { return s.ByPeople }):
		return refuse(CodeNotAllowed, "Only containment, such as blocking sign-in, can be run before it is approved.")
	case !r.Requirements.BreakGlass:
		return refuse(CodeNotAllowed, "%s cannot be run before it is approved: the target is protected, or the policy does not allow it. It needs %d approvals.", r.ID, r.Requirements.Approvals)
	case a.By.ID == r.Plan.Target.ID:
		return refuse(CodeTarget, "%s is about your own account, so you cannot use break-glass for it.", r.ID)
	case a.Why == "":
		return refuse(CodeMissing, "Say why this cannot wait for an approval. It is recorded, everybody who could have approved is told, and somebody else reviews it.")
	}
	return nil
}

// identical refuses a request that is open already.
func identical(open Request, by Person) *Refusal {
	who, is := open.Requester.String(), "is "+open.Summary()
	if open.Requester.ID == by.ID {
		who = "You"
	}
	if open.State == StatePending {
		left := Limit{Count: open.Requirements.Approvals - len(open.Approvals)}
		is = fmt.Sprintf("waits for %s until %s", left.countWords("approval"), open.Deadline.UTC().Format("15:04 UTC"))
	}
	no := refuse(CodeIdentical, "%s asked for the same at %s: %s %s. Its card is in the approvals channel. Nothing new was made.",
		who, open.Created.UTC().Format("15:04 UTC"), open.ID, is)
	no.Request = open.ID
	return no
}

// TookPart reports whether a person is the requester, the target, an approver,
// or the one who used break-glass.
func (r Request) TookPart(person string) bool {
	return person == r.Requester.ID || person == r.Plan.Target.ID || r.BreakGlass != nil && person == r.BreakGlass.By.ID || r.approvedBy(person)
}

func (r Request) approvedBy(person string) bool {
	return slices.ContainsFunc(r.Approvals, func(d Decision) bool { return d.By.ID == person })
}

// mayReview refuses a review by anybody who took part in the request.
func mayReview(r Request, a ReviewBreakGlass) *Refusal {
	switch {
	case a.By.ID == "":
		return refuse(CodeUnknownPerson, "Countersign does not know which Entra account you are, so you cannot review.")
	case r.State != StateReview:
		return refuse(CodeDecided, "%s does not wait for a review: it is %s.", r.ID, r.Summary())
	case a.By.ID == r.BreakGlass.By.ID:
		return refuse(CodeAlreadyDecided, "You used break-glass for %s yourself. Somebody else has to review it.", r.ID)
	case a.By.ID == r.Requester.ID:
		return refuse(CodeRequester, "You asked for %s yourself. Somebody else has to review it.", r.ID)
	case a.By.ID == r.Plan.Target.ID:
		return refuse(CodeTarget, "%s is about your own account, so you cannot decide about it.", r.ID)
	case r.approvedBy(a.By.ID):
		return refuse(CodeAlreadyDecided, "You approved %s before break-glass was used. Somebody else has to review it.", r.ID)
	case a.Verdict != VerdictJustified && a.Verdict != VerdictNotJustified:
		return refuse(CodeMissing, "A review says whether it was justified or not.")
	case a.Verdict == VerdictNotJustified && a.Remark == "":
		return refuse(CodeMissing, "Say why it was not justified. The auditors read it.")
	}
	return nil
}

func expiredRefusal(r Request) *Refusal {
	return refuse(CodeExpired, "%s expired before you pressed, and nothing was done. Ask %s to request it again.", r.ID, r.Requester)
}

// overdue reports whether the deadline has passed, noticed or not.
func (r Request) overdue(at time.Time) bool {
	return !r.Deadline.IsZero() && !at.Before(r.Deadline)
}

func mayCancel(r Request, by Person, at time.Time) *Refusal {
	switch {
	case by.ID == "" || by.ID != r.Requester.ID:
		return refuse(CodeNotRequester, "Only %s, who asked for %s, can cancel it. If you may decide, press Deny instead.", r.Requester, r.ID)
	case r.State == StateHandedOff && r.Journal[len(r.Journal)-1].DoneBy != nil:
		return refuse(CodeDecided, "%s cannot be cancelled any more: %s says that it is done.", r.ID, r.Journal[len(r.Journal)-1].DoneBy.By)
	case r.State == StateRunning:
		return refuse(CodeDecided, "%s is running already and cannot be cancelled.", r.ID)
	case r.State == StateReview:
		return refuse(CodeDecided, "%s has been carried out, and waits for its review.", r.ID)
	case r.State.Final():
		return refuse(CodeDecided, "%s is over: %s. There is nothing left to cancel.", r.ID, r.Summary())
	case r.State != StateHandedOff && r.overdue(at):
		return refuse(CodeExpired, "%s expired before you pressed, and nothing was done. There is nothing left to cancel.", r.ID)
	}
	return nil
}

// mayStop refuses the target, because an attacker may hold the target's account.
func mayStop(r Request, by Person) *Refusal {
	switch {
	case by.ID == "":
		return refuse(CodeUnknownPerson, "Countersign does not know which Entra account you are, so you cannot halt anything.")
	case r.State != StateRunning:
		return refuse(CodeNotRunning, "%s is not running, so there is nothing to halt: it is %s.", r.ID, r.Summary())
	case by.ID == r.Plan.Target.ID && by.ID != r.Requester.ID && (r.Plan.Class == ClassContain || r.Verified == VerifiedCompromise):
		return refuse(CodeTarget, "%s contains your own account, so you cannot halt it. If your account was not taken over, speak to %s.", r.ID, r.Requester)
	case r.Halt != nil:
		return refuse(CodeDecided, "%s is being halted already.", r.ID)
	}
	return nil
}

func claim(r Request, a Claim, at time.Time) (Request, []audit.Event, error) {
	switch r.State {
	case StateApproved:
		if !at.Before(r.Deadline) {
			return r, nil, fmt.Errorf("approvals: %s was to be started before %s", r.ID, r.Deadline.Format(time.RFC3339))
		}
	case StateRunning:
		if at.Before(r.Lease) {
			return r, nil, fmt.Errorf("approvals: %s is held by another worker", r.ID)
		}
	default:
		return r, nil, illegal(r, a)
	}
	first := r.State == StateApproved
	r.State, r.Worker, r.NotBefore = StateRunning, a.Worker, time.Time{}
	r.Claim++
	if r.StartedAt.IsZero() {
		r.StartedAt = at
	}
	if !first {
		return r, nil, nil
	}
	return r, []audit.Event{r.event(audit.Started, Person{})}, nil
}

// applyExecution has the transitions of a running request. Only its worker makes
// them, and the store compares the claim.
func applyExecution(r Request, a Action, at time.Time) (Request, []audit.Event, error) {
	if r.State != StateRunning {
		return r, nil, illegal(r, a)
	}
	switch a := a.(type) {
	case StartStep:
		if !r.canStart(a.Step) || r.Plan.Steps[a.Step].ByPeople {
			return r, nil, illegal(r, a)
		}
		r.Journal[a.Step] = JournalEntry{State: StepStarted, Started: at}
		return r, nil, nil
	case EndStep:
		if a.Step < 0 || a.Step >= len(r.Journal) || r.Journal[a.Step].State != StepStarted {
			return r, nil, illegal(r, a)
		}
		switch a.Result.State {
		case StepDone, StepAlready, StepFailed, StepUncertain:
		default:
			return r, nil, fmt.Errorf("approvals: %q is not an outcome of a step", a.Result.State)
		}
		j := &r.Journal[a.Step]
		j.State, j.Ended, j.Detail, j.RequestID = a.Result.State, at, a.Result.Detail, a.Result.RequestID
		e := r.event(audit.StepEnded, Person{})
		e.Steps = []audit.Step{r.step(a.Step)}
		return r, []audit.Event{e}, nil
	case Release:
		if a.Step >= 0 {
			if a.Step >= len(r.Journal) || r.Journal[a.Step].State != StepStarted {
				return r, nil, illegal(r, a)
			}
			r.Journal[a.Step] = JournalEntry{Detail: a.Detail}
		}
		if a.After <= 0 {
			return r, nil, nil
		}
		r.NotBefore = at.Add(a.After)
		e := r.event(audit.Waiting, Person{})
		e.Reason = a.Detail
		return r, []audit.Event{e}, nil
	case HandOff:
		if !r.canStart(a.Step) || !r.Plan.Steps[a.Step].ByPeople || a.Step != len(r.Journal)-1 {
			return r, nil, illegal(r, a)
		}
		r.State, r.Journal[a.Step] = StateHandedOff, JournalEntry{State: StepHandedOff, Started: at}
		e := r.event(audit.HandedOff, Person{})
		for i := range r.Journal {
			e.Steps = append(e.Steps, r.step(i))
		}
		return r, []audit.Event{e}, nil
	case Finish:
		if slices.ContainsFunc(r.Journal, func(e JournalEntry) bool { return e.State == StepStarted }) {
			return r, nil, illegal(r, a)
		}
		r, e := finish(r, a.Why, at)
		return r, []audit.Event{e}, nil
	}
	return r, nil, illegal(r, a)
}

// canStart reports whether a step may be started: in the order of the plan, not
// after a step that stops it, and not after a halt.
func (r Request) canStart(step int) bool {
	if step < 0 || step >= len(r.Journal) || r.Journal[step].State != StepWaiting || r.Halt != nil {
		return false
	}
	for i := range step {
		if s := r.Journal[i].State; s == StepWaiting || s == StepStarted || r.stopsPlan(i) {
			return false
		}
	}
	return true
}

// finish ends a request. Steps that were never started are skipped.
func finish(r Request, why string, at time.Time) (Request, audit.Event) {
	for i := range r.Journal {
		if r.Journal[i].State == StepWaiting {
			r.Journal[i] = JournalEntry{State: StepSkipped}
		}
	}
	r.State, r.Ended, r.Why = StateDone, at, why
	if r.BreakGlass != nil {
		r.State = StateReview
	}
	r.Outcome = outcomeOf(r.Journal)
	e := r.event(audit.Finished, Person{})
	e.Outcome, e.Reason = string(r.Outcome), why
	for i := range r.Journal {
		e.Steps = append(e.Steps, r.step(i))
	}
	return r, e
}

// stopsPlan reports whether a step ended in a way that the next steps must not
// follow.
func (r Request) stopsPlan(step int) bool {
	s := r.Journal[step].State
	return (s == StepFailed || s == StepUncertain) && !r.Plan.Steps[step].CarryOn
}

// outcomeOf computes the outcome from the journal. Uncertain wins, because a
// person has to check the account.
func outcomeOf(journal []JournalEntry) Outcome {
	good, bad, byHand := 0, 0, 0
	for _, e := range journal {
		switch e.State {
		case StepUncertain:
			return OutcomeUncertain
		case StepAttested:
			good++
			byHand++
		case StepDone, StepAlready:
			good++
		default:
			bad++
		}
	}
	switch {
	case bad == 0 && byHand > 0:
		return OutcomeAttested
	case bad == 0:
		return OutcomeSucceeded
	case good == 0:
		return OutcomeFailed
	}
	return OutcomePartial
}

func (r Request) step(i int) audit.Step {
	j := r.Journal[i]
	return audit.Step{Words: r.Plan.Steps[i].Words, State: string(j.State), Detail: j.Detail, RequestID: j.RequestID}
}

// event makes an event about the request in its current state.
func (r Request) event(kind audit.Kind, actor Person) audit.Event {
	return audit.Event{
		Kind: kind, Request: r.ID, Version: r.Version + 1,
		Command: r.Plan.Command, Title: r.Plan.Title, Class: string(r.Plan.Class),
		Actor: actor, Requester: r.Requester, Target: r.Plan.Target,
		Justification: r.Justification, Ticket: r.Ticket, Verified: r.Verified,
		Approvers: r.Approvers(), Needed: r.Requirements.Approvals, BreakGlass: r.usedBreakGlass(),
	}
}

// usedBreakGlass returns who used break-glass, or nobody.
func (r Request) usedBreakGlass() Person {
	if r.BreakGlass == nil {
		return Person{}
	}
	return r.BreakGlass.By
}

// Summary describes the state, to follow the words "it is".
func (r Request) Summary() string {
	switch r.State {
	case "":
		return "not requested yet"
	case StatePending:
		return fmt.Sprintf("waiting for approval (%d of %d)", len(r.Approvals), r.Requirements.Approvals)
	case StateApproved:
		if r.BreakGlass != nil {
			return "about to start with break-glass"
		}
		return "approved and about to start"
	case StateRunning:
		return "running"
	case StateHandedOff:
		if r.Journal[len(r.Journal)-1].DoneBy != nil {
			return "done by hand, and waits for a second person to confirm it"
		}
		return "waiting for somebody to do it by hand"
	case StateReview:
		return "carried out (" + string(r.Outcome) + ") with break-glass, and waits for somebody else's review"
	case StateDone:
		if r.Reviewed != nil {
			return "done, " + string(r.Outcome) + ", and reviewed: " + r.Reviewed.Verdict
		}
		return "done, " + string(r.Outcome)
	case StateDenied:
		if r.Denial != nil {
			return "denied by " + r.Denial.By.String()
		}
	case StateCancelled:
		return "cancelled by its requester"
	}
	return string(r.State)
}

func illegal(r Request, a Action) error {
	return fmt.Errorf("approvals: %T is not possible for %s, which is %s", a, r.ID, r.Summary())
}
