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

// openGlass asks why something cannot wait for an approval. Whoever opens it is
// in a hurry, so the form is there at once; whom it is about, and whether this
// person may, is filled in when it is known.
func (b *Bot) openGlass(ctx context.Context, id, trigger string, d deed) {
	view, err := b.open(ctx, trigger, b.glassForm(d))
	if err != nil {
		b.whisper(ctx, d, "That took too long, and Slack no longer lets Countersign open a form. Nothing happened. Press Break glass again.")
		return
	}
	b.ahead(ctx, id, view, d, "Break glass", func(note ...slack.Block) slack.ModalViewRequest { return b.glassForm(d, note...) }, nil)
}

// ahead looks ahead for a form that is open already, so that nobody types in
// vain: it fills in whom it is about, and what about tells of that, or says
// instead why this person may not. What counts is asked again when the form
// comes back.
func (b *Bot) ahead(ctx context.Context, id, view string, d deed, title string, form func(note ...slack.Block) slack.ModalViewRequest, about func(approvals.Request) []slack.Block) {
	b.afterwards(id, func() {
		ctx, cancel := context.WithTimeout(ctx, b.Desk.Store.Timing().LookUps)
		defer cancel()
		r, err := b.may(ctx, id, d)
		no := (*approvals.Refusal)(nil)
		var content slack.ModalViewRequest
		switch {
		case err == nil:
			notes := []slack.Block{paragraphs(line{}.bold(r.Plan.Title).say(" for ").who(r.Plan.Target).gap(" (").code(r.ID).gap(")"))}
			if about != nil {
				notes = append(notes, about(r)...)
			}
			content = form(notes...)
		case errors.As(err, &no) && no.Code != approvals.CodeUnchecked:
			content = modal(title, "", viewMeta{}, paragraphs(say("%s", no.Sentence)))
		default: // it may pass, and what is being typed must not be lost
			content = form(paragraphs(say("⚠️ %s", sentence(err))))
		}
		b.fill(ctx, view, content)
	})
}

// may says whether somebody may do what the form of a button is for.
func (b *Bot) may(ctx context.Context, op string, d deed) (approvals.Request, error) {
	who, err := b.comer(ctx, d)
	if early(err) {
		return approvals.Request{}, err
	}
	if err != nil {
		return approvals.Request{}, b.refused(ctx, op, d, who, err)
	}
	snap, err := b.Desk.Store.Load(ctx, d.Request)
	if err != nil {
		return approvals.Request{}, ignoreGone(err)
	}
	standing, err := b.Desk.Rights(ctx, who)
	if err == nil {
		err = b.allows(ctx, d, standing, snap)
	}
	if early(err) {
		return snap.Request, err
	}
	if err != nil {
		return snap.Request, b.refused(ctx, op, d, who, err)
	}
	return snap.Request, nil
}

// early says of a look ahead that it forbids nothing: it could not be made, or
// the request is over, perhaps by the very form that it was made for and that was
// quicker. Nothing was tried yet, and so nothing is recorded.
func early(err error) bool {
	no := (*approvals.Refusal)(nil)
	return errors.As(err, &no) && slices.Contains([]approvals.Code{approvals.CodeUnchecked, approvals.CodeDecided, approvals.CodeExpired}, no.Code)
}

// allows asks the policy, the place and the request itself.
func (b *Bot) allows(ctx context.Context, d deed, who approvals.Standing, snap approvals.Snapshot) error {
	var a approvals.Action
	switch d.Press {
	case pressGlass:
		if no := b.Desk.Policy.MayBreakGlass(snap.Plan.Command, snap.Plan.Class, who); no != nil {
			return no
		}
		if err := b.glassPlace(ctx, d, who.Person); err != nil {
			return err
		}
		a = approvals.BreakGlass{By: who.Person, Why: "?"}
	case pressDeny, pressJustified, pressNotJustified:
		if err := b.place(ctx, d); err != nil {
			return err
		}
		may := b.Desk.Policy.MayReview
		a = approvals.Judge{By: who.Person, Verdict: approvals.NotJustified, Remark: "?"}
		if d.Press == pressDeny {
			may, a = b.Desk.Policy.MayDecide, approvals.Deny{By: who.Person}
		}
		// Of those who have a part in it, the request itself has the better sentence.
		if party := snap.Requester.ID == who.ID || snap.Plan.Target.ID == who.ID; !party || d.Press != pressDeny {
			if no := may(snap.Plan.Command, snap.Plan.Class, who, snap.Requester.ID == snap.Plan.Target.ID); no != nil {
				return no
			}
		}
	}
	_, _, err := approvals.Apply(snap.Request, a, snap.Now)
	return err
}

// glassForm is that form. note says whom it is about.
func (b *Bot) glassForm(d deed, note ...slack.Block) slack.ModalViewRequest {
	blocks := slices.Clone(note)
	why := slack.NewPlainTextInputBlockElement(plain("Laptop stolen, sign-ins from abroad", 150), blockReason)
	why.Multiline, why.MaxLength = true, commands.MaxJustification
	blocks = append(blocks,
		input(blockReason, "Why can it not wait for an approval?", "Everybody who could have approved reads this, and so do the auditors.", why))
	blocks = append(blocks, list("What happens when you break the glass", slack.RTEListBullet, []line{
		say("It runs at once. Nobody approves it first."),
		say("Everybody who could have approved it is told now: who, whom, what and why."),
		say("Somebody else has to review it, and is reminded until they have."),
		say("You can do this %s.", b.Desk.Policy.Limits.Glass()),
	})...)
	view := modal("Break glass", viewGlass, viewMeta{Request: d.Request, Channel: d.Channel, Card: d.Card}, blocks...)
	view.Submit, view.Close = plain("Break glass", 24), plain("Back", 24)
	return view
}

// glassPlace refuses to break the glass from a card in a channel that is not
// fit for decisions any more. Whoever asked may do it from their own copy of
// the card, too.
func (b *Bot) glassPlace(ctx context.Context, d deed, who approvals.Person) error {
	if d.Channel == b.ApprovalsChannel {
		return b.place(ctx, d)
	}
	snap, err := b.Desk.Store.Load(ctx, d.Request)
	switch {
	case errors.Is(err, approvals.ErrNoRequest): // the desk says so, and records it
		return nil
	case err != nil:
		return err
	case snap.Requester.ID != who.ID:
		return approvals.Refuse(approvals.CodeChannel, "Only %s, who asked for it, can break the glass from here. Do it on the card in the approvals channel.", snap.Requester)
	}
	return nil
}

// breakGlassTyped goes on from a request whose author typed break-glass. Where
// that is refused the request waits like any other, and the author is told
// both. before says that it was open already.
func (b *Bot) breakGlassTyped(ctx context.Context, op string, d deed, in commands.Input, who approvals.Person, r approvals.Request, before bool) error {
	after, err := b.Desk.BreakGlass(ctx, op+"#glass", r.ID, who, in.Justification)
	no := (*approvals.Refusal)(nil)
	switch {
	case err == nil:
		const rest = "with broken glass. Everybody who could have approved it is told now, and somebody else has to review it. You get a direct message when it is done."
		b.whisper(ctx, d, fmt.Sprintf("%s for %s runs now as %s, %s", after.Plan.Title, after.Plan.Target, after.ID, rest), paragraphs(
			say("🚨 %s for ", after.Plan.Title).who(after.Plan.Target).say(" runs now as ").code(after.ID).say(", %s", rest)))
		return nil
	case !errors.As(err, &no):
		return err
	}
	if after.State != approvals.Pending {
		b.whisper(ctx, d, no.Sentence)
		return nil
	}
	rest := fmt.Sprintf("and waits for %s. The glass was not broken: %s", others(after.Terms.Approvals), no.Sentence)
	is := "is requested as"
	if before {
		is = "is already requested as"
	}
	b.whisper(ctx, d, fmt.Sprintf("%s for %s %s %s %s", after.Plan.Title, after.Plan.Target, is, after.ID, rest), paragraphs(
		say("%s for ", after.Plan.Title).who(after.Plan.Target).say(" %s ", is).code(after.ID).say(" %s", rest)))
	return nil
}

// offersGlass says whether the requester's copy of a card has the button. Where
// that cannot be found out quickly it has: the press is checked anyway.
func (b *Bot) offersGlass(ctx context.Context, id string) bool {
	r, err := b.Desk.Store.Load(ctx, id)
	if err != nil || r.State != approvals.Pending || !r.Terms.Glass {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	standing, err := b.Desk.Rights(ctx, r.Requester)
	no := (*approvals.Refusal)(nil)
	switch {
	case errors.As(err, &no) && no.Code != approvals.CodeUnchecked:
		return false
	case err != nil:
		return true
	}
	return b.Desk.Policy.MayBreakGlass(r.Plan.Command, r.Plan.Class, standing) == nil
}

// openReview asks for the words that go with a review. What there is to judge
// is filled in.
func (b *Bot) openReview(ctx context.Context, id, trigger string, d deed) {
	view, err := b.open(ctx, trigger, reviewForm(d))
	if err != nil {
		b.whisper(ctx, d, "That took too long, and Slack no longer lets Countersign open a form. Nothing happened. Press it again.")
		return
	}
	b.ahead(ctx, id, view, d, "Review", func(below ...slack.Block) slack.ModalViewRequest { return reviewForm(d, below...) }, func(r approvals.Request) []slack.Block {
		return append(draw(r, room{}, false), journal(r)...) // whoever may review may read it
	})
}

// reviewForm is that form, with what there is to judge below it.
func reviewForm(d deed, below ...slack.Block) slack.ModalViewRequest {
	title, label := "Justified", "A remark, if you like"
	text := "You say with your name that it was right to run this before anybody approved it."
	if d.Press == pressNotJustified {
		title, label = "Not justified", "What was wrong?"
		text = "You say with your name that this should have waited for an approval. Nothing is undone by it; the people concerned are told, and it is recorded."
	}
	remark := slack.NewPlainTextInputBlockElement(nil, blockReason)
	remark.Multiline, remark.MaxLength = true, commands.MaxJustification
	box := input(blockReason, label, "Whoever broke the glass reads this, and so do the auditors.", remark)
	box.Optional = d.Press == pressJustified
	blocks := append([]slack.Block{paragraphs(say("%s", text)), box}, below...)
	view := modal(title, viewReview, viewMeta{Request: d.Request, Channel: d.Channel, Card: d.Card, Press: d.Press}, blocks...)
	view.Submit, view.Close = plain(title, 24), plain("Back", 24)
	return view
}

// The names under which the messages about broken glass are remembered, so
// that an event that comes twice is told once. Those to single people have the
// Slack id behind a colon.
const (
	tellAlarm     = "alarm" // in the approvals channel
	tellSecurity  = "security"
	tellEverybody = "everybody" // the same to all who are there, where not everybody could be told otherwise
	tellApprover  = "glass"
	tellReviewed  = "reviewed"
	tellBreaker   = "breaker"
	tellExpiring  = "expiring"
)

// postOnce posts a message that an event that comes again must not post again. A
// reply that was lost after posting still leaves one too many.
func (b *Bot) postOnce(ctx context.Context, e audit.Event, name string, known map[string]approvals.Card, post func() (approvals.Card, error)) (approvals.Card, error) {
	if card, told := known[name]; told {
		return card, nil
	}
	card, err := post()
	if err != nil {
		return card, err
	}
	known[name] = card
	return card, b.Desk.Store.SetCard(ctx, e.Request, name, card)
}

// alertApprovers tells everybody who could have approved what runs with broken
// glass, and the security people. It has a projection of its own, because there may be many to tell, and
// nobody else's news should wait for that.
func (b *Bot) alertApprovers(ctx context.Context, batch []audit.Event) (int, error) {
	return each(ctx, batch, b.alert)
}

func (b *Bot) alert(ctx context.Context, e audit.Event) error {
	if e.Kind != audit.BrokeGlass {
		return nil
	}
	snap, err := b.Desk.Store.Load(ctx, e.Request)
	if err != nil {
		return ignore(err, approvals.ErrNoRequest)
	}
	known, err := b.Desk.Store.Cards(ctx, e.Request)
	if err != nil {
		return err
	}
	// The channel comes first and waits for no look-up.
	handles := b.approverHandles(snap.Request)
	alarm, err := b.postOnce(ctx, e, tellAlarm, known, func() (approvals.Card, error) {
		return b.intoApprovals(ctx, e, b.alarmBlocks(ctx, e, known, handles, "")...)
	})
	if err := b.passing(e, err); err != nil {
		return err
	}
	if _, err := b.postOnce(ctx, e, tellSecurity, known, func() (approvals.Card, error) {
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
	case err != nil && !lasting(err) && time.Since(e.At) < lost:
		return err
	case err != nil:
		b.Log.Error("who could have approved cannot be found out", "request", e.Request, "error", err)
		said = "Who could have approved it could not be looked up."
	case who.tooMany:
		said = fmt.Sprintf("More than %d people could have approved it, too many for a message to each.", tellMost)
	default:
		told := 0
		for _, account := range who.accounts {
			_, err := b.postOnce(ctx, e, tellApprover+":"+account, known, func() (approvals.Card, error) {
				if err := b.learnCard(ctx, e, known); err != nil {
					return approvals.Card{}, err
				}
				return b.direct(ctx, account, b.glassNews(ctx, e, known, alarm)...)
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
		said = countOf(told, who.unknown)
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
			slack.MsgOptionBlocks(b.alarmBlocks(ctx, e, known, handles, said)...))
		if err != nil && !errIs(err, "message_not_found", "cant_update_message") {
			if err := b.passing(e, err); err != nil {
				return err
			}
		}
	}
	if err == nil && !who.tooMany {
		return nil
	}
	_, err = b.postOnce(ctx, e, tellEverybody, known, func() (approvals.Card, error) {
		return b.intoApprovals(ctx, e, paragraphs(append(line{}.everybody().say(" %s So everybody here is told: ", said).who(e.Actor).
			say(" broke the glass for %s for ", e.Title).who(e.Target).gap(" (").code(e.Request).gap(")."), b.toCard(ctx, known, alarm)...)))
	})
	return b.passing(e, err)
}

// learnCard looks whether the card of a request is there by now.
func (b *Bot) learnCard(ctx context.Context, e audit.Event, known map[string]approvals.Card) error {
	if _, there := known[cardApprovers]; there {
		return nil
	}
	cards, err := b.Desk.Store.Cards(ctx, e.Request)
	if card, there := cards[cardApprovers]; there {
		known[cardApprovers] = card
	}
	return err
}

// awaitCard waits a moment for it, and no longer: what people are told does not
// depend on it.
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

// countOf says how many of those who could have approved were told.
func countOf(told, missed int) string {
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

// lasting says that a look-up will not work later either.
func lasting(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}

// approverHandles are the Slack user groups among those who could have
// approved.
func (b *Bot) approverHandles(r approvals.Request) []string {
	var ids []string
	for _, name := range b.Desk.Policy.Approvers(r.Plan.Command, r.Plan.Class, r.Requester.ID == r.Plan.Target.ID) {
		ids = append(ids, b.Desk.Policy.Groups[name].Slack...)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// alarmBlocks is what the approvals channel reads about broken glass. said is
// who was told, once that is known.
func (b *Bot) alarmBlocks(ctx context.Context, e audit.Event, known map[string]approvals.Card, handles []string, said string) []slack.Block {
	lines := []line{
		line{}.bold("🚨 Glass broken").gap(" by ").who(e.Actor).gap(", ").when(e.At),
		line{}.bold(e.Title).say(" for ").who(e.Target).gap(" (").code(e.Request).gap(")").say(" runs before anybody approved it."),
		line{}.bold("Why: ").say("%s", e.Reason),
	}
	if len(handles) > 0 {
		l := line{}
		for _, id := range handles {
			l = l.group(id).gap(" ")
		}
		lines = append(lines, l.say("You could have approved it, so you are told."))
	}
	lines = append(lines, append(say("Somebody else has to say on its card whether it was justified."), b.toCard(ctx, known, approvals.Card{})...))
	blocks := []slack.Block{paragraphs(lines...)}
	if said != "" {
		blocks = append(blocks, small("%s", said))
	}
	return blocks
}

// glassNews is what somebody who could have approved reads.
func (b *Bot) glassNews(ctx context.Context, e audit.Event, known map[string]approvals.Card, alarm approvals.Card) []slack.MsgOption {
	lines := []line{
		line{}.say("🚨 ").who(e.Actor).say(" broke the glass: ").bold(e.Title).say(" for ").who(e.Target).gap(" (").code(e.Request).gap(")").say(" runs before anybody approved it."),
		line{}.bold("Why: ").say("%s", e.Reason),
		append(say("You could have approved it, so you are told. Somebody has to say in the approvals channel whether it was justified; it can be you."), b.toCard(ctx, known, alarm)...),
	}
	return []slack.MsgOption{
		slack.MsgOptionText(fallback("%s broke the glass: %s for %s (%s)", e.Actor, e.Title, e.Target, e.Request), false),
		slack.MsgOptionBlocks(paragraphs(lines...)),
	}
}

// toCard leads to the card of a request in the approvals channel, or to what
// stands near it; to nothing where Slack does not tell the way.
func (b *Bot) toCard(ctx context.Context, known map[string]approvals.Card, near approvals.Card) line {
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
		b.Log.Debug("Slack does not tell where a card is", "error", err)
		return nil
	}
	return line{}.gap(" ").link(address, text)
}

// intoApprovals posts into the approvals channel, where that is still one of
// ours. Where it is not, what people are told otherwise does not wait for it.
func (b *Bot) intoApprovals(ctx context.Context, e audit.Event, blocks ...slack.Block) (approvals.Card, error) {
	err := b.guard.fit(ctx, b.ApprovalsChannel, guardAge)
	if no := (*unfit)(nil); errors.As(err, &no) {
		b.Log.Error("the approvals channel was not told", "event", e.Kind, "request", e.Request, "error", no)
		return approvals.Card{}, nil
	}
	if err != nil {
		return approvals.Card{}, err
	}
	channel, ts, err := b.api.PostMessageContext(ctx, b.ApprovalsChannel, slack.MsgOptionText(fallback("%s", e.Line()), false), slack.MsgOptionBlocks(blocks...))
	return approvals.Card{Channel: channel, TS: ts}, err
}

// reviewed tells whoever asked and whoever broke the glass what somebody else
// says of it, and the security people where that is nothing good.
func (b *Bot) reviewed(ctx context.Context, e audit.Event) error {
	l := line{}.say("✅ ").who(e.Actor).say(" reviewed it and found it justified: ")
	if e.Outcome != approvals.Justified {
		l = line{}.say("⚠️ ").who(e.Actor).say(" reviewed it and found it ").bold("not justified").say(": ")
	}
	l = l.say("%s for ", e.Title).who(e.Target).gap(" (").code(e.Request).gap(")").say(", which ran with broken glass.")
	if e.Reason != "" {
		l = l.say(" They say: “%s”", e.Reason)
	}
	known, err := b.Desk.Store.Cards(ctx, e.Request)
	if err != nil {
		return err
	}
	told := []string{"", e.Actor.Slack}
	for _, to := range []string{e.Requester.Slack, e.Glass.Slack} {
		if slices.Contains(told, to) {
			continue
		}
		told = append(told, to)
		_, err := b.postOnce(ctx, e, tellReviewed+":"+to, known, func() (approvals.Card, error) {
			return b.direct(ctx, to, news(e, "reviewed: "+e.Outcome, l)...)
		})
		if err := b.passing(e, err); err != nil {
			return err
		}
	}
	if e.Outcome == approvals.Justified {
		return nil
	}
	return b.warn(ctx, e)
}

// tellBreaker tells whoever broke the glass for somebody else's request what
// that person is told of it.
func (b *Bot) tellBreaker(ctx context.Context, e audit.Event, text string, l line) error {
	to := e.Glass
	if e.Kind == audit.BrokeGlass || to.Slack == "" || to.ID == e.Requester.ID || to.ID == e.Actor.ID {
		return nil
	}
	known, err := b.Desk.Store.Cards(ctx, e.Request)
	if err != nil {
		return err
	}
	_, err = b.postOnce(ctx, e, tellBreaker+":"+string(e.Kind), known, func() (approvals.Card, error) {
		return b.direct(ctx, to.Slack, news(e, text, append(line{}.say("You broke the glass for it. "), l...))...)
	})
	return b.passing(e, err)
}

// news is a direct message of one paragraph about a request.
func news(e audit.Event, text string, l line) []slack.MsgOption {
	return []slack.MsgOption{
		slack.MsgOptionText(fallback("%s for %s: %s (%s)", e.Title, e.Target, text, e.Request), false),
		slack.MsgOptionBlocks(paragraphs(l)),
	}
}

// remindReview asks the approvals channel for a review that is still due.
func (b *Bot) remindReview(ctx context.Context, e audit.Event) error {
	snap, err := b.Desk.Store.Load(ctx, e.Request)
	if err != nil {
		return ignore(err, approvals.ErrNoRequest)
	}
	if snap.State != approvals.Review {
		return nil // given in the meantime
	}
	known, err := b.Desk.Store.Cards(ctx, e.Request)
	if err != nil {
		return err
	}
	return b.note(ctx, e, b.ApprovalsChannel, []slack.Block{paragraphs(
		line{}.say("🔔 ").bold("Still to be reviewed: ").who(snap.Glass.By).say(" broke the glass for %s for ", e.Title).who(e.Target).gap(" (").code(e.Request).gap("), ").when(snap.Glass.At),
		line{}.bold("Why: ").say("%s", snap.Glass.Reason),
		append(say("Somebody else has to say on its card whether it was justified."), b.toCard(ctx, known, approvals.Card{})...))})
}

// remindExpiry tells the approvers, and whoever asked, that nobody has decided
// yet and that time runs out.
func (b *Bot) remindExpiry(ctx context.Context, e audit.Event) error {
	snap, err := b.Desk.Store.Load(ctx, e.Request)
	if err != nil {
		return ignore(err, approvals.ErrNoRequest)
	}
	if snap.State != approvals.Pending || !snap.Now.Before(snap.Deadline) {
		return nil // decided or over in the meantime
	}
	known, err := b.Desk.Store.Cards(ctx, e.Request)
	if err != nil {
		return err
	}
	about := line{}.bold(e.Title).say(" for ").who(e.Target).gap(" (").code(e.Request).gap(") expires ").when(snap.Deadline).
		say(", with %d of %d approvals.", len(snap.Approvals), snap.Terms.Approvals)
	_, err = b.postOnce(ctx, e, tellExpiring, known, func() (approvals.Card, error) {
		left, needed := snap.Terms.Approvals-len(snap.Approvals), "1 more approval is needed."
		if left != 1 {
			needed = fmt.Sprintf("%d more approvals are needed.", left)
		}
		act := line{}
		for _, id := range b.approverHandles(snap.Request) {
			act = act.group(id).gap(" ")
		}
		act = append(act.say("Approve or deny it on its card; %s", needed), b.toCard(ctx, known, approvals.Card{})...)
		return b.intoApprovals(ctx, e, paragraphs(append(line{}.say("⏳ "), about...), act))
	})
	if err := b.passing(e, err); err != nil {
		return err
	}
	to := e.Requester.Slack
	if to == "" {
		return nil
	}
	_, err = b.postOnce(ctx, e, tellExpiring+":"+to, known, func() (approvals.Card, error) {
		return b.direct(ctx, to, news(e, "about to expire", append(line{}.say("⏳ Your request: "), about...).say(" A reminder was posted in the approvals channel. Speak to one of them if it is urgent."))...)
	})
	return b.passing(e, err)
}

// toReview picks the requests whose review a person may give. That is for
// showing; the press is checked like any other.
func (b *Bot) toReview(who approvals.Standing, open []approvals.Snapshot) (theirs, rest []approvals.Snapshot) {
	for _, s := range open {
		mine := s.State == approvals.Review && !s.HasPart(who.ID) &&
			b.Desk.Policy.MayReview(s.Plan.Command, s.Plan.Class, who, s.Requester.ID == s.Plan.Target.ID) == nil
		if mine {
			theirs = append(theirs, s)
		} else {
			rest = append(rest, s)
		}
	}
	return theirs, rest
}
