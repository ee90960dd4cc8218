package bot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/slack-go/slack"
	"github.com/slack-go/slack/socketmode"
)

// queueLength is how many envelopes may wait for a hand. When it is full,
// new ones are not acked, and Slack tells the person that it did not work.
const queueLength = 200

// ackTime bounds one ack. slack-go's own Ack would wait for ever once twenty
// of them queue up behind a lost connection.
const ackTime = 2 * time.Second

// hopeless are answers to apps.connections.open after which trying again
// cannot help. slack-go retries most of them for ever.
var hopeless = []string{
	"invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "not_allowed_token_type",
	"missing_scope", "no_permission", "forbidden_team", "team_disabled", "user_removed_from_team", "access_denied",
}

// listen keeps the socket and moves what comes out of it into our own queue:
// slack-go wedges for ever when its channel of events is not drained.
func (b *Bot) listen(ctx context.Context) error {
	queue := make(chan socketmode.Event, queueLength)
	var hands sync.WaitGroup
	// Acks and answers in hand outlive ctx for a moment; the socket does too.
	socketCtx, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	for range b.Hands {
		hands.Go(func() {
			for evt := range queue {
				b.contain(context.WithoutCancel(ctx), evt)
			}
		})
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for {
			select {
			case <-socketCtx.Done():
				return
			case evt := <-b.socket.Events:
				b.notice(ctx, evt, queue, cut)
			}
		}
	}()
	finished := make(chan error, 1)
	go func() { finished <- b.socket.RunContext(socketCtx) }()

	var err error
	select {
	case <-ctx.Done():
	case <-socketCtx.Done():
		err = context.Cause(socketCtx)
	case err = <-finished:
		err = fmt.Errorf("Slack's socket ended and will not come back: %w", err)
		finished <- nil
	}
	// From here on nothing new is taken; what is in the queue is finished.
	if err == nil {
		close(queue)
		hands.Wait()
		cut(context.Canceled)
	} else {
		cut(err)
		<-drained
		close(queue)
		hands.Wait()
	}
	<-drained
	<-finished
	return err
}

// notice sorts one event of the socket: envelopes into the queue, news about
// the connection into the log.
func (b *Bot) notice(ctx context.Context, evt socketmode.Event, queue chan<- socketmode.Event, cut context.CancelCauseFunc) {
	switch evt.Type {
	case socketmode.EventTypeHello:
		if evt.Request != nil {
			b.appID.Store(evt.Request.ConnectionInfo.AppID)
			b.Log.Info("connected to Slack", "sockets_of_this_app", evt.Request.NumConnections)
		}
		b.once.Do(func() { close(b.ready) })
	case socketmode.EventTypeInvalidAuth:
		cut(errors.New("Slack does not accept SLACK_APP_TOKEN"))
	case socketmode.EventTypeConnectionError:
		failure, _ := evt.Data.(*slack.ConnectionErrorEvent)
		if failure == nil {
			return
		}
		if errIs(failure.ErrorObj, hopeless...) {
			cut(fmt.Errorf("Slack does not accept SLACK_APP_TOKEN for Socket Mode: %w", failure.ErrorObj))
			return
		}
		b.Log.Warn("no connection to Slack; trying again", "attempt", failure.Attempt, "in", failure.Backoff, "error", failure.ErrorObj)
	case socketmode.EventTypeIncomingError, socketmode.EventTypeErrorWriteFailed, socketmode.EventTypeErrorBadMessage:
		b.Log.Warn("trouble on Slack's socket", "kind", string(evt.Type))
	case socketmode.EventTypeSlashCommand, socketmode.EventTypeInteractive, socketmode.EventTypeEventsAPI:
		if evt.Request == nil || evt.Request.EnvelopeID == "" || ctx.Err() != nil {
			return
		}
		select {
		case queue <- evt:
		default:
			b.Log.Error("too much at once: an envelope was not taken, and Slack tells its author", "envelope", evt.Request.EnvelopeID)
		}
	}
}

// contain keeps a panic in one envelope's handler from ending the program.
func (b *Bot) contain(ctx context.Context, evt socketmode.Event) {
	defer func() {
		if p := recover(); p != nil {
			b.Log.Error("an envelope made its handler panic", "envelope", evt.Request.EnvelopeID, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	b.arrive(ctx, evt)
}

// ack tells Slack that an envelope arrived; payload may be nil.
func (b *Bot) ack(ctx context.Context, envelope string, payload any) {
	ctx, cancel := context.WithTimeout(ctx, ackTime)
	defer cancel()
	if payload != nil {
		raw, err := json.Marshal(payload)
		if err != nil || len(raw) > 16<<10 { // Slack drops acks of 20 KB in silence
			b.Log.Error("an ack was too large and was sent empty", "envelope", envelope, "bytes", len(raw), "error", err)
			payload = nil
		}
	}
	if err := b.socket.AckCtx(ctx, envelope, payload); err != nil {
		b.Log.Warn("an ack did not go out", "envelope", envelope, "error", err)
	}
}
