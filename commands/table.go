package commands

import (
	"context"
	"slices"

	"countersign/approvals"
	"countersign/entra"
)

// Field names what a command may ask for: the boxes of the modal, and where
// a Problem belongs.
type Field string

// The fields. Required ones are told by Missing.
const (
	FieldTarget        Field = "target"
	FieldVerified      Field = "verified"
	FieldTicket        Field = "ticket"
	FieldJustification Field = "justification"

	FieldPhoneType Field = "type"
	FieldNumber    Field = "number"
	FieldAddress   Field = "address"
	FieldMethod    Field = "method"
	FieldScope     Field = "scope"
	FieldAfter     Field = "after"
	FieldLifetime  Field = "lifetime"
	FieldUse       Field = "use"

	FieldBreakGlass Field = "glass"
)

// Command is one row of the table.
type Command struct {
	Name         string             // behind the prefix, e.g. "require-reregister"
	Title        string             // in three words, for cards and lines
	Usage        string             // what to type behind the command
	Does         string             // in one line
	Class        approvals.Class    // decides the policy's defaults
	Target       bool               // it acts on one person, named first
	Args         []Arg              // what it takes beside the person, in the order in which it is written
	Permissions  []entra.Permission // application permissions it needs for everything it does, the least privileged ones
	More         []Extra            // what some ways of using it need in addition
	Help         string             // a short paragraph: what it does, what it leaves alone, what to know
	SecretAdvice string             // for commands with a secret: what the requester does with it

	// plan makes the plan; nil for commands that only look.
	plan func(ctx context.Context, t *Tenant, s subject) (approvals.Plan, error)
}

// Extra is what one way of using a command needs beyond the Permissions of the
// command. A tenant that does not use it need not grant it.
type Extra struct {
	With        string // what is typed for it, e.g. "everything"
	Permissions []entra.Permission
}

// Table is every command, in the order in which help and the README list
// them.
func Table() []Command {
	table := []Command{
		methods(),
		addPhone(),
		addEmail(),
		removeMethod(),
		resetPassword(),
		requireReregister(),
		revokeSessions(),
		deleteAppPasswords(),
		issuePass(),
		blockSignIn(),
		unblockSignIn(),
		{
			Name:  "requests",
			Title: "List requests",
			Usage: "[mine|pending|ID]",
			Does:  "show open requests, or one of them",
			Class: approvals.ClassRead,
			Help: "Shows what is waiting, what is running and what ended lately. “mine” shows what you asked for, “pending” what still waits for " +
				"somebody's decision, and a request id shows that request with its plan, its decisions and what became of each step. Only you see the answer.",
			Permissions: ofAnybody(),
		},
		{
			Name:  "help",
			Title: "Show help",
			Usage: "[command]",
			Does:  "show what you may do here, or explain one command",
			Class: approvals.ClassRead,
			Help: "Lists the commands that you may use, and which of them you may approve for others. With the name of a command it explains that one. " +
				"Only you see the answer.",
			Permissions: ofAnybody(),
		},
	}
	for i := range table {
		c := &table[i]
		if acceptsCompromise(*c) {
			c.More = append(c.More, Extra{"verified=" + approvals.VerifiedCompromise, compromisePermissions()})
		}
		c.Permissions = sorted(c.Permissions)
		for j := range c.More {
			c.More[j].Permissions = slices.DeleteFunc(sorted(c.More[j].Permissions), func(p entra.Permission) bool { return slices.Contains(c.Permissions, p) })
		}
	}
	return table
}

// sorted is a list of permissions with each of them once.
func sorted(permissions []entra.Permission) []entra.Permission {
	slices.Sort(permissions)
	return slices.Compact(permissions)
}

// ofAnybody is what every command needs: its requester's account, and the
// groups that the policy names.
func ofAnybody() []entra.Permission {
	return []entra.Permission{entra.CallReadUser.Permission(), entra.CallFindUser.Permission(), entra.CallListGroups.Permission(), entra.PermGroupMemberRead}
}

// ofTarget is what every command needs that acts on somebody: whether the
// account is protected. The permission for active roles covers the eligible
// ones too.
func ofTarget() []entra.Permission {
	return append(ofAnybody(), entra.CallListOwned.Permission(), entra.CallListRoles.Permission(), entra.CallRoleNames.Permission())
}

// Lookup finds a command by its name, without slash and prefix.
func Lookup(name string) (Command, bool) {
	for _, c := range Table() {
		if c.Name == name {
			return c, true
		}
	}
	return Command{}, false
}

// Slash is the command as people type it: "/entra-methods" for the prefix
// "entra-".
func Slash(prefix string, c Command) string { return "/" + prefix + c.Name }

// Permissions is what all commands together need, sorted: what an
// administrator grants to Countersign's app registration.
func Permissions() []entra.Permission {
	var all []entra.Permission
	for _, c := range Table() {
		all = append(all, c.Permissions...)
		for _, e := range c.More {
			all = append(all, e.Permissions...)
		}
	}
	return sorted(all)
}

// UsedBy names the commands that need a permission, with what is typed for it
// where only that way of using one does.
func UsedBy(p entra.Permission) []string {
	var names []string
	for _, c := range Table() {
		if slices.Contains(c.Permissions, p) {
			names = append(names, c.Name)
		}
		for _, e := range c.More {
			if slices.Contains(e.Permissions, p) {
				names = append(names, c.Name+" "+e.With)
			}
		}
	}
	return names
}

// Needs is what a request must come with besides what the class of its
// command demands.
type Needs struct {
	Fields   []string // ticket, justification and verified, as the policy has them
	Verified []string // the ways of verifying a caller that count; all when empty
	Self     bool     // the requester asks for their own account, and cannot verify themselves
}

// Missing lists what c, its class and the policy require and in lacks. A ticket
// replaces a justification, because it contains one, unless the policy requires
// the justification or break-glass is used.
func Missing(c Command, in Input, more Needs) []Field {
	var missing []Field
	lacks := func(f Field, empty bool) {
		if empty && !slices.Contains(missing, f) {
			missing = append(missing, f)
		}
	}
	if c.Target && in.Target.Empty() {
		missing = append(missing, FieldTarget)
	}
	for _, a := range c.Args {
		if a.Required && in.Args[a.Field] == "" {
			missing = append(missing, a.Field)
		}
	}
	if c.Class == approvals.ClassRead {
		return missing
	}
	ways := Ways(c, more)
	counts := slices.ContainsFunc(ways, func(v Verification) bool { return v.Value == in.Verified })
	lacks(FieldVerified, len(ways) > 0 && !counts)
	lacks(FieldJustification, needsReason(c) && in.Ticket == "" && in.Justification == "")
	lacks(FieldJustification, (in.BreakGlass || slices.Contains(more.Fields, approvals.NeedJustification)) && in.Justification == "")
	lacks(FieldTicket, slices.Contains(more.Fields, approvals.NeedTicket) && in.Ticket == "")
	return missing
}

// needsReason reports whether the class of a command requires a ticket or a
// justification, and a caller verification.
func needsReason(c Command) bool {
	return c.Class == approvals.ClassDestroy || c.Class == approvals.ClassTakeover
}

// Verification is one way in which a requester made sure who was asking.
type Verification struct {
	Value string // what is typed behind verified= and stored
	Words string // what people choose from and read
}

// Verifications are the ways that c accepts, in the order in which they are
// offered; none where c asks for no caller verification.
func Verifications(c Command) []Verification {
	if !needsReason(c) {
		return nil
	}
	if acceptsCompromise(c) {
		return append(waysToVerify(), Verification{approvals.VerifiedCompromise, "Nobody called: the account is lost. Blocks it and revokes sessions"})
	}
	return waysToVerify()
}

// Ways are the ways of verifying the caller of which c requires one: those that
// count for the policy, or none if no caller verification is required.
func Ways(c Command, more Needs) []Verification {
	ways := Verifications(c)
	switch {
	case more.Self:
		return nil
	case ways == nil && slices.Contains(more.Fields, approvals.NeedVerified):
		ways = waysToVerify()
	}
	if len(more.Verified) > 0 {
		ways = slices.DeleteFunc(ways, func(v Verification) bool { return !slices.Contains(more.Verified, v.Value) })
	}
	return ways
}

func waysToVerify() []Verification {
	return []Verification{
		{"in-person", "In person: I saw them and know them, or checked their ID"},
		{"video", "Video: I saw them on a call and compared them with their photo"},
		{"callback", "Callback: I called them back on the number in our records"},
		{"manager", "Manager: their manager confirmed it to me"},
	}
}
