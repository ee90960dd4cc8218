package slack

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The Web API (https://docs.slack.dev/apis/web-api) and response URLs.

// method is a method of the Web API.
type method struct {
	run    func(*Server, *call) (map[string]any, *refusal)
	app    bool     // needs the app-level token instead of the bot's
	either bool     // accepts both tokens
	scopes []string // one of them is required; methods whose scope depends on their arguments check it themselves
}

func methods() map[string]method {
	return map[string]method{
		"apps.connections.open": {run: (*Server).openConnection, app: true},
		"auth.test":             {run: (*Server).authTest, either: true},
		"chat.postMessage":      {run: (*Server).chatPostMessage, scopes: []string{"chat:write"}},
		"chat.postEphemeral":    {run: (*Server).chatPostEphemeral, scopes: []string{"chat:write"}},
		"chat.update":           {run: (*Server).chatUpdate, scopes: []string{"chat:write"}},
		"chat.delete":           {run: (*Server).chatDelete, scopes: []string{"chat:write"}},
		"chat.getPermalink":     {run: (*Server).chatGetPermalink},
		"views.open":            {run: (*Server).viewsOpen},
		"views.push":            {run: (*Server).viewsPush},
		"views.update":          {run: (*Server).viewsUpdate},
		"views.publish":         {run: (*Server).viewsPublish},
		"users.info":            {run: (*Server).usersInfo, scopes: []string{"users:read"}},
		"users.lookupByEmail":   {run: (*Server).usersLookupByEmail, scopes: []string{"users:read.email"}},
		"conversations.open":    {run: (*Server).conversationsOpen, scopes: []string{"im:write"}},
		"conversations.info":    {run: (*Server).conversationsInfo, scopes: []string{"channels:read", "groups:read", "im:read", "mpim:read"}},
		"conversations.members": {run: (*Server).conversationsMembers, scopes: []string{"channels:read", "groups:read", "im:read", "mpim:read"}},
		"usergroups.list":       {run: (*Server).usergroupsList, scopes: []string{"usergroups:read"}},
		"usergroups.users.list": {run: (*Server).usergroupsUsersList, scopes: []string{"usergroups:read"}},
	}
}

// call is one call of a method.
type call struct {
	r     *http.Request
	token string
	args  map[string]any // strings from a form, anything from JSON
}

// refusal is an error response of the Web API.
type refusal struct {
	code             string
	status           int // 200, except for errors of the sandbox that Slack does not have
	needed, provided string
	problems         []string
}

func refuse(code string) *refusal { return &refusal{code: code} }

func missingArgument(name string) *refusal {
	return &refusal{code: "invalid_arguments", problems: []string{"missing required field: " + name}}
}

// unsupported returns a refusal for features of Slack that the sandbox does not have.
func unsupported(what string) *refusal {
	return &refusal{code: "sandbox_does_not_do: " + what, status: http.StatusNotImplemented}
}

// str returns a scalar argument as text.
func (c *call) str(name string) string {
	switch v := c.args[name].(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	}
	return ""
}

func (c *call) flag(name string) bool { return c.str(name) == "true" || c.str(name) == "1" }

// value returns a structured argument, which may come as JSON text inside a form or as JSON itself.
func (c *call) value(name string) (v any, present, ok bool) {
	v, present = c.args[name]
	s, isText := v.(string)
	switch {
	case !present || v == nil || isText && s == "":
		return nil, false, true
	case isText:
		ok = decode([]byte(s), &v) == nil
		return v, true, ok
	}
	return v, true, true
}

// serveAPI handles one call. It takes the lock itself.
func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("method")
	fault := s.takeFault(name)
	if fault.replacesCall() {
		s.locked(func() { s.counts.method(name).fail(fault.String()) })
		s.applyFault(fault, w, r)
		return
	}
	var answer map[string]any
	var no *refusal
	s.locked(func() {
		w.Header().Set("X-Slack-Req-Id", randomHex())
		answer, no = s.execute(name, w, r)
		if no != nil {
			s.counts.method(name).fail(no.code)
		} else {
			s.counts.method(name).succeed()
		}
	})
	if fault != nil {
		s.applyFault(fault, w, r)
		return
	}
	status := http.StatusOK
	if no != nil {
		answer = map[string]any{"ok": false, "error": no.code}
		status = max(status, no.status)
		if no.code == "missing_scope" {
			answer["needed"], answer["provided"] = no.needed, no.provided
		}
		if len(no.problems) > 0 {
			messages := []string{}
			for _, p := range no.problems {
				messages = append(messages, "[ERROR] "+p)
			}
			answer["response_metadata"] = map[string]any{"messages": messages}
			if no.code == "invalid_blocks" {
				answer["errors"] = no.problems
			}
		}
	} else {
		answer["ok"] = true
	}
	writeJSON(w, status, answer)
}

// execute checks the token and its scopes and runs the method.
func (s *Server) execute(name string, w http.ResponseWriter, r *http.Request) (map[string]any, *refusal) {
	m, ok := methods()[name]
	if !ok {
		return nil, &refusal{code: fmt.Sprintf("unknown_method: the sandbox has no %q", name), status: http.StatusNotImplemented}
	}
	args, no := readArguments(w, r)
	if no != nil {
		return nil, no
	}
	c := &call{r: r, args: args}
	token, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !found && !m.app && !isJSON(r) { // an app-level token is accepted only in the header, and a token in JSON is ignored
		token = c.str("token")
	}
	switch {
	case token == "":
		return nil, refuse("not_authed")
	case token != s.o.BotToken && token != s.o.AppToken:
		return nil, refuse("invalid_auth")
	case !m.either && (token == s.o.AppToken) != m.app:
		return nil, refuse("not_allowed_token_type")
	}
	granted := s.o.Manifest.BotScopes
	if token == s.o.AppToken {
		granted = []string{"connections:write"}
	}
	c.token = token
	w.Header().Set("X-OAuth-Scopes", strings.Join(granted, ","))
	if len(m.scopes) > 0 {
		w.Header().Set("X-Accepted-OAuth-Scopes", strings.Join(m.scopes, ","))
		if !slices.ContainsFunc(m.scopes, s.granted) {
			return nil, s.missingScope(strings.Join(m.scopes, ","))
		}
	}
	return m.run(s, c)
}

func (s *Server) granted(scope string) bool { return slices.Contains(s.o.Manifest.BotScopes, scope) }

func (s *Server) missingScope(needed string) *refusal {
	return &refusal{code: "missing_scope", needed: needed, provided: strings.Join(s.o.Manifest.BotScopes, ",")}
}

func isJSON(r *http.Request) bool {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return kind == "application/json"
}

func readArguments(w http.ResponseWriter, r *http.Request) (map[string]any, *refusal) {
	args := map[string]any{}
	r.Body = http.MaxBytesReader(w, r.Body, 4<<20)
	if !isJSON(r) {
		err := r.ParseForm()
		if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && kind == "multipart/form-data" {
			err = r.ParseMultipartForm(1 << 20)
		}
		if err != nil {
			return nil, refuse("invalid_form_data")
		}
		for k, v := range r.Form {
			args[k] = v[0]
		}
		return args, nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, refuse("request_timeout")
	}
	var v any
	if len(body) > 0 && decode(body, &v) != nil {
		return nil, refuse("invalid_json")
	}
	switch v := v.(type) {
	case nil:
		return args, nil
	case map[string]any:
		return v, nil
	}
	return nil, refuse("json_not_object")
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(encode(v))
}

func randomHex() string { return strings.ReplaceAll(uuid(), "-", "") }

// People.

func (s *Server) authTest(c *call) (map[string]any, *refusal) {
	w := s.o.Workspace
	if c.token == s.o.AppToken {
		return map[string]any{"app_name": s.o.Manifest.Name, "app_id": w.AppID}, nil
	}
	return map[string]any{"url": s.base + "/", "team": w.Name, "user": s.bot.Handle, "team_id": w.TeamID, "user_id": s.bot.ID,
		"bot_id": w.BotID, "is_enterprise_install": false}, nil
}

func (s *Server) usersInfo(c *call) (map[string]any, *refusal) {
	p := s.person(c.str("user"))
	if p == nil {
		return nil, refuse("user_not_found")
	}
	return map[string]any{"user": s.userJSON(p)}, nil
}

func (s *Server) usersLookupByEmail(c *call) (map[string]any, *refusal) {
	email := c.str("email")
	if email == "" {
		return nil, missingArgument("email")
	}
	for _, p := range s.people { // deactivated people and strangers are not found
		if strings.EqualFold(p.Email, email) && !p.Deactivated && !p.Stranger {
			return map[string]any{"user": s.userJSON(p)}, nil
		}
	}
	return nil, refuse("users_not_found")
}

// userJSON returns Slack's user object. As at Slack, that of a deactivated person lacks most flags.
func (s *Server) userJSON(p *Person) map[string]any {
	first, last, _ := strings.Cut(p.Name, " ")
	profile := map[string]any{
		"real_name": p.Name, "real_name_normalized": p.Name, "display_name": p.Handle, "display_name_normalized": p.Handle,
		"first_name": first, "last_name": last, "title": p.Title, "phone": "", "skype": "", "team": p.TeamID,
		"status_text": "", "status_emoji": "", "status_expiration": 0, "avatar_hash": "sandbox", "fields": nil,
	}
	if p.Email != "" && !p.Bot && !p.Stranger && s.granted("users:read.email") {
		profile["email"] = p.Email
	}
	u := map[string]any{
		"id": p.ID, "team_id": p.TeamID, "name": p.Handle, "deleted": p.Deactivated, "profile": profile,
		"is_bot": p.Bot, "is_app_user": false, "updated": 1700000000,
	}
	if p.Bot {
		profile["api_app_id"], profile["bot_id"], profile["always_active"] = s.o.Workspace.AppID, s.o.Workspace.BotID, true
	}
	if p.Deactivated {
		return u
	}
	offset := 0
	label := "Coordinated Universal Time"
	if zone, err := time.LoadLocation(p.TZ); err == nil {
		label, offset = s.o.Now().In(zone).Zone()
	}
	for k, v := range map[string]any{
		"color": strings.TrimPrefix(p.Color, "#"), "real_name": p.Name, "tz": p.TZ, "tz_label": label, "tz_offset": offset,
		"is_admin": p.Admin || p.Owner, "is_owner": p.Owner, "is_primary_owner": false, "is_restricted": p.Restricted,
		"is_ultra_restricted": p.UltraRestricted, "who_can_share_contact_card": "EVERYONE",
	} {
		u[k] = v
	}
	if !p.Bot {
		u["is_email_confirmed"] = !p.EmailUnconfirmed && !p.Invited
	}
	if p.Stranger {
		u["is_stranger"] = true
	}
	if p.Invited {
		u["is_invited_user"] = true
	}
	return u
}

func (s *Server) usergroupsList(c *call) (map[string]any, *refusal) {
	groups := []any{}
	for _, g := range s.o.Groups {
		if g.Disabled && !c.flag("include_disabled") {
			continue
		}
		deleted := 0
		if g.Disabled {
			deleted = 1700000001
		}
		j := map[string]any{"id": g.ID, "team_id": s.o.Workspace.TeamID, "is_usergroup": true, "is_subteam": true, "name": g.Name, "handle": g.Handle,
			"description": g.Description, "is_external": false, "date_create": 1700000000, "date_update": 1700000000, "date_delete": deleted,
			"auto_type": nil, "created_by": "", "updated_by": "", "deleted_by": nil, "prefs": map[string]any{"channels": []any{}, "groups": []any{}},
			"user_count": len(g.Users)}
		if c.flag("include_users") {
			j["users"] = orEmpty(g.Users)
		}
		groups = append(groups, j)
	}
	return map[string]any{"usergroups": groups}, nil
}

func (s *Server) usergroupsUsersList(c *call) (map[string]any, *refusal) {
	for _, g := range s.o.Groups {
		if g.ID == c.str("usergroup") {
			return map[string]any{"users": g.Users}, nil
		}
	}
	return nil, refuse("no_such_subteam")
}

// Conversations.

// visible finds a conversation that the app can see: its own, and all public ones.
func (s *Server) visible(id string) (*channel, *refusal) {
	if id == "" {
		return nil, missingArgument("channel")
	}
	c := s.channel(id)
	if c == nil || c.Private && !c.has(s.bot.ID) {
		return nil, refuse("channel_not_found")
	}
	return c, nil
}

// readable is like visible, and also checks the scope for reading this kind of conversation.
func (s *Server) readable(id string) (*channel, *refusal) {
	c, no := s.visible(id)
	if no != nil {
		return nil, no
	}
	scope := "channels:read"
	switch {
	case isDM(c.ID):
		scope = "im:read"
	case c.Private:
		scope = "groups:read"
	}
	if !s.granted(scope) {
		return nil, s.missingScope(scope)
	}
	return c, nil
}

// writable finds the conversation for a message: a channel, a direct message, or a person, whose direct message it opens.
func (s *Server) writable(id string) (*channel, *refusal) {
	if p := s.person(id); p != nil {
		if p.Bot {
			return nil, refuse("cannot_dm_bot")
		}
		c, _ := s.dm(p) // also for a deactivated person: Slack accepts the message (slackapi/python-slack-sdk#1156)
		id = c.ID
	}
	c, no := s.visible(id)
	switch {
	case no != nil:
		return nil, no
	case isDM(c.ID) && !s.o.Manifest.MessagesTab:
		return nil, refuse("messages_tab_disabled")
	case !c.has(s.bot.ID) && !s.granted("chat:write.public"):
		return nil, refuse("not_in_channel")
	}
	return c, nil
}

func (s *Server) conversationsOpen(c *call) (map[string]any, *refusal) {
	var p *Person
	if id := c.str("channel"); id != "" {
		ch, no := s.visible(id)
		if no != nil {
			return nil, no
		}
		if ch.with == "" {
			return nil, refuse("method_not_supported_for_channel_type")
		}
		p = s.person(ch.with)
	} else {
		users, _, _ := strings.Cut(c.str("users"), ",")
		switch p = s.person(users); {
		case c.str("users") == "":
			return nil, refuse("users_list_not_supplied")
		case users != c.str("users"):
			return nil, unsupported("conversations.open with several people")
		case p == nil:
			return nil, refuse("user_not_found")
		}
	}
	switch {
	case p.Bot:
		return nil, refuse("cannot_dm_bot")
	case p.Deactivated:
		return nil, refuse("user_disabled")
	}
	ch, isNew := s.dm(p)
	answer := map[string]any{"channel": map[string]any{"id": ch.ID}}
	if c.flag("return_im") {
		answer["channel"] = s.channelJSON(ch, false)
	}
	if !isNew {
		answer["no_op"], answer["already_open"] = true, true
	}
	return answer, nil
}

func (s *Server) conversationsInfo(c *call) (map[string]any, *refusal) {
	ch, no := s.readable(c.str("channel"))
	if no != nil {
		return nil, no
	}
	return map[string]any{"channel": s.channelJSON(ch, c.flag("include_num_members"))}, nil
}

func (s *Server) channelJSON(ch *channel, count bool) map[string]any {
	j := map[string]any{"id": ch.ID, "created": 1700000000, "is_im": isDM(ch.ID), "is_mpim": false, "is_archived": false, "is_private": ch.Private,
		"is_shared": ch.Shared, "is_ext_shared": ch.Shared, "is_org_shared": false, "is_pending_ext_shared": false, "pending_shared": []any{},
		"context_team_id": s.o.Workspace.TeamID, "updated": 1700000000000}
	if isDM(ch.ID) {
		j["user"], j["is_open"], j["is_user_deleted"] = ch.with, true, s.person(ch.with).Deactivated
		return j
	}
	teams := []string{s.o.Workspace.TeamID}
	for _, id := range ch.Members {
		if team := s.person(id).TeamID; ch.Shared && !slices.Contains(teams, team) {
			teams = append(teams, team)
		}
	}
	for k, v := range map[string]any{
		"name": ch.Name, "name_normalized": ch.Name, "is_channel": !ch.Private, "is_group": ch.Private, "is_general": ch.Name == "general",
		"is_member": ch.has(s.bot.ID), "creator": "", "unlinked": 0, "shared_team_ids": teams, "connected_team_ids": teams[1:],
		"topic":   map[string]any{"value": ch.Topic, "creator": "", "last_set": 0},
		"purpose": map[string]any{"value": ch.Purpose, "creator": "", "last_set": 0}, "previous_names": []any{},
	} {
		j[k] = v
	}
	if count {
		j["num_members"] = len(ch.Members)
	}
	return j
}

func (s *Server) conversationsMembers(c *call) (map[string]any, *refusal) {
	ch, no := s.readable(c.str("channel"))
	if no != nil {
		return nil, no
	}
	limit, from := 100, 0
	if text := c.str("limit"); text != "" && text != "0" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 1000 {
			return nil, refuse("invalid_limit")
		}
		limit = n
	}
	if cursor := c.str("cursor"); cursor != "" {
		text, err := base64.StdEncoding.DecodeString(cursor)
		n, err2 := strconv.Atoi(strings.TrimPrefix(string(text), "member:"))
		if err != nil || err2 != nil || n < 0 || n > len(ch.Members) {
			return nil, refuse("invalid_cursor")
		}
		from = n
	}
	to := min(from+limit, len(ch.Members))
	next := ""
	if to < len(ch.Members) {
		next = base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "member:%d", to))
	}
	return map[string]any{"members": ch.Members[from:to], "response_metadata": map[string]any{"next_cursor": next}}, nil
}

// Messages.

// content is the content of a message, from a call, an answer to a command or a response URL.
type content struct {
	text      string
	blocks    []any
	hasBlocks bool // blocks were given, possibly empty
}

// readContent reads text and blocks from the arguments and checks them as Slack does.
func (c *call) readContent() (content, *refusal) {
	for _, name := range []string{"attachments", "markdown_text", "file_ids"} {
		if v, present, _ := c.value(name); present && string(encode(v)) != "[]" {
			return content{}, unsupported("the argument " + name)
		}
	}
	v, present, ok := c.value("blocks")
	blocks, isList := v.([]any)
	if present && (!ok || !isList && v != nil) {
		return content{}, refuse("invalid_blocks_format")
	}
	k := content{c.str("text"), blocks, present && v != nil}
	if problems := checkMessageBlocks(blocks, "/blocks"); len(problems) > 0 {
		return content{}, &refusal{code: "invalid_blocks", problems: problems}
	}
	if messageBlocksTooLong(blocks) {
		return content{}, refuse("msg_blocks_too_long")
	}
	return k, nil
}

func (k content) empty() bool { return strings.TrimSpace(k.text) == "" && len(k.blocks) == 0 }

func (s *Server) chatPostMessage(c *call) (map[string]any, *refusal) {
	ch, no := s.writable(c.str("channel"))
	if no != nil {
		return nil, no
	}
	k, no := c.readContent()
	if no != nil {
		return nil, no
	}
	if k.empty() {
		return nil, refuse("no_text")
	}
	if utf8.RuneCountInString(k.text) > maxText {
		k.text = string([]rune(k.text)[:maxText])
	}
	metadata, no := c.readMetadata()
	if no != nil {
		return nil, no
	}
	thread := c.str("thread_ts")
	if thread != "" && ch.find(thread, "") == nil {
		return nil, refuse("thread_not_found")
	}
	m := s.post(ch, message{text: k.text, blocks: k.blocks, thread: thread, metadata: metadata})
	return map[string]any{"channel": ch.ID, "ts": m.ts, "message": s.messageJSON(m)}, nil
}

// readMetadata reads a message's metadata (https://docs.slack.dev/messaging/message-metadata).
func (c *call) readMetadata() (any, *refusal) {
	v, present, ok := c.value("metadata")
	if !present {
		return nil, nil
	}
	m, isObject := v.(map[string]any)
	if !ok || !isObject {
		return nil, refuse("invalid_metadata_format")
	}
	kind, _ := m["event_type"].(string)
	if _, ok := m["event_payload"].(map[string]any); !ok || kind == "" {
		return nil, refuse("invalid_metadata_schema")
	}
	return m, nil
}

func (s *Server) chatPostEphemeral(c *call) (map[string]any, *refusal) {
	if c.str("user") == "" {
		return nil, missingArgument("user")
	}
	ch, no := s.writable(c.str("channel"))
	if no != nil {
		return nil, no
	}
	k, no := c.readContent()
	switch {
	case no != nil:
		return nil, no
	case !ch.has(c.str("user")):
		return nil, refuse("user_not_in_channel")
	case k.empty():
		return nil, refuse("no_text")
	case utf8.RuneCountInString(k.text) > maxText:
		return nil, refuse("msg_too_long")
	}
	m := s.post(ch, message{text: k.text, blocks: k.blocks, visibleTo: c.str("user"), thread: c.str("thread_ts")})
	return map[string]any{"message_ts": m.ts}, nil
}

func (s *Server) chatUpdate(c *call) (map[string]any, *refusal) {
	ch, no := s.visible(c.str("channel"))
	if no != nil {
		return nil, no
	}
	k, no := c.readContent()
	if no != nil {
		return nil, no
	}
	m := ch.find(c.str("ts"), "")
	switch {
	case c.str("ts") == "":
		return nil, missingArgument("ts")
	case m == nil: // ephemeral messages cannot be found either
		return nil, refuse("message_not_found")
	case utf8.RuneCountInString(k.text) > maxUpdateText:
		return nil, refuse("msg_too_long")
	case k.empty():
		return nil, refuse("no_text")
	}
	metadata, no := c.readMetadata()
	if no != nil {
		return nil, no
	}
	if k.hasBlocks { // without the argument, the old blocks stay
		m.blocks = withIDs(k.blocks)
	}
	if metadata != nil {
		m.metadata = metadata
	}
	m.text, m.edited = k.text, true
	s.notify()
	return map[string]any{"channel": ch.ID, "ts": m.ts, "text": m.text, "message": s.messageJSON(m)}, nil
}

func (s *Server) chatDelete(c *call) (map[string]any, *refusal) {
	ch, no := s.visible(c.str("channel"))
	if no != nil {
		return nil, no
	}
	m := ch.find(c.str("ts"), "")
	if m == nil {
		return nil, refuse("message_not_found")
	}
	ch.remove(m)
	s.notify()
	return map[string]any{"channel": ch.ID, "ts": m.ts}, nil
}

func (s *Server) chatGetPermalink(c *call) (map[string]any, *refusal) {
	ch, no := s.visible(c.str("channel"))
	if no != nil {
		return nil, no
	}
	ts := c.str("message_ts")
	if ch.find(ts, "") == nil {
		return nil, refuse("message_not_found")
	}
	return map[string]any{"channel": ch.ID, "permalink": s.base + "/archives/" + ch.ID + "/p" + strings.ReplaceAll(ts, ".", "")}, nil
}

// Response URLs (https://docs.slack.dev/interactivity/handling-user-interaction#message_responses).

const maxResponseURLUses = 5

// responseURL is a response URL.
type responseURL struct {
	kind          string // commands or actions
	secret        string
	user, channel string
	ts            string // the message that it can replace or delete: the one with the button, or the last that it posted
	issued        time.Time
	uses          int
}

func (s *Server) newResponseURL(kind, user, channel, ts string) (id, url string) {
	maps.DeleteFunc(s.responseURLs, func(_ string, h *responseURL) bool { return s.o.Now().Sub(h.issued) > 2*s.o.ResponseURLLife })
	id = digits(13)
	h := &responseURL{kind: kind, secret: randomID(""), user: user, channel: channel, ts: ts, issued: s.o.Now()}
	s.responseURLs[id] = h
	return id, fmt.Sprintf("%s/%s/%s/%s/%s", s.base, kind, s.o.Workspace.TeamID, id, h.secret)
}

// serveResponseURL handles one request to a response URL of this kind. It takes the lock
// itself.
func (s *Server) serveResponseURL(kind string, w http.ResponseWriter, r *http.Request) {
	const name = "response_url"
	fault := s.takeFault(name)
	if fault.replacesCall() {
		s.locked(func() { s.counts.method(name).fail(fault.String()) })
		s.applyFault(fault, w, r)
		return
	}
	var no *refusal
	s.locked(func() {
		if no = s.useResponseURL(kind, w, r); no != nil {
			s.counts.method(name).fail(no.code)
		} else {
			s.counts.method(name).succeed()
		}
	})
	switch {
	case fault != nil:
		s.applyFault(fault, w, r)
	case no != nil && kind == "commands":
		http.Error(w, no.code, max(no.status, http.StatusBadRequest))
	case no != nil:
		writeJSON(w, max(no.status, http.StatusBadRequest), map[string]any{"ok": false, "error": no.code})
	case kind == "commands":
		_, _ = io.WriteString(w, "ok")
	default:
		writeJSON(w, http.StatusOK, map[string]any{"ok": true})
	}
}

func (s *Server) useResponseURL(kind string, w http.ResponseWriter, r *http.Request) *refusal {
	h := s.responseURLs[r.PathValue("id")]
	args, no := readArguments(w, r)
	switch {
	case h == nil || h.kind != kind || h.secret != r.PathValue("secret") || r.PathValue("team") != s.o.Workspace.TeamID:
		return &refusal{code: "no_service", status: http.StatusNotFound}
	case s.o.Now().Sub(h.issued) > s.o.ResponseURLLife:
		return &refusal{code: "expired_url", status: http.StatusNotFound}
	case h.uses >= maxResponseURLUses:
		return &refusal{code: "used_url", status: http.StatusNotFound}
	case no != nil:
		return no
	}
	c := &call{r: r, args: args}
	k, no := c.readContent()
	if no != nil {
		return no
	}
	ch := s.channel(h.channel)
	original := ch.find(h.ts, h.user)
	if c.flag("delete_original") {
		h.uses++
		if original != nil {
			ch.remove(original)
			s.notify()
		}
		return nil
	}
	if k.empty() {
		return refuse("no_text")
	}
	h.uses++
	if c.flag("replace_original") && h.ts != "" {
		if original != nil { // a message that the person no longer sees is not replaced
			original.text, original.blocks, original.edited = k.text, withIDs(k.blocks), original.visibleTo == ""
			s.notify()
		}
		return nil
	}
	s.respond(h, k, c.str("response_type"), c.str("thread_ts"))
	return nil
}

// respond posts a response to an interaction; only the person sees it, unless responseType is in_channel.
func (s *Server) respond(h *responseURL, k content, responseType, thread string) {
	m := message{text: k.text, blocks: k.blocks, visibleTo: h.user, thread: thread}
	if responseType == "in_channel" {
		m.visibleTo = ""
	}
	posted := s.post(s.channel(h.channel), m)
	if h.kind == "commands" {
		h.ts = posted.ts
	}
}

// Faults and counts.

// Fault makes calls fail.
type Fault struct {
	Method     string `json:"method"`                // of the Web API, "response_url", or "*" for all
	Times      int    `json:"times,omitempty"`       // number of calls that it still applies to; 0 means all
	Kind       string `json:"kind"`                  // ratelimit, error, hang, drop_reply, status
	Error      string `json:"error,omitempty"`       // for error: Slack's code; internal_error when empty
	Status     int    `json:"status,omitempty"`      // for status: the HTTP status; 503 when 0
	RetryAfter int    `json:"retry_after,omitempty"` // for ratelimit: seconds; 1 when 0
	Apply      bool   `json:"apply,omitempty"`       // execute the call anyway; drop_reply always does
	Met        int    `json:"met"`                   // number of calls that it has applied to
}

// String returns the error code under which an affected call is counted.
func (f *Fault) String() string { return "fault_" + f.Kind }

// check returns an error for an invalid fault.
func (f *Fault) check() error {
	_, known := methods()[f.Method]
	switch {
	case !known && f.Method != "*" && f.Method != "response_url":
		return fmt.Errorf("there is no method %q: name one of the Web API, response_url, or * for all", f.Method)
	case !slices.Contains([]string{"ratelimit", "error", "hang", "drop_reply", "status"}, f.Kind):
		return fmt.Errorf("there is no kind %q of fault: use ratelimit, error, hang, drop_reply or status", f.Kind)
	case f.Kind == "status" && f.Status != 0 && (f.Status < 200 || f.Status > 599):
		return fmt.Errorf("%d is not an HTTP status", f.Status)
	case f.Times < 0 || f.RetryAfter < 0:
		return fmt.Errorf("times and retry_after cannot be negative")
	}
	return nil
}

// takeFault returns the fault that applies to the next call of a method, or nil. It takes the lock itself.
func (s *Server) takeFault(name string) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range s.faults {
		if f.Method != name && f.Method != "*" {
			continue
		}
		f.Met++
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				s.faults = slices.Delete(s.faults, i, i+1)
			}
		}
		copied := *f
		return &copied
	}
	return nil
}

// replacesCall reports whether the fault applies instead of the call, and not after it.
func (f *Fault) replacesCall() bool {
	return f != nil && f.Kind != "drop_reply" && (!f.Apply || f.Kind == "ratelimit")
}

// applyFault responds, or does not respond, according to the fault. Call it without the lock.
func (s *Server) applyFault(f *Fault, w http.ResponseWriter, r *http.Request) {
	switch f.Kind {
	case "ratelimit":
		w.Header().Set("Retry-After", strconv.Itoa(max(f.RetryAfter, 1)))
		writeJSON(w, http.StatusTooManyRequests, map[string]any{"ok": false, "error": "ratelimited"})
	case "error":
		code := f.Error
		if code == "" {
			code = "internal_error"
		}
		writeJSON(w, http.StatusOK, map[string]any{"ok": false, "error": code})
	case "status":
		status := f.Status
		if status == 0 {
			status = http.StatusServiceUnavailable
		}
		http.Error(w, http.StatusText(status), status)
	case "hang":
		_, _ = io.Copy(io.Discard, r.Body) // otherwise the server does not notice that the caller gives up
		select {
		case <-r.Context().Done():
		case <-s.closed:
		case <-time.After(s.o.HangFor):
		}
		panic(http.ErrAbortHandler) // cuts the connection
	case "drop_reply":
		panic(http.ErrAbortHandler)
	}
}

// Calls counts the app's calls and envelopes since the start.
type Calls struct {
	Methods   map[string]*MethodCalls `json:"methods"`
	Sockets   int                     `json:"sockets"` // open ones
	Envelopes EnvelopeCalls           `json:"envelopes"`
	Recent    []EnvelopeInfo          `json:"recent"` // the last envelopes, oldest first
}

// MethodCalls counts the calls of one method; response URLs count as the method response_url.
type MethodCalls struct {
	Calls  int            `json:"calls"`
	OK     int            `json:"ok"`
	Errors map[string]int `json:"errors,omitempty"` // by Slack's code, or fault_<kind>
}

// EnvelopeCalls counts envelopes.
type EnvelopeCalls struct {
	Sent        int `json:"sent"`
	Acked       int `json:"acked"`       // in time
	TimedOut    int `json:"timed_out"`   // not in time
	Late        int `json:"late"`        // answers after the timeout
	Repeated    int `json:"repeated"`    // further answers to answered envelopes
	Dropped     int `json:"dropped"`     // answers that were too long, fragmented, not JSON, or to unknown envelopes
	Redelivered int `json:"redelivered"` // sent once more
	Undelivered int `json:"undelivered"` // no socket was open
}

// EnvelopeInfo describes one envelope.
type EnvelopeInfo struct {
	ID    string `json:"envelope_id"`
	Kind  string `json:"type"`
	Sent  int    `json:"sent"`  // number of times
	Acked int    `json:"acked"` // number of times
}

func (c *Calls) method(name string) *MethodCalls {
	if c.Methods[name] == nil {
		c.Methods[name] = &MethodCalls{Errors: map[string]int{}}
	}
	return c.Methods[name]
}

func (m *MethodCalls) succeed() { m.Calls++; m.OK++ }

func (m *MethodCalls) fail(code string) { m.Calls++; m.Errors[code]++ }
