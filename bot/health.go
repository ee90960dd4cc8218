package bot

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/slack-go/slack"

	"countersign/approvals"
)

// watchStore asks Redis every few seconds whether it is available. It notifies
// the approvals channel when Redis has been unavailable for long enough that
// people notice, and when it is back. It needs only Slack for that. Each process
// posts for itself, because its own connection to Redis may be the only one that
// failed.
func (b *Bot) watchStore(ctx context.Context) {
	after := b.Service.Store.Timing().Outage
	tick := time.NewTicker(min(2*time.Second, max(after/10, 20*time.Millisecond)))
	defer tick.Stop()
	var told *noticeMessage
	var tried time.Time // Slack may have taken what it did not confirm, so it is not posted again at once
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		since := b.Inbox.Probe(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case time.Since(tried) < after:
		case told == nil && !since.IsZero() && time.Since(since) >= after:
			told, tried = b.announceOutage(ctx, since), time.Now()
		case told != nil && since.IsZero():
			told, tried = b.announceRecovery(ctx, told), time.Now()
		}
	}
}

// noticeMessage is the message about an outage.
type noticeMessage struct {
	since time.Time
	ts    string
}

// urgent is what to do while Countersign does not work.
const urgent = "If it cannot wait, block the account in the Entra admin center and tell your security people."

// announceOutage returns nil if Slack did not confirm the message.
func (b *Bot) announceOutage(ctx context.Context, since time.Time) *noticeMessage {
	what := textLine("⚠️ Countersign has not been able to reach its Redis since %s, or to write to it.", hour(since))
	ts, err := b.announce(ctx, "Countersign cannot reach its Redis", what,
		textLine("What it confirmed before is kept there and continues when Redis is back. Until then, commands and presses are answered with “could not be confirmed”, and nothing is started. %s An administrator finds the reason in the log of process %s.", urgent, b.Name))
	if err != nil {
		b.Log.Warn("people could not be told that Redis does not answer; trying again", "error", err)
		return nil
	}
	return &noticeMessage{since, ts}
}

// announceRecovery posts a new message, because an updated one notifies nobody,
// and marks the earlier one as over. It returns the message if it has to be
// tried again. If Redis has lost writes, another message says so.
func (b *Bot) announceRecovery(ctx context.Context, told *noticeMessage) *noticeMessage {
	span := fmt.Sprintf("%s to %s", hour(told.since), hour(time.Now()))
	news, then := textLine("✅ Countersign reaches its Redis again, after %s (%s).", lasted(time.Since(told.since)), span), "Waiting requests continue."
	switch err := b.Service.Store.CheckRollback(ctx); {
	case errors.Is(err, approvals.ErrLostWrites):
		news, then = textLine("⚠️ Redis answers Countersign again, after %s (%s), but it has lost something.", lasted(time.Since(told.since)), span),
			"Countersign has stopped until an administrator resumes it: nothing is decided or executed."
	case err != nil: // away once more
		return told
	}
	_, err := b.announce(ctx, "Redis answers Countersign again", news,
		textLine("%s Whoever was answered “could not be confirmed”: look at %s, and do it again if it is not there. Process %s.", then, b.slash("requests"), b.Name))
	if err != nil {
		b.Log.Warn("people could not be told that Redis is back; trying again", "error", err)
		return told
	}
	over := textLine("Over: Countersign could not reach its Redis from %s. Process %s.", span, b.Name)
	_, _, _, err = b.api.UpdateMessageContext(ctx, b.ApprovalsChannel, told.ts, slack.MsgOptionText(fallback("Countersign could not reach its Redis"), false), slack.MsgOptionBlocks(paragraphs(over)))
	if err != nil { // it is only out of date, and the news stands below it
		b.Log.Warn("the message that Redis does not answer still stands", "error", err)
	}
	return nil
}

func (b *Bot) announce(ctx context.Context, text string, lines ...line) (ts string, err error) {
	if err := b.guard.check(ctx, b.ApprovalsChannel, channelMaxAge); err != nil {
		if no := (*unfitChannel)(nil); !errors.As(err, &no) {
			return "", err
		}
		return "", fmt.Errorf("the approvals channel: %w", err)
	}
	_, ts, err = b.api.PostMessageContext(ctx, b.ApprovalsChannel, slack.MsgOptionText(fallback("%s", text), false), slack.MsgOptionBlocks(paragraphs(lines...)))
	return ts, err
}

// lasted formats a duration for people.
func lasted(d time.Duration) string {
	if d < 90*time.Second {
		return fmt.Sprintf("%d s", int(d.Round(time.Second).Seconds()))
	}
	return fmt.Sprintf("%d min", int(d.Round(time.Minute).Minutes()))
}

func hour(t time.Time) string { return t.UTC().Format("15:04 UTC") }
