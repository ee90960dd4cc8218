package approvals

import (
	"errors"
	"fmt"
)

// Code names a refusal. It is stored with the operation, so that a redelivery
// gets the same answer.
type Code string

// The refusals. Each has one sentence, made where the rule is.
const (
	CodeUnknownPerson  Code = "nobody"        // which Entra account is this?
	CodeNotAllowed     Code = "not-allowed"   // the policy does not name this person
	CodeDisabled       Code = "disabled"      // the Entra account is disabled
	CodeGuest          Code = "guest"         // guests neither ask nor decide
	CodeNotMember      Code = "outsider"      // a bot, a deactivated account, another workspace
	CodeRecentTarget   Code = "recent-target" // the person's own account was changed lately
	CodeRequester      Code = "requester"
	CodeTarget         Code = "target"
	CodeAlreadyDecided Code = "twice"
	CodeDecided        Code = "decided"
	CodeExpired        Code = "expired"
	CodeNotRequester   Code = "not-requester"
	CodeNotRunning     Code = "not-running"
	CodeSelf           Code = "self"       // asking for oneself
	CodeProtected      Code = "protected"  // the target is protected
	CodeMissing        Code = "missing"    // a required field is empty
	CodeIdentical      Code = "identical"  // the same request is open already
	CodeUnchecked      Code = "unchecked"  // a look-up failed, and what cannot be checked is refused
	CodeTooMany        Code = "too-many"   // a rate limit
	CodeNoRequest      Code = "no-request" // there is no such request
	CodeElsewhere      Code = "elsewhere"  // it can be done, but not by Countersign
	CodeNoSteps        Code = "nothing"    // the plan would have no step
	CodeChannel        Code = "channel"    // pressed where Countersign does not take presses
	CodeUnapprovable   Code = "vain"       // fewer people are left than must approve
	CodeIDTaken        Code = "taken"      // another request has the id that this one would get
)

// Refusal is a refusal with a sentence for the person who gets it. It is never a
// fault of ours.
type Refusal struct {
	Code     Code
	Sentence string
	Request  string // with CodeIdentical: the request that is open
}

func (r *Refusal) Error() string { return r.Sentence }

func refuse(code Code, format string, a ...any) *Refusal {
	return &Refusal{Code: code, Sentence: fmt.Sprintf(format, a...)}
}

// Refuse makes a refusal for a rule outside this package, such as those about
// Slack accounts.
func Refuse(code Code, format string, a ...any) *Refusal { return refuse(code, format, a...) }

// Errors of the store and of look-ups.
var (
	ErrNoRequest  = errors.New("approvals: no such request")
	ErrNoPerson   = errors.New("approvals: no such person, or more than one")
	ErrFenced     = errors.New("approvals: another worker holds this request")
	ErrConflict   = errors.New("approvals: the request changed again and again while it was being decided")
	errHalted     = errors.New("approvals: somebody halted this request before its next step began")
	ErrLostWrites = errors.New("approvals: this Redis has lost writes that it had confirmed; nothing is executed until an operator resumes it")
)
