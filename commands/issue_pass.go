package commands

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"countersign/approvals"
	"countersign/entra"
)

func issuePass() Command {
	return Command{
		Name:  "issue-pass",
		Title: "Issue Temporary Access Pass",
		Usage: "@user [60m] [once] [verified=callback] [ticket=INC-7] [why]",
		Does:  "issue a Temporary Access Pass, with which a person can sign in and register methods",
		Class: approvals.ClassTakeover,
		SecretAdvice: "They type it at sign-in in the place of their password, and can then enrol a passkey at https://aka.ms/mysecurityinfo. " +
			"It can take a few minutes until it works everywhere.",
		Target: true,
		Args: []Arg{
			{Field: FieldLifetime, Words: "Valid for", Hint: "Write how long the pass is valid, from 10m to 30d, such as 60m or 8h.", find: findLifetime, read: readLifetime},
			{Field: FieldUse, Words: "Good for", Hint: "Write once for a pass that is used up by one sign-in, or nothing.",
				Choices: []ArgChoice{{Value: "once", Words: "one sign-in only", also: []string{"one-time"}}}},
		},
		Help: "Issues a Temporary Access Pass: until it ends, the person signs in with it alone, without password and MFA, and can enrol a passkey at " + enrolAt + ". How long it is valid and " +
			"whether it is good for more than one sign-in can be said (“60m”, “8h”, “once”) and is the tenant's policy otherwise. A person has one pass at most, so a new one takes the place " +
			"of an old one. You alone see it, once, in a window that opens when you press a button. Whoever has the pass can become the person: give it to nobody else, and not by e-mail.",
		Permissions: append(ofTarget(), entra.CallReadPassPolicy.Permission(), entra.CallListPasses.Permission(), entra.CallIssuePass.Permission()),
		plan:        planIssuePass,
	}
}

const opIssuePass = "issue-pass"

// enrolAt is where somebody who signed in with a pass enrols a passkey.
const enrolAt = "https://aka.ms/mysecurityinfo"

// What Entra can issue at all (https://learn.microsoft.com/entra/identity/authentication/howto-authentication-temporary-access-pass).
const (
	shortestPass = 10 * time.Minute
	longestPass  = 30 * 24 * time.Hour
)

// planIssuePass asks the tenant's policy before anybody is asked to approve:
// Graph issues a pass to somebody outside the policy's scope as well, who then
// cannot sign in with it.
func planIssuePass(ctx context.Context, t *Tenant, s subject) (approvals.Plan, error) {
	if s.outsider() {
		return approvals.Plan{}, approvals.Refuse(approvals.CodeNoSteps, "%s is a guest from another organisation, and Entra issues passes only to the tenant's own people. "+
			"That organisation's help desk issues one.", s.person)
	}
	policy, err := t.graph.PassPolicy(ctx)
	if err != nil {
		return approvals.Plan{}, lookUp(err)
	}
	lifetime, once, refusal := passSettings(s, policy)
	if refusal != nil {
		return approvals.Plan{}, refusal
	}
	passes, err := t.graph.Passes(ctx, s.user.ID)
	if err != nil {
		return approvals.Plan{}, lookUp(err)
	}

	words := "Issue a Temporary Access Pass, valid for " + lifetimeWords(lifetime)
	if once {
		words += " and good for one sign-in"
	} else {
		words += " and good for any number of sign-ins until then"
	}
	var ids, replaced []string
	for _, p := range passes {
		ids, replaced = append(ids, p.ID), append(replaced, methodWords(p))
	}
	if len(replaced) > 0 {
		words += ", in place of the " + series(replaced)
	}
	p := approvals.Plan{
		Args:    strings.TrimSpace(canonicalLifetime(lifetime) + " " + map[bool]string{true: "once"}[once]),
		Assumes: factsOfPasses(s.user, passes),
		Steps: []approvals.Step{{Op: opIssuePass, Words: words, Secret: approvals.SecretFromAnswer,
			Args: map[string]string{"lifetime": canonicalLifetime(lifetime), "once": strconv.FormatBool(once), "passes": strings.Join(ids, "\n")}}},
		Keeps:    []string{"every other authentication method", "the password", "the sessions"},
		Warnings: []string{"Whoever has the pass can sign in as this person, without password and MFA, and register methods of their own."},
	}
	for _, words := range replaced {
		p.Warnings = append(p.Warnings, "It takes the place of the "+words+", which stops working.")
	}
	if once {
		p.Warnings = append(p.Warnings, "A passkey has to be enrolled within 10 minutes of the one sign-in, at "+enrolAt+".")
	} else {
		p.Warnings = append(p.Warnings, "Have a passkey enrolled at "+enrolAt+" before the pass ends; whatever is signed in with it is signed out then.")
	}
	if !s.user.Enabled {
		p.Warnings = append(p.Warnings, warnBlocked+" The pass is of no use until it is unblocked.")
	}
	return p, nil
}

// passSettings are what the pass will be: what was asked for, or else what the
// policy says, or why that cannot be.
func passSettings(s subject, policy entra.PassPolicy) (lifetime time.Duration, once bool, no *approvals.Refusal) {
	const whoCan = "An Authentication Policy Administrator can change that in the Entra admin center, under Authentication methods, Policies, Temporary Access Pass."
	refuse := func(format string, a ...any) (time.Duration, bool, *approvals.Refusal) {
		return 0, false, approvals.Refuse(approvals.CodeNoSteps, format, a...)
	}
	if !policy.Enabled {
		return refuse("The tenant's policy does not allow Temporary Access Passes. %s", whoCan)
	}
	if !policy.Covers(s.user.ID, s.groups) {
		return refuse("%s is not in the scope of the tenant's policy for Temporary Access Passes, and could not sign in with one. %s Or put the person into a group that the policy includes.", s.person, whoCan)
	}
	lifetime = policy.DefaultLifetime
	if typed := s.Args[FieldLifetime]; typed != "" {
		minutes, err := strconv.Atoi(strings.TrimSuffix(typed, "m"))
		if lifetime = time.Duration(minutes) * time.Minute; err != nil || lifetime < policy.MinimumLifetime || lifetime > policy.MaximumLifetime {
			return refuse("The tenant's policy allows passes from %s to %s. Ask again for a lifetime between the two, such as %s. %s",
				lifetimeWords(policy.MinimumLifetime), lifetimeWords(policy.MaximumLifetime), canonicalLifetime(policy.DefaultLifetime), whoCan)
		}
	}
	return lifetime, policy.OneTimeOnly || s.Args[FieldUse] == "once", nil
}

var lifetimeForm = regexp.MustCompile(`(?i)^(\d{1,5})(m|min|mins|minutes?|h|hours?|d|days?)?$`)

// findLifetime takes a number with a unit for a lifetime. A number alone could
// be the first word of a justification.
func findLifetime(text []symbol) (n int, sentence string) {
	n = wordLength(text)
	if m := lifetimeForm.FindStringSubmatch(textOf(text[:n])); m == nil || m[2] == "" {
		return 0, ""
	}
	return n, ""
}

// readLifetime makes whole minutes of a lifetime, as in 60m.
func readLifetime(typed string) (value, sentence string) {
	m := lifetimeForm.FindStringSubmatch(strings.ReplaceAll(typed, " ", ""))
	if m == nil {
		return "", fmt.Sprintf("“%s” is not a lifetime. Write a number and a unit, such as 60m or 8h.", Plain(typed, 20))
	}
	number, _ := strconv.Atoi(m[1]) // five digits
	unit := time.Minute
	switch strings.ToLower(m[2] + "m")[0] {
	case 'h':
		unit = time.Hour
	case 'd':
		unit = 24 * time.Hour
	}
	lifetime := time.Duration(number) * unit
	if lifetime < shortestPass || lifetime > longestPass {
		return "", "Entra issues passes for 10 minutes to 30 days. Write a lifetime between the two, such as 60m or 8h."
	}
	return canonicalLifetime(lifetime), ""
}

func canonicalLifetime(d time.Duration) string { return strconv.Itoa(int(d/time.Minute)) + "m" }

// lifetimeWords is a lifetime as people say it: 90 minutes, 8 hours, 30 days.
func lifetimeWords(d time.Duration) string {
	n, unit := int(d/time.Minute), "minute"
	switch {
	case d%(24*time.Hour) == 0:
		n, unit = int(d/(24*time.Hour)), "day"
	case d%time.Hour == 0:
		n, unit = int(d/time.Hour), "hour"
	}
	if n != 1 {
		unit += "s"
	}
	return fmt.Sprintf("%d %s", n, unit)
}

// factsOfPasses are what a plan rests on that issues a pass: which passes are
// there, and that the person may sign in.
func factsOfPasses(u entra.User, passes []entra.Method) map[string]string {
	f := map[string]string{factPasses: "all", factEnabled: fmt.Sprint(u.Enabled)}
	for _, p := range passes {
		f[factMethod+p.ID] = methodFact(p)
	}
	return f
}

func passesBefore(s approvals.Step) []string { return strings.Split(s.Args["passes"], "\n") }

func changesOfPass(s approvals.Step) []string {
	var changed []string
	for _, id := range passesBefore(s) {
		changed = append(changed, factMethod+id)
	}
	return changed
}

// issuePassOnce issues the pass. Its value is in the answer and nowhere else.
func issuePassOnce(ctx context.Context, t *Tenant, job approvals.Job) approvals.Result {
	first, cancel := half(ctx)
	got, err := t.callIssuePass(first, job)
	cancel()
	if !unanswered(err) {
		return got
	}
	if got.State != approvals.StepUncertain { // nobody was there to take the call
		got, _ = t.callIssuePass(ctx, job)
		return got
	}
	return t.reissuePass(ctx, job, "Microsoft Graph did not say whether it issued the pass.")
}

// issuePassAgain issues another pass where a worker that is gone has issued
// one, or was about to.
func issuePassAgain(ctx context.Context, t *Tenant, job approvals.Job) approvals.Result {
	return t.reissuePass(ctx, job, "Countersign was interrupted while it issued the pass.")
}

// reissuePass settles the outcome of a pass whose answer is lost, doubt says
// why. The pass is of no use to anybody then; another one takes its place. The
// account is read before, and nothing is sent where that fails.
func (t *Tenant) reissuePass(ctx context.Context, job approvals.Job, doubt string) approvals.Result {
	wanted := job.Kind == approvals.JobReconcile // then a throttled step stays begun and comes here again
	undecided := func(got approvals.Result) approvals.Result {
		if got.State != approvals.StepThrottled || !wanted {
			got.State, got.After = approvals.StepUncertain, 0
			got.Detail = doubt + " A pass may be there that nobody knows: it ends by itself, or when you ask for another. " + got.Detail
		}
		return got
	}
	looking, cancel := half(ctx)
	passes, err := t.graph.Passes(looking, job.Request.Plan.Target.ID)
	cancel()
	if err != nil {
		return undecided(resultOf(err))
	}
	before := passesBefore(job.Request.Plan.Steps[job.Step])
	issued := slices.ContainsFunc(passes, func(p entra.Method) bool { return !slices.Contains(before, p.ID) })
	switch {
	case job.ReadOnly && issued:
		return undecided(approvals.Result{Detail: "The account shows one that was not there before. Remove it, if it is not wanted."})
	case job.ReadOnly:
		return approvals.Result{State: approvals.StepFailed, Detail: doubt + " The account shows that it was not issued, and it was not asked for again."}
	}
	got, err := t.callIssuePass(ctx, job)
	switch {
	case err == nil:
		got.Detail += " It takes the place of one whose value was lost on the way. Should it not work, ask for another."
	case unanswered(err) || issued || got.State == approvals.StepThrottled || !wanted:
		got = undecided(got)
	}
	return got
}

// callIssuePass makes one call and tells what is to be said of it. The value is
// in Secret and nowhere else.
func (t *Tenant) callIssuePass(ctx context.Context, job approvals.Job) (approvals.Result, error) {
	step := job.Request.Plan.Steps[job.Step]
	minutes, err := strconv.Atoi(strings.TrimSuffix(step.Args["lifetime"], "m"))
	if err != nil {
		err = errors.New("commands: a stored step without a lifetime")
		return resultOf(err), err
	}
	pass, err := t.graph.IssuePass(ctx, job.Request.Plan.Target.ID, time.Duration(minutes)*time.Minute, step.Args["once"] == "true")
	got := resultOf(err)
	if err == nil {
		got.Secret, got.Until = pass.Value, pass.ValidUntil
		got.Detail = "It can take a few minutes until it works everywhere. A passkey is enrolled at " + enrolAt + "."
		if !pass.ValidUntil.IsZero() {
			got.Detail = "Valid until " + moment(pass.ValidUntil) + ". " + got.Detail
		}
	}
	return got, err
}
