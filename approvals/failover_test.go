//go:build unix

package approvals

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"countersign/audit"
	"countersign/internal/redistest"
)

// failover is two Countersigns, with a runner each, on a Redis that sentinels
// watch, and people who ask and decide all the time.
type failover struct {
	*world
	redis  *redistest.Failover
	stores []*Store
	desks  []*Desk

	wishes  int // of people so far, confirmed or not
	mu      sync.Mutex
	asked   []string // requests that were confirmed to whoever asked
	decided []string // and those whose approval was
}

func newFailover(t *testing.T) *failover {
	t.Helper()
	servers := redistest.StartFailover(t)
	timing := calm()
	timing.Sweep = 20 * time.Millisecond
	// Who could not write while there was no master is taken over.
	timing.Lease, timing.GraphCall, timing.GraphGrace = 20*time.Second, 5*time.Second, time.Second
	f := &failover{redis: servers, world: &world{
		t: t, server: servers.Master(t), rdb: servers.Client(t), timing: timing, directory: newDirectory(), tenant: newTenant(), log: discard,
	}}
	f.tenant.methods["held"] = true
	f.store, f.desk = f.process(f.rdb)
	for i := range 2 {
		store, desk := f.process(servers.Client(t))
		f.stores, f.desks = append(f.stores, store), append(f.desks, desk)
		f.run(desk, fmt.Sprint("process ", i))
	}
	return f
}

// people ask through one process and approve through the other, until stopped.
// What was not confirmed is not asked again.
func (f *failover) people() (stop func()) {
	targets := []Person{dana, sam, mina}
	before := f.executed()
	return background(f.t, func(ctx context.Context) {
		for asked := 0; ctx.Err() == nil; asked++ {
			// They do not ask for much more than is carried out, unless that
			// stands still: what a busy machine puts off is to be over in the end.
			for start := time.Now(); asked-(f.executed()-before) > 30 && time.Since(start) < time.Second && ctx.Err() == nil; {
				<-time.After(5 * time.Millisecond)
			}
			i := f.wishes
			f.wishes++
			p := deletes(ClassContain, targets[i%len(targets)], fmt.Sprint("n", i))
			f.tenant.has(fmt.Sprint("n", i))
			r, err := f.desks[i%2].Ask(ctx, fmt.Sprint("ask-", i), Ask{Plan: p, Requester: hanna, Justification: "x", Ticket: "INC-7", Verified: "callback"})
			if err != nil {
				<-time.After(5 * time.Millisecond) // as people do
				continue
			}
			f.mu.Lock()
			f.asked = append(f.asked, r.ID)
			f.mu.Unlock()
			if _, err := f.desks[(i+1)%2].Approve(ctx, fmt.Sprint("approve-", i), r.ID, ravi); err != nil {
				continue
			}
			f.mu.Lock()
			f.decided = append(f.decided, r.ID)
			f.mu.Unlock()
		}
	})
}

// until waits as long as a fail-over may take.
func (f *failover) until(what string, done func() bool) {
	f.t.Helper()
	waitLong(f.t, 2*time.Minute, what, done)
}

func (f *failover) executed() (n int) { return len(f.tenant.did(Run)) }

// twice fails the test when anything was done more than once.
func (f *failover) twice() {
	f.t.Helper()
	f.tenant.mu.Lock()
	defer f.tenant.mu.Unlock()
	for id, n := range f.tenant.deleted {
		if n != 1 {
			f.t.Errorf("%s was deleted %d times", id, n)
		}
	}
	if f.tenant.overlap {
		f.t.Error("two requests were at work on one target at a time")
	}
}

// A replica that is behind is promoted. Everybody stops, what was confirmed and
// lost is named, and after a person has said go on nothing is done twice.
func TestAFailOverThatLosesWrites(t *testing.T) {
	t.Parallel()
	f := newFailover(t)
	ctx := t.Context()
	stop := f.people()
	f.until("some requests to be carried out", func() bool { return f.executed() >= 5 })
	f.redis.CutOff(t)
	asked := func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.asked)
	}
	ran, wished := f.executed(), asked()
	f.until("more of them to be carried out, as the master alone knows", func() bool { return f.executed() >= ran+5 && asked() >= wished+5 })
	f.redis.KillMaster(t)
	f.until("both to have stopped", func() bool { return f.stores[0].Rewound() && f.stores[1].Rewound() })
	stop()
	var list []Lost
	f.until("what was lost to be written", func() bool {
		var err error
		list, err = f.store.Losses(ctx)
		return err == nil && len(list) > 0
	})

	// Nothing goes on.
	ran = f.executed()
	if err := f.store.look(ctx); !errors.Is(err, ErrRewound) {
		t.Errorf("whoever is started now: %v", err)
	}
	for _, desk := range f.desks {
		if _, err := desk.Ask(ctx, f.op(), f.wants()); !errors.Is(err, ErrRewound) {
			t.Errorf("asking: %v", err)
		}
	}
	start := time.Now()
	f.until("some sweeps", func() bool { return time.Since(start) > 20*f.timing.Sweep })
	if now := f.executed(); now != ran {
		t.Errorf("%d steps were carried out after everybody had stopped", now-ran)
	}
	f.twice()

	// All that was confirmed and is not there any more is named.
	var all []Commit
	for _, lost := range list {
		all = append(all, lost.Commits...)
	}
	named := func(id, what string, executed bool) bool {
		return slices.ContainsFunc(all, func(c Commit) bool {
			return c.Request == id && strings.Contains(c.What, what) && c.Executed == executed
		})
	}
	missing := 0
	f.mu.Lock()
	for _, id := range f.asked {
		snap, err := f.store.Load(ctx, id)
		if err != nil && !errors.Is(err, ErrNoRequest) {
			t.Fatal(err)
		}
		if err != nil {
			missing++
			if !named(id, string(audit.Requested), false) {
				t.Errorf("%s was confirmed, is not there, and is not named", id)
			}
		}
		if slices.Contains(f.decided, id) && len(snap.Approvals) == 0 && !named(id, string(audit.Approved), false) {
			t.Errorf("the approval of %s was confirmed, is not there, and is not named", id)
		}
		if slices.ContainsFunc(f.tenant.did(Run), func(job string) bool { return strings.Contains(job, id) }) &&
			(len(snap.Journal) == 0 || snap.Journal[0].State == StepWaiting) && !named(id, "step 1 was begun", true) {
			t.Errorf("step 1 of %s was carried out, Redis does not know of it, and it is not named", id)
		}
	}
	f.mu.Unlock()
	if missing < 3 {
		t.Errorf("of %d requests %d are missing: this tests nothing", asked(), missing)
	}
	for i, c := range list[0].Commits {
		if i > 0 && c.Executed && !list[0].Commits[i-1].Executed {
			t.Error("execution is not named first")
		}
	}

	// A person has looked. What Redis takes for not carried out is compared with
	// the account, and not carried out again.
	f.server = f.redis.Master(t)
	f.resume()
	f.until("both to go on", func() bool { return !f.stores[0].Rewound() && !f.stores[1].Rewound() })
	stop = f.people()
	// Sentinels that starve may fail over once more, and somebody looks again.
	looksAgain := func() {
		if list := f.losses(); len(list) > 0 {
			if err := f.store.Resume(ctx, list, "The operator"); err != nil && !errors.Is(err, ErrLostMore) {
				t.Fatal(err)
			}
		}
	}
	f.until("new requests to be carried out", func() bool {
		looksAgain()
		return f.executed() >= ran+3
	})
	stop()
	f.until("all that was approved to be over", func() bool {
		looksAgain()
		open, err := f.store.Open(ctx)
		return err == nil && !slices.ContainsFunc(open, func(s Snapshot) bool { return s.State == Approved || s.State == Running })
	})
	f.twice()
	f.invariants()
}

// A fail-over that loses nothing is waited out: a step that was in hand is
// journalled, and people go on, without a word from anybody.
func TestAFailOverThatLosesNothing(t *testing.T) {
	t.Parallel()
	f := newFailover(t)
	ctx := t.Context()
	stop := f.people()
	f.until("some requests to be carried out", func() bool { return f.executed() >= 5 })
	stop()
	quiet := func() bool {
		open, err := f.store.Open(ctx)
		return err == nil && !slices.ContainsFunc(open, func(s Snapshot) bool { return s.State == Approved || s.State == Running })
	}
	f.until("them to be over", quiet)
	inHand, goOn := make(chan string, 1), make(chan struct{})
	f.tenant.says(func(job Job) (Result, bool) {
		if job.Kind == Run {
			select {
			case inHand <- job.Request.ID:
				<-goOn
			default:
			}
		}
		return Result{}, false
	})
	held := f.approved(deletes(ClassContain, dana, "held"))
	f.until("a step to be in hand", func() bool { return len(inHand) == 1 })
	var settled int64
	f.until("both to have seen all", func() bool {
		settled = number(f.rdb.Get(ctx, f.store.keys.sequence()).Val())
		scores, err := f.rdb.ZMScore(ctx, f.store.keys.processes(), f.stores[0].memory.me, f.stores[1].memory.me).Result()
		return err == nil && int64(scores[0]) == settled && int64(scores[1]) == settled
	})
	f.redis.Level(t)
	f.redis.KillMaster(t)
	close(goOn)
	before := f.executed()
	stop = f.people()
	f.until("people to go on", func() bool { return f.executed() >= before+5 })
	stop()
	f.until("all to be over", quiet)
	f.server = f.redis.Master(t)
	if got := f.load(held.ID); got.Outcome != Succeeded || got.Claim != 1 {
		t.Errorf("the request in hand is %s with claim %d because %q", got.Says(), got.Claim, got.Why)
	}
	for _, store := range f.stores {
		if store.Rewound() {
			t.Error("it stopped, and nothing was lost")
		}
	}
	if list := f.losses(); len(list) > 0 {
		t.Errorf("nothing was lost, and named are %+v", list)
	}
	for _, id := range f.asked {
		f.load(id)
	}
	f.twice()
	f.invariants()
}
