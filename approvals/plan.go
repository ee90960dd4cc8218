package approvals

import (
	"context"

	"countersign/audit"
)

// Person is one Entra account. Rules compare ID and nothing else.
type Person = audit.Person

// Class is how dangerous a command is; it decides the policy's defaults.
type Class string

// The classes of the command table.
const (
	ClassRead     Class = "read"     // looks only
	ClassContain  Class = "contain"  // stops an account: safe for the company, a nuisance for the person
	ClassDestroy  Class = "destroy"  // takes methods away
	ClassTakeover Class = "takeover" // whoever receives the result can become the person
)

// Step is one call of a plan, as plain data. This package never looks into Op
// and Args: commands makes and executes them.
type Step struct {
	Op    string            `json:"op"`
	Args  map[string]string `json:"args,omitempty"`
	Words string            `json:"words"` // what people read; phone numbers and addresses masked

	// Secret says that this step has a result which only the requester may see
	// (a temporary password, a pass), and where it comes from. It never enters
	// the request, an event or a message.
	Secret SecretSource `json:"secret,omitempty"`

	// ByPeople makes the step a hand-off: one person does it manually and attests
	// it, and another confirms it. Words says what to do.
	ByPeople bool `json:"by_people,omitempty"`

	// CarryOn lets the steps behind this one run when it failed or ended
	// uncertain. A step without it stops the plan.
	CarryOn bool `json:"carry_on,omitempty"`
}

// SecretSource says where the secret of a step comes from.
type SecretSource string

// A secret from Prepare is made and sealed before the call, so that a repeat
// sends the same one. A secret from the answer is lost with it, so that a
// repeat asks for another.
const (
	SecretNone       SecretSource = ""
	SecretPrepared   SecretSource = "prepared"
	SecretFromAnswer SecretSource = "answer"
)

// Plan is what people see, what is stored, what is executed and what is
// reported. It never changes: another plan is another request.
type Plan struct {
	Command  string            `json:"command"` // name in the command table
	Title    string            `json:"title"`   // in three words, for cards and lines
	Class    Class             `json:"class"`
	Target   Person            `json:"target"`
	Args     string            `json:"args,omitempty"` // the command's own arguments in their canonical form
	Steps    []Step            `json:"steps"`
	Keeps    []string          `json:"keeps,omitempty"`    // what is left alone, in words
	Warnings []string          `json:"warnings,omitempty"` // what the approver must know
	Assumes  map[string]string `json:"assumes,omitempty"`  // facts about the target that must still hold before the first step
}

// Account is what the tenant says about a person now.
type Account struct {
	Person
	Enabled   bool
	Guest     bool
	Groups    []string // object ids of every group, transitively
	Protected []string // why nothing but containment may be done to this account, in words; empty for most people

	SlackGroups []string // of the Slack user groups that were asked for, those the person is in; filled by Service
}

// Directory looks people up. It is implemented over the tenant by commands.
type Directory interface {
	// Person finds one person by object id or mail. ErrNoPerson when there is
	// none or more than one: identity is never guessed.
	Person(ctx context.Context, ref string) (Person, error)
	// Account looks a person up afresh: enabled, guest, groups.
	// withProtection also asks for directory roles, which costs more calls.
	Account(ctx context.Context, id string, withProtection bool) (Account, error)
}

// UserGroups tells which of some Slack user groups, by id, a person is in. It
// asks Slack every time, because decisions depend on it. A person who certainly
// has no Slack account is in none of them; if that is unknown, it is an error.
type UserGroups interface {
	In(ctx context.Context, who Person, groups []string) ([]string, error)
}

// JobKind says what a worker has to do with a step.
type JobKind string

// JobPrepare makes the secret of a step with SecretPrepared without any call; its
// Result has StepDone and the Secret. JobCheck compares the target with what the
// plan assumes. JobRun executes a step for the first time. JobReconcile determines
// the outcome of a step that was started and has none, and repeats the step only if
// that is safe.
const (
	JobPrepare   JobKind = "prepare"
	JobCheck     JobKind = "check"
	JobRun       JobKind = "run"
	JobReconcile JobKind = "reconcile"
)

// Job is one call of Work. For JobCheck, Step is -1, and the journal shows which
// effects of an earlier worker are expected.
type Job struct {
	Kind    JobKind
	Request Request
	Step    int
	Secret  string `json:"-"` // with Run and Reconcile of a step with SecretPrepared; empty where it is lost

	// ReadOnly is set with JobReconcile if the request was halted, or is no longer
	// allowed, since the step was started: then Work determines the outcome and
	// repeats nothing. A step that was not executed has failed.
	ReadOnly bool
}

// Work executes one job against the tenant. It returns within the deadline of
// ctx and reports only what it knows.
type Work func(ctx context.Context, job Job) Result
