package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"countersign/audit"
)

// auditLog checks a log, or prints the events that fit, one line each.
func auditLog(_ context.Context, f *flag.FlagSet, args []string, env environment) error {
	dir := f.String("dir", "", "the `folder` of the log, as audit.dir in the configuration")
	list := f.Bool("list", false, "print the events, too")
	request := f.String("request", "", "with -list: only those of this request `id`")
	person := f.String("person", "", "with -list: only those that name this person, by UPN or object `id`")
	since := f.Duration("since", 0, "with -list: only those of the last `duration`, such as 720h")
	if err := parse(f, args); err != nil {
		return err
	}
	if *dir == "" {
		return fmt.Errorf("say with -dir where the log is")
	}
	filter := audit.Filter{Request: *request, Person: *person}
	if *since > 0 {
		filter.Since = time.Now().Add(-*since)
	}
	var report audit.Report
	var err error
	if *list {
		var events []audit.Event
		if events, report, err = audit.List(*dir, filter); err != nil {
			return err
		}
		for _, e := range events {
			fmt.Fprintf(env.Stdout, "%s  %s\n", e.At.UTC().Format(time.RFC3339), e.Line())
		}
	} else if report, err = audit.Verify(*dir); err != nil {
		return err
	}
	fmt.Fprintln(env.Stdout, report)
	if !report.OK() {
		return fmt.Errorf("the log does not hold")
	}
	return nil
}
