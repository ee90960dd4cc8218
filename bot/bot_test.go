package bot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/slack-go/slack"
	"github.com/slack-go/slack/socketmode"

	"countersign/approvals"
	"countersign/audit"
	"countersign/commands"
	"countersign/internal/redistest"
	sandbox "countersign/sandbox/slack"
)

const (
	approvers = "C0APPROVE"
	shared    = "C0SHARED"
	public    = "C0PUBLIC"
	elsewhere = "C0ELSEWHERE"
)

// workspace is a Slack that refuses what the real one refuses, and a bot in
// it that is not connected.
func workspace(t *testing.T) (*Bot, *sandbox.Server) {
	t.Helper()
	manifest, err := sandbox.ParseManifest(commands.Manifest("entra-"))
	if err != nil {
		t.Fatal(err)
	}
	s := sandbox.New(sandbox.Options{
		Workspace: sandbox.Workspace{TeamID: "T0HERE", Name: "Here", Domain: "here", AppID: "A0APP", BotUserID: "U0BOT", BotID: "B0BOT"},
		Manifest:  manifest, BotToken: "xoxb-bot", AppToken: "xapp-app",
		People: []sandbox.Person{{ID: "U0ANN", Handle: "ann", Name: "Ann"}, {ID: "U0BEN", Handle: "ben", Name: "Ben"}},
		Channels: []sandbox.Channel{
			{ID: approvers, Name: "approvals", Private: true, Members: []string{"U0ANN", "U0BOT"}},
			{ID: shared, Name: "shared", Private: true, Shared: true, Members: []string{"U0ANN", "U0BOT"}},
			{ID: public, Name: "public", Members: []string{"U0ANN", "U0BOT"}},
			{ID: elsewhere, Name: "elsewhere", Private: true, Members: []string{"U0ANN"}},
		},
	})
	server := httptest.NewServer(s.Handler())
	t.Cleanup(server.Close)
	t.Cleanup(s.Close)
	s.SetBase(server.URL)
	return New(Options{
		BotToken: "xoxb-bot", AppToken: "xapp-app", APIURL: server.URL + "/api/", HTTP: server.Client(),
		Team: "T0HERE", ApprovalsChannel: approvers, Prefix: "entra-", Log: slog.New(slog.DiscardHandler), Service: &approvals.Service{},
	}), s
}

// posts fails the test when Slack does not take blocks as one message.
func (b *Bot) posts(t *testing.T, what string, blocks []slack.Block) {
	t.Helper()
	if n := sizeOf(blocks); n > maxMessage {
		t.Errorf("%s: %d characters of blocks", what, n)
	}
	if _, _, err := b.api.PostMessageContext(t.Context(), approvers, slack.MsgOptionText("text", false), slack.MsgOptionBlocks(blocks...)); err != nil {
		answer, _ := errors.AsType[slack.SlackErrorResponse](err)
		t.Errorf("%s: Slack refuses it: %v %v", what, err, answer.ResponseMetadata.Messages)
	}
}

func person(name string) approvals.Person {
	return approvals.Person{ID: name + "-id", UPN: name + "." + strings.Repeat("x", 90) + "@a-rather-long-domain.example", Name: strings.Repeat(name+" ", 20)[:80], Slack: "U0" + strings.ToUpper(name)}
}

// worst is the largest request that people can make: every text as long as it
// may be, full of characters that JSON writes with six.
func worst(steps int, state approvals.State) approvals.Request {
	evil := func(n int) string { return strings.Repeat(`<&"`, n/3+1)[:n] }
	r := approvals.Request{
		ID: "R-7K3M9QXA", State: state, Requester: person("hanna"), Justification: evil(commands.MaxJustification), Ticket: evil(commands.MaxTicket),
		Verified: "in-person", Created: time.Now(), Deadline: time.Now(), Requirements: approvals.Requirements{Approvals: 2, Why: []string{evil(300)}},
		Plan: approvals.Plan{Command: "require-reregister", Title: "Require re-registration", Class: approvals.ClassDestroy, Target: person("dana"),
			Warnings: []string{evil(400), evil(400), evil(400), evil(400)}},
		Approvals: []approvals.Decision{{By: person("ravi"), At: time.Now()}, {By: person("olga"), At: time.Now()}},
		Journal:   make([]approvals.JournalEntry, steps),
	}
	for i := range steps {
		r.Plan.Steps = append(r.Plan.Steps, approvals.Step{Words: fmt.Sprintf("Step-%02d delete %s", i, evil(140))})
		r.Plan.Keeps = append(r.Plan.Keeps, evil(100))
		if state == approvals.StateDone {
			r.Journal[i] = approvals.JournalEntry{State: approvals.StepFailed, Detail: evil(400), RequestID: "0d8cf5b1-1e5a-4c7c-9a55-000000000000", Started: time.Now(), Ended: time.Now()}
		}
	}
	switch state {
	case approvals.StateDenied:
		r.Denial = &approvals.Decision{By: person("ravi"), At: time.Now(), Reason: evil(commands.MaxJustification)}
	case approvals.StateRunning:
		r.Halt = &approvals.Halt{By: person("ravi"), At: time.Now(), Why: "pressed Halt"}
	case approvals.StateDone:
		r.Outcome, r.Why, r.Ended = approvals.OutcomeUncertain, evil(800), time.Now()
	case approvals.StateReview:
		r.Outcome, r.Ended = approvals.OutcomeSucceeded, time.Now()
	}
	if (state == approvals.StateReview || state == approvals.StateDone) && steps <= 10 { // containment has few
		r.BreakGlass = &approvals.Decision{By: person("olga"), At: time.Now(), Reason: evil(commands.MaxJustification - 1)}
		if state == approvals.StateDone {
			r.Reviewed = &approvals.Verdict{By: person("ravi"), At: time.Now(), Verdict: approvals.VerdictNotJustified, Remark: evil(commands.MaxJustification)}
		}
	}
	return r
}

// The largest card that there can be is one message, with every step in
// sight, and what is cut is cut visibly.
func TestCardsFit(t *testing.T) {
	b, _ := workspace(t)
	for _, state := range []approvals.State{approvals.StatePending, approvals.StateApproved, approvals.StateRunning, approvals.StateReview, approvals.StateDone, approvals.StateDenied, approvals.StateExpired, approvals.StateCancelled} {
		for _, steps := range []int{1, 10, 30} {
			r := worst(steps, state)
			for name, blocks := range map[string][]slack.Block{"card": b.card(r), "receipt": b.receipt(r, true)} {
				what := fmt.Sprintf("the %s of %d steps, %s", name, steps, state)
				b.posts(t, what, blocks)
				shown := text(blocks)
				for i := range steps {
					if !strings.Contains(shown, fmt.Sprintf("Step-%02d", i)) {
						t.Errorf("%s does not show step %d", what, i)
					}
				}
				if steps == 30 && (!strings.Contains(shown, "Details shows them whole") || !strings.Contains(shown, "…")) {
					t.Errorf("%s does not say that it is cut", what)
				}
			}
		}
	}
	// Details, and an answer to requests, are whole.
	whole := append(draw(worst(30, approvals.StateDone), textLimits{}, false), journalBlocks(worst(30, approvals.StateDone))...)
	if shown := text(whole); strings.Contains(shown, "…") {
		t.Error("the details are cut")
	}
	for i, page := range pages(whole) {
		b.posts(t, fmt.Sprintf("page %d of the details", i+1), page)
	}
}

// text is every text in blocks, one behind the other.
func text(blocks []slack.Block) string {
	raw, err := json.Marshal(blocks)
	if err != nil {
		panic(err)
	}
	var tree any
	if err := json.Unmarshal(raw, &tree); err != nil {
		panic(err)
	}
	var out strings.Builder
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if s, ok := v["text"].(string); ok {
				out.WriteString(s + "\n")
			}
			for _, inner := range v {
				walk(inner)
			}
		case []any:
			for _, inner := range v {
				walk(inner)
			}
		}
	}
	walk(tree)
	return out.String()
}

// Whoever asks for their own account reads on their copy what that means for
// them, and not what the approver has to do.
func TestOwnAccount(t *testing.T) {
	b, _ := workspace(t)
	for state, says := range map[approvals.State][2]string{
		approvals.StatePending:   {"Nobody has verified the caller yet: do that yourself before you approve.", "You ask for your own account. Whoever approves makes sure first that it is you."},
		approvals.StateApproved:  {"⚠️ They ask for their own account.", "You ask for your own account."},
		approvals.StateDone:      {"They asked for their own account.", "You asked for your own account."},
		approvals.StateCancelled: {"They asked for their own account.", "You asked for your own account."},
	} {
		r := worst(3, state)
		r.Requester = r.Plan.Target
		card, receipt := text(b.card(r)), text(b.receipt(r, false))
		if !strings.Contains(card, says[0]) || strings.Contains(card, says[1]) {
			t.Errorf("%s: the card says: %s", state, card)
		}
		if !strings.Contains(receipt, says[1]) || strings.Contains(receipt, says[0]) {
			t.Errorf("%s: the requester's copy says: %s", state, receipt)
		}
	}
}

// What ended before any step began says that nothing was done.
func TestNothingWasDone(t *testing.T) {
	b, _ := workspace(t)
	r := worst(2, approvals.StateDone)
	r.BreakGlass, r.Reviewed, r.Outcome, r.Why = nil, nil, approvals.OutcomeFailed, "A method is gone."
	if shown := text(b.card(r)); !strings.Contains(shown, "What happened: ") || strings.Contains(shown, "othing was done") {
		t.Errorf("steps were tried, and the card says: %s", shown)
	}
	for i := range r.Journal {
		r.Journal[i] = approvals.JournalEntry{State: approvals.StepSkipped}
	}
	shown := text(b.card(r))
	for _, part := range []string{"failed, nothing was done", "Nothing was done: ", "What was to happen"} {
		if !strings.Contains(shown, part) {
			t.Errorf("%q is not in: %s", part, shown)
		}
	}
	if strings.Contains(shown, "What happened") {
		t.Errorf("nothing happened, and the card says what: %s", shown)
	}
}

// The last thing an approver reads names the target first, whatever is cut.
func TestConfirmation(t *testing.T) {
	b, _ := workspace(t)
	r := worst(3, approvals.StatePending)
	for _, block := range b.card(r) {
		actions, ok := block.(*slack.ActionBlock)
		if !ok {
			continue
		}
		for _, e := range actions.Elements.ElementSet {
			if button := e.(*slack.ButtonBlockElement); button.ActionID == actionApprove {
				got := button.Confirm.Text.Text
				if utf8.RuneCountInString(got) > maxConfirm || !strings.Contains(got, r.Plan.Title+" for "+r.Plan.Target.UPN+". Caller verified: in-person.") {
					t.Errorf("the confirmation says: %s", got)
				}
				return
			}
		}
	}
	t.Error("there is no Approve button")
}

// A person's profile, the service and a choice of people fit into messages
// however long their names are.
func TestAnswersFit(t *testing.T) {
	b, _ := workspace(t)
	p := commands.Profile{Person: person("dana"), Enabled: true, Title: strings.Repeat("t", 80), Department: strings.Repeat("d", 80), Manager: person("alexa")}
	for i := range 60 {
		p.Methods = append(p.Methods, commands.MethodLine{Kind: "Microsoft Authenticator", What: strings.Repeat("n", 125), Created: time.Now(), LastUsed: time.Now(), Flags: []string{fmt.Sprintf("number %02d", i)}})
	}
	var shown string
	for i, page := range pages(profileBlocks(p)) {
		b.posts(t, fmt.Sprintf("page %d of a profile", i+1), page)
		shown += text(page)
	}
	for i := range 60 {
		if !strings.Contains(shown, fmt.Sprintf("number %02d", i)) {
			t.Errorf("method %d is not shown", i)
		}
	}
	var all []approvals.Snapshot
	for range 30 {
		all = append(all, approvals.Snapshot{Request: worst(3, approvals.StateDenied)})
	}
	for i, page := range pages(requestList("Open requests", all, "")) {
		b.posts(t, fmt.Sprintf("page %d of the desk", i+1), page)
	}
}

func TestRecord(t *testing.T) {
	b, _ := workspace(t)
	for _, steps := range []int{1, 10, 30, 100} {
		e := audit.Event{Kind: audit.Finished, Request: "R-7K3M9QXA", Title: "Require re-registration", Target: person("dana"), Requester: person("hanna"),
			Outcome: "uncertain", Justification: strings.Repeat("w", 1000)}
		for i := range steps {
			e.Steps = append(e.Steps, audit.Step{Words: fmt.Sprintf("step-%02d %s", i, strings.Repeat("d", 120)), State: "failed", Detail: strings.Repeat("x", 200)})
		}
		blocks := auditLine(e)
		b.posts(t, fmt.Sprintf("the record of %d steps", steps), blocks)
		var shown strings.Builder
		for _, element := range blocks[0].(*slack.RichTextBlock).Elements[0].(*slack.RichTextSection).Elements {
			shown.WriteString(element.(*slack.RichTextSectionTextElement).Text)
		}
		if got := shown.String(); steps <= 10 && got != e.Line() {
			t.Errorf("the record of %d steps is not its line, but\n%s", steps, got)
		} else if !strings.HasSuffix(got, "R-7K3M9QXA") {
			t.Errorf("the record of %d steps ends with %q", steps, got[len(got)-40:])
		}
	}
}

func TestFilled(t *testing.T) {
	b, _ := workspace(t)
	reregister, _ := commands.Lookup("require-reregister")
	form := func(user, name, verified, why, ticket string) map[string]map[string]slack.BlockAction {
		return map[string]map[string]slack.BlockAction{
			"target":        {"target": {SelectedUser: user}},
			"target_name":   {"target_name": {Value: name}},
			"verified":      {"verified": {SelectedOption: slack.OptionBlockObject{Value: verified}}},
			"justification": {"justification": {Value: why}},
			"ticket":        {"ticket": {Value: ticket}},
		}
	}
	for name, c := range map[string]struct {
		values map[string]map[string]slack.BlockAction
		text   string   // canonical, where nothing is wrong
		wrong  []string // blocks
	}{
		"a person chosen":           {form("U0DANA", "", "video", " lost\nphone ", ""), "<@U0DANA> verified=video lost phone", nil},
		"a name typed":              {form("", " dana@fernhill.example ", "callback", "", "INC-7"), "dana@fernhill.example verified=callback ticket=INC-7", nil},
		"an object id":              {form("", "E6EBA5D7-AAF3-43D7-884A-6E59F2AF482F", "video", "why", ""), "e6eba5d7-aaf3-43d7-884a-6e59f2af482f verified=video why", nil},
		"a justification like keys": {form("U0DANA", "", "video", "ticket=INC-9 <@U0BO> verified=none", ""), `<@U0DANA> verified=video why="ticket=INC-9 &lt;@U0BO&gt; verified=none"`, nil},
		"both":                      {form("U0DANA", "dana@fernhill.example", "video", "why", ""), "", []string{"target_name"}},
		"nobody":                    {form("", "", "video", "why", ""), "", []string{"target_name"}},
		"a first name":              {form("", "dana", "video", "why", ""), "", []string{"target_name"}},
		"a handle":                  {form("", "@dana", "video", "why", ""), "", []string{"target_name"}},
		"more than a name":          {form("", "dana@fernhill.example verified=manager", "video", "why", ""), "", []string{"target_name"}},
		"two names":                 {form("", "dana@fernhill.example mina@fernhill.example", "video", "why", ""), "", []string{"target_name"}},
		"nothing else":              {form("U0DANA", "", "", " ", ""), "", []string{"justification", "verified"}},
		"an empty form":             {nil, "", []string{"justification", "target_name"}},
	} {
		t.Run(name, func(t *testing.T) {
			in, wrong := b.readForm(reregister, "U0ANN", "", c.values)
			var blocks []string
			for block := range wrong {
				blocks = append(blocks, block)
			}
			slices.Sort(blocks)
			if !slices.Equal(blocks, c.wrong) {
				t.Fatalf("wrong: %v", wrong)
			}
			if len(wrong) > 0 {
				return
			}
			if got := in.String(); got != c.text {
				t.Errorf("it asks for %q, not %q", got, c.text)
			}
			again, problems := commands.Parse(reregister, in.String())
			if len(problems) > 0 || again.Justification != in.Justification || again.Ticket != in.Ticket || again.Verified != in.Verified || again.Target.Slack != in.Target.Slack {
				t.Errorf("read again it is %+v %v", again, problems)
			}
		})
	}
}

// Every form opens, however long what was typed is.
func TestFormsFit(t *testing.T) {
	b, _ := workspace(t)
	for _, c := range commands.Table() {
		if !c.Target {
			continue
		}
		for _, in := range []commands.Input{
			{Command: c},
			{Command: c, Target: commands.Ref{Slack: "U0ANN"}, Justification: strings.Repeat("ü", commands.MaxJustification), Ticket: strings.Repeat("t", commands.MaxTicket)},
			{Command: c, Target: commands.Ref{Name: strings.Repeat("n", 400) + "@fernhill.example"}, Verified: "video"},
			{Command: c, Target: commands.Ref{ObjectID: "e6eba5d7-aaf3-43d7-884a-6e59f2af482f"}},
		} {
			view := b.form(form{in: in})
			if strings.Contains(view.Title.Text, "…") {
				t.Errorf("the title of its form is cut: %s", view.Title.Text)
			}
			_, err := b.now.OpenViewContext(t.Context(), "1.2.abc", b.form(form{in: in, channel: approvers, notes: []slack.Block{paragraphs(textLine("a note"))}, breakGlass: true}))
			if !errIs(err, "expired_trigger_id") { // everything else was in order
				answer, _ := errors.AsType[slack.SlackErrorResponse](err)
				t.Errorf("the form of %s: %v %v", c.Name, err, answer.ResponseMetadata.Messages)
			}
		}
	}
}

// Whatever is told of break-glass is taken by Slack, and so are its forms.
func TestBreakGlassFormFits(t *testing.T) {
	b, _ := workspace(t)
	r := worst(3, approvals.StateReview)
	e := audit.Event{Kind: audit.UsedBreakGlass, Request: r.ID, Title: r.Plan.Title, At: time.Now(), Actor: person("olga"), Requester: r.Requester, Target: r.Plan.Target, Reason: r.BreakGlass.Reason}
	card := approvals.Card{Channel: approvers, TS: "1700000000.000100"}
	b.posts(t, "the alarm", b.breakGlassBlocks(t.Context(), e, map[string]approvals.Card{cardApprovers: card}, []string{"S0ONE", "S0TWO"}, notifiedCount(7, 3)))
	if _, _, err := b.api.PostMessageContext(t.Context(), approvers, b.breakGlassNotice(t.Context(), e, nil, card)...); err != nil {
		t.Errorf("the news for an approver: %v", err)
	}
	d := interaction{Request: r.ID, Channel: approvers, Card: card}
	for what, view := range map[string]slack.ModalViewRequest{
		"use break-glass": b.breakGlassForm(d, paragraphs(textLine("a note"))),
		"justified":       reviewForm(interaction{Request: r.ID, ActionID: actionJustified}, draw(r, textLimits{}, false)...),
		"not justified":   reviewForm(interaction{Request: r.ID, ActionID: actionNotJustified}, draw(r, textLimits{}, false)...),
	} {
		if _, err := b.now.OpenViewContext(t.Context(), "1.2.abc", view); !errIs(err, "expired_trigger_id") {
			answer, _ := errors.AsType[slack.SlackErrorResponse](err)
			t.Errorf("the form for %s: %v %v", what, err, answer.ResponseMetadata.Messages)
		}
	}
}

// How many were told is said in whole sentences, whatever the numbers.
func TestCountOf(t *testing.T) {
	for _, c := range []struct {
		told, missed int
		says         string
	}{
		{0, 0, "Nobody else could have approved it."},
		{1, 0, "One other person could have approved it and was told by direct message."},
		{2, 1, "2 other people could have approved it and were told by direct message. One who could have approved it was not: their Slack account is not known or does not take messages."},
		{0, 2, "2 who could have approved it were not told: their Slack accounts are not known or do not take messages."},
	} {
		if got := notifiedCount(c.told, c.missed); got != c.says {
			t.Errorf("%d and %d: %q", c.told, c.missed, got)
		}
	}
}

func TestOutsider(t *testing.T) {
	fine := slack.User{ID: "U0ANN", TeamID: "T0HERE"}
	for name, c := range map[string]struct {
		change func(*slack.User)
		code   approvals.Code
	}{
		"a member":               {func(*slack.User) {}, ""},
		"an owner":               {func(u *slack.User) { u.IsOwner, u.IsAdmin = true, true }, ""},
		"deactivated":            {func(u *slack.User) { u.Deleted = true }, approvals.CodeNotMember},
		"a bot":                  {func(u *slack.User) { u.IsBot = true }, approvals.CodeNotMember},
		"an app":                 {func(u *slack.User) { u.IsAppUser = true }, approvals.CodeNotMember},
		"Slackbot":               {func(u *slack.User) { u.ID = "USLACKBOT" }, approvals.CodeNotMember},
		"a stranger":             {func(u *slack.User) { u.IsStranger = true }, approvals.CodeNotMember},
		"from another team":      {func(u *slack.User) { u.TeamID = "T0THERE" }, approvals.CodeNotMember},
		"of no team":             {func(u *slack.User) { u.TeamID = "" }, approvals.CodeNotMember},
		"a guest":                {func(u *slack.User) { u.IsRestricted = true }, approvals.CodeGuest},
		"a single-channel guest": {func(u *slack.User) { u.IsUltraRestricted = true }, approvals.CodeGuest},
		"invited":                {func(u *slack.User) { u.IsInvitedUser = true }, approvals.CodeNotMember},
	} {
		u := fine
		c.change(&u)
		no := outsider(u, "T0HERE")
		if code := codeOf(no); code != c.code {
			t.Errorf("%s: %q", name, code)
		}
	}
}

func codeOf(no *approvals.Refusal) approvals.Code {
	if no == nil {
		return ""
	}
	return no.Code
}

// directory knows people by object id and mail address.
type directory map[string]approvals.Person

func (d directory) Person(_ context.Context, ref string) (approvals.Person, error) {
	if p, ok := d[ref]; ok {
		return p, nil
	}
	return approvals.Person{}, approvals.ErrNoPerson
}

func (d directory) Account(ctx context.Context, id string, _ bool) (approvals.Account, error) {
	p, err := d.Person(ctx, id)
	return approvals.Account{Person: p, Enabled: true}, err
}

func newService(t *testing.T, people directory, tune ...func(*approvals.Timing)) *approvals.Service {
	t.Helper()
	ring, err := approvals.ParseRing("k1:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
	if err != nil {
		t.Fatal(err)
	}
	timing := approvals.DefaultTiming()
	timing.Follow = 10 * time.Millisecond
	for _, f := range tune {
		f(&timing)
	}
	return &approvals.Service{
		Store: approvals.NewStore(redistest.Start(t).Client(t), ring, "", timing), Directory: people, Log: slog.New(slog.DiscardHandler),
	}
}

// What comes from another workspace, or was meant for another app, is
// refused, answered and recorded, once, and nothing else is looked at.
func TestForeign(t *testing.T) {
	b, _ := workspace(t)
	b.appID.Store("A0APP")
	for _, c := range []struct {
		team, user, app string
		organisation    bool
		foreign         bool
	}{
		{"T0HERE", "T0HERE", "A0APP", false, false},
		{"T0HERE", "", "A0APP", false, false}, // users.info tells
		{"T0HERE", "T0THERE", "A0APP", false, true},
		{"T0THERE", "T0THERE", "A0APP", false, true},
		{"T0HERE", "T0HERE", "A0OTHER", false, true},
		{"T0HERE", "T0HERE", "", false, true},
		{"T0HERE", "T0HERE", "A0APP", true, true},
		{"", "", "", false, true},
	} {
		if got := b.foreign(c.team, c.user, c.app, c.organisation); (got != "") != c.foreign {
			t.Errorf("%+v: %q", c, got)
		}
	}
	b.Service = newService(t, directory{})
	for range 2 {
		err := b.execute(t.Context(), "envelope", interaction{Command: "revoke-sessions", Text: "<@U0ANN>", User: "U0STRANGER", Foreign: "its author is from workspace T0THERE"})
		if no := (*approvals.Refusal)(nil); !errors.As(err, &no) || no.Code != approvals.CodeNotMember {
			t.Fatalf("it was answered with %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var seen []audit.Event
	b.Service.Store.Follow(ctx, "test", approvals.Projection{Name: "test", Handle: func(_ context.Context, batch []audit.Event) (int, error) {
		seen = append(seen, batch...)
		cancel()
		return len(batch), nil
	}}, b.Log)
	if len(seen) != 1 || seen[0].Kind != audit.Refused || seen[0].Actor.Slack != "U0STRANGER" || seen[0].Command != "revoke-sessions" {
		t.Errorf("recorded is: %+v", seen)
	}
}

func TestAccount(t *testing.T) {
	ann, ben := approvals.Person{ID: "ann-id", UPN: "ann@here.example"}, approvals.Person{ID: "ben-id", UPN: "ben@here.example"}
	service := newService(t, directory{"ann-id": ann, "ben-id": ben, "ann@here.example": ann, "ben@here.example": ben})
	user := func(id, mail string, confirmed bool) slack.User {
		return slack.User{ID: id, IsEmailConfirmed: confirmed, Profile: slack.UserProfile{Email: mail}}
	}
	table := map[string]string{"U0BEN": "ben-id"}
	for _, c := range []struct {
		what   string
		match  bool
		user   slack.User
		who    string // object id, where it is somebody
		misled bool
	}{
		{"listed, whatever the e-mail", false, user("U0BEN", "ann@here.example", false), "ben-id", false},
		{"not listed", false, user("U0ANN", "ann@here.example", true), "", false},
		{"not confirmed", true, user("U0ANN", "ann@here.example", false), "", false},
		{"no e-mail", true, user("U0ANN", "", true), "", false},
		{"nobody has it", true, user("U0ANN", "eve@here.example", true), "", false},
		{"matched, and pinned", true, user("U0ANN", "ann@here.example", true), "ann-id", false},
		{"the same again", true, user("U0ANN", "ann@here.example", true), "ann-id", false},
		{"another one with that e-mail", true, user("U0EVE", "ann@here.example", true), "", true},
		{"the e-mail of somebody listed", true, user("U0EVE", "ben@here.example", true), "", true},
		{"pinned, and now with another e-mail", true, user("U0ANN", "ben@here.example", true), "", true},
	} {
		for _, self := range []bool{true, false} {
			p := people{options: Options{People: table, MatchEmail: c.match, Service: service}}
			who, err := p.account(t.Context(), c.user, self)
			no, pair := (*approvals.Refusal)(nil), (*changedPair)(nil)
			switch {
			case who.Slack != c.user.ID:
				t.Errorf("%s: it is not said whose Slack account it was: %+v", c.what, who)
			case c.who != "" && (err != nil || who.ID != c.who):
				t.Errorf("%s: %+v %v", c.what, who, err)
			case c.who == "" && (!errors.As(err, &no) || who.ID != ""):
				t.Errorf("%s: %+v %v", c.what, who, err)
			case errors.As(err, &pair) != c.misled:
				t.Errorf("%s: the security people are told: %t", c.what, !c.misled)
			}
		}
	}
}

// Cards go to private channels of this workspace in which the bot is.
func TestChannels(t *testing.T) {
	b, _ := workspace(t)
	for channel, says := range map[string]string{
		approvers: "", shared: "shared with people outside", public: "not a private channel", elsewhere: "does not see", "C0NOWHERE": "does not see",
	} {
		err := b.guard.check(t.Context(), channel, 0)
		no := (*unfitChannel)(nil)
		if says == "" && err != nil || says != "" && (!errors.As(err, &no) || !strings.Contains(no.sentence, says)) {
			t.Errorf("%s: %v", channel, err)
		}
	}
	// A question that Slack does not answer is no answer.
	b.guard.api = slack.New("xoxb-bot", slack.OptionAPIURL("http://127.0.0.1:1/"), slack.OptionHTTPClient(&http.Client{Timeout: time.Second}))
	no := (*unfitChannel)(nil)
	if err := b.guard.check(t.Context(), approvers, 0); err == nil || errors.As(err, &no) {
		t.Errorf("when Slack cannot be asked: %v", err)
	}
	if err := b.guard.check(t.Context(), approvers, time.Minute); err != nil {
		t.Errorf("what was told a moment ago is forgotten: %v", err)
	}
}

// Nothing is written into an audit channel that people outside read, and what
// was not written is kept for when they do not.
func TestRecordIsKeptInside(t *testing.T) {
	b, _ := workspace(t)
	batch := []audit.Event{{Kind: audit.Requested, Request: "R-7K3M9QXA", Title: "Revoke sessions"}, {Kind: audit.StepEnded}, {Kind: audit.Approved}}
	for channel, done := range map[string]int{shared: 0, public: 0, elsewhere: 0, approvers: 3} {
		b.AuditChannel = channel
		if n, err := b.keepRecord(t.Context(), batch); n != done || (err == nil) != (done == 3) {
			t.Errorf("in %s %d events are done: %v", channel, n, err)
		}
	}
}

func TestAsTyped(t *testing.T) {
	for sent, want := range map[string]string{
		"<@U0DANA|dana> lost phone":                        "@dana lost phone",
		"<@U0DANA> lost phone":                             "@U0DANA lost phone",
		"<mailto:dana@a.example|dana@a.example> why":       "dana@a.example why",
		"see <https://a.example/x|a.example/x> &amp; &lt;": "see a.example/x & <",
		"in <#C012|general> &lt;!channel&gt;":              "in #general <!channel>",
		"<":                                                "<",
	} {
		if got := withoutMarkup(sent); got != want {
			t.Errorf("%q is shown as %q, not %q", sent, got, want)
		}
	}
}

// An answer in an ack is never so long that Slack drops it.
func TestAcksAreShort(t *testing.T) {
	for _, text := range []string{strings.Repeat("&", 5000), strings.Repeat("<@U0DANA>", 900), strings.Repeat("𝔘", 5000)} {
		raw, err := json.Marshal(ephemeralPayload(text, "You typed: "+text))
		if err != nil || len(raw) > 16<<10 {
			t.Errorf("%d bytes, %v", len(raw), err)
		}
	}
}

// When too much waits, an envelope is left alone: without an ack Slack tells
// its author that it did not work.
func TestFullQueue(t *testing.T) {
	b, _ := workspace(t)
	queue := make(chan socketmode.Event, 1)
	stop := func(error) { t.Error("a full queue ends the program") }
	for range 3 {
		b.handleSocketEvent(socketmode.Event{Type: socketmode.EventTypeSlashCommand, Request: &socketmode.Request{EnvelopeID: "e"}}, queue, stop)
	}
	if len(queue) != 1 {
		t.Errorf("%d envelopes are in the queue", len(queue))
	}
}

// Errors after which nobody is let in end the program; others do not.
func TestFatalErrors(t *testing.T) {
	b, _ := workspace(t)
	for code, fatal := range map[string]bool{
		"not_allowed_token_type": true, "missing_scope": true, "token_expired": true, "forbidden_team": true, "access_denied": true,
		"internal_error": false, "ratelimited": false, "fatal_error": false,
	} {
		var ended error
		b.handleSocketEvent(socketmode.Event{Type: socketmode.EventTypeConnectionError, Data: &slack.ConnectionErrorEvent{ErrorObj: slack.SlackErrorResponse{Err: code}}},
			make(chan socketmode.Event, 1), func(err error) { ended = err })
		if (ended != nil) != fatal {
			t.Errorf("%s: %v", code, ended)
		}
	}
}

// A panic over one envelope is contained, and those that are slow do not pile
// up without end.
func TestRecoverPanic(t *testing.T) {
	b, _ := workspace(t)
	b.recoverPanic("e", func() { panic("boom") })
	hold := make(chan struct{})
	for range cap(b.spare) + 10 {
		b.runInBackground("e", func() { <-hold })
	}
	if len(b.spare) != cap(b.spare) {
		t.Errorf("%d run beside the hands, of %d", len(b.spare), cap(b.spare))
	}
	b.runInBackground("e", func() { t.Error("there was no place for this") })
	close(hold)
	b.beside.Wait()
	b.runInBackground("e", func() { panic("boom") })
	b.beside.Wait()
}

// Trouble that passes is tried again; trouble with one message does not hold
// up the others for ever.
func TestPassing(t *testing.T) {
	b, _ := workspace(t)
	for _, c := range []struct {
		err   error
		age   time.Duration
		again bool
	}{
		{nil, 0, false},
		{errors.New("EOF"), time.Hour, true},
		{&slack.RateLimitedError{RetryAfter: time.Second}, time.Hour, true},
		{slack.SlackErrorResponse{Err: "channel_not_found"}, 0, false},
		{slack.SlackErrorResponse{Err: "fatal_error"}, time.Minute, true},
		{slack.SlackErrorResponse{Err: "fatal_error"}, time.Hour, false},
		{slack.SlackErrorResponse{Err: "token_revoked"}, time.Hour, true},
	} {
		if got := b.passing(audit.Event{At: time.Now().Add(-c.age)}, c.err); (got != nil) != c.again {
			t.Errorf("%v, %s old: %v", c.err, c.age, got)
		}
	}
}

// A process that stands still while it shows a request, until somebody else may
// lead and show something newer, shows nothing that is old by then; and where
// that was on its way already, it looks again.
func TestNothingOldIsShown(t *testing.T) {
	ann, ben := approvals.Person{ID: "ann-id", UPN: "ann@here.example"}, approvals.Person{ID: "ben-id", UPN: "ben@here.example"}
	for name, want := range map[string][]approvals.State{"before": {approvals.StateCancelled}, "behind": {approvals.StatePending, approvals.StateCancelled}} {
		b, _ := workspace(t)
		b.Service = newService(t, directory{"ann-id": ann, "ben-id": ben}, func(timing *approvals.Timing) { timing.Lead = 300 * time.Millisecond })
		r, err := b.Service.Submit(t.Context(), "asked", approvals.Submit{Requester: ann, Requirements: approvals.Requirements{Approvals: 1, Lifetime: time.Hour},
			Plan: approvals.Plan{Command: "revoke-sessions", Class: approvals.ClassContain, Target: ben, Steps: []approvals.Step{{Op: "revoke-sessions"}}}})
		if err != nil {
			t.Fatal(err)
		}
		var shown []approvals.State
		stood := false
		err = b.upToDate(t.Context(), r.ID, true, func(ctx context.Context, r approvals.Request) error {
			stands := func(where string) {
				if stood || where != name {
					return
				}
				stood = true
				if _, err := b.Service.Cancel(t.Context(), "cancelled", r.ID, ann); err != nil {
					t.Fatal(err)
				}
				time.Sleep(b.Service.Store.Timing().Lead)
			}
			stands("before")
			_, _, err := b.api.PostMessageContext(ctx, approvers, slack.MsgOptionText(string(r.State), false))
			if err == nil { // and it was not too old already, as it may be on a busy machine
				shown = append(shown, r.State)
				stands("behind")
			}
			return err
		})
		if err != nil || !slices.Equal(shown, want) {
			t.Errorf("it stood still %s it was sent: shown was %q, not %q (%v)", name, shown, want, err)
		}
	}
}

// What is given up is told as what it is: somebody may have died just behind
// carrying it out.
func TestSlackErrorsThatStay(t *testing.T) {
	for what, c := range map[string]approvals.Arrival{
		"was not carried out: it waited":                           {Stale: true, Deliveries: 1},
		"may not have been carried out: it waited":                 {Stale: true, Deliveries: 2},
		"may not have been carried out: it failed again and again": {Poisoned: true, Deliveries: 6},
	} {
		b, s := workspace(t)
		b.Service = newService(t, directory{})
		c.Envelope, c.At = "envelope", time.Now()
		c.Payload = []byte(`{"command":"revoke-sessions","text":"x","user":"U0ANN","channel":"` + approvers + `"}`)
		if err := b.handleArrival(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		read := httptest.NewRecorder()
		s.PersonAPI().ServeHTTP(read, httptest.NewRequest(http.MethodGet, "/sandbox/messages?as=U0ANN&channel="+approvers, nil))
		if !strings.Contains(read.Body.String(), what) {
			t.Errorf("%q is not in: %s", what, read.Body)
		}
	}
}
