package bot

import (
	"errors"
	"regexp"
	"strings"

	"countersign/approvals"
	"countersign/commands"
)

// errorSentence turns any error into words for the person whose interaction met it.
func errorSentence(err error) string {
	no := (*approvals.Refusal)(nil)
	switch {
	case err == nil:
		return ""
	case errors.As(err, &no):
		return no.Sentence
	case errors.Is(err, approvals.ErrNoRequest):
		return "Countersign does not know that request any more: it is older than 90 days, or Redis lost it. The audit channel has its record. Ask again if it is still needed."
	case errors.Is(err, approvals.ErrLostWrites):
		return "Countersign has stopped, because its Redis has lost confirmed writes. What you just did was not recorded. Try again after an administrator has resumed Countersign. " + urgent
	case errors.Is(err, approvals.ErrNoKey):
		return "This Countersign does not have the key with which that is sealed; another one may. Try again in a minute. If it stays so, an administrator has to look at the log."
	case errors.Is(err, approvals.ErrConflict):
		return "Too many people pressed at once. Please press again."
	}
	var look interface{ Permanent() bool } // of a look-up in Entra
	if !errors.As(err, &look) && !errors.Is(err, approvals.ErrNoPerson) {
		return "Countersign could not look that up: its store does not answer. Try again in a minute."
	}
	return commands.Explain(err)
}

// notFound says that nobody, or no single person, is meant.
func notFound(ref commands.Ref) *approvals.Refusal {
	return approvals.Refuse(approvals.CodeMissing,
		"Nobody in the tenant is called “%s”. Mention the person, or type the user principal name, the e-mail address or the object id.", commands.Plain(ref.Typed, 100))
}

var markup = regexp.MustCompile(`<([^<>|]*)(?:\|([^<>]*))?>`)

// withoutMarkup is the text of a command as the person saw it, without what Slack
// made of mentions and links.
func withoutMarkup(text string) string {
	text = markup.ReplaceAllStringFunc(text, func(found string) string {
		parts := markup.FindStringSubmatch(found)
		link, label := parts[1], parts[2]
		switch {
		case label == "":
			return strings.TrimPrefix(link, "mailto:")
		case strings.HasPrefix(link, "@"), strings.HasPrefix(link, "#"):
			return link[:1] + strings.TrimLeft(label, "@#")
		}
		return label
	})
	return strings.NewReplacer("&lt;", "<", "&gt;", ">", "&amp;", "&").Replace(text)
}

// missingFields says what a request was to come with and did not.
func missingFields(fields []commands.Field) string {
	var all []string
	for _, f := range fields {
		switch f {
		case commands.FieldVerified:
			all = append(all, "Say how you made sure who was asking, in a way that counts here, as in verified=callback.")
		case commands.FieldTicket:
			all = append(all, "Name a ticket, as in ticket=INC-7.")
		case commands.FieldJustification:
			all = append(all, "Say in a few words why.")
		default:
			all = append(all, "Say also: "+string(f)+".")
		}
	}
	return strings.Join(all, " ")
}

// refuseMissingRequest turns a missing request into a refusal for the one who pressed.
func refuseMissingRequest(err error) error {
	if errors.Is(err, approvals.ErrNoRequest) {
		return approvals.Refuse(approvals.CodeNoRequest, "That request is not there any more. Type the command again.")
	}
	return err
}

// capitalize begins a sentence.
func capitalize(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
