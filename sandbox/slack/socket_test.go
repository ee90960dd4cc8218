package slack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	slackgo "github.com/slack-go/slack"
	"github.com/slack-go/slack/slackevents"
	"github.com/slack-go/slack/socketmode"
)

// rawClient is a minimal Socket Mode client, for tests of client misbehaviour.
type rawClient struct {
	t    *testing.T
	conn *websocket.Conn
}

// dial opens a socket and reads its hello. bufferSize is the write buffer size: smaller messages are sent as one frame.
func (b *fixture) dial(bufferSize int) (*rawClient, map[string]any) {
	b.t.Helper()
	conn, _, err := (&websocket.Dialer{NetDialContext: b.dialer.NetDialContext, WriteBufferSize: bufferSize}).Dial(b.link(), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = conn.Close() })
	w := &rawClient{b.t, conn}
	return w, w.read()
}

func (b *fixture) link() string {
	b.t.Helper()
	a, _, _ := b.raw("apps.connections.open", "xapp-1", nil)
	url, _ := a["url"].(string)
	if !strings.HasPrefix(url, "ws://127.0.0.1:") {
		b.t.Fatalf("apps.connections.open: %v", a)
	}
	return url
}

func (w *rawClient) read() (frame map[string]any) {
	w.t.Helper()
	_ = w.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if err := w.conn.ReadJSON(&frame); err != nil {
		w.t.Fatal(err)
	}
	return frame
}

// isCut reports whether the workspace closes the socket within a minute, without another message.
func (w *rawClient) isCut() bool {
	_ = w.conn.SetReadDeadline(time.Now().Add(time.Minute))
	_, _, err := w.conn.ReadMessage()
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

func (w *rawClient) ack(envelope map[string]any, payload any) {
	w.t.Helper()
	if err := w.conn.WriteMessage(websocket.TextMessage, encode(h{"envelope_id": envelope["envelope_id"], "payload": payload})); err != nil {
		w.t.Fatal(err)
	}
}

// async runs f in a goroutine and returns a function that waits for its result.
func async[T any](f func() T) func() T {
	c := make(chan T, 1)
	go func() { c <- f() }()
	return func() T { return <-c }
}

func TestSlashCommandWithRealClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t)
		var got slackgo.SlashCommand
		b.app(func(e socketmode.Event) any {
			got = e.Data.(slackgo.SlashCommand)
			return h{"response_type": "ephemeral", "text": "at your service"}
		})
		a := b.command("U1", "C2", "/probe  @bob.b lost <phone> & more ")
		if a["ok"] != true || a["response"].(map[string]any)["text"] != "at your service" {
			t.Fatalf("%v", a)
		}
		if got.Command != "/probe" || got.Text != "<@U2|bob.b> lost &lt;phone&gt; &amp; more" || got.UserID != "U1" || got.UserName != "ada" || got.TeamID != "T1" ||
			got.TeamDomain != "test" || got.ChannelID != "C2" || got.ChannelName != "privategroup" || got.APIAppID != "A1" || got.IsEnterpriseInstall ||
			got.TriggerID == "" || !strings.HasPrefix(got.ResponseURL, b.url+"/commands/T1/") {
			t.Errorf("%+v", got)
		}
		if m := b.messages("U1", "C2"); len(m) != 1 || !m[0].Ephemeral || m[0].Text != "at your service" {
			t.Errorf("Ada sees %+v", m)
		}
		if m := b.messages("U2", "C2"); len(m) != 0 {
			t.Errorf("Bob sees %+v", m)
		}
		// Commands and their answers also work in channels that the app is not in.
		b.command("U3", "C1", "/probe")
		if got.ChannelName != "general" || len(b.messages("U3", "C1")) != 1 {
			t.Errorf("%+v", got)
		}
		b.command("U1", "D12", "/raw @bob.b <&>")
		if got.ChannelName != "directmessage" || got.Text != "@bob.b <&>" {
			t.Errorf("%+v", got)
		}
	})
}

func TestCommandFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t, func(o *Options) { o.AckTimeout = 300 * time.Millisecond })
		if a := b.command("U1", "C2", "/probe"); a["error"] != "dispatch_failed" {
			t.Errorf("without a socket: %v", a)
		}
		b.app(func(e socketmode.Event) any {
			switch e.Data.(slackgo.SlashCommand).Text {
			case "nothing":
				return nil
			case "in public":
				return h{"response_type": "in_channel", "blocks": []any{h{"type": "divider"}}, "text": "all may know"}
			case "rubbish":
				return h{"blocks": []any{h{"type": "dividers"}}}
			}
			return noAck
		})
		if a := b.command("U1", "C2", "/probe hello?"); a["ok"] != false || a["error"] != "operation_timeout" || a["message"] != `/probe failed with the error "operation_timeout"` {
			t.Errorf("no answer: %v", a)
		}
		if a := b.command("U1", "C2", "/probe nothing"); a["ok"] != true || a["response"] != nil || len(b.messages("U1", "C2")) != 0 {
			t.Errorf("empty answer: %v", a)
		}
		if a := b.command("U1", "C2", "/probe rubbish"); a["error"] != "invalid_command_response" {
			t.Errorf("impossible answer: %v", a)
		}
		if b.command("U1", "C2", "/probe in public"); len(b.messages("U2", "C2")) != 1 {
			t.Errorf("Bob sees %+v", b.messages("U2", "C2"))
		}
		if a := b.command("U1", "C2", "/nope"); a["error"] != "unknown_command" {
			t.Errorf("%v", a)
		}
		b.denied("/sandbox/command", h{"as": "U4", "channel": "C2", "text": "/probe"}, 403, "deactivated")
		b.denied("/sandbox/command", h{"as": "U6", "channel": "C2", "text": "/probe"}, 403, "bot")
		b.denied("/sandbox/command", h{"as": "U99", "channel": "C2", "text": "/probe"}, 404, "unknown_person")
		b.denied("/sandbox/command", h{"as": "U3", "channel": "C2", "text": "/probe"}, 404, "channel_not_found")
		b.denied("/sandbox/command", h{"as": "U1", "channel": "C2", "text": "probe"}, 400, "no_command")
		b.denied("/sandbox/command", h{"as": "U1", "channel": "C2", "txt": "probe"}, 400, "invalid_json")
		b.denied("/sandbox/sing", h{"as": "U1"}, 404, "unknown_call")
	})
}

func TestButtonWithRealClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t)
		var got slackgo.InteractionCallback
		b.app(func(e socketmode.Event) any {
			got = e.Data.(slackgo.InteractionCallback)
			if _, _, _, err := b.api.UpdateMessage(got.Channel.ID, got.Message.Timestamp, slackgo.MsgOptionText("done", false), slackgo.MsgOptionBlocks()); err != nil {
				t.Error(err)
			}
			return nil
		})
		_, ts, err := b.api.PostMessage("C2", slackgo.MsgOptionText("Do it?", false), card())
		if err != nil {
			t.Fatal(err)
		}
		b.denied("/sandbox/press", h{"as": "U2", "channel": "C2", "ts": ts, "action_id": "shrug"}, 404, "action_not_found")
		b.denied("/sandbox/press", h{"as": "U2", "channel": "C2", "ts": ts, "action_id": "approve", "value": "r2"}, 404, "action_not_found")
		b.denied("/sandbox/press", h{"as": "U2", "channel": "C2", "ts": "1.1", "action_id": "approve"}, 404, "message_not_found")
		b.denied("/sandbox/press", h{"as": "U3", "channel": "C2", "ts": ts, "action_id": "approve"}, 404, "channel_not_found")
		if a := b.post("/sandbox/press", h{"as": "U2", "channel": "C2", "ts": ts, "action_id": "approve", "value": "r1"}); a["ok"] != true {
			t.Fatalf("%v", a)
		}
		action := got.ActionCallback.BlockActions[0]
		if got.Type != "block_actions" || got.User.ID != "U2" || got.User.TeamID != "T1" || got.Team.ID != "T1" || got.APIAppID != "A1" || got.Container.Type != "message" ||
			got.Container.MessageTs != ts || got.Container.IsEphemeral || got.Channel.ID != "C2" || got.Channel.Name != "privategroup" || got.Message.Text != "Do it?" ||
			len(got.Message.Blocks.BlockSet) != 2 || got.ResponseURL == "" || got.TriggerID == "" ||
			action.ActionID != "approve" || action.BlockID != "decide" || action.Value != "r1" || action.Text.Text != "Approve" || action.ActionTs == "" {
			t.Errorf("%+v\n%+v", got, action)
		}
		if m := b.messages("U1", "C2"); m[0].Text != "done" || !m[0].Edited || m[0].TS != ts {
			t.Errorf("%+v", m)
		}
		// The payload does not include an ephemeral message, and only its recipient can act on it.
		ts, err = b.api.PostEphemeral("C2", "U1", card())
		if err != nil {
			t.Fatal(err)
		}
		b.denied("/sandbox/press", h{"as": "U2", "channel": "C2", "ts": ts, "action_id": "deny"}, 404, "message_not_found")
		raw := newFixture(t)
		w, _ := raw.dial(32 << 10)
		ts, _ = raw.api.PostEphemeral("C2", "U1", card())
		done := async(func() h {
			return raw.post("/sandbox/press", h{"as": "U1", "channel": "C2", "ts": ts, "action_id": "deny"})
		})
		e := w.read()
		payload := e["payload"].(map[string]any)
		if payload["message"] != nil || payload["container"].(map[string]any)["is_ephemeral"] != true || e["accepts_response_payload"] != true {
			t.Errorf("%v", payload)
		}
		w.ack(e, nil)
		if a := done(); a["ok"] != true {
			t.Error(a)
		}
	})
}

func TestUnansweredAction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t, func(o *Options) { o.AckTimeout = 30 * time.Millisecond })
		_, ts, _ := b.api.PostMessage("C2", card())
		press := h{"as": "U2", "channel": "C2", "ts": ts, "action_id": "approve"}
		b.app(func(socketmode.Event) any { return noAck })
		if a := b.post("/sandbox/press", press); a["error"] != "operation_timeout" || a["message"] != "Operation timed out. Apps need to respond within 3 seconds." {
			t.Errorf("%v", a)
		}
		notInteractive := newFixture(t, func(o *Options) { o.Manifest.Interactivity = false })
		_, ts, _ = notInteractive.api.PostMessage("C2", card())
		if a := notInteractive.post("/sandbox/press", h{"as": "U2", "channel": "C2", "ts": ts, "action_id": "approve"}); a["error"] != "interactivity_disabled" {
			t.Errorf("%v", a)
		}
	})
}

func TestEventsAreRepeatedUntilAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t, func(o *Options) {
			o.AckTimeout = 30 * time.Millisecond
			o.RetryAfter = slices.Repeat([]time.Duration{10 * time.Millisecond}, 500)
		})
		b.post("/sandbox/home", h{"as": "U1"}) // no client is connected yet: the event is repeated
		b.eventually("the event is undelivered", func() bool { return b.calls().Envelopes.Undelivered > 0 })
		type seen struct {
			event, envelope, reason string
			attempt                 int
		}
		var mu sync.Mutex
		var all []seen
		b.app(func(e socketmode.Event) any {
			event := e.Data.(slackevents.EventsAPIEvent)
			opened, _ := event.InnerEvent.Data.(*slackevents.AppHomeOpenedEvent)
			callback, _ := event.Data.(*slackevents.EventsAPICallbackEvent)
			mu.Lock()
			defer mu.Unlock()
			if opened == nil || opened.User != "U1" || opened.Tab != "home" || opened.Channel != "D1" || event.TeamID != "T1" {
				t.Errorf("%+v", event)
			}
			all = append(all, seen{callback.EventID, e.Request.EnvelopeID, e.Request.RetryReason, e.Request.RetryAttempt})
			if len(all) < 3 {
				return noAck
			}
			return nil
		})
		b.eventually("a repetition is acknowledged", func() bool { return b.calls().Envelopes.Acked >= 1 })
		mu.Lock()
		defer mu.Unlock()
		for i, got := range all {
			if got.attempt == 0 || got.reason != "timeout" || got.event == "" || got.event != all[0].event || got.envelope != all[0].envelope || i > 0 && got.attempt <= all[i-1].attempt {
				t.Errorf("%+v", all)
			}
		}
	})
}

func TestEventRetriesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t, func(o *Options) { o.RetryAfter = slices.Repeat([]time.Duration{time.Millisecond}, 3) })
		b.post("/sandbox/home", h{"as": "U1"})
		b.eventually("four attempts", func() bool { return b.calls().Envelopes.Undelivered == 4 })
	})
}

func TestHomeTab(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t)
		home := slackgo.HomeTabViewRequest{Type: slackgo.VTHomeTab, Blocks: slackgo.Blocks{BlockSet: []slackgo.Block{
			slackgo.NewActionBlock("home_b", slackgo.NewButtonBlockElement("open", "1", text("Open")))}}}
		var event slackgo.View
		var pressed slackgo.InteractionCallback
		b.app(func(e socketmode.Event) any {
			switch d := e.Data.(type) {
			case slackevents.EventsAPIEvent:
				event = slackgo.View{}
				if v := d.InnerEvent.Data.(*slackevents.AppHomeOpenedEvent).View; v != nil {
					event = *v
				}
				if _, err := b.api.PublishView("U1", home, ""); err != nil {
					t.Error(err)
				}
			case slackgo.InteractionCallback:
				pressed = d
				if _, err := b.api.OpenView(d.TriggerID, form("From home")); err != nil {
					t.Error(err)
				}
			}
			return nil
		})
		b.post("/sandbox/home", h{"as": "U1"})
		b.eventually("the App Home is published", func() bool { return b.screen("U1").Home != nil })
		v := b.screen("U1").Home
		if v.Type != "home" || event.ID != "" {
			t.Errorf("%+v; the event had %q", v, event.ID)
		}
		if a := b.post("/sandbox/press", h{"as": "U1", "view_id": v.ID, "action_id": "open"}); a["ok"] != true {
			t.Fatal(a)
		}
		if pressed.Container.Type != "view" || pressed.Container.ViewID != v.ID || pressed.View.ID != v.ID || pressed.Channel.ID != "" || pressed.ResponseURL != "" {
			t.Errorf("%+v", pressed)
		}
		if m := b.screen("U1").Modals; len(m) != 1 || m[0].Title.Text != "From home" {
			t.Errorf("%+v", m)
		}
		_, err := b.api.PublishView("U1", home, "stale")
		wantError(t, err, "hash_conflict")
		if _, err = b.api.PublishView("U1", home, v.Hash); err != nil {
			t.Error(err)
		}
		_, err = b.api.PublishView("U99", home, "")
		wantError(t, err, "user_not_found")
		off := newFixture(t, func(o *Options) { o.Manifest.HomeTab = false })
		_, err = off.api.PublishView("U1", home, "")
		wantError(t, err, "not_enabled")
	})
}

func TestHelloTicketsAndTheEleventhSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t)
		link := b.link()
		first, _, err := b.dialer.Dial(link, http.Header{"Origin": {"https://api.slack.com"}})
		if err != nil {
			t.Fatal(err)
		}
		defer first.Close() // keeps the connection from being garbage collected
		if hello := (&rawClient{t, first}).read(); hello["num_connections"] != float64(1) {
			t.Errorf("%v", hello)
		}
		if _, resp, err := b.dialer.Dial(link, nil); err == nil || resp.StatusCode != 403 {
			t.Errorf("a ticket opens two sockets: %v", err)
		}
		stale := b.link()
		b.clock.forward(2 * time.Minute)
		if _, _, err := b.dialer.Dial(stale, nil); err == nil {
			t.Error("an old ticket opens a socket")
		}
		for i := 2; i <= 10; i++ {
			_, hello := b.dial(4096)
			if hello["type"] != "hello" || hello["num_connections"] != float64(i) || hello["connection_info"].(map[string]any)["app_id"] != "A1" ||
				hello["debug_info"].(map[string]any)["approximate_connection_time"] != float64(18000) {
				t.Errorf("%v", hello)
			}
		}
		if w, no := b.dial(4096); no["type"] != "disconnect" || no["reason"] != "too_many_websockets" {
			t.Errorf("the eleventh socket got %v", no)
		} else if !w.isCut() {
			t.Error("the eleventh socket stays open")
		}
		if got := b.calls().Sockets; got != 10 {
			t.Errorf("%d sockets", got)
		}
		// The form request of the official Node client, and Socket Mode switched off.
		r, _ := http.NewRequest("POST", b.url+"/api/apps.connections.open", strings.NewReader(""))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Authorization", "Bearer xapp-1")
		resp, err := b.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var a h
		if _ = json.NewDecoder(resp.Body).Decode(&a); a["ok"] != true {
			t.Errorf("%v", a)
		}
		off := newFixture(t, func(o *Options) { o.Manifest.SocketMode = false })
		if a, _, _ := off.raw("apps.connections.open", "xapp-1", nil); a["ok"] != false {
			t.Error("a socket was opened although Socket Mode is off")
		}
	})
}

func TestEachEnvelopeGoesToExactlyOneSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t)
		var mu sync.Mutex
		got := map[string]int{}
		byApp := [3]int{}
		for i := range byApp {
			b.app(func(e socketmode.Event) any {
				mu.Lock()
				defer mu.Unlock()
				got[e.Request.EnvelopeID]++
				byApp[i]++
				return nil
			})
		}
		for range 60 {
			if a := b.command("U1", "C2", "/probe"); a["ok"] != true {
				t.Fatal(a)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if len(got) != 60 {
			t.Errorf("%d envelopes", len(got))
		}
		for id, n := range got {
			if n != 1 {
				t.Errorf("%s came %d times", id, n)
			}
		}
		if byApp[0] == 0 || byApp[1] == 0 || byApp[2] == 0 {
			t.Errorf("not distributed: %v", byApp)
		}
	})
}

func TestAcknowledgementsThatSlackDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t, func(o *Options) { o.AckTimeout = 300 * time.Millisecond })
		w, _ := b.dial(64 << 10)
		answerWith := func(payload func(id string) any) h {
			result := async(func() h { return b.command("U1", "C2", "/probe") })
			e := w.read()
			w.ack(e, payload(e["envelope_id"].(string)))
			return result()
		}
		fill := func(total int) func(string) any {
			return func(id string) any {
				n := total - len(encode(h{"envelope_id": id, "payload": h{"text": ""}}))
				return h{"text": strings.Repeat("a", n)}
			}
		}
		if a := answerWith(fill(20_479)); a["ok"] != true {
			t.Errorf("20,479 bytes: %v", a)
		}
		if a := answerWith(fill(20_480)); a["error"] != "operation_timeout" {
			t.Errorf("20,480 bytes: %v", a)
		}
		// With a small write buffer the library fragments messages, as with a custom dialer in the app.
		small, _ := b.dial(1024)
		_ = w.conn.Close()
		b.eventually("one socket is left", func() bool { return b.calls().Sockets == 1 })
		w = small
		if a := answerWith(fill(900)); a["ok"] != true {
			t.Errorf("one frame: %v", a)
		}
		if a := answerWith(fill(5000)); a["error"] != "operation_timeout" {
			t.Errorf("several frames: %v", a)
		}
		if a := answerWith(fill(900)); a["ok"] != true {
			t.Errorf("one frame after several: %v", a)
		}
		if err := w.conn.WriteMessage(websocket.TextMessage, []byte(`{"envelope_id":"unknown"}`)); err != nil {
			t.Fatal(err)
		}
		b.eventually("dropped answers are counted", func() bool { return b.calls().Envelopes.Dropped == 3 })
	})
}

func TestLateAndRepeatedAcknowledgements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t, func(o *Options) { o.AckTimeout = 30 * time.Millisecond })
		w, _ := b.dial(4096)
		result := async(func() h { return b.command("U1", "C2", "/probe") })
		e := w.read()
		if a := result(); a["error"] != "operation_timeout" {
			t.Fatal(a)
		}
		w.ack(e, h{"text": "too late"})
		b.eventually("the late answer is counted", func() bool { return b.calls().Envelopes.Late == 1 })
		w.ack(e, nil)
		b.eventually("the repeated answer is counted", func() bool { return b.calls().Envelopes.Repeated == 1 })
		if len(b.messages("U1", "C2")) != 0 {
			t.Error("a late answer is shown")
		}
	})
}

func TestRedelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t)
		var mu sync.Mutex
		var ids, triggers []string
		b.app(func(e socketmode.Event) any {
			mu.Lock()
			defer mu.Unlock()
			ids = append(ids, e.Request.EnvelopeID)
			triggers = append(triggers, e.Data.(slackgo.SlashCommand).TriggerID)
			return h{"text": "again"}
		})
		b.denied("/sandbox/slack/redeliver", h{}, 404, "unknown_envelope")
		b.command("U1", "C2", "/probe")
		if a := b.post("/sandbox/slack/redeliver", h{}); a["acked"] != true || a["envelope_id"] != ids[0] {
			t.Errorf("%v", a)
		}
		if a := b.post("/sandbox/slack/redeliver", h{"envelope_id": ids[0]}); a["acked"] != true {
			t.Errorf("%v", a)
		}
		mu.Lock()
		defer mu.Unlock()
		if len(ids) != 3 || ids[1] != ids[0] || ids[2] != ids[0] || triggers[1] != triggers[0] {
			t.Errorf("%v %v", ids, triggers)
		}
		c := b.calls()
		if c.Envelopes.Redelivered != 2 || c.Envelopes.Acked != 3 || !slices.Equal(c.Recent, []EnvelopeInfo{{ids[0], "slash_commands", 3, 3}}) {
			t.Errorf("%+v", c)
		}
		if m := b.messages("U1", "C2"); len(m) != 1 {
			t.Errorf("the answer to a redelivered command is shown: %+v", m)
		}
	})
}

func TestReconnectAfterEachReason(t *testing.T) {
	for _, reason := range []string{"warning", "refresh_requested", "link_disabled", "cut"} {
		t.Run(reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newFixture(t, func(o *Options) { o.WarnAhead = 30 * time.Millisecond })
				b.app(func(socketmode.Event) any { return nil })
				opened := b.calls().Methods["apps.connections.open"].Calls
				b.post("/sandbox/slack/disconnect", h{"reason": reason})
				b.eventually("the client has reconnected", func() bool {
					c := b.calls()
					return c.Methods["apps.connections.open"].Calls > opened && c.Sockets == 1
				})
				b.eventually("commands work", func() bool { return b.command("U1", "C2", "/probe")["ok"] == true })
			})
		})
	}
	t.Run("unknown", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newFixture(t)
			b.denied("/sandbox/slack/disconnect", h{"reason": "boredom"}, 400, "unknown_reason")
		})
	})
}

func TestSocketsAreRecycled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t, func(o *Options) { o.ConnectionLife, o.WarnAhead = 40*time.Millisecond, 20*time.Millisecond })
		w, hello := b.dial(4096)
		if hello["type"] != "hello" {
			t.Fatal(hello)
		}
		for _, reason := range []string{"warning", "refresh_requested"} {
			if got := w.read(); got["type"] != "disconnect" || got["reason"] != reason || got["debug_info"].(map[string]any)["host"] == "" {
				t.Errorf("%v, not %s", got, reason)
			}
		}
		if !w.isCut() {
			t.Error("the socket is not cut")
		}
	})
}

func TestAnswersOnADrainingSocketCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t, func(o *Options) { o.WarnAhead = time.Minute })
		w, _ := b.dial(4096)
		result := async(func() h { return b.command("U1", "C2", "/probe") })
		e := w.read()
		b.post("/sandbox/slack/disconnect", h{"reason": "refresh_requested"})
		if got := w.read(); got["reason"] != "refresh_requested" {
			t.Fatal(got)
		}
		w.ack(e, nil)
		if a := result(); a["ok"] != true {
			t.Error(a)
		}
		if a := b.command("U1", "C2", "/probe"); a["error"] != "dispatch_failed" {
			t.Errorf("a draining socket gets a command: %v", a)
		}
	})
}

func TestPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t, func(o *Options) { o.PingEvery = 50 * time.Millisecond })
		w, _ := b.dial(4096)
		pinged, ponged := make(chan string, 100), make(chan string, 1)
		w.conn.SetPingHandler(func(data string) error {
			pinged <- data
			return w.conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(time.Second))
		})
		w.conn.SetPongHandler(func(data string) error { ponged <- data; return nil })
		if err := w.conn.WriteControl(websocket.PingMessage, []byte("there?"), time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		_ = w.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		go func() { _, _, _ = w.conn.ReadMessage() }()
		if got := <-ponged; got != "there?" {
			t.Errorf("pong %q", got)
		}
		for range 5 { // longer than a socket without pongs lives
			<-pinged
		}
		noPong, _ := b.dial(4096)
		noPong.conn.SetPingHandler(func(string) error { return nil })
		if !noPong.isCut() {
			t.Error("a socket that never answers pings stays open")
		}
	})
}

func TestTriggersExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t)
		var trigger string
		b.app(func(e socketmode.Event) any { trigger = e.Data.(slackgo.SlashCommand).TriggerID; return nil })

		b.command("U1", "C2", "/probe")
		bad := form("T")
		bad.Title = text(strings.Repeat("T", 25))
		_, err := b.api.OpenView(trigger, bad)
		var no slackgo.SlackErrorResponse
		if no, _ = err.(slackgo.SlackErrorResponse); no.Err != "invalid_arguments" ||
			!slices.Equal(no.ResponseMetadata.Messages, []string{"[ERROR] must be less than 25 characters [json-pointer:/view/title/text]"}) {
			t.Errorf("%#v", err)
		}
		if _, err = b.api.OpenView(trigger, form("T")); err != nil {
			t.Errorf("a refused view must not use up the trigger: %v", err)
		}
		_, err = b.api.OpenView(trigger, form("T"))
		wantError(t, err, "exchanged_trigger_id")

		b.command("U1", "C2", "/probe")
		b.clock.forward(3 * time.Second)
		if _, err = b.api.OpenViewContext(context.Background(), trigger, form("T")); err != nil {
			t.Errorf("after exactly three seconds: %v", err)
		}
		b.command("U1", "C2", "/probe")
		b.clock.forward(3*time.Second + time.Millisecond)
		_, err = b.api.OpenView(trigger, form("T"))
		wantError(t, err, "expired_trigger_id")
		_, err = b.api.OpenView("trigger", form("T"))
		wantError(t, err, "invalid_trigger_id")
		_, err = b.api.PushView(trigger, form("T"))
		wantError(t, err, "expired_trigger_id")
		b.command("U1", "C2", "/probe")
		_, err = b.api.PushView(trigger, form("T"))
		wantError(t, err, "not_found") // a command's trigger does not belong to a modal
	})
}

func TestResponseURLs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t)
		var command slackgo.SlashCommand
		var press slackgo.InteractionCallback
		b.app(func(e socketmode.Event) any {
			switch d := e.Data.(type) {
			case slackgo.SlashCommand:
				command = d
			case slackgo.InteractionCallback:
				press = d
			}
			return nil
		})
		respond := func(url string, options ...slackgo.MsgOption) error { // with slack-go
			_, _, _, err := b.api.SendMessage("", append(options, slackgo.MsgOptionResponseURL(url, slackgo.ResponseTypeEphemeral))...)
			return err
		}
		b.command("U1", "C1", "/probe") // the app is not a member, but can respond here
		for i := range 5 {
			if err := respond(command.ResponseURL, slackgo.MsgOptionText(fmt.Sprint("answer ", i), false)); err != nil {
				t.Fatalf("use %d: %v", i+1, err)
			}
		}
		if m := b.messages("U1", "C1"); len(m) != 5 || !m[0].Ephemeral || len(b.messages("U2", "C1")) != 0 {
			t.Errorf("%+v", m)
		}
		raw := func(url string, body h) (int, string) {
			t.Helper()
			resp, err := b.http.Post(url, "application/json", strings.NewReader(string(encode(body))))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var text strings.Builder
			buf := make([]byte, 512)
			for {
				n, err := resp.Body.Read(buf)
				text.Write(buf[:n])
				if err != nil {
					return resp.StatusCode, strings.TrimSpace(text.String())
				}
			}
		}
		if status, body := raw(command.ResponseURL, h{"text": "six"}); status != 404 || body != "used_url" {
			t.Errorf("the sixth use: %d %s", status, body)
		}
		b.command("U1", "C1", "/probe")
		b.clock.forward(30*time.Minute + time.Second)
		if status, body := raw(command.ResponseURL, h{"text": "late"}); status != 404 || body != "expired_url" {
			t.Errorf("after half an hour: %d %s", status, body)
		}
		if status, _ := raw(command.ResponseURL+"x", h{"text": "guess"}); status != 404 {
			t.Errorf("a guessed URL: %d", status)
		}

		// A command's response URL replaces its last response, also one in the channel.
		b.command("U2", "C2", "/probe")
		raw(command.ResponseURL, h{"text": "working", "response_type": "in_channel"})
		raw(command.ResponseURL, h{"text": "worked", "replace_original": true})
		if m := b.messages("U1", "C2"); len(m) != 1 || m[0].Text != "worked" || m[0].Ephemeral {
			t.Errorf("%+v", m)
		}
		for _, c := range []struct {
			body h
			want string
		}{{h{}, "no_text"}, {h{"blocks": []any{h{"type": "x"}}}, "invalid_blocks"}} {
			if status, body := raw(command.ResponseURL, c.body); status != 400 || body != c.want {
				t.Errorf("%v: %d %s", c.body, status, body)
			}
		}

		// A button's response URL applies to its message, also an ephemeral one.
		ts, _ := b.api.PostEphemeral("C2", "U1", card())
		b.post("/sandbox/press", h{"as": "U1", "channel": "C2", "ts": ts, "action_id": "approve"})
		if status, body := raw(press.ResponseURL, h{"text": "approved", "replace_original": "true"}); status != 200 || body != `{"ok":true}` {
			t.Errorf("%d %s", status, body)
		}
		if m := b.messages("U1", "C2"); len(m) != 2 || m[1].Text != "approved" || len(m[1].Blocks) != 0 || !m[1].Ephemeral || m[1].TS != ts {
			t.Errorf("%+v", m)
		}
		if raw(press.ResponseURL, h{"text": "by the way"}); len(b.messages("U1", "C2")) != 3 || len(b.messages("U2", "C2")) != 1 {
			t.Error("without replace_original, an answer is a new ephemeral message")
		}
		if raw(press.ResponseURL, h{"delete_original": true}); len(b.messages("U1", "C2")) != 2 {
			t.Error("the message is not deleted")
		}
		if status, _ := raw(press.ResponseURL, h{"text": "too late", "replace_original": true}); status != 200 || len(b.messages("U1", "C2")) != 2 {
			t.Error("replacing a deleted message must succeed without effect")
		}
		b.fault(h{"method": "response_url", "times": 1, "kind": "ratelimit"})
		if status, _ := raw(press.ResponseURL, h{"text": "x"}); status != 429 {
			t.Errorf("%d", status)
		}
	})
}
