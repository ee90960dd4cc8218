// Package entra is Countersign's only client of a Microsoft Entra tenant: accounts, authentication methods, sessions, roles and
// groups, through Microsoft Graph with application permissions. It does not depend on Slack, requests or policy.
//
// # Guarantees
//
//   - One method makes one read or one change. It either succeeds or returns an *Error that can be shown to people and says
//     which application permission the call needs. Nothing is guessed: if something could not be read, that is an error, except
//     for the parts of Methods that are documented as best effort and named in MethodList.Gaps.
//   - A change is sent at most once unless Graph itself said that it did not execute it. GET and DELETE are repeated after 429,
//     503 and 504; POST and PATCH only after 429, and after 503 with Retry-After. Waits, repeats and further pages share one
//     deadline (Options.CallTimeout); a wait that would go beyond it is not started, and the error says how long Graph asked to wait.
//   - If it is unknown whether a change was made, the error says so (Error.Unsure).
//   - Access tokens are sent only to the host of Options.Graph, over TLS unless that host is this machine. No request is sent
//     without one, and redirects are not followed.
//   - Ids are opaque: whatever they contain, they are escaped to one segment of the path.
//
// # Implementation
//
// Where possible, calls use the request builders and models of msgraph-sdk-go, from its packages users and models. The root
// package is not imported, because it compiles every workload of Microsoft 365. Calls that the SDK does not have (hardware
// tokens, sign-in preferences, external methods, QR codes, transitive role assignments) are hand-made requests through the same
// adapter. permissions.go lists all calls. A Client has no state except its connections and its token; it is safe for concurrent use.
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
	// A method that makes several calls has this time for each of them; its context limits the total time.
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
		markingCredential{o.Credential}, []string{c.root + "/.default"}, []string{root.Hostname()})
	if err != nil {
		return nil, err
	}
	next := o.Transport
	if next == nil {
		next = kiotahttp.GetDefaultTransport()
	}
	// Kiota assembles its default handlers by ranging over a map, so their order changes from run to run; with the retry handler
	// outside the compression handler, a repeated request would have a plain body labelled gzip. So we list the handlers ourselves.
	handlers := []kiotahttp.Middleware{
		graphcore.NewGraphTelemetryHandler(&graphcore.GraphClientOptions{}),
		kiotahttp.NewUserAgentHandler(),
		kiotahttp.NewParametersNameDecodingHandler(),
		kiotahttp.NewCompressionHandler(),
		kiotahttp.NewRetryHandlerWithOptions(kiotahttp.RetryHandlerOptions{
			MaxRetries: 10, DelaySeconds: firstDelay, ShouldRetry: shouldRetry}),
	}
	client := &http.Client{
		Transport:     kiotahttp.NewCustomTransportWithParentTransport(&guardTransport{host: root.Host, scheme: root.Scheme, next: next}, handlers...),
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

// markingCredential distinguishes errors of the sign-in from errors of the call that follows it.
type markingCredential struct{ azcore.TokenCredential }

func (m markingCredential) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	t, err := m.TokenCredential.GetToken(ctx, o)
	if err == nil && t.Token == "" {
		err = errors.New("the credential returned an empty token")
	}
	if err != nil {
		return t, &tokenError{err}
	}
	return t, nil
}

// do makes one call: fn sends its request, or one for each page. One deadline covers it, and failures are returned as an *Error.
func (c *Client) do(ctx context.Context, call Call, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	w := new(callTrace)
	if err := fn(context.WithValue(ctx, callTraceKey{}, w)); err != nil {
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

// checkID refuses ids that no escaping makes a segment of a path: an empty one, and dots.
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

// page is the interface of every collection answer of Graph in the SDK.
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

// list is like collect for a hand-made request; header is set on the request for every page.
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

// firstDelay is how many seconds Kiota waits if Graph sends no Retry-After; it doubles with each repeat and adds up to one second.
const firstDelay = 1

// shouldRetry implements the rule of the package comment. Kiota calls it only after 429, 503 and 504.
func shouldRetry(_ time.Duration, count int, req *http.Request, resp *http.Response) bool {
	wait, hasRetryAfter := retryAfter(resp.Header)
	switch {
	case resp.StatusCode == http.StatusTooManyRequests:
	case req.Method == http.MethodGet, req.Method == http.MethodDelete:
	case resp.StatusCode == http.StatusServiceUnavailable && hasRetryAfter:
	default:
		return false
	}
	if !hasRetryAfter {
		wait = time.Duration(firstDelay<<count+1) * time.Second
	}
	if deadline, ok := req.Context().Deadline(); ok && time.Until(deadline) <= wait {
		return false
	}
	// Kiota drops the answer of the request that it repeats; unread, it would keep its connection from being used again.
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

// guardTransport is the last RoundTripper before the network. It sends a request only with a token and only to Graph, rejects
// redirects, and records in the call's callTrace what happened.
type guardTransport struct {
	host, scheme string
	next         http.RoundTripper
}

func (g *guardTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	err := req.Context().Err()
	// A paused process resumes before its timers fire. Another process may execute by now what this one was about to send.
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

	// A request was certainly not sent if a connection was requested and none was obtained.
	var connRequested, got atomic.Bool
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GetConn: func(string) { connRequested.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { got.Store(true) },
	})
	w, _ := req.Context().Value(callTraceKey{}).(*callTrace)
	resp, err := g.next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		w.recordNoAnswer(req, got.Load() || !connRequested.Load())
		return nil, err
	}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		_ = resp.Body.Close()
		w.recordNoAnswer(req, false)
		return nil, fmt.Errorf("a redirect (%d) instead of an answer; is there a proxy in between?", resp.StatusCode)
	}
	w.recordAnswer(req, resp)
	return resp, nil
}

// callTrace records what was observed of one call's requests.
type callTrace struct {
	mu     sync.Mutex
	status int         // of the last request; 0 when it got no answer
	header http.Header // of its answer, with our own client-request-id
	unsure bool        // some request may have changed something, and no later answer said whether it did
}

type callTraceKey struct{}

// recordNoAnswer records a request without an answer.
func (w *callTrace) recordNoAnswer(req *http.Request, maybeSent bool) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status, w.header = 0, http.Header{"Client-Request-Id": req.Header["Client-Request-Id"]}
	w.unsure = w.unsure || maybeSent && isChange(req)
}

// recordAnswer records an answer. A gateway's answer does not tell whether Graph executed the request; after a 404 to a DELETE
// it does not matter what an earlier attempt did.
func (w *callTrace) recordAnswer(req *http.Request, resp *http.Response) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status, w.header = resp.StatusCode, resp.Header.Clone()
	if w.header.Get("client-request-id") == "" {
		w.header.Set("client-request-id", req.Header.Get("client-request-id"))
	}
	_, hasRetryAfter := retryAfter(resp.Header)
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusInternalServerError, http.StatusBadGateway, http.StatusGatewayTimeout:
		w.unsure = w.unsure || isChange(req)
	case http.StatusServiceUnavailable:
		w.unsure = w.unsure || isChange(req) && !hasRetryAfter
	case http.StatusNotFound:
		w.unsure = w.unsure && req.Method != http.MethodDelete
	}
	if resp.StatusCode < 300 {
		// The change was applied. If its answer turns out to be unreadable, the caller still has to know that.
		w.unsure = isChange(req)
	}
}

// outcome returns what explain needs. The header is never nil.
func (w *callTrace) outcome() (status int, header http.Header, unsure bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.header == nil {
		return w.status, http.Header{}, w.unsure
	}
	return w.status, w.header, w.unsure
}

func isChange(req *http.Request) bool {
	return req.Method != http.MethodGet && req.Method != http.MethodHead
}

func deref[T any](p *T) T {
	if p == nil {
		var none T
		return none
	}
	return *p
}
