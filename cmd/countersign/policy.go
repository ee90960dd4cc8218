package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"strings"

	"countersign/approvals"
	"countersign/commands"
)

// policyTools answer an administrator's questions about the policy.
func policyTools() []subcommand {
	return []subcommand{
		{"explain", "say what would be asked of whom, and which setting says so", explainPolicy},
	}
}

// policyTool runs one of them: countersign policy TOOL [flags].
func policyTool(ctx context.Context, f *flag.FlagSet, args []string, env environment) error {
	return runTool(ctx, f, "policy", policyTools(), args, env)
}

// explainPolicy prints what the policy would ask if somebody used a command on
// somebody. It asks the tenant as the bot would, and changes nothing.
func explainPolicy(ctx context.Context, f *flag.FlagSet, args []string, env environment) error {
	path := f.String("config", "countersign.yaml", "the configuration `file`; secrets come from the environment")
	as := f.String("as", "", "who would use the command: UPN, e-mail address, object id, or a Slack id of people.table")
	name := f.String("command", "", "which one, such as reset-password")
	target := f.String("target", "", "on whom; on themselves when empty")
	if err := parse(f, args); err != nil {
		return err
	}
	c, err := loadConfig(*path)
	if err != nil {
		return err
	}
	command, ok := commands.Lookup(strings.TrimPrefix(strings.TrimPrefix(*name, "/"), c.Slack.CommandPrefix))
	switch {
	case *as == "":
		return errors.New("say with -as who would use the command")
	case !ok:
		return fmt.Errorf("-command: there is no command %q; countersign permissions lists them", *name)
	}
	s, err := secretsFrom(c, env.Getenv)
	if err != nil {
		return fmt.Errorf("the environment lacks something:\n%w", err)
	}
	service := service{config: c, secrets: s, log: slog.New(slog.DiscardHandler)}
	tenant, err := service.tenant()
	if err != nil {
		return err
	}
	who, err := single(ctx, tenant, c, "-as", *as)
	if err != nil {
		return err
	}
	whom := who
	if command.Target && *target != "" {
		if whom, err = single(ctx, tenant, c, "-target", *target); err != nil {
			return err
		}
	}
	rdb, quick, err := connectRedis(c.Redis, s) // holds which Slack account is whose; asked only where the policy names Slack user groups
	if err != nil {
		return err
	}
	defer rdb.Close()
	defer quick.Close()
	store := approvals.NewStore(rdb, s.Ring, c.Redis.Prefix, c.Timing)
	desk := service.desk(store, tenant)
	service.bot(desk, approvals.NewInbox(store, quick, service.log), tenant, nil, "policy")

	fmt.Fprintf(env.Stdout, "%s (class %s), used by %s on %s:\n", commands.Slash(c.Slack.CommandPrefix, command), command.Class, who, whom)
	lines, err := desk.Explain(ctx, command.Name, command.Class, who, whom)
	for _, line := range lines {
		fmt.Fprintln(env.Stdout, "-", line)
	}
	no := (*approvals.Refusal)(nil)
	switch {
	case errors.As(err, &no) && len(lines) > 0: // a refusal is an answer, too
	case err != nil:
		return err
	default:
		for _, need := range commands.Missing(command, commands.Input{Command: command, Target: commands.Ref{ObjectID: whom.ID}}, commands.Needs{}) {
			fmt.Fprintf(env.Stdout, "- The command asks for: %s.\n", need)
		}
	}
	fmt.Fprintln(env.Stdout, "Not looked at, because it is no matter of the policy: recent changes of their own accounts, limits that are used up, and open requests.")
	return nil
}

// single finds the one person that a flag names.
func single(ctx context.Context, tenant *commands.Tenant, c config, flag, text string) (approvals.Person, error) {
	slack := ""
	if slackID.MatchString(text) {
		object, ok := c.People.Table[text]
		if !ok {
			return approvals.Person{}, fmt.Errorf("%s: people.table does not list the Slack account %s; give the user principal name", flag, text)
		}
		slack, text = text, object
	}
	person, err := tenant.Person(ctx, text)
	if errors.Is(err, approvals.ErrNoPerson) {
		return person, fmt.Errorf("%s: no single account is called %q; give the user principal name or the object id", flag, text)
	}
	if err != nil {
		return person, fmt.Errorf("%s: %w", flag, err)
	}
	person.Slack = slack
	return person, nil
}
