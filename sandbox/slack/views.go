package slack

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// Triggers, modals and the App Home (https://docs.slack.dev/surfaces/modals).

const maxModals = 3

// trigger allows the app to open one view for one person.
type trigger struct {
	user, view string // view is the view of the interaction, if there was one
	issued     time.Time
	used       bool
}

// newTrigger returns a trigger_id.
func (s *Server) newTrigger(user, view string) string {
	maps.DeleteFunc(s.triggers, func(_ string, t *trigger) bool { return s.o.Now().Sub(t.issued) > s.o.TriggerLife+time.Minute })
	id := digits(12) + "." + digits(12) + "." + randomHex()
	s.triggers[id] = &trigger{user: user, view: view, issued: s.o.Now()}
	return id
}

var triggerForm = regexp.MustCompile(`^\d+\.\d+\.[0-9a-zA-Z]+$`)

// checkTrigger returns a trigger if it is still usable; it does not mark it as used.
func (s *Server) checkTrigger(id string) (*trigger, *refusal) {
	t := s.triggers[id]
	switch {
	case id == "":
		return nil, missingArgument("trigger_id")
	case t == nil && !triggerForm.MatchString(id):
		return nil, refuse("invalid_trigger_id")
	case t == nil:
		return nil, refuse("expired_trigger_id")
	case t.used:
		return nil, refuse("exchanged_trigger_id")
	case s.o.Now().Sub(t.issued) > s.o.TriggerLife:
		return nil, refuse("expired_trigger_id")
	}
	return t, nil
}

// view is a modal or an App Home.
type view struct {
	id, hash, user string
	root, previous string
	body           map[string]any // from the app, with ids; replaced as a whole, never changed in place
	answers        map[string]answers
	offered        offers
}

// offers are the options that the app last returned for external selects, by block and action id.
type offers map[string]map[string]any

// answers are the values that were entered in one block, by action id: one string, or several for a multi-select.
type answers map[string][]string

func (v *view) kind() surface            { return surface(typeOf(v.body)) }
func (v *view) blocks() []any            { b, _ := v.body["blocks"].([]any); return b }
func (v *view) text(field string) string { t, _ := v.body[field].(string); return t }
func (v *view) flag(field string) bool   { return v.body[field] == true }

// newView creates a view; the caller adds it to the modals or homes.
func (s *Server) newView(user string, body map[string]any) *view {
	v := &view{id: randomID("V"), user: user, answers: map[string]answers{}, offered: offers{}}
	v.root = v.id
	s.views[v.id] = v
	s.setView(v, body)
	return v
}

// setView replaces the body of a view. Entered values are kept where block and action ids stay the same.
func (s *Server) setView(v *view, body map[string]any) {
	v.body = body
	withIDs(v.blocks())
	v.hash = strconv.FormatInt(s.o.Now().Unix(), 10) + "." + randomHex()[:8]
	kept := map[string]answers{}
	for _, sp := range blockElements(v.blocks()) {
		if given, ok := v.answers[sp.blockID()][sp.actionID()]; ok {
			if kept[sp.blockID()] == nil {
				kept[sp.blockID()] = answers{}
			}
			kept[sp.blockID()][sp.actionID()] = given
		}
	}
	v.answers = kept
	s.notify()
}

// readView checks a view from a call or a response.
func (s *Server) readView(given any, ok bool, want surface, self *view) (map[string]any, *refusal) {
	if given == nil {
		return nil, missingArgument("view")
	}
	if problems := checkView(given, want, "/view"); !ok || len(problems) > 0 {
		return nil, &refusal{code: "invalid_arguments", problems: problems}
	}
	if len(encode(given)) > maxViewJSON {
		return nil, refuse("view_too_large")
	}
	body := given.(map[string]any)
	if id, _ := body["external_id"].(string); id != "" {
		for _, other := range s.views {
			if other != self && other.text("external_id") == id {
				return nil, refuse("duplicate_external_id")
			}
		}
	}
	return body, nil
}

// viewJSON returns a view in the form that Slack sends to apps.
func (s *Server) viewJSON(v *view) map[string]any {
	w := s.o.Workspace
	j := map[string]any{
		"id": v.id, "team_id": w.TeamID, "type": string(v.kind()), "blocks": v.blocks(), "private_metadata": v.text("private_metadata"),
		"callback_id": v.text("callback_id"), "external_id": v.text("external_id"), "hash": v.hash, "title": v.body["title"],
		"submit": v.body["submit"], "close": v.body["close"], "clear_on_close": v.flag("clear_on_close"), "notify_on_close": v.flag("notify_on_close"),
		"root_view_id": v.root, "previous_view_id": nil, "app_id": w.AppID, "app_installed_team_id": w.TeamID, "bot_id": w.BotID,
		"state": map[string]any{"values": stateValues(v.blocks(), v.answers, v.offered)},
	}
	if v.previous != "" {
		j["previous_view_id"] = v.previous
	}
	if v.body["title"] == nil { // Slack adds a default title to App Homes
		j["title"] = map[string]any{"type": "plain_text", "text": "View Title", "emoji": true}
	}
	if v.blocks() == nil {
		j["blocks"] = []any{}
	}
	return j
}

// pushView puts a modal on top of the person's open modals.
func (s *Server) pushView(user string, body map[string]any) *view {
	v := s.newView(user, body)
	stack := s.modals[user]
	if len(stack) > 0 {
		v.root, v.previous = stack[0].id, stack[len(stack)-1].id
	}
	s.modals[user] = append(stack, v)
	return v
}

// closeViews removes the person's modals from index n on.
func (s *Server) closeViews(user string, n int) {
	for _, v := range s.modals[user][n:] {
		delete(s.views, v.id)
	}
	s.modals[user] = slices.Clone(s.modals[user][:n])
	s.notify()
}

func (s *Server) viewsOpen(c *call) (map[string]any, *refusal) {
	given, _, ok := c.value("view")
	body, no := s.readView(given, ok, onModal, nil)
	if no != nil {
		return nil, no
	}
	t, no := s.checkTrigger(c.str("trigger_id"))
	if no != nil {
		return nil, no
	}
	t.used = true
	s.closeViews(t.user, 0) // a person cannot use a button or command behind an open modal, so it must have been closed
	return map[string]any{"view": s.viewJSON(s.pushView(t.user, body))}, nil
}

func (s *Server) viewsPush(c *call) (map[string]any, *refusal) {
	given, _, ok := c.value("view")
	body, no := s.readView(given, ok, onModal, nil)
	if no != nil {
		return nil, no
	}
	t, no := s.checkTrigger(c.str("trigger_id"))
	switch {
	case no != nil:
		return nil, no
	case t.view == "" || s.views[t.view] == nil || s.views[t.view].kind() != onModal:
		return nil, refuse("not_found")
	case len(s.modals[t.user]) >= maxModals:
		return nil, refuse("push_limit_reached")
	}
	t.used = true
	return map[string]any{"view": s.viewJSON(s.pushView(t.user, body))}, nil
}

func (s *Server) viewsUpdate(c *call) (map[string]any, *refusal) {
	var v *view
	id, external := c.str("view_id"), c.str("external_id")
	if id == "" && external == "" {
		return nil, missingArgument("view_id")
	}
	for _, x := range s.views {
		if id != "" && x.id == id || id == "" && x.text("external_id") == external {
			v = x
		}
	}
	given, _, ok := c.value("view")
	if v == nil {
		if _, no := s.readView(given, ok, "", nil); no != nil && no.code == "invalid_arguments" {
			return nil, no
		}
		return nil, refuse("not_found") // closed, or never existed
	}
	body, no := s.readView(given, ok, v.kind(), v)
	if no != nil {
		return nil, no
	}
	if hash := c.str("hash"); hash != "" && hash != v.hash {
		return nil, refuse("hash_conflict")
	}
	s.setView(v, body)
	return map[string]any{"view": s.viewJSON(v)}, nil
}

func (s *Server) viewsPublish(c *call) (map[string]any, *refusal) {
	given, _, ok := c.value("view")
	p := s.person(c.str("user_id"))
	old := s.homes[c.str("user_id")]
	body, no := s.readView(given, ok, onHome, old)
	switch {
	case no != nil:
		return nil, no
	case c.str("user_id") == "":
		return nil, missingArgument("user_id")
	case p == nil:
		return nil, refuse("user_not_found")
	case !s.o.Manifest.HomeTab:
		return nil, refuse("not_enabled")
	}
	if hash := c.str("hash"); hash != "" && (old == nil || hash != old.hash) {
		return nil, refuse("hash_conflict")
	}
	if old == nil {
		old = s.newView(p.ID, body)
		s.homes[p.ID] = old
	} else {
		s.setView(old, body)
	}
	return map[string]any{"view": s.viewJSON(old)}, nil
}

// applySubmission applies the app's answer to a view_submission. It returns the messages to show at inputs, or an error for an
// answer that Slack would not accept.
func (s *Server) applySubmission(v *view, answer json.RawMessage) (map[string]string, error) {
	var a struct {
		Action string            `json:"response_action"`
		Errors map[string]string `json:"errors"`
		View   any               `json:"view"`
	}
	given := map[string]any{}
	if len(answer) > 0 && decode(answer, &given) != nil || len(given) > 0 && decode(answer, &a) != nil {
		return nil, fmt.Errorf("the answer is not a valid JSON object")
	}
	at := slices.Index(s.modals[v.user], v)
	if at < 0 {
		return nil, nil // already closed
	}
	if len(given) == 0 {
		s.closeViews(v.user, at)
		return nil, nil
	}
	switch a.Action {
	case "clear":
		s.closeViews(v.user, 0)
	case "errors":
		inputs := map[string]bool{}
		for _, sp := range blockElements(v.blocks()) {
			if typeOf(sp.block) == "input" {
				inputs[sp.blockID()] = true
			}
		}
		for id := range a.Errors {
			if !inputs[id] {
				return nil, fmt.Errorf("errors name the block %q, which is not an input of this view", id)
			}
		}
		if len(a.Errors) == 0 {
			return nil, fmt.Errorf("response_action errors has no errors")
		}
		return a.Errors, nil
	case "update", "push":
		self := v
		if a.Action == "push" {
			self = nil
		}
		body, no := s.readView(a.View, true, onModal, self)
		switch {
		case no != nil:
			return nil, fmt.Errorf("%s %v", no.code, no.problems)
		case a.Action == "update":
			s.setView(v, body)
		case len(s.modals[v.user]) >= maxModals:
			return nil, fmt.Errorf("push_limit_reached")
		default:
			s.pushView(v.user, body)
		}
	default:
		return nil, fmt.Errorf("there is no response_action %q", a.Action)
	}
	return nil, nil
}

// State: the values of the elements of a view or message, in Slack's form
// (https://docs.slack.dev/reference/interaction-payloads/view-interactions-payload).

// stateValues builds state.values: every element that has a value, whether or not anything was entered.
func stateValues(blocks []any, given map[string]answers, offered offers) map[string]any {
	values := map[string]any{}
	for _, sp := range blockElements(blocks) {
		if !stateful(sp.element) {
			continue
		}
		block, _ := values[sp.blockID()].(map[string]any)
		if block == nil {
			block = map[string]any{}
			values[sp.blockID()] = block
		}
		chosen, ok := given[sp.blockID()][sp.actionID()]
		if !ok {
			chosen = initialAnswer(sp.element)
		}
		state := elementState(sp.element, chosen, offered[offerKey(sp)])
		if r := sp.element["initial_value"]; !ok && typeOf(sp.element) == "rich_text_input" && r != nil {
			state["rich_text_value"] = r
		}
		block[sp.actionID()] = state
	}
	return values
}

func offerKey(sp blockElement) string { return sp.blockID() + "\x00" + sp.actionID() }

// stateful reports whether an element keeps a value between interactions.
func stateful(element map[string]any) bool {
	return !slices.Contains([]string{"button", "icon_button", "feedback_buttons", "overflow"}, typeOf(element))
}

// initialAnswer returns the initial value of an element.
func initialAnswer(element map[string]any) []string {
	var found []string
	add := func(v any) {
		switch v := v.(type) {
		case string:
			found = append(found, v)
		case json.Number:
			found = append(found, v.String())
		case map[string]any:
			if s, ok := v["value"].(string); ok {
				found = append(found, s)
			}
		}
	}
	for _, k := range slices.Sorted(maps.Keys(element)) {
		switch k {
		case "initial_value", "initial_option", "initial_user", "initial_conversation", "initial_channel", "initial_date", "initial_time", "initial_date_time":
			add(element[k])
		case "initial_options", "initial_users", "initial_conversations", "initial_channels":
			list, _ := element[k].([]any)
			for _, v := range list {
				add(v)
			}
		}
	}
	return found
}

// elementState returns the state of an element with the chosen values. offered are the last options of an external select.
func elementState(element map[string]any, chosen []string, offered map[string]any) map[string]any {
	kind := typeOf(element)
	state := map[string]any{"type": kind}
	var one any // null when nothing was entered
	if len(chosen) > 0 && chosen[0] != "" {
		one = chosen[0]
	}
	many := []any{}
	for _, c := range chosen {
		many = append(many, c)
	}
	options := func() []any {
		list := []any{}
		for _, c := range chosen {
			if o := chooseOption(element, offered, c); o != nil {
				list = append(list, o)
			}
		}
		return list
	}
	switch kind {
	case "static_select", "external_select", "radio_buttons", "overflow":
		state["selected_option"] = nil
		if list := options(); len(list) > 0 {
			state["selected_option"] = list[0]
		}
	case "multi_static_select", "multi_external_select", "checkboxes":
		state["selected_options"] = options()
	case "users_select":
		state["selected_user"] = one
	case "multi_users_select":
		state["selected_users"] = many
	case "conversations_select":
		state["selected_conversation"] = one
	case "multi_conversations_select":
		state["selected_conversations"] = many
	case "channels_select":
		state["selected_channel"] = one
	case "multi_channels_select":
		state["selected_channels"] = many
	case "datepicker":
		state["selected_date"] = one
	case "timepicker":
		state["selected_time"] = one
		if zone, ok := element["timezone"]; ok {
			state["timezone"] = zone
		}
	case "datetimepicker":
		state["selected_date_time"] = nil
		if text, ok := one.(string); ok {
			state["selected_date_time"] = json.Number(text)
		}
	case "rich_text_input":
		state["rich_text_value"] = nil
		if one != nil {
			state["rich_text_value"] = map[string]any{"type": "rich_text", "elements": []any{
				map[string]any{"type": "rich_text_section", "elements": []any{map[string]any{"type": "text", "text": one}}}}}
		}
	default:
		state["value"] = one
	}
	return state
}

// chooseOption finds an option by its value among those of the element, those last offered, and the initial ones.
func chooseOption(element, offered map[string]any, value string) map[string]any {
	if o := findOption(element, value); o != nil {
		return o
	}
	if o := findOption(offered, value); o != nil {
		return o
	}
	first, _ := element["initial_options"].([]any)
	for _, x := range append([]any{element["initial_option"]}, first...) {
		if o, _ := x.(map[string]any); o != nil && o["value"] == value {
			return o
		}
	}
	return nil
}

// hasOptions reports whether an element is a choice among options.
func hasOptions(element map[string]any) bool {
	return slices.Contains([]string{"static_select", "external_select", "radio_buttons", "overflow", "multi_static_select",
		"multi_external_select", "checkboxes"}, typeOf(element))
}
