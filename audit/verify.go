package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Verify recomputes the log in dir from its records and says what is wrong and
// where. It trusts the checkpoint that lies beside them; [Trust] asks for more.
// It changes nothing and may run while Countersign writes.
//
// The error is about reading; whatever is wrong with the log is in the report.
func Verify(dir string) (Report, error) { return Trust{}.Verify(dir) }

// List returns the events that match, oldest first, and what [Verify] says
// about the log they come from: look at the report first.
func List(dir string, f Filter) ([]Event, Report, error) { return Trust{}.List(dir, f) }

// Trust is what an auditor brings along from outside the directory.
type Trust struct {
	// Key is the public key (as [note.GenerateKey] makes it) that must have
	// signed the checkpoint. Empty: a signature is mentioned and not checked.
	Key string
	// Checkpoints are earlier ones that were kept elsewhere. The log must
	// begin with exactly the records of each.
	Checkpoints []string
}

// Verify is the function of that name with what t knows.
func (t Trust) Verify(dir string) (Report, error) {
	r, err := t.read(dir)
	if err != nil {
		return Report{}, err
	}
	return r.report(), nil
}

// List is the function of that name with what t knows.
func (t Trust) List(dir string, f Filter) ([]Event, Report, error) {
	r, err := t.read(dir)
	if err != nil {
		return nil, Report{}, err
	}
	report := r.report() // of all of them, and DeleteFunc leaves none behind that it takes out
	return slices.DeleteFunc(r.events, func(e Event) bool { return !f.Match(e) }), report, nil
}

// An append takes milliseconds, and longer on a disk that is slow to sync.
const (
	appendTime = 2 * time.Second  // what was written longer ago is no append under way
	growthTime = 20 * time.Second // how long a log is read that is in the middle of an append at every look
)

// written tells whether a log was written to within the last so much time. It is
// false where that cannot be known.
func written(dir string, within time.Duration) bool {
	return slices.ContainsFunc([]string{recordsName, hashesName}, func(name string) bool {
		info, err := os.Stat(filepath.Join(dir, name))
		return err == nil && time.Since(info.ModTime()) < within
	})
}

func (t Trust) read(dir string) (*reading, error) {
	var verifier note.Verifier
	if t.Key != "" {
		v, err := note.NewVerifier(t.Key)
		if err != nil {
			return nil, errors.New("audit: the public key is not one of golang.org/x/mod/sumdb/note, which look like name+hash+data")
		}
		verifier = v
	}
	for begun := time.Now(); ; {
		r, err := read(dir, verifier)
		if err != nil {
			return nil, err
		}
		if r.fresh {
			return nil, fmt.Errorf("audit: there is no log in %s: %w", dir, fs.ErrNotExist)
		}
		// More than the checkpoint covers may be an append under way, so look
		// again before calling it damage.
		if len(r.problems) == 0 && r.tail+r.hashTail > 0 && written(dir, appendTime) && time.Since(begun) < growthTime {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		for _, kept := range t.Checkpoints {
			r.compareKept(kept)
		}
		return r, nil
	}
}

// Filter picks events. Its zero value picks all.
type Filter struct {
	Request string    // request id
	Person  string    // object id, UPN or Slack id of anybody the event names, whatever their part in it
	Since   time.Time // not before
	Until   time.Time // before
}

// Match tells whether the filter picks the event.
func (f Filter) Match(e Event) bool {
	if f.Request != "" && !strings.EqualFold(f.Request, e.Request) ||
		!f.Since.IsZero() && e.At.Before(f.Since) ||
		!f.Until.IsZero() && !e.At.Before(f.Until) {
		return false
	}
	if f.Person == "" {
		return true
	}
	is := func(p Person) bool {
		return strings.EqualFold(f.Person, p.ID) || strings.EqualFold(f.Person, p.UPN) || strings.EqualFold(f.Person, p.Slack)
	}
	return is(e.Actor) || is(e.Requester) || is(e.Target) || slices.ContainsFunc(e.Approvers, is)
}

// Report is what a log looks like.
type Report struct {
	Dir      string
	Records  int64     // that the checkpoint covers
	Tree     string    // the checkpoint's hash over them, base64
	LastID   string    // of the last event
	Late     []int64   // records, counted from 1, that follow one with a higher id: Redis had lost confirmed writes
	First    time.Time // when the first event happened, by Redis' clock
	Last     time.Time // when the last one did
	SignedBy string    // whose signature the checkpoint bears, empty for none
	Checked  bool      // that signature was checked against a key
	Kept     int       // how many checkpoints kept elsewhere were compared
	Problems []Problem
}

// Problem is one thing that is wrong with a log.
type Problem struct {
	File   string // in the directory
	Record int64  // the first bad record, counted from 1; 0 when it is about no record
	Words  string // one or two sentences
}

// OK says that nothing is wrong.
func (r Report) OK() bool { return len(r.Problems) == 0 }

// String says it all, a sentence a line.
func (r Report) String() string {
	var b strings.Builder
	say := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }
	for _, p := range r.Problems {
		say("PROBLEM in %s: %s", p.File, p.Words)
	}
	covered := fmt.Sprintf("%d records", r.Records)
	if r.Records == 1 {
		covered = "1 record"
	}
	if !r.First.IsZero() {
		covered += fmt.Sprintf(", from %s to %s", r.First.UTC().Format(time.RFC3339), r.Last.UTC().Format(time.RFC3339))
	}
	if r.OK() {
		say("The log in %s is as it was written: %s, tree hash %s.", r.Dir, covered, r.Tree)
	} else {
		say("The log in %s is NOT as it was written. Its checkpoint speaks of %s.", r.Dir, covered)
	}
	for _, n := range r.Late {
		say("Record %d was written after record %d and has an earlier time: Redis or its clock was set back there. By itself that is no sign of tampering.", n, n-1)
	}
	switch {
	case r.SignedBy == "":
		say("The checkpoint is not signed: whoever could write to the directory could have written all of it.")
	case !r.Checked:
		say("The checkpoint is signed by %s; the signature was not checked, because no public key was given.", r.SignedBy)
	default:
		say("The checkpoint is signed by %s, and the signature holds.", r.SignedBy)
	}
	switch {
	case r.Kept == 0:
		say("It was compared with no checkpoint kept elsewhere: that the whole directory was put back to an earlier state cannot be ruled out.")
	case r.OK():
		say("It begins with exactly the records of the %d checkpoints kept elsewhere.", r.Kept)
	}
	return b.String()
}

// reading is everything the files of a log say.
type reading struct {
	dir      string
	fresh    bool // there is no log yet
	tree     tlog.Tree
	signedBy string
	checked  bool // against a key
	kept     int
	events   []Event // that the checkpoint covers and that could be read
	last     eventID // of the last one
	ids      eventIDs
	late     []int64 // records with a lower id than the one before
	problems []Problem

	lines  []tlog.Hash // of all complete lines
	stored hashList    // recomputed from those that the checkpoint covers
	size   int64       // of those, in bytes

	// What goes on behind the last record that the checkpoint covers.
	tail      int64 // bytes
	tailLines int   // complete and incomplete ones
	hashTail  int64 // bytes

	hashesMissing bool // there is no hashes file, and the records match the checkpoint
}

// read reads a log and compares its files with each other. It reads the
// checkpoint first and the records last, so that a record which an append adds
// meanwhile only makes the tail longer.
func read(dir string, verifier note.Verifier) (*reading, error) {
	r := &reading{dir: dir}
	checkpoint, hasCheckpoint, err := readFile(dir, checkpointName)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	hashes, hasHashes, err := readFile(dir, hashesName)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	known := false // how many records there should be
	if hasCheckpoint {
		r.tree, r.signedBy, err = parseCheckpoint(checkpoint, verifier)
		if err != nil {
			r.problem(checkpointName, 0, "The file %s %v.", checkpointName, err)
		}
		r.checked = verifier != nil && err == nil
		known = r.tree != tlog.Tree{}
	}
	malformed, err := r.readRecords(known)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	if !hasCheckpoint {
		if len(r.lines) == 0 && r.tail == 0 && len(hashes) == 0 {
			r.fresh = true
			return r, nil
		}
		r.problem(checkpointName, 0, "The file %s is missing, so that nothing says how many records there should be.", checkpointName)
	}

	covered := r.lines
	if known {
		covered = covered[:min(int64(len(covered)), r.tree.N)]
	}
	r.stored = storedHashes(covered)
	switch {
	case !known:
	case int64(len(covered)) == r.tree.N && treeHash(r.tree.N, r.stored) == r.tree.Hash:
		r.problems = append(r.problems, malformed...)
		r.compareHashes(hashes, hasHashes)
	default:
		r.nameFirstBad(leavesOf(hashes, r.tree.N))
	}
	return r, nil
}

// readRecords reads the lines, and the events among those that the checkpoint
// covers, or among all if that is not known. It returns the lines that are not
// events, which are worth mentioning only if they are what was written.
func (r *reading) readRecords(known bool) (malformed []Problem, err error) {
	f, err := os.Open(filepath.Join(r.dir, recordsName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 1<<16)
	for {
		line, err := in.ReadBytes('\n')
		if err == io.EOF {
			if len(line) > 0 {
				r.tail += int64(len(line))
				r.tailLines++
			}
			return malformed, nil
		}
		if err != nil {
			return nil, err
		}
		record := line[:len(line)-1]
		r.lines = append(r.lines, tlog.RecordHash(record))
		n := int64(len(r.lines))
		if known && n > r.tree.N {
			r.tail += int64(len(line))
			r.tailLines++
			continue
		}
		r.size += int64(len(line))
		var e Event
		if err := json.Unmarshal(record, &e); err != nil {
			malformed = append(malformed, Problem{recordsName, n, fmt.Sprintf("Record %d is not an event (%v).", n, err)})
			continue
		}
		id, err := parseEventID(e.ID)
		switch {
		case err != nil:
			malformed = append(malformed, Problem{recordsName, n, fmt.Sprintf("Record %d has the id %q, which is none.", n, e.ID)})
			continue
		case r.ids.has(id):
			malformed = append(malformed, Problem{recordsName, n, fmt.Sprintf("Record %d has the id %s, which is that of an earlier record.", n, id)})
			continue
		case id.less(r.last):
			r.late = append(r.late, n)
		}
		r.last = id
		r.ids.add(id)
		r.events = append(r.events, e)
	}
}

// compareHashes compares the hashes file with records that match the
// checkpoint.
func (r *reading) compareHashes(hashes []byte, exists bool) {
	want := hashBytes(r.stored)
	const cure = "The records match the checkpoint, so it is this file that was changed; once it is deleted, Countersign writes it anew."
	switch {
	case !exists:
		r.hashesMissing = true
	case len(hashes) < len(want):
		r.problem(hashesName, 0, "The file %s has %d bytes and needs %d. %s", hashesName, len(hashes), len(want), cure)
	case !bytes.HasPrefix(hashes, want):
		i := 0
		for hashes[i] == want[i] {
			i++
		}
		level, n := tlog.SplitStoredHashIndex(int64(i) / tlog.HashSize)
		record := (n + 1) << level // the one whose append wrote this hash
		r.problem(hashesName, record, "The file %s is wrong from byte %d on, which was written with record %d. %s", hashesName, i, record, cure)
	default:
		r.hashTail = int64(len(hashes) - len(want))
	}
}

// nameFirstBad finds out where the records differ from what was written, with
// the help of the stored record hashes, which are believed if they match the
// checkpoint.
func (r *reading) nameFirstBad(leaves []tlog.Hash) {
	record, words := firstDifference(r.lines, leaves)
	if have := int64(len(r.lines)); record == 0 && have < r.tree.N {
		record, words = have+1, fmt.Sprintf("There are %d records where the checkpoint speaks of %d.", have, r.tree.N)
	}
	complete := int64(len(leaves)) == r.tree.N
	switch {
	case complete && treeHash(r.tree.N, storedHashes(leaves)) == r.tree.Hash:
		if record > 1 {
			words += " Every record before it is as it was written."
		}
		r.problem(recordsName, record, "%s", words)
	case record > 0:
		r.problem(recordsName, record, "%s The file %s does not match the checkpoint either, so that nothing proves the rest.", words, hashesName)
	case complete:
		r.problem(checkpointName, 0, "The files %s and %s agree with each other and not with the checkpoint: either both were rewritten or the checkpoint was changed, and which records are bad cannot be told.", recordsName, hashesName)
	default:
		r.problem(recordsName, 0, "The records do not match the checkpoint, and without a complete file %s it cannot be told which.", hashesName)
	}
}

// firstDifference compares lines with the hashes of the records that should be
// there, and says what happened at the first one that is not. Lines beyond the
// last record are not compared. It returns 0 if there is no difference.
func firstDifference(lines, leaves []tlog.Hash) (record int64, words string) {
	i := 0
	for i < len(lines) && i < len(leaves) && lines[i] == leaves[i] {
		i++
	}
	n := i + 1
	switch {
	case i == len(leaves):
		return 0, ""
	case i == len(lines) && n == len(leaves):
		return int64(n), fmt.Sprintf("Record %d, the last one, is missing.", n)
	case i == len(lines):
		return int64(n), fmt.Sprintf("Records %d to %d, the last ones, are missing.", n, len(leaves))
	}
	holds := slices.Index(leaves, lines[i]) + 1     // the record that is in this line
	moved := slices.Index(lines[i:], leaves[i]) + n // the line that this record is in
	switch {
	case moved >= n && holds == 0:
		words = fmt.Sprintf("Line %d is no record: something was put in before record %d, which is line %d now.", n, n, moved)
	case moved >= n:
		words = fmt.Sprintf("Record %d is not in its place: line %d holds record %d, and record %d is line %d now.", n, n, holds, n, moved)
	case holds == 0:
		words = fmt.Sprintf("Record %d was changed.", n)
	case holds < n:
		words = fmt.Sprintf("Record %d is missing: line %d repeats record %d.", n, n, holds)
	case holds == n+1:
		words = fmt.Sprintf("Record %d was removed: line %d holds record %d.", n, n, holds)
	default:
		words = fmt.Sprintf("Records %d to %d were removed: line %d holds record %d.", n, holds-1, n, holds)
	}
	return int64(n), words
}

// compareKept compares the records with a checkpoint kept elsewhere.
func (r *reading) compareKept(text string) {
	r.kept++
	kept, err := parseKept(text)
	have := int64(len(r.lines))
	if r.tree != (tlog.Tree{}) {
		have = min(have, r.tree.N)
	}
	switch {
	case err != nil:
		r.problem(checkpointName, 0, "The checkpoint kept elsewhere %v.", err)
	case kept.N > have:
		r.problem(recordsName, have+1, "A checkpoint kept elsewhere covers %d records, and there are %d: the newest were removed, and the checkpoint with them.", kept.N, have)
	case treeHash(kept.N, r.stored) != kept.Hash:
		r.problem(recordsName, 0, "The first %d records are not those of the checkpoint kept elsewhere (%s): this history was rewritten.", kept.N, kept.Hash)
	}
}

// interrupted says that what goes on behind the checkpoint's last record is no
// more than a single interrupted append leaves.
func (r *reading) interrupted() bool {
	one := (tlog.StoredHashCount(r.tree.N+1) - tlog.StoredHashCount(r.tree.N)) * tlog.HashSize
	return r.tailLines <= 1 && r.hashTail <= one
}

func (r *reading) problem(file string, record int64, format string, a ...any) {
	r.problems = append(r.problems, Problem{file, record, fmt.Sprintf(format, a...)})
}

// report says what was read, with what goes on behind the checkpoint's last
// record as a problem too.
func (r *reading) report() Report {
	report := Report{
		Dir: r.dir, Records: r.tree.N, Tree: r.tree.Hash.String(), LastID: r.last.String(),
		Late:     slices.Clone(r.late),
		SignedBy: r.signedBy, Checked: r.checked, Kept: r.kept, Problems: slices.Clone(r.problems),
	}
	if len(r.events) > 0 {
		report.First, report.Last = r.events[0].At, r.events[len(r.events)-1].At
	}
	n := r.tree.N
	problem := func(file string, format string, a ...any) {
		report.Problems = append(report.Problems, Problem{file, n + 1, fmt.Sprintf(format, a...)})
	}
	const cut = "It is no part of the log, and Countersign cuts it off when it opens it."
	switch {
	case r.tailLines > 1:
		problem(recordsName, "There are %d lines after record %d, the last one that the checkpoint covers: an interrupted append leaves one at most, so somebody added them.", r.tailLines, n)
	case r.tailLines == 1:
		problem(recordsName, "There are %d bytes after record %d, the last one that the checkpoint covers: an append was interrupted, or somebody added a line. %s", r.tail, n, cut)
	case !r.interrupted():
		problem(hashesName, "There are %d bytes after the hashes of record %d, more than an interrupted append leaves: somebody added them.", r.hashTail, n)
	case r.hashTail > 0:
		problem(hashesName, "There are %d bytes after the hashes of record %d: an append was interrupted, or somebody added them. %s", r.hashTail, n, cut)
	case r.hashesMissing:
		problem(hashesName, "The file %s is missing. The records match the checkpoint, and Countersign writes it anew when it opens the log.", hashesName)
	}
	return report
}

// hashList is stored hashes in memory.
type hashList []tlog.Hash

// ReadHashes implements [tlog.HashReader].
func (l hashList) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	found := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if x < 0 || x >= int64(len(l)) {
			return nil, fmt.Errorf("audit: no stored hash %d", x)
		}
		found[i] = l[x]
	}
	return found, nil
}

// storedHashes are the stored hashes of the tree over these record hashes.
func storedHashes(leaves []tlog.Hash) hashList {
	stored := make(hashList, 0, 2*len(leaves))
	for n, leaf := range leaves {
		// It reads only what earlier rounds have stored, so it cannot fail.
		added, _ := tlog.StoredHashesForRecordHash(int64(n), leaf, stored)
		stored = append(stored, added...)
	}
	return stored
}

// treeHash is the hash of the tree over the first n records; zero, which is no
// tree's hash, if the stored hashes do not reach that far.
func treeHash(n int64, stored hashList) tlog.Hash {
	hash, err := tlog.TreeHash(n, stored)
	if err != nil {
		return tlog.Hash{}
	}
	return hash
}

// leavesOf picks the record hashes of up to n records out of a hashes file.
func leavesOf(hashes []byte, n int64) []tlog.Hash {
	var leaves []tlog.Hash
	for i := range n {
		at := tlog.StoredHashIndex(0, i) * tlog.HashSize
		if at+tlog.HashSize > int64(len(hashes)) {
			break
		}
		leaves = append(leaves, tlog.Hash(hashes[at:at+tlog.HashSize]))
	}
	return leaves
}
