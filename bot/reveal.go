package bot

import (
	"context"
	"fmt"
	"time"

	"github.com/slack-go/slack"

	"countersign/approvals"
	"countersign/commands"
)

// openSecret shows a temporary password or a pass to its requester, once, in
// a modal: an empty view first, because the trigger dies; then the record that
// it was opened; then the value; and when Slack has confirmed that the view
// shows it, the sealed copy goes. Until then the requester may press again.
//
// The view has no inputs, no submit and no close notice: with any of them
// Slack would send its blocks back to us and keep them in one more place.
func (b *Bot) openSecret(ctx context.Context, id, trigger string, d interaction) {
	const title = "For your eyes only"
	view, err := b.open(ctx, trigger, modal(title, "", viewMeta{}, paragraphs(textLine("Opening it …"))))
	if err != nil {
		b.replyPrivately(ctx, d, "That took too long, and Slack no longer lets Countersign open a view. Nothing was shown. Press Reveal again.")
		return
	}
	b.runInBackground(id, func() {
		ctx, cancel := context.WithTimeout(ctx, b.Service.Store.Timing().LookUps)
		defer cancel()
		secret, blocks, err := b.secret(ctx, id, d)
		if err != nil {
			b.fill(ctx, view, modal(title, "", viewMeta{}, paragraphs(textLine("%s", errorSentence(err)))))
			return
		}
		if err := b.fill(ctx, view, modal(title, "", viewMeta{}, blocks...)); err != nil {
			return // it may not be before their eyes: they can press again
		}
		if err := b.Service.Shown(ctx, d.Request, secret); err != nil {
			b.Log.Warn("a secret was shown, and its sealed copy stays until its time is over", "request", d.Request, "error", err)
		}
	})
}

func (b *Bot) secret(ctx context.Context, id string, d interaction) (approvals.Secret, []slack.Block, error) {
	who, err := b.actor(ctx, d)
	if err != nil {
		return approvals.Secret{}, nil, b.recordRefusal(ctx, id, d, who, err)
	}
	secret, err := b.Service.Reveal(ctx, id, d.Request, who)
	if err != nil {
		return secret, nil, err
	}
	snap, err := b.Service.Store.Load(ctx, d.Request)
	if err != nil {
		return secret, nil, err
	}
	lines := []line{line{}.bold(snap.Plan.Title).text(" for ").who(snap.Plan.Target)}
	if !secret.Until.IsZero() {
		lines = append(lines, line{}.bold("Valid until ").when(secret.Until))
	}
	blocks := []slack.Block{
		paragraphs(lines...),
		// Preformatted, so that nothing in it becomes a link or a mention.
		slack.NewRichTextBlock("", &slack.RichTextPreformatted{Type: slack.RTEPreformatted, Elements: line{}.raw(secret.Value)}),
	}
	if c, ok := commands.Lookup(snap.Plan.Command); ok && c.SecretAdvice != "" {
		blocks = append(blocks, paragraphs(textLine("%s", c.SecretAdvice)))
	}
	return secret, append(blocks, small("It is shown this once. Do not paste it anywhere: tell it to the person whom you verified, and to nobody else.")), nil
}

// offered is what the requester is told when a secret waits for them.
func (b *Bot) offered() string {
	life := b.Service.Store.Timing().SecretLife
	if life < 2*time.Minute {
		return "Press Reveal at once: it is gone soon."
	}
	return fmt.Sprintf("Press Reveal within %d minutes; then it is gone.", life/time.Minute)
}
