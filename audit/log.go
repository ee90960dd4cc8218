package audit

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"countersign/internal/files"
)

// The files of a log.
const (
	recordsName    = "events.jsonl"
	hashesName     = "hashes"
	checkpointName = "checkpoint"
	lockName       = "lock"
)

// ErrClosed is returned by a log that was closed.
var ErrClosed = errors.New("audit: the log is closed")

// LockedError says that another process has the log open.
type LockedError struct{ Dir string }

func (e *LockedError) Error() string {
	return fmt.Sprintf("audit: the log in %s is in use by another Countersign. Each process needs a directory of its own: stop the other one, or set audit.dir to another directory", e.Dir)
}

// DamagedError means that the files are not what this log wrote. Nothing was
// changed.
type DamagedError struct{ Report Report }

func (e *DamagedError) Error() string {
	var words []string
	for _, p := range e.Report.Problems {
		words = append(words, p.Words)
	}
	return fmt.Sprintf("audit: the log in %s is not as it was written, and nothing is added to it. %s Keep the directory as it is for whoever looks into this, and set audit.dir to a new one to go on",
		e.Report.Dir, strings.Join(words, " "))
}

// Log is a tamper-evident log with one writer. Its methods may be called from
// several goroutines.
type Log struct {
	dir  string
	key  *key
	disk disk
	lock *os.File

	mu        sync.Mutex
	closed    bool
	unsettled bool // an append failed midway: the files are read back before the next one
	tree      tlog.Tree
	size      int64 // of the records file
	last      eventID
	ids       eventIDs // of all records
	signed    []byte   // the checkpoint file
	repaired  []string
}

// Open opens the log in dir, and starts one if the directory is empty or does
// not exist. It reads everything and checks it against the checkpoint.
//
// Errors: *[LockedError], *[DamagedError], or one of the file system.
func Open(dir string) (*Log, error) { return open(dir, nil, osDisk{dir}) }

// OpenSigned is [Open] for a log with signed checkpoints. secret is a key in the
// format of [note.GenerateKey]. A log keeps the key that it was started with:
// one that was started without a key, or with another, is refused.
func OpenSigned(dir, secret string) (*Log, error) {
	k, err := parseKey(secret)
	if err != nil {
		return nil, err
	}
	return open(dir, k, osDisk{dir})
}

func open(dir string, k *key, d disk) (*Log, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	lock, ok, err := files.Lock(filepath.Join(dir, lockName))
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	if !ok {
		return nil, &LockedError{dir}
	}
	l := &Log{dir: dir, key: k, disk: d, lock: lock}
	if err := l.settle(); err != nil {
		lock.Close()
		return nil, err
	}
	return l, nil
}

// Append records the event and returns when it is on disk. An event whose id is
// recorded already is acknowledged and skipped. An event with a lower id than
// [Log.Last] that is not recorded comes from a Redis that lost confirmed writes,
// and is recorded like any other.
//
// After an error the event is not acknowledged and may be appended again any
// number of times; it is recorded once. ctx is checked before anything is
// written, not afterwards.
func (l *Log) Append(ctx context.Context, e Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	id, err := parseEventID(e.ID)
	if err != nil {
		return err
	}
	if l.unsettled {
		if err := l.settle(); err != nil {
			return err
		}
	}
	if l.ids.has(id) {
		return nil
	}
	line, err := marshal(e)
	if err != nil {
		return fmt.Errorf("audit: event %s is not recorded: %w", e.ID, err)
	}
	l.unsettled = true
	if err := l.write(line, id); err != nil {
		return fmt.Errorf("audit: event %s is not recorded: %w", e.ID, err)
	}
	l.unsettled = false
	return nil
}

// write adds one record: the line, its hashes, and the checkpoint that commits
// both.
func (l *Log) write(line []byte, id eventID) error {
	hashesFile, err := os.Open(filepath.Join(l.dir, hashesName))
	if err != nil {
		return err
	}
	defer hashesFile.Close()
	have := tlog.StoredHashCount(l.tree.N)
	var added []tlog.Hash
	hashes := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		found := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			if x >= have {
				found[i] = added[x-have]
			} else if _, err := hashesFile.ReadAt(found[i][:], x*tlog.HashSize); err != nil {
				return nil, err
			}
		}
		return found, nil
	})

	// Nothing is built upon files that somebody else has touched meanwhile.
	if err := l.expectSize(recordsName, l.size); err != nil {
		return err
	}
	if err := l.expectSize(hashesName, have*tlog.HashSize); err != nil {
		return err
	}
	if root, err := tlog.TreeHash(l.tree.N, hashes); err != nil {
		return err
	} else if root != l.tree.Hash {
		return fmt.Errorf("the file %s in %s was changed by somebody else", hashesName, l.dir)
	}

	if added, err = tlog.StoredHashes(l.tree.N, line, hashes); err != nil {
		return err
	}
	root, err := tlog.TreeHash(l.tree.N+1, hashes)
	if err != nil {
		return err
	}
	tree := tlog.Tree{N: l.tree.N + 1, Hash: root}
	signed, err := formatCheckpoint(tree, l.key)
	if err != nil {
		return err
	}
	record := append(bytes.Clone(line), '\n')
	if err := l.disk.writeAt(recordsName, record, l.size); err != nil {
		return err
	}
	if err := l.disk.writeAt(hashesName, hashBytes(added), have*tlog.HashSize); err != nil {
		return err
	}
	if err := l.disk.replace(checkpointName, signed); err != nil {
		return err
	}
	l.tree, l.size, l.last, l.signed = tree, l.size+int64(len(record)), id, signed
	l.ids.add(id)
	return nil
}

// settle reads the files and brings them to the state of their checkpoint: it
// starts a new log, or removes what an interrupted append left behind. Anything
// else that is wrong stays unchanged and is an error.
func (l *Log) settle() error {
	var verifier note.Verifier
	if l.key != nil {
		verifier = l.key.verifier
	}
	r, err := read(l.dir, verifier)
	if err != nil {
		return err
	}
	if r.fresh {
		r.tree.Hash = treeHash(0, nil)
		for _, name := range []string{recordsName, hashesName} {
			if err := l.disk.writeAt(name, nil, 0); err != nil {
				return fmt.Errorf("audit: cannot begin a log: %w", err)
			}
		}
	}
	if l.key == nil && r.signedBy != "" {
		r.problem(checkpointName, 0, "Its checkpoints are signed by %s, and without that key this log cannot be continued.", r.signedBy)
	}
	if len(r.problems) > 0 || !r.interrupted() {
		return &DamagedError{Report: r.report()}
	}
	if r.tail > 0 {
		if err := l.disk.truncate(recordsName, r.size); err != nil {
			return fmt.Errorf("audit: cannot cut off an unfinished record: %w", err)
		}
		l.repaired = append(l.repaired, fmt.Sprintf(
			"%s: cut off %d bytes after record %d, which the checkpoint does not cover: an append was interrupted before it was acknowledged, and its event is recorded when it comes again.",
			recordsName, r.tail, r.tree.N))
	}
	stored := tlog.StoredHashCount(r.tree.N) * tlog.HashSize
	if r.hashTail > 0 {
		if err := l.disk.truncate(hashesName, stored); err != nil {
			return fmt.Errorf("audit: cannot cut off the hashes of an unfinished record: %w", err)
		}
	}
	if r.hashesMissing {
		if err := l.disk.writeAt(hashesName, hashBytes(r.stored), 0); err != nil {
			return fmt.Errorf("audit: cannot write the hashes anew: %w", err)
		}
		l.repaired = append(l.repaired, fmt.Sprintf(
			"%s: was missing and is written anew from the %d records, which match the checkpoint.", hashesName, r.tree.N))
	}

	// The checkpoint may be in place without being durable, if the process
	// ended between the two. Events it covers are about to be acknowledged.
	signed, err := formatCheckpoint(r.tree, l.key)
	if err != nil {
		return err
	}
	if err := l.disk.replace(checkpointName, signed); err != nil {
		return fmt.Errorf("audit: cannot write the checkpoint: %w", err)
	}
	l.tree, l.size, l.last, l.ids, l.signed, l.unsettled = r.tree, r.size, r.last, r.ids, signed, false
	return nil
}

func (l *Log) expectSize(name string, size int64) error {
	info, err := os.Stat(filepath.Join(l.dir, name))
	if err != nil {
		return err
	}
	if info.Size() != size {
		return fmt.Errorf("the file %s in %s has %d bytes where this process left %d: somebody else writes to it", name, l.dir, info.Size(), size)
	}
	return nil
}

// Checkpoint is the present checkpoint: the number of records, the hash of the tree
// over them and, with a key, the signature. Kept somewhere else, it shows later
// that the log still begins with these records; see [Trust].
func (l *Log) Checkpoint() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.signed)
}

// Len is the number of records.
func (l *Log) Len() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tree.N
}

// Last is the id of the last event recorded, "0-0" if there is none.
func (l *Log) Last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last.String()
}

// Repaired tells the operator what an interrupted append had left behind and how
// it was repaired, one sentence each. It is almost always empty.
func (l *Log) Repaired() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.repaired...)
}

// Close waits for a running append and unlocks the directory.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	return l.lock.Close()
}

// marshal makes the record of an event: JSON in one line, with < and & as they
// are, since people read it.
func marshal(e Event) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// eventID is the id of an entry in a Redis stream: milliseconds, then a number
// among those of the same millisecond.
type eventID struct{ ms, seq uint64 }

func parseEventID(s string) (eventID, error) {
	ms, seq, ok := strings.Cut(s, "-")
	m, err1 := strconv.ParseUint(ms, 10, 64)
	n, err2 := strconv.ParseUint(seq, 10, 64)
	if id := (eventID{m, n}); ok && err1 == nil && err2 == nil && id.String() == s {
		return id, nil
	}
	return eventID{}, fmt.Errorf("audit: %q is not an event id: it needs the form milliseconds-sequence", s)
}

func (i eventID) String() string { return fmt.Sprintf("%d-%d", i.ms, i.seq) }

func (i eventID) less(j eventID) bool { return i.compare(j) < 0 }

func (i eventID) compare(j eventID) int {
	return cmp.Or(cmp.Compare(i.ms, j.ms), cmp.Compare(i.seq, j.seq))
}

// eventIDs are ids in their order. Almost always the next one is the highest.
type eventIDs []eventID

func (s eventIDs) has(id eventID) bool {
	_, found := slices.BinarySearchFunc(s, id, eventID.compare)
	return found
}

func (s *eventIDs) add(id eventID) {
	at, _ := slices.BinarySearchFunc(*s, id, eventID.compare)
	*s = slices.Insert(*s, at, id)
}

func hashBytes(hashes []tlog.Hash) []byte {
	b := make([]byte, 0, len(hashes)*tlog.HashSize)
	for _, h := range hashes {
		b = append(b, h[:]...)
	}
	return b
}

// disk is the storage of a log. If a method returns nil, its effect survives a
// power failure. If it returns an error, it may have done everything, a part, or
// nothing.
type disk interface {
	// writeAt writes data into a file, which it creates if need be.
	writeAt(name string, data []byte, offset int64) error
	// truncate cuts a file.
	truncate(name string, size int64) error
	// replace puts data in the place of a file, all or nothing. Files created
	// before are durable with it.
	replace(name string, data []byte) error
}

type osDisk struct{ dir string }

func (d osDisk) writeAt(name string, data []byte, offset int64) error {
	return d.change(name, func(f *os.File) error {
		_, err := f.WriteAt(data, offset)
		return err
	})
}

func (d osDisk) truncate(name string, size int64) error {
	return d.change(name, func(f *os.File) error { return f.Truncate(size) })
}

func (d osDisk) replace(name string, data []byte) error {
	return files.Replace(filepath.Join(d.dir, name), data)
}

func (d osDisk) change(name string, change func(*os.File) error) error {
	f, err := os.OpenFile(filepath.Join(d.dir, name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := change(f); err != nil {
		f.Close()
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// readFile returns nothing for a file that does not exist.
func readFile(dir, name string) (data []byte, exists bool, err error) {
	data, err = os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	return data, err == nil, err
}
