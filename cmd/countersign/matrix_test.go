package main

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"countersign/approvals"
	"countersign/commands"
	graph "countersign/entra"
	"countersign/sandbox"
	"countersign/sandbox/entra"
)

// Every admin action against everything that can happen to it, through Slack
// and Graph: the tests check the account afterwards, the card, the requester's
// notification and the audit messages. Each situation has its own test environment,
// in which each action has its own target, so that they all wait at the same time.

// mutation is an admin action on its target.
type mutation struct {
	name        string // also the target's mailbox; not the end of another name
	command     string
	args        string // after the target
	compromised bool   // with verified=compromise
	blocked     bool   // the target cannot sign in
	methods     []entra.Method

	// The deciding call; path is the part after the account. Both are empty for
	// manual steps.
	method, path string
	permission   graph.Permission
	continues    bool // if that call fails, the other steps are executed anyway
	repeats      bool // if its answer is lost, it is sent again: its effect cannot be read
	isApplied    func(was, is sandbox.User) bool

	makeNothingToDo func(*entra.User) // changes the target so that there is nothing to do
	alwaysSomething string            // or why there is always something to do

	changeAccount func(*fixture, string) // changes the account as somebody else would
	driftText     string                 // how the card describes that
	driftIgnored  string                 // or why the change does not stop the request

	secret func(sandbox.Secrets) string // the secret that it makes
}

// mutations returns every admin action, in each variant that makes a different plan.
func mutations() []mutation {
	const (
		phone, other = "+1 4255550187", "+1 4255550188"
		address      = "new@mailbox.example"
		containment  = "containment makes no assumptions, because an intruder could stop it otherwise"
		unreadable   = "app passwords cannot be read, so the plan makes no assumptions"
	)
	typed := func(kind string) func(sandbox.User) int {
		return func(u sandbox.User) int { return len(u.OfType(kind)) }
	}
	holds := func(kind, property, value string) func(_, is sandbox.User) bool {
		return func(_, is sandbox.User) bool {
			return slices.ContainsFunc(is.OfType(kind), func(m sandbox.Method) bool { return m.Properties[property] == value })
		}
	}
	gone := func(kinds ...string) func(_, is sandbox.User) bool {
		return func(_, is sandbox.User) bool {
			return !slices.ContainsFunc(kinds, func(kind string) bool { return typed(kind)(is) > 0 })
		}
	}
	revoked := func(was, is sandbox.User) bool { return is.SessionsValidFrom.After(was.SessionsValidFrom) }
	both := func(a, b func(was, is sandbox.User) bool) func(was, is sandbox.User) bool {
		return func(was, is sandbox.User) bool { return a(was, is) && b(was, is) }
	}
	adds := func(m entra.Method) func(*fixture, string) {
		return func(w *fixture, upn string) { w.must(w.client.AddMethod(upn, m)) }
	}
	drops := func(id string) func(*fixture, string) {
		return func(w *fixture, upn string) { w.must(w.client.DeleteMethod(upn, id)) }
	}
	patches := func(field string, value any) func(*fixture, string) {
		return func(w *fixture, upn string) { w.must(w.client.PatchUser(upn, map[string]any{field: value})) }
	}
	owns := func(m ...entra.Method) func(*entra.User) {
		return func(u *entra.User) { u.Methods, u.DefaultMethod = m, "" }
	}
	now := time.Now().UTC().Format(time.RFC3339)

	mobile, app, soft, hard := entra.Phone("mobile", other), entra.Authenticator("app-1", "Pixel 9"), entra.SoftwareOATH("soft-1"), entra.HardwareOATH("hard-1", "2309431", "Feitian", "OTP c200")
	key, hello, email := entra.Passkey("key-1", "Top drawer", "YubiKey 5", ""), entra.WindowsHello("hello-1", "FH-LT-0500"), entra.Email("old@mailbox.example")
	pass := entra.TemporaryAccessPass("pass-1", time.Now().Add(-time.Minute), 8*time.Hour, false)

	return []mutation{
		{name: "add-phone", command: "add-phone", args: "office " + phone, methods: []entra.Method{mobile},
			method: http.MethodPost, path: "/authentication/phoneMethods", permission: graph.PermPhoneWrite,
			isApplied:       holds(entra.TypePhone, "phoneNumber", phone),
			makeNothingToDo: owns(entra.Phone("office", phone)), changeAccount: adds(hello), driftText: "a method was added: Windows Hello"},
		{name: "replace-phone", command: "add-phone", args: "mobile " + phone, methods: []entra.Method{mobile},
			method: http.MethodPatch, path: "/authentication/phoneMethods/", permission: graph.PermPhoneWrite,
			isApplied:       holds(entra.TypePhone, "phoneNumber", phone),
			makeNothingToDo: owns(entra.Phone("mobile", phone)),
			changeAccount: func(w *fixture, upn string) {
				drops(entra.IDMobile)(w, upn)
				adds(entra.Phone("mobile", "+1 4255550177"))(w, upn)
			}, driftText: "a method was replaced: phone"},
		{name: "add-email", command: "add-email", args: address,
			method: http.MethodPost, path: "/authentication/emailMethods", permission: graph.PermEmailWrite,
			isApplied:       holds(entra.TypeEmail, "emailAddress", address),
			makeNothingToDo: owns(entra.Email(address)), changeAccount: adds(email), driftText: "a method was added: reset e-mail"},
		{name: "replace-email", command: "add-email", args: address, methods: []entra.Method{mobile, email},
			method: http.MethodPatch, path: "/authentication/emailMethods/", permission: graph.PermEmailWrite,
			isApplied:       holds(entra.TypeEmail, "emailAddress", address),
			makeNothingToDo: owns(entra.Email(address)), changeAccount: drops(entra.IDEmail), driftText: "a method is gone: reset e-mail"},
		{name: "remove-method", command: "remove-method", args: "passkey", methods: []entra.Method{mobile, key},
			method: http.MethodDelete, path: "/authentication/fido2Methods/", permission: graph.PermPasskeyWrite,
			isApplied:       gone(entra.TypePasskey),
			makeNothingToDo: owns(), changeAccount: adds(app), driftText: "a method was added: Microsoft Authenticator"},
		{name: "reregister", command: "require-reregister", methods: []entra.Method{mobile, app, soft, hard, key},
			method: http.MethodDelete, path: "/authentication/softwareOathMethods/", permission: graph.PermSoftwareOATHWrite, continues: true,
			isApplied:       both(revoked, gone(entra.TypePhone, entra.TypeAuthenticator, entra.TypeSoftwareOATH)),
			makeNothingToDo: owns(key), changeAccount: drops(app.ID), driftText: "a method is gone: Microsoft Authenticator"},
		{name: "reregister-everything", command: "require-reregister", args: "everything",
			methods: []entra.Method{mobile, app, soft, hard, key, hello, email, pass, entra.PlatformCredential("platform-1", "MacBook", "macOS"),
				entra.External("external-1", "Badge", "b95bd8d8-df64-4b11-9fe6-cdc48f1966f2"), entra.QRCodePIN("qr-1")},
			method: http.MethodDelete, path: "/authentication/windowsHelloForBusinessMethods/", permission: graph.PermWindowsHelloWrite, continues: true,
			isApplied: both(revoked, gone(entra.TypePhone, entra.TypeAuthenticator, entra.TypeSoftwareOATH, entra.TypePasskey, entra.TypeWindowsHello, entra.TypeEmail,
				entra.TypePass, entra.TypePlatformCredential, entra.TypeExternal, entra.TypeQRCodePIN)),
			makeNothingToDo: owns(), changeAccount: patches("default_method", "sms"), driftText: "the default method is another one"},
		{name: "reregister-compromise", command: "require-reregister", compromised: true, methods: []entra.Method{mobile, app},
			method: http.MethodDelete, path: "/authentication/microsoftAuthenticatorMethods/", permission: graph.PermAuthenticatorWrite, continues: true,
			isApplied: both(revoked, func(was, is sandbox.User) bool {
				return !is.Enabled && gone(entra.TypePhone, entra.TypeAuthenticator)(was, is)
			}),
			makeNothingToDo: owns(key), changeAccount: patches("last_password_change", now), driftIgnored: "an intruder could stop this by changing the account once more"},
		{name: "reset-password", command: "reset-password", methods: []entra.Method{mobile},
			method: http.MethodPatch, permission: graph.PermPasswordWrite, repeats: true,
			isApplied:       both(revoked, func(was, is sandbox.User) bool { return is.LastPasswordChange.After(was.LastPasswordChange) }),
			alwaysSomething: "a new password is always a change", changeAccount: patches("last_password_change", now), driftText: "the password was changed",
			secret: func(s sandbox.Secrets) string { return s.Password }},
		{name: "issue-pass", command: "issue-pass", args: "60m once", methods: []entra.Method{mobile},
			method: http.MethodPost, path: "/authentication/temporaryAccessPassMethods", permission: graph.PermPassWrite, repeats: true,
			isApplied:       func(_, is sandbox.User) bool { return typed(entra.TypePass)(is) == 1 },
			alwaysSomething: "a new pass replaces an old one", changeAccount: adds(pass), driftText: "a method was added: Temporary Access Pass",
			secret: func(s sandbox.Secrets) string { return s.Pass }},
		{name: "revoke-sessions", command: "revoke-sessions",
			method: http.MethodPost, path: "/revokeSignInSessions", permission: graph.PermSessionsRevoke,
			isApplied:       revoked,
			alwaysSomething: "Graph does not say whether anybody is signed in", changeAccount: patches("sessions_valid_from", now), driftIgnored: containment},
		{name: "block-signin", command: "block-signin",
			method: http.MethodPatch, permission: graph.PermAccountEnable,
			isApplied:       func(_, is sandbox.User) bool { return !is.Enabled },
			makeNothingToDo: func(u *entra.User) { u.Blocked = true }, changeAccount: patches("last_password_change", now), driftIgnored: containment},
		{name: "allow-signin", command: "unblock-signin", blocked: true,
			method: http.MethodPatch, permission: graph.PermAccountEnable,
			isApplied:       func(_, is sandbox.User) bool { return is.Enabled },
			makeNothingToDo: func(u *entra.User) { u.Blocked = false }, changeAccount: patches("enabled", true), driftText: "the account was unblocked"},
		{name: "app-passwords", command: "delete-app-passwords", permission: graph.PermPolicyRead,
			isApplied:       func(was, is sandbox.User) bool { return fmt.Sprint(was) == fmt.Sprint(is) },
			alwaysSomething: unreadable, changeAccount: patches("per_user_mfa", "enforced"), driftIgnored: unreadable},
	}
}

// removalCases returns the removal of one method of every kind except a passkey, which
// is among the mutations.
func removalCases() []mutation {
	var all []mutation
	for _, m := range []struct {
		named string
		is    entra.Method
	}{
		{"office", entra.Phone("office", "+1 4255550189")}, {"e-mail", entra.Email("x@mailbox.example")}, {"authenticator", entra.Authenticator("a", "iPad")},
		{"software token", entra.SoftwareOATH("s")}, {"hardware token", entra.HardwareOATH("h", "2309432", "Feitian", "OTP c200")},
		{"hello", entra.WindowsHello("w", "FH-LT-0501")}, {"platform credential", entra.PlatformCredential("p", "MacBook", "macOS")},
		{"pass", entra.TemporaryAccessPass("t", time.Now(), time.Hour, false)}, {"external", entra.External("e", "Badge", "b95bd8d8-df64-4b11-9fe6-cdc48f1966f2")},
		{"qr code", entra.QRCodePIN("q")},
	} {
		d := mutation{name: "remove-" + strings.ReplaceAll(m.named, " ", "-"), command: "remove-method", args: m.named, methods: []entra.Method{m.is},
			method: http.MethodDelete, path: "/authentication/", isApplied: func(_, is sandbox.User) bool { return len(is.OfType(m.is.Type)) == 0 }}
		all = append(all, d)
	}
	return all
}

// isManual says that Graph has no call for it. Failing calls must not affect it; the
// tests check this by making every change fail.
func (d mutation) isManual() bool { return d.method == "" }

func (d mutation) upn() string { return d.name + "@fernhill.example" }

// id is the target's object id.
func (d mutation) id() string {
	sum := sha256.Sum256([]byte(d.name))
	return fmt.Sprintf("%x-%x-4%03x-8%03x-%x", sum[:4], sum[4:6], sum[6], sum[7], sum[8:14])
}

func (d mutation) commandLine() string {
	c, _ := commands.Lookup(d.command)
	words := []string{commands.Slash(defaultPrefix, c), d.upn(), d.args}
	switch {
	case d.compromised:
		words = append(words, "verified=compromise")
	case len(commands.Verifications(c)) > 0:
		words = append(words, "verified=video")
	}
	return strings.Join(append(words, "for "+d.name), " ")
}

// faults returns the faults that strike the deciding call.
func (d mutation) faults(f entra.Fault) []entra.Fault {
	if !d.isManual() {
		f.Method, f.Path = d.method, d.id()+d.path
		return []entra.Fault{f}
	}
	var all []entra.Fault
	for _, method := range []string{http.MethodPost, http.MethodPatch, http.MethodPut, http.MethodDelete} {
		f.Method, f.Path, f.Times = method, d.id(), -1
		all = append(all, f)
	}
	return all
}

// actionFixture is a fixture in which every mutation has its target.
type actionFixture struct{ *fixture }

// scenario is a mutation that was requested.
type scenario struct {
	mutation
	request string
	card    sandbox.Message
	before  sandbox.User
}

// newActionFixture makes one. change may change the targets and the sandbox's world.
func newActionFixture(t *testing.T, all []mutation, change func(mutation, *entra.User, *sandbox.Company), tune ...func(*config)) *actionFixture {
	t.Helper()
	people := sandbox.Fernhill(time.Now())
	for _, d := range all {
		u := entra.User{ID: d.id(), UserPrincipalName: d.upn(), DisplayName: "Target of " + d.name, Mail: d.upn(), Methods: d.methods, Blocked: d.blocked,
			Created: time.Now().AddDate(-2, 0, 0), LastPasswordChange: time.Now().AddDate(-1, 0, 0)}
		if slices.ContainsFunc(d.methods, func(m entra.Method) bool { return m.Type == entra.TypeAuthenticator }) {
			u.DefaultMethod = "push"
		}
		if change != nil {
			change(d, &u, &people)
		}
		people.Users = append(people.Users, u)
	}
	return &actionFixture{startBotIn(t, &people, append([]func(*config){shortFaultTimings}, tune...)...)}
}

// withT returns the fixture for a subtest.
func (s *actionFixture) withT(t *testing.T) *actionFixture {
	w := *s.fixture
	w.T = t
	return &actionFixture{&w}
}

func (w *fixture) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// changesTo returns the calls so far that tried to change a target, in order.
func (s *actionFixture) changesTo(d mutation) []entra.Entry {
	s.Helper()
	calls, err := s.client.EntraCalls()
	s.must(err)
	return slices.DeleteFunc(calls.Changes, func(e entra.Entry) bool { return !strings.Contains(e.Path, d.id()) })
}

// countDecidingCalls counts how often Graph executed the deciding call.
func (s *actionFixture) countDecidingCalls(d mutation) int {
	s.Helper()
	n := 0
	for _, e := range s.changesTo(d) {
		if e.Method == d.method && strings.Contains(e.Path, d.id()+d.path) && e.Status >= 200 && e.Status < 300 {
			n++
		}
	}
	return n
}

// submitAll submits all requests as Hanna.
func (s *actionFixture) submitAll(all []mutation) {
	s.Helper()
	for _, d := range all {
		s.as(sandbox.Hanna, sandbox.HelpDesk).types(d.commandLine())
	}
}

// findScenarios returns the submitted requests, from the cards that Ravi sees.
func (s *actionFixture) findScenarios(all []mutation) []*scenario {
	s.Helper()
	var scenarios []*scenario
	for _, d := range all {
		card := s.as(sandbox.Ravi, sandbox.Approvals).reads("waiting for approval", d.upn())
		was, err := s.client.User(d.upn())
		s.must(err)
		scenarios = append(scenarios, &scenario{d, requestID.FindString(card.Text()), card, was})
	}
	return scenarios
}

// approve presses Approve on every card.
func (s *actionFixture) approve(scenarios []*scenario) {
	s.Helper()
	for _, p := range scenarios {
		s.as(sandbox.Ravi, sandbox.Approvals).presses(p.card, "approve")
	}
}

// forEach runs a subtest for every scenario.
func (s *actionFixture) forEach(t *testing.T, scenarios []*scenario, do func(*actionFixture, *scenario)) {
	for _, p := range scenarios {
		t.Run(p.name, func(t *testing.T) { do(s.withT(t), p) })
	}
}

// expectedEnd is the end of a request, in the words of the card, of the audit message
// and of the requester's notification.
type expectedEnd struct{ card, auditText, notification string }

var (
	endDone      = expectedEnd{": done", "Succeeded: ", "Done: "}
	endAttested  = expectedEnd{": done by hand and confirmed", "ttest", "Done by hand and confirmed: "}
	endPartly    = expectedEnd{": only partly done", "Only partly done: ", "Only partly done: "}
	endFailed    = expectedEnd{": failed", "Failed: ", "Failed: "}
	endUncertain = expectedEnd{": uncertain, somebody has to look", "Uncertain, ", "Uncertain: "}
)

// waitEnd waits until everybody is notified of this end, with these words on the
// card and in the audit message, and returns the card.
func (s *actionFixture) waitEnd(p *scenario, e expectedEnd, words ...string) sandbox.Message {
	s.Helper()
	hanna := s.as(sandbox.Hanna, sandbox.HelpDesk).dm()
	s.as(sandbox.Gloria, sandbox.Audit).reads(append(words, e.auditText, p.request, p.upn(), "hanna.okafor@", "ravi.menon@")...)
	news := hanna.reads(e.notification, p.request)
	card := s.as(sandbox.Ravi, sandbox.Approvals).reads(append(words, e.card, p.request, p.upn(), "What ")...)
	hanna.reads(append(words, e.card, p.request, "What ")...)
	if card.TS != p.card.TS {
		s.Errorf("the card is another message")
	}
	for _, b := range card.Buttons() {
		if b.ActionID != "details" {
			s.Errorf("the card of a finished request has a button: %+v", b)
		}
	}
	if n := len(s.as(sandbox.Gloria, sandbox.Audit).messagesWith(e.auditText, p.request)); n != 1 {
		s.Errorf("the audit channel has the end %d times", n)
	}
	if _, again := news.Button("again"); again != (e == endFailed) {
		s.Errorf("it can be requested again: %t", again)
	}
	if _, offered := news.Button("reveal"); offered != (p.secret != nil && e == endDone) {
		s.Errorf("its secret can be revealed: %t", offered)
	} else if !offered && p.secret != nil {
		for key := range s.redis.Dump(s.T) {
			if strings.Contains(key, "secret:"+p.request) {
				s.Errorf("a secret that nobody can reveal is still in Redis: %s", key)
			}
		}
	}
	return card
}

// wantSuccess is waitEnd for a request that was executed. It also checks the account
// and reveals the secret to the requester.
func (s *actionFixture) wantSuccess(p *scenario, times int, words ...string) sandbox.Message {
	s.Helper()
	if p.isManual() {
		return s.attest(p, words...)
	}
	card := s.waitEnd(p, endDone, words...)
	s.account(p.upn(), func(u sandbox.User) bool { return p.isApplied(p.before, u) })
	if n := s.countDecidingCalls(p.mutation); n != times {
		s.Errorf("it was executed %d times, not %d: %+v", n, times, s.changesTo(p.mutation))
	}
	if p.secret != nil {
		secrets, err := s.client.Secrets(p.upn())
		s.must(err)
		s.reveal(p, p.secret(secrets))
	}
	return card
}

// reveal reveals the secret to the requester.
func (s *actionFixture) reveal(p *scenario, secret string) {
	s.Helper()
	hanna := s.as(sandbox.Hanna, sandbox.HelpDesk).dm()
	hanna.presses(hanna.reads("Done: ", p.request), "reveal")
	s.must(hanna.p.Close(hanna.sees("For your eyes only", p.upn(), secret).ID))
	s.as(sandbox.Gloria, sandbox.Audit).reads("opened the secret", p.request)
}

// attest has two people do a manual step, and checks that no call changes anything.
func (s *actionFixture) attest(p *scenario, words ...string) sandbox.Message {
	s.Helper()
	ravi, olga := s.as(sandbox.Ravi, sandbox.Approvals), s.as(sandbox.Olga, sandbox.Approvals)
	ravi.presses(ravi.reads("to be done by hand", p.request), "attest")
	olga.presses(olga.reads("to be confirmed by somebody else", p.request), "confirm")
	card := s.waitEnd(p, endAttested, words...)
	s.as(sandbox.Gloria, sandbox.Audit).reads("says that it was done by hand", "ravi.menon@", p.request)
	if p.compromised {
		return card
	}
	if changes := s.changesTo(p.mutation); len(changes) > 0 {
		s.Errorf("Countersign changed something itself: %+v", changes)
	}
	return card
}

// wantUnchanged checks that nothing was done to the target.
func (s *actionFixture) wantUnchanged(d mutation, was sandbox.User) {
	s.Helper()
	is, err := s.client.User(d.upn())
	s.must(err)
	for _, e := range s.changesTo(d) {
		if e.Status < 300 && e.Status > 0 {
			s.Errorf("the account was changed: %+v", e)
		}
	}
	if fmt.Sprint(is) != fmt.Sprint(was) {
		s.Errorf("the account was\n%+v\nand is\n%+v", was, is)
	}
}

// There is nothing to do: the requester gets a message at once, there is no card to
// approve, and the refusal is recorded.
func TestNothingToDo(t *testing.T) {
	t.Parallel()
	all := mutations()
	s := newActionFixture(t, all, func(d mutation, u *entra.User, _ *sandbox.Company) {
		if d.makeNothingToDo != nil {
			d.makeNothingToDo(u)
		}
	})
	s.submitAll(all)
	for _, d := range all {
		t.Run(d.name, func(t *testing.T) {
			s := s.withT(t)
			hanna := s.as(sandbox.Hanna, sandbox.HelpDesk)
			if d.makeNothingToDo == nil {
				t.Log("there is always something to do: " + d.alwaysSomething)
				hanna.reads("is requested as", d.upn())
				return
			}
			no := hanna.reads("here is nothing to ", d.upn())
			if !no.Ephemeral {
				t.Error("the answer is visible to everybody")
			}
			if d.compromised && !no.Contains("block its sign-in and revoke its sessions") {
				t.Errorf("the message does not say what to do with a compromised account:\n%s", no.Text())
			}
			s.as(sandbox.Gloria, sandbox.Audit).reads("hanna.okafor@", "refused", d.upn(), "here is nothing to ")
			if cards := s.as(sandbox.Ravi, sandbox.Approvals).messagesWith(d.upn()); len(cards) > 0 {
				t.Errorf("there is a card to approve it:\n%s", cards[0].Text())
			}
			was, err := s.client.User(d.upn())
			s.must(err)
			s.wantUnchanged(d, was)
		})
	}
}

// A protected target is refused and the security channel is notified, except for
// containment, which takes one more approval.
func TestProtectedTarget(t *testing.T) {
	t.Parallel()
	all := mutations()
	s := newActionFixture(t, all, func(_ mutation, u *entra.User, w *sandbox.Company) {
		i := slices.IndexFunc(w.Groups, func(g entra.Group) bool { return g.ID == sandbox.GroupExecutives })
		w.Groups[i].Members = append(slices.Clone(w.Groups[i].Members), u.ID)
	}, func(c *config) { c.Slack.SecurityChannel = sandbox.HelpDesk })
	s.submitAll(all)
	for _, d := range all {
		t.Run(d.name, func(t *testing.T) {
			s := s.withT(t)
			if c, _ := commands.Lookup(d.command); c.Class == approvals.ClassContain {
				p := s.findScenarios([]mutation{d})[0]
				if !p.card.Contains("0 of 2", "Executives") {
					t.Errorf("the card does not say why it takes two approvals:\n%s", p.card.Text())
				}
				s.approve([]*scenario{p})
				olga := s.as(sandbox.Olga, sandbox.Approvals)
				card := olga.reads("1 of 2", p.request)
				s.wantUnchanged(d, p.before)
				olga.presses(card, "approve")
				s.wantSuccess(p, 1, "olga.lindqvist@")
				return
			}
			s.waitFor("the answer for her alone", func() bool {
				answers := s.as(sandbox.Hanna, sandbox.HelpDesk).messagesWith("protected target", d.upn(), "Privileged Authentication Administrator")
				return slices.ContainsFunc(answers, func(m sandbox.Message) bool { return m.Ephemeral })
			})
			s.as(sandbox.Gloria, sandbox.Audit).reads("hanna.okafor@", "refused", d.upn(), "protected target")
			s.as(sandbox.Olga, sandbox.HelpDesk).reads("hanna.okafor@", "was refused", d.upn(), "protected target")
			if cards := s.as(sandbox.Ravi, sandbox.Approvals).messagesWith(d.upn()); len(cards) > 0 {
				t.Errorf("there is a card to approve it:\n%s", cards[0].Text())
			}
			was, err := s.client.User(d.upn())
			s.must(err)
			s.wantUnchanged(d, was)
		})
	}
}

// A permission is missing: nothing is done, and the card, the notification and the audit
// message name it.
func TestPermissionMissing(t *testing.T) {
	t.Parallel()
	all := mutations()
	s := newActionFixture(t, all, nil)
	var left []string
	for _, p := range commands.Permissions() {
		if !strings.Contains(string(p), "Write") && p != graph.PermPolicyRead && p != graph.PermAccountEnable && p != graph.PermSessionsRevoke {
			left = append(left, string(p))
		}
	}
	s.must(s.client.SetGrant(left...))
	s.submitAll(all)
	scenarios := s.findScenarios(all)
	s.approve(scenarios)
	s.forEach(t, scenarios, func(s *actionFixture, p *scenario) {
		grants := "An administrator grants " + string(p.permission)
		if p.isManual() { // only a hint for the approver is missing
			if !p.card.Contains(grants) {
				s.Errorf("the card does not say that %s is missing:\n%s", p.permission, p.card.Text())
			}
			s.attest(p)
			return
		}
		s.waitEnd(p, endFailed, grants, "403", "Graph request-id")
		s.wantUnchanged(p.mutation, p.before)
	})
}

// testWithFault runs every mutation with one kind of fault in its deciding call.
// meanwhile is called when all of them are approved.
func testWithFault(t *testing.T, fault func(mutation) entra.Fault, check func(*actionFixture, *scenario), meanwhile ...func(*actionFixture, []*scenario)) {
	t.Helper()
	t.Parallel()
	all := mutations()
	s := newActionFixture(t, all, nil)
	var faults []entra.Fault
	for _, d := range all {
		faults = append(faults, d.faults(fault(d))...)
	}
	s.must(s.client.SetEntraFaults(faults...))
	s.submitAll(all)
	scenarios := s.findScenarios(all)
	s.approve(scenarios)
	for _, do := range meanwhile {
		do(s, scenarios)
	}
	s.forEach(t, scenarios, func(s *actionFixture, p *scenario) {
		if p.isManual() {
			s.attest(p)
			return
		}
		check(s, p)
	})
}

// Graph throttles: the card says so, and the change is executed afterwards. Graph
// keeps throttling until every card was read, because a busy machine may take longer
// than one wait.
func TestThrottled(t *testing.T) {
	seconds := 3
	testWithFault(t, func(mutation) entra.Fault {
		return entra.Fault{Kind: entra.FaultThrottle, RetryAfter: &seconds, Times: -1}
	}, func(s *actionFixture, p *scenario) {
		s.wantSuccess(p, 1)
		s.as(sandbox.Gloria, sandbox.Audit).reads("Microsoft Graph asked to wait", p.request)
	}, func(s *actionFixture, scenarios []*scenario) {
		for _, p := range scenarios {
			if !p.isManual() {
				s.as(sandbox.Ravi, sandbox.Approvals).reads(p.request, "waiting for Microsoft Graph", "asked to wait until")
			}
		}
		s.must(s.client.SetEntraFaults())
	})
}

// Graph refuses and executes nothing: the end says so, with the request-id
// that Microsoft's support asks for.
func TestRefusedByGraph(t *testing.T) {
	testWithFault(t, func(mutation) entra.Fault {
		return entra.Fault{Kind: entra.FaultStatus, Status: http.StatusConflict, Code: "conflict", Message: "Not for +1 4255550142 today.", Times: -1}
	}, func(s *actionFixture, p *scenario) {
		words := []string{"409 conflict", "Microsoft says: Not for •••• today", "Graph request-id"}
		if p.continues {
			s.waitEnd(p, endPartly, words...)
		} else {
			s.waitEnd(p, endFailed, words...)
			s.wantUnchanged(p.mutation, p.before)
		}
		if n := s.countDecidingCalls(p.mutation); n != 0 {
			s.Errorf("it was executed %d times", n)
		}
	})
}

// The call is lost on the way, every time: it is unknown whether Graph got it, and the
// end is uncertain.
func TestNeverAnswered(t *testing.T) {
	testWithFault(t, func(mutation) entra.Fault { return entra.Fault{Kind: entra.FaultDropRequest, Times: -1} }, func(s *actionFixture, p *scenario) {
		s.waitEnd(p, endUncertain, "did not say whether it")
		if n := s.countDecidingCalls(p.mutation); n != 0 {
			s.Errorf("it was executed %d times", n)
		}
		if p.continues {
			return
		}
		s.wantUnchanged(p.mutation, p.before)
	})
}

// The call is lost once: it is repeated, and executed once.
func TestRequestLost(t *testing.T) {
	testWithFault(t, func(mutation) entra.Fault { return entra.Fault{Kind: entra.FaultDropRequest} }, func(s *actionFixture, p *scenario) { s.wantSuccess(p, 1) })
}

// Graph executes the change and the answer is lost: the account is read, and a visible
// change is not repeated. A change that cannot be read is sent again unchanged.
func TestReplyLost(t *testing.T) {
	testWithFault(t, func(mutation) entra.Fault { return entra.Fault{Kind: entra.FaultDropReply} }, func(s *actionFixture, p *scenario) {
		times := 1
		if p.repeats {
			times = 2
		}
		card := s.wantSuccess(p, times)
		if p.command == "issue-pass" && !card.Contains("takes the place of one whose value was lost") {
			s.Errorf("the card does not mention the first pass:\n%s", card.Text())
		}
	})
}

// Graph executes the change long after the connection was closed. It is repeated
// in the meantime, and the account is correct in the end.
func TestAppliedLate(t *testing.T) {
	testWithFault(t, func(mutation) entra.Fault { return entra.Fault{Kind: entra.FaultApplyLate, DelayMS: 900} }, func(s *actionFixture, p *scenario) {
		card := s.waitEnd(p, endDone)
		s.pollUntil("the late change of "+p.name, func() bool {
			return slices.ContainsFunc(s.changesTo(p.mutation), func(e entra.Entry) bool { return e.Fault == entra.FaultApplyLate })
		})
		is, err := s.client.User(p.upn())
		s.must(err)
		if !p.isApplied(p.before, is) {
			s.Errorf("the account is %+v", is)
		}
		if phones, mails := is.OfType(entra.TypePhone), is.OfType(entra.TypeEmail); len(phones) > 2 || len(mails) > 1 {
			s.Errorf("a method exists twice: %s", kinds(is))
		}
		secrets, err := s.client.Secrets(p.upn())
		s.must(err)
		switch p.command {
		case "reset-password":
			s.reveal(p, p.secret(secrets)) // both calls set the same one
		case "issue-pass":
			// The late pass may replace the one that is shown.
			if !card.Contains("takes the place of one whose value was lost", "Should it not work, ask for another") {
				s.Errorf("the card does not say that the pass may not work:\n%s", card.Text())
			}
			s.reveal(p, "")
		}
	})
}

// Somebody changes the account between the plan and the approval: nothing is
// done, and the card says what changed. Containment runs anyway.
func TestChangedSincePlan(t *testing.T) {
	t.Parallel()
	all := mutations()
	s := newActionFixture(t, all, nil)
	s.submitAll(all)
	scenarios := s.findScenarios(all)
	for _, p := range scenarios {
		p.changeAccount(s.fixture, p.upn())
		is, err := s.client.User(p.upn())
		s.must(err)
		if p.driftIgnored == "" || p.isManual() {
			p.before = is
		}
	}
	s.approve(scenarios)
	s.forEach(t, scenarios, func(s *actionFixture, p *scenario) {
		if p.driftIgnored != "" {
			s.Log("a change does not stop it: " + p.driftIgnored)
			s.wantSuccess(p, 1)
			return
		}
		s.waitEnd(p, endFailed, "no longer as the plan assumed: ", p.driftText)
		if changes := s.changesTo(p.mutation); len(changes) > 0 {
			s.Errorf("a change was attempted: %+v", changes)
		}
		s.wantUnchanged(p.mutation, p.before)
	})
}

// The process is killed after Graph has executed the call and before Graph
// answers, so that the outcome is not journalled. The next process finds it out and does
// not repeat the change; a password is sent again unchanged.
func TestKilledBetweenCallAndJournal(t *testing.T) {
	all := mutations()
	last := len(all) - 1 // a manual step, which needs no worker
	for i, some := range [][]mutation{all[:4], all[4:8], all[8:11], append(slices.Clone(all[11:last]), all[last])} {
		t.Run(fmt.Sprint(i+1), func(t *testing.T) {
			t.Parallel()
			// A call hangs for half of its time before the process itself checks
			// whether it was executed: all of them must hang at the same time.
			s := newActionFixture(t, some, nil, func(c *config) {
				c.Timing.GraphCall, c.Timing.GraphGrace, c.Timing.LookUps = 10*time.Second, 100*time.Millisecond, 8*time.Second
				c.Timing.Lease, c.Timing.Takeover = 18300*time.Millisecond, 9*time.Second
			})
			s.stop()
			kill := s.startProcess()
			s.submitAll(some)
			scenarios := s.findScenarios(some)
			var faults []entra.Fault
			for _, d := range some {
				if !d.isManual() {
					faults = append(faults, d.faults(entra.Fault{Kind: entra.FaultApplyHang})...)
				}
			}
			s.must(s.client.SetEntraFaults(faults...))
			s.approve(scenarios)
			for _, p := range scenarios {
				if p.isManual() {
					s.as(sandbox.Ravi, sandbox.Approvals).reads("to be done by hand", p.request)
				}
			}
			s.pollUntil("calls that were executed and hang", func() bool {
				left, err := s.client.EntraFaults()
				return err == nil && len(left) == 0
			})
			kill()
			store := approvals.NewStore(s.redis.Client(t), s.service.secrets.Ring, s.service.config.Redis.Prefix, s.service.config.Timing)
			for _, p := range scenarios {
				snap, err := store.Load(t.Context(), p.request)
				s.must(err)
				if n := s.countDecidingCalls(p.mutation); !p.isManual() && (n != 1 || !slices.ContainsFunc(snap.Journal, func(e approvals.JournalEntry) bool { return e.State == approvals.StepStarted })) {
					t.Fatalf("the process was not killed between the call of %s, executed %d times, and the journal: %+v", p.name, n, snap.Journal)
				}
			}
			// Only the killed process needs a short lease. On a slow machine, the next
			// one must still have time to look people up.
			timing := &s.service.config.Timing
			timing.LookUps, timing.Lease, timing.Takeover = 30*time.Second, time.Minute, time.Minute
			s.start()
			t.Cleanup(s.stop)
			s.forEach(t, scenarios, func(s *actionFixture, p *scenario) {
				times := 1
				if p.repeats {
					times = 2
				}
				s.wantSuccess(p, times)
				sent := map[string]bool{}
				for _, e := range s.changesTo(p.mutation) {
					if e.Method == p.method && strings.HasSuffix(e.Path, p.id()+p.path) {
						sent[e.Digest] = true
					}
				}
				if len(sent) > 1 {
					s.Errorf("it was sent again with another body: %+v", s.changesTo(p.mutation))
				}
			})
		})
	}
}

// Every command, in each of its variants, works with exactly the application
// permissions in the command table, and the tenant demands each of
// them. This also tests that every action succeeds.
func TestPermissionsMatchGraph(t *testing.T) {
	t.Parallel()
	all := append(mutations(), removalCases()...)
	// Every command that accepts verified=compromise is tested with it once.
	for _, c := range commands.Table() {
		i := slices.IndexFunc(all, func(d mutation) bool { return d.command == c.Name && !d.compromised })
		if i < 0 || slices.ContainsFunc(all, func(d mutation) bool { return d.command == c.Name && d.compromised }) ||
			!slices.ContainsFunc(c.More, func(e commands.Extra) bool { return e.With == "verified=compromise" }) {
			continue
		}
		d := all[i]
		d.name, d.compromised = d.name+"-compromise", true
		plain := d.isApplied
		d.isApplied = func(was, is sandbox.User) bool { return !is.Enabled && (d.isManual() || plain(was, is)) }
		if d.method == http.MethodPatch {
			d.method, d.path = http.MethodPost, "/revokeSignInSessions" // blocking is a PATCH of the account, too
		}
		all = append(all, d)
	}

	s := newActionFixture(t, all, nil)
	demanded := map[string]bool{}
	for _, c := range commands.Table() {
		var plain []string
		for _, way := range append([]commands.Extra{{}}, c.More...) {
			var granted []string
			for _, p := range append(slices.Clone(c.Permissions), way.Permissions...) {
				granted = append(granted, string(p))
			}
			slices.Sort(granted)
			t.Run(strings.TrimSpace(c.Name+" "+way.With), func(t *testing.T) {
				s := s.withT(t)
				s.must(s.client.SetGrant(granted...))
				s.resetCalls()
				if c.Class == approvals.ClassRead {
					s.runRead(c, all[0])
				} else {
					some := slices.DeleteFunc(slices.Clone(all), func(d mutation) bool {
						return d.command != c.Name || d.compromised != (way.With == "verified=compromise") || (d.args == "everything") != (way.With == "everything")
					})
					if len(some) == 0 {
						t.Fatalf("no mutation tests %s %s", c.Name, way.With)
					}
					s.submitAll(some)
					scenarios := s.findScenarios(some)
					s.approve(scenarios)
					s.forEach(t, scenarios, func(s *actionFixture, p *scenario) { s.wantSuccess(p, 1) })
				}
				calls, err := s.client.EntraCalls()
				s.must(err)
				for _, p := range calls.Used {
					demanded[p] = true
				}
				if way.With == "" {
					plain = calls.Used
				}
				// A variant need not use all permissions of the plain command.
				used := slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(plain), calls.Used...))))
				if !slices.Equal(used, granted) {
					t.Errorf("the tenant demanded\n%q, but the table has\n%q", used, granted)
				}
			})
		}
	}
	var table []string
	for _, p := range commands.Permissions() {
		table = append(table, string(p))
	}
	if got := slices.Sorted(maps.Keys(demanded)); !slices.Equal(got, table) {
		t.Errorf("all commands together demanded\n%q, but the table has\n%q", got, table)
	}
}

// resetCalls makes the tenant forget which permissions were demanded.
func (s *actionFixture) resetCalls() {
	s.Helper()
	r, err := http.NewRequest(http.MethodDelete, s.box.URL()+"/sandbox/entra/calls", nil)
	s.must(err)
	answer, err := http.DefaultClient.Do(r)
	s.must(err)
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		s.Fatal(answer.Status)
	}
}

// runRead runs a read command.
func (s *actionFixture) runRead(c commands.Command, d mutation) {
	s.Helper()
	typed, ok := map[string]struct{ line, answer string }{
		"methods": {d.upn(), "Authentication methods"}, "requests": {"pending", "Open requests"}, "help": {"", "What you may do"},
	}[c.Name]
	if !ok {
		s.Fatalf("the test has no arguments for %s", c.Name)
	}
	hanna := s.as(sandbox.Hanna, sandbox.HelpDesk)
	s.must(hanna.p.Reload())
	hanna.types(strings.TrimSpace(commands.Slash(defaultPrefix, c) + " " + typed.line))
	if m := hanna.reads(typed.answer); m.Contains("An administrator grants") {
		s.Errorf("%s lacks a permission:\n%s", c.Name, m.Text())
	}
}
