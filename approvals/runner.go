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
	store := r.Desk.Store
	slots := make(chan struct{}, max(r.Hands, 1))
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
		store.keyless.tell(r.Log)
		if err := store.endOffers(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, ErrRewound) {
			store.outage.trouble(r.Log, "secrets that nobody looked at could not be ended", err)
		}
		ids, err := store.due(ctx)
		if stop := errors.Is(err, ErrRewound); stop || err == nil {
			if stop && !stopped {
				r.Log.Error("nothing is executed until a person has said go on: countersign redis resume", "error", err)
			} else if stopped && !stop {
				r.Log.Warn("a person has said go on: execution goes on")
			}
			if stopped = stop; stop {
				continue
			}
		}
		if err != nil {
			if ctx.Err() == nil {
				store.outage.trouble(r.Log, "the runner cannot see what is due", err)
			}
			continue
		}
		for i := 0; i < len(ids); i++ {
			id := ids[i]
			if ctx.Err() != nil {
				return
			}
			if store.keyless.leaves(id) || !r.hold(id) {
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
			claimed, err := r.take(ctx, id, free)
			if by, ok := errors.AsType[heldBy](err); ok {
				// Whoever holds its target may have died, and stand behind all that
				// wait for it.
				if !slices.Contains(ids, by.id) {
					ids = append(ids, by.id)
				}
			} else if err != nil && ctx.Err() == nil {
				store.outage.trouble(r.Log, "a request was not carried on", err, "request", id)
			}
			if claimed == nil {
				r.drop(id)
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
					r.drop(id)
					<-slots
					store.nudge() // whoever waited for this target, or for a hand, may go on
				}()
				r.one(ctx, claimed)
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
	if r.held == nil {
		r.held = map[string]bool{}
	}
	r.held[id] = true
	return true
}

func (r *Runner) drop(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.held, id)
}

// take does what is due for one request, short of carrying it out: it ends
// what has expired and, where a hand is free, claims what may run. The error is
// heldBy where another request of its target runs.
func (r *Runner) take(ctx context.Context, id string, free bool) (*hand, error) {
	store := r.Desk.Store
	snap, err := store.Load(ctx, id)
	switch {
	case errors.Is(err, ErrNoRequest):
		// Its hash is gone although it was never ended: a Redis that evicts. What
		// brings us here goes last, so that the rest is not left behind.
		return nil, errors.Join(err, store.rdb.ZRem(ctx, store.keys.open(), id).Err(), store.rdb.ZRem(ctx, store.keys.due(), id).Err())
	case errors.Is(err, ErrNoKey): // whoever has the key must find it when it is due
		store.keyless.leave(id, store.timing.Lease, err)
		return nil, nil
	case errors.Is(err, ErrSeal):
		return nil, errors.Join(err, store.postpone(ctx, id, store.timing.Lease))
	case err != nil:
		return nil, err
	case (snap.State == Pending || snap.State == Approved) && snap.overdue(snap.Now):
		return nil, store.expire(ctx, snap)
	case (snap.State == HandedOff || snap.State == Review) && !snap.Now.Before(snap.Lease):
		return nil, store.remind(ctx, snap)
	case snap.State == Pending:
		return nil, store.warn(ctx, snap)
	case snap.State == Approved, snap.State == Running && !snap.Now.Before(snap.Lease):
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
	sent, life := time.Now(), store.life()
	if snap, err = store.claim(ctx, snap, r.Name); err != nil {
		if _, ok := errors.AsType[heldBy](err); !ok && errors.Is(err, ErrFenced) {
			return nil, nil // another worker
		}
		return nil, err
	}
	return &hand{Runner: r, req: snap.Request, at: clock(snap.Now), renewed: sent, life: life}, nil
}

// one carries out a claimed request.
func (r *Runner) one(ctx context.Context, h *hand) {
	// From here on the request is finished whatever happens to ctx: a step in
	// hand must be journalled, and what is left is given back.
	h.ctx = context.WithoutCancel(ctx)
	err := h.carryOut(ctx)
	switch {
	case errors.Is(err, ErrFenced):
		r.Log.Warn("lost a request to another worker and stopped", "request", h.req.ID)
	case err != nil:
		r.Log.Warn("a request was not carried on; it is taken up again when its lease has run out", "request", h.req.ID, "error", err)
	}
}

// hand is one worker's hold on one request.
type hand struct {
	*Runner
	ctx     context.Context  // never cancelled
	req     Request          // as this worker's last write left it
	at      func() time.Time // Redis' clock
	renewed time.Time        // our clock, before the last write that renewed the lease
	life    int              // of this process, as it was before the claim
}

// outlived says that Redis has gone back since this worker claimed its request,
// and that somebody has said go on. Another one may have the same claim by now.
func (h *hand) outlived() error {
	if h.Desk.Store.life() != h.life {
		return fmt.Errorf("%w since %s was claimed", ErrRewound, h.req.ID)
	}
	return nil
}

// carryOut takes the request through what is left of its steps. When stop
// ends it gives the request back before the next step.
func (h *hand) carryOut(stop context.Context) error {
	open := func(e Entry) bool { return e.State == StepStarted }
	waiting := func(e Entry) bool { return e.State == StepWaiting }

	var no *Refusal
	if slices.ContainsFunc(h.req.Journal, func(e Entry) bool { return open(e) || waiting(e) }) {
		no = h.Desk.recheck(stop, h.req)
		if stop.Err() != nil {
			return h.giveBack("recheck")
		}
	}
	// A step that was left open, by a dead worker or because Graph asked to wait
	// in its middle, is reconciled before anything else.
	for i, e := range h.req.Journal {
		if open(e) {
			job := Job{Kind: Reconcile, Step: i, LookOnly: no != nil || h.req.Halt != nil}
			if gaveBack, err := h.settle(job); err != nil || gaveBack {
				return err
			}
		}
	}
	if done, err := h.ended(no); err != nil || done {
		return err
	}
	drift := h.call(stop, Job{Kind: Check, Request: h.req, Step: -1})
	switch {
	case drift.State == StepDone:
	case stop.Err() != nil:
		return h.giveBack("check")
	case drift.State == StepThrottled && h.tooLate(drift.After):
		return h.finish("Microsoft Graph kept asking to wait, so this was given up before its next step. Request it again later.")
	case drift.State == StepThrottled:
		return h.advance("wait-check", LetGo{Step: -1, After: max(drift.After, h.Desk.Store.timing.Sweep), Detail: drift.Detail})
	default:
		return h.finish(cmp.Or(drift.Detail, "The target could not be compared with what the plan assumes, so nothing more was done."))
	}

	for i := range h.req.Plan.Steps {
		for h.req.Journal[i].State == StepWaiting {
			now, err := h.Desk.Store.Load(h.ctx, h.req.ID)
			if errors.Is(err, ErrNoKey) { // it was halted where a later key seals
				return h.giveBack(fmt.Sprint(i))
			}
			if err != nil {
				return err
			}
			if now.Claim != h.req.Claim {
				return fmt.Errorf("%w: %s", ErrFenced, h.req.ID)
			}
			h.req.Version, h.req.Halt, h.at = now.Version, now.Halt, clock(now.Now)
			if done, err := h.ended(nil); err != nil || done {
				return err
			}
			if stop.Err() != nil {
				return h.giveBack(fmt.Sprint(i))
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
			err = h.advance(fmt.Sprintf("begin:%d", i), Begin{Step: i})
			if errors.Is(err, errHalted) {
				continue
			}
			if err != nil {
				return err
			}
			if gaveBack, err := h.settle(Job{Kind: Run, Step: i}); err != nil || gaveBack {
				return err
			}
		}
	}
	_, err := h.ended(nil)
	return err
}

// ended finishes the request when no further step may or need be taken.
func (h *hand) ended(no *Refusal) (bool, error) {
	if !slices.ContainsFunc(h.req.Journal, func(e Entry) bool { return e.State == StepWaiting }) {
		return true, h.finish("")
	}
	for i := range h.req.Journal {
		if h.req.stuck(i) {
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

func (h *hand) finish(why string) error {
	h.forget()
	return h.journal("finish", Finish{Why: why})
}

// giveBack lets another process take the request over at once.
func (h *hand) giveBack(where string) error {
	return h.advance("give-back:"+where, LetGo{Step: -1})
}

// advance is one write of this worker.
func (h *hand) advance(op string, a Action) error {
	if err := h.outlived(); err != nil {
		return err
	}
	sent := time.Now()
	next, err := h.Desk.Store.advance(h.ctx, h.req, h.at(), op, a)
	if err == nil {
		h.req, h.renewed = next, sent
	}
	return err
}

// tooLate says that a wait would last beyond the time a request may run.
func (h *hand) tooLate(wait time.Duration) bool {
	return h.at().Add(wait).After(h.req.Began.Add(h.Desk.Store.timing.RunFor))
}

// settle does one job about a begun step and journals what came of it. When
// Graph asked to wait, the request is given back until then instead of
// sleeping on it.
func (h *hand) settle(job Job) (gaveBack bool, err error) {
	timing := h.Desk.Store.timing
	job.Request = h.req
	prepared := h.req.Plan.Steps[job.Step].Secret == SecretPrepared
	if prepared {
		if job.Secret, err = h.Desk.Store.secretValue(h.ctx, h.req.ID, job.Step); err != nil {
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
	if prepared && job.Kind == Run && job.Secret == "" {
		got = Result{State: StepFailed, Detail: "What this step was to set was lost before it was used, so nothing was done. Request it again."}
	} else {
		got = h.call(h.ctx, job)
	}
	// What a dead worker did is not known any better than before, and what took
	// effect in part would look like somebody else's change: neither is run anew.
	untouched := job.Kind == Run && !got.Unsure
	if got.State == StepThrottled && h.tooLate(got.After) {
		got = Result{State: StepFailed, RequestID: got.RequestID, Detail: "Microsoft Graph kept asking to wait, so this was given up and not done. Request it again later."}
		if !untouched {
			got.State, got.Detail = StepUncertain, "Microsoft Graph kept asking to wait, so what became of this step is not known. Look at the account in the Entra admin center."
		}
	}
	if got.State == StepThrottled {
		letGo := LetGo{Step: job.Step, After: max(got.After, timing.Sweep), Detail: got.Detail}
		if !untouched {
			letGo.Step = -1 // it stays begun
		}
		return true, h.journal(fmt.Sprintf("wait:%d", job.Step), letGo)
	}
	if got, err = h.keepSecret(job, got); err != nil {
		return false, err
	}
	err = h.journal(fmt.Sprintf("end:%d", job.Step), End{Step: job.Step, Result: got})
	if errors.Is(err, ErrRewound) { // nobody but this worker will ever know it
		h.Log.Error("how a step ended is not journalled, because Redis has gone back in time", "request", h.req.ID, "step", job.Step+1, "ended", got.State)
	}
	return false, err
}

// journal writes what only this worker knows, and so tries for as long as its
// lease may last: whoever takes over could only guess. The operation id makes
// every attempt the same write.
func (h *hand) journal(op string, a Action) error {
	return h.insist(op, func() error { return h.advance(op, a) })
}

// insist tries a write again for as long as this worker's lease may last.
func (h *hand) insist(op string, write func() error) error {
	give := time.Now().Add(h.Desk.Store.timing.Lease)
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := h.outlived()
		if err == nil {
			err = write()
		}
		if err == nil || errors.Is(err, ErrFenced) || errors.Is(err, ErrRewound) || time.Now().Add(pause).After(give) {
			return err
		}
		h.Desk.Store.outage.trouble(h.Log, "what became of a request could not be journalled", err, "request", h.req.ID, "write", op)
		time.Sleep(pause)
	}
}

// call runs one job under the deadline of a Graph call. A panic, or an answer
// that is none, is an uncertain outcome: something may have been done. What is
// said of it is free of its secret, whatever becomes of it then.
func (r *Runner) call(ctx context.Context, job Job) (got Result) {
	ctx, cancel := context.WithTimeout(ctx, r.Desk.Store.timing.GraphCall)
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
		if job.Kind == Check {
			got.Detail = "Countersign failed while it compared the target with what the plan assumes, so nothing more was done."
		}
	}()
	got = r.Work(ctx, job)
	for _, secret := range []string{job.Secret, got.Secret} {
		if secret != "" { // an error of Graph's may repeat what it was sent
			got.Detail = strings.ReplaceAll(got.Detail, secret, hidden)
		}
	}
	return got
}

// clock tells Redis' time from one reading of it and our own clock's
// progress since.
func clock(read time.Time) func() time.Time {
	start := time.Now()
	return func() time.Time { return read.Add(time.Since(start)).Truncate(time.Millisecond) }
}
