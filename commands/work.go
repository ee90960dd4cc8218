package commands

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"countersign/approvals"
	"countersign/entra"
)

// operation is how one kind of step is executed. Steps name it by their Op,
// which is stored in requests, so a name never changes its meaning.
type operation struct {
	run       func(context.Context, *Tenant, approvals.Job) approvals.Result
	reconcile func(context.Context, *Tenant, approvals.Job) approvals.Result
	// changes lists the facts (keys of Plan.Assumes) that the step makes
	// untrue. It is nil for a step that only looks.
	changes func(approvals.Step) []string
}

func operations(op string) (operation, bool) {
	switch op {
	case opDeleteMethods:
		return operation{deleteMethods, deleteMethodsAgain, changesOfRemoval}, true
	case opDeactivateToken:
		return operation{deactivateToken, deactivateTokenAgain, changesOfRemoval}, true
	case opVerifyRemoval:
		return operation{verifyRemoval, verifyRemoval, nil}, true
	case opResetPassword:
		return operation{resetPasswordOnce, resetPasswordAgain, func(approvals.Step) []string { return []string{factPassword, factSessions} }}, true
	case opIssuePass:
		return operation{issuePassOnce, issuePassAgain, changesOfPass}, true
	case opSetPhone:
		return operation{setPhone, setPhoneAgain, changesOfPhone}, true
	case opSetEmail:
		return operation{setEmail, setEmailAgain, changesOfEmail}, true
	case opBlockSignIn:
		return setEnabled(false), true
	case opUnblockSignIn:
		return setEnabled(true), true
	case opRevokeSessions:
		return operation{revoke, revokeAgain, func(approvals.Step) []string { return []string{factSessions} }}, true
	}
	return operation{}, false
}

// Work implements approvals.Work.
//
// The result of JobCheck is done if the plan's assumptions hold, failed if they
// do not or cannot be checked, or throttled. A step is done, already so, failed
// (certainly not executed, and why), uncertain (it may or may not have been
// executed), or throttled (Graph asks to wait; certainly not executed, not even
// in part, unless the result is unsure). If it is unknown whether a repeatable
// change was made, that is resolved within the deadline of ctx: the account is
// read, and the change is made once more if it is not there.
func (t *Tenant) Work(ctx context.Context, job approvals.Job) approvals.Result {
	switch job.Kind {
	case approvals.JobCheck:
		return t.check(ctx, job.Request)
	case approvals.JobPrepare:
		return prepare(job.Request.Plan.Steps[job.Step])
	}
	op := job.Request.Plan.Steps[job.Step].Op
	o, ok := operations(op)
	switch {
	case !ok && job.Kind == approvals.JobReconcile:
		return approvals.Result{State: approvals.StepUncertain, Detail: fmt.Sprintf("This version of Countersign does not know the step %q and cannot tell what became of it.", op)}
	case !ok:
		return approvals.Result{State: approvals.StepFailed, Detail: fmt.Sprintf("This version of Countersign does not know the step %q. Ask for it again.", op)}
	case job.Kind == approvals.JobReconcile:
		return o.reconcile(ctx, t, job)
	}
	return o.run(ctx, t, job)
}

// The facts about an account that plans assume. Values are compared; of a
// method, what stands behind the second space is for people.
const (
	factEnabled  = "enabled"
	factSynced   = "synced"
	factPassword = "password changed"
	factSessions = "sessions valid from"
	factListed   = "methods" // present where the plan rests on the whole list of methods
	factPasses   = "passes"  // present where it rests on the list of passes alone
	factDefault  = "default method"
	factMethod   = "method " // and its id
	factGap      = "gap "    // and what could not be read
)

func factsOfUser(u entra.User) map[string]string {
	return map[string]string{
		factEnabled:  fmt.Sprint(u.Enabled),
		factSynced:   fmt.Sprint(u.Synced),
		factPassword: u.LastPasswordChange.UTC().Format(time.RFC3339),
		factSessions: u.SessionsValidFrom.UTC().Format(time.RFC3339),
	}
}

func factsOfMethods(u entra.User, l entra.MethodList) map[string]string {
	f := factsOfUser(u)
	f[factListed] = "all"
	if l.Default != "" {
		f[factDefault] = l.Default
	}
	for _, m := range l.Methods {
		f[factMethod+m.ID] = methodFact(m)
	}
	for _, g := range l.Gaps {
		what, _, _ := strings.Cut(g, ":")
		f[factGap+what] = gapWords(g)
	}
	return f
}

// check compares the account with the plan's assumptions, except for what the
// plan's own steps have changed or may have changed.
func (t *Tenant) check(ctx context.Context, r approvals.Request) approvals.Result {
	own := map[string]bool{}
	ahead := false // a step that changes something is still to come
	for i, step := range r.Plan.Steps {
		o, _ := operations(step.Op)
		switch {
		case o.changes == nil:
		case r.Journal[i].State == approvals.StepWaiting:
			ahead = true
		default:
			for _, fact := range o.changes(step) {
				own[fact] = true
			}
		}
	}
	// Whoever took an account over could stop a plan against that by changing
	// the account once more: such a plan rests on nothing, like containment.
	if len(r.Plan.Assumes) == 0 || !ahead || r.Verified == approvals.VerifiedCompromise {
		return approvals.Result{State: approvals.StepDone}
	}
	var now map[string]string
	for pause := 300 * time.Millisecond; ; pause *= 2 {
		var err error
		if now, err = t.factsNow(ctx, r.Plan); errors.Is(err, approvals.ErrNoPerson) {
			return approvals.Result{State: approvals.StepFailed, Detail: "The account does not exist any more."}
		}
		// A gap that the plan does not have is a look-up that failed.
		news := slices.ContainsFunc(slices.Collect(maps.Keys(now)), func(fact string) bool {
			_, before := r.Plan.Assumes[fact]
			return strings.HasPrefix(fact, factGap) && !before
		})
		if err == nil && !news {
			break
		}
		if (err == nil || errors.Is(err, entra.ErrUnreachable)) && wait(ctx, pause) {
			continue
		}
		if err == nil {
			break // the gap is told as a difference
		}
		got := resultOf(err)
		got.Detail = "The account could not be compared with the plan, so no step was taken. " + got.Detail
		if got.State != approvals.StepThrottled {
			got.State = approvals.StepFailed // a look-up changes nothing
		}
		return got
	}
	differences := compare(r.Plan.Assumes, now, own)
	if len(differences) == 0 {
		return approvals.Result{State: approvals.StepDone}
	}
	return approvals.Result{State: approvals.StepFailed,
		Detail: "The account is no longer as the plan assumed: " + strings.Join(differences, "; ") + ". Ask again to get a plan for the account as it is now."}
}

func (t *Tenant) factsNow(ctx context.Context, p approvals.Plan) (map[string]string, error) {
	user, err := t.user(ctx, p.Target.ID)
	if err != nil {
		return nil, err
	}
	if _, passes := p.Assumes[factPasses]; passes {
		list, err := t.graph.Passes(ctx, p.Target.ID)
		if err != nil {
			return nil, err
		}
		return factsOfPasses(user, list), nil
	}
	if _, listed := p.Assumes[factListed]; !listed {
		return factsOfUser(user), nil
	}
	list, err := t.graph.Methods(ctx, p.Target.ID)
	if err != nil {
		return nil, err
	}
	return factsOfMethods(user, list), nil
}

// compare describes the differences. own are the facts that the plan itself has
// changed or may have changed: whether they still hold means nothing, but a
// method that replaced a removed one is somebody else's change.
func compare(assumed, now map[string]string, own map[string]bool) []string {
	var out []string
	say := func(format string, a ...any) { out = append(out, fmt.Sprintf(format, a...)) }
	all := maps.Clone(assumed)
	maps.Copy(all, now)
	for _, fact := range slices.Sorted(maps.Keys(all)) {
		before, was := assumed[fact]
		after, is := now[fact]
		method, gap := strings.HasPrefix(fact, factMethod), strings.HasPrefix(fact, factGap)
		switch {
		case was && is && (before == after || method && sameMethod(before, after)):
		case method && !was:
			say("a method was added: %s", methodInFact(after))
		case method && is:
			say("a method was replaced: %s by %s", methodInFact(before), methodInFact(after))
		case gap && !was:
			say("something could not be read this time: %s", strings.TrimSuffix(after, "."))
		case gap, !was, own[fact]:
		case method:
			// A pass ends by itself, and no plan rests on one.
			if !strings.HasPrefix(before, string(entra.KindPass)+" ") {
				say("a method is gone: %s", methodInFact(before))
			}
		case fact == factEnabled && after == "true":
			say("the account was unblocked")
		case fact == factEnabled:
			say("the account was blocked")
		case fact == factSynced:
			say("the account moved between the cloud and an on-premises directory")
		case fact == factPassword:
			say("the password was changed")
		case fact == factSessions:
			say("the sessions were revoked by somebody else")
		case fact == factDefault:
			say("the default method is another one")
		default:
			say("%s changed", fact)
		}
	}
	return out
}

// methodFact is the value of a method: kind, mark, words.
func methodFact(m entra.Method) string { return string(m.Kind) + " " + mark(m) + " " + methodWords(m) }

func methodInFact(value string) string {
	parts := strings.SplitN(value, " ", 3)
	return parts[len(parts)-1]
}

func sameMethod(a, b string) bool {
	return strings.TrimSuffix(a, methodInFact(a)) == strings.TrimSuffix(b, methodInFact(b))
}

// repeatable makes a change that may safely be made twice. If it is unknown
// whether it was made, shows reads the account, and the change is made once more
// if it is not there.
func repeatable(ctx context.Context, change func(context.Context) error, shows func(context.Context) (bool, error)) approvals.Result {
	// What the first attempt leaves of the time is for finding out.
	first, cancel := half(ctx)
	err := change(first)
	cancel()
	if !unanswered(err) {
		return resultOf(err)
	}
	if result, settled := reads(ctx, err, shows); settled {
		return result
	}
	doubt := resultOf(err)
	err = change(ctx)
	// The first attempt may have taken effect since, so that the second is refused.
	if unanswered(err) || mayBeAlready(err) {
		if result, settled := reads(ctx, err, shows); settled {
			return late(result, doubt)
		}
	}
	return late(resultOf(err), doubt)
}

// mayBeAlready reports whether Graph may have refused a change because it was
// made already. Microsoft documents no status for that.
func mayBeAlready(err error) bool {
	e, ok := errors.AsType[*entra.Error](err)
	return ok && (e.Status == http.StatusBadRequest || e.Status == http.StatusConflict)
}

// late is the result of a second attempt after the first one ended in doubt: the
// first may have taken effect since, or may still.
func late(got, doubt approvals.Result) approvals.Result {
	switch {
	case got.State == approvals.StepAlready:
		got.State, got.Detail = approvals.StepDone, "" // by the first attempt
	case doubt.State != approvals.StepUncertain:
	case got.State == approvals.StepFailed:
		return doubt
	case got.State == approvals.StepThrottled:
		got.Unsure = true
	}
	return got
}

// unanswered reports whether a call may or may not have taken effect, or nobody
// was there to take it.
func unanswered(err error) bool {
	e, ok := errors.AsType[*entra.Error](err)
	return ok && !errors.Is(e, entra.ErrThrottled) && (e.Unsure || errors.Is(e, entra.ErrUnreachable))
}

// reads checks whether an unanswered change is visible in the account. It is not
// visible if settled is false.
func reads(ctx context.Context, doubt error, shows func(context.Context) (bool, error)) (result approvals.Result, settled bool) {
	ctx, cancel := half(ctx)
	defer cancel()
	is, err := shows(ctx)
	result = resultOf(doubt)
	switch {
	case err == nil && is:
		return approvals.Result{State: approvals.StepDone, Detail: "Microsoft Graph's answer was lost, but the account shows that it was done."}, true
	case err == nil:
		return approvals.Result{}, false
	case errors.Is(err, entra.ErrThrottled):
		return unread(err, result), true
	}
	if result.State == approvals.StepUncertain {
		result.Detail += " Reading the account failed too, so look at it in the Entra admin center."
	}
	return result, true
}

// unread is the result of an unanswered change if Graph asks to wait before the
// account can be read.
func unread(err error, doubt approvals.Result) approvals.Result {
	got := resultOf(err)
	got.Unsure = doubt.State == approvals.StepUncertain
	return got
}

// half limits ctx to half of its remaining time.
func half(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(deadline)/2)
}

// wait pauses, unless too little time is left for that.
func wait(ctx context.Context, pause time.Duration) bool {
	if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) < 2*pause {
		return false
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// errAlready means that the change was not necessary.
var errAlready = errors.New("commands: already so")

// resultOf is the outcome of a step whose call returned err.
func resultOf(err error) approvals.Result {
	if err == nil {
		return approvals.Result{State: approvals.StepDone}
	}
	if errors.Is(err, errAlready) {
		return approvals.Result{State: approvals.StepAlready}
	}
	r := approvals.Result{State: approvals.StepFailed, Detail: words(err)}
	e, ok := errors.AsType[*entra.Error](err)
	if !ok {
		return r
	}
	r.RequestID = e.RequestID
	switch {
	case errors.Is(e, entra.ErrThrottled):
		r.State, r.After, r.Unsure = approvals.StepThrottled, e.RetryAfter, e.Unsure
		if r.After <= 0 {
			r.After = 30 * time.Second
		}
	case e.Unsure:
		r.State = approvals.StepUncertain
	case errors.Is(e, entra.ErrUnreachable):
		r.Detail += " This step was not carried out."
	}
	return r
}

// Explain turns any error of this package into a sentence for the requester:
// what it means, and who can do something about it.
func Explain(err error) string {
	s := words(err)
	if e, ok := errors.AsType[*entra.Error](err); ok && e.RequestID != "" {
		s += " (Graph request-id " + Plain(e.RequestID, 60) + ")"
	}
	return s
}

// words has every sentence about a failed call. Results have a field of their
// own for the request-id.
func words(err error) string {
	if refusal, ok := errors.AsType[*approvals.Refusal](err); ok {
		return refusal.Sentence
	}
	if nothing, ok := errors.AsType[*NothingToDo](err); ok {
		return nothing.Sentence
	}
	if errors.Is(err, approvals.ErrNoPerson) {
		return "There is no such account in Entra, or more than one answers to that name."
	}
	e, ok := errors.AsType[*entra.Error](err)
	if !ok {
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			return "It took too long and was given up."
		}
		return sentence(masked(err.Error(), 300))
	}
	code := ""
	if c := strings.TrimSpace(strings.TrimPrefix(fmt.Sprintf("%d %s", e.Status, Plain(e.Code, 60)), "0 ")); c != "" {
		code = " (" + c + ")"
	}
	switch {
	case errors.Is(e, entra.ErrSignIn):
		return "Entra refuses Countersign's own sign-in" + code + ". An operator checks the tenant id, the client id, and whether the client secret or certificate has expired." + says(e)
	case errors.Is(e, entra.ErrThrottled) && e.RetryAfter > 0:
		return fmt.Sprintf("Microsoft Graph asks to wait %s before it will %s%s.", e.RetryAfter.Round(time.Second), e.Call, code)
	case errors.Is(e, entra.ErrThrottled):
		return fmt.Sprintf("Microsoft Graph asks to wait before it will %s%s.", e.Call, code)
	case errors.Is(e, entra.ErrForbidden):
		wider := ""
		if w := e.Permission.Wider(); w != "" {
			wider = " (or " + string(w) + ")"
		}
		role := ""
		if e.Call == string(entra.CallSetPassword) {
			role = " and assigns the directory role User Administrator to its service principal: passwords need both"
		}
		if e.Call == string(entra.CallSetEnabled) {
			role = "; for an account that holds a directory role, its service principal also needs one that may manage such accounts"
		}
		return fmt.Sprintf("Microsoft Graph refused to %s%s. An administrator grants %s%s to Countersign's app registration%s.", e.Call, code, e.Permission, wider, role)
	case errors.Is(e, entra.ErrDefaultMethod):
		return "Entra deletes the default method only as the last one" + code + ". The person chooses another default at mysignins.microsoft.com/security-info; or ask again when the other methods are gone."
	case errors.Is(e, entra.ErrSynced):
		return "The account is mastered by an on-premises directory" + code + ". An administrator of that directory does this there."
	case errors.Is(e, entra.ErrLicense):
		return fmt.Sprintf("The tenant has no licence that lets Microsoft Graph %s%s. An operator can tell Countersign that the tenant does without.", e.Call, code)
	case errors.Is(e, entra.ErrUnreachable) && e.Unsure:
		return fmt.Sprintf("Microsoft Graph was asked to %s and did not say whether it did%s.", e.Call, code)
	case errors.Is(e, entra.ErrUnreachable):
		return fmt.Sprintf("Microsoft Graph did not answer when asked to %s%s.", e.Call, code)
	case errors.Is(e, entra.ErrNotFound):
		return fmt.Sprintf("Microsoft Graph could not %s: it is not there%s.", e.Call, code)
	}
	return fmt.Sprintf("Microsoft Graph did not %s%s.", e.Call, code) + says(e)
}

// says is Graph's own message, if there is one.
func says(e *entra.Error) string {
	if message := masked(e.Message, 200); message != "" {
		return " Microsoft says: " + sentence(message)
	}
	return ""
}

// private finds what must not reach a message or a log: e-mail addresses,
// and whatever may be a telephone number.
var private = regexp.MustCompile(`[^\s@"'<>()]+@[^\s@"'<>()]+|\+\d[\d ().-]{4,}\d|\b\d{9,}\b`)

func masked(message string, max int) string {
	return Plain(private.ReplaceAllString(message, "••••"), max)
}

// gapWords is one gap of a list of methods as a sentence.
func gapWords(gap string) string { return sentence(masked(gap, 400)) }

// gapSentences are all of them, to follow another sentence.
func gapSentences(l entra.MethodList) string {
	var b strings.Builder
	for _, g := range l.Gaps {
		b.WriteString(" " + gapWords(g))
	}
	return b.String()
}
