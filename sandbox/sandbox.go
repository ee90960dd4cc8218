package sandbox

import (
	"cmp"
	"context"
	"crypto/tls"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"countersign/sandbox/entra"
	"countersign/sandbox/slack"
)

// Credentials for the sandbox. None of them is a secret: they are valid only in a sandbox.
const (
	BotToken     = "xoxb-sandbox-not-a-secret"
	AppToken     = "xapp-sandbox-not-a-secret"
	TenantID     = "7a1c0c0e-5c1d-4e55-9f0e-0f1a2b3c4d5e"
	ClientID     = "c8c8bce1-6ea3-483e-a70e-167d3bb7bbff"
	ClientSecret = "sandbox-not-a-secret"
)

// Options configure a sandbox. Only the manifest is required.
type Options struct {
	// Manifest is the app manifest of the bot, in YAML or JSON: its name, its slash commands and its scopes.
	Manifest []byte

	// Addr is the TCP address to listen on; "127.0.0.1:0" when empty.
	Addr string

	// Listener, when it is not nil, is used instead of a new listener on Addr. Close closes it.
	Listener net.Listener

	// Dial makes the connections of the sandbox's own clients (HTTPClient and Client); the default dialer when nil.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Host is the name or IP address under which others reach the sandbox. It is used in every URL that the sandbox returns, and in
	// its certificate. When empty, it is the address that the sandbox listens on, or 127.0.0.1 if that is unspecified.
	Host string

	// Company is the simulated company; Fernhill when nil.
	Company *Company

	// Granted are the application permissions of the bot; those of Company when nil.
	Granted []string

	// Tune may change the options of the workspace and of the tenant before they are created, for example to shorten timeouts.
	Tune func(*slack.Options, *entra.Options)

	// Now is the clock of the workspace and the tenant; time.Now when nil. Certificates and connections use real time.
	Now func() time.Time

	// Log receives errors below HTTP, such as failed TLS handshakes; they are discarded when nil.
	Log *slog.Logger
}

// Sandbox is a running sandbox. New starts it and Close stops it. It is safe for concurrent use.
type Sandbox struct {
	Slack  *slack.Server
	Tenant *entra.Tenant

	info       info
	company    Company
	slackAPI   http.Handler
	people     http.Handler
	graph      http.Handler
	admin      http.Handler
	page       http.Handler
	authority  *authority
	client     *http.Client
	transport  *http.Transport // of Client; nil for the default one
	plain, tls *http.Server
	splitter   *splitter

	closed chan struct{}
	close  sync.Once
	work   sync.WaitGroup
}

// New creates and starts a sandbox. When New returns, the sandbox accepts connections.
func New(o Options) (*Sandbox, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Company == nil {
		w := Fernhill(o.Now())
		o.Company = &w
	}
	manifest, err := slack.ParseManifest(o.Manifest)
	if err != nil {
		return nil, fmt.Errorf("reading the app manifest: %w", err)
	}
	listener := o.Listener
	if listener == nil {
		if listener, err = net.Listen("tcp", cmp.Or(o.Addr, "127.0.0.1:0")); err != nil {
			return nil, fmt.Errorf("listening for the sandbox: %w; choose another address, or port 0 for any free one", err)
		}
	}
	host, port := publicAddress(listener.Addr(), o.Host)
	authority, err := newAuthority(host)
	if err != nil {
		listener.Close()
		return nil, err
	}

	s := &Sandbox{company: *o.Company, authority: authority, splitter: newSplitter(listener), closed: make(chan struct{})}
	url, secure := "http://"+net.JoinHostPort(host, port), "https://"+net.JoinHostPort(host, port)

	so := slack.Options{
		Workspace: s.company.Workspace, Manifest: manifest, BotToken: BotToken, AppToken: AppToken,
		People: s.company.People, Channels: s.company.Channels, Groups: s.company.UserGroups, Now: o.Now,
	}
	eo := entra.Options{
		TenantID: TenantID, TenantName: s.company.Name, AppName: manifest.Name, ClientID: ClientID, ClientSecret: ClientSecret,
		Granted: s.company.Granted, Users: s.company.Users, Groups: s.company.Groups, Roles: s.company.Roles, Domains: s.company.Domains,
		Base: secure, Now: o.Now,
	}
	if o.Granted != nil {
		eo.Granted = o.Granted
	}
	if o.Tune != nil {
		o.Tune(&so, &eo)
	}
	s.Slack = slack.New(so)
	s.Slack.SetBase(url)
	s.Tenant = entra.New(eo)
	s.info = s.describe(manifest, url, secure)
	s.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority.pool, MinVersion: tls.VersionTLS12}, DialContext: o.Dial}}
	if o.Dial != nil {
		s.transport = &http.Transport{DialContext: o.Dial}
	}

	s.slackAPI, s.people = s.Slack.Handler(), s.Slack.PersonAPI()
	s.graph, s.admin = s.Tenant.Handler(), s.Tenant.AdminAPI()
	s.page = page()
	// Cross-origin requests are refused: otherwise another web page could send requests to the sandbox through the visitor's browser.
	guarded := http.NewCrossOriginProtection().Handler
	errorLog := slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn)
	s.plain = &http.Server{Handler: guarded(s.route(false)), ReadHeaderTimeout: 10 * time.Second, ErrorLog: errorLog}
	s.tls = &http.Server{
		Handler: guarded(s.route(true)), ReadHeaderTimeout: 10 * time.Second, ErrorLog: errorLog,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{authority.leaf}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}},
		// HTTP/2 is off, so that a fault that drops a response breaks the connection and not only one stream.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	s.work.Go(s.splitter.run)
	s.work.Go(func() { s.plain.Serve(s.splitter.plain) })
	s.work.Go(func() { s.tls.ServeTLS(s.splitter.secure, "", "") })
	return s, nil
}

// publicAddress returns the host and port that others use.
func publicAddress(addr net.Addr, host string) (string, string) {
	listening, port, _ := net.SplitHostPort(addr.String()) // a TCP address has both
	if ip := net.ParseIP(listening); ip == nil || ip.IsUnspecified() {
		listening = "127.0.0.1"
	}
	return cmp.Or(host, listening), port
}

// URL returns the sandbox's address for browsers, Slack clients and the JSON API, such as http://127.0.0.1:8080.
func (s *Sandbox) URL() string { return s.info.URL }

// SecureURL returns the same address for the login endpoint and Graph, which use TLS only, such as https://127.0.0.1:8080.
func (s *Sandbox) SecureURL() string { return s.info.SecureURL }

// SlackURL returns the base URL of the Web API for a Slack client; it ends with a slash.
func (s *Sandbox) SlackURL() string { return s.info.Slack.APIURL }

// CAPEM returns the certificate of the authority that signed the sandbox's certificate, in PEM. It is valid for this sandbox only.
func (s *Sandbox) CAPEM() []byte { return []byte(s.info.CAPEM) }

// HTTPClient returns a client that trusts the sandbox's certificate and has no timeout.
func (s *Sandbox) HTTPClient() *http.Client { return s.client }

// Company returns the simulated company as it was at the start.
func (s *Sandbox) Company() Company { return s.company }

// Client returns a client of the sandbox's JSON API.
func (s *Sandbox) Client() *Client {
	c := NewClient(s.URL())
	if s.transport != nil {
		c.http.Transport, c.stream.Transport = s.transport, s.transport
	}
	return c
}

// Close stops the sandbox: it stops listening and closes every connection.
func (s *Sandbox) Close() error {
	s.close.Do(func() {
		close(s.closed)
		s.Slack.Close()
		s.Tenant.Close()
		s.splitter.Close()
		s.plain.Close()
		s.tls.Close()
		s.client.CloseIdleConnections()
		if s.transport != nil {
			s.transport.CloseIdleConnections()
		}
		s.work.Wait()
	})
	return nil
}

// route dispatches a request to its handler. It does not use a ServeMux, which would redirect paths that are not clean: Graph does
// not.
func (s *Sandbox) route(secure bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		under := func(prefix string) bool { return path == prefix || strings.HasPrefix(path, prefix+"/") }
		switch {
		case path == "/" || under("/page"):
			s.page.ServeHTTP(w, r)
		case path == "/favicon.ico":
			http.Redirect(w, r, "/page/icon.svg", http.StatusFound)
		case path == "/sandbox/stream":
			s.serveStream(w, r)
		case path == "/sandbox/info":
			s.serveInfo(w, r)
		case under("/sandbox/tenant"), under("/sandbox/grant"), under("/sandbox/entra"):
			s.admin.ServeHTTP(w, r)
		case under("/sandbox"):
			s.people.ServeHTTP(w, r)
		case under("/api"), under("/link"), under("/commands"), under("/actions"):
			s.slackAPI.ServeHTTP(w, r)
		case secure:
			s.graph.ServeHTTP(w, r)
		default:
			refuse(w, http.StatusForbidden, "https_required",
				"The login endpoint and Microsoft Graph need TLS: use "+s.info.SecureURL+path+" and trust the certificate in /sandbox/info.")
		}
	})
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"error": code, "message": message}) // an error means that the client is gone
}

//go:embed page
var pageFiles embed.FS

// page serves the embedded files. The Content-Security-Policy allows only resources of the sandbox, and no HTML made from data.
func page() http.Handler {
	files, err := fs.Sub(pageFiles, "page")
	if err != nil {
		panic(err) // the directory is embedded above
	}
	server := http.FileServerFS(files)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			refuse(w, http.StatusMethodNotAllowed, "method_not_allowed", "The page is read-only; the JSON API is under /sandbox/.")
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache")
		http.StripPrefix("/page", server).ServeHTTP(w, withPageRoot(r))
	})
}

// withPageRoot rewrites / and /page to /page/, where the files of the page are.
func withPageRoot(r *http.Request) *http.Request {
	if r.URL.Path != "/" && r.URL.Path != "/page" {
		return r
	}
	clone := r.Clone(r.Context())
	clone.URL.Path, clone.URL.RawPath = "/page/", ""
	return clone
}

// info is the response of /sandbox/info: everything that a client in another process needs.
type info struct {
	Sandbox bool   `json:"sandbox"`
	Note    string `json:"note"`
	Name    string `json:"name"` // of the company
	App     string `json:"app"`  // of the bot
	Started string `json:"started"`

	URL       string `json:"url"`
	SecureURL string `json:"secure_url"`
	CAPEM     string `json:"ca_pem"`

	Slack struct {
		APIURL    string `json:"api_url"`
		TeamID    string `json:"team_id"`
		AppID     string `json:"app_id"`
		BotUserID string `json:"bot_user_id"`
		BotToken  string `json:"bot_token"`
		AppToken  string `json:"app_token"`
	} `json:"slack"`

	Entra struct {
		Authority    string `json:"authority"`
		GraphURL     string `json:"graph_url"`
		Scope        string `json:"scope"`
		TenantID     string `json:"tenant_id"`
		Domain       string `json:"domain"`
		ClientID     string `json:"client_id"`
		ClientSecret string `json:"client_secret"`
	} `json:"entra"`

	Hints    map[string]string `json:"hints"` // user id → a short description
	Welcome  string            `json:"welcome"`
	Pitch    string            `json:"pitch"`
	Tour     []TourStep        `json:"tour"`
	Epilogue string            `json:"epilogue"`
}

func (s *Sandbox) describe(manifest slack.Manifest, url, secure string) info {
	i := info{
		Sandbox: true,
		Note:    "This is a sandbox. Its people do not exist, and its tokens, secrets and certificate are valid only in this sandbox.",
		Name:    s.company.Name, App: cmp.Or(manifest.Name, "The app"), Started: time.Now().UTC().Format(time.RFC3339Nano),
		URL: url, SecureURL: secure, CAPEM: string(s.authority.pem),
		Hints: s.company.Hints, Welcome: s.company.Welcome, Pitch: s.company.Pitch, Tour: s.company.Tour, Epilogue: s.company.Epilogue,
	}
	w := s.company.Workspace
	i.Slack.APIURL, i.Slack.TeamID, i.Slack.AppID, i.Slack.BotUserID = url+"/api/", w.TeamID, w.AppID, w.BotUserID
	i.Slack.BotToken, i.Slack.AppToken = BotToken, AppToken
	i.Entra.Authority, i.Entra.GraphURL, i.Entra.Scope = secure+"/", secure+"/v1.0", secure+"/.default"
	i.Entra.TenantID, i.Entra.Domain, i.Entra.ClientID, i.Entra.ClientSecret = TenantID, s.company.Domain, ClientID, ClientSecret
	if i.Tour == nil {
		i.Tour = []TourStep{}
	}
	return i
}

func (s *Sandbox) serveInfo(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		refuse(w, http.StatusMethodNotAllowed, "method_not_allowed", "Read it with GET.")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(s.info) // an error means that the client is gone
}

// serveStream sends a server-sent event after each change. The first event is sent immediately, so that a client that reads the
// state after each event also sees what changed before it connected.
func (s *Sandbox) serveStream(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		refuse(w, http.StatusMethodNotAllowed, "method_not_allowed", "Read it with GET.")
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	flush := http.NewResponseController(w).Flush
	keepAlive := time.NewTicker(15 * time.Second)
	defer keepAlive.Stop()
	workspace, tenant := s.Slack.Changed(), s.Tenant.Changed()
	line := "data: {\"n\":1}\n\n"
	for n := 1; ; {
		if _, err := w.Write([]byte(line)); err != nil {
			return
		}
		if err := flush(); err != nil {
			return
		}
		select {
		case <-workspace:
			n++
			line = fmt.Sprintf("data: {\"n\":%d}\n\n", n)
		case <-tenant:
			n++
			line = fmt.Sprintf("data: {\"n\":%d}\n\n", n)
		case <-keepAlive.C:
			line = ": still here\n\n"
		case <-r.Context().Done():
			return
		case <-s.closed:
			return
		}
		// Taken before the event is written: a change while the client reads the state causes another event.
		workspace, tenant = s.Slack.Changed(), s.Tenant.Changed()
	}
}
