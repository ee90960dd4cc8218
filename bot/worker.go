package bot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

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
	// Another reader takes an entry over that is idle for longer.
	ctx, cancel := context.WithTimeout(ctx, b.Desk.Store.Timing().Takeover*9/10)
	defer cancel()
	if a.Stale || a.Poisoned {
		why := "it waited for more than " + b.Desk.Store.Timing().Stale.String()
		if a.Poisoned {
			why = "it failed again and again"
		}
		b.whisper(ctx, d, fmt.Sprintf("What you did at %s was not carried out: %s. Look at %s, and do it again if it is still needed.",
			a.At.UTC().Format("15:04 UTC"), why, b.slash("requests")))
		return nil
	}
	who, err := b.people.actor(ctx, d.User)
	if err != nil {
		return b.answer(ctx, d, b.Desk.Refused(ctx, a.Envelope, b.about(ctx, d), who, err))
	}
	if d.Press != "" {
		return b.answer(ctx, d, b.press(ctx, a.Envelope, d, who))
	}
	c, ok := commands.Lookup(d.Command)
	if !ok {
		return nil
	}
	in, problems := commands.Parse(c, d.Text)
	if len(problems) > 0 {
		return b.answer(ctx, d, approvals.Refuse(approvals.CodeMissing, "%s", said(problems)))
	}
	switch c.Name {
	case "help":
		return b.answer(ctx, d, b.help(ctx, d, in, who))
	case "requests":
		return b.answer(ctx, d, b.requests(ctx, a.Envelope, d, in, who))
	}
	return b.answer(ctx, d, b.onTarget(ctx, a.Envelope, d, in, who))
}

// about is what a refused deed was about, as far as it can be told.
func (b *Bot) about(ctx context.Context, d deed) approvals.Plan {
	if d.Request != "" {
		if snap, err := b.Desk.Store.Load(ctx, d.Request); err == nil {
			return approvals.Plan{Command: snap.Plan.Command, Title: "to " + d.Press + " " + d.Request + ", " + snap.Plan.Title, Class: snap.Plan.Class, Target: snap.Plan.Target}
		}
	}
	c, _ := commands.Lookup(d.Command)
	return approvals.Plan{Command: c.Name, Title: c.Title, Class: c.Class}
}

// answer tells a person what became of a deed where nobody else will. A
// refusal is an answer; any other error brings the entry back.
func (b *Bot) answer(ctx context.Context, d deed, err error) error {
	if err == nil {
		return nil
	}
	no := (*approvals.Refusal)(nil)
	if errors.As(err, &no) {
		b.whisper(ctx, d, no.Sentence)
		return nil
	}
	b.Log.Warn("a deed failed and will be tried again", "user", d.User, "error", err)
	return err
}

// press carries out a button.
func (b *Bot) press(ctx context.Context, op string, d deed, who approvals.Person) error {
	var err error
	switch d.Press {
	case pressApprove, pressDeny, pressHalt:
		if no := b.place(ctx, d); no != nil {
			return b.Desk.Refused(ctx, op, b.about(ctx, d), who, no)
		}
	}
	switch d.Press {
	case pressApprove:
		_, err = b.Desk.Approve(ctx, op, d.Request, who)
	case pressDeny:
		_, err = b.Desk.Deny(ctx, op, d.Request, who, d.Reason)
	case pressCancel:
		_, err = b.Desk.Cancel(ctx, op, d.Request, who)
	case pressHalt:
		_, err = b.Desk.Stop(ctx, op, d.Request, who, "pressed Halt")
	}
	if err != nil && d.Card.TS != "" {
		b.repair(ctx, d)
	}
	return err
}

// place refuses presses outside the approvals channel, and inside it when
// that channel is no longer a private one of ours.
func (b *Bot) place(ctx context.Context, d deed) *approvals.Refusal {
	if d.Channel != b.ApprovalsChannel {
		return approvals.Refuse(approvals.CodeChannel, "Requests are decided in the approvals channel only. Open the card there.")
	}
	if err := b.guard.fit(ctx, d.Channel); err != nil {
		return approvals.Refuse(approvals.CodeChannel, "This channel no longer fits for decisions: %s.", err)
	}
	return nil
}

// repair shows a card as its request now is, where a press met an old one.
func (b *Bot) repair(ctx context.Context, d deed) {
	snap, err := b.Desk.Store.Load(ctx, d.Request)
	if err != nil {
		return
	}
	blocks := b.card(snap.Request, true)
	if d.Channel != b.ApprovalsChannel {
		blocks = b.receipt(snap.Request)
	}
	if _, _, _, err := b.api.UpdateMessageContext(ctx, d.Card.Channel, d.Card.TS, slack.MsgOptionText(cardText(snap.Request), false), slack.MsgOptionBlocks(blocks...)); err != nil {
		b.Log.Debug("an old card was not repaired", "request", d.Request, "error", err)
	}
}

// onTarget carries out a command about one person: a look, or a plan that is
// put before the approvers.
func (b *Bot) onTarget(ctx context.Context, op string, d deed, in commands.Input, who approvals.Person) error {
	c := in.Command
	// Whether they may at all comes first: a stranger learns nothing about
	// who is in the tenant.
	if err := b.Desk.MayRequest(ctx, c.Name, c.Class, who); err != nil {
		return b.Desk.Refused(ctx, op, b.about(ctx, d), who, err)
	}
	found, err := b.find(ctx, in.Target)
	if err != nil {
		return b.Desk.Refused(ctx, op, b.about(ctx, d), who, unchecked(err, "%s", sentence(err)))
	}
	if len(found) > 1 {
		b.choose(ctx, d, in, found)
		return nil
	}
	target := found[0]
	if c.Class == approvals.ClassRead {
		return b.look(ctx, op, d, c, who, target)
	}

	if snap, err := b.Desk.Store.Load(ctx, approvals.RequestID(op)); err == nil {
		b.receiptNote(ctx, d, snap.Request) // delivered before
		return nil
	} else if !errors.Is(err, approvals.ErrNoRequest) {
		return err
	}
	about := approvals.Plan{Command: c.Name, Title: c.Title, Class: c.Class, Target: target}
	terms, _, err := b.Desk.Terms(ctx, c.Name, c.Class, who, target)
	if err != nil {
		return b.Desk.Refused(ctx, op, about, who, err)
	}
	plan, err := b.Tenant.Plan(ctx, in, target)
	if nothing := (*commands.NothingToDo)(nil); errors.As(err, &nothing) {
		return b.Desk.Refused(ctx, op, about, who, approvals.Refuse(approvals.CodeNothing, "%s", nothing.Sentence))
	}
	if err != nil {
		return b.Desk.Refused(ctx, op, about, who, unchecked(err, "%s Nothing was requested.", sentence(err)))
	}
	plan.Target.Slack = target.Slack
	r, err := b.Desk.Ask(ctx, op, approvals.Ask{
		Plan: plan, Requester: who, Justification: in.Justification, Ticket: in.Ticket, Verified: in.Verified, Channel: d.Channel, Terms: terms,
	})
	if err != nil {
		return err
	}
	b.receiptNote(ctx, d, r)
	return nil
}

// receiptNote tells the requester at once that it is on its way; the rest
// comes as direct messages.
func (b *Bot) receiptNote(ctx context.Context, d deed, r approvals.Request) {
	people := "one other person"
	if n := r.Terms.Approvals; n > 1 {
		people = fmt.Sprintf("%d other people", n)
	}
	text := fmt.Sprintf("%s for %s is requested as %s and waits for %s. You get a direct message when it is decided.", r.Plan.Title, r.Plan.Target, r.ID, people)
	b.whisper(ctx, d, text, paragraphs(
		say("%s for ", r.Plan.Title).who(r.Plan.Target).say(" is requested as ").code(r.ID).
			say(" and waits for %s. You get a direct message when it is decided.", people)))
}

// find lists whom a reference may mean: at least one person, or an error.
func (b *Bot) find(ctx context.Context, ref commands.Ref) ([]approvals.Person, error) {
	if ref.Slack != "" {
		person, err := b.people.target(ctx, ref.Slack)
		return []approvals.Person{person}, err
	}
	found, err := b.Tenant.Find(ctx, ref)
	if err == nil && len(found) == 0 {
		err = notFound(ref)
	}
	return found, err
}

// choose shows several people for choosing; Countersign never guesses.
func (b *Bot) choose(ctx context.Context, d deed, in commands.Input, found []approvals.Person) {
	blocks := []slack.Block{paragraphs(say("“%s” fits %d people. Nothing was requested yet. Whom do you mean?", in.Target.Typed, len(found)))}
	var buttons []slack.BlockElement
	for i, p := range found[:min(len(found), 10)] {
		one := in
		one.Target = commands.Ref{ObjectID: p.ID, Typed: p.ID}
		value := in.Command.Name + " " + one.String()
		if len(value) > 2000 {
			b.whisper(ctx, d, fmt.Sprintf("“%s” fits %d people. Type the command again with the user principal name.", in.Target.Typed, len(found)))
			return
		}
		buttons = append(buttons, button(fmt.Sprintf("%s:%d", pressChoose, i), value, p.String(), slack.StyleDefault))
	}
	b.whisper(ctx, d, "Several people fit. Whom do you mean?", append(blocks, slack.NewActionBlock("", buttons...))...)
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
func (b *Bot) help(ctx context.Context, d deed, in commands.Input, who approvals.Person) error {
	if len(in.Rest) > 0 {
		name := strings.TrimPrefix(strings.TrimPrefix(in.Rest[0], "/"), b.Prefix)
		if c, ok := commands.Lookup(name); ok {
			blocks := []slack.Block{
				paragraphs(line{}.code(commands.Slash(b.Prefix, c) + " " + c.Usage)),
				paragraphs(say("%s", c.Help)),
			}
			if err := b.Desk.MayRequest(ctx, c.Name, c.Class, who); err != nil {
				blocks = append(blocks, small("%s", sentence(err)))
			} else if c.Class != approvals.ClassRead {
				blocks = append(blocks, small("Decided by: %s.", strings.Join(b.Desk.Policy.Approvers(c.Name, c.Class), ", ")))
			}
			b.whisper(ctx, d, c.Help, blocks...)
			return nil
		}
	}
	b.whisper(ctx, d, "What you may do with Countersign", b.helpBlocks(ctx, who)...)
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
		b.whisper(ctx, d, "The desk", deskBlocks("On the desk", all, "Nothing is waiting.")...)
		return nil
	}
	snap, err := b.Desk.Store.Load(ctx, strings.ToUpper(what))
	if errors.Is(err, approvals.ErrNoRequest) {
		return approvals.Refuse(approvals.CodeNoRequest, "There is no request %s. Say mine, pending, or a request's id such as R-7K3M9QXA.", commands.Plain(what, 40))
	}
	if err != nil {
		return err
	}
	if who.ID != snap.Requester.ID {
		if err := b.Desk.Look(ctx, op, "requests", snap.ID, who, snap.Plan.Target); err != nil {
			return err
		}
	}
	b.whisper(ctx, d, snap.ID+" is "+snap.Says(), append(b.card(snap.Request, false), journal(snap.Request)...)...)
	return nil
}

// whisper answers one person alone: by the response URL while it lives, else
// as an ephemeral message, else as a direct message. It is never the only
// copy of anything.
func (b *Bot) whisper(ctx context.Context, d deed, text string, blocks ...slack.Block) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	text = fallback("%s", text)
	if len(blocks) == 0 {
		blocks = nil
	}
	if d.ResponseURL != "" {
		msg := &slack.WebhookMessage{Text: text, ResponseType: slack.ResponseTypeEphemeral}
		if blocks != nil {
			msg.Blocks = &slack.Blocks{BlockSet: blocks}
		}
		if err := slack.PostWebhookCustomHTTPContext(ctx, d.ResponseURL, b.HTTP, msg); err == nil {
			return
		}
	}
	options := []slack.MsgOption{slack.MsgOptionText(text, false)}
	if blocks != nil {
		options = append(options, slack.MsgOptionBlocks(blocks...))
	}
	if d.Channel != "" {
		if _, err := b.api.PostEphemeralContext(ctx, d.Channel, d.User, options...); err == nil {
			return
		}
	}
	if _, err := b.direct(ctx, d.User, options...); err != nil {
		b.Log.Warn("somebody could not be answered", "user", d.User, "error", err)
	}
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
