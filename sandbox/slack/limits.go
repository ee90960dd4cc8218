package slack

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Slack's limits. Every function here is pure: it takes decoded JSON (numbers as json.Number) and returns one error message per
// problem, in Slack's form: "must be less than 25 characters [json-pointer:/view/title/text]". An empty result means that Slack
// would accept it. Lengths count Unicode code points.
//
// Sources: https://docs.slack.dev/reference/block-kit, the doc comments of @slack/types 3.2, and error messages of Slack that are
// quoted in public. Where sources differ, the smaller limit applies, so that what is accepted here is accepted by Slack.
// A block or element that is missing here is refused as an unsupported type, even if Slack supports it.
const (
	maxMessageBlocks = 50
	maxViewBlocks    = 100
	maxBlocksJSON    = 13_172  // all blocks of a message; undocumented, measured (slackapi/bolt-js#2509)
	maxViewJSON      = 250_000 // bytes
	maxText          = 40_000  // a message's top-level text; chat.postMessage truncates longer text
	maxUpdateText    = 4_000   // chat.update refuses longer text

	maxID              = 255 // block_id, action_id, callback_id, external_id
	maxTextObject      = 3000
	maxSectionField    = 2000
	maxSectionFields   = 10
	maxHeader          = 150
	maxContextElements = 10
	maxActionElements  = 25
	maxMarkdown        = 12_000
	maxAltText         = 2000
	maxImageURL        = 3000
	maxTableRows       = 100
	maxTableCells      = 20

	maxButtonText  = 75 // and accessibility_label
	maxButtonValue = 2000
	maxURL         = 3000
	maxPlaceholder = 150
	maxSelect      = 100 // options, and option groups
	maxChoices     = 10  // radio buttons, checkboxes
	maxOverflow    = 5
	maxOptionText  = 75 // and description, group label
	maxOptionValue = 75 // some sources say 150
	maxInputLength = 3000
	maxInputLabel  = 2000 // and hint

	maxConfirmTitle  = 100
	maxConfirmText   = 300
	maxConfirmButton = 30

	maxViewTitle       = 24 // and submit, close
	maxPrivateMetadata = 3000

	maxAckFrame = 20_480 // bytes; a frame of this length or longer is dropped silently (slack-go/slack#1196)
)

// surface is where blocks are shown; each allows different blocks.
type surface string

const (
	onMessage surface = "message"
	onModal   surface = "modal"
	onHome    surface = "home"
)

// checkMessageBlocks returns the problems in the blocks of a message. ptr is their JSON pointer in the call, "/blocks".
func checkMessageBlocks(blocks []any, ptr string) []string {
	c := &check{on: onMessage}
	if len(blocks) > maxMessageBlocks {
		c.fail(ptr, "no more than %d items allowed", maxMessageBlocks)
	}
	c.blocks(blocks, ptr)
	return c.problems
}

// messageBlocksTooLong reports whether Slack would return msg_blocks_too_long.
func messageBlocksTooLong(blocks []any) bool {
	return utf8.RuneCount(encode(blocks)) > maxBlocksJSON
}

// checkView returns the problems in a view. want is the type that the method accepts, or "" for both.
func checkView(view any, want surface, ptr string) []string {
	c := &check{on: surface(typeOf(view))}
	allowed := []string{string(onModal), string(onHome)}
	if want != "" {
		allowed = []string{string(want)}
	}
	if !c.knownType(view, ptr, allowed) {
		return c.problems
	}
	keys := []string{"type", "blocks", "private_metadata", "callback_id", "external_id"}
	if c.on == onModal {
		keys = append(keys, "title", "close", "submit", "clear_on_close", "notify_on_close")
	}
	o, ok := c.object(view, ptr, keys...)
	if !ok {
		return c.problems
	}
	o.need("blocks")
	if c.on == onModal {
		o.need("title")
		o.plain("title", maxViewTitle)
		o.plain("close", maxViewTitle)
		o.plain("submit", maxViewTitle)
		o.boolean("clear_on_close")
		o.boolean("notify_on_close")
	}
	o.str("private_metadata", 0, maxPrivateMetadata)
	o.str("callback_id", 0, maxID)
	o.str("external_id", 0, maxID)
	blocks := o.list("blocks", 0, maxViewBlocks)
	c.blocks(blocks, ptr+"/blocks")
	if c.on == onModal && !o.has("submit") {
		for i, b := range blocks {
			if typeOf(b) == "input" {
				c.fail(fmt.Sprintf("%s/blocks/%d/input", ptr, i), "must define `submit` to use an `input` block in modals")
			}
		}
	}
	return c.problems
}

// checkOptions returns the problems in the answer to a block_suggestion.
func checkOptions(answer map[string]any) []string {
	c := &check{}
	o, _ := c.object(answer, "", "options", "option_groups")
	c.optionLists(o, false, 0, maxSelect)
	return c.problems
}

// check collects problems while it walks through one message or view.
type check struct {
	on       surface
	problems []string
	blockIDs map[string]bool
	focused  bool // an element already has focus_on_load
	tables   int
}

func (c *check) fail(ptr, format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...)+" [json-pointer:"+ptr+"]")
}

func (c *check) blocks(blocks []any, ptr string) {
	c.blockIDs = map[string]bool{}
	for i, b := range blocks {
		c.block(b, fmt.Sprintf("%s/%d", ptr, i))
	}
}

func (c *check) block(v any, ptr string) {
	kind := typeOf(v)
	allowed := []string{"section", "actions", "context", "divider", "header", "image", "rich_text"}
	switch c.on {
	case onMessage:
		allowed = append(allowed, "markdown", "table", "context_actions")
	case onModal:
		allowed = append(allowed, "input", "alert")
	case onHome:
		allowed = append(allowed, "input")
	}
	if !c.knownType(v, ptr, allowed) {
		return
	}
	keys := map[string][]string{
		"section":         {"text", "fields", "accessory", "expand"},
		"actions":         {"elements"},
		"context":         {"elements"},
		"header":          {"text", "level"},
		"image":           {"image_url", "slack_file", "alt_text", "title"},
		"rich_text":       {"elements"},
		"markdown":        {"text"},
		"table":           {"rows", "column_settings"},
		"context_actions": {"elements"},
		"input":           {"label", "element", "hint", "optional", "dispatch_action"},
		"alert":           {"text", "level"},
	}[kind]
	o, ok := c.object(v, ptr, append(keys, "type", "block_id")...)
	if !ok {
		return
	}
	if id := o.str("block_id", 1, maxID); id != "" {
		if c.blockIDs[id] {
			c.fail(ptr+"/block_id", "`block_id` %q already exists", id)
		}
		c.blockIDs[id] = true
	}
	switch kind {
	case "section":
		if !o.has("text") && !o.has("fields") {
			c.fail(ptr, "must define either `text` or `fields`")
		}
		o.text("text", maxTextObject)
		for i, f := range o.list("fields", 1, maxSectionFields) {
			c.text(f, fmt.Sprintf("%s/fields/%d", ptr, i), maxSectionField, true)
		}
		o.boolean("expand")
		if o.has("accessory") {
			c.element(o.m["accessory"], ptr+"/accessory", sectionElements(), nil)
		}
	case "actions":
		o.need("elements")
		ids := map[string]bool{}
		for i, e := range o.list("elements", 1, maxActionElements) {
			c.element(e, fmt.Sprintf("%s/elements/%d", ptr, i), actionsElements(), ids)
		}
	case "context":
		o.need("elements")
		for i, e := range o.list("elements", 1, maxContextElements) {
			at := fmt.Sprintf("%s/elements/%d", ptr, i)
			if typeOf(e) == "image" {
				c.element(e, at, []string{"image"}, nil)
			} else {
				c.text(e, at, maxTextObject, true)
			}
		}
	case "context_actions":
		o.need("elements")
		ids := map[string]bool{}
		for i, e := range o.list("elements", 1, 5) {
			c.element(e, fmt.Sprintf("%s/elements/%d", ptr, i), []string{"icon_button", "feedback_buttons"}, ids)
		}
	case "header":
		o.need("text")
		o.plain("text", maxHeader)
		o.integer("level", 1, 4)
	case "image":
		o.need("alt_text")
		c.imageSource(o)
		o.str("alt_text", 1, maxAltText)
		o.plain("title", maxAltText)
	case "rich_text":
		c.richText(o)
	case "markdown":
		o.need("text")
		o.str("text", 1, maxMarkdown)
	case "table":
		c.table(o)
	case "input":
		o.need("label", "element")
		o.plain("label", maxInputLabel)
		o.plain("hint", maxInputLabel)
		o.boolean("optional")
		o.boolean("dispatch_action")
		if o.has("element") {
			c.element(o.m["element"], ptr+"/element", inputElements(), nil)
		}
	case "alert":
		o.need("text")
		o.text("text", maxTextObject)
		o.oneOf("level", "default", "info", "warning", "error", "success")
	}
}

func selectTypes() []string {
	return []string{"static_select", "external_select", "users_select", "conversations_select", "channels_select",
		"multi_static_select", "multi_external_select", "multi_users_select", "multi_conversations_select", "multi_channels_select"}
}

func sectionElements() []string {
	return append(selectTypes(), "button", "image", "overflow", "datepicker", "timepicker", "checkboxes", "radio_buttons")
}

func actionsElements() []string {
	return append(selectTypes(), "button", "overflow", "datepicker", "timepicker", "datetimepicker", "checkboxes", "radio_buttons")
}

func inputElements() []string {
	return append(selectTypes(), "plain_text_input", "number_input", "email_text_input", "url_text_input", "datepicker", "timepicker",
		"datetimepicker", "checkboxes", "radio_buttons", "rich_text_input")
}

// element checks one block element. ids are the action ids of its block so far.
func (c *check) element(v any, ptr string, allowed []string, ids map[string]bool) {
	if !c.knownType(v, ptr, allowed) {
		return
	}
	kind := typeOf(v)
	keys := map[string][]string{
		"button":                     {"text", "url", "value", "style", "confirm", "accessibility_label"},
		"icon_button":                {"icon", "text", "value", "confirm", "accessibility_label", "visible_to_user_ids"},
		"feedback_buttons":           {"positive_button", "negative_button"},
		"image":                      {"image_url", "slack_file", "alt_text"},
		"overflow":                   {"options", "confirm"},
		"checkboxes":                 {"options", "initial_options", "confirm", "focus_on_load"},
		"radio_buttons":              {"options", "initial_option", "confirm", "focus_on_load"},
		"datepicker":                 {"initial_date", "confirm", "focus_on_load", "placeholder"},
		"timepicker":                 {"initial_time", "timezone", "confirm", "focus_on_load", "placeholder"},
		"datetimepicker":             {"initial_date_time", "confirm", "focus_on_load"},
		"plain_text_input":           {"initial_value", "multiline", "min_length", "max_length", "dispatch_action_config", "focus_on_load", "placeholder"},
		"number_input":               {"is_decimal_allowed", "initial_value", "min_value", "max_value", "dispatch_action_config", "focus_on_load", "placeholder"},
		"email_text_input":           {"initial_value", "dispatch_action_config", "focus_on_load", "placeholder"},
		"url_text_input":             {"initial_value", "dispatch_action_config", "focus_on_load", "placeholder"},
		"rich_text_input":            {"initial_value", "dispatch_action_config", "focus_on_load", "placeholder", "min_lines", "max_lines"},
		"static_select":              {"options", "option_groups", "initial_option", "confirm", "focus_on_load", "placeholder"},
		"multi_static_select":        {"options", "option_groups", "initial_options", "max_selected_items", "confirm", "focus_on_load", "placeholder"},
		"external_select":            {"min_query_length", "initial_option", "confirm", "focus_on_load", "placeholder"},
		"multi_external_select":      {"min_query_length", "initial_options", "max_selected_items", "confirm", "focus_on_load", "placeholder"},
		"users_select":               {"initial_user", "confirm", "focus_on_load", "placeholder"},
		"multi_users_select":         {"initial_users", "max_selected_items", "confirm", "focus_on_load", "placeholder"},
		"conversations_select":       {"initial_conversation", "default_to_current_conversation", "filter", "confirm", "focus_on_load", "placeholder"},
		"multi_conversations_select": {"initial_conversations", "default_to_current_conversation", "filter", "max_selected_items", "confirm", "focus_on_load", "placeholder"},
		"channels_select":            {"initial_channel", "confirm", "focus_on_load", "placeholder"},
		"multi_channels_select":      {"initial_channels", "max_selected_items", "confirm", "focus_on_load", "placeholder"},
	}[kind]
	keys = append(keys, "type")
	if kind != "image" {
		keys = append(keys, "action_id")
	}
	o, ok := c.object(v, ptr, keys...)
	if !ok {
		return
	}
	if id := o.str("action_id", 1, maxID); id != "" && ids != nil {
		if ids[id] {
			c.fail(ptr+"/action_id", "`action_id` %q already exists", id)
		}
		ids[id] = true
	}
	o.plain("placeholder", maxPlaceholder)
	o.boolean("focus_on_load")
	if o.m["focus_on_load"] == true {
		if c.on == onMessage || c.focused {
			c.fail(ptr+"/focus_on_load", "only one element of a view may set `focus_on_load`")
		}
		c.focused = true
	}
	c.confirm(o)
	c.dispatchConfig(o)
	o.integer("max_selected_items", 1, maxSelect)
	o.integer("min_query_length", 0, maxInputLength)

	switch kind {
	case "button":
		o.need("text")
		o.plain("text", maxButtonText)
		o.str("value", 1, maxButtonValue)
		o.str("accessibility_label", 1, maxButtonText)
		o.oneOf("style", "primary", "danger")
		o.link("url")
	case "icon_button":
		o.need("icon", "text")
		o.plain("text", maxButtonText)
		o.str("icon", 1, maxID)
		o.str("value", 1, maxButtonValue)
		o.str("accessibility_label", 1, maxButtonText)
		o.strings("visible_to_user_ids")
	case "feedback_buttons":
		o.need("positive_button", "negative_button")
		for _, k := range []string{"positive_button", "negative_button"} {
			if b, ok := c.object(o.m[k], ptr+"/"+k, "text", "value", "accessibility_label"); o.has(k) && ok {
				b.need("text", "value")
				b.plain("text", maxButtonText)
				b.str("value", 1, maxButtonValue)
				b.str("accessibility_label", 1, maxButtonText)
			}
		}
	case "image":
		o.need("alt_text")
		c.imageSource(o)
		o.str("alt_text", 1, maxAltText)
	case "overflow":
		o.need("options")
		for i, x := range o.list("options", 1, maxOverflow) {
			c.option(x, fmt.Sprintf("%s/options/%d", ptr, i), false, true)
		}
	case "checkboxes", "radio_buttons":
		o.need("options")
		c.optionLists(o, true, 1, maxChoices)
		c.initial(o, true)
	case "static_select", "multi_static_select":
		if o.has("options") == o.has("option_groups") {
			c.fail(ptr, "must define either `options` or `option_groups`")
		}
		c.optionLists(o, false, 1, maxSelect)
		c.initial(o, true)
	case "external_select", "multi_external_select":
		c.initial(o, false)
	case "users_select", "conversations_select", "channels_select":
		o.str("initial_user", 1, maxID)
		o.str("initial_conversation", 1, maxID)
		o.str("initial_channel", 1, maxID)
		c.conversationFilter(o)
	case "multi_users_select", "multi_conversations_select", "multi_channels_select":
		o.strings("initial_users")
		o.strings("initial_conversations")
		o.strings("initial_channels")
		c.conversationFilter(o)
	case "datepicker":
		o.format("initial_date", "YYYY-MM-DD", isDate)
	case "timepicker":
		o.format("initial_time", "HH:mm", isTime)
		o.str("timezone", 1, maxID)
	case "datetimepicker":
		o.integer("initial_date_time", 1_000_000_000, 9_999_999_999)
	case "plain_text_input":
		o.boolean("multiline")
		low, _ := o.integer("min_length", 0, maxInputLength)
		if high, ok := o.integer("max_length", 1, maxInputLength); ok && high < low {
			c.fail(ptr+"/max_length", "must be at least `min_length`")
		}
		o.str("initial_value", 0, maxInputLength)
	case "number_input":
		o.need("is_decimal_allowed")
		o.boolean("is_decimal_allowed")
		for _, k := range []string{"initial_value", "min_value", "max_value"} {
			o.format(k, "a number", isNumber)
		}
	case "email_text_input", "url_text_input":
		o.str("initial_value", 0, maxInputLength)
	case "rich_text_input":
		o.integer("min_lines", 1, 100)
		o.integer("max_lines", 1, 100)
		if o.has("initial_value") {
			if r, ok := c.object(o.m["initial_value"], ptr+"/initial_value", "type", "elements", "block_id"); ok {
				c.richText(r)
			}
		}
	}
}

func (c *check) imageSource(o object) {
	if o.has("image_url") == o.has("slack_file") {
		c.fail(o.ptr, "missing required field: image_url")
	}
	o.link("image_url")
	if o.has("slack_file") {
		f, ok := c.object(o.m["slack_file"], o.ptr+"/slack_file", "id", "url")
		if ok && f.has("id") == f.has("url") {
			c.fail(f.ptr, "must define either `id` or `url`")
		}
	}
}

func (c *check) confirm(o object) {
	if !o.has("confirm") {
		return
	}
	d, ok := c.object(o.m["confirm"], o.ptr+"/confirm", "title", "text", "confirm", "deny", "style")
	if !ok {
		return
	}
	d.need("text")
	d.plain("title", maxConfirmTitle)
	d.text("text", maxConfirmText)
	d.plain("confirm", maxConfirmButton)
	d.plain("deny", maxConfirmButton)
	d.oneOf("style", "primary", "danger")
}

func (c *check) dispatchConfig(o object) {
	if !o.has("dispatch_action_config") {
		return
	}
	d, ok := c.object(o.m["dispatch_action_config"], o.ptr+"/dispatch_action_config", "trigger_actions_on")
	if !ok {
		return
	}
	for i, v := range d.list("trigger_actions_on", 1, 2) {
		if v != "on_enter_pressed" && v != "on_character_entered" {
			c.fail(fmt.Sprintf("%s/trigger_actions_on/%d", d.ptr, i), "unsupported value: %v", v)
		}
	}
}

func (c *check) conversationFilter(o object) {
	o.boolean("default_to_current_conversation")
	if !o.has("filter") {
		return
	}
	f, ok := c.object(o.m["filter"], o.ptr+"/filter", "include", "exclude_external_shared_channels", "exclude_bot_users")
	if !ok {
		return
	}
	for i, v := range f.list("include", 1, 4) {
		if s, _ := v.(string); !slices.Contains([]string{"im", "mpim", "private", "public"}, s) {
			c.fail(fmt.Sprintf("%s/include/%d", f.ptr, i), "unsupported value: %v", v)
		}
	}
	f.boolean("exclude_external_shared_channels")
	f.boolean("exclude_bot_users")
}

// optionLists checks options and option_groups.
func (c *check) optionLists(o object, mrkdwn bool, low, high int) {
	for i, x := range o.list("options", low, high) {
		c.option(x, fmt.Sprintf("%s/options/%d", o.ptr, i), mrkdwn, false)
	}
	for i, x := range o.list("option_groups", low, high) {
		at := fmt.Sprintf("%s/option_groups/%d", o.ptr, i)
		g, ok := c.object(x, at, "label", "options")
		if !ok {
			continue
		}
		g.need("label", "options")
		g.plain("label", maxOptionText)
		for j, y := range g.list("options", 1, maxSelect) {
			c.option(y, fmt.Sprintf("%s/options/%d", at, j), mrkdwn, false)
		}
	}
}

func (c *check) option(v any, ptr string, mrkdwn, links bool) {
	keys := []string{"text", "value", "description"}
	if links {
		keys = append(keys, "url")
	}
	o, ok := c.object(v, ptr, keys...)
	if !ok {
		return
	}
	o.need("text", "value")
	if o.has("text") {
		c.text(o.m["text"], ptr+"/text", maxOptionText, mrkdwn)
	}
	if o.has("description") {
		c.text(o.m["description"], ptr+"/description", maxOptionText, mrkdwn)
	}
	o.str("value", 1, maxOptionValue)
	o.link("url")
}

// initial checks that the initial options are among the options.
func (c *check) initial(o object, among bool) {
	chosen := map[string]any{}
	if o.has("initial_option") {
		chosen[o.ptr+"/initial_option"] = o.m["initial_option"]
	}
	for i, x := range o.list("initial_options", 1, maxSelect) {
		chosen[fmt.Sprintf("%s/initial_options/%d", o.ptr, i)] = x
	}
	for _, ptr := range slices.Sorted(maps.Keys(chosen)) {
		x, _ := chosen[ptr].(map[string]any)
		c.option(chosen[ptr], ptr, true, false)
		value, _ := x["value"].(string)
		if among && findOption(o.m, value) == nil {
			c.fail(ptr, "must exactly match one of the provided options")
		}
	}
}

func (c *check) table(o object) {
	if c.tables++; c.tables > 1 {
		c.fail(o.ptr, "only_one_table_allowed")
	}
	o.need("rows")
	for i, row := range o.list("rows", 1, maxTableRows) {
		at := fmt.Sprintf("%s/rows/%d", o.ptr, i)
		cells, ok := row.([]any)
		if !ok || len(cells) == 0 {
			c.fail(at, "must provide at least 1 items")
		}
		if len(cells) > maxTableCells {
			c.fail(at, "no more than %d items allowed", maxTableCells)
		}
		for j, cell := range cells {
			at := fmt.Sprintf("%s/%d", at, j)
			if !c.knownType(cell, at, []string{"raw_text", "raw_number", "rich_text"}) {
				continue
			}
			if typeOf(cell) == "rich_text" {
				if r, ok := c.object(cell, at, "type", "elements", "block_id"); ok {
					c.richText(r)
				}
				continue
			}
			if r, ok := c.object(cell, at, "type", "text", "value"); ok {
				if typeOf(cell) == "raw_text" {
					r.need("text")
				} else {
					r.need("value")
				}
				r.str("text", 1, maxTextObject)
			}
		}
	}
	for i, x := range o.list("column_settings", 0, maxTableCells) {
		if s, ok := c.object(x, fmt.Sprintf("%s/column_settings/%d", o.ptr, i), "align", "is_wrapped"); ok {
			s.oneOf("align", "left", "center", "right")
			s.boolean("is_wrapped")
		}
	}
}

func (c *check) richText(o object) {
	o.need("elements")
	for i, e := range o.list("elements", 1, maxSelect) {
		at := fmt.Sprintf("%s/elements/%d", o.ptr, i)
		if !c.knownType(e, at, []string{"rich_text_section", "rich_text_list", "rich_text_preformatted", "rich_text_quote"}) {
			continue
		}
		switch typeOf(e) {
		case "rich_text_section":
			c.richTextSpans(e, at, "type", "elements")
		case "rich_text_quote":
			c.richTextSpans(e, at, "type", "elements", "border")
		case "rich_text_preformatted":
			c.richTextSpans(e, at, "type", "elements", "border", "language")
		case "rich_text_list":
			l, ok := c.object(e, at, "type", "elements", "style", "indent", "offset", "border")
			if !ok {
				continue
			}
			l.need("style", "elements")
			l.oneOf("style", "bullet", "ordered")
			l.integer("indent", 0, 8)
			l.integer("offset", 0, maxInputLength)
			l.integer("border", 0, 1)
			for j, item := range l.list("elements", 1, maxInputLength) {
				at := fmt.Sprintf("%s/elements/%d", at, j)
				if c.knownType(item, at, []string{"rich_text_section"}) {
					c.richTextSpans(item, at, "type", "elements")
				}
			}
		}
	}
}

// richTextSpans checks the elements inside a section, quote or preformatted part of rich text.
func (c *check) richTextSpans(v any, ptr string, keys ...string) {
	o, ok := c.object(v, ptr, keys...)
	if !ok {
		return
	}
	o.need("elements")
	o.integer("border", 0, 1)
	spans := map[string][]string{
		"text":      {"text"},
		"link":      {"url", "text", "unsafe"},
		"user":      {"user_id"},
		"usergroup": {"usergroup_id"},
		"channel":   {"channel_id"},
		"team":      {"team_id"},
		"emoji":     {"name", "unicode", "url", "skin_tone"},
		"broadcast": {"range"},
		"color":     {"value"},
		"date":      {"timestamp", "format", "url", "fallback", "timezone"},
	}
	allowed := slices.Collect(maps.Keys(spans))
	if typeOf(v) == "rich_text_preformatted" {
		allowed = []string{"text", "link"}
	}
	for i, e := range o.list("elements", 0, maxInputLength) {
		at := fmt.Sprintf("%s/elements/%d", ptr, i)
		if !c.knownType(e, at, allowed) {
			continue
		}
		keys := spans[typeOf(e)]
		s, ok := c.object(e, at, append(slices.Clone(keys), "type", "style")...)
		if !ok {
			continue
		}
		s.need(keys[0])
		switch typeOf(e) {
		case "broadcast":
			s.oneOf("range", "here", "channel", "everyone")
		case "date":
			s.need("format")
			s.integer("timestamp", 0, 1<<53)
			s.str("format", 1, maxTextObject)
			s.str("fallback", 0, maxTextObject)
			s.link("url")
		case "link":
			s.link("url")
			s.str("text", 0, maxTextObject)
			s.boolean("unsafe")
		default:
			s.str(keys[0], 1, maxText)
		}
		if s.has("style") {
			st, ok := c.object(s.m["style"], at+"/style", "bold", "italic", "strike", "code", "underline", "highlight", "client_highlight", "unlink")
			if ok {
				for k := range st.m {
					st.boolean(k)
				}
			}
		}
	}
}

// text checks a text object.
func (c *check) text(v any, ptr string, limit int, mrkdwn bool) {
	before := len(c.problems)
	switch {
	case typeOf(v) == "plain_text":
		if o, ok := c.object(v, ptr, "type", "text", "emoji"); ok {
			o.need("text")
			o.str("text", 1, limit)
			o.boolean("emoji")
		}
	case typeOf(v) == "mrkdwn" && mrkdwn:
		if o, ok := c.object(v, ptr, "type", "text", "verbatim"); ok {
			o.need("text")
			o.str("text", 1, limit)
			o.boolean("verbatim")
		}
	default:
		allowed := []string{"plain_text"}
		if mrkdwn {
			allowed = append(allowed, "mrkdwn")
		}
		c.knownType(v, ptr, allowed)
	}
	if mrkdwn && len(c.problems) > before { // for a field with alternatives, Slack first reports that none matches, then the reason
		c.problems = slices.Insert(c.problems, before, "failed to match all allowed schemas [json-pointer:"+ptr+"]")
	}
}

// knownType records a problem unless v is an object of one of the types.
func (c *check) knownType(v any, ptr string, allowed []string) bool {
	m, ok := v.(map[string]any)
	switch {
	case !ok:
		c.fail(ptr, "should be an object")
	case m["type"] == nil:
		c.fail(ptr, "missing required field: type")
	case !slices.Contains(allowed, typeOf(v)):
		c.fail(ptr+"/type", "unsupported type: %v", m["type"])
	default:
		return true
	}
	return false
}

// object is a JSON object and its JSON pointer.
type object struct {
	c   *check
	ptr string
	m   map[string]any
}

// object records a problem if v is not an object, and for each unknown field.
func (c *check) object(v any, ptr string, keys ...string) (object, bool) {
	m, ok := v.(map[string]any)
	if !ok {
		c.fail(ptr, "should be an object")
		return object{}, false
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if !slices.Contains(keys, k) {
			c.fail(ptr, "invalid additional property: %s", k)
		}
	}
	return object{c, ptr, m}, true
}

// has reports whether a field is present; null counts as absent.
func (o object) has(key string) bool { return o.m[key] != nil }

func (o object) need(keys ...string) {
	for _, k := range keys {
		if !o.has(k) {
			o.c.fail(o.ptr, "missing required field: %s", k)
		}
	}
}

func (o object) str(key string, low, high int) string {
	if !o.has(key) {
		return ""
	}
	s, ok := o.m[key].(string)
	n := utf8.RuneCountInString(s)
	switch {
	case !ok:
		o.c.fail(o.ptr+"/"+key, "must be a string")
	case n < low:
		o.c.fail(o.ptr+"/"+key, "must be more than %d characters", low-1)
	case n > high:
		o.c.fail(o.ptr+"/"+key, "must be less than %d characters", high+1)
	}
	return s
}

func (o object) boolean(key string) {
	if _, ok := o.m[key].(bool); o.has(key) && !ok {
		o.c.fail(o.ptr+"/"+key, "must be a boolean")
	}
}

func (o object) integer(key string, low, high int64) (int64, bool) {
	if !o.has(key) {
		return 0, false
	}
	number, _ := o.m[key].(json.Number)
	n, err := number.Int64()
	if err != nil || n < low || n > high {
		o.c.fail(o.ptr+"/"+key, "must be an integer between %d and %d", low, high)
		return 0, false
	}
	return n, true
}

func (o object) oneOf(key string, values ...string) {
	if s, _ := o.m[key].(string); o.has(key) && !slices.Contains(values, s) {
		o.c.fail(o.ptr+"/"+key, "unsupported value: %v", o.m[key])
	}
}

func (o object) format(key, want string, fits func(string) bool) {
	if s, _ := o.m[key].(string); o.has(key) && !fits(s) {
		o.c.fail(o.ptr+"/"+key, "must be %s", want)
	}
}

func (o object) link(key string) {
	if s := o.str(key, 1, maxURL); s != "" && !isURL(s) {
		o.c.fail(o.ptr+"/"+key, "invalid url")
	}
}

func (o object) plain(key string, limit int) {
	if o.has(key) {
		o.c.text(o.m[key], o.ptr+"/"+key, limit, false)
	}
}

func (o object) text(key string, limit int) {
	if o.has(key) {
		o.c.text(o.m[key], o.ptr+"/"+key, limit, true)
	}
}

func (o object) list(key string, low, high int) []any {
	if !o.has(key) {
		return nil
	}
	l, ok := o.m[key].([]any)
	switch {
	case !ok:
		o.c.fail(o.ptr+"/"+key, "must be an array")
	case len(l) < low:
		o.c.fail(o.ptr+"/"+key, "must provide at least %d items", low)
	case len(l) > high:
		o.c.fail(o.ptr+"/"+key, "no more than %d items allowed", high)
	}
	return l
}

func (o object) strings(key string) {
	for i, v := range o.list(key, 1, maxSelect) {
		if s, ok := v.(string); !ok || s == "" {
			o.c.fail(fmt.Sprintf("%s/%s/%d", o.ptr, key, i), "must be a string")
		}
	}
}

// typeOf returns the "type" of a JSON object, or "".
func typeOf(v any) string {
	m, _ := v.(map[string]any)
	s, _ := m["type"].(string)
	return s
}

// findOption returns the option of an element that has this value, in a group or not.
func findOption(element map[string]any, value string) map[string]any {
	lists := [][]any{}
	if l, ok := element["options"].([]any); ok {
		lists = append(lists, l)
	}
	groups, _ := element["option_groups"].([]any)
	for _, g := range groups {
		m, _ := g.(map[string]any)
		if l, ok := m["options"].([]any); ok {
			lists = append(lists, l)
		}
	}
	for _, l := range lists {
		for _, x := range l {
			if m, _ := x.(map[string]any); m != nil && m["value"] == value {
				return m
			}
		}
	}
	return nil
}

// checkAnswer returns the message that Slack's own client shows for an invalid answer in a form; "" if it is valid.
// value is the entered value: one string, or several for multi-selects.
func checkAnswer(element map[string]any, value []string, optional bool) string {
	if len(value) == 0 || len(value) == 1 && value[0] == "" {
		if optional {
			return ""
		}
		return "Please complete this required field."
	}
	number := func(key string) (float64, bool) {
		var n json.Number
		switch v := element[key].(type) {
		case json.Number:
			n = v
		case string:
			n = json.Number(v)
		}
		f, err := n.Float64()
		return f, err == nil
	}
	length := float64(utf8.RuneCountInString(value[0]))
	switch typeOf(element) {
	case "plain_text_input":
		if low, ok := number("min_length"); ok && length < low {
			return fmt.Sprintf("Please enter at least %.0f characters.", low)
		}
		high, ok := number("max_length")
		if !ok {
			high = maxInputLength
		}
		if length > high {
			return fmt.Sprintf("Please enter no more than %.0f characters.", high)
		}
	case "number_input":
		n, err := json.Number(value[0]).Float64()
		switch low, lowOK := number("min_value"); {
		case err != nil || !isNumber(value[0]):
			return "Please enter a number."
		case element["is_decimal_allowed"] != true && strings.Contains(value[0], "."):
			return "Please enter a whole number."
		case lowOK && n < low:
			return fmt.Sprintf("Please enter a number of at least %v.", low)
		}
		if high, ok := number("max_value"); ok && n > high {
			return fmt.Sprintf("Please enter a number of at most %v.", high)
		}
	case "email_text_input":
		if !isEmail(value[0]) {
			return "Please enter a valid email address."
		}
	case "url_text_input":
		if !isURL(value[0]) {
			return "Please enter a valid URL."
		}
	case "datepicker":
		if !isDate(value[0]) {
			return "Please enter a valid date."
		}
	case "timepicker":
		if !isTime(value[0]) {
			return "Please enter a valid time."
		}
	case "datetimepicker":
		if n, err := json.Number(value[0]).Int64(); err != nil || n < 1_000_000_000 || n > 9_999_999_999 {
			return "Please enter a valid date and time."
		}
	default:
		if most, ok := number("max_selected_items"); ok && float64(len(value)) > most {
			return fmt.Sprintf("Please choose no more than %.0f.", most)
		}
	}
	return ""
}

var (
	email   = regexp.MustCompile(`^[^\s@<>]+@[^\s@<>]+\.[^\s@<>]+$`)
	decimal = regexp.MustCompile(`^[+-]?(\d+(\.\d*)?|\.\d+)$`)
)

func isURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Scheme != "" && (u.Host != "" || u.Opaque != "") && !strings.ContainsAny(s, " \n\t<>")
}

func isEmail(s string) bool {
	return email.MatchString(s)
}

func isDate(s string) bool { _, err := time.Parse("2006-01-02", s); return err == nil }
func isTime(s string) bool { _, err := time.Parse("15:04", s); return err == nil }

func isNumber(s string) bool {
	return decimal.MatchString(s)
}
