package bot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slack-go/slack"
	"github.com/slack-go/slack/socketmode"

	"countersign/approvals"
	"countersign/audit"
	"countersign/commands"
)

// Options are what a Bot needs. All are required except where it says so.
type Options struct {
	BotToken, AppToken string       // xoxb-… and xapp-…
	APIURL             string       // of Slack's Web API with a trailing slash; empty for slack.com
	HTTP               *http.Client // must have a timeout

	Team             string // the workspace whose people are ours
	ApprovalsChannel string // private: where cards go
	AuditChannel     string // private: where the audit lines go
	SecurityChannel  string // private, optional: who asked for what is protected, who used break-glass, and alarms
	Prefix           string // of the slash commands, without the slash

	People     map[string]string // Slack id to Entra object id
	MatchEmail bool              // whether a confirmed Slack e-mail may name an Entra account, which is then pinned

	Service *approvals.Service
	Inbox   *approvals.Inbox
	Tenant  *commands.Tenant
	Audit   *audit.Log // optional: the tamper-evident log beside the channel

	Name        string // of this process
	Concurrency int    // interactions at a time; 8 when zero
	Log         *slog.Logger
}

// Bot is one process' end of the conversation with Slack.
type Bot struct {
	Options
	api    *slack.Client // for the Web API; retries when Slack asks to wait
	now    *slack.Client // for what dies in three seconds; never retries
	socket *socketmode.Client
	people *people
	groups *userGroups
	guard  *channelGuard
	appID  atomic.Value // string; from Slack's first hello
	acked  atomic.Int64 // when the last ack was handed to slack-go, in nanoseconds since 1970
	ready  chan struct{}
	once   sync.Once
	spare  chan struct{} // places for what runs beside the hands
	beside sync.WaitGroup
}

// New makes a Bot. It does not connect yet.
func New(o Options) *Bot {
	o.Concurrency = cmp.Or(o.Concurrency, 8)
	client := *o.HTTP
	client.Transport = deadlineTransport{cmp.Or(client.Transport, http.DefaultTransport)}
	o.HTTP = &client
	base := []slack.Option{slack.OptionAppLevelToken(o.AppToken), slack.OptionHTTPClient(o.HTTP)}
	if o.APIURL != "" {
		base = append(base, slack.OptionAPIURL(o.APIURL))
	}
	b := &Bot{Options: o, ready: make(chan struct{}), spare: make(chan struct{}, 100)}
	b.now = slack.New(o.BotToken, base...)
	// 429 only: a lost reply to a post is not a reason to post twice.
	b.api = slack.New(o.BotToken, append(slices.Clone(base), slack.OptionRetry(2))...)
	b.socket = socketmode.New(b.now, socketmode.OptionLog(debugLogger{o.Log}), socketmode.OptionReadLimit(maxFrame))
	b.people = &people{api: b.api, options: o}
	b.groups = &userGroups{people: b.people}
	b.guard = &channelGuard{api: b.api, seen: map[string]channelCheck{}}
	return b
}

// UserGroups tells who is in which Slack user group. The service needs it where
// the policy names such groups.
func (b *Bot) UserGroups() approvals.UserGroups { return b.groups }

// Ready is closed when Slack has said hello for the first time.
func (b *Bot) Ready() <-chan struct{} { return b.ready }

// Check looks at what the bot depends on in Slack and says in one sentence
// each what an administrator must change.
func (b *Bot) Check(ctx context.Context) error {
	me, err := b.api.AuthTestContext(ctx)
	if err != nil {
		return fmt.Errorf("the bot token in SLACK_BOT_TOKEN is not accepted by Slack: %w", err)
	}
	if me.TeamID != b.Team {
		return fmt.Errorf("SLACK_BOT_TOKEN belongs to workspace %s, but slack.team says %s", me.TeamID, b.Team)
	}
	channels := map[string]string{"slack.approvals_channel": b.ApprovalsChannel, "slack.audit_channel": b.AuditChannel}
	if b.SecurityChannel != "" {
		channels["slack.security_channel"] = b.SecurityChannel
	}
	for setting, channel := range channels {
		if err := b.guard.check(ctx, channel, 0); err != nil {
			return fmt.Errorf("%s: %w", setting, err)
		}
	}
	return b.groups.check(ctx, b.Service.Policy)
}

// Run connects and works until ctx ends, then stops in order: no new
// envelopes, interactions in hand finish, projections stop. It returns an error when
// Slack says that it will never accept us.
func (b *Bot) Run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var all sync.WaitGroup
	all.Go(func() { b.Inbox.Consume(ctx, b.Name, b.Concurrency, b.handleArrival) })
	for _, p := range b.projections() {
		all.Go(func() { b.Service.Store.Follow(ctx, b.Name, p, b.Log) })
	}
	all.Go(func() { b.trim(ctx) })
	all.Go(func() { b.watchStore(ctx) })
	all.Go(func() { b.watchLostWrites(ctx) })
	all.Go(func() { stop(b.listen(ctx)) })
	<-ctx.Done()
	all.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// trim drops events that every projection has handled.
func (b *Bot) trim(ctx context.Context) {
	var names []string
	for _, p := range b.projections() {
		names = append(names, p.Name)
	}
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := b.Service.Store.Trim(ctx, names, 7*24*time.Hour); err != nil {
			b.Log.Warn("old events were not dropped", "error", err)
		}
	}
}

// slash is a command as people type it here.
func (b *Bot) slash(name string) string {
	c, _ := commands.Lookup(name)
	return commands.Slash(b.Prefix, c)
}

// channelGuard holds the rule that cards and audit lines go only to private
// channels that nobody outside the company reads.
type channelGuard struct {
	api  *slack.Client
	mu   sync.Mutex
	seen map[string]channelCheck
}

type channelCheck struct {
	at     time.Time
	no     *unfitChannel
	shared bool // with people outside
}

// unfitChannel says why a channel is not one for cards, and what to do about it. Any
// other error of fit means that Slack could not be asked.
type unfitChannel struct{ sentence string }

func (u *unfitChannel) Error() string { return u.sentence }

// channelMaxAge is how old an answer about a channel may be for a message: Slack
// takes some fifty such questions a minute. A press is worth a fresh one.
const channelMaxAge = 2 * time.Second

// check says why a channel is not one for cards; nil when it is. The answer may
// be as old as age.
func (g *channelGuard) check(ctx context.Context, id string, age time.Duration) error {
	known, err := g.lookUp(ctx, id, age)
	if err == nil && known.no != nil {
		return known.no
	}
	return err
}

// shared says that Slack shows a channel as shared with people outside. A no may
// be as old as age.
func (g *channelGuard) shared(ctx context.Context, id string, age time.Duration) (bool, error) {
	known, err := g.lookUp(ctx, id, age)
	if err == nil && known.shared {
		known, err = g.lookUp(ctx, id, 0)
	}
	return known.shared, err
}

func (g *channelGuard) lookUp(ctx context.Context, id string, age time.Duration) (channelCheck, error) {
	const most = 200 // that are remembered: people type in many
	g.mu.Lock()
	known, ok := g.seen[id]
	g.mu.Unlock()
	if ok && time.Since(known.at) < age {
		return known, nil
	}
	c, err := g.api.GetConversationInfoContext(ctx, &slack.GetConversationInfoInput{ChannelID: id})
	no, err := checkChannel(id, c, err)
	if err != nil {
		return channelCheck{}, fmt.Errorf("asking Slack about the channel %s: %w", id, err)
	}
	known = channelCheck{time.Now(), no, c != nil && (c.IsExtShared || c.IsPendingExtShared)}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.seen) >= most {
		clear(g.seen)
	}
	g.seen[id] = known
	return known, nil
}

func checkChannel(id string, c *slack.Channel, err error) (*unfitChannel, error) {
	no := func(format string, a ...any) (*unfitChannel, error) {
		return &unfitChannel{fmt.Sprintf(format, a...)}, nil
	}
	switch {
	case errIs(err, "channel_not_found"):
		return no("Countersign does not see the channel %s. Invite it there with /invite.", id)
	case err != nil:
		return nil, err
	case !c.IsPrivate:
		return no("#%s is not a private channel, and cards show whom a request concerns. Make it private, or name another in the configuration.", c.Name)
	case c.IsExtShared || c.IsPendingExtShared:
		return no("#%s is shared with people outside. Name another channel in the configuration, one that is not shared.", c.Name)
	case c.IsArchived:
		return no("#%s is archived. Name another channel in the configuration.", c.Name)
	case !c.IsMember:
		return no("Countersign is not in #%s. Invite it there with /invite.", c.Name)
	}
	return nil, nil
}

// errIs says that Slack answered with one of these error codes.
func errIs(err error, codes ...string) bool {
	if err == nil {
		return false
	}
	code := err.Error()
	if answer, ok := errors.AsType[slack.SlackErrorResponse](err); ok {
		code = answer.Err
	}
	return slices.Contains(codes, code)
}

// debugLogger passes slack-go's own remarks to the log at debug level. They name
// envelopes, never what is in them, as long as its debug option stays off.
type debugLogger struct{ log *slog.Logger }

func (q debugLogger) Output(_ int, text string) error {
	q.log.Debug("slack-go", "says", text)
	return nil
}
