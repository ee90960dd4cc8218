package sandbox

import (
	"encoding/json"
	"testing"
)

func TestMessageText(t *testing.T) {
	names := func(id string) string { return map[string]string{"U0DANA": "Dana Whitfield"}[id] }
	for _, tt := range []struct{ name, message, want string }{
		{"text alone", `{"text":"*bold* _it_ ~s~ ` + "`c`" + ` <@U0DANA|dana> &lt;b&gt; &amp;lt;"}`, "bold it s c @Dana Whitfield <b> &lt;"},
		{"marks inside words", `{"text":"2*3*4 snake_case_name a*b"}`, "2*3*4 snake_case_name a*b"},
		{"marks side by side", `{"text":"*a* *b* _c_ _d_"}`, "a b c d"},
		{"references", `{"text":"<https://x.example|a link> <https://y.example> <mailto:a@b.example> <#C1|general> <!here> <!date^1^{date}|then>"}`,
			"a link https://y.example a@b.example general @here then"},
		{"blocks win over text", `{"text":"fallback","blocks":[{"type":"section","text":{"type":"plain_text","text":"*as it is*"}}]}`, "*as it is*"},
		{"header, fields, accessory", `{"blocks":[{"type":"header","text":{"type":"plain_text","text":"H"}},{"type":"section","fields":[{"type":"mrkdwn","text":"*A*\n1"},{"type":"mrkdwn","text":"*B*"}],
			"accessory":{"type":"button","text":{"type":"plain_text","text":"Go"},"action_id":"go"}},{"type":"divider"}]}`, "H\nA\n1\nB\n[Go]\n---"},
		{"context and actions", `{"blocks":[{"type":"context","elements":[{"type":"mrkdwn","text":"_small_"},{"type":"image","alt_text":"a lock"}]},
			{"type":"actions","elements":[{"type":"button","text":{"type":"plain_text","text":"Yes"}},{"type":"static_select","options":[{"text":{"type":"plain_text","text":"a"},"value":"1"},{"text":{"type":"plain_text","text":"b"},"value":"2"}]}]}]}`,
			"small [a lock]\n[Yes] (a / b)"},
		{"rich text", `{"blocks":[{"type":"rich_text","elements":[{"type":"rich_text_section","elements":[{"type":"text","text":"Hi "},{"type":"user","user_id":"U0DANA"},{"type":"emoji","name":"key"}]},
			{"type":"rich_text_list","style":"ordered","elements":[{"type":"rich_text_section","elements":[{"type":"text","text":"one"}]},{"type":"rich_text_section","elements":[{"type":"link","url":"https://x.example","text":"two"}]}]},
			{"type":"rich_text_list","style":"bullet","elements":[{"type":"rich_text_section","elements":[{"type":"text","text":"three"}]}]},
			{"type":"rich_text_quote","elements":[{"type":"text","text":"a\nb"}]},{"type":"rich_text_preformatted","elements":[{"type":"text","text":"x = 1"}]}]}]}`,
			"Hi @Dana Whitfield:key:\n1. one\n2. two\n• three\n> a\n> b\nx = 1"},
		{"input", `{"blocks":[{"type":"input","label":{"type":"plain_text","text":"Why"},"hint":{"type":"plain_text","text":"In a word"},"element":{"type":"plain_text_input","initial_value":"lost"}}]}`,
			"Why:\n(lost)\nIn a word"},
		{"unknown", `{"blocks":[{"type":"hologram"}]}`, "[hologram]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := Message{name: names}
			if err := json.Unmarshal([]byte(tt.message), &m); err != nil {
				t.Fatal(err)
			}
			if got := m.Text(); got != tt.want {
				t.Errorf("reads\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}
