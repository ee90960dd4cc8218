package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"flag"
	"fmt"
	"log/slog"

	"github.com/alicebob/miniredis/v2"

	"countersign/approvals"
	"countersign/commands"
	"countersign/sandbox"
)

// demo is serve, a sandbox and a Redis, in this process.
func demo(ctx context.Context, f *flag.FlagSet, args []string, env environment) error {
	addr := f.String("addr", "127.0.0.1:8377", "the `address` to listen on; port 0 takes any free one")
	verbose := f.Bool("verbose", false, "log what the bot does")
	if err := parse(f, args); err != nil {
		return err
	}
	level := slog.LevelWarn
	if *verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(env.Stderr, &slog.HandlerOptions{Level: level}))

	box, err := sandbox.New(sandbox.Options{Addr: *addr, Manifest: commands.Manifest(defaultPrefix), Log: log})
	if err != nil {
		return err
	}
	defer box.Close()
	store := miniredis.NewMiniRedis()
	store.ClockTTL(true) // keys expire by the clock, as in a real one
	if err := store.Start(); err != nil {
		return fmt.Errorf("the Redis in this process does not start: %w", err)
	}
	defer store.Close()
	ring, err := approvals.ParseRing(newKey())
	if err != nil {
		return err
	}
	fmt.Fprintf(env.Stdout, "Countersign demo: open %s\n", box.URL())
	fmt.Fprintln(env.Stdout, "A Slack workspace, an Entra tenant and a Redis that exist only in this process. Ctrl-C ends them, and nothing of them is kept.")
	return process{
		config:  sandboxConfig(box.URL(), box.SecureURL(), "redis://"+store.Addr()),
		secrets: secrets{BotToken: sandbox.BotToken, AppToken: sandbox.AppToken, ClientSecret: sandbox.ClientSecret, Ring: ring, RedisURL: "redis://" + store.Addr()},
		log:     log,
		trust:   box.HTTPClient(),
		passing: true,
		up:      func() {},
	}.run(ctx)
}

const defaultPrefix = "entra-"

// newKey is a key ring of one fresh key, as COUNTERSIGN_KEYS has it.
func newKey() string {
	key := make([]byte, 32)
	rand.Read(key) // never fails
	return "k1:" + base64.StdEncoding.EncodeToString(key)
}
