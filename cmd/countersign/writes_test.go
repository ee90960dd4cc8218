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

// sources are read once for all tests.
var sources = sync.OnceValues(writes.LoadSources)

// saboteur stands between this world's bot and the other systems. Whatever
// the bot sends there during a test has to be on the list of writes.
func (w *world) saboteur() *writes.Saboteur {
	w.Helper()
	s, err := sources()
	if err != nil {
		w.Fatal(err)
	}
	by := writes.NewSaboteur(s)
	w.Cleanup(func() {
		for _, stranger := range by.Strangers() {
			w.Errorf("%s is a write that is on no list: enter it in internal/writes", stranger)
		}
	})
	return by
}

// gate is the way to Slack or to Graph, past the saboteur.
type gate struct {
	to    http.RoundTripper
	by    *writes.Saboteur
	names func(*http.Request) string // what a call is in the list; empty for one that asks
	// held is closed when calls that have failed may say so: until then nobody
	// hears of it. Nil for at once.
	held func() <-chan struct{}
	link func(address string) string // where the socket is to be, instead; nil for where it is
}

var errLost = errors.New("the connection was lost")

func (g *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	name := g.names(r)
	var strike *writes.Strike
	if name != "" {
		strike = g.by.Next(name)
	}
	if strike != nil && strike.How == writes.NotApplied {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, g.loses(r, strike)
	}
	answer, err := g.to.RoundTrip(r)
	if strike != nil && err == nil {
		io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		return nil, g.loses(r, strike)
	}
	if err == nil && g.link != nil && path.Base(r.URL.Path) == "apps.connections.open" {
		return g.linked(answer)
	}
	return answer, err
}

func (g *gate) loses(r *http.Request, strike *writes.Strike) error {
	strike.Hit()
	if g.held != nil {
		select {
		case <-g.held():
		case <-r.Context().Done():
		}
	}
	return errLost
}

func (g *gate) linked(answer *http.Response) (*http.Response, error) {
	defer answer.Body.Close()
	var open map[string]any
	if err := json.NewDecoder(answer.Body).Decode(&open); err != nil {
		return nil, err
	}
	if address, ok := open["url"].(string); ok {
		open["url"] = g.link(address)
	}
	raw, err := json.Marshal(open)
	if err != nil {
		return nil, err
	}
	answer.Body, answer.ContentLength = io.NopCloser(bytes.NewReader(raw)), int64(len(raw))
	answer.Header.Del("Content-Length")
	return answer, nil
}

// inSlack names a call of the Web API by its method.
func inSlack(r *http.Request) string {
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

// inGraph names a change by the endpoint that it is.
func inGraph(r *http.Request) string {
	if r.Method == http.MethodGet || strings.Contains(r.URL.Path, "/oauth2/") {
		return ""
	}
	for _, e := range changes() {
		template := regexp.MustCompile(`\\\{[a-z]+\\\}`).ReplaceAllString(regexp.QuoteMeta(e.Path), `[^/]+`)
		if e.Method == r.Method && regexp.MustCompile("^"+template+"$").MatchString(r.URL.Path) {
			return e.Method + " " + e.Path
		}
	}
	return r.Method + " " + r.URL.Path
}

// changes are the endpoints of Graph with which something is changed.
func changes() []graph.Endpoint {
	return slices.DeleteFunc(graph.Endpoints(), func(e graph.Endpoint) bool { return e.Method == http.MethodGet })
}

// Each thing that Countersign shows in Slack is lost once, before it gets
// there or only the reply, and the bot is started again there. In the end every
// request is done once and told of, its cards are right and can be pressed, its
// secret was shown, and there is at most one message of a kind too many.
func TestEveryWriteToSlackHasItsPair(t *testing.T) {
	t.Parallel()
	writes.Pairs(t, writes.In("bot"), func(t *testing.T, how writes.How) func(*testing.T, writes.Write) {
		t.Parallel()
		s := besiege(t, how)
		for _, story := range []func(*siege){
			(*siege).aRequest, (*siege).aDenial, (*siege).aForm, (*siege).anAnswer, (*siege).aSecret, (*siege).anAlarm, (*siege).byHand,
			(*siege).brokenGlass, (*siege).nobodyToTell, (*siege).runningOut, (*siege).anAck, (*siege).anOutage, (*siege).backInTime,
		} {
			story(s)
		}
		s.nothingIsLeft()
		return func(t *testing.T, w writes.Write) {
			switch strike := s.strikes[w.Where]; {
			case strike == nil && strings.Contains(w.Where, " alarm ") && !s.redis.Real():
				t.Skip("this needs a real redis-server: apt-get install redis-server")
			case strike == nil || !strike.HasMet():
				t.Errorf("no story lost %s", w.What)
			}
		}
	})
}

// unhurried gives everything time on a busy machine. Whoever stops in order
// leaves nothing behind that somebody would have to wait for.
func unhurried(c *config) {
	t := &c.Timing
	t.LookUps, t.GraphCall, t.GraphGrace, t.Lease, t.Takeover = 10*time.Second, 10*time.Second, time.Second, 30*time.Second, 20*time.Second
}

// siege is a world in which one write after the other is lost.
type siege struct {
	*world
	how     writes.How
	strikes map[string]*writes.Strike
	wire    *wire
	line    *hose
	stories int
}

func besiege(t *testing.T, how writes.How) *siege {
	s := &siege{how: how, strikes: map[string]*writes.Strike{}, wire: newWire(t)}
	s.world = begin(t, unhurried, func(c *config) {
		c.Slack.SecurityChannel = sandbox.HelpDesk
		c.Timing.Remind, c.Timing.Outage = 2*time.Second, 2*time.Second
		s.line = newHose(t, strings.TrimPrefix(c.Redis.URL, "redis://"))
		c.Redis.URL = "redis://" + s.line.addr
	})
	s.stop()
	s.toSlack.link = s.wire.link // from now on its socket is on the wire
	s.start()
	return s
}

// arms has these writes fail once, and meets waits until they have, and starts
// the bot again behind each.
func (s *siege) arms(where ...string) (meets func()) {
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

// why is another justification each time.
func (s *siege) why() string {
	s.stories++
	return fmt.Sprintf("story %d", s.stories)
}

// spare is how many messages of a kind there may be too many: none where they
// never arrived.
func (s *siege) spare() int {
	if s.how == writes.Applied {
		return 1
	}
	return 0
}

func (s *siege) hanna() *hands { return s.as(sandbox.Hanna, sandbox.HelpDesk) }
func (s *siege) ravi() *hands  { return s.as(sandbox.Ravi, sandbox.Approvals) }
func (s *siege) olga() *hands  { return s.as(sandbox.Olga, sandbox.Approvals) }

// asks has Hanna ask for something, and gives the card of it.
func (s *siege) asks(line string) (sandbox.Message, string) {
	s.Helper()
	why := s.why()
	s.hanna().types(line + " " + why)
	card := s.ravi().reads("waiting for approval", why)
	return card, requestID.FindString(card.Text())
}

// ends waits until a request is over for everybody: on the record, in the news,
// on every card, each once or once too often.
func (s *siege) ends(id, card string, kinds ...string) {
	s.Helper()
	auditor, hanna := s.as(sandbox.Gloria, sandbox.Audit), s.hanna().dm()
	for _, kind := range kinds {
		auditor.reads(kind, id)
		if n := len(auditor.all(kind, id)); n > 1+s.spare() {
			s.Errorf("the record says %q of %s %d times", kind, id, n)
		}
	}
	for _, h := range []*hands{s.ravi(), hanna} {
		s.until("the cards of "+id, func() bool {
			cards := h.all(id, "What ")
			return len(cards) > 0 && !slices.ContainsFunc(cards, func(m sandbox.Message) bool { return !m.Contains(card) })
		})
		if n := len(h.all(id, "What ")); n > 1+s.spare() {
			s.Errorf("%s sees %d cards of %s", h.p.ID, n, id)
		}
	}
}

// done is ends for what was carried out.
func (s *siege) done(id string) {
	s.Helper()
	s.ends(id, ": done", "requested: ", "approved (", "Started: ", "Succeeded: ")
	s.until("the news", func() bool { return len(s.hanna().dm().all("Done: ", id)) > 0 })
	if n := len(s.hanna().dm().all("Done: ", id)); n > 1+s.spare() {
		s.Errorf("Hanna was told %d times that %s is done", n, id)
	}
}

// once checks that the sessions were revoked once since before.
func (s *siege) once(before int) {
	s.Helper()
	if n := s.effects("revokeSignInSessions") - before; n != 1 {
		s.Errorf("the sessions were revoked %d times", n)
	}
}

// A request, from the receipt to the end.
func (s *siege) aRequest() {
	before, why := s.effects("revokeSignInSessions"), s.why()
	meets := s.arms("whisperOne PostWebhookCustomHTTPContext", "showCard direct OpenConversationContext", "showCard direct PostMessageContext",
		"showCard PostMessageContext", "keepRecord PostMessageContext")
	s.hanna().types("/entra-revoke-sessions @dana " + why)
	meets()
	ravi, hanna := s.ravi(), s.hanna()
	id := requestID.FindString(ravi.reads("waiting for approval", why).Text())
	hanna.reads("is requested as", id)
	s.until("the receipts", func() bool { return len(hanna.dm().all(id, "What will happen")) == 1+s.spare() })
	s.until("the cards", func() bool { return len(ravi.all(id, "What will happen")) == 1+s.spare() })

	meets = s.arms("showCard show#1 UpdateMessageContext", "showCard show#2 UpdateMessageContext", "tell direct OpenConversationContext", "tell direct PostMessageContext")
	ravi.presses(ravi.all("waiting for approval", why)[0], "approve") // where there are two, the spare one
	meets()
	s.until("the end", func() bool { return len(hanna.dm().all("Done: ", id)) > 0 })
	for _, spare := range hanna.dm().all(id, "waiting for approval") {
		hanna.dm().presses(spare, "cancel") // nobody knows of it before it is pressed
	}
	s.done(id)
	s.once(before)
}

// A press that is refused, and a denial with its form, and the details before.
func (s *siege) aDenial() {
	card, id := s.asks("/entra-revoke-sessions @dana")
	ravi := s.ravi()
	meets := s.arms("repair UpdateMessageContext")
	s.as(sandbox.Hanna, sandbox.Approvals).presses(card, "approve")
	meets()
	s.as(sandbox.Gloria, sandbox.Audit).reads("hanna.okafor@", "tried to approve and was refused", id)

	meets = s.arms("openDetails open OpenViewContext")
	ravi.presses(card, "details")
	meets()
	meets = s.arms("openDetails fill UpdateViewContext")
	ravi.presses(card, "details")
	meets()
	ravi.presses(card, "details")
	ravi.sees("What will happen", id)

	meets = s.arms("openDeny open OpenViewContext")
	ravi.presses(card, "deny")
	meets()
	if s.how == writes.NotApplied {
		ravi.reads("Press Deny again")
	} else {
		s.must(ravi.p.Close(ravi.sees("A denial is final", id).ID))
	}
	meets = s.arms("ahead fill UpdateViewContext")
	ravi.presses(card, "deny")
	meets()
	if a := ravi.submits(ravi.sees("A denial is final", id), map[string]string{"reason": "no, " + id}); !a.OK {
		s.Fatalf("the denial was not taken: %+v", a)
	}
	s.hanna().dm().reads("denied", "no, "+id)
	s.ends(id, "Denied by", "requested: ", " denied: ")
}

// A form, which works although it was not filled in, or opened unknown to us;
// and an App Home.
func (s *siege) aForm() {
	hanna, why := s.hanna(), s.why()
	meets := s.arms("openForm open OpenViewContext")
	hanna.types("/entra-require-reregister @mina " + why)
	meets()
	offer := hanna.reads("What you typed is kept")
	if s.how == writes.Applied {
		hanna.sees("How did you make sure who was asking?")
	}
	meets = s.arms("openForm fill UpdateViewContext")
	hanna.presses(offer, "open-form")
	meets()
	if a := hanna.submits(hanna.sees("How did you make sure who was asking?"), map[string]string{"verified": "video"}); !a.OK {
		s.Fatalf("the form was not taken: %+v", a)
	}
	id := requestID.FindString(s.ravi().reads("waiting for approval", why).Text())
	hanna.dm().presses(hanna.dm().reads("waiting for approval", why), "cancel")
	s.ends(id, ": cancelled", "requested: ", " cancelled: ")

	meets = s.arms("publishHome PublishViewContext")
	s.must(hanna.p.Home())
	meets()
	s.must(hanna.p.Home())
	s.until("Hanna's App Home", func() bool {
		views, err := hanna.p.Views()
		s.must(err)
		return views.Home != nil && views.Home.Contains("On the desk", "Yours", id)
	})
}

// An answer to one person alone, whose ways are closed one after the other. It
// is the only copy of nothing, and comes when it is asked for again.
func (s *siege) anAnswer() {
	hanna := s.hanna()
	closed := []slack.Fault{{Method: "response_url", Kind: "status", Status: 404}, {Method: "chat.postEphemeral", Kind: "error"}}
	for n, way := range []string{"whisperOne PostEphemeralContext", "whisperOne direct OpenConversationContext", "whisperOne direct PostMessageContext"} {
		s.must(s.client.SetSlackFaults(closed[:min(n+1, 2)]...))
		meets := s.arms(way)
		hanna.types("/entra-requests mine")
		meets()
		s.must(s.client.SetSlackFaults())
		s.must(hanna.p.Reload())
		hanna.types("/entra-requests mine")
		hanna.reads("Your requests")
	}
}

// A pass: its view is lost when it opens and when it is filled, and so is what
// is said when there is nothing to see any more.
func (s *siege) aSecret() {
	hanna, ravi := s.hanna().dm(), s.ravi()
	card, id := s.asks("/entra-issue-pass @alex verified=video")
	ravi.presses(card, "approve")
	offer := hanna.reads("Done: ", id, "Reveal")
	s.done(id)
	secrets, err := s.client.Secrets("alex.morgan@fernhill.example")
	s.must(err)
	for _, where := range []string{"openSecret open OpenViewContext", "openSecret fill#2 UpdateViewContext"} {
		meets := s.arms(where)
		hanna.presses(offer, "reveal")
		meets()
	}
	// A view that is still open would be taken for that of the next press.
	left, err := hanna.p.Views()
	s.must(err)
	for _, v := range left.Modals {
		s.must(hanna.p.Close(v.ID))
	}
	hanna.presses(offer, "reveal")
	view := hanna.sees("For your eyes only", secrets.Pass)
	s.until("the end of the sealed copy", func() bool {
		for key := range s.redis.Dump(s.T) {
			if strings.Contains(key, "secret:"+id) {
				return false
			}
		}
		return true
	})
	s.must(hanna.p.Close(view.ID))
	s.as(sandbox.Gloria, sandbox.Audit).reads("opened the secret", id)

	meets := s.arms("openSecret fill#1 UpdateViewContext")
	hanna.presses(offer, "reveal")
	meets()
	hanna.presses(offer, "reveal")
	hanna.sees("There is nothing left to open")
	s.nowhere(secrets.Pass, "after it was shown")
}

// Somebody asks for what is protected.
func (s *siege) anAlarm() {
	meets := s.arms("tell warn PostMessageContext")
	s.hanna().types("/entra-issue-pass @gloria verified=video " + s.why())
	meets()
	s.until("the line for the security people", func() bool { return len(s.hanna().all("was refused", "protected target")) > 0 })
	if n := len(s.hanna().all("was refused", "protected target")); n > 1+s.spare() {
		s.Errorf("the security people read it %d times", n)
	}
}

// What people do by hand is reminded of until it is done.
func (s *siege) byHand() {
	ravi, olga := s.ravi(), s.olga()
	card, id := s.asks("/entra-delete-app-passwords @mina verified=callback")
	meets := s.arms("remind note PostMessageContext")
	ravi.presses(card, "approve")
	meets()
	ravi.reads("Still to be done by hand", id)
	ravi.presses(ravi.reads("to be done by hand", id, "What will happen"), "attest")
	olga.presses(olga.reads("to be confirmed by somebody else", id), "confirm")
	s.ends(id, "done by hand and confirmed", "requested: ", "approved (")
}

// The glass is broken: everybody who could have approved is told, and a review
// is reminded of until it is given.
func (s *siege) brokenGlass() {
	before, ravi, olga, hanna := s.effects("revokeSignInSessions"), s.ravi(), s.olga(), s.hanna()
	card, id := s.asks("/entra-revoke-sessions @dana")
	for _, where := range []string{"openGlass open OpenViewContext", "ahead fill UpdateViewContext"} {
		meets := s.arms(where)
		olga.presses(card, "break-glass")
		meets()
	}
	meets := s.arms("alert intoApprovals#1 PostMessageContext", "alert warn PostMessageContext", "alert direct OpenConversationContext", "alert direct PostMessageContext", "alert UpdateMessageContext",
		"tellBreaker direct OpenConversationContext", "tellBreaker direct PostMessageContext", "remindReview note PostMessageContext")
	if a := olga.submits(olga.sees("What happens when you break the glass"), map[string]string{"reason": "cannot wait"}); !a.OK {
		s.Fatalf("the glass was not broken: %+v", a)
	}
	meets()
	card = ravi.reads("review due", id)
	s.until("everybody to be told", func() bool {
		return len(ravi.all("Glass broken by", id, "told by direct message")) > 0 && len(ravi.dm().all("You could have approved it", id)) > 0 &&
			len(hanna.dm().all("broke the glass for your request", id)) > 0 && len(olga.dm().all("You broke the glass for it", "Done: ", id)) > 0 &&
			len(ravi.all("Still to be reviewed", id)) > 0 && len(hanna.all("broke the glass", "cannot wait", id)) > 0
	})
	for _, where := range []string{"openReview open OpenViewContext", "ahead fill UpdateViewContext"} {
		meets := s.arms(where)
		ravi.presses(card, "justified")
		meets()
	}
	meets = s.arms("reviewed direct OpenConversationContext", "reviewed direct PostMessageContext")
	if a := ravi.submits(ravi.sees("You say with your name"), nil); !a.OK {
		s.Fatalf("the review was not taken: %+v", a)
	}
	meets()
	for _, h := range []*hands{hanna.dm(), olga.dm()} {
		h.reads("found it justified", id)
	}
	s.ends(id, "done with broken glass, justified", "requested: ", "broke the glass", "Started: ", "Succeeded: ", "reviewed")
	for h, says := range map[*hands]string{ravi: "Somebody else has to say on its card", ravi.dm(): "You could have approved it", hanna.dm(): "broke the glass for your request", olga.dm(): "You broke the glass for it"} {
		if n := len(h.all(says, "cannot wait", id)); h != ravi && n > 1+s.spare() {
			s.Errorf("%s reads %q %d times", h.p.ID, says, n)
		}
	}
	s.once(before)
}

// Nobody can find out who could have approved, so all are told.
func (s *siege) nobodyToTell() {
	s.must(s.client.SetEntraFaults(entra.Fault{Method: http.MethodGet, Path: "transitiveMembers", Times: -1, Kind: entra.FaultStatus, Status: 403, Code: "Authorization_RequestDenied"}))
	meets := s.arms("alert intoApprovals#2 PostMessageContext")
	s.olga().types("/entra-block-signin @alex break-glass " + s.why())
	meets()
	all := s.ravi().reads("@channel", "Who could have approved it could not be looked up", "alex.morgan@")
	id := requestID.FindString(all.Text())
	if n := len(s.ravi().all("@channel", id)); n > 1+s.spare() {
		s.Errorf("all were told %d times", n)
	}
	s.must(s.client.SetEntraFaults())
	meets = s.arms("reviewed warn PostMessageContext")
	if a := s.ravi().review(s.ravi().reads("review due", id), "not-justified", "it could have waited"); !a.OK {
		s.Fatalf("the review was not taken: %+v", a)
	}
	meets()
	s.ravi().reads("done with broken glass, not justified", id)
	s.hanna().reads("reviewed what ran with broken glass", "not justified", id) // the security people
	s.account("alex.morgan@fernhill.example", func(u sandbox.User) bool { return !u.Enabled })
}

// A request that nobody decides is about to expire.
func (s *siege) runningOut() {
	_, id := s.asks("/entra-require-reregister @mina verified=video")
	meets := s.arms("remindExpiry intoApprovals PostMessageContext", "remindExpiry direct OpenConversationContext", "remindExpiry direct PostMessageContext")
	s.expires(id, time.Now().Add(2*patience)) // as if most of its time had passed
	meets()
	s.ravi().reads(id, "expires", "with 0 of 1 approvals")
	s.hanna().dm().reads(id, "expires", "A reminder was posted in the approvals channel")
	s.hanna().dm().presses(s.hanna().dm().reads("waiting for approval", id), "cancel")
	s.ends(id, ": cancelled", "requested: ", " cancelled: ")
	if n := len(s.ravi().all(id, "expires", "with 0 of 1 approvals")); n > 2+s.spare() { // the card is one of them
		s.Errorf("the approvers were reminded %d times", n-1)
	}
}

// The ack of a command does not reach Slack, which then tells its author that
// it did not work; or it does, and the socket is gone.
func (s *siege) anAck() {
	before, why := s.effects("revokeSignInSessions"), s.why()
	w := writes.All()[slices.IndexFunc(writes.All(), func(w writes.Write) bool { return w.Where == "bot.Bot.ack AckCtx" })]
	strike := s.by.Arm(w, s.how)
	s.strikes[w.Where] = strike
	s.wire.cuts(s.how == writes.Applied, strike.Hit)
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
	if !answer.OK { // so it is typed again
		s.hanna().types("/entra-revoke-sessions @dana " + why)
		s.hanna().reads("asked for the same", requestID.FindString(card.Text()))
	}
	s.ravi().presses(card, "approve")
	s.done(requestID.FindString(card.Text()))
	s.once(before)
}

// Redis does not answer, which people are told by whoever notices, and again
// when it does.
func (s *siege) anOutage() {
	before := s.effects("revokeSignInSessions")
	meets := s.arms("tellOutage announce PostMessageContext")
	s.line.stopUp()
	s.soon("the message to be lost", func() bool { return s.strikes["bot.Bot.tellOutage announce PostMessageContext"].HasMet() })
	s.line.flow()
	meets()
	for _, where := range []string{"tellBack announce PostMessageContext", "tellBack UpdateMessageContext"} {
		meets := s.arms(where)
		told := len(s.ravi().all("has not been able to reach its Redis since"))
		s.line.stopUp()
		s.until("the message", func() bool { return len(s.ravi().all("has not been able to reach its Redis since")) > told })
		s.line.flow()
		meets()
	}
	card, id := s.asks("/entra-revoke-sessions @dana")
	s.ravi().presses(card, "approve")
	s.done(id)
	s.once(before)
}

// Redis goes back in time. Whoever is started tells people, too, as long as
// nobody has said go on.
func (s *siege) backInTime() {
	if !s.redis.Real() {
		return // miniredis makes no copies of what it holds
	}
	restore := s.redis.Save(s.T)
	s.hanna().types("/entra-requests pending")
	s.hanna().reads("On the desk")
	meets := s.arms("tellLosses alarm PostMessageContext")
	restore()
	meets()
	// Whoever is started then tells, too: nobody knows what the last one has told.
	s.until("the message", func() bool {
		return len(s.hanna().all("Countersign has stopped")) == 1+s.spare() && len(s.ravi().all("Countersign has stopped")) > 0
	})
	store := approvals.NewStore(s.redis.Client(s.T), s.service.secrets.Ring, s.service.config.Redis.Prefix, s.service.config.Timing)
	list, err := store.Losses(s.Context())
	s.must(err)
	meets = s.arms("tellResumed alarm PostMessageContext")
	s.must(store.Resume(s.Context(), list, "The operator"))
	meets()
	before := s.effects("revokeSignInSessions")
	card, id := s.asks("/entra-revoke-sessions @dana")
	s.ravi().presses(card, "approve")
	s.done(id)
	s.once(before)
}

// nothingIsLeft checks that nothing waits any more.
func (s *siege) nothingIsLeft() {
	s.must(s.hanna().p.Reload())
	s.hanna().types("/entra-requests pending")
	s.hanna().reads("Nothing is waiting")
}

// Each change through Graph is lost once, before it gets there or only the
// reply, while the process is told to stop. Another one goes on: every account
// is in the end as it must be, by as few changes as can be, every secret can be
// opened, and everybody is told.
func TestEveryWriteToGraphHasItsPair(t *testing.T) {
	t.Parallel()
	list := writes.In("entra")
	for _, e := range changes() {
		if name := e.Method + " " + e.Path; !slices.ContainsFunc(list, func(w writes.Write) bool { return w.API == name }) {
			t.Errorf("%s is in entra.Endpoints and not on the list", name)
		}
	}
	for _, w := range list {
		if !slices.ContainsFunc(changes(), func(e graph.Endpoint) bool { return w.API == e.Method+" "+e.Path }) {
			t.Errorf("%s is on the list and not in entra.Endpoints", w.API)
		}
	}
	writes.Pairs(t, writes.In("entra"), func(t *testing.T, how writes.How) func(*testing.T, writes.Write) {
		t.Parallel()
		all := slices.DeleteFunc(append(deeds(), removing()...), func(d deed) bool {
			elsewhere := []string{"allow-signin", "remove-office", "remove-authenticator", "remove-software-token"} // the same changes as of others
			return d.byHand() || d.lost || d.args == "everything" || slices.Contains(elsewhere, d.name)
		})
		s := newScene(t, all, nil, unhurried)
		stopped := &latch{open: make(chan struct{})}
		s.toGraph.held = stopped.waits
		strikes := map[writes.Write]*writes.Strike{}
		for _, w := range list {
			strikes[w] = s.by.Arm(w, how)
		}
		s.asks(all)
		plays := s.plays(all)
		s.approve(plays)

		for left := list; len(left) > 0; {
			before := len(left)
			s.soon(fmt.Sprintf("one of these to be lost: %v", left), func() bool {
				left = slices.DeleteFunc(slices.Clone(left), func(w writes.Write) bool { return strikes[w].HasMet() })
				return len(left) < before
			})
			ended := make(chan struct{})
			go func() { defer close(ended); s.stop() }()
			stopped.lets() // those in hand fail now
			<-ended
			s.start()
		}
		for _, p := range plays {
			times := 1
			if p.again && how == writes.Applied {
				times = 2 // the same once more: what it sets is not to be read
			}
			s.succeeds(p, times)
		}
		return func(t *testing.T, w writes.Write) {
			if !strikes[w].HasMet() {
				t.Errorf("it was never lost how %s", w.What)
			}
		}
	})
}

// latch holds everybody up until it lets those go who wait.
type latch struct {
	mu   sync.Mutex
	open chan struct{}
}

func (l *latch) waits() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

func (l *latch) lets() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.open)
	l.open = make(chan struct{})
}

// wire is the way of the socket to Slack. It can be cut at an ack.
type wire struct {
	listener net.Listener
	mu       sync.Mutex
	to       string
	carries  bool
	cut      func()
}

func newWire(t *testing.T) *wire {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: listener}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			w.mu.Lock()
			to := w.to
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

// link leads the socket over this wire.
func (w *wire) link(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.to = u.Host
	u.Host = w.listener.Addr().String()
	return u.String()
}

// cuts has the wire cut at the next ack, behind it where it is carried.
func (w *wire) cuts(carried bool, cut func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.carries, w.cut = carried, cut
}

// pump carries what the bot says. slack-go writes each frame at once, and its
// text frames are acks.
func (w *wire) pump(out, in net.Conn) {
	defer out.Close()
	defer in.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := in.Read(buffer)
		if err != nil {
			return
		}
		w.mu.Lock()
		cut, carries := w.cut, w.carries
		if ack := buffer[0] == 0x81; !ack {
			cut = nil
		}
		if cut != nil {
			w.cut = nil
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
