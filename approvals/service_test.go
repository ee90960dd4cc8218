package approvals

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"countersign/audit"
)

func TestSubmitTwice(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	plan := deletionPlan(ClassDestroy, dana, "m1")
	ask := Submit{Plan: plan, Requester: hanna, Justification: "lost her phone"}

	r, err := w.service.Submit(ctx, "op-1", ask)
	if err != nil {
		t.Fatal(err)
	}
	if r.State != StatePending || r.ID != RequestID("op-1") || r.Version != 1 || r.Requirements.Approvals != 1 {
		t.Errorf("the request is %+v", r)
	}
	if left := r.Deadline.Sub(r.Created); left < 29*time.Minute || left > 31*time.Minute {
		t.Errorf("it waits for %v, want 30m", left)
	}

	again, err := w.service.Submit(ctx, "op-1", ask)
	if err != nil || again.ID != r.ID || again.Version != 1 {
		t.Errorf("the same operation again: %s version %d, %v", again.ID, again.Version, err)
	}

	no := (*Refusal)(nil)
	if _, err := w.service.Submit(ctx, "op-2", ask); !errors.As(err, &no) || no.Code != CodeIdentical || no.Request != r.ID {
		t.Errorf("the same wish in another operation: %v", err)
	}
	other := ask
	other.Plan = deletionPlan(ClassDestroy, dana, "m2")
	second, err := w.service.Submit(ctx, "op-3", other)
	if err != nil || second.ID == r.ID {
		t.Errorf("another wish for the same person: %v", err)
	}
	if got, want := w.eventKinds(""), []audit.Kind{audit.Requested, audit.Refused, audit.Requested}; !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}

	open, err := w.store.Open(ctx)
	if err != nil || len(open) != 2 || open[0].ID != r.ID {
		t.Errorf("open: %v, %v", open, err)
	}
	mine, err := w.store.Mine(ctx, hanna.ID)
	if err != nil || len(mine) != 2 {
		t.Errorf("mine: %v, %v", mine, err)
	}

	// Once it is over, the same may be asked for again; but the operation that
	// was told no stays told no.
	if _, err := w.service.Cancel(ctx, "op-4", r.ID, hanna); err != nil {
		t.Fatal(err)
	}
	if _, err := w.service.Submit(ctx, "op-2", ask); !errors.As(err, &no) || no.Code != CodeIdentical || no.Request != r.ID {
		t.Errorf("a redelivered operation that was refused: %v", err)
	}
	if _, err := w.service.Submit(ctx, "op-5", ask); err != nil {
		t.Errorf("asking again after the end: %v", err)
	}
	w.checkInvariants()
}

// Two operations whose ids collide: nobody is told that another's request is
// theirs.
func TestATakenID(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	const first, second = "envelope 98137", "envelope 1725401"
	if RequestID(first) != RequestID(second) {
		t.Fatal("they do not collide: this tests nothing")
	}
	r, err := w.service.Submit(t.Context(), first, Submit{Plan: deletionPlan(ClassDestroy, dana, "m1"), Requester: hanna, Justification: "lost her phone"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // delivered again it gets the same answer
		no := (*Refusal)(nil)
		if got, err := w.service.Submit(t.Context(), second, Submit{Plan: deletionPlan(ClassContain, sam, "m2"), Requester: ravi, Justification: "stolen"}); !errors.As(err, &no) || no.Code != CodeIDTaken {
			t.Errorf("the other one is %s (%v)", got.ID, err)
		}
	}
	if got := w.load(r.ID); got.Requester.ID != hanna.ID || got.Version != 1 {
		t.Errorf("the first one is %+v", got)
	}
	if got, want := w.eventKinds(""), []audit.Kind{audit.Requested, audit.Refused}; !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
	w.checkInvariants()
}

func TestSubmitIsRefused(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	if err := w.rdb.Set(ctx, w.store.keys.mark(ravi.ID), "R-OLD", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	for i, tt := range []struct {
		requester, target Person
		class             Class
		want              Code
	}{
		{hanna, dana, ClassDestroy, ""},
		{olga, dana, ClassDestroy, CodeNotAllowed},
		{dana, sam, ClassDestroy, CodeNotAllowed},
		{pat, dana, ClassDestroy, CodeGuest},
		{bo, dana, ClassDestroy, CodeDisabled},
		{Person{Slack: "U0X"}, dana, ClassDestroy, CodeUnknownPerson},
		{Person{ID: "not in the tenant"}, dana, ClassDestroy, CodeUnknownPerson},
		{hanna, Person{ID: "not in the tenant"}, ClassDestroy, CodeUnknownPerson},
		{hanna, hanna, ClassDestroy, CodeSelf},
		{hanna, gloria, ClassDestroy, CodeProtected},
		{hanna, gloria, ClassContain, ""},
		{ravi, dana, ClassDestroy, CodeRecentTarget},
	} {
		before := len(w.events())
		_, err := w.service.Submit(ctx, fmt.Sprintf("op-%d", i), Submit{Plan: deletionPlan(tt.class, tt.target, "m1"), Requester: tt.requester})
		if code(err) != tt.want {
			t.Errorf("%s asks for %s: %v, want %q", tt.requester, tt.target, err, tt.want)
		}
		after := w.events()[before:]
		if len(after) != 1 || tt.want != "" && (after[0].Kind != audit.Refused || after[0].Reason != err.Error() || after[0].Actor != tt.requester || after[0].Target != tt.target) {
			t.Errorf("%s asks for %s: events %+v", tt.requester, tt.target, after)
		}
	}
	w.checkInvariants()
}

// What cannot be looked up is refused, after it was tried for a while.
func TestWhatCannotBeCheckedIsRefused(t *testing.T) {
	t.Parallel()
	timing := longTimings()
	w := newFixture(t, timing)
	r := w.submit(deletionPlan(ClassDestroy, dana, "m1"))
	w.store.timing.LookUps = 50 * time.Millisecond
	w.directory.goDown(errors.New("no route to Graph"))
	if _, err := w.service.Approve(t.Context(), w.op(), r.ID, ravi); code(err) != CodeUnchecked {
		t.Errorf("approving while the directory is down: %v", err)
	}
	if _, err := w.service.Submit(t.Context(), w.op(), Submit{Plan: deletionPlan(ClassDestroy, sam, "m1"), Requester: hanna}); code(err) != CodeUnchecked {
		t.Errorf("asking while the directory is down: %v", err)
	}
	if got := w.load(r.ID); got.State != StatePending || len(got.Approvals) != 0 {
		t.Errorf("it is %s", got.Summary())
	}

	// A directory that answers about somebody else, or spells the id in
	// another way, would make one account two people.
	w.store.timing.LookUps = timing.LookUps
	w.directory.goDown(nil)
	w.directory.change(ravi, func(s *Account) { s.ID = olga.ID })
	if _, err := w.service.Approve(t.Context(), w.op(), r.ID, ravi); code(err) != CodeUnchecked {
		t.Errorf("a look-up that answers about another account: %v", err)
	}
	w.checkInvariants()
}

func TestReads(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	look := func(op string, who Person) error {
		return w.service.AuthorizeRead(ctx, op, "entra-methods", "Methods", who, dana)
	}
	if err := look("a", olga); code(err) != CodeNotAllowed {
		t.Errorf("somebody who may not look: %v", err)
	}
	for i := range 5 {
		if err := look(fmt.Sprint("b", i), hanna); err != nil {
			t.Errorf("look %d: %v", i, err)
		}
	}
	if err := look("c", hanna); code(err) != CodeTooMany {
		t.Errorf("the sixth look in a minute: %v", err)
	}
	// Redelivered operations count for nothing, and hear what they heard.
	if err := look("b3", hanna); err != nil {
		t.Errorf("an allowed look, redelivered: %v", err)
	}
	if err := w.rdb.Del(ctx, w.store.keys.rate("read", hanna.ID)).Err(); err != nil {
		t.Fatal(err)
	}
	if err := look("c", hanna); code(err) != CodeTooMany {
		t.Errorf("a refused look, redelivered a minute later: %v", err)
	}
	if n := w.rdb.Exists(ctx, w.store.keys.rate("read", hanna.ID)).Val(); n != 0 {
		t.Error("a redelivered look was counted")
	}
	if got := len(w.events()); got != 7 {
		t.Errorf("%d events, want 7", got)
	}
	if left := w.rdb.PTTL(ctx, w.store.keys.note("c")).Val(); left <= 0 || left > noteRetention {
		t.Errorf("the answer is kept for %v", left)
	}
}

// Whoever approved and sees the mistake before the others have decided may
// still deny, and that is final.
func TestAnApproverMayStillDeny(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	r := w.submit(deletionPlan(ClassTakeover, dana, "m1")) // needs two
	if _, err := w.service.Approve(t.Context(), "yes", r.ID, olga); err != nil {
		t.Fatal(err)
	}
	if _, err := w.service.Deny(t.Context(), "no", r.ID, olga, "that was the wrong Dana"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.service.Approve(t.Context(), "late", r.ID, ravi); code(err) != CodeDecided {
		t.Errorf("approving what is denied: %v", err)
	}
	if got := w.load(r.ID); got.State != StateDenied || got.Denial.By.ID != olga.ID {
		t.Errorf("it is %s", got.Summary())
	}
	w.checkInvariants()
}

func TestDecisionsAreRefused(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	plan := deletionPlan(ClassTakeover, dana, "m1") // needs two
	r := w.submit(plan)
	if _, err := w.service.Approve(ctx, "first", r.ID, olga); err != nil {
		t.Fatal(err)
	}
	if err := w.rdb.Set(ctx, w.store.keys.mark(mina.ID), "R-OLD", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	decide := map[string]func(op string, who Person) error{
		"approve": func(op string, who Person) error { _, err := w.service.Approve(ctx, op, r.ID, who); return err },
		"deny":    func(op string, who Person) error { _, err := w.service.Deny(ctx, op, r.ID, who, "no"); return err },
	}
	for verb, press := range decide {
		for i, tt := range []struct {
			who  Person
			want Code
		}{
			{hanna, CodeRequester}, {dana, CodeTarget}, {sam, CodeNotAllowed}, {pat, CodeGuest}, {bo, CodeDisabled},
			{Person{Slack: "U0X"}, CodeUnknownPerson}, {olga, CodeAlreadyDecided}, {mina, CodeRecentTarget},
		} {
			if verb == "deny" && tt.want == CodeAlreadyDecided {
				continue // TestAnApproverMayStillDeny
			}
			op := fmt.Sprint(verb, i)
			err := press(op, tt.who)
			if code(err) != tt.want {
				t.Errorf("%s by %s: %v, want %q", verb, tt.who, err, tt.want)
			}
			all := w.events()
			if e := all[len(all)-1]; e.Kind != audit.Refused || e.Actor != tt.who || e.Reason != err.Error() || e.Outcome != verb || e.Request != r.ID {
				t.Errorf("%s by %s left the event %+v", verb, tt.who, e)
			}
			// The same press again hears the same, and leaves nothing more.
			if twice := press(op, tt.who); twice == nil || twice.Error() != err.Error() {
				t.Errorf("%s by %s, redelivered: %v, want %v", verb, tt.who, twice, err)
			}
			if now := len(w.events()); now != len(all) {
				t.Errorf("%s by %s, redelivered, left %d events more", verb, tt.who, now-len(all))
			}
		}
	}
	if _, err := w.service.Cancel(ctx, "cancel", r.ID, ravi); code(err) != CodeNotRequester {
		t.Errorf("cancelling somebody else's: %v", err)
	}
	if _, err := w.service.Stop(ctx, "stop", r.ID, ravi, "why"); code(err) != CodeNotRunning {
		t.Errorf("stopping what does not run: %v", err)
	}
	for range 2 {
		if _, err := w.service.Approve(ctx, "nothing", "R-NOTHING", ravi); code(err) != CodeNoRequest {
			t.Errorf("a request that is not there: %v", err)
		}
	}
	if got := w.load(r.ID); got.Version != 2 || got.State != StatePending {
		t.Errorf("after all that it is %s, version %d", got.Summary(), got.Version)
	}
	w.checkInvariants()
}

// A press gets one answer, however often it is delivered.
func TestADecisionIsReplayed(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	r := w.submit(deletionPlan(ClassTakeover, dana, "m1"))
	for range 3 {
		got, err := w.service.Approve(ctx, "press", r.ID, ravi)
		if err != nil || len(got.Approvals) != 1 {
			t.Errorf("approving: %d approvals, %v", len(got.Approvals), err)
		}
	}
	// Also when by now it would be refused.
	w.directory.change(ravi, func(s *Account) { s.Enabled = false })
	if _, err := w.service.Approve(ctx, "press", r.ID, ravi); err != nil {
		t.Errorf("replayed when it is not allowed any more: %v", err)
	}
	// And many deliveries at once are one.
	deliveries := atOnce(20, func(int) error { _, err := w.service.Approve(ctx, "press-2", r.ID, olga); return err })
	for _, err := range deliveries {
		if err != nil {
			t.Errorf("one of many deliveries at once: %v", err)
		}
	}
	refused := atOnce(20, func(int) error { _, err := w.service.Approve(ctx, "press-3", r.ID, sam); return err })
	for _, err := range refused {
		if code(err) != CodeNotAllowed || err.Error() != refused[0].Error() {
			t.Errorf("one of many refused deliveries at once: %v", err)
		}
	}
	want := []audit.Kind{audit.Requested, audit.Approved, audit.Approved, audit.Refused}
	if got := w.eventKinds(r.ID); !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
	w.checkInvariants()
}

// atOnce calls f from n goroutines that start together.
func atOnce(n int, f func(i int) error) []error {
	errs := make([]error, n)
	var all sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		all.Go(func() { <-start; errs[i] = f(i) })
	}
	close(start)
	all.Wait()
	return errs
}

// Two approvals at one moment both count, on several connections.
func TestApprovalsAtOneMomentAllCount(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	var people []Person
	for i := range 10 {
		p := Person{ID: fmt.Sprintf("person-%d", i), UPN: fmt.Sprintf("p%d@fernhill.example", i)}
		people = append(people, p)
		w.directory.change(p, func(s *Account) { *s = accountWith(p, approvers) })
	}
	w.service.Policy.Commands = map[string]Rule{"entra-require-reregister": {Approvals: 10}}
	r := w.submit(deletionPlan(ClassDestroy, dana, "m1"))
	services := make([]*Service, len(people))
	for i := range services {
		_, services[i] = w.newProcess(w.server.Client(t))
	}
	for i, err := range atOnce(len(people), func(i int) error {
		_, err := services[i].Approve(context.Background(), fmt.Sprint("press-", i), r.ID, people[i])
		return err
	}) {
		if err != nil {
			t.Errorf("approval %d: %v", i, err)
		}
	}
	got := w.load(r.ID)
	if got.State != StateApproved || len(got.Approvals) != 10 || got.Version != 11 {
		t.Errorf("it is %s with %d approvals, version %d", got.Summary(), len(got.Approvals), got.Version)
	}
	w.checkInvariants()
}

func TestApproveDenyAndCancelAtOneMomentHaveOneOutcome(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	outcomes := map[State]int{}
	for round := range 15 {
		r := w.submit(deletionPlan(ClassDestroy, dana, fmt.Sprint("m", round)))
		errs := atOnce(3, func(i int) (err error) {
			op := fmt.Sprintf("press-%d-%d", round, i)
			switch i {
			case 0:
				_, err = w.service.Approve(context.Background(), op, r.ID, ravi)
			case 1:
				_, err = w.service.Deny(context.Background(), op, r.ID, olga, "no")
			case 2:
				_, err = w.service.Cancel(context.Background(), op, r.ID, hanna)
			}
			return err
		})
		got := w.load(r.ID)
		outcomes[got.State]++
		won := map[State]int{StateApproved: 0, StateDenied: 1, StateCancelled: 2}[got.State]
		for i, err := range errs {
			// An approved request can still be cancelled.
			if i == won && err != nil || i != won && err == nil && !(got.State == StateCancelled && i == 0) {
				t.Errorf("round %d ended as %s, but press %d heard %v", round, got.State, i, err)
			}
			if err != nil && code(err) != CodeDecided {
				t.Errorf("round %d: press %d: %v", round, i, err)
			}
		}
		if got.State == StateApproved { // make room for the next round
			if _, err := w.service.Cancel(t.Context(), w.op(), r.ID, hanna); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("outcomes: %v", outcomes)
	w.checkInvariants()
}

// A deadline that has passed is a fact, whether or not the sweep got there.
func TestADecisionAfterTheDeadline(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	w.service.Policy.Commands = map[string]Rule{"entra-require-reregister": {Lifetime: 20 * time.Millisecond}}
	for name, press := range map[string]func(op, id string) error{
		"approve": func(op, id string) error { _, err := w.service.Approve(ctx, op, id, ravi); return err },
		"deny":    func(op, id string) error { _, err := w.service.Deny(ctx, op, id, ravi, "no"); return err },
		"cancel":  func(op, id string) error { _, err := w.service.Cancel(ctx, op, id, hanna); return err },
	} {
		r := w.submit(deletionPlan(ClassDestroy, dana, name))
		waitFor(t, "the deadline", func() bool { return w.load(r.ID).Now.After(r.Deadline) })
		if w.load(r.ID).State != StatePending {
			t.Fatal("something swept")
		}
		err := press(name, r.ID)
		if want := map[string]Code{"approve": CodeExpired, "deny": CodeExpired, "cancel": CodeDecided}[name]; code(err) != want {
			t.Errorf("%s after the deadline: %v", name, err)
		}
		if got := w.load(r.ID); got.State != StateExpired || len(got.Approvals) > 0 {
			t.Errorf("after %s it is %s", name, got.Summary())
		}
		if got, want := w.eventKinds(r.ID), []audit.Kind{audit.Requested, audit.Expired, audit.Refused}; !slices.Equal(got, want) {
			t.Errorf("events %v, want %v", got, want)
		}
	}
	w.checkInvariants()
}

// The script has the last word on a deadline: what was read before it and is
// written behind it does not count.
func TestALateCommit(t *testing.T) {
	t.Parallel()
	timing := longTimings()
	timing.RunWithin = 20 * time.Millisecond
	w := newFixture(t, timing)
	ctx := t.Context()

	r := w.approved(deletionPlan(ClassDestroy, dana, "m1"))
	before := w.load(r.ID)
	before.Now = before.Deadline.Add(-time.Millisecond) // as if it had been read in time
	waitFor(t, "the deadline", func() bool { return w.load(r.ID).Now.After(before.Deadline) })
	if _, err := w.store.claim(ctx, before, "w"); !errors.Is(err, ErrFenced) {
		t.Errorf("a late claim: %v", err)
	}
	got, err := w.store.run(ctx, write{request: before.Request, op: "late", mode: "change", version: formatInt(before.Version), before: before.Deadline, answer: "ok", fields: []string{"state", "spoilt"}})
	if err != nil || got.status != "late" {
		t.Errorf("a late write: %s, %v", got.status, err)
	}
	if got, err := w.store.run(ctx, write{request: before.Request, op: "early", mode: "change", version: formatInt(before.Version), after: got.now.Add(time.Minute), answer: "ok", fields: []string{"state", "spoilt"}}); err != nil || got.status != "early" {
		t.Errorf("an early write: %s, %v", got.status, err)
	}
	if err := w.store.expire(ctx, before); err == nil { // its Now is before the deadline
		t.Error("it expired too early")
	}
	if got := w.load(r.ID); got.State != StateApproved || got.Version != before.Version {
		t.Errorf("it is %s, version %d", got.Summary(), got.Version)
	}
	if err := w.store.expire(ctx, w.load(r.ID)); err != nil {
		t.Errorf("expiring: %v", err)
	}
	got2 := w.load(r.ID)
	if got2.State != StateExpired || got2.Why == "" {
		t.Errorf("it is %s, because %q", got2.Summary(), got2.Why)
	}
	w.checkInvariants()
}

// A press that was read and applied in time and reaches Redis behind the
// deadline does not count.
func TestADecisionOvertakenByTheDeadline(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	rdb := w.server.Client(t)
	var r Request
	held := false
	rdb.AddHook(beforeHook{w.store.commit.Hash(), func() {
		now := w.load(r.ID)
		held = now.State == StatePending && now.Now.Before(r.Deadline)
		waitFor(t, "the deadline", func() bool { return !w.load(r.ID).Now.Before(r.Deadline) })
	}})
	store, _ := w.newProcess(rdb)
	// Where the machine is so slow that not even the press came in time, this is
	// tried again with a request that lives longer.
	for life := 200 * time.Millisecond; !held; life *= 2 {
		w.service.Policy.Commands = map[string]Rule{"entra-require-reregister": {Lifetime: life}}
		r = w.submit(deletionPlan(ClassDestroy, dana, "m1-"+life.String()))
		if _, err := store.decide(t.Context(), "press-"+life.String(), r.ID, Approve{By: ravi}, nil); code(err) != CodeExpired {
			t.Fatalf("a press that came too late: %v", err)
		}
		if got := w.load(r.ID); got.State != StatePending || len(got.Approvals) > 0 {
			t.Fatalf("held back in time %v; it is %s", held, got.Summary())
		}
	}
}

// An operation has one answer, in whichever of its two places it stands.
func TestAnOperationHasOneAnswer(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	ask := Submit{Plan: deletionPlan(ClassDestroy, dana, "m1"), Requester: hanna, Requirements: Requirements{Approvals: 1, Lifetime: time.Hour}}
	no := refuse(CodeTooMany, "Wait a little.")
	about := audit.Event{Kind: audit.Refused, Reason: no.Sentence}

	// Two deliveries of one wish at a moment: one was refused first …
	if _, err := w.store.note(ctx, "op-1", w.store.refusedAnswer("op-1", no), Request{}, about); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.create(ctx, "op-1", ask, nil); code(err) != CodeTooMany {
		t.Errorf("what was refused is made: %v", err)
	}
	// … or was granted first.
	if _, err := w.store.create(ctx, "op-2", ask, nil); err != nil {
		t.Fatal(err)
	}
	if said, err := w.store.note(ctx, "op-2", w.store.refusedAnswer("op-2", no), Request{}, about); err != nil || said != "requested" {
		t.Errorf("what was granted is refused: %q, %v", said, err)
	}
	if got, want := w.eventKinds(""), []audit.Kind{audit.Refused, audit.Requested}; !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
}

func TestPins(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	for _, tt := range []struct {
		slack, object string
		want          bool
	}{
		{"U1", "a", true},
		{"U1", "a", true},
		{"U1", "b", false}, // the Slack account changed hands
		{"U2", "a", false}, // somebody else took the e-mail address
		{"U2", "b", true},  // neither refusal bound anything
		{"U1", "b", false},
	} {
		if got, err := w.store.Pin(t.Context(), tt.slack, tt.object); err != nil || got != tt.want {
			t.Errorf("pinning %s to %s: %v, %v", tt.slack, tt.object, got, err)
		}
	}
}

func TestRates(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	allowed := func() bool {
		ok, err := w.store.Allow(t.Context(), "read", "x", 2, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if got, want := []bool{allowed(), allowed(), allowed()}, []bool{true, true, false}; !slices.Equal(got, want) {
		t.Errorf("three uses in a window: %v, want %v", got, want)
	}
	key := w.store.keys.rate("read", "x")
	if left := w.rdb.PTTL(t.Context(), key).Val(); left <= 0 || left > time.Hour {
		t.Errorf("the window ends in %v", left)
	}
	if err := w.rdb.PExpire(t.Context(), key, time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the window's end", allowed)
}

func TestCards(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	for name, c := range map[string]Card{"approvers": {"C1", "1.1"}, "requester": {"D1", "2.2"}} {
		if err := w.store.SetCard(t.Context(), "R-1", name, c); err != nil {
			t.Fatal(err)
		}
	}
	got, err := w.store.Cards(t.Context(), "R-1")
	if err != nil || len(got) != 2 || got["approvers"] != (Card{"C1", "1.1"}) {
		t.Errorf("cards: %v, %v", got, err)
	}
	if none, err := w.store.Cards(t.Context(), "R-2"); err != nil || len(none) != 0 {
		t.Errorf("cards of nothing: %v, %v", none, err)
	}
}
