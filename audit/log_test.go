package audit

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/mod/sumdb/note"
)

func TestAppendAndReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "audit")
	l := mustOpen(t, dir)
	if l.Len() != 0 || l.Last() != "0-0" {
		t.Errorf("a new log has %d records, the last one %s", l.Len(), l.Last())
	}
	checkpoints := []string{l.Checkpoint()}
	for i := range 40 {
		if i%7 == 0 { // a log that was closed is continued
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = mustOpen(t, dir)
			if got := l.Checkpoint(); got != checkpoints[i] {
				t.Fatalf("reopened at %q, closed at %q", got, checkpoints[i])
			}
		}
		mustAppend(t, l, event(i))
		checkpoints = append(checkpoints, l.Checkpoint())
	}
	if l.Len() != 40 || l.Last() != event(39).ID || len(l.Repaired()) != 0 {
		t.Errorf("%d records, the last one %s, repaired %q", l.Len(), l.Last(), l.Repaired())
	}

	// It verifies while it is open, and contains every state it was ever in.
	report, err := Trust{Checkpoints: checkpoints}.Verify(dir)
	if err != nil || !report.OK() {
		t.Fatal(err, report)
	}
	if report.Records != 40 || report.Kept != 41 || report.LastID != event(39).ID || !report.First.Equal(event(0).At) || !report.Last.Equal(event(39).At) {
		t.Errorf("%+v", report)
	}
	events, _, err := List(dir, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range events {
		want, _ := json.Marshal(event(i))
		if got, _ := json.Marshal(e); !bytes.Equal(got, want) {
			t.Errorf("record %d is %s, want %s", i+1, got, want)
		}
	}

	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
	if err := l.Append(t.Context(), event(40)); !errors.Is(err, ErrClosed) {
		t.Errorf("append to a closed log: %v", err)
	}
}

func TestFilesAreForTheirOwnerAlone(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such permissions")
	}
	dir := filepath.Join(t.TempDir(), "audit")
	l := mustOpen(t, dir)
	mustAppend(t, l, event(0))
	if info, _ := os.Stat(dir); info.Mode().Perm() != 0o700 {
		t.Errorf("the directory has the permissions %v", info.Mode().Perm())
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
		if info, _ := entry.Info(); info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the permissions %v", entry.Name(), info.Mode().Perm())
		}
	}
	if want := []string{checkpointName, recordsName, hashesName, lockName}; !slices.Equal(names, want) {
		t.Errorf("files %q, want %q", names, want)
	}
}

func TestAppendIsIdempotent(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir)
	for _, id := range []string{"1000-0", "1000-1", "1000-1", "999-7", "1000-0", "1000-10", "1000-9", "1001-0"} {
		e := event(0)
		e.ID = id
		mustAppend(t, l, e)
	}
	l.Close()
	l = mustOpen(t, dir)
	e := event(0)
	e.ID = "1001-0"
	mustAppend(t, l, e)
	e.ID = "999-7" // that a log which was reopened has it is known too
	mustAppend(t, l, e)
	// What has a lower id and is not there is what a Redis wrote that went back in
	// time: it stands where it arrived.
	if got, want := ids(t, dir), []string{"1000-0", "1000-1", "999-7", "1000-10", "1000-9", "1001-0"}; !slices.Equal(got, want) {
		t.Errorf("recorded %q, want %q", got, want)
	}
	report, err := Verify(dir)
	if err != nil || !report.OK() || !slices.Equal(report.Late, []int64{3, 5}) || report.LastID != "1001-0" {
		t.Errorf("%+v %v", report, err)
	}
	if !strings.Contains(report.String(), "Record 3 was written after record 2 and has an earlier time") {
		t.Errorf("nothing is said of it: %s", report)
	}
}

func TestAppendRefusesWhatItCannotPlace(t *testing.T) {
	l := mustOpen(t, t.TempDir())
	for _, id := range []string{"", "1000", "1000-", "-1", "01-0", "1-0 ", "a-b", "1-+1", "99999999999999999999999-0"} {
		e := event(0)
		e.ID = id
		if err := l.Append(t.Context(), e); err == nil || !strings.Contains(err.Error(), "not an event id") {
			t.Errorf("id %q: %v", id, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Append(ctx, event(0)); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that is over: %v", err)
	}
	e := event(0)
	e.At = time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC) // JSON cannot say it
	if err := l.Append(t.Context(), e); err == nil {
		t.Error("an event that is no JSON was recorded")
	}
	mustAppend(t, l, event(0))
	if l.Len() != 1 {
		t.Errorf("%d records", l.Len())
	}
}

// Whatever text an event holds, its record is one line.
func TestRecordIsOneLine(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir)
	e := event(0)
	e.Justification = "a\nb\r\n{\"id\":\"9-9\"}\u2028c\x00 <&> \xff"
	mustAppend(t, l, e)
	mustAppend(t, l, event(1))
	if got := bytes.Count(content(t, dir, recordsName), []byte("\n")); got != 2 {
		t.Errorf("%d lines for 2 records", got)
	}
	if !bytes.Contains(content(t, dir, recordsName), []byte("<&>")) {
		t.Error("the record is not readable")
	}
	mustVerify(t, dir)
}

func TestOneWriter(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir)
	var locked *LockedError
	if _, err := Open(dir); !errors.As(err, &locked) || locked.Dir != dir {
		t.Fatalf("opened a second time: %v", err)
	}
	l.Close()
	l = mustOpen(t, dir)
	defer l.Close()
}

func TestAppendFromManyGoroutines(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir)
	var wg sync.WaitGroup
	for range 4 { // deliveries of the same events, as after a lost lease
		wg.Go(func() {
			for i := range 10 {
				if err := l.Append(t.Context(), event(i)); err != nil {
					t.Error(err)
				}
				l.Checkpoint()
			}
		})
	}
	wg.Go(func() { // and an auditor, who must never see half an append as a problem
		for range 20 {
			if report, err := Verify(dir); err != nil || !report.OK() {
				t.Error(err, report)
			}
		}
	})
	wg.Wait()
	if l.Len() != 10 {
		t.Errorf("%d records", l.Len())
	}
	mustVerify(t, dir)
}

// However long an append takes, it is not called damage while it is under way;
// one that never ends is.
func TestAnAppendUnderWayIsNoDamage(t *testing.T) {
	for name, ends := range map[string]bool{"it ends": true, "it never ends": false} {
		t.Run(name, func(t *testing.T) {
			dir, whole := sample(t, 6), sample(t, 7)
			write(t, dir, recordsName, content(t, whole, recordsName))
			write(t, dir, hashesName, content(t, whole, hashesName))
			synctest.Test(t, func(t *testing.T) {
				if ends {
					go func() {
						time.Sleep(growthTime / 2)
						if err := os.Rename(filepath.Join(whole, checkpointName), filepath.Join(dir, checkpointName)); err != nil {
							t.Error(err)
						}
					}()
				}
				report, err := Verify(dir)
				if err != nil || report.OK() != ends || ends && report.Records != 7 {
					t.Errorf("%v %v", err, report)
				}
			})
		})
	}
}

// A crash leaves at most one record that the checkpoint does not cover.
func TestRepairsAnInterruptedAppend(t *testing.T) {
	whole, err := marshal(event(6))
	if err != nil {
		t.Fatal(err)
	}
	whole = append(whole, '\n')
	tests := map[string]struct {
		records, hashes []byte // left behind
		says            string
	}{
		"a byte":                     {records: whole[:1], says: "cut off 1 bytes after record 6"},
		"half a line":                {records: whole[:len(whole)/2], says: "after record 6"},
		"a line without its newline": {records: whole[:len(whole)-1], says: "after record 6"},
		"a line":                     {records: whole, says: fmt.Sprintf("cut off %d bytes after record 6", len(whole))},
		"a line and half a hash":     {records: whole, hashes: make([]byte, 20), says: "after record 6"},
		"a line and its hashes":      {records: whole, hashes: make([]byte, 32), says: "after record 6"},
		"zeros, as after power loss": {records: make([]byte, 4096), says: "cut off 4096 bytes"},
		"hashes alone":               {hashes: make([]byte, 32)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := sample(t, 6)
			appendTo(t, dir, recordsName, tt.records)
			appendTo(t, dir, hashesName, tt.hashes)
			age(t, dir)

			report, err := Verify(dir)
			if err != nil || report.OK() || report.Problems[0].Record != 7 {
				t.Errorf("%v %v", err, report)
			}
			l := mustOpen(t, dir)
			if said := strings.Join(l.Repaired(), "\n"); !strings.Contains(said, tt.says) || (said == "") != (tt.says == "") {
				t.Errorf("it says %q, which lacks %q", said, tt.says)
			}
			mustAppend(t, l, event(6)) // it comes again, since nobody acknowledged it
			mustAppend(t, l, event(7))
			mustVerify(t, dir)
			if got := ids(t, dir); len(got) != 8 {
				t.Errorf("recorded %q", got)
			}
		})
	}
}

// The hashes can be recomputed from records that the checkpoint proves.
func TestWritesLostHashesAnew(t *testing.T) {
	dir := sample(t, 6)
	before := content(t, dir, hashesName)
	if err := os.Remove(filepath.Join(dir, hashesName)); err != nil {
		t.Fatal(err)
	}
	if report, err := Verify(dir); err != nil || report.OK() || !strings.Contains(report.String(), "missing") {
		t.Error(err, report)
	}
	l := mustOpen(t, dir)
	if len(l.Repaired()) != 1 || !strings.Contains(l.Repaired()[0], "written anew") {
		t.Errorf("it says %q", l.Repaired())
	}
	if !bytes.Equal(content(t, dir, hashesName), before) {
		t.Error("the hashes are not what they were")
	}
	mustAppend(t, l, event(6))
	mustVerify(t, dir)
}

func TestTampering(t *testing.T) {
	lines := func(change func([][]byte) [][]byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			list := bytes.SplitAfter(content(t, dir, recordsName), []byte("\n"))
			write(t, dir, recordsName, bytes.Join(change(list[:len(list)-1]), nil))
		}
	}
	replace := func(name, old, new string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			data := content(t, dir, name)
			if !bytes.Contains(data, []byte(old)) {
				t.Fatalf("%s has no %q", name, old)
			}
			write(t, dir, name, bytes.Replace(data, []byte(old), []byte(new), 1))
		}
	}
	both := func(a, b func(*testing.T, string)) func(*testing.T, string) {
		return func(t *testing.T, dir string) { a(t, dir); b(t, dir) }
	}
	// What somebody does who knows the format: the records changed, and the
	// hashes recomputed.
	forge := func(change func([][]byte) [][]byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			lines(change)(t, dir)
			r, err := read(dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			write(t, dir, hashesName, hashBytes(storedHashes(r.lines)))
		}
	}
	drop := func(from, to int) func([][]byte) [][]byte {
		return func(l [][]byte) [][]byte { return slices.Delete(l, from-1, to) }
	}
	edit := func(l [][]byte) [][]byte {
		l[2] = bytes.Replace(l[2], []byte("lost phone"), []byte("lost money"), 1)
		return l
	}

	tests := []struct {
		name   string
		tamper func(*testing.T, string)
		file   string
		record int64
		says   string
	}{
		{"edit a record", lines(edit), recordsName, 3, "Record 3 was changed."},
		{"edit two records", replace(recordsName, `{"id":"1795436002000-0"`, `{"id":"1795436001999-0"`), recordsName, 3, "Record 3 was changed."},
		{"delete a line", lines(drop(4, 4)), recordsName, 4, "Record 4 was removed: line 4 holds record 5."},
		{"delete the first line", lines(drop(1, 1)), recordsName, 1, "Record 1 was removed: line 1 holds record 2."},
		{"delete lines", lines(drop(2, 5)), recordsName, 2, "Records 2 to 5 were removed: line 2 holds record 6."},
		{"delete the last line", lines(drop(8, 8)), recordsName, 8, "Record 8, the last one, is missing."},
		{"delete the last lines", lines(drop(6, 8)), recordsName, 6, "Records 6 to 8, the last ones, are missing."},
		{"swap lines", lines(func(l [][]byte) [][]byte { l[1], l[5] = l[5], l[1]; return l }), recordsName, 2, "Record 2 is not in its place: line 2 holds record 6, and record 2 is line 6 now."},
		{"insert a line", lines(func(l [][]byte) [][]byte { return slices.Insert(l, 3, []byte("{}\n")) }), recordsName, 4, "Line 4 is no record: something was put in before record 4, which is line 5 now."},
		{"repeat a line in the place of another", lines(func(l [][]byte) [][]byte { l[6] = l[2]; return l }), recordsName, 7, "Record 7 is missing: line 7 repeats record 3."},
		{"append lines by hand", lines(func(l [][]byte) [][]byte { return append(l, l[0], l[1]) }), recordsName, 9, "There are 2 lines after record 8"},
		{"append a line and more", lines(func(l [][]byte) [][]byte { return append(l, l[0], []byte("x")) }), recordsName, 9, "There are 2 lines after record 8"},
		{"empty the records", lines(func([][]byte) [][]byte { return nil }), recordsName, 1, "Records 1 to 8, the last ones, are missing."},
		{"delete the records", remove(recordsName), recordsName, 1, "Records 1 to 8, the last ones, are missing."},
		{"cut the records in the last line", cut(recordsName, 5), recordsName, 8, "Record 8, the last one, is missing."},
		{"cut the last newline", cut(recordsName, 1), recordsName, 8, "Record 8, the last one, is missing."},

		{"flip a byte of the hashes", flip(hashesName, 3*32+5), hashesName, 3, "The file hashes is wrong from byte 101 on"},
		{"cut the hashes", cut(hashesName, 32), hashesName, 0, "and needs"},
		{"more hashes", func(t *testing.T, dir string) { appendTo(t, dir, hashesName, make([]byte, 320)) }, hashesName, 9, "more than an interrupted append leaves"},
		{"edit a record, flip a hash", both(lines(edit), flip(hashesName, 0)), recordsName, 1, "Record 1 was changed. The file hashes does not match the checkpoint either"},
		{"edit a record, delete the hashes", both(lines(edit), remove(hashesName)), recordsName, 0, "it cannot be told which"},
		{"delete the last line, delete the hashes", both(lines(drop(8, 8)), remove(hashesName)), recordsName, 8, "There are 7 records where the checkpoint speaks of 8."},

		{"edit a record and recompute the hashes", forge(edit), checkpointName, 0, "agree with each other and not with the checkpoint"},
		{"delete the last line and recompute the hashes", forge(drop(8, 8)), recordsName, 8, "There are 7 records where the checkpoint speaks of 8."},

		{"delete the checkpoint", remove(checkpointName), checkpointName, 0, "The file checkpoint is missing"},
		{"empty the checkpoint", cut(checkpointName, 1000), checkpointName, 0, "is not a checkpoint"},
		{"cut the checkpoint", cut(checkpointName, 1), checkpointName, 0, "is not a checkpoint"},
		{"fewer records in the checkpoint", replace(checkpointName, "\n8\n", "\n7\n"), checkpointName, 0, "agree with each other and not with the checkpoint"},
		{"more records in the checkpoint", replace(checkpointName, "\n8\n", "\n9\n"), recordsName, 9, "There are 8 records where the checkpoint speaks of 9."},
		{"far too many", replace(checkpointName, "\n8\n", "\n9223372036854775807\n"), checkpointName, 0, "is not a checkpoint"},
		{"another origin", replace(checkpointName, unsignedOrigin, "countersign/other"), checkpointName, 0, `begins with "countersign/other"`},
		{"zeros before the number", replace(checkpointName, "\n8\n", "\n08\n"), checkpointName, 0, "is not a checkpoint"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := sample(t, 8)
			tt.tamper(t, dir)
			age(t, dir)
			before := snapshot(t, dir)

			report, err := Verify(dir)
			if err != nil {
				t.Fatal(err)
			}
			if report.OK() {
				t.Fatal("it verifies")
			}
			if p := report.Problems[0]; p.File != tt.file || p.Record != tt.record || !strings.Contains(p.Words, tt.says) {
				t.Errorf("\n got %q %d %s\nwant %q %d %s", p.File, p.Record, p.Words, tt.file, tt.record, tt.says)
			}
			if !strings.Contains(report.String(), "NOT as it was written") || !strings.Contains(report.String(), tt.says) {
				t.Errorf("the report says:\n%s", report)
			}

			var damaged *DamagedError
			if _, err := Open(dir); !errors.As(err, &damaged) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("opened: %v", err)
			}
			if after := snapshot(t, dir); after != before {
				t.Error("the evidence was changed")
			}
		})
	}
}

// Every single byte counts: none can be changed, and no file can be cut
// anywhere, without Verify noticing and Open refusing.
func TestEveryByteCounts(t *testing.T) {
	dir := sample(t, 3)
	refused := func(what string, t *testing.T) {
		if report, err := Verify(dir); err == nil && report.OK() {
			t.Errorf("%s: it verifies", what)
		}
		var damaged *DamagedError
		if l, err := Open(dir); !errors.As(err, &damaged) {
			if err == nil {
				l.Close()
			}
			t.Errorf("%s: opened with %v", what, err)
		}
	}
	for _, name := range []string{recordsName, hashesName, checkpointName} {
		data := content(t, dir, name)
		for i := range data {
			changed := bytes.Clone(data)
			changed[i] ^= 1 << (i % 8)
			write(t, dir, name, changed)
			refused(fmt.Sprintf("%s, byte %d flipped", name, i), t)
			write(t, dir, name, data[:i])
			refused(fmt.Sprintf("%s, cut at byte %d", name, i), t)
			if t.Failed() {
				t.FailNow()
			}
		}
		write(t, dir, name, data)
	}
	mustVerify(t, dir)
}

// Who can write to the directory can put back all of it, or write another
// history. Only a checkpoint kept elsewhere shows that.
func TestCheckpointsKeptElsewhere(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir)
	for i := range 3 {
		mustAppend(t, l, event(i))
	}
	early := l.Checkpoint()
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		mustAppend(t, l, event(3+i))
	}
	late := l.Checkpoint()

	pasted := "  " + strings.ReplaceAll(late, "\n", "  \r\n  ") + "\n\n"
	report, err := Trust{Checkpoints: []string{early, late, pasted}}.Verify(dir)
	if err != nil || !report.OK() || report.Kept != 3 {
		t.Error(err, report)
	}
	for name, tt := range map[string]struct {
		dir, kept, says string
	}{
		"put back":         {copied, late, "A checkpoint kept elsewhere covers 7 records, and there are 3"},
		"another history":  {sampleFrom(t, 100, 8), early, "The first 3 records are not those of the checkpoint kept elsewhere"},
		"not a checkpoint": {dir, "see attachment", "The checkpoint kept elsewhere is not a checkpoint"},
	} {
		if report, err := Verify(tt.dir); err != nil || !report.OK() {
			t.Errorf("%s: without the checkpoint: %v %v", name, err, report)
		}
		report, err := Trust{Checkpoints: []string{tt.kept}}.Verify(tt.dir)
		if err != nil || report.OK() || !strings.Contains(report.String(), tt.says) {
			t.Errorf("%s: %v %v", name, err, report)
		}
	}
}

func TestSignedLog(t *testing.T) {
	secret, public := newKey(t, "audit.fernhill.example")
	otherSecret, otherPublic := newKey(t, "audit.fernhill.example")
	dir := t.TempDir()
	l, err := OpenSigned(dir, secret)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		mustAppend(t, l, event(i))
	}
	l.Close()
	signed := content(t, dir, checkpointName)

	trusted := func(t *testing.T, key string) Report {
		t.Helper()
		report, err := Trust{Key: key}.Verify(dir)
		if err != nil {
			t.Fatal(err)
		}
		return report
	}
	if r := trusted(t, public); !r.OK() || !r.Checked || r.SignedBy != "audit.fernhill.example" {
		t.Error(r)
	}
	if r := trusted(t, ""); !r.OK() || r.Checked || !strings.Contains(r.String(), "was not checked") {
		t.Error(r)
	}
	if r := trusted(t, otherPublic); r.OK() || r.Checked || !strings.Contains(r.String(), "is not signed by audit.fernhill.example") {
		t.Error(r)
	}
	if _, err := (Trust{Key: "nonsense"}).Verify(dir); err == nil {
		t.Error("a key that is none was accepted")
	}

	// It is continued with its key and with no other, and not without.
	if _, err := OpenSigned(dir, "nonsense"); err == nil {
		t.Error("opened with a key that is none")
	}
	var damaged *DamagedError
	if _, err := OpenSigned(dir, otherSecret); !errors.As(err, &damaged) {
		t.Errorf("opened with another key: %v", err)
	}
	if _, err := Open(dir); !errors.As(err, &damaged) || !strings.Contains(err.Error(), "without that key") {
		t.Errorf("opened without a key: %v", err)
	}
	if l, err = OpenSigned(dir, secret); err != nil {
		t.Fatal(err)
	}
	l.Close()

	// Somebody rewrites everything consistently, without the key.
	for name, forged := range map[string][]byte{
		"no signature":       bytes.Split(signed, []byte("\n\n"))[0],
		"a broken signature": bytes.Replace(signed, []byte("\n5\n"), []byte("\n4\n"), 1),
	} {
		write(t, dir, checkpointName, append(forged, '\n'))
		if r := trusted(t, public); r.OK() || r.Checked {
			t.Errorf("%s: %s", name, r)
		}
		if _, err := OpenSigned(dir, secret); !errors.As(err, &damaged) {
			t.Errorf("%s: opened: %v", name, err)
		}
	}
	unsigned := sample(t, 5)
	if _, err := OpenSigned(unsigned, secret); !errors.As(err, &damaged) || !strings.Contains(err.Error(), "is not signed") {
		t.Errorf("an unsigned log was signed: %v", err)
	}
}

func TestList(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir)
	at := func(hour int) time.Time { return time.Date(2026, 11, 23, hour, 0, 0, 0, time.UTC) }
	for i, e := range []Event{
		{Kind: Requested, Request: "R-1", Actor: hanna, Requester: hanna, Target: dana},
		{Kind: Approved, Request: "R-1", Actor: ravi, Requester: hanna, Target: dana, Approvers: []Person{ravi}},
		{Kind: Requested, Request: "R-2", Actor: olga, Requester: olga, Target: hanna},
		{Kind: Finished, Request: "R-1", Requester: hanna, Target: dana, Approvers: []Person{ravi}},
	} {
		e.ID, e.At = fmt.Sprintf("%d-0", i+1), at(9+i)
		mustAppend(t, l, e)
	}
	for name, tt := range map[string]struct {
		filter Filter
		want   string
	}{
		"all":                    {Filter{}, "1-0 2-0 3-0 4-0"},
		"a request":              {Filter{Request: "r-1"}, "1-0 2-0 4-0"},
		"a person by object id":  {Filter{Person: hanna.ID}, "1-0 2-0 3-0 4-0"},
		"an approver by UPN":     {Filter{Person: strings.ToUpper(ravi.UPN)}, "2-0 4-0"},
		"a person by Slack id":   {Filter{Person: "U0OLGA"}, "3-0"},
		"nobody":                 {Filter{Person: "gloria.adeyemi@fernhill.example"}, ""},
		"since":                  {Filter{Since: at(11)}, "3-0 4-0"},
		"until":                  {Filter{Until: at(11)}, "1-0 2-0"},
		"between, of one person": {Filter{Since: at(10), Until: at(12), Person: dana.UPN}, "2-0"},
	} {
		events, report, err := List(dir, tt.filter)
		if err != nil || !report.OK() {
			t.Fatal(err, report)
		}
		if !report.First.Equal(at(9)) || !report.Last.Equal(at(12)) {
			t.Errorf("%s: the report is about %s to %s, not about the whole log", name, report.First, report.Last)
		}
		var got []string
		for _, e := range events {
			got = append(got, e.ID)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
	if _, _, err := List(t.TempDir(), Filter{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("where there is no log: %v", err)
	}
}

// Each write of an append fails once in every way: refused, done by half, and
// done although it said it was not. Afterwards the same process goes on, or
// another one does. Either way the event is recorded once.
func TestFailedWrites(t *testing.T) {
	for _, how := range []fault{refused, half, applied} {
		for _, restart := range []bool{false, true} {
			for n := 1; ; n++ {
				dir := sample(t, 3)
				d := &faultyDisk{disk: osDisk{dir}}
				l, err := open(dir, nil, d)
				if err != nil {
					t.Fatal(err)
				}
				d.arm(n, how, restart)
				err = l.Append(t.Context(), event(3))
				if d.countdown > 0 { // an append does fewer writes than n
					if err != nil || n < 4 {
						t.Fatalf("write %d never came: %v", n, err)
					}
					l.Close()
					break
				}
				name := fmt.Sprintf("write %d %s, restart %v", n, how, restart)
				if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "is not recorded") {
					t.Errorf("%s: %v", name, err)
				}
				d.arm(0, 0, false)
				if restart {
					l.Close()
					if l, err = Open(dir); err != nil {
						t.Fatalf("%s: %v", name, err)
					}
				}
				for i := range 6 {
					mustAppend(t, l, event(i))
				}
				l.Close()
				mustVerify(t, dir)
				if got := ids(t, dir); len(got) != 6 {
					t.Errorf("%s: recorded %q", name, got)
				}
			}
		}
	}
}

// The disk stays full: each append is refused, nothing is lost, and it goes on
// by itself once there is room.
func TestFullDisk(t *testing.T) {
	dir := sample(t, 3)
	d := &faultyDisk{disk: osDisk{dir}}
	l, err := open(dir, nil, d)
	if err != nil {
		t.Fatal(err)
	}
	d.arm(1, half, true)
	for range 3 {
		if err := l.Append(t.Context(), event(3)); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("on a full disk: %v", err)
		}
	}
	d.arm(0, 0, false)
	mustAppend(t, l, event(3))
	mustVerify(t, dir)
	if got := ids(t, dir); len(got) != 4 {
		t.Errorf("recorded %q", got)
	}
}

// A new log that could not be started can be started later.
func TestFailedBeginning(t *testing.T) {
	for n := 1; n <= 3; n++ {
		for _, how := range []fault{refused, half, applied} {
			dir := t.TempDir()
			d := &faultyDisk{disk: osDisk{dir}}
			d.arm(n, how, true)
			if _, err := open(dir, nil, d); !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("write %d %s: %v", n, how, err)
			}
			mustAppend(t, mustOpen(t, dir), event(0))
			mustVerify(t, dir)
		}
	}
}

// Somebody writes to the files while Countersign has them open.
func TestNothingIsBuiltOnForeignWrites(t *testing.T) {
	for name, tamper := range map[string]func(*testing.T, string){
		"a line more":       func(t *testing.T, dir string) { appendTo(t, dir, recordsName, []byte("{}\n")) },
		"a shorter file":    cut(recordsName, 3),
		"a flipped hash":    flip(hashesName, 2*32),
		"more hashes":       func(t *testing.T, dir string) { appendTo(t, dir, hashesName, make([]byte, 32)) },
		"no hashes":         remove(hashesName),
		"an emptied record": cut(recordsName, 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			dir := sample(t, 3)
			l := mustOpen(t, dir)
			tamper(t, dir)
			if err := l.Append(t.Context(), event(3)); err == nil || !strings.Contains(err.Error(), "is not recorded") {
				t.Errorf("appended: %v", err)
			}
			if l.Len() != 3 {
				t.Errorf("%d records", l.Len())
			}
		})
	}
}

// event makes the i'th event of a log; it is always the same.
func event(i int) Event {
	at := time.Date(2026, 11, 23, 12, 0, i, 0, time.UTC)
	return Event{
		ID: fmt.Sprintf("%d-0", 1795436000000+1000*i), At: at, Kind: Requested,
		Request: fmt.Sprintf("R-%d", i), Title: "Require re-registration", Actor: hanna, Requester: hanna,
		Target: dana, Justification: "lost phone", Needed: 1,
	}
}

// sample is the directory of a closed log with n records.
func sample(t *testing.T, n int) string { return sampleFrom(t, 0, n) }

func sampleFrom(t *testing.T, from, n int) string {
	t.Helper()
	dir := t.TempDir()
	l := mustOpen(t, dir)
	for i := range n {
		mustAppend(t, l, event(from+i))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mustOpen(t *testing.T, dir string) *Log {
	t.Helper()
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func mustAppend(t *testing.T, l *Log, e Event) {
	t.Helper()
	if err := l.Append(context.Background(), e); err != nil {
		t.Fatal(err)
	}
}

func mustVerify(t *testing.T, dir string) {
	t.Helper()
	if report, err := Verify(dir); err != nil || !report.OK() {
		t.Fatal(err, report)
	}
}

func ids(t *testing.T, dir string) []string {
	t.Helper()
	events, _, err := List(dir, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, e := range events {
		ids = append(ids, e.ID)
	}
	return ids
}

func newKey(t *testing.T, name string) (secret, public string) {
	t.Helper()
	secret, public, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		t.Fatal(err)
	}
	return secret, public
}

func content(t *testing.T, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// age makes the files of a log look as if nothing was written to them lately.
func age(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{recordsName, hashesName} {
		long := time.Now().Add(-time.Hour)
		if err := os.Chtimes(filepath.Join(dir, name), long, long); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

func appendTo(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	write(t, dir, name, append(content(t, dir, name), data...))
}

func cut(name string, n int) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		data := content(t, dir, name)
		write(t, dir, name, data[:max(0, len(data)-n)])
	}
}

func flip(name string, at int) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		data := content(t, dir, name)
		data[at] ^= 0x10
		write(t, dir, name, data)
	}
}

func remove(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// snapshot is all that is in a directory.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, entry := range entries {
		fmt.Fprintf(&b, "%s %q\n", entry.Name(), content(t, dir, entry.Name()))
	}
	return b.String()
}

// fault is a way in which a write fails.
type fault int

const (
	refused fault = iota // nothing is done
	half                 // a part is done; a replacement is all or nothing
	applied              // all is done, and an error is returned all the same
)

func (f fault) String() string {
	return [...]string{"refused", "done by half", "done with an error"}[f]
}

// faultyDisk is a disk that becomes full at a chosen write.
type faultyDisk struct {
	disk
	countdown int // writes until the fault; 0 for none
	how       fault
	stays     bool // all writes after the fault fail too, as when the process is gone
	full      bool
}

func (d *faultyDisk) arm(n int, how fault, stays bool) {
	d.countdown, d.how, d.stays, d.full = n, how, stays, false
}

// fails counts a write and tells how it fails, if it does.
func (d *faultyDisk) fails() (fault, bool) {
	if d.full {
		return refused, true
	}
	if d.countdown == 0 {
		return 0, false
	}
	d.countdown--
	d.full = d.countdown == 0 && d.stays
	return d.how, d.countdown == 0
}

func (d *faultyDisk) writeAt(name string, data []byte, offset int64) error {
	how, fails := d.fails()
	if !fails {
		return d.disk.writeAt(name, data, offset)
	}
	if how != refused {
		if how == half {
			data = data[:len(data)/2]
		}
		if err := d.disk.writeAt(name, data, offset); err != nil {
			return err
		}
	}
	return syscall.ENOSPC
}

func (d *faultyDisk) truncate(name string, size int64) error {
	how, fails := d.fails()
	if !fails || how == applied {
		if err := d.disk.truncate(name, size); err != nil || !fails {
			return err
		}
	}
	return syscall.ENOSPC
}

func (d *faultyDisk) replace(name string, data []byte) error {
	how, fails := d.fails()
	if !fails || how == applied {
		if err := d.disk.replace(name, data); err != nil || !fails {
			return err
		}
	}
	return syscall.ENOSPC
}
