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

// watchLostWrites notifies people when Redis has lost confirmed writes, so that
// nothing is decided or executed, and when it is resumed. Like watchStore it
// needs only Slack for that: events wait for a Redis that can be trusted.
//
// The process that detected the loss posts the message, and so does one that is
// started meanwhile. Of several that detected it, each posts what it has lost.
func (b *Bot) watchLostWrites(ctx context.Context) {
	store := b.Service.Store
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	channels := b.alarmChannels()
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
		stopped := store.HasLostWrites()
		informed := !slices.ContainsFunc(channels, func(c string) bool { return told[c] != stopped })
		if informed && !starting || time.Now().Before(next) {
			continue
		}
		list, unread := store.LostWrites(ctx)
		err := unread
		if !starting && len(told) < len(channels) { // others tell of theirs
			list = slices.DeleteFunc(list, func(l approvals.LostWrites) bool { return l.Process != store.Process() })
		}
		switch {
		case err != nil:
		case len(list) == 0 && len(told) > 0:
			if err = b.notifyResumed(ctx, told); err == nil {
				logged = false
			}
		case len(list) > 0:
			if !logged {
				b.logLostWrites(list)
				logged = true
			}
			err = b.notifyLostWrites(ctx, list, told)
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
			store.LogError(b.Log, "people could not be told whether Countersign has stopped", err)
		default:
			b.Log.Warn("people could not be told whether Countersign has stopped; trying again", "error", err)
		}
	}
}

// logLostWrites logs the lost writes.
func (b *Bot) logLostWrites(list []approvals.LostWrites) {
	b.Log.Error("Redis has lost confirmed writes, and nothing is decided or executed until a person has resumed it: countersign redis resume", "lost", approvals.SummarizeLostWrites(list))
	for _, lost := range list {
		for _, commit := range lost.Commits {
			b.Log.Error("lost", "process", lost.Process, "request", commit.Request, "commit", commit.Sequence, "what", commit.What)
		}
	}
}

// notifyLostWrites posts the lost writes that are known.
func (b *Bot) notifyLostWrites(ctx context.Context, losses []approvals.LostWrites, told map[string]bool) error {
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
		line{}.text("🛑 ").bold("Countersign has stopped.").text(" Its Redis has lost confirmed writes, as after a fail-over or when an older copy is restored. %s", approvals.SummarizeLostWrites(losses)),
		line{}.text("Until an administrator resumes it, nothing is decided or executed. The audit channel and the audit log are right where they differ from what cards show. An administrator runs ").
			code("countersign redis resume").text(" where Countersign runs: it shows everything that is known, and how to resume. %s", urgent))}
	var lines []line
	for _, commit := range commits[:min(len(commits), most)] {
		lines = append(lines, textLine("%s", commit))
	}
	if len(lines) > 0 {
		blocks = append(blocks, list("Lost, execution first", slack.RTEListBullet, lines)...)
	}
	if len(commits) > most {
		blocks = append(blocks, small("and %d more", len(commits)-most))
	}
	return b.alarm(ctx, told, true, "Countersign has stopped: its Redis has lost writes", blocks)
}

// notifyResumed posts that a person has resumed Countersign.
func (b *Bot) notifyResumed(ctx context.Context, told map[string]bool) error {
	return b.alarm(ctx, told, false, "Countersign has resumed", []slack.Block{paragraphs(
		line{}.text("✅ ").bold("Countersign has resumed.").text(" Somebody has looked at what Redis had lost. Requests that Redis lost keep their old cards; their buttons do nothing. "+
			"What the audit channel shows as done is done. Ask again only for what it does not show as carried out."),
		textLine("What was asked or decided shortly before it stopped may be gone: look at ").code(b.slash("requests")).text("."))})
}

// alarmChannels are the channels that are notified: first the security channel,
// then the approvals channel, where work stands still.
func (b *Bot) alarmChannels() []string {
	if b.SecurityChannel == "" || b.SecurityChannel == b.ApprovalsChannel {
		return []string{b.ApprovalsChannel}
	}
	return []string{b.SecurityChannel, b.ApprovalsChannel}
}

// alarm posts to those of these channels that do not have the message yet. If
// one of them fails, the other still gets it.
func (b *Bot) alarm(ctx context.Context, told map[string]bool, stopped bool, text string, blocks []slack.Block) error {
	var failed error
	for _, channel := range b.alarmChannels() {
		if told[channel] == stopped {
			continue
		}
		err := b.guard.check(ctx, channel, channelMaxAge)
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
