package bot

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/slack-go/slack"

	"countersign/approvals"
)

// watchLosses tells people when Redis has gone back in time, so that nothing is
// decided or executed any more, and when it goes on. Like watchStore it needs
// nothing but Slack for that: what goes through the events waits for a Redis
// that can be trusted.
//
// The process tells that has noticed it, and one that is started while it is
// so. Of several that noticed, each tells what it has lost.
func (b *Bot) watchLosses(ctx context.Context) {
	store := b.Desk.Store
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	told, logged, starting := false, false, true
	var pause time.Duration
	var next time.Time // Slack may have taken what it did not confirm, so it is not posted again at once
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if stopped := store.Rewound(); stopped == told && !starting || time.Now().Before(next) {
			continue
		}
		list, unread := store.Losses(ctx)
		err := unread
		if !starting && !told { // others tell of theirs
			list = slices.DeleteFunc(list, func(l approvals.Lost) bool { return l.Process != store.Process() })
		}
		switch {
		case err != nil:
		case told && len(list) == 0:
			if err = b.tellResumed(ctx); err == nil {
				told, logged = false, false
			}
		case !told && len(list) > 0:
			if !logged {
				b.logLosses(list)
				logged = true
			}
			err = b.tellLosses(ctx, list)
			told = err == nil
		}
		if err == nil {
			pause, starting = 0, false
			continue
		}
		pause = min(max(2*pause, 2*time.Second), time.Minute)
		next = time.Now().Add(pause)
		switch {
		case ctx.Err() != nil:
		case unread != nil:
			store.Trouble(b.Log, "people could not be told whether Countersign has stopped", err)
		default:
			b.Log.Warn("people could not be told whether Countersign has stopped; trying again", "error", err)
		}
	}
}

// logLosses writes down what is lost, for whoever reads the log first.
func (b *Bot) logLosses(list []approvals.Lost) {
	b.Log.Error("Redis has gone back in time, and nothing is decided or executed until somebody has looked: countersign redis resume", "lost", approvals.Says(list))
	for _, lost := range list {
		for _, commit := range lost.Commits {
			b.Log.Error("lost", "process", lost.Process, "request", commit.Request, "commit", commit.Sequence, "what", commit.What)
		}
	}
}

// tellLosses posts what is known to be lost.
func (b *Bot) tellLosses(ctx context.Context, losses []approvals.Lost) error {
	const most = 20 // the command shows all
	var commits []approvals.Commit
	for _, lost := range losses {
		commits = append(commits, lost.Commits...)
	}
	slices.SortStableFunc(commits, func(a, b approvals.Commit) int {
		switch {
		case a.Executed == b.Executed:
			return 0
		case a.Executed:
			return -1
		}
		return 1
	})
	blocks := []slack.Block{paragraphs(
		line{}.say("🛑 ").bold("Countersign has stopped.").say(" Its Redis has gone back in time, as after a fail-over or when an older copy is restored. %s", approvals.Says(losses)),
		line{}.say("Until somebody has looked, nothing is decided and nothing is executed. The audit channel and the audit log are right where they differ from what cards show. An administrator runs ").
			code("countersign redis resume").say(" where Countersign runs: it shows everything that is known, and how to go on."))}
	var lines []line
	for _, commit := range commits[:min(len(commits), most)] {
		lines = append(lines, say("%s", commit))
	}
	if len(lines) > 0 {
		blocks = append(blocks, list("Lost, execution first", slack.RTEListBullet, lines)...)
	}
	if len(commits) > most {
		blocks = append(blocks, small("and %d more", len(commits)-most))
	}
	return b.alarm(ctx, "Countersign has stopped: its Redis has lost writes", blocks)
}

// tellResumed posts that a person has said go on.
func (b *Bot) tellResumed(ctx context.Context) error {
	return b.alarm(ctx, "Countersign goes on", []slack.Block{paragraphs(
		line{}.say("✅ ").bold("Countersign goes on.").say(" Somebody has looked at what Redis had lost. Cards show requests as Redis has them now. What was asked or decided shortly before it stopped may be gone: look at ").
			code(b.slash("requests")).say(", and do it again."))})
}

// alarm posts to the security people, or to the approvers where they have no
// channel of their own.
func (b *Bot) alarm(ctx context.Context, text string, blocks []slack.Block) error {
	channel := cmp.Or(b.SecurityChannel, b.ApprovalsChannel)
	if err := b.guard.fit(ctx, channel, guardAge); err != nil {
		return fmt.Errorf("the channel for alarms: %w", err)
	}
	_, _, err := b.api.PostMessageContext(ctx, channel, slack.MsgOptionText(fallback("%s", text), false), slack.MsgOptionBlocks(blocks...))
	return err
}
