package commands

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"countersign/approvals"
	"countersign/entra"
)

// Tenant is the tenant for commands: it finds people, says what protects an
// account, makes plans and executes their steps. It is safe for concurrent use
// and remembers nothing between two calls.
//
// Its errors are sentences for the requester; Explain makes one of any error. If
// an error has a method Permanent that returns true, another try does not help.
type Tenant struct {
	graph           *entra.Client
	protectedGroups []string
	eligibleRoles   bool
}

var _ approvals.Directory = (*Tenant)(nil)

// Option changes how a Tenant works.
type Option func(*Tenant)

// WithoutEligibleRoles is for tenants without Entra ID P2: they have no
// Privileged Identity Management, so nobody can be eligible for a role, and
// Graph answers the question with an error. Without this option that error
// makes everybody a protected target.
func WithoutEligibleRoles() Option { return func(t *Tenant) { t.eligibleRoles = false } }

// NewTenant makes a Tenant over c. Members of protectedGroups, given by
// object id, are protected targets.
func NewTenant(c *entra.Client, protectedGroups []string, options ...Option) *Tenant {
	t := &Tenant{graph: c, protectedGroups: slices.Clone(protectedGroups), eligibleRoles: true}
	for _, o := range options {
		o(t)
	}
	return t
}

// Find lists everybody whom ref may mean: by object id, UPN, mail or proxy
// address. The list may be empty, and if it has several people, the person
// chooses. It does not resolve a mention: the caller knows which object id
// belongs to a Slack account.
func (t *Tenant) Find(ctx context.Context, ref Ref) ([]approvals.Person, error) {
	name := ref.ObjectID
	if name == "" {
		name = ref.Name
	}
	if name == "" {
		return nil, errors.New("commands: a mention or nothing cannot be looked up in Entra")
	}
	users, err := t.graph.Find(ctx, name)
	if err != nil {
		return nil, lookUp(err)
	}
	people := make([]approvals.Person, len(users))
	for i, u := range users {
		people[i] = person(u)
	}
	return people, nil
}

// Person implements approvals.Directory.
func (t *Tenant) Person(ctx context.Context, ref string) (approvals.Person, error) {
	users, err := t.graph.Find(ctx, ref)
	switch {
	case err != nil:
		return approvals.Person{}, lookUp(err)
	case len(users) != 1:
		return approvals.Person{}, approvals.ErrNoPerson
	}
	return person(users[0]), nil
}

// Account implements approvals.Directory.
func (t *Tenant) Account(ctx context.Context, id string, withProtection bool) (approvals.Account, error) {
	user, err := t.user(ctx, id)
	if err != nil {
		return approvals.Account{}, err
	}
	s := approvals.Account{Person: person(user), Enabled: user.Enabled, Guest: user.Guest}
	var groups []entra.Group
	if withProtection {
		s.Protected, groups, err = t.protection(ctx, user.ID)
	} else if groups, err = t.graph.Groups(ctx, user.ID); err != nil {
		err = lookUp(err)
	}
	if err != nil {
		return approvals.Account{}, err
	}
	for _, g := range groups {
		s.Groups = append(s.Groups, g.ID)
	}
	return s, nil
}

// Contact is somebody who may have to be notified.
type Contact struct {
	Person    approvals.Person
	Mail      string
	Addresses []string // all by which Person finds them, each once; of Members only the first two
	Enabled   bool
	Guest     bool
}

// Members lists who is in a group of the tenant, directly or through other
// groups.
func (t *Tenant) Members(ctx context.Context, group string) ([]Contact, error) {
	users, err := t.graph.Members(ctx, group)
	if err != nil {
		return nil, lookUp(err)
	}
	all := make([]Contact, len(users))
	for i, u := range users {
		all[i] = contact(u)
	}
	return all, nil
}

// Contact looks one person up by object id. It returns approvals.ErrNoPerson if
// the account is gone.
func (t *Tenant) Contact(ctx context.Context, id string) (Contact, error) {
	user, err := t.user(ctx, id)
	return contact(user), err
}

func contact(u entra.User) Contact {
	c := Contact{Person: person(u), Mail: u.Mail, Enabled: u.Enabled, Guest: u.Guest}
	for _, address := range append([]string{u.Mail, u.UPN}, u.Aliases...) {
		if address != "" && !slices.ContainsFunc(c.Addresses, func(other string) bool { return strings.EqualFold(other, address) }) {
			c.Addresses = append(c.Addresses, address)
		}
	}
	return c
}

// Plan makes the plan for in on one account. It reads the account and its
// protection again. Besides failed look-ups it returns *NothingToDo, a
// *approvals.Refusal for a protected target, or approvals.ErrNoPerson for an
// account that is gone.
func (t *Tenant) Plan(ctx context.Context, in Input, target approvals.Person) (approvals.Plan, error) {
	c := in.Command
	if c.plan == nil {
		return approvals.Plan{}, fmt.Errorf("commands: %s only looks, it has no plan", c.Name)
	}
	user, err := t.user(ctx, target.ID)
	if err != nil {
		return approvals.Plan{}, err
	}
	s := subject{Input: in, user: user, person: person(user)}
	s.person.Slack = target.Slack
	protected, groups, err := t.protection(ctx, user.ID)
	if err != nil {
		return approvals.Plan{}, err
	}
	for _, g := range groups {
		s.groups = append(s.groups, g.ID)
	}
	if len(protected) > 0 && c.Class != approvals.ClassContain {
		return approvals.Plan{}, refuseProtected(s.person)
	}
	plan, err := c.plan(ctx, t, s)
	if nothing, ok := errors.AsType[*NothingToDo](err); ok && in.Verified == approvals.VerifiedCompromise {
		return approvals.Plan{}, &NothingToDo{nothing.Sentence + " To keep whoever has the account out, block its sign-in and revoke its sessions."}
	}
	if err != nil {
		return approvals.Plan{}, err
	}
	if in.Verified == approvals.VerifiedCompromise {
		if !acceptsCompromise(c) {
			return approvals.Plan{}, fmt.Errorf("commands: %s asks for a caller who was verified", c.Name)
		}
		plan = withCompromise(s, plan)
	}
	plan.Command, plan.Class, plan.Target = c.Name, c.Class, s.person
	plan.Title = cmp.Or(plan.Title, c.Title)
	return plan, nil
}

// subject is the target of a plan, and the input.
type subject struct {
	Input
	user   entra.User
	person approvals.Person
	groups []string // object ids of every group the person is in
}

// outsider reports whether an account belongs to another organisation, which
// signs the person in and holds the password and most methods. An internal guest
// with a password of this tenant does not.
func (s subject) outsider() bool { return strings.Contains(s.user.UPN, "#EXT#") }

// NothingToDo means that a plan would have no step.
type NothingToDo struct{ Sentence string }

func (n *NothingToDo) Error() string { return n.Sentence }

func (t *Tenant) user(ctx context.Context, id string) (entra.User, error) {
	user, err := t.graph.User(ctx, id)
	if errors.Is(err, entra.ErrNotFound) {
		return entra.User{}, approvals.ErrNoPerson
	}
	if err != nil {
		return entra.User{}, lookUp(err)
	}
	return user, nil
}

func person(u entra.User) approvals.Person {
	return approvals.Person{ID: u.ID, UPN: Plain(u.UPN, 0), Name: Plain(u.Name, 80)}
}

// protection says why nothing but containment may be done to an account, in
// words that follow "the account", and which groups it is in. The rule is
// the one place for all commands. It follows Microsoft's table of who may
// reset whom (https://learn.microsoft.com/entra/identity/role-based-access-control/privileged-roles-permissions),
// which does not bind applications: for them nobody else checks it.
func (t *Tenant) protection(ctx context.Context, id string) (reasons []string, groups []entra.Group, err error) {
	p, err := t.graph.Privilege(ctx, id)
	if err != nil && (t.eligibleRoles || !errors.Is(err, entra.ErrLicense)) {
		return nil, nil, lookUp(err)
	}
	add := func(format string, a ...any) {
		if r := fmt.Sprintf(format, a...); !slices.Contains(reasons, r) {
			reasons = append(reasons, r)
		}
	}
	for _, r := range p.Roles {
		if harmless(r.TemplateID) {
			continue
		}
		how, name, via := "holds", Plain(r.Name, maxName), ""
		if !r.Active {
			how = "is eligible for"
		}
		if r.Via != "" {
			via = " through the group " + Plain(r.Via, maxName)
		}
		if r.Scope != "" && r.Scope != "/" {
			via += " in a part of the tenant"
		}
		add("%s the directory role %s%s", how, name, via)
	}
	for _, g := range p.Groups {
		if g.RoleAssignable {
			add("is a member of the role-assignable group %s", Plain(g.Name, maxName))
		}
		if slices.ContainsFunc(t.protectedGroups, func(id string) bool { return strings.EqualFold(id, g.ID) }) {
			add("is in the protected group %s", Plain(g.Name, maxName))
		}
	}
	for _, g := range p.OwnedRoleAssignable {
		add("owns the role-assignable group %s", Plain(g.Name, maxName))
	}
	if p.Restricted {
		add("is in a restricted management administrative unit")
	}
	return reasons, p.Groups, nil
}

// refuseProtected refuses anything but containment of a protected target.
func refuseProtected(p approvals.Person) *approvals.Refusal {
	return approvals.Refuse(approvals.CodeProtected, "%s is a protected target. Countersign only revokes sessions or blocks sign-in there. "+
		"Ask a Privileged Authentication Administrator to do this in the Entra admin center.", p)
}

// harmless reports whether a directory role, by its template id, gives no power
// over others: every help desk may reset its holders. All other roles, custom
// ones included, protect their holder.
func harmless(template string) bool {
	switch strings.ToLower(template) {
	case "88d8e3e3-8f55-4a1e-953a-9b9898b8876b", // Directory Readers
		"95e79109-95c0-4d8e-aee3-d01accf2d47b", // Guest Inviter
		"790c1fb9-7f7d-4f88-86a1-ef1f95c05c1b", // Message Center Reader
		"4a5d8f65-41da-4de4-8968-e035b65339cf", // Reports Reader
		"75934031-6c7e-415a-99d7-48dbd49e875e", // Usage Summary Reports Reader
		"27460883-1df1-4691-b032-3b79643e5e63": // User Experience Success Manager
		return true
	}
	return false
}

// lookUpError is a look-up that failed, as a sentence.
type lookUpError struct{ error }

func lookUp(err error) error { return &lookUpError{err} }

func (e *lookUpError) Error() string { return Explain(e.error) }

// Sentence is what approvals tells the person whose command it was.
func (e *lookUpError) Sentence() string { return Explain(e.error) }

func (e *lookUpError) Unwrap() error { return e.error }

// Permanent says that trying again does not help: somebody has to change
// something first.
func (e *lookUpError) Permanent() bool {
	return !errors.Is(e.error, entra.ErrUnreachable) && !errors.Is(e.error, entra.ErrThrottled) &&
		!errors.Is(e.error, context.DeadlineExceeded) && !errors.Is(e.error, context.Canceled)
}
