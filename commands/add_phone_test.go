package commands

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"countersign/approvals"
	"countersign/entra"
	"countersign/sandbox"
	graph "countersign/sandbox/entra"
)

func TestReadNumber(t *testing.T) {
	tests := map[string]struct {
		want  string
		where string
		wrong string // part of the sentence
	}{
		"+1 425 555 0142":              {want: "+1 4255550142", where: "United States, mobile or landline number"},
		"+1 (425) 555-0142":            {want: "+1 4255550142"},
		"(+1) 425 555 0142":            {want: "+1 4255550142"},
		"+1.425.555.0142":              {want: "+1 4255550142"},
		"+1 425/555/0142":              {want: "+1 4255550142"},
		"+1‑425‑555‑0142":              {want: "+1 4255550142"}, // hyphens that do not break
		"0014255550142":                {want: "+1 4255550142"},
		"00 1 425 555 0142":            {want: "+1 4255550142"},
		"＋１ ４２５ ５５５ ０１４２":              {want: "+1 4255550142"},
		"tel:+14255550142":             {want: "+1 4255550142"},
		"“+1 425 555 0142”,":           {want: "+1 4255550142"},
		"+1 604 555 0142":              {want: "+1 6045550142", where: "Canada, mobile or landline number"},
		"+44 (0)20 7946 0018":          {want: "+44 2079460018", where: "United Kingdom, landline number"},
		"+44 020 7946 0018":            {want: "+44 2079460018"},
		"+44 7400 123456":              {want: "+44 7400123456", where: "United Kingdom, mobile number"},
		"0049 (0)30 / 901820":          {want: "+49 30901820", where: "Germany, landline number"},
		"+39 06 12345678":              {want: "+39 0612345678", where: "Italy, landline number"}, // the zero belongs to it
		"+81 90 1234 5678":             {want: "+81 9012345678", where: "Japan, mobile number"},
		"+7 701 123 4567":              {want: "+7 7011234567", where: "Kazakhstan, mobile number"},
		"+1 425 555 0142 x12":          {want: "+1 4255550142x12"},
		"+1 425 555 0142 ext. 12":      {want: "+1 4255550142x12"},
		"+1 425 555 0142 extension 12": {want: "+1 4255550142x12"},
		"+1 425 555 0142;ext=12":       {want: "+1 4255550142x12"},
		"+1-425-555-0142 #12":          {want: "+1 4255550142x12"},
		"+1 900 555 0142":              {want: "+1 9005550142", where: "United States, premium-rate number"},
		"+1 800 555 0142":              {want: "+1 8005550142", where: "United States, toll-free number"},
		"+44 56 1234 5678":             {want: "+44 5612345678", where: "United Kingdom, internet telephony (VoIP) number"},
		"+44 70 1234 5678":             {want: "+44 7012345678", where: "United Kingdom, personal number that forwards elsewhere"},
		"+870 773 111 632":             {want: "+870 773111632", where: "no country (an international or satellite service), mobile number"},
		"425 555 0142":                 {wrong: "has no country code"},
		"(425) 555-0142":               {wrong: "has no country code"},
		"020 7946 0018":                {wrong: "has no country code"},
		"+999 1234 5678":               {wrong: "does not begin with the code of any country"},
		"+1 425 555 01":                {wrong: "too few digits"},
		"+1 425 555 01422":             {wrong: "too many digits"},
		"+49 151 2345 678":             {wrong: "not a number that exists"},
		"+1 123 555 0142":              {wrong: "not a number that exists"},
		"+1 800 FLOWERS":               {wrong: "letters and other signs cannot be dialled"},
		"+1 425 555 0142 or 0143":      {wrong: "letters and other signs cannot be dialled"},
		"+1 425 +1 425 555 0142":       {wrong: "cannot be read as a phone number"},
		"+":                            {wrong: "cannot be dialled"},
		"+1 425 555 0142 x12345678901": {wrong: "“+1 425 555 0142 x12345678901”"},
	}
	for typed, tt := range tests {
		n, sentence := readNumber(typed)
		if n.String() != tt.want || (sentence == "") != (tt.want != "") || !strings.Contains(sentence, tt.wrong) {
			t.Errorf("%q is read as %q %q, want %q %q", typed, n, sentence, tt.want, tt.wrong)
			continue
		}
		if tt.where != "" && n.where() != tt.where {
			t.Errorf("%q is in %q, want %q", typed, n.where(), tt.where)
		}
		if again, sentence := readNumber(n.String()); tt.want != "" && again.String() != tt.want {
			t.Errorf("%q is read back as %q %q", n, again, sentence)
		}
	}
}

func TestParseAddPhone(t *testing.T) {
	who := Ref{Slack: "U0DANA", Typed: "<@U0DANA>"}
	args := func(kind, number string) map[Field]string {
		m := map[Field]string{FieldPhoneType: kind, FieldNumber: number}
		maps.DeleteFunc(m, func(_ Field, v string) bool { return v == "" })
		return m
	}
	tests := map[string]struct {
		text string
		args map[Field]string
		why  string
		bad  []Field
	}{
		"as the help says":       {"<@U0DANA|dana> mobile +1 4255550142 lost phone", args("mobile", "+1 4255550142"), "lost phone", nil},
		"Slack's link":           {"<@U0DANA|dana> mobile <tel:+14255550142|+1 (425) 555-0142> lost phone", args("mobile", "+1 4255550142"), "lost phone", nil},
		"Slack's link, unnamed":  {"<@U0DANA|dana> mobile <tel:+14255550142> lost phone", args("mobile", "+1 4255550142"), "lost phone", nil},
		"a link in the middle":   {"<@U0DANA|dana> mobile +1 <tel:4255550142|425-555-0142>, lost phone", args("mobile", "+1 4255550142"), "lost phone", nil},
		"the other way round":    {"<@U0DANA|dana> +1 (425) 555-0142 office", args("office", "+1 4255550142"), "", nil},
		"another word for it":    {"<@U0DANA|dana> Alternate-Mobile 0014255550142", args("alternate", "+1 4255550142"), "", nil},
		"keys between":           {"<@U0DANA|dana> mobile ticket=7 +1 4255550142 verified=video x", args("mobile", "+1 4255550142"), "x", nil},
		"by name":                {`<@U0DANA|dana> number="+1 425 555 0142" type=Mobile 2 days ago`, args("mobile", "+1 4255550142"), "2 days ago", nil},
		"an extension":           {"<@U0DANA|dana> office +1 425 555 0142 ext. 12 new desk", args("office", "+1 4255550142x12"), "new desk", nil},
		"only the type":          {"<@U0DANA|dana> mobile lost phone", args("mobile", ""), "lost phone", nil},
		"only the person":        {"<@U0DANA|dana> lost phone", nil, "lost phone", nil},
		"misspelt":               {"<@U0DANA|dana> mobil +1 4255550142", args("", "+1 4255550142"), "", []Field{FieldPhoneType}},
		"no country code":        {"<@U0DANA|dana> mobile (425) 555-0142 lost", args("mobile", ""), "lost", []Field{FieldNumber}},
		"a digit too many":       {"<@U0DANA|dana> mobile +1 425 555 01422", args("mobile", ""), "", []Field{FieldNumber}},
		"where does it end":      {"<@U0DANA|dana> mobile +49 30 901820 2 days ago", args("mobile", ""), "days ago", []Field{FieldNumber}},
		"where does this end":    {"<@U0DANA|dana> mobile +1 425 555 0142 2 days ago", args("mobile", ""), "days ago", []Field{FieldNumber}},
		"a comma ends it":        {"<@U0DANA|dana> mobile +49 30 901820, 2 days ago", args("mobile", "+49 30901820"), "2 days ago", nil},
		"why ends it":            {`<@U0DANA|dana> mobile +49 30 901820 why="2 days ago"`, args("mobile", "+49 30901820"), "2 days ago", nil},
		"a number in the reason": {"<@U0DANA|dana> mobile +1 4255550142 called from 12345678", args("mobile", "+1 4255550142"), "called from 12345678", nil},
		"small numbers":          {"<@U0DANA|dana> 2 days ago", nil, "2 days ago", nil},
		"letters":                {"<@U0DANA|dana> mobile +1 800 FLOWERS", args("mobile", ""), "FLOWERS", []Field{FieldNumber}},
		"type= with nonsense":    {"<@U0DANA|dana> type=fax", nil, "", []Field{FieldPhoneType}},
		"twice":                  {`<@U0DANA|dana> mobile type=office`, args("mobile", ""), "", []Field{FieldPhoneType}},
	}
	c := command(t, "add-phone")
	for title, tt := range tests {
		t.Run(title, func(t *testing.T) {
			in, problems := Parse(c, tt.text)
			var bad []Field
			for _, p := range problems {
				bad = append(bad, p.Field)
			}
			if in.Target != who || !maps.Equal(in.Args, tt.args) || in.Justification != tt.why || !slices.Equal(bad, tt.bad) {
				t.Errorf("got %q, why %q, problems %v\nwant %q, why %q, problems in %v", in.Args, in.Justification, problems, tt.args, tt.why, tt.bad)
			}
			if again, problems := Parse(c, in.String()); len(problems) > 0 || !same(again, in) {
				t.Errorf("written as %q and read back as %+v %v", in.String(), show(again), problems)
			}
		})
	}
	if missing := Missing(c, Input{Args: args("mobile", "")}, Needs{}); !slices.Equal(missing, []Field{FieldTarget, FieldNumber, FieldVerified, FieldJustification}) {
		t.Errorf("missing: %q", missing)
	}
	for in, want := range map[string]string{"alternate mobile": "alternate", "OFFICE": "office", "": ""} {
		if got, sentence := c.Args[0].Read(in); got != want || sentence != "" {
			t.Errorf("%q from the modal is %q %q", in, got, sentence)
		}
	}
	if got, sentence := c.Args[0].Read("fax"); got != "" || sentence != "“fax” is not one of the choices. Choose mobile, alternate or office." {
		t.Errorf("%q %q", got, sentence)
	}
}

func TestPlanToAddPhone(t *testing.T) {
	s := newStage(t)
	tests := map[string]struct {
		id, kind, number string
		step             string
		warns, calm      []string
		keeps            string
		nothing, refused string
	}{
		"replace the mobile": {id: sandbox.DanaID, kind: "mobile", number: "+1 4255550199",
			step:  "Replace phone +1 •••• ••42 (mobile) by +1 •••• ••99: United States, mobile or landline number",
			keeps: "phone +1 •••• ••87 (alternate mobile)",
			warns: []string{"Whoever holds this phone", "Microsoft's SMS and voice end on 2027-02-01"},
			calm:  []string{"The present number is set up", "The tenant lets", "This is a", "An office", "The account is blocked"}},
		"the same ending": {id: sandbox.DanaID, kind: "mobile", number: "+1 4255559942",
			step: "Replace phone +1 •••• ••42 (mobile) by +1 •••• ••42, another number with the same ending: United States, mobile or landline number"},
		"add a mobile": {id: sandbox.RaviID, kind: "mobile", number: "+44 7400123456",
			step: "Add phone +44 •••• ••56 (mobile): United Kingdom, mobile number", keeps: "password"},
		"add an office number": {id: sandbox.MinaID, kind: "office", number: "+44 2079460018x12",
			step:  "Add phone +44 •••• ••18 (office): United Kingdom, landline number with an extension",
			warns: []string{"An office number gets calls only"}, calm: []string{"The number has an extension", "This is a landline"}},
		"add an alternate": {id: sandbox.MinaID, kind: "alternate", number: "+44 2079460018x12",
			step:  "Add phone +44 •••• ••18 (alternate mobile): United Kingdom, landline number with an extension",
			warns: []string{"The number has an extension", "This is a landline"}},
		"a premium number": {id: sandbox.MinaID, kind: "office", number: "+1 9005550142", step: "Add phone +1 •••• ••42 (office): United States, premium-rate number",
			warns: []string{"This is a premium-rate number: not what a person usually carries."}},
		"the same number twice": {id: sandbox.MinaID, kind: "office", number: "+1 3605550164", step: "Add phone +1 •••• ••64 (office): United States, mobile or landline number",
			warns: []string{"The same number is already there as mobile"}},
		"a blocked person": {id: sandbox.BoID, kind: "office", number: "+1 4255550142", step: "Add phone +1 •••• ••42 (office): United States, mobile or landline number",
			warns: []string{"The account is blocked"}},
		"already so": {id: sandbox.DanaID, kind: "mobile", number: "+1 4255550142", nothing: "There is nothing to do: +1 •••• ••42 is already the mobile number of Dana Whitfield"},
		"no mobile":  {id: sandbox.RaviID, kind: "alternate", number: "+1 4255550142", refused: "Ravi Menon (ravi.menon@fernhill.example) has no mobile number, and Entra takes an alternate mobile only beside one."},
		"protected":  {id: sandbox.GloriaID, kind: "mobile", number: "+1 4255550142", refused: "Gloria Adeyemi (gloria.adeyemi@fernhill.example) is a protected target."},
		"nonsense":   {id: sandbox.DanaID, kind: "mobile", number: "12", refused: "“12” has no country code"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p, err := s.plan("add-phone", tt.id, "type", tt.kind, "number", tt.number)
			if tt.nothing != "" || tt.refused != "" {
				_, nothing := err.(*NothingToDo)
				_, refused := err.(*approvals.Refusal)
				if err == nil || !strings.HasPrefix(err.Error(), tt.nothing+tt.refused) || nothing != (tt.nothing != "") || refused != (tt.refused != "") {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := wordsOf(p.Steps); !slices.Equal(got, []string{tt.step}) {
				t.Errorf("steps %q, want %q", got, tt.step)
			}
			if p.Args != tt.kind+" "+tt.number || p.Class != approvals.ClassTakeover || p.Assumes[factListed] == "" || tt.keeps != "" && !slices.Contains(p.Keeps, tt.keeps) {
				t.Errorf("%+v", p)
			}
			warnsOf(t, p, tt.warns, tt.calm)
			masksArgs(t, p, s.user(tt.id), tt.number)
		})
	}
}

// warnsOf checks beginnings of warnings that are there and that are not.
func warnsOf(t *testing.T, p approvals.Plan, warns, calm []string) {
	t.Helper()
	warned := func(w string) bool {
		return slices.ContainsFunc(p.Warnings, func(s string) bool { return strings.HasPrefix(s, w) })
	}
	for _, w := range warns {
		if !warned(w) {
			t.Errorf("does not warn %q: %q", w, p.Warnings)
		}
	}
	for _, w := range calm {
		if warned(w) {
			t.Errorf("warns %q without reason", w)
		}
	}
}

// masksArgs says that what people read of a plan, and what it assumes, holds
// no number and no address in clear. What steps and the plan itself have for
// arguments is stored sealed and never shown.
func masksArgs(t *testing.T, p approvals.Plan, u sandbox.User, secret string) {
	t.Helper()
	p.Args = ""
	p.Steps = slices.Clone(p.Steps)
	for i := range p.Steps {
		p.Steps[i].Args = nil
	}
	u.Methods = append(u.Methods, sandbox.Method{Properties: map[string]any{"phoneNumber": secret, "emailAddress": secret}})
	masks(t, p, u)
}

func TestSMSSignIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := func(state string) func(*sandbox.Company, *graph.Options) {
			return func(_ *sandbox.Company, o *graph.Options) {
				for i := range o.Users {
					for j, m := range o.Users[i].Methods {
						if o.Users[i].ID == sandbox.MinaID && m.ID == graph.IDMobile {
							o.Users[i].Methods[j] = m.With("smsSignInState", state)
						}
					}
				}
			}
		}
		for status, tt := range map[string]struct{ warning, detail string }{
			"ready":                {"The present number is set up for SMS sign-in", "Entra has set the number up for SMS sign-in, too, which takes no password."},
			"phoneNumberNotUnique": {"The tenant lets this person sign in by SMS", "Entra could not set it up for SMS sign-in, because another account uses the same number: find out whose."},
			"notEnabled":           {"The tenant lets this person sign in by SMS", ""},
			"notSupported":         {"", ""},
		} {
			s := newStage(t, state(status))
			r := s.request("add-phone", sandbox.MinaID, "type", "mobile", "number", "+1 4255550199")
			if tt.warning != "" {
				warnsOf(t, r.Plan, []string{tt.warning}, nil)
			} else {
				warnsOf(t, r.Plan, nil, []string{"The present number", "The tenant lets"})
			}
			if got := s.run(r).Journal[0]; got.State != approvals.StepDone || got.Detail != tt.detail {
				t.Errorf("%s: %+v", status, got)
			}
		}
	})
}

// phoneIs is the number of a type as it really is.
func (s *stage) phoneIs(id, methodID string) string {
	s.Helper()
	for _, m := range s.user(id).Methods {
		if m.ID == methodID {
			number, _ := m.Properties["phoneNumber"].(string)
			address, _ := m.Properties["emailAddress"].(string)
			return number + address
		}
	}
	return ""
}

// setCase is one step that sets a value.
type setCase struct {
	command, id  string
	args         []string
	op           string
	method, path string
	methodID     string
	old, new     string
}

func setCases() map[string]setCase {
	return map[string]setCase{
		"replace phone": {"add-phone", sandbox.DanaID, []string{"type", "mobile", "number", "+1 4255550199"}, opSetPhone, "PATCH", "phoneMethods/", graph.IDMobile, "+1 4255550142", "+1 4255550199"},
		"add phone":     {"add-phone", sandbox.MinaID, []string{"type", "office", "number", "+44 2079460018"}, opSetPhone, "POST", "phoneMethods", graph.IDOffice, "", "+44 2079460018"},
		"replace mail":  {"add-email", sandbox.DanaID, []string{"address", "dana@elsewhere.example"}, opSetEmail, "PATCH", "emailMethods/", graph.IDEmail, "", "dana@elsewhere.example"},
		"add mail":      {"add-email", sandbox.MinaID, []string{"address", "mina@elsewhere.example"}, opSetEmail, "POST", "emailMethods", graph.IDEmail, "", "mina@elsewhere.example"},
	}
}

// Setting a value, against everything that can go wrong with its call.
func TestSetFaults(t *testing.T) {
	one := 1
	faults := map[string]struct {
		fault  graph.Fault
		reads  bool
		within time.Duration
		want   approvals.StepState
		done   bool
		words  string
	}{
		"none":                   {want: approvals.StepDone, done: true},
		"throttled":              {fault: graph.Fault{Kind: graph.FaultThrottle, RetryAfter: &[]int{60}[0], Times: -1}, want: approvals.StepThrottled, words: "asks to wait 1m0s"},
		"throttled for a moment": {fault: graph.Fault{Kind: graph.FaultThrottle, RetryAfter: &one}, want: approvals.StepDone, done: true},
		"lost request":           {fault: graph.Fault{Kind: graph.FaultDropRequest}, want: approvals.StepDone, done: true},
		"lost reply":             {fault: graph.Fault{Kind: graph.FaultDropReply}, want: approvals.StepDone, done: true},
		"lost reply, unreadable": {fault: graph.Fault{Kind: graph.FaultDropReply}, reads: true, want: approvals.StepUncertain, done: true, words: "look at it in the Entra admin center"},
		"two lost requests":      {fault: graph.Fault{Kind: graph.FaultDropRequest, Times: 2}, want: approvals.StepUncertain, words: "did not say whether it did"},
		"applied late":           {fault: graph.Fault{Kind: graph.FaultApplyLate, DelayMS: 100}, want: approvals.StepDone, done: true},
		"gateway, applied":       {fault: graph.Fault{Kind: graph.FaultStatus, Status: 504, Apply: true}, want: approvals.StepDone, done: true},
		"gateway, not applied":   {fault: graph.Fault{Kind: graph.FaultStatus, Status: 502}, want: approvals.StepDone, done: true},
		"hangs":                  {fault: graph.Fault{Kind: graph.FaultHang, Times: -1}, within: time.Second, want: approvals.StepUncertain, words: "did not say whether it did"},
		"forbidden":              {fault: graph.Fault{Kind: graph.FaultStatus, Status: 403, Code: "accessDenied", Message: "Request Authorization failed", Times: -1}, want: approvals.StepFailed, words: "An administrator grants UserAuthMethod-"},
		"refused": {fault: graph.Fault{Kind: graph.FaultStatus, Status: 400, Code: "badRequest", Message: "Not +1 4255550199.", Times: -1},
			want: approvals.StepFailed, words: "(400 badRequest). Microsoft says: Not ••••."},
		"refused, but there": {fault: graph.Fault{Kind: graph.FaultStatus, Status: 409, Code: "conflict", Apply: true}, want: approvals.StepAlready, done: true, words: "was there already"},
	}
	for stepName, step := range setCases() {
		for name, tt := range faults {
			t.Run(stepName+"/"+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := newStage(t)
					r := s.request(step.command, step.id, step.args...)
					before := s.phoneIs(step.id, step.methodID)
					if tt.fault.Kind != "" {
						tt.fault.Method, tt.fault.Path = step.method, step.path
						f := []graph.Fault{tt.fault}
						if tt.reads {
							f = append(f, graph.Fault{Method: "GET", Kind: graph.FaultStatus, Status: 500, Times: -1})
						}
						s.faults(f...)
					}
					if tt.within == 0 {
						tt.within = 10 * time.Second
					}
					got := s.workWithin(tt.within, approvals.JobRun, begin(r, 0), 0)
					if got.State != tt.want || !strings.Contains(got.Detail, tt.words) {
						t.Errorf("got %+v, want %s and %q", got, tt.want, tt.words)
					}
					if strings.Contains(got.Detail, step.new) {
						t.Errorf("the value is in clear: %s", got.Detail)
					}
					if bad := got.State == approvals.StepFailed || got.State == approvals.StepThrottled; bad && got.RequestID == "" {
						t.Errorf("no request-id in %+v", got)
					}
					want := before
					if tt.done {
						want = step.new
					}
					if value := s.phoneIs(step.id, step.methodID); value != want {
						t.Errorf("the value is %q, want %q", value, want)
					}
				})
			})
		}
	}
}

// A worker was killed somewhere around its call.
func TestSetReconcile(t *testing.T) {
	for name, step := range setCases() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				fresh := s.request(step.command, step.id, step.args...)
				r := begin(fresh, 0)
				look := func() approvals.Result {
					return s.tenant.Work(t.Context(), approvals.Job{Kind: approvals.JobReconcile, Request: r, ReadOnly: true})
				}

				s.faults(graph.Fault{Method: "GET", Kind: graph.FaultStatus, Status: 403, Times: -1})
				if got := s.work(approvals.JobReconcile, r, 0); got.State != approvals.StepUncertain || !strings.Contains(got.Detail, "cannot see what became of it") {
					t.Errorf("nothing can be read: %+v", got)
				}
				s.faults(graph.Fault{Method: "GET", Kind: graph.FaultThrottle, RetryAfter: &[]int{60}[0], Times: -1})
				if got := s.work(approvals.JobReconcile, r, 0); got.State != approvals.StepThrottled {
					t.Errorf("throttled: %+v", got)
				}
				s.faults()
				if got := look(); got.State != approvals.StepFailed || s.writes() != 0 {
					t.Errorf("halted before the call: %+v after %d writes", got, s.writes())
				}
				if got := s.work(approvals.JobReconcile, r, 0); got.State != approvals.StepDone || s.writes() != 1 || s.phoneIs(step.id, step.methodID) != step.new {
					t.Errorf("killed before the call: %+v after %d writes", got, s.writes())
				}
				if got := s.work(approvals.JobReconcile, r, 0); got.State != approvals.StepDone || s.writes() != 1 {
					t.Errorf("killed behind the call: %+v after %d writes", got, s.writes())
				}
				if got := look(); got.State != approvals.StepDone {
					t.Errorf("halted behind the call: %+v", got)
				}
				if got := s.work(approvals.JobCheck, r, -1); got.State != approvals.StepDone {
					t.Errorf("the check behind the own step: %+v", got)
				}
				if got := s.work(approvals.JobCheck, fresh, -1); got.State != approvals.StepFailed || !strings.Contains(got.Detail, "a method was") {
					t.Errorf("the check of another such request: %+v", got)
				}

				// Somebody else was there in between.
				s.remove(step.id, step.methodID)
				if step.op == opSetPhone {
					s.add(step.id, graph.Phone(step.args[1], "+1 4255550177"))
				} else {
					s.add(step.id, graph.Email("else@elsewhere.example"))
				}
				if got := s.work(approvals.JobReconcile, r, 0); got.State != approvals.StepUncertain || !strings.Contains(got.Detail, "somebody else changed it") || s.writes() != 1 {
					t.Errorf("neither old nor new: %+v after %d writes", got, s.writes())
				}
			})
		})
	}
}

func TestSetWithoutPermission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, step := range setCases() {
			s := newStage(t)
			r := begin(s.request(step.command, step.id, step.args...), 0)
			p := entra.PermPhoneWrite
			if step.op == opSetEmail {
				p = entra.PermEmailWrite
			}
			s.grantWithout(p)
			if got := s.work(approvals.JobRun, r, 0); got.State != approvals.StepFailed || !strings.Contains(got.Detail, "grants "+string(p)) {
				t.Errorf("%s: %+v", name, got)
			}
		}
	})
}
