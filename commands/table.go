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
)

// Command is one row of the table.
type Command struct {
	Name        string             // behind the prefix, e.g. "require-reregister"
	Title       string             // in three words, for cards and lines
	Usage       string             // what to type behind the command
	Does        string             // in one line
	Class       approvals.Class    // decides the policy's defaults
	Target      bool               // it acts on one person, named first
	Permissions []entra.Permission // application permissions it needs for everything it does, the least privileged ones
	Help        string             // a short paragraph: what it does, what it leaves alone, what to know

	// plan makes the plan; nil for commands that only look.
	plan func(ctx context.Context, t *Tenant, s subject) (approvals.Plan, error)
}

// Table is every command, in the order in which help and the README list
// them.
func Table() []Command {
	table := []Command{
		methods(),
		requireReregister(),
		revokeSessions(),
		{
			Name:  "requests",
			Title: "List requests",
			Usage: "[mine|pending|ID]",
			Does:  "show the requests on the desk, or one of them",
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
		slices.Sort(table[i].Permissions)
		table[i].Permissions = slices.Compact(table[i].Permissions)
	}
	return table
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
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Missing is what the class of c requires and in lacks. A ticket stands in
// for a justification, because it holds one.
func Missing(c Command, in Input) []Field {
	var missing []Field
	if c.Target && in.Target.Empty() {
		missing = append(missing, FieldTarget)
	}
	if c.Class != approvals.ClassDestroy && c.Class != approvals.ClassTakeover {
		return missing
	}
	if in.Verified == "" {
		missing = append(missing, FieldVerified)
	}
	if in.Ticket == "" && in.Justification == "" {
		missing = append(missing, FieldJustification)
	}
	return missing
}

// Verification is one way in which a requester made sure who was asking.
type Verification struct {
	Value string // what is typed behind verified= and stored
	Words string // what people choose from and read
}

// Verifications are the ways that c accepts, in the order in which they are
// offered; none where c asks for no caller verification.
func Verifications(c Command) []Verification {
	if c.Class != approvals.ClassDestroy && c.Class != approvals.ClassTakeover {
		return nil
	}
	return waysToVerify()
}

func waysToVerify() []Verification {
	return []Verification{
		{"in-person", "In person: I saw them and know them, or checked their ID"},
		{"video", "Video: I saw them on a call and compared them with their photo"},
		{"callback", "Callback: I called them back on the number in our records"},
		{"manager", "Manager: their manager confirmed it to me"},
	}
}
