package audit

import (
	"errors"
	"slices"
	"syscall"
	"testing"

	"countersign/internal/writes"
)

// doomed is the disk of a process that ends in the middle of a write: nothing
// it does afterwards arrives.
type doomed struct {
	disk
	by   *writes.Saboteur
	gone bool
}

func (d *doomed) make(write func() error) error {
	if d.gone {
		return syscall.EIO
	}
	strike := d.by.Next("")
	if strike == nil {
		return write()
	}
	if strike.How == writes.Applied {
		if err := write(); err != nil {
			return err
		}
	}
	d.gone = true
	strike.Hit()
	return syscall.EIO
}

func (d *doomed) writeAt(name string, data []byte, offset int64) error {
	return d.make(func() error { return d.disk.writeAt(name, data, offset) })
}

func (d *doomed) truncate(name string, size int64) error {
	return d.make(func() error { return d.disk.truncate(name, size) })
}

func (d *doomed) replace(name string, data []byte) error {
	return d.make(func() error { return d.disk.replace(name, data) })
}

// Each write to the log fails, applied or not, and the process ends with it.
// The next one opens the log, gets all events again, and each is recorded once.
func TestEveryWriteHasItsPair(t *testing.T) {
	sources, err := writes.LoadSources()
	if err != nil {
		t.Fatal(err)
	}
	line, err := marshal(event(3))
	if err != nil {
		t.Fatal(err)
	}
	line = append(line, '\n')
	// What lies on disk before a process begins that is to meet each write.
	whole := func(t *testing.T) string { return sample(t, 3) }
	before := map[string]func(*testing.T) string{
		"audit.Log.write writeAt#1":  whole,
		"audit.Log.write writeAt#2":  whole,
		"audit.Log.write replace":    whole,
		"audit.Log.settle replace":   whole,
		"audit.Log.settle writeAt#1": func(t *testing.T) string { return t.TempDir() },
		"audit.Log.settle writeAt#2": func(t *testing.T) string {
			dir := sample(t, 3)
			remove(hashesName)(t, dir)
			return dir
		},
		"audit.Log.settle truncate#1": func(t *testing.T) string {
			dir := sample(t, 3)
			appendTo(t, dir, recordsName, line[:len(line)/2])
			return dir
		},
		"audit.Log.settle truncate#2": func(t *testing.T) string {
			dir := sample(t, 3)
			appendTo(t, dir, recordsName, line)
			appendTo(t, dir, hashesName, make([]byte, 32))
			return dir
		},
	}
	writes.Pairs(t, writes.In("audit"), func(t *testing.T, how writes.How) func(*testing.T, writes.Write) {
		return func(t *testing.T, w writes.Write) {
			if before[w.Where] == nil {
				t.Fatalf("say what is on disk when %s", w.What)
			}
			dir := before[w.Where](t)
			by := writes.NewSaboteur(sources)
			strike := by.Arm(w, how)
			l, err := open(dir, nil, &doomed{disk: osDisk{dir}, by: by})
			for i := 0; err == nil && i < 4; i++ {
				err = l.Append(t.Context(), event(i))
			}
			if !strike.HasMet() || !errors.Is(err, syscall.EIO) {
				t.Fatalf("the write failed: %v, and the process ended with %v", strike.HasMet(), err)
			}
			if strangers := by.Strangers(); len(strangers) > 0 {
				t.Errorf("writes that are on no list: %q", strangers)
			}
			if l != nil {
				l.Close()
			}

			l = mustOpen(t, dir)
			var want []string
			for i := range 6 {
				mustAppend(t, l, event(i))
				want = append(want, event(i).ID)
			}
			mustVerify(t, dir)
			if got := ids(t, dir); !slices.Equal(got, want) {
				t.Errorf("recorded %q, not %q", got, want)
			}
		}
	})
}
