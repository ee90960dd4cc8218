// Package audit keeps the record of what was done to whose account, by whom,
// why, and with whose approval.
//
// # Events
//
// An [Event] is one transition: a request was made, approved, denied, started,
// finished; somebody was refused; somebody looked at a person's methods. Its id
// is its place in the event log of Redis ("milliseconds-sequence"), which rises
// strictly. It names people by Entra object id and UPN. It never holds a
// password, a pass, a phone number or the e-mail address of a method: steps
// arrive here with those masked. [Event.Line] is the event as one line of text
// for people, in which nobody's free text can pass for another part.
//
// # The log
//
// A [Log] is a directory with one writer:
//
//	events.jsonl  the records: one event a line, as JSON
//	hashes        the stored hashes of the Merkle tree over the records (RFC 6962),
//	              in the order of golang.org/x/mod/sumdb/tlog
//	checkpoint    how many records there are and the hash of the tree over them,
//	              in the form of https://c2sp.org/tlog-checkpoint
//	lock          held by the process that has the log open
//
// What is hashed is the line as it stands, without its newline. Nothing ever
// needs to be brought into a canonical form.
//
// [Log.Append] writes the record, then the hashes, then the checkpoint, and
// forces each to disk before the next. The checkpoint is the commit: a record it
// does not cover was never acknowledged. So after a crash there is at most one
// record too many, whole or torn; [Open] cuts it off, says so in
// [Log.Repaired], and the reader of events, having had no answer, brings the event
// again. An event at or below the last recorded id is acknowledged and skipped,
// so delivering an event twice is harmless. Anything else that does not match is
// not repaired: Open refuses with a [DamagedError] that names the first bad
// record.
//
// # What it proves
//
// [Verify] recomputes everything from the records. It finds every change of a
// record, every removal, insertion and swap, whoever made it, as long as the
// checkpoint is the one Countersign wrote. With a signed checkpoint ([OpenSigned],
// [Trust].Key) that cannot be forged without the key.
//
// # What it does not prove
//
// Somebody who may write to the directory can put back an older state of all
// files at once, or delete them; without a signing key, or with it, they can write a new
// history of their own. The directory alone cannot show that. A checkpoint kept
// somewhere else does: [Log.Checkpoint] is three lines of text to be posted,
// printed or sent to another system, and [Trust].Checkpoints makes Verify check that the log
// still begins with exactly the records of each of them.
//
// The log holds what it was told. It cannot show that an event was never
// appended, and it does not know whether what an event says is true.
package audit
