package bot

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/slack-go/slack"

	"countersign/approvals"
	"countersign/commands"
)

// maxName is longer than any user principal name or e-mail address.
const maxName = 320

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

// triggerLife is how long a view may take to open: Slack's own limit.
const triggerLife = 3 * time.Second

// open opens a view and gives its id.
func (b *Bot) open(ctx context.Context, trigger string, view slack.ModalViewRequest) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), triggerLife)
	defer cancel()
	opened, err := b.now.OpenViewContext(ctx, trigger, view)
	if err != nil {
		b.Log.Warn("a view did not open", "error", err)
		return "", err
	}
	return opened.ID, nil
}

// openForm asks for what a command lacks, with the rest filled in. The form
// opens at once; who the target is, and whether this may be asked at all, is
// filled in when it is known.
func (b *Bot) openForm(ctx context.Context, id, trigger string, in commands.Input, d deed) {
	view, err := b.open(ctx, trigger, b.form(in, d.Channel, nil, nil))
	if err != nil {
		b.tooLate(ctx, d, in)
		return
	}
	b.afterwards(id, func() {
		ctx, cancel := context.WithTimeout(ctx, b.Desk.Store.Timing().LookUps)
		defer cancel()
		who, err := b.people.actor(ctx, d.User)
		if err == nil {
			err = b.Desk.MayRequest(ctx, in.Command.Name, in.Command.Class, who)
		}
		if err != nil {
			err = b.refused(ctx, id, d, who, err)
		}
		no := (*approvals.Refusal)(nil)
		switch {
		case err == nil && in.Target.Empty():
		case err == nil:
			targets, err := b.find(ctx, in.Target)
			var note slack.Block
			var methods []commands.Choice
			if err == nil && len(targets) == 1 {
				note = paragraphs(line{}.bold("For ").who(targets[0]))
				if slices.ContainsFunc(in.Command.Args, func(a commands.Arg) bool { return a.Field == commands.FieldMethod }) {
					methods, err = b.Tenant.Removable(ctx, targets[0].ID)
				}
			}
			if err != nil {
				note = paragraphs(say("⚠️ %s", sentence(err)))
			}
			if note != nil {
				b.fill(ctx, view, b.form(in, d.Channel, note, methods))
			}
		case errors.As(err, &no) && no.Code != approvals.CodeUnchecked:
			b.fill(ctx, view, modal(in.Command.Title, "", viewMeta{}, paragraphs(say("%s", no.Sentence))))
		default: // it may pass, and what is being typed must not be lost
			b.fill(ctx, view, b.form(in, d.Channel, paragraphs(say("⚠️ %s", sentence(err))), nil))
		}
	})
}

// form is the modal of one command. note stands on top of it; methods are
// those of the target to choose from, where they are known.
func (b *Bot) form(in commands.Input, channel string, note slack.Block, methods []commands.Choice) slack.ModalViewRequest {
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
		name.MaxLength = maxName
		name.InitialValue = commands.Plain(in.Target.Name+in.Target.ObjectID, maxName)
		label := "Or their user principal name"
		if in.Target.Name+in.Target.ObjectID != "" {
			label = "Whose account"
		}
		blocks = append(blocks, optional(input(blockTargetName, label, "", name)))
	}
	for _, a := range c.Args {
		blocks = append(blocks, argument(a, in.Args[a.Field], methods))
	}
	if ways := commands.Verifications(c); len(ways) > 0 {
		choices := make([]commands.Choice, len(ways))
		for i, w := range ways {
			choices[i] = commands.Choice{Ref: w.Value, Words: w.Words}
		}
		blocks = append(blocks, input(string(commands.FieldVerified), "How did you make sure who was asking?",
			"The approver sees this. A caller who knows names and numbers has proved nothing.", choose(string(commands.FieldVerified), in.Verified, choices)))
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

// argument is the box of one argument of a command.
func argument(a commands.Arg, value string, methods []commands.Choice) slack.Block {
	choices := make([]commands.Choice, len(a.Choices))
	for i, c := range a.Choices {
		choices[i] = commands.Choice{Ref: c.Value, Words: c.Words}
	}
	if a.Field == commands.FieldMethod {
		choices = methods
	}
	var box *slack.InputBlock
	if len(choices) > 0 {
		box = input(string(a.Field), a.Words, "", choose(string(a.Field), value, choices))
	} else {
		text := slack.NewPlainTextInputBlockElement(nil, string(a.Field))
		text.InitialValue, text.MaxLength = commands.Plain(value, commands.MaxArg), commands.MaxArg
		box = input(string(a.Field), a.Words, a.Hint, text)
	}
	box.Optional = !a.Required
	return box
}

// choose is a select with one of its choices chosen, where there is such one.
func choose(action, value string, choices []commands.Choice) *slack.SelectBlockElement {
	const most = 100 // that Slack takes
	pick := slack.NewOptionsSelectBlockElement(slack.OptTypeStatic, plain("Choose one", 150), action)
	for _, c := range choices[:min(len(choices), most)] {
		option := slack.NewOptionBlockObject(c.Ref, plain(c.Words, 75), nil)
		pick.Options = append(pick.Options, option)
		if c.Ref == value {
			pick.InitialOption = option
		}
	}
	return pick
}

// filled reads a submitted form; what is wrong is told by block.
func filled(c commands.Command, values map[string]map[string]slack.BlockAction) (commands.Input, map[string]string) {
	text := func(block string) string { return strings.TrimSpace(values[block][block].Value) }
	wrong := map[string]string{}
	in := commands.Input{Command: c}
	if c.Target {
		picked, typed := values[string(commands.FieldTarget)][string(commands.FieldTarget)].SelectedUser, text(blockTargetName)
		ref := typed
		if picked != "" {
			ref = "<@" + picked + ">"
		}
		var problems []commands.Problem
		in, problems = commands.Parse(c, ref)
		switch {
		case typed != "" && picked != "":
			wrong[blockTargetName] = "Choose a person or type a name, not both."
		case ref == "":
			wrong[blockTargetName] = "Say whose account it is: choose a person, or type the user principal name."
		case len(problems) > 0:
			wrong[blockTargetName] = problems[0].Sentence
		case in.Target.Empty(), in.Justification+in.Ticket+in.Verified != "":
			wrong[blockTargetName] = "Type one user principal name, e-mail address or object id here, and nothing else."
		}
	}
	in.Args = nil
	for _, a := range c.Args {
		box := values[string(a.Field)][string(a.Field)]
		value, problem := a.Read(cmp.Or(box.SelectedOption.Value, box.Value))
		switch {
		case problem != "":
			wrong[string(a.Field)] = problem
		case value != "":
			if in.Args == nil {
				in.Args = map[commands.Field]string{}
			}
			in.Args[a.Field] = value
		}
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
		case commands.FieldTarget:
		default:
			if wrong[string(field)] == "" {
				wrong[string(field)] = "This is needed."
			}
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
func (b *Bot) openDeny(ctx context.Context, trigger string, d deed) {
	reason := slack.NewPlainTextInputBlockElement(plain("Could not reach her manager", 150), blockReason)
	reason.Multiline, reason.MaxLength = true, commands.MaxJustification
	view := modal("Deny "+d.Request, viewDeny, viewMeta{Request: d.Request, Channel: d.Channel, Card: d.Card},
		paragraphs(say("A denial is final. %s ends, and nothing is done.", d.Request)),
		optional(input(blockReason, "Why", "The requester and the auditors read this.", reason)))
	view.Submit, view.Close = plain("Deny", 24), plain("Back", 24)
	if _, err := b.open(ctx, trigger, view); err != nil {
		b.whisper(ctx, d, "That took too long, and Slack no longer lets Countersign open a form. Nothing happened. Press Deny again.")
	}
}

// openDetails shows a request with its journal, to people who may see it.
func (b *Bot) openDetails(ctx context.Context, id, trigger string, d deed) {
	view, err := b.open(ctx, trigger, modal(d.Request, "", viewMeta{}, paragraphs(say("Looking it up …"))))
	if err != nil {
		b.whisper(ctx, d, "That took too long, and Slack no longer lets Countersign open a view. Press Details again.")
		return
	}
	b.afterwards(id, func() {
		ctx, cancel := context.WithTimeout(ctx, b.Desk.Store.Timing().LookUps)
		defer cancel()
		blocks, err := b.details(ctx, id, d)
		if err != nil {
			blocks = []slack.Block{paragraphs(say("%s", sentence(err)))}
		}
		b.fill(ctx, view, modal(d.Request, "", viewMeta{}, blocks...))
	})
}

func (b *Bot) details(ctx context.Context, id string, d deed) ([]slack.Block, error) {
	who, err := b.people.actor(ctx, d.User)
	if err != nil {
		return nil, b.refused(ctx, id, d, who, err)
	}
	snap, err := b.Desk.Store.Load(ctx, d.Request)
	if err != nil {
		return nil, err
	}
	if who.ID != snap.Requester.ID {
		if err := b.Desk.MayRequest(ctx, "requests", approvals.ClassRead, who); err != nil {
			return nil, b.refused(ctx, id, d, who, err)
		}
	}
	return append(draw(snap.Request, room{}), journal(snap.Request)...), nil
}

// fill replaces a view that was opened before its content was known. An error
// means that it may not be before anybody's eyes; it may have been closed.
func (b *Bot) fill(ctx context.Context, view string, content slack.ModalViewRequest) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	_, err := b.api.UpdateViewContext(ctx, content, "", "", view)
	if err != nil && !errIs(err, "not_found", "view_not_found") {
		b.Log.Warn("a view was not filled", "error", err)
	}
	return err
}

// tooLate offers a form again whose trigger has died.
func (b *Bot) tooLate(ctx context.Context, d deed, in commands.Input) {
	typed, value := in.String(), in.Command.Name+" "+in.String()
	if utf8.RuneCountInString(value) > maxValue {
		const text = "That took too long for Slack to open the form. Nothing happened. Please type the command again."
		b.whisper(ctx, d, text, paragraphs(say(text), say("You typed: %s %s", commands.Slash(b.Prefix, in.Command), asTyped(typed))))
		return
	}
	const text = "That took too long for Slack to open the form. What you typed is kept."
	b.whisper(ctx, d, text, paragraphs(say(text)), slack.NewActionBlock("", button(pressOpen, value, "Open the form", slack.StylePrimary)))
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
	help, err := b.helpBlocks(ctx, who)
	if err != nil {
		return nil, err
	}
	return append(append(blocks, slack.NewDividerBlock()), help...), nil
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
	return list("Journal", slack.RTEListBullet, items)
}
