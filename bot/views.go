package bot

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/slack-go/slack"

	"countersign/approvals"
	"countersign/commands"
)

// The blocks of the forms, beside those named by commands.Field. In each,
// the action has the block's name.
const (
	blockReason     = "reason"
	blockTargetName = "target_name"
)

// viewMeta travels with a view and comes back with its submission. It holds
// nothing that is believed: whoever submits is looked up again.
type viewMeta struct {
	Command string         `json:"command,omitempty"`
	Request string         `json:"request,omitempty"`
	Channel string         `json:"channel,omitempty"`
	Card    approvals.Card `json:"card,omitzero"`
}

func (m viewMeta) String() string {
	raw, err := json.Marshal(m)
	if err != nil { // strings always marshal
		panic(err)
	}
	return string(raw)
}

func modal(title, callback string, meta viewMeta, blocks ...slack.Block) slack.ModalViewRequest {
	return slack.ModalViewRequest{
		Type: slack.VTModal, Title: plain(title, 24), Close: plain("Close", 24),
		CallbackID: callback, PrivateMetadata: meta.String(), Blocks: slack.Blocks{BlockSet: blocks},
	}
}

// openForm asks for what a command lacks, with the rest filled in. The form
// opens at once; who the target is, and whether this may be asked at all, is
// filled in when it is known.
func (b *Bot) openForm(ctx context.Context, trigger string, in commands.Input, d deed) {
	view := b.form(in, d.Channel, nil)
	opened, err := b.now.OpenViewContext(ctx, trigger, view)
	if err != nil {
		b.tooLate(ctx, d, in.Command.Name+" "+in.String(), err)
		return
	}
	// From here on the person has the form; the rest makes it better.
	ctx, cancel := context.WithTimeout(ctx, b.Desk.Store.Timing().LookUps)
	defer cancel()
	who, err := b.people.actor(ctx, d.User)
	if err == nil {
		err = b.Desk.MayRequest(ctx, in.Command.Name, in.Command.Class, who)
	}
	if err != nil {
		b.fill(ctx, opened, modal(in.Command.Title, "", viewMeta{}, paragraphs(say("%s", sentence(err)))))
		return
	}
	if in.Target.Empty() {
		return
	}
	switch targets, err := b.find(ctx, in.Target); {
	case err != nil:
		b.fill(ctx, opened, b.form(in, d.Channel, paragraphs(say("⚠️ %s", sentence(err)))))
	case len(targets) == 1:
		b.fill(ctx, opened, b.form(in, d.Channel, paragraphs(line{}.bold("For ").who(targets[0]))))
	}
}

// form is the modal of one command. note stands on top of it.
func (b *Bot) form(in commands.Input, channel string, note slack.Block) slack.ModalViewRequest {
	c := in.Command
	blocks := []slack.Block{paragraphs(say("%s.", capital(c.Does)))}
	if note != nil {
		blocks = append(blocks, note)
	}
	if c.Target {
		if in.Target.ObjectID == "" && in.Target.Name == "" {
			pick := slack.NewOptionsSelectBlockElement(slack.OptTypeUser, plain("Choose a person", 150), string(commands.FieldTarget))
			pick.InitialUser = in.Target.Slack
			blocks = append(blocks, optional(input(string(commands.FieldTarget), "Whose account", "", pick)))
		}
		name := slack.NewPlainTextInputBlockElement(plain("dana@example.com", 150), blockTargetName)
		name.InitialValue = in.Target.Name + in.Target.ObjectID
		name.MaxLength = 200
		label := "Or their user principal name"
		if in.Target.Name+in.Target.ObjectID != "" {
			label = "Whose account"
		}
		blocks = append(blocks, optional(input(blockTargetName, label, "", name)))
	}
	if ways := commands.Verifications(c); len(ways) > 0 {
		options := make([]*slack.OptionBlockObject, len(ways))
		var chosen *slack.OptionBlockObject
		for i, w := range ways {
			options[i] = slack.NewOptionBlockObject(w.Value, plain(w.Words, 75), nil)
			if w.Value == in.Verified {
				chosen = options[i]
			}
		}
		pick := slack.NewOptionsSelectBlockElement(slack.OptTypeStatic, plain("Choose one", 150), string(commands.FieldVerified), options...)
		pick.InitialOption = chosen
		blocks = append(blocks, input(string(commands.FieldVerified), "How did you make sure who was asking?",
			"The approver sees this. A caller who knows names and numbers has proved nothing.", pick))
	}
	label := "Why"
	if slices.Contains(commands.Missing(c, commands.Input{Command: c}), commands.FieldJustification) {
		label = "Why, or name a ticket below"
	}
	why := slack.NewPlainTextInputBlockElement(plain("Lost phone, new one arrives tomorrow", 150), string(commands.FieldJustification))
	why.Multiline, why.InitialValue, why.MaxLength = true, in.Justification, commands.MaxJustification
	blocks = append(blocks, optional(input(string(commands.FieldJustification), label, "", why)))
	ticket := slack.NewPlainTextInputBlockElement(plain("INC-1042", 150), string(commands.FieldTicket))
	ticket.InitialValue, ticket.MaxLength = in.Ticket, commands.MaxTicket
	blocks = append(blocks, optional(input(string(commands.FieldTicket), "Ticket", "", ticket)))

	view := modal(c.Title, viewForm, viewMeta{Command: c.Name, Channel: channel}, blocks...)
	view.Submit, view.Close = plain("Request", 24), plain("Cancel", 24)
	return view
}

// filled reads a submitted form; what is wrong is told by block.
func filled(c commands.Command, values map[string]map[string]slack.BlockAction) (commands.Input, map[string]string) {
	text := func(block string) string { return strings.TrimSpace(values[block][block].Value) }
	wrong := map[string]string{}
	var words []string
	if c.Target {
		picked, typed := values[string(commands.FieldTarget)][string(commands.FieldTarget)].SelectedUser, text(blockTargetName)
		switch {
		case typed != "" && picked != "":
			wrong[blockTargetName] = "Choose a person or type a name, not both."
		case typed != "":
			words = append(words, typed)
		case picked != "":
			words = append(words, "<@"+picked+">")
		default:
			wrong[blockTargetName] = "Say whose account it is: choose a person above, or type the user principal name."
		}
	}
	in, problems := commands.Parse(c, strings.Join(words, " "))
	for _, p := range problems {
		wrong[blockTargetName] = p.Sentence
	}
	in.Verified = values[string(commands.FieldVerified)][string(commands.FieldVerified)].SelectedOption.Value
	in.Ticket = commands.Plain(text(string(commands.FieldTicket)), commands.MaxTicket)
	in.Justification = commands.Plain(text(string(commands.FieldJustification)), commands.MaxJustification)
	for _, field := range commands.Missing(c, in) {
		switch field {
		case commands.FieldVerified:
			wrong[string(field)] = "Say how you made sure who was asking."
		case commands.FieldJustification:
			wrong[string(field)] = "Say why, or name a ticket below."
		}
	}
	return in, wrong
}

func input(block, label, hint string, element slack.BlockElement) *slack.InputBlock {
	var help *slack.TextBlockObject
	if hint != "" {
		help = plain(hint, 2000)
	}
	return slack.NewInputBlock(block, plain(label, 2000), help, element)
}

func optional(in *slack.InputBlock) slack.Block {
	in.Optional = true
	return in
}

// openDeny asks for the reason of a denial, which the requester will read.
func (b *Bot) openDeny(ctx context.Context, trigger, request string, d deed) {
	reason := slack.NewPlainTextInputBlockElement(plain("Could not reach her manager", 150), blockReason)
	reason.Multiline, reason.MaxLength = true, commands.MaxJustification
	view := modal("Deny "+request, viewDeny, viewMeta{Request: request, Channel: d.Channel, Card: d.Card},
		paragraphs(say("A denial is final. %s ends, and nothing is done.", request)),
		optional(input(blockReason, "Why", "The requester and the auditors read this.", reason)))
	view.Submit, view.Close = plain("Deny", 24), plain("Back", 24)
	if _, err := b.now.OpenViewContext(ctx, trigger, view); err != nil {
		b.Log.Warn("a view did not open", "error", err)
		b.whisper(ctx, d, "That took too long, and Slack no longer lets Countersign open a form. Nothing happened. Press Deny again.")
	}
}

// openDetails shows a request with its journal, to people who may see it.
func (b *Bot) openDetails(ctx context.Context, trigger, request string, d deed) {
	skeleton := modal(request, "", viewMeta{}, paragraphs(say("Looking it up …")))
	opened, err := b.now.OpenViewContext(ctx, trigger, skeleton)
	if err != nil {
		b.Log.Warn("a view did not open", "error", err)
		b.whisper(ctx, d, "That took too long, and Slack no longer lets Countersign open a view. Press Details again.")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, b.Desk.Store.Timing().LookUps)
	defer cancel()
	blocks, err := b.details(ctx, request, d.User)
	if err != nil {
		blocks = []slack.Block{paragraphs(say("%s", sentence(err)))}
	}
	b.fill(ctx, opened, modal(request, "", viewMeta{}, blocks...))
}

func (b *Bot) details(ctx context.Context, request, slackID string) ([]slack.Block, error) {
	who, err := b.people.actor(ctx, slackID)
	if err != nil {
		return nil, err
	}
	snap, err := b.Desk.Store.Load(ctx, request)
	if err != nil {
		return nil, err
	}
	if who.ID != snap.Requester.ID {
		if err := b.Desk.MayRequest(ctx, "requests", approvals.ClassRead, who); err != nil {
			return nil, err
		}
	}
	return append(b.card(snap.Request, false), journal(snap.Request)...), nil
}

// fill replaces a view that was opened before its content was known.
func (b *Bot) fill(ctx context.Context, opened *slack.ViewResponse, view slack.ModalViewRequest) {
	if _, err := b.api.UpdateViewContext(ctx, view, "", "", opened.ID); err != nil && !errIs(err, "not_found", "view_not_found") {
		b.Log.Warn("a view was not filled", "error", err)
	}
}

// tooLate offers a form again whose trigger has died.
func (b *Bot) tooLate(ctx context.Context, d deed, value string, err error) {
	b.Log.Warn("a form did not open", "error", err)
	if len(value) > 2000 {
		b.whisper(ctx, d, "That took too long, and Slack no longer lets Countersign open the form. Nothing happened. Please type the command again.")
		return
	}
	b.whisper(ctx, d, "That took too long for Slack to open the form. What you typed is kept.",
		paragraphs(say("That took too long for Slack to open the form. What you typed is kept.")),
		slack.NewActionBlock("", button(pressOpen, value, "Open the form", slack.StylePrimary)))
}

// publishHome shows somebody their App Home: what waits, and what is theirs.
func (b *Bot) publishHome(ctx context.Context, slackID string) {
	ctx, cancel := context.WithTimeout(ctx, b.Desk.Store.Timing().LookUps)
	defer cancel()
	blocks, err := b.home(ctx, slackID)
	if err != nil {
		blocks = []slack.Block{header("Countersign"), paragraphs(say("%s", sentence(err)))}
	}
	_, err = b.api.PublishViewContext(ctx, slack.PublishViewContextRequest{
		UserID: slackID, View: slack.HomeTabViewRequest{Type: slack.VTHomeTab, Blocks: slack.Blocks{BlockSet: blocks}},
	})
	if err != nil {
		b.Log.Warn("an App Home was not published", "error", err)
	}
}

func (b *Bot) home(ctx context.Context, slackID string) ([]slack.Block, error) {
	who, err := b.people.actor(ctx, slackID)
	if err != nil {
		return nil, err
	}
	blocks := []slack.Block{header("Countersign"), paragraphs(say("Two people for every change of an account: one asks, another approves."))}
	if err := b.Desk.MayRequest(ctx, "requests", approvals.ClassRead, who); err == nil {
		open, err := b.Desk.Store.Open(ctx)
		if err != nil {
			return nil, err
		}
		blocks = append(blocks, deskBlocks("On the desk", open, "Nothing is waiting.")...)
	} else if no := (*approvals.Refusal)(nil); !errors.As(err, &no) {
		return nil, err
	}
	mine, err := b.Desk.Store.Mine(ctx, who.ID)
	if err != nil {
		return nil, err
	}
	blocks = append(blocks, deskBlocks("Yours", mine, "You have requested nothing yet.")...)
	blocks = append(blocks, slack.NewDividerBlock())
	blocks = append(blocks, b.helpBlocks(ctx, who)...)
	if len(blocks) > 100 {
		blocks = blocks[:100]
	}
	return blocks, nil
}

// deskBlocks lists requests with a button each.
func deskBlocks(title string, all []approvals.Snapshot, none string) []slack.Block {
	blocks := []slack.Block{paragraphs(line{}.bold(title))}
	if len(all) == 0 {
		return append(blocks, paragraphs(say("%s", none)))
	}
	const most = 12 // two blocks each, and Slack takes fifty
	for _, r := range slices.Clone(all[:min(most, len(all))]) {
		blocks = append(blocks,
			paragraphs(say("%s %s for ", stateIcon(r.Request), r.Plan.Title).who(r.Plan.Target).gap(" · ").say("%s", r.Says()),
				say("%s, requested by ", r.ID).who(r.Requester).gap(", ").when(r.Created)),
			slack.NewActionBlock("", button(pressDetails, r.ID, "Details", slack.StyleDefault)))
	}
	if len(all) > most {
		blocks = append(blocks, small("and %d more", len(all)-most))
	}
	return blocks
}

// journal is what became of each step, with what Microsoft's support asks
// for.
func journal(r approvals.Request) []slack.Block {
	var items []line
	for i, e := range r.Journal {
		if e.State == approvals.StepWaiting {
			continue
		}
		l := say("%s: %s", r.Plan.Steps[i].Words, e.State)
		if !e.Started.IsZero() {
			l = l.gap(" · started ").say("%s", e.Started.UTC().Format(time.TimeOnly+" UTC"))
		}
		if !e.Ended.IsZero() {
			l = l.say(" · %d ms", e.Ended.Sub(e.Started).Milliseconds())
		}
		if e.RequestID != "" {
			l = l.gap(" · Graph request-id ").code(e.RequestID)
		}
		items = append(items, l)
	}
	if len(items) == 0 {
		return nil
	}
	return []slack.Block{list("Journal", slack.RTEListBullet, items)}
}
