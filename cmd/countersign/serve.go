package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"countersign/approvals"
	"countersign/audit"
	"countersign/bot"
	"countersign/commands"
	"countersign/entra"
)

// serve runs the bot until it is told to stop.
func serve(ctx context.Context, f *flag.FlagSet, args []string, env environment) error {
	path := f.String("config", "countersign.yaml", "the configuration `file`; secrets come from the environment")
	verbose := f.Bool("verbose", false, "log what slack-go says, too")
	if err := parse(f, args); err != nil {
		return err
	}
	c, err := loadConfig(*path)
	if err != nil {
		return err
	}
	s, err := secretsFrom(c, env.Getenv)
	if err != nil {
		return fmt.Errorf("the environment lacks something:\n%w", err)
	}
	level := slog.LevelInfo
	if *verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(env.Stderr, &slog.HandlerOptions{Level: level}))
	return process{config: c, secrets: s, log: log, up: func() { fmt.Fprintln(env.Stdout, "countersign is ready") }}.run(ctx)
}

// process is one process of the bot.
type process struct {
	config  config
	secrets secrets
	log     *slog.Logger
	trust   *http.Client      // reaches Graph and the sign-in service; nil for the system's own trust
	toSlack http.RoundTripper // carries what goes to Slack's Web API; nil for Go's default transport
	passing bool              // Redis is in this process and goes with it, as everybody knows
	up      func()            // called when Slack has said hello
}

func (s process) run(ctx context.Context) error {
	rdb, quick, err := connectRedis(s.config.Redis, s.secrets)
	if err != nil {
		return err
	}
	defer rdb.Close()
	defer quick.Close()
	store := approvals.NewStore(rdb, s.secrets.Ring, s.config.Redis.Prefix, s.config.Timing)
	inbox := approvals.NewInbox(store, quick, s.log)
	if err := s.readyRedis(ctx, rdb, store, inbox, startTimeout); err != nil {
		return unlessStopped(ctx, err)
	}
	watermark, err := s.watermark(ctx, store)
	if err != nil {
		return unlessStopped(ctx, err)
	}
	defer watermark()
	tenant, err := s.tenant()
	if err != nil {
		return err
	}
	name := processName()
	service := s.service(store, tenant)
	var log *audit.Log
	if dir := s.config.Audit.Dir; dir != "" {
		if log, err = audit.Open(dir); err != nil {
			return fmt.Errorf("the audit log does not open, and nothing is done without it: %w", err)
		}
		defer log.Close()
		for _, repair := range log.Repaired() {
			s.log.Warn("the audit log was repaired", "what", repair)
		}
	}
	b := s.bot(service, inbox, tenant, log, name)
	if err := b.Check(ctx); err != nil {
		return unlessStopped(ctx, err)
	}
	runner := &approvals.Runner{Service: service, Work: tenant.Work, Name: name, Audit: bot.AuditProjection, Concurrency: 4, Log: s.log}

	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var all sync.WaitGroup
	all.Go(func() { runner.Run(ctx) })
	all.Go(func() { stop(b.Run(ctx)) })
	all.Go(func() {
		select {
		case <-b.Ready():
			s.log.Info("ready", "process", name)
			s.up()
		case <-ctx.Done():
		}
	})
	all.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	s.log.Info("stopped in order", "process", name)
	return nil
}

// watermark compares Redis with the watermark file, if there is one, and keeps
// the file up to date until everything else has ended.
func (s process) watermark(ctx context.Context, store *approvals.Store) (end func(), err error) {
	if s.config.Redis.Watermark == "" {
		if !s.passing {
			s.log.Warn("redis.watermark names no file. Whether this Redis was restored from an older copy while no Countersign ran cannot be detected.")
		}
		return func() {}, nil
	}
	file, err := store.OpenWatermark(ctx, s.config.Redis.Watermark)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	var writing sync.WaitGroup
	writing.Go(func() { file.Run(ctx, s.log) })
	return func() { stop(); writing.Wait() }, nil
}

// unlessStopped drops an error that only says that this process was told to
// stop.
func unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// tenant is the Entra tenant that the configuration describes.
func (s process) tenant() (*commands.Tenant, error) {
	graph, err := s.graph()
	if err != nil {
		return nil, err
	}
	var options []commands.Option
	if s.config.Entra.WithoutEligibleRoles {
		options = append(options, commands.WithoutEligibleRoles())
	}
	return commands.NewTenant(graph, s.config.Policy.ProtectedGroups, options...), nil
}

// service is the approval service with the configured policy.
func (s process) service(store *approvals.Store, tenant *commands.Tenant) *approvals.Service {
	return &approvals.Service{Store: store, Policy: s.config.Policy, Directory: tenant, Log: s.log}
}

// bot is the Slack side of this process. It also answers the service's questions
// about Slack.
func (s process) bot(service *approvals.Service, inbox *approvals.Inbox, tenant *commands.Tenant, log *audit.Log, name string) *bot.Bot {
	b := bot.New(bot.Options{
		BotToken: s.secrets.BotToken, AppToken: s.secrets.AppToken, APIURL: s.config.Slack.APIURL, HTTP: &http.Client{Timeout: 20 * time.Second, Transport: s.toSlack},
		Team: s.config.Slack.Team, ApprovalsChannel: s.config.Slack.ApprovalsChannel, AuditChannel: s.config.Slack.AuditChannel, SecurityChannel: s.config.Slack.SecurityChannel, Prefix: s.config.Slack.CommandPrefix,
		People: s.config.People.Table, MatchEmail: s.config.People.MatchEmail,
		Service: service, Inbox: inbox, Tenant: tenant, Audit: log, Name: name, Log: s.log,
	})
	service.UserGroups, service.SlackAccounts = b.UserGroups(), b
	return b
}

// graph is the client of Microsoft Graph that the configuration describes.
func (s process) graph() (*entra.Client, error) {
	e := s.config.Entra
	root, _, err := entra.CloudRoots(e.Cloud)
	if err != nil {
		return nil, fmt.Errorf("entra.cloud: %w", err)
	}
	if e.Graph != "" {
		root = e.Graph
	}
	credential, err := entra.NewCredential(entra.CredentialOptions{
		Kind: e.Credential, Tenant: e.Tenant, ClientID: e.ClientID, Secret: s.secrets.ClientSecret, CertificatePath: e.CertificatePath,
		Cloud: e.Cloud, Authority: e.Authority, HTTP: s.trust, TrustAuthority: e.Authority != "",
	})
	if err != nil {
		return nil, fmt.Errorf("entra.credential: %w", err)
	}
	o := entra.Options{Graph: root, Credential: credential, CallTimeout: s.config.Timing.GraphCall}
	if s.trust != nil {
		o.Transport = s.trust.Transport
	}
	return entra.New(o)
}

// processName distinguishes replicas for operators and for leases.
func processName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "countersign"
	}
	return host + "-" + rand.Text()[:8]
}
