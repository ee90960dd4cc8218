package slack

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// The API for people: what Slack's client does for its user. The package documentation lists the calls.

// PersonInfo is an element of the response of GET /sandbox/people.
type PersonInfo struct {
	ID          string `json:"id"`
	Handle      string `json:"handle"`
	Name        string `json:"name"`
	Title       string `json:"title"`
	Email       string `json:"email"`
	Guest       bool   `json:"guest"` // or from another workspace
	Deactivated bool   `json:"deactivated"`
	Bot         bool   `json:"bot"`
	Color       string `json:"color"` // #rrggbb
}

// ChannelInfo is an element of the response of GET /sandbox/channels.
type ChannelInfo struct {
	ID      string   `json:"id"`
	Name    string   `json:"name"`
	Kind    string   `json:"kind"` // public, private or dm
	Shared  bool     `json:"shared"`
	Members []string `json:"members"`
	LastTS  string   `json:"last_ts"`        // timestamp of the last message that this person sees; empty if there is none
	With    string   `json:"with,omitempty"` // the other person of a direct message
}

// MessageInfo is an element of the response of GET /sandbox/messages.
type MessageInfo struct {
	TS        string `json:"ts"`
	User      string `json:"user"`
	Bot       bool   `json:"bot"`
	Text      string `json:"text"`
	Blocks    []any  `json:"blocks"`
	Ephemeral bool   `json:"ephemeral"`
	Edited    bool   `json:"edited"`
	Thread    string `json:"thread_ts,omitempty"`
}

// clientError is the error for an invalid request: a 4xx.
type clientError struct {
	status        int
	code, message string
}

func (e *clientError) Error() string { return e.message }

func newClientError(status int, code, format string, args ...any) error {
	return &clientError{status, code, fmt.Sprintf(format, args...)}
}

// interaction is the body of every POST; each handler reads the fields that it needs.
type interaction struct {
	As      string `json:"as"`
	Channel string `json:"channel"`
	Text    string `json:"text"`

	TS       string                    `json:"ts"`
	View     string                    `json:"view_id"`
	Block    string                    `json:"block_id"`
	Action   string                    `json:"action_id"`
	Value    *string                   `json:"value"`
	Selected any                       `json:"selected"`
	Values   map[string]map[string]any `json:"values"`

	Reason   string `json:"reason"`
	Envelope string `json:"envelope_id"`
}

// PersonAPI serves the actions of people in Slack's client, and the workspace's faults, as JSON under /sandbox/….
func (s *Server) PersonAPI() http.Handler {
	mux := http.NewServeMux()
	get := func(path string, f func(r *http.Request) (any, error)) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			s.mu.Lock()
			v, err := f(r)
			var body []byte
			if err == nil {
				body = encode(v)
			}
			s.mu.Unlock()
			reply(w, json.RawMessage(body), err)
		})
	}
	do := func(path string, f func(d *interaction) (map[string]any, error)) {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			var d interaction
			if err := readBody(w, r, &d); err != nil {
				reply(w, nil, err)
				return
			}
			v, err := f(&d)
			reply(w, v, err)
		})
	}
	get("/sandbox/people", s.getPeople)
	get("/sandbox/channels", s.getChannels)
	get("/sandbox/messages", s.getMessages)
	get("/sandbox/commands", func(*http.Request) (any, error) { return orEmpty(s.o.Manifest.Commands), nil })
	get("/sandbox/views", s.getViews)
	get("/sandbox/slack/calls", s.getCalls)
	get("/sandbox/slack/faults", s.getFaults)
	do("/sandbox/command", s.doCommand)
	do("/sandbox/press", s.performAction)
	do("/sandbox/submit", s.doSubmit)
	do("/sandbox/close", s.doClose)
	do("/sandbox/options", s.doOptions)
	do("/sandbox/home", s.doHome)
	do("/sandbox/reload", s.doReload)
	do("/sandbox/slack/disconnect", s.doDisconnect)
	do("/sandbox/slack/redeliver", s.doRedeliver)
	mux.HandleFunc("PATCH /sandbox/people/{id}", s.patchPerson)
	mux.HandleFunc("PATCH /sandbox/channels/{id}", s.patchChannel)
	mux.HandleFunc("PATCH /sandbox/usergroups/{id}", s.patchUserGroup)
	mux.HandleFunc("PUT /sandbox/slack/faults", s.putFaults)
	mux.HandleFunc("DELETE /sandbox/slack/faults", func(w http.ResponseWriter, _ *http.Request) {
		s.locked(func() { s.faults = nil })
		reply(w, map[string]any{"faults": []any{}}, nil)
	})
	mux.HandleFunc("/sandbox/", func(w http.ResponseWriter, r *http.Request) {
		reply(w, nil, newClientError(http.StatusNotFound, "unknown_call", "there is no %s %s", r.Method, r.URL.Path))
	})
	return s.unlessClosed(mux)
}

func readBody(w http.ResponseWriter, r *http.Request, v any) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		return newClientError(http.StatusRequestEntityTooLarge, "too_large", "the body must not be larger than 1 MB")
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return newClientError(http.StatusBadRequest, "invalid_json", "the body must be one JSON object with known fields: %v", err)
	}
	return nil
}

func reply(w http.ResponseWriter, v any, err error) {
	var e *clientError
	switch {
	case err == nil:
		writeJSON(w, http.StatusOK, v)
	case errors.As(err, &e):
		writeJSON(w, e.status, map[string]any{"error": e.code, "message": e.message})
	default:
		writeJSON(w, http.StatusInternalServerError, map[string]any{"error": "internal", "message": err.Error()})
	}
}

// withEnvelopeID adds the id of the envelope that was sent to the app to an answer.
func (e *envelope) withEnvelopeID(answer map[string]any) map[string]any {
	answer["envelope_id"] = e.id
	return answer
}

// failed returns a failure that Slack's client would show.
func failed(code, format string, args ...any) map[string]any {
	return map[string]any{"ok": false, "error": code, "message": fmt.Sprintf(format, args...)}
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// Handlers of GET. They run with the lock held.

func (s *Server) getPeople(*http.Request) (any, error) {
	list := []PersonInfo{}
	for _, p := range s.people {
		list = append(list, PersonInfo{p.ID, p.Handle, p.Name, p.Title, p.Email, p.Restricted || p.Stranger, p.Deactivated, p.Bot, p.Color})
	}
	return list, nil
}

func (s *Server) getChannels(r *http.Request) (any, error) {
	p := s.person(r.URL.Query().Get("as"))
	if p == nil {
		return nil, unknownPerson(r.URL.Query().Get("as"))
	}
	list := []ChannelInfo{}
	for _, c := range s.channels {
		if !c.has(p.ID) {
			continue
		}
		info := ChannelInfo{ID: c.ID, Name: c.Name, Kind: "public", Shared: c.Shared, Members: orEmpty(c.Members)}
		if c.Private {
			info.Kind = "private"
		}
		if isDM(c.ID) {
			i := slices.IndexFunc(c.Members, func(id string) bool { return id != p.ID })
			info.Kind, info.With = "dm", c.Members[i]
			info.Name = s.person(info.With).Handle
		}
		for _, m := range c.messages {
			if m.visibleTo == "" || m.visibleTo == p.ID {
				info.LastTS = m.ts
			}
		}
		list = append(list, info)
	}
	return list, nil
}

func (s *Server) getMessages(r *http.Request) (any, error) {
	q := r.URL.Query()
	p, c, err := s.findMember(q.Get("as"), q.Get("channel"))
	if err != nil {
		return nil, err
	}
	list := []MessageInfo{}
	oldest := q.Get("oldest") // timestamps have equal length, so they can be compared as strings
	for _, m := range c.messages {
		if m.ts > oldest && (m.visibleTo == "" || m.visibleTo == p.ID) {
			list = append(list, MessageInfo{m.ts, m.user, m.user == s.bot.ID, m.text, orEmpty(m.blocks), m.visibleTo != "", m.edited, m.thread})
		}
	}
	return list, nil
}

func (s *Server) getViews(r *http.Request) (any, error) {
	p := s.person(r.URL.Query().Get("as"))
	if p == nil {
		return nil, unknownPerson(r.URL.Query().Get("as"))
	}
	show := func(v *view) map[string]any {
		j := s.viewJSON(v)
		delete(j, "private_metadata") // Slack's client does not show it
		return j
	}
	modals := []any{}
	for _, v := range s.modals[p.ID] {
		modals = append(modals, show(v))
	}
	answer := map[string]any{"modals": modals, "home": nil}
	if home := s.homes[p.ID]; home != nil {
		answer["home"] = show(home)
	}
	return answer, nil
}

func (s *Server) getCalls(*http.Request) (any, error) {
	counts := s.counts
	counts.Sockets = len(s.sockets)
	counts.Recent = []EnvelopeInfo{}
	for _, e := range s.envelopes[max(0, len(s.envelopes)-50):] {
		counts.Recent = append(counts.Recent, EnvelopeInfo{e.id, e.kind, e.sent, e.acked})
	}
	return counts, nil
}

func (s *Server) getFaults(*http.Request) (any, error) {
	return map[string]any{"faults": orEmpty(s.faults)}, nil
}

func unknownPerson(id string) error {
	return newClientError(http.StatusNotFound, "unknown_person", "there is no person with the id %q; GET /sandbox/people lists everybody", id)
}

// findMember finds a person and a conversation that this person is in.
func (s *Server) findMember(as, channel string) (*Person, *channel, error) {
	p, c := s.person(as), s.channel(channel)
	switch {
	case p == nil:
		return nil, nil, unknownPerson(as)
	case c == nil || !c.has(p.ID):
		return nil, nil, newClientError(http.StatusNotFound, "channel_not_found", "%s is in no conversation %q", p.Name, channel)
	}
	return p, c, nil
}

// actor finds a person who is able to act.
func (s *Server) actor(as string) (*Person, error) {
	p := s.person(as)
	switch {
	case p == nil:
		return nil, unknownPerson(as)
	case p.Deactivated:
		return nil, newClientError(http.StatusForbidden, "deactivated", "%s's Slack account is deactivated", p.Name)
	case p.Bot:
		return nil, newClientError(http.StatusForbidden, "bot", "%s is a bot", p.Name)
	case p.Invited:
		return nil, newClientError(http.StatusForbidden, "invited", "%s has not accepted the invitation to this workspace yet", p.Name)
	}
	return p, nil
}

// Handlers of POST. They take the lock themselves, because they wait for the app without it.

func (s *Server) doCommand(d *interaction) (map[string]any, error) {
	s.mu.Lock()
	e, h, err := s.commandEnvelope(d)
	s.mu.Unlock()
	switch {
	case err != nil:
		return nil, err
	case e == nil:
		word, _, _ := strings.Cut(strings.TrimSpace(d.Text), " ")
		return failed("unknown_command", "%s is not a valid command. In Slack, all messages that start with the \"/\" character are interpreted as commands.", word), nil
	}
	command := e.payload.(map[string]any)["command"]
	answer, err := s.deliver(e)
	if err != nil {
		return e.withEnvelopeID(failed(err.Error(), "%s failed with the error %q", command, err.Error())), nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	given := map[string]any{}
	if len(answer) > 0 && decode(answer, &given) != nil {
		return e.withEnvelopeID(failed("invalid_command_response", "%s failed with the error \"invalid_command_response\"", command)), nil
	}
	if len(given) == 0 {
		return e.withEnvelopeID(map[string]any{"ok": true, "response": nil}), nil
	}
	c := &call{args: given}
	k, no := c.readContent()
	if no == nil && k.empty() {
		no = refuse("no_text")
	}
	if no != nil {
		return e.withEnvelopeID(failed("invalid_command_response", "%s failed with the error \"invalid_command_response\": Slack cannot show the app's answer (%s %s)",
			command, no.code, strings.Join(no.problems, "; "))), nil
	}
	s.respond(h, k, c.str("response_type"), "")
	return e.withEnvelopeID(map[string]any{"ok": true, "response": answer}), nil
}

// commandEnvelope creates the envelope for a slash command; nil if the app has no such command.
func (s *Server) commandEnvelope(d *interaction) (*envelope, *responseURL, error) {
	p, err := s.actor(d.As)
	if err != nil {
		return nil, nil, err
	}
	if _, _, err := s.findMember(d.As, d.Channel); err != nil {
		return nil, nil, err
	}
	typed := strings.TrimSpace(d.Text)
	if !strings.HasPrefix(typed, "/") {
		return nil, nil, newClientError(http.StatusBadRequest, "no_command", "a command begins with a slash")
	}
	i := strings.IndexFunc(typed+" ", func(r rune) bool { return r == ' ' || r == '\n' || r == '\t' })
	word, text := typed[:i], strings.TrimSpace(typed[i:])
	at := slices.IndexFunc(s.o.Manifest.Commands, func(c Command) bool { return c.Command == word })
	if at < 0 {
		return nil, nil, nil
	}
	if s.o.Manifest.Commands[at].ShouldEscape {
		text = s.escape(text)
	}
	w := s.o.Workspace
	id, url := s.newResponseURL("commands", p.ID, d.Channel, "")
	e := s.newEnvelope("slash_commands", true, map[string]any{
		"token": s.verification, "team_id": w.TeamID, "team_domain": w.Domain, "channel_id": d.Channel, "channel_name": s.channel(d.Channel).payloadName(),
		"user_id": p.ID, "user_name": p.Handle, "command": word, "text": text, "api_app_id": w.AppID, "is_enterprise_install": "false",
		"response_url": url, "trigger_id": s.newTrigger(p.ID, ""),
	})
	return e, s.responseURLs[id], nil
}

// linkPattern matches the parts of typed text that Slack converts for commands with should_escape.
var linkPattern = regexp.MustCompile(`https?://[^\s<>]+|[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[@#][A-Za-z0-9][A-Za-z0-9._-]*|[&<>]`)

// escape converts typed text as Slack does for commands with should_escape
// (https://docs.slack.dev/interactivity/implementing-slash-commands#escaping).
func (s *Server) escape(text string) string {
	entities := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")
	var out strings.Builder
	end := 0
	for _, at := range linkPattern.FindAllStringIndex(text, -1) {
		found := text[at[0]:at[1]]
		alone := at[0] == 0 || strings.ContainsRune(" \n\t(,;:\"'/", rune(text[at[0]-1])) // x@y or x#y is not a mention
		out.WriteString(text[end:at[0]])
		end = at[1]
		switch {
		case found == "&" || found == "<" || found == ">":
			out.WriteString(entities.Replace(found))
		case strings.Contains(found, "://"):
			link := strings.TrimRight(found, ".,;:!?)'\"") // punctuation at the end belongs to the sentence, not to the link
			out.WriteString("<" + entities.Replace(link) + ">" + found[len(link):])
		case found[0] == '@' || found[0] == '#':
			name := strings.TrimRight(found, "._-")
			switch {
			case alone && s.mention(found) != "":
				out.WriteString(s.mention(found))
			case alone && s.mention(name) != "":
				out.WriteString(s.mention(name) + found[len(name):])
			default:
				out.WriteString(found)
			}
		default:
			out.WriteString("<mailto:" + found + "|" + found + ">")
		}
	}
	return out.String() + text[end:]
}

// mention returns Slack's form of @handle, @group or #channel; "" if there is none with this name.
func (s *Server) mention(name string) string {
	word := strings.ToLower(name[1:])
	if name[0] == '#' {
		for _, c := range s.channels {
			if c.Name == word {
				return "<#" + c.ID + "|" + c.Name + ">"
			}
		}
		return ""
	}
	for _, p := range s.people {
		if p.Handle == word {
			return "<@" + p.ID + "|" + p.Handle + ">"
		}
	}
	for _, g := range s.o.Groups {
		if g.Handle == word {
			return "<!subteam^" + g.ID + "|@" + g.Handle + ">"
		}
	}
	return ""
}

// interactive returns the fields that all interaction payloads have.
func (s *Server) interactive(kind string, p *Person) map[string]any {
	w := s.o.Workspace
	return map[string]any{
		"type": kind, "team": map[string]any{"id": w.TeamID, "domain": w.Domain}, "enterprise": nil, "is_enterprise_install": false,
		"user":       map[string]any{"id": p.ID, "username": p.Handle, "name": p.Handle, "team_id": p.TeamID},
		"api_app_id": w.AppID, "token": s.verification,
	}
}

// container is the message or view of an interaction.
type container struct {
	channel *channel
	message *message
	view    *view
}

func (pl container) blocks() []any {
	if pl.view != nil {
		return pl.view.blocks()
	}
	return pl.message.blocks
}

func (pl container) offered() offers {
	if pl.view != nil {
		return pl.view.offered
	}
	return pl.message.offered
}

// find finds the message or view of an interaction, and the element in it.
func (s *Server) find(p *Person, d *interaction) (container, blockElement, error) {
	var pl container
	if d.View != "" {
		v, err := s.activeView(p, d.View)
		if err != nil {
			return container{}, blockElement{}, err
		}
		pl.view = v
	} else {
		_, c, err := s.findMember(p.ID, d.Channel)
		if err != nil {
			return container{}, blockElement{}, err
		}
		m := c.find(d.TS, p.ID)
		if m == nil {
			return container{}, blockElement{}, newClientError(http.StatusNotFound, "message_not_found", "%s sees no message %q in this conversation", p.Name, d.TS)
		}
		pl.channel, pl.message = c, m
	}
	for _, sp := range blockElements(pl.blocks()) {
		value, _ := sp.element["value"].(string)
		switch {
		case sp.actionID() != d.Action, d.Block != "" && sp.blockID() != d.Block:
		case typeOf(sp.element) == "button" && d.Value != nil && value != *d.Value:
		default:
			return pl, sp, nil
		}
	}
	return container{}, blockElement{}, newClientError(http.StatusNotFound, "action_not_found", "there is no element with the action id %q and this value or block", d.Action)
}

// activeView finds a view that a person can use: the top modal or the App Home.
func (s *Server) activeView(p *Person, id string) (*view, error) {
	v := s.views[id]
	if v == nil || v.user != p.ID {
		return nil, newClientError(http.StatusNotFound, "view_not_found", "%s has no view %q", p.Name, id)
	}
	if stack := s.modals[p.ID]; v.kind() == onModal && stack[len(stack)-1] != v {
		return nil, newClientError(http.StatusConflict, "view_covered", "another view is on top of this one")
	}
	return v, nil
}

func (s *Server) performAction(d *interaction) (map[string]any, error) {
	s.mu.Lock()
	e, err := s.actionEnvelope(d)
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if e == nil {
		return failed("interactivity_disabled", "This app is not configured to handle interactive responses. Please configure interactivity URL for your app."), nil
	}
	if _, err := s.deliver(e); err != nil {
		return e.withEnvelopeID(failed(err.Error(), "Operation timed out. Apps need to respond within 3 seconds.")), nil
	}
	return e.withEnvelopeID(map[string]any{"ok": true}), nil
}

// actionEnvelope creates the envelope for a block action; nil if the app's interactivity is off.
func (s *Server) actionEnvelope(d *interaction) (*envelope, error) {
	p, err := s.actor(d.As)
	if err != nil {
		return nil, err
	}
	pl, sp, err := s.find(p, d)
	if err != nil {
		return nil, err
	}
	if typeOf(sp.block) == "input" && sp.block["dispatch_action"] != true {
		return nil, newClientError(http.StatusBadRequest, "no_dispatch", "this input sends the app no actions before the form is submitted")
	}
	entered := map[string]answers{}
	if pl.view != nil {
		if err := s.enterValues(pl.view, d.Values); err != nil {
			return nil, err
		}
		entered = pl.view.answers
	}
	action := map[string]any{"type": typeOf(sp.element), "action_id": sp.actionID(), "block_id": sp.blockID(),
		"action_ts": fmt.Sprintf("%d.%06d", s.o.Now().Unix(), s.o.Now().Nanosecond()/1000)}
	if stateful(sp.element) || hasOptions(sp.element) {
		chosen, err := parseSelected(d.Selected)
		if err == nil {
			err = s.canChoose(pl, sp, chosen)
		}
		if err != nil {
			return nil, err
		}
		if stateful(sp.element) {
			recordAnswer(entered, sp, chosen)
		}
		for k, v := range elementState(sp.element, chosen, pl.offered()[offerKey(sp)]) {
			action[k] = v
		}
		for _, k := range []string{"placeholder", "initial_option"} {
			if v, ok := sp.element[k]; ok {
				action[k] = v
			}
		}
	} else {
		for _, k := range []string{"text", "value", "url", "style"} {
			if v, ok := sp.element[k]; ok {
				action[k] = v
			}
		}
	}
	if !s.o.Manifest.Interactivity {
		return nil, nil
	}
	payload := s.interactive("block_actions", p)
	payload["actions"] = []any{action}
	if v := pl.view; v != nil {
		payload["container"] = map[string]any{"type": "view", "view_id": v.id}
		payload["view"] = s.viewJSON(v)
		payload["trigger_id"] = s.newTrigger(p.ID, v.id)
	} else {
		m := pl.message
		payload["container"] = map[string]any{"type": "message", "message_ts": m.ts, "channel_id": pl.channel.ID, "is_ephemeral": m.visibleTo != ""}
		payload["channel"] = map[string]any{"id": pl.channel.ID, "name": pl.channel.payloadName()}
		payload["state"] = map[string]any{"values": stateValues(m.blocks, entered, m.offered)}
		payload["trigger_id"] = s.newTrigger(p.ID, "")
		_, payload["response_url"] = s.newResponseURL("actions", p.ID, pl.channel.ID, m.ts)
		if m.visibleTo == "" { // Slack does not store ephemeral messages, so it cannot include them
			payload["message"] = s.messageJSON(m)
		}
	}
	s.notify()
	return s.newEnvelope("interactive", true, payload), nil
}

// parseSelected reads one or several strings.
func parseSelected(v any) (answers []string, err error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case string:
		return []string{v}, nil
	case json.Number:
		return []string{v.String()}, nil
	case []any:
		answers = []string{}
		for _, x := range v {
			s, ok := x.(string)
			if !ok {
				return nil, newClientError(http.StatusBadRequest, "invalid_value", "%v is not a string", x)
			}
			answers = append(answers, s)
		}
		return answers, nil
	}
	return nil, newClientError(http.StatusBadRequest, "invalid_value", "%v is neither a string nor a list of strings", v)
}

// canChoose returns an error if the values cannot be chosen in an element.
func (s *Server) canChoose(pl container, sp blockElement, chosen []string) error {
	kind := typeOf(sp.element)
	if len(chosen) > 1 && !strings.HasPrefix(kind, "multi_") && kind != "checkboxes" {
		return newClientError(http.StatusBadRequest, "invalid_value", "%q takes only one value", sp.actionID())
	}
	for _, c := range chosen {
		ok := true
		switch {
		case c == "" && !strings.HasPrefix(kind, "multi_"): // nothing chosen
		case hasOptions(sp.element):
			ok = chooseOption(sp.element, pl.offered()[offerKey(sp)], c) != nil
		case kind == "users_select" || kind == "multi_users_select":
			ok = s.person(c) != nil
		case strings.HasSuffix(kind, "conversations_select") || strings.HasSuffix(kind, "channels_select"):
			ok = s.channel(c) != nil
		}
		if !ok {
			return newClientError(http.StatusBadRequest, "invalid_value", "%q cannot be chosen in %q", c, sp.actionID())
		}
	}
	return nil
}

// recordAnswer stores an entered value.
func recordAnswer(entered map[string]answers, sp blockElement, chosen []string) {
	if entered[sp.blockID()] == nil {
		entered[sp.blockID()] = answers{}
	}
	entered[sp.blockID()][sp.actionID()] = chosen
}

// enterValues sets the inputs of a view: all values, or none if one is invalid.
func (s *Server) enterValues(v *view, values map[string]map[string]any) error {
	unknown := 0
	for _, actions := range values {
		unknown += len(actions)
	}
	given := map[string]answers{}
	for _, sp := range blockElements(v.blocks()) {
		x, ok := values[sp.blockID()][sp.actionID()]
		if !ok || !stateful(sp.element) {
			continue
		}
		unknown--
		chosen, err := parseSelected(x)
		if err == nil {
			err = s.canChoose(container{view: v}, sp, chosen)
		}
		if err != nil {
			return err
		}
		recordAnswer(given, sp, chosen)
	}
	if unknown > 0 {
		return newClientError(http.StatusBadRequest, "unknown_input", "values name an input that this view does not have")
	}
	for _, sp := range blockElements(v.blocks()) {
		if chosen, ok := given[sp.blockID()][sp.actionID()]; ok {
			recordAnswer(v.answers, sp, chosen)
		}
	}
	return nil
}

func (s *Server) doSubmit(d *interaction) (map[string]any, error) {
	s.mu.Lock()
	v, e, errs, err := s.submitEnvelope(d)
	s.mu.Unlock()
	switch {
	case err != nil:
		return nil, err
	case len(errs) > 0:
		return map[string]any{"ok": false, "errors": errs}, nil
	}
	answer, err := s.deliver(e)
	if err != nil {
		return e.withEnvelopeID(failed(err.Error(), "We had some trouble connecting. Try again?")), nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	errs, err = s.applySubmission(v, answer)
	switch {
	case err != nil:
		return e.withEnvelopeID(failed("invalid_response", "We had some trouble connecting. Try again? (Slack cannot use the app's answer: %v.)", err)), nil
	case len(errs) > 0:
		return e.withEnvelopeID(map[string]any{"ok": false, "errors": errs}), nil
	}
	return e.withEnvelopeID(map[string]any{"ok": true}), nil
}

// submitEnvelope creates the envelope for a submitted form. errs are the errors that Slack's client finds before it sends anything.
func (s *Server) submitEnvelope(d *interaction) (v *view, e *envelope, errs map[string]string, err error) {
	p, err := s.actor(d.As)
	if err != nil {
		return nil, nil, nil, err
	}
	if v, err = s.activeView(p, d.View); err != nil {
		return nil, nil, nil, err
	}
	if v.kind() != onModal || v.body["submit"] == nil {
		return nil, nil, nil, newClientError(http.StatusBadRequest, "no_submit", "this view has no button to submit it")
	}
	if err := s.enterValues(v, d.Values); err != nil {
		return nil, nil, nil, err
	}
	errs = map[string]string{}
	for _, sp := range blockElements(v.blocks()) {
		if typeOf(sp.block) != "input" {
			continue
		}
		entered, ok := v.answers[sp.blockID()][sp.actionID()]
		if !ok {
			entered = initialAnswer(sp.element)
			if sp.element["initial_value"] != nil && len(entered) == 0 { // rich text
				continue
			}
		}
		if problem := checkAnswer(sp.element, entered, sp.block["optional"] == true); problem != "" {
			errs[sp.blockID()] = problem
		}
	}
	if len(errs) > 0 {
		return nil, nil, errs, nil
	}
	payload := s.interactive("view_submission", p)
	payload["trigger_id"] = s.newTrigger(p.ID, v.id)
	payload["response_urls"] = []any{}
	payload["view"] = s.viewJSON(v)
	s.notify()
	return v, s.newEnvelope("interactive", true, payload), nil, nil
}

func (s *Server) doClose(d *interaction) (map[string]any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.actor(d.As)
	if err != nil {
		return nil, err
	}
	v, err := s.activeView(p, d.View)
	if err != nil {
		return nil, err
	}
	if v.kind() != onModal {
		return nil, newClientError(http.StatusBadRequest, "no_modal", "an App Home cannot be closed")
	}
	stack := s.modals[p.ID]
	first := len(stack) - 1
	if v.flag("clear_on_close") {
		first = 0
	}
	for _, closed := range slices.Backward(stack[first:]) {
		if !closed.flag("notify_on_close") {
			continue
		}
		payload := s.interactive("view_closed", p)
		payload["view"] = s.viewJSON(closed)
		payload["is_cleared"] = v.flag("clear_on_close")
		e := s.newEnvelope("interactive", true, payload)
		s.work.Go(func() { _, _ = s.deliver(e) }) // Slack's client does not wait for it
	}
	s.closeViews(p.ID, first)
	return map[string]any{"ok": true}, nil
}

func (s *Server) doOptions(d *interaction) (map[string]any, error) {
	s.mu.Lock()
	pl, sp, e, err := s.optionsEnvelope(d)
	s.mu.Unlock()
	switch {
	case err != nil:
		return nil, err
	case e == nil:
		return map[string]any{"options": []any{}}, nil
	}
	answer, err := s.deliver(e)
	if err != nil {
		return failed(err.Error(), "The options could not be loaded."), nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	offered := map[string]any{}
	if len(answer) > 0 && decode(answer, &offered) != nil {
		return failed("invalid_response", "The options could not be loaded: the app did not answer with a JSON object."), nil
	}
	if problems := checkOptions(offered); len(problems) > 0 {
		return failed("invalid_response", "The options could not be loaded: %s.", strings.Join(problems, "; ")), nil
	}
	pl.offered()[offerKey(sp)] = offered
	if offered["options"] == nil {
		offered["options"] = []any{}
	}
	return offered, nil
}

// optionsEnvelope creates the envelope for text typed in an external select; nil while the text is too short.
func (s *Server) optionsEnvelope(d *interaction) (container, blockElement, *envelope, error) {
	p, err := s.actor(d.As)
	if err != nil {
		return container{}, blockElement{}, nil, err
	}
	typed := ""
	if d.Value != nil {
		typed = *d.Value
	}
	pl, sp, err := s.find(p, d)
	if err != nil {
		return container{}, blockElement{}, nil, err
	}
	if kind := typeOf(sp.element); kind != "external_select" && kind != "multi_external_select" {
		return container{}, blockElement{}, nil, newClientError(http.StatusBadRequest, "not_external", "%q is not an external select", d.Action)
	}
	least := int64(3)
	if n, ok := sp.element["min_query_length"].(json.Number); ok {
		least, _ = n.Int64()
	}
	if int64(len([]rune(typed))) < least {
		return pl, sp, nil, nil
	}
	payload := s.interactive("block_suggestion", p)
	payload["block_id"], payload["action_id"], payload["value"] = sp.blockID(), sp.actionID(), typed
	if v := pl.view; v != nil {
		payload["container"] = map[string]any{"type": "view", "view_id": v.id}
		payload["view"] = s.viewJSON(v)
	} else {
		payload["container"] = map[string]any{"type": "message", "message_ts": pl.message.ts, "channel_id": pl.channel.ID, "is_ephemeral": pl.message.visibleTo != ""}
		payload["channel"] = map[string]any{"id": pl.channel.ID, "name": pl.channel.payloadName()}
		payload["message"] = s.messageJSON(pl.message)
	}
	return pl, sp, s.newEnvelope("interactive", true, payload), nil
}

func (s *Server) doHome(d *interaction) (map[string]any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.actor(d.As)
	if err != nil {
		return nil, err
	}
	c, _ := s.dm(p)
	if !slices.Contains(s.o.Manifest.BotEvents, "app_home_opened") {
		return map[string]any{"ok": true}, nil
	}
	event := map[string]any{"type": "app_home_opened", "user": p.ID, "channel": c.ID, "tab": "home",
		"event_ts": fmt.Sprintf("%d.%06d", s.o.Now().Unix(), s.o.Now().Nanosecond()/1000)}
	if home := s.homes[p.ID]; home != nil {
		event["view"] = s.viewJSON(home)
	}
	s.sendEvent(event)
	return map[string]any{"ok": true}, nil
}

func (s *Server) doReload(d *interaction) (map[string]any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.person(d.As) == nil {
		return nil, unknownPerson(d.As)
	}
	for _, c := range s.channels {
		c.messages = slices.DeleteFunc(c.messages, func(m *message) bool { return m.visibleTo == d.As })
	}
	s.notify()
	return map[string]any{"ok": true}, nil
}

func (s *Server) doDisconnect(d *interaction) (map[string]any, error) {
	if !slices.Contains([]string{"warning", "refresh_requested", "link_disabled", "cut"}, d.Reason) {
		return nil, newClientError(http.StatusBadRequest, "unknown_reason", "there is no reason %q: use warning, refresh_requested, link_disabled or cut", d.Reason)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.sockets {
		s.disconnect(k, d.Reason)
	}
	return map[string]any{"ok": true, "sockets": len(s.sockets)}, nil
}

func (s *Server) doRedeliver(d *interaction) (map[string]any, error) {
	s.mu.Lock()
	i := len(s.envelopes) - 1
	if d.Envelope != "" {
		i = slices.IndexFunc(s.envelopes, func(e *envelope) bool { return e.id == d.Envelope })
	}
	if i < 0 {
		s.mu.Unlock()
		return nil, newClientError(http.StatusNotFound, "unknown_envelope", "there is no such envelope")
	}
	e := s.envelopes[i]
	waiting := e.open
	s.mu.Unlock()
	if waiting {
		return nil, newClientError(http.StatusConflict, "still_open", "the app has not answered this envelope yet")
	}
	_, err := s.deliver(e)
	return map[string]any{"ok": true, "envelope_id": e.id, "acked": err == nil}, nil
}

func (s *Server) putFaults(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Faults []*Fault `json:"faults"`
	}
	err := readBody(w, r, &body)
	for _, f := range body.Faults {
		if err == nil && f != nil {
			if problem := f.check(); problem != nil {
				err = newClientError(http.StatusBadRequest, "invalid_fault", "%v", problem)
			}
		}
	}
	if err != nil {
		reply(w, nil, err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = slices.DeleteFunc(body.Faults, func(f *Fault) bool { return f == nil })
	reply(w, map[string]any{"faults": orEmpty(s.faults)}, nil)
}

// patchPerson changes a person as an administrator of the workspace does. It takes the lock itself.
func (s *Server) patchPerson(w http.ResponseWriter, r *http.Request) {
	var change struct {
		Deactivated *bool   `json:"deactivated"`
		Guest       *bool   `json:"guest"`
		Email       *string `json:"email"`
	}
	err := readBody(w, r, &change)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.person(r.PathValue("id"))
	switch {
	case err != nil:
	case p == nil:
		err = unknownPerson(r.PathValue("id"))
	case p == s.bot:
		err = newClientError(http.StatusForbidden, "bot", "the app's own account cannot be changed")
	default:
		if change.Deactivated != nil {
			p.Deactivated = *change.Deactivated
		}
		if change.Guest != nil {
			p.Restricted, p.UltraRestricted = *change.Guest, false
		}
		if change.Email != nil {
			p.Email = *change.Email
		}
		s.notify()
	}
	reply(w, map[string]any{"ok": true}, err)
}

// patchChannel changes a channel as an administrator does. It takes the lock itself.
func (s *Server) patchChannel(w http.ResponseWriter, r *http.Request) {
	var change struct {
		Shared  *bool    `json:"shared"`
		Members []string `json:"members"`
	}
	err := readBody(w, r, &change)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.channel(r.PathValue("id"))
	if err == nil && (c == nil || isDM(c.ID)) {
		err = newClientError(http.StatusNotFound, "channel_not_found", "there is no channel %q", r.PathValue("id"))
	}
	for _, id := range change.Members {
		if err == nil && s.person(id) == nil {
			err = unknownPerson(id)
		}
	}
	if err == nil {
		if change.Shared != nil {
			c.Shared = *change.Shared
		}
		if change.Members != nil {
			c.Members = change.Members
		}
		s.notify()
	}
	reply(w, map[string]any{"ok": true}, err)
}

// patchUserGroup changes a user group as an administrator does. It takes the lock itself.
func (s *Server) patchUserGroup(w http.ResponseWriter, r *http.Request) {
	var change struct {
		Users    []string `json:"users"`
		Disabled *bool    `json:"disabled"`
	}
	err := readBody(w, r, &change)
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.o.Groups, func(g UserGroup) bool { return g.ID == r.PathValue("id") })
	if err == nil && i < 0 {
		err = newClientError(http.StatusNotFound, "no_such_subteam", "there is no user group %q", r.PathValue("id"))
	}
	for _, id := range change.Users {
		if err == nil && s.person(id) == nil {
			err = unknownPerson(id)
		}
	}
	if err == nil {
		if change.Users != nil {
			s.o.Groups[i].Users = change.Users
		}
		if change.Disabled != nil {
			s.o.Groups[i].Disabled = *change.Disabled
		}
		s.notify()
	}
	reply(w, map[string]any{"ok": true}, err)
}
