package entra

import "strings"

// Permission is an application permission (app role) of Microsoft Graph, by the name under which an administrator grants it.
type Permission string

// The application permissions that Countersign's calls need: for each call the least privileged one in Microsoft's permission
// data. If the tenant's cloud does not offer the granular ones (UserAuthMethod-…), UserAuthenticationMethod.ReadWrite.All
// replaces all of them. https://learn.microsoft.com/graph/permissions-reference
const (
	PermUserRead           Permission = "User.Read.All"
	PermGroupMemberRead    Permission = "GroupMember.Read.All"
	PermRolesRead          Permission = "RoleManagement.Read.Directory"
	PermEligibilityRead    Permission = "RoleEligibilitySchedule.Read.Directory"
	PermMethodsRead        Permission = "UserAuthenticationMethod.Read.All"
	PermPhoneWrite         Permission = "UserAuthMethod-Phone.ReadWrite.All"
	PermEmailWrite         Permission = "UserAuthMethod-Email.ReadWrite.All"
	PermAuthenticatorWrite Permission = "UserAuthMethod-MicrosoftAuthApp.ReadWrite.All"
	PermSoftwareOATHWrite  Permission = "UserAuthMethod-SoftwareOATH.ReadWrite.All"
	PermHardwareOATHWrite  Permission = "UserAuthMethod-HardwareOATH.ReadWrite.All"
	PermPasskeyWrite       Permission = "UserAuthMethod-Passkey.ReadWrite.All"
	PermWindowsHelloWrite  Permission = "UserAuthMethod-WindowsHello.ReadWrite.All"
	PermPlatformWrite      Permission = "UserAuthMethod-PlatformCred.ReadWrite.All"
	PermPassWrite          Permission = "UserAuthMethod-TAP.ReadWrite.All"
	PermExternalWrite      Permission = "UserAuthMethod-External.ReadWrite.All"
	PermQRCodeWrite        Permission = "UserAuthMethod-QR.ReadWrite.All"
	PermSessionsRevoke     Permission = "User.RevokeSessions.All"
	PermAccountEnable      Permission = "User.EnableDisableAccount.All"
	PermPasswordWrite      Permission = "User-PasswordProfile.ReadWrite.All"
	PermDomainRead         Permission = "Domain.Read.All"
	PermPolicyRead         Permission = "Policy.Read.All"
	PermMethodPolicyRead   Permission = "Policy.Read.AuthenticationMethod"
)

// Call names one call to Microsoft Graph in words that fit after "Microsoft Graph refused to …".
type Call string

// The calls that this package makes.
const (
	CallReadUser         Call = "read the account"
	CallFindUser         Call = "look up the account"
	CallReadManager      Call = "read the manager"
	CallListGroups       Call = "list the groups of the account"
	CallListMembers      Call = "list the members of the group"
	CallListOwned        Call = "list the groups the account owns"
	CallListRoles        Call = "list the directory roles of the account"
	CallListEligible     Call = "list the directory roles the account is eligible for"
	CallRoleNames        Call = "read the names of the directory roles"
	CallListMethods      Call = "list the authentication methods"
	CallListHardware     Call = "list the hardware tokens"
	CallListUse          Call = "read when the authentication methods were last used"
	CallReadDefault      Call = "read the default sign-in method"
	CallAddPhone         Call = "add a phone number"
	CallReplacePhone     Call = "replace a phone number"
	CallAddEmail         Call = "add the e-mail address for password reset"
	CallReplaceEmail     Call = "replace the e-mail address for password reset"
	CallDeletePhone      Call = "delete a phone number"
	CallDeleteEmail      Call = "delete the e-mail address for password reset"
	CallDeleteAuthApp    Call = "delete an Authenticator app"
	CallDeleteSoftware   Call = "delete a software token"
	CallDeleteHardware   Call = "take a hardware token away from the account"
	CallDeletePasskey    Call = "delete a passkey"
	CallDeleteHello      Call = "delete a Windows Hello credential"
	CallDeletePlatform   Call = "delete a platform credential"
	CallDeletePass       Call = "delete a Temporary Access Pass"
	CallDeleteExternal   Call = "delete an external method"
	CallDeleteQRCode     Call = "delete the QR code"
	CallDeactivateToken  Call = "deactivate a hardware token"
	CallRevokeSessions   Call = "revoke the sessions"
	CallSetEnabled       Call = "block or unblock sign-in"
	CallSetPassword      Call = "set a temporary password"
	CallReadDomain       Call = "read how the domain signs its people in"
	CallReadRequirements Call = "read the state of per-user MFA"
	CallReadPassPolicy   Call = "read the policy for Temporary Access Passes"
	CallListPasses       Call = "list the Temporary Access Passes"
	CallIssuePass        Call = "issue a Temporary Access Pass"
	// CallSignIn precedes all others: it gets an access token from Entra. It needs no permission.
	CallSignIn Call = "sign Countersign in"
)

// Endpoint is one call and the permissions that an application needs for it.
type Endpoint struct {
	Call       Call
	Method     string // the HTTP method
	Path       string // with the version; {id} is the account, {mid} the authentication method
	Permission Permission
	// Also is a second permission without which the call succeeds but its answer lacks what is needed, or "".
	Also Permission
}

// Endpoints lists every call of this package with its application permission. This is not stored anywhere else.
//
// UserAuthMethod-HardwareOATH.Read.All would be enough to list the hardware tokens, but they are only listed together with all
// methods, whose permission covers it; the passes are listed only before one is issued. User.Read.All is enough to list groups,
// but if the app may not read groups, Graph returns only their ids: GroupMember.Read.All is needed to see whether one is
// role-assignable, see Client.Groups.
func Endpoints() []Endpoint {
	const user, methods = "/v1.0/users/{id}", "/v1.0/users/{id}/authentication/"
	const beta, roles = "/beta/users/{id}/authentication/", "/roleManagement/directory/"
	return []Endpoint{
		{CallReadUser, "GET", user, PermUserRead, ""},
		{CallFindUser, "GET", "/v1.0/users", PermUserRead, ""},
		{CallReadManager, "GET", user + "/manager", PermUserRead, ""},
		{CallListGroups, "GET", user + "/transitiveMemberOf", PermUserRead, PermGroupMemberRead},
		{CallListMembers, "GET", "/v1.0/groups/{id}/transitiveMembers", PermGroupMemberRead, PermUserRead},
		{CallListOwned, "GET", user + "/ownedObjects", PermUserRead, PermGroupMemberRead},
		{CallListRoles, "GET", "/beta" + roles + "transitiveRoleAssignments", PermRolesRead, ""},
		{CallListEligible, "GET", "/v1.0" + roles + "roleEligibilityScheduleInstances", PermEligibilityRead, ""},
		{CallRoleNames, "GET", "/v1.0" + roles + "roleDefinitions", PermRolesRead, ""},
		{CallListMethods, "GET", methods + "methods", PermMethodsRead, ""},
		{CallListHardware, "GET", beta + "hardwareOathMethods", PermMethodsRead, ""},
		{CallListUse, "GET", beta + "methods", PermMethodsRead, ""},
		{CallReadDefault, "GET", beta + "signInPreferences", PermMethodsRead, ""},
		{CallAddPhone, "POST", methods + "phoneMethods", PermPhoneWrite, ""},
		{CallReplacePhone, "PATCH", methods + "phoneMethods/{mid}", PermPhoneWrite, ""},
		{CallAddEmail, "POST", methods + "emailMethods", PermEmailWrite, ""},
		{CallReplaceEmail, "PATCH", methods + "emailMethods/{mid}", PermEmailWrite, ""},
		{CallDeletePhone, "DELETE", methods + "phoneMethods/{mid}", PermPhoneWrite, ""},
		{CallDeleteEmail, "DELETE", methods + "emailMethods/{mid}", PermEmailWrite, ""},
		{CallDeleteAuthApp, "DELETE", methods + "microsoftAuthenticatorMethods/{mid}", PermAuthenticatorWrite, ""},
		{CallDeleteSoftware, "DELETE", methods + "softwareOathMethods/{mid}", PermSoftwareOATHWrite, ""},
		{CallDeleteHardware, "DELETE", beta + "hardwareOathMethods/{mid}", PermHardwareOATHWrite, ""},
		{CallDeletePasskey, "DELETE", methods + "fido2Methods/{mid}", PermPasskeyWrite, ""},
		{CallDeleteHello, "DELETE", methods + "windowsHelloForBusinessMethods/{mid}", PermWindowsHelloWrite, ""},
		{CallDeletePlatform, "DELETE", methods + "platformCredentialMethods/{mid}", PermPlatformWrite, ""},
		{CallDeletePass, "DELETE", methods + "temporaryAccessPassMethods/{mid}", PermPassWrite, ""},
		{CallDeleteExternal, "DELETE", methods + "externalAuthenticationMethods/{mid}", PermExternalWrite, ""},
		{CallDeleteQRCode, "DELETE", beta + "qrCodePinMethod", PermQRCodeWrite, ""},
		{CallDeactivateToken, "POST", beta + "hardwareOathMethods/{mid}/deactivate", PermHardwareOATHWrite, ""},
		{CallRevokeSessions, "POST", user + "/revokeSignInSessions", PermSessionsRevoke, ""},
		{CallSetEnabled, "PATCH", user, PermAccountEnable, PermUserRead},
		{CallSetPassword, "PATCH", user, PermPasswordWrite, ""},
		{CallReadDomain, "GET", "/v1.0/domains/{id}", PermDomainRead, ""},
		{CallReadRequirements, "GET", beta + "requirements", PermPolicyRead, ""},
		{CallReadPassPolicy, "GET", "/v1.0/policies/authenticationMethodsPolicy/authenticationMethodConfigurations/{id}", PermMethodPolicyRead, ""},
		{CallListPasses, "GET", methods + "temporaryAccessPassMethods", PermPassWrite, ""},
		{CallIssuePass, "POST", methods + "temporaryAccessPassMethods", PermPassWrite, ""},
	}
}

// Permission returns the application permission of a call, or "" for one that needs none.
func (c Call) Permission() Permission {
	for _, e := range Endpoints() {
		if e.Call == c {
			return e.Permission
		}
	}
	return ""
}

// DeleteCall returns the call that deletes a method of this kind, and false for a kind that cannot be deleted.
func DeleteCall(k Kind) (Call, bool) {
	switch k {
	case KindPhone:
		return CallDeletePhone, true
	case KindEmail:
		return CallDeleteEmail, true
	case KindAuthenticator:
		return CallDeleteAuthApp, true
	case KindSoftwareOATH:
		return CallDeleteSoftware, true
	case KindHardwareOATH:
		return CallDeleteHardware, true
	case KindPasskey:
		return CallDeletePasskey, true
	case KindWindowsHello:
		return CallDeleteHello, true
	case KindPlatformCredential:
		return CallDeletePlatform, true
	case KindPass:
		return CallDeletePass, true
	case KindExternal:
		return CallDeleteExternal, true
	case KindQRCode:
		return CallDeleteQRCode, true
	}
	return "", false
}

// Wider returns a broader permission that includes p and is offered in every cloud, or "" if there is none.
func (p Permission) Wider() Permission {
	if strings.HasPrefix(string(p), "UserAuthMethod-") {
		return "UserAuthenticationMethod.ReadWrite.All"
	}
	return ""
}
