package commands

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// MaxArg is how long an argument may be, in characters.
const MaxArg = 200

// Arg is one argument of a command, beside the person it acts on. Its value
// in Input.Args is canonical: two ways to write the same are one value.
//
// Arguments stand behind the person and before the justification, in any
// order. Each can also be given by its name, as in number="+1 4255551234",
// and has to be where it could be taken for something else.
type Arg struct {
	Field    Field
	Words    string      // what it is: the label of its box in the modal
	Hint     string      // what to write, as a sentence
	Choices  []ArgChoice // what there is to choose from; nil where anything may be typed
	Required bool

	// find says how many symbols of text belong to the argument, or that none
	// do because text begins with something else; a sentence says why what
	// stands there cannot be taken. nil finds one word that is a choice.
	find func(text []symbol) (n int, sentence string)
	// read makes the canonical value of all that was typed, or a sentence that
	// says what to type instead. nil reads a choice.
	read func(typed string) (value, sentence string)
}

// ArgChoice is one of the values that an argument may have.
type ArgChoice struct {
	Value string // what is typed and stored
	Words string // what people choose from and read

	also []string // what else people type for it
}

// Read makes the canonical value of what somebody typed for this argument
// alone, such as into its box in a modal. The sentence is empty, or tells
// them what to type instead. Nothing typed is no value and no problem.
func (a Arg) Read(typed string) (value, sentence string) {
	typed = Plain(typed, 0)
	switch {
	case typed == "":
		return "", ""
	case len([]rune(typed)) > MaxArg:
		return "", fmt.Sprintf("That is longer than %d characters. %s", MaxArg, a.Hint)
	case a.read != nil:
		return a.read(typed)
	}
	if c, ok := a.choice(typed); ok {
		return c, ""
	}
	return "", fmt.Sprintf("“%s” is not one of the choices. %s", Plain(typed, 40), a.Hint)
}

// choice finds the choice that somebody means by a word.
func (a Arg) choice(typed string) (string, bool) {
	word := normalized(typed)
	for _, c := range a.Choices {
		if normalized(c.Value) == word || slices.ContainsFunc(c.also, func(s string) bool { return normalized(s) == word }) {
			return c.Value, true
		}
	}
	return "", false
}

// normalized leaves the lower-case letters and digits of s: “Alternate-Mobile”
// and “alternateMobile” are the same word.
func normalized(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, s)
}

// begins is find with the rule for choices in it.
func (a Arg) begins(text []symbol) (n int, sentence string) {
	if a.find != nil {
		return a.find(text)
	}
	n = wordLength(text)
	word := normalized(textOf(text[:n]))
	if _, ok := a.choice(word); ok {
		return n, ""
	}
	// What is optional is not missed by anybody: a word that resembles it is
	// the beginning of the justification.
	if a.Required && len(word) > 3 && slices.ContainsFunc(a.Choices, func(c ArgChoice) bool { return distance(word, normalized(c.Value)) == 1 }) {
		return n, fmt.Sprintf("“%s” is not known. %s", Plain(textOf(text[:n]), 40), a.Hint)
	}
	return 0, ""
}

// wordLength is how many symbols stand before the next space.
func wordLength(text []symbol) int {
	if end := slices.IndexFunc(text, space); end >= 0 {
		return end
	}
	return len(text)
}

// argument reads the argument that stands here, if one does that was not
// read before.
func (p *parser) argument(in *Input) bool {
	for _, a := range p.command.Args {
		if in.Args[a.Field] != "" {
			continue
		}
		n, sentence := a.begins(p.text)
		if n == 0 {
			continue
		}
		typed := textOf(p.text[:n])
		p.text = p.text[n:]
		if sentence == "" {
			var value string
			if value, sentence = a.Read(typed); sentence == "" {
				in.setArg(a.Field, value)
			}
		}
		if sentence != "" {
			p.problem(a.Field, "%s", sentence)
		}
		return true
	}
	return false
}

// named reads the value of an argument that was given by its name.
func (p *parser) named(in *Input, k key, typed string) {
	i := slices.IndexFunc(p.command.Args, func(a Arg) bool { return a.Field == k.field })
	value, sentence := p.command.Args[i].Read(typed)
	if sentence != "" {
		p.problem(k.field, "%s", sentence)
		return
	}
	got := in.Args[k.field]
	p.set(&got, k, value)
	in.setArg(k.field, got)
}

// setArg sets one argument; nothing is no argument.
func (in *Input) setArg(f Field, value string) {
	if value == "" {
		return
	}
	if in.Args == nil {
		in.Args = map[Field]string{}
	}
	in.Args[f] = value
}

// argKeys are the keys by which arguments can be named.
func (p *parser) argKeys() []key {
	var ks []key
	for _, a := range p.command.Args {
		ks = append(ks, key{name: string(a.Field), field: a.Field, example: fmt.Sprintf(`%s="…"`, a.Field)})
	}
	return ks
}
