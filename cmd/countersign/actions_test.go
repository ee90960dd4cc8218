package main

import (
	"strings"
	"testing"
	"time"

	"countersign/approvals"
	"countersign/sandbox"
)

// requestAndApprove submits a command as Hanna, approves it as Ravi, and waits for
// the card to show the end.
func (w *fixture) requestAndApprove(command, whom, ends string) sandbox.Message {
	w.Helper()
	hanna, ravi := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
	hanna.types(command)
	card := ravi.reads("waiting for approval", whom)
	ravi.presses(card, "approve")
	return ravi.reads(whom, ends)
}

func TestAddPhone(t *testing.T) {
	w := startBot(t)
	w.requestAndApprove(`/entra-add-phone @sam mobile "+1 (425) 555-0187" verified=video new phone`, "sam.ito@", "done")
	sam, err := w.client.User("sam.ito@fernhill.example")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, m := range sam.OfType("#microsoft.graph.phoneAuthenticationMethod") {
		found = found || m.Properties["phoneNumber"] == "+1 4255550187" && m.Properties["phoneType"] == "mobile"
	}
	if !found {
		t.Errorf("Sam has no such mobile: %v", sam.Methods)
	}
}

func TestAddPhoneForm(t *testing.T) {
	w := startBot(t)
	hanna := w.as(sandbox.Hanna, sandbox.HelpDesk)
	hanna.types("/entra-add-phone @mina")
	form := hanna.sees("How did you make sure")
	if a := hanna.submits(form, map[string]string{"type": "alternate", "number": "12", "verified": "video", "justification": "second phone"}); a.OK || a.Errors["number"] == "" {
		t.Fatalf("a number of two digits was accepted: %+v", a)
	}
	if a := hanna.submits(form, map[string]string{"type": "alternate", "number": "+1 425 555 0188", "verified": "video", "justification": "second phone"}); !a.OK {
		t.Fatalf("the form was not accepted: %+v", a)
	}
	w.as(sandbox.Ravi, sandbox.Approvals).reads("waiting for approval", "mina.haddad@", "second phone")
}

func TestAddEmail(t *testing.T) {
	w := startBot(t)
	w.requestAndApprove("/entra-add-email @mina mina@home.example verified=callback asked for it", "mina.haddad@", "done")
	mina, err := w.client.User("mina.haddad@fernhill.example")
	if err != nil {
		t.Fatal(err)
	}
	mails := mina.OfType("#microsoft.graph.emailAuthenticationMethod")
	if len(mails) != 1 || mails[0].Properties["emailAddress"] != "mina@home.example" {
		t.Errorf("Mina's e-mail methods: %v", mails)
	}
}

// Without a method in the command, the form lists the account's methods.
func TestRemoveMethodPicker(t *testing.T) {
	w := startBot(t)
	hanna, ravi := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
	hanna.types("/entra-remove-method @dana lost her key")
	form := hanna.sees("Windows Hello", "YubiKey")
	var choice string
	for _, raw := range form.Blocks {
		for _, part := range strings.Split(string(raw), `{"text":`) {
			if strings.Contains(part, "YubiKey") {
				if _, value, ok := strings.Cut(part, `"value":"`); ok {
					choice, _, _ = strings.Cut(value, `"`)
				}
			}
		}
	}
	if choice == "" {
		t.Fatalf("the picker has no value for the passkey:\n%s", form.Blocks)
	}
	if a := hanna.submits(form, map[string]string{"method": choice, "verified": "in-person"}); !a.OK {
		t.Fatalf("the form was not accepted: %+v", a)
	}
	card := ravi.reads("waiting for approval", danaUPN, "asskey")
	ravi.presses(card, "approve")
	w.account(danaUPN, func(u sandbox.User) bool { return len(u.OfType("#microsoft.graph.fido2AuthenticationMethod")) == 0 })
	dana, err := w.client.User(danaUPN)
	if err != nil {
		t.Fatal(err)
	}
	if len(dana.OfType("#microsoft.graph.phoneAuthenticationMethod")) == 0 {
		t.Error("other methods than the passkey were deleted")
	}
}

// The list in the form shows which methods somebody has: only people who may use
// the methods command get it, it counts as a read, and it is recorded. Without the
// list, the requester can still name the method.
func TestRemoveMethodPickerIsARead(t *testing.T) {
	w := startBot(t, calm, func(c *config) { c.Policy.ReadsAMinute = 1 })
	hanna := w.as(sandbox.Hanna, sandbox.HelpDesk)
	hanna.types("/entra-remove-method @dana lost her key")
	form := hanna.sees("Windows Hello", "YubiKey")
	w.as(sandbox.Gloria, sandbox.Audit).reads("hanna.okafor@", "Show methods", danaUPN)
	w.must(hanna.p.Close(form.ID))

	hanna.types("/entra-remove-method @dana lost her key")
	form = hanna.sees("The methods are not listed here", "reached the limit of 1 look-ups a minute")
	if form.Contains("YubiKey") {
		t.Errorf("the form lists the methods:\n%s", form.Text())
	}
	w.as(sandbox.Gloria, sandbox.Audit).reads("hanna.okafor@", "was refused: Show methods", danaUPN)
	if a := hanna.submits(form, map[string]string{"method": "passkey", "verified": "in-person"}); !a.OK {
		t.Fatalf("the form was not accepted: %+v", a)
	}
	w.as(sandbox.Ravi, sandbox.Approvals).reads("waiting for approval", danaUPN, "asskey")
}

// A requester who may not use the methods command gets no list.
func TestRemoveMethodPickerIsForReaders(t *testing.T) {
	w := startBot(t, calm, func(c *config) {
		r := c.Policy.Classes[approvals.ClassRead]
		r.Request = []string{"approvers"}
		c.Policy.Classes[approvals.ClassRead] = r
	})
	hanna := w.as(sandbox.Hanna, sandbox.HelpDesk)
	hanna.types("/entra-remove-method @dana lost her key")
	if form := hanna.sees("The methods are not listed here", "You are not allowed to see them"); form.Contains("YubiKey") {
		t.Errorf("the form lists the methods:\n%s", form.Text())
	}
	w.as(sandbox.Gloria, sandbox.Audit).reads("hanna.okafor@", "was refused: Show methods", danaUPN)
}

func TestBlockAndUnblock(t *testing.T) {
	w := startBot(t)
	w.requestAndApprove("/entra-block-signin @mina laptop stolen", "mina.haddad@", "done")
	w.account("mina.haddad@fernhill.example", func(u sandbox.User) bool { return !u.Enabled })
	w.requestAndApprove("/entra-unblock-signin @mina verified=manager laptop found", "laptop found", "done")
	w.account("mina.haddad@fernhill.example", func(u sandbox.User) bool { return u.Enabled })
	hanna := w.as(sandbox.Hanna, sandbox.HelpDesk)
	hanna.types("/entra-unblock-signin @mina verified=manager again")
	hanna.reads("nothing to do", "not blocked")
}

// A temporary password and a pass: each is revealed once, to the requester, and
// is stored in plaintext nowhere, before or afterwards.
func TestSecrets(t *testing.T) {
	for _, c := range []struct{ command, whom, upn string }{
		{"/entra-reset-password @mina verified=video forgot it", "mina.haddad@", "mina.haddad@fernhill.example"},
		{"/entra-issue-pass @alex 60m once verified=in-person new phone", "alex.morgan@", "alex.morgan@fernhill.example"},
	} {
		name, _, _ := strings.Cut(strings.TrimPrefix(c.command, "/entra-"), " ")
		t.Run(name, func(t *testing.T) {
			w := startBot(t)
			hanna, ravi := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
			w.requestAndApprove(c.command, c.whom, "done")
			offer := hanna.dm().reads("Done", c.whom, "Reveal")
			secrets, err := w.client.Secrets(c.upn)
			if err != nil {
				t.Fatal(err)
			}
			secret := secrets.Password
			if secret == "" {
				secret = secrets.Pass
			}
			if secret == "" {
				t.Fatalf("the tenant has no secret: %+v", secrets)
			}
			w.wantSecretNowhere(secret, "before it was opened")

			// A click by somebody else reveals nothing. The button is in Hanna's
			// direct messages, so such a click is a forged one.
			if answer, err := ravi.p.Press(hanna.dm().channel, offer.TS, "reveal", ""); err == nil && answer.OK {
				t.Error("Ravi's click on a button in Hanna's messages was accepted")
			}

			hanna.dm().presses(offer, "reveal")
			view := hanna.sees("For your eyes only", secret)
			if len(view.Inputs()) > 0 || view.Submit != "" {
				t.Error("the view has inputs or a submit button, so Slack would send its blocks back")
			}
			w.as(sandbox.Gloria, sandbox.Audit).reads("hanna.okafor@", "opened the secret")
			if err := hanna.p.Close(view.ID); err != nil {
				t.Fatal(err)
			}
			w.wantSecretNowhere(secret, "after it was opened")
			hanna.dm().presses(offer, "reveal")
			hanna.sees("nothing left to open")
		})
	}
}

// wantSecretNowhere searches messages, Redis and the log for a secret.
func (w *fixture) wantSecretNowhere(secret, when string) {
	w.Helper()
	for _, who := range []string{sandbox.Hanna, sandbox.Ravi, sandbox.Gloria, sandbox.Mina, sandbox.Alex} {
		p := w.client.As(who)
		channels, err := p.Channels()
		if err != nil {
			w.Fatal(err)
		}
		for _, c := range channels {
			messages, err := p.Messages(c.ID)
			if err != nil {
				w.Fatal(err)
			}
			for _, m := range messages {
				everything := m.Fallback + m.Text()
				for _, raw := range m.Blocks { // button values, too
					everything += string(raw) + strings.NewReplacer(`\u0026`, "&").Replace(string(raw))
				}
				if strings.Contains(everything, secret) {
					w.Errorf("%s, the secret is in #%s", when, c.Name)
				}
			}
		}
	}
	for key, value := range w.redis.Dump(w.T) {
		if strings.Contains(key+value, secret) {
			w.Errorf("%s, the secret is in Redis at %s", when, key)
		}
	}
	if strings.Contains(w.log.String(), secret) {
		w.Errorf("%s, the secret is in the log", when)
	}
}

// The secret is not revealed in time: the requester is notified, and requests it again
// with one click.
func TestSecretIsNotOpened(t *testing.T) {
	w := startBot(t, func(c *config) { c.Timing.SecretLife = 500 * time.Millisecond })
	w.requestAndApprove("/entra-reset-password @mina verified=video forgot it", "mina.haddad@", "done")
	gone := w.as(sandbox.Hanna, sandbox.HelpDesk).dm().reads("Not opened in time", "mina.haddad@")
	secrets, err := w.client.Secrets("mina.haddad@fernhill.example")
	if err != nil {
		t.Fatal(err)
	}
	w.wantSecretNowhere(secrets.Password, "after it expired")
	hanna := w.as(sandbox.Hanna, sandbox.HelpDesk).dm()
	hanna.presses(gone, "again")
	w.as(sandbox.Ravi, sandbox.Approvals).reads("waiting for approval", "mina.haddad@", "forgot it")
}

// A step without a Graph call is done manually by one person, confirmed by another,
// and recorded as attested.
func TestHandOff(t *testing.T) {
	w := startBot(t)
	card := w.requestAndApprove("/entra-delete-app-passwords @mina verified=callback old mail client", "mina.haddad@", "to be done by hand")
	ravi, olga := w.as(sandbox.Ravi, sandbox.Approvals), w.as(sandbox.Olga, sandbox.Approvals)
	if !card.Contains("Entra admin center") {
		t.Errorf("the card does not say where to do it:\n%s", card.Text())
	}
	ravi.presses(card, "attest")
	card = ravi.reads("mina.haddad@", "to be confirmed by somebody else", "Done by hand by")
	ravi.presses(card, "confirm")
	if no := ravi.reads("You said yourself that it is done"); !no.Ephemeral {
		t.Error("the reason why Ravi may not confirm is visible to everybody")
	}
	// Olga checks and finds the app passwords still there.
	olga.presses(card, "retract")
	card = olga.reads("mina.haddad@", "approved, to be done by hand")
	w.as(sandbox.Gloria, sandbox.Audit).reads("olga.lindqvist@", "not done by hand after all")
	ravi.presses(card, "attest")
	card = olga.reads("mina.haddad@", "to be confirmed by somebody else")
	olga.presses(card, "confirm")
	olga.reads("mina.haddad@", "done by hand and confirmed")
	w.as(sandbox.Gloria, sandbox.Audit).reads("Attested by people, not executed by Countersign", "mina.haddad@", "olga.lindqvist@")
}

// With verified=compromise, nobody called and the account is believed to be lost. It is
// blocked first.
func TestCompromise(t *testing.T) {
	w := startBot(t)
	card := w.requestAndApprove("/entra-require-reregister @mina verified=compromise sign-ins from two countries", "mina.haddad@", "done")
	if !card.Contains("lock sign-in", "evoke") {
		t.Errorf("the card does not say that the account is blocked:\n%s", card.Text())
	}
	w.account("mina.haddad@fernhill.example", func(u sandbox.User) bool {
		return !u.Enabled && len(u.OfType("#microsoft.graph.phoneAuthenticationMethod")) == 0
	})
}

// A change of the account since the plan was made stops the request. One click requests
// it again.
func TestDriftAndRequestAgain(t *testing.T) {
	w := startBot(t)
	hanna, ravi := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
	card := w.request("/entra-require-reregister @dana verified=video lost phone")
	dana, err := w.client.User(danaUPN)
	if err != nil {
		t.Fatal(err)
	}
	apps := dana.OfType("#microsoft.graph.microsoftAuthenticatorAuthenticationMethod")
	if err := w.client.DeleteMethod(danaUPN, apps[0].ID); err != nil {
		t.Fatal(err)
	}
	ravi.presses(card, "approve")
	ravi.reads(danaUPN, "failed")
	failed := hanna.dm().reads("Failed", danaUPN)
	hanna.dm().presses(failed, "again")
	card = ravi.reads("waiting for approval", danaUPN, "lost phone")
	ravi.presses(card, "approve")
	ravi.reads(danaUPN, "Require re-registration: done")
}
