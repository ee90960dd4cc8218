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

// outage records since when Redis has been unavailable to this process. Half a
// dozen loops notice it at once and keep trying. The first one logs it, and
// [Inbox.Probe] logs when it is over.
type outage struct {
	mu    sync.Mutex
	since time.Time // zero while Redis serves
	ended time.Time // when the last one was over
}

// outageEcho is how long loops may still fail after an outage: a try was in
// flight, or go-redis, which checks only every second whether a dead address
// answers again, has not noticed yet. Probe detects a new outage by itself.
const outageEcho = 3 * time.Second

// begin records that Redis is unavailable, and logs it if that was not known.
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

// end ends an outage that began before the successful request at the instant
// asked. It returns when the outage began, or zero if there was none.
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

func (o *outage) isRecent() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return time.Since(o.ended) < outageEcho
}

func (o *outage) began() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.since
}

// isOutage reports whether err means that Redis is unavailable, and not that it
// refused one command or that something else failed.
func isOutage(err error) bool {
	if errors.Is(err, context.Canceled) {
		return false
	}
	for _, word := range []string{"LOADING", "READONLY", "CLUSTERDOWN", "MASTERDOWN", "NOREPLICAS", "MISCONF", "OOM", "TRYAGAIN"} {
		if redis.HasErrorPrefix(err, word) {
			return true
		}
	}
	if isRedisError(err) {
		return false
	}
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, redis.ErrPoolTimeout) || errors.Is(err, redis.ErrPoolExhausted)
}

// logError logs a Redis error after which a loop tries again. During an outage
// it logs nothing but the outage, once.
func (o *outage) logError(log *slog.Logger, what string, err error, more ...any) {
	switch {
	case !isOutage(err):
		log.Warn(what+"; trying again", append(more, "error", err)...)
	case o.isRecent(), !o.begin(log, err, append(more, "noticed", what)...):
		log.Debug(what+"; trying again", append(more, "error", err)...)
	}
}

// LogError is for loops outside this package that use the store and try again:
// it logs what failed, and during an outage nothing but the outage, once.
func (s *Store) LogError(log *slog.Logger, what string, err error, more ...any) {
	s.outage.logError(log, what, err, more...)
}

// checkWritable checks whether Redis accepts writes. With XX it writes only over
// an existing key, and this key never exists. Redis nevertheless refuses the
// command where it would refuse any write: out of memory, with a failing disk,
// without its replicas, or as a replica.
func checkWritable(ctx context.Context, rdb redis.UniversalClient, k keys) error {
	err := rdb.SetArgs(ctx, k.startupCheck(), "1", redis.SetArgs{Mode: "XX"}).Err()
	if err == redis.Nil { // itself: Sentinels that know no such Redis wrap it
		return nil
	}
	return err
}

// Ready asks once, through the client without retries, whether Redis answers and
// accepts writes.
func (in *Inbox) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return checkWritable(ctx, in.putClient, in.keys)
}

// Probe asks the same, for as long as an ack may wait. It returns since when
// Redis has been unavailable to this process, or zero if it is available. It
// must be called regularly, because it is also what notices the end of an
// outage.
func (in *Inbox) Probe(ctx context.Context) (since time.Time) {
	asked := time.Now()
	within, cancel := context.WithTimeout(ctx, in.timing.InboxWrite)
	defer cancel()
	err := checkWritable(within, in.putClient, in.keys)
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
