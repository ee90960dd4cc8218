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

// The model is Countersign without Redis: requests that Apply moves from state to
// state, plain maps, and a short set of rules about people. Random sequences of
// everything that people, workers, sweeps and time can do are applied to the model
// and to the real store, by two processes that share nothing but Redis. After each
// move the answer, every key in Redis and every new event must match the model, and
// the invariants of the package comment must hold.
//
// Commands for a longer run, and to repeat a failure, which rapid prints after
// shrinking it:
//
//	COUNTERSIGN_TEST_SEED=random go test ./approvals -run TestStoreMatchesModel -rapid.checks=20000 -timeout=2h
//	go test ./approvals -run TestStoreMatchesModel -rapid.seed=…
func TestStoreMatchesModel(t *testing.T) {
	t.Parallel()
	w := newFixture(t, DefaultTiming())
	w.log = discard
	lines := []*connection{newConnection(w), newConnection(w)}
	seedRapid(t)
	few := os.Getenv("RAPID_CHECKS") == "" // a short run, unless a longer one was requested
	flag.Visit(func(f *flag.Flag) { few = few && f.Name != "rapid.checks" })
	runs, failed := 0, false
	rapid.Check(t, func(rt *rapid.T) {
		if runs++; few && runs > 30 && !failed {
			return
		}
		m := newModel(rt, w, lines, fmt.Sprint("model-", runs))
		defer m.deleteKeys()
		defer func() { failed = failed || rt.Failed() }()
		rt.Repeat(m.actions())
	})
}

// seeded sets the seed once, before rapid is first used: rapid has one seed for all
// tests, and they run in parallel.
var seeded sync.Once

// seedRapid gives rapid the seed of this run, unless rapid's own flag is set.
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

// connection is one process' connection to Redis. beforeCommit is called once,
// between the process' next read and the commit that follows it.
type connection struct {
	rdb          redis.UniversalClient
	beforeCommit func()
}

func newConnection(w *fixture) *connection {
	rdb := w.server.Client(w.t)
	l := &connection{rdb: rdb}
	rdb.AddHook(beforeHook{redis.NewScript(commitSource).Hash(), func() {
		if do := l.beforeCommit; do != nil {
			l.beforeCommit = nil
			do()
		}
	}})
	return l
}

// process is one Countersign process.
type process struct {
	*connection
	name    string
	store   *Store
	service *Service
	runner  *Runner
}

// modelRequest is a request as it must be in Redis.
type modelRequest struct {
	Request
	answers     map[string]string // by operation: ok, requested, revealed, or the code of a refusal
	due         time.Time         // when a runner must handle it next; zero for never
	forgottenAt time.Time         // when it is deleted; zero while it is open
}

// expiringValue is a value that expires.
type expiringValue struct {
	value string
	until time.Time
}

// limitTally is what a limit has counted.
type limitTally struct {
	at    []time.Time
	until time.Time
}

// modelPerson is what the tenant and the model know about a person.
type modelPerson struct {
	helpDesk, approver bool
	onCall, leftSlack  bool // in Slack
	disabled, guest    bool
	protected          bool
}

// delivery is something a person did, as the inbox delivers it.
type delivery struct {
	name string
	at   time.Time
	do   func(*process)
}

// worker is a process that claimed a request. view is the request after its last write.
type worker struct {
	*process
	view     Request
	resend   func() // its last write, as a client resends it after a lost reply
	released bool   // it released the request, or died
}

func (w *worker) String() string {
	return fmt.Sprintf("%s with claim %d of %s", w.name, w.view.Claim, w.view.ID)
}

// model is the expected state, and the processes that are tested against it.
type model struct {
	*rapid.T
	ctx       context.Context
	w         *fixture // reads the actual state
	processes []*process
	timing    Timing

	// now is Redis' clock at the end of the last move, plus one nanosecond. Redis
	// counts in milliseconds, so the nanosecond marks every time that is derived
	// from it until the comparison has replaced it by the real one.
	now           time.Time
	lookUpsFail   bool // people cannot be looked up
	people        map[string]*modelPerson
	recentTargets map[string]time.Time      // until when a former target must not take part
	madeTargetBy  map[string]string         // by which request somebody became a target, or "several"
	lookUpCounts  map[string]*expiringValue // how many reads in this minute, by person
	rules         policyRules
	requests      map[string]*modelRequest
	ids           []string // ids of all requests in order, deleted ones included
	notes         map[string]*expiringValue
	secrets       map[string]*expiringValue
	offers        map[string]time.Time
	tallies       map[string]*limitTally
	sequence      int64
	wantEvents    []audit.Event // that this move must have added
	lastEvent     string        // the id of the last event before those
	hasEvents     bool          // last is the id of an event

	ops        int
	deliveries []*delivery // everything that people have done
	workers    []*worker
	snapshots  []*Snapshot // what a process read, to act on later
}

func newModel(t *rapid.T, w *fixture, lines []*connection, prefix string) *model {
	own := *w
	own.directory, own.lastSeen, own.openedEvents = newTestDirectory(), nil, nil
	m := &model{
		T: t, ctx: w.t.Context(), w: &own, timing: w.timing, lastEvent: "-",
		people: map[string]*modelPerson{
			hanna.ID: {helpDesk: true}, ravi.ID: {helpDesk: true, approver: true}, olga.ID: {approver: true, onCall: true},
			mina.ID: {approver: true}, dana.ID: {}, sam.ID: {onCall: true}, gloria.ID: {protected: true},
			pat.ID: {helpDesk: true, approver: true, guest: true}, bo.ID: {helpDesk: true, approver: true, disabled: true},
		},
		recentTargets: map[string]time.Time{}, madeTargetBy: map[string]string{}, lookUpCounts: map[string]*expiringValue{}, requests: map[string]*modelRequest{}, notes: map[string]*expiringValue{},
		secrets: map[string]*expiringValue{}, offers: map[string]time.Time{}, tallies: map[string]*limitTally{},
		rules: policyRules{
			approvals: map[Class]int{ClassContain: 1, ClassDestroy: 1, ClassTakeover: 2},
			limited:   rapid.Bool().Draw(t, "there are limits"), self: rapid.Bool().Draw(t, "requests for self are allowed"),
		},
	}
	ring, err := ParseRing(testKeys)
	if err != nil {
		t.Fatal(err)
	}
	own.store = NewStore(w.rdb, ring, prefix, w.timing)
	for i, l := range lines {
		l.beforeCommit = nil
		store := NewStore(l.rdb, ring, prefix, w.timing)
		service := &Service{Store: store, Directory: own.directory, UserGroups: slack{m}, SlackAccounts: slack{m}, Log: discard}
		name := fmt.Sprint("process-", i+1)
		m.processes = append(m.processes, &process{connection: l, name: name, store: store, service: service, runner: &Runner{Service: service, Name: name, Log: discard}})
	}
	for id := range m.people {
		m.updateDirectory(id)
	}
	m.applyRules()
	return m
}

// actions returns the moves. A move is likelier the more often it is listed.
func (m *model) actions() map[string]func(*rapid.T) {
	all := map[string]func(*rapid.T){"": func(*rapid.T) { m.compare() }}
	for _, s := range []struct {
		often int
		name  string
		do    func()
	}{
		{3, "submit", m.doSubmit},
		{6, "progress", m.doProgress},
		{4, "action", m.doAction},
		{3, "race", m.doRace},
		{2, "deliver again", m.doRedeliver},
		{2, "sweep", m.doSweep},
		{4, "work", m.doWork},
		{2, "take over", m.doTakeOver},
		{1, "resend a write", m.doResendWrite},
		{1, "keep a snapshot", m.doSnapshot},
		{1, "act on a snapshot", m.doActOnSnapshot},
		{2, "stall", m.doStall},
		{2, "recheck", m.doRecheck},
		{2, "reveal", m.doReveal},
		{1, "expire secrets", m.doExpireSecrets},
		{1, "read", m.doRead},
		{1, "outside action", m.doOutsideAction},
		{2, "pass time", m.doPassTime},
		{2, "change people", m.doChangePeople},
		{1, "change rules", m.doChangeRules},
		{1, "list", m.doList},
	} {
		for i := range s.often {
			all[fmt.Sprint(s.name, strings.Repeat("'", i))] = func(*rapid.T) { s.do() }
		}
	}
	return all
}

// op returns a new operation id for an action of a person.
func (m *model) op() string {
	m.ops++
	return fmt.Sprint("op-", m.ops)
}

// draw draws one element of a list, and logs its name when the test fails.
func draw[V any](m *model, what string, list []V, name func(V) string) V {
	names := make([]string, len(list))
	for i, v := range list {
		names[i] = name(v)
	}
	return list[slices.Index(names, rapid.SampledFrom(names).Draw(m.T, what))]
}

func (m *model) drawProcess() *process {
	return draw(m, "process", m.processes, func(p *process) string { return p.name })
}

// drawRequest draws the id of a request: any request so far, open ones more often,
// or one that never existed.
func (m *model) drawRequest() string {
	if len(m.ids) == 0 {
		m.Skip("no request was submitted yet")
	}
	list := append([]string{"R-NEVERWAS"}, m.ids...)
	for range 3 {
		list = append(list, m.openRequests()...)
	}
	return rapid.SampledFrom(list).Draw(m.T, "request")
}

// openRequests lists the ids of the requests that are not final, in order.
func (m *model) openRequests() []string {
	return slices.DeleteFunc(slices.Clone(m.ids), func(id string) bool { return m.requests[id] == nil || m.requests[id].State.Final() })
}

var allPeople = []Person{hanna, ravi, olga, mina, dana, sam, gloria, pat, bo, {ID: "2f1d7c35-nobody-has-this", UPN: "stranger@elsewhere.example", Slack: "U0STRANGER"}, {Slack: "U0UNKNOWN"}}

func (m *model) drawPerson(what string, among ...Person) Person {
	if len(among) == 0 {
		among = allPeople
	}
	return draw(m, what, among, func(p Person) string { return p.Slack })
}

// drawLookUpFailure makes look-ups fail in one of fifteen moves.
func (m *model) drawLookUpFailure() {
	m.lookUpsFail = rapid.IntRange(0, 14).Draw(m.T, "look-ups fail") == 14
	m.w.directory.goDown(map[bool]error{true: permanentError{}}[m.lookUpsFail])
}

// permanentError is an error for which a retry does not help.
type permanentError struct{}

func (permanentError) Error() string   { return "the tenant is unavailable" }
func (permanentError) Permanent() bool { return true }

// slack answers for Slack about people.
type slack struct{ m *model }

func (s slack) In(_ context.Context, who Person, groups []string) ([]string, error) {
	if h := s.m.people[who.ID]; h != nil && h.onCall && slices.Contains(groups, onCallGroup) {
		return []string{onCallGroup}, nil
	}
	return nil, nil
}

func (s slack) Active(_ context.Context, id string) error {
	for _, p := range allPeople {
		if h := s.m.people[p.ID]; h != nil && p.Slack == id && h.leftSlack {
			return Refuse(CodeNotMember, "This account is deactivated.")
		}
	}
	return nil
}

// The rules about people.

// policyRules is the part of the policy that changes.
type policyRules struct {
	approvals map[Class]int
	self      bool // people may submit requests for their own account
	ticket    bool // required for a takeover
	limited   bool
}

const onCallGroup = "S0ONCALL"

var lifetimes = map[Class]time.Duration{ClassContain: 30 * time.Minute, ClassDestroy: 2 * time.Hour, ClassTakeover: 12 * time.Minute}

// limits returns the limits of the policy.
func (l policyRules) limits() Limits {
	if !l.limited {
		return Limits{}
	}
	return Limits{Requester: Limit{3, time.Hour}, Target: Limit{2, 2 * time.Hour}, Pair: Limit{2, 30 * time.Minute}, BreakGlass: Limit{1, time.Hour}}
}

// applyRules sets the policy of every process.
func (m *model) applyRules() {
	p := Policy{
		Groups: map[string]Group{
			"Help desk": {Entra: []string{helpDesk}}, "Identity approvers": {Entra: []string{approvers}}, "On-call engineers": {Slack: []string{onCallGroup}},
		},
		Classes:      map[Class]Rule{ClassRead: {Request: []string{"Help desk"}}},
		Limits:       m.rules.limits(),
		ReadsAMinute: 2,
	}
	for class, n := range m.rules.approvals {
		r := Rule{Request: []string{"Help desk"}, Approve: []string{"Identity approvers"}, RequestForSelf: &m.rules.self, Approvals: n, Lifetime: lifetimes[class]}
		if class == ClassContain {
			r.BreakGlass = []string{"On-call engineers"}
		}
		if class == ClassTakeover && m.rules.ticket {
			r.Require = []string{NeedTicket}
		}
		p.Classes[class] = r
	}
	for _, process := range m.processes {
		process.service.Policy = p
	}
}

func (m *model) doChangeRules() {
	m.rules.approvals[rapid.SampledFrom([]Class{ClassContain, ClassDestroy, ClassTakeover}).Draw(m.T, "class")] = rapid.IntRange(1, 2).Draw(m.T, "approvals")
	m.rules.self = rapid.Bool().Draw(m.T, "requests for self are allowed")
	m.rules.ticket = rapid.Bool().Draw(m.T, "a takeover needs a ticket")
	m.rules.limited = rapid.Bool().Draw(m.T, "there are limits")
	m.applyRules()
}

// updateDirectory sets an account in the directory to what the model knows.
func (m *model) updateDirectory(id string) {
	h := m.people[id]
	m.w.directory.change(Person{ID: id}, func(s *Account) {
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

func (m *model) doChangePeople() {
	who := m.drawPerson("who", allPeople[:9]...)
	h := m.people[who.ID]
	what := rapid.SampledFrom([]string{"help desk", "approver", "on call", "left", "disabled", "guest", "protected"}).Draw(m.T, "what changes")
	flag := map[string]*bool{"help desk": &h.helpDesk, "approver": &h.approver, "on call": &h.onCall, "left": &h.leftSlack, "disabled": &h.disabled, "guest": &h.guest, "protected": &h.protected}[what]
	*flag = !*flag
	m.updateDirectory(who.ID)
}

// refusalOf returns a refusal with a code and no sentence: the model does not know it.
func refusalOf(c Code) *Refusal {
	if c == "" {
		return nil
	}
	return &Refusal{Code: c}
}

// lookUp looks up a person.
func (m *model) lookUp(who Person) (*modelPerson, Code) {
	h, there := m.people[who.ID]
	switch {
	case who.ID == "":
		return nil, CodeUnknownPerson
	case m.lookUpsFail:
		return nil, CodeUnchecked
	case !there:
		return nil, CodeUnknownPerson
	}
	return h, ""
}

// checkAccount refuses guests and disabled accounts.
func (h *modelPerson) checkAccount() Code {
	switch {
	case h.guest:
		return CodeGuest
	case h.disabled:
		return CodeDisabled
	}
	return ""
}

func allowedIf(in bool) Code {
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

func (h *modelPerson) mayRequest(class Class, forSelf bool) Code {
	return firstOf(h.checkAccount(), allowedIf(h.helpDesk || h.onCall && class == ClassContain || forSelf))
}

func (h *modelPerson) mayDecide(self bool) Code {
	return firstOf(h.checkAccount(), allowedIf(h.approver && !self || h.helpDesk && self))
}

func (h *modelPerson) mayBreakGlass(class Class) Code {
	return firstOf(h.checkAccount(), allowedIf(h.onCall && class == ClassContain))
}

// checkSlack refuses a person who has left the Slack workspace.
func (h *modelPerson) checkSlack() Code {
	if h.leftSlack {
		return CodeNotMember
	}
	return ""
}

func (m *model) checkRecentTarget(who Person) Code {
	if m.recentTargets[who.ID].IsZero() {
		return ""
	}
	return CodeRecentTarget
}

// checkRecentTargetExcept does the same, except if only this request made the person
// a target.
func (m *model) checkRecentTargetExcept(who Person, request string) Code {
	if m.madeTargetBy[who.ID] == request {
		return ""
	}
	return m.checkRecentTarget(who)
}

// anySentence stands for a sentence that the model does not predict.
const anySentence = "any sentence"

// requirements returns what a new request requires, or why it is refused.
func (m *model) requirements(class Class, requester, target Person) (Requirements, Code) {
	self := requester.ID == target.ID
	by, no := m.lookUp(requester)
	if no != "" {
		return Requirements{}, no
	}
	if no := by.mayRequest(class, self && m.rules.self); no != "" {
		return Requirements{}, no
	}
	if no := m.checkRecentTarget(requester); no != "" {
		return Requirements{}, no
	}
	return m.requirementsFor(class, requester, target)
}

func (m *model) requirementsFor(class Class, requester, target Person) (Requirements, Code) {
	self := requester.ID == target.ID
	to, no := m.lookUp(target)
	switch {
	case no != "":
		return Requirements{}, no
	case self && !m.rules.self:
		return Requirements{}, CodeSelf
	case to.protected && class != ClassContain:
		return Requirements{}, CodeProtected
	}
	requirements := Requirements{Approvals: m.rules.approvals[class], Lifetime: lifetimes[class], BreakGlass: class == ClassContain && !to.protected}
	if to.protected || to.approver {
		requirements.Approvals++
		requirements.Why = append(requirements.Why, anySentence)
	}
	if self {
		requirements.Why = append(requirements.Why, anySentence)
	}
	return requirements, ""
}

// authorize is the check of a person before an action reaches the state machine.
func (m *model) authorize(r Request, by Person, a Action) Code {
	who, no := m.lookUp(by)
	if no != "" {
		return no
	}
	if no := who.checkAccount(); no != "" {
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
		if who.mayRequest(r.Plan.Class, false) == "" {
			return m.checkRecentTarget(by)
		}
	case BreakGlass:
		return firstOf(who.mayBreakGlass(r.Plan.Class), m.checkRecentTarget(by))
	}
	if r.State == StatePending && (by.ID == r.Requester.ID || by.ID == r.Plan.Target.ID) {
		return "" // the state machine refuses it
	}
	return firstOf(who.mayDecide(self), m.checkRecentTarget(by))
}

// recheck is the check that is repeated when a request runs.
func (m *model) recheck(r Request) Code {
	self := r.Requester.ID == r.Plan.Target.ID
	by, no := m.lookUp(r.Requester)
	if no != "" {
		return no
	}
	if no := by.mayRequest(r.Plan.Class, self && m.rules.self); no != "" {
		return no
	}
	requirements, no := m.requirementsFor(r.Plan.Class, r.Requester, r.Plan.Target)
	switch {
	case no != "":
		return no
	case by.leftSlack:
		return CodeNotMember
	case r.BreakGlass == nil && len(r.Approvals) < requirements.Approvals:
		return CodeNotAllowed
	case m.checkRecentTargetExcept(r.Requester, r.ID) != "":
		return CodeRecentTarget
	case r.BreakGlass != nil:
		breaker := m.people[r.BreakGlass.By.ID]
		return firstOf(allowedIf(requirements.BreakGlass), breaker.mayBreakGlass(r.Plan.Class), breaker.checkSlack(), m.checkRecentTarget(r.BreakGlass.By))
	}
	for _, approver := range r.Approvers() {
		who := m.people[approver.ID]
		if no := firstOf(who.checkSlack(), who.mayDecide(self), m.checkRecentTarget(approver)); no != "" {
			return no
		}
	}
	return ""
}

func (m *model) doRecheck() {
	running := slices.DeleteFunc(m.openRequests(), func(id string) bool { return m.requests[id].State != StateRunning })
	if len(running) == 0 {
		m.Skip("no request is running")
	}
	k := m.requests[rapid.SampledFrom(running).Draw(m.T, "request")]
	m.drawLookUpFailure()
	want := m.recheck(k.Request)
	got := m.drawProcess().service.recheck(m.ctx, k.Request)
	switch {
	case got == nil && want != "":
		m.Errorf("%s is allowed to run, want %q", k.ID, want)
	case got != nil && got.Code != want:
		m.Errorf("%s is not allowed to run: %q, want %q", k.ID, got.Code, want)
	}
}

// What people do.

// deliver executes a person's action on any process, and remembers it so that it
// can be redelivered.
func (m *model) deliver(op string, do func(*process)) {
	m.deliveries = append(m.deliveries, &delivery{op, m.now, do})
	m.drawLookUpFailure()
	do(m.drawProcess())
}

// doRedeliver redelivers an action that the inbox would still execute.
func (m *model) doRedeliver() {
	var fresh []*delivery
	for _, c := range m.deliveries {
		if c.at.Add(m.timing.Stale).After(m.now) {
			fresh = append(fresh, c)
		}
	}
	if len(fresh) == 0 {
		m.Skip("there is no recent action")
	}
	again := draw(m, "call", fresh, func(c *delivery) string { return c.name })
	m.drawLookUpFailure()
	again.do(m.drawProcess())
}

// checkAnswer compares the answer that a person got.
func (m *model) checkAnswer(doing string, err error, want *Refusal) {
	got := (*Refusal)(nil)
	if err != nil && !errors.As(err, &got) {
		m.Errorf("%s: %v", doing, err)
		return
	}
	switch {
	case got == nil && want == nil:
	case got == nil:
		m.Errorf("%s: it was accepted, want %q", doing, want.Code)
	case want == nil:
		m.Errorf("%s: refused with %q (%s)", doing, got.Code, got)
	case got.Code != want.Code || want.Sentence != "" && got.Sentence != want.Sentence || got.Sentence == "":
		m.Errorf("%s: refused with %q (%s), want %q (%s)", doing, got.Code, got, want.Code, want)
	}
}

// storedAnswer returns the answer that an operation got before.
func (m *model) storedAnswer(op string, k *modelRequest) (*Refusal, bool) {
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

// recordNote is a commit that adds an event and does not change a request. k is nil
// for an event without a request.
func (m *model) recordNote(op string, k *modelRequest, answer string, e audit.Event) {
	if k != nil {
		k.answers[op] = answer
	} else {
		m.notes[op] = &expiringValue{answer, m.now.Add(time.Hour)}
	}
	e.Op = op
	m.wantEvents = append(m.wantEvents, e)
	m.sequence++
}

// recordRefusal records a refusal, unless the operation has an answer already.
func (m *model) recordRefusal(op string, k *modelRequest, e audit.Event, because *Refusal) *Refusal {
	if said, ok := m.storedAnswer(op, k); ok {
		return said
	}
	e.Kind, e.Reason, e.Code = audit.Refused, because.Sentence, string(because.Code)
	m.recordNote(op, k, string(because.Code), e)
	return because
}

// recordCommit is a write that changes a request.
func (m *model) recordCommit(k *modelRequest, op string, next Request, events []audit.Event) {
	next.Version = k.Version + 1
	k.Request = next
	k.answers[op] = "ok"
	for _, e := range events {
		e.Op = op
		m.wantEvents = append(m.wantEvents, e)
	}
	m.sequence++
	if k.State.Final() {
		k.due, k.forgottenAt = time.Time{}, m.now.Add(90*24*time.Hour)
	}
}

// allPlans returns all plans that this test requests.
func allPlans(target Person) []Plan {
	list := []Plan{
		{Command: "entra-block-signin", Title: "Block sign-in", Class: ClassContain, Steps: []Step{{Op: "block", Words: "Block sign-in"}, {Op: "revoke", Words: "Revoke sessions"}}},
		deletionPlan(ClassDestroy, target, "m1", "m2"),
		deletionPlan(ClassDestroy, target, "m3"),
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

func (m *model) doSubmit() {
	if len(m.openRequests()) >= 4 || len(m.ids) >= 9 {
		m.Skip("there are enough requests")
	}
	requester := m.drawPerson("requester", append([]Person{hanna, hanna, hanna, ravi, ravi}, allPeople...)...)
	target := m.drawPerson("target", append([]Person{dana, dana, dana, sam}, allPeople[:9]...)...)
	ask := Submit{
		Plan: draw(m, "plan", allPlans(target), func(p Plan) string { return p.Command + " " + p.Args }), Requester: requester,
		Justification: "lost her phone", Verified: "callback", Channel: "C0HELPDESK",
		Ticket: map[bool]string{true: "INC-7"}[rapid.Bool().Draw(m.T, "with a ticket")],
	}
	if len(m.ids) > 0 && rapid.IntRange(0, 2).Draw(m.T, "it is requested again") == 2 {
		if k := m.requests[rapid.SampledFrom(m.ids).Draw(m.T, "request")]; k != nil {
			ask.Plan = k.Plan
		}
	}
	op := m.op()
	asks := func(op string, meanwhile func()) func(*process) {
		return func(p *process) {
			settle := m.expectSubmit(op, ask)
			p.beforeCommit = meanwhile
			_, err := p.service.Submit(m.ctx, op, ask)
			p.beforeCommit = nil
			want := settle()
			m.checkAnswer(fmt.Sprintf("%s requests %s on %s (%s)", requester, ask.Plan.Command, target, op), err, want)
		}
	}
	switch between := rapid.SampledFrom([]string{"nothing", "nothing", "nothing", "nothing", "the same", "other rules, and the same", "an identical request"}).Draw(m.T, "what happens between read and write"); between {
	case "nothing":
		m.deliver(op, asks(op, nil))
	case "an identical request":
		m.drawLookUpFailure()
		other := m.op()
		asks(op, func() { asks(other, nil)(m.processes[1]) })(m.processes[0])
	default: // it is delivered to both processes
		m.drawLookUpFailure()
		asks(op, func() {
			if between != "the same" {
				m.doChangeRules()
			}
			asks(op, nil)(m.processes[1])
		})(m.processes[0])
	}
	// Some requests make several moves of progress at once, so that every state is
	// reached often.
	k := m.requests[RequestID(op)]
	for range rapid.SampledFrom([]int{0, 0, 1, 2, 3, 4, 5, 6, 7, 8}).Draw(m.T, "moves of progress") {
		if k == nil || k.State.Final() || m.Failed() {
			return
		}
		m.compare()
		m.progress(k)
	}
}

// expectSubmit is the first half of submitting a request: what is read, and the
// checks of people. settle is the second half, on the state at the time of the write.
func (m *model) expectSubmit(op string, a Submit) (settle func() *Refusal) {
	if said, before := m.storedAnswer(op, nil); before {
		return func() *Refusal { return said }
	}
	about := audit.Event{Command: a.Plan.Command, Title: a.Plan.Title, Class: string(a.Plan.Class), Actor: a.Requester, Target: a.Plan.Target}
	refuse := func(c Code) *Refusal { return m.recordRefusal(op, nil, about, refusalOf(c)) }
	if a.Plan.Class == ClassTakeover && m.rules.ticket && a.Ticket == "" {
		return func() *Refusal { return refuse(CodeMissing) }
	}
	requirements, code := m.requirements(a.Plan.Class, a.Requester, a.Plan.Target)
	if code != "" {
		return func() *Refusal { return refuse(code) }
	}
	a.Requirements = requirements
	limits := map[string]Limit{"requester:" + a.Requester.ID: m.rules.limits().Requester}
	if a.Plan.Class != ClassContain {
		limits["target:"+a.Plan.Target.ID] = m.rules.limits().Target
	}
	return func() *Refusal {
		if said, before := m.storedAnswer(op, nil); before { // in the meantime, by another delivery
			return said
		}
		next, events, err := Apply(Request{ID: RequestID(op)}, a, m.now)
		if err != nil {
			m.Fatalf("submitting: %v", err)
		}
		next.Fingerprint = m.w.store.ring.print(a.Plan.Command, a.Plan.Target.ID, a.Plan.Args)
		for _, k := range m.requests {
			if k.blocksDuplicates() && k.Fingerprint == next.Fingerprint {
				return refuse(CodeIdentical)
			}
		}
		if !m.countLimits(limits) {
			return refuse(CodeTooMany)
		}
		k := &modelRequest{answers: map[string]string{}}
		m.recordCommit(k, op, next, events)
		k.answers[op] = "requested"
		k.Deadline = m.now.Add(requirements.Lifetime)
		k.due = k.Deadline.Add(-m.warningTime(k.Request))
		m.requests[k.ID] = k
		m.ids = append(m.ids, k.ID)
		return nil
	}
}

// blocksDuplicates reports whether an identical request is refused.
func (k *modelRequest) blocksDuplicates() bool { return !k.State.Final() && k.State != StateReview }

// countLimits counts an operation for all limits, or for none if one limit is reached.
func (m *model) countLimits(limits map[string]Limit) bool {
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
			c = &limitTally{}
			m.tallies[what] = c
		}
		c.at = slices.DeleteFunc(c.at, func(at time.Time) bool { return !at.After(m.now.Add(-l.Within)) })
		c.at, c.until = append(c.at, m.now), m.now.Add(l.Within)
	}
	return true
}

// drawAction draws an action: one that fits the state of the request more often than
// any other one.
func (m *model) drawAction(k *modelRequest, by Person) Action {
	decide := []Action{Approve{By: by}, Deny{By: by, Reason: "not her"}, Cancel{By: by}, BreakGlass{By: by, Why: "an intruder reads her mail"}, BreakGlass{By: by}}
	review := []Action{ReviewBreakGlass{By: by, Verdict: VerdictJustified}, ReviewBreakGlass{By: by, Verdict: VerdictNotJustified}, ReviewBreakGlass{By: by, Verdict: VerdictNotJustified, Remark: "it could wait"}, ReviewBreakGlass{By: by, Verdict: "well"}}
	attest := []Action{Attest{By: by}, Confirm{By: by}, Retract{By: by}}
	stop := []Action{Stop{By: by, Why: "wait"}}
	all := slices.Concat(decide, review, attest, stop)
	if k != nil {
		for range 2 {
			all = append(all, map[State][]Action{
				StatePending: decide, StateReview: review, StateHandedOff: append(attest, Cancel{By: by}), StateRunning: append(stop, stop...),
				StateDenied: decide, StateCancelled: decide, StateExpired: decide, StateDone: append(review, decide...),
			}[k.State]...)
		}
	}
	return draw(m, "action", all, func(a Action) string { return strings.TrimPrefix(fmt.Sprintf("%T %+v", a, a), "approvals.") })
}

// drawActor draws a person: one who takes part in the request more often than others.
func (m *model) drawActor(id, what string) Person {
	k, some := m.requests[id], allPeople
	if k != nil {
		some = append(slices.Clone(some), k.Requester, k.Requester, k.Requester, k.Plan.Target)
		some = append(some, k.Approvers()...)
		if k.BreakGlass != nil {
			some = append(some, k.BreakGlass.By, k.BreakGlass.By)
		}
		for _, e := range k.Journal {
			if e.DoneBy != nil {
				some = append(some, e.DoneBy.By, e.DoneBy.By)
			}
		}
		for range 3 {
			some = append(some, m.eligibleApprovers(k)...)
		}
	}
	return m.drawPerson(what, some...)
}

func (m *model) doAction() {
	op, id := m.op(), m.drawRequest()
	by := m.drawActor(id, "by")
	m.deliver(op, m.performAction(op, id, by, m.drawAction(m.requests[id], by), nil))
}

// doRace makes something happen between the read and the write of an action or a
// sweep.
func (m *model) doRace() {
	id := m.drawRequest()
	by, other := m.drawActor(id, "by"), m.drawActor(id, "other")
	k := m.requests[id]
	if k == nil || k.overdue(m.now) {
		m.Skip("there is no race")
	}
	a, op, first := m.drawAction(k, by), m.op(), m.drawProcess()
	meanwhile := m.performAction(m.op(), id, other, m.drawAction(k, other), nil)
	switch rapid.SampledFrom([]string{"an action", "an action", "a sweep", "the same action"}).Draw(m.T, "what happens between read and write") {
	case "the same action":
		meanwhile = m.performAction(op, id, by, a, nil)
	case "a sweep":
		meanwhile = func(p *process) { m.processDue(p, id, true, nil) }
	}
	m.drawLookUpFailure()
	between := func() {
		for _, p := range m.processes {
			if p != first {
				meanwhile(p)
			}
		}
	}
	if rapid.IntRange(0, 2).Draw(m.T, "it is a sweep") == 2 {
		m.processDue(first, id, true, between)
		return
	}
	m.performAction(op, id, by, a, between)(first)
}

// performAction performs an action. meanwhile is called between its read and its
// commit.
func (m *model) performAction(op, id string, by Person, a Action, meanwhile func()) func(*process) {
	return func(p *process) {
		doing := fmt.Sprintf("%s, %T of %s (%s)", by, a, id, op)
		settle := m.expectAction(op, id, by, a)
		p.beforeCommit = meanwhile
		got, err := p.perform(m.ctx, op, id, by, a)
		p.beforeCommit = nil
		want := settle()
		m.checkAnswer(doing, err, want)
		if k := m.requests[id]; meanwhile == nil && err == nil && want == nil && (got.Version != k.Version || got.State != k.State) {
			m.Errorf("%s: the answer says %s in version %d, and the request is %s in %d", doing, got.State, got.Version, k.State, k.Version)
		}
	}
}

func (p *process) perform(ctx context.Context, op, id string, by Person, a Action) (Request, error) {
	switch a := a.(type) {
	case Approve:
		return p.service.Approve(ctx, op, id, by)
	case Deny:
		return p.service.Deny(ctx, op, id, by, a.Reason)
	case Cancel:
		return p.service.Cancel(ctx, op, id, by)
	case Stop:
		return p.service.Stop(ctx, op, id, by, a.Why)
	case Attest:
		return p.service.Attest(ctx, op, id, by)
	case Confirm:
		return p.service.Confirm(ctx, op, id, by)
	case Retract:
		return p.service.Retract(ctx, op, id, by)
	case BreakGlass:
		return p.service.BreakGlass(ctx, op, id, by, a.Why)
	case ReviewBreakGlass:
		return p.service.Review(ctx, op, id, by, a.Verdict, a.Remark)
	}
	return Request{}, fmt.Errorf("%T is not a person's action", a)
}

// expectAction is the first half of an action: what is read, and the checks of the
// person. settle is the second half, on the request at the time of the write.
func (m *model) expectAction(op, id string, by Person, a Action) (settle func() *Refusal) {
	k := m.requests[id]
	if k == nil {
		return func() *Refusal {
			title := "a decision on " + id
			return m.recordRefusal(op, nil, audit.Event{Actor: by, Title: title, Outcome: attemptedVerb(a)}, refusalOf(CodeNoRequest))
		}
	}
	if _, before := k.answers[op]; before {
		said, _ := m.storedAnswer(op, k)
		return func() *Refusal { return said }
	}
	if k.canExpire() && k.overdue(m.now) {
		m.expectExpiry(k, m.now)
	}
	refuse := func(r Request, because *Refusal) *Refusal {
		e := r.event("", by)
		e.Version, e.Outcome = r.Version, attemptedVerb(a)
		return m.recordRefusal(op, k, e, because)
	}
	read := k.Request
	because := refusalOf(m.authorize(read, by, a))
	if because == nil {
		_, _, err := Apply(read, a, m.now)
		errors.As(err, &because)
	}
	if because != nil {
		return func() *Refusal { return refuse(read, because) }
	}
	return func() *Refusal {
		if said, before := m.storedAnswer(op, k); before { // in the meantime, by another delivery
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
			limits["pair:"+strings.Join(pair, "+")] = m.rules.limits().Pair
		case BreakGlass:
			limits["glass:"+a.By.ID] = Limit{3, time.Hour}
			if m.rules.limited {
				limits["glass:"+a.By.ID] = m.rules.limits().BreakGlass
			}
		}
		if !m.countLimits(limits) {
			return refuse(k.Request, refusalOf(CodeTooMany))
		}
		m.recordCommit(k, op, next, events)
		if k.State == StateApproved {
			k.Deadline, k.due = m.now.Add(m.timing.start(k.Plan.Class)), m.now
		}
		return nil
	}
}

func (k *modelRequest) canExpire() bool { return k.State == StatePending || k.State == StateApproved }

func (m *model) doOutsideAction() {
	op, id, by := m.op(), m.drawRequest(), m.drawPerson("by")
	m.deliver(op, func(p *process) {
		k, e := m.requests[id], audit.Event{Actor: by, Title: "a request that is not there", Outcome: "approve"}
		if k != nil {
			e = k.event("", by)
			e.Version, e.Outcome = k.Version, "approve"
		}
		want := m.recordRefusal(op, k, e, refusalOf(CodeNotMember))
		err := p.service.RecordRefusedAction(m.ctx, op, id, "approve", by, Refuse(CodeNotMember, "You are from another workspace."))
		m.checkAnswer(fmt.Sprintf("%s acts from outside", by), err, want)
	})
}

func (m *model) doRead() {
	op, who, target := m.op(), m.drawPerson("who", hanna, hanna, ravi, olga, bo, Person{}), m.drawPerson("target")
	m.deliver(op, func(p *process) {
		want := m.expectRead(op, who, target)
		err := p.service.AuthorizeRead(m.ctx, op, "entra-methods", "Methods", who, target)
		m.checkAnswer(fmt.Sprintf("%s reads %s", who, target), err, want)
	})
}

func (m *model) expectRead(op string, who, target Person) *Refusal {
	if said, ok := m.storedAnswer(op, nil); ok {
		return said
	}
	about := audit.Event{Kind: audit.Read, Command: "entra-methods", Title: "Methods", Class: string(ClassRead), Actor: who, Target: target}
	h, code := m.lookUp(who)
	if code == "" {
		code = h.mayRequest(ClassRead, false)
	}
	if code != "" {
		return m.recordRefusal(op, nil, about, refusalOf(code))
	}
	n := m.lookUpCounts[who.ID]
	if n == nil {
		n = &expiringValue{until: m.now.Add(time.Minute)}
		m.lookUpCounts[who.ID] = n
	}
	n.value += "I"
	if len(n.value) > 2 {
		return m.recordRefusal(op, nil, about, refusalOf(CodeTooMany))
	}
	m.recordNote(op, nil, "ok", about)
	return nil
}

// What the runner does.

func (m *model) doSweep() {
	m.processDue(m.drawProcess(), m.drawRequest(), rapid.Bool().Draw(m.T, "the runner has capacity"), nil)
}

// processDue is what a process does with a request that is due. It may do so at any
// time: only the clock and the request determine what happens.
func (m *model) processDue(p *process, id string, free bool, meanwhile func()) {
	var read *Request
	if k := m.requests[id]; k != nil {
		copied := k.Request
		read = &copied
	}
	p.beforeCommit = meanwhile
	got, err := p.runner.claim(m.ctx, id, free)
	p.beforeCommit = nil
	claimed := read != nil && m.expectDue(p, *read, m.now, free)
	by, held := errors.AsType[heldTargetError](err)
	switch {
	case errors.Is(err, ErrNoRequest) && read == nil:
	case held && !claimed && read != nil:
		if k := m.requests[by.id]; k == nil || by.id == id || k.State != StateRunning || k.Plan.Target.ID != read.Plan.Target.ID {
			m.Errorf("processing %s: %v, which is wrong", id, err)
		}
	case err != nil:
		m.Errorf("processing %s: %v", id, err)
	case (got != nil) != claimed:
		m.Errorf("processing %s: claimed %v, want %v", id, got != nil, claimed)
	case claimed:
		m.workers = append(m.workers, &worker{process: p, view: got.req})
	}
}

// expectDue is what follows from a request as it was read at a given time. It has
// an effect only if the request has not changed since.
func (m *model) expectDue(p *process, read Request, at time.Time, free bool) (claimed bool) {
	k := m.requests[read.ID]
	counts := k != nil && k.Version == read.Version
	switch {
	case (read.State == StatePending || read.State == StateApproved) && read.overdue(at):
		if counts {
			m.expectExpiry(k, at)
		}
	case (read.State == StateHandedOff || read.State == StateReview) && !at.Before(read.Lease):
		if counts {
			m.expectReminder(k)
		}
	case read.State == StatePending:
		if counts && !k.overdue(m.now) {
			m.expectWarning(k, at)
		}
	case read.State == StateApproved, read.State == StateRunning && !at.Before(read.Lease):
		return free && counts && (k.State == StateRunning || !k.overdue(m.now)) && m.expectClaim(p, k, at)
	}
	return false
}

func (m *model) expectExpiry(k *modelRequest, at time.Time) {
	next, events, err := Apply(k.Request, Expire{}, at)
	if err != nil {
		m.Fatalf("expiring %s: %v", k.ID, err)
	}
	m.recordCommit(k, fmt.Sprintf("expire:%d", k.Version), next, events)
}

func (m *model) expectReminder(k *modelRequest) {
	e := k.event(audit.Reminded, Person{})
	e.Outcome, e.Reason = string(k.State), "It is "+k.Summary()+"."
	m.recordCommit(k, fmt.Sprintf("remind:%d", k.Version), k.Request, []audit.Event{e})
	k.Lease = m.now.Add(m.timing.Remind)
	k.due = k.Lease
}

// warningTime returns how long before its expiry people are warned about a request.
func (m *model) warningTime(r Request) time.Duration {
	return min(m.timing.Warn, r.Requirements.Lifetime/2)
}

func (m *model) expectWarning(k *modelRequest, at time.Time) {
	begin := k.Deadline.Add(-m.warningTime(k.Request))
	_, warned := k.answers["warn"]
	// If the request was read some time ago, the new time is later by that time.
	later := func(t time.Time) time.Time {
		return t.Add(m.now.Sub(at)).Truncate(time.Millisecond).Add(time.Nanosecond)
	}
	switch op := fmt.Sprintf("later:%d", k.Version); {
	case warned:
		m.recordCommit(k, op, k.Request, nil)
		k.due = later(k.Deadline)
	case at.Before(begin):
		m.recordCommit(k, op, k.Request, nil)
		k.due = later(begin)
	default:
		e := k.event(audit.Reminded, Person{})
		e.Outcome, e.Reason = string(k.State), fmt.Sprintf("It is %s, and expires at %s.", k.Summary(), k.Deadline.Format("15:04 UTC"))
		m.recordCommit(k, "warn", k.Request, []audit.Event{e})
		k.due = later(k.Deadline)
	}
}

// expectClaim claims a request for a process, unless another request runs for the
// same target.
func (m *model) expectClaim(p *process, k *modelRequest, at time.Time) bool {
	for _, other := range m.requests {
		if other != k && other.State == StateRunning && other.Plan.Target.ID == k.Plan.Target.ID {
			return false
		}
	}
	next, events, err := Apply(k.Request, Claim{Worker: p.name}, at)
	if err != nil {
		m.Fatalf("claiming %s: %v", k.ID, err)
	}
	m.recordCommit(k, fmt.Sprintf("claim:%d", next.Claim), next, events)
	k.Lease = m.now.Add(m.timing.Lease)
	k.due = k.Lease
	if k.Plan.Class != ClassContain {
		by, was := m.madeTargetBy[k.Plan.Target.ID]
		if m.recentTargets[k.Plan.Target.ID].IsZero() || !was || by == k.ID {
			by = k.ID
		} else {
			by = "several"
		}
		m.recentTargets[k.Plan.Target.ID], m.madeTargetBy[k.Plan.Target.ID] = m.now.Add(48*time.Hour), by
	}
	return true
}

// doSnapshot keeps what a process reads now, to act on it later, as if the process
// had stalled or others had been faster.
func (m *model) doSnapshot() {
	k := m.requests[m.drawRequest()]
	if k == nil {
		m.Skip("there is nothing to read")
	}
	snap, err := m.drawProcess().store.Load(m.ctx, k.ID)
	if err != nil {
		m.Fatalf("reading %s: %v", k.ID, err)
	}
	m.snapshots = append(m.snapshots, &snap)
}

// doActOnSnapshot does what was right when a request was read, as a process does that
// stalled or was slow since.
func (m *model) doActOnSnapshot() {
	if len(m.snapshots) == 0 {
		m.Skip("nothing was read")
	}
	m.actOnSnapshot(*draw(m, "snapshot", m.snapshots, func(s *Snapshot) string { return fmt.Sprintf("%s, %s in version %d", s.ID, s.State, s.Version) }))
}

// doStall makes a process read a request, and act on it some time later.
func (m *model) doStall() {
	when := rapid.SampledFrom([]string{"before", "meanwhile", "never"}).Draw(m.T, "time passes")
	if when == "before" {
		m.doPassTime()
		m.compare()
	}
	m.doSnapshot()
	s := m.snapshots[len(m.snapshots)-1]
	if rapid.Bool().Draw(m.T, "a person acts in the meantime") {
		by := m.drawActor(s.ID, "by")
		m.performAction(m.op(), s.ID, by, m.drawAction(m.requests[s.ID], by), nil)(m.drawProcess())
		m.compare()
	}
	if when == "meanwhile" {
		m.doPassTime()
		m.compare()
	}
	m.actOnSnapshot(*s)
}

func (m *model) actOnSnapshot(s Snapshot) {
	p := m.drawProcess()
	claimed := m.expectDue(p, s.Request, s.Now, true)
	var err error
	switch {
	case (s.State == StatePending || s.State == StateApproved) && s.overdue(s.Now):
		err = p.store.expire(m.ctx, s)
	case (s.State == StateHandedOff || s.State == StateReview) && !s.Now.Before(s.Lease):
		err = p.store.remind(m.ctx, s)
	case s.State == StatePending:
		err = p.store.remindExpiry(m.ctx, s)
	case s.State == StateApproved, s.State == StateRunning && !s.Now.Before(s.Lease):
		var got Snapshot
		got, err = p.store.claim(m.ctx, s, p.name)
		switch {
		case errors.Is(err, ErrFenced) && !claimed:
			err = nil
		case claimed:
			m.workers = append(m.workers, &worker{process: p, view: got.Request})
		case err == nil:
			m.Errorf("%s is claimed from a snapshot of version %d", s.ID, s.Version)
		}
	}
	if err != nil {
		m.Errorf("acting late on %s: %v", s.ID, err)
	}
}

// What workers do.

func (m *model) doWork() { m.doNextWrite(m.drawBusyWorker()) }

// drawBusyWorker draws a worker that believes it holds its claim.
func (m *model) drawBusyWorker() *worker {
	var busy []*worker
	for _, w := range m.workers {
		if !w.released && w.view.State == StateRunning {
			busy = append(busy, w)
		}
	}
	if len(busy) == 0 {
		m.Skip("no worker is busy")
	}
	return draw(m, "worker", busy, (*worker).String)
}

// doTakeOver lets a lease run out and another worker claim the request, while the
// first one still believes that it holds its claim.
func (m *model) doTakeOver() {
	w := m.drawBusyWorker()
	m.passTime(m.timing.Lease + time.Minute)
	m.compare()
	m.processDue(m.drawProcess(), w.view.ID, true, nil)
	m.compare()
	m.doNextWrite(w)
}

func (m *model) doResendWrite() {
	var some []*worker
	for _, w := range m.workers {
		if w.resend != nil {
			some = append(some, w)
		}
	}
	if len(some) == 0 {
		m.Skip("no worker has written yet")
	}
	draw(m, "worker", some, (*worker).String).resend()
}

// doNextWrite is one write of a worker: the next one of its plan, or another one.
func (m *model) doNextWrite(w *worker) {
	now, err := w.store.Load(m.ctx, w.view.ID) // as it does before each step
	if err == nil && now.Claim == w.view.Claim {
		w.view.Version, w.view.Halt = now.Version, now.Halt
	}
	step := slices.IndexFunc(w.view.Journal, func(e JournalEntry) bool { return e.State == StepStarted || e.State == StepWaiting })
	choice := rapid.IntRange(0, 9).Draw(m.T, "what it does")
	switch {
	case choice == 9:
		m.advance(w, "give-back:x", Release{Step: -1})
	case choice == 8:
		m.advance(w, "begin:1", StartStep{Step: 1}) // legal only if the first step is done
	case step < 0 || choice == 7:
		m.advance(w, "finish", Finish{Why: "enough"})
	case w.view.Journal[step].State == StepWaiting && w.view.Plan.Steps[step].ByPeople:
		m.advance(w, fmt.Sprintf("hand-off:%d", step), HandOff{Step: step})
	case w.view.Journal[step].State == StepWaiting:
		if w.view.Plan.Steps[step].Secret == SecretPrepared && (!m.keepSecret(w, step, preparedLife, false) || m.workerDies(w)) {
			return
		}
		m.advance(w, fmt.Sprintf("begin:%d", step), StartStep{Step: step})
	case choice == 6:
		let := rapid.SampledFrom([]int{step, -1}).Draw(m.T, "goes back to waiting") // or stays started
		m.advance(w, fmt.Sprintf("wait:%d", step), Release{Step: let, After: 3 * time.Minute, Detail: "Microsoft Graph asked to wait"})
	default:
		state := rapid.SampledFrom([]StepState{StepDone, StepDone, StepDone, StepAlready, StepFailed, StepUncertain, StepWaiting}).Draw(m.T, "outcome")
		if w.view.Plan.Steps[step].Secret != SecretNone && state != StepWaiting {
			ok := false
			if state == StepDone {
				ok = m.keepSecret(w, step, m.timing.SecretLife, true)
			} else {
				ok = m.dropSecret(w, step)
			}
			if !ok || m.workerDies(w) {
				return
			}
		}
		m.advance(w, fmt.Sprintf("end:%d", step), EndStep{Step: step, Result: Result{State: state, Detail: "so it was", RequestID: "graph-1"}})
	}
}

// workerDies makes a worker die between two of its writes.
func (m *model) workerDies(w *worker) bool {
	w.released = rapid.IntRange(0, 5).Draw(m.T, "it dies") == 5
	return w.released
}

func (m *model) advance(w *worker, op string, a Action) {
	view, at := w.view, m.now.Truncate(time.Millisecond)
	do := func() {
		next, err := w.store.advance(m.ctx, view, at, op, a)
		w.beforeCommit = nil
		want := m.expectAdvance(view, op, a)
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
		if _, releases := a.(Release); releases && got == "ok" {
			w.released = true
		}
	}
	// Sometimes a person halts it between its read and its write.
	if rapid.IntRange(0, 5).Draw(m.T, "it is halted in the meantime") == 5 {
		m.lookUpsFail = false
		m.w.directory.goDown(nil)
		halt := m.performAction(m.op(), view.ID, view.Requester, Stop{By: view.Requester, Why: "wait"}, nil)
		w.beforeCommit = func() {
			for _, p := range m.processes {
				if p != w.process {
					halt(p)
				}
			}
		}
	}
	do()
	w.resend = do
}

func (m *model) expectAdvance(view Request, op string, a Action) string {
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
	case StartStep, HandOff:
		if k.Version != view.Version {
			return "halted"
		}
	}
	next, _, err := Apply(k.Request, a, m.now)
	if err != nil {
		m.Fatalf("the view of the worker with claim %d differs from %s: %v", view.Claim, k.ID, err)
	}
	m.recordCommit(k, op, next, events)
	lease := m.timing.Lease
	if release, ok := a.(Release); ok {
		lease = release.After
	}
	if k.State == StateHandedOff || k.State == StateReview {
		lease = m.timing.Remind
	}
	if !k.State.Final() {
		k.Lease = m.now.Add(lease)
		k.due = k.Lease
	}
	return "ok"
}

// keepSecret and dropSecret are the writes of a worker that do not change its request.
func (m *model) keepSecret(w *worker, step int, life time.Duration, offered bool) bool {
	k, name := m.requests[w.view.ID], offer(w.view.ID, step)
	secret := fmt.Sprintf("pass-word-%d", m.sequence)
	err := w.store.storeSecret(m.ctx, w.view, step, Secret{Value: secret}, life, offered)
	return m.checkFenced("keeping a secret", w, err, func() {
		m.secrets[name] = &expiringValue{secret, m.now.Add(life)}
		if offered {
			m.offers[name] = m.now.Add(life)
		}
	}, k)
}

func (m *model) dropSecret(w *worker, step int) bool {
	k, name := m.requests[w.view.ID], offer(w.view.ID, step)
	err := w.store.dropSecret(m.ctx, w.view.ID, step, formatInt(w.view.Claim), "")
	return m.checkFenced("dropping a secret", w, err, func() { delete(m.secrets, name); delete(m.offers, name) }, k)
}

func (m *model) checkFenced(what string, w *worker, err error, do func(), k *modelRequest) bool {
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

func (m *model) doReveal() {
	op, id, by := m.op(), m.drawRequest(), m.drawPerson("by")
	if len(m.offers) > 0 && rapid.Bool().Draw(m.T, "one with an offered secret") {
		id, _, _ = strings.Cut(rapid.SampledFrom(slices.Sorted(maps.Keys(m.offers))).Draw(m.T, "offer"), "/")
	}
	if k := m.requests[id]; k != nil && rapid.IntRange(0, 3).Draw(m.T, "by the requester") > 0 {
		by = k.Requester
	}
	seen := rapid.Bool().Draw(m.T, "it is seen")
	m.deliver(op, func(p *process) {
		want, because := m.expectReveal(op, id, by)
		got, err := p.service.Reveal(m.ctx, op, id, by)
		m.checkAnswer(fmt.Sprintf("%s reveals %s", by, id), err, because)
		if because == nil && err == nil && got.Value != m.secrets[want].value {
			m.Errorf("%s reveals another secret than %s", by, want)
		}
		if because == nil && err == nil && seen {
			delete(m.secrets, want)
			delete(m.offers, want)
			if err := p.service.Shown(m.ctx, id, got); err != nil {
				m.Errorf("showing %s: %v", want, err)
			}
		}
	})
}

func (m *model) expectReveal(op, id string, by Person) (name string, because *Refusal) {
	k := m.requests[id]
	if k == nil {
		return "", m.recordRefusal(op, nil, audit.Event{Actor: by, Title: "the secret of " + id, Outcome: verbReveal}, refusalOf(CodeNoRequest))
	}
	code, self := CodeNotRequester, k.Requester.ID == k.Plan.Target.ID
	if by.ID != "" && by.ID == k.Requester.ID {
		var h *modelPerson
		if h, code = m.lookUp(by); code == "" {
			code = h.mayRequest(k.Plan.Class, self && m.rules.self)
		}
		if code == "" {
			code = m.checkRecentTargetExcept(by, id)
		}
		if code == "" {
			code = CodeNoSteps
			for step, e := range k.Journal {
				if name = offer(id, step); e.State == StepDone && m.secrets[name] != nil {
					code = ""
					break
				}
			}
		}
	}
	said, before := m.storedAnswer(op, k)
	if code != "" {
		e := k.event("", by)
		e.Version, e.Outcome = k.Version, verbReveal
		if before && said == nil { // this action opened it before, and the secret is gone now
			return "", refusalOf(code)
		}
		return "", m.recordRefusal(op, k, e, refusalOf(code))
	}
	if !before {
		e := k.event(audit.Revealed, by)
		e.Version = k.Version
		m.recordNote(op, k, revealed, e)
	}
	return name, said
}

func (m *model) doExpireSecrets() {
	if len(m.offers) == 0 {
		m.Skip("nothing is offered")
	}
	if rapid.Bool().Draw(m.T, "let them expire") {
		m.passTime(m.timing.SecretLife + time.Minute)
		m.compare()
	}
	ended := slices.DeleteFunc(slices.Sorted(maps.Keys(m.offers)), func(name string) bool { return m.offers[name].After(m.now) })
	slices.SortStableFunc(ended, func(a, b string) int { return m.offers[a].Compare(m.offers[b]) })
	for _, name := range ended {
		id, index, _ := strings.Cut(name, "/")
		k, step := m.requests[id], int(parseInt(index))
		if k != nil && k.Journal[step].State == StepDone {
			e := k.event(audit.Unseen, Person{})
			e.Version = k.Version
			for _, answer := range k.answers {
				if answer == revealed {
					e.Outcome = "opened"
				}
			}
			m.recordNote(fmt.Sprintf("unseen:%s:%d", name, m.offers[name].UnixMilli()), k, "ok", e)
		}
		delete(m.offers, name)
		delete(m.secrets, name)
	}
	if err := m.drawProcess().store.expireSecrets(m.ctx); err != nil {
		m.Errorf("expiring secrets: %v", err)
	}
}

// eligibleApprovers lists the people who could decide a request and have not taken
// part in it yet.
func (m *model) eligibleApprovers(k *modelRequest) (able []Person) {
	parts := append(k.Approvers(), k.Requester, k.Plan.Target)
	if k.BreakGlass != nil {
		parts = append(parts, k.BreakGlass.By)
	}
	for _, p := range allPeople[:9] {
		part := slices.ContainsFunc(parts, func(other Person) bool { return other.ID == p.ID })
		if !part && m.people[p.ID].mayDecide(k.forSelf()) == "" && m.checkRecentTarget(p) == "" {
			able = append(able, p)
		}
	}
	return able
}

// doProgress does the next thing that a request waits for, so that sequences make
// progress.
func (m *model) doProgress() {
	open := m.openRequests()
	if len(open) == 0 {
		m.Skip("nothing is open")
	}
	m.progress(m.requests[rapid.SampledFrom(open).Draw(m.T, "open request")])
}

func (m *model) progress(k *modelRequest) {
	able := m.eligibleApprovers(k)
	if len(able) == 0 {
		able = allPeople
	}
	press := func(how func(by Person) Action) {
		by := m.drawPerson("by", able...)
		op := m.op()
		m.deliver(op, m.performAction(op, k.ID, by, how(by), nil))
	}
	switch k.State {
	case StatePending:
		if k.Requirements.BreakGlass && m.people[olga.ID].onCall && rapid.Bool().Draw(m.T, "break-glass is used") {
			able = []Person{olga}
			press(func(by Person) Action { return BreakGlass{By: by, Why: "an intruder reads her mail"} })
			return
		}
		press(func(by Person) Action { return Approve{By: by} })
	case StateApproved:
		m.processDue(m.drawProcess(), k.ID, true, nil)
	case StateHandedOff:
		press(func(by Person) Action {
			if k.Journal[len(k.Journal)-1].DoneBy == nil {
				return Attest{By: by}
			}
			return Confirm{By: by}
		})
	case StateReview:
		press(func(by Person) Action { return ReviewBreakGlass{By: by, Verdict: VerdictJustified} })
	case StateRunning:
		for _, w := range m.workers {
			if w.view.ID == k.ID && w.view.Claim == k.Claim && !w.released {
				m.doNextWrite(w)
				return
			}
		}
		m.processDue(m.drawProcess(), k.ID, true, nil)
	}
}

// Time.

// passTimeScript lets time pass by moving every stored time into the past: the clock
// of a real server cannot be set.
//
// KEYS 1 any key of ours; ARGV 1 the common prefix of the keys  2 milliseconds
var passTimeScript = redis.NewScript(`
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

// doPassTime lets minutes, hours or months pass. It passes whole minutes, so that the
// rest of any time is at least a minute or zero, however slow this machine is.
func (m *model) doPassTime() {
	next := 24 * time.Hour // until the next thing is due or expires
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
	m.passTime(d)
}

// passTime lets time pass in Redis and in the model.
func (m *model) passTime(d time.Duration) {
	err := passTimeScript.Run(m.ctx, m.w.rdb, []string{m.w.store.keys.sequence()}, m.w.store.keys.tag, d.Milliseconds()).Err()
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
		if past(&k.forgottenAt) && !k.forgottenAt.IsZero() {
			delete(m.requests, id)
		}
	}
	for _, c := range m.deliveries {
		past(&c.at)
	}
	for _, s := range m.snapshots {
		past(&s.Deadline)
		past(&s.Lease)
		past(&s.Now)
	}
	for _, all := range []map[string]*expiringValue{m.notes, m.secrets, m.lookUpCounts} {
		for name, v := range all {
			if past(&v.until) {
				delete(all, name)
			}
		}
	}
	for id, until := range m.recentTargets {
		if past(&until) {
			delete(m.recentTargets, id)
			delete(m.madeTargetBy, id)
		} else {
			m.recentTargets[id] = until
		}
	}
	for name, ends := range m.offers { // they stay until their expiry is recorded
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

// doList compares the lists that people and runners get.
func (m *model) doList() {
	p, who := m.drawProcess(), m.drawPerson("whose")
	var open, mine, due []string
	for _, id := range m.ids {
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
		if got, err := p.store.OfferedSecret(m.ctx, k.Request); err != nil || got != wants {
			m.Errorf("%s has an offered secret: %v, %v; want %v", id, got, err, wants)
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
	alike("requested by "+who.String(), ids(p.store.Mine(m.ctx, who.ID)), mine)
}

// The comparison.

func (m *model) deleteKeys() {
	var all []string
	for name := range m.w.contents().keys {
		all = append(all, m.w.store.keys.tag+name)
	}
	if len(all) > 0 {
		m.w.rdb.Del(m.ctx, all...)
	}
}

// compare compares everything in Redis with the model, and then copies the real
// times to the model.
func (m *model) compare() {
	dump := m.w.contents()
	span := dump.now.Sub(m.now) + time.Nanosecond
	if m.now.IsZero() {
		span = 0
	}
	near := func(what string, want *time.Time, got time.Time, slack time.Duration) {
		low, high := want.Add(-slack), want.Add(slack)
		if want.Nanosecond()%int(time.Millisecond) != 0 { // derived in this move
			low, high = low.Truncate(time.Millisecond), high.Add(span)
		}
		if want.IsZero() != got.IsZero() || got.Before(low) || got.After(high) {
			m.Errorf("%s: %v, want %v (and at most %v later)", what, got, *want, span)
		}
		*want = got
	}
	const ttl = 5 * time.Second // a key's TTL is not measured with the clock that TIME reads
	m.compareEvents(dump, near)

	want := map[string]bool{}
	key := func(name string) string {
		want[name] = true
		if dump.keys[name] == nil {
			m.Errorf("there is no key %s", name)
		}
		return name
	}
	until := func(name string) time.Time {
		if s := dump.keys[key(name)]; s != nil && s.ttl > 0 {
			return dump.now.Add(s.ttl)
		}
		return time.Time{}
	}
	open, due, offers := dump.timesAt("open"), dump.timesAt("due"), dump.timesAt("offers")
	for id, k := range m.requests {
		m.compareRequest(k, dump.fieldsAt(key("request:"+id)), near)
		near("the deletion of "+id, &k.forgottenAt, until("request:"+id), ttl)
		near("when "+id+" is due", &k.due, due[id], 0)
		if _, ok := open[id]; ok != !k.State.Final() {
			m.Errorf("%s is %s, but open: %v", id, k.State, ok)
		}
		if k.State == StateRunning {
			if got := dump.stringAt(key("holder:" + k.Plan.Target.ID)); got != id {
				m.Errorf("the target of %s is held by %q", id, got)
			}
		}
		if k.blocksDuplicates() {
			if got := dump.stringAt(key("same:" + k.Fingerprint)); got != id {
				m.Errorf("the fingerprint of %s is held by %q", id, got)
			}
		}
		delete(open, id)
		delete(due, id)
	}
	for name, set := range map[string]map[string]time.Time{"open": open, "due": due} {
		if len(set) > 0 {
			m.Errorf("%s also lists %v", name, set)
		}
		if dump.keys[name] != nil {
			want[name] = true
		}
	}
	for name, ends := range m.offers {
		near("the expiry of the offer "+name, &ends, offers[name], 0)
		m.offers[name] = ends
		delete(offers, name)
		want["offers"] = true
	}
	if len(offers) > 0 {
		m.Errorf("there are other offers: %v", offers)
	}
	for prefix, all := range map[string]map[string]*expiringValue{"note:": m.notes, "secret:": m.secrets, "rate:read:": m.lookUpCounts} {
		for name, v := range all {
			near("the expiry of "+prefix+name, &v.until, until(prefix+name), ttl)
		}
	}
	for op, note := range m.notes {
		fields := dump.fieldsAt("note:" + op)
		m.compareAnswer(op, fields["op:"+op], note.value)
		if len(fields) != 2 { // and its version
			m.Errorf("the note of %s has %v", op, sortedKeys(fields))
		}
	}
	for id, ends := range m.recentTargets {
		near(id+"'s mark as a recent target", &ends, until("recent-target:"+id), ttl)
		m.recentTargets[id] = ends
	}
	for what, c := range m.tallies {
		near("the expiry of the tally "+what, &c.until, until("tally:"+what), ttl)
		got := slices.SortedFunc(maps.Values(dump.timesAt("tally:"+what)), time.Time.Compare)
		if len(got) != len(c.at) {
			m.Errorf("the tally %s has counted %d, want %d", what, len(got), len(c.at))
			continue
		}
		for i := range got {
			near("the tally "+what, &c.at[i], got[i], 0)
		}
	}
	for who, n := range m.lookUpCounts {
		if got := dump.stringAt("rate:read:" + who); got != fmt.Sprint(len(n.value)) {
			m.Errorf("%s has read %s times, want %d", who, got, len(n.value))
		}
	}
	for _, id := range m.ids {
		if k := m.requests[id]; k != nil {
			if _, ok := dump.timesAt(key("mine:" + k.Requester.ID))[id]; !ok {
				m.Errorf("%s is not on the list of %s", id, k.Requester)
			}
		}
	}
	if m.sequence > 0 {
		key("processes")
		if got := dump.stringAt(key("sequence")); got != fmt.Sprint(m.sequence) {
			m.Errorf("there were %s commits, want %d", got, m.sequence)
		}
	}
	if m.hasEvents {
		key("events")
	}
	for name := range dump.keys {
		if !want[name] && !strings.HasPrefix(name, "mine:") { // that list outlives the requests
			m.Errorf("there is an unexpected key %s", name)
		}
	}
	m.checkPlaintext(dump)
	if !m.Failed() {
		for _, broken := range m.w.violations() {
			m.Error(broken)
		}
	}
	m.now = dump.now.Add(time.Nanosecond)
}

// compareTimes compares two times, and copies the real one to the model.
type compareTimes = func(what string, want *time.Time, got time.Time, slack time.Duration)

func (m *model) compareRequest(k *modelRequest, fields map[string]string, near compareTimes) {
	got, err := m.w.store.decode(k.ID, fields, m.now)
	if err != nil {
		m.Errorf("%s: %v", k.ID, err)
		return
	}
	want, real := timesOf(&k.Request), timesOf(&got.Request)
	for name := range want {
		if real[name] != nil {
			near(name+" of "+k.ID, want[name], *real[name], 0)
		}
	}
	for i, why := range k.Requirements.Why {
		if why == anySentence && i < len(got.Requirements.Why) && got.Requirements.Why[i] != "" {
			k.Requirements.Why[i] = got.Requirements.Why[i]
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
		m.Errorf("%s differs from the model (-want +got):\n%s", k.ID, cmp.Diff(want, got))
	}
	for op, answer := range got.ops {
		m.compareAnswer(op, answer, k.answers[op])
	}
	if len(got.ops) != len(k.answers) {
		m.Errorf("%s has the answers to %v, want %v", k.ID, sortedKeys(got.ops), sortedKeys(k.answers))
	}
}

// compareAnswer compares a stored answer. The answer to a claim is the worker's own.
func (m *model) compareAnswer(op, got, want string) {
	switch want {
	case "ok", "requested", revealed:
		if got == want || strings.HasPrefix(op, "claim:") {
			return
		}
	}
	if code(m.w.store.replayAnswer(op, got)) != Code(want) {
		m.Errorf("the answer to %s is %q, want %q", op, code(m.w.store.replayAnswer(op, got)), want)
	}
}

// timesOf returns all times of a request, by name.
func timesOf(r *Request) map[string]*time.Time {
	all := map[string]*time.Time{"created": &r.Created, "started": &r.StartedAt, "ended": &r.Ended, "deadline": &r.Deadline, "lease": &r.Lease, "not before": &r.NotBefore}
	decision := func(name string, d *Decision) {
		if d != nil {
			all[name] = &d.At
		}
	}
	for i := range r.Approvals {
		decision(fmt.Sprint("approval ", i), &r.Approvals[i])
	}
	decision("denial", r.Denial)
	decision("break-glass", r.BreakGlass)
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

// compareEvents compares the events that were added since the last comparison.
func (m *model) compareEvents(dump storedKeys, near compareTimes) {
	from := m.lastEvent
	if m.hasEvents {
		from = "(" + m.lastEvent
	}
	messages, err := m.w.rdb.XRange(m.ctx, m.w.store.keys.events(), from, "+").Result()
	if err != nil {
		m.Fatal(err)
	}
	text := func(e audit.Event) string {
		e.ID, e.At = "", time.Time{}
		if e.Kind == audit.Refused { // the model does not always know the sentence
			e.Reason = anySentence
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
			m.Errorf("a refusal without a reason: %+v", e)
		}
		if i < len(m.wantEvents) && m.wantEvents[i].Reason != "" && m.wantEvents[i].Reason != e.Reason {
			m.Errorf("event %s says %q, want %q", e.Kind, e.Reason, m.wantEvents[i].Reason)
		}
		at := m.now
		near("the time of an event", &at, e.At, 0)
		got = append(got, text(e))
		m.lastEvent, m.hasEvents = message.ID, true
	}
	for _, e := range m.wantEvents {
		want = append(want, text(e))
	}
	if !slices.Equal(want, got) {
		m.Errorf("the events differ from the model (-want +got):\n%s", cmp.Diff(strings.Join(want, "\n"), strings.Join(got, "\n")))
	}
	m.wantEvents = nil
}

// checkPlaintext looks for text that must not be in plaintext.
func (m *model) checkPlaintext(dump storedKeys) {
	words := []string{"lost her phone", "INC-7", "not her", "an intruder reads her mail", "it could wait", "so it was", "elsewhere.example", "fernhill.example"}
	for _, p := range allPeople[:9] {
		words = append(words, p.Name)
	}
	for _, s := range m.secrets {
		words = append(words, s.value)
	}
	for name, s := range dump.keys {
		text := name + " " + strings.Join(s.flat, " ")
		for _, word := range words {
			if strings.Contains(text, word) {
				m.Errorf("%s contains %q in plaintext", name, word)
			}
		}
	}
}
