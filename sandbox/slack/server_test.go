package slack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	slackgo "github.com/slack-go/slack"
	"github.com/slack-go/slack/socketmode"

	"countersign/internal/testnet"
)

const testManifest = `
display_information: {name: Probe, description: An app for tests}
features:
  app_home: {home_tab_enabled: true, messages_tab_enabled: true}
  bot_user: {display_name: Probe Bot}
  slash_commands:
    - {command: /probe, description: Does things, usage_hint: "@who what", should_escape: true}
    - {command: /raw, description: Takes text as it is}
oauth_config:
  scopes: {bot: [commands, "chat:write", "im:write", "users:read", "users:read.email", "usergroups:read", "channels:read", "groups:read"]}
settings:
  event_subscriptions: {bot_events: [app_home_opened]}
  interactivity: {is_enabled: true}
  socket_mode_enabled: true
`

// clock is a clock that tests set.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// fixture is a small workspace, a client of the Web API, and helpers that act as its people. It is used in a testing/synctest
// bubble, because the workspace's short time limits could otherwise expire on a busy machine.
type fixture struct {
	t      *testing.T
	s      *Server
	url    string
	clock  *clock
	api    *slackgo.Client
	http   *http.Client
	dialer websocket.Dialer
}

func newFixture(t *testing.T, changes ...func(*Options)) *fixture {
	t.Helper()
	manifest, err := ParseManifest([]byte(testManifest))
	if err != nil {
		t.Fatal(err)
	}
	b := &fixture{t: t, clock: &clock{now: time.Unix(1_800_000_000, 0)}}
	o := Options{
		Workspace: Workspace{TeamID: "T1", Name: "Test", Domain: "test", AppID: "A1", BotUserID: "U0BOT", BotID: "B1"},
		Manifest:  manifest,
		BotToken:  "xoxb-1", AppToken: "xapp-1",
		Now: b.clock.Now,
		People: []Person{
			{ID: "U1", Handle: "ada", Name: "Ada Byron", Email: "ada@example.com", Title: "Analyst", TZ: "Asia/Tokyo"},
			{ID: "U2", Handle: "bob.b", Name: "Bob Bell", Email: "bob@example.com"},
			{ID: "U3", Handle: "gus", Name: "Gus Guest", Email: "gus@else.example", Restricted: true},
			{ID: "U4", Handle: "gone", Name: "Gone Girl", Email: "gone@example.com", Deactivated: true},
			{ID: "U5", Handle: "strange", Name: "Strange Stella", Email: "s@other.example", Stranger: true, TeamID: "T2"},
			{ID: "U6", Handle: "otherbot", Name: "Other Bot", Bot: true},
		},
		Channels: []Channel{
			{ID: "C1", Name: "general", Members: []string{"U1", "U2", "U3"}},
			{ID: "C2", Name: "desk", Private: true, Members: []string{"U1", "U2", "U0BOT"}},
			{ID: "C3", Name: "secret", Private: true, Members: []string{"U1"}},
			{ID: "C4", Name: "bridge", Shared: true, Members: []string{"U1", "U5", "U0BOT"}},
			{ID: "D12", Members: []string{"U1", "U2"}},
		},
		Groups: []UserGroup{{ID: "S1", Handle: "ops", Name: "Operations", Users: []string{"U1", "U2"}}},
	}
	for _, change := range changes {
		change(&o)
	}
	b.s = New(o)
	mux := http.NewServeMux()
	mux.Handle("/", b.s.Handler())
	mux.Handle("/sandbox/", b.s.PersonAPI())
	network := testnet.New()
	server := &http.Server{Handler: mux}
	go server.Serve(network)
	b.dialer.NetDialContext = network.Dial
	b.http = &http.Client{Transport: &http.Transport{DialContext: network.Dial}}
	t.Cleanup(func() { b.s.Close(); server.Close(); b.http.CloseIdleConnections() })
	b.url = "http://" + network.Addr().String()
	b.s.SetBase(b.url)
	b.api = b.client("xoxb-1")
	return b
}

func (b *fixture) client(token string) *slackgo.Client {
	return slackgo.New(token, slackgo.OptionAppLevelToken("xapp-1"), slackgo.OptionAPIURL(b.url+"/api/"),
		slackgo.OptionHTTPClient(&http.Client{Transport: b.http.Transport, Timeout: 10 * time.Second}))
}

// app runs a real Socket Mode client until the test ends. handle gets each envelope and returns the payload of the acknowledgement,
// or noAck to send none.
func (b *fixture) app(handle func(socketmode.Event) any) {
	b.t.Helper()
	before := b.calls().Sockets
	c := socketmode.New(b.api, socketmode.OptionDialer(&b.dialer), socketmode.OptionLog(log.New(io.Discard, "", 0)))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.RunContext(ctx) }()
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case e := <-c.Events:
				if e.Request == nil || e.Request.EnvelopeID == "" {
					continue
				}
				if answer := handle(e); answer != noAck {
					_ = c.AckCtx(ctx, e.Request.EnvelopeID, answer)
				}
			}
		}
	}()
	b.t.Cleanup(func() { cancel(); <-done })
	b.eventually("the app is connected", func() bool { return b.calls().Sockets > before })
}

type noAckType struct{}

var noAck any = noAckType{}

func (b *fixture) eventually(what string, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	b.t.Fatalf("timeout: %s", what)
}

// do calls the PersonAPI; answer may be nil.
func (b *fixture) do(method, path string, body, answer any) int {
	b.t.Helper()
	var in io.Reader
	if body != nil {
		in = bytes.NewReader(encode(body))
	}
	r, _ := http.NewRequest(method, b.url+path, in)
	resp, err := b.http.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	if answer != nil {
		if err := json.Unmarshal(out, answer); err != nil {
			b.t.Fatalf("%s %s: %v in %s", method, path, err, out)
		}
	}
	return resp.StatusCode
}

type h map[string]any

func (b *fixture) post(path string, body h) h {
	b.t.Helper()
	var answer h
	if status := b.do("POST", path, body, &answer); status != 200 {
		b.t.Fatalf("%s %v: %d %v", path, body, status, answer)
	}
	return answer
}

// denied checks that a POST is refused with this 4xx and error code.
func (b *fixture) denied(path string, body h, status int, code string) {
	b.t.Helper()
	var answer h
	if got := b.do("POST", path, body, &answer); got != status || answer["error"] != code {
		b.t.Errorf("%s %v: %d %v, not %d %s", path, body, got, answer, status, code)
	}
}

func (b *fixture) command(as, channel, text string) h {
	b.t.Helper()
	return b.post("/sandbox/command", h{"as": as, "channel": channel, "text": text})
}

func (b *fixture) calls() (c Calls) {
	b.t.Helper()
	b.do("GET", "/sandbox/slack/calls", nil, &c)
	return c
}

func (b *fixture) messages(as, channel string) (list []MessageInfo) {
	b.t.Helper()
	b.do("GET", "/sandbox/messages?as="+as+"&channel="+channel, nil, &list)
	return list
}

type screen struct {
	Modals []slackgo.View `json:"modals"`
	Home   *slackgo.View  `json:"home"`
}

func (b *fixture) screen(as string) (v screen) {
	b.t.Helper()
	b.do("GET", "/sandbox/views?as="+as, nil, &v)
	return v
}

func (b *fixture) fault(f h) {
	b.t.Helper()
	if status := b.do("PUT", "/sandbox/slack/faults", h{"faults": []any{f}}, nil); status != 200 {
		b.t.Fatalf("fault %v: %d", f, status)
	}
}

// raw calls a method with JSON and without a client library, and returns the response unchanged.
func (b *fixture) raw(method, token string, args any) (answer h, header http.Header, status int) {
	b.t.Helper()
	r, _ := http.NewRequest("POST", b.url+"/api/"+method, bytes.NewReader(encode(args)))
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := b.http.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		b.t.Fatal(err)
	}
	return answer, resp.Header, resp.StatusCode
}

func wantError(t *testing.T, err error, code string) {
	t.Helper()
	if err == nil || err.Error() != code {
		t.Errorf("got %v, not %s", err, code)
	}
}

func text(s string) *slackgo.TextBlockObject {
	return slackgo.NewTextBlockObject("plain_text", s, false, false)
}

// card is a message with two buttons.
func card() slackgo.MsgOption {
	return slackgo.MsgOptionBlocks(
		slackgo.NewSectionBlock(slackgo.NewTextBlockObject("mrkdwn", "*Do it?*", false, false), nil, nil),
		slackgo.NewActionBlock("decide", slackgo.NewButtonBlockElement("approve", "r1", text("Approve")), slackgo.NewButtonBlockElement("deny", "r1", text("Deny"))),
	)
}

// form is a modal with a required reason.
func form(title string) slackgo.ModalViewRequest {
	why := slackgo.NewPlainTextInputBlockElement(nil, "why")
	why.MaxLength = 20
	how := slackgo.NewOptionsSelectBlockElement("static_select", nil, "how", slackgo.NewOptionBlockObject("video", text("Video"), nil), slackgo.NewOptionBlockObject("callback", text("Callback"), nil))
	optional := slackgo.NewInputBlock("how_b", text("How"), nil, how)
	optional.Optional = true
	return slackgo.ModalViewRequest{Type: slackgo.VTModal, Title: text(title), Submit: text("Send"), CallbackID: "form", PrivateMetadata: "kept",
		Blocks: slackgo.Blocks{BlockSet: []slackgo.Block{slackgo.NewInputBlock("why_b", text("Why"), nil, why), optional}}}
}

func TestManifest(t *testing.T) {
	m, err := ParseManifest([]byte(testManifest))
	if err != nil || m.Name != "Probe" || m.BotName != "Probe Bot" || !m.HomeTab || !m.MessagesTab || !m.Interactivity || !m.SocketMode ||
		len(m.Commands) != 2 || !m.Commands[0].ShouldEscape || m.Commands[1].ShouldEscape || len(m.BotScopes) != 8 || !slices.Equal(m.BotEvents, []string{"app_home_opened"}) {
		t.Errorf("YAML: %+v, %v", m, err)
	}
	m, err = ParseManifest([]byte(`{"display_information":{"name":"J"},"features":{"bot_user":{"display_name":"B"},"slash_commands":[{"command":"/x","description":"d"}]},"oauth_config":{"scopes":{"bot":["commands"]}}}`))
	if err != nil || m.Name != "J" || m.Commands[0].Command != "/x" {
		t.Errorf("JSON: %+v, %v", m, err)
	}
	for name, bad := range map[string]string{
		"no name":         `features: {}`,
		"no YAML":         `{`,
		"no slash":        `{"display_information":{"name":"J"},"features":{"bot_user":{"display_name":"B"},"slash_commands":[{"command":"x","description":"d"}]},"oauth_config":{"scopes":{"bot":["commands"]}}}`,
		"twice":           `{"display_information":{"name":"J"},"features":{"bot_user":{"display_name":"B"},"slash_commands":[{"command":"/x","description":"d"},{"command":"/x","description":"d"}]},"oauth_config":{"scopes":{"bot":["commands"]}}}`,
		"no description":  `{"display_information":{"name":"J"},"features":{"bot_user":{"display_name":"B"},"slash_commands":[{"command":"/x"}]},"oauth_config":{"scopes":{"bot":["commands"]}}}`,
		"commands' scope": `{"display_information":{"name":"J"},"features":{"bot_user":{"display_name":"B"},"slash_commands":[{"command":"/x","description":"d"}]}}`,
		"no bot user":     `{"display_information":{"name":"J"},"oauth_config":{"scopes":{"bot":["chat:write"]}}}`,
	} {
		if _, err := ParseManifest([]byte(bad)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestNewRefusesInvalidOptions(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"unknown member":  func(o *Options) { o.Channels[0].Members = []string{"U99"} },
		"same handle":     func(o *Options) { o.People[1].Handle = "ada" },
		"no bot":          func(o *Options) { o.Workspace.BotUserID = "" },
		"wrong token":     func(o *Options) { o.BotToken = "xapp-1" },
		"app in their DM": func(o *Options) { o.Channels[4].Members = []string{"U1", "U0BOT"} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				defer func() {
					if recover() == nil {
						t.Error("accepted")
					}
				}()
				newFixture(t, change)
			})
		})
	}
}

func TestTokensAndScopes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t, func(o *Options) {
			o.Manifest.BotScopes = slices.DeleteFunc(slices.Clone(o.Manifest.BotScopes), func(s string) bool {
				return s == "users:read.email" || s == "groups:read" || s == "chat:write"
			})
		})
		who, err := b.api.AuthTest()
		if err != nil || who.UserID != "U0BOT" || who.BotID != "B1" || who.TeamID != "T1" || who.Team != "Test" {
			t.Errorf("%+v, %v", who, err)
		}
		if got := who.Header.Get("X-OAuth-Scopes"); got != "commands,im:write,users:read,usergroups:read,channels:read" {
			t.Errorf("X-OAuth-Scopes: %q", got)
		}
		_, err = b.client("xoxb-2").AuthTest()
		wantError(t, err, "invalid_auth")
		_, err = b.client("").AuthTest()
		wantError(t, err, "not_authed")
		_, err = b.client("xapp-1").GetUserInfo("U1")
		wantError(t, err, "not_allowed_token_type")
		if a, _, _ := b.raw("apps.connections.open", "xoxb-1", nil); a["error"] != "not_allowed_token_type" {
			t.Errorf("a bot token opens sockets: %v", a)
		}
		if a, _, _ := b.raw("apps.connections.open", "", h{"token": "xapp-1"}); a["error"] != "not_authed" {
			t.Errorf("a token in the arguments opens sockets: %v", a)
		}
		if a, _, _ := b.raw("auth.test", "xapp-1", nil); a["app_id"] != "A1" {
			t.Errorf("auth.test of the app-level token: %v", a)
		}

		_, _, err = b.api.PostMessage("C2", slackgo.MsgOptionText("x", false))
		var no slackgo.SlackErrorResponse
		if !errors.As(err, &no) || no.Err != "missing_scope" || no.Needed != "chat:write" || !strings.HasPrefix(no.Provided, "commands,im:write") {
			t.Errorf("%#v", err)
		}
		_, err = b.api.GetUserByEmail("ada@example.com")
		wantError(t, err, "missing_scope")
		if u, err := b.api.GetUserInfo("U1"); err != nil || u.Profile.Email != "" {
			t.Errorf("without users:read.email: %v %v", u, err)
		}
		_, err = b.api.GetConversationInfo(&slackgo.GetConversationInfoInput{ChannelID: "C2"})
		if !errors.As(err, &no) || no.Needed != "groups:read" {
			t.Errorf("%#v", err)
		}
		if _, err = b.api.GetConversationInfo(&slackgo.GetConversationInfoInput{ChannelID: "C1"}); err != nil {
			t.Error(err)
		}
	})
}

func TestUnknownCallsReturn501(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t)
		a, _, status := b.raw("conversations.archive", "xoxb-1", nil)
		if e, _ := a["error"].(string); status != 501 || a["ok"] != false || !strings.HasPrefix(e, "unknown_method") {
			t.Errorf("%d %v", status, a)
		}
		a, _, status = b.raw("chat.postMessage", "xoxb-1", h{"channel": "C2", "text": "x", "attachments": []any{h{"text": "y"}}})
		if status != 501 {
			t.Errorf("attachments: %d %v", status, a)
		}
		if a, _, _ := b.raw("chat.postMessage", "xoxb-1", []any{}); a["error"] != "json_not_object" {
			t.Errorf("a list: %v", a)
		}
		if a, _, _ := b.raw("chat.postMessage", "xoxb-1", h{"channel": "C2", "text": "x", "blocks": h{}}); a["error"] != "invalid_blocks_format" {
			t.Errorf("blocks that are not a list: %v", a)
		}
	})
}

func TestUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t)
		ada, err := b.api.GetUserInfo("U1")
		if err != nil || ada.Profile.Email != "ada@example.com" || ada.RealName != "Ada Byron" || ada.Profile.DisplayName != "ada" || ada.TeamID != "T1" ||
			!ada.IsEmailConfirmed || ada.IsRestricted || ada.TZ != "Asia/Tokyo" || ada.Profile.Title != "Analyst" {
			t.Errorf("%+v, %v", ada, err)
		}
		for id, ok := range map[string]func(u *slackgo.User) bool{
			"U3":    func(u *slackgo.User) bool { return u.IsRestricted && !u.IsUltraRestricted },
			"U4":    func(u *slackgo.User) bool { return u.Deleted },
			"U5":    func(u *slackgo.User) bool { return u.IsStranger && u.TeamID == "T2" && u.Profile.Email == "" },
			"U0BOT": func(u *slackgo.User) bool { return u.IsBot && u.RealName == "Probe Bot" && u.Name == "probebot" },
		} {
			if u, err := b.api.GetUserInfo(id); err != nil || !ok(u) {
				t.Errorf("%s: %+v, %v", id, u, err)
			}
		}
		// As at Slack, the flags of a deactivated person are absent, not false.
		if a, _, _ := b.raw("users.info", "xoxb-1", h{"user": "U4"}); a["user"].(map[string]any)["is_restricted"] != nil {
			t.Error("a deactivated person has flags")
		}
		_, err = b.api.GetUserInfo("U99")
		wantError(t, err, "user_not_found")
		if u, err := b.api.GetUserByEmail("ADA@example.com"); err != nil || u.ID != "U1" {
			t.Errorf("%v, %v", u, err)
		}
		_, err = b.api.GetUserByEmail("gone@example.com")
		wantError(t, err, "users_not_found")

		groups, err := b.api.GetUserGroups(slackgo.GetUserGroupsOptionIncludeUsers(true))
		if err != nil || len(groups) != 1 || groups[0].Handle != "ops" || !slices.Equal(groups[0].Users, []string{"U1", "U2"}) {
			t.Errorf("%v, %v", groups, err)
		}
		if members, err := b.api.GetUserGroupMembers("S1"); err != nil || !slices.Equal(members, []string{"U1", "U2"}) {
			t.Errorf("%v, %v", members, err)
		}
		_, err = b.api.GetUserGroupMembers("S9")
		wantError(t, err, "no_such_subteam")
	})
}

func TestWhereTheAppCanPost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t)
		say := slackgo.MsgOptionText("a <b> &amp; <@U1>", false)
		for channel, want := range map[string]string{
			"C1": "not_in_channel", "C3": "channel_not_found", "C9": "channel_not_found", "D12": "channel_not_found", "U6": "cannot_dm_bot", "U0BOT": "cannot_dm_bot",
		} {
			_, _, err := b.api.PostMessage(channel, say)
			wantError(t, err, want)
			_, err = b.api.PostEphemeral(channel, "U1", say)
			wantError(t, err, want)
		}
		_, err := b.api.PostEphemeral("C2", "U3", say)
		wantError(t, err, "user_not_in_channel")

		channel, ts, err := b.api.PostMessage("U1", say)
		if err != nil || channel != "D1" {
			t.Fatalf("%s, %v", channel, err)
		}
		if got := b.messages("U1", "D1"); len(got) != 1 || got[0].TS != ts || got[0].Text != "a <b> &amp; <@U1>" || !got[0].Bot || got[0].Ephemeral {
			t.Errorf("the direct message: %+v", got)
		}
		var list []ChannelInfo
		b.do("GET", "/sandbox/channels?as=U1", nil, &list)
		i := slices.IndexFunc(list, func(c ChannelInfo) bool { return c.ID == "D1" })
		if i < 0 || list[i].Kind != "dm" || list[i].With != "U0BOT" || list[i].LastTS != ts || len(list) != 6 {
			t.Errorf("Ada's conversations: %+v", list)
		}
		b.do("GET", "/sandbox/channels?as=U2", nil, &list)
		if len(list) != 3 {
			t.Errorf("Bob's conversations: %+v", list)
		}
		if _, _, err = b.api.PostMessage("U4", say); err != nil { // Slack accepts it
			t.Errorf("to a deactivated person: %v", err)
		}
		d, noOp, open, err := b.api.OpenConversation(&slackgo.OpenConversationParameters{Users: []string{"U1"}})
		if err != nil || d.ID != "D1" || !noOp || !open {
			t.Errorf("%v %v %v %v", d, noOp, open, err)
		}
		_, _, _, err = b.api.OpenConversation(&slackgo.OpenConversationParameters{Users: []string{"U4"}})
		wantError(t, err, "user_disabled")
		_, _, _, err = b.api.OpenConversation(&slackgo.OpenConversationParameters{Users: []string{"U99"}})
		wantError(t, err, "user_not_found")

		closed := newFixture(t, func(o *Options) { o.Manifest.MessagesTab = false })
		_, _, err = closed.api.PostMessage("U1", say)
		wantError(t, err, "messages_tab_disabled")
	})
}

func TestConversations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t)
		info := func(id string) (*slackgo.Channel, error) {
			return b.api.GetConversationInfo(&slackgo.GetConversationInfoInput{ChannelID: id, IncludeNumMembers: true})
		}
		helpDesk, err := info("C2")
		if err != nil || helpDesk.Name != "desk" || !helpDesk.IsPrivate || !helpDesk.IsMember || helpDesk.IsExtShared || helpDesk.NumMembers != 3 {
			t.Errorf("%+v, %v", helpDesk, err)
		}
		if c, err := info("C4"); err != nil || !c.IsExtShared || !slices.Equal(c.ConnectedTeamIDs, []string{"T2"}) {
			t.Errorf("%+v, %v", c, err)
		}
		if c, err := info("C1"); err != nil || c.IsMember || c.IsPrivate {
			t.Errorf("%+v, %v", c, err)
		}
		_, err = info("C3")
		wantError(t, err, "channel_not_found")
		all := []string{}
		for cursor, pages := "", 0; ; pages++ {
			page, next, err := b.api.GetUsersInConversation(&slackgo.GetUsersInConversationParameters{ChannelID: "C2", Limit: 2, Cursor: cursor})
			if err != nil || pages > 2 {
				t.Fatal(page, err)
			}
			all = append(all, page...)
			if cursor = next; next == "" {
				break
			}
		}
		if !slices.Equal(all, []string{"U1", "U2", "U0BOT"}) {
			t.Errorf("%v", all)
		}
	})
}

func TestMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t)
		_, ts, err := b.api.PostMessage("C2", slackgo.MsgOptionText("Do it?", false), card())
		if err != nil {
			t.Fatal(err)
		}
		m := b.messages("U2", "C2")[0]
		if len(m.Blocks) != 2 || m.Blocks[0].(map[string]any)["block_id"] == nil || m.Edited {
			t.Errorf("%+v", m)
		}
		if _, _, _, err = b.api.UpdateMessage("C2", ts, slackgo.MsgOptionText("Done", false)); err != nil {
			t.Fatal(err)
		}
		if m = b.messages("U2", "C2")[0]; m.Text != "Done" || !m.Edited || len(m.Blocks) != 2 {
			t.Errorf("an update with text only must keep the blocks: %+v", m)
		}
		if _, _, _, err = b.api.UpdateMessage("C2", ts, slackgo.MsgOptionText("Done", false), slackgo.MsgOptionBlocks()); err != nil {
			t.Fatal(err)
		}
		if m = b.messages("U2", "C2")[0]; len(m.Blocks) != 0 {
			t.Errorf("an update with empty blocks must remove the blocks: %+v", m)
		}
		_, _, _, err = b.api.UpdateMessage("C2", ts, slackgo.MsgOptionText("", false))
		wantError(t, err, "no_text")
		_, _, _, err = b.api.UpdateMessage("C2", ts, slackgo.MsgOptionText(strings.Repeat("a", 4001), false))
		wantError(t, err, "msg_too_long")
		_, _, _, err = b.api.UpdateMessage("C2", "1.2", slackgo.MsgOptionText("x", false))
		wantError(t, err, "message_not_found")
		link, err := b.api.GetPermalink(&slackgo.PermalinkParameters{Channel: "C2", Ts: ts})
		if err != nil || !strings.HasSuffix(link, "/archives/C2/p"+strings.ReplaceAll(ts, ".", "")) {
			t.Errorf("%s, %v", link, err)
		}
		if _, _, err = b.api.DeleteMessage("C2", ts); err != nil || len(b.messages("U2", "C2")) != 0 {
			t.Errorf("not deleted: %v", err)
		}

		_, _, err = b.api.PostMessage("C2", slackgo.MsgOptionText(" ", false))
		wantError(t, err, "no_text")
		if _, _, err = b.api.PostMessage("C2", slackgo.MsgOptionText(strings.Repeat("ä", 40_001), false)); err != nil {
			t.Error(err)
		}
		if got := b.messages("U1", "C2"); len([]rune(got[0].Text)) != 40_000 {
			t.Error("text is not truncated to 40,000 characters")
		}
		_, err = b.api.PostEphemeral("C2", "U1", slackgo.MsgOptionText(strings.Repeat("ä", 40_001), false))
		wantError(t, err, "msg_too_long")

		// Slack reports the invalid block, and clients show it.
		_, _, err = b.api.PostMessage("C2", slackgo.MsgOptionBlocks(slackgo.NewDividerBlock(), slackgo.NewHeaderBlock(text(strings.Repeat("h", 151)))))
		var no slackgo.SlackErrorResponse
		want := "must be less than 151 characters [json-pointer:/blocks/1/text/text]"
		if !errors.As(err, &no) || no.Err != "invalid_blocks" || !slices.Equal(no.ResponseMetadata.Messages, []string{"[ERROR] " + want}) || *no.Errors[0].Message != want {
			t.Errorf("%#v", err)
		}
		long := make([]slackgo.Block, 5)
		for i := range long {
			long[i] = slackgo.NewSectionBlock(text(strings.Repeat("a", 2700)), nil, nil)
		}
		_, _, err = b.api.PostMessage("C2", slackgo.MsgOptionBlocks(long...))
		wantError(t, err, "msg_blocks_too_long")
		_, _, err = b.api.PostMessage("C2", slackgo.MsgOptionText("x", false), slackgo.MsgOptionMetadata(slackgo.SlackMetadata{EventType: "request", EventPayload: map[string]any{"id": "1"}}))
		if err != nil {
			t.Error(err)
		}
		_, _, err = b.api.PostMessage("C2", slackgo.MsgOptionText("x", false), slackgo.MsgOptionTS("1.2"))
		wantError(t, err, "thread_not_found")
	})
}

func TestEphemeralMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t)
		ts, err := b.api.PostEphemeral("C2", "U1", slackgo.MsgOptionText("psst", false))
		if err != nil {
			t.Fatal(err)
		}
		if got := b.messages("U1", "C2"); len(got) != 1 || !got[0].Ephemeral || got[0].Text != "psst" {
			t.Errorf("Ada sees %+v", got)
		}
		if got := b.messages("U2", "C2"); len(got) != 0 {
			t.Errorf("Bob sees %+v", got)
		}
		_, _, _, err = b.api.UpdateMessage("C2", ts, slackgo.MsgOptionText("x", false))
		wantError(t, err, "message_not_found")
		b.post("/sandbox/reload", h{"as": "U2"})
		if len(b.messages("U1", "C2")) != 1 {
			t.Error("another person's reload removes Ada's message")
		}
		b.post("/sandbox/reload", h{"as": "U1"})
		if len(b.messages("U1", "C2")) != 0 {
			t.Error("the message is still there after a reload")
		}
	})
}

func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t)
		post := func() error {
			_, _, err := b.api.PostMessage("C2", slackgo.MsgOptionText("x", false))
			return err
		}
		sent := func() int { return len(b.messages("U1", "C2")) }

		b.fault(h{"method": "chat.postMessage", "times": 1, "kind": "ratelimit", "retry_after": 7})
		var limited *slackgo.RateLimitedError
		if err := post(); !errors.As(err, &limited) || limited.RetryAfter != 7*time.Second || sent() != 0 {
			t.Errorf("%v, %d sent", err, sent())
		}
		if err := post(); err != nil || sent() != 1 {
			t.Errorf("a fault for one call applies to two: %v", err)
		}
		b.fault(h{"method": "chat.postMessage", "times": 1, "kind": "error", "error": "fatal_error"})
		wantError(t, post(), "fatal_error")
		b.fault(h{"method": "*", "times": 1, "kind": "error", "apply": true})
		wantError(t, post(), "internal_error")
		if sent() != 2 {
			t.Errorf("%d sent: a fault with apply must execute the call", sent())
		}
		b.fault(h{"method": "chat.postMessage", "times": 1, "kind": "status", "status": 500})
		var status slackgo.StatusCodeError
		if err := post(); !errors.As(err, &status) || status.Code != 500 || sent() != 2 {
			t.Errorf("%v", err)
		}
		b.fault(h{"method": "chat.postMessage", "times": 1, "kind": "drop_reply"})
		if err := post(); err == nil || sent() != 3 {
			t.Errorf("dropped reply: %v, %d sent", err, sent())
		}
		b.fault(h{"method": "chat.postMessage", "kind": "hang", "apply": true})
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if _, _, err := b.api.PostMessageContext(ctx, "C2", slackgo.MsgOptionText("x", false)); !errors.Is(err, context.DeadlineExceeded) || sent() != 4 {
			t.Errorf("hang: %v, %d sent", err, sent())
		}
		var set struct{ Faults []Fault }
		if b.do("GET", "/sandbox/slack/faults", nil, &set); len(set.Faults) != 1 || set.Faults[0].Met != 1 {
			t.Errorf("%+v", set)
		}
		b.do("DELETE", "/sandbox/slack/faults", nil, nil)
		if err := post(); err != nil {
			t.Error(err)
		}
		for _, bad := range []h{{"method": "chat.sing", "kind": "error"}, {"method": "*", "kind": "sulk"}, {"method": "*", "kind": "status", "status": 42}, {"method": "*", "kind": "hang", "times": -1}} {
			if got := b.do("PUT", "/sandbox/slack/faults", h{"faults": []any{bad}}, nil); got != 400 {
				t.Errorf("%v: %d", bad, got)
			}
		}
		c := b.calls().Methods["chat.postMessage"]
		if c.Calls != 8 || c.OK != 5 || c.Errors["fault_ratelimit"] != 1 || c.Errors["fault_status"] != 1 {
			t.Errorf("%+v", c)
		}
	})
}

func TestChangedNotifies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t)
		changed := b.s.Changed()
		select {
		case <-changed:
			t.Fatal("notified without a change")
		default:
		}
		if _, _, err := b.api.PostMessage("C2", slackgo.MsgOptionText("x", false)); err != nil {
			t.Fatal(err)
		}
		select {
		case <-changed:
		default:
			t.Error("not notified of a message")
		}
	})
}

func TestClosedWorkspaceReturns503(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t)
		b.s.Close()
		b.s.Close()
		if got := b.do("GET", "/sandbox/people", nil, nil); got != 503 {
			t.Errorf("%d", got)
		}
	})
}
