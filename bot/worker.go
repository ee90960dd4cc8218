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

// carry carries out one deed of the inbox. The envelope's id is the operation
// id, so a second time gives the same answer and changes nothing more.
func (b *Bot) carry(ctx context.Context, a approvals.Arrival) error {
	var d deed
	if err := json.Unmarshal(a.Payload, &d); err != nil {
		b.Log.Error("a deed cannot be read and is dropped", "envelope", a.Envelope, "error", err)
		return nil
	}
	timing := b.Desk.Store.Timing()
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
		b.whisper(ctx, d, fmt.Sprintf("What you did at %s %s: %s. Look at %s, and do it again if it is still needed.",
			a.At.UTC().Format("15:04 UTC"), what, why, b.slash("requests")))
		return nil
	}
	// A store that fails over is back in seconds; the next delivery is not.
	for pause := 250 * time.Millisecond; ; pause *= 2 {
		err := b.carryOut(ctx, a.Envelope, d)
		no := (*approvals.Refusal)(nil)
		switch {
		case err == nil:
			return nil
		case errors.As(err, &no):
			b.whisper(ctx, d, no.Sentence)
			return nil
		case errors.Is(err, approvals.ErrRewound): // nobody knows when it goes on, and it must not happen then unasked
			b.Log.Warn("a deed is not carried out, because Redis has gone back in time", "envelope", a.Envelope, "user", d.User)
			b.whisper(ctx, d, sentence(err))
			return nil
		case errors.Is(err, approvals.ErrNoKey): // another process has it, and the inbox leaves it to that
			return err
		case pause > 4*time.Second || ctx.Err() != nil:
			b.Log.Warn("a deed failed and will be tried again", "envelope", a.Envelope, "user", d.User, "error", err)
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// carryOut returns a *approvals.Refusal for its author; any other error means
// that it is not known to be done.
func (b *Bot) carryOut(ctx context.Context, op string, d deed) error {
	if d.Foreign != "" {
		return b.refused(ctx, op, d, approvals.Person{Slack: d.User}, stranger)
	}
	who, err := b.comer(ctx, d)
	if err != nil {
		return b.refused(ctx, op, d, who, err)
	}
	if d.Press != "" {
		return b.press(ctx, op, d, who)
	}
	c, ok := commands.Lookup(d.Command)
	if !ok {
		return nil
	}
	in, problems := commands.Parse(c, d.Text)
	if len(problems) > 0 {
		return approvals.Refuse(approvals.CodeMissing, "%s", said(problems))
	}
	switch c.Name {
	case "help":
		return b.help(ctx, op, d, in, who)
	case "requests":
		return b.requests(ctx, op, d, in, who)
	}
	return b.onTarget(ctx, op, d, in, who)
}

// refused records that somebody was told no, and gives err back. Errors that
// are no refusals pass through.
func (b *Bot) refused(ctx context.Context, op string, d deed, who approvals.Person, err error) error {
	// Look-ups may have used up the time, and this must be written down.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if misled := (*misledPair)(nil); errors.As(err, &misled) {
		if err := b.Desk.Alarm(ctx, op, who, misled.Reason); err != nil {
			return err
		}
	}
	c, _ := commands.Lookup(d.Command)
	var said error
	switch {
	case d.Press == pressAgain: // like the command, it asks for a request of its own
		snap, gone := b.Desk.Store.Load(ctx, d.Request)
		if errors.Is(gone, approvals.ErrNoRequest) {
			snap.Plan.Title = "a request that is not there"
		} else if gone != nil {
			return gone
		}
		said = b.Desk.Refused(ctx, op, snap.Plan, who, err)
	case d.Request != "":
		said = b.Desk.RefusedPress(ctx, op, d.Request, tried(d.Press), who, err)
	default:
		said = b.Desk.Refused(ctx, op, approvals.Plan{Command: c.Name, Title: c.Title, Class: c.Class}, who, err)
	}
	looks := d.Press == pressDetails || d.Press == pressReveal || d.Press == "" && c.Class == approvals.ClassRead
	if said == nil && looks {
		return err // it was allowed when it came before, and nobody knows whether its author has seen anything
	}
	return said
}

// tried is what somebody tried to do with a button, in the words of an audit
// line.
func tried(press string) string {
	switch press {
	case pressDetails:
		return "see the details"
	case pressAttest:
		return "report as done"
	case pressGlass:
		return "break the glass"
	case pressJustified, pressNotJustified:
		return "review"
	}
	return press
}

// press carries out a button.
func (b *Bot) press(ctx context.Context, op string, d deed, who approvals.Person) error {
	switch d.Press {
	case pressAgain:
		return b.again(ctx, op, d, who)
	case pressApprove, pressDeny, pressAttest, pressConfirm, pressRetract, pressJustified, pressNotJustified:
		if no := b.place(ctx, d); no != nil {
			return b.refused(ctx, op, d, who, no)
		}
	case pressGlass:
		if no := b.glassPlace(ctx, d, who); no != nil {
			return b.refused(ctx, op, d, who, no)
		}
	}
	b.adopt(ctx, d, who)
	var err error
	switch d.Press {
	case pressApprove:
		_, err = b.Desk.Approve(ctx, op, d.Request, who)
	case pressDeny:
		_, err = b.Desk.Deny(ctx, op, d.Request, who, d.Reason)
	case pressCancel:
		_, err = b.Desk.Cancel(ctx, op, d.Request, who)
	case pressHalt:
		_, err = b.Desk.Stop(ctx, op, d.Request, who, "pressed Halt")
	case pressAttest:
		_, err = b.Desk.Attest(ctx, op, d.Request, who)
	case pressConfirm:
		_, err = b.Desk.Confirm(ctx, op, d.Request, who)
	case pressRetract:
		_, err = b.Desk.Retract(ctx, op, d.Request, who)
	case pressGlass:
		_, err = b.Desk.BreakGlass(ctx, op, d.Request, who, d.Reason)
	case pressJustified:
		_, err = b.Desk.Judge(ctx, op, d.Request, who, approvals.Justified, d.Reason)
	case pressNotJustified:
		_, err = b.Desk.Judge(ctx, op, d.Request, who, approvals.NotJustified, d.Reason)
	}
	if err != nil { // no event will redraw the card that led here
		b.repair(ctx, d, who)
	}
	return err
}

// again asks for what an earlier request of the same person asked for, with
// everything looked up and planned afresh.
func (b *Bot) again(ctx context.Context, op string, d deed, who approvals.Person) error {
	snap, err := b.Desk.Store.Load(ctx, d.Request)
	if err != nil {
		return ignoreGone(err)
	}
	if who.ID != snap.Requester.ID {
		return b.refused(ctx, op, d, who, approvals.Refuse(approvals.CodeNotRequester, "Only %s, who asked for %s, can ask for it again.", snap.Requester, d.Request))
	}
	c, ok := commands.Lookup(snap.Plan.Command)
	if !ok {
		return approvals.Refuse(approvals.CodeMissing, "This Countersign has no command for that any more.")
	}
	in, problems := commands.Parse(c, snap.Plan.Target.ID+" "+snap.Plan.Args)
	if len(problems) > 0 {
		return approvals.Refuse(approvals.CodeMissing, "That cannot be asked for again as it was: %s", said(problems))
	}
	in.Ticket, in.Verified, in.Justification = snap.Ticket, snap.Verified, snap.Justification
	return b.onTarget(ctx, op, d, in, who)
}

// place refuses decisions outside the approvals channel, and inside it when
// that channel is no longer a private one of ours.
func (b *Bot) place(ctx context.Context, d deed) error {
	if d.Channel != b.ApprovalsChannel {
		return approvals.Refuse(approvals.CodeChannel, "Requests are decided in the approvals channel only. Open the card there.")
	}
	err := approvals.Patiently(ctx, b.Desk.Store.Timing().LookUps, func(ctx context.Context) error {
		err := b.guard.fit(ctx, d.Channel, 0)
		if no := (*unfit)(nil); errors.As(err, &no) {
			return approvals.Refuse(approvals.CodeChannel, "This channel is not fit for decisions any more. %s", no.sentence)
		}
		return err
	})
	if err != nil {
		return unchecked(err, "Slack did not tell whether this channel is still private, and what cannot be checked is refused. Try again in a minute.")
	}
	return nil
}

// belongs says that a message is where cards of this request are: in the
// approvals channel, or in its requester's direct messages.
func (b *Bot) belongs(d deed, who approvals.Person, r approvals.Request) bool {
	switch {
	case d.Card.TS == "":
		return false
	case d.Card.Channel == b.ApprovalsChannel:
		return true
	}
	return strings.HasPrefix(d.Card.Channel, "D") && who.ID == r.Requester.ID
}

// adopt keeps a card up to date from now on that a lost reply of Slack left
// over.
func (b *Bot) adopt(ctx context.Context, d deed, who approvals.Person) {
	if d.Card.TS == "" {
		return
	}
	const most = 10 // that lost replies can have left over
	cards, err := b.Desk.Store.Cards(ctx, d.Request)
	for _, card := range cards {
		if card == d.Card {
			return
		}
	}
	if snap, gone := b.Desk.Store.Load(ctx, d.Request); gone != nil || !b.belongs(d, who, snap.Request) || len(cards) >= most {
		return
	}
	name := cardRequester
	if d.Card.Channel == b.ApprovalsChannel {
		name = cardApprovers
	}
	if err == nil {
		err = b.Desk.Store.SetCard(ctx, d.Request, name+":"+d.Card.TS, d.Card)
	}
	if err != nil {
		b.Log.Warn("a spare card is not kept up to date", "request", d.Request, "error", err)
	}
}

// repair shows the pressed card as its request now is.
func (b *Bot) repair(ctx context.Context, d deed, who approvals.Person) {
	glass := b.offersGlass(ctx, d.Request)
	err := b.upToDate(ctx, d.Request, false, func(ctx context.Context, r approvals.Request) error {
		if !b.belongs(d, who, r) {
			return nil
		}
		blocks := b.receipt(r, glass)
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

// onTarget carries out a command about one person: a look, or a plan that is
// put before the approvers.
func (b *Bot) onTarget(ctx context.Context, op string, d deed, in commands.Input, who approvals.Person) error {
	c := in.Command
	// Whether they may at all comes first: a stranger learns nothing about
	// who is in the tenant.
	selfOnly, err := b.Desk.MayRequest(ctx, c.Name, c.Class, who)
	if err == nil && selfOnly && !meant(in.Target, d.User, who) {
		err = onlySelf
	}
	if err != nil {
		return b.refused(ctx, op, d, who, err)
	}
	found, err := b.find(ctx, in.Target)
	if err != nil {
		return b.refused(ctx, op, d, who, unchecked(err, "%s", sentence(err)))
	}
	if len(found) > 1 {
		b.choose(ctx, d, in, found)
		return nil
	}
	target := found[0]
	if c.Class == approvals.ClassRead {
		return b.look(ctx, op, d, c, who, target)
	}

	about := approvals.Plan{Command: c.Name, Title: c.Title, Class: c.Class, Target: target}
	r, delivered, err := b.Desk.Asked(ctx, op)
	if err != nil {
		return b.Desk.Refused(ctx, op, about, who, err)
	}
	if delivered {
		return b.asked(ctx, op, d, in, who, r)
	}
	self := target.ID == who.ID
	if self && in.Verified != approvals.VerifiedCompromise {
		in.Verified = "" // nobody verifies themselves
	}
	// Only now is it certain whether it is their own account, and the policy may
	// have changed since it was typed.
	if missing := commands.Missing(c, in, b.needs(c, self)); len(missing) > 0 {
		return b.Desk.Refused(ctx, op, about, who, approvals.Refuse(approvals.CodeMissing, "%s", lacking(missing)))
	}
	if no := (*unfit)(nil); errors.As(b.guard.fit(ctx, b.ApprovalsChannel, guardAge), &no) {
		return b.Desk.Refused(ctx, op, about, who, approvals.Refuse(approvals.CodeChannel, "Nobody could decide this now, so nothing was requested. %s", no.sentence))
	}
	terms, _, err := b.Desk.Terms(ctx, c.Name, c.Class, who, target)
	if err != nil {
		return b.Desk.Refused(ctx, op, about, who, err)
	}
	if no := b.inVain(ctx, approvals.Request{Plan: about, Requester: who, Terms: terms}); no != nil {
		return b.Desk.Refused(ctx, op, about, who, no)
	}
	plan, err := b.Tenant.Plan(ctx, in, target)
	if nothing := (*commands.NothingToDo)(nil); errors.As(err, &nothing) {
		return b.Desk.Refused(ctx, op, about, who, approvals.Refuse(approvals.CodeNothing, "%s", nothing.Sentence))
	}
	if err != nil {
		return b.Desk.Refused(ctx, op, about, who, unchecked(err, "%s Nothing was requested.", sentence(err)))
	}
	plan.Target.Slack = target.Slack
	r, err = b.Desk.Ask(ctx, op, approvals.Ask{
		Plan: plan, Requester: who, Justification: in.Justification, Ticket: in.Ticket, Verified: in.Verified, Channel: d.Channel, Terms: terms,
	})
	no := (*approvals.Refusal)(nil)
	if in.Glass && errors.As(err, &no) && no.Code == approvals.CodeIdentical {
		// Somebody asked for the same before. Whoever wants it now means that.
		open, err := b.Desk.Store.Load(ctx, no.Request)
		if err != nil {
			return ignoreGone(err)
		}
		return b.breakGlassTyped(ctx, op, d, in, who, open.Request, true)
	}
	if err != nil {
		return err
	}
	return b.asked(ctx, op, d, in, who, r)
}

// inVain refuses what could never be approved, because fewer people are left
// than it needs. One is always left to look for; only where more are needed it is
// counted, and where counting fails, time will tell.
func (b *Bot) inVain(ctx context.Context, r approvals.Request) *approvals.Refusal {
	if r.Terms.Approvals < 2 || r.Terms.Glass {
		return nil
	}
	left, err := b.approversOf(ctx, r, r.Requester, r.Plan.Target)
	n := len(left.accounts) + left.unknown
	if err != nil || left.tooMany || n >= r.Terms.Approvals {
		return nil
	}
	few := "nobody else may give one"
	if n > 0 {
		few = fmt.Sprintf("besides you and %s only %d may give one", r.Plan.Target, n)
	}
	return approvals.Refuse(approvals.CodeVain, "This needs %d approvals, and %s, so nothing was requested. "+
		"If it cannot wait, somebody with the right role does it in the Entra admin center; for the next time, the policy needs more approvers.", r.Terms.Approvals, few)
}

// asked goes on from a request that was just made: it waits, or its author
// wants to break the glass.
func (b *Bot) asked(ctx context.Context, op string, d deed, in commands.Input, who approvals.Person, r approvals.Request) error {
	if in.Glass {
		return b.breakGlassTyped(ctx, op, d, in, who, r, false)
	}
	b.receiptNote(ctx, d, r)
	return nil
}

// onlySelf refuses others' accounts to those who may use a command for their
// own.
var onlySelf = approvals.Refuse(approvals.CodeNotAllowed, "You may use this command for your own account only: mention yourself.")

// meant says that what was typed names the person who typed it, without asking
// anybody: whoever may act for themselves only learns nothing about others.
func meant(r commands.Ref, slackID string, who approvals.Person) bool {
	switch {
	case r.Slack != "":
		return r.Slack == slackID
	case r.ObjectID != "":
		return strings.EqualFold(r.ObjectID, who.ID)
	}
	return r.Name != "" && strings.EqualFold(r.Name, who.UPN)
}

// receiptNote tells the requester at once that it is on its way; the rest
// comes as direct messages.
func (b *Bot) receiptNote(ctx context.Context, d deed, r approvals.Request) {
	people := others(r.Terms.Approvals)
	text := fmt.Sprintf("%s for %s is requested as %s and waits for %s. You get a direct message when it is decided.", r.Plan.Title, r.Plan.Target, r.ID, people)
	b.whisper(ctx, d, text, paragraphs(
		say("%s for ", r.Plan.Title).who(r.Plan.Target).say(" is requested as ").code(r.ID).
			say(" and waits for %s. You get a direct message when it is decided.", people)))
}

// others are so many people besides the requester.
func others(n int) string {
	if n == 1 {
		return "one other person"
	}
	return fmt.Sprintf("%d other people", n)
}

// find lists whom a reference may mean: at least one person, or an error.
func (b *Bot) find(ctx context.Context, ref commands.Ref) ([]approvals.Person, error) {
	if ref.Slack != "" {
		person, err := b.people.target(ctx, ref.Slack)
		return []approvals.Person{person}, err
	}
	var found []approvals.Person
	err := approvals.Patiently(ctx, b.Desk.Store.Timing().LookUps, func(ctx context.Context) (err error) {
		found, err = b.Tenant.Find(ctx, ref)
		return err
	})
	if err == nil && len(found) == 0 {
		err = notFound(ref)
	}
	return found, err
}

// choose shows several people for choosing; Countersign never guesses. They
// are listed whole, because a button may cut a name where it matters.
func (b *Bot) choose(ctx context.Context, d deed, in commands.Input, found []approvals.Person) {
	text := fmt.Sprintf("“%s” fits %d people. Nothing was requested yet. Whom do you mean?", in.Target.Typed, len(found))
	const most = 10
	var people []line
	var buttons []slack.BlockElement
	for i, p := range found[:min(len(found), most)] {
		one := in
		one.Target = commands.Ref{ObjectID: p.ID, Typed: p.ID}
		value := in.Command.Name + " " + one.String()
		people = append(people, line{}.who(p))
		if utf8.RuneCountInString(value) <= maxValue {
			buttons = append(buttons, button(fmt.Sprintf("%s:%d", pressChoose, i), value, fmt.Sprintf("%d. %s", i+1, p.UPN), slack.StyleDefault))
		}
	}
	blocks := append([]slack.Block{paragraphs(say("%s", text))}, list("They are", slack.RTEListOrdered, people)...)
	if len(found) > most {
		blocks = append(blocks, small("and %d more", len(found)-most))
	}
	if len(buttons) == len(found) {
		blocks = append(blocks, slack.NewActionBlock("", buttons...))
	} else {
		blocks = append(blocks, paragraphs(say("Type the command again with the user principal name.")))
	}
	b.whisper(ctx, d, text, blocks...)
}

// look answers a read command: to the one who asked alone, and recorded.
func (b *Bot) look(ctx context.Context, op string, d deed, c commands.Command, who, target approvals.Person) error {
	if err := b.Desk.Look(ctx, op, c.Name, c.Title, who, target); err != nil {
		return err
	}
	profile, err := b.Tenant.Profile(ctx, target.ID)
	if err != nil {
		b.Log.Warn("a profile could not be read", "error", err)
		return approvals.Refuse(approvals.CodeUnchecked, "%s", sentence(err))
	}
	profile.Person.Slack = target.Slack
	b.whisper(ctx, d, "Authentication methods of "+profile.Person.String(), profileBlocks(profile)...)
	return nil
}

// help explains one command, or lists what this person may do.
func (b *Bot) help(ctx context.Context, op string, d deed, in commands.Input, who approvals.Person) error {
	if len(in.Rest) > 0 {
		name := strings.TrimPrefix(strings.TrimPrefix(in.Rest[0], "/"), b.Prefix)
		if c, ok := commands.Lookup(name); ok {
			standing, unknown := b.Desk.Rights(ctx, who)
			glass := unknown == nil && b.Desk.Policy.MayBreakGlass(c.Name, c.Class, standing) == nil
			blocks := []slack.Block{
				paragraphs(line{}.code(commands.Slash(b.Prefix, c) + " " + usage(c, glass))),
				paragraphs(say("%s", c.Help)),
			}
			selfOnly, err := b.Desk.MayRequest(ctx, c.Name, c.Class, who)
			switch {
			case err != nil:
				blocks = append(blocks, small("%s", sentence(err)))
			case c.Class == approvals.ClassRead && selfOnly:
				blocks = append(blocks, small("You may use it for your own account."))
			case c.Class == approvals.ClassRead:
			case selfOnly:
				blocks = append(blocks, small("You may ask for your own account. Decided by: %s.", strings.Join(b.Desk.Policy.Approvers(c.Name, c.Class, true), ", ")))
			default:
				blocks = append(blocks, small("Decided by: %s.", strings.Join(b.Desk.Policy.Approvers(c.Name, c.Class, false), ", ")))
			}
			if glass {
				blocks = append(blocks, small("In an emergency you may run it before anybody approves, %s: write %s behind the person, and why. "+
					"Everybody who could have approved it is told, and somebody else reviews it.", b.Desk.Policy.Limits.Glass(), commands.BreakGlass))
			}
			b.whisper(ctx, d, c.Help, blocks...)
			return nil
		}
	}
	blocks, err := b.helpBlocks(ctx, who)
	if err != nil {
		return b.refused(ctx, op, d, who, err)
	}
	b.whisper(ctx, d, "What you may do with Countersign", blocks...)
	return nil
}

// requests shows the desk, one's own requests, or one request.
func (b *Bot) requests(ctx context.Context, op string, d deed, in commands.Input, who approvals.Person) error {
	what := "mine"
	if len(in.Rest) > 0 {
		what = in.Rest[0]
	}
	var all []approvals.Snapshot
	var err error
	switch strings.ToLower(what) {
	case "mine":
		if all, err = b.Desk.Store.Mine(ctx, who.ID); err != nil {
			return err
		}
		b.whisper(ctx, d, "Your requests", deskBlocks("Your requests", all, "You have requested nothing yet.")...)
		return nil
	case "pending", "open":
		if err := b.Desk.Look(ctx, op, "requests", "the desk", who, approvals.Person{}); err != nil {
			return err
		}
		if all, err = b.Desk.Store.Open(ctx); err != nil {
			return err
		}
		b.whisper(ctx, d, "The desk", b.deskOf(ctx, who, all)...)
		return nil
	}
	snap, err := b.Desk.Store.Load(ctx, strings.ToUpper(what))
	if errors.Is(err, approvals.ErrNoRequest) {
		return b.refused(ctx, op, d, who, approvals.Refuse(approvals.CodeNoRequest, "There is no request %s. Say mine, pending, or a request's id such as R-7K3M9QXA.", commands.Plain(what, 40)))
	}
	if err != nil {
		return err
	}
	if who.ID != snap.Requester.ID {
		if err := b.Desk.Look(ctx, op, "requests", snap.ID, who, snap.Plan.Target); err != nil {
			return err
		}
	}
	b.whisper(ctx, d, snap.ID+" is "+snap.Says(), append(draw(snap.Request, room{}, who.ID == snap.Requester.ID), journal(snap.Request)...)...)
	return nil
}

// whisper answers one person alone: by the response URL while it lives, else
// as an ephemeral message, else as a direct message. What does not fit into
// one message comes in several. It is never the only copy of anything.
func (b *Bot) whisper(ctx context.Context, d deed, text string, blocks ...slack.Block) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	if len(blocks) == 0 { // as blocks, nothing in it can be a link or formatting
		blocks = []slack.Block{paragraphs(say("%s", text))}
	}
	text = fallback("%s", text)
	for _, page := range pages(blocks) {
		if err := b.whisperOne(ctx, d, text, page); err != nil {
			b.Log.Warn("somebody could not be answered", "user", d.User, "error", err)
			return
		}
	}
}

func (b *Bot) whisperOne(ctx context.Context, d deed, text string, blocks []slack.Block) error {
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
	_, err := b.direct(ctx, d.User, options...)
	return err
}

// direct posts a direct message and says where it is.
func (b *Bot) direct(ctx context.Context, user string, options ...slack.MsgOption) (approvals.Card, error) {
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

// told lists the kinds of event the audit channel gets a line for. Steps are
// folded into the line of the end.
func told(k audit.Kind) bool {
	return !slices.Contains([]audit.Kind{audit.Stepped}, k)
}
