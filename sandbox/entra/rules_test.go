package entra

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestUserIdentifiers(t *testing.T) {
	tenant := newTenant(t)
	for path, want := range map[string]string{
		"/v1.0/users/" + dana:                                             dana,
		"/v1.0/users/" + strings.ToUpper(dana):                            dana,
		"/v1.0/users/" + danaUPN:                                          dana,
		"/v1.0/users/" + strings.ReplaceAll(patUPN, "#", "%23"):           pat,
		"/v1.0/users('" + danaUPN + "')":                                  dana,
		"/v1.0/users('$uma@branch.example')":                              fed,
		"/v1.0/users('%24uma@branch.example')":                            fed,
		"/beta/users/" + danaUPN + "?%24select=id":                        dana,
		"/v1.0/users/" + dana + "?$expand=manager($select=id,mail)":       dana,
		"/v1.0/users/" + dana + "?$select=ID,displayName&$expand=manager": dana,
	} {
		if a := graph(t, tenant, "GET", path, "").want(t, 200); a.get(t, "id") != want {
			t.Errorf("%s: %s", path, a.text)
		}
	}
	a := graph(t, tenant, "GET", "/v1.0/users/"+dana+"?$select=id&$expand=manager($select=id,mail)", "")
	if a.get(t, "manager", "mail") != "gloria.adeyemi@fernhill.example" || strings.Contains(a.text, "Gloria Adeyemi") {
		t.Error(a.text)
	}
	if a := graph(t, tenant, "GET", "/v1.0/users/"+dana+"/manager?$select=id", ""); a.get(t, "id") != gloria || a.get(t, "@odata.type") != "#microsoft.graph.user" {
		t.Error(a.text)
	}
}

func TestSelect(t *testing.T) {
	tenant := newTenant(t)
	var o map[string]any
	json.Unmarshal([]byte(graph(t, tenant, "GET", "/v1.0/users/"+dana, "").text), &o)
	delete(o, "@odata.context")
	if len(o) != len(defaultProperties()) || o["accountEnabled"] != nil {
		t.Errorf("by default: %v", o)
	}
	o = nil
	json.Unmarshal([]byte(graph(t, tenant, "GET", "/v1.0/users/"+sam+"?$select=accountEnabled,onPremisesSyncEnabled,signInSessionsValidFromDateTime", "").text), &o)
	delete(o, "@odata.context")
	if len(o) != 3 || o["accountEnabled"] != true || o["onPremisesSyncEnabled"] != true || o["signInSessionsValidFromDateTime"] != "2025-03-01T08:00:00Z" {
		t.Errorf("selected: %v", o)
	}
	guest := graph(t, tenant, "GET", "/v1.0/users/"+pat+"?$select=userType,externalUserState,onPremisesSyncEnabled", "")
	if guest.get(t, "userType") != "Guest" || guest.get(t, "externalUserState") != "Accepted" || guest.get(t, "onPremisesSyncEnabled") != nil {
		t.Error(guest.text)
	}
}

func TestUsersAreFilteredAndSearched(t *testing.T) {
	tenant := newTenant(t)
	const eventual = "ConsistencyLevel: eventual"
	for _, test := range []struct {
		query   string
		headers []string
		status  int
		want    []string
	}{
		{"$filter=mail eq 'DANA.whitfield@fernhill.example'", nil, 200, []string{dana}},
		{"$filter=mail eq 'nobody@fernhill.example'", nil, 200, nil},
		{"$filter=userPrincipalName eq 'sam.ito@fernhill.example'", nil, 200, []string{sam}},
		{"$filter=startswith(displayName,'uma å')", nil, 200, []string{fed}},
		{"$filter=startswith(displayName,'g') or startswith(displayName,'e')", nil, 200, []string{gloria, elias}},
		{"$filter=userType eq 'Guest' and (mail eq 'pat@partner.example' or mail eq null)", nil, 200, []string{pat}},
		{"$filter=onPremisesSyncEnabled eq true", nil, 200, []string{sam}},
		{"$filter=id in ('" + sam + "','" + pat + "')", nil, 200, []string{sam, pat}},
		{"$filter=proxyAddresses/any(p:p eq 'smtp:d.o''neil@fernhill.example')&$count=true", []string{eventual}, 200, []string{dana}},
		{"$filter=proxyAddresses/any(p:p eq 'smtp:gloria.adeyemi@fernhill.example')&$count=true", []string{eventual}, 200, []string{gloria}},
		{"$filter=proxyAddresses/any(x:startswith(x,'smtp:d'))&$count=true", []string{eventual}, 200, []string{dana}},
		{"$filter=proxyAddresses/any(p:p eq 'smtp:x')&$count=true", nil, 400, nil},
		{"$filter=proxyAddresses/any(p:p eq 'smtp:x')", []string{eventual}, 400, nil},
		{"$filter=endswith(mail,'partner.example')", nil, 400, nil},
		{"$filter=endswith(mail,'partner.example')&$count=true", []string{eventual}, 200, []string{pat}},
		{"$filter=not(startswith(displayName,'dana')) and displayName ne 'Sam Ito' and userType eq 'Guest'&$count=true", []string{eventual}, 200, []string{pat}},
		{"$filter=mail eq 'unterminated", nil, 400, nil},
		{"$filter=mail eq 'o'neil'", nil, 400, nil},
		{"$filter=mail", nil, 400, nil},
		{"$filter=mail eq", nil, 400, nil},
		{"$filter=shoeSize eq '9'", nil, 400, nil},
		{"$filter=(mail eq 'x'", nil, 400, nil},
		{"$filter=mail gt 'x'", nil, 400, nil},
		{"$filter=", nil, 400, nil},
		{`$search="displayName:whit"`, []string{eventual}, 200, []string{dana}},
		{`$search="displayName:ito sam"`, []string{eventual}, 200, []string{sam}},
		{`$search="displayName:sam" OR "mail:gloria"`, []string{eventual}, 200, []string{sam, gloria}},
		{`$search="displayName:sam" AND "mail:gloria"`, []string{eventual}, 200, nil},
		{`$search="displayName:whit"`, nil, 400, nil},
		{`$search=whit`, []string{eventual}, 400, nil},
		{`$search="displayName:a" NEAR "mail:b"`, []string{eventual}, 400, nil},
	} {
		name, value, _ := strings.Cut(test.query, "=")
		rest := ""
		if before, ok := strings.CutSuffix(value, "&$count=true"); ok {
			value, rest = before, "&$count=true"
		}
		a := graph(t, tenant, "GET", "/v1.0/users?$select=id&"+name+"="+url.QueryEscape(value)+rest, "", test.headers...)
		if a.status != test.status {
			t.Errorf("%s: %d %s", test.query, a.status, a.text)
			continue
		}
		if got := (func() []string {
			if a.status != 200 {
				return nil
			}
			return a.list(t, "id")
		})(); len(got) != len(test.want) || len(got) > 0 && !slices.Equal(got, test.want) {
			t.Errorf("%s: %v", test.query, got)
		}
	}
}

func TestPagesFollowTheNextLink(t *testing.T) {
	tenant := newTenant(t)
	var found []string
	pages := 0
	for path := "/v1.0/users?$top=4&$select=id"; path != ""; pages++ {
		a := graph(t, tenant, "GET", path, "").want(t, 200)
		found = append(found, a.list(t, "id")...)
		next, _ := a.get(t, "@odata.nextLink").(string)
		path = strings.TrimPrefix(next, root)
	}
	if pages != 2 || !slices.Equal(found, []string{dana, sam, gloria, elias, pat, fed}) {
		t.Errorf("%d pages: %v", pages, found)
	}
	for _, top := range []string{"0", "1000", "x"} {
		graph(t, tenant, "GET", "/v1.0/users?$top="+top, "").want(t, 400)
	}
	graph(t, tenant, "GET", "/v1.0/users?$skiptoken=!", "").want(t, 400)
}

func TestMethodsAreListed(t *testing.T) {
	tenant := newTenant(t)
	all := graph(t, tenant, "GET", "/v1.0/users/"+dana+"/authentication/methods", "").want(t, 200)
	types := all.list(t, "@odata.type")
	if len(types) != 14 || slices.Contains(types, TypeHardwareOATH) || !slices.Contains(types, TypePassword) || !slices.Contains(types, TypeQRCodePIN) {
		t.Errorf("v1.0 lists %v", types)
	}
	if strings.Contains(all.text, "lastUsedDateTime") {
		t.Error("v1.0 shows lastUsedDateTime")
	}
	if a := graph(t, tenant, "GET", "/beta/users/"+dana+"/authentication/methods", ""); !strings.Contains(a.text, TypeHardwareOATH) || !strings.Contains(a.text, `"lastUsedDateTime":"2025-03-01T08:00:00Z"`) {
		t.Error(a.text)
	}
	admin(t, tenant, "PATCH", "/sandbox/tenant", `{"quirks":{"hardware_oath_in_methods":true}}`).want(t, 200)
	if a := graph(t, tenant, "GET", "/v1.0/users/"+dana+"/authentication/methods", ""); !strings.Contains(a.text, TypeHardwareOATH) {
		t.Error("the quirk does not list hardware tokens")
	}
	for segment, kind := range kinds() {
		version := "/v1.0/users/"
		if segment == "hardwareOathMethods" || segment == "qrCodePinMethod" {
			version = "/beta/users/"
		}
		a := graph(t, tenant, "GET", version+dana+"/authentication/"+segment, "").want(t, 200)
		if strings.Contains(a.text, "@odata.type") {
			t.Errorf("%s repeats the type %s", segment, kind)
		}
		if segment == "qrCodePinMethod" {
			if a.get(t, "id") != "qr-1" {
				t.Error(a.text)
			}
			graph(t, tenant, "GET", version+sam+"/authentication/"+segment, "").want(t, 404)
			continue
		}
		for _, id := range a.list(t, "id") {
			one := graph(t, tenant, "GET", version+dana+"/authentication/"+segment+"/"+url.PathEscape(id), "").want(t, 200)
			if one.get(t, "id") != id {
				t.Error(one.text)
			}
		}
	}
	if types := graph(t, tenant, "GET", "/v1.0/users/"+pat+"/authentication/methods", "").list(t, "id"); len(types) != 0 {
		t.Errorf("a guest has %v", types)
	}
}

func TestPhones(t *testing.T) {
	tenant := newTenant(t)
	phones := "/v1.0/users/" + sam + "/authentication/phoneMethods"
	body := func(kind, number string) string {
		return fmt.Sprintf(`{"phoneType":%q,"phoneNumber":%q}`, kind, number)
	}
	for _, number := range []string{"", "4255550111", "+14255550111", "+1 425 555 0111", "+1 425-555-0111", "+1  4255550111", "+01 4255550111", "+1234 4255550111",
		"+1 4255550111 x5", "+1 4255550111x", "+1 123", "+1 4255550111\n"} {
		graph(t, tenant, "POST", phones, body("mobile", number)).want(t, 400, "badRequest")
	}
	graph(t, tenant, "POST", phones, body("fax", "+1 4255550111")).want(t, 400, "badRequest")
	graph(t, tenant, "POST", phones, body("alternateMobile", "+1 4255550112")).want(t, 400, "badRequest")
	a := graph(t, tenant, "POST", phones, body("mobile", "+1 4255550111")).want(t, 201)
	if a.get(t, "id") != IDMobile || a.get(t, "phoneNumber") != "+1 4255550111" || a.get(t, "createdDateTime") != "2026-11-23T13:00:00Z" || a.header.Get("Location") == "" {
		t.Error(a.text)
	}
	graph(t, tenant, "POST", phones, body("mobile", "+1 4255550119")).want(t, 400, "badRequest")
	graph(t, tenant, "POST", phones, body("alternateMobile", "+44 2079460000")).want(t, 201)
	graph(t, tenant, "POST", phones, body("office", "+1 4255550113x22")).want(t, 201)
	graph(t, tenant, "PATCH", phones+"/"+IDMobile, body("mobile", "+1 4255550120")).want(t, 204)
	graph(t, tenant, "PATCH", phones+"/"+IDMobile, body("office", "+1 4255550121")).want(t, 400)
	graph(t, tenant, "PATCH", phones+"/"+IDMobile, body("mobile", "+14255550121")).want(t, 400)
	if got := graph(t, tenant, "GET", phones, "").list(t, "phoneNumber"); fmt.Sprint(got) != "[+1 4255550120 +44 2079460000 +1 4255550113x22]" {
		t.Error(got)
	}
	graph(t, tenant, "DELETE", phones+"/"+IDMobile, "").want(t, 400) // it is the default, and alternateMobile requires it
	graph(t, tenant, "DELETE", phones+"/"+IDAlternateMobile, "").want(t, 204)

	admin(t, tenant, "PATCH", "/sandbox/tenant", `{"quirks":{"duplicate_is_conflict":true}}`).want(t, 200)
	graph(t, tenant, "POST", phones, body("office", "+1 4255550119")).want(t, 409)
	graph(t, tenant, "POST", "/v1.0/users/"+dana+"/authentication/emailMethods", `{"emailAddress":"a@b.example"}`).want(t, 409)
}

func TestMobileCannotBeDeletedBeforeAlternate(t *testing.T) {
	tenant := newTenant(t)
	a := graph(t, tenant, "DELETE", "/v1.0/users/"+dana+"/authentication/phoneMethods/"+IDMobile, "").want(t, 400, "badRequest")
	if !strings.Contains(a.text, "alternate mobile") {
		t.Error(a.text)
	}
}

func TestEmails(t *testing.T) {
	tenant := newTenant(t)
	emails := "/v1.0/users/" + sam + "/authentication/emailMethods"
	for _, address := range []string{"", "sam", "Sam <sam@home.example>", "a@b.example, c@d.example"} {
		graph(t, tenant, "POST", emails, fmt.Sprintf(`{"emailAddress":%q}`, address)).want(t, 400, "badRequest")
	}
	if a := graph(t, tenant, "POST", emails, `{"emailAddress":"sam@home.example"}`).want(t, 201); a.get(t, "id") != IDEmail {
		t.Error(a.text)
	}
	graph(t, tenant, "POST", emails, `{"emailAddress":"sam2@home.example"}`).want(t, 400)
	graph(t, tenant, "PATCH", emails+"/"+IDEmail, `{"emailAddress":"sam2@home.example"}`).want(t, 204)
	if got := graph(t, tenant, "GET", emails, "").list(t, "emailAddress"); got[0] != "sam2@home.example" {
		t.Error(got)
	}
	graph(t, tenant, "DELETE", emails+"/"+IDEmail, "").want(t, 204)
	graph(t, tenant, "DELETE", emails+"/"+IDEmail, "").want(t, 404)
}

func TestDefaultMethodMustBeDeletedLast(t *testing.T) {
	mobile, office, alternate := Phone("mobile", "+1 4255550100"), Phone("office", "+1 4255550102"), Phone("alternateMobile", "+1 4255550101")
	app, second := Authenticator("app-1", "Phone"), Authenticator("app-2", "Tablet")
	soft, hard := SoftwareOATH(softwareID), HardwareOATH(hardwareID, "1", "Acme", "T")
	idle := hard.With("device", Properties{{"status", tokenAssigned}})
	key := Passkey("pk-1", "Key", "M", "")
	for _, test := range []struct {
		name     string
		methods  []Method
		preset   string // default method
		pinned   string // its id
		remove   Method
		status   int
		newValue any
	}{
		{"another one can be deleted first", []Method{mobile, app}, "push", "", mobile, 204, "push"},
		{"the default cannot be deleted", []Method{mobile, app}, "push", "", app, 400, "push"},
		{"the last one can be deleted", []Method{app}, "push", "", app, 204, nil},
		{"a passkey does not count as another method", []Method{app, key}, "push", "", app, 204, nil},
		{"a passkey can always be deleted", []Method{mobile, app, key}, "push", "", key, 204, "push"},
		{"one of two apps can be deleted", []Method{mobile, app, second}, "push", "", app, 204, "push"},
		{"a pinned default cannot be deleted", []Method{app, second}, "push", "app-1", app, 400, "push"},
		{"methods other than a pinned default can be deleted", []Method{app, second}, "push", "app-1", second, 204, "push"},
		{"sms needs the mobile phone", []Method{mobile, office}, "sms", "", mobile, 400, "sms"},
		{"voiceOffice needs the office phone", []Method{mobile, office}, "voiceOffice", "", office, 400, "voiceOffice"},
		{"voiceAlternateMobile needs the alternate phone", []Method{mobile, alternate}, "voiceAlternateMobile", "", alternate, 400, "voiceAlternateMobile"},
		{"oath needs a token", []Method{mobile, soft}, "oath", "", soft, 400, "oath"},
		{"an app supports oath too", []Method{mobile, soft, app}, "oath", "", soft, 204, "oath"},
		{"a hardware token counts as another method", []Method{app, hard}, "push", "", app, 400, "push"},
		{"a deactivated token does not count", []Method{app, idle}, "push", "", app, 204, nil},
		{"without a default any can be deleted", []Method{mobile, app}, "", "", app, 204, "sms"},
	} {
		for _, older := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/older=%v", test.name, older), func(t *testing.T) {
				tenant := newTenant(t, func(o *Options) {
					o.Quirks.OlderDefaultMessage = older
					o.Users = []User{{ID: dana, UserPrincipalName: danaUPN, Methods: test.methods, DefaultMethod: test.preset, DefaultMethodID: test.pinned}}
				})
				segment := ""
				for s, kind := range kinds() {
					if kind == test.remove.Type {
						segment = s
					}
				}
				a := graph(t, tenant, "DELETE", "/beta/users/"+dana+"/authentication/"+segment+"/"+test.remove.ID, "").want(t, test.status)
				if test.status == 400 {
					want := "The requested authentication method id of [" + test.remove.ID + "] matches the user's current default authentication method, " +
						"and cannot be deleted until the default authentication method is changed"
					if older {
						want = "Cannot delete default method with other methods configured. Please change default method before deletion."
					}
					if a.get(t, "error", "code") != "badRequest" || a.get(t, "error", "message") != want {
						t.Error(a.text)
					}
				}
				now := graph(t, tenant, "GET", "/beta/users/"+dana+"/authentication/signInPreferences", "").get(t, "userPreferredMethodForSecondaryAuthentication")
				if now != test.newValue {
					t.Errorf("the default is now %v, want %v", now, test.newValue)
				}
			})
		}
	}
}

// All deletions of "require re-register", in an order that works.
func TestEverythingCanBeDeletedInOrder(t *testing.T) {
	tenant := newTenant(t)
	user := "/users/" + dana + "/authentication/"
	graph(t, tenant, "POST", "/beta"+user+"hardwareOathMethods/"+hardwareID+"/deactivate", "").want(t, 204)
	if a := graph(t, tenant, "GET", "/beta"+user+"hardwareOathMethods/"+hardwareID, ""); a.get(t, "device", "status") != tokenAssigned || a.get(t, "device", "serialNumber") != "YK-1" {
		t.Error(a.text)
	}
	for _, path := range []string{
		"/v1.0" + user + "phoneMethods/" + IDAlternateMobile, "/v1.0" + user + "phoneMethods/" + IDOffice, "/v1.0" + user + "phoneMethods/" + IDMobile,
		"/v1.0" + user + "softwareOathMethods/" + softwareID, "/v1.0" + user + "microsoftAuthenticatorMethods/" + opaqueID,
		"/v1.0" + user + "microsoftAuthenticatorMethods/" + url.PathEscape(slashID), "/v1.0" + user + "fido2Methods/pk-1",
		"/v1.0" + user + "windowsHelloForBusinessMethods/wh-1", "/v1.0" + user + "platformCredentialMethods/pc-1",
		"/v1.0" + user + "temporaryAccessPassMethods/tap-1", "/v1.0" + user + "externalAuthenticationMethods/ext-1",
		"/v1.0" + user + "emailMethods/" + IDEmail, "/beta" + user + "qrCodePinMethod", "/beta" + user + "hardwareOathMethods/" + hardwareID,
	} {
		if a := graph(t, tenant, "DELETE", path, ""); a.status != 204 || a.text != "" {
			t.Errorf("%s: %d %s", path, a.status, a.text)
		}
		graph(t, tenant, "DELETE", path, "").want(t, 404)
	}
	if left := graph(t, tenant, "GET", "/beta"+user+"methods", "").list(t, "@odata.type"); !slices.Equal(left, []string{TypePassword}) {
		t.Error(left)
	}
}

func TestPreferences(t *testing.T) {
	tenant := newTenant(t)
	path := "/beta/users/" + dana + "/authentication/signInPreferences"
	graph(t, tenant, "PATCH", path, `{"userPreferredMethodForSecondaryAuthentication":"sms"}`).want(t, 204)
	if a := graph(t, tenant, "GET", path, ""); a.get(t, "userPreferredMethodForSecondaryAuthentication") != "sms" {
		t.Error(a.text)
	}
	graph(t, tenant, "PATCH", path, `{"userPreferredMethodForSecondaryAuthentication":"none"}`).want(t, 400)
	if a := graph(t, tenant, "GET", "/beta/users/"+dana+"/authentication/requirements", ""); a.get(t, "perUserMfaState") != "disabled" {
		t.Error(a.text)
	}
}

func TestSessionsAreRevoked(t *testing.T) {
	now := newClock()
	tenant := newTenant(t, func(o *Options) { o.Now = now.Now })
	now.advance(time.Minute)
	if a := graph(t, tenant, "POST", "/v1.0/users/"+dana+"/revokeSignInSessions", "").want(t, 200); a.get(t, "value") != true {
		t.Error(a.text)
	}
	if a := graph(t, tenant, "GET", "/v1.0/users/"+dana+"?$select=signInSessionsValidFromDateTime", ""); a.get(t, "signInSessionsValidFromDateTime") != "2026-11-23T13:01:00Z" {
		t.Error(a.text)
	}
}

func TestPasswordsAndBlocking(t *testing.T) {
	const strong = `{"passwordProfile":{"@odata.type":"#microsoft.graph.passwordProfile","forceChangePasswordNextSignIn":true,"password":"Correct-Horse-7"}}`
	block := `{"accountEnabled":false}`
	for _, test := range []struct {
		name, user, body string
		appRoles         []string
		quirks           Quirks
		status           int
		code             string
	}{
		{name: "password", user: dana, body: strong, status: 204},
		{name: "weak password", user: dana, body: `{"passwordProfile":{"password":"aaaaaaaa"}}`, status: 400, code: "Request_BadRequest"},
		{name: "short password", user: dana, body: `{"passwordProfile":{"password":"Aa1-"}}`, status: 400, code: "Request_BadRequest"},
		{name: "password with the name", user: dana, body: `{"passwordProfile":{"password":"Dana.Whitfield1"}}`, status: 400, code: "Request_BadRequest"},
		{name: "no profile", user: dana, body: `{"passwordProfile":null}`, status: 400},
		{name: "typo", user: dana, body: `{"passwordProfile":{"pasword":"Correct-Horse-7"}}`, status: 400},
		{name: "synced", user: sam, body: strong, status: 403}, // an owner of a role-assignable group
		{name: "synced, as global administrator", user: sam, body: strong, appRoles: []string{roleGlobalAdministrator}, status: 400, code: "Request_BadRequest"},
		{name: "synced, accepted", user: sam, body: strong, appRoles: []string{roleGlobalAdministrator}, quirks: Quirks{SyncedPasswordAccepted: true}, status: 204},
		{name: "federated", user: fed, body: strong, status: 400, code: "Request_BadRequest"},
		{name: "administrator", user: gloria, body: strong, status: 403, code: "Authorization_RequestDenied"},
		{name: "administrator, as privileged one", user: gloria, body: strong, appRoles: []string{rolePrivilegedAuthenticationAdministrator}, status: 204},
		{name: "member of a role-assignable group", user: elias, body: strong, status: 403},
		{name: "without a role", user: dana, body: strong, appRoles: []string{}, status: 403, code: "Authorization_RequestDenied"},
		{name: "without a role, needing none", user: dana, body: strong, appRoles: []string{}, quirks: Quirks{PasswordNeedsNoRole: true}, status: 204},
		{name: "block", user: dana, body: block, status: 204},
		{name: "block without a role", user: dana, body: block, appRoles: []string{}, status: 204},
		{name: "block a synced person", user: sam, body: block, appRoles: []string{roleGlobalAdministrator}, status: 204},
		{name: "block an administrator", user: gloria, body: block, status: 403, code: "Authorization_RequestDenied"},
		{name: "block with a string", user: dana, body: `{"accountEnabled":"no"}`, status: 400},
		{name: "both or nothing", user: dana, body: `{"accountEnabled":false,"passwordProfile":{"password":"weak"}}`, status: 400},
		{name: "another property", user: dana, body: `{"jobTitle":"CEO"}`, status: 501},
		{name: "nothing", user: dana, body: ``, status: 400},
	} {
		t.Run(test.name, func(t *testing.T) {
			now := newClock()
			tenant := newTenant(t, func(o *Options) {
				o.Now = now.Now
				o.Quirks = test.quirks
				o.AppRoles = test.appRoles
			})
			now.advance(time.Minute)
			a := graph(t, tenant, "PATCH", "/v1.0/users/"+test.user, test.body).want(t, test.status)
			if test.code != "" {
				a.want(t, test.status, test.code)
			}
			user := graph(t, tenant, "GET", "/v1.0/users/"+test.user+"?$select=accountEnabled,lastPasswordChangeDateTime,signInSessionsValidFromDateTime", "")
			changed := user.get(t, "lastPasswordChangeDateTime") == "2026-11-23T13:01:00Z"
			if want := test.status == 204 && test.body == strong; changed != want || changed && user.get(t, "signInSessionsValidFromDateTime") != "2026-11-23T13:01:00Z" {
				t.Error(user.text)
			}
			if want := !(test.status == 204 && test.body == block); user.get(t, "accountEnabled") != want {
				t.Error(user.text)
			}
			secrets := admin(t, tenant, "GET", "/sandbox/tenant/users/"+test.user+"/secrets", "")
			if (secrets.get(t, "password") == "Correct-Horse-7") != changed || secrets.get(t, "must_change") != changed {
				t.Error(secrets.text)
			}
		})
	}
}

func TestRolesBelowTheApplicationsOwn(t *testing.T) {
	tenant := newTenant(t)
	block := func(roles string) int {
		admin(t, tenant, "PATCH", "/sandbox/tenant/users/"+dana, `{"roles":[`+roles+`]}`).want(t, 200)
		return graph(t, tenant, "PATCH", "/v1.0/users/"+dana, `{"accountEnabled":true}`).status
	}
	for roles, want := range map[string]int{``: 204, `"Helpdesk Administrator"`: 204, `"Directory Readers","Guest Inviter"`: 204,
		`"Authentication Administrator"`: 403, `"Directory Readers","Global Reader"`: 403, `"Exchange Administrator"`: 403} {
		if got := block(roles); got != want {
			t.Errorf("%s: %d, want %d", roles, got, want)
		}
	}
	admin(t, tenant, "PATCH", "/sandbox/tenant/users/"+dana, `{"roles":[],"management_restricted":true}`).want(t, 200)
	graph(t, tenant, "PATCH", "/v1.0/users/"+dana, `{"accountEnabled":true}`).want(t, 403)
}

func TestTemporaryAccessPass(t *testing.T) {
	now := newClock()
	tenant := newTenant(t, func(o *Options) { o.Now = now.Now })
	path := "/v1.0/users/" + dana + "/authentication/temporaryAccessPassMethods"
	if a := graph(t, tenant, "GET", path+"/tap-1", ""); a.get(t, "isUsable") != false || a.get(t, "methodUsabilityReason") != "Expired" {
		t.Error(a.text)
	}
	a := graph(t, tenant, "POST", path, "{}").want(t, 201)
	pass, id := a.get(t, "temporaryAccessPass").(string), a.get(t, "id")
	if len(pass) != 8 || a.get(t, "lifetimeInMinutes") != 60.0 || a.get(t, "isUsableOnce") != false || a.get(t, "isUsable") != true ||
		a.get(t, "methodUsabilityReason") != "EnabledByPolicy" || a.get(t, "startDateTime") != "2026-11-23T13:00:00Z" {
		t.Error(a.text)
	}
	if admin(t, tenant, "GET", "/sandbox/tenant/users/"+dana+"/secrets", "").get(t, "pass") != pass {
		t.Error("the secrets do not show the pass")
	}
	list := graph(t, tenant, "GET", path, "")
	if strings.Contains(list.text, pass) || !slices.Equal(list.list(t, "id"), []string{fmt.Sprint(id)}) {
		t.Errorf("the list contains the value of the pass, or the old pass is still there: %s", list.text)
	}
	if all := admin(t, tenant, "GET", "/sandbox/tenant/users", ""); strings.Contains(all.text, pass) {
		t.Error("the list of users shows the pass")
	}
	now.advance(time.Hour)
	if got := graph(t, tenant, "GET", path, "").list(t, "methodUsabilityReason"); got[0] != "Expired" {
		t.Error(got)
	}
	later := graph(t, tenant, "POST", path, `{"startDateTime":"2026-11-24T08:00:00.000Z","lifetimeInMinutes":480,"isUsableOnce":true}`).want(t, 201)
	if later.get(t, "methodUsabilityReason") != "NotYetValid" || later.get(t, "isUsable") != false || later.get(t, "isUsableOnce") != true {
		t.Error(later.text)
	}
	for _, body := range []string{`{"lifetimeInMinutes":59}`, `{"lifetimeInMinutes":481}`, `{"lifetimeInMinutes":"60"}`, `{"startDateTime":"soon"}`, `{"length":9}`} {
		graph(t, tenant, "POST", path, body).want(t, 400)
	}
	guest := graph(t, tenant, "POST", "/v1.0/users/"+pat+"/authentication/temporaryAccessPassMethods", "").want(t, 400, "badRequest")
	if guest.get(t, "error", "message") != "Temporary Access Pass cannot be added to an external guest user." {
		t.Error(guest.text)
	}

	admin(t, tenant, "PATCH", "/sandbox/tenant", `{"pass_policy":{"once_only":true,"default_length":12,"include_groups":["`+operators+`"]}}`).want(t, 200)
	graph(t, tenant, "POST", path, `{"isUsableOnce":false}`).want(t, 400)
	outside := graph(t, tenant, "POST", path, "").want(t, 201)
	if outside.get(t, "methodUsabilityReason") != "DisabledByPolicy" || outside.get(t, "isUsableOnce") != true || len(outside.get(t, "temporaryAccessPass").(string)) != 12 {
		t.Error(outside.text)
	}
	policy := graph(t, tenant, "GET", "/v1.0/policies/authenticationMethodsPolicy/authenticationMethodConfigurations/temporaryAccessPass", "").want(t, 200)
	if policy.get(t, "includeTargets", "0", "id") != operators || policy.get(t, "isUsableOnce") != true || policy.get(t, "maximumLifetimeInMinutes") != 480.0 || policy.get(t, "state") != "enabled" {
		t.Error(policy.text)
	}
	admin(t, tenant, "PATCH", "/sandbox/tenant", `{"pass_policy":{"disabled":true}}`).want(t, 200)
	graph(t, tenant, "POST", path, "").want(t, 400, "badRequest")
	whole := graph(t, tenant, "GET", "/v1.0/policies/authenticationMethodsPolicy", "").want(t, 200)
	if !strings.Contains(whole.text, `"id":"TemporaryAccessPass","state":"disabled"`) {
		t.Error(whole.text)
	}
	admin(t, tenant, "PATCH", "/sandbox/tenant", `{"pass_policy":{"minimum_lifetime":5}}`).want(t, 400)
}

func TestRoleManagement(t *testing.T) {
	tenant := newTenant(t)
	const dir = "/roleManagement/directory"
	filter := func(id string) string { return "?$filter=" + url.QueryEscape("principalId eq '"+id+"'") }
	const eventual = "ConsistencyLevel: eventual"

	direct := graph(t, tenant, "GET", "/v1.0"+dir+"/roleAssignments"+filter(gloria)+"&$expand=roleDefinition", "").want(t, 200)
	if direct.get(t, "value", "0", "roleDefinitionId") != roleGlobalAdministrator || direct.get(t, "value", "0", "roleDefinition", "displayName") != "Global Administrator" ||
		direct.get(t, "value", "0", "directoryScopeId") != "/" {
		t.Error(direct.text)
	}
	if got := graph(t, tenant, "GET", "/v1.0"+dir+"/roleAssignments"+filter(elias), "").list(t, "id"); len(got) != 0 {
		t.Errorf("direct assignments of Elias: %v", got)
	}
	graph(t, tenant, "GET", "/beta"+dir+"/transitiveRoleAssignments"+filter(elias)+"&$count=true", "").want(t, 404)
	graph(t, tenant, "GET", "/beta"+dir+"/transitiveRoleAssignments"+filter(elias), "", eventual).want(t, 400)
	graph(t, tenant, "GET", "/beta"+dir+"/transitiveRoleAssignments?$count=true", "", eventual).want(t, 400)
	through := graph(t, tenant, "GET", "/beta"+dir+"/transitiveRoleAssignments"+filter(elias)+"&$count=true&$expand=roleDefinition", "", eventual).want(t, 200)
	if through.get(t, "@odata.count") != 1.0 || through.get(t, "value", "0", "principalId") != operators || through.get(t, "value", "0", "roleDefinition", "displayName") != "Global Reader" {
		t.Error(through.text)
	}
	if got := graph(t, tenant, "GET", "/beta"+dir+"/transitiveRoleAssignments"+filter(dana)+"&$count=true", "", eventual).list(t, "id"); len(got) != 0 {
		t.Errorf("Dana has %v", got)
	}
	eligible := graph(t, tenant, "GET", "/v1.0"+dir+"/roleEligibilityScheduleInstances"+filter(elias), "").want(t, 200)
	if !slices.Equal(eligible.list(t, "roleDefinitionId"), []string{roleUserAdministrator}) {
		t.Error(eligible.text)
	}
	if a := graph(t, tenant, "GET", "/v1.0"+dir+"/roleDefinitions/"+globalReader, ""); a.get(t, "displayName") != "Global Reader" || a.get(t, "isPrivileged") != nil {
		t.Error(a.text)
	}
	names := graph(t, tenant, "GET", "/beta"+dir+"/roleDefinitions?$filter="+url.QueryEscape("isPrivileged eq true"), "").list(t, "displayName")
	if !slices.Contains(names, "Global Administrator") || slices.Contains(names, "Directory Readers") {
		t.Error(names)
	}
	graph(t, tenant, "GET", "/v1.0"+dir+"/roleDefinitions?$filter="+url.QueryEscape("isPrivileged eq true"), "").want(t, 400)
	if got := graph(t, tenant, "GET", "/v1.0/users/"+elias+"/transitiveMemberOf/microsoft.graph.directoryRole", "").list(t, "roleTemplateId"); !slices.Equal(got, []string{globalReader}) {
		t.Error(got)
	}
}

func TestGroups(t *testing.T) {
	tenant := newTenant(t)
	for _, cast := range []string{"", "/microsoft.graph.group", "/graph.group"} { // the last form is that of Microsoft's Go library
		a := graph(t, tenant, "GET", "/v1.0/users/"+dana+"/transitiveMemberOf"+cast+"?$select=id,displayName,isAssignableToRole", "").want(t, 200)
		if !slices.Equal(a.list(t, "id"), []string{nested, helpDesk}) {
			t.Error(a.text)
		}
	}
	if a := graph(t, tenant, "GET", "/v1.0/users/"+elias+"/transitiveMemberOf", ""); fmt.Sprint(a.list(t, "@odata.type")) != "[#microsoft.graph.group #microsoft.graph.directoryRole]" {
		t.Error(a.text)
	}
	if a := graph(t, tenant, "GET", "/v1.0/users/"+elias+"/transitiveMemberOf/microsoft.graph.group", ""); a.get(t, "value", "0", "isAssignableToRole") != true {
		t.Error(a.text)
	}
	if a := graph(t, tenant, "GET", "/v1.0/users/"+sam+"/ownedObjects/microsoft.graph.group?$select=id", ""); !slices.Equal(a.list(t, "id"), []string{operators}) {
		t.Error(a.text)
	}
	check := graph(t, tenant, "POST", "/v1.0/users/"+dana+"/checkMemberGroups", `{"groupIds":["`+helpDesk+`","`+operators+`","x"]}`).want(t, 200)
	if fmt.Sprint(check.get(t, "value")) != "["+helpDesk+"]" {
		t.Error(check.text)
	}
	graph(t, tenant, "POST", "/v1.0/users/"+dana+"/checkMemberGroups", `{"groupIds":[`+strings.Repeat(`"x",`, 20)+`"x"]}`).want(t, 400)
	if a := graph(t, tenant, "GET", "/v1.0/groups/"+helpDesk+"/transitiveMembers/microsoft.graph.user?$select=id", ""); !slices.Equal(a.list(t, "id"), []string{dana, sam}) {
		t.Error(a.text)
	}
	if a := graph(t, tenant, "GET", "/v1.0/groups/"+helpDesk+"/members", ""); !slices.Equal(a.list(t, "id"), []string{sam, nested}) {
		t.Error(a.text)
	}
	graph(t, tenant, "GET", "/v1.0/users/"+dana+"/transitiveMemberOf?$count=true", "").want(t, 400, "Request_UnsupportedQuery")
	graph(t, tenant, "GET", "/v1.0/groups/"+dana, "").want(t, 404)
	if a := graph(t, tenant, "GET", "/v1.0/domains/branch.example", ""); a.get(t, "authenticationType") != "Federated" {
		t.Error(a.text)
	}
	if a := graph(t, tenant, "GET", "/v1.0/reports/authenticationMethods/userRegistrationDetails/"+gloria, ""); a.get(t, "isAdmin") != true || a.get(t, "isMfaRegistered") != false {
		t.Error(a.text)
	}
}

func TestUnreadableObjectsShowOnlyIDs(t *testing.T) {
	tenant := newTenant(t)
	for _, test := range []struct {
		path     string
		granted  string
		also     string
		property string
		want     any
	}{
		{"/v1.0/users/" + dana + "/transitiveMemberOf", "User.Read.All", "GroupMember.Read.All", "displayName", "Second line"},
		{"/v1.0/users/" + sam + "/ownedObjects", "User.Read.All", "Group.Read.All", "isAssignableToRole", true},
		{"/v1.0/users/" + gloria + "/transitiveMemberOf", "User.Read.All", "RoleManagement.Read.Directory", "roleTemplateId", roleGlobalAdministrator},
		{"/v1.0/groups/" + nested + "/members", "GroupMember.Read.All", "User.ReadBasic.All", "displayName", "Dana Whitfield"},
	} {
		grant(t, tenant, test.granted)
		admin(t, tenant, "DELETE", "/sandbox/entra/calls", "")
		if a := graph(t, tenant, "GET", test.path, "").want(t, 200); a.get(t, "value", "0", test.property) != nil || a.get(t, "value", "0", "id") == nil ||
			a.get(t, "value", "0", "@odata.type") == nil {
			t.Errorf("%s: %s", test.path, a.text)
		}
		if log := admin(t, tenant, "GET", "/sandbox/entra/calls", ""); len(log.get(t, "demanded").([]any)) != 2 || fmt.Sprint(log.get(t, "used")) != "["+test.granted+"]" ||
			log.get(t, "calls", "0", "granted") != true {
			t.Errorf("%s: %s", test.path, log.text)
		}
		grant(t, tenant, test.granted, test.also)
		if a := graph(t, tenant, "GET", test.path, ""); a.get(t, "value", "0", test.property) != test.want {
			t.Errorf("%s: %s", test.path, a.text)
		}
		if log := admin(t, tenant, "GET", "/sandbox/entra/calls", ""); len(log.get(t, "used").([]any)) != 2 {
			t.Errorf("%s: %s", test.path, log.text)
		}
		admin(t, tenant, "DELETE", "/sandbox/entra/calls", "")
		graph(t, tenant, "GET", test.path+"?$select=id", "")
		if log := admin(t, tenant, "GET", "/sandbox/entra/calls", ""); len(log.get(t, "demanded").([]any)) != 1 {
			t.Errorf("%s?$select=id: %s", test.path, log.text)
		}
	}
}

func TestPropertiesKeepTheirOrder(t *testing.T) {
	const text = `{"z":1,"a":{"y":[{"d":2.5,"c":null},true],"b":"x"}}`
	var p Properties
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		t.Fatal(err)
	}
	if b, err := json.Marshal(p); err != nil || string(b) != text {
		t.Errorf("%s, %v", b, err)
	}
	if v, _ := p.Get("Z"); v != 1 {
		t.Errorf("z is %v", v)
	}
	for _, bad := range []string{`[1]`, `"x"`, `{"a":}`} {
		if json.Unmarshal([]byte(bad), &p) == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

func TestAdminAPI(t *testing.T) {
	tenant := newTenant(t)
	user := "/sandbox/tenant/users/" + danaUPN
	before := admin(t, tenant, "GET", user, "").want(t, 200)
	if before.get(t, "upn") != danaUPN || before.get(t, "enabled") != true || before.get(t, "default_method") != "push" ||
		before.get(t, "methods", "1", "type") != TypePhone || before.get(t, "methods", "1", "phoneNumber") != "+1 4255550100" {
		t.Error(before.text)
	}
	after := admin(t, tenant, "PATCH", user, `{"enabled":false,"synced":true,"roles":["User Administrator"],"eligible":["Global Administrator"],
		"groups":["Cloud operators"],"default_method":"sms","sessions_valid_from":"2026-11-23T12:00:00Z","manager":"sam.ito@fernhill.example"}`).want(t, 200)
	for name, want := range map[string]string{"enabled": "false", "synced": "true", "roles": "[User Administrator]", "eligible": "[Global Administrator]",
		"groups": "[Cloud operators]", "default_method": "sms", "sessions_valid_from": "2026-11-23T12:00:00Z", "manager": sam} {
		if got := fmt.Sprint(after.get(t, name)); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	for _, bad := range []string{`{"roles":["Emperor"],"enabled":true}`, `{"groups":["No such group"]}`, `{"colour":"red"}`, `{"manager":"nobody"}`,
		`{"default_method":"pigeon"}`, `{"default_method_id":"wh-1"}`, `{"per_user_mfa":"maybe"}`, `[]`} {
		admin(t, tenant, "PATCH", user, bad).want(t, 400)
	}
	if admin(t, tenant, "GET", user, "").text != after.text {
		t.Error("a refused change had an effect")
	}
	admin(t, tenant, "DELETE", user+"/methods/"+url.PathEscape(slashID), "").want(t, 200)
	admin(t, tenant, "DELETE", user+"/methods/"+url.PathEscape(slashID), "").want(t, 404)
	admin(t, tenant, "POST", user+"/methods", `{"type":"#microsoft.graph.phoneAuthenticationMethod","phoneType":"mobile","phoneNumber":"+1 4255550177"}`).want(t, 400)
	admin(t, tenant, "POST", user+"/methods", `{"type":"hologramAuthenticationMethod","id":"h-1","shape":"cube","device":{"size":7}}`).want(t, 200)
	if a := graph(t, tenant, "GET", "/v1.0/users/"+dana+"/authentication/methods/h-1", ""); a.get(t, "@odata.type") != "#microsoft.graph.hologramAuthenticationMethod" ||
		a.get(t, "shape") != "cube" || a.get(t, "device", "size") != 7.0 {
		t.Error(a.text)
	}
	for _, body := range []string{`{}`, `{"type":"phoneAuthenticationMethod","phoneType":"fax"}`, `x`} {
		admin(t, tenant, "POST", user+"/methods", body).want(t, 400)
	}
	if n := len(admin(t, tenant, "GET", "/sandbox/tenant/users", "").get(t).([]any)); n != 6 {
		t.Errorf("%d users", n)
	}
	admin(t, tenant, "DELETE", user, "").want(t, 200)
	graph(t, tenant, "GET", "/v1.0/users/"+dana, "").want(t, 404)
	if a := admin(t, tenant, "GET", user, "").want(t, 404); a.get(t, "error") != "user_not_found" {
		t.Error(a.text)
	}
	mobile := `{"type":"phoneAuthenticationMethod","phoneType":"mobile","phoneNumber":"+1 4255550177"}`
	added := admin(t, tenant, "POST", "/sandbox/tenant/users", `{"upn":"new@fernhill.example","name":"Nell New","methods":[`+mobile+`]}`).want(t, 200)
	if added.get(t, "id") == "" || added.get(t, "enabled") != true || added.get(t, "default_method") != "sms" || len(added.get(t, "methods").([]any)) != 2 {
		t.Error(added.text) // a member has a password as well
	}
	if a := graph(t, tenant, "GET", "/v1.0/users/new@fernhill.example", ""); a.get(t, "displayName") != "Nell New" || a.get(t, "id") != added.get(t, "id") {
		t.Error(a.text)
	}
	for _, bad := range []string{`{}`, `{"upn":"new"}`, `{"upn":"NEW@fernhill.example"}`, `{"upn":"other@fernhill.example","id":"` + sam + `"}`,
		`{"upn":"other@fernhill.example","methods":[` + mobile + `,` + mobile + `]}`, `{"upn":"other@fernhill.example","methods":[{}]}`, `{"upn":"other@fernhill.example","colour":"red"}`} {
		admin(t, tenant, "POST", "/sandbox/tenant/users", bad).want(t, 400)
	}
	info := admin(t, tenant, "GET", "/sandbox/tenant", "").want(t, 200)
	if info.get(t, "name") != "Fernhill" || info.get(t, "pass_policy", "maximum_lifetime") != 480.0 || strings.Contains(info.text, testSecret) {
		t.Error(info.text)
	}
	admin(t, tenant, http.MethodGet, "/sandbox/other", "").want(t, 404)
}

func TestOptionsAreCopiedAndChecked(t *testing.T) {
	o := testOptions(newClock().Now)
	tenant := New(o)
	o.Users[0].Methods[0] = Email("changed@home.example")
	o.Groups[0].Members[0] = pat
	o.Granted[0] = "x"
	if a := graph(t, tenant, "GET", "/v1.0/users/"+dana+"/authentication/phoneMethods", ""); len(a.list(t, "id")) != 3 {
		t.Error(a.text)
	}
	for name, users := range map[string][]User{
		"no id":         {{UserPrincipalName: danaUPN}},
		"twice":         {{ID: dana, UserPrincipalName: danaUPN}, {ID: sam, UserPrincipalName: danaUPN}},
		"strange phone": {{ID: dana, UserPrincipalName: danaUPN, Methods: []Method{Phone("fax", "+1 4255550100")}}},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: New accepts it", name)
				}
			}()
			New(Options{Users: users})
		}()
	}
}

func FuzzFilter(f *testing.F) {
	for _, s := range []string{"mail eq 'a''b'", "proxyAddresses/any(p:p eq 'x')", "not (a eq 1) or b in ('x','y')", "startswith(mail,'", "((((", "mail in ()"} {
		f.Add(s)
	}
	o := Properties{{"mail", "a@b.example"}, {"proxyAddresses", []string{"SMTP:a@b.example"}}}
	f.Fuzz(func(t *testing.T, text string) {
		if parsed, err := parseFilter(text, filterableProperties()); err == nil {
			parsed.matches(o)
		}
	})
}
