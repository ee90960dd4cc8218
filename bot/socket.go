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

// queueLength is how many envelopes may wait for a worker. When the queue is
// full, new ones are not acked, and Slack tells the person that the app did not
// respond.
const queueLength = 200

// maxFrame is more than any envelope that concerns us, in bytes: views and
// messages are our own. What is longer ends the connection, and another is
// opened.
const maxFrame = 1 << 20

// ackTime bounds one ack. slack-go's own Ack would wait for ever once twenty
// of them queue up behind a lost connection.
const ackTime = 2 * time.Second

// lastAcks is how long the socket stays open behind the last ack: slack-go
// does not say when one is on the wire. Where none was sent lately, a stop need
// not wait.
const lastAcks = 100 * time.Millisecond

// permanentErrors are answers of Slack after which trying again cannot help until an
// administrator has changed something. slack-go retries most of them for ever.
var permanentErrors = []string{
	"invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "not_allowed_token_type",
	"missing_scope", "no_permission", "forbidden_team", "team_disabled", "team_access_not_granted", "user_removed_from_team",
	"access_denied", "accesslimited",
}

// listen keeps the connection until ctx ends, or until Slack refuses the app for
// good, which is the error. Then it accepts nothing new, finishes and acks what
// is in progress, and closes the connection.
func (b *Bot) listen(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	socket, cut := context.WithCancel(context.WithoutCancel(ctx)) // outlives ctx: the last acks go out on it
	defer cut()
	queue := make(chan socketmode.Event, queueLength)
	var ends, workers sync.WaitGroup
	ends.Go(func() {
		if err := b.socket.RunContext(socket); errIs(err, permanentErrors...) {
			stop(fatalSlackError(err))
		} else {
			stop(fmt.Errorf("the socket to Slack ended and will not come back: %v", err))
		}
	})
	ends.Go(func() { b.drain(ctx, socket, queue, stop) })
	for range b.Concurrency {
		workers.Go(func() {
			for evt := range queue {
				b.recoverPanic(evt.Request.EnvelopeID, func() { b.arrive(ctx, evt) })
			}
		})
	}
	workers.Wait()
	b.beside.Wait()
	time.Sleep(time.Until(time.Unix(0, b.acked.Load()).Add(lastAcks)))
	cut()
	ends.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// drain moves envelopes into our queue until ctx ends. It goes on emptying
// slack-go's channel until the socket is gone, because slack-go wedges for
// ever when nobody does.
func (b *Bot) drain(ctx, socket context.Context, queue chan<- socketmode.Event, stop context.CancelCauseFunc) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case evt := <-b.socket.Events:
			b.handleSocketEvent(evt, queue, stop)
		}
	}
	close(queue)
	for {
		select {
		case <-socket.Done():
			return
		case <-b.socket.Events: // no ack: Slack tells its author, or another process
		}
	}
}

// handleSocketEvent puts envelopes into the queue and news about the connection
// into the log.
func (b *Bot) handleSocketEvent(evt socketmode.Event, queue chan<- socketmode.Event, stop context.CancelCauseFunc) {
	switch evt.Type {
	case socketmode.EventTypeHello:
		if evt.Request != nil {
			b.learnApp(evt.Request)
		}
		b.once.Do(func() { close(b.ready) })
	case socketmode.EventTypeInvalidAuth:
		stop(fatalSlackError(errors.New("it knows no such app"))) // an HTTP 404
	case socketmode.EventTypeConnectionError:
		failure, _ := evt.Data.(*slack.ConnectionErrorEvent)
		if failure == nil {
			return
		}
		if errIs(failure.ErrorObj, permanentErrors...) {
			stop(fatalSlackError(failure.ErrorObj))
			return
		}
		b.Log.Warn("no connection to Slack; trying again", "attempt", failure.Attempt, "in", failure.Backoff, "error", failure.ErrorObj)
	case socketmode.EventTypeIncomingError, socketmode.EventTypeErrorWriteFailed, socketmode.EventTypeErrorBadMessage:
		b.Log.Warn("trouble on Slack's socket", "kind", string(evt.Type))
	case socketmode.EventTypeSlashCommand, socketmode.EventTypeInteractive, socketmode.EventTypeEventsAPI:
		// The id becomes the operation's, which must not look like one of the
		// engine's own. Slack's are UUIDs.
		if evt.Request == nil || !envelope.MatchString(evt.Request.EnvelopeID) {
			b.Log.Warn("an envelope without a proper id was not taken", "kind", string(evt.Type))
			return
		}
		select {
		case queue <- evt:
		default:
			b.Log.Error("too much at once: an envelope was not taken, and Slack tells its author", "envelope", evt.Request.EnvelopeID)
		}
	}
}

// learnApp learns from Slack's first greeting which app we are. A token is one
// app's, so no later greeting changes that.
func (b *Bot) learnApp(hello *socketmode.Request) {
	app := hello.ConnectionInfo.AppID
	if app != "" {
		b.appID.CompareAndSwap(nil, app)
	}
	if ours, _ := b.appID.Load().(string); app != ours || ours == "" {
		b.Log.Error("Slack's greeting does not name our app, and what comes for another one is refused", "ours", ours, "named", app)
	}
	b.Log.Info("connected to Slack", "sockets_of_this_app", hello.NumConnections)
}

// fatalSlackError ends the program, with what an administrator has to look at.
func fatalSlackError(why error) error {
	return fmt.Errorf("no Socket Mode: Slack does not let Countersign in. Check SLACK_APP_TOKEN, its scope connections:write, and that the app's Socket Mode is on: %w", why)
}

// recoverPanic keeps a panic about one envelope from ending the program.
func (b *Bot) recoverPanic(envelope string, work func()) {
	defer func() {
		if p := recover(); p != nil {
			b.Log.Error("an envelope made its handler panic", "envelope", envelope, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	work()
}

// runInBackground runs what may take long, such as look-ups, outside the
// workers, which must stay free for the next ack.
func (b *Bot) runInBackground(envelope string, work func()) {
	select {
	case b.spare <- struct{}{}:
	default:
		b.Log.Error("too much at once: a view stays as it was opened", "envelope", envelope)
		return
	}
	b.beside.Go(func() {
		defer func() { <-b.spare }()
		b.recoverPanic(envelope, work)
	})
}

// ack tells Slack that an envelope arrived; payload may be nil.
func (b *Bot) ack(ctx context.Context, envelope string, payload any) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ackTime)
	defer cancel()
	if payload != nil {
		raw, err := json.Marshal(payload)
		if err != nil || len(raw) > 16<<10 { // Slack drops acks of 20 KB in silence
			b.Log.Error("an ack was too large and was sent empty", "envelope", envelope, "bytes", len(raw), "error", err)
			payload = nil
		}
	}
	err := b.socket.AckCtx(ctx, envelope, payload)
	b.acked.Store(time.Now().UnixNano())
	if err != nil {
		b.Log.Warn("an ack did not go out", "envelope", envelope, "error", err)
	}
}
