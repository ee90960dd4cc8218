// Package commands has the table of slash commands. It reads the text behind a
// command, plans the change of an account, and executes each step of a plan. It
// stands between Slack, which it does not know, and entra, which knows no
// requests.
//
// # One table
//
// Table lists every command. Parsing, help, the Slack manifest, the README's
// table, the policy's defaults and the list of application permissions come from
// it. A command that changes something has a file of its own with its row, its
// plan and its steps: how each is executed, and how the outcome of an interrupted
// one is determined. To add a command, write that file, and add its row to Table
// and its steps to operations.
//
// # The text of a command
//
//	/entra-require-reregister @user verified=callback ticket=INC-7 lost phone
//
// The target comes first: a mention, a UPN, an e-mail address or an object id.
// The arguments of the command follow in any order, or by name as in
// number="+1 4255551234" (see Arg). ticket= and verified= may stand anywhere; a
// value with spaces is quoted. All other words are the justification, which can
// also be written as why="…". A modal asks for what is missing. A word that looks
// like a misspelt key is a Problem and never part of the justification, because a
// ticket that nobody sees is no ticket. The end of a number is not guessed
// either: with a digit too few or too many it is somebody else's phone.
//
// Text from elsewhere goes through Plain before anybody reads it.
//
// # Guarantees about plans
//
//   - A plan is data, and its words are complete: what is not in Words is not
//     done. They mask phone numbers and e-mail addresses, and so do Assumes. A
//     number or an address to be set is in clear in the Args of the plan and of
//     its step, which are stored sealed and shown to nobody.
//   - For a protected target only containment is planned. One function decides
//     what protects an account, and a failed look-up is an error.
//   - A step that may have been executed is never repeated blindly: the account is
//     read first. Deleting, deactivating and revoking may be repeated; the file of
//     any other step says that it may not.
//   - A temporary password or a pass is in the Secret of one result, and only when
//     it is certain that it is the account's. It is in no other field, no error
//     and no log.
//   - verified=compromise makes a plan block the account and revoke its sessions
//     first. Like containment, such a plan is not compared with the account:
//     whoever has the account must not be able to stop it.
//   - What Graph cannot do is a hand-off: a step that people do, which says what to
//     do and which nothing here executes.
//   - A result says only what is known. It names the missing permission and who can
//     grant it, and has Graph's request-id. Every sentence about a failure is in
//     work.go.
package commands
