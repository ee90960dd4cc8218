package entra

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// tokenLife is how long an access token is valid. The real service picks 60 to 90 minutes; clients must go by expires_in.
const tokenLife = time.Hour

// graphAppID is Microsoft Graph's own application id, which a scope may use instead of its URL.
const graphAppID = "00000003-0000-0000-c000-000000000000"

// login is one request to the login endpoint.
type login struct {
	t           *Tenant
	r           *http.Request
	body        []byte
	root        string // public root of the tenant
	trace       string // trace_id of errors
	correlation string // the client-request-id of the request, echoed
}

func (t *Tenant) newLogin(r *http.Request, body []byte) *login {
	l := &login{t: t, r: r, body: body, root: t.root(r), trace: newGUID(), correlation: r.Header.Get("client-request-id")}
	if l.correlation == "" {
		l.correlation = newGUID()
	}
	return l
}

func (t *Tenant) root(r *http.Request) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.base != "" {
		return t.base
	}
	return "https://" + r.Host
}

func (l *login) handle(fault string) reply {
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	path, p := l.route()
	l.t.count(Call{Method: l.r.Method, Path: path, Status: p.status, Fault: fault}, l.r.URL.Path, "", nil)
	return p
}

func (l *login) refuse(status int, code, message, fault string) reply {
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	l.t.count(Call{Method: l.r.Method, Path: l.r.URL.Path, Status: status, Fault: fault}, l.r.URL.Path, "", nil)
	return l.failure(status, "temporarily_unavailable", 90033, "A transient error has occurred. Please try again. ("+code+": "+message+")")
}

func (l *login) drop(fault string) {
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	l.t.count(Call{Method: l.r.Method, Path: l.r.URL.Path, Fault: fault}, l.r.URL.Path, "", nil)
}

// route handles the request and returns the path's template with the reply.
func (l *login) route() (string, reply) {
	if l.r.URL.Path == "/common/discovery/instance" {
		return l.r.URL.Path, l.requireVerb(http.MethodGet, l.instanceDiscovery)
	}
	tenant, rest, _ := strings.Cut(strings.TrimPrefix(l.r.URL.Path, "/"), "/")
	endpoint, verb := l.openIDConfiguration, http.MethodGet
	switch rest {
	case "v2.0/.well-known/openid-configuration":
	case "discovery/v2.0/keys":
		endpoint = l.keys
	case "oauth2/v2.0/token":
		endpoint, verb = l.token, http.MethodPost
	default:
		return l.r.URL.Path, l.plain(http.StatusNotImplemented, fmt.Sprintf(
			"The sandbox's login endpoint does not support %s %s.", l.r.Method, l.r.URL.Path))
	}
	path := "/{tenant}/" + rest
	if !strings.EqualFold(tenant, l.t.tenantID) && l.t.domain(tenant) == nil {
		return path, l.failure(http.StatusBadRequest, "invalid_tenant", 90002, fmt.Sprintf(
			"Tenant '%s' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. "+
				"Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant.", tenant))
	}
	return path, l.requireVerb(verb, endpoint)
}

func (l *login) requireVerb(verb string, endpoint func() reply) reply {
	if l.r.Method != verb {
		return l.failure(http.StatusMethodNotAllowed, "invalid_request", 900561, fmt.Sprintf(
			"The endpoint only accepts %s requests. Received a %s request.", verb, l.r.Method))
	}
	return endpoint()
}

func (l *login) instanceDiscovery() reply {
	host := strings.TrimPrefix(l.root, "https://")
	return l.plain(http.StatusOK, map[string]any{
		"tenant_discovery_endpoint": l.root + "/" + l.t.tenantID + "/v2.0/.well-known/openid-configuration",
		"api-version":               "1.1",
		"metadata":                  []any{map[string]any{"preferred_network": host, "preferred_cache": host, "aliases": []string{host}}},
	})
}

func (l *login) openIDConfiguration() reply {
	authority := l.root + "/" + l.t.tenantID
	return l.plain(http.StatusOK, map[string]any{
		"issuer":                                authority + "/v2.0",
		"authorization_endpoint":                authority + "/oauth2/v2.0/authorize",
		"token_endpoint":                        authority + "/oauth2/v2.0/token",
		"jwks_uri":                              authority + "/discovery/v2.0/keys",
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "private_key_jwt", "client_secret_basic"},
		"response_types_supported":              []string{"code", "id_token", "code id_token", "id_token token"},
		"scopes_supported":                      []string{"openid", "profile", "email", "offline_access"},
		"subject_types_supported":               []string{"pairwise"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"tenant_region_scope":                   "EU",
		"msgraph_host":                          strings.TrimPrefix(l.root, "https://"),
	})
}

func (l *login) keys() reply {
	k := l.t.key()
	return l.plain(http.StatusOK, map[string]any{"keys": []any{map[string]any{
		"kty": "RSA", "use": "sig", "alg": "RS256", "kid": keyID(k), "x5t": keyID(k),
		"n": b64(k.N.Bytes()), "e": b64(big.NewInt(int64(k.E)).Bytes()),
	}}})
}

// token handles the client credentials grant: an application requests a token for itself.
func (l *login) token() reply {
	form, err := url.ParseQuery(string(l.body))
	if err != nil {
		return l.failure(http.StatusBadRequest, "invalid_request", 900144, "The request body must be a form.")
	}
	client, secret := form.Get("client_id"), form.Get("client_secret")
	if user, password, ok := l.r.BasicAuth(); ok && client == "" {
		client, secret = user, password
	}
	if grant := form.Get("grant_type"); grant != "client_credentials" {
		return l.failure(http.StatusBadRequest, "unsupported_grant_type", 70003, fmt.Sprintf("The app requested an unsupported grant type '%s'.", grant))
	}
	if !strings.EqualFold(client, l.t.clientID) {
		return l.failure(http.StatusBadRequest, "unauthorized_client", 700016, fmt.Sprintf(
			"Application with identifier '%s' was not found in the directory '%s'. This can happen if the application has not been installed by the "+
				"administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant.",
			client, l.t.tenantName))
	}
	switch assertion := form.Get("client_assertion"); {
	case assertion != "":
		if fault := l.checkAssertion(form.Get("client_assertion_type"), assertion); fault != nil {
			return *fault
		}
	case secret == "":
		return l.failure(http.StatusUnauthorized, "invalid_client", 7000218,
			"The request body must contain the following parameter: 'client_assertion' or 'client_secret'.")
	case secret != l.t.clientSecret:
		return l.failure(http.StatusUnauthorized, "invalid_client", 7000215, fmt.Sprintf(
			"Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, "+
				"for a secret added to app '%s'.", l.t.clientID))
	}
	// Microsoft's libraries add the OpenID scopes to every request; they have no effect here.
	scope := strings.Join(slices.DeleteFunc(strings.Fields(form.Get("scope")), func(s string) bool {
		return s == "openid" || s == "offline_access" || s == "profile" || s == "email"
	}), " ")
	resource, ok := strings.CutSuffix(scope, "/.default")
	if !ok {
		return l.failure(http.StatusBadRequest, "invalid_scope", 1002012, fmt.Sprintf(
			"The provided value for scope %s is not valid. Client credential flows must have a scope value with /.default suffixed to the "+
				"resource identifier (application ID URI).", scope))
	}
	if resource = strings.TrimRight(resource, "/"); resource != l.root && resource != graphAppID {
		return l.failure(http.StatusBadRequest, "invalid_resource", 500011, fmt.Sprintf(
			"The resource principal named %s was not found in the tenant named %s. This can happen if the application has not been installed by the "+
				"administrator of the tenant or consented to by any user in the tenant. You might have sent your authentication request to the wrong tenant.",
			resource, l.t.tenantName))
	}
	seconds := int(tokenLife/time.Second) - 1
	return l.plain(http.StatusOK, map[string]any{
		"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": l.t.issueToken(l.root),
	})
}

// checkAssertion checks a client assertion (certificate or federated credential) as far as possible without its key: three parts,
// an asymmetric algorithm, this client as the subject if it is the issuer, and the expiry.
func (l *login) checkAssertion(kind, assertion string) *reply {
	invalid := func(number int, text string) *reply {
		p := l.failure(http.StatusUnauthorized, "invalid_client", number, text)
		return &p
	}
	if kind != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
		return invalid(900144, "The request body must contain the parameter 'client_assertion_type' with the value 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer'.")
	}
	var header struct {
		Alg string `json:"alg"`
	}
	var claims struct {
		Issuer  string  `json:"iss"`
		Subject string  `json:"sub"`
		Expires float64 `json:"exp"`
	}
	parts := strings.Split(assertion, ".")
	if len(parts) != 3 || parts[2] == "" || !decodePart(parts[0], &header) || !decodePart(parts[1], &claims) {
		return invalid(50027, "JWT token is invalid or malformed.")
	}
	if !slices.Contains([]string{"RS256", "PS256", "ES256"}, header.Alg) {
		return invalid(5002738, fmt.Sprintf("Invalid JWT token. '%s' is not a supported signature algorithm.", header.Alg))
	}
	if claims.Issuer == l.t.clientID && claims.Subject != l.t.clientID {
		return invalid(700021, "Client assertion application identifier doesn't match 'client_id' parameter.")
	}
	if time.Unix(int64(claims.Expires), 0).Before(l.t.now()) {
		return invalid(700024, "Client assertion is not within its valid time range.")
	}
	return nil
}

// claims are the claims of an app-only access token for Graph (v1.0 tokens, which Graph uses).
type claims struct {
	Audience   string   `json:"aud"`
	Issuer     string   `json:"iss"`
	IssuedAt   int64    `json:"iat"`
	NotBefore  int64    `json:"nbf"`
	Expires    int64    `json:"exp"`
	AppName    string   `json:"app_displayname,omitempty"`
	AppID      string   `json:"appid"`
	AppAuth    string   `json:"appidacr"`
	Provider   string   `json:"idp"`
	Type       string   `json:"idtyp"`
	ObjectID   string   `json:"oid"`
	Roles      []string `json:"roles,omitempty"`
	Subject    string   `json:"sub"`
	Region     string   `json:"tenant_region_scope"`
	TenantID   string   `json:"tid"`
	UniqueID   string   `json:"uti"`
	Version    string   `json:"ver"`
	WellKnowns []string `json:"wids"`
}

func (t *Tenant) issuer() string { return "https://sts.windows.net/" + t.tenantID + "/" }

func (t *Tenant) issueToken(audience string) string {
	now := t.now()
	sum := sha256.Sum256([]byte(t.tenantID + t.clientID))
	principal := fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
	key := t.key()
	head := encodePart(map[string]string{"typ": "JWT", "alg": "RS256", "x5t": keyID(key), "kid": keyID(key)})
	body := encodePart(claims{
		Audience: audience, Issuer: t.issuer(), IssuedAt: now.Unix(), NotBefore: now.Unix(), Expires: now.Add(tokenLife).Unix(),
		AppName: t.appName, AppID: t.clientID, AppAuth: "1", Provider: t.issuer(), Type: "app", ObjectID: principal, Roles: t.granted,
		Subject: principal, Region: "EU", TenantID: t.tenantID, UniqueID: rand.Text()[:22], Version: "1.0",
		WellKnowns: append([]string{"0997a1d0-0d1d-4acb-b408-d5ca73121e90"}, t.appRoles...),
	})
	digest := sha256.Sum256([]byte(head + "." + body))
	signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest[:])
	if err != nil {
		panic(fmt.Errorf("entra: signing a token: %w", err))
	}
	return head + "." + body + "." + b64(signature)
}

// checkToken checks a request's Authorization header and returns the error that Graph would return, or nil.
func (t *Tenant) checkToken(authorization, audience string) *graphError {
	refuse := func(message string) *graphError {
		return &graphError{http.StatusUnauthorized, "InvalidAuthenticationToken", message}
	}
	kind, token, _ := strings.Cut(authorization, " ")
	if token = strings.TrimSpace(token); !strings.EqualFold(kind, "Bearer") || token == "" {
		return refuse("Access token is empty.")
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return refuse("IDX14100: JWT is not well formed, there are no dots (.).\nThe token needs to be in JWS or JWE Compact Serialization Format. (JWS): 'EncodedHeader.EndcodedPayload.EncodedSignature'.")
	}
	var c claims
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || !decodePart(parts[1], &c) {
		return refuse("IDX12723: Unable to decode the payload as Base64Url encoded string.")
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if rsa.VerifyPKCS1v15(&t.key().PublicKey, crypto.SHA256, digest[:], signature) != nil || c.Issuer != t.issuer() {
		return refuse("Access token validation failure. Invalid signature or issuer.")
	}
	if c.Audience != audience && c.Audience != graphAppID {
		return refuse("Access token validation failure. Invalid audience.")
	}
	if t.now().Unix() >= c.Expires {
		return refuse("Lifetime validation failed, the token is expired.")
	}
	return nil
}

func (l *login) failure(status int, code string, number int, text string) reply {
	now := l.t.now().UTC().Format("2006-01-02 15:04:05Z")
	return l.plain(status, map[string]any{
		"error": code,
		"error_description": fmt.Sprintf("AADSTS%d: %s Trace ID: %s Correlation ID: %s Timestamp: %s",
			number, text, l.trace, l.correlation, now),
		"error_codes": []int{number}, "timestamp": now, "trace_id": l.trace, "correlation_id": l.correlation,
		"error_uri": fmt.Sprintf("%s/error?code=%d", l.root, number),
	})
}

func (l *login) plain(status int, body any) reply {
	h := http.Header{}
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store, no-cache")
	h.Set("x-ms-request-id", l.trace)
	h.Set("client-request-id", l.correlation)
	if text, ok := body.(string); ok {
		body = map[string]string{"error": "not_implemented", "error_description": text}
	}
	return reply{status, h, body}
}

func keyID(k *rsa.PrivateKey) string {
	sum := sha1.Sum(k.N.Bytes())
	return b64(sum[:])
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func encodePart(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Errorf("entra: writing a token: %w", err))
	}
	return b64(b)
}

func decodePart(part string, v any) bool {
	b, err := base64.RawURLEncoding.DecodeString(part)
	return err == nil && json.Unmarshal(b, v) == nil
}
