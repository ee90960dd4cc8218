package entra

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// AdminAPI serves the sandbox's own API for the tenant, under /sandbox/tenant, /sandbox/grant and /sandbox/entra; the package
// comment lists it. It needs no token, because it is not part of the simulated service.
func (t *Tenant) AdminAPI() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, do func(r *http.Request, body []byte) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
			if err != nil {
				adminReply(w, nil, badInput("the request body could not be read: %v", err))
				return
			}
			t.mu.Lock()
			v, err := do(r, body)
			if err == nil && r.Method != http.MethodGet {
				t.notify()
			}
			var b []byte
			if err == nil {
				b, err = json.Marshal(v) // under the lock: v may refer to data that the next call changes
			}
			t.mu.Unlock()
			adminReply(w, b, err)
		})
	}
	handle("GET /sandbox/tenant", t.adminTenant)
	handle("PATCH /sandbox/tenant", t.adminPatchTenant)
	handle("GET /sandbox/tenant/users", func(*http.Request, []byte) (any, error) {
		list := make([]adminUser, 0, len(t.accounts))
		for _, a := range t.accounts {
			list = append(list, t.adminUser(a))
		}
		return list, nil
	})
	handle("POST /sandbox/tenant/users", t.adminAddUser)
	ofUser := func(pattern string, do func(*account, *http.Request, []byte) (any, error)) {
		handle(pattern, func(r *http.Request, body []byte) (any, error) {
			a := t.account(r.PathValue("user"))
			if a == nil {
				return nil, &adminError{http.StatusNotFound, "user_not_found", "there is no user '" + r.PathValue("user") + "' in this tenant"}
			}
			return do(a, r, body)
		})
	}
	ofUser("GET /sandbox/tenant/users/{user}", func(a *account, _ *http.Request, _ []byte) (any, error) { return t.adminUser(a), nil })
	ofUser("PATCH /sandbox/tenant/users/{user}", t.adminPatchUser)
	ofUser("DELETE /sandbox/tenant/users/{user}", t.adminDeleteUser)
	ofUser("GET /sandbox/tenant/users/{user}/secrets", func(a *account, _ *http.Request, _ []byte) (any, error) {
		return map[string]any{"password": a.password, "must_change": a.mustChange, "must_change_with_mfa": a.mustChangeMFA, "pass": a.passValue}, nil
	})
	ofUser("POST /sandbox/tenant/users/{user}/methods", t.adminAddMethod)
	ofUser("DELETE /sandbox/tenant/users/{user}/methods/{id}", t.adminDeleteMethod)

	handle("GET /sandbox/grant", t.adminGrant)
	handle("PUT /sandbox/grant", t.adminSetGrant)
	handle("GET /sandbox/entra/calls", func(*http.Request, []byte) (any, error) { return t.calls(), nil })
	handle("DELETE /sandbox/entra/calls", func(*http.Request, []byte) (any, error) {
		t.log = callLog{}
		return t.calls(), nil
	})
	handle("GET /sandbox/entra/faults", t.adminFaults)
	handle("PUT /sandbox/entra/faults", t.adminSetFaults)
	handle("DELETE /sandbox/entra/faults", func(r *http.Request, body []byte) (any, error) {
		t.faults = nil
		return t.adminFaults(r, body)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		adminReply(w, nil, &adminError{http.StatusNotFound, "not_found", "the sandbox's tenant API has no " + r.Method + " " + r.URL.Path})
	})
	return mux
}

// adminError is an error response of this API.
type adminError struct {
	status  int
	code    string
	message string
}

func (e *adminError) Error() string { return e.message }

func badInput(format string, args ...any) *adminError {
	return &adminError{http.StatusBadRequest, "invalid_request", fmt.Sprintf(format, args...)}
}

func adminReply(w http.ResponseWriter, body []byte, err error) {
	status := http.StatusOK
	if err != nil {
		e, ok := errors.AsType[*adminError](err)
		if !ok {
			e = badInput("%v", err)
		}
		status = e.status
		body, _ = json.Marshal(map[string]string{"error": e.code, "message": e.message}) // strings always marshal
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(append(body, '\n')) // an error means that the client is gone
}

// decode refuses unknown keys, so that a mistyped key is not ignored.
func decode(body []byte, v any) error {
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return badInput("the request body is invalid: %v", err)
	}
	return nil
}

type adminGroup struct {
	ID             string   `json:"id"`
	Name           string   `json:"name"`
	RoleAssignable bool     `json:"role_assignable"`
	Members        []string `json:"members"` // object ids
	Owners         []string `json:"owners"`
}

func (t *Tenant) adminTenant(*http.Request, []byte) (any, error) {
	groups := []adminGroup{}
	for _, g := range t.groups {
		groups = append(groups, adminGroup{g.ID, g.DisplayName, g.RoleAssignable, append([]string{}, g.Members...), append([]string{}, g.Owners...)})
	}
	domains := []map[string]any{}
	for _, d := range t.domains {
		domains = append(domains, map[string]any{"name": d.Name, "federated": d.Federated, "default": d.Default})
	}
	return map[string]any{"id": t.tenantID, "name": t.tenantName, "client_id": t.clientID, "domains": domains, "groups": groups,
		"pass_policy": t.pass, "quirks": t.quirks}, nil
}

func (t *Tenant) adminPatchTenant(r *http.Request, body []byte) (any, error) {
	change := struct {
		Pass   PassPolicy `json:"pass_policy"`
		Quirks Quirks     `json:"quirks"`
	}{t.pass, t.quirks} // omitted fields keep their values
	change.Pass.IncludeGroups = slices.Clone(t.pass.IncludeGroups)
	if err := decode(body, &change); err != nil {
		return nil, err
	}
	if p := change.Pass; p.MinimumLifetime < 10 || p.MaximumLifetime > 43200 || p.MinimumLifetime > p.DefaultLifetime || p.DefaultLifetime > p.MaximumLifetime ||
		p.DefaultLength < 8 || p.DefaultLength > 48 {
		return nil, badInput("a pass policy has 10 ≤ minimum_lifetime ≤ default_lifetime ≤ maximum_lifetime ≤ 43200 and 8 ≤ default_length ≤ 48")
	}
	t.pass, t.quirks = change.Pass, change.Quirks
	return t.adminTenant(r, nil)
}

type adminUser struct {
	ID                   string       `json:"id"`
	UPN                  string       `json:"upn"`
	Name                 string       `json:"name"`
	Mail                 string       `json:"mail"`
	Enabled              bool         `json:"enabled"`
	Guest                bool         `json:"guest"`
	Synced               bool         `json:"synced"`
	ManagementRestricted bool         `json:"management_restricted"`
	Title                string       `json:"title"`
	Department           string       `json:"department"`
	Manager              string       `json:"manager"`  // object id
	Roles                []string     `json:"roles"`    // names of directory roles held directly
	Eligible             []string     `json:"eligible"` // names of roles that the user is eligible for
	Groups               []string     `json:"groups"`   // names of groups the user is directly in
	SessionsValidFrom    any          `json:"sessions_valid_from"`
	LastPasswordChange   any          `json:"last_password_change"`
	DefaultMethod        string       `json:"default_method"`
	DefaultMethodID      string       `json:"default_method_id"`
	PerUserMFA           string       `json:"per_user_mfa"`
	Methods              []Properties `json:"methods"`
}

func (t *Tenant) adminUser(a *account) adminUser {
	u := adminUser{a.ID, a.UserPrincipalName, a.DisplayName, a.Mail, !a.Blocked, a.Guest, a.Synced, a.ManagementRestricted, a.JobTitle, a.Department, a.Manager,
		[]string{}, []string{}, []string{}, formatTime(a.SessionsValidFrom), formatTime(a.LastPasswordChange), a.DefaultMethod, a.DefaultMethodID, a.PerUserMFA, []Properties{}}
	for _, r := range t.roles {
		switch name := t.roleDefinition(r.Role).DisplayName; {
		case r.Principal != a.ID:
		case r.Eligible:
			u.Eligible = append(u.Eligible, name)
		default:
			u.Roles = append(u.Roles, name)
		}
	}
	for _, g := range t.groups {
		if slices.Contains(g.Members, a.ID) {
			u.Groups = append(u.Groups, g.DisplayName)
		}
	}
	for _, m := range a.Methods {
		u.Methods = append(u.Methods, append(Properties{{"type", m.Type}}, t.shownMethod(a, m, "beta")[1:]...))
	}
	return u
}

func (t *Tenant) adminPatchUser(a *account, _ *http.Request, body []byte) (any, error) {
	var change struct {
		Enabled              *bool      `json:"enabled"`
		Guest                *bool      `json:"guest"`
		Synced               *bool      `json:"synced"`
		ManagementRestricted *bool      `json:"management_restricted"`
		Name                 *string    `json:"name"`
		Mail                 *string    `json:"mail"`
		Title                *string    `json:"title"`
		Department           *string    `json:"department"`
		Manager              *string    `json:"manager"`
		DefaultMethod        *string    `json:"default_method"`
		DefaultMethodID      *string    `json:"default_method_id"`
		PerUserMFA           *string    `json:"per_user_mfa"`
		SessionsValidFrom    *time.Time `json:"sessions_valid_from"`
		LastPasswordChange   *time.Time `json:"last_password_change"`
		Roles                *[]string  `json:"roles"`
		Eligible             *[]string  `json:"eligible"`
		Groups               *[]string  `json:"groups"`
	}
	if err := decode(body, &change); err != nil {
		return nil, err
	}
	// Everything is checked before anything is changed.
	var active, eligible []RoleAssignment
	var groups []*Group
	var err error
	if change.Roles != nil {
		if active, err = t.namedRoles(a, *change.Roles, false); err != nil {
			return nil, err
		}
	}
	if change.Eligible != nil {
		if eligible, err = t.namedRoles(a, *change.Eligible, true); err != nil {
			return nil, err
		}
	}
	if change.Groups != nil {
		if groups, err = t.namedGroups(*change.Groups); err != nil {
			return nil, err
		}
	}
	if p := change.DefaultMethod; p != nil && *p != "" && !slices.ContainsFunc(a.Methods, func(m Method) bool { return m.supports(*p) }) {
		return nil, badInput("%s has no method for the default '%s'", a.UserPrincipalName, *p)
	}
	if p := change.DefaultMethodID; p != nil && *p != "" && !slices.ContainsFunc(a.Methods, func(m Method) bool { return m.ID == *p && m.isSecondFactor() }) {
		return nil, badInput("%s has no phone, Authenticator app or token with the id '%s'", a.UserPrincipalName, *p)
	}
	if p := change.PerUserMFA; p != nil && !slices.Contains([]string{"disabled", "enabled", "enforced"}, *p) {
		return nil, badInput("per_user_mfa is disabled, enabled or enforced")
	}
	if p := change.Manager; p != nil && *p != "" {
		m := t.account(*p)
		if m == nil {
			return nil, badInput("there is no user '%s' to be the manager", *p)
		}
		*p = m.ID
	}
	if p := change.Enabled; p != nil {
		a.Blocked = !*p
	}
	set(&a.Guest, change.Guest)
	set(&a.Synced, change.Synced)
	set(&a.ManagementRestricted, change.ManagementRestricted)
	set(&a.DisplayName, change.Name)
	set(&a.Mail, change.Mail)
	set(&a.JobTitle, change.Title)
	set(&a.Department, change.Department)
	set(&a.Manager, change.Manager)
	set(&a.DefaultMethod, change.DefaultMethod)
	set(&a.DefaultMethodID, change.DefaultMethodID)
	set(&a.PerUserMFA, change.PerUserMFA)
	set(&a.SessionsValidFrom, change.SessionsValidFrom)
	set(&a.LastPasswordChange, change.LastPasswordChange)
	drop := func(isEligible bool) {
		t.roles = slices.DeleteFunc(t.roles, func(r RoleAssignment) bool { return r.Principal == a.ID && r.Eligible == isEligible })
	}
	if change.Roles != nil {
		drop(false)
		t.roles = append(t.roles, active...)
	}
	if change.Eligible != nil {
		drop(true)
		t.roles = append(t.roles, eligible...)
	}
	if change.Groups != nil {
		for _, g := range t.groups {
			g.Members = slices.DeleteFunc(g.Members, func(id string) bool { return id == a.ID })
			if slices.Contains(groups, g) {
				g.Members = append(g.Members, a.ID)
			}
		}
	}
	return t.adminUser(a), nil
}

func (t *Tenant) adminAddUser(_ *http.Request, body []byte) (any, error) {
	in := struct {
		ID            string            `json:"id"`
		UPN           string            `json:"upn"`
		Name          string            `json:"name"`
		Enabled       *bool             `json:"enabled"`
		DefaultMethod string            `json:"default_method"`
		Methods       []json.RawMessage `json:"methods"`
	}{ID: newGUID()}
	if err := decode(body, &in); err != nil {
		return nil, err
	}
	switch {
	case domainOf(in.UPN) == "" || in.ID == "":
		return nil, badInput("a user needs a UPN with a domain, and an object id that is not empty")
	case t.account(in.ID) != nil || t.account(in.UPN) != nil:
		return nil, badInput("there is a user %s (%s) already", in.UPN, in.ID)
	}
	// The account is a year old, so that its times are clearly before those of a plan.
	long := t.now().AddDate(-1, 0, 0)
	u := User{ID: in.ID, UserPrincipalName: in.UPN, Mail: in.UPN, DisplayName: orElse(in.Name, in.UPN), DefaultMethod: in.DefaultMethod,
		Blocked: in.Enabled != nil && !*in.Enabled, Created: long, LastPasswordChange: long}
	for _, raw := range in.Methods {
		m, err := methodFromJSON(raw, t.now())
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(u.Methods, func(o Method) bool { return o.Type == m.Type && o.ID == m.ID }) {
			return nil, badInput("a method of type %s with the id '%s' is there twice", m.Type, m.ID)
		}
		u.Methods = append(u.Methods, m)
	}
	t.addUser(u)
	a := t.account(u.ID)
	a.updateDefault()
	return t.adminUser(a), nil
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// namedRoles returns tenant-wide assignments of roles, which are named by display name or id.
func (t *Tenant) namedRoles(a *account, names []string, eligible bool) ([]RoleAssignment, error) {
	var list []RoleAssignment
	all := append(BuiltInRoles(), t.custom...)
	for _, name := range names {
		i := slices.IndexFunc(all, func(d RoleDefinition) bool {
			return strings.EqualFold(d.DisplayName, name) || strings.EqualFold(d.ID, name)
		})
		if i < 0 {
			return nil, badInput("there is no directory role '%s'", name)
		}
		list = append(list, RoleAssignment{ID: newGUID(), Principal: a.ID, Role: all[i].ID, Scope: "/", Eligible: eligible})
	}
	return list, nil
}

func (t *Tenant) namedGroups(names []string) ([]*Group, error) {
	var list []*Group
	for _, name := range names {
		i := slices.IndexFunc(t.groups, func(g *Group) bool { return strings.EqualFold(g.DisplayName, name) || strings.EqualFold(g.ID, name) })
		if i < 0 {
			return nil, badInput("there is no group '%s'", name)
		}
		list = append(list, t.groups[i])
	}
	return list, nil
}

func (t *Tenant) adminDeleteUser(a *account, _ *http.Request, _ []byte) (any, error) {
	t.accounts = slices.DeleteFunc(t.accounts, func(o *account) bool { return o == a })
	t.roles = slices.DeleteFunc(t.roles, func(r RoleAssignment) bool { return r.Principal == a.ID })
	for _, g := range t.groups {
		isUser := func(id string) bool { return id == a.ID }
		g.Members, g.Owners = slices.DeleteFunc(g.Members, isUser), slices.DeleteFunc(g.Owners, isUser)
	}
	return map[string]bool{"ok": true}, nil
}

func (t *Tenant) adminAddMethod(a *account, _ *http.Request, body []byte) (any, error) {
	m, err := methodFromJSON(body, t.now())
	if err != nil {
		return nil, err
	}
	if a.find(m.Type, m.ID) >= 0 {
		return nil, badInput("%s already has a method of type %s with the id '%s'", a.UserPrincipalName, m.Type, m.ID)
	}
	a.Methods = append(slices.Clone(a.Methods), m)
	a.updateDefault()
	return t.adminUser(a), nil
}

func (t *Tenant) adminDeleteMethod(a *account, r *http.Request, _ []byte) (any, error) {
	for _, m := range a.Methods {
		if m.ID == r.PathValue("id") {
			a.remove(m)
			return t.adminUser(a), nil
		}
	}
	return nil, &adminError{http.StatusNotFound, "method_not_found", a.UserPrincipalName + " has no authentication method with the id '" + r.PathValue("id") + "'"}
}

// methodFromJSON reads a method in the form of this API: "type" is its OData type, with or without the prefix.
// A method of an unknown type is kept unchanged.
func methodFromJSON(body []byte, now time.Time) (Method, error) {
	var fields Properties
	if err := json.Unmarshal(body, &fields); err != nil {
		return Method{}, badInput("a method is a JSON object: %v", err)
	}
	text := func(name string) string {
		v, _ := fields.Get(name)
		s, _ := v.(string)
		return s
	}
	kind := text("type")
	if kind == "" {
		return Method{}, badInput("a method needs a type, for example %s", TypePhone)
	}
	if !strings.HasPrefix(kind, "#") {
		kind = "#microsoft.graph." + kind
	}
	var m Method
	switch id := orElse(text("id"), newGUID()); kind {
	case TypePhone:
		if m = Phone(text("phoneType"), text("phoneNumber")); m.ID == "" {
			return Method{}, badInput("the phoneType must be mobile, alternateMobile or office")
		}
	case TypeEmail:
		m = Email(text("emailAddress"))
	case TypeAuthenticator:
		m = Authenticator(id, text("displayName"))
	case TypeSoftwareOATH:
		m = SoftwareOATH(id)
	case TypeHardwareOATH:
		m = HardwareOATH(id, "", "", "")
	case TypePasskey:
		m = Passkey(id, text("displayName"), text("model"), text("aaGuid"))
	case TypeWindowsHello:
		m = WindowsHello(id, text("displayName"))
	case TypePlatformCredential:
		m = PlatformCredential(id, text("displayName"), text("platform"))
	case TypePass:
		m = TemporaryAccessPass(id, now, time.Hour, false)
	case TypeExternal:
		m = External(id, text("displayName"), text("configurationId"))
	case TypeQRCodePIN:
		m = QRCodePIN(id)
	case TypePassword:
		m = Password(now)
	default:
		m = Method{Type: kind, ID: id, Properties: Properties{{"createdDateTime", nil}}}
	}
	m = m.With("createdDateTime", now)
	for _, p := range fields {
		if p.Name != "type" && p.Name != "id" {
			m = m.With(p.Name, p.Value)
		}
	}
	return m, nil
}

func (t *Tenant) adminGrant(*http.Request, []byte) (any, error) {
	return map[string][]string{"roles": append([]string{}, t.granted...), "directory_roles": append([]string{}, t.appRoles...)}, nil
}

func (t *Tenant) adminSetGrant(r *http.Request, body []byte) (any, error) {
	var grant struct {
		Roles          []string  `json:"roles"`
		DirectoryRoles *[]string `json:"directory_roles"`
	}
	if err := decode(body, &grant); err != nil {
		return nil, err
	}
	if grant.Roles == nil {
		return nil, badInput(`"roles" must list all application permissions`)
	}
	t.granted = slices.Clone(grant.Roles)
	set(&t.appRoles, grant.DirectoryRoles)
	return t.adminGrant(r, nil)
}

// Calls is the response of GET /sandbox/entra/calls.
type Calls struct {
	Calls []Call `json:"calls"`
	// Demanded are the least privileged permissions of all calls whose permissions were checked, granted or not.
	Demanded []string `json:"demanded"`
	// Used are the least privileged of the granted permissions that sufficed: those that the application needs.
	Used   []string `json:"used"`
	Recent []Entry  `json:"recent"` // the last 500 calls, oldest first
	// Changes are the last 20,000 write calls of Graph, oldest first.
	Changes []Entry `json:"changes"`
}

func (t *Tenant) calls() Calls {
	all := Calls{Calls: []Call{}, Demanded: []string{}, Used: []string{}, Recent: append([]Entry{}, t.log.recent...),
		Changes: append([]Entry{}, t.log.changes...)}
	for _, c := range t.log.calls {
		all.Calls = append(all.Calls, *c)
		for _, p := range c.Required {
			all.Demanded = addNames(all.Demanded, p)
		}
		for _, p := range c.Used {
			all.Used = addNames(all.Used, p)
		}
	}
	slices.Sort(all.Demanded)
	slices.Sort(all.Used)
	return all
}

type faultList struct {
	Faults  []*Fault `json:"faults"`
	Pending int      `json:"pending"`
}

func (t *Tenant) adminFaults(*http.Request, []byte) (any, error) {
	return faultList{append([]*Fault{}, t.faults...), len(t.lateWrites)}, nil
}

func (t *Tenant) adminSetFaults(r *http.Request, body []byte) (any, error) {
	var list faultList
	if err := decode(body, &list); err != nil {
		return nil, err
	}
	for _, f := range list.Faults {
		if f == nil {
			return nil, badInput("a fault is an object")
		}
		if wrong := f.check(); wrong != "" {
			return nil, badInput("%s", wrong)
		}
	}
	t.faults = list.Faults
	return t.adminFaults(r, nil)
}
