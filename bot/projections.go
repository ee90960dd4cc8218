package bot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/slack-go/slack"

	"countersign/approvals"
	"countersign/audit"
)

// AuditProjection is the name of the projection that keeps the record. The
// runner starts nothing while it lags.
const AuditProjection = "audit"

// projections are the three ways in which events become something to see.
// Each has one reader among all processes and its own cursor.
func (b *Bot) projections() []approvals.Projection {
	return []approvals.Projection{
		{Name: "cards", Handle: b.showCards},
		{Name: "people", Handle: b.tellPeople},
		{Name: AuditProjection, Handle: b.keepRecord},
	}
}

// showCards brings the cards of every request in the batch up to date. A
// card shows the request as it now is, so ten events make one update.
func (b *Bot) showCards(ctx context.Context, batch []audit.Event) (int, error) {
	var done []string
	for _, e := range batch {
		if e.Request == "" || e.Kind == audit.Refused || slices.Contains(done, e.Request) {
			continue
		}
		if err := b.showCard(ctx, e.Request); err != nil {
			return 0, err
		}
		done = append(done, e.Request)
	}
	return len(batch), nil
}

func (b *Bot) showCard(ctx context.Context, id string) error {
	snap, err := b.Desk.Store.Load(ctx, id)
	if err != nil {
		return ignore(err, approvals.ErrNoRequest)
	}
	known, err := b.Desk.Store.Cards(ctx, id)
	if err != nil {
		return err
	}
	r := snap.Request
	text := slack.MsgOptionText(cardText(r), false)
	if err := b.guard.fit(ctx, b.ApprovalsChannel); err != nil {
		b.Log.Error("cards cannot be shown", "request", id, "error", err)
	} else if err := b.put(ctx, id, "approvers", known, text, slack.MsgOptionBlocks(b.card(r, true)...), func(o ...slack.MsgOption) (approvals.Card, error) {
		channel, ts, err := b.api.PostMessageContext(ctx, b.ApprovalsChannel, o...)
		return approvals.Card{Channel: channel, TS: ts}, err
	}); err != nil {
		return err
	}
	if r.Requester.Slack == "" {
		return nil
	}
	return b.put(ctx, id, "requester", known, text, slack.MsgOptionBlocks(b.receipt(r)...), func(o ...slack.MsgOption) (approvals.Card, error) {
		return b.direct(ctx, r.Requester.Slack, o...)
	})
}

// put updates a message, or posts it where there is none yet. A reply that
// was lost after posting leaves one card too many; its buttons work, and a
// press repairs it.
func (b *Bot) put(ctx context.Context, id, name string, known map[string]approvals.Card, text, blocks slack.MsgOption, post func(...slack.MsgOption) (approvals.Card, error)) error {
	if card, ok := known[name]; ok {
		_, _, _, err := b.api.UpdateMessageContext(ctx, card.Channel, card.TS, text, blocks)
		if !errIs(err, "message_not_found", "cant_update_message") {
			return b.passing(id, err)
		}
	}
	card, err := post(text, blocks)
	if err != nil {
		return b.passing(id, err)
	}
	return b.Desk.Store.SetCard(ctx, id, name, card)
}

// passing tells trouble that passes, which is tried again, from trouble that
// stays: that is logged, and the other requests go on.
func (b *Bot) passing(id string, err error) error {
	if errIs(err, "channel_not_found", "not_in_channel", "is_archived", "user_not_found", "cannot_dm_bot", "user_disabled",
		"restricted_action", "invalid_blocks", "msg_blocks_too_long", "msg_too_long", "edit_window_closed") {
		b.Log.Error("Slack will not show this", "request", id, "error", err)
		return nil
	}
	return err
}

// tellPeople sends the requester a message of its own when a request ends: an
// updated card notifies nobody.
func (b *Bot) tellPeople(ctx context.Context, batch []audit.Event) (int, error) {
	for i, e := range batch {
		if err := b.tell(ctx, e); err != nil {
			return i, err
		}
	}
	return len(batch), nil
}

func (b *Bot) tell(ctx context.Context, e audit.Event) error {
	if e.Requester.Slack == "" || e.Requester.ID == e.Actor.ID {
		return nil
	}
	about := say("%s for ", e.Title).who(e.Target).gap(" (").code(e.Request).gap(")")
	var l line
	var text string
	switch e.Kind {
	case audit.Denied:
		l, text = line{}.say("⛔ ").who(e.Actor).say(" denied your request: "), "denied"
		l = append(l, about...)
		if e.Reason != "" {
			l = l.say(". Why: %s", e.Reason)
		}
	case audit.Expired:
		l, text = append(line{}.say("⌛ Your request expired: "), about...).say(". %s Nothing was done. Request it again if it is still needed.", e.Reason), "expired"
	case audit.Finished:
		text = e.Outcome
		switch approvals.Outcome(e.Outcome) {
		case approvals.Succeeded:
			l = append(line{}.say("✅ Done: "), about...)
		case approvals.Partial:
			l = append(line{}.say("⚠️ Only partly done: "), about...).say(". The card says which steps failed, and why.")
		case approvals.Uncertain:
			l = append(line{}.say("❓ Uncertain: "), about...).say(". A step may or may not have been carried out. Look at the account before you go on.")
		default:
			l = append(line{}.say("❌ Failed: "), about...)
		}
		if e.Reason != "" {
			l = l.say(". %s", e.Reason)
		}
	case audit.Halted:
		l, text = append(line{}.say("✋ ").who(e.Actor).say(" halted: "), about...), "halted"
	default:
		return nil
	}
	_, err := b.direct(ctx, e.Requester.Slack, slack.MsgOptionText(fallback("%s for %s: %s (%s)", e.Title, e.Target, text, e.Request), false), slack.MsgOptionBlocks(paragraphs(l)))
	return b.passing(e.Request, err)
}

// keepRecord writes each event into the tamper-evident log, where there is
// one, and then into the audit channel. Trouble of any kind stops it here,
// and with it the runner: what is not recorded is not done.
func (b *Bot) keepRecord(ctx context.Context, batch []audit.Event) (int, error) {
	for i, e := range batch {
		if b.Audit != nil {
			if err := b.Audit.Append(ctx, e); err != nil {
				return i, err
			}
		}
		if !told(e.Kind) {
			continue
		}
		if err := b.guard.fit(ctx, b.AuditChannel); err != nil {
			return i, fmt.Errorf("the audit channel does not fit: %w", err)
		}
		text := e.Line()
		if _, _, err := b.api.PostMessageContext(ctx, b.AuditChannel, slack.MsgOptionText(fallback("%s", text), false), slack.MsgOptionBlocks(paragraphs(record(text)))); err != nil {
			return i, err
		}
	}
	return len(batch), nil
}

// record is an audit line with what happened in bold, so that the eye finds
// it.
func record(text string) line {
	what, rest, more := strings.Cut(text, " · ")
	l := line{}.bold(what)
	if more {
		l = l.say(" · %s", rest)
	}
	return l
}

func ignore(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}
