package bot

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/slack-go/slack"

	"countersign/approvals"
	"countersign/commands"
)

// textLimits are how many characters are shown of each step, of each step's
// result, and of each other text. Zero means all.
type textLimits struct{ step, result, text int }

// card is the current state of a request for the approvers, in one message.
func (b *Bot) card(r approvals.Request) []slack.Block {
	var buttons []slack.BlockElement
	switch {
	case r.State == approvals.StatePending:
		approve := button(actionApprove, r.ID, "Approve", slack.StylePrimary)
		approve.Confirm = slack.NewConfirmationBlockObject(plain("Approve?", 100), plain(confirmation(r), maxConfirm), plain("Approve", 30), plain("Back", 30))
		buttons = []slack.BlockElement{approve, button(actionDeny, r.ID, "Deny", slack.StyleDanger)}
		if r.Requirements.BreakGlass {
			buttons = append(buttons, breakGlassButton(r))
		}
	case r.State == approvals.StateRunning && r.Halt == nil:
		buttons = []slack.BlockElement{button(actionHalt, r.ID, "Halt", slack.StyleDanger)}
	case r.State == approvals.StateHandedOff:
		buttons = handOffButtons(r)
	case r.State == approvals.StateReview:
		buttons = []slack.BlockElement{button(actionJustified, r.ID, "Justified", slack.StylePrimary), button(actionNotJustified, r.ID, "Not justified", slack.StyleDanger)}
	}
	return drawWithin(r, buttons, false)
}

// breakGlassButton opens the break-glass form.
func breakGlassButton(r approvals.Request) slack.BlockElement {
	return button(actionBreakGlass, r.ID, "Use break-glass", slack.StyleDefault)
}

// receipt is the requester's copy of a request. breakGlass says that they may
// use break-glass.
func (b *Bot) receipt(r approvals.Request, breakGlass bool) []slack.Block {
	var buttons []slack.BlockElement
	switch {
	case r.State == approvals.StatePending && r.Requirements.BreakGlass && breakGlass:
		buttons = []slack.BlockElement{button(actionCancel, r.ID, "Cancel the request", slack.StyleDefault), breakGlassButton(r)}
	case r.State == approvals.StatePending || r.State == approvals.StateApproved,
		r.State == approvals.StateHandedOff && r.Journal[len(r.Journal)-1].DoneBy == nil:
		buttons = []slack.BlockElement{button(actionCancel, r.ID, "Cancel the request", slack.StyleDefault)}
	case r.State == approvals.StateRunning && r.Halt == nil:
		buttons = []slack.BlockElement{button(actionHalt, r.ID, "Halt", slack.StyleDanger)}
	}
	return drawWithin(r, buttons, true)
}

// drawWithin draws a request within Slack's limits for one message. If it is too
// long, texts are cut, and the card says so; every step stays visible.
func drawWithin(r approvals.Request, buttons []slack.BlockElement, own bool) []slack.Block {
	details := button(actionDetails, r.ID, "Details", slack.StyleDefault)
	var blocks []slack.Block
	for _, tight := range []textLimits{{}, {240, 240, 800}, {160, 100, 400}, {100, 50, 250}, {60, 20, 120}, {40, 10, 60}, {20, 3, 30}} {
		blocks = draw(r, tight, own)
		row := buttons
		if tight != (textLimits{}) {
			blocks = append(blocks, small("Some texts are cut to fit here. Details shows them whole."))
		}
		if tight != (textLimits{}) || len(buttons) > 0 {
			row = append(slices.Clip(buttons), details)
		}
		if len(row) > 0 {
			blocks = append(blocks, slack.NewActionBlock("decide", row...))
		}
		if sizeOf(blocks) <= maxMessage {
			break
		}
	}
	return blocks
}

// draw draws a request without its buttons. own says that its requester reads
// it.
func draw(r approvals.Request, in textLimits, own bool) []slack.Block {
	cut := func(text string) string { return commands.Plain(text, in.text) }
	blocks := []slack.Block{header(fmt.Sprintf("%s %s: %s", stateIcon(r), r.Plan.Title, headline(r)))}
	facts := []line{
		line{}.bold("For ").who(r.Plan.Target),
		line{}.bold("Requested by ").who(r.Requester),
	}
	if r.Verified != "" {
		heading := "Caller verified: "
		if r.Verified == approvals.VerifiedCompromise {
			heading = "Caller: "
		}
		facts = append(facts, line{}.bold(heading).text("%s", verifiedWords(r)))
	}
	if r.Requester.ID == r.Plan.Target.ID {
		facts = append(facts, line{}.bold(ownAccount(r, own)))
	}
	if r.Justification != "" {
		facts = append(facts, line{}.bold("Why: ").text("%s", cut(r.Justification)))
	}
	if r.Ticket != "" {
		facts = append(facts, line{}.bold("Ticket: ").text("%s", r.Ticket))
	}
	for _, d := range r.Approvals {
		facts = append(facts, line{}.bold("Approved by ").who(d.By).raw(", ").when(d.At))
	}
	if r.Denial != nil {
		l := line{}.bold("Denied by ").who(r.Denial.By).raw(", ").when(r.Denial.At)
		if r.Denial.Reason != "" {
			l = l.text(": %s", cut(r.Denial.Reason))
		}
		facts = append(facts, l)
	}
	facts = append(append(facts, breakGlassFacts(r, cut)...), handOffFacts(r)...)
	if r.Halt != nil {
		facts = append(facts, line{}.bold("Halted by ").who(r.Halt.By).raw(", ").when(r.Halt.At).text(": no further step is started"))
	}
	if r.Why != "" {
		what := "What happened: "
		if noStepStarted(r) {
			what = "Nothing was done: "
		}
		facts = append(facts, line{}.bold(what).text("%s", cut(r.Why)))
	}
	for n := len(facts); len(facts) > 0; n = len(facts) {
		for n > 1 && sizeOf([]slack.Block{paragraphs(facts[:n]...)}) > maxMessage/2 {
			n--
		}
		blocks, facts = append(blocks, paragraphs(facts[:n]...)), facts[n:]
	}

	heading := "What will happen"
	switch {
	case r.State.Final() && r.State != approvals.StateDone, noStepStarted(r):
		heading = "What was to happen"
	case r.State.Final(), r.State == approvals.StateReview:
		heading = "What happened"
	}
	steps := make([]line, len(r.Plan.Steps))
	for i := range steps {
		steps[i] = stepLine(r, i, in)
	}
	blocks = append(blocks, list(heading, slack.RTEListOrdered, steps)...)
	if len(r.Plan.Keeps) > 0 {
		keeps := []rune(cut("Stays as it is: " + strings.Join(r.Plan.Keeps, "; ") + "."))
		for part := range slices.Chunk(keeps, 1000) {
			blocks = append(blocks, small("%s", string(part)))
		}
	}
	if !r.State.Final() && r.State != approvals.StateReview {
		for _, w := range slices.Concat(r.Plan.Warnings, r.Requirements.Why) {
			if w == approvals.WhySelf {
				continue // it stands further up, in bold
			}
			blocks = append(blocks, small("⚠️ %s", cut(w)))
		}
	}
	foot := line{}.code(r.ID)
	switch {
	case r.State == approvals.StatePending:
		foot = foot.text(" · %d of %d approvals · expires ", len(r.Approvals), r.Requirements.Approvals).when(r.Deadline)
	case r.State == approvals.StateRunning && !r.NotBefore.IsZero():
		foot = foot.raw(" · Microsoft Graph asked to wait until ").when(r.NotBefore)
	case !r.Ended.IsZero():
		foot = foot.raw(" · ended ").when(r.Ended)
	}
	return append(blocks, paragraphs(foot))
}

// ownAccount says that somebody requests for their own account, and what that
// means for the approver.
func ownAccount(r approvals.Request, own bool) string {
	over := r.State.Final() || r.State == approvals.StateReview
	switch {
	case own && over:
		return "You asked for your own account."
	case own && r.State == approvals.StatePending:
		return "You ask for your own account. Whoever approves makes sure first that it is you."
	case own:
		return "You ask for your own account."
	case over:
		return "They asked for their own account."
	case r.State == approvals.StatePending:
		return "⚠️ They ask for their own account. Nobody has verified the caller yet: do that yourself before you approve."
	}
	return "⚠️ They ask for their own account."
}

// noStepStarted reports whether a request ended before any step was started.
func noStepStarted(r approvals.Request) bool {
	return r.Outcome == approvals.OutcomeFailed && !slices.ContainsFunc(r.Journal, func(e approvals.JournalEntry) bool { return e.State != approvals.StepSkipped })
}

// stepLine is one step and its outcome.
func stepLine(r approvals.Request, i int, in textLimits) line {
	words, e := commands.Plain(r.Plan.Steps[i].Words, in.step), approvals.JournalEntry{}
	if i < len(r.Journal) {
		e = r.Journal[i]
	}
	detail := commands.Plain(e.Detail, in.result)
	if e.State == approvals.StepWaiting {
		if detail == "" {
			return textLine("%s", words)
		}
		return textLine("%s (%s)", words, detail)
	}
	l := textLine("%s %s", stepIcon(e.State), words)
	switch e.State {
	case approvals.StepDone, approvals.StepHandedOff, approvals.StepAttested: // the icon says it
	default:
		l = textLine("%s %s: %s", stepIcon(e.State), strings.TrimSuffix(words, "."), e.State)
	}
	if detail != "" {
		if !strings.HasSuffix(words, ".") || e.State != approvals.StepDone && e.State != approvals.StepAttested {
			l = l.text(".")
		}
		l = l.text(" %s", detail)
	}
	if e.RequestID != "" && e.State != approvals.StepDone && e.State != approvals.StepAlready && in.result == 0 {
		l = l.text(" Graph request-id %s.", e.RequestID)
	}
	return l
}

// confirmation is the last text that the approver reads. Phones fold cards, so
// it repeats everything that the approval stands for, the most important first.
func confirmation(r approvals.Request) string {
	text := fmt.Sprintf("%s for %s.", r.Plan.Title, r.Plan.Target.UPN)
	if r.Verified != "" {
		if r.Verified == approvals.VerifiedCompromise {
			text += " Nobody called: the account is believed to be lost, and is blocked first."
		} else {
			text += " Caller verified: " + r.Verified + "."
		}
	}
	if r.Requester.ID == r.Plan.Target.ID {
		return text + " They ask for their own account: with your name you say that you have verified the caller yourself."
	}
	return text + fmt.Sprintf(" Requested by %s. You vouch for this with your name.", r.Requester.UPN)
}

// headline is the state in a few words, for the top of a card.
func headline(r approvals.Request) string {
	switch r.State {
	case approvals.StatePending:
		return "waiting for approval"
	case approvals.StateApproved:
		if r.BreakGlass != nil {
			return "break-glass used, about to run"
		}
		return "approved"
	case approvals.StateRunning:
		text := "running"
		if r.BreakGlass != nil {
			text = "break-glass used, running"
		}
		if !r.NotBefore.IsZero() {
			return text + ", waiting for Microsoft Graph"
		}
		return text
	case approvals.StateHandedOff:
		if r.Journal[len(r.Journal)-1].DoneBy != nil {
			return "done by hand, to be confirmed by somebody else"
		}
		return "approved, to be done by hand"
	case approvals.StateReview:
		return outcomeWords(r) + " with break-glass, review due"
	case approvals.StateDone:
		if r.Reviewed != nil {
			return outcomeWords(r) + " with break-glass, " + r.Reviewed.Verdict
		}
		return outcomeWords(r)
	}
	return string(r.State)
}

// outcomeWords describes the outcome of a request.
func outcomeWords(r approvals.Request) string {
	switch r.Outcome {
	case approvals.OutcomeSucceeded:
		return "done"
	case approvals.OutcomeAttested:
		return "done by hand and confirmed"
	case approvals.OutcomePartial:
		return "only partly done"
	case approvals.OutcomeUncertain:
		return "uncertain, somebody has to look"
	}
	if noStepStarted(r) {
		return "failed, nothing was done"
	}
	return "failed"
}

// breakGlassFacts say who used break-glass and why, and the review.
func breakGlassFacts(r approvals.Request, cut func(string) string) []line {
	if r.BreakGlass == nil {
		return nil
	}
	facts := []line{
		line{}.bold("🚨 Break-glass used by ").who(r.BreakGlass.By).raw(", ").when(r.BreakGlass.At),
	}
	if r.BreakGlass.Reason != r.Justification { // typed at once it is the same
		facts = append(facts, line{}.bold("Why it could not wait: ").text("%s", cut(r.BreakGlass.Reason)))
	}
	switch {
	case r.Reviewed != nil:
		l := line{}.bold("Reviewed by ").who(r.Reviewed.By).raw(", ").when(r.Reviewed.At).text(": ").bold(r.Reviewed.Verdict)
		if r.Reviewed.Remark != "" {
			l = l.text(". %s", cut(r.Reviewed.Remark))
		}
		facts = append(facts, l)
	case r.State == approvals.StateReview:
		facts = append(facts, line{}.bold("Review due: ").text("somebody else has to say whether that was justified."))
	}
	return facts
}

func stateIcon(r approvals.Request) string {
	if r.BreakGlass != nil && !r.State.Final() || r.Reviewed != nil && r.Reviewed.Verdict == approvals.VerdictNotJustified {
		return "🚨"
	}
	switch r.State {
	case approvals.StatePending:
		return "⏳"
	case approvals.StateApproved, approvals.StateRunning:
		return "▶️"
	case approvals.StateHandedOff:
		return "🤝"
	case approvals.StateDone:
		switch r.Outcome {
		case approvals.OutcomeSucceeded, approvals.OutcomeAttested:
			return "✅"
		case approvals.OutcomePartial:
			return "⚠️"
		case approvals.OutcomeUncertain:
			return "❓"
		}
		return "❌"
	case approvals.StateDenied:
		return "⛔"
	}
	return "⌛"
}

func stepIcon(s approvals.StepState) string {
	switch s {
	case approvals.StepDone, approvals.StepAlready, approvals.StepAttested:
		return "✅"
	case approvals.StepHandedOff:
		return "🤝"
	case approvals.StepFailed:
		return "❌"
	case approvals.StepUncertain:
		return "❓"
	case approvals.StepSkipped:
		return "➖"
	}
	return "⏳"
}

// verifiedWords says how the requester verified the caller.
func verifiedWords(r approvals.Request) string {
	c, _ := commands.Lookup(r.Plan.Command)
	for _, v := range append(commands.Verifications(c), commands.Ways(c, commands.Needs{Fields: []string{approvals.NeedVerified}})...) {
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
		return append(blocks, paragraphs(line{}.who(p.Person), textLine("This is a protected target. Countersign shows nothing more about it.")))
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
	facts := []line{line{}.who(p.Person), textLine("%s · %s · %s", state, kind, home)}
	if job := strings.Trim(p.Title+", "+p.Department, ", "); job != "" {
		facts = append(facts, textLine("%s", job))
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
			l = l.text(" %s", m.What)
		}
		if m.Default {
			l = l.text(" (default)")
		}
		if !m.LastUsed.IsZero() {
			l = l.raw(", last used ").when(m.LastUsed)
		} else if !m.Created.IsZero() {
			l = l.raw(", since ").text("%s", m.Created.Format(time.DateOnly))
		}
		for _, flag := range m.Flags {
			l = l.text(" · %s", flag)
		}
		items[i] = l
	}
	if len(items) > 0 {
		blocks = append(blocks, list("Authentication methods", slack.RTEListBullet, items)...)
	} else {
		blocks = append(blocks, paragraphs(textLine("No authentication methods.")))
	}
	for _, gap := range p.Gaps {
		blocks = append(blocks, small("%s", gap))
	}
	return blocks
}

// usage is how a command is typed, by somebody who may use break-glass or not.
func usage(c commands.Command, breakGlass bool) string {
	if breakGlass {
		return c.Usage
	}
	return strings.Replace(c.Usage, " ["+commands.BreakGlassWord+"]", "", 1)
}

// helpBlocks lists what this person may ask for, and what they may decide.
func (b *Bot) helpBlocks(ctx context.Context, who approvals.Person) ([]slack.Block, error) {
	account, err := b.Service.Rights(ctx, who)
	if err != nil {
		return nil, unchecked(err, "What you may do could not be looked up. %s", errorSentence(err))
	}
	var may, decides, breaks []line
	var shut *approvals.Refusal // why this person may do nothing whatever the policy says
	for _, c := range commands.Table() {
		slash := commands.Slash(b.Prefix, c)
		breakGlass := b.Service.Policy.MayBreakGlass(c.Name, c.Class, account) == nil
		does := line{}.code(slash+" "+usage(c, breakGlass)).raw("\n").text("%s.", capitalize(c.Does))
		no := b.Service.Policy.MayRequest(c.Name, c.Class, account, false)
		if no != nil && no.Code != approvals.CodeNotAllowed {
			shut = no
		}
		switch {
		case no == nil:
			may = append(may, does)
		case b.Service.Policy.MayRequest(c.Name, c.Class, account, true) == nil:
			may = append(may, does.text(" For your own account only."))
		}
		if c.Class != approvals.ClassRead && b.Service.Policy.MayDecide(c.Name, c.Class, account, false) == nil {
			decides = append(decides, line{}.code(slash))
		}
		if breakGlass {
			breaks = append(breaks, line{}.code(slash+" @user "+commands.BreakGlassWord+" why"))
		}
	}
	var blocks []slack.Block
	if len(may) > 0 {
		blocks = append(blocks, list("What you may do", slack.RTEListBullet, may)...)
	}
	if len(decides) > 0 {
		blocks = append(blocks, list("What you may approve when others ask for it", slack.RTEListBullet, decides)...)
	}
	if len(breaks) > 0 {
		blocks = append(blocks, list("What you may run before anybody approves it (break-glass): at once, told to everybody who could have approved it, and reviewed", slack.RTEListBullet, breaks)...)
	}
	if len(blocks) == 0 && shut != nil {
		return []slack.Block{paragraphs(textLine("%s", shut.Sentence))}, nil
	}
	if len(blocks) == 0 {
		return []slack.Block{paragraphs(textLine("You may not use any command here. Ask your help desk."))}, nil
	}
	return append(blocks, small("What changes an account waits until somebody else approves it in the approvals channel. Type %s with a command's name to read more.", b.slash("help"))), nil
}
