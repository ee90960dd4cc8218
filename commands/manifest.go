package commands

import (
	"bytes"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"countersign/entra"
)

// The app manifest as far as Countersign has something to say in it.
// https://docs.slack.dev/reference/app-manifest
type manifest struct {
	Metadata struct {
		Major int `yaml:"major_version"`
		Minor int `yaml:"minor_version"`
	} `yaml:"_metadata"`
	Display struct {
		Name        string `yaml:"name"`
		Description string `yaml:"description"`
		Long        string `yaml:"long_description"`
		Background  string `yaml:"background_color"`
	} `yaml:"display_information"`
	Features struct {
		Home struct {
			Home     bool `yaml:"home_tab_enabled"`
			Messages bool `yaml:"messages_tab_enabled"`
			ReadOnly bool `yaml:"messages_tab_read_only_enabled"`
		} `yaml:"app_home"`
		Bot struct {
			Name   string `yaml:"display_name"`
			Online bool   `yaml:"always_online"`
		} `yaml:"bot_user"`
		Commands []slashCommand `yaml:"slash_commands"`
	} `yaml:"features"`
	OAuth struct {
		Scopes struct {
			Bot []string `yaml:"bot"`
		} `yaml:"scopes"`
	} `yaml:"oauth_config"`
	Settings struct {
		Events struct {
			Bot []string `yaml:"bot_events"`
		} `yaml:"event_subscriptions"`
		Interactivity struct {
			Enabled bool `yaml:"is_enabled"`
		} `yaml:"interactivity"`
		OrgDeploy     bool `yaml:"org_deploy_enabled"`
		SocketMode    bool `yaml:"socket_mode_enabled"`
		TokenRotation bool `yaml:"token_rotation_enabled"`
	} `yaml:"settings"`
}

type slashCommand struct {
	Command     string `yaml:"command"`
	Description string `yaml:"description"`
	Usage       string `yaml:"usage_hint"`
	Escape      bool   `yaml:"should_escape"`
}

// Manifest is the app manifest to create the Slack app from, in YAML, for
// slash commands with a prefix such as "entra-".
func Manifest(prefix string) []byte {
	var m manifest
	m.Metadata.Major, m.Metadata.Minor = 1, 1
	m.Display.Name = "Countersign"
	m.Display.Description = "Microsoft Entra help desk actions that take a second person's signature."
	m.Display.Long = "Countersign lets a help desk and on-call engineers manage their people's Microsoft Entra authentication methods from Slack. " +
		"Whatever changes an account is shown step by step to a colleague first and happens only when that colleague approves. " +
		"Who asked, who approved, why, and what became of each step is recorded."
	m.Display.Background = "#1d2b36"
	m.Features.Home.Home, m.Features.Home.Messages, m.Features.Home.ReadOnly = true, true, true
	m.Features.Bot.Name, m.Features.Bot.Online = "Countersign", true
	for _, c := range Table() {
		// With should_escape Slack sends ids instead of names, which
		// anybody can choose for themselves.
		m.Features.Commands = append(m.Features.Commands, slashCommand{Slash(prefix, c), sentence(c.Does), c.Usage, true})
	}
	m.OAuth.Scopes.Bot = []string{"commands", "chat:write", "im:write", "users:read", "users:read.email", "usergroups:read", "channels:read", "groups:read"}
	m.Settings.Events.Bot = []string{"app_home_opened"}
	m.Settings.Interactivity.Enabled = true
	m.Settings.SocketMode = true

	var b bytes.Buffer
	b.WriteString("# Made from the command table of Countersign: change that, not this file.\n")
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(m); err != nil {
		panic(err) // strings and booleans
	}
	return b.Bytes()
}

// MarkdownTable is the README's table of commands for a prefix: what each
// does, its class, and the application permissions it needs.
func MarkdownTable(prefix string) string {
	var b strings.Builder
	b.WriteString("| command | does | class | application permissions |\n|---|---|---|---|\n")
	cell := strings.NewReplacer("|", `\|`)
	for _, c := range Table() {
		permissions := quotedList(c.Permissions)
		for _, e := range c.More {
			permissions += "; with `" + e.With + "` also " + quotedList(e.Permissions)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", cell.Replace(strings.TrimSpace(Slash(prefix, c)+" "+c.Usage)), cell.Replace(c.Does), c.Class, permissions)
	}
	return b.String()
}

func quotedList(permissions []entra.Permission) string {
	var list []string
	for _, p := range permissions {
		list = append(list, "`"+string(p)+"`")
	}
	return strings.Join(list, ", ")
}
