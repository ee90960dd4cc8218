package approvals

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign/audit"
)

// emergency is a containment that waits for approval.
func emergency(w *fixture) Snapshot {
	return w.load(w.submit(deletionPlan(ClassContain, dana, "m1")).ID)
}

// inReview is a containment that ran with break-glass.
func inReview(w *fixture) Snapshot {
	w.t.Helper()
	ctx, at := w.t.Context(), emergency(w)
	if _, err := w.service.BreakGlass(ctx, w.op(), at.ID, olga, "an intruder reads her mail"); err != nil {
		w.t.Fatal(err)
	}
	snap, err := w.store.claim(ctx, w.load(at.ID), "worker")
	if err != nil {
		w.t.Fatal(err)
	}
	r := snap.Request
	for _, step := range []struct {
		op string
		do Action
	}{{"begin:0", StartStep{Step: 0}}, {"end:0", EndStep{Step: 0, Result: Result{State: StepDone}}}, {"finish", Finish{}}} {
		if r, err = w.store.advance(ctx, r, snap.Now, step.op, step.do); err != nil {
			w.t.Fatal(err)
		}
	}
	return w.load(at.ID)
}

// endsIn moves the end of a pending request, and when it is looked at. As with
// every change, what was read before counts no more.
func (w *fixture) endsIn(id string, left time.Duration) {
	w.t.Helper()
	ctx := w.t.Context()
	now := w.load(id).Now
	pipe := w.rdb.TxPipeline()
	pipe.HIncrBy(ctx, w.store.keys.request(id), "version", 1)
	pipe.HSet(ctx, w.store.keys.request(id), "deadline", now.Add(left).UnixMilli())
	pipe.ZAdd(ctx, w.store.keys.due(), redisZ(1, id))
	if _, err := pipe.Exec(ctx); err != nil {
		w.t.Fatal(err)
	}
}

// Break-glass runs at once, stays open until somebody without a part
// in it has reviewed it, and is reminded of until then.
func TestBreakGlass(t *testing.T) {
	t.Parallel()
	timing := longTimings()
	timing.Remind = 100 * time.Millisecond
	w := newFixture(t, timing)
	ctx := t.Context()
	w.startRunner(w.service, "w")
	asked := w.submit(deletionPlan(ClassContain, dana, "m1"))
	if _, err := w.service.BreakGlass(ctx, w.op(), asked.ID, olga, "an intruder reads her mail"); err != nil {
		t.Fatal(err)
	}
	r := w.untilIn(asked.ID, StateReview)
	if r.Outcome != OutcomeSucceeded || len(r.Approvals) != 0 || r.BreakGlass.By.ID != olga.ID {
		t.Errorf("it is %s, %+v", r.Summary(), r.BreakGlass)
	}
	w.tenant.wantDeletedOnce(t, "m1")
	// It holds neither its target nor its like.
	if other := w.waitFinal(w.approved(deletionPlan(ClassDestroy, dana, "m2")).ID); other.Outcome != OutcomeSucceeded {
		t.Errorf("another one for its target is %s", other.Summary())
	}
	waitFor(t, "three reminders", func() bool { return w.told(r.ID, audit.Reminded) >= 3 })
	for _, no := range []struct {
		by   Person
		code Code
	}{{olga, CodeAlreadyDecided}, {hanna, CodeNotAllowed}, {sam, CodeNotAllowed}, {bo, CodeDisabled}, {pat, CodeGuest}, {Person{Slack: "U0X"}, CodeUnknownPerson}, {dana, CodeNotAllowed}} {
		if _, err := w.service.Review(ctx, w.op(), r.ID, no.by, VerdictJustified, ""); code(err) != no.code {
			t.Errorf("a review by %s: %v, want %s", no.by, err, no.code)
		}
	}
	if open, err := w.store.Open(ctx); err != nil || len(open) != 1 || open[0].ID != r.ID {
		t.Errorf("the desk has %+v, %v", open, err)
	}
	got, err := w.service.Review(ctx, w.op(), r.ID, mina, VerdictJustified, "seen in the sign-in log")
	if err != nil || got.State != StateDone || got.Reviewed == nil || got.Reviewed.By.ID != mina.ID || got.Outcome != OutcomeSucceeded {
		t.Errorf("the review: %+v, %v", got, err)
	}
	if open, err := w.store.Open(ctx); err != nil || len(open) != 0 {
		t.Errorf("the desk still has %+v, %v", open, err)
	}
	for _, e := range w.events() {
		if e.Request != r.ID {
			continue
		}
		switch e.Kind {
		case audit.Finished, audit.Reviewed, audit.Reminded:
			if e.BreakGlass.ID != olga.ID || !strings.Contains(e.Line(), "break-glass used by Olga") {
				t.Errorf("the line of %s does not say who used break-glass: %s", e.Kind, e.Line())
			}
		case audit.UsedBreakGlass:
			if !strings.Contains(e.Line(), "“an intruder reads her mail”") {
				t.Errorf("the line does not say why: %s", e.Line())
			}
		}
	}
	w.checkInvariants()
}

// Who may use break-glass, for what, and how it ends when that is not so any
// more at the moment of execution.
func TestBreakGlassIsRefused(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	for name, tt := range map[string]struct {
		plan Plan
		by   Person
		why  string
		want Code
	}{
		"a help desk agent":        {deletionPlan(ClassContain, sam, "m1"), hanna, "now", CodeNotAllowed},
		"an approver":              {deletionPlan(ClassContain, sam, "m1"), ravi, "now", CodeNotAllowed},
		"a guest":                  {deletionPlan(ClassContain, sam, "m1"), pat, "now", CodeGuest},
		"a blocked account":        {deletionPlan(ClassContain, sam, "m1"), bo, "now", CodeDisabled},
		"the target":               {deletionPlan(ClassContain, dana, "m1"), dana, "now", CodeTarget},
		"without a reason":         {deletionPlan(ClassContain, sam, "m1"), olga, "", CodeMissing},
		"what is not containment":  {deletionPlan(ClassDestroy, sam, "m1"), olga, "now", CodeNotAllowed},
		"a protected target":       {deletionPlan(ClassContain, gloria, "m1"), olga, "now", CodeNotAllowed},
		"an approver as a target":  {deletionPlan(ClassContain, mina, "m1"), olga, "now", ""},
		"what on-call may contain": {deletionPlan(ClassContain, sam, "m1"), olga, "now", ""},
	} {
		r := w.submit(tt.plan)
		if _, err := w.service.BreakGlass(ctx, w.op(), r.ID, tt.by, tt.why); code(err) != tt.want {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		state := StatePending
		if tt.want == "" {
			state = StateApproved
		}
		if got := w.load(r.ID); got.State != state {
			t.Errorf("%s: it is %s", name, got.Summary())
		}
		if _, err := w.service.Cancel(ctx, w.op(), r.ID, hanna); err != nil {
			t.Error(err)
		}
	}

	w.checkInvariants()
}

// What was true when break-glass was used is asked again before it runs.
func TestBreakGlassIsRechecked(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(w *fixture){
		"no longer on call": func(w *fixture) {
			w.service.Policy.Groups["On-call engineers"] = Group{People: []string{gloria.ID}}
		},
		"the policy allows it no more": func(w *fixture) {
			rule := w.service.Policy.Classes[ClassContain]
			rule.BreakGlass = nil
			w.service.Policy.Classes[ClassContain] = rule
		},
		"blocked":               func(w *fixture) { w.directory.change(olga, func(s *Account) { s.Enabled = false }) },
		"protected now":         func(w *fixture) { w.directory.change(sam, func(s *Account) { s.Protected = []string{"holds a role"} }) },
		"the requester is gone": func(w *fixture) { w.directory.change(hanna, func(s *Account) { s.Groups = nil }) },
		"a recent target":       func(w *fixture) { w.rdb.Set(w.t.Context(), w.store.keys.mark(olga.ID), "R-X", time.Hour) },
		"look-ups fail":         func(w *fixture) { w.directory.goDown(permanent{}) },
		"":                      func(*fixture) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, longTimings())
			w.service.Log = discard
			r := w.submit(deletionPlan(ClassContain, sam, "m1"))
			if _, err := w.service.BreakGlass(t.Context(), w.op(), r.ID, olga, "now"); err != nil {
				t.Fatal(err)
			}
			change(w)
			w.startRunner(w.service, "w")
			got := w.untilIn(r.ID, StateReview)
			if (got.Outcome == OutcomeSucceeded) != (name == "") {
				t.Errorf("it is %s, because %q", got.Summary(), got.Why)
			}
			if name != "" {
				w.tenant.wantUntouched(t)
				lint(t, got.Why)
			}
			w.checkInvariants()
		})
	}
}

// A limit is not exceeded, however many ask at a moment, and a repeat of what
// was counted is not counted again.
func TestLimits(t *testing.T) {
	t.Parallel()
	few := Limit{Count: 3, Within: time.Hour}
	for name, tt := range map[string]struct {
		limits Limits
		do     func(w *fixture, n int, op string) error
		want   int
	}{
		"requester": {Limits{Requester: few}, func(w *fixture, n int, op string) error {
			_, err := w.service.Submit(context.Background(), op, Submit{Plan: deletionPlan(ClassDestroy, []Person{dana, sam, mina}[n%3], fmt.Sprint(n)), Requester: hanna})
			return err
		}, 3},
		"target": {Limits{Target: few}, func(w *fixture, n int, op string) error {
			_, err := w.service.Submit(context.Background(), op, Submit{Plan: deletionPlan(ClassDestroy, dana, fmt.Sprint(n)), Requester: []Person{hanna, ravi}[n%2]})
			return err
		}, 3},
		"containment does not count for its target": {Limits{Target: few}, func(w *fixture, n int, op string) error {
			_, err := w.service.Submit(context.Background(), op, Submit{Plan: deletionPlan(ClassContain, dana, fmt.Sprint(n)), Requester: hanna})
			return err
		}, 9},
		"pair": {Limits{Pair: few}, func(w *fixture, n int, op string) error {
			asks, says := hanna, ravi // hanna may not approve, so the pair is told by its order alone
			r, err := w.service.Submit(context.Background(), op+"-ask", Submit{Plan: deletionPlan(ClassDestroy, dana, fmt.Sprint(n)), Requester: asks})
			if err != nil {
				return err
			}
			_, err = w.service.Approve(context.Background(), op, r.ID, says)
			return err
		}, 3},
		"break-glass, without a setting": {Limits{}, func(w *fixture, n int, op string) error {
			r, err := w.service.Submit(context.Background(), op+"-ask", Submit{Plan: deletionPlan(ClassContain, sam, fmt.Sprint(n)), Requester: hanna})
			if err != nil {
				return err
			}
			_, err = w.service.BreakGlass(context.Background(), op, r.ID, olga, "now")
			return err
		}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, longTimings())
			w.service.Policy.Limits = tt.limits
			done := atOnce(9, func(n int) error { return tt.do(w, n, fmt.Sprint("op-", n)) })
			good := 0
			for n, err := range done {
				switch {
				case err == nil:
					good++
				case code(err) != CodeTooMany:
					t.Errorf("%d: %v", n, err)
				default:
					lint(t, err.Error())
				}
				if again := tt.do(w, n, fmt.Sprint("op-", n)); code(again) != code(err) {
					t.Errorf("%d once more: %v, and before: %v", n, again, err)
				}
			}
			if good != tt.want {
				t.Errorf("%d of 9 went through, want %d", good, tt.want)
			}
			for _, key := range w.server.Keys(t, w.store.keys.tally("*")) {
				if ttl := w.rdb.PTTL(t.Context(), key).Val(); ttl <= 0 || ttl > time.Hour {
					t.Errorf("%s lives %v", key, ttl)
				}
				// What is longer ago than the window does not count.
				w.rdb.ZUnionStore(t.Context(), key, &redis.ZStore{Keys: []string{key}, Weights: []float64{0.5}})
			}
			if err := tt.do(w, 10, "op-10"); err != nil {
				t.Errorf("when it is long ago: %v", err)
			}
			w.checkInvariants()
		})
	}
}

// A request that nobody decides is reminded of once, by one process, before
// its end.
func TestExpiryReminder(t *testing.T) {
	t.Parallel()
	timing := longTimings()
	timing.Warn = 10 * time.Minute // of half an hour
	w := newFixture(t, timing)
	ctx := t.Context()
	early := w.submit(deletionPlan(ClassDestroy, sam, "m1"))
	if err := w.store.remindExpiry(t.Context(), w.load(early.ID)); err != nil || w.told(early.ID, audit.Reminded) != 0 {
		t.Errorf("it was reminded of before its time: %v", err)
	}
	for i := range 3 {
		_, service := w.newProcess(w.server.Client(t))
		w.startRunner(service, fmt.Sprint("worker-", i))
	}
	r := w.submit(deletionPlan(ClassDestroy, dana, "m1"))
	w.endsIn(r.ID, timing.Warn-time.Minute)
	waitFor(t, "the reminder", func() bool { return w.told(r.ID, audit.Reminded) > 0 })
	if snap := w.load(r.ID); snap.State != StatePending {
		t.Errorf("it was reminded of when it was %s", snap.Summary())
	}
	w.endsIn(r.ID, timing.Warn-2*time.Minute) // and somebody finds it due once more
	waitFor(t, "it to wait for its end", func() bool {
		return w.rdb.ZScore(ctx, w.store.keys.due(), r.ID).Val() > 1
	})
	w.endsIn(r.ID, 0)
	if got := w.waitFinal(r.ID); got.State != StateExpired || w.told(r.ID, audit.Reminded) != 1 {
		t.Errorf("it is %s, and was reminded of %d times", got.Summary(), w.told(r.ID, audit.Reminded))
	}
	for _, e := range w.events() {
		if e.Kind == audit.Reminded {
			lint(t, e.Reason)
			if e.Outcome != string(StatePending) || !strings.Contains(e.Reason, "expires at") {
				t.Errorf("the reminder is %+v", e)
			}
		}
	}
	w.checkInvariants()
}

// What the policy requires of a request besides what its class demands.
func TestRequiredFields(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	rule := w.service.Policy.Classes[ClassDestroy]
	rule.Require, rule.Verified = []string{NeedTicket, NeedJustification, NeedVerified}, []string{"in-person", "video"}
	w.service.Policy.Classes[ClassDestroy] = askForSelf(rule)
	good := Submit{Plan: deletionPlan(ClassDestroy, dana, "m1"), Requester: hanna, Ticket: "INC-7", Justification: "lost", Verified: "video"}
	for name, tt := range map[string]struct {
		spoil func(*Submit)
		want  Code
	}{
		"nothing missing":            {func(*Submit) {}, ""},
		"no ticket":                  {func(a *Submit) { a.Ticket = "" }, CodeMissing},
		"no justification":           {func(a *Submit) { a.Justification = "" }, CodeMissing},
		"nobody verified":            {func(a *Submit) { a.Verified = "" }, CodeMissing},
		"a way that does not count":  {func(a *Submit) { a.Verified = "callback" }, CodeMissing},
		"compromise does not either": {func(a *Submit) { a.Verified = VerifiedCompromise }, CodeMissing},
		"for oneself":                {func(a *Submit) { a.Verified, a.Requester, a.Plan = "", dana, deletionPlan(ClassDestroy, dana, "m2") }, ""},
	} {
		a := good
		tt.spoil(&a)
		_, err := w.service.Submit(t.Context(), w.op(), a)
		if code(err) != tt.want {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if err != nil {
			lint(t, err.Error())
		}
	}
	w.checkInvariants()
}

// Where people may ask for themselves, anybody may, for nobody else, and the
// help desk decides.
func TestRequestsForOneself(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	ctx := t.Context()
	own := Submit{Plan: deletionPlan(ClassDestroy, dana, "m1"), Requester: dana, Justification: "lost my phone"}
	if _, err := w.service.Submit(ctx, w.op(), own); code(err) != CodeNotAllowed {
		t.Errorf("where it is not allowed: %v", err)
	}
	w.service.Policy.Classes[ClassDestroy] = askForSelf(w.service.Policy.Classes[ClassDestroy])
	if only, err := w.service.MayRequest(ctx, "c", ClassDestroy, dana); err != nil || !only {
		t.Errorf("dana may ask for herself only: %v, %v", only, err)
	}
	if only, err := w.service.MayRequest(ctx, "c", ClassDestroy, hanna); err != nil || only {
		t.Errorf("hanna may ask for everybody: only herself %v, %v", only, err)
	}
	if _, err := w.service.Submit(ctx, w.op(), Submit{Plan: deletionPlan(ClassDestroy, sam, "m1"), Requester: dana}); code(err) != CodeNotAllowed {
		t.Errorf("for somebody else: %v", err)
	}
	r, err := w.service.Submit(ctx, w.op(), own)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(r.Requirements.Why, func(why string) bool { return strings.Contains(why, "nobody has verified the caller") }) {
		t.Errorf("the approver is not told: %q", r.Requirements.Why)
	}
	for by, want := range map[Person]Code{dana: CodeRequester, olga: CodeNotAllowed, sam: CodeNotAllowed} {
		if _, err := w.service.Approve(ctx, w.op(), r.ID, by); code(err) != want {
			t.Errorf("%s approves: %v, want %s", by, err, want)
		}
	}
	w.startRunner(w.service, "w")
	if _, err := w.service.Approve(ctx, w.op(), r.ID, hanna); err != nil {
		t.Fatal(err)
	}
	if got := w.waitFinal(r.ID); got.Outcome != OutcomeSucceeded {
		t.Errorf("it is %s, because %q", got.Summary(), got.Why)
	}
	w.checkInvariants()
}

// userGroups is a Slack whose user groups change, and which can be down.
type userGroups struct {
	members map[string][]string // group to Slack ids
	down    error
	asked   int
}

func (u *userGroups) In(_ context.Context, who Person, groups []string) ([]string, error) {
	u.asked++
	var in []string
	for _, g := range groups {
		if slices.Contains(u.members[g], who.Slack) {
			in = append(in, g)
		}
	}
	return in, u.down
}

// Slack user groups give rights as Entra groups do: asked afresh for each
// decision and again when it runs, and refused when they cannot be asked.
func TestSlackUserGroups(t *testing.T) {
	t.Parallel()
	w := newFixture(t, longTimings())
	w.service.Log = discard
	ctx := t.Context()
	slack := &userGroups{members: map[string][]string{"S1": {sam.Slack}, "S2": {gloria.Slack}}}
	w.service.Policy.Groups["Night shift"], w.service.Policy.Groups["Night leads"] = Group{Slack: []string{"S1"}}, Group{Slack: []string{"S2"}}
	w.service.Policy.Classes[ClassDestroy] = Rule{Request: []string{"Night shift"}, Approve: []string{"Night leads"}}
	ask := func(n int) (Request, error) {
		return w.service.Submit(ctx, w.op(), Submit{Plan: deletionPlan(ClassDestroy, dana, fmt.Sprint(n)), Requester: sam})
	}
	if _, err := ask(0); code(err) != CodeUnchecked {
		t.Errorf("with nobody to ask: %v", err)
	}
	w.service.UserGroups = slack
	r, err := ask(1)
	if err != nil {
		t.Fatal(err)
	}
	slack.down = errors.New("ratelimited")
	w.store.timing.LookUps = 10 * time.Millisecond
	if _, err := w.service.Approve(ctx, w.op(), r.ID, gloria); code(err) != CodeUnchecked {
		t.Errorf("when Slack does not tell: %v", err)
	}
	slack.down, w.store.timing.LookUps = nil, longTimings().LookUps
	if _, err := w.service.Approve(ctx, w.op(), r.ID, hanna); code(err) != CodeNotAllowed {
		t.Errorf("somebody outside the group: %v", err)
	}
	asked := slack.asked
	if r, err = w.service.Approve(ctx, w.op(), r.ID, gloria); err != nil || slack.asked == asked {
		t.Errorf("%v; Slack was asked %d times more", err, slack.asked-asked)
	}
	slack.members["S2"] = nil
	if no := w.service.recheck(ctx, r); no == nil || !strings.Contains(no.Sentence, "may not decide such requests any more") {
		t.Errorf("when she has left the group it runs: %v", no)
	}
	// An approver is a target only with one approval more, also by Slack.
	slack.members["S2"] = []string{dana.Slack}
	if r, err := ask(2); err != nil || r.Requirements.Approvals != 2 {
		t.Errorf("%+v, %v", r.Requirements, err)
	}
	w.checkInvariants()
}
