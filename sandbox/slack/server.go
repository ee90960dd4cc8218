// Package slack simulates a Slack workspace with one installed app in one process: Socket Mode, the Web API and response URLs. It is
// for `countersign demo` and for tests. It refuses what Slack is known to refuse, but an app that works here still has to be
// tested with Slack itself.
//
// # API for apps (Handler)
//
//   - /api/<method>: the Web API, form or JSON, with tokens, scopes from the manifest, membership, and every limit in limits.go.
//     A method that is not in the table of webapi.go gets a 501 that names it, and so does an argument that matters and is not
//     supported (attachments, scheduled and group messages, …).
//   - /link/?ticket=…: Socket Mode. Each envelope goes to exactly one open socket, chosen at random. An acknowledgement counts for
//     three seconds; acknowledgements of 20,480 bytes or more, or in several WebSocket frames, are dropped silently, as by Slack.
//   - /commands/… and /actions/…: response URLs, five uses within thirty minutes.
//
// Where Slack's documentation is not specific, this package decides as follows: a trigger used twice is exchanged_trigger_id, an
// old one expired_trigger_id, and a refused view does not use it up; a new modal replaces the person's open ones; an event is
// sent again with the same envelope id and event id; `@here` and similar stay text in slash commands; permalinks point to this
// server.
//
// # API for people (PersonAPI)
//
// Requests and responses are JSON. An invalid request gets a 4xx {"error","message"}; what Slack's client would show as a failure
// is a 200 {"ok":false,"error","message"}. "as" is always the id of the person who acts.
//
//	GET    /sandbox/people                         everybody in the workspace
//	GET    /sandbox/channels?as=U                  the person's conversations; the direct message with the app once it exists
//	GET    /sandbox/messages?as=U&channel=C        the messages that the person sees there, oldest first; with oldest=ts those
//	                                               after that timestamp
//	GET    /sandbox/commands                       the app's slash commands
//	POST   /sandbox/command    {as,channel,text}   types a slash command and waits for the acknowledgement; like the responses
//	                                               to press and submit, the response has the envelope_id
//	POST   /sandbox/press      {as,channel,ts,action_id,…} or {as,view_id,action_id,…}; block_id or value distinguish equal
//	                           action ids, selected is what was chosen, values are the current values of the view's inputs
//	GET    /sandbox/views?as=U                     open modals, the top one last, and the App Home
//	POST   /sandbox/submit     {as,view_id,values} submits a form; values are {block_id:{action_id: string or strings}}
//	POST   /sandbox/close      {as,view_id}
//	POST   /sandbox/options    {as,view_id or channel,ts,action_id,block_id,value} the options of a select for the typed text
//	POST   /sandbox/home       {as}                opens the App Home
//	POST   /sandbox/reload     {as}                reloads Slack: removes the person's ephemeral messages
//	PATCH  /sandbox/people/U   {deactivated, guest, email} changes that an administrator of the workspace makes
//	PATCH  /sandbox/channels/C {shared, members}
//	PATCH  /sandbox/usergroups/S {users, disabled}
//	GET    /sandbox/slack/calls                    counts of calls and envelopes, and the last envelopes
//	GET    /sandbox/slack/faults, PUT {faults:[…]}, DELETE
//	POST   /sandbox/slack/disconnect {reason}      warning, refresh_requested, link_disabled, or cut (without a message)
//	POST   /sandbox/slack/redeliver  {envelope_id} sends an envelope once more, the last one if the id is empty
package slack

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Person is a member of the workspace, or a member of another workspace in a shared channel. The flags are those of
// Slack's user object (https://docs.slack.dev/reference/objects/user-object).
type Person struct {
	ID     string // U… or W…
	Handle string // the name after @; unique in the workspace
	Name   string // real name
	Title  string
	Email  string
	Color  string // six hex digits with #, for avatars; chosen from the id when empty
	TZ     string // IANA zone; "Europe/London" when empty
	TeamID string // the person's home workspace; Options.Workspace.TeamID when empty

	Deactivated      bool // "deleted": cannot act any more
	Bot              bool // another app's bot
	Restricted       bool // guest in several channels
	UltraRestricted  bool // guest in one channel; Restricted is implied
	Stranger         bool // from another workspace, visible only in a shared channel
	Invited          bool // has not accepted the invitation yet
	EmailUnconfirmed bool
	Admin            bool
	Owner            bool
}

// Channel is a conversation that exists from the start. If its id begins with D, it is a direct message between two people, which
// the app cannot access. Direct messages with the app are created when they are opened.
type Channel struct {
	ID      string
	Name    string // without #
	Private bool
	Shared  bool     // shared with another workspace (is_ext_shared)
	Members []string // ids of people; Workspace.BotUserID for the app itself
	Topic   string
	Purpose string
}

// UserGroup is a group that people mention as @handle (https://docs.slack.dev/reference/objects/usergroup-object).
type UserGroup struct {
	ID          string // S…
	Handle      string
	Name        string
	Description string
	Users       []string
	Disabled    bool // cannot be mentioned any more; it keeps its members
}

// Workspace has the ids and names of the workspace and of its one installed app.
type Workspace struct {
	TeamID    string // T…
	Name      string
	Domain    string // the part before .slack.com
	AppID     string // A…
	BotUserID string // U…
	BotID     string // B…
}

// Options configure a workspace. Zero durations mean Slack's own values.
type Options struct {
	Workspace Workspace
	Manifest  Manifest
	BotToken  string // xoxb-…
	AppToken  string // xapp-…
	People    []Person
	Channels  []Channel
	Groups    []UserGroup

	Now func() time.Time // time.Now when nil; used for triggers, tickets, response URLs and the timestamps of messages

	// These are measured in real time, like the sockets.
	AckTimeout     time.Duration   // how long Slack's client waits for the app; 3 s
	PingEvery      time.Duration   // WebSocket pings; 10 s
	ConnectionLife time.Duration   // a socket is recycled with refresh_requested after this; 5 h
	WarnAhead      time.Duration   // from a disconnect "warning" to the refresh, and from the refresh to the cut; 10 s
	RetryAfter     []time.Duration // delays before an unacknowledged event is sent again; 0, 1 min, 5 min
	HangFor        time.Duration   // how long a "hang" fault blocks a caller; 1 min

	// These are measured with Now.
	TriggerLife     time.Duration // how long a trigger_id can be used; 3 s
	ResponseURLLife time.Duration // how long a response_url can be used; 30 min
}

// Server is the workspace, created with New. It is safe for concurrent use.
type Server struct {
	o            Options
	bot          *Person
	verification string // the deprecated token in every payload

	closed chan struct{}
	work   sync.WaitGroup // retries of events

	mu           sync.Mutex
	base         string
	people       []*Person
	channels     []*channel
	lastTS       int64 // microseconds
	views        map[string]*view
	modals       map[string][]*view // by person, the top one last
	homes        map[string]*view   // by person
	triggers     map[string]*trigger
	responseURLs map[string]*responseURL
	tickets      map[string]time.Time
	sockets      []*socket
	envelopes    []*envelope // the last ones, oldest first
	counts       Calls
	faults       []*Fault
	changed      chan struct{}
}

// channel is a conversation with its messages.
type channel struct {
	Channel
	with     string // the person, in a direct message with the app
	messages []*message
}

// message is one message. Its blocks are never changed in place, so that they can be read without a lock.
type message struct {
	ts, user, text, thread string
	blocks                 []any
	metadata               any
	visibleTo              string // the only person who sees it, if it is ephemeral
	edited                 bool
	offered                offers
}

// New creates a workspace. It panics if the options are invalid, because they are written in code.
func New(o Options) *Server {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.AckTimeout = cmp.Or(o.AckTimeout, 3*time.Second)
	o.PingEvery = cmp.Or(o.PingEvery, 10*time.Second)
	o.ConnectionLife = cmp.Or(o.ConnectionLife, 5*time.Hour)
	o.WarnAhead = cmp.Or(o.WarnAhead, 10*time.Second)
	o.HangFor = cmp.Or(o.HangFor, time.Minute)
	o.TriggerLife = cmp.Or(o.TriggerLife, 3*time.Second)
	o.ResponseURLLife = cmp.Or(o.ResponseURLLife, 30*time.Minute)
	if o.RetryAfter == nil {
		o.RetryAfter = []time.Duration{0, time.Minute, 5 * time.Minute}
	}
	w := o.Workspace
	for what, id := range map[string]string{"TeamID": w.TeamID, "AppID": w.AppID, "BotUserID": w.BotUserID, "BotID": w.BotID, "Domain": w.Domain} {
		if id == "" {
			panic("slack: Options.Workspace." + what + " is empty")
		}
	}
	if !strings.HasPrefix(o.BotToken, "xoxb-") || !strings.HasPrefix(o.AppToken, "xapp-") {
		panic("slack: Options.BotToken must begin with xoxb- and Options.AppToken with xapp-")
	}
	o.Groups = slices.Clone(o.Groups) // patchUserGroup changes them
	s := &Server{
		o:            o,
		verification: rand.Text(),
		closed:       make(chan struct{}),
		changed:      make(chan struct{}),
		views:        map[string]*view{},
		modals:       map[string][]*view{},
		homes:        map[string]*view{},
		triggers:     map[string]*trigger{},
		responseURLs: map[string]*responseURL{},
		tickets:      map[string]time.Time{},
		counts:       Calls{Methods: map[string]*MethodCalls{}},
	}
	bot := Person{ID: w.BotUserID, Handle: handleOf(o.Manifest.BotName), Name: o.Manifest.BotName, Bot: true}
	handles := map[string]bool{}
	for _, p := range append([]Person{bot}, o.People...) {
		p.TeamID = cmp.Or(p.TeamID, w.TeamID)
		p.TZ = cmp.Or(p.TZ, "Europe/London")
		p.Color = cmp.Or(p.Color, colorOf(p.ID))
		p.Restricted = p.Restricted || p.UltraRestricted
		if s.person(p.ID) != nil || handles[p.Handle] {
			panic(fmt.Sprintf("slack: two people are called %s @%s", p.ID, p.Handle))
		}
		handles[p.Handle] = true
		s.people = append(s.people, &p)
	}
	s.bot = s.people[0]
	for _, c := range o.Channels {
		if s.channel(c.ID) != nil {
			panic("slack: two channels have the id " + c.ID)
		}
		for _, id := range c.Members {
			if s.person(id) == nil {
				panic("slack: " + id + ", a member of #" + c.Name + ", is unknown")
			}
		}
		if isDM(c.ID) {
			c.Private = true
			if len(c.Members) != 2 || slices.Contains(c.Members, w.BotUserID) {
				panic("slack: the direct message " + c.ID + " must be between two people")
			}
		}
		s.channels = append(s.channels, &channel{Channel: c})
	}
	return s
}

// SetBase sets the workspace's public address, such as http://127.0.0.1:8080, which is the base of its WebSocket and response
// URLs. Call it before the first client connects.
func (s *Server) SetBase(url string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.base = strings.TrimRight(url, "/")
}

// Handler serves Slack's API for apps: /api/<method>, /link/?ticket=… (WebSocket), /commands/… and /actions/….
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/api/{method...}", s.serveAPI)
	mux.HandleFunc("GET /link/", s.serveLink)
	for _, kind := range []string{"commands", "actions"} {
		mux.HandleFunc("POST /"+kind+"/{team}/{id}/{secret}", func(w http.ResponseWriter, r *http.Request) { s.serveResponseURL(kind, w, r) })
	}
	return s.unlessClosed(mux)
}

// unlessClosed returns 503 after Close.
func (s *Server) unlessClosed(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-s.closed:
			http.Error(w, "this workspace is closed", http.StatusServiceUnavailable)
		default:
			h.ServeHTTP(w, r)
		}
	})
}

// Changed returns a channel that is closed at the next visible change. Call it before reading the state, then wait on it.
func (s *Server) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Close closes all sockets and ends everything that waits. Afterwards the handlers return 503.
func (s *Server) Close() {
	s.mu.Lock()
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
	for _, k := range s.sockets {
		k.cut()
	}
	s.mu.Unlock()
	s.work.Wait()
}

// The following methods are called with s.mu held, unless their comments say otherwise.

// notify wakes everything that waits on Changed.
func (s *Server) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Server) person(id string) *Person {
	for _, p := range s.people {
		if p.ID == id {
			return p
		}
	}
	return nil
}

func (s *Server) channel(id string) *channel {
	for _, c := range s.channels {
		if c.ID == id {
			return c
		}
	}
	return nil
}

// dm returns the direct message between the app and a person; it creates it if necessary.
func (s *Server) dm(p *Person) (ch *channel, isNew bool) {
	id := "D" + p.ID[1:]
	if c := s.channel(id); c != nil && c.with == p.ID {
		return c, false
	} else if c != nil {
		id = randomID("D")
	}
	c := &channel{Channel: Channel{ID: id, Private: true, Members: []string{p.ID, s.bot.ID}}, with: p.ID}
	s.channels = append(s.channels, c)
	s.notify()
	return c, true
}

func (c *channel) has(user string) bool { return slices.Contains(c.Members, user) }

// payloadName returns the name of a conversation in payloads: Slack does not reveal the names of private ones.
func (c *channel) payloadName() string {
	switch {
	case isDM(c.ID):
		return "directmessage"
	case c.Private:
		return "privategroup"
	}
	return c.Name
}

// find returns a message that this person (or the app, with its own id) sees.
func (c *channel) find(ts, viewer string) *message {
	for _, m := range c.messages {
		if m.ts == ts && (m.visibleTo == "" || m.visibleTo == viewer) {
			return m
		}
	}
	return nil
}

func (c *channel) remove(m *message) {
	c.messages = slices.DeleteFunc(c.messages, func(x *message) bool { return x == m })
}

// post adds a message of the app to a conversation.
func (s *Server) post(c *channel, m message) *message {
	s.lastTS = max(s.o.Now().UnixMicro(), s.lastTS+1)
	m.ts = fmt.Sprintf("%d.%06d", s.lastTS/1e6, s.lastTS%1e6)
	m.user = s.bot.ID
	m.blocks, m.offered = withIDs(m.blocks), offers{}
	c.messages = append(c.messages, &m)
	s.notify()
	return &m
}

// messageJSON returns a message in the form that Slack sends to apps.
func (s *Server) messageJSON(m *message) map[string]any {
	w := s.o.Workspace
	j := map[string]any{
		"type": "message", "user": m.user, "bot_id": w.BotID, "app_id": w.AppID, "team": w.TeamID, "ts": m.ts, "text": m.text,
		"bot_profile": map[string]any{"id": w.BotID, "app_id": w.AppID, "user_id": s.bot.ID, "name": s.bot.Name, "team_id": w.TeamID, "deleted": false},
	}
	if len(m.blocks) > 0 {
		j["blocks"] = m.blocks
	}
	if m.thread != "" {
		j["thread_ts"] = m.thread
	}
	if m.metadata != nil {
		j["metadata"] = m.metadata
	}
	if m.edited {
		j["edited"] = map[string]any{"user": m.user, "ts": m.ts}
	}
	return j
}

// Pure helpers.

func isDM(channelID string) bool { return strings.HasPrefix(channelID, "D") }

// withIDs adds missing ids to blocks and interactive elements, as Slack does. It changes blocks in place.
func withIDs(blocks []any) []any {
	for _, b := range blocks {
		m, _ := b.(map[string]any)
		if m != nil && m["block_id"] == nil {
			m["block_id"] = rand.Text()[:5]
		}
	}
	for _, sp := range blockElements(blocks) {
		if sp.element["action_id"] == nil {
			sp.element["action_id"] = rand.Text()[:5]
		}
	}
	return blocks
}

// blockElement is an interactive element and its block.
type blockElement struct {
	block   map[string]any
	element map[string]any
}

func (sp blockElement) blockID() string  { id, _ := sp.block["block_id"].(string); return id }
func (sp blockElement) actionID() string { id, _ := sp.element["action_id"].(string); return id }

// blockElements returns the interactive elements of blocks, from top to bottom.
func blockElements(blocks []any) []blockElement {
	var found []blockElement
	for _, b := range blocks {
		block, _ := b.(map[string]any)
		elements := []any{}
		switch typeOf(block) {
		case "section":
			elements = append(elements, block["accessory"])
		case "input":
			elements = append(elements, block["element"])
		case "actions", "context_actions":
			elements, _ = block["elements"].([]any)
		}
		for _, e := range elements {
			if m, _ := e.(map[string]any); m != nil && typeOf(m) != "image" {
				found = append(found, blockElement{block, m})
			}
		}
	}
	return found
}

// encode writes JSON as Slack does, without HTML escapes. It panics on values that cannot be marshaled.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("slack: " + err.Error())
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

// decode reads one JSON value and keeps numbers as they were written.
func decode(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		return err
	}
	if d.More() {
		return fmt.Errorf("more than one JSON value")
	}
	return nil
}

func randomID(prefix string) string { return prefix + rand.Text()[:10] }

// uuid returns a random one (RFC 9562, version 4).
func uuid() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// digits returns n random decimal digits, the first of them not 0.
func digits(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	for i := range b {
		b[i] = '0' + b[i]%10
	}
	b[0] = '1' + b[0]%9
	return string(b)
}

func colorOf(id string) string {
	palette := []string{"#9f69e7", "#4bbe2e", "#e7392d", "#3c989f", "#674b1b", "#e96699", "#e0a729", "#684b6c", "#5b89d5", "#2b6836", "#99a949", "#df3dc0"}
	sum := 0
	for _, r := range id {
		sum = sum*31 + int(r)
	}
	return palette[(sum&0x7fffffff)%len(palette)]
}

var notInHandle = regexp.MustCompile(`[^a-z0-9._-]+`)

func handleOf(name string) string { return notInHandle.ReplaceAllString(strings.ToLower(name), "") }
