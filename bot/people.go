package bot

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/slack-go/slack"

	"countersign/approvals"
)

// people finds the Entra account behind a Slack account. A Slack id alone is
// nobody: a workspace administrator can rename accounts, and e-mail addresses
// change.
type people struct {
	api     *slack.Client
	options Options
	mu      sync.Mutex
	seen    map[string]slackUser
}

type slackUser struct {
	at   time.Time
	user slack.User
}

// errChangedPair means that a Slack account now points at another Entra
// account than the one it was pinned to.
var errChangedPair = approvals.Refuse(approvals.CodeNobody,
	"Your Slack account now points at another Entra account than the one it was first seen with, so Countersign does not trust it. The security people have been told.")

// actor is the person behind a Slack account that wants to do something. The
// Slack account is looked up afresh.
func (p *people) actor(ctx context.Context, slackID string) (approvals.Person, error) {
	user, err := p.user(ctx, slackID, 0)
	if err != nil {
		return approvals.Person{Slack: slackID}, err
	}
	if no := outsider(user, p.options.Team); no != nil {
		return approvals.Person{Slack: slackID, Name: user.RealName}, no
	}
	return p.account(ctx, user)
}

// target is the person behind a mention. Targets may be guests or have a
// deactivated Slack account.
func (p *people) target(ctx context.Context, slackID string) (approvals.Person, error) {
	user, err := p.user(ctx, slackID, time.Minute)
	if err != nil {
		return approvals.Person{Slack: slackID}, err
	}
	if user.IsBot || user.ID == "USLACKBOT" {
		return approvals.Person{Slack: slackID}, approvals.Refuse(approvals.CodeNobody, "That is a bot, not a person.")
	}
	return p.account(ctx, user)
}

// user asks Slack about an account; an answer may be as old as age.
func (p *people) user(ctx context.Context, id string, age time.Duration) (slack.User, error) {
	p.mu.Lock()
	known, ok := p.seen[id]
	p.mu.Unlock()
	if ok && time.Since(known.at) < age {
		return known.user, nil
	}
	var user *slack.User
	err := patiently(ctx, p.options.Desk.Store.Timing().LookUps, func(ctx context.Context) (err error) {
		user, err = p.api.GetUserInfoContext(ctx, id)
		if errIs(err, "user_not_found", "user_not_visible") {
			return approvals.Refuse(approvals.CodeNobody, "Slack does not know that person.")
		}
		return err
	})
	if err != nil {
		return slack.User{}, unchecked(err, "Slack did not tell who you are, and what cannot be checked is refused. Try again in a minute.")
	}
	p.mu.Lock()
	p.seen[id] = slackUser{time.Now(), *user}
	p.mu.Unlock()
	return *user, nil
}

// outsider refuses Slack accounts that are nobody's own, or not ours.
func outsider(u slack.User, team string) *approvals.Refusal {
	switch {
	case u.Deleted:
		return approvals.Refuse(approvals.CodeOutsider, "This Slack account is deactivated, so it cannot use Countersign.")
	case u.IsBot || u.IsAppUser || u.ID == "USLACKBOT":
		return approvals.Refuse(approvals.CodeOutsider, "Bots and apps cannot use Countersign.")
	case u.IsStranger || u.TeamID != team:
		return approvals.Refuse(approvals.CodeOutsider, "You are from another workspace. Only people of this one use Countersign.")
	case u.IsRestricted || u.IsUltraRestricted:
		return approvals.Refuse(approvals.CodeGuest, "You are a guest in this workspace. Guests neither request nor decide.")
	case u.IsInvitedUser:
		return approvals.Refuse(approvals.CodeOutsider, "Your Slack account is not set up yet: accept the invitation first.")
	}
	return nil
}

// account finds the Entra account: by the table of the configuration, or by
// confirmed e-mail where that is switched on, and then pinned.
func (p *people) account(ctx context.Context, u slack.User) (approvals.Person, error) {
	nobody := approvals.Person{Slack: u.ID, Name: u.RealName}
	ref, listed := p.options.People[u.ID]
	switch {
	case listed:
	case !p.options.MatchEmail:
		return nobody, approvals.Refuse(approvals.CodeNobody, "Countersign does not know which Entra account belongs to this Slack account. An administrator lists it under people.table.")
	case u.Profile.Email == "" || !u.IsEmailConfirmed:
		return nobody, approvals.Refuse(approvals.CodeNobody, "This Slack account has no confirmed e-mail address, so Countersign cannot tell which Entra account it belongs to.")
	default:
		ref = u.Profile.Email
	}
	var person approvals.Person
	err := patiently(ctx, p.options.Desk.Store.Timing().LookUps, func(ctx context.Context) (err error) {
		person, err = p.options.Desk.Directory.Person(ctx, ref)
		if errors.Is(err, approvals.ErrNoPerson) {
			return approvals.Refuse(approvals.CodeNobody, "No single Entra account belongs to this Slack account, and Countersign does not guess. An administrator lists it under people.table.")
		}
		return err
	})
	if err != nil {
		return nobody, unchecked(err, "Microsoft Entra did not tell which account is yours, and what cannot be checked is refused: %s", sentence(err))
	}
	person.Slack = u.ID
	if !listed {
		same, err := p.options.Desk.Store.Pin(ctx, u.ID, person.ID)
		if err != nil {
			return person, err
		}
		if !same {
			return person, errChangedPair
		}
	}
	return person, nil
}

// patiently tries f again, with growing pauses, until it works, refuses, or
// patience runs out.
func patiently(ctx context.Context, patience time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for pause := 200 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := f(ctx)
		no := (*approvals.Refusal)(nil)
		if err == nil || errors.As(err, &no) {
			return err
		}
		var lasting interface{ Permanent() bool }
		if errors.As(err, &lasting) && lasting.Permanent() {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// unchecked keeps a refusal as it is and turns every other error into one.
func unchecked(err error, format string, a ...any) error {
	no := (*approvals.Refusal)(nil)
	if errors.As(err, &no) {
		return no
	}
	return approvals.Refuse(approvals.CodeUnchecked, format, a...)
}
