package approvals

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// outage is since when Redis does not serve this process. Half a dozen loops
// notice it at once, and go on trying; the log says it once, by whoever is
// first, and once when it is over, by [Inbox.Probe].
type outage struct {
	mu    sync.Mutex
	since time.Time // zero while Redis serves
	ended time.Time // when the last one was over
}

// echo is how long behind an outage loops may still fail over it: a try that
// was under way, or go-redis, which asks only every second whether a dead
// address lives again. Whether Redis is away once more, Probe sees by itself.
const echo = 3 * time.Second

// begin notes that Redis does not serve us, and logs it where that is news.
func (o *outage) begin(log *slog.Logger, err error, more ...any) (news bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.since.IsZero() {
		return false
	}
	o.since = time.Now()
	log.Error("Redis does not answer, or takes no writes; nothing is confirmed or started until it does again", append(more, "error", err)...)
	return true
}

// end ends what began before somebody asked and was served. It returns when
// that was, or zero where there was nothing to end.
func (o *outage) end(asked time.Time) time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	since := o.since
	if asked.Before(since) {
		return time.Time{} // it began while that answer was on its way
	}
	if !since.IsZero() {
		o.since, o.ended = time.Time{}, time.Now()
	}
	return since
}

func (o *outage) echoes() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return time.Since(o.ended) < echo
}

func (o *outage) began() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.since
}

// unserved says that err means that Redis serves nobody just now, rather than
// that it said no to one command, or that something else went wrong.
func unserved(err error) bool {
	if errors.Is(err, context.Canceled) {
		return false
	}
	for _, word := range []string{"LOADING", "READONLY", "CLUSTERDOWN", "MASTERDOWN", "NOREPLICAS", "MISCONF", "OOM", "TRYAGAIN"} {
		if redis.HasErrorPrefix(err, word) {
			return true
		}
	}
	if refused(err) {
		return false
	}
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, redis.ErrPoolTimeout) || errors.Is(err, redis.ErrPoolExhausted)
}

// trouble is what a loop logs about an error of Redis after which it tries
// again: what it could not do, or, where nobody can do anything, only once
// that this is so.
func (o *outage) trouble(log *slog.Logger, what string, err error, more ...any) {
	switch {
	case !unserved(err):
		log.Warn(what+"; trying again", append(more, "error", err)...)
	case o.echoes(), !o.begin(log, err, append(more, "noticed", what)...):
		log.Debug(what+"; trying again", append(more, "error", err)...)
	}
}

// Trouble is for the loops of others that ask this store and go on: it logs
// what they could not do, and no more than once that Redis does not serve us.
func (s *Store) Trouble(log *slog.Logger, what string, err error, more ...any) {
	s.outage.trouble(log, what, err, more...)
}

// wouldWrite tries whether Redis would take a write. With XX it writes only over
// what is there, and under this name there is never anything; but Redis
// refuses it where it would refuse any write: without room, without its disk,
// without its replicas, as a replica.
func wouldWrite(ctx context.Context, rdb redis.UniversalClient, k keys) error {
	err := rdb.SetArgs(ctx, k.selfCheck(), "1", redis.SetArgs{Mode: "XX"}).Err()
	if err == redis.Nil { // itself: Sentinels that know no such Redis wrap it
		return nil
	}
	return err
}

// Ready asks once, through the quick client, whether Redis answers and would
// take a write.
func (in *Inbox) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return wouldWrite(ctx, in.quick, in.keys)
}

// Probe asks the same as long as an ack may wait, and returns since when Redis
// has not been serving this process; zero when it does. Somebody must ask now
// and then: it is also what notices that an outage is over.
func (in *Inbox) Probe(ctx context.Context) (since time.Time) {
	asked := time.Now()
	within, cancel := context.WithTimeout(ctx, in.timing.InboxWrite)
	defer cancel()
	err := wouldWrite(within, in.quick, in.keys)
	switch {
	case ctx.Err() != nil: // our own end proves nothing
	case err != nil:
		in.outage.begin(in.log, err)
	default:
		if since := in.outage.end(asked); !since.IsZero() {
			in.log.Info("Redis is back", "after", time.Since(since).Round(time.Millisecond), "since", since.UTC().Format(time.TimeOnly))
		}
	}
	return in.outage.began()
}
