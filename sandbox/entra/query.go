package entra

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// advancedQuery reports whether the request enables Graph's advanced queries, with the header ConsistencyLevel and $count=true
// (Graph, "Advanced query capabilities on Microsoft Entra ID objects").
func (c *call) advancedQuery() bool {
	return c.hasConsistencyLevel() && c.query.Get("$count") == "true"
}

func (c *call) hasConsistencyLevel() bool {
	return strings.EqualFold(c.header.Get("ConsistencyLevel"), "eventual")
}

// selected reduces an object to $select; annotations are kept.
func (c *call) selected(o Properties) Properties {
	names := c.selection()
	if len(names) == 0 {
		return o
	}
	return pick(o, names)
}

func (c *call) selection() []string {
	var names []string
	for name := range strings.SplitSeq(c.query.Get("$select"), ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

func pick(o Properties, names []string) Properties {
	var p Properties
	for _, x := range o {
		if strings.HasPrefix(x.Name, "@") || slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, x.Name) }) {
			p = append(p, x)
		}
	}
	return p
}

// page returns $top objects of the list, starting at $skiptoken, and the link to the next page.
func (c *call) page(list []Properties) ([]Properties, string, error) {
	size, from := 100, 0
	if s := c.query.Get("$top"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 999 {
			return nil, "", badRequest("Invalid page size specified: '%s'. Must be between 1 and 999 inclusive.", s)
		}
		size = n
	}
	if s := c.query.Get("$skiptoken"); s != "" {
		b, err := base64.RawURLEncoding.DecodeString(s)
		if err == nil {
			from, err = strconv.Atoi(strings.TrimPrefix(string(b), "from "))
		}
		if err != nil || from < 0 || from > len(list) {
			return nil, "", badRequest("The skip token is not valid.")
		}
	}
	list = list[from:]
	if len(list) <= size {
		return list, "", nil
	}
	q := url.Values{}
	for name, values := range c.query {
		q[name] = values
	}
	q.Set("$skiptoken", base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "from %d", from+size)))
	return list[:size], c.root + c.url.EscapedPath() + "?" + q.Encode(), nil
}

// condition reports whether an object matches.
type condition func(Properties) bool

// filter is a parsed $filter.
type filter struct {
	matches    condition
	properties []string          // properties used in it
	advanced   string            // the first property used in a way that only an advanced query allows, or ""
	equals     map[string]string // top-level "name eq 'value'" terms, with names in lower case
}

// allowed refuses an advanced filter unless the request enables advanced queries.
func (f *filter) allowed(c *call) error {
	if f.advanced != "" && !c.advancedQuery() {
		return unsupportedQuery("Unsupported or invalid query filter clause specified for property '%s' of resource 'User'.", f.advanced)
	}
	return nil
}

// parseFilter parses the part of OData's $filter that directory objects support: eq, ne, in, startswith, endswith, any, and, or, not.
func parseFilter(text string, filterable []string) (*filter, error) {
	p := &filterParser{text: text, filterable: filterable, f: &filter{equals: map[string]string{}}}
	p.next()
	matches := p.or(true)
	if p.err == nil && p.token != "" {
		p.fail("Invalid filter clause: unexpected '%s'.", p.token)
	}
	if p.err != nil {
		return nil, p.err
	}
	p.f.matches = matches
	return p.f, nil
}

type filterParser struct {
	text       string // the unread rest
	token      string // a word, a symbol, or a string with its leading quote; "" at the end
	filterable []string
	f          *filter
	err        error
}

func (p *filterParser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = badRequest(format, args...)
	}
	p.text, p.token = "", ""
}

// next reads one token. Quotes within a string are doubled.
func (p *filterParser) next() {
	p.text = strings.TrimLeftFunc(p.text, unicode.IsSpace)
	if p.text == "" {
		p.token = ""
		return
	}
	if p.text[0] == '\'' {
		var b strings.Builder
		b.WriteByte('\'')
		for i := 1; i < len(p.text); i++ {
			if p.text[i] != '\'' {
				b.WriteByte(p.text[i])
			} else if i+1 < len(p.text) && p.text[i+1] == '\'' {
				b.WriteByte('\'')
				i++
			} else {
				p.token, p.text = b.String(), p.text[i+1:]
				return
			}
		}
		p.fail("Invalid filter clause: there is an unterminated string literal.")
		return
	}
	end := strings.IndexFunc(p.text, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune("(),:/'", r) })
	switch {
	case end == 0:
		end = 1
	case end < 0:
		end = len(p.text)
	}
	p.token, p.text = p.text[:end], p.text[end:]
}

func (p *filterParser) take(token string) bool {
	if strings.EqualFold(p.token, token) {
		p.next()
		return true
	}
	return false
}

func (p *filterParser) need(token string) {
	if !p.take(token) {
		p.fail("Invalid filter clause: '%s' expected before '%s'.", token, p.token+p.text)
	}
}

// or, and, not follow OData's precedence. top is true while the term is combined only with "and" at the top level.
func (p *filterParser) or(top bool) condition {
	left := p.and(top)
	for p.take("or") {
		p.f.equals = map[string]string{}
		l, r := left, p.and(false)
		left = func(o Properties) bool { return l(o) || r(o) }
	}
	return left
}

func (p *filterParser) and(top bool) condition {
	left := p.not(top)
	for p.take("and") {
		l, r := left, p.not(top)
		left = func(o Properties) bool { return l(o) && r(o) }
	}
	return left
}

func (p *filterParser) not(top bool) condition {
	if p.take("not") {
		inner := p.not(false)
		p.requireAdvanced("not")
		return func(o Properties) bool { return !inner(o) }
	}
	if p.take("(") {
		inner := p.or(false)
		p.need(")")
		return inner
	}
	return p.term(top)
}

func (p *filterParser) term(top bool) condition {
	word := p.token
	p.next()
	if strings.EqualFold(word, "startswith") || strings.EqualFold(word, "endswith") {
		p.need("(")
		name := p.property()
		p.need(",")
		value := p.literal()
		p.need(")")
		has := hasPrefixFold
		if strings.EqualFold(word, "endswith") {
			has = hasSuffixFold
			p.requireAdvanced(name)
		}
		return func(o Properties) bool {
			return slices.ContainsFunc(texts(o, name), func(s string) bool { return has(s, value) })
		}
	}
	name := p.check(word)
	if p.take("/") {
		return p.any(name)
	}
	op := strings.ToLower(p.token)
	p.next()
	switch op {
	case "eq", "ne":
		value := p.literal()
		if op == "eq" && top {
			p.f.equals[strings.ToLower(name)] = value
		}
		if op == "ne" {
			p.requireAdvanced(name)
		}
		return func(o Properties) bool { return (op == "eq") == isEqual(o, name, value) }
	case "in":
		p.need("(")
		values := []string{p.literal()}
		for p.take(",") {
			values = append(values, p.literal())
		}
		p.need(")")
		return func(o Properties) bool {
			return slices.ContainsFunc(values, func(v string) bool { return isEqual(o, name, v) })
		}
	}
	p.fail("Invalid filter clause: the sandbox does not support the operator '%s'.", op)
	return nil
}

// any parses name/any(x:x eq 'v') or name/any(x:startswith(x,'v')).
func (p *filterParser) any(name string) condition {
	p.need("any")
	p.need("(")
	variable := p.token
	p.next()
	p.need(":")
	has := func(s, v string) bool { return strings.EqualFold(s, v) }
	var value string
	if p.take("startswith") {
		has = hasPrefixFold
		p.need("(")
		p.need(variable)
		p.need(",")
		value = p.literal()
		p.need(")")
	} else {
		p.need(variable)
		p.need("eq")
		value = p.literal()
	}
	p.need(")")
	if strings.EqualFold(name, "proxyAddresses") {
		p.requireAdvanced(name)
	}
	return func(o Properties) bool {
		return slices.ContainsFunc(texts(o, name), func(s string) bool { return has(s, value) })
	}
}

func (p *filterParser) property() string {
	word := p.token
	p.next()
	return p.check(word)
}

// check refuses a property that is not filterable.
func (p *filterParser) check(word string) string {
	if p.err != nil {
		return word
	}
	if !slices.ContainsFunc(p.filterable, func(n string) bool { return strings.EqualFold(n, word) }) {
		p.fail("Invalid filter clause: the sandbox cannot filter by the property '%s'.", word)
		return word
	}
	p.f.properties = append(p.f.properties, word)
	return word
}

// literal returns a string, or a bare word such as true, false or null.
func (p *filterParser) literal() string {
	if p.token == "" || strings.ContainsAny(p.token, "(),:/") && p.token[0] != '\'' {
		p.fail("Invalid filter clause: a value is missing before '%s'.", p.token+p.text)
		return ""
	}
	value := strings.TrimPrefix(p.token, "'")
	p.next()
	return value
}

func (p *filterParser) requireAdvanced(name string) {
	if p.f.advanced == "" {
		p.f.advanced = name
	}
}

// texts returns the values of a property as text; none for null.
func texts(o Properties, name string) []string {
	switch v, _ := o.Get(name); v := v.(type) {
	case nil:
		return nil
	case []string:
		return v
	default:
		return []string{fmt.Sprint(v)}
	}
}

func isEqual(o Properties, name, value string) bool {
	list := texts(o, name)
	if len(list) == 0 {
		return value == "null"
	}
	return slices.ContainsFunc(list, func(s string) bool { return strings.EqualFold(s, value) })
}

func hasPrefixFold(s, prefix string) bool {
	return strings.HasPrefix(strings.ToLower(s), strings.ToLower(prefix))
}

func hasSuffixFold(s, suffix string) bool {
	return strings.HasSuffix(strings.ToLower(s), strings.ToLower(suffix))
}

// search applies $search of directory objects: "property:words" clauses in double quotes, joined by AND or OR. Each of the words
// must be the prefix of a word in the property.
func (c *call) search(list []Properties, properties ...string) ([]Properties, error) {
	if !c.query.Has("$search") {
		return list, nil
	}
	if !c.hasConsistencyLevel() {
		return nil, unsupportedQuery("Request with $search query parameter only works through MSGraph with a special request header: 'ConsistencyLevel: eventual'")
	}
	text := strings.TrimSpace(c.query.Get("$search"))
	var alternatives [][]condition
	join := "OR"
	for text != "" {
		clause, rest, ok := strings.Cut(strings.TrimPrefix(text, `"`), `"`)
		name, words, isPair := strings.Cut(clause, ":")
		if text[0] != '"' || !ok || !isPair || !slices.Contains(properties, name) {
			return nil, &graphError{http.StatusBadRequest, "BadRequest", "Syntax error in $search: clauses of the form \"property:words\" are expected, in double quotes, for " +
				strings.Join(properties, ", ") + "."}
		}
		want := wordsOf(words)
		matches := func(o Properties) bool {
			have := wordsOf(strings.Join(texts(o, name), " "))
			for _, w := range want {
				if !slices.ContainsFunc(have, func(h string) bool { return strings.HasPrefix(h, w) }) {
					return false
				}
			}
			return len(want) > 0
		}
		if join == "AND" {
			last := len(alternatives) - 1
			alternatives[last] = append(alternatives[last], matches)
		} else {
			alternatives = append(alternatives, []condition{matches})
		}
		if text = strings.TrimSpace(rest); text == "" {
			break
		}
		join, text, _ = strings.Cut(text, " ")
		if text = strings.TrimSpace(text); join != "AND" && join != "OR" || text == "" {
			return nil, badRequest("Syntax error in $search: AND or OR expected between clauses.")
		}
	}
	return slices.DeleteFunc(slices.Clone(list), func(o Properties) bool {
		return !slices.ContainsFunc(alternatives, func(all []condition) bool {
			return !slices.ContainsFunc(all, func(matches condition) bool { return !matches(o) })
		})
	}), nil
}

func wordsOf(s string) []string {
	return strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r) })
}
