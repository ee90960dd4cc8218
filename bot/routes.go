package bot

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/slack-go/slack"
	"github.com/slack-go/slack/slackevents"
	"github.com/slack-go/slack/socketmode"

	"countersign/approvals"
	"countersign/commands"
)

// interaction is what a person did, in the form in which the inbox stores it:
// only what its execution needs.
type interaction struct {
	Command     string         `json:"command,omitempty"` // name in the table, with Text behind it
	Text        string         `json:"text,omitempty"`
	ActionID    string         `json:"press,omitempty"` // or the action of a button, about Request
	Request     string         `json:"request,omitempty"`
	Reason      string         `json:"reason,omitempty"`
	User        string         `json:"user"`
	Foreign     string         `json:"foreign,omitempty"` // why it comes from nobody of ours: it is only refused and recorded
	Channel     string         `json:"channel,omitempty"`
	Card        approvals.Card `json:"card,omitzero"` // the message whose button it was, to be redrawn; none where Slack does not show us that it has the button
	ResponseURL string         `json:"response_url,omitempty"`
}

// The actions of buttons and the callback ids of views.
const (
	actionApprove = "approve"
	actionDeny    = "deny"
	actionCancel  = "cancel"
	actionHalt    = "halt"
	actionDetails = "details"
	actionReveal  = "reveal"  // the requester opens a temporary password or a pass
	actionAttest  = "attest"  // somebody did by hand what was handed off
	actionConfirm = "confirm" // somebody else confirms it
	actionRetract = "retract" // or says that it is not so

	actionBreakGlass   = "break-glass"   // run it before it is approved
	actionJustified    = "justified"     // somebody else reviews that
	actionNotJustified = "not-justified" // or finds that it should have waited

	actionAgain    = "again"     // the same request once more
	actionOpen     = "open-form" // the form again, after a trigger came too late
	actionChoose   = "choose"    // one of several people; a number follows
	viewForm       = "form"
	viewDeny       = "deny-form"
	viewBreakGlass = "glass-form"
	viewReview     = "review-form"
)

// routeKind is how an envelope is handled.
type routeKind string

const (
	routeNone       routeKind = "none"    // acked, and nothing else
	routeAnswer     routeKind = "answer"  // answered in the ack
	routeForm       routeKind = "form"    // the form of a command opens at once, because the trigger dies
	routeDeny       routeKind = "deny"    // so does the form for a denial's reason
	routeDetails    routeKind = "details" // and these views
	routeSecret     routeKind = "secret"
	routeBreakGlass routeKind = "glass"  // why it cannot wait for an approval
	routeReview     routeKind = "review" // what a review says
	routeHome       routeKind = "home"   // the App Home is drawn
	routeStore      routeKind = "do"     // into the inbox, and only then acked
)

// route is an envelope after the first look at it.
type route struct {
	kind         routeKind
	malformed    string // with routeNone: what is wrong with it, for the log
	interaction  interaction
	input        commands.Input // with routeForm: what is known already
	trigger      string
	answer       any    // with routeAnswer: the ack's payload; with routeStore: that of an ack without the inbox's word
	notConfirmed string // with routeStore: what its author is told without the inbox's word, where no payload can tell it
}

// arrive handles a new envelope. It is quick, because Slack waits three seconds
// for the ack, and a trigger expires after the same time.
func (b *Bot) arrive(ctx context.Context, evt socketmode.Event) {
	id, e := evt.Request.EnvelopeID, b.routeOf(evt.Data)
	d := e.interaction
	if d.Foreign != "" {
		b.Log.Warn("something from elsewhere is refused", "why", d.Foreign, "user", d.User, "envelope", id)
	}
	if e.malformed != "" {
		b.Log.Warn("an envelope is not what Slack sends, so nothing is done", "why", e.malformed, "envelope", id)
	}
	if e.kind == routeStore {
		switch err := b.putInInbox(ctx, id, d); {
		case err != nil && e.answer != nil:
			b.ack(ctx, id, e.answer)
		case err != nil:
			b.ack(ctx, id, nil)
			b.replyPrivately(ctx, d, e.notConfirmed)
		default:
			b.ack(ctx, id, nil)
		}
		return
	}
	b.ack(ctx, id, e.answer)
	switch e.kind {
	case routeForm:
		b.openForm(ctx, id, e.trigger, e.input, d)
	case routeDeny:
		b.openDeny(ctx, id, e.trigger, d)
	case routeDetails:
		b.openDetails(ctx, id, e.trigger, d)
	case routeSecret:
		b.openSecret(ctx, id, e.trigger, d)
	case routeBreakGlass:
		b.openBreakGlass(ctx, id, e.trigger, d)
	case routeReview:
		b.openReview(ctx, id, e.trigger, d)
	case routeHome:
		b.runInBackground(id, func() { b.publishHome(ctx, d.User) })
	}
}

// routeOf chooses the route of an envelope from its content alone. The result is
// small, its ids have the form of ids, and its action is one of ours. Who sent
// it, and whether they may, is looked up later.
func (b *Bot) routeOf(data any) route {
	var e route
	switch data := data.(type) {
	case slack.SlashCommand:
		if foreign := b.foreign(data.TeamID, data.TeamID, data.APIAppID, data.IsEnterpriseInstall); foreign != "" {
			name, _ := strings.CutPrefix(data.Command, "/"+b.Prefix)
			return b.refuseRoute(foreign, interaction{Command: name, User: data.UserID, Channel: data.ChannelID, ResponseURL: data.ResponseURL})
		}
		e = b.routeCommand(data)
	case slack.InteractionCallback:
		switch foreign := b.foreign(data.Team.ID, data.User.TeamID, data.APIAppID, data.IsEnterpriseInstall); {
		case foreign != "":
			d := interaction{User: data.User.ID, Channel: data.Channel.ID, ResponseURL: data.ResponseURL}
			if presses := data.ActionCallback.BlockActions; len(presses) > 0 {
				d.ActionID, d.Request = presses[0].ActionID, presses[0].Value
			}
			return b.refuseRoute(foreign, d)
		case data.Type == slack.InteractionTypeBlockActions:
			e = b.routeAction(data)
		case data.Type == slack.InteractionTypeViewSubmission:
			e = b.routeSubmission(data)
		default:
			return route{kind: routeNone}
		}
	case slackevents.EventsAPIEvent:
		home, ok := data.InnerEvent.Data.(*slackevents.AppHomeOpenedEvent)
		if !ok || home.Tab != "home" {
			return route{kind: routeNone}
		}
		if foreign := b.foreign(data.TeamID, "", data.APIAppID, false); foreign != "" {
			return route{kind: routeNone, malformed: foreign}
		}
		e = route{kind: routeHome, interaction: interaction{User: home.User}}
	default:
		return route{kind: routeNone}
	}
	if e.kind == routeNone || e.kind == routeAnswer {
		return e
	}
	if wrong := e.interaction.problem(); wrong != "" {
		return route{kind: routeNone, malformed: wrong}
	}
	e.interaction.ResponseURL = b.responseURL(e.interaction.ResponseURL)
	return e
}

// The forms of Slack's ids and of ours.
var (
	userID    = regexp.MustCompile(`^[UW][A-Z0-9]{2,30}$`)
	channelID = regexp.MustCompile(`^[CDG][A-Z0-9]{2,30}$`)
	stamp     = regexp.MustCompile(`^[0-9]{1,16}\.[0-9]{1,10}$`)
	requestID = regexp.MustCompile(`^R-[0-9A-Z]{8}$`)
	choice    = regexp.MustCompile(`^` + actionChoose + `(:[0-9]{1,3})?$`)
	envelope  = regexp.MustCompile(`^[0-9A-Za-z_-]{1,100}$`)
)

// problem says which part of an interaction does not have its usual form.
func (d interaction) problem() string {
	fits := func(form *regexp.Regexp, id string) bool { return id == "" || form.MatchString(id) }
	switch {
	case !userID.MatchString(d.User):
		return "its author is nobody"
	case !fits(channelID, d.Channel):
		return "it names a channel that cannot be one"
	case !fits(requestID, d.Request):
		return "it names a request that cannot be one"
	case d.Card != (approvals.Card{}) && (d.Card.Channel == "" || d.Card.TS == "" || !fits(channelID, d.Card.Channel) || !fits(stamp, d.Card.TS)):
		return "it names a message that cannot be one"
	case len(d.Text) > maxTyped || len(d.Reason) > maxTyped:
		return "it is too long"
	}
	return ""
}

// maxTyped is longer than any valid command, in bytes: no part of a command is
// longer than a justification.
const maxTyped = 16 << 10

// refuseRoute is the route of an envelope from somebody outside, which is
// refused and recorded. Only fields with a known form are recorded.
func (b *Bot) refuseRoute(why string, d interaction) route {
	d.Foreign = why
	if c, ok := commands.Lookup(d.Command); !ok || c.Name != d.Command {
		d.Command = ""
	}
	if !slices.Contains(actionIDs(), d.ActionID) {
		d.ActionID, d.Request = "", ""
	}
	known := func(form *regexp.Regexp, id string) string {
		if !form.MatchString(id) {
			return ""
		}
		return id
	}
	d.User, d.Channel, d.Request = known(userID, d.User), known(channelID, d.Channel), known(requestID, d.Request)
	d.ResponseURL = b.responseURL(d.ResponseURL)
	return route{kind: routeStore, interaction: d, notConfirmed: errOtherWorkspace.Sentence}
}

// foreign says why an envelope does not come from our workspace and app. If a
// person's team is absent, users.info decides later. Until Slack has said which
// app we are, every envelope is foreign.
func (b *Bot) foreign(team, userTeam, app string, organisation bool) string {
	ours, _ := b.appID.Load().(string)
	switch {
	case team != b.Team:
		return "it came from workspace " + commands.Plain(team, 30)
	case userTeam != "" && userTeam != b.Team:
		return "its author is from workspace " + commands.Plain(userTeam, 30)
	case ours == "" || app != ours:
		return "it was meant for app " + commands.Plain(app, 30)
	case organisation:
		return "it came through an installation for a whole organisation"
	}
	return ""
}

// responsePath is the path that Slack gives to the response URL of a command, a
// button or a shortcut: the workspace, a number and a secret follow. Slack's
// hosts serve other things too, incoming webhooks and the Web API among them.
var responsePath = regexp.MustCompile(`^/(commands|actions|app)/[A-Z0-9]{2,30}/[0-9A-Za-z_-]{1,100}/[0-9A-Za-z_-]{1,200}$`)

// responseURL returns a response URL if it is one of Slack's, and nothing
// otherwise, because an answer to one person must not be sent elsewhere. See
// https://docs.slack.dev/interactivity/handling-user-interaction.
func (b *Bot) responseURL(to string) string {
	u, err := url.Parse(to)
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" || !responsePath.MatchString(u.EscapedPath()) {
		return ""
	}
	if u.Scheme == "https" && u.Host == "hooks.slack.com" {
		return to
	}
	// Another Slack than the usual one, such as GovSlack.
	if home, err := url.Parse(b.APIURL); err == nil && home.Hostname() != "" && u.Scheme == home.Scheme &&
		slices.Contains([]string{home.Hostname(), "hooks." + home.Hostname()}, u.Hostname()) {
		return to
	}
	return ""
}

// routeCommand routes a slash command: it is answered at once if it cannot be
// parsed, opens a form if something is missing, and is stored otherwise.
func (b *Bot) routeCommand(s slack.SlashCommand) route {
	name, ours := strings.CutPrefix(s.Command, "/"+b.Prefix)
	c, ok := commands.Lookup(name)
	if !ours || !ok {
		return route{kind: routeAnswer, answer: ephemeralPayload(fmt.Sprintf("Countersign has no command %s. Type %s to see what there is.", commands.Plain(s.Command, 50), b.slash("help")))}
	}
	if len(s.Text) > maxTyped {
		return route{kind: routeAnswer, answer: ephemeralPayload("That is too long. Shorten it, or name the ticket that has the rest.")}
	}
	echo := "You typed: " + s.Command + " " + withoutMarkup(s.Text)
	in, problems := commands.Parse(c, s.Text)
	if len(problems) > 0 {
		return route{kind: routeAnswer, answer: ephemeralPayload(problemSentences(problems), echo)}
	}
	d := interaction{Command: c.Name, Text: in.String(), User: s.UserID, Channel: s.ChannelID, ResponseURL: s.ResponseURL}
	self := in.Target.Slack != "" && in.Target.Slack == s.UserID
	if len(commands.Missing(c, in, b.needs(c, self))) > 0 {
		return route{kind: routeForm, interaction: d, input: in, trigger: s.TriggerID}
	}
	return route{kind: routeStore, interaction: d, answer: ephemeralPayload(unconfirmedSentence(b, "Your command"), echo)}
}

// actionIDs are the ids of the buttons about a request.
func actionIDs() []string {
	return []string{actionApprove, actionDeny, actionCancel, actionHalt, actionDetails, actionReveal, actionAttest, actionConfirm, actionRetract, actionAgain,
		actionBreakGlass, actionJustified, actionNotJustified}
}

// routeAction routes a button click.
func (b *Bot) routeAction(i slack.InteractionCallback) route {
	if len(i.ActionCallback.BlockActions) != 1 {
		return route{kind: routeNone}
	}
	a := i.ActionCallback.BlockActions[0]
	d := interaction{ActionID: a.ActionID, User: i.User.ID, Channel: i.Channel.ID, ResponseURL: i.ResponseURL}
	if i.Container.MessageTs != "" && i.Message.Timestamp == i.Container.MessageTs && containsAction(i.Message.Blocks, a) {
		d.Card = approvals.Card{Channel: i.Channel.ID, TS: i.Container.MessageTs}
	}
	if in := i.Container.ChannelID; in != "" && in != i.Channel.ID {
		return route{kind: routeNone, malformed: "its message is in another channel than its press"}
	}
	e := route{trigger: i.TriggerID}
	switch {
	case slices.Contains(actionIDs(), a.ActionID):
		if a.Value == "" {
			return route{kind: routeNone, malformed: "it is about no request"}
		}
		d.Request, e.kind, e.notConfirmed = a.Value, routeStore, unconfirmedSentence(b, "Your press")
		switch a.ActionID {
		case actionDetails:
			e.kind = routeDetails
		case actionDeny:
			e.kind = routeDeny
		case actionReveal:
			e.kind = routeSecret
		case actionBreakGlass:
			e.kind = routeBreakGlass
		case actionJustified, actionNotJustified:
			e.kind = routeReview
		}
	case a.ActionID == actionOpen, choice.MatchString(a.ActionID):
		name, text, _ := strings.Cut(a.Value, " ")
		c, known := commands.Lookup(name)
		if !known || utf8.RuneCountInString(a.Value) > maxValue {
			return route{kind: routeNone, malformed: "it is about no command"}
		}
		d.ActionID, d.Command, d.Text = "", c.Name, text
		e.kind, e.notConfirmed = routeStore, unconfirmedSentence(b, "Your press")
		if a.ActionID == actionOpen {
			e.kind = routeForm
			e.input, _ = commands.Parse(c, text)
		}
	default: // a link, or a box that is read with its form
		return route{kind: routeNone}
	}
	e.interaction = d
	return e
}

// containsAction reports whether a message has the button that was reportedly
// clicked.
func containsAction(message slack.Blocks, pressed *slack.BlockAction) bool {
	for _, block := range message.BlockSet {
		row, ok := block.(*slack.ActionBlock)
		if !ok || row.Elements == nil {
			continue
		}
		for _, e := range row.Elements.ElementSet {
			if b, ok := e.(*slack.ButtonBlockElement); ok && b.ActionID == pressed.ActionID && b.Value == pressed.Value {
				return true
			}
		}
	}
	return false
}

// routeSubmission routes a submitted form. Mistakes are shown at their fields.
func (b *Bot) routeSubmission(i slack.InteractionCallback) route {
	var meta viewMeta
	if err := json.Unmarshal([]byte(i.View.PrivateMetadata), &meta); err != nil || i.View.State == nil {
		return route{kind: routeNone, malformed: "it is a form that is not ours"}
	}
	if isTooLong(i.View.State.Values) {
		return route{kind: routeNone, malformed: "its form holds more than it has room for"}
	}
	d := interaction{User: i.User.ID, Channel: meta.Channel}
	first := ""
	switch i.View.CallbackID {
	case viewForm:
		c, ok := commands.Lookup(meta.Command)
		if !ok {
			return route{kind: routeNone, malformed: "it is the form of no command"}
		}
		in, wrong := b.readForm(c, i.User.ID, meta.Self, i.View.State.Values)
		if len(wrong) > 0 {
			return route{kind: routeAnswer, answer: slack.NewErrorsViewSubmissionResponse(wrong)}
		}
		d.Command, d.Text = c.Name, in.String()
		first = string(commands.FieldJustification)
	case viewDeny:
		if meta.Request == "" {
			return route{kind: routeNone, malformed: "it is about no request"}
		}
		d.ActionID, d.Request, d.Card = actionDeny, meta.Request, meta.Card
		d.Reason = commands.Plain(i.View.State.Values[blockReason][blockReason].Value, commands.MaxJustification)
		first = blockReason
	case viewBreakGlass, viewReview:
		if meta.Request == "" {
			return route{kind: routeNone, malformed: "it is about no request"}
		}
		d.ActionID, d.Request, d.Card = actionBreakGlass, meta.Request, meta.Card
		if i.View.CallbackID == viewReview {
			if d.ActionID = meta.ActionID; d.ActionID != actionJustified && d.ActionID != actionNotJustified {
				return route{kind: routeNone, malformed: "it is a review that says nothing"}
			}
		}
		d.Reason = commands.Plain(i.View.State.Values[blockReason][blockReason].Value, commands.MaxJustification)
		if d.Reason == "" && d.ActionID != actionJustified {
			return route{kind: routeAnswer, answer: slack.NewErrorsViewSubmissionResponse(map[string]string{blockReason: "Please fill this in. The auditors read it."})}
		}
		first = blockReason
	default:
		return route{kind: routeNone}
	}
	return route{kind: routeStore, interaction: d, answer: slack.NewErrorsViewSubmissionResponse(map[string]string{first: unconfirmedSentence(b, "This")})}
}

// isTooLong reports whether a form contains more than Slack lets people enter.
func isTooLong(values map[string]map[string]slack.BlockAction) bool {
	const most = 50 // boxes: one a block
	for _, boxes := range values {
		if len(boxes) > most {
			return true
		}
		for _, box := range boxes {
			if max(len(box.Value), len(box.SelectedOption.Value), len(box.SelectedUser), len(box.SelectedOptions)) > maxTyped {
				return true
			}
		}
	}
	return len(values) > most
}

// putInInbox stores an interaction in the inbox. It may be acked only after
// that.
func (b *Bot) putInInbox(ctx context.Context, id string, d interaction) error {
	raw, err := json.Marshal(d)
	if err != nil {
		return err
	}
	if err := b.Inbox.Put(context.WithoutCancel(ctx), id, raw); err != nil {
		b.Log.Error("an interaction was not confirmed by the inbox; its author was told", "envelope", id, "error", err)
		return err
	}
	return nil
}

// unconfirmedSentence is for an interaction that may or may not have been
// stored.
func unconfirmedSentence(b *Bot, what string) string {
	return fmt.Sprintf("%s could not be confirmed: Countersign's store does not answer. It may still be carried out. Look at %s in a minute before you try again. %s", what, b.slash("requests"), urgent)
}

// ephemeralPayload is an ephemeral answer in an ack, one paragraph per text. It
// is cut early, because Slack silently drops long acks.
func ephemeralPayload(texts ...string) any {
	var lines []line
	for _, text := range texts {
		lines = append(lines, textLine("%s", commands.Plain(text, 600)))
	}
	return map[string]any{
		"response_type": slack.ResponseTypeEphemeral,
		"text":          fallback("%s", commands.Plain(texts[0], 600)),
		"blocks":        []slack.Block{paragraphs(lines...)},
	}
}

// problemSentences joins the problems of a line of text.
func problemSentences(problems []commands.Problem) string {
	var all []string
	for _, p := range problems {
		if !slices.Contains(all, p.Sentence) {
			all = append(all, p.Sentence)
		}
	}
	return strings.Join(all, " ")
}
