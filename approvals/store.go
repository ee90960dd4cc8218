package approvals

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign/audit"
)

//go:embed commit.lua
var commitSource string

// requestRetention is how long a request that is over can be looked up. The
// audit log keeps it for ever.
const requestRetention = 90 * 24 * time.Hour

// noteRetention is how long the answer to a refused or read-only operation is
// kept: longer than any redelivery takes.
const noteRetention = time.Hour

// dueBatch is how many due requests one sweep handles.
const dueBatch = 200

// recentTargetWindow is how long people may neither request nor decide after
// their methods were destroyed or their account could have been taken over.
const recentTargetWindow = 48 * time.Hour

// Store stores requests in Redis. Every write of a request is one run of
// commit.lua; the package comment lists the keys.
type Store struct {
	rdb      redis.UniversalClient
	ring     *Ring
	keys     keys
	commit   *redis.Script
	timing   Timing
	rollback rollbackDetector // of what this Redis has confirmed
	wake     chan struct{}
	outage   outage

	missingKeys missingKeys
}

// NewStore returns a store over rdb. prefix separates several Countersigns in
// one Redis; it becomes the hash tag of all keys.
func NewStore(rdb redis.UniversalClient, ring *Ring, prefix string, timing Timing) *Store {
	return &Store{
		rdb: rdb, ring: ring, keys: keysFor(prefix),
		commit: redis.NewScript(commitSource), timing: timing, rollback: rollbackDetector{process: rand.Text()}, wake: make(chan struct{}, 1),
	}
}

// keys builds every key name. All have one hash tag, so that Redis Cluster keeps
// them in one slot.
type keys struct{ tag string }

func keysFor(prefix string) keys { return keys{"{" + cmp.Or(prefix, "countersign") + "}:"} }

func (k keys) request(id string) string     { return k.tag + "request:" + id }
func (k keys) note(op string) string        { return k.tag + "note:" + op }
func (k keys) cards(id string) string       { return k.tag + "cards:" + id }
func (k keys) due() string                  { return k.tag + "due" }
func (k keys) open() string                 { return k.tag + "open" }
func (k keys) sequence() string             { return k.tag + "sequence" }
func (k keys) processes() string            { return k.tag + "processes" }
func (k keys) lost() string                 { return k.tag + "lost" }
func (k keys) resumed() string              { return k.tag + "resumed" }
func (k keys) events() string               { return k.tag + "events" }
func (k keys) holder(target string) string  { return k.tag + "holder:" + target }
func (k keys) same(print string) string     { return k.tag + "same:" + print }
func (k keys) mine(person string) string    { return k.tag + "mine:" + person }
func (k keys) mark(target string) string    { return k.tag + "recent-target:" + target }
func (k keys) inbox() string                { return k.tag + "inbox" }
func (k keys) deadLetters() string          { return k.tag + "aside" }
func (k keys) envelope(id string) string    { return k.tag + "envelope:" + id }
func (k keys) lead(name string) string      { return k.tag + "lead:" + name }
func (k keys) cursor(name string) string    { return k.tag + "cursor:" + name }
func (k keys) rate(what, who string) string { return k.tag + "rate:" + what + ":" + who }
func (k keys) pins(kind string) string      { return k.tag + "pins:" + kind }
func (k keys) secret(offer string) string   { return k.tag + "secret:" + offer }
func (k keys) offers() string               { return k.tag + "offers" }
func (k keys) tally(what string) string     { return k.tag + "tally:" + what }

// RequestID derives the id of a request from the operation that submits it, so
// that a redelivered entry submits the same request.
func RequestID(op string) string {
	sum := sha256.Sum256([]byte("request\x00" + op))
	const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	text := base32.NewEncoding(crockford).WithPadding(base32.NoPadding).EncodeToString(sum[:5])
	return "R-" + text
}

// write is one run of commit.lua. The zero value of a field changes nothing.
type write struct {
	request   Request // after the action; its plan names the keys
	key       string  // the hash to write; empty for the request's own
	op        string
	mode      string    // new; change and note want the hash to be there, and a note leaves its version alone
	version   string    // the version it must have; empty for any
	claim     string    // the claim it must have; empty for any
	before    time.Time // the commit counts only before this instant
	after     time.Time // and not before this one
	answer    string
	holder    string
	same      string
	open      string
	mine      string
	due       string
	mark      time.Duration
	keep      time.Duration
	tallies   []tally  // what it counts for, refused where one is full
	fields    []string // name, value, …
	durations []string // name, milliseconds, …
	events    []audit.Event
}

// tally counts writes towards a limit over time, under a key of its own.
type tally struct {
	what  string // whose, such as requester:<person>
	limit Limit
	full  *Refusal
}

// reply is the reply of commit.lua.
type reply struct {
	status   string
	answer   string
	version  int64
	now      time.Time
	sequence int64
	who      string
	kept     int64 // the sequence of this process' commit before, by Redis' word
}

func (s *Store) run(ctx context.Context, w write) (reply, error) {
	id, other := w.request.ID, s.keys.note(w.op)
	if w.key == other {
		other = s.keys.request(RequestID(w.op))
	}
	keys := []string{
		cmp.Or(w.key, s.keys.request(id)), s.keys.due(), s.keys.open(), s.keys.sequence(), s.keys.events(),
		s.keys.holder(w.request.Plan.Target.ID), s.keys.same(w.request.Fingerprint),
		s.keys.mine(w.request.Requester.ID), s.keys.mark(w.request.Plan.Target.ID), other,
		s.keys.processes(), s.keys.lost(),
	}
	told := &writeReport{memory: &s.rollback, commit: true}
	args := []any{
		id, w.op, w.mode, w.version, w.claim, s.rollback.process, told, unixMillis(w.before), unixMillis(w.after), w.answer,
		w.holder, w.same, w.open, w.mine, w.due, w.mark.Milliseconds(), w.keep.Milliseconds(),
	}
	args = append(args, len(w.tallies))
	for _, t := range w.tallies {
		keys = append(keys, s.keys.tally(t.what))
		args = append(args, len(keys), t.limit.Count, t.limit.Within.Milliseconds())
	}
	for _, list := range [][]string{w.fields, w.durations} {
		args = append(args, len(list)/2)
		for _, item := range list {
			args = append(args, item)
		}
	}
	args = append(args, len(w.events))
	for n, e := range w.events {
		e.Op = w.op
		body, err := json.Marshal(e)
		if err != nil {
			return reply{}, err
		}
		args = append(args, s.ring.Seal("event", eventContext(id, fmt.Sprintf("%s#%d", w.op, n+1)), body))
	}
	raw, err := s.commit.Run(ctx, s.rdb, keys, args...).StringSlice()
	if err != nil {
		return reply{}, fmt.Errorf("approvals: %s was not confirmed by Redis: %w", w.op, err)
	}
	if len(raw) != 7 {
		return reply{}, fmt.Errorf("approvals: commit.lua answered %d values", len(raw))
	}
	r := reply{status: raw[0], answer: raw[1], version: parseInt(raw[2]), now: parseInstant(raw[3]), sequence: parseInt(raw[4]), who: raw[5], kept: parseInt(raw[6])}
	if err := s.verifyReply(ctx, w, told.sent, r); err != nil {
		return r, err
	}
	if r.status == "ok" && w.due == "0" {
		s.wakeRunner()
	}
	return r, nil
}

// Timing returns every duration of the engine.
func (s *Store) Timing() Timing { return s.timing }

// wakeRunner tells the runner of this process that something is due, so that it
// does not wait for the next sweep.
func (s *Store) wakeRunner() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// sealBody seals the part of a request that scripts never read.
func (s *Store) sealBody(r Request) ([]string, error) {
	plain, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return []string{"state", string(r.State), "claim", strconv.FormatInt(r.Claim, 10), "body", s.ring.Seal("request", r.ID, plain)}, nil
}

// Snapshot is a request and the instant, by Redis' clock, at which it was read.
type Snapshot struct {
	Request
	Now time.Time
	ops map[string]string
}

// Load reads one request. It returns ErrNoRequest if there is none.
func (s *Store) Load(ctx context.Context, id string) (Snapshot, error) {
	now, hashes, err := readAt(ctx, s.rdb, s.keys, s.keys.request(id))
	if err != nil {
		return Snapshot{}, fmt.Errorf("approvals: reading %s: %w", id, err)
	}
	return s.decode(id, hashes[0], now)
}

// readScript reads hashes and tells the instant at which it did, on the clock
// of the server that holds them and that commit.lua compares with. A bare TIME
// would not do: in a Redis Cluster any node may answer it, from a clock of its
// own.
//
// KEYS 1 any key of ours, for nothing but where this is run  2… hashes
var readScript = redis.NewScript(`
local answer = { redis.call('TIME') }
for n = 2, #KEYS do answer[n] = redis.call('HGETALL', KEYS[n]) end
return answer`)

// readAt reads hashes and the instant in one round trip. A missing hash is
// empty. Without names it reads the time alone.
func readAt(ctx context.Context, rdb redis.Scripter, k keys, names ...string) (now time.Time, hashes []map[string]string, err error) {
	got, err := readScript.Run(ctx, rdb, append([]string{k.sequence()}, names...)).Slice()
	if err != nil {
		return now, nil, err
	}
	if len(got) != 1+len(names) {
		return now, nil, fmt.Errorf("approvals: reading %d hashes answered %d values", len(names), len(got))
	}
	lists := make([][]string, len(got))
	for i, answer := range got {
		flat, _ := answer.([]any)
		for _, item := range flat {
			text, _ := item.(string)
			lists[i] = append(lists[i], text)
		}
		if len(lists[i])%2 != 0 {
			return now, nil, fmt.Errorf("approvals: reading hashes answered half a pair: %d values", len(lists[i]))
		}
	}
	if len(lists[0]) != 2 {
		return now, nil, fmt.Errorf("approvals: Redis does not tell the time, but %v", got[0])
	}
	now = time.Unix(parseInt(lists[0][0]), parseInt(lists[0][1])*int64(time.Microsecond)).UTC()
	for _, list := range lists[1:] {
		hash := make(map[string]string, len(list)/2)
		for pair := range slices.Chunk(list, 2) {
			hash[pair[0]] = pair[1]
		}
		hashes = append(hashes, hash)
	}
	return now, hashes, nil
}

// clock returns the time of Redis' clock.
func (s *Store) clock(ctx context.Context) (time.Time, error) {
	now, _, err := readAt(ctx, s.rdb, s.keys)
	if err != nil {
		return now, fmt.Errorf("approvals: Redis does not tell the time: %w", err)
	}
	return now, nil
}

func (s *Store) decode(id string, fields map[string]string, now time.Time) (Snapshot, error) {
	if len(fields) == 0 {
		return Snapshot{}, fmt.Errorf("%w: %s", ErrNoRequest, id)
	}
	snap := Snapshot{Now: now.Truncate(time.Millisecond), ops: map[string]string{}}
	plain, err := s.ring.Open("request", id, fields["body"])
	if err != nil {
		return snap, fmt.Errorf("request %s: %w", id, err)
	}
	if err := json.Unmarshal(plain, &snap.Request); err != nil {
		return snap, fmt.Errorf("approvals: request %s: %w", id, err)
	}
	snap.State, snap.Version, snap.Claim = State(fields["state"]), parseInt(fields["version"]), parseInt(fields["claim"])
	snap.Deadline, snap.Lease = parseInstant(fields["deadline"]), parseInstant(fields["lease"])
	if sealed := fields["halt"]; sealed != "" {
		plain, err := s.ring.Open("halt", id, sealed)
		if err != nil {
			return snap, fmt.Errorf("halt of %s: %w", id, err)
		}
		if err := json.Unmarshal(plain, &snap.Halt); err != nil {
			return snap, fmt.Errorf("approvals: halt of %s: %w", id, err)
		}
	}
	for name, value := range fields {
		if op, ok := strings.CutPrefix(name, "op:"); ok {
			snap.ops[op] = value
		}
	}
	return snap, nil
}

// LoadAll reads several requests in one round trip. It leaves out those that are
// gone or do not open, so that one of them does not hide the others; the runner
// reports them.
func (s *Store) LoadAll(ctx context.Context, ids []string) ([]Snapshot, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = s.keys.request(id)
	}
	now, hashes, err := readAt(ctx, s.rdb, s.keys, names...)
	if err != nil {
		return nil, fmt.Errorf("approvals: reading requests: %w", err)
	}
	var all []Snapshot
	for i, id := range ids {
		snap, err := s.decode(id, hashes[i], now)
		if err == nil {
			all = append(all, snap)
		}
	}
	return all, nil
}

// Open lists open requests, the oldest first.
func (s *Store) Open(ctx context.Context) ([]Snapshot, error) {
	ids, err := s.rdb.ZRange(ctx, s.keys.open(), 0, 99).Result()
	if err != nil {
		return nil, fmt.Errorf("approvals: listing open requests: %w", err)
	}
	return s.LoadAll(ctx, ids)
}

// Mine lists the latest requests of one person, the newest first.
func (s *Store) Mine(ctx context.Context, person string) ([]Snapshot, error) {
	ids, err := s.rdb.ZRevRange(ctx, s.keys.mine(person), 0, 19).Result()
	if err != nil {
		return nil, fmt.Errorf("approvals: listing requests: %w", err)
	}
	return s.LoadAll(ctx, ids)
}

// create writes a new request. With CodeIdentical the refusal names the request
// that is open already.
func (s *Store) create(ctx context.Context, op string, a Submit, limits []tally) (Snapshot, error) {
	now, err := s.clock(ctx)
	if err != nil {
		return Snapshot{}, err
	}
	r, events, err := Apply(Request{ID: RequestID(op)}, a, now.Truncate(time.Millisecond))
	if err != nil {
		return Snapshot{}, err
	}
	r.Fingerprint = s.ring.print(a.Plan.Command, a.Plan.Target.ID, a.Plan.Args)
	fields, err := s.sealBody(r)
	if err != nil {
		return Snapshot{}, err
	}
	life := formatMillis(a.Requirements.Lifetime)
	got, err := s.run(ctx, write{
		request: r, op: op, mode: "new", answer: "requested",
		fields: fields, durations: []string{"deadline", life}, due: formatMillis(a.Requirements.Lifetime - s.timing.warning(a.Requirements.Lifetime)),
		same: "take", open: "add", mine: "add", tallies: limits, events: events,
	})
	if err != nil {
		return Snapshot{}, err
	}
	switch got.status {
	case "again":
		if err := s.replayAnswer(op, got.answer); err != nil {
			return Snapshot{}, err // refused when it was delivered before
		}
		return s.Load(ctx, r.ID)
	case "ok":
		return s.Load(ctx, r.ID)
	case "same":
		if gone, err := s.release(ctx, s.keys.same(r.Fingerprint), got.who); err != nil {
			return Snapshot{}, err
		} else if gone {
			return s.create(ctx, op, a, limits)
		}
		open, err := s.Load(ctx, got.who)
		if err != nil {
			return Snapshot{}, err // it comes again
		}
		return Snapshot{}, identical(open.Request, a.Requester)
	case "limited":
		return Snapshot{}, limits[parseInt(got.who)-1].full
	}
	return Snapshot{}, fmt.Errorf("approvals: creating %s: %s", r.ID, got.status)
}

// decide applies a person's action to a request: it reads, applies, compares the
// version, and retries on a conflict, so that two approvals at the same moment
// both count. An operation that was executed before gets its stored answer.
func (s *Store) decide(ctx context.Context, op, id string, a Action, limits []tally) (Snapshot, error) {
	for range 20 {
		snap, err := s.Load(ctx, id)
		if err != nil {
			return snap, err
		}
		if answer, ok := snap.ops[op]; ok {
			return snap, s.replayAnswer(op, answer)
		}
		next, events, err := Apply(snap.Request, a, snap.Now)
		if no := (*Refusal)(nil); errors.As(err, &no) {
			return snap, no
		}
		if err != nil {
			return snap, err
		}
		w := write{request: next, op: op, mode: "change", version: formatInt(snap.Version), answer: "ok", tallies: limits, events: events}
		if snap.State == StatePending || snap.State == StateApproved {
			w.before = snap.Deadline // a press at the last moment counts only if Redis says so
		}
		if _, halting := a.(Stop); halting {
			w.before = time.Time{}
			plain, err := json.Marshal(next.Halt)
			if err != nil {
				return snap, err
			}
			w.fields = []string{"halt", s.ring.Seal("halt", id, plain)}
		} else if w.fields, err = s.sealBody(next); err != nil {
			return snap, err
		}
		switch {
		case next.State == StateApproved:
			w.durations, w.due = []string{"deadline", formatMillis(s.timing.start(next.Plan.Class))}, "0"
		case next.State.Final():
			w.due, w.open, w.same, w.keep = "remove", "remove", "free", requestRetention
		}
		got, err := s.run(ctx, w)
		if err != nil {
			return snap, err
		}
		switch got.status {
		case "ok":
			return s.Load(ctx, id)
		case "again":
			return snap, s.replayAnswer(op, got.answer)
		case "late":
			return snap, expiredRefusal(snap.Request)
		case "limited":
			return snap, limits[parseInt(got.who)-1].full
		case "conflict":
			continue
		}
		return snap, fmt.Errorf("approvals: deciding %s: %s", id, got.status)
	}
	return Snapshot{}, fmt.Errorf("%w: %s", ErrConflict, id)
}

// note records an event that changes no request: a refusal, a read, an alarm. If
// it concerns a request, the answer is stored with that request. It returns the
// stored answer, which is an earlier one if the operation was recorded before.
func (s *Store) note(ctx context.Context, op, answer string, r Request, e audit.Event) (string, error) {
	e.Version = r.Version
	apart := write{key: s.keys.note(op), op: op, mode: "new", answer: answer, keep: noteRetention, events: []audit.Event{e}}
	w := write{request: r, op: op, mode: "note", answer: answer, events: []audit.Event{e}}
	if r.ID == "" {
		w = apart
	}
	got, err := s.run(ctx, w)
	if err == nil && got.status == "gone" {
		got, err = s.run(ctx, apart)
	}
	switch {
	case err != nil:
		return "", err
	case got.status == "ok", got.status == "again":
		return got.answer, nil
	}
	return "", fmt.Errorf("approvals: recording %s: %s", op, got.status)
}

// answered returns the stored answer of an operation that made no request, or
// whose request is gone.
func (s *Store) answered(ctx context.Context, op string) (answer string, ok bool, err error) {
	answer, err = s.rdb.HGet(ctx, s.keys.note(op), "op:"+op).Result()
	if errors.Is(err, redis.Nil) {
		return "", false, nil
	}
	return answer, err == nil, err
}

// expire ends a request whose deadline has passed by Redis' clock.
func (s *Store) expire(ctx context.Context, snap Snapshot) error {
	next, events, err := Apply(snap.Request, Expire{}, snap.Now)
	if err != nil {
		return err
	}
	fields, err := s.sealBody(next)
	if err != nil {
		return err
	}
	_, err = s.run(ctx, write{
		request: next, op: fmt.Sprintf("expire:%d", snap.Version), mode: "change", version: formatInt(snap.Version),
		after: snap.Deadline, answer: "ok", fields: fields, events: events,
		due: "remove", open: "remove", same: "free", keep: requestRetention,
	})
	return err
}

// claim makes worker the holder of a request and of its target. It returns
// ErrFenced if another worker, or another request of the same target, was first.
func (s *Store) claim(ctx context.Context, snap Snapshot, worker string) (Snapshot, error) {
	next, events, err := Apply(snap.Request, Claim{Worker: worker}, snap.Now)
	if err != nil {
		return snap, err
	}
	w := write{
		request: next, op: fmt.Sprintf("claim:%d", next.Claim), mode: "change", version: formatInt(snap.Version),
		// Two workers of one name are two workers: only the one whose words
		// these are may take "again" for a yes.
		answer:    worker + "#" + rand.Text(),
		durations: []string{"lease", formatMillis(s.timing.Lease)}, due: formatMillis(s.timing.Lease),
		holder: "take", events: events,
	}
	if snap.State == StateApproved {
		w.before = snap.Deadline
	} else {
		w.after = snap.Lease
	}
	if next.Plan.Class == ClassDestroy || next.Plan.Class == ClassTakeover {
		w.mark = recentTargetWindow
	}
	if w.fields, err = s.sealBody(next); err != nil {
		return snap, err
	}
	got, err := s.run(ctx, w)
	if err != nil {
		return snap, err
	}
	if got.status == "held" {
		if _, err := s.release(ctx, s.keys.holder(next.Plan.Target.ID), got.who); err != nil {
			return snap, err
		}
		return snap, heldTargetError{got.who} // or it was free by now, and the next look claims it
	}
	if got.answer != w.answer {
		return snap, fmt.Errorf("%w: %s (%s)", ErrFenced, next.ID, got.status)
	}
	next.Version = got.version
	return Snapshot{Request: next, Now: got.now}, nil
}

// heldTargetError is the [ErrFenced] of a request whose target another request
// holds.
type heldTargetError struct{ id string }

func (e heldTargetError) Error() string {
	return fmt.Sprintf("%v: %s holds the target", ErrFenced, e.id)
}
func (e heldTargetError) Is(target error) bool { return target == ErrFenced }

// releaseScript releases a lock whose request is gone.
var releaseScript = redis.NewScript(`
if redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('EXISTS', KEYS[2]) == 0 then return redis.call('DEL', KEYS[1]) end
return 0`)

// release releases the holder of a target, or a fingerprint, if its request is
// gone although it never ended: Redis evicted it, or somebody deleted it.
// Nothing else would release it. It reports whether that was so.
func (s *Store) release(ctx context.Context, key, request string) (bool, error) {
	n, err := releaseScript.Run(ctx, s.rdb, []string{key, s.keys.request(request)}, request).Int()
	if err != nil {
		return false, fmt.Errorf("approvals: whether %s is still there: %w", request, err)
	}
	return n > 0, nil
}

// advance applies one action of the worker that holds the claim, and renews its
// lease. ErrFenced means that the worker no longer holds the claim and must not
// take another step. StartStep and HandOff also compare the version, because
// nothing may start once somebody was told that the request is halted; the error
// is errHalted then.
func (s *Store) advance(ctx context.Context, r Request, at time.Time, op string, a Action) (Request, error) {
	next, events, err := Apply(r, a, at)
	if err != nil {
		return r, err
	}
	lease := s.timing.Lease
	if release, ok := a.(Release); ok {
		lease = release.After
	}
	w := write{
		request: next, op: fmt.Sprintf("run:%d:%s", r.Claim, op), mode: "change", claim: formatInt(r.Claim), answer: "ok",
		durations: []string{"lease", formatMillis(lease)}, due: formatMillis(lease), events: events,
	}
	switch a.(type) {
	case StartStep, HandOff:
		w.version = formatInt(r.Version)
	}
	switch {
	case next.State.Final():
		w.durations, w.due, w.open, w.same, w.holder, w.keep = nil, "remove", "remove", "free", "free", requestRetention
	case next.State == StateHandedOff: // people hold no target, and their lease is until the next reminder
		w.durations, w.due, w.holder = []string{"lease", formatMillis(s.timing.Remind)}, formatMillis(s.timing.Remind), "free"
	case next.State == StateReview: // nothing is left to run, so the same may be asked for anew
		w.durations, w.due, w.holder, w.same = []string{"lease", formatMillis(s.timing.Remind)}, formatMillis(s.timing.Remind), "free", "free"
	}
	if w.fields, err = s.sealBody(next); err != nil {
		return r, err
	}
	got, err := s.run(ctx, w)
	if err != nil {
		return r, err
	}
	switch got.status {
	case "ok", "again":
		next.Version = got.version
		return next, nil
	case "fenced", "gone":
		return r, fmt.Errorf("%w: %s", ErrFenced, r.ID)
	case "conflict":
		return r, fmt.Errorf("%w: %s", errHalted, r.ID)
	}
	return r, fmt.Errorf("approvals: advancing %s: %s", r.ID, got.status)
}

// due lists the requests that are due. Every sweep calls it, so a process that
// commits nothing detects lost writes here.
func (s *Store) due(ctx context.Context) ([]string, error) {
	if err := s.checkRollback(ctx); err != nil {
		return nil, err
	}
	_, over, err := s.elapsed(ctx, s.keys.due(), dueBatch+s.missingKeys.count())
	if err != nil {
		return nil, fmt.Errorf("approvals: Redis does not tell what is due: %w", err)
	}
	ids := make([]string, len(over))
	for i, e := range over {
		ids[i] = e.name
	}
	return ids, nil
}

// elapsedScript lists the members of a sorted set that are due by this server's
// clock, and returns the sequence number. KEYS 1 sequence 2 the set; ARGV 1 how
// many at most
var elapsedScript = redis.NewScript(`
local t = redis.call('TIME')
local now = string.format('%d', tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000))
local answer = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'WITHSCORES', 'LIMIT', 0, ARGV[1])
table.insert(answer, 1, redis.call('GET', KEYS[1]) or '0')
return answer`)

// elapsed is a member of a sorted set that is due.
type elapsed struct {
	name string
	at   int64 // that instant, in milliseconds
}

func (s *Store) elapsed(ctx context.Context, set string, limit int) (sequence int64, list []elapsed, err error) {
	got, err := elapsedScript.Run(ctx, s.rdb, []string{s.keys.sequence(), set}, limit).StringSlice()
	if err != nil {
		return 0, nil, err
	}
	if len(got)%2 != 1 {
		return 0, nil, fmt.Errorf("approvals: asking what is due answered %d values", len(got))
	}
	for pair := range slices.Chunk(got[1:], 2) {
		at, err := strconv.ParseFloat(pair[1], 64)
		if err != nil {
			return 0, nil, fmt.Errorf("approvals: %s is due at %q: %w", pair[0], pair[1], err)
		}
		list = append(list, elapsed{pair[0], int64(at)})
	}
	return parseInt(got[0]), list, nil
}

// postpone postpones a request that cannot be read, so that it does not block
// the others. It changes the index alone, and only if the request is still in
// it.
func (s *Store) postpone(ctx context.Context, id string, by time.Duration) error {
	now, err := s.clock(ctx)
	if err != nil {
		return err
	}
	return s.rdb.ZAddArgs(ctx, s.keys.due(), redis.ZAddArgs{XX: true, Members: []redis.Z{{Score: float64(now.Add(by).UnixMilli()), Member: id}}}).Err()
}

// RecentTarget reports whether a person's own account was the target of a
// destroy or takeover request in the last 48 hours, other than the request but,
// which may be empty.
func (s *Store) RecentTarget(ctx context.Context, person, but string) (bool, error) {
	by, err := s.rdb.Get(ctx, s.keys.mark(person)).Result()
	if errors.Is(err, redis.Nil) {
		return false, nil
	}
	return err != nil || by != but, err
}

// Allow counts one use and reports whether it is within limit uses per window.
func (s *Store) Allow(ctx context.Context, what, who string, limit int, window time.Duration) (bool, error) {
	key := s.keys.rate(what, who)
	pipe := s.rdb.TxPipeline()
	pipe.SetNX(ctx, key, 0, window)
	count := pipe.Incr(ctx, key)
	if _, err := pipe.Exec(ctx); err != nil {
		return false, err
	}
	return count.Val() <= int64(limit), nil
}

// pinScript binds both ways or not at all.
var pinScript = redis.NewScript(`
local object, slack = redis.call('HGET', KEYS[1], ARGV[1]), redis.call('HGET', KEYS[2], ARGV[2])
if object and object ~= ARGV[2] or slack and slack ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[2], ARGV[1])
return 1`)

// Pin binds a Slack account to an Entra account at first use, in both
// directions. It returns false if either was bound to another one before.
func (s *Store) Pin(ctx context.Context, slackID, objectID string) (bool, error) {
	bound, err := pinScript.Run(ctx, s.rdb, []string{s.keys.pins("slack"), s.keys.pins("entra")}, slackID, objectID).Int()
	if err != nil {
		return false, fmt.Errorf("approvals: pinning %s: %w", slackID, err)
	}
	return bound == 1, nil
}

// Pinned returns the Slack account that is pinned to an Entra account, or
// nothing.
func (s *Store) Pinned(ctx context.Context, objectID string) (string, error) {
	slackID, err := s.rdb.HGet(ctx, s.keys.pins("entra"), objectID).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return "", fmt.Errorf("approvals: looking for the Slack account of %s: %w", objectID, err)
	}
	return slackID, nil
}

// Card is a message that shows a request in Slack. Cards have a key of their
// own, so that showing a request never disturbs deciding it.
type Card struct {
	Channel string `json:"channel"`
	TS      string `json:"ts"`
}

// SetCard stores one message about a request under a name such as "approvers" or
// "requester".
func (s *Store) SetCard(ctx context.Context, request, name string, c Card) error {
	raw, err := json.Marshal(c)
	if err != nil {
		return err
	}
	pipe := s.rdb.TxPipeline()
	pipe.HSet(ctx, s.keys.cards(request), name, raw)
	pipe.PExpire(ctx, s.keys.cards(request), requestRetention)
	_, err = pipe.Exec(ctx)
	return err
}

// Cards lists the messages about a request by name.
func (s *Store) Cards(ctx context.Context, request string) (map[string]Card, error) {
	raw, err := s.rdb.HGetAll(ctx, s.keys.cards(request)).Result()
	if err != nil {
		return nil, err
	}
	cards := map[string]Card{}
	for name, text := range raw {
		var c Card
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			return nil, fmt.Errorf("approvals: card %s of %s: %w", name, request, err)
		}
		cards[name] = c
	}
	return cards, nil
}

// refusedAnswer is the stored form of a refusal. It is sealed, because its
// sentence names people.
func (s *Store) refusedAnswer(op string, no *Refusal) string {
	plain, err := json.Marshal(no)
	if err != nil { // three strings always marshal
		panic(err)
	}
	return s.ring.Seal("answer", op, plain)
}

// replayAnswer turns a stored answer into what the first delivery got.
func (s *Store) replayAnswer(op, answer string) error {
	if answer == "ok" || answer == "requested" || answer == revealed {
		return nil
	}
	plain, err := s.ring.Open("answer", op, answer)
	if err != nil {
		return fmt.Errorf("the answer to %s: %w", op, err)
	}
	no := &Refusal{}
	if err := json.Unmarshal(plain, no); err != nil {
		return err
	}
	return no
}

func formatInt(n int64) string { return strconv.FormatInt(n, 10) }

func formatMillis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

func unixMillis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func parseInstant(text string) time.Time {
	n := parseInt(text)
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(n).UTC()
}

func parseInt(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}
