package commands

import (
	"context"
	"fmt"
	"net/mail"
	"regexp"
	"strings"

	"countersign/approvals"
	"countersign/entra"
)

func addEmail() Command {
	return Command{
		Name:   "add-email",
		Title:  "Add or replace e-mail",
		Usage:  "@user address [verified=callback] [ticket=INC-7] [why]",
		Does:   "add or replace the e-mail address for password reset",
		Class:  approvals.ClassTakeover,
		Target: true,
		Args:   []Arg{addressArg()},
		Help: "Adds an e-mail address as an authentication method, or replaces the one that is there: a person has at most one. It serves self-service password reset only. It is no " +
			"MFA method, nobody signs in with it, and it is not the address of their mailbox. Choose one outside the organisation: whoever has forgotten the password cannot read the " +
			"mailbox behind it. Whoever reads that address has one half of what a password reset takes, so make sure who is asking.",
		Permissions: append(ofTarget(), entra.CallListMethods.Permission(), entra.CallListHardware.Permission(), entra.CallReadDefault.Permission(),
			entra.CallAddEmail.Permission(), entra.CallReplaceEmail.Permission()),
		plan: planAddEmail,
	}
}

const opSetEmail = "set-email"

func addressArg() Arg {
	return Arg{Field: FieldAddress, Words: "E-mail address for password reset", Hint: "Write one address outside the organisation, as in dana@mailbox.example.", Required: true,
		find: func(text []symbol) (int, string) {
			n := wordLength(text)
			if !strings.Contains(textOf(text[:n]), "@") {
				return 0, ""
			}
			if len(text) > 0 && text[0].mention != "" {
				return n, "A mention is a person, not an e-mail address. Write the address, as in dana@mailbox.example."
			}
			return n, ""
		},
		read: readAddress}
}

// readAddress reads one e-mail address and nothing else: no name, no list, no
// quoted mailbox. Letters outside ASCII are refused, because addresses that
// look the same can be different ones, and approvers see a masked one.
func readAddress(typed string) (value, sentence string) {
	// Marks that may also begin a mailbox are taken off only in pairs, which
	// no address has.
	text := strings.TrimRight(strings.Trim(typed, "\"“”„<>()[],;: "), ".")
	for len(text) > 2 && text[0] == text[len(text)-1] && strings.ContainsRune("`*_", rune(text[0])) {
		text = text[1 : len(text)-1]
	}
	text = strings.TrimPrefix(text, "mailto:")
	shown := Plain(typed, 60)
	a, err := mail.ParseAddress(text)
	switch {
	case strings.ContainsFunc(text, func(r rune) bool { return r > '~' }):
		return "", fmt.Sprintf("“%s” has letters that look like others. Write an address of plain letters, digits and signs.", shown)
	case err != nil || a.Name != "" || a.Address != text || !mailbox.MatchString(text) || len(text) > 254 || strings.Index(text, "@") > 64:
		return "", fmt.Sprintf("“%s” is not one complete e-mail address. Write it as in dana@mailbox.example, without a name.", shown)
	}
	at := strings.LastIndex(text, "@")
	return text[:at] + strings.ToLower(text[at:]), ""
}

// mailbox is an address whose domain has at least two labels, the last one
// with letters only or in the form of an international domain.
var mailbox = regexp.MustCompile(`^[^\s@"<>(),;:\\\[\]]+@([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\.)+([A-Za-z]{2,}|[Xx][Nn]--[A-Za-z0-9-]*[A-Za-z0-9])$`)

func planAddEmail(ctx context.Context, t *Tenant, s subject) (approvals.Plan, error) {
	address, sentence := readAddress(s.Args[FieldAddress])
	if sentence != "" {
		return approvals.Plan{}, approvals.Refuse(approvals.CodeMissing, "%s", sentence)
	}
	list, err := t.graph.Methods(ctx, s.user.ID)
	if err != nil {
		return approvals.Plan{}, lookUp(err)
	}
	old, replaces := emailOf(list)
	if replaces && sameAddress(old.Email, address) {
		return approvals.Plan{}, &NothingToDo{fmt.Sprintf("There is nothing to do: %s is already the reset e-mail of %s.", old.Masked(), s.person)}
	}
	added := entra.Method{Kind: entra.KindEmail, Email: address}
	step := approvals.Step{Op: opSetEmail, Words: fmt.Sprintf("Add %s, for password reset", methodWords(added)), Args: map[string]string{"new": address}}
	if replaces {
		by := added.Masked()
		if by == old.Masked() {
			by += ", another address that looks the same when masked"
		}
		step.Args["id"], step.Args["old"] = old.ID, old.Email
		step.Words = fmt.Sprintf("Replace %s by %s, for password reset", methodWords(old), by)
	}
	p := approvals.Plan{Args: escape(address), Steps: []approvals.Step{step}, Assumes: factsOfMethods(s.user, list)}
	for _, m := range list.Methods {
		if m.Kind != entra.KindEmail {
			p.Keeps = append(p.Keeps, methodWords(m))
		}
	}
	p.Keeps = append(p.Keeps, "the sessions that are signed in")
	p.Warnings = []string{
		"The address serves self-service password reset, not sign-in and not MFA. Whoever reads that mailbox has one half of what a reset takes, or all of it where the tenant asks for one method.",
		"Make sure that it is theirs: an address that the caller gave has proved nothing.",
	}
	if sameAddress(address, s.user.Mail) || sameAddress(address, s.user.UPN) {
		p.Warnings = append(p.Warnings, "It is the mailbox of this very account: whoever has forgotten the password cannot read it.")
	}
	p.Warnings = append(p.Warnings, warnOfAccount(s, list)...)
	return p, nil
}

func emailOf(l entra.MethodList) (entra.Method, bool) {
	return methodThat(l, func(m entra.Method) bool { return m.Kind == entra.KindEmail })
}

func sameAddress(a, b string) bool { return strings.EqualFold(a, b) }

// emailSetting is a step that sets the reset e-mail.
func (t *Tenant) emailSetting(job approvals.Job) setting {
	id, args := job.Request.Plan.Target.ID, job.Request.Plan.Steps[job.Step].Args
	return setting{
		what: "address", old: args["old"], new: args["new"], same: sameAddress,
		write: func(ctx context.Context) error {
			if args["old"] == "" {
				return t.graph.AddEmail(ctx, id, args["new"])
			}
			return t.graph.ReplaceEmail(ctx, id, args["id"], args["new"])
		},
		read: func(ctx context.Context) (string, error) {
			list, err := t.graph.Methods(ctx, id)
			m, _ := emailOf(list)
			return m.Email, err
		},
	}
}

func setEmail(ctx context.Context, t *Tenant, job approvals.Job) approvals.Result {
	return t.emailSetting(job).set(ctx)
}

func setEmailAgain(ctx context.Context, t *Tenant, job approvals.Job) approvals.Result {
	return t.emailSetting(job).reconcile(ctx, job.ReadOnly)
}

func changesOfEmail(s approvals.Step) []string {
	if id := s.Args["id"]; id != "" {
		return []string{factMethod + id}
	}
	return []string{}
}
