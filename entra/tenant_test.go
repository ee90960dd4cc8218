package entra

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	sandbox "countersign/sandbox/entra"
)

// The tests in this file run against the sandbox's tenant, over TLS, with a real credential.

const (
	dana   = "3b9c2f04-7d51-4e0a-9c6e-58d1f0a7b2c3"
	elias  = "c1f6a8d2-0e47-4b39-8a15-97e2d4b6c301"
	gloria = "8e4d7b19-52c6-4f3a-b0d8-1a6f3c9e7d24"
	olga   = "5a0d9e73-c8b4-4162-97fe-e3b12d64a58f"
	pat    = "e7b35c80-1f9a-4d26-b6c4-0d8a2f57e913"
	quinn  = "94c6f1ab-3e02-4870-a5d9-6b7e81f2c04d"
	dollar = "2d8f60e5-b7a3-4c91-8e74-f5c093a1d6b8"
	bo     = "71e0c4d9-a6f2-4835-9b1c-d28e5f7a306b"

	operators = "b64e1f08-9d3c-47a5-8c20-7e95d1a3f6b2" // role-assignable
	nested    = "0c7a9d52-e6f4-4b18-93ad-15f8e2c6b07d" // in operators
	helpdesk  = "f2d85b16-4a79-4e03-b7c1-c90e6a3d8f54"

	globalAdmin = "62e90394-69f5-4237-9190-012177145e10"
	userAdmin   = "fe930be7-5e62-47db-91af-98c3a49a38b1"
	customRole  = "a93f5d20-7c1e-4b86-8d04-e2f6b19c7a35"
)

// tenant is a sandbox and a client of it.
type tenant struct {
	*Client
	*sandbox.Tenant
	url  string
	http *http.Client
}

// permissions returns all permissions of this package's calls.
func permissions() []string {
	var all []string
	for _, e := range Endpoints() {
		for _, p := range []Permission{e.Permission, e.Also} {
			if p != "" && !slices.Contains(all, string(p)) {
				all = append(all, string(p))
			}
		}
	}
	return all
}

func newTenant(t *testing.T, change ...func(*sandbox.Options)) *tenant {
	t.Helper()
	created := time.Date(2026, 3, 2, 8, 30, 0, 0, time.UTC)
	used := time.Date(2026, 11, 20, 17, 5, 0, 0, time.UTC)
	o := sandbox.Options{
		TenantID: "7a1c0c0e-5c1d-4e55-9f0e-0f1a2b3c4d5e", TenantName: "Fernhill",
		ClientID: "d0c7e4a1-93b5-4f62-8e1d-a6b0c2f9735e", ClientSecret: "very~secret", Granted: permissions(),
		Users: []sandbox.User{
			{ID: dana, UserPrincipalName: "dana.whitfield@fernhill.example", DisplayName: "Dana Whitfield", Mail: "dana.whitfield@fernhill.example",
				ProxyAddresses: []string{"SMTP:dana.whitfield@fernhill.example", "smtp:dana@fernhill.example", "smtp:shared@fernhill.example"},
				JobTitle:       "Analyst", Department: "Finance", Manager: olga,
				Created: created, LastPasswordChange: created.AddDate(0, 1, 0), SessionsValidFrom: created.AddDate(0, 2, 0),
				DefaultMethod: "push", Methods: []sandbox.Method{
					sandbox.Phone("mobile", "+1 4255551267").With("createdDateTime", created),
					sandbox.Phone("alternateMobile", "+1 4255550199"),
					sandbox.Phone("office", "+1 4255550100x42"),
					sandbox.Authenticator("_jpuR-TGZtk6aQCLF3BQjA2", "Dana's Pixel"),
					sandbox.Authenticator("9f1f52b6-7a0e-4d4f-a3c1-6d2e8b0c9a47", "iPad"),
					sandbox.SoftwareOATH("4c1f0a92-e5d7-4b60-8a3e-f7c9d2b1605e"),
					sandbox.HardwareOATH("aa3d7e10-6f24-4c85-b9e1-0d5a8c72f3b6", "GALT11420104", "Feitian", "c200").With("lastUsedDateTime", used),
					sandbox.Passkey("-2_GRUg2-HYz6_1YG4YRAQ2", "Red key", "YubiKey 5C NFC", "2fc0579f-8113-47ea-b116-bb5a8db9202a").With("createdDateTime", created),
					sandbox.WindowsHello("jpuR-TGZtk6aQCLF3BQjA2", "FH-LT-0042"),
					sandbox.PlatformCredential("mac/1", "Dana's MacBook", "macOS"),
					sandbox.Email("dana.w@mail.example"),
					sandbox.External("eam-1", "Duo", "c2b3"),
					sandbox.QRCodePIN("qr-1"),
					sandbox.TemporaryAccessPass("tap-1", created.AddDate(10, 0, 0), time.Hour, true),
					{Type: "#microsoft.graph.carrierPigeonAuthenticationMethod", ID: "p1", Properties: sandbox.Properties{
						{Name: "displayName", Value: "Bertie"}, {Name: "createdDateTime", Value: "2026-03-02T08:30:00Z"}, {Name: "wings", Value: 2}}},
				}},
			{ID: olga, UserPrincipalName: "olga.o'neill@fernhill.example", DisplayName: "Olga O'Neill", Mail: "olga.oneill@fernhill.example"},
			{ID: pat, UserPrincipalName: "pat_partner.example#EXT#@fernhill.example", DisplayName: "Pat Moreau", Mail: "pat@partner.example", Guest: true},
			{ID: quinn, UserPrincipalName: "quinn@fernhill.example", DisplayName: "Quinn", Mail: "shared@fernhill.example", Synced: true},
			{ID: dollar, UserPrincipalName: "$ervice+1@fernhill.example", DisplayName: "Žofie", ManagementRestricted: true},
			{ID: gloria, UserPrincipalName: "gloria@fernhill.example", DisplayName: "Gloria Adeyemi"},
			{ID: elias, UserPrincipalName: "elias@fernhill.example", DisplayName: "Elias Brandt"},
			{ID: bo, UserPrincipalName: "bo@fernhill.example", DisplayName: "Bo Castellan", Blocked: true},
		},
		Groups: []sandbox.Group{
			{ID: operators, DisplayName: "Cloud operators", RoleAssignable: true, Members: []string{nested}, Owners: []string{olga}},
			{ID: nested, DisplayName: "Operators in Brno", Members: []string{elias}},
			{ID: helpdesk, DisplayName: "Help desk", Members: []string{dana}, Owners: []string{dana}},
		},
		Roles: []sandbox.RoleAssignment{
			{Principal: gloria, Role: globalAdmin},
			{Principal: gloria, Role: customRole, Scope: "/administrativeUnits/au1"},
			{Principal: elias, Role: userAdmin, Eligible: true},
			{Principal: operators, Role: "29232cdf-9323-42fd-ade2-1d097af3e4de"},
			{Principal: operators, Role: globalAdmin, Eligible: true},
		},
		CustomRoles: []sandbox.RoleDefinition{{ID: customRole, DisplayName: "Badge printer", Custom: true}},
	}
	for _, f := range change {
		f(&o)
	}
	x := &tenant{Tenant: sandbox.New(o)}
	s := tlsServer(x.Handler())
	t.Cleanup(func() { x.Close(); s.Close() })
	x.SetBase(s.URL)
	x.url, x.http = s.URL, s.Client()
	x.Client = x.signIn(t, o.ClientSecret, 10*time.Second)
	return x
}

func (x *tenant) signIn(t *testing.T, secret string, timeout time.Duration) *Client {
	t.Helper()
	cred, err := NewCredential(CredentialOptions{Kind: "secret", Tenant: "7a1c0c0e-5c1d-4e55-9f0e-0f1a2b3c4d5e",
		ClientID: "d0c7e4a1-93b5-4f62-8e1d-a6b0c2f9735e", Secret: secret, Authority: x.url, HTTP: x.http, TrustAuthority: true})
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Options{Graph: x.url, Credential: cred, Transport: x.http.Transport, CallTimeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// admin calls the sandbox's own API and decodes the answer into v.
func (x *tenant) admin(t *testing.T, method, path string, body, v any) {
	t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	r, w := httptest.NewRequest(method, path, bytes.NewReader(b)), httptest.NewRecorder()
	r.Header.Set("Content-Type", "application/json")
	x.AdminAPI().ServeHTTP(w, r)
	if w.Code >= 300 {
		t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	if v != nil {
		if err := json.Unmarshal(w.Body.Bytes(), v); err != nil {
			t.Fatalf("%s %s: %v in %s", method, path, err, w.Body)
		}
	}
}

func (x *tenant) fault(t *testing.T, faults ...sandbox.Fault) {
	t.Helper()
	x.admin(t, "PUT", "/sandbox/entra/faults", map[string]any{"faults": faults}, nil)
}

func (x *tenant) grant(t *testing.T, roles []string) {
	t.Helper()
	x.admin(t, "PUT", "/sandbox/grant", map[string]any{"roles": roles}, nil)
}

func (x *tenant) methods(t *testing.T, user string) MethodList {
	t.Helper()
	l, err := x.Client.Methods(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func findMethod(l MethodList, id string) (Method, bool) {
	i := slices.IndexFunc(l.Methods, func(m Method) bool { return m.ID == id })
	if i < 0 {
		return Method{}, false
	}
	return l.Methods[i], true
}

func TestMethodsOfEveryKind(t *testing.T) {
	x := newTenant(t)
	created, long := time.Date(2026, 3, 2, 8, 30, 0, 0, time.UTC), time.Date(2036, 3, 2, 9, 30, 0, 0, time.UTC)
	want := MethodList{Default: "push", Methods: []Method{
		{ID: "28c10230-6103-485e-b985-444c60001490", Kind: KindPassword, ODataType: "#microsoft.graph.passwordAuthenticationMethod", Created: created.AddDate(0, 1, 0), Usable: true},
		{ID: "3179e48a-750b-4051-897c-87b9720928f7", Kind: KindPhone, ODataType: "#microsoft.graph.phoneAuthenticationMethod",
			PhoneType: "mobile", Phone: "+1 4255551267", Status: "notAllowedByPolicy", Created: created, Usable: true},
		{ID: "b6332ec1-7057-4abe-9331-3d72feddfe41", Kind: KindPhone, ODataType: "#microsoft.graph.phoneAuthenticationMethod",
			PhoneType: "alternateMobile", Phone: "+1 4255550199", Status: "notSupported", Usable: true},
		{ID: "e37fc753-ff3b-4958-9484-eaa9425c82bc", Kind: KindPhone, ODataType: "#microsoft.graph.phoneAuthenticationMethod",
			PhoneType: "office", Phone: "+1 4255550100x42", Status: "notSupported", Usable: true},
		{ID: "_jpuR-TGZtk6aQCLF3BQjA2", Kind: KindAuthenticator, ODataType: "#microsoft.graph.microsoftAuthenticatorAuthenticationMethod", Name: "Dana's Pixel", Usable: true},
		{ID: "9f1f52b6-7a0e-4d4f-a3c1-6d2e8b0c9a47", Kind: KindAuthenticator, ODataType: "#microsoft.graph.microsoftAuthenticatorAuthenticationMethod", Name: "iPad", Usable: true},
		{ID: "4c1f0a92-e5d7-4b60-8a3e-f7c9d2b1605e", Kind: KindSoftwareOATH, ODataType: "#microsoft.graph.softwareOathAuthenticationMethod", Usable: true},
		{ID: "-2_GRUg2-HYz6_1YG4YRAQ2", Kind: KindPasskey, ODataType: "#microsoft.graph.fido2AuthenticationMethod", Name: "Red key", Model: "YubiKey 5C NFC", Created: created, Usable: true},
		{ID: "jpuR-TGZtk6aQCLF3BQjA2", Kind: KindWindowsHello, ODataType: "#microsoft.graph.windowsHelloForBusinessAuthenticationMethod", Name: "FH-LT-0042", Usable: true},
		{ID: "mac/1", Kind: KindPlatformCredential, ODataType: "#microsoft.graph.platformCredentialAuthenticationMethod", Name: "Dana's MacBook", Model: "macOS", Usable: true},
		{ID: "3ddfcfc8-9383-446f-83cc-3ab9be4be18f", Kind: KindEmail, ODataType: "#microsoft.graph.emailAuthenticationMethod", Email: "dana.w@mail.example", Usable: true},
		{ID: "eam-1", Kind: KindExternal, ODataType: "#microsoft.graph.externalAuthenticationMethod", Name: "Duo", Usable: true},
		{ID: "qr-1", Kind: KindQRCode, ODataType: "#microsoft.graph.qrCodePinAuthenticationMethod", Usable: true},
		{ID: "tap-1", Kind: KindPass, ODataType: "#microsoft.graph.temporaryAccessPassAuthenticationMethod",
			Created: created.AddDate(10, 0, 0), UsableReason: "NotYetValid", ValidUntil: long, OneTime: true},
		{ID: "p1", Kind: KindUnknown, ODataType: "#microsoft.graph.carrierPigeonAuthenticationMethod", Name: "Bertie", Created: created, Usable: true},
		{ID: "aa3d7e10-6f24-4c85-b9e1-0d5a8c72f3b6", Kind: KindHardwareOATH, ODataType: "#microsoft.graph.hardwareOathAuthenticationMethod",
			Model: "Feitian c200", Serial: "GALT11420104", Status: "activated", LastUsed: time.Date(2026, 11, 20, 17, 5, 0, 0, time.UTC), Usable: true},
	}}
	if diff := cmp.Diff(want, x.methods(t, dana)); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}

	// If v1.0 lists hardware tokens, they are not listed twice.
	x.admin(t, "PATCH", "/sandbox/tenant", map[string]any{"quirks": map[string]bool{"hardware_oath_in_methods": true}}, nil)
	got := x.methods(t, dana)
	if n := len(got.Methods); n != len(want.Methods) {
		t.Errorf("%d methods, want %d", n, len(want.Methods))
	}
	if m, _ := findMethod(got, "aa3d7e10-6f24-4c85-b9e1-0d5a8c72f3b6"); m.Serial == "" {
		t.Errorf("the hardware token lost its device: %+v", m)
	}
}

// LastUsed contains only the methods for which beta returns the time.
func TestLastUsed(t *testing.T) {
	x := newTenant(t)
	used, err := x.LastUsed(t.Context(), dana)
	want := map[string]time.Time{"aa3d7e10-6f24-4c85-b9e1-0d5a8c72f3b6": time.Date(2026, 11, 20, 17, 5, 0, 0, time.UTC)}
	if diff := cmp.Diff(want, used); err != nil || diff != "" {
		t.Errorf("%v; want -, got +:\n%s", err, diff)
	}
}

// If a beta call fails, Methods returns the list with a gap; if the list itself fails, Methods fails.
func TestMethodsWithGaps(t *testing.T) {
	x := newTenant(t)
	x.fault(t, sandbox.Fault{Path: "hardwareOathMethods", Kind: "status", Status: 400, Code: "BadRequest", Message: "Resource not found for the segment 'hardwareOathMethods'."},
		sandbox.Fault{Path: "signInPreferences", Kind: "throttle", RetryAfter: new(3600)})
	l := x.methods(t, dana)
	if len(l.Methods) != 15 || l.Default != "" || len(l.Gaps) != 2 ||
		!strings.Contains(l.Gaps[0], "hardware tokens are not listed") || !strings.Contains(l.Gaps[1], "the default method is not known") {
		t.Errorf("got %d methods, default %q, gaps %q", len(l.Methods), l.Default, l.Gaps)
	}
	x.fault(t, sandbox.Fault{Path: "authentication/methods", Kind: "status", Status: 500})
	if l, err := x.Client.Methods(t.Context(), dana); !errors.Is(err, ErrUnreachable) || l.Methods != nil {
		t.Errorf("got %v, %v", l, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	x.fault(t, sandbox.Fault{Path: "hardwareOathMethods", Kind: "hang"})
	if l, err := x.Client.Methods(ctx, dana); !errors.Is(err, context.DeadlineExceeded) || l.Methods != nil {
		t.Errorf("got %v, %v", l, err)
	}
	if _, err := x.Client.Methods(t.Context(), "b0000000-1111-4222-8333-444444444444"); !errors.Is(err, ErrNotFound) {
		t.Errorf("nobody's methods: %v", err)
	}
}

func TestFind(t *testing.T) {
	x := newTenant(t)
	for ref, want := range map[string][]string{
		dana:                                        {dana},
		strings.ToUpper(dana):                       {dana},
		"dana.whitfield@fernhill.example":           {dana},
		" Dana.Whitfield@Fernhill.Example ":         {dana},
		"dana@fernhill.example":                     {dana}, // an alias
		"shared@fernhill.example":                   {quinn, dana},
		"pat_partner.example#EXT#@fernhill.example": {pat},
		"pat@partner.example":                       {pat},
		"olga.o'neill@fernhill.example":             {olga},
		"olga.oneill@fernhill.example":              {olga},
		"$ervice+1@fernhill.example":                {dollar},
		"nobody@fernhill.example":                   nil,
		"x' or mail ne 'y@fernhill.example":         nil,
		"a/b@fernhill.example":                      nil,
		"00000000-1111-4222-8333-444444444444":      nil,
		"dana":                                      nil,
		"":                                          nil,
		"dana whitfield@fernhill.example":           nil,
		"dana@fernhill.example\u0000":               nil,
		strings.Repeat("a", 400) + "@x":             nil,
	} {
		users, err := x.Find(t.Context(), ref)
		if err != nil {
			t.Errorf("Find(%q): %v", ref, err)
		}
		var got []string
		for _, u := range users {
			got = append(got, u.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("Find(%q) = %v, want %v", ref, got, want)
		}
	}
	x.fault(t, sandbox.Fault{Path: "/v1.0/users", Skip: 1, Kind: "status", Status: 500})
	if users, err := x.Find(t.Context(), "dana@fernhill.example"); err == nil || users != nil {
		t.Errorf("one of two searches failed, and Find returned %v and no error", users)
	}
}

func TestUser(t *testing.T) {
	x := newTenant(t)
	created := time.Date(2026, 3, 2, 8, 30, 0, 0, time.UTC)
	want := User{ID: dana, UPN: "dana.whitfield@fernhill.example", Name: "Dana Whitfield", Mail: "dana.whitfield@fernhill.example", Title: "Analyst",
		Aliases:    []string{"dana.whitfield@fernhill.example", "dana@fernhill.example", "shared@fernhill.example"},
		Department: "Finance", Enabled: true, Created: created, LastPasswordChange: created.AddDate(0, 1, 0), SessionsValidFrom: created.AddDate(0, 2, 0)}
	for _, ref := range []string{dana, "dana.whitfield@fernhill.example"} {
		if got, err := x.User(t.Context(), ref); err != nil || !cmp.Equal(got, want) {
			t.Errorf("User(%q) = %+v, %v", ref, got, err)
		}
	}
	for id, want := range map[string]string{pat: "guest", quinn: "synced", dollar: "restricted", bo: "blocked", olga: ""} {
		u, err := x.User(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for word, is := range map[string]bool{"guest": u.Guest, "synced": u.Synced, "restricted": u.Restricted, "blocked": !u.Enabled} {
			if is {
				got = append(got, word)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s is %v, want %q", u.Name, got, want)
		}
	}
	_, err := x.User(t.Context(), "nobody@fernhill.example")
	if e := asError(t, err); !errors.Is(err, ErrNotFound) || e.Code != "Request_ResourceNotFound" || e.RequestID == "" || e.ClientRequestID == "" {
		t.Errorf("got %+v", *e)
	}

	if m, ok, err := x.Manager(t.Context(), dana); err != nil || !ok || m.ID != olga || m.Name != "Olga O'Neill" {
		t.Errorf("Dana's manager: %+v, %t, %v", m, ok, err)
	}
	if m, ok, err := x.Manager(t.Context(), olga); err != nil || ok || !cmp.Equal(m, User{}) {
		t.Errorf("Olga's manager: %+v, %t, %v", m, ok, err)
	}
}

func TestChanges(t *testing.T) {
	x := newTenant(t)
	before, err := x.User(t.Context(), dana)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(x.SetEnabled(t.Context(), dana, false), x.RevokeSessions(t.Context(), dana)); err != nil {
		t.Fatal(err)
	}
	after, err := x.User(t.Context(), dana)
	if err != nil || after.Enabled || !after.SessionsValidFrom.After(before.SessionsValidFrom) {
		t.Errorf("%+v, %v", after, err)
	}
	if err := x.SetEnabled(t.Context(), dana, true); err != nil {
		t.Fatal(err)
	}
	if u, err := x.User(t.Context(), dana); err != nil || !u.Enabled {
		t.Errorf("%+v, %v", u, err)
	}

	const hardware = "aa3d7e10-6f24-4c85-b9e1-0d5a8c72f3b6"
	if err := x.DeactivateHardwareToken(t.Context(), dana, hardware); err != nil {
		t.Fatal(err)
	}
	if m, ok := findMethod(x.methods(t, dana), hardware); !ok || m.Usable || m.Status != "assigned" {
		t.Errorf("the deactivated token: %+v, %t", m, ok)
	}
}

func TestDeleteMethod(t *testing.T) {
	x := newTenant(t)
	l := x.methods(t, dana)
	order := []string{"b6332ec1-7057-4abe-9331-3d72feddfe41", "e37fc753-ff3b-4958-9484-eaa9425c82bc"} // alternate and office phone before mobile
	for _, m := range l.Methods {
		if m.Kind != KindPassword && m.Kind != KindUnknown && m.Kind != KindAuthenticator && !slices.Contains(order, m.ID) {
			order = append(order, m.ID)
		}
	}
	order = append(order, "_jpuR-TGZtk6aQCLF3BQjA2", "9f1f52b6-7a0e-4d4f-a3c1-6d2e8b0c9a47") // the default last
	for _, id := range order {
		m, _ := findMethod(l, id)
		if err := x.DeleteMethod(t.Context(), dana, m.Kind, m.ID); err != nil {
			t.Errorf("%s: %v", m, err)
		}
		if err := x.DeleteMethod(t.Context(), dana, m.Kind, m.ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s for the second time: %v", m, err)
		}
	}
	for _, m := range x.methods(t, dana).Methods {
		if m.Kind != KindPassword && m.Kind != KindUnknown {
			t.Errorf("%s is still there", m)
		}
		if err := x.DeleteMethod(t.Context(), dana, m.Kind, m.ID); err == nil {
			t.Errorf("%s was deleted", m)
		}
	}
}

func TestDefaultMethodIsDeletedLast(t *testing.T) {
	for _, older := range []bool{false, true} {
		x := newTenant(t, func(o *sandbox.Options) { o.Quirks.OlderDefaultMessage = older })
		if err := x.DeleteMethod(t.Context(), dana, KindAuthenticator, "9f1f52b6-7a0e-4d4f-a3c1-6d2e8b0c9a47"); err != nil {
			t.Fatal(err) // the default is still on the other app
		}
		err := x.DeleteMethod(t.Context(), dana, KindAuthenticator, "_jpuR-TGZtk6aQCLF3BQjA2")
		if !errors.Is(err, ErrDefaultMethod) || errors.Is(err, ErrForbidden) {
			t.Errorf("older %t: %v", older, err)
		}
	}
}

func TestPrivilege(t *testing.T) {
	x := newTenant(t)
	cloud := Group{operators, "Cloud operators", true}
	for id, want := range map[string]Privilege{
		dana: {Groups: []Group{{helpdesk, "Help desk", false}}}, // owns a group that cannot bring roles
		gloria: {Roles: []Role{
			{"Global Administrator", globalAdmin, true, "", "/"},
			{"Badge printer", customRole, true, "", "/administrativeUnits/au1"},
		}},
		elias: {Groups: []Group{{nested, "Operators in Brno", false}, cloud}, Roles: []Role{
			{"Exchange Administrator", "29232cdf-9323-42fd-ade2-1d097af3e4de", true, "Cloud operators", "/"},
			{"User Administrator", userAdmin, false, "", "/"},
			{"Global Administrator", globalAdmin, false, "Cloud operators", "/"},
		}},
		olga:   {OwnedRoleAssignable: []Group{cloud}},
		dollar: {Restricted: true},
	} {
		got, err := x.Privilege(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: want -, got +:\n%s", id, diff)
		}
	}
	if groups, err := x.Groups(t.Context(), elias); err != nil || len(groups) != 2 {
		t.Errorf("Elias' groups: %v, %v", groups, err)
	}
}

// If a lookup fails, Privilege returns an error and never an empty Privilege without one.
func TestPrivilegeFailsClosed(t *testing.T) {
	x := newTenant(t)
	for _, path := range []string{"/v1.0/users/" + elias, "transitiveMemberOf", "ownedObjects", "transitiveRoleAssignments", "roleEligibilityScheduleInstances", "roleDefinitions"} {
		for _, kind := range []string{"drop_request", "status"} {
			x.fault(t, sandbox.Fault{Path: path, Kind: kind, Status: 500, Times: 2})
			if p, err := x.Privilege(t.Context(), elias); !errors.Is(err, ErrUnreachable) || !cmp.Equal(p, Privilege{}) {
				t.Errorf("%s of %s: %+v, %v", kind, path, p, err)
			}
			x.fault(t)
		}
	}
	// The lookup of the group's eligibility fails, after that of the account itself.
	x.fault(t, sandbox.Fault{Path: "roleEligibilityScheduleInstances", Skip: 1, Kind: "status", Status: 500})
	if p, err := x.Privilege(t.Context(), elias); err == nil {
		t.Errorf("got %+v", p)
	}
	if p, err := x.Privilege(t.Context(), "00000000-1111-4222-8333-444444444444"); !errors.Is(err, ErrNotFound) {
		t.Errorf("nobody: %+v, %v", p, err)
	}

	// Without Entra ID P2 nobody is eligible, and everything else is complete.
	x.fault(t, sandbox.Fault{Path: "roleEligibilityScheduleInstances", Kind: "status", Status: 400, Code: "AadPremiumLicenseRequired",
		Message: "The tenant needs to have Microsoft Entra ID P2 or Microsoft Entra ID Governance license."})
	p, err := x.Privilege(t.Context(), gloria)
	if !errors.Is(err, ErrLicense) || errors.Is(err, ErrUnreachable) || len(p.Roles) != 2 {
		t.Errorf("got %+v, %v", p, err)
	}
}

// Graph omits the properties of groups if the app may not read them.
func TestUnreadableGroups(t *testing.T) {
	c := newTLSClient(t, func(w http.ResponseWriter, r *http.Request) {
		reply(w, 200, `{"value":[{"@odata.type":"#microsoft.graph.group","id":"g1","displayName":null,"isAssignableToRole":null}]}`)
	})
	groups, err := c.Groups(t.Context(), "u")
	if !errors.Is(err, ErrForbidden) || groups != nil || asError(t, err).Permission != PermGroupMemberRead {
		t.Errorf("got %v, %v", groups, err)
	}
}

func TestPagination(t *testing.T) {
	x := newTenant(t, func(o *sandbox.Options) {
		for i := range 1150 {
			o.Groups = append(o.Groups, sandbox.Group{ID: fmt.Sprintf("6d1f%04d-88aa-4c3e-9b57-2e0f4a6c8d1b", i), DisplayName: fmt.Sprint("Group ", i),
				Members: []string{bo}, Owners: []string{bo}, RoleAssignable: i == 1149})
		}
		for i := range 120 {
			o.Users = append(o.Users, sandbox.User{ID: fmt.Sprintf("3f2c%04d-16bd-4e90-a7c8-5d9b0e1f6a24", i),
				UserPrincipalName: fmt.Sprintf("u%d@fernhill.example", i), DisplayName: fmt.Sprint("User ", i), Mail: "everybody@fernhill.example"})
			o.Roles = append(o.Roles, sandbox.RoleAssignment{Principal: bo, Role: customRole, Scope: fmt.Sprint("/administrativeUnits/", i), Eligible: true})
		}
	})
	p, err := x.Privilege(t.Context(), bo)
	if err != nil || len(p.Groups) != 1150 || len(p.OwnedRoleAssignable) != 1 || len(p.Roles) != 120 {
		t.Errorf("%d groups, %d owned, %d roles, %v", len(p.Groups), len(p.OwnedRoleAssignable), len(p.Roles), err)
	}
	if users, err := x.Find(t.Context(), "everybody@fernhill.example"); err != nil || len(users) != 120 {
		t.Errorf("%d accounts, %v", len(users), err)
	}
}

// Members returns the people of a group, including those of nested groups.
func TestMembers(t *testing.T) {
	x := newTenant(t, func(o *sandbox.Options) {
		for i := range o.Groups {
			if o.Groups[i].ID == operators {
				o.Groups[i].Members = append(o.Groups[i].Members, pat, bo)
			}
		}
	})
	members, err := x.Members(t.Context(), operators)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, m := range members {
		got[m.ID] = fmt.Sprint(m.UPN, " ", m.Mail, " ", m.Enabled, " ", m.Guest)
	}
	want := map[string]string{
		elias: "elias@fernhill.example  true false",
		bo:    "bo@fernhill.example  false false",
		pat:   "pat_partner.example#EXT#@fernhill.example pat@partner.example true true",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
	if _, err := x.Members(t.Context(), "3f2b8a10-9c4d-4e6f-8a1b-2c3d4e5f6a7b"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a group that does not exist: %v", err)
	}
	x.grant(t, []string{string(PermGroupMemberRead)})
	if _, err := x.Members(t.Context(), operators); !errors.Is(err, ErrForbidden) || !strings.Contains(err.Error(), string(PermUserRead)) {
		t.Errorf("accounts without properties: %v", err)
	}
}

// allCalls returns all calls of this package, for Dana.
func allCalls(t *testing.T, x *tenant) map[Call]func() error {
	ctx := t.Context()
	m := map[Call]func() error{
		CallReadUser:     func() error { _, err := x.User(ctx, dana); return err },
		CallFindUser:     func() error { _, err := x.Client.filter(ctx, "mail eq 'x@y'"); return err },
		CallReadManager:  func() error { _, _, err := x.Manager(ctx, dana); return err },
		CallListGroups:   func() error { _, err := x.Groups(ctx, dana); return err },
		CallListMembers:  func() error { _, err := x.Members(ctx, helpdesk); return err },
		CallListOwned:    func() error { _, err := x.ownedGroups(ctx, dana); return err },
		CallListRoles:    func() error { _, err := x.assignments(ctx, dana); return err },
		CallListEligible: func() error { _, err := x.eligibilities(ctx, dana); return err },
		CallRoleNames:    func() error { _, err := x.roleNames(ctx); return err },
		CallListMethods:  func() error { _, err := x.Client.Methods(ctx, dana); return err },
		CallListHardware: func() error { return x.addHardware(ctx, dana, new(MethodList)) },
		CallListUse:      func() error { _, err := x.LastUsed(ctx, dana); return err },
		CallReadDefault: func() error {
			if l, err := x.Client.Methods(ctx, dana); err != nil || l.Default != "push" {
				return errors.Join(err, fmt.Errorf("gaps: %q", l.Gaps))
			}
			return nil
		},
		CallDeactivateToken:  func() error { return x.DeactivateHardwareToken(ctx, dana, "aa3d7e10-6f24-4c85-b9e1-0d5a8c72f3b6") },
		CallRevokeSessions:   func() error { return x.RevokeSessions(ctx, dana) },
		CallSetEnabled:       func() error { return x.SetEnabled(ctx, dana, true) },
		CallSetPassword:      func() error { return x.SetPassword(ctx, dana, "Correct-Horse-7", false) },
		CallReadDomain:       func() error { _, err := x.Domain(ctx, "fernhill.example"); return err },
		CallReadRequirements: func() error { _, err := x.PerUserMFA(ctx, dana); return err },
		CallReadPassPolicy:   func() error { _, err := x.PassPolicy(ctx); return err },
		CallListPasses:       func() error { _, err := x.Passes(ctx, dana); return err },
		CallIssuePass:        func() error { _, err := x.IssuePass(ctx, dana, time.Hour, true); return err },
		CallAddPhone:         func() error { return x.AddPhone(ctx, bo, "mobile", "+1 4255551200") },
		CallReplacePhone: func() error {
			return x.ReplacePhone(ctx, dana, "3179e48a-750b-4051-897c-87b9720928f7", "mobile", "+1 4255551201")
		},
		CallAddEmail: func() error { return x.AddEmail(ctx, bo, "bo@mail.example") },
		CallReplaceEmail: func() error {
			return x.ReplaceEmail(ctx, dana, "3ddfcfc8-9383-446f-83cc-3ab9be4be18f", "dana.w2@mail.example")
		},
	}
	for _, k := range []Kind{KindPhone, KindEmail, KindAuthenticator, KindSoftwareOATH, KindHardwareOATH, KindPasskey, KindWindowsHello,
		KindPlatformCredential, KindPass, KindExternal, KindQRCode} {
		call, ok := DeleteCall(k)
		if !ok {
			t.Fatalf("no call deletes %s", k)
		}
		m[call] = func() error {
			err := x.DeleteMethod(ctx, dana, k, "none")
			if errors.Is(err, ErrNotFound) {
				return nil // the call is allowed, and there is no such method
			}
			return err
		}
	}
	return m
}

// Endpoints matches the permissions that Graph requires: with only its own permissions each call works; without the first one, the
// error names it.
func TestPermissions(t *testing.T) {
	x := newTenant(t)
	for _, e := range Endpoints() {
		do := allCalls(t, x)[e.Call]
		if do == nil {
			t.Errorf("no test calls %q", e.Call)
			continue
		}
		own := []string{string(e.Permission), string(e.Also)}
		x.grant(t, slices.DeleteFunc(own, func(p string) bool { return p == "" }))
		if err := do(); err != nil {
			t.Errorf("%s with %v: %v", e.Call, own, err)
		}
		x.grant(t, slices.DeleteFunc(permissions(), func(p string) bool {
			// For these calls, the permission of another call is enough, too.
			return p == string(e.Permission) || p == string(e.Also) ||
				e.Call == CallListEligible && p == string(PermRolesRead) || e.Call == CallListGroups && p == string(PermGroupMemberRead) ||
				e.Call == CallListHardware && p == string(PermHardwareOATHWrite) ||
				e.Call == CallReadPassPolicy && p == string(PermPolicyRead) || e.Call == CallListPasses && p == string(PermMethodsRead)
		}))
		err := do()
		if e.Call == CallReadDefault { // the list, which comes first, fails for the same reason
			continue
		}
		if got, ok := errors.AsType[*Error](err); !ok || !errors.Is(err, ErrForbidden) || got.Permission != e.Permission ||
			!strings.Contains(err.Error(), string(e.Permission)) || got.RequestID == "" || got.Unsure {
			t.Errorf("%s without %s: %v", e.Call, e.Permission, err)
		}
		if e.Call.Permission() != e.Permission {
			t.Errorf("%s is listed with two permissions", e.Call)
		}
	}

	var log struct {
		Calls []sandbox.Call `json:"calls"`
	}
	x.admin(t, "GET", "/sandbox/entra/calls", nil, &log)
	for _, e := range Endpoints() {
		if !slices.ContainsFunc(log.Calls, func(c sandbox.Call) bool {
			return c.Method == e.Method && c.Path == e.Path && c.Granted && slices.Contains(c.Used, string(e.Permission))
		}) {
			t.Errorf("%s: the tenant had no call %s %s allowed by %s", e.Call, e.Method, e.Path, e.Permission)
		}
	}
}

func TestNetworkFailures(t *testing.T) {
	const phone = "e37fc753-ff3b-4958-9484-eaa9425c82bc"
	for _, tt := range []struct {
		name   string
		fault  sandbox.Fault
		is     error // nil is success
		unsure bool
		gone   bool
	}{
		{"throttled twice", sandbox.Fault{Kind: "throttle", RetryAfter: new(0), Times: 2}, nil, false, true},
		{"throttled for too long", sandbox.Fault{Kind: "throttle", RetryAfter: new(3600)}, ErrThrottled, false, false},
		{"busy once", sandbox.Fault{Kind: "status", Status: 503, RetryAfter: new(0)}, nil, false, true},
		{"applied, and the gateway gave up", sandbox.Fault{Kind: "status", Status: 504, Apply: true, RetryAfter: new(0)}, ErrNotFound, false, true},
		{"applied, and the answer lost", sandbox.Fault{Kind: "drop_reply"}, ErrUnreachable, true, true},
		{"the request lost", sandbox.Fault{Kind: "drop_request"}, ErrUnreachable, true, false},
		{"a broken service", sandbox.Fault{Kind: "status", Status: 500}, ErrUnreachable, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newTenant(t)
			x.methods(t, dana) // gets a token and opens the connection
			tt.fault.Method = "DELETE"
			x.fault(t, tt.fault)
			err := x.DeleteMethod(t.Context(), dana, KindPhone, phone)
			if !errors.Is(err, tt.is) || tt.is == nil && err != nil {
				t.Errorf("got %v", err)
			}
			if e, ok := errors.AsType[*Error](err); ok && e.Unsure != tt.unsure {
				t.Errorf("unsure is %t: %v", e.Unsure, err)
			}
			if _, there := findMethod(x.methods(t, dana), phone); there == tt.gone {
				t.Errorf("still there: %t", there)
			}
		})
	}
}

func TestSignIn(t *testing.T) {
	x := newTenant(t)
	_, err := x.signIn(t, "wrong", 10*time.Second).User(t.Context(), dana)
	if e := asError(t, err); !errors.Is(err, ErrSignIn) || e.Permission != "" || !strings.Contains(e.Message, "AADSTS7000215") || strings.ContainsAny(err.Error(), "\n\r") {
		t.Errorf("a wrong secret: %v", err)
	}

	x.fault(t, sandbox.Fault{Path: "oauth2/v2.0/token", Kind: "hang", Times: -1})
	err = x.signIn(t, "very~secret", 200*time.Millisecond).RevokeSessions(t.Context(), dana)
	if e := asError(t, err); !errors.Is(err, ErrUnreachable) || errors.Is(err, ErrSignIn) || e.Unsure || e.Call != string(CallSignIn) {
		t.Errorf("a silent sign-in service: %+v", *e)
	}
	x.fault(t)

	// Concurrent calls use one token.
	c := x.signIn(t, "very~secret", 10*time.Second)
	x.admin(t, "DELETE", "/sandbox/entra/calls", nil, nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := c.User(t.Context(), dana); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var log struct {
		Calls []sandbox.Call `json:"calls"`
	}
	x.admin(t, "GET", "/sandbox/entra/calls", nil, &log)
	tokens := 0
	for _, call := range log.Calls {
		if strings.HasSuffix(call.Path, "/token") {
			tokens += call.Count
		}
	}
	if tokens != 1 {
		t.Errorf("%d tokens were fetched", tokens)
	}
}
