package commands

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"regexp"
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

// Every temporary password is of one form, meets Entra's complexity, holds no
// sign that looks like another, and is drawn evenly.
func TestTemporaryPassword(t *testing.T) {
	const n = 40_000
	form := regexp.MustCompile(`^[` + strings.ToUpper(passwordLetters) + `][` + passwordLetters + passwordDigits + `]{3}(-[` + passwordLetters + passwordDigits + `]{4}){3}$`)
	seen, first, rest := map[string]bool{}, map[byte]int{}, map[byte]int{}
	for range n {
		p := temporaryPassword()
		switch {
		case !form.MatchString(p):
			t.Fatalf("the form of %q", p)
		case strings.ContainsAny(strings.ToLower(p), "aeiou018lsbzgq"):
			t.Fatalf("%q could be misread", p)
		case !strings.ContainsAny(p, passwordDigits) || !strings.ContainsAny(p, passwordLetters):
			t.Fatalf("%q could be refused", p)
		case seen[p]:
			t.Fatalf("%q twice", p)
		}
		seen[p] = true
		first[p[0]]++
		for _, c := range []byte(strings.ReplaceAll(p[1:], "-", "")) {
			rest[c]++
		}
	}
	even := func(what string, counts map[byte]int, kinds, total int) {
		if len(counts) != kinds {
			t.Errorf("%s: %d different signs, want %d", what, len(counts), kinds)
		}
		expected := float64(total) / float64(kinds)
		for c, got := range counts {
			// Six standard deviations; drawing again moves the shares by less than a hundredth.
			if math.Abs(float64(got)-expected) > 6*math.Sqrt(expected)+0.01*expected {
				t.Errorf("%s: %q came %d times, expected are %.0f", what, c, got, expected)
			}
		}
	}
	even("the first sign", first, 15, n)
	even("the others", rest, 22, 15*n)

	letters, digits := float64(len(passwordLetters)), float64(len(passwordDigits))
	all := letters + digits
	kept := 1 - math.Pow(letters/all, 15) - math.Pow(digits/all, 15)
	if bits := math.Log2(letters) + 15*math.Log2(all) + math.Log2(kept); bits < 70 {
		t.Errorf("%.2f bits", bits)
	}
}

// branch adds a federated domain, somebody in it, and somebody in a domain
// that Entra does not show.
func branch(_ *sandbox.Company, o *graph.Options) {
	o.Domains = append(o.Domains, graph.Domain{Name: "branch.example", Federated: true})
	o.Users = append(o.Users, graph.User{ID: fayID, UserPrincipalName: "fay.lindgren@branch.example", DisplayName: "Fay Lindgren"},
		graph.User{ID: "0f1d9a52-0d59-4b54-9a55-f7be0c3f7a11", UserPrincipalName: "intern@fernhill.example", DisplayName: "An internal guest", Guest: true})
}

const fayID = "3b0de4bb-6d0f-4b6b-9a33-3cbfa2c4f1e0"

func TestPlanToResetPassword(t *testing.T) {
	s := newStage(t, branch)
	tests := map[string]struct {
		id    string
		args  []string
		steps []string
		warns []string // parts of some of them
		err   string   // part of the error
	}{
		"Dana": {id: sandbox.DanaID, steps: []string{"Set a temporary password, to be changed at the next sign-in", "Revoke all sessions"},
			warns: []string{"App passwords are not revoked", "Whoever hears the temporary password", "Access tokens"}},
		"after MFA": {id: sandbox.DanaID, args: []string{"after", "mfa"}, steps: []string{"Set a temporary password, to be changed at the next sign-in, after MFA", "Revoke all sessions"},
			warns: []string{"Without a working MFA method"}},
		"blocked":           {id: sandbox.BoID, steps: []string{"Set a temporary password, to be changed at the next sign-in", "Revoke all sessions"}, warns: []string{"is blocked from signing in and stays so"}},
		"an internal guest": {id: "0f1d9a52-0d59-4b54-9a55-f7be0c3f7a11", steps: []string{"Set a temporary password, to be changed at the next sign-in", "Revoke all sessions"}},
		"synced":            {id: sandbox.SamID, err: "mastered by an on-premises directory, and a reset through Microsoft Graph would not reach it. Reset it in that directory"},
		"federated":         {id: fayID, err: "the federated domain branch.example, which keeps the password. Reset it there."},
		"a guest":           {id: sandbox.PatID, err: "a guest from another organisation and has no password here"},
		"an administrator":  {id: sandbox.GloriaID, err: "is a protected target"},
		"nobody":            {id: "00000000-1111-4222-8333-444444444444", err: approvals.ErrNoPerson.Error()},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p, err := s.plan("reset-password", tt.id, tt.args...)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := wordsOf(p.Steps); !slices.Equal(got, tt.steps) {
				t.Errorf("steps %q", got)
			}
			for _, w := range tt.warns {
				if !strings.Contains(strings.Join(p.Warnings, "\n"), w) {
					t.Errorf("no warning %q in %q", w, p.Warnings)
				}
			}
			if p.Class != approvals.ClassTakeover || p.Steps[0].Secret != approvals.SecretPrepared || p.Steps[0].CarryOn || len(p.Assumes) != 4 || p.Title != "Reset password" || (p.Args == "mfa") != (name == "after MFA") {
				t.Errorf("%+v", p)
			}
		})
	}

	// Where the password is kept has to be known.
	for _, tt := range []struct {
		fault graph.Fault
		words string
	}{
		{graph.Fault{Kind: graph.FaultStatus, Status: http.StatusNotFound, Code: "Request_ResourceNotFound", Times: -1}, "Entra does not know the domain fernhill.example"},
		{graph.Fault{Kind: graph.FaultStatus, Status: http.StatusForbidden, Code: "Authorization_RequestDenied", Times: -1}, "An administrator grants Domain.Read.All"},
		{graph.Fault{Kind: graph.FaultStatus, Status: http.StatusInternalServerError, Times: -1}, "did not answer when asked to read how the domain signs its people in"},
	} {
		tt.fault.Path = "/domains/"
		s.faults(tt.fault)
		if _, err := s.plan("reset-password", sandbox.DanaID); err == nil || !strings.Contains(err.Error(), tt.words) {
			t.Errorf("got %v, want %s", err, tt.words)
		}
	}
}

func TestResetPassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, args := range [][]string{nil, {"after", "mfa"}} {
			s := newStage(t)
			before := s.user(sandbox.DanaID)
			r := s.run(s.request("reset-password", sandbox.DanaID, args...))
			for i, e := range r.Journal {
				if e.State != approvals.StepDone {
					t.Errorf("%s: %+v", r.Plan.Steps[i].Words, e)
				}
			}
			secrets, err := s.api.Secrets(sandbox.DanaID)
			if err != nil || secrets.Password == "" || secrets.Password != s.secret {
				t.Errorf("%v; the password is the prepared one: %t", err, secrets.Password == s.secret)
			}
			after := s.user(sandbox.DanaID)
			if !after.SessionsValidFrom.After(before.SessionsValidFrom) || len(after.Methods) != len(before.Methods) {
				t.Errorf("sessions valid from %s, %d methods", after.SessionsValidFrom, len(after.Methods))
			}
			silent(t, r, s.secret)
		}
	})
}

// silent says that a secret is in nothing that is stored or shown.
func silent(t *testing.T, v any, secret string) {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if secret == "" || strings.Contains(string(data), secret) {
		t.Errorf("the secret %q is in %s", secret, data)
	}
}

// answers checks a result with its secret: it comes with success and in its
// field alone.
func answers(t *testing.T, got approvals.Result, state approvals.StepState, words, secret string) {
	t.Helper()
	if got.State != state || !strings.Contains(got.Detail, words) {
		t.Errorf("got %s %q, want %s and %q", got.State, got.Detail, state, words)
	}
	if (got.Secret != "") != (state == approvals.StepDone) || got.Secret != "" && secret != "" && got.Secret != secret {
		t.Errorf("%s with the secret %q", got.State, got.Secret)
	}
	if got.State == approvals.StepThrottled && got.After < time.Second {
		t.Errorf("throttled for %s", got.After)
	}
	for _, hidden := range []string{secret, got.Secret} {
		got.Secret = ""
		if hidden != "" {
			silent(t, got, hidden)
		}
	}
}

func TestFaultsOfResetPassword(t *testing.T) {
	one, sixty := 1, 60
	patch := func(f graph.Fault) graph.Fault {
		f.Method, f.Path = "PATCH", "/users/"
		return f
	}
	tests := map[string]struct {
		faults []graph.Fault
		within time.Duration
		want   approvals.StepState
		set    bool
		words  string
	}{
		"none":                      {want: approvals.StepDone, set: true},
		"throttled":                 {faults: []graph.Fault{{Kind: graph.FaultThrottle, RetryAfter: &sixty, Times: -1}}, want: approvals.StepThrottled, words: "asks to wait 1m0s"},
		"throttled for a moment":    {faults: []graph.Fault{{Kind: graph.FaultThrottle, RetryAfter: &one}}, want: approvals.StepDone, set: true},
		"lost request":              {faults: []graph.Fault{{Kind: graph.FaultDropRequest}}, want: approvals.StepDone, set: true},
		"lost reply":                {faults: []graph.Fault{{Kind: graph.FaultDropReply}}, want: approvals.StepDone, set: true},
		"two lost requests":         {faults: []graph.Fault{{Kind: graph.FaultDropRequest, Times: 2}}, want: approvals.StepUncertain, words: "It may have been set, and is not shown."},
		"two lost replies":          {faults: []graph.Fault{{Kind: graph.FaultDropReply, Times: 2}}, want: approvals.StepUncertain, set: true, words: "Ask for another reset"},
		"lost reply, then refused":  {faults: []graph.Fault{{Kind: graph.FaultDropReply}, {Kind: graph.FaultStatus, Status: 400, Code: "Request_BadRequest", Message: "Not the old one."}}, want: approvals.StepUncertain, set: true, words: "Microsoft says: Not the old one."},
		"lost request, then waits":  {faults: []graph.Fault{{Kind: graph.FaultDropRequest}, {Kind: graph.FaultThrottle, RetryAfter: &sixty, Times: -1}}, want: approvals.StepUncertain, words: "asks to wait"},
		"applied late":              {faults: []graph.Fault{{Kind: graph.FaultApplyLate, DelayMS: 100}}, want: approvals.StepDone, set: true},
		"gateway, applied":          {faults: []graph.Fault{{Kind: graph.FaultStatus, Status: 504, Apply: true}}, want: approvals.StepDone, set: true},
		"gateway, not applied":      {faults: []graph.Fault{{Kind: graph.FaultStatus, Status: 502}}, want: approvals.StepDone, set: true},
		"unavailable, told when":    {faults: []graph.Fault{{Kind: graph.FaultStatus, Status: 503, RetryAfter: &one}}, want: approvals.StepDone, set: true},
		"hangs once":                {faults: []graph.Fault{{Kind: graph.FaultHang}}, within: 1500 * time.Millisecond, want: approvals.StepDone, set: true},
		"hangs":                     {faults: []graph.Fault{{Kind: graph.FaultHang, Times: -1}}, within: time.Second, want: approvals.StepUncertain, words: "did not say whether it"},
		"refused":                   {faults: []graph.Fault{{Kind: graph.FaultStatus, Status: 400, Code: "Request_BadRequest", Message: "Too weak."}}, want: approvals.StepFailed, words: "(400 Request_BadRequest). Microsoft says: Too weak."},
		"forbidden":                 {faults: []graph.Fault{{Kind: graph.FaultStatus, Status: 403, Code: "Authorization_RequestDenied"}}, want: approvals.StepFailed, words: "grants User-PasswordProfile.ReadWrite.All to Countersign's app registration and assigns the directory role User Administrator"},
		"became synced in between":  {faults: []graph.Fault{{Kind: graph.FaultStatus, Status: 400, Message: "Unable to update the specified properties for on-premises mastered Directory Sync objects."}}, want: approvals.StepFailed, words: "does this there"},
		"the answer comes too late": {faults: []graph.Fault{{Kind: graph.FaultApplyLate, DelayMS: 100, Status: 500}}, want: approvals.StepDone, set: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				r := s.request("reset-password", sandbox.DanaID)
				for i := range tt.faults {
					tt.faults[i] = patch(tt.faults[i])
				}
				s.faults(tt.faults...)
				if tt.within == 0 {
					tt.within = 10 * time.Second
				}
				got := s.workWithin(tt.within, approvals.JobRun, begin(r, 0), 0)
				answers(t, got, tt.want, tt.words, s.secret)
				secrets, err := s.api.Secrets(sandbox.DanaID)
				if err != nil || (secrets.Password == s.secret) != tt.set {
					t.Errorf("it was set: %t, %v", secrets.Password == s.secret, err)
				}
				if got.State == approvals.StepFailed && got.RequestID == "" {
					t.Errorf("no request-id in %+v", got)
				}
			})
		})
	}
}

func TestResetPasswordNeedsTheRole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, func(_ *sandbox.Company, o *graph.Options) { o.AppRoles = []string{} })
		r := s.request("reset-password", sandbox.DanaID)
		answers(t, s.work(approvals.JobRun, begin(r, 0), 0), approvals.StepFailed, "the directory role User Administrator to its service principal", s.secret)
		if s.writes() != 0 {
			t.Error("something was written")
		}
	})
}

// A worker was killed somewhere around its call, and the next one has the
// same password, or has lost it, or may only look.
func TestReconcileResetPassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		r := begin(s.request("reset-password", sandbox.DanaID), 0)
		job := func(kind approvals.JobKind, secret string, lookOnly bool) approvals.Result {
			return s.tenant.Work(t.Context(), approvals.Job{Kind: kind, Request: r, Secret: secret, ReadOnly: lookOnly})
		}
		answers(t, job(approvals.JobRun, "", false), approvals.StepFailed, "so nothing was sent", "")
		answers(t, job(approvals.JobReconcile, "", false), approvals.StepFailed, "shows that it was not set", "")
		answers(t, job(approvals.JobReconcile, "Kd4t-mx7r-hhp2-9wkc", true), approvals.StepFailed, "it was not sent again", "")
		if s.writes() != 0 {
			t.Fatal("something was written")
		}
		s.faults(graph.Fault{Method: "GET", Kind: graph.FaultStatus, Status: 500, Times: -1})
		answers(t, job(approvals.JobReconcile, "", false), approvals.StepUncertain, "It may have been set", "")
		s.faults(graph.Fault{Kind: graph.FaultThrottle, RetryAfter: &[]int{60}[0], Times: -1})
		answers(t, job(approvals.JobReconcile, "", false), approvals.StepThrottled, "asks to wait", "")
		s.secret = "Kd4t-mx7r-hhp2-9wkc"
		answers(t, s.work(approvals.JobReconcile, r, 0), approvals.StepThrottled, "asks to wait", s.secret)
		s.faults()
		answers(t, s.work(approvals.JobReconcile, r, 0), approvals.StepDone, "", s.secret) // killed before the call
		answers(t, s.work(approvals.JobReconcile, r, 0), approvals.StepDone, "", s.secret) // killed behind it
		if secrets, err := s.api.Secrets(sandbox.DanaID); err != nil || secrets.Password != s.secret || s.writes() != 2 {
			t.Errorf("%v, %d writes", err, s.writes())
		}
		answers(t, job(approvals.JobReconcile, "", false), approvals.StepUncertain, "most likely by this", s.secret)
		answers(t, job(approvals.JobReconcile, s.secret, true), approvals.StepUncertain, "most likely by this", s.secret)
		s.faults(graph.Fault{Method: "PATCH", Kind: graph.FaultStatus, Status: 400, Code: "Request_BadRequest", Message: "Not the old one."})
		answers(t, s.work(approvals.JobReconcile, r, 0), approvals.StepUncertain, "Countersign was interrupted while it set the temporary password. It may have been set", s.secret)
		if s.writes() != 2 {
			t.Errorf("%d writes", s.writes())
		}
		if got := s.work(approvals.JobPrepare, s.request("revoke-sessions", sandbox.DanaID), 0); got.State != approvals.StepFailed || got.Secret != "" {
			t.Errorf("a secret for a step without one: %+v", got)
		}
	})
}

func TestDriftBeforeResetPassword(t *testing.T) {
	now := time.Now().UTC().Format(time.RFC3339)
	for name, tt := range map[string]struct {
		change map[string]any
		want   string
	}{
		"password": {map[string]any{"last_password_change": now}, "the password was changed"},
		"synced":   {map[string]any{"synced": true}, "moved between the cloud and an on-premises directory"},
		"blocked":  {map[string]any{"enabled": false}, "the account was blocked"},
		"sessions": {map[string]any{"sessions_valid_from": now}, "the sessions were revoked by somebody else"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				r := s.request("reset-password", sandbox.DanaID)
				s.patch(sandbox.DanaID, tt.change)
				if got := s.work(approvals.JobCheck, r, -1); got.State != approvals.StepFailed || !strings.Contains(got.Detail, tt.want) {
					t.Errorf("%+v", got)
				}
			})
		})
	}
	s := newStage(t)
	r := s.request("reset-password", sandbox.DanaID)
	r = begin(r, 0)
	r.Journal[0].State = s.work(approvals.JobRun, r, 0).State
	if got := s.work(approvals.JobCheck, r, -1); got.State != approvals.StepDone {
		t.Errorf("what the plan itself did: %+v", got)
	}
	s.faults(graph.Fault{Path: "/users/", Kind: graph.FaultStatus, Status: 500, Times: -1})
	if _, err := s.plan("reset-password", sandbox.DanaID); !errors.Is(err, entra.ErrUnreachable) {
		t.Errorf("nothing can be read: %v", err)
	}
}
