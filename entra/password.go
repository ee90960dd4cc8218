package entra

import (
	"context"
	"errors"
	"strings"

	abstractions "github.com/microsoft/kiota-abstractions-go"
	"github.com/microsoftgraph/msgraph-sdk-go/models"
)

// SetPassword gives the account a password that has to be changed at the next sign-in; with afterMFA the person must pass MFA before
// they may change it. No error contains the password. Graph answers the same whether or not the account had this password before,
// so after a lost answer the same one can be sent again.
//
// It changes the password only in the cloud: Graph refuses accounts that an on-premises directory masters (ErrSynced) or, in some
// tenants, accepts the password and never writes it back. For federated accounts it has no effect. The caller must check this first
// (User.Synced, Domain). Besides the permission, Entra requires a directory role on the application itself: a refusal says so.
// App passwords still work. https://learn.microsoft.com/graph/api/user-update
func (c *Client) SetPassword(ctx context.Context, userID, password string, afterMFA bool) error {
	b, err := c.user(userID)
	if err != nil {
		return err
	}
	if password == "" {
		return errors.New("no password to set")
	}
	err = c.do(ctx, CallSetPassword, func(ctx context.Context) error {
		yes := true
		profile := models.NewPasswordProfile()
		profile.SetPassword(&password)
		// Only one of them: Microsoft does not document what both together do.
		if afterMFA {
			profile.SetForceChangePasswordNextSignInWithMfa(&yes)
		} else {
			profile.SetForceChangePasswordNextSignIn(&yes)
		}
		change := models.NewUser()
		change.SetPasswordProfile(profile)
		ri, err := b.ToPatchRequestInformation(ctx, change, nil)
		if err != nil {
			return err
		}
		return c.adapter.SendNoContent(ctx, ri, odataErrors())
	})
	if e, ok := errors.AsType[*Error](err); ok {
		// Graph, or a proxy, might repeat in its message what it was sent.
		e.Message = strings.ReplaceAll(e.Message, password, "••••")
		if e.cause != nil && strings.Contains(e.cause.Error(), password) {
			e.cause = nil
		}
	}
	return err
}

// Domain is a verified domain of the tenant. It says where the passwords of its accounts are managed.
type Domain struct {
	Name      string
	Federated bool // another identity provider signs its people in
}

// Domain reads one domain by its name, the part behind the @ of a user principal name.
// https://learn.microsoft.com/graph/api/domain-get
func (c *Client) Domain(ctx context.Context, name string) (Domain, error) {
	if err := checkID("domain", name); err != nil {
		return Domain{}, err
	}
	d := Domain{Name: name}
	err := c.do(ctx, CallReadDomain, func(ctx context.Context) error {
		m, err := send[models.Domainable](ctx, c, c.request(abstractions.GET, "/v1.0/domains/{domain}", map[string]string{"domain": name}),
			models.CreateDomainFromDiscriminatorValue)
		if err != nil {
			return err
		}
		switch kind := deref(m.GetAuthenticationType()); {
		case strings.EqualFold(kind, "Federated"):
			d.Federated = true
		case !strings.EqualFold(kind, "Managed"):
			// If Graph left the type out, the domain must not count as a managed one.
			return errors.New("the answer does not say whether the domain is managed or federated")
		}
		return nil
	})
	if err != nil {
		return Domain{}, err
	}
	return d, nil
}

// PerUserMFA reads the state of per-user MFA: disabled, enabled or enforced, or another value that Graph adds. A
// person can create app passwords only if it is enforced. https://learn.microsoft.com/graph/api/authentication-get (beta)
func (c *Client) PerUserMFA(ctx context.Context, userID string) (string, error) {
	if err := checkID("account", userID); err != nil {
		return "", err
	}
	var state string
	err := c.do(ctx, CallReadRequirements, func(ctx context.Context) error {
		e, err := send[models.Entityable](ctx, c, c.request(abstractions.GET, "/beta/users/{user}/authentication/requirements",
			map[string]string{"user": userID}), models.CreateEntityFromDiscriminatorValue)
		if err != nil {
			return err
		}
		if state = additionalData(e.GetAdditionalData()).text("perUserMfaState"); state == "" {
			return errors.New("the answer does not contain the state of per-user MFA")
		}
		return nil
	})
	return state, err
}
