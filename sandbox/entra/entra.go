// Package entra simulates a Microsoft Entra tenant in this process: the login endpoint and the part of Microsoft Graph
// (v1.0 and beta) that manages users and their authentication methods. A client can be run and tested against it without a
// Microsoft account; it refuses what the real service refuses.
//
// Its rules:
//
//   - Tokens are issued only by the token endpoint, for the right client, secret and scope. Graph accepts only unexpired tokens
//     that this tenant issued for Graph. A revoked permission takes effect at once, without a new token.
//   - Every endpoint requires its application permission, and refusals have the form that Graph uses. The table in graph.go lists
//     everything that this Graph supports; it follows Microsoft's permission reference.
//   - The rules of the authentication method API apply: the default method is deleted last, one phone per type, the telephone
//     format, alternateMobile only with mobile, one pass per user within the tenant's policy, no password change for synced or
//     federated users.
//   - Unsupported requests are reported: an unknown path or query option gets a 501 that names it, never an empty success. A
//     known path with the wrong verb gets a 405, a beta path under v1.0 the 400 that Graph returns.
//   - Where Microsoft's documents contradict each other, Quirks selects the behaviour.
//
// # The sandbox's own API
//
// AdminAPI lets a page or a test read and change the tenant, and inject faults. Requests and responses are JSON; an error is
// {"error":"code","message":"sentence"} with a 4xx status. {user} is an object id or a UPN, escaped as a path segment.
//
//	GET    /sandbox/tenant                               name, domains, groups, policy for passes, quirks
//	PATCH  /sandbox/tenant                               {"pass_policy":{…},"quirks":{…}}; omitted fields stay unchanged
//	GET    /sandbox/tenant/users                         all users, with roles, groups, methods
//	POST   /sandbox/tenant/users                         {"upn","name","methods":[…]}: a new user without groups; "id", "enabled" and
//	                                                     "default_method" are optional
//	GET    /sandbox/tenant/users/{user}
//	PATCH  /sandbox/tenant/users/{user}                  {"enabled","guest","synced","management_restricted","name","mail","title","department",
//	                                                     "manager","roles","eligible","groups","default_method","default_method_id",
//	                                                     "per_user_mfa","sessions_valid_from","last_password_change"}
//	DELETE /sandbox/tenant/users/{user}
//	GET    /sandbox/tenant/users/{user}/secrets          {"password","pass"}: what was set through Graph, for tests that search for leaks
//	POST   /sandbox/tenant/users/{user}/methods          a method as Graph shows it, "type" for its OData type; "id" is optional
//	DELETE /sandbox/tenant/users/{user}/methods/{id}     even if it is the default
//	GET    /sandbox/grant                                {"roles":[application permissions],"directory_roles":[role definition ids]}
//	PUT    /sandbox/grant                                the same; takes effect at once
//	GET    /sandbox/entra/calls                          counters by call, the permissions that calls required, and single calls; see Calls
//	DELETE /sandbox/entra/calls                          clears them
//	GET    /sandbox/entra/faults                         {"faults":[Fault],"pending":number of writes still to be applied late}
//	PUT    /sandbox/entra/faults                         {"faults":[Fault]}
//	DELETE /sandbox/entra/faults
package entra

import (
	"compress/gzip"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options configure a tenant. New copies them.
type Options struct {
	TenantID     string
	TenantName   string // display name, for example "Fernhill"
	AppName      string // display name of the application, for example "Countersign"
	ClientID     string
	ClientSecret string

	Granted  []string // application permissions of the application; none when empty
	AppRoles []string // directory roles of its service principal, as role definition ids; nil means User Administrator

	Users       []User
	Groups      []Group
	Roles       []RoleAssignment
	CustomRoles []RoleDefinition
	Domains     []Domain // domains that occur in UPNs need not be listed: they are managed, and the first is the default
	Pass        PassPolicy

	Base   string           // see SetBase
	Now    func() time.Time // time.Now when nil
	Quirks Quirks
}

// Quirks select the behaviour where Microsoft's documents or reports from the field contradict each other. The zero value follows
// the newer source.
type Quirks struct {
	// OlderDefaultMessage uses the message of 2021 for the refusal to delete the default method, without the method's id.
	OlderDefaultMessage bool `json:"older_default_message"`
	// HardwareOATHInMethods also lists hardware tokens in v1.0 /authentication/methods.
	HardwareOATHInMethods bool `json:"hardware_oath_in_methods"`
	// DuplicateIsConflict returns 409 instead of 400 for a second phone of a type or a second e-mail.
	DuplicateIsConflict bool `json:"duplicate_is_conflict"`
	// PasswordNeedsNoRole lets User-PasswordProfile.ReadWrite.All alone change the password of a user without a directory role.
	PasswordNeedsNoRole bool `json:"password_needs_no_role"`
	// SyncedPasswordAccepted allows changing the password of a synced user in the cloud, from where it is not written back.
	SyncedPasswordAccepted bool `json:"synced_password_accepted"`
}

// Tenant is a simulated Microsoft Entra tenant. It is safe for concurrent use.
type Tenant struct {
	tenantID, tenantName, appName, clientID, clientSecret string

	now    func() time.Time
	key    func() *rsa.PrivateKey // signs tokens; generated on first use
	routes []route

	mu         sync.Mutex // guards everything below; every call holds it, so that calls are atomic
	base       string
	granted    []string
	appRoles   []string
	accounts   []*account
	groups     []*Group
	roles      []RoleAssignment
	custom     []RoleDefinition
	domains    []Domain
	pass       PassPolicy
	quirks     Quirks
	log        callLog
	faults     []*Fault
	lateWrites map[*time.Timer]bool // writes that are still to be applied
	changed    chan struct{}
	closed     chan struct{}
}

// account is a user with the state that Graph never shows.
type account struct {
	User
	password      string // as set through Graph
	mustChange    bool   // forceChangePasswordNextSignIn
	mustChangeMFA bool   // forceChangePasswordNextSignInWithMfa
	passValue     string // of the current Temporary Access Pass
}

// signingKey is the key of all tenants in a process, because generating one takes a while. A token names its tenant, so it is not
// valid for another tenant.
var signingKey = sync.OnceValue(newSigningKey)

func newSigningKey() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(fmt.Errorf("entra: generating the token signing key: %w", err))
	}
	return k
}

// New creates a tenant. It panics when the options are invalid (two users with one id, a phone of an unknown type), because
// they are written in code.
func New(o Options) *Tenant {
	t := &Tenant{
		tenantID: o.TenantID, tenantName: o.TenantName, appName: o.AppName, clientID: o.ClientID, clientSecret: o.ClientSecret,
		now: o.Now, key: signingKey, routes: routeTable(), base: strings.TrimRight(o.Base, "/"), granted: slices.Clone(o.Granted), appRoles: slices.Clone(o.AppRoles),
		roles: slices.Clone(o.Roles), custom: slices.Clone(o.CustomRoles), domains: slices.Clone(o.Domains), pass: o.Pass, quirks: o.Quirks,
		lateWrites: map[*time.Timer]bool{}, changed: make(chan struct{}), closed: make(chan struct{}),
	}
	if t.now == nil {
		t.now = time.Now
	}
	if o.AppRoles == nil {
		t.appRoles = []string{roleUserAdministrator}
	}
	t.pass.IncludeGroups = slices.Clone(o.Pass.IncludeGroups)
	setDefault(&t.pass.DefaultLength, 8)
	setDefault(&t.pass.DefaultLifetime, 60)
	setDefault(&t.pass.MinimumLifetime, 60)
	setDefault(&t.pass.MaximumLifetime, 480)
	for _, g := range o.Groups {
		g.Members, g.Owners = slices.Clone(g.Members), slices.Clone(g.Owners)
		t.groups = append(t.groups, &g)
	}
	for _, u := range o.Users {
		t.addUser(u)
	}
	for i := range t.roles {
		if t.roles[i].ID == "" {
			t.roles[i].ID = newGUID()
		}
		if t.roles[i].Scope == "" {
			t.roles[i].Scope = "/"
		}
	}
	return t
}

func setDefault(p *int, v int) {
	if *p == 0 {
		*p = v
	}
}

func (t *Tenant) addUser(u User) {
	if u.ID == "" || u.UserPrincipalName == "" {
		panic(fmt.Sprintf("entra: user %q (%s) needs an object id and a UPN", u.UserPrincipalName, u.ID))
	}
	if t.account(u.ID) != nil || t.account(u.UserPrincipalName) != nil {
		panic(fmt.Sprintf("entra: there are two users %s (%s)", u.UserPrincipalName, u.ID))
	}
	u.ProxyAddresses, u.OtherMails, u.BusinessPhones = slices.Clone(u.ProxyAddresses), slices.Clone(u.OtherMails), slices.Clone(u.BusinessPhones)
	u.Methods = slices.Clone(u.Methods)
	if u.SessionsValidFrom.IsZero() {
		u.SessionsValidFrom = u.Created
	}
	if u.PerUserMFA == "" {
		u.PerUserMFA = "disabled"
	}
	hasPassword := slices.ContainsFunc(u.Methods, func(m Method) bool { return m.Type == TypePassword })
	if !u.Guest && !hasPassword {
		u.Methods = append([]Method{Password(u.LastPasswordChange)}, u.Methods...)
	}
	seen := map[string]bool{}
	for _, m := range u.Methods {
		if m.ID == "" || m.Type == "" || seen[m.Type+m.ID] {
			panic(fmt.Sprintf("entra: %s has a method %q without a type or id, or has it twice", u.UserPrincipalName, m.Type))
		}
		seen[m.Type+m.ID] = true
	}
	if d := domainOf(u.UserPrincipalName); t.domain(d) == nil {
		t.domains = append(t.domains, Domain{Name: d, Default: len(t.domains) == 0})
	}
	t.accounts = append(t.accounts, &account{User: u})
}

// SetBase sets the tenant's public root, for example "https://127.0.0.1:8443": the login endpoint and Graph are both below it,
// and "<base>/.default" is the scope that a client requests. If it is not set, the root is the host of each request.
func (t *Tenant) SetBase(url string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.base = strings.TrimRight(url, "/")
}

// Handler serves Graph (/v1.0/…, /beta/…) and the login endpoint (/{tenant}/…, /common/discovery/instance). The real services
// accept TLS only; the caller has to enforce this.
func (t *Tenant) Handler() http.Handler { return http.HandlerFunc(t.serve) }

// Changed returns a channel that is closed at the next visible change of the tenant.
func (t *Tenant) Changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

// notify wakes everything that waits on Changed. The caller holds t.mu.
func (t *Tenant) notify() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// Close ends hanging requests and drops writes that have not been applied yet.
func (t *Tenant) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-t.closed:
		return
	default:
	}
	close(t.closed)
	for timer := range t.lateWrites {
		timer.Stop()
	}
	clear(t.lateWrites)
}

// maxBody is Graph's limit for a request, about 4 MB.
const maxBody = 4 << 20

func (t *Tenant) serve(w http.ResponseWriter, r *http.Request) {
	body, bodyError := readBody(r)
	var x exchange
	if version := graphVersion(r.URL.Path); version != "" {
		c := t.newCall(r, version, body)
		c.bodyError = bodyError
		x = c
	} else {
		x = t.newLogin(r, body)
	}
	t.deliver(w, r, x)
}

// graphVersion returns the version of Graph in a path, or "" for a path of the login endpoint.
func graphVersion(path string) string {
	if version, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/"); version == "v1.0" || version == "beta" {
		return version
	}
	return ""
}

// readBody reads and decompresses the whole body: Microsoft's client libraries compress their requests.
func readBody(r *http.Request) ([]byte, *graphError) {
	raw, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return nil, &graphError{http.StatusBadRequest, "BadRequest", "The request body could not be read."}
	}
	switch encoding := strings.ToLower(r.Header.Get("Content-Encoding")); encoding {
	case "", "identity":
	case "gzip":
		z, err := gzip.NewReader(strings.NewReader(string(raw)))
		if err == nil {
			raw, err = io.ReadAll(io.LimitReader(z, maxBody+1))
		}
		if err != nil && !(errors.Is(err, io.EOF) && len(raw) == 0) {
			return nil, &graphError{http.StatusBadRequest, "BadRequest", "The gzip-encoded request body is damaged."}
		}
	default:
		return nil, &graphError{http.StatusUnsupportedMediaType, "BadRequest", "The content encoding '" + encoding + "' is not supported."}
	}
	if len(raw) > maxBody {
		return nil, &graphError{http.StatusRequestEntityTooLarge, "BadRequest", "The request body is larger than 4 MB."}
	}
	return raw, nil
}

// exchange is a request that has been read but not yet handled, so that a fault can decide when and whether it takes effect.
type exchange interface {
	// handle executes the request and counts it, with the kind of the fault that applies to it, or "".
	handle(fault string) reply
	// refuse returns an error in the endpoint's own form, and counts the request as not executed.
	refuse(status int, code, message, fault string) reply
	// drop counts the request as neither executed nor answered.
	drop(fault string)
}

// reply is a response that has not been written yet: it can be discarded after the request took effect.
type reply struct {
	status int
	header http.Header
	body   any // JSON; nothing when nil
}

func (p reply) write(w http.ResponseWriter) {
	for name, values := range p.header {
		w.Header()[name] = values
	}
	if p.body == nil {
		w.WriteHeader(p.status)
		return
	}
	b, err := json.Marshal(p.body)
	if err != nil {
		http.Error(w, "the sandbox could not write its response: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(p.status)
	w.Write(b) // an error means that the client is gone
}

// newGUID generates an id of the form that Entra uses.
func newGUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
