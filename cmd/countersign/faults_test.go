package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"countersign/approvals"
	"countersign/commands"
	"countersign/sandbox"
	"countersign/sandbox/entra"
	"countersign/sandbox/slack"
)

// These rules hold whatever is lost on the way: each request has exactly one
// effect on the tenant and one end in the audit log; its requester is notified; its
// cards are right in the end, and there is at most one duplicate.

// shortFaultTimings shortens the waits that a fault causes. A time-out for an answer
// stays as long as a busy machine may need.
func shortFaultTimings(c *config) {
	t := &c.Timing
	t.GraphCall, t.GraphGrace, t.Lease = 5*time.Second, 200*time.Millisecond, 30*time.Second
	t.Takeover, t.Lead = time.Minute, time.Second
}

// shortTimings is shortFaultTimings for tests in which a process dies or Redis is
// unreachable: another process takes its work over soon.
func shortTimings(c *config) {
	shortFaultTimings(c)
	t := &c.Timing
	t.LookUps, t.GraphCall, t.Lease, t.Takeover = 3*time.Second, 2*time.Second, 6*time.Second, 3500*time.Millisecond
}

// slackProxy is a proxy between the bot and Slack's Web API. It drops single calls,
// or only their replies.
type slackProxy struct {
	slack string
	mu    sync.Mutex
	armed []*droppedCall
}

// droppedCall is one call to drop: the first one of this method whose arguments
// contain all of these parts.
type droppedCall struct {
	method    string
	parts     []string
	applied   bool            // only the reply is lost
	holdUntil <-chan struct{} // nothing is dropped: the proxy holds the call until this is closed
	hit       chan struct{}
}

// newSlackProxy starts a slackProxy. The function that it returns configures the bot to
// use it.
func newSlackProxy(t *testing.T) (*slackProxy, func(*config)) {
	b := &slackProxy{}
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	return b, func(c *config) {
		b.slack, c.Slack.APIURL = strings.TrimSuffix(c.Slack.APIURL, "/"), server.URL+"/"
	}
}

// dropCall arms a droppedCall. Its channel is closed when the call was dropped or held.
func (b *slackProxy) dropCall(l droppedCall) <-chan struct{} {
	l.hit = make(chan struct{})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.armed = append(b.armed, &l)
	return l.hit
}

func (b *slackProxy) takeMatch(method, arguments string) *droppedCall {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, l := range b.armed {
		fits := l.method == method
		for _, part := range l.parts {
			fits = fits && strings.Contains(arguments, part)
		}
		if fits {
			b.armed = append(b.armed[:i:i], b.armed[i+1:]...)
			return l
		}
	}
	return nil
}

func (b *slackProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	arguments, err := url.QueryUnescape(string(body))
	if err != nil {
		arguments = string(body) // JSON
	}
	l := b.takeMatch(path.Base(r.URL.Path), arguments)
	if l != nil && l.holdUntil != nil {
		close(l.hit)
		<-l.holdUntil
		l = nil
	}
	if l != nil {
		defer close(l.hit)
		if !l.applied {
			panic(http.ErrAbortHandler)
		}
	}
	on, err := http.NewRequestWithContext(r.Context(), r.Method, b.slack+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	on.Header = r.Header.Clone()
	answer, err := http.DefaultTransport.RoundTrip(on)
	if err != nil || l != nil {
		if err == nil {
			answer.Body.Close()
		}
		panic(http.ErrAbortHandler)
	}
	defer answer.Body.Close()
	for name, values := range answer.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.StatusCode)
	io.Copy(w, answer.Body)
}

var requestID = regexp.MustCompile(`R-[0-9A-Z]{8}`)

// waitFor waits for a condition in the sandbox.
func (w *fixture) waitFor(what string, so func() bool) {
	w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := w.client.Wait(ctx, func() (bool, error) { return so(), nil }); err != nil {
		w.Fatalf("waited for %s: %v", what, err)
	}
}

// messagesWith returns the messages that the person sees in the channel and that
// contain all of these parts, the oldest first.
func (h *slackUser) messagesWith(parts ...string) []sandbox.Message {
	h.w.Helper()
	messages, err := h.p.Messages(h.channel)
	if err != nil {
		h.w.Fatal(err)
	}
	var found []sandbox.Message
	for _, m := range messages {
		if m.Contains(parts...) {
			found = append(found, m)
		}
	}
	return found
}

// countChanges counts the changes that Graph has executed so far, by the end of
// their path's template.
func (w *fixture) countChanges(ends string) int {
	w.Helper()
	calls, err := w.client.EntraCalls()
	if err != nil {
		w.Fatal(err)
	}
	n := 0
	for _, c := range calls.Calls {
		done := c.Status >= 200 && c.Status < 300 || c.Fault == entra.FaultDropReply
		if c.Method != http.MethodGet && done && strings.HasSuffix(c.Path, ends) {
			n += c.Count
		}
	}
	return n
}

// wantCompleted checks the invariants for one request that succeeded. duplicates
// is how many duplicate messages of each kind are allowed.
func (w *fixture) wantCompleted(id string, duplicates int) {
	w.Helper()
	w.wantCompletedAfterRefusals(id, duplicates, 0)
}

// wantCompletedAfterRefusals is like wantCompleted, and allows so many refusals of the
// request in the audit channel.
func (w *fixture) wantCompletedAfterRefusals(id string, duplicates, refusals int) {
	w.Helper()
	auditor, hanna, ravi := w.as(sandbox.Gloria, sandbox.Audit), w.as(sandbox.Hanna, sandbox.HelpDesk).dm(), w.as(sandbox.Ravi, sandbox.Approvals)
	kinds := []string{"requested: ", "approved (", "Started: ", "Succeeded: "}
	w.waitFor("all audit events of "+id, func() bool {
		for _, kind := range kinds {
			if len(auditor.messagesWith(kind, id)) == 0 {
				return false
			}
		}
		return len(hanna.messagesWith("Done: ", id)) > 0
	})
	for _, kind := range kinds {
		if n := len(auditor.messagesWith(kind, id)); n > 1+duplicates {
			w.Errorf("the audit channel has %q of %s %d times", kind, id, n)
		}
	}
	if n := len(auditor.messagesWith("refused", id)); n > refusals {
		w.Errorf("the audit channel has %d refusals of %s", n, id)
	}
	if n := len(hanna.messagesWith("Done: ", id)); n > 1+duplicates {
		w.Errorf("Hanna was notified %d times that %s is done", n, id)
	}
	for _, h := range []*slackUser{ravi, hanna} {
		w.waitFor("correct cards", func() bool {
			for _, card := range h.messagesWith(id, "What ") {
				if !card.Contains(": done") || len(card.Buttons()) > 0 {
					return false
				}
			}
			return true
		})
		if n := len(h.messagesWith(id, "What ")); n < 1 || n > 1+duplicates {
			w.Errorf("%s sees %d cards of %s", h.p.ID, n, id)
		}
	}
}

// Slack throttles each method once. Everything is still delivered, once.
func TestSlackThrottles(t *testing.T) {
	t.Parallel()
	w := startBot(t, generousTimings)
	var faults []slack.Fault
	for _, method := range []string{"chat.postMessage", "chat.update", "users.info", "conversations.info", "conversations.open", "views.update", "chat.postEphemeral"} {
		faults = append(faults, slack.Fault{Method: method, Kind: "ratelimit", RetryAfter: 1, Times: 1})
	}
	if err := w.client.SetSlackFaults(faults...); err != nil {
		t.Fatal(err)
	}
	card := w.request("/entra-revoke-sessions @dana laptop stolen")
	w.as(sandbox.Ravi, sandbox.Approvals).presses(card, "approve")
	w.wantCompleted(requestID.FindString(card.Text()), 0)
}

// giveMethods replaces an account's methods with one of each kind that a
// re-registration removes, but two phones.
func (w *fixture) giveMethods(upn string) {
	w.Helper()
	u, err := w.client.User(upn)
	if err != nil {
		w.Fatal(err)
	}
	for _, m := range u.Methods {
		if err := w.client.DeleteMethod(upn, m.ID); err != nil {
			w.Fatal(err)
		}
	}
	for _, m := range []entra.Method{
		entra.Phone("mobile", "+1 4255550198"), entra.Phone("alternateMobile", "+1 4255550199"),
		entra.Authenticator("", "Pixel 9"), entra.SoftwareOATH(""), entra.HardwareOATH("", "2309431", "Feitian", "OTP c200"),
	} {
		if err := w.client.AddMethod(upn, m); err != nil {
			w.Fatal(err)
		}
	}
}

// reregisterChanges are the changes that a re-registration makes after giveMethods:
// the end of the path, and how often.
var reregisterChanges = map[string]int{
	"phoneMethods/{mid}": 2, "microsoftAuthenticatorMethods/{mid}": 1, "softwareOathMethods/{mid}": 1, "deactivate": 1, "revokeSignInSessions": 1,
}

// Each change that a re-registration makes in the tenant fails once: the request is
// lost, or the reply is lost, or Graph applies the change late.
func TestGraphLosesChanges(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{entra.FaultDropRequest, entra.FaultDropReply, entra.FaultApplyLate} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			// Each kind has its own test environment, because late changes must not count in another one.
			w := startBot(t, shortFaultTimings)
			ravi := w.as(sandbox.Ravi, sandbox.Approvals)
			w.giveMethods(danaUPN)
			earlier := w.account(danaUPN, func(sandbox.User) bool { return true })
			faults := []entra.Fault{{Method: http.MethodPost, Path: "revokeSignInSessions", Kind: kind, DelayMS: 60}}
			for _, m := range earlier.Methods {
				faults = append(faults, entra.Fault{Method: http.MethodDelete, Path: m.ID, Kind: kind, DelayMS: 60},
					entra.Fault{Method: http.MethodPost, Path: m.ID + "/deactivate", Kind: kind, DelayMS: 60})
			}
			if err := w.client.SetEntraFaults(faults...); err != nil {
				t.Fatal(err)
			}
			card := w.request("/entra-require-reregister @dana verified=video " + kind)
			ravi.presses(card, "approve")
			w.wantCompleted(requestID.FindString(card.Text()), 0)

			// Of the two faults for each method, one is for another kind of change.
			if left, err := w.client.EntraFaults(); err != nil || len(left) != len(earlier.Methods) {
				t.Errorf("some faults did not strike: %+v %v", left, err)
			}
			after := w.account(danaUPN, func(u sandbox.User) bool { return u.SessionsValidFrom.After(earlier.SessionsValidFrom) })
			if got := kinds(after); strings.Contains(got, "phone") || strings.Contains(got, "uthenticator") || strings.Contains(got, "softwareOath") {
				t.Errorf("the remaining methods are %q", got)
			}
			for ends, times := range reregisterChanges {
				if got := w.countChanges(ends); got != times && kind != entra.FaultApplyLate {
					t.Errorf("%s was executed %d times, not %d", ends, got, times)
				}
			}
		})
	}
}

// A permanent refusal by Graph is shown with Graph's request id in the card, the
// notification and the audit channel, and the other steps are executed.
func TestGraphRefusesOneStep(t *testing.T) {
	w := startBot(t, shortFaultTimings)
	hanna, ravi := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
	w.giveMethods(danaUPN)
	if err := w.client.SetEntraFaults(entra.Fault{Method: http.MethodDelete, Path: "softwareOathMethods", Kind: entra.FaultStatus, Status: 400, Times: -1,
		Code: "badRequest", Message: "Call +1 4255550123 or write to <!channel> *help@fernhill.example*."}); err != nil {
		t.Fatal(err)
	}
	card := w.request("/entra-require-reregister @dana verified=video lost phone")
	id := requestID.FindString(card.Text())
	ravi.presses(card, "approve")
	card = ravi.reads(id, "only partly done", "❌ Delete software token", "Graph request-id")
	hanna.dm().reads("Only partly done", id)
	line := w.as(sandbox.Gloria, sandbox.Audit).reads("Only partly done", id, "Delete software token: failed", "Graph request-id")
	for _, m := range []sandbox.Message{card, line} {
		if m.Contains("5550123") || m.Contains("help@") {
			t.Errorf("a message contains a phone number or an address:\n%s", m.Text())
		}
	}
	// The phone became the default method, which Graph only deletes last.
	if got := kinds(w.account(danaUPN, func(sandbox.User) bool { return true })); got != "phone softwareOath hardwareOath" {
		t.Errorf("the remaining methods are %q", got)
	}
}

// Graph throttles for longer than a call may take: the card says so, and
// the request resumes by itself.
func TestGraphThrottles(t *testing.T) {
	t.Parallel()
	w := startBot(t, shortFaultTimings)
	ravi := w.as(sandbox.Ravi, sandbox.Approvals)
	seconds := 3
	w.setGraphFaults(entra.Fault{Method: http.MethodPost, Path: "revokeSignInSessions", Kind: entra.FaultThrottle, RetryAfter: &seconds, Times: -1})
	card := w.request("/entra-revoke-sessions @dana laptop stolen")
	id := requestID.FindString(card.Text())
	ravi.presses(card, "approve")
	waiting := ravi.reads(id, "waiting for Microsoft Graph", "asked to wait until")
	w.setGraphFaults() // stop throttling; it went on until the card was read
	if _, ok := waiting.Button("halt"); !ok {
		t.Error("a request that waits for Graph cannot be halted")
	}
	w.as(sandbox.Gloria, sandbox.Audit).reads("Microsoft Graph asked to wait", id)
	w.wantCompleted(id, 0)
	if got := w.countChanges("revokeSignInSessions"); got != 1 {
		t.Errorf("the sessions were revoked %d times", got)
	}
}

// Graph throttles between the two deletes of one step. The first delete is not mistaken
// for somebody else's change, and the rest is executed; or, if the request is halted
// meanwhile, the card says which of the two methods is gone.
func TestGraphThrottlesBetweenTwoDeletes(t *testing.T) {
	t.Parallel()
	for name, halts := range map[string]bool{"resumes": false, "is halted": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := startBot(t, shortFaultTimings)
			ravi := w.as(sandbox.Ravi, sandbox.Approvals)
			earlier := w.account(danaUPN, func(sandbox.User) bool { return true })
			seconds := 3
			w.setGraphFaults(entra.Fault{Method: http.MethodDelete, Path: "microsoftAuthenticatorMethods", Skip: 1, Kind: entra.FaultThrottle, RetryAfter: &seconds, Times: -1})
			card := w.request("/entra-require-reregister @dana verified=video lost phone")
			id := requestID.FindString(card.Text())
			ravi.presses(card, "approve")
			waiting := ravi.reads(id, "waiting for Microsoft Graph", "asked to wait until")
			if halts {
				ravi.presses(waiting, "halt")
				halted := ravi.reads(id, "Halted by", "Gone: Microsoft Authenticator on “", "Still there: Microsoft Authenticator on “")
				if halted.Contains("a method is gone") {
					t.Errorf("a delete of the plan is shown as somebody else's change:\n%s", halted.Text())
				}
				if n := w.countChanges("microsoftAuthenticatorMethods/{mid}"); n != 1 {
					t.Errorf("%d apps were deleted", n)
				}
				return
			}
			w.setGraphFaults() // stop throttling; it went on until the card was read
			w.wantCompleted(id, 0)
			after := w.account(danaUPN, func(u sandbox.User) bool { return u.SessionsValidFrom.After(earlier.SessionsValidFrom) })
			if apps, n := after.OfType(entra.TypeAuthenticator), w.countChanges("microsoftAuthenticatorMethods/{mid}"); len(apps) > 0 || n != 2 {
				t.Errorf("%d apps are left, %d were deleted", len(apps), n)
			}
			if n := w.countChanges("revokeSignInSessions"); n != 1 {
				t.Errorf("the sessions were revoked %d times", n)
			}
		})
	}
}

// A click on Halt ends a request before its next step. Everybody who is allowed to can
// use it: here the requester, in the direct message.
func TestHalt(t *testing.T) {
	w := startBot(t, shortFaultTimings)
	hanna, ravi := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
	seconds := 60
	if err := w.client.SetEntraFaults(entra.Fault{Method: http.MethodPost, Path: "revokeSignInSessions", Kind: entra.FaultThrottle, RetryAfter: &seconds}); err != nil {
		t.Fatal(err)
	}
	card := w.request("/entra-revoke-sessions @dana laptop stolen")
	id := requestID.FindString(card.Text())
	ravi.presses(card, "approve")
	ravi.reads(id, "waiting for Microsoft Graph")
	receipt := hanna.dm().reads(id, "waiting for Microsoft Graph")
	hanna.dm().presses(receipt, "halt")
	w.as(sandbox.Gloria, sandbox.Audit).reads("hanna.okafor@", "halted", id)
	halted := ravi.reads(id, "Halted by", "no further step is started")
	if _, ok := halted.Button("halt"); ok {
		t.Error("a halted request still has a Halt button")
	}
}

// An envelope that is delivered twice counts once: one request, one decision.
func TestRedeliveredEnvelopes(t *testing.T) {
	w := startBot(t, shortFaultTimings)
	hanna, ravi, olga := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals), w.as(sandbox.Olga, sandbox.Approvals)
	again := func() {
		t.Helper()
		if err := w.client.Redeliver(""); err != nil {
			t.Fatal(err)
		}
	}
	hanna.types("/entra-revoke-sessions @gloria laptop stolen")
	again()
	card := ravi.reads("waiting for approval", "0 of 2")
	id := requestID.FindString(card.Text())
	again()
	ravi.presses(card, "approve")
	again()
	ravi.reads("1 of 2", id)
	again()
	olga.presses(card, "approve")
	again()
	w.wantCompletedByTwo(id)
	if got := w.countChanges("revokeSignInSessions"); got != 1 {
		t.Errorf("the sessions were revoked %d times", got)
	}
	if n := len(w.as(sandbox.Gloria, sandbox.Audit).messagesWith("requested: ")); n != 1 {
		t.Errorf("one command made %d requests", n)
	}
}

// wantCompletedByTwo checks a request that two people approved.
func (w *fixture) wantCompletedByTwo(id string) {
	w.Helper()
	auditor := w.as(sandbox.Gloria, sandbox.Audit)
	auditor.reads("Succeeded: ", id, "ravi.menon@", "olga.lindqvist@")
	for kind, want := range map[string]int{"requested: ": 1, "approved (": 2, "Started: ": 1, "Succeeded: ": 1, "refused": 0} {
		if n := len(auditor.messagesWith(kind, id)); n != want {
			w.Errorf("the audit channel has %q of %s %d times, not %d", kind, id, n, want)
		}
	}
}

// Two concurrent approvals both count.
func TestConcurrentApprovals(t *testing.T) {
	w := startBot(t, shortFaultTimings)
	ravi, olga := w.as(sandbox.Ravi, sandbox.Approvals), w.as(sandbox.Olga, sandbox.Approvals)
	w.as(sandbox.Hanna, sandbox.HelpDesk).types("/entra-revoke-sessions @gloria laptop stolen")
	card := ravi.reads("waiting for approval", "0 of 2")
	olga.reads("waiting for approval", "0 of 2")
	var both sync.WaitGroup
	for _, h := range []*slackUser{ravi, olga} {
		both.Go(func() {
			if answer, err := h.p.Press(h.channel, card.TS, "approve", ""); err != nil || !answer.OK {
				t.Errorf("%s pressed approve: %+v %v", h.p.ID, answer, err)
			}
		})
	}
	both.Wait()
	w.wantCompletedByTwo(requestID.FindString(card.Text()))
	if got := w.countChanges("revokeSignInSessions"); got != 1 {
		t.Errorf("the sessions were revoked %d times", got)
	}
}

// retryUntilDelivered repeats a command or a click until Slack reaches the app, as a
// person would. It returns how often that failed.
func (w *fixture) retryUntilDelivered(what string, do func() (sandbox.Answer, error)) (failed int) {
	w.Helper()
	w.waitFor(what, func() bool {
		answer, err := do()
		if err != nil {
			w.Fatalf("%s: %v", what, err)
		}
		if !answer.OK {
			failed++
		}
		return answer.OK
	})
	return failed
}

// Slack closes the connection in the middle of a scenario, for each reason.
func TestDisconnects(t *testing.T) {
	t.Parallel()
	w := startBot(t, shortFaultTimings)
	hanna, ravi := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
	for _, reason := range []string{"warning", "refresh_requested", "link_disabled", "cut"} {
		before := w.countChanges("revokeSignInSessions")
		gone := func() {
			t.Helper()
			if err := w.client.Disconnect(reason); err != nil {
				t.Fatal(err)
			}
		}
		gone()
		failed := w.retryUntilDelivered("a command after "+reason, func() (sandbox.Answer, error) {
			return hanna.p.Command(hanna.channel, "/entra-revoke-sessions @dana "+reason)
		})
		card := ravi.reads("waiting for approval", reason)
		gone()
		failed += w.retryUntilDelivered("a click after "+reason, func() (sandbox.Answer, error) { return ravi.p.Press(ravi.channel, card.TS, "approve", "") })
		gone()
		// A failed try may have arrived: only the answer was lost with the
		// connection. Then the next try is refused.
		w.wantCompletedAfterRefusals(requestID.FindString(card.Text()), 0, failed)
		if got := w.countChanges("revokeSignInSessions") - before; got != 1 {
			t.Errorf("%s: the sessions were revoked %d times", reason, got)
		}
	}
}

// Slack refuses the app: the program ends and says why.
func TestSlackRefusesTheApp(t *testing.T) {
	for _, code := range []string{"invalid_auth", "not_allowed_token_type", "missing_scope", "access_denied"} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			w := startBot(t, shortFaultTimings)
			w.stop()
			if err := w.client.SetSlackFaults(slack.Fault{Method: "apps.connections.open", Kind: "error", Error: code}); err != nil {
				t.Fatal(err)
			}
			s := w.service
			s.up = func() { t.Error("the program said that it is ready") }
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			err := s.run(ctx)
			if err == nil || !strings.Contains(err.Error(), "SLACK_APP_TOKEN") || !strings.Contains(err.Error(), code) {
				t.Errorf("the program ended with: %v", err)
			}
		})
	}
}

// A form that Slack does not open in time is offered again, with the typed values.
func TestExpiredTriggerID(t *testing.T) {
	w := startBot(t, shortFaultTimings)
	hanna := w.as(sandbox.Hanna, sandbox.HelpDesk)
	if err := w.client.SetSlackFaults(slack.Fault{Method: "views.open", Kind: "error", Error: "expired_trigger_id", Times: 1}); err != nil {
		t.Fatal(err)
	}
	hanna.types("/entra-require-reregister @dana ticket=INC-7 lost phone & <keys> *today*")
	offer := hanna.reads("What you typed is kept")
	if !offer.Ephemeral {
		t.Error("the message that the form did not open is visible to everybody")
	}
	hanna.presses(offer, "open-form")
	form := hanna.sees("How did you make sure who was asking?")
	for block, want := range map[string]any{"justification": "lost phone & <keys> *today*", "ticket": "INC-7", "target": sandbox.Dana} {
		if got := form.Inputs()[block][block]; got != want {
			t.Errorf("the form starts with the %s %q, not with the typed one", block, got)
		}
	}
	hanna.sees("For", "dana.whitfield@") // filled in afterwards
	if a := hanna.submits(form, map[string]string{"verified": "video"}); !a.OK {
		t.Fatalf("the form was not accepted: %+v", a)
	}
	w.as(sandbox.Ravi, sandbox.Approvals).reads("waiting for approval", "lost phone & <keys> *today*", "INC-7")
}

// A form works although the call that opens it seems to fail, or the call that fills it
// is lost.
func TestLostViews(t *testing.T) {
	w := startBot(t, shortFaultTimings)
	hanna, ravi := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
	for n, f := range []slack.Fault{
		{Method: "views.open", Kind: "drop_reply", Times: 1},
		{Method: "views.update", Kind: "status", Times: 1},
		{Method: "views.update", Kind: "drop_reply", Times: 1},
	} {
		if err := w.client.SetSlackFaults(f); err != nil {
			t.Fatal(err)
		}
		why := fmt.Sprintf("scenario %d", n)
		hanna.types("/entra-require-reregister @dana " + why)
		form := hanna.sees("How did you make sure who was asking?")
		w.waitSlackFaults() // or the fault would strike the details
		if a := hanna.submits(form, map[string]string{"verified": "video"}); !a.OK {
			t.Fatalf("the form was not accepted: %+v", a)
		}
		card := ravi.reads("waiting for approval", why)
		// The same holds for the denial form and the details.
		ravi.presses(card, "details")
		ravi.sees("What will happen", why)
		ravi.presses(card, "deny")
		if a := ravi.submits(ravi.sees("A denial is final"), map[string]string{"reason": "no, " + why}); !a.OK {
			t.Fatalf("the denial was not accepted: %+v", a)
		}
		hanna.dm().reads("denied", "no, "+why)
	}
	// An App Home that was not published is published the next time.
	for _, kind := range []string{"status", "drop_reply"} {
		if err := w.client.SetSlackFaults(slack.Fault{Method: "views.publish", Kind: kind, Times: 1}); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := hanna.p.Home(); err != nil {
				t.Fatal(err)
			}
		}
		w.waitSlackFaults()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		home, err := hanna.p.WaitHome(ctx, func(v sandbox.View) bool { return v.Contains("Open requests", "Yours", "denied by", "What you may do") })
		cancel()
		if err != nil {
			t.Fatalf("Hanna waited for her App Home: %v", err)
		}
		_ = home
	}
}

// An answer reaches the person who typed the command, and nobody else, whichever way of
// delivery fails.
func TestAnswersArrive(t *testing.T) {
	w := startBot(t, shortFaultTimings)
	for n, c := range []struct {
		channel string
		direct  bool // it comes as a direct message
		faults  []slack.Fault
	}{
		{sandbox.HelpDesk, false, []slack.Fault{{Method: "response_url", Kind: "status", Status: 404}}},
		{sandbox.HelpDesk, false, []slack.Fault{{Method: "response_url", Kind: "drop_reply", Times: 1}}},
		{sandbox.HelpDesk, true, []slack.Fault{{Method: "response_url", Kind: "status"}, {Method: "chat.postEphemeral", Kind: "error"}}},
		{sandbox.General, false, nil}, // where the app is no member
		{sandbox.General, true, []slack.Fault{{Method: "response_url", Kind: "ratelimit", Times: 1}}}, // and the response URL has expired
	} {
		if err := w.client.SetSlackFaults(c.faults...); err != nil {
			t.Fatal(err)
		}
		hanna, name := w.as(sandbox.Hanna, c.channel), []string{"Dana Whitfield", "Mina Haddad", "Alex Morgan", "Bo Castellan", "Sam Ito"}[n]
		hanna.types("/entra-methods " + strings.ToLower(strings.Replace(name, " ", ".", 1)) + "@fernhill.example")
		if c.direct {
			hanna.dm().reads(name, "Authentication methods")
		} else if m := hanna.reads(name, "Authentication methods"); !m.Ephemeral {
			t.Errorf("the methods of %s are visible to everybody", name)
		}
		// After a lost reply it may come twice, the second time at any moment:
		// so check that each message is ephemeral instead of reloading.
		for _, channel := range []string{sandbox.HelpDesk, sandbox.General} {
			for _, m := range w.as(sandbox.Hanna, channel).messagesWith("Authentication methods") {
				if !m.Ephemeral {
					t.Errorf("the methods of %s are in %s in a message that is not ephemeral", name, channel)
				}
			}
			if m := w.as(sandbox.Olga, channel).messagesWith("Authentication methods"); len(m) > 0 {
				t.Errorf("Olga reads the methods of %s in %s", name, channel)
			}
		}
	}
}

// tcpProxy is a proxy for connections to Redis that can be paused.
type tcpProxy struct {
	addr    string
	mu      sync.Mutex
	flowing chan struct{} // closed while data flows
}

func newTCPProxy(t *testing.T, to string) *tcpProxy {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &tcpProxy{addr: listener.Addr().String(), flowing: make(chan struct{})}
	close(h.flowing)
	gone := make(chan struct{})
	t.Cleanup(func() { listener.Close(); close(gone) })
	pump := func(dst, src net.Conn) {
		defer dst.Close()
		buffer := make([]byte, 32<<10)
		for {
			n, err := src.Read(buffer)
			if err != nil {
				return
			}
			h.mu.Lock()
			open := h.flowing
			h.mu.Unlock()
			select {
			case <-open:
			case <-gone:
				return
			}
			if _, err := dst.Write(buffer[:n]); err != nil {
				return
			}
		}
	}
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			go pump(out, in)
			go pump(in, out)
		}
	}()
	return h
}

func (h *tcpProxy) pause() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.flowing = make(chan struct{})
}

func (h *tcpProxy) resume() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.flowing)
}

// Redis does not answer: commands, clicks and forms are answered within Slack's
// three seconds, with a message that they could not be confirmed. Afterwards nothing
// is duplicated.
func TestRedisHangs(t *testing.T) {
	t.Parallel()
	var way *tcpProxy
	w := startBot(t, shortTimings, func(c *config) {
		way = newTCPProxy(t, strings.TrimPrefix(c.Redis.URL, "redis://"))
		c.Redis.URL = "redis://" + way.addr
	})
	hanna, ravi := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
	card := w.request("/entra-revoke-sessions @dana laptop stolen")
	hanna.types("/entra-require-reregister @dana lost phone")
	form := hanna.sees("How did you make sure who was asking?", "For", danaUPN)

	way.pause()
	if answer := hanna.types("/entra-revoke-sessions @mina <b>phone</b> stolen"); !strings.Contains(string(answer.Response), "could not be confirmed") {
		t.Errorf("the command was answered: %s", answer.Response)
	}
	hanna.reads("could not be confirmed", "You typed: /entra-revoke-sessions @mina <b>phone</b> stolen")
	ravi.presses(card, "approve")
	ravi.reads("Your press could not be confirmed")
	if a := hanna.submits(form, map[string]string{"verified": "video"}); a.OK || !strings.Contains(a.Errors["justification"], "could not be confirmed") {
		t.Errorf("the form was answered: %+v", a)
	}
	way.resume()

	// They do it all again.
	hanna.types("/entra-revoke-sessions @mina <b>phone</b> stolen")
	ravi.presses(card, "approve")
	if a := hanna.submits(form, map[string]string{"verified": "video"}); !a.OK {
		t.Errorf("the form was not accepted: %+v", a)
	}
	auditor := w.as(sandbox.Gloria, sandbox.Audit)
	auditor.reads("Succeeded: ", requestID.FindString(card.Text()))
	ravi.reads("waiting for approval", "mina.haddad@")
	ravi.reads("waiting for approval", "Require re-registration")
	if n := len(auditor.messagesWith("Succeeded: ")); n != 1 || w.countChanges("revokeSignInSessions") != 1 {
		t.Errorf("the sessions were revoked %d times, by %d requests", w.countChanges("revokeSignInSessions"), n)
	}
	w.waitFor("the audit events of three requests", func() bool { return len(auditor.messagesWith("requested: ")) >= 3 })
	if n := len(auditor.messagesWith("requested: ")); n != 3 {
		t.Errorf("there were %d requests, not 3", n)
	}
}

// patchSlack changes somebody's Slack account, or a channel, as an administrator
// of the workspace does.
func (w *fixture) patchSlack(path, body string) {
	w.Helper()
	r, err := http.NewRequest(http.MethodPatch, w.box.URL()+"/sandbox/"+path, strings.NewReader(body))
	if err != nil {
		w.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		w.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		w.Fatalf("PATCH %s: %s", path, answer.Status)
	}
}

// A Slack account that suddenly has somebody else's e-mail address belongs to
// nobody, whether it acts or is mentioned.
func TestChangedEmail(t *testing.T) {
	w := startBot(t, shortFaultTimings)
	hanna, ravi, dana := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals), w.as(sandbox.Dana, sandbox.Approvals)
	hanna.types("/entra-revoke-sessions @mina laptop stolen")
	card := ravi.reads("waiting for approval", "mina.haddad@")
	ravi.presses(card, "details") // so that Ravi's account is pinned, too
	ravi.sees("What will happen")
	auditor := w.as(sandbox.Gloria, sandbox.Audit)

	w.patchSlack("people/"+sandbox.Dana, `{"email":"ravi.menon@fernhill.example"}`)
	dana.presses(card, "approve")
	dana.reads("does not trust it")
	auditor.reads("Dana Whitfield tried to approve and was refused", "does not trust it", requestID.FindString(card.Text()))
	auditor.reads("Alarm about Dana Whitfield", sandbox.Dana, "now has the e-mail address of Ravi Menon")

	w.patchSlack("people/"+sandbox.Mina, `{"email":"alex.morgan@fernhill.example"}`)
	hanna.types("/entra-revoke-sessions @mina once more")
	hanna.reads("mentioned", "does not trust it")

	w.patchSlack("people/"+sandbox.Hanna, `{"email":"olga.lindqvist@fernhill.example"}`)
	hanna.types("/entra-methods @alex")
	hanna.reads("of your Slack account", "does not trust it")
	if n := w.countChanges("revokeSignInSessions"); n != 0 {
		t.Errorf("the sessions were revoked %d times", n)
	}
}

// The approvals channel becomes shared with people outside while a request waits
// there: nobody can decide in it, no request can be submitted, and no card is shown,
// until it is private again.
func TestChannelBecomesShared(t *testing.T) {
	w := startBot(t, shortFaultTimings)
	hanna, ravi := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
	card := w.request("/entra-revoke-sessions @dana laptop stolen")
	w.patchSlack("channels/"+sandbox.Approvals, `{"shared":true}`)
	ravi.presses(card, "approve")
	// There are two sentences. The choice depends on whether the bot looked the channel
	// up in Slack within the last two seconds.
	ravi.reads("This channel is ", "shared with people outside")
	w.as(sandbox.Gloria, sandbox.Audit).reads("ravi.menon@", "refused", "shared with people outside")
	hanna.types("/entra-revoke-sessions @mina phone stolen")
	hanna.reads("nothing was requested", "shared with people outside")

	w.patchSlack("channels/"+sandbox.Approvals, `{"shared":false}`)
	ravi.presses(card, "approve")
	w.waitFor("the end", func() bool {
		return len(w.as(sandbox.Gloria, sandbox.Audit).messagesWith("Succeeded: ", requestID.FindString(card.Text()))) == 1
	})
	ravi.reads("Revoke sessions: done", requestID.FindString(card.Text()))
}

// Text that people write never becomes a mention, a link or formatting in Slack,
// wherever it is shown.
func TestTextIsNeverMarkup(t *testing.T) {
	w := startBot(t, shortFaultTimings)
	hanna, ravi := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
	const bait = "<!channel> <@U0GLORIA> <https://evil.example|Approve> *bold* `code` https://evil.example :tada:"
	hanna.types("/entra-require-reregister @dana")
	form := hanna.sees("How did you make sure who was asking?")
	if a := hanna.submits(form, map[string]string{"verified": "video", "justification": bait, "ticket": "<!here> *1*"}); !a.OK {
		t.Fatalf("the form was not accepted: %+v", a)
	}
	card := ravi.reads("waiting for approval", bait, "<!here> *1*")
	ravi.presses(card, "deny")
	if a := ravi.submits(ravi.sees("A denial is final"), map[string]string{"reason": bait}); !a.OK {
		t.Fatalf("the denial was not accepted: %+v", a)
	}
	hanna.dm().reads("denied your request", bait)
	w.as(sandbox.Gloria, sandbox.Audit).reads("denied", bait)
	hanna.types("/entra-methods nobody*x*@fernhill.example")
	hanna.reads("Nobody in the tenant")
	hanna.types("/entra-revoke-sessions @nobody `" + bait)
	hanna.reads("You typed")
	for _, who := range []string{sandbox.Hanna, sandbox.Ravi, sandbox.Gloria} {
		channels, err := w.client.As(who).Channels()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range channels {
			for _, m := range w.as(who, c.ID).messagesWith() {
				for _, raw := range m.Blocks {
					for _, what := range []string{`"mrkdwn"`, `"type":"link"`, `"type":"broadcast"`, `"user_id":"U0GLORIA"`} {
						if strings.Contains(string(raw), what) {
							t.Errorf("a message has %s: %s", what, raw)
						}
					}
				}
				if strings.Contains(m.Fallback, "<") || len(m.Blocks) == 0 {
					t.Errorf("a message's text is read as mrkdwn: %s", m.Fallback)
				}
			}
		}
	}
}

// The target has more methods than a card can show in full: every step is
// visible, Details shows all of it, and the request is executed.
func TestManyMethods(t *testing.T) {
	t.Parallel()
	w := startBot(t, shortFaultTimings, func(c *config) { c.Timing.GraphCall, c.Timing.Lease = 10*time.Second, 35*time.Second })
	ravi := w.as(sandbox.Ravi, sandbox.Approvals)
	w.giveMethods(danaUPN)
	for n := range 24 {
		name := fmt.Sprintf("%02d %s", n, strings.Repeat("très long «name» & ", 4))
		if err := w.client.AddMethod(danaUPN, entra.Authenticator("", name)); err != nil {
			t.Fatal(err)
		}
	}
	hanna := w.as(sandbox.Hanna, sandbox.HelpDesk)
	hanna.types("/entra-methods @dana")
	hanna.reads("23 très long")
	hanna.types("/entra-require-reregister @dana verified=video " + strings.Repeat("\"wh<y\" ", 120))
	card := ravi.reads("waiting for approval", danaUPN)
	id := requestID.FindString(card.Text())
	for n := range 24 {
		if !card.Contains(fmt.Sprintf("%02d très", n)) {
			t.Errorf("the card does not show the step about number %d", n)
		}
	}
	ravi.presses(card, "details")
	ravi.sees("What will happen", "23 très long «name» & très long", "Stays as it is")
	ravi.presses(card, "approve")
	w.wantCompleted(id, 0)
	hanna.types("/entra-requests " + id)
	hanna.reads("Journal")
	auditor := w.as(sandbox.Gloria, sandbox.Audit)
	if line := auditor.reads("Succeeded: ", id); !strings.HasSuffix(strings.TrimSpace(line.Text()), id) {
		t.Errorf("the audit message does not end with the request's id:\n%s", line.Text())
	}
}

// commandArguments returns the arguments of each command for the test of permissions.
// Nobody is the target of two commands that would conflict.
func commandArguments(c commands.Command, without string) string {
	switch c.Name {
	case "methods":
		return "@dana"
	case "add-phone":
		return "@mina office +1 4255550123 verified=video new phone"
	case "add-email":
		return "@mina mina@home.example verified=video asked for it"
	case "remove-method":
		method := map[string]string{
			"Email": "reset e-mail", "External": "external authentication method", "HardwareOATH": "hardware oath token", "MicrosoftAuthApp": "“iPad Air”",
			"Phone": "office phone", "PlatformCred": "platform credential", "QR": "qr code", "SoftwareOATH": "software oath token", "TAP": "temporary access pass",
			"WindowsHello": "windows hello",
		}[strings.TrimSuffix(strings.TrimPrefix(without, "UserAuthMethod-"), ".ReadWrite.All")]
		return "@dana " + cmp.Or(method, "passkey") + " verified=video why=\"lost it\""
	case "reset-password":
		return "@mina verified=video forgot it"
	case "require-reregister":
		return "@alex verified=video lost phone"
	case "revoke-sessions", "block-signin":
		return "@sam laptop stolen"
	case "unblock-signin":
		return "@bo verified=manager back from leave"
	case "delete-app-passwords":
		return "@mina verified=video old mail client"
	case "issue-pass":
		return "@alex 60m once verified=in-person new phone"
	case "requests":
		return "pending"
	}
	return ""
}

// Without any one of its application permissions a command fails, and names
// it. TestPermissionsMatchGraph shows that these permissions are enough.
func TestEachPermission(t *testing.T) {
	t.Parallel()
	w := startBot(t, shortFaultTimings, func(c *config) { c.Policy.ReadsAMinute = 1000 })
	hanna, ravi, olga := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals), w.as(sandbox.Olga, sandbox.Approvals)
	// A permission that a command needs only for a warning: without it, it still works and names it.
	warns := map[string]string{"delete-app-passwords": "Policy.Read.All"}
	// does runs a command to its end, and returns everything that people read.
	does := func(c commands.Command, without string) (worked bool, told string) {
		t.Helper()
		if c.Name == "require-reregister" {
			w.giveMethods("alex.morgan@fernhill.example")
		}
		if err := hanna.p.Reload(); err != nil {
			t.Fatal(err)
		}
		hanna.types(commands.Slash(defaultPrefix, c) + " " + commandArguments(c, without))
		var answer sandbox.Message
		w.waitFor("an answer to "+c.Name, func() bool {
			if all := hanna.messagesWith(); len(all) > 0 {
				answer = all[0]
			}
			return answer.Ephemeral
		})
		told = answer.Text()
		if !strings.Contains(told, "is requested as") {
			return answer.Contains("Authentication methods") || answer.Contains("Open requests") || answer.Contains("/entra-help [command]"), told
		}
		id := requestID.FindString(told)
		card := ravi.reads(id, "waiting for approval")
		told += card.Text()
		ravi.presses(card, "approve")
		if c.Name == "delete-app-passwords" {
			ravi.presses(ravi.reads(id, "to be done by hand"), "attest")
			olga.presses(olga.reads(id, "to be confirmed"), "confirm")
		}
		card = ravi.reads(id, "What happened")
		return card.Contains(": done"), told + card.Text()
	}
	for _, c := range commands.Table() {
		for _, without := range c.Permissions {
			var left []string
			for _, p := range c.Permissions {
				if p != without {
					left = append(left, string(p))
				}
			}
			if err := w.client.SetGrant(left...); err != nil {
				t.Fatal(err)
			}
			worked, told := does(c, string(without))
			if worked != (warns[c.Name] == string(without)) || !strings.Contains(told, string(without)) {
				t.Errorf("without %s, %s worked: %t; or it does not name the permission: %s", without, c.Name, worked, told)
			}
		}
	}
}

// startProcess starts the bot of this fixture as a separate process and returns a
// function that kills it with SIGKILL.
func (w *fixture) startProcess() (kill func()) {
	w.Helper()
	_, kill = w.startCommand()
	return kill
}

// startCommand is like startProcess, and also returns the exec.Cmd.
func (w *fixture) startCommand() (cmd *exec.Cmd, kill func()) {
	w.Helper()
	dir := w.TempDir()
	raw, err := yaml.Marshal(w.service.config)
	if err != nil {
		w.Fatal(err)
	}
	file, authority := filepath.Join(dir, "countersign.yaml"), filepath.Join(dir, "ca.pem")
	for name, content := range map[string][]byte{file: raw, authority: w.box.CAPEM()} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			w.Fatal(err)
		}
	}
	cmd = itself(w.T, []string{"SSL_CERT_FILE=" + authority, "COUNTERSIGN_KEYS=" + w.key,
		"SLACK_BOT_TOKEN=" + sandbox.BotToken, "SLACK_APP_TOKEN=" + sandbox.AppToken, "AZURE_CLIENT_SECRET=" + sandbox.ClientSecret,
		"COUNTERSIGN_REDIS_PASSWORD=" + w.service.secrets.RedisPassword}, "serve", "-config", file)
	cmd.Stderr = w.log
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	w.Cleanup(kill)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.Contains(line, "ready") {
		w.Fatalf("the process said %q (%v):\n%s", line, err, w.log)
	}
	return cmd, kill
}

// pollUntil polls for a condition of which the sandbox's stream does not notify.
func (w *fixture) pollUntil(what string, so func() bool) {
	w.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !so(); <-tick.C {
		if time.Now().After(deadline) {
			w.Fatalf("waited for %s", what)
		}
	}
}

// The process is killed in the middle, and another one finishes its work: no
// acknowledged envelope is lost, and no step is executed twice.
func TestProcessIsKilled(t *testing.T) {
	for name, story := range map[string]func(*fixture, func()) string{
		"before the command was processed": func(w *fixture, crash func()) string {
			w.hangSlackCall("users.info", func() {
				w.as(sandbox.Hanna, sandbox.HelpDesk).types("/entra-require-reregister @dana verified=video why")
			})
			crash()
			return w.approveWaiting()
		},
		"before the card was posted": func(w *fixture, crash func()) string {
			w.hangSlackCall("chat.postMessage", func() {
				w.as(sandbox.Hanna, sandbox.HelpDesk).types("/entra-require-reregister @dana verified=video why")
			})
			crash()
			return w.approveWaiting()
		},
		"before the approval was processed": func(w *fixture, crash func()) string {
			w.as(sandbox.Hanna, sandbox.HelpDesk).types("/entra-require-reregister @dana verified=video why")
			var id string
			w.as(sandbox.Ravi, sandbox.Approvals).reads("waiting for approval")
			w.hangSlackCall("users.info", func() { id = w.approveWaiting() })
			crash()
			return id
		},
		"in a call that Graph has not executed": func(w *fixture, crash func()) string {
			w.as(sandbox.Hanna, sandbox.HelpDesk).types("/entra-require-reregister @dana verified=video why")
			w.as(sandbox.Ravi, sandbox.Approvals).reads("waiting for approval")
			w.setGraphFaults(entra.Fault{Method: http.MethodDelete, Path: "phoneMethods", Kind: entra.FaultHang})
			id := w.approveWaiting()
			w.waitGraphFaults()
			crash()
			return id
		},
		"after a call that Graph has executed": func(w *fixture, crash func()) string {
			w.as(sandbox.Hanna, sandbox.HelpDesk).types("/entra-require-reregister @dana verified=video why")
			w.as(sandbox.Ravi, sandbox.Approvals).reads("waiting for approval")
			// The first read of the methods is the check before the first step; the
			// second one finds out the outcome of that step.
			w.setGraphFaults(entra.Fault{Method: http.MethodPost, Path: "deactivate", Kind: entra.FaultDropReply},
				entra.Fault{Method: http.MethodGet, Path: "authentication/methods", Kind: entra.FaultHang, Skip: 1})
			id := w.approveWaiting()
			w.waitGraphFaults()
			crash()
			return id
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := startBot(t, shortTimings)
			w.giveMethods(danaUPN)
			w.stop()
			kill := w.startProcess()
			id := story(w, func() {
				kill()
				if err := w.client.SetSlackFaults(); err != nil {
					t.Fatal(err)
				}
				w.start()
			})
			w.wantCompleted(id, 0)
			for ends, times := range reregisterChanges {
				if got := w.countChanges(ends); got != times {
					t.Errorf("%s was executed %d times, not %d", ends, got, times)
				}
			}
		})
	}
}

// The process is killed when a read is recorded and its answer is not sent yet, and
// the next process cannot reach Graph: then it answers with that error.
func TestKilledBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	w := startBot(t, shortTimings)
	w.stop()
	kill := w.startProcess()
	hanna := w.as(sandbox.Hanna, sandbox.HelpDesk)
	w.hangSlackCall("response_url", func() { hanna.types("/entra-methods @dana") })
	kill()
	if err := w.client.SetSlackFaults(); err != nil {
		t.Fatal(err)
	}
	w.setGraphFaults(entra.Fault{Kind: entra.FaultDropRequest, Method: http.MethodGet, Path: "/users", Times: -1})
	w.start()
	if m := hanna.reads("Microsoft Entra did not say", "cannot be checked"); !m.Ephemeral {
		t.Error("the answer is visible to everybody")
	}
	auditor := w.as(sandbox.Gloria, sandbox.Audit)
	auditor.reads("hanna.okafor@", "looked at", danaUPN)
	if n := len(auditor.messagesWith("hanna.okafor@", "looked at", danaUPN)); n != 1 {
		t.Errorf("the read is recorded %d times", n)
	}
}

// A process is paused for longer than its leases while its update of a card
// is on the way. The late update overwrites the new state of the card with an old one.
// When the process resumes, it redraws the card.
func TestStalledProcessRedrawsItsCard(t *testing.T) {
	t.Parallel()
	slackAPI, through := newSlackProxy(t)
	w := startBot(t, shortTimings, through)
	w.stop()
	cmd, _ := w.startCommand()
	w.as(sandbox.Hanna, sandbox.HelpDesk).types("/entra-revoke-sessions @dana laptop stolen")
	ravi := w.as(sandbox.Ravi, sandbox.Approvals)
	card := ravi.reads("waiting for approval", danaUPN)
	resume := make(chan struct{})
	held := slackAPI.dropCall(droppedCall{method: "chat.update", parts: []string{"channel=" + sandbox.Approvals, ": running"}, holdUntil: resume})
	w.setGraphFaults(entra.Fault{Kind: entra.FaultHang, Method: http.MethodPost, Path: "/revokeSignInSessions"})
	ravi.presses(card, "approve")
	select {
	case <-held:
	case <-time.After(patience):
		t.Fatal("the card was not updated")
	}
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	w.start() // this process takes the request over
	says := func(what string) func() bool {
		return func() bool { return len(ravi.messagesWith(danaUPN, what)) == 1 }
	}
	w.waitFor("the card to be right", says(": done"))
	store := approvals.NewStore(w.redis.Client(t), w.service.secrets.Ring, w.service.config.Redis.Prefix, w.service.config.Timing)
	w.pollUntil("all events to be shown", func() bool {
		lag, err := store.Lag(t.Context(), "cards")
		return err == nil && lag == 0
	})
	close(resume)
	w.waitFor("the late update", says(": running"))
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	w.waitFor("the card to be right again", says(": done"))
}

// approveWaiting approves the one request that waits, and returns its id.
func (w *fixture) approveWaiting() string {
	w.Helper()
	ravi := w.as(sandbox.Ravi, sandbox.Approvals)
	card := ravi.reads("waiting for approval", danaUPN)
	ravi.presses(card, "approve")
	return requestID.FindString(card.Text())
}

// hangSlackCall makes calls of one Slack method hang, runs meanwhile, and waits
// until a call hangs.
func (w *fixture) hangSlackCall(method string, meanwhile func()) {
	w.Helper()
	if err := w.client.SetSlackFaults(slack.Fault{Method: method, Kind: "hang"}); err != nil {
		w.Fatal(err)
	}
	meanwhile()
	w.pollUntil("a call that hangs", func() bool {
		faults, err := w.client.SlackFaults()
		return err == nil && len(faults) == 1 && faults[0].Met > 0
	})
}

// waitSlackFaults waits until every armed Slack fault has struck.
func (w *fixture) waitSlackFaults() {
	w.Helper()
	w.pollUntil("a call that is lost", func() bool {
		faults, err := w.client.SlackFaults()
		return err == nil && len(faults) == 0
	})
}

// setGraphFaults sets Graph's faults, and removes all others.
func (w *fixture) setGraphFaults(faults ...entra.Fault) {
	w.Helper()
	if err := w.client.SetEntraFaults(faults...); err != nil {
		w.Fatal(err)
	}
}

func (w *fixture) waitGraphFaults() {
	w.Helper()
	w.pollUntil("a call that hangs", func() bool {
		faults, err := w.client.EntraFaults()
		return err == nil && len(faults) == 0
	})
}
