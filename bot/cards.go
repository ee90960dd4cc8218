package bot

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/slack-go/slack"

	"countersign/approvals"
	"countersign/commands"
)

// card is a request as it now is: for the approvers with Approve and Deny,
// otherwise for the requester with Cancel, and without buttons when there is
// nothing left to press.
func (b *Bot) card(r approvals.Request, buttons bool) []slack.Block {
	blocks := []slack.Block{header(fmt.Sprintf("%s %s: %s", stateIcon(r), r.Plan.Title, headline(r)))}
	facts := []line{
		line{}.bold("For ").who(r.Plan.Target),
		line{}.bold("Requested by ").who(r.Requester),
	}
	if r.Verified != "" {
		facts = append(facts, line{}.bold("Caller verified: ").say("%s", verifiedWords(r)))
	}
	if r.Justification != "" {
		facts = append(facts, line{}.bold("Why: ").say("%s", r.Justification))
	}
	if r.Ticket != "" {
		facts = append(facts, line{}.bold("Ticket: ").say("%s", r.Ticket))
	}
	for _, d := range r.Approvals {
		facts = append(facts, line{}.bold("Approved by ").who(d.By).gap(", ").when(d.At))
	}
	if r.Denial != nil {
		l := line{}.bold("Denied by ").who(r.Denial.By).gap(", ").when(r.Denial.At)
		if r.Denial.Reason != "" {
			l = l.say(": %s", r.Denial.Reason)
		}
		facts = append(facts, l)
	}
	if r.Why != "" {
		facts = append(facts, line{}.bold("What happened: ").say("%s", r.Why))
	}
	blocks = append(blocks, paragraphs(facts...))

	heading := "What will happen"
	if r.State.Final() {
		heading = "What was to happen"
		if r.State == approvals.Done {
			heading = "What happened"
		}
	}
	steps := make([]line, len(r.Plan.Steps))
	for i, s := range r.Plan.Steps {
		steps[i] = say("%s", s.Words)
		if i < len(r.Journal) && r.Journal[i].State != approvals.StepWaiting {
			e := r.Journal[i]
			steps[i] = say("%s %s", stepIcon(e.State), s.Words)
			if e.State != approvals.StepDone {
				steps[i] = steps[i].say(": %s", e.State)
			}
			if e.Detail != "" {
				steps[i] = steps[i].say(". %s", e.Detail)
			}
			if e.RequestID != "" && e.State != approvals.StepDone && e.State != approvals.StepAlready {
				steps[i] = steps[i].say(" Graph request-id %s.", e.RequestID)
			}
		} else if i < len(r.Journal) && r.Journal[i].Detail != "" {
			steps[i] = steps[i].say(" (%s)", r.Journal[i].Detail)
		}
	}
	blocks = append(blocks, list(heading, slack.RTEListOrdered, steps))
	if len(r.Plan.Keeps) > 0 {
		blocks = append(blocks, small("Stays as it is: %s.", strings.Join(r.Plan.Keeps, "; ")))
	}
	if !r.State.Final() {
		for _, w := range append(r.Plan.Warnings, r.Terms.Why...) {
			blocks = append(blocks, small("⚠️ %s", w))
		}
	}
	foot := line{}.code(r.ID)
	switch r.State {
	case approvals.Pending:
		foot = foot.say(" · %d of %d approvals · expires ", len(r.Approvals), r.Terms.Approvals).when(r.Deadline)
	case approvals.Running:
		if !r.NotBefore.IsZero() {
			foot = foot.gap(" · Microsoft Graph asked to wait until ").when(r.NotBefore)
		}
	default:
		if !r.Ended.IsZero() {
			foot = foot.gap(" · ended ").when(r.Ended)
		}
	}
	blocks = append(blocks, paragraphs(foot))
	if buttons && r.State == approvals.Pending {
		approve := button(pressApprove, r.ID, "Approve", slack.StylePrimary)
		approve.Confirm = slack.NewConfirmationBlockObject(plain("Approve?", 100), plain(confirmation(r), maxConfirm), plain("Approve", 30), plain("Back", 30))
		blocks = append(blocks, slack.NewActionBlock("decide", approve,
			button(pressDeny, r.ID, "Deny", slack.StyleDanger), button(pressDetails, r.ID, "Details", slack.StyleDefault)))
	}
	if buttons && r.State == approvals.Running {
		blocks = append(blocks, slack.NewActionBlock("decide",
			button(pressHalt, r.ID, "Halt", slack.StyleDanger), button(pressDetails, r.ID, "Details", slack.StyleDefault)))
	}
	return blocks
}

// confirmation is what the approver reads last. Phones fold cards, so it says
// everything again that a yes stands for.
func confirmation(r approvals.Request) string {
	text := fmt.Sprintf("%s for %s.", r.Plan.Title, r.Plan.Target.UPN)
	if r.Verified != "" {
		text += " Caller verified: " + r.Verified + "."
	}
	return text + fmt.Sprintf(" Requested by %s. You vouch for this with your name.", r.Requester.UPN)
}

// receipt is the requester's copy of a request.
func (b *Bot) receipt(r approvals.Request) []slack.Block {
	blocks := b.card(r, false)
	if r.State == approvals.Pending || r.State == approvals.Approved {
		blocks = append(blocks, slack.NewActionBlock("withdraw", button(pressCancel, r.ID, "Cancel the request", slack.StyleDefault)))
	}
	return blocks
}

// headline is the state in a few words, for the top of a card.
func headline(r approvals.Request) string {
	switch r.State {
	case approvals.Pending:
		return "waiting for approval"
	case approvals.Approved:
		return "approved"
	case approvals.Running:
		if !r.NotBefore.IsZero() {
			return "running, waiting for Microsoft Graph"
		}
		return "running"
	case approvals.Done:
		switch r.Outcome {
		case approvals.Succeeded:
			return "done"
		case approvals.Partial:
			return "only partly done"
		case approvals.Uncertain:
			return "uncertain, somebody has to look"
		}
		return "failed"
	}
	return string(r.State)
}

func stateIcon(r approvals.Request) string {
	switch r.State {
	case approvals.Pending:
		return "⏳"
	case approvals.Approved, approvals.Running:
		return "▶️"
	case approvals.Done:
		switch r.Outcome {
		case approvals.Succeeded:
			return "✅"
		case approvals.Partial:
			return "⚠️"
		case approvals.Uncertain:
			return "❓"
		}
		return "❌"
	case approvals.Denied:
		return "⛔"
	}
	return "⌛"
}

func stepIcon(s approvals.StepState) string {
	switch s {
	case approvals.StepDone, approvals.StepAlready:
		return "✅"
	case approvals.StepFailed:
		return "❌"
	case approvals.StepUncertain:
		return "❓"
	case approvals.StepSkipped:
		return "➖"
	}
	return "⏳"
}

// verifiedWords says how the caller was verified as the requester chose it.
func verifiedWords(r approvals.Request) string {
	c, _ := commands.Lookup(r.Plan.Command)
	for _, v := range commands.Verifications(c) {
		if v.Value == r.Verified {
			return v.Words
		}
	}
	return r.Verified
}

// profileBlocks is the methods card.
func profileBlocks(p commands.Profile) []slack.Block {
	who := p.Person.Name
	if who == "" {
		who = p.Person.UPN
	}
	blocks := []slack.Block{header(who)}
	if p.Protected {
		return append(blocks, paragraphs(line{}.who(p.Person), say("This is a protected target. Countersign shows nothing more about it.")))
	}
	state := "Enabled"
	if !p.Enabled {
		state = "Blocked from signing in"
	}
	kind := "member"
	if p.Guest {
		kind = "guest"
	}
	home := "cloud account"
	if p.Synced {
		home = "synced from on-premises AD"
	}
	facts := []line{line{}.who(p.Person), say("%s · %s · %s", state, kind, home)}
	if job := strings.Trim(p.Title+", "+p.Department, ", "); job != "" {
		facts = append(facts, say("%s", job))
	}
	if p.Manager.ID != "" {
		facts = append(facts, line{}.bold("Manager ").who(p.Manager))
	}
	if !p.LastPasswordChange.IsZero() {
		facts = append(facts, line{}.bold("Last password change ").when(p.LastPasswordChange))
	}
	if !p.SessionsValidFrom.IsZero() {
		facts = append(facts, line{}.bold("Sessions valid from ").when(p.SessionsValidFrom))
	}
	blocks = append(blocks, paragraphs(facts...))
	for _, flag := range p.Flags {
		blocks = append(blocks, small("⚠️ %s", flag))
	}
	items := make([]line, len(p.Methods))
	for i, m := range p.Methods {
		l := line{}.bold(m.Kind)
		if m.What != "" {
			l = l.say(" %s", m.What)
		}
		if m.Default {
			l = l.say(" (default)")
		}
		if !m.LastUsed.IsZero() {
			l = l.gap(", last used ").when(m.LastUsed)
		} else if !m.Created.IsZero() {
			l = l.gap(", since ").say("%s", m.Created.Format(time.DateOnly))
		}
		for _, flag := range m.Flags {
			l = l.say(" · %s", flag)
		}
		items[i] = l
	}
	if len(items) > 0 {
		blocks = append(blocks, list("Authentication methods", slack.RTEListBullet, items))
	} else {
		blocks = append(blocks, paragraphs(say("No authentication methods.")))
	}
	for _, gap := range p.Gaps {
		blocks = append(blocks, small("%s", gap))
	}
	return blocks
}

// helpBlocks lists what this person may do.
func (b *Bot) helpBlocks(ctx context.Context, who approvals.Person) []slack.Block {
	var may []line
	for _, c := range commands.Table() {
		if b.Desk.MayRequest(ctx, c.Name, c.Class, who) != nil {
			continue
		}
		may = append(may, line{}.code(commands.Slash(b.Prefix, c)+" "+c.Usage).gap("\n").say("%s", c.Does))
	}
	if len(may) == 0 {
		return []slack.Block{paragraphs(say("The policy lets you use no command here. Ask your help desk."))}
	}
	return []slack.Block{
		list("What you may do", slack.RTEListBullet, may),
		small("What changes an account waits until somebody else approves it in the approvals channel. Type %s with a command's name to read more.", b.slash("help")),
	}
}
