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

// A Redis that was restored from a backup, or that failed over to a replica that
// lagged behind, has lost writes that it had confirmed. Its data may contradict
// what has happened, so nobody decides or executes anything until a person has
// looked at the losses.
//
// The loss is detected before the next write. Redis stores the sequence number of
// each process' last commit, and each process sends with every commit which of its
// commits was confirmed last. A Redis that holds less than that has lost
// something, however far other processes have raised the sequence since. The
// process then reports what it knows to be lost in a key that every commit checks,
// so that all other processes stop, too, as does one that is started later. Resume
// removes the key.
//
// Only commit.lua compares. What is written beside requests needs no check of its
// own: the inbox only grows, a secret belongs to a step whose start and claim are
// compared, and a pin or a cursor that was rolled back is what this Redis holds,
// with or without a check.

// maxKnownCommits is how many of its own commits a process can name.
const maxKnownCommits = 1000

// maxProcesses is of how many processes Redis keeps what they wrote last; commit.lua
// and checkRollbackScript drop whom it has not heard of for longest. A process that is
// alive is heard of whenever anything is committed.
const maxProcesses = 1000

// Commit is one confirmed write. Its description names people by object id only.
type Commit struct {
	Sequence int64  `json:"sequence"`
	Request  string `json:"request,omitempty"`
	What     string `json:"what"`
	// Executed says that it records execution: without it a step that was
	// executed may be executed again.
	Executed bool `json:"executed,omitempty"`
}

// LostWrites is what one process knows to be missing in a Redis that has lost
// confirmed writes.
type LostWrites struct {
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

// String formats the commit as a line of a list.
func (c Commit) String() string {
	text := c.What
	if c.Request != "" {
		text = c.Request + ": " + text
	}
	return fmt.Sprintf("%s (commit %d)", text, c.Sequence)
}

// SummarizeLostWrites says in a sentence what was lost.
func SummarizeLostWrites(list []LostWrites) string {
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

// rollbackDetector knows the commits that Redis has confirmed to this process.
type rollbackDetector struct {
	process string // as Redis knows the process; another one each time it starts

	mu      sync.Mutex
	seen    int64       // the highest sequence number that any answer had
	known   int64       // the highest that Redis was seen to hold for this process
	chain   []knownLink // what Redis held for it from when to when
	commits int         // how many there have been
	event   string      // the latest event that it read
	back    *lostState  // what this process noticed, until a person has resumed it
	halted  bool        // at the last look this Redis had lost confirmed writes
	life    int         // how often somebody resumed it

	reporting sync.Mutex // what is written for others to see never gets less
}

// knownLink records that Redis replaced a number of this process by a later one,
// or was seen to hold it if both are equal. Links of one history never overlap,
// because each begins where an earlier one ended.
type knownLink struct {
	from, to int64
	commit   Commit // without words where it was no commit of this process
}

// lostState describes a rollback of Redis that this process has detected.
type lostState struct {
	LostWrites
	written bool
	resumed int64 // how often Redis had been resumed when it was written
}

// requestMeta is what a process knew when it sent a command. Replies may
// overtake each other, so a reply is compared with this and not with what the
// process has learned since.
type requestMeta struct {
	known, seen int64
	life        int
}

// writeReport is an argument that is computed each time the client sends the
// command, repetitions included: a repetition may arrive at a Redis that was
// rolled back, and must include what was confirmed in the meantime.
type writeReport struct {
	memory *rollbackDetector
	commit bool
	sent   requestMeta
}

// MarshalBinary is called by go-redis when it writes the command.
func (t *writeReport) MarshalBinary() ([]byte, error) {
	m := t.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	t.sent = requestMeta{m.known, m.seen, m.life}
	known := m.known
	if t.commit && m.back != nil {
		known = math.MaxInt64 // this process has stopped: Redis is to refuse, whatever it holds
	}
	return fmt.Appendf(nil, "%d %d", known, m.seen), nil
}

// recordCommit records a confirmed commit. It returns false if the commit cannot
// belong to the history that this process knows, because it was in flight during
// a rollback, or if this process has stopped.
func (m *rollbackDetector) recordCommit(l knownLink, sequence int64) bool {
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
		if extra := len(m.chain) - 2*maxKnownCommits; extra > 0 {
			m.chain = slices.Delete(m.chain, 0, extra)
		}
	}
	switch {
	case !sound:
		m.recordRollback(kept, sequence)
	case m.back != nil && l.commit.Sequence > m.back.Kept:
		m.back.written = false // one more to be named
	}
	return m.back == nil
}

// recordRejectedCommit records that Redis, or another process, has reported a
// rollback. This process must report its own losses, too.
func (m *rollbackDetector) recordRejectedCommit(asked requestMeta, kept, sequence int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.halted = true
	if asked.life == m.life && (kept < asked.known || sequence < asked.seen) {
		m.recordRollback(kept, sequence)
	}
}

// recordRollback needs mu.
func (m *rollbackDetector) recordRollback(kept, sequence int64) {
	m.halted = true
	switch {
	case m.back == nil:
		m.back = &lostState{
			LostWrites: LostWrites{At: time.Now().UTC(), Process: m.process, Known: max(m.known, m.seen), Kept: kept, Sequence: sequence},
			resumed:    math.MaxInt64,
		}
	case kept < m.back.Kept:
		m.back.Kept, m.back.written = kept, false
	}
}

// unreportedLoss returns the losses that this process has not reported yet.
func (m *rollbackDetector) unreportedLoss() (LostWrites, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.back == nil || m.back.written {
		return LostWrites{}, false
	}
	m.back.written = true // until it turns out not to be
	lost := m.back.LostWrites
	lost.Known, lost.Event = max(lost.Known, m.known, m.seen), m.event
	for _, l := range m.chain {
		if l.commit.Sequence > lost.Kept {
			lost.Commits = append(lost.Commits, l.commit)
		}
	}
	sortCommits(lost.Commits)
	return lost, true
}

// sortCommits puts the dangerous commits first.
func sortCommits(list []Commit) {
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

// describeCommit says what a write did.
func describeCommit(w write, sequence int64) Commit {
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
	step := parseInt(rest) + 1
	switch verb {
	case "claim":
		c.What, c.Executed = "its execution was started", true
	case "begin":
		c.What, c.Executed = fmt.Sprintf("step %d was started", step), true
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
		c.What, c.Executed = "it was released, to be resumed", true
	case "finish":
		c.What, c.Executed = "it ended as "+string(w.request.Outcome), true
	}
	return c
}

// verifyReply processes the reply to a commit, and reports an error if the
// commit does not count.
func (s *Store) verifyReply(ctx context.Context, w write, asked requestMeta, r reply) error {
	l := knownLink{from: r.kept, to: r.kept}
	switch r.status {
	case "rewound":
		s.rollback.recordRejectedCommit(asked, r.kept, r.sequence)
		s.reportLostWrites(ctx)
		return ErrLostWrites
	case "ok":
		l.to, l.commit = r.sequence, describeCommit(w, r.sequence)
	case "again": // at the latest at this number
		l.commit = describeCommit(w, r.sequence)
	}
	if s.rollback.recordCommit(l, r.sequence) {
		return nil
	}
	s.reportLostWrites(ctx)
	return ErrLostWrites
}

// checkRollbackScript compares as commit.lua does, and has Redis remember how far this
// process has seen it come, so that it can tell later whatever others wrote.
//
// KEYS 1 sequence  2 processes  3 lost  4 resumed; ARGV the process, and what
// it knows to be confirmed
var checkRollbackScript = redis.NewScript(`
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

// checkRollback finds out, without a commit, whether Redis was rolled back and
// whether somebody has resumed it since. Every process calls it with every
// sweep.
func (s *Store) checkRollback(ctx context.Context) error {
	m := &s.rollback
	told := &writeReport{memory: m}
	got, err := checkRollbackScript.Run(ctx, s.rdb, []string{s.keys.sequence(), s.keys.processes(), s.keys.lost(), s.keys.resumed()}, m.process, told).StringSlice()
	if err != nil {
		return fmt.Errorf("approvals: Redis does not say what it has confirmed: %w", err)
	}
	if len(got) != 5 {
		return fmt.Errorf("approvals: looking at what Redis has confirmed answered %d values", len(got))
	}
	sequence, kept := parseInt(got[1]), parseInt(got[2])
	m.onResume(parseInt(got[3]), got[4] == "1")
	if got[0] == "ok" {
		m.recordCommit(knownLink{from: kept, to: max(kept, sequence)}, sequence)
	} else {
		m.recordRejectedCommit(told.sent, kept, sequence)
	}
	m.mu.Lock()
	m.halted = got[0] != "ok" || m.back != nil
	stopped := m.halted
	m.mu.Unlock()
	if !stopped {
		return nil
	}
	s.reportLostWrites(ctx)
	return ErrLostWrites
}

// onResume forgets the rollback that this process detected, if its report is
// gone and Redis was resumed since. If the report is gone without that, Redis
// was rolled back again, and the report is written again.
func (m *rollbackDetector) onResume(resumed int64, there bool) {
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

// recordEvent records the latest event that this process has read.
func (m *rollbackDetector) recordEvent(event string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if eventAfter(event, m.event) {
		m.event = event
	}
}

// processEpoch counts how often this process has resumed after lost writes.
func (s *Store) processEpoch() int {
	s.rollback.mu.Lock()
	defer s.rollback.mu.Unlock()
	return s.rollback.life
}

// Process is the name of this process in Redis and in reports of lost writes.
func (s *Store) Process() string { return s.rollback.process }

// CheckRollback checks for a rollback now. It returns ErrLostWrites if Redis has
// lost confirmed writes.
func (s *Store) CheckRollback(ctx context.Context) error { return s.checkRollback(ctx) }

// HasLostWrites reports whether Redis had lost confirmed writes at the last
// check. Then nothing is decided or executed.
func (s *Store) HasLostWrites() bool {
	s.rollback.mu.Lock()
	defer s.rollback.mu.Unlock()
	return s.rollback.halted
}

// lostScript tells all processes that this Redis has gone back, and answers
// how often it had been resumed by then. KEYS 1 lost  2 resumed; ARGV the
// process, its record, and 1 where an earlier record stays
var lostScript = redis.NewScript(`
if ARGV[3] ~= '1' or redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
return tonumber(redis.call('GET', KEYS[2]) or '0')`)

// reportLostWrites reports what this process has detected to all others. If that
// fails, the next check tries again; this process has stopped in any case.
func (s *Store) reportLostWrites(ctx context.Context) {
	s.rollback.reporting.Lock()
	defer s.rollback.reporting.Unlock()
	lost, ok := s.rollback.unreportedLoss()
	if !ok {
		return
	}
	resumed, err := s.writeLost(ctx, lost, false)
	s.rollback.mu.Lock()
	defer s.rollback.mu.Unlock()
	if err != nil {
		s.rollback.back.written = false
		return
	}
	s.rollback.back.resumed = resumed
}

// writeLost writes a report and returns how often Redis had been resumed by
// then. With once it keeps an earlier report of the same process.
func (s *Store) writeLost(ctx context.Context, lost LostWrites, once bool) (resumed int64, err error) {
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

// LostWrites returns the reports of lost writes of all processes. It is empty if
// none are known.
func (s *Store) LostWrites(ctx context.Context) ([]LostWrites, error) {
	_, hashes, err := readAt(ctx, s.rdb, s.keys, s.keys.lost())
	if err != nil {
		return nil, fmt.Errorf("approvals: reading what this Redis has lost: %w", err)
	}
	var all []LostWrites
	for process, sealed := range hashes[0] {
		plain, err := s.ring.Open("lost", process, sealed)
		if err != nil {
			return nil, fmt.Errorf("what process %s says that this Redis has lost: %w", process, err)
		}
		lost := LostWrites{sealed: sealed}
		if err := json.Unmarshal(plain, &lost); err != nil {
			return nil, fmt.Errorf("approvals: what process %s says that this Redis has lost: %w", process, err)
		}
		all = append(all, lost)
	}
	slices.SortFunc(all, func(a, b LostWrites) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Process, b.Process)) })
	return all, nil
}

// ErrMoreLostWrites says that more was found to be lost since somebody read what is.
var ErrMoreLostWrites = errors.New("approvals: what is known to be lost has changed since it was shown: look at it again")

// resumeScript resumes it after exactly those losses that a person has seen.
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

// Resume resumes all processes after the losses that a person has seen, and
// records it as an event. Processes notice it at their next check and need no
// restart. If a process comes back with losses that nobody has seen, everything
// stops again. ErrMoreLostWrites means that nothing was changed.
func (s *Store) Resume(ctx context.Context, seen []LostWrites, by string) error {
	if len(seen) == 0 {
		return errors.New("approvals: no lost writes are known, so there is nothing to resume")
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
		"Redis had lost confirmed writes. %s %s resumed Countersign. This log may hold events that Redis has lost; the log is right", SummarizeLostWrites(seen), by)})
	if err != nil {
		return err
	}
	keys := []string{s.keys.sequence(), s.keys.processes(), s.keys.lost(), s.keys.resumed(), s.keys.events()}
	at, nth, _ := strings.Cut(event, "-")
	args := append([]any{known, parseInt(at), parseInt(nth), op, s.ring.Seal("event", eventContext("", op+"#1"), body)}, records...)
	done, err := resumeScript.Run(ctx, s.rdb, keys, args...).Int()
	switch {
	case err != nil:
		return fmt.Errorf("approvals: it is not confirmed that Countersign has resumed; check again: %w", err)
	case done == 0:
		return ErrMoreLostWrites
	}
	return nil
}

// eventAfter reports whether the first event id is higher than the second.
func eventAfter(a, b string) bool {
	at, nth, _ := strings.Cut(a, "-")
	bt, mth, _ := strings.Cut(b, "-")
	return cmp.Or(cmp.Compare(parseInt(at), parseInt(bt)), cmp.Compare(parseInt(nth), parseInt(mth))) > 0
}
