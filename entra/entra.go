// Package entra is Countersign's only door to a Microsoft Entra tenant: accounts, authentication methods, sessions, roles and
// groups, through Microsoft Graph with application permissions. It knows nothing of Slack, requests or policy.
//
// # What it promises
//
//   - One method is one question or one change. It either succeeds or returns an *Error that can be shown to people and says
//     which application permission the call needs. Nothing is guessed: what could not be read is an error, except the parts of
//     Methods that are marked best effort and named in MethodList.Gaps.
//   - A change is sent at most once unless Graph itself said that it did not carry it out. GET and DELETE are repeated after 429,
//     503 and 504; POST and PATCH only after 429, and after 503 with Retry-After. Waits, repeats and further pages share one
//     deadline (Options.CallTimeout); a wait that would go beyond it is not begun, and the error says how long Graph asked for.
//   - When nobody can tell whether a change was made, the error says so (Error.Unsure).
//   - Access tokens go to the host of Options.Graph and nowhere else, over TLS unless that host is this machine. No request
//     leaves without one, and redirects are not followed.
//   - Ids are opaque: whatever they contain, they stay one segment of the path.
//
// # How it is built
//
// The request builders and models of msgraph-sdk-go do what they can, from its packages users and models; the root package is
// not imported, since it compiles every workload of Microsoft 365. What the SDK does not know (hardware tokens, sign-in
// preferences, external methods, QR codes, transitive role assignments) goes as a hand-made request through the same adapter.
// permissions.go lists all calls. A Client holds no state but its connections and its token; it is safe for concurrent use.
package entra

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	abstractions "github.com/microsoft/kiota-abstractions-go"
	"github.com/microsoft/kiota-abstractions-go/serialization"
	azureauth "github.com/microsoft/kiota-authentication-azure-go"
	kiotahttp "github.com/microsoft/kiota-http-go"
	jsonserialization "github.com/microsoft/kiota-serialization-json-go"
	graphcore "github.com/microsoftgraph/msgraph-sdk-go-core"
	"github.com/microsoftgraph/msgraph-sdk-go/models/odataerrors"
	"github.com/microsoftgraph/msgraph-sdk-go/users"
)

// Options configure a Client.
type Options struct {
	// Graph is the root of the service without a version, for example https://graph.microsoft.com (see CloudRoots).
	Graph string
	// Credential gets the access tokens (see NewCredential).
	Credential azcore.TokenCredential
	// Transport carries the requests to Graph; nil means Go's default transport.
	Transport http.RoundTripper
	// CallTimeout is the time for one call with its waits, repeats and pages, sign-in included; 0 means 20 seconds.
	// A method that makes several calls has it for each of them: its context bounds the whole.
	CallTimeout time.Duration
}

// Client talks to one tenant. Make it with New.
type Client struct {
	adapter *graphcore.GraphRequestAdapterBase
	root    string // without a trailing slash
	timeout time.Duration
}

// New makes a Client. It sends nothing.
func New(o Options) (*Client, error) {
	root, err := url.Parse(strings.TrimSuffix(o.Graph, "/"))
	if err != nil || root.Hostname() == "" || root.Path != "" || root.RawQuery != "" || root.User != nil {
		return nil, fmt.Errorf("the Graph address %q is not a root like https://graph.microsoft.com, without version or path", o.Graph)
	}
	if root.Scheme != "https" && !(root.Scheme == "http" && loopback(root.Hostname())) {
		return nil, fmt.Errorf("the Graph address %q must begin with https://", o.Graph)
	}
	if o.Credential == nil {
		return nil, errors.New("no credential for Microsoft Graph")
	}
	if o.CallTimeout < 0 {
		return nil, errors.New("the time-out of a Graph call must not be negative")
	}
	c := &Client{root: root.String(), timeout: o.CallTimeout}
	if c.timeout == 0 {
		c.timeout = 20 * time.Second
	}

	// An empty list of hosts would mean any host.
	auth, err := azureauth.NewAzureIdentityAuthenticationProviderWithScopesAndValidHosts(
		marked{o.Credential}, []string{c.root + "/.default"}, []string{root.Hostname()})
	if err != nil {
		return nil, err
	}
	next := o.Transport
	if next == nil {
		next = kiotahttp.GetDefaultTransport()
	}
	// Kiota assembles its default handlers by ranging over a map, so their order changes from run to run; with the retry handler
	// outside the compression handler, a repeated request would carry a plain body labelled gzip. Hence a list of our own.
	handlers := []kiotahttp.Middleware{
		graphcore.NewGraphTelemetryHandler(&graphcore.GraphClientOptions{}),
		kiotahttp.NewUserAgentHandler(),
		kiotahttp.NewParametersNameDecodingHandler(),
		kiotahttp.NewCompressionHandler(),
		kiotahttp.NewRetryHandlerWithOptions(kiotahttp.RetryHandlerOptions{
			MaxRetries: 10, DelaySeconds: firstDelay, ShouldRetry: shouldRetry}),
	}
	client := &http.Client{
		Transport:     kiotahttp.NewCustomTransportWithParentTransport(&guard{host: root.Host, scheme: root.Scheme, next: next}, handlers...),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	c.adapter, err = graphcore.NewGraphRequestAdapterBaseWithParseNodeFactoryAndSerializationWriterFactoryAndHttpClient(
		auth, graphcore.GraphClientOptions{}, jsonserialization.NewJsonParseNodeFactory(), jsonserialization.NewJsonSerializationWriterFactory(), client)
	if err != nil {
		return nil, err
	}
	c.adapter.SetBaseUrl(c.root + "/v1.0")
	return c, nil
}

func loopback(host string) bool { return host == "127.0.0.1" || host == "::1" || host == "localhost" }

// marked tells errors of the sign-in from errors of the call that it was for.
type marked struct{ azcore.TokenCredential }

func (m marked) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	t, err := m.TokenCredential.GetToken(ctx, o)
	if err == nil && t.Token == "" {
		err = errors.New("the credential returned an empty token")
	}
	if err != nil {
		return t, &tokenError{err}
	}
	return t, nil
}

// do makes one call: fn sends its request, or one for each page. One deadline covers it, and what goes wrong comes back as an *Error.
func (c *Client) do(ctx context.Context, call Call, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	w := new(wire)
	if err := fn(context.WithValue(ctx, wireKey{}, w)); err != nil {
		return explain(call, err, w)
	}
	return nil
}

// user returns the SDK's builders for one account.
func (c *Client) user(id string) (*users.UserItemRequestBuilder, error) {
	if err := checkID("account", id); err != nil {
		return nil, err
	}
	return users.NewUsersRequestBuilderInternal(map[string]string{}, c.adapter).ByUserId(id), nil
}

// checkID refuses what cannot be one segment of a path whatever the escaping: nothing, and the two dots.
func checkID(what, id string) error {
	if strings.Trim(id, ".") == "" {
		return fmt.Errorf("%q is not the id of an %s", id, what)
	}
	return nil
}

// request makes a request that the SDK has no builder for. path is a URI template (RFC 6570) below the root; its expressions are
// filled from params, escaped to one segment.
func (c *Client) request(method abstractions.HttpMethod, path string, params map[string]string) *abstractions.RequestInformation {
	p := map[string]string{"root": c.root}
	for k, v := range params {
		p[k] = v
	}
	ri := abstractions.NewRequestInformationWithMethodAndUrlTemplateAndPathParameters(method, "{+root}"+path, p)
	ri.Headers.TryAdd("Accept", "application/json")
	return ri
}

// send sends a hand-made request and decodes the answer into one of the SDK's models.
func send[T serialization.Parsable](ctx context.Context, c *Client, ri *abstractions.RequestInformation, model serialization.ParsableFactory) (T, error) {
	var none T
	v, err := c.adapter.Send(ctx, ri, model, odataErrors())
	if err != nil {
		return none, err
	}
	t, ok := v.(T)
	if !ok {
		return none, errEmpty
	}
	return t, nil
}

func odataErrors() abstractions.ErrorMappings {
	return abstractions.ErrorMappings{"XXX": odataerrors.CreateODataErrorFromDiscriminatorValue}
}

var errEmpty = errors.New("the answer was empty")

// page is what every collection answer of Graph looks like in the SDK.
type page[T any] interface {
	comparable
	GetValue() []T
	GetOdataNextLink() *string
}

// collect reads a whole collection: get is called with "" for the first page and then with each @odata.nextLink.
func collect[T any, P page[T]](ctx context.Context, get func(ctx context.Context, link string) (P, error)) ([]T, error) {
	var all []T
	for link := ""; ; {
		var none P
		p, err := get(ctx, link)
		if err != nil {
			return nil, err
		}
		if p == none {
			return nil, errEmpty
		}
		for _, v := range p.GetValue() {
			if any(v) != nil {
				all = append(all, v)
			}
		}
		next := deref(p.GetOdataNextLink())
		if next == "" {
			return all, nil
		}
		if next == link {
			return nil, errors.New("the next page is the same page again")
		}
		link = next
	}
}

// list is collect for a hand-made request; header is set on the request for every page.
func list[T any, P interface {
	serialization.Parsable
	page[T]
}](ctx context.Context, c *Client, path string, params, header map[string]string, model serialization.ParsableFactory) ([]T, error) {
	return collect[T](ctx, func(ctx context.Context, link string) (P, error) {
		var none P
		ri := c.request(abstractions.GET, path, params)
		if link != "" {
			u, err := url.Parse(link)
			if err != nil {
				return none, fmt.Errorf("the address of the next page: %w", err)
			}
			ri.SetUri(*u)
		}
		for k, v := range header {
			ri.Headers.Add(k, v)
		}
		return send[P](ctx, c, ri, model)
	})
}

// firstDelay is how many seconds Kiota waits where Graph does not say; it doubles with each repeat and adds up to one second.
const firstDelay = 1

// shouldRetry is the rule of the package comment. Kiota asks it only after 429, 503 and 504.
func shouldRetry(_ time.Duration, count int, req *http.Request, resp *http.Response) bool {
	wait, told := retryAfter(resp.Header)
	switch {
	case resp.StatusCode == http.StatusTooManyRequests:
	case req.Method == http.MethodGet, req.Method == http.MethodDelete:
	case resp.StatusCode == http.StatusServiceUnavailable && told:
	default:
		return false
	}
	if !told {
		wait = time.Duration(firstDelay<<count+1) * time.Second
	}
	if deadline, ok := req.Context().Deadline(); ok && time.Until(deadline) <= wait {
		return false
	}
	// Kiota forgets the answer that it repeats; unread, it would keep its connection from being used again.
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16))
	_ = resp.Body.Close()
	return true
}

// retryAfter reads Retry-After in whole seconds or as a date, as Kiota does, and says whether there is one.
func retryAfter(h http.Header) (time.Duration, bool) {
	v := h.Get("Retry-After")
	if s, err := strconv.ParseFloat(v, 64); err == nil && !math.IsNaN(s) {
		return time.Duration(min(max(s, 0), 24*60*60)) * time.Second, true
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(time.Until(t), 0), true
	}
	return 0, false
}

// guard is the last thing before the network. It lets a request out only with a token and only to Graph, takes no redirect for
// an answer, and records in the call's wire what happened.
type guard struct {
	host, scheme string
	next         http.RoundTripper
}

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	err := req.Context().Err()
	// A process that stood still wakes up before its timers do. What it was about to send may be somebody else's by now.
	if deadline, ok := req.Context().Deadline(); ok && err == nil && !time.Now().Before(deadline) {
		err = context.DeadlineExceeded
	}
	switch {
	case err != nil:
	case !strings.EqualFold(req.URL.Host, g.host) || req.URL.Scheme != g.scheme:
		err = errors.New("the answer points to another host, which is not followed")
	case req.Header.Get("Authorization") == "":
		err = errors.New("there is no access token for this address")
	}
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, err
	}

	// A request was certainly not sent if a connection was asked for and none came.
	var asked, got atomic.Bool
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GetConn: func(string) { asked.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { got.Store(true) },
	})
	w, _ := req.Context().Value(wireKey{}).(*wire)
	resp, err := g.next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		w.silence(req, got.Load() || !asked.Load())
		return nil, err
	}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		_ = resp.Body.Close()
		w.silence(req, false)
		return nil, fmt.Errorf("a redirect (%d) instead of an answer; is there a proxy in between?", resp.StatusCode)
	}
	w.answer(req, resp)
	return resp, nil
}

// wire is what was seen of one call's requests.
type wire struct {
	mu     sync.Mutex
	status int         // of the last request; 0 when it got no answer
	header http.Header // of its answer, with our own client-request-id
	unsure bool        // some request may have changed something, and no later answer settled it
}

type wireKey struct{}

// silence notes a request without an answer.
func (w *wire) silence(req *http.Request, maybeSent bool) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status, w.header = 0, http.Header{"Client-Request-Id": req.Header["Client-Request-Id"]}
	w.unsure = w.unsure || maybeSent && changes(req)
}

// answer notes an answer. A gateway's answer does not tell what became of the request behind it; a 404 to a DELETE settles
// whatever an earlier attempt did.
func (w *wire) answer(req *http.Request, resp *http.Response) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status, w.header = resp.StatusCode, resp.Header.Clone()
	if w.header.Get("client-request-id") == "" {
		w.header.Set("client-request-id", req.Header.Get("client-request-id"))
	}
	_, told := retryAfter(resp.Header)
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusInternalServerError, http.StatusBadGateway, http.StatusGatewayTimeout:
		w.unsure = w.unsure || changes(req)
	case http.StatusServiceUnavailable:
		w.unsure = w.unsure || changes(req) && !told
	case http.StatusNotFound:
		w.unsure = w.unsure && req.Method != http.MethodDelete
	}
	if resp.StatusCode < 300 {
		// Applied; should its answer turn out to be unreadable, the caller still has to know that.
		w.unsure = changes(req)
	}
}

// outcome returns what explain needs. The header is never nil.
func (w *wire) outcome() (status int, header http.Header, unsure bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.header == nil {
		return w.status, http.Header{}, w.unsure
	}
	return w.status, w.header, w.unsure
}

func changes(req *http.Request) bool {
	return req.Method != http.MethodGet && req.Method != http.MethodHead
}

func deref[T any](p *T) T {
	if p == nil {
		var none T
		return none
	}
	return *p
}
