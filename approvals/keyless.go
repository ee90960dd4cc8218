package approvals

import (
	"log/slog"
	"sync"
	"time"
)

// keyless is what one process came upon and cannot open, because its ring does
// not have the key. Whoever has that key carries it on: this process neither
// changes it nor puts it off, and only looks again after a while.
type keyless struct {
	mu   sync.Mutex
	met  map[string]bool // keys, by name, and whether the log says so
	left map[string]time.Time
}

// manyKeys is more than any ring has. Whoever may write to Redis can name keys
// without end.
const manyKeys = 50

// meet takes note of the key that an error is about. It answers whether it is
// about one.
func (k *keyless) meet(err error) bool {
	name, ok := missingKey(err)
	if !ok {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.met == nil {
		k.met = map[string]bool{}
	}
	if _, known := k.met[name]; !known && len(k.met) < manyKeys {
		k.met[name] = false
	}
	return true
}

// tell says once of each key that it is missing.
func (k *keyless) tell(log *slog.Logger) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, told := range k.met {
		if !told {
			k.met[name] = true
			log.Error("something in Redis is sealed with a key that this process does not have. It is left to those that have it: "+
				"put that key last in COUNTERSIGN_KEYS here too, and restart", "key", name)
		}
	}
}

// leave has this process leave something alone for a while.
func (k *keyless) leave(name string, by time.Duration, err error) {
	k.meet(err)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.left == nil {
		k.left = map[string]time.Time{}
	}
	k.left[name] = time.Now().Add(by)
}

// leaves says whether it does.
func (k *keyless) leaves(name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	until, ok := k.left[name]
	return ok && time.Now().Before(until)
}

// count is how many it leaves alone. What is listed must be longer by so many,
// or they would hide the rest.
func (k *keyless) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, until := range k.left {
		if !time.Now().Before(until) {
			delete(k.left, name)
		}
	}
	return len(k.left)
}
