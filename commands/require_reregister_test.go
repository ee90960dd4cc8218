package commands

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"countersign/approvals"
	"countersign/sandbox"
	graph "countersign/sandbox/entra"
)

func TestPlanToRemoveEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		usual, err := s.plan("require-reregister", sandbox.DanaID)
		if err != nil {
			t.Fatal(err)
		}
		p, err := s.plan("require-reregister", sandbox.DanaID, "scope", "everything")
		if err != nil {
			t.Fatal(err)
		}
		steps := wordsOf(p.Steps)
		if i := slices.IndexFunc(steps, func(w string) bool { return strings.HasPrefix(w, "Delete Temporary Access Pass (valid until") }); i < 0 {
			t.Fatalf("%q", steps)
		} else {
			steps[i] = "Delete Temporary Access Pass"
		}
		slices.Sort(steps[1:8]) // Graph's order
		want := []string{
			"Deactivate hardware token Feitian OTP c200, serial number …8431",
			"Delete QR code",
			"Delete Temporary Access Pass",
			"Delete Windows Hello on “FH-LT-0417”",
			"Delete external method “Turnstile badge reader”",
			"Delete passkey “Security key, top drawer”, YubiKey 5 Series with NFC",
			"Delete platform credential on “Dana’s MacBook Air”, macOS",
			"Delete reset e-mail d••••@m••••.example",
			"Delete phone +1 •••• ••87 (alternate mobile)",
			"Delete phone +1 •••• ••00 (office)",
			"Delete phone +1 •••• ••42 (mobile)",
			"Delete software token",
			"Delete Microsoft Authenticator on “Dana’s iPhone 15” and Microsoft Authenticator on “iPad Air” (one of them is the default method and goes last)",
			"Revoke all sessions",
			"List the methods again and check that these are gone",
		}
		if !slices.Equal(steps, want) {
			t.Errorf("steps\n%s\nwant\n%s", strings.Join(steps, "\n"), strings.Join(want, "\n"))
		}
		if !slices.Equal(p.Keeps, []string{"password", "app passwords, if there are any (Graph does not show them)"}) {
			t.Errorf("keeps %q", p.Keeps)
		}
		if p.Title == usual.Title || p.Title != "Remove EVERY method" || p.Args != "everything" || usual.Args != "" ||
			!strings.HasPrefix(p.Warnings[0], "EVERYTHING goes, not only what the Entra admin center removes: also passkey") || strings.HasPrefix(usual.Warnings[0], "EVERYTHING") {
			t.Errorf("%q %q %q", p.Title, p.Args, p.Warnings)
		}
		for _, part := range []string{"may be locked out until somebody issues a Temporary Access Pass", "No MFA method is left afterwards"} {
			if !strings.Contains(strings.Join(p.Warnings, "\n"), part) {
				t.Errorf("no warning %q in %q", part, p.Warnings)
			}
		}
		masks(t, p, s.user(sandbox.DanaID))
	})
}

func TestRemoveEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.add(sandbox.DanaID, graph.Method{Type: "#microsoft.graph.telepathyAuthenticationMethod", ID: "t1"})
		r := s.request("require-reregister", sandbox.DanaID, "scope", "everything")
		if !strings.Contains(strings.Join(r.Plan.Warnings, "\n"), "does not know “telepathyAuthenticationMethod” and cannot remove it") {
			t.Errorf("%q", r.Plan.Warnings)
		}
		r = s.run(r)
		for i, e := range r.Journal {
			if e.State != approvals.StepDone || e.Detail != "" {
				t.Errorf("%s: %+v", r.Plan.Steps[i].Words, e)
			}
		}
		var left []string
		for _, m := range s.user(sandbox.DanaID).Methods {
			left = append(left, m.Type)
		}
		slices.Sort(left)
		if want := []string{graph.TypeHardwareOATH, graph.TypePassword, "#microsoft.graph.telepathyAuthenticationMethod"}; !slices.Equal(left, want) {
			t.Errorf("left %q", left)
		}
		if _, err := s.plan("require-reregister", sandbox.DanaID, "scope", "everything"); !strings.Contains(fmt.Sprint(err), "has no method that Countersign could delete") {
			t.Errorf("a second time: %v", err)
		}
	})
}

func TestParseEverything(t *testing.T) {
	c := command(t, "require-reregister")
	for text, want := range map[string]string{"<@U1> everything stolen bag": "everything", "<@U1> Everything verified=video": "everything", "<@U1> scope=everything": "everything",
		"<@U1> everyting": "", "<@U1> lost everything": "", `<@U1> why="everything was stolen"`: ""} {
		if in, problems := Parse(c, text); in.Args[FieldScope] != want || len(problems) > 0 {
			t.Errorf("%q is read as %v, %v", text, show(in), problems)
		}
	}
}

// The methods that only everything deletes, each against the faults that
// matter most.
func TestFaultsOfEverything(t *testing.T) {
	for path, kind := range map[string]string{"fido2Methods": graph.TypePasskey, "windowsHelloForBusinessMethods": graph.TypeWindowsHello, "platformCredentialMethods": graph.TypePlatformCredential,
		"externalAuthenticationMethods": graph.TypeExternal, "qrCodePinMethod": graph.TypeQRCodePIN, "temporaryAccessPassMethods": graph.TypePass, "emailMethods": graph.TypeEmail} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				r := s.request("require-reregister", sandbox.DanaID, "scope", "everything")
				id := s.user(sandbox.DanaID).OfType(kind)[0].ID
				i := slices.IndexFunc(r.Plan.Steps, func(step approvals.Step) bool { return strings.Contains(step.Args["methods"], `"`+id+`"`) })
				if i < 0 {
					t.Fatalf("no step deletes %s", id)
				}
				sixty := 60
				for _, fault := range []struct {
					fault graph.Fault
					want  approvals.StepState
					gone  bool
				}{
					{graph.Fault{Kind: graph.FaultThrottle, RetryAfter: &sixty}, approvals.StepThrottled, false},
					{graph.Fault{Kind: graph.FaultStatus, Status: 403, Code: "accessDenied"}, approvals.StepFailed, false},
					{graph.Fault{Kind: graph.FaultDropRequest, Times: 2}, approvals.StepUncertain, false},
					{graph.Fault{Kind: graph.FaultDropReply}, approvals.StepDone, true},
				} {
					fault.fault.Method, fault.fault.Path = "DELETE", path
					s.faults(fault.fault)
					if got := s.work(approvals.JobRun, begin(r, i), i); got.State != fault.want || s.has(sandbox.DanaID, id) == fault.gone {
						t.Errorf("%s: %+v", fault.fault.Kind, got)
					}
				}
				s.faults()
				if got := s.work(approvals.JobReconcile, begin(r, i), i); got.State != approvals.StepDone {
					t.Errorf("killed behind the call: %+v", got)
				}
			})
		})
	}
}
