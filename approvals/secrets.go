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

// Secret is what a step made that only the requester may see.
type Secret struct {
	Value string    `json:"-"`
	Until time.Time `json:"until,omitzero"` // until when it is good for anything
	Step  int       `json:"step"`
}

// sealedSecret is how a secret is stored: the one place where its value is
// written down.
type sealedSecret struct {
	Value string    `json:"value"`
	Until time.Time `json:"until,omitzero"`
}

// hidden stands wherever a secret would.
const hidden = "[secret]"

// LogValue keeps a secret out of every log.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// String keeps a secret out of every text.
func (Secret) String() string { return hidden }

// Format keeps a secret out of everything that is formatted, with any verb.
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, hidden) }

// Format keeps the secret of a result out of everything that is formatted.
func (r Result) Format(f fmt.State, verb rune) {
	type bare Result // without this method
	if r.Secret != "" {
		r.Secret = hidden
	}
	fmt.Fprintf(f, fmt.FormatString(f, verb), bare(r))
}

// Format keeps the secret of a job out of everything that is formatted.
func (j Job) Format(f fmt.State, verb rune) {
	type bare Job
	if j.Secret != "" {
		j.Secret = hidden
	}
	fmt.Fprintf(f, fmt.FormatString(f, verb), bare(j))
}

// preparedLife is how long a prepared secret is kept for a step that has not
// ended. Timing.Check sees that no request runs for longer.
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

// stash keeps a secret sealed beside its request. Offered, it can be revealed
// until its life is over. Like every write of a worker it counts only while
// the claim is its own: a late one must not put another password in the place
// of the one that was set. ErrFenced otherwise.
func (s *Store) stash(ctx context.Context, r Request, step int, secret Secret, life time.Duration, offered bool) error {
	name, listed := offer(r.ID, step), ""
	plain, err := json.Marshal(sealedSecret{secret.Value, secret.Until})
	if err != nil {
		return err
	}
	if offered {
		listed = name
	}
	kept, err := keepScript.Run(ctx, s.rdb, []string{s.keys.secret(name), s.keys.offers(), s.keys.request(r.ID)},
		s.ring.Seal("secret", name, plain), life.Milliseconds(), listed, exactly(r.Claim)).Int()
	switch {
	case err != nil:
		return fmt.Errorf("approvals: the secret of %s was not confirmed by Redis: %w", name, err)
	case kept < 0:
		return fmt.Errorf("%w: %s", ErrFenced, r.ID)
	}
	return nil
}

var errNoSecret = errors.New("approvals: the secret is gone")

// secret reads one; errNoSecret when it was never there, is over or was seen.
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

// secretValue is a prepared secret's value, empty where it is lost: one that
// does not open will not open later, unless for whoever has its key.
func (s *Store) secretValue(ctx context.Context, id string, step int) (string, error) {
	secret, err := s.secret(ctx, id, step)
	if errors.Is(err, errNoSecret) || errors.Is(err, ErrSeal) && !errors.Is(err, ErrNoKey) {
		return "", nil
	}
	return secret.Value, err
}

// dropSecret removes a secret and its offer. A worker gives its claim, and
// whoever ends an offer when that was to end; both are empty for any.
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

// Offered says whether a request has a secret that can still be revealed.
func (s *Store) Offered(ctx context.Context, r Request) (bool, error) {
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

// endOffers tells of secrets whose time is over and which nobody is known to
// have seen.
func (s *Store) endOffers(ctx context.Context) error {
	_, ended, err := s.elapsed(ctx, s.keys.offers(), 100+s.keyless.count())
	if err != nil {
		return fmt.Errorf("approvals: Redis does not tell which offers have ended: %w", err)
	}
	var failed []error // one that cannot be told of does not hold up the others
	for _, o := range ended {
		if s.keyless.leaves(o.name) {
			continue
		}
		err := s.endOffer(ctx, o.name, exactly(o.at))
		if errors.Is(err, ErrNoKey) { // whoever has the key tells of it
			s.keyless.leave(o.name, s.timing.Lease, err)
			continue
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// endOffer ends the offer that was to end at the instant ends. It is told
// before it is dropped, so that it comes again where one of the two fails.
func (s *Store) endOffer(ctx context.Context, name, ends string) error {
	id, index, _ := strings.Cut(name, "/")
	step := int(number(index))
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

// warn tells people once that a request which nobody decided is about to
// expire, and then waits for its end. Where there is nothing to tell, its place
// in the index moves all the same only if the version is what was read: a
// request that was approved at that moment must be found at once.
func (s *Store) warn(ctx context.Context, snap Snapshot) error {
	begin := snap.Deadline.Add(-s.timing.warning(snap.Terms.Lifetime))
	w := write{
		request: snap.Request, op: "warn", mode: "change", version: exactly(snap.Version), before: snap.Deadline, after: begin,
		answer: "ok", due: ms(snap.Deadline.Sub(snap.Now)),
	}
	_, told := snap.ops[w.op]
	switch later := fmt.Sprintf("later:%d", snap.Version); {
	case told: // the first write counted, and its reply or its index was lost
		w.op, w.after = later, time.Time{}
	case snap.Now.Before(begin): // somebody put it before its time
		w.op, w.after, w.due = later, time.Time{}, ms(begin.Sub(snap.Now))
	default:
		e := snap.event(audit.Reminded, Person{})
		e.Outcome = string(snap.State)
		e.Reason = fmt.Sprintf("It is %s, and expires at %s.", snap.Says(), snap.Deadline.UTC().Format("15:04 UTC"))
		w.events = []audit.Event{e}
	}
	_, err := s.run(ctx, w)
	return err
}

// remind tells people once in a while of what they have to do by hand, or to
// review. Of two
// processes that find it due one reminds, and nobody is reminded of what was
// closed at that moment: the version and the instant of the last reminder must
// still be what they were.
func (s *Store) remind(ctx context.Context, snap Snapshot) error {
	e := snap.event(audit.Reminded, Person{})
	e.Outcome = string(snap.State)
	e.Reason = "It is " + snap.Says() + "."
	_, err := s.run(ctx, write{
		request: snap.Request, op: fmt.Sprintf("remind:%d", snap.Version), mode: "change", version: exactly(snap.Version), after: snap.Lease,
		answer: "ok", durations: []string{"lease", ms(s.timing.Remind)}, due: ms(s.timing.Remind), events: []audit.Event{e},
	})
	return err
}

// prepare makes the secret that a step needs before it begins. Where that
// fails the request ends: it would fail again at the next attempt.
func (h *hand) prepare(step int) (ended bool, err error) {
	if h.req.Plan.Steps[step].Secret != SecretPrepared {
		return false, nil
	}
	got := h.call(h.ctx, Job{Kind: Prepare, Request: h.req, Step: step})
	if got.State != StepDone || got.Secret == "" {
		h.Log.Error("the secret of a step could not be made", "request", h.req.ID, "step", step+1, "detail", got.Detail)
		return true, h.finish(fmt.Sprintf("Stopped before step %d, because its secret could not be made.", step+1))
	}
	return false, h.insist("prepare", func() error {
		return h.Desk.Store.stash(h.ctx, h.req, step, Secret{Value: got.Secret}, preparedLife, false)
	})
}

// keepSecret offers the secret of a step that was carried out, and drops that
// of one that was not. It comes before the step's end is journalled: a worker
// that dies between the two leaves a step to be reconciled, not a password
// that nobody knows.
func (h *hand) keepSecret(job Job, got Result) (Result, error) {
	store := h.Desk.Store
	if h.req.Plan.Steps[job.Step].Secret == SecretNone {
		return got, nil
	}
	secret := Secret{Value: cmp.Or(got.Secret, job.Secret), Until: got.Until}
	got.Secret = ""
	if got.State == StepDone && secret.Value != "" {
		return got, h.insist("offer-secret", func() error {
			return store.stash(h.ctx, h.req, job.Step, secret, store.timing.SecretLife, true)
		})
	}
	if got.State == StepDone {
		got.Detail = strings.TrimSpace(got.Detail + " It was carried out, but its secret is lost: request it again.")
	}
	// What is there may be an earlier attempt's, and not what is in force.
	return got, h.insist("drop-secret", func() error {
		return store.dropSecret(h.ctx, h.req.ID, job.Step, exactly(h.req.Claim), "")
	})
}

// forget drops secrets that were made for steps which then never began.
func (h *hand) forget() {
	for i, e := range h.req.Journal {
		if e.State != StepWaiting || h.req.Plan.Steps[i].Secret != SecretPrepared {
			continue
		}
		if err := h.Desk.Store.dropSecret(h.ctx, h.req.ID, i, exactly(h.req.Claim), ""); err != nil {
			h.Log.Warn("a secret that was never used stays sealed until its time is over", "request", h.req.ID, "error", err)
		}
	}
}

// verbReveal is what somebody tried to do, for the record of a refusal.
const verbReveal = "open the secret"

// revealed is the stored answer to a press that opened a secret.
const revealed = "revealed"

// Reveal gives the requester the secret of a request, and records that. The
// secret stays until Shown says that the requester has it before them.
func (d *Desk) Reveal(ctx context.Context, op, id string, by Person) (Secret, error) {
	snap, err := d.Store.Load(ctx, id)
	if errors.Is(err, ErrNoRequest) {
		return Secret{}, cmp.Or(d.missing(ctx, op, id, by, "the secret of "+id, verbReveal), err)
	}
	if err != nil {
		return Secret{}, err
	}
	if by.ID == "" || by.ID != snap.Requester.ID {
		return Secret{}, d.refusedReveal(ctx, op, snap, by, refuse(CodeNotRequester, "Only %s, who asked for %s, can open this.", snap.Requester, id))
	}
	no := d.mayRequest(ctx, snap.Plan.Command, snap.Plan.Class, by, snap.forSelf())
	if no == nil {
		no = d.recentBut(ctx, by, id)
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
			err = d.Store.again(op, said)
		}
		if err != nil {
			return Secret{}, err
		}
		return secret, nil
	}
	return Secret{}, d.refusedReveal(ctx, op, snap, by, refuse(CodeNothing,
		"There is nothing left to open: it was shown already, or its time is over. Request it again if it is still needed."))
}

func (d *Desk) refusedReveal(ctx context.Context, op string, snap Snapshot, by Person, no *Refusal) error {
	about := snap.event(audit.Refused, by)
	about.Outcome = verbReveal
	if err := d.refused(ctx, op, snap.Request, about, no); err != nil {
		return err
	}
	return no // this press was answered before, with what is gone by now
}

// Shown removes a secret that its requester has seen.
func (d *Desk) Shown(ctx context.Context, id string, secret Secret) error {
	return d.Store.dropSecret(ctx, id, secret.Step, "", "")
}
