package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign/approvals"
	"countersign/internal/redistest"
	"countersign/sandbox"
)

// In all tests of this package the bot is a Redis user with the rule that
// "countersign redis acl" prints, and at the end of each it must not have
// been refused anything.
const redisUser, redisPassword = "countersign", "a password of the tests"

// asUser starts a redis-server with that user.
func asUser() redistest.Option {
	if os.Getenv("COUNTERSIGN_TEST_REDIS") == "cluster" {
		return redistest.With(userArguments(clusterAt("anywhere"))...)
	}
	return redistest.With(userArguments(redisConfig{})...)
}

// redisOf is the configuration of a bot that is this user.
func redisOf(server *redistest.Server) (r redisConfig) {
	if !server.Real() {
		r.URL = server.URL()
		return r
	}
	if r.Username = redisUser; len(server.Addrs()) > 1 {
		r.Cluster.Addresses = server.Addrs()
		return r
	}
	r.URL = server.URL()
	return r
}

func userArguments(r redisConfig) []string {
	rule := []string{"--user", redisUser, "on", fmt.Sprintf("#%x", sha256.Sum256([]byte(redisPassword)))}
	return append(rule, redisACL(r, false)...)
}

// allowed checks that the bot's user was refused nothing but the one thing
// that the rule leaves out on purpose, and that the start does without.
func (w *fixture) allowed() {
	w.Helper()
	if w.redis == nil || !w.redis.Real() {
		return
	}
	refusedAt(w.T, w.redis.Addrs())
}

// refusedAt reports what the user was refused there.
func refusedAt(t *testing.T, addresses []string) {
	t.Helper()
	for _, address := range addresses {
		rdb := redis.NewClient(&redis.Options{Addr: address})
		denied, err := rdb.ACLLog(context.Background(), 100).Result()
		rdb.Close()
		if err != nil {
			t.Logf("whether the bot was refused anything at %s is not known: %v", address, err) // it has ended
			continue
		}
		for _, d := range denied {
			if d.Username == redisUser && d.Object != "config|get" {
				t.Errorf("%s refused the bot's user %s (%s, %d times); it belongs into approvals.Grants", address, d.Object, d.Reason, d.Count)
			}
		}
	}
}

// The settings, and what the environment adds.
func TestRedisSettings(t *testing.T) {
	const sentinels = "sentinel: {master: main, addresses: [a:26379, b:26379, c:26379]}"
	for _, c := range []struct {
		yaml string
		env  string // NAME=value …
		says string // of the refusal; none when empty
	}{
		{"url: redis://localhost:6379", "", ""},
		{"url: rediss://user@localhost:6379/3", "COUNTERSIGN_REDIS_PASSWORD=x", ""},
		{"", "COUNTERSIGN_REDIS_URL=rediss://u:p@localhost:6380", ""},
		{"url: redis://localhost, username: u", "COUNTERSIGN_REDIS_PASSWORD=x", ""},
		{"url: rediss://localhost, ca_file: ca.pem, cert_file: c.pem, key_file: k.pem", "", ""},
		{sentinels, "COUNTERSIGN_REDIS_PASSWORD=x COUNTERSIGN_REDIS_SENTINEL_PASSWORD=y", ""},
		{sentinels + ", tls: true, ca_file: ca.pem", "", ""},
		{"cluster: {addresses: [a:6379]}, username: u, tls: true", "COUNTERSIGN_REDIS_PASSWORD=x", ""},

		{"", "", "where Redis is"},
		{"url: localhost:6379", "", "redis.url"},
		{"url: redis://user:secret@localhost", "", "COUNTERSIGN_REDIS_PASSWORD"},
		{"url: 'rediss://localhost?skip_verify=true'", "", "redis.ca_file"},
		{"url: redis://localhost, cluster: {addresses: [a:6379]}", "", "name only one of redis.url, redis.sentinel and redis.cluster"},
		{"cluster: {addresses: [a:6379]}, " + sentinels, "", "name only one"},
		{sentinels, "COUNTERSIGN_REDIS_URL=redis://localhost", "unset this variable"},
		{"cluster: {addresses: [a:6379]}", "COUNTERSIGN_REDIS_URL=redis://localhost", "unset this variable"},
		{"sentinel: {master: main}", "", "redis.sentinel.addresses"},
		{"sentinel: {addresses: [a:26379]}", "", "redis.sentinel.master"},
		{"sentinel: {master: main, addresses: [a:26379], username: u}", "", "COUNTERSIGN_REDIS_SENTINEL_PASSWORD"},
		{"url: redis://localhost", "COUNTERSIGN_REDIS_SENTINEL_PASSWORD=y", "unset it"},
		{"cluster: {addresses: [a]}", "", `"a" is not host:port`},
		{"cluster: {addresses: ['a:99999']}", "", "is not host:port"},
		{"cluster: {addresses: [a:6379]}, ca_file: ca.pem", "", "redis.tls"},
		{"url: redis://localhost, tls: true", "", "rediss://"},
		{"url: redis://localhost, ca_file: ca.pem", "", "rediss://"},
		{"url: rediss://localhost, cert_file: c.pem", "", "redis.key_file"},
		{"url: redis://localhost, username: u", "", "the password of the Redis user u"},
		{"cluster: {addresses: [a:6379]}, username: u", "", "the password of redis.username"},
		{"url: redis://u@localhost, username: v", "COUNTERSIGN_REDIS_PASSWORD=x", "names another user"},
		{"", "COUNTERSIGN_REDIS_URL=redis://:one@localhost COUNTERSIGN_REDIS_PASSWORD=two", "another password"},
		{"", "COUNTERSIGN_REDIS_URL=redis://:secr%et@localhost", "%25 for %"},
		{"", "COUNTERSIGN_REDIS_URL=redis://:sec/ret@localhost", "%2F for /"},
		{"url: redis://localhost, prefix: 'a b*'", "", "redis.prefix"},
		{"url: redis://localhost, sentinels: [a]", "", "redis.sentinels is no setting; did you mean sentinel?"},
	} {
		raw := strings.Replace(productionYAML, "redis: {}", "redis: {"+c.yaml+"}", 1)
		got, err := readConfig(strings.NewReader(raw))
		if err == nil {
			environ := map[string]string{}
			for _, pair := range strings.Fields(c.env) {
				name, value, _ := strings.Cut(pair, "=")
				environ[name] = value
			}
			err = (&secrets{}).forRedis(got.Redis, func(name string) string { return environ[name] })
		}
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%s with %s is refused: %v", c.yaml, c.env, err)
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s with %s: %v, want a sentence with %q", c.yaml, c.env, err, c.says)
		case err != nil && strings.Contains(err.Error(), "secr"):
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

// productionYAML is the least that a configuration holds.
const productionYAML = `
slack: {team: T0FERNHILL, approvals_channel: C0APPROVE, audit_channel: C0AUDIT}
entra: {tenant: 7a1c0c0e-5c1d-4e55-9f0e-0f1a2b3c4d5e, client_id: 7a1c0c0e-5c1d-4e55-9f0e-0f1a2b3c4d5f}
people: {match_email: true}
redis: {}
`

// What settings mean, in words.
func TestAssessDurability(t *testing.T) {
	good := map[string]string{"maxmemory": "0", "maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "always", "min-replicas-to-write": "1", "save": ""}
	with := func(pairs ...string) persistence {
		told := maps.Clone(good)
		for i := 0; i < len(pairs); i += 2 {
			if told[pairs[i]] = pairs[i+1]; pairs[i+1] == "?" {
				delete(told, pairs[i])
			}
		}
		return persistence{told: told}
	}
	copied := func(k persistence) persistence { k.replicated = true; return k }
	for _, c := range []struct {
		k       persistence
		known   string // a part of each sentence, | between them
		warns   string
		refuses string
	}{
		{with(), "loses nothing that was confirmed", "", ""},
		{with("maxmemory", "1000000"), "loses nothing", "", ""},
		{with("appendfsync", "everysec"), "", "can lose about a second", ""},
		{with("appendfsync", "no"), "", "half minute or more", ""},
		{with("appendfsync", "?"), "", "does not tell appendfsync", ""},
		{with("appendonly", "no"), "", "no snapshots: a restart of Redis loses everything", ""},
		{with("appendonly", "no", "save", "3600 1"), "", "loses everything since its last snapshot.", ""},
		{with("appendonly", "no", "save", "?"), "", "or everything where it makes none", ""},
		{with("appendonly", "?", "appendfsync", "?"), "", "cannot be told", ""},
		{with("maxmemory-policy", "allkeys-lru"), "loses nothing", "no harm while maxmemory is 0", ""},
		{with("maxmemory-policy", "volatile-lru", "maxmemory", "?"), "loses nothing", "does not tell maxmemory. If there is a limit", ""},
		{with("maxmemory-policy", "volatile-lru", "maxmemory", "1000000"), "loses nothing", "", "volatile-lru with a maxmemory of 1000000"},
		{with("maxmemory-policy", "allkeys-lfu", "maxmemory", "1"), "loses nothing", "", "Set maxmemory-policy to noeviction"},
		{with("maxmemory-policy", "?"), "loses nothing", "does not tell its maxmemory-policy", ""},
		{copied(with()), "loses nothing|min-replicas-to-write is 1", "", ""},
		{copied(with("min-replicas-to-write", "0")), "loses nothing", "A fail-over can lose what was confirmed", ""},
		{copied(with("min-replicas-to-write", "?")), "loses nothing", "does not tell min-replicas-to-write", ""},
		{copied(with("min-replicas-to-write", "0", "appendfsync", "everysec", "maxmemory-policy", "allkeys-lru")), "", "no harm|about a second|A fail-over", ""},
		{copied(persistence{}), "", "maxmemory-policy|cannot be told|A fail-over", ""},
		{persistence{node: "10.0.0.1:6379", told: map[string]string{"maxmemory-policy": "allkeys-lru", "maxmemory": "5"}}, "", "10.0.0.1:6379: What a crash", "10.0.0.1:6379: this Redis"},
	} {
		known, warnings, refusal := assessDurability(c.k)
		fits := func(what string, got []string, want string) {
			t.Helper()
			parts := strings.FieldsFunc(want, func(r rune) bool { return r == '|' })
			ok := len(got) == len(parts)
			for i := range min(len(got), len(parts)) {
				ok = ok && strings.Contains(got[i], parts[i])
			}
			if !ok {
				t.Errorf("%+v: %s %q, want %q", c.k, what, got, parts)
			}
		}
		fits("known", known, c.known)
		fits("warnings", warnings, c.warns)
		if (refusal == nil) != (c.refuses == "") || refusal != nil && !strings.Contains(refusal.Error(), c.refuses) {
			t.Errorf("%+v: refused with %v, want %q", c.k, refusal, c.refuses)
		}
	}
}

// startRedis is the first part of a start: reach Redis and look at it.
func startRedis(t *testing.T, r redisConfig, s secrets) (log *buffer, err error) {
	t.Helper()
	log = &buffer{}
	ring, err := approvals.ParseRing(newKey())
	if err != nil {
		t.Fatal(err)
	}
	rdb, quick, err := connectRedis(r, s)
	if err != nil {
		return log, err
	}
	defer rdb.Close()
	defer quick.Close()
	store := approvals.NewStore(rdb, ring, r.Prefix, approvals.DefaultTiming())
	proc := process{config: config{Redis: r}, secrets: s, log: slog.New(slog.NewTextHandler(log, nil))}
	return log, proc.readyRedis(t.Context(), rdb, store, approvals.NewInbox(store, quick, proc.log), 3*time.Second)
}

// real starts a redis-server, whatever the other tests use.
func real(t *testing.T, options ...redistest.Option) *redistest.Server {
	t.Helper()
	server := redistest.Start(t, options...)
	if !server.Real() || len(server.Addrs()) > 1 {
		t.Skip("this needs a single redis-server")
	}
	return server
}

// What is in the way at a start is said in a sentence that names what to do.
func TestRedisRefusals(t *testing.T) {
	t.Parallel()
	open, locked := real(t), real(t)
	if err := locked.Client(t).ConfigSet(t.Context(), "requirepass", "x").Err(); err != nil {
		t.Fatal(err)
	}
	limited := real(t, redistest.With(append(slices.DeleteFunc(userArguments(redisConfig{}), func(word string) bool {
		return word == "+xautoclaim" || word == "+zadd" || word == "+xgroup|create"
	}), "--user", "other", "on", ">y", "~{elsewhere}:*", "+@all")...))
	evicting := real(t, asUser(), redistest.With("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"))
	replica := real(t, redistest.With("--replicaof", "127.0.0.1 1"))
	lonely := real(t, redistest.With("--min-replicas-to-write", "1"))
	gone := real(t)
	gone.Kill(t)
	for _, c := range []struct {
		what string
		r    redisConfig
		s    secrets
		says string
	}{
		{"no password", redisConfig{}, secrets{RedisURL: locked.URL()}, "put it into COUNTERSIGN_REDIS_PASSWORD"},
		{"a wrong password", redisConfig{}, secrets{RedisURL: locked.URL(), RedisPassword: "z"}, "refuses the user name or the password"},
		{"a wrong user", redisConfig{Username: "nobody"}, secrets{RedisURL: open.URL(), RedisPassword: "z"}, "refuses the user name or the password"},
		{"a user without some commands", redisConfig{Username: redisUser}, secrets{RedisURL: limited.URL(), RedisPassword: redisPassword}, "missing: +xautoclaim +xgroup|create +zadd"},
		{"a user without our keys", redisConfig{Username: "other"}, secrets{RedisURL: limited.URL(), RedisPassword: "y"}, "countersign redis acl"},
		{"a user with the keys of another prefix", redisConfig{Username: "other", Prefix: "elsewhere"}, secrets{RedisURL: limited.URL(), RedisPassword: "y"}, ""},
		{"one that evicts", redisConfig{}, secrets{RedisURL: evicting.URL()}, "Set maxmemory-policy to noeviction"},
		{"one that evicts, and tells only INFO", redisConfig{Username: redisUser}, secrets{RedisURL: evicting.URL(), RedisPassword: redisPassword}, "Set maxmemory-policy to noeviction"},
		{"a replica", redisConfig{}, secrets{RedisURL: replica.URL()}, "name its primary"},
		{"one without its replicas", redisConfig{}, secrets{RedisURL: lonely.URL()}, "min-replicas-to-write"},
		{"none", redisConfig{}, secrets{RedisURL: gone.URL()}, "waited 3s for Redis: Redis does not answer"},
		{"no cluster", clusterAt(open.Addr()), secrets{}, "into redis.url"},
		{"no sentinel", sentinelsAt("main", open.Addr()), secrets{}, "is no Sentinel"},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			log, err := startRedis(t, c.r, c.s)
			switch {
			case c.says == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
				t.Errorf("the start ends with %v, want a sentence with %q; log:\n%s", err, c.says, log)
			}
			if err != nil && strings.HasPrefix(err.Error(), "waited") != strings.Contains(log.String(), "waiting for Redis") {
				t.Errorf("waited, or not, and the log does not fit: %v\n%s", err, log)
			}
		})
	}
}

func clusterAt(addresses ...string) (r redisConfig) {
	r.Cluster.Addresses = addresses
	return r
}

func sentinelsAt(master string, addresses ...string) (r redisConfig) {
	r.Sentinel.Master, r.Sentinel.Addresses = master, addresses
	return r
}

// What the start says about settings, and that it cannot tell.
func TestRedisSettingsAreTold(t *testing.T) {
	t.Parallel()
	says := func(r redisConfig, s secrets, parts ...string) {
		t.Helper()
		log, err := startRedis(t, r, s)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range parts {
			if !strings.Contains(log.String(), part) {
				t.Errorf("the log lacks %q:\n%s", part, log)
			}
		}
	}
	safe := real(t, redistest.AppendOnly(), asUser(), redistest.With(append([]string{"--user", "asking", "on", ">y"}, redisACL(redisConfig{}, true)...)...))
	says(redisConfig{}, secrets{RedisURL: safe.URL()}, "a crash of Redis loses nothing")
	says(redisConfig{Username: "asking"}, secrets{RedisURL: safe.URL(), RedisPassword: "y"}, "a crash of Redis loses nothing")
	says(redisConfig{Username: redisUser}, secrets{RedisURL: safe.URL(), RedisPassword: redisPassword}, "does not tell appendfsync")
	says(redisConfig{}, secrets{RedisURL: real(t).URL()}, "no snapshots: a restart of Redis loses everything")
	forgetful := real(t, redistest.With("--save", "3600 1"))
	says(redisConfig{}, secrets{RedisURL: forgetful.URL()}, "everything since its last snapshot")
}

// The rule that is printed works as it is printed, both ways, and shows no
// password.
func TestPrintedRule(t *testing.T) {
	t.Parallel()
	environ := map[string]string{"COUNTERSIGN_REDIS_PASSWORD": redisPassword}
	printed := func(args ...string) string {
		t.Helper()
		out, errs := &buffer{}, &buffer{}
		env := environment{Stdout: out, Stderr: errs, Getenv: func(name string) string { return environ[name] }}
		if err := run(t.Context(), append([]string{"redis", "acl"}, args...), env); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, errs)
		}
		if strings.Contains(out.String()+errs.String(), redisPassword) {
			t.Errorf("the password is printed: %s", out)
		}
		return strings.TrimSpace(out.String())
	}
	file := filepath.Join(t.TempDir(), "users.acl")
	if err := os.WriteFile(file, []byte(printed("-file", "-user", "from-file", "-settings")+"\nuser default on nopass ~* &* +@all\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	server := real(t, redistest.With("--aclfile", file))
	command := strings.Fields(printed("-user", "by-command"))
	args := make([]any, len(command))
	for i, word := range command {
		args[i] = word
	}
	if err := server.Client(t).Do(t.Context(), args...).Err(); err != nil {
		t.Fatalf("%v: %v", command, err)
	}
	for _, user := range []string{"from-file", "by-command"} {
		if log, err := startRedis(t, redisConfig{Username: user}, secrets{RedisURL: server.URL(), RedisPassword: redisPassword}); err != nil {
			t.Errorf("%s: %v\n%s", user, err, log)
		}
	}
	if rule := printed("-config", writeConfig(t, "{url: redis://localhost/3, prefix: east, username: cs-east}")); !strings.HasPrefix(rule, "ACL SETUSER cs-east reset on #") || !strings.Contains(rule, " ~{east}:* ") || !strings.Contains(rule, " +select") {
		t.Errorf("the rule does not follow the configuration: %s", rule)
	}
	if rule := printed("-config", writeConfig(t, "{cluster: {addresses: [a:6379]}}")); !strings.Contains(rule, " +cluster|slots") {
		t.Errorf("the rule for a Cluster lacks something: %s", rule)
	}
	environ = map[string]string{"COUNTERSIGN_REDIS_URL": "rediss://cs:" + url.PathEscape(redisPassword) + "@localhost:6380/2"}
	if rule := printed(); !strings.HasPrefix(rule, fmt.Sprintf("ACL SETUSER cs reset on #%x ", sha256.Sum256([]byte(redisPassword)))) || !strings.HasSuffix(rule, " +select") {
		t.Errorf("the rule does not follow COUNTERSIGN_REDIS_URL: %s", rule)
	}
}

// Without a password the rule would switch off a user that is at work, so it is
// printed only for who asks for exactly that.
func TestPrintedRuleWithoutAPassword(t *testing.T) {
	for _, c := range []struct {
		args     []string
		variable string
	}{{nil, "COUNTERSIGN_REDIS_PASSWORD"}, {[]string{"-sentinel"}, "COUNTERSIGN_REDIS_SENTINEL_PASSWORD"}, {[]string{"-file"}, "COUNTERSIGN_REDIS_PASSWORD"}} {
		var out, errs buffer
		env := environment{Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }}
		args := append([]string{"redis", "acl"}, c.args...)
		if err := run(t.Context(), args, env); err == nil || !strings.Contains(err.Error(), c.variable+" is not set") || out.String() != "" {
			t.Errorf("%v prints %q and ends with %v", args, out.String(), err)
		}
		if err := run(t.Context(), append(args, "-no-password"), env); err != nil || !strings.Contains(out.String(), " countersign reset resetchannels ") || !strings.Contains(errs.String(), "cannot sign in") {
			t.Errorf("%v with -no-password prints %q, %q and ends with %v", args, out.String(), errs.String(), err)
		}
	}
}

func writeConfig(t *testing.T, settings string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "countersign.yaml")
	if err := os.WriteFile(path, []byte(strings.Replace(productionYAML, "redis: {}", "redis: "+settings, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// papers are certificates of one authority, as files.
type papers struct {
	dir, ca string
	key     *ecdsa.PrivateKey
	root    *x509.Certificate
}

func newPapers(t *testing.T) *papers {
	t.Helper()
	p := &papers{dir: t.TempDir()}
	p.key = newSigningKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "an authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &p.key.PublicKey, p.key)
	if err != nil {
		t.Fatal(err)
	}
	if p.root, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	p.ca = filepath.Join(p.dir, "ca.pem")
	writePEM(t, p.ca, "CERTIFICATE", der)
	return p
}

// issue makes a certificate and its key for somebody.
func (p *papers) issue(t *testing.T, name string) (cert, key string) {
	t.Helper()
	own := newSigningKey(t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, p.root, &own.PublicKey, p.key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(p.dir, name+".pem"), filepath.Join(p.dir, name+".key")
	writePEM(t, cert, "CERTIFICATE", der)
	writePEM(t, key, "PRIVATE KEY", raw)
	return cert, key
}

func newSigningKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// withTLS starts a redis-server that speaks TLS at the returned port, beside
// its plain one.
func withTLS(t *testing.T, p *papers, clients string, options ...redistest.Option) (*redistest.Server, string) {
	t.Helper()
	cert, key := p.issue(t, "redis")
	var port string
	server := real(t, append(options, redistest.WithPort("--tls-port", &port),
		redistest.With("--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", p.ca, "--tls-auth-clients", clients))...)
	return server, port
}

// With TLS, the story is told, and whoever is not who it should be is refused
// in words.
func TestRedisTLS(t *testing.T) {
	t.Parallel()
	ours, others := newPapers(t), newPapers(t)
	server, port := withTLS(t, ours, "no", asUser())
	_, strictPort := withTLS(t, ours, "yes")
	cert, key := ours.issue(t, "bot")
	foreign, foreignKey := others.issue(t, "bot")
	address := "rediss://127.0.0.1:" + port
	for _, c := range []struct {
		what string
		r    redisConfig
		url  string
		says string
	}{
		{"its authority is named", redisConfig{CAFile: ours.ca}, address, ""},
		{"nobody vouches for it", redisConfig{}, address, "name its certificate in redis.ca_file"},
		{"another authority", redisConfig{CAFile: others.ca}, address, "name its certificate in redis.ca_file"},
		{"another name", redisConfig{CAFile: ours.ca}, "rediss://localhost:" + port, "does not prove that it is the right one"},
		{"no TLS", redisConfig{}, "redis://127.0.0.1:" + port, "perhaps it wants TLS"},
		{"our certificate", redisConfig{CAFile: ours.ca, CertFile: cert, KeyFile: key}, "rediss://127.0.0.1:" + strictPort, ""},
		{"none of ours", redisConfig{CAFile: ours.ca}, "rediss://127.0.0.1:" + strictPort, "name one in redis.cert_file"},
		{"a foreign one", redisConfig{CAFile: ours.ca, CertFile: foreign, KeyFile: foreignKey}, "rediss://127.0.0.1:" + strictPort, "name one in redis.cert_file"},
		{"a key of another", redisConfig{CAFile: ours.ca, CertFile: cert, KeyFile: foreignKey}, "rediss://127.0.0.1:" + strictPort, "redis.key_file"},
		{"no certificate in the file", redisConfig{CAFile: key}, address, "no certificate in PEM"},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			log, err := startRedis(t, c.r, secrets{RedisURL: c.url})
			if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("the start ends with %v, want %q; log:\n%s", err, c.says, log)
			}
		})
	}
	t.Run("story", func(t *testing.T) {
		tellStory(beginOn(t, server, nil, func(c *config) { c.Redis.URL, c.Redis.CAFile = address, ours.ca }))
		if n := server.Client(t).DBSize(t.Context()).Val(); n == 0 {
			t.Error("the story was told elsewhere")
		}
	})
}

// Redis is away while the bot works: the log says it once, the channel is
// told, people hear that what they do is not confirmed, and afterwards all
// goes on.
func TestRedisIsAway(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.AppendOnly(), asUser())
	w := beginOn(t, server, nil, shortTimings, func(c *config) { c.Timing.Outage = 1500 * time.Millisecond })
	hanna, ravi := w.as(sandbox.Hanna, sandbox.HelpDesk), w.as(sandbox.Ravi, sandbox.Approvals)
	card := w.request("/entra-revoke-sessions @dana laptop stolen")

	server.Kill(t)
	alarm := ravi.reads("has not been able to reach its Redis since", "could not be confirmed", "nothing is started")
	if answer := hanna.types("/entra-revoke-sessions @mina phone stolen"); !strings.Contains(string(answer.Response), "could not be confirmed") {
		t.Errorf("the command was answered: %s", answer.Response)
	}
	ravi.presses(card, "approve")
	ravi.reads("Your press could not be confirmed")
	// All loops have failed again and again by now.
	for _, loop := range []string{"the inbox cannot be read", "the runner cannot see what is due", "a projection cannot read the events"} {
		w.pollUntil("several tries: "+loop, func() bool { return strings.Count(w.log.String(), loop) >= 3 })
	}
	server.Restart(t)
	ravi.reads("reaches its Redis again, after")
	w.waitFor("the alarm to be over", func() bool {
		for _, m := range ravi.messagesWith("Over: Countersign could not reach its Redis from") {
			return m.TS == alarm.TS && m.Edited
		}
		return false
	})
	w.as(sandbox.Ravi, sandbox.Approvals).presses(card, "approve")
	w.as(sandbox.Gloria, sandbox.Audit).reads("Succeeded: ", requestID.FindString(card.Text()))
	for text, want := range map[string]int{"has not been able to reach its Redis since": 0, "reaches its Redis again": 1} {
		if n := len(ravi.messagesWith(text)); n != want {
			t.Errorf("the channel says %q %d times, want %d", text, n, want)
		}
	}
	log := w.log.String()
	if n := strings.Count(log, "level=ERROR msg=\"Redis does not answer"); n != 1 {
		t.Errorf("the log says %d times that Redis does not answer", n)
	}
	if n := strings.Count(log, "msg=\"Redis is back"); n != 1 {
		t.Errorf("the log says %d times that Redis is back", n)
	}
	for line := range strings.Lines(log) {
		if strings.Contains(line, "level=WARN") && strings.Contains(line, "trying again") {
			t.Errorf("a loop complains beside that: %s", line)
		}
	}
}

// A bot that is started before its Redis waits for it.
func TestRedisComesLate(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.AppendOnly(), asUser())
	w := beginOn(t, server, nil)
	w.stop()
	server.Kill(t)
	isUp := w.launch()
	w.pollUntil("the bot to wait for Redis", func() bool { return strings.Contains(w.log.String(), "waiting for Redis") })
	server.Restart(t)
	isUp()
	tellStory(w)
}
