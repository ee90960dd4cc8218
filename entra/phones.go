package entra

import (
	"context"
	"fmt"

	abstractions "github.com/microsoft/kiota-abstractions-go"
	"github.com/microsoftgraph/msgraph-sdk-go/models"
)

// AddPhone registers a number of a type (mobile, alternateMobile or office) of which the account has none. An alternate mobile requires
// a mobile. The format of the number is "+1 4255551234x12", with the space behind the country code.
//
// A second number of one type is refused, with a status that Microsoft does not document.
// https://learn.microsoft.com/graph/api/authentication-post-phonemethods
func (c *Client) AddPhone(ctx context.Context, userID, phoneType, number string) error {
	return c.setPhone(ctx, CallAddPhone, userID, "", phoneType, number)
}

// ReplacePhone replaces the number of the account's phone with this methodID. Its type cannot change.
// https://learn.microsoft.com/graph/api/phoneauthenticationmethod-update
func (c *Client) ReplacePhone(ctx context.Context, userID, methodID, phoneType, number string) error {
	if err := checkID("authentication method", methodID); err != nil {
		return err
	}
	return c.setPhone(ctx, CallReplacePhone, userID, methodID, phoneType, number)
}

func (c *Client) setPhone(ctx context.Context, call Call, userID, methodID, phoneType, number string) error {
	u, err := c.user(userID)
	if err != nil {
		return err
	}
	parsed, err := models.ParseAuthenticationPhoneType(phoneType)
	if err != nil {
		return fmt.Errorf("%q is not a type of phone: %w", phoneType, err)
	}
	kind, ok := parsed.(*models.AuthenticationPhoneType)
	if !ok || kind == nil || *kind == models.UNKNOWNFUTUREVALUE_AUTHENTICATIONPHONETYPE {
		return fmt.Errorf("%q is not a type of phone", phoneType)
	}
	return c.do(ctx, call, func(ctx context.Context) error {
		phone := models.NewPhoneAuthenticationMethod()
		phone.SetPhoneNumber(&number)
		phone.SetPhoneType(kind)
		b := u.Authentication().PhoneMethods()
		var ri *abstractions.RequestInformation
		var err error
		if methodID == "" {
			ri, err = b.ToPostRequestInformation(ctx, phone, nil)
		} else {
			ri, err = b.ByPhoneAuthenticationMethodId(methodID).ToPatchRequestInformation(ctx, phone, nil)
		}
		return c.sendChange(ctx, ri, err)
	})
}

// AddEmail registers the address for self-service password reset of an account that has none.
// https://learn.microsoft.com/graph/api/authentication-post-emailmethods
func (c *Client) AddEmail(ctx context.Context, userID, address string) error {
	return c.setEmail(ctx, CallAddEmail, userID, "", address)
}

// ReplaceEmail replaces the address of the account's e-mail method with this methodID.
// https://learn.microsoft.com/graph/api/emailauthenticationmethod-update
func (c *Client) ReplaceEmail(ctx context.Context, userID, methodID, address string) error {
	if err := checkID("authentication method", methodID); err != nil {
		return err
	}
	return c.setEmail(ctx, CallReplaceEmail, userID, methodID, address)
}

func (c *Client) setEmail(ctx context.Context, call Call, userID, methodID, address string) error {
	u, err := c.user(userID)
	if err != nil {
		return err
	}
	return c.do(ctx, call, func(ctx context.Context) error {
		email := models.NewEmailAuthenticationMethod()
		email.SetEmailAddress(&address)
		b := u.Authentication().EmailMethods()
		var ri *abstractions.RequestInformation
		var err error
		if methodID == "" {
			ri, err = b.ToPostRequestInformation(ctx, email, nil)
		} else {
			ri, err = b.ByEmailAuthenticationMethodId(methodID).ToPatchRequestInformation(ctx, email, nil)
		}
		return c.sendChange(ctx, ri, err)
	})
}

// sendChange sends the request that a builder made. The builders' own Post and Patch require a body in the answer, which Graph
// sometimes omits: only the status counts.
func (c *Client) sendChange(ctx context.Context, ri *abstractions.RequestInformation, err error) error {
	if err != nil {
		return err
	}
	return c.adapter.SendNoContent(ctx, ri, odataErrors())
}
