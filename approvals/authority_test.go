package approvals

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"countersign/audit"
)

// The whole matrix of who may do what when: every kind of person, every
// operation, every state of a request. It lists what is allowed; everything
// else must be refused, be recorded as refused, and change nothing.
//
// Everybody in it who has a reason to be refused besides their groups (the
// requester, the target, the guest, …) is in every group, so that nothing but
// that reason can refuse them.

var (
	lena   = Person{ID: "4f0c1be2-6a57-4d18-93f5-2b7de6a81c90", UPN: "lena.fischer@fernhill.example", Name: "Lena Fischer", Slack: "U0LENA"}
	nils   = Person{ID: "b83d57c4-90ef-4a21-8d6b-5ce1f7302a49", UPN: "nils.berg@fernhill.example", Name: "Nils Berg", Slack: "U0NILS"}
	tara   = Person{ID: "0e9a6f13-c5b8-47d2-a094-d1836be7f525", UPN: "tara.singh@fernhill.example", Name: "Tara Singh", Slack: "U0TARA"}
	absent = Person{ID: "96d2e8b7-31fa-4c05-b7e9-4a0f5d8c1e63", UPN: "left.long.ago@fernhill.example", Name: "Left Long Ago", Slack: "U0LEFT"}
)

// kinds of person, by what matters about them.
var kindsOfPerson = map[string]Person{
	"requester":       hanna, // in every group
	"target":          dana,  // in every group
	"approver":        ravi,  // help desk and approver; has no part in it yet
	"party":           olga,  // approver and on call: approved first, or used break-glass, or said that it was done
	"party's twin":    {ID: olga.ID, UPN: olga.UPN, Name: olga.Name, Slack: "U0OTHER"},
	"agent":           lena,   // help desk alone
	"on call":         nils,   // on call alone
	"employee":        sam,    // in no group
	"guest":           pat,    // in every group
	"blocked":         bo,     // in every group
	"changed lately":  mina,   // approver, and the target of a takeover an hour ago
	"not looked up":   tara,   // in every group, but Entra does not answer about them
	"gone":            absent, // was in every group, and has been deleted
	"nobody in Entra": {Slack: "U0NOBODY"},
}

// allowed says, by operation and state, who may.
var allowed = map[string]map[string][]string{
	"look":        {"": {"requester", "target", "approver", "agent", "changed lately"}}, // who neither requests nor decides may still look
	"ask":         {"": {"requester", "target", "approver", "agent"}},
	"contain":     {"": {"requester", "target", "approver", "agent", "party", "party's twin", "on call"}}, // whoever may act unapproved may ask
	"approve":     {"pending": {"approver", "party", "party's twin"}, "one approval": {"approver"}, "emergency": {"approver", "party", "party's twin"}},
	"deny":        {"pending": {"approver", "party", "party's twin"}, "one approval": {"approver", "party", "party's twin"}, "emergency": {"approver", "party", "party's twin"}},
	"cancel":      {"pending": {"requester"}, "one approval": {"requester"}, "emergency": {"requester"}, "approved": {"requester"}, "break-glass": {"requester"}, "handed off": {"requester"}},
	"halt":        {"running": {"requester", "target", "approver", "party", "party's twin"}, "containing": {"requester", "approver", "party", "party's twin"}},
	"attest":      {"handed off": {"requester", "approver", "party", "party's twin", "agent"}},
	"confirm":     {"attested": {"requester", "approver", "agent"}},
	"retract":     {"attested": {"requester", "approver", "party", "party's twin", "agent"}},
	"break glass": {"emergency": {"requester", "party", "party's twin", "on call"}},
	"review":      {"in review": {"approver"}, "in review, approved by one": {"approver"}},
	"reveal":      {"done": {"requester"}},
}

// operations by name. Those without a state make their own wish.
func operations() map[string]func(d *Service, op, id string, by Person) error {
	ctx := context.Background()
	of := func(_ Request, err error) error { return err }
	wish := func(class Class) func(d *Service, op, _ string, by Person) error {
		return func(d *Service, op, _ string, by Person) error {
			return of(d.Submit(ctx, op, Submit{Plan: deletionPlan(class, gloria, op), Requester: by}))
		}
	}
	return map[string]func(d *Service, op, id string, by Person) error{
		"look": func(d *Service, op, _ string, by Person) error {
			return d.AuthorizeRead(ctx, op, "methods", "Methods", by, gloria)
		},
		"ask":         wish(ClassDestroy),
		"contain":     wish(ClassContain),
		"approve":     func(d *Service, op, id string, by Person) error { return of(d.Approve(ctx, op, id, by)) },
		"deny":        func(d *Service, op, id string, by Person) error { return of(d.Deny(ctx, op, id, by, "no")) },
		"cancel":      func(d *Service, op, id string, by Person) error { return of(d.Cancel(ctx, op, id, by)) },
		"halt":        func(d *Service, op, id string, by Person) error { return of(d.Stop(ctx, op, id, by, "wait")) },
		"attest":      func(d *Service, op, id string, by Person) error { return of(d.Attest(ctx, op, id, by)) },
		"confirm":     func(d *Service, op, id string, by Person) error { return of(d.Confirm(ctx, op, id, by)) },
		"retract":     func(d *Service, op, id string, by Person) error { return of(d.Retract(ctx, op, id, by)) },
		"break glass": func(d *Service, op, id string, by Person) error { return of(d.BreakGlass(ctx, op, id, by, "now")) },
		"review": func(d *Service, op, id string, by Person) error {
			return of(d.Review(ctx, op, id, by, VerdictNotJustified, "no danger"))
		},
		"reveal": func(d *Service, op, id string, by Person) error {
			_, err := d.Reveal(ctx, op, id, by)
			return err
		},
	}
}

// authority is a world in which two approvals are needed and everybody above
// is somebody.
func authority(t *testing.T) *fixture {
	w := newFixture(t, longTimings())
	w.log = discard
	for class, rule := range w.service.Policy.Classes {
		rule.Approvals = 1 // and one more, because the target is an approver
		w.service.Policy.Classes[class] = rule
	}
	w.service.Policy.ReadsAMinute = 0
	w.service.Policy.Limits.BreakGlass = Limit{Count: 1000, Within: time.Hour}
	w.service.Log = discard
	const onCall = "7b41d9e6-52c8-4f03-8a1d-60e3f9b7c2d5"
	w.service.Policy.Groups["On-call engineers"] = Group{Entra: []string{onCall}}
	for who, groups := range map[Person][]string{
		hanna: {helpDesk, approvers, onCall}, dana: {helpDesk, approvers, onCall}, ravi: {helpDesk, approvers}, olga: {approvers, onCall},
		lena: {helpDesk}, nils: {onCall}, sam: nil, mina: {helpDesk, approvers, onCall}, tara: {helpDesk, approvers, onCall}, gloria: nil,
	} {
		who.Slack = ""
		w.directory.people[who.ID] = Account{Person: who, Enabled: true, Groups: groups}
	}
	for _, who := range []Person{pat, bo} {
		w.directory.change(who, func(s *Account) { s.Groups = []string{helpDesk, approvers, onCall} })
	}
	w.service.Directory = silentAbout{w.directory, tara.ID}
	if err := w.rdb.Set(t.Context(), w.store.keys.mark(mina.ID), "R-BEFORE", time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	return w
}

// silentAbout is a directory that never answers about one person.
type silentAbout struct {
	Directory
	id string
}

func (s silentAbout) Account(ctx context.Context, id string, withProtection bool) (Account, error) {
	if id == s.id {
		return Account{}, permanent{}
	}
	return s.Directory.Account(ctx, id, withProtection)
}

// inState makes a request of hanna's about dana in a state. Olga is the party.
func (w *fixture) inState(state string) string {
	w.t.Helper()
	ctx := w.t.Context()
	must := func(_ Request, err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatalf("%s: %v", state, err)
		}
	}
	asks := func(p Plan) string {
		p.Args = w.op() // no two of them ask for the same
		r, err := w.service.Submit(ctx, w.op(), Submit{Plan: p, Requester: hanna, Justification: "lost her phone"})
		must(r, err)
		return r.ID
	}
	works := func(id string, actions ...Action) {
		w.t.Helper()
		snap, err := w.store.claim(ctx, w.load(id), "worker")
		must(snap.Request, err)
		r := snap.Request
		for i, a := range actions {
			r, err = w.store.advance(ctx, r, snap.Now, fmt.Sprintf("write-%d", i), a)
			must(r, err)
		}
		// The target is marked by now, which would refuse them for that alone,
		// and holds up the next request of these tests.
		w.rdb.Del(ctx, w.store.keys.mark(dana.ID), w.store.keys.holder(dana.ID))
	}
	approve := func(id string) {
		for _, by := range []Person{olga, ravi} {
			must(w.service.Approve(ctx, w.op(), id, by))
		}
	}
	done := []Action{StartStep{Step: 0}, EndStep{Step: 0, Result: Result{State: StepDone}}, Finish{}}

	var id string
	switch state {
	case "":
		return "R-NONE"
	case "pending", "one approval", "overdue", "denied", "cancelled", "expired":
		id = asks(deletionPlan(ClassDestroy, dana, "m1"))
	case "emergency", "break-glass", "in review", "in review, approved by one", "reviewed", "containing":
		id = asks(deletionPlan(ClassContain, dana, "m1"))
	case "handed off", "attested":
		id = asks(byHand())
	case "done":
		id = asks(passwords(SecretPrepared))
	default:
		id = asks(deletionPlan(ClassDestroy, dana, "m1", "m2"))
	}
	switch state {
	case "one approval", "overdue":
		must(w.service.Approve(ctx, w.op(), id, olga))
	case "denied":
		must(w.service.Deny(ctx, w.op(), id, ravi, "no"))
	case "cancelled":
		must(w.service.Cancel(ctx, w.op(), id, hanna))
	case "break-glass", "in review", "reviewed":
		must(w.service.BreakGlass(ctx, w.op(), id, olga, "now"))
	case "in review, approved by one":
		must(w.service.Approve(ctx, w.op(), id, olga))
		must(w.service.BreakGlass(ctx, w.op(), id, nils, "now"))
	case "approved", "running", "containing", "halted", "handed off", "attested", "done":
		approve(id)
	}
	switch state {
	case "overdue", "expired":
		w.rdb.HSet(ctx, w.store.keys.request(id), "deadline", 1)
	case "running", "containing", "halted":
		works(id)
	case "in review", "in review, approved by one", "reviewed":
		works(id, done...)
	case "handed off", "attested":
		works(id, HandOff{Step: 0})
	case "done":
		works(id, done...)
		snap := w.load(id)
		if err := w.store.storeSecret(ctx, snap.Request, 0, Secret{Value: "offered"}, time.Minute, true); err != nil {
			w.t.Fatal(err)
		}
	}
	switch state {
	case "expired":
		if err := w.store.expire(ctx, w.load(id)); err != nil {
			w.t.Fatal(err)
		}
	case "halted":
		must(w.service.Stop(ctx, w.op(), id, ravi, "wait"))
	case "reviewed":
		must(w.service.Review(ctx, w.op(), id, ravi, VerdictJustified, ""))
	case "attested":
		must(w.service.Attest(ctx, w.op(), id, olga))
	}
	return id
}

func TestTheWholeAuthorisationMatrix(t *testing.T) {
	t.Parallel()
	states := []string{"", "pending", "one approval", "overdue", "emergency", "approved", "break-glass", "running", "containing", "halted",
		"handed off", "attested", "in review", "in review, approved by one", "reviewed", "done", "denied", "cancelled", "expired"}
	ops := operations()
	for op, in := range allowed {
		for state, who := range in {
			if ops[op] == nil || !slices.Contains(states, state) {
				t.Fatalf("the matrix allows %q in %q, which there is not", op, state)
			}
			for _, kind := range who {
				if _, ok := kindsOfPerson[kind]; !ok {
					t.Fatalf("the matrix lets %q, whom there is not, %s", kind, op)
				}
			}
		}
	}
	for _, state := range states {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			w := authority(t)
			id := w.inState(state)
			for _, op := range slices.Sorted(maps.Keys(ops)) {
				for _, kind := range slices.Sorted(maps.Keys(kindsOfPerson)) {
					by, may := kindsOfPerson[kind], slices.Contains(allowed[op][state], kind)
					if state != "" && (op == "look" || op == "ask" || op == "contain") {
						continue // needs no request
					}
					before, told := w.picture(id), len(w.events())
					err := ops[op](w.service, w.op(), id, by)
					if may {
						if err != nil {
							t.Errorf("%s may %s in %q, and was told: %v", kind, op, state, err)
						} else if len(w.events()) == told {
							t.Errorf("%s by %s in %q left no event", op, kind, state)
						}
						if state != "" {
							id = w.inState(state) // a fresh one for the next
						}
						continue
					}
					no := (*Refusal)(nil)
					if !errors.As(err, &no) {
						t.Errorf("%s may not %s in %q, but the answer is %v", kind, op, state, err)
						continue
					}
					lint(t, no.Sentence)
					events := w.events()
					if last := events[len(events)-1]; last.Kind != audit.Refused || last.Code != string(no.Code) || last.Actor.ID != by.ID {
						t.Errorf("%s by %s in %q was refused, and the record has %s", op, kind, state, last.Line())
					}
					switch after := w.picture(id); {
					case after == before:
					case state == "overdue" && w.load(id).State == StateExpired: // that its time is over may be found at any press
						id = w.inState(state)
					default:
						t.Errorf("%s was refused to %s in %q, and changed it from\n%s\nto\n%s", kind, op, state, before, after)
						id = w.inState(state)
					}
				}
			}
		})
	}
}

// picture is everything about a request that a refusal must leave alone.
func (w *fixture) picture(id string) string {
	w.t.Helper()
	snap, err := w.store.Load(w.t.Context(), id)
	if errors.Is(err, ErrNoRequest) {
		return "none"
	}
	if err != nil {
		w.t.Fatal(err)
	}
	snap.Now, snap.ops = time.Time{}, nil
	body, err := json.Marshal(snap.Request)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, r := w.t.Context(), snap.Request
	return strings.Join([]string{string(r.State), fmt.Sprint(r.Version, r.Claim, r.Deadline, r.Lease, r.Halt), string(body),
		w.rdb.Get(ctx, w.store.keys.same(r.Fingerprint)).Val(), w.rdb.Get(ctx, w.store.keys.holder(r.Plan.Target.ID)).Val(),
		fmt.Sprint(w.rdb.ZScore(ctx, w.store.keys.due(), id).Val(), w.rdb.ZScore(ctx, w.store.keys.open(), id).Err() == nil),
		fmt.Sprint(w.rdb.Exists(ctx, w.store.keys.secret(offer(id, 0))).Val())}, "\n")
}
