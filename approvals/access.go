package approvals

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// This package needs a pattern of keys and a list of commands in Redis.
// [ACLRules] prints the list for an administrator, and [Store.MissingACLRules]
// asks Redis which part of it the user lacks.

// sampleCommands has one sample of every command that is sent to Redis, from Go
// or from inside a script, because Redis checks both alike. None of them is
// executed. They look like the real ones, keys included.
func sampleCommands(k keys) [][]any {
	key := k.startupCheck()
	return [][]any{
		{"del", key}, {"eval", "return 1", 1, key}, {"evalsha", strings.Repeat("0", 40), 1, key}, {"exists", key}, {"get", key},
		{"hexists", key, "f"}, {"hget", key, "f"}, {"hgetall", key}, {"hincrby", key, "f", 1}, {"hlen", key}, {"hset", key, "f", 1}, {"incr", key}, {"pexpire", key, 1},
		{"set", key, 1}, {"time"}, {"xack", key, "g", "0-1"}, {"xadd", key, "*", "f", 1}, {"xautoclaim", key, "g", "c", 1, "0-0"},
		{"xclaim", key, "g", "c", 1, "0-1"}, {"xdel", key, "0-1"}, {"xgroup", "create", key, "g", "0"}, {"xpending", key, "g", "-", "+", 1},
		{"xrange", key, "-", "+"}, {"xread", "streams", key, "0"}, {"xreadgroup", "group", "g", "c", "streams", key, ">"},
		{"xtrim", key, "minid", "0"}, {"zadd", key, 1, "m"}, {"zcard", key}, {"zcount", key, 0, 1}, {"zrange", key, 0, 1}, {"zrangebyscore", key, 0, 1},
		{"zrem", key, "m"}, {"zremrangebyrank", key, 0, 0}, {"zremrangebyscore", key, 0, 0}, {"zrevrange", key, 0, 1}, {"zscore", key, "m"},
	}
}

// aclRule is the ACL rule that allows a command: +get, +xgroup|create.
func aclRule(sample []any) string {
	name := "+" + sample[0].(string)
	if name == "+xgroup" {
		name += "|" + sample[1].(string)
	}
	return name
}

// The commands around a transaction are no samples: they are tried first.
const aclMulti, aclExec = "+multi", "+exec"

func (k keys) startupCheck() string { return k.tag + "self-check" }
func (k keys) pattern() string      { return "~" + k.tag + "*" }

// ACLRules is the smallest ACL rule with which this package works, one word
// each: the pattern of its keys, then its commands in alphabetical order. The
// prefix is that of [NewStore].
func ACLRules(prefix string) []string {
	k := keysFor(prefix)
	words := []string{aclExec, aclMulti}
	for _, sample := range sampleCommands(k) {
		words = append(words, aclRule(sample))
	}
	slices.Sort(words)
	return append([]string{k.pattern()}, words...)
}

// MissingACLRules asks Redis which words of [ACLRules] this user lacks. In a
// Cluster it asks every master. It reads and writes nothing: the samples are
// queued in a transaction that is discarded. Redis records what is missing in
// its ACL LOG.
func (s *Store) MissingACLRules(ctx context.Context) ([]string, error) {
	var mu sync.Mutex
	var missing []string
	ask := func(ctx context.Context, node *redis.Client) error {
		lacks, err := missingACLRules(ctx, node, s.keys)
		mu.Lock()
		defer mu.Unlock()
		missing = append(missing, lacks...)
		return err
	}
	var err error
	switch rdb := s.rdb.(type) {
	case *redis.Client:
		err = ask(ctx, rdb)
	case *redis.ClusterClient:
		err = rdb.ForEachMaster(ctx, ask)
	}
	if err != nil {
		return nil, fmt.Errorf("approvals: asking Redis what is allowed: %w", err)
	}
	slices.SortFunc(missing, func(a, b string) int { // as Grants has them
		return cmp.Or(cmp.Compare(b[0], a[0]), cmp.Compare(a, b))
	})
	return slices.Compact(missing), nil
}

func missingACLRules(ctx context.Context, node *redis.Client, k keys) (missing []string, err error) {
	conn := node.EphemeralConn() // never used by anybody else: its transaction ends with it
	defer conn.Close()

	// Behind a refused MULTI the samples would be executed, so it is tried
	// alone.
	pipe := conn.Pipeline()
	multi, exec := pipe.Do(ctx, "multi"), pipe.Do(ctx, "exec")
	if _, err := pipe.Exec(ctx); err != nil && !isRedisError(err) {
		return nil, err
	}
	if multi.Err() != nil {
		return []string{aclMulti}, nil // how to go on is not known
	}
	if exec.Err() != nil {
		missing = append(missing, aclExec)
	}

	pipe = conn.Pipeline()
	pipe.Do(ctx, "multi")
	pipe.Do(ctx, "get") // no key: Redis will not carry this transaction out, whatever comes
	tried := make([]*redis.Cmd, 0, len(sampleCommands(k)))
	for _, sample := range sampleCommands(k) {
		tried = append(tried, pipe.Do(ctx, sample...))
	}
	if _, err := pipe.Exec(ctx); err != nil && !isRedisError(err) {
		return nil, err
	}
	for i, sample := range sampleCommands(k) {
		switch err := tried[i].Err(); {
		case redis.HasErrorPrefix(err, "unknown command"):
			return nil, fmt.Errorf("this Redis has no command %s; Countersign needs Redis 7.0 or later", strings.ToUpper(sample[0].(string)))
		case !redis.HasErrorPrefix(err, "NOPERM"):
		case strings.Contains(err.Error(), "run the '"):
			missing = append(missing, aclRule(sample))
		default: // "… to access one of the keys …"
			missing = append(missing, k.pattern())
		}
	}
	return missing, nil
}

// isRedisError reports whether Redis answered with an error.
func isRedisError(err error) bool {
	_, ok := errors.AsType[redis.Error](err)
	return ok
}
