// Package entra is a Microsoft Entra tenant that lives in this process: the login endpoint and the part of Microsoft Graph
// (v1.0 and beta) that manages users and their authentication methods. It is there so that a client can be run and tested
// against something that refuses what the real service refuses, without an account at Microsoft.
//
// What it keeps to:
//
//   - A token comes only from the token endpoint, for the right client, secret and scope; Graph accepts only a token of this
//     tenant, for itself, and unexpired. A permission that is taken away is missed at once: no new token is needed for that.
//   - Every endpoint demands its application permission, and a refusal reads as Graph's refusal reads. The table in graph.go is
//     the whole of what Graph can do here; it follows Microsoft's permission reference.
//   - The rules of the authentication method API hold: the default method last, one phone a type, the telephone format,
//     alternateMobile only beside mobile, one pass a user within the tenant's policy, no password for synced or federated people.
//   - What this package does not know it says: an unknown path or query option is answered with 501 and its name, never with an
//     empty success. A known path with the wrong verb is a 405, a beta path under v1.0 the 400 that Graph gives.
//   - Where Microsoft's documents contradict each other, Quirks chooses.
//
// # The sandbox's own API
//
// AdminAPI lets a page or a test see and change the tenant, and make it misbehave. JSON in and out; an error is
// {"error":"code","message":"sentence"} with a 4xx status. {user} is an object id or a UPN, escaped as a path segment.
//
//	GET    /sandbox/tenant                               name, domains, groups, policy for passes, quirks
//	PATCH  /sandbox/tenant                               {"pass_policy":{…},"quirks":{…}}, only what is named changes
//	GET    /sandbox/tenant/users                         everybody, with roles, groups, methods
//	POST   /sandbox/tenant/users                         {"upn","name","methods":[…]}: somebody new, a member of nothing; "id", "enabled" and
//	                                                     "default_method" may be said
//	GET    /sandbox/tenant/users/{user}
//	PATCH  /sandbox/tenant/users/{user}                  {"enabled","guest","synced","management_restricted","name","mail","title","department",
//	                                                     "manager","roles","eligible","groups","default_method","default_method_id",
//	                                                     "per_user_mfa","sessions_valid_from","last_password_change"}
//	DELETE /sandbox/tenant/users/{user}
//	GET    /sandbox/tenant/users/{user}/secrets          {"password","pass"}: what was set through Graph, for tests that search for leaks
//	POST   /sandbox/tenant/users/{user}/methods          a method as Graph shows it, "type" for its OData type; "id" may be left out
//	DELETE /sandbox/tenant/users/{user}/methods/{id}     as the person would, whatever the default is
//	GET    /sandbox/grant                                {"roles":[application permissions],"directory_roles":[role definition ids]}
//	PUT    /sandbox/grant                                the same; bites at once
//	GET    /sandbox/entra/calls                          counters by call, the permissions that calls demanded, and single calls; see Calls
//	DELETE /sandbox/entra/calls                          forgets them
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

// Options describe a tenant. New copies what it is given.
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
	Domains     []Domain // domains that occur in UPNs need not be listed: they are managed, the first is the default
	Pass        PassPolicy

	Base   string           // see SetBase
	Now    func() time.Time // time.Now when nil
	Quirks Quirks
}

// Quirks choose where Microsoft's documents or field reports contradict each other. The zero value is what the newer source says.
type Quirks struct {
	// OlderDefaultMessage words the refusal to delete the default method as seen in 2021, without the method's id.
	OlderDefaultMessage bool `json:"older_default_message"`
	// HardwareOATHInMethods lists hardware tokens in v1.0 /authentication/methods too.
	HardwareOATHInMethods bool `json:"hardware_oath_in_methods"`
	// DuplicateIsConflict answers 409 instead of 400 to a second phone of a type or a second e-mail.
	DuplicateIsConflict bool `json:"duplicate_is_conflict"`
	// PasswordNeedsNoRole lets User-PasswordProfile.ReadWrite.All alone change the password of somebody without a directory role.
	PasswordNeedsNoRole bool `json:"password_needs_no_role"`
	// SyncedPasswordAccepted lets the password of a synced person be changed in the cloud, where it is not written back.
	SyncedPasswordAccepted bool `json:"synced_password_accepted"`
}

// Tenant is a Microsoft Entra tenant. Its methods may be called from several goroutines.
type Tenant struct {
	tenantID, tenantName, appName, clientID, clientSecret string

	now    func() time.Time
	key    func() *rsa.PrivateKey // signs tokens; made when first needed
	routes []route

	mu       sync.Mutex // guards everything below; every call runs under it, so that calls are atomic
	base     string
	granted  []string
	appRoles []string
	accounts []*account
	groups   []*Group
	roles    []RoleAssignment
	custom   []RoleDefinition
	domains  []Domain
	pass     PassPolicy
	quirks   Quirks
	log      callLog
	faults   []*Fault
	late     map[*time.Timer]bool // writes that are still to be applied
	changed  chan struct{}
	closed   chan struct{}
}

// account is a user and what Graph never shows of them.
type account struct {
	User
	password      string // as set through Graph
	mustChange    bool   // forceChangePasswordNextSignIn
	mustChangeMFA bool   // forceChangePasswordNextSignInWithMfa
	passValue     string // of the Temporary Access Pass that is there
}

// signingKey is the key of all tenants in a process. Making one takes a while, and a token names its tenant, so that none is
// good for another.
var signingKey = sync.OnceValue(newSigningKey)

func newSigningKey() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(fmt.Errorf("entra: making the key that signs tokens: %w", err))
	}
	return k
}

// New makes a tenant. It panics when the options contradict themselves (two users of one id, a phone of an unknown type),
// since they are part of a program.
func New(o Options) *Tenant {
	t := &Tenant{
		tenantID: o.TenantID, tenantName: o.TenantName, appName: o.AppName, clientID: o.ClientID, clientSecret: o.ClientSecret,
		now: o.Now, key: signingKey, routes: routeTable(), base: strings.TrimRight(o.Base, "/"), granted: slices.Clone(o.Granted), appRoles: slices.Clone(o.AppRoles),
		roles: slices.Clone(o.Roles), custom: slices.Clone(o.CustomRoles), domains: slices.Clone(o.Domains), pass: o.Pass, quirks: o.Quirks,
		late: map[*time.Timer]bool{}, changed: make(chan struct{}), closed: make(chan struct{}),
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
			panic(fmt.Sprintf("entra: %s has a method %q without a kind or id, or has it twice", u.UserPrincipalName, m.Type))
		}
		seen[m.Type+m.ID] = true
	}
	if d := domainOf(u.UserPrincipalName); t.domain(d) == nil {
		t.domains = append(t.domains, Domain{Name: d, Default: len(t.domains) == 0})
	}
	t.accounts = append(t.accounts, &account{User: u})
}

// SetBase sets the tenant's public root, for example "https://127.0.0.1:8443": the login endpoint and Graph are both below it,
// and "<base>/.default" is the scope that a client asks for. Without it each request's own host is the root.
func (t *Tenant) SetBase(url string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.base = strings.TrimRight(url, "/")
}

// Handler serves Graph (/v1.0/…, /beta/…) and the login endpoint (/{tenant}/…, /common/discovery/instance). The real ones speak
// TLS only; whoever listens sees to that.
func (t *Tenant) Handler() http.Handler { return http.HandlerFunc(t.serve) }

// Changed returns a channel that is closed when something that a person could see in the tenant changes next.
func (t *Tenant) Changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

// notify tells everybody who waits on Changed. The caller holds t.mu.
func (t *Tenant) notify() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// Close ends requests that hang and drops writes that were still to be applied.
func (t *Tenant) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-t.closed:
		return
	default:
	}
	close(t.closed)
	for timer := range t.late {
		timer.Stop()
	}
	clear(t.late)
}

// maxBody is Graph's limit for a request, about 4 MB.
const maxBody = 4 << 20

func (t *Tenant) serve(w http.ResponseWriter, r *http.Request) {
	body, unreadable := readBody(r)
	var x exchange
	if version := graphVersion(r.URL.Path); version != "" {
		c := t.newCall(r, version, body)
		c.unreadable = unreadable
		x = c
	} else {
		x = t.newLogin(r, body)
	}
	t.deliver(w, r, x)
}

// graphVersion is the version of Graph that a path belongs to, or "" for a path of the login endpoint.
func graphVersion(path string) string {
	if version, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/"); version == "v1.0" || version == "beta" {
		return version
	}
	return ""
}

// readBody reads the whole body and undoes its encoding: Microsoft's client libraries compress what they send.
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

// exchange is one request, read but not yet answered, so that a fault can decide when and whether it takes effect.
type exchange interface {
	// answer carries the request out and counts it, with the fault that befalls it or "".
	answer(fault string) reply
	// refuse makes an error in the endpoint's own form, and counts the request as not carried out.
	refuse(status int, code, message, fault string) reply
	// lose counts the request as neither carried out nor answered.
	lose(fault string)
}

// reply is an answer as data: it can be thrown away after the request took effect.
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
		http.Error(w, "the sandbox could not write its answer: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(p.status)
	w.Write(b) // an error means that the client is gone, and there is nobody to tell
}

// newGUID makes an id of the form that Entra uses.
func newGUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
