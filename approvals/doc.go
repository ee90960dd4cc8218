// Package approvals decides who may request a change of an account, who may
// approve it, which state the request is in, and when it runs. It knows neither
// Slack nor Microsoft Graph. A plan is plain data, a step is executed by one
// function value ([Work]), and people are looked up through [Directory].
//
// # Invariants
//
// These must hold whatever fails, and the tests attack them:
//
//  1. Nothing runs without enough approvals. The policy must name every approver
//     at the time of the decision and again at execution. Requester, target and
//     approvers are different people, compared by Entra object id. The one
//     exception is break-glass for containment: the policy must name the person,
//     a limit applies, the target must not be protected, and the request stays
//     open until somebody who took no part in it has reviewed it.
//  2. Deny is final. A request that is over never changes again.
//  3. A plan never changes. What is executed is what was approved.
//  4. Only one worker's writes count for a request (the claim is a fencing
//     token), and only one request runs for a target (the holder).
//  5. A step is journalled before and after its call. A step that was started
//     and has no outcome is reconciled by reading, never repeated blindly.
//  6. An operation id always gets the same answer, however often it arrives,
//     and takes effect once.
//  7. A transition and its event are one atomic write. Every refusal is an
//     event, too.
//  8. Deadlines are instants of Redis' clock and are compared with it alone.
//  9. What cannot be checked is refused: a failed look-up, an empty list of
//     approvers, a ciphertext that does not open. A process skips what is sealed
//     with a key that it lacks, so that a process with the key can handle it.
//  10. No key, value or event in Redis shows a name, a phone number, an address
//     or a secret in the clear.
//  11. A secret is shown to its requester alone, after an event has recorded that
//     it was opened, and is the one that is in force. It is stored outside the
//     request and kept for at most a quarter of an hour once it is offered. The
//     requester is told if it expires unseen or is lost.
//  12. What people did manually is attested by one person and confirmed by
//     another, neither of whom is the target. Until then the request stays open
//     and people are reminded. It occupies neither a worker nor its target.
//  13. No limit over time is exceeded, however many people submit at once: the
//     counter is part of the write that it limits.
//  14. A Redis that has lost confirmed writes, as a running process or the
//     watermark file remembers them, accepts no commit from anybody, replays
//     included, until a person has seen the losses and resumed it. A commit that
//     was in flight at that moment may succeed.
//
// # Files
//
// plan.go has the plain data, request.go the pure state machine with every rule
// about people and states, policy.go who is allowed to do what. service.go looks
// people up and applies both. store.go and commit.lua are the only writes of
// requests; inbox.go keeps interactions until they are executed; projection.go
// hands events to their readers. runner.go executes requests. secrets.go keeps
// temporary passwords and passes, and sends reminders. seal.go encrypts,
// missingkeys.go skips what this process has no key for, timing.go has every
// duration. access.go lists the Redis commands in use, outage.go handles a Redis
// that is unreachable, and lostwrites.go and watermark.go detect one that has
// lost confirmed writes.
//
// # Keys
//
// All share one hash tag, {countersign} unless configured, so that Redis
// Cluster keeps them in one slot. All commands, and the
// question for the time, go to the node that has it.
//
//	request:<id>            hash: version, claim, state, deadline, lease (of a hand-off or a review: until the next reminder), halt (sealed), op:<operation> (answers), body (sealed)
//	note:<operation>        hash: the answer of an operation that made no request; expires after an hour
//	cards:<id>              hash: where the request is shown in Slack, and who was notified there
//	secret:<id>/<step>      a temporary password or a pass (sealed); expires after an hour while prepared, after timing.SecretLife once offered
//	offers                  sorted set: when an offered secret expires, by <id>/<step>
//	due                     sorted set: when a request is due next, for the runner or a reminder
//	open                    sorted set: open requests
//	mine:<person>           sorted set: a person's last hundred requests
//	holder:<target>         the request that runs for a target; no TTL, released when that request ends, or when it turns out to be gone
//	same:<fingerprint>      the open request with this fingerprint
//	recent-target:<person>  expires after 48 hours
//	sequence                raised by every commit; a lower number than before means lost writes
//	processes               sorted set: the last confirmed sequence number by process; the thousand most recent processes
//	lost                    hash: the lost writes that each process knows of (sealed); while it exists nothing is committed
//	resumed                 how often a person has resumed after lost writes
//	events                  stream: request, op, body (sealed)
//	lead:<p>, cursor:<p>    the leased reader of a projection, and its position
//	inbox, aside            streams of entries and of dead letters: envelope, body (sealed)
//	envelope:<id>           received already; expires after twenty minutes
//	pins:slack, pins:entra  hashes: Slack id to object id and back, pinned at first use
//	rate:<what>:<who>       counter; expires after one window
//	self-check              never exists; the start-up check tries to write it
//	tally:<what>:<who>      sorted set: operations that count for a limit, by instant; expires after one window
package approvals
