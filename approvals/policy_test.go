package approvals

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func accountWith(p Person, groups ...string) Account {
	return Account{Person: p, Enabled: true, Groups: groups}
}

func TestWhoMayRequestAndDecide(t *testing.T) {
	both := []string{helpDesk, approvers}
	guest, disabled := accountWith(pat, both...), accountWith(bo, both...)
	guest.Guest, disabled.Enabled = true, false
	nobody := accountWith(Person{Slack: "U0X"}, both...)

	for _, tt := range []struct {
		name    string
		change  func(*Policy)
		who     Account
		request Code
		decide  Code
	}{
		{"help desk", nil, accountWith(hanna, helpDesk), "", CodeNotAllowed},
		{"approver", nil, accountWith(olga, approvers), CodeNotAllowed, ""},
		{"both", nil, accountWith(ravi, both...), "", ""},
		{"neither", nil, accountWith(mina, "some other group"), CodeNotAllowed, CodeNotAllowed},
		{"guest in both groups", nil, guest, CodeGuest, CodeGuest},
		{"disabled in both groups", nil, disabled, CodeDisabled, CodeDisabled},
		{"no object id", nil, nobody, CodeUnknownPerson, CodeUnknownPerson},
		{"named as a person", func(p *Policy) { p.Groups["Help desk"] = Group{People: []string{mina.ID}} }, accountWith(mina), "", CodeNotAllowed},
		{"only others named", func(p *Policy) { p.Groups["Help desk"] = Group{People: []string{hanna.ID}} }, accountWith(mina), CodeNotAllowed, CodeNotAllowed},
		{"a group with nobody in it", func(p *Policy) { p.Groups["Identity approvers"] = Group{} }, accountWith(ravi, both...), "", CodeNotAllowed},
		{"a group that is not defined", func(p *Policy) { delete(p.Groups, "Identity approvers") }, accountWith(ravi, both...), "", CodeNotAllowed},
		{"no approvers", func(p *Policy) { p.Classes[ClassDestroy] = Rule{Request: []string{"Help desk"}} }, accountWith(ravi, both...), "", CodeNotAllowed},
		{"no rule at all", func(p *Policy) { p.Classes = nil }, accountWith(ravi, both...), CodeNotAllowed, CodeNotAllowed},
		{"the command empties the class' list", func(p *Policy) { p.Commands = map[string]Rule{"c": {Approve: []string{}}} }, accountWith(ravi, both...), "", CodeNotAllowed},
		{"the command has its own list", func(p *Policy) { p.Commands = map[string]Rule{"c": {Request: []string{"Identity approvers"}}} }, accountWith(olga, approvers), "", ""},
		{"an empty object id in a list is nobody's", func(p *Policy) { p.Groups["Help desk"] = Group{People: []string{""}} }, nobody, CodeUnknownPerson, CodeUnknownPerson},
	} {
		p := testPolicy()
		if tt.change != nil {
			tt.change(&p)
		}
		check := func(what string, no *Refusal, want Code) {
			t.Helper()
			got := Code("")
			if no != nil {
				got = no.Code
				lint(t, no.Sentence)
			}
			if got != want {
				t.Errorf("%s, %s: %q, want %q", tt.name, what, got, want)
			}
		}
		check("request", p.MayRequest("c", ClassDestroy, tt.who, false), tt.request)
		check("decide", p.MayDecide("c", ClassDestroy, tt.who, false), tt.decide)
	}
}

func TestRequirements(t *testing.T) {
	protected := accountWith(gloria)
	protected.Protected = []string{"holds the role Global Administrator", "is in a protected group"}
	both := protected
	both.Groups = []string{approvers}

	for _, tt := range []struct {
		name      string
		class     Class
		requester Account
		target    Account
		change    func(*Policy)
		approvals int
		lifetime  time.Duration
		refused   Code
	}{
		{name: "anybody", class: ClassDestroy, target: accountWith(dana), approvals: 1, lifetime: 30 * time.Minute},
		{name: "two approvals", class: ClassTakeover, target: accountWith(dana), approvals: 2, lifetime: 30 * time.Minute},
		{name: "an approver as target", class: ClassDestroy, target: accountWith(olga, approvers), approvals: 2, lifetime: 30 * time.Minute},
		{name: "protected, contain", class: ClassContain, target: protected, approvals: 2, lifetime: 30 * time.Minute},
		{name: "protected approver, contain", class: ClassContain, target: both, approvals: 2, lifetime: 30 * time.Minute},
		{name: "protected, destroy", class: ClassDestroy, target: protected, refused: CodeProtected},
		{name: "protected, takeover", class: ClassTakeover, target: protected, refused: CodeProtected},
		{name: "oneself", class: ClassDestroy, target: accountWith(hanna, helpDesk), refused: CodeSelf},
		{name: "oneself, where that is allowed", class: ClassDestroy, target: accountWith(hanna, helpDesk), change: func(p *Policy) { p.Classes[ClassDestroy] = askForSelf(p.Classes[ClassDestroy]) }, approvals: 1, lifetime: 30 * time.Minute},
		{name: "the command wants more", class: ClassDestroy, target: accountWith(dana), approvals: 3, lifetime: time.Hour,
			change: func(p *Policy) { p.Commands = map[string]Rule{"c": {Approvals: 3, Lifetime: time.Hour}} }},
		{name: "never fewer than one", class: ClassDestroy, target: accountWith(dana), change: func(p *Policy) { p.Classes = nil }, approvals: 1, lifetime: 30 * time.Minute},
	} {
		p := testPolicy()
		if tt.change != nil {
			tt.change(&p)
		}
		requester := accountWith(hanna, helpDesk)
		requirements, no := p.RequirementsFor("c", tt.class, requester, tt.target)
		got := Code("")
		if no != nil {
			got = no.Code
			lint(t, no.Sentence)
		}
		if got != tt.refused || no == nil && (requirements.Approvals != tt.approvals || requirements.Lifetime != tt.lifetime) {
			t.Errorf("%s: %d approvals, lives %v, refused %q; want %d, %v, %q", tt.name, requirements.Approvals, requirements.Lifetime, got, tt.approvals, tt.lifetime, tt.refused)
		}
		for _, why := range requirements.Why {
			lint(t, why)
		}
		if no == nil && tt.name != "two approvals" && tt.name != "oneself, where that is allowed" && (tt.approvals == 2) != (len(requirements.Why) == 1) {
			t.Errorf("%s: %d approvals, because %q", tt.name, requirements.Approvals, requirements.Why)
		}
	}
}

func askForSelf(r Rule) Rule {
	yes := true
	r.RequestForSelf = &yes
	return r
}

// letAskForSelf lets everybody ask for their own account, and the usual
// approvers decide that.
func letAskForSelf(d *Service) {
	for class, r := range d.Policy.Classes {
		r = askForSelf(r)
		r.ApproveSelf = r.Approve
		d.Policy.Classes[class] = r
	}
}

func TestPolicyCheck(t *testing.T) {
	commands := map[string]Class{"c": ClassDestroy, "d2": ClassDestroy, "block": ClassContain, "look": ClassRead}
	for name, tt := range map[string]struct {
		spoil func(*Policy)
		want  string
	}{
		"good":                    {func(*Policy) {}, ""},
		"unknown group":           {func(p *Policy) { p.Classes[ClassContain] = Rule{Approve: []string{"Nobody here"}} }, `policy.classes.contain names the group "Nobody here"`},
		"unknown class":           {func(p *Policy) { p.Classes["destory"] = Rule{} }, `policy.classes has "destory"`},
		"unknown command":         {func(p *Policy) { p.Commands = map[string]Rule{"d": {}} }, `policy.commands has "d"`},
		"too many approvals":      {func(p *Policy) { p.Commands = map[string]Rule{"c": {Approvals: 11}} }, "11 approvals"},
		"negative approvals":      {func(p *Policy) { p.Commands = map[string]Rule{"c": {Approvals: -1}} }, "-1 approvals"},
		"too long a life":         {func(p *Policy) { p.Commands = map[string]Rule{"c": {Lifetime: 25 * time.Hour}} }, "policy.commands.c has a lifetime of 25h0m0s; it can be 1m to 24h"},
		"a negative life":         {func(p *Policy) { p.Commands = map[string]Rule{"c": {Lifetime: -time.Minute}} }, "a lifetime of -1m0s"},
		"negative reads":          {func(p *Policy) { p.ReadsAMinute = -3 }, "policy.reads_a_minute is -3"},
		"glass for nobody":        {func(p *Policy) { p.Groups["On-call engineers"] = Group{} }, "policy.classes.contain: nobody may use break-glass"},
		"nobody approves":         {func(p *Policy) { p.Classes[ClassDestroy] = Rule{Request: []string{"Help desk"}} }, "nobody may approve"},
		"an empty group approves": {func(p *Policy) { p.Groups["Identity approvers"] = Group{} }, "nobody may approve"},
		"nobody asks or approves": {func(p *Policy) { p.Classes[ClassDestroy] = Rule{} }, ""},
		"glass around a deletion": {func(p *Policy) { p.Commands = map[string]Rule{"c": {BreakGlass: []string{"On-call engineers"}}} }, "remove break_glass"},
		"more approvals than approvers": {func(p *Policy) {
			p.Groups["Identity approvers"] = Group{People: []string{olga.ID, ravi.ID, strings.ToUpper(ravi.ID)}}
			p.Commands = map[string]Rule{"c": {Approvals: 3}}
		}, "policy.commands.c: c needs 3 approvals, and only 2 people may give one"},
		"as many as there are": {func(p *Policy) {
			p.Groups["Identity approvers"] = Group{People: []string{olga.ID, ravi.ID}}
			p.Commands = map[string]Rule{"c": {Approvals: 2}}
		}, ""},
		"perhaps enough in Entra": {func(p *Policy) { p.Commands = map[string]Rule{"c": {Approvals: 9}} }, ""},
		"nobody decides for self": {func(p *Policy) {
			yes := true
			p.Commands = map[string]Rule{"c": {Request: []string{}, RequestForSelf: &yes}}
		}, "people may ask for c for their own account, but nobody may decide that"},
		"approve_self for nothing": {func(p *Policy) { p.Classes[ClassDestroy] = Rule{ApproveSelf: []string{"Help desk"}} }, "policy.classes.destroy has approve_self, but nobody may request for their own account"},
		"approve_self for a command": {func(p *Policy) {
			yes := true
			r := p.Classes[ClassDestroy]
			r.ApproveSelf = []string{"Help desk"}
			p.Classes[ClassDestroy], p.Commands = r, map[string]Rule{"c": {RequestForSelf: &yes}}
		}, ""},
		"approvals of a look": {func(p *Policy) { p.Classes[ClassRead] = Rule{Request: []string{"Help desk"}, Approvals: 2} }, "policy.classes.read is a rule for read commands"},
		"a look at oneself": {func(p *Policy) {
			yes := true
			p.Classes[ClassRead] = Rule{RequestForSelf: &yes}
		}, ""},
		"a ticket for one look": {func(p *Policy) { p.Commands = map[string]Rule{"look": {Require: []string{NeedTicket}}} }, "policy.commands.look is a rule for read commands"},
	} {
		p := testPolicy()
		tt.spoil(&p)
		err := p.Check(commands)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// Each setting of a command stands over that of its class, and one that it does
// not have leaves the class' alone.
func TestACommandsSettingsStandOverItsClass(t *testing.T) {
	yes, no := true, false
	class := Rule{Request: []string{"a"}, Approve: []string{"a"}, BreakGlass: []string{"a"}, RequestForSelf: &yes, ApproveSelf: []string{"a"}, Approvals: 2, Lifetime: time.Hour, Require: []string{NeedTicket}, Verified: []string{"video"}}
	own := Rule{Request: []string{"b"}, Approve: []string{"b"}, BreakGlass: []string{"b"}, RequestForSelf: &no, ApproveSelf: []string{"b"}, Approvals: 3, Lifetime: time.Minute, Require: []string{NeedVerified}, Verified: []string{"manager"}}
	for i := range reflect.TypeFor[Rule]().NumField() {
		var only Rule
		reflect.ValueOf(&only).Elem().Field(i).Set(reflect.ValueOf(own).Field(i))
		want := class
		reflect.ValueOf(&want).Elem().Field(i).Set(reflect.ValueOf(own).Field(i))
		name := reflect.TypeFor[Rule]().Field(i).Name
		if reflect.ValueOf(only).Field(i).IsZero() || reflect.DeepEqual(want, class) {
			t.Fatalf("%s is the same in both: this tests nothing", name)
		}
		p := Policy{Classes: map[Class]Rule{ClassContain: class}, Commands: map[string]Rule{"c": only}}
		if got := p.rule("c", ClassContain); !reflect.DeepEqual(got, want) {
			t.Errorf("with a %s of its own: %+v, want %+v", name, got, want)
		}
		if got := p.rule("d", ClassContain); !reflect.DeepEqual(got, class) {
			t.Errorf("another command has %+v", got)
		}
	}
}

func TestWhoMayUseBreakGlass(t *testing.T) {
	for name, tt := range map[string]struct {
		class  Class
		change func(*Rule)
		who    Account
		want   string
	}{
		"on call":          {class: ClassContain, who: accountWith(olga)},
		"not on call":      {class: ClassContain, who: accountWith(ravi, approvers), want: "It is for: On-call engineers."},
		"nobody may":       {class: ClassContain, who: accountWith(olga), change: func(r *Rule) { r.BreakGlass = nil }, want: "names nobody for it"},
		"not containment":  {class: ClassDestroy, who: accountWith(olga), want: "Only containment"},
		"a disabled one":   {class: ClassContain, who: Account{Person: olga}, want: "blocked from signing in"},
		"whoever is known": {class: ClassContain, who: accountWith(Person{Slack: olga.Slack}), want: "does not know which Entra account"},
	} {
		p := testPolicy()
		r := p.Classes[tt.class]
		r.BreakGlass = []string{"On-call engineers"}
		if tt.change != nil {
			tt.change(&r)
		}
		p.Classes[tt.class] = r
		no := p.MayBreakGlass("c", tt.class, tt.who)
		if tt.want == "" && no != nil || tt.want != "" && (no == nil || !strings.Contains(no.Sentence, tt.want)) {
			t.Errorf("%s: %v, want %q", name, no, tt.want)
		}
	}
}

// permanent is a look-up error that will not go away.
type permanent struct{}

func (permanent) Error() string   { return "the application has no permission User.Read.All" }
func (permanent) Permanent() bool { return true }

// flaky fails n times before it answers.
type flaky struct {
	fails int
	err   error
	asked []time.Duration
	start time.Time
}

func (f *flaky) Person(context.Context, string) (Person, error) { return Person{}, f.err }

func (f *flaky) Account(context.Context, string, bool) (Account, error) {
	f.asked = append(f.asked, time.Since(f.start))
	if len(f.asked) <= f.fails {
		return Account{}, f.err
	}
	return accountWith(hanna), nil
}

func TestLookUpsAreRetriedForAWhile(t *testing.T) {
	trouble := errors.New("no route to Graph")
	for _, tt := range []struct {
		name  string
		fails int
		err   error
		want  error
		asked int
		took  time.Duration
	}{
		{"at once", 0, nil, nil, 1, 0},
		{"after three failures", 3, trouble, nil, 4, 1400 * time.Millisecond},
		{"in vain", 1000, trouble, trouble, 0, 30 * time.Second},
		{"no such person", 1000, fmt.Errorf("looking: %w", ErrNoPerson), ErrNoPerson, 1, 0},
		{"no permission", 1000, permanent{}, permanent{}, 1, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			dir := &flaky{fails: tt.fails, err: tt.err, start: time.Now()}
			_, err := lookUpAccount(t.Context(), dir, hanna.ID, false, 30*time.Second)
			if !errors.Is(err, tt.want) || time.Since(dir.start) != tt.took {
				t.Errorf("%s: %v after %v, want %v after %v", tt.name, err, time.Since(dir.start), tt.want, tt.took)
			}
			if tt.asked > 0 && len(dir.asked) != tt.asked || tt.asked == 0 && len(dir.asked) < 6 {
				t.Errorf("%s: asked at %v", tt.name, dir.asked)
			}
			if pauses := slices.Compact(slices.Clone(dir.asked)); len(pauses) != len(dir.asked) {
				t.Errorf("%s: asked without a pause: %v", tt.name, dir.asked)
			}
		})
	}
}

// What is wrong with a class is said once, and each thing on a line.
func TestPolicyCheckSaysEachThingOnce(t *testing.T) {
	p := testPolicy()
	r := p.Classes[ClassDestroy]
	r.BreakGlass = []string{"On-call engineers"}
	p.Classes[ClassDestroy], p.ReadsAMinute = r, -1
	err := p.Check(map[string]Class{"a": ClassDestroy, "b": ClassDestroy, "c": ClassDestroy})
	const want = "policy.classes.destroy: only containment may use break-glass: remove break_glass there\n" +
		"policy.reads_a_minute is -1; it is at least 1, or left out for no limit"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want\n%s", err, want)
	}
}

func TestTimingCheck(t *testing.T) {
	if err := DefaultTiming().Check(); err != nil {
		t.Errorf("the default: %v", err)
	}
	for name, spoil := range map[string]func(*Timing){
		"timing.sweep must be more than zero": func(t *Timing) { t.Sweep = 0 },
		"timing.graph_grace":                  func(t *Timing) { t.GraphGrace = -time.Second },
		"run_within must be at most 24h":      func(t *Timing) { t.RunWithin = 1000 * time.Hour },
		"graph_call":                          func(t *Timing) { t.Lease = t.LookUps + t.GraphCall + t.GraphGrace },
		"run_for":                             func(t *Timing) { t.RunFor = time.Hour },
		"longer than look_ups":                func(t *Timing) { t.Takeover = t.LookUps },
		"at most 2s":                          func(t *Timing) { t.InboxWrite = 3 * time.Second },
		"three times follow":                  func(t *Timing) { t.Lead = t.Follow },
	} {
		timing := DefaultTiming()
		spoil(&timing)
		if err := timing.Check(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want something about %q", err, name)
		}
	}
}
