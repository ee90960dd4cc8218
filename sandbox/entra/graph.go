package entra

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Versions of Graph.
const (
	v1 = 1 << iota
	beta
	both = v1 | beta
)

// anyOf lists alternative application permissions, the least privileged first. "A + B" means both together.
type anyOf []string

// route is one supported call of Graph.
type route struct {
	verb    string
	in      int    // v1, beta or both
	path    string // {id} is the user, group or other first object; {mid} is the method
	denied  denial // how a missing permission is refused
	options string // the supported OData query options; others get a 501
	do      func(*call) (reply, error)
	needs   anyOf
	// needsFor replaces needs where the required permissions depend on $select or the body. The request needs all of its elements.
	needsFor func(*call) []anyOf
}

// routeTable lists all supported calls with the application permissions of Microsoft's permission reference
// (microsoftgraph/microsoft-graph-devx-content, permissions.json, August 2026).
func routeTable() []route {
	const (
		user    = "/users/{id}"
		auth    = "/users/{id}/authentication"
		roles   = "/roleManagement/directory"
		methods = "/policies/authenticationMethodsPolicy"
		list    = "$select $top $filter $count $skiptoken"
	)
	readUser := anyOf{"User.ReadBasic.All", "User.Read.All", "User.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"}
	readManager := anyOf{"User.Read.All", "User.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"}
	readGroups := anyOf{"User.Read.All", "GroupMember.Read.All", "Group.Read.All", "Directory.Read.All", "Directory.ReadWrite.All"}
	readMembers := anyOf{"GroupMember.Read.All", "Group.Read.All", "Directory.Read.All"}
	readRoles := anyOf{"RoleManagement.Read.Directory", "Directory.Read.All", "RoleManagement.ReadWrite.Directory", "Directory.ReadWrite.All"}
	readAnyMethod := anyOf{"UserAuthenticationMethod.Read.All", "UserAuthenticationMethod.ReadWrite.All"}
	readMethods := anyOf{"Policy.Read.AuthenticationMethod", "Policy.Read.All", "Policy.ReadWrite.AuthenticationMethod"}
	return []route{
		// People.
		{"GET", both, "/users", byDirectory, list + " $search $expand", (*call).listUsers, readUser, userReads},
		{"GET", both, user, byDirectory, "$select $expand", (*call).getUser, readUser, userReads},
		{"PATCH", both, user, byDirectory, "", (*call).patchUser, nil, userWrites},
		{"GET", both, user + "/manager", byDirectory, "$select", (*call).getManager, readManager, nil},
		{"POST", both, user + "/revokeSignInSessions", byDirectory, "", (*call).revokeSessions,
			anyOf{"User.RevokeSessions.All", "User.ReadWrite.All", "Directory.ReadWrite.All"}, nil},

		// Their groups and roles.
		{"GET", both, user + "/transitiveMemberOf", byDirectory, list, (*call).listMemberships, readGroups, nil},
		{"GET", both, user + "/transitiveMemberOf/microsoft.graph.group", byDirectory, list, (*call).listMemberships, readGroups, nil},
		{"GET", both, user + "/transitiveMemberOf/microsoft.graph.directoryRole", byDirectory, list, (*call).listMemberships, readGroups, nil},
		{"GET", both, user + "/ownedObjects", byDirectory, list, (*call).listOwned,
			anyOf{"User.Read.All", "User.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"}, nil},
		{"GET", both, user + "/ownedObjects/microsoft.graph.group", byDirectory, list, (*call).listOwned,
			anyOf{"User.Read.All", "User.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"}, nil},
		{"POST", both, user + "/checkMemberGroups", byDirectory, "", (*call).checkMemberGroups,
			anyOf{"User.Read.All + GroupMember.Read.All", "User.Read.All + Group.Read.All", "Directory.Read.All"}, nil},
		{"GET", both, "/groups/{id}", byDirectory, "$select",
			(*call).getGroup, anyOf{"GroupMember.Read.All", "Group.Read.All", "Directory.Read.All", "Directory.ReadWrite.All"}, nil},
		{"GET", both, "/groups/{id}/members", byDirectory, list, (*call).listMembers, readMembers, nil},
		{"GET", both, "/groups/{id}/members/microsoft.graph.user", byDirectory, list, (*call).listMembers, readMembers, nil},
		{"GET", both, "/groups/{id}/transitiveMembers", byDirectory, list, (*call).listMembers, readMembers, nil},
		{"GET", both, "/groups/{id}/transitiveMembers/microsoft.graph.user", byDirectory, list, (*call).listMembers, readMembers, nil},
		{"GET", both, roles + "/roleAssignments", byDirectory, list + " $expand", (*call).listRoleAssignments, readRoles, nil},
		{"GET", beta, roles + "/transitiveRoleAssignments", byDirectory, list + " $expand", (*call).listTransitiveRoleAssignments, readRoles, nil},
		{"GET", both, roles + "/roleDefinitions", byDirectory, list, (*call).listRoleDefinitions, readRoles, nil},
		{"GET", both, roles + "/roleDefinitions/{id}", byDirectory, "$select", (*call).getRoleDefinition, readRoles, nil},
		{"GET", both, roles + "/roleEligibilityScheduleInstances", byPIM, list + " $expand", (*call).listEligible,
			anyOf{"RoleEligibilitySchedule.Read.Directory", "RoleManagement.Read.Directory", "RoleManagement.Read.All", "RoleManagement.ReadWrite.Directory",
				"RoleEligibilitySchedule.ReadWrite.Directory"}, nil},

		// Their authentication methods. Permissions for one type of method do not allow listing all types.
		{"GET", both, auth + "/methods", byMethods, "$select $top", (*call).listMethods, readAnyMethod, nil},
		{"GET", both, auth + "/methods/{mid}", byMethods, "$select", (*call).getMethod, readAnyMethod, nil},
		{"DELETE", both, auth + "/methods/{mid}", byMethods, "", (*call).deleteGeneric, nil, nil},

		{"GET", both, auth + "/phoneMethods", byMethods, "$select", (*call).listMethods, read("Phone"), nil},
		{"POST", both, auth + "/phoneMethods", byMethods, "", (*call).addPhone, write("Phone"), nil},
		{"GET", both, auth + "/phoneMethods/{mid}", byMethods, "$select", (*call).getMethod, read("Phone"), nil},
		{"PATCH", both, auth + "/phoneMethods/{mid}", byMethods, "", (*call).patchPhone, write("Phone"), nil},
		{"DELETE", both, auth + "/phoneMethods/{mid}", byMethods, "", (*call).deleteMethod, write("Phone"), nil},

		{"GET", both, auth + "/emailMethods", byMethods, "$select", (*call).listMethods, read("Email"), nil},
		{"POST", both, auth + "/emailMethods", byMethods, "", (*call).addEmail, write("Email"), nil},
		{"GET", both, auth + "/emailMethods/{mid}", byMethods, "$select", (*call).getMethod, read("Email"), nil},
		{"PATCH", both, auth + "/emailMethods/{mid}", byMethods, "", (*call).patchEmail, write("Email"), nil},
		{"DELETE", both, auth + "/emailMethods/{mid}", byMethods, "", (*call).deleteMethod, write("Email"), nil},

		{"GET", both, auth + "/microsoftAuthenticatorMethods", byMethods, "$select", (*call).listMethods, read("MicrosoftAuthApp"), nil},
		{"GET", both, auth + "/microsoftAuthenticatorMethods/{mid}", byMethods, "$select", (*call).getMethod, read("MicrosoftAuthApp"), nil},
		{"DELETE", both, auth + "/microsoftAuthenticatorMethods/{mid}", byMethods, "", (*call).deleteMethod, write("MicrosoftAuthApp"), nil},

		{"GET", both, auth + "/softwareOathMethods", byMethods, "$select", (*call).listMethods, read("SoftwareOATH"), nil},
		{"GET", both, auth + "/softwareOathMethods/{mid}", byMethods, "$select", (*call).getMethod, read("SoftwareOATH"), nil},
		{"DELETE", both, auth + "/softwareOathMethods/{mid}", byMethods, "", (*call).deleteMethod, write("SoftwareOATH"), nil},

		{"GET", beta, auth + "/hardwareOathMethods", byMethods, "$select", (*call).listMethods, read("HardwareOATH"), nil},
		{"GET", beta, auth + "/hardwareOathMethods/{mid}", byMethods, "$select", (*call).getMethod, read("HardwareOATH"), nil},
		{"DELETE", beta, auth + "/hardwareOathMethods/{mid}", byMethods, "", (*call).deleteMethod, write("HardwareOATH"), nil},
		{"POST", beta, auth + "/hardwareOathMethods/{mid}/deactivate", byMethods, "", (*call).deactivateToken, write("HardwareOATH"), nil},

		{"GET", both, auth + "/fido2Methods", byMethods, "$select", (*call).listMethods, read("Passkey"), nil},
		{"GET", both, auth + "/fido2Methods/{mid}", byMethods, "$select", (*call).getMethod, read("Passkey"), nil},
		{"DELETE", both, auth + "/fido2Methods/{mid}", byMethods, "", (*call).deleteMethod, write("Passkey"), nil},

		{"GET", both, auth + "/windowsHelloForBusinessMethods", byMethods, "$select", (*call).listMethods, read("WindowsHello"), nil},
		{"GET", both, auth + "/windowsHelloForBusinessMethods/{mid}", byMethods, "$select", (*call).getMethod, read("WindowsHello"), nil},
		{"DELETE", both, auth + "/windowsHelloForBusinessMethods/{mid}", byMethods, "", (*call).deleteMethod, write("WindowsHello"), nil},

		{"GET", both, auth + "/platformCredentialMethods", byMethods, "$select", (*call).listMethods, read("PlatformCred"), nil},
		{"GET", both, auth + "/platformCredentialMethods/{mid}", byMethods, "$select", (*call).getMethod, read("PlatformCred"), nil},
		{"DELETE", both, auth + "/platformCredentialMethods/{mid}", byMethods, "", (*call).deleteMethod, write("PlatformCred"), nil},

		{"GET", both, auth + "/temporaryAccessPassMethods", byMethods, "$select", (*call).listMethods, read("TAP"), nil},
		{"POST", both, auth + "/temporaryAccessPassMethods", byMethods, "", (*call).issuePass, write("TAP"), nil},
		{"GET", both, auth + "/temporaryAccessPassMethods/{mid}", byMethods, "$select", (*call).getMethod, read("TAP"), nil},
		{"DELETE", both, auth + "/temporaryAccessPassMethods/{mid}", byMethods, "", (*call).deleteMethod, write("TAP"), nil},

		{"GET", both, auth + "/externalAuthenticationMethods", byMethods, "$select", (*call).listMethods, read("External"), nil},
		{"GET", both, auth + "/externalAuthenticationMethods/{mid}", byMethods, "$select", (*call).getMethod, read("External"), nil},
		{"DELETE", both, auth + "/externalAuthenticationMethods/{mid}", byMethods, "", (*call).deleteMethod, write("External"), nil},

		{"GET", beta, auth + "/qrCodePinMethod", byMethods, "$select", (*call).getMethod, read("QR"), nil},
		{"DELETE", beta, auth + "/qrCodePinMethod", byMethods, "", (*call).deleteMethod, write("QR"), nil},

		{"GET", both, auth + "/passwordMethods", byMethods, "$select", (*call).listMethods, read("Password"), nil},
		{"GET", both, auth + "/passwordMethods/{mid}", byMethods, "$select", (*call).getMethod, read("Password"), nil},

		{"GET", beta, auth + "/signInPreferences", byMethods, "", (*call).getPreferences, readAnyMethod, nil},
		{"PATCH", beta, auth + "/signInPreferences", byMethods, "", (*call).patchPreferences, anyOf{"UserAuthenticationMethod.ReadWrite.All"}, nil},
		{"GET", beta, auth + "/requirements", byPolicy, "", (*call).getRequirements,
			anyOf{"Policy.Read.All", "Policy.ReadWrite.AuthenticationMethod"}, nil},

		// The tenant.
		{"GET", both, "/domains", byDirectory, "$select", (*call).listDomains, anyOf{"Domain.Read.All", "Domain.ReadWrite.All", "Directory.Read.All"}, nil},
		{"GET", both, "/domains/{id}", byDirectory, "$select", (*call).getDomain, anyOf{"Domain.Read.All", "Domain.ReadWrite.All", "Directory.Read.All"}, nil},
		{"GET", both, methods, byPolicy, "", (*call).getMethodsPolicy, readMethods, nil},
		{"GET", both, methods + "/authenticationMethodConfigurations/{id}", byPolicy, "", (*call).getMethodConfiguration, readMethods, nil},
		{"GET", both, "/reports/authenticationMethods/userRegistrationDetails/{id}", byReports, "$select", (*call).getRegistrationDetails,
			anyOf{"AuditLog.Read.All"}, nil},
	}
}

// read and write return the permissions for one type of authentication method, with those for all types. Read-only permissions
// come first, because they are less privileged.
func read(kind string) anyOf {
	return anyOf{"UserAuthMethod-" + kind + ".Read.All", "UserAuthenticationMethod.Read.All",
		"UserAuthMethod-" + kind + ".ReadWrite.All", "UserAuthenticationMethod.ReadWrite.All"}
}

func write(kind string) anyOf {
	return anyOf{"UserAuthMethod-" + kind + ".ReadWrite.All", "UserAuthenticationMethod.ReadWrite.All"}
}

// denial returns the error of a service behind Graph for missing permissions; each service has its own.
type denial func(missing []string) *graphError

func byDirectory([]string) *graphError {
	return &graphError{http.StatusForbidden, "Authorization_RequestDenied", "Insufficient privileges to complete the operation."}
}

func byMethods([]string) *graphError {
	return &graphError{http.StatusForbidden, "accessDenied", "Request Authorization failed"}
}

func byPolicy([]string) *graphError {
	return &graphError{http.StatusForbidden, "accessDenied", "You cannot perform the requested operation, required scopes are missing in the token."}
}

func byPIM(missing []string) *graphError {
	return &graphError{http.StatusForbidden, "UnknownError", fmt.Sprintf(
		`{"errorCode":"PermissionScopeNotGranted","message":"Authorization failed due to missing permission scope %s.","instanceAnnotations":[]}`,
		strings.Join(missing, ","))}
}

func byReports(missing []string) *graphError {
	return &graphError{http.StatusForbidden, "Authentication_MSGraphPermissionMissing",
		"Calling principal does not have required MSGraph permissions " + strings.Join(missing, ",")}
}

// graphError is an error response of Graph.
type graphError struct {
	status  int
	code    string
	message string
}

func (e *graphError) Error() string { return e.code + ": " + e.message }

func badRequest(format string, args ...any) *graphError {
	return &graphError{http.StatusBadRequest, "BadRequest", fmt.Sprintf(format, args...)}
}

func unsupportedQuery(format string, args ...any) *graphError {
	return &graphError{http.StatusBadRequest, "Request_UnsupportedQuery", fmt.Sprintf(format, args...)}
}

func notFound(id string) *graphError {
	return &graphError{http.StatusNotFound, "Request_ResourceNotFound",
		"Resource '" + id + "' does not exist or one of its queried reference-property objects are not present."}
}

func notImplemented(format string, args ...any) *graphError {
	return &graphError{http.StatusNotImplemented, "NotImplemented", "The sandbox's Graph does not support " + fmt.Sprintf(format, args...)}
}

// call is one request to Graph.
type call struct {
	t         *Tenant
	verb      string
	version   string // "v1.0" or "beta"
	url       *url.URL
	segments  []string // of the path after the version, unescaped
	query     url.Values
	header    http.Header
	body      []byte
	bodyError *graphError // set when the body could not be read
	root      string
	requestID string
	clientID  string // client-request-id

	route *route
	vars  map[string]string
	entry Call // for the call counters
}

func (t *Tenant) newCall(r *http.Request, version string, body []byte) *call {
	c := &call{t: t, verb: r.Method, version: version, url: r.URL, query: r.URL.Query(), header: r.Header, body: body,
		root: t.root(r), requestID: newGUID(), clientID: r.Header.Get("client-request-id")}
	if c.clientID == "" {
		c.clientID = c.requestID
	}
	c.segments = segments(strings.TrimPrefix(strings.TrimPrefix(r.URL.EscapedPath(), "/"), version))
	return c
}

// keySegment matches OData's key syntax: users('x') for users/x. A UPN that begins with a dollar sign needs it.
var keySegment = regexp.MustCompile(`^([A-Za-z0-9.]+)\('(.*)'\)$`)

// segments splits an escaped path, so that an escaped slash stays part of an id. It resolves the alias graph. for microsoft.graph.
func segments(escaped string) []string {
	var list []string
	for part := range strings.SplitSeq(strings.Trim(escaped, "/"), "/") {
		if s, err := url.PathUnescape(part); err == nil {
			part = s
		}
		if m := keySegment.FindStringSubmatch(part); m != nil {
			list = append(list, m[1], "\x00"+strings.ReplaceAll(m[2], "''", "'"))
			continue
		}
		if rest, ok := strings.CutPrefix(part, "graph."); ok {
			part = "microsoft.graph." + rest
		}
		list = append(list, part)
	}
	return list
}

// match binds the path's variables. A segment that begins with a dollar sign is an OData keyword, not an id, unless it was quoted.
func (r *route) match(path []string) (map[string]string, bool) {
	want := strings.Split(r.path[1:], "/")
	if len(want) != len(path) {
		return nil, false
	}
	vars := map[string]string{}
	for i, s := range path {
		id, quoted := strings.CutPrefix(s, "\x00")
		switch name, isVar := strings.CutPrefix(want[i], "{"); {
		case isVar && !quoted && (s == "" || s[0] == '$'):
			return nil, false
		case isVar:
			vars[strings.TrimSuffix(name, "}")] = id
		case quoted || !strings.EqualFold(want[i], s):
			return nil, false
		}
	}
	return vars, true
}

// find selects the route, or returns an error for a wrong verb, version or path. It returns the path's template for the counters.
func (c *call) find() (template string, _ *graphError) {
	in := v1
	if c.version == "beta" {
		in = beta
	}
	var wrongVerb, wrongVersion bool
	template = c.url.Path
	for i := range c.t.routes {
		r := &c.t.routes[i]
		vars, ok := r.match(c.segments)
		if !ok {
			continue
		}
		template = "/" + c.version + r.path
		switch {
		case r.in&in == 0:
			wrongVersion = true
		case r.verb != c.verb:
			wrongVerb = true
		default:
			c.route, c.vars = r, vars
			return template, nil
		}
	}
	switch {
	case wrongVerb:
		return template, &graphError{http.StatusMethodNotAllowed, "Request_BadRequest", "Specified HTTP method is not allowed for the request target."}
	case wrongVersion:
		return template, badRequest("Resource not found for the segment '%s'.", c.t.unknownSegment(template))
	default:
		return template, notImplemented("%s %s", c.verb, c.url.Path)
	}
}

// unknownSegment returns the first segment of the path that no route of v1.0 has.
func (t *Tenant) unknownSegment(template string) string {
	parts := strings.Split(template, "/")[2:]
	for _, p := range parts {
		known := slices.ContainsFunc(t.routes, func(r route) bool { return r.in&v1 != 0 && slices.Contains(strings.Split(r.path, "/"), p) })
		if !known {
			return p
		}
	}
	return parts[len(parts)-1]
}

func (c *call) handle(fault string) reply {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	c.entry = Call{Method: c.verb, Fault: fault}
	p, err := c.execute()
	if err != nil {
		e, ok := err.(*graphError)
		if !ok {
			e = &graphError{http.StatusInternalServerError, "InternalServerError", err.Error()}
		}
		p = c.failure(e)
	}
	c.entry.Status = p.status
	c.t.count(c.entry, c.url.Path, c.requestID, c.body)
	if c.verb != http.MethodGet && p.status < 300 {
		c.t.notify()
	}
	for name, values := range c.headers() {
		if _, ok := p.header[name]; !ok {
			if p.header == nil {
				p.header = http.Header{}
			}
			p.header[name] = values
		}
	}
	return p
}

// execute handles the call and fills in c.entry. It runs under the tenant's lock, so that a call is atomic.
func (c *call) execute() (reply, error) {
	template, err := c.find()
	c.entry.Path = template
	if err != nil {
		return reply{}, err
	}
	if e := c.t.checkToken(c.header.Get("Authorization"), c.root); e != nil {
		return reply{}, e
	}
	if c.bodyError != nil {
		return reply{}, c.bodyError
	}
	for name := range c.query {
		if strings.HasPrefix(name, "$") && !slices.Contains(strings.Fields(c.route.options), name) {
			return reply{}, notImplemented("the query option %s of %s %s", name, c.verb, template)
		}
	}
	if e := c.authorize(); e != nil {
		return reply{}, e
	}
	return c.route.do(c)
}

// authorize compares the permissions that this request needs with those that are granted now.
func (c *call) authorize() *graphError {
	needs := []anyOf{c.route.needs}
	if c.route.needsFor != nil {
		needs = c.route.needsFor(c)
	} else if c.route.needs == nil {
		return nil
	}
	c.entry.Granted = true
	var missing []string
	for _, alternatives := range needs {
		if !c.entry.demand(alternatives, c.t.isGranted) {
			c.entry.Granted = false
			missing = addNames(missing, alternatives[0])
		}
	}
	if !c.entry.Granted {
		c.entry.Used = nil
		return c.route.denied(missing)
	}
	return nil
}

// redact limits an object of a mixed list to what the application is allowed to read: without permission for the object's type,
// Graph returns only the type and the id ("Limited information returned for inaccessible member objects").
func (c *call) redact(o Properties, needs anyOf) Properties {
	if names := c.selection(); len(names) == 1 && strings.EqualFold(names[0], "id") {
		return o
	}
	if !slices.ContainsFunc(c.entry.AnyOf, func(known []string) bool { return slices.Equal(known, needs) }) {
		c.entry.demand(needs, c.t.isGranted)
	}
	if slices.ContainsFunc(needs, c.t.isGranted) {
		return o
	}
	limited := slices.Clone(o)
	for i, p := range limited {
		if p.Name != "id" && p.Name != "@odata.type" {
			limited[i].Value = nil
		}
	}
	return limited
}

// isGranted reports whether each permission of "A + B" is granted.
func (t *Tenant) isGranted(permissions string) bool {
	for _, p := range addNames(nil, permissions) {
		if !slices.Contains(t.granted, p) {
			return false
		}
	}
	return true
}

func addNames(list []string, permissions string) []string {
	for p := range strings.SplitSeq(permissions, " + ") {
		if !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list
}

func (c *call) refuse(status int, code, message, fault string) reply {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	template, _ := c.find()
	c.t.count(Call{Method: c.verb, Path: template, Status: status, Fault: fault}, c.url.Path, c.requestID, c.body)
	p := c.failure(&graphError{status, code, message})
	p.header = c.headers()
	return p
}

func (c *call) drop(fault string) {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	template, _ := c.find()
	c.t.count(Call{Method: c.verb, Path: template, Fault: fault}, c.url.Path, "", c.body)
}

// failure returns an OData error.
func (c *call) failure(e *graphError) reply {
	p := reply{status: e.status, body: Properties{{"error", Properties{{"code", e.code}, {"message", e.message}, {"innerError", Properties{
		{"date", c.t.now().UTC().Format("2006-01-02T15:04:05")}, {"request-id", c.requestID}, {"client-request-id", c.clientID}}}}}}}
	if e.status == http.StatusUnauthorized {
		p.header = http.Header{}
		p.header.Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="", authorization_uri="%s/common/oauth2/authorize", client_id="%s"`, c.root, graphAppID))
	}
	return p
}

func (c *call) headers() http.Header {
	h := http.Header{}
	h.Set("Content-Type", "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	h.Set("OData-Version", "4.0")
	h.Set("Request-Id", c.requestID)
	h.Set("Client-Request-Id", c.clientID)
	h.Set("Strict-Transport-Security", "max-age=31536000")
	h.Set("X-Ms-Ags-Diagnostic", `{"ServerInfo":{"DataCenter":"Sandbox","Slice":"E","Ring":"1","ScaleUnit":"000","RoleInstance":"SANDBOX"}}`)
	return h
}

// entity returns one object.
func (c *call) entity(context string, o Properties) (reply, error) {
	o = append(Properties{{"@odata.context", c.context(context) + "/$entity"}}, o...)
	return reply{status: http.StatusOK, body: o}, nil
}

// collection returns a list, filtered by $filter and in pages of $top objects. show reduces each object; when show is nil, $select
// does.
func (c *call) collection(context string, list []Properties, show func(Properties) (Properties, error), filterable ...string) (reply, error) {
	if c.query.Has("$filter") {
		f, err := parseFilter(c.query.Get("$filter"), filterable)
		if err != nil {
			return reply{}, err
		}
		if err := f.allowed(c); err != nil {
			return reply{}, err
		}
		list = slices.DeleteFunc(slices.Clone(list), func(o Properties) bool { return !f.matches(o) })
	}
	body := Properties{{"@odata.context", c.context(context)}}
	if c.query.Get("$count") == "true" {
		body = append(body, Property{"@odata.count", len(list)})
	}
	list, next, err := c.page(list)
	if err != nil {
		return reply{}, err
	}
	if next != "" {
		body = append(body, Property{"@odata.nextLink", next})
	}
	value := make([]Properties, 0, len(list))
	for _, o := range list {
		if show == nil {
			o = c.selected(o)
		} else if o, err = show(o); err != nil {
			return reply{}, err
		}
		value = append(value, o)
	}
	return reply{status: http.StatusOK, body: append(body, Property{"value", value})}, nil
}

func (c *call) context(of string) string { return c.root + "/" + c.version + "/$metadata#" + of }

func noContent() (reply, error) { return reply{status: http.StatusNoContent}, nil }

// fields decodes the body as an object, without annotations (names that contain @).
func (c *call) fields() (map[string]any, error) {
	fields := map[string]any{}
	if len(c.body) == 0 {
		return nil, badRequest("Empty Payload. JSON content expected.")
	}
	if err := json.Unmarshal(c.body, &fields); err != nil {
		return nil, badRequest("Unable to read JSON request payload. Please ensure Content-Type header is set and payload is of valid JSON format.")
	}
	for name := range fields {
		if strings.Contains(name, "@") {
			delete(fields, name)
		}
	}
	return fields, nil
}

// allowOnly refuses fields other than the given names.
func allowOnly(fields map[string]any, entity string, names ...string) error {
	for name := range fields {
		if !slices.Contains(names, name) {
			return badRequest("The property '%s' does not exist on type 'microsoft.graph.%s', or the sandbox cannot set it.", name, entity)
		}
	}
	return nil
}
