package bot

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/slack-go/slack"

	"countersign/approvals"
	"countersign/audit"
	"countersign/commands"
)

// AuditProjection is the projection that writes the audit log. The runner starts
// nothing while it lags.
const AuditProjection = "audit"

// projections turn events into messages. All processes share one reader and one
// cursor of each.
func (b *Bot) projections() []approvals.Projection {
	return []approvals.Projection{
		{Name: "cards", Handle: b.showCards},
		{Name: "people", Handle: b.notifyPeople},
		{Name: "glass", Handle: b.alertApprovers},
		{Name: AuditProjection, Handle: b.keepRecord},
	}
}

// lastPost is how long a post may continue when this process stops. If its reply
// were cut off, there would be a message too many.
const lastPost = 5 * time.Second

// each passes events to do, one after the other, and returns how many are done.
// When ctx ends, it finishes the current one.
func each(ctx context.Context, batch []audit.Event, do func(context.Context, audit.Event) error) (int, error) {
	steady, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastPost, cancel) })()
	for i, e := range batch {
		if err := ctx.Err(); err != nil {
			return i, err
		}
		if err := do(steady, e); err != nil {
			return i, err
		}
	}
	return len(batch), nil
}

// The names under which the messages about a request are remembered. A spare
// one, left over by a lost reply, has a colon and its timestamp behind that.
const (
	cardApprovers = "approvers"
	cardRequester = "requester"
)

// showCards updates the cards of every request in the batch. A card shows the
// current state of the request, so ten events make one update.
func (b *Bot) showCards(ctx context.Context, batch []audit.Event) (int, error) {
	var done []string
	return each(ctx, batch, func(ctx context.Context, e audit.Event) error {
		if e.Request == "" || e.Kind == audit.Refused || slices.Contains(done, e.Request) {
			return nil
		}
		done = append(done, e.Request)
		return b.showCard(ctx, e)
	})
}

func (b *Bot) showCard(ctx context.Context, e audit.Event) error {
	breakGlass := b.offersBreakGlass(ctx, e.Request) // beforehand: what is shown must be fresh, and this may take its time
	err := b.upToDate(ctx, e.Request, true, func(ctx context.Context, r approvals.Request) error {
		to := r.Requester.Slack
		if to == "" {
			return nil
		}
		return b.show(ctx, e, cardRequester, cardText(r), b.receipt(r, breakGlass), func(o ...slack.MsgOption) (approvals.Card, error) {
			return b.postDirect(ctx, to, o...)
		})
	})
	if err != nil {
		return err
	}
	// An unfit channel holds the cards up until somebody has mended it: they
	// are not lost, and nobody outside reads them.
	if err := b.guard.check(ctx, b.ApprovalsChannel, channelMaxAge); err != nil {
		return fmt.Errorf("the approvals channel: %w", err)
	}
	return b.upToDate(ctx, e.Request, true, func(ctx context.Context, r approvals.Request) error {
		return b.show(ctx, e, cardApprovers, cardText(r), b.card(r), func(o ...slack.MsgOption) (approvals.Card, error) {
			channel, ts, err := b.api.PostMessageContext(ctx, b.ApprovalsChannel, o...)
			return approvals.Card{Channel: channel, TS: ts}, err
		})
	})
}

// upToDate shows a request as it now is. Somebody else may show it meanwhile,
// and this process may stand still until that is something newer: so show gets
// a context with which nothing is sent that may be old, and what was on its way
// at that moment is looked at again. Whoever leads a projection need not look
// at what is newer after a moment, because that has an event of its own.
func (b *Bot) upToDate(ctx context.Context, request string, leads bool, show func(context.Context, approvals.Request) error) error {
	fresh := b.Service.Store.Timing().Lead / 2
	for range 5 {
		sendBy := time.Now().Add(fresh)
		snap, err := b.Service.Store.Load(ctx, request)
		if err != nil {
			return ignore(err, approvals.ErrNoRequest)
		}
		err = show(context.WithValue(ctx, sendByKey{}, sendBy), snap.Request)
		// Even where its own time is over: nobody else knows of it.
		var done context.CancelFunc
		ctx, done = context.WithTimeout(context.WithoutCancel(ctx), lastPost)
		defer done()
		now, gone := b.Service.Store.Load(ctx, request)
		newer := gone == nil && now.Version != snap.Version && (!leads || now.Now.Sub(snap.Now) >= fresh)
		if !newer && !errors.Is(err, errTooOld) {
			return err
		}
	}
	return fmt.Errorf("request %s: %w", request, errTooOld)
}

// sendByKey is the key under which a context says until when something may be
// sent with it.
type sendByKey struct{}

var errTooOld = errors.New("bot: what was to be shown may be old by now")

// deadlineTransport sends nothing behind the instant that a context names.
type deadlineTransport struct{ http.RoundTripper }

func (p deadlineTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if by, ok := req.Context().Value(sendByKey{}).(time.Time); ok && time.Now().After(by) {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, errTooOld
	}
	return p.RoundTripper.RoundTrip(req)
}

// show updates a message and its extra copies, or posts it if there is none. A
// lost reply leaves one card too many; its buttons work, and a click adopts it.
func (b *Bot) show(ctx context.Context, e audit.Event, name, text string, blocks []slack.Block, post func(...slack.MsgOption) (approvals.Card, error)) error {
	known, err := b.Service.Store.Cards(ctx, e.Request)
	if err != nil {
		return err
	}
	options := []slack.MsgOption{slack.MsgOptionText(text, false), slack.MsgOptionBlocks(blocks...)}
	shown := false
	for as, card := range known {
		if as != name && !strings.HasPrefix(as, name+":") {
			continue
		}
		_, _, _, err := b.api.UpdateMessageContext(ctx, card.Channel, card.TS, options...)
		if errIs(err, "message_not_found", "cant_update_message") {
			continue
		}
		shown = true
		if err := b.passing(e, err); err != nil {
			return err
		}
	}
	if shown {
		return nil
	}
	card, err := post(options...)
	if err != nil {
		return b.passing(e, err)
	}
	return b.Service.Store.SetCard(ctx, e.Request, name, card)
}

// lost is how long an unknown error is treated as temporary. Then it no longer
// blocks the events behind it.
const lost = 10 * time.Minute

// passing returns an error that is temporary, so that it is tried again. It logs
// any other, and the other requests continue.
func (b *Bot) passing(e audit.Event, err error) error {
	answer, said := errors.AsType[slack.SlackErrorResponse](err)
	switch {
	case err == nil:
		return nil
	case !said, slices.Contains(permanentErrors, answer.Err): // the network, a limit, or an administrator's to mend
		return err
	case slices.Contains([]string{"channel_not_found", "not_in_channel", "is_archived", "user_not_found", "cannot_dm_bot", "user_disabled",
		"restricted_action", "invalid_blocks", "msg_blocks_too_long", "msg_too_long", "edit_window_closed", "messages_tab_disabled"}, answer.Err):
	case time.Since(e.At) < lost:
		return err
	}
	b.Log.Error("Slack will not show this", "request", e.Request, "event", e.Kind, "error", err)
	return nil
}

// notifyPeople sends the requester a new message when a request ends, because an
// updated card notifies nobody.
func (b *Bot) notifyPeople(ctx context.Context, batch []audit.Event) (int, error) {
	return each(ctx, batch, b.notifyRequester)
}

func (b *Bot) notifyRequester(ctx context.Context, e audit.Event) error {
	switch {
	case e.Kind == audit.Alarm, e.Kind == audit.Refused && e.Code == string(approvals.CodeProtected):
		return b.warn(ctx, e)
	case e.Kind == audit.Reminded && e.Outcome == string(approvals.StatePending):
		return b.remindExpiry(ctx, e)
	case e.Kind == audit.Reminded && e.Outcome == string(approvals.StateReview):
		return b.remindReview(ctx, e)
	case e.Kind == audit.Reminded:
		return b.remind(ctx, e)
	case e.Kind == audit.Reviewed:
		return b.reviewed(ctx, e)
	case e.Requester.Slack == "" || e.Requester.ID == e.Actor.ID:
		return nil
	}
	var buttons []slack.BlockElement
	about := textLine("%s for ", e.Title).who(e.Target).raw(" (").code(e.Request).raw(")")
	var l line
	var text string
	switch e.Kind {
	case audit.Denied:
		l, text = line{}.text("⛔ ").who(e.Actor).text(" denied your request: "), "denied"
		l = append(l, about...)
		if e.Reason != "" {
			l = l.text(". Why: %s", e.Reason)
		}
	case audit.UsedBreakGlass:
		l = append(line{}.text("🚨 ").who(e.Actor).text(" used break-glass for your request: "), about...).text(". It runs before anybody approved it. Why: %s", e.Reason)
		text = "break-glass used"
	case audit.Expired:
		l, text = append(line{}.text("⌛ Your request expired: "), about...).text(". %s Nothing was done. Request it again if it is still needed.", e.Reason), "expired"
		buttons = append(buttons, button(actionAgain, e.Request, "Request it again", slack.StyleDefault))
	case audit.Unseen:
		l, text = line{}.text("⌛ Not opened in time, and gone: "), "not opened in time"
		if e.Outcome == "opened" { // Slack did not confirm that the view showed it
			l, text = line{}.text("⌛ Opened, but perhaps never shown, and gone now: "), "gone"
		}
		l = append(l, about...).text(". Request it again if it is still needed.")
		buttons = append(buttons, button(actionAgain, e.Request, "Request it again", slack.StyleDefault))
	case audit.HandedOff:
		l, text = append(line{}.text("🤝 Approved, and now somebody has to do it by hand: "), about...).text(". The card in the approvals channel says how."), "to be done by hand"
	case audit.Finished:
		text = e.Outcome
		switch approvals.Outcome(e.Outcome) {
		case approvals.OutcomeSucceeded:
			l = append(line{}.text("✅ Done: "), about...)
		case approvals.OutcomePartial:
			l = append(line{}.text("⚠️ Only partly done: "), about...).text(". The card says which steps failed, and why.")
		case approvals.OutcomeAttested:
			l = append(line{}.text("✅ Done by hand and confirmed: "), about...)
		case approvals.OutcomeUncertain:
			l = append(line{}.text("❓ Uncertain: "), about...).text(". A step may or may not have been carried out. Look at the account before you go on.")
		default:
			l = append(line{}.text("❌ Failed: "), about...)
		}
		if e.Reason != "" {
			l = l.text(". %s", e.Reason)
		}
		snap, err := b.Service.Store.Load(ctx, e.Request)
		if err != nil {
			return ignore(err, approvals.ErrNoRequest)
		}
		offered, err := b.Service.Store.OfferedSecret(ctx, snap.Request)
		switch {
		case err != nil:
			return err
		case offered:
			l = l.text(". %s", b.offered())
			buttons = append(buttons, button(actionReveal, e.Request, "Reveal", slack.StylePrimary))
		case approvals.Outcome(e.Outcome) == approvals.OutcomeFailed:
			buttons = append(buttons, button(actionAgain, e.Request, "Request it again", slack.StyleDefault))
		}
		if e.BreakGlass.ID != "" {
			l = l.text(". It ran with break-glass, so somebody else has to review it.")
		}
	case audit.Halted:
		l, text = append(line{}.text("✋ ").who(e.Actor).text(" halted: "), about...), "halted"
	default:
		return nil
	}
	if err := b.notifyBreakGlassUser(ctx, e, text, l); err != nil {
		return err
	}
	blocks := []slack.Block{paragraphs(l)}
	if len(buttons) > 0 {
		blocks = append(blocks, slack.NewActionBlock("next", buttons...))
	}
	_, err := b.postDirect(ctx, e.Requester.Slack, slack.MsgOptionText(fallback("%s for %s: %s (%s)", e.Title, e.Target, text, e.Request), false), slack.MsgOptionBlocks(blocks...))
	return b.passing(e, err)
}

// warn notifies the security team, if it has a channel of its own.
func (b *Bot) warn(ctx context.Context, e audit.Event) error {
	if b.SecurityChannel == "" {
		return nil
	}
	return b.note(ctx, e, b.SecurityChannel, auditLine(e))
}

// remind reminds the approvals channel of what people still have to do manually.
func (b *Bot) remind(ctx context.Context, e audit.Event) error {
	return b.note(ctx, e, b.ApprovalsChannel, []slack.Block{paragraphs(
		line{}.text("🔔 Still to be done by hand, or to be confirmed: %s for ", e.Title).who(e.Target).raw(" (").code(e.Request).raw("). ").text("Its card is further up in this channel."))})
}

// note posts a line into one of our private channels.
func (b *Bot) note(ctx context.Context, e audit.Event, channel string, blocks []slack.Block) error {
	err := b.guard.check(ctx, channel, channelMaxAge)
	if no := (*unfitChannel)(nil); errors.As(err, &no) {
		// The record has it, and the news of others must not wait for this.
		b.Log.Error("a line was not posted", "event", e.Kind, "request", e.Request, "error", no)
		return nil
	}
	if err != nil {
		return err
	}
	_, _, err = b.api.PostMessageContext(ctx, channel, slack.MsgOptionText(fallback("%s", e.Line()), false), slack.MsgOptionBlocks(blocks...))
	return b.passing(e, err)
}

// keepRecord writes each event into the tamper-evident log, if there is one, and
// then into the audit channel. Any failure stops it here, and with it the
// runner: nothing is executed that cannot be recorded.
func (b *Bot) keepRecord(ctx context.Context, batch []audit.Event) (int, error) {
	return each(ctx, batch, func(ctx context.Context, e audit.Event) error {
		if b.Audit != nil {
			if err := b.Audit.Append(ctx, e); err != nil {
				return err
			}
		}
		if !isPostedToAudit(e.Kind) {
			return nil
		}
		if err := b.guard.check(ctx, b.AuditChannel, channelMaxAge); err != nil {
			return fmt.Errorf("the audit channel: %w", err)
		}
		_, _, err := b.api.PostMessageContext(ctx, b.AuditChannel, slack.MsgOptionText(fallback("%s", e.Line()), false), slack.MsgOptionBlocks(auditLine(e)...))
		return err
	})
}

// auditLine is an audit line with what happened in bold, so that the eye finds
// it. A line that Slack would not take is cut before its end, which is the
// request's id.
func auditLine(e audit.Event) []slack.Block {
	what, rest, _ := strings.Cut(e.Line(), " · ")
	for long := utf8.RuneCountInString(rest); ; long = long * 3 / 4 {
		l := line{}.bold(what)
		text := rest
		if utf8.RuneCountInString(rest) > long {
			text = commands.Plain(rest, long) + " (cut here; the request shows it whole) · " + e.Request
		}
		if text != "" {
			text = " · " + text
		}
		for part := range slices.Chunk([]rune(text), maxText) {
			l = l.text("%s", string(part))
		}
		if blocks := []slack.Block{paragraphs(l)}; sizeOf(blocks) <= maxMessage || long < 100 {
			return blocks
		}
	}
}

func ignore(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}
