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

// What must hold whatever is lost on the way: each request has exactly one
// effect on the tenant and one end in the audit; its requester is told; its
// cards are right in the end, and there is at most one too many.

// brisk shortens what a fault makes wait for. What only ends when nobody answers
// is as long as a busy machine may take to answer.
func brisk(c *config) {
	t := &c.Timing
	t.GraphCall, t.GraphGrace, t.Lease = 5*time.Second, 200*time.Millisecond, 30*time.Second
	t.Takeover, t.Lead = time.Minute, time.Second
}

// hasty is brisk where a process dies or Redis is away: what it had in hand is
// taken over soon.
func hasty(c *config) {
	brisk(c)
	t := &c.Timing
	t.LookUps, t.GraphCall, t.Lease, t.Takeover = 3*time.Second, 2*time.Second, 6*time.Second, 3500*time.Millisecond
}

// between stands between the bot and Slack's Web API and loses single calls:
// before they arrive, or their reply.
type between struct {
	slack string
	mu    sync.Mutex
	waits []*loss
}

// loss is one call to lose: the first one of this method whose arguments
// have all of these parts.
type loss struct {
	method     string
	parts      []string
	carriedOut bool            // only the reply is lost
	until      <-chan struct{} // nothing is lost: the call waits for this on its way
	met        chan struct{}
}

// meddle puts a between in the bot's way.
func meddle(t *testing.T) (*between, func(*config)) {
	b := &between{}
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	return b, func(c *config) {
		b.slack, c.Slack.APIURL = strings.TrimSuffix(c.Slack.APIURL, "/"), server.URL+"/"
	}
}

// lose arms a loss. Its channel is closed when it struck.
func (b *between) lose(l loss) <-chan struct{} {
	l.met = make(chan struct{})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waits = append(b.waits, &l)
	return l.met
}

func (b *between) strikes(method, arguments string) *loss {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, l := range b.waits {
		fits := l.method == method
		for _, part := range l.parts {
			fits = fits && strings.Contains(arguments, part)
		}
		if fits {
			b.waits = append(b.waits[:i:i], b.waits[i+1:]...)
			return l
		}
	}
	return nil
}

func (b *between) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	arguments, err := url.QueryUnescape(string(body))
	if err != nil {
		arguments = string(body) // JSON
	}
	l := b.strikes(path.Base(r.URL.Path), arguments)
	if l != nil && l.until != nil {
		close(l.met)
		<-l.until
		l = nil
	}
	if l != nil {
		defer close(l.met)
		if !l.carriedOut {
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

// until waits for something in the sandbox.
func (w *world) until(what string, so func() bool) {
	w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := w.client.Wait(ctx, func() (bool, error) { return so(), nil }); err != nil {
		w.Fatalf("waited for %s: %v", what, err)
	}
}

// all are the messages that somebody reads in a channel and that have all of
// these parts, the oldest first.
func (h *hands) all(parts ...string) []sandbox.Message {
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

// effects counts the changes that Graph carried out so far, by the end of
// their path's template.
func (w *world) effects(ends string) int {
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

// settled checks the invariants for one request that has ended well. doubles
// is how many messages of each kind there may be too many.
func (w *world) settled(id string, doubles int) {
	w.Helper()
	w.settledAfter(id, doubles, 0)
}

// settledAfter is settled where so many refusals of the request may be on record.
func (w *world) settledAfter(id string, doubles, refusals int) {
	w.Helper()
	auditor, hanna, ravi := w.as(sandbox.Gloria, sandbox.Audit), w.as(sandbox.Hanna, sandbox.HelpDesk).dm(), w.as(sandbox.Ravi, sandbox.Approvals)
	kinds := []string{"requested: ", "approved (", "Started: ", "Succeeded: "}
	w.until("the whole record of "+id, func() bool {
		for _, kind := range kinds {
			if len(auditor.all(kind, id)) == 0 {
				return false
			}
		}
		return len(hanna.all("Done: ", id)) > 0
	})
	for _, kind := range kinds {
		if n := len(auditor.all(kind, id)); n > 1+doubles {
			w.Errorf("the audit says %q of %s %d times", kind, id, n)
		}
	}
	if n := len(auditor.all("refused", id)); n > refusals {
		w.Errorf("the audit has %d refusals of %s", n, id)
	}
	if n := len(hanna.all("Done: ", id)); n > 1+doubles {
		w.Errorf("Hanna was told %d times that %s is done", n, id)
	}
	for _, h := range []*hands{ravi, hanna} {
		w.until("cards that are right", func() bool {
			for _, card := range h.all(id, "What ") {
				if !card.Contains(": done") || len(card.Buttons()) > 0 {
					return false
				}
			}
			return true
		})
		if n := len(h.all(id, "What ")); n < 1 || n > 1+doubles {
			w.Errorf("%s sees %d cards of %s", h.p.ID, n, id)
		}
	}
}

// Slack asks to wait, again and again. Everything arrives all the same, once.
func TestSlackThrottles(t *testing.T) {
	t.Parallel()
	w := begin(t, unhurried)
	var faults []slack.Fault
	for _, method := range []string{"chat.postMessage", "chat.update", "users.info", "conversations.info", "conversations.open", "views.update", "chat.postEphemeral"} {
		faults = append(faults, slack.Fault{Method: method, Kind: "ratelimit", RetryAfter: 1, Times: 1})
	}
	if err := w.client.SetSlackFaults(faults...); err != nil {
		t.Fatal(err)
	}
	card := w.request("/entra-revoke-sessions @dana laptop stolen")
	w.as(sandbox.Ravi, sandbox.Approvals).presses(card, "approve")
	w.settled(requestID.FindString(card.Text()), 0)
}

// equip gives somebody one method of each kind that a re-registration
// removes, two phones, and nothing else.
func (w *world) equip(upn string) {
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

// removals are the changes that a re-registration of somebody equipped makes,
// by how their paths end, and how often.
var removals = map[string]int{
	"phoneMethods/{mid}": 2, "microsoftAuthenticatorMethods/{mid}": 1, "softwareOathMethods/{mid}": 1, "deactivate": 1, "revokeSignInSessions": 1,
}

// Each change that a re-registration makes in the tenant is lost once: before
// it is carried out, behind that, and carried out late.
func TestGraphLosesChanges(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{entra.FaultDropRequest, entra.FaultDropReply, entra.FaultApplyLate} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			// What is carried out late counts in this world only.
			w := begin(t, brisk)
			ravi := w.as(sandbox.Ravi, sandbox.Approvals)
			w.equip(danaUPN)
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
			w.settled(requestID.FindString(card.Text()), 0)

			// Of the two faults for each method, one is for another kind of change.
			if left, err := w.client.EntraFaults(); err != nil || len(left) != len(earlier.Methods) {
				t.Errorf("some changes were never lost: %+v %v", left, err)
			}
			after := w.account(danaUPN, func(u sandbox.User) bool { return u.SessionsValidFrom.After(earlier.SessionsValidFrom) })
			if got := kinds(after); strings.Contains(got, "phone") || strings.Contains(got, "uthenticator") || strings.Contains(got, "softwareOath") {
				t.Errorf("what is left is %q", got)
			}
			for ends, times := range removals {
				if got := w.effects(ends); got != times && kind != entra.FaultApplyLate {
					t.Errorf("%s was carried out %d times, not %d", ends, got, times)
				}
			}
		})
	}
}

// What Graph refuses for good is told: in the card, the news and the record,
// with Graph's request id, and the rest is done.
func TestGraphRefusesOneStep(t *testing.T) {
	w := begin(t, brisk)
	hanna, ravi := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
	w.equip(danaUPN)
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
			t.Errorf("what identifies a method stands in a message:\n%s", m.Text())
		}
	}
	// The phone was made the default method, which Graph deletes as the last one.
	if got := kinds(w.account(danaUPN, func(sandbox.User) bool { return true })); got != "phone softwareOath hardwareOath" {
		t.Errorf("what is left is %q", got)
	}
}

// Graph asks to wait for longer than a call may take: the card says so, and
// the request goes on by itself.
func TestGraphThrottles(t *testing.T) {
	t.Parallel()
	w := begin(t, brisk)
	ravi := w.as(sandbox.Ravi, sandbox.Approvals)
	seconds := 3
	w.graphHangs(entra.Fault{Method: http.MethodPost, Path: "revokeSignInSessions", Kind: entra.FaultThrottle, RetryAfter: &seconds, Times: -1})
	card := w.request("/entra-revoke-sessions @dana laptop stolen")
	id := requestID.FindString(card.Text())
	ravi.presses(card, "approve")
	waiting := ravi.reads(id, "waiting for Microsoft Graph", "asked to wait until")
	w.graphHangs() // no more: until the card was read, it asked again and again
	if _, ok := waiting.Button("halt"); !ok {
		t.Error("a request that waits for Graph cannot be halted")
	}
	w.as(sandbox.Gloria, sandbox.Audit).reads("Microsoft Graph asked to wait", id)
	w.settled(id, 0)
	if got := w.effects("revokeSignInSessions"); got != 1 {
		t.Errorf("the sessions were revoked %d times", got)
	}
}

// Graph asks to wait between the two deletes of one step. What was deleted is
// taken for nobody else's change, and all the rest follows; or, halted by then,
// the card says which of the two is gone.
func TestGraphThrottlesBetweenTwoDeletes(t *testing.T) {
	t.Parallel()
	for name, halts := range map[string]bool{"goes on": false, "is halted": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := begin(t, brisk)
			ravi := w.as(sandbox.Ravi, sandbox.Approvals)
			earlier := w.account(danaUPN, func(sandbox.User) bool { return true })
			seconds := 3
			w.graphHangs(entra.Fault{Method: http.MethodDelete, Path: "microsoftAuthenticatorMethods", Skip: 1, Kind: entra.FaultThrottle, RetryAfter: &seconds, Times: -1})
			card := w.request("/entra-require-reregister @dana verified=video lost phone")
			id := requestID.FindString(card.Text())
			ravi.presses(card, "approve")
			waiting := ravi.reads(id, "waiting for Microsoft Graph", "asked to wait until")
			if halts {
				ravi.presses(waiting, "halt")
				halted := ravi.reads(id, "Halted by", "Gone: Microsoft Authenticator on “", "Still there: Microsoft Authenticator on “")
				if halted.Contains("a method is gone") {
					t.Errorf("what the plan deleted is somebody else's change:\n%s", halted.Text())
				}
				if n := w.effects("microsoftAuthenticatorMethods/{mid}"); n != 1 {
					t.Errorf("%d apps were deleted", n)
				}
				return
			}
			w.graphHangs() // no more: until the card was read, it asked again and again
			w.settled(id, 0)
			after := w.account(danaUPN, func(u sandbox.User) bool { return u.SessionsValidFrom.After(earlier.SessionsValidFrom) })
			if apps, n := after.OfType(entra.TypeAuthenticator), w.effects("microsoftAuthenticatorMethods/{mid}"); len(apps) > 0 || n != 2 {
				t.Errorf("%d apps are left, %d were deleted", len(apps), n)
			}
			if n := w.effects("revokeSignInSessions"); n != 1 {
				t.Errorf("the sessions were revoked %d times", n)
			}
		})
	}
}

// A press on Halt ends a request before its next step, whoever of those who
// may presses it: here the requester, in the direct message.
func TestHalt(t *testing.T) {
	w := begin(t, brisk)
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
	halted := ravi.reads(id, "Halted by", "no further step is begun")
	if _, ok := halted.Button("halt"); ok {
		t.Error("what is being halted can be halted again")
	}
}

// The same envelope twice is one deed: one request, one vote.
func TestEnvelopesTwice(t *testing.T) {
	w := begin(t, brisk)
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
	w.settled2(id)
	if got := w.effects("revokeSignInSessions"); got != 1 {
		t.Errorf("the sessions were revoked %d times", got)
	}
	if n := len(w.as(sandbox.Gloria, sandbox.Audit).all("requested: ")); n != 1 {
		t.Errorf("one command made %d requests", n)
	}
}

// settled2 checks a request that two people approved.
func (w *world) settled2(id string) {
	w.Helper()
	auditor := w.as(sandbox.Gloria, sandbox.Audit)
	auditor.reads("Succeeded: ", id, "ravi.menon@", "olga.lindqvist@")
	for kind, want := range map[string]int{"requested: ": 1, "approved (": 2, "Started: ": 1, "Succeeded: ": 1, "refused": 0} {
		if n := len(auditor.all(kind, id)); n != want {
			w.Errorf("the audit says %q of %s %d times, not %d", kind, id, n, want)
		}
	}
}

// Two approvals at one moment both count.
func TestTwoApproveAtOnce(t *testing.T) {
	w := begin(t, brisk)
	ravi, olga := w.as(sandbox.Ravi, sandbox.Approvals), w.as(sandbox.Olga, sandbox.Approvals)
	w.as(sandbox.Hanna, sandbox.HelpDesk).types("/entra-revoke-sessions @gloria laptop stolen")
	card := ravi.reads("waiting for approval", "0 of 2")
	olga.reads("waiting for approval", "0 of 2")
	var both sync.WaitGroup
	for _, h := range []*hands{ravi, olga} {
		both.Go(func() {
			if answer, err := h.p.Press(h.channel, card.TS, "approve", ""); err != nil || !answer.OK {
				t.Errorf("%s pressed approve: %+v %v", h.p.ID, answer, err)
			}
		})
	}
	both.Wait()
	w.settled2(requestID.FindString(card.Text()))
	if got := w.effects("revokeSignInSessions"); got != 1 {
		t.Errorf("the sessions were revoked %d times", got)
	}
}

// tries types or presses until Slack reaches the app, as a person would.
// It returns how often that failed.
func (w *world) tries(what string, do func() (sandbox.Answer, error)) (failed int) {
	w.Helper()
	w.until(what, func() bool {
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

// Slack's connection goes in the middle of the story, for each reason.
func TestDisconnects(t *testing.T) {
	t.Parallel()
	w := begin(t, brisk)
	hanna, ravi := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
	for _, reason := range []string{"warning", "refresh_requested", "link_disabled", "cut"} {
		before := w.effects("revokeSignInSessions")
		gone := func() {
			t.Helper()
			if err := w.client.Disconnect(reason); err != nil {
				t.Fatal(err)
			}
		}
		gone()
		failed := w.tries("a command after "+reason, func() (sandbox.Answer, error) {
			return hanna.p.Command(hanna.channel, "/entra-revoke-sessions @dana "+reason)
		})
		card := ravi.reads("waiting for approval", reason)
		gone()
		failed += w.tries("a press after "+reason, func() (sandbox.Answer, error) { return ravi.p.Press(ravi.channel, card.TS, "approve", "") })
		gone()
		// What failed for Slack may have arrived: only the answer was lost with the
		// connection. Then the next try is refused.
		w.settledAfter(requestID.FindString(card.Text()), 0, failed)
		if got := w.effects("revokeSignInSessions") - before; got != 1 {
			t.Errorf("%s: the sessions were revoked %d times", reason, got)
		}
	}
}

// Slack does not let the app in any more: the program ends and says why.
func TestSlackShutsTheDoor(t *testing.T) {
	for _, code := range []string{"invalid_auth", "not_allowed_token_type", "missing_scope", "access_denied"} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			w := begin(t, brisk)
			w.stop()
			if err := w.client.SetSlackFaults(slack.Fault{Method: "apps.connections.open", Kind: "error", Error: code}); err != nil {
				t.Fatal(err)
			}
			s := w.service
			s.up = func() { t.Error("it says that it is ready") }
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			err := s.run(ctx)
			if err == nil || !strings.Contains(err.Error(), "SLACK_APP_TOKEN") || !strings.Contains(err.Error(), code) {
				t.Errorf("the program ended with: %v", err)
			}
		})
	}
}

// A form that Slack does not open in time is offered again, with what was
// typed in it.
func TestTooLateForTheForm(t *testing.T) {
	w := begin(t, brisk)
	hanna := w.as(sandbox.Hanna, sandbox.HelpDesk)
	if err := w.client.SetSlackFaults(slack.Fault{Method: "views.open", Kind: "error", Error: "expired_trigger_id", Times: 1}); err != nil {
		t.Fatal(err)
	}
	hanna.types("/entra-require-reregister @dana ticket=INC-7 lost phone & <keys> *today*")
	offer := hanna.reads("What you typed is kept")
	if !offer.Ephemeral {
		t.Error("everybody reads that the form did not open")
	}
	hanna.presses(offer, "open-form")
	form := hanna.sees("How did you make sure who was asking?")
	for block, want := range map[string]any{"justification": "lost phone & <keys> *today*", "ticket": "INC-7", "target": sandbox.Dana} {
		if got := form.Inputs()[block][block]; got != want {
			t.Errorf("the form begins with the %s %q, not with what was typed", block, got)
		}
	}
	hanna.sees("For", "dana.whitfield@") // filled in behind
	if a := hanna.submits(form, map[string]string{"verified": "video"}); !a.OK {
		t.Fatalf("the form was not taken: %+v", a)
	}
	w.as(sandbox.Ravi, sandbox.Approvals).reads("waiting for approval", "lost phone & <keys> *today*", "INC-7")
}

// A form opens although its opening seems to fail, or what fills it is lost:
// it works as it is.
func TestLostViews(t *testing.T) {
	w := begin(t, brisk)
	hanna, ravi := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
	for n, f := range []slack.Fault{
		{Method: "views.open", Kind: "drop_reply", Times: 1},
		{Method: "views.update", Kind: "status", Times: 1},
		{Method: "views.update", Kind: "drop_reply", Times: 1},
	} {
		if err := w.client.SetSlackFaults(f); err != nil {
			t.Fatal(err)
		}
		why := fmt.Sprintf("story %d", n)
		hanna.types("/entra-require-reregister @dana " + why)
		form := hanna.sees("How did you make sure who was asking?")
		w.slackMissed() // or it would befall the details
		if a := hanna.submits(form, map[string]string{"verified": "video"}); !a.OK {
			t.Fatalf("the form was not taken: %+v", a)
		}
		card := ravi.reads("waiting for approval", why)
		// The reason of a denial and the details go the same way.
		ravi.presses(card, "details")
		ravi.sees("What will happen", why)
		ravi.presses(card, "deny")
		if a := ravi.submits(ravi.sees("A denial is final"), map[string]string{"reason": "no, " + why}); !a.OK {
			t.Fatalf("the denial was not taken: %+v", a)
		}
		hanna.dm().reads("denied", "no, "+why)
	}
	// The App Home that was not published is there the next time.
	for _, kind := range []string{"status", "drop_reply"} {
		if err := w.client.SetSlackFaults(slack.Fault{Method: "views.publish", Kind: kind, Times: 1}); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := hanna.p.Home(); err != nil {
				t.Fatal(err)
			}
		}
		w.slackMissed()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		home, err := hanna.p.WaitHome(ctx, func(v sandbox.View) bool { return v.Contains("On the desk", "Yours", "denied by", "What you may do") })
		cancel()
		if err != nil {
			t.Fatalf("Hanna waited for her App Home: %v", err)
		}
		_ = home
	}
}

// An answer reaches the person who asked, and nobody else, whichever of its
// ways is closed.
func TestAnswersArrive(t *testing.T) {
	w := begin(t, brisk)
	for n, c := range []struct {
		channel string
		direct  bool // it comes as a direct message
		faults  []slack.Fault
	}{
		{sandbox.HelpDesk, false, []slack.Fault{{Method: "response_url", Kind: "status", Status: 404}}},
		{sandbox.HelpDesk, false, []slack.Fault{{Method: "response_url", Kind: "drop_reply", Times: 1}}},
		{sandbox.HelpDesk, true, []slack.Fault{{Method: "response_url", Kind: "status"}, {Method: "chat.postEphemeral", Kind: "error"}}},
		{sandbox.General, false, nil}, // where the app is no member
		{sandbox.General, true, []slack.Fault{{Method: "response_url", Kind: "ratelimit", Times: 1}}}, // and the response URL is gone
	} {
		if err := w.client.SetSlackFaults(c.faults...); err != nil {
			t.Fatal(err)
		}
		hanna, name := w.as(sandbox.Hanna, c.channel), []string{"Dana Whitfield", "Mina Haddad", "Alex Morgan", "Bo Castellan", "Sam Ito"}[n]
		hanna.types("/entra-methods " + strings.ToLower(strings.Replace(name, " ", ".", 1)) + "@fernhill.example")
		if c.direct {
			hanna.dm().reads(name, "Authentication methods")
		} else if m := hanna.reads(name, "Authentication methods"); !m.Ephemeral {
			t.Errorf("everybody reads the methods of %s", name)
		}
		// After a lost reply it may come twice, the second time at any moment:
		// so what stays is told by what it is, not by reloading.
		for _, channel := range []string{sandbox.HelpDesk, sandbox.General} {
			for _, m := range w.as(sandbox.Hanna, channel).all("Authentication methods") {
				if !m.Ephemeral {
					t.Errorf("the methods of %s stay in %s", name, channel)
				}
			}
			if m := w.as(sandbox.Olga, channel).all("Authentication methods"); len(m) > 0 {
				t.Errorf("Olga reads the methods of %s in %s", name, channel)
			}
		}
	}
}

// hose is a TCP connection's way to Redis that can be stopped up.
type hose struct {
	addr string
	mu   sync.Mutex
	open chan struct{} // closed while things flow
}

func newHose(t *testing.T, to string) *hose {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &hose{addr: listener.Addr().String(), open: make(chan struct{})}
	close(h.open)
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
			open := h.open
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

func (h *hose) stopUp() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open = make(chan struct{})
}

func (h *hose) flow() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.open)
}

// The store does not answer: whoever types, presses or submits hears within
// Slack's three seconds that it could not be confirmed. Afterwards nothing is
// there twice.
func TestTheStoreHangs(t *testing.T) {
	t.Parallel()
	var way *hose
	w := begin(t, hasty, func(c *config) {
		way = newHose(t, strings.TrimPrefix(c.Redis.URL, "redis://"))
		c.Redis.URL = "redis://" + way.addr
	})
	hanna, ravi := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
	card := w.request("/entra-revoke-sessions @dana laptop stolen")
	hanna.types("/entra-require-reregister @dana lost phone")
	form := hanna.sees("How did you make sure who was asking?", "For", danaUPN)

	way.stopUp()
	if answer := hanna.types("/entra-revoke-sessions @mina <b>phone</b> stolen"); !strings.Contains(string(answer.Response), "could not be confirmed") {
		t.Errorf("the command was answered: %s", answer.Response)
	}
	hanna.reads("could not be confirmed", "You typed: /entra-revoke-sessions @mina <b>phone</b> stolen")
	ravi.presses(card, "approve")
	ravi.reads("Your press could not be confirmed")
	if a := hanna.submits(form, map[string]string{"verified": "video"}); a.OK || !strings.Contains(a.Errors["justification"], "could not be confirmed") {
		t.Errorf("the form was answered: %+v", a)
	}
	way.flow()

	// Impatient, they do it all again.
	hanna.types("/entra-revoke-sessions @mina <b>phone</b> stolen")
	ravi.presses(card, "approve")
	if a := hanna.submits(form, map[string]string{"verified": "video"}); !a.OK {
		t.Errorf("the form was not taken: %+v", a)
	}
	auditor := w.as(sandbox.Gloria, sandbox.Audit)
	auditor.reads("Succeeded: ", requestID.FindString(card.Text()))
	ravi.reads("waiting for approval", "mina.haddad@")
	ravi.reads("waiting for approval", "Require re-registration")
	if n := len(auditor.all("Succeeded: ")); n != 1 || w.effects("revokeSignInSessions") != 1 {
		t.Errorf("the sessions were revoked %d times, by %d requests", w.effects("revokeSignInSessions"), n)
	}
	w.until("the record of three requests", func() bool { return len(auditor.all("requested: ")) >= 3 })
	if n := len(auditor.all("requested: ")); n != 3 {
		t.Errorf("there were %d requests, not 3", n)
	}
}

// patch changes somebody's Slack account, or a channel, as an administrator
// of the workspace does.
func (w *world) patch(path, body string) {
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

// A Slack account that suddenly has somebody else's e-mail address speaks for
// nobody, whether it acts or is named.
func TestChangedEmail(t *testing.T) {
	w := begin(t, brisk)
	hanna, ravi, dana := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals), w.as(sandbox.Dana, sandbox.Approvals)
	hanna.types("/entra-revoke-sessions @mina laptop stolen")
	card := ravi.reads("waiting for approval", "mina.haddad@")
	ravi.presses(card, "details") // so that Ravi was seen, too
	ravi.sees("What will happen")
	auditor := w.as(sandbox.Gloria, sandbox.Audit)

	w.patch("people/"+sandbox.Dana, `{"email":"ravi.menon@fernhill.example"}`)
	dana.presses(card, "approve")
	dana.reads("does not trust it")
	auditor.reads("Dana Whitfield tried to approve and was refused", "does not trust it", requestID.FindString(card.Text()))
	auditor.reads("Alarm about Dana Whitfield", sandbox.Dana, "now has the e-mail address of Ravi Menon")

	w.patch("people/"+sandbox.Mina, `{"email":"alex.morgan@fernhill.example"}`)
	hanna.types("/entra-revoke-sessions @mina once more")
	hanna.reads("mentioned", "does not trust it")

	w.patch("people/"+sandbox.Hanna, `{"email":"olga.lindqvist@fernhill.example"}`)
	hanna.types("/entra-methods @alex")
	hanna.reads("of your Slack account", "does not trust it")
	if n := w.effects("revokeSignInSessions"); n != 0 {
		t.Errorf("the sessions were revoked %d times", n)
	}
}

// The approvals channel is shared with people outside while a request waits
// there: nobody decides in it, nothing new is asked, and no card is shown,
// until it is private again.
func TestChannelBecomesShared(t *testing.T) {
	w := begin(t, brisk)
	hanna, ravi := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
	card := w.request("/entra-revoke-sessions @dana laptop stolen")
	w.patch("channels/"+sandbox.Approvals, `{"shared":true}`)
	ravi.presses(card, "approve")
	// There are two sentences. Which one it is depends on whether the bot asked
	// Slack about the channel within the last two seconds.
	ravi.reads("This channel is ", "shared with people outside")
	w.as(sandbox.Gloria, sandbox.Audit).reads("ravi.menon@", "refused", "shared with people outside")
	hanna.types("/entra-revoke-sessions @mina phone stolen")
	hanna.reads("nothing was requested", "shared with people outside")

	w.patch("channels/"+sandbox.Approvals, `{"shared":false}`)
	ravi.presses(card, "approve")
	w.until("the end", func() bool {
		return len(w.as(sandbox.Gloria, sandbox.Audit).all("Succeeded: ", requestID.FindString(card.Text()))) == 1
	})
	ravi.reads("Revoke sessions: done", requestID.FindString(card.Text()))
}

// Nothing that people write becomes a mention, a link or formatting in Slack,
// wherever it is shown.
func TestNothingIsMarkup(t *testing.T) {
	w := begin(t, brisk)
	hanna, ravi := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
	const bait = "<!channel> <@U0GLORIA> <https://evil.example|Approve> *bold* `code` https://evil.example :tada:"
	hanna.types("/entra-require-reregister @dana")
	form := hanna.sees("How did you make sure who was asking?")
	if a := hanna.submits(form, map[string]string{"verified": "video", "justification": bait, "ticket": "<!here> *1*"}); !a.OK {
		t.Fatalf("the form was not taken: %+v", a)
	}
	card := ravi.reads("waiting for approval", bait, "<!here> *1*")
	ravi.presses(card, "deny")
	if a := ravi.submits(ravi.sees("A denial is final"), map[string]string{"reason": bait}); !a.OK {
		t.Fatalf("the denial was not taken: %+v", a)
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
			for _, m := range w.as(who, c.ID).all() {
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

// A person with more methods than any card can hold whole: every step is in
// sight, Details shows all of it, and it is carried out.
func TestManyMethods(t *testing.T) {
	t.Parallel()
	w := begin(t, brisk, func(c *config) { c.Timing.GraphCall, c.Timing.Lease = 10*time.Second, 35*time.Second })
	ravi := w.as(sandbox.Ravi, sandbox.Approvals)
	w.equip(danaUPN)
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
	w.settled(id, 0)
	hanna.types("/entra-requests " + id)
	hanna.reads("Journal")
	auditor := w.as(sandbox.Gloria, sandbox.Audit)
	if line := auditor.reads("Succeeded: ", id); !strings.HasSuffix(strings.TrimSpace(line.Text()), id) {
		t.Errorf("the record does not end with the request's id:\n%s", line.Text())
	}
}

// typed is how each command is typed for the test of permissions. Nobody is
// the target of two commands that would get into each other's way.
func typed(c commands.Command, without string) string {
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

// Without any one of its application permissions a command fails, and says
// which it is. That it works with these and no others is
// TestPermissionsAreThoseDemanded.
func TestEachPermission(t *testing.T) {
	t.Parallel()
	w := begin(t, brisk, func(c *config) { c.Policy.ReadsAMinute = 1000 })
	hanna, ravi, olga := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals), w.as(sandbox.Olga, sandbox.Approvals)
	// What a command only asks to be able to warn: without it, it warns of that.
	warns := map[string]string{"delete-app-passwords": "Policy.Read.All"}
	// does runs a command to its end, and gives all that people are told.
	does := func(c commands.Command, without string) (worked bool, told string) {
		t.Helper()
		if c.Name == "require-reregister" {
			w.equip("alex.morgan@fernhill.example")
		}
		if err := hanna.p.Reload(); err != nil {
			t.Fatal(err)
		}
		hanna.types(commands.Slash(defaultPrefix, c) + " " + typed(c, without))
		var answer sandbox.Message
		w.until("an answer to "+c.Name, func() bool {
			if all := hanna.all(); len(all) > 0 {
				answer = all[0]
			}
			return answer.Ephemeral
		})
		told = answer.Text()
		if !strings.Contains(told, "is requested as") {
			return answer.Contains("Authentication methods") || answer.Contains("On the desk") || answer.Contains("/entra-help [command]"), told
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
				t.Errorf("without %s, %s works (%t), or does not name it: %s", without, c.Name, worked, told)
			}
		}
	}
}

// process starts the bot of this world as a process of its own and gives a
// function that kills it the hard way.
func (w *world) process() (kill func()) {
	w.Helper()
	_, kill = w.command()
	return kill
}

// command is process for whoever does more to it than to kill it.
func (w *world) command() (cmd *exec.Cmd, kill func()) {
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

// soon polls for what does not show on the sandbox's stream.
func (w *world) soon(what string, so func() bool) {
	w.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !so(); <-tick.C {
		if time.Now().After(deadline) {
			w.Fatalf("waited for %s", what)
		}
	}
}

// The process is killed in the middle, and another one finishes: what was
// acked is not lost, and what was done is not done again.
func TestKilled(t *testing.T) {
	for name, story := range map[string]func(*world, func()) string{
		"before the command was looked at": func(w *world, dies func()) string {
			w.slackHangs("users.info", func() {
				w.as(sandbox.Hanna, sandbox.HelpDesk).types("/entra-require-reregister @dana verified=video why")
			})
			dies()
			return w.approved()
		},
		"before the card was posted": func(w *world, dies func()) string {
			w.slackHangs("chat.postMessage", func() {
				w.as(sandbox.Hanna, sandbox.HelpDesk).types("/entra-require-reregister @dana verified=video why")
			})
			dies()
			return w.approved()
		},
		"before the approval was looked at": func(w *world, dies func()) string {
			w.as(sandbox.Hanna, sandbox.HelpDesk).types("/entra-require-reregister @dana verified=video why")
			var id string
			w.as(sandbox.Ravi, sandbox.Approvals).reads("waiting for approval")
			w.slackHangs("users.info", func() { id = w.approved() })
			dies()
			return id
		},
		"in a call that Graph has not carried out": func(w *world, dies func()) string {
			w.as(sandbox.Hanna, sandbox.HelpDesk).types("/entra-require-reregister @dana verified=video why")
			w.as(sandbox.Ravi, sandbox.Approvals).reads("waiting for approval")
			w.graphHangs(entra.Fault{Method: http.MethodDelete, Path: "phoneMethods", Kind: entra.FaultHang})
			id := w.approved()
			w.graphHung()
			dies()
			return id
		},
		"behind a call that Graph has carried out": func(w *world, dies func()) string {
			w.as(sandbox.Hanna, sandbox.HelpDesk).types("/entra-require-reregister @dana verified=video why")
			w.as(sandbox.Ravi, sandbox.Approvals).reads("waiting for approval")
			// The first look at the methods is the check before the first step; the
			// second one asks what became of that step.
			w.graphHangs(entra.Fault{Method: http.MethodPost, Path: "deactivate", Kind: entra.FaultDropReply},
				entra.Fault{Method: http.MethodGet, Path: "authentication/methods", Kind: entra.FaultHang, Skip: 1})
			id := w.approved()
			w.graphHung()
			dies()
			return id
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := begin(t, hasty)
			w.equip(danaUPN)
			w.stop()
			kill := w.process()
			id := story(w, func() {
				kill()
				if err := w.client.SetSlackFaults(); err != nil {
					t.Fatal(err)
				}
				w.start()
			})
			w.settled(id, 0)
			for ends, times := range removals {
				if got := w.effects(ends); got != times {
					t.Errorf("%s was carried out %d times, not %d", ends, got, times)
				}
			}
		})
	}
}

// The process is killed when a look is on record and its answer is not out, and
// the next one cannot look: then that is the answer.
func TestKilledBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	w := begin(t, hasty)
	w.stop()
	kill := w.process()
	hanna := w.as(sandbox.Hanna, sandbox.HelpDesk)
	w.slackHangs("response_url", func() { hanna.types("/entra-methods @dana") })
	kill()
	if err := w.client.SetSlackFaults(); err != nil {
		t.Fatal(err)
	}
	w.graphHangs(entra.Fault{Kind: entra.FaultDropRequest, Method: http.MethodGet, Path: "/users", Times: -1})
	w.start()
	if m := hanna.reads("Microsoft Entra did not tell", "cannot be checked"); !m.Ephemeral {
		t.Error("everybody reads it")
	}
	auditor := w.as(sandbox.Gloria, sandbox.Audit)
	auditor.reads("hanna.okafor@", "looked at", danaUPN)
	if n := len(auditor.all("hanna.okafor@", "looked at", danaUPN)); n != 1 {
		t.Errorf("the look is on record %d times", n)
	}
}

// A process stands still for longer than its leases while its update of a card
// is on the way. When it goes on, the card shows an old state over the new one,
// and it looks again.
func TestStoodStillOverACard(t *testing.T) {
	t.Parallel()
	slackAPI, through := meddle(t)
	w := begin(t, hasty, through)
	w.stop()
	cmd, _ := w.command()
	w.as(sandbox.Hanna, sandbox.HelpDesk).types("/entra-revoke-sessions @dana laptop stolen")
	ravi := w.as(sandbox.Ravi, sandbox.Approvals)
	card := ravi.reads("waiting for approval", danaUPN)
	goOn := make(chan struct{})
	held := slackAPI.lose(loss{method: "chat.update", parts: []string{"channel=" + sandbox.Approvals, ": running"}, until: goOn})
	w.graphHangs(entra.Fault{Kind: entra.FaultHang, Method: http.MethodPost, Path: "/revokeSignInSessions"})
	ravi.presses(card, "approve")
	select {
	case <-held:
	case <-time.After(patience):
		t.Fatal("the card was not updated")
	}
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	w.start() // which takes the request over
	says := func(what string) func() bool {
		return func() bool { return len(ravi.all(danaUPN, what)) == 1 }
	}
	w.until("the card to be right", says(": done"))
	store := approvals.NewStore(w.redis.Client(t), w.service.secrets.Ring, w.service.config.Redis.Prefix, w.service.config.Timing)
	w.soon("the end of what there is to show", func() bool {
		lag, err := store.Lag(t.Context(), "cards")
		return err == nil && lag == 0
	})
	close(goOn)
	w.until("the late update", says(": running"))
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	w.until("the card to be right again", says(": done"))
}

// approved approves the one request that waits, and gives its id.
func (w *world) approved() string {
	w.Helper()
	ravi := w.as(sandbox.Ravi, sandbox.Approvals)
	card := ravi.reads("waiting for approval", danaUPN)
	ravi.presses(card, "approve")
	return requestID.FindString(card.Text())
}

// slackHangs lets Slack hang in calls of one method, and waits until what is
// done meanwhile has met that.
func (w *world) slackHangs(method string, meanwhile func()) {
	w.Helper()
	if err := w.client.SetSlackFaults(slack.Fault{Method: method, Kind: "hang"}); err != nil {
		w.Fatal(err)
	}
	meanwhile()
	w.soon("a call that hangs", func() bool {
		faults, err := w.client.SlackFaults()
		return err == nil && len(faults) == 1 && faults[0].Met > 0
	})
}

// slackMissed waits until every fault of Slack's has struck as often as it was
// to.
func (w *world) slackMissed() {
	w.Helper()
	w.soon("a call that is lost", func() bool {
		faults, err := w.client.SlackFaults()
		return err == nil && len(faults) == 0
	})
}

// graphHangs has Graph go wrong in these ways, and in no others.
func (w *world) graphHangs(faults ...entra.Fault) {
	w.Helper()
	if err := w.client.SetEntraFaults(faults...); err != nil {
		w.Fatal(err)
	}
}

func (w *world) graphHung() {
	w.Helper()
	w.soon("a call that hangs", func() bool {
		faults, err := w.client.EntraFaults()
		return err == nil && len(faults) == 0
	})
}
