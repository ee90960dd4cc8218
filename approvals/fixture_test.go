package approvals

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"countersign/audit"
	"countersign/internal/redistest"
	"countersign/internal/testparallel"
)

func TestMain(m *testing.M) {
	redis.SetLogger(silentLogger{}) // the tests kill servers on purpose
	testparallel.Double()
	goleak.VerifyTestMain(redistest.Keep(m))
}

type silentLogger struct{}

func (silentLogger) Printf(context.Context, string, ...any) {}

// The people of the tests. Dana is the usual target.
var (
	hanna  = Person{ID: "5f1f6c3a-9d2e-4b7c-8a10-3c5d9e7f2b41", UPN: "hanna.okafor@fernhill.example", Name: "Hanna Okafor", Slack: "U0HANNA"}
	ravi   = Person{ID: "c2a8e7d4-1b63-4f0e-9c25-7e4b8d1a6f93", UPN: "ravi.menon@fernhill.example", Name: "Ravi Menon", Slack: "U0RAVI"}
	olga   = Person{ID: "8e3b5a91-6c7d-4d2f-b0e4-15f9a8c36d72", UPN: "olga.lindqvist@fernhill.example", Name: "Olga Lindqvist", Slack: "U0OLGA"}
	mina   = Person{ID: "d94f7b20-3e58-4a6c-9f11-b28c6e5d0a37", UPN: "mina.haddad@fernhill.example", Name: "Mina Haddad", Slack: "U0MINA"}
	dana   = Person{ID: "1c6e9d52-8a4b-4e37-a5f0-92d7b3c8e614", UPN: "dana.whitfield@fernhill.example", Name: "Dana Whitfield", Slack: "U0DANA"}
	sam    = Person{ID: "a7d30f86-5b1c-4c9e-8e42-6f07d9b5a1c3", UPN: "sam.ito@fernhill.example", Name: "Sam Ito", Slack: "U0SAM"}
	gloria = Person{ID: "3b82c5e7-f49a-4d16-b7c3-08e5a1d6f92b", UPN: "gloria.adeyemi@fernhill.example", Name: "Gloria Adeyemi", Slack: "U0GLORIA"}
	pat    = Person{ID: "e60a4d19-27cb-4f85-9d3e-c1b7f85a0e64", UPN: "pat_partner.example#EXT#@fernhill.example", Name: "Pat Moreau", Slack: "U0PAT"}
	bo     = Person{ID: "72f5b8c1-0d6e-4a93-8c57-e4a9d2b61f08", UPN: "bo.castellan@fernhill.example", Name: "Bo Castellan", Slack: "U0BO"}
)

const (
	helpDesk  = "b5a90e37-4c1d-4f62-9e8b-7d03c6f1a258"
	approvers = "0d7c4f91-e8b2-4a35-b6d9-f2183e5c7a40"
)

// testPolicy is the policy of the tests.
func testPolicy() Policy {
	return Policy{
		Groups: map[string]Group{
			"Help desk":          {Entra: []string{helpDesk}},
			"Identity approvers": {Entra: []string{approvers}},
			"On-call engineers":  {People: []string{olga.ID, dana.ID, gloria.ID, pat.ID, bo.ID}},
		},
		Classes: map[Class]Rule{
			ClassRead:     {Request: []string{"Help desk"}},
			ClassContain:  {Request: []string{"Help desk"}, Approve: []string{"Identity approvers"}, Approvals: 1, BreakGlass: []string{"On-call engineers"}},
			ClassDestroy:  {Request: []string{"Help desk"}, Approve: []string{"Identity approvers"}, Approvals: 1},
			ClassTakeover: {Request: []string{"Help desk"}, Approve: []string{"Identity approvers"}, Approvals: 2},
		},
		ReadsAMinute: 5,
	}
}

// testDirectory stands in for a tenant that looks up people. It can be down, and
// accounts can change.
type testDirectory struct {
	mu     sync.Mutex
	people map[string]Account
	down   error
}

func newTestDirectory() *testDirectory {
	d := &testDirectory{people: map[string]Account{}}
	add := func(p Person, groups ...string) {
		p.Slack = "" // Entra does not know the Slack id
		d.people[p.ID] = Account{Person: p, Enabled: true, Groups: groups}
	}
	add(hanna, helpDesk)
	add(ravi, helpDesk, approvers)
	add(olga, approvers)
	add(mina, approvers)
	add(dana)
	add(sam)
	add(gloria)
	add(pat, helpDesk, approvers)
	add(bo, helpDesk, approvers)
	d.change(gloria, func(s *Account) { s.Protected = []string{"holds the role Global Administrator"} })
	d.change(pat, func(s *Account) { s.Guest = true })
	d.change(bo, func(s *Account) { s.Enabled = false })
	return d
}

func (d *testDirectory) change(p Person, how func(*Account)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.people[p.ID]
	how(&s)
	d.people[p.ID] = s
}

func (d *testDirectory) goDown(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.down = err
}

func (d *testDirectory) Person(ctx context.Context, ref string) (Person, error) {
	s, err := d.Account(ctx, ref, false)
	return s.Person, err
}

func (d *testDirectory) Account(ctx context.Context, id string, withProtection bool) (Account, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return Account{}, err
	}
	if d.down != nil {
		return Account{}, d.down
	}
	s, ok := d.people[id]
	if !ok {
		return Account{}, ErrNoPerson
	}
	if !withProtection {
		s.Protected = nil
	}
	return s, nil
}

// testTenant is the tenant that steps change. Each authentication method can be
// deleted once. A second deletion is counted as a step that ran twice.
type testTenant struct {
	mu      sync.Mutex
	methods map[string]bool // authentication methods that exist, by id
	deleted map[string]int  // how often each method was deleted, repeated deletions included
	jobs    []string        // kind, request and step, in order of arrival
	active  map[string]int  // jobs in progress, by target
	overlap bool            // two requests ran for one target at the same time
	script  func(job Job) (Result, bool)
}

func newTestTenant(methods ...string) *testTenant {
	t := &testTenant{methods: map[string]bool{}, deleted: map[string]int{}, active: map[string]int{}}
	for _, m := range methods {
		t.methods[m] = true
	}
	return t
}

// Work is the Runner.Work of the tests. If the script returns a result, that result
// is used and nothing is changed.
func (n *testTenant) Work(ctx context.Context, job Job) Result {
	target := job.Request.Plan.Target.ID
	n.mu.Lock()
	n.jobs = append(n.jobs, fmt.Sprintf("%s %s %d%s", job.Kind, job.Request.ID, job.Step, map[bool]string{true: " read-only"}[job.ReadOnly]))
	n.active[target]++
	n.overlap = n.overlap || n.active[target] > 1
	script := n.script
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		n.active[target]--
		n.mu.Unlock()
	}()
	if script != nil {
		if got, says := script(job); says {
			return got
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch job.Kind {
	case JobCheck:
		for id := range job.Request.Plan.Assumes {
			there, gone := n.methods[id], false
			for i, e := range job.Request.Journal {
				gone = gone || job.Request.Plan.Steps[i].Args["id"] == id && (e.State == StepDone || e.State == StepAlready)
			}
			if there == gone {
				return Result{State: StepFailed, Detail: "The account changed since this was approved: a method is not in the expected state."}
			}
		}
		return Result{State: StepDone}
	case JobReconcile:
		id := job.Request.Plan.Steps[job.Step].Args["id"]
		if !n.methods[id] {
			return Result{State: StepDone, Detail: "It was already deleted when Countersign checked."}
		}
		if job.ReadOnly {
			return Result{State: StepFailed, Detail: "It was not executed."}
		}
	}
	id := job.Request.Plan.Steps[job.Step].Args["id"]
	n.recordDeletion(id)
	return Result{State: StepDone, RequestID: "graph-" + id}
}

func (n *testTenant) recordDeletion(id string) {
	n.deleted[id]++
	delete(n.methods, id)
}

// deleteMethod deletes a method, whatever the script returns.
func (n *testTenant) deleteMethod(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.recordDeletion(id)
}

// addMethod adds a method to an account.
func (n *testTenant) addMethod(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.methods[id] = true
}

func (n *testTenant) setScript(script func(job Job) (Result, bool)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.script = script
}

// jobsOfKind lists the jobs of one kind, or all of them for "".
func (n *testTenant) jobsOfKind(kind JobKind) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var list []string
	for _, j := range n.jobs {
		if strings.HasPrefix(j, string(kind)) {
			list = append(list, j)
		}
	}
	return list
}

// deletions returns how often a method was deleted.
func (n *testTenant) deletions(id string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.deleted[id]
}

// overlapped reports whether two requests ran for one target at the same time.
func (n *testTenant) overlapped() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.overlap
}

// wantDeletedOnce fails the test if a method was not deleted exactly once.
func (n *testTenant) wantDeletedOnce(t *testing.T, ids ...string) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, id := range ids {
		if n.deleted[id] != 1 {
			t.Errorf("%s was deleted %d times, want once; jobs: %v", id, n.deleted[id], n.jobs)
		}
	}
}

// wantUntouched fails the test if anything was deleted.
func (n *testTenant) wantUntouched(t *testing.T) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.deleted) > 0 {
		t.Errorf("methods were deleted: %v", n.deleted)
	}
}

// longTimings is for tests that are not about time: nothing expires by itself,
// however slow the machine is. A test that needs a dead worker ends its lease
// itself: see expireLease and waitExecuted.
func longTimings() Timing {
	return Timing{
		RunWithin: time.Hour, RunFor: 30 * time.Minute, Remind: time.Hour, Warn: time.Minute, SecretLife: 15 * time.Minute, GraphCall: 5 * time.Minute, GraphGrace: time.Minute, Lease: time.Hour,
		Sweep: 5 * time.Millisecond, LookUps: 10 * time.Minute, Takeover: time.Hour, InboxWrite: time.Minute,
		Stale: time.Hour, AuditLag: time.Hour, Follow: 20 * time.Millisecond, Lead: 10 * time.Minute,
	}
}

const testKeys = "k1:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

// fixture is one Redis with a service, a directory and a tenant.
type fixture struct {
	t            *testing.T
	server       *redistest.Server
	rdb          redis.UniversalClient
	timing       Timing
	store        *Store
	service      *Service
	directory    *testDirectory
	tenant       *testTenant
	log          *slog.Logger
	ops          int
	lastSeen     map[string]Snapshot // requests as violations last read them
	openedEvents map[any]audit.Event // events that it has decrypted, by sealed body
	eventCache   *sync.Map           // what events has decrypted, by id and sealed body
}

func newFixture(t *testing.T, timing Timing, options ...redistest.Option) *fixture {
	t.Helper()
	server := redistest.Start(t, options...)
	w := &fixture{
		t: t, server: server, timing: timing,
		rdb: server.ClientWith(t, func(o *redis.UniversalOptions) { // a slow machine must not look like a Redis that hangs
			o.ReadTimeout, o.WriteTimeout = time.Minute, time.Minute
		}),
		directory: newTestDirectory(), tenant: newTestTenant("m1", "m2", "m3"), eventCache: &sync.Map{}, // shared by the copies of this fixture
		log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	w.store, w.service = w.newProcess(w.rdb)
	return w
}

// newProcess creates another Countersign process on the same Redis.
func (w *fixture) newProcess(rdb redis.UniversalClient) (*Store, *Service) {
	w.t.Helper()
	return w.newProcessWithKeys(rdb, testKeys)
}

// newProcessWithKeys creates a process with its own key ring.
func (w *fixture) newProcessWithKeys(rdb redis.UniversalClient, keys string) (*Store, *Service) {
	w.t.Helper()
	store := NewStore(rdb, ring(w.t, keys), "", w.timing)
	return store, &Service{Store: store, Policy: testPolicy(), Directory: w.directory, Log: w.log}
}

// startRunner starts a runner for a process. It stops when the test ends or stop
// is called.
func (w *fixture) startRunner(service *Service, name string) (stop func()) {
	_, stop = w.startedRunner(service, name)
	return stop
}

// startedRunner does the same and also returns the runner, so that a test can see
// which requests it is executing.
func (w *fixture) startedRunner(service *Service, name string) (r *Runner, stop func()) {
	r = &Runner{Service: service, Work: w.tenant.Work, Name: name, Concurrency: 4, Log: w.log}
	return r, background(w.t, r.Run)
}

// background runs f until stop is called. stop waits until f has returned.
func background(t *testing.T, f func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f(ctx) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// op returns a new operation id.
func (w *fixture) op() string {
	w.ops++
	return fmt.Sprintf("op-%s-%d", strings.ReplaceAll(w.t.Name(), "/", "-"), w.ops)
}

// deletionPlan returns a plan that deletes methods, one per step.
func deletionPlan(class Class, target Person, ids ...string) Plan {
	p := Plan{Command: "entra-require-reregister", Title: "Require re-register", Class: class, Target: target, Args: strings.Join(ids, " "), Assumes: map[string]string{}}
	for _, id := range ids {
		p.Steps = append(p.Steps, Step{Op: "delete", Args: map[string]string{"id": id}, Words: "Delete " + id})
		p.Assumes[id] = "there"
	}
	return p
}

// submit submits a request.
func (w *fixture) submit(p Plan) Request {
	w.t.Helper()
	r, err := w.service.Submit(w.t.Context(), w.op(), Submit{Plan: p, Requester: hanna, Justification: "lost her phone", Ticket: "INC-7", Verified: "callback"})
	if err != nil {
		w.t.Fatalf("submitting: %v", err)
	}
	return r
}

// approved submits a request and approves it, so that it is ready to run.
func (w *fixture) approved(p Plan) Request {
	w.t.Helper()
	r := w.submit(p)
	for _, by := range []Person{ravi, olga, mina}[:r.Requirements.Approvals] {
		var err error
		if r, err = w.service.Approve(w.t.Context(), w.op(), r.ID, by); err != nil {
			w.t.Fatalf("approving: %v", err)
		}
	}
	return r
}

// claimed returns a request that worker-1 has claimed.
func (w *fixture) claimed(p Plan) Snapshot {
	w.t.Helper()
	snap, err := w.store.claim(w.t.Context(), w.load(w.approved(p).ID), "worker-1")
	if err != nil {
		w.t.Fatalf("claiming: %v", err)
	}
	return snap
}

func (w *fixture) load(id string) Snapshot {
	w.t.Helper()
	snap, err := w.store.Load(w.t.Context(), id)
	if err != nil {
		w.t.Fatalf("loading %s: %v", id, err)
	}
	return snap
}

// now returns the time on Redis' clock.
func (w *fixture) now() time.Time {
	w.t.Helper()
	now, err := w.store.clock(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return now
}

// expireLease ends the lease of a request now, as if its worker had died and the
// lease had run out.
func (w *fixture) expireLease(id string) {
	w.t.Helper()
	pipe := w.rdb.TxPipeline()
	pipe.HSet(w.t.Context(), w.store.keys.request(id), "lease", 1)
	pipe.ZAdd(w.t.Context(), w.store.keys.due(), redisZ(1, id))
	if _, err := pipe.Exec(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// expireLeaseScript ends a lease if the request still has the given claim.
// KEYS 1 request  2 due; ARGV 1 the claim  2 the request's id
var expireLeaseScript = redis.NewScript(`
if redis.call('HGET', KEYS[1], 'state') ~= 'running' or redis.call('HGET', KEYS[1], 'claim') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'lease', 1)
redis.call('ZADD', KEYS[2], 1, ARGV[2])
return 1`)

// waitExecuted waits until a request that these runners execute is in a final
// state. If the runner that claimed it no longer executes it, the lease is ended
// immediately. It is not ended while a slow runner still executes the request.
func (w *fixture) waitExecuted(id string, runners ...*Runner) Snapshot {
	w.t.Helper()
	var snap Snapshot
	waitFor(w.t, id+" to reach a final state", func() bool {
		snap = w.load(id)
		inProgress := slices.ContainsFunc(runners, func(r *Runner) bool { return r.isExecuting(id) }) // after the request was read
		if snap.State == StateRunning && snap.Lease.After(snap.Now) && !inProgress {
			keys := []string{w.store.keys.request(id), w.store.keys.due()}
			if err := expireLeaseScript.Run(w.t.Context(), w.rdb, keys, snap.Claim, id).Err(); err != nil {
				w.t.Fatal(err)
			}
		}
		return snap.State.Final()
	})
	return snap
}

// isExecuting reports whether a runner is executing a request.
func (r *Runner) isExecuting(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held[id]
}

// waitFinal waits until a request is in a final state.
func (w *fixture) waitFinal(id string) Snapshot {
	w.t.Helper()
	var snap Snapshot
	waitFor(w.t, id+" to reach a final state", func() bool { snap = w.load(id); return snap.State.Final() })
	return snap
}

// waitFor polls until done returns true. It gives up only after a number of polls,
// not after a time alone: on a busy machine it polls less often, and the code that
// it waits for makes less progress too.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	waitLong(t, 20*time.Second, what, done)
}

// waitLong does the same with a longer minimum time, for what is slow on any machine.
func waitLong(t *testing.T, least time.Duration, what string, done func() bool) {
	t.Helper()
	start := time.Now()
	for looks := 1; !done(); looks++ {
		if looks > 5000 && time.Since(start) > least {
			t.Fatalf("timed out waiting for %s: %d polls in %s", what, looks, time.Since(start).Round(time.Millisecond))
		}
		<-time.After(2 * time.Millisecond)
	}
}

// waitClosed waits until a channel is closed.
func waitClosed(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	waitFor(t, what, func() bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	})
}

// events reads the whole event log.
func (w *fixture) events() []audit.Event {
	w.t.Helper()
	messages, err := w.rdb.XRange(w.t.Context(), w.store.keys.events(), "-", "+").Result()
	if err != nil {
		w.t.Fatal(err)
	}
	if w.eventCache == nil {
		w.eventCache = &sync.Map{}
	}
	var list []audit.Event
	for _, m := range messages {
		sealed, _ := m.Values["body"].(string)
		if known, ok := w.eventCache.Load(m.ID + sealed); ok { // decrypting all of them each time would dominate some tests
			list = append(list, known.(audit.Event))
			continue
		}
		e, err := w.store.openEvent(m)
		if err != nil {
			w.t.Fatal(err)
		}
		w.eventCache.Store(m.ID+sealed, e)
		list = append(list, e)
	}
	return list
}

// eventKinds lists the kinds of the events of a request, or of all events for "".
func (w *fixture) eventKinds(request string) []audit.Kind {
	w.t.Helper()
	var list []audit.Kind
	for _, e := range w.events() {
		if request == "" || e.Request == request {
			list = append(list, e.Kind)
		}
	}
	return list
}

// code returns the code of a refusal, "" for no error, and the text of any other error.
func code(err error) Code {
	no := (*Refusal)(nil)
	switch {
	case err == nil:
		return ""
	case errors.As(err, &no):
		return no.Code
	}
	return Code("error: " + err.Error())
}

// checkInvariants checks what must hold for everything in Redis, whatever happened.
func (w *fixture) checkInvariants() {
	w.t.Helper()
	for _, what := range w.violations() {
		w.t.Error(what)
	}
}

// storedKeys is everything that is stored under our keys at one moment.
type storedKeys struct {
	now  time.Time
	keys map[string]*storedValue // by name, without the common prefix
}

// storedValue is the value of one key: a string, a hash or a sorted set, as Redis
// returns it.
type storedValue struct {
	flat []string
	ttl  time.Duration // zero if the key does not expire
}

// contentsScript reads them. KEYS 1 any key of ours; ARGV 1 the common prefix
var contentsScript = redis.NewScript(`
local t = redis.call('TIME')
local all = {string.format('%d', tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000))}
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  local kind, flat = redis.call('TYPE', key)['ok'], {}
  if kind == 'string' then flat = {redis.call('GET', key)} end
  if kind == 'hash' then flat = redis.call('HGETALL', key) end
  if kind == 'zset' then flat = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end
  all[#all + 1] = {key, string.format('%d', redis.call('PTTL', key)), flat}
end
return all`)

func (w *fixture) contents() storedKeys {
	w.t.Helper()
	keys := w.store.keys
	raw, err := contentsScript.Run(w.t.Context(), w.rdb, []string{keys.sequence()}, keys.tag).Slice()
	if err != nil {
		w.t.Fatal(err)
	}
	dump := storedKeys{now: parseInstant(raw[0].(string)), keys: map[string]*storedValue{}}
	for _, one := range raw[1:] {
		key := one.([]any)
		value := &storedValue{ttl: max(0, time.Duration(parseInt(key[1].(string)))*time.Millisecond)}
		for _, text := range key[2].([]any) {
			value.flat = append(value.flat, text.(string))
		}
		dump.keys[strings.TrimPrefix(key[0].(string), keys.tag)] = value
	}
	return dump
}

// stringAt returns the value of a string.
func (p storedKeys) stringAt(name string) string {
	if s := p.keys[name]; s != nil {
		return s.flat[0]
	}
	return ""
}

// fieldsAt returns the fields of a hash, or the members of a sorted set with their scores.
func (p storedKeys) fieldsAt(name string) map[string]string {
	all := map[string]string{}
	if s := p.keys[name]; s != nil {
		for pair := range slices.Chunk(s.flat, 2) {
			all[pair[0]] = pair[1]
		}
	}
	return all
}

// timesAt returns the members of a sorted set whose scores are times.
func (p storedKeys) timesAt(name string) map[string]time.Time {
	all := map[string]time.Time{}
	for member, score := range p.fieldsAt(name) {
		all[member] = parseInstant(score)
	}
	return all
}

// violations lists the invariants that do not hold. It remembers what it read, and
// the next call compares with that.
func (w *fixture) violations() (list []string) {
	w.t.Helper()
	ctx := w.t.Context()
	wrong := func(format string, a ...any) { list = append(list, fmt.Sprintf(format, a...)) }
	log := map[string][]audit.Event{}
	places := map[string]bool{} // request and number of each event of an operation
	about := map[string]string{}
	commits := 0
	messages, err := w.rdb.XRange(ctx, w.store.keys.events(), "-", "+").Result()
	if err != nil {
		w.t.Fatal(err)
	}
	if w.lastSeen == nil {
		w.lastSeen, w.openedEvents = map[string]Snapshot{}, map[any]audit.Event{}
	}
	for _, m := range messages {
		e, before := w.openedEvents[m.Values["body"]]
		if !before {
			if e, err = w.store.openEvent(m); err != nil {
				wrong("%v", err)
				continue
			}
			w.openedEvents[m.Values["body"]] = e
		}
		log[e.Request] = append(log[e.Request], e)
		place := fmt.Sprint(m.Values["request"], " ", m.Values["op"])
		if places[place] {
			wrong("two events of one operation: %s", place)
		}
		places[place] = true
		if strings.HasSuffix(place, "#1") {
			commits++
		}
		// The operation id of an automatic change contains the request's version
		// or claim. The operation id of a person's action is used only once.
		if verb, _, _ := strings.Cut(e.Op, ":"); !slices.Contains([]string{"claim", "expire", "run", "remind", "warn", "unseen"}, verb) {
			if other, before := about[e.Op]; before && other != e.Request {
				wrong("%s took effect on %q and on %q", e.Op, other, e.Request)
			}
			about[e.Op] = e.Request
		}
	}
	dump := w.contents() // after the events, so that it includes everything they report
	if sequence := parseInt(dump.stringAt("sequence")); sequence < int64(commits) {
		wrong("sequence %d is less than the number of commits with events, %d", sequence, commits)
	}

	opens, dues, offers := dump.fieldsAt("open"), dump.timesAt("due"), dump.timesAt("offers")
	held := map[string]string{}
	for _, name := range sortedKeys(dump.keys) {
		id, ok := strings.CutPrefix(name, "request:")
		if !ok {
			continue
		}
		r, err := w.store.decode(id, dump.fieldsAt(name), dump.now)
		if err != nil {
			wrong("%v", err)
			continue
		}
		list = append(list, w.forbiddenChanges(r)...)
		people := []string{r.Requester.ID, r.Plan.Target.ID}
		for _, p := range r.Approvers() {
			if slices.Contains(people, p.ID) {
				wrong("%s: %s takes part twice", id, p)
			}
			people = append(people, p.ID)
		}
		if r.BreakGlass != nil && (r.BreakGlass.By.ID == r.Plan.Target.ID || r.Plan.Class != ClassContain || !r.Requirements.BreakGlass) {
			wrong("%s: %s used break-glass", id, r.BreakGlass.By)
		}
		if r.Reviewed != nil && (r.BreakGlass == nil || slices.Contains([]string{r.BreakGlass.By.ID, r.Requester.ID, r.Plan.Target.ID}, r.Reviewed.By.ID)) {
			wrong("%s was reviewed by %s", id, r.Reviewed.By)
		}
		if ran := slices.Contains([]State{StateApproved, StateRunning, StateHandedOff, StateReview, StateDone}, r.State); ran && len(r.Approvals) < r.Requirements.Approvals && r.BreakGlass == nil {
			wrong("%s is %s with %d of %d approvals", id, r.State, len(r.Approvals), r.Requirements.Approvals)
		}
		_, open := opens[id]
		_, due := dues[id]
		same := dump.stringAt("same:"+r.Fingerprint) == id
		holder := dump.stringAt("holder:"+r.Plan.Target.ID) == id
		lives := dump.keys[name].ttl
		if r.State.Final() {
			if open || due || same || holder || lives < 24*time.Hour {
				wrong("%s is final (%s), but open %v, due %v, same %v, holder %v, TTL %v", id, r.State, open, due, same, holder, lives)
			}
		} else if !open || !due || same == (r.State == StateReview) || holder != (r.State == StateRunning) || lives > 0 {
			wrong("%s is %s, but open %v, due %v, same %v, holder %v, TTL %v", id, r.State, open, due, same, holder, lives)
		}
		if holder {
			held[r.Plan.Target.ID] = id
		}
		delete(opens, id)
		delete(dues, id)

		count := map[audit.Kind]int{}
		last, version := audit.Kind(""), int64(0)
		for i, e := range log[id] {
			if _, answered := r.ops[e.Op]; !answered {
				wrong("%s: %s has an event (%s) and no stored answer", id, e.Op, e.Kind)
			}
			switch e.Kind {
			case audit.Refused, audit.Revealed, audit.Unseen, audit.Reminded: // do not change the request
				continue
			}
			if (e.Kind == audit.Requested) != (i == 0) {
				wrong("%s: event %d is %s", id, i, e.Kind)
			}
			if e.Version < version || e.Version > r.Version {
				wrong("%s: event %d has version %d, the event before it has %d, and the request has %d", id, i, e.Version, version, r.Version)
			}
			count[e.Kind]++
			last, version = e.Kind, e.Version
		}
		ended := 0
		for i, e := range r.Journal {
			if i > 0 && e.State != StepWaiting && e.State != StepSkipped {
				switch before := r.Journal[i-1].State; {
				case before == StepDone, before == StepAlready, (before == StepFailed || before == StepUncertain) && r.Plan.Steps[i-1].CarryOn:
				default:
					wrong("%s: step %d is %q after a step that is %q", id, i+1, e.State, before)
				}
			}
			switch e.State {
			case StepDone, StepAlready, StepFailed, StepUncertain:
				ended++
			case StepStarted:
				if r.State != StateRunning {
					wrong("%s is %s with a step that was started and has no outcome", id, r.State)
				}
			case StepAttested:
				if e.DoneBy == nil || e.Confirmed == nil || e.DoneBy.By.ID == e.Confirmed.By.ID {
					wrong("%s: step %d was done by %v and confirmed by %v", id, i+1, e.DoneBy, e.Confirmed)
				}
			}
			for _, d := range []*Decision{e.DoneBy, e.Confirmed} {
				if d != nil && d.By.ID == r.Plan.Target.ID {
					wrong("%s: its target attested or confirmed step %d", id, i+1)
				}
			}
			if secret := dump.keys["secret:"+offer(id, i)]; secret != nil {
				if secret.ttl <= 0 || secret.ttl > preparedLife || r.Plan.Steps[i].Secret == SecretNone {
					wrong("%s: a secret of step %d has a TTL of %s", id, i+1, secret.ttl)
				}
				if ends, ok := offers[offer(id, i)]; e.State == StepDone && (!ok || ends.Sub(dump.now) > w.timing.SecretLife) {
					wrong("%s: the secret of step %d is stored, and offered until %s", id, i+1, ends)
				}
			}
		}
		end := map[State]audit.Kind{StateDone: audit.Finished, StateDenied: audit.Denied, StateExpired: audit.Expired, StateCancelled: audit.Cancelled, StateReview: audit.Finished}[r.State]
		if r.Reviewed != nil {
			end = audit.Reviewed
		}
		if (r.State.Final() || r.State == StateReview) && last != end {
			wrong("%s is %s, but its last event is %s", id, r.State, last)
		}
		ends := count[audit.Finished] + count[audit.Denied] + count[audit.Expired] + count[audit.Cancelled]
		started := 0
		if r.Claim > 0 {
			started = 1
		}
		if want := map[bool]int{true: 1}[r.State.Final() || r.State == StateReview]; ends != want || count[audit.Requested] != 1 ||
			count[audit.Approved] != len(r.Approvals) || count[audit.Started] != started || count[audit.StepEnded] != ended {
			wrong("%s is %s with %d approvals, claim %d, %d steps ended, but its events are %v", id, r.State, len(r.Approvals), r.Claim, ended, count)
		}
	}
	if len(opens)+len(dues) > 0 {
		wrong("open %v and due %v list requests that do not exist", opens, dues)
	}
	for _, name := range sortedKeys(dump.keys) {
		if target, ok := strings.CutPrefix(name, "holder:"); ok && held[target] == "" {
			wrong("%s is held by %s, which is not running", target, dump.stringAt(name))
		}
		offer, ok := strings.CutPrefix(name, "secret:")
		if id, _, _ := strings.Cut(offer, "/"); ok && dump.keys["request:"+id] == nil {
			wrong("the secret of %s is stored, and the request is not", offer)
		}
	}
	return list
}

// forbiddenChanges lists the changes to a request since violations last read it
// that must not happen: to its plan, its requirements or its final state, or that
// something became less that may only grow.
func (w *fixture) forbiddenChanges(r Snapshot) (list []string) {
	was, seen := w.lastSeen[r.ID]
	w.lastSeen[r.ID] = r
	if !seen {
		return nil
	}
	wrong := func(format string, a ...any) {
		list = append(list, r.ID+": "+fmt.Sprintf(format, a...))
	}
	if fixed := func(r Request) any { return []any{r.Plan, r.Requester, r.Requirements, r.Created, r.Fingerprint} }; !sameJSON(w.t, fixed(was.Request), fixed(r.Request)) {
		wrong("what was requested has changed: it is %+v, and was %+v", r.Request, was.Request)
	}
	if r.Version < was.Version || r.Claim < was.Claim || len(r.Approvals) < len(was.Approvals) || !slices.Equal(was.Approvals, r.Approvals[:len(was.Approvals)]) {
		wrong("it is version %d, claim %d, approvals %v, and was version %d, claim %d, approvals %v", r.Version, r.Claim, r.Approvals, was.Version, was.Claim, was.Approvals)
	}
	if was.State.Final() && (r.State != was.State || r.Version != was.Version || !sameJSON(w.t, was.Request, r.Request)) {
		wrong("it was final (%s), and is %s now", was.Summary(), r.Summary())
	}
	for i, e := range was.Journal {
		switch e.State {
		case StepWaiting, StepStarted, StepHandedOff:
		default:
			if !sameJSON(w.t, e, r.Journal[i]) {
				wrong("step %d was %+v, and is %+v now", i+1, e, r.Journal[i])
			}
		}
	}
	for op, answer := range was.ops {
		if r.ops[op] != answer {
			wrong("the answer to %s was %q, and is %q now", op, answer, r.ops[op])
		}
	}
	return list
}

// sameJSON reports whether two values are stored as the same JSON.
func sameJSON(t *testing.T, a, b any) bool {
	t.Helper()
	x, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(x) == string(y)
}

func sortedKeys[K ~string, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

var discard = slog.New(slog.DiscardHandler)

func redisZ(score float64, member string) redis.Z { return redis.Z{Score: score, Member: member} }

// beforeHook is a hook that calls do before each command with that name, or before
// each run of the script with that hash.
type beforeHook struct {
	command string
	do      func()
}

func (h beforeHook) matches(cmd redis.Cmder) bool {
	args := cmd.Args()
	return cmd.Name() == h.command || len(args) > 1 && args[1] == h.command
}

func (h beforeHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h beforeHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if h.matches(cmd) {
			h.do()
		}
		return next(ctx, cmd)
	}
}

func (h beforeHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			if h.matches(cmd) {
				h.do()
			}
		}
		return next(ctx, cmds)
	}
}
