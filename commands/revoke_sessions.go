package commands

import (
	"context"
	"time"

	"countersign/approvals"
	"countersign/entra"
)

func revokeSessions() Command {
	return Command{
		Name:   "revoke-sessions",
		Title:  "Revoke sessions",
		Usage:  "@user [break-glass] [ticket=INC-7] [why]",
		Does:   "sign a person out everywhere",
		Class:  approvals.ClassContain,
		Target: true,
		Help: "Ends every sign-in session of the person, so that every app asks for sign-in and MFA again. Microsoft made “revoke MFA sessions” and “revoke sign-in sessions” " +
			"one and the same in February 2026, and so is this command. It can take some minutes to reach every service, and access tokens that are already out live on for about an " +
			"hour, except in apps with continuous access evaluation. No authentication method is touched. Guests stay signed in where their home organisation signed them in.",
		Permissions: append(ofTarget(), entra.CallRevokeSessions.Permission()),
		plan:        planRevokeSessions,
	}
}

const opRevokeSessions = "revoke-sessions"

func planRevokeSessions(_ context.Context, _ *Tenant, s subject) (approvals.Plan, error) {
	return approvals.Plan{
		Steps:    []approvals.Step{revokeStep(s)},
		Keeps:    []string{"every authentication method", "the password"},
		Warnings: warnSessions(s),
	}, nil
}

// revokeStep records since when sessions are valid, so that an earlier
// revocation is not mistaken for this one.
func revokeStep(s subject) approvals.Step {
	return approvals.Step{Op: opRevokeSessions, Words: "Revoke all sessions",
		Args: map[string]string{"before": s.user.SessionsValidFrom.UTC().Format(time.RFC3339)}}
}

// warnSessions is what an approver should know about revoked sessions.
func warnSessions(s subject) []string {
	w := []string{"Access tokens that are already out can live on for about an hour."}
	if s.user.Guest {
		w = append(w, "A guest signs in at the home organisation: sessions there go on, and only that organisation can end them.")
	}
	return w
}

func revoke(ctx context.Context, t *Tenant, job approvals.Job) approvals.Result {
	return repeatable(ctx,
		func(ctx context.Context) error { return t.graph.RevokeSessions(ctx, job.Request.Plan.Target.ID) },
		func(ctx context.Context) (bool, error) { return t.revokedSince(ctx, job) })
}

// revokeAgain finds out whether a dead worker has revoked the sessions. Revoking
// twice signs the person out twice, and does no other harm.
func revokeAgain(ctx context.Context, t *Tenant, job approvals.Job) approvals.Result {
	done, err := t.revokedSince(ctx, job)
	switch {
	case err == nil && done:
		return approvals.Result{State: approvals.StepDone}
	case job.ReadOnly && err != nil:
		return unknownResult(err)
	case job.ReadOnly:
		return notApplied()
	}
	return revoke(ctx, t, job)
}

// revokedSince reports whether the sessions were revoked after the step was
// started. Entra reports whole seconds, and its clock is not Redis'; a mistake
// costs a second revocation.
func (t *Tenant) revokedSince(ctx context.Context, job approvals.Job) (bool, error) {
	user, err := t.user(ctx, job.Request.Plan.Target.ID)
	if err != nil {
		return false, err
	}
	since := user.SessionsValidFrom.UTC()
	started := job.Request.Journal[job.Step].Started.Truncate(time.Second)
	return since.Format(time.RFC3339) != job.Request.Plan.Steps[job.Step].Args["before"] && !since.Before(started), nil
}
