package bot

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/slack-go/slack"

	"countersign/approvals"
	"countersign/commands"
)

// people finds the Entra account behind a Slack account. A Slack id alone is
// nobody: a workspace administrator can rename accounts, and e-mail addresses
// change.
type people struct {
	api     *slack.Client
	options Options
}

// misledPair refuses a Slack account that points at an Entra account which it
// may not speak for: somebody changed an e-mail address, and only the security
// people can judge why.
type misledPair struct {
	*approvals.Refusal
	Reason string // for the security people
}

func (m *misledPair) Unwrap() error { return m.Refusal }

// stranger is the refusal for people of other workspaces.
var stranger = approvals.Refuse(approvals.CodeOutsider, "You are from another workspace. Only people of this one use Countersign.")

// actor is the person behind a Slack account that wants to do something. Even
// beside an error the person says who
// it was, as far as that is known.
func (p *people) actor(ctx context.Context, slackID string) (approvals.Person, error) {
	user, err := p.user(ctx, slackID)
	if err != nil {
		return approvals.Person{Slack: slackID}, unchecked(err, "Slack did not tell who you are, and what cannot be checked is refused. Try again in a minute.")
	}
	if no := outsider(user, p.options.Team); no != nil {
		return known(user), no
	}
	return p.account(ctx, user, true)
}

// target is the person behind a mention. Targets may be guests or have a
// deactivated Slack account.
func (p *people) target(ctx context.Context, slackID string) (approvals.Person, error) {
	user, err := p.user(ctx, slackID)
	if err != nil {
		return approvals.Person{Slack: slackID}, unchecked(err, "Slack did not tell whom you mentioned. Try again in a minute, or type the user principal name.")
	}
	if user.IsBot || user.ID == "USLACKBOT" {
		return approvals.Person{Slack: slackID}, approvals.Refuse(approvals.CodeNobody, "That is a bot, not a person.")
	}
	return p.account(ctx, user, false)
}

// known is what Slack says of somebody who is nobody in Entra yet.
func known(u slack.User) approvals.Person {
	return approvals.Person{Slack: u.ID, Name: commands.Plain(u.RealName, 80)}
}

// user asks Slack about an account, every time: nothing is remembered that
// somebody could have changed since.
func (p *people) user(ctx context.Context, id string) (slack.User, error) {
	var user slack.User
	err := approvals.Patiently(ctx, p.options.Desk.Store.Timing().LookUps, func(ctx context.Context) error {
		found, err := p.api.GetUserInfoContext(ctx, id)
		switch {
		case errIs(err, "user_not_found", "user_not_visible"):
			return approvals.Refuse(approvals.CodeNobody, "Slack does not know that person.")
		case err == nil:
			user = *found
		}
		return err
	})
	return user, err
}

// outsider refuses Slack accounts that are nobody's own, or not ours.
func outsider(u slack.User, team string) *approvals.Refusal {
	switch {
	case u.Deleted:
		return approvals.Refuse(approvals.CodeOutsider, "This Slack account is deactivated, so it cannot use Countersign.")
	case u.IsBot || u.IsAppUser || u.ID == "USLACKBOT":
		return approvals.Refuse(approvals.CodeOutsider, "Bots and apps cannot use Countersign.")
	case u.IsStranger || u.TeamID != team:
		return stranger
	case u.IsRestricted || u.IsUltraRestricted:
		return approvals.Refuse(approvals.CodeGuest, "You are a guest in this workspace. Guests neither request nor decide.")
	case u.IsInvitedUser:
		return approvals.Refuse(approvals.CodeOutsider, "Your Slack account is not set up yet: accept the invitation first.")
	}
	return nil
}

// account finds the Entra account: by the table of the configuration, or by
// confirmed e-mail where that is switched on, and then pinned. self says that
// it is the person themselves who will read what is wrong.
func (p *people) account(ctx context.Context, u slack.User, self bool) (approvals.Person, error) {
	whose, instead := "your Slack account", ""
	if !self {
		whose, instead = "the Slack account that you mentioned", " You can type the user principal name instead of mentioning them."
	}
	nobody := func(format string, a ...any) (approvals.Person, error) {
		return known(u), approvals.Refuse(approvals.CodeNobody, format+instead, a...)
	}
	ref, listed := p.options.People[u.ID]
	switch {
	case listed:
	case !p.options.MatchEmail:
		return nobody("Countersign does not know which Entra account belongs to %s. An administrator lists it under people.table.", whose)
	case u.Profile.Email == "" || !u.IsEmailConfirmed:
		return nobody("Slack shows no confirmed e-mail address of %s, so Countersign cannot tell which Entra account belongs to it. An administrator lists it under people.table.", whose)
	default:
		ref = u.Profile.Email
	}
	var person approvals.Person
	err := approvals.Patiently(ctx, p.options.Desk.Store.Timing().LookUps, func(ctx context.Context) (err error) {
		person, err = p.options.Desk.Directory.Person(ctx, ref)
		return err
	})
	if errors.Is(err, approvals.ErrNoPerson) {
		return nobody("No single Entra account belongs to %s, and Countersign does not guess. An administrator lists it under people.table.", whose)
	}
	if err != nil {
		return known(u), unchecked(err, "Microsoft Entra did not tell which account belongs to %s, and what cannot be checked is refused: %s", whose, sentence(err))
	}
	person.Slack = u.ID
	if listed {
		return person, nil
	}
	misled := func(reason, format string, a ...any) (approvals.Person, error) {
		return known(u), &misledPair{approvals.Refuse(approvals.CodeNobody, format+instead, a...), reason}
	}
	for other, object := range p.options.People {
		if strings.EqualFold(object, person.ID) {
			return misled(fmt.Sprintf("Slack account %s now has the e-mail address of %s, whom people.table gives to Slack account %s. What it did was refused.", u.ID, person, other),
				"The e-mail address of %s is that of somebody who has another Slack account by people.table, so Countersign does not trust it. The security people have been told.", whose)
		}
	}
	same, err := p.options.Desk.Store.Pin(ctx, u.ID, person.ID)
	if err != nil {
		return person, err
	}
	if !same {
		return misled(fmt.Sprintf("Slack account %s now has the e-mail address of %s, but it, or that Entra account, was seen with another one before. What it did was refused.", u.ID, person),
			"The e-mail address of %s now leads to another Entra account than the one it was first seen with, so Countersign does not trust it. The security people have been told.", whose)
	}
	return person, nil
}

// unchecked keeps a refusal as it is and turns every other error into one.
func unchecked(err error, format string, a ...any) error {
	no := (*approvals.Refusal)(nil)
	if errors.As(err, &no) {
		return err
	}
	return approvals.Refuse(approvals.CodeUnchecked, format, a...)
}
