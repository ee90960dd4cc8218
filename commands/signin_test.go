package commands

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"countersign/approvals"
	"countersign/entra"
	"countersign/sandbox"
	graph "countersign/sandbox/entra"
)

func TestPlanToBlockAndUnblock(t *testing.T) {
	s := newStage(t)
	s.patch(sandbox.SamID, map[string]any{"enabled": false})
	tests := map[string]struct {
		command, id      string
		step             string
		assumes          bool
		warns, calm      []string
		nothing, refused string
	}{
		"block": {command: "block-signin", id: sandbox.DanaID, step: "Block sign-in: disable the account",
			warns: []string{"Access tokens"}, calm: []string{"A guest", "The account comes from"}},
		"block somebody protected": {command: "block-signin", id: sandbox.GloriaID, step: "Block sign-in: disable the account"},
		"block a guest":            {command: "block-signin", id: sandbox.PatID, step: "Block sign-in: disable the account", warns: []string{"A guest is blocked here only"}},
		"blocked already":          {command: "block-signin", id: sandbox.BoID, nothing: "There is nothing to do: Bo Castellan (bo.castellan@fernhill.example) is blocked from signing in already."},
		"unblock":                  {command: "unblock-signin", id: sandbox.BoID, step: "Unblock sign-in: enable the account", assumes: true, warns: []string{"Find out why it was blocked"}, calm: []string{"The account comes from"}},
		"unblock who is synced":    {command: "unblock-signin", id: sandbox.SamID, step: "Unblock sign-in: enable the account", assumes: true, warns: []string{"The account comes from an on-premises Active Directory"}},
		"not blocked":              {command: "unblock-signin", id: sandbox.DanaID, nothing: "There is nothing to do: Dana Whitfield (dana.whitfield@fernhill.example) is not blocked"},
		"unblock the protected":    {command: "unblock-signin", id: sandbox.GloriaID, refused: "Gloria Adeyemi (gloria.adeyemi@fernhill.example) is a protected target."},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p, err := s.plan(tt.command, tt.id)
			if tt.nothing != "" || tt.refused != "" {
				_, nothing := err.(*NothingToDo)
				_, refused := err.(*approvals.Refusal)
				if err == nil || !strings.HasPrefix(err.Error(), tt.nothing+tt.refused) || nothing != (tt.nothing != "") || refused != (tt.refused != "") {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := wordsOf(p.Steps); !slices.Equal(got, []string{tt.step}) || (len(p.Assumes) > 0) != tt.assumes {
				t.Errorf("steps %q, assumes %q", got, p.Assumes)
			}
			warnsOf(t, p, tt.warns, tt.calm)
		})
	}
}

func TestSignInFaults(t *testing.T) {
	steps := map[string]struct {
		command, id string
		enabled     bool // in the end
	}{
		"block":   {"block-signin", sandbox.DanaID, false},
		"unblock": {"unblock-signin", sandbox.BoID, true},
	}
	one := 1
	faults := map[string]struct {
		fault  graph.Fault
		reads  bool
		within time.Duration
		want   approvals.StepState
		done   bool
		words  string
	}{
		"none":                   {want: approvals.StepDone, done: true},
		"throttled":              {fault: graph.Fault{Kind: graph.FaultThrottle, RetryAfter: &[]int{60}[0], Times: -1}, want: approvals.StepThrottled, words: "asks to wait 1m0s"},
		"throttled for a moment": {fault: graph.Fault{Kind: graph.FaultThrottle, RetryAfter: &one}, want: approvals.StepDone, done: true},
		"lost request":           {fault: graph.Fault{Kind: graph.FaultDropRequest}, want: approvals.StepDone, done: true},
		"lost reply":             {fault: graph.Fault{Kind: graph.FaultDropReply}, want: approvals.StepDone, done: true},
		"lost reply, unreadable": {fault: graph.Fault{Kind: graph.FaultDropReply}, reads: true, want: approvals.StepUncertain, done: true, words: "did not say whether it did"},
		"two lost requests":      {fault: graph.Fault{Kind: graph.FaultDropRequest, Times: 2}, want: approvals.StepUncertain, words: "did not say whether it did"},
		"applied late":           {fault: graph.Fault{Kind: graph.FaultApplyLate, DelayMS: 100}, want: approvals.StepDone, done: true},
		"gateway, applied":       {fault: graph.Fault{Kind: graph.FaultStatus, Status: 504, Apply: true}, want: approvals.StepDone, done: true},
		"gateway, not applied":   {fault: graph.Fault{Kind: graph.FaultStatus, Status: 502}, want: approvals.StepDone, done: true},
		"forbidden": {fault: graph.Fault{Kind: graph.FaultStatus, Status: 403, Code: "Authorization_RequestDenied", Message: "Insufficient privileges to complete the operation.", Times: -1},
			want: approvals.StepFailed, words: "An administrator grants User.EnableDisableAccount.All to Countersign's app registration"},
	}
	for stepName, step := range steps {
		for name, tt := range faults {
			t.Run(stepName+"/"+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := newStage(t)
					r := s.request(step.command, step.id)
					if tt.fault.Kind != "" {
						tt.fault.Method, tt.fault.Path = "PATCH", "users"
						f := []graph.Fault{tt.fault}
						if tt.reads {
							f = append(f, graph.Fault{Method: "GET", Kind: graph.FaultStatus, Status: 500, Times: -1})
						}
						s.faults(f...)
					}
					got := s.work(approvals.JobRun, begin(r, 0), 0)
					if got.State != tt.want || !strings.Contains(got.Detail, tt.words) {
						t.Errorf("got %+v, want %s and %q", got, tt.want, tt.words)
					}
					if enabled := s.user(step.id).Enabled; (enabled == step.enabled) != tt.done {
						t.Errorf("the account is enabled: %v", enabled)
					}
				})
			})
		}
	}
}

func TestSignInReconcile(t *testing.T) {
	for command, id := range map[string]string{"block-signin": sandbox.DanaID, "unblock-signin": sandbox.BoID} {
		t.Run(command, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				r := begin(s.request(command, id), 0)
				look := func() approvals.Result {
					return s.tenant.Work(t.Context(), approvals.Job{Kind: approvals.JobReconcile, Request: r, ReadOnly: true})
				}
				if got := look(); got.State != approvals.StepFailed || s.writes() != 0 {
					t.Errorf("halted before the call: %+v", got)
				}
				if got := s.work(approvals.JobReconcile, r, 0); got.State != approvals.StepDone || s.writes() != 1 {
					t.Errorf("killed before the call: %+v after %d writes", got, s.writes())
				}
				if got := s.work(approvals.JobReconcile, r, 0); got.State != approvals.StepDone || s.writes() != 1 {
					t.Errorf("killed behind the call: %+v after %d writes", got, s.writes())
				}
				if got := look(); got.State != approvals.StepDone {
					t.Errorf("halted behind the call: %+v", got)
				}
				s.faults(graph.Fault{Method: "GET", Kind: graph.FaultStatus, Status: 403, Times: -1})
				if got := look(); got.State != approvals.StepUncertain || !strings.Contains(got.Detail, "cannot see what became of it") {
					t.Errorf("halted, and nothing can be read: %+v", got)
				}
				s.faults()
				s.grantWithout(entra.PermAccountEnable)
				if got := s.work(approvals.JobRun, r, 0); got.State != approvals.StepFailed || !strings.Contains(got.Detail, "grants User.EnableDisableAccount.All") {
					t.Errorf("without permission: %+v", got)
				}
			})
		})
	}
}

// What was unblocked by somebody else, or moved, is no longer what was
// approved; containment goes on whatever happened.
func TestSignInDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		unblock, block := s.request("unblock-signin", sandbox.BoID), s.request("block-signin", sandbox.DanaID)
		s.patch(sandbox.BoID, map[string]any{"synced": true})
		if got := s.work(approvals.JobCheck, unblock, -1); got.State != approvals.StepFailed || !strings.Contains(got.Detail, "moved between the cloud and an on-premises directory") {
			t.Errorf("%+v", got)
		}
		s.patch(sandbox.BoID, map[string]any{"synced": false, "enabled": true})
		if got := s.work(approvals.JobCheck, unblock, -1); got.State != approvals.StepFailed || !strings.Contains(got.Detail, "the account was unblocked") {
			t.Errorf("%+v", got)
		}
		s.patch(sandbox.DanaID, map[string]any{"enabled": false})
		if got := s.work(approvals.JobCheck, block, -1); got.State != approvals.StepDone {
			t.Errorf("%+v", got)
		}
		if r := s.run(block); r.Journal[0].State != approvals.StepDone {
			t.Errorf("%+v", r.Journal)
		}
		if _, err := s.plan("block-signin", sandbox.DanaID); err == nil || !strings.HasPrefix(err.Error(), "There is nothing to do") {
			t.Errorf("a second time: %v", err)
		}
	})
}
