package bot

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

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
	Card        approvals.Card `json:"card,omitzero"` // the message whose button it was
	ResponseURL string         `json:"response_url,omitempty"`
}

// The actions of buttons and the callback ids of views.
const (
	pressApprove = "approve"
	pressDeny    = "deny"
	pressCancel  = "cancel"
	pressHalt    = "halt"
	pressDetails = "details"
	pressReveal  = "reveal"    // the requester opens a temporary password or a pass
	pressAttest  = "attest"    // somebody did by hand what was handed off
	pressConfirm = "confirm"   // somebody else confirms it
	pressRetract = "retract"   // or says that it is not so
	pressAgain   = "again"     // the same request once more
	pressOpen    = "open-form" // the form again, after a trigger came too late
	pressChoose  = "choose"    // one of several people; a number follows
	viewForm     = "form"
	viewDeny     = "deny-form"
)

// arrive is the first look at an envelope. It is quick: Slack waits three
// seconds for the ack, and a trigger lives no longer.
func (b *Bot) arrive(ctx context.Context, evt socketmode.Event) {
	id := evt.Request.EnvelopeID
	switch data := evt.Data.(type) {
	case slack.SlashCommand:
		if foreign := b.foreign(data.TeamID, data.TeamID, data.APIAppID); foreign != "" {
			name := strings.TrimPrefix(data.Command, "/"+b.Prefix)
			b.turnAway(ctx, id, deed{Command: name, User: data.UserID, Foreign: foreign, Channel: data.ChannelID, ResponseURL: data.ResponseURL})
			return
		}
		b.typed(ctx, id, data)
	case slack.InteractionCallback:
		foreign := b.foreign(data.Team.ID, data.User.TeamID, data.APIAppID)
		switch {
		case foreign != "":
			d := deed{User: data.User.ID, Foreign: foreign, Channel: data.Channel.ID, ResponseURL: data.ResponseURL}
			if presses := data.ActionCallback.BlockActions; len(presses) > 0 {
				d.Press, d.Request = presses[0].ActionID, presses[0].Value
			}
			b.turnAway(ctx, id, d)
		case data.Type == slack.InteractionTypeBlockActions:
			b.pressed(ctx, id, data)
		case data.Type == slack.InteractionTypeViewSubmission:
			b.submitted(ctx, id, data)
		default:
			b.ack(ctx, id, nil)
		}
	case slackevents.EventsAPIEvent:
		b.ack(ctx, id, nil)
		if home, ok := data.InnerEvent.Data.(*slackevents.AppHomeOpenedEvent); ok && home.Tab == "home" && data.TeamID == b.Team {
			b.afterwards(id, func() { b.publishHome(ctx, home.User) })
		}
	default:
		b.ack(ctx, id, nil)
	}
}

// foreign says what is wrong with where an envelope comes from. What is
// absent is judged later, by users.info.
func (b *Bot) foreign(team, userTeam, app string) string {
	ours, _ := b.appID.Load().(string)
	switch {
	case team != b.Team:
		return "it came from workspace " + commands.Plain(team, 30)
	case userTeam != "" && userTeam != b.Team:
		return "its author is from workspace " + commands.Plain(userTeam, 30)
	case ours != "" && app != ours:
		return "it was meant for app " + commands.Plain(app, 30)
	}
	return ""
}

// turnAway takes what nobody of ours did, so that it is refused and recorded.
func (b *Bot) turnAway(ctx context.Context, id string, d deed) {
	b.Log.Warn("something from elsewhere is refused", "why", d.Foreign, "user", d.User, "envelope", id)
	err := b.keep(ctx, id, d)
	b.ack(ctx, id, nil)
	if err != nil {
		b.whisper(ctx, d, stranger.Sentence)
	}
}

// typed takes a slash command: answered at once when it cannot be read,
// asked about in a form when something is missing, done otherwise.
func (b *Bot) typed(ctx context.Context, id string, s slack.SlashCommand) {
	name := strings.TrimPrefix(s.Command, "/"+b.Prefix)
	c, ok := commands.Lookup(name)
	if !ok {
		b.ack(ctx, id, whisperPayload(fmt.Sprintf("Countersign has no command %s. Type %s to see what there is.", s.Command, b.slash("help"))))
		return
	}
	echo := "You typed: " + s.Command + " " + asTyped(s.Text)
	in, problems := commands.Parse(c, s.Text)
	if len(problems) > 0 {
		b.ack(ctx, id, whisperPayload(said(problems), echo))
		return
	}
	d := deed{Command: c.Name, Text: in.String(), User: s.UserID, Channel: s.ChannelID, ResponseURL: s.ResponseURL}
	if len(commands.Missing(c, in)) > 0 {
		b.ack(ctx, id, nil)
		b.openForm(ctx, id, s.TriggerID, in, d)
		return
	}
	if err := b.keep(ctx, id, d); err != nil {
		b.ack(ctx, id, whisperPayload(unconfirmed(b, "Your command"), echo))
		return
	}
	b.ack(ctx, id, nil)
}

// pressed takes a button.
func (b *Bot) pressed(ctx context.Context, id string, i slack.InteractionCallback) {
	if len(i.ActionCallback.BlockActions) != 1 {
		b.ack(ctx, id, nil)
		return
	}
	a := i.ActionCallback.BlockActions[0]
	d := deed{
		Press: a.ActionID, User: i.User.ID, Channel: i.Channel.ID, ResponseURL: i.ResponseURL,
		Card: approvals.Card{Channel: i.Channel.ID, TS: i.Container.MessageTs},
	}
	action, _, _ := strings.Cut(a.ActionID, ":")
	switch action {
	case pressDetails:
		b.ack(ctx, id, nil)
		d.Request = a.Value
		b.openDetails(ctx, id, i.TriggerID, d)
		return
	case pressDeny:
		b.ack(ctx, id, nil)
		d.Request = a.Value
		b.openDeny(ctx, i.TriggerID, d)
		return
	case pressReveal:
		b.ack(ctx, id, nil)
		d.Request = a.Value
		b.openSecret(ctx, id, i.TriggerID, d)
		return
	case pressOpen:
		b.ack(ctx, id, nil)
		name, text, _ := strings.Cut(a.Value, " ")
		if c, known := commands.Lookup(name); known {
			in, _ := commands.Parse(c, text)
			d.Press, d.Command, d.Text = "", name, text
			b.openForm(ctx, id, i.TriggerID, in, d)
		}
		return
	case pressChoose:
		name, text, _ := strings.Cut(a.Value, " ")
		d.Press, d.Command, d.Text = "", name, text
	case pressApprove, pressCancel, pressHalt, pressAttest, pressConfirm, pressRetract, pressAgain:
		d.Request = a.Value
	default:
		b.ack(ctx, id, nil)
		return
	}
	err := b.keep(ctx, id, d)
	b.ack(ctx, id, nil)
	if err != nil {
		b.whisper(ctx, d, unconfirmed(b, "Your press"))
	}
}

// submitted takes a form. What is wrong with it is said at its fields.
func (b *Bot) submitted(ctx context.Context, id string, i slack.InteractionCallback) {
	var meta viewMeta
	if err := json.Unmarshal([]byte(i.View.PrivateMetadata), &meta); err != nil || i.View.State == nil {
		b.ack(ctx, id, nil)
		return
	}
	d := deed{User: i.User.ID, Channel: meta.Channel}
	first := ""
	switch i.View.CallbackID {
	case viewForm:
		c, ok := commands.Lookup(meta.Command)
		if !ok {
			b.ack(ctx, id, nil)
			return
		}
		in, wrong := filled(c, i.View.State.Values)
		if len(wrong) > 0 {
			b.ack(ctx, id, slack.NewErrorsViewSubmissionResponse(wrong))
			return
		}
		d.Command, d.Text = c.Name, in.String()
		first = string(commands.FieldJustification)
	case viewDeny:
		d.Press, d.Request, d.Card = pressDeny, meta.Request, meta.Card
		d.Reason = strings.TrimSpace(i.View.State.Values[blockReason][blockReason].Value)
		first = blockReason
	default:
		b.ack(ctx, id, nil)
		return
	}
	if err := b.keep(ctx, id, d); err != nil {
		b.ack(ctx, id, slack.NewErrorsViewSubmissionResponse(map[string]string{first: unconfirmed(b, "This")}))
		return
	}
	b.ack(ctx, id, nil)
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
	return fmt.Sprintf("%s could not be confirmed: Countersign's store does not answer. It may still be carried out. Look at %s in a minute before you try again.", what, b.slash("requests"))
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
