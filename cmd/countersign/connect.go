package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"countersign/approvals"
)

// The way to Redis: what may be configured, the clients that come of it, the
// wait until it answers, and sentences for when it does not.

var keyPrefix = regexp.MustCompile(`^[A-Za-z0-9_.-]*$`)

// check says what is wrong with the settings. forRedis checks what the
// environment adds.
func (r redisConfig) check() error {
	var wrong []error
	want := func(ok bool, format string, a ...any) {
		if !ok {
			wrong = append(wrong, fmt.Errorf(format, a...))
		}
	}
	ways := 0
	for _, used := range []bool{r.URL != "", r.hasSentinel(), r.hasCluster()} {
		if used {
			ways++
		}
	}
	want(ways <= 1, "name only one of redis.url, redis.sentinel and redis.cluster")
	if r.URL != "" {
		if o, err := parseRedisURL(r.URL); err != nil {
			wrong = append(wrong, fmt.Errorf("redis.url: %w", err))
		} else {
			want(o.Password == "", "redis.url: it has a password in it; put that into COUNTERSIGN_REDIS_PASSWORD, or the whole address into COUNTERSIGN_REDIS_URL")
		}
	}
	if r.hasSentinel() {
		want(r.Sentinel.Master != "", "redis.sentinel.master: what the Sentinels call this Redis, such as mymaster")
		want(len(r.Sentinel.Addresses) > 0, "redis.sentinel.addresses: host:port of the Sentinels, all of them")
	}
	for setting, addresses := range map[string][]string{"redis.sentinel.addresses": r.Sentinel.Addresses, "redis.cluster.addresses": r.Cluster.Addresses} {
		for _, address := range addresses {
			host, port, err := net.SplitHostPort(address)
			n, _ := strconv.Atoi(port)
			want(err == nil && host != "" && n > 0 && n < 1<<16, "%s: %q is not host:port", setting, address)
		}
	}
	if r.hasSentinel() || r.hasCluster() {
		want(r.TLS || r.CAFile == "" && r.CertFile == "" && r.KeyFile == "", "redis.tls: set it to true, or leave out ca_file, cert_file and key_file, which are for TLS")
	} else {
		want(!r.TLS, "redis.tls: that is for sentinel and cluster; an address asks for TLS with rediss:// in front")
	}
	want((r.CertFile == "") == (r.KeyFile == ""), "redis.cert_file and redis.key_file: one does not work without the other")
	want(keyPrefix.MatchString(r.Prefix), "redis.prefix: %q has other characters than A-Z, a-z, 0-9, _, . and -", r.Prefix)
	return errors.Join(wrong...)
}

func (r redisConfig) hasSentinel() bool {
	return r.Sentinel.Master != "" || len(r.Sentinel.Addresses) > 0 || r.Sentinel.Username != ""
}

func (r redisConfig) hasCluster() bool { return len(r.Cluster.Addresses) > 0 }

// database is the number in the address, or 0.
func (r redisConfig) database() int {
	o, err := parseRedisURL(r.URL)
	if err != nil {
		return 0
	}
	return o.DB
}

// parseRedisURL parses an address. Its errors never repeat the address, which
// may contain a password.
func parseRedisURL(address string) (*redis.Options, error) {
	if _, err := url.Parse(address); err != nil {
		return nil, errors.New("it cannot be read as an address such as rediss://redis.example:6380/0; in a password, write %40 for @, %2F for / and %25 for %")
	}
	o, err := redis.ParseURL(address)
	switch {
	case err != nil:
		return nil, err
	case o.TLSConfig != nil && o.TLSConfig.InsecureSkipVerify:
		return nil, errors.New("skip_verify would talk to anybody who answers; name the authority in redis.ca_file instead")
	}
	return o, nil
}

// forRedis reads the settings for Redis from the environment, and reports
// contradictions.
func (s *secrets) forRedis(r redisConfig, getenv func(string) string) error {
	variable := getenv("COUNTERSIGN_REDIS_URL")
	s.RedisURL = cmp.Or(variable, r.URL)
	s.RedisPassword, s.SentinelPassword = getenv("COUNTERSIGN_REDIS_PASSWORD"), getenv("COUNTERSIGN_REDIS_SENTINEL_PASSWORD")
	var wrong []error
	refuse := func(no bool, sentence string) {
		if no {
			wrong = append(wrong, errors.New(sentence))
		}
	}
	refuse(s.SentinelPassword != "" && !r.hasSentinel(), "COUNTERSIGN_REDIS_SENTINEL_PASSWORD: there are no Sentinels under redis.sentinel; unset it")
	refuse(s.SentinelPassword == "" && r.Sentinel.Username != "", "COUNTERSIGN_REDIS_SENTINEL_PASSWORD: the password of redis.sentinel.username")
	if r.hasSentinel() || r.hasCluster() {
		refuse(variable != "", "COUNTERSIGN_REDIS_URL: the configuration says redis.sentinel or redis.cluster; unset this variable, and put a password into COUNTERSIGN_REDIS_PASSWORD")
		refuse(r.Username != "" && s.RedisPassword == "", "COUNTERSIGN_REDIS_PASSWORD: the password of redis.username")
		return errors.Join(wrong...)
	}
	if s.RedisURL == "" {
		wrong = append(wrong, errors.New("redis.url or COUNTERSIGN_REDIS_URL: where Redis is, such as redis://localhost:6379; or redis.sentinel, or redis.cluster"))
		return errors.Join(wrong...)
	}
	o, err := parseRedisURL(s.RedisURL)
	if err != nil {
		if variable != "" {
			wrong = append(wrong, fmt.Errorf("COUNTERSIGN_REDIS_URL: %w", err))
		} // otherwise the check of the configuration says it
		return errors.Join(wrong...)
	}
	refuse(o.Password != "" && s.RedisPassword != "" && o.Password != s.RedisPassword, "COUNTERSIGN_REDIS_PASSWORD: the address has another password in it; keep one of the two")
	refuse(o.Username != "" && r.Username != "" && o.Username != r.Username, "redis.username: the address names another user; keep one of the two")
	refuse(cmp.Or(o.Username, r.Username) != "" && cmp.Or(o.Password, s.RedisPassword) == "", "COUNTERSIGN_REDIS_PASSWORD: the password of the Redis user "+cmp.Or(o.Username, r.Username))
	refuse(o.TLSConfig == nil && (r.CAFile != "" || r.CertFile != ""), "redis.ca_file and redis.cert_file are for addresses that begin with rediss://")
	return errors.Join(wrong...)
}

// connectRedis makes two clients of one Redis. rdb retries. quick is for acks:
// it honours its deadline and leaves retries to people. Both talk to primaries
// only, because a replica may lack what was confirmed.
//
// In a Cluster, MaxRedirects bounds all tries of a command together, and without
// any, a node's redirection would be the answer. A command of quick may
// therefore be sent twice; the inbox stores an envelope once.
func connectRedis(r redisConfig, s secrets) (rdb, quick redis.UniversalClient, err error) {
	secure, err := r.tls()
	if err != nil {
		return nil, nil, err
	}
	const hasty, few = time.Second, 8 // for quick: a dial, and connections
	// Neither is asked for, and a user with few rights may be refused both.
	identity, notices := true, &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	switch {
	case r.hasSentinel():
		o := redis.FailoverOptions{
			MasterName: r.Sentinel.Master, SentinelAddrs: r.Sentinel.Addresses, SentinelUsername: r.Sentinel.Username, SentinelPassword: s.SentinelPassword,
			Username: r.Username, Password: s.RedisPassword, TLSConfig: secure,
			ContextTimeoutEnabled: true, DisableIdentity: identity,
		}
		fast := o
		fast.MaxRetries, fast.DialTimeout, fast.PoolSize = -1, hasty, few
		return redis.NewFailoverClient(&o), redis.NewFailoverClient(&fast), nil
	case r.hasCluster():
		o := redis.ClusterOptions{
			Addrs: r.Cluster.Addresses, Username: r.Username, Password: s.RedisPassword, TLSConfig: secure,
			ContextTimeoutEnabled: true, DisableIdentity: identity, MaintNotificationsConfig: notices,
			// By slot alone: go-redis would otherwise ask for the table of
			// all commands.
			DisableRoutingPolicies: true,
			// A primary that is dead tells nobody where its slots went, so
			// the map must be asked for again soon.
			ClusterStateReloadInterval: 2 * time.Second,
			MaxRedirects:               6,
		}
		fast := o
		fast.MaxRedirects, fast.DialTimeout, fast.PoolSize = 2, hasty, few
		return redis.NewClusterClient(&o), redis.NewClusterClient(&fast), nil
	}
	o, err := parseRedisURL(s.RedisURL)
	if err != nil {
		return nil, nil, fmt.Errorf("the address of Redis: %w", err)
	}
	o.Username, o.Password = cmp.Or(o.Username, r.Username), cmp.Or(o.Password, s.RedisPassword)
	if o.TLSConfig != nil {
		secure.ServerName = o.TLSConfig.ServerName
		o.TLSConfig = secure
	}
	o.ContextTimeoutEnabled, o.DisableIdentity, o.MaintNotificationsConfig = true, identity, notices
	fast := *o
	fast.MaxRetries, fast.DialTimeout, fast.PoolSize = -1, hasty, few
	return redis.NewClient(o), redis.NewClient(&fast), nil
}

// tls configures how Redis and this process authenticate each other. It is nil
// if the settings do not ask for TLS; with an address, rediss:// decides.
func (r redisConfig) tls() (*tls.Config, error) {
	if (r.hasSentinel() || r.hasCluster()) && !r.TLS {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if r.CAFile != "" {
		pem, err := os.ReadFile(r.CAFile)
		if err != nil {
			return nil, fmt.Errorf("redis.ca_file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("redis.ca_file: %s holds no certificate in PEM", r.CAFile)
		}
	}
	if r.CertFile != "" {
		load := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(r.CertFile, r.KeyFile)
			if err != nil {
				return nil, fmt.Errorf("redis.cert_file and redis.key_file: %w", err)
			}
			return &pair, nil
		}
		if _, err := load(); err != nil {
			return nil, err
		}
		// Read again for each connection: short-lived certificates are
		// replaced while we run.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return c, nil
}

// readyRedis waits for Redis and checks it before anything depends on it.
func (s process) readyRedis(ctx context.Context, rdb redis.UniversalClient, store *approvals.Store, inbox *approvals.Inbox, patience time.Duration) error {
	if err := awaitRedis(ctx, inbox, patience, s.log); err != nil {
		return err
	}
	if s.passing {
		return nil
	}
	missing, err := store.MissingACLRules(ctx)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("the user at Redis may not do all that Countersign needs; countersign redis acl prints the whole rule, and this of it is missing: %s", strings.Join(missing, " "))
	}
	return checkDurability(ctx, rdb, s.config.Redis.hasSentinel(), s.log)
}

// startTimeout is how long a start waits for Redis. The log says why, and a
// supervisor may start the process again.
const startTimeout = time.Minute

// awaitRedis waits until Redis answers. An error that waiting cannot fix ends it
// at once.
func awaitRedis(ctx context.Context, inbox *approvals.Inbox, patience time.Duration, log *slog.Logger) error {
	give := time.Now().Add(patience)
	for attempt, pause := 1, 250*time.Millisecond; ; attempt, pause = attempt+1, min(2*pause, 8*time.Second) {
		err := inbox.Ready(ctx)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		sentence, hopeless := explainRedisError(err)
		switch {
		case hopeless:
			return sentence
		case time.Now().Add(pause).After(give):
			return fmt.Errorf("waited %s for Redis: %w", patience, sentence)
		}
		log.Warn("waiting for Redis", "attempt", attempt, "again_in", pause, "why", sentence)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// explainRedisError says why Redis is unavailable, and whether only an
// administrator can change that.
func explainRedisError(err error) (sentence error, hopeless bool) {
	say := func(hopeless bool, format string, a ...any) (error, bool) {
		return fmt.Errorf(format+": %w", append(a, err)...), hopeless
	}
	sentinels := strings.Contains(err.Error(), "all sentinels")
	who, password := "Redis", "COUNTERSIGN_REDIS_PASSWORD"
	if sentinels {
		who, password = "every Sentinel", "COUNTERSIGN_REDIS_SENTINEL_PASSWORD"
	}
	is := func(prefixes ...string) bool {
		for _, prefix := range prefixes {
			if redis.HasErrorPrefix(err, prefix) {
				return true
			}
		}
		return false
	}
	switch {
	case is("WRONGPASS"):
		return say(true, "%s refuses the user name or the password; compare %s, and the user name beside it, with what is set there", who, password)
	case is("NOAUTH"):
		return say(true, "%s wants a password; put it into %s", who, password)
	case is("AUTH <password> called without any password"), strings.Contains(err.Error(), "called without any password configured"):
		return say(true, "%s has no password for its default user, but %s has one; unset it, or set one there", who, password)
	case is("NOPERM"):
		return say(true, "%s does not allow its user something that Countersign needs; countersign redis acl prints the rule", who)
	case sentinels && errors.Is(err, redis.Nil):
		return say(true, "no Sentinel knows a Redis of the name in redis.sentinel.master")
	case sentinels && is("unknown command"):
		return say(true, "what answers at redis.sentinel.addresses is no Sentinel")
	case is("unknown command"):
		return say(true, "what answers is no Redis that stores anything; a Sentinel belongs under redis.sentinel.addresses")
	case is("MOVED", "ASK"):
		return say(true, "this Redis is one node of a Cluster; name its nodes under redis.cluster.addresses instead of redis.url")
	case is("This instance has cluster support disabled"):
		return say(true, "this Redis is no Cluster; put its address into redis.url instead of redis.cluster")
	case is("READONLY"):
		return say(false, "this Redis is a replica and takes no writes; unless a fail-over is under way, name its primary")
	case is("LOADING"):
		return say(false, "Redis is still reading its data from disk")
	case is("CLUSTERDOWN", "MASTERDOWN"):
		return say(false, "the Cluster is down: no node has our keys")
	case is("NOREPLICAS"):
		return say(false, "Redis takes no writes, because it has fewer replicas than its min-replicas-to-write")
	case is("MISCONF"):
		return say(false, "Redis takes no writes, because it cannot write to its disk")
	case is("OOM"):
		return say(false, "Redis takes no writes, because its maxmemory is used up")
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
			return say(true, "%s has a certificate of an authority that is not trusted here; if that is your own, name its certificate in redis.ca_file", who)
		}
		return say(true, "%s has a certificate that does not prove that it is the right one", who)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return say(true, "%s speaks no TLS at this port; write redis:// instead of rediss://, or leave redis.tls out", who)
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok || strings.Contains(err.Error(), "remote error: tls:") {
		return say(true, "%s refuses our side of TLS; where it asks for a certificate, name one in redis.cert_file and redis.key_file", who)
	}
	if errors.Is(err, io.EOF) {
		return say(false, "%s hangs up without a word; perhaps it wants TLS (rediss://, or redis.tls)", who)
	}
	return say(false, "%s does not answer", who)
}
