package approvals

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"countersign/audit"
	"countersign/internal/redistest"
)

// paper is a log to be read while it is written.
type paper struct {
	mu   sync.Mutex
	text strings.Builder
}

func (p *paper) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

// count says how many lines of a level, or all, have this in them.
func (p *paper) count(level, text string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for line := range strings.Lines(p.text.String()) {
		if strings.Contains(line, "level="+level) && strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// While Redis is away every loop of a process goes on trying, the log says
// so once, and once when it is over. Then they all go on.
func TestAnOutageIsLoggedOnce(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings(), redistest.AppendOnly())
	log := &paper{}
	w.log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	// One try each, so that failures come quickly.
	hurried := w.server.ClientWith(t, func(o *redis.UniversalOptions) {
		o.MaxRetries, o.DialerRetries, o.DisableIdentity = -1, 1, true
	})
	store, service := w.newProcess(hurried)
	in := NewInbox(store, w.quick(), w.log)
	var arrived, shown list[string]
	w.startRunner(service, "a")
	background(t, func(ctx context.Context) {
		in.Consume(ctx, "a", 2, func(_ context.Context, a Arrival) error { arrived.add(a.Envelope); return nil })
	})
	background(t, func(ctx context.Context) {
		store.Follow(ctx, "a", Projection{Name: "cards", Handle: func(_ context.Context, batch []audit.Event) (int, error) {
			for _, e := range batch {
				shown.add(e.Title)
			}
			return len(batch), nil
		}}, w.log)
	})
	probe := func() bool { return in.Probe(t.Context()).IsZero() }
	put := func(envelope string) {
		t.Helper()
		waitFor(t, "the inbox to take "+envelope, func() bool { return in.Put(t.Context(), envelope, []byte("x")) == nil })
		waitFor(t, envelope, func() bool { return strings.Contains(fmt.Sprint(arrived.all()), envelope) })
	}
	put("before")
	if !probe() {
		t.Fatal("a Redis that serves us is taken for one that does not")
	}

	for round := 1; round <= 2; round++ {
		w.server.Kill(t)
		waitFor(t, "the outage to be noticed", func() bool { return !probe() })
		for _, loop := range []string{"the inbox cannot be read", "the runner cannot see what is due", "a projection cannot read the events"} {
			waitFor(t, "several tries: "+loop, func() bool { return log.count("DEBUG", loop) >= 2*round })
		}
		if n := log.count("ERROR", "Redis does not answer"); n != round {
			t.Errorf("the log says %d times that Redis does not answer, in %d outages", n, round)
		}
		if n := log.count("INFO", "Redis is back"); n != round-1 {
			t.Errorf("the log says %d times that Redis is back, and it is not", n)
		}
		w.server.Restart(t)
		waitFor(t, "the end of it to be noticed", probe)
		if n := log.count("INFO", "Redis is back"); n != round {
			t.Errorf("the log says %d times that Redis is back, after %d outages", n, round)
		}
		put(fmt.Sprintf("after %d", round))
		w.tell(fmt.Sprintf("event %d", round))
		waitFor(t, "the projection to go on", func() bool { return strings.Contains(fmt.Sprint(shown.all()), fmt.Sprintf("event %d", round)) })
	}
	if n := log.count("WARN", "trying again"); n > 0 {
		t.Errorf("the log has %d lines of loops beside:\n%s", n, log.text.String())
	}
}

// A Redis that answers and takes no writes serves us as little as none.
func TestProbe(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	if !w.server.Real() {
		t.Skip("miniredis does not refuse writes for want of replicas: this needs a real redis-server")
	}
	log := &paper{}
	in := NewInbox(w.store, w.quick(), slog.New(slog.NewTextHandler(log, nil)))
	set := func(value string) {
		t.Helper()
		w.server.Each(t, func(rdb *redis.Client) {
			if err := rdb.ConfigSet(t.Context(), "min-replicas-to-write", value).Err(); err != nil {
				t.Fatal(err)
			}
		})
	}
	set("1")
	first := in.Probe(t.Context())
	if first.IsZero() || log.count("ERROR", "NOREPLICAS") != 1 {
		t.Errorf("writes are refused and it is not noticed: %s", log.text.String())
	}
	if again := in.Probe(t.Context()); !again.Equal(first) {
		t.Errorf("the outage began at %s, and then at %s", first, again)
	}
	if err := in.Ready(t.Context()); !isOutage(err) {
		t.Errorf("asking: %v", err)
	}
	set("0")
	if since := in.Probe(t.Context()); !since.IsZero() || log.count("INFO", "Redis is back") != 1 {
		t.Errorf("writes are taken again and it is not noticed: %s", log.text.String())
	}
	if err := in.Ready(t.Context()); err != nil {
		t.Errorf("asking: %v", err)
	}
	if n := w.rdb.DBSize(t.Context()).Val(); n != 0 {
		t.Errorf("asking left %d keys", n)
	}
	// Whoever stops asks no more, and has noticed nothing.
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if since := in.Probe(stopped); !since.IsZero() {
		t.Error("our own end is taken for an outage")
	}
}

// Only Redis' own absence is an outage.
func TestIsOutage(t *testing.T) {
	t.Parallel()
	dial := &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", IsNotFound: true}}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{dial, true}, {fmt.Errorf("approvals: reading: %w", dial), true}, {io.EOF, true}, {fmt.Errorf("x: %w", io.ErrUnexpectedEOF), true},
		{redis.ErrPoolTimeout, true}, {redis.ErrPoolExhausted, true}, {context.DeadlineExceeded, true},
		{context.Canceled, false}, {redis.Nil, false}, {redis.ErrNoScript, false}, {redis.ErrCrossSlot, false},
		{ErrFenced, false}, {ErrSeal, false}, {ErrLostWrites, false}, {fmt.Errorf("anything"), false},
	} {
		if got := isOutage(c.err); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}
