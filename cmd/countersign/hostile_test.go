package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"countersign/approvals"
	"countersign/audit"
	"countersign/internal/testseed"
	"countersign/sandbox"
	"countersign/sandbox/slack"
)

// Thousands of envelopes that Slack would never send, made from real ones,
// arrive over the real socket while one request waits for approval, another for
// confirmation, another for review, and a password waits to be revealed. No
// envelope makes the bot panic, changes anything or leaks memory.
//
// Afterwards Redis may have new refusals among the events, the answers kept for
// a redelivery (note:, envelope:, and op: in a request, all of them refusals),
// rate counters, and new positions of the event log, its readers and the
// processes. All other keys are unchanged, to the byte. The tenant is
// unchanged. Only people who are named as the actor of an envelope got a
// message, and only they see it.
//
// By construction, no mutant is legitimate: a legitimate interaction needs an
// authorized person, something that is still open, and our workspace and app.
// Each mutant is made from an envelope in whose bytes one of the three was
// replaced everywhere, and nothing that is put into it contains it either.
//
// With one seed, more than 2,500 envelopes find nothing new. A long run is
//
//	COUNTERSIGN_HOSTILE_ENVELOPES=50000 COUNTERSIGN_TEST_SEED=random go test -race -run TestHostileEnvelopes -timeout 60m -v ./cmd/countersign
func TestHostileEnvelopes(t *testing.T) {
	envelopes, seed := int(number(t, "COUNTERSIGN_HOSTILE_ENVELOPES", 2_500)), testseed.Seed(t)
	w := startBot(t, func(c *config) {
		c.People.MatchEmail, c.People.Table = false, map[string]string{
			sandbox.Hanna: sandbox.HannaID, sandbox.Ravi: sandbox.RaviID, sandbox.Olga: sandbox.OlgaID, sandbox.Dana: sandbox.DanaID,
			sandbox.Sam: sandbox.SamID, sandbox.Gloria: sandbox.GloriaID, sandbox.Elias: sandbox.EliasID, sandbox.Pat: sandbox.PatID,
			sandbox.Bo: sandbox.BoID, sandbox.Mina: sandbox.MinaID, sandbox.Alex: sandbox.AlexID, sandbox.AlexM: sandbox.AlexMID,
		}
	})
	w.stop()
	panics := &panicLog{}
	w.service.log = slog.New(slog.NewTextHandler(panics, nil))
	w.start()
	t.Cleanup(w.stop)
	story := w.recordScenario()

	// An address that is not Slack's, for response URLs.
	var reached atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	t.Cleanup(elsewhere.Close)
	m := newMutator(rand.New(rand.NewPCG(seed, 1)), story, strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1))

	record, ended := w.countEvents()
	t.Cleanup(ended)
	w.waitIdle()
	record.reset()
	before := w.takeSnapshot()
	const batch = 50
	batches := max(5, (envelopes+batch-1)/batch)
	envelopes = batches * batch
	heap, goroutines := map[int]uint64{}, map[int]int{}
	early, last := batches/5, batches
	answered := w.countAcks()
	for n := 1; n <= batches; n++ {
		for range batch {
			f, reconnects := m.next()
			opened := w.countConnections(reconnects)
			w.sendFrame(f)
			if reconnects {
				w.pollUntil("another connection", func() bool { return w.countConnections(true) > opened })
			}
		}
		w.waitAnswer()
		if n == early || n == last {
			w.waitIdle()
			w.takeSnapshot().compare(t, before, m.isActor)
			heap[n], goroutines[n] = w.measureMemory(before)
		}
	}
	answered = w.countAcks() - answered

	// The envelopes did arrive, and some got as far as the policy checks.
	t.Logf("%d of %d were acked; refusals by code: %v; the heap had %d and then %d KiB, with %d and then %d goroutines",
		answered, envelopes, record.refused, heap[early]>>10, heap[last]>>10, goroutines[early], goroutines[last])
	for _, line := range record.other {
		t.Errorf("an unexpected event: %s", line)
	}
	acked, refused := answered, record.refused
	if acked < envelopes/5 {
		t.Errorf("only %d envelopes were acked: the others never reached the bot", acked)
	}
	for _, code := range []approvals.Code{approvals.CodeNotMember, approvals.CodeGuest, approvals.CodeNotAllowed, approvals.CodeDecided, approvals.CodeChannel} {
		if refused[string(code)] == 0 {
			t.Errorf("no refusal with the code %q: the envelopes do not cover it", code)
		}
	}
	if lines := panics.found(); len(lines) > 0 {
		t.Errorf("the bot panicked:\n%s", strings.Join(lines, "\n"))
	}
	if n := reached.Load(); n > 0 {
		t.Errorf("the bot sent %d requests to a server that is not Slack's", n)
	}
	// Between the two, the bot processes some 650: 3 MiB are 5 KiB for each.
	if grown := int64(heap[last]) - int64(heap[early]); grown > 3<<20 && w.redis.Real() {
		t.Errorf("the heap grew by %d KiB", grown>>10)
	}
	if goroutines[last] > goroutines[early]+20 {
		t.Errorf("the number of goroutines grew from %d to %d", goroutines[early], goroutines[last])
	}
	w.finishScenario(story)
}

// hostileScenario is the state before the hostile envelopes: which requests are open,
// which are over, and the envelopes of everything that people did.
type hostileScenario struct {
	pending, handedOff, review, secret string // open in one way or another
	over                               []string
	card                               sandbox.Message // of the pending request
	envelopes                          []json.RawMessage
}

// recordScenario makes people do everything that the bot receives from Slack.
func (w *fixture) recordScenario() hostileScenario {
	w.Helper()
	hanna, ravi, dana := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals), w.as(sandbox.Dana, sandbox.Approvals)
	auditor := w.as(sandbox.Gloria, sandbox.Audit)
	var s hostileScenario
	asks := func(line string, parts ...string) (sandbox.Message, string) {
		w.Helper()
		hanna.types(line)
		card := ravi.reads(append(parts, "waiting for approval")...)
		return card, requestID.FindString(card.Text())
	}
	for _, h := range []*slackUser{hanna, ravi, dana} {
		w.must(h.p.Home())
	}
	hanna.types("/entra-help")
	hanna.types("/entra-methods dana.whitfield@fernhill.example")
	hanna.reads("Authentication methods", "dana.whitfield@")
	w.must(w.client.PatchUser("sam.ito@fernhill.example", map[string]any{"mail": "alex.morgan@fernhill.example"}))
	hanna.types("/entra-methods alex.morgan@fernhill.example")
	hanna.presses(hanna.reads("matches 2 people"), "choose:0")
	w.must(w.client.PatchUser("sam.ito@fernhill.example", map[string]any{"mail": "sam.ito@fernhill.example"}))

	// A request through the form, after the form did not open; details, and approval.
	w.must(w.client.SetSlackFaults(slack.Fault{Method: "views.open", Kind: "error", Error: "expired_trigger_id", Times: 1}))
	hanna.types("/entra-require-reregister @dana lost phone")
	hanna.presses(hanna.reads("What you typed is kept"), "open-form")
	form := hanna.sees("How did you make sure who was asking?", "dana.whitfield@")
	if a := hanna.submits(form, map[string]string{"verified": "video", "target_name": "dana.whitfield@fernhill.example"}); a.OK {
		w.Fatal("a form with two targets was accepted")
	}
	if a := hanna.submits(form, map[string]string{"verified": "video", "target_name": ""}); !a.OK {
		w.Fatalf("the form was not accepted: %+v", a)
	}
	card := ravi.reads("waiting for approval", danaUPN)
	ravi.presses(card, "details")
	w.must(ravi.p.Close(ravi.sees("What will happen").ID))
	dana.presses(card, "approve")
	dana.reads("your own account")
	ravi.presses(card, "approve")
	auditor.reads("Succeeded: ", requestID.FindString(card.Text()))
	s.over = append(s.over, requestID.FindString(card.Text()))

	// A request denied through the form, and a cancelled one.
	card, id := asks("/entra-revoke-sessions @mina stolen", "mina.haddad@")
	ravi.presses(card, "deny")
	if a := ravi.submits(ravi.sees("A denial is final"), map[string]string{"reason": "not stolen"}); !a.OK {
		w.Fatalf("the denial was not accepted: %+v", a)
	}
	auditor.reads("denied", id)
	s.over = append(s.over, id)
	_, id = asks("/entra-revoke-sessions @alex stolen", "alex.morgan@")
	hanna.dm().presses(hanna.dm().reads("waiting for approval", id), "cancel")
	auditor.reads("cancelled", id)
	s.over = append(s.over, id)

	// A pass that its requester reveals; a password that nobody has revealed yet.
	card, id = asks("/entra-issue-pass @alex 60m once verified=in-person new phone", "new phone")
	ravi.presses(card, "approve")
	hanna.dm().presses(hanna.dm().reads("Done: ", id), "reveal")
	w.must(hanna.p.Close(hanna.sees("For your eyes only", "alex.morgan@").ID))
	auditor.reads("opened the secret", id)
	s.over = append(s.over, id)
	card, s.secret = asks("/entra-reset-password @mina verified=video forgotten", "forgotten")
	ravi.presses(card, "approve")
	hanna.dm().reads("Done: ", s.secret, "Press Reveal")

	// A manual step that is confirmed, and one that nobody has confirmed yet.
	olga := w.as(sandbox.Olga, sandbox.Approvals)
	for _, line := range []string{"/entra-delete-app-passwords @alex verified=callback old mail client", "/entra-delete-app-passwords @sam verified=callback old telephone"} {
		card, id = asks(line, line[len(line)-10:])
		ravi.presses(card, "approve")
		ravi.presses(ravi.reads("to be done by hand", id), "attest")
		ravi.presses(ravi.reads("to be confirmed by somebody else", id), "retract")
		ravi.presses(ravi.reads("approved, to be done by hand", id), "attest")
		card = olga.reads("to be confirmed by somebody else", id)
		if strings.Contains(line, "@alex") {
			olga.presses(card, "confirm")
			olga.reads("done by hand and confirmed", id)
			s.over = append(s.over, id)
		}
	}
	s.handedOff = id
	// A break-glass request that somebody else has reviewed, and one that waits for review.
	card, id = asks("/entra-revoke-sessions @alex stolen once more", "alex.morgan@", "once more")
	olga.presses(card, "break-glass")
	if a := olga.submits(olga.sees("What happens when you use break-glass", " for "), map[string]string{"reason": "sign-ins from abroad"}); !a.OK {
		w.Fatalf("the reason was not accepted: %+v", a)
	}
	ravi.presses(ravi.reads("review due", id), "justified")
	if a := ravi.submits(ravi.sees("You say with your name", "Break-glass used by"), map[string]string{"reason": "it was"}); !a.OK {
		w.Fatalf("the review was not accepted: %+v", a)
	}
	auditor.reads("reviewed", id)
	s.over = append(s.over, id)
	w.as(sandbox.Olga, sandbox.HelpDesk).types("/entra-revoke-sessions @sam break-glass laptop stolen")
	s.review = requestID.FindString(ravi.reads("review due", "sam.ito@").Text())
	// A request that waits for approval.
	s.card, s.pending = asks("/entra-revoke-sessions @dana laptop stolen", "laptop stolen", "Dana Whitfield")
	dana.presses(s.card, "approve")
	auditor.reads("dana.whitfield@", "tried to approve", s.pending)
	dana.presses(s.card, "details")
	w.must(dana.p.Close(dana.sees("may not use this command").ID))
	hanna.types("/entra-requests pending")
	hanna.presses(hanna.reads("Open requests", s.pending), "details")
	w.must(hanna.p.Close(hanna.sees("What will happen").ID))
	hanna.p.Home()

	s.envelopes = w.box.Slack.Delivered()
	// Envelopes that Slack sends for forms and selects that Countersign does not have.
	var derived []json.RawMessage
	for _, raw := range s.envelopes {
		if bytes.Contains(raw, []byte(`"view_submission"`)) {
			derived = append(derived,
				bytes.Replace(raw, []byte(`"view_submission"`), []byte(`"view_closed","is_cleared":false`), 1),
				bytes.Replace(raw, []byte(`"view_submission"`), []byte(`"block_suggestion","block_id":"target","action_id":"target","value":"da"`), 1))
		}
	}
	// Clicks on a card in another channel than the approvals channel.
	for _, raw := range s.envelopes {
		if bytes.Contains(raw, []byte(`"actions":[{"action_id":"approve"`)) {
			for _, channel := range []string{sandbox.HelpDesk, sandbox.Vendor} {
				derived = append(derived, bytes.ReplaceAll(raw, []byte(sandbox.Approvals), []byte(channel)))
			}
		}
	}
	// A button with the id of another request than that of its card.
	open := append([]string{s.pending, s.handedOff, s.review, s.secret}, s.over...)
	for i, raw := range s.envelopes {
		if !bytes.Contains(raw, []byte(`"actions":[{"action_id":"`)) || !bytes.Contains(raw, []byte(sandbox.Approvals)) {
			continue
		}
		t := parseTree(raw)
		for _, spot := range t.positions(nil) {
			if spot.key() != "actions" {
				continue
			}
			for _, in := range spot.get().(*jsonTree).positions(nil) {
				if in.key() == "value" {
					in.set(open[i%len(open)])
				}
			}
		}
		var b bytes.Buffer
		t.write(&b)
		derived = append(derived, b.Bytes())
	}
	s.envelopes = append(s.envelopes, derived...)
	for _, kind := range []string{"slash_commands", "app_home_opened", "block_actions", "view_submission", "view_closed", "block_suggestion",
		`"approve"`, `"deny"`, `"cancel"`, `"details"`, `"reveal"`, `"attest"`, `"retract"`, `"confirm"`, `"break-glass"`, `"justified"`, `"glass-form"`, `"review-form"`, `"choose:0"`, `"open-form"`} {
		if !slices.ContainsFunc(s.envelopes, func(raw json.RawMessage) bool { return bytes.Contains(raw, []byte(kind)) }) {
			w.Fatalf("the scenario has no envelope with %s", kind)
		}
	}
	return s
}

// finishScenario continues the open requests, which shows that the bot still works.
func (w *fixture) finishScenario(s hostileScenario) {
	w.Helper()
	w.must(w.client.As(sandbox.Ravi).Reload())
	hanna, ravi, olga := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals), w.as(sandbox.Olga, sandbox.Approvals)
	olga.presses(s.card, "approve")
	olga.reads("Revoke sessions: done", s.pending)
	olga.presses(olga.reads("to be confirmed by somebody else", s.handedOff), "confirm")
	ravi.reads("done by hand and confirmed", s.handedOff)
	ravi.presses(ravi.reads("review due", s.review), "justified")
	if a := ravi.submits(ravi.sees("You say with your name", "Break-glass used by"), map[string]string{"reason": "it was"}); !a.OK {
		w.Fatalf("the review was not accepted: %+v", a)
	}
	w.as(sandbox.Gloria, sandbox.Audit).reads("reviewed", s.review)
	secrets, err := w.client.Secrets("mina.haddad@fernhill.example")
	w.must(err)
	hanna.dm().presses(hanna.dm().reads("Done: ", s.secret), "reveal")
	hanna.sees("For your eyes only", secrets.Password)
}

// sendFrame sends a frame to the bot as soon as there is a socket.
func (w *fixture) sendFrame(f frame) {
	w.Helper()
	if !w.box.Slack.Frame(f.binary, f.data) {
		w.pollUntil("a socket", func() bool { return w.box.Slack.Frame(f.binary, f.data) })
	}
}

// countConnections counts the connections that the bot has opened, or returns 0
// without care.
func (w *fixture) countConnections(care bool) int {
	w.Helper()
	if !care {
		return 0
	}
	calls, err := w.client.SlackCalls()
	w.must(err)
	return calls.Methods["apps.connections.open"].Calls
}

// countAcks counts the acks of frames.
func (w *fixture) countAcks() int {
	w.Helper()
	calls, err := w.client.SlackCalls()
	w.must(err)
	return calls.Envelopes.Dropped
}

// waitAnswer waits until the bot answers an envelope, which it does after it has
// received all earlier ones.
func (w *fixture) waitAnswer() {
	w.Helper()
	w.pollUntil("an answer", func() bool {
		_, err := w.box.Slack.Deliver("interactive", map[string]any{"type": "shortcut"})
		return err == nil
	})
}

// waitIdle waits until the inbox is empty and all events are shown.
func (w *fixture) waitIdle() {
	w.Helper()
	w.waitAnswer()
	rdb := w.redis.Client(w.T)
	store := w.newStore(rdb)
	w.pollUntil("an empty inbox, and all events shown", func() bool {
		n, err := rdb.XLen(w.Context(), "{countersign}:inbox").Result()
		w.must(err)
		for _, name := range []string{"cards", "people", "audit", "hostile"} {
			lag, err := store.Lag(w.Context(), name)
			w.must(err)
			if lag > 0 {
				return false
			}
		}
		return n == 0
	})
}

func (w *fixture) newStore(rdb redis.UniversalClient) *approvals.Store {
	return approvals.NewStore(rdb, w.service.secrets.Ring, "", w.service.config.Timing)
}

// eventCounts counts the events that are recorded.
type eventCounts struct {
	mu      sync.Mutex
	refused map[string]int // by code
	other   []string       // all other events, as the auditor reads them
}

// countEvents counts the events until stop.
func (w *fixture) countEvents() (r *eventCounts, stop func()) {
	r = &eventCounts{refused: map[string]int{}}
	ctx, cancel := context.WithCancel(context.Background())
	store := w.newStore(w.redis.Client(w.T))
	var done sync.WaitGroup
	done.Go(func() {
		store.Follow(ctx, "hostile", approvals.Projection{Name: "hostile", Handle: func(_ context.Context, batch []audit.Event) (int, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, e := range batch {
				if e.Kind == audit.Refused {
					r.refused[e.Code]++
				} else {
					r.other = append(r.other, e.Line())
				}
			}
			return len(batch), nil
		}}, slog.New(slog.DiscardHandler))
	})
	return r, func() {
		cancel()
		done.Wait()
	}
}

// reset starts to count anew.
func (r *eventCounts) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused, r.other = map[string]int{}, nil
}

// measureMemory returns how much heap this process uses and how many goroutines
// run, once it is idle. The audit messages that the sandbox's Slack keeps are not the
// bot's memory, and are dropped first.
func (w *fixture) measureMemory(since snapshot) (heap uint64, goroutines int) {
	w.Helper()
	w.box.Slack.Forget(since.last)
	goroutines = runtime.NumGoroutine()
	w.pollUntil("idle goroutines", func() bool {
		was := goroutines
		goroutines = runtime.NumGoroutine()
		return goroutines >= was
	})
	for range 3 {
		runtime.GC()
	}
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc, goroutines
}

// snapshot is everything that a hostile envelope must not change.
type snapshot struct {
	redis    map[string]string
	tenant   string
	changes  int                        // calls to Graph that change something
	messages map[string]sandbox.Message // by channel and timestamp; private ones by person, too
	last     string                     // timestamp
}

func (w *fixture) takeSnapshot() snapshot {
	w.Helper()
	s := snapshot{redis: w.redis.Dump(w.T), messages: map[string]sandbox.Message{}}
	users, err := w.client.Users()
	w.must(err)
	s.tenant = fmt.Sprintf("%+v", users)
	calls, err := w.client.EntraCalls()
	w.must(err)
	for _, c := range calls.Calls {
		if c.Method != http.MethodGet && !strings.Contains(c.Path, "oauth2") {
			s.changes += c.Count
		}
	}
	people, err := w.client.People()
	w.must(err)
	for _, p := range people {
		if p.Bot {
			continue
		}
		channels, err := w.client.As(p.ID).Channels()
		w.must(err)
		for _, c := range channels {
			s.last = max(s.last, c.LastTS)
			if c.ID == sandbox.Audit {
				continue // its messages are checked as events
			}
			messages, err := w.client.As(p.ID).Messages(c.ID)
			w.must(err)
			for _, m := range messages {
				of := c.ID + " " + m.TS
				if m.Ephemeral || c.Kind == "dm" {
					of += " " + p.ID
				}
				s.messages[of] = m
			}
		}
	}
	return s
}

// compare reports everything that has changed since before. named says who may have
// got a message.
func (now snapshot) compare(t *testing.T, before snapshot, named func(person string) bool) {
	t.Helper()
	keys := slices.Sorted(maps.Keys(now.redis))
	for key := range before.redis {
		if _, there := now.redis[key]; !there {
			keys = append(keys, key)
		}
	}
	for _, key := range keys {
		kind, _, _ := strings.Cut(strings.TrimPrefix(key, "{countersign}:"), ":")
		was, is := before.redis[key], now.redis[key]
		switch kind {
		case "note", "envelope", "rate", "events", "sequence", "processes", "lead", "cursor":
			continue
		case "request":
			was, is = withoutAnswers(t, key, was, ""), withoutAnswers(t, key, is, was)
		}
		if was != is {
			t.Errorf("%s was\n%s\nand is\n%s", key, was, is)
		}
	}
	if now.tenant != before.tenant || now.changes != before.changes {
		t.Errorf("the tenant has changed, with %d calls; it was\n%s\nand is\n%s", now.changes-before.changes, before.tenant, now.tenant)
	}
	for at, m := range now.messages {
		was, there := before.messages[at]
		part := strings.Fields(at)
		switch {
		case there && m.Edited == was.Edited && m.Text() == was.Text():
		case there:
			t.Errorf("a message in %s was\n%s\nand is\n%s", at, was.Text(), m.Text())
		case len(part) < 3:
			t.Errorf("a new message in %s is visible to everybody: %s", part[0], m.Text())
		case !named(part[2]):
			t.Errorf("%s, who is not the actor of any envelope, got a message in %s: %s", part[2], part[0], m.Text())
		}
	}
}

// withoutAnswers returns a request without the answers to clicks. Answers that were
// not there before must be sealed, as refusals are: others are plain text.
func withoutAnswers(t *testing.T, key, request, before string) string {
	t.Helper()
	var rest []string
	for _, line := range strings.Split(request, "\n") {
		answer, found := strings.CutPrefix(line, "op:")
		switch {
		case !found:
			rest = append(rest, line)
		case before != "" && !strings.Contains(before, line) && !strings.Contains(answer, "."):
			t.Errorf("%s has a new answer that is not a refusal: %s", key, answer)
		}
	}
	return strings.Join(rest, "\n")
}

// panicLog keeps the lines of a log that contain "panic".
type panicLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *panicLog) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("panic")) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lines = append(l.lines, string(line))
	}
	return len(line), nil
}

func (l *panicLog) found() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines
}

// Mutants.

// frame is one WebSocket message.
type frame struct {
	data   []byte
	binary bool
}

// mutator makes hostile frames out of a scenario's envelopes.
type mutator struct {
	r         *rand.Rand
	scenario  hostileScenario
	elsewhere string // a server that is not Slack's
	pools     []envelopePool
	ids       []string // of envelopes already sent
}

// envelopePool contains envelopes made illegitimate in one way, and the words for them.
type envelopePool struct {
	description string
	envelopes   []*jsonTree
	words       []string // to put into them
}

// The people in mutants. Authorized people may request, decide or continue
// something; the others may only see their own requests.
var (
	authorizedPeople   = []string{sandbox.Hanna, sandbox.Ravi, sandbox.Olga}
	unauthorizedPeople = []string{sandbox.Dana, sandbox.Pat, sandbox.Gloria, sandbox.Bo, sandbox.Mina, sandbox.Alex, sandbox.Elias}
)

// isActor says whether a person is the actor of any mutant.
func (m *mutator) isActor(person string) bool {
	return slices.Contains(authorizedPeople, person) || slices.Contains(unauthorizedPeople, person)
}

func newMutator(r *rand.Rand, s hostileScenario, elsewhere string) *mutator {
	m := &mutator{r: r, scenario: s, elsewhere: elsewhere}
	replaced := func(raw json.RawMessage, pairs ...string) *jsonTree {
		return parseTree([]byte(strings.NewReplacer(pairs...).Replace(string(raw))))
	}
	everybody := append(slices.Clone(authorizedPeople), unauthorizedPeople...)
	open := []string{s.pending, s.handedOff, s.review, s.secret}
	again := []string{`"again"`, `"cancel"`, `"open-form"`, `"details"`, `"choose:0"`, `"approve"`, `"choose:1"`, `"deny"`}

	nobody := envelopePool{description: "somebody without permission", words: slices.Concat(hostileWords(elsewhere), open, s.over, unauthorizedPeople, []string{
		"U0NOBODY", "W0NOBODY", "USLACKBOT", "U0COUNTER", "again", "open-form", "choose:0", "choose:7", "revoke-sessions " + sandbox.SamID, "methods " + sandbox.DanaID,
		`{"request":"` + s.pending + `","channel":"` + sandbox.Approvals + `","card":{"channel":"` + sandbox.Approvals + `","ts":"` + s.card.TS + `"}}`,
		`{"command":"revoke-sessions","channel":"` + sandbox.HelpDesk + `"}`,
	})}
	over := envelopePool{description: "something that is over", words: slices.Concat(hostileWords(elsewhere), s.over, authorizedPeople)}
	foreign := envelopePool{description: "another workspace or app", words: slices.Concat(hostileWords(elsewhere), open, s.over, everybody)}
	for i, raw := range s.envelopes {
		if i%8 > 0 {
			raw = withoutBlocks(raw)
		}
		for _, who := range unauthorizedPeople {
			var pairs []string
			for _, one := range authorizedPeople {
				pairs = append(pairs, one, who)
			}
			nobody.envelopes = append(nobody.envelopes, replaced(raw, pairs...))
		}
		isOpen := slices.ContainsFunc(open, func(id string) bool { return bytes.Contains(raw, []byte(id)) })
		if bytes.Contains(raw, []byte(`"block_actions"`)) && !isOpen {
			for _, who := range authorizedPeople {
				pairs := slices.Clone(again)
				for _, one := range unauthorizedPeople {
					pairs = append(pairs, `"`+one+`"`, `"`+who+`"`)
				}
				over.envelopes = append(over.envelopes, replaced(raw, pairs...))
			}
		}
		foreign.envelopes = append(foreign.envelopes, replaced(raw, "T0FERNHILL", "T0ELSEWHERE"), replaced(raw, "A0COUNTER", "A0ELSEWHERE"))
	}
	m.pools = []envelopePool{nobody, nobody, nobody, over, over, foreign}
	return m
}

// withoutBlocks returns an envelope without the blocks that the bot does not read, which
// take most of the time to parse: it keeps only the buttons of a message.
func withoutBlocks(raw json.RawMessage) json.RawMessage {
	t := parseTree(raw)
	var all []*jsonTree
	for _, s := range t.positions(nil) {
		if blocks, ok := s.get().(*jsonTree); ok && s.key() == "blocks" {
			all = append(all, blocks)
		}
	}
	for _, blocks := range all {
		blocks.pairs = slices.DeleteFunc(blocks.pairs, func(p pair) bool {
			block, ok := p.value.(*jsonTree)
			return ok && !slices.ContainsFunc(block.pairs, func(p pair) bool { return p.key == "type" && p.value == "actions" })
		})
	}
	var b bytes.Buffer
	t.write(&b)
	return b.Bytes()
}

// hostileWords are put into every kind of mutant.
func hostileWords(elsewhere string) []string {
	return []string{
		"", " ", "0", "null", "approve", "deny", "cancel", "halt", "details", "reveal", "attest", "confirm", "retract", "break-glass", "justified", "not-justified", "approve:1", "APPROVE", "approve ",
		"form", "deny-form", "glass-form", "review-form",
		"block_actions", "view_submission", "view_closed", "shortcut", "message_action", "dialog_submission", "interactive_message", "block_suggestion", "button", "static_select",
		"/entra-help", "/entra-", "/", "methods", "/entra-block-signin", "/entra-unknown", "T0ELSEWHERE", "E0GRID", "A0ELSEWHERE", "B0COUNTER",
		sandbox.HelpDesk, sandbox.Approvals, sandbox.Audit, sandbox.General, sandbox.Vendor, "C0NOWHERE", "D0DANA", "G0OLD", "1.1", "1700000000.000001", "R-00000000", "R-AAAAAAA", "r-aaaaaaaa",
		"../../../etc/passwd", "..%2f..%2f", "R-0000/../R-1111", "{countersign}:holder:x", "inbox", "*", "$(reboot)", "'; DROP TABLE requests; --", "%s%n%x", "\x00", "a\x00b", "\r\n\r\n",
		"\u202emoc.elpmaxe\u202c", "\u200b\u200e\ufeff", "e\u0301\u0301\u0301\u0301\u0301", "<@U0NOBODY>", "<!channel>", "<mailto:a@b|c>", "&lt;&gt;&amp;", "verified=compromise",
		elsewhere + "/commands/T/1/x", "file:///etc/passwd", "https://user@elsewhere.example/", "://", "12.34.abc", "999999999999.1.x", `{"command":"help"}`, `{`, `[]`, `"`,
		strings.Repeat("x", 300), strings.Repeat("é", 5000),
	}
}

// next returns another hostile frame. reconnects says that it makes the bot
// reconnect; later frames on this connection are lost.
func (m *mutator) next() (f frame, reconnects bool) {
	switch n := m.r.IntN(1000); {
	case n < 1:
		return frame{data: m.pick([]byte(`{"type":"disconnect","reason":"link_disabled"}`), []byte(`{"type":"disconnect","reason":null,"debug_info":{}}`),
			bytes.Repeat([]byte("["), 2<<20), []byte(`{"envelope_id":"x","type":"interactive","payload":"`+strings.Repeat("x", 3<<19)+`"}`))}, true
	case n < 40:
		return frame{m.pick(nil, []byte("\x00\x01\x02"), []byte("hello"), []byte("null"), []byte("[]"), []byte("{}"), []byte(`"disconnect"`), []byte("12"), []byte("\xef\xbb\xbf{}"), []byte("{}{}"),
			[]byte(`{"type":"hello","num_connections":1,"connection_info":{"app_id":"A0ELSEWHERE"}}`), []byte(`{"type":"hello","num_connections":-1}`), []byte(`{"type":"hello","connection_info":null}`),
			[]byte(`{"type":"events_api","envelope_id":"e","payload":{"type":"app_rate_limited"}}`), []byte(`{"type":"events_api","envelope_id":"e","payload":{"type":"url_verification","challenge":"x"}}`),
			[]byte(`{"type":"slash_commands","envelope_id":"e"}`), []byte(`{"type":"interactive","envelope_id":"e","payload":[]}`), []byte(`{"type":["hello"]}`),
			[]byte(`{"type":"warning"}`), bytes.Repeat([]byte("{\"a\":"), 20_000), append(bytes.Repeat([]byte("["), 9000), bytes.Repeat([]byte("]"), 9000)...)), m.r.IntN(3) == 0}, false
	}
	from := m.pools[m.r.IntN(len(m.pools))]
	tree := from.envelopes[m.r.IntN(len(from.envelopes))].clone()
	m.setEnvelopeID(tree)
	for range 1 + m.r.IntN(4) {
		m.mutate(tree, from.words)
	}
	var b bytes.Buffer
	tree.write(&b)
	data := b.Bytes()
	if m.r.IntN(20) == 0 {
		data = m.corruptBytes(data)
	}
	return frame{data: data, binary: m.r.IntN(50) == 0}, false
}

func (m *mutator) pick(list ...[]byte) []byte { return list[m.r.IntN(len(list))] }

// setEnvelopeID gives an envelope an id: a new one, the id of an earlier different
// envelope, none, or one that looks like an internal id.
func (m *mutator) setEnvelopeID(t *jsonTree) {
	id := rawJSON(fmt.Sprintf(`"%08x-hostile-%d"`, m.r.Uint32(), len(m.ids)))
	switch n := m.r.IntN(100); {
	case n < 75 && len(m.ids) > 0:
		id = rawJSON(m.ids[m.r.IntN(len(m.ids))])
	case n < 80:
		id = rawJSON([]string{`""`, `null`, `7`, `{}`, `"claim:1"`, `"expire:1"`, `"run:1:begin:0"`, `"warn"`, `"remind:2"`, `"x#alarm"`, `"../e"`, `"a b"`, `"\u202e"`, `"*"`,
			`"` + strings.Repeat("e", 30_000) + `"`}[m.r.IntN(15)])
	default:
		m.ids = append(m.ids[max(0, len(m.ids)-500):], string(id))
	}
	for i, p := range t.pairs {
		if p.key == "envelope_id" {
			t.pairs[i].value = id
		}
	}
}

// knownFields are the names of the fields that the bot, or slack-go, reads.
var knownFields = []string{"type", "payload", "user_id", "team_id", "api_app_id", "command", "text", "response_url", "trigger_id", "channel_id", "is_enterprise_install", "enterprise_id",
	"id", "actions", "action_id", "value", "block_id", "container", "message_ts", "channel", "user", "team", "enterprise", "view", "state", "values", "private_metadata", "callback_id",
	"message", "blocks", "elements", "ts", "event", "tab", "selected_option", "selected_user", "accepts_response_payload", "retry_attempt"}

// mutate changes one thing in a tree.
func (m *mutator) mutate(t *jsonTree, words []string) {
	spots := t.positions(nil)
	if m.r.IntN(3) > 0 { // prefer fields that are read
		if some := slices.DeleteFunc(slices.Clone(spots), func(s position) bool { return !slices.Contains(knownFields, s.key()) }); len(some) > 0 {
			spots = some
		}
	}
	s := spots[m.r.IntN(len(spots))]
	if s.key() == "envelope_id" {
		return
	}
	word := words[m.r.IntN(len(words))]
	if who, ok := s.get().(string); ok && m.r.IntN(2) == 0 && slices.Contains(unauthorizedPeople, who) {
		word = []string{"U0NOBODY", "W0NOBODY", "USLACKBOT", "U0COUNTER", "u0dana", "U", "B0COUNTER", "U0DANA U0MINA", "<@U0DANA>"}[m.r.IntN(9)]
	}
	switch n := m.r.IntN(100); {
	case n < 40:
		s.set(word)
	case n < 50:
		s.remove()
	case n < 58:
		s.set(nil)
	case n < 72: // of another type
		s.set([]any{word, true, rawJSON("-1"), rawJSON("1e400"), rawJSON(strings.Repeat("9", 400)), rawJSON("0.1"), &jsonTree{}, &jsonTree{array: true},
			&jsonTree{array: true, pairs: []pair{{"", word}, {"", nil}, {"", &jsonTree{}}}}, &jsonTree{pairs: []pair{{"id", word}, {"type", word}, {"values", word}}}}[m.r.IntN(10)])
	case n < 78: // duplicate key, with another value after or before it
		s.duplicate(word, m.r.IntN(2) == 0)
	case n < 83: // swap two values
		o := spots[m.r.IntN(len(spots))]
		if a, b := s.get(), o.get(); o.key() != "envelope_id" && !containsTree(a, b) && !containsTree(b, a) {
			s.set(b)
			o.set(a)
		}
	case n < 88:
		s.setKey(strings.ToUpper(s.key()))
	case n < 91:
		s.setKey(word)
	case n < 94: // not UTF-8
		s.set(rawJSON("\"\xff\xfe\xc0\x80" + strings.Trim(string(encodeJSON(word)), "\"") + "\""))
	case n < 96:
		s.set(rawJSON(strings.Repeat("[", 500) + strings.Repeat("]", 500)))
	case n < 97 && m.r.IntN(4) == 0:
		s.set(strings.Repeat(word+"x", 200_000/(len(word)+1)))
	case n < 98 && m.r.IntN(8) == 0:
		s.set(rawJSON("[" + strings.Repeat(m.element(word)+",", 99_999) + "0]"))
	default:
		s.set(rawJSON(`"\ud800` + strings.Trim(string(encodeJSON(word)), "\"") + `"`))
	}
}

func (m *mutator) element(word string) string {
	return []string{"0", "null", "{}", `""`, "[]"}[m.r.IntN(5)]
}

// corruptBytes changes single bytes.
func (m *mutator) corruptBytes(data []byte) []byte {
	data = slices.Clone(data)
	at := m.r.IntN(len(data))
	switch m.r.IntN(4) {
	case 0:
		return data[:at]
	case 1:
		data[at] ^= 1 << m.r.IntN(8)
		return data
	case 2:
		return slices.Insert(data, at, byte(m.r.IntN(256)))
	}
	return slices.Delete(data, at, min(len(data), at+1+m.r.IntN(20)))
}

// jsonTree is a JSON object or array that keeps its order, and may contain what no
// JSON library would write.
type jsonTree struct {
	array bool
	pairs []pair
}

type pair struct {
	key   string
	value any // *tree, string, nil, true, false, or verbatim
}

// rawJSON is written unchanged.
type rawJSON string

func parseTree(raw []byte) *jsonTree {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	t, ok := decodeValue(d).(*jsonTree)
	if !ok {
		panic("an envelope is an object")
	}
	return t
}

func (t *jsonTree) clone() *jsonTree {
	c := &jsonTree{t.array, slices.Clone(t.pairs)}
	for i, p := range c.pairs {
		if under, ok := p.value.(*jsonTree); ok {
			c.pairs[i].value = under.clone()
		}
	}
	return c
}

func decodeValue(d *json.Decoder) any {
	token, err := d.Token()
	if err != nil {
		panic(err)
	}
	switch token := token.(type) {
	case json.Delim:
		t := &jsonTree{array: token == '['}
		for d.More() {
			var p pair
			if !t.array {
				p.key, _ = decodeValue(d).(string)
			}
			p.value = decodeValue(d)
			t.pairs = append(t.pairs, p)
		}
		if _, err := d.Token(); err != nil && err != io.EOF {
			panic(err)
		}
		return t
	case json.Number:
		return rawJSON(token)
	default:
		return token
	}
}

func (t *jsonTree) write(b *bytes.Buffer) {
	brackets := "{}"
	if t.array {
		brackets = "[]"
	}
	b.WriteByte(brackets[0])
	for i, p := range t.pairs {
		if i > 0 {
			b.WriteByte(',')
		}
		if !t.array {
			b.Write(encodeJSON(p.key))
			b.WriteByte(':')
		}
		switch v := p.value.(type) {
		case *jsonTree:
			v.write(b)
		case rawJSON:
			b.WriteString(string(v))
		default:
			b.Write(encodeJSON(v))
		}
	}
	b.WriteByte(brackets[1])
}

func encodeJSON(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return raw
}

// position is a position in a tree.
type position struct {
	in *jsonTree
	at int
}

func (t *jsonTree) positions(found []position) []position {
	for i, p := range t.pairs {
		found = append(found, position{t, i})
		if under, ok := p.value.(*jsonTree); ok {
			found = under.positions(found)
		}
	}
	return found
}

func containsTree(outer, inner any) bool {
	o, ok := outer.(*jsonTree)
	if !ok {
		return false
	}
	if outer == inner {
		return true
	}
	return slices.ContainsFunc(o.pairs, func(p pair) bool { return containsTree(p.value, inner) })
}

func (s position) key() string      { return s.in.pairs[s.at].key }
func (s position) get() any         { return s.in.pairs[s.at].value }
func (s position) set(v any)        { s.in.pairs[s.at].value = v }
func (s position) setKey(as string) { s.in.pairs[s.at].key = as }
func (s position) remove()          { s.in.pairs = slices.Delete(s.in.pairs, s.at, s.at+1) }
func (s position) duplicate(v any, before bool) {
	at := s.at + 1
	if before {
		at = s.at
	}
	s.in.pairs = slices.Insert(s.in.pairs, at, pair{s.key(), v})
}
