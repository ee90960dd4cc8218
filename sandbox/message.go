package sandbox

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// Message is a message as one person sees it.
type Message struct {
	TS        string            `json:"ts"`
	User      string            `json:"user"`
	Bot       bool              `json:"bot"`
	Fallback  string            `json:"text"` // the notification text; Text is what the person reads
	Blocks    []json.RawMessage `json:"blocks"`
	Ephemeral bool              `json:"ephemeral"` // nobody else sees it
	Edited    bool              `json:"edited"`

	name func(id string) string
}

// Text returns the message as a person reads it: the blocks as lines of text, without formatting marks, with mentions as names and
// buttons in square brackets. A message without blocks has only its text.
func (m Message) Text() string {
	r := reader{name: m.name}
	if len(m.Blocks) == 0 {
		return r.mrkdwn(m.Fallback)
	}
	return r.blocks(m.Blocks)
}

// Contains reports whether the text of the message contains all parts.
func (m Message) Contains(parts ...string) bool { return containsAll(m.Text(), parts) }

// Buttons returns the buttons of the message, in order.
func (m Message) Buttons() []Button { return buttons(m.Blocks, m.name) }

// Button returns the first button with this action id.
func (m Message) Button(actionID string) (Button, bool) { return find(m.Buttons(), actionID) }

// View is a modal or an App Home as one person sees it.
type View struct {
	ID     string
	Hash   string
	Title  string
	Submit string // the label of the submit button; empty when there is none
	Blocks []json.RawMessage

	name func(id string) string
}

// UnmarshalJSON reads a view as the sandbox returns it, with text objects for title and button.
func (v *View) UnmarshalJSON(b []byte) error {
	var in struct {
		ID     string            `json:"id"`
		Hash   string            `json:"hash"`
		Title  *text             `json:"title"`
		Submit *text             `json:"submit"`
		Blocks []json.RawMessage `json:"blocks"`
	}
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	v.ID, v.Hash, v.Blocks = in.ID, in.Hash, in.Blocks
	if in.Title != nil {
		v.Title = in.Title.Text
	}
	if in.Submit != nil {
		v.Submit = in.Submit.Text
	}
	return nil
}

// Text returns the content of the view, without its title, as a person reads it.
func (v View) Text() string { return reader{name: v.name}.blocks(v.Blocks) }

// Contains reports whether the title and text of the view contain all parts.
func (v View) Contains(parts ...string) bool {
	return containsAll(v.Title+"\n"+v.Text(), parts)
}

// Buttons returns the buttons of the view, in order.
func (v View) Buttons() []Button { return buttons(v.Blocks, v.name) }

// Button returns the first button with this action id.
func (v View) Button(actionID string) (Button, bool) { return find(v.Buttons(), actionID) }

// Inputs returns the fields of the view, by block id and action id, with their initial values.
func (v View) Inputs() map[string]map[string]any {
	fields := map[string]map[string]any{}
	for _, raw := range v.Blocks {
		var b block
		if json.Unmarshal(raw, &b) != nil || b.Type != "input" || b.Element == nil {
			continue
		}
		e := b.Element
		var initial any = e.InitialValue
		switch {
		case e.InitialOption != nil:
			initial = e.InitialOption.Value
		case e.InitialOptions != nil:
			values := []string{}
			for _, o := range e.InitialOptions {
				values = append(values, o.Value)
			}
			initial = values
		case e.InitialUser != "":
			initial = e.InitialUser
		}
		fields[b.BlockID] = map[string]any{e.ActionID: initial}
	}
	return fields
}

// Button is a button with its confirmation.
type Button struct {
	ActionID string
	Value    string
	Text     string
	Style    string // primary, danger, or nothing
	Confirm  string // title and text of the confirmation, as the person reads them
}

func find(all []Button, actionID string) (Button, bool) {
	for _, b := range all {
		if b.ActionID == actionID {
			return b, true
		}
	}
	return Button{}, false
}

func containsAll(text string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}

// The following types and functions read the visible parts of Block Kit (https://docs.slack.dev/reference/block-kit/blocks).

type text struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

type optionJSON struct {
	Text        text   `json:"text"`
	Value       string `json:"value"`
	Description *text  `json:"description"`
}

func (o optionJSON) option() Option {
	out := Option{Text: o.Text.Text, Value: o.Value}
	if o.Description != nil {
		out.Description = o.Description.Text
	}
	return out
}

type block struct {
	Type      string            `json:"type"`
	BlockID   string            `json:"block_id"`
	Text      json.RawMessage   `json:"text"` // a text object; a string in a markdown block
	Fields    []text            `json:"fields"`
	Accessory *element          `json:"accessory"`
	Elements  []json.RawMessage `json:"elements"`
	Label     *text             `json:"label"`
	Hint      *text             `json:"hint"`
	Element   *element          `json:"element"`
	AltText   string            `json:"alt_text"`
	Rows      [][]richElement   `json:"rows"`
}

type element struct {
	Type           string          `json:"type"`
	ActionID       string          `json:"action_id"`
	Value          string          `json:"value"`
	Style          string          `json:"style"`
	Text           json.RawMessage `json:"text"` // a text object in a button, a string in a text element of a context block
	Placeholder    *text           `json:"placeholder"`
	AltText        string          `json:"alt_text"`
	Options        []optionJSON    `json:"options"`
	InitialValue   string          `json:"initial_value"`
	InitialOption  *optionJSON     `json:"initial_option"`
	InitialOptions []optionJSON    `json:"initial_options"`
	InitialUser    string          `json:"initial_user"`
	Confirm        *struct {
		Title text `json:"title"`
		Text  text `json:"text"`
	} `json:"confirm"`
}

func (e element) label() string {
	var t text
	if json.Unmarshal(e.Text, &t) == nil {
		return t.Text
	}
	return ""
}

// richElement is any element of a rich_text block, at any level.
type richElement struct {
	Type      string          `json:"type"`
	Elements  []richElement   `json:"elements"`
	Style     json.RawMessage `json:"style"` // of a list: a string; of text: an object
	Text      string          `json:"text"`
	URL       string          `json:"url"`
	UserID    string          `json:"user_id"`
	ChannelID string          `json:"channel_id"`
	GroupID   string          `json:"usergroup_id"`
	Name      string          `json:"name"`
	Range     string          `json:"range"`
	Fallback  string          `json:"fallback"`
}

func buttons(blocks []json.RawMessage, name func(string) string) []Button {
	var found []Button
	addButton := func(e *element) {
		if e == nil || e.Type != "button" {
			return
		}
		b := Button{ActionID: e.ActionID, Value: e.Value, Text: e.label(), Style: e.Style}
		if e.Confirm != nil {
			r := reader{name: name}
			b.Confirm = e.Confirm.Title.Text + "\n" + r.object(e.Confirm.Text)
		}
		found = append(found, b)
	}
	for _, raw := range blocks {
		var b block
		if json.Unmarshal(raw, &b) != nil {
			continue
		}
		addButton(b.Accessory)
		if b.Type == "actions" {
			for _, raw := range b.Elements {
				var e element
				if json.Unmarshal(raw, &e) == nil {
					addButton(&e)
				}
			}
		}
	}
	return found
}

// reader converts blocks to lines of text.
type reader struct{ name func(id string) string }

func (r reader) person(id string) string {
	if r.name == nil {
		return "@" + id
	}
	return "@" + r.name(id)
}

func (r reader) object(t text) string {
	if t.Type == "mrkdwn" {
		return r.mrkdwn(t.Text)
	}
	return t.Text
}

func (r reader) blocks(blocks []json.RawMessage) string {
	var lines []string
	for _, raw := range blocks {
		var b block
		if err := json.Unmarshal(raw, &b); err != nil {
			lines = append(lines, "[unreadable block]")
			continue
		}
		if s := r.block(b); s != "" {
			lines = append(lines, s)
		}
	}
	return strings.Join(lines, "\n")
}

func (r reader) block(b block) string {
	var lines []string
	say := func(s string) {
		if s != "" {
			lines = append(lines, s)
		}
	}
	switch b.Type {
	case "header", "section", "markdown":
		var t text
		if json.Unmarshal(b.Text, &t) == nil {
			say(r.object(t))
		} else {
			var s string
			if json.Unmarshal(b.Text, &s) == nil {
				say(s)
			}
		}
		for _, f := range b.Fields {
			say(r.object(f))
		}
		if b.Accessory != nil {
			say(r.element(*b.Accessory))
		}
	case "divider":
		say("---")
	case "context", "actions":
		var parts []string
		for _, raw := range b.Elements {
			var t text
			var e element
			if json.Unmarshal(raw, &t) == nil && (t.Type == "mrkdwn" || t.Type == "plain_text") {
				parts = append(parts, r.object(t))
			} else if json.Unmarshal(raw, &e) == nil {
				parts = append(parts, r.element(e))
			}
		}
		say(strings.Join(parts, " "))
	case "input":
		if b.Label != nil {
			say(b.Label.Text + ":")
		}
		if b.Element != nil {
			say(r.element(*b.Element))
		}
		if b.Hint != nil {
			say(b.Hint.Text)
		}
	case "rich_text":
		for _, raw := range b.Elements {
			var e richElement
			if json.Unmarshal(raw, &e) == nil {
				say(r.rich(e))
			}
		}
	case "table":
		for _, row := range b.Rows {
			var cells []string
			for _, cell := range row {
				cells = append(cells, r.rich(cell))
			}
			say(strings.Join(cells, " | "))
		}
	case "image":
		say("[" + b.AltText + "]")
	default:
		say("[" + b.Type + "]")
	}
	return strings.Join(lines, "\n")
}

func (r reader) element(e element) string {
	switch e.Type {
	case "button":
		return "[" + e.label() + "]"
	case "image":
		return "[" + e.AltText + "]"
	case "overflow", "static_select", "radio_buttons", "checkboxes", "multi_static_select":
		var choices []string
		for _, o := range e.Options {
			choices = append(choices, o.Text.Text)
		}
		return "(" + strings.Join(choices, " / ") + ")"
	default:
		if e.InitialValue != "" {
			return "(" + e.InitialValue + ")"
		}
		if e.Placeholder != nil {
			return "(" + e.Placeholder.Text + ")"
		}
		return "()"
	}
}

func (r reader) rich(e richElement) string {
	inside := func() string {
		var b strings.Builder
		for _, part := range e.Elements {
			b.WriteString(r.rich(part))
		}
		return b.String()
	}
	switch e.Type {
	case "rich_text", "rich_text_section", "rich_text_preformatted":
		return inside()
	case "rich_text_quote":
		return "> " + strings.ReplaceAll(inside(), "\n", "\n> ")
	case "rich_text_list":
		var items []string
		for i, item := range e.Elements {
			mark := "•"
			if string(e.Style) == `"ordered"` {
				mark = fmt.Sprintf("%d.", i+1)
			}
			items = append(items, mark+" "+r.rich(item))
		}
		return strings.Join(items, "\n")
	case "user":
		return r.person(e.UserID)
	case "channel":
		return "#" + e.ChannelID
	case "usergroup":
		return "@" + e.GroupID
	case "emoji":
		return ":" + e.Name + ":"
	case "broadcast":
		return "@" + e.Range
	case "link":
		if e.Text != "" {
			return e.Text
		}
		return e.URL
	case "date":
		return e.Fallback
	default: // text, raw_text
		return e.Text
	}
}

var (
	reference = regexp.MustCompile(`<([^<>|]+)(?:\|([^<>]*))?>`)
	// Marks are recognized around words, not inside them: 2*3*4 and snake_case stay unchanged.
	marks = []*regexp.Regexp{
		regexp.MustCompile(`(^|[^\pL\pN*])\*([^\s*](?:[^*\n]*[^\s*])?)\*($|[^\pL\pN*])`),
		regexp.MustCompile(`(^|[^\pL\pN_])_([^\s_](?:[^_\n]*[^\s_])?)_($|[^\pL\pN_])`),
		regexp.MustCompile(`(^|[^\pL\pN~])~([^\s~](?:[^~\n]*[^\s~])?)~($|[^\pL\pN~])`),
		regexp.MustCompile("(^|[^`])`([^`\n]+)`($|[^`])"),
	}
	entities = strings.NewReplacer("&lt;", "<", "&gt;", ">", "&amp;", "&")
)

// mrkdwn converts Slack's markup (https://docs.slack.dev/messaging/formatting-message-text) to plain text.
func (r reader) mrkdwn(s string) string {
	s = strings.ReplaceAll(s, "```", "")
	s = reference.ReplaceAllStringFunc(s, func(match string) string {
		parts := reference.FindStringSubmatch(match)
		target, label := parts[1], parts[2]
		switch {
		case strings.HasPrefix(target, "@"):
			return r.person(target[1:])
		case label != "":
			return label
		case strings.HasPrefix(target, "!"):
			return "@" + strings.TrimPrefix(target, "!")
		}
		return strings.TrimPrefix(target, "mailto:")
	})
	for _, mark := range marks {
		for { // adjacent marked words share the space between them, so one pass does not find both
			next := mark.ReplaceAllString(s, "$1$2$3")
			if next == s {
				break
			}
			s = next
		}
	}
	return entities.Replace(s)
}
