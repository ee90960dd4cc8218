// Command countersign is a Slack bot with which a help desk manages its
// people's Microsoft Entra authentication methods, and in which whatever
// changes an account needs a second person's approval.
//
// # A tour, bottom up
//
// entra is the only door to Microsoft Graph: one method for each call, with
// the permission it needs, and errors that say whether a call may have been
// carried out. audit has the event, the one thing that is said about each
// transition, and a tamper-evident log of events. Neither knows anything of
// the rest.
//
// approvals is the engine: requests as a pure state machine, kept in Redis by
// one atomic script, decided by people the policy names, run by whoever holds
// the claim. Its package comment lists the invariants. It knows neither Slack
// nor Graph.
//
// commands has the table of slash commands, reads what people type, makes
// plans over entra and carries out their steps for approvals. bot is the
// conversation in Slack: three lanes in, projections of events out.
//
// This package wires them. The subcommands are serve (production), sandbox (a
// Slack workspace and an Entra tenant in process, package sandbox), demo
// (both, with a Redis in process), and a few that print or check. Each has a
// file; subcommands.go has the list; config.go is every setting there is.
// connect.go is the way to Redis, durability.go what that Redis keeps.
package main
