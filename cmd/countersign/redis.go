package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"regexp"
	"slices"
	"strings"
	"time"

	"countersign/approvals"
)

// redisTools are the tools for administrators of Redis.
func redisTools() []subcommand {
	return []subcommand{
		{"acl", "print the smallest ACL rule with which Countersign works", printACL},
		{"resume", "show what this Redis has lost, and with -yes resume Countersign", resumeRedis},
	}
}

// redisTool runs one of them: countersign redis TOOL [flags].
func redisTool(ctx context.Context, f *flag.FlagSet, args []string, env environment) error {
	return runTool(ctx, f, "redis", redisTools(), args, env)
}

var aclName = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// printACL prints a rule that may be piped into redis-cli. It never prints a
// password: Redis takes its SHA-256 as well.
func printACL(_ context.Context, f *flag.FlagSet, args []string, env environment) error {
	path := f.String("config", "", "the configuration `file`, where redis.prefix, redis.username or a Cluster is in it")
	user := f.String("user", "", "the `name` of the Redis user; that of the configuration, or countersign, when empty")
	settings := f.Bool("settings", false, "let Countersign ask at its start for the settings that INFO does not tell (+config|get, which shows every setting of Redis, its passwords too)")
	sentinel := f.Bool("sentinel", false, "print the rule for the user at the Sentinels instead")
	file := f.Bool("file", false, "print a line of a users.acl file instead of a command")
	without := f.Bool("no-password", false, "print the rule although the environment has no password; a user that exists is switched off by it")
	if err := parse(f, args); err != nil {
		return err
	}
	var c config
	if *path != "" {
		var err error
		if c, err = loadConfig(*path); err != nil {
			return err
		}
	}
	variable := "COUNTERSIGN_REDIS_PASSWORD"
	secret := env.Getenv(variable)
	// As at a start, the address may come from there, with all of it.
	c.Redis.URL = cmp.Or(env.Getenv("COUNTERSIGN_REDIS_URL"), c.Redis.URL)
	if o, err := parseRedisURL(c.Redis.URL); err == nil {
		c.Redis.Username, secret = cmp.Or(c.Redis.Username, o.Username), cmp.Or(secret, o.Password)
	}
	name, words := cmp.Or(*user, c.Redis.Username, "countersign"), redisACL(c.Redis, *settings)
	if *sentinel {
		variable = "COUNTERSIGN_REDIS_SENTINEL_PASSWORD"
		secret = env.Getenv(variable)
		name, words = cmp.Or(*user, c.Redis.Sentinel.Username, "countersign"), sentinelACL()
	}
	if !aclName.MatchString(name) {
		return fmt.Errorf("-user: %q has other characters than A-Z, a-z, 0-9, _, . and -", name)
	}
	if name == "default" {
		return errors.New("-user: the rule would shut everybody else out who comes as the default user; give Countersign a user of its own")
	}
	// Whoever pipes this into redis-cli would lock out a bot that is at work.
	if secret == "" && !*without {
		return fmt.Errorf("%s is not set, so nothing was printed: without a password the rule would switch the user %s off. Set it, or say -no-password", variable, name)
	}
	line := []string{"ACL SETUSER", name, "reset"}
	if *file {
		line = []string{"user", name, "reset"}
	}
	if secret != "" {
		line = append(line, "on", fmt.Sprintf("#%x", sha256.Sum256([]byte(secret))))
	} else {
		fmt.Fprintf(env.Stderr, "%s is not set, so with this rule the user has no password and cannot sign in. Add: on >PASSWORD\n", variable)
	}
	_, err := fmt.Fprintln(env.Stdout, strings.Join(append(line, words...), " "))
	return err
}

// redisACL is the ACL rule for the user of a configuration. Tests check that a
// bot with such a user is refused nothing.
func redisACL(r redisConfig, settings bool) []string {
	words := append([]string{"resetchannels", "-@all"}, approvals.ACLRules(r.Prefix)...)
	words = append(words, "+info") // what is told at the start, and no secret
	if settings {
		words = append(words, "+config|get")
	}
	if r.database() > 0 {
		words = append(words, "+select")
	}
	if len(r.Cluster.Addresses) > 0 {
		words = append(words, "+asking", "+cluster|slots") // where a slot is, and while it moves
	}
	return words
}

// sentinelACL is the ACL rule for a user that only asks the Sentinels for the
// primary and is notified of a fail-over.
func sentinelACL() []string {
	return []string{
		"resetchannels", "&+switch-master", "&+replica-reconf-done", "-@all",
		"+ping", "+sentinel|get-master-addr-by-name", "+sentinel|sentinels", "+subscribe",
	}
}

// resumeRedis lists the known lost writes of Redis. With -yes a person accepts
// them, and all processes resume.
func resumeRedis(ctx context.Context, f *flag.FlagSet, args []string, env environment) error {
	path := f.String("config", "countersign.yaml", "the configuration `file`; secrets come from the environment")
	yes := f.Bool("yes", false, "resume: somebody has read the list of lost writes")
	by := f.String("by", userName(), "who says so, for the record")
	if err := parse(f, args); err != nil {
		return err
	}
	c, err := loadConfig(*path)
	if err != nil {
		return err
	}
	var s secrets
	err = s.forRedis(c.Redis, env.Getenv)
	ring, unread := approvals.ParseRing(env.Getenv("COUNTERSIGN_KEYS"))
	if unread != nil {
		err = errors.Join(err, fmt.Errorf("COUNTERSIGN_KEYS: %w", unread))
	}
	if err != nil {
		return fmt.Errorf("the environment lacks something:\n%w", err)
	}
	rdb, quick, err := connectRedis(c.Redis, s)
	if err != nil {
		return err
	}
	defer rdb.Close()
	defer quick.Close()
	store := approvals.NewStore(rdb, ring, c.Redis.Prefix, c.Timing)
	if err := approvals.NewInbox(store, quick, slog.New(slog.DiscardHandler)).Ready(ctx); err != nil {
		sentence, _ := explainRedisError(err)
		return sentence
	}
	list, err := store.LostWrites(ctx)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		_, err := fmt.Fprintln(env.Stdout, "No lost writes of this Redis are known. There is nothing to resume.")
		return err
	}
	if err := printLostWrites(ctx, env.Stdout, store, list); err != nil {
		return err
	}
	if !*yes {
		return errors.New("nothing was changed, and Countersign decides and executes nothing. When you have looked, say the same with -yes")
	}
	if err := store.Resume(ctx, list, *by); err != nil {
		return err
	}
	_, err = fmt.Fprintln(env.Stdout, "\nCountersign has resumed. Running processes notice it within a second or two; do not restart them.")
	return err
}

// userName is the operating system's name of the person who runs this.
func userName() string {
	who, host := "somebody", "an unnamed host"
	if u, err := user.Current(); err == nil {
		who = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return who + " on " + host
}

// lossCount explains the numbers in a report. Commits of all processes are
// numbered together. If the number of Redis is higher than what it kept, other
// processes have written before or since.
func lossCount(lost approvals.LostWrites) string {
	kept := min(lost.Kept, lost.Sequence)
	gone := fmt.Sprintf("%d to %d are", kept+1, lost.Known)
	switch {
	case kept >= lost.Known:
		return fmt.Sprintf("It had seen commits up to %d confirmed, and not all up to there is what Redis has.", lost.Known)
	case kept+1 == lost.Known:
		gone = fmt.Sprintf("%d is", lost.Known)
	}
	if lost.Sequence > kept {
		return fmt.Sprintf("It had seen commits up to %d confirmed; what it knows of, Redis has up to %d: what it wrote after that is lost. Redis counted to %d then, with what others wrote.",
			lost.Known, kept, lost.Sequence)
	}
	return fmt.Sprintf("It had seen commits up to %d confirmed; Redis has those up to %d: %s lost.", lost.Known, kept, gone)
}

// printLostWrites prints the reports, and the current state in Redis of the
// requests that they name.
func printLostWrites(ctx context.Context, w io.Writer, store *approvals.Store, list []approvals.LostWrites) error {
	var out strings.Builder
	say := func(format string, a ...any) { fmt.Fprintf(&out, format+"\n", a...) }
	say("This Redis has lost confirmed writes. %s", approvals.SummarizeLostWrites(list))
	say("Countersign has stopped: it decides and executes nothing.")
	var requests []string
	for _, lost := range list {
		say("\n%s, process %s, noticed on %s:", lost.At.UTC().Format(time.RFC3339), lost.Process, lost.Host)
		say("%s", lossCount(lost))
		for _, commit := range lost.Commits {
			say("  %s", commit)
			if id := commit.Request; id != "" && !slices.Contains(requests, id) {
				requests = append(requests, id)
			}
		}
	}
	if len(requests) > 0 {
		say("\nWhat Redis now says of these requests:")
	}
	for _, id := range requests {
		snap, err := store.Load(ctx, id)
		switch {
		case errors.Is(err, approvals.ErrNoRequest):
			say("  %s is not there. Whoever asked for it has to ask again, if it is still needed.", id)
		case err != nil:
			return err
		default:
			say("  %s is %s: %s for %s", id, snap.Summary(), snap.Plan.Title, snap.Plan.Target)
		}
	}
	say(`
Before you go on:
- The audit channel and the audit log on disk may know events that Redis does not know any more. They are right, and Redis is not.
- Where execution is named above, look at the account in the Entra admin center. Whose it is, the audit channel tells, or
  countersign audit -dir ... -list -request R-..., with the folder of audit.dir and the id of the request. What Redis takes for approved or running, Countersign
  tries again when it goes on: it first compares the account with what the plan assumes, and stops where that has changed. Revoking
  sessions and blocking sign-in assume nothing, and are simply done again.
- Approvals and denials that are lost count for nothing. Whoever gave them is asked again.
- Where e-mail addresses say who is who, pairs of accounts that were pinned since are pinned anew at their next use.`)
	_, err := io.WriteString(w, out.String())
	return err
}
