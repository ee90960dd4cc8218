package entra

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	abstractions "github.com/microsoft/kiota-abstractions-go"
	"github.com/microsoftgraph/msgraph-sdk-go/models"
	"github.com/microsoftgraph/msgraph-sdk-go/users"
)

// Kind is the kind of an authentication method. The values are stable: they are stored in plans.
type Kind string

// The kinds of authentication methods. A type that Graph adds later is KindUnknown and keeps its OData type.
// https://learn.microsoft.com/graph/api/resources/authenticationmethods-overview
const (
	KindPhone              Kind = "phone"
	KindEmail              Kind = "email" // for self-service password reset only, not for sign-in
	KindAuthenticator      Kind = "authenticator"
	KindSoftwareOATH       Kind = "software-oath"
	KindHardwareOATH       Kind = "hardware-oath"
	KindPasskey            Kind = "passkey"
	KindWindowsHello       Kind = "windows-hello"
	KindPlatformCredential Kind = "platform-credential"
	KindPass               Kind = "pass" // a Temporary Access Pass
	KindExternal           Kind = "external"
	KindQRCode             Kind = "qr-code"
	KindPassword           Kind = "password" // cannot be deleted
	KindUnknown            Kind = "unknown"
)

// kindOf returns the kind for an @odata.type.
func kindOf(odataType string) Kind {
	switch strings.TrimPrefix(odataType, "#microsoft.graph.") {
	case "phoneAuthenticationMethod":
		return KindPhone
	case "emailAuthenticationMethod":
		return KindEmail
	case "microsoftAuthenticatorAuthenticationMethod":
		return KindAuthenticator
	case "softwareOathAuthenticationMethod":
		return KindSoftwareOATH
	case "hardwareOathAuthenticationMethod":
		return KindHardwareOATH
	case "fido2AuthenticationMethod":
		return KindPasskey
	case "windowsHelloForBusinessAuthenticationMethod":
		return KindWindowsHello
	case "platformCredentialAuthenticationMethod":
		return KindPlatformCredential
	case "temporaryAccessPassAuthenticationMethod":
		return KindPass
	case "externalAuthenticationMethod":
		return KindExternal
	case "qrCodePinAuthenticationMethod":
		return KindQRCode
	case "passwordAuthenticationMethod":
		return KindPassword
	}
	return KindUnknown
}

// Method is one authentication method of an account. Times are zero where Graph does not tell.
type Method struct {
	ID        string // opaque
	Kind      Kind
	ODataType string // as Graph wrote it, for example #microsoft.graph.phoneAuthenticationMethod
	Name      string // of the device, key or provider, as its owner or the tenant named it; text from elsewhere
	Model     string // of a passkey or hardware token, or the platform of a platform credential
	Serial    string // of a hardware token
	PhoneType string // mobile, alternateMobile, office; "" when Graph adds another
	Phone     string // not masked, "+1 4255551234x12": show Masked
	Email     string // not masked: show Masked
	Created   time.Time
	LastUsed  time.Time
	// Usable is false for a pass that Graph says is used up, expired or not yet valid (UsableReason says which, in Graph's
	// word), and for a hardware token that is not activated (Status says so). Otherwise it is true.
	Usable       bool
	UsableReason string
	ValidUntil   time.Time // end of a pass
	OneTime      bool      // a pass for one sign-in
	Status       string    // of a hardware token (activated, assigned, …), or of a phone for SMS sign-in (ready, notEnabled, …)
}

// Masked returns the phone number or e-mail address of the method, masked so that its owner recognises it and nobody else learns it:
// "+1 •••• ••67", "d••••@g••••.com". It is empty for a method that has neither.
func (m Method) Masked() string {
	switch {
	case m.Phone != "":
		return maskPhone(m.Phone)
	case m.Email != "":
		return maskEmail(m.Email)
	}
	return ""
}

// String returns the kind, the masked number or address or the name, and the id. With LogValue it keeps numbers and addresses out
// of logs and messages that print a whole Method.
func (m Method) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %s", m.Kind, firstNonEmpty(m.Masked(), m.Name), m.ID))
}

// LogValue implements slog.LogValuer.
func (m Method) LogValue() slog.Value { return slog.StringValue(m.String()) }

// maskPhone keeps the country code, if a space separates it, and the last two of at least six digits. It hides the length of the number.
func maskPhone(number string) string {
	number, _, _ = strings.Cut(number, "x") // the extension
	country, rest := "", number
	if c, r, ok := strings.Cut(number, " "); ok && strings.HasPrefix(c, "+") && len(c) <= 4 {
		country, rest = c+" ", r
	}
	digits := strings.Map(func(r rune) rune {
		if r < '0' || r > '9' {
			return -1
		}
		return r
	}, rest)
	if len(digits) < 6 {
		return country + "•••• ••"
	}
	return country + "•••• ••" + digits[len(digits)-2:]
}

// maskEmail keeps the first letter of the mailbox, the first of the domain, and the top-level domain.
func maskEmail(address string) string {
	at := strings.LastIndex(address, "@")
	if at < 0 {
		return "••••"
	}
	first := func(s string) string {
		if r := []rune(s); len(r) > 1 {
			return string(r[0]) + "••••"
		}
		return "••••" // one letter would reveal all of it
	}
	domain, top := address[at+1:], ""
	if dot := strings.LastIndex(domain, "."); dot >= 0 {
		domain, top = domain[:dot], domain[dot:]
	}
	return first(address[:at]) + "@" + first(domain) + top
}

// MethodList is what an account can authenticate with.
type MethodList struct {
	Methods []Method // in Graph's order, hardware tokens last
	// Default is the type of the default method: push, oath, sms, voiceMobile, voiceAlternateMobile, voiceOffice, whatever Graph
	// adds, or "" if there is none or it is not known (see Gaps). It names no single method: push may be any of several apps.
	Default string
	// Gaps are sentences that say what could not be read and why. Without gaps the list is complete.
	Gaps []string
}

// Methods lists the authentication methods of an account. The list of v1.0 must succeed. The hardware tokens and the default
// method, which only beta has, are best effort: a failure there is a gap, not an error.
// https://learn.microsoft.com/graph/api/authentication-list-methods
func (c *Client) Methods(ctx context.Context, userID string) (MethodList, error) {
	u, err := c.user(userID)
	if err != nil {
		return MethodList{}, err
	}
	var l MethodList
	b := u.Authentication().Methods()
	err = c.do(ctx, CallListMethods, func(ctx context.Context) error {
		all, err := collect[models.AuthenticationMethodable](ctx, func(ctx context.Context, link string) (models.AuthenticationMethodCollectionResponseable, error) {
			if link != "" {
				return b.WithUrl(link).Get(ctx, nil)
			}
			return b.Get(ctx, nil)
		})
		for _, m := range all {
			l.Methods = append(l.Methods, decodeMethod(m, ""))
		}
		return err
	})
	if err != nil {
		return MethodList{}, err
	}

	if err := c.addHardware(ctx, userID, &l); err != nil {
		l.Gaps = append(l.Gaps, "hardware tokens are not listed: "+err.Error())
	}
	err = c.do(ctx, CallReadDefault, func(ctx context.Context) error {
		e, err := send[models.Entityable](ctx, c, c.request(abstractions.GET, "/beta/users/{user}/authentication/signInPreferences",
			map[string]string{"user": userID}), models.CreateEntityFromDiscriminatorValue)
		if err == nil {
			l.Default = additionalData(e.GetAdditionalData()).text("userPreferredMethodForSecondaryAuthentication")
		}
		return err
	})
	if err != nil {
		l.Gaps = append(l.Gaps, "the default method is not known: "+err.Error())
	}
	if err := ctx.Err(); err != nil && len(l.Gaps) > 0 { // the caller cancelled, which is not a gap
		return MethodList{}, explain(CallListMethods, err, new(callTrace))
	}
	return l, nil
}

// LastUsed returns when the methods of an account were last used, by method id, as far as Graph says: only beta does, and not
// for every kind.
func (c *Client) LastUsed(ctx context.Context, userID string) (map[string]time.Time, error) {
	if _, err := c.user(userID); err != nil {
		return nil, err
	}
	used := map[string]time.Time{}
	err := c.do(ctx, CallListUse, func(ctx context.Context) error {
		all, err := list[models.AuthenticationMethodable, models.AuthenticationMethodCollectionResponseable](ctx, c,
			"/beta/users/{user}/authentication/methods", map[string]string{"user": userID}, nil,
			models.CreateAuthenticationMethodCollectionResponseFromDiscriminatorValue)
		for _, m := range all {
			if t := additionalData(m.GetAdditionalData()).time("lastUsedDateTime"); !t.IsZero() && m.GetId() != nil {
				used[*m.GetId()] = t
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return used, nil
}

// addHardware adds the hardware tokens, or completes those that the first list already had.
func (c *Client) addHardware(ctx context.Context, userID string, l *MethodList) error {
	var all []models.AuthenticationMethodable
	err := c.do(ctx, CallListHardware, func(ctx context.Context) (err error) {
		all, err = list[models.AuthenticationMethodable, models.AuthenticationMethodCollectionResponseable](ctx, c,
			"/beta/users/{user}/authentication/hardwareOathMethods", map[string]string{"user": userID}, nil,
			models.CreateAuthenticationMethodCollectionResponseFromDiscriminatorValue)
		return err
	})
	for _, a := range all {
		m := decodeMethod(a, "#microsoft.graph.hardwareOathAuthenticationMethod")
		if i := slices.IndexFunc(l.Methods, func(o Method) bool { return o.ID == m.ID }); i >= 0 {
			l.Methods[i] = m
		} else {
			l.Methods = append(l.Methods, m)
		}
	}
	return err
}

// decodeMethod reads the SDK's model. Properties that the SDK does not have, and every property of a kind it does not know, are in
// the additional data. ofType is the type of a collection whose members may come without their own.
func decodeMethod(a models.AuthenticationMethodable, ofType string) Method {
	x := additionalData(a.GetAdditionalData())
	odata := firstNonEmpty(deref(a.GetOdataType()), ofType)
	m := Method{ID: deref(a.GetId()), Kind: kindOf(odata), ODataType: odata, Usable: true,
		Name: x.text("displayName"), Model: x.text("model"), Created: x.time("createdDateTime"), LastUsed: x.time("lastUsedDateTime")}
	if v, ok := a.(interface{ GetCreatedDateTime() *time.Time }); ok {
		m.Created = deref(v.GetCreatedDateTime())
	}
	if v, ok := a.(interface{ GetDisplayName() *string }); ok {
		m.Name = deref(v.GetDisplayName())
	}
	switch v := a.(type) {
	case models.PhoneAuthenticationMethodable:
		m.Phone = deref(v.GetPhoneNumber())
		if t := v.GetPhoneType(); t != nil {
			m.PhoneType = t.String()
		}
		if s := v.GetSmsSignInState(); s != nil {
			m.Status = s.String()
		}
	case models.EmailAuthenticationMethodable:
		m.Email = deref(v.GetEmailAddress())
	case models.Fido2AuthenticationMethodable:
		m.Model = deref(v.GetModel())
	case models.PlatformCredentialAuthenticationMethodable:
		if p := v.GetPlatform(); p != nil {
			m.Model = p.String()
		}
	case models.TemporaryAccessPassAuthenticationMethodable:
		m.Usable, m.UsableReason, m.OneTime = deref(v.GetIsUsable()), deref(v.GetMethodUsabilityReason()), deref(v.GetIsUsableOnce())
		if start, life := v.GetStartDateTime(), v.GetLifetimeInMinutes(); start != nil && life != nil {
			m.ValidUntil = start.Add(time.Duration(*life) * time.Minute)
		}
	}
	if m.Kind == KindHardwareOATH {
		d := x.object("device")
		m.Name, m.Serial, m.Status = firstNonEmpty(m.Name, d.text("displayName")), d.text("serialNumber"), d.text("status")
		m.Model = strings.TrimSpace(d.text("manufacturer") + " " + d.text("model"))
		if t := d.time("lastUsedDateTime"); !t.IsZero() {
			m.LastUsed = t
		}
		m.Usable = m.Status == "" || m.Status == "activated"
	}
	return m
}

// additionalData is the SDK's additional data: JSON whose leaves are pointers.
type additionalData map[string]any

func (x additionalData) text(name string) string {
	s, _ := x[name].(*string)
	return deref(s)
}

func (x additionalData) time(name string) time.Time {
	t, _ := time.Parse(time.RFC3339, x.text(name)) // absent, null or unreadable: zero
	return t
}

func (x additionalData) object(name string) additionalData {
	o, _ := x[name].(map[string]any)
	return o
}

// DeleteMethod deletes one authentication method; a hardware token is unassigned from the account and stays in the tenant's
// inventory. ErrDefaultMethod says that the others have to be deleted first, ErrNotFound that it was deleted already. An account
// has at most one QR code, whose id is ignored. A password, or a kind that Countersign does not know, cannot be deleted.
func (c *Client) DeleteMethod(ctx context.Context, userID string, k Kind, methodID string) error {
	call, ok := DeleteCall(k)
	if !ok {
		return fmt.Errorf("a method of kind %q cannot be deleted through Microsoft Graph", k)
	}
	u, err := c.user(userID)
	if err != nil {
		return err
	}
	if err := checkID("authentication method", methodID); err != nil && k != KindQRCode {
		return err
	}
	return c.do(ctx, call, func(ctx context.Context) error {
		a := u.Authentication()
		switch k {
		case KindPhone:
			return a.PhoneMethods().ByPhoneAuthenticationMethodId(methodID).Delete(ctx, nil)
		case KindEmail:
			return a.EmailMethods().ByEmailAuthenticationMethodId(methodID).Delete(ctx, nil)
		case KindAuthenticator:
			return a.MicrosoftAuthenticatorMethods().ByMicrosoftAuthenticatorAuthenticationMethodId(methodID).Delete(ctx, nil)
		case KindSoftwareOATH:
			return a.SoftwareOathMethods().BySoftwareOathAuthenticationMethodId(methodID).Delete(ctx, nil)
		case KindPasskey:
			return a.Fido2Methods().ByFido2AuthenticationMethodId(methodID).Delete(ctx, nil)
		case KindWindowsHello:
			return a.WindowsHelloForBusinessMethods().ByWindowsHelloForBusinessAuthenticationMethodId(methodID).Delete(ctx, nil)
		case KindPlatformCredential:
			return a.PlatformCredentialMethods().ByPlatformCredentialAuthenticationMethodId(methodID).Delete(ctx, nil)
		case KindPass:
			return a.TemporaryAccessPassMethods().ByTemporaryAccessPassAuthenticationMethodId(methodID).Delete(ctx, nil)
		case KindExternal: // irregular: not externalMethods
			return c.sendRawChange(ctx, abstractions.DELETE, "/v1.0/users/{user}/authentication/externalAuthenticationMethods/{method}", userID, methodID)
		case KindHardwareOATH:
			return c.sendRawChange(ctx, abstractions.DELETE, "/beta/users/{user}/authentication/hardwareOathMethods/{method}", userID, methodID)
		case KindQRCode:
			return c.sendRawChange(ctx, abstractions.DELETE, "/beta/users/{user}/authentication/qrCodePinMethod", userID, "")
		}
		return errors.New("no way to delete this kind")
	})
}

// DeactivateHardwareToken makes a hardware token useless for sign-in until it is activated again; it stays assigned to the account.
// https://learn.microsoft.com/graph/api/hardwareoathauthenticationmethod-deactivate (beta, global service only)
func (c *Client) DeactivateHardwareToken(ctx context.Context, userID, methodID string) error {
	if err := errors.Join(checkID("account", userID), checkID("authentication method", methodID)); err != nil {
		return err
	}
	return c.do(ctx, CallDeactivateToken, func(ctx context.Context) error {
		return c.sendRawChange(ctx, abstractions.POST, "/beta/users/{user}/authentication/hardwareOathMethods/{method}/deactivate", userID, methodID)
	})
}

// sendRawChange sends a hand-made request that changes something. Only the status of the answer matters.
func (c *Client) sendRawChange(ctx context.Context, method abstractions.HttpMethod, path, userID, methodID string) error {
	ri := c.request(method, path, map[string]string{"user": userID, "method": methodID})
	return c.adapter.SendNoContent(ctx, ri, odataErrors())
}

// RevokeSessions makes every refresh token and session cookie of the account invalid: the person has to sign in again everywhere.
// Access tokens stay valid for up to an hour or so, and guests keep the sessions of their home tenant.
// https://learn.microsoft.com/graph/api/user-revokesigninsessions
func (c *Client) RevokeSessions(ctx context.Context, userID string) error {
	u, err := c.user(userID)
	if err != nil {
		return err
	}
	return c.do(ctx, CallRevokeSessions, func(ctx context.Context) error {
		ri, err := u.RevokeSignInSessions().ToPostRequestInformation(ctx, (*users.ItemRevokeSignInSessionsRequestBuilderPostRequestConfiguration)(nil))
		if err != nil {
			return err
		}
		// The builder's Post requires a body, but Microsoft documents that Graph answers other codes than 200 as well.
		return c.adapter.SendNoContent(ctx, ri, odataErrors())
	})
}
