package approvals

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"countersign/audit"
)

// Desk is where people's wishes become requests and decisions: it looks
// people up, asks the policy and writes what follows, refusals included.
// Every method takes the operation id of what the person did, and gives the
// same answer when it is called again with it.
type Desk struct {
	Store     *Store
	Policy    Policy
	Directory Directory
	Slack     UserGroups // of the policy's Slack user groups; may be nil where it names none
	Accounts  Accounts   // may be nil: then nobody's Slack account is looked at again before a request runs
	Log       *slog.Logger
}

// Accounts tells whether a Slack account still speaks for a full member of the
// workspace: nil where it does, a *Refusal where it does not (any more), any
// other error where Slack did not tell, although it was asked for a while.
type Accounts interface {
	Active(ctx context.Context, slackID string) error
}

// Look checks that a person may use a read command now, and records it. The
// target is zero for commands without one.
func (d *Desk) Look(ctx context.Context, op, command, title string, who, target Person) error {
	if answered, err := d.answered(ctx, op); answered {
		return err
	}
	about := audit.Event{Kind: audit.Read, Command: command, Title: title, Class: string(ClassRead), Actor: who, Target: target}
	if no := d.mayRequest(ctx, command, ClassRead, who, who.ID == target.ID); no != nil {
		return d.refused(ctx, op, Request{}, about, no)
	}
	if d.Policy.ReadsAMinute > 0 {
		ok, err := d.Store.Allow(ctx, "read", who.ID, d.Policy.ReadsAMinute, time.Minute)
		if err != nil {
			return err
		}
		if !ok {
			return d.refused(ctx, op, Request{}, about, refuse(CodeTooMany, "That is more than %d look-ups a minute. Wait a little and try again.", d.Policy.ReadsAMinute))
		}
	}
	said, err := d.Store.note(ctx, op, "ok", Request{}, about)
	if err != nil {
		return err
	}
	return d.Store.again(op, said)
}

// answered says that an operation which made no request was answered before,
// or that it cannot be told, and gives that answer.
func (d *Desk) answered(ctx context.Context, op string) (bool, error) {
	answer, ok, err := d.Store.answered(ctx, op)
	switch {
	case err != nil:
		return true, fmt.Errorf("approvals: looking for the answer to %s: %w", op, err)
	case ok:
		return true, d.Store.again(op, answer)
	}
	return false, nil
}

// MayRequest says whether a person may use a command, without recording
// anything: for help, completion and forms. selfOnly says that it is for their
// own account only.
func (d *Desk) MayRequest(ctx context.Context, command string, class Class, who Person) (selfOnly bool, err error) {
	rule := d.Policy.rule(command, class)
	standing, no := d.standing(ctx, who, false, rule.requesters())
	if no != nil {
		return false, no
	}
	if no = d.Policy.MayRequest(command, class, standing, false); no == nil {
		return false, nil
	}
	if d.Policy.MayRequest(command, class, standing, true) == nil {
		return true, nil
	}
	return false, no
}

// Rights looks a person up with every group that the policy names: for help
// and for cards, never for a decision.
func (d *Desk) Rights(ctx context.Context, who Person) (Standing, error) {
	standing, no := d.standing(ctx, who, false, slices.Collect(maps.Keys(d.Policy.Groups)))
	if no != nil {
		return standing, no
	}
	return standing, nil
}

// Explain looks two people up and says what the policy would ask of whom; see
// Policy.Explain. It records nothing.
func (d *Desk) Explain(ctx context.Context, command string, class Class, as, target Person) ([]string, error) {
	by, err := d.Rights(ctx, as)
	if err != nil {
		return nil, err
	}
	to, no := d.standing(ctx, target, true, slices.Collect(maps.Keys(d.Policy.Groups)))
	if no != nil {
		return nil, no
	}
	lines, no := d.Policy.Explain(command, class, by, to)
	if no != nil {
		return lines, no
	}
	return lines, nil
}

func (d *Desk) mayRequest(ctx context.Context, command string, class Class, who Person, self bool) *Refusal {
	standing, no := d.standing(ctx, who, false, d.Policy.rule(command, class).requesters())
	if no != nil {
		return no
	}
	return d.Policy.MayRequest(command, class, standing, self)
}

// standing looks somebody up for a rule about the groups named, and turns every
// failure into a refusal: what cannot be checked is refused.
func (d *Desk) standing(ctx context.Context, who Person, withProtection bool, groups []string) (Standing, *Refusal) {
	if who.ID == "" {
		return Standing{}, refuse(CodeNobody, "Countersign does not know which Entra account you are.")
	}
	standing, err := stand(ctx, d.Directory, who.ID, withProtection, d.Store.timing.LookUps)
	switch {
	case err == nil && standing.ID != who.ID:
		// Rules compare object ids as text, so one account under two spellings
		// would be two people.
		d.Log.Error("a look-up answered about another account, so the answer is no", "asked", who.ID, "got", standing.ID)
		return Standing{}, refuse(CodeUnchecked, "Microsoft Entra answered about another account than %s, so this could not be checked and is refused. "+
			"An administrator compares the object id in people.table with the one in the Entra admin center.", who)
	case errors.Is(err, ErrNoPerson):
		return standing, refuse(CodeNobody, "The Entra account of %s is not in the tenant any more.", who)
	case err != nil:
		d.Log.Error("a look-up failed, so the answer is no", "about", who.ID, "error", err)
		return standing, refuse(CodeUnchecked, "Microsoft Entra did not tell what is needed to check this, and what cannot be checked is refused: %s", unchecked(err))
	}
	standing.Slack = who.Slack
	ids := d.Policy.slackGroups(groups)
	if len(ids) == 0 {
		return standing, nil
	}
	err = errNoUserGroups
	if d.Slack != nil {
		err = Patiently(ctx, d.Store.timing.LookUps, func(ctx context.Context) (err error) {
			standing.SlackGroups, err = d.Slack.In(ctx, standing.Person, ids)
			return err
		})
	}
	if err != nil {
		d.Log.Error("a look-up of Slack user groups failed, so the answer is no", "about", who.ID, "error", err)
		return standing, refuse(CodeUnchecked, "Slack did not tell which user groups %s is in, and what cannot be checked is refused: %s", who, unchecked(err))
	}
	return standing, nil
}

var errNoUserGroups = errors.New("approvals: the policy names Slack user groups, and nothing here can look them up")

// unchecked is an error of a look-up in words fit for the person who asked.
func unchecked(err error) string {
	var human interface{ Sentence() string }
	if errors.As(err, &human) {
		return human.Sentence()
	}
	return "the look-up failed. Try again in a minute."
}

// Terms says what a command would take for this requester and target, or
// refuses. It records nothing.
func (d *Desk) Terms(ctx context.Context, command string, class Class, requester, target Person) (Terms, Standing, error) {
	rule := d.Policy.rule(command, class)
	by, no := d.standing(ctx, requester, false, rule.requesters())
	if no != nil {
		return Terms{}, Standing{}, no
	}
	if no := d.Policy.MayRequest(command, class, by, requester.ID == target.ID); no != nil {
		return Terms{}, Standing{}, no
	}
	if no := d.recent(ctx, by.Person); no != nil {
		return Terms{}, Standing{}, no
	}
	to, no := d.standing(ctx, target, true, rule.Approve)
	if no != nil {
		return Terms{}, to, no
	}
	terms, no := d.Policy.TermsFor(command, class, by, to)
	if no != nil {
		return Terms{}, to, no
	}
	return terms, to, nil
}

// recent refuses people whose own methods were changed in the last 48 hours:
// if that change was an attacker's, this press would be too.
func (d *Desk) recent(ctx context.Context, who Person) *Refusal { return d.recentBut(ctx, who, "") }

// recentBut is recent for somebody whom one request may have made a target,
// because they asked for their own account.
func (d *Desk) recentBut(ctx context.Context, who Person, request string) *Refusal {
	recent, err := d.Store.RecentTarget(ctx, who.ID, request)
	if err != nil {
		d.Log.Error("reading recent targets failed, so the answer is no", "error", err)
		return refuse(CodeUnchecked, "Countersign could not check whether your own account was changed lately, and what cannot be checked is refused. Try again in a minute.")
	}
	if recent {
		return refuse(CodeRecentTarget, "Your own sign-in methods were changed in the last 48 hours, so for now you neither request nor decide. Ask a colleague.")
	}
	return nil
}

// Ask puts a plan before the approvers. The terms are worked out here unless
// the caller asked Terms for them a moment ago. A *Refusal has been recorded
// when it is returned.
func (d *Desk) Ask(ctx context.Context, op string, a Ask) (Request, error) {
	if answered, err := d.answered(ctx, op); answered {
		return Request{}, err
	}
	r, asked, err := d.Asked(ctx, op)
	if asked {
		return r, nil
	}
	if err != nil {
		return Request{}, d.Refused(ctx, op, a.Plan, a.Requester, err)
	}
	if no := d.Policy.complete(a); no != nil {
		err = no
	} else if a.Terms.Approvals == 0 {
		a.Terms, _, err = d.Terms(ctx, a.Plan.Command, a.Plan.Class, a.Requester, a.Plan.Target)
	}
	if err == nil {
		var snap Snapshot
		if snap, err = d.Store.create(ctx, op, a, d.asking(a)); err == nil {
			return snap.Request, nil
		}
	}
	return Request{}, d.Refused(ctx, op, a.Plan, a.Requester, err)
}

// Asked is the request that this operation has made, where it was delivered
// before.
func (d *Desk) Asked(ctx context.Context, op string) (Request, bool, error) {
	snap, err := d.Store.Load(ctx, RequestID(op))
	if errors.Is(err, ErrNoRequest) {
		return Request{}, false, nil
	}
	if err != nil {
		return Request{}, false, err
	}
	if _, ours := snap.ops[op]; !ours {
		return Request{}, false, Refuse(CodeTaken, "By chance, another request has the id that yours would get. Nothing was requested. Ask once more, and yours gets another one.")
	}
	return snap.Request, true, nil
}

// Refused records that a person was told no, where err is a *Refusal, and
// gives err back either way.
func (d *Desk) Refused(ctx context.Context, op string, p Plan, who Person, err error) error {
	no := (*Refusal)(nil)
	if !errors.As(err, &no) {
		return err
	}
	about := audit.Event{Command: p.Command, Title: p.Title, Class: string(p.Class), Actor: who, Target: p.Target}
	return d.refused(ctx, op, Request{}, about, no)
}

// RefusedPress is Refused for what somebody tried to do to a request and who
// never got as far as the rules of Approve, Deny and the others: a guest, an
// outsider, or somebody in the wrong channel. verb is what they tried.
func (d *Desk) RefusedPress(ctx context.Context, op, id, verb string, who Person, err error) error {
	no := (*Refusal)(nil)
	if !errors.As(err, &no) {
		return err
	}
	snap, gone := d.Store.Load(ctx, id)
	if errors.Is(gone, ErrNoRequest) {
		return d.refused(ctx, op, Request{}, audit.Event{Actor: who, Title: "a request that is not there", Outcome: verb}, no)
	}
	if gone != nil {
		return gone
	}
	about := snap.event(audit.Refused, who)
	about.Version, about.Outcome = snap.Version, verb
	return d.refused(ctx, op, snap.Request, about, no)
}

// Alarm records something that only the security people can judge. It goes
// beside the answer to the operation, and is recorded once.
func (d *Desk) Alarm(ctx context.Context, op string, who Person, reason string) error {
	_, err := d.Store.note(ctx, op+"#alarm", "ok", Request{}, audit.Event{Kind: audit.Alarm, Actor: who, Reason: reason})
	return err
}

// refused records a refusal and gives back what the person is told: this one,
// or what the operation was answered when it came before.
func (d *Desk) refused(ctx context.Context, op string, r Request, about audit.Event, no *Refusal) error {
	about.Kind, about.Reason, about.Code = audit.Refused, no.Sentence, string(no.Code)
	said, err := d.Store.note(ctx, op, d.Store.refusedAnswer(op, no), r, about)
	if err != nil {
		return err // a refusal that could not be recorded is asked for again
	}
	return d.Store.again(op, said)
}

// missing refuses what somebody tried to do to a request that is not there.
func (d *Desk) missing(ctx context.Context, op, id string, by Person, title, verb string) error {
	if answered, err := d.answered(ctx, op); answered {
		return err
	}
	return d.refused(ctx, op, Request{}, audit.Event{Actor: by, Title: title, Outcome: verb},
		refuse(CodeNoRequest, "Countersign does not know %s any more: it is older than 90 days, or Redis lost it. The audit channel has its record. Ask again if it is still needed.", id))
}

// Approve is one person's yes.
func (d *Desk) Approve(ctx context.Context, op, id string, by Person) (Request, error) {
	return d.decide(ctx, op, id, by, Approve{By: by})
}

// Deny is one person's no, which is final.
func (d *Desk) Deny(ctx context.Context, op, id string, by Person, reason string) (Request, error) {
	return d.decide(ctx, op, id, by, Deny{By: by, Reason: reason})
}

// Cancel is the requester taking a request back.
func (d *Desk) Cancel(ctx context.Context, op, id string, by Person) (Request, error) {
	return d.decide(ctx, op, id, by, Cancel{By: by})
}

// BreakGlass runs a containment now, before enough people have approved it.
// Everybody who could have approved is told, and somebody else reviews it.
func (d *Desk) BreakGlass(ctx context.Context, op, id string, by Person, why string) (Request, error) {
	return d.decide(ctx, op, id, by, BreakGlass{By: by, Why: why})
}

// Judge is another person's review of what ran with broken glass: Justified or
// NotJustified, the latter with a remark.
func (d *Desk) Judge(ctx context.Context, op, id string, by Person, verdict, remark string) (Request, error) {
	return d.decide(ctx, op, id, by, Judge{By: by, Verdict: verdict, Remark: remark})
}

// asking are the limits that a new request counts for.
func (d *Desk) asking(a Ask) []tally {
	l := d.Policy.Limits
	var all []tally
	if l.Requester.Count > 0 {
		all = append(all, tally{"requester:" + a.Requester.ID, l.Requester, refuse(CodeTooMany,
			"That is more than %s by you. Ask a colleague, or wait until some of them are longer ago.", l.Requester.says("request"))})
	}
	if l.Target.Count > 0 && a.Plan.Class != ClassContain {
		all = append(all, tally{"target:" + a.Plan.Target.ID, l.Target, refuse(CodeTooMany,
			"That is more than %s for %s. So many are unusual: speak to the person, and to your security people. Containment is still possible.", l.Target.says("request"), a.Plan.Target)})
	}
	return all
}

// deciding are the limits that a decision counts for.
func (d *Desk) deciding(r Request, a Action) []tally {
	l := d.Policy.Limits
	switch a := a.(type) {
	case Approve:
		if l.Pair.Count > 0 {
			pair := []string{r.Requester.ID, a.By.ID}
			slices.Sort(pair)
			return []tally{{"pair:" + strings.Join(pair, "+"), l.Pair, refuse(CodeTooMany,
				"That is more than %s between you and %s. Another approver has to decide this one.", l.Pair.says("approval"), r.Requester)}}
		}
	case BreakGlass:
		glass := l.glass()
		return []tally{{"glass:" + a.By.ID, glass, refuse(CodeTooMany,
			"That is more than %s with broken glass by you. Get somebody to approve it, or ask another on-call engineer.", glass.says("request"))}}
	}
	return nil
}

// says is the limit in words, such as 10 requests within 1h.
func (l Limit) says(what string) string { return l.count(what) + " within " + inWords(l.Within) }

func (l Limit) count(what string) string {
	if l.Count != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", l.Count, what)
}

// inWords is a duration without the parts that are zero.
func inWords(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// verb is what somebody tried to do to a request, for the record of a refusal.
func verb(a Action) string {
	switch a.(type) {
	case Approve:
		return "approve"
	case Deny:
		return "deny"
	case Cancel:
		return "cancel"
	case Stop:
		return "halt"
	case Attest:
		return "report it as done"
	case Confirm:
		return "confirm"
	case Retract:
		return "take back"
	case BreakGlass:
		return "break the glass"
	case Judge:
		return "review"
	}
	return ""
}

func (d *Desk) decide(ctx context.Context, op, id string, by Person, a Action) (Request, error) {
	snap, err := d.Store.Load(ctx, id)
	if errors.Is(err, ErrNoRequest) {
		return Request{}, d.missing(ctx, op, id, by, "a decision on "+id, verb(a))
	}
	if err != nil {
		return Request{}, err
	}
	if answer, ok := snap.ops[op]; ok {
		return snap.Request, d.Store.again(op, answer)
	}
	// A deadline that has passed is a fact, whether or not the sweep got there.
	if (snap.State == Pending || snap.State == Approved) && snap.overdue(snap.Now) {
		if err := d.Store.expire(ctx, snap); err != nil {
			return snap.Request, err
		}
		if snap, err = d.Store.Load(ctx, id); err != nil {
			return snap.Request, err
		}
	}
	no := d.voice(ctx, snap.Request, by, a)
	if no == nil {
		snap, err = d.Store.decide(ctx, op, id, a, d.deciding(snap.Request, a))
		if !errors.As(err, &no) {
			return snap.Request, err
		}
	}
	about := snap.event(audit.Refused, by)
	about.Outcome = verb(a)
	if err := d.refused(ctx, op, snap.Request, about, no); err != nil {
		return snap.Request, err
	}
	// Another delivery of the same press was quicker, and its answer is yes.
	snap, err = d.Store.Load(ctx, id)
	return snap.Request, err
}

// voice asks everything about a person that Apply cannot know.
func (d *Desk) voice(ctx context.Context, r Request, by Person, a Action) *Refusal {
	rule, self := d.Policy.rule(r.Plan.Command, r.Plan.Class), r.forSelf()
	who, no := d.standing(ctx, by, false, slices.Concat(rule.requesters(), rule.deciders(self)))
	if no != nil {
		return no
	}
	if no := fit(who); no != nil {
		return no
	}
	if _, cancelling := a.(Cancel); cancelling {
		return nil // taking one's own request back needs no policy
	}
	if _, stopping := a.(Stop); stopping && by.ID == r.Requester.ID {
		return nil
	}
	switch a.(type) {
	case Attest, Confirm, Retract: // whoever may ask for it or decide it may do it
		if d.Policy.MayRequest(r.Plan.Command, r.Plan.Class, who, false) == nil {
			return d.recent(ctx, by)
		}
	case BreakGlass:
		if no := d.Policy.MayBreakGlass(r.Plan.Command, r.Plan.Class, who); no != nil {
			return no
		}
		return d.recent(ctx, by)
	}
	if r.State == Pending && (by.ID == r.Requester.ID || by.ID == r.Plan.Target.ID) {
		return nil // Apply has the better sentence
	}
	may := d.Policy.MayDecide
	if _, reviewing := a.(Judge); reviewing {
		may = d.Policy.MayReview
	}
	if no := may(r.Plan.Command, r.Plan.Class, who, self); no != nil {
		return no
	}
	return d.recent(ctx, by)
}

// Stop halts a running request before its next step. Whoever may decide such
// a request, and its requester, may stop it.
func (d *Desk) Stop(ctx context.Context, op, id string, by Person, why string) (Request, error) {
	return d.decide(ctx, op, id, by, Stop{By: by, Why: why})
}

// Attest is somebody's word that they did by hand what was handed off.
func (d *Desk) Attest(ctx context.Context, op, id string, by Person) (Request, error) {
	return d.decide(ctx, op, id, by, Attest{By: by})
}

// Confirm is a second person's word that it is so.
func (d *Desk) Confirm(ctx context.Context, op, id string, by Person) (Request, error) {
	return d.decide(ctx, op, id, by, Confirm{By: by})
}

// Retract is somebody's word that it is not so: it has to be done again.
func (d *Desk) Retract(ctx context.Context, op, id string, by Person) (Request, error) {
	return d.decide(ctx, op, id, by, Retract{By: by})
}

// recheck asks again, at the moment of execution, everything that was asked
// when the request was made and decided. A refusal here is why it fails.
func (d *Desk) recheck(ctx context.Context, r Request) *Refusal {
	ctx, cancel := context.WithTimeout(ctx, d.Store.timing.LookUps) // for all of them together: the lease is running
	defer cancel()
	terms, target, err := d.recheckTerms(ctx, r)
	if err != nil {
		return err
	}
	if no := d.active(ctx, r.Requester, "requested it"); no != nil {
		return no
	}
	if r.Glass == nil && terms.Approvals > len(r.Approvals) {
		return refuse(CodeNotAllowed, "%s now needs %d approvals and has %d: what was true of %s when it was requested has changed.", r.ID, terms.Approvals, len(r.Approvals), target.Person)
	}
	if no := d.recentBut(ctx, r.Requester, r.ID); no != nil && no.Code == CodeRecentTarget {
		return refuse(no.Code, "%s, who requested it, was the target of such a request in the last 48 hours.", r.Requester)
	} else if no != nil {
		return no
	}
	if r.Glass != nil {
		return d.recheckGlass(ctx, r, terms)
	}
	seen := map[string]bool{r.Requester.ID: true, r.Plan.Target.ID: true}
	for _, approver := range r.Approvers() {
		if seen[approver.ID] {
			return refuse(CodeTwice, "%s has more than one part in %s, so the approval does not count.", approver, r.ID)
		}
		seen[approver.ID] = true
		if no := d.active(ctx, approver, "approved it"); no != nil {
			return no
		}
		who, no := d.standing(ctx, approver, false, d.Policy.rule(r.Plan.Command, r.Plan.Class).deciders(r.forSelf()))
		if no != nil {
			return no
		}
		if no := d.Policy.MayDecide(r.Plan.Command, r.Plan.Class, who, r.forSelf()); no != nil {
			return refuse(no.Code, "%s, who approved it, may not decide such requests any more.", approver)
		}
		if no := d.recent(ctx, approver); no != nil && no.Code == CodeRecentTarget {
			return refuse(no.Code, "%s, who approved it, was the target of such a request in the last 48 hours.", approver)
		} else if no != nil {
			return no
		}
	}
	return nil
}

// active refuses a person whose Slack account, through which they spoke, has
// been deactivated or made a guest's since. Slack often hears of somebody's
// leaving before Entra does, or instead of it.
func (d *Desk) active(ctx context.Context, who Person, what string) *Refusal {
	if d.Accounts == nil || who.Slack == "" {
		return nil
	}
	err := d.Accounts.Active(ctx, who.Slack)
	no := (*Refusal)(nil)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &no) && no.Code != CodeUnchecked:
		return refuse(no.Code, "%s, who %s, is not a full member of the Slack workspace any more.", who, what)
	}
	d.Log.Error("a Slack account could not be looked at, so the answer is no", "slack", who.Slack, "error", err)
	return refuse(CodeUnchecked, "Slack did not tell whether %s, who %s, is still a full member of the workspace, and what cannot be checked is refused.", who, what)
}

func (d *Desk) recheckTerms(ctx context.Context, r Request) (Terms, Standing, *Refusal) {
	rule := d.Policy.rule(r.Plan.Command, r.Plan.Class)
	by, no := d.standing(ctx, r.Requester, false, rule.requesters())
	if no != nil {
		return Terms{}, Standing{}, no
	}
	if no := d.Policy.MayRequest(r.Plan.Command, r.Plan.Class, by, r.forSelf()); no != nil {
		return Terms{}, Standing{}, refuse(no.Code, "%s, who requested it, may not request such things any more.", r.Requester)
	}
	target, no := d.standing(ctx, r.Plan.Target, true, rule.Approve)
	if no != nil {
		return Terms{}, target, no
	}
	terms, no := d.Policy.TermsFor(r.Plan.Command, r.Plan.Class, by, target)
	return terms, target, no
}

// recheckGlass asks again whether whoever broke the glass may do so, and
// whether it may be broken for this target.
func (d *Desk) recheckGlass(ctx context.Context, r Request, now Terms) *Refusal {
	if !now.Glass {
		return refuse(CodeNotAllowed, "%s cannot run before it is approved any more: the target is protected now, or the policy has changed.", r.ID)
	}
	who, no := d.standing(ctx, r.Glass.By, false, d.Policy.rule(r.Plan.Command, r.Plan.Class).BreakGlass)
	if no != nil {
		return no
	}
	if no := d.Policy.MayBreakGlass(r.Plan.Command, r.Plan.Class, who); no != nil {
		return refuse(no.Code, "%s, who broke the glass, may not do so any more.", r.Glass.By)
	}
	if no := d.active(ctx, r.Glass.By, "broke the glass"); no != nil {
		return no
	}
	if no := d.recent(ctx, r.Glass.By); no != nil && no.Code == CodeRecentTarget {
		return refuse(no.Code, "%s, who broke the glass, was the target of such a request in the last 48 hours.", r.Glass.By)
	} else if no != nil {
		return no
	}
	return nil
}
