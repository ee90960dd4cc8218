package approvals

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"countersign/audit"
	"countersign/internal/testseed"
)

// The model is Countersign without Redis: requests that Apply carries from
// state to state, plain maps beside them, and one page of rules about people.
// Random sequences of everything that people, workers, sweeps and time can do
// are played to it and to the real store, by two processes that share nothing
// but Redis. After each step the answer, every key in Redis and every new event
// must be what the model says, and the invariants of the package comment must
// hold.
//
// A longer run, and how to play a failure again, which is printed as short as
// it can be made:
//
//	COUNTERSIGN_TEST_SEED=random go test ./approvals -run TestTheStoreAgreesWithTheModel -rapid.checks=20000 -timeout=2h
//	go test ./approvals -run TestTheStoreAgreesWithTheModel -rapid.seed=…
func TestTheStoreAgreesWithTheModel(t *testing.T) {
	t.Parallel()
	w := newWorld(t, DefaultTiming())
	w.log = discard
	lines := []*line{newLine(w), newLine(w)}
	seedRapid(t)
	few := os.Getenv("RAPID_CHECKS") == "" // a short run, unless a longer one was asked for
	flag.Visit(func(f *flag.Flag) { few = few && f.Name != "rapid.checks" })
	runs, failed := 0, false
	rapid.Check(t, func(rt *rapid.T) {
		if runs++; few && runs > 30 && !failed {
			return
		}
		m := newModel(rt, w, lines, fmt.Sprint("model-", runs))
		defer m.sweepAway()
		defer func() { failed = failed || rt.Failed() }()
		rt.Repeat(m.steps())
	})
}

// seeded is done once, before rapid is asked for anything: it keeps one seed for
// all tests, and they run at the same time.
var seeded sync.Once

// seedRapid gives rapid the seed of this run, unless its own flag gives one.
func seedRapid(t *testing.T) {
	t.Helper()
	seeded.Do(func() {
		given := os.Getenv("RAPID_SEED") != ""
		flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.seed" })
		if given {
			return
		}
		// rapid takes 0 for "choose one".
		if err := flag.Set("rapid.seed", strconv.FormatUint(max(1, testseed.Seed(t)), 10)); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("to repeat this run: -rapid.seed=%s", flag.Lookup("rapid.seed").Value)
}

// line is one process' connection to Redis. What meanwhile says is done once,
// between what the process reads next and what it then commits.
type line struct {
	rdb       redis.UniversalClient
	meanwhile func()
}

func newLine(w *world) *line {
	rdb := w.server.Client(w.t)
	l := &line{rdb: rdb}
	rdb.AddHook(before{redis.NewScript(commitSource).Hash(), func() {
		if do := l.meanwhile; do != nil {
			l.meanwhile = nil
			do()
		}
	}})
	return l
}

// process is one Countersign.
type process struct {
	*line
	name   string
	store  *Store
	desk   *Desk
	runner *Runner
}

// kept is a request as it must be in Redis.
type kept struct {
	Request
	answers map[string]string // by operation: ok, requested, revealed, or the code of a refusal
	due     time.Time         // when somebody must look at it next; zero for never
	gone    time.Time         // when it is forgotten; zero while it is open
}

// timely is a value that goes by itself.
type timely struct {
	value string
	until time.Time
}

// counted is what a limit has counted.
type counted struct {
	at    []time.Time
	until time.Time
}

// human is what the tenant and the model know of a person.
type human struct {
	helpDesk, approver bool
	onCall, left       bool // as Slack says
	disabled, guest    bool
	protected          bool
}

// call is what somebody did, as the inbox delivers it.
type call struct {
	name string
	at   time.Time
	do   func(*process)
}

// worker is somebody who claimed a request: as its last write left it.
type worker struct {
	*process
	view  Request
	again func() // its last write, as a client sends it that heard no answer
	over  bool   // it gave the request back
}

func (w *worker) String() string {
	return fmt.Sprintf("%s with claim %d of %s", w.name, w.view.Claim, w.view.ID)
}

// model is both sides: what must be, and the processes that make it so.
type model struct {
	*rapid.T
	ctx       context.Context
	w         *world // reads what is there
	processes []*process
	timing    Timing

	// now is Redis' clock as the last step left it, and one nanosecond. Redis
	// counts in milliseconds, so the nanosecond marks every instant that follows
	// from it until the comparison has put the real one in its place.
	now      time.Time
	down     bool // people cannot be looked up
	people   map[string]*human
	recent   map[string]time.Time // until when a former target has no voice
	madeSo   map[string]string    // by which request, or several
	reads    map[string]*timely   // how many look-ups in this minute, by person
	law      law
	requests map[string]*kept
	made     []string // their ids in order, and of those that are gone
	notes    map[string]*timely
	secrets  map[string]*timely
	offers   map[string]time.Time
	tallies  map[string]*counted
	sequence int64
	events   []audit.Event // that this step must have left
	last     string        // the event before those
	told     bool          // there was one

	ops     int
	calls   []*call // everything that people did
	workers []*worker
	photos  []*Snapshot // what a process read and has not acted on yet
}

func newModel(t *rapid.T, w *world, lines []*line, prefix string) *model {
	own := *w
	own.directory, own.known, own.opened = newDirectory(), nil, nil
	m := &model{
		T: t, ctx: w.t.Context(), w: &own, timing: w.timing, last: "-",
		people: map[string]*human{
			hanna.ID: {helpDesk: true}, ravi.ID: {helpDesk: true, approver: true}, olga.ID: {approver: true, onCall: true},
			mina.ID: {approver: true}, dana.ID: {}, sam.ID: {onCall: true}, gloria.ID: {protected: true},
			pat.ID: {helpDesk: true, approver: true, guest: true}, bo.ID: {helpDesk: true, approver: true, disabled: true},
		},
		recent: map[string]time.Time{}, madeSo: map[string]string{}, reads: map[string]*timely{}, requests: map[string]*kept{}, notes: map[string]*timely{},
		secrets: map[string]*timely{}, offers: map[string]time.Time{}, tallies: map[string]*counted{},
		law: law{
			approvals: map[Class]int{ClassContain: 1, ClassDestroy: 1, ClassTakeover: 2},
			limited:   rapid.Bool().Draw(t, "there are limits"), self: rapid.Bool().Draw(t, "people may ask for themselves"),
		},
	}
	ring, err := ParseRing(ringText)
	if err != nil {
		t.Fatal(err)
	}
	own.store = NewStore(w.rdb, ring, prefix, w.timing)
	for i, l := range lines {
		l.meanwhile = nil
		store := NewStore(l.rdb, ring, prefix, w.timing)
		desk := &Desk{Store: store, Directory: own.directory, Slack: slack{m}, Accounts: slack{m}, Log: discard}
		name := fmt.Sprint("process-", i+1)
		m.processes = append(m.processes, &process{line: l, name: name, store: store, desk: desk, runner: &Runner{Desk: desk, Name: name, Log: discard}})
	}
	for id := range m.people {
		m.tell(id)
	}
	m.enact()
	return m
}

// steps are the moves of the game, the likelier the more often they are named.
func (m *model) steps() map[string]func(*rapid.T) {
	all := map[string]func(*rapid.T){"": func(*rapid.T) { m.agree() }}
	for _, s := range []struct {
		often int
		name  string
		do    func()
	}{
		{3, "ask", m.asks},
		{6, "carry on", m.carriesOn},
		{4, "press", m.presses},
		{3, "press while another does", m.collides},
		{2, "deliver again", m.redelivers},
		{2, "sweep", m.sweeps},
		{4, "work", m.works},
		{2, "take over", m.takesOver},
		{1, "work that is sent again", m.worksAgain},
		{1, "keep what is read", m.photographs},
		{1, "act on what was read", m.actsLate},
		{2, "stand still", m.standsStill},
		{2, "recheck", m.rechecks},
		{2, "reveal", m.reveals},
		{1, "end of offers", m.endsOffers},
		{1, "look up", m.looksUp},
		{1, "press from outside", m.pressesOutside},
		{2, "time passes", m.timePasses},
		{2, "people change", m.peopleChange},
		{1, "the law changes", m.lawChanges},
		{1, "list", m.lists},
	} {
		for i := range s.often {
			all[fmt.Sprint(s.name, strings.Repeat("'", i))] = func(*rapid.T) { s.do() }
		}
	}
	return all
}

// op is the operation id of something that a person does now.
func (m *model) op() string {
	m.ops++
	return fmt.Sprint("op-", m.ops)
}

// draw draws one of a list, and tells its name in the log of a failure.
func draw[V any](m *model, what string, list []V, name func(V) string) V {
	names := make([]string, len(list))
	for i, v := range list {
		names[i] = name(v)
	}
	return list[slices.Index(names, rapid.SampledFrom(names).Draw(m.T, what))]
}

func (m *model) process() *process {
	return draw(m, "process", m.processes, func(p *process) string { return p.name })
}

// request is one of those that there were, one that is open more often, or one
// that there never was.
func (m *model) request() string {
	if len(m.made) == 0 {
		m.Skip("nothing was asked for yet")
	}
	list := append([]string{"R-NEVERWAS"}, m.made...)
	for range 3 {
		list = append(list, m.open()...)
	}
	return rapid.SampledFrom(list).Draw(m.T, "request")
}

// open lists the requests that are not over, in their order.
func (m *model) open() []string {
	return slices.DeleteFunc(slices.Clone(m.made), func(id string) bool { return m.requests[id] == nil || m.requests[id].State.Final() })
}

var humans = []Person{hanna, ravi, olga, mina, dana, sam, gloria, pat, bo, {ID: "2f1d7c35-nobody-has-this", UPN: "stranger@elsewhere.example", Slack: "U0STRANGER"}, {Slack: "U0UNKNOWN"}}

func (m *model) human(what string, among ...Person) Person {
	if len(among) == 0 {
		among = humans
	}
	return draw(m, what, among, func(p Person) string { return p.Slack })
}

// lookUps fail in one of fifteen steps.
func (m *model) lookUps() {
	m.down = rapid.IntRange(0, 14).Draw(m.T, "look-ups fail") == 14
	m.w.directory.goDown(map[bool]error{true: lasting{}}[m.down])
}

// lasting is an error that trying again does not help.
type lasting struct{}

func (lasting) Error() string   { return "the tenant is away" }
func (lasting) Permanent() bool { return true }

// slack is what Slack says about people.
type slack struct{ m *model }

func (s slack) In(_ context.Context, who Person, groups []string) ([]string, error) {
	if h := s.m.people[who.ID]; h != nil && h.onCall && slices.Contains(groups, onCallGroup) {
		return []string{onCallGroup}, nil
	}
	return nil, nil
}

func (s slack) Active(_ context.Context, id string) error {
	for _, p := range humans {
		if h := s.m.people[p.ID]; h != nil && p.Slack == id && h.left {
			return Refuse(CodeOutsider, "This account is deactivated.")
		}
	}
	return nil
}

// The rules about people.

// law is what the policy says, as far as it changes.
type law struct {
	approvals map[Class]int
	self      bool // people may ask for their own account
	ticket    bool // wanted for a takeover
	limited   bool
}

const onCallGroup = "S0ONCALL"

var lifetimes = map[Class]time.Duration{ClassContain: 30 * time.Minute, ClassDestroy: 2 * time.Hour, ClassTakeover: 12 * time.Minute}

// limits are those of the law.
func (l law) limits() Limits {
	if !l.limited {
		return Limits{}
	}
	return Limits{Requester: Limit{3, time.Hour}, Target: Limit{2, 2 * time.Hour}, Pair: Limit{2, 30 * time.Minute}, BreakGlass: Limit{1, time.Hour}}
}

// enact gives the law to every process.
func (m *model) enact() {
	p := Policy{
		Groups: map[string]Group{
			"Help desk": {Entra: []string{helpDesk}}, "Identity approvers": {Entra: []string{approvers}}, "On-call engineers": {Slack: []string{onCallGroup}},
		},
		Classes:      map[Class]Rule{ClassRead: {Request: []string{"Help desk"}}},
		Limits:       m.law.limits(),
		ReadsAMinute: 2,
	}
	for class, n := range m.law.approvals {
		r := Rule{Request: []string{"Help desk"}, Approve: []string{"Identity approvers"}, AskForSelf: &m.law.self, Approvals: n, Lifetime: lifetimes[class]}
		if class == ClassContain {
			r.BreakGlass = []string{"On-call engineers"}
		}
		if class == ClassTakeover && m.law.ticket {
			r.Require = []string{NeedTicket}
		}
		p.Classes[class] = r
	}
	for _, process := range m.processes {
		process.desk.Policy = p
	}
}

func (m *model) lawChanges() {
	m.law.approvals[rapid.SampledFrom([]Class{ClassContain, ClassDestroy, ClassTakeover}).Draw(m.T, "class")] = rapid.IntRange(1, 2).Draw(m.T, "approvals")
	m.law.self = rapid.Bool().Draw(m.T, "people may ask for themselves")
	m.law.ticket = rapid.Bool().Draw(m.T, "a takeover needs a ticket")
	m.law.limited = rapid.Bool().Draw(m.T, "there are limits")
	m.enact()
}

// tell has the tenant say what the model knows.
func (m *model) tell(id string) {
	h := m.people[id]
	m.w.directory.change(Person{ID: id}, func(s *Standing) {
		s.Enabled, s.Guest, s.Groups, s.Protected = !h.disabled, h.guest, nil, nil
		for group, in := range map[string]bool{helpDesk: h.helpDesk, approvers: h.approver} {
			if in {
				s.Groups = append(s.Groups, group)
			}
		}
		if h.protected {
			s.Protected = []string{"holds the role Global Administrator"}
		}
	})
}

func (m *model) peopleChange() {
	who := m.human("who", humans[:9]...)
	h := m.people[who.ID]
	what := rapid.SampledFrom([]string{"help desk", "approver", "on call", "left", "disabled", "guest", "protected"}).Draw(m.T, "what changes")
	flag := map[string]*bool{"help desk": &h.helpDesk, "approver": &h.approver, "on call": &h.onCall, "left": &h.left, "disabled": &h.disabled, "guest": &h.guest, "protected": &h.protected}[what]
	*flag = !*flag
	m.tell(who.ID)
}

// refusalOf is one whose sentence the model does not know.
func refusalOf(c Code) *Refusal {
	if c == "" {
		return nil
	}
	return &Refusal{Code: c}
}

// find looks somebody up.
func (m *model) find(who Person) (*human, Code) {
	h, there := m.people[who.ID]
	switch {
	case who.ID == "":
		return nil, CodeNobody
	case m.down:
		return nil, CodeUnchecked
	case !there:
		return nil, CodeNobody
	}
	return h, ""
}

// fit says whether somebody has a voice at all.
func (h *human) fit() Code {
	switch {
	case h.guest:
		return CodeGuest
	case h.disabled:
		return CodeDisabled
	}
	return ""
}

func among(in bool) Code {
	if in {
		return ""
	}
	return CodeNotAllowed
}

func firstOf(codes ...Code) Code {
	for _, c := range codes {
		if c != "" {
			return c
		}
	}
	return ""
}

func (h *human) mayAsk(class Class, forSelf bool) Code {
	return firstOf(h.fit(), among(h.helpDesk || h.onCall && class == ClassContain || forSelf))
}

func (h *human) mayDecide(self bool) Code {
	return firstOf(h.fit(), among(h.approver && !self || h.helpDesk && self))
}

func (h *human) mayBreakGlass(class Class) Code {
	return firstOf(h.fit(), among(h.onCall && class == ClassContain))
}

// stays says whether somebody is still in the Slack workspace.
func (h *human) stays() Code {
	if h.left {
		return CodeOutsider
	}
	return ""
}

func (m *model) wasTarget(who Person) Code {
	if m.recent[who.ID].IsZero() {
		return ""
	}
	return CodeRecentTarget
}

// wasAnothersTarget is the same for whom this request may have made one.
func (m *model) wasAnothersTarget(who Person, request string) Code {
	if m.madeSo[who.ID] == request {
		return ""
	}
	return m.wasTarget(who)
}

// unsaid stands for a sentence that the model leaves to others.
const unsaid = "in words"

// terms says what it takes.
func (m *model) terms(class Class, requester, target Person) (Terms, Code) {
	self := requester.ID == target.ID
	by, no := m.find(requester)
	if no != "" {
		return Terms{}, no
	}
	if no := by.mayAsk(class, self && m.law.self); no != "" {
		return Terms{}, no
	}
	if no := m.wasTarget(requester); no != "" {
		return Terms{}, no
	}
	return m.termsFor(class, requester, target)
}

func (m *model) termsFor(class Class, requester, target Person) (Terms, Code) {
	self := requester.ID == target.ID
	to, no := m.find(target)
	switch {
	case no != "":
		return Terms{}, no
	case self && !m.law.self:
		return Terms{}, CodeSelf
	case to.protected && class != ClassContain:
		return Terms{}, CodeProtected
	}
	terms := Terms{Approvals: m.law.approvals[class], Lifetime: lifetimes[class], Glass: class == ClassContain && !to.protected}
	if to.protected || to.approver {
		terms.Approvals++
		terms.Why = append(terms.Why, unsaid)
	}
	if self {
		terms.Why = append(terms.Why, unsaid)
	}
	return terms, ""
}

// voice is what stands between a person and the state machine.
func (m *model) voice(r Request, by Person, a Action) Code {
	who, no := m.find(by)
	if no != "" {
		return no
	}
	if no := who.fit(); no != "" {
		return no
	}
	self := r.Requester.ID == r.Plan.Target.ID
	switch a.(type) {
	case Cancel:
		return ""
	case Stop:
		if by.ID == r.Requester.ID {
			return ""
		}
	case Attest, Confirm, Retract:
		if who.mayAsk(r.Plan.Class, false) == "" {
			return m.wasTarget(by)
		}
	case BreakGlass:
		return firstOf(who.mayBreakGlass(r.Plan.Class), m.wasTarget(by))
	}
	if r.State == Pending && (by.ID == r.Requester.ID || by.ID == r.Plan.Target.ID) {
		return "" // the state machine says no
	}
	return firstOf(who.mayDecide(self), m.wasTarget(by))
}

// stillAllowed is asked once more when a request runs.
func (m *model) stillAllowed(r Request) Code {
	self := r.Requester.ID == r.Plan.Target.ID
	by, no := m.find(r.Requester)
	if no != "" {
		return no
	}
	if no := by.mayAsk(r.Plan.Class, self && m.law.self); no != "" {
		return no
	}
	terms, no := m.termsFor(r.Plan.Class, r.Requester, r.Plan.Target)
	switch {
	case no != "":
		return no
	case by.left:
		return CodeOutsider
	case r.Glass == nil && len(r.Approvals) < terms.Approvals:
		return CodeNotAllowed
	case m.wasAnothersTarget(r.Requester, r.ID) != "":
		return CodeRecentTarget
	case r.Glass != nil:
		breaker := m.people[r.Glass.By.ID]
		return firstOf(among(terms.Glass), breaker.mayBreakGlass(r.Plan.Class), breaker.stays(), m.wasTarget(r.Glass.By))
	}
	for _, approver := range r.Approvers() {
		who := m.people[approver.ID]
		if no := firstOf(who.stays(), who.mayDecide(self), m.wasTarget(approver)); no != "" {
			return no
		}
	}
	return ""
}

func (m *model) rechecks() {
	running := slices.DeleteFunc(m.open(), func(id string) bool { return m.requests[id].State != Running })
	if len(running) == 0 {
		m.Skip("nothing runs")
	}
	k := m.requests[rapid.SampledFrom(running).Draw(m.T, "request")]
	m.lookUps()
	want := m.stillAllowed(k.Request)
	got := m.process().desk.recheck(m.ctx, k.Request)
	switch {
	case got == nil && want != "":
		m.Errorf("%s may run, want %q", k.ID, want)
	case got != nil && got.Code != want:
		m.Errorf("%s may not run: %q, want %q", k.ID, got.Code, want)
	}
}

// What people do.

// person plays what somebody does, on any process, and remembers it so that it
// can be delivered once more.
func (m *model) person(op string, do func(*process)) {
	m.calls = append(m.calls, &call{op, m.now, do})
	m.lookUps()
	do(m.process())
}

// redelivers what the inbox would still carry out.
func (m *model) redelivers() {
	var fresh []*call
	for _, c := range m.calls {
		if c.at.Add(m.timing.Stale).After(m.now) {
			fresh = append(fresh, c)
		}
	}
	if len(fresh) == 0 {
		m.Skip("nobody did anything lately")
	}
	again := draw(m, "call", fresh, func(c *call) string { return c.name })
	m.lookUps()
	again.do(m.process())
}

// answered compares what a person was told.
func (m *model) answered(doing string, err error, want *Refusal) {
	got := (*Refusal)(nil)
	if err != nil && !errors.As(err, &got) {
		m.Errorf("%s: %v", doing, err)
		return
	}
	switch {
	case got == nil && want == nil:
	case got == nil:
		m.Errorf("%s: it counts, want %q", doing, want.Code)
	case want == nil:
		m.Errorf("%s: refused with %q (%s)", doing, got.Code, got)
	case got.Code != want.Code || want.Sentence != "" && got.Sentence != want.Sentence || got.Sentence == "":
		m.Errorf("%s: refused with %q (%s), want %q (%s)", doing, got.Code, got, want.Code, want)
	}
}

// stored is the answer that an operation got before.
func (m *model) stored(op string, k *kept) (*Refusal, bool) {
	answer, ok := "", false
	if k != nil {
		answer, ok = k.answers[op]
	}
	if note := m.notes[op]; !ok && note != nil {
		answer, ok = note.value, true
	}
	if made := m.requests[RequestID(op)]; !ok && made != nil {
		answer, ok = made.answers[op]
	}
	switch answer {
	case "", "ok", "requested", revealed:
		return nil, ok
	}
	return refusalOf(Code(answer)), ok
}

// tells is a commit of a note: an event beside a request, or without one.
func (m *model) tells(op string, k *kept, answer string, e audit.Event) {
	if k != nil {
		k.answers[op] = answer
	} else {
		m.notes[op] = &timely{answer, m.now.Add(time.Hour)}
	}
	e.Op = op
	m.events = append(m.events, e)
	m.sequence++
}

// refuses records a refusal, unless the operation had an answer.
func (m *model) refuses(op string, k *kept, e audit.Event, because *Refusal) *Refusal {
	if said, ok := m.stored(op, k); ok {
		return said
	}
	e.Kind, e.Reason, e.Code = audit.Refused, because.Sentence, string(because.Code)
	m.tells(op, k, string(because.Code), e)
	return because
}

// commits is a write that changes a request.
func (m *model) commits(k *kept, op string, next Request, events []audit.Event) {
	next.Version = k.Version + 1
	k.Request = next
	k.answers[op] = "ok"
	for _, e := range events {
		e.Op = op
		m.events = append(m.events, e)
	}
	m.sequence++
	if k.State.Final() {
		k.due, k.gone = time.Time{}, m.now.Add(90*24*time.Hour)
	}
}

// plans are all that can be asked for here.
func plans(target Person) []Plan {
	list := []Plan{
		{Command: "entra-block-signin", Title: "Block sign-in", Class: ClassContain, Steps: []Step{{Op: "block", Words: "Block sign-in"}, {Op: "revoke", Words: "Revoke sessions"}}},
		deletes(ClassDestroy, target, "m1", "m2"),
		deletes(ClassDestroy, target, "m3"),
		{Command: "entra-reset-password", Title: "Reset password", Class: ClassTakeover, Steps: []Step{{Op: "password", Words: "Set a temporary password", Secret: SecretPrepared}, {Op: "revoke", Words: "Revoke sessions"}}},
		{Command: "entra-issue-pass", Title: "Issue a pass", Class: ClassTakeover, Steps: []Step{{Op: "pass", Words: "Issue a pass", Secret: SecretFromAnswer}}},
		byHand("m1"),
		byHand(),
	}
	list[1].Steps[0].CarryOn = true
	for i := range list {
		list[i].Target = target
	}
	return list
}

func (m *model) asks() {
	if len(m.open()) >= 4 || len(m.made) >= 9 {
		m.Skip("enough was asked for")
	}
	requester := m.human("requester", append([]Person{hanna, hanna, hanna, ravi, ravi}, humans...)...)
	target := m.human("target", append([]Person{dana, dana, dana, sam}, humans[:9]...)...)
	ask := Ask{
		Plan: draw(m, "plan", plans(target), func(p Plan) string { return p.Command + " " + p.Args }), Requester: requester,
		Justification: "lost her phone", Verified: "callback", Channel: "C0HELPDESK",
		Ticket: map[bool]string{true: "INC-7"}[rapid.Bool().Draw(m.T, "with a ticket")],
	}
	if len(m.made) > 0 && rapid.IntRange(0, 2).Draw(m.T, "it is asked for again") == 2 {
		if k := m.requests[rapid.SampledFrom(m.made).Draw(m.T, "request")]; k != nil {
			ask.Plan = k.Plan
		}
	}
	op := m.op()
	asks := func(op string, meanwhile func()) func(*process) {
		return func(p *process) {
			settle := m.asked(op, ask)
			p.meanwhile = meanwhile
			_, err := p.desk.Ask(m.ctx, op, ask)
			p.meanwhile = nil
			want := settle()
			m.answered(fmt.Sprintf("%s asks for %s on %s (%s)", requester, ask.Plan.Command, target, op), err, want)
		}
	}
	switch between := rapid.SampledFrom([]string{"nothing", "nothing", "nothing", "nothing", "the same", "other rules, and the same", "the same once more"}).Draw(m.T, "what comes between"); between {
	case "nothing":
		m.person(op, asks(op, nil))
	case "the same once more":
		m.lookUps()
		other := m.op()
		asks(op, func() { asks(other, nil)(m.processes[1]) })(m.processes[0])
	default: // it is delivered to both processes
		m.lookUps()
		asks(op, func() {
			if between != "the same" {
				m.lawChanges()
			}
			asks(op, nil)(m.processes[1])
		})(m.processes[0])
	}
	// Some requests come far at once, so that all that can become of a request is
	// met often.
	k := m.requests[RequestID(op)]
	for range rapid.SampledFrom([]int{0, 0, 1, 2, 3, 4, 5, 6, 7, 8}).Draw(m.T, "how far it comes") {
		if k == nil || k.State.Final() || m.Failed() {
			return
		}
		m.agree()
		m.carryOn(k)
	}
}

// asked is the first half of asking: what is read, and asked about people.
// settle is the second one, on what there is by then.
func (m *model) asked(op string, a Ask) (settle func() *Refusal) {
	if said, before := m.stored(op, nil); before {
		return func() *Refusal { return said }
	}
	about := audit.Event{Command: a.Plan.Command, Title: a.Plan.Title, Class: string(a.Plan.Class), Actor: a.Requester, Target: a.Plan.Target}
	refuse := func(c Code) *Refusal { return m.refuses(op, nil, about, refusalOf(c)) }
	if a.Plan.Class == ClassTakeover && m.law.ticket && a.Ticket == "" {
		return func() *Refusal { return refuse(CodeMissing) }
	}
	terms, code := m.terms(a.Plan.Class, a.Requester, a.Plan.Target)
	if code != "" {
		return func() *Refusal { return refuse(code) }
	}
	a.Terms = terms
	limits := map[string]Limit{"requester:" + a.Requester.ID: m.law.limits().Requester}
	if a.Plan.Class != ClassContain {
		limits["target:"+a.Plan.Target.ID] = m.law.limits().Target
	}
	return func() *Refusal {
		if said, before := m.stored(op, nil); before { // meanwhile, by another delivery
			return said
		}
		next, events, err := Apply(Request{ID: RequestID(op)}, a, m.now)
		if err != nil {
			m.Fatalf("asking: %v", err)
		}
		next.Print = m.w.store.ring.print(a.Plan.Command, a.Plan.Target.ID, a.Plan.Args)
		for _, k := range m.requests {
			if k.holdsPlace() && k.Print == next.Print {
				return refuse(CodeIdentical)
			}
		}
		if !m.counts(limits) {
			return refuse(CodeTooMany)
		}
		k := &kept{answers: map[string]string{}}
		m.commits(k, op, next, events)
		k.answers[op] = "requested"
		k.Deadline = m.now.Add(terms.Lifetime)
		k.due = k.Deadline.Add(-m.warning(k.Request))
		m.requests[k.ID] = k
		m.made = append(m.made, k.ID)
		return nil
	}
}

// holdsPlace says that nobody can ask for the same.
func (k *kept) holdsPlace() bool { return !k.State.Final() && k.State != Review }

// counts counts something for all limits, or for none where one is full.
func (m *model) counts(limits map[string]Limit) bool {
	for what, l := range limits {
		n := 0
		if c := m.tallies[what]; c != nil {
			for _, at := range c.at {
				if at.After(m.now.Add(-l.Within)) {
					n++
				}
			}
		}
		if l.Count > 0 && n >= l.Count {
			return false
		}
	}
	for what, l := range limits {
		if l.Count == 0 {
			continue
		}
		c := m.tallies[what]
		if c == nil {
			c = &counted{}
			m.tallies[what] = c
		}
		c.at = slices.DeleteFunc(c.at, func(at time.Time) bool { return !at.After(m.now.Add(-l.Within)) })
		c.at, c.until = append(c.at, m.now), m.now.Add(l.Within)
	}
	return true
}

// action is something that people press on a request like this, or anything
// else.
func (m *model) action(k *kept, by Person) Action {
	decide := []Action{Approve{By: by}, Deny{By: by, Reason: "not her"}, Cancel{By: by}, BreakGlass{By: by, Why: "she is being robbed"}, BreakGlass{By: by}}
	judge := []Action{Judge{By: by, Verdict: Justified}, Judge{By: by, Verdict: NotJustified}, Judge{By: by, Verdict: NotJustified, Remark: "it could wait"}, Judge{By: by, Verdict: "well"}}
	attest := []Action{Attest{By: by}, Confirm{By: by}, Retract{By: by}}
	stop := []Action{Stop{By: by, Why: "wait"}}
	all := slices.Concat(decide, judge, attest, stop)
	if k != nil {
		for range 2 {
			all = append(all, map[State][]Action{
				Pending: decide, Review: judge, HandedOff: append(attest, Cancel{By: by}), Running: append(stop, stop...),
				Denied: decide, Cancelled: decide, Expired: decide, Done: append(judge, decide...),
			}[k.State]...)
		}
	}
	return draw(m, "action", all, func(a Action) string { return strings.TrimPrefix(fmt.Sprintf("%T %+v", a, a), "approvals.") })
}

// presser is anybody, and more often somebody who has a part in the request.
func (m *model) presser(id, what string) Person {
	k, some := m.requests[id], humans
	if k != nil {
		some = append(slices.Clone(some), k.Requester, k.Requester, k.Requester, k.Plan.Target)
		some = append(some, k.Approvers()...)
		if k.Glass != nil {
			some = append(some, k.Glass.By, k.Glass.By)
		}
		for _, e := range k.Journal {
			if e.DoneBy != nil {
				some = append(some, e.DoneBy.By, e.DoneBy.By)
			}
		}
		for range 3 {
			some = append(some, m.able(k)...)
		}
	}
	return m.human(what, some...)
}

func (m *model) presses() {
	op, id := m.op(), m.request()
	by := m.presser(id, "by")
	m.person(op, m.press(op, id, by, m.action(m.requests[id], by), nil))
}

// collides has something come between what a press or a sweep reads and what it
// writes.
func (m *model) collides() {
	id := m.request()
	by, other := m.presser(id, "by"), m.presser(id, "other")
	k := m.requests[id]
	if k == nil || k.overdue(m.now) {
		m.Skip("there is no race")
	}
	a, op, first := m.action(k, by), m.op(), m.process()
	meanwhile := m.press(m.op(), id, other, m.action(k, other), nil)
	switch rapid.SampledFrom([]string{"a press", "a press", "a sweep", "the same press"}).Draw(m.T, "what comes between") {
	case "the same press":
		meanwhile = m.press(op, id, by, a, nil)
	case "a sweep":
		meanwhile = func(p *process) { m.takes(p, id, true, nil) }
	}
	m.lookUps()
	between := func() {
		for _, p := range m.processes {
			if p != first {
				meanwhile(p)
			}
		}
	}
	if rapid.IntRange(0, 2).Draw(m.T, "it is a sweep") == 2 {
		m.takes(first, id, true, between)
		return
	}
	m.press(op, id, by, a, between)(first)
}

// press is a press, and what comes between its reading and its commit.
func (m *model) press(op, id string, by Person, a Action, meanwhile func()) func(*process) {
	return func(p *process) {
		doing := fmt.Sprintf("%s, %T of %s (%s)", by, a, id, op)
		settle := m.looks(op, id, by, a)
		p.meanwhile = meanwhile
		got, err := p.press(m.ctx, op, id, by, a)
		p.meanwhile = nil
		want := settle()
		m.answered(doing, err, want)
		if k := m.requests[id]; meanwhile == nil && err == nil && want == nil && (got.Version != k.Version || got.State != k.State) {
			m.Errorf("%s: it is told to be %s in version %d, and is %s in %d", doing, got.State, got.Version, k.State, k.Version)
		}
	}
}

func (p *process) press(ctx context.Context, op, id string, by Person, a Action) (Request, error) {
	switch a := a.(type) {
	case Approve:
		return p.desk.Approve(ctx, op, id, by)
	case Deny:
		return p.desk.Deny(ctx, op, id, by, a.Reason)
	case Cancel:
		return p.desk.Cancel(ctx, op, id, by)
	case Stop:
		return p.desk.Stop(ctx, op, id, by, a.Why)
	case Attest:
		return p.desk.Attest(ctx, op, id, by)
	case Confirm:
		return p.desk.Confirm(ctx, op, id, by)
	case Retract:
		return p.desk.Retract(ctx, op, id, by)
	case BreakGlass:
		return p.desk.BreakGlass(ctx, op, id, by, a.Why)
	case Judge:
		return p.desk.Judge(ctx, op, id, by, a.Verdict, a.Remark)
	}
	return Request{}, fmt.Errorf("nobody can press %T", a)
}

// looks is the first half of a press: what is read, and asked about the person.
// settle is the second one, on what the request is by then.
func (m *model) looks(op, id string, by Person, a Action) (settle func() *Refusal) {
	k := m.requests[id]
	if k == nil {
		return func() *Refusal {
			title := "a decision on " + id
			return m.refuses(op, nil, audit.Event{Actor: by, Title: title, Outcome: verb(a)}, refusalOf(CodeNoRequest))
		}
	}
	if _, before := k.answers[op]; before {
		said, _ := m.stored(op, k)
		return func() *Refusal { return said }
	}
	if k.waits() && k.overdue(m.now) {
		m.expires(k, m.now)
	}
	refuse := func(r Request, because *Refusal) *Refusal {
		e := r.event("", by)
		e.Version, e.Outcome = r.Version, verb(a)
		return m.refuses(op, k, e, because)
	}
	read := k.Request
	because := refusalOf(m.voice(read, by, a))
	if because == nil {
		_, _, err := Apply(read, a, m.now)
		errors.As(err, &because)
	}
	if because != nil {
		return func() *Refusal { return refuse(read, because) }
	}
	return func() *Refusal {
		if said, before := m.stored(op, k); before { // meanwhile, by another delivery
			return said
		}
		next, events, err := Apply(k.Request, a, m.now)
		if errors.As(err, &because) {
			return refuse(k.Request, because)
		}
		limits := map[string]Limit{}
		switch a := a.(type) {
		case Approve:
			pair := []string{k.Requester.ID, a.By.ID}
			slices.Sort(pair)
			limits["pair:"+strings.Join(pair, "+")] = m.law.limits().Pair
		case BreakGlass:
			limits["glass:"+a.By.ID] = Limit{3, time.Hour}
			if m.law.limited {
				limits["glass:"+a.By.ID] = m.law.limits().BreakGlass
			}
		}
		if !m.counts(limits) {
			return refuse(k.Request, refusalOf(CodeTooMany))
		}
		m.commits(k, op, next, events)
		if k.State == Approved {
			k.Deadline, k.due = m.now.Add(m.timing.start(k.Plan.Class)), m.now
		}
		return nil
	}
}

func (k *kept) waits() bool { return k.State == Pending || k.State == Approved }

func (m *model) pressesOutside() {
	op, id, by := m.op(), m.request(), m.human("by")
	m.person(op, func(p *process) {
		k, e := m.requests[id], audit.Event{Actor: by, Title: "a request that is not there", Outcome: "approve"}
		if k != nil {
			e = k.event("", by)
			e.Version, e.Outcome = k.Version, "approve"
		}
		want := m.refuses(op, k, e, refusalOf(CodeOutsider))
		err := p.desk.RefusedPress(m.ctx, op, id, "approve", by, Refuse(CodeOutsider, "You are from another workspace."))
		m.answered(fmt.Sprintf("%s presses from outside", by), err, want)
	})
}

func (m *model) looksUp() {
	op, who, target := m.op(), m.human("who", hanna, hanna, ravi, olga, bo, Person{}), m.human("target")
	m.person(op, func(p *process) {
		want := m.lookedUp(op, who, target)
		err := p.desk.Look(m.ctx, op, "entra-methods", "Methods", who, target)
		m.answered(fmt.Sprintf("%s looks %s up", who, target), err, want)
	})
}

func (m *model) lookedUp(op string, who, target Person) *Refusal {
	if said, ok := m.stored(op, nil); ok {
		return said
	}
	about := audit.Event{Kind: audit.Read, Command: "entra-methods", Title: "Methods", Class: string(ClassRead), Actor: who, Target: target}
	h, code := m.find(who)
	if code == "" {
		code = h.mayAsk(ClassRead, false)
	}
	if code != "" {
		return m.refuses(op, nil, about, refusalOf(code))
	}
	n := m.reads[who.ID]
	if n == nil {
		n = &timely{until: m.now.Add(time.Minute)}
		m.reads[who.ID] = n
	}
	n.value += "I"
	if len(n.value) > 2 {
		return m.refuses(op, nil, about, refusalOf(CodeTooMany))
	}
	m.tells(op, nil, "ok", about)
	return nil
}

// What the runner does.

func (m *model) sweeps() {
	m.takes(m.process(), m.request(), rapid.Bool().Draw(m.T, "a hand is free"), nil)
}

// takes is what a process does when it finds a request due. It may do so at any
// time: only the clock and the request say what happens.
func (m *model) takes(p *process, id string, free bool, meanwhile func()) {
	var read *Request
	if k := m.requests[id]; k != nil {
		copied := k.Request
		read = &copied
	}
	p.meanwhile = meanwhile
	got, err := p.runner.take(m.ctx, id, free)
	p.meanwhile = nil
	claimed := read != nil && m.acts(p, *read, m.now, free)
	by, held := errors.AsType[heldBy](err)
	switch {
	case errors.Is(err, ErrNoRequest) && read == nil:
	case held && !claimed && read != nil:
		if k := m.requests[by.id]; k == nil || by.id == id || k.State != Running || k.Plan.Target.ID != read.Plan.Target.ID {
			m.Errorf("taking %s: %v, which it does not", id, err)
		}
	case err != nil:
		m.Errorf("taking %s: %v", id, err)
	case (got != nil) != claimed:
		m.Errorf("taking %s: claimed %v, want %v", id, got != nil, claimed)
	case claimed:
		m.workers = append(m.workers, &worker{process: p, view: got.req})
	}
}

// acts is what follows from a request as it was read at an instant. It counts
// where nothing has changed since.
func (m *model) acts(p *process, read Request, at time.Time, free bool) (claimed bool) {
	k := m.requests[read.ID]
	counts := k != nil && k.Version == read.Version
	switch {
	case (read.State == Pending || read.State == Approved) && read.overdue(at):
		if counts {
			m.expires(k, at)
		}
	case (read.State == HandedOff || read.State == Review) && !at.Before(read.Lease):
		if counts {
			m.reminds(k)
		}
	case read.State == Pending:
		if counts && !k.overdue(m.now) {
			m.warns(k, at)
		}
	case read.State == Approved, read.State == Running && !at.Before(read.Lease):
		return free && counts && (k.State == Running || !k.overdue(m.now)) && m.claims(p, k, at)
	}
	return false
}

func (m *model) expires(k *kept, at time.Time) {
	next, events, err := Apply(k.Request, Expire{}, at)
	if err != nil {
		m.Fatalf("expiring %s: %v", k.ID, err)
	}
	m.commits(k, fmt.Sprintf("expire:%d", k.Version), next, events)
}

func (m *model) reminds(k *kept) {
	e := k.event(audit.Reminded, Person{})
	e.Outcome, e.Reason = string(k.State), "It is "+k.Says()+"."
	m.commits(k, fmt.Sprintf("remind:%d", k.Version), k.Request, []audit.Event{e})
	k.Lease = m.now.Add(m.timing.Remind)
	k.due = k.Lease
}

// warning is how long before its end a request is warned about.
func (m *model) warning(r Request) time.Duration {
	return min(m.timing.Warn, r.Terms.Lifetime/2)
}

func (m *model) warns(k *kept, at time.Time) {
	begin := k.Deadline.Add(-m.warning(k.Request))
	_, warned := k.answers["warn"]
	// What was read a while ago puts it off by that while.
	later := func(t time.Time) time.Time {
		return t.Add(m.now.Sub(at)).Truncate(time.Millisecond).Add(time.Nanosecond)
	}
	switch op := fmt.Sprintf("later:%d", k.Version); {
	case warned:
		m.commits(k, op, k.Request, nil)
		k.due = later(k.Deadline)
	case at.Before(begin):
		m.commits(k, op, k.Request, nil)
		k.due = later(begin)
	default:
		e := k.event(audit.Reminded, Person{})
		e.Outcome, e.Reason = string(k.State), fmt.Sprintf("It is %s, and expires at %s.", k.Says(), k.Deadline.Format("15:04 UTC"))
		m.commits(k, "warn", k.Request, []audit.Event{e})
		k.due = later(k.Deadline)
	}
}

// claims makes a process the one whose writes count, unless another request
// runs for the target.
func (m *model) claims(p *process, k *kept, at time.Time) bool {
	for _, other := range m.requests {
		if other != k && other.State == Running && other.Plan.Target.ID == k.Plan.Target.ID {
			return false
		}
	}
	next, events, err := Apply(k.Request, Claim{Worker: p.name}, at)
	if err != nil {
		m.Fatalf("claiming %s: %v", k.ID, err)
	}
	m.commits(k, fmt.Sprintf("claim:%d", next.Claim), next, events)
	k.Lease = m.now.Add(m.timing.Lease)
	k.due = k.Lease
	if k.Plan.Class != ClassContain {
		by, was := m.madeSo[k.Plan.Target.ID]
		if m.recent[k.Plan.Target.ID].IsZero() || !was || by == k.ID {
			by = k.ID
		} else {
			by = "several"
		}
		m.recent[k.Plan.Target.ID], m.madeSo[k.Plan.Target.ID] = m.now.Add(48*time.Hour), by
	}
	return true
}

// photographs keeps what a process reads now, to be acted on later: by then it
// has stood still, or others were quicker.
func (m *model) photographs() {
	k := m.requests[m.request()]
	if k == nil {
		m.Skip("there is nothing to read")
	}
	snap, err := m.process().store.Load(m.ctx, k.ID)
	if err != nil {
		m.Fatalf("reading %s: %v", k.ID, err)
	}
	m.photos = append(m.photos, &snap)
}

// actsLate does what was right when a request was read: by a process that stood
// still, or was slow, since.
func (m *model) actsLate() {
	if len(m.photos) == 0 {
		m.Skip("nothing was read")
	}
	m.act(*draw(m, "what was read", m.photos, func(s *Snapshot) string { return fmt.Sprintf("%s, %s in version %d", s.ID, s.State, s.Version) }))
}

// standsStill has a process read a request, and act on it after a while.
func (m *model) standsStill() {
	when := rapid.SampledFrom([]string{"before", "meanwhile", "never"}).Draw(m.T, "time passes")
	if when == "before" {
		m.timePasses()
		m.agree()
	}
	m.photographs()
	s := m.photos[len(m.photos)-1]
	if rapid.Bool().Draw(m.T, "somebody presses meanwhile") {
		by := m.presser(s.ID, "by")
		m.press(m.op(), s.ID, by, m.action(m.requests[s.ID], by), nil)(m.process())
		m.agree()
	}
	if when == "meanwhile" {
		m.timePasses()
		m.agree()
	}
	m.act(*s)
}

func (m *model) act(s Snapshot) {
	p := m.process()
	claimed := m.acts(p, s.Request, s.Now, true)
	var err error
	switch {
	case (s.State == Pending || s.State == Approved) && s.overdue(s.Now):
		err = p.store.expire(m.ctx, s)
	case (s.State == HandedOff || s.State == Review) && !s.Now.Before(s.Lease):
		err = p.store.remind(m.ctx, s)
	case s.State == Pending:
		err = p.store.warn(m.ctx, s)
	case s.State == Approved, s.State == Running && !s.Now.Before(s.Lease):
		var got Snapshot
		got, err = p.store.claim(m.ctx, s, p.name)
		switch {
		case errors.Is(err, ErrFenced) && !claimed:
			err = nil
		case claimed:
			m.workers = append(m.workers, &worker{process: p, view: got.Request})
		case err == nil:
			m.Errorf("%s is claimed by what was read in version %d", s.ID, s.Version)
		}
	}
	if err != nil {
		m.Errorf("acting late on %s: %v", s.ID, err)
	}
}

// What workers do.

func (m *model) works() { m.does(m.busy()) }

// busy is somebody who believes to be at work.
func (m *model) busy() *worker {
	var busy []*worker
	for _, w := range m.workers {
		if !w.over && w.view.State == Running {
			busy = append(busy, w)
		}
	}
	if len(busy) == 0 {
		m.Skip("nobody works")
	}
	return draw(m, "worker", busy, (*worker).String)
}

// takesOver lets a lease run out and another worker claim, while the first one
// still believes that it works.
func (m *model) takesOver() {
	w := m.busy()
	m.lets(m.timing.Lease + time.Minute)
	m.agree()
	m.takes(m.process(), w.view.ID, true, nil)
	m.agree()
	m.does(w)
}

func (m *model) worksAgain() {
	var some []*worker
	for _, w := range m.workers {
		if w.again != nil {
			some = append(some, w)
		}
	}
	if len(some) == 0 {
		m.Skip("nobody has worked yet")
	}
	draw(m, "worker", some, (*worker).String).again()
}

// does is one move of a worker: the next one of its plan, or another one.
func (m *model) does(w *worker) {
	now, err := w.store.Load(m.ctx, w.view.ID) // as it does before each step
	if err == nil && now.Claim == w.view.Claim {
		w.view.Version, w.view.Halt = now.Version, now.Halt
	}
	step := slices.IndexFunc(w.view.Journal, func(e Entry) bool { return e.State == StepStarted || e.State == StepWaiting })
	choice := rapid.IntRange(0, 9).Draw(m.T, "what it does")
	switch {
	case choice == 9:
		m.advances(w, "give-back:x", LetGo{Step: -1})
	case choice == 8:
		m.advances(w, "begin:1", Begin{Step: 1}) // legal only where the first is done
	case step < 0 || choice == 7:
		m.advances(w, "finish", Finish{Why: "enough"})
	case w.view.Journal[step].State == StepWaiting && w.view.Plan.Steps[step].ByPeople:
		m.advances(w, fmt.Sprintf("hand-off:%d", step), HandOff{Step: step})
	case w.view.Journal[step].State == StepWaiting:
		if w.view.Plan.Steps[step].Secret == SecretPrepared && (!m.stashes(w, step, preparedLife, false) || m.dies(w)) {
			return
		}
		m.advances(w, fmt.Sprintf("begin:%d", step), Begin{Step: step})
	case choice == 6:
		let := rapid.SampledFrom([]int{step, -1}).Draw(m.T, "goes back to waiting") // or stays begun
		m.advances(w, fmt.Sprintf("wait:%d", step), LetGo{Step: let, After: 3 * time.Minute, Detail: "Microsoft Graph asked to wait"})
	default:
		state := rapid.SampledFrom([]StepState{StepDone, StepDone, StepDone, StepAlready, StepFailed, StepUncertain, StepWaiting}).Draw(m.T, "outcome")
		if w.view.Plan.Steps[step].Secret != SecretNone && state != StepWaiting {
			ok := false
			if state == StepDone {
				ok = m.stashes(w, step, m.timing.SecretLife, true)
			} else {
				ok = m.drops(w, step)
			}
			if !ok || m.dies(w) {
				return
			}
		}
		m.advances(w, fmt.Sprintf("end:%d", step), End{Step: step, Result: Result{State: state, Detail: "so it was", RequestID: "graph-1"}})
	}
}

// dies leaves a worker between two of its writes.
func (m *model) dies(w *worker) bool {
	w.over = rapid.IntRange(0, 5).Draw(m.T, "it dies") == 5
	return w.over
}

func (m *model) advances(w *worker, op string, a Action) {
	view, at := w.view, m.now.Truncate(time.Millisecond)
	do := func() {
		next, err := w.store.advance(m.ctx, view, at, op, a)
		w.meanwhile = nil
		want := m.advanced(view, op, a)
		got := "ok"
		switch {
		case errors.Is(err, ErrFenced):
			got = "fenced"
		case errors.Is(err, errHalted):
			got = "halted"
		case err != nil:
			got = "illegal"
		default:
			w.view = next
		}
		if got != want {
			m.Errorf("%s of %s by the worker with claim %d: %s (%v), want %s", op, view.ID, view.Claim, got, err, want)
		}
		if _, letsGo := a.(LetGo); letsGo && got == "ok" {
			w.over = true
		}
	}
	// Now and then somebody halts it between its look and its write.
	if rapid.IntRange(0, 5).Draw(m.T, "it is halted meanwhile") == 5 {
		m.down = false
		m.w.directory.goDown(nil)
		halt := m.press(m.op(), view.ID, view.Requester, Stop{By: view.Requester, Why: "wait"}, nil)
		w.meanwhile = func() {
			for _, p := range m.processes {
				if p != w.process {
					halt(p)
				}
			}
		}
	}
	do()
	w.again = do
}

func (m *model) advanced(view Request, op string, a Action) string {
	_, events, err := Apply(view, a, m.now)
	if err != nil {
		return "illegal"
	}
	op = fmt.Sprintf("run:%d:%s", view.Claim, op)
	k := m.requests[view.ID]
	if k == nil || k.Claim != view.Claim {
		return "fenced"
	}
	if _, ok := k.answers[op]; ok {
		return "ok"
	}
	switch a.(type) {
	case Begin, HandOff:
		if k.Version != view.Version {
			return "halted"
		}
	}
	next, _, err := Apply(k.Request, a, m.now)
	if err != nil {
		m.Fatalf("the worker with claim %d does not know what %s is: %v", view.Claim, k.ID, err)
	}
	m.commits(k, op, next, events)
	lease := m.timing.Lease
	if letGo, ok := a.(LetGo); ok {
		lease = letGo.After
	}
	if k.State == HandedOff || k.State == Review {
		lease = m.timing.Remind
	}
	if !k.State.Final() {
		k.Lease = m.now.Add(lease)
		k.due = k.Lease
	}
	return "ok"
}

// stashes and drops are a worker's writes beside its request.
func (m *model) stashes(w *worker, step int, life time.Duration, offered bool) bool {
	k, name := m.requests[w.view.ID], offer(w.view.ID, step)
	secret := fmt.Sprintf("pass-word-%d", m.sequence)
	err := w.store.stash(m.ctx, w.view, step, Secret{Value: secret}, life, offered)
	return m.fenced("stash", w, err, func() {
		m.secrets[name] = &timely{secret, m.now.Add(life)}
		if offered {
			m.offers[name] = m.now.Add(life)
		}
	}, k)
}

func (m *model) drops(w *worker, step int) bool {
	k, name := m.requests[w.view.ID], offer(w.view.ID, step)
	err := w.store.dropSecret(m.ctx, w.view.ID, step, exactly(w.view.Claim), "")
	return m.fenced("drop", w, err, func() { delete(m.secrets, name); delete(m.offers, name) }, k)
}

func (m *model) fenced(what string, w *worker, err error, do func(), k *kept) bool {
	counts := k != nil && k.Claim == w.view.Claim
	if counts != (err == nil) || err != nil && !errors.Is(err, ErrFenced) {
		m.Errorf("%s by the worker with claim %d: %v", what, w.view.Claim, err)
	}
	if counts {
		do()
	}
	return counts
}

// Secrets.

func (m *model) reveals() {
	op, id, by := m.op(), m.request(), m.human("by")
	if len(m.offers) > 0 && rapid.Bool().Draw(m.T, "one that is offered") {
		id, _, _ = strings.Cut(rapid.SampledFrom(slices.Sorted(maps.Keys(m.offers))).Draw(m.T, "offer"), "/")
	}
	if k := m.requests[id]; k != nil && rapid.IntRange(0, 3).Draw(m.T, "by the requester") > 0 {
		by = k.Requester
	}
	seen := rapid.Bool().Draw(m.T, "it is seen")
	m.person(op, func(p *process) {
		want, because := m.revealed(op, id, by)
		got, err := p.desk.Reveal(m.ctx, op, id, by)
		m.answered(fmt.Sprintf("%s reveals %s", by, id), err, because)
		if because == nil && err == nil && got.Value != m.secrets[want].value {
			m.Errorf("%s reveals another secret than %s", by, want)
		}
		if because == nil && err == nil && seen {
			delete(m.secrets, want)
			delete(m.offers, want)
			if err := p.desk.Shown(m.ctx, id, got); err != nil {
				m.Errorf("showing %s: %v", want, err)
			}
		}
	})
}

func (m *model) revealed(op, id string, by Person) (name string, because *Refusal) {
	k := m.requests[id]
	if k == nil {
		return "", m.refuses(op, nil, audit.Event{Actor: by, Title: "the secret of " + id, Outcome: verbReveal}, refusalOf(CodeNoRequest))
	}
	code, self := CodeNotRequester, k.Requester.ID == k.Plan.Target.ID
	if by.ID != "" && by.ID == k.Requester.ID {
		var h *human
		if h, code = m.find(by); code == "" {
			code = h.mayAsk(k.Plan.Class, self && m.law.self)
		}
		if code == "" {
			code = m.wasAnothersTarget(by, id)
		}
		if code == "" {
			code = CodeNothing
			for step, e := range k.Journal {
				if name = offer(id, step); e.State == StepDone && m.secrets[name] != nil {
					code = ""
					break
				}
			}
		}
	}
	said, before := m.stored(op, k)
	if code != "" {
		e := k.event("", by)
		e.Version, e.Outcome = k.Version, verbReveal
		if before && said == nil { // it was opened by this very press, which can say so no more
			return "", refusalOf(code)
		}
		return "", m.refuses(op, k, e, refusalOf(code))
	}
	if !before {
		e := k.event(audit.Revealed, by)
		e.Version = k.Version
		m.tells(op, k, revealed, e)
	}
	return name, said
}

func (m *model) endsOffers() {
	if len(m.offers) == 0 {
		m.Skip("nothing is offered")
	}
	if rapid.Bool().Draw(m.T, "their time is over") {
		m.lets(m.timing.SecretLife + time.Minute)
		m.agree()
	}
	ended := slices.DeleteFunc(slices.Sorted(maps.Keys(m.offers)), func(name string) bool { return m.offers[name].After(m.now) })
	slices.SortStableFunc(ended, func(a, b string) int { return m.offers[a].Compare(m.offers[b]) })
	for _, name := range ended {
		id, index, _ := strings.Cut(name, "/")
		k, step := m.requests[id], int(number(index))
		if k != nil && k.Journal[step].State == StepDone {
			e := k.event(audit.Unseen, Person{})
			e.Version = k.Version
			for _, answer := range k.answers {
				if answer == revealed {
					e.Outcome = "opened"
				}
			}
			m.tells(fmt.Sprintf("unseen:%s:%d", name, m.offers[name].UnixMilli()), k, "ok", e)
		}
		delete(m.offers, name)
		delete(m.secrets, name)
	}
	if err := m.process().store.endOffers(m.ctx); err != nil {
		m.Errorf("ending offers: %v", err)
	}
}

// able are those who could decide it, and have no part in it yet.
func (m *model) able(k *kept) (able []Person) {
	parts := append(k.Approvers(), k.Requester, k.Plan.Target)
	if k.Glass != nil {
		parts = append(parts, k.Glass.By)
	}
	for _, p := range humans[:9] {
		part := slices.ContainsFunc(parts, func(other Person) bool { return other.ID == p.ID })
		if !part && m.people[p.ID].mayDecide(k.forSelf()) == "" && m.wasTarget(p) == "" {
			able = append(able, p)
		}
	}
	return able
}

// carriesOn does the next thing that a request waits for, so that sequences get
// somewhere.
func (m *model) carriesOn() {
	open := m.open()
	if len(open) == 0 {
		m.Skip("nothing is open")
	}
	m.carryOn(m.requests[rapid.SampledFrom(open).Draw(m.T, "open request")])
}

func (m *model) carryOn(k *kept) {
	able := m.able(k)
	if len(able) == 0 {
		able = humans
	}
	press := func(how func(by Person) Action) {
		by := m.human("by", able...)
		op := m.op()
		m.person(op, m.press(op, k.ID, by, how(by), nil))
	}
	switch k.State {
	case Pending:
		if k.Terms.Glass && m.people[olga.ID].onCall && rapid.Bool().Draw(m.T, "the glass is broken") {
			able = []Person{olga}
			press(func(by Person) Action { return BreakGlass{By: by, Why: "she is being robbed"} })
			return
		}
		press(func(by Person) Action { return Approve{By: by} })
	case Approved:
		m.takes(m.process(), k.ID, true, nil)
	case HandedOff:
		press(func(by Person) Action {
			if k.Journal[len(k.Journal)-1].DoneBy == nil {
				return Attest{By: by}
			}
			return Confirm{By: by}
		})
	case Review:
		press(func(by Person) Action { return Judge{By: by, Verdict: Justified} })
	case Running:
		for _, w := range m.workers {
			if w.view.ID == k.ID && w.view.Claim == k.Claim && !w.over {
				m.does(w)
				return
			}
		}
		m.takes(m.process(), k.ID, true, nil)
	}
}

// Time.

// pastScript lets time pass, by moving everything that has an instant into the
// past: a real server's clock cannot be set.
//
// KEYS 1 any key of ours; ARGV 1 what all keys begin with  2 milliseconds
var pastScript = redis.NewScript(`
local function int(n) return string.format('%d', n) end
local tag, d = ARGV[1], tonumber(ARGV[2])
for _, key in ipairs(redis.call('KEYS', tag .. '*')) do
  local name = string.sub(key, #tag + 1)
  if string.sub(name, 1, 8) == 'request:' then
    for _, field in ipairs({'deadline', 'lease'}) do
      local at = redis.call('HGET', key, field)
      if at then redis.call('HSET', key, field, int(tonumber(at) - d)) end
    end
  elseif name == 'due' or name == 'offers' or string.sub(name, 1, 6) == 'tally:' then
    local all = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for i = 1, #all, 2 do redis.call('ZADD', key, int(tonumber(all[i + 1]) - d), all[i]) end
  end
  local ttl = redis.call('PTTL', key)
  if ttl > 0 and ttl <= d then redis.call('DEL', key) end
  if ttl > d then redis.call('PEXPIRE', key, int(ttl - d)) end
end`)

// timePasses lets minutes, hours or months pass. Whole minutes, so that what
// is left of any time is a minute or nothing, however slow this machine is.
func (m *model) timePasses() {
	next := 24 * time.Hour // when something is due, or goes
	soon := func(at time.Time) {
		if at.After(m.now) {
			next = min(next, at.Sub(m.now).Truncate(time.Minute)+time.Minute)
		}
	}
	for _, k := range m.requests {
		soon(k.due)
	}
	for _, ends := range m.offers {
		soon(ends)
	}
	d := draw(m, "time", []time.Duration{next, next, next, next, time.Minute, 11 * time.Minute, time.Hour, 49 * time.Hour, 91 * 24 * time.Hour}, time.Duration.String)
	m.lets(d)
}

// lets so much time pass, here and there.
func (m *model) lets(d time.Duration) {
	err := pastScript.Run(m.ctx, m.w.rdb, []string{m.w.store.keys.sequence()}, m.w.store.keys.tag, d.Milliseconds()).Err()
	if err != nil && !errors.Is(err, redis.Nil) {
		m.Fatal(err)
	}
	past := func(at *time.Time) (over bool) {
		if !at.IsZero() {
			*at = at.Add(-d)
		}
		return !at.After(m.now)
	}
	for id, k := range m.requests {
		past(&k.Deadline)
		past(&k.Lease)
		past(&k.due)
		if past(&k.gone) && !k.gone.IsZero() {
			delete(m.requests, id)
		}
	}
	for _, c := range m.calls {
		past(&c.at)
	}
	for _, s := range m.photos {
		past(&s.Deadline)
		past(&s.Lease)
		past(&s.Now)
	}
	for _, all := range []map[string]*timely{m.notes, m.secrets, m.reads} {
		for name, v := range all {
			if past(&v.until) {
				delete(all, name)
			}
		}
	}
	for id, until := range m.recent {
		if past(&until) {
			delete(m.recent, id)
			delete(m.madeSo, id)
		} else {
			m.recent[id] = until
		}
	}
	for name, ends := range m.offers { // they stay until somebody is told
		past(&ends)
		m.offers[name] = ends
	}
	for what, c := range m.tallies {
		for i := range c.at {
			past(&c.at[i])
		}
		if past(&c.until) {
			delete(m.tallies, what)
		}
	}
}

// lists compares what people and runners are shown.
func (m *model) lists() {
	p, who := m.process(), m.human("whose")
	var open, mine, due []string
	for _, id := range m.made {
		k := m.requests[id]
		if k == nil {
			continue
		}
		if !k.State.Final() {
			open = append(open, id)
		}
		if k.Requester.ID == who.ID {
			mine = append(mine, id)
		}
		if !k.due.IsZero() && !k.due.After(m.now) {
			due = append(due, id)
		}
		wants := false
		for step, e := range k.Journal {
			wants = wants || k.Plan.Steps[step].Secret != SecretNone && e.State == StepDone && m.secrets[offer(id, step)] != nil
		}
		if got, err := p.store.Offered(m.ctx, k.Request); err != nil || got != wants {
			m.Errorf("%s offers a secret: %v, %v; want %v", id, got, err, wants)
		}
	}
	ids := func(list []Snapshot, err error) []string {
		if err != nil {
			m.Error(err)
		}
		var all []string
		for _, s := range list {
			all = append(all, s.ID)
		}
		return all
	}
	alike := func(what string, got, want []string) {
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			m.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	now, err := p.store.due(m.ctx)
	if err != nil {
		m.Error(err)
	}
	alike("due", now, due)
	alike("open", ids(p.store.Open(m.ctx)), open)
	alike("asked for by "+who.String(), ids(p.store.Mine(m.ctx, who.ID)), mine)
}

// The comparison.

func (m *model) sweepAway() {
	var all []string
	for name := range m.w.contents().keys {
		all = append(all, m.w.store.keys.tag+name)
	}
	if len(all) > 0 {
		m.w.rdb.Del(m.ctx, all...)
	}
}

// agree compares all that is in Redis with the model, and then takes the real
// instants over.
func (m *model) agree() {
	pic := m.w.contents()
	span := pic.now.Sub(m.now) + time.Nanosecond
	if m.now.IsZero() {
		span = 0
	}
	near := func(what string, want *time.Time, got time.Time, slack time.Duration) {
		low, high := want.Add(-slack), want.Add(slack)
		if want.Nanosecond()%int(time.Millisecond) != 0 { // of this step
			low, high = low.Truncate(time.Millisecond), high.Add(span)
		}
		if want.IsZero() != got.IsZero() || got.Before(low) || got.After(high) {
			m.Errorf("%s: %v, want %v (and at most %v later)", what, got, *want, span)
		}
		*want = got
	}
	const ttl = 5 * time.Second // what is left of a key's life is not told by the clock that TIME tells
	m.agreeOnEvents(pic, near)

	want := map[string]bool{}
	key := func(name string) string {
		want[name] = true
		if pic.keys[name] == nil {
			m.Errorf("%s is not there", name)
		}
		return name
	}
	until := func(name string) time.Time {
		if s := pic.keys[key(name)]; s != nil && s.left > 0 {
			return pic.now.Add(s.left)
		}
		return time.Time{}
	}
	open, due, offers := pic.instants("open"), pic.instants("due"), pic.instants("offers")
	for id, k := range m.requests {
		m.agreeOnRequest(k, pic.fields(key("request:"+id)), near)
		near("the end of "+id, &k.gone, until("request:"+id), ttl)
		near("when "+id+" is due", &k.due, due[id], 0)
		if _, ok := open[id]; ok != !k.State.Final() {
			m.Errorf("%s is %s, but open: %v", id, k.State, ok)
		}
		if k.State == Running {
			if got := pic.text(key("holder:" + k.Plan.Target.ID)); got != id {
				m.Errorf("the target of %s is held by %q", id, got)
			}
		}
		if k.holdsPlace() {
			if got := pic.text(key("same:" + k.Print)); got != id {
				m.Errorf("what %s asks for is open as %q", id, got)
			}
		}
		delete(open, id)
		delete(due, id)
	}
	for name, set := range map[string]map[string]time.Time{"open": open, "due": due} {
		if len(set) > 0 {
			m.Errorf("%s still has %v", name, set)
		}
		if pic.keys[name] != nil {
			want[name] = true
		}
	}
	for name, ends := range m.offers {
		near("the end of the offer of "+name, &ends, offers[name], 0)
		m.offers[name] = ends
		delete(offers, name)
		want["offers"] = true
	}
	if len(offers) > 0 {
		m.Errorf("there are more offers: %v", offers)
	}
	for prefix, all := range map[string]map[string]*timely{"note:": m.notes, "secret:": m.secrets, "rate:read:": m.reads} {
		for name, v := range all {
			near("the end of "+prefix+name, &v.until, until(prefix+name), ttl)
		}
	}
	for op, note := range m.notes {
		fields := pic.fields("note:" + op)
		m.agreeOnAnswer(op, fields["op:"+op], note.value)
		if len(fields) != 2 { // and its version
			m.Errorf("the note of %s has %v", op, sorted(fields))
		}
	}
	for id, ends := range m.recent {
		near(id+" was a target", &ends, until("recent-target:"+id), ttl)
		m.recent[id] = ends
	}
	for what, c := range m.tallies {
		near("the end of the tally "+what, &c.until, until("tally:"+what), ttl)
		got := slices.SortedFunc(maps.Values(pic.instants("tally:"+what)), time.Time.Compare)
		if len(got) != len(c.at) {
			m.Errorf("the tally %s has counted %d, want %d", what, len(got), len(c.at))
			continue
		}
		for i := range got {
			near("the tally "+what, &c.at[i], got[i], 0)
		}
	}
	for who, n := range m.reads {
		if got := pic.text("rate:read:" + who); got != fmt.Sprint(len(n.value)) {
			m.Errorf("%s has looked %s times, want %d", who, got, len(n.value))
		}
	}
	for _, id := range m.made {
		if k := m.requests[id]; k != nil {
			if _, ok := pic.instants(key("mine:" + k.Requester.ID))[id]; !ok {
				m.Errorf("%s is not on the list of %s", id, k.Requester)
			}
		}
	}
	if m.sequence > 0 {
		key("processes")
		if got := pic.text(key("sequence")); got != fmt.Sprint(m.sequence) {
			m.Errorf("there were %s commits, want %d", got, m.sequence)
		}
	}
	if m.told {
		key("events")
	}
	for name := range pic.keys {
		if !want[name] && !strings.HasPrefix(name, "mine:") { // which outlives the requests
			m.Errorf("there is a key %s", name)
		}
	}
	m.clear(pic)
	if !m.Failed() {
		for _, broken := range m.w.broken() {
			m.Error(broken)
		}
	}
	m.now = pic.now.Add(time.Nanosecond)
}

// near is how two instants are compared, and the real one taken over.
type near = func(what string, want *time.Time, got time.Time, slack time.Duration)

func (m *model) agreeOnRequest(k *kept, fields map[string]string, near near) {
	got, err := m.w.store.decode(k.ID, fields, m.now)
	if err != nil {
		m.Errorf("%s: %v", k.ID, err)
		return
	}
	want, real := instants(&k.Request), instants(&got.Request)
	for name := range want {
		if real[name] != nil {
			near(name+" of "+k.ID, want[name], *real[name], 0)
		}
	}
	for i, why := range k.Terms.Why {
		if why == unsaid && i < len(got.Terms.Why) && got.Terms.Why[i] != "" {
			k.Terms.Why[i] = got.Terms.Why[i]
		}
	}
	picture := func(r Request) string {
		text, err := json.MarshalIndent(struct {
			State           State
			Version, Claim  int64
			Deadline, Lease time.Time
			Halt            *Halt
			Sealed          Request
		}{r.State, r.Version, r.Claim, r.Deadline, r.Lease, r.Halt, r}, "", " ")
		if err != nil {
			m.Fatal(err)
		}
		return string(text)
	}
	if want, got := picture(k.Request), picture(got.Request); want != got {
		m.Errorf("%s is not what it must be (-want +got):\n%s", k.ID, cmp.Diff(want, got))
	}
	for op, answer := range got.ops {
		m.agreeOnAnswer(op, answer, k.answers[op])
	}
	if len(got.ops) != len(k.answers) {
		m.Errorf("%s has the answers to %v, want %v", k.ID, sorted(got.ops), sorted(k.answers))
	}
}

// agreeOnAnswer compares a stored answer. That of a claim is the worker's own.
func (m *model) agreeOnAnswer(op, got, want string) {
	switch want {
	case "ok", "requested", revealed:
		if got == want || strings.HasPrefix(op, "claim:") {
			return
		}
	}
	if code(m.w.store.again(op, got)) != Code(want) {
		m.Errorf("the answer to %s is %q, want %q", op, code(m.w.store.again(op, got)), want)
	}
}

// instants are all those of a request, by name.
func instants(r *Request) map[string]*time.Time {
	all := map[string]*time.Time{"created": &r.Created, "began": &r.Began, "ended": &r.Ended, "deadline": &r.Deadline, "lease": &r.Lease, "not before": &r.NotBefore}
	decision := func(name string, d *Decision) {
		if d != nil {
			all[name] = &d.At
		}
	}
	for i := range r.Approvals {
		decision(fmt.Sprint("approval ", i), &r.Approvals[i])
	}
	decision("denial", r.Denial)
	decision("glass", r.Glass)
	if r.Halt != nil {
		all["halt"] = &r.Halt.At
	}
	if r.Reviewed != nil {
		all["review"] = &r.Reviewed.At
	}
	for i := range r.Journal {
		e := &r.Journal[i]
		all[fmt.Sprint("started ", i)], all[fmt.Sprint("ended ", i)] = &e.Started, &e.Ended
		decision(fmt.Sprint("done ", i), e.DoneBy)
		decision(fmt.Sprint("confirmed ", i), e.Confirmed)
	}
	return all
}

// agreeOnEvents compares the events that came since.
func (m *model) agreeOnEvents(pic contents, near near) {
	from := m.last
	if m.told {
		from = "(" + m.last
	}
	messages, err := m.w.rdb.XRange(m.ctx, m.w.store.keys.events(), from, "+").Result()
	if err != nil {
		m.Fatal(err)
	}
	text := func(e audit.Event) string {
		e.ID, e.At = "", time.Time{}
		if e.Kind == audit.Refused { // in words that the model does not always know
			e.Reason = unsaid
		}
		raw, err := json.MarshalIndent(e, "", " ")
		if err != nil {
			m.Fatal(err)
		}
		return string(raw)
	}
	var got, want []string
	for i, message := range messages {
		e, err := m.w.store.openEvent(message)
		if err != nil {
			m.Fatal(err)
		}
		if e.Kind == audit.Refused && e.Reason == "" {
			m.Errorf("a refusal without a word: %+v", e)
		}
		if i < len(m.events) && m.events[i].Reason != "" && m.events[i].Reason != e.Reason {
			m.Errorf("event %s says %q, want %q", e.Kind, e.Reason, m.events[i].Reason)
		}
		at := m.now
		near("the instant of an event", &at, e.At, 0)
		got = append(got, text(e))
		m.last, m.told = message.ID, true
	}
	for _, e := range m.events {
		want = append(want, text(e))
	}
	if !slices.Equal(want, got) {
		m.Errorf("the events are not what they must be (-want +got):\n%s", cmp.Diff(strings.Join(want, "\n"), strings.Join(got, "\n")))
	}
	m.events = nil
}

// clear looks for what must not be in the clear.
func (m *model) clear(pic contents) {
	words := []string{"lost her phone", "INC-7", "not her", "she is being robbed", "it could wait", "so it was", "elsewhere.example", "fernhill.example"}
	for _, p := range humans[:9] {
		words = append(words, p.Name)
	}
	for _, s := range m.secrets {
		words = append(words, s.value)
	}
	for name, s := range pic.keys {
		text := name + " " + strings.Join(s.flat, " ")
		for _, word := range words {
			if strings.Contains(text, word) {
				m.Errorf("%s shows %q", name, word)
			}
		}
	}
}
