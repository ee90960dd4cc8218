package approvals

import (
	"log/slog"
	"sync"
	"time"
)

// missingKeys remembers what this process cannot open, because its key ring
// lacks the key. The process neither changes nor delays it and only looks again
// after a while, so that a process with the key can handle it.
type missingKeys struct {
	mu      sync.Mutex
	seen    map[string]bool // keys, by name, and whether the log says so
	skipped map[string]time.Time
}

// maxMissingKeys is more than any ring has. Without it, whoever may write to
// Redis could fill memory with invented key names.
const maxMissingKeys = 50

// isMissingKey reports whether an error is about a missing key, and remembers
// that key.
func (k *missingKeys) isMissingKey(err error) bool {
	name, ok := missingKeyName(err)
	if !ok {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.seen == nil {
		k.seen = map[string]bool{}
	}
	if _, known := k.seen[name]; !known && len(k.seen) < maxMissingKeys {
		k.seen[name] = false
	}
	return true
}

// logOnce logs each missing key once.
func (k *missingKeys) logOnce(log *slog.Logger) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, told := range k.seen {
		if !told {
			k.seen[name] = true
			log.Error("something in Redis is sealed with a key that this process does not have. This process skips it: "+
				"put that key last in COUNTERSIGN_KEYS here too, and restart", "key", name)
		}
	}
}

// skip makes this process ignore an item for a while.
func (k *missingKeys) skip(name string, by time.Duration, err error) {
	k.isMissingKey(err)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.skipped == nil {
		k.skipped = map[string]time.Time{}
	}
	k.skipped[name] = time.Now().Add(by)
}

// skips reports whether this process ignores an item at the moment.
func (k *missingKeys) skips(name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	until, ok := k.skipped[name]
	return ok && time.Now().Before(until)
}

// count is how many items this process ignores. A list has to be read longer by
// that number, or they would hide the others.
func (k *missingKeys) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, until := range k.skipped {
		if !time.Now().Before(until) {
			delete(k.skipped, name)
		}
	}
	return len(k.skipped)
}
