package commands

import (
	"context"
	"slices"
	"time"

	"countersign/approvals"
	"countersign/entra"
)

func methods() Command {
	return Command{
		Name:   "methods",
		Title:  "Show methods",
		Usage:  "@user",
		Does:   "show a person and every authentication method they have",
		Class:  approvals.ClassRead,
		Target: true,
		Help: "Shows who the person is (title, department, manager, enabled or blocked, member or guest, cloud or synced, last password change, since when sessions count) " +
			"and every authentication method of every kind, with the default one marked. Phone numbers and e-mail addresses are masked. Only you see the answer, and that you " +
			"looked is recorded. Of a protected target you learn only that it is protected.",
		Permissions: append(ofTarget(), entra.CallReadManager.Permission(),
			entra.CallListMethods.Permission(), entra.CallListHardware.Permission(), entra.CallReadDefault.Permission()),
	}
}

// smsEnds is when Microsoft's own SMS and voice end for MFA and password
// reset (https://learn.microsoft.com/entra/identity/authentication/concept-sms-voice-retirement).
const smsEnds = "2027-02-01"

// Profile is what the methods card shows of a person, masked and plain. Of a
// protected target it holds Person and Protected and nothing else.
type Profile struct {
	Person             approvals.Person
	Protected          bool
	Title, Department  string
	Manager            approvals.Person // zero when there is none
	Enabled            bool
	Guest              bool
	Synced             bool // mastered by an on-premises directory
	Created            time.Time
	LastPasswordChange time.Time
	SessionsValidFrom  time.Time // sessions that began earlier are over
	Methods            []MethodLine
	Flags              []string // what is worth seeing at a glance, as sentences
	Gaps               []string // what could not be read, as sentences
}

// MethodLine is one authentication method in words. Times are zero where
// Graph does not tell.
type MethodLine struct {
	Kind     string // "Phone", "Passkey"; the OData type of a kind that Countersign does not know
	What     string // which one: device, model, masked number; empty where there is nothing to tell
	Created  time.Time
	LastUsed time.Time
	Default  bool
	Flags    []string // short, such as "may be the default method"
}

// Profile looks a person up by object id. An account whose protection cannot
// be looked up is not shown.
func (t *Tenant) Profile(ctx context.Context, id string) (Profile, error) {
	user, err := t.user(ctx, id)
	if err != nil {
		return Profile{}, err
	}
	p := Profile{Person: person(user)}
	protected, _, err := t.protection(ctx, user.ID)
	if err != nil {
		return Profile{}, err
	}
	if p.Protected = len(protected) > 0; p.Protected {
		return p, nil
	}
	list, err := t.graph.Methods(ctx, user.ID)
	if err != nil {
		return Profile{}, lookUp(err)
	}
	p.Title, p.Department = Plain(user.Title, 80), Plain(user.Department, 80)
	p.Enabled, p.Guest, p.Synced = user.Enabled, user.Guest, user.Synced
	p.Created, p.LastPasswordChange, p.SessionsValidFrom = user.Created, user.LastPasswordChange, user.SessionsValidFrom
	if manager, ok, err := t.graph.Manager(ctx, user.ID); err != nil {
		p.Gaps = append(p.Gaps, "The manager is not known. "+Explain(err))
	} else if ok {
		p.Manager = person(manager)
	}
	if used, err := t.graph.LastUsed(ctx, user.ID); err != nil {
		p.Gaps = append(p.Gaps, "When the methods were last used is not known. "+Explain(err))
	} else {
		for i := range list.Methods {
			if at, ok := used[list.Methods[i].ID]; ok {
				list.Methods[i].LastUsed = at
			}
		}
	}
	p.Methods = methodLines(list)
	p.Flags = flags(list)
	for _, g := range list.Gaps {
		p.Gaps = append(p.Gaps, gapWords(g))
	}
	return p, nil
}

// sortedMethods are the methods in the order in which people look for them.
func sortedMethods(l entra.MethodList) []entra.Method {
	order := []entra.Kind{entra.KindPasskey, entra.KindWindowsHello, entra.KindPlatformCredential, entra.KindAuthenticator, entra.KindSoftwareOATH,
		entra.KindHardwareOATH, entra.KindExternal, entra.KindPhone, entra.KindPass, entra.KindQRCode, entra.KindUnknown, entra.KindEmail, entra.KindPassword}
	sorted := slices.Clone(l.Methods)
	slices.SortStableFunc(sorted, func(a, b entra.Method) int { return slices.Index(order, a.Kind) - slices.Index(order, b.Kind) })
	return sorted
}

func methodLines(l entra.MethodList) []MethodLine {
	sorted := sortedMethods(l)
	isDefault, candidates := defaultAmong(l), 0
	for _, m := range sorted {
		if isDefault(m) {
			candidates++
		}
	}
	var lines []MethodLine
	for _, m := range sorted {
		line := MethodLine{Kind: kindWords(m), What: whichWords(m), Created: m.Created, LastUsed: m.LastUsed}
		switch {
		case !isDefault(m) || l.Default == "":
		case candidates == 1:
			line.Default = true
		default:
			line.Flags = append(line.Flags, "may be the default method")
		}
		lines = append(lines, line)
	}
	return lines
}

// flags are what somebody at a help desk should see at a glance.
func flags(l entra.MethodList) []string {
	has := func(f func(entra.Method) bool) bool { return slices.ContainsFunc(l.Methods, f) }
	kind := func(k entra.Kind) func(entra.Method) bool {
		return func(m entra.Method) bool { return m.Kind == k }
	}
	var out []string
	switch {
	case has(isStrong), has(kind(entra.KindUnknown)):
	case has(kind(entra.KindPhone)):
		out = append(out, "SMS or voice is the only MFA method. Microsoft ends its SMS and voice on "+smsEnds+": a passkey or the Authenticator app has to take its place.")
	default:
		out = append(out, "No MFA method is registered: whoever has the password can register the first one.")
	}
	for _, m := range l.Methods {
		if m.Kind == entra.KindPass && m.Usable {
			out = append(out, sentence("A Temporary Access Pass is there, "+whichWords(m)+": whoever has it can sign in with it"))
		}
	}
	return out
}

// isStrong says that a method is MFA by something better than a telephone.
// A pass is left out because it ends by itself.
func isStrong(m entra.Method) bool {
	switch m.Kind {
	case entra.KindAuthenticator, entra.KindSoftwareOATH, entra.KindPasskey, entra.KindWindowsHello, entra.KindPlatformCredential, entra.KindExternal:
		return true
	case entra.KindHardwareOATH:
		return m.Usable
	}
	return false
}
