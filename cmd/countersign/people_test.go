package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"countersign/approvals"
	"countersign/sandbox"
	"countersign/sandbox/entra"
	"countersign/sandbox/slack"
)

// These tests check which Slack account belongs to which Entra account, and which belong
// to nobody. Related tests: TestRefusedPresses has a guest's click, TestChangedEmail an
// e-mail address that leads to somebody else, TestChannelBecomesShared the approvals
// channel that is shared with people outside.

// payload is the payload of a Slack envelope.
type payload map[string]any

// with returns a copy with another value at a path, such as user.id; nil removes
// it.
func (p payload) with(path string, value any) payload {
	raw, err := json.Marshal(p)
	if err != nil {
		panic(err)
	}
	var all payload
	if err := json.Unmarshal(raw, &all); err != nil {
		panic(err)
	}
	at, names := map[string]any(all), strings.Split(path, ".")
	for _, name := range names[:len(names)-1] {
		at = at[name].(map[string]any)
	}
	if value == nil {
		delete(at, names[len(names)-1])
	} else {
		at[names[len(names)-1]] = value
	}
	return all
}

// lastPayload returns the payload of the last delivered envelope of a kind that
// contains all of these parts.
func (w *fixture) lastPayload(kind string, parts ...string) payload {
	w.Helper()
	var found payload
	for _, raw := range w.box.Slack.Delivered() {
		var e struct {
			Type    string
			Payload payload
		}
		w.must(json.Unmarshal(raw, &e))
		if m := (sandbox.Message{Fallback: string(raw)}); e.Type == kind && m.Contains(parts...) {
			found = e.Payload
		}
	}
	if found == nil {
		w.Fatalf("no %s envelope with %q was delivered", kind, parts)
	}
	return found
}

// deliver makes Slack deliver an envelope that no client made.
func (w *fixture) deliver(kind string, p payload) {
	w.Helper()
	if _, err := w.box.Slack.Deliver(kind, p); err != nil {
		w.Fatalf("an envelope was not acked: %v", err)
	}
}

// grantEverything gives the Entra accounts all permissions, so that every refusal
// depends only on the Slack account.
func grantEverything(c *config) {
	c.Policy.Groups["approvers"] = approvals.Group{Entra: []string{sandbox.GroupHelpDesk, sandbox.GroupApprovers}}
}

// Guests, bots, people of another workspace and all others who are not full members
// can neither request nor decide, whatever their Entra account may do. Nobody can,
// through another workspace, another app, or a channel that people outside can
// read. Each attempt is refused and recorded, and changes nothing.
func TestOutsidersAreRefused(t *testing.T) {
	const objects = "3f0a8a1e-0000-4c55-9b1d-7d2f3a4b5c"
	people := sandbox.Fernhill(time.Now())
	type stranger struct {
		slack.Person
		told string
	}
	strangers := []stranger{
		{slack.Person{ID: "U0GONE", Name: "Gus Gone", Deactivated: true}, "deactivated"},
		{slack.Person{ID: "U0ROBOT", Name: "Rob Ot", Bot: true}, "Bots and apps"},
		{slack.Person{ID: "U0MULTI", Name: "Mia Multi", Restricted: true}, "guest in this workspace"},
		{slack.Person{ID: "U0SINGLE", Name: "Sid Single", UltraRestricted: true}, "guest in this workspace"},
		{slack.Person{ID: "U0EVE", Name: "Eve Elsewhere", TeamID: "T0ELSEWHERE", Stranger: true}, "another workspace"},
		{slack.Person{ID: "W0ORG", Name: "Ora Organisation", TeamID: "T0SISTER"}, "another workspace"},
		{slack.Person{ID: "U0INVITED", Name: "Ivy Invited", Invited: true}, "accept the invitation"},
	}
	table := map[string]string{sandbox.Hanna: sandbox.HannaID, sandbox.Ravi: sandbox.RaviID, sandbox.Gloria: sandbox.GloriaID, "W0WANDA": objects + "99"}
	for i, s := range append(strangers, stranger{Person: slack.Person{ID: "W0WANDA", Name: "Wanda Wide"}}) {
		name := strings.ToLower(s.Name[:3])
		s.Handle, s.Email = name, name+"@fernhill.example"
		id := objects + string([]byte{'0', byte('0' + i)})
		if s.ID == "W0WANDA" {
			id = objects + "99"
		}
		table[s.ID] = id
		people.People = append(people.People, s.Person)
		people.Users = append(people.Users, entra.User{ID: id, UserPrincipalName: s.Email, Mail: s.Email, DisplayName: s.Name, Created: time.Now().AddDate(-1, 0, 0)})
		for g := range people.Groups {
			if people.Groups[g].ID == sandbox.GroupHelpDesk {
				people.Groups[g].Members = append(people.Groups[g].Members, id)
			}
		}
		for c := range people.Channels {
			people.Channels[c].Members = append(people.Channels[c].Members, s.ID)
		}
	}
	w := startBotIn(t, &people, shortFaultTimings, grantEverything, func(c *config) { c.People.MatchEmail, c.People.Table = false, table })
	hanna, auditor := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Gloria, sandbox.Audit)
	card := w.request("/entra-revoke-sessions " + danaUPN + " laptop stolen")
	id := requestID.FindString(card.Text())
	w.as(sandbox.Gloria, sandbox.Approvals).presses(card, "approve") // she may not decide; this makes an envelope to copy
	auditor.reads("gloria.adeyemi@", "tried to approve", id)
	hanna.types("/entra-help")
	hanna.reads("What you may do")
	press, command := w.lastPayload("interactive", `"approve"`, id), w.lastPayload("slash_commands", "/entra-help")
	command = command.with("command", "/entra-revoke-sessions").with("text", "mina.haddad@fernhill.example stolen")

	for _, s := range strangers {
		w.deliver("interactive", press.with("user.id", s.ID).with("user.team_id", nil)) // users.info has it
		auditor.reads(s.Name, "tried to approve and was refused", s.told, id)
		w.deliver("slash_commands", command.with("user_id", s.ID))
		auditor.reads(s.Name, "was refused: Revoke sessions", s.told)
	}

	// Ravi may approve and Hanna may request, but not from these.
	for _, c := range []struct {
		what, path string
		value      any
	}{
		{"another workspace", "team.id", "T0ELSEWHERE"},
		{"no workspace", "team.id", nil},
		{"a person of another workspace", "user.team_id", "T0ELSEWHERE"},
		{"another app", "api_app_id", "A0ELSEWHERE"},
		{"no app", "api_app_id", nil},
		{"a whole organisation's installation", "is_enterprise_install", true},
	} {
		before := len(auditor.messagesWith("tried to approve and was refused", "another workspace", "Slack user "+sandbox.Ravi, id))
		w.deliver("interactive", press.with("user.id", sandbox.Ravi).with(c.path, c.value))
		w.waitFor("the refusal of "+c.what, func() bool {
			return len(auditor.messagesWith("tried to approve and was refused", "another workspace", "Slack user "+sandbox.Ravi, id)) == before+1
		})
		path := map[string]string{"team.id": "team_id"}[c.path]
		if path == "" {
			path = c.path
		}
		if c.path == "user.team_id" { // commands do not have it
			continue
		}
		before = len(auditor.messagesWith("Slack user "+sandbox.Hanna+" was refused: Revoke sessions", "another workspace"))
		w.deliver("slash_commands", command.with("user_id", sandbox.Hanna).with(path, c.value))
		w.waitFor("the refusal of a command of "+c.what, func() bool {
			return len(auditor.messagesWith("Slack user "+sandbox.Hanna+" was refused: Revoke sessions", "another workspace")) == before+1
		})
	}

	// A mention of somebody from another workspace is refused.
	hanna.types("/entra-revoke-sessions @ora stolen")
	hanna.reads("The Slack account that you mentioned is from another workspace")

	// Commands in a channel that is shared with people outside are refused.
	w.as(sandbox.Hanna, sandbox.Vendor).types("/entra-revoke-sessions mina.haddad@fernhill.example stolen")
	w.as(sandbox.Hanna, sandbox.Vendor).reads("shared with people outside", "nothing is done from here")
	auditor.reads("hanna.okafor@", "was refused: Revoke sessions", "shared with people outside")
	w.as(sandbox.Hanna, sandbox.Vendor).types("/entra-add-phone mina.haddad@fernhill.example")
	w.as(sandbox.Hanna, sandbox.Vendor).sees("shared with people outside")

	// None of this changed anything.
	if still := w.as(sandbox.Ravi, sandbox.Approvals).reads("waiting for approval", "0 of 1", id); still.TS != card.TS {
		t.Error("the card was posted again")
	}
	if cards := w.as(sandbox.Ravi, sandbox.Approvals).messagesWith("waiting for approval"); len(cards) != 1 {
		t.Errorf("there are %d requests", len(cards))
	}
	if n := w.countChanges("revokeSignInSessions"); n != 0 {
		t.Errorf("the sessions were revoked %d times", n)
	}

	// A member whose id begins with W, in a workspace of an Enterprise Grid, is treated
	// as everybody else.
	w.deliver("interactive", press.with("user.id", "W0WANDA").with("enterprise", map[string]any{"id": "E0GRID", "name": "Fernhill"}))
	auditor.reads("Succeeded: ", "wan@fernhill.example", id)
	w.deliver("slash_commands", command.with("user_id", "W0WANDA").with("enterprise_id", "E0GRID"))
	w.as(sandbox.Ravi, sandbox.Approvals).reads("waiting for approval", "mina.haddad@", "wan@fernhill.example")
}

// With a table, only the table maps Slack accounts to Entra accounts. Two Slack accounts
// of one person are one person, who can take only one part in a request.
func TestPeopleTable(t *testing.T) {
	w := startBot(t, shortFaultTimings, func(c *config) {
		c.People.MatchEmail = false
		c.People.Table = map[string]string{
			sandbox.Hanna: sandbox.HannaID, sandbox.Mina: sandbox.HannaID,
			sandbox.Ravi: sandbox.RaviID, sandbox.Gloria: sandbox.RaviID,
			sandbox.Dana: sandbox.AlexMID, sandbox.AlexM: sandbox.AlexMID,
			sandbox.Sam: sandbox.OlgaID, // whatever his e-mail address says
			sandbox.Bo:  "0e0b6d0a-3c52-4f6f-8f57-5a1d1c6a9e11",
		}
	})
	in := func(who string) *slackUser { return w.as(who, sandbox.Approvals) }
	auditor := w.as(sandbox.Gloria, sandbox.Audit)
	for _, everybody := range []string{sandbox.Mina, sandbox.Sam, sandbox.AlexM} {
		w.addToChannel(sandbox.Approvals, everybody)
	}
	w.addToChannel(sandbox.HelpDesk, sandbox.Bo)

	// A person who is not in the table is unknown, and so is one whose Entra account
	// does not exist.
	in(sandbox.Olga).types("/entra-revoke-sessions @mina stolen")
	in(sandbox.Olga).reads("does not know which Entra account belongs to your Slack account", "people.table")
	w.as(sandbox.Bo, sandbox.HelpDesk).types("/entra-help")
	w.as(sandbox.Bo, sandbox.HelpDesk).reads("No single Entra account belongs to your Slack account")

	// An executive takes two approvals.
	w.as(sandbox.Hanna, sandbox.HelpDesk).types("/entra-revoke-sessions @alexm laptop stolen")
	card := in(sandbox.Ravi).reads("waiting for approval", "0 of 2", "alexa.morgan@")
	id := requestID.FindString(card.Text())
	for _, c := range []struct{ who, told string }{
		{sandbox.Mina, "You asked for"}, {sandbox.Dana, "your own account"}, {sandbox.AlexM, "your own account"}, {sandbox.Olga, "does not know which Entra account"},
	} {
		in(c.who).presses(card, "approve")
		in(c.who).reads(c.told)
	}
	in(sandbox.Ravi).presses(card, "approve")
	in(sandbox.Ravi).reads("1 of 2", id)
	in(sandbox.Gloria).presses(card, "approve")
	in(sandbox.Gloria).reads("already")
	auditor.reads("ravi.menon@", "tried to approve and was refused", id)
	if n := w.countChanges("revokeSignInSessions"); n != 0 {
		t.Fatalf("one person approved twice")
	}
	in(sandbox.Sam).presses(card, "approve")
	auditor.reads("Succeeded: ", "ravi.menon@", "olga.lindqvist@", id)
}

// An e-mail address must match exactly one account: Countersign does not choose between
// two, and an account that got another account's address is not that account.
func TestEmailMatches(t *testing.T) {
	w := startBot(t, shortFaultTimings)
	hanna, ravi, olga := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals), w.as(sandbox.Olga, sandbox.Approvals)
	auditor := w.as(sandbox.Gloria, sandbox.Audit)
	card := w.request("/entra-revoke-sessions @dana laptop stolen")
	id := requestID.FindString(card.Text())

	// Two accounts have Olga's address.
	w.must(w.client.PatchUser("sam.ito@fernhill.example", map[string]any{"mail": "olga.lindqvist@fernhill.example"}))
	olga.presses(card, "approve")
	olga.reads("No single Entra account belongs to your Slack account", "does not guess")
	auditor.reads("Olga Lindqvist", "tried to approve and was refused", id)
	hanna.types("/entra-revoke-sessions @olga stolen")
	hanna.reads("No single Entra account belongs to the Slack account that you mentioned")

	// Ravi is known by an alias. Later the alias leads to a new account
	// with another object id.
	const alias = "lead@fernhill.example"
	w.patchSlack("people/"+sandbox.Ravi, `{"email":"`+alias+`"}`)
	ravi.presses(card, "approve")
	ravi.reads("No single Entra account belongs to your Slack account") // no account has it
	w.must(w.client.PatchUser("ravi.menon@fernhill.example", map[string]any{"mail": alias}))
	ravi.presses(card, "details")
	ravi.sees("What will happen", id)
	w.must(w.client.PatchUser("ravi.menon@fernhill.example", map[string]any{"mail": "gone@fernhill.example"}))
	w.must(w.client.PatchUser("alex.morgan@fernhill.example", map[string]any{"mail": alias, "groups": []string{"Identity approvers"}}))
	ravi.presses(card, "approve")
	ravi.reads("does not trust it", "security people")
	auditor.reads("Alarm about Ravi Menon", "Alex Morgan")
	// The other way round: another Slack account with Ravi's address does not get Ravi's
	// account.
	w.patchSlack("people/"+sandbox.Dana, `{"email":"ravi.menon@fernhill.example"}`)
	w.as(sandbox.Dana, sandbox.Approvals).presses(card, "approve")
	w.as(sandbox.Dana, sandbox.Approvals).reads("does not trust it")
	auditor.reads("Alarm about Dana Whitfield", "Ravi Menon")
	if n := w.countChanges("revokeSignInSessions"); n != 0 {
		t.Errorf("the sessions were revoked %d times", n)
	}

	// An administrator lists the new account in the table.
	w.stop()
	w.service.config.People.Table = map[string]string{sandbox.Ravi: sandbox.AlexID}
	w.start()
	t.Cleanup(w.stop)
	ravi.presses(card, "approve")
	auditor.reads("Succeeded: ", "alex.morgan@", id)
}

// The accounts and permissions of requester and approvers are checked again when
// somebody decides and when the request runs.
func TestPeopleAreRechecked(t *testing.T) {
	w := startBot(t, shortFaultTimings)
	hanna, ravi, olga := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals), w.as(sandbox.Olga, sandbox.Approvals)
	auditor := w.as(sandbox.Gloria, sandbox.Audit)
	inSlack := func(who, change, back string) (func(), func()) {
		return func() { w.patchSlack("people/"+who, change) }, func() { w.patchSlack("people/"+who, back) }
	}
	inEntra := func(upn, what string, value, back any) (func(), func()) {
		return func() { w.must(w.client.PatchUser(upn, map[string]any{what: value})) },
			func() { w.must(w.client.PatchUser(upn, map[string]any{what: back})) }
	}
	const hannaUPN, raviUPN = "hanna.okafor@fernhill.example", "ravi.menon@fernhill.example"
	type change struct {
		what     string
		do, undo func()
		told     string // at a click
		ends     string // at execution
	}
	var all []change
	add := func(what, told, ends string, do, undo func()) { all = append(all, change{what, do, undo, told, ends}) }
	do, undo := inSlack(sandbox.Ravi, `{"guest":true}`, `{"guest":false}`)
	add("the approver became a guest in Slack", "You are a guest in this workspace", "Ravi Menon (ravi.menon@fernhill.example), who approved it, is not a full member", do, undo)
	do, undo = inSlack(sandbox.Ravi, `{"deactivated":true}`, `{"deactivated":false}`)
	add("the approver was deactivated in Slack", "", "Ravi Menon (ravi.menon@fernhill.example), who approved it, is not a full member", do, undo)
	do, undo = inEntra(raviUPN, "enabled", false, true)
	add("the approver's account was blocked", "blocked from signing in", "who approved it, may not decide", do, undo)
	do, undo = inEntra(raviUPN, "guest", true, false)
	add("the approver's account became a guest's", "You are a guest in this tenant", "who approved it, may not decide", do, undo)
	do, undo = inEntra(raviUPN, "groups", []string{"Help desk"}, []string{"Help desk", "Identity approvers"})
	add("the approver left the approvers", "You may not decide", "who approved it, may not decide", do, undo)
	do, undo = inSlack(sandbox.Hanna, `{"guest":true}`, `{"guest":false}`)
	add("the requester became a guest in Slack", "", "Hanna Okafor (hanna.okafor@fernhill.example), who requested it, is not a full member", do, undo)
	do, undo = inSlack(sandbox.Hanna, `{"deactivated":true}`, `{"deactivated":false}`)
	add("the requester was deactivated in Slack", "", "Hanna Okafor (hanna.okafor@fernhill.example), who requested it, is not a full member", do, undo)
	do, undo = inEntra(hannaUPN, "enabled", false, true)
	add("the requester's account was blocked", "", "who requested it, may not request", do, undo)
	do, undo = inEntra(hannaUPN, "groups", []string{}, []string{"Help desk"})
	add("the requester left the help desk", "", "who requested it, may not request", do, undo)

	for _, c := range all {
		w.Logf("%s", c.what)
		hanna.types("/entra-revoke-sessions @alexm laptop stolen") // an executive takes two approvals
		card := ravi.reads("waiting for approval", "0 of 2", "alexa.morgan@")
		id := requestID.FindString(card.Text())
		if c.told != "" {
			c.do()
			ravi.presses(card, "approve")
			ravi.reads(c.told)
			auditor.reads("avi", "tried to approve and was refused", c.told, id)
			c.undo()
		}
		ravi.presses(card, "approve")
		ravi.reads("1 of 2", id)
		c.do()
		olga.presses(card, "approve")
		end := auditor.reads("Failed: ", c.ends, id)
		olga.reads(": failed", "skipped", id)
		c.undo()
		if t.Failed() {
			t.Fatalf("%s: %s", c.what, end.Text())
		}
	}
	if n := w.countChanges("revokeSignInSessions"); n != 0 {
		t.Errorf("the sessions were revoked %d times", n)
	}
}

// The target of a takeover or destroy request in the last 48 hours can neither
// request nor decide.
func TestRecentTargetsAreRefused(t *testing.T) {
	w := startBot(t, shortFaultTimings, func(c *config) {
		c.Policy.Groups["approvers"] = approvals.Group{Entra: []string{sandbox.GroupApprovers}, People: []string{sandbox.GloriaID}}
	})
	hanna, ravi, olga, gloria := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals), w.as(sandbox.Olga, sandbox.Approvals), w.as(sandbox.Gloria, sandbox.Approvals)
	auditor := w.as(sandbox.Gloria, sandbox.Audit)
	waiting := w.request("/entra-revoke-sessions @dana laptop stolen")

	hanna.types("/entra-reset-password @ravi verified=video forgotten")
	card := olga.reads("waiting for approval", "0 of 2", "ravi.menon@") // an approver as target takes two approvals
	olga.presses(card, "approve")
	gloria.presses(card, "approve")
	auditor.reads("Succeeded: ", requestID.FindString(card.Text()))
	ravi.presses(waiting, "approve")
	ravi.reads("changed in the last 48 hours")
	auditor.reads("ravi.menon@", "tried to approve and was refused", "48 hours", requestID.FindString(waiting.Text()))
	ravi.types("/entra-revoke-sessions @mina stolen")
	ravi.reads("neither request nor decide")
	auditor.reads("ravi.menon@", "was refused: Revoke sessions", "48 hours")

	// The waiting request was submitted before Hanna's own account was changed,
	// and is approved afterwards: it does not run.
	w.as(sandbox.Olga, sandbox.HelpDesk).types("/entra-help") // so that Olga is seen in both channels
	w.must(w.client.PatchUser("olga.lindqvist@fernhill.example", map[string]any{"groups": []string{"On-call engineers", "Identity approvers", "Help desk"}}))
	olga.types("/entra-reset-password @hanna verified=video forgotten")
	card = gloria.reads("Reset password: waiting for approval", "For", "hanna.okafor@")
	gloria.presses(card, "approve")
	auditor.reads("Succeeded: ", requestID.FindString(card.Text()))
	olga.presses(waiting, "approve")
	auditor.reads("Failed: ", "who requested it, was the target of such a request in the last 48 hours", requestID.FindString(waiting.Text()))
	hanna.types("/entra-revoke-sessions @mina stolen")
	hanna.reads("neither request nor decide")
	if n := w.countChanges("revokeSignInSessions"); n != 2 { // of Ravi and Hanna, with their passwords
		t.Errorf("sessions were revoked %d times", n)
	}
}

// The configuration of people is validated strictly.
func TestPeopleInTheConfiguration(t *testing.T) {
	for _, c := range []struct {
		what  string
		tune  func(*config)
		wrong string
	}{
		{"the sandbox's configuration", func(*config) {}, ""},
		{"a Grid's people, and one with two accounts", func(c *config) {
			c.People.Table = map[string]string{"W0123ABCD": sandbox.RaviID, "U0123ABCD": sandbox.RaviID}
		}, ""},
		{"an object id in upper case, which would be another person", func(c *config) {
			c.People.Table = map[string]string{"U0123ABCD": strings.ToUpper(sandbox.RaviID)}
		}, "in lower case"},
		{"a user principal name, which somebody else can get", func(c *config) {
			c.People.Table = map[string]string{"U0123ABCD": "ravi.menon@fernhill.example"}
		}, "is not an Entra object id"},
		{"a handle", func(c *config) { c.People.Table = map[string]string{"ravi": sandbox.RaviID} }, "is not a Slack user id"},
		{"a bot's id", func(c *config) { c.People.Table = map[string]string{"B0123ABCD": sandbox.RaviID} }, "is not a Slack user id"},
		{"nobody", func(c *config) { c.People.MatchEmail = false }, "list who is who"},
		{"an organisation for a workspace", func(c *config) { c.Slack.Team = "E0123ABCD" }, "slack.team"},
		{"no workspace", func(c *config) { c.Slack.Team = "" }, "slack.team"},
		{"a member in upper case", func(c *config) {
			c.Policy.Groups["approvers"] = approvals.Group{People: []string{strings.ToUpper(sandbox.RaviID)}}
		}, "is not an object id"},
	} {
		configuration := sandboxConfig("http://127.0.0.1:1", "https://127.0.0.1:1", "redis://127.0.0.1:1")
		c.tune(&configuration)
		err := configuration.check()
		if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

// addToChannel adds somebody to a channel.
func (w *fixture) addToChannel(channel, who string) {
	w.Helper()
	for _, c := range w.box.Company().Channels {
		if c.ID == channel {
			members, err := w.client.As(c.Members[0]).Channels()
			w.must(err)
			for _, m := range members {
				if m.ID == channel {
					raw, err := json.Marshal(map[string]any{"members": append(m.Members, who)})
					w.must(err)
					w.patchSlack("channels/"+channel, string(raw))
				}
			}
		}
	}
}

// A click on "Request it again" is refused, and its inbox entry is delivered once more
// when it would be allowed: the answer stays the same. The same holds the
// other way round.
func TestRequestAgainIsIdempotent(t *testing.T) {
	t.Parallel()
	w := startBot(t)
	hanna, ravi := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
	card := w.request("/entra-require-reregister @dana verified=video lost phone")
	dana, err := w.client.User(danaUPN)
	w.must(err)
	apps := dana.OfType("#microsoft.graph.microsoftAuthenticatorAuthenticationMethod")
	w.must(w.client.DeleteMethod(danaUPN, apps[0].ID))
	ravi.presses(card, "approve")
	ravi.reads(danaUPN, "failed")
	failed := hanna.dm().reads("Failed", danaUPN)
	rdb := w.redis.Client(t)
	// Simulates a process that ended before it removed the entry from the inbox.
	comesAgain := func() {
		t.Helper()
		events, err := rdb.XLen(t.Context(), "{countersign}:events").Result()
		w.must(err)
		marks := w.redis.Keys(t, "{countersign}:envelope:*")
		w.must(rdb.Del(t.Context(), marks...).Err())
		w.must(w.client.Redeliver(""))
		w.poll("the entry to be processed once more", func() bool {
			left, err := rdb.XLen(t.Context(), "{countersign}:inbox").Result()
			return err == nil && left == 0 && len(w.redis.Keys(t, "{countersign}:envelope:*")) > 0
		})
		if now, err := rdb.XLen(t.Context(), "{countersign}:events").Result(); err != nil || now != events {
			t.Errorf("the second delivery wrote %d events (%v)", now-events, err)
		}
	}

	w.patchSlack("people/"+sandbox.Hanna, `{"guest":true}`)
	hanna.dm().presses(failed, "again")
	hanna.dm().reads("You are a guest in this workspace")
	w.patchSlack("people/"+sandbox.Hanna, `{"guest":false}`)
	comesAgain()

	hanna.dm().presses(failed, "again")
	hanna.dm().reads("is requested as")
	w.patchSlack("people/"+sandbox.Hanna, `{"guest":true}`)
	comesAgain()
	ravi.reads("waiting for approval", danaUPN, "lost phone")
	if n := len(ravi.messagesWith("waiting for approval", danaUPN, "lost phone")); n != 1 {
		t.Errorf("%d requests wait for approval", n)
	}
}

// A request about an approver takes one more approval, even if the approvers are a
// Slack user group, her account is not pinned yet and her name is typed, or Slack has
// an alias of hers. If Slack does not answer, the request is refused. The look-up does
// not pin the account.
func TestTypedNamesInSlackUserGroups(t *testing.T) {
	t.Parallel() // it waits until a look-up fails
	world := sandbox.Fernhill(time.Now())
	world.UserGroups[0].Users = []string{sandbox.Olga, sandbox.Ravi, sandbox.Mina, sandbox.Dana, sandbox.Pat}
	for i := range world.Users {
		if world.Users[i].ID == sandbox.DanaID {
			world.Users[i].ProxyAddresses = append(world.Users[i].ProxyAddresses, "smtp:dana@fernhill.example")
		}
	}
	for i := range world.People {
		switch world.People[i].ID {
		case sandbox.Dana:
			world.People[i].Email = "dana@fernhill.example"
		case sandbox.Pat: // a guest, with the address of somebody else
			world.People[i].Email = "alex.morgan@fernhill.example"
		case sandbox.Alex:
			world.People[i].Email = "alex@elsewhere.example"
		}
	}
	w := startBotIn(t, &world, shortFaultTimings, func(c *config) {
		c.Policy.Groups["duty"] = approvals.Group{Slack: []string{sandbox.OnCallUserGroup}}
		r := c.Policy.Classes[approvals.ClassContain]
		r.Approve = []string{"duty"}
		c.Policy.Classes[approvals.ClassContain] = r
	})
	hanna, ravi := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)

	w.must(w.client.SetSlackFaults(slack.Fault{Method: "users.lookupByEmail", Kind: "error"}))
	hanna.types("/entra-revoke-sessions " + minaUPN + " laptop stolen")
	hanna.reads("Slack did not say which user groups", "what cannot be checked is refused")
	w.must(w.client.SetSlackFaults())

	for _, c := range []struct{ upn, takes string }{
		{minaUPN, "0 of 2"}, {danaUPN, "0 of 2"},
		{"sam.ito@fernhill.example", "0 of 1"},     // in no group
		{"alex.morgan@fernhill.example", "0 of 1"}, // a guest's account does not count as his
	} {
		hanna.types("/entra-revoke-sessions " + c.upn + " laptop stolen")
		ravi.reads("waiting for approval", c.upn, c.takes)
	}
	pins, err := w.redis.Client(t).HGetAll(t.Context(), "{countersign}:pins:entra").Result()
	w.must(err)
	for _, id := range []string{sandbox.MinaID, sandbox.DanaID, sandbox.SamID, sandbox.AlexID} {
		if pins[id] != "" {
			t.Errorf("%s is pinned to %s, but was only a target", id, pins[id])
		}
	}
}
