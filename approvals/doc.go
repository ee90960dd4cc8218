// Package approvals is the second signature: who may ask for a change of an
// account, who may say yes to it, what state the request is in, and when it
// runs. It knows neither Slack nor Microsoft Graph. A plan is plain data, a
// step is carried out by one function value ([Work]), and people are looked
// up through [Directory].
//
// # Invariants
//
// What the tests attack, and what must hold whatever fails:
//
//  1. Nothing runs without enough approvals by people who, at that moment and
//     again when it runs, the policy names, who are pairwise distinct, and of
//     whom none is the requester or the target. People are Entra object ids.
//     The one exception is containment with broken glass: by somebody the
//     policy names for that, within a limit, never of a protected target, and
//     not over before somebody who had no part in it has reviewed it.
//  2. Deny is final. A request that is over never changes again.
//  3. A plan never changes. What is executed is what was approved.
//  4. At most one worker's writes count for a request (the claim is the
//     fence), and at most one request runs for a target (the holder).
//  5. A step is journalled before and after its call. A step that was begun
//     and has no outcome is reconciled by reading, never blindly repeated.
//  6. The same operation id gets the same answer, however often it arrives,
//     and takes effect once.
//  7. Each transition and its event are one atomic write. Every refusal is an
//     event too.
//  8. Deadlines are instants of Redis' clock and are compared with it alone.
//  9. What cannot be checked is refused: a failed look-up, an empty list of
//     approvers, a ciphertext that does not open. What is sealed with a key
//     that a process does not have, that process leaves to those that have it.
//  10. No key, value or event in Redis shows a name, a phone number, an
//     address or a secret in the clear.
//  11. A secret is shown to its requester alone, after the record that it was
//     opened, and is the one that is in force. It stands outside the request,
//     lives for a quarter of an hour at most once it is offered, and its end
//     unseen is told. Where it is lost, that is told.
//  12. What people did by hand is said to be so by two of them, neither of
//     whom is the target. Until then it stays on the desk and is reminded of,
//     and holds neither a worker nor its target.
//  13. No limit over time is exceeded, however many ask at a moment: it is
//     counted in the write that it limits.
//  14. A Redis that has lost what it had confirmed to a process that still
//     runs, or whose witness file is read again, takes no commit of anybody,
//     replays included, until a person has seen what is lost. What was under
//     way at that moment may be made, and is not taken for good.
//
// # Rooms
//
// plan.go has the plain data, request.go the pure state machine with every
// rule about people and states, policy.go who may, desk.go the look-ups
// around both, store.go and commit.lua the one write there is, inbox.go what
// people did before it is looked at, follow.go how events become something to
// see, runner.go execution, secrets.go what a step makes for the requester's
// eyes and the reminders, seal.go the encryption, keyless.go what a process
// leaves to others that have its key, timing.go every duration,
// access.go what all this may do in Redis, outage.go what is said while Redis
// is away, rewind.go and witness.go how one that has gone back in time is
// noticed.
//
// # Keys
//
// All share one hash tag, {countersign} unless configured, so that Redis
// Cluster keeps them in one slot. The node that has it is the only one that is
// asked for anything, the time included: no other clock counts.
//
//	request:<id>            hash: version, claim, state, deadline, lease (of a hand-off or a review: until the next reminder), halt (sealed), op:<operation> (answers), body (sealed)
//	note:<operation>        hash: the answer of an operation that made no request; lives an hour
//	cards:<id>              hash: where the request is shown in Slack, and who was told of it there
//	secret:<id>/<step>      a temporary password or a pass (sealed); an hour where it is prepared, timing.SecretLife where it is offered
//	offers                  sorted set: when an offered secret ends, by <id>/<step>
//	due                     sorted set: when a request must be looked at next, or reminded of
//	open                    sorted set: requests that are not over
//	mine:<person>           sorted set: a person's last hundred requests
//	holder:<target>         the request that runs for a target; no TTL, freed by that request's own end, or by who finds it gone
//	same:<fingerprint>      the open request that asks for the same
//	recent-target:<person>  lives 48 hours
//	sequence                raised by every commit; going back means lost writes
//	processes               sorted set: up to which sequence Redis is known to hold, by process; the thousand heard of last
//	lost                    hash: what each process knows to be lost (sealed); while it is there nothing is committed
//	resumed                 how often a person has said go on
//	events                  stream: request, op, body (sealed)
//	lead:<p>, cursor:<p>    the leased reader of a projection, and how far it is
//	inbox, aside            streams: envelope, body (sealed)
//	envelope:<id>           seen already; lives twenty minutes
//	pins:slack, pins:entra  hashes: Slack id to object id and back, pinned at first use
//	rate:<what>:<who>       counter; lives one window
//	self-check              never there: what is asked whether it could be written
//	tally:<what>:<who>      sorted set: operations that count for a limit, by instant; lives one window
package approvals
