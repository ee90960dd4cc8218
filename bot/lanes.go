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
			b.Log.Warn("a command from elsewhere was refused", "why", foreign, "user", data.UserID, "team", data.TeamID)
			b.ack(ctx, id, whisperPayload("You are from another workspace. Only people of this one use Countersign."))
			return
		}
		b.typed(ctx, id, data)
	case slack.InteractionCallback:
		if foreign := b.foreign(data.Team.ID, data.User.TeamID, data.APIAppID); foreign != "" {
			b.Log.Warn("a press from elsewhere was refused", "why", foreign, "user", data.User.ID, "team", data.Team.ID)
			b.ack(ctx, id, nil)
			b.whisper(ctx, deed{User: data.User.ID, Channel: data.Channel.ID, ResponseURL: data.ResponseURL},
				"You are from another workspace. Only people of this one use Countersign.")
			return
		}
		switch data.Type {
		case slack.InteractionTypeBlockActions:
			b.pressed(ctx, id, data)
		case slack.InteractionTypeViewSubmission:
			b.submitted(ctx, id, data)
		default:
			b.ack(ctx, id, nil)
		}
	case slackevents.EventsAPIEvent:
		b.ack(ctx, id, nil)
		if home, ok := data.InnerEvent.Data.(*slackevents.AppHomeOpenedEvent); ok && home.Tab == "home" && data.TeamID == b.Team {
			b.publishHome(ctx, home.User)
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
		return "another workspace"
	case userTeam != "" && userTeam != b.Team:
		return "a user of another workspace"
	case ours != "" && app != ours:
		return "another app"
	}
	return ""
}

// typed takes a slash command: answered at once when it cannot be read,
// asked about in a form when something is missing, done otherwise.
func (b *Bot) typed(ctx context.Context, id string, s slack.SlashCommand) {
	name := strings.TrimPrefix(s.Command, "/"+b.Prefix)
	c, ok := commands.Lookup(name)
	if !ok {
		b.ack(ctx, id, whisperPayload("Countersign has no command %s. Type %s to see what there is.", s.Command, b.slash("help")))
		return
	}
	in, problems := commands.Parse(c, s.Text)
	if len(problems) > 0 {
		b.ack(ctx, id, whisperPayload("%s\nYou typed: %s %s", said(problems), s.Command, s.Text))
		return
	}
	if len(commands.Missing(c, in)) > 0 {
		b.ack(ctx, id, nil)
		b.openForm(ctx, s.TriggerID, in, deed{User: s.UserID, Channel: s.ChannelID, ResponseURL: s.ResponseURL})
		return
	}
	d := deed{Command: c.Name, Text: in.String(), User: s.UserID, Channel: s.ChannelID, ResponseURL: s.ResponseURL}
	if err := b.keep(ctx, id, d); err != nil {
		b.ack(ctx, id, whisperPayload("%s You typed: %s %s", unconfirmed(b, "Your command"), s.Command, s.Text))
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
		b.openDetails(ctx, i.TriggerID, a.Value, d)
		return
	case pressDeny:
		b.ack(ctx, id, nil)
		b.openDeny(ctx, i.TriggerID, a.Value, d)
		return
	case pressOpen:
		b.ack(ctx, id, nil)
		if name, text, ok := strings.Cut(a.Value, " "); ok || name != "" {
			if c, known := commands.Lookup(name); known {
				in, _ := commands.Parse(c, text)
				b.openForm(ctx, i.TriggerID, in, d)
			}
		}
		return
	case pressChoose:
		name, text, _ := strings.Cut(a.Value, " ")
		d.Press, d.Command, d.Text = "", name, text
	case pressApprove, pressCancel, pressHalt:
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
	if err := b.Inbox.Put(ctx, id, raw); err != nil {
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

// whisperPayload is an answer in an ack: to the author alone.
func whisperPayload(format string, a ...any) map[string]string {
	return map[string]string{"response_type": slack.ResponseTypeEphemeral, "text": fallback(format, a...)}
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
