package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"countersign/approvals"
	"countersign/commands"
	"countersign/sandbox"
)

// serveSandbox runs the workspace and the tenant alone, and writes what a
// bot, or any other Slack or Graph client, needs to reach them.
func serveSandbox(ctx context.Context, f *flag.FlagSet, args []string, env environment) error {
	addr := f.String("addr", "127.0.0.1:8377", "the `address` to listen on; port 0 takes any free one")
	host := f.String("host", "", "the `name` others reach it by, where that is not the address")
	dir := f.String("dir", "", "the `folder` for the CA file, the configuration and the environment of a bot; a new temporary one when empty")
	redisURL := f.String("redis", "redis://127.0.0.1:6379", "the Redis `URL` that goes into that configuration")
	if err := parse(f, args); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(env.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	box, err := sandbox.New(sandbox.Options{Addr: *addr, Host: *host, Manifest: commands.Manifest(defaultPrefix), Log: log})
	if err != nil {
		return err
	}
	defer box.Close()
	if *dir == "" {
		if *dir, err = os.MkdirTemp("", "countersign-sandbox-"); err != nil {
			return err
		}
	} else if err := os.MkdirAll(*dir, 0o700); err != nil {
		return err
	}
	folder, err := filepath.Abs(*dir)
	if err != nil {
		return err
	}
	caFile := filepath.Join(folder, "ca.pem")
	configuration, err := yaml.Marshal(sandboxConfig(box.URL(), box.SecureURL(), *redisURL))
	if err != nil {
		return err
	}
	variables := strings.Join([]string{
		"SLACK_BOT_TOKEN=" + sandbox.BotToken, "SLACK_APP_TOKEN=" + sandbox.AppToken, "AZURE_CLIENT_SECRET=" + sandbox.ClientSecret,
		"COUNTERSIGN_KEYS=" + newKey(), "SSL_CERT_FILE=" + caFile, "",
	}, "\n")
	for name, content := range map[string][]byte{"ca.pem": box.CAPEM(), "countersign.yaml": configuration, "env": []byte(variables)} {
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o600); err != nil {
			return err
		}
	}
	fmt.Fprintf(env.Stdout, `Countersign sandbox: open %s
Slack Web API   %sapi/   bot token %s   app token %s   team T0FERNHILL
Sign-in         %s/      tenant %s   client %s   secret %s
Graph           %s/v1.0
CA file         %s

A bot that reaches it:
  set -a; . %s; set +a
  countersign serve -config %s
`, box.URL(), box.URL()+"/", sandbox.BotToken, sandbox.AppToken, box.SecureURL(), sandbox.TenantID, sandbox.ClientID, sandbox.ClientSecret,
		box.SecureURL(), caFile, filepath.Join(folder, "env"), filepath.Join(folder, "countersign.yaml"))
	<-ctx.Done()
	return nil
}

// sandboxConfig is the configuration of a bot for Fernhill, the company in
// the sandbox. It is also an example of a policy that makes sense.
func sandboxConfig(url, secure, redisURL string) config {
	var c config
	c.Slack.Team, c.Slack.APIURL, c.Slack.CommandPrefix = "T0FERNHILL", url+"/api/", defaultPrefix
	c.Slack.ApprovalsChannel, c.Slack.AuditChannel = sandbox.Approvals, sandbox.Audit
	c.Entra.Tenant, c.Entra.ClientID, c.Entra.Cloud, c.Entra.Credential = sandbox.TenantID, sandbox.ClientID, "public", "secret"
	c.Entra.Authority, c.Entra.Graph = secure+"/", secure
	c.Redis.URL = redisURL
	c.People.MatchEmail = true
	c.Policy = approvals.Policy{
		Groups: map[string]approvals.Group{
			"help-desk": {Entra: []string{sandbox.GroupHelpDesk}},
			"on-call":   {Entra: []string{sandbox.GroupOnCall}},
			"approvers": {Entra: []string{sandbox.GroupApprovers}},
		},
		Classes: map[approvals.Class]approvals.Rule{
			approvals.ClassRead: {Request: []string{"help-desk", "on-call"}},
			approvals.ClassContain: {Request: []string{"help-desk", "on-call"}, Approve: []string{"approvers"}, Approvals: 1, Lifetime: 15 * time.Minute,
				BreakGlass: []string{"on-call"}},
			approvals.ClassDestroy:  {Request: []string{"help-desk"}, Approve: []string{"approvers"}, Approvals: 1, Lifetime: 30 * time.Minute},
			approvals.ClassTakeover: {Request: []string{"help-desk"}, Approve: []string{"approvers"}, Approvals: 1, Lifetime: 30 * time.Minute},
		},
		ProtectedGroups: []string{sandbox.GroupExecutives},
		ReadsAMinute:    30,
	}
	c.Timing = approvals.DefaultTiming()
	return c
}
