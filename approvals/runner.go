package approvals

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// Runner executes approved requests and expires those whose deadline has passed.
// Every process has one; the claim decides which of them executes a request.
type Runner struct {
	Service *Service
	Work    Work
	Name    string // of this process, for operators
	// Audit names the projection that must not lag: nothing is claimed while
	// the record of what was done is not being kept. Empty for no such check.
	Audit       string
	Concurrency int // requests at a time
	Log         *slog.Logger

	mu   sync.Mutex
	held map[string]bool
}

// Run works until ctx ends. Then it lets the steps in progress finish and
// releases their requests.
func (r *Runner) Run(ctx context.Context) {
	store := r.Service.Store
	slots := make(chan struct{}, max(r.Concurrency, 1))
	var busy sync.WaitGroup
	defer busy.Wait()
	tick := time.NewTicker(store.timing.Sweep)
	defer tick.Stop()
	stopped := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-store.wake:
		}
		if ctx.Err() != nil {
			return // select has no order: nothing new after a stop
		}
		store.missingKeys.logOnce(r.Log)
		if err := store.expireSecrets(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, ErrLostWrites) {
			store.outage.logError(r.Log, "secrets that nobody looked at could not be ended", err)
		}
		ids, err := store.due(ctx)
		if stop := errors.Is(err, ErrLostWrites); stop || err == nil {
			if stop && !stopped {
				r.Log.Error("nothing is executed until a person has resumed it: countersign redis resume", "error", err)
			} else if stopped && !stop {
				r.Log.Warn("a person has resumed execution")
			}
			if stopped = stop; stop {
				continue
			}
		}
		if err != nil {
			if ctx.Err() == nil {
				store.outage.logError(r.Log, "the runner cannot see what is due", err)
			}
			continue
		}
		for i := 0; i < len(ids); i++ {
			id := ids[i]
			if ctx.Err() != nil {
				return
			}
			if store.missingKeys.skips(id) || !r.markRunning(id) {
				continue // another process is to carry it on, or this one is at it
			}
			// Only execution takes a hand: what cannot start now, because
			// another request holds its target, keeps no hand from the rest.
			free := false
			select {
			case slots <- struct{}{}:
				free = true
			default:
			}
			claimed, err := r.claim(ctx, id, free)
			if by, ok := errors.AsType[heldTargetError](err); ok {
				// Whoever holds its target may have died, and stand behind all that
				// wait for it.
				if !slices.Contains(ids, by.id) {
					ids = append(ids, by.id)
				}
			} else if err != nil && ctx.Err() == nil {
				store.outage.logError(r.Log, "a request was not carried on", err, "request", id)
			}
			if claimed == nil {
				r.unmarkRunning(id)
				if free {
					<-slots
				}
				continue
			}
			busy.Go(func() {
				defer func() {
					if p := recover(); p != nil {
						r.Log.Error("a request made the runner panic; its lease will run out and it will be reconciled", "request", id, "panic", p)
					}
					r.unmarkRunning(id)
					<-slots
					store.wakeRunner() // whoever waited for this target, or for a hand, may go on
				}()
				r.execute(ctx, claimed)
			})
		}
	}
}

func (r *Runner) markRunning(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held[id] {
		return false
	}
	if r.held == nil {
		r.held = map[string]bool{}
	}
	r.held[id] = true
	return true
}

func (r *Runner) unmarkRunning(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.held, id)
}

// claim does what is due for one request, short of executing it: it expires the
// request, or claims it if free says that this process has capacity. The error
// is heldTargetError if another request of the same target is running.
func (r *Runner) claim(ctx context.Context, id string, free bool) (*execution, error) {
	store := r.Service.Store
	snap, err := store.Load(ctx, id)
	switch {
	case errors.Is(err, ErrNoRequest):
		// Its hash is gone although it was never ended: a Redis that evicts. What
		// brings us here goes last, so that the rest is not left behind.
		return nil, errors.Join(err, store.rdb.ZRem(ctx, store.keys.open(), id).Err(), store.rdb.ZRem(ctx, store.keys.due(), id).Err())
	case errors.Is(err, ErrNoKey): // whoever has the key must find it when it is due
		store.missingKeys.skip(id, store.timing.Lease, err)
		return nil, nil
	case errors.Is(err, ErrSeal):
		return nil, errors.Join(err, store.postpone(ctx, id, store.timing.Lease))
	case err != nil:
		return nil, err
	case (snap.State == StatePending || snap.State == StateApproved) && snap.overdue(snap.Now):
		return nil, store.expire(ctx, snap)
	case (snap.State == StateHandedOff || snap.State == StateReview) && !snap.Now.Before(snap.Lease):
		return nil, store.remind(ctx, snap)
	case snap.State == StatePending:
		return nil, store.remindExpiry(ctx, snap)
	case snap.State == StateApproved, snap.State == StateRunning && !snap.Now.Before(snap.Lease):
	default:
		return nil, nil
	}
	if !free {
		return nil, nil // another process, or the next look
	}
	if r.Audit != "" {
		lag, err := store.Lag(ctx, r.Audit)
		if err != nil {
			return nil, err
		}
		if lag > store.timing.AuditLag {
			r.Log.Error("nothing is started while the audit is behind", "request", id, "behind", lag.Round(time.Second))
			return nil, nil
		}
	}
	sent, life := time.Now(), store.processEpoch()
	if snap, err = store.claim(ctx, snap, r.Name); err != nil {
		if _, ok := errors.AsType[heldTargetError](err); !ok && errors.Is(err, ErrFenced) {
			return nil, nil // another worker
		}
		return nil, err
	}
	return &execution{Runner: r, req: snap.Request, at: clock(snap.Now), renewed: sent, epoch: life}, nil
}

// execute executes a claimed request.
func (r *Runner) execute(ctx context.Context, h *execution) {
	// From here on the request is finished whatever happens to ctx: a step in
	// hand must be journalled, and what is left is given back.
	h.ctx = context.WithoutCancel(ctx)
	err := h.execute(ctx)
	switch {
	case errors.Is(err, ErrFenced):
		r.Log.Warn("lost a request to another worker and stopped", "request", h.req.ID)
	case err != nil:
		r.Log.Warn("a request was not carried on; it is taken up again when its lease has run out", "request", h.req.ID, "error", err)
	}
}

// execution is the execution of one request by the worker that holds its claim.
type execution struct {
	*Runner
	ctx     context.Context  // never cancelled
	req     Request          // as this worker's last write left it
	at      func() time.Time // Redis' clock
	renewed time.Time        // our clock, before the last write that renewed the lease
	epoch   int              // of this process, as it was before the claim
}

// resumedSinceClaim reports an error if Redis was rolled back and resumed since
// this worker claimed its request. Another worker may hold the same claim now.
func (h *execution) resumedSinceClaim() error {
	if h.Service.Store.processEpoch() != h.epoch {
		return fmt.Errorf("%w since %s was claimed", ErrLostWrites, h.req.ID)
	}
	return nil
}

// execute executes the remaining steps of the request. When stop ends, it
// releases the request before the next step.
func (h *execution) execute(stop context.Context) error {
	open := func(e JournalEntry) bool { return e.State == StepStarted }
	waiting := func(e JournalEntry) bool { return e.State == StepWaiting }

	var no *Refusal
	if slices.ContainsFunc(h.req.Journal, func(e JournalEntry) bool { return open(e) || waiting(e) }) {
		no = h.Service.recheck(stop, h.req)
		if stop.Err() != nil {
			return h.release("recheck")
		}
	}
	// A step that was left open, by a dead worker or because Graph asked to wait
	// in its middle, is reconciled before anything else.
	for i, e := range h.req.Journal {
		if open(e) {
			job := Job{Kind: JobReconcile, Step: i, ReadOnly: no != nil || h.req.Halt != nil}
			if gaveBack, err := h.runStep(job); err != nil || gaveBack {
				return err
			}
		}
	}
	if done, err := h.endIfRefused(no); err != nil || done {
		return err
	}
	drift := h.call(stop, Job{Kind: JobCheck, Request: h.req, Step: -1})
	switch {
	case drift.State == StepDone:
	case stop.Err() != nil:
		return h.release("check")
	case drift.State == StepThrottled && h.waitTooLong(drift.After):
		return h.finish("Microsoft Graph kept asking to wait, so this was given up before its next step. Request it again later.")
	case drift.State == StepThrottled:
		return h.advance("wait-check", Release{Step: -1, After: max(drift.After, h.Service.Store.timing.Sweep), Detail: drift.Detail})
	default:
		return h.finish(cmp.Or(drift.Detail, "The target could not be compared with what the plan assumes, so nothing more was done."))
	}

	for i := range h.req.Plan.Steps {
		for h.req.Journal[i].State == StepWaiting {
			now, err := h.Service.Store.Load(h.ctx, h.req.ID)
			if errors.Is(err, ErrNoKey) { // it was halted where a later key seals
				return h.release(fmt.Sprint(i))
			}
			if err != nil {
				return err
			}
			if now.Claim != h.req.Claim {
				return fmt.Errorf("%w: %s", ErrFenced, h.req.ID)
			}
			h.req.Version, h.req.Halt, h.at = now.Version, now.Halt, clock(now.Now)
			if done, err := h.endIfRefused(nil); err != nil || done {
				return err
			}
			if stop.Err() != nil {
				return h.release(fmt.Sprint(i))
			}
			if h.req.Plan.Steps[i].ByPeople {
				err := h.advance(fmt.Sprintf("hand-off:%d", i), HandOff{Step: i})
				if errors.Is(err, errHalted) {
					continue
				}
				return err
			}
			if ended, err := h.prepare(i); err != nil || ended {
				return err
			}
			err = h.advance(fmt.Sprintf("begin:%d", i), StartStep{Step: i})
			if errors.Is(err, errHalted) {
				continue
			}
			if err != nil {
				return err
			}
			if gaveBack, err := h.runStep(Job{Kind: JobRun, Step: i}); err != nil || gaveBack {
				return err
			}
		}
	}
	_, err := h.endIfRefused(nil)
	return err
}

// endIfRefused finishes the request if no further step is allowed or left.
func (h *execution) endIfRefused(no *Refusal) (bool, error) {
	if !slices.ContainsFunc(h.req.Journal, func(e JournalEntry) bool { return e.State == StepWaiting }) {
		return true, h.finish("")
	}
	for i := range h.req.Journal {
		if h.req.stopsPlan(i) {
			return true, h.finish(fmt.Sprintf("Stopped behind step %d, which did not succeed.", i+1))
		}
	}
	switch {
	case h.req.Halt != nil:
		return true, h.finish("Halted by " + h.req.Halt.By.String() + ": " + h.req.Halt.Why)
	case no != nil:
		return true, h.finish("Stopped before its next step: " + no.Sentence)
	}
	return false, nil
}

func (h *execution) finish(why string) error {
	h.dropUnusedSecrets()
	return h.journal("finish", Finish{Why: why})
}

// release lets another process claim the request at once.
func (h *execution) release(where string) error {
	return h.advance("give-back:"+where, Release{Step: -1})
}

// advance makes one write of this worker.
func (h *execution) advance(op string, a Action) error {
	if err := h.resumedSinceClaim(); err != nil {
		return err
	}
	sent := time.Now()
	next, err := h.Service.Store.advance(h.ctx, h.req, h.at(), op, a)
	if err == nil {
		h.req, h.renewed = next, sent
	}
	return err
}

// waitTooLong reports whether a wait would exceed the time that a request may
// run.
func (h *execution) waitTooLong(wait time.Duration) bool {
	return h.at().Add(wait).After(h.req.StartedAt.Add(h.Service.Store.timing.RunFor))
}

// runStep runs one job of a started step and journals its outcome. If Graph asks
// to wait, the request is released until then, so that no worker sleeps.
func (h *execution) runStep(job Job) (gaveBack bool, err error) {
	timing := h.Service.Store.timing
	job.Request = h.req
	prepared := h.req.Plan.Steps[job.Step].Secret == SecretPrepared
	if prepared {
		if job.Secret, err = h.Service.Store.secretValue(h.ctx, h.req.ID, job.Step); err != nil {
			return false, err
		}
	}
	// Where this process stood still for so long that the lease may run out
	// during the call, another worker must not meet it: the step is left to
	// be reconciled.
	margin := timing.Lease - timing.GraphCall - timing.GraphGrace
	if margin <= 0 {
		margin = timing.Lease
	}
	if time.Since(h.renewed) >= margin {
		return false, fmt.Errorf("%w: %s was not called in time, step %d is left to be reconciled", ErrFenced, h.req.ID, job.Step+1)
	}
	var got Result
	if prepared && job.Kind == JobRun && job.Secret == "" {
		got = Result{State: StepFailed, Detail: "What this step was to set was lost before it was used, so nothing was done. Request it again."}
	} else {
		got = h.call(h.ctx, job)
	}
	// What a dead worker did is not known any better than before, and what took
	// effect in part would look like somebody else's change: neither is run anew.
	untouched := job.Kind == JobRun && !got.Unsure
	if got.State == StepThrottled && h.waitTooLong(got.After) {
		got = Result{State: StepFailed, RequestID: got.RequestID, Detail: "Microsoft Graph kept asking to wait, so this was given up and not done. Request it again later."}
		if !untouched {
			got.State, got.Detail = StepUncertain, "Microsoft Graph kept asking to wait, so what became of this step is not known. Look at the account in the Entra admin center."
		}
	}
	if got.State == StepThrottled {
		release := Release{Step: job.Step, After: max(got.After, timing.Sweep), Detail: got.Detail}
		if !untouched {
			release.Step = -1 // it stays begun
		}
		return true, h.journal(fmt.Sprintf("wait:%d", job.Step), release)
	}
	if got, err = h.keepSecret(job, got); err != nil {
		return false, err
	}
	err = h.journal(fmt.Sprintf("end:%d", job.Step), EndStep{Step: job.Step, Result: got})
	if errors.Is(err, ErrLostWrites) { // nobody but this worker will ever know it
		h.Log.Error("the outcome of a step is not journalled, because Redis has lost confirmed writes", "request", h.req.ID, "step", job.Step+1, "ended", got.State)
	}
	return false, err
}

// journal writes what only this worker knows, so it retries for as long as the
// lease may last: another worker could only guess. The operation id makes every
// attempt the same write.
func (h *execution) journal(op string, a Action) error {
	return h.retryUntilLeaseEnds(op, func() error { return h.advance(op, a) })
}

// retryUntilLeaseEnds retries a write for as long as the lease of this worker
// may last.
func (h *execution) retryUntilLeaseEnds(op string, write func() error) error {
	give := time.Now().Add(h.Service.Store.timing.Lease)
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := h.resumedSinceClaim()
		if err == nil {
			err = write()
		}
		if err == nil || errors.Is(err, ErrFenced) || errors.Is(err, ErrLostWrites) || time.Now().Add(pause).After(give) {
			return err
		}
		h.Service.Store.outage.logError(h.Log, "the outcome of a request could not be journalled", err, "request", h.req.ID, "write", op)
		time.Sleep(pause)
	}
}

// call runs one job with the deadline of a Graph call. A panic or an invalid
// result is an uncertain outcome, because something may have been done. The
// returned detail does not contain the secret.
func (r *Runner) call(ctx context.Context, job Job) (got Result) {
	ctx, cancel := context.WithTimeout(ctx, r.Service.Store.timing.GraphCall)
	defer cancel()
	defer func() {
		p := recover()
		switch got.State {
		case StepDone, StepAlready, StepFailed, StepUncertain, StepThrottled:
			if p == nil {
				return
			}
		}
		r.Log.Error("a job went wrong inside Countersign", "request", job.Request.ID, "job", job.Kind, "step", job.Step+1, "state", got.State, "panic", p)
		got = Result{State: StepUncertain, Detail: "Countersign failed in the middle of this step. Look at the account in the Entra admin center."}
		if job.Kind == JobCheck {
			got.Detail = "Countersign failed while it compared the target with what the plan assumes, so nothing more was done."
		}
	}()
	got = r.Work(ctx, job)
	for _, secret := range []string{job.Secret, got.Secret} {
		if secret != "" { // an error of Graph's may repeat what it was sent
			got.Detail = strings.ReplaceAll(got.Detail, secret, redacted)
		}
	}
	return got
}

// clock continues Redis' time from one reading, by the progress of our own
// clock.
func clock(read time.Time) func() time.Time {
	start := time.Now()
	return func() time.Time { return read.Add(time.Since(start)).Truncate(time.Millisecond) }
}
