// Package bot is Countersign in Slack: what people type and press goes in,
// what they read comes out. It decides nothing. Who may do what is asked of
// approvals, what an action is and does of commands.
//
// # The way in: three lanes
//
// An envelope of Slack's Socket Mode arrives in socket.go, which only moves
// it into a bounded queue of ours; when that is full there is no ack, and
// Slack tells the person. lanes.go then decides:
//
//   - Ask: what is wrong with a form or a line of text is answered in the ack.
//     Nothing is stored.
//   - Open: a view is opened at once, because the trigger lives three seconds,
//     and filled afterwards. Too late means a message with an Open button.
//   - Do: everything that changes or records something. The deed goes into
//     the inbox first and is acked then; worker.go carries it out, perhaps in
//     another process, perhaps a second time. The envelope's id is the
//     operation id of all that follows, so a second time changes nothing.
//
// # The way out: projections
//
// No handler posts about a transition. Transitions are events, and
// projections.go turns them into cards, direct messages and the audit
// channel. A card shows the request as it now is, so it may be made twice and
// is never wrong for long. What somebody is told once is remembered beside the
// cards, where more than one person is told by one event (glass.go). Answers to the one who typed or pressed are the
// exception: they go to that person alone, at once.
//
// # Text from elsewhere
//
// Names, justifications, tickets and whatever Graph says go through
// commands.Plain into plain-text or rich-text elements, never into mrkdwn;
// blocks.go has the only constructors.
package bot
