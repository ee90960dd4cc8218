package commands

import (
	"slices"
	"strings"

	"countersign/approvals"
	"countersign/entra"
)

// verified=compromise stands in for a caller who was verified: nobody called,
// and the account is believed to be lost. It takes nothing away from what has
// to be approved, and adds what keeps whoever has the account from using it
// meanwhile.

// acceptsCompromise says which commands make sense for an account that nobody
// answers for: those that take something away from whoever holds it. What
// hands out a way in needs somebody to hand it to.
func acceptsCompromise(c Command) bool {
	return c.Class == approvals.ClassDestroy || c.Name == "reset-password"
}

// compromisePermissions is what it needs beyond the command's own permissions.
func compromisePermissions() []entra.Permission {
	return []entra.Permission{entra.CallSetEnabled.Permission(), entra.CallRevokeSessions.Permission()}
}

// withCompromise puts containment before a plan: sign-in is blocked, then the
// sessions are revoked, and nobody can begin new ones while the rest is done.
// What fails does not keep the rest from being done.
//
// Such a plan is not compared with the account before it runs (see check):
// whoever has the account could stop it by changing the account once more.
func withCompromise(s subject, p approvals.Plan) approvals.Plan {
	steps := []approvals.Step{{Op: opBlockSignIn, Words: "Block sign-in: disable the account"}, revokeStep(s)}
	for _, step := range p.Steps {
		if step.Op != opRevokeSessions {
			steps = append(steps, step)
		}
	}
	for i := range steps {
		steps[i].CarryOn = true
	}
	p.Steps = steps
	p.Args = strings.TrimSpace(p.Args + " verified=" + approvals.VerifiedCompromise)

	w := []string{"Nobody called: the account is believed to be lost. Sign-in is blocked first and stays blocked until somebody unblocks it; the person cannot work until then. All sessions are revoked.",
		"Changes to the account between now and then do not stop this, because an intruder could make them."}
	for _, warning := range slices.Concat(warnSynced(s), p.Warnings, warnSessions(s)) {
		if !slices.Contains(w, warning) && warning != warnBlocked {
			w = append(w, warning)
		}
	}
	p.Warnings = w
	return p
}
