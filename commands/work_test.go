package commands

import (
	"context"
	"errors"
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

// Every step that changes something, against everything that can go wrong
// with its call: the answer says what is known, the account is what the
// answer says, and nothing is done twice that shows.
func TestFaults(t *testing.T) {
	steps := map[string]struct {
		command, op  string
		method, path string
		done         func(*stage) bool
	}{
		"delete": {"require-reregister", opDeleteMethods, "DELETE", "phoneMethods/" + graph.IDAlternateMobile,
			func(s *stage) bool { return !s.has(sandbox.DanaID, graph.IDAlternateMobile) }},
		"deactivate": {"require-reregister", opDeactivateToken, "POST", "deactivate",
			func(s *stage) bool {
				device, _ := s.user(sandbox.DanaID).OfType(graph.TypeHardwareOATH)[0].Properties["device"].(map[string]any)
				return device["status"] != "activated"
			}},
		"revoke": {"revoke-sessions", opRevokeSessions, "POST", "revokeSignInSessions",
			func(s *stage) bool { return time.Since(s.user(sandbox.DanaID).SessionsValidFrom) < time.Hour }},
	}
	one := 1
	faults := map[string]struct {
		fault  graph.Fault
		reads  bool // reading the account fails, too
		within time.Duration
		want   approvals.StepState
		done   bool // in the end
		words  string
	}{
		"none":                   {want: approvals.StepDone, done: true},
		"throttled":              {fault: graph.Fault{Kind: graph.FaultThrottle, RetryAfter: &[]int{60}[0], Times: -1}, want: approvals.StepThrottled, words: "asks to wait 1m0s"},
		"throttled, untold":      {fault: graph.Fault{Kind: graph.FaultThrottle, Times: -1}, within: time.Second, want: approvals.StepThrottled, words: "asks to wait"},
		"throttled for a moment": {fault: graph.Fault{Kind: graph.FaultThrottle, RetryAfter: &one}, want: approvals.StepDone, done: true},
		"lost request":           {fault: graph.Fault{Kind: graph.FaultDropRequest}, want: approvals.StepDone, done: true},
		"lost reply":             {fault: graph.Fault{Kind: graph.FaultDropReply}, want: approvals.StepDone, done: true},
		"lost reply, unreadable": {fault: graph.Fault{Kind: graph.FaultDropReply}, reads: true, want: approvals.StepUncertain, done: true, words: "did not say whether it did"},
		"two lost requests":      {fault: graph.Fault{Kind: graph.FaultDropRequest, Times: 2}, want: approvals.StepUncertain, words: "did not say whether it did"},
		"applied late":           {fault: graph.Fault{Kind: graph.FaultApplyLate, DelayMS: 100}, want: approvals.StepDone, done: true},
		"gateway, applied":       {fault: graph.Fault{Kind: graph.FaultStatus, Status: 504, Apply: true}, want: approvals.StepDone, done: true},
		"time-out, applied":      {fault: graph.Fault{Kind: graph.FaultStatus, Status: 408, Apply: true}, want: approvals.StepDone, done: true},
		"gateway, not applied":   {fault: graph.Fault{Kind: graph.FaultStatus, Status: 502}, want: approvals.StepDone, done: true},
		"hangs once":             {fault: graph.Fault{Kind: graph.FaultHang}, within: 1500 * time.Millisecond, want: approvals.StepDone, done: true},
		"hangs":                  {fault: graph.Fault{Kind: graph.FaultHang, Times: -1}, within: time.Second, want: approvals.StepUncertain, words: "did not say whether it did"},
		"forbidden":              {fault: graph.Fault{Kind: graph.FaultStatus, Status: 403, Code: "accessDenied", Message: "Request Authorization failed", Times: -1}, want: approvals.StepFailed, words: "An administrator grants User"},
		"refused": {fault: graph.Fault{Kind: graph.FaultStatus, Status: 409, Code: "conflict", Message: "Not for +1 4255550142 or dana@mailbox.example, says AADSTS7000215.", Times: -1},
			want: approvals.StepFailed, words: "(409 conflict). Microsoft says: Not for •••• or •••• says AADSTS7000215."},
		"unavailable, told when": {fault: graph.Fault{Kind: graph.FaultStatus, Status: 503, RetryAfter: &one}, want: approvals.StepDone, done: true},
	}
	for stepName, step := range steps {
		for name, tt := range faults {
			t.Run(stepName+"/"+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := newStage(t)
					r := s.request(step.command, sandbox.DanaID)
					i := stepOf(t, r.Plan, step.op)
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
					got := s.workWithin(tt.within, approvals.JobRun, begin(r, i), i)
					if got.State == approvals.StepAlready && tt.fault.Status == 504 {
						got.State = approvals.StepDone // the client's own second DELETE found nothing
					}
					if got.State != tt.want || !strings.Contains(got.Detail, tt.words) {
						t.Errorf("got %+v, want %s and %q", got, tt.want, tt.words)
					}
					if bad := got.State == approvals.StepFailed || got.State == approvals.StepThrottled; bad && got.RequestID == "" {
						t.Errorf("no request-id in %+v", got)
					}
					if got.State == approvals.StepThrottled && got.After < time.Second {
						t.Errorf("throttled for %s", got.After)
					}
					if step.done(s) != tt.done {
						t.Errorf("done: %v, want %v", !tt.done, tt.done)
					}
				})
			})
		}
	}
}

// A worker was killed somewhere around its call. The next one finds out what
// became of it.
func TestReconcile(t *testing.T) {
	for _, step := range []struct{ command, op string }{{"require-reregister", opDeleteMethods}, {"require-reregister", opDeactivateToken}, {"revoke-sessions", opRevokeSessions}} {
		t.Run(step.op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				r := s.request(step.command, sandbox.DanaID)
				i := stepOf(t, r.Plan, step.op)
				r = begin(r, i)
				wrote := func() int { return s.writes() }

				s.faults(graph.Fault{Method: "GET", Kind: graph.FaultStatus, Status: 403, Times: -1})
				if step.op != opRevokeSessions {
					if got := s.work(approvals.JobReconcile, r, i); got.State != approvals.StepUncertain || !strings.Contains(got.Detail, "cannot see what became of it") {
						t.Errorf("nothing can be read: %+v", got)
					}
				}
				s.faults()
				if got := s.work(approvals.JobReconcile, r, i); got.State != approvals.StepDone || wrote() != 1 {
					t.Errorf("killed before the call: %+v after %d writes", got, wrote())
				}
				if got := s.work(approvals.JobReconcile, r, i); got.State != approvals.StepDone || wrote() != 1 {
					t.Errorf("killed behind the call: %+v after %d writes", got, wrote())
				}
				s.faults(graph.Fault{Method: "GET", Kind: graph.FaultThrottle, RetryAfter: &[]int{60}[0], Times: -1})
				if got := s.work(approvals.JobReconcile, r, i); step.op != opRevokeSessions && got.State != approvals.StepThrottled {
					t.Errorf("throttled: %+v", got)
				}
			})
		})
	}
}

// Graph asks to wait when something of a step was done, or may have been: the
// answer is unsure, the check takes the effect for the plan's own, and what is
// left is done after the wait. Only a step that was certainly not executed is
// run anew.
func TestThrottledInTheMiddleOfAStep(t *testing.T) {
	sixty := 60
	waits := graph.Fault{Kind: graph.FaultThrottle, RetryAfter: &sixty, Times: -1}
	waitsBehind := func(spared int) graph.Fault { f := waits; f.Skip = spared; return f }
	on := func(method string, faults ...graph.Fault) []graph.Fault {
		for i := range faults {
			faults[i].Method = method
		}
		return faults
	}
	lost, lostReply := graph.Fault{Kind: graph.FaultDropRequest}, graph.Fault{Kind: graph.FaultDropReply}
	two := func(step approvals.Step) bool { return len(removals(step)) == 2 }
	one := func(step approvals.Step) bool { return strings.Contains(step.Args["methods"], graph.IDAlternateMobile) }
	first := func(approvals.Step) bool { return true }
	reregister, unblock, revoke := []string{"require-reregister", sandbox.DanaID}, []string{"unblock-signin", sandbox.DanaID}, []string{"revoke-sessions", sandbox.DanaID}
	email := []string{"add-email", sandbox.MinaID, "address", "mina@home.example"}
	for name, tt := range map[string]struct {
		command []string
		step    func(approvals.Step) bool
		faults  []graph.Fault
		during  func(*stage) // the wait
		unsure  bool
		writes  int // behind the wait
	}{
		"before the first of two deletes":   {reregister, two, on("DELETE", waits), nil, false, 2},
		"behind the first of two deletes":   {reregister, two, on("DELETE", waitsBehind(1)), nil, true, 1},
		"behind a delete that is in doubt":  {reregister, two, on("DELETE", graph.Fault{Kind: graph.FaultDropRequest, Times: 2}, waits), nil, true, 2},
		"behind a delete that was refused":  {reregister, two, on("DELETE", graph.Fault{Kind: graph.FaultStatus, Status: 400}, waits), nil, false, 2},
		"a delete is repeated by itself":    {reregister, one, on("DELETE", graph.Fault{Kind: graph.FaultStatus, Status: 504, Apply: true}, waits), nil, true, 0},
		"a delete is applied late":          {reregister, one, on("DELETE", lost, waits), func(s *stage) { s.remove(sandbox.DanaID, graph.IDAlternateMobile) }, true, 0},
		"the reply of an unblock is lost":   {unblock, first, append(on("PATCH", lostReply), on("GET", waits)...), nil, true, 0},
		"the request of an unblock is lost": {unblock, first, append(on("PATCH", lost), on("GET", waits)...), nil, true, 1},
		"an unblock is applied late":        {unblock, first, on("PATCH", lost, waits), func(s *stage) { s.patch(sandbox.DanaID, map[string]any{"enabled": true}) }, true, 0},
		"the reply of a revocation is lost": {revoke, first, append(on("POST", lostReply), on("GET", waits)...), nil, true, 0},
		"the reply of an address is lost":   {email, first, append(on("POST", lostReply), on("GET", waits)...), nil, true, 0},
		"an address is applied late":        {email, first, on("POST", lost, waits), func(s *stage) { s.add(sandbox.MinaID, graph.Email("mina@home.example")) }, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				if tt.command[0] == "unblock-signin" {
					s.patch(sandbox.DanaID, map[string]any{"enabled": false})
				}
				r := s.request(tt.command[0], tt.command[1], tt.command[2:]...)
				i := slices.IndexFunc(r.Plan.Steps, tt.step)
				for before := range i { // the default method goes last
					r = begin(r, before)
					r.Journal[before].State = s.work(approvals.JobRun, r, before).State
				}
				begun := begin(r, i)
				s.faults(tt.faults...)
				got := s.work(approvals.JobRun, begun, i)
				if got.State != approvals.StepThrottled || got.After != time.Minute || got.Unsure != tt.unsure {
					t.Errorf("got %+v, want throttled for a minute, unsure %v", got, tt.unsure)
				}
				s.faults()
				if tt.during != nil {
					tt.during(s)
				}
				kind, checked := approvals.JobRun, r
				if tt.unsure {
					kind, checked = approvals.JobReconcile, begun
				}
				before := s.writes()
				if got := s.work(approvals.JobCheck, checked, -1); got.State != approvals.StepDone {
					t.Errorf("the check behind the wait: %+v", got)
				}
				if got, n := s.work(kind, begun, i), s.writes()-before; got.State != approvals.StepDone || n != tt.writes {
					t.Errorf("behind the wait: %+v after %d writes, want %d", got, n, tt.writes)
				}
				begun.Journal[i].State = approvals.StepDone
				if got := s.work(approvals.JobCheck, begun, -1); got.State != approvals.StepDone {
					t.Errorf("the check behind the step: %+v", got)
				}
				for _, m := range removals(r.Plan.Steps[i]) {
					if s.has(sandbox.DanaID, m.ID) {
						t.Errorf("%s is still there", m.Words)
					}
				}
			})
		})
	}
}

// What both ways of making a change twice tell of it, whatever becomes of the
// first attempt, of the second one, and of reading the account in between and
// behind them.
func TestTwoAttempts(t *testing.T) {
	lost, away := &entra.Error{Unsure: true}, &entra.Error{} // the second kind never left this machine
	waits, refused := &entra.Error{Status: 429}, &entra.Error{Status: 403, Code: "accessDenied"}
	existing := &entra.Error{Status: 409, Code: "conflict"} // Graph refuses to make the change twice
	shown := errors.New("the account shows the change")
	type outcome struct {
		state  approvals.StepState
		unsure bool
	}
	done := outcome{approvals.StepDone, false}
	uncertain, failed := outcome{approvals.StepUncertain, false}, outcome{approvals.StepFailed, false}
	waitsSure, waitsUnsure := outcome{approvals.StepThrottled, false}, outcome{approvals.StepThrottled, true}
	for name, tt := range map[string]struct {
		writes []error
		reads  []error // nil shows that it was not done, and shown that it was
		want   outcome
	}{
		"lost, and cannot be read yet":                   {[]error{lost}, []error{waits}, waitsUnsure},
		"not sent, and cannot be read yet":               {[]error{away}, []error{waits}, waitsSure},
		"lost, then throttled":                           {[]error{lost, waits}, []error{nil}, waitsUnsure},
		"not sent, then throttled":                       {[]error{away, waits}, []error{nil}, waitsSure},
		"lost twice, and cannot be read yet":             {[]error{lost, lost}, []error{nil, waits}, waitsUnsure},
		"lost, then not sent, and cannot be read yet":    {[]error{lost, away}, []error{nil, waits}, waitsUnsure},
		"not sent, then lost, and cannot be read yet":    {[]error{away, lost}, []error{nil, waits}, waitsUnsure},
		"not sent at all, and cannot be read yet":        {[]error{away, away}, []error{nil, waits}, waitsSure},
		"lost, then not sent, and cannot be read at all": {[]error{lost, away}, []error{nil, away}, uncertain},
		"lost, then not sent":                            {[]error{lost, away}, []error{nil, nil}, uncertain},
		"lost, and done late, which is refused again":    {[]error{lost, existing}, []error{nil, shown}, done},
		"lost, then refused":                             {[]error{lost, refused}, []error{nil}, uncertain},
		"lost, then refused, and not done":               {[]error{lost, existing}, []error{nil, nil}, uncertain},
		"lost, then refused, and cannot be read":         {[]error{lost, existing}, []error{nil, away}, uncertain},
		"not sent, then refused":                         {[]error{away, refused}, []error{nil}, failed},
		"not sent at all":                                {[]error{away, away}, []error{nil, nil}, failed},
	} {
		for way, twice := range map[string]func(write, read func() error) approvals.Result{
			"a change": func(write, read func() error) approvals.Result {
				return repeatable(t.Context(), func(context.Context) error { return write() }, func(context.Context) (bool, error) {
					err := read()
					if errors.Is(err, shown) {
						return true, nil
					}
					return false, err
				})
			},
			"a setting": func(write, read func() error) approvals.Result {
				return setting{old: "old", new: "new", same: func(a, b string) bool { return a == b },
					write: func(context.Context) error { return write() }, read: func(context.Context) (string, error) {
						err := read()
						if errors.Is(err, shown) {
							return "new", nil
						}
						return "old", err
					}}.set(t.Context())
			},
		} {
			t.Run(way+"/"+name, func(t *testing.T) {
				writes, reads := tt.writes, tt.reads
				next := func(list *[]error) func() error {
					return func() error {
						if len(*list) == 0 {
							t.Fatal("one too many")
						}
						err := (*list)[0]
						*list = (*list)[1:]
						return err
					}
				}
				got := twice(next(&writes), next(&reads))
				if (outcome{got.State, got.Unsure}) != tt.want || len(writes)+len(reads) > 0 {
					t.Errorf("got %+v, want %+v; left %v and %v", got, tt.want, writes, reads)
				}
			})
		}
	}
}

// Halted between the two deletes of a step, it says which one was made.
func TestHaltedBetweenTwoDeletes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		r := s.request("require-reregister", sandbox.DanaID)
		i := slices.IndexFunc(r.Plan.Steps, func(step approvals.Step) bool { return len(removals(step)) == 2 })
		both := removals(r.Plan.Steps[i])
		look := func() approvals.Result {
			return s.tenant.Work(t.Context(), approvals.Job{Kind: approvals.JobReconcile, Request: begin(r, i), Step: i, ReadOnly: true})
		}
		if got := look(); got.State != approvals.StepFailed || strings.Contains(got.Detail, both[0].Words) {
			t.Errorf("nothing was deleted: %+v", got)
		}
		s.remove(sandbox.DanaID, both[0].ID)
		if got := look(); got.State != approvals.StepFailed || !strings.Contains(got.Detail, sentence("Gone: "+both[0].Words)+" "+sentence("Still there: "+both[1].Words)) {
			t.Errorf("one was deleted: %+v", got)
		}
		s.remove(sandbox.DanaID, both[1].ID)
		if got := look(); got.State != approvals.StepDone || s.writes() != 0 {
			t.Errorf("both were deleted: %+v after %d writes", got, s.writes())
		}
	})
}

// writes counts what was executed.
func (s *stage) writes() int {
	s.Helper()
	calls, err := s.api.EntraCalls()
	if err != nil {
		s.Fatal(err)
	}
	n := 0
	for _, c := range calls.Calls {
		if c.Method != "GET" && c.Granted && c.Status < 300 && !strings.Contains(c.Path, "oauth2") && strings.Contains(c.Path, "/users/") {
			n += c.Count
		}
	}
	return n
}

// A number that was registered after a phone was deleted has the same id and
// is not the same method.
func TestReconcileSparesWhatIsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		r := s.request("require-reregister", sandbox.MinaID)
		r = begin(r, 0)
		if err := s.api.DeleteMethod(sandbox.MinaID, graph.IDMobile); err != nil {
			t.Fatal(err)
		}
		if err := s.api.AddMethod(sandbox.MinaID, graph.Phone("mobile", "+1 4255550199")); err != nil {
			t.Fatal(err)
		}
		if got := s.work(approvals.JobReconcile, r, 0); got.State != approvals.StepDone || !s.has(sandbox.MinaID, graph.IDMobile) {
			t.Errorf("%+v; the new phone is there: %v", got, s.has(sandbox.MinaID, graph.IDMobile))
		}
		r.Journal[0].State = approvals.StepDone
		if got := s.work(approvals.JobCheck, r, -1); got.State != approvals.StepFailed || !strings.Contains(got.Detail, "a method was replaced: phone +1 •••• ••64 (mobile) by phone +1 •••• ••99 (mobile)") {
			t.Errorf("the check: %+v", got)
		}
		verify := stepOf(t, r.Plan, opVerifyRemoval)
		if got := s.work(approvals.JobRun, begin(r, verify), verify); got.State != approvals.StepDone || !strings.Contains(got.Detail, "Registered since the plan was made: phone +1 •••• ••99 (mobile).") {
			t.Errorf("the last look: %+v", got)
		}
	})
}

func TestCheck(t *testing.T) {
	tests := map[string]struct {
		change func(*stage)
		want   string // "" where the plan still holds
	}{
		"nothing":           {func(*stage) {}, ""},
		"a phone was added": {func(s *stage) { s.add(sandbox.SamID, graph.Phone("office", "+1 4255550111")) }, "a method was added: phone +1 •••• ••11 (office)"},
		"a phone is gone":   {func(s *stage) { s.remove(sandbox.SamID, graph.IDMobile) }, "a method is gone: phone +1 •••• ••19 (mobile)"},
		"a number changed": {func(s *stage) {
			s.remove(sandbox.SamID, graph.IDMobile)
			s.add(sandbox.SamID, graph.Phone("mobile", "+1 4255550112"))
		}, "a method was replaced: phone +1 •••• ••19 (mobile) by phone +1 •••• ••12 (mobile)"},
		"a passkey was added": {func(s *stage) { s.add(sandbox.SamID, graph.Passkey("p1", "Key", "", "")) }, "a method was added: passkey “Key”"},
		"a pass was issued":   {func(s *stage) { s.add(sandbox.SamID, graph.TemporaryAccessPass("t1", time.Now(), time.Hour, true)) }, "a method was added: Temporary Access Pass (valid until"},
		"blocked":             {func(s *stage) { s.patch(sandbox.SamID, map[string]any{"enabled": false}) }, "the account was blocked"},
		"moved to the cloud":  {func(s *stage) { s.patch(sandbox.SamID, map[string]any{"synced": false}) }, "the account moved between the cloud and an on-premises directory"},
		"password": {func(s *stage) {
			s.patch(sandbox.SamID, map[string]any{"last_password_change": time.Now().UTC().Format(time.RFC3339)})
		}, "the password was changed"},
		"sessions": {func(s *stage) {
			s.patch(sandbox.SamID, map[string]any{"sessions_valid_from": time.Now().UTC().Format(time.RFC3339)})
		}, "the sessions were revoked by somebody else"},
		"default": {func(s *stage) { s.patch(sandbox.SamID, map[string]any{"default_method": "sms"}) }, "the default method is another one"},
		"beta has a bad day": {func(s *stage) {
			s.faults(graph.Fault{Path: "hardwareOathMethods", Kind: graph.FaultStatus, Status: 404, Times: -1})
		}, "something could not be read this time: Hardware tokens are not listed"},
		"beta has a bad while": {func(s *stage) {
			s.faults(graph.Fault{Path: "hardwareOathMethods", Kind: graph.FaultStatus, Status: 404, Times: 2})
		}, ""},
		"permission taken": {func(s *stage) { s.grantWithout(entra.PermMethodsRead) }, "grants UserAuthenticationMethod.Read.All"},
		"Graph is down":    {func(s *stage) { s.faults(graph.Fault{Path: "users", Kind: graph.FaultDropRequest, Times: -1}) }, "could not be compared with the plan, so no step was taken"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				r := s.request("require-reregister", sandbox.SamID)
				contain := s.request("revoke-sessions", sandbox.SamID)
				tt.change(s)
				got := s.workWithin(2*time.Second, approvals.JobCheck, r, -1)
				if tt.want == "" && got.State != approvals.StepDone || tt.want != "" && (got.State != approvals.StepFailed || !strings.Contains(got.Detail, tt.want)) {
					t.Errorf("got %+v, want %q", got, tt.want)
				}
				if got := s.work(approvals.JobCheck, contain, -1); got.State != approvals.StepDone {
					t.Errorf("containment assumes something: %+v", got)
				}
			})
		})
	}
}

// What the plan's own steps have done is no difference, whether they are
// journalled as done or were interrupted.
func TestCheckAllowsForTheOwnSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		r := s.request("require-reregister", sandbox.DanaID)
		last := len(r.Plan.Steps) - 1
		for i := range r.Plan.Steps {
			if got := s.work(approvals.JobCheck, r, -1); got.State != approvals.StepDone {
				t.Fatalf("before step %d: %+v", i+1, got)
			}
			r = begin(r, i)
			got := s.work(approvals.JobRun, r, i)
			if i%2 == 0 { // else it stays a step that was begun and has no outcome
				r.Journal[i].State = got.State
			}
			if i == 1 {
				s.remove(sandbox.DanaID, "A8nLw0cQyEi5sJ2pXeRk7g2")
				if got := s.work(approvals.JobCheck, r, -1); !strings.Contains(got.Detail, "a method is gone: passkey") {
					t.Errorf("somebody else removed the passkey: %+v", got)
				}
				s.add(sandbox.DanaID, graph.Passkey("A8nLw0cQyEi5sJ2pXeRk7g2", "Security key, top drawer", "YubiKey 5 Series with NFC", ""))
				s.remove(sandbox.DanaID, "014810eb-c87f-4c15-9a9b-b756771f89f0") // a pass ends by itself
			}
		}
		if r.Journal[last].State == approvals.StepFailed {
			t.Errorf("%+v", r.Journal[last])
		}
		if err := s.api.PatchUser(sandbox.DanaID, map[string]any{"enabled": false}); err != nil {
			t.Fatal(err)
		}
		if got := s.work(approvals.JobCheck, r, -1); got.State != approvals.StepDone {
			t.Errorf("only looking is left, and still: %+v", got)
		}
	})
}

func TestAlreadySo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		r := s.request("require-reregister", sandbox.DanaID)
		i := stepOf(t, r.Plan, opDeleteMethods)
		s.remove(sandbox.DanaID, graph.IDAlternateMobile)
		if got := s.work(approvals.JobRun, begin(r, i), i); got.State != approvals.StepAlready {
			t.Errorf("%+v", got)
		}
		i = stepOf(t, r.Plan, opDeactivateToken)
		s.remove(sandbox.DanaID, "e6233aed-62c6-4957-8032-279097b9aadc")
		if got := s.work(approvals.JobRun, begin(r, i), i); got.State != approvals.StepAlready {
			t.Errorf("%+v", got)
		}
		if got := s.work(approvals.JobRun, approvals.Request{Plan: approvals.Plan{Steps: []approvals.Step{{Op: "levitate"}}}}, 0); got.State != approvals.StepFailed {
			t.Errorf("an unknown step: %+v", got)
		}
		if got := s.work(approvals.JobReconcile, approvals.Request{Plan: approvals.Plan{Steps: []approvals.Step{{Op: "levitate"}}}}, 0); got.State != approvals.StepUncertain {
			t.Errorf("an unknown step that was begun: %+v", got)
		}
	})
}

func (s *stage) add(id string, m graph.Method) {
	s.Helper()
	if err := s.api.AddMethod(id, m); err != nil {
		s.Fatal(err)
	}
}

func (s *stage) remove(id, method string) {
	s.Helper()
	if err := s.api.DeleteMethod(id, method); err != nil {
		s.Fatal(err)
	}
}

func (s *stage) grantWithout(p entra.Permission) {
	s.Helper()
	if err := s.api.SetGrant(slices.DeleteFunc(granted(), func(g string) bool { return g == string(p) })...); err != nil {
		s.Fatal(err)
	}
}

// use is one way to use a command: on whom, with which arguments (as plan
// takes them), and before what.
type use struct {
	id     string
	args   []string
	before func(*stage)
}

// uses are what it takes to need everything that a command needs, in the way
// that is named by an Extra, or else without any.
func uses(c Command, with string) []use {
	all := []use{{id: sandbox.DanaID}}
	switch c.Name {
	case "add-phone":
		all = []use{{id: sandbox.DanaID, args: []string{"type", "mobile", "number", "+1 4255550199"}}, {id: sandbox.RaviID, args: []string{"type", "mobile", "number", "+1 4255550199"}}}
	case "add-email":
		all = []use{{id: sandbox.DanaID, args: []string{"address", "dana@elsewhere.example"}}, {id: sandbox.MinaID, args: []string{"address", "mina@elsewhere.example"}}}
	case "remove-method":
		all = nil
		for _, method := range []string{"office", "e-mail", "software token", "hardware token", "passkey", "hello", "platform credential", "pass", "external", "qr code", "iPad"} {
			all = append(all, use{id: sandbox.DanaID, args: []string{"method", method}})
		}
	case "unblock-signin":
		all = []use{{id: sandbox.BoID}}
	}
	for i := range all {
		switch with {
		case "everything":
			all[i].args = append(all[i].args, string(FieldScope), "everything")
		case "verified=compromise":
			all[i].args = append(all[i].args, string(FieldVerified), approvals.VerifiedCompromise)
		}
	}
	return all
}

// exercise does everything a command does against the tenant and returns
// what went wrong, in words.
func (s *stage) exercise(c Command, with string) []string {
	s.Helper()
	ctx := s.Context()
	var wrong []string
	failed := func(err error) bool {
		if err != nil {
			wrong = append(wrong, err.Error())
		}
		return err != nil
	}
	_, err := s.tenant.Person(ctx, "hanna.okafor@fernhill.example")
	failed(err)
	_, err = s.tenant.Account(ctx, sandbox.HannaID, false)
	if failed(err) || !c.Target {
		return wrong
	}
	_, err = s.tenant.Find(ctx, Ref{Name: "dana.whitfield@fernhill.example"})
	failed(err)
	_, err = s.tenant.Account(ctx, sandbox.DanaID, true)
	failed(err)
	if c.plan == nil {
		p, err := s.tenant.Profile(ctx, sandbox.DanaID)
		failed(err)
		return append(wrong, p.Gaps...)
	}
	for _, u := range uses(c, with) {
		if u.before != nil {
			u.before(s)
		}
		p, err := s.plan(c.Name, u.id, u.args...)
		if failed(err) {
			return wrong
		}
		for _, w := range p.Warnings { // what is only nice to know
			if strings.Contains(w, "An administrator grants") {
				wrong = append(wrong, w)
			}
		}
		r := s.run(s.requestOf(p, u.args...))
		for _, e := range r.Journal {
			if e.State != approvals.StepDone && e.State != approvals.StepHandedOff {
				wrong = append(wrong, string(e.State)+" "+e.Detail)
			}
		}
	}
	return wrong
}

// The table's permissions are what the tenant demands: all of them, and none
// that could be left out.
func TestPermissions(t *testing.T) {
	for _, c := range Table() {
		for _, way := range append([]Extra{{}}, c.More...) {
			var want []string
			for _, p := range append(slices.Clone(c.Permissions), way.Permissions...) {
				want = append(want, string(p))
			}
			slices.Sort(want)
			name := strings.TrimSpace(c.Name + " " + way.With)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := newStage(t)
					if err := s.api.SetGrant(want...); err != nil {
						t.Fatal(err)
					}
					if wrong := s.exercise(c, way.With); wrong != nil {
						t.Fatalf("with what the table says: %q", wrong)
					}
					calls, err := s.api.EntraCalls()
					if err != nil {
						t.Fatal(err)
					}
					if !slices.Equal(calls.Used, want) {
						t.Errorf("the tenant demanded\n%q, the table says\n%q", calls.Used, want)
					}
				})
			})
			t.Run(name+" without", func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					var s *stage
					for _, p := range want {
						if way.With != "" && slices.Contains(c.Permissions, entra.Permission(p)) {
							continue // told by the usual way
						}
						if s == nil || c.plan != nil { // what was removed is not there for the next one
							s = newStage(t)
						}
						if err := s.api.SetGrant(slices.DeleteFunc(slices.Clone(want), func(g string) bool { return g == p })...); err != nil {
							t.Fatal(err)
						}
						if wrong := strings.Join(s.exercise(c, way.With), "\n"); !strings.Contains(wrong, "grants "+p) {
							t.Errorf("without %s this fails: %q", p, wrong)
						}
					}
				})
			})
		}
	}
}
