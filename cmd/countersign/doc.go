// Command countersign is a Slack bot with which a help desk manages its people's
// Microsoft Entra authentication methods. Whatever changes an account needs a
// second person's approval.
//
// # A tour, bottom up
//
// entra makes every call to Microsoft Graph: one method per call, with the
// permission it needs, and errors that say whether the call may have taken
// effect. audit has the event, which describes a transition, and a
// tamper-evident log of events. Neither imports the other packages.
//
// approvals is the engine: requests are a pure state machine, stored in Redis by
// one atomic script, decided by the people whom the policy names, and executed by
// the process that holds the claim. Its package comment lists the invariants. It
// knows neither Slack nor Graph.
//
// commands has the table of slash commands, parses them, makes plans with entra
// and executes their steps for approvals. bot is the conversation in Slack: it
// routes interactions in and turns events into messages.
//
// This package wires them together. Its subcommands are serve (production),
// sandbox (package sandbox: a Slack workspace and an Entra tenant in this
// process), demo (both, with an in-process Redis), and a few that print or check
// something. Each has a file; subcommands.go lists them. config.go has every
// setting, connect.go connects to Redis, and durability.go checks what that Redis
// persists.
package main
