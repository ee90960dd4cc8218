package approvals

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign/audit"
)

// Projection turns events into something people see. It has one leased
// reader among all processes and one durable cursor, and it is at-least-once:
// after a crash the last batch comes again.
type Projection struct {
	Name string
	// Handle takes a batch, oldest first, and says how many events it is done
	// with. An error is tried again, with a pause, from where it stopped.
	Handle func(ctx context.Context, batch []audit.Event) (int, error)
}

// leadScript takes or renews the lease of a projection and, for its holder,
// moves the cursor.
var leadScript = redis.NewScript(`
local who = redis.call('GET', KEYS[1])
if who and who ~= ARGV[1] then return {0, ''} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if ARGV[3] ~= '' then redis.call('SET', KEYS[2], ARGV[3]) end
return {1, redis.call('GET', KEYS[2]) or '0-0'}`)

// Follow runs one projection until ctx ends, whenever this process holds its
// lease.
func (s *Store) Follow(ctx context.Context, me string, p Projection, log *slog.Logger) {
	pause := time.Duration(0)
	for ctx.Err() == nil {
		if pause > 0 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		}
		leads, err := s.followOnce(ctx, me, p)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			log.Warn("a projection stumbled; it goes on from where it stopped", "projection", p.Name, "error", err)
			pause = min(max(2*pause, 200*time.Millisecond), 15*time.Second)
		case !leads:
			pause = s.timing.Lead / 3
		default:
			pause = 0
		}
	}
	// Let the next process lead at once, so that a stop delays nobody.
	bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if who, err := s.rdb.Get(bye, s.keys.lead(p.Name)).Result(); err == nil && who == me {
		s.rdb.Del(bye, s.keys.lead(p.Name))
	}
}

func (s *Store) followOnce(ctx context.Context, me string, p Projection) (bool, error) {
	leads, cursor, err := s.lead(ctx, me, p.Name, "")
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
	batch := make([]audit.Event, 0, len(streams[0].Messages))
	for _, m := range streams[0].Messages {
		e, err := s.openEvent(m)
		if err != nil {
			return true, err
		}
		batch = append(batch, e)
	}
	done, err := p.Handle(ctx, batch)
	if done > 0 {
		if _, _, moved := s.lead(context.WithoutCancel(ctx), me, p.Name, batch[done-1].ID); moved != nil {
			err = errors.Join(err, moved)
		}
	}
	return true, err
}

func (s *Store) lead(ctx context.Context, me, name, cursor string) (bool, string, error) {
	got, err := leadScript.Run(ctx, s.rdb, []string{s.keys.lead(name), s.keys.cursor(name)}, me, s.timing.Lead.Milliseconds(), cursor).Slice()
	if err != nil || len(got) != 2 {
		return false, "", fmt.Errorf("approvals: leading projection %s: %w", name, err)
	}
	at, _ := got[1].(string)
	return got[0] == int64(1), at, nil
}

func (s *Store) openEvent(m redis.XMessage) (audit.Event, error) {
	op, _ := m.Values["op"].(string)
	sealed, _ := m.Values["body"].(string)
	plain, err := s.ring.Open("event", op, sealed)
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

// Lag is how long the oldest event that a projection has not handled has
// been waiting, on Redis' clock. Zero when it is up to date.
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
	now, err := s.rdb.Time(ctx).Result()
	if err != nil {
		return 0, err
	}
	return now.Sub(streamTime(oldest[0].ID)), nil
}

// Trim drops the events that every named projection has handled and that are
// older than keep. It never trims by length: a slow reader loses nothing.
func (s *Store) Trim(ctx context.Context, projections []string, keep time.Duration) error {
	now, err := s.rdb.Time(ctx).Result()
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
		if at := streamTime(cursor); at.Before(oldest) {
			oldest = at
		}
	}
	return s.rdb.XTrimMinID(ctx, s.keys.events(), fmt.Sprintf("%d-0", oldest.UnixMilli())).Err()
}

// streamTime is the instant in a stream id, on Redis' clock.
func streamTime(id string) time.Time {
	millis, _, _ := strings.Cut(id, "-")
	return instant(millis)
}
