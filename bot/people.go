package bot

import (
	"cmp"
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
//
// On Enterprise Grid the bot is installed in one workspace and takes the people
// whose home that is, whether their ids begin with U or W.
type people struct {
	api     *slack.Client
	options Options
}

// changedPair refuses a Slack account that points at an Entra account which it
// may not use: somebody changed an e-mail address, and only the security team
// can judge why.
type changedPair struct {
	*approvals.Refusal
	Reason string // for the security people
}

func (m *changedPair) Unwrap() error { return m.Refusal }

// errOtherWorkspace is the refusal for people of other workspaces.
var errOtherWorkspace = approvals.Refuse(approvals.CodeNotMember, "You are from another workspace. Only people of this one use Countersign.")

// actor returns the person who did something. It refuses interactions from a
// channel that people outside can read. Beside an error the person says who it
// was, as far as that is known.
func (b *Bot) actor(ctx context.Context, d interaction) (approvals.Person, error) {
	who, err := b.people.actor(ctx, d.User)
	if err == nil {
		err = b.inside(ctx, d.Channel)
	}
	return who, err
}

// inside refuses a channel that Slack shows as shared with people outside.
// Nobody else reads a direct message. Slack says nothing about a private channel
// without the bot, but nothing of ours is posted there.
func (b *Bot) inside(ctx context.Context, channel string) error {
	if channel == "" || strings.HasPrefix(channel, "D") {
		return nil
	}
	err := approvals.RetryLookUp(ctx, b.Service.Store.Timing().LookUps, func(ctx context.Context) error {
		shared, err := b.guard.shared(ctx, channel, channelMaxAge)
		switch {
		case errIs(err, "missing_scope", "method_not_supported_for_channel_type"):
			return approvals.Refuse(approvals.CodeChannel, "Countersign may not see what kind of channel this is. Do it in a direct message with Countersign.")
		case shared:
			return approvals.Refuse(approvals.CodeChannel, "This channel is shared with people outside, so nothing is done from here. Do it in another channel, or in a direct message with Countersign.")
		}
		return err
	})
	if err != nil {
		return unchecked(err, "Slack did not say whether this channel is shared with people outside, and what cannot be checked is refused. Try again in a minute.")
	}
	return nil
}

// Active returns nil if a Slack account belongs to a full member of our
// workspace, a *approvals.Refusal if it does not, and any other error if Slack
// did not answer.
func (b *Bot) Active(ctx context.Context, slackID string) error {
	user, err := b.people.user(ctx, slackID)
	if err != nil {
		return err
	}
	if no := outsider(user, b.Team); no != nil {
		return no
	}
	return nil
}

// actor finds the person behind a Slack account that wants to do something.
func (p *people) actor(ctx context.Context, slackID string) (approvals.Person, error) {
	user, err := p.user(ctx, slackID)
	if err != nil {
		return approvals.Person{Slack: slackID}, unchecked(err, "Slack did not say who you are, and what cannot be checked is refused. Try again in a minute.")
	}
	if no := outsider(user, p.options.Team); no != nil {
		return personOf(user), no
	}
	return p.account(ctx, user, true)
}

// target finds the person behind a mention. A target may be a guest or have a
// deactivated Slack account.
func (p *people) target(ctx context.Context, slackID string) (approvals.Person, error) {
	user, err := p.user(ctx, slackID)
	if err != nil {
		return approvals.Person{Slack: slackID}, unchecked(err, "Slack did not say who you mentioned. Try again in a minute, or type the user principal name.")
	}
	if user.IsBot || user.IsAppUser || user.IsWorkflowBot || user.IsConnectorBot || user.ID == "USLACKBOT" {
		return approvals.Person{Slack: slackID}, approvals.Refuse(approvals.CodeUnknownPerson, "That is a bot, not a person.")
	}
	if user.IsStranger || user.TeamID != p.options.Team { // what another workspace says of an e-mail address is not believed
		return personOf(user), approvals.Refuse(approvals.CodeUnknownPerson, "The Slack account that you mentioned is from another workspace. Type the user principal name instead of mentioning it.")
	}
	return p.account(ctx, user, false)
}

// personOf is a person of whom only the Slack account is known.
func personOf(u slack.User) approvals.Person {
	return approvals.Person{Slack: u.ID, Name: commands.Plain(cmp.Or(u.RealName, u.Profile.RealName), 80)}
}

// user asks Slack about an account every time, because somebody could have
// changed it since the last time.
func (p *people) user(ctx context.Context, id string) (slack.User, error) {
	var user slack.User
	err := approvals.RetryLookUp(ctx, p.options.Service.Store.Timing().LookUps, func(ctx context.Context) error {
		found, err := p.api.GetUserInfoContext(ctx, id)
		switch {
		case errIs(err, "user_not_found", "user_not_visible"):
			return approvals.Refuse(approvals.CodeUnknownPerson, "Slack does not know that person.")
		case err == nil && found.ID != id:
			return approvals.Refuse(approvals.CodeUnchecked, "Slack answered about another account, and what cannot be checked is refused.")
		case err == nil:
			user = *found
		}
		return err
	})
	return user, err
}

// outsider refuses Slack accounts of bots, of guests and of other workspaces.
func outsider(u slack.User, team string) *approvals.Refusal {
	switch {
	case u.Deleted:
		return approvals.Refuse(approvals.CodeNotMember, "This Slack account is deactivated, so it cannot use Countersign.")
	case u.IsBot || u.IsAppUser || u.IsWorkflowBot || u.IsConnectorBot || u.ID == "USLACKBOT":
		return approvals.Refuse(approvals.CodeNotMember, "Bots and apps cannot use Countersign.")
	case u.IsStranger || u.TeamID != team:
		return errOtherWorkspace
	case u.IsRestricted || u.IsUltraRestricted:
		return approvals.Refuse(approvals.CodeGuest, "You are a guest in this workspace. Guests neither request nor decide.")
	case u.IsInvitedUser:
		return approvals.Refuse(approvals.CodeNotMember, "Your Slack account is not set up yet: accept the invitation first.")
	}
	return nil
}

// account finds the Entra account: with the table of the configuration, or by
// confirmed e-mail if that is switched on, and then pinned. self says that the
// person themselves will read the error.
func (p *people) account(ctx context.Context, u slack.User, self bool) (approvals.Person, error) {
	whose, instead := "your Slack account", ""
	if !self {
		whose, instead = "the Slack account that you mentioned", " You can type the user principal name instead of mentioning them."
	}
	nobody := func(format string, a ...any) (approvals.Person, error) {
		return personOf(u), approvals.Refuse(approvals.CodeUnknownPerson, format+instead, a...)
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
	err := approvals.RetryLookUp(ctx, p.options.Service.Store.Timing().LookUps, func(ctx context.Context) (err error) {
		person, err = p.options.Service.Directory.Person(ctx, ref)
		return err
	})
	if errors.Is(err, approvals.ErrNoPerson) {
		return nobody("No single Entra account belongs to %s, and Countersign does not guess. An administrator lists it under people.table.", whose)
	}
	if err != nil {
		return personOf(u), unchecked(err, "Microsoft Entra did not say which account belongs to %s, and what cannot be checked is refused: %s", whose, errorSentence(err))
	}
	person.Slack = u.ID
	if listed {
		return person, nil
	}
	misled := func(reason, format string, a ...any) (approvals.Person, error) {
		return personOf(u), &changedPair{approvals.Refuse(approvals.CodeUnknownPerson, format+instead, a...), reason}
	}
	for other, object := range p.options.People {
		if strings.EqualFold(object, person.ID) {
			return misled(fmt.Sprintf("Slack account %s now has the e-mail address of %s, whom people.table gives to Slack account %s. What it did was refused.", u.ID, person, other),
				"The e-mail address of %s is that of somebody who has another Slack account by people.table, so Countersign does not trust it. The security people have been told.", whose)
		}
	}
	same, err := p.options.Service.Store.Pin(ctx, u.ID, person.ID)
	if err != nil {
		return person, err
	}
	if !same {
		return misled(fmt.Sprintf("Slack account %s now has the e-mail address of %s, but it, or that Entra account, was seen with another one before. What it did was refused.", u.ID, person),
			"The e-mail address of %s now leads to another Entra account than the one it was first seen with, so Countersign does not trust it. The security people have been told.", whose)
	}
	return person, nil
}

// unchecked returns a refusal unchanged and turns every other error into one.
func unchecked(err error, format string, a ...any) error {
	no := (*approvals.Refusal)(nil)
	if errors.As(err, &no) {
		return err
	}
	return approvals.Refuse(approvals.CodeUnchecked, format, a...)
}
