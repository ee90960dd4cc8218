package slack

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Manifest contains the parts of an app manifest that the workspace uses (https://docs.slack.dev/reference/app-manifest).
type Manifest struct {
	Name          string // display_information.name
	Description   string // display_information.description
	BotName       string // features.bot_user.display_name; Name when the manifest has none
	HomeTab       bool   // features.app_home.home_tab_enabled
	MessagesTab   bool   // features.app_home.messages_tab_enabled: required for direct messages
	Interactivity bool   // settings.interactivity.is_enabled: required for buttons, also in Socket Mode
	SocketMode    bool   // settings.socket_mode_enabled
	Commands      []Command
	BotScopes     []string // oauth_config.scopes.bot
	BotEvents     []string // settings.event_subscriptions.bot_events
}

// Command is a slash command of the app.
type Command struct {
	Command      string `json:"command"` // with the slash
	Description  string `json:"description"`
	UsageHint    string `json:"usage_hint"`
	ShouldEscape bool   `json:"should_escape"` // mentions, channels and links in the text arrive as Slack writes them in messages
}

// ParseManifest reads an app manifest, in JSON or YAML, and refuses what Slack would refuse in the parts that it reads. It ignores
// other fields, which the manifest's schema checks.
func ParseManifest(data []byte) (Manifest, error) {
	var file struct {
		Display struct {
			Name        string `yaml:"name"`
			Description string `yaml:"description"`
		} `yaml:"display_information"`
		Features struct {
			Home struct {
				HomeTab     bool `yaml:"home_tab_enabled"`
				MessagesTab bool `yaml:"messages_tab_enabled"`
			} `yaml:"app_home"`
			Bot *struct {
				Name string `yaml:"display_name"`
			} `yaml:"bot_user"`
			Commands []struct {
				Command      string `yaml:"command"`
				Description  string `yaml:"description"`
				UsageHint    string `yaml:"usage_hint"`
				ShouldEscape bool   `yaml:"should_escape"`
			} `yaml:"slash_commands"`
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
			SocketMode bool `yaml:"socket_mode_enabled"`
		} `yaml:"settings"`
	}
	if err := yaml.Unmarshal(data, &file); err != nil {
		return Manifest{}, fmt.Errorf("the app manifest is neither YAML nor JSON of the right form: %w", err)
	}
	m := Manifest{
		Name:          file.Display.Name,
		Description:   file.Display.Description,
		BotName:       file.Display.Name,
		HomeTab:       file.Features.Home.HomeTab,
		MessagesTab:   file.Features.Home.MessagesTab,
		Interactivity: file.Settings.Interactivity.Enabled,
		SocketMode:    file.Settings.SocketMode,
		BotScopes:     file.OAuth.Scopes.Bot,
		BotEvents:     file.Settings.Events.Bot,
	}
	for _, c := range file.Features.Commands {
		m.Commands = append(m.Commands, Command(c))
	}
	switch n := utf8.RuneCountInString(m.Name); {
	case n == 0 || n > 35:
		return Manifest{}, fmt.Errorf("the app manifest's display_information.name has %d characters; Slack allows 1 to 35", n)
	case file.Features.Bot == nil && len(m.BotScopes) > 0:
		return Manifest{}, fmt.Errorf("the app manifest has bot scopes, but no features.bot_user")
	case len(m.Commands) > 50:
		return Manifest{}, fmt.Errorf("the app manifest has %d slash commands; Slack allows 50", len(m.Commands))
	case len(m.Commands) > 0 && !slices.Contains(m.BotScopes, "commands"):
		return Manifest{}, fmt.Errorf("the app manifest has slash commands, but not the scope commands")
	}
	if file.Features.Bot != nil {
		m.BotName = file.Features.Bot.Name
	}
	seen := map[string]bool{}
	for _, c := range m.Commands {
		switch n := utf8.RuneCountInString(c.Command); {
		case !strings.HasPrefix(c.Command, "/") || n < 2 || n > 32 || strings.ContainsAny(c.Command, " \t\n"):
			return Manifest{}, fmt.Errorf("the slash command %q must be one word of 2 to 32 characters that begins with a slash", c.Command)
		case c.Description == "" || utf8.RuneCountInString(c.Description) > 2000:
			return Manifest{}, fmt.Errorf("the slash command %s needs a description of at most 2000 characters", c.Command)
		case utf8.RuneCountInString(c.UsageHint) > 1000:
			return Manifest{}, fmt.Errorf("the usage hint of %s is longer than 1000 characters", c.Command)
		case seen[c.Command]:
			return Manifest{}, fmt.Errorf("the app manifest has the slash command %s twice", c.Command)
		}
		seen[c.Command] = true
	}
	return m, nil
}
