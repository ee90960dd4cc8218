package commands

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"countersign/approvals"
	"countersign/entra"
)

func requireReregister() Command {
	return Command{
		Name:   "require-reregister",
		Title:  "Require re-registration",
		Usage:  "@user [everything] [verified=callback] [ticket=INC-7] [why]",
		Does:   "delete phones, Authenticator apps and software tokens, deactivate hardware tokens, revoke sessions",
		Class:  approvals.ClassDestroy,
		Target: true,
		Args: []Arg{{Field: FieldScope, Words: "How much to remove",
			Hint:    "Write everything to remove passkeys, Windows Hello and all the rest, too, or nothing for what the Entra admin center does.",
			Choices: []ArgChoice{{Value: "everything", Words: "every method but the password"}}}},
		Help: "Does what “Require re-register MFA” does in the Entra admin center: deletes the person's phones, Authenticator apps and software tokens and deactivates their hardware " +
			"tokens. Then it revokes their sessions and looks whether everything is gone. At the next sign-in that asks for MFA they register again. Passkeys, Windows Hello, platform " +
			"credentials, external methods, the QR code, the reset e-mail, the password and a Temporary Access Pass stay, and so do app passwords. Whoever has the password can be the " +
			"one who registers: make sure who is calling, and stay with them until they are through. With the word “everything” all of these but the password and app passwords are deleted, too.",
		Permissions: append(ofTarget(),
			entra.CallListMethods.Permission(), entra.CallListHardware.Permission(), entra.CallReadDefault.Permission(),
			entra.CallDeletePhone.Permission(), entra.CallDeleteAuthApp.Permission(), entra.CallDeleteSoftware.Permission(),
			entra.CallDeactivateToken.Permission(), entra.CallRevokeSessions.Permission()),
		More: []Extra{{"everything", []entra.Permission{
			entra.CallDeletePasskey.Permission(), entra.CallDeleteHello.Permission(), entra.CallDeletePlatform.Permission(), entra.CallDeleteExternal.Permission(),
			entra.CallDeleteQRCode.Permission(), entra.CallDeletePass.Permission(), entra.CallDeleteEmail.Permission()}}},
		plan: planRequireReregister,
	}
}

const (
	opDeleteMethods   = "delete-methods"
	opDeactivateToken = "deactivate-token"
	opVerifyRemoval   = "verify-removal"
)

// planRequireReregister follows the portal's definition
// (https://learn.microsoft.com/entra/identity/authentication/howto-mfa-userdevicesettings)
// and Graph's rules: one delete at a time, the alternate mobile before the
// mobile, the default method last. With everything, what Graph's rule about the
// default method does not speak of goes first: whether it minds those is not
// documented.
func planRequireReregister(ctx context.Context, t *Tenant, s subject) (approvals.Plan, error) {
	list, err := t.graph.Methods(ctx, s.user.ID)
	if err != nil {
		return approvals.Plan{}, lookUp(err)
	}
	everything := s.Args[FieldScope] == "everything"
	var extras, doomed, tokens, kept []entra.Method
	for _, m := range list.Methods {
		switch {
		case m.Kind == entra.KindPhone, m.Kind == entra.KindAuthenticator, m.Kind == entra.KindSoftwareOATH:
			doomed = append(doomed, m)
		case m.Kind == entra.KindHardwareOATH && m.Usable:
			tokens = append(tokens, m)
		case everything && beyondPortal(m.Kind):
			extras = append(extras, m)
		default:
			kept = append(kept, m)
		}
	}
	switch {
	case len(extras)+len(doomed)+len(tokens) > 0:
	case everything:
		return approvals.Plan{}, &NothingToDo{fmt.Sprintf("There is nothing to remove: %s has no method that Countersign could delete.%s", s.person, gapSentences(list))}
	default:
		return approvals.Plan{}, &NothingToDo{fmt.Sprintf("There is nothing to remove: %s has no phone, no Authenticator app, no software token and no active hardware token.%s", s.person, gapSentences(list))}
	}

	p := approvals.Plan{Assumes: factsOfMethods(s.user, list)}
	for _, m := range tokens {
		p.Steps = append(p.Steps, removalStep(opDeactivateToken, "Deactivate "+methodWords(m), m))
	}
	for _, m := range extras {
		p.Steps = append(p.Steps, removalStep(opDeleteMethods, "Delete "+methodWords(m), m))
	}
	slices.SortStableFunc(doomed, func(a, b entra.Method) int { return deleteRank(a) - deleteRank(b) })
	mayBeDefault := defaultAmong(list)
	var last []entra.Method
	for _, m := range doomed {
		// The alternate mobile as the default has to go last, and the mobile
		// behind it. Graph has no order for that, so both are left to it.
		if mayBeDefault(m) || list.Default == "voiceAlternateMobile" && m.PhoneType == "mobile" {
			last = append(last, m)
			continue
		}
		p.Steps = append(p.Steps, removalStep(opDeleteMethods, "Delete "+methodWords(m), m))
	}
	switch {
	case len(last) == 1 && list.Default != "":
		p.Steps = append(p.Steps, removalStep(opDeleteMethods, "Delete "+asDefault(methodWords(last[0])), last[0]))
	case len(last) > 0:
		// Graph names a type, not a method. Which one has to go last shows
		// only when it is refused, so these are one step.
		var names []string
		for _, m := range last {
			names = append(names, methodWords(m))
		}
		words := "Delete " + series(names)
		switch {
		case len(last) == 1:
		case list.Default == "":
			words += " (if one of them is the default method, it goes last)"
		default:
			words += " (one of them is the default method and goes last)"
		}
		p.Steps = append(p.Steps, removalStep(opDeleteMethods, words, last...))
	}
	p.Steps = append(p.Steps, revokeStep(s),
		approvals.Step{Op: opVerifyRemoval, Words: "List the methods again and check that these are gone"})
	// What cannot be removed does not keep the rest from being removed, and
	// the report says so.
	for i := range p.Steps {
		p.Steps[i].CarryOn = true
	}

	for _, m := range kept {
		p.Keeps = append(p.Keeps, methodWords(m))
	}
	p.Keeps = append(p.Keeps, "app passwords, if there are any (Graph does not show them)")
	p.Warnings = warnReregister(s, list, doomed, kept)
	if everything {
		p.Title, p.Args = "Remove EVERY method", "everything"
		p.Warnings = append(warnEverything(extras, kept), p.Warnings...)
	}
	return p, nil
}

// beyondPortal says that a kind of method is deleted only on the explicit
// word: the Entra admin center leaves it alone.
func beyondPortal(k entra.Kind) bool {
	switch k {
	case entra.KindPasskey, entra.KindWindowsHello, entra.KindPlatformCredential, entra.KindExternal, entra.KindQRCode, entra.KindPass, entra.KindEmail:
		return true
	}
	return false
}

// warnEverything is what makes the card of the louder plan unlike that of the
// usual one.
func warnEverything(extras, kept []entra.Method) []string {
	all := "EVERYTHING goes, not only what the Entra admin center removes"
	var names []string
	for _, m := range extras {
		names = append(names, methodWords(m))
	}
	if len(names) > 0 {
		all += ": also " + series(names)
	}
	w := []string{all + "."}
	if slices.ContainsFunc(extras, isStrong) {
		w = append(w, "Whoever signs in without a password (passkey, Windows Hello) cannot do so afterwards, and may be locked out until somebody issues a Temporary Access Pass.")
	}
	if i := slices.IndexFunc(kept, func(m entra.Method) bool { return m.Kind == entra.KindUnknown }); i >= 0 {
		w = append(w, "Countersign does not know “"+methodWords(kept[i])+"” and cannot remove it: look at it in the Entra admin center.")
	}
	return w
}

func warnReregister(s subject, list entra.MethodList, doomed, kept []entra.Method) []string {
	var w []string
	if !slices.ContainsFunc(kept, isStrong) {
		w = append(w, "No MFA method is left afterwards: whoever has the password can register new ones.")
	}
	for _, m := range kept {
		if m.Kind == entra.KindPass && m.Usable {
			w = append(w, "A "+methodWords(m)+" stays: whoever has it can sign in and register methods.")
		}
	}
	if slices.ContainsFunc(doomed, func(m entra.Method) bool { return m.Kind == entra.KindPhone }) {
		w = append(w, "Have them register a passkey or the Authenticator app instead of a phone: Microsoft's SMS and voice end on "+smsEnds+".")
	}
	if !s.user.Enabled {
		w = append(w, "The account is blocked from signing in and stays so.")
	}
	w = append(w, warnSessions(s)...)
	for _, g := range list.Gaps {
		w = append(w, gapWords(g))
	}
	return w
}

// deleteRank orders the deletions: the mobile cannot go before the alternate
// mobile, and what is most likely the default goes last.
func deleteRank(m entra.Method) int {
	switch {
	case m.Kind == entra.KindPhone && m.PhoneType == "mobile":
		return 2
	case m.Kind == entra.KindPhone && m.PhoneType == "alternateMobile":
		return 0
	case m.Kind == entra.KindPhone:
		return 1
	case m.Kind == entra.KindSoftwareOATH:
		return 3
	}
	return 4
}

// defaultAmong tells which methods may be the default one. Graph names the
// type only, and sometimes not even that; then any of them may be.
func defaultAmong(l entra.MethodList) func(entra.Method) bool {
	phone := func(t string) func(entra.Method) bool {
		return func(m entra.Method) bool { return m.Kind == entra.KindPhone && m.PhoneType == t }
	}
	switch l.Default {
	case "push":
		return func(m entra.Method) bool { return m.Kind == entra.KindAuthenticator }
	case "oath":
		return func(m entra.Method) bool {
			return m.Kind == entra.KindAuthenticator || m.Kind == entra.KindSoftwareOATH || m.Kind == entra.KindHardwareOATH
		}
	case "sms", "voiceMobile":
		return phone("mobile")
	case "voiceAlternateMobile":
		return phone("alternateMobile")
	case "voiceOffice":
		return phone("office")
	}
	unknown := l.Default != "" || len(l.Gaps) > 0
	return func(m entra.Method) bool {
		return unknown && slices.Contains([]entra.Kind{entra.KindPhone, entra.KindAuthenticator, entra.KindSoftwareOATH}, m.Kind)
	}
}

// asDefault marks words for a method as the default one.
func asDefault(words string) string {
	if inner, ok := strings.CutSuffix(words, ")"); ok {
		return inner + ", the default method)"
	}
	return words + " (the default method)"
}

// removal is one method that a step removes, as its Args hold it.
type removal struct {
	ID    string     `json:"id"`
	Kind  entra.Kind `json:"kind"`
	Mark  string     `json:"mark"`
	Words string     `json:"words"`

	deactivates bool // it is a token that stays assigned
}

func removalStep(op, words string, methods ...entra.Method) approvals.Step {
	var rs []removal
	for _, m := range methods {
		rs = append(rs, removal{ID: m.ID, Kind: m.Kind, Mark: mark(m), Words: methodWords(m)})
	}
	data, err := json.Marshal(rs)
	if err != nil {
		panic(err) // four strings
	}
	return approvals.Step{Op: op, Args: map[string]string{"methods": string(data)}, Words: words}
}

func removals(s approvals.Step) []removal {
	var rs []removal
	if s.Op != opDeleteMethods && s.Op != opDeactivateToken {
		return nil
	}
	if err := json.Unmarshal([]byte(s.Args["methods"]), &rs); err != nil {
		panic(fmt.Sprintf("commands: the arguments of a stored step: %v", err)) // stored sealed, so nobody changed them
	}
	for i := range rs {
		rs[i].deactivates = s.Op == opDeactivateToken
	}
	return rs
}

func changesOfRemoval(s approvals.Step) []string {
	changed := []string{factDefault}
	for _, r := range removals(s) {
		changed = append(changed, factMethod+r.ID)
	}
	return changed
}

// mark is the same for a method as long as it is the same one. An id is not
// enough: every mobile number of every person has the same.
func mark(m entra.Method) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{string(m.Kind), m.ID, m.Phone, m.Email, m.Serial}, "\x00")))
	return hex.EncodeToString(sum[:8])
}

// goneFrom says that what was to be removed is not there any more. A method
// that took its place is not it.
func (r removal) goneFrom(l entra.MethodList) (bool, error) {
	i := slices.IndexFunc(l.Methods, func(m entra.Method) bool { return m.ID == r.ID && mark(m) == r.Mark })
	switch {
	case i >= 0:
		return r.deactivates && !l.Methods[i].Usable, nil
	case r.Kind == entra.KindHardwareOATH && len(l.Gaps) > 0:
		return false, errors.New(strings.Join(l.Gaps, "; "))
	}
	return true, nil
}

// remove makes one change that removes a method, deletion or deactivation,
// and settles what is in doubt about it. A method that is not there counts as
// removed.
func (t *Tenant) remove(ctx context.Context, id string, r removal, change func(context.Context) error) approvals.Result {
	return repeatable(ctx,
		func(ctx context.Context) error {
			if err := change(ctx); !errors.Is(err, entra.ErrNotFound) {
				return err
			}
			return errAlready
		},
		func(ctx context.Context) (bool, error) {
			list, err := t.graph.Methods(ctx, id)
			if err != nil {
				return false, err
			}
			return r.goneFrom(list)
		})
}

// deleteMethods deletes the methods of one step.
func deleteMethods(ctx context.Context, t *Tenant, job approvals.Job) approvals.Result {
	id, planned := job.Request.Plan.Target.ID, removals(job.Request.Plan.Steps[job.Step])
	if job.Request.Verified != approvals.VerifiedCompromise {
		return t.deleteEach(ctx, id, planned)
	}
	// Such a plan was not compared with the account. What has taken the place
	// of a planned method was not approved to go, and is reported in the end.
	list, err := t.graph.Methods(ctx, id)
	if err != nil {
		got := resultOf(err)
		if got.State != approvals.StepThrottled {
			got.State = approvals.StepFailed
		}
		return got
	}
	return t.deleteEach(ctx, id, slices.DeleteFunc(planned, func(r removal) bool {
		gone, err := r.goneFrom(list)
		return err == nil && gone
	}))
}

// deleteMethodsAgain finishes what a worker that is gone has begun.
func deleteMethodsAgain(ctx context.Context, t *Tenant, job approvals.Job) approvals.Result {
	left, unknown := t.left(ctx, job)
	switch {
	case unknown != nil:
		return *unknown
	case job.ReadOnly && len(left) > 0:
		return partly(removals(job.Request.Plan.Steps[job.Step]), left)
	}
	got := t.deleteEach(ctx, job.Request.Plan.Target.ID, left)
	if got.State == approvals.StepAlready {
		got.State = approvals.StepDone // by whom, nobody knows
	}
	return got
}

// partly is the result of a step that stays as it is: all that it was to
// delete, and what is left of that.
func partly(all, left []removal) approvals.Result {
	var gone, there []string
	for _, r := range all {
		if slices.Contains(left, r) {
			there = append(there, r.Words)
		} else {
			gone = append(gone, r.Words)
		}
	}
	got := notApplied()
	if len(gone) > 0 {
		got.Detail += " " + sentence("Gone: "+series(gone)) + " " + sentence("Still there: "+series(there))
	}
	return got
}

// deleteEach deletes methods one after the other. Where one of several is the
// default method, Graph refuses it until the others are gone: it is tried
// again as long as others still go.
func (t *Tenant) deleteEach(ctx context.Context, id string, all []removal) approvals.Result {
	sum := approvals.Result{State: approvals.StepAlready, Detail: "It was not there any more."}
	var details []string
	failed := func(r removal, got approvals.Result) {
		if len(all) > 1 {
			got.Detail = sentence(r.Words + ": " + got.Detail)
		}
		details = append(details, got.Detail)
		if sum.State != approvals.StepUncertain { // which wins: somebody has to look
			sum = got
		}
	}
	todo, touched := all, false
	for progress := true; progress && len(todo) > 0; {
		var refused []removal
		var results []approvals.Result
		for _, r := range todo {
			var status int
			got := t.remove(ctx, id, r, func(ctx context.Context) error {
				err := t.graph.DeleteMethod(ctx, id, r.Kind, r.ID)
				if e, ok := errors.AsType[*entra.Error](err); ok {
					status = e.Status
				}
				return err
			})
			switch {
			case got.State == approvals.StepThrottled:
				got.Unsure = got.Unsure || touched // what is deleted will be found gone
				return got
			case (got.State == approvals.StepFailed || got.State == approvals.StepUncertain) && status == http.StatusBadRequest:
				refused, results = append(refused, r), append(results, got)
			case got.State == approvals.StepDone && sum.State == approvals.StepAlready:
				sum = got
			case got.State != approvals.StepDone && got.State != approvals.StepAlready:
				failed(r, got)
			}
			touched = touched || got.State != approvals.StepFailed
		}
		progress = len(refused) < len(todo)
		if todo = refused; !progress {
			for i, r := range refused {
				failed(r, results[i])
			}
		}
	}
	if len(details) > 0 {
		sum.Detail = strings.Join(details, " ")
	}
	return sum
}

// deactivateToken makes a hardware token useless without taking it away.
func deactivateToken(ctx context.Context, t *Tenant, job approvals.Job) approvals.Result {
	id := job.Request.Plan.Target.ID
	r := removals(job.Request.Plan.Steps[job.Step])[0]
	got := t.remove(ctx, id, r, func(ctx context.Context) error { return t.graph.DeactivateHardwareToken(ctx, id, r.ID) })
	if got.State == approvals.StepFailed {
		// Graph may refuse to deactivate what is not active.
		if left, unknown := t.left(ctx, job); unknown == nil && len(left) == 0 {
			return approvals.Result{State: approvals.StepAlready, Detail: "It was not active any more."}
		}
	}
	return got
}

// deactivateTokenAgain finishes what a worker that is gone has begun.
func deactivateTokenAgain(ctx context.Context, t *Tenant, job approvals.Job) approvals.Result {
	left, unknown := t.left(ctx, job)
	switch {
	case unknown != nil:
		return *unknown
	case len(left) == 0:
		return approvals.Result{State: approvals.StepDone}
	case job.ReadOnly:
		return notApplied()
	}
	return deactivateToken(ctx, t, job)
}

// left tells what a step was to remove and is still there, or what to report
// when that cannot be found out.
func (t *Tenant) left(ctx context.Context, job approvals.Job) (left []removal, unknown *approvals.Result) {
	list, err := t.graph.Methods(ctx, job.Request.Plan.Target.ID)
	if errors.Is(err, entra.ErrNotFound) {
		return nil, nil // with the account
	}
	for _, r := range removals(job.Request.Plan.Steps[job.Step]) {
		if err != nil {
			break
		}
		var gone bool
		if gone, err = r.goneFrom(list); err == nil && !gone {
			left = append(left, r)
		}
	}
	if err == nil {
		return left, nil
	}
	got := unknownResult(err)
	return nil, &got
}

// verifyRemoval lists the methods again and tells what is still there and
// what is new. It changes nothing.
func verifyRemoval(ctx context.Context, t *Tenant, job approvals.Job) approvals.Result {
	r := job.Request
	for pause := time.Second; ; pause *= 2 {
		list, err := t.graph.Methods(ctx, r.Plan.Target.ID)
		if err != nil {
			got := resultOf(err)
			if got.State != approvals.StepThrottled {
				got.State = approvals.StepFailed
				got.Detail = "The methods could not be listed again: " + got.Detail
			}
			return got
		}
		var left, news []string
		lagging := false // still listed although Graph confirmed that it is gone
		for i, step := range r.Plan.Steps {
			for _, m := range removals(step) {
				gone, err := m.goneFrom(list)
				if err != nil {
					left = append(left, m.Words+" (cannot be seen)")
				} else if !gone {
					left = append(left, m.Words)
					s := r.Journal[i].State
					lagging = lagging || s == approvals.StepDone || s == approvals.StepAlready
				}
			}
		}
		if lagging && pause < 8*time.Second && wait(ctx, pause) {
			continue
		}
		for _, m := range list.Methods {
			before, known := r.Plan.Assumes[factMethod+m.ID]
			if !known || !sameMethod(before, methodFact(m)) {
				news = append(news, methodWords(m))
			}
		}
		var detail []string
		if len(left) > 0 {
			detail = append(detail, sentence("Still there: "+series(left)))
		}
		whose := "Make sure that it was the person themselves."
		if r.Verified == approvals.VerifiedCompromise {
			whose = "It may be the intruder's: ask again to have it removed."
		}
		if len(news) > 0 {
			detail = append(detail, sentence("Registered since the plan was made: "+series(news)), whose)
		}
		state := approvals.StepDone
		if len(left) > 0 || len(news) > 0 && r.Verified == approvals.VerifiedCompromise {
			state = approvals.StepFailed
		}
		return approvals.Result{State: state, Detail: strings.Join(detail, " ")}
	}
}
