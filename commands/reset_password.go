package commands

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"countersign/approvals"
	"countersign/entra"
)

func resetPassword() Command {
	return Command{
		Name:         "reset-password",
		Title:        "Reset password",
		Usage:        "@user [mfa] [verified=callback] [ticket=INC-7] [why]",
		Does:         "give a person a temporary password, to be changed at the next sign-in, and revoke sessions",
		Class:        approvals.ClassTakeover,
		SecretAdvice: "Read it to them group by group: the hyphens are part of it, and only its first letter is a capital. They choose a new one at the next sign-in.",
		Target:       true,
		Args: []Arg{{Field: FieldAfter, Words: "Before they may choose a password of their own",
			Hint:    "Write mfa to make them pass MFA first, or nothing.",
			Choices: []ArgChoice{{Value: "mfa", Words: "they must pass MFA", also: []string{"after-mfa", "with-mfa"}}}}},
		Help: "Sets a temporary password that Countersign makes up and nobody else knows, and revokes the person's sessions. You alone see the password, once, in a window that opens " +
			"when you press a button; read it to them over the telephone. They have to choose their own at the next sign-in, with “mfa” only after they passed MFA. Methods stay as they are, " +
			"and so do app passwords, which go on working. Passwords that are kept in an on-premises directory or at another identity provider are reset there: " +
			"Countersign refuses, because Graph would change a copy that nobody uses.",
		Permissions: append(ofTarget(), entra.CallReadDomain.Permission(), entra.CallSetPassword.Permission(), entra.CallRevokeSessions.Permission()),
		plan:        planResetPassword,
	}
}

const opResetPassword = "reset-password"

// warnBlocked is for plans that leave a block as it is.
const warnBlocked = "The account is blocked from signing in and stays so."

// planResetPassword refuses whoever has no password of this tenant. Microsoft
// writes a password back to an on-premises directory when an administrator
// resets it in the admin center, and not when an application does
// (https://learn.microsoft.com/entra/identity/authentication/concept-sspr-writeback).
func planResetPassword(ctx context.Context, t *Tenant, s subject) (approvals.Plan, error) {
	switch {
	case s.outsider():
		return approvals.Plan{}, approvals.Refuse(approvals.CodeNoSteps, "%s is a guest from another organisation and has no password here. That organisation's help desk resets it.", s.person)
	case s.user.Synced:
		return approvals.Plan{}, approvals.Refuse(approvals.CodeNoSteps, "The password of %s is mastered by an on-premises directory, and a reset through Microsoft Graph would not reach it. "+
			"Reset it in that directory, or in the Entra admin center if the tenant has password writeback.", s.person)
	}
	_, name, _ := strings.Cut(s.user.UPN, "@")
	domain, err := t.graph.Domain(ctx, name)
	switch {
	case errors.Is(err, entra.ErrNotFound):
		return approvals.Plan{}, approvals.Refuse(approvals.CodeUnchecked, "Nobody can tell where the password of %s is kept: Entra does not know the domain %s. "+
			"Reset it in the Entra admin center.", s.person, Plain(name, 80))
	case err != nil:
		return approvals.Plan{}, lookUp(err)
	case domain.Federated:
		return approvals.Plan{}, approvals.Refuse(approvals.CodeNoSteps, "%s signs in through the identity provider of the federated domain %s, which keeps the password. Reset it there.", s.person, Plain(name, 80))
	}

	afterMFA := s.Args[FieldAfter] == "mfa"
	words := "Set a temporary password, to be changed at the next sign-in"
	if afterMFA {
		words += ", after MFA"
	}
	p := approvals.Plan{
		Args:    s.Args[FieldAfter],
		Assumes: factsOfUser(s.user),
		Steps: []approvals.Step{
			{Op: opResetPassword, Words: words, Secret: approvals.SecretPrepared,
				Args: map[string]string{"after_mfa": fmt.Sprint(afterMFA), "before": s.user.LastPasswordChange.UTC().Format(time.RFC3339)}},
			revokeStep(s),
		},
		Keeps: []string{"every authentication method", "app passwords, if there are any"},
		Warnings: []string{
			"Whoever hears the temporary password can sign in with it. Where the person has no MFA method, it is all that is needed.",
			"App passwords are not revoked by this: where there are any, they go on working.",
		},
	}
	if afterMFA {
		p.Warnings = append(p.Warnings, "Without a working MFA method the person cannot get past the temporary password.")
	}
	if !s.user.Enabled {
		p.Warnings = append(p.Warnings, warnBlocked)
	}
	p.Warnings = append(p.Warnings, warnSessions(s)...)
	return p, nil
}

// prepare makes the secret of a step before anything is sent, so that a step
// whose answer is lost can send the same one again.
func prepare(s approvals.Step) approvals.Result {
	if s.Op != opResetPassword {
		return approvals.Result{State: approvals.StepFailed, Detail: fmt.Sprintf("This version of Countersign cannot prepare the step %q. Ask for it again.", s.Op)}
	}
	return approvals.Result{State: approvals.StepDone, Secret: temporaryPassword()}
}

// What a temporary password is made of. Nothing in it looks like something
// else on paper or in any typeface (0 O, 1 l I, 2 z, 5 s, 6 b, 8 B, 9 g q), and
// there is no vowel, so that it makes no words. Capitals look like their small
// letters when written by hand: the first letter is the only one.
const (
	passwordLetters = "cdfhjkmnprtvwxy"
	passwordDigits  = "2345679"
)

// temporaryPassword makes a password such as Kd4t-mx7r-hhp2-9wkc: four groups
// of four, which is how people read things to each other over a telephone.
//
// The first sign is one of 15 capitals, the other 15 are drawn from 22 signs:
// log2(15) + 15 × log2(22) = 3.9 + 66.9 = 70.8 bits. Drawing again what has no
// digit or no small letter, which Entra could refuse, happens to one in 120
// and costs a hundredth of a bit. With its hyphens it has all four kinds of
// characters that Entra counts
// (https://learn.microsoft.com/entra/identity/authentication/concept-sspr-policy).
func temporaryPassword() string {
	for {
		var b strings.Builder
		for i := range 16 {
			switch {
			case i == 0:
				b.WriteString(strings.ToUpper(draw(passwordLetters)))
			case i%4 == 0:
				b.WriteByte('-')
				fallthrough
			default:
				b.WriteString(draw(passwordLetters + passwordDigits))
			}
		}
		if p := b.String(); strings.ContainsAny(p, passwordDigits) && strings.ContainsAny(p, passwordLetters) {
			return p
		}
	}
}

// draw takes one of the characters of set, each with the same chance.
func draw(set string) string {
	for {
		var b [1]byte
		_, _ = rand.Read(b[:]) // never fails: it would end the program
		if int(b[0]) < 256/len(set)*len(set) {
			i := int(b[0]) % len(set)
			return set[i : i+1]
		}
	}
}

// resetPasswordOnce sets the prepared password.
func resetPasswordOnce(ctx context.Context, t *Tenant, job approvals.Job) approvals.Result {
	if job.Secret == "" {
		return approvals.Result{State: approvals.StepFailed, Detail: "The temporary password that was made for this step is lost, so nothing was sent. Ask for it again."}
	}
	return t.sendPassword(ctx, job, "")
}

// resetPasswordAgain sends the password that a dead worker has sent, or was
// about to send.
func resetPasswordAgain(ctx context.Context, t *Tenant, job approvals.Job) approvals.Result {
	const interrupted = "Countersign was interrupted while it set the temporary password."
	if job.ReadOnly || job.Secret == "" {
		return t.lookAtPassword(ctx, job, interrupted)
	}
	return t.sendPassword(ctx, job, interrupted)
}

// sendPassword sends the prepared password, and the same one again if the
// outcome is unknown: if either call is accepted, it is the password. doubt says
// why an earlier attempt may have set it already; then a refusal says nothing
// about that attempt.
func (t *Tenant) sendPassword(ctx context.Context, job approvals.Job, doubt string) approvals.Result {
	set := func(ctx context.Context) error {
		r := job.Request
		return t.graph.SetPassword(ctx, r.Plan.Target.ID, job.Secret, r.Plan.Steps[job.Step].Args["after_mfa"] == "true")
	}
	first, cancel := half(ctx)
	err := set(first)
	cancel()
	if unanswered(err) {
		if doubt == "" && resultOf(err).State == approvals.StepUncertain {
			doubt = "Microsoft Graph did not say whether it set the temporary password."
		}
		err = set(ctx)
	}
	got := resultOf(err)
	switch {
	case err == nil:
		got.Secret = job.Secret
	case doubt == "":
	case got.State == approvals.StepThrottled && job.Kind == approvals.JobReconcile: // the step stays begun, and the same is sent again
	default:
		got = doubtfulPassword(err, doubt)
	}
	return got
}

// doubtfulPassword is the result if an earlier attempt may have set the password
// and a later one did not. Nobody is shown it, because it may or may not be the
// password.
func doubtfulPassword(err error, what string) approvals.Result {
	got := resultOf(err)
	got.State, got.After = approvals.StepUncertain, 0
	got.Detail = what + " It may have been set, and is not shown. " + got.Detail + " Ask for another reset: a new password ends the doubt."
	return got
}

// lookAtPassword says what the account shows if nothing can, or may, be sent any
// more: when the password was changed, not to what.
func (t *Tenant) lookAtPassword(ctx context.Context, job approvals.Job, what string) approvals.Result {
	user, err := t.graph.User(ctx, job.Request.Plan.Target.ID)
	switch {
	case errors.Is(err, entra.ErrThrottled):
		return resultOf(err)
	case err != nil:
		return doubtfulPassword(err, what)
	case user.LastPasswordChange.UTC().Format(time.RFC3339) == job.Request.Plan.Steps[job.Step].Args["before"]:
		return approvals.Result{State: approvals.StepFailed, Detail: what + " The account shows that it was not set, and it was not sent again."}
	}
	return approvals.Result{State: approvals.StepUncertain, Detail: what + " The account's password was changed at " + moment(user.LastPasswordChange) +
		", most likely by this. It is not shown: ask for another reset."}
}
