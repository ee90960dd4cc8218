package approvals

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/redis/go-redis/v9"

	"countersign/internal/testseed"
)

// Whatever people, sweeps and workers do to a request at one moment, over
// several connections and from several processes, has the effects and the
// answers that it would have had one after the other: in some order in which
// nothing comes before what had ended when it began. Where a connection broke,
// what was asked may have happened or not; asked again, it has happened once.
//
// Each history is short: a few clients with a few operations each, which start
// together, on one request or on two for the same target, of which some expire
// in the middle of it. COUNTERSIGN_TEST_HISTORIES says how many there are. A
// history that is not linearizable is drawn into the test's artifacts:
//
//	COUNTERSIGN_TEST_HISTORIES=50000 go test ./approvals -run TestWhatHappensAtOnceIsLinearizable -artifacts -outputdir=/tmp/histories -timeout=2h
func TestWhatHappensAtOnceIsLinearizable(t *testing.T) {
	t.Parallel()
	histories := 250
	if asked := os.Getenv("COUNTERSIGN_TEST_HISTORIES"); asked != "" {
		var err error
		if histories, err = strconv.Atoi(asked); err != nil {
			t.Fatalf("COUNTERSIGN_TEST_HISTORIES: %v", err)
		}
	}
	w := newFixture(t, DefaultTiming())
	w.log = discard
	if err := w.store.commit.Load(t.Context(), w.rdb).Err(); err != nil {
		t.Fatal(err)
	}
	cables := []*cable{newCable(w, 0), newCable(w, 2*time.Millisecond), newCable(w, 6*time.Millisecond), newCutCable(w, true), newCutCable(w, false)}
	seed := testseed.Seed(t)
	unheard := 0
	for n := range histories {
		h := newEpisode(w, cables, rand.New(rand.NewPCG(seed, uint64(n))), fmt.Sprint("history-", n))
		h.play()
		unheard += h.unheard
		result, info := porcupine.CheckOperationsVerbose(sequential.ToModel(), h.log, 0)
		if result != porcupine.Ok {
			path := filepath.Join(t.ArtifactDir(), fmt.Sprintf("history-%d.html", n))
			if err := porcupine.VisualizePath(sequential.ToModel(), info, path); err != nil {
				t.Error(err)
			}
			t.Errorf("history %d of seed %d is not linearizable (%s); it is drawn in %s:\n%s", n, seed, result, path, h)
		}
		for _, broken := range h.w.violations() {
			t.Errorf("history %d of seed %d: %s\n%s", n, seed, broken, h)
		}
		h.sweepAway()
		if t.Failed() {
			return
		}
	}
	if histories >= 100 && unheard == 0 {
		t.Error("no connection broke while somebody waited for an answer")
	}
}

// cable is one connection to Redis, which may be cut.
type cable struct {
	rdb redis.UniversalClient
	by  *saboteur // nil where it holds
}

// newCable is one on which a commit takes up to so long to arrive, so that much
// can come between what was read and what is written.
func newCable(w *fixture, late time.Duration) *cable {
	rdb := w.server.Client(w.t)
	if late > 0 {
		rdb.AddHook(beforeHook{w.store.commit.Hash(), func() { time.Sleep(rand.N(late)) }})
	}
	return &cable{rdb: rdb}
}

func newCutCable(w *fixture, patient bool) *cable {
	by := &saboteur{}
	return &cable{rdb: by.client(w.t, w.server, patient), by: by}
}

// pressed says that a person does it, once.
func (a attempt) pressed() bool {
	return a.verb == "approve" || a.verb == "deny" || a.verb == "cancel" || a.verb == "stop"
}

// attempt is one operation: of a person, of a process, or of time.
type attempt struct {
	verb    string // requested, approve, deny, cancel, stop, take, begin, end, finish, die, read or expiry
	request int
	by      int    // who of deciders, for approve and deny; how many it needs, or which deadline
	op      int    // which operation id, for what people do
	claim   int64  // for what a worker does
	step    string // of a worker's plan
}

// answer is what came of it.
type answer struct {
	said    string // a refusal's code, a worker's answer, or what was read; empty for yes
	claim   int64  // that a take got
	unknown bool   // nobody heard: it may have happened, or may still
}

var deciders = []Person{ravi, olga, mina}

// How it would be, one after the other.

// sequel is one request.
type sequel struct {
	State    State
	Needs    int
	Yes      [3]bool // who of the deciders has approved
	Over     [2]bool // the deadline of the pending request, and of the approved one, has passed
	Claim    int64
	Halted   bool
	Lapsed   bool   // the lease has run out
	Steps    string // a letter a step: waiting, begun, ended
	Did      string // what the worker with this claim has written
	Answered [12]Code
}

// scene is all that a history is about. Where there is a limit, each of the
// deciders may approve once what this requester asks for.
type scene struct {
	Requests [2]sequel
	Limited  bool
	Counted  [3]bool
}

// unanswered is no answer yet, and yes the code of a yes.
const (
	unanswered Code = ""
	yes        Code = "yes"
)

// turn is one way in which an operation may turn out.
type turn struct {
	after scene
	said  answer
}

// sequential is the model. Where the same operation may turn out in more than
// one way although nothing else goes on, it is because a deadline is seen at
// two places: a request that is overdue is ended by whoever looks at it first,
// or is found overdue when it is too late to end it.
var sequential = porcupine.NondeterministicModel{
	Init: func() []any { return []any{scene{}} },
	Step: func(before, input, output any) []any {
		s, in, out := before.(scene), input.(attempt), output.(answer)
		var after []any
		for _, o := range turns(s, in) {
			switch {
			case out.unknown:
				forgotten := o.after // the answer was not stored, although something else was
				forgotten.Requests[in.request].Answered = s.Requests[in.request].Answered
				after = append(after, o.after, forgotten)
			case o.said == out:
				after = append(after, o.after)
			}
		}
		if out.unknown {
			after = append(after, s)
		}
		return after
	},
	Equal: func(a, b any) bool { return a == b },
	DescribeOperation: func(input, output any) string {
		in, out := input.(attempt), output.(answer)
		return in.String() + " → " + out.String()
	},
	DescribeState: func(s any) string {
		var all []string
		for _, r := range s.(scene).Requests {
			if r.State != "" {
				all = append(all, fmt.Sprintf("%s %v, over %v, claim %d, halted %v, lapsed %v, %s", r.State, r.Yes, r.Over, r.Claim, r.Halted, r.Lapsed, r.Steps))
			}
		}
		return strings.Join(all, " | ")
	},
}

func (a attempt) String() string {
	text := fmt.Sprintf("%s %d", a.verb, a.request+1)
	switch a.verb {
	case "approve", "deny":
		text += fmt.Sprintf(" by %s (op %d)", deciders[a.by].Slack, a.op)
	case "cancel", "stop":
		text += fmt.Sprintf(" (op %d)", a.op)
	case "begin", "end", "finish":
		text += fmt.Sprintf(" with claim %d %s", a.claim, a.step)
	case "limited":
		return "one approval a person"
	case "expiry":
		text += fmt.Sprintf(" of deadline %d", a.by+1)
	case "requested":
		text += fmt.Sprintf(", needs %d", a.by)
	}
	return text
}

func (a answer) String() string {
	switch {
	case a.unknown:
		return "?"
	case a.claim > 0:
		return fmt.Sprintf("claim %d", a.claim)
	}
	return cmp.Or(a.said, string(yes))
}

// turns are the ways in which an operation may turn out.
func turns(s scene, in attempt) (all []turn) {
	r := s.Requests[in.request]
	with := func(r sequel, said answer) {
		after := s
		after.Requests[in.request] = r
		all = append(all, turn{after, said})
	}
	overdue := r.State == StatePending && r.Over[0] || r.State == StateApproved && r.Over[1]
	ended := r
	if overdue {
		ended.State = StateExpired
	}
	switch in.verb {
	case "limited":
		s.Limited = true
		with(r, answer{})
	case "requested":
		with(sequel{State: StatePending, Needs: in.by, Steps: "ww"}, answer{})
	case "expiry":
		r.Over[in.by] = true
		with(r, answer{})
	case "die":
		r.Lapsed = r.Lapsed || r.State == StateRunning
		with(r, answer{})
	case "read":
		with(r, answer{said: r.read()})
	case "approve", "deny", "cancel", "stop":
		found := []sequel{r}
		if overdue {
			found = append(found, ended)
		}
		for _, r := range found {
			code, counts := r.Answered[in.op], false
			if code == unanswered {
				decided, said := r.action(in, overdue && r.State != StateExpired)
				counts = s.Limited && in.verb == "approve" && said == yes
				if code = said; counts && s.Counted[in.by] {
					code, counts = CodeTooMany, false
				} else {
					r = decided
				}
				r.Answered[in.op] = code
			}
			said := string(code)
			if code == yes {
				said = ""
			}
			with(r, answer{said: said})
			if counts {
				all[len(all)-1].after.Counted[in.by] = true
			}
		}
	case "take":
		other := s.Requests[1-in.request].State == StateRunning
		claimed := r
		claimed.State, claimed.Lapsed, claimed.Did = StateRunning, false, ""
		claimed.Claim++
		switch {
		case r.State == StateApproved && overdue:
			with(ended, answer{})
			with(r, answer{}) // it was read in time, and claimed too late
		case overdue:
			with(ended, answer{})
		case r.State == StateApproved && !other:
			with(claimed, answer{claim: claimed.Claim})
		case r.State == StateRunning && r.Lapsed:
			with(claimed, answer{claim: claimed.Claim})
			with(r, answer{}) // a halt came between
		default:
			with(r, answer{})
		}
	case "begin", "end", "finish":
		what := in.verb + in.step + " "
		switch {
		case r.Claim != in.claim:
			with(r, answer{said: "fenced"})
		case strings.Contains(r.Did, what): // before
			with(r, answer{})
		case in.verb == "begin" && r.Halted:
			with(r, answer{said: "halted"})
		default:
			r.Did += what
			r.Lapsed = false
			switch in.verb {
			case "begin":
				r.Steps = strings.Replace(r.Steps, "w", "b", 1)
			case "end":
				r.Steps = strings.Replace(r.Steps, "b", "e", 1)
			case "finish":
				r.State, r.Steps = StateDone, strings.ReplaceAll(r.Steps, "w", "s")
			}
			with(r, answer{})
		}
	}
	return all
}

// action is what a person does, and the answer. late says that the deadline has
// passed and that this is not in the state yet.
func (r sequel) action(in attempt, late bool) (sequel, Code) {
	switch in.verb {
	case "approve", "deny":
		switch {
		case r.State == StateExpired, r.State == StatePending && late:
			return r, CodeExpired
		case r.State != StatePending:
			return r, CodeDecided
		case in.verb == "deny":
			r.State = StateDenied
			return r, yes
		case r.Yes[in.by]:
			return r, CodeAlreadyDecided
		}
		r.Yes[in.by] = true
		if n := len(slices.DeleteFunc(slices.Clone(r.Yes[:]), func(said bool) bool { return !said })); n >= r.Needs {
			r.State = StateApproved
		}
		return r, yes
	case "cancel":
		switch {
		case r.State == StateRunning, r.State.Final():
			return r, CodeDecided
		case late:
			return r, CodeExpired
		}
		r.State = StateCancelled
		return r, yes
	}
	switch {
	case r.State != StateRunning:
		return r, CodeNotRunning
	case r.Halted:
		return r, CodeDecided
	}
	r.Halted = true
	return r, yes
}

func (r sequel) read() string {
	return fmt.Sprintf("%s %v, claim %d, halted %v, %s", r.State, r.Yes, r.Claim, r.Halted, r.Steps)
}

// The same in Redis, at once.

// episode is one of them.
type episode struct {
	w        *fixture
	random   *rand.Rand
	requests []Request
	clients  []*client
	began    time.Time
	clock    [3]time.Time // Redis' clock, and our own before and after it was read

	mu      sync.Mutex
	log     []porcupine.Operation
	unheard int // operations whose outcome nobody heard of
}

// client is one goroutine, with a process of its own.
type client struct {
	*episode
	id          int
	cable       *cable
	store       *Store
	service     *Service
	runner      *Runner
	script      []attempt
	concurrency map[int]*Request // what it has claimed, as its last write left it
}

func newEpisode(w *fixture, cables []*cable, random *rand.Rand, prefix string) *episode {
	own := *w
	own.lastSeen, own.openedEvents = nil, nil
	h := &episode{w: &own, random: random}
	ring, err := ParseRing(testKeys)
	if err != nil {
		w.t.Fatal(err)
	}
	pick := func(from ...time.Duration) time.Duration { return from[random.IntN(len(from))] }
	own.timing.RunWithin = pick(time.Hour, time.Hour, 3*time.Millisecond, 10*time.Millisecond)
	own.store = NewStore(w.rdb, ring, prefix, own.timing)
	count := 1 + random.IntN(3)/2
	for i, at := range random.Perm(len(cables))[:3+random.IntN(3)] {
		store := NewStore(cables[at].rdb, ring, prefix, own.timing)
		service := &Service{Store: store, Policy: testPolicy(), Directory: own.directory, Log: discard}
		h.clients = append(h.clients, &client{
			episode: h, id: i + 1, cable: cables[at], store: store, service: service, concurrency: map[int]*Request{},
			runner: &Runner{Service: service, Name: fmt.Sprint("client-", i+1), Log: discard},
		})
	}
	if random.IntN(3) == 0 {
		h.log = append(h.log, porcupine.Operation{Input: attempt{verb: "limited"}, Output: answer{}})
		for _, c := range h.clients {
			c.service.Policy.Limits.Pair = Limit{Count: 1, Within: time.Hour}
		}
	}
	ops := 0
	for _, c := range h.clients {
		for range 2 + random.IntN(3) {
			verbs := strings.Fields("approve approve approve approve approve deny cancel stop stop take take take take die die read")
			a := attempt{verb: verbs[random.IntN(len(verbs))], request: random.IntN(count), by: random.IntN(len(deciders))}
			if a.pressed() && ops < len(sequel{}.Answered)-2 {
				a.op = ops
				ops++
			} else if a.pressed() {
				a.verb = "read"
			}
			c.script = append(c.script, a)
			if a.verb == "die" { // and somebody takes it over
				a.verb = "take"
				c.script = append(c.script, a)
			}
			if a.verb == "take" { // and then it works, where that was a claim
				c.script = append(c.script, slices.Repeat([]attempt{{verb: "work", request: a.request}}, random.IntN(6))...)
			}
		}
	}
	// Now and then a press is delivered twice, to two processes.
	if twice := h.clients[0].script[0]; twice.pressed() {
		h.clients[1].script = slices.Insert(h.clients[1].script, random.IntN(len(h.clients[1].script)), twice)
	}
	for n := range count {
		ask := Submit{
			Plan: deletionPlan(ClassDestroy, Person{ID: "target-of-" + prefix}, fmt.Sprint("first-", n), "second"), Requester: hanna,
			Requirements: Requirements{Approvals: 1 + random.IntN(2), Lifetime: pick(time.Hour, time.Hour, 3*time.Millisecond, 10*time.Millisecond, 30*time.Millisecond)},
		}
		snap, err := own.store.create(w.t.Context(), fmt.Sprint("ask-", n), ask, nil)
		if err != nil {
			w.t.Fatal(err)
		}
		h.requests = append(h.requests, snap.Request)
		h.log = append(h.log, porcupine.Operation{Input: attempt{verb: "requested", request: n, by: ask.Requirements.Approvals}, Output: answer{}})
	}
	h.began = time.Now()
	if h.clock[0], err = own.store.clock(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	h.clock[1], h.clock[2] = h.began, time.Now()
	return h
}

// play lets all clients go at once, and then reads what they have left.
func (h *episode) play() {
	for _, c := range h.clients {
		if c.cable.by != nil {
			c.cable.by.arm(h.random.IntN(2) == 0, 1+h.random.IntN(2), "evalsha", h.w.store.commit.Hash())
		}
	}
	var all sync.WaitGroup
	start := make(chan struct{})
	first := &client{episode: h, cable: &cable{}, store: h.w.store, service: &Service{Store: h.w.store, Policy: h.clients[0].service.Policy, Directory: h.w.directory, Log: discard}}
	for n := range h.requests {
		if h.random.IntN(3) == 0 {
			first.does(attempt{verb: "approve", request: n, by: 0, op: len(sequel{}.Answered) - 1 - n})
		}
	}
	for _, c := range h.clients {
		all.Go(func() {
			<-start
			for _, a := range c.script {
				c.does(a)
			}
		})
	}
	close(start)
	all.Wait()
	for n, r := range h.requests {
		first.does(attempt{verb: "read", request: n})
		h.expiry(n, 0, r.Deadline)
		if now, err := h.w.store.Load(h.w.t.Context(), r.ID); err != nil {
			h.w.t.Error(err)
		} else if len(now.Approvals) >= r.Requirements.Approvals { // and so has another one
			h.expiry(n, 1, now.Deadline)
		}
	}
	end := time.Since(h.began).Nanoseconds()
	for i := range h.log { // what nobody heard of may be yet to come
		if h.log[i].Return == math.MaxInt64 {
			h.log[i].Return = end
			h.log[i].ClientId = len(h.clients) + 1 + i
		}
	}
}

// expiry is the passing of a deadline, which nobody does: its instant is known
// as well as our clock and that of Redis can be compared.
func (h *episode) expiry(request, which int, deadline time.Time) {
	if deadline.Sub(h.clock[0]) > time.Minute {
		return
	}
	left := deadline.Sub(h.clock[0]) // from some moment of the millisecond that Redis told
	h.log = append(h.log, porcupine.Operation{
		ClientId: len(h.clients) + 1 + len(h.log), Input: attempt{verb: "expiry", request: request, by: which}, Output: answer{},
		Call:   max(0, h.clock[1].Add(left-time.Millisecond).Sub(h.began).Nanoseconds()),
		Return: max(0, h.clock[2].Add(left).Sub(h.began).Nanoseconds()),
	})
}

// does one operation, and once more as long as its outcome is not heard of and
// it has an identity that makes it the same one.
func (c *client) does(a attempt) {
	if a.verb == "work" && c.concurrency[a.request] == nil {
		return
	}
	do := c.call(&a)
	for range 4 {
		called := time.Since(c.began).Nanoseconds()
		said := do()
		returned := time.Since(c.began).Nanoseconds()
		if said.unknown {
			returned = math.MaxInt64
		}
		c.mu.Lock()
		c.log = append(c.log, porcupine.Operation{ClientId: c.id, Input: a, Output: said, Call: called, Return: returned})
		if said.unknown {
			c.unheard++
		}
		c.mu.Unlock()
		if !said.unknown || a.verb == "take" {
			return
		}
	}
}

// call is how an operation is executed. What work is depends on what the
// client has claimed.
func (c *client) call(a *attempt) func() answer {
	ctx, id := context.Background(), c.requests[a.request].ID
	press := func(do func(op string) (Request, error)) func() answer {
		return func() answer {
			_, err := do(fmt.Sprint("op-", a.op))
			return c.heard(err)
		}
	}
	switch a.verb {
	case "approve":
		return press(func(op string) (Request, error) { return c.service.Approve(ctx, op, id, deciders[a.by]) })
	case "deny":
		return press(func(op string) (Request, error) { return c.service.Deny(ctx, op, id, deciders[a.by], "no") })
	case "cancel":
		return press(func(op string) (Request, error) { return c.service.Cancel(ctx, op, id, hanna) })
	case "stop":
		return press(func(op string) (Request, error) { return c.service.Stop(ctx, op, id, hanna, "wait") })
	case "die":
		return func() answer {
			return c.heard(c.w.rdb.HSet(ctx, c.w.store.keys.request(id), "lease", 1).Err())
		}
	case "take":
		return func() answer {
			got, err := c.runner.claim(ctx, id, true)
			if _, held := errors.AsType[heldTargetError](err); held {
				err = nil // a sound answer: it was not taken
			}
			said := c.heard(err)
			if got != nil {
				c.concurrency[a.request], said.claim = &got.req, got.req.Claim
			}
			return said
		}
	case "work":
		return c.work(a, c.concurrency[a.request])
	}
	return func() answer {
		snap, err := c.store.Load(ctx, id)
		said := c.heard(err)
		said.said = sequelOf(snap.Request).read()
		return said
	}
}

// work is the next thing that a worker does whose writes counted so far. It
// looks before it begins a step, as the runner does.
func (c *client) work(a *attempt, held *Request) func() answer {
	look := func() {
		if now, err := c.store.Load(context.Background(), held.ID); err == nil && now.Claim == held.Claim {
			held.Version, held.Halt = now.Version, now.Halt
		}
	}
	look()
	step := slices.IndexFunc(held.Journal, func(e JournalEntry) bool { return e.State == StepStarted || e.State == StepWaiting && held.Halt == nil })
	action := Action(Finish{Why: "enough"})
	switch {
	case step < 0:
		a.verb = "finish"
	case held.Journal[step].State == StepStarted:
		a.verb, a.step, action = "end", fmt.Sprint(":", step), EndStep{Step: step, Result: Result{State: StepDone}}
	default:
		a.verb, a.step, action = "begin", fmt.Sprint(":", step), StartStep{Step: step}
	}
	a.claim = held.Claim
	at := c.clock[0] // when it was does not matter here
	return func() answer {
		next, err := c.store.advance(context.Background(), *held, at, a.verb+a.step, action)
		switch {
		case errors.Is(err, ErrFenced):
			delete(c.concurrency, a.request)
			return answer{said: "fenced"}
		case errors.Is(err, errHalted):
			return answer{said: "halted"}
		}
		said := c.heard(err)
		switch {
		case said.unknown: // and if it stays so, this worker does not go on
			delete(c.concurrency, a.request)
		case err == nil && next.State == StateRunning:
			c.concurrency[a.request] = &next
		default:
			delete(c.concurrency, a.request)
		}
		return said
	}
}

// heard is what an error tells.
func (c *client) heard(err error) answer {
	no := (*Refusal)(nil)
	switch {
	case err == nil:
		return answer{}
	case errors.As(err, &no):
		return answer{said: string(no.Code)}
	}
	if c.cable.by == nil {
		c.w.t.Errorf("on a sound connection: %v", err)
	}
	return answer{unknown: true}
}

// sequelOf is what the model knows of a request.
func sequelOf(r Request) sequel {
	s := sequel{State: r.State, Claim: r.Claim, Halted: r.Halt != nil}
	for _, d := range r.Approvals {
		s.Yes[slices.IndexFunc(deciders, func(p Person) bool { return p.ID == d.By.ID })] = true
	}
	for _, e := range r.Journal {
		s.Steps += map[StepState]string{StepWaiting: "w", StepStarted: "b", StepDone: "e", StepSkipped: "s"}[e.State]
	}
	return s
}

func (h *episode) sweepAway() {
	var all []string
	for name := range h.w.contents().keys {
		all = append(all, h.w.store.keys.tag+name)
	}
	if err := h.w.rdb.Del(h.w.t.Context(), all...).Err(); err != nil {
		h.w.t.Error(err)
	}
}

// String is the history in the order in which its operations began.
func (h *episode) String() string {
	slices.SortFunc(h.log, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	var text strings.Builder
	for _, o := range h.log {
		fmt.Fprintf(&text, "%3d  %9.3f to %9.3f ms  %s\n", o.ClientId, float64(o.Call)/1e6, float64(o.Return)/1e6, sequential.DescribeOperation(o.Input, o.Output))
	}
	return text.String()
}
