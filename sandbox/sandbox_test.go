package sandbox_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"go/doc/comment"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"countersign/sandbox"
	"countersign/sandbox/entra"
	"countersign/sandbox/slack"
)

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestOneAddressServesEverything(t *testing.T) {
	s := newSandbox(t)
	plain, secure := s.URL(), s.SecureURL()
	if strings.TrimPrefix(plain, "http") != strings.TrimPrefix(secure, "https") {
		t.Fatalf("%s and %s are different addresses", plain, secure)
	}
	for _, tt := range []struct {
		name, method, url, origin string
		status                    int
		kind, contains            string
	}{
		{name: "the page", url: plain + "/", status: 200, kind: "text/html", contains: "<title>Countersign sandbox</title>"},
		{name: "the page over TLS", url: secure + "/", status: 200, kind: "text/html", contains: "app.js"},
		{name: "its script", url: plain + "/page/app.js", status: 200, kind: "javascript", contains: "data-testid"},
		{name: "its stylesheet", url: plain + "/page/style.css", status: 200, kind: "text/css"},
		{name: "missing file", url: plain + "/page/nothing", status: 404},
		{name: "the page is read-only", method: "POST", url: plain + "/", status: 405, contains: "JSON API"},
		{name: "info", url: plain + "/sandbox/info", status: 200, kind: "application/json", contains: `"sandbox":true`},
		{name: "people", url: plain + "/sandbox/people", status: 200, contains: "U0HANNA"},
		{name: "people over TLS", url: secure + "/sandbox/people", status: 200, contains: "U0HANNA"},
		{name: "accounts", url: plain + "/sandbox/tenant/users", status: 200, contains: sandbox.DanaID},
		{name: "one account", url: plain + "/sandbox/tenant/users/dana.whitfield@fernhill.example", status: 200, contains: "+1 4255550142"},
		{name: "grant", url: plain + "/sandbox/grant", status: 200, contains: "User.Read.All"},
		{name: "Slack calls", url: plain + "/sandbox/slack/calls", status: 200, contains: "envelopes"},
		{name: "Graph calls", url: plain + "/sandbox/entra/calls", status: 200},
		{name: "unknown call", url: plain + "/sandbox/nothing", status: 404, kind: "application/json", contains: "unknown_call"},
		{name: "cross-origin request", method: "POST", url: plain + "/sandbox/reload", origin: "https://elsewhere.example", status: 403},
		{name: "Slack's API", method: "POST", url: plain + "/api/auth.test", status: 200, contains: "not_authed"},
		{name: "Graph over plain HTTP", url: plain + "/v1.0/users", status: 403, contains: "https_required"},
		{name: "login over plain HTTP", url: plain + "/" + sandbox.TenantID + "/oauth2/v2.0/token", method: "POST", status: 403, contains: secure},
		{name: "Graph without a token", url: secure + "/v1.0/users", status: 401, contains: "InvalidAuthenticationToken"},
		{name: "Graph's beta without a token", url: secure + "/beta/users", status: 401},
		{name: "login", url: secure + "/" + sandbox.TenantID + "/v2.0/.well-known/openid-configuration", status: 200, contains: "token_endpoint"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			method := tt.method
			if method == "" {
				method = http.MethodGet
			}
			r, err := http.NewRequestWithContext(t.Context(), method, tt.url, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			if tt.origin != "" {
				r.Header.Set("Origin", tt.origin)
			}
			answer, err := s.HTTPClient().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			body, _ := io.ReadAll(answer.Body)
			if answer.StatusCode != tt.status || !strings.Contains(string(body), tt.contains) || !strings.Contains(answer.Header.Get("Content-Type"), tt.kind) {
				t.Errorf("%s, %s: %.300s; want %d, %q with %q", answer.Status, answer.Header.Get("Content-Type"), body, tt.status, tt.kind, tt.contains)
			}
		})
	}
}

func TestCertificate(t *testing.T) {
	s := newSandbox(t, func(o *sandbox.Options) { o.Addr, o.Host = "127.0.0.1:0", "sandbox.internal" })
	if !strings.HasPrefix(s.URL(), "http://sandbox.internal:") {
		t.Errorf("URL is %s, want the host that others use", s.URL())
	}
	address := "127.0.0.1" + s.URL()[strings.LastIndex(s.URL(), ":"):]
	if _, err := tls.Dial("tcp", address, &tls.Config{ServerName: "localhost"}); !errors.As(err, new(x509.UnknownAuthorityError)) {
		t.Errorf("a client that does not know the authority got %v", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.CAPEM())
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "sandbox.internal"} {
		conn, err := tls.Dial("tcp", address, &tls.Config{ServerName: name, RootCAs: pool})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		conn.Close()
	}
	block, rest := pem.Decode(s.CAPEM())
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		t.Fatal("CAPEM is not one certificate")
	}
	if other := newSandbox(t); bytes.Equal(other.CAPEM(), s.CAPEM()) {
		t.Error("two sandboxes share an authority")
	}
}

// TestScenario runs the whole scenario through the client, over the one address.
func TestScenario(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSandbox(t, inBubble)
		startBot(t, s)
		ctx := testContext(t)
		c := s.Client()
		hanna, ravi := c.As(sandbox.Hanna), c.As(sandbox.Ravi)

		if a, err := hanna.Command(sandbox.HelpDesk, "/entra-require-reregister @dana lost phone"); err != nil || !a.OK {
			t.Fatal(a, err)
		}
		modal, err := hanna.WaitModal(ctx, func(v sandbox.View) bool { return v.Title == "Require re-register" })
		if err != nil {
			t.Fatal(err)
		}
		if got := modal.Inputs()["justification"]["justification"]; got != "lost phone" || modal.Submit != "Send for approval" || !modal.Contains("Target: @Dana Whitfield · dana.whitfield@fernhill.example") {
			t.Errorf("the form shows %q\n%s", got, modal.Text())
		}
		if a, err := hanna.Submit(modal.ID, nil); err != nil || a.OK || a.Errors["verified"] == "" {
			t.Errorf("a form without the required field: %+v %v", a, err)
		}
		if a, err := hanna.Submit(modal.ID, map[string]map[string]any{"verified": {"verified": "callback"}}); err != nil || !a.OK {
			t.Fatal(a, err)
		}
		if views, err := hanna.Views(); err != nil || len(views.Modals) > 0 {
			t.Errorf("the form is still open: %v %v", views, err)
		}

		card, err := ravi.WaitMessage(ctx, sandbox.Approvals, func(m sandbox.Message) bool { _, ok := m.Button("approve"); return ok })
		if err != nil {
			t.Fatal(err)
		}
		if !card.Contains("Re-register Dana Whitfield", "Requester\n@Hanna Okafor", "I called her back", "> lost phone", "1. Delete the mobile phone", "4. Revoke all sessions", "[Approve] [Deny] [Details]") {
			t.Errorf("the card reads:\n%s", card.Text())
		}
		if approve, _ := card.Button("approve"); approve.Style != "primary" || approve.Value != "R-7Q2" || !strings.Contains(approve.Confirm, "Require re-register of dana.whitfield@fernhill.example") {
			t.Errorf("the button is %+v", approve)
		}

		for ts, want := range map[string]int{"": 1, card.TS: 0} {
			if after, err := ravi.MessagesAfter(sandbox.Approvals, ts); err != nil || len(after) != want {
				t.Errorf("%d messages after %q: %v", len(after), ts, err)
			}
		}
		pressed, err := hanna.Press(sandbox.Approvals, card.TS, "approve", "")
		if err != nil || !pressed.OK {
			t.Fatal(pressed, err)
		}
		if calls, err := c.SlackCalls(); err != nil || pressed.Envelope == "" || !slices.ContainsFunc(calls.Recent, func(e slack.EnvelopeInfo) bool { return e.ID == pressed.Envelope && e.Acked == 1 }) {
			t.Errorf("no acknowledged envelope %q: %v", pressed.Envelope, err)
		}
		refusal, err := hanna.WaitMessage(ctx, sandbox.Approvals, func(m sandbox.Message) bool { return m.Ephemeral })
		if err != nil || !refusal.Contains("somebody else has to approve") {
			t.Error(refusal, err)
		}
		if others, err := ravi.Messages(sandbox.Approvals); err != nil || len(others) != 1 {
			t.Errorf("Ravi sees %d messages; want 1, without Hanna's ephemeral one: %v", len(others), err)
		}

		before, err := c.User(sandbox.DanaID)
		if err != nil {
			t.Fatal(err)
		}
		if a, err := ravi.Press(sandbox.Approvals, card.TS, "approve", "R-7Q2"); err != nil || !a.OK {
			t.Fatal(a, err)
		}
		if line, err := ravi.WaitMessage(ctx, sandbox.Audit, func(m sandbox.Message) bool { return m.Contains("succeeded") }); err != nil || !line.Contains("requested by @Hanna Okafor, approved by @Ravi Menon") {
			t.Error(line.Text(), err)
		}
		if done, err := ravi.WaitMessage(ctx, sandbox.Approvals, func(m sandbox.Message) bool { return m.TS == card.TS }); err != nil || !done.Edited || len(done.Buttons()) > 0 {
			t.Errorf("the card was not updated in place: %s %v", done.Text(), err)
		}
		dana, err := c.WaitUser(ctx, "dana.whitfield@fernhill.example", func(u sandbox.User) bool { return u.SessionsValidFrom.After(before.SessionsValidFrom) })
		if err != nil {
			t.Fatal(err)
		}
		if dm, err := ravi.DM(); err != nil || dm != "" {
			t.Errorf("a direct message %q before one was opened: %v", dm, err)
		}
		if err := ravi.Home(); err != nil {
			t.Fatal(err)
		}
		if home, err := ravi.WaitHome(ctx, func(v sandbox.View) bool { return v.Contains("Your requests", "1 request") }); err != nil {
			t.Error(home, err)
		}
		if dm, err := ravi.DM(); err != nil || !strings.HasPrefix(dm, "D") {
			t.Errorf("the direct message is %q: %v", dm, err)
		}
		for _, gone := range []string{entra.TypePhone, entra.TypeAuthenticator, entra.TypeSoftwareOATH} {
			if left := dana.OfType(gone); len(left) > 0 || len(before.OfType(gone)) == 0 {
				t.Errorf("%s: %d before, %d after", gone, len(before.OfType(gone)), len(left))
			}
		}
		if len(dana.OfType(entra.TypePasskey)) != 1 {
			t.Error("the passkey was deleted")
		}
	})
}

// TestCurlScenario runs the shell script of the package comment unchanged.
func TestCurlScenario(t *testing.T) {
	for _, tool := range []string{"sh", "curl", "grep", "cut", "tail", "sleep"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("this machine has no ", tool)
		}
	}
	file, err := parser.ParseFile(token.NewFileSet(), "doc.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var script string
	for _, b := range new(comment.Parser).Parse(file.Doc.Text()).Content {
		if code, ok := b.(*comment.Code); ok && strings.Contains(code.Text, "curl") {
			script += code.Text + "\n"
		}
	}
	s := newSandbox(t)
	startBot(t, s)
	cmd := exec.CommandContext(testContext(t), "sh", "-eu", "-c", script)
	cmd.Env = append(cmd.Environ(), "B="+s.URL()+"/sandbox")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	dana := string(out[bytes.LastIndex(out, []byte(`{"id":"`+sandbox.DanaID)):])
	if strings.Contains(dana, "4255550142") || !strings.Contains(dana, "fido2AuthenticationMethod") || !strings.Contains(string(out), "approved by") {
		t.Errorf("the output is:\n%s", out)
	}
}

func TestStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSandbox(t, inBubble)
		c := s.Client()
		answer, err := (&http.Client{Transport: &http.Transport{DialContext: s.dial}}).Get(s.URL() + "/sandbox/stream")
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if kind := answer.Header.Get("Content-Type"); kind != "text/event-stream" {
			t.Errorf("Content-Type is %s", kind)
		}
		lines := bufio.NewScanner(answer.Body)
		next := func() string {
			t.Helper()
			for lines.Scan() {
				if lines.Text() != "" {
					return lines.Text()
				}
			}
			return ""
		}
		if got := next(); got != `data: {"n":1}` {
			t.Errorf("first %q", got)
		}
		if err := c.PatchUser(sandbox.BoID, map[string]any{"enabled": true}); err != nil {
			t.Fatal(err)
		}
		if got := next(); got != `data: {"n":2}` {
			t.Errorf("after a change in the tenant %q", got)
		}
		if err := c.As(sandbox.Hanna).Home(); err != nil { // makes the direct message with the app
			t.Fatal(err)
		}
		if got := next(); got != `data: {"n":3}` {
			t.Errorf("after a change in Slack %q", got)
		}
		s.Close()
		if got := next(); got != "" {
			t.Errorf("after the end %q", got)
		}
	})
}

// TestWaitTimesOut: waiting ends with the context, and the error shows the messages that were there.
func TestWaitTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSandbox(t, inBubble)
		startBot(t, s)
		hanna := s.Client().As(sandbox.Hanna)
		if a, err := hanna.Command(sandbox.HelpDesk, "/entra-methods @dana"); err != nil || !a.OK || len(a.Response) == 0 {
			t.Fatal(a, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := hanna.WaitMessage(ctx, sandbox.HelpDesk, func(m sandbox.Message) bool { return m.Contains("no such text") })
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "/entra-methods for @Dana Whitfield: 14 methods :key:") {
			t.Errorf("the error is %v", err)
		}
	})
}

func TestClientErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSandbox(t, inBubble)
		hanna := s.Client().As(sandbox.Hanna)
		if a, err := hanna.Command(sandbox.HelpDesk, "/entra-methods @dana"); err != nil || a.OK || a.Err != "dispatch_failed" {
			t.Errorf("without a bot: %+v %v", a, err)
		}
		startBot(t, s)
		if a, err := hanna.Command(sandbox.HelpDesk, "/entra-silent"); err != nil || a.OK || a.Err != "operation_timeout" {
			t.Errorf("a bot that does not answer: %+v %v", a, err)
		}
		if a, err := hanna.Command(sandbox.HelpDesk, "/nonsense"); err != nil || a.OK || a.Err != "unknown_command" {
			t.Errorf("an unknown command: %+v %v", a, err)
		}
		var refused *sandbox.Error
		if _, err := hanna.Messages(sandbox.Audit); !errors.As(err, &refused) || refused.Status != http.StatusNotFound || refused.Code != "channel_not_found" {
			t.Errorf("a channel that she is not in: %v", err)
		}
		if _, err := s.Client().User("nobody@fernhill.example"); !errors.As(err, &refused) || refused.Status != http.StatusNotFound {
			t.Errorf("an account that does not exist: %v", err)
		}
		c := s.Client()
		s.Close()
		if _, err := c.People(); err == nil || errors.As(err, &refused) {
			t.Errorf("a closed sandbox: %v", err)
		}
	})
}

func TestClientFaultsAndChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSandbox(t, inBubble)
		startBot(t, s)
		c, ctx := s.Client(), testContext(t)
		token, err := graphToken(ctx, s)
		if err != nil {
			t.Fatal(err)
		}
		methods := s.SecureURL() + "/v1.0/users/" + sandbox.MinaID + "/authentication/methods"
		read := func() error { return graph(ctx, s, token, http.MethodGet, methods, nil) }
		if err := read(); err != nil {
			t.Fatal(err)
		}

		grant, err := c.Grant()
		if err != nil || !slices.Contains(grant, "UserAuthenticationMethod.Read.All") {
			t.Fatal(grant, err)
		}
		if err := c.SetGrant(slices.DeleteFunc(slices.Clone(grant), func(p string) bool { return p == "UserAuthenticationMethod.Read.All" })...); err != nil {
			t.Fatal(err)
		}
		if err := read(); err == nil || !strings.Contains(err.Error(), "403") {
			t.Errorf("without the permission: %v", err)
		}
		if err := c.SetGrant(grant...); err != nil {
			t.Fatal(err)
		}

		if err := c.SetEntraFaults(entra.Fault{Method: "GET", Path: "authentication", Times: 1, Kind: "throttle", RetryAfter: new(1)}); err != nil {
			t.Fatal(err)
		}
		if faults, err := c.EntraFaults(); err != nil || len(faults) != 1 {
			t.Errorf("%v %v", faults, err)
		}
		if err := read(); err == nil || !strings.Contains(err.Error(), "429") {
			t.Errorf("a throttled call: %v", err)
		}
		if err := read(); err != nil {
			t.Errorf("the call after it: %v", err)
		}
		if err := c.SetEntraFaults(entra.Fault{Method: "GET", Times: 1, Kind: "drop_reply"}); err != nil {
			t.Fatal(err)
		}
		if err := read(); !errors.Is(err, io.EOF) {
			t.Errorf("a lost reply: %v, want a broken connection", err)
		}

		if err := c.AddMethod(sandbox.MinaID, entra.Authenticator("", "Mina’s new phone")); err != nil {
			t.Fatal(err)
		}
		mina, err := c.User(sandbox.MinaID)
		if err != nil || len(mina.OfType(entra.TypeAuthenticator)) != 1 {
			t.Fatal(mina, err)
		}
		added := mina.OfType(entra.TypeAuthenticator)[0]
		if added.ID == "" || added.Properties["displayName"] != "Mina’s new phone" {
			t.Errorf("the new method is %+v", added)
		}
		if err := c.DeleteMethod(sandbox.MinaID, added.ID); err != nil {
			t.Fatal(err)
		}
		if nell, err := c.AddUser("", "nell@fernhill.example", "Nell New", entra.Phone("mobile", "+1 4255550177"), entra.SoftwareOATH("soft-1")); err != nil ||
			nell.ID == "" || len(nell.OfType(entra.TypePhone)) != 1 || len(nell.OfType(entra.TypeSoftwareOATH)) != 1 {
			t.Errorf("the new user is %+v: %v", nell, err)
		}
		if calls, err := c.EntraCalls(); err != nil {
			t.Error(calls, err)
		}

		if err := c.SetSlackFaults(slack.Fault{Method: "chat.postMessage", Times: 1, Kind: "error", Error: "fatal_error"}); err != nil {
			t.Fatal(err)
		}
		if faults, err := c.SlackFaults(); err != nil || len(faults) != 1 {
			t.Errorf("%v %v", faults, err)
		}
		if err := c.SetSlackFaults(); err != nil {
			t.Fatal(err)
		}
		calls, err := c.SlackCalls()
		if err != nil || calls.Sockets != 1 {
			t.Errorf("%+v %v", calls, err)
		}
		opened := calls.Methods["apps.connections.open"].Calls
		if err := c.Disconnect("cut"); err != nil {
			t.Fatal(err)
		}
		if err := c.Wait(ctx, func() (bool, error) {
			calls, err := c.SlackCalls()
			return err == nil && calls.Sockets == 1 && calls.Methods["apps.connections.open"].Calls > opened, err
		}); err != nil {
			t.Errorf("the bot did not reconnect: %v", err)
		}
	})
}

// TestCloseReleasesEverything: a closed sandbox leaves no goroutine and no connection, even with an open event stream.
func TestCloseReleasesEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// At the end, the bubble fails the test if a goroutine is left.
		s := newSandbox(t, inBubble)
		client := &http.Client{Transport: &http.Transport{DialContext: s.dial}}
		answer, err := client.Get(s.URL() + "/sandbox/stream")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := graphToken(t.Context(), s); err != nil {
			t.Error(err)
		}
		s.Close()
		s.Close()
		if _, err := io.ReadAll(answer.Body); err == nil {
			t.Log("the stream ended cleanly")
		}
		answer.Body.Close()
		client.CloseIdleConnections()
		if _, err := client.Get(s.URL() + "/"); err == nil {
			t.Error("the address still accepts requests")
		}
	})
}

func TestNewErrors(t *testing.T) {
	if _, err := sandbox.New(sandbox.Options{Manifest: []byte("display_information: [")}); err == nil || !strings.Contains(err.Error(), "manifest") {
		t.Errorf("a broken manifest: %v", err)
	}
	s := newSandbox(t)
	if _, err := sandbox.New(sandbox.Options{Manifest: []byte(manifest), Addr: strings.TrimPrefix(s.URL(), "http://")}); err == nil || !strings.Contains(err.Error(), "choose another address") {
		t.Errorf("an address in use: %v", err)
	}
}

// TestFernhill checks the company: everybody has a Slack profile and an account, and nobody can be mistaken for a real person.
func TestFernhill(t *testing.T) {
	now := time.Date(2026, 11, 23, 13, 0, 0, 0, time.UTC)
	w := sandbox.Fernhill(now)
	if len(w.People) != 12 || len(w.Users) != 12 {
		t.Fatalf("%d people, %d accounts", len(w.People), len(w.Users))
	}
	ids := map[string]bool{}
	unique := func(id string) {
		t.Helper()
		if ids[id] {
			t.Errorf("%s occurs twice", id)
		}
		ids[id] = true
	}
	fiction := regexp.MustCompile(`^\+1 (425|206|360)55501\d\d(x\d+)?$`)
	for i, u := range w.Users {
		unique(u.ID)
		p := w.People[i]
		if p.Name != u.DisplayName || p.Email != u.Mail || p.Restricted != u.Guest || w.Hints[p.ID] == "" {
			t.Errorf("%+v and %s, %s are not the same person", p, u.DisplayName, u.Mail)
		}
		if u.Created.After(now) || u.LastPasswordChange.After(now) || !u.Guest && u.LastPasswordChange.Before(u.Created) {
			t.Errorf("%s: created %v, password of %v", p.Name, u.Created, u.LastPasswordChange)
		}
		for _, m := range u.Methods {
			if m.Type != entra.TypePhone && m.Type != entra.TypeEmail {
				unique(m.ID)
			}
			if number, ok := m.Properties.Get("phoneNumber"); ok && !fiction.MatchString(number.(string)) {
				t.Errorf("%s: %s may be a real number", p.Name, number)
			}
		}
	}
	dana := w.Users[3]
	for _, kind := range []string{entra.TypePhone, entra.TypeEmail, entra.TypeAuthenticator, entra.TypeSoftwareOATH, entra.TypeHardwareOATH, entra.TypePasskey,
		entra.TypeWindowsHello, entra.TypePlatformCredential, entra.TypePass, entra.TypeExternal, entra.TypeQRCodePIN} {
		if !slices.ContainsFunc(dana.Methods, func(m entra.Method) bool { return m.Type == kind }) {
			t.Errorf("Dana has no %s", kind)
		}
	}
	for _, g := range w.Groups {
		unique(g.ID)
		for _, id := range g.Members {
			if !ids[id] {
				t.Errorf("%s, a member of %s, is unknown", id, g.DisplayName)
			}
		}
		if g.ID == sandbox.GroupExecutives && slices.Contains(g.Members, sandbox.DanaID) {
			t.Error("Dana is an executive, and so protected")
		}
	}
	for _, step := range w.Tour {
		at := slices.IndexFunc(w.Channels, func(c slack.Channel) bool { return c.ID == step.Channel })
		if at < 0 || !slices.Contains(w.Channels[at].Members, step.As) {
			t.Errorf("%s is not in %s", step.As, step.Channel)
		}
	}
}
