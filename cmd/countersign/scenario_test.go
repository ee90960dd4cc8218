package main

import (
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign/sandbox"
	"countersign/sandbox/slack"
)

const danaUPN = "dana.whitfield@fernhill.example"

// request asks for Dana's re-registration as Hanna and gives the card as the
// approver sees it.
func (w *fixture) request(text string) sandbox.Message {
	w.Helper()
	hanna := w.as(sandbox.Hanna, sandbox.HelpDesk)
	hanna.types(text)
	hanna.reads("is requested as", "waits for one other person")
	return w.as(sandbox.Ravi, sandbox.Approvals).reads("waiting for approval", danaUPN)
}

// tellStory is the whole story over the sandbox's API: command, form, second
// person, Graph, result.
func tellStory(w *fixture) {
	hanna, ravi := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
	before, err := w.client.User(danaUPN)
	if err != nil {
		w.Fatal(err)
	}

	hanna.types("/entra-require-reregister @dana lost phone")
	form := hanna.sees("How did you make sure who was asking?")
	if got := form.Inputs()["justification"]["justification"]; got != "lost phone" {
		w.Errorf("the form begins with the justification %q, not with what was typed", got)
	}
	if a := hanna.submits(form, map[string]string{"verified": "callback", "ticket": "INC-1042"}); !a.OK {
		w.Fatalf("the form was not taken: %+v", a)
	}
	hanna.reads("is requested as", "waits for one other person")
	receipt := hanna.dm().reads("waiting for approval", danaUPN)
	if _, ok := receipt.Button("approve"); ok {
		w.Error("the requester's copy has an Approve button")
	}

	card := ravi.reads("waiting for approval", danaUPN, "lost phone", "INC-1042", "called them back")
	for _, part := range []string{"Delete", "Microsoft Authenticator", "evoke"} {
		if !card.Contains(part) {
			w.Errorf("the card does not say %q:\n%s", part, card.Text())
		}
	}
	ravi.presses(card, "approve")

	w.account(danaUPN, func(u sandbox.User) bool {
		return u.SessionsValidFrom != before.SessionsValidFrom &&
			len(u.OfType("#microsoft.graph.phoneAuthenticationMethod")) == 0 &&
			len(u.OfType("#microsoft.graph.microsoftAuthenticatorAuthenticationMethod")) == 0 &&
			len(u.OfType("#microsoft.graph.softwareOathAuthenticationMethod")) == 0
	})
	done := ravi.reads(danaUPN, "done")
	if done.TS != card.TS || !done.Edited {
		w.Error("the card was not updated in place")
	}
	if len(done.Buttons()) != 0 {
		w.Errorf("the card of a request that is over has buttons: %+v", done.Buttons())
	}
	hanna.dm().reads("Done", danaUPN)

	auditor := w.as(sandbox.Gloria, sandbox.Audit)
	auditor.reads("hanna.okafor@", "requested", danaUPN, "lost phone", "INC-1042", "callback")
	auditor.reads("ravi.menon@", "approved", danaUPN)
	line := auditor.reads("ucceeded", danaUPN, "hanna.okafor@", "ravi.menon@", "lost phone", "R-")
	if !line.Contains("Delete") || strings.Contains(line.Text(), "\n") {
		w.Errorf("the audit line is not one line with the steps in it:\n%s", line.Text())
	}

	after, err := w.client.User(danaUPN)
	if err != nil {
		w.Fatal(err)
	}
	for _, kept := range []string{"fido2", "windowsHelloForBusiness", "platformCredential", "email", "password"} {
		if !strings.Contains(kinds(after), kept) {
			w.Errorf("%s is gone; what is left: %s", kept, kinds(after))
		}
	}
}

func TestStory(t *testing.T) { tellStory(startBot(t)) }

// With everything typed there is no form.
func TestEverythingTyped(t *testing.T) {
	w := startBot(t)
	card := w.request(`/entra-require-reregister @dana verified=video ticket=INC-7 "phone fell into the Thames"`)
	if !card.Contains("Thames", "INC-7", "Video") {
		t.Errorf("the card lacks something that was typed:\n%s", card.Text())
	}
	views, err := w.client.As(sandbox.Hanna).Views()
	if err != nil {
		t.Fatal(err)
	}
	if len(views.Modals) != 0 {
		t.Error("a form opened although nothing was missing")
	}
}

// Containment needs neither ticket nor verification, and works on a
// protected target with one approval more.
func TestRevokeSessions(t *testing.T) {
	w := startBot(t)
	hanna, ravi, olga := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals), w.as(sandbox.Olga, sandbox.Approvals)
	before, err := w.client.User("gloria.adeyemi@fernhill.example")
	if err != nil {
		t.Fatal(err)
	}
	hanna.types("/entra-revoke-sessions @gloria laptop stolen")
	card := ravi.reads("waiting for approval", "gloria.adeyemi@", "Global Administrator", "0 of 2")
	ravi.presses(card, "approve")
	card = olga.reads("waiting for approval", "gloria.adeyemi@", "1 of 2")
	olga.presses(card, "approve")
	w.account("gloria.adeyemi@fernhill.example", func(u sandbox.User) bool { return u.SessionsValidFrom != before.SessionsValidFrom })
	w.as(sandbox.Gloria, sandbox.Audit).reads("ucceeded", "gloria.adeyemi@", "ravi.menon@", "olga.lindqvist@")
}

func TestMethods(t *testing.T) {
	w := startBot(t)
	hanna := w.as(sandbox.Hanna, sandbox.HelpDesk)
	hanna.types("/entra-methods @dana")
	card := hanna.reads("Dana Whitfield", "Passkey", "Windows Hello", "Authenticator")
	if !card.Ephemeral {
		t.Error("everybody can read the methods")
	}
	w.as(sandbox.Gloria, sandbox.Audit).reads("hanna.okafor@", danaUPN)

	hanna.types("/entra-methods @gloria")
	card = hanna.reads("protected target")
	if card.Contains("Authenticator") {
		t.Errorf("of a protected target more is told than that it is one:\n%s", card.Text())
	}
	// Somebody the policy does not name.
	dana := w.as(sandbox.Dana, sandbox.Approvals)
	dana.types("/entra-methods @mina")
	dana.reads("may not use this command")
	w.as(sandbox.Gloria, sandbox.Audit).reads("refused", danaUPN)
}

func TestDenyCancelHelpAndOpenRequests(t *testing.T) {
	w := startBot(t)
	hanna, ravi := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
	card := w.request("/entra-require-reregister @dana verified=video lost phone")

	hanna.types("/entra-requests pending")
	hanna.reads("Open requests", danaUPN)
	hanna.types("/entra-help")
	hanna.reads("What you may do", "/entra-require-reregister")
	hanna.types("/entra-help revoke-sessions")
	hanna.reads("/entra-revoke-sessions")

	// The same again points to the one that is open.
	hanna.types("/entra-require-reregister @dana verified=video lost phone")
	hanna.reads("You asked for the same", requestID.FindString(card.Text())+" waits for 1 approval until ", "Its card is in the approvals channel. Nothing new was made.")

	ravi.presses(card, "deny")
	form := ravi.sees("A denial is final")
	if a := ravi.submits(form, map[string]string{"reason": "her manager says she has it"}); !a.OK {
		t.Fatalf("the denial was not taken: %+v", a)
	}
	hanna.dm().reads("denied", "her manager says she has it")
	denied := ravi.reads("denied", danaUPN, "her manager says she has it")
	if len(denied.Buttons()) != 0 {
		t.Error("a denied card has buttons")
	}

	card = w.request("/entra-require-reregister @dana verified=video second try")
	receipt := hanna.dm().reads("waiting for approval", "second try")
	hanna.dm().presses(receipt, "cancel")
	ravi.reads("cancelled", "second try")
	w.as(sandbox.Gloria, sandbox.Audit).reads("hanna.okafor@", "cancelled", "second try")

	ravi.types("/entra-requests mine")
	ravi.reads("You have requested nothing yet")
	if err := hanna.p.Home(); err != nil {
		t.Fatal(err)
	}
	_ = card
}

// Each wrong press is refused with a sentence that says why, to that person
// alone, and recorded.
func TestRefusedPresses(t *testing.T) {
	w := startBot(t)
	gloria := w.as(sandbox.Gloria, sandbox.Audit)
	card := w.request("/entra-require-reregister @dana verified=callback lost phone")

	for _, c := range []struct{ who, upn, says string }{
		{sandbox.Hanna, "hanna.okafor@", "You asked for"},
		{sandbox.Dana, "dana.whitfield@", "your own account"},
		{sandbox.Pat, "Pat Moreau", "guest"},
		{sandbox.Gloria, "gloria.adeyemi@", "may not decide"},
	} {
		h := w.as(c.who, sandbox.Approvals)
		h.presses(card, "approve")
		no := h.reads(c.says)
		if !no.Ephemeral {
			t.Errorf("everybody reads what only %s should: %s", c.who, no.Text())
		}
		gloria.reads(c.upn, "tried to approve and was refused", c.says, requestID.FindString(card.Text()))
	}
	ravi := w.as(sandbox.Ravi, sandbox.Approvals)
	if still := ravi.reads("waiting for approval", danaUPN); still.TS != card.TS {
		t.Error("a refused press changed the card")
	}
	// A second press, on a card that Slack has not redrawn yet.
	w.freezeCards()
	ravi.presses(card, "approve")
	gloria.reads("ucceeded", danaUPN)
	olga := w.as(sandbox.Olga, sandbox.Approvals)
	olga.presses(card, "approve")
	if no := olga.reads("already decided"); !no.Ephemeral {
		t.Error("everybody reads that Olga was too late")
	}
	gloria.reads("olga.lindqvist@", "refused", "already decided")
}

// freezeCards keeps Slack from redrawing cards, as on a phone without a
// connection.
func (w *fixture) freezeCards() {
	w.Helper()
	if err := w.client.SetSlackFaults(slack.Fault{Method: "chat.update", Times: 1000, Kind: "error", Error: "fatal_error"}); err != nil {
		w.Fatal(err)
	}
}

// expires sets when a pending request does so, and has the runner look at it: as
// if so much time had passed.
func (w *fixture) expires(id string, at time.Time) {
	w.Helper()
	rdb := w.redis.Client(w.T)
	w.must(rdb.HSet(w.Context(), "{countersign}:request:"+id, "deadline", at.UnixMilli()).Err())
	w.must(rdb.ZAdd(w.Context(), "{countersign}:due", redis.Z{Score: 1, Member: id}).Err())
}

func TestPressAfterExpiry(t *testing.T) {
	w := startBot(t)
	hanna, ravi := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
	card := w.request("/entra-require-reregister @dana verified=callback lost phone")
	w.freezeCards() // as it is while the request waits
	w.expires(requestID.FindString(card.Text()), time.Now().Add(-time.Second))
	w.as(sandbox.Gloria, sandbox.Audit).reads("Expired", danaUPN)
	ravi.presses(card, "approve")
	if no := ravi.reads("expired before you pressed"); !no.Ephemeral {
		t.Error("everybody reads that Ravi was too late")
	}
	hanna.dm().reads("expired", "Nothing was done")
	w.as(sandbox.Gloria, sandbox.Audit).reads("ravi.menon@", "refused", "expired before you pressed")
	u, err := w.client.User(danaUPN)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(kinds(u), "phone") {
		t.Error("an expired request was carried out")
	}
}
