package entra

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// account finds a user by object id or UPN, or returns nil.
func (t *Tenant) account(key string) *account {
	for _, a := range t.accounts {
		if strings.EqualFold(a.ID, key) || strings.EqualFold(a.UserPrincipalName, key) {
			return a
		}
	}
	return nil
}

// user returns the user {id} of the path.
func (c *call) user() (*account, error) {
	if a := c.t.account(c.vars["id"]); a != nil {
		return a, nil
	}
	return nil, notFound(c.vars["id"])
}

// defaultProperties lists the properties of a user that are returned without $select (Graph, "Get a user").
func defaultProperties() []string {
	return []string{"businessPhones", "displayName", "givenName", "jobTitle", "mail", "mobilePhone", "officeLocation",
		"preferredLanguage", "surname", "userPrincipalName", "id"}
}

// basicProperties lists the properties that User.ReadBasic.All allows reading.
func basicProperties() []string {
	return []string{"displayName", "givenName", "surname", "mail", "userPrincipalName", "id"}
}

// filterableProperties lists the properties of a user that $filter supports.
func filterableProperties() []string {
	return []string{"id", "userPrincipalName", "mail", "displayName", "givenName", "surname", "jobTitle", "department", "employeeId", "userType",
		"accountEnabled", "onPremisesSyncEnabled", "proxyAddresses", "otherMails"}
}

// object returns all properties of a user that Graph can return.
func (t *Tenant) object(a *account) Properties {
	text := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	texts := func(list []string) []string { return append([]string{}, list...) }
	local, _, _ := strings.Cut(a.UserPrincipalName, "@")
	userType, external, creation := "Member", any(nil), any(nil)
	if a.Guest {
		userType, external, creation = "Guest", "Accepted", "Invitation"
	}
	synced, lastSync, sam, immutable := any(nil), any(nil), any(nil), any(nil)
	if a.Synced {
		synced, lastSync, sam, immutable = true, formatTime(t.now()), local, b64([]byte(a.ID))[:22]+"=="
	}
	proxies := texts(a.ProxyAddresses)
	if len(proxies) == 0 && a.Mail != "" {
		proxies = []string{"SMTP:" + a.Mail}
	}
	return Properties{
		{"businessPhones", texts(a.BusinessPhones)}, {"displayName", text(a.DisplayName)}, {"givenName", text(a.GivenName)}, {"jobTitle", text(a.JobTitle)},
		{"mail", text(a.Mail)}, {"mobilePhone", text(a.MobilePhone)}, {"officeLocation", text(a.OfficeLocation)}, {"preferredLanguage", nil},
		{"surname", text(a.Surname)}, {"userPrincipalName", a.UserPrincipalName}, {"id", a.ID},
		{"accountEnabled", !a.Blocked}, {"userType", userType}, {"externalUserState", external}, {"creationType", creation},
		{"onPremisesSyncEnabled", synced}, {"onPremisesLastSyncDateTime", lastSync}, {"onPremisesSamAccountName", sam}, {"onPremisesImmutableId", immutable},
		{"onPremisesDistinguishedName", nil}, {"onPremisesDomainName", nil}, {"onPremisesSecurityIdentifier", nil}, {"onPremisesUserPrincipalName", nil},
		{"department", text(a.Department)}, {"companyName", text(a.CompanyName)}, {"employeeId", text(a.EmployeeID)}, {"employeeType", nil},
		{"employeeHireDate", nil}, {"usageLocation", nil}, {"country", nil}, {"city", nil}, {"state", nil}, {"mailNickname", local},
		{"proxyAddresses", proxies}, {"otherMails", texts(a.OtherMails)}, {"imAddresses", []string{}},
		{"createdDateTime", formatTime(a.Created)}, {"deletedDateTime", nil}, {"lastPasswordChangeDateTime", formatTime(a.LastPasswordChange)},
		{"signInSessionsValidFromDateTime", formatTime(a.SessionsValidFrom)}, {"refreshTokensValidFromDateTime", formatTime(a.SessionsValidFrom)},
		{"passwordPolicies", nil}, {"passwordProfile", nil}, {"isManagementRestricted", a.ManagementRestricted}, {"isResourceAccount", nil},
		{"identities", []Properties{{{"signInType", "userPrincipalName"}, {"issuer", domainOf(a.UserPrincipalName)}, {"issuerAssignedId", a.UserPrincipalName}}}},
		{"assignedLicenses", []string{}}, {"signInActivity", nil}, {"perUserMfaState", a.PerUserMFA},
	}
}

// userReads returns the permissions for reading users; they depend on the properties that the request names.
func userReads(c *call) []anyOf {
	names := c.selection()
	if c.query.Has("$filter") {
		if f, err := parseFilter(c.query.Get("$filter"), filterableProperties()); err == nil {
			names = append(names, f.properties...)
		}
	}
	has := func(list []string, name string) bool {
		return slices.ContainsFunc(list, func(n string) bool { return strings.EqualFold(n, name) })
	}
	needs := []anyOf{c.route.needs}
	if c.query.Has("$expand") || slices.ContainsFunc(names, func(n string) bool { return !has(basicProperties(), n) }) {
		needs[0] = needs[0][1:] // all but User.ReadBasic.All
	}
	if has(names, "signInActivity") {
		needs = append(needs, anyOf{"AuditLog.Read.All"})
	}
	return needs
}

// shownUser reduces a user to the properties that this request selects and is allowed to read.
func (c *call) shownUser(all Properties) (Properties, error) {
	names := c.selection()
	for _, name := range names {
		if _, ok := all.Get(name); !ok {
			return nil, notImplemented("the property %s of a user", name)
		}
	}
	basicOnly := !slices.ContainsFunc(c.route.needs[1:], c.t.isGranted)
	if len(names) == 0 {
		names = defaultProperties()
	}
	o := pick(all, names)
	for i, p := range o { // with User.ReadBasic.All alone, other properties are null
		if basicOnly && !slices.Contains(basicProperties(), p.Name) {
			o[i].Value = nil
		}
	}
	expand := c.query.Get("$expand")
	if expand == "" {
		return o, nil
	}
	m := expandManager.FindStringSubmatch(expand)
	if m == nil {
		return nil, notImplemented("$expand=%s of a user", expand)
	}
	id, _ := all.Get("id")
	if manager := c.t.account(c.t.account(id.(string)).Manager); manager != nil {
		wanted := defaultProperties()
		if m[1] != "" {
			wanted = strings.Split(m[1], ",")
		}
		o = append(o, Property{"manager", append(Properties{{"@odata.type", "#microsoft.graph.user"}}, pick(c.t.object(manager), wanted)...)})
	}
	return o, nil
}

// expandManager matches the only supported $expand of a user.
var expandManager = regexp.MustCompile(`^manager(?:\(\$select=([A-Za-z,]+)\))?$`)

func (c *call) getUser() (reply, error) {
	a, err := c.user()
	if err != nil {
		return reply{}, err
	}
	o, err := c.shownUser(c.t.object(a))
	if err != nil {
		return reply{}, err
	}
	return c.entity("users", o)
}

func (c *call) listUsers() (reply, error) {
	var list []Properties
	for _, a := range c.t.accounts {
		list = append(list, c.t.object(a))
	}
	list, err := c.search(list, "displayName", "givenName", "surname", "mail", "userPrincipalName", "otherMails")
	if err != nil {
		return reply{}, err
	}
	return c.collection("users", list, c.shownUser, filterableProperties()...)
}

func (c *call) getManager() (reply, error) {
	a, err := c.user()
	if err != nil {
		return reply{}, err
	}
	m := c.t.account(a.Manager)
	if m == nil {
		return reply{}, notFound("manager")
	}
	return c.entity("directoryObjects", c.directoryUser(m))
}

// directoryUser returns a user as a directory object, with its OData type.
func (c *call) directoryUser(a *account) Properties {
	names := c.selection()
	if len(names) == 0 {
		names = defaultProperties()
	}
	return append(Properties{{"@odata.type", "#microsoft.graph.user"}}, pick(c.t.object(a), names)...)
}

func (c *call) revokeSessions() (reply, error) {
	a, err := c.user()
	if err != nil {
		return reply{}, err
	}
	a.SessionsValidFrom = c.t.now().UTC()
	return reply{status: http.StatusOK, body: Properties{{"@odata.context", c.context("Edm.Boolean")}, {"value", true}}}, nil
}

// userWrites returns the permissions for changing a user; each property has its own permission.
func userWrites(c *call) []anyOf {
	fields, err := c.fields()
	if err != nil {
		fields = nil
	}
	var needs []anyOf
	if _, ok := fields["accountEnabled"]; ok {
		needs = append(needs, anyOf{"User.EnableDisableAccount.All + User.Read.All", "User.ReadWrite.All", "Directory.ReadWrite.All"})
	}
	if _, ok := fields["passwordProfile"]; ok {
		needs = append(needs, anyOf{"User-PasswordProfile.ReadWrite.All"})
	}
	if len(needs) == 0 {
		needs = append(needs, anyOf{"User.ReadWrite.All", "Directory.ReadWrite.All"})
	}
	return needs
}

func (c *call) patchUser() (reply, error) {
	a, err := c.user()
	if err != nil {
		return reply{}, err
	}
	fields, err := c.fields()
	if err != nil {
		return reply{}, err
	}
	for name := range fields {
		if name != "accountEnabled" && name != "passwordProfile" {
			return reply{}, notImplemented("a change of the property %s of a user", name)
		}
	}
	var enabled, hasEnabled bool
	if v, ok := fields["accountEnabled"]; ok {
		if enabled, hasEnabled = v.(bool); !hasEnabled {
			return reply{}, badRequest("Invalid value specified for property 'accountEnabled' of resource 'User'.")
		}
		if !c.t.appMayActOn(a, false) {
			return reply{}, byDirectory(nil)
		}
	}
	if v, ok := fields["passwordProfile"]; ok {
		profile, ok := v.(map[string]any)
		if !ok {
			return reply{}, badRequest("Invalid value specified for property 'passwordProfile' of resource 'User'.")
		}
		if err := c.setPassword(a, profile); err != nil {
			return reply{}, err
		}
	}
	if hasEnabled {
		a.Blocked = !enabled
	}
	return noContent()
}

// setPassword sets the password profile. It checks everything before it changes anything.
func (c *call) setPassword(a *account, profile map[string]any) error {
	if !c.t.appMayActOn(a, !c.t.quirks.PasswordNeedsNoRole) {
		return byDirectory(nil)
	}
	d := c.t.domain(domainOf(a.UserPrincipalName))
	if a.Synced && !c.t.quirks.SyncedPasswordAccepted || d != nil && d.Federated {
		return &graphError{http.StatusBadRequest, "Request_BadRequest",
			"Unable to update the specified properties for on-premises mastered Directory Sync objects or objects currently undergoing migration."}
	}
	for name := range profile {
		if !strings.Contains(name, "@") && !slices.Contains([]string{"password", "forceChangePasswordNextSignIn", "forceChangePasswordNextSignInWithMfa"}, name) {
			return badRequest("The property '%s' does not exist on type 'microsoft.graph.passwordProfile'.", name)
		}
	}
	password, has := profile["password"].(string)
	if has && !strongPassword(password, a.UserPrincipalName) {
		return &graphError{http.StatusBadRequest, "Request_BadRequest",
			"The specified password does not comply with password complexity requirements. Please provide a different password."}
	}
	if force, ok := profile["forceChangePasswordNextSignIn"].(bool); ok {
		a.mustChange = force
	} else if has {
		a.mustChange = true // Graph's default for a new password
	}
	if force, ok := profile["forceChangePasswordNextSignInWithMfa"].(bool); ok {
		a.mustChangeMFA = force
	}
	if has {
		now := c.t.now().UTC()
		a.password, a.LastPasswordChange = password, now
		a.SessionsValidFrom = now // a reset by an administrator also revokes refresh tokens
		for i, m := range a.Methods {
			if m.Type == TypePassword {
				a.Methods[i] = m.With("createdDateTime", now)
			}
		}
	}
	return nil
}

// strongPassword reports whether a password meets Entra's rule for cloud passwords: 8 to 256 characters, three of four kinds, not
// containing the user's name.
func strongPassword(password, upn string) bool {
	var lower, upper, digit, other int
	for _, r := range password {
		switch {
		case unicode.IsLower(r):
			lower = 1
		case unicode.IsUpper(r):
			upper = 1
		case unicode.IsDigit(r):
			digit = 1
		default:
			other = 1
		}
	}
	local, _, _ := strings.Cut(upn, "@")
	n := len([]rune(password))
	return n >= 8 && n <= 256 && lower+upper+digit+other >= 3 && !strings.Contains(strings.ToLower(password), strings.ToLower(local))
}

// appMayActOn reports whether the roles of the application allow sensitive actions on an account, according to Entra's table "Who
// can perform sensitive actions". For an account without a role, the application needs no role unless always is set.
func (t *Tenant) appMayActOn(a *account, always bool) bool {
	has := func(role string) bool { return slices.Contains(t.appRoles, role) }
	if has(roleGlobalAdministrator) || has(rolePrivilegedAuthenticationAdministrator) {
		return true
	}
	for _, g := range t.groups {
		if g.RoleAssignable && (slices.Contains(g.Owners, a.ID) || slices.Contains(t.memberships(a.ID), g)) {
			return false
		}
	}
	held := t.activeRoles(a.ID)
	if a.ManagementRestricted {
		return false
	}
	if len(held) == 0 && !always {
		return true
	}
	return has(roleUserAdministrator) && !slices.ContainsFunc(held, func(r RoleAssignment) bool { return !slices.Contains(belowUserAdministrator(), r.Role) })
}

// memberships returns the groups that a user or group is in, directly or through other groups.
func (t *Tenant) memberships(id string) []*Group {
	var found []*Group
	todo := []string{id}
	for len(todo) > 0 {
		member := todo[0]
		todo = todo[1:]
		for _, g := range t.groups {
			if slices.Contains(g.Members, member) && !slices.Contains(found, g) {
				found = append(found, g)
				todo = append(todo, g.ID)
			}
		}
	}
	return found
}

func (t *Tenant) group(id string) *Group {
	for _, g := range t.groups {
		if strings.EqualFold(g.ID, id) {
			return g
		}
	}
	return nil
}

// activeRoles returns a user's active assignments, direct or through role-assignable groups.
func (t *Tenant) activeRoles(id string) []RoleAssignment {
	principals := []string{id}
	for _, g := range t.memberships(id) {
		if g.RoleAssignable {
			principals = append(principals, g.ID)
		}
	}
	var list []RoleAssignment
	for _, r := range t.roles {
		if !r.Eligible && slices.Contains(principals, r.Principal) {
			list = append(list, r)
		}
	}
	return list
}

func groupObject(g *Group) Properties {
	description := any(nil)
	if g.Description != "" {
		description = g.Description
	}
	assignable := any(nil)
	if g.RoleAssignable {
		assignable = true
	}
	return Properties{{"@odata.type", "#microsoft.graph.group"}, {"id", g.ID}, {"displayName", g.DisplayName}, {"description", description},
		{"groupTypes", []string{}}, {"isAssignableToRole", assignable}, {"mail", nil}, {"mailEnabled", false},
		{"mailNickname", strings.ReplaceAll(g.DisplayName, " ", "")}, {"securityEnabled", true}, {"visibility", nil}}
}

// groupReaders returns the permissions for reading more of a group than its id.
func groupReaders() anyOf {
	return anyOf{"GroupMember.Read.All", "Group.Read.All", "Directory.Read.All", "Directory.ReadWrite.All"}
}

func groupProperties() []string { return []string{"id", "displayName", "isAssignableToRole"} }

func (c *call) listMemberships() (reply, error) {
	a, err := c.user()
	if err != nil {
		return reply{}, err
	}
	if (c.query.Has("$count") || c.query.Has("$filter")) && !c.advancedQuery() {
		return reply{}, unsupportedQuery("The specified query on transitiveMemberOf needs the header ConsistencyLevel: eventual and $count=true.")
	}
	var list []Properties
	if !strings.HasSuffix(c.route.path, "directoryRole") {
		for _, g := range c.t.memberships(a.ID) {
			list = append(list, c.redact(groupObject(g), groupReaders()))
		}
	}
	if !strings.HasSuffix(c.route.path, "group") {
		var seen []string
		for _, r := range c.t.activeRoles(a.ID) {
			// Only tenant-wide assignments of built-in roles are listed as directory roles, not custom or scoped ones.
			d := c.t.roleDefinition(r.Role)
			if r.Scope != "/" || d.Custom || slices.Contains(seen, d.ID) {
				continue
			}
			seen = append(seen, d.ID)
			list = append(list, c.redact(Properties{{"@odata.type", "#microsoft.graph.directoryRole"}, {"id", r.ID}, {"displayName", d.DisplayName},
				{"description", nil}, {"roleTemplateId", d.ID}},
				anyOf{"RoleManagement.Read.Directory", "Directory.Read.All", "RoleManagement.ReadWrite.Directory", "Directory.ReadWrite.All"}))
		}
	}
	return c.collection("directoryObjects", list, nil, groupProperties()...)
}

func (c *call) listOwned() (reply, error) {
	a, err := c.user()
	if err != nil {
		return reply{}, err
	}
	var list []Properties
	for _, g := range c.t.groups {
		if slices.Contains(g.Owners, a.ID) {
			list = append(list, c.redact(groupObject(g), groupReaders()))
		}
	}
	return c.collection("directoryObjects", list, nil, groupProperties()...)
}

func (c *call) checkMemberGroups() (reply, error) {
	a, err := c.user()
	if err != nil {
		return reply{}, err
	}
	fields, err := c.fields()
	if err != nil {
		return reply{}, err
	}
	if err := allowOnly(fields, "directoryObject", "groupIds"); err != nil {
		return reply{}, err
	}
	ids, ok := fields["groupIds"].([]any)
	if !ok || len(ids) > 20 {
		return reply{}, badRequest("The parameter 'groupIds' must be a list of at most 20 ids.")
	}
	found := []string{}
	for _, id := range ids {
		for _, g := range c.t.memberships(a.ID) {
			if s, ok := id.(string); ok && strings.EqualFold(s, g.ID) {
				found = append(found, g.ID)
			}
		}
	}
	return reply{status: http.StatusOK, body: Properties{{"@odata.context", c.context("Collection(Edm.String)")}, {"value", found}}}, nil
}

func (c *call) getGroup() (reply, error) {
	g := c.t.group(c.vars["id"])
	if g == nil {
		return reply{}, notFound(c.vars["id"])
	}
	return c.entity("groups", c.selected(groupObject(g)[1:]))
}

func (c *call) listMembers() (reply, error) {
	g := c.t.group(c.vars["id"])
	if g == nil {
		return reply{}, notFound(c.vars["id"])
	}
	if (c.query.Has("$count") || c.query.Has("$filter")) && !c.advancedQuery() {
		return reply{}, unsupportedQuery("The specified query on members needs the header ConsistencyLevel: eventual and $count=true.")
	}
	transitive := strings.Contains(c.route.path, "/transitiveMembers")
	var list []Properties
	for _, a := range c.t.accounts {
		if slices.Contains(g.Members, a.ID) || transitive && slices.Contains(c.t.memberships(a.ID), g) {
			list = append(list, c.redact(c.directoryUser(a), anyOf{"User.ReadBasic.All", "User.Read.All", "User.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"}))
		}
	}
	for _, member := range c.t.groups {
		inside := slices.Contains(g.Members, member.ID) || transitive && slices.Contains(c.t.memberships(member.ID), g)
		if inside && !strings.HasSuffix(c.route.path, "user") {
			list = append(list, c.selected(groupObject(member)))
		}
	}
	asIs := func(o Properties) (Properties, error) { return o, nil }
	return c.collection("directoryObjects", list, asIs, "id", "displayName", "userPrincipalName", "mail")
}

func (c *call) listRoleAssignments() (reply, error) {
	var list []Properties
	for _, r := range c.t.roles {
		if !r.Eligible {
			list = append(list, assignmentObject(r))
		}
	}
	return c.roles("roleAssignments", list)
}

// listTransitiveRoleAssignments also finds a user's assignments through groups; their principalId is then the group's. Without
// the header ConsistencyLevel, Graph returns 404 (Graph, "List transitiveRoleAssignments").
func (c *call) listTransitiveRoleAssignments() (reply, error) {
	if !c.hasConsistencyLevel() {
		return reply{}, &graphError{http.StatusNotFound, "Request_ResourceNotFound", "Resource not found for the segment 'transitiveRoleAssignments'."}
	}
	if !c.advancedQuery() {
		return reply{}, unsupportedQuery("The query parameter $count=true is required for transitiveRoleAssignments.")
	}
	f, err := parseFilter(c.query.Get("$filter"), roleProperties())
	if err != nil {
		return reply{}, err
	}
	principal, ok := f.equals["principalid"]
	if !ok {
		return reply{}, unsupportedQuery("A $filter of the form principalId eq '{id}' is required for transitiveRoleAssignments.")
	}
	var list []Properties
	for _, r := range c.t.activeRoles(principal) {
		if o := assignmentObject(r); f.matches(o.With("principalId", principal)) {
			list = append(list, o)
		}
	}
	c.query.Del("$filter")
	return c.roles("transitiveRoleAssignments", list)
}

// listEligible returns eligible, inactive assignments of Privileged Identity Management. Those of a group have the group's id.
func (c *call) listEligible() (reply, error) {
	var list []Properties
	for _, r := range c.t.roles {
		if r.Eligible {
			list = append(list, Properties{{"id", r.ID}, {"principalId", r.Principal}, {"roleDefinitionId", r.Role}, {"directoryScopeId", r.Scope},
				{"appScopeId", nil}, {"startDateTime", "2026-01-05T08:00:00Z"}, {"endDateTime", nil}, {"memberType", "Direct"},
				{"roleEligibilityScheduleId", r.ID}})
		}
	}
	return c.roles("roleEligibilityScheduleInstances", list)
}

func roleProperties() []string {
	return []string{"id", "principalId", "roleDefinitionId", "directoryScopeId"}
}

func assignmentObject(r RoleAssignment) Properties {
	return Properties{{"id", r.ID}, {"principalId", r.Principal}, {"directoryScopeId", r.Scope}, {"roleDefinitionId", r.Role}}
}

// roles returns role assignments, with the role itself if it is expanded.
func (c *call) roles(context string, list []Properties) (reply, error) {
	expand := c.query.Get("$expand")
	if expand != "" && expand != "roleDefinition" {
		return reply{}, notImplemented("$expand=%s of %s", expand, context)
	}
	show := func(o Properties) (Properties, error) {
		role, _ := o.Get("roleDefinitionId")
		o = c.selected(o)
		if expand != "" {
			o = append(slices.Clone(o), Property{"roleDefinition", c.roleObject(c.t.roleDefinition(role.(string)))})
		}
		return o, nil
	}
	return c.collection("roleManagement/directory/"+context, list, show, roleProperties()...)
}

func (c *call) roleObject(d RoleDefinition) Properties {
	o := Properties{{"id", d.ID}, {"description", d.DisplayName}, {"displayName", d.DisplayName}, {"isBuiltIn", !d.Custom}, {"isEnabled", true},
		{"resourceScopes", []string{"/"}}, {"templateId", d.ID}, {"version", "1"}, {"rolePermissions", []string{}}}
	if c.version == "beta" {
		o = append(o, Property{"isPrivileged", d.Privileged})
	}
	return o
}

func (c *call) listRoleDefinitions() (reply, error) {
	var list []Properties
	for _, d := range append(BuiltInRoles(), c.t.custom...) {
		list = append(list, c.roleObject(d))
	}
	filterable := []string{"id", "displayName", "isBuiltIn"}
	if c.version == "beta" {
		filterable = append(filterable, "isPrivileged")
	}
	return c.collection("roleManagement/directory/roleDefinitions", list, nil, filterable...)
}

func (c *call) getRoleDefinition() (reply, error) {
	for _, d := range append(BuiltInRoles(), c.t.custom...) {
		if strings.EqualFold(d.ID, c.vars["id"]) {
			return c.entity("roleManagement/directory/roleDefinitions", c.selected(c.roleObject(d)))
		}
	}
	return reply{}, notFound(c.vars["id"])
}

// roleDefinition looks up a role; an unknown id is treated as a custom role without a name.
func (t *Tenant) roleDefinition(id string) RoleDefinition {
	for _, d := range append(BuiltInRoles(), t.custom...) {
		if strings.EqualFold(d.ID, id) {
			return d
		}
	}
	return RoleDefinition{ID: id, DisplayName: id, Custom: true}
}

// Roles that the tenant's rules refer to.
const (
	roleGlobalAdministrator                   = "62e90394-69f5-4237-9190-012177145e10"
	rolePrivilegedAuthenticationAdministrator = "7be44c8a-adaf-4e2a-84d6-ab2649e08a13"
	roleUserAdministrator                     = "fe930be7-5e62-47db-91af-98c3a49a38b1"
)

// belowUserAdministrator lists the roles whose holders a User Administrator is allowed to act on.
func belowUserAdministrator() []string {
	return []string{
		"88d8e3e3-8f55-4a1e-953a-9b9898b8876b", // Directory Readers
		"95e79109-95c0-4d8e-aee3-d01accf2d47b", // Guest Inviter
		"790c1fb9-7f7d-4f88-86a1-ef1f95c05c1b", // Message Center Reader
		"4a5d8f65-41da-4de4-8968-e035b65339cf", // Reports Reader
		"75934031-6c7e-415a-99d7-48dbd49e875e", // Usage Summary Reports Reader
		"27460883-1df1-4691-b032-3b79643e5e63", // User Experience Success Manager
		"966707d0-3269-4727-9be2-8c3a10f19b9d", // Password Administrator
		"729827e3-9c14-49f7-bb1b-9608f156bbb8", // Helpdesk Administrator
		"fdd7a751-b60b-444a-984c-02652fe8fa1c", // Groups Administrator
		roleUserAdministrator,
	}
}

// BuiltInRoles returns directory roles that every tenant has. Privileged marks those that Microsoft labels privileged
// (Microsoft Entra built-in roles, June 2025; the label is isPrivileged).
func BuiltInRoles() []RoleDefinition {
	privileged := func(id, name string) RoleDefinition {
		return RoleDefinition{ID: id, DisplayName: name, Privileged: true}
	}
	other := func(id, name string) RoleDefinition { return RoleDefinition{ID: id, DisplayName: name} }
	return []RoleDefinition{
		privileged(roleGlobalAdministrator, "Global Administrator"),
		privileged(rolePrivilegedAuthenticationAdministrator, "Privileged Authentication Administrator"),
		privileged("e8611ab8-c189-46e8-94e1-60213ab1f814", "Privileged Role Administrator"),
		privileged(roleUserAdministrator, "User Administrator"),
		privileged("c4e39bd9-1100-46d3-8c65-fb160da0071f", "Authentication Administrator"),
		privileged("729827e3-9c14-49f7-bb1b-9608f156bbb8", "Helpdesk Administrator"),
		privileged("966707d0-3269-4727-9be2-8c3a10f19b9d", "Password Administrator"),
		privileged("9b895d92-2cd3-44c7-9d02-a6ac2d5ea5c3", "Application Administrator"),
		privileged("cf1c38e5-3621-4004-a7cb-879624dced7c", "Application Developer"),
		privileged("158c047a-c907-4556-b7ef-446551a6b5f7", "Cloud Application Administrator"),
		privileged("7698a772-787b-4ac8-901f-60d6b08affd2", "Cloud Device Administrator"),
		privileged("b1be1c3e-b65d-4f19-8427-f6fa0d97feb9", "Conditional Access Administrator"),
		privileged("9360feb5-f418-4baa-8175-e2a00bac4301", "Directory Writers"),
		privileged("8329153b-31d0-4727-b945-745eb3bc5f31", "Domain Name Administrator"),
		privileged("be2f45a1-457d-42af-a067-6ec1fa63bc45", "External Identity Provider Administrator"),
		privileged("f2ef992c-3afb-46b9-b7cf-a126ee74c451", "Global Reader"),
		privileged("8ac3fc64-6eca-42ea-9e69-59f4c7b60eb2", "Hybrid Identity Administrator"),
		privileged("3a2c62db-5318-420d-8d74-23affee5d9d5", "Intune Administrator"),
		privileged("194ae4cb-b126-40b2-bd5b-6091b380977d", "Security Administrator"),
		privileged("5f2222b1-57c3-48ba-8ad5-d4759f1fde6f", "Security Operator"),
		privileged("5d6b6bb7-de71-4623-b4af-96380a352509", "Security Reader"),
		other("88d8e3e3-8f55-4a1e-953a-9b9898b8876b", "Directory Readers"),
		other("95e79109-95c0-4d8e-aee3-d01accf2d47b", "Guest Inviter"),
		other("790c1fb9-7f7d-4f88-86a1-ef1f95c05c1b", "Message Center Reader"),
		other("4a5d8f65-41da-4de4-8968-e035b65339cf", "Reports Reader"),
		other("75934031-6c7e-415a-99d7-48dbd49e875e", "Usage Summary Reports Reader"),
		other("27460883-1df1-4691-b032-3b79643e5e63", "User Experience Success Manager"),
		other("29232cdf-9323-42fd-ade2-1d097af3e4de", "Exchange Administrator"),
		other("f28a1f50-f6e7-4571-818b-6a12f2af6b6c", "SharePoint Administrator"),
		other("69091246-20e8-4a56-aa4d-066075b2a7a8", "Teams Administrator"),
		other("fdd7a751-b60b-444a-984c-02652fe8fa1c", "Groups Administrator"),
		other("0526716b-113d-4c15-b2c8-68e3c22b9f80", "Authentication Policy Administrator"),
		other("45d8d3c5-c802-45c6-b32a-1d70b5e1e86e", "Identity Governance Administrator"),
		other("b0f54661-2d74-4c50-afa3-1ec803f12efe", "Billing Administrator"),
		other("17315797-102d-40b4-93e0-432062caca18", "Compliance Administrator"),
	}
}

func domainOf(upn string) string {
	_, d, _ := strings.Cut(upn, "@")
	return strings.ToLower(d)
}

func (t *Tenant) domain(name string) *Domain {
	for i := range t.domains {
		if strings.EqualFold(t.domains[i].Name, name) {
			return &t.domains[i]
		}
	}
	return nil
}

func domainObject(d Domain) Properties {
	kind := "Managed"
	if d.Federated {
		kind = "Federated"
	}
	return Properties{{"id", d.Name}, {"authenticationType", kind}, {"availabilityStatus", nil}, {"isAdminManaged", true}, {"isDefault", d.Default},
		{"isInitial", false}, {"isRoot", true}, {"isVerified", true}, {"supportedServices", []string{"Email", "OfficeCommunicationsOnline"}},
		{"passwordNotificationWindowInDays", 14}, {"passwordValidityPeriodInDays", 2147483647}}
}

func (c *call) listDomains() (reply, error) {
	var list []Properties
	for _, d := range c.t.domains {
		list = append(list, domainObject(d))
	}
	return c.collection("domains", list, nil)
}

func (c *call) getDomain() (reply, error) {
	d := c.t.domain(c.vars["id"])
	if d == nil {
		return reply{}, notFound(c.vars["id"])
	}
	return c.entity("domains", c.selected(domainObject(*d)))
}
