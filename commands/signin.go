package commands

import (
	"context"
	"errors"
	"fmt"

	"countersign/approvals"
	"countersign/entra"
)

func blockSignIn() Command {
	return Command{
		Name:   "block-signin",
		Title:  "Block sign-in",
		Usage:  "@user [break-glass] [ticket=INC-7] [why]",
		Does:   "disable the account, so that nobody can sign in with it",
		Class:  approvals.ClassContain,
		Target: true,
		Help: "Disables the account in Entra: from then on nobody signs in with it, whatever password or method they have. Who is signed in already can go on for about an hour, until the " +
			"access token ends; revoke the sessions as well. Methods, password, licences and data stay. Where the account comes from an on-premises Active Directory, that directory decides: " +
			"the next synchronisation can set it back, so have it disabled there too.",
		Permissions: append(ofTarget(), entra.CallSetEnabled.Permission()),
		plan: func(_ context.Context, _ *Tenant, s subject) (approvals.Plan, error) {
			if !s.user.Enabled {
				return approvals.Plan{}, &NothingToDo{fmt.Sprintf("There is nothing to do: %s is blocked from signing in already. Whoever is still signed in loses that when the sessions are revoked.", s.person)}
			}
			p := approvals.Plan{
				Steps:    []approvals.Step{blockStep(s)},
				Keeps:    []string{"every authentication method", "the password", "the sessions that are signed in (“Revoke sessions” ends them)"},
				Warnings: []string{"Access tokens that are already out can live on for about an hour."},
			}
			if s.user.Guest {
				p.Warnings = append(p.Warnings, "A guest is blocked here only: the account in the home organisation stays as it is.")
			}
			p.Warnings = append(p.Warnings, warnSynced(s)...)
			return p, nil
		},
	}
}

func unblockSignIn() Command {
	return Command{
		Name:   "unblock-signin",
		Title:  "Unblock sign-in",
		Usage:  "@user [verified=callback] [ticket=INC-7] [why]",
		Does:   "enable the account again",
		Class:  approvals.ClassTakeover,
		Target: true,
		Help: "Enables a blocked account again: with it, everybody who has the password and a method can sign in, an intruder too. Find out first why it was blocked. If it was believed to " +
			"be lost, look at its methods, reset the password and revoke the sessions before you unblock it. Where the account comes from an on-premises Active Directory, that directory " +
			"decides, and the next synchronisation can block it again.",
		Permissions: append(ofTarget(), entra.CallSetEnabled.Permission()),
		plan: func(_ context.Context, _ *Tenant, s subject) (approvals.Plan, error) {
			if s.user.Enabled {
				return approvals.Plan{}, &NothingToDo{fmt.Sprintf("There is nothing to do: %s is not blocked from signing in.", s.person)}
			}
			facts := factsOfUser(s.user)
			p := approvals.Plan{
				Steps:   []approvals.Step{{Op: opUnblockSignIn, Words: "Unblock sign-in: enable the account"}},
				Keeps:   []string{"every authentication method", "the password", "that older sessions stay revoked"},
				Assumes: map[string]string{factEnabled: facts[factEnabled], factSynced: facts[factSynced]},
				Warnings: []string{
					"Find out why it was blocked, and whether whoever blocked it agrees.",
					"If the account was believed to be lost: password, methods and sessions are as they were, and so is whoever had them.",
				},
			}
			p.Warnings = append(p.Warnings, warnSynced(s)...)
			return p, nil
		},
	}
}

const (
	opBlockSignIn   = "block-signin"
	opUnblockSignIn = "unblock-signin"
)

func blockStep(subject) approvals.Step {
	return approvals.Step{Op: opBlockSignIn, Words: "Block sign-in: disable the account"}
}

// warnSynced says who decides about an account that comes from elsewhere.
func warnSynced(s subject) []string {
	if !s.user.Synced {
		return nil
	}
	return []string{"The account comes from an on-premises Active Directory, which decides: the next synchronisation can set this back. Have the same done there."}
}

// setEnabled is the operation of both commands. To do it twice does no more
// than to do it once.
func setEnabled(enabled bool) operation {
	shows := func(ctx context.Context, t *Tenant, job approvals.Job) (bool, error) {
		user, err := t.user(ctx, job.Request.Plan.Target.ID)
		return err == nil && user.Enabled == enabled, err
	}
	run := func(ctx context.Context, t *Tenant, job approvals.Job) approvals.Result {
		return repeatable(ctx,
			func(ctx context.Context) error {
				return t.graph.SetEnabled(ctx, job.Request.Plan.Target.ID, enabled)
			},
			func(ctx context.Context) (bool, error) { return shows(ctx, t, job) })
	}
	again := func(ctx context.Context, t *Tenant, job approvals.Job) approvals.Result {
		done, err := shows(ctx, t, job)
		switch {
		case err == nil && done:
			return approvals.Result{State: approvals.StepDone}
		case errors.Is(err, approvals.ErrNoPerson):
			return approvals.Result{State: approvals.StepFailed, Detail: "The account does not exist any more."}
		case job.ReadOnly && err != nil:
			return unknownResult(err)
		case job.ReadOnly:
			return notApplied()
		}
		return run(ctx, t, job)
	}
	return operation{run, again, func(approvals.Step) []string { return []string{factEnabled} }}
}
