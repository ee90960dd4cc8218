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
	Command  string         `json:"command,omitempty"`
	Request  string         `json:"request,omitempty"`
	Channel  string         `json:"channel,omitempty"`
	Card     approvals.Card `json:"card,omitzero"`
	ActionID string         `json:"press,omitempty"` // which of two buttons led here
	Self     string         `json:"self,omitempty"`  // what was typed and means the author; looked up again like everything
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
func (b *Bot) openForm(ctx context.Context, id, trigger string, in commands.Input, d interaction) {
	f := form{in: in, channel: d.Channel, self: in.Target.Slack != "" && in.Target.Slack == d.User, breakGlass: in.BreakGlass}
	view, err := b.open(ctx, trigger, b.form(f))
	if err != nil {
		b.offerFormAgain(ctx, d, in)
		return
	}
	b.runInBackground(id, func() {
		ctx, cancel := context.WithTimeout(ctx, b.Service.Store.Timing().LookUps)
		defer cancel()
		filled, err := b.lookUp(ctx, id, f, d)
		if err != nil {
			err = b.recordRefusal(ctx, id, d, filled.who, err)
		}
		no := (*approvals.Refusal)(nil)
		switch {
		case err == nil:
			b.fill(ctx, view, b.form(filled))
		case errors.As(err, &no) && no.Code != approvals.CodeUnchecked:
			b.fill(ctx, view, modal(formTitle(in.Command), "", viewMeta{}, paragraphs(textLine("%s", no.Sentence))))
		default: // it may pass, and what is being typed must not be lost
			f.notes = []slack.Block{paragraphs(textLine("⚠️ %s", errorSentence(err)))}
			b.fill(ctx, view, b.form(f))
		}
	})
}

// form is what the modal of a command is drawn from.
type form struct {
	in         commands.Input
	channel    string
	who        approvals.Person  // the author, where they are known
	notes      []slack.Block     // on top of it
	methods    []commands.Choice // of the target to choose from, where they are known
	self       bool              // it is about the author's own account
	breakGlass bool              // the author may use break-glass
}

// lookUp completes a form with what only a look-up tells. A refusal means that
// its author may not ask at all.
func (b *Bot) lookUp(ctx context.Context, op string, f form, d interaction) (form, error) {
	var err error
	if f.who, err = b.actor(ctx, d); err != nil {
		return f, err
	}
	c := f.in.Command
	selfOnly, err := b.Service.MayRequest(ctx, c.Name, c.Class, f.who)
	switch {
	case err != nil:
		return f, err
	case selfOnly && f.in.Target.Empty():
		f.in.Target = commands.Ref{Slack: d.User}
	case selfOnly && !namesSelf(f.in.Target, d.User, f.who):
		return f, onlySelf
	}
	f.self = !f.in.Target.Empty() && namesSelf(f.in.Target, d.User, f.who)
	if c.Class == approvals.ClassContain {
		account, err := b.Service.Rights(ctx, f.who)
		if err != nil {
			return f, err
		}
		no := b.Service.Policy.MayBreakGlass(c.Name, c.Class, account)
		if f.breakGlass = no == nil; f.in.BreakGlass && no != nil {
			f.in.BreakGlass = false
			f.notes = append(f.notes, paragraphs(textLine("⚠️ %s You can ask for approval.", no.Sentence)))
		}
	}
	if f.in.Target.Empty() {
		return f, nil
	}
	targets, err := b.findPeople(ctx, f.in.Target)
	if err == nil && len(targets) == 1 {
		l := line{}.bold("For ").who(targets[0])
		if f.self {
			l = l.text(". That is you: whoever approves it makes sure of that first.")
		}
		f.notes = append(f.notes, paragraphs(l))
		if slices.ContainsFunc(c.Args, func(a commands.Arg) bool { return a.Field == commands.FieldMethod }) {
			if f.methods, err = b.removable(ctx, op, f.who, targets[0]); err != nil {
				err = approvals.Refuse(approvals.CodeUnchecked, "The methods are not listed here. %s", errorSentence(err))
			}
		}
	}
	if err != nil {
		f.notes = append(f.notes, paragraphs(textLine("⚠️ %s", errorSentence(err))))
	}
	return f, nil
}

// removable lists what can be removed from an account. That tells which methods
// somebody has, as the command that shows them does: it is for the same people,
// counts as a look, and is recorded.
func (b *Bot) removable(ctx context.Context, op string, who, target approvals.Person) ([]commands.Choice, error) {
	look, _ := commands.Lookup("methods")
	err := b.Service.AuthorizeRead(ctx, op+"#methods", look.Name, look.Title, who, target)
	no := (*approvals.Refusal)(nil)
	if errors.As(err, &no) && no.Code == approvals.CodeNotAllowed {
		return nil, approvals.Refuse(no.Code, "You are not allowed to see them. You can still name the one to remove.")
	}
	if err != nil {
		return nil, err
	}
	return b.Tenant.Removable(ctx, target.ID)
}

// needs is what the policy wants with a request for this command.
func (b *Bot) needs(c commands.Command, self bool) commands.Needs {
	fields, verified := b.Service.Policy.Needs(c.Name, c.Class)
	return commands.Needs{Fields: fields, Verified: verified, Self: self}
}

// form draws the modal of one command.
func (b *Bot) form(f form) slack.ModalViewRequest {
	in, c := f.in, f.in.Command
	needs := b.needs(c, f.self)
	blocks := append([]slack.Block{paragraphs(textLine("%s.", capitalize(c.Does)))}, f.notes...)
	typed := in.Target.Name + in.Target.ObjectID
	if c.Target {
		if typed == "" {
			pick := slack.NewOptionsSelectBlockElement(slack.OptTypeUser, plain("Choose a person", 150), string(commands.FieldTarget))
			pick.InitialUser = in.Target.Slack
			blocks = append(blocks, optional(input(string(commands.FieldTarget), "Whose account", "", pick)))
		}
		name := slack.NewPlainTextInputBlockElement(plain("dana@example.com", 150), blockTargetName)
		name.MaxLength = maxName
		name.InitialValue = commands.Plain(typed, maxName)
		label := "Or their user principal name"
		if typed != "" {
			label = "Whose account"
		}
		blocks = append(blocks, optional(input(blockTargetName, label, "", name)))
	}
	for _, a := range c.Args {
		blocks = append(blocks, argumentInput(a, in.Args[a.Field], f.methods))
	}
	if ways := commands.Ways(c, needs); len(ways) > 0 {
		choices := make([]commands.Choice, len(ways))
		for i, w := range ways {
			choices[i] = commands.Choice{Ref: w.Value, Words: w.Words}
		}
		hint := "The approver sees this. A caller who knows names and numbers has proved nothing."
		selfToo := b.Service.Policy.AllowsSelf(c.Name, c.Class)
		if selfToo {
			hint += " Leave it empty for your own account."
		}
		box := input(string(commands.FieldVerified), "How did you make sure who was asking?", hint, selectElement(string(commands.FieldVerified), in.Verified, choices))
		box.Optional = selfToo // whose account it is is looked at when the form comes back
		blocks = append(blocks, box)
	}
	if c.Class == approvals.ClassContain && f.breakGlass {
		option := slack.NewOptionBlockObject(checked, plain("Run it at once, before anybody approves", 75), plain("Everybody who could have approved is told, and somebody reviews it.", 75))
		tick := slack.NewCheckboxGroupsBlockElement(string(commands.FieldBreakGlass), option)
		if in.BreakGlass {
			tick.InitialOptions = []*slack.OptionBlockObject{option}
		}
		blocks = append(blocks, optional(input(string(commands.FieldBreakGlass), "Use break-glass", "For an emergency. The reason below is needed then.", tick)))
	}
	label, must := "Why", slices.Contains(needs.Fields, approvals.NeedJustification) || in.BreakGlass
	if !must && slices.Contains(commands.Missing(c, commands.Input{Command: c}, needs), commands.FieldJustification) {
		label = "Why, or name a ticket below"
	}
	why := slack.NewPlainTextInputBlockElement(plain("Lost phone, new one arrives tomorrow", 150), string(commands.FieldJustification))
	why.Multiline, why.InitialValue, why.MaxLength = true, in.Justification, commands.MaxJustification
	box := input(string(commands.FieldJustification), label, "", why)
	box.Optional = !must
	blocks = append(blocks, box)
	ticket := slack.NewPlainTextInputBlockElement(plain("INC-1042", 150), string(commands.FieldTicket))
	ticket.InitialValue, ticket.MaxLength = in.Ticket, commands.MaxTicket
	box = input(string(commands.FieldTicket), "Ticket", "", ticket)
	box.Optional = !slices.Contains(needs.Fields, approvals.NeedTicket)
	blocks = append(blocks, box)

	meta := viewMeta{Command: c.Name, Channel: f.channel}
	if f.self {
		meta.Self = typed
	}
	view := modal(formTitle(c), viewForm, meta, blocks...)
	view.Submit, view.Close = plain("Request", 24), plain("Cancel", 24)
	return view
}

// formTitle is a command's title where Slack shows only its first 24 characters.
func formTitle(c commands.Command) string {
	if utf8.RuneCountInString(c.Title) <= 24 {
		return c.Title
	}
	return strings.TrimPrefix(c.Title, "Issue ")
}

// checked is the value of a box that is ticked.
const checked = "yes"

// argumentInput is the box of one argument of a command.
func argumentInput(a commands.Arg, value string, methods []commands.Choice) slack.Block {
	choices := make([]commands.Choice, len(a.Choices))
	for i, c := range a.Choices {
		choices[i] = commands.Choice{Ref: c.Value, Words: c.Words}
	}
	if a.Field == commands.FieldMethod {
		choices = methods
	}
	var box *slack.InputBlock
	if len(choices) > 0 {
		box = input(string(a.Field), a.Words, "", selectElement(string(a.Field), value, choices))
	} else {
		text := slack.NewPlainTextInputBlockElement(nil, string(a.Field))
		text.InitialValue, text.MaxLength = commands.Plain(value, commands.MaxArg), commands.MaxArg
		box = input(string(a.Field), a.Words, a.Hint, text)
	}
	box.Optional = !a.Required
	return box
}

// selectElement is a select with one of its choices chosen, where there is such one.
func selectElement(action, value string, choices []commands.Choice) *slack.SelectBlockElement {
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

// readForm reads a form that user submitted; what is wrong is told by block. own
// is what was typed when the form opened and meant the user's own account:
// the worker looks at both again.
func (b *Bot) readForm(c commands.Command, user, own string, values map[string]map[string]slack.BlockAction) (commands.Input, map[string]string) {
	self := false
	text := func(block string) string { return strings.TrimSpace(values[block][block].Value) }
	wrong := map[string]string{}
	in := commands.Input{Command: c}
	if c.Target {
		picked, typed := values[string(commands.FieldTarget)][string(commands.FieldTarget)].SelectedUser, text(blockTargetName)
		ref := typed
		if picked != "" {
			ref = "<@" + picked + ">"
		}
		self = picked != "" && picked == user || typed != "" && strings.EqualFold(typed, own)
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
	in.BreakGlass = c.Class == approvals.ClassContain && len(values[string(commands.FieldBreakGlass)][string(commands.FieldBreakGlass)].SelectedOptions) > 0
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
	needs := b.needs(c, self)
	for _, field := range commands.Missing(c, in, needs) {
		switch field {
		case commands.FieldVerified:
			if _, asked := values[string(field)]; !asked { // the form was for one's own account
				wrong[blockTargetName] = cmp.Or(wrong[blockTargetName], "For somebody else's account, type the command with their name: then you are asked how you made sure who they are.")
				continue
			}
			wrong[string(field)] = "Say how you made sure who was asking."
		case commands.FieldTicket:
			wrong[string(field)] = "The policy requires a ticket here."
		case commands.FieldJustification:
			switch {
			case in.BreakGlass:
				wrong[string(field)] = "Say why this cannot wait for an approval."
			case slices.Contains(needs.Fields, approvals.NeedJustification):
				wrong[string(field)] = "Say why."
			default:
				wrong[string(field)] = "Say why, or name a ticket below."
			}
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
func (b *Bot) openDeny(ctx context.Context, id, trigger string, d interaction) {
	view, err := b.open(ctx, trigger, denyForm(d))
	if err != nil {
		b.replyPrivately(ctx, d, "That took too long, and Slack no longer lets Countersign open a form. Nothing happened. Press Deny again.")
		return
	}
	b.fillForm(ctx, id, view, d, "Deny", func(note ...slack.Block) slack.ModalViewRequest { return denyForm(d, note...) }, nil)
}

// denyForm is that form. note says whom it is about.
func denyForm(d interaction, note ...slack.Block) slack.ModalViewRequest {
	reason := slack.NewPlainTextInputBlockElement(plain("Could not reach her manager", 150), blockReason)
	reason.Multiline, reason.MaxLength = true, commands.MaxJustification
	blocks := append(slices.Clone(note), paragraphs(textLine("A denial is final. %s ends, and nothing is done.", d.Request)),
		optional(input(blockReason, "Why", "The requester and the auditors read this.", reason)))
	view := modal("Deny "+d.Request, viewDeny, viewMeta{Request: d.Request, Channel: d.Channel, Card: d.Card}, blocks...)
	view.Submit, view.Close = plain("Deny", 24), plain("Back", 24)
	return view
}

// openDetails shows a request with its journal, to people who may see it.
func (b *Bot) openDetails(ctx context.Context, id, trigger string, d interaction) {
	view, err := b.open(ctx, trigger, modal(d.Request, "", viewMeta{}, paragraphs(textLine("Looking it up …"))))
	if err != nil {
		b.replyPrivately(ctx, d, "That took too long, and Slack no longer lets Countersign open a view. Press Details again.")
		return
	}
	b.runInBackground(id, func() {
		ctx, cancel := context.WithTimeout(ctx, b.Service.Store.Timing().LookUps)
		defer cancel()
		blocks, err := b.details(ctx, id, d)
		if err != nil {
			blocks = []slack.Block{paragraphs(textLine("%s", errorSentence(err)))}
		}
		b.fill(ctx, view, modal(d.Request, "", viewMeta{}, blocks...))
	})
}

func (b *Bot) details(ctx context.Context, id string, d interaction) ([]slack.Block, error) {
	who, err := b.actor(ctx, d)
	if err != nil {
		return nil, b.recordRefusal(ctx, id, d, who, err)
	}
	snap, err := b.Service.Store.Load(ctx, d.Request)
	if err != nil {
		return nil, err
	}
	if who.ID != snap.Requester.ID {
		if err := b.mayRead(ctx, who); err != nil {
			return nil, b.recordRefusal(ctx, id, d, who, err)
		}
	}
	return append(draw(snap.Request, textLimits{}, who.ID == snap.Requester.ID), journalBlocks(snap.Request)...), nil
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

// offerFormAgain offers a form again whose trigger has died.
func (b *Bot) offerFormAgain(ctx context.Context, d interaction, in commands.Input) {
	typed, value := in.String(), in.Command.Name+" "+in.String()
	if utf8.RuneCountInString(value) > maxValue {
		const text = "That took too long for Slack to open the form. Nothing happened. Please type the command again."
		b.replyPrivately(ctx, d, text, paragraphs(textLine(text), textLine("You typed: %s %s", commands.Slash(b.Prefix, in.Command), withoutMarkup(typed))))
		return
	}
	const text = "That took too long for Slack to open the form. What you typed is kept."
	b.replyPrivately(ctx, d, text, paragraphs(textLine(text)), slack.NewActionBlock("", button(actionOpen, value, "Open the form", slack.StylePrimary)))
}

// mayRead says whether somebody may see the requests of others.
func (b *Bot) mayRead(ctx context.Context, who approvals.Person) error {
	selfOnly, err := b.Service.MayRequest(ctx, "requests", approvals.ClassRead, who)
	if err == nil && selfOnly {
		return approvals.Refuse(approvals.CodeNotAllowed, "You may see your own requests only.")
	}
	return err
}

// publishHome shows somebody their App Home: what waits, and what is theirs.
func (b *Bot) publishHome(ctx context.Context, slackID string) {
	ctx, cancel := context.WithTimeout(ctx, b.Service.Store.Timing().LookUps)
	defer cancel()
	blocks, err := b.home(ctx, slackID)
	if err != nil {
		blocks = []slack.Block{header("Countersign"), paragraphs(textLine("%s", errorSentence(err)))}
	}
	if b.Service.Store.HasLostWrites() {
		blocks = slices.Insert(blocks, 0, paragraphs(line{}.text("🛑 ").bold("Countersign has stopped.").text(" Its Redis has lost confirmed writes, and until an administrator resumes it, nothing is decided or executed. %s", urgent)))
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
	blocks := []slack.Block{header("Countersign"), paragraphs(textLine("Two people for every change of an account: one asks, another approves."))}
	if err := b.mayRead(ctx, who); err == nil {
		open, err := b.Service.Store.Open(ctx)
		if err != nil {
			return nil, err
		}
		blocks = append(blocks, b.openRequestsFor(ctx, who, open)...)
	} else if no := (*approvals.Refusal)(nil); !errors.As(err, &no) {
		return nil, err
	}
	mine, err := b.Service.Store.Mine(ctx, who.ID)
	if err != nil {
		return nil, err
	}
	blocks = append(blocks, requestList("Yours", mine, "You have requested nothing yet.")...)
	help, err := b.helpBlocks(ctx, who)
	if err != nil {
		return nil, err
	}
	return append(append(blocks, slack.NewDividerBlock()), help...), nil
}

// openRequestsFor lists what is open, with the reviews that this person may give on top.
func (b *Bot) openRequestsFor(ctx context.Context, who approvals.Person, open []approvals.Snapshot) []slack.Block {
	var blocks []slack.Block
	if slices.ContainsFunc(open, func(s approvals.Snapshot) bool { return s.State == approvals.StateReview }) {
		if account, err := b.Service.Rights(ctx, who); err == nil { // else they stand among the others
			var reviews []approvals.Snapshot
			if reviews, open = b.reviewsFor(account, open); len(reviews) > 0 {
				blocks = append(requestList("Waiting for your review", reviews, ""), small("You review it on its card in the approvals channel."))
			}
		}
	}
	none := "Nothing is waiting."
	if len(blocks) > 0 {
		none = "Nothing else is waiting."
	}
	return append(blocks, requestList("Open requests", open, none)...)
}

// requestList lists requests with a button each.
func requestList(title string, all []approvals.Snapshot, none string) []slack.Block {
	blocks := []slack.Block{paragraphs(line{}.bold(title))}
	if len(all) == 0 {
		return append(blocks, paragraphs(textLine("%s", none)))
	}
	const most = 12 // two blocks each, and Slack takes fifty
	for _, r := range slices.Clone(all[:min(most, len(all))]) {
		blocks = append(blocks,
			paragraphs(textLine("%s %s for ", stateIcon(r.Request), r.Plan.Title).who(r.Plan.Target).raw(" · ").text("%s", r.Summary()),
				textLine("%s, requested by ", r.ID).who(r.Requester).raw(", ").when(r.Created)),
			slack.NewActionBlock("", button(actionDetails, r.ID, "Details", slack.StyleDefault)))
	}
	if len(all) > most {
		blocks = append(blocks, small("and %d more", len(all)-most))
	}
	return blocks
}

// journalBlocks is the outcome of each step, with what Microsoft's support asks
// for.
func journalBlocks(r approvals.Request) []slack.Block {
	var items []line
	for i, e := range r.Journal {
		if e.State == approvals.StepWaiting {
			continue
		}
		l := textLine("%s: %s", r.Plan.Steps[i].Words, e.State)
		if !e.Started.IsZero() {
			l = l.raw(" · started ").text("%s", e.Started.UTC().Format(time.TimeOnly+" UTC"))
		}
		if !e.Ended.IsZero() {
			l = l.text(" · %d ms", e.Ended.Sub(e.Started).Milliseconds())
		}
		if e.RequestID != "" {
			l = l.raw(" · Graph request-id ").code(e.RequestID)
		}
		items = append(items, l)
	}
	if len(items) == 0 {
		return nil
	}
	return list("Journal", slack.RTEListBullet, items)
}
