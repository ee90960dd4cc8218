package entra

import (
	"crypto/rand"
	"fmt"
	"math/big"
	"net/http"
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The supported states of a hardware token. A deactivated token stays assigned to its user.
const (
	tokenActivated = "activated"
	tokenAssigned  = "assigned"
)

// kinds maps the collections under /users/{id}/authentication to their OData types. The names are irregular.
func kinds() map[string]string {
	return map[string]string{
		"phoneMethods":                   TypePhone,
		"emailMethods":                   TypeEmail,
		"microsoftAuthenticatorMethods":  TypeAuthenticator,
		"softwareOathMethods":            TypeSoftwareOATH,
		"hardwareOathMethods":            TypeHardwareOATH,
		"fido2Methods":                   TypePasskey,
		"windowsHelloForBusinessMethods": TypeWindowsHello,
		"platformCredentialMethods":      TypePlatformCredential,
		"temporaryAccessPassMethods":     TypePass,
		"externalAuthenticationMethods":  TypeExternal,
		"qrCodePinMethod":                TypeQRCodePIN,
		"passwordMethods":                TypePassword,
	}
}

// segment returns the collection of the call; it is "methods" for all types.
func (c *call) segment() string { return strings.Split(c.route.path, "/")[4] }

// kind returns the type of the call's collection; it is "" for all types.
func (c *call) kind() string { return kinds()[c.segment()] }

// shownMethod returns a method as this version of Graph shows it. For a pass, this includes whether it is usable now.
func (t *Tenant) shownMethod(a *account, m Method, version string) Properties {
	o := m.object()
	if version != "beta" {
		o = slices.DeleteFunc(o, func(p Property) bool { return p.Name == "lastUsedDateTime" })
	} else if _, ok := o.Get("lastUsedDateTime"); !ok {
		o = o.With("lastUsedDateTime", nil)
	}
	if m.Type == TypePass {
		usable, reason := t.passState(a, m)
		o = o.With("isUsable", usable).With("methodUsabilityReason", reason)
	}
	return o
}

func (c *call) listMethods() (reply, error) {
	a, err := c.user()
	if err != nil {
		return reply{}, err
	}
	kind := c.kind()
	var list []Properties
	for _, m := range a.Methods {
		hidden := kind == "" && m.Type == TypeHardwareOATH && c.version != "beta" && !c.t.quirks.HardwareOATHInMethods
		if hidden || kind != "" && kind != m.Type {
			continue
		}
		o := c.t.shownMethod(a, m, c.version)
		if kind != "" {
			o = o[1:] // the type follows from the collection
		}
		list = append(list, o)
	}
	return c.collection("users('"+a.ID+"')/authentication/"+c.segment(), list, nil)
}

// method returns the method {mid} of the path, or the only one of its type.
func (c *call) method(a *account) (Method, error) {
	kind := c.kind()
	for _, m := range a.Methods {
		if (kind == "" || kind == m.Type) && (c.segment() == "qrCodePinMethod" || c.vars["mid"] == m.ID) {
			return m, nil
		}
	}
	return Method{}, &graphError{http.StatusNotFound, "resourceNotFound", "The requested authentication method is not found for the user."}
}

func (c *call) getMethod() (reply, error) {
	a, err := c.user()
	if err != nil {
		return reply{}, err
	}
	m, err := c.method(a)
	if err != nil {
		return reply{}, err
	}
	o := c.t.shownMethod(a, m, c.version)
	if c.kind() != "" {
		o = o[1:]
	}
	return c.entity("users('"+a.ID+"')/authentication/"+c.segment(), c.selected(o))
}

// deleteGeneric refuses to delete through /methods: the call is documented, but the service behind Graph does not support it.
func (c *call) deleteGeneric() (reply, error) {
	return reply{}, &graphError{http.StatusNotFound, "resourceNotFound", fmt.Sprintf(
		"No HTTP resource was found that matches the request URI 'https://mface.windowsazure.com/odata/users(%s)/authentication/methods(%s)'.",
		c.vars["id"], c.vars["mid"])}
}

func (c *call) deleteMethod() (reply, error) {
	a, err := c.user()
	if err != nil {
		return reply{}, err
	}
	m, err := c.method(a)
	if err != nil {
		return reply{}, err
	}
	if a.mustKeep(m) {
		message := fmt.Sprintf("The requested authentication method id of [%s] matches the user's current default authentication method, "+
			"and cannot be deleted until the default authentication method is changed", m.ID)
		if c.t.quirks.OlderDefaultMessage {
			message = "Cannot delete default method with other methods configured. Please change default method before deletion."
		}
		return reply{}, refused("%s", message)
	}
	if m.Type == TypePhone && m.ID == IDMobile && a.find(TypePhone, IDAlternateMobile) >= 0 {
		return reply{}, refused("The mobile phone cannot be deleted while an alternate mobile phone is there.")
	}
	a.remove(m)
	return noContent()
}

// refused returns an error in the form of the authentication method API.
func refused(format string, args ...any) *graphError {
	return &graphError{http.StatusBadRequest, "badRequest", fmt.Sprintf(format, args...)}
}

func (a *account) find(kind, id string) int {
	return slices.IndexFunc(a.Methods, func(m Method) bool { return m.Type == kind && m.ID == id })
}

func (a *account) remove(m Method) {
	i := a.find(m.Type, m.ID)
	a.Methods = slices.Delete(slices.Clone(a.Methods), i, i+1)
	if m.Type == TypePass {
		a.passValue = ""
	}
	a.updateDefault()
}

// supports reports whether the method can be the default for the given preference.
func (m Method) supports(preference string) bool {
	switch preference {
	case "push":
		return m.Type == TypeAuthenticator
	case "oath":
		return m.Type == TypeAuthenticator || m.Type == TypeSoftwareOATH || m.Type == TypeHardwareOATH && m.tokenStatus() == tokenActivated
	case "sms", "voiceMobile":
		return m.Type == TypePhone && m.ID == IDMobile
	case "voiceAlternateMobile":
		return m.Type == TypePhone && m.ID == IDAlternateMobile
	case "voiceOffice":
		return m.Type == TypePhone && m.ID == IDOffice
	}
	return false
}

// preferences lists the types of default methods, in the order in which they replace a deleted default.
func preferences() []string {
	return []string{"push", "oath", "sms", "voiceMobile", "voiceAlternateMobile", "voiceOffice"}
}

// isSecondFactor reports whether a method can be a default: phones, Authenticator apps and activated OATH tokens.
func (m Method) isSecondFactor() bool { return slices.ContainsFunc(preferences(), m.supports) }

func (m Method) tokenStatus() any {
	device, _ := m.Properties.Get("device")
	if p, ok := device.(Properties); ok {
		status, _ := p.Get("status")
		return status
	}
	return nil
}

// mustKeep reports whether the method is the default and cannot be deleted before the others. If several methods support the
// default type, this applies to the last of them.
func (a *account) mustKeep(m Method) bool {
	if a.DefaultMethod == "" || !m.isSecondFactor() {
		return false
	}
	var others, carriers int
	for _, o := range a.Methods {
		if o.Type == m.Type && o.ID == m.ID || !o.isSecondFactor() {
			continue
		}
		others++
		if o.supports(a.DefaultMethod) {
			carriers++
		}
	}
	if a.DefaultMethodID != "" {
		return others > 0 && a.DefaultMethodID == m.ID
	}
	return others > 0 && m.supports(a.DefaultMethod) && carriers == 0
}

// updateDefault keeps the default if a method still supports it; otherwise it selects the next preference, or none.
func (a *account) updateDefault() {
	if !slices.ContainsFunc(a.Methods, func(m Method) bool { return m.ID == a.DefaultMethodID }) {
		a.DefaultMethodID = ""
	}
	carried := func(preference string) bool {
		return slices.ContainsFunc(a.Methods, func(m Method) bool { return m.supports(preference) })
	}
	if a.DefaultMethod != "" && carried(a.DefaultMethod) {
		return
	}
	a.DefaultMethod = ""
	if i := slices.IndexFunc(preferences(), carried); i >= 0 {
		a.DefaultMethod = preferences()[i]
	}
}

// phoneFormat is "+{country code} {number}x{extension}" (Graph, phoneAuthenticationMethod). The space is part of it.
var phoneFormat = regexp.MustCompile(`^\+[1-9][0-9]{0,2} [0-9]{4,15}(x[0-9]{1,10})?$`)

func phoneID(phoneType string) string {
	switch phoneType {
	case "mobile":
		return IDMobile
	case "alternateMobile":
		return IDAlternateMobile
	case "office":
		return IDOffice
	}
	return ""
}

// phone reads the body of a POST or PATCH of a phone.
func (c *call) phone() (number, phoneType string, err error) {
	fields, err := c.fields()
	if err != nil {
		return "", "", err
	}
	if err := allowOnly(fields, "phoneAuthenticationMethod", "id", "phoneNumber", "phoneType"); err != nil {
		return "", "", err
	}
	number, _ = fields["phoneNumber"].(string)
	phoneType, _ = fields["phoneType"].(string)
	if !phoneFormat.MatchString(number) {
		return "", "", refused("The phone number is not of the required format +{country code} {number}x{extension}, for example +1 5555551234.")
	}
	return number, phoneType, nil
}

func (c *call) addPhone() (reply, error) {
	a, err := c.user()
	if err != nil {
		return reply{}, err
	}
	number, phoneType, err := c.phone()
	if err != nil {
		return reply{}, err
	}
	id := phoneID(phoneType)
	switch {
	case id == "":
		return reply{}, refused("The phone type must be mobile, alternateMobile or office.")
	case a.find(TypePhone, id) >= 0:
		return reply{}, c.duplicate("A phone of type " + phoneType + " is already registered for the user.")
	case id == IDAlternateMobile && a.find(TypePhone, IDMobile) < 0:
		return reply{}, refused("An alternate mobile phone cannot be added before a mobile phone.")
	}
	return c.created(a, Phone(phoneType, number))
}

// duplicate refuses a second method where only one is allowed. Microsoft documents no status for it; both have been observed.
func (c *call) duplicate(message string) *graphError {
	e := refused("%s", message)
	if c.t.quirks.DuplicateIsConflict {
		e.status, e.code = http.StatusConflict, "conflict"
	}
	return e
}

func (c *call) created(a *account, m Method) (reply, error) {
	m = m.With("createdDateTime", c.t.now())
	a.Methods = append(slices.Clone(a.Methods), m)
	a.updateDefault()
	p, err := c.entity("users('"+a.ID+"')/authentication/"+c.segment(), c.t.shownMethod(a, m, c.version)[1:])
	p.status = http.StatusCreated
	p.header = http.Header{"Location": {c.root + c.url.EscapedPath() + "/" + m.ID}}
	return p, err
}

func (c *call) patchPhone() (reply, error) {
	a, err := c.user()
	if err != nil {
		return reply{}, err
	}
	m, err := c.method(a)
	if err != nil {
		return reply{}, err
	}
	number, phoneType, err := c.phone()
	if err != nil {
		return reply{}, err
	}
	if phoneType != "" && phoneID(phoneType) != m.ID {
		return reply{}, refused("The type of a phone cannot be changed. Add a phone of the new type and delete the old one.")
	}
	a.replace(m, m.With("phoneNumber", number))
	return noContent()
}

func (a *account) replace(old, by Method) {
	a.Methods = slices.Clone(a.Methods)
	a.Methods[a.find(old.Type, old.ID)] = by
}

// email reads the body of a POST or PATCH of an email address.
func (c *call) email() (string, error) {
	fields, err := c.fields()
	if err != nil {
		return "", err
	}
	if err := allowOnly(fields, "emailAuthenticationMethod", "id", "emailAddress"); err != nil {
		return "", err
	}
	address, _ := fields["emailAddress"].(string)
	if parsed, err := mail.ParseAddress(address); err != nil || parsed.Address != address {
		return "", refused("The email address is not valid.")
	}
	return address, nil
}

func (c *call) addEmail() (reply, error) {
	a, err := c.user()
	if err != nil {
		return reply{}, err
	}
	address, err := c.email()
	if err != nil {
		return reply{}, err
	}
	if a.find(TypeEmail, IDEmail) >= 0 {
		return reply{}, c.duplicate("An email address is already registered for the user.")
	}
	return c.created(a, Email(address))
}

func (c *call) patchEmail() (reply, error) {
	a, err := c.user()
	if err != nil {
		return reply{}, err
	}
	m, err := c.method(a)
	if err != nil {
		return reply{}, err
	}
	address, err := c.email()
	if err != nil {
		return reply{}, err
	}
	a.replace(m, m.With("emailAddress", address))
	return noContent()
}

// deactivateToken takes a hardware token out of use; it stays assigned to the user and can be activated again.
func (c *call) deactivateToken() (reply, error) {
	a, err := c.user()
	if err != nil {
		return reply{}, err
	}
	m, err := c.method(a)
	if err != nil {
		return reply{}, err
	}
	device, _ := m.Properties.Get("device")
	if p, ok := device.(Properties); ok {
		a.replace(m, m.With("device", p.With("status", tokenAssigned)))
	}
	a.updateDefault()
	return noContent()
}

// passState reports whether a pass is usable now, and the reason.
func (t *Tenant) passState(a *account, m Method) (usable bool, reason string) {
	start, end := passTimes(m)
	switch now := t.now(); {
	case t.pass.Disabled || !t.inPassScope(a):
		return false, "DisabledByPolicy"
	case now.Before(start):
		return false, "NotYetValid"
	case !now.Before(end):
		return false, "Expired"
	}
	return true, "EnabledByPolicy"
}

func passTimes(m Method) (start, end time.Time) {
	text, _ := m.Properties.Get("startDateTime")
	minutes, _ := m.Properties.Get("lifetimeInMinutes")
	s, _ := text.(string)
	start, _ = time.Parse(time.RFC3339, s)
	n, _ := minutes.(int)
	return start, start.Add(time.Duration(n) * time.Minute)
}

func (t *Tenant) inPassScope(a *account) bool {
	return len(t.pass.IncludeGroups) == 0 ||
		slices.ContainsFunc(t.memberships(a.ID), func(g *Group) bool { return slices.Contains(t.pass.IncludeGroups, g.ID) })
}

// issuePass creates a Temporary Access Pass. A user has at most one: a new one replaces the old one. Its value is returned only here.
func (c *call) issuePass() (reply, error) {
	a, err := c.user()
	if err != nil {
		return reply{}, err
	}
	fields := map[string]any{}
	if len(c.body) > 0 {
		if fields, err = c.fields(); err != nil {
			return reply{}, err
		}
	}
	if err := allowOnly(fields, "temporaryAccessPassAuthenticationMethod", "startDateTime", "lifetimeInMinutes", "isUsableOnce"); err != nil {
		return reply{}, err
	}
	policy := c.t.pass
	switch {
	case a.Guest:
		return reply{}, refused("Temporary Access Pass cannot be added to an external guest user.")
	case policy.Disabled:
		return reply{}, refused("Converged UserCredentialPolicy does not allow creating or updating Temporary Access Pass.")
	}
	start := c.t.now()
	if v, ok := fields["startDateTime"]; ok && v != nil {
		text, _ := v.(string)
		if start, err = time.Parse(time.RFC3339, text); err != nil {
			return reply{}, refused("The property startDateTime must be a time, for example 2026-11-23T13:00:00Z.")
		}
	}
	minutes := policy.DefaultLifetime
	if v, ok := fields["lifetimeInMinutes"]; ok && v != nil {
		n, isNumber := v.(float64)
		minutes = int(n)
		if !isNumber || minutes < policy.MinimumLifetime || minutes > policy.MaximumLifetime {
			return reply{}, refused("The property lifetimeInMinutes must be between %d and %d, as the tenant's policy for Temporary Access Passes says.",
				policy.MinimumLifetime, policy.MaximumLifetime)
		}
	}
	once := policy.OnceOnly
	if v, ok := fields["isUsableOnce"].(bool); ok {
		if once = v; !once && policy.OnceOnly {
			return reply{}, refused("The property isUsableOnce must be true, as the tenant's policy for Temporary Access Passes says.")
		}
	}
	a.Methods = slices.DeleteFunc(slices.Clone(a.Methods), func(m Method) bool { return m.Type == TypePass })
	value := passValue(policy.DefaultLength)
	p, err := c.created(a, TemporaryAccessPass(newGUID(), start, time.Duration(minutes)*time.Minute, once))
	a.passValue = value
	p.body = p.body.(Properties).With("temporaryAccessPass", value)
	return p, err
}

// passValue returns a random value of the characters that real passes have. They include special characters, which a client must
// display unchanged.
func passValue(length int) string {
	const alphabet = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789+*%&#@$"
	b := make([]byte, length)
	for i := range b {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet))))
		if err != nil {
			panic(fmt.Errorf("entra: generating a pass: %w", err))
		}
		b[i] = alphabet[n.Int64()]
	}
	return string(b)
}

func (c *call) getPreferences() (reply, error) {
	a, err := c.user()
	if err != nil {
		return reply{}, err
	}
	preferred := any(nil)
	if a.DefaultMethod != "" {
		preferred = a.DefaultMethod
	}
	return reply{status: http.StatusOK, body: Properties{{"@odata.context", c.context("users('" + a.ID + "')/authentication/signInPreferences")},
		{"isSystemPreferredAuthenticationMethodEnabled", true}, {"userPreferredMethodForSecondaryAuthentication", preferred}}}, nil
}

func (c *call) patchPreferences() (reply, error) {
	a, err := c.user()
	if err != nil {
		return reply{}, err
	}
	fields, err := c.fields()
	if err != nil {
		return reply{}, err
	}
	if err := allowOnly(fields, "signInPreferences", "userPreferredMethodForSecondaryAuthentication"); err != nil {
		return reply{}, err
	}
	preferred, _ := fields["userPreferredMethodForSecondaryAuthentication"].(string)
	if !slices.ContainsFunc(a.Methods, func(m Method) bool { return m.supports(preferred) }) {
		return reply{}, refused("The user has no authentication method for the preference '%s'.", preferred)
	}
	a.DefaultMethod, a.DefaultMethodID = preferred, ""
	return noContent()
}

func (c *call) getRequirements() (reply, error) {
	a, err := c.user()
	if err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusOK, body: Properties{{"@odata.context", c.context("users('" + a.ID + "')/authentication/requirements")},
		{"perUserMfaState", a.PerUserMFA}}}, nil
}

// methodConfigurations returns the configurations of the policy. Only the one for passes can differ from the default.
func (t *Tenant) methodConfigurations() []Properties {
	everybody := []Properties{{{"targetType", "group"}, {"id", "all_users"}, {"isRegistrationRequired", false}}}
	usual := func(id, kind string) Properties {
		return Properties{{"@odata.type", "#microsoft.graph." + kind + "AuthenticationMethodConfiguration"}, {"id", id}, {"state", "enabled"},
			{"excludeTargets", []string{}}, {"includeTargets", everybody}}
	}
	state, targets := "enabled", everybody
	if t.pass.Disabled {
		state = "disabled"
	}
	if len(t.pass.IncludeGroups) > 0 {
		targets = nil
		for _, id := range t.pass.IncludeGroups {
			targets = append(targets, Properties{{"targetType", "group"}, {"id", id}, {"isRegistrationRequired", false}})
		}
	}
	pass := Properties{{"@odata.type", "#microsoft.graph.temporaryAccessPassAuthenticationMethodConfiguration"}, {"id", "TemporaryAccessPass"},
		{"state", state}, {"excludeTargets", []string{}}, {"defaultLifetimeInMinutes", t.pass.DefaultLifetime}, {"defaultLength", t.pass.DefaultLength},
		{"minimumLifetimeInMinutes", t.pass.MinimumLifetime}, {"maximumLifetimeInMinutes", t.pass.MaximumLifetime}, {"isUsableOnce", t.pass.OnceOnly},
		{"includeTargets", targets}}
	return []Properties{usual("Fido2", "fido2"), usual("MicrosoftAuthenticator", "microsoftAuthenticator"), usual("Sms", "sms"), pass,
		usual("SoftwareOath", "softwareOath"), usual("HardwareOath", "hardwareOath"), usual("Voice", "voice"), usual("Email", "email")}
}

func (c *call) getMethodsPolicy() (reply, error) {
	return c.entity("policies/authenticationMethodsPolicy", Properties{{"id", "authenticationMethodsPolicy"}, {"displayName", "Authentication Methods Policy"},
		{"description", "The tenant-wide policy that controls which authentication methods are allowed in the tenant"},
		{"policyVersion", "1.5"}, {"policyMigrationState", "migrationComplete"}, {"authenticationMethodConfigurations", c.t.methodConfigurations()}})
}

func (c *call) getMethodConfiguration() (reply, error) {
	for _, o := range c.t.methodConfigurations() {
		if id, _ := o.Get("id"); strings.EqualFold(id.(string), c.vars["id"]) {
			return c.entity("authenticationMethodConfigurations", o)
		}
	}
	return reply{}, &graphError{http.StatusNotFound, "resourceNotFound", "The authentication method configuration '" + c.vars["id"] + "' is not found."}
}

// getRegistrationDetails returns the report of a user's registered methods. The real report is delayed; this one is not.
func (c *call) getRegistrationDetails() (reply, error) {
	a, err := c.user()
	if err != nil {
		return reply{}, err
	}
	names := map[string]string{TypeEmail: "email", TypeAuthenticator: "microsoftAuthenticatorPush", TypeSoftwareOATH: "softwareOneTimePasscode",
		TypeHardwareOATH: "hardwareOneTimePasscode", TypePasskey: "passKeyDeviceBound", TypeWindowsHello: "windowsHelloForBusiness",
		TypePass: "temporaryAccessPass", TypeExternal: "externalAuthMethod", TypeQRCodePIN: "qrCodePin", TypePlatformCredential: "macOsSecureEnclaveKey"}
	registered := []string{}
	var strong, passwordless bool
	for _, m := range a.Methods {
		name := names[m.Type]
		if m.Type == TypePhone {
			phoneType, _ := m.Properties.Get("phoneType")
			name = map[any]string{"mobile": "mobilePhone", "alternateMobile": "alternateMobilePhone", "office": "officePhone"}[phoneType]
		}
		if name != "" && !slices.Contains(registered, name) {
			registered = append(registered, name)
		}
		passwordless = passwordless || m.Type == TypePasskey || m.Type == TypeWindowsHello || m.Type == TypePlatformCredential
		strong = strong || m.isSecondFactor() || passwordless
	}
	preferred := a.DefaultMethod
	if preferred == "" {
		preferred = "none"
	}
	userType := "member"
	if a.Guest {
		userType = "guest"
	}
	return c.entity("reports/authenticationMethods/userRegistrationDetails", c.selected(Properties{{"id", a.ID}, {"userPrincipalName", a.UserPrincipalName},
		{"userDisplayName", a.DisplayName}, {"userType", userType}, {"isAdmin", len(c.t.activeRoles(a.ID)) > 0}, {"isMfaRegistered", strong},
		{"isMfaCapable", strong}, {"isPasswordlessCapable", passwordless}, {"isSsprRegistered", len(registered) > 0}, {"isSsprEnabled", true},
		{"isSsprCapable", len(registered) > 0}, {"isSystemPreferredAuthenticationMethodEnabled", true}, {"systemPreferredAuthenticationMethods", []string{}},
		{"userPreferredMethodForSecondaryAuthentication", preferred}, {"methodsRegistered", registered}, {"lastUpdatedDateTime", formatTime(c.t.now())}}))
}
