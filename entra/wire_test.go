package entra

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"countersign/internal/testnet"
)

// The tests in this file cover failures that a tenant does not cause but a network or a hostile address may. The other tests are in
// tenant_test.go.

// fixedCredential is a credential that always returns the same token, or an error.
type fixedCredential struct{ err error }

func (t fixedCredential) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "t0ken", ExpiresOn: time.Now().Add(time.Hour)}, t.err
}

// tlsServer listens on this machine. It does not log broken connections, which many tests cause on purpose.
func tlsServer(h http.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	return s
}

// newTLSClient makes a client whose Graph is the handler, over TLS.
func newTLSClient(t *testing.T, h http.HandlerFunc, change ...func(*Options)) *Client {
	t.Helper()
	s := tlsServer(h)
	t.Cleanup(s.Close)
	o := Options{Graph: s.URL, Credential: fixedCredential{}, Transport: s.Client().Transport, CallTimeout: 10 * time.Second}
	for _, f := range change {
		f(&o)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// newBubbleClient makes a client whose Graph is the handler, in the testing/synctest bubble of the test: a call takes at most
// 20 seconds of the bubble's fake time, which takes no real time.
func newBubbleClient(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	network := testnet.New()
	server := &http.Server{Handler: h}
	go server.Serve(network)
	transport := &http.Transport{DialContext: network.Dial}
	t.Cleanup(func() { server.Close(); transport.CloseIdleConnections() })
	c, err := New(Options{Graph: "http://" + network.Addr().String(), Credential: fixedCredential{}, Transport: transport, CallTimeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// neverAnswer never answers. A handler that returned instead would answer 200, and a client that is about to close its connection
// would still accept that: over TLS it notifies the server first.
func neverAnswer(_ http.ResponseWriter, r *http.Request) {
	<-r.Context().Done()
	panic(http.ErrAbortHandler)
}

func reply(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	io.WriteString(w, body)
}

func asError(t *testing.T, err error) *Error {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("got %v (%T), want an *Error", err, err)
	}
	return e
}

func TestNewRejectsUnsafeGraphAddresses(t *testing.T) {
	for _, graph := range []string{"", "graph.microsoft.com", "http://graph.microsoft.com", "https://", "https://graph.microsoft.com/v1.0",
		"https://user@graph.microsoft.com", "https://graph.microsoft.com?x=1", "http://127.0.0.1.evil.example", "ftp://127.0.0.1"} {
		if _, err := New(Options{Graph: graph, Credential: fixedCredential{}}); err == nil {
			t.Errorf("New accepted the Graph address %q", graph)
		}
	}
	for _, graph := range []string{"https://graph.microsoft.com", "https://graph.microsoft.us/", "http://127.0.0.1:8080", "http://localhost:1", "http://[::1]:1"} {
		if _, err := New(Options{Graph: graph, Credential: fixedCredential{}}); err != nil {
			t.Errorf("New(%q): %v", graph, err)
		}
	}
	if _, err := New(Options{Graph: "https://graph.microsoft.com"}); err == nil {
		t.Error("New accepted options without a credential")
	}
}

func TestIDsAreOnePathSegment(t *testing.T) {
	var seen atomic.Value
	c := newTLSClient(t, func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.RequestURI)
		w.WriteHeader(http.StatusNoContent)
	})
	for id, want := range map[string]string{
		"_jpuR-TGZtk6aQCLF3BQjA2": "_jpuR-TGZtk6aQCLF3BQjA2",
		"a/b?c#d":                 "a%2Fb%3Fc%23d",
		"../../organization":      "..%2F..%2Forganization",
		"o'brien 100%":            "o%27brien%20100%25",
		"žluťoučký":               "%C5%BElu%C5%A5ou%C4%8Dk%C3%BD",
		"{user}":                  "%7Buser%7D",
		"$ref":                    "%24ref",
	} {
		for _, k := range []Kind{KindAuthenticator, KindExternal} {
			if err := c.DeleteMethod(t.Context(), id, k, id); err != nil {
				t.Fatalf("%q: %v", id, err)
			}
			uri := seen.Load().(string)
			if got := strings.Count(uri, want); got != 2 || strings.Count(uri, "/") != 6 {
				t.Errorf("id %q of kind %s went to %s", id, k, uri)
			}
		}
	}
	for _, id := range []string{"", ".", ".."} {
		seen.Store("")
		if c.DeleteMethod(t.Context(), "u", KindPhone, id) == nil || c.DeleteMethod(t.Context(), id, KindPhone, "m") == nil ||
			c.RevokeSessions(t.Context(), id) == nil || c.SetEnabled(t.Context(), id, false) == nil || c.DeactivateHardwareToken(t.Context(), "u", id) == nil {
			t.Errorf("the id %q was accepted", id)
		}
		if uri := seen.Load(); uri != "" {
			t.Errorf("the id %q went to %s", id, uri)
		}
	}
}

func TestTokenIsSentOnlyToGraph(t *testing.T) {
	var elsewhere atomic.Int32
	other := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { elsewhere.Add(1) }))
	defer other.Close()

	c := newTLSClient(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer t0ken" {
			t.Errorf("%s came without the token", r.URL)
		}
		switch {
		case strings.HasSuffix(r.URL.Path, "/methods"):
			reply(w, 200, `{"value":[],"@odata.nextLink":"`+other.URL+`/v1.0/users/u/authentication/methods?$skiptoken=x"}`)
		default:
			http.Redirect(w, r, other.URL+"/elsewhere", http.StatusTemporaryRedirect)
		}
	})
	if _, err := c.Methods(t.Context(), "u"); !errors.Is(err, ErrUnreachable) {
		t.Errorf("a next page on another host: %v", err)
	}
	if err := c.RevokeSessions(t.Context(), "u"); !errors.Is(err, ErrUnreachable) || asError(t, err).Unsure {
		t.Errorf("a redirect: %v", err)
	}
	if n := elsewhere.Load(); n != 0 {
		t.Errorf("%d requests went to another host", n)
	}
}

// A process that was paused for longer than a call may take sends nothing when it resumes, although no timer has fired yet.
func TestNothingIsSentAfterTheDeadline(t *testing.T) {
	for name, ctx := range map[string]context.Context{
		"in time": lateTimerContext{t.Context(), time.Now().Add(time.Minute)}, "without a deadline": t.Context(), "too late": lateTimerContext{t.Context(), time.Now().Add(-time.Millisecond)},
	} {
		sent := false
		g := &guardTransport{host: "graph.microsoft.com", scheme: "https", next: roundTripFunc(func(*http.Request) (*http.Response, error) {
			sent = true
			return &http.Response{StatusCode: http.StatusNoContent, Body: http.NoBody}, nil
		})}
		req, err := http.NewRequestWithContext(ctx, http.MethodDelete, "https://graph.microsoft.com/v1.0/users/x/authentication/phoneMethods/y", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer t0ken")
		late := name == "too late"
		if _, err := g.RoundTrip(req); sent == late || errors.Is(err, context.DeadlineExceeded) != late {
			t.Errorf("%s: sent %t, %v", name, sent, err)
		}
	}
}

// lateTimerContext is a context whose timer has not fired yet.
type lateTimerContext struct {
	context.Context
	deadline time.Time
}

func (w lateTimerContext) Deadline() (time.Time, bool) { return w.deadline, true }

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestAnswersNotFromGraph(t *testing.T) {
	cut := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "500")
		io.WriteString(w, `{"value":[`)
	}
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		is      error
		isNot   error
		says    string
	}{
		{"a proxy's 404", func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, nil, ErrNotFound, "proxy"},
		{"a 404 without a body", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(404) }, nil, ErrNotFound, "404"},
		{"a path that Graph does not have", func(w http.ResponseWriter, r *http.Request) {
			reply(w, 404, `{"error":{"code":"badRequest","message":"No HTTP resource was found that matches the request URI 'https://mface…'"}}`)
		}, nil, ErrNotFound, "No HTTP resource"},
		{"a real 404", func(w http.ResponseWriter, r *http.Request) {
			reply(w, 404, `{"error":{"code":"resourceNotFound","message":"The requested user or authentication method is not found."}}`)
		}, ErrNotFound, ErrUnreachable, "there is none"},
		{"a login page", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, "<html>")
		}, ErrUnreachable, ErrNotFound, "proxy"},
		{"a truncated answer", cut, ErrUnreachable, ErrNotFound, "unexpected EOF"},
		{"an empty answer", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) }, ErrUnreachable, ErrNotFound, "empty"},
		{"an account without accountEnabled", func(w http.ResponseWriter, r *http.Request) {
			reply(w, 200, `{"id":"u","userPrincipalName":"u@x"}`)
		}, ErrForbidden, ErrNotFound, "User.Read.All"},
		{"a rejected token", func(w http.ResponseWriter, r *http.Request) {
			reply(w, 401, `{"error":{"code":"InvalidAuthenticationToken","message":"Access token is empty."}}`)
		}, ErrSignIn, ErrForbidden, "secret"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := newTLSClient(t, tt.handler).User(t.Context(), "u")
			e := asError(t, err)
			if tt.is != nil && !errors.Is(err, tt.is) || errors.Is(err, tt.isNot) || !strings.Contains(e.Error(), tt.says) {
				t.Errorf("got %+v: %v", *e, err)
			}
			if e.Unsure {
				t.Error("a read cannot have changed anything, but Unsure is set")
			}
		})
	}
}

// Unsure depends on what was observed of a change.
func TestUnsure(t *testing.T) {
	status := func(code int, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			reply(w, code, `{"error":{"code":"x","message":"y"}}`)
		}
	}
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		unsure  bool
	}{
		{"refused", status(400), false},
		{"forbidden", status(403), false},
		{"throttled", status(429, "Retry-After", "3600"), false},
		{"busy, with Retry-After", status(503, "Retry-After", "3600"), false},
		{"busy, without Retry-After", status(503), true},
		{"broken", status(500), true},
		{"gateway time-out", status(504), true},
		{"bad gateway", status(502), true},
		{"hung up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, true},
		{"silent", neverAnswer, true},
		{"done, and the answer cut short", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(200)
		}, false}, // only the status counts: there is no error
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var sent atomic.Int32
				c := newBubbleClient(t, func(w http.ResponseWriter, r *http.Request) { sent.Add(1); tt.handler(w, r) })
				err := c.RevokeSessions(t.Context(), "u")
				if strings.HasPrefix(tt.name, "done") {
					if err != nil {
						t.Errorf("got %v", err)
					}
					return
				}
				if e := asError(t, err); e.Unsure != tt.unsure {
					t.Errorf("unsure is %t: %v", e.Unsure, err)
				}
				if n := sent.Load(); n != 1 {
					t.Errorf("a POST was sent %d times", n)
				}
			})
		})
	}

	t.Run("nobody there", func(t *testing.T) {
		// Not a port that was free a moment ago: another process may have it now.
		c, err := New(Options{Graph: "https://127.0.0.1:1", Credential: fixedCredential{}})
		if err != nil {
			t.Fatal(err)
		}
		err = c.SetEnabled(t.Context(), "u", false)
		if !errors.Is(err, ErrUnreachable) || asError(t, err).Unsure {
			t.Errorf("got %v", err)
		}
		if strings.Contains(err.Error(), "/users/") {
			t.Errorf("the message repeats the address: %v", err)
		}
	})
	t.Run("not Graph's certificate", func(t *testing.T) {
		c := newTLSClient(t, func(http.ResponseWriter, *http.Request) { t.Error("a request came through") },
			func(o *Options) { o.Transport = &http.Transport{TLSClientConfig: &tls.Config{}} })
		if err := c.RevokeSessions(t.Context(), "u"); !errors.Is(err, ErrUnreachable) || asError(t, err).Unsure {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no token", func(t *testing.T) {
		c := newTLSClient(t, func(http.ResponseWriter, *http.Request) { t.Error("a request came through") },
			func(o *Options) { o.Credential = fixedCredential{errors.New("no such host")} })
		err := c.RevokeSessions(t.Context(), "u")
		if e := asError(t, err); !errors.Is(err, ErrUnreachable) || e.Unsure || e.Call != string(CallSignIn) || e.Permission != "" {
			t.Errorf("got %+v", *e)
		}
	})
	t.Run("given up by the caller", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := newTLSClient(t, func(w http.ResponseWriter, r *http.Request) { cancel(); neverAnswer(w, r) })
		err := c.RevokeSessions(ctx, "u")
		if !errors.Is(err, context.Canceled) || !asError(t, err).Unsure {
			t.Errorf("got %v", err)
		}
	})
}

// In each row, answers lists the answers to one call; the last one is repeated. An answer is a status and, after a slash, Retry-After.
func TestRetries(t *testing.T) {
	type call func(context.Context, *Client) error
	get := func(ctx context.Context, c *Client) error { _, err := c.Groups(ctx, "u"); return err }
	del := func(ctx context.Context, c *Client) error { return c.DeleteMethod(ctx, "u", KindPhone, "m") }
	post := func(ctx context.Context, c *Client) error { return c.RevokeSessions(ctx, "u") }
	patch := func(ctx context.Context, c *Client) error { return c.SetEnabled(ctx, "u", false) }
	for _, tt := range []struct {
		name    string
		call    call
		answers string
		want    error // nil is success
		sent    int
		atLeast time.Duration // how long it takes
		atMost  time.Duration
	}{
		{"GET with Retry-After", get, "429/7 200", nil, 2, 7 * time.Second, 7 * time.Second},
		{"GET without Retry-After", get, "429 503 504 200", nil, 4, 7 * time.Second, 10 * time.Second},
		{"DELETE after 504", del, "504 404", ErrNotFound, 2, time.Second, 2 * time.Second},
		{"DELETE after 503", del, "503/2 204", nil, 2, 2 * time.Second, 2 * time.Second},
		{"DELETE not after 500", del, "500", ErrUnreachable, 1, 0, 0},
		{"POST after 429", post, "429/3 429/4 200", nil, 3, 7 * time.Second, 7 * time.Second},
		{"POST after 429 without Retry-After", post, "429 200", nil, 2, time.Second, 2 * time.Second},
		{"POST after 503 with Retry-After", post, "503/3 200", nil, 2, 3 * time.Second, 3 * time.Second},
		{"POST not after 503", post, "503", ErrUnreachable, 1, 0, 0},
		{"POST not after 504", post, "504/1", ErrUnreachable, 1, 0, 0},
		{"PATCH after 429", patch, "429/3 204", nil, 2, 3 * time.Second, 3 * time.Second},
		{"PATCH not after 504", patch, "504/1", ErrUnreachable, 1, 0, 0},
		{"a wait beyond the deadline is not started", del, "429/60", ErrThrottled, 1, 0, 0},
		{"waits add up", del, "429/8 429/8 429/8", ErrThrottled, 3, 16 * time.Second, 16 * time.Second},
		{"the deadline covers a silent second answer", get, "429/8 0", ErrUnreachable, 2, 20 * time.Second, 20 * time.Second},
		{"throttled after a time-out", del, "504 429/60", ErrThrottled, 2, time.Second, 2 * time.Second},
		{"Retry-After is a date", get, "429/date 200", nil, 2, 5 * time.Second, 5 * time.Second},
		{"Retry-After is invalid", get, "429/soon 200", nil, 2, time.Second, 2 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sent, bodies := 0, map[string]bool{}
				answers := strings.Fields(tt.answers)
				c := newBubbleClient(t, func(w http.ResponseWriter, r *http.Request) {
					body, _ := io.ReadAll(bufio.NewReader(r.Body))
					bodies[r.Header.Get("Content-Encoding")+string(body)] = true
					status, after, _ := strings.Cut(answers[min(sent, len(answers)-1)], "/")
					sent++
					if after == "date" {
						after = time.Now().Add(5 * time.Second).UTC().Format(http.TimeFormat)
					}
					if after != "" {
						w.Header().Set("Retry-After", after)
					}
					switch status {
					case "0":
						neverAnswer(w, r)
					case "200":
						reply(w, 200, `{"value":[]}`)
					case "204":
						w.WriteHeader(204)
					default:
						var code int
						fmt.Sscan(status, &code)
						reply(w, code, `{"error":{"code":"x","message":"y"}}`)
					}
				})
				begin := time.Now()
				err := tt.call(t.Context(), c)
				took := time.Since(begin)
				synctest.Wait()
				if !errors.Is(err, tt.want) || err != nil && tt.want == nil {
					t.Errorf("got %v, want %v", err, tt.want)
				}
				if sent != tt.sent || took < tt.atLeast || took > tt.atMost {
					t.Errorf("sent %d times in %s, want %d in %s to %s", sent, took, tt.sent, tt.atLeast, tt.atMost)
				}
				if len(bodies) != 1 {
					t.Errorf("repeated with another body: %v", bodies)
				}
				if errors.Is(err, ErrThrottled) {
					if e := asError(t, err); e.RetryAfter < 8*time.Second || e.Unsure != strings.Contains(tt.answers, "504") {
						t.Errorf("got %+v", *e)
					}
				}
			})
		})
	}
}

func TestMasked(t *testing.T) {
	for _, tt := range []struct {
		m    Method
		want string
	}{
		{Method{Phone: "+1 4255551267"}, "+1 •••• ••67"},
		{Method{Phone: "+420 123456789x4711"}, "+420 •••• ••89"},
		{Method{Phone: "+14255551267"}, "•••• ••67"},
		{Method{Phone: "+44 12345"}, "+44 •••• ••"},
		{Method{Phone: "12"}, "•••• ••"},
		{Method{Phone: "+4255551267 1"}, "•••• ••71"},
		{Method{Email: "dana.w@gmail.com"}, "d••••@g••••.com"},
		{Method{Email: "d@g.com"}, "••••@••••.com"},
		{Method{Email: "žofie@pošta.example"}, "ž••••@p••••.example"},
		{Method{Email: "a.b@mail.corp.example"}, "a••••@m••••.example"},
		{Method{Email: `"x@y"@host`}, `"••••@h••••`},
		{Method{Email: "nonsense"}, "••••"},
		{Method{Kind: KindPasskey, Name: "Key"}, ""},
	} {
		got := tt.m.Masked()
		if got != tt.want {
			t.Errorf("%+v is masked as %q, want %q", tt.m, got, tt.want)
		}
		for _, verb := range []string{"%v", "%+v", "%s"} {
			out := fmt.Sprintf(verb, tt.m)
			if tt.m.Phone != "" && strings.Contains(out, tt.m.Phone) || tt.m.Email != "" && strings.Contains(out, tt.m.Email) {
				t.Errorf("%s prints %q", verb, out)
			}
		}
	}
}

func TestCloudRoots(t *testing.T) {
	for cloud, want := range map[string][2]string{
		"":         {"https://graph.microsoft.com", "https://login.microsoftonline.com/"},
		"public":   {"https://graph.microsoft.com", "https://login.microsoftonline.com/"},
		"usgov":    {"https://graph.microsoft.us", "https://login.microsoftonline.us/"},
		"usgovdod": {"https://dod-graph.microsoft.us", "https://login.microsoftonline.us/"},
		"china":    {"https://microsoftgraph.chinacloudapi.cn", "https://login.chinacloudapi.cn/"},
	} {
		graph, authority, err := CloudRoots(cloud)
		if err != nil || graph != want[0] || authority != want[1] {
			t.Errorf("CloudRoots(%q) = %q, %q, %v", cloud, graph, authority, err)
		}
	}
	if _, _, err := CloudRoots("mars"); err == nil {
		t.Error("CloudRoots accepted the cloud \"mars\"")
	}
}

func TestNewCredentialErrors(t *testing.T) {
	for _, tt := range []struct {
		o    CredentialOptions
		says string
	}{
		{CredentialOptions{}, "secret, certificate"},
		{CredentialOptions{Kind: "secret", ClientID: "c", Secret: "s"}, "tenant"},
		{CredentialOptions{Kind: "secret", Tenant: "t", ClientID: "c"}, "secret is empty"},
		{CredentialOptions{Kind: "certificate", Tenant: "t", ClientID: "c", CertificatePath: "/nowhere.pem"}, "nowhere.pem"},
		{CredentialOptions{Kind: "secret", Tenant: "t", ClientID: "c", Secret: "s", Cloud: "mars"}, "usgov"},
		{CredentialOptions{Kind: "secret", Tenant: "t", ClientID: "c", Secret: "s", Authority: "http://login.example"}, "https://"},
	} {
		cred, err := NewCredential(tt.o)
		if err == nil || cred != nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%+v: got %v, %v", tt.o, cred, err)
		}
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "client.pem")
	both := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
	if err := os.WriteFile(file, both, 0o600); err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(t.TempDir(), "token")
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", token)
	for _, o := range []CredentialOptions{
		{Kind: "certificate", Tenant: "t", ClientID: "c", CertificatePath: file},
		{Kind: "workload-identity", Tenant: "t", ClientID: "c"},
		{Kind: "secret", Tenant: "t", ClientID: "c", Secret: "s"},
		{Kind: "managed-identity"},
		{Kind: "managed-identity", ClientID: "c"},
	} {
		if cred, err := NewCredential(o); err != nil || cred == nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
