// Package bot is Countersign in Slack: it receives what people type and click,
// and shows them what they read. It decides nothing. Package approvals says who
// may do what; package commands says what an action is and does.
//
// # Input: routes
//
// socket.go receives the envelopes of Slack's Socket Mode and moves them into a
// bounded queue. When the queue is full there is no ack, and Slack tells the
// person that the app did not respond. routes.go gives each envelope its route:
//
//   - Answer: the ack says what is wrong with a form or a line of text. Nothing
//     is stored.
//   - Open: a view is opened at once, because the trigger expires after three
//     seconds, and filled afterwards. If that is too late, a message with an Open
//     button follows.
//   - Store: everything that changes or records something. The interaction is
//     written to the inbox first and acked then. worker.go executes it, perhaps
//     in another process, perhaps a second time. The envelope id is the operation
//     id of everything that follows, so a second execution changes nothing.
//
// # Output: projections
//
// No handler posts about a transition. Transitions are events, and
// projections.go turns them into cards, direct messages and lines in the audit
// channel. A card shows the current state of the request, so it may be rendered
// twice and is soon right again. Where one event notifies several people, the
// messages are recorded beside the cards, so that nobody is notified twice
// (breakglass.go). The answer to an interaction is the exception: it goes to its
// author alone, at once.
//
// # Text from elsewhere
//
// Names, justifications, tickets and Graph's messages go through commands.Plain
// into plain-text or rich-text elements, never into mrkdwn. blocks.go has the
// only constructors.
package bot
