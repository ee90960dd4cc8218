package entra

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"countersign/internal/testnet"
)

const (
	testTenant = "7a1c0c0e-5c1d-4e55-9f0e-0f1a2b3c4d5e"
	testClient = "0b54f0c2-93ab-4a3c-8a37-6f0b1b2f9a11"
	testSecret = "s3cr3t~value"
	root       = "https://entra.example"

	dana   = "5c3e9d10-27ab-4f6e-9d1c-8b7a60f4e211"
	sam    = "81f0c4a7-6d2b-4c11-b0a9-3e5d7f9c1b42"
	gloria = "a94b2e63-1c7f-4d08-8e65-f02d9b3c7a15"
	elias  = "c7d51f88-40e9-4b3a-a6f2-19e8d0b7c364"
	pat    = "e2b86a09-f35d-4179-93c0-5a4d8e1f7b26"
	fed    = "f61c9e37-8b04-4ad5-b7e1-0d9f3a2c5e48"

	helpDesk  = "1d9f7c3a-5e20-4b86-8a4d-c6e1f0b2935d"
	nested    = "2e8a6b4c-7f31-4c95-9b5e-d7f2a1c3046e"
	operators = "3f7b5c5d-8a42-4da4-8c6f-e8a3b2d4157f"

	danaUPN      = "dana.whitfield@fernhill.example"
	patUPN       = "pat_partner.example#EXT#@fernhill.example"
	opaqueID     = "_jpuR-TGZtk6aQCLF3BQjA2"
	slashID      = "a/b+c=="
	softwareID   = "6b1f0a2e-33c4-4e0f-9a57-3d2c1b0a9f8e"
	hardwareID   = "7c2a1b3f-44d5-4f10-8b68-4e3d2c1b0a9f"
	helpDeskRole = "729827e3-9c14-49f7-bb1b-9608f156bbb8"
	globalReader = "f2ef992c-3afb-46b9-b7cf-a126ee74c451"
)

// clock is a clock that tests set.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 23, 13, 0, 0, 0, time.UTC)} }

func testOptions(now func() time.Time) Options {
	then := time.Date(2025, 3, 1, 8, 0, 0, 0, time.UTC)
	return Options{
		TenantID: testTenant, TenantName: "Fernhill", AppName: "Countersign", ClientID: testClient, ClientSecret: testSecret, Base: root, Now: now,
		Granted: everyPermission(),
		Users: []User{
			{ID: dana, UserPrincipalName: danaUPN, DisplayName: "Dana Whitfield", Mail: "dana.whitfield@fernhill.example", JobTitle: "Buyer", Department: "Purchasing",
				ProxyAddresses: []string{"SMTP:dana.whitfield@fernhill.example", "smtp:d.o'neil@fernhill.example"}, Manager: gloria, Created: then, LastPasswordChange: then,
				DefaultMethod: "push",
				Methods: []Method{Phone("mobile", "+1 4255550100"), Phone("alternateMobile", "+1 4255550101"), Phone("office", "+1 4255550102x77"),
					Authenticator(opaqueID, "Dana's phone").With("lastUsedDateTime", then), Authenticator(slashID, "Dana's tablet"), SoftwareOATH(softwareID),
					HardwareOATH(hardwareID, "YK-1", "Acme", "Token 2"), Passkey("pk-1", "Blue key", "YubiKey 5", "cb69481e-8ff7-4039-93ec-0a2729a154a8"),
					WindowsHello("wh-1", "DANA-LAPTOP"), PlatformCredential("pc-1", "Dana's Mac", "macOS"), Email("dana@home.example"),
					External("ext-1", "Duo", "cfg-1"), QRCodePIN("qr-1"), TemporaryAccessPass("tap-1", then, time.Hour, true)}},
			{ID: sam, UserPrincipalName: "sam.ito@fernhill.example", DisplayName: "Sam Ito", Synced: true, Created: then},
			{ID: gloria, UserPrincipalName: "gloria.adeyemi@fernhill.example", DisplayName: "Gloria Adeyemi", Mail: "gloria.adeyemi@fernhill.example", Created: then},
			{ID: elias, UserPrincipalName: "elias.brandt@fernhill.example", DisplayName: "Elias Brandt", Created: then},
			{ID: pat, UserPrincipalName: patUPN, DisplayName: "Pat Moreau", Mail: "pat@partner.example", Guest: true, Created: then},
			{ID: fed, UserPrincipalName: "$uma@branch.example", DisplayName: "Uma Åkesson", Created: then},
		},
		Groups: []Group{
			{ID: helpDesk, DisplayName: "Help desk", Members: []string{sam, nested}, Owners: []string{dana}},
			{ID: nested, DisplayName: "Second line", Members: []string{dana}},
			{ID: operators, DisplayName: "Cloud operators", RoleAssignable: true, Members: []string{elias}, Owners: []string{sam}},
		},
		Roles: []RoleAssignment{
			{Principal: gloria, Role: roleGlobalAdministrator},
			{Principal: elias, Role: roleUserAdministrator, Eligible: true},
			{Principal: operators, Role: globalReader},
		},
		Domains: []Domain{{Name: "fernhill.example", Default: true}, {Name: "branch.example", Federated: true}},
	}
}

// everyPermission returns all permissions of all routes.
func everyPermission() []string {
	var all []string
	for _, r := range routeTable() {
		for _, p := range r.needs {
			all = addNames(all, p)
		}
	}
	for _, p := range []string{"User.EnableDisableAccount.All", "User-PasswordProfile.ReadWrite.All"} {
		all = addNames(all, p)
	}
	return all
}

func newTenant(t *testing.T, change ...func(*Options)) *Tenant {
	t.Helper()
	o := testOptions(newClock().Now)
	for _, f := range change {
		f(&o)
	}
	tenant := New(o)
	t.Cleanup(tenant.Close)
	return tenant
}

// answer is a response.
type answer struct {
	status int
	header http.Header
	text   string
}

func (a answer) get(t *testing.T, path ...string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(a.text), &v); err != nil {
		t.Fatalf("the answer is not JSON: %v\n%s", err, a.text)
	}
	for _, name := range path {
		switch o := v.(type) {
		case map[string]any:
			v = o[name]
		case []any:
			var n int
			fmt.Sscan(name, &n)
			if n >= len(o) {
				t.Fatalf("no element %s in %s", name, a.text)
			}
			v = o[n]
		default:
			t.Fatalf("no %q in %s", name, a.text)
		}
	}
	return v
}

func (a answer) list(t *testing.T, property string) []string {
	t.Helper()
	values := []string{}
	for _, o := range a.get(t, "value").([]any) {
		values = append(values, fmt.Sprint(o.(map[string]any)[property]))
	}
	return values
}

// want checks the status and, if given, the error code.
func (a answer) want(t *testing.T, status int, code ...string) answer {
	t.Helper()
	if a.status != status || len(code) > 0 && a.get(t, "error", "code") != code[0] {
		t.Fatalf("got %d, want %d %v\n%s", a.status, status, code, a.text)
	}
	return a
}

// graph makes a request with a valid token. body is JSON text; headers are "Name: value".
func graph(t *testing.T, tenant *Tenant, method, path, body string, headers ...string) answer {
	t.Helper()
	r := httptest.NewRequest(method, root+path, strings.NewReader(body))
	tenant.mu.Lock()
	r.Header.Set("Authorization", "Bearer "+tenant.issueToken(root))
	tenant.mu.Unlock()
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	tenant.Handler().ServeHTTP(w, r)
	return answer{w.Code, w.Header(), w.Body.String()}
}

func admin(t *testing.T, tenant *Tenant, method, path, body string) answer {
	t.Helper()
	w := httptest.NewRecorder()
	tenant.AdminAPI().ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	return answer{w.Code, w.Header(), w.Body.String()}
}

func grant(t *testing.T, tenant *Tenant, roles ...string) {
	t.Helper()
	body, _ := json.Marshal(map[string][]string{"roles": append([]string{}, roles...)})
	admin(t, tenant, "PUT", "/sandbox/grant", string(body)).want(t, 200)
}

// serve serves the tenant over TLS and returns a client that trusts it.
func serve(t *testing.T, tenant *Tenant) (string, *http.Client) {
	t.Helper()
	s := httptest.NewTLSServer(tenant.Handler())
	t.Cleanup(s.Close)
	t.Cleanup(tenant.Close) // before the server, which waits for hanging requests
	tenant.SetBase(s.URL)
	return s.URL, s.Client()
}

// serveInBubble does the same inside the test's testing/synctest bubble.
func serveInBubble(t *testing.T, tenant *Tenant, http2 bool) (string, *http.Client) {
	t.Helper()
	network := testnet.New()
	s := httptest.NewUnstartedServer(tenant.Handler())
	s.Listener.Close()
	s.Listener, s.EnableHTTP2 = network, http2
	s.StartTLS()
	s.Client().Transport.(*http.Transport).DialContext = network.Dial
	t.Cleanup(s.Close)
	t.Cleanup(tenant.Close) // before the server, which waits for hanging requests
	return s.URL, s.Client()
}

func clientOptions(base string, client *http.Client) azcore.ClientOptions {
	return azcore.ClientOptions{
		Cloud:     cloud.Configuration{ActiveDirectoryAuthorityHost: base},
		Transport: client,
		Retry:     policy.RetryOptions{MaxRetries: -1},
	}
}

func TestAzidentityTokenIsAccepted(t *testing.T) {
	tenant := newTenant(t, func(o *Options) { o.Now = time.Now; o.Granted = []string{"User.Read.All"} })
	base, client := serve(t, tenant)
	scopes := policy.TokenRequestOptions{Scopes: []string{base + "/.default"}}

	secret, err := azidentity.NewClientSecretCredential(testTenant, testClient, testSecret,
		&azidentity.ClientSecretCredentialOptions{ClientOptions: clientOptions(base, client), DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	assertion, err := azidentity.NewClientAssertionCredential(testTenant, testClient, func(context.Context) (string, error) {
		return encodePart(map[string]string{"alg": "RS256"}) + "." +
			encodePart(map[string]any{"iss": "https://ci.example", "sub": "repo", "exp": time.Now().Add(time.Hour).Unix()}) + ".c2ln", nil
	}, &azidentity.ClientAssertionCredentialOptions{ClientOptions: clientOptions(base, client), DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	for name, credential := range map[string]azcore.TokenCredential{"secret": secret, "assertion": assertion} {
		t.Run(name, func(t *testing.T) {
			token, err := credential.GetToken(t.Context(), scopes)
			if err != nil {
				t.Fatal(err)
			}
			var c claims
			if !decodePart(strings.Split(token.Token, ".")[1], &c) || !slices.Equal(c.Roles, []string{"User.Read.All"}) || c.TenantID != testTenant ||
				c.Type != "app" || c.AppID != testClient || c.Audience != base {
				t.Errorf("the token has the claims %+v", c)
			}
			if left := time.Until(token.ExpiresOn); left < 50*time.Minute || left > time.Hour {
				t.Errorf("the token expires in %v", left)
			}
			r, _ := http.NewRequestWithContext(t.Context(), "GET", base+"/v1.0/users/"+dana, nil)
			r.Header.Set("Authorization", "Bearer "+token.Token)
			reply, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			reply.Body.Close()
			if reply.StatusCode != 200 {
				t.Errorf("Graph returned %s", reply.Status)
			}
		})
	}
}

func TestAzidentityReportsRefusals(t *testing.T) {
	base, client := serve(t, newTenant(t, func(o *Options) { o.Now = time.Now }))
	for _, test := range []struct{ name, tenant, client, secret, scope, want string }{
		{"secret", testTenant, testClient, "wrong", base + "/.default", "AADSTS7000215"},
		{"client", testTenant, "11111111-2222-4333-8444-555555555555", testSecret, base + "/.default", "AADSTS700016"},
		{"resource", testTenant, testClient, testSecret, "https://graph.microsoft.com/.default", "AADSTS500011"},
		{"scope", testTenant, testClient, testSecret, base + "/User.Read.All", "AADSTS1002012"},
		{"tenant", "11111111-2222-4333-8444-555555555555", testClient, testSecret, base + "/.default", "AADSTS90002"},
	} {
		t.Run(test.name, func(t *testing.T) {
			credential, err := azidentity.NewClientSecretCredential(test.tenant, test.client, test.secret,
				&azidentity.ClientSecretCredentialOptions{ClientOptions: clientOptions(base, client), DisableInstanceDiscovery: true})
			if err != nil {
				t.Fatal(err)
			}
			_, err = credential.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{test.scope}})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func TestTokensAreSignedWithThePublishedKey(t *testing.T) {
	tenant := newTenant(t)
	keys := graph(t, tenant, "GET", "/"+testTenant+"/discovery/v2.0/keys", "").want(t, 200)
	n, _ := base64.RawURLEncoding.DecodeString(keys.get(t, "keys", "0", "n").(string))
	e, _ := base64.RawURLEncoding.DecodeString(keys.get(t, "keys", "0", "e").(string))
	key := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
	parts := strings.Split(tenant.issueToken(root), ".")
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	signature, _ := base64.RawURLEncoding.DecodeString(parts[2])
	if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], signature); err != nil {
		t.Error(err)
	}
	var head struct{ Alg, Kid string }
	if !decodePart(parts[0], &head) || head.Alg != "RS256" || head.Kid != keys.get(t, "keys", "0", "kid") {
		t.Errorf("%+v", head)
	}
	where := graph(t, tenant, "GET", "/common/discovery/instance?api-version=1.1", "").want(t, 200)
	if where.get(t, "tenant_discovery_endpoint") != root+"/"+testTenant+"/v2.0/.well-known/openid-configuration" {
		t.Error(where.text)
	}
}

func TestTokenEndpointRefuses(t *testing.T) {
	tenant := newTenant(t)
	good := func() url.Values {
		return url.Values{"grant_type": {"client_credentials"}, "client_id": {testClient}, "client_secret": {testSecret}, "scope": {root + "/.default"}}
	}
	post := func(method, path string, form url.Values) answer {
		r := httptest.NewRequest(method, root+path, strings.NewReader(form.Encode()))
		w := httptest.NewRecorder()
		tenant.Handler().ServeHTTP(w, r)
		return answer{w.Code, w.Header(), w.Body.String()}
	}
	path := "/" + testTenant + "/oauth2/v2.0/token"
	post("POST", path, good()).want(t, 200)
	post("POST", "/fernhill.example/oauth2/v2.0/token", good()).want(t, 200)
	for _, test := range []struct {
		name   string
		change func(url.Values)
		status int
		code   string
	}{
		{"no secret", func(f url.Values) { f.Del("client_secret") }, 401, "invalid_client"},
		{"wrong secret", func(f url.Values) { f.Set("client_secret", "x") }, 401, "invalid_client"},
		{"grant", func(f url.Values) { f.Set("grant_type", "password") }, 400, "unsupported_grant_type"},
		{"no scope", func(f url.Values) { f.Del("scope") }, 400, "invalid_scope"},
		{"assertion type", func(f url.Values) { f.Set("client_assertion", "a.b.c") }, 401, "invalid_client"},
		{"assertion", func(f url.Values) {
			f.Set("client_assertion", "a.b.c")
			f.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		}, 401, "invalid_client"},
	} {
		t.Run(test.name, func(t *testing.T) {
			form := good()
			test.change(form)
			a := post("POST", path, form)
			if a.want(t, test.status); a.get(t, "error") != test.code || !strings.Contains(a.text, "AADSTS") || a.get(t, "correlation_id") == "" {
				t.Error(a.text)
			}
			if strings.Contains(a.text, testSecret) {
				t.Error("the answer contains the secret")
			}
		})
	}
	post("GET", path, good()).want(t, 405)
	post("POST", "/"+testTenant+"/oauth2/v2.0/devicecode", good()).want(t, 501)
}

func TestGraphRefusesInvalidTokens(t *testing.T) {
	now := newClock()
	tenant := newTenant(t, func(o *Options) { o.Now = now.Now })
	other := newTenant(t, func(o *Options) { o.TenantID = "11111111-2222-4333-8444-555555555555" })
	forged := New(testOptions(now.Now)) // the same names
	forged.key = sync.OnceValue(newSigningKey)
	good := tenant.issueToken(root)
	for name, authorization := range map[string]string{
		"none":     "",
		"basic":    "Basic eA==",
		"empty":    "Bearer ",
		"garbage":  "Bearer xyz",
		"foreign":  "Bearer " + other.issueToken(root),
		"forged":   "Bearer " + forged.issueToken(root),
		"audience": "Bearer " + tenant.issueToken("https://graph.microsoft.com"),
		"changed":  "Bearer " + good[:len(good)-4] + "AAAA",
	} {
		a := graph(t, tenant, "GET", "/v1.0/users/"+dana, "", "Authorization: "+authorization).want(t, 401, "InvalidAuthenticationToken")
		if !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer ") {
			t.Errorf("%s: no WWW-Authenticate", name)
		}
	}
	graph(t, tenant, "GET", "/v1.0/users/"+dana, "", "Authorization: Bearer "+good).want(t, 200)
	now.advance(59 * time.Minute)
	graph(t, tenant, "GET", "/v1.0/users/"+dana, "", "Authorization: Bearer "+good).want(t, 200)
	now.advance(time.Minute)
	graph(t, tenant, "GET", "/v1.0/users/"+dana, "", "Authorization: Bearer "+good).want(t, 401)
}

// sample returns a request for a route.
func sample(r route) (path, body string, headers []string) {
	version := "/v1.0"
	if r.in == beta {
		version = "/beta"
	}
	id, mid := dana, "nobody"
	switch {
	case strings.HasPrefix(r.path, "/groups"):
		id = helpDesk
	case strings.HasPrefix(r.path, "/domains"):
		id = "fernhill.example"
	case strings.HasPrefix(r.path, "/policies"):
		id = "temporaryAccessPass"
	case strings.Contains(r.path, "roleDefinitions"):
		id = globalReader
	case strings.Contains(r.path, "phoneMethods"):
		mid = IDMobile
	case strings.Contains(r.path, "hardwareOathMethods"):
		mid = hardwareID
	}
	path = version + strings.NewReplacer("{id}", id, "{mid}", mid).Replace(r.path)
	if strings.HasSuffix(r.path, "/transitiveRoleAssignments") {
		path += "?$count=true&$filter=" + url.QueryEscape("principalId eq '"+gloria+"'")
	}
	switch {
	case strings.HasSuffix(r.path, "checkMemberGroups"):
		body = `{"groupIds":["` + helpDesk + `"]}`
	case r.verb == "PATCH" && strings.HasSuffix(r.path, "{id}"):
		body = `{"accountEnabled":true}`
	case r.verb == "PATCH" && strings.HasSuffix(r.path, "signInPreferences"):
		body = `{"userPreferredMethodForSecondaryAuthentication":"oath"}`
	case strings.Contains(r.path, "phoneMethods") && r.verb != "DELETE" && r.verb != "GET":
		body = `{"phoneNumber":"+1 4255550199"}`
	case strings.Contains(r.path, "emailMethods") && r.verb != "DELETE" && r.verb != "GET":
		body = `{"emailAddress":"new@home.example"}`
	}
	return path, body, []string{"ConsistencyLevel: eventual"}
}

func TestEveryEndpointDemandsItsPermission(t *testing.T) {
	for _, r := range routeTable() {
		if r.needs == nil && r.needsFor == nil {
			continue
		}
		t.Run(r.verb+" "+r.path, func(t *testing.T) {
			path, body, headers := sample(r)
			tenant := newTenant(t)
			needs := r.needs
			if r.needsFor != nil {
				c := tenant.newCall(httptest.NewRequest(r.verb, root+path, nil), "v1.0", []byte(body))
				c.route = &r
				needs = r.needsFor(c)[0]
			}
			for _, alternative := range needs {
				tenant := newTenant(t)
				parts := addNames(nil, alternative)
				grant(t, tenant, parts...)
				if a := graph(t, tenant, r.verb, path, body, headers...); a.status == 403 || a.status == 401 || a.status >= 500 {
					t.Errorf("with %s alone: %d %s", alternative, a.status, a.text)
				}
				for _, p := range parts { // half of "A + B" is not enough
					grant(t, tenant, slices.DeleteFunc(slices.Clone(parts), func(x string) bool { return x == p })...)
					graph(t, tenant, r.verb, path, body, headers...).want(t, 403)
				}
			}
			var mentioned []string
			for _, alternative := range needs {
				mentioned = addNames(mentioned, alternative)
			}
			grant(t, tenant, slices.DeleteFunc(everyPermission(), func(p string) bool { return slices.Contains(mentioned, p) })...)
			admin(t, tenant, "DELETE", "/sandbox/entra/calls", "")
			a := graph(t, tenant, r.verb, path, body, headers...)
			want := r.denied(addNames(nil, needs[0]))
			if a.want(t, 403, want.code); a.get(t, "error", "message") != want.message {
				t.Errorf("got %s, want %s", a.text, want.message)
			}
			calls := admin(t, tenant, "GET", "/sandbox/entra/calls", "")
			if got := fmt.Sprint(calls.get(t, "demanded")); got != fmt.Sprint(slices.Sorted(slices.Values(addNames(nil, needs[0])))) {
				t.Errorf("the log has the required permissions %s, want %s", got, needs[0])
			}
			if calls.get(t, "calls", "0", "granted") != false || calls.get(t, "calls", "0", "path") != path[:len("/v1.0")]+r.path {
				t.Error(calls.text)
			}
		})
	}
}

func TestDenialsMatchGraph(t *testing.T) {
	tenant := newTenant(t)
	grant(t, tenant)
	for _, test := range []struct{ method, path, body, code, message string }{
		{"GET", "/v1.0/users/" + dana + "/authentication/methods", "", "accessDenied", "Request Authorization failed"},
		{"DELETE", "/v1.0/users/" + dana + "/authentication/phoneMethods/" + IDOffice, "", "accessDenied", "Request Authorization failed"},
		{"PATCH", "/v1.0/users/" + dana, `{"accountEnabled":false}`, "Authorization_RequestDenied", "Insufficient privileges to complete the operation."},
	} {
		a := graph(t, tenant, test.method, test.path, test.body, "client-request-id: 4b0f").want(t, 403, test.code)
		if a.get(t, "error", "message") != test.message {
			t.Error(a.text)
		}
		if a.get(t, "error", "innerError", "client-request-id") != "4b0f" || a.header.Get("client-request-id") != "4b0f" ||
			a.get(t, "error", "innerError", "request-id") != a.header.Get("request-id") || a.header.Get("request-id") == "" ||
			a.get(t, "error", "innerError", "date") != "2026-11-23T13:00:00" {
			t.Errorf("%v\n%s", a.header, a.text)
		}
	}
}

func TestGrantTakesEffectWithTheSameToken(t *testing.T) {
	tenant := newTenant(t)
	token := "Authorization: Bearer " + tenant.issueToken(root)
	path := "/v1.0/users/" + dana + "/authentication/methods"
	graph(t, tenant, "GET", path, "", token).want(t, 200)
	grant(t, tenant, "User.Read.All")
	graph(t, tenant, "GET", path, "", token).want(t, 403)
	grant(t, tenant, "UserAuthenticationMethod.Read.All")
	graph(t, tenant, "GET", path, "", token).want(t, 200)
	if got := fmt.Sprint(admin(t, tenant, "GET", "/sandbox/grant", "").get(t, "roles")); got != "[UserAuthenticationMethod.Read.All]" {
		t.Error(got)
	}
	admin(t, tenant, "PUT", "/sandbox/grant", `{"role":[]}`).want(t, 400)
	admin(t, tenant, "PUT", "/sandbox/grant", `{}`).want(t, 400)
}

func TestPropertiesHavePermissionsOfTheirOwn(t *testing.T) {
	tenant := newTenant(t)
	grant(t, tenant, "User.ReadBasic.All")
	a := graph(t, tenant, "GET", "/v1.0/users/"+dana, "").want(t, 200)
	if a.get(t, "displayName") != "Dana Whitfield" || a.get(t, "jobTitle") != nil {
		t.Error(a.text)
	}
	graph(t, tenant, "GET", "/v1.0/users/"+dana+"?$select=id,mail", "").want(t, 200)
	graph(t, tenant, "GET", "/v1.0/users/"+dana+"?$select=id,accountEnabled", "").want(t, 403)
	graph(t, tenant, "GET", "/v1.0/users?$filter="+url.QueryEscape("department eq 'Purchasing'"), "").want(t, 403)
	grant(t, tenant, "User.Read.All")
	graph(t, tenant, "GET", "/v1.0/users/"+dana+"?$select=id,accountEnabled", "").want(t, 200)
	graph(t, tenant, "GET", "/v1.0/users/"+dana+"?$select=signInActivity", "").want(t, 403)

	grant(t, tenant, "User.EnableDisableAccount.All", "User.Read.All")
	graph(t, tenant, "PATCH", "/v1.0/users/"+dana, `{"accountEnabled":false}`).want(t, 204)
	graph(t, tenant, "PATCH", "/v1.0/users/"+dana, `{"accountEnabled":false,"passwordProfile":{"password":"Correct-Horse-7"}}`).want(t, 403)
	grant(t, tenant, "User.ReadWrite.All")
	graph(t, tenant, "PATCH", "/v1.0/users/"+dana, `{"passwordProfile":{"password":"Correct-Horse-7"}}`).want(t, 403)
}

func TestUnknownPathsVerbsAndObjects(t *testing.T) {
	tenant := newTenant(t)
	user := "/users/" + dana
	for _, test := range []struct {
		method, path string
		status       int
		says         string
	}{
		{"GET", "/v1.0/me", 501, "/v1.0/me"},
		{"POST", "/v1.0/$batch", 501, "$batch"},
		{"GET", "/v1.0/users/$count", 501, "$count"},
		{"GET", "/v1.0" + user + "/authentication/hologramMethods", 501, "hologramMethods"},
		{"GET", "/v1.0" + user + "?$orderby=id", 501, "$orderby"},
		{"GET", "/v1.0" + user + "?$select=shoeSize", 501, "shoeSize"},
		{"GET", "/v1.0" + user + "?$expand=memberOf", 501, "memberOf"},
		{"DELETE", "/v1.0" + user, 405, "not allowed"},
		{"GET", "/v1.0" + user + "/revokeSignInSessions", 405, "not allowed"},
		{"POST", "/v1.0" + user + "/authentication/methods", 405, "not allowed"},
		{"GET", "/v1.0" + user + "/authentication/hardwareOathMethods", 400, "Resource not found for the segment 'hardwareOathMethods'"},
		{"POST", "/v1.0" + user + "/authentication/hardwareOathMethods/x/deactivate", 400, "segment 'hardwareOathMethods'"},
		{"GET", "/v1.0/roleManagement/directory/transitiveRoleAssignments", 400, "segment 'transitiveRoleAssignments'"},
		{"GET", "/v1.0/users/nobody@fernhill.example", 404, "Resource 'nobody@fernhill.example' does not exist"},
		{"GET", "/v1.0/users/nobody/authentication/methods", 404, "does not exist"},
		{"GET", "/v1.0" + user + "/authentication/methods/nothing", 404, "not found"},
		{"DELETE", "/v1.0" + user + "/authentication/fido2Methods/nothing", 404, "not found"},
		{"DELETE", "/v1.0" + user + "/authentication/phoneMethods/" + opaqueID, 404, "not found"},
		{"DELETE", "/v1.0" + user + "/authentication/methods/" + IDMobile, 404, "No HTTP resource was found"},
		{"GET", "/v1.0/users/" + gloria + "/manager", 404, "Resource 'manager' does not exist"},
		{"GET", "/v1.0/domains/other.example", 404, "other.example"},
	} {
		a := graph(t, tenant, test.method, test.path, "").want(t, test.status)
		if !strings.Contains(fmt.Sprint(a.get(t, "error", "message")), test.says) {
			t.Errorf("%s %s: %s", test.method, test.path, a.text)
		}
	}
}

func TestBodies(t *testing.T) {
	tenant := newTenant(t)
	path := "/v1.0/users/" + sam + "/authentication/phoneMethods"
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	io.WriteString(z, `{"@odata.type":"#microsoft.graph.phoneAuthenticationMethod","phoneNumber":"+1 4255550111","phoneType":"mobile"}`)
	z.Close()
	graph(t, tenant, "POST", path, b.String(), "Content-Encoding: gzip").want(t, 201)
	graph(t, tenant, "POST", path, "not gzip", "Content-Encoding: gzip").want(t, 400)
	graph(t, tenant, "POST", path, b.String(), "Content-Encoding: br").want(t, 415)
	graph(t, tenant, "POST", path, "{", "Content-Type: application/json").want(t, 400, "BadRequest")
	graph(t, tenant, "POST", path, "").want(t, 400, "BadRequest")
	graph(t, tenant, "POST", path, `{"phoneNumber":"+1 4255550112","phoneType":"office","colour":"red"}`).want(t, 400)
	graph(t, tenant, "POST", path, strings.Repeat(" ", maxBody+1)).want(t, 413)
	graph(t, tenant, "POST", "/v1.0/users/"+sam+"/revokeSignInSessions", "", "Content-Encoding: gzip").want(t, 200)
}

// Faults that break the connection have to work over HTTP/1.1, the default of Go's test server, and over HTTP/2.
func TestFaults(t *testing.T) {
	mobile := "/v1.0/users/" + sam + "/authentication/phoneMethods"
	add := `{"phoneNumber":"+1 4255550111","phoneType":"mobile"}`
	for _, test := range []struct {
		name, fault string
		status      int    // 0: no answer
		retryAfter  string // "-": no header
		applied     bool
	}{
		{"throttle", `"kind":"throttle","retry_after":7`, 429, "7", false},
		{"throttle without a time", `"kind":"throttle"`, 429, "-", false},
		{"status", `"kind":"status","status":503,"retry_after":0`, 503, "0", false},
		{"status and applied", `"kind":"status","status":504,"apply":true`, 504, "-", true},
		{"drop the request", `"kind":"drop_request"`, 0, "", false},
		{"drop the reply", `"kind":"drop_reply"`, 0, "", true},
		{"hang", `"kind":"hang"`, 0, "", false},
		{"apply, then hang", `"kind":"apply_hang"`, 0, "", true},
	} {
		for _, protocol := range []string{"HTTP/1.1", "HTTP/2"} {
			t.Run(test.name+" over "+protocol, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					tenant := newTenant(t)
					base, client := serveInBubble(t, tenant, protocol == "HTTP/2")
					admin(t, tenant, "PUT", "/sandbox/entra/faults", `{"faults":[{"method":"POST","path":"phoneMethods",`+test.fault+`}]}`).want(t, 200)
					post := func() (int, string) {
						ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
						if strings.Contains(test.fault, "hang") {
							ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
						}
						defer cancel()
						r, _ := http.NewRequestWithContext(ctx, "POST", base+mobile, strings.NewReader(add))
						r.Header.Set("Authorization", "Bearer "+tenant.issueToken(root))
						reply, err := client.Do(r)
						if err != nil {
							return 0, ""
						}
						defer reply.Body.Close()
						if reply.Header.Values("Retry-After") == nil {
							return reply.StatusCode, "-"
						}
						return reply.StatusCode, reply.Header.Get("Retry-After")
					}
					if status, retryAfter := post(); status != test.status || retryAfter != test.retryAfter {
						t.Fatalf("got %d and Retry-After %q", status, retryAfter)
					}
					applied := len(graph(t, tenant, "GET", mobile, "").list(t, "id")) == 1
					if applied != test.applied {
						t.Errorf("applied: %v", applied)
					}
					want := 201
					if applied {
						want = 400 // a second mobile
					}
					if strings.Contains(test.fault, "hang") {
						return // this client times out at once
					}
					if status, _ := post(); status != want {
						t.Errorf("the fault applies to a second call: %d", status)
					}
				})
			})
		}
	}
}

func TestApplyLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tenant := newTenant(t)
		base, client := serveInBubble(t, tenant, false)
		admin(t, tenant, "PUT", "/sandbox/entra/faults", `{"faults":[{"path":"revokeSignInSessions","kind":"apply_late","delay_ms":40}]}`).want(t, 200)
		r, _ := http.NewRequestWithContext(t.Context(), "POST", base+"/v1.0/users/"+sam+"/revokeSignInSessions", nil)
		r.Header.Set("Authorization", "Bearer "+tenant.issueToken(root))
		if reply, err := client.Do(r); err == nil {
			reply.Body.Close()
			t.Fatal("there is a response: ", reply.Status)
		}
		revoked := func() bool {
			return admin(t, tenant, "GET", "/sandbox/tenant/users/"+sam, "").get(t, "sessions_valid_from") == "2026-11-23T13:00:00Z"
		}
		if revoked() {
			t.Error("applied at once")
		}
		time.Sleep(39 * time.Millisecond)
		if revoked() {
			t.Error("applied too soon")
		}
		time.Sleep(2 * time.Millisecond)
		if !revoked() {
			t.Fatal("never applied")
		}

		// With a status there is a response immediately; a closed tenant applies nothing.
		admin(t, tenant, "PUT", "/sandbox/entra/faults", `{"faults":[{"path":"phoneMethods","kind":"apply_late","delay_ms":3600000,"status":504}]}`).want(t, 200)
		graph(t, tenant, "POST", "/v1.0/users/"+sam+"/authentication/phoneMethods", `{"phoneNumber":"+1 4255550111","phoneType":"mobile"}`).want(t, 504)
		if n := admin(t, tenant, "GET", "/sandbox/entra/faults", "").get(t, "pending"); n != 1.0 {
			t.Errorf("%v writes are pending", n)
		}
		tenant.Close()
		tenant.Close()
		if n := admin(t, tenant, "GET", "/sandbox/entra/faults", "").get(t, "pending"); n != 0.0 {
			t.Errorf("%v writes are pending after Close", n)
		}
	})
}

func TestFaultsAreCountedAndCleared(t *testing.T) {
	tenant := newTenant(t)
	path := "/v1.0/users/" + dana
	admin(t, tenant, "PUT", "/sandbox/entra/faults", `{"faults":[{"kind":"throttle","skip":1,"times":2},{"path":"/token","kind":"status","times":-1}]}`).want(t, 200)
	for i, want := range []int{200, 429, 429, 200} {
		if a := graph(t, tenant, "GET", path, ""); a.status != want {
			t.Errorf("call %d: %d, want %d", i, a.status, want)
		}
	}
	for range 3 {
		w := httptest.NewRecorder()
		tenant.Handler().ServeHTTP(w, httptest.NewRequest("POST", root+"/"+testTenant+"/oauth2/v2.0/token", nil))
		if w.Code != 503 {
			t.Errorf("token endpoint: %d", w.Code)
		}
	}
	if n := len(admin(t, tenant, "DELETE", "/sandbox/entra/faults", "").get(t, "faults").([]any)); n != 0 {
		t.Errorf("%d faults are left", n)
	}
	for _, bad := range []string{`{"faults":[{"kind":"explode"}]}`, `{"faults":[{"kind":"status","status":200}]}`, `{"faults":[{"kind":"hang","x":1}]}`, `{"faults":[null]}`, `x`} {
		a := admin(t, tenant, "PUT", "/sandbox/entra/faults", bad).want(t, 400)
		if a.get(t, "error") != "invalid_request" || a.get(t, "message") == "" {
			t.Error(a.text)
		}
	}
}

func TestCallsReportPermissions(t *testing.T) {
	tenant := newTenant(t)
	grant(t, tenant, "User.Read.All", "UserAuthMethod-Phone.ReadWrite.All")
	graph(t, tenant, "GET", "/v1.0/users/"+dana+"?$select=id", "")
	graph(t, tenant, "GET", "/v1.0/users/"+sam+"?$select=id", "")
	graph(t, tenant, "DELETE", "/v1.0/users/"+dana+"/authentication/phoneMethods/"+IDOffice, "")
	graph(t, tenant, "GET", "/v1.0/users/"+dana+"/authentication/methods", "")
	graph(t, tenant, "GET", "/v1.0/nowhere", "")
	var log Calls
	if err := json.Unmarshal([]byte(admin(t, tenant, "GET", "/sandbox/entra/calls", "").text), &log); err != nil {
		t.Fatal(err)
	}
	if want := []string{"User.ReadBasic.All", "UserAuthMethod-Phone.ReadWrite.All", "UserAuthenticationMethod.Read.All"}; !slices.Equal(log.Demanded, want) {
		t.Error(log.Demanded)
	}
	if want := []string{"User.Read.All", "UserAuthMethod-Phone.ReadWrite.All"}; !slices.Equal(log.Used, want) {
		t.Error(log.Used)
	}
	if c := log.Calls[0]; c.Count != 2 || c.Path != "/v1.0/users/{id}" || c.Status != 200 || !c.Granted || c.Used[0] != "User.Read.All" {
		t.Errorf("%+v", c)
	}
	if c := log.Calls[2]; c.Status != 403 || c.Granted || c.Used != nil {
		t.Errorf("%+v", c)
	}
	if len(log.Recent) != 5 || log.Recent[2].Method != "DELETE" || log.Recent[2].Path != "/v1.0/users/"+dana+"/authentication/phoneMethods/"+IDOffice || log.Recent[4].Status != 501 {
		t.Errorf("%+v", log.Recent)
	}
	// Write calls are kept longer, and their bodies can be compared.
	phones := "/v1.0/users/" + sam + "/authentication/phoneMethods"
	for _, number := range []string{"+1 4255550111", "+1 4255550112", "+1 4255550111"} {
		graph(t, tenant, "POST", phones, `{"phoneNumber":"`+number+`","phoneType":"mobile"}`)
	}
	for range keptCalls {
		graph(t, tenant, "GET", "/v1.0/users/"+dana+"?$select=id", "")
	}
	all := admin(t, tenant, "GET", "/sandbox/entra/calls", "").text
	log = Calls{}
	if err := json.Unmarshal([]byte(all), &log); err != nil {
		t.Fatal(err)
	}
	if len(log.Recent) != keptCalls || len(log.Changes) != 4 || log.Changes[0].Method != "DELETE" || log.Changes[0].Digest != "" || log.Changes[1].Status != 201 || log.Changes[2].Status != 400 ||
		log.Changes[1].Digest == "" || log.Changes[1].Digest == log.Changes[2].Digest || log.Changes[1].Digest != log.Changes[3].Digest {
		t.Errorf("%d calls, and %+v", len(log.Recent), log.Changes)
	}
	if strings.Contains(all, "4255550111") {
		t.Error("the log contains a request body")
	}
	admin(t, tenant, "DELETE", "/sandbox/entra/calls", "")
	log = Calls{}
	if err := json.Unmarshal([]byte(admin(t, tenant, "GET", "/sandbox/entra/calls", "").text), &log); err != nil || len(log.Calls)+len(log.Recent)+len(log.Changes) != 0 {
		t.Errorf("the log is not cleared: %+v %v", log, err)
	}
}

func TestChangedReportsEveryChange(t *testing.T) {
	tenant := newTenant(t)
	for _, test := range []struct {
		name    string
		do      func()
		changes bool
	}{
		{"read", func() { graph(t, tenant, "GET", "/v1.0/users", "") }, false},
		{"refused", func() { graph(t, tenant, "DELETE", "/v1.0/users/"+dana+"/authentication/fido2Methods/none", "") }, false},
		{"graph", func() { graph(t, tenant, "DELETE", "/v1.0/users/"+dana+"/authentication/fido2Methods/pk-1", "") }, true},
		{"admin", func() { admin(t, tenant, "PATCH", "/sandbox/tenant/users/"+dana, `{"enabled":false}`) }, true},
		{"admin refused", func() { admin(t, tenant, "PATCH", "/sandbox/tenant/users/"+dana, `{"x":1}`) }, false},
		{"grant", func() { grant(t, tenant) }, true},
	} {
		changed := tenant.Changed()
		test.do()
		select {
		case <-changed:
			if !test.changes {
				t.Errorf("%s: notified of a change", test.name)
			}
		default:
			if test.changes {
				t.Errorf("%s: not notified", test.name)
			}
		}
	}
}

func TestConcurrentCalls(t *testing.T) {
	tenant := newTenant(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 20 {
				switch i % 4 {
				case 0:
					graph(t, tenant, "GET", "/beta/users/"+dana+"/authentication/methods", "")
				case 1:
					graph(t, tenant, "POST", "/v1.0/users/"+dana+"/authentication/temporaryAccessPassMethods", "")
				case 2:
					admin(t, tenant, "GET", "/sandbox/tenant/users", "")
				case 3:
					admin(t, tenant, "PATCH", "/sandbox/tenant/users/"+dana, `{"groups":["Help desk"]}`)
				}
			}
		})
	}
	wg.Wait()
	if kinds := admin(t, tenant, "GET", "/sandbox/tenant/users/"+dana, "").text; strings.Count(kinds, TypePass) != 1 {
		t.Error("there is not exactly one pass")
	}
}

func TestBaseIsTheRequestsHostUntilItIsSet(t *testing.T) {
	tenant := newTenant(t, func(o *Options) { o.Base = "" })
	r := httptest.NewRequest("GET", "https://login.test:8443/"+testTenant+"/v2.0/.well-known/openid-configuration", nil)
	r.TLS = &tls.ConnectionState{}
	w := httptest.NewRecorder()
	tenant.Handler().ServeHTTP(w, r)
	a := answer{w.Code, w.Header(), w.Body.String()}.want(t, 200)
	if a.get(t, "issuer") != "https://login.test:8443/"+testTenant+"/v2.0" {
		t.Error(a.text)
	}
}
