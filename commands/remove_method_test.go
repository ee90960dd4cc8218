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

func TestParseRemoveMethod(t *testing.T) {
	tests := map[string]struct {
		text, method, why string
		bad               []Field
	}{
		"kind":                   {"<@U1> passkey lost it", "passkey", "lost it", nil},
		"kind in two words":      {"<@U1> Windows Hello, lost laptop", "Windows Hello", "lost laptop", nil},
		"kind and type":          {"<@U1> office phone moved", "office phone", "moved", nil},
		"kind and name":          {`<@U1> authenticator "iPad Air" sold it`, `authenticator "iPad Air`, "sold it", nil},
		"name":                   {"<@U1> “Dana’s iPhone 15” sold it", "Dana’s iPhone 15", "sold it", nil},
		"masked number":          {"<@U1> +1 •••• ••42 lost", "+1 •••• ••42", "lost", nil},
		"end of a masked number": {"<@U1> ••42 lost", "••42", "lost", nil},
		"as the card shows it":   {"<@U1> phone +1 •••• ••42 (mobile) lost", "phone +1 •••• ••42 (mobile)", "lost", nil},
		"end of a serial number": {"<@U1> …8431 lost", "…8431", "lost", nil},
		"masked address":         {"<@U1> d••••@m••••.example x", "d••••@m••••.example", "x", nil},
		"whole number":           {"<@U1> +1 425 555 0142 lost", "+1 425 555 0142", "lost", nil},
		"reference":              {"<@U1> phone-0a1b2c3d lost", "phone-0a1b2c3d", "lost", nil},
		"id":                     {"<@U1> _mHq3TgWRku8Zc2VbN7dXw2 lost", "_mHq3TgWRku8Zc2VbN7dXw2", "lost", nil},
		"GUID":                   {"<@U1> 027b72e3-1d49-4ca5-a7ca-78de6ebb33a0 lost", "027b72e3-1d49-4ca5-a7ca-78de6ebb33a0", "lost", nil},
		"by name":                {`<@U1> method="iPad Air" verified=video sold it`, "iPad Air", "sold it", nil},
		"nothing":                {"<@U1>", "", "", nil},
		"only a reason":          {"<@U1> lost phone", "", "lost phone", nil},
		"a reason with a kind":   {"<@U1> stolen: passkey and phone", "", "stolen: passkey and phone", nil},
		"someone else":           {"<@U1> <@U2|ravi> asked", "", "@ravi asked", nil},
		"an open quote":          {`<@U1> "iPad Air`, "", "", []Field{FieldMethod}},
		"empty quotes":           {`<@U1> "" x`, "", "x", []Field{FieldMethod}},
		"quoted by name":         {`<@U1> method="\"iPad\" Air"`, `iPad" Air`, "", nil},
	}
	c := command(t, "remove-method")
	for title, tt := range tests {
		t.Run(title, func(t *testing.T) {
			in, problems := Parse(c, tt.text)
			var bad []Field
			for _, p := range problems {
				bad = append(bad, p.Field)
			}
			if in.Args[FieldMethod] != tt.method || in.Justification != tt.why || !slices.Equal(bad, tt.bad) {
				t.Errorf("got %q, why %q, %v; want %q, why %q", in.Args[FieldMethod], in.Justification, problems, tt.method, tt.why)
			}
			if again, problems := Parse(c, in.String()); len(problems) > 0 || !same(again, in) {
				t.Errorf("written as %q and read back as %+v %v", in.String(), show(again), problems)
			}
		})
	}
	if missing := Missing(c, Input{Target: Ref{Slack: "U1"}, Verified: "video", Ticket: "7"}, Needs{}); !slices.Equal(missing, []Field{FieldMethod}) {
		t.Errorf("missing: %q", missing)
	}
}

func TestPlanToRemoveMethod(t *testing.T) {
	s := newStage(t, func(_ *sandbox.Company, o *graph.Options) {
		for i := range o.Users {
			if u := &o.Users[i]; u.ID == sandbox.DanaID {
				u.Methods = append(u.Methods, graph.Method{Type: "#microsoft.graph.telepathyAuthenticationMethod", ID: "t1", Properties: graph.Properties{{Name: "displayName", Value: "left ear"}}})
			}
		}
	})
	const dana = "Dana Whitfield (dana.whitfield@fernhill.example)"
	tests := map[string]struct {
		id, method  string
		step        string
		warns, calm []string
		refused     string // the beginning
	}{
		"kind":              {id: sandbox.DanaID, method: "Passkey", step: "Delete passkey “Security key, top drawer”, YubiKey 5 Series with NFC", warns: []string{"What is on the device stays there"}, calm: []string{"No MFA", "It may be the default", "SMS or voice"}},
		"id of a passkey":   {id: sandbox.DanaID, method: "A8nLw0cQyEi5sJ2pXeRk7g2", step: "Delete passkey “Security key, top drawer”, YubiKey 5 Series with NFC"},
		"name":              {id: sandbox.DanaID, method: "iPad Air", step: "Delete Microsoft Authenticator on “iPad Air”", warns: []string{"It may be the default method."}},
		"name, other quote": {id: sandbox.DanaID, method: "dana's iphone 15", step: "Delete Microsoft Authenticator on “Dana’s iPhone 15”"},
		"kind and name":     {id: sandbox.DanaID, method: `authenticator app "iPad`, step: "Delete Microsoft Authenticator on “iPad Air”"},
		"end of a number":   {id: sandbox.DanaID, method: "••87", step: "Delete phone +1 •••• ••87 (alternate mobile)"},
		"masked number":     {id: sandbox.DanaID, method: "+1 •••• ••00", step: "Delete phone +1 •••• ••00 (office)"},
		"whole number":      {id: sandbox.DanaID, method: "+1 425-555-0187", step: "Delete phone +1 •••• ••87 (alternate mobile)"},
		"type of phone":     {id: sandbox.DanaID, method: "alternate mobile", step: "Delete phone +1 •••• ••87 (alternate mobile)"},
		"address":           {id: sandbox.DanaID, method: "dana.whitfield@mailbox.example", step: "Delete reset e-mail d••••@m••••.example"},
		"email":             {id: sandbox.DanaID, method: "email", step: "Delete reset e-mail d••••@m••••.example", calm: []string{"No MFA"}},
		"serial number":     {id: sandbox.DanaID, method: "…8431", step: "Take hardware token Feitian OTP c200, serial number …8431 away from the person", warns: []string{"The token stays in the tenant's inventory"}},
		"QR code":           {id: sandbox.DanaID, method: "qr code", step: "Delete QR code"},
		"the only phone":    {id: sandbox.MinaID, method: "phone", step: "Delete phone +1 •••• ••64 (mobile)", warns: []string{"No MFA method is left afterwards"}, calm: []string{"It may be the default method", "It is the default method"}},
		"not the default":   {id: sandbox.HannaID, method: "phone", step: "Delete phone +1 •••• ••31 (mobile)", calm: []string{"No MFA", "It may be the default", "It is the default"}},
		"default, beside what may not count": {id: sandbox.RaviID, method: "authenticator", step: "Delete Microsoft Authenticator on “iPhone 16”",
			warns: []string{"It is the default method. Microsoft does not say"}},

		"the default":      {id: sandbox.HannaID, method: "authenticator", refused: "Entra deletes the default method only as the last one: Microsoft Authenticator on “Pixel 9” is the default of Hanna Okafor (hanna.okafor@fernhill.example), who has others: phone +1 •••• ••31 (mobile). Remove these first"},
		"mobile first":     {id: sandbox.DanaID, method: "••42", refused: "Entra keeps the mobile number as long as there is an alternate mobile."},
		"several":          {id: sandbox.DanaID, method: "phone", refused: "“phone” may be several methods of " + dana + ": phone +1 •••• ••42 (mobile), phone +1 •••• ••87 (alternate mobile) and phone +1 •••• ••00 (office)."},
		"mobile is two":    {id: sandbox.DanaID, method: "mobile", refused: "“mobile” may be several methods of " + dana},
		"none":             {id: sandbox.DanaID, method: "Nokia 3310", refused: dana + " has no method that “Nokia 3310” names. There are: passkey “Security key, top drawer”"},
		"an old reference": {id: sandbox.DanaID, method: "phone-00000000", refused: dana + " has no method that"},
		"a number":         {id: sandbox.DanaID, method: "+1 425 555 0999", refused: dana + " has no method that “••••” names."},
		"password":         {id: sandbox.DanaID, method: "password", refused: "A password cannot be removed, only reset."},
		"unknown kind":     {id: sandbox.DanaID, method: "left ear", refused: "Countersign does not know how methods of the type telepathyAuthenticationMethod are removed."},
		"nothing named":    {id: sandbox.DanaID, method: "", refused: dana + " has no method that"},
		"protected":        {id: sandbox.GloriaID, method: "passkey", refused: "Gloria Adeyemi (gloria.adeyemi@fernhill.example) is a protected target."},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p, err := s.plan("remove-method", tt.id, "method", tt.method)
			if tt.refused != "" {
				if _, refused := err.(*approvals.Refusal); !refused || !strings.HasPrefix(err.Error(), tt.refused) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := wordsOf(p.Steps); !slices.Equal(got, []string{tt.step, "List the methods again and check that it is gone"}) {
				t.Errorf("steps %q, want %q", got, tt.step)
			}
			if !methodRef.MatchString(p.Args) || p.Class != approvals.ClassDestroy || p.Assumes[factListed] == "" || !slices.Contains(p.Keeps, "password") {
				t.Errorf("%+v", p)
			}
			warnsOf(t, p, tt.warns, tt.calm)
			masks(t, p, s.user(tt.id))
			// Its reference names it, too, and so does the picker's.
			again, err := s.plan("remove-method", tt.id, "method", p.Args)
			if err != nil || again.Steps[0].Words != tt.step {
				t.Errorf("by its reference: %+v, %v", again.Steps, err)
			}
		})
	}
}

// Everything in the picker can be read back, is planned, and goes; what must
// stay for now says so.
func TestRemovable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		choices, err := s.tenant.Removable(t.Context(), sandbox.DanaID)
		if err != nil {
			t.Fatal(err)
		}
		var words []string
		for _, c := range choices {
			words = append(words, c.Words)
		}
		if len(words) != 14 || words[0] != "Passkey “Security key, top drawer”, YubiKey 5 Series with NFC" || !strings.HasPrefix(words[11], "Temporary Access Pass (valid until") || words[13] != "Reset e-mail d••••@m••••.example" {
			t.Errorf("%q", words)
		}
		masks(t, choices, s.user(sandbox.DanaID))
		if _, err := s.tenant.Removable(t.Context(), sandbox.GloriaID); err == nil || !strings.Contains(err.Error(), "is a protected target") {
			t.Errorf("of a protected target: %v", err)
		}
		if _, err := s.tenant.Removable(t.Context(), "00000000-1111-4222-8333-444444444444"); err != approvals.ErrNoPerson {
			t.Errorf("of nobody: %v", err)
		}

		c := command(t, "remove-method")
		left := choices
		for len(left) > 0 {
			var stay []Choice
			for _, choice := range left {
				in, problems := Parse(c, "<@U1> "+choice.Ref+" lost")
				if got, sentence := c.Args[0].Read(choice.Ref); in.Args[FieldMethod] != choice.Ref || problems != nil || got != choice.Ref || sentence != "" {
					t.Fatalf("%s is read as %q %q, %v", choice.Ref, in.Args, got, problems)
				}
				p, err := s.plan("remove-method", sandbox.DanaID, "method", choice.Ref)
				if err != nil {
					stay = append(stay, choice)
					continue
				}
				before := len(s.user(sandbox.DanaID).Methods)
				r := s.run(approvals.Request{Plan: p, Journal: make([]approvals.JournalEntry, len(p.Steps))})
				if r.Journal[0].State != approvals.StepDone || r.Journal[1].State != approvals.StepDone || len(s.user(sandbox.DanaID).Methods) != before-1 {
					t.Errorf("%s: %+v", choice.Words, r.Journal)
				}
			}
			if len(stay) == len(left) {
				t.Fatalf("these never go: %+v", stay)
			}
			left = stay
		}
		if _, err := s.plan("remove-method", sandbox.DanaID, "method", "phone"); err == nil || !strings.HasPrefix(err.Error(), "There is nothing to remove: Dana Whitfield") {
			t.Errorf("with only the password left: %v", err)
		}
	})
}

// Removing each of two kinds, against everything that can go wrong.
func TestRemoveMethodFaults(t *testing.T) {
	one := 1
	for method, path := range map[string]string{"office phone": "phoneMethods/" + graph.IDOffice, "hardware token": "hardwareOathMethods/"} {
		for name, tt := range map[string]struct {
			fault graph.Fault
			want  approvals.StepState
			gone  bool
			words string
		}{
			"none":                   {want: approvals.StepDone, gone: true},
			"throttled":              {fault: graph.Fault{Kind: graph.FaultThrottle, RetryAfter: &[]int{60}[0], Times: -1}, want: approvals.StepThrottled, words: "asks to wait 1m0s"},
			"throttled for a moment": {fault: graph.Fault{Kind: graph.FaultThrottle, RetryAfter: &one}, want: approvals.StepDone, gone: true},
			"lost request":           {fault: graph.Fault{Kind: graph.FaultDropRequest}, want: approvals.StepDone, gone: true},
			"lost reply":             {fault: graph.Fault{Kind: graph.FaultDropReply}, want: approvals.StepDone, gone: true},
			"applied late":           {fault: graph.Fault{Kind: graph.FaultApplyLate, DelayMS: 100}, want: approvals.StepDone, gone: true},
			"two lost requests":      {fault: graph.Fault{Kind: graph.FaultDropRequest, Times: 2}, want: approvals.StepUncertain, words: "did not say whether it did"},
			"forbidden":              {fault: graph.Fault{Kind: graph.FaultStatus, Status: 403, Code: "accessDenied", Times: -1}, want: approvals.StepFailed, words: "An administrator grants UserAuthMethod-"},
			"the default after all":  {fault: graph.Fault{Kind: graph.FaultStatus, Status: 400, Code: "badRequest", Message: "Cannot delete default method with other methods configured.", Times: -1}, want: approvals.StepFailed, words: "mysignins.microsoft.com"},
		} {
			t.Run(method+"/"+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := newStage(t)
					r := s.request("remove-method", sandbox.DanaID, "method", method)
					id := removals(r.Plan.Steps[0])[0].ID
					if tt.fault.Kind != "" {
						tt.fault.Method, tt.fault.Path = "DELETE", path
						s.faults(tt.fault)
					}
					got := s.work(approvals.JobRun, begin(r, 0), 0)
					if got.State != tt.want || !strings.Contains(got.Detail, tt.words) || s.has(sandbox.DanaID, id) == tt.gone {
						t.Errorf("got %+v, gone: %v", got, !s.has(sandbox.DanaID, id))
					}
				})
			})
		}
	}
}

// A token that is not active is still there: only a deactivation would be
// done with that.
func TestRemoveMethodReconcile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		token := s.request("require-reregister", sandbox.DanaID)
		if got := s.work(approvals.JobRun, begin(token, 0), 0); got.State != approvals.StepDone {
			t.Fatalf("%+v", got)
		}
		r := begin(s.request("remove-method", sandbox.DanaID, "method", "hardware token"), 0)
		id := removals(r.Plan.Steps[0])[0].ID
		look := func() approvals.Result {
			return s.tenant.Work(t.Context(), approvals.Job{Kind: approvals.JobReconcile, Request: r, ReadOnly: true})
		}
		if got := look(); got.State != approvals.StepFailed || !s.has(sandbox.DanaID, id) {
			t.Errorf("halted before the call: %+v", got)
		}
		if got := s.work(approvals.JobReconcile, r, 0); got.State != approvals.StepDone || s.has(sandbox.DanaID, id) {
			t.Errorf("killed before the call: %+v, still there: %v", got, s.has(sandbox.DanaID, id))
		}
		wrote := s.writes()
		if got := s.work(approvals.JobReconcile, r, 0); got.State != approvals.StepDone || s.writes() != wrote {
			t.Errorf("killed behind the call: %+v", got)
		}
		if got := look(); got.State != approvals.StepDone {
			t.Errorf("halted behind the call: %+v", got)
		}

		// A number that took the place of the approved one is spared.
		phone := s.request("remove-method", sandbox.MinaID, "method", "phone")
		s.remove(sandbox.MinaID, graph.IDMobile)
		s.add(sandbox.MinaID, graph.Phone("mobile", "+1 4255550199"))
		if got := s.work(approvals.JobCheck, phone, -1); got.State != approvals.StepFailed || !strings.Contains(got.Detail, "a method was replaced") {
			t.Errorf("the check: %+v", got)
		}
		if got := s.work(approvals.JobReconcile, begin(phone, 0), 0); got.State != approvals.StepDone || !s.has(sandbox.MinaID, graph.IDMobile) {
			t.Errorf("%+v", got)
		}
		s.grantWithout(entra.PermPhoneWrite)
		other := begin(s.request("remove-method", sandbox.MinaID, "method", "phone"), 0)
		if got := s.work(approvals.JobRun, other, 0); got.State != approvals.StepFailed || !strings.Contains(got.Detail, "grants UserAuthMethod-Phone.ReadWrite.All") {
			t.Errorf("without permission: %+v", got)
		}
	})
}

// Where the default method is not known, the plan says so.
func TestRemoveMethodWithGaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.faults(graph.Fault{Path: "signInPreferences", Kind: graph.FaultStatus, Status: 404, Times: -1})
		p, err := s.plan("remove-method", sandbox.HannaID, "method", "authenticator")
		if err != nil {
			t.Fatal(err)
		}
		warnsOf(t, p, []string{"It may be the default method.", "The default method is not known"}, nil)
		r := approvals.Request{Plan: p, Journal: make([]approvals.JournalEntry, len(p.Steps))}
		if got := s.work(approvals.JobRun, begin(r, 0), 0); got.State != approvals.StepFailed || !strings.Contains(got.Detail, "only as the last one") {
			t.Errorf("%+v", got)
		}
		if _, err := s.plan("remove-method", sandbox.DanaID, "method", "nokia"); err == nil || !strings.Contains(err.Error(), "The default method is not known") {
			t.Errorf("%v", err)
		}
	})
}

// A method is named by what it is, not by when it ends: at 09:42 the end of a
// number would also name the pass.
func TestNamesOfAPass(t *testing.T) {
	pass := entra.Method{ID: "1", Kind: entra.KindPass, Usable: true, ValidUntil: time.Date(2026, 12, 1, 9, 42, 0, 0, time.UTC)}
	for typed, want := range map[string]bool{"••42": false, "42": false, "2026": false, "pass": true, "temporary access pass": true, "TAP": true} {
		if got := names(typed, pass); got != want {
			t.Errorf("%q names %s: %v", typed, methodWords(pass), got)
		}
	}
}
