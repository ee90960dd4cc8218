// Package audit keeps the record of what was done to whose account, by whom,
// why, and with whose approval.
//
// # Events
//
// An [Event] is one transition: a request was made, approved, denied, started,
// finished; somebody was refused; somebody looked at a person's methods. Its id
// is its place in the event log of Redis ("milliseconds-sequence"), which rises
// strictly for as long as Redis does not lose confirmed writes. It names people by
// Entra object id and UPN. It never holds a password, a pass, a phone number or
// the e-mail address of a method: steps arrive here with those masked. [Event.Line] is the event as one line of text
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
// forces each to disk before the next. The checkpoint is the commit: a record
// it does not cover was never acknowledged. So after a crash there is at most
// one record too many, whole or torn; [Open] cuts it off, says so in
// [Log.Repaired], and the reader of events, having had no answer, brings the
// event again. A lost hashes file is written anew from records that match the
// checkpoint. Nothing else is repaired: whatever does not match makes Open
// refuse with a [DamagedError] that names the first bad record.
//
// An event whose id is on record already is acknowledged and skipped, so that
// delivering an event twice is harmless. Events of a Redis that was restored, or
// failed over to a server whose clock is behind, have lower ids than the last
// record: they are recorded where they arrive, and [Report].Late names them.
//
// # What it proves
//
// [Verify] recomputes everything from the records. It finds every change of a
// record, every removal, insertion and swap, as long as the checkpoint is the
// one that Countersign wrote. A signed checkpoint ([OpenSigned], [Trust].Key)
// cannot be made without the key.
//
// # What it does not prove
//
// Somebody who may write to the directory can delete it, or put back an older
// state of all its files, signature included; without a key, or with a stolen
// one, they can write a history of their own. The directory alone cannot show
// that. A checkpoint that was kept elsewhere does: [Log.Checkpoint] is a few
// lines of text to be posted, printed or sent to another system, and with
// [Trust].Checkpoints Verify makes sure that the log still begins with exactly
// the records of each of them.
//
// The log holds what it was told. It cannot show that an event was never
// appended, and it does not know whether what an event says is true.
package audit
