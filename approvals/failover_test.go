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

// failover is two Countersign processes, each with a runner, on a Redis that sentinels
// watch, and people who submit and approve requests all the time.
type failover struct {
	*fixture
	redis    *redistest.Failover
	stores   []*Store
	services []*Service

	submissions int // so far, confirmed or not
	mu          sync.Mutex
	submitted   []string // requests whose submission was confirmed
	decided     []string // requests whose approval was confirmed
}

func newFailover(t *testing.T) *failover {
	t.Helper()
	servers := redistest.StartFailover(t)
	timing := longTimings()
	timing.Sweep = 20 * time.Millisecond
	// A worker that could not write while there was no master is replaced after its lease.
	timing.Lease, timing.GraphCall, timing.GraphGrace = 20*time.Second, 5*time.Second, time.Second
	f := &failover{redis: servers, fixture: &fixture{
		t: t, server: servers.Master(t), rdb: servers.Client(t), timing: timing, directory: newTestDirectory(), tenant: newTestTenant(), log: discard,
	}}
	f.tenant.methods["held"] = true
	f.store, f.service = f.newProcess(f.rdb)
	for i := range 2 {
		store, service := f.newProcess(servers.Client(t))
		f.stores, f.services = append(f.stores, store), append(f.services, service)
		f.startRunner(service, fmt.Sprint("process ", i))
	}
	return f
}

// startPeople submits requests through one process and approves them through the
// other, until stopped. A request that was not confirmed is not submitted again.
func (f *failover) startPeople() (stop func()) {
	targets := []Person{dana, sam, mina}
	before := f.executed()
	return background(f.t, func(ctx context.Context) {
		for asked := 0; ctx.Err() == nil; asked++ {
			// Limit the requests that are not executed yet, unless execution makes no
			// progress: a busy machine must be able to finish all of them in the end.
			for start := time.Now(); asked-(f.executed()-before) > 30 && time.Since(start) < time.Second && ctx.Err() == nil; {
				<-time.After(5 * time.Millisecond)
			}
			i := f.submissions
			f.submissions++
			p := deletionPlan(ClassContain, targets[i%len(targets)], fmt.Sprint("n", i))
			f.tenant.addMethod(fmt.Sprint("n", i))
			r, err := f.services[i%2].Submit(ctx, fmt.Sprint("ask-", i), Submit{Plan: p, Requester: hanna, Justification: "x", Ticket: "INC-7", Verified: "callback"})
			if err != nil {
				<-time.After(5 * time.Millisecond) // people pause after an error
				continue
			}
			f.mu.Lock()
			f.submitted = append(f.submitted, r.ID)
			f.mu.Unlock()
			if _, err := f.services[(i+1)%2].Approve(ctx, fmt.Sprint("approve-", i), r.ID, ravi); err != nil {
				continue
			}
			f.mu.Lock()
			f.decided = append(f.decided, r.ID)
			f.mu.Unlock()
		}
	})
}

// waitFor waits as long as a failover may take.
func (f *failover) waitFor(what string, done func() bool) {
	f.t.Helper()
	waitLong(f.t, 2*time.Minute, what, done)
}

func (f *failover) executed() (n int) { return len(f.tenant.jobsOfKind(JobRun)) }

// wantDeletedOnce fails the test if anything was deleted more than once.
func (f *failover) wantDeletedOnce() {
	f.t.Helper()
	f.tenant.mu.Lock()
	defer f.tenant.mu.Unlock()
	for id, n := range f.tenant.deleted {
		if n != 1 {
			f.t.Errorf("%s was deleted %d times", id, n)
		}
	}
	if f.tenant.overlap {
		f.t.Error("two requests ran for one target at the same time")
	}
}

// A replica that is behind is promoted. All processes stop, the confirmed commits that
// were lost are listed, and after a person has resumed nothing is done twice.
func TestFailoverLosesWrites(t *testing.T) {
	t.Parallel()
	f := newFailover(t)
	ctx := t.Context()
	stop := f.startPeople()
	f.waitFor("some requests to be executed", func() bool { return f.executed() >= 5 })
	f.redis.CutOff(t)
	asked := func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.submitted)
	}
	ran, wished := f.executed(), asked()
	f.waitFor("more requests to be executed, which only the master has", func() bool { return f.executed() >= ran+5 && asked() >= wished+5 })
	f.redis.KillMaster(t)
	f.waitFor("both to have stopped", func() bool { return f.stores[0].HasLostWrites() && f.stores[1].HasLostWrites() })
	stop()
	var list []LostWrites
	f.waitFor("the lost writes to be reported", func() bool {
		var err error
		list, err = f.store.LostWrites(ctx)
		return err == nil && len(list) > 0
	})

	// Everything stays stopped.
	ran = f.executed()
	if err := f.store.checkRollback(ctx); !errors.Is(err, ErrLostWrites) {
		t.Errorf("checking for a rollback: %v", err)
	}
	for _, service := range f.services {
		if _, err := service.Submit(ctx, f.op(), f.newSubmit()); !errors.Is(err, ErrLostWrites) {
			t.Errorf("submitting: %v", err)
		}
	}
	start := time.Now()
	f.waitFor("some sweeps", func() bool { return time.Since(start) > 20*f.timing.Sweep })
	if now := f.executed(); now != ran {
		t.Errorf("%d steps were executed after all had stopped", now-ran)
	}
	f.wantDeletedOnce()

	// Everything that was confirmed and is not in Redis any more is listed.
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
	for _, id := range f.submitted {
		snap, err := f.store.Load(ctx, id)
		if err != nil && !errors.Is(err, ErrNoRequest) {
			t.Fatal(err)
		}
		if err != nil {
			missing++
			if !named(id, string(audit.Requested), false) {
				t.Errorf("%s was confirmed, is not in Redis, and is not listed", id)
			}
		}
		if slices.Contains(f.decided, id) && len(snap.Approvals) == 0 && !named(id, string(audit.Approved), false) {
			t.Errorf("the approval of %s was confirmed, is not in Redis, and is not listed", id)
		}
		if slices.ContainsFunc(f.tenant.jobsOfKind(JobRun), func(job string) bool { return strings.Contains(job, id) }) &&
			(len(snap.Journal) == 0 || snap.Journal[0].State == StepWaiting) && !named(id, "step 1 was started", true) {
			t.Errorf("step 1 of %s was executed, is not in Redis, and is not listed", id)
		}
	}
	f.mu.Unlock()
	if missing < 3 {
		t.Errorf("of %d requests %d are missing: the test does not work", asked(), missing)
	}
	for i, c := range list[0].Commits {
		if i > 0 && c.Executed && !list[0].Commits[i-1].Executed {
			t.Error("execution is not listed first")
		}
	}

	// A person has confirmed the loss. A step that is not executed according to Redis is
	// compared with the account, and not executed again.
	f.server = f.redis.Master(t)
	f.resume()
	f.waitFor("both to resume", func() bool { return !f.stores[0].HasLostWrites() && !f.stores[1].HasLostWrites() })
	stop = f.startPeople()
	// On a busy machine the sentinels may fail over again, and a person resumes again.
	looksAgain := func() {
		if list := f.lostWrites(); len(list) > 0 {
			if err := f.store.Resume(ctx, list, "The operator"); err != nil && !errors.Is(err, ErrMoreLostWrites) {
				t.Fatal(err)
			}
		}
	}
	f.waitFor("new requests to be executed", func() bool {
		looksAgain()
		return f.executed() >= ran+3
	})
	stop()
	f.waitFor("all approved requests to end", func() bool {
		looksAgain()
		open, err := f.store.Open(ctx)
		return err == nil && !slices.ContainsFunc(open, func(s Snapshot) bool { return s.State == StateApproved || s.State == StateRunning })
	})
	f.wantDeletedOnce()
	f.checkInvariants()
}

// After a failover that loses nothing, the processes continue by themselves: a step
// that was running is recorded in the journal, and people continue.
func TestFailoverLosesNothing(t *testing.T) {
	t.Parallel()
	f := newFailover(t)
	ctx := t.Context()
	stop := f.startPeople()
	f.waitFor("some requests to be executed", func() bool { return f.executed() >= 5 })
	stop()
	quiet := func() bool {
		open, err := f.store.Open(ctx)
		return err == nil && !slices.ContainsFunc(open, func(s Snapshot) bool { return s.State == StateApproved || s.State == StateRunning })
	}
	f.waitFor("them to end", quiet)
	inProgress, resume := make(chan string, 1), make(chan struct{})
	f.tenant.setScript(func(job Job) (Result, bool) {
		if job.Kind == JobRun {
			select {
			case inProgress <- job.Request.ID:
				<-resume
			default:
			}
		}
		return Result{}, false
	})
	held := f.approved(deletionPlan(ClassContain, dana, "held"))
	f.waitFor("a step to be running", func() bool { return len(inProgress) == 1 })
	var settled int64
	f.waitFor("both to have read the last commit", func() bool {
		settled = parseInt(f.rdb.Get(ctx, f.store.keys.sequence()).Val())
		scores, err := f.rdb.ZMScore(ctx, f.store.keys.processes(), f.stores[0].rollback.process, f.stores[1].rollback.process).Result()
		return err == nil && int64(scores[0]) == settled && int64(scores[1]) == settled
	})
	f.redis.Level(t)
	f.redis.KillMaster(t)
	close(resume)
	before := f.executed()
	stop = f.startPeople()
	f.waitFor("people to continue", func() bool { return f.executed() >= before+5 })
	stop()
	f.waitFor("all to end", quiet)
	f.server = f.redis.Master(t)
	if got := f.load(held.ID); got.Outcome != OutcomeSucceeded || got.Claim != 1 {
		t.Errorf("the running request is %s with claim %d because %q", got.Summary(), got.Claim, got.Why)
	}
	for _, store := range f.stores {
		if store.HasLostWrites() {
			t.Error("it stopped, and nothing was lost")
		}
	}
	if list := f.lostWrites(); len(list) > 0 {
		t.Errorf("nothing was lost, and listed are %+v", list)
	}
	for _, id := range f.submitted {
		f.load(id)
	}
	f.wantDeletedOnce()
	f.checkInvariants()
}
