package entra

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// User is a user of the tenant. The zero value of a field is the usual case: a member, enabled, managed in the cloud.
// Times are UTC with a precision of one second, as in Entra.
type User struct {
	ID                string // object id
	UserPrincipalName string
	DisplayName       string
	GivenName         string
	Surname           string
	Mail              string
	ProxyAddresses    []string // "SMTP:" marks the primary address, "smtp:" the others
	OtherMails        []string
	JobTitle          string
	Department        string
	CompanyName       string
	OfficeLocation    string
	EmployeeID        string
	MobilePhone       string // the directory's telephone number, not an authentication method
	BusinessPhones    []string
	Manager           string // object id of another user, or empty

	Guest                bool // userType Guest, invited from another tenant
	Blocked              bool // accountEnabled is false
	Synced               bool // onPremisesSyncEnabled: the on-premises directory is the source
	ManagementRestricted bool // member of a restricted management administrative unit

	Created            time.Time
	LastPasswordChange time.Time
	SessionsValidFrom  time.Time // signInSessionsValidFromDateTime; zero means when the account was created

	Methods []Method
	// DefaultMethod is Graph's userPreferredMethodForSecondaryAuthentication: push, oath, sms, voiceMobile,
	// voiceAlternateMobile, voiceOffice, or empty for none. It names a type, which several methods can support.
	DefaultMethod string
	// DefaultMethodID pins the default to one method. Then only the deletion of this one is refused; if it is empty, the deletion
	// of the last method that supports the default's type is. Microsoft's error messages name one id; its API shows only the type.
	DefaultMethodID string
	PerUserMFA      string // perUserMfaState: disabled (when empty), enabled or enforced
}

// Group is a security group. Members and Owners are object ids of users; Members may also be ids of other groups.
type Group struct {
	ID             string
	DisplayName    string
	Description    string
	Members        []string
	Owners         []string
	RoleAssignable bool // isAssignableToRole
}

// RoleAssignment gives a directory role to a user or to a role-assignable group.
type RoleAssignment struct {
	ID        string // generated when empty
	Principal string // object id of the user or group
	Role      string // role definition id; the built-in ones are in BuiltInRoles
	Scope     string // directoryScopeId; "/" when empty, else for example "/administrativeUnits/…"
	Eligible  bool   // only eligible through Privileged Identity Management, not active
}

// RoleDefinition is a directory role, built-in or custom.
type RoleDefinition struct {
	ID          string
	DisplayName string
	Privileged  bool // isPrivileged, which only beta shows
	Custom      bool
}

// Domain is a verified domain of the tenant.
type Domain struct {
	Name      string
	Federated bool // authenticationType Federated: another identity provider signs in its users
	Default   bool
}

// PassPolicy is the tenant's policy for Temporary Access Passes; the lifetimes are whole minutes.
type PassPolicy struct {
	Disabled        bool     `json:"disabled"`
	DefaultLength   int      `json:"default_length"`
	DefaultLifetime int      `json:"default_lifetime"`
	MinimumLifetime int      `json:"minimum_lifetime"`
	MaximumLifetime int      `json:"maximum_lifetime"`
	OnceOnly        bool     `json:"once_only"`      // isUsableOnce: only one-time passes are allowed
	IncludeGroups   []string `json:"include_groups"` // group ids; everybody when empty
}

// Method is one authentication method of a user: its OData type, its id, and the other properties that Graph shows, in order.
type Method struct {
	Type       string // "#microsoft.graph.phoneAuthenticationMethod"
	ID         string
	Properties Properties
}

// The OData types of the authentication methods that Graph shows.
const (
	TypePassword           = "#microsoft.graph.passwordAuthenticationMethod"
	TypePhone              = "#microsoft.graph.phoneAuthenticationMethod"
	TypeEmail              = "#microsoft.graph.emailAuthenticationMethod"
	TypeAuthenticator      = "#microsoft.graph.microsoftAuthenticatorAuthenticationMethod"
	TypeSoftwareOATH       = "#microsoft.graph.softwareOathAuthenticationMethod"
	TypeHardwareOATH       = "#microsoft.graph.hardwareOathAuthenticationMethod"
	TypePasskey            = "#microsoft.graph.fido2AuthenticationMethod"
	TypeWindowsHello       = "#microsoft.graph.windowsHelloForBusinessAuthenticationMethod"
	TypePlatformCredential = "#microsoft.graph.platformCredentialAuthenticationMethod"
	TypePass               = "#microsoft.graph.temporaryAccessPassAuthenticationMethod"
	TypeExternal           = "#microsoft.graph.externalAuthenticationMethod"
	TypeQRCodePIN          = "#microsoft.graph.qrCodePinAuthenticationMethod"
)

// Ids that are the same for every user (Graph, phoneAuthenticationMethod and authenticationMethod: resetPassword).
const (
	IDPassword        = "28c10230-6103-485e-b985-444c60001490"
	IDMobile          = "3179e48a-750b-4051-897c-87b9720928f7"
	IDAlternateMobile = "b6332ec1-7057-4abe-9331-3d72feddfe41"
	IDOffice          = "e37fc753-ff3b-4958-9484-eaa9425c82bc"
	IDEmail           = "3ddfcfc8-9383-446f-83cc-3ab9be4be18f"
)

// Phone returns a telephone number of type mobile, alternateMobile or office, written "+1 4255551234".
func Phone(phoneType, number string) Method {
	sms := "notSupported"
	if phoneType == "mobile" {
		sms = "notAllowedByPolicy"
	}
	return Method{TypePhone, phoneID(phoneType), Properties{
		{"createdDateTime", nil}, {"phoneNumber", number}, {"phoneType", phoneType}, {"smsSignInState", sms}}}
}

// Email returns an email address for self-service password reset.
func Email(address string) Method {
	return Method{TypeEmail, IDEmail, Properties{{"createdDateTime", nil}, {"emailAddress", address}}}
}

// Authenticator returns a Microsoft Authenticator app on one device. Its id is opaque and need not be a GUID.
func Authenticator(id, device string) Method {
	return Method{TypeAuthenticator, id, Properties{
		{"createdDateTime", nil}, {"displayName", device}, {"deviceTag", "SoftwareTokenActivated"}, {"phoneAppVersion", "6.2610.6912"}}}
}

// SoftwareOATH returns a software token: time-based codes from a third-party app.
func SoftwareOATH(id string) Method {
	return Method{TypeSoftwareOATH, id, Properties{{"createdDateTime", nil}, {"secretKey", nil}}}
}

// HardwareOATH returns an activated hardware token. Graph v1.0 does not support this type.
func HardwareOATH(id, serial, manufacturer, model string) Method {
	return Method{TypeHardwareOATH, id, Properties{{"createdDateTime", nil}, {"device", Properties{
		{"id", id}, {"displayName", nil}, {"serialNumber", serial}, {"manufacturer", manufacturer}, {"model", model},
		{"secretKey", nil}, {"timeIntervalInSeconds", 30}, {"status", tokenActivated}, {"hashFunction", "hmacsha1"}}}}}
}

// Passkey returns a device-bound FIDO2 key.
func Passkey(id, name, model, aaGUID string) Method {
	return Method{TypePasskey, id, Properties{
		{"createdDateTime", nil}, {"displayName", name}, {"aaGuid", aaGUID}, {"model", model},
		{"attestationCertificates", []string{}}, {"attestationLevel", "attested"}, {"passkeyType", "deviceBound"}}}
}

// WindowsHello returns Windows Hello for Business on one computer.
func WindowsHello(id, device string) Method {
	return Method{TypeWindowsHello, id, Properties{{"createdDateTime", nil}, {"displayName", device}, {"keyStrength", "normal"}}}
}

// PlatformCredential returns a credential of the platform (for example macOS) on one computer.
func PlatformCredential(id, device, platform string) Method {
	return Method{TypePlatformCredential, id, Properties{
		{"createdDateTime", nil}, {"displayName", device}, {"keyStrength", "normal"}, {"platform", platform}}}
}

// External returns an external authentication method that uses the given configuration of the tenant.
func External(id, name, configurationID string) Method {
	return Method{TypeExternal, id, Properties{{"createdDateTime", nil}, {"configurationId", configurationID}, {"displayName", name}}}
}

// QRCodePIN returns a QR code with a PIN; a user has at most one.
func QRCodePIN(id string) Method {
	return Method{TypeQRCodePIN, id, Properties{{"createdDateTime", nil}, {"standardQRCode", nil}, {"temporaryQRCode", nil}, {"pin", nil}}}
}

// TemporaryAccessPass returns a pass that was issued earlier. It has no value: the value is returned only when a pass is issued.
func TemporaryAccessPass(id string, start time.Time, lifetime time.Duration, once bool) Method {
	return Method{TypePass, id, Properties{
		{"createdDateTime", formatTime(start)}, {"temporaryAccessPass", nil}, {"startDateTime", formatTime(start)},
		{"lifetimeInMinutes", int(lifetime / time.Minute)}, {"isUsableOnce", once}, {"isUsable", nil}, {"methodUsabilityReason", nil}}}
}

// Password returns the password method that every member has. New adds it if it is missing.
func Password(changed time.Time) Method {
	return Method{TypePassword, IDPassword, Properties{{"password", nil}, {"createdDateTime", formatTime(changed)}}}
}

// With returns the method with one property set, for example "createdDateTime" or "lastUsedDateTime" (which only beta shows).
func (m Method) With(name string, value any) Method {
	if t, ok := value.(time.Time); ok {
		value = formatTime(t)
	}
	m.Properties = m.Properties.With(name, value)
	return m
}

// MarshalJSON writes the method as Graph does: type, id, properties.
func (m Method) MarshalJSON() ([]byte, error) { return m.object().MarshalJSON() }

func (m Method) object() Properties {
	return append(Properties{{"@odata.type", m.Type}, {"id", m.ID}}, m.Properties...)
}

// Property is a name and a value that encoding/json can marshal.
type Property struct {
	Name  string
	Value any
}

// Properties is a JSON object that keeps its order.
type Properties []Property

// Get returns the value of the named property; names are case-insensitive, as in Graph.
func (p Properties) Get(name string) (any, bool) {
	for _, x := range p {
		if strings.EqualFold(x.Name, name) {
			return x.Value, true
		}
	}
	return nil, false
}

// With returns a copy with the property set; a new property is appended.
func (p Properties) With(name string, value any) Properties {
	p = slices.Clone(p)
	for i := range p {
		if strings.EqualFold(p[i].Name, name) {
			p[i].Value = value
			return p
		}
	}
	return append(p, Property{name, value})
}

// MarshalJSON writes the object in order.
func (p Properties) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, x := range p {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(x.Name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(x.Value)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// UnmarshalJSON reads an object and keeps its order, also in nested objects; whole numbers become int.
func (p *Properties) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	v, err := readValue(d)
	if err != nil {
		return err
	}
	object, ok := v.(Properties)
	if !ok && v != nil {
		return fmt.Errorf("a JSON object is expected, not %s", b)
	}
	*p = object
	return nil
}

// readValue reads the next value: Properties, []any, string, bool, int, float64 or nil.
func readValue(d *json.Decoder) (any, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('{'):
		object := Properties{}
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return nil, err
			}
			value, err := readValue(d)
			if err != nil {
				return nil, err
			}
			object = append(object, Property{fmt.Sprint(name), value})
		}
		_, err = d.Token()
		return object, err
	case json.Delim('['):
		list := []any{}
		for d.More() {
			value, err := readValue(d)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		_, err = d.Token()
		return list, err
	}
	if n, ok := token.(json.Number); ok {
		if i, err := strconv.Atoi(n.String()); err == nil {
			return i, nil
		}
		return n.Float64()
	}
	return token, nil
}

// formatTime formats a time as Graph does, to the second; a zero time is null.
func formatTime(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}
