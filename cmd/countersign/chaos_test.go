package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.yaml.in/yaml/v3"

	"countersign/approvals"
	"countersign/audit"
	"countersign/internal/redistest"
	"countersign/internal/testseed"
	"countersign/sandbox"
	"countersign/sandbox/entra"
)

// Processes are killed, and stopped for longer than their leases, at random
// moments, while people go on typing and pressing and Graph has its moods. In
// the end, and from outside:
//
//   - No click that Slack acknowledged is lost. Each command, decision and form
//     has an event that names its envelope, and its author reads an answer; or
//     its author reads that it could not be confirmed, or was not executed.
//     What only opens a view is not stored: it goes with its process, and is
//     pressed again.
//   - No step is taken twice. Every call that changed the tenant belongs to one
//     step of one request; how often it may be there is in once, below.
//   - Nothing took effect that is not told. The step of every such call ended,
//     in the journal, on the card and in the audit, and not as failed.
//   - No request is stuck: after the storm each comes to its end by itself.
//   - Every end is told: on the card, to the requester, in the audit.
//   - The invariants of package approvals hold in the events and in Redis.
//
// A short storm is part of every run of the tests. A long one is
//
//	COUNTERSIGN_CHAOS_ROUNDS=300 go test -race -run TestChaos -timeout 60m -v ./cmd/countersign
//
// With one seed (COUNTERSIGN_TEST_SEED, see package testseed) the same people
// do the same things, and the same strokes fall on the same processes. What the
// machine makes of it is another matter.
func TestChaos(t *testing.T) {
	server := redistest.Start(t)
	if !server.Real() {
		t.Skip("this needs a real redis-server: apt-get install redis-server")
	}
	rounds, seed := number(t, "COUNTERSIGN_CHAOS_ROUNDS", 30), testseed.Seed(t)
	c := newChaos(t, server, seed)
	c.begins()
	c.storm(int(rounds))
	c.settles()
	c.checkClicks()
	c.checkRequests()
	c.checkTenant()
	c.checkSlack()
	c.checkSecrets()
	c.checkRedis()
	c.checkLogs()
	c.tells()
}

func number(t *testing.T, variable string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 {
		t.Fatalf("%s is %q; it is a number above zero", variable, text)
	}
	return n
}

// replicas is how many processes there are, and ready how many of them are up
// when a stroke falls.
const (
	replicas = 3
	ready    = 2
)

// lifetime is how long a request waits for a decision, and then for a worker.
const lifetime = 20 * time.Second

// chaos is one storm, and what was done and heard in it.
type chaos struct {
	*testing.T
	seed    uint64
	pace    time.Duration // how many times slower than on a quick machine everything may be
	client  *sandbox.Client
	server  *redistest.Server
	rdb     redis.UniversalClient
	store   *approvals.Store
	config  config
	environ []string
	dir     string // of the configuration and logs of the processes
	file    string // the configuration
	pack    []*replica
	calm    atomic.Bool // nobody denies, cancels or halts anything
	started time.Time

	mu        sync.Mutex
	scenarios int
	events    []audit.Event
	ops       map[string][]audit.Event // by the operation that caused them, which for clicks is the envelope
	stories   map[string][]audit.Event // by request
	clicks    []click
	strokes   []stroke
	rounds    int
	deafen    func()                         // the readers end
	ephemeral map[string][]sandbox.Message   // by person: what they alone read
	cards     map[string]map[string][]string // by channel and request: timestamps of messages, the oldest first
	seen      map[string]string              // by channel: the timestamp of the last message that was read
	targets   map[string]mutation            // by object id
	wrongs    map[string][]string            // by request: what is wrong with it
	counts    map[string]int                 // for the summary
}

// click is something that a person did, and that is stored before it is
// acknowledged.
type click struct {
	who, what string
	about     string // the target's object id of a command, or the request
	envelope  string
	at        time.Time
	acked     bool
}

// stroke is something that befell a process, until it, or what took its
// place, was ready.
type stroke struct {
	what, whom string
	from, to   time.Time
	woken      time.Time // when a process that was stopped was told to go on
}

// What befalls processes most.
const (
	killed = "killed"
	paused = "stopped and continued"
)

func newChaos(t *testing.T, server *redistest.Server, seed uint64) *chaos {
	c := &chaos{
		T: t, seed: seed, dir: t.ArtifactDir(), server: server, rdb: server.Client(t), started: time.Now(),
		ops: map[string][]audit.Event{}, stories: map[string][]audit.Event{}, targets: map[string]mutation{}, wrongs: map[string][]string{}, counts: map[string]int{},
		cards: map[string]map[string][]string{}, seen: map[string]string{},
	}
	world := t.TempDir()
	address := spawn(t, `open (http://\S+)`, nil, "sandbox", "-addr", "127.0.0.1:0", "-dir", world, "-redis", server.URL())[1]
	c.client = sandbox.NewClient(address)
	raw, err := os.ReadFile(filepath.Join(world, "env"))
	if err != nil {
		t.Fatal(err)
	}
	c.environ = strings.Split(strings.TrimSpace(string(raw)), "\n")
	if c.config, err = loadConfig(filepath.Join(world, "countersign.yaml")); err != nil {
		t.Fatal(err)
	}
	var keys string
	for _, variable := range c.environ {
		if rest, ok := strings.CutPrefix(variable, "COUNTERSIGN_KEYS="); ok {
			keys = rest
		}
	}
	ring, err := approvals.ParseRing(keys)
	if err != nil {
		t.Fatal(err)
	}
	c.setPace(1)
	c.store = approvals.NewStore(c.rdb, ring, c.config.Redis.Prefix, c.config.Timing)
	for n := range replicas {
		name := fmt.Sprintf("serve-%d", n+1)
		r := &replica{c: c, name: name, log: filepath.Join(c.dir, name+".log")}
		c.pack = append(c.pack, r)
		t.Cleanup(r.stop)
	}

	// The test is one more reader of the events, and of what people read.
	ctx, cancel := context.WithCancel(context.Background())
	var readers sync.WaitGroup
	c.deafen = func() { cancel(); readers.Wait() }
	t.Cleanup(c.deafen)
	readers.Go(func() {
		c.store.Follow(ctx, "chaos", approvals.Projection{Name: "chaos", Handle: c.hears}, slog.New(slog.DiscardHandler))
	})
	readers.Go(func() { c.reads(ctx) })
	return c
}

// setPace writes the configuration of the processes. Leases are as short as
// the machine allows.
func (c *chaos) setPace(pace time.Duration) {
	c.Helper()
	c.pace = pace
	t := approvals.DefaultTiming()
	t.LookUps, t.GraphCall, t.GraphGrace, t.Lease = 400*time.Millisecond*pace, 400*time.Millisecond*pace, 50*time.Millisecond*pace, 900*time.Millisecond*pace
	t.Takeover, t.Lead, t.Sweep, t.Follow = 2*time.Second*pace, 600*time.Millisecond*pace, 50*time.Millisecond, 100*time.Millisecond
	t.RunWithin, t.SecretLife = lifetime, 3*time.Hour
	c.config.Timing = t
	c.config.Policy.ReadsAMinute = 100_000
	for class, rule := range c.config.Policy.Classes {
		if class != approvals.ClassRead {
			rule.Lifetime = lifetime
			c.config.Policy.Classes[class] = rule
		}
	}
	raw, err := yaml.Marshal(c.config)
	if err != nil {
		c.Fatal(err)
	}
	c.file = filepath.Join(c.dir, "countersign.yaml")
	if err := os.WriteFile(c.file, raw, 0o600); err != nil {
		c.Fatal(err)
	}
	if _, err := loadConfig(c.file); err != nil {
		c.Fatal(err)
	}
}

// dice are the chances of one thing: the same for the same seed, whatever else
// goes on.
func (c *chaos) dice(what string) *rand.Rand {
	h := fnv.New64()
	io.WriteString(h, what)
	return rand.New(rand.NewPCG(c.seed, h.Sum64()))
}

// somewhile is a random while.
func somewhile(dice *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(dice.Int64N(int64(to-from)))
}

// wait waits until something is so, and says whether it came to be so in time.
func wait(limit time.Duration, so func() bool) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(limit); ; <-tick.C {
		if is := so(); is || time.Now().After(deadline) {
			return is
		}
	}
}

// counted adds to the summary.
func (c *chaos) counted(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[what]++
}

// wrong notes a violation. Those of requests are told at the end, with all
// that is known of the request.
func (c *chaos) wrong(request, format string, a ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrongs[request] = append(c.wrongs[request], fmt.Sprintf(format, a...))
}

// ---- Listening ----

// hears takes events in their order.
func (c *chaos) hears(_ context.Context, batch []audit.Event) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range batch {
		if n := len(c.events); n > 0 && c.events[n-1].ID == e.ID {
			continue // at least once
		}
		c.events = append(c.events, e)
		c.ops[e.Op] = append(c.ops[e.Op], e)
		if e.Request != "" {
			c.stories[e.Request] = append(c.stories[e.Request], e)
		}
	}
	return len(batch), nil
}

// ends are the kinds of event after which a request never changes again.
var ends = []audit.Kind{audit.Finished, audit.Denied, audit.Expired, audit.Cancelled}

// has says which event of one of these kinds came first, if one did.
func has(story []audit.Event, kinds ...audit.Kind) (audit.Event, bool) {
	i := slices.IndexFunc(story, func(e audit.Event) bool { return slices.Contains(kinds, e.Kind) })
	if i < 0 {
		return audit.Event{}, false
	}
	return story[i], true
}

// story is what was heard of a request so far.
func (c *chaos) story(request string) []audit.Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stories[request]
}

// end is the event that ended a request.
func (c *chaos) end(request string) (audit.Event, bool) { return has(c.story(request), ends...) }

// became is the outcome of a click so far.
func (c *chaos) became(envelope string) []audit.Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ops[envelope]
}

// between counts the requests of which an event of one kind was heard, and
// none of the others.
func (c *chaos) between(from audit.Kind, to ...audit.Kind) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, story := range c.stories {
		_, begun := has(story, from)
		if _, over := has(story, to...); begun && !over {
			n++
		}
	}
	return n
}

// inFlight counts the requests that are not over.
func (c *chaos) inFlight() int { return c.between(audit.Requested, ends...) }

// running counts the requests that a process is at, or was at when it died.
func (c *chaos) running() int { return c.between(audit.Started, append(ends, audit.HandedOff)...) }

// reads notes which messages there are about which request.
func (c *chaos) reads(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, who := range []string{sandbox.Hanna, sandbox.Ravi, sandbox.Olga} {
			c.skims(who, c.dm(who))
		}
		c.skims(sandbox.Olga, sandbox.Approvals)
	}
}

// dm is where the app writes to somebody.
func (c *chaos) dm(who string) string { return "D" + who[1:] }

func (c *chaos) skims(who, channel string) {
	news, err := c.client.As(who).MessagesAfter(channel, c.seen[channel])
	if err != nil {
		return // it is read again; a direct message is there once something was written
	}
	for _, m := range news {
		c.seen[channel] = m.TS
		id := requestID.FindString(m.Text())
		if id == "" {
			continue
		}
		c.mu.Lock()
		if c.cards[channel] == nil {
			c.cards[channel] = map[string][]string{}
		}
		c.cards[channel][id] = append(c.cards[channel][id], m.TS)
		c.mu.Unlock()
	}
}

// ---- People ----

// does lets somebody do something until Slack acknowledges it, as people do,
// and gives the envelope; empty when they give up.
func (c *chaos) does(who, what, about string, tries int, do func(p *sandbox.Person) (sandbox.Answer, error)) string {
	for range tries {
		at := time.Now()
		answer, err := do(c.client.As(who))
		if refused := (*sandbox.Error)(nil); errors.As(err, &refused) && refused.Status == http.StatusNotFound {
			return "" // the button is gone
		}
		if err != nil {
			c.Errorf("%s: %s: %v", who, what, err)
			return ""
		}
		c.mu.Lock()
		c.clicks = append(c.clicks, click{who, what, about, answer.Envelope, at, answer.OK})
		c.mu.Unlock()
		if answer.OK {
			return answer.Envelope
		}
		time.Sleep(100 * time.Millisecond) // and tries again
	}
	return ""
}

// presses lets somebody press a button on any message about a request, as soon
// as there is one and for as long as the request is not over.
func (c *chaos) presses(who, channel, id, button string, patience time.Duration) (envelope string) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		for _, ts := range slices.Backward(c.known(channel, id)) {
			envelope := c.does(who, button, id, 5, func(p *sandbox.Person) (sandbox.Answer, error) { return p.Press(channel, ts, button, "") })
			if envelope != "" {
				return envelope
			}
		}
		if _, over := c.end(id); over && button != "again" && button != "reveal" {
			return ""
		}
		time.Sleep(50 * time.Millisecond)
	}
	return ""
}

// Where a wait has a limit in the routes, it is because the click may never
// have arrived. Whatever is left over is looked at in the end.
const awhile = 30 * time.Second

// scenario is one request from the wish to its end, and sometimes a second one.
func (c *chaos) scenario(n int) {
	dice := c.dice(fmt.Sprint("errand ", n))
	all := mutations()
	d := all[n%len(all)] // each of them, over and over
	d.name = fmt.Sprintf("%s-%d", d.name, n)
	was, err := c.client.AddUser(d.id(), d.upn(), "Target of "+d.name, d.methods...)
	if err == nil && d.blocked {
		err = c.client.PatchUser(d.upn(), map[string]any{"enabled": false})
	}
	if err != nil {
		c.Errorf("%s: %v", d.name, err)
		return
	}
	c.mu.Lock()
	c.targets[d.id()] = d
	c.mu.Unlock()
	requester := sandbox.Hanna
	if dice.IntN(4) == 0 {
		requester = sandbox.Ravi
	} else if d.command == "revoke-sessions" {
		requester = sandbox.Olga
	}
	if dice.IntN(8) == 0 {
		c.does(requester, "looks", d.id(), 3, func(p *sandbox.Person) (sandbox.Answer, error) {
			return p.Command(sandbox.HelpDesk, "/entra-methods "+d.upn())
		})
	}
	// Two requests for one target at a time must take turns.
	twin := d
	twin.command, twin.args = "revoke-sessions", ""
	twins := !c.calm.Load() && d.command == "block-signin"
	var both sync.WaitGroup
	if twins {
		chances := c.dice(fmt.Sprint("twin ", n))
		both.Go(func() { c.request(twin, sandbox.Ravi, chances) })
	}
	id, end := c.request(d, requester, dice)
	both.Wait()
	switch {
	case end.Kind != audit.Finished || twins:
		return
	case end.Outcome == string(approvals.OutcomeSucceeded) || end.Outcome == string(approvals.OutcomeAttested):
		is, err := c.client.User(d.upn())
		if err != nil {
			c.Errorf("%s: %v", d.name, err)
		} else if !d.isApplied(was, is) {
			c.wrong(id, "it is said to be done, and the account is %+v", is)
		}
	}
	c.goesOn(d)
}

// goesOn puts the account back to what it was, as somebody does who registers
// again: whatever is repeated later does harm, and is seen.
func (c *chaos) goesOn(d mutation) {
	is, err := c.client.User(d.upn())
	if err != nil {
		c.Errorf("%s: %v", d.name, err)
		return
	}
	there := map[string]bool{}
	for _, m := range is.Methods {
		there[m.ID] = true
		known := m.Type == entra.TypePassword || slices.ContainsFunc(d.methods, func(h entra.Method) bool { return h.ID == m.ID })
		if !known {
			err = errors.Join(err, c.client.DeleteMethod(d.upn(), m.ID))
		}
	}
	for _, m := range d.methods {
		if !there[m.ID] {
			err = errors.Join(err, c.client.AddMethod(d.upn(), m))
		}
	}
	if err = errors.Join(err, c.client.PatchUser(d.upn(), map[string]any{"enabled": !d.blocked})); err != nil {
		c.Errorf("%s goes on: %v", d.name, err)
	}
}

// request asks, decides, and waits for the end.
func (c *chaos) request(d mutation, requester string, dice *rand.Rand) (id string, end audit.Event) {
	redelivered := dice.IntN(10) == 0
	id = c.comesOf(d, func() string {
		asked := c.does(requester, d.commandLine(), d.id(), 6, func(p *sandbox.Person) (sandbox.Answer, error) {
			return p.Command(sandbox.HelpDesk, d.commandLine())
		})
		if redelivered && asked != "" {
			c.client.Redeliver(asked) // Slack says it twice
		}
		return asked
	})
	if id == "" {
		return "", end
	}
	c.decides(d, id, requester, dice)
	end = c.over(id)
	if (end.Kind == audit.Expired || end.Outcome == string(approvals.OutcomeFailed)) && dice.IntN(2) == 0 && !c.calm.Load() {
		if next := c.comesOf(d, func() string { return c.presses(requester, c.dm(requester), id, "again", awhile) }); next != "" {
			c.decides(d, next, requester, dice)
			return next, c.over(next)
		}
	}
	return id, end
}

// comesOf gives the request that comes of a click.
func (c *chaos) comesOf(d mutation, click func() string) (id string) {
	e := c.answered(click)
	switch {
	case e.Kind == audit.Requested:
		return e.Request
	case e.Code != string(approvals.CodeIdentical):
		return ""
	}
	// A click that nobody acknowledged had arrived all the same.
	wait(awhile, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for other, story := range c.stories {
			if story[0].Kind == audit.Requested && story[0].Command == d.command && story[0].Target.ID == d.id() {
				id = other
			}
		}
		return id != ""
	})
	return id
}

// answered waits for what becomes of a click, and clicks again where it could
// not be checked, as people are told to.
func (c *chaos) answered(click func() string) (e audit.Event) {
	for range 4 {
		envelope := click()
		if envelope == "" || !wait(awhile, func() bool { return len(c.became(envelope)) > 0 }) {
			return audit.Event{}
		}
		if e = c.became(envelope)[0]; e.Code != string(approvals.CodeUnchecked) {
			break
		}
	}
	return e
}

// retries presses a button, and again where that could not be checked.
func (c *chaos) retries(who, channel, id, button string) {
	c.answered(func() string { return c.presses(who, channel, id, button, awhile) })
}

// over waits for the end of a request.
func (c *chaos) over(id string) (end audit.Event) {
	wait(2*awhile, func() (is bool) {
		end, is = c.end(id)
		return is
	})
	return end
}

// decides lets people decide a request in one of the ways there are.
func (c *chaos) decides(d mutation, id, requester string, dice *rand.Rand) {
	others := slices.DeleteFunc([]string{sandbox.Ravi, sandbox.Olga}, func(who string) bool { return who == requester })
	approver := others[dice.IntN(len(others))]
	chance := dice.IntN(100)
	if c.calm.Load() {
		chance = 0
	}
	switch {
	default:
		c.retries(approver, sandbox.Approvals, id, "approve")
	case chance >= 97: // nobody cares
		return
	case chance >= 92:
		c.retries(requester, c.dm(requester), id, "cancel")
	case chance >= 86:
		c.denies(approver, id)
	case chance >= 76: // all at once, somebody without a say included
		var all sync.WaitGroup
		for _, who := range []string{sandbox.Ravi, sandbox.Olga} {
			all.Go(func() { c.retries(who, sandbox.Approvals, id, "approve") })
		}
		all.Wait()
	case chance >= 70: // and Slack says it twice
		c.answered(func() string {
			envelope := c.presses(approver, sandbox.Approvals, id, "approve", awhile)
			if envelope != "" {
				c.client.Redeliver(envelope)
			}
			return envelope
		})
	case chance >= 60: // somebody has doubts when it has begun
		c.retries(approver, sandbox.Approvals, id, "approve")
		if c.comes(id, audit.Started) {
			c.presses(requester, c.dm(requester), id, "halt", 2*time.Second)
		}
	}
	if !d.isManual() {
		return
	}
	if !c.comes(id, audit.HandedOff) {
		return
	}
	c.retries(sandbox.Ravi, sandbox.Approvals, id, "attest")
	c.retries(sandbox.Olga, sandbox.Approvals, id, "confirm")
}

// comes waits for an event of a request, and says whether it came before the
// end.
func (c *chaos) comes(id string, kind audit.Kind) bool {
	wait(awhile, func() bool { _, is := has(c.story(id), append(ends, kind)...); return is })
	_, over := c.end(id)
	_, came := has(c.story(id), kind)
	return came && !over
}

// denies opens the form and sends it. The press on Deny is no click to be kept:
// it only opens a view, and is made again where none comes.
func (c *chaos) denies(who, id string) {
	p := c.client.As(who)
	for range 5 {
		if !wait(awhile, func() bool { return len(c.known(sandbox.Approvals, id)) > 0 }) {
			return
		}
		p.Press(sandbox.Approvals, c.known(sandbox.Approvals, id)[0], "deny", "")
		var form sandbox.View
		opened := wait(3*time.Second, func() bool {
			views, _ := p.Views()
			form, _ = views.Top()
			return form.Title == "Deny "+id
		})
		if opened && c.does(who, "denies", id, 1, func(p *sandbox.Person) (sandbox.Answer, error) {
			return p.Submit(form.ID, map[string]map[string]any{"reason": {"reason": "of chaos"}})
		}) != "" {
			return
		}
		if _, over := c.end(id); over {
			return
		}
	}
}

// known are the messages about a request in a channel.
func (c *chaos) known(channel, id string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.cards[channel][id])
}

// ---- Processes ----

// replica is one place for a process, and the process that is there.
type replica struct {
	c     *chaos
	name  string
	log   string
	cmd   *exec.Cmd
	gone  chan error  // how it ended
	dying atomic.Bool // it ends because it was told to
	woken time.Time   // when it was told last to go on
	up    atomic.Bool // nothing befalls it at the moment
}

// start starts a process and waits until it is connected to Slack.
func (r *replica) start() bool {
	log, err := os.OpenFile(r.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		r.c.Error(err)
		return false
	}
	cmd := itself(r.c.T, r.c.environ, "serve", "-config", r.c.file)
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, log
	r.dying.Store(false)
	if err := cmd.Start(); err != nil {
		log.Close()
		r.c.Error(err)
		return false
	}
	fmt.Fprintf(log, "time=%s msg=\"the test started process %d\"\n", time.Now().Format(time.RFC3339Nano), cmd.Process.Pid)
	gone, is := make(chan error, 1), make(chan bool, 1)
	r.cmd, r.gone = cmd, gone
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if strings.Contains(lines.Text(), "ready") {
				is <- true
			}
		}
	}()
	go func() {
		err := cmd.Wait()
		in.Close()
		log.Close()
		if !r.dying.Load() {
			r.c.Errorf("%s ended by itself: %v\n%s", r.name, err, tail(r.log, 30))
		}
		gone <- err
	}()
	select {
	case <-is:
		r.up.Store(true)
		return true
	case err := <-gone:
		gone <- err
		return false
	case <-time.After(patience):
		r.c.Errorf("%s did not become ready:\n%s", r.name, tail(r.log, 30))
		return false
	}
}

// kill ends the process as a power cut would.
func (r *replica) kill() {
	r.dying.Store(true)
	r.up.Store(false)
	r.cmd.Process.Kill()
	r.gone <- <-r.gone
}

// stop ends the process in order.
func (r *replica) stop() {
	if r.cmd == nil {
		return
	}
	r.dying.Store(true)
	r.up.Store(false)
	r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-r.gone:
		r.gone <- err
		if err != nil && err.Error() != "signal: killed" {
			r.c.Errorf("%s did not stop in order: %v\n%s", r.name, err, tail(r.log, 30))
		}
	case <-time.After(patience):
		r.c.Errorf("%s does not stop:\n%s", r.name, tail(r.log, 30))
		r.kill()
	}
}

// freeze stops the process where it is, for a while.
func (r *replica) freeze(d time.Duration) {
	r.cmd.Process.Signal(syscall.SIGSTOP)
	time.Sleep(d)
}

// thaw lets it go on.
func (r *replica) thaw() bool {
	r.c.mu.Lock()
	r.woken = time.Now()
	r.c.mu.Unlock()
	r.cmd.Process.Signal(syscall.SIGCONT)
	r.up.Store(true)
	return true
}

func tail(path string, n int) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// begins starts the processes and sees that every interaction is done in calm. On a
// machine that is too slow for that, everything gets more time.
func (c *chaos) begins() {
	c.calm.Store(true)
	defer c.calm.Store(false)
	for {
		var all sync.WaitGroup
		for _, r := range c.pack {
			all.Go(func() {
				if !r.start() {
					c.Error("a process did not start")
				}
			})
		}
		all.Wait()
		before := time.Now()
		for range mutations() {
			n := c.scenarios
			c.scenarios++
			all.Go(func() { c.scenario(n) })
		}
		all.Wait()
		good, bad := 0, map[string]int{}
		c.mu.Lock()
		for _, e := range c.events {
			switch {
			case e.At.Before(before):
			case e.Outcome == string(approvals.OutcomeSucceeded), e.Outcome == string(approvals.OutcomeAttested):
				good++
			case e.Kind == audit.Refused, slices.Contains(ends, e.Kind):
				bad[string(e.Kind)+" "+e.Outcome+e.Code]++
			}
		}
		c.mu.Unlock()
		c.Logf("in calm, %d of %d deeds were done within %s with a lease of %s; %v", good, len(mutations()), time.Since(before).Round(10*time.Millisecond), c.config.Timing.Lease, bad)
		if good == len(mutations()) || c.Failed() {
			break
		}
		if c.pace >= 16 {
			c.Fatal("this machine does not get through the calm before the storm")
		}
		for _, r := range c.pack {
			r.stop()
		}
		c.setPace(2 * c.pace)
	}
	if c.Failed() {
		c.FailNow()
	}
}

// storm lets people work while things befall the processes. A round is one in
// which at least one of them was killed, or stopped for longer than its lease,
// while requests were in flight; and it, or another in its place, came back.
func (c *chaos) storm(rounds int) {
	ctx, calm := context.WithCancel(context.Background())
	var people, healing, moods sync.WaitGroup
	people.Go(func() { c.work(ctx, &people) })
	moods.Go(func() { c.moods(ctx) })
	// befalls does something to a process, and to others meanwhile.
	befalls := func(r *replica, what string, comesBack func() bool) {
		r.up.Store(false)
		from := time.Now()
		healing.Go(func() {
			if comesBack() {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.strokes = append(c.strokes, stroke{what, r.name, from, time.Now(), r.woken})
				c.counts["stroke: "+what]++
			}
		})
	}
	kill := func(r *replica) { befalls(r, killed, func() bool { r.kill(); return r.start() }) }
	idle := func() []*replica {
		return slices.DeleteFunc(slices.Clone(c.pack), func(r *replica) bool { return !r.up.Load() })
	}
	for dice := c.dice("strokes"); c.rounds < rounds && !c.Failed(); {
		if !wait(patience, func() bool { return len(idle()) >= ready }) {
			c.Error("the processes do not come back")
			break
		}
		time.Sleep(somewhile(dice, 50*time.Millisecond, 600*time.Millisecond))
		if !wait(patience, func() bool { return c.inFlight() > 0 }) {
			c.Error("nobody requests anything")
			break
		}
		if dice.IntN(2) == 0 { // and while something runs
			wait(2*time.Second, func() bool { return c.running() > 0 })
			time.Sleep(somewhile(dice, 0, 200*time.Millisecond))
		}
		// The processes are shuffled by the dice, whichever of them are up.
		var victims []*replica
		for _, n := range dice.Perm(replicas) {
			if c.pack[n].up.Load() {
				victims = append(victims, c.pack[n])
			}
		}
		pause, asleep := somewhile(dice, c.config.Timing.Lease*5/4, c.config.Timing.Lease*3), dice.IntN(4) == 0
		stop := func(r *replica) {
			if asleep {
				befalls(r, "stopped, then killed", func() bool { r.freeze(pause); r.kill(); return r.start() })
			} else {
				befalls(r, paused, func() bool { r.freeze(pause); return r.thaw() })
			}
		}
		c.rounds++
		switch chance := dice.IntN(20); {
		case len(victims) == 0: // one ended by itself, which is told
			c.rounds--
		case chance < 5:
			stop(victims[0])
		case chance < 7: // one is gone while another stands still
			stop(victims[0])
			if len(victims) > 1 {
				kill(victims[1])
			}
		case chance < 8: // nobody is left
			for _, r := range victims {
				kill(r)
			}
		case chance < 9: // an orderly end is no round
			c.rounds--
			befalls(victims[0], "stopped in order", func() bool { victims[0].stop(); return victims[0].start() })
		default:
			kill(victims[0])
		}
	}
	healing.Wait()
	calm()
	moods.Wait()
	c.calm.Store(true)
	c.Logf("the storm is over after %s; %d requests are not", time.Since(c.started).Round(time.Second), c.inFlight())
	people.Wait()
}

// work begins routes, several at a time, until ctx ends.
func (c *chaos) work(ctx context.Context, people *sync.WaitGroup) {
	workers := make(chan struct{}, 16)
	dice := c.dice("work")
	for {
		select {
		case <-ctx.Done():
			return
		case workers <- struct{}{}:
		}
		n := c.scenarios
		c.scenarios++
		people.Go(func() {
			defer func() { <-workers }()
			c.scenario(n)
		})
		time.Sleep(somewhile(dice, 50*time.Millisecond, 400*time.Millisecond))
	}
}

// moods lets Graph misbehave: above all it hangs when it has executed what
// it was asked, so that processes die between a change and its journal.
func (c *chaos) moods(ctx context.Context) {
	dice := c.dice("moods")
	writes := []string{http.MethodDelete, http.MethodPost, http.MethodPatch}
	second := 1
	kinds := []entra.Fault{
		{Kind: entra.FaultApplyHang}, {Kind: entra.FaultApplyHang}, {Kind: entra.FaultApplyHang},
		{Kind: entra.FaultDropReply}, {Kind: entra.FaultHang}, {Kind: entra.FaultDropRequest},
		{Kind: entra.FaultThrottle, RetryAfter: &second},
		{Kind: entra.FaultStatus, Status: http.StatusServiceUnavailable}, {Kind: entra.FaultStatus, Status: http.StatusGatewayTimeout, Apply: true},
	}
	for ctx.Err() == nil {
		var faults []entra.Fault
		for range dice.IntN(4) {
			f := kinds[dice.IntN(len(kinds))]
			f.Method, f.Path = writes[dice.IntN(len(writes))], "/users/"
			faults = append(faults, f)
			c.counted("mood: " + f.Kind)
		}
		if err := c.client.SetEntraFaults(faults...); err != nil {
			c.Error(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(somewhile(dice, 300*time.Millisecond, 1500*time.Millisecond)):
		}
	}
	if err := c.client.SetEntraFaults(); err != nil {
		c.Error(err)
	}
}
