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

// What a process knows about confirmed writes is lost when the process ends. The
// watermark file outlives it: the next process compares Redis with the file, and
// detects a backup that was restored while no Countersign ran.
//
// The file is written once a second if something has changed, and when a process
// stops in order. It may lack the last second before all processes were killed. It
// holds request ids and object ids, and nothing else about anybody.

// watermarkInterval is the pause between two writes of the file.
const watermarkInterval = time.Second

// maxWatermarks is how many processes the file remembers. A new process takes
// over from earlier ones after its first check of Redis.
const maxWatermarks = 64

// Watermark is the watermark file as one process maintains it. Several processes
// on one host may share a file.
type Watermark struct {
	store   *Store
	path    string
	replace func(name string, data []byte) error
	written reportedWatermark // what the file has of this process
}

// watermarkFile is the content of the file.
type watermarkFile struct {
	// Tag tells the data of several Countersigns in one Redis apart.
	Tag string `json:"tag"`
	// Processes says, by process, up to which sequence number Redis was seen to
	// hold what that process wrote.
	Processes map[string]int64   `json:"processes"`
	Event     string             `json:"event,omitempty"` // the latest one that was read
	Commits   []processWatermark `json:"commits,omitempty"`
}

// processWatermark is a commit and the process that made it.
type processWatermark struct {
	Process string `json:"process"`
	Commit
}

// OpenWatermark reads the file, creates it if there is none, and compares it
// with Redis. If Redis has lost writes, that is recorded for all processes, and
// nothing is executed until a person has resumed it; see [Store.LostWrites]. An
// error means that the file is unusable or that Redis could not be asked.
func (s *Store) OpenWatermark(ctx context.Context, path string) (*Watermark, error) {
	return s.openWatermark(ctx, path, files.Replace)
}

func (s *Store) openWatermark(ctx context.Context, path string, replace func(name string, data []byte) error) (*Watermark, error) {
	w := &Watermark{store: s, path: path, replace: replace, written: reportedWatermark{known: -1}} // so that it is written, and known to be writable
	told, err := w.read()
	if err == nil {
		err = s.compareWatermark(ctx, told)
	}
	if err == nil {
		err = w.write(ctx)
	}
	return w, err
}

// confirmedScript tells what Redis holds by process. KEYS 1 sequence  2 processes;
// ARGV the processes. It answers the sequence, how many processes there are,
// the least that it holds for any, and what it holds for each.
var confirmedScript = redis.NewScript(`
local least = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
local answer = { redis.call('GET', KEYS[1]) or '0', tostring(redis.call('ZCARD', KEYS[2])), least[2] or '0' }
for n = 1, #ARGV do answer[3 + n] = redis.call('ZSCORE', KEYS[2], ARGV[n]) or '' end
return answer`)

// compareWatermark asks Redis for the commits that the file lists.
func (s *Store) compareWatermark(ctx context.Context, told watermarkFile) error {
	names := slices.Sorted(maps.Keys(told.Processes))
	var args []any
	for _, name := range names {
		args = append(args, name)
	}
	got, err := confirmedScript.Run(ctx, s.rdb, []string{s.keys.sequence(), s.keys.processes()}, args...).StringSlice()
	if err != nil {
		return fmt.Errorf("approvals: Redis could not be compared with the watermark file: %w", err)
	}
	if len(got) != 3+len(names) {
		return fmt.Errorf("approvals: comparing Redis with the watermark file answered %d values", len(got))
	}
	sequence, processes, least := parseInt(got[0]), parseInt(got[1]), parseInt(got[2])
	for n, name := range names {
		known, kept := told.Processes[name], parseInt(got[3+n])
		if kept >= known || got[3+n] == "" && processes >= maxProcesses && least > known {
			continue // also where Redis has heard of so many others since that it forgot this one
		}
		lost := LostWrites{At: time.Now().UTC(), Process: name, Known: known, Kept: kept, Sequence: sequence, Event: told.Event}
		for _, d := range told.Commits {
			if d.Process == name && d.Sequence > kept {
				lost.Commits = append(lost.Commits, d.Commit)
			}
		}
		sortCommits(lost.Commits)
		if _, err := s.writeLost(ctx, lost, true); err != nil {
			return err
		}
	}
	return nil
}

// read returns the content of the file, and nothing if there is no file yet.
func (w *Watermark) read() (watermarkFile, error) {
	t := watermarkFile{Tag: w.store.keys.tag, Processes: map[string]int64{}}
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
		return t, fmt.Errorf("the watermark file %s is unusable: %w. Find out what happened to it. If you move it away, a new one is started, but a restore of this Redis while no Countersign ran cannot be detected then", w.path, err)
	}
	return t, nil
}

// reportedWatermark is what the file already says about this process.
type reportedWatermark struct {
	known   int64
	event   string
	commits int
}

// watermark returns what this process adds to the file.
func (m *rollbackDetector) watermark() (reportedWatermark, []processWatermark) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []processWatermark
	for _, l := range m.chain {
		if l.commit.What != "" {
			list = append(list, processWatermark{m.process, l.commit})
		}
	}
	return reportedWatermark{m.known, m.event, m.commits}, list
}

// write updates the file.
func (w *Watermark) write(ctx context.Context) (err error) {
	now, commits := w.store.rollback.watermark()
	if now == w.written {
		return nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("the watermark file %s is not written: %w", w.path, err)
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
	me := w.store.rollback.process
	t.Processes[me] = max(t.Processes[me], now.known)
	names := slices.SortedFunc(maps.Keys(t.Processes), func(a, b string) int { return cmp.Compare(t.Processes[b], t.Processes[a]) })
	for _, name := range names[min(len(names), maxWatermarks):] {
		delete(t.Processes, name)
	}
	if eventAfter(now.event, t.Event) {
		t.Event = now.event
	}
	t.Commits = append(slices.DeleteFunc(t.Commits, func(d processWatermark) bool { return d.Process == me }), commits...)
	slices.SortStableFunc(t.Commits, func(a, b processWatermark) int { return cmp.Compare(a.Sequence, b.Sequence) })
	t.Commits = t.Commits[max(0, len(t.Commits)-maxKnownCommits):]
	raw, err := json.Marshal(t)
	if err != nil {
		return err
	}
	if err := w.replace(w.path, append(raw, '\n')); err != nil {
		return err
	}
	w.written = now
	return nil
}

// lock waits for the other processes of this host, which hold the lock only
// during a write.
func (w *Watermark) lock(ctx context.Context) (*os.File, error) {
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

// Run writes the file until ctx ends, and then once more. A write that fails
// stops nothing; it is logged and tried again.
func (w *Watermark) Run(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(watermarkInterval)
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
			log.Error("the watermark is not up to date; trying again", "error", err)
		}
		failing = err != nil
	}
}
