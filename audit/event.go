package audit

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Person is somebody named in an event: one Entra account, and the Slack account
// that was used, if there was one.
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
	Read           Kind = "read"        // somebody looked at a person's methods or at open requests
	Refused        Kind = "refused"     // somebody was told no; Reason is what they were told, Outcome the verb they tried (approve, deny, …) if it was a press
	Requested      Kind = "requested"   // a plan was put before the approvers
	Approved       Kind = "approved"    // one approver said yes; Outcome is "approved" when that was enough
	Denied         Kind = "denied"      // one approver said no: final
	Cancelled      Kind = "cancelled"   // the requester took it back
	Expired        Kind = "expired"     // nobody decided, or nobody could run it, in time
	Started        Kind = "started"     // a worker claimed it: the record of intent, written before the first step
	StepEnded      Kind = "stepped"     // one step has an outcome; folded into the line of Finished
	Waiting        Kind = "waiting"     // Microsoft Graph asked to wait; the worker let go until then
	Halted         Kind = "halted"      // somebody stopped a running request between two steps
	Finished       Kind = "finished"    // no step is left; Outcome is succeeded, partial, failed, uncertain or attested
	HandedOff      Kind = "handed-off"  // the rest is for people to do by hand
	Attested       Kind = "attested"    // somebody says that they did it
	Retracted      Kind = "retracted"   // somebody says that it was not done after all
	Confirmed      Kind = "confirmed"   // a second person says that it is so
	Reminded       Kind = "reminded"    // people were reminded of what they have to do; Reason is where it stands, Outcome the state in one word
	UsedBreakGlass Kind = "broke-glass" // somebody ran a containment before it was approved; Reason is why it could not wait
	Reviewed       Kind = "reviewed"    // another person says of that whether it was justified, which is its Outcome
	Revealed       Kind = "revealed"    // the requester opened a temporary password or a pass
	Unseen         Kind = "unseen"      // nobody is known to have seen it in time, and it is gone; Outcome is "opened" if it was opened all the same
	Alarm          Kind = "alarm"       // something only the security people can judge, such as a changed Slack account
)

// Step is the outcome of one step of a plan, in words that mask every phone
// number and e-mail address.
type Step struct {
	Words     string `json:"words"`
	State     string `json:"state"`                // done, already so, attested, failed, uncertain, skipped, handed-off
	Detail    string `json:"detail,omitempty"`     // what it means and who can fix it
	RequestID string `json:"request_id,omitempty"` // Graph's request-id, which Microsoft's support asks for
}

// Event is one transition, for projections and for auditors. It never contains a
// secret, a phone number or the e-mail address of a method.
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
	BreakGlass    Person    `json:"glass,omitzero"`   // who used break-glass, so that it ran without them
	Outcome       string    `json:"outcome,omitempty"`
	Reason        string    `json:"reason,omitempty"`
	Code          string    `json:"code,omitempty"` // of a refusal, for those who route events
	Steps         []Step    `json:"steps,omitempty"`
}

// Line is the event as one line for auditors: actor, target, action, outcome,
// requester and approvers, justification, steps, request id. The parts are
// separated by " · ", and no name, justification or message can break the line,
// reorder it or be mistaken for another part.
func (e Event) Line() string {
	parts := []string{e.headline()}
	say := func(format string, a ...any) { parts = append(parts, fmt.Sprintf(format, a...)) }

	if e.Kind == Finished && len(e.Steps) > 0 {
		say("%s", tally(e.Steps))
	}
	if e.Reason != "" {
		switch e.Kind {
		case Refused:
			say("told: %s", quoted(e.Reason))
		case Denied, Halted, UsedBreakGlass:
			say("reason: %s", quoted(e.Reason))
		case Reviewed:
			say("remark: %s", quoted(e.Reason))
		case Alarm: // its headline says it
		default:
			say("%s", oneLine(e.Reason))
		}
	}
	if e.Requester != (Person{}) && !same(e.Requester, e.Actor) {
		say("requested by %s", named(e.Requester))
	}
	if e.Kind == Requested && e.Needed > 0 {
		say("needs %s", count(e.Needed, "approval"))
	}
	if e.BreakGlass != (Person{}) && e.Kind != UsedBreakGlass {
		say("break-glass used by %s", named(e.BreakGlass))
	}
	var others []string
	for _, p := range e.Approvers {
		if e.Kind != Approved || !same(p, e.Actor) {
			others = append(others, named(p))
		}
	}
	switch {
	case len(others) == 0:
	case e.Kind == Approved:
		say("approved before by %s", strings.Join(others, " and "))
	default:
		say("approved by %s", strings.Join(others, " and "))
	}
	if e.Justification != "" {
		say("justification: %s", quoted(e.Justification))
	}
	if e.Ticket != "" {
		say("ticket %s", oneLine(e.Ticket))
	}
	if e.Verified != "" {
		say("caller verification: %s", oneLine(e.Verified))
	}
	if e.Kind != StepEnded {
		for i, s := range e.Steps {
			say("%d. %s", i+1, s.line())
		}
	}
	if e.Request != "" {
		say("%s", oneLine(e.Request))
	}
	return strings.Join(parts, " · ")
}

// headline says who did what to whom, and how it went.
func (e Event) headline() string {
	what := oneLine(cmp.Or(e.Title, e.Command, "something"))
	if e.Target != (Person{}) {
		what += " for " + named(e.Target)
	}
	actor := "Countersign"
	if e.Actor != (Person{}) {
		actor = named(e.Actor)
	}
	switch e.Kind {
	case Read:
		return actor + " looked at: " + what
	case Refused:
		if e.Outcome != "" {
			return actor + " tried to " + oneLine(e.Outcome) + " and was refused: " + what
		}
		return actor + " was refused: " + what
	case Requested:
		return actor + " requested: " + what
	case Approved:
		switch missing := e.Needed - len(e.Approvers); {
		case e.Needed == 0:
			return actor + " approved: " + what
		case missing > 0 && e.Outcome != string(Approved):
			return fmt.Sprintf("%s approved (%d of %d, %d more needed): %s", actor, len(e.Approvers), e.Needed, missing, what)
		}
		return fmt.Sprintf("%s approved (%d of %d): %s", actor, len(e.Approvers), e.Needed, what)
	case Denied:
		return actor + " denied: " + what
	case Cancelled:
		return actor + " cancelled: " + what
	case Expired:
		return "Expired, nothing was done: " + what
	case Started:
		return "Started: " + what
	case StepEnded:
		if len(e.Steps) == 1 {
			return "One step of " + what + ": " + e.Steps[0].line()
		}
		return "One step of " + what
	case Waiting:
		return "Microsoft Graph asked to wait, to be continued: " + what
	case Halted:
		return actor + " halted: " + what
	case HandedOff:
		return "Handed over to people, because Microsoft Graph cannot do it: " + what
	case Attested:
		return actor + " says that it was done by hand: " + what
	case Retracted:
		return actor + " says that it was not done by hand after all: " + what
	case Confirmed:
		return actor + " confirms that it was done by hand: " + what
	case UsedBreakGlass:
		return actor + " used break-glass, so that it runs before it is approved: " + what
	case Reviewed:
		return actor + " reviewed what ran with break-glass and found it " + cmp.Or(oneLine(e.Outcome), "finished") + ": " + what
	case Reminded:
		return "Reminder: " + what
	case Revealed:
		return actor + " opened the secret: " + what
	case Unseen:
		if e.Outcome == "opened" {
			return "The secret was opened, is not known to have been seen, and is gone: " + what
		}
		return "The secret was not opened in time and is gone: " + what
	case Finished:
		switch e.Outcome {
		case "succeeded":
			return "Succeeded: " + what
		case "partial":
			return "Only partly done: " + what
		case "failed":
			return "Failed: " + what
		case "attested":
			if slices.ContainsFunc(e.Steps, func(s Step) bool { return s.State == "done" || s.State == "already so" }) {
				return "Executed by Countersign but for the last step, which people attest: " + what
			}
			return "Attested by people, not executed by Countersign: " + what
		case "uncertain":
			return "Uncertain, somebody has to look at the account: " + what
		}
		return "Finished: " + what
	case Alarm:
		about := e.Actor
		if about == (Person{}) {
			about = e.Target
		}
		line := "Alarm"
		if about != (Person{}) {
			line += " about " + named(about)
		}
		return line + ": " + cmp.Or(oneLine(e.Reason), what)
	}
	return oneLine(string(e.Kind)) + ": " + what
}

func (s Step) line() string {
	line := oneLine(s.Words) + ": " + oneLine(s.State)
	if detail := strings.TrimSuffix(oneLine(s.Detail), "."); detail != "" {
		line += " (" + detail + ")"
	}
	if s.RequestID != "" {
		line += " [Graph request-id " + oneLine(s.RequestID) + "]"
	}
	return line
}

// tally counts the steps by outcome, so that a partial request shows at once how
// much of it was executed.
func tally(steps []Step) string {
	n := make(map[string]int)
	for _, s := range steps {
		n[s.State]++
	}
	var line string
	switch {
	case n["done"] > 0:
		line = fmt.Sprintf("%d of %s done", n["done"], count(len(steps), "step"))
	case n["attested"] > 0:
		line = "no step was executed"
	case n["uncertain"] > 0:
		line = "no step is known to be done"
	default:
		line = "no step was done"
	}
	for _, state := range []string{"already so", "attested", "failed", "uncertain", "skipped"} {
		if n[state] > 0 {
			line += fmt.Sprintf(", %d %s", n[state], state)
		}
	}
	return line
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// same tells whether two people are one Entra account.
func same(a, b Person) bool {
	if a.ID == "" || b.ID == "" {
		return a == b
	}
	return a.ID == b.ID
}

func named(p Person) string { return oneLine(p.String()) }

// oneLine makes text that came from elsewhere fit into a line: without line
// breaks and control characters (a terminal would obey them), without
// characters that change the direction of writing, and without the separator
// that would let it pass for a part of the line.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r), unicode.IsControl(r):
			return ' '
		case unicode.Is(unicode.Bidi_Control, r):
			return -1
		}
		return r
	}, s)
	words := strings.Fields(s)
	for i, w := range words {
		if w == "·" {
			words[i] = "-"
		}
	}
	return strings.Join(words, " ")
}

// quoted is oneLine in quotation marks that the text itself cannot close.
func quoted(s string) string {
	return "“" + strings.NewReplacer("“", `"`, "”", `"`).Replace(oneLine(s)) + "”"
}
