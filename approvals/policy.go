package approvals

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Policy says who is allowed to do what. It is data from the configuration. The
// functions below are pure, and a failed look-up means no.
type Policy struct {
	Groups          map[string]Group `yaml:"groups"`           // names for the rest of the policy
	Classes         map[Class]Rule   `yaml:"classes"`          // by class
	Commands        map[string]Rule  `yaml:"commands"`         // by command; what is set here wins over the class
	ProtectedGroups []string         `yaml:"protected_groups"` // Entra groups whose members nothing but containment may touch
	Limits          Limits           `yaml:"limits"`           // of changes over time
	ReadsAMinute    int              `yaml:"reads_a_minute"`   // read commands per person
}

// Group is a named set of people: the transitive members of Entra groups, the
// members of Slack user groups, and single people by Entra object id. An empty
// group contains nobody.
type Group struct {
	Entra  []string `yaml:"entra_groups"`
	Slack  []string `yaml:"slack_groups"` // ids, S…
	People []string `yaml:"people"`
}

// Rule is what one class or command requires.
type Rule struct {
	Request        []string      `yaml:"request"`      // groups that may ask
	Approve        []string      `yaml:"approve"`      // groups that may decide
	BreakGlass     []string      `yaml:"break_glass"`  // groups that may run a containment at once, reviewed afterwards
	RequestForSelf *bool         `yaml:"ask_for_self"` // whether everybody may ask for their own account
	ApproveSelf    []string      `yaml:"approve_self"` // groups that decide what people ask for themselves; those under request when empty
	Approvals      int           `yaml:"approvals"`    // how many people must say yes
	Lifetime       time.Duration `yaml:"lifetime"`     // how long a request waits for them
	Require        []string      `yaml:"require"`      // what a request must come with besides what its class demands: ticket, justification, verified
	Verified       []string      `yaml:"verified"`     // the ways of verifying a caller that count; all when empty
}

// The things that Rule.Require may name.
const (
	NeedTicket        = "ticket"
	NeedJustification = "justification"
	NeedVerified      = "verified"
)

// Limits bound the number of changes within a period, over all commands.
// Containment does not count towards the limit of its target, because an
// intruder could exhaust that on purpose.
type Limits struct {
	Requester  Limit `yaml:"requester"`   // requests by one person
	Target     Limit `yaml:"target"`      // requests for one account
	Pair       Limit `yaml:"pair"`        // approvals between two people, whoever of them asked
	BreakGlass Limit `yaml:"break_glass"` // by one person; 3 within an hour when not set
}

// Limit is a number of times within a period. There is no limit if Count is
// zero.
type Limit struct {
	Count  int           `yaml:"count"`
	Within time.Duration `yaml:"within"`
}

// defaultBreakGlassLimit applies if the configuration sets none: break-glass is
// always limited.
var defaultBreakGlassLimit = Limit{Count: 3, Within: time.Hour}

// Check refuses a policy that names groups it does not define, that accepts
// requests which nobody could approve, or that lets anything but containment run
// without approval.
func (p Policy) Check(commands map[string]Class) error {
	var wrong []string
	ways := []string{"in-person", "video", "callback", "manager", VerifiedCompromise}
	check := func(where string, r Rule) {
		for _, name := range slices.Concat(r.Request, r.Approve, r.BreakGlass, r.ApproveSelf) {
			if _, ok := p.Groups[name]; !ok {
				wrong = append(wrong, fmt.Sprintf("%s names the group %q, which policy.groups does not define", where, name))
			}
		}
		if r.Approvals < 0 || r.Approvals > 10 {
			wrong = append(wrong, fmt.Sprintf("%s asks for %d approvals; it can be 1 to 10", where, r.Approvals))
		}
		if r.Lifetime < 0 || r.Lifetime > 24*time.Hour {
			wrong = append(wrong, fmt.Sprintf("%s has a lifetime of %s; it can be 1m to 24h, because approvals must be fresh", where, r.Lifetime))
		}
		for _, field := range r.Require {
			if !slices.Contains([]string{NeedTicket, NeedJustification, NeedVerified}, field) {
				wrong = append(wrong, fmt.Sprintf("%s requires %q; it can require ticket, justification and verified", where, field))
			}
		}
		for _, way := range r.Verified {
			if !slices.Contains(ways, way) {
				wrong = append(wrong, fmt.Sprintf("%s counts %q as a verified caller; the ways are %s", where, way, strings.Join(ways, ", ")))
			}
		}
	}
	if p.ReadsAMinute < 0 {
		wrong = append(wrong, fmt.Sprintf("policy.reads_a_minute is %d; it is at least 1, or left out for no limit", p.ReadsAMinute))
	}
	for name, l := range map[string]Limit{"requester": p.Limits.Requester, "target": p.Limits.Target, "pair": p.Limits.Pair, "break_glass": p.Limits.BreakGlass} {
		if (l != Limit{}) && (l.Count < 1 || l.Within < time.Minute || l.Within > 30*24*time.Hour) {
			wrong = append(wrong, fmt.Sprintf("policy.limits.%s: a count of at least 1 within 1m to 720h, such as {count: 10, within: 1h}", name))
		}
	}
	for _, class := range slices.Sorted(maps.Keys(p.Classes)) {
		if !slices.Contains([]Class{ClassRead, ClassContain, ClassDestroy, ClassTakeover}, class) {
			wrong = append(wrong, fmt.Sprintf("policy.classes has %q; the classes are read, contain, destroy and takeover", class))
		}
		check("policy.classes."+string(class), p.Classes[class])
	}
	for _, name := range slices.Sorted(maps.Keys(p.Commands)) {
		if _, ok := commands[name]; !ok {
			wrong = append(wrong, fmt.Sprintf("policy.commands has %q, which is not a command", name))
		}
		check("policy.commands."+name, p.Commands[name])
	}
	for _, name := range slices.Sorted(maps.Keys(commands)) {
		class := commands[name]
		r := p.rule(name, class)
		// Whatever the class says is said once for all of its commands.
		of := func(own func(Rule) bool) (where, what string) {
			if own(p.Commands[name]) {
				return "policy.commands." + name, name
			}
			return "policy.classes." + string(class), "what is of class " + string(class)
		}
		if len(r.BreakGlass) > 0 {
			where, what := of(func(r Rule) bool { return r.BreakGlass != nil })
			switch {
			case class != ClassContain:
				wrong = append(wrong, fmt.Sprintf("%s: only containment may use break-glass: remove break_glass there", where))
			case !slices.ContainsFunc(r.BreakGlass, p.namesAnybody):
				wrong = append(wrong, fmt.Sprintf("%s: nobody may use break-glass for %s, because the groups under break_glass are empty: add somebody to one, or remove break_glass", where, what))
			}
		}
		if class == ClassRead {
			continue
		}
		if few, all := p.maxMembers(r.Approve); len(r.requesters()) > 0 {
			switch {
			case !slices.ContainsFunc(r.Approve, p.namesAnybody):
				where, what := of(func(r Rule) bool { return r.Request != nil || r.BreakGlass != nil || r.Approve != nil })
				wrong = append(wrong, fmt.Sprintf("%s: people may ask for %s, but nobody may approve it: name approvers, or no requesters", where, what))
			case all && few < r.Approvals:
				where, what := of(func(r Rule) bool { return r.Approve != nil || r.Approvals > 0 })
				wrong = append(wrong, fmt.Sprintf("%s: %s needs %d approvals, and only %d people may give one: name more, or ask for fewer", where, what, r.Approvals, few))
			}
		}
		if r.forSelf() && !slices.ContainsFunc(r.deciders(true), p.namesAnybody) {
			where, what := of(func(r Rule) bool { return r.RequestForSelf != nil || r.ApproveSelf != nil || r.Request != nil })
			wrong = append(wrong, fmt.Sprintf("%s: people may ask for %s for their own account, but nobody may decide that: name groups under approve_self, or under request", where, what))
		}
	}
	// What has no effect is a mistake of whoever wrote it, who relies on it.
	idle := func(where string, own Rule, of []string) {
		all := func(holds func(name string) bool) bool {
			return len(of) > 0 && !slices.ContainsFunc(of, func(name string) bool { return !holds(name) })
		}
		more := len(own.Approve)+len(own.BreakGlass)+len(own.ApproveSelf)+len(own.Require)+len(own.Verified)+own.Approvals > 0 || own.Lifetime > 0
		if more && all(func(name string) bool { return commands[name] == ClassRead }) {
			wrong = append(wrong, where+" is a rule for read commands, for which only request and ask_for_self count: remove the other settings")
		} else if len(own.ApproveSelf) > 0 && all(func(name string) bool { return !p.rule(name, commands[name]).forSelf() }) {
			wrong = append(wrong, where+" has approve_self, but nobody may request for their own account: set ask_for_self, or remove approve_self")
		}
	}
	for class, r := range p.Classes {
		idle("policy.classes."+string(class), r, slices.DeleteFunc(slices.Collect(maps.Keys(commands)), func(name string) bool { return commands[name] != class }))
	}
	for name, r := range p.Commands {
		if _, ok := commands[name]; ok {
			idle("policy.commands."+name, r, []string{name})
		}
	}
	slices.Sort(wrong)
	if len(wrong) > 0 {
		return errors.New(strings.Join(slices.Compact(wrong), "\n"))
	}
	return nil
}

// namesAnybody reports whether a group names anybody at all.
func (p Policy) namesAnybody(group string) bool {
	g := p.Groups[group]
	return len(g.Entra)+len(g.Slack)+len(g.People) > 0
}

// maxMembers is the largest number of people that these groups can name. all is
// false if only Entra or Slack knows the number.
func (p Policy) maxMembers(groups []string) (n int, all bool) {
	people := map[string]bool{}
	for _, name := range groups {
		g := p.Groups[name]
		if len(g.Entra)+len(g.Slack) > 0 {
			return 0, false
		}
		for _, id := range g.People {
			people[strings.ToLower(id)] = true
		}
	}
	return len(people), true
}

// rule is the rule of the class, with the settings of the command over it.
func (p Policy) rule(command string, class Class) Rule {
	r, own := p.Classes[class], p.Commands[command]
	if own.Request != nil {
		r.Request = own.Request
	}
	if own.Approve != nil {
		r.Approve = own.Approve
	}
	if own.BreakGlass != nil {
		r.BreakGlass = own.BreakGlass
	}
	if own.RequestForSelf != nil {
		r.RequestForSelf = own.RequestForSelf
	}
	if own.ApproveSelf != nil {
		r.ApproveSelf = own.ApproveSelf
	}
	if own.Require != nil {
		r.Require = own.Require
	}
	if own.Verified != nil {
		r.Verified = own.Verified
	}
	if own.Approvals > 0 {
		r.Approvals = own.Approvals
	}
	if own.Lifetime > 0 {
		r.Lifetime = own.Lifetime
	}
	r.Approvals = max(r.Approvals, 1)
	if r.Lifetime == 0 {
		r.Lifetime = 30 * time.Minute
	}
	return r
}

// isMember reports whether a person is in one of the named groups.
func (p Policy) isMember(who Account, names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		g := p.Groups[name]
		return slices.Contains(g.People, who.ID) ||
			slices.ContainsFunc(g.Entra, func(id string) bool { return slices.Contains(who.Groups, id) }) ||
			slices.ContainsFunc(g.Slack, func(id string) bool { return slices.Contains(who.SlackGroups, id) })
	})
}

// slackGroups are the Slack user groups on which membership in the named groups
// depends.
func (p Policy) slackGroups(names []string) []string {
	var ids []string
	for _, name := range names {
		ids = append(ids, p.Groups[name].Slack...)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// forSelf reports whether people may request for their own account.
func (r Rule) forSelf() bool { return r.RequestForSelf != nil && *r.RequestForSelf }

// requesters are the groups that may request for others, each once. They include
// those that may use break-glass.
func (r Rule) requesters() []string {
	var names []string
	for _, name := range slices.Concat(r.Request, r.BreakGlass) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// deciders are the groups that decide. A request for one's own account is
// decided at the help desk, which knows how to verify a caller.
func (r Rule) deciders(self bool) []string {
	switch {
	case !self:
		return r.Approve
	case len(r.ApproveSelf) > 0:
		return r.ApproveSelf
	}
	return r.Request
}

// checkMember refuses people who can never request or decide, whatever the
// policy says.
func checkMember(who Account) *Refusal {
	switch {
	case who.ID == "":
		return refuse(CodeUnknownPerson, "Countersign does not know which Entra account you are.")
	case who.Guest:
		return refuse(CodeGuest, "You are a guest in this tenant. Guests neither request nor decide.")
	case !who.Enabled:
		return refuse(CodeDisabled, "Your Entra account is blocked from signing in, so you cannot use Countersign.")
	}
	return nil
}

// MayRequest checks whether a person may use a command: for others, or with self
// for their own account.
func (p Policy) MayRequest(command string, class Class, who Account, self bool) *Refusal {
	if no := checkMember(who); no != nil {
		return no
	}
	r := p.rule(command, class)
	switch {
	case p.isMember(who, r.requesters()), self && r.forSelf():
		return nil
	case len(r.requesters()) == 0:
		return refuse(CodeNotAllowed, "Nobody may use this command: the policy names nobody for it.")
	case r.forSelf():
		return refuse(CodeNotAllowed, "You may use this command for your own account only. For others it is for: %s.", strings.Join(r.requesters(), ", "))
	}
	return refuse(CodeNotAllowed, "You may not use this command. It is for: %s.", strings.Join(r.requesters(), ", "))
}

// MayDecide checks whether the policy lets this person approve or deny. self
// says that the requester requested it for their own account. Apply has the
// rules about requester, target and earlier decisions.
func (p Policy) MayDecide(command string, class Class, who Account, self bool) *Refusal {
	return p.checkDecision(command, class, who, self, "decide")
}

// MayReview checks the same for a review, which is made by those who may decide.
func (p Policy) MayReview(command string, class Class, who Account, self bool) *Refusal {
	return p.checkDecision(command, class, who, self, "review")
}

func (p Policy) checkDecision(command string, class Class, who Account, self bool, verb string) *Refusal {
	if no := checkMember(who); no != nil {
		return no
	}
	if names := p.rule(command, class).deciders(self); !p.isMember(who, names) {
		if len(names) == 0 {
			return refuse(CodeNotAllowed, "Nobody may %s this: the policy names no approvers for it.", verb)
		}
		return refuse(CodeNotAllowed, "You may not %s this. The approvers are: %s.", verb, strings.Join(names, ", "))
	}
	return nil
}

// MayBreakGlass checks whether the policy lets this person run a containment
// before it is approved. The requirements of the request say whether that is
// possible for it.
func (p Policy) MayBreakGlass(command string, class Class, who Account) *Refusal {
	if no := checkMember(who); no != nil {
		return no
	}
	r := p.rule(command, class)
	switch {
	case class != ClassContain:
		return refuse(CodeNotAllowed, "Only containment, such as blocking sign-in, can be run before it is approved.")
	case len(r.BreakGlass) == 0:
		return refuse(CodeNotAllowed, "Nobody may use break-glass here: the policy names nobody for it.")
	case !p.isMember(who, r.BreakGlass):
		return refuse(CodeNotAllowed, "You may not use break-glass. It is for: %s.", strings.Join(r.BreakGlass, ", "))
	}
	return nil
}

// WhySelf is among Requirements.Why if somebody requests for their own account.
const WhySelf = "The requester asks for their own account, so nobody has verified the caller yet: whoever approves does that first."

// RequirementsFor says what is required to do this to that target, or why it
// cannot be done. It holds the rules about protected targets.
func (p Policy) RequirementsFor(command string, class Class, requester, target Account) (Requirements, *Refusal) {
	r, self := p.rule(command, class), requester.ID == target.ID
	if self && !r.forSelf() {
		return Requirements{}, refuse(CodeSelf, "You asked for your own account. Ask a colleague to request it for you.")
	}
	requirements := Requirements{Approvals: r.Approvals, Lifetime: r.Lifetime, BreakGlass: class == ClassContain && len(r.BreakGlass) > 0}
	switch {
	case len(target.Protected) > 0 && class != ClassContain:
		return Requirements{}, refuse(CodeProtected, "%s is a protected target: the account %s. Countersign only revokes sessions or blocks sign-in there. "+
			"Ask a Privileged Authentication Administrator to do this in the Entra admin center.", target, strings.Join(target.Protected, ", and "))
	case len(target.Protected) > 0:
		requirements.Approvals++
		requirements.BreakGlass = false
		requirements.Why = append(requirements.Why, "One approval more, because the target is protected: the account "+strings.Join(target.Protected, ", and ")+".")
	case p.isMember(target, r.Approve):
		requirements.Approvals++
		requirements.Why = append(requirements.Why, "One approval more, because the target approves such requests.")
	}
	if self {
		requirements.Why = append(requirements.Why, WhySelf)
	}
	return requirements, nil
}

// Needs says which fields a request must have besides those of its class
// (ticket, justification, verified), and which ways of verifying a caller count.
// No ways means all of them.
func (p Policy) Needs(command string, class Class) (fields, verified []string) {
	r := p.rule(command, class)
	return r.Require, r.Verified
}

// AllowsSelf reports whether people may request for their own account.
func (p Policy) AllowsSelf(command string, class Class) bool { return p.rule(command, class).forSelf() }

// checkRequired refuses a request that lacks what the policy requires. People
// who request for their own account cannot verify themselves.
func (p Policy) checkRequired(a Submit) *Refusal {
	fields, verified := p.Needs(a.Plan.Command, a.Plan.Class)
	self := a.Requester.ID == a.Plan.Target.ID
	for _, need := range fields {
		switch {
		case need == NeedTicket && a.Ticket == "":
			return refuse(CodeMissing, "The policy requires a ticket, as in ticket=INC-7.")
		case need == NeedJustification && a.Justification == "":
			return refuse(CodeMissing, "The policy requires a justification: say in a few words why.")
		case need == NeedVerified && a.Verified == "" && !self:
			return refuse(CodeMissing, "The policy requires a caller verification, as in verified=callback.")
		}
	}
	if a.Verified != "" && len(verified) > 0 && !slices.Contains(verified, a.Verified) {
		return refuse(CodeMissing, "The policy does not accept verified=%s here. It accepts: %s.", a.Verified, strings.Join(verified, ", "))
	}
	return nil
}

// glass is the limit on break-glass, which always exists.
func (l Limits) glass() Limit {
	if l.BreakGlass == (Limit{}) {
		return defaultBreakGlassLimit
	}
	return l.BreakGlass
}

// BreakGlassLimit describes how often one person may use break-glass.
func (l Limits) BreakGlassLimit() string { return l.glass().sentence("time") }

// Approvers names the groups that decide, for people to read. self says that the
// requester requests for their own account.
func (p Policy) Approvers(command string, class Class, self bool) []string {
	return p.rule(command, class).deciders(self)
}

// lookUpAccount looks a person up, and retries for a while if that fails.
func lookUpAccount(ctx context.Context, dir Directory, id string, withProtection bool, patience time.Duration) (Account, error) {
	var who Account
	err := RetryLookUp(ctx, patience, func(ctx context.Context) (err error) {
		who, err = dir.Account(ctx, id, withProtection)
		return err
	})
	return who, err
}

// RetryLookUp retries a look-up with growing pauses until it succeeds, until
// another try cannot help (a refusal, no such person, or an error whose
// Permanent method says so), or until patience has passed. It returns the last
// error.
func RetryLookUp(ctx context.Context, patience time.Duration, look func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for pause := 200 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := look(ctx)
		no := (*Refusal)(nil)
		if err == nil || errors.As(err, &no) || errors.Is(err, ErrNoPerson) {
			return err
		}
		var lasting interface{ Permanent() bool }
		if errors.As(err, &lasting) && lasting.Permanent() {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}
