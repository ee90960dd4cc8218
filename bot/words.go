package bot

import (
	"errors"
	"fmt"
	"strings"

	"countersign/approvals"
	"countersign/commands"
)

// sentence turns any error into words for the person whose deed met it.
func sentence(err error) string {
	no := (*approvals.Refusal)(nil)
	switch {
	case err == nil:
		return ""
	case errors.As(err, &no):
		return no.Sentence
	case errors.Is(err, approvals.ErrNoRequest):
		return "There is no such request. It may be older than 90 days."
	case errors.Is(err, approvals.ErrRewound):
		return "Countersign has stopped: its store has lost writes. An administrator has to look before anything is done again."
	case errors.Is(err, approvals.ErrConflict):
		return "Too many people pressed at once. Please press again."
	}
	return commands.Explain(err)
}

// notFound says that nobody, or no single person, is meant.
func notFound(ref commands.Ref) *approvals.Refusal {
	return approvals.Refuse(approvals.CodeMissing,
		"Nobody in the tenant is called %s. Mention the person, or type the user principal name, the e-mail address or the object id.", fmt.Sprintf("“%s”", commands.Plain(ref.Typed, 100)))
}

// capital begins a sentence.
func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
