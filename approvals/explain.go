package approvals

import (
	"fmt"
	"slices"
	"strings"
)

// Explain says, line by line and for an administrator to read, what the policy
// would ask of whom if as used a command on target, and which setting says so.
// A refusal is the last line and is also given back. Both standings must hold
// every group that the policy names, and that of the target its protection.
//
// What has happened before (recent targets, limits that are used up, the same
// request being open) is not in the policy and not in the answer.
func (p Policy) Explain(command string, class Class, as, target Account) (lines []string, no *Refusal) {
	say := func(format string, a ...any) { lines = append(lines, fmt.Sprintf(format, a...)) }
	refused := func(no *Refusal) ([]string, *Refusal) {
		say(`Refused (%s). They would be told: "%s"`, no.Code, no.Sentence)
		return lines, no
	}
	r, self := p.rule(command, class), as.ID == target.ID
	from := func(set func(Rule) bool) string { return p.settingOf(command, class, set) }

	if no := p.MayRequest(command, class, as, self); no != nil {
		return refused(no)
	}
	switch via := p.memberThrough(as, r.requesters()); {
	case via != "":
		say("%s may ask: %s. [%s]", as, via, from(func(r Rule) bool { return r.Request != nil || r.BreakGlass != nil }))
	default:
		say("%s may ask for their own account, as everybody may. [%s]", as, from(func(r Rule) bool { return r.RequestForSelf != nil }))
	}
	if class == ClassRead {
		switch {
		case len(target.Protected) > 0:
			say("%s is protected: the account %s. Reading it shows no more than that.", target, strings.Join(target.Protected, ", and "))
		default:
			say("It is answered at once, to them alone, and recorded.")
		}
		if p.ReadsAMinute > 0 {
			say("They may read %d times a minute. [policy.reads_a_minute]", p.ReadsAMinute)
		}
		return lines, nil
	}
	requirements, no := p.RequirementsFor(command, class, as, target)
	if no != nil {
		return refused(no)
	}
	deciders := r.deciders(self)
	say("It needs %s [%s], within %s [%s], by members of %s [%s] who are neither the requester nor the target.",
		Limit{Count: requirements.Approvals}.countWords("approval"), from(func(r Rule) bool { return r.Approvals > 0 }),
		formatDuration(requirements.Lifetime), from(func(r Rule) bool { return r.Lifetime > 0 }),
		strings.Join(deciders, ", "), from(func(r Rule) bool {
			if self {
				return r.ApproveSelf != nil || r.Request != nil
			}
			return r.Approve != nil
		}))
	for _, why := range requirements.Why {
		say("%s", why)
	}
	// Nobody is asked how they verified themselves.
	must := slices.DeleteFunc(slices.Clone(r.Require), func(need string) bool { return self && need == NeedVerified })
	if len(must) > 0 {
		say("Besides what its class requires, it needs: %s. [%s]", strings.Join(must, ", "), from(func(r Rule) bool { return r.Require != nil }))
	}
	if len(r.Verified) > 0 && !self {
		say("Accepted caller verifications: %s. [%s]", strings.Join(r.Verified, ", "), from(func(r Rule) bool { return r.Verified != nil }))
	}
	switch glass := p.MayBreakGlass(command, class, as); {
	case !requirements.BreakGlass && class != ClassContain:
		say("It cannot be run before it is approved: only containment can.")
	case !requirements.BreakGlass && len(target.Protected) > 0:
		say("It cannot be run before it is approved: the target is protected.")
	case !requirements.BreakGlass:
		say("It cannot be run before it is approved: nobody is named under break_glass.")
	case glass != nil:
		say("%s may not use break-glass; members of %s may, %s each. [%s]", as, strings.Join(r.BreakGlass, ", "), p.Limits.glass().sentence("time"), from(func(r Rule) bool { return r.BreakGlass != nil }))
	default:
		say("%s may use break-glass, %s: %s. Everybody who could have approved is told, and one of them reviews it. [%s]",
			as, p.Limits.glass().sentence("time"), p.memberThrough(as, r.BreakGlass), from(func(r Rule) bool { return r.BreakGlass != nil }))
	}
	if l := p.Limits.Requester; l.Count > 0 {
		say("They may ask for %s. [policy.limits.requester]", l.sentence("change"))
	}
	if l := p.Limits.Target; l.Count > 0 && class != ClassContain {
		say("The account may be asked for in %s. [policy.limits.target]", l.sentence("request"))
	}
	if l := p.Limits.Pair; l.Count > 0 {
		say("Any one approver and they may have %s between them. [policy.limits.pair]", l.sentence("approval"))
	}
	return lines, nil
}

// settingOf names the setting that a rule's value comes from.
func (p Policy) settingOf(command string, class Class, set func(Rule) bool) string {
	switch {
	case set(p.Commands[command]):
		return "policy.commands." + command
	case set(p.Classes[class]):
		return "policy.classes." + string(class)
	}
	return "default"
}

// memberThrough says through which of the named groups somebody is what they are.
func (p Policy) memberThrough(who Account, names []string) string {
	var ways []string
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		g := p.Groups[name]
		switch {
		case slices.Contains(g.People, who.ID):
			ways = append(ways, fmt.Sprintf("named in %s", name))
		case slices.ContainsFunc(g.Entra, func(id string) bool { return slices.Contains(who.Groups, id) }):
			id := g.Entra[slices.IndexFunc(g.Entra, func(id string) bool { return slices.Contains(who.Groups, id) })]
			ways = append(ways, fmt.Sprintf("in %s through the Entra group %s", name, id))
		case slices.ContainsFunc(g.Slack, func(id string) bool { return slices.Contains(who.SlackGroups, id) }):
			id := g.Slack[slices.IndexFunc(g.Slack, func(id string) bool { return slices.Contains(who.SlackGroups, id) })]
			ways = append(ways, fmt.Sprintf("in %s through the Slack user group %s", name, id))
		}
	}
	return strings.Join(ways, ", and ")
}
