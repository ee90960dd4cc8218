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
// and Graph: what the account is afterwards, and what the card, the requester
// and the record say. A situation is a world of its own in which each action
// has a target of its own, so that one wait serves all of them.

// deed is an admin action on its target.
type deed struct {
	name    string // also the target's mailbox; not the end of another name
	command string
	args    string // behind the target
	lost    bool   // nobody called: verified=compromise
	blocked bool   // the target cannot sign in
	has     []entra.Method

	// The call that decides, its path behind the account. It is empty for what
	// people do by hand.
	method, path string
	permission   graph.Permission
	rest         bool // when that call fails, the other steps are taken all the same
	again        bool // it is made again when its answer is lost: what it sets is not to be read
	shows        func(was, is sandbox.User) bool

	idle   func(*entra.User) // there is nothing to do any more
	always string            // or why there always is something

	drift   func(*world, string) // somebody changes the account
	differs string               // how that is told
	unbound string               // or why it does not matter

	secret func(sandbox.Secrets) string // that comes of it
}

// deeds is every admin action, in each way that makes another plan.
func deeds() []deed {
	const (
		phone, other = "+1 4255550187", "+1 4255550188"
		address      = "new@mailbox.example"
		containment  = "containment assumes nothing: an intruder could stop it otherwise"
		hers         = "app passwords cannot be read, so the plan rests on nothing"
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
	adds := func(m entra.Method) func(*world, string) {
		return func(w *world, upn string) { w.must(w.client.AddMethod(upn, m)) }
	}
	drops := func(id string) func(*world, string) {
		return func(w *world, upn string) { w.must(w.client.DeleteMethod(upn, id)) }
	}
	patches := func(field string, value any) func(*world, string) {
		return func(w *world, upn string) { w.must(w.client.PatchUser(upn, map[string]any{field: value})) }
	}
	owns := func(m ...entra.Method) func(*entra.User) {
		return func(u *entra.User) { u.Methods, u.DefaultMethod = m, "" }
	}
	now := time.Now().UTC().Format(time.RFC3339)

	mobile, app, soft, hard := entra.Phone("mobile", other), entra.Authenticator("app-1", "Pixel 9"), entra.SoftwareOATH("soft-1"), entra.HardwareOATH("hard-1", "2309431", "Feitian", "OTP c200")
	key, hello, email := entra.Passkey("key-1", "Top drawer", "YubiKey 5", ""), entra.WindowsHello("hello-1", "FH-LT-0500"), entra.Email("old@mailbox.example")
	pass := entra.TemporaryAccessPass("pass-1", time.Now().Add(-time.Minute), 8*time.Hour, false)

	return []deed{
		{name: "add-phone", command: "add-phone", args: "office " + phone, has: []entra.Method{mobile},
			method: http.MethodPost, path: "/authentication/phoneMethods", permission: graph.PermPhoneWrite,
			shows: holds(entra.TypePhone, "phoneNumber", phone),
			idle:  owns(entra.Phone("office", phone)), drift: adds(hello), differs: "a method was added: Windows Hello"},
		{name: "replace-phone", command: "add-phone", args: "mobile " + phone, has: []entra.Method{mobile},
			method: http.MethodPatch, path: "/authentication/phoneMethods/", permission: graph.PermPhoneWrite,
			shows: holds(entra.TypePhone, "phoneNumber", phone),
			idle:  owns(entra.Phone("mobile", phone)),
			drift: func(w *world, upn string) {
				drops(entra.IDMobile)(w, upn)
				adds(entra.Phone("mobile", "+1 4255550177"))(w, upn)
			}, differs: "a method was replaced: phone"},
		{name: "add-email", command: "add-email", args: address,
			method: http.MethodPost, path: "/authentication/emailMethods", permission: graph.PermEmailWrite,
			shows: holds(entra.TypeEmail, "emailAddress", address),
			idle:  owns(entra.Email(address)), drift: adds(email), differs: "a method was added: reset e-mail"},
		{name: "replace-email", command: "add-email", args: address, has: []entra.Method{mobile, email},
			method: http.MethodPatch, path: "/authentication/emailMethods/", permission: graph.PermEmailWrite,
			shows: holds(entra.TypeEmail, "emailAddress", address),
			idle:  owns(entra.Email(address)), drift: drops(entra.IDEmail), differs: "a method is gone: reset e-mail"},
		{name: "remove-method", command: "remove-method", args: "passkey", has: []entra.Method{mobile, key},
			method: http.MethodDelete, path: "/authentication/fido2Methods/", permission: graph.PermPasskeyWrite,
			shows: gone(entra.TypePasskey),
			idle:  owns(), drift: adds(app), differs: "a method was added: Microsoft Authenticator"},
		{name: "reregister", command: "require-reregister", has: []entra.Method{mobile, app, soft, hard, key},
			method: http.MethodDelete, path: "/authentication/softwareOathMethods/", permission: graph.PermSoftwareOATHWrite, rest: true,
			shows: both(revoked, gone(entra.TypePhone, entra.TypeAuthenticator, entra.TypeSoftwareOATH)),
			idle:  owns(key), drift: drops(app.ID), differs: "a method is gone: Microsoft Authenticator"},
		{name: "reregister-everything", command: "require-reregister", args: "everything",
			has: []entra.Method{mobile, app, soft, hard, key, hello, email, pass, entra.PlatformCredential("platform-1", "MacBook", "macOS"),
				entra.External("external-1", "Badge", "b95bd8d8-df64-4b11-9fe6-cdc48f1966f2"), entra.QRCodePIN("qr-1")},
			method: http.MethodDelete, path: "/authentication/windowsHelloForBusinessMethods/", permission: graph.PermWindowsHelloWrite, rest: true,
			shows: both(revoked, gone(entra.TypePhone, entra.TypeAuthenticator, entra.TypeSoftwareOATH, entra.TypePasskey, entra.TypeWindowsHello, entra.TypeEmail,
				entra.TypePass, entra.TypePlatformCredential, entra.TypeExternal, entra.TypeQRCodePIN)),
			idle: owns(), drift: patches("default_method", "sms"), differs: "the default method is another one"},
		{name: "reregister-compromise", command: "require-reregister", lost: true, has: []entra.Method{mobile, app},
			method: http.MethodDelete, path: "/authentication/microsoftAuthenticatorMethods/", permission: graph.PermAuthenticatorWrite, rest: true,
			shows: both(revoked, func(was, is sandbox.User) bool {
				return !is.Enabled && gone(entra.TypePhone, entra.TypeAuthenticator)(was, is)
			}),
			idle: owns(key), drift: patches("last_password_change", now), unbound: "whoever has the account could stop this by changing it once more"},
		{name: "reset-password", command: "reset-password", has: []entra.Method{mobile},
			method: http.MethodPatch, permission: graph.PermPasswordWrite, again: true,
			shows:  both(revoked, func(was, is sandbox.User) bool { return is.LastPasswordChange.After(was.LastPasswordChange) }),
			always: "a new password is always another one", drift: patches("last_password_change", now), differs: "the password was changed",
			secret: func(s sandbox.Secrets) string { return s.Password }},
		{name: "issue-pass", command: "issue-pass", args: "60m once", has: []entra.Method{mobile},
			method: http.MethodPost, path: "/authentication/temporaryAccessPassMethods", permission: graph.PermPassWrite, again: true,
			shows:  func(_, is sandbox.User) bool { return typed(entra.TypePass)(is) == 1 },
			always: "a new pass takes the place of an old one", drift: adds(pass), differs: "a method was added: Temporary Access Pass",
			secret: func(s sandbox.Secrets) string { return s.Pass }},
		{name: "revoke-sessions", command: "revoke-sessions",
			method: http.MethodPost, path: "/revokeSignInSessions", permission: graph.PermSessionsRevoke,
			shows:  revoked,
			always: "Graph does not tell whether anybody is signed in", drift: patches("sessions_valid_from", now), unbound: containment},
		{name: "block-signin", command: "block-signin",
			method: http.MethodPatch, permission: graph.PermAccountEnable,
			shows: func(_, is sandbox.User) bool { return !is.Enabled },
			idle:  func(u *entra.User) { u.Blocked = true }, drift: patches("last_password_change", now), unbound: containment},
		{name: "allow-signin", command: "unblock-signin", blocked: true,
			method: http.MethodPatch, permission: graph.PermAccountEnable,
			shows: func(_, is sandbox.User) bool { return is.Enabled },
			idle:  func(u *entra.User) { u.Blocked = false }, drift: patches("enabled", true), differs: "the account was unblocked"},
		{name: "app-passwords", command: "delete-app-passwords", permission: graph.PermPolicyRead,
			shows:  func(was, is sandbox.User) bool { return fmt.Sprint(was) == fmt.Sprint(is) },
			always: hers, drift: patches("per_user_mfa", "enforced"), unbound: hers},
	}
}

// removing is the removal of one method of every kind but a passkey, which is
// among the deeds.
func removing() []deed {
	var all []deed
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
		d := deed{name: "remove-" + strings.ReplaceAll(m.named, " ", "-"), command: "remove-method", args: m.named, has: []entra.Method{m.is},
			method: http.MethodDelete, path: "/authentication/", shows: func(_, is sandbox.User) bool { return len(is.OfType(m.is.Type)) == 0 }}
		all = append(all, d)
	}
	return all
}

// byHand says that Graph has no call for it. Whatever goes wrong with calls
// cannot go wrong with it, which is tested by letting every change fail.
func (d deed) byHand() bool { return d.method == "" }

func (d deed) upn() string { return d.name + "@fernhill.example" }

// id is the target's object id.
func (d deed) id() string {
	sum := sha256.Sum256([]byte(d.name))
	return fmt.Sprintf("%x-%x-4%03x-8%03x-%x", sum[:4], sum[4:6], sum[6], sum[7], sum[8:14])
}

func (d deed) line() string {
	c, _ := commands.Lookup(d.command)
	words := []string{commands.Slash(defaultPrefix, c), d.upn(), d.args}
	switch {
	case d.lost:
		words = append(words, "verified=compromise")
	case len(commands.Verifications(c)) > 0:
		words = append(words, "verified=video")
	}
	return strings.Join(append(words, "for "+d.name), " ")
}

// goesWrong are the faults that meet the deciding call.
func (d deed) goesWrong(f entra.Fault) []entra.Fault {
	if !d.byHand() {
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

// scene is a world in which every deed has its target.
type scene struct{ *world }

// play is a deed on its way.
type play struct {
	deed
	request string
	card    sandbox.Message
	was     sandbox.User
}

// newScene makes one. change may change the targets, and the world around.
func newScene(t *testing.T, all []deed, change func(deed, *entra.User, *sandbox.World), tune ...func(*config)) *scene {
	t.Helper()
	people := sandbox.Fernhill(time.Now())
	for _, d := range all {
		u := entra.User{ID: d.id(), UserPrincipalName: d.upn(), DisplayName: "Target of " + d.name, Mail: d.upn(), Methods: d.has, Blocked: d.blocked,
			Created: time.Now().AddDate(-2, 0, 0), LastPasswordChange: time.Now().AddDate(-1, 0, 0)}
		if slices.ContainsFunc(d.has, func(m entra.Method) bool { return m.Type == entra.TypeAuthenticator }) {
			u.DefaultMethod = "push"
		}
		if change != nil {
			change(d, &u, &people)
		}
		people.Users = append(people.Users, u)
	}
	return &scene{beginIn(t, &people, append([]func(*config){brisk}, tune...)...)}
}

// in is the scene in a subtest.
func (s *scene) in(t *testing.T) *scene {
	w := *s.world
	w.T = t
	return &scene{&w}
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// changes are the calls so far that were to change a target, in order.
func (s *scene) changes(d deed) []entra.Entry {
	s.Helper()
	calls, err := s.client.EntraCalls()
	s.must(err)
	return slices.DeleteFunc(calls.Changes, func(e entra.Entry) bool { return !strings.Contains(e.Path, d.id()) })
}

// deciding counts how often Graph carried out the call that decides.
func (s *scene) deciding(d deed) int {
	s.Helper()
	n := 0
	for _, e := range s.changes(d) {
		if e.Method == d.method && strings.Contains(e.Path, d.id()+d.path) && e.Status >= 200 && e.Status < 300 {
			n++
		}
	}
	return n
}

// asks has Hanna ask for everything.
func (s *scene) asks(all []deed) {
	s.Helper()
	for _, d := range all {
		s.as(sandbox.Hanna, sandbox.HelpDesk).types(d.line())
	}
}

// plays are the requests that came of it, as Ravi reads them.
func (s *scene) plays(all []deed) []*play {
	s.Helper()
	var plays []*play
	for _, d := range all {
		card := s.as(sandbox.Ravi, sandbox.Approvals).reads("waiting for approval", d.upn())
		was, err := s.client.User(d.upn())
		s.must(err)
		plays = append(plays, &play{d, requestID.FindString(card.Text()), card, was})
	}
	return plays
}

// approve presses Approve on every card.
func (s *scene) approve(plays []*play) {
	s.Helper()
	for _, p := range plays {
		s.as(sandbox.Ravi, sandbox.Approvals).presses(p.card, "approve")
	}
}

// each is a subtest for every play.
func (s *scene) each(t *testing.T, plays []*play, do func(*scene, *play)) {
	for _, p := range plays {
		t.Run(p.name, func(t *testing.T) { do(s.in(t), p) })
	}
}

// ending is how a request ends, in the words of the card, of the record and of
// what the requester is told.
type ending struct{ card, record, news string }

var (
	done      = ending{": done", "Succeeded: ", "Done: "}
	attested  = ending{": done by hand and confirmed", "ttest", "Done by hand and confirmed: "}
	partly    = ending{": only partly done", "Only partly done: ", "Only partly done: "}
	failed    = ending{": failed", "Failed: ", "Failed: "}
	uncertain = ending{": uncertain, somebody has to look", "Uncertain, ", "Uncertain: "}
)

// ends waits until everybody was told of this ending, with these words on the
// card and in the record, and gives the card.
func (s *scene) ends(p *play, e ending, words ...string) sandbox.Message {
	s.Helper()
	hanna := s.as(sandbox.Hanna, sandbox.HelpDesk).dm()
	s.as(sandbox.Gloria, sandbox.Audit).reads(append(words, e.record, p.request, p.upn(), "hanna.okafor@", "ravi.menon@")...)
	news := hanna.reads(e.news, p.request)
	card := s.as(sandbox.Ravi, sandbox.Approvals).reads(append(words, e.card, p.request, p.upn(), "What ")...)
	hanna.reads(append(words, e.card, p.request, "What ")...)
	if card.TS != p.card.TS {
		s.Errorf("the card is another message")
	}
	for _, b := range card.Buttons() {
		if b.ActionID != "details" {
			s.Errorf("a request that is over can be pressed: %+v", b)
		}
	}
	if n := len(s.as(sandbox.Gloria, sandbox.Audit).all(e.record, p.request)); n != 1 {
		s.Errorf("the record has the end %d times", n)
	}
	if _, again := news.Button("again"); again != (e == failed) {
		s.Errorf("it can be asked for again: %t", again)
	}
	if _, offered := news.Button("reveal"); offered != (p.secret != nil && e == done) {
		s.Errorf("its secret can be opened: %t", offered)
	} else if !offered && p.secret != nil {
		for key := range s.redis.Dump(s.T) {
			if strings.Contains(key, "secret:"+p.request) {
				s.Errorf("a secret is kept that nobody can open: %s", key)
			}
		}
	}
	return card
}

// succeeds is ends for what was carried out, with the account as it must be
// and the secret in the requester's hands.
func (s *scene) succeeds(p *play, times int, words ...string) sandbox.Message {
	s.Helper()
	if p.byHand() {
		return s.attests(p, words...)
	}
	card := s.ends(p, done, words...)
	s.account(p.upn(), func(u sandbox.User) bool { return p.shows(p.was, u) })
	if n := s.deciding(p.deed); n != times {
		s.Errorf("it was carried out %d times, not %d: %+v", n, times, s.changes(p.deed))
	}
	if p.secret != nil {
		secrets, err := s.client.Secrets(p.upn())
		s.must(err)
		s.reveals(p, p.secret(secrets))
	}
	return card
}

// reveals has the requester open the secret.
func (s *scene) reveals(p *play, secret string) {
	s.Helper()
	hanna := s.as(sandbox.Hanna, sandbox.HelpDesk).dm()
	hanna.presses(hanna.reads("Done: ", p.request), "reveal")
	s.must(hanna.p.Close(hanna.sees("For your eyes only", p.upn(), secret).ID))
	s.as(sandbox.Gloria, sandbox.Audit).reads("opened the secret", p.request)
}

// attests has two people do it by hand, and no call change anything.
func (s *scene) attests(p *play, words ...string) sandbox.Message {
	s.Helper()
	ravi, olga := s.as(sandbox.Ravi, sandbox.Approvals), s.as(sandbox.Olga, sandbox.Approvals)
	ravi.presses(ravi.reads("to be done by hand", p.request), "attest")
	olga.presses(olga.reads("to be confirmed by somebody else", p.request), "confirm")
	card := s.ends(p, attested, words...)
	s.as(sandbox.Gloria, sandbox.Audit).reads("says that it was done by hand", "ravi.menon@", p.request)
	if p.lost {
		return card
	}
	if changes := s.changes(p.deed); len(changes) > 0 {
		s.Errorf("Countersign changed something itself: %+v", changes)
	}
	return card
}

// untouched says that nothing at all was done to the target.
func (s *scene) untouched(d deed, was sandbox.User) {
	s.Helper()
	is, err := s.client.User(d.upn())
	s.must(err)
	for _, e := range s.changes(d) {
		if e.Status < 300 && e.Status > 0 {
			s.Errorf("the account was changed: %+v", e)
		}
	}
	if fmt.Sprint(is) != fmt.Sprint(was) {
		s.Errorf("the account was\n%+v\nand is\n%+v", was, is)
	}
}

// There is nothing to do: the requester is told at once, nobody is asked to
// approve, and the record has it.
func TestNothingToDo(t *testing.T) {
	t.Parallel()
	all := deeds()
	s := newScene(t, all, func(d deed, u *entra.User, _ *sandbox.World) {
		if d.idle != nil {
			d.idle(u)
		}
	})
	s.asks(all)
	for _, d := range all {
		t.Run(d.name, func(t *testing.T) {
			s := s.in(t)
			hanna := s.as(sandbox.Hanna, sandbox.HelpDesk)
			if d.idle == nil {
				t.Log("this cannot happen: " + d.always)
				hanna.reads("is requested as", d.upn())
				return
			}
			no := hanna.reads("here is nothing to ", d.upn())
			if !no.Ephemeral {
				t.Error("everybody reads it")
			}
			if d.lost && !no.Contains("block its sign-in and revoke its sessions") {
				t.Errorf("whoever believes the account to be lost is left alone:\n%s", no.Text())
			}
			s.as(sandbox.Gloria, sandbox.Audit).reads("hanna.okafor@", "refused", d.upn(), "here is nothing to ")
			if cards := s.as(sandbox.Ravi, sandbox.Approvals).all(d.upn()); len(cards) > 0 {
				t.Errorf("somebody is asked to approve it:\n%s", cards[0].Text())
			}
			was, err := s.client.User(d.upn())
			s.must(err)
			s.untouched(d, was)
		})
	}
}

// A protected target is refused, which the security people are told of, but for
// containment, which takes one more approval.
func TestProtectedTarget(t *testing.T) {
	t.Parallel()
	all := deeds()
	s := newScene(t, all, func(_ deed, u *entra.User, w *sandbox.World) {
		i := slices.IndexFunc(w.Groups, func(g entra.Group) bool { return g.ID == sandbox.GroupExecutives })
		w.Groups[i].Members = append(slices.Clone(w.Groups[i].Members), u.ID)
	}, func(c *config) { c.Slack.SecurityChannel = sandbox.HelpDesk })
	s.asks(all)
	for _, d := range all {
		t.Run(d.name, func(t *testing.T) {
			s := s.in(t)
			if c, _ := commands.Lookup(d.command); c.Class == approvals.ClassContain {
				p := s.plays([]deed{d})[0]
				if !p.card.Contains("0 of 2", "Executives") {
					t.Errorf("the card does not say why it takes two:\n%s", p.card.Text())
				}
				s.approve([]*play{p})
				olga := s.as(sandbox.Olga, sandbox.Approvals)
				card := olga.reads("1 of 2", p.request)
				s.untouched(d, p.was)
				olga.presses(card, "approve")
				s.succeeds(p, 1, "olga.lindqvist@")
				return
			}
			s.until("the answer for her alone", func() bool {
				answers := s.as(sandbox.Hanna, sandbox.HelpDesk).all("protected target", d.upn(), "Privileged Authentication Administrator")
				return slices.ContainsFunc(answers, func(m sandbox.Message) bool { return m.Ephemeral })
			})
			s.as(sandbox.Gloria, sandbox.Audit).reads("hanna.okafor@", "refused", d.upn(), "protected target")
			s.as(sandbox.Olga, sandbox.HelpDesk).reads("hanna.okafor@", "was refused", d.upn(), "protected target")
			if cards := s.as(sandbox.Ravi, sandbox.Approvals).all(d.upn()); len(cards) > 0 {
				t.Errorf("somebody is asked to approve it:\n%s", cards[0].Text())
			}
			was, err := s.client.User(d.upn())
			s.must(err)
			s.untouched(d, was)
		})
	}
}

// A permission is missing: nothing is done, and everybody reads which.
func TestPermissionMissing(t *testing.T) {
	t.Parallel()
	all := deeds()
	s := newScene(t, all, nil)
	var left []string
	for _, p := range commands.Permissions() {
		if !strings.Contains(string(p), "Write") && p != graph.PermPolicyRead && p != graph.PermAccountEnable && p != graph.PermSessionsRevoke {
			left = append(left, string(p))
		}
	}
	s.must(s.client.SetGrant(left...))
	s.asks(all)
	plays := s.plays(all)
	s.approve(plays)
	s.each(t, plays, func(s *scene, p *play) {
		grants := "An administrator grants " + string(p.permission)
		if p.byHand() { // only a help for whoever decides is missing
			if !p.card.Contains(grants) {
				s.Errorf("the card does not say that %s is missing:\n%s", p.permission, p.card.Text())
			}
			s.attests(p)
			return
		}
		s.ends(p, failed, grants, "403", "Graph request-id")
		s.untouched(p.deed, p.was)
	})
}

// faced runs every deed with its deciding call going wrong in one way.
// meanwhile is done when all of them are approved.
func faced(t *testing.T, fault func(deed) entra.Fault, check func(*scene, *play), meanwhile ...func(*scene, []*play)) {
	t.Helper()
	t.Parallel()
	all := deeds()
	s := newScene(t, all, nil)
	var faults []entra.Fault
	for _, d := range all {
		faults = append(faults, d.goesWrong(fault(d))...)
	}
	s.must(s.client.SetEntraFaults(faults...))
	s.asks(all)
	plays := s.plays(all)
	s.approve(plays)
	for _, do := range meanwhile {
		do(s, plays)
	}
	s.each(t, plays, func(s *scene, p *play) {
		if p.byHand() {
			s.attests(p)
			return
		}
		check(s, p)
	})
}

// Graph asks to wait: the card says so, and it is carried out afterwards. Graph
// asks again and again until every card was read: a busy machine may well be
// away for as long as one wait.
func TestThrottled(t *testing.T) {
	seconds := 3
	faced(t, func(deed) entra.Fault {
		return entra.Fault{Kind: entra.FaultThrottle, RetryAfter: &seconds, Times: -1}
	}, func(s *scene, p *play) {
		s.succeeds(p, 1)
		s.as(sandbox.Gloria, sandbox.Audit).reads("Microsoft Graph asked to wait", p.request)
	}, func(s *scene, plays []*play) {
		for _, p := range plays {
			if !p.byHand() {
				s.as(sandbox.Ravi, sandbox.Approvals).reads(p.request, "waiting for Microsoft Graph", "asked to wait until")
			}
		}
		s.must(s.client.SetEntraFaults())
	})
}

// Graph refuses and carries nothing out: that is told, with the request-id
// that Microsoft's support asks for.
func TestRefusedByGraph(t *testing.T) {
	faced(t, func(deed) entra.Fault {
		return entra.Fault{Kind: entra.FaultStatus, Status: http.StatusConflict, Code: "conflict", Message: "Not for +1 4255550142 today.", Times: -1}
	}, func(s *scene, p *play) {
		words := []string{"409 conflict", "Microsoft says: Not for •••• today", "Graph request-id"}
		if p.rest {
			s.ends(p, partly, words...)
		} else {
			s.ends(p, failed, words...)
			s.untouched(p.deed, p.was)
		}
		if n := s.deciding(p.deed); n != 0 {
			s.Errorf("it was carried out %d times", n)
		}
	})
}

// The request is lost on the way, every time: nobody can tell whether Graph
// got it, and nobody claims to.
func TestNeverAnswered(t *testing.T) {
	faced(t, func(deed) entra.Fault { return entra.Fault{Kind: entra.FaultDropRequest, Times: -1} }, func(s *scene, p *play) {
		s.ends(p, uncertain, "did not say whether it")
		if n := s.deciding(p.deed); n != 0 {
			s.Errorf("it was carried out %d times", n)
		}
		if p.rest {
			return
		}
		s.untouched(p.deed, p.was)
	})
}

// The request is lost once: it is made again, and carried out once.
func TestRequestLost(t *testing.T) {
	faced(t, func(deed) entra.Fault { return entra.Fault{Kind: entra.FaultDropRequest} }, func(s *scene, p *play) { s.succeeds(p, 1) })
}

// Graph carries it out and the answer is lost: the account is read, and what
// shows is not done again. What does not show is sent again, the same.
func TestReplyLost(t *testing.T) {
	faced(t, func(deed) entra.Fault { return entra.Fault{Kind: entra.FaultDropReply} }, func(s *scene, p *play) {
		times := 1
		if p.again {
			times = 2
		}
		card := s.succeeds(p, times)
		if p.command == "issue-pass" && !card.Contains("takes the place of one whose value was lost") {
			s.Errorf("nobody is told of the first pass:\n%s", card.Text())
		}
	})
}

// Graph carries it out long after the connection was closed. It is made again
// in the meantime, and the account is in the end as it must be.
func TestAppliedLate(t *testing.T) {
	faced(t, func(deed) entra.Fault { return entra.Fault{Kind: entra.FaultApplyLate, DelayMS: 900} }, func(s *scene, p *play) {
		card := s.ends(p, done)
		s.soon("the late change of "+p.name, func() bool {
			return slices.ContainsFunc(s.changes(p.deed), func(e entra.Entry) bool { return e.Fault == entra.FaultApplyLate })
		})
		is, err := s.client.User(p.upn())
		s.must(err)
		if !p.shows(p.was, is) {
			s.Errorf("the account is %+v", is)
		}
		if phones, mails := is.OfType(entra.TypePhone), is.OfType(entra.TypeEmail); len(phones) > 2 || len(mails) > 1 {
			s.Errorf("something is there twice: %s", kinds(is))
		}
		secrets, err := s.client.Secrets(p.upn())
		s.must(err)
		switch p.command {
		case "reset-password":
			s.reveals(p, p.secret(secrets)) // at both times the same
		case "issue-pass":
			// The late one may take the place of the one that is shown.
			if !card.Contains("takes the place of one whose value was lost", "Should it not work, ask for another") {
				s.Errorf("nobody is told that the pass may not work:\n%s", card.Text())
			}
			s.reveals(p, "")
		}
	})
}

// Somebody changes the account between the plan and the approval: nothing is
// done, and it is told what changed. What keeps an intruder out goes on.
func TestChangedSincePlan(t *testing.T) {
	t.Parallel()
	all := deeds()
	s := newScene(t, all, nil)
	s.asks(all)
	plays := s.plays(all)
	for _, p := range plays {
		p.drift(s.world, p.upn())
		is, err := s.client.User(p.upn())
		s.must(err)
		if p.unbound == "" || p.byHand() {
			p.was = is
		}
	}
	s.approve(plays)
	s.each(t, plays, func(s *scene, p *play) {
		if p.unbound != "" {
			s.Log("a change does not stop it: " + p.unbound)
			s.succeeds(p, 1)
			return
		}
		s.ends(p, failed, "no longer as the plan assumed: ", p.differs)
		if changes := s.changes(p.deed); len(changes) > 0 {
			s.Errorf("something was tried: %+v", changes)
		}
		s.untouched(p.deed, p.was)
	})
}

// The process is killed when Graph has carried out the call and before it
// answers, so that nothing is noted down. The next one finds out, and does not do
// it twice; and a password is sent again as it was.
func TestKilledBetweenCallAndJournal(t *testing.T) {
	all := deeds()
	last := len(all) - 1 // which is done by hand and needs no worker
	for i, some := range [][]deed{all[:4], all[4:8], all[8:11], append(slices.Clone(all[11:last]), all[last])} {
		t.Run(fmt.Sprint(i+1), func(t *testing.T) {
			t.Parallel()
			// A call hangs for half of its time before the process looks for
			// itself whether it was carried out: all of them must hang together.
			s := newScene(t, some, nil, func(c *config) {
				c.Timing.GraphCall, c.Timing.GraphGrace, c.Timing.LookUps = 10*time.Second, 100*time.Millisecond, 8*time.Second
				c.Timing.Lease, c.Timing.Takeover = 18300*time.Millisecond, 9*time.Second
			})
			s.stop()
			kill := s.process()
			s.asks(some)
			plays := s.plays(some)
			var faults []entra.Fault
			for _, d := range some {
				if !d.byHand() {
					faults = append(faults, d.goesWrong(entra.Fault{Kind: entra.FaultApplyHang})...)
				}
			}
			s.must(s.client.SetEntraFaults(faults...))
			s.approve(plays)
			for _, p := range plays {
				if p.byHand() {
					s.as(sandbox.Ravi, sandbox.Approvals).reads("to be done by hand", p.request)
				}
			}
			s.soon("calls that were carried out and hang", func() bool {
				left, err := s.client.EntraFaults()
				return err == nil && len(left) == 0
			})
			kill()
			store := approvals.NewStore(s.redis.Client(t), s.service.secrets.Ring, s.service.config.Redis.Prefix, s.service.config.Timing)
			for _, p := range plays {
				snap, err := store.Load(t.Context(), p.request)
				s.must(err)
				if n := s.deciding(p.deed); !p.byHand() && (n != 1 || !slices.ContainsFunc(snap.Journal, func(e approvals.Entry) bool { return e.State == approvals.StepStarted })) {
					t.Fatalf("the process was not killed between the call of %s, carried out %d times, and the journal: %+v", p.name, n, snap.Journal)
				}
			}
			// Only the killed process needs a short lease. A slow machine must not
			// keep the next one from looking people up.
			timing := &s.service.config.Timing
			timing.LookUps, timing.Lease, timing.Takeover = 30*time.Second, time.Minute, time.Minute
			s.start()
			t.Cleanup(s.stop)
			s.each(t, plays, func(s *scene, p *play) {
				times := 1
				if p.again {
					times = 2
				}
				s.succeeds(p, times)
				sent := map[string]bool{}
				for _, e := range s.changes(p.deed) {
					if e.Method == p.method && strings.HasSuffix(e.Path, p.id()+p.path) {
						sent[e.Digest] = true
					}
				}
				if len(sent) > 1 {
					s.Errorf("it was sent again with other words: %+v", s.changes(p.deed))
				}
			})
		})
	}
}

// Every command, in each of its ways, does all it does with the application
// permissions that the command table says, and the tenant demands each of
// them. This is also every action's success.
func TestPermissionsAreThoseDemanded(t *testing.T) {
	t.Parallel()
	all := append(deeds(), removing()...)
	// Every command that takes verified=compromise takes it once.
	for _, c := range commands.Table() {
		i := slices.IndexFunc(all, func(d deed) bool { return d.command == c.Name && !d.lost })
		if i < 0 || slices.ContainsFunc(all, func(d deed) bool { return d.command == c.Name && d.lost }) ||
			!slices.ContainsFunc(c.More, func(e commands.Extra) bool { return e.With == "verified=compromise" }) {
			continue
		}
		d := all[i]
		d.name, d.lost = d.name+"-compromise", true
		plain := d.shows
		d.shows = func(was, is sandbox.User) bool { return !is.Enabled && (d.byHand() || plain(was, is)) }
		if d.method == http.MethodPatch {
			d.method, d.path = http.MethodPost, "/revokeSignInSessions" // the block is a PATCH of the account, too
		}
		all = append(all, d)
	}

	s := newScene(t, all, nil)
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
				s := s.in(t)
				s.must(s.client.SetGrant(granted...))
				s.forgetCalls()
				if c.Class == approvals.ClassRead {
					s.looks(c, all[0])
				} else {
					some := slices.DeleteFunc(slices.Clone(all), func(d deed) bool {
						return d.command != c.Name || d.lost != (way.With == "verified=compromise") || (d.args == "everything") != (way.With == "everything")
					})
					if len(some) == 0 {
						t.Fatalf("nothing is known to be typed for %s %s", c.Name, way.With)
					}
					s.asks(some)
					plays := s.plays(some)
					s.approve(plays)
					s.each(t, plays, func(s *scene, p *play) { s.succeeds(p, 1) })
				}
				calls, err := s.client.EntraCalls()
				s.must(err)
				for _, p := range calls.Used {
					demanded[p] = true
				}
				if way.With == "" {
					plain = calls.Used
				}
				// A way is not expected to need all that the others need.
				used := slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(plain), calls.Used...))))
				if !slices.Equal(used, granted) {
					t.Errorf("the tenant demanded\n%q, and the table says\n%q", used, granted)
				}
			})
		}
	}
	var table []string
	for _, p := range commands.Permissions() {
		table = append(table, string(p))
	}
	if got := slices.Sorted(maps.Keys(demanded)); !slices.Equal(got, table) {
		t.Errorf("all commands together demanded\n%q, and the table says\n%q", got, table)
	}
}

// forgetCalls makes the tenant forget which permissions were demanded.
func (s *scene) forgetCalls() {
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

// looks types a command that only looks.
func (s *scene) looks(c commands.Command, d deed) {
	s.Helper()
	typed, ok := map[string]struct{ line, answer string }{
		"methods": {d.upn(), "Authentication methods"}, "requests": {"pending", "the desk"}, "help": {"", "What you may do"},
	}[c.Name]
	if !ok {
		s.Fatalf("say how %s is typed", c.Name)
	}
	hanna := s.as(sandbox.Hanna, sandbox.HelpDesk)
	s.must(hanna.p.Reload())
	hanna.types(strings.TrimSpace(commands.Slash(defaultPrefix, c) + " " + typed.line))
	if m := hanna.reads(typed.answer); m.Contains("An administrator grants") {
		s.Errorf("%s lacks something:\n%s", c.Name, m.Text())
	}
}
