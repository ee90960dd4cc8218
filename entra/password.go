package entra

import (
	"context"
	"errors"
	"strings"

	abstractions "github.com/microsoft/kiota-abstractions-go"
	"github.com/microsoftgraph/msgraph-sdk-go/models"
)

// SetPassword gives the account a password that has to be changed at the next sign-in; with afterMFA the person must pass MFA before
// they may. The password is in no error. Graph answers the same whether or not the account had this password before, so a lost
// answer is settled by sending the same one again.
//
// It changes the password in the cloud and nowhere else: Graph refuses accounts that an on-premises directory masters (ErrSynced)
// or, in some tenants, takes the password and never writes it back, and for federated accounts it means nothing. Whoever calls
// looks first (User.Synced, Domain). Besides the permission, Entra asks for a directory role on the application itself: a refusal
// says so. App passwords go on working. https://learn.microsoft.com/graph/api/user-update
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
		// One or the other: Microsoft documents what each does, and not what both together do.
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
		// Should Graph, or something in between, ever repeat what it was sent.
		e.Message = strings.ReplaceAll(e.Message, password, "••••")
		if e.cause != nil && strings.Contains(e.cause.Error(), password) {
			e.cause = nil
		}
	}
	return err
}

// Domain is a verified domain of the tenant, as far as it tells where its people's passwords are.
type Domain struct {
	Name      string
	Federated bool // another identity provider signs its people in
}

// Domain reads one domain by its name, which is what stands behind the @ of a user principal name.
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
			// A domain must not pass for an ordinary one because Graph left something out.
			return errors.New("the answer does not say whether the domain is managed or federated")
		}
		return nil
	})
	if err != nil {
		return Domain{}, err
	}
	return d, nil
}

// PerUserMFA reads the state of per-user MFA: disabled, enabled or enforced, or whatever Graph adds. Only under an enforced one can
// a person make app passwords. https://learn.microsoft.com/graph/api/authentication-get (beta)
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
		if state = extra(e.GetAdditionalData()).text("perUserMfaState"); state == "" {
			return errors.New("the answer does not hold the state of per-user MFA")
		}
		return nil
	})
	return state, err
}
