package slack

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	slackgo "github.com/slack-go/slack"
	"github.com/slack-go/slack/socketmode"
)

func TestPeopleAndCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t)
		var people []PersonInfo
		b.do("GET", "/sandbox/people", nil, &people)
		flags := map[string]string{}
		for _, p := range people {
			f := ""
			for name, is := range map[string]bool{"g": p.Guest, "d": p.Deactivated, "b": p.Bot} {
				if is {
					f += name
				}
			}
			flags[p.ID] = f
			if len(p.Color) != 7 || p.Color[0] != '#' {
				t.Errorf("%s's colour is %q", p.ID, p.Color)
			}
		}
		want := map[string]string{"U0BOT": "b", "U1": "", "U2": "", "U3": "g", "U4": "d", "U5": "g", "U6": "b"}
		if len(flags) != len(want) {
			t.Errorf("%v", flags)
		}
		for id, f := range want {
			if flags[id] != f {
				t.Errorf("%s: %q, not %q", id, flags[id], f)
			}
		}
		var commands []Command
		b.do("GET", "/sandbox/commands", nil, &commands)
		if len(commands) != 2 || commands[0] != (Command{"/probe", "Does things", "@who what", true}) {
			t.Errorf("%+v", commands)
		}
		for _, path := range []string{"/sandbox/channels?as=U99", "/sandbox/views?as=U99", "/sandbox/messages?as=U1&channel=C9", "/sandbox/messages?as=U3&channel=C2"} {
			if got := b.do("GET", path, nil, nil); got != 404 {
				t.Errorf("%s: %d", path, got)
			}
		}
	})
}

func TestEscapingOfCommandText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t)
		for typed, want := range map[string]string{
			"@ada":                                 "<@U1|ada>",
			"@Ada, (@bob.b)":                       "<@U1|ada>, (<@U2|bob.b>)",
			"tell @bob.b.":                         "tell <@U2|bob.b>.",
			"@nobody @bob":                         "@nobody @bob",
			"@ops":                                 "<!subteam^S1|@ops>",
			"in #desk now":                         "in <#C2|desk> now",
			"x@ada x#desk #nope":                   "x@ada x#desk #nope",
			"a & b < c > d":                        "a &amp; b &lt; c &gt; d",
			"<@U1>":                                "&lt;@U1&gt;",
			"see https://e.org/a?b=1&c=2, then":    "see <https://e.org/a?b=1&amp;c=2>, then",
			"ada@example.com mobile +1 4255550100": "<mailto:ada@example.com|ada@example.com> mobile +1 4255550100",
			"pat_partner.example#EXT#@fernhill.example":     "pat_partner.example#EXT#@fernhill.example",
			"ticket=INC-7 verified=callback lost her phone": "ticket=INC-7 verified=callback lost her phone",
			"": "",
		} {
			if got := b.s.escape(typed); got != want {
				t.Errorf("%q: %q, not %q", typed, got, want)
			}
		}
	})
}

// modalFixture has an app that opens a form on /probe and acknowledges interactions with answer.
type modalFixture struct {
	*fixture
	trigger string
	got     slackgo.InteractionCallback
	raw     map[string]any // the last interaction, undecoded
	answer  any
}

func newModalFixture(t *testing.T, view slackgo.ModalViewRequest, changes ...func(*Options)) *modalFixture {
	t.Helper()
	b := &modalFixture{fixture: newFixture(t, changes...)}
	b.app(func(e socketmode.Event) any {
		switch d := e.Data.(type) {
		case slackgo.SlashCommand:
			b.trigger = d.TriggerID
			if _, err := b.api.OpenView(d.TriggerID, view); err != nil {
				t.Error(err)
			}
			return nil
		case slackgo.InteractionCallback:
			b.got = d
			b.raw = nil
			_ = json.Unmarshal(e.Request.Payload, &b.raw)
			return b.answer
		}
		return nil
	})
	b.open("U1")
	return b
}

func (b *modalFixture) open(as string) slackgo.View {
	b.t.Helper()
	if a := b.command(as, "C2", "/probe"); a["ok"] != true {
		b.t.Fatal(a)
	}
	return b.top(as)
}

func (b *modalFixture) top(as string) slackgo.View {
	b.t.Helper()
	m := b.screen(as).Modals
	if len(m) == 0 {
		b.t.Fatal("no modal is open")
	}
	return m[len(m)-1]
}

func (b *modalFixture) submit(values h) h {
	b.t.Helper()
	return b.post("/sandbox/submit", h{"as": "U1", "view_id": b.top("U1").ID, "values": values})
}

func TestForms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newModalFixture(t, form("Reason"))
		v := b.top("U1")
		if !strings.HasPrefix(v.ID, "V") || v.Hash == "" || v.Title.Text != "Reason" || v.RootViewID != v.ID || v.PreviousViewID != "" || v.PrivateMetadata != "" {
			t.Errorf("%+v", v)
		}
		// A form that Slack's client refuses is not sent to the app.
		before := b.calls().Envelopes.Sent
		if a := b.submit(nil); a["ok"] != false || a["errors"].(map[string]any)["why_b"] != "Please complete this required field." {
			t.Errorf("%v", a)
		}
		if a := b.submit(h{"why_b": h{"why": strings.Repeat("a", 21)}}); a["errors"].(map[string]any)["why_b"] != "Please enter no more than 20 characters." {
			t.Errorf("%v", a)
		}
		b.denied("/sandbox/submit", h{"as": "U1", "view_id": v.ID, "values": h{"why_b": h{"where": "x"}}}, 400, "unknown_input")
		b.denied("/sandbox/submit", h{"as": "U1", "view_id": v.ID, "values": h{"how_b": h{"how": "telepathy"}}}, 400, "invalid_value")
		b.denied("/sandbox/submit", h{"as": "U2", "view_id": v.ID}, 404, "view_not_found")
		if b.calls().Envelopes.Sent != before {
			t.Error("a form that Slack's client refuses was sent to the app")
		}

		// The app returns an error for an input: the form stays open.
		b.answer = slackgo.NewErrorsViewSubmissionResponse(map[string]string{"why_b": "Say more."})
		if a := b.submit(h{"why_b": h{"why": "lost"}}); a["ok"] != false || a["errors"].(map[string]any)["why_b"] != "Say more." {
			t.Errorf("%v", a)
		}
		state := b.got.View.State.Values
		if b.got.Type != "view_submission" || b.got.View.CallbackID != "form" || b.got.View.PrivateMetadata != "kept" || b.got.View.ID != v.ID || b.got.TriggerID == "" ||
			state["why_b"]["why"].Value != "lost" || state["why_b"]["why"].Type != "plain_text_input" || state["how_b"]["how"].SelectedOption.Value != "" {
			t.Errorf("%+v", b.got)
		}
		if how := b.raw["view"].(map[string]any)["state"].(map[string]any)["values"].(map[string]any)["how_b"].(map[string]any)["how"].(map[string]any); how["selected_option"] != nil {
			t.Errorf("an empty selection must be null: %v", how)
		}

		// Invalid answers are shown as a connection failure.
		for name, bad := range map[string]any{
			"errors of no input": slackgo.NewErrorsViewSubmissionResponse(map[string]string{"elsewhere": "x"}),
			"no errors":          h{"response_action": "errors"},
			"unknown action":     h{"response_action": "explode"},
			"impossible view":    h{"response_action": "update", "view": h{"type": "modal"}},
			"text":               "thanks",
		} {
			b.answer = bad
			if a := b.submit(h{"why_b": h{"why": "lost"}}); a["error"] != "invalid_response" || !strings.HasPrefix(a["message"].(string), "We had some trouble connecting.") {
				t.Errorf("%s: %v", name, a)
			}
		}

		// An updated view keeps entered values where ids are the same, and has a new hash.
		next := form("Again")
		b.answer = slackgo.NewUpdateViewSubmissionResponse(&next)
		if a := b.submit(h{"why_b": h{"why": "lost"}, "how_b": h{"how": "video"}}); a["ok"] != true {
			t.Fatal(a)
		}
		if got := b.got.View.State.Values["how_b"]["how"].SelectedOption; got.Value != "video" || got.Text.Text != "Video" {
			t.Errorf("%+v", got)
		}
		updated := b.top("U1")
		if updated.ID != v.ID || updated.Title.Text != "Again" || updated.Hash == v.Hash || updated.State.Values["why_b"]["why"].Value != "lost" {
			t.Errorf("%+v", updated)
		}

		// An empty answer closes the modal.
		b.answer = nil
		if a := b.submit(nil); a["ok"] != true || b.got.View.State.Values["why_b"]["why"].Value != "lost" {
			t.Errorf("%v", a)
		}
		if len(b.screen("U1").Modals) != 0 {
			t.Error("the modal is still open")
		}
		_, err := b.api.UpdateView(form("x"), "", "", v.ID)
		wantError(t, err, "not_found")
	})
}

func TestUnansweredSubmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newModalFixture(t, form("Reason"), func(o *Options) { o.AckTimeout = 300 * time.Millisecond })
		b.answer = noAck
		if a := b.submit(h{"why_b": h{"why": "lost"}}); a["error"] != "operation_timeout" || a["message"] != "We had some trouble connecting. Try again?" {
			t.Errorf("%v", a)
		}
		if len(b.screen("U1").Modals) != 1 {
			t.Error("the form was closed, and the typed values are lost")
		}
	})
}

func TestViewStack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := form("One")
		first.Blocks.BlockSet = append(first.Blocks.BlockSet, slackgo.NewActionBlock("more", slackgo.NewButtonBlockElement("push", "", text("More"))))
		first.NotifyOnClose, first.ExternalID = true, "one"
		b := newModalFixture(t, first)
		push := func() (*slackgo.ViewResponse, error) {
			v := b.top("U1")
			b.answer = nil
			if a := b.post("/sandbox/press", h{"as": "U1", "view_id": v.ID, "action_id": "push", "values": h{"why_b": h{"why": "typed"}}}); a["ok"] != true {
				t.Fatal(a)
			}
			if b.got.View.State.Values["why_b"]["why"].Value != "typed" {
				t.Error("the action does not include the values of the inputs")
			}
			next := first
			next.ExternalID = ""
			return b.api.PushView(b.got.TriggerID, next)
		}
		root := b.top("U1")
		for n := 2; n <= 3; n++ {
			below := b.top("U1")
			v, err := push()
			if err != nil || v.RootViewID != root.ID || v.PreviousViewID != below.ID {
				t.Fatalf("%+v, %v", v, err)
			}
		}
		_, err := push()
		wantError(t, err, "push_limit_reached")
		b.denied("/sandbox/submit", h{"as": "U1", "view_id": root.ID}, 409, "view_covered")

		// A covered view can be updated, also by external id, and only with the right hash.
		_, err = b.api.UpdateView(form("New"), "", "stale", root.ID)
		wantError(t, err, "hash_conflict")
		v, err := b.api.UpdateView(form("New"), "one", root.Hash, "")
		if err != nil || v.Title.Text != "New" || v.View.ID != root.ID {
			t.Errorf("%+v, %v", v, err)
		}
		_, err = b.api.UpdateView(form("New"), "two", "", "")
		wantError(t, err, "not_found")

		// Closing notifies the app with notify_on_close, and shows the view below.
		seen := b.calls().Envelopes.Acked
		top := b.top("U1")
		b.post("/sandbox/close", h{"as": "U1", "view_id": top.ID})
		b.eventually("view_closed is acknowledged", func() bool { return b.calls().Envelopes.Acked == seen+1 })
		if b.got.Type != "view_closed" || b.got.View.ID != top.ID || b.got.IsCleared {
			t.Errorf("%+v", b.got)
		}
		if len(b.screen("U1").Modals) != 2 {
			t.Error("closing closed more than one view")
		}
		b.answer = slackgo.NewClearViewSubmissionResponse()
		if b.submit(h{"why_b": h{"why": "typed"}}); len(b.screen("U1").Modals) != 0 {
			t.Error("clear did not close all views")
		}
	})
}

func TestCloseWithoutNotifyOnCloseSendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newModalFixture(t, form("Quiet"))
		b.post("/sandbox/close", h{"as": "U1", "view_id": b.top("U1").ID})
		b.s.Close() // waits for pending envelopes
		if n := len(b.s.envelopes); n != 1 {
			t.Errorf("the app was sent %d envelopes, not only the command", n)
		}
	})
}

func TestClearOnCloseAndPushInTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		view := form("One")
		view.ClearOnClose, view.NotifyOnClose = true, true
		b := newModalFixture(t, view)
		second := view
		second.Title = text("Two")
		b.answer = h{"response_action": "push", "view": second}
		if a := b.submit(h{"why_b": h{"why": "x"}}); a["ok"] != true || b.top("U1").Title.Text != "Two" {
			t.Fatalf("%v", a)
		}
		b.answer = nil
		b.post("/sandbox/close", h{"as": "U1", "view_id": b.top("U1").ID})
		b.eventually("view_closed was acknowledged for both views", func() bool { return b.calls().Envelopes.Acked == 4 })
		if !b.got.IsCleared || len(b.screen("U1").Modals) != 0 {
			t.Errorf("%+v", b.got)
		}
	})
}

func TestExternalIDsAreUnique(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		view := form("One")
		view.ExternalID = "desk"
		b := newModalFixture(t, view)
		b.clock.forward(time.Second)
		other := newTriggerFor(b.fixture, "U2")
		_, err := b.api.OpenView(other, view)
		wantError(t, err, "duplicate_external_id")
	})
}

func newTriggerFor(b *fixture, user string) (id string) {
	b.s.locked(func() { id = b.s.newTrigger(user, "") })
	return id
}

func TestOptionsThatTheAppOffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sel := slackgo.NewOptionsSelectBlockElement("external_select", nil, "who")
		one := 1
		sel.MinQueryLength = &one
		view := slackgo.ModalViewRequest{Type: slackgo.VTModal, Title: text("T"), Submit: text("S"),
			Blocks: slackgo.Blocks{BlockSet: []slackgo.Block{slackgo.NewInputBlock("who_b", text("Who"), nil, sel)}}}
		b := newModalFixture(t, view)
		id := b.top("U1").ID
		ask := h{"as": "U1", "view_id": id, "block_id": "who_b", "action_id": "who", "value": "da"}
		b.answer = slackgo.OptionsResponse{Options: []*slackgo.OptionBlockObject{slackgo.NewOptionBlockObject("dana", text("Dana"), nil)}}
		a := b.post("/sandbox/options", ask)
		if list := a["options"].([]any); len(list) != 1 || list[0].(map[string]any)["value"] != "dana" {
			t.Errorf("%v", a)
		}
		if b.got.Type != "block_suggestion" || b.got.Value != "da" || b.got.ActionID != "who" || b.got.BlockID != "who_b" || b.got.View.ID != id {
			t.Errorf("%+v", b.got)
		}
		if a := b.post("/sandbox/options", h{"as": "U1", "view_id": id, "action_id": "who", "value": ""}); len(a["options"].([]any)) != 0 {
			t.Errorf("the text is too short for options: %v", a)
		}
		b.denied("/sandbox/submit", h{"as": "U1", "view_id": id, "values": h{"who_b": h{"who": "sam"}}}, 400, "invalid_value")
		b.answer = h{"options": []any{h{"text": h{"type": "plain_text", "text": strings.Repeat("x", 76)}, "value": "v"}}}
		if a := b.post("/sandbox/options", ask); a["error"] != "invalid_response" {
			t.Errorf("%v", a)
		}
		b.answer = nil
		if a := b.submit(h{"who_b": h{"who": "dana"}}); a["ok"] != true || b.got.View.State.Values["who_b"]["who"].SelectedOption.Text.Text != "Dana" {
			t.Errorf("%v %+v", a, b.got.View.State)
		}
	})
}

// The state of every kind of element has its own form.
func TestStateOfEveryElement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		view := parsed[map[string]any](t, `{"type":"modal","title":{"type":"plain_text","text":"T"},"submit":{"type":"plain_text","text":"S"},"blocks":[
			`+inputNamed("text", `{"type":"plain_text_input","initial_value":"before"}`)+`,
			`+inputNamed("mail", `{"type":"email_text_input"}`)+`,
			`+inputNamed("link", `{"type":"url_text_input"}`)+`,
			`+inputNamed("count", `{"type":"number_input","is_decimal_allowed":false}`)+`,
			`+inputNamed("day", `{"type":"datepicker","initial_date":"2026-11-23"}`)+`,
			`+inputNamed("time", `{"type":"timepicker"}`)+`,
			`+inputNamed("moment", `{"type":"datetimepicker"}`)+`,
			`+inputNamed("user", `{"type":"users_select"}`)+`,
			`+inputNamed("users", `{"type":"multi_users_select"}`)+`,
			`+inputNamed("talk", `{"type":"conversations_select"}`)+`,
			`+inputNamed("channel", `{"type":"channels_select"}`)+`,
			`+inputNamed("radio", selectElement("radio_buttons", `{"text":`+plain("R")+`,"value":"r"}`))+`,
			`+inputNamed("boxes", selectElement("checkboxes", `{"text":`+plain("A")+`,"value":"a"},{"text":`+plain("B")+`,"value":"b"}`))+`,
			`+inputNamed("multi", selectElement("multi_static_select", `{"text":`+plain("A")+`,"value":"a"},{"text":`+plain("B")+`,"value":"b"}`))+`,
			`+inputNamed("grouped", `{"type":"static_select","option_groups":[{"label":`+plain("G")+`,"options":[{"text":`+plain("A")+`,"value":"a"}]}]}`)+`,
			`+inputNamed("rich", `{"type":"rich_text_input"}`)+`
		]}`)
		b := newFixture(t)
		b.app(func(socketmode.Event) any { return nil })
		if a, _, _ := b.raw("views.open", "xoxb-1", h{"trigger_id": newTriggerFor(b, "U1"), "view": view}); a["ok"] != true {
			t.Fatal(a)
		}
		var state map[string]any
		id := b.screen("U1").Modals[0].ID
		values := h{"mail": h{"a": "ada@example.com"}, "link": h{"a": "https://e.org"}, "count": h{"a": 7}, "time": h{"a": "09:30"}, "moment": h{"a": "1800000000"},
			"user": h{"a": "U2"}, "users": h{"a": []string{"U1", "U2"}}, "talk": h{"a": "C2"}, "channel": h{"a": "C1"}, "radio": h{"a": "r"}, "boxes": h{"a": []string{"b"}},
			"multi": h{"a": []string{"a", "b"}}, "grouped": h{"a": "a"}, "rich": h{"a": "words"}}
		if a := b.post("/sandbox/submit", h{"as": "U1", "view_id": id, "values": values}); a["ok"] != true {
			t.Fatal(a)
		}
		b.s.locked(func() {
			last := b.s.envelopes[len(b.s.envelopes)-1]
			_ = json.Unmarshal(encode(last.payload), &state)
		})
		got := state["view"].(map[string]any)["state"].(map[string]any)["values"].(map[string]any)
		option := func(text, value string) string {
			return `{"text":{"text":"` + text + `","type":"plain_text"},"value":"` + value + `"}`
		}
		for block, want := range map[string]string{
			"text":    `{"type":"plain_text_input","value":"before"}`,
			"mail":    `{"type":"email_text_input","value":"ada@example.com"}`,
			"link":    `{"type":"url_text_input","value":"https://e.org"}`,
			"count":   `{"type":"number_input","value":"7"}`,
			"day":     `{"selected_date":"2026-11-23","type":"datepicker"}`,
			"time":    `{"selected_time":"09:30","type":"timepicker"}`,
			"moment":  `{"selected_date_time":1800000000,"type":"datetimepicker"}`,
			"user":    `{"selected_user":"U2","type":"users_select"}`,
			"users":   `{"selected_users":["U1","U2"],"type":"multi_users_select"}`,
			"talk":    `{"selected_conversation":"C2","type":"conversations_select"}`,
			"channel": `{"selected_channel":"C1","type":"channels_select"}`,
			"radio":   `{"selected_option":` + option("R", "r") + `,"type":"radio_buttons"}`,
			"boxes":   `{"selected_options":[` + option("B", "b") + `],"type":"checkboxes"}`,
			"multi":   `{"selected_options":[` + option("A", "a") + `,` + option("B", "b") + `],"type":"multi_static_select"}`,
			"grouped": `{"selected_option":` + option("A", "a") + `,"type":"static_select"}`,
			"rich":    `{"rich_text_value":{"elements":[{"elements":[{"text":"words","type":"text"}],"type":"rich_text_section"}],"type":"rich_text"},"type":"rich_text_input"}`,
		} {
			var shape any
			_ = json.Unmarshal([]byte(want), &shape)
			if s := string(encode(got[block].(map[string]any)["a"])); s != string(encode(shape)) {
				t.Errorf("%s: %s, not %s", block, s, want)
			}
		}
	})
}

func inputNamed(block, element string) string {
	return `{"type":"input","optional":true,"block_id":"` + block + `","label":` + plain("L") + `,"element":` + strings.TrimSuffix(element, "}") + `,"action_id":"a"}}`
}

func TestSelectActions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t)
		var got slackgo.InteractionCallback
		b.app(func(e socketmode.Event) any { got = e.Data.(slackgo.InteractionCallback); return nil })
		option := func(v string) *slackgo.OptionBlockObject {
			return slackgo.NewOptionBlockObject(v, text(strings.ToUpper(v)), nil)
		}
		_, ts, err := b.api.PostMessage("C2", slackgo.MsgOptionBlocks(slackgo.NewActionBlock("b",
			slackgo.NewOptionsSelectBlockElement("static_select", nil, "one", option("x"), option("y")),
			slackgo.NewOptionsSelectBlockElement("users_select", nil, "who"),
			slackgo.NewOverflowBlockElement("more", option("z")))))
		if err != nil {
			t.Fatal(err)
		}
		press := func(action string, selected any) *slackgo.BlockAction {
			t.Helper()
			if a := b.post("/sandbox/press", h{"as": "U1", "channel": "C2", "ts": ts, "action_id": action, "selected": selected}); a["ok"] != true {
				t.Fatal(a)
			}
			return got.ActionCallback.BlockActions[0]
		}
		if a := press("one", "y"); a.SelectedOption.Value != "y" || a.SelectedOption.Text.Text != "Y" || got.BlockActionState.Values["b"]["one"].SelectedOption.Value != "y" {
			t.Errorf("%+v", a)
		}
		if a := press("who", "U2"); a.SelectedUser != "U2" {
			t.Errorf("%+v", a)
		}
		if a := press("more", "z"); a.SelectedOption.Value != "z" {
			t.Errorf("%+v", a)
		}
		b.denied("/sandbox/press", h{"as": "U1", "channel": "C2", "ts": ts, "action_id": "one", "selected": "q"}, 400, "invalid_value")
		b.denied("/sandbox/press", h{"as": "U1", "channel": "C2", "ts": ts, "action_id": "who", "selected": "U99"}, 400, "invalid_value")
		b.denied("/sandbox/press", h{"as": "U1", "channel": "C2", "ts": ts, "action_id": "one", "selected": []string{"x", "y"}}, 400, "invalid_value")
	})
}

func TestOnlyDispatchingInputsSendActions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		view := form("T")
		quiet := view.Blocks.BlockSet[0].(*slackgo.InputBlock)
		dispatching := *quiet
		dispatching.BlockID, dispatching.DispatchAction = "loud_b", true
		view.Blocks.BlockSet = []slackgo.Block{quiet, &dispatching}
		b := newModalFixture(t, view)
		id := b.top("U1").ID
		b.denied("/sandbox/press", h{"as": "U1", "view_id": id, "block_id": "why_b", "action_id": "why", "selected": "x"}, 400, "no_dispatch")
		if a := b.post("/sandbox/press", h{"as": "U1", "view_id": id, "block_id": "loud_b", "action_id": "why", "selected": "x"}); a["ok"] != true {
			t.Fatal(a)
		}
		if action := b.got.ActionCallback.BlockActions[0]; action.Value != "x" || b.got.View.State.Values["loud_b"]["why"].Value != "x" || b.got.View.State.Values["why_b"]["why"].Value != "" {
			t.Errorf("%+v", b.got)
		}
	})
}

func TestStrangersCanAct(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t)
		var got slackgo.InteractionCallback
		b.app(func(e socketmode.Event) any {
			if d, ok := e.Data.(slackgo.InteractionCallback); ok {
				got = d
			}
			return nil
		})
		_, ts, _ := b.api.PostMessage("C4", card())
		b.post("/sandbox/press", h{"as": "U5", "channel": "C4", "ts": ts, "action_id": "approve"})
		if got.User.TeamID != "T2" || got.Team.ID != "T1" {
			t.Errorf("the payload lacks the stranger's workspace: %+v", got.User)
		}
		if a := b.command("U5", "C4", "/probe"); a["ok"] != true {
			t.Error(a)
		}
	})
}

func TestViewsWithoutSubmitCannotBeSubmitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		view := slackgo.ModalViewRequest{Type: slackgo.VTModal, Title: text("T"), Blocks: slackgo.Blocks{BlockSet: []slackgo.Block{slackgo.NewDividerBlock()}}}
		b := newModalFixture(t, view)
		b.denied("/sandbox/submit", h{"as": "U1", "view_id": b.top("U1").ID}, 400, "no_submit")
		first := b.top("U1").ID
		if b.open("U1"); b.top("U1").ID == first || len(b.screen("U1").Modals) != 1 {
			t.Error("a new modal must replace the old one")
		}
		if !slices.ContainsFunc(b.calls().Recent, func(e EnvelopeInfo) bool { return e.Kind == "slash_commands" }) {
			t.Error("no command among the last envelopes")
		}
	})
}

func TestAdministratorChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t)
		change := func(path string, body h) int { return b.do("PATCH", path, body, nil) }
		if change("/sandbox/people/U2", h{"deactivated": true}) != 200 || change("/sandbox/people/U1", h{"guest": true, "email": "ada@new.example"}) != 200 ||
			change("/sandbox/channels/C2", h{"shared": true, "members": []string{"U1", "U2"}}) != 200 {
			t.Fatal("refused")
		}
		if u, err := b.api.GetUserInfo("U2"); err != nil || !u.Deleted {
			t.Errorf("%+v, %v", u, err)
		}
		if u, err := b.api.GetUserInfo("U1"); err != nil || !u.IsRestricted || u.Profile.Email != "ada@new.example" {
			t.Errorf("%+v, %v", u, err)
		}
		_, _, err := b.api.PostMessage("C2", slackgo.MsgOptionText("x", false))
		wantError(t, err, "channel_not_found")
		b.denied("/sandbox/command", h{"as": "U2", "channel": "C2", "text": "/probe"}, 403, "deactivated")
		if change("/sandbox/usergroups/S1", h{"users": []string{"U2"}}) != 200 {
			t.Fatal("refused")
		}
		if groups, err := b.api.GetUserGroups(slackgo.GetUserGroupsOptionIncludeUsers(true)); err != nil || len(groups) != 1 || !slices.Equal(groups[0].Users, []string{"U2"}) {
			t.Errorf("%v, %v", groups, err)
		}
		if change("/sandbox/usergroups/S1", h{"disabled": true}) != 200 {
			t.Fatal("refused")
		}
		if groups, err := b.api.GetUserGroups(); err != nil || len(groups) != 0 {
			t.Errorf("a disabled user group is listed: %v, %v", groups, err)
		}
		if groups, err := b.api.GetUserGroups(slackgo.GetUserGroupsOptionIncludeDisabled(true)); err != nil || len(groups) != 1 || groups[0].DateDelete == 0 {
			t.Errorf("%v, %v", groups, err)
		}
		for path, body := range map[string]h{"/sandbox/people/U99": {}, "/sandbox/channels/C9": {}, "/sandbox/channels/C1": {"members": []string{"U99"}}, "/sandbox/channels/D12": {},
			"/sandbox/usergroups/S9": {}, "/sandbox/usergroups/S1": {"users": []string{"U99"}}} {
			if got := change(path, body); got != 404 {
				t.Errorf("%s: %d", path, got)
			}
		}
	})
}
