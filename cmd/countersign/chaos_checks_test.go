package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"countersign/approvals"
	"countersign/audit"
	"countersign/sandbox"
	"countersign/sandbox/entra"
)

// What is looked at behind the storm of TestChaos, from outside: Slack as
// people read it, the calls that the tenant executed, the events, and what
// is left in Redis.

func (c *chaos) key(name string) string {
	prefix := c.config.Redis.Prefix
	if prefix == "" {
		prefix = "countersign"
	}
	return "{" + prefix + "}:" + name
}

// settles waits until nothing is left to be done. What nobody decided expires
// by itself.
func (c *chaos) settles() {
	ctx := c.Context()
	limit := 2*lifetime + patience
	var last string
	quiet := wait(limit, func() bool {
		open, err1 := c.rdb.ZCard(ctx, c.key("open")).Result()
		inbox, err2 := c.rdb.XLen(ctx, c.key("inbox")).Result()
		behind, err3 := c.lag()
		last = fmt.Sprintf("%d requests are open, %d entries are in the inbox, readers are %s behind", open, inbox, behind)
		return open == 0 && inbox == 0 && behind == 0 && errors.Join(err1, err2, err3) == nil
	})
	if !quiet {
		c.Errorf("%s after the storm it has not come to rest: %s", limit, last)
	}
	for _, r := range c.pack {
		r.stop()
	}
	c.deafen() // from here on, nothing is heard any more
	for id, story := range c.stories {
		if _, over := has(story, ends...); !over {
			c.wrong(id, "it is stuck")
		}
	}
}

// lag is how far the slowest reader of the events is behind.
func (c *chaos) lag() (longest time.Duration, err error) {
	for _, key := range c.server.Keys(c.T, c.key("cursor:*")) {
		lag, failed := c.store.Lag(c.Context(), strings.TrimPrefix(key, c.key("cursor:")))
		longest, err = max(longest, lag), errors.Join(err, failed)
	}
	return longest, err
}

// messages are what somebody sees in a conversation: none where the bot never
// sent them a direct message.
func (c *chaos) messages(who, channel string) []sandbox.Message {
	c.Helper()
	messages, err := c.client.As(who).Messages(channel)
	if missing, ok := errors.AsType[*sandbox.Error](err); ok && missing.Code == "channel_not_found" && channel == c.dm(who) {
		return nil
	}
	if err != nil {
		c.Fatalf("reading what %s sees in %s: %v", who, channel, err)
	}
	return messages
}

// checkClicks looks for the outcome of everything that Slack acknowledged.
func (c *chaos) checkClicks() {
	c.ephemeral = map[string][]sandbox.Message{}
	excuses := map[string][]time.Time{} // when they were told that something was perhaps not done; each counts once
	for _, who := range []string{sandbox.Hanna, sandbox.Ravi, sandbox.Olga} {
		for _, channel := range []string{sandbox.HelpDesk, sandbox.Approvals, c.dm(who)} {
			for _, m := range c.messages(who, channel) {
				if m.Ephemeral {
					c.ephemeral[who] = append(c.ephemeral[who], m)
				}
			}
		}
		for _, m := range c.ephemeral[who] {
			if m.Contains("could not be confirmed") || m.Contains("What you did at", "carried out: it") {
				excuses[who] = append(excuses[who], posted(m))
			}
		}
	}
	// An answer to somebody may come in any of their messages.
	answered := func(who string, parts ...string) bool {
		return slices.ContainsFunc(c.ephemeral[who], func(m sandbox.Message) bool { return m.Contains(parts...) })
	}
	excused := func(k click) bool {
		i := slices.IndexFunc(excuses[k.who], func(at time.Time) bool { return c.soonAfter(k, at) })
		if i >= 0 {
			excuses[k.who] = slices.Delete(excuses[k.who], i, i+1)
		}
		return i >= 0
	}
	// The earliest excuse goes to the earliest click that it may be for, so that
	// no click takes the only one of another.
	for _, all := range excuses {
		slices.SortFunc(all, time.Time.Compare)
	}
	slices.SortStableFunc(c.clicks, func(a, b click) int { return a.at.Compare(b.at) })
	known := map[string]bool{}
	for _, k := range c.clicks {
		known[k.envelope] = true
		became := c.ops[k.envelope]
		if !k.acked {
			c.counts["clicks not acknowledged"]++
			if len(became) > 0 {
				c.counts["clicks not acknowledged, and carried out"]++
			}
			continue
		}
		c.counts["clicks acknowledged"]++
		if len(became) == 0 {
			if excused(k) {
				c.counts["clicks acknowledged, and said not to be carried out"]++
				continue
			}
			c.wrong(k.about, "lost: what %s did at %s, and Slack acknowledged: %s (%s)", k.who, k.at.Format(time.TimeOnly), k.what, k.envelope)
			continue
		}
		e := became[0]
		if len(became) > 1 && !(len(became) == 2 && e.Kind == audit.Confirmed && became[1].Kind == audit.Finished) {
			c.wrong(cmp.Or(e.Request, k.about), "one click has %d answers: %s, and then: %s", len(became), e.Line(), became[1].Line())
		}
		switch e.Kind {
		case audit.Refused:
			c.counts["clicks refused: "+e.Code]++
			switch {
			case answered(k.who, e.Reason):
			case excused(k):
				// Each process that took it up died before it could answer: then it
				// is moved to the dead letters, and its author hears of that instead.
				c.counts["clicks refused, and said not to be carried out"]++
			default:
				c.wrong(k.about, "%s does not read why %q was refused: %s", k.who, k.what, e.Reason)
			}
		case audit.Requested: // or the card alone tells, which is looked for with the others
			if k.what != "again" && !answered(k.who, "is requested as", e.Request) {
				c.counts["requests that their card alone confirmed"]++
			}
		case audit.Read: // or why not: Graph may fail behind the record
			d := c.targets[k.about]
			if !answered(k.who, d.upn(), "Authentication methods") && !slices.ContainsFunc(c.ephemeral[k.who], func(m sandbox.Message) bool {
				return m.Contains("Microsoft Graph") && c.soonAfter(k, posted(m))
			}) && !excused(k) { // last, because an excuse counts once
				c.wrong(k.about, "%s does not read the methods of %s", k.who, d.upn())
			}
		}
	}
	// Nothing that people do is done without one of them.
	for _, e := range c.events {
		people := []audit.Kind{audit.Requested, audit.Approved, audit.Denied, audit.Cancelled, audit.Halted, audit.Attested, audit.Confirmed, audit.Refused, audit.Read}
		if slices.Contains(people, e.Kind) && !known[e.Op] {
			c.wrong(e.Request, "nobody did this: %s (%s)", e.Line(), e.Op)
		}
	}
}

// soonAfter says that an answer at this instant may be one to the click. On a
// slow machine everything takes longer, take-overs above all.
func (c *chaos) soonAfter(k click, at time.Time) bool {
	return at.After(k.at) && at.Before(k.at.Add(time.Minute*c.pace))
}

// posted is when a message was.
func posted(m sandbox.Message) time.Time {
	seconds, micros, _ := strings.Cut(m.TS, ".")
	s, _ := strconv.ParseInt(seconds, 10, 64)
	u, _ := strconv.ParseInt(micros, 10, 64)
	return time.Unix(s, u*1000)
}

// checkRequests holds each story, and what Redis has of it, to the rules.
func (c *chaos) checkRequests() {
	holder := map[string]string{} // by target: which request runs
	for _, e := range c.events {
		switch {
		case e.Kind == audit.Started:
			if other := holder[e.Target.ID]; other != "" {
				c.wrong(e.Request, "it ran while %s ran for the same target", other)
			}
			holder[e.Target.ID] = e.Request
		case holder[e.Target.ID] == e.Request && (e.Kind == audit.HandedOff || slices.Contains(ends, e.Kind)):
			delete(holder, e.Target.ID)
		}
	}
	for id, story := range c.stories {
		snap, err := c.store.Load(c.Context(), id)
		if err != nil {
			c.wrong(id, "it cannot be read: %v", err)
			continue
		}
		n := map[audit.Kind]int{}
		over := false
		for _, e := range story {
			if over && !slices.Contains([]audit.Kind{audit.Refused, audit.Revealed, audit.Unseen}, e.Kind) {
				c.wrong(id, "after its end: %s", e.Line())
			}
			n[e.Kind]++
			over = over || slices.Contains(ends, e.Kind)
		}
		end, _ := c.end(id)
		steps := 0 // that a worker took
		for _, j := range snap.Journal {
			switch j.State {
			case approvals.StepDone, approvals.StepAlready, approvals.StepFailed, approvals.StepUncertain:
				steps++
			case approvals.StepStarted, approvals.StepWaiting, approvals.StepHandedOff:
				if end.Kind == audit.Finished {
					c.wrong(id, "a step is %q behind the end", j.State)
				}
			}
		}
		said := ""
		for _, s := range end.Steps {
			said += s.State + "\n"
		}
		written := ""
		for _, j := range snap.Journal {
			written += string(j.State) + "\n"
		}
		people := map[string]bool{snap.Requester.ID: true, snap.Plan.Target.ID: true}
		for _, by := range snap.Approvers() {
			if people[by.ID] {
				c.wrong(id, "%s has two parts in it", by)
			}
			people[by.ID] = true
		}
		final := map[audit.Kind]approvals.State{audit.Finished: approvals.StateDone, audit.Denied: approvals.StateDenied, audit.Expired: approvals.StateExpired, audit.Cancelled: approvals.StateCancelled}
		for _, rule := range []struct {
			holds bool
			says  string
		}{
			{n[audit.Requested] == 1 && story[0].Kind == audit.Requested, "it was requested once, and that came first"},
			{n[end.Kind] == 1 && over, "it ended once"},
			{snap.State == final[end.Kind] && string(snap.Outcome) == end.Outcome, "its state is its end"},
			{n[audit.Started] <= 1, "it was started once at most"},
			{(n[audit.Started] == 1) == (end.Kind == audit.Finished), "what finished was started, and what was started finished"},
			{n[audit.Started] == 0 || len(snap.Approvals) >= snap.Requirements.Approvals && n[audit.Approved] == len(snap.Approvals), "it was started with all approvals"},
			{n[audit.StepEnded] == steps, "each step that was taken has one event"},
			{end.Kind != audit.Finished || said == written, "its last event has the journal"},
			{n[audit.Started] == 0 || snap.Claim >= 1, "it was claimed"},
		} {
			if !rule.holds {
				c.wrong(id, "it does not hold that %s: %v, %s %s, %d steps, said %q, written %q", rule.says, n, snap.State, snap.Outcome, steps, said, written)
			}
		}
		c.counts["request: "+cmp.Or(end.Outcome, string(end.Kind))]++
		c.counts["take-overs"] += max(0, int(snap.Claim)-1)
	}
}

// effect is one call that a step makes.
type effect struct{ method, path string }

// effects are the calls that a step makes, or may make, to change its target.
func (c *chaos) effects(r approvals.Request, s approvals.Step) (calls []effect) {
	user := "/users/" + r.Plan.Target.ID
	methods := user + "/authentication/"
	collection := map[string]string{
		"phone": "phoneMethods", "email": "emailMethods", "authenticator": "microsoftAuthenticatorMethods", "software-oath": "softwareOathMethods",
		"hardware-oath": "hardwareOathMethods", "passkey": "fido2Methods", "windows-hello": "windowsHelloForBusinessMethods", "platform-credential": "platformCredentialMethods",
		"pass": "temporaryAccessPassMethods", "external": "externalAuthenticationMethods", "qr-code": "qrCodePinMethod",
	}
	switch s.Op {
	case "delete-methods", "deactivate-token":
		var all []struct{ ID, Kind string }
		if err := json.Unmarshal([]byte(s.Args["methods"]), &all); err != nil {
			c.Fatalf("the step %s has other arguments than this test knows: %v", s.Op, err)
		}
		for _, m := range all {
			segment, ok := collection[m.Kind]
			switch {
			case !ok:
				c.Fatalf("say how Graph calls the methods of kind %q", m.Kind)
			case s.Op == "deactivate-token":
				calls = append(calls, effect{http.MethodPost, methods + segment + "/" + m.ID + "/deactivate"})
			case m.Kind == "qr-code":
				calls = append(calls, effect{http.MethodDelete, methods + segment})
			default:
				calls = append(calls, effect{http.MethodDelete, methods + segment + "/" + m.ID})
			}
		}
	case "set-phone", "set-email":
		segment := collection[strings.TrimPrefix(s.Op, "set-")]
		if s.Args["old"] == "" {
			return []effect{{http.MethodPost, methods + segment}}
		}
		return []effect{{http.MethodPatch, methods + segment + "/" + s.Args["id"]}}
	case "reset-password", "block-signin", "unblock-signin":
		return []effect{{http.MethodPatch, user}}
	case "issue-pass":
		return []effect{{http.MethodPost, methods + collection["pass"]}}
	case "revoke-sessions":
		return []effect{{http.MethodPost, user + "/revokeSignInSessions"}}
	case "verify-removal":
	default:
		if !s.ByPeople {
			c.Fatalf("say which calls the step %q makes", s.Op)
		}
	}
	return calls
}

// once is how often a call of a step may have taken effect.
//
// What can be read is read before it is repeated, so it is there once: a
// deletion or deactivation, a number or address, a block, a revocation. What
// cannot be read is sent again by whoever takes over, and once more where an
// answer is lost: the same password, or a pass that takes the place of the
// lost one. Sessions need no revocation where the new password has revoked
// them. A step that failed, was skipped or never begun has no effect; but of
// several methods that one step deletes, some may be gone.
func once(r approvals.Request, step, calls int) (least, most int) {
	s, j := r.Plan.Steps[step], r.Journal[step]
	switch j.State {
	case approvals.StepDone:
		least = 1
	case approvals.StepUncertain:
	case approvals.StepFailed:
		if calls == 1 {
			return 0, 0
		}
	default:
		return 0, 0
	}
	switch {
	case s.Op == "reset-password" || s.Op == "issue-pass":
		return least, 2 * int(r.Claim)
	case s.Op == "revoke-sessions" && r.Plan.Steps[0].Op == "reset-password":
		return 0, 1
	}
	return least, 1
}

// checkTenant holds what was done to the accounts against the journals.
func (c *chaos) checkTenant() {
	calls, err := c.client.EntraCalls()
	if err != nil {
		c.Fatal(err)
	}
	applied := map[effect][]entra.Entry{}
	of := map[effect]string{} // the target
	for _, e := range calls.Changes {
		_, path, _ := strings.Cut(strings.TrimPrefix(e.Path, "/"), "/") // without the version
		is := effect{e.Method, "/" + path}
		target, _, _ := strings.Cut(strings.TrimPrefix(path, "users/"), "/")
		if _, ours := c.targets[target]; ours && e.Status >= 200 && e.Status < 300 {
			applied[is] = append(applied[is], e)
			of[is] = target
			c.counts["changes of the tenant"]++
		}
	}
	for id := range c.stories {
		snap, err := c.store.Load(c.Context(), id)
		if err != nil {
			continue // told already
		}
		for i, s := range snap.Plan.Steps {
			all := c.effects(snap.Request, s)
			for _, is := range all {
				least, most := once(snap.Request, i, len(all))
				var mine, others []entra.Entry
				digests := map[string]bool{}
				for _, e := range applied[is] {
					at, err := time.Parse(time.RFC3339Nano, e.Time)
					if err != nil {
						c.Fatal(err)
					}
					// Another request for the same target may make the same call.
					if at.Before(snap.Created.Truncate(time.Millisecond)) || len(mine) >= most && c.sharedLater(snap.Request, is, at) {
						others = append(others, e)
						continue
					}
					if len(mine) >= most && c.late(snap.Request, at) {
						c.counts["late changes of a process that was stopped, as documented"]++
						continue
					}
					mine = append(mine, e)
					digests[e.Digest] = true
				}
				switch {
				case len(mine) > most:
					c.wrong(id, "step %d (%s, %s) took effect %d times and not %d at most: %s %s %+v", i+1, s.Op, snap.Journal[i].State, len(mine), most, is.method, is.path, mine)
				case len(mine) < least && len(all) == 1:
					c.wrong(id, "step %d (%s) is said to be done, and took no effect: %s %s", i+1, s.Op, is.method, is.path)
				case len(digests) > 1:
					c.wrong(id, "step %d (%s) was repeated with other words: %+v", i+1, s.Op, mine)
				}
				applied[is] = others
			}
		}
	}
	for is, left := range applied {
		if len(left) > 0 {
			c.wrong("", "%s %s took effect and belongs to no step: %+v (target %s)", is.method, is.path, left, c.targets[of[is]].upn())
		}
	}
}

// sharedLater says that another request for the same target, made after this
// one and before at, has a step that makes the same call.
func (c *chaos) sharedLater(r approvals.Request, is effect, at time.Time) bool {
	for id, story := range c.stories {
		if id == r.ID || story[0].Target.ID != r.Plan.Target.ID || story[0].At.Before(r.Created) || story[0].At.After(at) {
			continue
		}
		snap, err := c.store.Load(c.Context(), id)
		if err != nil {
			continue
		}
		for _, s := range snap.Plan.Steps {
			if slices.Contains(c.effects(snap.Request, s), is) {
				return true
			}
		}
	}
	return false
}

// late says that a call came from a process that was stopped while this
// request ran, for longer than its lease, and was continued just before: the
// window that the documents leave open, between the last look at the clock
// and the call.
func (c *chaos) late(r approvals.Request, at time.Time) bool {
	return slices.ContainsFunc(c.strokes, func(s stroke) bool {
		return s.what == paused && s.to.Sub(s.from) > c.config.Timing.Lease && !r.StartedAt.IsZero() && s.to.After(r.StartedAt) &&
			at.After(s.woken) && at.Before(s.to.Add(time.Second*c.pace))
	})
}

// checkSlack looks for the end of each request where people read it.
func (c *chaos) checkSlack() {
	channel := func(who, id string) []sandbox.Message {
		return slices.DeleteFunc(c.messages(who, id), func(m sandbox.Message) bool { return m.Ephemeral })
	}
	strokes := len(c.strokes)

	// The record has every event, in order, each at most once too often for
	// every stroke.
	var lines []string
	for _, m := range channel(sandbox.Gloria, sandbox.Audit) {
		lines = append(lines, m.Text())
	}
	recorded := map[string]int{}
	for _, l := range lines {
		recorded[l]++
	}
	duplicates, at := 0, 0
	for _, e := range c.events {
		if e.Kind == audit.StepEnded {
			continue
		}
		line := e.Line()
		if recorded[line] == 0 {
			c.wrong(e.Request, "the record lacks: %s", line)
			continue
		}
		recorded[line]--
		// Its first copy stands behind the first copy of what was before.
		if next := slices.Index(lines[at:], line); next >= 0 {
			at += next
		} else if slices.Index(lines, line) < at && recorded[line] == 0 {
			c.wrong(e.Request, "the record is not in order: %s", line)
		}
	}
	for line, n := range recorded {
		if n > 0 {
			duplicates += n
			if !slices.ContainsFunc(c.events, func(e audit.Event) bool { return e.Line() == line }) {
				c.wrong(requestID.FindString(line), "the record has what never happened: %s", line)
			}
		}
	}

	spares := 0
	about := func(messages []sandbox.Message) map[string][]sandbox.Message {
		all := map[string][]sandbox.Message{}
		for _, m := range messages {
			if id := requestID.FindString(m.Text()); id != "" {
				all[id] = append(all[id], m)
			}
		}
		return all
	}
	inChannel := about(channel(sandbox.Olga, sandbox.Approvals))
	direct := map[string]map[string][]sandbox.Message{}
	for _, who := range []string{sandbox.Hanna, sandbox.Ravi, sandbox.Olga} {
		direct[who] = about(channel(who, c.dm(who)))
	}
	for id, story := range c.stories {
		end, _ := c.end(id)
		requester := story[0].Requester.Slack
		known, err := c.store.Cards(c.Context(), id)
		if err != nil {
			c.Fatal(err)
		}
		for name, messages := range map[string][]sandbox.Message{"approvers": inChannel[id], "requester": direct[requester][id]} {
			kept := 0
			for _, m := range messages {
				if !m.Contains("What will happen") && !m.Contains("What happened") && !m.Contains("What was to happen") {
					continue // no card
				}
				// One that was posted as its process died is known when it was pressed.
				if m.TS != known[name].TS && m.TS != known[name+":"+m.TS].TS {
					spares++
					continue
				}
				kept++
				if wrong := finalCard(m, end); wrong != "" {
					c.wrong(id, "the card of the %s %s:\n%s", name, wrong, m.Text())
				}
			}
			if kept == 0 {
				c.wrong(id, "there is no card of it for the %s", name)
			}
			spares += max(0, kept-1)
		}
		if news := told(end); news != "" && !slices.ContainsFunc(direct[requester][id], func(m sandbox.Message) bool { return m.Contains(news) }) {
			c.wrong(id, "its requester was not told: %s", news)
		}
	}
	// A stroke leaves one message too many at most for each reader.
	if duplicates > strokes || spares > 2*strokes {
		c.Errorf("%d lines and %d cards are there twice, after %d strokes", duplicates, spares, strokes)
	}
	c.counts["cards too many"], c.counts["lines of the record too many"] = spares, duplicates
}

// told is how the requester reads of an end, empty where it was their own
// doing.
func told(end audit.Event) string {
	switch {
	case end.Actor.ID == end.Requester.ID:
		return ""
	case end.Kind == audit.Denied:
		return " denied your request: "
	case end.Kind == audit.Expired:
		return "Your request expired: "
	}
	return map[approvals.Outcome]string{
		approvals.OutcomeSucceeded: endDone.notification, approvals.OutcomeAttested: endAttested.notification, approvals.OutcomePartial: endPartly.notification, approvals.OutcomeUncertain: endUncertain.notification, approvals.OutcomeFailed: endFailed.notification,
	}[approvals.Outcome(end.Outcome)]
}

// finalCard says what is wrong with the card of a request that is over.
func finalCard(m sandbox.Message, end audit.Event) string {
	says := ": " + string(end.Kind)
	if end.Kind == audit.Finished {
		says = map[approvals.Outcome]string{
			approvals.OutcomeSucceeded: endDone.card, approvals.OutcomeAttested: endAttested.card, approvals.OutcomePartial: endPartly.card, approvals.OutcomeUncertain: endUncertain.card, approvals.OutcomeFailed: endFailed.card,
		}[approvals.Outcome(end.Outcome)]
	}
	switch {
	case !m.Contains(says):
		return "does not say" + says
	case slices.ContainsFunc(m.Buttons(), func(b sandbox.Button) bool { return b.ActionID != "details" }):
		return "can be pressed"
	case end.Kind != audit.Finished:
		return ""
	}
	for _, s := range end.Steps {
		words := strings.TrimSuffix(s.Words, ".")
		if s.State != string(approvals.StepDone) && s.State != string(approvals.StepAttested) {
			words += ": " + s.State
		}
		if !m.Contains(words) {
			return "does not say what became of: " + words
		}
	}
	return ""
}

// checkSecrets starts one process more and opens every secret: it is the one
// that is in force.
func (c *chaos) checkSecrets() {
	if !c.pack[0].start() {
		c.Fatal("no process starts any more")
	}
	for id := range c.stories {
		end, _ := c.end(id)
		d := c.targets[end.Target.ID]
		if end.Outcome != string(approvals.OutcomeSucceeded) || d.secret == nil {
			continue
		}
		secrets, err := c.client.Secrets(d.upn())
		if err != nil {
			c.Fatal(err)
		}
		want := d.secret(secrets)
		if d.command == "issue-pass" && want == "" {
			continue // its owner has gone on
		}
		shown := ""
		for range 5 { // people press again when a look-up failed
			shown = c.reveals(end.Requester.Slack, id)
			if !strings.Contains(shown, "ry again") && !strings.Contains(shown, "what cannot be checked is refused") {
				break
			}
		}
		if !strings.Contains(shown, want) && c.overtaken(id, d) {
			c.counts["passes replaced by a late call of a process that was stopped, as documented"]++
			continue
		}
		if !strings.Contains(shown, d.upn()) || !strings.Contains(shown, want) {
			c.wrong(id, "what is shown is not the secret that is in force:\n%s", strings.ReplaceAll(shown, want, "[it]"))
		}
		c.counts["secrets opened"]++
	}
	c.pack[0].stop()
}

// overtaken says that a pass was issued once more when its request, which
// another worker had taken over, was over: a call of the first worker that
// came late. Nobody can tell Graph that it came too late; the docs say so.
func (c *chaos) overtaken(id string, d mutation) bool {
	snap, err := c.store.Load(c.Context(), id)
	if err != nil || d.command != "issue-pass" || snap.Claim < 2 {
		return false
	}
	calls, err := c.client.EntraCalls()
	if err != nil {
		c.Fatal(err)
	}
	return slices.ContainsFunc(calls.Changes, func(e entra.Entry) bool {
		at, err := time.Parse(time.RFC3339Nano, e.Time)
		return err == nil && e.Status == http.StatusCreated && strings.Contains(e.Path, snap.Plan.Target.ID) && strings.HasSuffix(e.Path, "temporaryAccessPassMethods") && !at.Before(snap.Ended)
	})
}

// reveals opens the secret of a request, and gives what the view says.
func (c *chaos) reveals(who, id string) string {
	p := c.client.As(who)
	c.presses(who, c.dm(who), id, "reveal", awhile)
	ctx, cancel := context.WithTimeout(c.Context(), patience)
	defer cancel()
	view, err := p.WaitModal(ctx, func(v sandbox.View) bool { return v.Contains("For your eyes only") && !v.Contains("Opening it") })
	if err != nil {
		return err.Error()
	}
	if err := p.Close(view.ID); err != nil {
		c.Error(err)
	}
	return view.Text()
}

// checkRedis looks at what is left there.
func (c *chaos) checkRedis() {
	ctx := c.Context()
	for _, pattern := range []string{"holder:*", "same:*", "open", "due"} {
		for _, key := range c.server.Keys(c.T, c.key(pattern)) {
			c.Errorf("Redis still has %s", key)
		}
	}
	pending, err := c.rdb.XPending(ctx, c.key("inbox"), "workers").Result()
	if err != nil || pending.Count > 0 {
		c.Errorf("entries of the inbox are still in somebody's hands: %+v %v", pending, err)
	}
	aside, err := c.rdb.XLen(ctx, c.key("aside")).Result()
	if err != nil {
		c.Fatal(err)
	}
	c.counts["entries set aside"] = int(aside)
}

// checkLogs looks for what no process may ever say.
func (c *chaos) checkLogs() {
	for _, r := range c.pack {
		raw, err := os.ReadFile(r.log)
		if err != nil {
			c.Fatal(err)
		}
		for _, never := range []string{"DATA RACE", "panic", "fatal error"} {
			if i := strings.Index(string(raw), never); i >= 0 {
				c.Errorf("%s logged %q:\n%s", r.name, never, raw[max(0, i-2000):min(len(raw), i+4000)])
			}
		}
	}
}

// tells prints what happened, and all that is known of what went wrong.
func (c *chaos) tells() {
	c.counts["errands"], c.counts["requests"] = c.scenarios, len(c.stories)
	var summary strings.Builder
	for _, what := range slices.Sorted(maps.Keys(c.counts)) {
		fmt.Fprintf(&summary, "\n  %6d %s", c.counts[what], what)
	}
	c.Logf("%d rounds in %s, with a lease of %s:%s", c.rounds, time.Since(c.started).Round(time.Second), c.config.Timing.Lease, &summary)
	if len(c.wrongs) > 0 {
		c.Errorf("%d requests are not as they must be:%s", len(c.wrongs), c.dossiers(5))
	}
	if c.Failed() {
		c.Logf("COUNTERSIGN_TEST_SEED=%d gives the same storm; run with -artifacts, the logs of the processes are kept in %s", c.seed, c.dir)
	}
}

// dossiers is everything about the first few requests of which something is
// wrong: what is wrong, the request, its events, the calls about its target,
// what people did, what befell the processes, and their logs of that time.
func (c *chaos) dossiers(most int) string {
	var b strings.Builder
	calls, err := c.client.EntraCalls()
	if err != nil {
		fmt.Fprintf(&b, "\nthe calls of the tenant: %v", err)
	}
	ids := slices.Sorted(maps.Keys(c.wrongs))
	for n, id := range ids {
		fmt.Fprintf(&b, "\n\n==== %s", id)
		for _, w := range c.wrongs[id] {
			fmt.Fprintf(&b, "\nWRONG: %s", w)
		}
		if n >= most {
			continue
		}
		story := c.stories[id]
		target := id // of a click about no request
		from, to := time.Time{}, time.Time{}
		if len(story) > 0 {
			target, from, to = story[0].Target.ID, story[0].At.Add(-time.Second), story[len(story)-1].At.Add(2*time.Second)
			snap, err := c.store.Load(context.Background(), id)
			raw, _ := json.MarshalIndent(snap.Request, "", "  ")
			fmt.Fprintf(&b, "\n-- the request: %s, version %d, claim %d %v\n%s", snap.State, snap.Version, snap.Claim, err, raw)
			fmt.Fprint(&b, "\n-- events:")
			for _, e := range story {
				fmt.Fprintf(&b, "\n%s %s %s", e.At.Format("15:04:05.000"), e.Op, e.Line())
			}
		}
		fmt.Fprint(&b, "\n-- what people did:")
		for _, k := range c.clicks {
			if k.about != "" && (k.about == id || k.about == target) {
				fmt.Fprintf(&b, "\n%s %s %s acked=%t %s", k.at.UTC().Format("15:04:05.000"), k.who, k.what, k.acked, k.envelope)
				if from.IsZero() {
					from, to = k.at.Add(-time.Second), k.at.Add(5*time.Second)
				}
			}
		}
		fmt.Fprint(&b, "\n-- what they alone read at that time:")
		for who, messages := range c.ephemeral {
			for _, m := range messages {
				if posted(m).After(from) && posted(m).Before(to.Add(awhile)) {
					fmt.Fprintf(&b, "\n%s %s %s", posted(m).UTC().Format("15:04:05.000"), who, strings.ReplaceAll(m.Text(), "\n", " / "))
				}
			}
		}
		fmt.Fprint(&b, "\n-- calls that were to change the target:")
		for _, e := range calls.Changes {
			if target != "" && strings.Contains(e.Path, target) {
				fmt.Fprintf(&b, "\n%s %s %s %d %s", e.Time, e.Method, e.Path, e.Status, e.Fault)
			}
		}
		fmt.Fprint(&b, "\n-- what befell the processes:")
		for _, s := range c.strokes {
			if s.to.After(from) && s.from.Before(to) {
				fmt.Fprintf(&b, "\n%s %s %s, until %s", s.from.UTC().Format("15:04:05.000"), s.whom, s.what, s.to.UTC().Format("15:04:05.000"))
			}
		}
		for _, r := range c.pack {
			fmt.Fprintf(&b, "\n-- the log of %s at that time:%s", r.name, logged(r.log, from, to))
		}
	}
	return b.String()
}

// logged is what a process logged between two instants.
func logged(path string, from, to time.Time) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for line := range strings.Lines(string(raw)) {
		text, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
		if at, err := time.Parse(time.RFC3339Nano, text); err == nil && at.After(from) && at.Before(to) {
			b.WriteString("\n" + strings.TrimSpace(line))
		}
	}
	return b.String()
}
