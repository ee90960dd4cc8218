package bot

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/slack-go/slack"

	"countersign/approvals"
	"countersign/commands"
)

// userGroups tells who is in which Slack user group. It implements
// approvals.UserGroups.
type userGroups struct {
	*people
	mu    sync.Mutex
	at    time.Time
	known map[string]slack.UserGroup
}

// groupMaxAge is how old an answer about user groups may be. Slack allows about
// twenty calls a minute, and one interaction needs several answers.
const groupMaxAge = 2 * time.Second

// all are the workspace's user groups by id, with who is in them. Slack lists
// those that are disabled only to who asks for them, and this does not: they
// keep their members, but are nobody.
//
// It is one call for all of them (usergroups.list), because the call for the
// members of a single one does not tell whether it is disabled.
func (g *userGroups) all(ctx context.Context) (map[string]slack.UserGroup, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.known != nil && time.Since(g.at) < groupMaxAge {
		return g.known, nil
	}
	asked := time.Now()
	list, err := g.api.GetUserGroupsContext(ctx, slack.GetUserGroupsOptionIncludeUsers(true))
	if err != nil {
		return nil, &groupsUnknown{err}
	}
	g.at, g.known = asked, map[string]slack.UserGroup{}
	for _, group := range list {
		if group.DateDelete == 0 && !group.IsExternal {
			g.known[group.ID] = group
		}
	}
	return g.known, nil
}

// In tells which of the groups a person is in. It uses every Slack account that
// certainly belongs to the person, and does not guess. A person who was never
// seen is found by e-mail and not pinned, so that groups also count for people
// whose name was typed.
func (g *userGroups) In(ctx context.Context, who approvals.Person, groups []string) ([]string, error) {
	all, err := g.all(ctx)
	if err != nil {
		return nil, err
	}
	accounts, err := g.accounts(ctx, who.ID)
	if err != nil {
		return nil, err
	}
	if who.Slack != "" {
		accounts = append(accounts, who.Slack)
	}
	// Whom the table lists is nobody who was never seen.
	open := slices.ContainsFunc(groups, func(id string) bool {
		return slices.ContainsFunc(all[id].Users, func(member string) bool { _, listed := g.options.People[member]; return !listed })
	})
	if len(accounts) == 0 && g.options.MatchEmail && open {
		if accounts, err = g.unpinnedAccounts(ctx, who.ID); err != nil {
			return nil, err
		}
	}
	var in []string
	for _, id := range groups {
		if slices.ContainsFunc(all[id].Users, func(member string) bool { return slices.Contains(accounts, member) }) {
			in = append(in, id)
		}
	}
	return in, nil
}

// accounts are the Slack accounts of an Entra account: those in the table of the
// configuration, and the pinned one.
func (p *people) accounts(ctx context.Context, objectID string) ([]string, error) {
	var ids []string
	for id, object := range p.options.People {
		if strings.EqualFold(object, objectID) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	if len(ids) > 0 || !p.options.MatchEmail {
		return ids, nil // the table wins over a pin of earlier days
	}
	pinned, err := p.options.Service.Store.Pinned(ctx, objectID)
	if err != nil || pinned == "" {
		return nil, err
	}
	if _, listed := p.options.People[pinned]; listed {
		return nil, nil // it is somebody else's now
	}
	return []string{pinned}, nil
}

// unpinnedAccounts are the Slack accounts that would be taken for an Entra
// account if they did something now: those with any address by which actor would
// find it.
func (p *people) unpinnedAccounts(ctx context.Context, objectID string) ([]string, error) {
	who, err := p.options.Tenant.Contact(ctx, objectID)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, address := range who.Addresses {
		id, err := p.byEmail(ctx, address)
		if err != nil {
			return nil, err
		}
		if id != "" {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// check says which Slack user groups of the policy do not exist.
func (g *userGroups) check(ctx context.Context, policy approvals.Policy) error {
	var wrong []error
	for _, name := range slices.Sorted(maps.Keys(policy.Groups)) {
		for _, id := range policy.Groups[name].Slack {
			all, err := g.all(ctx)
			if err != nil {
				return fmt.Errorf("policy.groups.%s names Slack user groups: %w", name, err)
			}
			if _, there := all[id]; !there {
				wrong = append(wrong, fmt.Errorf("policy.groups.%s: this workspace has no user group %s, or it is disabled. "+
					"Its id stands in the address of the group's page in Slack", name, id))
			}
		}
	}
	return errors.Join(wrong...)
}

// groupsUnknown means that Slack did not answer about user groups.
type groupsUnknown struct{ error }

func (g *groupsUnknown) Unwrap() error { return g.error }

func (g *groupsUnknown) Error() string {
	switch {
	case errIs(g.error, "missing_scope"):
		return "the app lacks the scope usergroups:read; install it again from the manifest"
	case errIs(g.error, "plan_upgrade_required"):
		return "this workspace's plan has no user groups"
	}
	return "asking Slack about user groups: " + g.error.Error()
}

// Sentence is for the person who waits for the answer.
func (g *groupsUnknown) Sentence() string {
	if g.Permanent() {
		return capitalize(g.Error()) + ". An administrator has to look."
	}
	return "Slack does not answer. Try again in a minute."
}

// Permanent says that asking again does not help.
func (g *groupsUnknown) Permanent() bool {
	return errIs(g.error, "missing_scope", "plan_upgrade_required", "not_allowed_token_type", "invalid_auth", "account_inactive", "token_revoked")
}

// audience is everybody who could have approved a request.
type audience struct {
	accounts []string // in Slack, to write to
	unknown  int      // people whose Slack account is not known, or not fit
	tooMany  bool     // too many for a message to each of them
}

// maxNotified is how many people get a direct message of their own. Slack takes
// about one a second.
const maxNotified = 100

// approversOf finds everybody who could have approved a request, except some
// people. A policy group may consist of Entra groups, Slack user groups or
// single people.
func (b *Bot) approversOf(ctx context.Context, r approvals.Request, except ...approvals.Person) (audience, error) {
	var a audience
	people, accounts := map[string]commands.Contact{}, map[string]bool{} // by object id and by Slack id
	for _, name := range b.Service.Policy.Approvers(r.Plan.Command, r.Plan.Class, r.Requester.ID == r.Plan.Target.ID) {
		group := b.Service.Policy.Groups[name]
		for _, id := range group.Entra {
			members, err := b.Tenant.Members(ctx, id)
			if err != nil {
				return a, err
			}
			for _, m := range members {
				people[m.Person.ID] = m
			}
		}
		for _, id := range group.People {
			one, err := b.Tenant.Contact(ctx, id)
			if errors.Is(err, approvals.ErrNoPerson) {
				continue
			}
			if err != nil {
				return a, err
			}
			people[one.Person.ID] = one
		}
		if len(group.Slack) == 0 {
			continue
		}
		all, err := b.groups.all(ctx)
		if err != nil {
			return a, err
		}
		for _, id := range group.Slack {
			for _, member := range all[id].Users {
				accounts[member] = true
			}
		}
	}
	if a.tooMany = len(people)+len(accounts) > maxNotified; a.tooMany {
		return a, nil
	}
	for _, id := range slices.Sorted(maps.Keys(people)) {
		one := people[id]
		if one.Guest || !one.Enabled || slices.ContainsFunc(except, func(p approvals.Person) bool { return p.ID == id }) {
			continue // who could not have approved, or knows
		}
		account, err := b.people.reach(ctx, one)
		switch {
		case err != nil:
			return a, err
		case account == "":
			a.unknown++
		default:
			accounts[account] = true
		}
	}
	for _, p := range except { // who may be in a Slack user group under an account that only their mail tells
		one, err := b.Tenant.Contact(ctx, p.ID)
		if err != nil && !errors.Is(err, approvals.ErrNoPerson) {
			return a, err
		}
		one.Person.ID = p.ID
		account, err := b.people.reach(ctx, one)
		if err != nil {
			return a, err
		}
		delete(accounts, account)
		delete(accounts, p.Slack)
	}
	for _, account := range slices.Sorted(maps.Keys(accounts)) {
		user, err := b.api.GetUserInfoContext(ctx, account)
		switch {
		case errIs(err, "user_not_found", "user_not_visible"), err == nil && outsider(*user, b.Team) != nil:
			a.unknown++
		case err != nil:
			return a, err
		default:
			a.accounts = append(a.accounts, account)
		}
	}
	return a, nil
}

// reach finds the Slack account for a message to somebody. It is empty if no
// active account certainly belongs to them.
func (p *people) reach(ctx context.Context, who commands.Contact) (string, error) {
	accounts, err := p.accounts(ctx, who.Person.ID)
	if err != nil {
		return "", err
	}
	if len(accounts) > 0 {
		return accounts[0], nil
	}
	if !p.options.MatchEmail || who.Mail == "" {
		return "", nil
	}
	return p.byEmail(ctx, who.Mail)
}

// byEmail finds the Slack account that has an address and may use Countersign;
// empty when there is none.
func (p *people) byEmail(ctx context.Context, address string) (string, error) {
	user, err := p.api.GetUserByEmailContext(ctx, address)
	switch {
	case errIs(err, "users_not_found", "user_not_found", "user_not_visible"):
		return "", nil
	case err != nil:
		return "", err
	case outsider(*user, p.options.Team) != nil, !user.IsEmailConfirmed, !strings.EqualFold(user.Profile.Email, address):
		return "", nil
	}
	if _, listed := p.options.People[user.ID]; listed {
		return "", nil // by the table it is somebody else's
	}
	return user.ID, nil
}
