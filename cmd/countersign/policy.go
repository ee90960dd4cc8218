package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"slices"
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

// explainPolicy prints what the policy requires if somebody uses a command on
// somebody. It asks the tenant as the bot would, and changes nothing.
func explainPolicy(ctx context.Context, f *flag.FlagSet, args []string, env environment) error {
	path := f.String("config", "countersign.yaml", "the configuration `file`; secrets come from the environment")
	as := f.String("as", "", "who would use the command: UPN, e-mail address, object id, or a Slack id of people.table")
	name := f.String("command", "", "which one, such as reset-password")
	target := f.String("target", "", "on whom; on themselves when empty. Some commands act on nobody")
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
	case *name == "":
		return errors.New("say with -command which command")
	case !ok:
		return fmt.Errorf("-command: there is no command %q; countersign permissions lists them", *name)
	}
	s, err := secretsFrom(c, env.Getenv)
	if err != nil {
		return fmt.Errorf("the environment lacks something:\n%w", err)
	}
	proc := process{config: c, secrets: s, log: slog.New(slog.DiscardHandler)}
	tenant, err := proc.tenant()
	if err != nil {
		return err
	}
	who, err := onePerson(ctx, tenant, c, "-as", *as)
	if err != nil {
		return err
	}
	whom := who
	if command.Target && *target != "" {
		if whom, err = onePerson(ctx, tenant, c, "-target", *target); err != nil {
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
	inbox := approvals.NewInbox(store, quick, proc.log)
	for _, g := range c.Policy.Groups {
		if len(g.Slack) == 0 {
			continue
		}
		// Otherwise Slack would be blamed for what Redis does not tell, and late.
		if err := inbox.Ready(ctx); err != nil {
			sentence, _ := explainRedisError(err)
			return sentence
		}
		break
	}
	service := proc.service(store, tenant)
	proc.bot(service, inbox, tenant, nil, "policy")

	say := func(format string, a ...any) { fmt.Fprintf(env.Stdout, format+"\n", a...) }
	slash := commands.Slash(c.Slack.CommandPrefix, command)
	if !command.Target {
		say("%s (class %s), used by %s:", slash, command.Class, who)
		if *target != "" {
			say("- The command acts on nobody, so -target counts for nothing.")
		}
		return explainForAll(ctx, say, service, command, who)
	}
	say("%s (class %s), used by %s on %s:", slash, command.Class, who, whom)
	lines, err := service.Explain(ctx, command.Name, command.Class, who, whom)
	for _, line := range lines {
		say("- %s", line)
	}
	no := (*approvals.Refusal)(nil)
	switch {
	case errors.As(err, &no) && len(lines) > 0: // a refusal is an answer, too
	case err != nil:
		return err
	default:
		fields, verified := service.Policy.Needs(command.Name, command.Class)
		for _, need := range requiredFields(command, whom, commands.Needs{Fields: fields, Verified: verified, Self: who.ID == whom.ID}) {
			say("- The command asks for: %s.", need)
		}
	}
	say("Not looked at, because it is no matter of the policy: recent changes of their own accounts, limits that are used up, and open requests.")
	return nil
}

// explainForAll is about the commands that everybody may use, at least in part.
func explainForAll(ctx context.Context, say func(string, ...any), service *approvals.Service, command commands.Command, who approvals.Person) error {
	if command.Name == "help" {
		say("- It is answered to everybody whom Countersign knows, to them alone. It is not recorded, and the policy has no say in it.")
		return nil
	}
	say("- Their own requests are shown to everybody whom Countersign knows, to them alone. That is not recorded, and the policy has no say in it.")
	account, err := service.Rights(ctx, who)
	if err != nil {
		return err
	}
	say("Whatever waits for a decision, and the requests of others:")
	lines, _ := service.Policy.Explain(command.Name, command.Class, account, approvals.Account{})
	for _, line := range lines {
		say("- %s", line)
	}
	return nil
}

// requiredFields are the fields that a command and its class require, besides
// those of the policy.
func requiredFields(command commands.Command, whom approvals.Person, needs commands.Needs) []string {
	in := commands.Input{Command: command, Target: commands.Ref{ObjectID: whom.ID}}
	if slices.Contains(needs.Fields, approvals.NeedTicket) {
		in.Ticket = "named" // which a justification is not needed beside
	}
	if slices.Contains(needs.Fields, approvals.NeedJustification) {
		in.Justification = "named"
	}
	var all []string
	for _, field := range commands.Missing(command, in, needs) {
		switch field {
		case commands.FieldJustification:
			all = append(all, "a justification or a ticket")
		case commands.FieldVerified:
			var ways []string
			for _, way := range commands.Ways(command, needs) {
				ways = append(ways, way.Value)
			}
			all = append(all, "how the caller was verified (verified="+strings.Join(ways, ", ")+")")
		default:
			all = append(all, string(field))
		}
	}
	return all
}

// onePerson finds the one person that a flag names.
func onePerson(ctx context.Context, tenant *commands.Tenant, c config, flag, text string) (approvals.Person, error) {
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
