package bot

import (
	"context"
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

// What a request that runs before anybody approved it needs in Slack: a form
// that asks why, news for everybody who could have approved, a review by
// somebody else, and reminders of that.

// openBreakGlass opens the form that asks why a request cannot wait for an
// approval. It opens at once, because the person is in a hurry. The target, and
// whether this person may use break-glass, are filled in later.
func (b *Bot) openBreakGlass(ctx context.Context, id, trigger string, d interaction) {
	view, err := b.open(ctx, trigger, b.breakGlassForm(d))
	if err != nil {
		b.replyPrivately(ctx, d, "That took too long, and Slack no longer lets Countersign open a form. Nothing happened. Press Use break-glass again.")
		return
	}
	b.fillForm(ctx, id, view, d, "Use break-glass", func(note ...slack.Block) slack.ModalViewRequest { return b.breakGlassForm(d, note...) }, nil)
}

// fillForm completes a form that is open already: it adds the target and what
// about returns, or says why this person may not submit it, so that nobody types
// for nothing. Everything is checked again when the form is submitted.
func (b *Bot) fillForm(ctx context.Context, id, view string, d interaction, title string, form func(note ...slack.Block) slack.ModalViewRequest, about func(approvals.Request) []slack.Block) {
	b.runInBackground(id, func() {
		ctx, cancel := context.WithTimeout(ctx, b.Service.Store.Timing().LookUps)
		defer cancel()
		r, err := b.checkFormAllowed(ctx, id, d)
		no := (*approvals.Refusal)(nil)
		var content slack.ModalViewRequest
		switch {
		case err == nil:
			notes := []slack.Block{paragraphs(line{}.bold(r.Plan.Title).text(" for ").who(r.Plan.Target).raw(" (").code(r.ID).raw(")"))}
			if about != nil {
				notes = append(notes, about(r)...)
			}
			content = form(notes...)
		case errors.As(err, &no) && no.Code != approvals.CodeUnchecked:
			content = modal(title, "", viewMeta{}, paragraphs(textLine("%s", no.Sentence)))
		default: // it may pass, and what is being typed must not be lost
			content = form(paragraphs(textLine("⚠️ %s", errorSentence(err))))
		}
		b.fill(ctx, view, content)
	})
}

// checkFormAllowed checks whether somebody is allowed to do what the form of a
// button is for.
func (b *Bot) checkFormAllowed(ctx context.Context, op string, d interaction) (approvals.Request, error) {
	who, err := b.actor(ctx, d)
	if isInconclusive(err) {
		return approvals.Request{}, err
	}
	if err != nil {
		return approvals.Request{}, b.recordRefusal(ctx, op, d, who, err)
	}
	snap, err := b.Service.Store.Load(ctx, d.Request)
	if err != nil {
		return approvals.Request{}, refuseMissingRequest(err)
	}
	account, err := b.Service.Rights(ctx, who)
	if err == nil {
		err = b.checkAllowed(ctx, d, account, snap)
	}
	if isInconclusive(err) {
		return snap.Request, err
	}
	if err != nil {
		return snap.Request, b.recordRefusal(ctx, op, d, who, err)
	}
	return snap.Request, nil
}

// isInconclusive reports whether a check before the submission forbids nothing:
// it failed, or the request is over, perhaps because of this very form. Nothing
// was attempted yet, so nothing is recorded.
func isInconclusive(err error) bool {
	no := (*approvals.Refusal)(nil)
	return errors.As(err, &no) && slices.Contains([]approvals.Code{approvals.CodeUnchecked, approvals.CodeDecided, approvals.CodeExpired}, no.Code)
}

// checkAllowed checks the policy, the channel and the request itself.
func (b *Bot) checkAllowed(ctx context.Context, d interaction, who approvals.Account, snap approvals.Snapshot) error {
	var a approvals.Action
	switch d.ActionID {
	case actionBreakGlass:
		if no := b.Service.Policy.MayBreakGlass(snap.Plan.Command, snap.Plan.Class, who); no != nil {
			return no
		}
		if err := b.checkBreakGlassChannel(ctx, d, who.Person); err != nil {
			return err
		}
		a = approvals.BreakGlass{By: who.Person, Why: "?"}
	case actionDeny, actionJustified, actionNotJustified:
		if err := b.checkChannelAllowed(ctx, d); err != nil {
			return err
		}
		may := b.Service.Policy.MayReview
		a = approvals.ReviewBreakGlass{By: who.Person, Verdict: approvals.VerdictNotJustified, Remark: "?"}
		if d.ActionID == actionDeny {
			may, a = b.Service.Policy.MayDecide, approvals.Deny{By: who.Person}
		}
		// Of those who have a part in it, the request itself has the better sentence.
		if party := snap.Requester.ID == who.ID || snap.Plan.Target.ID == who.ID; !party || d.ActionID != actionDeny {
			if no := may(snap.Plan.Command, snap.Plan.Class, who, snap.Requester.ID == snap.Plan.Target.ID); no != nil {
				return no
			}
		}
	}
	_, _, err := approvals.Apply(snap.Request, a, snap.Now)
	return err
}

// breakGlassForm is that form. note says whom it is about.
func (b *Bot) breakGlassForm(d interaction, note ...slack.Block) slack.ModalViewRequest {
	blocks := slices.Clone(note)
	why := slack.NewPlainTextInputBlockElement(plain("Laptop stolen, sign-ins from abroad", 150), blockReason)
	why.Multiline, why.MaxLength = true, commands.MaxJustification
	blocks = append(blocks,
		input(blockReason, "Why can it not wait for an approval?", "Everybody who could have approved reads this, and so do the auditors.", why))
	blocks = append(blocks, list("What happens when you use break-glass", slack.RTEListBullet, []line{
		textLine("It runs at once. Nobody approves it first."),
		textLine("Everybody who could have approved it is told now: who, whom, what and why."),
		textLine("Somebody else has to review it, and is reminded until they have."),
		textLine("You can do this %s.", b.Service.Policy.Limits.BreakGlassLimit()),
	})...)
	view := modal("Use break-glass", viewBreakGlass, viewMeta{Request: d.Request, Channel: d.Channel, Card: d.Card}, blocks...)
	view.Submit, view.Close = plain("Use break-glass", 24), plain("Back", 24)
	return view
}

// checkBreakGlassChannel refuses break-glass from a card in a channel that is no
// longer used for decisions. The requester may also use their own copy of the
// card.
func (b *Bot) checkBreakGlassChannel(ctx context.Context, d interaction, who approvals.Person) error {
	if d.Channel == b.ApprovalsChannel {
		return b.checkChannelAllowed(ctx, d)
	}
	snap, err := b.Service.Store.Load(ctx, d.Request)
	switch {
	case errors.Is(err, approvals.ErrNoRequest): // the service says so, and records it
		return nil
	case err != nil:
		return err
	case snap.Requester.ID != who.ID:
		return approvals.Refuse(approvals.CodeChannel, "Only %s, who asked for it, can use break-glass from here. Do it on the card in the approvals channel.", snap.Requester)
	}
	return nil
}

// breakGlassTyped handles a request whose requester typed break-glass. If it is
// refused, the request waits for approval like any other, and the requester is
// told both. before says that the request was open already.
func (b *Bot) breakGlassTyped(ctx context.Context, op string, d interaction, in commands.Input, who approvals.Person, r approvals.Request, before bool) error {
	after, err := b.Service.BreakGlass(ctx, op+"#glass", r.ID, who, in.Justification)
	no := (*approvals.Refusal)(nil)
	switch {
	case err == nil:
		const rest = "with break-glass. Everybody who could have approved it is told now, and somebody else has to review it. You get a direct message when it is done."
		b.replyPrivately(ctx, d, fmt.Sprintf("%s for %s runs now as %s, %s", after.Plan.Title, after.Plan.Target, after.ID, rest), paragraphs(
			textLine("🚨 %s for ", after.Plan.Title).who(after.Plan.Target).text(" runs now as ").code(after.ID).text(", %s", rest)))
		return nil
	case !errors.As(err, &no):
		return err
	}
	if after.State != approvals.StatePending {
		b.replyPrivately(ctx, d, no.Sentence)
		return nil
	}
	rest := fmt.Sprintf("and waits for %s. Break-glass was refused: %s", otherPeople(after.Requirements.Approvals), no.Sentence)
	is := "is requested as"
	if before {
		is = "is already requested as"
	}
	b.replyPrivately(ctx, d, fmt.Sprintf("%s for %s %s %s %s", after.Plan.Title, after.Plan.Target, is, after.ID, rest), paragraphs(
		textLine("%s for ", after.Plan.Title).who(after.Plan.Target).text(" %s ", is).code(after.ID).text(" %s", rest)))
	return nil
}

// offersBreakGlass reports whether the requester's copy of a card has the
// button. If that cannot be found out quickly, it has: the click is checked
// anyway.
func (b *Bot) offersBreakGlass(ctx context.Context, id string) bool {
	r, err := b.Service.Store.Load(ctx, id)
	if err != nil || r.State != approvals.StatePending || !r.Requirements.BreakGlass {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	account, err := b.Service.Rights(ctx, r.Requester)
	no := (*approvals.Refusal)(nil)
	switch {
	case errors.As(err, &no) && no.Code != approvals.CodeUnchecked:
		return false
	case err != nil:
		return true
	}
	return b.Service.Policy.MayBreakGlass(r.Plan.Command, r.Plan.Class, account) == nil
}

// openReview asks for the remark of a review. What has to be reviewed is filled
// in.
func (b *Bot) openReview(ctx context.Context, id, trigger string, d interaction) {
	view, err := b.open(ctx, trigger, reviewForm(d))
	if err != nil {
		b.replyPrivately(ctx, d, "That took too long, and Slack no longer lets Countersign open a form. Nothing happened. Press it again.")
		return
	}
	b.fillForm(ctx, id, view, d, "Review", func(below ...slack.Block) slack.ModalViewRequest { return reviewForm(d, below...) }, func(r approvals.Request) []slack.Block {
		return append(draw(r, textLimits{}, false), journalBlocks(r)...) // whoever may review may read it
	})
}

// reviewForm is that form, with what there is to judge below it.
func reviewForm(d interaction, below ...slack.Block) slack.ModalViewRequest {
	title, label := "Justified", "A remark, if you like"
	text := "You say with your name that it was right to run this before anybody approved it."
	if d.ActionID == actionNotJustified {
		title, label = "Not justified", "What was wrong?"
		text = "You say with your name that this should have waited for an approval. Nothing is undone by it; the people concerned are told, and it is recorded."
	}
	remark := slack.NewPlainTextInputBlockElement(nil, blockReason)
	remark.Multiline, remark.MaxLength = true, commands.MaxJustification
	box := input(blockReason, label, "Whoever used break-glass reads this, and so do the auditors.", remark)
	box.Optional = d.ActionID == actionJustified
	blocks := append([]slack.Block{paragraphs(textLine("%s", text)), box}, below...)
	view := modal(title, viewReview, viewMeta{Request: d.Request, Channel: d.Channel, Card: d.Card, ActionID: d.ActionID}, blocks...)
	view.Submit, view.Close = plain(title, 24), plain("Back", 24)
	return view
}

// The names under which the messages about break-glass are remembered, so
// that an event that comes twice is told once. Those to single people have the
// Slack id behind a colon.
const (
	messageAlarm          = "alarm" // in the approvals channel
	messageSecurity       = "security"
	messageEverybody      = "everybody" // the same to all who are there, where not everybody could be told otherwise
	messageApprover       = "glass"
	messageReviewed       = "reviewed"
	messageBreakGlassUser = "breaker"
	messageExpiring       = "expiring"
)

// postOnce posts a message that a redelivered event must not post again. If
// Slack's reply is lost, there may be one message too many.
func (b *Bot) postOnce(ctx context.Context, e audit.Event, name string, known map[string]approvals.Card, post func() (approvals.Card, error)) (approvals.Card, error) {
	if card, told := known[name]; told {
		return card, nil
	}
	card, err := post()
	if err != nil {
		return card, err
	}
	known[name] = card
	return card, b.Service.Store.SetCard(ctx, e.Request, name, card)
}

// alertApprovers notifies everybody who could have approved a break-glass
// request, and the security team. It has a projection of its own, because there
// may be many people to notify, and other notifications should not wait for
// that.
func (b *Bot) alertApprovers(ctx context.Context, batch []audit.Event) (int, error) {
	return each(ctx, batch, b.alert)
}

func (b *Bot) alert(ctx context.Context, e audit.Event) error {
	if e.Kind != audit.UsedBreakGlass {
		return nil
	}
	snap, err := b.Service.Store.Load(ctx, e.Request)
	if err != nil {
		return ignore(err, approvals.ErrNoRequest)
	}
	known, err := b.Service.Store.Cards(ctx, e.Request)
	if err != nil {
		return err
	}
	// The channel comes first and waits for no look-up.
	handles := b.approverHandles(snap.Request)
	alarm, err := b.postOnce(ctx, e, messageAlarm, known, func() (approvals.Card, error) {
		return b.postToApprovals(ctx, e, b.breakGlassBlocks(ctx, e, known, handles, "")...)
	})
	if err := b.passing(e, err); err != nil {
		return err
	}
	if _, err := b.postOnce(ctx, e, messageSecurity, known, func() (approvals.Card, error) {
		return approvals.Card{Channel: b.SecurityChannel}, b.warn(ctx, e)
	}); err != nil {
		return err
	}

	// What follows leads to the card, which another projection posts meanwhile.
	if err := b.awaitCard(ctx, e, known); err != nil {
		return err
	}
	said := ""
	who, err := b.approversOf(ctx, snap.Request, e.Actor, e.Requester, e.Target)
	switch {
	case err != nil && !isPermanent(err) && time.Since(e.At) < lost:
		return err
	case err != nil:
		b.Log.Error("who could have approved cannot be found out", "request", e.Request, "error", err)
		said = "Who could have approved it could not be looked up."
	case who.tooMany:
		said = fmt.Sprintf("More than %d people could have approved it, too many for a message to each.", maxNotified)
	default:
		told := 0
		for _, account := range who.accounts {
			_, err := b.postOnce(ctx, e, messageApprover+":"+account, known, func() (approvals.Card, error) {
				if err := b.learnCard(ctx, e, known); err != nil {
					return approvals.Card{}, err
				}
				return b.postDirect(ctx, account, b.breakGlassNotice(ctx, e, known, alarm)...)
			})
			if err := b.passing(e, err); err != nil {
				return err
			}
			if err != nil {
				who.unknown++
				continue
			}
			told++
		}
		said = notifiedCount(told, who.unknown)
		if told > 0 || len(handles) > 0 || who.unknown == 0 {
			break
		}
		who.tooMany = true // nobody has heard of it yet
	}
	if alarm.TS != "" {
		if err := b.learnCard(ctx, e, known); err != nil {
			return err
		}
		_, _, _, err := b.api.UpdateMessageContext(ctx, alarm.Channel, alarm.TS, slack.MsgOptionText(fallback("%s", e.Line()), false),
			slack.MsgOptionBlocks(b.breakGlassBlocks(ctx, e, known, handles, said)...))
		if err != nil && !errIs(err, "message_not_found", "cant_update_message") {
			if err := b.passing(e, err); err != nil {
				return err
			}
		}
	}
	if err == nil && !who.tooMany {
		return nil
	}
	_, err = b.postOnce(ctx, e, messageEverybody, known, func() (approvals.Card, error) {
		return b.postToApprovals(ctx, e, paragraphs(append(line{}.everybody().text(" %s So everybody here is told: ", said).who(e.Actor).
			text(" used break-glass for %s for ", e.Title).who(e.Target).raw(" (").code(e.Request).raw(")."), b.linkToCard(ctx, known, alarm)...)))
	})
	return b.passing(e, err)
}

// learnCard checks whether the card of a request exists by now.
func (b *Bot) learnCard(ctx context.Context, e audit.Event, known map[string]approvals.Card) error {
	if _, there := known[cardApprovers]; there {
		return nil
	}
	cards, err := b.Service.Store.Cards(ctx, e.Request)
	if card, there := cards[cardApprovers]; there {
		known[cardApprovers] = card
	}
	return err
}

// awaitCard waits a moment for the card. The notification does not depend on it.
func (b *Bot) awaitCard(ctx context.Context, e audit.Event, known map[string]approvals.Card) error {
	const most = 5 * time.Second
	for began := time.Now(); ; {
		if err := b.learnCard(ctx, e, known); err != nil {
			return err
		}
		if _, there := known[cardApprovers]; there || time.Since(began) > most {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// notifiedCount says how many of those who could have approved were notified.
func notifiedCount(told, missed int) string {
	var text string
	switch {
	case told == 0 && missed == 0:
		return "Nobody else could have approved it."
	case told == 1:
		text = "One other person could have approved it and was told by direct message."
	case told > 1:
		text = fmt.Sprintf("%d other people could have approved it and were told by direct message.", told)
	}
	not := "not"
	if told == 0 {
		not = "not told"
	}
	switch {
	case missed == 1:
		text += fmt.Sprintf(" One who could have approved it was %s: their Slack account is not known or does not take messages.", not)
	case missed > 1:
		text += fmt.Sprintf(" %d who could have approved it were %s: their Slack accounts are not known or do not take messages.", missed, not)
	}
	return strings.TrimSpace(text)
}

// isPermanent reports whether a look-up will fail again later.
func isPermanent(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}

// approverHandles are the Slack user groups among those who could have
// approved.
func (b *Bot) approverHandles(r approvals.Request) []string {
	var ids []string
	for _, name := range b.Service.Policy.Approvers(r.Plan.Command, r.Plan.Class, r.Requester.ID == r.Plan.Target.ID) {
		ids = append(ids, b.Service.Policy.Groups[name].Slack...)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// breakGlassBlocks is the message about break-glass in the approvals channel.
// said is who was notified, once that is known.
func (b *Bot) breakGlassBlocks(ctx context.Context, e audit.Event, known map[string]approvals.Card, handles []string, said string) []slack.Block {
	lines := []line{
		line{}.bold("🚨 Break-glass used").raw(" by ").who(e.Actor).raw(", ").when(e.At),
		line{}.bold(e.Title).text(" for ").who(e.Target).raw(" (").code(e.Request).raw(")").text(" runs before anybody approved it."),
		line{}.bold("Why: ").text("%s", e.Reason),
	}
	if len(handles) > 0 {
		l := line{}
		for _, id := range handles {
			l = l.group(id).raw(" ")
		}
		lines = append(lines, l.text("You could have approved it, so you are told."))
	}
	lines = append(lines, append(textLine("Somebody else has to say on its card whether it was justified."), b.linkToCard(ctx, known, approvals.Card{})...))
	blocks := []slack.Block{paragraphs(lines...)}
	if said != "" {
		blocks = append(blocks, small("%s", said))
	}
	return blocks
}

// breakGlassNotice is the message to somebody who could have approved.
func (b *Bot) breakGlassNotice(ctx context.Context, e audit.Event, known map[string]approvals.Card, alarm approvals.Card) []slack.MsgOption {
	lines := []line{
		line{}.text("🚨 ").who(e.Actor).text(" used break-glass: ").bold(e.Title).text(" for ").who(e.Target).raw(" (").code(e.Request).raw(")").text(" runs before anybody approved it."),
		line{}.bold("Why: ").text("%s", e.Reason),
		append(textLine("You could have approved it, so you are told. Somebody has to say in the approvals channel whether it was justified; it can be you."), b.linkToCard(ctx, known, alarm)...),
	}
	return []slack.MsgOption{
		slack.MsgOptionText(fallback("%s used break-glass: %s for %s (%s)", e.Actor, e.Title, e.Target, e.Request), false),
		slack.MsgOptionBlocks(paragraphs(lines...)),
	}
}

// linkToCard links to the card of a request in the approvals channel, or to a
// message near it. It is empty if Slack does not return the address.
func (b *Bot) linkToCard(ctx context.Context, known map[string]approvals.Card, near approvals.Card) line {
	text := "Go to its card"
	card, there := known[cardApprovers]
	if !there {
		card, text = near, "Go to the alarm"
	}
	if card.TS == "" {
		return nil
	}
	address, err := b.api.GetPermalinkContext(ctx, &slack.PermalinkParameters{Channel: card.Channel, Ts: card.TS})
	if err != nil {
		b.Log.Debug("Slack does not say where a card is", "error", err)
		return nil
	}
	return line{}.raw(" ").link(address, text)
}

// postToApprovals posts into the approvals channel if that is still private. If
// not, the other notifications do not wait for it.
func (b *Bot) postToApprovals(ctx context.Context, e audit.Event, blocks ...slack.Block) (approvals.Card, error) {
	err := b.guard.check(ctx, b.ApprovalsChannel, channelMaxAge)
	if no := (*unfitChannel)(nil); errors.As(err, &no) {
		b.Log.Error("the approvals channel was not told", "event", e.Kind, "request", e.Request, "error", no)
		return approvals.Card{}, nil
	}
	if err != nil {
		return approvals.Card{}, err
	}
	channel, ts, err := b.api.PostMessageContext(ctx, b.ApprovalsChannel, slack.MsgOptionText(fallback("%s", e.Line()), false), slack.MsgOptionBlocks(blocks...))
	return approvals.Card{Channel: channel, TS: ts}, err
}

// reviewed notifies the requester and the person who used break-glass of the
// review, and the security team if it was not justified.
func (b *Bot) reviewed(ctx context.Context, e audit.Event) error {
	l := line{}.text("✅ ").who(e.Actor).text(" reviewed it and found it justified: ")
	if e.Outcome != approvals.VerdictJustified {
		l = line{}.text("⚠️ ").who(e.Actor).text(" reviewed it and found it ").bold("not justified").text(": ")
	}
	l = l.text("%s for ", e.Title).who(e.Target).raw(" (").code(e.Request).raw(")").text(", which ran with break-glass.")
	if e.Reason != "" {
		l = l.text(" They say: “%s”", e.Reason)
	}
	known, err := b.Service.Store.Cards(ctx, e.Request)
	if err != nil {
		return err
	}
	told := []string{"", e.Actor.Slack}
	for _, to := range []string{e.Requester.Slack, e.BreakGlass.Slack} {
		if slices.Contains(told, to) {
			continue
		}
		told = append(told, to)
		_, err := b.postOnce(ctx, e, messageReviewed+":"+to, known, func() (approvals.Card, error) {
			return b.postDirect(ctx, to, directNotice(e, "reviewed: "+e.Outcome, l)...)
		})
		if err := b.passing(e, err); err != nil {
			return err
		}
	}
	if e.Outcome == approvals.VerdictJustified {
		return nil
	}
	return b.warn(ctx, e)
}

// notifyBreakGlassUser notifies the person who used break-glass for somebody
// else's request of what its requester is told.
func (b *Bot) notifyBreakGlassUser(ctx context.Context, e audit.Event, text string, l line) error {
	to := e.BreakGlass
	if e.Kind == audit.UsedBreakGlass || to.Slack == "" || to.ID == e.Requester.ID || to.ID == e.Actor.ID {
		return nil
	}
	known, err := b.Service.Store.Cards(ctx, e.Request)
	if err != nil {
		return err
	}
	_, err = b.postOnce(ctx, e, messageBreakGlassUser+":"+string(e.Kind), known, func() (approvals.Card, error) {
		return b.postDirect(ctx, to.Slack, directNotice(e, text, append(line{}.text("You used break-glass for it. "), l...))...)
	})
	return b.passing(e, err)
}

// directNotice is a direct message of one paragraph about a request.
func directNotice(e audit.Event, text string, l line) []slack.MsgOption {
	return []slack.MsgOption{
		slack.MsgOptionText(fallback("%s for %s: %s (%s)", e.Title, e.Target, text, e.Request), false),
		slack.MsgOptionBlocks(paragraphs(l)),
	}
}

// remindReview asks the approvals channel for a review that is still due.
func (b *Bot) remindReview(ctx context.Context, e audit.Event) error {
	snap, err := b.Service.Store.Load(ctx, e.Request)
	if err != nil {
		return ignore(err, approvals.ErrNoRequest)
	}
	if snap.State != approvals.StateReview {
		return nil // given in the meantime
	}
	known, err := b.Service.Store.Cards(ctx, e.Request)
	if err != nil {
		return err
	}
	return b.note(ctx, e, b.ApprovalsChannel, []slack.Block{paragraphs(
		line{}.text("🔔 ").bold("Still to be reviewed: ").who(snap.BreakGlass.By).text(" used break-glass for %s for ", e.Title).who(e.Target).raw(" (").code(e.Request).raw("), ").when(snap.BreakGlass.At),
		line{}.bold("Why: ").text("%s", snap.BreakGlass.Reason),
		append(textLine("Somebody else has to say on its card whether it was justified."), b.linkToCard(ctx, known, approvals.Card{})...))})
}

// remindExpiry tells the approvers, and whoever asked, that nobody has decided
// yet and that time runs out.
func (b *Bot) remindExpiry(ctx context.Context, e audit.Event) error {
	snap, err := b.Service.Store.Load(ctx, e.Request)
	if err != nil {
		return ignore(err, approvals.ErrNoRequest)
	}
	if snap.State != approvals.StatePending || !snap.Now.Before(snap.Deadline) {
		return nil // decided or over in the meantime
	}
	known, err := b.Service.Store.Cards(ctx, e.Request)
	if err != nil {
		return err
	}
	about := line{}.bold(e.Title).text(" for ").who(e.Target).raw(" (").code(e.Request).raw(") expires ").when(snap.Deadline).
		text(", with %d of %d approvals.", len(snap.Approvals), snap.Requirements.Approvals)
	_, err = b.postOnce(ctx, e, messageExpiring, known, func() (approvals.Card, error) {
		left, needed := snap.Requirements.Approvals-len(snap.Approvals), "1 more approval is needed."
		if left != 1 {
			needed = fmt.Sprintf("%d more approvals are needed.", left)
		}
		act := line{}
		for _, id := range b.approverHandles(snap.Request) {
			act = act.group(id).raw(" ")
		}
		act = append(act.text("Approve or deny it on its card; %s", needed), b.linkToCard(ctx, known, approvals.Card{})...)
		return b.postToApprovals(ctx, e, paragraphs(append(line{}.text("⏳ "), about...), act))
	})
	if err := b.passing(e, err); err != nil {
		return err
	}
	to := e.Requester.Slack
	if to == "" {
		return nil
	}
	_, err = b.postOnce(ctx, e, messageExpiring+":"+to, known, func() (approvals.Card, error) {
		return b.postDirect(ctx, to, directNotice(e, "about to expire", append(line{}.text("⏳ Your request: "), about...).text(" A reminder was posted in the approvals channel. Speak to one of them if it is urgent."))...)
	})
	return b.passing(e, err)
}

// reviewsFor returns the requests that a person may review. It is only for
// display; the click is checked like any other.
func (b *Bot) reviewsFor(who approvals.Account, open []approvals.Snapshot) (theirs, rest []approvals.Snapshot) {
	for _, s := range open {
		mine := s.State == approvals.StateReview && !s.TookPart(who.ID) &&
			b.Service.Policy.MayReview(s.Plan.Command, s.Plan.Class, who, s.Requester.ID == s.Plan.Target.ID) == nil
		if mine {
			theirs = append(theirs, s)
		} else {
			rest = append(rest, s)
		}
	}
	return theirs, rest
}
