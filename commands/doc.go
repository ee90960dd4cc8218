// Package commands is everything people can ask of Countersign: the table of
// commands, how the text behind one is read, what is planned for an account,
// and how each step of a plan is carried out. It stands between Slack, which
// it does not know, and entra, which knows no requests.
//
// # One table
//
// Table is where a command exists. Parsing, help, the Slack manifest, the
// README's table, the policy's defaults and the list of application
// permissions come from it. A command that changes something has a file of its
// own, which holds its row, its plan, and its steps: how each is carried out
// and how it is found out what became of one that was interrupted. To add one
// means to write that file, name its row in Table and its steps in operations.
//
// # What people type
//
//	/entra-require-reregister @user verified=callback ticket=INC-7 lost phone
//
// The target comes first: a mention, a UPN, an e-mail address or an object
// id. Behind it stand the arguments of the command, in any order, or by name
// as in number="+1 4255551234" (see Arg). ticket= and verified= may stand
// anywhere; a value with spaces goes in quotation marks. All other words are
// the justification, which can also be written as why="…". What is missing is
// asked for in a modal. What looks like a misspelt key is a Problem and never
// part of the justification, because a ticket that nobody sees is no ticket.
// Where a number ends is not guessed either: a digit too few or too many is
// somebody else's phone.
//
// Text from elsewhere goes through Plain before anybody reads it.
//
// # What is promised about plans
//
//   - A plan is data. Its words are complete: what is not in Words is not done.
//     They mask phone numbers and e-mail addresses, and so do Assumes. A number
//     or an address that is to be set is in clear in the Args of the plan and of
//     its step, which are stored sealed and shown to nobody.
//   - Nothing but containment is planned for a protected target. What protects
//     an account is decided in one place, and a look-up that fails is an error.
//   - A step that may have been carried out is never blindly made again: the
//     account is read first. Deleting, deactivating and revoking may be made
//     twice; what may not, must say so in its file.
//   - A temporary password or a pass is in the Secret of one result, and only
//     when it is certain that it is the account's. It is in no other field, no
//     error and no log.
//   - verified=compromise adds to a plan that the account is blocked and its
//     sessions revoked, before all else. Like containment it is not compared with
//     the account first: whoever has the account must not be able to stop it.
//   - What Graph cannot do is a hand-off: a step by people, which says what to
//     do and which nothing here carries out.
//   - A result says what is known and never more, names the permission that is
//     missing and who can grant it, and carries Graph's request-id. Every
//     sentence about a failure is in work.go.
package commands
