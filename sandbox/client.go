package sandbox

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"countersign/sandbox/entra"
	"countersign/sandbox/slack"
)

// Client is a client of the sandbox's JSON API: it acts as people and administrators do, and sets faults. It works in the sandbox's
// own process and in any other. It is safe for concurrent use.
type Client struct {
	base   string
	http   *http.Client // for a single request
	stream *http.Client // for the event stream; no timeout

	mu     sync.Mutex
	people []Profile // fetched once, to resolve <@U…>
}

// NewClient returns a client of the sandbox at base, such as http://127.0.0.1:8080.
func NewClient(base string) *Client {
	return &Client{base: strings.TrimRight(base, "/") + "/sandbox/", http: &http.Client{Timeout: 30 * time.Second}, stream: &http.Client{}}
}

// Error is an error response of the sandbox itself (4xx).
type Error struct {
	Status  int    // HTTP status
	Code    string `json:"error"`
	Message string `json:"message"`
}

func (e *Error) Error() string {
	return fmt.Sprintf("sandbox: %s (%s, %d)", e.Message, e.Code, e.Status)
}

// do makes one call. Input and output are JSON; either may be nil.
func (c *Client) do(method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("sandbox: %s %s: %w", method, path, err)
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequest(method, c.base+path, body)
	if err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		return fmt.Errorf("sandbox: reading the answer to %s %s: %w", method, path, err)
	}
	if answer.StatusCode >= 300 {
		failure := &Error{Status: answer.StatusCode}
		if json.Unmarshal(b, failure) != nil || failure.Code == "" {
			failure.Code, failure.Message = "unexpected", strings.TrimSpace(string(b))
		}
		return failure
	}
	if out == nil || len(b) == 0 {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("sandbox: the answer to %s %s is not what was expected: %w", method, path, err)
	}
	return nil
}

// Wait calls done immediately and after every change in the sandbox, until done returns true or an error, or ctx ends.
func (c *Client) Wait(ctx context.Context, done func() (bool, error)) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"stream", nil)
	if err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	answer, err := c.stream.Do(r)
	if err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return &Error{Status: answer.StatusCode, Code: "unexpected", Message: "the stream of changes cannot be read"}
	}
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), "data:") {
			continue
		}
		if ok, err := done(); ok || err != nil {
			return err
		}
	}
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("sandbox: waiting for a change: %w", err)
	}
	return fmt.Errorf("sandbox: the stream of changes ended: %w", errors.Join(lines.Err(), io.ErrUnexpectedEOF))
}

// ---- The workspace ----

// Profile is the public profile of a member of the workspace.
type Profile struct {
	ID          string `json:"id"`
	Handle      string `json:"handle"`
	Name        string `json:"name"`
	Title       string `json:"title"`
	Email       string `json:"email"`
	Guest       bool   `json:"guest"`
	Deactivated bool   `json:"deactivated"`
	Bot         bool   `json:"bot"`
	Color       string `json:"color"`
}

// People returns everybody in the workspace.
func (c *Client) People() (people []Profile, err error) {
	return people, c.do(http.MethodGet, "people", nil, &people)
}

// Commands returns the slash commands of the app.
func (c *Client) Commands() (commands []slack.Command, err error) {
	return commands, c.do(http.MethodGet, "commands", nil, &commands)
}

// profile returns the profile of a person; the name of an unknown person is their id.
func (c *Client) profile(id string) Profile {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.people == nil {
		people, err := c.People()
		if err != nil {
			return Profile{ID: id, Name: id}
		}
		c.people = people
	}
	for _, p := range c.people {
		if p.ID == id {
			return p
		}
	}
	return Profile{ID: id, Name: id}
}

// name returns the name for an id that is mentioned in a text.
func (c *Client) name(id string) string { return c.profile(id).Name }

// As returns a client that acts as person, a Slack user id.
func (c *Client) As(person string) *Person { return &Person{c, person} }

// Person acts as one member of the workspace.
type Person struct {
	client *Client
	ID     string
}

// Answer is the result of an interaction with the app. OK is false when Slack would have shown a failure, such as
// operation_timeout or dispatch_failed; then Err and Message say which. Errors are the messages beside the fields of a form.
// Envelope is the id of the envelope that was sent to the app.
type Answer struct {
	OK       bool              `json:"ok"`
	Err      string            `json:"error"`
	Message  string            `json:"message"`
	Errors   map[string]string `json:"errors"`
	Response json.RawMessage   `json:"response"` // the payload of the app's acknowledgement of a command
	Envelope string            `json:"envelope_id"`
}

// Channel is a conversation that a person is in.
type Channel struct {
	ID      string   `json:"id"`
	Name    string   `json:"name"`
	Kind    string   `json:"kind"` // public, private or dm
	Shared  bool     `json:"shared"`
	Members []string `json:"members"`
	LastTS  string   `json:"last_ts"`
	With    string   `json:"with"` // the other person of a direct message
}

func (p *Person) query(path string, extra ...string) string {
	v := url.Values{"as": {p.ID}}
	for i := 0; i+1 < len(extra); i += 2 {
		v.Set(extra[i], extra[i+1])
	}
	return path + "?" + v.Encode()
}

// Channels returns the conversations the person is in.
func (p *Person) Channels() (channels []Channel, err error) {
	return channels, p.client.do(http.MethodGet, p.query("channels"), nil, &channels)
}

// DM returns the id of the person's direct message with the app, or "" while there is none.
func (p *Person) DM() (string, error) {
	channels, err := p.Channels()
	for _, c := range channels {
		if c.Kind == "dm" && p.client.profile(c.With).Bot {
			return c.ID, nil
		}
	}
	return "", err
}

// Messages returns what the person sees in a channel, oldest first.
func (p *Person) Messages(channel string) (messages []Message, err error) {
	return p.MessagesAfter(channel, "")
}

// MessagesAfter returns what the person sees in a channel that was posted after the message with this timestamp, oldest first.
func (p *Person) MessagesAfter(channel, ts string) (messages []Message, err error) {
	err = p.client.do(http.MethodGet, p.query("messages", "channel", channel, "oldest", ts), nil, &messages)
	for i := range messages {
		messages[i].name = p.client.name
	}
	return messages, err
}

// WaitMessage waits for a message in the channel for which match returns true, and returns the newest one, as the person sees it.
func (p *Person) WaitMessage(ctx context.Context, channel string, match func(Message) bool) (found Message, err error) {
	var seen []Message
	err = p.client.Wait(ctx, func() (bool, error) {
		var err error
		if seen, err = p.Messages(channel); err != nil {
			return false, err
		}
		for i := len(seen) - 1; i >= 0; i-- {
			if match(seen[i]) {
				found = seen[i]
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		err = fmt.Errorf("%w; %s saw in %s: %s", err, p.ID, channel, texts(seen))
	}
	return found, err
}

// texts formats messages for an error.
func texts(messages []Message) string {
	if len(messages) == 0 {
		return "nothing"
	}
	var b strings.Builder
	for _, m := range messages {
		fmt.Fprintf(&b, "\n--- %s\n%s", m.TS, m.Text())
	}
	return b.String()
}

// Command types a slash command, mentions included ("/entra-methods @dana"), and waits for the app to acknowledge it.
func (p *Person) Command(channel, text string) (a Answer, err error) {
	return a, p.client.do(http.MethodPost, "command", map[string]any{"as": p.ID, "channel": channel, "text": text}, &a)
}

// Press presses a button of a message. The value distinguishes buttons with the same action id; it may be empty.
func (p *Person) Press(channel, ts, actionID, value string) (a Answer, err error) {
	in := map[string]any{"as": p.ID, "channel": channel, "ts": ts, "action_id": actionID}
	if value != "" {
		in["value"] = value
	}
	return a, p.client.do(http.MethodPost, "press", in, &a)
}

// Choose chooses in a select, or in a menu, of a message. Selected is the value of an option, or a list of them.
func (p *Person) Choose(channel, ts, actionID string, selected any) (a Answer, err error) {
	return a, p.client.do(http.MethodPost, "press", map[string]any{"as": p.ID, "channel": channel, "ts": ts, "action_id": actionID, "selected": selected}, &a)
}

// PressView presses a button of a modal or of the App Home. The value distinguishes buttons with the same action id; it may be empty.
func (p *Person) PressView(viewID, actionID, value string) (a Answer, err error) {
	in := map[string]any{"as": p.ID, "view_id": viewID, "action_id": actionID}
	if value != "" {
		in["value"] = value
	}
	return a, p.client.do(http.MethodPost, "press", in, &a)
}

// ChooseView chooses in a select of a modal or of the App Home. Selected is the value of an option, or a list of them.
func (p *Person) ChooseView(viewID, actionID string, selected any) (a Answer, err error) {
	return a, p.client.do(http.MethodPost, "press", map[string]any{"as": p.ID, "view_id": viewID, "action_id": actionID, "selected": selected}, &a)
}

// Views are the open modals of a person, the top one last, and the App Home, which is nil until the app has published one.
type Views struct {
	Modals []View `json:"modals"`
	Home   *View  `json:"home"`
}

// Top returns the top modal.
func (v Views) Top() (View, bool) {
	if len(v.Modals) == 0 {
		return View{}, false
	}
	return v.Modals[len(v.Modals)-1], true
}

// Views returns the person's open modals and App Home.
func (p *Person) Views() (v Views, err error) {
	err = p.client.do(http.MethodGet, p.query("views"), nil, &v)
	for i := range v.Modals {
		v.Modals[i].name = p.client.name
	}
	if v.Home != nil {
		v.Home.name = p.client.name
	}
	return v, err
}

// WaitModal waits until match returns true for the top modal, and returns it.
func (p *Person) WaitModal(ctx context.Context, match func(View) bool) (found View, err error) {
	seen := "no modal"
	err = p.client.Wait(ctx, func() (bool, error) {
		views, err := p.Views()
		if err != nil {
			return false, err
		}
		top, ok := views.Top()
		if ok && match(top) {
			found = top
			return true, nil
		}
		if ok {
			seen = top.Text()
		}
		return false, nil
	})
	if err != nil {
		err = fmt.Errorf("%w; %s saw last: %s", err, p.ID, seen)
	}
	return found, err
}

// WaitHome waits until match returns true for the App Home, and returns it. It does not open the App Home.
func (p *Person) WaitHome(ctx context.Context, match func(View) bool) (found View, err error) {
	err = p.client.Wait(ctx, func() (bool, error) {
		views, err := p.Views()
		if err != nil || views.Home == nil || !match(*views.Home) {
			return false, err
		}
		found = *views.Home
		return true, nil
	})
	return found, err
}

// Submit submits a form. Values are by block id and action id: a string, or a list of strings where several may be chosen.
func (p *Person) Submit(viewID string, values map[string]map[string]any) (a Answer, err error) {
	return a, p.client.do(http.MethodPost, "submit", map[string]any{"as": p.ID, "view_id": viewID, "values": values}, &a)
}

// Close closes a modal.
func (p *Person) Close(viewID string) error {
	return p.client.do(http.MethodPost, "close", map[string]any{"as": p.ID, "view_id": viewID}, nil)
}

// Home opens the App Home, which sends the app an app_home_opened event.
func (p *Person) Home() error {
	return p.client.do(http.MethodPost, "home", map[string]any{"as": p.ID}, nil)
}

// Reload reloads the person's Slack client, which removes the ephemeral messages.
func (p *Person) Reload() error {
	return p.client.do(http.MethodPost, "reload", map[string]any{"as": p.ID}, nil)
}

// Option is a choice that an app offers.
type Option struct {
	Text        string
	Value       string
	Description string
}

// Options returns the options that the app offers in an external select of a view for the typed text.
func (p *Person) Options(viewID, blockID, actionID, typed string) ([]Option, error) {
	var out struct {
		OK      *bool        `json:"ok"` // only there when it is false
		Code    string       `json:"error"`
		Message string       `json:"message"`
		Options []optionJSON `json:"options"`
		Groups  []struct {
			Options []optionJSON `json:"options"`
		} `json:"option_groups"`
	}
	in := map[string]any{"as": p.ID, "view_id": viewID, "block_id": blockID, "action_id": actionID, "value": typed}
	if err := p.client.do(http.MethodPost, "options", in, &out); err != nil {
		return nil, err
	}
	if out.OK != nil && !*out.OK {
		return nil, &Error{Status: http.StatusOK, Code: out.Code, Message: out.Message}
	}
	all := out.Options
	for _, g := range out.Groups {
		all = append(all, g.Options...)
	}
	options := make([]Option, len(all))
	for i, o := range all {
		options[i] = o.option()
	}
	return options, nil
}

// SlackCalls returns counts of the app's calls and of the envelopes that it was sent.
func (c *Client) SlackCalls() (calls slack.Calls, err error) {
	return calls, c.do(http.MethodGet, "slack/calls", nil, &calls)
}

// SlackFaults returns the pending faults of the workspace.
func (c *Client) SlackFaults() ([]slack.Fault, error) {
	var out struct {
		Faults []slack.Fault `json:"faults"`
	}
	return out.Faults, c.do(http.MethodGet, "slack/faults", nil, &out)
}

// SetSlackFaults replaces the pending faults; without arguments it clears them.
func (c *Client) SetSlackFaults(faults ...slack.Fault) error {
	return c.do(http.MethodPut, "slack/faults", map[string]any{"faults": append([]slack.Fault{}, faults...)}, nil)
}

// Disconnect makes Slack close the app's connection: reason is warning, refresh_requested, link_disabled, or cut.
func (c *Client) Disconnect(reason string) error {
	return c.do(http.MethodPost, "slack/disconnect", map[string]any{"reason": reason}, nil)
}

// Redeliver makes Slack send an envelope once more, the last one if the id is empty.
func (c *Client) Redeliver(envelopeID string) error {
	return c.do(http.MethodPost, "slack/redeliver", map[string]any{"envelope_id": envelopeID}, nil)
}

// ---- The tenant ----

// User is an account of the tenant.
type User struct {
	ID                 string    `json:"id"`
	UPN                string    `json:"upn"`
	Name               string    `json:"name"`
	Mail               string    `json:"mail"`
	Enabled            bool      `json:"enabled"`
	Guest              bool      `json:"guest"`
	Synced             bool      `json:"synced"`
	Title              string    `json:"title"`
	Department         string    `json:"department"`
	Manager            string    `json:"manager"` // object id
	Roles              []string  `json:"roles"`
	Eligible           []string  `json:"eligible"`
	Groups             []string  `json:"groups"`
	SessionsValidFrom  time.Time `json:"sessions_valid_from"`
	LastPasswordChange time.Time `json:"last_password_change"`
	DefaultMethod      string    `json:"default_method"`
	DefaultMethodID    string    `json:"default_method_id"`
	PerUserMFA         string    `json:"per_user_mfa"`
	Methods            []Method  `json:"methods"`
}

// OfType returns the user's methods of one OData type, such as entra.TypePhone.
func (u User) OfType(odataType string) []Method {
	var found []Method
	for _, m := range u.Methods {
		if m.Type == odataType {
			found = append(found, m)
		}
	}
	return found
}

// Method is an authentication method in the tenant. Properties are its other properties, by their names in Graph.
type Method struct {
	Type       string
	ID         string
	Properties map[string]any
}

// UnmarshalJSON reads a method; in JSON, type and id are among the properties.
func (m *Method) UnmarshalJSON(b []byte) error {
	if err := json.Unmarshal(b, &m.Properties); err != nil {
		return err
	}
	m.Type, _ = m.Properties["type"].(string)
	m.ID, _ = m.Properties["id"].(string)
	delete(m.Properties, "type")
	delete(m.Properties, "id")
	return nil
}

// Users returns everybody in the tenant.
func (c *Client) Users() (users []User, err error) {
	return users, c.do(http.MethodGet, "tenant/users", nil, &users)
}

// AddUser adds a user with these methods and without groups to the tenant. If id is empty, one is generated.
func (c *Client) AddUser(id, upn, name string, methods ...entra.Method) (u User, err error) {
	in := entra.Properties{{Name: "upn", Value: upn}, {Name: "name", Value: name}}
	if id != "" {
		in = in.With("id", id)
	}
	var list []entra.Properties
	for _, m := range methods {
		list = append(list, methodJSON(m))
	}
	if len(list) > 0 {
		in = in.With("methods", list)
	}
	return u, c.do(http.MethodPost, "tenant/users", in, &u)
}

// methodJSON converts a method to the form that this API takes.
func methodJSON(m entra.Method) entra.Properties {
	in := entra.Properties{{Name: "type", Value: m.Type}}
	if m.ID != "" {
		in = in.With("id", m.ID)
	}
	return append(in, m.Properties...)
}

func userPath(user string) string { return "tenant/users/" + url.PathEscape(user) }

// User returns one account, by object id or UPN.
func (c *Client) User(user string) (u User, err error) {
	return u, c.do(http.MethodGet, userPath(user), nil, &u)
}

// WaitUser waits until match returns true for an account, and returns it.
func (c *Client) WaitUser(ctx context.Context, user string, match func(User) bool) (found User, err error) {
	err = c.Wait(ctx, func() (bool, error) {
		var err error
		found, err = c.User(user)
		return err == nil && match(found), err
	})
	return found, err
}

// PatchUser changes an account directly in the tenant; the names are those of package entra's documentation ("enabled", "synced", …).
func (c *Client) PatchUser(user string, changes map[string]any) error {
	return c.do(http.MethodPatch, userPath(user), changes, nil)
}

// AddMethod adds a method to an account, as if the person had registered it.
func (c *Client) AddMethod(user string, m entra.Method) error {
	return c.do(http.MethodPost, userPath(user)+"/methods", methodJSON(m), nil)
}

// DeleteMethod deletes a method, even if it is the default.
func (c *Client) DeleteMethod(user, id string) error {
	return c.do(http.MethodDelete, userPath(user)+"/methods/"+url.PathEscape(id), nil, nil)
}

// Secrets are the secrets of an account that were set through Graph; no other call returns them. They are for tests that search for leaks.
type Secrets struct {
	Password string `json:"password"`
	Pass     string `json:"pass"` // the value of the current Temporary Access Pass
}

// Secrets returns the secrets of an account.
func (c *Client) Secrets(user string) (s Secrets, err error) {
	return s, c.do(http.MethodGet, userPath(user)+"/secrets", nil, &s)
}

// Grant returns the application permissions of the app.
func (c *Client) Grant() ([]string, error) {
	var out struct {
		Roles []string `json:"roles"`
	}
	return out.Roles, c.do(http.MethodGet, "grant", nil, &out)
}

// SetGrant gives the app exactly these application permissions. It takes effect at once, without a new token.
func (c *Client) SetGrant(permissions ...string) error {
	return c.do(http.MethodPut, "grant", map[string]any{"roles": append([]string{}, permissions...)}, nil)
}

// EntraCalls returns the app's calls and the permissions that they required.
func (c *Client) EntraCalls() (calls entra.Calls, err error) {
	return calls, c.do(http.MethodGet, "entra/calls", nil, &calls)
}

// EntraFaults returns the pending faults of the tenant.
func (c *Client) EntraFaults() ([]entra.Fault, error) {
	var out struct {
		Faults []entra.Fault `json:"faults"`
	}
	return out.Faults, c.do(http.MethodGet, "entra/faults", nil, &out)
}

// SetEntraFaults replaces the pending faults; without arguments it clears them.
func (c *Client) SetEntraFaults(faults ...entra.Fault) error {
	return c.do(http.MethodPut, "entra/faults", map[string]any{"faults": append([]entra.Fault{}, faults...)}, nil)
}
