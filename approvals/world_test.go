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
	redis.SetLogger(silent{}) // killed servers are part of the tests
	testparallel.Double()
	goleak.VerifyTestMain(redistest.Keep(m))
}

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// The people of the tests. Dana is who things are done to.
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

// fernhill is the policy of the tests.
func fernhill() Policy {
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

// directory behaves like a tenant that is asked about people: it can be down,
// and people change.
type directory struct {
	mu     sync.Mutex
	people map[string]Standing
	down   error
}

func newDirectory() *directory {
	d := &directory{people: map[string]Standing{}}
	add := func(p Person, groups ...string) {
		p.Slack = "" // Entra knows nothing of Slack
		d.people[p.ID] = Standing{Person: p, Enabled: true, Groups: groups}
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
	d.change(gloria, func(s *Standing) { s.Protected = []string{"holds the role Global Administrator"} })
	d.change(pat, func(s *Standing) { s.Guest = true })
	d.change(bo, func(s *Standing) { s.Enabled = false })
	return d
}

func (d *directory) change(p Person, how func(*Standing)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.people[p.ID]
	how(&s)
	d.people[p.ID] = s
}

func (d *directory) goDown(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.down = err
}

func (d *directory) Person(ctx context.Context, ref string) (Person, error) {
	s, err := d.Standing(ctx, ref, false)
	return s.Person, err
}

func (d *directory) Standing(ctx context.Context, id string, withProtection bool) (Standing, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return Standing{}, err
	}
	if d.down != nil {
		return Standing{}, d.down
	}
	s, ok := d.people[id]
	if !ok {
		return Standing{}, ErrNoPerson
	}
	if !withProtection {
		s.Protected = nil
	}
	return s, nil
}

// tenant is where steps have effects. Every method of an account can be
// deleted once; deleting it again is counted as a step that ran twice.
type tenant struct {
	mu      sync.Mutex
	methods map[string]bool // of the accounts, by id
	deleted map[string]int  // how often a method was taken away, or tried again
	jobs    []string        // kind, request and step, in the order in which they came
	active  map[string]int  // jobs at work, by target
	overlap bool            // two requests were at work on one target at a time
	script  func(job Job) (Result, bool)
}

func newTenant(methods ...string) *tenant {
	t := &tenant{methods: map[string]bool{}, deleted: map[string]int{}, active: map[string]int{}}
	for _, m := range methods {
		t.methods[m] = true
	}
	return t
}

// Work is the Work of the tests. Where script answers, its word counts and
// nothing is done.
func (n *tenant) Work(ctx context.Context, job Job) Result {
	target := job.Request.Plan.Target.ID
	n.mu.Lock()
	n.jobs = append(n.jobs, fmt.Sprintf("%s %s %d%s", job.Kind, job.Request.ID, job.Step, map[bool]string{true: " look only"}[job.LookOnly]))
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
	case Check:
		for id := range job.Request.Plan.Assumes {
			there, gone := n.methods[id], false
			for i, e := range job.Request.Journal {
				gone = gone || job.Request.Plan.Steps[i].Args["id"] == id && (e.State == StepDone || e.State == StepAlready)
			}
			if there == gone {
				return Result{State: StepFailed, Detail: "The account changed since this was approved: a method is not as it was."}
			}
		}
		return Result{State: StepDone}
	case Reconcile:
		id := job.Request.Plan.Steps[job.Step].Args["id"]
		if !n.methods[id] {
			return Result{State: StepDone, Detail: "It was gone already when Countersign looked."}
		}
		if job.LookOnly {
			return Result{State: StepFailed, Detail: "It was not carried out."}
		}
	}
	id := job.Request.Plan.Steps[job.Step].Args["id"]
	n.deletes(id)
	return Result{State: StepDone, RequestID: "graph-" + id}
}

func (n *tenant) deletes(id string) {
	n.deleted[id]++
	delete(n.methods, id)
}

// delete deletes a method, whatever the script says of it.
func (n *tenant) delete(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.deletes(id)
}

// has gives an account a method.
func (n *tenant) has(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.methods[id] = true
}

func (n *tenant) says(script func(job Job) (Result, bool)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.script = script
}

// did lists the jobs of one kind, or all with "".
func (n *tenant) did(kind JobKind) []string {
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

// count says how often a method was deleted.
func (n *tenant) count(id string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.deleted[id]
}

// overlapped says that two requests were at work on one target at a moment.
func (n *tenant) overlapped() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.overlap
}

// once fails the test when a method was not deleted exactly once.
func (n *tenant) once(t *testing.T, ids ...string) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, id := range ids {
		if n.deleted[id] != 1 {
			t.Errorf("%s was deleted %d times, want once; jobs: %v", id, n.deleted[id], n.jobs)
		}
	}
}

// untouched fails the test when anything was deleted.
func (n *tenant) untouched(t *testing.T) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.deleted) > 0 {
		t.Errorf("methods were deleted: %v", n.deleted)
	}
}

// calm is for tests that are not about time: nothing runs out by itself,
// however slow the machine is. Who is to be dead is made dead: see die, carried
// and idles.
func calm() Timing {
	return Timing{
		RunWithin: time.Hour, RunFor: 30 * time.Minute, Remind: time.Hour, Warn: time.Minute, SecretLife: 15 * time.Minute, GraphCall: 5 * time.Minute, GraphGrace: time.Minute, Lease: time.Hour,
		Sweep: 5 * time.Millisecond, LookUps: 10 * time.Minute, Takeover: time.Hour, InboxWrite: time.Minute,
		Stale: time.Hour, AuditLag: time.Hour, Follow: 20 * time.Millisecond, Lead: 10 * time.Minute,
	}
}

const ringText = "k1:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

// world is one Redis with everything around it.
type world struct {
	t         *testing.T
	server    *redistest.Server
	rdb       redis.UniversalClient
	timing    Timing
	store     *Store
	desk      *Desk
	directory *directory
	tenant    *tenant
	log       *slog.Logger
	ops       int
	known     map[string]Snapshot // requests as broken saw them last
	opened    map[any]audit.Event // events that it has opened
	read      *sync.Map           // events that events has opened, by id and sealed body
}

func newWorld(t *testing.T, timing Timing, options ...redistest.Option) *world {
	t.Helper()
	server := redistest.Start(t, options...)
	w := &world{
		t: t, server: server, timing: timing,
		rdb: server.ClientWith(t, func(o *redis.UniversalOptions) { // a slow machine is no Redis that hangs
			o.ReadTimeout, o.WriteTimeout = time.Minute, time.Minute
		}),
		directory: newDirectory(), tenant: newTenant("m1", "m2", "m3"), read: &sync.Map{}, // shared by those that are made of this one
		log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	w.store, w.desk = w.process(w.rdb)
	return w
}

// process is another Countersign on the same Redis.
func (w *world) process(rdb redis.UniversalClient) (*Store, *Desk) {
	w.t.Helper()
	return w.ringed(rdb, ringText)
}

// ringed is one with a ring of its own.
func (w *world) ringed(rdb redis.UniversalClient, keys string) (*Store, *Desk) {
	w.t.Helper()
	store := NewStore(rdb, ring(w.t, keys), "", w.timing)
	return store, &Desk{Store: store, Policy: fernhill(), Directory: w.directory, Log: w.log}
}

// run starts a runner of a process, and stops it when the test ends or stop
// is called.
func (w *world) run(desk *Desk, name string) (stop func()) {
	_, stop = w.runner(desk, name)
	return stop
}

// runner is the same with the runner, to be asked what it has in hand.
func (w *world) runner(desk *Desk, name string) (r *Runner, stop func()) {
	r = &Runner{Desk: desk, Work: w.tenant.Work, Name: name, Hands: 4, Log: w.log}
	return r, background(w.t, r.Run)
}

// background runs f until stop is called, which waits for its end.
func background(t *testing.T, f func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f(ctx) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// op is a fresh operation id.
func (w *world) op() string {
	w.ops++
	return fmt.Sprintf("op-%s-%d", strings.ReplaceAll(w.t.Name(), "/", "-"), w.ops)
}

// deletes is a plan that deletes methods, one a step.
func deletes(class Class, target Person, ids ...string) Plan {
	p := Plan{Command: "entra-require-reregister", Title: "Require re-register", Class: class, Target: target, Args: strings.Join(ids, " "), Assumes: map[string]string{}}
	for _, id := range ids {
		p.Steps = append(p.Steps, Step{Op: "delete", Args: map[string]string{"id": id}, Words: "Delete " + id})
		p.Assumes[id] = "there"
	}
	return p
}

// ask puts a request before the approvers.
func (w *world) ask(p Plan) Request {
	w.t.Helper()
	r, err := w.desk.Ask(w.t.Context(), w.op(), Ask{Plan: p, Requester: hanna, Justification: "lost her phone", Ticket: "INC-7", Verified: "callback"})
	if err != nil {
		w.t.Fatalf("asking: %v", err)
	}
	return r
}

// approved is a request that is ready to run.
func (w *world) approved(p Plan) Request {
	w.t.Helper()
	r := w.ask(p)
	for _, by := range []Person{ravi, olga, mina}[:r.Terms.Approvals] {
		var err error
		if r, err = w.desk.Approve(w.t.Context(), w.op(), r.ID, by); err != nil {
			w.t.Fatalf("approving: %v", err)
		}
	}
	return r
}

// claimed is a request that a worker of ours holds.
func (w *world) claimed(p Plan) Snapshot {
	w.t.Helper()
	snap, err := w.store.claim(w.t.Context(), w.load(w.approved(p).ID), "worker-1")
	if err != nil {
		w.t.Fatalf("claiming: %v", err)
	}
	return snap
}

func (w *world) load(id string) Snapshot {
	w.t.Helper()
	snap, err := w.store.Load(w.t.Context(), id)
	if err != nil {
		w.t.Fatalf("loading %s: %v", id, err)
	}
	return snap
}

// now is the instant on Redis' clock.
func (w *world) now() time.Time {
	w.t.Helper()
	now, err := w.store.clock(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return now
}

// die lets the lease of a request run out now, as if its worker had been dead
// for that long.
func (w *world) die(id string) {
	w.t.Helper()
	pipe := w.rdb.TxPipeline()
	pipe.HSet(w.t.Context(), w.store.keys.request(id), "lease", 1)
	pipe.ZAdd(w.t.Context(), w.store.keys.due(), redisZ(1, id))
	if _, err := pipe.Exec(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// orphanScript lets a lease run out, where the request still has that claim.
// KEYS 1 request  2 due; ARGV the claim and the request's id
var orphanScript = redis.NewScript(`
if redis.call('HGET', KEYS[1], 'state') ~= 'running' or redis.call('HGET', KEYS[1], 'claim') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'lease', 1)
redis.call('ZADD', KEYS[2], 1, ARGV[2])
return 1`)

// carried waits for a request to be over that these runners carry out. Where
// the one that has claimed it has let it go without a word, its lease runs out
// at once, and not while somebody who is slow is at work.
func (w *world) carried(id string, runners ...*Runner) Snapshot {
	w.t.Helper()
	var snap Snapshot
	waitFor(w.t, id+" to be over", func() bool {
		snap = w.load(id)
		inHand := slices.ContainsFunc(runners, func(r *Runner) bool { return r.holds(id) }) // after it was read
		if snap.State == Running && snap.Lease.After(snap.Now) && !inHand {
			keys := []string{w.store.keys.request(id), w.store.keys.due()}
			if err := orphanScript.Run(w.t.Context(), w.rdb, keys, snap.Claim, id).Err(); err != nil {
				w.t.Fatal(err)
			}
		}
		return snap.State.Final()
	})
	return snap
}

// holds says that a runner has a request in hand.
func (r *Runner) holds(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held[id]
}

// until waits for a request to be over.
func (w *world) until(id string) Snapshot {
	w.t.Helper()
	var snap Snapshot
	waitFor(w.t, id+" to be over", func() bool { snap = w.load(id); return snap.State.Final() })
	return snap
}

// waitFor polls until done says so. It gives up after so many looks, and not
// after some time alone: where the machine is busy with other things it looks
// less often, as those do less that it waits for.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	waitLong(t, 20*time.Second, what, done)
}

// waitLong is the same for what takes its time on any machine.
func waitLong(t *testing.T, least time.Duration, what string, done func() bool) {
	t.Helper()
	start := time.Now()
	for looks := 1; !done(); looks++ {
		if looks > 5000 && time.Since(start) > least {
			t.Fatalf("waited in vain for %s: %d looks in %s", what, looks, time.Since(start).Round(time.Millisecond))
		}
		<-time.After(2 * time.Millisecond)
	}
}

// closed waits for a channel to be closed.
func closed(t *testing.T, what string, c <-chan struct{}) {
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
func (w *world) events() []audit.Event {
	w.t.Helper()
	messages, err := w.rdb.XRange(w.t.Context(), w.store.keys.events(), "-", "+").Result()
	if err != nil {
		w.t.Fatal(err)
	}
	if w.read == nil {
		w.read = &sync.Map{}
	}
	var list []audit.Event
	for _, m := range messages {
		sealed, _ := m.Values["body"].(string)
		if known, ok := w.read.Load(m.ID + sealed); ok { // opening them all each time is most of what some tests do
			list = append(list, known.(audit.Event))
			continue
		}
		e, err := w.store.openEvent(m)
		if err != nil {
			w.t.Fatal(err)
		}
		w.read.Store(m.ID+sealed, e)
		list = append(list, e)
	}
	return list
}

// kinds lists the kinds of the events of a request; all events with "".
func (w *world) kinds(request string) []audit.Kind {
	w.t.Helper()
	var list []audit.Kind
	for _, e := range w.events() {
		if request == "" || e.Request == request {
			list = append(list, e.Kind)
		}
	}
	return list
}

// code is the code of a refusal, "" for no error, and the text of any other.
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

// invariants checks what must hold of everything in Redis, whatever happened.
func (w *world) invariants() {
	w.t.Helper()
	for _, what := range w.broken() {
		w.t.Error(what)
	}
}

// contents are all that is stored under our keys, at one moment.
type contents struct {
	now  time.Time
	keys map[string]*content // by name, without what all of them begin with
}

// content is the value of one key: a string, a hash or a sorted set, as Redis
// tells it.
type content struct {
	flat []string
	left time.Duration // of its life; zero where it has no end
}

// contentsScript reads them. KEYS 1 any key of ours; ARGV 1 what all begin with
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

func (w *world) contents() contents {
	w.t.Helper()
	keys := w.store.keys
	raw, err := contentsScript.Run(w.t.Context(), w.rdb, []string{keys.sequence()}, keys.tag).Slice()
	if err != nil {
		w.t.Fatal(err)
	}
	pic := contents{now: instant(raw[0].(string)), keys: map[string]*content{}}
	for _, one := range raw[1:] {
		key := one.([]any)
		value := &content{left: max(0, time.Duration(number(key[1].(string)))*time.Millisecond)}
		for _, text := range key[2].([]any) {
			value.flat = append(value.flat, text.(string))
		}
		pic.keys[strings.TrimPrefix(key[0].(string), keys.tag)] = value
	}
	return pic
}

// text is a string.
func (p contents) text(name string) string {
	if s := p.keys[name]; s != nil {
		return s.flat[0]
	}
	return ""
}

// fields are those of a hash, or the members of a sorted set and their scores.
func (p contents) fields(name string) map[string]string {
	all := map[string]string{}
	if s := p.keys[name]; s != nil {
		for pair := range slices.Chunk(s.flat, 2) {
			all[pair[0]] = pair[1]
		}
	}
	return all
}

// instants are a sorted set of them.
func (p contents) instants(name string) map[string]time.Time {
	all := map[string]time.Time{}
	for member, score := range p.fields(name) {
		all[member] = instant(score)
	}
	return all
}

// broken tells which invariants do not hold. It remembers what it saw, and
// compares with that when it is asked again.
func (w *world) broken() (list []string) {
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
	if w.known == nil {
		w.known, w.opened = map[string]Snapshot{}, map[any]audit.Event{}
	}
	for _, m := range messages {
		e, before := w.opened[m.Values["body"]]
		if !before {
			if e, err = w.store.openEvent(m); err != nil {
				wrong("%v", err)
				continue
			}
			w.opened[m.Values["body"]] = e
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
		// What the engine does to a request is named by that request's own
		// version or claim, what people do only once.
		if verb, _, _ := strings.Cut(e.Op, ":"); !slices.Contains([]string{"claim", "expire", "run", "remind", "warn", "unseen"}, verb) {
			if other, before := about[e.Op]; before && other != e.Request {
				wrong("%s took effect on %q and on %q", e.Op, other, e.Request)
			}
			about[e.Op] = e.Request
		}
	}
	pic := w.contents() // after the events, so that it lacks nothing that they tell
	if sequence := number(pic.text("sequence")); sequence < int64(commits) {
		wrong("sequence %d is behind %d commits with events", sequence, commits)
	}

	opens, dues, offers := pic.fields("open"), pic.instants("due"), pic.instants("offers")
	held := map[string]string{}
	for _, name := range sorted(pic.keys) {
		id, ok := strings.CutPrefix(name, "request:")
		if !ok {
			continue
		}
		r, err := w.store.decode(id, pic.fields(name), pic.now)
		if err != nil {
			wrong("%v", err)
			continue
		}
		list = append(list, w.changed(r)...)
		people := []string{r.Requester.ID, r.Plan.Target.ID}
		for _, p := range r.Approvers() {
			if slices.Contains(people, p.ID) {
				wrong("%s: %s has two parts in it", id, p)
			}
			people = append(people, p.ID)
		}
		if r.Glass != nil && (r.Glass.By.ID == r.Plan.Target.ID || r.Plan.Class != ClassContain || !r.Terms.Glass) {
			wrong("%s: the glass was broken by %s", id, r.Glass.By)
		}
		if r.Reviewed != nil && (r.Glass == nil || slices.Contains([]string{r.Glass.By.ID, r.Requester.ID, r.Plan.Target.ID}, r.Reviewed.By.ID)) {
			wrong("%s was reviewed by %s", id, r.Reviewed.By)
		}
		if ran := slices.Contains([]State{Approved, Running, HandedOff, Review, Done}, r.State); ran && len(r.Approvals) < r.Terms.Approvals && r.Glass == nil {
			wrong("%s is %s with %d of %d approvals", id, r.State, len(r.Approvals), r.Terms.Approvals)
		}
		_, open := opens[id]
		_, due := dues[id]
		same := pic.text("same:"+r.Print) == id
		holder := pic.text("holder:"+r.Plan.Target.ID) == id
		lives := pic.keys[name].left
		if r.State.Final() {
			if open || due || same || holder || lives < 24*time.Hour {
				wrong("%s is over (%s), but open %v, due %v, same %v, holder %v, lives %v", id, r.State, open, due, same, holder, lives)
			}
		} else if !open || !due || same == (r.State == Review) || holder != (r.State == Running) || lives > 0 {
			wrong("%s is %s, but open %v, due %v, same %v, holder %v, lives %v", id, r.State, open, due, same, holder, lives)
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
				wrong("%s: %s left an event (%s) and no answer", id, e.Op, e.Kind)
			}
			switch e.Kind {
			case audit.Refused, audit.Revealed, audit.Unseen, audit.Reminded: // change nothing
				continue
			}
			if (e.Kind == audit.Requested) != (i == 0) {
				wrong("%s: event %d is %s", id, i, e.Kind)
			}
			if e.Version < version || e.Version > r.Version {
				wrong("%s: event %d is of version %d, behind one of %d; it is in %d", id, i, e.Version, version, r.Version)
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
					wrong("%s: step %d is %q behind one that is %q", id, i+1, e.State, before)
				}
			}
			switch e.State {
			case StepDone, StepAlready, StepFailed, StepUncertain:
				ended++
			case StepStarted:
				if r.State != Running {
					wrong("%s is %s with a step that was begun and has no outcome", id, r.State)
				}
			case StepAttested:
				if e.DoneBy == nil || e.Confirmed == nil || e.DoneBy.By.ID == e.Confirmed.By.ID {
					wrong("%s: step %d was done by %v and confirmed by %v", id, i+1, e.DoneBy, e.Confirmed)
				}
			}
			for _, d := range []*Decision{e.DoneBy, e.Confirmed} {
				if d != nil && d.By.ID == r.Plan.Target.ID {
					wrong("%s: its target says of step %d that it is done", id, i+1)
				}
			}
			if secret := pic.keys["secret:"+offer(id, i)]; secret != nil {
				if secret.left <= 0 || secret.left > preparedLife || r.Plan.Steps[i].Secret == SecretNone {
					wrong("%s: a secret of step %d lives for another %s", id, i+1, secret.left)
				}
				if ends, ok := offers[offer(id, i)]; e.State == StepDone && (!ok || ends.Sub(pic.now) > w.timing.SecretLife) {
					wrong("%s: the secret of step %d is there, and offered until %s", id, i+1, ends)
				}
			}
		}
		end := map[State]audit.Kind{Done: audit.Finished, Denied: audit.Denied, Expired: audit.Expired, Cancelled: audit.Cancelled, Review: audit.Finished}[r.State]
		if r.Reviewed != nil {
			end = audit.Reviewed
		}
		if (r.State.Final() || r.State == Review) && last != end {
			wrong("%s is %s, but its last event is %s", id, r.State, last)
		}
		ends := count[audit.Finished] + count[audit.Denied] + count[audit.Expired] + count[audit.Cancelled]
		started := 0
		if r.Claim > 0 {
			started = 1
		}
		if want := map[bool]int{true: 1}[r.State.Final() || r.State == Review]; ends != want || count[audit.Requested] != 1 ||
			count[audit.Approved] != len(r.Approvals) || count[audit.Started] != started || count[audit.Stepped] != ended {
			wrong("%s is %s with %d approvals, claim %d, %d steps ended, but its events are %v", id, r.State, len(r.Approvals), r.Claim, ended, count)
		}
	}
	if len(opens)+len(dues) > 0 {
		wrong("open %v and due %v, and not there", opens, dues)
	}
	for _, name := range sorted(pic.keys) {
		if target, ok := strings.CutPrefix(name, "holder:"); ok && held[target] == "" {
			wrong("%s is held by %s, which is not running", target, pic.text(name))
		}
		offer, ok := strings.CutPrefix(name, "secret:")
		if id, _, _ := strings.Cut(offer, "/"); ok && pic.keys["request:"+id] == nil {
			wrong("the secret of %s is there, and the request is not", offer)
		}
	}
	return list
}

// changed tells what became of a request that must not have since broken saw it
// last: its plan, its terms, its end, or less of anything that only grows.
func (w *world) changed(r Snapshot) (list []string) {
	was, seen := w.known[r.ID]
	w.known[r.ID] = r
	if !seen {
		return nil
	}
	wrong := func(format string, a ...any) {
		list = append(list, r.ID+": "+fmt.Sprintf(format, a...))
	}
	if fixed := func(r Request) any { return []any{r.Plan, r.Requester, r.Terms, r.Created, r.Print} }; !same(w.t, fixed(was.Request), fixed(r.Request)) {
		wrong("what was asked for has changed: %+v, and was %+v", r.Request, was.Request)
	}
	if r.Version < was.Version || r.Claim < was.Claim || len(r.Approvals) < len(was.Approvals) || !slices.Equal(was.Approvals, r.Approvals[:len(was.Approvals)]) {
		wrong("version %d, claim %d, approvals %v; and was in version %d with claim %d and %v", r.Version, r.Claim, r.Approvals, was.Version, was.Claim, was.Approvals)
	}
	if was.State.Final() && (r.State != was.State || r.Version != was.Version || !same(w.t, was.Request, r.Request)) {
		wrong("it was over (%s), and is %s now", was.Says(), r.Says())
	}
	for i, e := range was.Journal {
		switch e.State {
		case StepWaiting, StepStarted, StepHandedOff:
		default:
			if !same(w.t, e, r.Journal[i]) {
				wrong("step %d was %+v, and is %+v now", i+1, e, r.Journal[i])
			}
		}
	}
	for op, answer := range was.ops {
		if r.ops[op] != answer {
			wrong("%s was answered with %q, and is with %q now", op, answer, r.ops[op])
		}
	}
	return list
}

// same says whether two values are equal as they would be stored.
func same(t *testing.T, a, b any) bool {
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

func sorted[K ~string, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

var discard = slog.New(slog.DiscardHandler)

func redisZ(score float64, member string) redis.Z { return redis.Z{Score: score, Member: member} }

// before is a hook that does something before each command of one kind, or
// each run of the script with that hash.
type before struct {
	command string
	do      func()
}

func (h before) is(cmd redis.Cmder) bool {
	args := cmd.Args()
	return cmd.Name() == h.command || len(args) > 1 && args[1] == h.command
}

func (h before) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h before) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if h.is(cmd) {
			h.do()
		}
		return next(ctx, cmd)
	}
}

func (h before) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			if h.is(cmd) {
				h.do()
			}
		}
		return next(ctx, cmds)
	}
}
