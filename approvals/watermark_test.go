package approvals

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign/internal/files"
)

// openWatermark opens a watermark file for a process.
func (w *fixture) openWatermark(store *Store, path string) *Watermark {
	w.t.Helper()
	file, err := store.OpenWatermark(w.t.Context(), path)
	if err != nil {
		w.t.Fatal(err)
	}
	return file
}

// No process of this Countersign ran while an older copy of Redis was restored. The
// process that is started next detects it and reports what is lost, also if a process
// without a watermark file has increased the sequence since.
func TestWatermarkOutlivesAllProcesses(t *testing.T) {
	t.Parallel()
	for _, others := range []int{0, 5} {
		t.Run(fmt.Sprintf("%d commits since", others), func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, longTimings())
			ctx := t.Context()
			path := filepath.Join(t.TempDir(), "watermark")
			w.submit(deletionPlan(ClassDestroy, sam, "m3"))
			restore := w.server.Save(t)
			stop := background(t, func(ctx context.Context) { w.openWatermark(w.store, path).Run(ctx, w.log) })
			r := w.approved(deletionPlan(ClassDestroy, dana, "m1"))
			if _, err := w.store.claim(ctx, w.load(r.ID), "worker"); err != nil {
				t.Fatal(err)
			}
			stop()
			restore()
			_, blind := w.newProcess(w.server.Client(t))
			for range others {
				if _, err := blind.Submit(ctx, w.op(), w.newSubmit()); err != nil {
					t.Fatal(err)
				}
			}
			next, service := w.newProcess(w.server.Client(t))
			w.openWatermark(next, path)
			list := w.lostWrites()
			want := []string{r.ID + ": its execution was started", r.ID + ": approved, by account " + ravi.ID, r.ID + ": requested, by account " + hanna.ID}
			if len(list) != 1 || list[0].Process != w.store.rollback.process || list[0].Known != 4 || list[0].Kept != 1 || !slices.Equal(describeCommits(list[0].Commits), want) {
				t.Fatalf("listed: %+v, want %v", list, want)
			}
			for _, d := range []*Service{service, blind} {
				if _, err := d.Submit(ctx, w.op(), w.newSubmit()); !errors.Is(err, ErrLostWrites) {
					t.Errorf("submitting: %v", err)
				}
			}
			// A process that is started before a person has confirmed the loss reports the same.
			again, _ := w.newProcess(w.server.Client(t))
			w.openWatermark(again, path)
			if list := w.lostWrites(); len(list) != 1 || !slices.Equal(describeCommits(list[0].Commits), want) {
				t.Errorf("after another start, listed: %+v", list)
			}
			w.resume()
			if _, err := service.Submit(ctx, w.op(), w.newSubmit()); err != nil {
				t.Errorf("submitting after the resume: %v", err)
			}
			later, _ := w.newProcess(w.server.Client(t))
			w.openWatermark(later, path)
			if list := w.lostWrites(); len(list) > 0 {
				t.Errorf("a process that was started after the resume reports %+v", list)
			}
		})
	}
}

// A watermark file that is older than the last commits, or that belongs to a process
// that Redis has dropped after a thousand later ones, is no reason to stop.
func TestWatermarkHasNoFalseAlarms(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "watermark")
	file := w.openWatermark(w.store, path)
	w.submit(deletionPlan(ClassDestroy, dana, "m1"))
	if err := file.write(ctx); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		w.submit(deletionPlan(ClassDestroy, dana, "x-"+w.op()))
	}
	next, _ := w.newProcess(w.server.Client(t))
	w.openWatermark(next, path)
	var thousand []redis.Z
	for i := range maxProcesses {
		thousand = append(thousand, redisZ(float64(100+i), fmt.Sprint("p", i)))
	}
	w.rdb.ZAdd(ctx, w.store.keys.processes(), thousand...)
	w.rdb.Set(ctx, w.store.keys.sequence(), 100+maxProcesses, 0)
	if err := next.checkRollback(ctx); err != nil {
		t.Fatal(err)
	}
	if n := w.rdb.ZCard(ctx, w.store.keys.processes()).Val(); n != maxProcesses {
		t.Errorf("Redis keeps %d processes", n)
	}
	if w.rdb.ZScore(ctx, w.store.keys.processes(), w.store.rollback.process).Err() == nil {
		t.Fatal("Redis still has the process: the test does not work")
	}
	later, _ := w.newProcess(w.server.Client(t))
	w.openWatermark(later, path)
	if list := w.lostWrites(); len(list) > 0 {
		t.Errorf("it reports %+v", list)
	}
}

// The processes of one host share a watermark file, and no process overwrites what
// another one wrote.
func TestProcessesShareWatermark(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	path := filepath.Join(t.TempDir(), "watermark")
	var stops []func()
	var stores []*Store
	for range 4 {
		store, service := w.newProcess(w.server.Client(t))
		file := w.openWatermark(store, path)
		stores = append(stores, store)
		stops = append(stops, background(t, func(ctx context.Context) {
			for i := 0; ctx.Err() == nil && i < 10; i++ {
				if _, err := service.Submit(ctx, fmt.Sprint(store.rollback.process, i), Submit{Plan: deletionPlan(ClassDestroy, dana, fmt.Sprint(store.rollback.process, i)),
					Requester: hanna, Justification: "x", Ticket: "INC-7", Verified: "callback"}); err != nil {
					t.Error(err)
				}
				if err := file.write(ctx); err != nil {
					t.Error(err)
				}
			}
			<-ctx.Done()
		}))
	}
	waitFor(t, "all to have written", func() bool {
		told, err := (&Watermark{store: w.store, path: path}).read()
		return err == nil && len(told.Commits) == 40
	})
	for _, stop := range stops {
		stop()
	}
	told, err := (&Watermark{store: w.store, path: path}).read()
	if err != nil {
		t.Fatal(err)
	}
	for _, store := range stores {
		if told.Processes[store.rollback.process] != store.rollback.known {
			t.Errorf("a process knows %d, and the file has %d for it", store.rollback.known, told.Processes[store.rollback.process])
		}
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text := string(raw); strings.Contains(text, "fernhill") || strings.Contains(text, "Hanna") {
		t.Errorf("it names a person: %.300s", text)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others are allowed to read it: %v %v", info, err)
	}
}

// If a write fails, the file keeps its old content, and the next write succeeds. The
// same holds if a write succeeded and the process does not know it.
func TestWritingWatermarkIsAttacked(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	path := filepath.Join(t.TempDir(), "watermark")
	file := w.openWatermark(w.store, path)
	knows := func() int64 {
		told, err := (&Watermark{store: w.store, path: path}).read()
		if err != nil {
			t.Fatal(err)
		}
		return told.Processes[w.store.rollback.process]
	}
	w.submit(deletionPlan(ClassDestroy, dana, "m1"))
	if err := os.Mkdir(path+".new", 0o700); err != nil { // the temporary file
		t.Fatal(err)
	}
	if err := file.write(t.Context()); err == nil || knows() != 0 {
		t.Errorf("a failed write returns %v, and the file has %d", err, knows())
	}
	if err := os.Remove(path + ".new"); err != nil {
		t.Fatal(err)
	}
	if err := file.write(t.Context()); err != nil || knows() != 1 {
		t.Errorf("the second write returns %v, and the file has %d", err, knows())
	}
	file.written = reportedWatermark{} // as after an error that follows the rename
	if err := file.write(t.Context()); err != nil || knows() != 1 {
		t.Errorf("the third write returns %v, and the file has %d", err, knows())
	}
	lock, ok, err := files.Lock(path + ".lock")
	if err != nil || !ok {
		t.Fatal(err)
	}
	defer lock.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	w.submit(deletionPlan(ClassDestroy, sam, "m2"))
	if err := file.write(ctx); err == nil || knows() != 1 {
		t.Errorf("while another process writes, it returns %v, and the file has %d", err, knows())
	}
}

// The file is bounded, whatever the number of processes and commits.
func TestWatermarkIsBounded(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	path := filepath.Join(t.TempDir(), "watermark")
	told := watermarkFile{Tag: w.store.keys.tag, Processes: map[string]int64{}}
	for i := range 3 * maxWatermarks {
		told.Processes[fmt.Sprint("p", i)] = 0
	}
	for i := range 3 * maxKnownCommits {
		told.Commits = append(told.Commits, processWatermark{"p1", Commit{Sequence: int64(i), What: "x"}})
	}
	raw, err := json.Marshal(told)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	file := w.openWatermark(w.store, path)
	if told, err = file.read(); err != nil {
		t.Fatal(err)
	}
	if len(told.Processes) != maxWatermarks || len(told.Commits) != maxKnownCommits || told.Commits[maxKnownCommits-1].Sequence != 3*maxKnownCommits-1 {
		t.Errorf("it has %d processes and %d commits", len(told.Processes), len(told.Commits))
	}
	for i := range 3 * maxKnownCommits {
		w.store.rollback.recordCommit(knownLink{from: int64(i), to: int64(i + 1), commit: Commit{Sequence: int64(i + 1), What: "x"}}, int64(i+1))
		w.store.rollback.recordCommit(knownLink{from: int64(i + 1), to: int64(i + 1)}, int64(i+1))
	}
	if n := len(w.store.rollback.chain); n > 2*maxKnownCommits {
		t.Errorf("a process keeps %d commits", n)
	}
}

// If the watermark file cannot be read, the process does not start.
func TestUnusableWatermark(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	dir := t.TempDir()
	for name, tt := range map[string]struct{ holds, says string }{
		"an empty file": {"", "unusable"},
		"half a file":   {`{"tag":"{countersign}:","processes":{"a":`, "unusable"},
		"another thing": {`{"tag":"{countersign}:"}`, "names no processes"},
		"another one's": {`{"tag":"{other}:","processes":{}}`, "a file of its own"},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(tt.holds), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := w.store.OpenWatermark(t.Context(), path); err == nil || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != tt.holds {
			t.Errorf("%s: it was changed to %q (%v)", name, got, err)
		}
	}
	if _, err := w.store.OpenWatermark(t.Context(), filepath.Join(dir, "no", "such", "folder")); err == nil {
		t.Error("a file that cannot be written is accepted")
	}
	w.server.Kill(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := w.store.OpenWatermark(ctx, filepath.Join(dir, "new")); err == nil {
		t.Error("it was opened although Redis does not answer")
	}
}
