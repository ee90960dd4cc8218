package approvals

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign/audit"
)

// Projection turns events into something that people see. All processes share
// one leased reader and one durable cursor. Delivery is at-least-once: after a
// crash the last batch is delivered again.
type Projection struct {
	Name string
	// Handle takes a batch, oldest first, and says how many events it is done
	// with. An error is tried again, with a pause, from where it stopped. Its
	// ctx ends when this process stops or no longer leads.
	Handle func(ctx context.Context, batch []audit.Event) (int, error)
}

// leadScript takes or renews the lease of a projection. For the holder of the
// lease it moves the cursor from its expected position, so that a reader whose
// lease has expired cannot move it back.
var leadScript = redis.NewScript(`
local who = redis.call('GET', KEYS[1])
if who and who ~= ARGV[1] then return {0, ''} end
local at = redis.call('GET', KEYS[2]) or '0-0'
if ARGV[3] ~= '' and at ~= ARGV[3] then return {0, ''} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if ARGV[4] ~= '' then redis.call('SET', KEYS[2], ARGV[4]); at = ARGV[4] end
return {1, at}`)

// releaseLeadScript releases a lease that this process still holds.
var releaseLeadScript = redis.NewScript(`if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0`)

// Follow runs one projection until ctx ends, whenever this process holds its
// lease.
func (s *Store) Follow(ctx context.Context, me string, p Projection, log *slog.Logger) {
	me += "#" + rand.Text() // two processes of one name are two readers
	resign := func() {
		bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := releaseLeadScript.Run(bye, s.rdb, []string{s.keys.lead(p.Name)}, me).Err(); err != nil {
			log.Warn("the lease of a projection was not released; it will expire", "projection", p.Name, "error", err)
		}
	}
	pause := time.Duration(0)
	for ctx.Err() == nil {
		if pause > 0 {
			select {
			case <-ctx.Done():
				continue
			case <-time.After(pause):
			}
		}
		leads, err := s.followOnce(ctx, me, p)
		switch {
		case ctx.Err() != nil:
		case s.missingKeys.isMissingKey(err): // whoever has the key asks for the lead much more often than this
			s.missingKeys.logOnce(log)
			resign()
			pause = s.timing.Lead
		case err != nil:
			if _, itself := errors.AsType[projectionError](err); itself {
				log.Warn("a projection failed; it continues where it stopped", "projection", p.Name, "error", err)
			} else {
				s.outage.logError(log, "a projection cannot read the events", err, "projection", p.Name)
			}
			pause = min(max(2*pause, 200*time.Millisecond), 15*time.Second)
		case !leads:
			pause = min(s.timing.Follow, s.timing.Lead/3)
		default:
			pause = 0
		}
	}
	resign() // the next process leads at once, so that a stop delays nobody
}

// projectionError is an error of a projection's handler. It may be a network
// error, but it is not one of Redis.
type projectionError struct{ error }

func (e projectionError) Unwrap() error { return e.error }

func (s *Store) followOnce(ctx context.Context, me string, p Projection) (bool, error) {
	leads, cursor, err := s.lead(ctx, me, p.Name, "", "")
	if err != nil || !leads {
		return leads, err
	}
	streams, err := s.rdb.XRead(ctx, &redis.XReadArgs{Streams: []string{s.keys.events(), cursor}, Count: 100, Block: s.timing.Follow}).Result()
	if errors.Is(err, redis.Nil) || len(streams) == 0 && err == nil {
		return true, nil
	}
	if err != nil {
		return true, err
	}
	// The wait was part of the lease.
	if leads, now, err := s.lead(ctx, me, p.Name, cursor, ""); err != nil || !leads || now != cursor {
		return leads && err == nil, err
	}
	s.rollback.recordEvent(streams[0].Messages[len(streams[0].Messages)-1].ID)
	batch := make([]audit.Event, 0, len(streams[0].Messages))
	var broken error
	for _, m := range streams[0].Messages {
		var e audit.Event
		if e, broken = s.openEvent(m); broken != nil {
			break // what stands before it is not held up
		}
		batch = append(batch, e)
	}
	if len(batch) == 0 {
		return true, broken
	}
	done, err := s.handleBatch(ctx, me, p, batch)
	if err != nil {
		err = projectionError{err}
	}
	if done > 0 {
		leads, _, moved := s.lead(context.WithoutCancel(ctx), me, p.Name, cursor, batch[done-1].ID)
		switch {
		case moved != nil:
			err = errors.Join(err, moved)
		case !leads:
			return false, err // somebody else goes on from where it found the cursor
		}
	}
	return true, err
}

// handleBatch calls Handle for as long as this process holds the lease, and
// recovers from its panics.
func (s *Store) handleBatch(ctx context.Context, me string, p Projection, batch []audit.Event) (done int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	renewing := make(chan struct{})
	go func() {
		defer close(renewing)
		for until := time.Now().Add(s.timing.Lead); ; {
			select {
			case <-ctx.Done():
				return
			case <-time.After(s.timing.Lead / 3):
			}
			sent := time.Now()
			leads, _, err := s.lead(ctx, me, p.Name, "", "")
			switch {
			case err == nil && leads:
				until = sent.Add(s.timing.Lead)
			case err == nil, time.Now().After(until):
				cancel() // somebody else leads, or may
				return
			}
		}
	}()
	defer func() {
		cancel()
		<-renewing
		if p := recover(); p != nil {
			done, err = 0, fmt.Errorf("panic: %v", p)
		}
		done = min(max(done, 0), len(batch))
		if done == 0 && err == nil {
			err = errors.New("nothing of the batch was handled")
		}
	}()
	return p.Handle(ctx, batch)
}

// lead takes or renews the lease of a projection. With to it also moves the
// cursor, if that is still at from. It returns false if another process holds
// the lease.
func (s *Store) lead(ctx context.Context, me, name, from, to string) (bool, string, error) {
	got, err := leadScript.Run(ctx, s.rdb, []string{s.keys.lead(name), s.keys.cursor(name)}, me, s.timing.Lead.Milliseconds(), from, to).Slice()
	if err != nil {
		return false, "", fmt.Errorf("approvals: leading projection %s: %w", name, err)
	}
	if len(got) != 2 {
		return false, "", fmt.Errorf("approvals: leading projection %s: the script answered %d values", name, len(got))
	}
	at, _ := got[1].(string)
	return got[0] == int64(1), at, nil
}

// eventContext is the context to which an event is sealed. Operations of a
// worker have the same names in every request, so it includes the request.
func eventContext(request, op string) string { return request + "\x00" + op }

func (s *Store) openEvent(m redis.XMessage) (audit.Event, error) {
	request, _ := m.Values["request"].(string)
	op, _ := m.Values["op"].(string)
	sealed, _ := m.Values["body"].(string)
	plain, err := s.ring.Open("event", eventContext(request, op), sealed)
	if err != nil {
		return audit.Event{}, fmt.Errorf("event %s: %w", m.ID, err)
	}
	var e audit.Event
	if err := json.Unmarshal(plain, &e); err != nil {
		return e, fmt.Errorf("approvals: event %s: %w", m.ID, err)
	}
	e.ID, e.At = m.ID, streamTime(m.ID)
	return e, nil
}

// Lag is how long the oldest unhandled event of a projection has been waiting,
// by Redis' clock. It is zero if the projection is up to date.
func (s *Store) Lag(ctx context.Context, projection string) (time.Duration, error) {
	cursor, err := s.rdb.Get(ctx, s.keys.cursor(projection)).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return 0, err
	}
	from := "-"
	if cursor != "" {
		from = "(" + cursor
	}
	oldest, err := s.rdb.XRangeN(ctx, s.keys.events(), from, "+", 1).Result()
	if err != nil || len(oldest) == 0 {
		return 0, err
	}
	now, err := s.clock(ctx)
	if err != nil {
		return 0, err
	}
	return max(now.Sub(streamTime(oldest[0].ID)), time.Millisecond), nil // zero would say that it is up to date
}

// Trim removes events that every named projection has handled and that are older
// than keep. It never trims by length, so a slow reader loses nothing.
func (s *Store) Trim(ctx context.Context, projections []string, keep time.Duration) error {
	now, err := s.clock(ctx)
	if err != nil {
		return err
	}
	oldest := now.Add(-keep)
	for _, name := range projections {
		cursor, err := s.rdb.Get(ctx, s.keys.cursor(name)).Result()
		if errors.Is(err, redis.Nil) {
			return nil // it has read nothing yet
		}
		if err != nil {
			return err
		}
		at := streamTime(cursor)
		if at.IsZero() {
			return nil // before the first event there can be
		}
		if at.Before(oldest) {
			oldest = at
		}
	}
	return s.rdb.XTrimMinID(ctx, s.keys.events(), fmt.Sprintf("%d-0", oldest.UnixMilli())).Err()
}

// streamTime is the instant in a stream id, on Redis' clock.
func streamTime(id string) time.Time {
	millis, _, _ := strings.Cut(id, "-")
	return parseInstant(millis)
}
