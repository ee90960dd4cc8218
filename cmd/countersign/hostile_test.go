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
// arrive over the real socket while a request waits for approval, another for
// somebody's word, and a password to be opened. None makes the bot panic, none
// changes anything, and none leaves anything behind in memory.
//
// What may be there afterwards: refusals in the record, the answers kept for a
// second delivery (note:, envelope:, and op: in a request, all of them
// refusals), the rate counters, and how far the record, its readers and the
// processes are. All other keys are as they were, to the byte. The tenant is as
// it was. Nobody was told anything but those who are said to have done it, and
// they alone.
//
// That no mutant is legitimate is so by construction: a legitimate deed takes a
// person with a say, something that is still open, and our workspace and app.
// Each mutant is made from an envelope from which one of the three was taken
// everywhere in its bytes, and nothing that is put into it holds that either.
//
// With one seed, more envelopes than 2,500 find nothing new. A long run is
//
//	COUNTERSIGN_HOSTILE_ENVELOPES=50000 COUNTERSIGN_TEST_SEED=random go test -race -run TestHostileEnvelopes -timeout 60m -v ./cmd/countersign
func TestHostileEnvelopes(t *testing.T) {
	envelopes, seed := int(number(t, "COUNTERSIGN_HOSTILE_ENVELOPES", 2_500)), testseed.Seed(t)
	w := begin(t, func(c *config) {
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
	story := w.everyEnvelope()

	// An address that is not Slack's, for response URLs.
	var reached atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	t.Cleanup(elsewhere.Close)
	m := newMutator(rand.New(rand.NewPCG(seed, 1)), story, strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1))

	record, ended := w.follow()
	t.Cleanup(ended)
	w.settles()
	record.forget()
	before := w.look()
	const batch = 50
	batches := max(5, (envelopes+batch-1)/batch)
	envelopes = batches * batch
	heap, routines := map[int]uint64{}, map[int]int{}
	early, last := batches/5, batches
	answered := w.acks()
	for n := 1; n <= batches; n++ {
		for range batch {
			f, reconnects := m.next()
			opened := w.opened(reconnects)
			w.frame(f)
			if reconnects {
				w.soon("another connection", func() bool { return w.opened(true) > opened })
			}
		}
		w.answers()
		if n == early || n == last {
			w.settles()
			w.look().differs(t, before, m.named)
			heap[n], routines[n] = w.weighs(before)
		}
	}
	answered = w.acks() - answered

	// They did arrive, and some got as far as the rules.
	t.Logf("%d of %d were acked, and refused were %v; the heap held %d and then %d KiB, with %d and then %d goroutines",
		answered, envelopes, record.refused, heap[early]>>10, heap[last]>>10, routines[early], routines[last])
	for _, line := range record.other {
		t.Errorf("the record has: %s", line)
	}
	acked, refused := answered, record.refused
	if acked < envelopes/5 {
		t.Errorf("only %d envelopes were acked: the others never got as far as the bot", acked)
	}
	for _, code := range []approvals.Code{approvals.CodeOutsider, approvals.CodeGuest, approvals.CodeNotAllowed, approvals.CodeDecided, approvals.CodeChannel} {
		if refused[string(code)] == 0 {
			t.Errorf("no refusal of the kind %q: these envelopes do not try what they should", code)
		}
	}
	if lines := panics.found(); len(lines) > 0 {
		t.Errorf("it panicked:\n%s", strings.Join(lines, "\n"))
	}
	if n := reached.Load(); n > 0 {
		t.Errorf("another server than Slack's was told something %d times", n)
	}
	// Some 650 are looked at between the two: 3 MiB are 5 KiB for each.
	if grown := int64(heap[last]) - int64(heap[early]); grown > 3<<20 && w.redis.Real() {
		t.Errorf("the heap grew by %d KiB", grown>>10)
	}
	if routines[last] > routines[early]+20 {
		t.Errorf("%d goroutines became %d", routines[early], routines[last])
	}
	w.finishes(story)
}

// story is what went on before: which requests are open, which are over, and
// the envelopes of all that people did.
type story struct {
	pending, handedOff, review, secret string // open in one way or another
	over                               []string
	card                               sandbox.Message // of the pending one
	envelopes                          []json.RawMessage
}

// everyEnvelope has people do everything that the bot hears of.
func (w *world) everyEnvelope() story {
	w.Helper()
	hanna, ravi, dana := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals), w.as(sandbox.Dana, sandbox.Approvals)
	auditor := w.as(sandbox.Gloria, sandbox.Audit)
	var s story
	asks := func(line string, parts ...string) (sandbox.Message, string) {
		w.Helper()
		hanna.types(line)
		card := ravi.reads(append(parts, "waiting for approval")...)
		return card, requestID.FindString(card.Text())
	}
	for _, h := range []*hands{hanna, ravi, dana} {
		w.must(h.p.Home())
	}
	hanna.types("/entra-help")
	hanna.types("/entra-methods dana.whitfield@fernhill.example")
	hanna.reads("Authentication methods", "dana.whitfield@")
	w.must(w.client.PatchUser("sam.ito@fernhill.example", map[string]any{"mail": "alex.morgan@fernhill.example"}))
	hanna.types("/entra-methods alex.morgan@fernhill.example")
	hanna.presses(hanna.reads("fits 2 people"), "choose:0")
	w.must(w.client.PatchUser("sam.ito@fernhill.example", map[string]any{"mail": "sam.ito@fernhill.example"}))

	// Through the form, after it did not open; details, and approved.
	w.must(w.client.SetSlackFaults(slack.Fault{Method: "views.open", Kind: "error", Error: "expired_trigger_id", Times: 1}))
	hanna.types("/entra-require-reregister @dana lost phone")
	hanna.presses(hanna.reads("What you typed is kept"), "open-form")
	form := hanna.sees("How did you make sure who was asking?", "dana.whitfield@")
	if a := hanna.submits(form, map[string]string{"verified": "video", "target_name": "dana.whitfield@fernhill.example"}); a.OK {
		w.Fatal("a form with two targets was taken")
	}
	if a := hanna.submits(form, map[string]string{"verified": "video", "target_name": ""}); !a.OK {
		w.Fatalf("the form was not taken: %+v", a)
	}
	card := ravi.reads("waiting for approval", danaUPN)
	ravi.presses(card, "details")
	w.must(ravi.p.Close(ravi.sees("What will happen").ID))
	dana.presses(card, "approve")
	dana.reads("your own account")
	ravi.presses(card, "approve")
	auditor.reads("Succeeded: ", requestID.FindString(card.Text()))
	s.over = append(s.over, requestID.FindString(card.Text()))

	// Denied, through its form, and cancelled.
	card, id := asks("/entra-revoke-sessions @mina stolen", "mina.haddad@")
	ravi.presses(card, "deny")
	if a := ravi.submits(ravi.sees("A denial is final"), map[string]string{"reason": "not stolen"}); !a.OK {
		w.Fatalf("the denial was not taken: %+v", a)
	}
	auditor.reads("denied", id)
	s.over = append(s.over, id)
	_, id = asks("/entra-revoke-sessions @alex stolen", "alex.morgan@")
	hanna.dm().presses(hanna.dm().reads("waiting for approval", id), "cancel")
	auditor.reads("cancelled", id)
	s.over = append(s.over, id)

	// A pass, opened by its requester; a password that nobody has opened yet.
	card, id = asks("/entra-issue-pass @alex 60m once verified=in-person new phone", "new phone")
	ravi.presses(card, "approve")
	hanna.dm().presses(hanna.dm().reads("Done: ", id), "reveal")
	w.must(hanna.p.Close(hanna.sees("For your eyes only", "alex.morgan@").ID))
	auditor.reads("opened the secret", id)
	s.over = append(s.over, id)
	card, s.secret = asks("/entra-reset-password @mina verified=video forgotten", "forgotten")
	ravi.presses(card, "approve")
	hanna.dm().reads("Done: ", s.secret, "Press Reveal")

	// Something done by hand, and something that nobody has confirmed yet.
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
	// Broken glass that somebody else has reviewed, and that waits for it.
	card, id = asks("/entra-revoke-sessions @alex stolen once more", "alex.morgan@", "once more")
	olga.presses(card, "break-glass")
	if a := olga.submits(olga.sees("What happens when you break the glass", " for "), map[string]string{"reason": "sign-ins from abroad"}); !a.OK {
		w.Fatalf("the reason was not taken: %+v", a)
	}
	ravi.presses(ravi.reads("review due", id), "justified")
	if a := ravi.submits(ravi.sees("You say with your name", "Glass broken by"), map[string]string{"reason": "it was"}); !a.OK {
		w.Fatalf("the review was not taken: %+v", a)
	}
	auditor.reads("reviewed", id)
	s.over = append(s.over, id)
	w.as(sandbox.Olga, sandbox.HelpDesk).types("/entra-revoke-sessions @sam break-glass laptop stolen")
	s.review = requestID.FindString(ravi.reads("review due", "sam.ito@").Text())
	// And what waits for its approval.
	s.card, s.pending = asks("/entra-revoke-sessions @dana laptop stolen", "laptop stolen", "Dana Whitfield")
	dana.presses(s.card, "approve")
	auditor.reads("dana.whitfield@", "tried to approve", s.pending)
	dana.presses(s.card, "details")
	w.must(dana.p.Close(dana.sees("may not use this command").ID))
	hanna.types("/entra-requests pending")
	hanna.presses(hanna.reads("On the desk", s.pending), "details")
	w.must(hanna.p.Close(hanna.sees("What will happen").ID))
	hanna.p.Home()

	s.envelopes = w.box.Slack.Delivered()
	// What Slack sends of forms and selects that Countersign does not have.
	var derived []json.RawMessage
	for _, raw := range s.envelopes {
		if bytes.Contains(raw, []byte(`"view_submission"`)) {
			derived = append(derived,
				bytes.Replace(raw, []byte(`"view_submission"`), []byte(`"view_closed","is_cleared":false`), 1),
				bytes.Replace(raw, []byte(`"view_submission"`), []byte(`"block_suggestion","block_id":"target","action_id":"target","value":"da"`), 1))
		}
	}
	// Cards are in one channel only; somebody could believe another.
	for _, raw := range s.envelopes {
		if bytes.Contains(raw, []byte(`"actions":[{"action_id":"approve"`)) {
			for _, channel := range []string{sandbox.HelpDesk, sandbox.Vendor} {
				derived = append(derived, bytes.ReplaceAll(raw, []byte(sandbox.Approvals), []byte(channel)))
			}
		}
	}
	// A button that says something else than the card it is on.
	open := append([]string{s.pending, s.handedOff, s.review, s.secret}, s.over...)
	for i, raw := range s.envelopes {
		if !bytes.Contains(raw, []byte(`"actions":[{"action_id":"`)) || !bytes.Contains(raw, []byte(sandbox.Approvals)) {
			continue
		}
		t := parseTree(raw)
		for _, spot := range t.spots(nil) {
			if spot.key() != "actions" {
				continue
			}
			for _, in := range spot.get().(*tree).spots(nil) {
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
			w.Fatalf("the story has no envelope with %s", kind)
		}
	}
	return s
}

// finishes carries on with what was open: the bot has come through.
func (w *world) finishes(s story) {
	w.Helper()
	w.must(w.client.As(sandbox.Ravi).Reload())
	hanna, ravi, olga := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals), w.as(sandbox.Olga, sandbox.Approvals)
	olga.presses(s.card, "approve")
	olga.reads("Revoke sessions: done", s.pending)
	olga.presses(olga.reads("to be confirmed by somebody else", s.handedOff), "confirm")
	ravi.reads("done by hand and confirmed", s.handedOff)
	ravi.presses(ravi.reads("review due", s.review), "justified")
	if a := ravi.submits(ravi.sees("You say with your name", "Glass broken by"), map[string]string{"reason": "it was"}); !a.OK {
		w.Fatalf("the review was not taken: %+v", a)
	}
	w.as(sandbox.Gloria, sandbox.Audit).reads("reviewed", s.review)
	secrets, err := w.client.Secrets("mina.haddad@fernhill.example")
	w.must(err)
	hanna.dm().presses(hanna.dm().reads("Done: ", s.secret), "reveal")
	hanna.sees("For your eyes only", secrets.Password)
}

// frame sends something to the bot as soon as there is a socket.
func (w *world) frame(f frame) {
	w.Helper()
	if !w.box.Slack.Frame(f.binary, f.data) {
		w.soon("a socket", func() bool { return w.box.Slack.Frame(f.binary, f.data) })
	}
}

// opened counts the connections that the bot has had, where somebody cares.
func (w *world) opened(care bool) int {
	w.Helper()
	if !care {
		return 0
	}
	calls, err := w.client.SlackCalls()
	w.must(err)
	return calls.Methods["apps.connections.open"].Calls
}

// acks counts the acks that came for frames.
func (w *world) acks() int {
	w.Helper()
	calls, err := w.client.SlackCalls()
	w.must(err)
	return calls.Envelopes.Dropped
}

// answers waits until the bot answers an envelope, which it does after it has
// taken all that came before.
func (w *world) answers() {
	w.Helper()
	w.soon("an answer", func() bool {
		_, err := w.box.Slack.Deliver("interactive", map[string]any{"type": "shortcut"})
		return err == nil
	})
}

// settles waits until nothing is left to be done.
func (w *world) settles() {
	w.Helper()
	w.answers()
	rdb := w.redis.Client(w.T)
	store := w.store(rdb)
	w.soon("an empty inbox, and everything told", func() bool {
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

func (w *world) store(rdb redis.UniversalClient) *approvals.Store {
	return approvals.NewStore(rdb, w.service.secrets.Ring, "", w.service.config.Timing)
}

// record is what is recorded, counted.
type record struct {
	mu      sync.Mutex
	refused map[string]int // by code
	other   []string       // everything else, as the auditor reads it
}

// follow counts what is recorded, until stop.
func (w *world) follow() (r *record, stop func()) {
	r = &record{refused: map[string]int{}}
	ctx, cancel := context.WithCancel(context.Background())
	store := w.store(w.redis.Client(w.T))
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

// forget begins to count anew.
func (r *record) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused, r.other = map[string]int{}, nil
}

// weighs is how much memory this process has in use, and how many goroutines
// are at work, once it is quiet. What Slack keeps of the record is not the
// bot's, and is thrown away first.
func (w *world) weighs(since sight) (heap uint64, routines int) {
	w.Helper()
	w.box.Slack.Forget(since.last)
	routines = runtime.NumGoroutine()
	w.soon("quiet", func() bool {
		was := routines
		routines = runtime.NumGoroutine()
		return routines >= was
	})
	for range 3 {
		runtime.GC()
	}
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc, routines
}

// sight is everything that a hostile envelope must not change.
type sight struct {
	redis    map[string]string
	tenant   string
	changes  int                        // calls of Graph that change something
	messages map[string]sandbox.Message // by channel and timestamp; those for one person by that person, too
	last     string                     // timestamp
}

func (w *world) look() sight {
	w.Helper()
	s := sight{redis: w.redis.Dump(w.T), messages: map[string]sandbox.Message{}}
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
				continue // its lines are the record's
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

// differs reports what is not as it was before. named says who may have been
// told something.
func (now sight) differs(t *testing.T, before sight, named func(person string) bool) {
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
			t.Errorf("everybody in %s reads: %s", part[0], m.Text())
		case !named(part[2]):
			t.Errorf("%s, whom no envelope named, reads in %s: %s", part[2], part[0], m.Text())
		}
	}
}

// withoutAnswers is a request without the answers to presses. Those that were
// not there before must be sealed, as refusals are: others are in plain words.
func withoutAnswers(t *testing.T, key, request, before string) string {
	t.Helper()
	var rest []string
	for _, line := range strings.Split(request, "\n") {
		answer, found := strings.CutPrefix(line, "op:")
		switch {
		case !found:
			rest = append(rest, line)
		case before != "" && !strings.Contains(before, line) && !strings.Contains(answer, "."):
			t.Errorf("%s has the answer %s", key, answer)
		}
	}
	return strings.Join(rest, "\n")
}

// panicLog keeps of a log what speaks of a panic.
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

// mutator makes hostile frames out of a story's envelopes.
type mutator struct {
	r         *rand.Rand
	story     story
	elsewhere string // a server that is not Slack's
	stock     []stock
	ids       []string // of envelopes already sent
}

// stock is one way to make an envelope illegitimate, and what goes with it.
type stock struct {
	what      string
	envelopes []*tree
	words     []string // to put into them
}

// The people in mutants. Those with a say may request, decide or carry on with
// something; none of the others may do anything but look at their own.
var (
	withSay    = []string{sandbox.Hanna, sandbox.Ravi, sandbox.Olga}
	withoutSay = []string{sandbox.Dana, sandbox.Pat, sandbox.Gloria, sandbox.Bo, sandbox.Mina, sandbox.Alex, sandbox.Elias}
)

// named says whether a person stands in any mutant as the one who did it.
func (m *mutator) named(person string) bool {
	return slices.Contains(withSay, person) || slices.Contains(withoutSay, person)
}

func newMutator(r *rand.Rand, s story, elsewhere string) *mutator {
	m := &mutator{r: r, story: s, elsewhere: elsewhere}
	replaced := func(raw json.RawMessage, pairs ...string) *tree {
		return parseTree([]byte(strings.NewReplacer(pairs...).Replace(string(raw))))
	}
	everybody := append(slices.Clone(withSay), withoutSay...)
	open := []string{s.pending, s.handedOff, s.review, s.secret}
	again := []string{`"again"`, `"cancel"`, `"open-form"`, `"details"`, `"choose:0"`, `"approve"`, `"choose:1"`, `"deny"`}

	nobody := stock{what: "somebody without a say", words: slices.Concat(words(elsewhere), open, s.over, withoutSay, []string{
		"U0NOBODY", "W0NOBODY", "USLACKBOT", "U0COUNTER", "again", "open-form", "choose:0", "choose:7", "revoke-sessions " + sandbox.SamID, "methods " + sandbox.DanaID,
		`{"request":"` + s.pending + `","channel":"` + sandbox.Approvals + `","card":{"channel":"` + sandbox.Approvals + `","ts":"` + s.card.TS + `"}}`,
		`{"command":"revoke-sessions","channel":"` + sandbox.HelpDesk + `"}`,
	})}
	over := stock{what: "something that is over", words: slices.Concat(words(elsewhere), s.over, withSay)}
	foreign := stock{what: "another workspace or app", words: slices.Concat(words(elsewhere), open, s.over, everybody)}
	for i, raw := range s.envelopes {
		if i%8 > 0 {
			raw = shortened(raw)
		}
		for _, who := range withoutSay {
			var pairs []string
			for _, one := range withSay {
				pairs = append(pairs, one, who)
			}
			nobody.envelopes = append(nobody.envelopes, replaced(raw, pairs...))
		}
		isOpen := slices.ContainsFunc(open, func(id string) bool { return bytes.Contains(raw, []byte(id)) })
		if bytes.Contains(raw, []byte(`"block_actions"`)) && !isOpen {
			for _, who := range withSay {
				pairs := slices.Clone(again)
				for _, one := range withoutSay {
					pairs = append(pairs, `"`+one+`"`, `"`+who+`"`)
				}
				over.envelopes = append(over.envelopes, replaced(raw, pairs...))
			}
		}
		foreign.envelopes = append(foreign.envelopes, replaced(raw, "T0FERNHILL", "T0ELSEWHERE"), replaced(raw, "A0COUNTER", "A0ELSEWHERE"))
	}
	m.stock = []stock{nobody, nobody, nobody, over, over, foreign}
	return m
}

// shortened is an envelope without the blocks that nobody here looks at, which
// take most of the time to read: of a message it keeps the buttons.
func shortened(raw json.RawMessage) json.RawMessage {
	t := parseTree(raw)
	var all []*tree
	for _, s := range t.spots(nil) {
		if blocks, ok := s.get().(*tree); ok && s.key() == "blocks" {
			all = append(all, blocks)
		}
	}
	for _, blocks := range all {
		blocks.pairs = slices.DeleteFunc(blocks.pairs, func(p pair) bool {
			block, ok := p.value.(*tree)
			return ok && !slices.ContainsFunc(block.pairs, func(p pair) bool { return p.key == "type" && p.value == "actions" })
		})
	}
	var b bytes.Buffer
	t.write(&b)
	return b.Bytes()
}

// words are what is put into every kind of mutant.
func words(elsewhere string) []string {
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

// next is another hostile frame. reconnects says that it makes the bot connect
// anew, and what is behind it on this connection is lost.
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
	from := m.stock[m.r.IntN(len(m.stock))]
	tree := from.envelopes[m.r.IntN(len(from.envelopes))].clone()
	m.rename(tree)
	for range 1 + m.r.IntN(4) {
		m.change(tree, from.words)
	}
	var b bytes.Buffer
	tree.write(&b)
	data := b.Bytes()
	if m.r.IntN(20) == 0 {
		data = m.garble(data)
	}
	return frame{data: data, binary: m.r.IntN(50) == 0}, false
}

func (m *mutator) pick(list ...[]byte) []byte { return list[m.r.IntN(len(list))] }

// rename gives an envelope an id: a new one, one that was there before with
// something else in it, none, or one that looks like our own.
func (m *mutator) rename(t *tree) {
	id := verbatim(fmt.Sprintf(`"%08x-hostile-%d"`, m.r.Uint32(), len(m.ids)))
	switch n := m.r.IntN(100); {
	case n < 75 && len(m.ids) > 0:
		id = verbatim(m.ids[m.r.IntN(len(m.ids))])
	case n < 80:
		id = verbatim([]string{`""`, `null`, `7`, `{}`, `"claim:1"`, `"expire:1"`, `"run:1:begin:0"`, `"warn"`, `"remind:2"`, `"x#alarm"`, `"../e"`, `"a b"`, `"\u202e"`, `"*"`,
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

// known are the names of what the bot, or the library before it, looks at.
var known = []string{"type", "payload", "user_id", "team_id", "api_app_id", "command", "text", "response_url", "trigger_id", "channel_id", "is_enterprise_install", "enterprise_id",
	"id", "actions", "action_id", "value", "block_id", "container", "message_ts", "channel", "user", "team", "enterprise", "view", "state", "values", "private_metadata", "callback_id",
	"message", "blocks", "elements", "ts", "event", "tab", "selected_option", "selected_user", "accepts_response_payload", "retry_attempt"}

// change does one thing to a tree.
func (m *mutator) change(t *tree, words []string) {
	spots := t.spots(nil)
	if m.r.IntN(3) > 0 { // rather where somebody looks
		if some := slices.DeleteFunc(slices.Clone(spots), func(s spot) bool { return !slices.Contains(known, s.key()) }); len(some) > 0 {
			spots = some
		}
	}
	s := spots[m.r.IntN(len(spots))]
	if s.key() == "envelope_id" {
		return
	}
	word := words[m.r.IntN(len(words))]
	if who, ok := s.get().(string); ok && m.r.IntN(2) == 0 && slices.Contains(withoutSay, who) {
		word = []string{"U0NOBODY", "W0NOBODY", "USLACKBOT", "U0COUNTER", "u0dana", "U", "B0COUNTER", "U0DANA U0MINA", "<@U0DANA>"}[m.r.IntN(9)]
	}
	switch n := m.r.IntN(100); {
	case n < 40:
		s.set(word)
	case n < 50:
		s.drop()
	case n < 58:
		s.set(nil)
	case n < 72: // of another type
		s.set([]any{word, true, verbatim("-1"), verbatim("1e400"), verbatim(strings.Repeat("9", 400)), verbatim("0.1"), &tree{}, &tree{array: true},
			&tree{array: true, pairs: []pair{{"", word}, {"", nil}, {"", &tree{}}}}, &tree{pairs: []pair{{"id", word}, {"type", word}, {"values", word}}}}[m.r.IntN(10)])
	case n < 78: // twice, with another value behind or before it
		s.twice(word, m.r.IntN(2) == 0)
	case n < 83: // somebody else's place
		o := spots[m.r.IntN(len(spots))]
		if a, b := s.get(), o.get(); o.key() != "envelope_id" && !within(a, b) && !within(b, a) {
			s.set(b)
			o.set(a)
		}
	case n < 88:
		s.call(strings.ToUpper(s.key()))
	case n < 91:
		s.call(word)
	case n < 94: // not UTF-8
		s.set(verbatim("\"\xff\xfe\xc0\x80" + strings.Trim(string(quoted(word)), "\"") + "\""))
	case n < 96:
		s.set(verbatim(strings.Repeat("[", 500) + strings.Repeat("]", 500)))
	case n < 97 && m.r.IntN(4) == 0:
		s.set(strings.Repeat(word+"x", 200_000/(len(word)+1)))
	case n < 98 && m.r.IntN(8) == 0:
		s.set(verbatim("[" + strings.Repeat(m.element(word)+",", 99_999) + "0]"))
	default:
		s.set(verbatim(`"\ud800` + strings.Trim(string(quoted(word)), "\"") + `"`))
	}
}

func (m *mutator) element(word string) string {
	return []string{"0", "null", "{}", `""`, "[]"}[m.r.IntN(5)]
}

// garble changes single bytes.
func (m *mutator) garble(data []byte) []byte {
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

// tree is a JSON object or array that keeps its order, and may hold what no
// JSON library would write.
type tree struct {
	array bool
	pairs []pair
}

type pair struct {
	key   string
	value any // *tree, string, nil, true, false, or verbatim
}

// verbatim is written as it stands.
type verbatim string

func parseTree(raw []byte) *tree {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	t, ok := value(d).(*tree)
	if !ok {
		panic("an envelope is an object")
	}
	return t
}

func (t *tree) clone() *tree {
	c := &tree{t.array, slices.Clone(t.pairs)}
	for i, p := range c.pairs {
		if under, ok := p.value.(*tree); ok {
			c.pairs[i].value = under.clone()
		}
	}
	return c
}

func value(d *json.Decoder) any {
	token, err := d.Token()
	if err != nil {
		panic(err)
	}
	switch token := token.(type) {
	case json.Delim:
		t := &tree{array: token == '['}
		for d.More() {
			var p pair
			if !t.array {
				p.key, _ = value(d).(string)
			}
			p.value = value(d)
			t.pairs = append(t.pairs, p)
		}
		if _, err := d.Token(); err != nil && err != io.EOF {
			panic(err)
		}
		return t
	case json.Number:
		return verbatim(token)
	default:
		return token
	}
}

func (t *tree) write(b *bytes.Buffer) {
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
			b.Write(quoted(p.key))
			b.WriteByte(':')
		}
		switch v := p.value.(type) {
		case *tree:
			v.write(b)
		case verbatim:
			b.WriteString(string(v))
		default:
			b.Write(quoted(v))
		}
	}
	b.WriteByte(brackets[1])
}

func quoted(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return raw
}

// spot is a place in a tree.
type spot struct {
	in *tree
	at int
}

func (t *tree) spots(found []spot) []spot {
	for i, p := range t.pairs {
		found = append(found, spot{t, i})
		if under, ok := p.value.(*tree); ok {
			found = under.spots(found)
		}
	}
	return found
}

func within(outer, inner any) bool {
	o, ok := outer.(*tree)
	if !ok {
		return false
	}
	if outer == inner {
		return true
	}
	return slices.ContainsFunc(o.pairs, func(p pair) bool { return within(p.value, inner) })
}

func (s spot) key() string    { return s.in.pairs[s.at].key }
func (s spot) get() any       { return s.in.pairs[s.at].value }
func (s spot) set(v any)      { s.in.pairs[s.at].value = v }
func (s spot) call(as string) { s.in.pairs[s.at].key = as }
func (s spot) drop()          { s.in.pairs = slices.Delete(s.in.pairs, s.at, s.at+1) }
func (s spot) twice(v any, before bool) {
	at := s.at + 1
	if before {
		at = s.at
	}
	s.in.pairs = slices.Insert(s.in.pairs, at, pair{s.key(), v})
}
