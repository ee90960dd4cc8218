package approvals

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign/audit"
)

// Secret is the result of a step that only the requester may see.
type Secret struct {
	Value string    `json:"-"`
	Until time.Time `json:"until,omitzero"` // until when it is good for anything
	Step  int       `json:"step"`
}

// sealedSecret is the stored form of a secret, the only one that contains its
// value.
type sealedSecret struct {
	Value string    `json:"value"`
	Until time.Time `json:"until,omitzero"`
}

// redacted replaces a secret wherever it would be printed.
const redacted = "[secret]"

// LogValue keeps a secret out of every log.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// String keeps a secret out of every text.
func (Secret) String() string { return redacted }

// Format keeps a secret out of everything that is formatted, with any verb.
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// Format keeps the secret of a result out of everything that is formatted.
func (r Result) Format(f fmt.State, verb rune) {
	type bare Result // without this method
	if r.Secret != "" {
		r.Secret = redacted
	}
	fmt.Fprintf(f, fmt.FormatString(f, verb), bare(r))
}

// Format keeps the secret of a job out of everything that is formatted.
func (j Job) Format(f fmt.State, verb rune) {
	type bare Job
	if j.Secret != "" {
		j.Secret = redacted
	}
	fmt.Fprintf(f, fmt.FormatString(f, verb), bare(j))
}

// preparedLife is how long a prepared secret is kept for a step that has not
// ended. Timing.Check makes sure that no request runs for longer.
const preparedLife = time.Hour

// keepScript keeps a secret, and where it is offered notes when the offer ends
// on this server's clock.
//
// KEYS 1 secret  2 offers  3 request; ARGV 1 sealed  2 life in ms  3 the
// offer's name, empty for none  4 the claim it takes
var keepScript = redis.NewScript(`
if redis.call('HGET', KEYS[3], 'claim') ~= ARGV[4] then return -1 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if ARGV[3] ~= '' then
  local t = redis.call('TIME')
  redis.call('ZADD', KEYS[2], string.format('%d', tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000) + tonumber(ARGV[2])), ARGV[3])
end
return 1`)

// dropScript removes a secret and its offer. KEYS as above; ARGV 1 the offer's
// name  2 the claim it takes, empty for any  3 when the offer ends, empty for
// any: one that was made anew in the meantime stays
var dropScript = redis.NewScript(`
if ARGV[2] ~= '' and redis.call('HGET', KEYS[3], 'claim') ~= ARGV[2] then return -1 end
if ARGV[3] ~= '' and tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1]) or 0) ~= tonumber(ARGV[3]) then return 0 end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1`)

func offer(id string, step int) string { return id + "/" + strconv.Itoa(step) }

// storeSecret stores a sealed secret beside its request. An offered secret can
// be revealed until it expires. Like every write of a worker it counts only
// while the worker holds the claim, so that a late worker cannot replace the
// password that was set by another. Otherwise it returns ErrFenced.
func (s *Store) storeSecret(ctx context.Context, r Request, step int, secret Secret, life time.Duration, offered bool) error {
	name, listed := offer(r.ID, step), ""
	plain, err := json.Marshal(sealedSecret{secret.Value, secret.Until})
	if err != nil {
		return err
	}
	if offered {
		listed = name
	}
	kept, err := keepScript.Run(ctx, s.rdb, []string{s.keys.secret(name), s.keys.offers(), s.keys.request(r.ID)},
		s.ring.Seal("secret", name, plain), life.Milliseconds(), listed, formatInt(r.Claim)).Int()
	switch {
	case err != nil:
		return fmt.Errorf("approvals: the secret of %s was not confirmed by Redis: %w", name, err)
	case kept < 0:
		return fmt.Errorf("%w: %s", ErrFenced, r.ID)
	}
	return nil
}

var errNoSecret = errors.New("approvals: the secret is gone")

// secret reads a secret. It returns errNoSecret if there was none, or if it has
// expired or was seen.
func (s *Store) secret(ctx context.Context, id string, step int) (Secret, error) {
	sealed, err := s.rdb.Get(ctx, s.keys.secret(offer(id, step))).Result()
	if errors.Is(err, redis.Nil) {
		return Secret{}, errNoSecret
	}
	if err != nil {
		return Secret{}, err
	}
	plain, err := s.ring.Open("secret", offer(id, step), sealed)
	if err != nil {
		return Secret{}, err
	}
	var kept sealedSecret
	if err := json.Unmarshal(plain, &kept); err != nil {
		return Secret{}, fmt.Errorf("approvals: the secret of %s: %w", id, err)
	}
	return Secret{Value: kept.Value, Until: kept.Until, Step: step}, nil
}

// secretValue returns the value of a prepared secret, or nothing if it is lost:
// a value that does not open will not open later, except for a process with its
// key.
func (s *Store) secretValue(ctx context.Context, id string, step int) (string, error) {
	secret, err := s.secret(ctx, id, step)
	if errors.Is(err, errNoSecret) || errors.Is(err, ErrSeal) && !errors.Is(err, ErrNoKey) {
		return "", nil
	}
	return secret.Value, err
}

// dropSecret removes a secret and its offer. A worker passes its claim, and the
// sweep passes when the offer was to expire; both may be empty.
func (s *Store) dropSecret(ctx context.Context, id string, step int, claim, ends string) error {
	name := offer(id, step)
	dropped, err := dropScript.Run(ctx, s.rdb, []string{s.keys.secret(name), s.keys.offers(), s.keys.request(id)}, name, claim, ends).Int()
	if err != nil {
		return fmt.Errorf("approvals: the end of the secret of %s was not confirmed by Redis: %w", name, err)
	}
	if dropped < 0 {
		return fmt.Errorf("%w: %s", ErrFenced, id)
	}
	return nil
}

// OfferedSecret reports whether a request has a secret that can still be
// revealed.
func (s *Store) OfferedSecret(ctx context.Context, r Request) (bool, error) {
	for i, step := range r.Plan.Steps {
		if step.Secret == SecretNone || i >= len(r.Journal) || r.Journal[i].State != StepDone {
			continue
		}
		n, err := s.rdb.Exists(ctx, s.keys.secret(offer(r.ID, i))).Result()
		if err != nil || n > 0 {
			return n > 0, err
		}
	}
	return false, nil
}

// expireSecrets records the expiry of secrets that nobody is known to have seen.
func (s *Store) expireSecrets(ctx context.Context) error {
	_, ended, err := s.elapsed(ctx, s.keys.offers(), 100+s.missingKeys.count())
	if err != nil {
		return fmt.Errorf("approvals: Redis does not tell which offers have ended: %w", err)
	}
	var failed []error // one that cannot be told of does not hold up the others
	for _, o := range ended {
		if s.missingKeys.skips(o.name) {
			continue
		}
		err := s.expireSecret(ctx, o.name, formatInt(o.at))
		if errors.Is(err, ErrNoKey) { // whoever has the key tells of it
			s.missingKeys.skip(o.name, s.timing.Lease, err)
			continue
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// expireSecret expires the offer that was to expire at the instant ends. The
// event comes before the removal, so that both are repeated if one of them
// fails.
func (s *Store) expireSecret(ctx context.Context, name, ends string) error {
	id, index, _ := strings.Cut(name, "/")
	step := int(parseInt(index))
	snap, err := s.Load(ctx, id)
	switch {
	case errors.Is(err, ErrNoRequest):
		err = nil // nobody is left to be told
	case errors.Is(err, ErrSeal) && !errors.Is(err, ErrNoKey): // nor can this be told of, today or later
	case err != nil:
		return err
	case step < len(snap.Journal) && snap.Journal[step].State == StepDone:
		e := snap.event(audit.Unseen, Person{})
		for _, answer := range snap.ops {
			if answer == revealed {
				e.Outcome = "opened"
			}
		}
		// An offer that is made again, by whoever reconciles the step, ends
		// at another instant and is told of once more.
		if _, err := s.note(ctx, "unseen:"+name+":"+ends, "ok", snap.Request, e); err != nil {
			return err
		}
	}
	// A step that has not ended is reconciled, and then offers its secret anew.
	return errors.Join(err, s.dropSecret(ctx, id, step, "", ends))
}

// remindExpiry reminds people once that an undecided request is about to expire,
// and schedules its expiry. If nobody has to be reminded, the request is
// rescheduled only if its version is unchanged: a request that was approved at
// that moment must run at once.
func (s *Store) remindExpiry(ctx context.Context, snap Snapshot) error {
	begin := snap.Deadline.Add(-s.timing.warning(snap.Requirements.Lifetime))
	w := write{
		request: snap.Request, op: "warn", mode: "change", version: formatInt(snap.Version), before: snap.Deadline, after: begin,
		answer: "ok", due: formatMillis(snap.Deadline.Sub(snap.Now)),
	}
	_, told := snap.ops[w.op]
	switch later := fmt.Sprintf("later:%d", snap.Version); {
	case told: // the first write counted, and its reply or its index was lost
		w.op, w.after = later, time.Time{}
	case snap.Now.Before(begin): // somebody put it before its time
		w.op, w.after, w.due = later, time.Time{}, formatMillis(begin.Sub(snap.Now))
	default:
		e := snap.event(audit.Reminded, Person{})
		e.Outcome = string(snap.State)
		e.Reason = fmt.Sprintf("It is %s, and expires at %s.", snap.Summary(), snap.Deadline.UTC().Format("15:04 UTC"))
		w.events = []audit.Event{e}
	}
	_, err := s.run(ctx, w)
	return err
}

// remind reminds people from time to time of a hand-off or a review. Of two
// processes only one reminds, and nobody is reminded of what has just been
// closed: the version and the instant of the last reminder must be unchanged.
func (s *Store) remind(ctx context.Context, snap Snapshot) error {
	e := snap.event(audit.Reminded, Person{})
	e.Outcome = string(snap.State)
	e.Reason = "It is " + snap.Summary() + "."
	_, err := s.run(ctx, write{
		request: snap.Request, op: fmt.Sprintf("remind:%d", snap.Version), mode: "change", version: formatInt(snap.Version), after: snap.Lease,
		answer: "ok", durations: []string{"lease", formatMillis(s.timing.Remind)}, due: formatMillis(s.timing.Remind), events: []audit.Event{e},
	})
	return err
}

// prepare makes the secret that a step needs before it is started. If that
// fails, the request ends, because the next attempt would fail as well.
func (h *execution) prepare(step int) (ended bool, err error) {
	if h.req.Plan.Steps[step].Secret != SecretPrepared {
		return false, nil
	}
	got := h.call(h.ctx, Job{Kind: JobPrepare, Request: h.req, Step: step})
	if got.State != StepDone || got.Secret == "" {
		h.Log.Error("the secret of a step could not be made", "request", h.req.ID, "step", step+1, "detail", got.Detail)
		return true, h.finish(fmt.Sprintf("Stopped before step %d, because its secret could not be made.", step+1))
	}
	return false, h.retryUntilLeaseEnds("prepare", func() error {
		return h.Service.Store.storeSecret(h.ctx, h.req, step, Secret{Value: got.Secret}, preparedLife, false)
	})
}

// keepSecret offers the secret of a step that was executed, and removes that of
// a step that was not. This comes before the end of the step is journalled: if
// the worker dies in between, the step is reconciled, and no password is lost.
func (h *execution) keepSecret(job Job, got Result) (Result, error) {
	store := h.Service.Store
	if h.req.Plan.Steps[job.Step].Secret == SecretNone {
		return got, nil
	}
	secret := Secret{Value: cmp.Or(got.Secret, job.Secret), Until: got.Until}
	got.Secret = ""
	if got.State == StepDone && secret.Value != "" {
		return got, h.retryUntilLeaseEnds("offer-secret", func() error {
			return store.storeSecret(h.ctx, h.req, job.Step, secret, store.timing.SecretLife, true)
		})
	}
	if got.State == StepDone {
		got.Detail = strings.TrimSpace(got.Detail + " It was carried out, but its secret is lost: request it again.")
	}
	// What is there may be an earlier attempt's, and not what is in force.
	return got, h.retryUntilLeaseEnds("drop-secret", func() error {
		return store.dropSecret(h.ctx, h.req.ID, job.Step, formatInt(h.req.Claim), "")
	})
}

// dropUnusedSecrets removes secrets that were made for steps which were never
// started.
func (h *execution) dropUnusedSecrets() {
	for i, e := range h.req.Journal {
		if e.State != StepWaiting || h.req.Plan.Steps[i].Secret != SecretPrepared {
			continue
		}
		if err := h.Service.Store.dropSecret(h.ctx, h.req.ID, i, formatInt(h.req.Claim), ""); err != nil {
			h.Log.Warn("a secret that was never used stays sealed until its time is over", "request", h.req.ID, "error", err)
		}
	}
}

// verbReveal names the action in the event that records its refusal.
const verbReveal = "open the secret"

// revealed is the stored answer to the operation that revealed a secret.
const revealed = "revealed"

// Reveal returns the secret of a request to its requester, and records that. The
// secret is kept until Shown confirms that the requester has seen it.
func (d *Service) Reveal(ctx context.Context, op, id string, by Person) (Secret, error) {
	snap, err := d.Store.Load(ctx, id)
	if errors.Is(err, ErrNoRequest) {
		return Secret{}, cmp.Or(d.refuseUnknownRequest(ctx, op, id, by, "the secret of "+id, verbReveal), err)
	}
	if err != nil {
		return Secret{}, err
	}
	if by.ID == "" || by.ID != snap.Requester.ID {
		return Secret{}, d.refusedReveal(ctx, op, snap, by, refuse(CodeNotRequester, "Only %s, who asked for %s, can open this.", snap.Requester, id))
	}
	no := d.mayRequest(ctx, snap.Plan.Command, snap.Plan.Class, by, snap.forSelf())
	if no == nil {
		no = d.checkRecentTargetExcept(ctx, by, id)
	}
	if no != nil {
		return Secret{}, d.refusedReveal(ctx, op, snap, by, no)
	}
	for step, e := range snap.Journal {
		if snap.Plan.Steps[step].Secret == SecretNone || e.State != StepDone {
			continue
		}
		secret, err := d.Store.secret(ctx, id, step)
		if errors.Is(err, errNoSecret) {
			continue
		}
		if err != nil {
			return Secret{}, err
		}
		// Whoever reads the record later must find that it was opened, so the
		// record comes first.
		said, err := d.Store.note(ctx, op, revealed, snap.Request, snap.event(audit.Revealed, by))
		if err == nil {
			err = d.Store.replayAnswer(op, said)
		}
		if err != nil {
			return Secret{}, err
		}
		return secret, nil
	}
	return Secret{}, d.refusedReveal(ctx, op, snap, by, refuse(CodeNoSteps,
		"There is nothing left to open: it was shown already, or its time is over. Request it again if it is still needed."))
}

func (d *Service) refusedReveal(ctx context.Context, op string, snap Snapshot, by Person, no *Refusal) error {
	about := snap.event(audit.Refused, by)
	about.Outcome = verbReveal
	if err := d.recordRefusal(ctx, op, snap.Request, about, no); err != nil {
		return err
	}
	return no // this press was answered before, with what is gone by now
}

// Shown removes a secret that its requester has seen.
func (d *Service) Shown(ctx context.Context, id string, secret Secret) error {
	return d.Store.dropSecret(ctx, id, secret.Step, "", "")
}
