package main

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"countersign/approvals"
	"countersign/commands"
	"countersign/internal/redistest"
	"countersign/internal/writes"
	"countersign/sandbox"
)

// patience is how long a test waits for something that should take
// milliseconds: a slow machine is no failure.
const patience = 60 * time.Second

// fixture is a bot at work: the real program against the sandbox and a Redis,
// over real sockets.
type fixture struct {
	*testing.T
	box     *sandbox.Sandbox
	client  *sandbox.Client
	redis   *redistest.Server
	log     *buffer
	service process
	key     string           // as COUNTERSIGN_KEYS has it
	by      *writes.Saboteur // whom the bot's way to Slack and to Graph leads past
	toSlack *faultTransport
	toGraph *faultTransport
	stop    func() // ends the bot in order and waits for it
}

// startBot starts a world. tune may change the configuration before the bot
// reads it.
func startBot(t *testing.T, tune ...func(*config)) *fixture {
	t.Helper()
	return startBotIn(t, nil, tune...)
}

// startBotIn is begin among other people than those of Fernhill.
func startBotIn(t *testing.T, people *sandbox.Company, tune ...func(*config)) *fixture {
	t.Helper()
	return beginOn(t, redistest.Start(t, asUser()), people, tune...)
}

// beginOn is startBotIn on a Redis that the test has started; see asUser. With
// nil, tune says where it is.
func beginOn(t *testing.T, server *redistest.Server, people *sandbox.Company, tune ...func(*config)) *fixture {
	t.Helper()
	box, err := sandbox.New(sandbox.Options{Manifest: commands.Manifest(defaultPrefix), Company: people})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { box.Close() })
	w := &fixture{T: t, box: box, client: box.Client(), redis: server, log: &buffer{}}
	c := sandboxConfig(box.URL(), box.SecureURL(), "")
	if server != nil {
		c.Redis = redisOf(server)
	}
	c.Timing.Sweep, c.Timing.Follow, c.Timing.LookUps = 50*time.Millisecond, 100*time.Millisecond, 20*time.Second
	for _, f := range tune {
		f(&c)
	}
	if err := c.check(); err != nil {
		t.Fatal(err)
	}
	w.key = newKey()
	ring, err := approvals.ParseRing(w.key)
	if err != nil {
		t.Fatal(err)
	}
	w.service = process{
		config:  c,
		secrets: secrets{BotToken: sandbox.BotToken, AppToken: sandbox.AppToken, ClientSecret: sandbox.ClientSecret, Ring: ring, RedisURL: c.Redis.URL, RedisPassword: redisPassword, SentinelPassword: redisPassword},
		log:     slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	w.by = w.newSaboteur()
	w.toSlack = &faultTransport{to: http.DefaultTransport, by: w.by, writeName: slackWriteName}
	w.toGraph = &faultTransport{to: box.HTTPClient().Transport, by: w.by, writeName: graphWriteName}
	w.service.toSlack, w.service.trust = w.toSlack, &http.Client{Transport: w.toGraph}
	w.start()
	t.Cleanup(func() {
		w.stop()
		if t.Failed() {
			t.Logf("the bot's log:\n%s", w.log)
		}
		w.allowed()
	})
	return w
}

// start starts the bot, for the first time or again.
func (w *fixture) start() {
	w.Helper()
	w.launch()()
}

// launch starts the bot, and returns what waits until it is up.
func (w *fixture) launch() (isUp func()) {
	ctx, cancel := context.WithCancel(context.Background())
	up, ended := make(chan struct{}), make(chan error, 1)
	s := w.service
	s.up = func() { close(up) }
	go func() { ended <- s.run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.Errorf("the bot did not stop in order: %v", err)
		}
	})
	return func() {
		w.Helper()
		select {
		case <-up:
		case err := <-ended:
			ended <- nil
			w.Fatalf("the bot did not start: %v\n%s", err, w.log)
		}
	}
}

// restart stops the bot in order and starts it again on the same Redis.
func (w *fixture) restart() {
	w.Helper()
	w.stop()
	w.start()
}

// as is somebody's hands and eyes, in a channel.
func (w *fixture) as(person, channel string) *slackUser {
	return &slackUser{w, w.client.As(person), channel}
}

// slackUser are one person in one channel. Whatever goes wrong ends the test.
type slackUser struct {
	w       *fixture
	p       *sandbox.Person
	channel string
}

// types runs a slash command.
func (h *slackUser) types(text string) sandbox.Answer {
	h.w.Helper()
	answer, err := h.p.Command(h.channel, text)
	if err != nil || !answer.OK {
		h.w.Fatalf("%s typed %q: %+v %v", h.p.ID, text, answer, err)
	}
	return answer
}

// reads waits for a message that has all of these.
func (h *slackUser) reads(parts ...string) sandbox.Message {
	h.w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m, err := h.p.WaitMessage(ctx, h.channel, func(m sandbox.Message) bool { return m.Contains(parts...) })
	if err != nil {
		h.w.Fatalf("%s waited to read %q: %v", h.p.ID, parts, err)
	}
	return m
}

// presses presses a button of a message.
func (h *slackUser) presses(m sandbox.Message, action string) {
	h.w.Helper()
	answer, err := h.p.Press(h.channel, m.TS, action, "")
	if err != nil || !answer.OK {
		h.w.Fatalf("%s pressed %s: %+v %v", h.p.ID, action, answer, err)
	}
}

// sees waits for a modal that has all of these.
func (h *slackUser) sees(parts ...string) sandbox.View {
	h.w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	v, err := h.p.WaitModal(ctx, func(v sandbox.View) bool { return v.Contains(parts...) })
	if err != nil {
		h.w.Fatalf("%s waited for a form with %q: %v", h.p.ID, parts, err)
	}
	return v
}

// submits sends a form; fields are block names, which are action names too.
func (h *slackUser) submits(v sandbox.View, fields map[string]string) sandbox.Answer {
	h.w.Helper()
	values := map[string]map[string]any{}
	for block, inputs := range v.Inputs() {
		values[block] = inputs
	}
	for name, value := range fields {
		values[name] = map[string]any{name: value}
	}
	answer, err := h.p.Submit(v.ID, values)
	if err != nil {
		h.w.Fatalf("%s submitted: %v", h.p.ID, err)
	}
	return answer
}

// dm is the same person in the direct messages with the app.
func (h *slackUser) dm() *slackUser {
	h.w.Helper()
	var channel string
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := h.w.client.Wait(ctx, func() (_ bool, err error) {
		channel, err = h.p.DM()
		return channel != "", err
	})
	if err != nil {
		h.w.Fatalf("%s got no direct message: %v", h.p.ID, err)
	}
	return &slackUser{h.w, h.p, channel}
}

// account waits until somebody's account in the tenant is so.
func (w *fixture) account(upn string, so func(sandbox.User) bool) sandbox.User {
	w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	u, err := w.client.WaitUser(ctx, upn, so)
	if err != nil {
		w.Fatalf("the account %s did not become as expected: %v", upn, err)
	}
	return u
}

// kinds are the kinds of method an account has, shortened.
func kinds(u sandbox.User) string {
	var all []string
	for _, m := range u.Methods {
		name := strings.TrimPrefix(m.Type, "#microsoft.graph.")
		all = append(all, strings.TrimSuffix(strings.TrimSuffix(name, "Method"), "Authentication"))
	}
	return strings.Join(all, " ")
}

// buffer is a log that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
