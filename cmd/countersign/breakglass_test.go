package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"countersign/approvals"
	"countersign/sandbox"
	"countersign/sandbox/entra"
)

const (
	minaUPN = "mina.haddad@fernhill.example"
	olgaUPN = "olga.lindqvist@fernhill.example"
)

// calm lets look-ups take their time: many of these tests run at once.
func calm(c *config) { c.Timing.LookUps = 20 * time.Second }

// rule changes what the policy says of a class.
func rule(class approvals.Class, change func(*approvals.Rule)) func(*config) {
	return func(c *config) {
		r := c.Policy.Classes[class]
		change(&r)
		c.Policy.Classes[class] = r
	}
}

// also adds a group to the policy, and to those who approve containment.
func also(name string, g approvals.Group) func(*config) {
	return func(c *config) {
		c.Policy.Groups[name] = g
		rule(approvals.ClassContain, func(r *approvals.Rule) { r.Approve = append(slices.Clone(r.Approve), name) })(c)
	}
}

// review presses one of the two buttons of a card under review and sends the
// form that comes.
func (h *slackUser) review(card sandbox.Message, button, remark string) sandbox.Answer {
	h.w.Helper()
	h.presses(card, button)
	form := h.sees("You say with your name", "Break-glass used by")
	answer := h.submits(form, map[string]string{"reason": remark})
	if !answer.OK {
		if err := h.p.Close(form.ID); err != nil {
			h.w.Fatal(err)
		}
	}
	return answer
}

// usesBreakGlass presses the button of a card and says why.
func (h *slackUser) usesBreakGlass(card sandbox.Message, why string) {
	h.w.Helper()
	h.presses(card, "break-glass")
	form := h.sees("What happens when you use break-glass", " for ")
	if a := h.submits(form, map[string]string{"reason": why}); !a.OK {
		h.w.Fatalf("%s could not use break-glass: %+v", h.p.ID, a)
	}
}

// poll waits for what no change in the sandbox tells of.
func (w *fixture) poll(what string, so func() bool) {
	w.Helper()
	for give := time.Now().Add(patience); !so(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(give) {
			w.Fatalf("waited for %s in vain", what)
		}
	}
}

// noForm waits until somebody sees no form any more.
func (h *slackUser) noForm() {
	h.w.Helper()
	h.w.waitFor("no form", func() bool {
		views, err := h.p.Views()
		return err == nil && len(views.Modals) == 0
	})
}

// The whole story: typed at night, executed at once, told to everybody who
// could have approved it, and reviewed by somebody else.
func TestBreakGlass(t *testing.T) {
	t.Parallel()
	w := startBot(t, calm, func(c *config) { c.Slack.SecurityChannel = sandbox.HelpDesk },
		also("one of them", approvals.Group{People: []string{sandbox.DanaID, sandbox.HannaID}}))
	olga, ravi, gloria := w.as(sandbox.Olga, sandbox.Approvals), w.as(sandbox.Ravi, sandbox.Approvals), w.as(sandbox.Gloria, sandbox.Audit)
	before, err := w.client.User(danaUPN)
	if err != nil {
		t.Fatal(err)
	}

	w.as(sandbox.Olga, sandbox.HelpDesk).types("/entra-revoke-sessions @dana break-glass laptop stolen")
	w.as(sandbox.Olga, sandbox.HelpDesk).reads("runs now as R-", danaUPN, "with break-glass")
	w.account(danaUPN, func(u sandbox.User) bool { return u.SessionsValidFrom != before.SessionsValidFrom })
	card := ravi.reads("Revoke sessions: done with break-glass, review due", danaUPN, "Break-glass used by", olgaUPN, "laptop stolen", "What happened")
	id := requestID.FindString(card.Text())
	var labels []string
	for _, b := range card.Buttons() {
		labels = append(labels, b.Text)
	}
	if got := strings.Join(labels, ", "); got != "Justified, Not justified, Details" {
		t.Errorf("a card that waits for its review has the buttons %s", got)
	}
	gloria.reads("olga.lindqvist@", "used break-glass", danaUPN, "laptop stolen", id)
	gloria.reads("Succeeded: ", "break-glass used by", olgaUPN, id)

	// The requester hears that a review is due, everybody who could have
	// approved that it happened, and the target nothing.
	olga.dm().reads("Done: ", id, "somebody else has to review it")
	for _, who := range []string{sandbox.Ravi, sandbox.Hanna} {
		news := w.as(who, "").dm().reads("used break-glass", danaUPN, "Why: laptop stolen", "You could have approved it", "Go to its card", id)
		if len(news.Buttons()) > 0 {
			t.Errorf("%s can review in direct messages: %+v", who, news.Buttons())
		}
	}
	alarm := ravi.reads("Break-glass used by", olgaUPN, danaUPN, "Why: laptop stolen", "2 other people could have approved it and were told by direct message", id)
	w.as(sandbox.Hanna, sandbox.HelpDesk).reads("used break-glass", danaUPN, "laptop stolen", id) // the security channel
	if alarm.TS == card.TS {
		t.Error("there is no message of its own about the break-glass")
	}
	if dm, err := w.client.As(sandbox.Dana).DM(); err != nil || dm != "" {
		t.Errorf("the target was written to: %q %v", dm, err)
	}

	// Whoever had a part in it does not review it.
	for _, c := range []struct{ who, says string }{
		{sandbox.Olga, "You used break-glass for"},
		{sandbox.Dana, "your own account"},
		{sandbox.Gloria, "You may not review this"},
	} {
		h := w.as(c.who, sandbox.Approvals)
		h.presses(card, "justified")
		form := h.sees(c.says) // before anything is typed
		if len(form.Inputs()) > 0 || form.Submit != "" {
			t.Errorf("%s can send the form all the same", c.who)
		}
		if err := h.p.Close(form.ID); err != nil {
			t.Fatal(err)
		}
		gloria.reads("tried to review and was refused", c.says, id)
	}
	// In the App Home and on the service it stands on top, for those who may.
	if err := ravi.p.Home(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := ravi.p.WaitHome(ctx, func(v sandbox.View) bool { return v.Contains("Waiting for your review", id) }); err != nil {
		t.Errorf("Ravi's App Home does not ask him for the review: %v", err)
	}
	olga.types("/entra-requests pending")
	if service := olga.reads("Open requests", id); service.Contains("Waiting for your review") {
		t.Errorf("Olga is asked to review what she did:\n%s", service.Text())
	}
	ravi.types("/entra-requests pending")
	ravi.reads("Waiting for your review", id)

	if a := ravi.review(card, "not-justified", ""); a.OK || a.Errors["reason"] == "" {
		t.Errorf("a bad verdict without a word was taken: %+v", a)
	}
	if a := ravi.review(card, "not-justified", "he was standing next to you"); !a.OK {
		t.Fatalf("the review was not taken: %+v", a)
	}
	after := ravi.reads("done with break-glass, not justified", "Reviewed by", "he was standing next to you")
	if after.TS != card.TS || len(after.Buttons()) > 0 {
		t.Errorf("the reviewed card is another one, or has buttons: %+v", after.Buttons())
	}
	olga.dm().reads("not justified", "he was standing next to you", id)
	gloria.reads("ravi.menon@", "reviewed", "not justified", "he was standing next to you", id)
	w.as(sandbox.Hanna, sandbox.HelpDesk).reads("reviewed what ran with break-glass and found it not justified", id) // the security channel
	ravi.types("/entra-requests pending")
	ravi.reads("Open requests", "Nothing is waiting")
}

// The alarm may be there before the card. Everybody is led to the card all the
// same, and nobody to the alarm itself.
func TestBreakGlassLinksToItsCard(t *testing.T) {
	t.Parallel()
	slackAPI, through := newSlackProxy(t)
	w := startBot(t, calm, through)
	release := make(chan struct{})
	resume := sync.OnceFunc(func() { close(release) })
	t.Cleanup(resume)
	slackAPI.dropCall(droppedCall{method: "conversations.open", parts: []string{"users=" + sandbox.Olga}, holdUntil: release}) // for the receipt, before the card
	ravi := w.as(sandbox.Ravi, sandbox.Approvals)
	w.as(sandbox.Olga, sandbox.HelpDesk).types("/entra-revoke-sessions @dana break-glass laptop stolen")
	ravi.reads("Break-glass used by", danaUPN)
	resume()
	card := ravi.reads("Revoke sessions: ", "What ", danaUPN)
	for _, m := range []sandbox.Message{ravi.dm().reads("You could have approved it"), ravi.reads("Break-glass used by", "told by direct message")} {
		way := "p" + strings.ReplaceAll(card.TS, ".", "")
		if !m.Contains("Go to its card") || !slices.ContainsFunc(m.Blocks, func(raw json.RawMessage) bool { return strings.Contains(string(raw), way) }) {
			t.Errorf("it does not lead to the card: %s\n%s", m.Text(), m.Blocks)
		}
	}
}

// From the card of somebody else's request, and from one's own copy.
func TestBreakGlassByButton(t *testing.T) {
	t.Parallel()
	w := startBot(t, calm)
	hanna, ravi, olga := w.as(sandbox.Hanna, sandbox.Approvals), w.as(sandbox.Ravi, sandbox.Approvals), w.as(sandbox.Olga, sandbox.Approvals)
	w.as(sandbox.Hanna, sandbox.HelpDesk).types("/entra-block-signin @mina laptop stolen")
	card := olga.reads("waiting for approval", minaUPN)
	id := requestID.FindString(card.Text())
	receipt := hanna.dm().reads("waiting for approval", minaUPN)
	if _, ok := receipt.Button("break-glass"); ok {
		t.Error("Hanna, who is not on call, is offered to use break-glass")
	}

	hanna.presses(card, "break-glass")
	view := hanna.sees("You may not use break-glass", "on-call")
	if len(view.Inputs()) > 0 || view.Submit != "" {
		t.Error("the form can be sent all the same")
	}
	if err := hanna.p.Close(view.ID); err != nil {
		t.Fatal(err)
	}
	w.as(sandbox.Gloria, sandbox.Audit).reads("hanna.okafor@", "tried to use break-glass and was refused", id)

	olga.presses(card, "break-glass")
	form := olga.sees("Everybody who could have approved it is told now", "You can do this 3 times an hour", minaUPN)
	if a := olga.submits(form, nil); a.OK {
		t.Error("break-glass was used without a reason")
	}
	if a := olga.submits(form, map[string]string{"reason": "sign-ins from abroad"}); !a.OK {
		t.Fatalf("the form was not taken: %+v", a)
	}
	olga.noForm()
	w.account(minaUPN, func(u sandbox.User) bool { return !u.Enabled })
	card = ravi.reads("done with break-glass, review due", minaUPN, "sign-ins from abroad")
	hanna.dm().reads("used break-glass for your request", olgaUPN, "sign-ins from abroad", id)
	hanna.dm().reads("Done: ", id, "somebody else has to review it")
	olga.dm().reads("You used break-glass for it", "Done: ", id)
	ravi.dm().reads("You could have approved it", id)
	if a := ravi.review(card, "justified", ""); !a.OK {
		t.Fatalf("the review was not taken: %+v", a)
	}
	ravi.reads("done with break-glass, justified", minaUPN)
	for _, h := range []*slackUser{hanna.dm(), olga.dm()} {
		h.reads("found it justified", id)
	}

	// One's own copy has the button where one may.
	olga.types("/entra-revoke-sessions @mina laptop stolen")
	own := olga.dm().reads("waiting for approval", "Revoke sessions", minaUPN)
	before := w.countChanges("revokeSignInSessions")
	olga.dm().usesBreakGlass(own, "cannot wait")
	ravi.reads("Revoke sessions: done with break-glass, review due", "cannot wait")
	if got := w.countChanges("revokeSignInSessions") - before; got != 1 {
		t.Errorf("the sessions were revoked %d times", got)
	}
}

// Whoever may not deny is told before they type why.
func TestADenialIsCheckedBeforeItIsTyped(t *testing.T) {
	t.Parallel()
	w := startBot(t, calm)
	w.as(sandbox.Hanna, sandbox.HelpDesk).types("/entra-block-signin @dana laptop stolen")
	ravi, gloria := w.as(sandbox.Ravi, sandbox.Approvals), w.as(sandbox.Gloria, sandbox.Audit)
	card := ravi.reads("waiting for approval", danaUPN)
	id := requestID.FindString(card.Text())
	for who, says := range map[string]string{sandbox.Hanna: "You asked for", sandbox.Dana: "your own account", sandbox.Gloria: "You may not decide this"} {
		h := w.as(who, sandbox.Approvals)
		h.presses(card, "deny")
		if form := h.sees(says); len(form.Inputs()) > 0 || form.Submit != "" {
			t.Errorf("%s can send the form all the same", who)
		}
		gloria.reads("tried to deny and was refused", says, id)
	}
	ravi.presses(card, "deny")
	if a := ravi.submits(ravi.sees("A denial is final", danaUPN), map[string]string{"reason": "it was found"}); !a.OK {
		t.Fatalf("the denial was not taken: %+v", a)
	}
	ravi.reads("denied", danaUPN, "it was found")
}

// In the form the box is there for those who may, and wants a reason.
func TestBreakGlassInForm(t *testing.T) {
	t.Parallel()
	w := startBot(t, calm)
	olga, hanna := w.as(sandbox.Olga, sandbox.HelpDesk), w.as(sandbox.Hanna, sandbox.HelpDesk)
	hanna.types("/entra-block-signin")
	form := hanna.sees("Whose account")
	if _, there := form.Inputs()["glass"]; there {
		t.Error("Hanna is offered to use break-glass")
	}
	if err := hanna.p.Close(form.ID); err != nil {
		t.Fatal(err)
	}

	olga.types("/entra-block-signin")
	form = olga.sees("Use break-glass")
	values := map[string]map[string]any{"target": {"target": sandbox.Mina}, "glass": {"glass": []string{"yes"}}}
	if a, err := olga.p.Submit(form.ID, values); err != nil || a.OK || !strings.Contains(a.Errors["justification"], "cannot wait") {
		t.Fatalf("without a reason: %+v %v", a, err)
	}
	values["justification"] = map[string]any{"justification": "laptop stolen"}
	if a, err := olga.p.Submit(form.ID, values); err != nil || !a.OK {
		t.Fatalf("the form was not taken: %+v %v", a, err)
	}
	olga.reads("with break-glass", minaUPN)
	w.account(minaUPN, func(u sandbox.User) bool { return !u.Enabled })

	olga.types("/entra-help block-signin")
	olga.reads("In an emergency you may run it before anybody approves", "break-glass")

	// Typed without a reason, the form asks for that and has the rest.
	olga.types("/entra-revoke-sessions @mina break-glass")
	form = olga.sees("Use break-glass", minaUPN)
	if got := form.Inputs()["glass"]["glass"]; fmt.Sprint(got) != "[yes]" {
		t.Errorf("what was typed is not ticked: %v", got)
	}
	if err := olga.p.Close(form.ID); err != nil {
		t.Fatal(err)
	}
	// Who may not is told in the form, and can ask for approval.
	hanna.types("/entra-revoke-sessions @mina break-glass")
	form = hanna.sees("You may not use break-glass", "You can ask for approval")
	if _, there := form.Inputs()["glass"]; there {
		t.Error("Hanna is offered to use break-glass")
	}
	if a := hanna.submits(form, map[string]string{"justification": "laptop stolen"}); !a.OK {
		t.Fatalf("the form was not taken: %+v", a)
	}
	hanna.reads("is requested as", "waits for one other person")
}

// Where the glass must not be broken the request waits like any other, and its
// author is told both.
func TestBreakGlassRefused(t *testing.T) {
	t.Parallel()
	w := startBot(t, calm, func(c *config) { c.Policy.Limits.BreakGlass = approvals.Limit{Count: 1, Within: time.Hour} },
		also("one of them", approvals.Group{People: []string{sandbox.DanaID}}))
	hanna, olga, ravi := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Olga, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
	gloria := w.as(sandbox.Gloria, sandbox.Audit)

	hanna.types("/entra-block-signin @mina break-glass laptop stolen")
	hanna.reads("is requested as", minaUPN, "waits for one other person", "Break-glass was refused", "It is for: on-call")
	card := ravi.reads("waiting for approval", minaUPN)
	gloria.reads("hanna.okafor@", "tried to use break-glass and was refused", requestID.FindString(card.Text()))

	// The same request is open: Olga's word is about that one.
	olga.types("/entra-block-signin @mina break-glass sign-ins from abroad")
	olga.reads("runs now as "+requestID.FindString(card.Text()), "with break-glass")
	ravi.reads("done with break-glass, review due", minaUPN, "sign-ins from abroad")

	olga.types("/entra-revoke-sessions @mina break-glass once more")
	olga.reads("is requested as", "waits for one other person", "Break-glass was refused", "reached your limit of 1 request an hour with break-glass")
	olga.types("/entra-revoke-sessions @mina break-glass and once more")
	olga.reads("is already requested as", "waits for one other person", "Break-glass was refused")
	ravi.reads("Revoke sessions: waiting for approval", minaUPN)

	olga.types("/entra-block-signin @gloria break-glass looks odd")
	olga.reads("is requested as", "gloria.adeyemi@", "waits for 2 other people", "Break-glass was refused", "the target is protected")
	if _, ok := ravi.reads("Block sign-in: waiting for approval", "gloria.adeyemi@").Button("break-glass"); ok {
		t.Error("the card of a protected target has the button")
	}

	for _, text := range []string{"/entra-reset-password @mina break-glass verified=video", "/entra-require-reregister @mina break-glass verified=video lost phone"} {
		olga.types(text)
		olga.reads("Only containment", "can be run before it is approved")
	}
	if card, ok := ravi.reads("Revoke sessions: waiting for approval", minaUPN).Button("break-glass"); !ok || card.Text != "Use break-glass" {
		t.Errorf("the card has no such button: %+v", card)
	}
	w.account("gloria.adeyemi@fernhill.example", func(u sandbox.User) bool { return u.Enabled })
}

// An event that comes again tells nobody again.
func TestBreakGlassToldOnce(t *testing.T) {
	t.Parallel()
	w := startBot(t, calm)
	if !w.redis.Real() {
		t.Skip("this needs a real redis-server: apt-get install redis-server")
	}
	olga, ravi := w.as(sandbox.Olga, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
	envelope := olga.types("/entra-block-signin @mina break-glass laptop stolen").Envelope
	ravi.reads("One other person could have approved it and was told by direct message", minaUPN)
	ravi.dm().reads("You could have approved it", minaUPN)
	if err := w.client.Redeliver(envelope); err != nil {
		t.Fatal(err)
	}

	// Every event once more, from the first.
	rdb := w.redis.Client(t)
	handled := func() bool {
		n, err := rdb.Exists(t.Context(), "{countersign}:cursor:glass", "{countersign}:cursor:people").Result()
		return err == nil && n == 2
	}
	w.poll("events to be handled", handled)
	w.stop()
	for _, projection := range []string{"glass", "people"} {
		if n, err := rdb.Del(t.Context(), "{countersign}:cursor:"+projection).Result(); err != nil || n != 1 {
			t.Fatalf("the cursor of %s: %d %v", projection, n, err)
		}
	}
	w.start()
	w.poll("all events once more", handled)
	// The cards and the audit log have projections of their own.
	auditor := w.as(sandbox.Gloria, sandbox.Audit)
	ravi.reads("What happened", minaUPN)
	auditor.reads("used break-glass, so that it runs")
	if n := len(ravi.dm().messagesWith("You could have approved it")); n != 1 {
		t.Errorf("Ravi was told %d times", n)
	}
	if n := len(ravi.messagesWith("Break-glass used by", "Somebody else has to say on its card")); n != 1 {
		t.Errorf("the channel was told %d times", n)
	}
	if n := len(ravi.messagesWith("What happened", minaUPN)); n != 1 {
		t.Errorf("there are %d cards", n)
	}
	w.account(minaUPN, func(u sandbox.User) bool { return !u.Enabled })
	if n := len(auditor.messagesWith("used break-glass, so that it runs")); n != 1 {
		t.Errorf("break-glass was used %d times", n)
	}
}

// Who could have approved is found in Entra groups, Slack user groups and
// among single people, and told where a Slack account is certainly theirs.
func TestBreakGlassAudience(t *testing.T) {
	t.Parallel()
	world := sandbox.Fernhill(time.Now())
	world.UserGroups[0].Users = []string{sandbox.Olga, sandbox.Alex, sandbox.Pat, sandbox.Mina}
	w := startBotIn(t, &world, calm, also("duty", approvals.Group{Slack: []string{sandbox.OnCallUserGroup}}),
		also("some", approvals.Group{People: []string{sandbox.EliasID, sandbox.PatID, sandbox.BoID, sandbox.MinaID, sandbox.SamID}}))
	w.patchSlack("people/"+sandbox.Elias, `{"email":"somebody.else@fernhill.example"}`)
	w.as(sandbox.Olga, sandbox.HelpDesk).types("/entra-block-signin mina.haddad@fernhill.example break-glass laptop stolen")
	ravi := w.as(sandbox.Ravi, sandbox.Approvals)
	// Ravi by his Entra group, Alex by the user group, Sam by himself; not
	// known is Elias' account, and Pat is a guest in the user group.
	ravi.reads("Break-glass used by", "3 other people could have approved it and were told by direct message", "2 who could have approved it were not", "@"+sandbox.OnCallUserGroup)
	for _, who := range []string{sandbox.Ravi, sandbox.Alex, sandbox.Sam} {
		w.as(who, "").dm().reads("You could have approved it", minaUPN)
	}
	for _, who := range []string{sandbox.Elias, sandbox.Pat, sandbox.Bo, sandbox.Mina} {
		if dm, err := w.client.As(who).DM(); err == nil && dm != "" {
			t.Errorf("%s was written to", who)
		}
	}
}

// Too many for a message to each, or nobody knows who: the channel is told.
func TestBreakGlassTellsEverybody(t *testing.T) {
	t.Parallel()
	crowd := sandbox.Fernhill(time.Now())
	const everyone = "5d9f3c52-0f0c-4a39-9f0e-2b1f6a1c7d10"
	group := entra.Group{ID: everyone, DisplayName: "Everyone"}
	for i := range 101 {
		id := fmt.Sprintf("6a1d2f3e-4b5c-4d6e-8f70-%012x", i+1)
		crowd.Users = append(crowd.Users, entra.User{ID: id, UserPrincipalName: fmt.Sprintf("member%d@fernhill.example", i), DisplayName: fmt.Sprint("Member ", i)})
		group.Members = append(group.Members, id)
	}
	crowd.Groups = append(crowd.Groups, group)
	w := startBotIn(t, &crowd, calm, also("everyone", approvals.Group{Entra: []string{everyone}}))
	olga, ravi := w.as(sandbox.Olga, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
	olga.types("/entra-block-signin @mina break-glass laptop stolen")
	ravi.reads("@channel", "More than 100 people could have approved it", olgaUPN, minaUPN)

	if err := w.client.SetEntraFaults(entra.Fault{Method: "GET", Path: "transitiveMembers", Times: -1, Kind: entra.FaultStatus, Status: 403, Code: "Authorization_RequestDenied"}); err != nil {
		t.Fatal(err)
	}
	olga.types("/entra-block-signin @alex break-glass laptop stolen")
	ravi.reads("@channel", "Who could have approved it could not be looked up", olgaUPN, "alex.morgan@")
	w.account("alex.morgan@fernhill.example", func(u sandbox.User) bool { return !u.Enabled })
	if dm, err := ravi.p.DM(); err != nil || dm != "" {
		t.Errorf("Ravi was written to: %q %v", dm, err)
	}
}

// What is due is reminded of: a review until it is given, a decision before
// its time is over.
func TestReminders(t *testing.T) {
	t.Parallel()
	w := startBot(t, calm, func(c *config) { c.Timing.Remind, c.Timing.Warn = time.Second, time.Minute }, rule(approvals.ClassContain, func(r *approvals.Rule) { r.Lifetime = 40 * time.Second }),
		also("duty", approvals.Group{Slack: []string{sandbox.OnCallUserGroup}}))
	hanna, olga, ravi := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Olga, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
	hanna.types("/entra-revoke-sessions @dana laptop stolen")
	olga.types("/entra-block-signin @mina break-glass laptop stolen")
	again := func() bool {
		return len(ravi.messagesWith("Still to be reviewed", olgaUPN, minaUPN, "Why: laptop stolen", "Go to its card")) >= 2
	}
	w.waitFor("two reminders of the review", again)
	card := ravi.reads("done with break-glass, review due", minaUPN)
	if a := ravi.review(card, "justified", "right so"); !a.OK {
		t.Fatalf("the review was not taken: %+v", a)
	}
	ravi.reads("done with break-glass, justified", minaUPN, "right so")

	ravi.reads("Revoke sessions", danaUPN, "expires", "with 0 of 1 approvals", "@"+sandbox.OnCallUserGroup, "Approve or deny it on its card; 1 more approval is needed.", "Go to its card")
	hanna.dm().reads("Your request", "Revoke sessions", danaUPN, "expires", "with 0 of 1 approvals", "A reminder was posted in the approvals channel")
	if n := len(ravi.messagesWith("expires", "with 0 of 1 approvals", "Go to its card")); n != 1 {
		t.Errorf("the approvers were reminded %d times", n)
	}
	w.as(sandbox.Gloria, sandbox.Audit).reads("Reminder: ", danaUPN, "expires at")
}

// What the policy requires is asked for, and only what counts is offered.
func TestRequiredFields(t *testing.T) {
	t.Parallel()
	w := startBot(t, calm, rule(approvals.ClassContain, func(r *approvals.Rule) {
		r.Require, r.Verified = []string{"ticket", "verified"}, []string{"callback", "video"}
	}), rule(approvals.ClassTakeover, func(r *approvals.Rule) {
		r.Require, r.Verified = []string{"justification"}, []string{"in-person"}
	}))
	hanna, ravi := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
	hanna.types("/entra-block-signin @mina verified=manager laptop stolen")
	form := hanna.sees("How did you make sure who was asking?", "Callback", "Video", minaUPN)
	if form.Contains("In person") || form.Contains("Manager") {
		t.Errorf("ways that do not count are offered:\n%s", form.Text())
	}
	in := form.Inputs()
	if in["justification"]["justification"] != "laptop stolen" || in["target"]["target"] != sandbox.Mina {
		t.Errorf("what was typed is not in the form: %v", in)
	}
	if a := hanna.submits(form, map[string]string{"verified": "callback"}); a.OK {
		t.Error("a request without its ticket was taken")
	}
	if a := hanna.submits(form, map[string]string{"verified": "callback", "ticket": "INC-7"}); !a.OK {
		t.Fatalf("the form was not taken: %+v", a)
	}
	ravi.reads("waiting for approval", minaUPN, "called them back", "INC-7", "laptop stolen")

	// A ticket alone is not enough where the policy wants a justification.
	hanna.types("/entra-issue-pass @mina verified=in-person ticket=INC-8")
	form = hanna.sees("Issue")
	if a := hanna.submits(form, map[string]string{"justification": "new phone"}); !a.OK {
		t.Fatalf("the form was not taken: %+v", a)
	}
	ravi.reads("waiting for approval", minaUPN, "new phone", "INC-8")

	// With everything typed there is no form.
	hanna.types("/entra-revoke-sessions @alex verified=video ticket=INC-9 lost")
	ravi.reads("waiting for approval", "alex.morgan@", "INC-9")
}

// People who may ask for their own account, and only for that: nobody asks
// them how they verified themselves, and the approver is told to.
func TestAskForSelf(t *testing.T) {
	t.Parallel()
	yes := true
	self := func(r *approvals.Rule) { r.RequestForSelf = &yes }
	w := startBot(t, calm, rule(approvals.ClassTakeover, self), rule(approvals.ClassDestroy, self), rule(approvals.ClassRead, self))
	dana, hanna := w.as(sandbox.Dana, sandbox.General), w.as(sandbox.Hanna, sandbox.Approvals)

	dana.types("/entra-methods @dana")
	dana.reads("Dana Whitfield", "Passkey")
	for _, text := range []string{"/entra-methods @mina", "/entra-reset-password @mina verified=video forgot it"} {
		dana.types(text)
		dana.reads("for your own account only")
	}
	dana.types("/entra-help")
	dana.reads("/entra-reset-password", "For your own account only.")

	if help := dana.reads("What you may do"); help.Contains("[break-glass]") {
		t.Errorf("Dana, who is not on call, reads of break-glass:\n%s", help.Text())
	}

	// Typed with a reason, nothing is missing.
	dana.types("/entra-reset-password @dana verified=video forgot it")
	dana.reads("is requested as", "waits for one other person")
	card := hanna.reads("Reset password: waiting for approval", "They ask for their own account", "Nobody has verified the caller yet: do that yourself before you approve", "forgot it")
	if card.Contains("Caller verified") {
		t.Errorf("Dana vouches for herself:\n%s", card.Text())
	}
	approve, ok := card.Button("approve")
	if !ok || !strings.Contains(approve.Confirm, "you have verified the caller yourself") {
		t.Errorf("the confirmation does not say it: %q", approve.Confirm)
	}
	dana2 := w.as(sandbox.Dana, sandbox.Approvals)
	dana2.presses(card, "approve")
	dana2.reads("You asked for")
	hanna.presses(card, "approve")
	offer := dana.dm().reads("Done: ", "Reset password", "Press Reveal")
	secrets, err := w.client.Secrets(danaUPN)
	if err != nil || secrets.Password == "" {
		t.Fatalf("no password was set: %v", err)
	}
	dana.dm().presses(offer, "reveal")
	view := dana.sees(secrets.Password)
	if err := dana.p.Close(view.ID); err != nil {
		t.Fatal(err)
	}

	// Without a name the form is about themselves, and does not ask how they
	// made sure who they are.
	mina := w.as(sandbox.Mina, sandbox.General)
	for _, c := range []struct{ text, whose string }{
		{"/entra-require-reregister", "target"},
		{"/entra-require-reregister mina.haddad@fernhill.example", "target_name"},
	} {
		mina.types(c.text)
		form := mina.sees("That is you")
		in := form.Inputs()
		if _, asks := in["verified"]; asks || in[c.whose][c.whose] != map[string]string{"target": sandbox.Mina, "target_name": minaUPN}[c.whose] {
			t.Errorf("%s: the form has %v", c.text, in)
		}
		if c.whose == "target" {
			if err := mina.p.Close(form.ID); err != nil {
				t.Fatal(err)
			}
			continue
		}
		// Another name in the same form needs a verified caller, and is not hers.
		if a := mina.submits(form, map[string]string{"target_name": danaUPN, "justification": "mine"}); a.OK || !strings.Contains(a.Errors["target_name"], "somebody else's account") {
			t.Errorf("somebody else's account was taken: %+v", a)
		}
		if a := mina.submits(form, map[string]string{"justification": "lost phone"}); !a.OK {
			t.Fatalf("the form was not taken: %+v", a)
		}
	}
	hanna.reads("Require re-registration: waiting for approval", minaUPN, "They ask for their own account", "lost phone")

	// Whoever may ask for others leaves the question empty for themselves only.
	hanna.types("/entra-issue-pass")
	form := hanna.sees("Leave it empty for your own account")
	if a := hanna.submits(form, map[string]string{"target": sandbox.Alex, "justification": "new phone"}); a.OK || a.Errors["verified"] == "" {
		t.Errorf("an unverified caller was taken: %+v", a)
	}
	if a := hanna.submits(form, map[string]string{"target": sandbox.Hanna, "justification": "new phone"}); !a.OK {
		t.Fatalf("the form was not taken: %+v", a)
	}
	w.as(sandbox.Ravi, sandbox.Approvals).reads("waiting for approval", "hanna.okafor@", "They ask for their own account")
}

// Membership of a Slack user group counts when it is used: at the press, and
// again when the request runs.
func TestSlackUserGroups(t *testing.T) {
	t.Parallel()
	w := startBot(t, calm, func(c *config) {
		c.Timing.GraphCall = 2 * time.Second
		c.Policy.Groups["duty"] = approvals.Group{Slack: []string{sandbox.OnCallUserGroup}}
		r := c.Policy.Classes[approvals.ClassContain]
		r.Approve, r.BreakGlass = []string{"duty"}, []string{"duty"}
		c.Policy.Classes[approvals.ClassContain] = r
	})
	set := func(body string) { w.patchSlack("usergroups/"+sandbox.OnCallUserGroup, body) }
	hanna, ravi, olga := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals), w.as(sandbox.Olga, sandbox.Approvals)

	hanna.types("/entra-revoke-sessions @dana laptop stolen")
	card := ravi.reads("waiting for approval", danaUPN)
	ravi.presses(card, "approve")
	if no := ravi.reads("You may not decide this", "duty"); !no.Ephemeral {
		t.Error("everybody reads that Ravi may not")
	}
	set(`{"users":["U0OLGA","U0RAVI"]}`)
	retry := 5 // longer than one call may take, and than what Slack said is believed
	// Again and again, until Ravi is seen to be out of the group.
	if err := w.client.SetEntraFaults(entra.Fault{Method: "POST", Path: "revokeSignInSessions", Times: -1, Kind: entra.FaultThrottle, RetryAfter: &retry}); err != nil {
		t.Fatal(err)
	}
	// What Slack said a moment ago may still be believed for one.
	w.poll("Ravi's approval", func() bool {
		if len(ravi.messagesWith("Revoke sessions: waiting for approval", danaUPN)) > 0 {
			ravi.p.Press(ravi.channel, card.TS, "approve", "") // it may be gone by now
		}
		return len(ravi.messagesWith("waiting for Microsoft Graph", danaUPN)) > 0
	})
	set(`{"users":["U0OLGA"]}`)
	ravi.reads("Revoke sessions: failed", "may not decide such requests any more")
	if n := w.countChanges("revokeSignInSessions"); n != 0 {
		t.Errorf("it was carried out %d times", n)
	}

	// Olga is in the group, and so may use break-glass; the group is mentioned.
	olga.types("/entra-block-signin @mina break-glass laptop stolen")
	olga.reads("with break-glass", minaUPN)
	ravi.reads("Break-glass used by", "@"+sandbox.OnCallUserGroup, "You could have approved it")
	// A group that is disabled is nobody.
	set(`{"disabled":true}`)
	w.poll("a group that is nobody", func() bool {
		n := len(olga.messagesWith("What you may do"))
		olga.types("/entra-help")
		w.poll("help", func() bool { return len(olga.messagesWith("What you may do")) > n })
		return len(olga.messagesWith("What you may do")) > len(olga.messagesWith("What you may do", "(break-glass)"))
	})
	olga.types("/entra-block-signin @alex break-glass laptop stolen")
	olga.reads("alex.morgan@", "Break-glass was refused", "It is for: duty")
	w.account("alex.morgan@fernhill.example", func(u sandbox.User) bool { return u.Enabled })
}

// A Slack user group that is not there stops the start with a sentence.
func TestUserGroupThatIsNotThere(t *testing.T) {
	t.Parallel()
	w := startBot(t, calm)
	w.stop()
	s := w.service
	s.config.Policy.Groups = map[string]approvals.Group{"duty": {Slack: []string{"S0NOBODY"}}}
	s.up = func() {}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.run(ctx); err == nil || !strings.Contains(err.Error(), "policy.groups.duty: this workspace has no user group S0NOBODY") {
		t.Errorf("it started, or says something else: %v", err)
	}
	s.config.Policy.Groups = map[string]approvals.Group{"duty": {Slack: []string{"@oncall"}}}
	if err := s.config.check(); err == nil || !strings.Contains(err.Error(), `policy.groups.duty: "@oncall" is not the id of a Slack user group`) {
		t.Errorf("a handle is taken for an id: %v", err)
	}
}

// Each message about break-glass is lost once, before it arrives and after,
// and the bot is started again then. Everybody is told, and only a reply that
// was lost tells somebody twice.
func TestSlackLosesBreakGlassMessages(t *testing.T) {
	t.Parallel()
	slackAPI, through := newSlackProxy(t)
	w := startBot(t, calm, through, func(c *config) { c.Policy.Limits.BreakGlass = approvals.Limit{Count: 100, Within: time.Hour} })
	olga, hanna, ravi := w.as(sandbox.Olga, sandbox.Approvals), w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
	for _, h := range []*slackUser{olga, ravi, hanna} {
		h.types("/entra-requests mine")
		h.reads("nothing yet")
	}
	dm := func(who string) string { return "channel=D" + who[1:] }
	for n, c := range []struct {
		what, method string
		parts        []string
		who          string // where it is read
		channel      string // a direct message when empty
		says         string
		reviewed     bool // it comes with the review
	}{
		{"the alarm", "chat.postMessage", []string{"channel=" + sandbox.Approvals, "Break-glass used"}, sandbox.Ravi, sandbox.Approvals, "Somebody else has to say on its card", false},
		{"the number of those who were told", "chat.update", []string{"Break-glass used", "told by direct message"}, sandbox.Ravi, sandbox.Approvals, "told by direct message", false},
		{"the news for an approver", "chat.postMessage", []string{dm(sandbox.Ravi), "You could have approved it"}, sandbox.Ravi, "", "You could have approved it", false},
		{"the news for the requester", "chat.postMessage", []string{dm(sandbox.Hanna), "used break-glass for your request"}, sandbox.Hanna, "", "used break-glass for your request", false},
		{"the end for whoever broke it", "chat.postMessage", []string{dm(sandbox.Olga), "You used break-glass for it"}, sandbox.Olga, "", "You used break-glass for it", false},
		{"the review for the requester", "chat.postMessage", []string{dm(sandbox.Hanna), "found it justified"}, sandbox.Hanna, "", "found it justified", true},
		{"the review for whoever broke it", "chat.postMessage", []string{dm(sandbox.Olga), "found it justified"}, sandbox.Olga, "", "found it justified", true},
	} {
		for _, carriedOut := range []bool{false, true} {
			why := fmt.Sprintf("story %d %t", n, carriedOut)
			met := slackAPI.dropCall(droppedCall{method: c.method, parts: c.parts, applied: carriedOut})
			hanna.types("/entra-revoke-sessions @dana " + why)
			card := ravi.reads("waiting for approval", why)
			id := requestID.FindString(card.Text())
			olga.usesBreakGlass(card, why)
			lost := func() {
				select {
				case <-met:
				case <-time.After(patience):
					w.Fatalf("%s was not lost", c.what)
				}
				w.restart()
			}
			if !c.reviewed {
				lost()
			}
			card = ravi.reads("done with break-glass, review due", id)
			if a := ravi.review(card, "justified", ""); !a.OK {
				t.Fatalf("the review was not taken: %+v", a)
			}
			if c.reviewed {
				lost()
			}
			h := w.as(c.who, c.channel)
			if c.channel == "" {
				h = h.dm()
			}
			h.reads(c.says, id)
			for _, h := range []*slackUser{hanna.dm(), olga.dm()} {
				h.reads("found it justified", id) // the last of all
			}
			most := 1
			if carriedOut && c.method == "chat.postMessage" {
				most = 2
			}
			if n := len(h.messagesWith(c.says, id)); n > most {
				t.Errorf("%s (carried out: %t) is read %d times", c.what, carriedOut, n)
			}
			ravi.reads("done with break-glass, justified", id)
		}
	}
}
