package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/redis/go-redis/v9"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	redis.SetLogger(discardLogger{})
	err := run(ctx, os.Args[1:], environment{Getenv: os.Getenv, Stdout: os.Stdout, Stderr: os.Stderr})
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "countersign:", err)
		os.Exit(1)
	}
}

// discardLogger is where go-redis' own remarks go: a line about every dial that
// failed, past our log. What matters in them comes back as an error.
type discardLogger struct{}

func (discardLogger) Printf(context.Context, string, ...any) {}
