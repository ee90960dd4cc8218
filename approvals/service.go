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

// Service turns interactions into requests and decisions: it looks people up,
// applies the policy and writes the result, refusals included. Every method
// takes an operation id. Called again with the same id it gives the same answer.
type Service struct {
	Store         *Store
	Policy        Policy
	Directory     Directory
	UserGroups    UserGroups    // of the policy's Slack user groups; may be nil where it names none
	SlackAccounts SlackAccounts // may be nil: then nobody's Slack account is looked at again before a request runs
	Log           *slog.Logger
}

// SlackAccounts tells whether a Slack account still belongs to a full member of
// the workspace. Active returns nil if it does and a *Refusal if it does not.
// Any other error means that Slack could not be asked in time.
type SlackAccounts interface {
	Active(ctx context.Context, slackID string) error
}

// AuthorizeRead checks that a person is allowed to use a read command now, and
// records it. The target is zero for commands without one.
func (d *Service) AuthorizeRead(ctx context.Context, op, command, title string, who, target Person) error {
	if answered, err := d.priorAnswer(ctx, op); answered {
		return err
	}
	about := audit.Event{Kind: audit.Read, Command: command, Title: title, Class: string(ClassRead), Actor: who, Target: target}
	if no := d.mayRequest(ctx, command, ClassRead, who, who.ID == target.ID); no != nil {
		return d.recordRefusal(ctx, op, Request{}, about, no)
	}
	if d.Policy.ReadsAMinute > 0 {
		ok, err := d.Store.Allow(ctx, "read", who.ID, d.Policy.ReadsAMinute, time.Minute)
		if err != nil {
			return err
		}
		if !ok {
			return d.recordRefusal(ctx, op, Request{}, about, refuse(CodeTooMany, "You've reached the limit of %d look-ups a minute. Wait a moment and try again.", d.Policy.ReadsAMinute))
		}
	}
	said, err := d.Store.note(ctx, op, "ok", Request{}, about)
	if err != nil {
		return err
	}
	return d.Store.replayAnswer(op, said)
}

// priorAnswer returns the answer that an operation without a request was given
// before. It reports true if there is one, or if that could not be read.
func (d *Service) priorAnswer(ctx context.Context, op string) (bool, error) {
	answer, ok, err := d.Store.answered(ctx, op)
	switch {
	case err != nil:
		return true, fmt.Errorf("approvals: looking for the answer to %s: %w", op, err)
	case ok:
		return true, d.Store.replayAnswer(op, answer)
	}
	return false, nil
}

// MayRequest says whether a person may use a command, without recording
// anything: for help, completion and forms. selfOnly says that it is for their
// own account only.
func (d *Service) MayRequest(ctx context.Context, command string, class Class, who Person) (selfOnly bool, err error) {
	rule := d.Policy.rule(command, class)
	account, no := d.account(ctx, who, false, rule.requesters())
	if no != nil {
		return false, no
	}
	if no = d.Policy.MayRequest(command, class, account, false); no == nil {
		return false, nil
	}
	if d.Policy.MayRequest(command, class, account, true) == nil {
		return true, nil
	}
	return false, no
}

// Rights looks a person up with every group of the policy. It serves help and
// cards, never a decision.
func (d *Service) Rights(ctx context.Context, who Person) (Account, error) {
	account, no := d.account(ctx, who, false, slices.Collect(maps.Keys(d.Policy.Groups)))
	if no != nil {
		return account, no
	}
	return account, nil
}

// Explain looks two people up and says what the policy requires and of whom; see
// [Policy.Explain]. It records nothing.
func (d *Service) Explain(ctx context.Context, command string, class Class, as, target Person) ([]string, error) {
	by, err := d.Rights(ctx, as)
	if err != nil {
		return nil, err
	}
	to, no := d.account(ctx, target, true, slices.Collect(maps.Keys(d.Policy.Groups)))
	if no != nil {
		return nil, no
	}
	lines, no := d.Policy.Explain(command, class, by, to)
	if no != nil {
		return lines, no
	}
	return lines, nil
}

func (d *Service) mayRequest(ctx context.Context, command string, class Class, who Person, self bool) *Refusal {
	account, no := d.account(ctx, who, false, d.Policy.rule(command, class).requesters())
	if no != nil {
		return no
	}
	return d.Policy.MayRequest(command, class, account, self)
}

// account looks a person up for a rule about the given groups. Every failure
// becomes a refusal, because what cannot be checked is refused.
func (d *Service) account(ctx context.Context, who Person, withProtection bool, groups []string) (Account, *Refusal) {
	if who.ID == "" {
		return Account{}, refuse(CodeUnknownPerson, "Countersign does not know which Entra account you are.")
	}
	account, err := lookUpAccount(ctx, d.Directory, who.ID, withProtection, d.Store.timing.LookUps)
	switch {
	case err == nil && account.ID != who.ID:
		// Rules compare object ids as text, so one account under two spellings
		// would be two people.
		d.Log.Error("a look-up answered about another account, so the answer is no", "asked", who.ID, "got", account.ID)
		return Account{}, refuse(CodeUnchecked, "Microsoft Entra answered about another account than %s, so this could not be checked and is refused. "+
			"An administrator compares the object id in people.table with the one in the Entra admin center.", who)
	case errors.Is(err, ErrNoPerson):
		return account, refuse(CodeUnknownPerson, "The Entra account of %s is not in the tenant any more.", who)
	case err != nil:
		d.Log.Error("a look-up failed, so the answer is no", "about", who.ID, "error", err)
		return account, refuse(CodeUnchecked, "Microsoft Entra did not say what is needed to check this, and what cannot be checked is refused: %s", lookUpSentence(err))
	}
	account.Slack = who.Slack
	ids := d.Policy.slackGroups(groups)
	if len(ids) == 0 {
		return account, nil
	}
	err = errNoUserGroups
	if d.UserGroups != nil {
		err = RetryLookUp(ctx, d.Store.timing.LookUps, func(ctx context.Context) (err error) {
			account.SlackGroups, err = d.UserGroups.In(ctx, account.Person, ids)
			return err
		})
	}
	if err != nil {
		d.Log.Error("a look-up of Slack user groups failed, so the answer is no", "about", who.ID, "error", err)
		return account, refuse(CodeUnchecked, "Slack did not say which user groups %s is in, and what cannot be checked is refused: %s", who, lookUpSentence(err))
	}
	return account, nil
}

var errNoUserGroups = errors.New("approvals: the policy names Slack user groups, and nothing here can look them up")

// lookUpSentence describes a failed look-up to the person who waits for it.
func lookUpSentence(err error) string {
	var human interface{ Sentence() string }
	if errors.As(err, &human) {
		return human.Sentence()
	}
	return "the look-up failed. Try again in a minute."
}

// Requirements says what a command needs for this requester and target, or
// refuses it. It records nothing.
func (d *Service) Requirements(ctx context.Context, command string, class Class, requester, target Person) (Requirements, Account, error) {
	rule := d.Policy.rule(command, class)
	by, no := d.account(ctx, requester, false, rule.requesters())
	if no != nil {
		return Requirements{}, Account{}, no
	}
	if no := d.Policy.MayRequest(command, class, by, requester.ID == target.ID); no != nil {
		return Requirements{}, Account{}, no
	}
	if no := d.checkRecentTarget(ctx, by.Person); no != nil {
		return Requirements{}, Account{}, no
	}
	to, no := d.account(ctx, target, true, rule.Approve)
	if no != nil {
		return Requirements{}, to, no
	}
	requirements, no := d.Policy.RequirementsFor(command, class, by, to)
	if no != nil {
		return Requirements{}, to, no
	}
	return requirements, to, nil
}

// checkRecentTarget refuses people whose own methods were changed in the last 48
// hours: if an attacker made that change, this action may be the attacker's,
// too.
func (d *Service) checkRecentTarget(ctx context.Context, who Person) *Refusal {
	return d.checkRecentTargetExcept(ctx, who, "")
}

// checkRecentTargetExcept ignores one request, which made somebody a target
// because they requested it for their own account.
func (d *Service) checkRecentTargetExcept(ctx context.Context, who Person, request string) *Refusal {
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

// Submit submits a plan for approval. It determines the requirements unless the
// caller has just asked [Service.Requirements] for them. A returned *Refusal has
// been recorded.
func (d *Service) Submit(ctx context.Context, op string, a Submit) (Request, error) {
	if answered, err := d.priorAnswer(ctx, op); answered {
		return Request{}, err
	}
	r, asked, err := d.Submitted(ctx, op)
	if asked {
		return r, nil
	}
	if err != nil {
		return Request{}, d.RecordRefusedPlan(ctx, op, a.Plan, a.Requester, err)
	}
	if no := d.Policy.checkRequired(a); no != nil {
		err = no
	} else if a.Requirements.Approvals == 0 {
		a.Requirements, _, err = d.Requirements(ctx, a.Plan.Command, a.Plan.Class, a.Requester, a.Plan.Target)
	}
	if err == nil {
		var snap Snapshot
		if snap, err = d.Store.create(ctx, op, a, d.submitTallies(a)); err == nil {
			return snap.Request, nil
		}
	}
	return Request{}, d.RecordRefusedPlan(ctx, op, a.Plan, a.Requester, err)
}

// Submitted returns the request that an earlier delivery of this operation made.
func (d *Service) Submitted(ctx context.Context, op string) (Request, bool, error) {
	snap, err := d.Store.Load(ctx, RequestID(op))
	if errors.Is(err, ErrNoRequest) {
		return Request{}, false, nil
	}
	if err != nil {
		return Request{}, false, err
	}
	if _, ours := snap.ops[op]; !ours {
		return Request{}, false, Refuse(CodeIDTaken, "By chance, another request has the id that yours would get. Nothing was requested. Ask once more, and yours gets another one.")
	}
	return snap.Request, true, nil
}

// RecordRefusedPlan records a *Refusal and returns err. It returns any other err
// unchanged.
func (d *Service) RecordRefusedPlan(ctx context.Context, op string, p Plan, who Person, err error) error {
	no := (*Refusal)(nil)
	if !errors.As(err, &no) {
		return err
	}
	about := audit.Event{Command: p.Command, Title: p.Title, Class: string(p.Class), Actor: who, Target: p.Target}
	return d.recordRefusal(ctx, op, Request{}, about, no)
}

// RecordRefusedAction records the refusal of an action on a request that was
// refused before Approve, Deny and the others were called: by a guest, an
// outsider, or somebody in the wrong channel. verb is what they tried.
func (d *Service) RecordRefusedAction(ctx context.Context, op, id, verb string, who Person, err error) error {
	no := (*Refusal)(nil)
	if !errors.As(err, &no) {
		return err
	}
	snap, gone := d.Store.Load(ctx, id)
	if errors.Is(gone, ErrNoRequest) {
		return d.recordRefusal(ctx, op, Request{}, audit.Event{Actor: who, Title: "a request that is not there", Outcome: verb}, no)
	}
	if gone != nil {
		return gone
	}
	about := snap.event(audit.Refused, who)
	about.Version, about.Outcome = snap.Version, verb
	return d.recordRefusal(ctx, op, snap.Request, about, no)
}

// RecordAlarm records something that only the security team can judge. It is
// recorded once, beside the answer to the operation.
func (d *Service) RecordAlarm(ctx context.Context, op string, who Person, reason string) error {
	_, err := d.Store.note(ctx, op+"#alarm", "ok", Request{}, audit.Event{Kind: audit.Alarm, Actor: who, Reason: reason})
	return err
}

// recordRefusal records a refusal. It returns that refusal, or the answer that
// an earlier delivery of the operation got.
func (d *Service) recordRefusal(ctx context.Context, op string, r Request, about audit.Event, no *Refusal) error {
	about.Kind, about.Reason, about.Code = audit.Refused, no.Sentence, string(no.Code)
	said, err := d.Store.note(ctx, op, d.Store.refusedAnswer(op, no), r, about)
	if err != nil {
		return err // a refusal that could not be recorded is asked for again
	}
	return d.Store.replayAnswer(op, said)
}

// refuseUnknownRequest refuses an action on a request that does not exist.
func (d *Service) refuseUnknownRequest(ctx context.Context, op, id string, by Person, title, verb string) error {
	if answered, err := d.priorAnswer(ctx, op); answered {
		return err
	}
	return d.recordRefusal(ctx, op, Request{}, audit.Event{Actor: by, Title: title, Outcome: verb},
		refuse(CodeNoRequest, "Countersign does not know %s any more: it is older than 90 days, or Redis lost it. The audit channel has its record. Ask again if it is still needed.", id))
}

// Approve records one person's approval.
func (d *Service) Approve(ctx context.Context, op, id string, by Person) (Request, error) {
	return d.decide(ctx, op, id, by, Approve{By: by})
}

// Deny records one person's denial, which is final.
func (d *Service) Deny(ctx context.Context, op, id string, by Person, reason string) (Request, error) {
	return d.decide(ctx, op, id, by, Deny{By: by, Reason: reason})
}

// Cancel lets the requester withdraw a request.
func (d *Service) Cancel(ctx context.Context, op, id string, by Person) (Request, error) {
	return d.decide(ctx, op, id, by, Cancel{By: by})
}

// BreakGlass runs a containment now, before enough people have approved it.
// Everybody who could have approved it is notified, and another person reviews
// it.
func (d *Service) BreakGlass(ctx context.Context, op, id string, by Person, why string) (Request, error) {
	return d.decide(ctx, op, id, by, BreakGlass{By: by, Why: why})
}

// Review records another person's review of a break-glass request:
// VerdictJustified, or VerdictNotJustified with a remark.
func (d *Service) Review(ctx context.Context, op, id string, by Person, verdict, remark string) (Request, error) {
	return d.decide(ctx, op, id, by, ReviewBreakGlass{By: by, Verdict: verdict, Remark: remark})
}

// submitTallies are the limits that a new request counts towards.
func (d *Service) submitTallies(a Submit) []tally {
	l := d.Policy.Limits
	var all []tally
	if l.Requester.Count > 0 {
		all = append(all, tally{"requester:" + a.Requester.ID, l.Requester, refuse(CodeTooMany,
			"You've reached your limit of %s. Ask a colleague, or try again later.", l.Requester.sentence("request"))})
	}
	if l.Target.Count > 0 && a.Plan.Class != ClassContain {
		all = append(all, tally{"target:" + a.Plan.Target.ID, l.Target, refuse(CodeTooMany,
			"The limit of %s for %s is reached. So many are unusual: speak to the person and to your security team. Containment is still possible.", l.Target.sentence("request"), a.Plan.Target)})
	}
	return all
}

// decisionTallies are the limits that a decision counts towards.
func (d *Service) decisionTallies(r Request, a Action) []tally {
	l := d.Policy.Limits
	switch a := a.(type) {
	case Approve:
		if l.Pair.Count > 0 {
			pair := []string{r.Requester.ID, a.By.ID}
			slices.Sort(pair)
			return []tally{{"pair:" + strings.Join(pair, "+"), l.Pair, refuse(CodeTooMany,
				"You've reached the limit of %s between you and %s. Ask another approver to decide this one.", l.Pair.sentence("approval"), r.Requester)}}
		}
	case BreakGlass:
		glass := l.glass()
		return []tally{{"glass:" + a.By.ID, glass, refuse(CodeTooMany,
			"You've reached your limit of %s with break-glass. Ask somebody to approve it, or ask another on-call engineer.", glass.sentence("request"))}}
	}
	return nil
}

// sentence describes the limit, such as 10 requests an hour.
func (l Limit) sentence(what string) string {
	switch l.Within {
	case time.Minute:
		return l.countWords(what) + " a minute"
	case time.Hour:
		return l.countWords(what) + " an hour"
	case 24 * time.Hour:
		return l.countWords(what) + " a day"
	}
	return l.countWords(what) + " in " + formatDuration(l.Within)
}

func (l Limit) countWords(what string) string {
	if l.Count != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", l.Count, what)
}

// formatDuration formats a duration without the units that are zero.
func formatDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// attemptedVerb names an action for the event that records its refusal.
func attemptedVerb(a Action) string {
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
		return "use break-glass"
	case ReviewBreakGlass:
		return "review"
	}
	return ""
}

func (d *Service) decide(ctx context.Context, op, id string, by Person, a Action) (Request, error) {
	snap, err := d.Store.Load(ctx, id)
	if errors.Is(err, ErrNoRequest) {
		return Request{}, d.refuseUnknownRequest(ctx, op, id, by, "a decision on "+id, attemptedVerb(a))
	}
	if err != nil {
		return Request{}, err
	}
	if answer, ok := snap.ops[op]; ok {
		return snap.Request, d.Store.replayAnswer(op, answer)
	}
	// A deadline that has passed is a fact, whether or not the sweep got there.
	if (snap.State == StatePending || snap.State == StateApproved) && snap.overdue(snap.Now) {
		if err := d.Store.expire(ctx, snap); err != nil {
			return snap.Request, err
		}
		if snap, err = d.Store.Load(ctx, id); err != nil {
			return snap.Request, err
		}
	}
	no := d.authorize(ctx, snap.Request, by, a)
	if no == nil {
		snap, err = d.Store.decide(ctx, op, id, a, d.decisionTallies(snap.Request, a))
		if !errors.As(err, &no) {
			return snap.Request, err
		}
	}
	about := snap.event(audit.Refused, by)
	about.Outcome = attemptedVerb(a)
	if err := d.recordRefusal(ctx, op, snap.Request, about, no); err != nil {
		return snap.Request, err
	}
	// Another delivery of the same press was quicker, and its answer is yes.
	snap, err = d.Store.Load(ctx, id)
	return snap.Request, err
}

// authorize checks everything about a person that Apply cannot know.
func (d *Service) authorize(ctx context.Context, r Request, by Person, a Action) *Refusal {
	rule, self := d.Policy.rule(r.Plan.Command, r.Plan.Class), r.forSelf()
	who, no := d.account(ctx, by, false, slices.Concat(rule.requesters(), rule.deciders(self)))
	if no != nil {
		return no
	}
	if no := checkMember(who); no != nil {
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
			return d.checkRecentTarget(ctx, by)
		}
	case BreakGlass:
		if no := d.Policy.MayBreakGlass(r.Plan.Command, r.Plan.Class, who); no != nil {
			return no
		}
		return d.checkRecentTarget(ctx, by)
	}
	if r.State == StatePending && (by.ID == r.Requester.ID || by.ID == r.Plan.Target.ID) {
		return nil // Apply has the better sentence
	}
	may := d.Policy.MayDecide
	if _, reviewing := a.(ReviewBreakGlass); reviewing {
		may = d.Policy.MayReview
	}
	if no := may(r.Plan.Command, r.Plan.Class, who, self); no != nil {
		return no
	}
	return d.checkRecentTarget(ctx, by)
}

// Stop halts a running request before its next step. Its requester may do that,
// and everybody who may decide it.
func (d *Service) Stop(ctx context.Context, op, id string, by Person, why string) (Request, error) {
	return d.decide(ctx, op, id, by, Stop{By: by, Why: why})
}

// Attest records that somebody has done manually what was handed off.
func (d *Service) Attest(ctx context.Context, op, id string, by Person) (Request, error) {
	return d.decide(ctx, op, id, by, Attest{By: by})
}

// Confirm records that a second person confirms it.
func (d *Service) Confirm(ctx context.Context, op, id string, by Person) (Request, error) {
	return d.decide(ctx, op, id, by, Confirm{By: by})
}

// Retract records that it was not done after all and has to be done again.
func (d *Service) Retract(ctx context.Context, op, id string, by Person) (Request, error) {
	return d.decide(ctx, op, id, by, Retract{By: by})
}

// recheck repeats, at execution, every check that was made when the request was
// submitted and decided. If it refuses, the request fails for that reason.
func (d *Service) recheck(ctx context.Context, r Request) *Refusal {
	ctx, cancel := context.WithTimeout(ctx, d.Store.timing.LookUps) // for all of them together: the lease is running
	defer cancel()
	requirements, target, err := d.recheckRequirements(ctx, r)
	if err != nil {
		return err
	}
	if no := d.checkSlackAccount(ctx, r.Requester, "requested it"); no != nil {
		return no
	}
	if r.BreakGlass == nil && requirements.Approvals > len(r.Approvals) {
		return refuse(CodeNotAllowed, "%s now needs %d approvals and has %d: what was true of %s when it was requested has changed.", r.ID, requirements.Approvals, len(r.Approvals), target.Person)
	}
	if no := d.checkRecentTargetExcept(ctx, r.Requester, r.ID); no != nil && no.Code == CodeRecentTarget {
		return refuse(no.Code, "%s, who requested it, was the target of such a request in the last 48 hours.", r.Requester)
	} else if no != nil {
		return no
	}
	if r.BreakGlass != nil {
		return d.recheckBreakGlass(ctx, r, requirements)
	}
	seen := map[string]bool{r.Requester.ID: true, r.Plan.Target.ID: true}
	for _, approver := range r.Approvers() {
		if seen[approver.ID] {
			return refuse(CodeAlreadyDecided, "%s has more than one part in %s, so the approval does not count.", approver, r.ID)
		}
		seen[approver.ID] = true
		if no := d.checkSlackAccount(ctx, approver, "approved it"); no != nil {
			return no
		}
		who, no := d.account(ctx, approver, false, d.Policy.rule(r.Plan.Command, r.Plan.Class).deciders(r.forSelf()))
		if no != nil {
			return no
		}
		if no := d.Policy.MayDecide(r.Plan.Command, r.Plan.Class, who, r.forSelf()); no != nil {
			return refuse(no.Code, "%s, who approved it, may not decide such requests any more.", approver)
		}
		if no := d.checkRecentTarget(ctx, approver); no != nil && no.Code == CodeRecentTarget {
			return refuse(no.Code, "%s, who approved it, was the target of such a request in the last 48 hours.", approver)
		} else if no != nil {
			return no
		}
	}
	return nil
}

// checkSlackAccount refuses a person whose Slack account was deactivated or
// became a guest's since they used it. Slack often learns that somebody has left
// before Entra does, or instead of it.
func (d *Service) checkSlackAccount(ctx context.Context, who Person, what string) *Refusal {
	if d.SlackAccounts == nil || who.Slack == "" {
		return nil
	}
	err := d.SlackAccounts.Active(ctx, who.Slack)
	no := (*Refusal)(nil)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &no) && no.Code != CodeUnchecked:
		return refuse(no.Code, "%s, who %s, is not a full member of the Slack workspace any more.", who, what)
	}
	d.Log.Error("a Slack account could not be looked at, so the answer is no", "slack", who.Slack, "error", err)
	return refuse(CodeUnchecked, "Slack did not say whether %s, who %s, is still a full member of the workspace, and what cannot be checked is refused.", who, what)
}

func (d *Service) recheckRequirements(ctx context.Context, r Request) (Requirements, Account, *Refusal) {
	rule := d.Policy.rule(r.Plan.Command, r.Plan.Class)
	by, no := d.account(ctx, r.Requester, false, rule.requesters())
	if no != nil {
		return Requirements{}, Account{}, no
	}
	if no := d.Policy.MayRequest(r.Plan.Command, r.Plan.Class, by, r.forSelf()); no != nil {
		return Requirements{}, Account{}, refuse(no.Code, "%s, who requested it, may not request such things any more.", r.Requester)
	}
	target, no := d.account(ctx, r.Plan.Target, true, rule.Approve)
	if no != nil {
		return Requirements{}, target, no
	}
	requirements, no := d.Policy.RequirementsFor(r.Plan.Command, r.Plan.Class, by, target)
	return requirements, target, no
}

// recheckBreakGlass checks again whether the person may use break-glass, and
// whether it may be used for this target.
func (d *Service) recheckBreakGlass(ctx context.Context, r Request, now Requirements) *Refusal {
	if !now.BreakGlass {
		return refuse(CodeNotAllowed, "%s cannot run before it is approved any more: the target is protected now, or the policy has changed.", r.ID)
	}
	who, no := d.account(ctx, r.BreakGlass.By, false, d.Policy.rule(r.Plan.Command, r.Plan.Class).BreakGlass)
	if no != nil {
		return no
	}
	if no := d.Policy.MayBreakGlass(r.Plan.Command, r.Plan.Class, who); no != nil {
		return refuse(no.Code, "%s, who used break-glass, may not do so any more.", r.BreakGlass.By)
	}
	if no := d.checkSlackAccount(ctx, r.BreakGlass.By, "used break-glass"); no != nil {
		return no
	}
	if no := d.checkRecentTarget(ctx, r.BreakGlass.By); no != nil && no.Code == CodeRecentTarget {
		return refuse(no.Code, "%s, who used break-glass, was the target of such a request in the last 48 hours.", r.BreakGlass.By)
	} else if no != nil {
		return no
	}
	return nil
}
