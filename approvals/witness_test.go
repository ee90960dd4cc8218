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

// witness opens a file for a process.
func (w *world) witness(store *Store, path string) *Witness {
	w.t.Helper()
	file, err := store.OpenWitness(w.t.Context(), path)
	if err != nil {
		w.t.Fatal(err)
	}
	return file
}

// Nothing of this Countersign ran while an older copy was put back. Whoever is
// started next finds it, also where somebody without a file has carried the
// number further since, and says what is lost.
func TestTheWitnessOutlivesAllProcesses(t *testing.T) {
	t.Parallel()
	for _, others := range []int{0, 5} {
		t.Run(fmt.Sprintf("%d commits since", others), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, calm())
			ctx := t.Context()
			path := filepath.Join(t.TempDir(), "witness")
			w.ask(deletes(ClassDestroy, sam, "m3"))
			restore := w.server.Save(t)
			stop := background(t, func(ctx context.Context) { w.witness(w.store, path).Keep(ctx, w.log) })
			r := w.approved(deletes(ClassDestroy, dana, "m1"))
			if _, err := w.store.claim(ctx, w.load(r.ID), "worker"); err != nil {
				t.Fatal(err)
			}
			stop()
			restore()
			_, blind := w.process(w.server.Client(t))
			for range others {
				if _, err := blind.Ask(ctx, w.op(), w.wants()); err != nil {
					t.Fatal(err)
				}
			}
			next, desk := w.process(w.server.Client(t))
			w.witness(next, path)
			list := w.losses()
			want := []string{r.ID + ": its execution was started", r.ID + ": approved, by account " + ravi.ID, r.ID + ": requested, by account " + hanna.ID}
			if len(list) != 1 || list[0].Process != w.store.memory.me || list[0].Known != 4 || list[0].Kept != 1 || !slices.Equal(words(list[0].Commits), want) {
				t.Fatalf("named are %+v, want %v", list, want)
			}
			for _, d := range []*Desk{desk, blind} {
				if _, err := d.Ask(ctx, w.op(), w.wants()); !errors.Is(err, ErrRewound) {
					t.Errorf("asking: %v", err)
				}
			}
			// Whoever is started before a person has looked says the same.
			again, _ := w.process(w.server.Client(t))
			w.witness(again, path)
			if list := w.losses(); len(list) != 1 || !slices.Equal(words(list[0].Commits), want) {
				t.Errorf("after another start, named are %+v", list)
			}
			w.resume()
			if _, err := desk.Ask(ctx, w.op(), w.wants()); err != nil {
				t.Errorf("asking then: %v", err)
			}
			later, _ := w.process(w.server.Client(t))
			w.witness(later, path)
			if list := w.losses(); len(list) > 0 {
				t.Errorf("started after a person has seen it, it says %+v", list)
			}
		})
	}
}

// A file that has not been written since, or that is of a process which Redis
// has forgotten among a thousand later ones, is no reason to stop.
func TestTheWitnessCriesNoWolf(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "witness")
	file := w.witness(w.store, path)
	w.ask(deletes(ClassDestroy, dana, "m1"))
	if err := file.write(ctx); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		w.ask(deletes(ClassDestroy, dana, "x-"+w.op()))
	}
	next, _ := w.process(w.server.Client(t))
	w.witness(next, path)
	var thousand []redis.Z
	for i := range tracked {
		thousand = append(thousand, redisZ(float64(100+i), fmt.Sprint("p", i)))
	}
	w.rdb.ZAdd(ctx, w.store.keys.processes(), thousand...)
	w.rdb.Set(ctx, w.store.keys.sequence(), 100+tracked, 0)
	if err := next.look(ctx); err != nil {
		t.Fatal(err)
	}
	if n := w.rdb.ZCard(ctx, w.store.keys.processes()).Val(); n != tracked {
		t.Errorf("Redis keeps %d processes", n)
	}
	if w.rdb.ZScore(ctx, w.store.keys.processes(), w.store.memory.me).Err() == nil {
		t.Fatal("Redis remembers the process, and this tests nothing")
	}
	later, _ := w.process(w.server.Client(t))
	w.witness(later, path)
	if list := w.losses(); len(list) > 0 {
		t.Errorf("it says %+v", list)
	}
}

// Processes of one host share a file, and none of them undoes what another one
// wrote.
func TestProcessesShareAWitness(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	path := filepath.Join(t.TempDir(), "witness")
	var stops []func()
	var stores []*Store
	for range 4 {
		store, desk := w.process(w.server.Client(t))
		file := w.witness(store, path)
		stores = append(stores, store)
		stops = append(stops, background(t, func(ctx context.Context) {
			for i := 0; ctx.Err() == nil && i < 10; i++ {
				if _, err := desk.Ask(ctx, fmt.Sprint(store.memory.me, i), Ask{Plan: deletes(ClassDestroy, dana, fmt.Sprint(store.memory.me, i)),
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
		told, err := (&Witness{store: w.store, path: path}).read()
		return err == nil && len(told.Commits) == 40
	})
	for _, stop := range stops {
		stop()
	}
	told, err := (&Witness{store: w.store, path: path}).read()
	if err != nil {
		t.Fatal(err)
	}
	for _, store := range stores {
		if told.Processes[store.memory.me] != store.memory.known {
			t.Errorf("of a process that knows %d the file says %d", store.memory.known, told.Processes[store.memory.me])
		}
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text := string(raw); strings.Contains(text, "fernhill") || strings.Contains(text, "Hanna") {
		t.Errorf("somebody is named in it: %.300s", text)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("it may be read by others: %v %v", info, err)
	}
}

// A file that was not written is as good as it was, and is written again; so is
// one that was written and is not known to be.
func TestWritingTheWitnessIsAttacked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	path := filepath.Join(t.TempDir(), "witness")
	file := w.witness(w.store, path)
	knows := func() int64 {
		told, err := (&Witness{store: w.store, path: path}).read()
		if err != nil {
			t.Fatal(err)
		}
		return told.Processes[w.store.memory.me]
	}
	w.ask(deletes(ClassDestroy, dana, "m1"))
	if err := os.Mkdir(path+".new", 0o700); err != nil { // where it writes first
		t.Fatal(err)
	}
	if err := file.write(t.Context()); err == nil || knows() != 0 {
		t.Errorf("not written, it says %v, and the file knows %d", err, knows())
	}
	if err := os.Remove(path + ".new"); err != nil {
		t.Fatal(err)
	}
	if err := file.write(t.Context()); err != nil || knows() != 1 {
		t.Errorf("once more it says %v, and the file knows %d", err, knows())
	}
	file.has = testified{} // as after an error behind the rename
	if err := file.write(t.Context()); err != nil || knows() != 1 {
		t.Errorf("and once more it says %v, and the file knows %d", err, knows())
	}
	lock, ok, err := files.Lock(path + ".lock")
	if err != nil || !ok {
		t.Fatal(err)
	}
	defer lock.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	w.ask(deletes(ClassDestroy, sam, "m2"))
	if err := file.write(ctx); err == nil || knows() != 1 {
		t.Errorf("while another process writes it says %v, and the file knows %d", err, knows())
	}
}

// It is bounded, whatever the number of processes and commits.
func TestTheWitnessIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	path := filepath.Join(t.TempDir(), "witness")
	told := testimony{Tag: w.store.keys.tag, Processes: map[string]int64{}}
	for i := range 3 * witnessed {
		told.Processes[fmt.Sprint("p", i)] = 0
	}
	for i := range 3 * remembered {
		told.Commits = append(told.Commits, deposition{"p1", Commit{Sequence: int64(i), What: "x"}})
	}
	raw, err := json.Marshal(told)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	file := w.witness(w.store, path)
	if told, err = file.read(); err != nil {
		t.Fatal(err)
	}
	if len(told.Processes) != witnessed || len(told.Commits) != remembered || told.Commits[remembered-1].Sequence != 3*remembered-1 {
		t.Errorf("it has %d processes and %d commits", len(told.Processes), len(told.Commits))
	}
	for i := range 3 * remembered {
		w.store.memory.learn(link{from: int64(i), to: int64(i + 1), commit: Commit{Sequence: int64(i + 1), What: "x"}}, int64(i+1))
		w.store.memory.learn(link{from: int64(i + 1), to: int64(i + 1)}, int64(i+1))
	}
	if n := len(w.store.memory.chain); n > 2*remembered {
		t.Errorf("a process remembers %d commits", n)
	}
}

// What cannot be read is no witness, and the process does not start.
func TestAWitnessThatIsOfNoUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	dir := t.TempDir()
	for name, tt := range map[string]struct{ holds, says string }{
		"nothing":       {"", "of no use"},
		"half a file":   {`{"tag":"{countersign}:","processes":{"a":`, "of no use"},
		"another thing": {`{"tag":"{countersign}:"}`, "names no processes"},
		"another one's": {`{"tag":"{other}:","processes":{}}`, "a file of its own"},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(tt.holds), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := w.store.OpenWitness(t.Context(), path); err == nil || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != tt.holds {
			t.Errorf("%s: it was changed to %q (%v)", name, got, err)
		}
	}
	if _, err := w.store.OpenWitness(t.Context(), filepath.Join(dir, "no", "such", "folder")); err == nil {
		t.Error("a file that cannot be written is taken for a witness")
	}
	w.server.Kill(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := w.store.OpenWitness(ctx, filepath.Join(dir, "new")); err == nil {
		t.Error("a Redis that does not answer was compared with it")
	}
}
