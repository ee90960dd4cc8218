package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// environment is what the program takes from the process around it, so that
// tests can run the program whole.
type environment struct {
	Getenv         func(string) string
	Stdout, Stderr io.Writer
}

// subcommand is one word behind the program's name.
type subcommand struct {
	Name string
	Desc string
	// Run declares its flags on f, parses args with it, and does its work
	// until ctx ends.
	Run func(ctx context.Context, f *flag.FlagSet, args []string, env environment) error
}

func subcommands() []subcommand {
	return []subcommand{
		{"demo", "a whole company in this process: open the address it prints and use it", demo},
		{"serve", "run the bot against Slack, Microsoft Graph and Redis", serve},
		{"sandbox", "run only the demo's Slack workspace and Entra tenant, for a bot elsewhere", serveSandbox},
		{"manifest", "print the Slack app manifest", printManifest},
		{"permissions", "print the Microsoft Graph application permissions each command needs", printPermissions},
		{"readme-table", "print the command table of the README", printTable},
		{"audit", "check or read a tamper-evident audit log", auditLog},
		{"policy", "ask the policy: what would be asked of whom, and why", policyTool},
		{"redis", "for the administrator of the Redis: print the ACL rule, and more", redisTool},
	}
}

// run is the program.
func run(ctx context.Context, args []string, env environment) error {
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		usage(env.Stderr)
		return flag.ErrHelp
	}
	for _, s := range subcommands() {
		if s.Name != args[0] {
			continue
		}
		f := flag.NewFlagSet("countersign "+s.Name, flag.ContinueOnError)
		f.SetOutput(env.Stderr)
		f.Usage = func() {
			fmt.Fprintf(env.Stderr, "countersign %s: %s\n", s.Name, s.Desc)
			f.PrintDefaults()
		}
		return s.Run(ctx, f, args[1:], env)
	}
	usage(env.Stderr)
	return fmt.Errorf("there is no subcommand %q", args[0])
}

func usage(w io.Writer) {
	fmt.Fprint(w, "Countersign: Entra authentication methods from Slack, with a second person's approval.\n\nUsage: countersign SUBCOMMAND [flags]\n\n")
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range subcommands() {
		fmt.Fprintf(table, "  %s\t%s\n", s.Name, s.Desc)
	}
	table.Flush()
	fmt.Fprintln(w, "\nTo see it at work: countersign demo")
}

// parse parses flags for a subcommand that takes no other words.
func parse(f *flag.FlagSet, args []string) error {
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%s takes no %q; its flags are shown by %s -h", f.Name(), strings.Join(f.Args(), " "), f.Name())
	}
	return nil
}

// runTool runs one of the tools behind a subcommand: countersign GROUP TOOL
// [flags].
func runTool(ctx context.Context, f *flag.FlagSet, group string, tools []subcommand, args []string, env environment) error {
	f.Usage = func() {
		fmt.Fprintf(env.Stderr, "Usage: countersign %s TOOL [flags]\n\n", group)
		table := tabwriter.NewWriter(env.Stderr, 0, 0, 2, ' ', 0)
		for _, tool := range tools {
			fmt.Fprintf(table, "  %s\t%s\n", tool.Name, tool.Desc)
		}
		table.Flush()
	}
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() == 0 {
		f.Usage()
		return flag.ErrHelp
	}
	for _, tool := range tools {
		if tool.Name != f.Arg(0) {
			continue
		}
		own := flag.NewFlagSet("countersign "+group+" "+tool.Name, flag.ContinueOnError)
		own.SetOutput(env.Stderr)
		own.Usage = func() {
			fmt.Fprintf(env.Stderr, "countersign %s %s: %s\n", group, tool.Name, tool.Desc)
			own.PrintDefaults()
		}
		return tool.Run(ctx, own, f.Args()[1:], env)
	}
	f.Usage()
	return fmt.Errorf("countersign %s has no tool %q", group, f.Arg(0))
}
