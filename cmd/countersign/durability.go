package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// What Countersign confirms is as durable as its Redis. At the start it looks
// at the settings that decide this, and says in the log what a crash would
// cost, or that it cannot tell.

// persistence has the persistence settings of one Redis node. told lacks those
// that the node does not report.
type persistence struct {
	node       string            // its address, where there is more than one
	told       map[string]string // by the names that redis.conf has
	replicated bool              // a replica may take its place
}

// assessDurability assesses the settings: what an operator must know, what
// should be changed, and the one setting with which nothing may run.
func assessDurability(k persistence) (known, warnings []string, refusal error) {
	at := ""
	if k.node != "" {
		at = k.node + ": "
	}
	say := func(format string, a ...any) { known = append(known, at+fmt.Sprintf(format, a...)) }
	warn := func(format string, a ...any) { warnings = append(warnings, at+fmt.Sprintf(format, a...)) }

	policy, limit := k.told["maxmemory-policy"], k.told["maxmemory"]
	switch {
	case policy == "":
		warn("Redis does not tell its maxmemory-policy. Unless it is noeviction, a full Redis throws requests and approvals away to make room.")
	case policy == "noeviction":
	case limit == "0":
		warn("maxmemory-policy is %s. It does no harm while maxmemory is 0; set it to noeviction before somebody sets a limit.", policy)
	case limit == "":
		warn("maxmemory-policy is %s, and Redis does not tell maxmemory. If there is a limit, a full Redis throws requests and approvals away to make room. Set it to noeviction.", policy)
	default:
		refusal = fmt.Errorf("%sthis Redis may throw requests and approvals away to make room: its maxmemory-policy is %s with a maxmemory of %s bytes. Set maxmemory-policy to noeviction, and start Countersign again", at, policy, limit)
	}

	sync, syncTold := k.told["appendfsync"]
	save, saveTold := k.told["save"]
	switch k.told["appendonly"] {
	case "yes":
		switch {
		case sync == "always":
			say("Every write is on disk before it is confirmed (appendonly yes, appendfsync always): a crash of Redis loses nothing that was confirmed.")
		case sync == "everysec":
			warn("appendfsync is everysec: a crash of Redis' machine can lose about a second of what was confirmed. With always it loses nothing.")
		case !syncTold:
			warn("appendonly is on, but Redis does not tell appendfsync. With everysec, its default, a crash of its machine can lose about a second of what was confirmed.")
		default:
			warn("appendfsync is %s: a crash of Redis' machine can lose what was confirmed in the last half minute or more. With always it loses nothing.", sync)
		}
	case "no":
		switch {
		case saveTold && save == "":
			warn("appendonly is off and Redis makes no snapshots: a restart of Redis loses everything.")
		case saveTold:
			warn("appendonly is off: a restart of Redis loses everything since its last snapshot.")
		default:
			warn("appendonly is off: a restart of Redis loses everything since its last snapshot, or everything where it makes none.")
		}
	default:
		warn("What a crash of Redis would lose cannot be told: it does not tell appendonly and appendfsync.")
	}

	if k.replicated {
		const loses = "A fail-over can lose what was confirmed and not yet copied to the replica that takes over"
		switch least, told := k.told["min-replicas-to-write"]; {
		case !told:
			warn(loses + ". Redis does not tell min-replicas-to-write, which bounds that.")
		case least == "0":
			warn(loses + ", however much that is: min-replicas-to-write is 0. Set it to 1 or more.")
		default:
			say("%s, which is at most the last seconds: min-replicas-to-write is %s, bounded by min-replicas-max-lag.", loses, least)
		}
	}
	return known, warnings, refusal
}

// checkDurability checks every primary, logs the assessment, and refuses a Redis
// that evicts keys.
func checkDurability(ctx context.Context, rdb redis.UniversalClient, sentinels bool, log *slog.Logger) error {
	var all []persistence
	switch rdb := rdb.(type) {
	case *redis.ClusterClient:
		var mu sync.Mutex
		err := rdb.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
			k, err := settingsOf(ctx, node)
			k.node = node.Options().Addr
			mu.Lock()
			defer mu.Unlock()
			all = append(all, k)
			return err
		})
		if err != nil {
			return err
		}
		slices.SortFunc(all, func(a, b persistence) int { return cmp.Compare(a.node, b.node) })
	case *redis.Client:
		k, err := settingsOf(ctx, rdb)
		if err != nil {
			return err
		}
		k.replicated = k.replicated || sentinels
		all = append(all, k)
	}
	var refusals []error
	for _, k := range all {
		known, warnings, refusal := assessDurability(k)
		for _, sentence := range known {
			log.Info(sentence)
		}
		for _, sentence := range warnings {
			log.Warn(sentence)
		}
		refusals = append(refusals, refusal)
	}
	return errors.Join(refusals...)
}

// settingsOf asks one node. INFO reports most settings and CONFIG GET the
// others; a user with few permissions, or a hosted Redis, may have either
// refused. Only a network error is an error.
func settingsOf(ctx context.Context, node *redis.Client) (persistence, error) {
	k := persistence{told: map[string]string{}}
	info, err := node.Info(ctx).Result()
	if err != nil && !answered(err) {
		return k, err
	}
	for line := range strings.Lines(info) {
		switch name, value, _ := strings.Cut(strings.TrimSpace(line), ":"); name {
		case "maxmemory":
			k.told[name] = value
		case "maxmemory_policy":
			k.told["maxmemory-policy"] = value
		case "aof_enabled":
			k.told["appendonly"] = map[string]string{"0": "no", "1": "yes"}[value]
		case "connected_slaves":
			k.replicated = value != "0"
		}
	}

	// Each by itself: a Redis that does not know one still tells the others.
	for _, setting := range []string{"appendfsync", "min-replicas-to-write", "save", "appendonly", "maxmemory", "maxmemory-policy"} {
		if _, told := k.told[setting]; told {
			continue
		}
		got, err := node.ConfigGet(ctx, setting).Result()
		if err != nil {
			if !answered(err) {
				return k, err
			}
			break // refused once, refused always
		}
		if value, ok := got[setting]; ok {
			k.told[setting] = strings.TrimSpace(value)
		}
	}
	return k, nil
}

// answered reports whether an error is an answer of Redis.
func answered(err error) bool {
	_, ok := errors.AsType[redis.Error](err)
	return ok
}
