package bot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/slack-go/slack"

	"countersign/approvals"
	"countersign/audit"
	"countersign/commands"
)

// handleArrival executes one interaction of the inbox. The envelope id is the
// operation id, so a second execution gives the same answer and changes nothing
// more.
func (b *Bot) handleArrival(ctx context.Context, a approvals.Arrival) error {
	var d interaction
	if err := json.Unmarshal(a.Payload, &d); err != nil {
		b.Log.Error("an interaction cannot be read and is dropped", "envelope", a.Envelope, "error", err)
		return nil
	}
	timing := b.Service.Store.Timing()
	// Another reader takes an entry over that is idle for longer.
	ctx, cancel := context.WithTimeout(ctx, timing.Takeover*9/10)
	defer cancel()
	if a.Stale || a.Poisoned {
		why := "it waited for more than " + lasted(timing.Stale)
		if a.Poisoned {
			why = "it failed again and again"
		}
		what := "was not carried out"
		if a.Deliveries > 1 { // whoever had it before may have died just behind it
			what = "may not have been carried out"
		}
		b.replyPrivately(ctx, d, fmt.Sprintf("What you did at %s %s: %s. Look at %s, and do it again if it is still needed.",
			a.At.UTC().Format("15:04 UTC"), what, why, b.slash("requests")))
		return nil
	}
	// A store that fails over is back in seconds; the next delivery is not.
	for pause := 250 * time.Millisecond; ; pause *= 2 {
		err := b.execute(ctx, a.Envelope, d)
		no := (*approvals.Refusal)(nil)
		switch {
		case err == nil:
			return nil
		case errors.As(err, &no):
			b.replyPrivately(ctx, d, no.Sentence)
			return nil
		case errors.Is(err, approvals.ErrLostWrites): // nobody knows when it goes on, and it must not happen then unasked
			b.Log.Warn("an interaction is not executed, because Redis has lost confirmed writes", "envelope", a.Envelope, "user", d.User)
			b.replyPrivately(ctx, d, errorSentence(err))
			return nil
		case errors.Is(err, approvals.ErrNoKey): // another process has it, and the inbox leaves it to that
			return err
		case pause > 4*time.Second || ctx.Err() != nil:
			b.Log.Warn("an interaction failed and will be tried again", "envelope", a.Envelope, "user", d.User, "error", err)
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// execute returns a *approvals.Refusal for the author. Any other error means
// that the interaction may not have been executed.
func (b *Bot) execute(ctx context.Context, op string, d interaction) error {
	if d.Foreign != "" {
		return b.recordRefusal(ctx, op, d, approvals.Person{Slack: d.User}, errOtherWorkspace)
	}
	who, err := b.actor(ctx, d)
	if err != nil {
		return b.recordRefusal(ctx, op, d, who, err)
	}
	if d.ActionID != "" {
		return b.executeAction(ctx, op, d, who)
	}
	c, ok := commands.Lookup(d.Command)
	if !ok {
		return nil
	}
	in, problems := commands.Parse(c, d.Text)
	if len(problems) > 0 {
		return approvals.Refuse(approvals.CodeMissing, "%s", problemSentences(problems))
	}
	switch c.Name {
	case "help":
		return b.showHelp(ctx, op, d, in, who)
	case "requests":
		return b.showRequests(ctx, op, d, in, who)
	}
	return b.executeCommand(ctx, op, d, in, who)
}

// recordRefusal records a refusal and returns err. Other errors are returned
// unchanged.
func (b *Bot) recordRefusal(ctx context.Context, op string, d interaction, who approvals.Person, err error) error {
	// Look-ups may have used up the time, and this must be written down.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if misled := (*changedPair)(nil); errors.As(err, &misled) {
		if err := b.Service.RecordAlarm(ctx, op, who, misled.Reason); err != nil {
			return err
		}
	}
	c, _ := commands.Lookup(d.Command)
	var said error
	switch {
	case d.ActionID == actionAgain: // like the command, it asks for a request of its own
		snap, gone := b.Service.Store.Load(ctx, d.Request)
		if errors.Is(gone, approvals.ErrNoRequest) {
			snap.Plan.Title = "a request that is not there"
		} else if gone != nil {
			return gone
		}
		said = b.Service.RecordRefusedPlan(ctx, op, snap.Plan, who, err)
	case d.Request != "":
		said = b.Service.RecordRefusedAction(ctx, op, d.Request, attemptedVerb(d.ActionID), who, err)
	default:
		said = b.Service.RecordRefusedPlan(ctx, op, approvals.Plan{Command: c.Name, Title: c.Title, Class: c.Class}, who, err)
	}
	looks := d.ActionID == actionDetails || d.ActionID == actionReveal || d.ActionID == "" && c.Class == approvals.ClassRead
	if said == nil && looks {
		return err // it was allowed when it came before, and nobody knows whether its author has seen anything
	}
	return said
}

// attemptedVerb names an action in the words of an audit event.
func attemptedVerb(press string) string {
	switch press {
	case actionDetails:
		return "see the details"
	case actionAttest:
		return "report as done"
	case actionBreakGlass:
		return "use break-glass"
	case actionJustified, actionNotJustified:
		return "review"
	}
	return press
}

// executeAction executes a button click.
func (b *Bot) executeAction(ctx context.Context, op string, d interaction, who approvals.Person) error {
	switch d.ActionID {
	case actionAgain:
		return b.requestAgain(ctx, op, d, who)
	case actionApprove, actionDeny, actionAttest, actionConfirm, actionRetract, actionJustified, actionNotJustified:
		if no := b.checkChannelAllowed(ctx, d); no != nil {
			return b.recordRefusal(ctx, op, d, who, no)
		}
	case actionBreakGlass:
		if no := b.checkBreakGlassChannel(ctx, d, who); no != nil {
			return b.recordRefusal(ctx, op, d, who, no)
		}
	}
	b.adoptCard(ctx, d, who)
	var err error
	switch d.ActionID {
	case actionApprove:
		_, err = b.Service.Approve(ctx, op, d.Request, who)
	case actionDeny:
		_, err = b.Service.Deny(ctx, op, d.Request, who, d.Reason)
	case actionCancel:
		_, err = b.Service.Cancel(ctx, op, d.Request, who)
	case actionHalt:
		_, err = b.Service.Stop(ctx, op, d.Request, who, "pressed Halt")
	case actionAttest:
		_, err = b.Service.Attest(ctx, op, d.Request, who)
	case actionConfirm:
		_, err = b.Service.Confirm(ctx, op, d.Request, who)
	case actionRetract:
		_, err = b.Service.Retract(ctx, op, d.Request, who)
	case actionBreakGlass:
		_, err = b.Service.BreakGlass(ctx, op, d.Request, who, d.Reason)
	case actionJustified:
		_, err = b.Service.Review(ctx, op, d.Request, who, approvals.VerdictJustified, d.Reason)
	case actionNotJustified:
		_, err = b.Service.Review(ctx, op, d.Request, who, approvals.VerdictNotJustified, d.Reason)
	}
	if err != nil { // no event will redraw the card that led here
		b.redrawCard(ctx, d, who)
	}
	return err
}

// requestAgain submits an earlier request of the same person again. Everything
// is looked up and planned anew.
func (b *Bot) requestAgain(ctx context.Context, op string, d interaction, who approvals.Person) error {
	snap, err := b.Service.Store.Load(ctx, d.Request)
	if err != nil {
		return refuseMissingRequest(err)
	}
	if who.ID != snap.Requester.ID {
		return b.recordRefusal(ctx, op, d, who, approvals.Refuse(approvals.CodeNotRequester, "Only %s, who asked for %s, can ask for it again.", snap.Requester, d.Request))
	}
	c, ok := commands.Lookup(snap.Plan.Command)
	if !ok {
		return approvals.Refuse(approvals.CodeMissing, "This Countersign has no command for that any more.")
	}
	in, problems := commands.Parse(c, snap.Plan.Target.ID+" "+snap.Plan.Args)
	if len(problems) > 0 {
		return approvals.Refuse(approvals.CodeMissing, "That cannot be asked for again as it was: %s", problemSentences(problems))
	}
	in.Ticket, in.Verified, in.Justification = snap.Ticket, snap.Verified, snap.Justification
	return b.executeCommand(ctx, op, d, in, who)
}

// checkChannelAllowed refuses decisions outside the approvals channel, and
// inside it if that channel is no longer private.
func (b *Bot) checkChannelAllowed(ctx context.Context, d interaction) error {
	if d.Channel != b.ApprovalsChannel {
		return approvals.Refuse(approvals.CodeChannel, "Requests are decided in the approvals channel only. Open the card there.")
	}
	err := approvals.RetryLookUp(ctx, b.Service.Store.Timing().LookUps, func(ctx context.Context) error {
		err := b.guard.check(ctx, d.Channel, 0)
		if no := (*unfitChannel)(nil); errors.As(err, &no) {
			return approvals.Refuse(approvals.CodeChannel, "This channel is no longer used for decisions. %s", no.sentence)
		}
		return err
	})
	if err != nil {
		return unchecked(err, "Slack did not say whether this channel is still private, and what cannot be checked is refused. Try again in a minute.")
	}
	return nil
}

// isRequestMessage reports whether a message is in a place for cards of this
// request: the approvals channel, or its requester's direct messages.
func (b *Bot) isRequestMessage(d interaction, who approvals.Person, r approvals.Request) bool {
	switch {
	case d.Card.TS == "":
		return false
	case d.Card.Channel == b.ApprovalsChannel:
		return true
	}
	return strings.HasPrefix(d.Card.Channel, "D") && who.ID == r.Requester.ID
}

// adoptCard keeps an extra card up to date, which was posted although Slack's
// reply was lost.
func (b *Bot) adoptCard(ctx context.Context, d interaction, who approvals.Person) {
	if d.Card.TS == "" {
		return
	}
	const most = 10 // that lost replies can have left over
	cards, err := b.Service.Store.Cards(ctx, d.Request)
	for _, card := range cards {
		if card == d.Card {
			return
		}
	}
	if snap, gone := b.Service.Store.Load(ctx, d.Request); gone != nil || !b.isRequestMessage(d, who, snap.Request) || len(cards) >= most {
		return
	}
	name := cardRequester
	if d.Card.Channel == b.ApprovalsChannel {
		name = cardApprovers
	}
	if err == nil {
		err = b.Service.Store.SetCard(ctx, d.Request, name+":"+d.Card.TS, d.Card)
	}
	if err != nil {
		b.Log.Warn("a spare card is not kept up to date", "request", d.Request, "error", err)
	}
}

// redrawCard redraws the card of the clicked button with the current state of
// its request.
func (b *Bot) redrawCard(ctx context.Context, d interaction, who approvals.Person) {
	breakGlass := b.offersBreakGlass(ctx, d.Request)
	err := b.upToDate(ctx, d.Request, false, func(ctx context.Context, r approvals.Request) error {
		if !b.isRequestMessage(d, who, r) {
			return nil
		}
		blocks := b.receipt(r, breakGlass)
		if d.Card.Channel == b.ApprovalsChannel {
			blocks = b.card(r)
		}
		_, _, _, err := b.api.UpdateMessageContext(ctx, d.Card.Channel, d.Card.TS, slack.MsgOptionText(cardText(r), false), slack.MsgOptionBlocks(blocks...))
		return err
	})
	if err != nil {
		b.Log.Debug("an old card was not repaired", "request", d.Request, "error", err)
	}
}

// executeCommand executes a command about one person: a read command, or a plan
// that is submitted for approval.
func (b *Bot) executeCommand(ctx context.Context, op string, d interaction, in commands.Input, who approvals.Person) error {
	c := in.Command
	// Whether they may at all comes first: a stranger learns nothing about
	// who is in the tenant.
	selfOnly, err := b.Service.MayRequest(ctx, c.Name, c.Class, who)
	if err == nil && selfOnly && !namesSelf(in.Target, d.User, who) {
		err = onlySelf
	}
	if err != nil {
		return b.recordRefusal(ctx, op, d, who, err)
	}
	found, err := b.findPeople(ctx, in.Target)
	if err != nil {
		return b.recordRefusal(ctx, op, d, who, unchecked(err, "%s", errorSentence(err)))
	}
	if len(found) > 1 {
		b.offerChoice(ctx, d, in, found)
		return nil
	}
	target := found[0]
	if c.Class == approvals.ClassRead {
		return b.executeRead(ctx, op, d, c, who, target)
	}

	about := approvals.Plan{Command: c.Name, Title: c.Title, Class: c.Class, Target: target}
	r, delivered, err := b.Service.Submitted(ctx, op)
	if err != nil {
		return b.Service.RecordRefusedPlan(ctx, op, about, who, err)
	}
	if delivered {
		return b.afterSubmit(ctx, op, d, in, who, r)
	}
	self := target.ID == who.ID
	if self && in.Verified != approvals.VerifiedCompromise {
		in.Verified = "" // nobody verifies themselves
	}
	// Only now is it certain whether it is their own account, and the policy may
	// have changed since it was typed.
	if missing := commands.Missing(c, in, b.needs(c, self)); len(missing) > 0 {
		return b.Service.RecordRefusedPlan(ctx, op, about, who, approvals.Refuse(approvals.CodeMissing, "%s", missingFields(missing)))
	}
	if no := (*unfitChannel)(nil); errors.As(b.guard.check(ctx, b.ApprovalsChannel, channelMaxAge), &no) {
		return b.Service.RecordRefusedPlan(ctx, op, about, who, approvals.Refuse(approvals.CodeChannel, "Nobody could decide this now, so nothing was requested. %s", no.sentence))
	}
	requirements, _, err := b.Service.Requirements(ctx, c.Name, c.Class, who, target)
	if err != nil {
		return b.Service.RecordRefusedPlan(ctx, op, about, who, err)
	}
	if no := b.refuseIfUnapprovable(ctx, approvals.Request{Plan: about, Requester: who, Requirements: requirements}); no != nil {
		return b.Service.RecordRefusedPlan(ctx, op, about, who, no)
	}
	plan, err := b.Tenant.Plan(ctx, in, target)
	if nothing := (*commands.NothingToDo)(nil); errors.As(err, &nothing) {
		return b.Service.RecordRefusedPlan(ctx, op, about, who, approvals.Refuse(approvals.CodeNoSteps, "%s", nothing.Sentence))
	}
	if err != nil {
		return b.Service.RecordRefusedPlan(ctx, op, about, who, unchecked(err, "%s Nothing was requested.", errorSentence(err)))
	}
	plan.Target.Slack = target.Slack
	r, err = b.Service.Submit(ctx, op, approvals.Submit{
		Plan: plan, Requester: who, Justification: in.Justification, Ticket: in.Ticket, Verified: in.Verified, Channel: d.Channel, Requirements: requirements,
	})
	no := (*approvals.Refusal)(nil)
	if in.BreakGlass && errors.As(err, &no) && no.Code == approvals.CodeIdentical {
		// Somebody asked for the same before. Whoever wants it now means that.
		open, err := b.Service.Store.Load(ctx, no.Request)
		if err != nil {
			return refuseMissingRequest(err)
		}
		return b.breakGlassTyped(ctx, op, d, in, who, open.Request, true)
	}
	if err != nil {
		return err
	}
	return b.afterSubmit(ctx, op, d, in, who, r)
}

// refuseIfUnapprovable refuses a request that cannot be approved, because too
// few approvers are left. They are counted only if more than one approval is
// needed. If they cannot be counted, the request is made.
func (b *Bot) refuseIfUnapprovable(ctx context.Context, r approvals.Request) *approvals.Refusal {
	if r.Requirements.Approvals < 2 || r.Requirements.BreakGlass {
		return nil
	}
	left, err := b.approversOf(ctx, r, r.Requester, r.Plan.Target)
	n := len(left.accounts) + left.unknown
	if err != nil || left.tooMany || n >= r.Requirements.Approvals {
		return nil
	}
	few := "nobody else may give one"
	if n > 0 {
		few = fmt.Sprintf("besides you and %s only %d may give one", r.Plan.Target, n)
	}
	return approvals.Refuse(approvals.CodeUnapprovable, "This needs %d approvals, and %s, so nothing was requested. "+
		"If it cannot wait, somebody with the right role does it in the Entra admin center; for the next time, the policy needs more approvers.", r.Requirements.Approvals, few)
}

// afterSubmit handles a request that was just submitted: it waits for approval,
// or its requester wants to use break-glass.
func (b *Bot) afterSubmit(ctx context.Context, op string, d interaction, in commands.Input, who approvals.Person, r approvals.Request) error {
	if in.BreakGlass {
		return b.breakGlassTyped(ctx, op, d, in, who, r, false)
	}
	b.receiptNote(ctx, d, r)
	return nil
}

// onlySelf refuses others' accounts to those who may use a command for their
// own.
var onlySelf = approvals.Refuse(approvals.CodeNotAllowed, "You may use this command for your own account only: mention yourself.")

// namesSelf reports whether the text names the person who typed it. It asks
// nobody, because people who may act for themselves only must not learn anything
// about others.
func namesSelf(r commands.Ref, slackID string, who approvals.Person) bool {
	switch {
	case r.Slack != "":
		return r.Slack == slackID
	case r.ObjectID != "":
		return strings.EqualFold(r.ObjectID, who.ID)
	}
	return r.Name != "" && strings.EqualFold(r.Name, who.UPN)
}

// receiptNote tells the requester at once that the request was made. Direct
// messages follow.
func (b *Bot) receiptNote(ctx context.Context, d interaction, r approvals.Request) {
	people := otherPeople(r.Requirements.Approvals)
	text := fmt.Sprintf("%s for %s is requested as %s and waits for %s. You get a direct message when it is decided.", r.Plan.Title, r.Plan.Target, r.ID, people)
	b.replyPrivately(ctx, d, text, paragraphs(
		textLine("%s for ", r.Plan.Title).who(r.Plan.Target).text(" is requested as ").code(r.ID).
			text(" and waits for %s. You get a direct message when it is decided.", people)))
}

// otherPeople formats a number of people besides the requester.
func otherPeople(n int) string {
	if n == 1 {
		return "one other person"
	}
	return fmt.Sprintf("%d other people", n)
}

// findPeople returns everybody whom a reference may mean: at least one person,
// or an error.
func (b *Bot) findPeople(ctx context.Context, ref commands.Ref) ([]approvals.Person, error) {
	if ref.Slack != "" {
		person, err := b.people.target(ctx, ref.Slack)
		return []approvals.Person{person}, err
	}
	var found []approvals.Person
	err := approvals.RetryLookUp(ctx, b.Service.Store.Timing().LookUps, func(ctx context.Context) (err error) {
		found, err = b.Tenant.Find(ctx, ref)
		return err
	})
	if err == nil && len(found) == 0 {
		err = notFound(ref)
	}
	return found, err
}

// offerChoice lets the author choose between several people; Countersign never
// guesses. The names are listed in full, because a button may cut them.
func (b *Bot) offerChoice(ctx context.Context, d interaction, in commands.Input, found []approvals.Person) {
	text := fmt.Sprintf("“%s” matches %d people. Which one? Nothing was requested yet.", in.Target.Typed, len(found))
	const most = 10
	var people []line
	var buttons []slack.BlockElement
	for i, p := range found[:min(len(found), most)] {
		one := in
		one.Target = commands.Ref{ObjectID: p.ID, Typed: p.ID}
		value := in.Command.Name + " " + one.String()
		people = append(people, line{}.who(p))
		if utf8.RuneCountInString(value) <= maxValue {
			buttons = append(buttons, button(fmt.Sprintf("%s:%d", actionChoose, i), value, fmt.Sprintf("%d. %s", i+1, p.UPN), slack.StyleDefault))
		}
	}
	blocks := append([]slack.Block{paragraphs(textLine("%s", text))}, list("They are", slack.RTEListOrdered, people)...)
	if len(found) > most {
		blocks = append(blocks, small("and %d more", len(found)-most))
	}
	if len(buttons) == len(found) {
		blocks = append(blocks, slack.NewActionBlock("", buttons...))
	} else {
		blocks = append(blocks, paragraphs(textLine("Type the command again with the user principal name.")))
	}
	b.replyPrivately(ctx, d, text, blocks...)
}

// executeRead records a read command and answers it to its author alone.
func (b *Bot) executeRead(ctx context.Context, op string, d interaction, c commands.Command, who, target approvals.Person) error {
	if err := b.Service.AuthorizeRead(ctx, op, c.Name, c.Title, who, target); err != nil {
		return err
	}
	profile, err := b.Tenant.Profile(ctx, target.ID)
	if err != nil {
		b.Log.Warn("a profile could not be read", "error", err)
		return approvals.Refuse(approvals.CodeUnchecked, "%s", errorSentence(err))
	}
	profile.Person.Slack = target.Slack
	b.replyPrivately(ctx, d, "Authentication methods of "+profile.Person.String(), profileBlocks(profile)...)
	return nil
}

// showHelp explains one command, or lists what this person may do.
func (b *Bot) showHelp(ctx context.Context, op string, d interaction, in commands.Input, who approvals.Person) error {
	if len(in.Rest) > 0 {
		name := strings.TrimPrefix(strings.TrimPrefix(in.Rest[0], "/"), b.Prefix)
		if c, ok := commands.Lookup(name); ok {
			account, unknown := b.Service.Rights(ctx, who)
			breakGlass := unknown == nil && b.Service.Policy.MayBreakGlass(c.Name, c.Class, account) == nil
			blocks := []slack.Block{
				paragraphs(line{}.code(commands.Slash(b.Prefix, c) + " " + usage(c, breakGlass))),
				paragraphs(textLine("%s", c.Help)),
			}
			selfOnly, err := b.Service.MayRequest(ctx, c.Name, c.Class, who)
			switch {
			case err != nil:
				blocks = append(blocks, small("%s", errorSentence(err)))
			case c.Class == approvals.ClassRead && selfOnly:
				blocks = append(blocks, small("You may use it for your own account."))
			case c.Class == approvals.ClassRead:
			case selfOnly:
				blocks = append(blocks, small("You may ask for your own account. Decided by: %s.", strings.Join(b.Service.Policy.Approvers(c.Name, c.Class, true), ", ")))
			default:
				blocks = append(blocks, small("Decided by: %s.", strings.Join(b.Service.Policy.Approvers(c.Name, c.Class, false), ", ")))
			}
			if breakGlass {
				blocks = append(blocks, small("In an emergency you may run it before anybody approves, %s: write %s behind the person, and why. "+
					"Everybody who could have approved it is told, and somebody else reviews it.", b.Service.Policy.Limits.BreakGlassLimit(), commands.BreakGlassWord))
			}
			b.replyPrivately(ctx, d, c.Help, blocks...)
			return nil
		}
	}
	blocks, err := b.helpBlocks(ctx, who)
	if err != nil {
		return b.recordRefusal(ctx, op, d, who, err)
	}
	b.replyPrivately(ctx, d, "What you may do with Countersign", blocks...)
	return nil
}

// showRequests shows the open requests, one's own requests, or one request.
func (b *Bot) showRequests(ctx context.Context, op string, d interaction, in commands.Input, who approvals.Person) error {
	what := "mine"
	if len(in.Rest) > 0 {
		what = in.Rest[0]
	}
	var all []approvals.Snapshot
	var err error
	switch strings.ToLower(what) {
	case "mine":
		if all, err = b.Service.Store.Mine(ctx, who.ID); err != nil {
			return err
		}
		b.replyPrivately(ctx, d, "Your requests", requestList("Your requests", all, "You have requested nothing yet.")...)
		return nil
	case "pending", "open":
		if err := b.Service.AuthorizeRead(ctx, op, "requests", "the open requests", who, approvals.Person{}); err != nil {
			return err
		}
		if all, err = b.Service.Store.Open(ctx); err != nil {
			return err
		}
		b.replyPrivately(ctx, d, "Open requests", b.openRequestsFor(ctx, who, all)...)
		return nil
	}
	snap, err := b.Service.Store.Load(ctx, strings.ToUpper(what))
	if errors.Is(err, approvals.ErrNoRequest) {
		return b.recordRefusal(ctx, op, d, who, approvals.Refuse(approvals.CodeNoRequest, "There is no request %s. Type mine, pending, or the id of a request, such as R-7K3M9QXA.", commands.Plain(what, 40)))
	}
	if err != nil {
		return err
	}
	if who.ID != snap.Requester.ID {
		if err := b.Service.AuthorizeRead(ctx, op, "requests", snap.ID, who, snap.Plan.Target); err != nil {
			return err
		}
	}
	b.replyPrivately(ctx, d, snap.ID+" is "+snap.Summary(), append(draw(snap.Request, textLimits{}, who.ID == snap.Requester.ID), journalBlocks(snap.Request)...)...)
	return nil
}

// replyPrivately answers one person alone: with the response URL while it is
// valid, else with an ephemeral message, else with a direct message. A long
// answer is split into several messages. It is never the only copy of anything.
func (b *Bot) replyPrivately(ctx context.Context, d interaction, text string, blocks ...slack.Block) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	if len(blocks) == 0 { // as blocks, nothing in it can be a link or formatting
		blocks = []slack.Block{paragraphs(textLine("%s", text))}
	}
	text = fallback("%s", text)
	for _, page := range pages(blocks) {
		if err := b.replyPrivatelyOnce(ctx, d, text, page); err != nil {
			b.Log.Warn("somebody could not be answered", "user", d.User, "error", err)
			return
		}
	}
}

func (b *Bot) replyPrivatelyOnce(ctx context.Context, d interaction, text string, blocks []slack.Block) error {
	if d.ResponseURL != "" {
		err := slack.PostWebhookCustomHTTPContext(ctx, d.ResponseURL, b.HTTP, &slack.WebhookMessage{
			Text: text, ResponseType: slack.ResponseTypeEphemeral, Blocks: &slack.Blocks{BlockSet: blocks},
		})
		if err == nil {
			return nil
		}
	}
	options := []slack.MsgOption{slack.MsgOptionText(text, false), slack.MsgOptionBlocks(blocks...)}
	if d.Channel != "" {
		if _, err := b.api.PostEphemeralContext(ctx, d.Channel, d.User, options...); err == nil {
			return nil
		}
	}
	_, err := b.postDirect(ctx, d.User, options...)
	return err
}

// postDirect posts a direct message and says where it is.
func (b *Bot) postDirect(ctx context.Context, user string, options ...slack.MsgOption) (approvals.Card, error) {
	im, _, _, err := b.api.OpenConversationContext(ctx, &slack.OpenConversationParameters{Users: []string{user}})
	if err != nil {
		return approvals.Card{}, err
	}
	channel, ts, err := b.api.PostMessageContext(ctx, im.ID, options...)
	return approvals.Card{Channel: channel, TS: ts}, err
}

// cardText is the notification of a card.
func cardText(r approvals.Request) string {
	return fallback("%s for %s: %s (%s)", r.Plan.Title, r.Plan.Target, headline(r), r.ID)
}

// isPostedToAudit reports whether the audit channel gets a line for a kind of
// event. Steps are part of the line about the end.
func isPostedToAudit(k audit.Kind) bool {
	return !slices.Contains([]audit.Kind{audit.StepEnded}, k)
}
