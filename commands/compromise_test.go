package commands

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"countersign/approvals"
	"countersign/sandbox"
	graph "countersign/sandbox/entra"
)

const blockWords = "Block sign-in: disable the account"

func TestWhereCompromiseIsAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range Table() {
			want := slices.Contains([]string{"remove-method", "require-reregister", "delete-app-passwords", "reset-password"}, c.Name)
			if got := slices.ContainsFunc(Verifications(c), func(v Verification) bool { return v.Value == approvals.VerifiedCompromise }); got != want {
				t.Errorf("%s accepts it: %t", c.Name, got)
			}
			for _, v := range Verifications(c) {
				if utf8.RuneCountInString(v.Words) > 75 { // Slack cuts what is offered in a select
					t.Errorf("%q has %d characters", v.Words, utf8.RuneCountInString(v.Words))
				}
			}
			if _, problems := Parse(c, "<@U1> verified=compromise"); c.Class == approvals.ClassTakeover && !want &&
				(!slices.ContainsFunc(problems, func(p Problem) bool { return p.Field == FieldVerified })) {
				t.Errorf("%s: %v", c.Name, problems)
			}
		}
		s := newStage(t)
		if _, err := s.plan("issue-pass", sandbox.DanaID, "verified", "compromise"); err == nil {
			t.Error("a pass for an account that is believed to be lost")
		}
	})
}

func TestPlansForALostAccount(t *testing.T) {
	s := newStage(t)
	tests := map[string]struct {
		command, id string
		steps       []string // the first and the last ones
		last        int      // how many of them are the last ones
		said        string
	}{
		"reset password":       {"reset-password", sandbox.DanaID, []string{blockWords, "Revoke all sessions", "Set a temporary password, to be changed at the next sign-in"}, 1, "verified=compromise"},
		"re-register":          {"require-reregister", sandbox.MinaID, []string{blockWords, "Revoke all sessions", "Delete phone +1 •••• ••64 (mobile, the default method)", "List the methods again and check that these are gone"}, 2, "verified=compromise"},
		"delete app passwords": {"delete-app-passwords", sandbox.DanaID, []string{blockWords, "Revoke all sessions", "By hand: in the Entra admin center"}, 1, "verified=compromise"},
		"Bo is blocked":        {"reset-password", sandbox.BoID, []string{blockWords, "Revoke all sessions", "Set a temporary password"}, 1, "verified=compromise"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p, err := s.plan(tt.command, tt.id, "verified", "compromise")
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Steps) != len(tt.steps) {
				t.Fatalf("%q", wordsOf(p.Steps))
			}
			for i, want := range tt.steps {
				if step := p.Steps[i]; !strings.HasPrefix(step.Words, want) || !step.CarryOn {
					t.Errorf("step %d: %+v", i+1, step)
				}
			}
			if p.Args != tt.said || !strings.HasPrefix(p.Warnings[0], "Nobody called: the account is believed to be lost. Sign-in is blocked first") ||
				slices.Contains(p.Warnings, warnBlocked) || !slices.ContainsFunc(p.Warnings, func(w string) bool { return strings.HasPrefix(w, "Access tokens") }) {
				t.Errorf("%q %q", p.Args, p.Warnings)
			}
			sorted := slices.Clone(p.Warnings)
			slices.Sort(sorted)
			if len(slices.Compact(sorted)) != len(p.Warnings) {
				t.Errorf("a warning twice: %q", p.Warnings)
			}
		})
	}
	if p, err := s.plan("require-reregister", sandbox.SamID, "verified", "compromise"); err != nil || !slices.ContainsFunc(p.Warnings, func(w string) bool { return strings.Contains(w, "on-premises") }) {
		t.Errorf("Sam is synced: %q, %v", p.Warnings, err)
	}
	if _, err := s.plan("require-reregister", sandbox.GloriaID, "verified", "compromise"); err == nil || !strings.Contains(err.Error(), "is a protected target") {
		t.Errorf("Gloria: %v", err)
	}
	s.remove(sandbox.MinaID, graph.IDMobile)
	if _, err := s.plan("require-reregister", sandbox.MinaID, "verified", "compromise"); err == nil || !strings.Contains(err.Error(), "nothing to remove") || !strings.Contains(err.Error(), "block its sign-in and revoke its sessions") {
		t.Errorf("nothing to remove: %v", err)
	}
}

// Whoever has the account cannot stop the plan by changing the account, and
// cannot have what was not approved deleted either.
func TestAnIntruderDoesNotStopIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		r := s.request("require-reregister", sandbox.MinaID, "verified", "compromise")
		usual := s.request("require-reregister", sandbox.MinaID)
		s.remove(sandbox.MinaID, graph.IDMobile)
		s.add(sandbox.MinaID, graph.Phone("mobile", "+1 4255550199"))
		s.add(sandbox.MinaID, graph.Passkey("p1", "Not hers", "", ""))
		s.patch(sandbox.MinaID, map[string]any{"last_password_change": time.Now().UTC().Format(time.RFC3339)})
		if got := s.work(approvals.JobCheck, usual, -1); got.State != approvals.StepFailed {
			t.Errorf("the usual plan: %+v", got)
		}
		r = s.run(r)
		if u := s.user(sandbox.MinaID); u.Enabled || time.Since(u.SessionsValidFrom) > time.Hour || !s.has(sandbox.MinaID, graph.IDMobile) {
			t.Errorf("enabled %t, sessions valid from %s", u.Enabled, u.SessionsValidFrom)
		}
		states := []approvals.StepState{approvals.StepDone, approvals.StepDone, approvals.StepAlready, approvals.StepFailed}
		for i, want := range states {
			if r.Journal[i].State != want {
				t.Errorf("%s: %+v", r.Plan.Steps[i].Words, r.Journal[i])
			}
		}
		if got := r.Journal[3].Detail; !strings.Contains(got, "Registered since the plan was made:") || !strings.Contains(got, "passkey “Not hers”") || !strings.Contains(got, "phone +1 •••• ••99 (mobile)") || !strings.HasSuffix(got, "ask again to have it removed.") {
			t.Error(got)
		}

		// What cannot be looked at is not deleted blindly.
		s.faults(graph.Fault{Method: "GET", Path: "authentication", Kind: graph.FaultStatus, Status: 500, Times: -1})
		before := s.writes()
		if got := s.work(approvals.JobRun, begin(r, 2), 2); got.State != approvals.StepFailed || s.writes() != before {
			t.Errorf("%+v", got)
		}
	})
}

// A block that fails does not keep the rest from being done.
func TestALostAccountThatCannotBeBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		r := s.request("reset-password", sandbox.DanaID, "verified", "compromise")
		s.faults(graph.Fault{Method: "PATCH", Kind: graph.FaultStatus, Status: 403, Code: "Authorization_RequestDenied"})
		r = s.run(r)
		secrets, err := s.api.Secrets(sandbox.DanaID)
		if err != nil || r.Journal[0].State != approvals.StepFailed || !strings.Contains(r.Journal[0].Detail, "grants User.EnableDisableAccount.All") ||
			r.Journal[1].State != approvals.StepDone || r.Journal[2].State != approvals.StepDone || secrets.Password != s.secret {
			t.Errorf("%+v, %v", r.Journal, err)
		}
		silent(t, r, s.secret)
	})
}
