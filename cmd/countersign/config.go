package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"countersign/approvals"
	"countersign/commands"
)

// config has every setting that is not secret, in the form of the YAML file.
// Secrets come from the environment; see secrets.
type config struct {
	Slack struct {
		Team             string `yaml:"team"`              // workspace id, T…
		ApprovalsChannel string `yaml:"approvals_channel"` // private channel id, C…
		AuditChannel     string `yaml:"audit_channel"`     // private channel id, C…
		SecurityChannel  string `yaml:"security_channel"`  // private channel id, for attempts on protected targets and alarms; none when empty
		CommandPrefix    string `yaml:"command_prefix"`    // of every slash command; entra- when empty
		APIURL           string `yaml:"api_url"`           // another Web API than Slack's, for the sandbox
	} `yaml:"slack"`
	Entra struct {
		Tenant          string `yaml:"tenant"`
		ClientID        string `yaml:"client_id"`
		Cloud           string `yaml:"cloud"`      // public, usgov, usgovdod or china
		Credential      string `yaml:"credential"` // secret, certificate, workload-identity or managed-identity
		CertificatePath string `yaml:"certificate_path"`
		// For a tenant without Entra ID P2, where no role can be eligible and
		// asking for eligible roles is an error.
		WithoutEligibleRoles bool   `yaml:"without_eligible_roles"`
		Authority            string `yaml:"authority"` // another sign-in service, for the sandbox
		Graph                string `yaml:"graph"`     // another Graph, for the sandbox
	} `yaml:"entra"`
	Redis  redisConfig `yaml:"redis"`
	People struct {
		Table      map[string]string `yaml:"table"`       // Slack id to Entra object id
		MatchEmail bool              `yaml:"match_email"` // whether confirmed e-mail may name the account, pinned at first use
	} `yaml:"people"`
	Policy approvals.Policy `yaml:"policy"`
	Audit  struct {
		Dir string `yaml:"dir"` // of the tamper-evident log; none when empty
	} `yaml:"audit"`
	Timing approvals.Timing `yaml:"timing"`
}

// redisConfig says where Redis is: at one address, behind Sentinels, or in a
// Cluster.
type redisConfig struct {
	URL      string `yaml:"url"` // redis:// or rediss://; COUNTERSIGN_REDIS_URL wins, for one with a password
	Sentinel struct {
		Master    string   `yaml:"master"`    // what the Sentinels call it
		Addresses []string `yaml:"addresses"` // of the Sentinels, host:port
		Username  string   `yaml:"username"`  // at the Sentinels; COUNTERSIGN_REDIS_SENTINEL_PASSWORD has its password
	} `yaml:"sentinel"`
	Cluster struct {
		Addresses []string `yaml:"addresses"` // of some nodes, host:port; the others are learnt from them
	} `yaml:"cluster"`
	Username  string `yaml:"username"`  // an ACL user; COUNTERSIGN_REDIS_PASSWORD has its password
	TLS       bool   `yaml:"tls"`       // for Sentinel and Cluster; an address says it itself, with rediss://
	CAFile    string `yaml:"ca_file"`   // of a private authority
	CertFile  string `yaml:"cert_file"` // of our own, where Redis asks for one
	KeyFile   string `yaml:"key_file"`  // that belongs to it
	Prefix    string `yaml:"prefix"`    // keeps several Countersigns in one Redis apart
	Watermark string `yaml:"watermark"` // a file that outlives all processes and remembers what Redis confirmed; none when empty
}

// secrets are the settings that only the environment holds.
type secrets struct {
	BotToken, AppToken string
	ClientSecret       string
	Ring               *approvals.Ring
	RedisURL           string // with or without a password in it
	RedisPassword      string
	SentinelPassword   string
}

// readConfig parses a file strictly: an unknown key is an error, because a
// misspelt rule would not apply.
func readConfig(r io.Reader) (config, error) {
	var c config
	c.Timing = approvals.DefaultTiming()
	raw, err := io.ReadAll(r)
	if err != nil {
		return c, err
	}
	decoder := yaml.NewDecoder(bytes.NewReader(raw))
	decoder.KnownFields(true)
	if err := decoder.Decode(&c); err != nil {
		if errors.Is(err, io.EOF) {
			return c, errors.New("the configuration is empty")
		}
		return c, explainYAMLError(raw, err)
	}
	if err := decoder.Decode(new(any)); !errors.Is(err, io.EOF) {
		return c, errors.New("the configuration has a second document behind ---; put everything into one")
	}
	return c, c.check()
}

func loadConfig(path string) (config, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return config{}, fmt.Errorf("the configuration: %w", err)
	}
	c, err := readConfig(bytes.NewReader(raw))
	if err != nil {
		return c, fmt.Errorf("the configuration %s: %w", path, err)
	}
	return c, nil
}

var (
	guid        = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	userGroupID = regexp.MustCompile(`^S[A-Z0-9]{2,}$`)
	slackID     = regexp.MustCompile(`^[UW][A-Z0-9]{2,}$`)
	prefixText  = regexp.MustCompile(`^[a-z0-9_-]{0,11}$`)
)

// check reports everything that is wrong, not only the first mistake.
func (c *config) check() error {
	var wrong []error
	want := func(ok bool, format string, a ...any) {
		if !ok {
			wrong = append(wrong, fmt.Errorf(format, a...))
		}
	}
	if c.Slack.CommandPrefix == "" {
		c.Slack.CommandPrefix = "entra-"
	}
	want(strings.HasPrefix(c.Slack.Team, "T"), "slack.team: the workspace id, such as T0123ABCD; on Enterprise Grid that of the one workspace, not the organisation's E…")
	want(c.Slack.ApprovalsChannel != "", "slack.approvals_channel: the id of the private channel in which requests are decided, such as C0123ABCD")
	want(c.Slack.AuditChannel != "", "slack.audit_channel: the id of the private channel that keeps the record, such as C0123ABCD")
	want(prefixText.MatchString(c.Slack.CommandPrefix), "slack.command_prefix: up to eleven of a-z, 0-9, _ and -")
	want(c.Slack.APIURL == "" || strings.HasSuffix(c.Slack.APIURL, "/"), "slack.api_url: it ends with a slash")
	if c.Entra.Credential == "" {
		c.Entra.Credential = "secret"
	}
	if c.Entra.Cloud == "" {
		c.Entra.Cloud = "public"
	}
	want(c.Entra.Credential == "managed-identity" || guid.MatchString(c.Entra.Tenant), "entra.tenant: the tenant id, a GUID in lower case")
	want(c.Entra.Credential == "managed-identity" || guid.MatchString(c.Entra.ClientID), "entra.client_id: the application (client) id, a GUID in lower case")
	if err := c.Redis.check(); err != nil {
		wrong = append(wrong, err)
	}
	for slack, object := range c.People.Table {
		want(slackID.MatchString(slack), "people.table: %q is not a Slack user id", slack)
		want(guid.MatchString(object), "people.table: %q of %s is not an Entra object id, a GUID in lower case", object, slack)
	}
	want(c.People.MatchEmail || len(c.People.Table) > 0, "people: list who is who under people.table, or set match_email; otherwise nobody can use Countersign")
	for name, g := range c.Policy.Groups {
		for _, id := range append(g.Entra, g.People...) {
			want(guid.MatchString(id), "policy.groups.%s: %q is not an object id; names can be taken by anybody", name, id)
		}
	}
	for name, g := range c.Policy.Groups {
		for _, id := range g.Slack {
			want(userGroupID.MatchString(id), "policy.groups.%s: %q is not the id of a Slack user group, which begins with S; handles can be given to another group", name, id)
		}
	}
	for _, id := range c.Policy.ProtectedGroups {
		want(guid.MatchString(id), "policy.protected_groups: %q is not an object id", id)
	}
	classes := map[string]approvals.Class{}
	for _, command := range commands.Table() {
		classes[command.Name] = command.Class
	}
	if err := c.Policy.Check(classes); err != nil {
		wrong = append(wrong, err)
	}
	if err := c.Timing.Check(); err != nil {
		wrong = append(wrong, err)
	}
	// On the sandbox tests are in a hurry, and open all secrets at their end.
	if c.Entra.Graph == "" {
		want(c.Timing.SecretLife <= 15*time.Minute, "timing.secret_life: 15m at most, because whatever can still be revealed can still be stolen")
		const short = "%s.lifetime: %s is too short for anybody to read and decide; it can be 1m to 24h"
		for class, r := range c.Policy.Classes {
			want(r.Lifetime <= 0 || r.Lifetime >= time.Minute, short, "policy.classes."+string(class), r.Lifetime)
		}
		for name, r := range c.Policy.Commands {
			want(r.Lifetime <= 0 || r.Lifetime >= time.Minute, short, "policy.commands."+name, r.Lifetime)
		}
	}
	return errors.Join(wrong...)
}

// secretsFrom reads the environment, and says which variable is missing.
func secretsFrom(c config, getenv func(string) string) (secrets, error) {
	s := secrets{
		BotToken: getenv("SLACK_BOT_TOKEN"), AppToken: getenv("SLACK_APP_TOKEN"), ClientSecret: getenv("AZURE_CLIENT_SECRET"),
	}
	var wrong []error
	if !strings.HasPrefix(s.BotToken, "xoxb-") {
		wrong = append(wrong, errors.New("SLACK_BOT_TOKEN: the bot token, xoxb-…"))
	}
	if !strings.HasPrefix(s.AppToken, "xapp-") {
		wrong = append(wrong, errors.New("SLACK_APP_TOKEN: the app-level token with connections:write, xapp-…"))
	}
	if c.Entra.Credential == "secret" && s.ClientSecret == "" {
		wrong = append(wrong, errors.New("AZURE_CLIENT_SECRET: the client secret of the app registration; or set entra.credential to certificate or workload-identity"))
	}
	if err := s.forRedis(c.Redis, getenv); err != nil {
		wrong = append(wrong, err)
	}
	ring, err := approvals.ParseRing(getenv("COUNTERSIGN_KEYS"))
	if err != nil {
		wrong = append(wrong, fmt.Errorf("COUNTERSIGN_KEYS: %w", err))
	}
	s.Ring = ring
	return s, errors.Join(wrong...)
}
