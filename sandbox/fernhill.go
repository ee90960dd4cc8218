package sandbox

import (
	"time"

	"countersign/sandbox/entra"
	"countersign/sandbox/slack"
)

// Company is the company that a sandbox simulates: its Slack workspace and its Entra tenant.
type Company struct {
	Name   string // of the company, its workspace and its tenant
	Domain string // the default domain of the tenant

	Workspace  slack.Workspace
	People     []slack.Person
	Channels   []slack.Channel
	UserGroups []slack.UserGroup

	Users   []entra.User
	Groups  []entra.Group
	Roles   []entra.RoleAssignment
	Domains []entra.Domain
	Granted []string // application permissions that the bot has been given

	// Texts of the page for a first-time visitor.
	Hints    map[string]string // user id → a short description
	Welcome  string
	Pitch    string
	Tour     []TourStep
	Epilogue string // shown after the last step of the tour
}

// TourStep is one step of the tour: its button switches the visitor to a person and a channel.
type TourStep struct {
	Title   string `json:"title"`
	Text    string `json:"text"`    // Slack's mrkdwn
	Button  string `json:"button"`  // the label of the button
	As      string `json:"as"`      // user id: the person to switch to
	Channel string `json:"channel"` // channel id: the channel to open
	Compose string `json:"compose"` // text for the message field
	Account string `json:"account"` // object id of the account to show in the tenant panel
	Until   string `json:"until"`   // event that completes the step: command, submit, press:<action id>; when empty, the button itself
}

// The people of Fernhill, by their ids in Slack.
const (
	Hanna  = "U0HANNA"  // help desk agent
	Ravi   = "U0RAVI"   // help desk lead, an approver
	Olga   = "U0OLGA"   // on-call engineer, an approver
	Dana   = "U0DANA"   // has every kind of method, and lost her phone
	Sam    = "U0SAM"    // synced from on-premises
	Gloria = "U0GLORIA" // Global Administrator
	Elias  = "U0ELIAS"  // can activate the role User Administrator
	Pat    = "U0PAT"    // a guest from a partner
	Bo     = "U0BO"     // blocked
	Mina   = "U0MINA"   // text messages only
	Alex   = "U0ALEX"   // Alex Morgan
	AlexM  = "U0ALEXM"  // Alexa Morgan, an executive
)

// OnCallUserGroup is the id of the Slack user group of the on-call engineers, @oncall.
const OnCallUserGroup = "S0ONCALL"

// The same people by their object ids in Entra.
const (
	HannaID  = "85971ded-6ac7-4b7a-a5b1-a7ceb907ba4b"
	RaviID   = "06accc98-387e-4698-9a72-1d3803888187"
	OlgaID   = "90066f8b-2834-4ffe-b8e2-4a387e26a094"
	DanaID   = "e6eba5d7-aaf3-43d7-884a-6e59f2af482f"
	SamID    = "6e706b75-0504-4717-b27a-c43b82a44e70"
	GloriaID = "5ab02207-c2b0-4ef5-a030-89c0bed88c11"
	EliasID  = "ccaf5784-0950-4e09-9b3c-1c68d221bdf6"
	PatID    = "b9ebcb74-b003-468f-90b8-bcceb831a11e"
	BoID     = "ea2ce1ed-4966-48a6-aaff-b1d88702f0f1"
	MinaID   = "64973fa6-6655-4750-8cc7-b358bbd3d818"
	AlexID   = "d0249685-4e27-498b-b9d8-19bdf85772c3"
	AlexMID  = "8c35d219-2fc6-43b3-84f4-84cb02e22f51"
)

// Fernhill's channels.
const (
	General   = "C0GENERAL"  // everybody including the guest, but not the bot
	HelpDesk  = "C0HELPDESK" // where requests are submitted
	Approvals = "C0APPROVE"  // where requests are decided; the target, a guest and an administrator are members too
	Audit     = "C0AUDIT"    // where audit events are posted
	Vendor    = "C0VENDOR"   // shared with another company: no card may appear there
)

// Fernhill's groups in Entra, by their object ids.
const (
	GroupHelpDesk   = "43b724db-85d0-4422-b54d-119ebd5c5feb"
	GroupOnCall     = "41665dcf-e8e2-44cc-87e2-e4b662d3ca45"
	GroupApprovers  = "afce16d2-ba75-4d6e-85a2-d70431b4b286"
	GroupExecutives = "4abf862e-6092-43ae-8ead-f131aee223c4"
	GroupCloudOps   = "3607c12a-2dbb-4273-b798-a17ea1615e7a" // role-assignable
)

// The built-in directory roles that somebody in Fernhill has (https://learn.microsoft.com/entra/identity/role-based-access-control/permissions-reference).
const (
	roleGlobalAdministrator = "62e90394-69f5-4237-9190-012177145e10"
	roleUserAdministrator   = "fe930be7-5e62-47db-91af-98c3a49a38b1"
)

const (
	bot    = "U0COUNTER"
	domain = "fernhill.example"

	// The company's configuration of an external method, and the model ids (AAGUID) of the security keys that it issues.
	externalConfiguration = "b95bd8d8-df64-4b11-9fe6-cdc48f1966f2"
	modelYubiKey5NFC      = "2fc0579f-8113-47ea-b116-bb5a8db9202a"
	modelAppAuthenticator = "90a3ccdf-635c-4729-a248-9b709135078f"
)

// Fernhill returns the company of the demo and of the end-to-end tests: a help desk, two approvers, and the accounts that need
// special treatment. Times are relative to now, so that a pass that should be valid is valid. Telephone numbers are from the
// ranges reserved for fiction; the domain is reserved (RFC 2606).
func Fernhill(now time.Time) Company {
	return Company{
		Name:   "Fernhill",
		Domain: domain,
		Workspace: slack.Workspace{
			TeamID: "T0FERNHILL", Name: "Fernhill", Domain: "fernhill", AppID: "A0COUNTER", BotUserID: bot, BotID: "B0COUNTER",
		},
		People:   fernhillPeople(),
		Channels: fernhillChannels(),
		UserGroups: []slack.UserGroup{
			{ID: OnCallUserGroup, Handle: "oncall", Name: "On-call engineers", Description: "Engineers on call", Users: []string{Olga}},
		},
		Users: fernhillUsers(now),
		Groups: []entra.Group{
			{ID: GroupHelpDesk, DisplayName: "Help desk", Description: "Helps people who cannot sign in", Members: []string{HannaID, RaviID}},
			{ID: GroupOnCall, DisplayName: "On-call engineers", Description: "Engineers who contain incidents out of hours", Members: []string{OlgaID}},
			{ID: GroupApprovers, DisplayName: "Identity approvers", Description: "People who approve requests", Members: []string{RaviID, OlgaID}},
			{ID: GroupExecutives, DisplayName: "Executives", Description: "Protected executives", Members: []string{AlexMID}},
			{ID: GroupCloudOps, DisplayName: "Cloud operators", Description: "A role-assignable group", Members: []string{EliasID}, RoleAssignable: true},
		},
		Roles: []entra.RoleAssignment{
			{Principal: GloriaID, Role: roleGlobalAdministrator},
			{Principal: EliasID, Role: roleUserAdministrator, Eligible: true},
		},
		Domains: []entra.Domain{{Name: domain, Default: true}},
		Granted: []string{
			"User.Read.All", "GroupMember.Read.All", "UserAuthenticationMethod.Read.All", "RoleManagement.Read.Directory",
			"UserAuthMethod-Phone.ReadWrite.All", "UserAuthMethod-Email.ReadWrite.All", "UserAuthMethod-MicrosoftAuthApp.ReadWrite.All",
			"UserAuthMethod-SoftwareOATH.ReadWrite.All", "UserAuthMethod-HardwareOATH.ReadWrite.All", "UserAuthMethod-Passkey.ReadWrite.All",
			"UserAuthMethod-WindowsHello.ReadWrite.All", "UserAuthMethod-PlatformCred.ReadWrite.All", "UserAuthMethod-External.ReadWrite.All",
			"UserAuthMethod-QR.ReadWrite.All", "UserAuthMethod-TAP.ReadWrite.All", "Policy.Read.AuthenticationMethod", "Policy.Read.All", "Domain.Read.All",
			"User-PasswordProfile.ReadWrite.All", "User.EnableDisableAccount.All", "User.RevokeSessions.All",
		},
		Hints: map[string]string{
			Hanna: "help desk agent", Ravi: "help desk lead · approves", Olga: "on-call engineer · approves", Dana: "finance · lost her phone",
			Sam: "account synced from on-premises", Gloria: "Global Administrator", Elias: "eligible administrator", Pat: "guest from a partner",
			Bo: "account is blocked", Mina: "text messages only", Alex: "same surname as Alexa", AlexM: "executive, protected",
		},
		Welcome: "Countersign changes an account’s authentication methods only after a second person approves.",
		Pitch:   "Try it with a whole company: switch between its people, and watch their accounts under Microsoft Entra.",
		Tour: []TourStep{
			{
				Title: "Submit a request, as Hanna.", Text: "Dana has lost her phone. Send the command below; a form then asks how you verified that the caller was Dana.",
				Button: "Switch to Hanna", As: Hanna, Channel: HelpDesk, Compose: "/entra-require-reregister @dana lost phone", Account: DanaID, Until: "submit",
			},
			{
				Title: "Approve it, as Ravi.", Text: "Read in #identity-approvals what will happen, and approve. Hanna is not allowed to; try it as her, as Dana, or as Pat, the guest.",
				Button: "Switch to Ravi", As: Ravi, Channel: Approvals, Account: DanaID, Until: "press:approve",
			},
			{
				Title: "See what happened.", Text: "Dana’s phones, apps and tokens are gone, her passkey still works, and #identity-audit shows who did what, and why.",
				Button: "Open the audit log", As: Ravi, Channel: Audit, Account: DanaID,
			},
		},
		Epilogue: "You have finished the tour. Now try to get around the rules: submit a request for Gloria, who is an administrator, or for the wrong Morgan; approve twice; switch to Olga, who is on call, and type `/entra-block-signin @mina break-glass laptop stolen`; change Dana’s account while a request is open; simulate failures, at the bottom of the Entra panel.",
	}
}

func fernhillPeople() []slack.Person {
	return []slack.Person{
		{ID: Hanna, Handle: "hanna", Name: "Hanna Okafor", Title: "Help desk agent", Email: "hanna.okafor@" + domain, Color: "#a2553a"},
		{ID: Ravi, Handle: "ravi", Name: "Ravi Menon", Title: "Help desk lead", Email: "ravi.menon@" + domain, Color: "#2f6f8f"},
		{ID: Olga, Handle: "olga", Name: "Olga Lindqvist", Title: "On-call engineer", Email: "olga.lindqvist@" + domain, Color: "#6b4f9a"},
		{ID: Dana, Handle: "dana", Name: "Dana Whitfield", Title: "Accounts payable", Email: "dana.whitfield@" + domain, Color: "#b0722a"},
		{ID: Sam, Handle: "sam", Name: "Sam Ito", Title: "Warehouse planner", Email: "sam.ito@" + domain, Color: "#3f7a4f"},
		{ID: Gloria, Handle: "gloria", Name: "Gloria Adeyemi", Title: "Head of IT", Email: "gloria.adeyemi@" + domain, Color: "#97405f", Admin: true, Owner: true},
		{ID: Elias, Handle: "elias", Name: "Elias Brandt", Title: "Cloud engineer", Email: "elias.brandt@" + domain, Color: "#44609c"},
		{ID: Pat, Handle: "pat", Name: "Pat Moreau", Title: "Consultant, Partner", Email: "pat@partner.example", Color: "#7d6b3d", Restricted: true},
		{ID: Bo, Handle: "bo", Name: "Bo Castellan", Title: "Sales, on leave", Email: "bo.castellan@" + domain, Color: "#6a6f73"},
		{ID: Mina, Handle: "mina", Name: "Mina Haddad", Title: "Store manager", Email: "mina.haddad@" + domain, Color: "#2b7d78"},
		{ID: Alex, Handle: "alex", Name: "Alex Morgan", Title: "Marketing", Email: "alex.morgan@" + domain, Color: "#8a4b86"},
		{ID: AlexM, Handle: "alexm", Name: "Alexa Morgan", Title: "Chief Financial Officer", Email: "alexa.morgan@" + domain, Color: "#5c6d2f"},
	}
}

func fernhillChannels() []slack.Channel {
	return []slack.Channel{
		{ID: General, Name: "general", Topic: "Everybody at Fernhill", Members: []string{Hanna, Ravi, Olga, Dana, Sam, Gloria, Elias, Pat, Bo, Mina, Alex, AlexM}},
		{ID: HelpDesk, Name: "help-desk", Topic: "Help for people who cannot sign in", Private: true, Members: []string{Hanna, Ravi, Olga, bot}},
		{ID: Approvals, Name: "identity-approvals", Topic: "Requests that need approval", Private: true, Members: []string{Hanna, Ravi, Olga, Gloria, Pat, Dana, bot}},
		{ID: Audit, Name: "identity-audit", Topic: "Audit events", Private: true, Members: []string{Ravi, Gloria, Olga, bot}},
		{ID: Vendor, Name: "vendor-bridge", Topic: "Shared with Partner", Private: true, Shared: true, Members: []string{Hanna, Pat, bot}},
	}
}

func fernhillUsers(now time.Time) []entra.User {
	// ago returns a plausible time: that many days ago, at the given time of day.
	ago := func(days, hour, minute int) time.Time {
		day := now.UTC().Truncate(24*time.Hour).AddDate(0, 0, -days)
		return day.Add(time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute)
	}
	since := func(m entra.Method, days, hour, minute int) entra.Method {
		return m.With("createdDateTime", ago(days, hour, minute))
	}
	used := func(m entra.Method, days, hour, minute int) entra.Method { // only beta shows it
		return m.With("lastUsedDateTime", ago(days, hour, minute))
	}
	member := func(id, local, given, surname, title, department, employee string, methods ...entra.Method) entra.User {
		address := local + "@" + domain
		return entra.User{
			ID: id, UserPrincipalName: address, Mail: address, DisplayName: given + " " + surname, GivenName: given, Surname: surname,
			ProxyAddresses: []string{"SMTP:" + address}, JobTitle: title, Department: department, CompanyName: "Fernhill", EmployeeID: employee,
			Methods: methods,
		}
	}

	hanna := member(HannaID, "hanna.okafor", "Hanna", "Okafor", "Help desk agent", "IT", "F-2041",
		entra.Phone("mobile", "+1 4255550131"),
		since(entra.Authenticator("q7VfT0bYRkS5n8Xw2JcLtA2", "Pixel 9"), 402, 8, 51),
		since(entra.WindowsHello("32311066-060b-4140-9dc2-c54c1e2429bd", "FH-LT-0231"), 388, 9, 4))
	hanna.Manager, hanna.DefaultMethod = RaviID, "push"
	hanna.Created, hanna.LastPasswordChange = ago(1204, 9, 0), ago(402, 8, 44)

	ravi := member(RaviID, "ravi.menon", "Ravi", "Menon", "Help desk lead", "IT", "F-1187",
		since(entra.Authenticator("e0dd5403-bfea-49a6-af0b-10b8c3ed1699", "iPhone 16"), 219, 17, 22),
		since(entra.Passkey("kX2rQ0mDz9vHs4YbUj1o3w2", "YubiKey, on the badge", "YubiKey 5 Series with NFC", modelYubiKey5NFC), 611, 10, 13))
	ravi.Manager, ravi.DefaultMethod = GloriaID, "push"
	ravi.Created, ravi.LastPasswordChange = ago(2390, 9, 0), ago(611, 10, 2)

	olga := member(OlgaID, "olga.lindqvist", "Olga", "Lindqvist", "Site reliability engineer", "Platform", "F-1630",
		since(entra.Passkey("Zt5cW8uNnE6gBq1aVfRy0A2", "YubiKey 5C", "YubiKey 5 Series with NFC", modelYubiKey5NFC), 533, 13, 40),
		since(entra.Authenticator("274bbdd6-b25f-4ecc-ba90-b149d75888cd", "Galaxy S25"), 140, 7, 58),
		since(entra.SoftwareOATH("8f19de0e-5b79-4396-a27f-216a0e569020"), 533, 13, 52))
	olga.Manager, olga.DefaultMethod = GloriaID, "push"
	olga.Created, olga.LastPasswordChange = ago(1711, 9, 0), ago(533, 13, 31)

	dana := member(DanaID, "dana.whitfield", "Dana", "Whitfield", "Accounts payable specialist", "Finance", "F-1902",
		entra.Phone("mobile", "+1 4255550142"),
		entra.Phone("alternateMobile", "+1 4255550187"),
		entra.Phone("office", "+1 4255550100x204"),
		used(since(entra.Authenticator("_mHq3TgWRku8Zc2VbN7dXw2", "Dana’s iPhone 15"), 311, 12, 6), 3, 8, 52),
		since(entra.Authenticator("027b72e3-1d49-4ca5-a7ca-78de6ebb33a0", "iPad Air"), 96, 19, 37),
		since(entra.SoftwareOATH("2ce8a0e2-5b2a-4e80-b4e8-7ed70b5d6a29"), 640, 15, 20),
		since(entra.HardwareOATH("e6233aed-62c6-4957-8032-279097b9aadc", "2308431", "Feitian", "OTP c200"), 702, 9, 30),
		used(since(entra.Passkey("A8nLw0cQyEi5sJ2pXeRk7g2", "Security key, top drawer", "YubiKey 5 Series with NFC", modelYubiKey5NFC), 187, 11, 45), 41, 16, 20),
		since(entra.WindowsHello("615e703d-e598-4677-affe-0d21504aa6d8", "FH-LT-0417"), 311, 8, 17),
		since(entra.PlatformCredential("5bb37e4c-5b44-4478-a897-6ef04b20ca3c", "Dana’s MacBook Air", "macOS"), 58, 14, 9),
		entra.Email("dana.whitfield@mailbox.example"),
		since(entra.External("4fa075d7-def1-42c9-8146-689bc3870e05", "Turnstile badge reader", externalConfiguration), 240, 10, 0),
		since(entra.QRCodePIN("88fa2c8d-4ecb-4d29-84f6-da14e4e399b9"), 33, 6, 55),
		entra.TemporaryAccessPass("014810eb-c87f-4c15-9a9b-b756771f89f0", now.Add(-25*time.Minute), 8*time.Hour, false))
	dana.Manager, dana.DefaultMethod = AlexMID, "push"
	dana.MobilePhone, dana.BusinessPhones = "+1 4255550142", []string{"+1 4255550100"}
	dana.Created, dana.LastPasswordChange, dana.SessionsValidFrom = ago(1380, 9, 0), ago(171, 8, 3), ago(171, 8, 3)

	sam := member(SamID, "sam.ito", "Sam", "Ito", "Warehouse planner", "Logistics", "F-0644",
		entra.Phone("mobile", "+1 2065550119"),
		since(entra.Authenticator("c8b8d24d-7d9c-45d0-900f-e8729da3aa75", "SM-A556B"), 266, 6, 42))
	sam.Synced, sam.DefaultMethod = true, "push"
	sam.Created, sam.LastPasswordChange = ago(3011, 9, 0), ago(74, 6, 12)

	gloria := member(GloriaID, "gloria.adeyemi", "Gloria", "Adeyemi", "Head of IT", "IT", "F-0310",
		since(entra.Passkey("uB3yK9dVhO7tMf0cGz4Sxg2", "YubiKey, safe", "YubiKey 5 Series with NFC", modelYubiKey5NFC), 845, 9, 20),
		since(entra.Passkey("N1pQj6aTwU8rLe5iCk2Dvw2", "Authenticator passkey", "Microsoft Authenticator", modelAppAuthenticator), 121, 18, 31),
		since(entra.Authenticator("05e7effb-30c3-4651-86bc-3cf4e677d12a", "iPhone 17 Pro"), 121, 18, 24))
	gloria.DefaultMethod = "push"
	gloria.Created, gloria.LastPasswordChange = ago(4102, 9, 0), ago(845, 9, 11)

	elias := member(EliasID, "elias.brandt", "Elias", "Brandt", "Cloud engineer", "Platform", "F-1755",
		since(entra.Authenticator("22c4552b-d745-4b30-b64f-9868a9123ef5", "Pixel 8a"), 305, 20, 16),
		since(entra.Passkey("y4GhRs8LkP2eXw6nBqTz0Q2", "YubiKey Nano", "YubiKey 5 Series with NFC", modelYubiKey5NFC), 305, 20, 29))
	elias.Manager, elias.DefaultMethod = GloriaID, "push"
	elias.Created, elias.LastPasswordChange = ago(1499, 9, 0), ago(305, 20, 9)

	pat := entra.User{
		ID: PatID, UserPrincipalName: "pat_partner.example#EXT#@" + domain, Mail: "pat@partner.example", OtherMails: []string{"pat@partner.example"},
		ProxyAddresses: []string{"SMTP:pat@partner.example"}, DisplayName: "Pat Moreau", GivenName: "Pat", Surname: "Moreau", JobTitle: "Consultant", CompanyName: "Partner",
		Guest: true, DefaultMethod: "push", Created: ago(290, 15, 0),
		Methods: []entra.Method{since(entra.Authenticator("74b16cba-9d80-449f-8609-cb14d26b42e5", "iPhone 14"), 290, 15, 21)},
	}

	bo := member(BoID, "bo.castellan", "Bo", "Castellan", "Account manager", "Sales", "F-1428",
		entra.Phone("mobile", "+1 4255550176"),
		since(entra.Authenticator("e66b52a5-cadb-4e7f-ba08-4050beb66585", "Bo’s phone"), 520, 13, 2))
	bo.Blocked, bo.DefaultMethod = true, "push"
	bo.Created, bo.LastPasswordChange, bo.SessionsValidFrom = ago(1822, 9, 0), ago(520, 12, 50), ago(12, 16, 40)

	mina := member(MinaID, "mina.haddad", "Mina", "Haddad", "Store manager", "Retail", "F-2210",
		entra.Phone("mobile", "+1 3605550164"))
	mina.DefaultMethod = "sms"
	mina.Created, mina.LastPasswordChange = ago(415, 9, 0), ago(415, 10, 27)

	alex := member(AlexID, "alex.morgan", "Alex", "Morgan", "Campaign manager", "Marketing", "F-2008",
		entra.Phone("mobile", "+1 4255550153"),
		since(entra.Authenticator("27c19b46-02b6-4727-a6c5-2533931bc340", "iPhone 13"), 190, 9, 48))
	alex.DefaultMethod = "push"
	alex.Created, alex.LastPasswordChange = ago(1266, 9, 0), ago(190, 9, 36)

	alexa := member(AlexMID, "alexa.morgan", "Alexa", "Morgan", "Chief Financial Officer", "Finance", "F-0121",
		since(entra.Authenticator("1ae37296-c190-4578-9388-35a3ede7d9df", "iPhone 16 Pro"), 150, 7, 33),
		since(entra.WindowsHello("6d655571-08b5-4c3b-a599-8c6262e78d45", "FH-LT-0007"), 150, 8, 1))
	alexa.DefaultMethod = "push"
	alexa.Created, alexa.LastPasswordChange = ago(3650, 9, 0), ago(150, 7, 20)

	return []entra.User{hanna, ravi, olga, dana, sam, gloria, elias, pat, bo, mina, alex, alexa}
}
