package commands

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"countersign/approvals"
)

// Limits on what people type, in characters. Modals use the same ones.
const (
	MaxTicket        = 80
	MaxJustification = 1000
)

// Ref is a person as somebody named them. At most one of Slack, ObjectID and
// Name is set.
type Ref struct {
	Slack    string // Slack user id of a mention
	ObjectID string // Entra object id, in lower case
	Name     string // UPN or e-mail address
	Typed    string // what was typed, for messages
}

// Empty reports whether nobody was named.
func (r Ref) Empty() bool { return r.Slack == "" && r.ObjectID == "" && r.Name == "" }

// Input is what somebody requested, read from the text of a slash command or
// from a modal.
type Input struct {
	Command       Command
	Target        Ref
	Args          map[Field]string // canonical values of the command's own arguments
	Rest          []string         // all words, for commands that act on nobody
	Ticket        string
	Verified      string // the Value of a Verification
	Justification string
	BreakGlass    bool // run it before it is approved: break-glass was typed
}

// BreakGlassWord is the word that runs a containment before it is approved.
const BreakGlassWord = "break-glass"

// Problem is a part of the text that is not valid. Sentence tells the person
// what to type instead.
type Problem struct {
	Field    Field
	Sentence string
}

// Parse reads the text behind a slash command of an app whose manifest says
// should_escape, as Slack sends it
// (https://docs.slack.dev/interactivity/implementing-slash-commands): the
// target first, then the command's own arguments and break-glass, then ticket=,
// verified= and the justification in any order.
//
// What is wrong is a Problem; what is only missing is not (see Missing). The
// Input holds everything that could be read, so that a modal can be filled
// in with it. Parse accepts any text.
func Parse(c Command, text string) (Input, []Problem) {
	in := Input{Command: c}
	p := parser{text: unescape(text), command: c}
	if !c.Target {
		in.Rest = strings.Fields(Plain(textOf(p.text), 0))
		return in, nil
	}
	var why []string
	inArgs := true // until a word is none
	for first := true; p.next(); {
		if k, ok := p.key(); ok {
			value, ok := p.value(k)
			if !ok {
				continue
			}
			switch k.field {
			case FieldTicket:
				p.set(&in.Ticket, k, value)
			case FieldVerified:
				p.set(&in.Verified, k, p.verification(value))
			case FieldJustification:
				why = append(why, value)
			default:
				p.named(&in, k, value)
			}
			continue
		}
		from := p.text
		word := p.word()
		if p.misspelt(word) {
			continue
		}
		if first { // what is an argument may stand before the target, too
			ref, sentence := target(word)
			if sentence != "" {
				p.problem(FieldTarget, "%s", sentence)
			}
			if sentence != "" || !ref.Empty() {
				in.Target, first = ref, false
				continue
			}
		}
		if inArgs {
			behind := p.text
			p.text = from
			if p.argument(&in) {
				continue
			}
			p.text = behind
			if p.breakGlass(&in, word) {
				continue
			}
			inArgs, first = false, false
		}
		why = append(why, textOf(word))
	}
	in.Justification = Plain(strings.Join(why, " "), 0)
	if utf8.RuneCountInString(in.Justification) > MaxJustification {
		p.problem(FieldJustification, "The justification is longer than %d characters. Say it shorter, or name the ticket that has the rest.", MaxJustification)
		in.Justification = Plain(in.Justification, MaxJustification)
	}
	if utf8.RuneCountInString(in.Ticket) > MaxTicket {
		p.problem(FieldTicket, "The ticket is longer than %d characters. Give its number alone, as in ticket=INC-7.", MaxTicket)
		in.Ticket = Plain(in.Ticket, MaxTicket)
	}
	return in, p.problems
}

// String is the canonical text of in: Parse reads it back to the same Input.
func (in Input) String() string {
	if !in.Command.Target {
		return escape(Plain(strings.Join(in.Rest, " "), 0))
	}
	var target, keys, args, named, breakGlass []string
	if in.BreakGlass {
		breakGlass = []string{BreakGlassWord}
	}
	switch {
	case in.Target.Slack != "":
		target = []string{"<@" + in.Target.Slack + ">"}
	case in.Target.ObjectID != "":
		target = []string{in.Target.ObjectID}
	case in.Target.Name != "":
		name := in.Target.Name
		if strings.Contains(name, "=") {
			name = `"` + name + `"` // or it would be read as a key
		}
		target = []string{escape(name)}
	}
	for _, a := range in.Command.Args {
		if value := in.Args[a.Field]; value != "" {
			args = append(args, escape(value))
			named = append(named, string(a.Field)+"="+escape(quote(value)))
		}
	}
	if in.Verified != "" {
		keys = append(keys, "verified="+quote(in.Verified))
	}
	ticket := Plain(in.Ticket, 0)
	if ticket != "" {
		keys = append(keys, "ticket="+escape(quote(ticket)))
	}
	why := Plain(in.Justification, 0)
	var bare, quotedWhy []string
	if why != "" {
		bare, quotedWhy = []string{escape(why)}, []string{"why=" + escape(quoted(why))}
	}
	// Words that would be read as something else have to be quoted, and
	// nobody knows better than Parse which these are.
	for _, parts := range [][]string{
		slices.Concat(target, args, breakGlass, keys, bare), slices.Concat(target, args, breakGlass, keys, quotedWhy), slices.Concat(target, named, breakGlass, keys, bare),
	} {
		text := strings.Join(parts, " ")
		if again, problems := Parse(in.Command, text); len(problems) == 0 && again.Justification == why && maps.Equal(again.Args, in.Args) &&
			again.Target.Empty() == in.Target.Empty() && again.Ticket == ticket && again.Verified == in.Verified && again.BreakGlass == in.BreakGlass {
			return text
		}
	}
	return strings.Join(slices.Concat(target, named, breakGlass, keys, quotedWhy), " ")
}

// symbol is one character of what was typed, or one mention of a person.
type symbol struct {
	r       rune
	mention string // Slack user id
	label   string // of a mention: what it looked like to the person who typed it
}

var (
	mention   = regexp.MustCompile(`^@([UW][A-Z0-9]+)$`)
	objectID  = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	partialID = regexp.MustCompile(`^[0-9a-f]{4,}(-[0-9a-f]{2,}){2,}$`)
	address   = regexp.MustCompile(`^[^\s@"<>,;\\]+@[^\s@"<>,;\\.]+(\.[^\s@"<>,;\\.]+)+$`)
)

// unescape undoes what Slack does to text. A mention becomes one symbol, so
// that no typed text can pass for one; a link becomes what the person saw,
// except that an e-mail link becomes its address; white space of every kind
// becomes a space; characters nobody can see are dropped.
func unescape(text string) []symbol {
	var out []symbol
	literal := func(s string) {
		for _, r := range entities.Replace(s) {
			switch {
			case unicode.IsSpace(r):
				out = append(out, symbol{r: ' '})
			case visible(r):
				out = append(out, symbol{r: r})
			}
		}
	}
	for text != "" {
		at := strings.IndexAny(text, "<>")
		if at < 0 {
			literal(text)
			break
		}
		literal(text[:at])
		inside, rest := "", text[at+1:]
		if text[at] == '<' {
			if end := strings.IndexAny(rest, "<>"); end >= 0 && rest[end] == '>' {
				inside, rest = rest[:end], rest[end+1:]
			}
		}
		// A bracket that encloses nothing is dropped: Slack escapes those
		// that people type.
		text = rest
		link, label, labelled := strings.Cut(inside, "|")
		switch m := mention.FindStringSubmatch(link); {
		case m != nil:
			if label = Plain(entities.Replace(label), 0); label == "" {
				label = m[1]
			}
			out = append(out, symbol{mention: m[1], label: "@" + strings.TrimPrefix(label, "@")})
		case strings.HasPrefix(link, "mailto:"):
			literal(strings.TrimPrefix(link, "mailto:"))
		case strings.HasPrefix(link, "tel:") && label == "":
			literal(strings.TrimPrefix(link, "tel:"))
		case labelled && label != "":
			if strings.HasPrefix(link, "#") && !strings.HasPrefix(label, "#") {
				label = "#" + label
			}
			literal(label)
		case strings.HasPrefix(link, "!"):
			literal("@" + strings.TrimPrefix(link, "!"))
		default:
			literal(link)
		}
	}
	return out
}

var (
	entities   = strings.NewReplacer("&amp;", "&", "&lt;", "<", "&gt;", ">")
	toEntities = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")
)

func escape(s string) string { return toEntities.Replace(s) }

// textOf is what symbols look like in a sentence.
func textOf(symbols []symbol) string {
	var b strings.Builder
	for _, s := range symbols {
		if s.mention != "" {
			b.WriteString(s.label)
		} else {
			b.WriteRune(s.r)
		}
	}
	return b.String()
}

// target reads one word as a person. An empty Ref without a sentence means that
// the word does not name anybody.
func target(word []symbol) (ref Ref, sentence string) {
	is := func(set string) func(symbol) bool {
		return func(s symbol) bool { return s.mention == "" && strings.ContainsRune(set, s.r) }
	}
	opens, closes := is("\"“”„`*([{<"), is("\"“”„`*)]}>,;:.")
	for len(word) > 0 && opens(word[0]) {
		word = word[1:]
	}
	for len(word) > 0 && closes(word[len(word)-1]) {
		word = word[:len(word)-1]
	}
	if len(word) == 1 && word[0].mention != "" {
		return Ref{Slack: word[0].mention, Typed: "<@" + word[0].mention + ">"}, ""
	}
	typed := textOf(word)
	text := strings.TrimPrefix(strings.ReplaceAll(typed, "’", "'"), "mailto:")
	lower := strings.ToLower(text)
	switch {
	case slices.ContainsFunc(word, func(s symbol) bool { return s.mention != "" }):
		return Ref{Typed: typed}, fmt.Sprintf("“%s” is a mention with something attached. Leave a space on both sides of the mention.", Plain(typed, 60))
	case objectID.MatchString(lower):
		return Ref{ObjectID: lower, Typed: lower}, ""
	case partialID.MatchString(lower):
		return Ref{Typed: typed}, fmt.Sprintf("“%s” looks like an object id with something missing: it has 32 digits, as in 7a1c0c0e-5c1d-4e55-9f0e-0f1a2b3c4d5e.", Plain(typed, 60))
	case strings.HasPrefix(text, "@"):
		return Ref{Typed: typed}, fmt.Sprintf("“%s” is only text: Slack did not make a mention of it. Pick the person from the list that opens when you type @, or type their UPN.", Plain(typed, 60))
	case address.MatchString(text):
		return Ref{Name: text, Typed: text}, ""
	case strings.Contains(text, "@"):
		return Ref{Typed: typed}, fmt.Sprintf("“%s” is not a complete UPN or e-mail address. Type all of it, as in dana.whitfield@fernhill.example, or mention the person.", Plain(typed, 60))
	}
	return Ref{}, ""
}

// key is a word that gives the value behind its equals sign a meaning.
type key struct {
	name    string
	field   Field
	example string
	near    []string // what people type when they mean it
}

func keys() []key {
	return []key{
		{"ticket", FieldTicket, "ticket=INC-7", []string{"ticket"}},
		{"verified", FieldVerified, "verified=callback", []string{"verified", "verify", "verification"}},
		{"why", FieldJustification, `why="lost phone"`, []string{"reason", "justification", "because"}},
	}
}

type parser struct {
	command  Command
	text     []symbol // what is not read yet
	problems []Problem
}

func (p *parser) problem(f Field, format string, a ...any) {
	p.problems = append(p.problems, Problem{f, fmt.Sprintf(format, a...)})
}

func space(s symbol) bool { return s.mention == "" && s.r == ' ' }

// next goes to the next word and says whether there is one.
func (p *parser) next() bool {
	for len(p.text) > 0 && space(p.text[0]) {
		p.text = p.text[1:]
	}
	return len(p.text) > 0
}

// word reads up to the next space.
func (p *parser) word() []symbol {
	end := slices.IndexFunc(p.text, space)
	if end < 0 {
		end = len(p.text)
	}
	word := p.text[:end]
	p.text = p.text[end:]
	return word
}

// key reads a known key and its equals sign.
func (p *parser) key() (key, bool) {
	for _, k := range append(keys(), p.argKeys()...) {
		rest, ok := p.text, true
		for _, r := range k.name {
			if len(rest) == 0 || rest[0].mention != "" || unicode.ToLower(rest[0].r) != r {
				ok = false
				break
			}
			rest = rest[1:]
		}
		if !ok {
			continue
		}
		apart := rest
		for len(apart) > 0 && space(apart[0]) {
			apart = apart[1:]
		}
		if len(apart) > 0 && apart[0].r == '=' {
			// A space before the sign is found out by value.
			if len(apart) != len(rest) {
				apart[0] = symbol{r: ' '}
				p.text = apart
			} else {
				p.text = apart[1:]
			}
			return k, true
		}
	}
	return key{}, false
}

// value reads what stands behind a key: a word, or something in quotes.
func (p *parser) value(k key) (string, bool) {
	if len(p.text) == 0 || space(p.text[0]) {
		p.problem(k.field, "Nothing stands directly behind %s=. Write it without spaces, as in %s, and in quotes if it has spaces itself.", k.name, k.example)
		return "", false
	}
	if !quotationMark(p.text[0]) {
		value := Plain(textOf(p.word()), 0)
		if k.field != FieldJustification {
			value = strings.TrimRight(value, ",;")
		}
		return value, true
	}
	rest := p.text[1:]
	var value []symbol
	for i := 0; i < len(rest); i++ {
		switch {
		case rest[i].r == '\\' && i+1 < len(rest) && (rest[i+1].r == '\\' || quotationMark(rest[i+1])):
			i++
		case quotationMark(rest[i]) && (i+1 == len(rest) || space(rest[i+1])):
			p.text = rest[i+1:]
			return Plain(textOf(value), 0), true
		}
		value = append(value, rest[i])
	}
	p.problem(k.field, "The quotation mark behind %s= is never closed.", k.name)
	p.text = nil
	return Plain(textOf(value), 0), true
}

// set stores the value of a key that may be given once.
func (p *parser) set(at *string, k key, value string) {
	if *at != "" && value != "" && *at != value {
		p.problem(k.field, "%s= is given twice: %s and %s. Leave one out.", k.name, Plain(*at, 40), Plain(value, 40))
		return
	}
	if value != "" {
		*at = value
	}
}

// verification reads the value of verified=.
func (p *parser) verification(value string) string {
	if value == "" {
		return ""
	}
	typed := strings.Trim(strings.NewReplacer(" ", "-", "_", "-").Replace(strings.ToLower(value)), "-")
	offered := Verifications(p.command)
	if offered == nil {
		offered = waysToVerify()
	}
	var values []string
	for _, v := range offered {
		if strings.ReplaceAll(v.Value, "-", "") == strings.ReplaceAll(typed, "-", "") {
			return v.Value
		}
		values = append(values, v.Value)
	}
	last := len(values) - 1
	p.problem(FieldVerified, "“%s” is not a way to verify a caller. Write verified= with %s or %s.", Plain(value, 40), strings.Join(values[:last], ", "), values[last])
	return ""
}

// misspelt reports a word such as tikcet=INC-7, which would otherwise become
// part of the justification and leave the ticket out.
func (p *parser) misspelt(word []symbol) bool {
	name, _, found := strings.Cut(strings.ToLower(textOf(word)), "=")
	if !found || strings.IndexFunc(name, func(r rune) bool { return !unicode.IsLetter(r) }) >= 0 {
		return false
	}
	for _, k := range keys() {
		for _, meant := range k.near {
			d := distance(name, meant)
			if d > 2 || d == 2 && name[0] != meant[0] {
				continue
			}
			if k.field == FieldJustification {
				p.problem(k.field, "“%s=” is not needed: what stands behind the target and the keys is the justification.", Plain(name, 20))
			} else {
				p.problem(k.field, "“%s=” is not known. Did you mean %s?", Plain(name, 20), k.example)
			}
			return true
		}
	}
	return false
}

// breakGlass reads the word break-glass in a place for an argument. Later in the
// text it is a word of the justification.
func (p *parser) breakGlass(in *Input, word []symbol) bool {
	bare := strings.TrimRight(textOf(word), ",;:.!")
	if strings.IndexFunc(bare, func(r rune) bool { return !unicode.IsLetter(r) && !strings.ContainsRune("-_–—", r) }) >= 0 {
		return false
	}
	typed, meant := normalized(bare), normalized(BreakGlassWord)
	switch off := distance(typed, meant); {
	case in.BreakGlass || off > 2 || off > 0 && typed[0] != meant[0]:
		return false
	case off > 0:
		p.problem(FieldBreakGlass, "“%s” is not known. Did you mean %s?", Plain(bare, 40), BreakGlassWord)
	case p.command.Class != approvals.ClassContain:
		p.problem(FieldBreakGlass, "Only containment, such as blocking sign-in, can be run before it is approved. Leave %s out to ask for approval. "+
			`If it is part of the reason, write why="…" around all of that.`, BreakGlassWord)
	default:
		in.BreakGlass = true
	}
	return true
}

// distance counts the letters to add, drop, change or swap with their
// neighbour that make b out of a.
func distance(a, b string) int {
	s, t := []rune(a), []rune(b)
	if len(s) > len(t)+2 || len(t) > len(s)+2 {
		return 3 // far enough for every caller
	}
	var before, last []int
	row := make([]int, len(t)+1)
	for j := range row {
		row[j] = j
	}
	for i := range s {
		before, last, row = last, row, make([]int, len(t)+1)
		row[0] = i + 1
		for j := range t {
			change := last[j]
			if s[i] != t[j] {
				change++
			}
			row[j+1] = min(change, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && s[i] == t[j-1] && s[i-1] == t[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(t)]
}

const quotationMarks = "\"“”„‟"

func quotationMark(s symbol) bool {
	return s.mention == "" && s.r != 0 && strings.ContainsRune(quotationMarks, s.r)
}

var simple = regexp.MustCompile(`^[\w./#:+-]*\w$`)

// quote makes a value of s that can stand behind an equals sign.
func quote(s string) string {
	if simple.MatchString(s) {
		return s
	}
	return quoted(s)
}

func quoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		if r == '\\' || strings.ContainsRune(quotationMarks, r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	b.WriteByte('"')
	return b.String()
}
