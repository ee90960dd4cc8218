package approvals

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign/internal/files"
)

// What a process knows of Redis' confirmations ends with the process. A witness
// file outlives it: whoever is started next compares what this Redis holds with
// what the file says it held, and finds a copy of yesterday that was put back
// while no Countersign ran.
//
// The file is written once a second where there is something new, and when a
// process stops in order. Of the last second or so before all processes were
// killed it may know nothing. It holds request ids and object ids, and nothing
// else about anybody.

// witnessEvery is the pause between two writes of the file.
const witnessEvery = time.Second

// witnessed is how many processes a file remembers. Whoever is started takes
// over from those before it as soon as it has looked at Redis.
const witnessed = 64

// Witness is the file, as one process keeps it. Several processes of one host
// may share a file.
type Witness struct {
	store   *Store
	path    string
	replace func(name string, data []byte) error
	has     testified // what the file has of this process
}

// testimony is what the file holds.
type testimony struct {
	// Tag tells the data of several Countersigns in one Redis apart.
	Tag string `json:"tag"`
	// Processes says, by process, up to which sequence number Redis was seen to
	// hold what that process wrote.
	Processes map[string]int64 `json:"processes"`
	Event     string           `json:"event,omitempty"` // the latest one that was read
	Commits   []deposition     `json:"commits,omitempty"`
}

// deposition is a commit and the process that made it.
type deposition struct {
	Process string `json:"process"`
	Commit
}

// OpenWitness reads the file, begins it where there is none, and compares it
// with this Redis. Where Redis has lost something, that is written for all
// processes to see, and nothing is executed until a person has said go on:
// Losses tells what it is. An error means that the file is of no use as it is,
// or that Redis could not be asked.
func (s *Store) OpenWitness(ctx context.Context, path string) (*Witness, error) {
	return s.openWitness(ctx, path, files.Replace)
}

func (s *Store) openWitness(ctx context.Context, path string, replace func(name string, data []byte) error) (*Witness, error) {
	w := &Witness{store: s, path: path, replace: replace, has: testified{known: -1}} // so that it is written, and known to be writable
	told, err := w.read()
	if err == nil {
		err = s.compare(ctx, told)
	}
	if err == nil {
		err = w.write(ctx)
	}
	return w, err
}

// heldScript tells what Redis holds by process. KEYS 1 sequence  2 processes;
// ARGV the processes. It answers the sequence, how many processes there are,
// the least that it holds for any, and what it holds for each.
var heldScript = redis.NewScript(`
local least = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
local answer = { redis.call('GET', KEYS[1]) or '0', tostring(redis.call('ZCARD', KEYS[2])), least[2] or '0' }
for n = 1, #ARGV do answer[3 + n] = redis.call('ZSCORE', KEYS[2], ARGV[n]) or '' end
return answer`)

// compare asks Redis for what the file says that it held.
func (s *Store) compare(ctx context.Context, told testimony) error {
	names := slices.Sorted(maps.Keys(told.Processes))
	var args []any
	for _, name := range names {
		args = append(args, name)
	}
	got, err := heldScript.Run(ctx, s.rdb, []string{s.keys.sequence(), s.keys.processes()}, args...).StringSlice()
	if err != nil {
		return fmt.Errorf("approvals: Redis could not be compared with the witness file: %w", err)
	}
	if len(got) != 3+len(names) {
		return fmt.Errorf("approvals: comparing Redis with the witness file answered %d values", len(got))
	}
	sequence, processes, least := number(got[0]), number(got[1]), number(got[2])
	for n, name := range names {
		known, kept := told.Processes[name], number(got[3+n])
		if kept >= known || got[3+n] == "" && processes >= tracked && least > known {
			continue // also where Redis has heard of so many others since that it forgot this one
		}
		lost := Lost{At: time.Now().UTC(), Process: name, Known: known, Kept: kept, Sequence: sequence, Event: told.Event}
		for _, d := range told.Commits {
			if d.Process == name && d.Sequence > kept {
				lost.Commits = append(lost.Commits, d.Commit)
			}
		}
		order(lost.Commits)
		if _, err := s.writeLost(ctx, lost, true); err != nil {
			return err
		}
	}
	return nil
}

// read is what the file holds, and nothing where there is none yet.
func (w *Witness) read() (testimony, error) {
	t := testimony{Tag: w.store.keys.tag, Processes: map[string]int64{}}
	raw, err := os.ReadFile(w.path)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err == nil {
		t.Processes = nil
		err = json.Unmarshal(raw, &t)
	}
	switch {
	case err != nil:
	case t.Processes == nil:
		err = errors.New("it names no processes")
	case t.Tag != w.store.keys.tag:
		err = fmt.Errorf("it is about the Countersign %q, and this one is %q: give each a file of its own", t.Tag, w.store.keys.tag)
	}
	if err != nil {
		return t, fmt.Errorf("the witness file %s is of no use: %w. Find out what became of it; moved out of the way it is begun anew, and then nobody can tell whether this Redis was restored while no Countersign ran", w.path, err)
	}
	return t, nil
}

// testified is how far the file is with this process.
type testified struct {
	known   int64
	event   string
	commits int
}

// testify is what this process has to say.
func (m *memory) testify() (testified, []deposition) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []deposition
	for _, l := range m.chain {
		if l.commit.What != "" {
			list = append(list, deposition{m.me, l.commit})
		}
	}
	return testified{m.known, m.event, m.commits}, list
}

// write brings the file up to date.
func (w *Witness) write(ctx context.Context) (err error) {
	now, commits := w.store.memory.testify()
	if now == w.has {
		return nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("the witness file %s is not written: %w", w.path, err)
		}
	}()
	lock, err := w.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	t, err := w.read() // with what other processes have written since
	if err != nil {
		return err
	}
	me := w.store.memory.me
	t.Processes[me] = max(t.Processes[me], now.known)
	names := slices.SortedFunc(maps.Keys(t.Processes), func(a, b string) int { return cmp.Compare(t.Processes[b], t.Processes[a]) })
	for _, name := range names[min(len(names), witnessed):] {
		delete(t.Processes, name)
	}
	if eventAfter(now.event, t.Event) {
		t.Event = now.event
	}
	t.Commits = append(slices.DeleteFunc(t.Commits, func(d deposition) bool { return d.Process == me }), commits...)
	slices.SortStableFunc(t.Commits, func(a, b deposition) int { return cmp.Compare(a.Sequence, b.Sequence) })
	t.Commits = t.Commits[max(0, len(t.Commits)-remembered):]
	raw, err := json.Marshal(t)
	if err != nil {
		return err
	}
	if err := w.replace(w.path, append(raw, '\n')); err != nil {
		return err
	}
	w.has = now
	return nil
}

// lock waits for the other processes of this host. Nobody holds it for longer
// than a write takes.
func (w *Witness) lock(ctx context.Context) (*os.File, error) {
	for {
		lock, ok, err := files.Lock(w.path + ".lock")
		if ok || err != nil {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("another process holds it: %w", ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Keep writes the file until ctx ends, and then once more. A file that cannot
// be written stops nothing: it is said, and tried again.
func (w *Witness) Keep(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(witnessEvery)
	defer tick.Stop()
	failing := false
	for last := false; !last; {
		select {
		case <-ctx.Done():
			last = true
		case <-tick.C:
		}
		writing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		err := w.write(writing)
		cancel()
		if err != nil && !failing {
			log.Error("what this Redis confirms is not witnessed; trying again", "error", err)
		}
		failing = err != nil
	}
}
