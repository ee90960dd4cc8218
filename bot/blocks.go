package bot

import (
	"fmt"
	"strings"
	"time"

	"github.com/slack-go/slack"
	"github.com/slack-go/slack/slackutilsx"

	"countersign/approvals"
	"countersign/commands"
)

// Slack's limits on what this package makes, in characters.
// https://docs.slack.dev/reference/block-kit/blocks
const (
	maxHeader  = 150
	maxConfirm = 300
	maxText    = 2900
)

// line is one paragraph of rich text. Everything in it is literal: nothing
// somebody typed can become a mention, a link or formatting.
type line []slack.RichTextSectionElement

func say(format string, a ...any) line { return line{}.say(format, a...) }

func (l line) say(format string, a ...any) line {
	return append(l, slack.NewRichTextSectionTextElement(spaced(fmt.Sprintf(format, a...)), nil))
}

func (l line) bold(text string) line {
	return append(l, slack.NewRichTextSectionTextElement(spaced(text), &slack.RichTextSectionTextStyle{Bold: true}))
}

// spaced makes text plain and keeps the space at its ends that parts it from
// its neighbours.
func spaced(text string) string {
	clean := commands.Plain(text, maxText)
	if strings.HasPrefix(text, " ") {
		clean = " " + clean
	}
	if strings.HasSuffix(text, " ") && strings.TrimSpace(clean) != "" {
		clean += " "
	}
	return clean
}

func (l line) code(text string) line {
	return append(l, slack.NewRichTextSectionTextElement(commands.Plain(text, maxText), &slack.RichTextSectionTextStyle{Code: true}))
}

func (l line) gap(text string) line { // line breaks of our own, which Plain would fold
	return append(l, slack.NewRichTextSectionTextElement(text, nil))
}

// who shows a person as Slack mention, where there is one, and as UPN.
func (l line) who(p approvals.Person) line {
	if p.Slack != "" {
		l = append(l, slack.NewRichTextSectionUserElement(p.Slack, nil)).gap(" ")
		if p.UPN != "" {
			return l.say("(%s)", p.UPN)
		}
		return l
	}
	return l.say("%s", p)
}

// when shows an instant in the reader's own time zone.
func (l line) when(t time.Time) line {
	fallback := t.UTC().Format("2006-01-02 15:04 UTC")
	return append(l, slack.NewRichTextSectionDateElement(t.Unix(), "{date_short_pretty} {time}", nil, &fallback))
}

// paragraphs puts lines below each other in one block.
func paragraphs(lines ...line) slack.Block {
	var all line
	for i, l := range lines {
		if i > 0 {
			all = all.gap("\n")
		}
		all = append(all, l...)
	}
	return slack.NewRichTextBlock("", slack.NewRichTextSection(all...))
}

// list is a numbered or bulleted list of lines below a heading.
func list(heading string, style slack.RichTextListElementType, items []line) slack.Block {
	sections := make([]slack.RichTextElement, len(items))
	for i, item := range items {
		sections[i] = slack.NewRichTextSection(item...)
	}
	return slack.NewRichTextBlock("",
		slack.NewRichTextSection(line{}.bold(heading)...),
		slack.NewRichTextList(style, 0, sections...))
}

func plain(text string, max int) *slack.TextBlockObject {
	return slack.NewTextBlockObject(slack.PlainTextType, commands.Plain(text, max), false, false)
}

func header(text string) slack.Block { return slack.NewHeaderBlock(plain(text, maxHeader)) }

func small(format string, a ...any) slack.Block {
	return slack.NewContextBlock("", plain(fmt.Sprintf(format, a...), maxText))
}

func button(action, value, label string, style slack.Style) *slack.ButtonBlockElement {
	b := slack.NewButtonBlockElement(action, value, plain(label, 70))
	b.Style = style
	return b
}

// fallback is the top-level text of a message: what notifications and screen
// readers get. It is mrkdwn, so it is escaped.
func fallback(format string, a ...any) string {
	return slackutilsx.EscapeMessage(commands.Plain(fmt.Sprintf(format, a...), maxText))
}
