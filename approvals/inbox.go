package approvals

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// maxDeliveries is how often an inbox entry is delivered before it is moved to
// the dead letters.
const maxDeliveries = 5

// inboxGroup is the one consumer group of the inbox.
const inboxGroup = "workers"

// Inbox stores interactions before they are acked. What was acked is as durable
// as this Redis.
type Inbox struct {
	putClient redis.UniversalClient // for Put: no retries, honours its context
	rdb       redis.UniversalClient
	ring      *Ring
	keys      keys
	timing    Timing
	log       *slog.Logger
	outage    *outage // the store's

	missingKeys *missingKeys              // the store's
	yields      atomic.Pointer[time.Time] // until when others come first to what is left
}

// NewInbox returns the inbox beside a store. quick must have MaxRetries -1 and
// ContextTimeoutEnabled, so that a write never outlasts the time for an ack.
func NewInbox(s *Store, quick redis.UniversalClient, log *slog.Logger) *Inbox {
	return &Inbox{putClient: quick, rdb: s.rdb, ring: s.ring, keys: s.keys, timing: s.timing, log: log, outage: &s.outage, missingKeys: &s.missingKeys}
}

// Arrival is one interaction as a reader receives it.
type Arrival struct {
	Envelope   string // Slack's envelope id: the operation id of all that follows from it
	Payload    []byte
	At         time.Time // Redis' clock, when it arrived
	Stale      bool      // too old to be executed: tell its author
	Deliveries int64     // this one included
	Poisoned   bool      // tried too often: tell its author
}

// putScript stores one entry per envelope id, whatever Slack redelivers. The key
// of the envelope outlives every redelivery.
var putScript = redis.NewScript(`
if redis.call('SET', KEYS[2], '1', 'NX', 'PX', ARGV[3]) then
  redis.call('XADD', KEYS[1], '*', 'envelope', ARGV[1], 'body', ARGV[2])
  return 1
end
return 0`)

// Put stores an interaction. It returns within timing.InboxWrite. An error means
// that the write was not confirmed; the entry may exist nevertheless.
func (in *Inbox) Put(ctx context.Context, envelope string, payload []byte) error {
	ctx, cancel := context.WithTimeout(ctx, in.timing.InboxWrite)
	defer cancel()
	sealed := in.ring.Seal("inbox", envelope, payload)
	err := putScript.Run(ctx, in.putClient, []string{in.keys.inbox(), in.keys.envelope(envelope)},
		envelope, sealed, (2 * in.timing.Stale).Milliseconds()).Err()
	if err != nil {
		return fmt.Errorf("approvals: the inbox did not confirm %s: %w", envelope, err)
	}
	return nil
}

// Consume passes entries to handle, several at a time, until ctx ends; then it
// waits for those in progress. An entry is removed when handle returns nil, and
// redelivered otherwise, so handle must be idempotent by Envelope. Entries of a
// reader that died are taken over, and so are those for which handle, or this
// process, lacks a key.
func (in *Inbox) Consume(ctx context.Context, name string, concurrency int, handle func(context.Context, Arrival) error) {
	concurrency = max(concurrency, 1)
	var busy sync.WaitGroup
	defer busy.Wait()
	slots := make(chan struct{}, concurrency)
	backoff := time.Duration(0)
	grouped := false
	scan := "0-0" // where the search for dead readers' entries goes on
	for ctx.Err() == nil {
		if backoff > 0 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(backoff):
			}
		}
		if !grouped {
			err := in.rdb.XGroupCreateMkStream(ctx, in.keys.inbox(), inboxGroup, "0").Err()
			if err != nil && !redis.HasErrorPrefix(err, "BUSYGROUP") {
				backoff = in.logReadError(backoff, err)
				continue
			}
			grouped = true
		}
		// Only what a hand is free for is read: an entry that waited in here
		// would be taken for a dead reader's, or left lying at a stop.
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		free := 1
		for full := false; free < concurrency && !full; {
			select {
			case slots <- struct{}{}:
				free++
			default:
				full = true
			}
		}
		var entries []delivered
		var err error
		entries, scan, err = in.next(ctx, name, free, scan)
		for range free - len(entries) {
			<-slots
		}
		for _, e := range entries {
			busy.Go(func() {
				defer func() { <-slots }()
				in.process(context.WithoutCancel(ctx), name, e, handle)
			})
		}
		if err != nil && ctx.Err() == nil {
			grouped = !redis.HasErrorPrefix(err, "NOGROUP") // a Redis that lost the stream gets it again
			backoff = in.logReadError(backoff, err)
			continue
		}
		backoff = 0
	}
}

func (in *Inbox) logReadError(backoff time.Duration, err error) time.Duration {
	in.outage.logError(in.log, "the inbox cannot be read", err)
	return min(max(2*backoff, 100*time.Millisecond), 5*time.Second)
}

// delivered is one entry of the stream as it was delivered to a reader.
type delivered struct {
	redis.XMessage
	deliveries int64
}

// next takes over the entries of a dead reader, or waits for new ones. Entries
// that it returns beside an error were delivered, too.
func (in *Inbox) next(ctx context.Context, name string, count int, scan string) ([]delivered, string, error) {
	idle := in.timing.Takeover
	if until := in.yields.Load(); until != nil && time.Now().Before(*until) {
		idle *= 2
	}
	left, scan, err := in.rdb.XAutoClaim(ctx, &redis.XAutoClaimArgs{
		Stream: in.keys.inbox(), Group: inboxGroup, Consumer: name, MinIdle: idle, Start: scan, Count: int64(count),
	}).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, "0-0", err
	}
	var list []delivered
	for _, m := range left {
		if m.Values == nil {
			continue // deleted in the meantime
		}
		pending, err := in.rdb.XPendingExt(ctx, &redis.XPendingExtArgs{Stream: in.keys.inbox(), Group: inboxGroup, Start: m.ID, End: m.ID, Count: 1}).Result()
		if err != nil {
			return list, scan, err // the rest comes again
		}
		d := delivered{XMessage: m, deliveries: 1}
		if len(pending) == 1 {
			d.deliveries = pending[0].RetryCount
		}
		list = append(list, d)
	}
	if len(list) > 0 {
		return list, scan, nil
	}
	streams, err := in.rdb.XReadGroup(ctx, &redis.XReadGroupArgs{
		Group: inboxGroup, Consumer: name, Streams: []string{in.keys.inbox(), ">"}, Count: int64(count), Block: in.timing.Follow,
	}).Result()
	if errors.Is(err, redis.Nil) {
		return nil, scan, nil
	}
	if err != nil {
		return nil, scan, err
	}
	for _, s := range streams {
		for _, m := range s.Messages {
			list = append(list, delivered{XMessage: m, deliveries: 1})
		}
	}
	return list, scan, nil
}

// keepAlive tells the consumer group, while handle is working, that this reader
// is alive, so that a slow look-up is not mistaken for a dead process.
func (in *Inbox) keepAlive(name string, d delivered) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(in.timing.Takeover / 3):
			}
			// With JUSTID and RETRYCOUNT this is no delivery.
			err := in.rdb.Do(ctx, "XCLAIM", in.keys.inbox(), inboxGroup, name, 0, d.ID, "RETRYCOUNT", d.deliveries, "JUSTID").Err()
			if err != nil && !errors.Is(err, redis.Nil) && ctx.Err() == nil {
				in.outage.logError(in.log, "the claim on an inbox entry could not be renewed; another process may execute it too", err, "entry", d.ID)
			}
		}
	}()
	return func() { cancel(); <-done }
}

// process passes an entry to handle, recovers from its panics, and removes the
// entry.
func (in *Inbox) process(ctx context.Context, name string, d delivered, handle func(context.Context, Arrival) error) {
	envelope, _ := d.Values["envelope"].(string)
	body, _ := d.Values["body"].(string)
	payload, sealed := in.ring.Open("inbox", envelope, body)
	if sealed != nil && !errors.Is(sealed, ErrNoKey) {
		in.log.Error("an inbox entry cannot be decrypted and is moved to the dead letters", "envelope", envelope, "error", sealed)
		in.moveToDeadLetters(ctx, d)
		return
	}
	e := Arrival{Envelope: envelope, Payload: payload, At: streamTime(d.ID), Deliveries: d.deliveries, Poisoned: d.deliveries > maxDeliveries}
	if now, _, err := readAt(ctx, in.rdb, in.keys); err == nil {
		e.Stale = now.Sub(e.At) > in.timing.Stale
	} else {
		return // without a clock its age is unknown; it comes again
	}
	if sealed != nil {
		in.skipForMissingKey(ctx, name, d, e, d.deliveries-1, sealed)
		return
	}
	release := in.keepAlive(name, d)
	err := func() (err error) {
		defer release()
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v", p)
			}
		}()
		return handle(ctx, e)
	}()
	switch {
	case e.Poisoned:
		in.log.Error("an inbox entry failed too often and is moved to the dead letters", "envelope", envelope, "error", err)
		in.moveToDeadLetters(ctx, d)
	case errors.Is(err, ErrNoKey): // of what the entry is about, and perhaps by now executed
		in.skipForMissingKey(ctx, name, d, e, max(d.deliveries-1, 1), err)
	case err != nil:
		in.log.Warn("an inbox entry failed and will be tried again", "envelope", envelope, "delivery", e.Deliveries, "error", err)
	default:
		in.acknowledge(ctx, d.ID)
	}
}

// skipForMissingKey makes an entry that this process has no key for available to
// another process. While the entry is fresh this does not count as a delivery,
// which would bring it closer to the dead letters: it can be taken over at once,
// and this process comes last. A stale entry counts as delivered, and its author
// cannot be determined here.
func (in *Inbox) skipForMissingKey(ctx context.Context, name string, d delivered, e Arrival, tries int64, why error) {
	until := time.Now().Add(2 * in.timing.Takeover)
	in.yields.Store(&until)
	in.missingKeys.isMissingKey(why)
	in.missingKeys.logOnce(in.log)
	switch {
	case !e.Stale:
		// With JUSTID and RETRYCOUNT this is no delivery, and with IDLE the wait for a dead reader is over.
		err := in.rdb.Do(ctx, "XCLAIM", in.keys.inbox(), inboxGroup, name, 0, d.ID, "IDLE", in.timing.Takeover.Milliseconds(), "RETRYCOUNT", tries, "JUSTID").Err()
		if err != nil && !errors.Is(err, redis.Nil) {
			in.outage.logError(in.log, "an inbox entry could not be released for a process with its key; it waits until one takes it over", err, "entry", d.ID)
		}
	case e.Poisoned:
		in.log.Error("an inbox entry is moved to the dead letters, because no process with its key took it: the interaction is not executed, and its author cannot be told",
			"envelope", e.Envelope, "at", e.At, "error", why)
		in.moveToDeadLetters(ctx, d)
	}
}

func (in *Inbox) acknowledge(ctx context.Context, id string) {
	pipe := in.rdb.TxPipeline()
	pipe.XAck(ctx, in.keys.inbox(), inboxGroup, id)
	pipe.XDel(ctx, in.keys.inbox(), id)
	if _, err := pipe.Exec(ctx); err != nil {
		in.outage.logError(in.log, "an inbox entry was executed but not removed, and will be redelivered", err, "entry", id)
	}
}

func (in *Inbox) moveToDeadLetters(ctx context.Context, d delivered) {
	pipe := in.rdb.TxPipeline()
	pipe.XAdd(ctx, &redis.XAddArgs{Stream: in.keys.deadLetters(), MaxLen: 1000, Values: d.Values})
	pipe.XAck(ctx, in.keys.inbox(), inboxGroup, d.ID)
	pipe.XDel(ctx, in.keys.inbox(), d.ID)
	if _, err := pipe.Exec(ctx); err != nil {
		in.outage.logError(in.log, "an inbox entry was not moved to the dead letters, and will be redelivered", err, "entry", d.ID)
	}
}
