package entra

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	abstractions "github.com/microsoft/kiota-abstractions-go"
	"github.com/microsoftgraph/msgraph-sdk-go/models"
)

// PassPolicy is the tenant's policy for Temporary Access Passes. A pass can be issued to anybody, but only those in its scope can
// sign in with one. https://learn.microsoft.com/graph/api/resources/temporaryaccesspassauthenticationmethodconfiguration
type PassPolicy struct {
	Enabled  bool
	Everyone bool     // everybody is included
	Included []string // object ids of the groups and people that are, in lower case
	Excluded []string // overrides Included

	DefaultLifetime time.Duration
	MinimumLifetime time.Duration
	MaximumLifetime time.Duration
	OneTimeOnly     bool // passes for several sign-ins are refused
}

// Covers reports whether a person with this object id and these groups (by object id) is in the scope of the policy.
func (p PassPolicy) Covers(userID string, groups []string) bool {
	in := func(targets []string) bool {
		return slices.ContainsFunc(append([]string{userID}, groups...), func(id string) bool { return slices.Contains(targets, strings.ToLower(id)) })
	}
	return (p.Everyone || in(p.Included)) && !in(p.Excluded)
}

// PassPolicy reads the policy. https://learn.microsoft.com/graph/api/temporaryaccesspassauthenticationmethodconfiguration-get
func (c *Client) PassPolicy(ctx context.Context) (PassPolicy, error) {
	var p PassPolicy
	err := c.do(ctx, CallReadPassPolicy, func(ctx context.Context) error {
		m, err := send[models.AuthenticationMethodConfigurationable](ctx, c,
			c.request(abstractions.GET, "/v1.0/policies/authenticationMethodsPolicy/authenticationMethodConfigurations/TemporaryAccessPass", nil),
			models.CreateAuthenticationMethodConfigurationFromDiscriminatorValue)
		if err != nil {
			return err
		}
		policy, ok := m.(models.TemporaryAccessPassAuthenticationMethodConfigurationable)
		if !ok || policy.GetState() == nil {
			return errors.New("the answer is not the policy for Temporary Access Passes")
		}
		minutes := func(n *int32) time.Duration { return time.Duration(deref(n)) * time.Minute }
		p = PassPolicy{Enabled: *policy.GetState() == models.ENABLED_AUTHENTICATIONMETHODSTATE, OneTimeOnly: deref(policy.GetIsUsableOnce()),
			DefaultLifetime: minutes(policy.GetDefaultLifetimeInMinutes()), MinimumLifetime: minutes(policy.GetMinimumLifetimeInMinutes()),
			MaximumLifetime: minutes(policy.GetMaximumLifetimeInMinutes())}
		if p.DefaultLifetime <= 0 || p.MinimumLifetime <= 0 || p.MaximumLifetime < p.MinimumLifetime {
			return errors.New("the policy for Temporary Access Passes came without its lifetimes")
		}
		for _, t := range policy.GetIncludeTargets() {
			switch id := strings.ToLower(deref(t.GetId())); id {
			case "all_users":
				p.Everyone = true
			case "":
			default:
				p.Included = append(p.Included, id)
			}
		}
		for _, t := range policy.GetExcludeTargets() {
			if id := strings.ToLower(deref(t.GetId())); id != "" {
				p.Excluded = append(p.Excluded, id)
			}
		}
		return nil
	})
	if err != nil {
		return PassPolicy{}, err
	}
	return p, nil
}

// Pass is a Temporary Access Pass just issued, with its value, which Graph returns only once.
type Pass struct {
	ID         string
	Value      string // whoever has it can sign in as the person
	ValidFrom  time.Time
	ValidUntil time.Time
	OneTime    bool
}

// String returns the id. With LogValue it keeps the value out of logs and messages that print a whole Pass.
func (p Pass) String() string { return "Temporary Access Pass " + p.ID }

// GoString is for %#v.
func (p Pass) GoString() string { return p.String() }

// LogValue implements slog.LogValuer.
func (p Pass) LogValue() slog.Value { return slog.StringValue(p.String()) }

// IssuePass issues a Temporary Access Pass that is valid from now on. An account has one at most: a new one replaces an old one, so
// the call can be repeated if its answer was lost. Graph refuses with 400 what the policy does not allow. It can take some
// minutes until the pass works everywhere. https://learn.microsoft.com/graph/api/authentication-post-temporaryaccesspassmethods
func (c *Client) IssuePass(ctx context.Context, userID string, lifetime time.Duration, oneTime bool) (Pass, error) {
	u, err := c.user(userID)
	if err != nil {
		return Pass{}, err
	}
	var p Pass
	err = c.do(ctx, CallIssuePass, func(ctx context.Context) error {
		minutes := int32(lifetime / time.Minute)
		order := models.NewTemporaryAccessPassAuthenticationMethod()
		order.SetLifetimeInMinutes(&minutes)
		order.SetIsUsableOnce(&oneTime)
		m, err := u.Authentication().TemporaryAccessPassMethods().Post(ctx, order, nil)
		if err != nil {
			return err
		}
		if m == nil || deref(m.GetTemporaryAccessPass()) == "" {
			return errEmpty
		}
		p = Pass{ID: deref(m.GetId()), Value: *m.GetTemporaryAccessPass(), OneTime: deref(m.GetIsUsableOnce()), ValidFrom: deref(m.GetStartDateTime())}
		if life := m.GetLifetimeInMinutes(); life != nil && !p.ValidFrom.IsZero() {
			p.ValidUntil = p.ValidFrom.Add(time.Duration(*life) * time.Minute)
		}
		return nil
	})
	if err != nil {
		return Pass{}, err
	}
	return p, nil
}

// Passes lists the passes of an account, used up and expired ones too, without their values. More than one is not expected.
// https://learn.microsoft.com/graph/api/authentication-list-temporaryaccesspassmethods
func (c *Client) Passes(ctx context.Context, userID string) ([]Method, error) {
	u, err := c.user(userID)
	if err != nil {
		return nil, err
	}
	var passes []Method
	b := u.Authentication().TemporaryAccessPassMethods()
	err = c.do(ctx, CallListPasses, func(ctx context.Context) error {
		all, err := collect[models.TemporaryAccessPassAuthenticationMethodable](ctx, func(ctx context.Context, link string) (models.TemporaryAccessPassAuthenticationMethodCollectionResponseable, error) {
			if link != "" {
				return b.WithUrl(link).Get(ctx, nil)
			}
			return b.Get(ctx, nil)
		})
		for _, m := range all {
			passes = append(passes, decodeMethod(m, "#microsoft.graph.temporaryAccessPassAuthenticationMethod"))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return passes, nil
}
