package bot

import (
	"context"
	"errors"
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
	channels := b.alarmed()
	told := map[string]bool{} // the channels that know that it has stopped
	logged, starting := false, true
	var pause time.Duration
	var next time.Time // Slack may have taken what it did not confirm, so it is not posted again at once
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		stopped := store.Rewound()
		informed := !slices.ContainsFunc(channels, func(c string) bool { return told[c] != stopped })
		if informed && !starting || time.Now().Before(next) {
			continue
		}
		list, unread := store.Losses(ctx)
		err := unread
		if !starting && len(told) < len(channels) { // others tell of theirs
			list = slices.DeleteFunc(list, func(l approvals.Lost) bool { return l.Process != store.Process() })
		}
		switch {
		case err != nil:
		case len(list) == 0 && len(told) > 0:
			if err = b.tellResumed(ctx, told); err == nil {
				logged = false
			}
		case len(list) > 0:
			if !logged {
				b.logLosses(list)
				logged = true
			}
			err = b.tellLosses(ctx, list, told)
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
func (b *Bot) tellLosses(ctx context.Context, losses []approvals.Lost, told map[string]bool) error {
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
			code("countersign redis resume").say(" where Countersign runs: it shows everything that is known, and how to go on. %s", urgent))}
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
	return b.alarm(ctx, told, true, "Countersign has stopped: its Redis has lost writes", blocks)
}

// tellResumed posts that a person has said go on.
func (b *Bot) tellResumed(ctx context.Context, told map[string]bool) error {
	return b.alarm(ctx, told, false, "Countersign goes on", []slack.Block{paragraphs(
		line{}.say("✅ ").bold("Countersign goes on.").say(" Somebody has looked at what Redis had lost. Requests that Redis lost keep their old cards; their buttons do nothing. "+
			"What the audit channel shows as done is done. Ask again only for what it does not show as carried out."),
		say("What was asked or decided shortly before it stopped may be gone: look at ").code(b.slash("requests")).say("."))})
}

// alarmed are the channels that hear of it: the security people first, then the
// approvers, whose work stands still.
func (b *Bot) alarmed() []string {
	if b.SecurityChannel == "" || b.SecurityChannel == b.ApprovalsChannel {
		return []string{b.ApprovalsChannel}
	}
	return []string{b.SecurityChannel, b.ApprovalsChannel}
}

// alarm posts to those of these channels that do not know of it yet. Where one
// of them cannot be told, the other is.
func (b *Bot) alarm(ctx context.Context, told map[string]bool, stopped bool, text string, blocks []slack.Block) error {
	var failed error
	for _, channel := range b.alarmed() {
		if told[channel] == stopped {
			continue
		}
		err := b.guard.fit(ctx, channel, guardAge)
		if err == nil {
			_, _, err = b.api.PostMessageContext(ctx, channel, slack.MsgOptionText(fallback("%s", text), false), slack.MsgOptionBlocks(blocks...))
		}
		switch {
		case err != nil:
			failed = errors.Join(failed, fmt.Errorf("the channel %s: %w", channel, err))
		case stopped:
			told[channel] = true
		default:
			delete(told, channel)
		}
	}
	return failed
}
