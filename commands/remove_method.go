package commands

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"countersign/approvals"
	"countersign/entra"
)

func removeMethod() Command {
	permissions := append(ofTarget(), entra.CallListMethods.Permission(), entra.CallListHardware.Permission(), entra.CallReadDefault.Permission())
	for _, k := range removableKinds() {
		call, _ := entra.DeleteCall(k)
		permissions = append(permissions, call.Permission())
	}
	return Command{
		Name:   "remove-method",
		Title:  "Remove one method",
		Usage:  "@user [method] [verified=callback] [ticket=INC-7] [why]",
		Does:   "delete one authentication method of any kind",
		Class:  approvals.ClassDestroy,
		Target: true,
		Args:   []Arg{methodArg()},
		Help: "Deletes one authentication method and leaves the others alone. Name it as the methods card shows it: by its kind (passkey, office phone), the end of its number (••42), or the " +
			"name of its device in quotation marks (“iPad Air”). If nothing is named, you choose from a list. Entra deletes the default method only as the last one, and a mobile number only " +
			"behind the alternate mobile: the plan says so. A hardware token is taken away from the person and stays in the tenant. A password cannot be removed. The sessions that are " +
			"signed in go on.",
		Permissions: permissions,
		plan:        planRemoveMethod,
	}
}

// removableKinds are the kinds of which Microsoft Graph deletes one.
func removableKinds() []entra.Kind {
	return []entra.Kind{entra.KindPhone, entra.KindEmail, entra.KindAuthenticator, entra.KindSoftwareOATH, entra.KindHardwareOATH, entra.KindPasskey,
		entra.KindWindowsHello, entra.KindPlatformCredential, entra.KindPass, entra.KindExternal, entra.KindQRCode}
}

// Choice is one method to choose from.
type Choice struct {
	Ref   string // names it to Parse and to Arg.Read; the same as long as the method is there
	Words string // what people read
}

// Removable lists what can be removed from an account, by object id, in the
// order of the methods card. Of a protected target it lists nothing: it
// returns the refusal that Plan would return.
func (t *Tenant) Removable(ctx context.Context, userID string) ([]Choice, error) {
	user, err := t.user(ctx, userID)
	if err != nil {
		return nil, err
	}
	protected, _, err := t.protection(ctx, user.ID)
	if err != nil {
		return nil, err
	}
	if len(protected) > 0 {
		return nil, refuseProtected(person(user))
	}
	list, err := t.graph.Methods(ctx, user.ID)
	if err != nil {
		return nil, lookUp(err)
	}
	var choices []Choice
	for _, m := range sortedMethods(list) {
		if _, ok := entra.DeleteCall(m.Kind); ok {
			choices = append(choices, Choice{refOf(m), capitalised(methodWords(m))})
		}
	}
	return choices, nil
}

// refOf names a method of an account in one word. It tells nothing about the
// method but its kind.
func refOf(m entra.Method) string {
	sum := sha256.Sum256([]byte(string(m.Kind) + "\x00" + m.ID))
	return string(m.Kind) + "-" + hex.EncodeToString(sum[:4])
}

var methodRef = regexp.MustCompile(`^[a-z]+(-[a-z]+)*-[0-9a-f]{8}$`)

func methodArg() Arg {
	return Arg{Field: FieldMethod, Words: "Method to remove", Hint: "Name its kind, the end of its number, or its device in quotation marks, or leave it out to choose from a list.", Required: true,
		find: findMethod,
		read: func(typed string) (string, string) {
			value := strings.TrimSpace(strings.Trim(typed, quotationMarks+"`,; "))
			if len(nameWords(value)) == 0 {
				return "", "That names no method. Name its kind, the end of its number, or its device in quotation marks."
			}
			return value, ""
		}}
}

// kindNames are what people call a kind of method, in squeezed words; a space
// is where they put one or a hyphen.
func kindNames(m entra.Method) []string {
	switch m.Kind {
	case entra.KindPhone:
		switch m.PhoneType {
		case "mobile":
			return []string{"mobile phone", "phone", "mobile", "cell"}
		case "alternateMobile":
			return []string{"alternate mobile phone", "alternate phone", "phone", "alternate"}
		case "office":
			return []string{"office phone", "phone", "office"}
		}
		return []string{"phone"}
	case entra.KindEmail:
		return []string{"reset e mail", "reset email", "e mail", "email", "mail"}
	case entra.KindAuthenticator:
		return []string{"microsoft authenticator app", "authenticator app"}
	case entra.KindSoftwareOATH:
		return []string{"software oath token", "token"}
	case entra.KindHardwareOATH:
		return []string{"hardware oath token", "token"}
	case entra.KindPasskey:
		return []string{"passkey", "fido2 security key", "fido"}
	case entra.KindWindowsHello:
		return []string{"windows hello for business", "hello", "whfb"}
	case entra.KindPlatformCredential:
		return []string{"platform credential"}
	case entra.KindPass:
		return []string{"temporary access pass", "pass", "tap"}
	case entra.KindExternal:
		return []string{"external authentication method"}
	case entra.KindQRCode:
		return []string{"qr code pin", "qr"}
	case entra.KindPassword:
		return []string{"password"}
	}
	return nil
}

// kindWord says that a word belongs to the name of some kind.
func kindWord(word string) bool {
	kinds := append(removableKinds(), entra.KindPassword)
	return slices.ContainsFunc(kinds, func(k entra.Kind) bool {
		return slices.ContainsFunc([]string{"mobile", "alternateMobile", "office"}, func(phone string) bool {
			return slices.ContainsFunc(kindNames(entra.Method{Kind: k, PhoneType: phone}), func(name string) bool {
				return slices.Contains(strings.Fields(name), word)
			})
		})
	})
}

// findMethod finds where what names a method ends: words for a kind, a name
// in quotation marks, the end of a number, an id. Any other word is the
// beginning of the justification, and the method is chosen from a list.
func findMethod(text []symbol) (n int, sentence string) {
	for at := 0; at < len(text); {
		if space(text[at]) {
			at++
			continue
		}
		if quotationMark(text[at]) {
			end := slices.IndexFunc(text[at+1:], quotationMark)
			if end < 0 {
				return len(text), "The quotation mark in front of the method's name is never closed."
			}
			return at + 1 + end + 1, "" // a name is the last thing
		}
		length := wordLength(text[at:])
		if !methodWord(text[at:at+length], n == 0) {
			break
		}
		at += length
		n = at
	}
	return n, ""
}

// methodWord says that a word without quotation marks is part of what names
// a method.
func methodWord(symbols []symbol, first bool) bool {
	word := strings.Trim(textOf(symbols), "`,;:.()")
	mentioned := slices.ContainsFunc(symbols, func(s symbol) bool { return s.mention != "" })
	switch parts := nameWords(word); {
	case mentioned || len(parts) == 0 && !strings.ContainsRune(word, '•'):
		return false
	case strings.ContainsAny(word, "•…") || address.MatchString(word) || numberWord.MatchString(word) && strings.ContainsFunc(word, isDigit) && (!first || strings.HasPrefix(word, "+")):
		return true // the end of a number, as it is masked, or all of it
	case first && (methodRef.MatchString(word) || longID.MatchString(word) && strings.ContainsFunc(word, unicode.IsDigit)):
		return true
	default:
		return !slices.ContainsFunc(parts, func(s string) bool { return !kindWord(s) })
	}
}

// longID is what Graph's ids of methods look like.
var longID = regexp.MustCompile(`^[\w+/=-]{16,}$`)

// nameWords are the words and numbers of a name, in lower case, without what
// is set between them.
func nameWords(s string) []string {
	return strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.Is(unicode.M, r) })
}

// named says that what somebody wrote names this method: its reference, its
// id, its whole number or address, or words all of which are in its kind or
// in what the methods card shows of it. When a pass ends is no part of its name:
// “••42” means a number, also where there is a pass that is valid until 09:42.
func names(typed string, m entra.Method) bool {
	switch {
	case typed == refOf(m), typed == m.ID,
		m.Email != "" && sameAddress(typed, m.Email),
		m.Phone != "" && len(digitsOf(typed)) >= 7 && samePhone(typed, m.Phone):
		return true
	case methodRef.MatchString(typed):
		return false
	}
	shown := nameWords(kindWords(m))
	if m.Kind != entra.KindPass {
		shown = append(shown, nameWords(whichWords(m))...)
	}
	for _, name := range kindNames(m) {
		shown = append(shown, strings.Fields(name)...)
	}
	return !slices.ContainsFunc(nameWords(typed), func(word string) bool { return !slices.Contains(shown, word) })
}

func planRemoveMethod(ctx context.Context, t *Tenant, s subject) (approvals.Plan, error) {
	list, err := t.graph.Methods(ctx, s.user.ID)
	if err != nil {
		return approvals.Plan{}, lookUp(err)
	}
	m, err := theMethod(s, list)
	if err != nil {
		return approvals.Plan{}, err
	}
	if no := mustStay(s, list, m); no != nil {
		return approvals.Plan{}, no
	}
	words := "Delete " + methodWords(m)
	if m.Kind == entra.KindHardwareOATH {
		words = "Take " + methodWords(m) + " away from the person"
	}
	p := approvals.Plan{Args: refOf(m), Assumes: factsOfMethods(s.user, list), Steps: []approvals.Step{
		removalStep(opDeleteMethods, words, m),
		{Op: opVerifyRemoval, Words: "List the methods again and check that it is gone"},
	}}
	var kept []entra.Method
	for _, k := range list.Methods {
		if k.ID != m.ID || k.Kind != m.Kind {
			kept = append(kept, k)
			p.Keeps = append(p.Keeps, methodWords(k))
		}
	}
	p.Keeps = append(p.Keeps, "the sessions that are signed in (“Revoke sessions” ends them)")
	p.Warnings = warnRemoval(s, list, m, kept)
	return p, nil
}

// theMethod is the one that was named. What fits several, or none, is told
// with what there is, and never guessed.
func theMethod(s subject, list entra.MethodList) (entra.Method, error) {
	typed := s.Args[FieldMethod]
	all := sortedMethods(list)
	var fit []entra.Method
	for _, m := range all {
		if names(typed, m) {
			fit = append(fit, m)
		}
	}
	if len(fit) == 1 && typed != "" {
		return fit[0], nil
	}
	refuse := func(format string, a ...any) error {
		return approvals.Refuse(approvals.CodeNoSteps, "%s%s", fmt.Sprintf(format, a...), gapSentences(list))
	}
	if len(fit) > 1 && typed != "" {
		return entra.Method{}, refuse("“%s” may be several methods of %s: %s. Say which one, or leave it out and choose from the list.", shownName(typed), s.person, series(allWords(fit)))
	}
	removable := slices.DeleteFunc(slices.Clone(all), func(m entra.Method) bool { _, ok := entra.DeleteCall(m.Kind); return !ok })
	if len(removable) == 0 {
		return entra.Method{}, &NothingToDo{fmt.Sprintf("There is nothing to remove: %s has no authentication method that can be.%s", s.person, gapSentences(list))}
	}
	return entra.Method{}, refuse("%s has no method that “%s” names. There are: %s.", s.person, shownName(typed), series(allWords(removable)))
}

// shownName is what somebody typed for a method, without numbers and
// addresses that may be in it.
func shownName(typed string) string { return masked(typed, 60) }

func allWords(methods []entra.Method) []string {
	var words []string
	for _, m := range methods {
		words = append(words, methodWords(m))
	}
	return words
}

// mustStay says why a method cannot be removed, and what to do instead.
func mustStay(s subject, list entra.MethodList, m entra.Method) error {
	refuse := func(format string, a ...any) error {
		return approvals.Refuse(approvals.CodeNoSteps, format, a...)
	}
	if _, ok := entra.DeleteCall(m.Kind); !ok {
		if m.Kind == entra.KindPassword {
			return refuse("A password cannot be removed, only reset. To keep %s from signing in, block sign-in.", s.person)
		}
		return refuse("Countersign does not know how methods of the type %s are removed. An Authentication Administrator removes it in the Entra admin center.", kindWords(m))
	}
	if _, has := phoneOf(list, "alternateMobile"); has && m.Kind == entra.KindPhone && m.PhoneType == "mobile" {
		return refuse("Entra keeps the mobile number as long as there is an alternate mobile. Remove the alternate mobile first, or replace the mobile by another number with “Add or replace phone”.")
	}
	if isDefault, others := defaultFor(list, m); isDefault && len(others) > 0 {
		return refuse("Entra deletes the default method only as the last one: %s is the default of %s, who has others: %s. Remove these first, or have the person choose another default at mysignins.microsoft.com/security-info.",
			methodWords(m), s.person, series(allWords(others)))
	}
	return nil
}

// defaultFor says whether m is certainly the default method, and what else
// Entra would want to be gone before it. Several methods can stand behind one
// default; then it is not certain.
func defaultFor(list entra.MethodList, m entra.Method) (certain bool, others []entra.Method) {
	isDefault, candidates := defaultAmong(list), 0
	for _, o := range list.Methods {
		if isDefault(o) && (o.Kind != entra.KindHardwareOATH || o.Usable) {
			candidates++
		}
		if (o.ID != m.ID || o.Kind != m.Kind) && canBeDefault(o) {
			others = append(others, o)
		}
	}
	return list.Default != "" && isDefault(m) && candidates == 1, others
}

// canBeDefault says that a method can be the default one at all.
func canBeDefault(m entra.Method) bool {
	return m.Kind == entra.KindPhone || m.Kind == entra.KindAuthenticator || m.Kind == entra.KindSoftwareOATH || m.Kind == entra.KindHardwareOATH && m.Usable
}

func warnRemoval(s subject, list entra.MethodList, m entra.Method, kept []entra.Method) (w []string) {
	certain, others := defaultFor(list, m)
	switch {
	case certain && slices.ContainsFunc(kept, func(m entra.Method) bool { return isStrong(m) }):
		w = append(w, "It is the default method. Microsoft does not say whether Entra deletes it while other kinds of methods are there; the report will tell.")
	case !certain && defaultAmong(list)(m) && len(others) > 0:
		w = append(w, "It may be the default method. Then Entra refuses to delete it as long as others are there, and nothing is changed.")
	}
	switch {
	case m.Kind != entra.KindPhone && !isStrong(m): // it was no MFA method
	case slices.ContainsFunc(kept, isStrong):
	case slices.ContainsFunc(kept, func(m entra.Method) bool { return m.Kind == entra.KindPhone }):
		w = append(w, "SMS or voice is the only MFA method left afterwards, and Microsoft ends its SMS and voice on "+smsEnds+".")
	default:
		w = append(w, "No MFA method is left afterwards: whoever has the password can register new ones.")
	}
	switch m.Kind {
	case entra.KindHardwareOATH:
		w = append(w, "The token stays in the tenant's inventory and can be given to somebody else.")
	case entra.KindPasskey, entra.KindWindowsHello, entra.KindPlatformCredential:
		w = append(w, "What is on the device stays there and no longer opens anything.")
	case entra.KindPass:
		w = append(w, "Whoever signed in with the pass stays signed in until it would have ended.")
	}
	return append(w, warnOfAccount(s, list)...)
}

// capitalised begins with a capital letter.
func capitalised(s string) string { return strings.TrimSuffix(sentence(s), ".") }
