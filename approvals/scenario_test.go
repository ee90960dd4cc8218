package approvals

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"countersign/audit"
)

// Somebody with a copy of this Redis learns nobody's name, address, number or
// reason: not from a key, not from a value, not from an event.
func TestADumpOfRedisRevealsNothing(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	w.log = discard
	ctx := t.Context()
	plan := deletionPlan(ClassTakeover, dana, "m1", "m2")
	plan.Command, plan.Args = "entra-add-phone", "mobile +14255550143"
	plan.Steps[0].Args["number"] = "+14255550143"
	plan.Steps[0].Words = "Set the mobile phone to +1 425 *** **43"
	plan.Assumes["email"] = "dana.private@example.net"
	plan.Warnings = []string{"Her laptop is called DANAS-SURFACE."}
	w.tenant.setScript(func(job Job) (Result, bool) {
		if job.Kind == JobRun && job.Step == 1 {
			return Result{State: StepFailed, Detail: "Graph says that DANAS-SURFACE is not there."}, true
		}
		return Result{State: StepDone}, true
	})
	inbox := w.inbox()
	if err := inbox.Put(ctx, "envelope-1", []byte(`/entra-add-phone @dana mobile +14255550143 because she rang from Lisbon`)); err != nil {
		t.Fatal(err)
	}
	if err := inbox.Put(ctx, "envelope-2", []byte(`/entra-add-phone @dana mobile +14255550143 because she rang from Lisbon`)); err != nil {
		t.Fatal(err)
	}
	handled := make(chan error, 20)
	stop := background(t, func(ctx context.Context) {
		inbox.Consume(ctx, "reader", 1, func(ctx context.Context, e Arrival) error {
			if e.Envelope == "envelope-2" {
				return errors.New("it stays in the inbox")
			}
			_, err := w.service.Submit(ctx, e.Envelope, Submit{Plan: plan, Requester: hanna, Justification: "she rang from Lisbon", Ticket: "INC-4711", Verified: "callback to her manager", Channel: "C0HELPDESK"})
			handled <- err
			return err
		})
	})
	if err := <-handled; err != nil {
		t.Fatal(err)
	}
	id := RequestID("envelope-1")
	must := func(_ Request, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, by := range []Person{hanna, dana, sam, pat, bo} { // refusals name people
		if _, err := w.service.Approve(ctx, w.op(), id, by); err == nil {
			t.Fatalf("%s approved", by)
		}
	}
	must(w.service.Approve(ctx, w.op(), id, ravi))
	must(w.service.Approve(ctx, w.op(), id, olga))
	if err := w.service.AuthorizeRead(ctx, w.op(), "entra-methods", "Methods", hanna, dana); err != nil {
		t.Fatal(err)
	}
	if ok, err := w.store.Pin(ctx, hanna.Slack, hanna.ID); err != nil || !ok {
		t.Fatal(ok, err)
	}
	if err := w.store.SetCard(ctx, id, "approvers", Card{"C0APPROVE", "1.1"}); err != nil {
		t.Fatal(err)
	}
	other := w.submit(deletionPlan(ClassDestroy, sam, "m9"))
	must(w.service.Deny(ctx, w.op(), other.ID, ravi, "Sam sits beside me"))
	held := w.claimed(deletionPlan(ClassContain, mina, "m8"))
	must(w.service.Stop(ctx, w.op(), held.ID, ravi, "Mina is on stage"))
	w.startRunner(w.service, "worker")
	follow := w.follow("audit", func(_ context.Context, batch []audit.Event) (int, error) { return len(batch), nil })
	if got := w.waitFinal(id); got.Outcome != OutcomePartial {
		t.Errorf("it is %s because %q", got.Summary(), got.Why)
	}
	waitFor(t, "the projection", func() bool { return w.lag("audit") == 0 })
	stop()
	follow()

	dump := w.server.Dump(t)
	for _, kind := range []string{"request:", "note:", "cards:", "due", "open", "mine:", "holder:", "same:", "recent-target:", "sequence", "events", "cursor:", "inbox", "envelope:", "pins:", "rate:"} {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(dump)), func(k string) bool { return strings.HasPrefix(k, "{countersign}:"+kind) }) {
			t.Errorf("the story made no %s, so the dump proves too little: %v", kind, sortedKeys(dump))
		}
	}
	secrets := []string{"4255550143", "425 ***", "Lisbon", "INC-4711", "callback", "manager", "private", "SURFACE", "beside me", "on stage", "Graph says", "entra-add-phone"}
	for _, p := range []Person{hanna, ravi, olga, mina, dana, sam, pat, bo} {
		first, last, _ := strings.Cut(p.Name, " ")
		secrets = append(secrets, first, last, p.UPN, strings.SplitN(p.UPN, "@", 2)[0])
	}
	secrets = append(secrets, "fernhill")
	for key, value := range dump {
		readable, behind := readable(strings.ReplaceAll(key+" "+value, "U0HANNA", "")) // Slack ids are no names
		for _, secret := range secrets {
			secret := strings.ToLower(secret)
			if len(secret) > 3 && strings.Contains(readable, secret) || len(secret) > 5 && strings.Contains(behind, secret) {
				t.Errorf("%s shows %q: %s", key, secret, value)
			}
		}
	}
}

// sealedText is what Seal makes, and drawnText what rand.Text does. A name of
// four letters stands in some of them by chance.
var sealedText, drawnText = regexp.MustCompile(`\bk1\.[A-Za-z0-9+/]{38,}`), regexp.MustCompile(`\b[A-Z2-7]{26}\b`)

// readable is what can be read of a text, in small letters: as it is, without
// what is sealed or was drawn by chance, and behind the usual coat. What stands
// behind the base64 of something sealed is told apart, because it is as good as
// drawn by chance where it is sealed indeed.
func readable(text string) (open, behind string) {
	for _, sealed := range sealedText.FindAllString(text, -1) {
		if raw, err := base64.RawStdEncoding.DecodeString(strings.TrimPrefix(sealed, "k1.")); err == nil {
			behind += strings.ToLower(string(raw)) + " "
		}
	}
	open = drawnText.ReplaceAllString(sealedText.ReplaceAllString(text, ""), "")
	for word := range strings.FieldsSeq(open) {
		for _, coat := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding} {
			if raw, err := coat.DecodeString(word); err == nil {
				open += " " + string(raw)
			}
		}
	}
	return strings.ToLower(open), behind
}

// What somebody who can write to Redis puts there is refused, not obeyed.
func TestForgedStateIsRefused(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	approved := w.approved(deletionPlan(ClassDestroy, dana, "m1"))
	undecided := w.submit(deletionPlan(ClassDestroy, sam, "m2"))
	body := w.rdb.HGet(ctx, w.store.keys.request(approved.ID), "body").Val()
	for name, forge := range map[string]func(){
		"the body of another request": func() { w.rdb.HSet(ctx, w.store.keys.request(undecided.ID), "body", body) },
		"a body of one's own": func() {
			w.rdb.HSet(ctx, w.store.keys.request(undecided.ID), "body", ring(t, "k1:"+key(7)).Seal("request", undecided.ID, []byte(`{}`)))
		},
		"no body":             func() { w.rdb.HDel(ctx, w.store.keys.request(undecided.ID), "body") },
		"a halt of one's own": func() { w.rdb.HSet(ctx, w.store.keys.request(undecided.ID), "halt", "k1.AAAA") },
	} {
		before := w.rdb.HGetAll(ctx, w.store.keys.request(undecided.ID)).Val()
		forge()
		if _, err := w.store.Load(ctx, undecided.ID); !errors.Is(err, ErrSeal) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := w.service.Approve(ctx, w.op(), undecided.ID, ravi); !errors.Is(err, ErrSeal) {
			t.Errorf("approving with %s: %v", name, err)
		}
		w.rdb.Del(ctx, w.store.keys.request(undecided.ID))
		w.rdb.HSet(ctx, w.store.keys.request(undecided.ID), before)
	}
	// An answer that was not given is not given again.
	w.rdb.HSet(ctx, w.store.keys.request(undecided.ID), "op:forged", "k1.AAAA")
	if _, err := w.service.Approve(ctx, "forged", undecided.ID, ravi); !errors.Is(err, ErrSeal) {
		t.Errorf("a forged answer: %v", err)
	}

	// The state and the claim stand outside the seal, because the script
	// compares them. Whoever moves a request to approved still has no
	// approvals in its body, and it does not run.
	w.rdb.HSet(ctx, w.store.keys.request(undecided.ID), "state", "approved", "deadline", time.Now().Add(time.Hour).UnixMilli())
	w.rdb.ZAdd(ctx, w.store.keys.due(), redisZ(0, undecided.ID))
	w.startRunner(w.service, "worker")
	if got := w.waitFinal(undecided.ID); got.Outcome != OutcomeFailed || !strings.Contains(got.Why, "needs 1 approvals and has 0") {
		t.Errorf("a request without approvals is %s because %q", got.Summary(), got.Why)
	}
	if n := w.tenant.deletions("m2"); n != 0 {
		t.Errorf("its step ran %d times", n)
	}
}

// A week in the life of several processes: people ask, decide, cancel and
// halt at random, processes come and go, and every invariant holds.
func TestManyRequestsAtOnce(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	w.log = discard
	w.tenant = newTestTenant()
	for i := range 40 {
		w.tenant.methods[fmt.Sprint("m", i)] = true
	}
	w.tenant.setScript(func(job Job) (Result, bool) {
		if job.Kind == JobCheck {
			return Result{State: StepDone}, true
		}
		return Result{}, false
	})
	var stops []func()
	for i := range 3 {
		_, service := w.newProcess(w.server.Client(t))
		service.Log = discard
		stops = append(stops, w.startRunner(service, fmt.Sprint("worker-", i)))
	}
	targets := []Person{dana, sam, mina}
	errs := atOnce(20, func(i int) error {
		_, service := w.store, w.service
		ctx := context.Background()
		target := targets[i%3]
		a, b := fmt.Sprint("m", 2*i), fmt.Sprint("m", 2*i+1)
		r, err := service.Submit(ctx, fmt.Sprint("ask-", i), Submit{Plan: deletionPlan(ClassDestroy, target, a, b), Requester: hanna})
		if err != nil {
			return err
		}
		approve := func(by Person) func(string) error {
			return func(op string) error { _, err := service.Approve(ctx, op, r.ID, by); return err }
		}
		deny := func(op string) error { _, err := service.Deny(ctx, op, r.ID, olga, "no"); return err }
		cancel := func(op string) error { _, err := service.Cancel(ctx, op, r.ID, hanna); return err }
		halt := func(op string) error { _, err := service.Stop(ctx, op, r.ID, hanna, "stop"); return err }
		presses := [][]func(string) error{
			{approve(ravi), approve(olga)},
			{approve(ravi), approve(olga), deny, cancel},
			{approve(ravi), halt, halt, halt},
			{deny, cancel, approve(ravi)},
		}[i%4]
		var late []error
		for n, err := range atOnce(2*len(presses), func(n int) error {
			return presses[(n+i)%len(presses)](fmt.Sprintf("press-%d-%d", i, (n+i)%len(presses))) // each of them twice
		}) {
			if no := (*Refusal)(nil); err != nil && !errors.As(err, &no) {
				late = append(late, fmt.Errorf("press %d: %w", n, err))
			}
		}
		if i == 7 {
			stops[0]()
		}
		// What nobody decided in that tangle is decided now.
		if snap, err := w.store.Load(ctx, r.ID); err == nil && snap.State == StatePending {
			_, err := service.Deny(ctx, fmt.Sprint("last-", i), r.ID, olga, "no")
			late = append(late, err)
		}
		return errors.Join(late...)
	})
	for i, err := range errs {
		if err != nil {
			t.Errorf("story %d: %v", i, err)
		}
	}
	states := map[State]int{}
	for i := range 20 {
		got := w.waitFinal(RequestID(fmt.Sprint("ask-", i)))
		states[got.State]++
		if got.State != StateDone {
			continue
		}
		for step, e := range got.Journal {
			if n := w.tenant.deletions(got.Plan.Steps[step].Args["id"]); e.State == StepDone && n != 1 || e.State == StepSkipped && n != 0 {
				t.Errorf("%s: step %d is %s and ran %d times", got.ID, step+1, e.State, n)
			}
		}
	}
	t.Logf("ended as %v", states)
	if w.tenant.overlapped() {
		t.Error("two requests were at work on one target at one moment")
	}
	w.checkInvariants()
}
