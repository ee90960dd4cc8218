package commands

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"countersign/approvals"
	"countersign/sandbox"
	graph "countersign/sandbox/entra"
)

func TestLifetimes(t *testing.T) {
	for typed, want := range map[string]string{"60m": "60m", "60M": "60m", "90min": "90m", "90 minutes": "90m", "8h": "480m", "1 hour": "60m", "2d": "2880m", "30d": "43200m",
		"60": "60m", "010m": "10m", "9m": "", "31d": "", "99999d": "", "100000m": "", "1h30m": "", "an hour": "", "-60m": "", "6.5h": ""} {
		value, sentence := readLifetime(typed)
		if value != want || (sentence == "") != (want != "") {
			t.Errorf("%q is %q, %q", typed, value, sentence)
		}
		if again, _ := readLifetime(value); want != "" && again != value {
			t.Errorf("%q is read as %q", value, again)
		}
	}
	c := command(t, "issue-pass")
	for text, want := range map[string]struct {
		lifetime, use, why string
		wrong              []Field
	}{
		"<@U1>":                        {},
		"<@U1> 60m once new laptop":    {"60m", "once", "new laptop", nil},
		"<@U1> once 8h":                {"480m", "once", "", nil},
		"<@U1> one-time new laptop":    {"", "once", "new laptop", nil},
		"<@U1> 60 laptops":             {"", "", "60 laptops", nil},
		"<@U1> lost phone once":        {"", "", "lost phone once", nil},
		"<@U1> lifetime=8h lost phone": {"480m", "", "lost phone", nil},
		"<@U1> use=once":               {"", "once", "", nil},
		"<@U1> 5m":                     {"", "", "", []Field{FieldLifetime}},
		"<@U1> verified=compromise":    {"", "", "", []Field{FieldVerified}},
	} {
		in, problems := Parse(c, text)
		var wrong []Field
		for _, p := range problems {
			wrong = append(wrong, p.Field)
		}
		if in.Args[FieldLifetime] != want.lifetime || in.Args[FieldUse] != want.use || in.Justification != want.why || !slices.Equal(wrong, want.wrong) {
			t.Errorf("%q is read as %v with %v", text, show(in), problems)
		}
	}
	for d, want := range map[time.Duration]string{time.Minute: "1 minute", time.Hour: "1 hour", 90 * time.Minute: "90 minutes", 8 * time.Hour: "8 hours", 24 * time.Hour: "1 day", 30 * 24 * time.Hour: "30 days"} {
		if got := lifetimeWords(d); got != want {
			t.Errorf("%s is %q", d, got)
		}
	}
}

func TestPlanToIssuePass(t *testing.T) {
	const usual, once = "Issue a Temporary Access Pass, valid for 1 hour and good for any number of sign-ins until then", "Issue a Temporary Access Pass, valid for 1 hour and good for one sign-in"
	const whoCan = "An Authentication Policy Administrator can change that in the Entra admin center"
	tests := map[string]struct {
		id     string
		policy graph.PassPolicy
		args   []string
		words  string // beginning of the step
		said   string // the plan's own arguments
		warns  []string
		err    []string // parts of the error
	}{
		"Mina": {id: sandbox.MinaID, words: usual, said: "60m", warns: []string{"Whoever has the pass can sign in as this person", "Have a passkey enrolled at https://aka.ms/mysecurityinfo"}},
		"Dana has one": {id: sandbox.DanaID, words: usual + ", in place of the Temporary Access Pass (valid until 20", said: "60m",
			warns: []string{"It takes the place of the Temporary Access Pass (valid until 20"}},
		"eight hours":          {id: sandbox.MinaID, args: []string{"lifetime", "480m"}, words: "Issue a Temporary Access Pass, valid for 8 hours and", said: "480m"},
		"one sign-in":          {id: sandbox.MinaID, args: []string{"use", "once"}, words: once, said: "60m once", warns: []string{"within 10 minutes of the one sign-in"}},
		"one sign-in only":     {id: sandbox.MinaID, policy: graph.PassPolicy{OnceOnly: true}, words: once, said: "60m once"},
		"another default":      {id: sandbox.MinaID, policy: graph.PassPolicy{DefaultLifetime: 90, MinimumLifetime: 10}, words: "Issue a Temporary Access Pass, valid for 90 minutes", said: "90m"},
		"in the scope":         {id: sandbox.HannaID, policy: graph.PassPolicy{IncludeGroups: []string{sandbox.GroupHelpDesk}}, words: usual, said: "60m"},
		"Bo is blocked":        {id: sandbox.BoID, words: usual, said: "60m", warns: []string{"of no use until it is unblocked"}},
		"Sam is synced":        {id: sandbox.SamID, words: usual, said: "60m"},
		"too long":             {id: sandbox.MinaID, args: []string{"lifetime", "481m"}, err: []string{"allows passes from 1 hour to 8 hours", "such as 60m", whoCan}},
		"too short":            {id: sandbox.MinaID, args: []string{"lifetime", "30m"}, err: []string{"allows passes from 1 hour to 8 hours"}},
		"switched off":         {id: sandbox.MinaID, policy: graph.PassPolicy{Disabled: true}, err: []string{"does not allow Temporary Access Passes", whoCan}},
		"out of the scope":     {id: sandbox.MinaID, policy: graph.PassPolicy{IncludeGroups: []string{sandbox.GroupHelpDesk}}, err: []string{"not in the scope", whoCan, "put the person into a group"}},
		"a guest":              {id: sandbox.PatID, err: []string{"a guest from another organisation", "help desk issues one"}},
		"an executive":         {id: sandbox.AlexMID, err: []string{"is a protected target"}},
		"an account that gone": {id: "00000000-1111-4222-8333-444444444444", err: []string{approvals.ErrNoPerson.Error()}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, func(_ *sandbox.Company, o *graph.Options) { o.Pass = tt.policy })
				p, err := s.plan("issue-pass", tt.id, tt.args...)
				if tt.err != nil {
					for _, part := range tt.err {
						if err == nil || !strings.Contains(err.Error(), part) {
							t.Errorf("got %v, want %s", err, part)
						}
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if len(p.Steps) != 1 || !strings.HasPrefix(p.Steps[0].Words, tt.words) || p.Steps[0].Secret != approvals.SecretFromAnswer || p.Class != approvals.ClassTakeover || p.Args != tt.said {
					t.Errorf("%+v", p)
				}
				for _, w := range tt.warns {
					if !strings.Contains(strings.Join(p.Warnings, "\n"), w) {
						t.Errorf("no warning %q in %q", w, p.Warnings)
					}
				}
			})
		})
	}

	s := newStage(t)
	for path, words := range map[string]string{"authenticationMethodsPolicy": "read the policy for Temporary Access Passes", "temporaryAccessPassMethods": "list the Temporary Access Passes"} {
		s.faults(graph.Fault{Method: "GET", Path: path, Kind: graph.FaultStatus, Status: http.StatusBadGateway, Times: -1})
		if _, err := s.plan("issue-pass", sandbox.MinaID); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("got %v, want %s", err, words)
		}
	}
}

// value is the pass that the account really has.
func (s *stage) value(id string) string {
	s.Helper()
	secrets, err := s.api.Secrets(id)
	if err != nil {
		s.Fatal(err)
	}
	return secrets.Pass
}

func (s *stage) passes(id string) []sandbox.Method {
	s.Helper()
	return s.user(id).OfType(graph.TypePass)
}

func TestIssuePass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		r := s.request("issue-pass", sandbox.DanaID, "lifetime", "120m", "use", "once")
		if got := s.work(approvals.JobCheck, r, -1); got.State != approvals.StepDone {
			t.Fatalf("%+v", got)
		}
		got := s.work(approvals.JobRun, begin(r, 0), 0)
		answers(t, got, approvals.StepDone, "Valid until "+moment(got.Until)+". It can take a few minutes until it works everywhere. A passkey is enrolled at https://aka.ms/mysecurityinfo.", s.value(sandbox.DanaID))
		if d := time.Until(got.Until); d > 2*time.Hour || d < 119*time.Minute {
			t.Errorf("valid for %s", d)
		}
		if p := s.passes(sandbox.DanaID); len(p) != 1 || p[0].ID == "014810eb-c87f-4c15-9a9b-b756771f89f0" || p[0].Properties["isUsableOnce"] != true {
			t.Errorf("%+v", p)
		}
	})
}

func TestFaultsOfIssuePass(t *testing.T) {
	one, sixty := 1, 60
	tests := map[string]struct {
		faults []graph.Fault
		unread bool // the passes cannot be listed
		within time.Duration
		want   approvals.StepState
		issued bool // some pass is there in the end
		words  string
	}{
		"none":                     {want: approvals.StepDone, issued: true, words: "Valid until"},
		"throttled":                {faults: []graph.Fault{{Kind: graph.FaultThrottle, RetryAfter: &sixty, Times: -1}}, want: approvals.StepThrottled, words: "asks to wait 1m0s"},
		"throttled for a moment":   {faults: []graph.Fault{{Kind: graph.FaultThrottle, RetryAfter: &one}}, want: approvals.StepDone, issued: true},
		"lost request":             {faults: []graph.Fault{{Kind: graph.FaultDropRequest}}, want: approvals.StepDone, issued: true, words: "lost on the way. Should it not work, ask for another."},
		"lost reply":               {faults: []graph.Fault{{Kind: graph.FaultDropReply}}, want: approvals.StepDone, issued: true, words: "It takes the place of one whose value was lost"},
		"lost reply, unreadable":   {faults: []graph.Fault{{Kind: graph.FaultDropReply}}, unread: true, want: approvals.StepUncertain, issued: true, words: "A pass may be there that nobody knows"},
		"two lost requests":        {faults: []graph.Fault{{Kind: graph.FaultDropRequest, Times: 2}}, want: approvals.StepUncertain, words: "did not say whether it issued the pass"},
		"two lost replies":         {faults: []graph.Fault{{Kind: graph.FaultDropReply, Times: 2}}, want: approvals.StepUncertain, issued: true, words: "it ends by itself, or when you ask for another"},
		"lost reply, then refused": {faults: []graph.Fault{{Kind: graph.FaultDropReply}, {Kind: graph.FaultStatus, Status: 403, Code: "accessDenied"}}, want: approvals.StepUncertain, issued: true, words: "grants UserAuthMethod-TAP.ReadWrite.All"},
		"lost reply, then waits":   {faults: []graph.Fault{{Kind: graph.FaultDropReply}, {Kind: graph.FaultThrottle, RetryAfter: &sixty, Times: -1}}, want: approvals.StepUncertain, issued: true, words: "asks to wait"},
		"applied late":             {faults: []graph.Fault{{Kind: graph.FaultApplyLate, DelayMS: 100}}, want: approvals.StepDone, issued: true},
		"gateway, applied":         {faults: []graph.Fault{{Kind: graph.FaultStatus, Status: 504, Apply: true}}, want: approvals.StepDone, issued: true},
		"gateway, not applied":     {faults: []graph.Fault{{Kind: graph.FaultStatus, Status: 502}}, want: approvals.StepDone, issued: true},
		"hangs once":               {faults: []graph.Fault{{Kind: graph.FaultHang}}, within: 1500 * time.Millisecond, want: approvals.StepDone, issued: true},
		"hangs":                    {faults: []graph.Fault{{Kind: graph.FaultHang, Times: -1}}, within: time.Second, want: approvals.StepUncertain, words: "did not say whether it issued"},
		"forbidden":                {faults: []graph.Fault{{Kind: graph.FaultStatus, Status: 403, Code: "accessDenied"}}, want: approvals.StepFailed, words: "grants UserAuthMethod-TAP.ReadWrite.All (or UserAuthenticationMethod.ReadWrite.All)"},
		"the policy has changed":   {faults: []graph.Fault{{Kind: graph.FaultStatus, Status: 400, Code: "badRequest", Message: "Not allowed by policy."}}, want: approvals.StepFailed, words: "Microsoft says: Not allowed by policy."},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				r := s.request("issue-pass", sandbox.MinaID)
				for i := range tt.faults {
					tt.faults[i].Method, tt.faults[i].Path = "POST", "temporaryAccessPassMethods"
				}
				if tt.unread {
					tt.faults = append(tt.faults, graph.Fault{Method: "GET", Kind: graph.FaultStatus, Status: 500, Times: -1})
				}
				s.faults(tt.faults...)
				if tt.within == 0 {
					tt.within = 10 * time.Second
				}
				got := s.workWithin(tt.within, approvals.JobRun, begin(r, 0), 0)
				value := s.value(sandbox.MinaID)
				answers(t, got, tt.want, tt.words, value)
				if issued := len(s.passes(sandbox.MinaID)) > 0; issued != tt.issued {
					t.Errorf("issued: %t", issued)
				}
				if got.State == approvals.StepDone && name != "applied late" && got.Secret != value {
					t.Error("the pass is not the one that is there")
				}
			})
		})
	}
}

func TestReconcileIssuePass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, id := range []string{sandbox.MinaID, sandbox.DanaID} {
			s := newStage(t)
			r := begin(s.request("issue-pass", id), 0)
			look := func() approvals.Result {
				return s.tenant.Work(t.Context(), approvals.Job{Kind: approvals.JobReconcile, Request: r, ReadOnly: true})
			}
			s.faults(graph.Fault{Method: "GET", Kind: graph.FaultStatus, Status: 403, Times: -1})
			answers(t, s.work(approvals.JobReconcile, r, 0), approvals.StepUncertain, "Countersign was interrupted while it issued the pass.", "")
			s.faults(graph.Fault{Method: "GET", Kind: graph.FaultThrottle, RetryAfter: &[]int{60}[0], Times: -1})
			answers(t, s.work(approvals.JobReconcile, r, 0), approvals.StepThrottled, "asks to wait", "")
			s.faults(graph.Fault{Method: "POST", Kind: graph.FaultThrottle, RetryAfter: &[]int{60}[0], Times: -1})
			answers(t, s.work(approvals.JobReconcile, r, 0), approvals.StepThrottled, "asks to wait", "")
			s.faults(graph.Fault{Method: "POST", Kind: graph.FaultStatus, Status: 403})
			answers(t, s.work(approvals.JobReconcile, r, 0), approvals.StepFailed, "grants UserAuthMethod-TAP.ReadWrite.All", "")
			s.faults()
			answers(t, look(), approvals.StepFailed, "shows that it was not issued", "")
			if s.writes() != 0 {
				t.Fatalf("%d writes", s.writes())
			}
			killedBefore := s.work(approvals.JobReconcile, r, 0)
			answers(t, killedBefore, approvals.StepDone, "Should it not work, ask for another.", s.value(id))
			answers(t, look(), approvals.StepUncertain, "shows one that was not there before", s.value(id))
			s.faults(graph.Fault{Method: "POST", Kind: graph.FaultStatus, Status: 403})
			answers(t, s.work(approvals.JobReconcile, r, 0), approvals.StepUncertain, "A pass may be there that nobody knows", s.value(id))
			if s.writes() != 1 {
				t.Fatalf("%d writes", s.writes())
			}
			killedBehind := s.work(approvals.JobReconcile, r, 0)
			answers(t, killedBehind, approvals.StepDone, "", s.value(id))
			if killedBehind.Secret == killedBefore.Secret || s.writes() != 2 || len(s.passes(id)) != 1 {
				t.Errorf("%d writes, %d passes", s.writes(), len(s.passes(id)))
			}
		}
	})
}

func TestDriftBeforeIssuePass(t *testing.T) {
	for name, tt := range map[string]struct {
		id     string
		change func(*stage)
		want   string // "" where the plan still holds
	}{
		"nothing": {sandbox.DanaID, func(*stage) {}, ""},
		"somebody else issued one": {sandbox.MinaID, func(s *stage) {
			s.add(sandbox.MinaID, graph.TemporaryAccessPass("t1", time.Now(), time.Hour, true))
		}, "a method was added: Temporary Access Pass (valid until"},
		"the old one ended":  {sandbox.DanaID, func(s *stage) { s.remove(sandbox.DanaID, "014810eb-c87f-4c15-9a9b-b756771f89f0") }, ""},
		"blocked":            {sandbox.MinaID, func(s *stage) { s.patch(sandbox.MinaID, map[string]any{"enabled": false}) }, "the account was blocked"},
		"unblocked":          {sandbox.BoID, func(s *stage) { s.patch(sandbox.BoID, map[string]any{"enabled": true}) }, "the account was unblocked"},
		"a phone came along": {sandbox.MinaID, func(s *stage) { s.add(sandbox.MinaID, graph.Phone("office", "+1 4255550111")) }, ""},
		"cannot be read": {sandbox.MinaID, func(s *stage) {
			s.faults(graph.Fault{Method: "GET", Path: "temporaryAccessPassMethods", Kind: graph.FaultStatus, Status: 403, Times: -1})
		}, "could not be compared with the plan"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				r := s.request("issue-pass", tt.id)
				tt.change(s)
				got := s.workWithin(2*time.Second, approvals.JobCheck, r, -1)
				if tt.want == "" && got.State != approvals.StepDone || tt.want != "" && (got.State != approvals.StepFailed || !strings.Contains(got.Detail, tt.want)) {
					t.Errorf("got %+v, want %q", got, tt.want)
				}
			})
		})
	}
}
