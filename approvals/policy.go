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

// Policy says who may do what. It is data from the configuration; the
// functions below are pure, and a look-up that failed is a no.
type Policy struct {
	Groups          map[string]Group `yaml:"groups"`           // names for the rest of the policy
	Classes         map[Class]Rule   `yaml:"classes"`          // by class
	Commands        map[string]Rule  `yaml:"commands"`         // by command; what is set here wins over the class
	ProtectedGroups []string         `yaml:"protected_groups"` // Entra groups whose members nothing but containment may touch
	AskForSelf      bool             `yaml:"ask_for_self"`     // whether the requester may be the target
	ReadsAMinute    int              `yaml:"reads_a_minute"`   // read commands per person
}

// Group is a named set of people: the members of Entra groups, transitively,
// and single people, all by object id. An empty group is nobody.
type Group struct {
	Entra  []string `yaml:"entra_groups"`
	People []string `yaml:"people"`
}

// Rule is what one class or command asks for.
type Rule struct {
	Request   []string      `yaml:"request"`   // groups that may ask
	Approve   []string      `yaml:"approve"`   // groups that may decide
	Approvals int           `yaml:"approvals"` // how many of them must say yes
	Lifetime  time.Duration `yaml:"lifetime"`  // how long a request waits for them
}

// Check refuses a policy that names groups it does not define, or that could
// never let a request through although it lets people ask.
func (p Policy) Check(commands map[string]Class) error {
	var wrong []string
	check := func(where string, r Rule) {
		for _, name := range slices.Concat(r.Request, r.Approve) {
			if _, ok := p.Groups[name]; !ok {
				wrong = append(wrong, fmt.Sprintf("%s names the group %q, which policy.groups does not define", where, name))
			}
		}
		if r.Approvals < 0 || r.Approvals > 10 {
			wrong = append(wrong, fmt.Sprintf("%s asks for %d approvals; it can be 1 to 10", where, r.Approvals))
		}
		if r.Lifetime < 0 || r.Lifetime > 24*time.Hour {
			wrong = append(wrong, where+" has a lifetime over 24h; approvals must be fresh")
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
			wrong = append(wrong, fmt.Sprintf("policy.commands has %q, which is no command", name))
		}
		check("policy.commands."+name, p.Commands[name])
	}
	for _, name := range slices.Sorted(maps.Keys(commands)) {
		r := p.rule(name, commands[name])
		if commands[name] != ClassRead && len(r.Request) > 0 && !slices.ContainsFunc(r.Approve, p.somebody) {
			wrong = append(wrong, fmt.Sprintf("people may ask for %s, but nobody may approve it: give policy.classes.%s or policy.commands.%s approvers, or no requesters", name, commands[name], name))
		}
	}
	if len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "; "))
	}
	return nil
}

// somebody says that a group names anybody at all.
func (p Policy) somebody(group string) bool {
	return len(p.Groups[group].Entra)+len(p.Groups[group].People) > 0
}

// rule is the class' rule with the command's own settings over it.
func (p Policy) rule(command string, class Class) Rule {
	r, own := p.Classes[class], p.Commands[command]
	if own.Request != nil {
		r.Request = own.Request
	}
	if own.Approve != nil {
		r.Approve = own.Approve
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

// in says whether a person is in one of the named groups. No group, or a
// group nobody is in, is nobody.
func (p Policy) in(who Standing, names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		g := p.Groups[name]
		return slices.Contains(g.People, who.ID) ||
			slices.ContainsFunc(g.Entra, func(id string) bool { return slices.Contains(who.Groups, id) })
	})
}

// fit refuses people who have no voice whatever the policy says.
func fit(who Standing) *Refusal {
	switch {
	case who.ID == "":
		return refuse(CodeNobody, "Countersign does not know which Entra account you are.")
	case who.Guest:
		return refuse(CodeGuest, "You are a guest in this tenant. Guests neither request nor decide.")
	case !who.Enabled:
		return refuse(CodeDisabled, "Your Entra account is blocked from signing in, so you cannot use Countersign.")
	}
	return nil
}

// MayRequest says whether this person may use a command at all.
func (p Policy) MayRequest(command string, class Class, who Standing) *Refusal {
	if no := fit(who); no != nil {
		return no
	}
	if r := p.rule(command, class); !p.in(who, r.Request) {
		if len(r.Request) == 0 {
			return refuse(CodeNotAllowed, "Nobody may use this command: the policy names nobody for it.")
		}
		return refuse(CodeNotAllowed, "You may not use this command. It is for: %s.", strings.Join(r.Request, ", "))
	}
	return nil
}

// MayDecide says whether the policy lets this person approve or deny. The
// rules about requester, target and earlier decisions are in Apply.
func (p Policy) MayDecide(command string, class Class, who Standing) *Refusal {
	if no := fit(who); no != nil {
		return no
	}
	if r := p.rule(command, class); !p.in(who, r.Approve) {
		if len(r.Approve) == 0 {
			return refuse(CodeNotAllowed, "Nobody may decide this: the policy names no approvers for it.")
		}
		return refuse(CodeNotAllowed, "You may not decide this. The approvers are: %s.", strings.Join(r.Approve, ", "))
	}
	return nil
}

// TermsFor says what it takes to do this to that target, or why it cannot be
// done at all. It holds the rules about protected targets.
func (p Policy) TermsFor(command string, class Class, requester, target Standing) (Terms, *Refusal) {
	if requester.ID == target.ID && !p.AskForSelf {
		return Terms{}, refuse(CodeSelf, "You asked for your own account. Ask a colleague to request it for you.")
	}
	r := p.rule(command, class)
	terms := Terms{Approvals: r.Approvals, Lifetime: r.Lifetime}
	switch {
	case len(target.Protected) > 0 && class != ClassContain:
		return Terms{}, refuse(CodeProtected, "%s is a protected target: the account %s. Countersign only revokes sessions or blocks sign-in there. "+
			"Ask a Privileged Authentication Administrator to do this in the Entra admin center.", target, strings.Join(target.Protected, ", and "))
	case len(target.Protected) > 0:
		terms.Approvals++
		terms.Why = append(terms.Why, "One approval more, because the target is protected: the account "+strings.Join(target.Protected, ", and ")+".")
	case p.in(target, r.Approve):
		terms.Approvals++
		terms.Why = append(terms.Why, "One approval more, because the target approves such requests.")
	}
	return terms, nil
}

// Approvers names the groups that decide, for people to read.
func (p Policy) Approvers(command string, class Class) []string {
	return p.rule(command, class).Approve
}

// stand looks a person up, and tries again for a while when that fails:
// what cannot be looked up is refused.
func stand(ctx context.Context, dir Directory, id string, withProtection bool, patience time.Duration) (Standing, error) {
	var who Standing
	err := Patiently(ctx, patience, func(ctx context.Context) (err error) {
		who, err = dir.Standing(ctx, id, withProtection)
		return err
	})
	return who, err
}

// Patiently tries a look-up again, with growing pauses, until it works, until
// trying again cannot help (a refusal, nobody there, or an error that says so
// with Permanent), or until patience runs out. It gives the last error.
func Patiently(ctx context.Context, patience time.Duration, look func(context.Context) error) error {
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
