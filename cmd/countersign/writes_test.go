package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"countersign/approvals"
	graph "countersign/entra"
	"countersign/internal/writes"
	"countersign/sandbox"
	"countersign/sandbox/entra"
	"countersign/sandbox/slack"
)

// sources are loaded once for all tests.
var sources = sync.OnceValues(writes.LoadSources)

// newSaboteur makes the saboteur between this fixture's bot and the other systems.
// Every write of the bot during a test has to be on the list of writes.
func (w *fixture) newSaboteur() *writes.Saboteur {
	w.Helper()
	s, err := sources()
	if err != nil {
		w.Fatal(err)
	}
	by := writes.NewSaboteur(s)
	w.Cleanup(func() {
		for _, stranger := range by.Strangers() {
			w.Errorf("%s is a write that is not on the list: add it to internal/writes", stranger)
		}
	})
	return by
}

// faultTransport is the bot's transport to Slack or to Graph. It asks the saboteur
// which writes to fail.
type faultTransport struct {
	to        http.RoundTripper
	by        *writes.Saboteur
	writeName func(*http.Request) string // the name of a call in the list of writes; empty for a read
	// hold returns a channel that is closed when failed calls may return. If held is
	// nil, they return at once.
	hold     func() <-chan struct{}
	redirect func(address string) string // replaces the address of the socket, if not nil
}

var errLost = errors.New("the connection was lost")

func (g *faultTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	name := g.writeName(r)
	var strike *writes.Strike
	if name != "" {
		strike = g.by.Next(name)
	}
	if strike != nil && strike.How == writes.NotApplied {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, g.lose(r, strike)
	}
	answer, err := g.to.RoundTrip(r)
	if strike != nil && err == nil {
		io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		return nil, g.lose(r, strike)
	}
	if err == nil && g.redirect != nil && path.Base(r.URL.Path) == "apps.connections.open" {
		return g.redirectSocket(answer)
	}
	return answer, err
}

func (g *faultTransport) lose(r *http.Request, strike *writes.Strike) error {
	strike.Hit()
	if g.hold != nil {
		select {
		case <-g.hold():
		case <-r.Context().Done():
		}
	}
	return errLost
}

func (g *faultTransport) redirectSocket(answer *http.Response) (*http.Response, error) {
	defer answer.Body.Close()
	var open map[string]any
	if err := json.NewDecoder(answer.Body).Decode(&open); err != nil {
		return nil, err
	}
	if address, ok := open["url"].(string); ok {
		open["url"] = g.redirect(address)
	}
	raw, err := json.Marshal(open)
	if err != nil {
		return nil, err
	}
	answer.Body, answer.ContentLength = io.NopCloser(bytes.NewReader(raw)), int64(len(raw))
	answer.Header.Del("Content-Length")
	return answer, nil
}

// slackWriteName returns the name of a call of the Web API: its method.
func slackWriteName(r *http.Request) string {
	if strings.HasPrefix(r.URL.Path, "/commands/") || strings.HasPrefix(r.URL.Path, "/actions/") {
		return "response_url"
	}
	method := path.Base(r.URL.Path)
	for _, asks := range []string{".info", ".list", ".test", ".lookupByEmail", ".getPermalink", "apps.connections.open"} {
		if strings.HasSuffix(method, asks) {
			return ""
		}
	}
	return method
}

// graphWriteName returns the name of a change: its endpoint.
func graphWriteName(r *http.Request) string {
	if r.Method == http.MethodGet || strings.Contains(r.URL.Path, "/oauth2/") {
		return ""
	}
	for _, e := range graphChanges() {
		template := regexp.MustCompile(`\\\{[a-z]+\\\}`).ReplaceAllString(regexp.QuoteMeta(e.Path), `[^/]+`)
		if e.Method == r.Method && regexp.MustCompile("^"+template+"$").MatchString(r.URL.Path) {
			return e.Method + " " + e.Path
		}
	}
	return r.Method + " " + r.URL.Path
}

// graphChanges returns the endpoints of Graph that change something.
func graphChanges() []graph.Endpoint {
	return slices.DeleteFunc(graph.Endpoints(), func(e graph.Endpoint) bool { return e.Method == http.MethodGet })
}

// Each write to Slack fails once, either before it arrives or after it was applied,
// and the bot is restarted at that point. In the end every request is executed once and
// its requester notified, its cards are correct and their buttons work, its secret was
// shown, and there is at most one duplicate of each kind of message.
func TestEverySlackWriteFailsBothWays(t *testing.T) {
	t.Parallel()
	writes.Pairs(t, writes.In("bot"), func(t *testing.T, how writes.How) func(*testing.T, writes.Write) {
		t.Parallel()
		s := newLossFixture(t, how)
		for _, story := range []func(*lossFixture){
			(*lossFixture).approvedRequest, (*lossFixture).deniedRequest, (*lossFixture).formAndHome, (*lossFixture).privateReply, (*lossFixture).revealedSecret, (*lossFixture).securityAlarm, (*lossFixture).manualStep,
			(*lossFixture).breakGlass, (*lossFixture).nobodyToNotify, (*lossFixture).expiry, (*lossFixture).lostAck, (*lossFixture).outage, (*lossFixture).lostWrites,
		} {
			story(s)
		}
		s.wantNothingPending()
		return func(t *testing.T, w writes.Write) {
			switch strike := s.strikes[w.Where]; {
			case strike == nil && strings.Contains(w.Where, " alarm ") && !s.redis.Real():
				t.Skip("this needs a real redis-server: apt-get install redis-server")
			case strike == nil || !strike.HasMet():
				t.Errorf("no scenario lost %s", w.What)
			}
		}
	})
}

// generousTimings gives everything time on a busy machine. A process that stops
// gracefully leaves no leases that another one would have to wait for.
func generousTimings(c *config) {
	t := &c.Timing
	t.LookUps, t.GraphCall, t.GraphGrace, t.Lease, t.Takeover = 10*time.Second, 10*time.Second, time.Second, 30*time.Second, 20*time.Second
}

// lossFixture is a fixture in which one write after the other is lost.
type lossFixture struct {
	*fixture
	how            writes.How
	strikes        map[string]*writes.Strike
	socket         *socketProxy
	redisProxy     *tcpProxy
	justifications int
}

func newLossFixture(t *testing.T, how writes.How) *lossFixture {
	s := &lossFixture{how: how, strikes: map[string]*writes.Strike{}, socket: newSocketProxy(t)}
	s.fixture = startBot(t, generousTimings, func(c *config) {
		c.Slack.SecurityChannel = sandbox.HelpDesk
		c.Timing.Remind, c.Timing.Outage = 2*time.Second, 2*time.Second
		s.redisProxy = newTCPProxy(t, strings.TrimPrefix(c.Redis.URL, "redis://"))
		c.Redis.URL = "redis://" + s.redisProxy.addr
	})
	s.stop()
	s.toSlack.redirect = s.socket.redirect // from now on the socket goes through the proxy
	s.start()
	return s
}

// arm makes these writes fail once. waitHit waits until they have failed, and restarts
// the bot after each.
func (s *lossFixture) arm(where ...string) (waitHit func()) {
	s.Helper()
	var armed []*writes.Strike
	for _, name := range where {
		i := slices.IndexFunc(writes.All(), func(w writes.Write) bool { return w.Where == "bot.Bot."+name })
		if i < 0 {
			s.Fatalf("%s is not on the list", name)
		}
		w := writes.All()[i]
		s.strikes[w.Where] = s.by.Arm(w, s.how)
		armed = append(armed, s.strikes[w.Where])
	}
	return func() {
		s.Helper()
		deadline := time.Now().Add(patience)
		for tick := time.NewTicker(5 * time.Millisecond); len(armed) > 0; <-tick.C {
			if before := len(armed); time.Now().After(deadline) {
				s.Fatalf("%s was not lost", armed[0].Write.What)
			} else if armed = slices.DeleteFunc(armed, (*writes.Strike).HasMet); len(armed) < before {
				s.restart()
			}
		}
	}
}

// newJustification returns a different justification each time.
func (s *lossFixture) newJustification() string {
	s.justifications++
	return fmt.Sprintf("scenario %d", s.justifications)
}

// allowedDuplicates is how many duplicates of a message are allowed: none if the failed
// write was not applied.
func (s *lossFixture) allowedDuplicates() int {
	if s.how == writes.Applied {
		return 1
	}
	return 0
}

func (s *lossFixture) hanna() *slackUser { return s.as(sandbox.Hanna, sandbox.HelpDesk) }
func (s *lossFixture) ravi() *slackUser  { return s.as(sandbox.Ravi, sandbox.Approvals) }
func (s *lossFixture) olga() *slackUser  { return s.as(sandbox.Olga, sandbox.Approvals) }

// submit submits a request as Hanna, and returns its card and id.
func (s *lossFixture) submit(line string) (sandbox.Message, string) {
	s.Helper()
	why := s.newJustification()
	s.hanna().types(line + " " + why)
	card := s.ravi().reads("waiting for approval", why)
	return card, requestID.FindString(card.Text())
}

// waitEnd waits until the audit channel and every card show that a request is over,
// each once or with one duplicate.
func (s *lossFixture) waitEnd(id, card string, kinds ...string) {
	s.Helper()
	auditor, hanna := s.as(sandbox.Gloria, sandbox.Audit), s.hanna().dm()
	for _, kind := range kinds {
		auditor.reads(kind, id)
		if n := len(auditor.messagesWith(kind, id)); n > 1+s.allowedDuplicates() {
			s.Errorf("the audit channel has %q of %s %d times", kind, id, n)
		}
	}
	for _, h := range []*slackUser{s.ravi(), hanna} {
		s.waitFor("the cards of "+id, func() bool {
			cards := h.messagesWith(id, "What ")
			return len(cards) > 0 && !slices.ContainsFunc(cards, func(m sandbox.Message) bool { return !m.Contains(card) })
		})
		if n := len(h.messagesWith(id, "What ")); n > 1+s.allowedDuplicates() {
			s.Errorf("%s sees %d cards of %s", h.p.ID, n, id)
		}
	}
}

// wantDone is waitEnd for a request that was executed.
func (s *lossFixture) wantDone(id string) {
	s.Helper()
	s.waitEnd(id, ": done", "requested: ", "approved (", "Started: ", "Succeeded: ")
	s.waitFor("the notification", func() bool { return len(s.hanna().dm().messagesWith("Done: ", id)) > 0 })
	if n := len(s.hanna().dm().messagesWith("Done: ", id)); n > 1+s.allowedDuplicates() {
		s.Errorf("Hanna was notified %d times that %s is done", n, id)
	}
}

// wantRevokedOnce checks that the sessions were revoked once since before.
func (s *lossFixture) wantRevokedOnce(before int) {
	s.Helper()
	if n := s.countChanges("revokeSignInSessions") - before; n != 1 {
		s.Errorf("the sessions were revoked %d times", n)
	}
}

// approvedRequest is a request, from the receipt to the end.
func (s *lossFixture) approvedRequest() {
	before, why := s.countChanges("revokeSignInSessions"), s.newJustification()
	waitHit := s.arm("replyPrivatelyOnce PostWebhookCustomHTTPContext", "showCard postDirect OpenConversationContext", "showCard postDirect PostMessageContext",
		"showCard PostMessageContext", "keepRecord PostMessageContext")
	s.hanna().types("/entra-revoke-sessions @dana " + why)
	waitHit()
	ravi, hanna := s.ravi(), s.hanna()
	id := requestID.FindString(ravi.reads("waiting for approval", why).Text())
	hanna.reads("is requested as", id)
	s.waitFor("the receipts", func() bool { return len(hanna.dm().messagesWith(id, "What will happen")) == 1+s.allowedDuplicates() })
	s.waitFor("the cards", func() bool { return len(ravi.messagesWith(id, "What will happen")) == 1+s.allowedDuplicates() })

	waitHit = s.arm("showCard show#1 UpdateMessageContext", "showCard show#2 UpdateMessageContext", "notifyRequester postDirect OpenConversationContext", "notifyRequester postDirect PostMessageContext")
	ravi.presses(ravi.messagesWith("waiting for approval", why)[0], "approve") // the duplicate, if there are two
	waitHit()
	s.waitFor("the end", func() bool { return len(hanna.dm().messagesWith("Done: ", id)) > 0 })
	for _, spare := range hanna.dm().messagesWith(id, "waiting for approval") {
		hanna.dm().presses(spare, "cancel") // the bot learns of the duplicate by a click on it
	}
	s.wantDone(id)
	s.wantRevokedOnce(before)
}

// deniedRequest is a click that is refused, then the details, and a denial with its
// form.
func (s *lossFixture) deniedRequest() {
	card, id := s.submit("/entra-revoke-sessions @dana")
	ravi := s.ravi()
	waitHit := s.arm("redrawCard UpdateMessageContext")
	s.as(sandbox.Hanna, sandbox.Approvals).presses(card, "approve")
	waitHit()
	s.as(sandbox.Gloria, sandbox.Audit).reads("hanna.okafor@", "tried to approve and was refused", id)

	waitHit = s.arm("openDetails open OpenViewContext")
	ravi.presses(card, "details")
	waitHit()
	waitHit = s.arm("openDetails fill UpdateViewContext")
	ravi.presses(card, "details")
	waitHit()
	ravi.presses(card, "details")
	ravi.sees("What will happen", id)

	waitHit = s.arm("openDeny open OpenViewContext")
	ravi.presses(card, "deny")
	waitHit()
	if s.how == writes.NotApplied {
		ravi.reads("Press Deny again")
	} else {
		s.must(ravi.p.Close(ravi.sees("A denial is final", id).ID))
	}
	waitHit = s.arm("fillForm fill UpdateViewContext")
	ravi.presses(card, "deny")
	waitHit()
	if a := ravi.submits(ravi.sees("A denial is final", id), map[string]string{"reason": "no, " + id}); !a.OK {
		s.Fatalf("the denial was not accepted: %+v", a)
	}
	s.hanna().dm().reads("denied", "no, "+id)
	s.waitEnd(id, "Denied by", "requested: ", " denied: ")
}

// formAndHome is a form, which works although the call that opens or fills it failed;
// and an App Home.
func (s *lossFixture) formAndHome() {
	hanna, why := s.hanna(), s.newJustification()
	waitHit := s.arm("openForm open OpenViewContext")
	hanna.types("/entra-require-reregister @mina " + why)
	waitHit()
	offer := hanna.reads("What you typed is kept")
	if s.how == writes.Applied {
		hanna.sees("How did you make sure who was asking?")
	}
	waitHit = s.arm("openForm fill UpdateViewContext")
	hanna.presses(offer, "open-form")
	waitHit()
	if a := hanna.submits(hanna.sees("How did you make sure who was asking?"), map[string]string{"verified": "video"}); !a.OK {
		s.Fatalf("the form was not accepted: %+v", a)
	}
	id := requestID.FindString(s.ravi().reads("waiting for approval", why).Text())
	hanna.dm().presses(hanna.dm().reads("waiting for approval", why), "cancel")
	s.waitEnd(id, ": cancelled", "requested: ", " cancelled: ")

	waitHit = s.arm("publishHome PublishViewContext")
	s.must(hanna.p.Home())
	waitHit()
	s.must(hanna.p.Home())
	s.waitFor("Hanna's App Home", func() bool {
		views, err := hanna.p.Views()
		s.must(err)
		return views.Home != nil && views.Home.Contains("Open requests", "Yours", id)
	})
}

// privateReply is a private answer, whose ways of delivery fail one after the other.
// It may be lost, because the person can repeat the command.
func (s *lossFixture) privateReply() {
	hanna := s.hanna()
	closed := []slack.Fault{{Method: "response_url", Kind: "status", Status: 404}, {Method: "chat.postEphemeral", Kind: "error"}}
	for n, way := range []string{"replyPrivatelyOnce PostEphemeralContext", "replyPrivatelyOnce postDirect OpenConversationContext", "replyPrivatelyOnce postDirect PostMessageContext"} {
		s.must(s.client.SetSlackFaults(closed[:min(n+1, 2)]...))
		waitHit := s.arm(way)
		hanna.types("/entra-requests mine")
		waitHit()
		s.must(s.client.SetSlackFaults())
		s.must(hanna.p.Reload())
		hanna.types("/entra-requests mine")
		hanna.reads("Your requests")
	}
}

// revealedSecret is a pass: the calls that open and fill its view are lost, and so is
// the message that there is nothing left to reveal.
func (s *lossFixture) revealedSecret() {
	hanna, ravi := s.hanna().dm(), s.ravi()
	card, id := s.submit("/entra-issue-pass @alex verified=video")
	ravi.presses(card, "approve")
	offer := hanna.reads("Done: ", id, "Reveal")
	s.wantDone(id)
	secrets, err := s.client.Secrets("alex.morgan@fernhill.example")
	s.must(err)
	for _, where := range []string{"openSecret open OpenViewContext", "openSecret fill#2 UpdateViewContext"} {
		waitHit := s.arm(where)
		hanna.presses(offer, "reveal")
		waitHit()
	}
	// A view that is still open would be mistaken for that of the next click.
	left, err := hanna.p.Views()
	s.must(err)
	for _, v := range left.Modals {
		s.must(hanna.p.Close(v.ID))
	}
	hanna.presses(offer, "reveal")
	view := hanna.sees("For your eyes only", secrets.Pass)
	s.waitFor("the end of the sealed copy", func() bool {
		for key := range s.redis.Dump(s.T) {
			if strings.Contains(key, "secret:"+id) {
				return false
			}
		}
		return true
	})
	s.must(hanna.p.Close(view.ID))
	s.as(sandbox.Gloria, sandbox.Audit).reads("opened the secret", id)

	waitHit := s.arm("openSecret fill#1 UpdateViewContext")
	hanna.presses(offer, "reveal")
	waitHit()
	hanna.presses(offer, "reveal")
	hanna.sees("There is nothing left to open")
	s.wantSecretNowhere(secrets.Pass, "after it was shown")
}

// securityAlarm is a request for a protected target.
func (s *lossFixture) securityAlarm() {
	waitHit := s.arm("notifyRequester warn PostMessageContext")
	s.hanna().types("/entra-issue-pass @gloria verified=video " + s.newJustification())
	waitHit()
	s.waitFor("the message in the security channel", func() bool { return len(s.hanna().messagesWith("was refused", "protected target")) > 0 })
	if n := len(s.hanna().messagesWith("was refused", "protected target")); n > 1+s.allowedDuplicates() {
		s.Errorf("the security channel has it %d times", n)
	}
}

// manualStep is a manual step, of which people are reminded until it is done.
func (s *lossFixture) manualStep() {
	ravi, olga := s.ravi(), s.olga()
	card, id := s.submit("/entra-delete-app-passwords @mina verified=callback")
	waitHit := s.arm("remind note PostMessageContext")
	ravi.presses(card, "approve")
	waitHit()
	ravi.reads("Still to be done by hand", id)
	ravi.presses(ravi.reads("to be done by hand", id, "What will happen"), "attest")
	olga.presses(olga.reads("to be confirmed by somebody else", id), "confirm")
	s.waitEnd(id, "done by hand and confirmed", "requested: ", "approved (")
}

// breakGlass is a break-glass request: everybody who could have approved is notified,
// and reminders are sent until the review.
func (s *lossFixture) breakGlass() {
	before, ravi, olga, hanna := s.countChanges("revokeSignInSessions"), s.ravi(), s.olga(), s.hanna()
	card, id := s.submit("/entra-revoke-sessions @dana")
	for _, where := range []string{"openBreakGlass open OpenViewContext", "fillForm fill UpdateViewContext"} {
		waitHit := s.arm(where)
		olga.presses(card, "break-glass")
		waitHit()
	}
	waitHit := s.arm("alert postToApprovals#1 PostMessageContext", "alert warn PostMessageContext", "alert postDirect OpenConversationContext", "alert postDirect PostMessageContext", "alert UpdateMessageContext",
		"notifyBreakGlassUser postDirect OpenConversationContext", "notifyBreakGlassUser postDirect PostMessageContext", "remindReview note PostMessageContext")
	if a := olga.submits(olga.sees("What happens when you use break-glass"), map[string]string{"reason": "cannot wait"}); !a.OK {
		s.Fatalf("break-glass was not accepted: %+v", a)
	}
	waitHit()
	card = ravi.reads("review due", id)
	s.waitFor("everybody to be notified", func() bool {
		return len(ravi.messagesWith("Break-glass used by", id, "told by direct message")) > 0 && len(ravi.dm().messagesWith("You could have approved it", id)) > 0 &&
			len(hanna.dm().messagesWith("used break-glass for your request", id)) > 0 && len(olga.dm().messagesWith("You used break-glass for it", "Done: ", id)) > 0 &&
			len(ravi.messagesWith("Still to be reviewed", id)) > 0 && len(hanna.messagesWith("used break-glass", "cannot wait", id)) > 0
	})
	for _, where := range []string{"openReview open OpenViewContext", "fillForm fill UpdateViewContext"} {
		waitHit := s.arm(where)
		ravi.presses(card, "justified")
		waitHit()
	}
	waitHit = s.arm("reviewed postDirect OpenConversationContext", "reviewed postDirect PostMessageContext")
	if a := ravi.submits(ravi.sees("You say with your name"), nil); !a.OK {
		s.Fatalf("the review was not accepted: %+v", a)
	}
	waitHit()
	for _, h := range []*slackUser{hanna.dm(), olga.dm()} {
		h.reads("found it justified", id)
	}
	s.waitEnd(id, "done with break-glass, justified", "requested: ", "used break-glass", "Started: ", "Succeeded: ", "reviewed")
	for h, says := range map[*slackUser]string{ravi: "Somebody else has to say on its card", ravi.dm(): "You could have approved it", hanna.dm(): "used break-glass for your request", olga.dm(): "You used break-glass for it"} {
		if n := len(h.messagesWith(says, "cannot wait", id)); h != ravi && n > 1+s.allowedDuplicates() {
			s.Errorf("%s reads %q %d times", h.p.ID, says, n)
		}
	}
	s.wantRevokedOnce(before)
}

// nobodyToNotify is a break-glass request for which the people who could have approved
// cannot be looked up, so the whole channel is notified.
func (s *lossFixture) nobodyToNotify() {
	s.must(s.client.SetEntraFaults(entra.Fault{Method: http.MethodGet, Path: "transitiveMembers", Times: -1, Kind: entra.FaultStatus, Status: 403, Code: "Authorization_RequestDenied"}))
	waitHit := s.arm("alert postToApprovals#2 PostMessageContext")
	s.olga().types("/entra-block-signin @alex break-glass " + s.newJustification())
	waitHit()
	all := s.ravi().reads("@channel", "Who could have approved it could not be looked up", "alex.morgan@")
	id := requestID.FindString(all.Text())
	if n := len(s.ravi().messagesWith("@channel", id)); n > 1+s.allowedDuplicates() {
		s.Errorf("the whole channel was notified %d times", n)
	}
	s.must(s.client.SetEntraFaults())
	waitHit = s.arm("reviewed warn PostMessageContext")
	if a := s.ravi().review(s.ravi().reads("review due", id), "not-justified", "it could have waited"); !a.OK {
		s.Fatalf("the review was not accepted: %+v", a)
	}
	waitHit()
	s.ravi().reads("done with break-glass, not justified", id)
	s.hanna().reads("reviewed what ran with break-glass", "not justified", id) // the security channel
	s.account("alex.morgan@fernhill.example", func(u sandbox.User) bool { return !u.Enabled })
}

// expiry is a request that nobody decides and that is about to expire.
func (s *lossFixture) expiry() {
	_, id := s.submit("/entra-require-reregister @mina verified=video")
	waitHit := s.arm("remindExpiry postToApprovals PostMessageContext", "remindExpiry postDirect OpenConversationContext", "remindExpiry postDirect PostMessageContext")
	s.expires(id, time.Now().Add(2*patience)) // simulates that most of its time has passed
	waitHit()
	s.ravi().reads(id, "expires", "with 0 of 1 approvals")
	s.hanna().dm().reads(id, "expires", "A reminder was posted in the approvals channel")
	s.hanna().dm().presses(s.hanna().dm().reads("waiting for approval", id), "cancel")
	s.waitEnd(id, ": cancelled", "requested: ", " cancelled: ")
	if n := len(s.ravi().messagesWith(id, "expires", "with 0 of 1 approvals")); n > 2+s.allowedDuplicates() { // one of them is the card
		s.Errorf("the approvers were reminded %d times", n-1)
	}
}

// lostAck is a command whose ack does not reach Slack, which then tells the user that
// the command failed; or it does, and the socket is lost.
func (s *lossFixture) lostAck() {
	before, why := s.countChanges("revokeSignInSessions"), s.newJustification()
	w := writes.All()[slices.IndexFunc(writes.All(), func(w writes.Write) bool { return w.Where == "bot.Bot.ack AckCtx" })]
	strike := s.by.Arm(w, s.how)
	s.strikes[w.Where] = strike
	s.socket.cutAtNextAck(s.how == writes.Applied, strike.Hit)
	answered := make(chan sandbox.Answer, 1)
	go func() {
		answer, err := s.hanna().p.Command(sandbox.HelpDesk, "/entra-revoke-sessions @dana "+why)
		if err != nil {
			s.Errorf("a command: %v", err)
		}
		answered <- answer
	}()
	select {
	case <-strike.Met():
	case <-time.After(patience):
		s.Fatal("no ack was lost")
	}
	s.restart()
	answer := <-answered
	card := s.ravi().reads("waiting for approval", why)
	if !answer.OK { // so the user types it again
		s.hanna().types("/entra-revoke-sessions @dana " + why)
		s.hanna().reads("asked for the same", requestID.FindString(card.Text()))
	}
	s.ravi().presses(card, "approve")
	s.wantDone(requestID.FindString(card.Text()))
	s.wantRevokedOnce(before)
}

// outage is a Redis that does not answer. The bot posts a message about it, and again
// when it is over.
func (s *lossFixture) outage() {
	before := s.countChanges("revokeSignInSessions")
	waitHit := s.arm("announceOutage announce PostMessageContext")
	s.redisProxy.pause()
	s.pollUntil("the message to be lost", func() bool { return s.strikes["bot.Bot.announceOutage announce PostMessageContext"].HasMet() })
	s.redisProxy.resume()
	waitHit()
	for _, where := range []string{"announceRecovery announce PostMessageContext", "announceRecovery UpdateMessageContext"} {
		waitHit := s.arm(where)
		told := len(s.ravi().messagesWith("has not been able to reach its Redis since"))
		s.redisProxy.pause()
		s.waitFor("the message", func() bool { return len(s.ravi().messagesWith("has not been able to reach its Redis since")) > told })
		s.redisProxy.resume()
		waitHit()
	}
	card, id := s.submit("/entra-revoke-sessions @dana")
	s.ravi().presses(card, "approve")
	s.wantDone(id)
	s.wantRevokedOnce(before)
}

// lostWrites is a Redis that is restored from an older copy. Each process that starts
// notifies people, too, until an administrator resumes.
func (s *lossFixture) lostWrites() {
	if !s.redis.Real() {
		return // miniredis cannot save and restore its data
	}
	restore := s.redis.Save(s.T)
	s.hanna().types("/entra-requests pending")
	s.hanna().reads("Open requests")
	waitHit := s.arm("notifyLostWrites alarm PostMessageContext")
	restore()
	waitHit()
	// A process that starts then notifies, too: it does not know what the last one has posted.
	s.waitFor("the message", func() bool {
		return len(s.hanna().messagesWith("Countersign has stopped")) == 1+s.allowedDuplicates() && len(s.ravi().messagesWith("Countersign has stopped")) > 0
	})
	store := approvals.NewStore(s.redis.Client(s.T), s.service.secrets.Ring, s.service.config.Redis.Prefix, s.service.config.Timing)
	list, err := store.LostWrites(s.Context())
	s.must(err)
	waitHit = s.arm("notifyResumed alarm PostMessageContext")
	s.must(store.Resume(s.Context(), list, "The operator"))
	waitHit()
	before := s.countChanges("revokeSignInSessions")
	card, id := s.submit("/entra-revoke-sessions @dana")
	s.ravi().presses(card, "approve")
	s.wantDone(id)
	s.wantRevokedOnce(before)
}

// wantNothingPending checks that nothing waits any more.
func (s *lossFixture) wantNothingPending() {
	s.must(s.hanna().p.Reload())
	s.hanna().types("/entra-requests pending")
	s.hanna().reads("Nothing is waiting")
}

// Each change through Graph fails once, either before it arrives or after it was
// applied, while the process stops. Another process continues: in the end every account
// is correct, with as few changes as possible, every secret can be revealed, and
// everybody is notified.
func TestEveryGraphWriteFailsBothWays(t *testing.T) {
	t.Parallel()
	list := writes.In("entra")
	for _, e := range graphChanges() {
		if name := e.Method + " " + e.Path; !slices.ContainsFunc(list, func(w writes.Write) bool { return w.API == name }) {
			t.Errorf("%s is in entra.Endpoints and not on the list", name)
		}
	}
	for _, w := range list {
		if !slices.ContainsFunc(graphChanges(), func(e graph.Endpoint) bool { return w.API == e.Method+" "+e.Path }) {
			t.Errorf("%s is on the list and not in entra.Endpoints", w.API)
		}
	}
	writes.Pairs(t, writes.In("entra"), func(t *testing.T, how writes.How) func(*testing.T, writes.Write) {
		t.Parallel()
		all := slices.DeleteFunc(append(mutations(), removalCases()...), func(d mutation) bool {
			elsewhere := []string{"allow-signin", "remove-office", "remove-authenticator", "remove-software-token"} // covered by others
			return d.isManual() || d.compromised || d.args == "everything" || slices.Contains(elsewhere, d.name)
		})
		s := newActionFixture(t, all, nil, generousTimings)
		stopped := &barrier{open: make(chan struct{})}
		s.toGraph.hold = stopped.wait
		strikes := map[writes.Write]*writes.Strike{}
		for _, w := range list {
			strikes[w] = s.by.Arm(w, how)
		}
		s.submitAll(all)
		scenarios := s.findScenarios(all)
		s.approve(scenarios)

		for left := list; len(left) > 0; {
			before := len(left)
			s.pollUntil(fmt.Sprintf("one of these to be lost: %v", left), func() bool {
				left = slices.DeleteFunc(slices.Clone(left), func(w writes.Write) bool { return strikes[w].HasMet() })
				return len(left) < before
			})
			ended := make(chan struct{})
			go func() { defer close(ended); s.stop() }()
			stopped.release() // the running calls fail now
			<-ended
			s.start()
		}
		for _, p := range scenarios {
			times := 1
			if p.repeats && how == writes.Applied {
				times = 2 // sent again unchanged, because its effect cannot be read
			}
			s.wantSuccess(p, times)
		}
		return func(t *testing.T, w writes.Write) {
			if !strikes[w].HasMet() {
				t.Errorf("this write was never lost: %s", w.What)
			}
		}
	})
}

// barrier holds callers until release, and can be used again.
type barrier struct {
	mu   sync.Mutex
	open chan struct{}
}

func (l *barrier) wait() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

func (l *barrier) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.open)
	l.open = make(chan struct{})
}

// socketProxy is a proxy for the socket to Slack. It can cut the connection at an ack.
type socketProxy struct {
	listener   net.Listener
	mu         sync.Mutex
	host       string
	forwardAck bool
	onCut      func()
}

func newSocketProxy(t *testing.T) *socketProxy {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &socketProxy{listener: listener}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			w.mu.Lock()
			to := w.host
			w.mu.Unlock()
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			go func() { io.Copy(in, out); in.Close() }()
			go w.pump(out, in)
		}
	}()
	return w
}

// redirect makes the socket use this proxy.
func (w *socketProxy) redirect(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.host = u.Host
	u.Host = w.listener.Addr().String()
	return u.String()
}

// cutAtNextAck cuts the connection at the next ack; if carried, after forwarding it.
func (w *socketProxy) cutAtNextAck(carried bool, cut func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forwardAck, w.onCut = carried, cut
}

// pump forwards what the bot sends. slack-go writes each frame in one call, and its
// text frames are acks.
func (w *socketProxy) pump(out, in net.Conn) {
	defer out.Close()
	defer in.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := in.Read(buffer)
		if err != nil {
			return
		}
		w.mu.Lock()
		cut, carries := w.onCut, w.forwardAck
		if ack := buffer[0] == 0x81; !ack {
			cut = nil
		}
		if cut != nil {
			w.onCut = nil
		}
		w.mu.Unlock()
		if cut == nil || carries {
			if _, err := out.Write(buffer[:n]); err != nil {
				return
			}
		}
		if cut != nil {
			cut()
			return
		}
	}
}
