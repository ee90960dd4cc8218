package commands

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/nyaruka/phonenumbers"
	"golang.org/x/text/language"
	"golang.org/x/text/language/display"

	"countersign/approvals"
	"countersign/entra"
)

func addPhone() Command {
	return Command{
		Name:   "add-phone",
		Title:  "Add or replace phone",
		Usage:  "@user mobile|alternate|office +1 4255551234 [verified=callback] [ticket=INC-7] [why]",
		Does:   "add a phone number for MFA and password reset, or replace the one of that type",
		Class:  approvals.ClassTakeover,
		Target: true,
		Args:   []Arg{phoneTypeArg(), numberArg()},
		Help: "Adds a phone number as an authentication method, or replaces the number of that type if there is one: a person has at most one mobile, one alternate mobile and one " +
			"office number. Write the number with its country code; spaces, dashes and parentheses do not matter. The plan says which country it belongs to and what kind of number it " +
			"is. A mobile gets SMS and calls, the other two get calls only. Whoever holds the phone can answer MFA and reset the password with it, so make sure who is asking, and never " +
			"take the new number's own word for it. Microsoft's SMS and voice end on " + smsEnds + ".",
		Permissions: append(ofTarget(), entra.CallListMethods.Permission(), entra.CallListHardware.Permission(), entra.CallReadDefault.Permission(),
			entra.CallAddPhone.Permission(), entra.CallReplacePhone.Permission()),
		plan: planAddPhone,
	}
}

const opSetPhone = "set-phone"

func phoneTypeArg() Arg {
	return Arg{Field: FieldPhoneType, Words: "Type of phone", Hint: "Choose mobile, alternate or office.", Required: true,
		Choices: []ArgChoice{
			{"mobile", "Mobile: SMS and calls", []string{"mobilephone", "cell", "cellphone"}},
			{"alternate", "Alternate mobile: calls only", []string{"alternatemobile"}},
			{"office", "Office: calls only", []string{"officephone"}},
		}}
}

// graphPhoneType is Graph's word for a type.
func graphPhoneType(value string) string {
	if value == "alternate" {
		return "alternateMobile"
	}
	return value
}

func numberArg() Arg {
	return Arg{Field: FieldNumber, Words: "Phone number", Hint: "Write it with its country code, as in +1 425 555 1234.", Required: true,
		find: findNumber, read: func(typed string) (string, string) {
			n, sentence := readNumber(typed)
			return n.String(), sentence
		}}
}

// number is a telephone number that exists as far as the numbering plans
// tell.
type number struct {
	country, national, extension string
	parsed                       *phonenumbers.PhoneNumber
}

// String is the number as Graph wants it: "+1 4255551234x12", with the space
// (https://learn.microsoft.com/graph/api/resources/phoneauthenticationmethod).
func (n number) String() string {
	if n.country == "" {
		return ""
	}
	s := "+" + n.country + " " + n.national
	if n.extension != "" {
		s += "x" + n.extension
	}
	return s
}

// graphNumber is what Graph takes.
var graphNumber = regexp.MustCompile(`^\+[1-9][0-9]{0,2} [0-9]{4,15}(x[0-9]{1,10})?$`)

// readNumber reads a number in any usual writing. A country code is never
// guessed: to the wrong one belongs somebody else's phone.
func readNumber(typed string) (number, string) {
	const asIn = "Write it with its country code, as in +1 425 555 1234."
	text := strings.TrimPrefix(strings.TrimSpace(strings.ToLower(typed)), "tel:")
	text = strings.TrimSpace(strings.Trim(text, "\"“”„`*.,; "))
	shown := Plain(typed, 40)
	switch bare := strings.TrimLeft(text, "( "); {
	case !soleNumber.MatchString(text):
		return number{}, fmt.Sprintf("“%s” is not a phone number: letters and other signs cannot be dialled. %s", shown, asIn)
	case strings.HasPrefix(bare, "+"), strings.HasPrefix(bare, "＋"):
	case strings.HasPrefix(bare, "00"):
		text = strings.Replace(text, "00", "+", 1)
	default:
		return number{}, fmt.Sprintf("“%s” has no country code, and Countersign does not guess one. %s", shown, asIn)
	}
	p, err := phonenumbers.Parse(text, "")
	switch {
	case errors.Is(err, phonenumbers.ErrInvalidCountryCode):
		return number{}, fmt.Sprintf("“%s” does not begin with the code of any country. %s", shown, asIn)
	case err != nil:
		return number{}, fmt.Sprintf("“%s” cannot be read as a phone number. %s", shown, asIn)
	}
	n := number{fmt.Sprint(p.GetCountryCode()), phonenumbers.GetNationalSignificantNumber(p), p.GetExtension(), p}
	switch phonenumbers.IsPossibleNumberWithReason(p) {
	case phonenumbers.TOO_SHORT:
		return number{}, fmt.Sprintf("“%s” has too few digits for a number that begins with +%s. Is one missing?", shown, n.country)
	case phonenumbers.TOO_LONG:
		return number{}, fmt.Sprintf("“%s” has too many digits for a number that begins with +%s. Is there one too many?", shown, n.country)
	}
	switch {
	case !phonenumbers.IsValidNumber(p):
		return number{}, fmt.Sprintf("“%s” is not a number that exists in the numbering plan of +%s. Check it digit by digit.", shown, n.country)
	case !graphNumber.MatchString(n.String()):
		return number{}, fmt.Sprintf("“%s” is in a form that Entra does not take: it wants a country code, up to 15 digits, and an extension of up to 10.", shown)
	}
	return n, ""
}

// soleNumber is what may stand in a number: digits, what people set between
// them, and an extension. Letters, which some phones have on their keys, are
// not taken for digits.
var soleNumber = regexp.MustCompile(`^[+＋(]?[-\p{Nd}\s()+./‐‑‒–—]*\p{Nd}[)\s]*((x|ext\.?|extension|#|;ext=)[\s.:]*\p{Nd}+)?$`)

// findNumber finds where a number begins and ends. Where words follow, the
// number has to end where only one can end: whatever is taken for its last
// digits leads to another phone.
func findNumber(text []symbol) (n int, sentence string) {
	ends := numberEnds(text)
	if len(ends) == 0 {
		return 0, ""
	}
	n = ends[len(ends)-1]
	rest := text[n:]
	for len(rest) > 0 && space(rest[0]) {
		rest = rest[1:]
	}
	if len(rest) == 0 || namesKey.MatchString(textOf(rest[:wordLength(rest)])) {
		return n, ""
	}
	var valid []string
	for _, end := range ends {
		if number, sentence := readNumber(textOf(text[:end])); sentence == "" && !slices.Contains(valid, number.String()) {
			valid = append(valid, number.String())
		}
	}
	_, whole := readNumber(textOf(text[:n]))
	if len(valid) > 1 || len(valid) == 1 && whole != "" {
		return n, `It is not clear where the number ends and the justification begins. Write the number without spaces, and the justification as why="…".`
	}
	return n, ""
}

var (
	namesKey   = regexp.MustCompile(`^\pL+=`)
	numberWord = regexp.MustCompile(`^[-\p{Nd}()+＋./‐‑‒–—#x]+$`)
	// extension is a word that makes the next digits one, or that holds them.
	extension = regexp.MustCompile(`^(x|ext\.?|extension):?$|^(x|ext\.?)\p{Nd}+$`)
	telephone = regexp.MustCompile(`^tel:`)
)

// numberEnds is where what may be a number may end: behind each of its words.
// It does not end before an extension that is called one. Nothing that has
// neither a plus sign nor five digits is a number.
func numberEnds(text []symbol) (ends []int) {
	digits, plus, extended := 0, false, false
	for n := 0; n < len(text); {
		if space(text[n]) {
			n++
			continue
		}
		length := wordLength(text[n:])
		word := strings.ToLower(textOf(text[n : n+length]))
		if len(ends) == 0 {
			word = strings.TrimLeft(telephone.ReplaceAllString(word, ""), "\"“”„`*")
		}
		closed := strings.TrimRight(word, "\"“”„`*.,;:")
		mentioned := slices.ContainsFunc(text[n:n+length], func(s symbol) bool { return s.mention != "" })
		joined := extension.MatchString(word) && len(ends) > 0
		inner := strings.NewReplacer(";ext=", "x", "ext.", "x", "ext", "x").Replace(closed)
		if mentioned || !joined && (!numberWord.MatchString(inner) || len(ends) == 0 && strings.HasPrefix(inner, "x")) ||
			len(ends) > 0 && strings.ContainsAny(word, "+＋") {
			break
		}
		n += length
		digits += len(digitsOf(word))
		plus = plus || strings.ContainsAny(word, "+＋")
		extended = extended || joined
		if strings.ContainsFunc(word, isDigit) || len(ends) == 0 {
			if extended && len(ends) > 0 {
				ends, extended = ends[:len(ends)-1], false
			}
			ends = append(ends, n)
		}
		if closed != word && !joined {
			break // a comma ends it
		}
	}
	if digits == 0 || digits < 5 && !plus {
		return nil
	}
	return ends
}

func isDigit(r rune) bool { return digit.MatchString(string(r)) }

var digit = regexp.MustCompile(`^\p{Nd}$`)

func digitsOf(s string) string { return strings.Map(keep(isDigit), s) }

func keep(f func(rune) bool) func(rune) rune {
	return func(r rune) rune {
		if !f(r) {
			return -1
		}
		return r
	}
}

// where says in words which country a number belongs to and what kind it is.
func (n number) where() string {
	country := "no country (an international or satellite service)"
	if region, err := language.ParseRegion(phonenumbers.GetRegionCodeForNumber(n.parsed)); err == nil && region.IsCountry() {
		country = display.English.Regions().Name(region)
	}
	words := country + ", " + n.kind()
	if n.extension != "" {
		words += " with an extension"
	}
	return words
}

func (n number) kind() string {
	switch phonenumbers.GetNumberType(n.parsed) {
	case phonenumbers.MOBILE:
		return "mobile number"
	case phonenumbers.FIXED_LINE:
		return "landline number"
	case phonenumbers.FIXED_LINE_OR_MOBILE:
		return "mobile or landline number"
	case phonenumbers.TOLL_FREE:
		return "toll-free number"
	case phonenumbers.PREMIUM_RATE:
		return "premium-rate number"
	case phonenumbers.SHARED_COST:
		return "shared-cost number"
	case phonenumbers.VOIP:
		return "internet telephony (VoIP) number"
	case phonenumbers.PERSONAL_NUMBER:
		return "personal number that forwards elsewhere"
	case phonenumbers.PAGER:
		return "pager"
	case phonenumbers.UAN:
		return "company-wide number"
	case phonenumbers.VOICEMAIL:
		return "voicemail access number"
	}
	return "number of an unknown kind"
}

// planAddPhone decides by what is there whether a number is added or
// replaced; the type of a number cannot change.
func planAddPhone(ctx context.Context, t *Tenant, s subject) (approvals.Plan, error) {
	n, sentence := readNumber(s.Args[FieldNumber])
	if sentence != "" {
		return approvals.Plan{}, approvals.Refuse(approvals.CodeMissing, "%s", sentence)
	}
	kind := graphPhoneType(s.Args[FieldPhoneType])
	list, err := t.graph.Methods(ctx, s.user.ID)
	if err != nil {
		return approvals.Plan{}, lookUp(err)
	}
	old, replaces := phoneOf(list, kind)
	_, hasMobile := phoneOf(list, "mobile")
	added := entra.Method{Kind: entra.KindPhone, Phone: n.String(), PhoneType: kind}
	switch {
	case replaces && samePhone(old.Phone, n.String()):
		return approvals.Plan{}, &NothingToDo{fmt.Sprintf("There is nothing to do: %s is already the %s number of %s.", old.Masked(), phoneType(kind), s.person)}
	case kind == "alternateMobile" && !hasMobile:
		return approvals.Plan{}, approvals.Refuse(approvals.CodeNoSteps, "%s has no mobile number, and Entra takes an alternate mobile only beside one. Add this number as mobile, or add a mobile first.", s.person)
	}

	step := approvals.Step{Op: opSetPhone, Words: fmt.Sprintf("Add %s: %s", methodWords(added), n.where()),
		Args: map[string]string{"type": kind, "new": n.String()}}
	if replaces {
		by := added.Masked()
		if by == old.Masked() {
			by += ", another number with the same ending"
		}
		step.Args["id"], step.Args["old"] = old.ID, old.Phone
		step.Words = fmt.Sprintf("Replace %s by %s: %s", methodWords(old), by, n.where())
	}
	p := approvals.Plan{Args: s.Args[FieldPhoneType] + " " + n.String(), Steps: []approvals.Step{step}, Assumes: factsOfMethods(s.user, list)}
	for _, m := range list.Methods {
		if m.ID != old.ID || !replaces {
			p.Keeps = append(p.Keeps, methodWords(m))
		}
	}
	p.Keeps = append(p.Keeps, "the sessions that are signed in")
	p.Warnings = warnPhone(s, list, n, kind, old)
	return p, nil
}

func warnPhone(s subject, list entra.MethodList, n number, kind string, old entra.Method) []string {
	w := []string{"Whoever holds this phone can answer MFA and reset the password with it. Make sure that it is theirs: a number that the caller gave has proved nothing."}
	for _, m := range list.Methods {
		if m.Kind == entra.KindPhone && m.PhoneType != kind && samePhone(m.Phone, n.String()) {
			w = append(w, fmt.Sprintf("The same number is already there as %s: it adds no second way to sign in.", phoneType(m.PhoneType)))
		}
	}
	switch phonenumbers.GetNumberType(n.parsed) {
	case phonenumbers.MOBILE, phonenumbers.FIXED_LINE_OR_MOBILE:
	case phonenumbers.FIXED_LINE:
		if kind != "office" {
			w = append(w, "This is a landline number: it gets calls, and usually no SMS.")
		}
	default:
		w = append(w, fmt.Sprintf("This is a %s: not what a person usually carries. Ask why before you approve it.", n.kind()))
	}
	switch {
	case n.extension != "" && kind != "office":
		w = append(w, "The number has an extension, which SMS cannot reach.")
	case kind != "mobile":
		w = append(w, sentence(fmt.Sprintf("%s number gets calls only, no SMS", map[bool]string{true: "an office", false: "an alternate mobile"}[kind == "office"])))
	}
	if kind == "mobile" {
		switch old.Status {
		case "ready":
			w = append(w, "The present number is set up for SMS sign-in, which takes no password. Entra tries to set up the new one for it as well.")
		case "notEnabled", "notConfigured", "phoneNumberNotUnique":
			w = append(w, "The tenant lets this person sign in by SMS, without a password. Entra tries to set up the new number for it.")
		}
	}
	w = append(w, "Microsoft's SMS and voice end on "+smsEnds+": have them register a passkey or the Authenticator app as well.")
	return append(w, warnOfAccount(s, list)...)
}

// warnOfAccount is what an approver should know whatever method is changed.
func warnOfAccount(s subject, list entra.MethodList) (w []string) {
	if !s.user.Enabled {
		w = append(w, warnBlocked)
	}
	for _, g := range list.Gaps {
		w = append(w, gapWords(g))
	}
	return w
}

// phoneOf is the number of a type. An account has at most one.
func phoneOf(l entra.MethodList, kind string) (entra.Method, bool) {
	return methodThat(l, func(m entra.Method) bool { return m.Kind == entra.KindPhone && m.PhoneType == kind })
}

func methodThat(l entra.MethodList, is func(entra.Method) bool) (entra.Method, bool) {
	if i := slices.IndexFunc(l.Methods, is); i >= 0 {
		return l.Methods[i], true
	}
	return entra.Method{}, false
}

// samePhone compares two numbers without what is set between the digits.
func samePhone(a, b string) bool {
	dialled := func(s string) string {
		return strings.Map(keep(func(r rune) bool { return isDigit(r) || r == 'x' || r == '+' }), strings.ToLower(s))
	}
	return dialled(a) == dialled(b)
}

// phoneSetting is a step that sets a phone.
func (t *Tenant) phoneSetting(job approvals.Job) setting {
	id, args := job.Request.Plan.Target.ID, job.Request.Plan.Steps[job.Step].Args
	return setting{
		what: "number", old: args["old"], new: args["new"], same: samePhone,
		write: func(ctx context.Context) error {
			if args["old"] == "" {
				return t.graph.AddPhone(ctx, id, args["type"], args["new"])
			}
			return t.graph.ReplacePhone(ctx, id, args["id"], args["type"], args["new"])
		},
		read: func(ctx context.Context) (string, error) {
			list, err := t.graph.Methods(ctx, id)
			m, _ := phoneOf(list, args["type"])
			return m.Phone, err
		},
	}
}

func setPhone(ctx context.Context, t *Tenant, job approvals.Job) approvals.Result {
	return t.smsSignIn(ctx, job, t.phoneSetting(job).set(ctx))
}

func setPhoneAgain(ctx context.Context, t *Tenant, job approvals.Job) approvals.Result {
	return t.smsSignIn(ctx, job, t.phoneSetting(job).reconcile(ctx, job.ReadOnly))
}

// smsSignIn adds to the result of a new mobile number whether Entra has set
// it up for signing in by SMS. It does so by itself where the tenant allows
// it, and fails silently where the number is somebody else's, too.
func (t *Tenant) smsSignIn(ctx context.Context, job approvals.Job, got approvals.Result) approvals.Result {
	args := job.Request.Plan.Steps[job.Step].Args
	if got.State != approvals.StepDone || args["type"] != "mobile" {
		return got
	}
	list, err := t.graph.Methods(ctx, job.Request.Plan.Target.ID)
	if err != nil {
		return got // the number is set, and that is what was asked
	}
	m, _ := phoneOf(list, "mobile")
	say := ""
	switch {
	case !samePhone(m.Phone, args["new"]):
	case m.Status == "ready":
		say = "Entra has set the number up for SMS sign-in, too, which takes no password."
	case m.Status == "phoneNumberNotUnique":
		say = "Entra could not set it up for SMS sign-in, because another account uses the same number: find out whose."
	}
	got.Detail = strings.TrimSpace(got.Detail + " " + say)
	return got
}

func changesOfPhone(s approvals.Step) []string {
	changed := []string{factDefault}
	if id := s.Args["id"]; id != "" {
		changed = append(changed, factMethod+id)
	}
	return changed
}

// setting is one value of an account that a step puts in the place of
// another, or where there was none.
type setting struct {
	what     string // "number" or "address", for sentences
	old, new string // old is empty where there was none
	same     func(a, b string) bool
	read     func(context.Context) (string, error) // the value that is there, empty where there is none
	write    func(context.Context) error
}

// set writes the value. If it is unknown whether it was written, the account is
// read: the step is done if the account has the new value, the value is written
// once more if the account has the old one, and otherwise people have to check.
func (s setting) set(ctx context.Context) approvals.Result {
	// What the first attempt leaves of the time is for finding out.
	first, cancel := half(ctx)
	err := s.write(first)
	cancel()
	if !unanswered(err) {
		return s.resultOfAnswer(ctx, err)
	}
	doubt := resultOf(err)
	if got, settled := s.readBack(ctx, doubt); settled {
		return got
	}
	err = s.write(ctx)
	if unanswered(err) {
		if got, settled := s.readBack(ctx, resultOf(err)); settled {
			return late(got, doubt)
		}
		return late(resultOf(err), doubt)
	}
	return late(s.resultOfAnswer(ctx, err), doubt)
}

// resultOfAnswer is the result of a write that Graph answered. Graph refuses to
// add a value that is there already.
func (s setting) resultOfAnswer(ctx context.Context, err error) approvals.Result {
	got := resultOf(err)
	if !mayBeAlready(err) {
		return got
	}
	if value, err := s.read(ctx); err == nil && s.same(value, s.new) {
		return approvals.Result{State: approvals.StepAlready, Detail: fmt.Sprintf("The %s was there already.", s.what)}
	}
	return got
}

// readBack reads the account after an unanswered write. The outcome is known
// unless the old value is still there.
func (s setting) readBack(ctx context.Context, doubt approvals.Result) (got approvals.Result, settled bool) {
	ctx, cancel := half(ctx)
	defer cancel()
	value, err := s.read(ctx)
	switch {
	case err == nil && s.same(value, s.new):
		return approvals.Result{State: approvals.StepDone, Detail: "Microsoft Graph's answer was lost, but the account shows that it was done."}, true
	case err == nil && s.same(value, s.old):
		return approvals.Result{}, false
	case err == nil:
		return s.differentValue(), true
	case errors.Is(err, entra.ErrThrottled):
		return unread(err, doubt), true
	case doubt.State == approvals.StepUncertain:
		doubt.Detail += " Reading the account failed too, so look at it in the Entra admin center."
	}
	return doubt, true
}

// reconcile determines the outcome of a step that was started and has none.
func (s setting) reconcile(ctx context.Context, lookOnly bool) approvals.Result {
	value, err := s.read(ctx)
	switch {
	case errors.Is(err, entra.ErrNotFound):
		return approvals.Result{State: approvals.StepFailed, Detail: "The account does not exist any more."}
	case err != nil:
		return unknownResult(err)
	case s.same(value, s.new):
		return approvals.Result{State: approvals.StepDone}
	case !s.same(value, s.old):
		return s.differentValue()
	case lookOnly:
		return notApplied()
	}
	return s.set(ctx)
}

func (s setting) differentValue() approvals.Result {
	return approvals.Result{State: approvals.StepUncertain,
		Detail: fmt.Sprintf("The %s is now neither the one from before nor the one that was to be set: somebody else changed it at the same time. Look at the account in the Entra admin center.", s.what)}
}

// unknownResult is the result of a step that was started, if the account cannot
// be read.
func unknownResult(err error) approvals.Result {
	got := resultOf(err)
	if got.State != approvals.StepThrottled {
		got.State = approvals.StepUncertain
		got.Detail = "Countersign was interrupted in this step and cannot see what became of it: " + got.Detail
	}
	return got
}

// notApplied is the result of a step that was started, did not take effect, and
// must not be taken any more.
func notApplied() approvals.Result {
	return approvals.Result{State: approvals.StepFailed, Detail: "Countersign was interrupted before all of this step took effect, and did not carry on with it."}
}
