package main

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"text/tabwriter"

	"countersign/commands"
)

// printManifest prints the Slack app manifest that manifest.yml holds.
func printManifest(_ context.Context, f *flag.FlagSet, args []string, env environment) error {
	prefix := f.String("prefix", defaultPrefix, "of every slash command, where another app has the names already")
	if err := parse(f, args); err != nil {
		return err
	}
	if !prefixText.MatchString(*prefix) {
		return fmt.Errorf("-prefix: up to eleven of a-z, 0-9, _ and -")
	}
	_, err := env.Stdout.Write(commands.Manifest(*prefix))
	return err
}

// printTable prints the command table between the README's markers.
func printTable(_ context.Context, f *flag.FlagSet, args []string, env environment) error {
	if err := parse(f, args); err != nil {
		return err
	}
	_, err := fmt.Fprint(env.Stdout, commands.MarkdownTable(defaultPrefix))
	return err
}

// printPermissions prints what to grant to the app registration, and why.
func printPermissions(_ context.Context, f *flag.FlagSet, args []string, env environment) error {
	if err := parse(f, args); err != nil {
		return err
	}
	table := tabwriter.NewWriter(env.Stdout, 0, 0, 2, ' ', 0)
	for _, permission := range commands.Permissions() {
		fmt.Fprintf(table, "%s\t%s\n", permission, strings.Join(commands.UsedBy(permission), ", "))
	}
	return table.Flush()
}
