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

// Client does through the sandbox's JSON API what people, administrators and bad luck do. It works in the sandbox's own process and
// in any other. Its methods may be called from several goroutines.
type Client struct {
	base   string
	http   *http.Client // for one question and its answer
	stream *http.Client // for the stream, which has no end

	mu     sync.Mutex
	people []Profile // fetched once: who is meant by <@U…>
}

// NewClient returns a client of the sandbox at base, such as http://127.0.0.1:8080.
func NewClient(base string) *Client {
	return &Client{base: strings.TrimRight(base, "/") + "/sandbox/", http: &http.Client{Timeout: 30 * time.Second}, stream: &http.Client{}}
}

// Error is a refusal of the sandbox itself: something that could not be done at all.
type Error struct {
	Status  int    // of HTTP
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

// Wait calls done at once, and again after every change in the sandbox, until it reports true, fails, or ctx ends.
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

// Profile is a member of the workspace, as everybody sees them.
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

// profile is who somebody is; somebody unknown is called by their id.
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

// name is what people call somebody, for texts that mention an id.
func (c *Client) name(id string) string { return c.profile(id).Name }

// As returns somebody's hands and eyes: person is a Slack user id.
func (c *Client) As(person string) *Person { return &Person{c, person} }

// Person is one member of the workspace at work.
type Person struct {
	c  *Client
	ID string
}

// Answer is what became of something a person did with the app. OK is false when Slack would have shown a failure, such as
// operation_timeout or dispatch_failed; then Err and Message say which. Errors are those that stand beside the fields of a form.
// Envelope is what the app was sent it in.
type Answer struct {
	OK       bool              `json:"ok"`
	Err      string            `json:"error"`
	Message  string            `json:"message"`
	Errors   map[string]string `json:"errors"`
	Response json.RawMessage   `json:"response"` // what the app put into its acknowledgement of a command
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
	With    string   `json:"with"` // the other side of a direct message
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
	return channels, p.c.do(http.MethodGet, p.query("channels"), nil, &channels)
}

// DM returns the id of the person's direct message with the app, or "" while there is none.
func (p *Person) DM() (string, error) {
	channels, err := p.Channels()
	for _, c := range channels {
		if c.Kind == "dm" && p.c.profile(c.With).Bot {
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
	err = p.c.do(http.MethodGet, p.query("messages", "channel", channel, "oldest", ts), nil, &messages)
	for i := range messages {
		messages[i].name = p.c.name
	}
	return messages, err
}

// WaitMessage returns the newest message in the channel, as the person sees it, for which match reports true, as soon as there is
// one.
func (p *Person) WaitMessage(ctx context.Context, channel string, match func(Message) bool) (found Message, err error) {
	var seen []Message
	err = p.c.Wait(ctx, func() (bool, error) {
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

// texts shows messages in an error.
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
	return a, p.c.do(http.MethodPost, "command", map[string]any{"as": p.ID, "channel": channel, "text": text}, &a)
}

// Press presses a button of a message. The value tells buttons of the same action id apart; it may be empty.
func (p *Person) Press(channel, ts, actionID, value string) (a Answer, err error) {
	in := map[string]any{"as": p.ID, "channel": channel, "ts": ts, "action_id": actionID}
	if value != "" {
		in["value"] = value
	}
	return a, p.c.do(http.MethodPost, "press", in, &a)
}

// Choose chooses in a select, or in a menu, of a message. Selected is the value of an option, or a list of them.
func (p *Person) Choose(channel, ts, actionID string, selected any) (a Answer, err error) {
	return a, p.c.do(http.MethodPost, "press", map[string]any{"as": p.ID, "channel": channel, "ts": ts, "action_id": actionID, "selected": selected}, &a)
}

// PressView presses a button of a modal or of the App Home. The value tells buttons of the same action id apart; it may be empty.
func (p *Person) PressView(viewID, actionID, value string) (a Answer, err error) {
	in := map[string]any{"as": p.ID, "view_id": viewID, "action_id": actionID}
	if value != "" {
		in["value"] = value
	}
	return a, p.c.do(http.MethodPost, "press", in, &a)
}

// ChooseView chooses in a select of a modal or of the App Home. Selected is the value of an option, or a list of them.
func (p *Person) ChooseView(viewID, actionID string, selected any) (a Answer, err error) {
	return a, p.c.do(http.MethodPost, "press", map[string]any{"as": p.ID, "view_id": viewID, "action_id": actionID, "selected": selected}, &a)
}

// Views are what a person has open: modals, the top one last, and the App Home, nil before the app has published one.
type Views struct {
	Modals []View `json:"modals"`
	Home   *View  `json:"home"`
}

// Top returns the modal that is in front.
func (v Views) Top() (View, bool) {
	if len(v.Modals) == 0 {
		return View{}, false
	}
	return v.Modals[len(v.Modals)-1], true
}

// Views returns what the person has open.
func (p *Person) Views() (v Views, err error) {
	err = p.c.do(http.MethodGet, p.query("views"), nil, &v)
	for i := range v.Modals {
		v.Modals[i].name = p.c.name
	}
	if v.Home != nil {
		v.Home.name = p.c.name
	}
	return v, err
}

// WaitModal returns the modal in front as soon as match reports true for it.
func (p *Person) WaitModal(ctx context.Context, match func(View) bool) (found View, err error) {
	seen := "no modal"
	err = p.c.Wait(ctx, func() (bool, error) {
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

// WaitHome opens nothing, but returns the App Home as soon as match reports true for it.
func (p *Person) WaitHome(ctx context.Context, match func(View) bool) (found View, err error) {
	err = p.c.Wait(ctx, func() (bool, error) {
		views, err := p.Views()
		if err != nil || views.Home == nil || !match(*views.Home) {
			return false, err
		}
		found = *views.Home
		return true, nil
	})
	return found, err
}

// Submit sends a form. Values are by block id and action id: a string, or a list of strings where several may be chosen.
func (p *Person) Submit(viewID string, values map[string]map[string]any) (a Answer, err error) {
	return a, p.c.do(http.MethodPost, "submit", map[string]any{"as": p.ID, "view_id": viewID, "values": values}, &a)
}

// Close closes a modal.
func (p *Person) Close(viewID string) error {
	return p.c.do(http.MethodPost, "close", map[string]any{"as": p.ID, "view_id": viewID}, nil)
}

// Home opens the App Home, which the app is told of.
func (p *Person) Home() error {
	return p.c.do(http.MethodPost, "home", map[string]any{"as": p.ID}, nil)
}

// Reload reloads the person's Slack, which forgets the ephemeral messages.
func (p *Person) Reload() error {
	return p.c.do(http.MethodPost, "reload", map[string]any{"as": p.ID}, nil)
}

// Option is a choice that an app offers.
type Option struct {
	Text        string
	Value       string
	Description string
}

// Options returns what the app offers in an external select of a view when somebody has typed so much.
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
	if err := p.c.do(http.MethodPost, "options", in, &out); err != nil {
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

// SlackCalls returns what the app has called and been sent.
func (c *Client) SlackCalls() (calls slack.Calls, err error) {
	return calls, c.do(http.MethodGet, "slack/calls", nil, &calls)
}

// SlackFaults returns the faults that still wait in the workspace.
func (c *Client) SlackFaults() ([]slack.Fault, error) {
	var out struct {
		Faults []slack.Fault `json:"faults"`
	}
	return out.Faults, c.do(http.MethodGet, "slack/faults", nil, &out)
}

// SetSlackFaults puts these faults in the place of all that waited; none clears them.
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

// User is an account of the tenant, as it really is.
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

// Method is an authentication method as the tenant holds it. Properties are the others that Graph shows, by their names there.
type Method struct {
	Type       string
	ID         string
	Properties map[string]any
}

// UnmarshalJSON reads a method in which type and id stand among the properties.
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

// AddUser puts somebody new into the tenant, with these methods, a member of no group. An empty id is made up.
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

// methodJSON is a method as this API takes it.
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

// WaitUser returns an account as soon as match reports true for it.
func (c *Client) WaitUser(ctx context.Context, user string, match func(User) bool) (found User, err error) {
	err = c.Wait(ctx, func() (bool, error) {
		var err error
		found, err = c.User(user)
		return err == nil && match(found), err
	})
	return found, err
}

// PatchUser changes an account behind everybody's back; the names are those of package entra's documentation ("enabled", "synced", …).
func (c *Client) PatchUser(user string, changes map[string]any) error {
	return c.do(http.MethodPatch, userPath(user), changes, nil)
}

// AddMethod gives an account a method, as if the person had registered it.
func (c *Client) AddMethod(user string, m entra.Method) error {
	return c.do(http.MethodPost, userPath(user)+"/methods", methodJSON(m), nil)
}

// DeleteMethod takes a method away, whatever the default is.
func (c *Client) DeleteMethod(user, id string) error {
	return c.do(http.MethodDelete, userPath(user)+"/methods/"+url.PathEscape(id), nil, nil)
}

// Secrets are what was set for an account through Graph and is shown nowhere else: for tests that search for leaks.
type Secrets struct {
	Password string `json:"password"`
	Pass     string `json:"pass"` // the value of the Temporary Access Pass that is there
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

// SetGrant gives the app these application permissions and no others. That bites at once, without a new token.
func (c *Client) SetGrant(permissions ...string) error {
	return c.do(http.MethodPut, "grant", map[string]any{"roles": append([]string{}, permissions...)}, nil)
}

// EntraCalls returns what the app has called, and which permissions that demanded.
func (c *Client) EntraCalls() (calls entra.Calls, err error) {
	return calls, c.do(http.MethodGet, "entra/calls", nil, &calls)
}

// EntraFaults returns the faults that still wait in the tenant.
func (c *Client) EntraFaults() ([]entra.Fault, error) {
	var out struct {
		Faults []entra.Fault `json:"faults"`
	}
	return out.Faults, c.do(http.MethodGet, "entra/faults", nil, &out)
}

// SetEntraFaults puts these faults in the place of all that waited; none clears them.
func (c *Client) SetEntraFaults(faults ...entra.Fault) error {
	return c.do(http.MethodPut, "entra/faults", map[string]any{"faults": append([]entra.Fault{}, faults...)}, nil)
}
