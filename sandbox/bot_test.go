package sandbox_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	slackgo "github.com/slack-go/slack"
	"github.com/slack-go/slack/socketmode"

	"countersign/internal/testnet"
	"countersign/sandbox"
	"countersign/sandbox/entra"
	"countersign/sandbox/slack"
)

// manifest belongs to a minimal bot for these tests: it supports the tour and shows every kind of block.
const manifest = `
display_information: {name: Countersign, description: The bot of the sandbox's own tests}
features:
  app_home: {home_tab_enabled: true, messages_tab_enabled: true, messages_tab_read_only_enabled: true}
  bot_user: {display_name: countersign, always_online: true}
  slash_commands:
    - {command: /entra-methods, description: "Show a person and every authentication method", usage_hint: "@user", should_escape: true}
    - {command: /entra-require-reregister, description: "Delete phones, apps and tokens, so that the person registers anew", usage_hint: "@user [ticket=…] [verified=…] why", should_escape: true}
    - {command: /entra-revoke-sessions, description: "Sign the person out everywhere", usage_hint: "@user why", should_escape: true}
    - {command: /entra-gallery, description: "Post every kind of block", usage_hint: "[form]", should_escape: true}
    - {command: /entra-silent, description: "Never answers", should_escape: true}
oauth_config: {scopes: {bot: [commands, "chat:write", "im:write", "users:read", "users:read.email", "channels:read", "groups:read"]}}
settings:
  event_subscriptions: {bot_events: [app_home_opened]}
  interactivity: {is_enabled: true}
  socket_mode_enabled: true
`

// testSandbox is a sandbox and the dialer for it.
type testSandbox struct {
	*sandbox.Sandbox
	dial func(context.Context, string, string) (net.Conn, error) // nil when it listens on a real address
}

// newSandbox starts a sandbox that is closed at the end of the test.
func newSandbox(t *testing.T, change ...func(*sandbox.Options)) *testSandbox {
	t.Helper()
	o := sandbox.Options{Manifest: []byte(manifest), Tune: longTimeouts}
	for _, f := range change {
		f(&o)
	}
	s, err := sandbox.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &testSandbox{s, o.Dial}
}

// longTimeouts makes Slack's time limits long enough for a busy machine. Tests of the time limits use inBubble instead.
func longTimeouts(s *slack.Options, _ *entra.Options) {
	s.AckTimeout, s.TriggerLife = time.Hour, time.Hour
}

// inBubble runs a sandbox inside the test's testing/synctest bubble, with Slack's own time limits.
func inBubble(o *sandbox.Options) {
	network := testnet.New()
	o.Listener, o.Dial, o.Tune = network, network.Dial, nil
}

// bot is a Slack app over slack-go and Microsoft Graph over plain net/http.
type bot struct {
	t   *testing.T
	s   *testSandbox
	api *slackgo.Client
}

// startBot connects the bot and returns after Slack's hello.
func startBot(t *testing.T, s *testSandbox) *bot {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	client := &http.Client{Transport: &http.Transport{DialContext: s.dial}}
	b := &bot{t, s, slackgo.New(sandbox.BotToken, slackgo.OptionAppLevelToken(sandbox.AppToken), slackgo.OptionAPIURL(s.SlackURL()),
		slackgo.OptionHTTPClient(client))}
	socket := socketmode.New(b.api, socketmode.OptionDialer(&websocket.Dialer{NetDialContext: s.dial}))
	hello, ended := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(ended)
		socket.RunContext(ctx)
	}()
	go func() {
		for {
			select {
			case e := <-socket.Events:
				if e.Type == socketmode.EventTypeHello {
					select {
					case hello <- struct{}{}:
					default: // a reconnection
					}
				}
				if e.Request != nil && e.Request.EnvelopeID != "" {
					b.handle(ctx, socket, e)
				}
			case <-ended:
				return
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-ended; client.CloseIdleConnections() })
	select {
	case <-hello:
	case <-ended:
		t.Fatal("no hello from Slack")
	}
	return b
}

func (b *bot) handle(ctx context.Context, socket *socketmode.Client, e socketmode.Event) {
	ack := func(payload ...any) { socket.Ack(*e.Request, payload...) }
	switch data := e.Data.(type) {
	case slackgo.SlashCommand:
		switch data.Command {
		case "/entra-silent":
		case "/entra-gallery":
			ack()
			if data.Text == "form" {
				b.open(ctx, data.TriggerID, galleryForm)
			} else {
				b.post(ctx, data.ChannelID, gallery, "A gallery of blocks")
			}
		case "/entra-require-reregister":
			ack()
			b.open(ctx, data.TriggerID, strings.ReplaceAll(reregisterForm, "WHY", strings.TrimSpace(data.Text[strings.Index(data.Text, ">")+1:])))
		default:
			ack(map[string]any{"response_type": "ephemeral", "text": "*" + data.Command + "* for " + data.Text + ": 14 methods :key:"})
		}
	case slackgo.InteractionCallback:
		switch data.Type {
		case slackgo.InteractionTypeBlockSuggestion:
			ack(json.RawMessage(`{"options":[{"text":{"type":"plain_text","text":"INC-7 Lost phone"},"value":"INC-7"},{"text":{"type":"plain_text","text":"INC-70 ` + data.Value + `"},"value":"INC-70"}]}`))
		case slackgo.InteractionTypeViewSubmission:
			if data.View.CallbackID == "gallery" {
				ack(map[string]any{"response_action": "errors", "errors": map[string]string{"when": "This day is over."}})
				return
			}
			ack()
			values := data.View.State.Values
			b.post(ctx, sandbox.Approvals, strings.NewReplacer("VERIFIED", values["verified"]["verified"].SelectedOption.Text.Text,
				"WHY", values["justification"]["justification"].Value).Replace(card), "Hanna Okafor requests: re-register Dana Whitfield")
		case slackgo.InteractionTypeBlockActions:
			ack()
			b.press(ctx, data)
		}
	default:
		ack()
		b.publish(ctx)
	}
}

func (b *bot) press(ctx context.Context, data slackgo.InteractionCallback) {
	switch action := data.ActionCallback.BlockActions[0]; {
	case action.ActionID == "approve" && data.User.ID == sandbox.Hanna:
		_, err := b.api.PostEphemeralContext(ctx, data.Channel.ID, data.User.ID, slackgo.MsgOptionText("You requested this, so somebody else has to approve it.", false))
		b.check(err)
	case action.ActionID == "approve":
		b.reregister(ctx)
		blocks := b.blocks(decided)
		_, _, _, err := b.api.UpdateMessageContext(ctx, data.Channel.ID, data.Message.Timestamp, slackgo.MsgOptionBlocks(blocks...), slackgo.MsgOptionText("Done", false))
		b.check(err)
		b.post(ctx, sandbox.Audit, auditLine, "Re-registered")
	case action.ActionID == "details":
		b.open(ctx, data.TriggerID, details)
	default:
		_, err := b.api.PostEphemeralContext(ctx, data.Channel.ID, data.User.ID, slackgo.MsgOptionText(action.ActionID+" "+action.Value+action.SelectedOption.Value+action.SelectedUser, false))
		b.check(err)
	}
}

func (b *bot) check(err error) {
	if err != nil && b.t.Context().Err() == nil {
		b.t.Errorf("the bot: %v", err)
	}
}

func (b *bot) blocks(source string) []slackgo.Block {
	var blocks slackgo.Blocks
	b.check(json.Unmarshal([]byte(source), &blocks))
	return blocks.BlockSet
}

func (b *bot) post(ctx context.Context, channel, source, fallback string) {
	_, _, err := b.api.PostMessageContext(ctx, channel, slackgo.MsgOptionBlocks(b.blocks(source)...), slackgo.MsgOptionText(fallback, false))
	b.check(err)
}

func (b *bot) open(ctx context.Context, trigger, source string) {
	var view slackgo.ModalViewRequest
	b.check(json.Unmarshal([]byte(source), &view))
	_, err := b.api.OpenViewContext(ctx, trigger, view)
	b.check(err)
}

func (b *bot) publish(ctx context.Context) {
	for _, id := range []string{sandbox.Hanna, sandbox.Ravi} {
		_, err := b.api.PublishViewContext(ctx, slackgo.PublishViewContextRequest{UserID: id, View: slackgo.HomeTabViewRequest{Type: slackgo.VTHomeTab, Blocks: slackgo.Blocks{BlockSet: b.blocks(home)}}})
		b.check(err)
	}
}

// reregister deletes the methods that a re-registration deletes, through Graph, the default method last.
func (b *bot) reregister(ctx context.Context) {
	token, err := graphToken(ctx, b.s)
	b.check(err)
	base := b.s.SecureURL() + "/v1.0/users/" + sandbox.DanaID + "/authentication/"
	hardware := strings.Replace(base, "/v1.0/", "/beta/", 1) + "hardwareOathMethods"
	var list struct {
		Value []struct {
			Type string `json:"@odata.type"`
			ID   string `json:"id"`
		} `json:"value"`
	}
	b.check(graph(ctx, b.s, token, http.MethodGet, hardware, &list))
	for _, m := range list.Value {
		b.check(graph(ctx, b.s, token, http.MethodPost, hardware+"/"+m.ID+"/deactivate", nil))
	}
	b.check(graph(ctx, b.s, token, http.MethodGet, base+"methods", &list))
	for _, kind := range []struct{ odata, segment string }{
		{entra.TypePhone, "phoneMethods"}, {entra.TypeSoftwareOATH, "softwareOathMethods"}, {entra.TypeAuthenticator, "microsoftAuthenticatorMethods"},
	} {
		for i := len(list.Value) - 1; i >= 0; i-- { // the alternate phone before the mobile one
			if m := list.Value[i]; m.Type == kind.odata {
				b.check(graph(ctx, b.s, token, http.MethodDelete, base+kind.segment+"/"+url.PathEscape(m.ID), nil))
			}
		}
	}
	b.check(graph(ctx, b.s, token, http.MethodPost, b.s.SecureURL()+"/v1.0/users/"+sandbox.DanaID+"/revokeSignInSessions", nil))
}

// graphToken signs in with the client credentials flow.
func graphToken(ctx context.Context, s *testSandbox) (string, error) {
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {sandbox.ClientID}, "client_secret": {sandbox.ClientSecret}, "scope": {s.SecureURL() + "/.default"}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.SecureURL()+"/"+sandbox.TenantID+"/oauth2/v2.0/token", strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := s.HTTPClient().Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	var out struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&out); err != nil {
		return "", err
	}
	if out.Token == "" {
		return "", fmt.Errorf("the token endpoint answered %s without a token", answer.Status)
	}
	return out.Token, nil
}

func graph(ctx context.Context, s *testSandbox, token, method, address string, out any) error {
	r, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	answer, err := s.HTTPClient().Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s", method, address, answer.Status)
	}
	if out == nil {
		return nil
	}
	return json.NewDecoder(answer.Body).Decode(out)
}

const reregisterForm = `{"type":"modal","callback_id":"reregister","title":{"type":"plain_text","text":"Require re-register"},
 "submit":{"type":"plain_text","text":"Send for approval"},"close":{"type":"plain_text","text":"Cancel"},"blocks":[
 {"type":"section","block_id":"target","text":{"type":"mrkdwn","text":"Target: <@U0DANA> · ` + "`dana.whitfield@fernhill.example`" + `"}},
 {"type":"input","block_id":"verified","label":{"type":"plain_text","text":"How did you make sure it was Dana?"},"hint":{"type":"plain_text","text":"The approver sees this."},
  "element":{"type":"static_select","action_id":"verified","placeholder":{"type":"plain_text","text":"Choose"},"options":[
   {"text":{"type":"plain_text","text":"She stood before me"},"value":"in-person"},{"text":{"type":"plain_text","text":"Video call"},"value":"video"},
   {"text":{"type":"plain_text","text":"I called her back"},"value":"callback"},{"text":{"type":"plain_text","text":"Her manager confirmed it"},"value":"manager"}]}},
 {"type":"input","block_id":"ticket","optional":true,"label":{"type":"plain_text","text":"Ticket"},"element":{"type":"plain_text_input","action_id":"ticket","placeholder":{"type":"plain_text","text":"INC-7"}}},
 {"type":"input","block_id":"justification","label":{"type":"plain_text","text":"Justification"},"element":{"type":"plain_text_input","action_id":"justification","multiline":true,"initial_value":"WHY"}}]}`

const card = `[
 {"type":"header","text":{"type":"plain_text","text":"Re-register Dana Whitfield","emoji":true}},
 {"type":"section","fields":[
  {"type":"mrkdwn","text":"*Requester*\n<@U0HANNA>"},{"type":"mrkdwn","text":"*Target*\n<@U0DANA>\ndana.whitfield@fernhill.example"},
  {"type":"mrkdwn","text":"*Caller verification*\nVERIFIED"},{"type":"mrkdwn","text":"*Expires*\n<!date^1795000000^{date_short} {time}|in 30 minutes>"}]},
 {"type":"rich_text","elements":[
  {"type":"rich_text_section","elements":[{"type":"text","text":"Justification","style":{"bold":true}}]},
  {"type":"rich_text_quote","elements":[{"type":"text","text":"WHY"}]},
  {"type":"rich_text_section","elements":[{"type":"text","text":"What will happen","style":{"bold":true}}]},
  {"type":"rich_text_list","style":"ordered","elements":[
   {"type":"rich_text_section","elements":[{"type":"text","text":"Delete the mobile phone "},{"type":"text","text":"+1 ••• ••• ••42","style":{"code":true}}]},
   {"type":"rich_text_section","elements":[{"type":"text","text":"Delete the software token"}]},
   {"type":"rich_text_section","elements":[{"type":"text","text":"Delete Microsoft Authenticator on "},{"type":"text","text":"Dana’s iPhone 15 and iPad Air","style":{"italic":true}}]},
   {"type":"rich_text_section","elements":[{"type":"text","text":"Revoke all sessions"}]}]}]},
 {"type":"context","elements":[{"type":"mrkdwn","text":":warning: Stays: *passkey*, Windows Hello, reset e-mail · R-7Q2"}]},
 {"type":"actions","block_id":"decide","elements":[
  {"type":"button","action_id":"approve","style":"primary","value":"R-7Q2","text":{"type":"plain_text","text":"Approve"},
   "confirm":{"title":{"type":"plain_text","text":"Approve?"},"text":{"type":"plain_text","text":"Require re-register of dana.whitfield@fernhill.example. The requester says: I called her back."},"confirm":{"type":"plain_text","text":"Approve"},"deny":{"type":"plain_text","text":"Not yet"}}},
  {"type":"button","action_id":"deny","style":"danger","value":"R-7Q2","text":{"type":"plain_text","text":"Deny"}},
  {"type":"button","action_id":"details","value":"R-7Q2","text":{"type":"plain_text","text":"Details"}}]}]`

const decided = `[
 {"type":"header","text":{"type":"plain_text","text":"Re-register Dana Whitfield"}},
 {"type":"section","text":{"type":"mrkdwn","text":":white_check_mark: *Done.* Requested by <@U0HANNA>, approved by <@U0RAVI>."}},
 {"type":"context","elements":[{"type":"mrkdwn","text":"6 steps succeeded · R-7Q2"}]}]`

const auditLine = `[{"type":"rich_text","elements":[{"type":"rich_text_section","elements":[{"type":"emoji","name":"white_check_mark"},{"type":"text","text":" succeeded ","style":{"bold":true}},
 {"type":"text","text":"require-reregister of dana.whitfield@fernhill.example, requested by "},{"type":"user","user_id":"U0HANNA"},{"type":"text","text":", approved by "},{"type":"user","user_id":"U0RAVI"},{"type":"text","text":" (R-7Q2)"}]}]}]`

const details = `{"type":"modal","title":{"type":"plain_text","text":"Request R-7Q2"},"close":{"type":"plain_text","text":"Close"},"blocks":[
 {"type":"section","text":{"type":"plain_text","text":"Nothing to fill in here."}},{"type":"divider"},
 {"type":"section","text":{"type":"mrkdwn","text":"<script>alert(1)</script> & *bold* <https://fernhill.example|a link> <javascript:alert(1)|not a link>"}}]}`

const home = `[
 {"type":"header","text":{"type":"plain_text","text":"Your requests"}},
 {"type":"section","text":{"type":"mrkdwn","text":"*1 request* is open."},"accessory":{"type":"button","action_id":"refresh","text":{"type":"plain_text","text":"Refresh"}}},
 {"type":"divider"},
 {"type":"section","text":{"type":"mrkdwn","text":"*Re-register* <@U0DANA> · requested by <@U0HANNA>"},"accessory":{"type":"button","action_id":"details","text":{"type":"plain_text","text":"Details"}}},
 {"type":"actions","elements":[{"type":"users_select","action_id":"look","placeholder":{"type":"plain_text","text":"Look up a person"}}]}]`

const gallery = `[
 {"type":"header","text":{"type":"plain_text","text":"Every kind of block :lock:","emoji":true}},
 {"type":"section","text":{"type":"plain_text","text":"⏳ characters, but no :key: codes","emoji":false}},
 {"type":"section","text":{"type":"mrkdwn","text":"*bold* _italic_ ~struck~ ` + "`code`" + ` *bold with <@U0RAVI> inside* snake_case_name 2*3*4 &lt;b&gt;not markup&lt;/b&gt; &amp;amp;\n> a quote\n> of two lines\nafter <#C0GENERAL> <!here> <https://fernhill.example/a?b=1&amp;c=2|a link> https://fernhill.example/plain."},
  "accessory":{"type":"overflow","action_id":"more","options":[{"text":{"type":"plain_text","text":"Copy the id"},"value":"copy"},{"text":{"type":"plain_text","text":"Mute"},"value":"mute"}]}},
 {"type":"section","text":{"type":"plain_text","text":"<img src=x onerror=alert(1)> *stays as it is*"},"accessory":{"type":"static_select","action_id":"pick","placeholder":{"type":"plain_text","text":"Pick one"},"options":[{"text":{"type":"plain_text","text":"First"},"value":"1"},{"text":{"type":"plain_text","text":"Second"},"value":"2"}]}},
 {"type":"divider"},
 {"type":"section","fields":[{"type":"mrkdwn","text":"*Left*\none"},{"type":"mrkdwn","text":"*Right*\ntwo"},{"type":"plain_text","text":"plain"}]},
 {"type":"rich_text","elements":[
  {"type":"rich_text_section","elements":[{"type":"text","text":"Rich ⚠️ :x: "},{"type":"text","text":"bold","style":{"bold":true}},{"type":"text","text":" and "},{"type":"link","url":"https://fernhill.example","text":"a link"},{"type":"text","text":" and "},{"type":"user","user_id":"U0GLORIA"},{"type":"emoji","name":"hourglass_flowing_sand"}]},
  {"type":"rich_text_list","style":"bullet","elements":[{"type":"rich_text_section","elements":[{"type":"text","text":"first"}]},{"type":"rich_text_section","elements":[{"type":"text","text":"second"}]}]},
  {"type":"rich_text_list","style":"bullet","indent":1,"elements":[{"type":"rich_text_section","elements":[{"type":"text","text":"deeper"}]}]},
  {"type":"rich_text_preformatted","elements":[{"type":"text","text":"GET /v1.0/users\n  200 OK"}]},
  {"type":"rich_text_quote","elements":[{"type":"text","text":"what they said"}]}]},
 {"type":"image","image_url":"https://fernhill.example/a.png","alt_text":"a picture of a lock"},
 {"type":"context","elements":[{"type":"mrkdwn","text":":rotating_light: small print"},{"type":"plain_text","text":"and more"}]},
 {"type":"actions","elements":[{"type":"users_select","action_id":"who","placeholder":{"type":"plain_text","text":"Choose a person"}},{"type":"button","action_id":"plain","value":"p","text":{"type":"plain_text","text":"Plain"}},{"type":"button","action_id":"danger","style":"danger","value":"d","text":{"type":"plain_text","text":"Danger"},"confirm":{"style":"danger","title":{"type":"plain_text","text":"Really?"},"text":{"type":"mrkdwn","text":"This *cannot* be undone."},"confirm":{"type":"plain_text","text":"Do it"},"deny":{"type":"plain_text","text":"Leave it"}}}]}]`

const galleryForm = `{"type":"modal","callback_id":"gallery","title":{"type":"plain_text","text":"Every kind of field"},"submit":{"type":"plain_text","text":"Try it"},"blocks":[
 {"type":"input","block_id":"line","label":{"type":"plain_text","text":"A line"},"element":{"type":"plain_text_input","action_id":"line"}},
 {"type":"input","block_id":"text","optional":true,"label":{"type":"plain_text","text":"Several lines"},"element":{"type":"plain_text_input","action_id":"text","multiline":true}},
 {"type":"input","block_id":"one","label":{"type":"plain_text","text":"One of these"},"element":{"type":"radio_buttons","action_id":"one","options":[
   {"text":{"type":"plain_text","text":"Contain"},"value":"contain","description":{"type":"plain_text","text":"sign out, block"}},{"text":{"type":"plain_text","text":"Destroy"},"value":"destroy"}]}},
 {"type":"input","block_id":"some","optional":true,"label":{"type":"plain_text","text":"Any of these"},"element":{"type":"checkboxes","action_id":"some","options":[
   {"text":{"type":"mrkdwn","text":"*Tell* the manager"},"value":"manager"},{"text":{"type":"plain_text","text":"Tell the target"},"value":"target"}]}},
 {"type":"input","block_id":"who","label":{"type":"plain_text","text":"A person"},"element":{"type":"users_select","action_id":"who","placeholder":{"type":"plain_text","text":"Search people"}}},
 {"type":"input","block_id":"which","label":{"type":"plain_text","text":"A ticket"},"hint":{"type":"plain_text","text":"The app is asked as you type."},"element":{"type":"external_select","action_id":"which","min_query_length":2,"placeholder":{"type":"plain_text","text":"Search tickets"}}},
 {"type":"input","block_id":"many","optional":true,"label":{"type":"plain_text","text":"Several"},"element":{"type":"multi_static_select","action_id":"many","placeholder":{"type":"plain_text","text":"Choose"},"options":[{"text":{"type":"plain_text","text":"Phone"},"value":"phone"},{"text":{"type":"plain_text","text":"Passkey"},"value":"passkey"}]}},
 {"type":"input","block_id":"when","optional":true,"label":{"type":"plain_text","text":"A day"},"element":{"type":"datepicker","action_id":"when","initial_date":"2026-11-02"}}]}`
