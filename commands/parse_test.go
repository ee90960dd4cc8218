package commands

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func command(t testing.TB, name string) Command {
	t.Helper()
	c, ok := Lookup(name)
	if !ok {
		t.Fatalf("no command %q", name)
	}
	return c
}

func TestParse(t *testing.T) {
	const id = "7a1c0c0e-5c1d-4e55-9f0e-0f1a2b3c4d5e"
	slack := func(id string) Ref { return Ref{Slack: id, Typed: "<@" + id + ">"} }
	name := func(s string) Ref { return Ref{Name: s, Typed: s} }
	tests := map[string]struct {
		text string
		want Input
		bad  []Field // fields of the problems
	}{
		"nothing": {"", Input{}, nil},
		"spaces":  {" \u00a0\t ", Input{}, nil},

		"mention with label":      {"<@U0DANA|dana>", Input{Target: slack("U0DANA")}, nil},
		"mention without label":   {"<@U0DANA>", Input{Target: slack("U0DANA")}, nil},
		"enterprise grid id":      {"<@W012ABC>", Input{Target: slack("W012ABC")}, nil},
		"mention and comma":       {"<@U0DANA|dana>, lost phone", Input{Target: slack("U0DANA"), Justification: "lost phone"}, nil},
		"label is ignored":        {"<@U0DANA|gloria>", Input{Target: slack("U0DANA")}, nil},
		"UPN":                     {"dana.whitfield@fernhill.example lost phone", Input{Target: name("dana.whitfield@fernhill.example"), Justification: "lost phone"}, nil},
		"UPN as e-mail link":      {"<mailto:dana@fernhill.example|dana@fernhill.example> x", Input{Target: name("dana@fernhill.example"), Justification: "x"}, nil},
		"label of e-mail link":    {"<mailto:dana@fernhill.example|gloria@fernhill.example>", Input{Target: name("dana@fernhill.example")}, nil},
		"UPN with linked domain":  {"dana@<http://fernhill.example|fernhill.example> x", Input{Target: name("dana@fernhill.example"), Justification: "x"}, nil},
		"guest":                   {"pat_partner.example#EXT#@fernhill.example", Input{Target: name("pat_partner.example#EXT#@fernhill.example")}, nil},
		"guest linked in pieces":  {"<http://pat_partner.example|pat_partner.example>#<mailto:EXT#@fernhill.example|EXT#@fernhill.example>", Input{Target: name("pat_partner.example#EXT#@fernhill.example")}, nil},
		"dollar":                  {"$svc@fernhill.example", Input{Target: name("$svc@fernhill.example")}, nil},
		"apostrophe":              {"sean.o'hara@fernhill.example", Input{Target: name("sean.o'hara@fernhill.example")}, nil},
		"smart apostrophe":        {"sean.o’hara@fernhill.example can’t sign in", Input{Target: name("sean.o'hara@fernhill.example"), Justification: "can’t sign in"}, nil},
		"ampersand":               {"r&amp;d@fernhill.example R&amp;D &lt;3", Input{Target: name("r&d@fernhill.example"), Justification: "R&D <3"}, nil},
		"entity once only":        {"a@b.example &amp;lt;", Input{Target: name("a@b.example"), Justification: "&lt;"}, nil},
		"non-Latin UPN":           {"łukasz.żak@fernhill.example", Input{Target: name("łukasz.żak@fernhill.example")}, nil},
		"object id":               {strings.ToUpper(id) + " why not", Input{Target: Ref{ObjectID: id, Typed: id}, Justification: "why not"}, nil},
		"object id in braces":     {"{" + id + "}", Input{Target: Ref{ObjectID: id, Typed: id}}, nil},
		"target in code":          {"`dana@fernhill.example`", Input{Target: name("dana@fernhill.example")}, nil},
		"target in quotes":        {"“dana@fernhill.example”", Input{Target: name("dana@fernhill.example")}, nil},
		"target in brackets":      {"&lt;dana@fernhill.example&gt;", Input{Target: name("dana@fernhill.example")}, nil},
		"invisible characters":    {"dana\u200b@fern\u202ehill.example", Input{Target: name("dana@fernhill.example")}, nil},
		"no-break space":          {"<@U0DANA|dana>\u00a0lost\u202fphone", Input{Target: slack("U0DANA"), Justification: "lost phone"}, nil},
		"target behind a key":     {"verified=callback <@U0DANA>", Input{Target: slack("U0DANA"), Verified: "callback"}, nil},
		"no target":               {"lost phone", Input{Justification: "lost phone"}, nil},
		"raw at":                  {"@dana lost phone", Input{Target: Ref{Typed: "@dana"}, Justification: "lost phone"}, []Field{FieldTarget}},
		"domain without a dot":    {"dana@fernhill", Input{Target: Ref{Typed: "dana@fernhill"}}, []Field{FieldTarget}},
		"two at signs":            {"dana@a.example@b.example", Input{Target: Ref{Typed: "dana@a.example@b.example"}}, []Field{FieldTarget}},
		"half an object id":       {"7a1c0c0e-5c1d-4e55", Input{Target: Ref{Typed: "7a1c0c0e-5c1d-4e55"}}, []Field{FieldTarget}},
		"mention with a tail":     {"<@U0DANA|dana>'s", Input{Target: Ref{Typed: "@dana's"}}, []Field{FieldTarget}},
		"typed mention":           {"&lt;@U0DANA&gt;", Input{Target: Ref{Typed: "@U0DANA"}}, []Field{FieldTarget}},
		"second mention is text":  {"<@U0DANA> asked by <@U0RAVI|ravi>", Input{Target: slack("U0DANA"), Justification: "asked by @ravi"}, nil},
		"second, without a label": {"<@U0DANA> asked by <@U0RAVI>", Input{Target: slack("U0DANA"), Justification: "asked by @U0RAVI"}, nil},

		"everything": {"<@U0DANA|dana> ticket=INC-7 verified=callback lost phone",
			Input{Target: slack("U0DANA"), Ticket: "INC-7", Verified: "callback", Justification: "lost phone"}, nil},
		"keys anywhere": {"<@U0DANA|dana> lost ticket=INC-7, phone verified=Callback",
			Input{Target: slack("U0DANA"), Ticket: "INC-7", Verified: "callback", Justification: "lost phone"}, nil},
		"keys in capitals":      {"<@U1> Ticket=INC-7 VERIFIED=video", Input{Target: slack("U1"), Ticket: "INC-7", Verified: "video"}, nil},
		"linked ticket":         {"<@U1> ticket=<https://jira.fernhill.example/INC-7>", Input{Target: slack("U1"), Ticket: "https://jira.fernhill.example/INC-7"}, nil},
		"linked ticket, label":  {"<@U1> ticket=<http://INC-7.to|INC-7.to>", Input{Target: slack("U1"), Ticket: "INC-7.to"}, nil},
		"quoted":                {`<@U1> ticket="INC 7" x`, Input{Target: slack("U1"), Ticket: "INC 7", Justification: "x"}, nil},
		"smart quotes":          {`<@U1> verified=“in person” x`, Input{Target: slack("U1"), Verified: "in-person", Justification: "x"}, nil},
		"quote inside":          {`<@U1> why="he said \"help\" twice"`, Input{Target: slack("U1"), Justification: `he said "help" twice`}, nil},
		"quotes in a sentence":  {`<@U1> he said "help" twice`, Input{Target: slack("U1"), Justification: `he said "help" twice`}, nil},
		"backslash":             {`<@U1> why="C:\temp"`, Input{Target: slack("U1"), Justification: `C:\temp`}, nil},
		"empty quotes":          {`<@U1> ticket=""`, Input{Target: slack("U1")}, nil},
		"why and more":          {`<@U1> why="a b" c`, Input{Target: slack("U1"), Justification: "a b c"}, nil},
		"inperson":              {"<@U1> verified=In_Person", Input{Target: slack("U1"), Verified: "in-person"}, nil},
		"call-back":             {"<@U1> verified=call-back", Input{Target: slack("U1"), Verified: "callback"}, nil},
		"another key is words":  {"<@U1> error=50076 in a=b", Input{Target: slack("U1"), Justification: "error=50076 in a=b"}, nil},
		"ordinary words":        {"<@U1> socket=3 who=me ticker=", Input{Target: slack("U1"), Justification: "socket=3 who=me"}, []Field{FieldTicket}},
		"link in the reason":    {"<@U1> see <https://x.example/a?b=1&amp;c=2>", Input{Target: slack("U1"), Justification: "see https://x.example/a?b=1&c=2"}, nil},
		"channels and groups":   {"<@U1> <#C1|general> <#C2> <!subteam^S1|@oncall> <!here>", Input{Target: slack("U1"), Justification: "#general #C2 @oncall @here"}, nil},
		"stray brackets":        {"<@U1> a > b < c <d", Input{Target: slack("U1"), Justification: "a b c d"}, nil},
		"unknown link":          {"<@U1> <tel:+15550100|+1 555 0100> <foo>", Input{Target: slack("U1"), Justification: "+1 555 0100 foo"}, nil},
		"unknown verification":  {"<@U1> verified=trustme", Input{Target: slack("U1")}, []Field{FieldVerified}},
		"compromise":            {"<@U1> verified=compromise", Input{Target: slack("U1"), Verified: "compromise"}, nil},
		"misspelt ticket":       {"<@U1> tikcet=INC-7 x", Input{Target: slack("U1"), Justification: "x"}, []Field{FieldTicket}},
		"misspelt verified":     {"<@U1> verifed=video", Input{Target: slack("U1")}, []Field{FieldVerified}},
		"verify":                {"<@U1> verify=video", Input{Target: slack("U1")}, []Field{FieldVerified}},
		"reason":                {"<@U1> reason=phone", Input{Target: slack("U1")}, []Field{FieldJustification}},
		"misspelt before all":   {"tickets=INC-7 <@U1>", Input{Target: slack("U1")}, []Field{FieldTicket}},
		"nothing behind":        {"<@U1> ticket= INC-7", Input{Target: slack("U1"), Justification: "INC-7"}, []Field{FieldTicket}},
		"space before the sign": {"<@U1> ticket =INC-7", Input{Target: slack("U1"), Justification: "INC-7"}, []Field{FieldTicket}},
		"spaces around it":      {"<@U1> ticket = INC-7", Input{Target: slack("U1"), Justification: "INC-7"}, []Field{FieldTicket}},
		"the word ticket":       {"<@U1> ticket INC-7", Input{Target: slack("U1"), Justification: "ticket INC-7"}, nil},
		"twice the same":        {"<@U1> ticket=INC-7 ticket=INC-7", Input{Target: slack("U1"), Ticket: "INC-7"}, nil},
		"twice":                 {"<@U1> ticket=INC-7 ticket=INC-8", Input{Target: slack("U1"), Ticket: "INC-7"}, []Field{FieldTicket}},
		"open quote":            {`<@U1> ticket="INC 7`, Input{Target: slack("U1"), Ticket: "INC 7"}, []Field{FieldTicket}},
		"two problems":          {"@dana tikcet=1", Input{Target: Ref{Typed: "@dana"}}, []Field{FieldTarget, FieldTicket}},
		"long ticket":           {"<@U1> ticket=" + strings.Repeat("x", 81), Input{Target: slack("U1"), Ticket: strings.Repeat("x", 79) + "…"}, []Field{FieldTicket}},
		"long justification":    {"<@U1> " + strings.Repeat("x", 1001), Input{Target: slack("U1"), Justification: strings.Repeat("x", 999) + "…"}, []Field{FieldJustification}},
		"control characters":    {"<@U1> a\x00b\u202ec\nd", Input{Target: slack("U1"), Justification: "abc d"}, nil},
	}
	c := command(t, "require-reregister")
	for title, tt := range tests {
		t.Run(title, func(t *testing.T) {
			got, problems := Parse(c, tt.text)
			var bad []Field
			for _, p := range problems {
				bad = append(bad, p.Field)
				if !strings.HasSuffix(p.Sentence, ".") && !strings.HasSuffix(p.Sentence, "?") || len(p.Sentence) < 20 {
					t.Errorf("not a sentence: %q", p.Sentence)
				}
			}
			if !slices.Equal(bad, tt.bad) {
				t.Errorf("problems %v, want them in %v", problems, tt.bad)
			}
			if !same(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", show(got), show(tt.want))
			}
		})
	}
}

func TestParseWordsOfCommandsWithoutTarget(t *testing.T) {
	in, problems := Parse(command(t, "requests"), " mine\u00a0 <@U1|dana w>  ticket=7 &amp; ")
	if want := []string{"mine", "@dana", "w", "ticket=7", "&"}; !slices.Equal(in.Rest, want) || problems != nil {
		t.Errorf("got %q %v, want %q", in.Rest, problems, want)
	}
}

func TestCanonicalText(t *testing.T) {
	c := command(t, "require-reregister")
	dana := Ref{Slack: "U0DANA", Typed: "<@U0DANA>"}
	tests := []struct {
		in   Input
		want string
	}{
		{Input{}, ""},
		{Input{Target: dana, Verified: "callback", Ticket: "INC-7", Justification: "lost phone"}, "<@U0DANA> verified=callback ticket=INC-7 lost phone"},
		{Input{Target: dana, Ticket: "INC 7", Justification: "R&D <3"}, `<@U0DANA> ticket="INC 7" R&amp;D &lt;3`},
		{Input{Target: dana, Justification: "first\nticket=8 then"}, `<@U0DANA> why="first ticket=8 then"`},
		{Input{Justification: "@dana asked"}, `why="@dana asked"`},
		{Input{Target: Ref{Name: "ticket=a@b.example", Typed: "ticket=a@b.example"}}, `"ticket=a@b.example"`},
		{Input{Target: dana, Justification: `tikcet=“x\”`}, `<@U0DANA> why="tikcet=\“x\\\”"`},
	}
	for _, tt := range tests {
		tt.in.Command = c
		if got := tt.in.String(); got != tt.want {
			t.Errorf("%+v is written\n%s, want\n%s", show(tt.in), got, tt.want)
		}
	}
}

// The word counts where an argument could stand, and nowhere else.
func TestParseBreakGlass(t *testing.T) {
	mina := Ref{Slack: "U0MINA", Typed: "<@U0MINA>"}
	tests := map[string]struct {
		command, text string
		want          Input
		bad           []Field
	}{
		"behind the target":       {"block-signin", "<@U0MINA|mina> break-glass laptop stolen", Input{Target: mina, BreakGlass: true, Justification: "laptop stolen"}, nil},
		"before the target":       {"block-signin", "break-glass <@U0MINA|mina> laptop stolen", Input{Target: mina, BreakGlass: true, Justification: "laptop stolen"}, nil},
		"alone":                   {"block-signin", "<@U0MINA|mina> break-glass", Input{Target: mina, BreakGlass: true}, nil},
		"as people write it":      {"revoke-sessions", "<@U0MINA|mina> --Break–Glass: laptop stolen", Input{Target: mina, BreakGlass: true, Justification: "laptop stolen"}, nil},
		"behind a key":            {"block-signin", "<@U0MINA|mina> ticket=INC-7 break-glass stolen", Input{Target: mina, Ticket: "INC-7", BreakGlass: true, Justification: "stolen"}, nil},
		"in the reason":           {"block-signin", "<@U0MINA|mina> do not break-glass for this", Input{Target: mina, Justification: "do not break-glass for this"}, nil},
		"twice":                   {"block-signin", "<@U0MINA|mina> break-glass break-glass", Input{Target: mina, BreakGlass: true, Justification: "break-glass"}, nil},
		"in quotes":               {"block-signin", `<@U0MINA|mina> "break-glass" is what they shouted`, Input{Target: mina, Justification: `"break-glass" is what they shouted`}, nil},
		"behind why":              {"block-signin", `<@U0MINA|mina> why="break-glass account"`, Input{Target: mina, Justification: "break-glass account"}, nil},
		"two words":               {"block-signin", "<@U0MINA|mina> break glass of the door", Input{Target: mina, Justification: "break glass of the door"}, nil},
		"misspelt":                {"block-signin", "<@U0MINA|mina> brake-glass laptop stolen", Input{Target: mina, Justification: "laptop stolen"}, []Field{FieldBreakGlass}},
		"of another class":        {"reset-password", "<@U0MINA|mina> break-glass verified=video", Input{Target: mina, Verified: "video"}, []Field{FieldBreakGlass}},
		"in the reason elsewhere": {"reset-password", "<@U0MINA|mina> verified=video their break-glass account", Input{Target: mina, Verified: "video", Justification: "their break-glass account"}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, problems := Parse(command(t, tt.command), tt.text)
			var bad []Field
			for _, p := range problems {
				bad = append(bad, p.Field)
			}
			if !same(got, tt.want) || !slices.Equal(bad, tt.bad) {
				t.Errorf("%q is read as %+v with %v, want %+v", tt.text, show(got), problems, show(tt.want))
			}
			if len(problems) > 0 {
				return
			}
			if again, wrong := Parse(got.Command, got.String()); len(wrong) > 0 || !same(again, got) {
				t.Errorf("%+v is written %q and read back as %+v %v", show(got), got.String(), show(again), wrong)
			}
		})
	}
	// What a form collects may begin with the word and yet not be it.
	in := Input{Command: command(t, "block-signin"), Target: mina, Justification: "break-glass account used"}
	if again, wrong := Parse(in.Command, in.String()); len(wrong) > 0 || !same(again, in) {
		t.Errorf("%+v is written %q and read back as %+v %v", show(in), in.String(), show(again), wrong)
	}
}

func TestMissing(t *testing.T) {
	someone := Ref{Slack: "U1"}
	everything := []string{"verified", "ticket", "justification"}
	tests := []struct {
		command string
		in      Input
		more    Needs
		want    []Field
	}{
		{"methods", Input{}, Needs{}, []Field{FieldTarget}},
		{"methods", Input{Target: someone}, Needs{Fields: everything}, nil},
		{"revoke-sessions", Input{Target: someone}, Needs{}, nil},
		{"revoke-sessions", Input{Target: someone, BreakGlass: true}, Needs{}, []Field{FieldJustification}},
		{"revoke-sessions", Input{Target: someone, BreakGlass: true, Ticket: "INC-7"}, Needs{}, []Field{FieldJustification}},
		{"revoke-sessions", Input{Target: someone}, Needs{Fields: everything}, []Field{FieldVerified, FieldJustification, FieldTicket}},
		{"revoke-sessions", Input{Target: someone}, Needs{Fields: everything, Self: true}, []Field{FieldJustification, FieldTicket}},
		{"require-reregister", Input{}, Needs{}, []Field{FieldTarget, FieldVerified, FieldJustification}},
		{"require-reregister", Input{Target: someone, Ticket: "INC-7"}, Needs{}, []Field{FieldVerified}},
		{"require-reregister", Input{Target: someone, Ticket: "INC-7"}, Needs{Self: true}, nil},
		{"require-reregister", Input{Target: someone, Verified: "video", Ticket: "INC-7"}, Needs{Fields: []string{"justification"}}, []Field{FieldJustification}},
		{"require-reregister", Input{Target: someone, Verified: "video", Justification: "x"}, Needs{}, nil},
		{"require-reregister", Input{Target: someone, Verified: "manager", Justification: "x"}, Needs{Verified: []string{"video", "callback"}}, []Field{FieldVerified}},
		{"require-reregister", Input{Target: someone, Verified: "compromise", Justification: "x"}, Needs{Verified: []string{"video"}}, []Field{FieldVerified}},
		{"help", Input{}, Needs{}, nil},
	}
	for _, tt := range tests {
		if got := Missing(command(t, tt.command), tt.in, tt.more); !slices.Equal(got, tt.want) {
			t.Errorf("%s with %+v and %+v lacks %v, want %v", tt.command, show(tt.in), tt.more, got, tt.want)
		}
	}
}

// Only the ways that count are offered.
func TestWays(t *testing.T) {
	values := func(name string, more Needs) string {
		var all []string
		for _, v := range Ways(command(t, name), more) {
			all = append(all, v.Value)
		}
		return strings.Join(all, " ")
	}
	for _, tt := range []struct {
		command string
		more    Needs
		want    string
	}{
		{"reset-password", Needs{}, "in-person video callback manager compromise"},
		{"reset-password", Needs{Verified: []string{"callback", "video"}}, "video callback"},
		{"reset-password", Needs{Self: true}, ""},
		{"block-signin", Needs{}, ""},
		{"block-signin", Needs{Fields: []string{"verified"}}, "in-person video callback manager"},
		{"block-signin", Needs{Fields: []string{"verified"}, Verified: []string{"manager"}}, "manager"},
	} {
		if got := values(tt.command, tt.more); got != tt.want {
			t.Errorf("%s with %+v offers %q, want %q", tt.command, tt.more, got, tt.want)
		}
	}
}

func TestPlain(t *testing.T) {
	tests := []struct {
		in   string
		max  int
		want string
	}{
		{"Dana’s Pixel 9", 60, "Dana’s Pixel 9"},
		{" a\r\n\tb\u2028c\u00a0 ", 0, "a b c"},
		{"user\u202egpj.exe\u2066", 0, "usergpj.exe"},
		{"a\x00\x1b[31mb", 0, "a[31mb"},
		{"zero\u200bwidth\ufeff", 0, "zerowidth"},
		{"\U000e0041tag", 0, "tag"},
		{"می\u200cخواهم", 0, "می\u200cخواهم"},
		{"👩\u200d💻", 0, "👩\u200d💻"},
		{"a" + strings.Repeat("\u0301", 40) + "b", 0, "a\u0301\u0301\u0301b"},
		{"abcdef", 6, "abcdef"},
		{"abcdefg", 6, "abcde…"},
		{"abcd efg", 6, "abcd…"},
		{"\xff\xfe", 0, "\ufffd\ufffd"},
	}
	for _, tt := range tests {
		got := Plain(tt.in, tt.max)
		if got != tt.want {
			t.Errorf("Plain(%q, %d) = %q, want %q", tt.in, tt.max, got, tt.want)
		}
		if again := Plain(got, tt.max); again != got {
			t.Errorf("Plain(%q) = %q: not stable", got, again)
		}
	}
}

// What can be typed is read without a panic, what is written is read back,
// and nothing of Slack's escaping is left in it.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", "<@U0DANA|dana> ticket=INC-7 verified=callback lost phone", `why="a \" b" c`, "<mailto:a@b.example|a@b.example>",
		"<<@U1|x>> &amp;lt;", "@dana", "tikcet=1", "ticket = 1", `ticket="`, "<http://a.b|a.b>#EXT#@<http://c.d|c.d>", "\u00a0“x” \xff",
		"<!subteam^S1|@x> <#C1|y> <|> <> |", "&lt;@U1&gt; x", "<@U1>\\\"", "a\u0301\u0301\u0301\u0301\u0301", "verified=“in person” why=\u0301",
		"<@U1> mobile <tel:+14255550142|+1 (425) 555-0142> x 12 2 days", "<@U1> +49 30 901820 2 days mobile", "<@U1> office +1 425 555 0142 ext. 12 type=mobile number=\"00 1\"",
		"<@U1> <mailto:a@b.example|c@d.example> x", "address=a@b.example", "<@U1> passkey “iPad Air” x", "<@U1> phone +1 •••• ••42 (mobile) why", "method=\"\\\"\"",
		"<@U1> break-glass x", "break-glass", "<@U1> break-glass break-glass", "<@U1> ticket=1 break-glass: x", "<@U1> why=\"break-glass x\"", "<@U1> breakglas",
	} {
		for _, c := range Table() {
			f.Add(c.Name, s)
		}
	}
	slackish := regexp.MustCompile(`<[^<>]*>|<(@|#|!|mailto:|http)`)
	f.Fuzz(func(t *testing.T, name, text string) {
		c, ok := Lookup(name)
		if !ok {
			c = command(t, "require-reregister")
		}
		in, problems := Parse(c, text)
		fields := append([]string{in.Target.Name, in.Target.ObjectID, in.Ticket, in.Verified, in.Justification}, in.Rest...)
		for _, value := range in.Args {
			fields = append(fields, value)
		}
		for _, s := range fields {
			if !strings.Contains(text, "&") && slackish.MatchString(s) {
				t.Errorf("%q leaves %q", text, s)
			}
			if s != Plain(s, 0) || !utf8.ValidString(s) {
				t.Errorf("%q leaves unclean %q", text, s)
			}
		}
		canonical := in.String()
		again, wrong := Parse(c, canonical)
		if len(problems) > 0 {
			in.Target.Typed = again.Target.Typed // what could not be read is not written
		}
		if len(wrong) > 0 || !same(again, in) {
			t.Errorf("%q\nis read as %+v\nwritten as %q\nand read back as %+v %v", text, show(in), canonical, show(again), wrong)
		}
		if canonical != again.String() {
			t.Errorf("%q is written as %q and then as %q", text, canonical, again.String())
		}
	})
}

// What a modal collects can be anything, and is written so that it is read
// back.
func FuzzString(f *testing.F) {
	f.Add("U0DANA", "", "INC-7", "callback", "lost phone")
	f.Add("", "a&b@c.example", "x, y;", "", "ticket=1 \"why=\" tikcet=2 <@U1> &lt; @dana")
	f.Add("", "", "\\\"", "video", "\u201cquoted\u201d \\")
	f.Add("", "", ",", "", "=")
	f.Fuzz(func(t *testing.T, mentioned, name, ticket, verified, why string) {
		c := command(t, "require-reregister")
		in := Input{Command: c, Ticket: Plain(ticket, MaxTicket), Justification: Plain(why, MaxJustification)}
		if !slices.ContainsFunc(Verifications(c), func(v Verification) bool { return v.Value == verified }) {
			verified = ""
		}
		in.Verified = verified
		switch typed, _ := Parse(c, escape(Plain(name, 0))); {
		case mention.MatchString("@" + mentioned):
			in.Target = Ref{Slack: mentioned, Typed: "<@" + mentioned + ">"}
		case typed.Target.Name != "":
			in.Target = typed.Target
		}
		again, problems := Parse(c, in.String())
		if len(problems) > 0 || !same(again, in) {
			t.Errorf("%+v\nis written as %q\nand read back as %+v %v", show(in), in.String(), show(again), problems)
		}
	})
}

// same compares everything but the command, which holds functions.
func same(a, b Input) bool {
	return a.Target == b.Target && a.Ticket == b.Ticket && a.Verified == b.Verified && a.Justification == b.Justification && maps.Equal(a.Args, b.Args) && slices.Equal(a.Rest, b.Rest) && a.BreakGlass == b.BreakGlass
}

func show(in Input) []any {
	return []any{in.Target, in.Args, in.Ticket, in.Verified, in.Justification, in.Rest, in.BreakGlass}
}
