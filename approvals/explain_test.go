package approvals

import (
	"strings"
	"testing"
	"time"
)

func TestExplain(t *testing.T) {
	agent, lead, outsider, dana := accountWith(hanna, helpDesk), accountWith(ravi, helpDesk, approvers), accountWith(sam), accountWith(dana)
	onCall := accountWith(olga, approvers)
	protected := accountWith(gloria)
	protected.Protected = []string{"holds the role Global Administrator"}
	night := accountWith(sam)
	night.SlackGroups = []string{"S0NIGHT"}

	for name, tt := range map[string]struct {
		class      Class
		as, target Account
		change     func(*Policy)
		refused    Code
		want       []string
		not        []string
	}{
		"an ordinary request": {class: ClassDestroy, as: agent, target: dana, want: []string{
			"Hanna Okafor (hanna.okafor@fernhill.example) may ask: in Help desk through the Entra group " + helpDesk + ". [policy.classes.destroy]",
			"It needs 1 approval [policy.classes.destroy], within 30m [default], by members of Identity approvers [policy.classes.destroy] who are neither the requester nor the target.",
			"only containment can",
		}, not: []string{"Refused", "limits"}},
		"the command's own settings": {class: ClassDestroy, as: agent, target: dana, change: func(p *Policy) {
			p.Commands = map[string]Rule{"c": {Approvals: 2, Lifetime: 90 * time.Minute, Require: []string{NeedTicket}, Verified: []string{"video"}}}
			p.Limits = Limits{Requester: Limit{10, time.Hour}, Target: Limit{1, 24 * time.Hour}, Pair: Limit{5, 90 * time.Minute}}
		}, want: []string{
			"needs 2 approvals [policy.commands.c], within 1h30m [policy.commands.c], by members of Identity approvers [policy.classes.destroy] who", "it needs: ticket. [policy.commands.c]",
			"Accepted caller verifications: video. [policy.commands.c]", "10 changes an hour. [policy.limits.requester]", "1 request a day. [policy.limits.target]", "5 approvals in 1h30m between them. [policy.limits.pair]",
		}},
		"somebody who may not": {class: ClassDestroy, as: outsider, target: dana, refused: CodeNotAllowed, want: []string{`Refused (not-allowed). They would be told: "You may not use this command. It is for: Help desk."`}},
		"a protected target":   {class: ClassTakeover, as: agent, target: protected, refused: CodeProtected, want: []string{"may ask", "Refused (protected)", "Global Administrator"}},
		"containing one": {class: ClassContain, as: onCall, target: protected, want: []string{
			"needs 2 approvals", "One approval more, because the target is protected", "before it is approved: the target is protected",
		}},
		"an approver as target": {class: ClassDestroy, as: agent, target: lead, want: []string{"needs 2 approvals", "One approval more, because the target approves such requests."}},
		"break-glass":           {class: ClassContain, as: onCall, target: dana, want: []string{"Olga Lindqvist (olga.lindqvist@fernhill.example) may use break-glass, 3 times an hour: named in On-call engineers."}},
		"not their glass":       {class: ClassContain, as: agent, target: dana, want: []string{"may not use break-glass; members of On-call engineers may"}},
		"a Slack user group": {class: ClassDestroy, as: night, target: dana, change: func(p *Policy) {
			p.Groups["Night shift"] = Group{Slack: []string{"S0NIGHT"}}
			p.Commands = map[string]Rule{"c": {Request: []string{"Night shift"}}}
		}, want: []string{"in Night shift through the Slack user group S0NIGHT. [policy.commands.c]"}},
		"for oneself": {class: ClassDestroy, as: dana, target: dana, change: func(p *Policy) { p.Commands = map[string]Rule{"c": askForSelf(Rule{})} }, want: []string{
			"may ask for their own account, as everybody may. [policy.commands.c]", "by members of Help desk [policy.classes.destroy] who are", "nobody has verified the caller",
		}},
		"for oneself, where the caller is to be verified": {class: ClassDestroy, as: dana, target: dana, change: func(p *Policy) {
			p.Commands = map[string]Rule{"c": askForSelf(Rule{Require: []string{NeedVerified, NeedTicket}, Verified: []string{"video"}})}
		}, want: []string{"it needs: ticket. [policy.commands.c]"}, not: []string{"Accepted caller verifications", "verified, "}},
		"who may ask in two ways": {class: ClassContain, as: outsider, target: dana, refused: CodeNotAllowed, change: func(p *Policy) {
			r := p.Classes[ClassContain]
			r.Request, r.BreakGlass = []string{"Help desk", "On-call engineers"}, []string{"On-call engineers"}
			p.Classes[ClassContain] = r
		}, want: []string{"It is for: Help desk, On-call engineers."}},
		"reading":            {class: ClassRead, as: agent, target: dana, want: []string{"may ask", "answered at once", "5 times a minute"}, not: []string{"approval"}},
		"reading protection": {class: ClassRead, as: agent, target: protected, want: []string{"is protected: the account holds the role Global Administrator. Reading it shows no more than that."}},
	} {
		p := testPolicy()
		if tt.change != nil {
			tt.change(&p)
		}
		lines, no := p.Explain("c", tt.class, tt.as, tt.target)
		text := strings.Join(lines, "\n")
		got := Code("")
		if no != nil {
			got = no.Code
		}
		if got != tt.refused {
			t.Errorf("%s: %q, want %q", name, got, tt.refused)
		}
		for _, part := range tt.want {
			if !strings.Contains(text, part) {
				t.Errorf("%s does not say %q:\n%s", name, part, text)
			}
		}
		for _, part := range tt.not {
			if strings.Contains(text, part) {
				t.Errorf("%s says %q:\n%s", name, part, text)
			}
		}
		for _, bad := range []string{"%!", "  ", "..", "<nil>"} {
			if strings.Contains(text, bad) {
				t.Errorf("%s has %q in it:\n%s", name, bad, text)
			}
		}
	}
}
