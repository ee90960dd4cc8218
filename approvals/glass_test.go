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
func emergency(w *world) Snapshot { return w.load(w.ask(deletes(ClassContain, dana, "m1")).ID) }

// inReview is a containment that ran with broken glass.
func inReview(w *world) Snapshot {
	w.t.Helper()
	ctx, at := w.t.Context(), emergency(w)
	if _, err := w.desk.BreakGlass(ctx, w.op(), at.ID, olga, "an intruder reads her mail"); err != nil {
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
	}{{"begin:0", Begin{Step: 0}}, {"end:0", End{Step: 0, Result: Result{State: StepDone}}}, {"finish", Finish{}}} {
		if r, err = w.store.advance(ctx, r, snap.Now, step.op, step.do); err != nil {
			w.t.Fatal(err)
		}
	}
	return w.load(at.ID)
}

// endsIn moves the end of a pending request, and when it is looked at. As with
// every change, what was read before counts no more.
func (w *world) endsIn(id string, left time.Duration) {
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

// Broken glass runs at once, stays on the desk until somebody without a part
// in it has reviewed it, and is reminded of until then.
func TestBrokenGlass(t *testing.T) {
	t.Parallel()
	timing := calm()
	timing.Remind = 100 * time.Millisecond
	w := newWorld(t, timing)
	ctx := t.Context()
	w.run(w.desk, "w")
	asked := w.ask(deletes(ClassContain, dana, "m1"))
	if _, err := w.desk.BreakGlass(ctx, w.op(), asked.ID, olga, "an intruder reads her mail"); err != nil {
		t.Fatal(err)
	}
	r := w.untilIn(asked.ID, Review)
	if r.Outcome != Succeeded || len(r.Approvals) != 0 || r.Glass.By.ID != olga.ID {
		t.Errorf("it is %s, %+v", r.Says(), r.Glass)
	}
	w.tenant.once(t, "m1")
	// It holds neither its target nor its like.
	if other := w.until(w.approved(deletes(ClassDestroy, dana, "m2")).ID); other.Outcome != Succeeded {
		t.Errorf("another one for its target is %s", other.Says())
	}
	waitFor(t, "three reminders", func() bool { return w.told(r.ID, audit.Reminded) >= 3 })
	for _, no := range []struct {
		by   Person
		code Code
	}{{olga, CodeTwice}, {hanna, CodeNotAllowed}, {sam, CodeNotAllowed}, {bo, CodeDisabled}, {pat, CodeGuest}, {Person{Slack: "U0X"}, CodeNobody}, {dana, CodeNotAllowed}} {
		if _, err := w.desk.Judge(ctx, w.op(), r.ID, no.by, Justified, ""); code(err) != no.code {
			t.Errorf("a review by %s: %v, want %s", no.by, err, no.code)
		}
	}
	if open, err := w.store.Open(ctx); err != nil || len(open) != 1 || open[0].ID != r.ID {
		t.Errorf("the desk has %+v, %v", open, err)
	}
	got, err := w.desk.Judge(ctx, w.op(), r.ID, mina, Justified, "seen in the sign-in log")
	if err != nil || got.State != Done || got.Reviewed == nil || got.Reviewed.By.ID != mina.ID || got.Outcome != Succeeded {
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
			if e.Glass.ID != olga.ID || !strings.Contains(e.Line(), "glass broken by Olga") {
				t.Errorf("the line of %s does not say who broke the glass: %s", e.Kind, e.Line())
			}
		case audit.BrokeGlass:
			if !strings.Contains(e.Line(), "“an intruder reads her mail”") {
				t.Errorf("the line does not say why: %s", e.Line())
			}
		}
	}
	w.invariants()
}

// Who may break the glass, for what, and how it ends when that is not so any
// more at the moment of execution.
func TestWhoMayBreakTheGlass(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	ctx := t.Context()
	for name, tt := range map[string]struct {
		plan Plan
		by   Person
		why  string
		want Code
	}{
		"a help desk agent":        {deletes(ClassContain, sam, "m1"), hanna, "now", CodeNotAllowed},
		"an approver":              {deletes(ClassContain, sam, "m1"), ravi, "now", CodeNotAllowed},
		"a guest":                  {deletes(ClassContain, sam, "m1"), pat, "now", CodeGuest},
		"a blocked account":        {deletes(ClassContain, sam, "m1"), bo, "now", CodeDisabled},
		"the target":               {deletes(ClassContain, dana, "m1"), dana, "now", CodeTarget},
		"without a reason":         {deletes(ClassContain, sam, "m1"), olga, "", CodeMissing},
		"what is not containment":  {deletes(ClassDestroy, sam, "m1"), olga, "now", CodeNotAllowed},
		"a protected target":       {deletes(ClassContain, gloria, "m1"), olga, "now", CodeNotAllowed},
		"an approver as a target":  {deletes(ClassContain, mina, "m1"), olga, "now", ""},
		"what on-call may contain": {deletes(ClassContain, sam, "m1"), olga, "now", ""},
	} {
		r := w.ask(tt.plan)
		if _, err := w.desk.BreakGlass(ctx, w.op(), r.ID, tt.by, tt.why); code(err) != tt.want {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		state := Pending
		if tt.want == "" {
			state = Approved
		}
		if got := w.load(r.ID); got.State != state {
			t.Errorf("%s: it is %s", name, got.Says())
		}
		if _, err := w.desk.Cancel(ctx, w.op(), r.ID, hanna); err != nil {
			t.Error(err)
		}
	}

	w.invariants()
}

// What was true when the glass was broken is asked again before it runs.
func TestBrokenGlassIsCheckedAgain(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(w *world){
		"no longer on call": func(w *world) {
			w.desk.Policy.Groups["On-call engineers"] = Group{People: []string{gloria.ID}}
		},
		"the policy allows it no more": func(w *world) {
			rule := w.desk.Policy.Classes[ClassContain]
			rule.BreakGlass = nil
			w.desk.Policy.Classes[ClassContain] = rule
		},
		"blocked":               func(w *world) { w.directory.change(olga, func(s *Standing) { s.Enabled = false }) },
		"protected now":         func(w *world) { w.directory.change(sam, func(s *Standing) { s.Protected = []string{"holds a role"} }) },
		"the requester is gone": func(w *world) { w.directory.change(hanna, func(s *Standing) { s.Groups = nil }) },
		"a recent target":       func(w *world) { w.rdb.Set(w.t.Context(), w.store.keys.mark(olga.ID), "R-X", time.Hour) },
		"look-ups fail":         func(w *world) { w.directory.goDown(permanent{}) },
		"":                      func(*world) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, calm())
			w.desk.Log = discard
			r := w.ask(deletes(ClassContain, sam, "m1"))
			if _, err := w.desk.BreakGlass(t.Context(), w.op(), r.ID, olga, "now"); err != nil {
				t.Fatal(err)
			}
			change(w)
			w.run(w.desk, "w")
			got := w.untilIn(r.ID, Review)
			if (got.Outcome == Succeeded) != (name == "") {
				t.Errorf("it is %s, because %q", got.Says(), got.Why)
			}
			if name != "" {
				w.tenant.untouched(t)
				lint(t, got.Why)
			}
			w.invariants()
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
		do     func(w *world, n int, op string) error
		want   int
	}{
		"requester": {Limits{Requester: few}, func(w *world, n int, op string) error {
			_, err := w.desk.Ask(context.Background(), op, Ask{Plan: deletes(ClassDestroy, []Person{dana, sam, mina}[n%3], fmt.Sprint(n)), Requester: hanna})
			return err
		}, 3},
		"target": {Limits{Target: few}, func(w *world, n int, op string) error {
			_, err := w.desk.Ask(context.Background(), op, Ask{Plan: deletes(ClassDestroy, dana, fmt.Sprint(n)), Requester: []Person{hanna, ravi}[n%2]})
			return err
		}, 3},
		"containment does not count for its target": {Limits{Target: few}, func(w *world, n int, op string) error {
			_, err := w.desk.Ask(context.Background(), op, Ask{Plan: deletes(ClassContain, dana, fmt.Sprint(n)), Requester: hanna})
			return err
		}, 9},
		"pair": {Limits{Pair: few}, func(w *world, n int, op string) error {
			asks, says := hanna, ravi // hanna may not approve, so the pair is told by its order alone
			r, err := w.desk.Ask(context.Background(), op+"-ask", Ask{Plan: deletes(ClassDestroy, dana, fmt.Sprint(n)), Requester: asks})
			if err != nil {
				return err
			}
			_, err = w.desk.Approve(context.Background(), op, r.ID, says)
			return err
		}, 3},
		"broken glass, without a setting": {Limits{}, func(w *world, n int, op string) error {
			r, err := w.desk.Ask(context.Background(), op+"-ask", Ask{Plan: deletes(ClassContain, sam, fmt.Sprint(n)), Requester: hanna})
			if err != nil {
				return err
			}
			_, err = w.desk.BreakGlass(context.Background(), op, r.ID, olga, "now")
			return err
		}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, calm())
			w.desk.Policy.Limits = tt.limits
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
			w.invariants()
		})
	}
}

// A request that nobody decides is reminded of once, by one process, before
// its end.
func TestAReminderBeforeTheEnd(t *testing.T) {
	t.Parallel()
	timing := calm()
	timing.Warn = 10 * time.Minute // of half an hour
	w := newWorld(t, timing)
	ctx := t.Context()
	early := w.ask(deletes(ClassDestroy, sam, "m1"))
	if err := w.store.warn(t.Context(), w.load(early.ID)); err != nil || w.told(early.ID, audit.Reminded) != 0 {
		t.Errorf("it was reminded of before its time: %v", err)
	}
	for i := range 3 {
		_, desk := w.process(w.server.Client(t))
		w.run(desk, fmt.Sprint("worker-", i))
	}
	r := w.ask(deletes(ClassDestroy, dana, "m1"))
	w.endsIn(r.ID, timing.Warn-time.Minute)
	waitFor(t, "the reminder", func() bool { return w.told(r.ID, audit.Reminded) > 0 })
	if snap := w.load(r.ID); snap.State != Pending {
		t.Errorf("it was reminded of when it was %s", snap.Says())
	}
	w.endsIn(r.ID, timing.Warn-2*time.Minute) // and somebody finds it due once more
	waitFor(t, "it to wait for its end", func() bool {
		return w.rdb.ZScore(ctx, w.store.keys.due(), r.ID).Val() > 1
	})
	w.endsIn(r.ID, 0)
	if got := w.until(r.ID); got.State != Expired || w.told(r.ID, audit.Reminded) != 1 {
		t.Errorf("it is %s, and was reminded of %d times", got.Says(), w.told(r.ID, audit.Reminded))
	}
	for _, e := range w.events() {
		if e.Kind == audit.Reminded {
			lint(t, e.Reason)
			if e.Outcome != string(Pending) || !strings.Contains(e.Reason, "expires at") {
				t.Errorf("the reminder is %+v", e)
			}
		}
	}
	w.invariants()
}

// What the policy requires of a request besides what its class demands.
func TestRequiredFields(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	rule := w.desk.Policy.Classes[ClassDestroy]
	rule.Require, rule.Verified = []string{NeedTicket, NeedJustification, NeedVerified}, []string{"in-person", "video"}
	w.desk.Policy.Classes[ClassDestroy] = askForSelf(rule)
	good := Ask{Plan: deletes(ClassDestroy, dana, "m1"), Requester: hanna, Ticket: "INC-7", Justification: "lost", Verified: "video"}
	for name, tt := range map[string]struct {
		spoil func(*Ask)
		want  Code
	}{
		"nothing missing":            {func(*Ask) {}, ""},
		"no ticket":                  {func(a *Ask) { a.Ticket = "" }, CodeMissing},
		"no justification":           {func(a *Ask) { a.Justification = "" }, CodeMissing},
		"nobody verified":            {func(a *Ask) { a.Verified = "" }, CodeMissing},
		"a way that does not count":  {func(a *Ask) { a.Verified = "callback" }, CodeMissing},
		"compromise does not either": {func(a *Ask) { a.Verified = VerifiedCompromise }, CodeMissing},
		"for oneself":                {func(a *Ask) { a.Verified, a.Requester, a.Plan = "", dana, deletes(ClassDestroy, dana, "m2") }, ""},
	} {
		a := good
		tt.spoil(&a)
		_, err := w.desk.Ask(t.Context(), w.op(), a)
		if code(err) != tt.want {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if err != nil {
			lint(t, err.Error())
		}
	}
	w.invariants()
}

// Where people may ask for themselves, anybody may, for nobody else, and the
// help desk decides.
func TestAskingForOneself(t *testing.T) {
	t.Parallel()
	w := newWorld(t, calm())
	ctx := t.Context()
	own := Ask{Plan: deletes(ClassDestroy, dana, "m1"), Requester: dana, Justification: "lost my phone"}
	if _, err := w.desk.Ask(ctx, w.op(), own); code(err) != CodeNotAllowed {
		t.Errorf("where it is not allowed: %v", err)
	}
	w.desk.Policy.Classes[ClassDestroy] = askForSelf(w.desk.Policy.Classes[ClassDestroy])
	if only, err := w.desk.MayRequest(ctx, "c", ClassDestroy, dana); err != nil || !only {
		t.Errorf("dana may ask for herself only: %v, %v", only, err)
	}
	if only, err := w.desk.MayRequest(ctx, "c", ClassDestroy, hanna); err != nil || only {
		t.Errorf("hanna may ask for everybody: only herself %v, %v", only, err)
	}
	if _, err := w.desk.Ask(ctx, w.op(), Ask{Plan: deletes(ClassDestroy, sam, "m1"), Requester: dana}); code(err) != CodeNotAllowed {
		t.Errorf("for somebody else: %v", err)
	}
	r, err := w.desk.Ask(ctx, w.op(), own)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(r.Terms.Why, func(why string) bool { return strings.Contains(why, "nobody has verified the caller") }) {
		t.Errorf("the approver is not told: %q", r.Terms.Why)
	}
	for by, want := range map[Person]Code{dana: CodeRequester, olga: CodeNotAllowed, sam: CodeNotAllowed} {
		if _, err := w.desk.Approve(ctx, w.op(), r.ID, by); code(err) != want {
			t.Errorf("%s approves: %v, want %s", by, err, want)
		}
	}
	w.run(w.desk, "w")
	if _, err := w.desk.Approve(ctx, w.op(), r.ID, hanna); err != nil {
		t.Fatal(err)
	}
	if got := w.until(r.ID); got.Outcome != Succeeded {
		t.Errorf("it is %s, because %q", got.Says(), got.Why)
	}
	w.invariants()
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
	w := newWorld(t, calm())
	w.desk.Log = discard
	ctx := t.Context()
	slack := &userGroups{members: map[string][]string{"S1": {sam.Slack}, "S2": {gloria.Slack}}}
	w.desk.Policy.Groups["Night shift"], w.desk.Policy.Groups["Night leads"] = Group{Slack: []string{"S1"}}, Group{Slack: []string{"S2"}}
	w.desk.Policy.Classes[ClassDestroy] = Rule{Request: []string{"Night shift"}, Approve: []string{"Night leads"}}
	ask := func(n int) (Request, error) {
		return w.desk.Ask(ctx, w.op(), Ask{Plan: deletes(ClassDestroy, dana, fmt.Sprint(n)), Requester: sam})
	}
	if _, err := ask(0); code(err) != CodeUnchecked {
		t.Errorf("with nobody to ask: %v", err)
	}
	w.desk.Slack = slack
	r, err := ask(1)
	if err != nil {
		t.Fatal(err)
	}
	slack.down = errors.New("ratelimited")
	w.store.timing.LookUps = 10 * time.Millisecond
	if _, err := w.desk.Approve(ctx, w.op(), r.ID, gloria); code(err) != CodeUnchecked {
		t.Errorf("when Slack does not tell: %v", err)
	}
	slack.down, w.store.timing.LookUps = nil, calm().LookUps
	if _, err := w.desk.Approve(ctx, w.op(), r.ID, hanna); code(err) != CodeNotAllowed {
		t.Errorf("somebody outside the group: %v", err)
	}
	asked := slack.asked
	if r, err = w.desk.Approve(ctx, w.op(), r.ID, gloria); err != nil || slack.asked == asked {
		t.Errorf("%v; Slack was asked %d times more", err, slack.asked-asked)
	}
	slack.members["S2"] = nil
	if no := w.desk.recheck(ctx, r); no == nil || !strings.Contains(no.Sentence, "may not decide such requests any more") {
		t.Errorf("when she has left the group it runs: %v", no)
	}
	// An approver is a target only with one approval more, also by Slack.
	slack.members["S2"] = []string{dana.Slack}
	if r, err := ask(2); err != nil || r.Terms.Approvals != 2 {
		t.Errorf("%+v, %v", r.Terms, err)
	}
	w.invariants()
}
