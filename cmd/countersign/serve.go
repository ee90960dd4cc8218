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
	return service{config: c, secrets: s, log: log, up: func() { fmt.Fprintln(env.Stdout, "countersign is ready") }}.run(ctx)
}

// service is one process of the bot.
type service struct {
	config  config
	secrets secrets
	log     *slog.Logger
	trust   *http.Client // reaches Graph and the sign-in service; nil for the system's own trust
	up      func()       // called when Slack has said hello
}

func (s service) run(ctx context.Context) error {
	rdb, quick, err := connectRedis(s.secrets.RedisURL, s.config.Redis.CAFile)
	if err != nil {
		return err
	}
	defer rdb.Close()
	defer quick.Close()
	if err := rdb.Ping(ctx).Err(); err != nil {
		return unlessStopped(ctx, fmt.Errorf("asking Redis: it does not answer: %w", err))
	}
	graph, err := s.graph()
	if err != nil {
		return err
	}
	var options []commands.Option
	if s.config.Entra.WithoutEligibleRoles {
		options = append(options, commands.WithoutEligibleRoles())
	}
	tenant := commands.NewTenant(graph, s.config.Policy.ProtectedGroups, options...)
	name := processName()
	store := approvals.NewStore(rdb, s.secrets.Ring, s.config.Redis.Prefix, s.config.Timing)
	desk := &approvals.Desk{Store: store, Policy: s.config.Policy, Directory: tenant, Log: s.log}
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
	b := bot.New(bot.Options{
		BotToken: s.secrets.BotToken, AppToken: s.secrets.AppToken, APIURL: s.config.Slack.APIURL, HTTP: &http.Client{Timeout: 20 * time.Second},
		Team: s.config.Slack.Team, ApprovalsChannel: s.config.Slack.ApprovalsChannel, AuditChannel: s.config.Slack.AuditChannel, SecurityChannel: s.config.Slack.SecurityChannel, Prefix: s.config.Slack.CommandPrefix,
		People: s.config.People.Table, MatchEmail: s.config.People.MatchEmail,
		Desk: desk, Inbox: approvals.NewInbox(store, quick, s.log), Tenant: tenant, Audit: log, Name: name, Log: s.log,
	})
	if err := b.Check(ctx); err != nil {
		return unlessStopped(ctx, err)
	}
	runner := &approvals.Runner{Desk: desk, Work: tenant.Work, Name: name, Audit: bot.AuditProjection, Hands: 4, Log: s.log}

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

// unlessStopped drops an error that is only our being told to stop.
func unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// graph is the client of Microsoft Graph that the configuration describes.
func (s service) graph() (*entra.Client, error) {
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

// processName tells replicas apart for operators and for leases.
func processName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "countersign"
	}
	return host + "-" + rand.Text()[:8]
}
