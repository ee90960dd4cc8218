package approvals

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Runner carries out approved requests and ends those whose time is over.
// Every process has one; the claim decides which of them runs a request.
type Runner struct {
	Desk *Desk
	Work Work
	Name string // of this process, for operators
	// Audit names the projection that must not lag: nothing is claimed while
	// the record of what was done is not being kept. Empty for no such check.
	Audit string
	Hands int // requests at a time
	Log   *slog.Logger

	mu   sync.Mutex
	held map[string]bool
}

// Run works until ctx ends, and then lets the steps in hand finish and gives
// back what is left of their requests.
func (r *Runner) Run(ctx context.Context) {
	r.held = map[string]bool{}
	store := r.Desk.Store
	slots := make(chan struct{}, max(r.Hands, 1))
	var busy sync.WaitGroup
	defer busy.Wait()
	tick := time.NewTicker(store.timing.Sweep)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-store.wake:
		}
		ids, err := store.due(ctx, 50)
		if err != nil {
			if ctx.Err() == nil {
				r.Log.Warn("the runner cannot see what is due; trying again", "error", err)
			}
			continue
		}
		for _, id := range ids {
			if !r.hold(id) {
				continue // this process is at it
			}
			select {
			case slots <- struct{}{}:
			default:
				r.drop(id)
				continue // all hands are busy; another process or the next look
			}
			busy.Go(func() {
				defer func() {
					if p := recover(); p != nil {
						r.Log.Error("a request made the runner panic; its lease will run out and it will be reconciled", "request", id, "panic", p)
					}
					r.drop(id)
					<-slots
					store.nudge() // whoever waited for this target may go on
				}()
				if err := r.one(ctx, id); err != nil && ctx.Err() == nil {
					r.Log.Warn("a request was not carried on", "request", id, "error", err)
				}
			})
		}
	}
}

func (r *Runner) hold(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held[id] {
		return false
	}
	r.held[id] = true
	return true
}

func (r *Runner) drop(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.held, id)
}

// one does what is due for one request.
func (r *Runner) one(ctx context.Context, id string) error {
	store := r.Desk.Store
	snap, err := store.Load(ctx, id)
	if errors.Is(err, ErrNoRequest) {
		// Its hash is gone although it was never ended: a Redis that evicts.
		return errors.Join(err, store.rdb.ZRem(ctx, store.keys.due(), id).Err())
	}
	if err != nil {
		return err
	}
	switch {
	case (snap.State == Pending || snap.State == Approved) && !snap.Now.Before(snap.Deadline):
		return store.expire(ctx, snap)
	case snap.State == Approved, snap.State == Running && !snap.Now.Before(snap.Lease):
	default:
		return nil
	}
	if r.Audit != "" {
		lag, err := store.Lag(ctx, r.Audit)
		if err != nil {
			return err
		}
		if lag > store.timing.AuditLag {
			r.Log.Error("nothing is started while the audit is behind", "request", id, "behind", lag.Round(time.Second))
			return nil
		}
	}
	if snap, err = store.claim(ctx, snap, r.Name); err != nil {
		if errors.Is(err, ErrFenced) {
			return nil // another worker, or another request of this target
		}
		return err
	}
	// From here on the request is finished whatever happens to ctx: a step in
	// hand must be journalled, and what is left is given back.
	err = r.carryOut(ctx, snap)
	if errors.Is(err, ErrFenced) {
		r.Log.Warn("lost a request to another worker and stopped", "request", id)
		return nil
	}
	return err
}

// carryOut takes a claimed request through its steps.
func (r *Runner) carryOut(stop context.Context, snap Snapshot) error {
	ctx := context.WithoutCancel(stop)
	store, req, at := r.Desk.Store, snap.Request, clock(snap.Now)
	finish := func(why string) error {
		_, err := store.advance(ctx, req, at(), "finish", Finish{Why: why})
		return err
	}

	// A step that a dead worker left open is reconciled before anything else.
	for i, e := range req.Journal {
		if e.State != StepStarted {
			continue
		}
		var gaveBack bool
		var err error
		if req, gaveBack, err = r.settle(ctx, req, at, i, Reconcile); err != nil || gaveBack {
			return err
		}
	}

	if no := r.Desk.recheck(ctx, req); no != nil {
		return finish("Stopped before its next step: " + no.Sentence)
	}
	if drift := r.call(ctx, Job{Kind: Check, Request: req, Step: -1}); drift.State == StepThrottled {
		_, err := store.advance(ctx, req, at(), "wait-check", LetGo{Step: -1, After: drift.After, Detail: drift.Detail})
		return err
	} else if drift.State != StepDone {
		return finish(drift.Detail)
	}

	for i := range req.Plan.Steps {
		if req.Journal[i].State != StepWaiting {
			if halts(req, i) {
				return finish("Stopped behind step " + fmt.Sprint(i+1) + ", which did not succeed.")
			}
			continue
		}
		now, err := store.Load(ctx, req.ID)
		switch {
		case err != nil:
			return err
		case now.Claim != req.Claim:
			return fmt.Errorf("%w: %s", ErrFenced, req.ID)
		case now.Halt != nil:
			return finish("Halted by " + now.Halt.By.String() + ": " + now.Halt.Why)
		case stop.Err() != nil:
			_, err := store.advance(ctx, req, now.Now, fmt.Sprintf("give-back:%d", i), LetGo{Step: -1})
			return err
		}
		at = clock(now.Now)
		if req, err = store.advance(ctx, req, at(), fmt.Sprintf("begin:%d", i), Begin{Step: i}); err != nil {
			return err
		}
		var gaveBack bool
		if req, gaveBack, err = r.settle(ctx, req, at, i, Run); err != nil || gaveBack {
			return err
		}
		if halts(req, i) {
			return finish("Stopped behind step " + fmt.Sprint(i+1) + ", which did not succeed.")
		}
	}
	return finish("")
}

// halts says that a step ended in a way that the steps behind it must not
// follow.
func halts(req Request, i int) bool {
	s := req.Journal[i].State
	return (s == StepFailed || s == StepUncertain) && !req.Plan.Steps[i].CarryOn
}

// settle does one job about a begun step and journals what came of it. When
// Graph asked to wait, the request is given back until then instead of
// sleeping on it.
func (r *Runner) settle(ctx context.Context, req Request, at func() time.Time, step int, kind JobKind) (Request, bool, error) {
	got := r.call(ctx, Job{Kind: kind, Request: req, Step: step})
	if got.State == StepThrottled {
		next, err := r.Desk.Store.advance(ctx, req, at(), fmt.Sprintf("wait:%d", step), LetGo{Step: step, After: max(got.After, time.Second), Detail: got.Detail})
		return next, true, err
	}
	next, err := r.Desk.Store.advance(ctx, req, at(), fmt.Sprintf("end:%d", step), End{Step: step, Result: got})
	return next, false, err
}

// call runs one job under the deadline of a Graph call. A panic is an
// uncertain outcome: something may have been done.
func (r *Runner) call(ctx context.Context, job Job) (got Result) {
	ctx, cancel := context.WithTimeout(ctx, r.Desk.Store.timing.GraphCall)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			r.Log.Error("a step panicked", "request", job.Request.ID, "step", job.Step, "panic", p)
			got = Result{State: StepUncertain, Detail: "Countersign failed in the middle of this step. Look at the account in the Entra admin center."}
		}
	}()
	return r.Work(ctx, job)
}

// clock tells Redis' time from one reading of it and our own clock's
// progress since.
func clock(read time.Time) func() time.Time {
	start := time.Now()
	return func() time.Time { return read.Add(time.Since(start)).Truncate(time.Millisecond) }
}
