package audit

import (
	"strings"
	"testing"
)

var (
	hanna = Person{ID: "3f0f6b0e-5a1c-4b0e-9a63-0d7c1f2e9b11", UPN: "hanna.okafor@fernhill.example", Name: "Hanna Okafor", Slack: "U0HANNA"}
	ravi  = Person{ID: "9d2a4c77-1e0b-4a4e-8b57-6a1f7c3d5e22", UPN: "ravi.menon@fernhill.example", Name: "Ravi Menon", Slack: "U0RAVI"}
	olga  = Person{ID: "c1e8d9f4-77a2-4d39-b0a5-2f9b8e6a4c33", UPN: "olga.lindqvist@fernhill.example", Name: "Olga Lindqvist", Slack: "U0OLGA"}
	dana  = Person{ID: "5b7e21aa-0c4d-4f6b-9e18-7d3a9c0b1f44", UPN: "dana.whitfield@fernhill.example", Name: "Dana Whitfield"}
)

// Each line is to be read aloud: that is the test of it.
func TestLine(t *testing.T) {
	request := func(kind Kind, actor Person, change func(*Event)) Event {
		e := Event{
			ID: "1795436000000-0", Kind: kind, Request: "R-7KQ2", Title: "Require re-registration",
			Actor: actor, Requester: hanna, Target: dana,
			Justification: "lost phone", Ticket: "INC-7", Verified: "callback", Needed: 1,
		}
		if change != nil {
			change(&e)
		}
		return e
	}
	tests := map[string]struct {
		event Event
		want  string
	}{
		"read": {
			Event{Kind: Read, Actor: hanna, Requester: hanna, Target: dana, Title: "authentication methods"},
			"Hanna Okafor (hanna.okafor@fernhill.example) looked at: authentication methods for Dana Whitfield (dana.whitfield@fernhill.example)",
		},
		"read the desk": {
			Event{Kind: Read, Actor: hanna, Title: "pending requests"},
			"Hanna Okafor (hanna.okafor@fernhill.example) looked at: pending requests",
		},
		"refused a command": {
			Event{Kind: Refused, Actor: dana, Command: "entra-methods", Target: hanna, Reason: "Only the help desk may do this."},
			"Dana Whitfield (dana.whitfield@fernhill.example) was refused: entra-methods for Hanna Okafor (hanna.okafor@fernhill.example) · told: “Only the help desk may do this.”",
		},
		"refused a press": {
			request(Refused, dana, func(e *Event) {
				e.Outcome, e.Reason = "approve", "R-7KQ2 would change your own account, so you cannot decide about it."
			}),
			"Dana Whitfield (dana.whitfield@fernhill.example) tried to approve and was refused: Require re-registration for Dana Whitfield (dana.whitfield@fernhill.example) · told: “R-7KQ2 would change your own account, so you cannot decide about it.” · requested by Hanna Okafor (hanna.okafor@fernhill.example) · justification: “lost phone” · ticket INC-7 · caller verification: callback · R-7KQ2",
		},
		"refused somebody unknown": {
			Event{Kind: Refused, Actor: Person{Slack: "U0PAT"}, Requester: Person{Slack: "U0PAT"}, Reason: "Guests cannot use Countersign."},
			"Slack user U0PAT was refused: something · told: “Guests cannot use Countersign.”",
		},
		"requested": {
			request(Requested, hanna, nil),
			"Hanna Okafor (hanna.okafor@fernhill.example) requested: Require re-registration for Dana Whitfield (dana.whitfield@fernhill.example) · needs 1 approval · justification: “lost phone” · ticket INC-7 · caller verification: callback · R-7KQ2",
		},
		"requested for oneself, two approvals": {
			request(Requested, hanna, func(e *Event) { e.Target, e.Needed, e.Ticket, e.Verified = hanna, 2, "", "" }),
			"Hanna Okafor (hanna.okafor@fernhill.example) requested: Require re-registration for Hanna Okafor (hanna.okafor@fernhill.example) · needs 2 approvals · justification: “lost phone” · R-7KQ2",
		},
		"approved": {
			request(Approved, ravi, func(e *Event) { e.Outcome, e.Approvers = "approved", []Person{ravi} }),
			"Ravi Menon (ravi.menon@fernhill.example) approved (1 of 1): Require re-registration for Dana Whitfield (dana.whitfield@fernhill.example) · requested by Hanna Okafor (hanna.okafor@fernhill.example) · justification: “lost phone” · ticket INC-7 · caller verification: callback · R-7KQ2",
		},
		"approved, not enough": {
			request(Approved, ravi, func(e *Event) { e.Outcome, e.Needed, e.Approvers = "pending", 2, []Person{ravi} }),
			"Ravi Menon (ravi.menon@fernhill.example) approved (1 of 2, 1 more needed): Require re-registration for Dana Whitfield (dana.whitfield@fernhill.example) · requested by Hanna Okafor (hanna.okafor@fernhill.example) · justification: “lost phone” · ticket INC-7 · caller verification: callback · R-7KQ2",
		},
		"approved as the second": {
			request(Approved, olga, func(e *Event) { e.Outcome, e.Needed, e.Approvers = "approved", 2, []Person{ravi, olga} }),
			"Olga Lindqvist (olga.lindqvist@fernhill.example) approved (2 of 2): Require re-registration for Dana Whitfield (dana.whitfield@fernhill.example) · requested by Hanna Okafor (hanna.okafor@fernhill.example) · approved before by Ravi Menon (ravi.menon@fernhill.example) · justification: “lost phone” · ticket INC-7 · caller verification: callback · R-7KQ2",
		},
		"denied": {
			request(Denied, ravi, func(e *Event) { e.Reason = "Dana is at her desk and knows nothing of it." }),
			"Ravi Menon (ravi.menon@fernhill.example) denied: Require re-registration for Dana Whitfield (dana.whitfield@fernhill.example) · reason: “Dana is at her desk and knows nothing of it.” · requested by Hanna Okafor (hanna.okafor@fernhill.example) · justification: “lost phone” · ticket INC-7 · caller verification: callback · R-7KQ2",
		},
		"cancelled": {
			request(Cancelled, hanna, nil),
			"Hanna Okafor (hanna.okafor@fernhill.example) cancelled: Require re-registration for Dana Whitfield (dana.whitfield@fernhill.example) · justification: “lost phone” · ticket INC-7 · caller verification: callback · R-7KQ2",
		},
		"expired": {
			request(Expired, Person{}, func(e *Event) { e.Reason = "Nobody decided in time." }),
			"Expired, nothing was done: Require re-registration for Dana Whitfield (dana.whitfield@fernhill.example) · Nobody decided in time. · requested by Hanna Okafor (hanna.okafor@fernhill.example) · justification: “lost phone” · ticket INC-7 · caller verification: callback · R-7KQ2",
		},
		"started": {
			request(Started, Person{}, func(e *Event) { e.Approvers = []Person{ravi, olga} }),
			"Started: Require re-registration for Dana Whitfield (dana.whitfield@fernhill.example) · requested by Hanna Okafor (hanna.okafor@fernhill.example) · approved by Ravi Menon (ravi.menon@fernhill.example) and Olga Lindqvist (olga.lindqvist@fernhill.example) · justification: “lost phone” · ticket INC-7 · caller verification: callback · R-7KQ2",
		},
		"stepped": {
			Event{Kind: StepEnded, Request: "R-7KQ2", Title: "Require re-registration", Target: dana,
				Steps: []Step{{Words: "Delete the mobile phone +1 •••• 34", State: "failed", Detail: "Graph refused it.", RequestID: "8a0c"}}},
			"One step of Require re-registration for Dana Whitfield (dana.whitfield@fernhill.example): Delete the mobile phone +1 •••• 34: failed (Graph refused it) [Graph request-id 8a0c] · R-7KQ2",
		},
		"waiting": {
			request(Waiting, Person{}, func(e *Event) {
				e.Reason, e.Approvers = "Microsoft Graph asked to wait 30 seconds.", []Person{ravi}
				e.Justification, e.Ticket, e.Verified = "", "", ""
			}),
			"Microsoft Graph asked to wait, to be continued: Require re-registration for Dana Whitfield (dana.whitfield@fernhill.example) · Microsoft Graph asked to wait 30 seconds. · requested by Hanna Okafor (hanna.okafor@fernhill.example) · approved by Ravi Menon (ravi.menon@fernhill.example) · R-7KQ2",
		},
		"halted": {
			request(Halted, dana, func(e *Event) { e.Reason, e.Approvers = "This was not me!", []Person{ravi} }),
			"Dana Whitfield (dana.whitfield@fernhill.example) halted: Require re-registration for Dana Whitfield (dana.whitfield@fernhill.example) · reason: “This was not me!” · requested by Hanna Okafor (hanna.okafor@fernhill.example) · approved by Ravi Menon (ravi.menon@fernhill.example) · justification: “lost phone” · ticket INC-7 · caller verification: callback · R-7KQ2",
		},
		"succeeded": {
			request(Finished, Person{}, func(e *Event) {
				e.Outcome, e.Approvers = "succeeded", []Person{ravi}
				e.Steps = []Step{
					{Words: "Delete the mobile phone +1 •••• 34", State: "already so"},
					{Words: "Revoke all sign-in sessions", State: "done", RequestID: "b117"},
				}
			}),
			"Succeeded: Require re-registration for Dana Whitfield (dana.whitfield@fernhill.example) · 1 of 2 steps done, 1 already so · requested by Hanna Okafor (hanna.okafor@fernhill.example) · approved by Ravi Menon (ravi.menon@fernhill.example) · justification: “lost phone” · ticket INC-7 · caller verification: callback · 1. Delete the mobile phone +1 •••• 34: already so · 2. Revoke all sign-in sessions: done [Graph request-id b117] · R-7KQ2",
		},
		"partial": {
			request(Finished, Person{}, func(e *Event) {
				e.Outcome, e.Approvers = "partial", []Person{ravi}
				e.Reason = "Stopped after a step that failed."
				e.Steps = []Step{
					{Words: "Delete the mobile phone +1 •••• 34", State: "done", RequestID: "8a0c"},
					{Words: "Delete the Authenticator app Pixel 9", State: "failed", Detail: "It is the default method and cannot be deleted while others remain.", RequestID: "b117"},
					{Words: "Revoke all sign-in sessions", State: "skipped"},
				}
			}),
			"Only partly done: Require re-registration for Dana Whitfield (dana.whitfield@fernhill.example) · 1 of 3 steps done, 1 failed, 1 skipped · Stopped after a step that failed. · requested by Hanna Okafor (hanna.okafor@fernhill.example) · approved by Ravi Menon (ravi.menon@fernhill.example) · justification: “lost phone” · ticket INC-7 · caller verification: callback · 1. Delete the mobile phone +1 •••• 34: done [Graph request-id 8a0c] · 2. Delete the Authenticator app Pixel 9: failed (It is the default method and cannot be deleted while others remain) [Graph request-id b117] · 3. Revoke all sign-in sessions: skipped · R-7KQ2",
		},
		"failed before the first step": {
			request(Finished, Person{}, func(e *Event) {
				e.Title, e.Outcome, e.Approvers = "Revoke sessions", "failed", []Person{ravi}
				e.Reason = "Dana Whitfield became a protected target after the plan was approved."
				e.Steps = []Step{{Words: "Revoke all sign-in sessions", State: "skipped"}}
			}),
			"Failed: Revoke sessions for Dana Whitfield (dana.whitfield@fernhill.example) · no step was done, 1 skipped · Dana Whitfield became a protected target after the plan was approved. · requested by Hanna Okafor (hanna.okafor@fernhill.example) · approved by Ravi Menon (ravi.menon@fernhill.example) · justification: “lost phone” · ticket INC-7 · caller verification: callback · 1. Revoke all sign-in sessions: skipped · R-7KQ2",
		},
		"uncertain": {
			request(Finished, Person{}, func(e *Event) {
				e.Title, e.Outcome, e.Approvers = "Reset password", "uncertain", []Person{ravi}
				e.Steps = []Step{{Words: "Set a temporary password", State: "uncertain", Detail: "Graph gave no answer"}}
			}),
			"Uncertain, somebody has to look at the account: Reset password for Dana Whitfield (dana.whitfield@fernhill.example) · no step is known to be done, 1 uncertain · requested by Hanna Okafor (hanna.okafor@fernhill.example) · approved by Ravi Menon (ravi.menon@fernhill.example) · justification: “lost phone” · ticket INC-7 · caller verification: callback · 1. Set a temporary password: uncertain (Graph gave no answer) · R-7KQ2",
		},
		"handed off": {
			request(HandedOff, Person{}, func(e *Event) {
				e.Title, e.Approvers = "Delete app passwords", []Person{ravi}
				e.Steps = []Step{
					{Words: "Revoke all sign-in sessions", State: "done", RequestID: "b117"},
					{Words: "Delete the app passwords in the Entra admin center", State: "handed-off"},
				}
			}),
			"Handed over to people, because Microsoft Graph cannot do it: Delete app passwords for Dana Whitfield (dana.whitfield@fernhill.example) · requested by Hanna Okafor (hanna.okafor@fernhill.example) · approved by Ravi Menon (ravi.menon@fernhill.example) · justification: “lost phone” · ticket INC-7 · caller verification: callback · 1. Revoke all sign-in sessions: done [Graph request-id b117] · 2. Delete the app passwords in the Entra admin center: handed-off · R-7KQ2",
		},
		"reminded": {
			request(Reminded, Person{}, func(e *Event) {
				e.Title, e.Approvers, e.Reason = "Delete app passwords", []Person{ravi}, "It is waiting for somebody to do it by hand."
			}),
			"Reminder: Delete app passwords for Dana Whitfield (dana.whitfield@fernhill.example) · It is waiting for somebody to do it by hand. · requested by Hanna Okafor (hanna.okafor@fernhill.example) · approved by Ravi Menon (ravi.menon@fernhill.example) · justification: “lost phone” · ticket INC-7 · caller verification: callback · R-7KQ2",
		},
		"attested": {
			request(Attested, ravi, func(e *Event) { e.Title, e.Approvers = "Delete app passwords", []Person{ravi} }),
			"Ravi Menon (ravi.menon@fernhill.example) says that it was done by hand: Delete app passwords for Dana Whitfield (dana.whitfield@fernhill.example) · requested by Hanna Okafor (hanna.okafor@fernhill.example) · approved by Ravi Menon (ravi.menon@fernhill.example) · justification: “lost phone” · ticket INC-7 · caller verification: callback · R-7KQ2",
		},
		"confirmed": {
			request(Confirmed, olga, func(e *Event) { e.Title, e.Approvers = "Delete app passwords", []Person{ravi} }),
			"Olga Lindqvist (olga.lindqvist@fernhill.example) confirms that it was done by hand: Delete app passwords for Dana Whitfield (dana.whitfield@fernhill.example) · requested by Hanna Okafor (hanna.okafor@fernhill.example) · approved by Ravi Menon (ravi.menon@fernhill.example) · justification: “lost phone” · ticket INC-7 · caller verification: callback · R-7KQ2",
		},
		"refused to attest": {
			request(Refused, dana, func(e *Event) {
				e.Title, e.Outcome, e.Reason = "Delete app passwords", "report it as done", "R-7KQ2 is about your own account, so you cannot decide about it."
			}),
			"Dana Whitfield (dana.whitfield@fernhill.example) tried to report it as done and was refused: Delete app passwords for Dana Whitfield (dana.whitfield@fernhill.example) · told: “R-7KQ2 is about your own account, so you cannot decide about it.” · requested by Hanna Okafor (hanna.okafor@fernhill.example) · justification: “lost phone” · ticket INC-7 · caller verification: callback · R-7KQ2",
		},
		"finished by people": {
			request(Finished, Person{}, func(e *Event) {
				e.Title, e.Outcome, e.Approvers = "Delete app passwords", "attested", []Person{ravi}
				e.Steps = []Step{{Words: "Delete the app passwords in the Entra admin center", State: "attested", Detail: "Done by Ravi and confirmed by Olga, by their own word."}}
			}),
			"Attested by people, not executed by Countersign: Delete app passwords for Dana Whitfield (dana.whitfield@fernhill.example) · no step was executed, 1 attested · requested by Hanna Okafor (hanna.okafor@fernhill.example) · approved by Ravi Menon (ravi.menon@fernhill.example) · justification: “lost phone” · ticket INC-7 · caller verification: callback · 1. Delete the app passwords in the Entra admin center: attested (Done by Ravi and confirmed by Olga, by their own word) · R-7KQ2",
		},
		"finished by Countersign and people": {
			request(Finished, Person{}, func(e *Event) {
				e.Title, e.Outcome, e.Approvers = "Delete app passwords", "attested", []Person{ravi}
				e.Steps = []Step{
					{Words: "Revoke all sign-in sessions", State: "done", RequestID: "b117"},
					{Words: "Delete the app passwords in the Entra admin center", State: "attested"},
				}
			}),
			"Executed by Countersign but for the last step, which people attest: Delete app passwords for Dana Whitfield (dana.whitfield@fernhill.example) · 1 of 2 steps done, 1 attested · requested by Hanna Okafor (hanna.okafor@fernhill.example) · approved by Ravi Menon (ravi.menon@fernhill.example) · justification: “lost phone” · ticket INC-7 · caller verification: callback · 1. Revoke all sign-in sessions: done [Graph request-id b117] · 2. Delete the app passwords in the Entra admin center: attested · R-7KQ2",
		},
		"a hand-off taken back": {
			request(Cancelled, hanna, func(e *Event) {
				e.Title = "Delete app passwords"
				e.Steps = []Step{
					{Words: "Revoke all sign-in sessions", State: "done", RequestID: "b117"},
					{Words: "Delete the app passwords in the Entra admin center", State: "skipped"},
				}
			}),
			"Hanna Okafor (hanna.okafor@fernhill.example) cancelled: Delete app passwords for Dana Whitfield (dana.whitfield@fernhill.example) · justification: “lost phone” · ticket INC-7 · caller verification: callback · 1. Revoke all sign-in sessions: done [Graph request-id b117] · 2. Delete the app passwords in the Entra admin center: skipped · R-7KQ2",
		},
		"revealed": {
			request(Revealed, hanna, func(e *Event) { e.Title, e.Approvers = "Reset password", []Person{ravi} }),
			"Hanna Okafor (hanna.okafor@fernhill.example) opened the secret: Reset password for Dana Whitfield (dana.whitfield@fernhill.example) · approved by Ravi Menon (ravi.menon@fernhill.example) · justification: “lost phone” · ticket INC-7 · caller verification: callback · R-7KQ2",
		},
		"refused to reveal": {
			request(Refused, ravi, func(e *Event) {
				e.Title, e.Outcome, e.Reason = "Reset password", "open the secret", "Only Hanna can open this."
			}),
			"Ravi Menon (ravi.menon@fernhill.example) tried to open the secret and was refused: Reset password for Dana Whitfield (dana.whitfield@fernhill.example) · told: “Only Hanna can open this.” · requested by Hanna Okafor (hanna.okafor@fernhill.example) · justification: “lost phone” · ticket INC-7 · caller verification: callback · R-7KQ2",
		},
		"unseen": {
			request(Unseen, Person{}, func(e *Event) { e.Title, e.Approvers = "Reset password", []Person{ravi} }),
			"The secret was not opened in time and is gone: Reset password for Dana Whitfield (dana.whitfield@fernhill.example) · requested by Hanna Okafor (hanna.okafor@fernhill.example) · approved by Ravi Menon (ravi.menon@fernhill.example) · justification: “lost phone” · ticket INC-7 · caller verification: callback · R-7KQ2",
		},
		"opened, and perhaps not seen": {
			request(Unseen, Person{}, func(e *Event) {
				e.Title, e.Approvers, e.Outcome = "Reset password", []Person{ravi}, "opened"
			}),
			"The secret was opened, is not known to have been seen, and is gone: Reset password for Dana Whitfield (dana.whitfield@fernhill.example) · requested by Hanna Okafor (hanna.okafor@fernhill.example) · approved by Ravi Menon (ravi.menon@fernhill.example) · justification: “lost phone” · ticket INC-7 · caller verification: callback · R-7KQ2",
		},
		"alarm": {
			Event{Kind: Alarm, Actor: ravi, Reason: "The Slack account U0OTHER says it is this person, who is pinned to U0RAVI."},
			"Alarm about Ravi Menon (ravi.menon@fernhill.example): The Slack account U0OTHER says it is this person, who is pinned to U0RAVI.",
		},
		"alarm about nobody": {
			Event{Kind: Alarm, Reason: "This Redis has lost writes that it had confirmed."},
			"Alarm: This Redis has lost writes that it had confirmed.",
		},
		"break-glass": {
			Event{Kind: UsedBreakGlass, Title: "Block sign-in", Target: dana, Actor: hanna, Requester: hanna, BreakGlass: hanna, Reason: "an intruder reads her mail"},
			"Hanna Okafor (hanna.okafor@fernhill.example) used break-glass, so that it runs before it is approved: Block sign-in for Dana Whitfield (dana.whitfield@fernhill.example) · reason: “an intruder reads her mail”",
		},
		"a review": {
			Event{Kind: Reviewed, Title: "Block sign-in", Target: dana, Actor: ravi, Requester: hanna, BreakGlass: hanna, Outcome: "not justified", Reason: "she was on a train"},
			"Ravi Menon (ravi.menon@fernhill.example) reviewed what ran with break-glass and found it not justified: Block sign-in for Dana Whitfield (dana.whitfield@fernhill.example) · remark: “she was on a train” · requested by Hanna Okafor (hanna.okafor@fernhill.example) · break-glass used by Hanna Okafor (hanna.okafor@fernhill.example)",
		},
		"a kind of a later version": {
			Event{Kind: "escalated", Title: "Block sign-in", Target: dana},
			"escalated: Block sign-in for Dana Whitfield (dana.whitfield@fernhill.example)",
		},
	}
	seen := make(map[Kind]bool)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.event.Line(); got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
		})
		seen[tt.event.Kind] = true
	}
	for _, kind := range []Kind{Read, Refused, Requested, Approved, Denied, Cancelled, Expired, Started, StepEnded, Waiting, Halted, Finished, HandedOff, Attested, Confirmed, Reminded, Revealed, Unseen, Alarm, UsedBreakGlass, Reviewed} {
		if !seen[kind] {
			t.Errorf("no line for an event of the kind %q", kind)
		}
	}
}

// What people write cannot forge what Countersign says.
func TestLineIsNotForged(t *testing.T) {
	e := Event{
		Kind: Requested, Request: "R-7KQ2", Title: "Reset password", Actor: hanna, Requester: hanna,
		Target: Person{ID: "x", Name: "Dana\nWhitfield · approved by Gloria Adeyemi", UPN: "dana@fernhill.example"},
		Ticket: "INC-7 · approved by Gloria",
		Justification: "lost” · approved by Gloria Adeyemi · “phone\u202e\x1b[2K\r\n" +
			"Succeeded: everything",
	}
	got := e.Line()
	want := `Hanna Okafor (hanna.okafor@fernhill.example) requested: Reset password for Dana Whitfield - approved by Gloria Adeyemi (dana@fernhill.example) · justification: “lost" - approved by Gloria Adeyemi - "phone [2K Succeeded: everything” · ticket INC-7 - approved by Gloria · R-7KQ2`
	if got != want {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
	if parts := strings.Split(got, " · "); len(parts) != 4 {
		t.Errorf("the line has %d parts instead of 4: %q", len(parts), parts)
	}
}

func TestPersonString(t *testing.T) {
	for _, tt := range []struct {
		person Person
		want   string
	}{
		{dana, "Dana Whitfield (dana.whitfield@fernhill.example)"},
		{Person{UPN: "dana@fernhill.example", Slack: "U0DANA"}, "dana@fernhill.example"},
		{Person{Name: "Dana Whitfield", ID: "5b7e"}, "Dana Whitfield"},
		{Person{Slack: "U0DANA", ID: "5b7e"}, "Slack user U0DANA"},
		{Person{ID: "5b7e"}, "account 5b7e"},
		{Person{}, "nobody"},
	} {
		if got := tt.person.String(); got != tt.want {
			t.Errorf("%#v is %q, want %q", tt.person, got, tt.want)
		}
	}
}
