package slack

import (
	"fmt"
	"strings"
	"testing"

	slackgo "github.com/slack-go/slack"
)

// parsed reads JSON the way the server does.
func parsed[T any](t *testing.T, text string) T {
	t.Helper()
	var v any
	if err := decode([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	typed, ok := v.(T)
	if !ok {
		t.Fatalf("%s is a %T", text, v)
	}
	return typed
}

// problemsIn checks one block on a surface.
func problemsIn(t *testing.T, on surface, block string) []string {
	t.Helper()
	if on == onMessage {
		return checkMessageBlocks(parsed[[]any](t, "["+block+"]"), "/blocks")
	}
	view := `{"type":"home","blocks":[` + block + `]}`
	if on == onModal {
		view = `{"type":"modal","title":{"type":"plain_text","text":"T"},"submit":{"type":"plain_text","text":"S"},"blocks":[` + block + `]}`
	}
	return checkView(parsed[any](t, view), on, "/view")
}

func times(n int, item string) string {
	return strings.TrimSuffix(strings.Repeat(item+",", n), ",")
}

// numbered repeats a template that contains one %d, so that ids differ.
func numbered(n int, template string) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(template, i)
	}
	return strings.Join(list, ",")
}

func plain(text string) string  { return fmt.Sprintf(`{"type":"plain_text","text":%q}`, text) }
func mrkdwn(text string) string { return fmt.Sprintf(`{"type":"mrkdwn","text":%q}`, text) }
func button(more string) string {
	return `{"type":"actions","elements":[{"type":"button","text":` + plain("Go") + more + `}]}`
}
func input(element string) string {
	return `{"type":"input","label":` + plain("L") + `,"element":` + element + `}`
}
func selectElement(kind, options string) string {
	return fmt.Sprintf(`{"type":"%s","options":[%s]}`, kind, options)
}

func TestLimitsAtTheirBoundaries(t *testing.T) {
	x := func(n int) string { return strings.Repeat("é", n) } // two bytes, one character
	option := func(text, value string) string {
		return fmt.Sprintf(`{"text":%s,"value":%q}`, plain(text), value)
	}
	o := option("o", "v")
	confirm := func(title, text, yes, no string) string {
		return button(fmt.Sprintf(`,"confirm":{"title":%s,"text":%s,"confirm":%s,"deny":%s}`, plain(title), plain(text), plain(yes), plain(no)))
	}
	for _, c := range []struct {
		name      string
		on        surface
		fits      string
		over      string
		complaint string
	}{
		{"section text", onMessage, `{"type":"section","text":` + mrkdwn(x(3000)) + `}`, `{"type":"section","text":` + mrkdwn(x(3001)) + `}`,
			"must be less than 3001 characters [json-pointer:/blocks/0/text/text]"},
		{"section text is not empty", onMessage, `{"type":"section","text":` + mrkdwn("a") + `}`, `{"type":"section","text":` + mrkdwn("") + `}`,
			"must be more than 0 characters [json-pointer:/blocks/0/text/text]"},
		{"section fields", onMessage, `{"type":"section","fields":[` + times(10, mrkdwn("f")) + `]}`, `{"type":"section","fields":[` + times(11, mrkdwn("f")) + `]}`,
			"no more than 10 items allowed [json-pointer:/blocks/0/fields]"},
		{"section field text", onMessage, `{"type":"section","fields":[` + mrkdwn(x(2000)) + `]}`, `{"type":"section","fields":[` + mrkdwn(x(2001)) + `]}`,
			"must be less than 2001 characters [json-pointer:/blocks/0/fields/0/text]"},
		{"header", onMessage, `{"type":"header","text":` + plain(x(150)) + `}`, `{"type":"header","text":` + plain(x(151)) + `}`,
			"must be less than 151 characters [json-pointer:/blocks/0/text/text]"},
		{"context", onMessage, `{"type":"context","elements":[` + times(10, mrkdwn("c")) + `]}`, `{"type":"context","elements":[` + times(11, mrkdwn("c")) + `]}`,
			"no more than 10 items allowed [json-pointer:/blocks/0/elements]"},
		{"actions", onMessage, `{"type":"actions","elements":[` + numbered(25, `{"type":"button","action_id":"a%d","text":`+plain("b")+`}`) + `]}`,
			`{"type":"actions","elements":[` + numbered(26, `{"type":"button","action_id":"a%d","text":`+plain("b")+`}`) + `]}`,
			"no more than 25 items allowed [json-pointer:/blocks/0/elements]"},
		{"button text", onMessage, `{"type":"actions","elements":[{"type":"button","text":` + plain(x(75)) + `}]}`, `{"type":"actions","elements":[{"type":"button","text":` + plain(x(76)) + `}]}`,
			"must be less than 76 characters [json-pointer:/blocks/0/elements/0/text/text]"},
		{"button value", onMessage, button(`,"value":"` + x(2000) + `"`), button(`,"value":"` + x(2001) + `"`),
			"must be less than 2001 characters [json-pointer:/blocks/0/elements/0/value]"},
		{"button url", onMessage, button(`,"url":"https://a/` + strings.Repeat("u", 2990) + `"`), button(`,"url":"https://a/` + strings.Repeat("u", 2991) + `"`),
			"must be less than 3001 characters [json-pointer:/blocks/0/elements/0/url]"},
		{"accessibility label", onMessage, button(`,"accessibility_label":"` + x(75) + `"`), button(`,"accessibility_label":"` + x(76) + `"`), "must be less than 76 characters"},
		{"button style", onMessage, button(`,"style":"danger"`), button(`,"style":"default"`), "unsupported value: default [json-pointer:/blocks/0/elements/0/style]"},
		{"action id", onMessage, button(`,"action_id":"` + x(255) + `"`), button(`,"action_id":"` + x(256) + `"`), "must be less than 256 characters [json-pointer:/blocks/0/elements/0/action_id]"},
		{"block id", onMessage, `{"type":"divider","block_id":"` + x(255) + `"}`, `{"type":"divider","block_id":"` + x(256) + `"}`, "must be less than 256 characters [json-pointer:/blocks/0/block_id]"},
		{"confirm title", onMessage, confirm(x(100), "t", "y", "n"), confirm(x(101), "t", "y", "n"), "must be less than 101 characters [json-pointer:/blocks/0/elements/0/confirm/title/text]"},
		{"confirm text", onMessage, confirm("t", x(300), "y", "n"), confirm("t", x(301), "y", "n"), "must be less than 301 characters"},
		{"confirm buttons", onMessage, confirm("t", "t", x(30), x(30)), confirm("t", "t", x(31), "n"), "must be less than 31 characters"},
		{"image", onMessage, `{"type":"image","image_url":"https://a/b.png","alt_text":"` + x(2000) + `"}`, `{"type":"image","image_url":"https://a/b.png","alt_text":"` + x(2001) + `"}`, "must be less than 2001 characters"},
		{"markdown", onMessage, `{"type":"markdown","text":"` + x(12000) + `"}`, `{"type":"markdown","text":"` + x(12001) + `"}`, "must be less than 12001 characters"},
		{"table rows", onMessage, `{"type":"table","rows":[` + times(100, `[{"type":"raw_text","text":"c"}]`) + `]}`, `{"type":"table","rows":[` + times(101, `[{"type":"raw_text","text":"c"}]`) + `]}`,
			"no more than 100 items allowed [json-pointer:/blocks/0/rows]"},
		{"table cells", onMessage, `{"type":"table","rows":[[` + times(20, `{"type":"raw_text","text":"c"}`) + `]]}`, `{"type":"table","rows":[[` + times(21, `{"type":"raw_text","text":"c"}`) + `]]}`,
			"no more than 20 items allowed [json-pointer:/blocks/0/rows/0]"},
		{"one table", onMessage, `{"type":"table","rows":[[{"type":"raw_text","text":"c"}]]}`, times(2, `{"type":"table","rows":[[{"type":"raw_text","text":"c"}]]}`), "only_one_table_allowed"},
		{"overflow", onMessage, `{"type":"section","text":` + mrkdwn("t") + `,"accessory":` + selectElement("overflow", times(5, o)) + `}`,
			`{"type":"section","text":` + mrkdwn("t") + `,"accessory":` + selectElement("overflow", times(6, o)) + `}`, "no more than 5 items allowed [json-pointer:/blocks/0/accessory/options]"},
		{"select options", onModal, input(selectElement("static_select", times(100, o))), input(selectElement("static_select", times(101, o))),
			"no more than 100 items allowed [json-pointer:/view/blocks/0/element/options]"},
		{"select has options", onModal, input(selectElement("static_select", o)), input(selectElement("static_select", "")), "must provide at least 1 items [json-pointer:/view/blocks/0/element/options]"},
		{"radio buttons", onModal, input(selectElement("radio_buttons", times(10, o))), input(selectElement("radio_buttons", times(11, o))), "no more than 10 items allowed"},
		{"checkboxes", onModal, input(selectElement("checkboxes", times(10, o))), input(selectElement("checkboxes", times(11, o))), "no more than 10 items allowed"},
		{"option text", onModal, input(selectElement("static_select", option(x(75), "v"))), input(selectElement("static_select", option(x(76), "v"))), "must be less than 76 characters"},
		{"option value", onModal, input(selectElement("static_select", option("o", x(75)))), input(selectElement("static_select", option("o", x(76)))), "must be less than 76 characters"},
		{"option description", onModal, input(selectElement("static_select", `{"text":`+plain("o")+`,"value":"v","description":`+plain(x(75))+`}`)),
			input(selectElement("static_select", `{"text":`+plain("o")+`,"value":"v","description":`+plain(x(76))+`}`)), "must be less than 76 characters"},
		{"placeholder", onModal, input(`{"type":"plain_text_input","placeholder":` + plain(x(150)) + `}`), input(`{"type":"plain_text_input","placeholder":` + plain(x(151)) + `}`), "must be less than 151 characters"},
		{"input max_length", onModal, input(`{"type":"plain_text_input","max_length":3000}`), input(`{"type":"plain_text_input","max_length":3001}`), "must be an integer between 1 and 3000"},
		{"input lengths", onModal, input(`{"type":"plain_text_input","min_length":5,"max_length":5}`), input(`{"type":"plain_text_input","min_length":6,"max_length":5}`), "must be at least `min_length`"},
		{"input label", onModal, `{"type":"input","label":` + plain(x(2000)) + `,"element":{"type":"plain_text_input"}}`, `{"type":"input","label":` + plain(x(2001)) + `,"element":{"type":"plain_text_input"}}`, "must be less than 2001 characters"},
		{"input hint", onModal, `{"type":"input","label":` + plain("l") + `,"hint":` + plain(x(2000)) + `,"element":{"type":"plain_text_input"}}`, `{"type":"input","label":` + plain("l") + `,"hint":` + plain(x(2001)) + `,"element":{"type":"plain_text_input"}}`, "must be less than 2001 characters"},
		{"one focus", onModal, input(`{"type":"plain_text_input","focus_on_load":true}`), times(2, input(`{"type":"plain_text_input","focus_on_load":true}`)), "only one element of a view may set `focus_on_load`"},
		{"list indent", onMessage, `{"type":"rich_text","elements":[{"type":"rich_text_list","style":"bullet","indent":8,"elements":[{"type":"rich_text_section","elements":[]}]}]}`,
			`{"type":"rich_text","elements":[{"type":"rich_text_list","style":"bullet","indent":9,"elements":[{"type":"rich_text_section","elements":[]}]}]}`, "must be an integer between 0 and 8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := problemsIn(t, c.on, c.fits); len(got) > 0 {
				t.Errorf("refused at the limit: %q", got)
			}
			if got := strings.Join(problemsIn(t, c.on, c.over), "\n"); !strings.Contains(got, c.complaint) {
				t.Errorf("got %q, want %q", got, c.complaint)
			}
		})
	}
}

func TestInvalidBlocksAreRefused(t *testing.T) {
	for _, c := range []struct {
		name, block string
		on          surface
		complaint   string
	}{
		{"input in a message", input(`{"type":"plain_text_input"}`), onMessage, "unsupported type: input [json-pointer:/blocks/0/type]"},
		{"alert in a message", `{"type":"alert","text":` + plain("a") + `}`, onMessage, "unsupported type: alert"},
		{"markdown in a modal", `{"type":"markdown","text":"a"}`, onModal, "unsupported type: markdown [json-pointer:/view/blocks/0/type]"},
		{"table in the App Home", `{"type":"table","rows":[[{"type":"raw_text","text":"c"}]]}`, onHome, "unsupported type: table"},
		{"unknown block", `{"type":"sections"}`, onMessage, "unsupported type: sections [json-pointer:/blocks/0/type]"},
		{"no type", `{"text":1}`, onMessage, "missing required field: type [json-pointer:/blocks/0]"},
		{"no object", `"section"`, onMessage, "should be an object [json-pointer:/blocks/0]"},
		{"unknown field", `{"type":"divider","colour":"red"}`, onMessage, "invalid additional property: colour [json-pointer:/blocks/0]"},
		{"unknown element field", button(`,"hint":"x"`), onMessage, "invalid additional property: hint [json-pointer:/blocks/0/elements/0]"},
		{"header in mrkdwn", `{"type":"header","text":` + mrkdwn("a") + `}`, onMessage, "unsupported type: mrkdwn [json-pointer:/blocks/0/text/type]"},
		{"emoji in mrkdwn", `{"type":"section","text":{"type":"mrkdwn","text":"a","emoji":true}}`, onMessage, "invalid additional property: emoji"},
		{"section without text", `{"type":"section"}`, onMessage, "must define either `text` or `fields`"},
		{"text input among actions", `{"type":"actions","elements":[{"type":"plain_text_input"}]}`, onModal, "unsupported type: plain_text_input [json-pointer:/view/blocks/0/elements/0/type]"},
		{"button in an input", input(`{"type":"button","text":` + plain("b") + `}`), onModal, "unsupported type: button"},
		{"input without label", `{"type":"input","element":{"type":"plain_text_input"}}`, onModal, "missing required field: label [json-pointer:/view/blocks/0]"},
		{"image without alt text", `{"type":"image","image_url":"https://a/b"}`, onMessage, "missing required field: alt_text [json-pointer:/blocks/0]"},
		{"button without text", `{"type":"actions","elements":[{"type":"button"}]}`, onMessage, "missing required field: text [json-pointer:/blocks/0/elements/0]"},
		{"no url", button(`,"url":"example"`), onMessage, "invalid url [json-pointer:/blocks/0/elements/0/url]"},
		{"empty option url", `{"type":"actions","elements":[` + selectElement("static_select", `{"text":`+plain("o")+`,"value":"v","url":""}`) + `]}`, onMessage, "invalid additional property: url"},
		{"equal block ids", times(2, `{"type":"divider","block_id":"b"}`), onMessage, "`block_id` \"b\" already exists [json-pointer:/blocks/1/block_id]"},
		{"equal action ids in a block", `{"type":"actions","elements":[` + times(2, `{"type":"button","action_id":"a","text":`+plain("b")+`}`) + `]}`, onMessage,
			"`action_id` \"a\" already exists [json-pointer:/blocks/0/elements/1/action_id]"},
		{"initial option of its own", input(`{"type":"static_select","options":[{"text":` + plain("o") + `,"value":"v"}],"initial_option":{"text":` + plain("p") + `,"value":"w"}}`), onModal,
			"must exactly match one of the provided options"},
		{"neither options nor groups", input(`{"type":"static_select"}`), onModal, "must define either `options` or `option_groups`"},
		{"rich text of text", `{"type":"rich_text","elements":[{"type":"text","text":"a"}]}`, onMessage, "unsupported type: text [json-pointer:/blocks/0/elements/0/type]"},
		{"empty rich text", `{"type":"rich_text","elements":[{"type":"rich_text_section","elements":[{"type":"text","text":""}]}]}`, onMessage,
			"must be more than 0 characters [json-pointer:/blocks/0/elements/0/elements/0/text]"},
		{"rich text list without style", `{"type":"rich_text","elements":[{"type":"rich_text_list","elements":[{"type":"rich_text_section","elements":[]}]}]}`, onMessage, "missing required field: style"},
		{"mention in preformatted", `{"type":"rich_text","elements":[{"type":"rich_text_preformatted","elements":[{"type":"user","user_id":"U"}]}]}`, onMessage, "unsupported type: user"},
		{"style of rich text", `{"type":"rich_text","elements":[{"type":"rich_text_section","elements":[{"type":"text","text":"a","style":{"big":true}}]}]}`, onMessage, "invalid additional property: big"},
		{"number without is_decimal_allowed", input(`{"type":"number_input"}`), onModal, "missing required field: is_decimal_allowed"},
		{"bad date", input(`{"type":"datepicker","initial_date":"1.2.2026"}`), onModal, "must be YYYY-MM-DD"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := strings.Join(problemsIn(t, c.on, c.block), "\n"); !strings.Contains(got, c.complaint) {
				t.Errorf("got %q, want %q", got, c.complaint)
			}
		})
	}
}

func TestTextAlternativesReportSchemaMismatch(t *testing.T) {
	got := problemsIn(t, onMessage, `{"type":"section","text":`+mrkdwn(strings.Repeat("a", 3001))+`}`)
	want := []string{"failed to match all allowed schemas [json-pointer:/blocks/0/text]", "must be less than 3001 characters [json-pointer:/blocks/0/text/text]"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q", got)
	}
}

func TestMaximumBlocks(t *testing.T) {
	divider := `{"type":"divider"}`
	for _, c := range []struct {
		on   surface
		most int
	}{{onMessage, 50}, {onModal, 100}, {onHome, 100}} {
		if got := problemsIn(t, c.on, times(c.most, divider)); len(got) > 0 {
			t.Errorf("%s refuses %d blocks: %q", c.on, c.most, got)
		}
		if got := problemsIn(t, c.on, times(c.most+1, divider)); len(got) != 1 || !strings.HasPrefix(got[0], fmt.Sprintf("no more than %d items allowed", c.most)) {
			t.Errorf("%s on %d blocks: %q", c.on, c.most+1, got)
		}
	}
	long := parsed[[]any](t, "["+times(5, `{"type":"section","text":`+mrkdwn(strings.Repeat("a", 2700))+`}`)+"]")
	if !messageBlocksTooLong(long) || messageBlocksTooLong(long[:4]) {
		t.Error("the total length of a message's blocks is not checked")
	}
}

func TestViews(t *testing.T) {
	title := plain("T")
	for _, c := range []struct {
		name, view string
		want       surface
		complaint  string // none if empty
	}{
		{"modal", `{"type":"modal","title":` + plain(strings.Repeat("é", 24)) + `,"close":` + plain(strings.Repeat("c", 24)) + `,"blocks":[]}`, onModal, ""},
		{"home", `{"type":"home","blocks":[],"private_metadata":"m","callback_id":"c","external_id":"e"}`, onHome, ""},
		{"title", `{"type":"modal","title":` + plain(strings.Repeat("é", 25)) + `,"blocks":[]}`, onModal, "must be less than 25 characters [json-pointer:/view/title/text]"},
		{"no title", `{"type":"modal","blocks":[]}`, onModal, "missing required field: title [json-pointer:/view]"},
		{"no blocks", `{"type":"modal","title":` + title + `}`, onModal, "missing required field: blocks [json-pointer:/view]"},
		{"no type", `{"title":` + title + `,"blocks":[]}`, onModal, "missing required field: type [json-pointer:/view]"},
		{"submit", `{"type":"modal","title":` + title + `,"submit":` + plain(strings.Repeat("s", 25)) + `,"blocks":[]}`, onModal, "must be less than 25 characters [json-pointer:/view/submit/text]"},
		{"title in mrkdwn", `{"type":"modal","title":` + mrkdwn("T") + `,"blocks":[]}`, onModal, "unsupported type: mrkdwn"},
		{"metadata", `{"type":"home","blocks":[],"private_metadata":"` + strings.Repeat("m", 3001) + `"}`, onHome, "must be less than 3001 characters [json-pointer:/view/private_metadata]"},
		{"callback id", `{"type":"home","blocks":[],"callback_id":"` + strings.Repeat("m", 256) + `"}`, onHome, "must be less than 256 characters"},
		{"home where a modal goes", `{"type":"home","blocks":[]}`, onModal, "unsupported type: home [json-pointer:/view/type]"},
		{"inputs need submit", `{"type":"modal","title":` + title + `,"blocks":[{"type":"divider"},` + input(`{"type":"plain_text_input"}`) + `]}`, onModal,
			"must define `submit` to use an `input` block in modals [json-pointer:/view/blocks/1/input]"},
		{"no view", `"view"`, onModal, "should be an object [json-pointer:/view]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := strings.Join(checkView(parsed[any](t, c.view), c.want, "/view"), "\n")
			if c.complaint == "" && got != "" || !strings.Contains(got, c.complaint) {
				t.Errorf("got %q, want %q", got, c.complaint)
			}
		})
	}
}

// The output of slack-go for valid messages must be accepted, because Slack accepts it.
func TestSlackGoBlocksAreAccepted(t *testing.T) {
	p := func(s string) *slackgo.TextBlockObject {
		return slackgo.NewTextBlockObject("plain_text", s, true, false)
	}
	md := func(s string) *slackgo.TextBlockObject { return slackgo.NewTextBlockObject("mrkdwn", s, false, false) }
	option := slackgo.NewOptionBlockObject("v", p("o"), p("d"))
	confirm := slackgo.NewConfirmationBlockObject(p("Sure?"), md("*really*"), p("Yes"), p("No")).WithStyle(slackgo.StyleDanger)
	approve := slackgo.NewButtonBlockElement("approve", "r1", p("Approve")).WithStyle(slackgo.StylePrimary).WithConfirm(confirm)
	rich := slackgo.NewRichTextBlock("rich",
		slackgo.NewRichTextSection(slackgo.NewRichTextSectionTextElement("a", &slackgo.RichTextSectionTextStyle{Bold: true}), slackgo.NewRichTextSectionUserElement("U1", nil),
			slackgo.NewRichTextSectionLinkElement("https://example.com", "x", nil), slackgo.NewRichTextSectionEmojiElement("wave", 0, nil)),
		slackgo.NewRichTextList(slackgo.RTEListBullet, 0, slackgo.NewRichTextSection(slackgo.NewRichTextSectionTextElement("b", nil))),
	)
	blocks := []slackgo.Block{
		slackgo.NewHeaderBlock(p("H")),
		slackgo.NewSectionBlock(md("s"), []*slackgo.TextBlockObject{md("f")}, slackgo.NewAccessory(approve)),
		slackgo.NewContextBlock("c", md("m"), slackgo.NewImageBlockElement("https://example.com/a.png", "alt")),
		slackgo.NewActionBlock("a", slackgo.NewButtonBlockElement("deny", "r1", p("Deny")), slackgo.NewOverflowBlockElement("more", option),
			slackgo.NewOptionsSelectBlockElement("static_select", p("pick"), "sel", option), slackgo.NewDatePickerBlockElement("date")),
		slackgo.NewDividerBlock(),
		slackgo.NewImageBlock("https://example.com/a.png", "alt", "img", p("t")),
		rich,
	}
	if got := checkMessageBlocks(parsed[[]any](t, string(encode(blocks))), "/blocks"); len(got) > 0 {
		t.Errorf("message: %q", got)
	}
	text := slackgo.NewPlainTextInputBlockElement(p("why"), "why")
	text.Multiline, text.MaxLength = true, 300
	view := slackgo.ModalViewRequest{
		Type: slackgo.VTModal, Title: p("T"), Submit: p("S"), Close: p("C"), CallbackID: "cb", PrivateMetadata: "m", NotifyOnClose: true,
		Blocks: slackgo.Blocks{BlockSet: []slackgo.Block{
			slackgo.NewInputBlock("b1", p("L"), p("hint"), text),
			slackgo.NewInputBlock("b2", p("L"), nil, slackgo.NewOptionsSelectBlockElement("external_select", p("pick"), "x")),
			slackgo.NewInputBlock("b3", p("L"), nil, slackgo.NewRadioButtonsBlockElement("r", option)),
			slackgo.NewInputBlock("b4", p("L"), nil, slackgo.NewCheckboxGroupsBlockElement("k", option)),
			slackgo.NewInputBlock("b5", p("L"), nil, slackgo.NewOptionsMultiSelectBlockElement("multi_users_select", nil, "u")),
			slackgo.NewInputBlock("b6", p("L"), nil, slackgo.NewNumberInputBlockElement(nil, "n", false)),
		}},
	}
	if got := checkView(parsed[any](t, string(encode(view))), onModal, "/view"); len(got) > 0 {
		t.Errorf("modal: %q", got)
	}
}

func TestInvalidAnswersAreRefused(t *testing.T) {
	for _, c := range []struct {
		element string
		value   []string
		want    string
	}{
		{`{"type":"plain_text_input"}`, nil, "Please complete this required field."},
		{`{"type":"plain_text_input"}`, []string{""}, "Please complete this required field."},
		{`{"type":"plain_text_input","min_length":3}`, []string{"ab"}, "Please enter at least 3 characters."},
		{`{"type":"plain_text_input","max_length":3}`, []string{"abcd"}, "Please enter no more than 3 characters."},
		{`{"type":"plain_text_input","max_length":3}`, []string{"äöü"}, ""},
		{`{"type":"number_input","is_decimal_allowed":false}`, []string{"1.5"}, "Please enter a whole number."},
		{`{"type":"number_input","is_decimal_allowed":true,"min_value":"2"}`, []string{"1.5"}, "Please enter a number of at least 2."},
		{`{"type":"number_input","is_decimal_allowed":false,"max_value":"2"}`, []string{"3"}, "Please enter a number of at most 2."},
		{`{"type":"number_input","is_decimal_allowed":false}`, []string{"two"}, "Please enter a number."},
		{`{"type":"email_text_input"}`, []string{"dana"}, "Please enter a valid email address."},
		{`{"type":"url_text_input"}`, []string{"dana"}, "Please enter a valid URL."},
		{`{"type":"datepicker"}`, []string{"soon"}, "Please enter a valid date."},
		{`{"type":"multi_users_select","max_selected_items":1}`, []string{"U1", "U2"}, "Please choose no more than 1."},
		{`{"type":"users_select"}`, []string{"U1"}, ""},
	} {
		if got := checkAnswer(parsed[map[string]any](t, c.element), c.value, false); got != c.want {
			t.Errorf("%v in %s: %q, not %q", c.value, c.element, got, c.want)
		}
	}
	if got := checkAnswer(map[string]any{"type": "plain_text_input"}, nil, true); got != "" {
		t.Errorf("an optional input can be empty, but: %q", got)
	}
}
