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

// deed is what a person did, as it lies in the inbox: only what carrying it
// out needs.
type deed struct {
	Command     string         `json:"command,omitempty"` // name in the table, with Text behind it
	Text        string         `json:"text,omitempty"`
	Press       string         `json:"press,omitempty"` // or the action of a button, about Request
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
	pressApprove = "approve"
	pressDeny    = "deny"
	pressCancel  = "cancel"
	pressHalt    = "halt"
	pressDetails = "details"
	pressReveal  = "reveal"  // the requester opens a temporary password or a pass
	pressAttest  = "attest"  // somebody did by hand what was handed off
	pressConfirm = "confirm" // somebody else confirms it
	pressRetract = "retract" // or says that it is not so

	pressGlass        = "break-glass"   // run it before it is approved
	pressJustified    = "justified"     // somebody else reviews that
	pressNotJustified = "not-justified" // or finds that it should have waited

	pressAgain  = "again"     // the same request once more
	pressOpen   = "open-form" // the form again, after a trigger came too late
	pressChoose = "choose"    // one of several people; a number follows
	viewForm    = "form"
	viewDeny    = "deny-form"
	viewGlass   = "glass-form"
	viewReview  = "review-form"
)

// lane is what becomes of an envelope.
type lane string

const (
	laneNone    lane = "none"    // acked, and nothing else
	laneAnswer  lane = "answer"  // answered in the ack
	laneForm    lane = "form"    // the form of a command opens at once, because the trigger dies
	laneDeny    lane = "deny"    // so does the form for a denial's reason
	laneDetails lane = "details" // and these views
	laneSecret  lane = "secret"
	laneGlass   lane = "glass"  // why it cannot wait for an approval
	laneReview  lane = "review" // what a review says
	laneHome    lane = "home"   // the App Home is drawn
	laneDo      lane = "do"     // into the inbox, and only then acked
)

// errand is an envelope once it was looked at.
type errand struct {
	lane    lane
	odd     string // with laneNone: what is wrong with it, for the log
	deed    deed
	input   commands.Input // with laneForm: what is known already
	trigger string
	answer  any    // with laneAnswer: the ack's payload; with laneDo: that of an ack without the inbox's word
	sorry   string // with laneDo: what its author is told without the inbox's word, where no payload can tell it
}

// arrive is the first look at an envelope. It is quick: Slack waits three
// seconds for the ack, and a trigger lives no longer.
func (b *Bot) arrive(ctx context.Context, evt socketmode.Event) {
	id, e := evt.Request.EnvelopeID, b.sort(evt.Data)
	d := e.deed
	if d.Foreign != "" {
		b.Log.Warn("something from elsewhere is refused", "why", d.Foreign, "user", d.User, "envelope", id)
	}
	if e.odd != "" {
		b.Log.Warn("an envelope is not what Slack sends, so nothing is done", "why", e.odd, "envelope", id)
	}
	if e.lane == laneDo {
		switch err := b.keep(ctx, id, d); {
		case err != nil && e.answer != nil:
			b.ack(ctx, id, e.answer)
		case err != nil:
			b.ack(ctx, id, nil)
			b.whisper(ctx, d, e.sorry)
		default:
			b.ack(ctx, id, nil)
		}
		return
	}
	b.ack(ctx, id, e.answer)
	switch e.lane {
	case laneForm:
		b.openForm(ctx, id, e.trigger, e.input, d)
	case laneDeny:
		b.openDeny(ctx, id, e.trigger, d)
	case laneDetails:
		b.openDetails(ctx, id, e.trigger, d)
	case laneSecret:
		b.openSecret(ctx, id, e.trigger, d)
	case laneGlass:
		b.openGlass(ctx, id, e.trigger, d)
	case laneReview:
		b.openReview(ctx, id, e.trigger, d)
	case laneHome:
		b.afterwards(id, func() { b.publishHome(ctx, d.User) })
	}
}

// sort decides what becomes of an envelope by looking at it alone. Whatever is
// in it, what comes out is small, its ids have the form of ids, and its button
// is one of ours; who did it, and whether they may, is looked up later.
func (b *Bot) sort(data any) errand {
	var e errand
	switch data := data.(type) {
	case slack.SlashCommand:
		if foreign := b.foreign(data.TeamID, data.TeamID, data.APIAppID, data.IsEnterpriseInstall); foreign != "" {
			name, _ := strings.CutPrefix(data.Command, "/"+b.Prefix)
			return b.turnedAway(foreign, deed{Command: name, User: data.UserID, Channel: data.ChannelID, ResponseURL: data.ResponseURL})
		}
		e = b.typed(data)
	case slack.InteractionCallback:
		switch foreign := b.foreign(data.Team.ID, data.User.TeamID, data.APIAppID, data.IsEnterpriseInstall); {
		case foreign != "":
			d := deed{User: data.User.ID, Channel: data.Channel.ID, ResponseURL: data.ResponseURL}
			if presses := data.ActionCallback.BlockActions; len(presses) > 0 {
				d.Press, d.Request = presses[0].ActionID, presses[0].Value
			}
			return b.turnedAway(foreign, d)
		case data.Type == slack.InteractionTypeBlockActions:
			e = b.pressed(data)
		case data.Type == slack.InteractionTypeViewSubmission:
			e = b.submitted(data)
		default:
			return errand{lane: laneNone}
		}
	case slackevents.EventsAPIEvent:
		home, ok := data.InnerEvent.Data.(*slackevents.AppHomeOpenedEvent)
		if !ok || home.Tab != "home" {
			return errand{lane: laneNone}
		}
		if foreign := b.foreign(data.TeamID, "", data.APIAppID, false); foreign != "" {
			return errand{lane: laneNone, odd: foreign}
		}
		e = errand{lane: laneHome, deed: deed{User: home.User}}
	default:
		return errand{lane: laneNone}
	}
	if e.lane == laneNone || e.lane == laneAnswer {
		return e
	}
	if wrong := e.deed.malformed(); wrong != "" {
		return errand{lane: laneNone, odd: wrong}
	}
	e.deed.ResponseURL = b.hook(e.deed.ResponseURL)
	return e
}

// The forms of Slack's ids and of ours.
var (
	userID    = regexp.MustCompile(`^[UW][A-Z0-9]{2,30}$`)
	channelID = regexp.MustCompile(`^[CDG][A-Z0-9]{2,30}$`)
	stamp     = regexp.MustCompile(`^[0-9]{1,16}\.[0-9]{1,10}$`)
	requestID = regexp.MustCompile(`^R-[0-9A-Z]{8}$`)
	choice    = regexp.MustCompile(`^` + pressChoose + `(:[0-9]{1,3})?$`)
	envelope  = regexp.MustCompile(`^[0-9A-Za-z_-]{1,100}$`)
)

// malformed says what in a deed has not the form that it always has.
func (d deed) malformed() string {
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

// maxTyped is more than any command that can be read, in bytes: no part of one
// is longer than a justification.
const maxTyped = 16 << 10

// turnedAway takes what nobody of ours did, so that it is refused and
// recorded. Only what has a form that we know goes into the record.
func (b *Bot) turnedAway(why string, d deed) errand {
	d.Foreign = why
	if c, ok := commands.Lookup(d.Command); !ok || c.Name != d.Command {
		d.Command = ""
	}
	if !slices.Contains(presses(), d.Press) {
		d.Press, d.Request = "", ""
	}
	known := func(form *regexp.Regexp, id string) string {
		if !form.MatchString(id) {
			return ""
		}
		return id
	}
	d.User, d.Channel, d.Request = known(userID, d.User), known(channelID, d.Channel), known(requestID, d.Request)
	d.ResponseURL = b.hook(d.ResponseURL)
	return errand{lane: laneDo, deed: d, sorry: stranger.Sentence}
}

// foreign says what is wrong with where an envelope comes from. A person's
// team that is absent is judged later, by users.info. Before Slack has said
// which app we are, everything is foreign.
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

// hook returns a response URL if it is one of Slack's, and nothing otherwise:
// what one person is told must not go anywhere else. See
// https://docs.slack.dev/interactivity/handling-user-interaction.
func (b *Bot) hook(to string) string {
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

// typed reads a slash command: it is answered at once when it cannot be
// read, asked about in a form when something is missing, done otherwise.
func (b *Bot) typed(s slack.SlashCommand) errand {
	name, ours := strings.CutPrefix(s.Command, "/"+b.Prefix)
	c, ok := commands.Lookup(name)
	if !ours || !ok {
		return errand{lane: laneAnswer, answer: whisperPayload(fmt.Sprintf("Countersign has no command %s. Type %s to see what there is.", commands.Plain(s.Command, 50), b.slash("help")))}
	}
	if len(s.Text) > maxTyped {
		return errand{lane: laneAnswer, answer: whisperPayload("That is too long to be read. Say it shorter, or name the ticket that has the rest.")}
	}
	echo := "You typed: " + s.Command + " " + asTyped(s.Text)
	in, problems := commands.Parse(c, s.Text)
	if len(problems) > 0 {
		return errand{lane: laneAnswer, answer: whisperPayload(said(problems), echo)}
	}
	d := deed{Command: c.Name, Text: in.String(), User: s.UserID, Channel: s.ChannelID, ResponseURL: s.ResponseURL}
	self := in.Target.Slack != "" && in.Target.Slack == s.UserID
	if len(commands.Missing(c, in, b.needs(c, self))) > 0 {
		return errand{lane: laneForm, deed: d, input: in, trigger: s.TriggerID}
	}
	return errand{lane: laneDo, deed: d, answer: whisperPayload(unconfirmed(b, "Your command"), echo)}
}

// presses are the buttons about a request.
func presses() []string {
	return []string{pressApprove, pressDeny, pressCancel, pressHalt, pressDetails, pressReveal, pressAttest, pressConfirm, pressRetract, pressAgain,
		pressGlass, pressJustified, pressNotJustified}
}

// pressed reads a press of a button.
func (b *Bot) pressed(i slack.InteractionCallback) errand {
	if len(i.ActionCallback.BlockActions) != 1 {
		return errand{lane: laneNone}
	}
	a := i.ActionCallback.BlockActions[0]
	d := deed{Press: a.ActionID, User: i.User.ID, Channel: i.Channel.ID, ResponseURL: i.ResponseURL}
	if i.Container.MessageTs != "" && i.Message.Timestamp == i.Container.MessageTs && has(i.Message.Blocks, a) {
		d.Card = approvals.Card{Channel: i.Channel.ID, TS: i.Container.MessageTs}
	}
	if in := i.Container.ChannelID; in != "" && in != i.Channel.ID {
		return errand{lane: laneNone, odd: "its message is in another channel than its press"}
	}
	e := errand{trigger: i.TriggerID}
	switch {
	case slices.Contains(presses(), a.ActionID):
		if a.Value == "" {
			return errand{lane: laneNone, odd: "it is about no request"}
		}
		d.Request, e.lane, e.sorry = a.Value, laneDo, unconfirmed(b, "Your press")
		switch a.ActionID {
		case pressDetails:
			e.lane = laneDetails
		case pressDeny:
			e.lane = laneDeny
		case pressReveal:
			e.lane = laneSecret
		case pressGlass:
			e.lane = laneGlass
		case pressJustified, pressNotJustified:
			e.lane = laneReview
		}
	case a.ActionID == pressOpen, choice.MatchString(a.ActionID):
		name, text, _ := strings.Cut(a.Value, " ")
		c, known := commands.Lookup(name)
		if !known || utf8.RuneCountInString(a.Value) > maxValue {
			return errand{lane: laneNone, odd: "it is about no command"}
		}
		d.Press, d.Command, d.Text = "", c.Name, text
		e.lane, e.sorry = laneDo, unconfirmed(b, "Your press")
		if a.ActionID == pressOpen {
			e.lane = laneForm
			e.input, _ = commands.Parse(c, text)
		}
	default: // a link, or a box that is read with its form
		return errand{lane: laneNone}
	}
	e.deed = d
	return e
}

// has says that a message has the button that is said to have been pressed.
func has(message slack.Blocks, pressed *slack.BlockAction) bool {
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

// submitted reads a form. What is wrong with it is said at its fields.
func (b *Bot) submitted(i slack.InteractionCallback) errand {
	var meta viewMeta
	if err := json.Unmarshal([]byte(i.View.PrivateMetadata), &meta); err != nil || i.View.State == nil {
		return errand{lane: laneNone, odd: "it is a form that is not ours"}
	}
	if tooMuch(i.View.State.Values) {
		return errand{lane: laneNone, odd: "its form holds more than it has room for"}
	}
	d := deed{User: i.User.ID, Channel: meta.Channel}
	first := ""
	switch i.View.CallbackID {
	case viewForm:
		c, ok := commands.Lookup(meta.Command)
		if !ok {
			return errand{lane: laneNone, odd: "it is the form of no command"}
		}
		in, wrong := b.filled(c, i.User.ID, meta.Self, i.View.State.Values)
		if len(wrong) > 0 {
			return errand{lane: laneAnswer, answer: slack.NewErrorsViewSubmissionResponse(wrong)}
		}
		d.Command, d.Text = c.Name, in.String()
		first = string(commands.FieldJustification)
	case viewDeny:
		if meta.Request == "" {
			return errand{lane: laneNone, odd: "it is about no request"}
		}
		d.Press, d.Request, d.Card = pressDeny, meta.Request, meta.Card
		d.Reason = commands.Plain(i.View.State.Values[blockReason][blockReason].Value, commands.MaxJustification)
		first = blockReason
	case viewGlass, viewReview:
		if meta.Request == "" {
			return errand{lane: laneNone, odd: "it is about no request"}
		}
		d.Press, d.Request, d.Card = pressGlass, meta.Request, meta.Card
		if i.View.CallbackID == viewReview {
			if d.Press = meta.Press; d.Press != pressJustified && d.Press != pressNotJustified {
				return errand{lane: laneNone, odd: "it is a review that says nothing"}
			}
		}
		d.Reason = commands.Plain(i.View.State.Values[blockReason][blockReason].Value, commands.MaxJustification)
		if d.Reason == "" && d.Press != pressJustified {
			return errand{lane: laneAnswer, answer: slack.NewErrorsViewSubmissionResponse(map[string]string{blockReason: "This is needed: whoever reads the record later must understand it."})}
		}
		first = blockReason
	default:
		return errand{lane: laneNone}
	}
	return errand{lane: laneDo, deed: d, answer: slack.NewErrorsViewSubmissionResponse(map[string]string{first: unconfirmed(b, "This")})}
}

// tooMuch says that a form came back with more than Slack lets people enter
// into one.
func tooMuch(values map[string]map[string]slack.BlockAction) bool {
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

// keep puts a deed into the inbox. Only then may it be acked.
func (b *Bot) keep(ctx context.Context, id string, d deed) error {
	raw, err := json.Marshal(d)
	if err != nil {
		return err
	}
	if err := b.Inbox.Put(context.WithoutCancel(ctx), id, raw); err != nil {
		b.Log.Error("a deed was not confirmed by the inbox, and its author was told", "envelope", id, "error", err)
		return err
	}
	return nil
}

// unconfirmed is for the one case in which we cannot know: it may have
// arrived or not.
func unconfirmed(b *Bot, what string) string {
	return fmt.Sprintf("%s could not be confirmed: Countersign's store does not answer. It may still be carried out. Look at %s in a minute before you try again. %s", what, b.slash("requests"), urgent)
}

// whisperPayload is an answer in an ack, to the author alone, a paragraph
// each. It is cut early, because Slack drops long acks in silence.
func whisperPayload(texts ...string) any {
	var lines []line
	for _, text := range texts {
		lines = append(lines, say("%s", commands.Plain(text, 600)))
	}
	return map[string]any{
		"response_type": slack.ResponseTypeEphemeral,
		"text":          fallback("%s", commands.Plain(texts[0], 600)),
		"blocks":        []slack.Block{paragraphs(lines...)},
	}
}

// said joins what is wrong with a line of text.
func said(problems []commands.Problem) string {
	var all []string
	for _, p := range problems {
		if !slices.Contains(all, p.Sentence) {
			all = append(all, p.Sentence)
		}
	}
	return strings.Join(all, " ")
}
