package bot

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/slack-go/slack"
	"github.com/slack-go/slack/slackevents"
	"github.com/slack-go/slack/socketmode"

	"countersign/approvals"
	"countersign/commands"
)

// frames are envelopes as Slack sends them, one of each kind.
var frames = []string{
	`{"envelope_id":"1d3c79ab-0ffb-41f3-a080-d19e85f53649","type":"slash_commands","accepts_response_payload":true,"payload":{"token":"t","team_id":"T0HERE","team_domain":"here","channel_id":"C0DESK","channel_name":"privategroup","user_id":"U0ANN","user_name":"ann","command":"/entra-require-reregister","text":"<@U0BEN|ben> verified=video ticket=INC-7 lost &amp; found","api_app_id":"A0APP","is_enterprise_install":"false","response_url":"https://hooks.slack.com/commands/T0HERE/1/x","trigger_id":"12.34.ab"}}`,
	`{"envelope_id":"e2","type":"slash_commands","payload":{"team_id":"T0HERE","channel_id":"D0ANN","user_id":"W0ANN","command":"/entra-add-phone","text":"<@U0BEN> mobile <tel:+14255550142|+1 4255550142>","api_app_id":"A0APP","enterprise_id":"E0GRID","is_enterprise_install":false,"response_url":"http://elsewhere.example/x","trigger_id":"12.34.ab"}}`,
	`{"envelope_id":"e3","type":"interactive","payload":{"type":"block_actions","team":{"id":"T0HERE","domain":"here"},"enterprise":null,"is_enterprise_install":false,"user":{"id":"U0BEN","username":"ben","team_id":"T0HERE"},"api_app_id":"A0APP","container":{"type":"message","message_ts":"1700000000.000100","channel_id":"C0APPROVE","is_ephemeral":false},"channel":{"id":"C0APPROVE","name":"privategroup"},"message":{"type":"message","ts":"1700000000.000100","user":"U0BOT","blocks":[{"type":"rich_text","block_id":"a","elements":[{"type":"rich_text_section","elements":[{"type":"text","text":"For "},{"type":"user","user_id":"U0BEN"}]}]},{"type":"actions","block_id":"decide","elements":[{"type":"button","action_id":"approve","value":"R-7K3M9QXA","text":{"type":"plain_text","text":"Approve"}}]}]},"state":{"values":{}},"response_url":"https://hooks.slack.com/actions/T0HERE/1/x","trigger_id":"12.34.ab","actions":[{"type":"button","action_id":"approve","block_id":"decide","value":"R-7K3M9QXA","action_ts":"1700000001.000100","text":{"type":"plain_text","text":"Approve"}}]}}`,
	`{"envelope_id":"e4","type":"interactive","payload":{"type":"block_actions","team":{"id":"T0HERE"},"user":{"id":"U0BEN","team_id":"T0HERE"},"api_app_id":"A0APP","container":{"type":"view","view_id":"V1"},"view":{"id":"V1","type":"home","blocks":[]},"trigger_id":"12.34.ab","actions":[{"type":"button","action_id":"details","block_id":"b","value":"R-7K3M9QXA"}]}}`,
	`{"envelope_id":"e5","type":"interactive","payload":{"type":"block_actions","team":{"id":"T0HERE"},"user":{"id":"U0BEN"},"api_app_id":"A0APP","container":{"type":"message","message_ts":"1.1","channel_id":"C0DESK","is_ephemeral":true},"channel":{"id":"C0DESK"},"trigger_id":"12.34.ab","actions":[{"type":"button","action_id":"choose:3","block_id":"b","value":"revoke-sessions e6eba5d7-aaf3-43d7-884a-6e59f2af482f stolen"}]}}`,
	`{"envelope_id":"e6","type":"interactive","payload":{"type":"block_actions","team":{"id":"T0HERE"},"user":{"id":"U0BEN"},"api_app_id":"A0APP","container":{"type":"message","message_ts":"1.1","channel_id":"C0DESK"},"channel":{"id":"C0DESK"},"trigger_id":"12.34.ab","actions":[{"type":"button","action_id":"open-form","block_id":"b","value":"add-email <@U0ANN>"}]}}`,
	`{"envelope_id":"e7","type":"interactive","payload":{"type":"view_submission","team":{"id":"T0HERE"},"user":{"id":"U0ANN","team_id":"T0HERE"},"api_app_id":"A0APP","trigger_id":"12.34.ab","view":{"id":"V2","type":"modal","callback_id":"form","private_metadata":"{\"command\":\"require-reregister\",\"channel\":\"C0DESK\"}","blocks":[],"state":{"values":{"target":{"target":{"type":"users_select","selected_user":"U0BEN"}},"target_name":{"target_name":{"type":"plain_text_input","value":null}},"verified":{"verified":{"type":"static_select","selected_option":{"text":{"type":"plain_text","text":"Video"},"value":"video"}}},"justification":{"justification":{"type":"plain_text_input","value":"lost\nphone"}},"ticket":{"ticket":{"type":"plain_text_input","value":"INC-7"}}}}}}}`,
	`{"envelope_id":"e8","type":"interactive","payload":{"type":"view_submission","team":{"id":"T0HERE"},"user":{"id":"U0BEN","team_id":"T0HERE"},"api_app_id":"A0APP","view":{"id":"V3","type":"modal","callback_id":"deny-form","private_metadata":"{\"request\":\"R-7K3M9QXA\",\"channel\":\"C0APPROVE\",\"card\":{\"channel\":\"C0APPROVE\",\"ts\":\"1700000000.000100\"}}","blocks":[],"state":{"values":{"reason":{"reason":{"type":"plain_text_input","value":"no"}}}}}}}`,
	`{"envelope_id":"e9","type":"interactive","payload":{"type":"view_submission","team":{"id":"T0HERE"},"user":{"id":"U0BEN"},"api_app_id":"A0APP","view":{"callback_id":"review-form","private_metadata":"{\"request\":\"R-7K3M9QXA\",\"press\":\"justified\"}","state":{"values":{}}}}}`,
	`{"envelope_id":"ea","type":"interactive","payload":{"type":"view_closed","team":{"id":"T0HERE"},"user":{"id":"U0BEN"},"api_app_id":"A0APP","is_cleared":false,"view":{"id":"V3","type":"modal","blocks":[]}}}`,
	`{"envelope_id":"eb","type":"interactive","payload":{"type":"block_suggestion","team":{"id":"T0HERE"},"user":{"id":"U0BEN"},"api_app_id":"A0APP","block_id":"b","action_id":"a","value":"da","view":{"id":"V3"}}}`,
	`{"envelope_id":"ec","type":"interactive","payload":{"type":"block_actions","team":{"id":"T0THERE"},"user":{"id":"U0EVE","team_id":"T0THERE"},"api_app_id":"A0APP","channel":{"id":"C0APPROVE"},"actions":[{"type":"button","action_id":"approve","block_id":"b","value":"R-7K3M9QXA"}]}}`,
	`{"envelope_id":"ed","type":"events_api","payload":{"token":"t","team_id":"T0HERE","api_app_id":"A0APP","type":"event_callback","event_id":"Ev1","event_time":1700000000,"event":{"type":"app_home_opened","user":"U0ANN","channel":"D0ANN","event_ts":"1.1","tab":"home","view":{"id":"V4","type":"home","blocks":[]}}}}`,
}

// unpack does what slack-go does with a frame; false where it does not take it.
func unpack(frame []byte) (any, bool) {
	var r socketmode.Request
	if json.Unmarshal(frame, &r) != nil {
		return nil, false
	}
	switch r.Type {
	case socketmode.RequestTypeSlashCommands:
		var data slack.SlashCommand
		return data, json.Unmarshal(r.Payload, &data) == nil
	case socketmode.RequestTypeInteractive:
		var data slack.InteractionCallback
		err := json.Unmarshal(r.Payload, &data)
		return data, err == nil
	case socketmode.RequestTypeEventsAPI:
		data, err := slackevents.ParseEvent(r.Payload, slackevents.OptionNoVerifyToken())
		return data, err == nil
	}
	return nil, false
}

// sorter is a bot that knows which app it is, and nobody else.
func sorter() *Bot {
	b := New(Options{BotToken: "xoxb-bot", AppToken: "xapp-app", HTTP: http.DefaultClient, Team: "T0HERE", ApprovalsChannel: approvers, Prefix: "entra-", Service: &approvals.Service{}})
	b.appID.Store("A0APP")
	return b
}

// Each kind of envelope comes into its lane.
func TestRoutes(t *testing.T) {
	b := sorter()
	kinds := []routeKind{routeStore, routeForm, routeStore, routeDetails, routeStore, routeForm, routeStore, routeStore, routeStore, routeNone, routeNone, routeStore, routeHome}
	for i, frame := range frames {
		data, ok := unpack([]byte(frame))
		if !ok {
			t.Fatalf("slack-go does not take %s", frame)
		}
		e := b.routeOf(data)
		if e.kind != kinds[i] || e.malformed != "" {
			t.Errorf("lane %q %s: %s", e.kind, e.malformed, frame)
		}
		if foreign := strings.Contains(frame, "T0THERE"); (e.interaction.Foreign != "") != foreign {
			t.Errorf("foreign is %q: %s", e.interaction.Foreign, frame)
		}
	}
	data, _ := unpack([]byte(frames[2]))
	if d := b.routeOf(data).interaction; d.Card != (approvals.Card{Channel: approvers, TS: "1700000000.000100"}) || d.Request != "R-7K3M9QXA" || d.User != "U0BEN" || d.ResponseURL == "" {
		t.Errorf("the press is %+v", d)
	}
	data, _ = unpack([]byte(frames[1]))
	if d := b.routeOf(data).interaction; d.ResponseURL != "" {
		t.Errorf("it would be answered at %s", d.ResponseURL)
	}
}

// What an envelope says of itself may not be so; then less is done than it
// asks for.
func TestRoutesOfMalformedEnvelopes(t *testing.T) {
	for _, c := range []struct {
		what      string
		frame     int
		old, new  string
		lane      routeKind
		seen, not string // in the interaction
	}{
		{"the button is not in its message", 2, `"action_id":"approve","block_id":"decide","value":"R-7K3M9QXA"`, `"action_id":"approve","block_id":"decide","value":"R-00000000"`, routeStore, `R-00000000`, "1700000000"},
		{"another message", 2, `"container":{"type":"message","message_ts":"1700000000.000100"`, `"container":{"type":"message","message_ts":"1700000000.000200"`, routeStore, `R-7K3M9QXA`, "1700000000"},
		{"another channel", 2, `"channel_id":"C0APPROVE"`, `"channel_id":"C0ELSEWHERE"`, routeNone, "", ""},
		{"no request", 2, `"block_id":"decide","value":"R-7K3M9QXA"`, `"block_id":"decide"`, routeNone, "", ""},
		{"a path for a request", 2, `"block_id":"decide","value":"R-7K3M9QXA"`, `"block_id":"decide","value":"../../x"`, routeNone, "", ""},
		{"half a button of ours", 2, `"action_id":"approve","block_id"`, `"action_id":"approve:1","block_id"`, routeNone, "", ""},
		{"nobody", 2, `"user":{"id":"U0BEN"`, `"user":{"id":""`, routeNone, "", ""},
		{"two buttons", 2, `"actions":[`, `"actions":[{"type":"button","action_id":"deny","block_id":"decide","value":"R-7K3M9QXA"},`, routeNone, "", ""},
		{"another app", 2, `"api_app_id":"A0APP"`, `"api_app_id":"A0OTHER"`, routeStore, "A0OTHER", ""},
		{"a whole organisation", 2, `"is_enterprise_install":false`, `"is_enterprise_install":true`, routeStore, "organisation", ""},
		{"another prefix", 0, `/entra-require`, `/require`, routeAnswer, "", ""},
		{"far too much", 0, `lost &amp; found`, strings.Repeat("lost ", 4000), routeAnswer, "", ""},
		{"a forged command", 6, `\"require-reregister\"`, `\"root\"`, routeNone, "", ""},
		{"a forged request", 7, `\"R-7K3M9QXA\"`, `\"R-*\"`, routeNone, "", ""},
		{"a forged card", 7, `\"ts\":\"1700000000.000100\"`, `\"ts\":\"now\"`, routeNone, "", ""},
		{"metadata that is none", 7, `{\"request\"`, `{{\"request\"`, routeNone, "", ""},
		{"a form of somebody else's", 7, `"callback_id":"deny-form"`, `"callback_id":"theirs"`, routeNone, "", ""},
		{"a review that says nothing", 8, `\"justified\"`, `\"approve\"`, routeNone, "", ""},
		{"somebody else's button, from elsewhere", 11, `"action_id":"approve"`, `"action_id":"\u202edrop"`, routeStore, "T0THERE", "drop"},
		{"a home of another app", 12, `A0APP`, `A0OTHER`, routeNone, "", ""},
	} {
		changed := strings.Replace(frames[c.frame], c.old, c.new, 1)
		data, ok := unpack([]byte(changed))
		if changed == frames[c.frame] || !ok {
			t.Fatalf("%s is not tried: %s", c.what, changed)
		}
		e := sorter().routeOf(data)
		raw, err := json.Marshal(e.interaction)
		if err != nil {
			t.Fatal(err)
		}
		if e.kind != c.lane || !strings.Contains(string(raw), c.seen) || c.not != "" && strings.Contains(string(raw), c.not) {
			t.Errorf("%s: lane %q (%s), %s", c.what, e.kind, e.malformed, raw)
		}
	}
	if e := New(Options{HTTP: http.DefaultClient, Team: "T0HERE", Prefix: "entra-", Service: &approvals.Service{}}).routeOf(slack.SlashCommand{TeamID: "T0HERE", UserID: "U0ANN", Command: "/entra-help"}); e.interaction.Foreign == "" {
		t.Error("before Slack said which app we are, somebody is ours")
	}
}

// An answer goes to a response URL of Slack's and nowhere else: neither to
// another server, nor to another of Slack's services.
func TestAnswersGoToResponseURLsOnly(t *testing.T) {
	at := func(api string) *Bot {
		return New(Options{HTTP: http.DefaultClient, APIURL: api, Service: &approvals.Service{}})
	}
	usual, government, local := at(""), at("https://slack-gov.com/api/"), at("http://127.0.0.1:8080/api/")
	for _, c := range []struct {
		bot  *Bot
		to   string
		goes bool
	}{
		{usual, "https://hooks.slack.com/commands/T0HERE/1/x", true},
		{usual, "https://hooks.slack.com/actions/T0HERE/1232321423432/D09sLkQv8bN1vbXrDAlUI_-7", true},
		{usual, "https://hooks.slack.com/app/T0HERE/1/x", true},
		{usual, "https://hooks.slack.com/services/T0HERE/B0HOOK/x", false}, // an incoming webhook
		{usual, "https://hooks.slack.com/commands/T0HERE/1", false},
		{usual, "https://hooks.slack.com/commands/T0HERE/1/x/y", false},
		{usual, "https://hooks.slack.com/commands/T0HERE/../x", false},
		{usual, "https://hooks.slack.com/commands/T0HERE/%2e%2e/x", false},
		{usual, "https://hooks.slack.com/commands/T0HERE/1/x?to=y", false},
		{usual, "https://hooks.slack.com/commands/T0HERE/1/x#y", false},
		{usual, "https://somebody@hooks.slack.com/commands/T0HERE/1/x", false},
		{usual, "https://hooks.slack.com:444/commands/T0HERE/1/x", false},
		{usual, "http://hooks.slack.com/commands/T0HERE/1/x", false},
		{usual, "https://hooks.slack.com.example/commands/T0HERE/1/x", false},
		{usual, "https://hooks.slack.com/commands/T0HERE/1/" + strings.Repeat("x", 1000), false},
		{usual, "", false},
		{government, "https://hooks.slack-gov.com/actions/T0HERE/1/x", true},
		{government, "https://slack-gov.com/api/chat.postMessage", false},
		{government, "http://hooks.slack-gov.com/actions/T0HERE/1/x", false},
		{local, "http://127.0.0.1:8080/commands/T0HERE/1/x", true},
		{local, "http://127.0.0.1:8080/api/chat.postMessage", false},
		{local, "http://127.0.0.1:8080/api/commands/T0HERE/1/x", false},
		{local, "http://localhost:8080/commands/T0HERE/1/x", false},
	} {
		want := ""
		if c.goes {
			want = c.to
		}
		if got := c.bot.responseURL(c.to); got != want {
			t.Errorf("with Slack at %q, an answer for %q goes to %q", c.bot.APIURL, c.to, got)
		}
	}
}

// Whatever is in a frame, sort does not panic, and what comes out is small and
// has the form it always has.
func FuzzRoutes(f *testing.F) {
	for _, frame := range frames {
		f.Add([]byte(frame))
	}
	b := sorter()
	known := append(actionIDs(), "")
	f.Fuzz(func(t *testing.T, frame []byte) {
		data, ok := unpack(frame)
		if !ok || len(frame) > maxFrame {
			return
		}
		e := b.routeOf(data)
		d := e.interaction
		switch e.kind {
		case routeNone, routeAnswer:
			if answer, err := json.Marshal(e.answer); err != nil || len(answer) > 16<<10 || (e.kind == routeAnswer) != (e.answer != nil) || d != (interaction{}) {
				t.Errorf("lane %s with %d bytes of answer and %+v: %v", e.kind, len(answer), d, err)
			}
			return
		case routeStore, routeForm, routeDeny, routeDetails, routeSecret, routeBreakGlass, routeReview, routeHome:
		default:
			t.Fatalf("the lane %q", e.kind)
		}
		raw, err := json.Marshal(d)
		if err != nil || len(raw) > 8*maxTyped {
			t.Errorf("a deed of %d bytes: %v", len(raw), err)
		}
		if d.Foreign != "" && e.kind != routeStore {
			t.Errorf("something from elsewhere is in lane %s", e.kind)
		}
		if d.Foreign == "" && d.problem() != "" || !slices.Contains(known, d.ActionID) || d.Request != "" && !requestID.MatchString(d.Request) {
			t.Errorf("a deed that is none: %+v", d)
		}
		if c, ok := commands.Lookup(d.Command); d.Command != "" && (!ok || c.Name != d.Command || d.ActionID != "") {
			t.Errorf("a command that is none: %+v", d)
		}
		if d.Foreign == "" && e.kind != routeHome && (d.Command == "") == (d.ActionID == "") {
			t.Errorf("neither a command nor a press, or both: %+v", d)
		}
		if u, err := url.Parse(d.ResponseURL); d.ResponseURL != "" && (err != nil || u.Host != "hooks.slack.com" || u.Scheme != "https") {
			t.Errorf("an answer would go to %s", d.ResponseURL)
		}
		if !utf8.ValidString(d.Reason) || strings.ContainsAny(d.Reason, "\n\r\u202e") {
			t.Errorf("the reason %q", d.Reason)
		}
	})
}
