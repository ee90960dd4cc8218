package entra

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	abstractions "github.com/microsoft/kiota-abstractions-go"
	"github.com/microsoftgraph/msgraph-sdk-go/models"
	"github.com/microsoftgraph/msgraph-sdk-go/users"
)

// User is an account of the tenant. Names, title and department are text from elsewhere. Times are zero where Graph does not tell.
type User struct {
	ID         string // object id: the only name of an account that never changes
	UPN        string
	Name       string
	Mail       string
	Aliases    []string // its e-mail addresses, Mail among them
	Title      string
	Department string
	Enabled    bool // false: sign-in is blocked
	Guest      bool
	Synced     bool // mastered by an on-premises directory
	Restricted bool // in a restricted management administrative unit

	Created            time.Time
	LastPasswordChange time.Time
	SessionsValidFrom  time.Time // sessions that started earlier are revoked
}

// userFields are the properties to select; by default Graph returns neither accountEnabled nor most of the others.
func userFields() []string {
	return []string{"id", "userPrincipalName", "displayName", "mail", "proxyAddresses", "jobTitle", "department", "accountEnabled", "userType",
		"onPremisesSyncEnabled", "isManagementRestricted", "createdDateTime", "lastPasswordChangeDateTime", "signInSessionsValidFromDateTime"}
}

func decodeUser(m models.Userable) (User, error) {
	u := User{
		ID: deref(m.GetId()), UPN: deref(m.GetUserPrincipalName()), Name: deref(m.GetDisplayName()), Mail: deref(m.GetMail()),
		Title: deref(m.GetJobTitle()), Department: deref(m.GetDepartment()),
		Enabled: deref(m.GetAccountEnabled()), Synced: deref(m.GetOnPremisesSyncEnabled()), Restricted: deref(m.GetIsManagementRestricted()),
		Created: deref(m.GetCreatedDateTime()), LastPasswordChange: deref(m.GetLastPasswordChangeDateTime()),
		SessionsValidFrom: deref(m.GetSignInSessionsValidFromDateTime()),
	}
	for _, proxy := range m.GetProxyAddresses() {
		if kind, address, _ := strings.Cut(proxy, ":"); strings.EqualFold(kind, "smtp") {
			u.Aliases = append(u.Aliases, address)
		}
	}
	// Accounts from before there was a userType have none.
	kind := deref(m.GetUserType())
	u.Guest = strings.EqualFold(kind, "Guest") || kind == "" && strings.Contains(u.UPN, "#EXT#")
	if u.ID == "" {
		return User{}, errors.New("an account without an id")
	}
	if m.GetAccountEnabled() == nil {
		// Graph leaves out properties that the app may not read. An account must not seem blocked for that reason.
		return User{}, &Error{Status: http.StatusForbidden, Message: "accountEnabled was left out of the answer", Call: string(CallReadUser), Permission: PermUserRead}
	}
	return u, nil
}

// User reads one account by its object id or its user principal name. ErrNotFound if there is none.
// https://learn.microsoft.com/graph/api/user-get
func (c *Client) User(ctx context.Context, idOrUPN string) (User, error) {
	b, err := c.user(idOrUPN)
	if err != nil {
		return User{}, err
	}
	var u User
	err = c.do(ctx, CallReadUser, func(ctx context.Context) error {
		var m models.Userable
		var err error
		if strings.HasPrefix(idOrUPN, "$") {
			// As a separate segment, a name that begins with $ would be taken for an OData keyword.
			m, err = send[models.Userable](ctx, c, c.request(abstractions.GET, "/v1.0/users('{user}'){?%24select}", map[string]string{
				"user": quote(idOrUPN), "%24select": strings.Join(userFields(), ",")}), models.CreateUserFromDiscriminatorValue)
		} else {
			m, err = b.Get(ctx, &users.UserItemRequestBuilderGetRequestConfiguration{
				QueryParameters: &users.UserItemRequestBuilderGetQueryParameters{Select: userFields()}})
		}
		if err != nil {
			return err
		}
		if m == nil {
			return errEmpty
		}
		u, err = decodeUser(m)
		return err
	})
	return u, err
}

// Find returns every account that ref may mean: an object id, a user principal name, a mail address or a proxy address (an alias).
// If there is no match, it returns an empty slice and no error. If there are several, a person has to choose. Mail and aliases are
// looked up in an index that can lag behind changes by some minutes.
func (c *Client) Find(ctx context.Context, ref string) ([]User, error) {
	ref = strings.TrimSpace(ref)
	isID := isGUID(ref)
	if !isID && !strings.Contains(ref, "@") || len(ref) > 320 || strings.ContainsFunc(ref, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return nil, nil
	}
	var found []User
	add := func(u User) {
		if !slices.ContainsFunc(found, func(o User) bool { return o.ID == u.ID }) {
			found = append(found, u)
		}
	}
	switch u, err := c.User(ctx, ref); {
	case err == nil:
		add(u)
	case !errors.Is(err, ErrNotFound):
		return nil, err
	}
	if isID {
		return found, nil
	}
	// Two queries with one condition each: Graph runs one on the index and the other on the directory itself.
	for _, filter := range []string{
		"mail eq '" + quote(ref) + "'",
		"proxyAddresses/any(p:p eq 'smtp:" + quote(ref) + "')",
	} {
		matches, err := c.filter(ctx, filter)
		if err != nil {
			return nil, err
		}
		for _, u := range matches {
			add(u)
		}
	}
	return found, nil
}

// filter lists the accounts for which an OData condition holds.
// https://learn.microsoft.com/graph/aad-advanced-queries
func (c *Client) filter(ctx context.Context, condition string) ([]User, error) {
	b := users.NewUsersRequestBuilderInternal(map[string]string{}, c.adapter)
	yes := true
	config := &users.UsersRequestBuilderGetRequestConfiguration{
		Headers:         abstractions.NewRequestHeaders(),
		QueryParameters: &users.UsersRequestBuilderGetQueryParameters{Filter: &condition, Select: userFields(), Count: &yes},
	}
	config.Headers.Add("ConsistencyLevel", "eventual")
	var found []User
	err := c.do(ctx, CallFindUser, func(ctx context.Context) error {
		all, err := collect[models.Userable](ctx, func(ctx context.Context, link string) (models.UserCollectionResponseable, error) {
			if link != "" {
				return b.WithUrl(link).Get(ctx, &users.UsersRequestBuilderGetRequestConfiguration{Headers: config.Headers})
			}
			return b.Get(ctx, config)
		})
		if err != nil {
			return err
		}
		for _, m := range all {
			u, err := decodeUser(m)
			if err != nil {
				return err
			}
			found = append(found, u)
		}
		return nil
	})
	return found, err
}

// quote doubles the quotes inside an OData string literal.
func quote(s string) string { return strings.ReplaceAll(s, "'", "''") }

func isGUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, r := range s {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if r != '-' {
				return false
			}
		} else if !strings.ContainsRune("0123456789abcdefABCDEF", r) {
			return false
		}
	}
	return true
}

// Manager reads the manager of an account; ok is false if there is none.
// https://learn.microsoft.com/graph/api/user-list-manager
func (c *Client) Manager(ctx context.Context, id string) (u User, ok bool, err error) {
	b, err := c.user(id)
	if err != nil {
		return User{}, false, err
	}
	err = c.do(ctx, CallReadManager, func(ctx context.Context) error {
		o, err := b.Manager().Get(ctx, &users.ItemManagerRequestBuilderGetRequestConfiguration{
			QueryParameters: &users.ItemManagerRequestBuilderGetQueryParameters{Select: userFields()}})
		if err != nil {
			return err
		}
		m, isUser := o.(models.Userable)
		if !isUser { // a contact may be somebody's manager; it has no account
			return nil
		}
		ok = true
		u, err = decodeUser(m)
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return User{}, false, nil
	}
	return u, ok && err == nil, err
}

// SetEnabled unblocks or blocks the account's sign-in. Sessions stay valid until they are revoked. For a synced account the
// on-premises directory may set it back. https://learn.microsoft.com/graph/api/user-update
func (c *Client) SetEnabled(ctx context.Context, userID string, enabled bool) error {
	b, err := c.user(userID)
	if err != nil {
		return err
	}
	return c.do(ctx, CallSetEnabled, func(ctx context.Context) error {
		change := models.NewUser()
		change.SetAccountEnabled(&enabled)
		ri, err := b.ToPatchRequestInformation(ctx, change, nil)
		if err != nil {
			return err
		}
		return c.adapter.SendNoContent(ctx, ri, odataErrors())
	})
}

// Group is a group of the tenant.
type Group struct {
	ID             string
	Name           string // text from elsewhere
	RoleAssignable bool   // its members can get directory roles through it
}

// Role is a directory role that an account holds or could activate.
type Role struct {
	Name       string
	TemplateID string // the same in every tenant for built-in roles; the definition's own id for custom ones
	Active     bool   // false: eligible, to be activated in Privileged Identity Management
	Via        string // name of the group that gives the role; "" for the account itself
	Scope      string // "/" is the tenant, else for example /administrativeUnits/…
}

// Privilege is what can make an account a protected target.
type Privilege struct {
	Roles               []Role
	Groups              []Group // every group, nested membership included
	OwnedRoleAssignable []Group // role-assignable groups that the account owns: it can make itself a member
	Restricted          bool    // in a restricted management administrative unit
}

// Privilege finds out which directory roles, active and eligible, directly and through role-assignable groups, and which groups an
// account has. The caller must treat any error as "protected".
//
// A tenant without Entra ID P2 has no eligible roles, and Graph answers a query for them with an error. Then err is
// ErrLicense, and the Privilege is complete in everything else: only this one error may be ignored, if Countersign is
// configured for such a tenant. With every other error the Privilege is empty.
//
// Eligibility for membership of a group (PIM for Groups) is not included; it needs another permission. New assignments can take minutes to appear.
// https://learn.microsoft.com/graph/api/rbacapplication-list-transitiveroleassignments (beta)
func (c *Client) Privilege(ctx context.Context, userID string) (Privilege, error) {
	u, err := c.User(ctx, userID)
	if err != nil {
		return Privilege{}, err
	}
	memberships, err := c.memberships(ctx, u.ID)
	if err != nil {
		return Privilege{}, err
	}
	p := Privilege{Groups: memberships.groups, Restricted: u.Restricted}
	owned, err := c.ownedGroups(ctx, u.ID)
	if err != nil {
		return Privilege{}, err
	}
	via := map[string]string{u.ID: ""}
	principals := []string{u.ID}
	for _, g := range p.Groups {
		via[g.ID] = g.Name
		if g.RoleAssignable {
			principals = append(principals, g.ID)
		}
	}
	for _, g := range owned {
		if g.RoleAssignable {
			p.OwnedRoleAssignable = append(p.OwnedRoleAssignable, g)
		}
	}

	assigned, err := c.assignments(ctx, u.ID)
	if err != nil {
		return Privilege{}, err
	}
	var unlicensed error
	for _, id := range principals {
		eligible, err := c.eligibilities(ctx, id)
		if errors.Is(err, ErrLicense) {
			unlicensed = err
			break
		}
		if err != nil {
			return Privilege{}, err
		}
		assigned = append(assigned, eligible...)
	}
	if len(assigned) > 0 {
		names, err := c.roleNames(ctx)
		if err != nil {
			return Privilege{}, err
		}
		for _, a := range assigned {
			r := names[a.definition]
			if r.TemplateID == "" { // a role that was just deleted or created still counts
				r = Role{Name: a.definition, TemplateID: a.definition}
			}
			r.Active, r.Scope = a.active, firstNonEmpty(a.scope, "/")
			group, known := via[a.principal]
			if r.Via = group; !known {
				r.Via = a.principal
			}
			p.Roles = append(p.Roles, r)
		}
	}
	// The memberships come from the directory itself, the assignments from an index that lags. Roles that only the directory has count too.
	for _, r := range memberships.roles {
		if !slices.ContainsFunc(p.Roles, func(o Role) bool { return o.Active && o.TemplateID == r.TemplateID }) {
			p.Roles = append(p.Roles, r)
		}
	}
	return p, unlicensed
}

// Groups lists every group that the account is a member of, directly or through other groups.
//
// With User.Read.All alone Graph returns groups without their properties, so that it is unknown whether one of them is
// role-assignable; that is an error (ErrForbidden) which names GroupMember.Read.All.
// https://learn.microsoft.com/graph/api/user-list-transitivememberof
func (c *Client) Groups(ctx context.Context, userID string) ([]Group, error) {
	m, err := c.memberships(ctx, userID)
	return m.groups, err
}

type memberships struct {
	groups []Group
	roles  []Role
}

func (c *Client) memberships(ctx context.Context, userID string) (memberships, error) {
	b, err := c.user(userID)
	if err != nil {
		return memberships{}, err
	}
	var m memberships
	// No cast to groups: Graph would answer that from the index instead of from the directory itself.
	pageSize := int32(999)
	members := b.TransitiveMemberOf()
	err = c.do(ctx, CallListGroups, func(ctx context.Context) error {
		all, err := collect[models.DirectoryObjectable](ctx, func(ctx context.Context, link string) (models.DirectoryObjectCollectionResponseable, error) {
			if link != "" {
				return members.WithUrl(link).Get(ctx, nil)
			}
			return members.Get(ctx, &users.ItemTransitiveMemberOfRequestBuilderGetRequestConfiguration{
				QueryParameters: &users.ItemTransitiveMemberOfRequestBuilderGetQueryParameters{Top: &pageSize}})
		})
		if err != nil {
			return err
		}
		if m.groups, err = decodeGroups(all, CallListGroups); err != nil {
			return err
		}
		for _, o := range all {
			if r, ok := o.(models.DirectoryRoleable); ok {
				id := firstNonEmpty(deref(r.GetRoleTemplateId()), deref(r.GetId()))
				m.roles = append(m.roles, Role{Name: firstNonEmpty(deref(r.GetDisplayName()), id), TemplateID: id, Active: true, Scope: "/"})
			}
		}
		return nil
	})
	if err != nil {
		return memberships{}, err
	}
	return m, nil
}

// Members lists the accounts that are members of a group, directly or through other groups. ErrNotFound if there is no such group.
// With GroupMember.Read.All alone Graph returns accounts without their properties; that is an error (ErrForbidden).
// https://learn.microsoft.com/graph/api/group-list-transitivemembers
func (c *Client) Members(ctx context.Context, groupID string) ([]User, error) {
	if err := checkID("group", groupID); err != nil {
		return nil, err
	}
	var members []User
	err := c.do(ctx, CallListMembers, func(ctx context.Context) error {
		// No cast to accounts: Graph would answer that from the index instead of from the directory itself.
		all, err := list[models.DirectoryObjectable, models.DirectoryObjectCollectionResponseable](ctx, c,
			"/v1.0/groups/{group}/transitiveMembers{?%24select,%24top}",
			map[string]string{"group": groupID, "%24select": "id,userPrincipalName,displayName,mail,accountEnabled,userType", "%24top": "999"},
			nil, models.CreateDirectoryObjectCollectionResponseFromDiscriminatorValue)
		if err != nil {
			return err
		}
		members = nil
		for _, o := range all {
			m, isUser := o.(models.Userable)
			if !isUser { // groups, devices, applications
				continue
			}
			u, err := decodeUser(m)
			if err != nil {
				return err
			}
			members = append(members, u)
		}
		return nil
	})
	return members, err
}

func (c *Client) ownedGroups(ctx context.Context, userID string) ([]Group, error) {
	b, err := c.user(userID)
	if err != nil {
		return nil, err
	}
	var groups []Group
	owned := b.OwnedObjects()
	err = c.do(ctx, CallListOwned, func(ctx context.Context) error {
		all, err := collect[models.DirectoryObjectable](ctx, func(ctx context.Context, link string) (models.DirectoryObjectCollectionResponseable, error) {
			if link != "" {
				return owned.WithUrl(link).Get(ctx, nil)
			}
			return owned.Get(ctx, nil)
		})
		if err != nil {
			return err
		}
		groups, err = decodeGroups(all, CallListOwned)
		return err
	})
	return groups, err
}

// decodeGroups selects the groups of a mixed list.
func decodeGroups(all []models.DirectoryObjectable, call Call) ([]Group, error) {
	var groups []Group
	for _, o := range all {
		g, ok := o.(models.Groupable)
		if !ok {
			continue
		}
		if g.GetDisplayName() == nil {
			return nil, &Error{Status: http.StatusForbidden, Message: fmt.Sprintf("only the ids of groups may be read, for example %s", deref(g.GetId())),
				Call: string(call), Permission: PermGroupMemberRead}
		}
		groups = append(groups, Group{ID: deref(g.GetId()), Name: deref(g.GetDisplayName()), RoleAssignable: deref(g.GetIsAssignableToRole())})
	}
	return groups, nil
}

// assignment is one directory role of one principal.
type assignment struct {
	principal, definition, scope string
	active                       bool
}

// assignments lists the active roles of an account, those through groups included. It covers the whole tenant and single administrative units.
func (c *Client) assignments(ctx context.Context, userID string) ([]assignment, error) {
	var found []assignment
	err := c.do(ctx, CallListRoles, func(ctx context.Context) error {
		// Without this header the answer is 404.
		all, err := list[models.UnifiedRoleAssignmentable, models.UnifiedRoleAssignmentCollectionResponseable](ctx, c,
			"/beta/roleManagement/directory/transitiveRoleAssignments{?%24count,%24filter}",
			map[string]string{"%24count": "true", "%24filter": "principalId eq '" + quote(userID) + "'"},
			map[string]string{"ConsistencyLevel": "eventual"}, models.CreateUnifiedRoleAssignmentCollectionResponseFromDiscriminatorValue)
		for _, a := range all {
			found = append(found, assignment{deref(a.GetPrincipalId()), deref(a.GetRoleDefinitionId()), deref(a.GetDirectoryScopeId()), true})
		}
		return err
	})
	return found, err
}

// eligibilities lists the roles that an account or group could activate.
func (c *Client) eligibilities(ctx context.Context, principalID string) ([]assignment, error) {
	var found []assignment
	err := c.do(ctx, CallListEligible, func(ctx context.Context) error {
		all, err := list[models.UnifiedRoleEligibilityScheduleInstanceable, models.UnifiedRoleEligibilityScheduleInstanceCollectionResponseable](ctx, c,
			"/v1.0/roleManagement/directory/roleEligibilityScheduleInstances{?%24filter}",
			map[string]string{"%24filter": "principalId eq '" + quote(principalID) + "'"},
			nil, models.CreateUnifiedRoleEligibilityScheduleInstanceCollectionResponseFromDiscriminatorValue)
		for _, a := range all {
			found = append(found, assignment{deref(a.GetPrincipalId()), deref(a.GetRoleDefinitionId()), deref(a.GetDirectoryScopeId()), false})
		}
		return err
	})
	return found, err
}

// roleNames reads all role definitions, built-in and custom, by their id.
func (c *Client) roleNames(ctx context.Context) (map[string]Role, error) {
	names := map[string]Role{}
	err := c.do(ctx, CallRoleNames, func(ctx context.Context) error {
		all, err := list[models.UnifiedRoleDefinitionable, models.UnifiedRoleDefinitionCollectionResponseable](ctx, c,
			"/v1.0/roleManagement/directory/roleDefinitions{?%24select}", map[string]string{"%24select": "id,displayName,templateId"},
			nil, models.CreateUnifiedRoleDefinitionCollectionResponseFromDiscriminatorValue)
		for _, d := range all {
			id := deref(d.GetId())
			names[id] = Role{Name: deref(d.GetDisplayName()), TemplateID: firstNonEmpty(deref(d.GetTemplateId()), id)}
		}
		return err
	})
	return names, err
}
