package bot

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

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
	maxValue   = 2000 // of a button
	maxText    = 2900
	maxBlocks  = 50     // in one message
	maxMessage = 10_000 // of the blocks of one message as JSON; Slack refuses about 13,000 and does not document it (slackapi/bolt-js#2509)
)

// sizeOf is how long blocks are for Slack.
func sizeOf(blocks []slack.Block) int {
	raw, err := json.Marshal(blocks)
	if err != nil { // they are made here, of text
		panic(err)
	}
	return utf8.RuneCount(raw)
}

// pages parts blocks into messages that Slack takes. Nothing is left out.
func pages(blocks []slack.Block) [][]slack.Block {
	var all [][]slack.Block
	var page []slack.Block
	for _, b := range blocks {
		if len(page) > 0 && (len(page) == maxBlocks || sizeOf(append(page[:len(page):len(page)], b)) > maxMessage) {
			all, page = append(all, page), nil
		}
		page = append(page, b)
	}
	return append(all, page)
}

// line is one paragraph of rich text. Everything in it is literal: nothing
// somebody typed can become a mention, a link or formatting.
type line []slack.RichTextSectionElement

func textLine(format string, a ...any) line { return line{}.text(format, a...) }

func (l line) text(format string, a ...any) line {
	return append(l, slack.NewRichTextSectionTextElement(plainKeepingSpace(fmt.Sprintf(format, a...)), nil))
}

func (l line) bold(text string) line {
	return append(l, slack.NewRichTextSectionTextElement(plainKeepingSpace(text), &slack.RichTextSectionTextStyle{Bold: true}))
}

// plainKeepingSpace makes text plain and keeps the space at its ends that parts it from
// its neighbours.
func plainKeepingSpace(text string) string {
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

func (l line) raw(text string) line { // line breaks of our own, which Plain would fold
	return append(l, slack.NewRichTextSectionTextElement(text, nil))
}

// link leads somewhere in Slack.
func (l line) link(address, text string) line {
	return append(l, slack.NewRichTextSectionLinkElement(address, commands.Plain(text, maxText), nil))
}

// group mentions everybody in a Slack user group.
func (l line) group(id string) line {
	return append(l, slack.NewRichTextSectionUserGroupElement(id))
}

// everybody mentions all who are in the channel.
func (l line) everybody() line {
	return append(l, slack.NewRichTextSectionBroadcastElement("channel"))
}

// who shows a person as Slack mention, where there is one, and as UPN.
func (l line) who(p approvals.Person) line {
	if p.Slack != "" {
		l = append(l, slack.NewRichTextSectionUserElement(p.Slack, nil)).raw(" ")
		if p.UPN != "" {
			return l.text("(%s)", p.UPN)
		}
		return l
	}
	return l.text("%s", p)
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
			all = all.raw("\n")
		}
		all = append(all, l...)
	}
	return slack.NewRichTextBlock("", slack.NewRichTextSection(all...))
}

// list is a numbered or bulleted list of lines below a heading. A long one
// becomes several blocks, so that it can be parted into messages.
func list(heading string, style slack.RichTextListElementType, items []line) []slack.Block {
	const long = 4000 // as JSON
	var blocks []slack.Block
	for from := 0; from < len(items); {
		part := slack.NewRichTextList(style, 0)
		if style == slack.RTEListOrdered {
			part.Offset = from
		}
		block := slack.NewRichTextBlock("", part)
		if from == 0 {
			block.Elements = []slack.RichTextElement{slack.NewRichTextSection(line{}.bold(heading)...), part}
		}
		for ; from < len(items) && (len(part.Elements) == 0 || sizeOf([]slack.Block{block}) < long); from++ {
			part.Elements = append(part.Elements, slack.NewRichTextSection(items[from]...))
		}
		blocks = append(blocks, block)
	}
	return blocks
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
