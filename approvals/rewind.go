package approvals

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign/audit"
)

// A Redis that was restored from a copy, or failed over to a replica that was
// behind, has lost writes that it had confirmed: it has gone back in time. What
// it then holds may have happened otherwise, so nobody decides or executes
// anything on it until a person has looked.
//
// It is noticed before the next write. Redis keeps, by process, the sequence
// number of that process' last commit, and each process tells with every commit
// which of its own was confirmed last: a Redis that holds less than that for
// it, however far others have carried the sequence since, has lost something.
// Then the process writes what it knows to be lost into a key that every commit
// looks for, so that all others stop too, and so does whoever is started later.
// Resume removes it.
//
// Only commit.lua compares. What is written beside requests needs no check of
// its own: the inbox only ever gets more, a secret belongs to a step whose
// begin and whose claim are compared, and a pin or a cursor that went back is
// what this Redis holds, with or without a check.

// remembered is how many of its own commits a process can name.
const remembered = 1000

// tracked is of how many processes Redis keeps what they wrote last; commit.lua
// and lookScript drop whom it has not heard of for longest. A process that is
// alive is heard of whenever anything is committed.
const tracked = 1000

// Commit is one confirmed write, in words that name nobody but by object id.
type Commit struct {
	Sequence int64  `json:"sequence"`
	Request  string `json:"request,omitempty"`
	What     string `json:"what"`
	// Executed says that it records execution: without it a step that was
	// carried out may be carried out again.
	Executed bool `json:"executed,omitempty"`
}

// Lost is what one process knows to be missing from a Redis that has gone back
// in time.
type Lost struct {
	At      time.Time `json:"at"` // its own clock
	Process string    `json:"process"`
	Host    string    `json:"host"` // of whoever noticed
	// Known is the last commit that was confirmed to the process, or was seen by
	// it; Kept is its last one that Redis still has, and Sequence was Redis'
	// number at that time.
	Known    int64 `json:"known"`
	Kept     int64 `json:"kept"`
	Sequence int64 `json:"sequence"`
	// Event is the id of the latest event that the process has read: a later one
	// must not get a lower id, or whoever keeps a record would take it for one
	// that it has already.
	Event string `json:"event,omitempty"`
	// Commits are those that this Redis confirmed and has no more, as far as the
	// process still remembers them: execution first, then the latest first.
	Commits []Commit `json:"commits,omitempty"`

	sealed string // as it was read
}

// String is the commit as a line of a list.
func (c Commit) String() string {
	text := c.What
	if c.Request != "" {
		text = c.Request + ": " + text
	}
	return fmt.Sprintf("%s (commit %d)", text, c.Sequence)
}

// Says is what is lost, in a sentence.
func Says(list []Lost) string {
	commits, known, kept := 0, int64(0), int64(math.MaxInt64)
	for _, lost := range list {
		commits += len(lost.Commits)
		known, kept = max(known, lost.Known), min(kept, lost.Kept, lost.Sequence)
	}
	what := fmt.Sprintf("%d writes that it had confirmed are known to be lost", commits)
	switch commits {
	case 0:
		what = "Writes that it had confirmed are lost, and it is not known which"
	case 1:
		what = "One write that it had confirmed is known to be lost"
	}
	return fmt.Sprintf("%s, between commit %d and commit %d.", what, kept, known)
}

// memory is what one process knows of the commits that Redis has confirmed.
type memory struct {
	me string // as Redis knows the process; another one each time it starts

	mu      sync.Mutex
	seen    int64   // the highest sequence number that any answer had
	known   int64   // the highest that Redis was seen to hold for this process
	chain   []link  // what Redis held for it from when to when
	commits int     // how many there have been
	event   string  // the latest event that it read
	back    *behind // what this process noticed, until a person has said go on
	stopped bool    // at the last look this Redis had gone back in time
	life    int     // how often somebody said go on

	telling sync.Mutex // what is written for others to see never gets less
}

// link says that Redis replaced what it held for this process by a later
// number, or was seen to hold it where the two are equal. Links of one history
// never overlap, because each begins where an earlier one ended.
type link struct {
	from, to int64
	commit   Commit // without words where it was no commit of this process
}

// behind is a Redis that has gone back, as this process noticed it.
type behind struct {
	Lost
	written bool
	resumed int64 // how often Redis had been resumed when it was written
}

// sent is what a process knew when it sent something. Replies may overtake one
// another, so a reply is judged by that and not by what is known since.
type sent struct {
	known, seen int64
	life        int
}

// telling is an argument that is made anew whenever the client sends, also when
// it sends again: what is sent again may arrive at a Redis that has gone back,
// and what was confirmed in the meantime must go with it.
type telling struct {
	memory *memory
	commit bool
	sent   sent
}

// MarshalBinary is what go-redis asks for as it writes.
func (t *telling) MarshalBinary() ([]byte, error) {
	m := t.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	t.sent = sent{m.known, m.seen, m.life}
	known := m.known
	if t.commit && m.back != nil {
		known = math.MaxInt64 // this process has stopped: Redis is to refuse, whatever it holds
	}
	return fmt.Appendf(nil, "%d %d", known, m.seen), nil
}

// learn adds what an answer told that Redis gave in good faith. False means that
// it cannot be of the history that this process knows, as that of a commit that
// was under way while Redis went back; or that this process has stopped.
func (m *memory) learn(l link, sequence int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := l.from
	sound := true
	for _, old := range m.chain {
		if l.from == l.to && old.commit.What == "" {
			continue // looks were put together, and this answer may be from between two of them
		}
		if l.from < old.to && old.from < l.to {
			sound, kept = false, min(kept, old.from)
		}
	}
	m.seen, m.known = max(m.seen, sequence), max(m.known, l.to)
	if l.commit.What != "" {
		m.commits++
	}
	last := len(m.chain) - 1
	switch {
	case last >= 0 && l.commit.What == "" && l.from == l.to && l.to <= m.chain[last].to: // nothing new
	case last >= 0 && l.commit.What == "" && m.chain[last].commit.What == "" && l.from == m.chain[last].to:
		m.chain[last].to = l.to // looks must not crowd commits out
	default:
		m.chain = append(m.chain, l)
		if extra := len(m.chain) - 2*remembered; extra > 0 {
			m.chain = slices.Delete(m.chain, 0, extra)
		}
	}
	switch {
	case !sound:
		m.goneBack(kept, sequence)
	case m.back != nil && l.commit.Sequence > m.back.Kept:
		m.back.written = false // one more to be named
	}
	return m.back == nil
}

// refused takes note that Redis, or another process, says that it has gone
// back. What this process knows itself it has to tell the others.
func (m *memory) refused(asked sent, kept, sequence int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopped = true
	if asked.life == m.life && (kept < asked.known || sequence < asked.seen) {
		m.goneBack(kept, sequence)
	}
}

// goneBack needs mu.
func (m *memory) goneBack(kept, sequence int64) {
	m.stopped = true
	switch {
	case m.back == nil:
		m.back = &behind{
			Lost:    Lost{At: time.Now().UTC(), Process: m.me, Known: max(m.known, m.seen), Kept: kept, Sequence: sequence},
			resumed: math.MaxInt64,
		}
	case kept < m.back.Kept:
		m.back.Kept, m.back.written = kept, false
	}
}

// unwritten is what the others have not been told yet.
func (m *memory) unwritten() (Lost, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.back == nil || m.back.written {
		return Lost{}, false
	}
	m.back.written = true // until it turns out not to be
	lost := m.back.Lost
	lost.Known, lost.Event = max(lost.Known, m.known, m.seen), m.event
	for _, l := range m.chain {
		if l.commit.Sequence > lost.Kept {
			lost.Commits = append(lost.Commits, l.commit)
		}
	}
	order(lost.Commits)
	return lost, true
}

// order puts the dangerous ones first.
func order(list []Commit) {
	slices.SortStableFunc(list, func(a, b Commit) int {
		switch {
		case a.Executed && !b.Executed:
			return -1
		case b.Executed && !a.Executed:
			return 1
		}
		return cmp.Compare(b.Sequence, a.Sequence)
	})
}

// named is what a write did, in words.
func named(w write, sequence int64) Commit {
	c := Commit{Sequence: sequence, Request: w.request.ID, What: "written"}
	if len(w.events) > 0 {
		e := w.events[0]
		c.What = string(e.Kind)
		if e.Kind == audit.Refused {
			c.What = strings.TrimSpace("refused to " + cmp.Or(e.Outcome, "go on"))
		}
		if e.Actor.ID != "" {
			c.What += ", by account " + e.Actor.ID
		}
	}
	verb, rest, _ := strings.Cut(w.op, ":")
	if verb == "run" {
		_, rest, _ = strings.Cut(rest, ":")
		verb, rest, _ = strings.Cut(rest, ":")
	}
	step := number(rest) + 1
	switch verb {
	case "claim":
		c.What, c.Executed = "its execution was started", true
	case "begin":
		c.What, c.Executed = fmt.Sprintf("step %d was begun", step), true
	case "end":
		c.What, c.Executed = fmt.Sprintf("step %d ended", step), true
		if len(w.events) > 0 && len(w.events[0].Steps) > 0 {
			c.What += " as " + w.events[0].Steps[0].State
		}
	case "hand-off":
		c.What, c.Executed = fmt.Sprintf("step %d was handed to people", step), true
	case "wait":
		c.What, c.Executed = "it waits for Microsoft Graph", true
	case "give-back":
		c.What, c.Executed = "it was given back, to be carried on", true
	case "finish":
		c.What, c.Executed = "it ended as "+string(w.request.Outcome), true
	}
	return c
}

// confirmed takes note of what Redis answered to a commit, and says whether it
// counts.
func (s *Store) confirmed(ctx context.Context, w write, asked sent, r reply) error {
	l := link{from: r.kept, to: r.kept}
	switch r.status {
	case "rewound":
		s.memory.refused(asked, r.kept, r.sequence)
		s.tellOthers(ctx)
		return ErrRewound
	case "ok":
		l.to, l.commit = r.sequence, named(w, r.sequence)
	case "again": // at the latest at this number
		l.commit = named(w, r.sequence)
	}
	if s.memory.learn(l, r.sequence) {
		return nil
	}
	s.tellOthers(ctx)
	return ErrRewound
}

// lookScript compares as commit.lua does, and has Redis remember how far this
// process has seen it come, so that it can tell later whatever others wrote.
//
// KEYS 1 sequence  2 processes  3 lost  4 resumed; ARGV the process, and what
// it knows to be confirmed
var lookScript = redis.NewScript(`
local sequence = tonumber(redis.call('GET', KEYS[1]) or '0')
local kept = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1]) or '0')
local known, seen = string.match(ARGV[2], '^(%d+) (%d+)$')
local status = 'ok'
if redis.call('EXISTS', KEYS[3]) == 1 or kept < tonumber(known) or sequence < tonumber(seen) then
  status = 'rewound'
elseif sequence > kept then
  redis.call('ZADD', KEYS[2], string.format('%d', sequence), ARGV[1])
  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1001)
end
return { status, string.format('%d', sequence), string.format('%d', kept), redis.call('GET', KEYS[4]) or '0', tostring(redis.call('HEXISTS', KEYS[3], ARGV[1])) }`)

// look finds out, without a commit, whether this Redis has gone back, and
// whether somebody has said go on since it had. Every process does it with
// every sweep.
func (s *Store) look(ctx context.Context) error {
	m := &s.memory
	told := &telling{memory: m}
	got, err := lookScript.Run(ctx, s.rdb, []string{s.keys.sequence(), s.keys.processes(), s.keys.lost(), s.keys.resumed()}, m.me, told).StringSlice()
	if err != nil {
		return fmt.Errorf("approvals: Redis does not say what it has confirmed: %w", err)
	}
	if len(got) != 5 {
		return fmt.Errorf("approvals: looking at what Redis has confirmed answered %d values", len(got))
	}
	sequence, kept := number(got[1]), number(got[2])
	m.goOn(number(got[3]), got[4] == "1")
	if got[0] == "ok" {
		m.learn(link{from: kept, to: max(kept, sequence)}, sequence)
	} else {
		m.refused(told.sent, kept, sequence)
	}
	m.mu.Lock()
	m.stopped = got[0] != "ok" || m.back != nil
	stopped := m.stopped
	m.mu.Unlock()
	if !stopped {
		return nil
	}
	s.tellOthers(ctx)
	return ErrRewound
}

// goOn forgets what this process noticed, where a person has said go on: what
// it wrote is gone, and Redis has been resumed since. Where it is gone without
// that, this Redis went back once more, and it is written again.
func (m *memory) goOn(resumed int64, there bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.back == nil || !m.back.written || there:
	case resumed > m.back.resumed:
		m.back, m.life = nil, m.life+1
	default:
		m.back.written = false
	}
}

// heard takes note of how far this process has read the events.
func (m *memory) heard(event string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if eventAfter(event, m.event) {
		m.event = event
	}
}

// life is how often this process has gone on after it had lost something.
func (s *Store) life() int {
	s.memory.mu.Lock()
	defer s.memory.mu.Unlock()
	return s.memory.life
}

// Process is what Redis, and the records of what it lost, call this process.
func (s *Store) Process() string { return s.memory.me }

// Look finds out at once what Rewound says: ErrRewound where it has.
func (s *Store) Look(ctx context.Context) error { return s.look(ctx) }

// Rewound says that this Redis had gone back in time when this process last
// asked: nothing is decided or executed.
func (s *Store) Rewound() bool {
	s.memory.mu.Lock()
	defer s.memory.mu.Unlock()
	return s.memory.stopped
}

// lostScript tells all processes that this Redis has gone back, and answers
// how often it had been resumed by then. KEYS 1 lost  2 resumed; ARGV the
// process, its record, and 1 where an earlier record stays
var lostScript = redis.NewScript(`
if ARGV[3] ~= '1' or redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
return tonumber(redis.call('GET', KEYS[2]) or '0')`)

// tellOthers writes what this process noticed where all look. Where that fails,
// the next look tries again; this process has stopped in any case.
func (s *Store) tellOthers(ctx context.Context) {
	s.memory.telling.Lock()
	defer s.memory.telling.Unlock()
	lost, ok := s.memory.unwritten()
	if !ok {
		return
	}
	resumed, err := s.writeLost(ctx, lost, false)
	s.memory.mu.Lock()
	defer s.memory.mu.Unlock()
	if err != nil {
		s.memory.back.written = false
		return
	}
	s.memory.back.resumed = resumed
}

// writeLost answers how often this Redis had been resumed when it was written.
// With once, what that process has said itself stays.
func (s *Store) writeLost(ctx context.Context, lost Lost, once bool) (resumed int64, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if lost.Host, err = os.Hostname(); err != nil {
		lost.Host = "a host without a name"
	}
	plain, err := json.Marshal(lost)
	if err != nil {
		return 0, err
	}
	resumed, err = lostScript.Run(ctx, s.rdb, []string{s.keys.lost(), s.keys.resumed()}, lost.Process, s.ring.Seal("lost", lost.Process, plain), once).Int64()
	if err != nil {
		return 0, fmt.Errorf("approvals: what this Redis has lost was not written down: %w", err)
	}
	return resumed, nil
}

// Losses is what processes have written about this Redis having gone back. It
// is empty where it has not, as far as is known.
func (s *Store) Losses(ctx context.Context) ([]Lost, error) {
	_, hashes, err := readAt(ctx, s.rdb, s.keys, s.keys.lost())
	if err != nil {
		return nil, fmt.Errorf("approvals: reading what this Redis has lost: %w", err)
	}
	var all []Lost
	for process, sealed := range hashes[0] {
		plain, err := s.ring.Open("lost", process, sealed)
		if err != nil {
			return nil, fmt.Errorf("what process %s says that this Redis has lost: %w", process, err)
		}
		lost := Lost{sealed: sealed}
		if err := json.Unmarshal(plain, &lost); err != nil {
			return nil, fmt.Errorf("approvals: what process %s says that this Redis has lost: %w", process, err)
		}
		all = append(all, lost)
	}
	slices.SortFunc(all, func(a, b Lost) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Process, b.Process)) })
	return all, nil
}

// ErrLostMore says that more was found to be lost since somebody read what is.
var ErrLostMore = errors.New("approvals: what is known to be lost has changed since it was shown: look at it again")

// resumeScript says go on after exactly those losses that a person has seen.
// The sequence becomes higher than anything a process knows, also for those
// whose losses these are, and the event gets an id that is higher than what
// anybody has read, whatever this server's clock says.
//
// KEYS 1 sequence  2 processes  3 lost  4 resumed  5 events
// ARGV what the sequence was at most, the instant and the number of the event
// that was read last, the event's operation and body, and by process its record
var resumeScript = redis.NewScript(`
if redis.call('HLEN', KEYS[3]) ~= (#ARGV - 5) / 2 then return 0 end
for n = 6, #ARGV, 2 do
  if redis.call('HGET', KEYS[3], ARGV[n]) ~= ARGV[n + 1] then return 0 end
end
local clock = redis.call('TIME')
local id = '*'
if tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000) <= tonumber(ARGV[2]) then
  id = ARGV[2] .. '-' .. string.format('%d', tonumber(ARGV[3]) + 1)
end
local added = redis.pcall('XADD', KEYS[5], id, 'request', '', 'op', ARGV[4] .. '#1', 'body', ARGV[5])
if type(added) == 'table' and added.err then -- the stream itself is further than that
  redis.call('XADD', KEYS[5], '*', 'request', '', 'op', ARGV[4] .. '#1', 'body', ARGV[5])
end
local sequence = string.format('%d', math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), tonumber(ARGV[1])) + 1)
redis.call('SET', KEYS[1], sequence)
for n = 6, #ARGV, 2 do redis.call('ZADD', KEYS[2], sequence, ARGV[n]) end
redis.call('DEL', KEYS[3])
redis.call('INCR', KEYS[4])
return 1`)

// Resume has all processes go on after the losses that a person has seen, and
// puts that on the record. Their next look notices it, and none has to be
// started again. A process that comes back with losses of its own which nobody
// has seen stops everything again. ErrLostMore means that nothing was changed.
func (s *Store) Resume(ctx context.Context, seen []Lost, by string) error {
	if len(seen) == 0 {
		return errors.New("approvals: nothing is known to be lost, so there is nothing to go on from")
	}
	var known int64
	var event string
	var records []any
	for _, lost := range seen {
		known = max(known, lost.Known)
		if eventAfter(lost.Event, event) {
			event = lost.Event
		}
		records = append(records, lost.Process, lost.sealed)
	}
	op := fmt.Sprintf("resume:%d:%s", known, seen[0].At.Format(time.RFC3339Nano))
	body, err := json.Marshal(audit.Event{Kind: audit.Alarm, Op: op, Reason: fmt.Sprintf(
		"Redis had gone back in time. %s %s said that Countersign goes on. This log may know events that Redis does not know any more: it is right, and Redis is not", Says(seen), by)})
	if err != nil {
		return err
	}
	keys := []string{s.keys.sequence(), s.keys.processes(), s.keys.lost(), s.keys.resumed(), s.keys.events()}
	at, nth, _ := strings.Cut(event, "-")
	args := append([]any{known, number(at), number(nth), op, s.ring.Seal("event", eventPlace("", op+"#1"), body)}, records...)
	done, err := resumeScript.Run(ctx, s.rdb, keys, args...).Int()
	switch {
	case err != nil:
		return fmt.Errorf("approvals: it is not confirmed that Countersign goes on; look again: %w", err)
	case done == 0:
		return ErrLostMore
	}
	return nil
}

// eventAfter says whether one event's id is higher than another's.
func eventAfter(a, b string) bool {
	at, nth, _ := strings.Cut(a, "-")
	bt, mth, _ := strings.Cut(b, "-")
	return cmp.Or(cmp.Compare(number(at), number(bt)), cmp.Compare(number(nth), number(mth))) > 0
}
