package audit

import (
	"fmt"
	"strings"
	"time"
)

// Person is somebody named in an event: always one Entra account, and the
// Slack account it spoke through where there was one.
type Person struct {
	ID    string `json:"id,omitempty"`    // Entra object id: the identity all rules compare
	UPN   string `json:"upn,omitempty"`   // user principal name, for people to read
	Name  string `json:"name,omitempty"`  // display name, for people to read
	Slack string `json:"slack,omitempty"` // Slack user id, empty when the person came from Entra alone
}

// String names the person the way every line and card does: name and UPN.
func (p Person) String() string {
	switch {
	case p.Name != "" && p.UPN != "":
		return p.Name + " (" + p.UPN + ")"
	case p.UPN != "":
		return p.UPN
	case p.Name != "":
		return p.Name
	case p.Slack != "":
		return "Slack user " + p.Slack
	case p.ID != "":
		return "account " + p.ID
	}
	return "nobody"
}

// Kind says which transition an event records.
type Kind string

// The kinds of event. Every change of a request, every refusal and every
// read of somebody's methods is exactly one of them.
const (
	Read      Kind = "read"      // somebody looked at a person's methods or at the desk
	Refused   Kind = "refused"   // somebody was told no; Reason says why
	Requested Kind = "requested" // a plan was put before the approvers
	Approved  Kind = "approved"  // one approver said yes; Outcome is "approved" when that was enough
	Denied    Kind = "denied"    // one approver said no: final
	Cancelled Kind = "cancelled" // the requester took it back
	Expired   Kind = "expired"   // nobody decided, or nobody could run it, in time
	Started   Kind = "started"   // a worker claimed it: the record of intent, written before the first step
	Stepped   Kind = "stepped"   // one step has an outcome; folded into the line of Finished
	Waiting   Kind = "waiting"   // Microsoft Graph asked to wait; the worker let go until then
	Halted    Kind = "halted"    // somebody stopped a running request between two steps
	Finished  Kind = "finished"  // no step is left; Outcome is succeeded, partial, failed or uncertain
	Alarm     Kind = "alarm"     // something only the security people can judge, such as a changed Slack account
)

// Step is the outcome of one step of a plan, in words that mask every phone
// number and e-mail address.
type Step struct {
	Words     string `json:"words"`
	State     string `json:"state"`                // done, already so, failed, uncertain, skipped
	Detail    string `json:"detail,omitempty"`     // what it means and who can fix it
	RequestID string `json:"request_id,omitempty"` // Graph's request-id, which Microsoft's support asks for
}

// Event is one transition: what a projection is told, and what the auditor
// reads a year later. It never holds a secret, a phone number or the e-mail
// address of a method.
type Event struct {
	ID            string    `json:"id,omitempty"` // place in the event log, rising; set when read
	At            time.Time `json:"at"`           // Redis' clock; set when read
	Kind          Kind      `json:"kind"`
	Op            string    `json:"op,omitempty"` // the operation that caused it, the same for every delivery
	Request       string    `json:"request,omitempty"`
	Version       int64     `json:"version,omitempty"` // of the request, after the transition
	Command       string    `json:"command,omitempty"`
	Title         string    `json:"title,omitempty"` // the plan in three words
	Class         string    `json:"class,omitempty"`
	Actor         Person    `json:"actor"` // who did this, zero for Countersign itself
	Requester     Person    `json:"requester"`
	Target        Person    `json:"target"`
	Justification string    `json:"justification,omitempty"`
	Ticket        string    `json:"ticket,omitempty"`
	Verified      string    `json:"verified,omitempty"`
	Approvers     []Person  `json:"approvers,omitempty"`
	Needed        int       `json:"needed,omitempty"` // approvals the request needs
	Outcome       string    `json:"outcome,omitempty"`
	Reason        string    `json:"reason,omitempty"`
	Steps         []Step    `json:"steps,omitempty"`
}

// Line is the event as one line an auditor can read: who, whom, what, why,
// approved by whom, result, request id.
func (e Event) Line() string {
	var b strings.Builder
	say := func(format string, a ...any) { fmt.Fprintf(&b, format, a...) }
	what := e.Title
	if what == "" {
		what = e.Command
	}
	if what == "" {
		what = "something"
	}
	onTarget := what
	if e.Target != (Person{}) {
		onTarget += " for " + e.Target.String()
	}
	actor := e.Actor.String()
	if e.Actor == (Person{}) {
		actor = "Countersign"
	}
	switch e.Kind {
	case Read:
		say("%s looked at: %s", actor, onTarget)
	case Refused:
		say("%s was refused: %s", actor, onTarget)
	case Requested:
		say("%s requested: %s", actor, onTarget)
	case Approved:
		say("%s approved (%d of %d): %s", actor, len(e.Approvers), e.Needed, onTarget)
	case Denied:
		say("%s denied: %s", actor, onTarget)
	case Cancelled:
		say("%s cancelled: %s", actor, onTarget)
	case Expired:
		say("Expired: %s", onTarget)
	case Started:
		say("Started: %s", onTarget)
	case Stepped:
		say("Step: %s", onTarget)
	case Waiting:
		say("Waiting for Microsoft Graph: %s", onTarget)
	case Halted:
		say("%s halted: %s", actor, onTarget)
	case Finished:
		say("%s: %s", capital(e.Outcome), onTarget)
	case Alarm:
		say("Alarm: %s", actor)
	default:
		say("%s: %s", e.Kind, onTarget)
	}
	if e.Requester != (Person{}) && e.Requester.ID != e.Actor.ID {
		say(" · requested by %s", e.Requester)
	}
	if len(e.Approvers) > 0 && e.Kind != Approved {
		names := make([]string, len(e.Approvers))
		for i, p := range e.Approvers {
			names[i] = p.String()
		}
		say(" · approved by %s", strings.Join(names, ", "))
	}
	if e.Justification != "" {
		say(" · why: %s", e.Justification)
	}
	if e.Ticket != "" {
		say(" · ticket %s", e.Ticket)
	}
	if e.Verified != "" {
		say(" · caller verified: %s", e.Verified)
	}
	if e.Reason != "" {
		say(" · %s", e.Reason)
	}
	for i, s := range e.Steps {
		say(" · %d. %s: %s", i+1, s.Words, s.State)
		if s.Detail != "" {
			say(" (%s)", strings.TrimSuffix(s.Detail, "."))
		}
		if s.RequestID != "" {
			say(" [Graph request-id %s]", s.RequestID)
		}
	}
	if e.Request != "" {
		say(" · %s", e.Request)
	}
	return b.String()
}

func capital(s string) string {
	if s == "" {
		return "Finished"
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
