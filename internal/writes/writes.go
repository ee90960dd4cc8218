// Package writes is the list of everything that Countersign changes outside of
// itself: each commit in Redis, each change through Microsoft Graph, each thing
// shown in Slack, each write to the audit log on disk. An entry is one place in
// the code.
//
// For every entry there is a pair of tests: the write fails and was not
// applied; the write fails and was applied all the same. Behind either the
// process ends, another one goes on, and everything that must hold is looked
// at. The list drives the pairs ([Pairs]), so an entry without one fails:
//
//	approvals, audit   in the package's own writes_test.go
//	bot, entra         in cmd/countersign/writes_test.go, through the whole program
//
// That the list is whole is tested here, against the sources, both ways. And
// whatever the tests of these packages and of the whole program send out on the
// way is compared with it once more, by where it comes from ([Saboteur]).
//
// A new write is entered here, with a story in the writes_test.go that plays
// it. Only tests import this package.
package writes

import "strings"

// System is where a write goes.
type System string

// The systems.
const (
	Redis System = "Redis"
	Graph System = "Microsoft Graph"
	Slack System = "Slack"
	Disk  System = "the disk"
)

// Write is one external write.
type Write struct {
	System System
	// Where is the way of the write through the sources: the function that
	// makes it, the helper through which it does, where there is one (see
	// [helpers]), and the call that leaves the program. Where one function has
	// the same call for different ends, these are numbered: show#1, show#2.
	Where string
	// What it is, in words.
	What string
	// API is what is called: a method of Slack's Web API, or a method and a path
	// of Graph. It is empty where there is nothing to choose from.
	API string
	// Calls is how often the function has this call, 1 when zero. They are
	// alike, and one of them is attacked for all.
	Calls int
}

// Package is the folder of the function that makes the write.
func (w Write) Package() string {
	folder, _, _ := strings.Cut(w.Where, ".")
	return folder
}

// In is the part of the list that one package makes.
func In(pkg string) []Write {
	var list []Write
	for _, w := range All() {
		if w.Package() == pkg {
			list = append(list, w)
		}
	}
	return list
}

// All is the list.
func All() []Write {
	var list []Write
	in := func(system System, writes ...Write) {
		for _, w := range writes {
			w.System = system
			list = append(list, w)
		}
	}
	in(Redis,
		// What people do to a request.
		Write{Where: "approvals.Store.create run Run", What: "a request is made"},
		Write{Where: "approvals.Service.Approve decide Run", What: "an approval"},
		Write{Where: "approvals.Service.Deny decide Run", What: "a denial"},
		Write{Where: "approvals.Service.Cancel decide Run", What: "the requester cancels"},
		Write{Where: "approvals.Service.Stop decide Run", What: "somebody halts a running request"},
		Write{Where: "approvals.Service.BreakGlass decide Run", What: "somebody uses break-glass"},
		Write{Where: "approvals.Service.Review decide Run", What: "somebody reviews that"},
		Write{Where: "approvals.Service.Attest decide Run", What: "somebody reports it as done"},
		Write{Where: "approvals.Service.Confirm decide Run", What: "somebody else confirms that"},
		Write{Where: "approvals.Service.Retract decide Run", What: "or says that it is not so"},

		// What is only recorded.
		Write{Where: "approvals.Service.AuthorizeRead note Run", What: "the record that somebody looked"},
		Write{Where: "approvals.Service.recordRefusal note Run", What: "the record of a refusal"},
		Write{Where: "approvals.Service.RecordAlarm note Run", What: "the record of an alarm"},
		Write{Where: "approvals.Service.Reveal note Run", What: "the record that a secret was opened"},
		Write{Where: "approvals.Store.expireSecret note Run", What: "the record that a secret was not opened in time"},

		// What time does to it.
		Write{Where: "approvals.Store.expire run Run", What: "a request expires"},
		Write{Where: "approvals.Store.remindExpiry run Run", What: "people are told that a request is about to expire"},
		Write{Where: "approvals.Store.remind run Run", What: "people are reminded of what they have to do by hand, or to review"},
		Write{Where: "approvals.Store.postpone ZAddArgs", What: "a request that cannot be read makes way for the others"},
		Write{Where: "approvals.Store.release Run", What: "what a request keeps that Redis has dropped is free again"},
		Write{Where: "approvals.Runner.claim ZRem", What: "a request that Redis has dropped leaves the lists", Calls: 2},

		// What a worker does to it.
		Write{Where: "approvals.Store.claim run Run", What: "a worker claims a request and its target"},
		Write{Where: "approvals.execution.execute advance#1 Run", What: "Graph asks to wait before the first step"},
		Write{Where: "approvals.execution.execute advance#2 Run", What: "a step is handed to people"},
		Write{Where: "approvals.execution.execute advance#3 Run", What: "a step begins"},
		Write{Where: "approvals.execution.runStep journal#1 Run", What: "Graph asks to wait in a step"},
		Write{Where: "approvals.execution.runStep journal#2 Run", What: "a step ended"},
		Write{Where: "approvals.execution.release advance Run", What: "a worker that stops gives a request back"},
		Write{Where: "approvals.execution.finish journal Run", What: "a request ends"},

		// The secrets beside it.
		Write{Where: "approvals.execution.prepare storeSecret Run", What: "a secret is kept before its step begins"},
		Write{Where: "approvals.execution.keepSecret storeSecret Run", What: "a secret is offered"},
		Write{Where: "approvals.execution.keepSecret dropSecret Run", What: "the secret of a step that failed goes"},
		Write{Where: "approvals.execution.dropUnusedSecrets dropSecret Run", What: "a secret that was never used goes"},
		Write{Where: "approvals.Store.expireSecret dropSecret Run", What: "a secret goes that was not opened in time"},
		Write{Where: "approvals.Service.Shown dropSecret Run", What: "a secret goes that its requester has seen"},

		// The inbox.
		Write{Where: "approvals.Inbox.Put Run", What: "what somebody did is kept before it is acked"},
		Write{Where: "approvals.Inbox.Consume XGroupCreateMkStream", What: "the inbox is made"},
		Write{Where: "approvals.Inbox.next XAutoClaim", What: "entries of a dead reader are taken over"},
		Write{Where: "approvals.Inbox.next XReadGroup", What: "new entries are taken"},
		Write{Where: "approvals.Inbox.keepAlive Do", What: "an entry in hand is held"},
		Write{Where: "approvals.Inbox.skipForMissingKey Do", What: "an entry is left to a process that has its key"},
		Write{Where: "approvals.Inbox.acknowledge Exec", What: "an entry that is done goes"},
		Write{Where: "approvals.Inbox.moveToDeadLetters Exec", What: "an entry that fails again and again is set aside"},

		// The projections.
		Write{Where: "approvals.Store.followOnce lead#1 Run", What: "a reader takes or renews its lease"},
		Write{Where: "approvals.Store.followOnce lead#2 Run", What: "and once more behind its wait for events"},
		Write{Where: "approvals.Store.followOnce lead#3 Run", What: "it moves the cursor"},
		Write{Where: "approvals.Store.handleBatch lead Run", What: "it renews its lease at work"},
		Write{Where: "approvals.Store.Follow Run", What: "it gives its lease back"},
		Write{Where: "approvals.Store.Trim XTrimMinID", What: "old events go"},

		// What Redis is known to hold, and to have lost.
		Write{Where: "approvals.Store.checkRollback Run", What: "Redis takes note of how far a process has seen it come"},
		Write{Where: "approvals.Store.writeLost Run", What: "all processes are told what Redis has lost"},
		Write{Where: "approvals.Store.Resume Run", What: "somebody says that it goes on all the same"},

		// What is known of people and messages.
		Write{Where: "approvals.Store.Pin Run", What: "a Slack account is bound to an Entra account"},
		Write{Where: "approvals.Store.Allow Exec", What: "a use is counted"},
		Write{Where: "approvals.Store.SetCard Exec", What: "where a request is shown"},
	)
	const user, methods, beta = "/v1.0/users/{id}", "/v1.0/users/{id}/authentication/", "/beta/users/{id}/authentication/"
	in(Graph,
		Write{Where: "entra.Client.AddPhone setPhone SendNoContent", What: "a phone number is added", API: "POST " + methods + "phoneMethods"},
		Write{Where: "entra.Client.ReplacePhone setPhone SendNoContent", What: "a phone number is replaced", API: "PATCH " + methods + "phoneMethods/{mid}"},
		Write{Where: "entra.Client.AddEmail setEmail SendNoContent", What: "the reset e-mail address is added", API: "POST " + methods + "emailMethods"},
		Write{Where: "entra.Client.ReplaceEmail setEmail SendNoContent", What: "the reset e-mail address is replaced", API: "PATCH " + methods + "emailMethods/{mid}"},
		Write{Where: "entra.Client.DeleteMethod Delete", What: "a phone number is deleted", API: "DELETE " + methods + "phoneMethods/{mid}"},
		Write{Where: "entra.Client.DeleteMethod Delete", What: "the reset e-mail address is deleted", API: "DELETE " + methods + "emailMethods/{mid}"},
		Write{Where: "entra.Client.DeleteMethod Delete", What: "an Authenticator app is deleted", API: "DELETE " + methods + "microsoftAuthenticatorMethods/{mid}"},
		Write{Where: "entra.Client.DeleteMethod Delete", What: "a software token is deleted", API: "DELETE " + methods + "softwareOathMethods/{mid}"},
		Write{Where: "entra.Client.DeleteMethod Delete", What: "a passkey is deleted", API: "DELETE " + methods + "fido2Methods/{mid}"},
		Write{Where: "entra.Client.DeleteMethod Delete", What: "a Windows Hello credential is deleted", API: "DELETE " + methods + "windowsHelloForBusinessMethods/{mid}"},
		Write{Where: "entra.Client.DeleteMethod Delete", What: "a platform credential is deleted", API: "DELETE " + methods + "platformCredentialMethods/{mid}"},
		Write{Where: "entra.Client.DeleteMethod Delete", What: "a Temporary Access Pass is deleted", API: "DELETE " + methods + "temporaryAccessPassMethods/{mid}"},
		Write{Where: "entra.Client.DeleteMethod sendRawChange SendNoContent", What: "an external method is deleted", API: "DELETE " + methods + "externalAuthenticationMethods/{mid}"},
		Write{Where: "entra.Client.DeleteMethod sendRawChange SendNoContent", What: "a hardware token is taken away", API: "DELETE " + beta + "hardwareOathMethods/{mid}"},
		Write{Where: "entra.Client.DeleteMethod sendRawChange SendNoContent", What: "the QR code is deleted", API: "DELETE " + beta + "qrCodePinMethod"},
		Write{Where: "entra.Client.DeactivateHardwareToken sendRawChange SendNoContent", What: "a hardware token is deactivated", API: "POST " + beta + "hardwareOathMethods/{mid}/deactivate"},
		Write{Where: "entra.Client.RevokeSessions SendNoContent", What: "sessions are revoked", API: "POST " + user + "/revokeSignInSessions"},
		Write{Where: "entra.Client.SetEnabled SendNoContent", What: "sign-in is blocked or unblocked", API: "PATCH " + user},
		Write{Where: "entra.Client.SetPassword SendNoContent", What: "a temporary password is set", API: "PATCH " + user},
		Write{Where: "entra.Client.IssuePass Post", What: "a Temporary Access Pass is issued", API: "POST " + methods + "temporaryAccessPassMethods"},
	)
	in(Slack,
		// The projections.
		Write{Where: "bot.Bot.showCard PostMessageContext", What: "the card of a request", API: "chat.postMessage"},
		Write{Where: "bot.Bot.showCard show#2 UpdateMessageContext", What: "the card as the request now is", API: "chat.update"},
		Write{Where: "bot.Bot.showCard postDirect OpenConversationContext", What: "the way to the requester, for the receipt", API: "conversations.open"},
		Write{Where: "bot.Bot.showCard postDirect PostMessageContext", What: "the receipt", API: "chat.postMessage"},
		Write{Where: "bot.Bot.showCard show#1 UpdateMessageContext", What: "the receipt as the request now is", API: "chat.update"},
		Write{Where: "bot.Bot.notifyRequester postDirect OpenConversationContext", What: "the way to the requester, for news", API: "conversations.open"},
		Write{Where: "bot.Bot.notifyRequester postDirect PostMessageContext", What: "the news of a request", API: "chat.postMessage"},
		Write{Where: "bot.Bot.notifyRequester warn PostMessageContext", What: "the line for the security people", API: "chat.postMessage"},
		Write{Where: "bot.Bot.reviewed warn PostMessageContext", What: "the same of a review that finds fault", API: "chat.postMessage"},
		Write{Where: "bot.Bot.remind note PostMessageContext", What: "the reminder of what is to be done by hand", API: "chat.postMessage"},
		Write{Where: "bot.Bot.remindReview note PostMessageContext", What: "the reminder of a review", API: "chat.postMessage"},
		Write{Where: "bot.Bot.remindExpiry postToApprovals PostMessageContext", What: "the reminder that a request expires, for the approvers", API: "chat.postMessage"},
		Write{Where: "bot.Bot.remindExpiry postDirect OpenConversationContext", What: "the way to the requester, for that reminder", API: "conversations.open"},
		Write{Where: "bot.Bot.remindExpiry postDirect PostMessageContext", What: "that reminder for the requester", API: "chat.postMessage"},
		Write{Where: "bot.Bot.alert postToApprovals#1 PostMessageContext", What: "the alarm that break-glass was used", API: "chat.postMessage"},
		Write{Where: "bot.Bot.alert warn PostMessageContext", What: "the line about it for the security people", API: "chat.postMessage"},
		Write{Where: "bot.Bot.alert postDirect OpenConversationContext", What: "the way to somebody who could have approved", API: "conversations.open"},
		Write{Where: "bot.Bot.alert postDirect PostMessageContext", What: "the news for somebody who could have approved", API: "chat.postMessage"},
		Write{Where: "bot.Bot.alert UpdateMessageContext", What: "the alarm with how many were told", API: "chat.update"},
		Write{Where: "bot.Bot.alert postToApprovals#2 PostMessageContext", What: "the alarm to all, where not everybody could be told", API: "chat.postMessage"},
		Write{Where: "bot.Bot.notifyBreakGlassUser postDirect OpenConversationContext", What: "the way to whoever used break-glass", API: "conversations.open"},
		Write{Where: "bot.Bot.notifyBreakGlassUser postDirect PostMessageContext", What: "the news for whoever used break-glass", API: "chat.postMessage"},
		Write{Where: "bot.Bot.reviewed postDirect OpenConversationContext", What: "the way to those who hear of a review", API: "conversations.open"},
		Write{Where: "bot.Bot.reviewed postDirect PostMessageContext", What: "what a review says", API: "chat.postMessage"},
		Write{Where: "bot.Bot.keepRecord PostMessageContext", What: "the line of the record", API: "chat.postMessage"},

		// Answers.
		Write{Where: "bot.Bot.ack AckCtx", What: "the ack of an envelope"},
		Write{Where: "bot.Bot.replyPrivatelyOnce PostWebhookCustomHTTPContext", What: "an answer by the response URL", API: "response_url"},
		Write{Where: "bot.Bot.replyPrivatelyOnce PostEphemeralContext", What: "an answer that only its reader sees", API: "chat.postEphemeral"},
		Write{Where: "bot.Bot.replyPrivatelyOnce postDirect OpenConversationContext", What: "the way to somebody, for an answer", API: "conversations.open"},
		Write{Where: "bot.Bot.replyPrivatelyOnce postDirect PostMessageContext", What: "an answer as a direct message", API: "chat.postMessage"},
		Write{Where: "bot.Bot.redrawCard UpdateMessageContext", What: "the card that was pressed in vain, as the request now is", API: "chat.update"},

		// Views.
		Write{Where: "bot.Bot.openForm open OpenViewContext", What: "the form of a command", API: "views.open"},
		Write{Where: "bot.Bot.openForm fill UpdateViewContext", What: "the form with its target, or why there is none", API: "views.update", Calls: 3},
		Write{Where: "bot.Bot.openDetails open OpenViewContext", What: "the view for the details", API: "views.open"},
		Write{Where: "bot.Bot.openDetails fill UpdateViewContext", What: "the details", API: "views.update"},
		Write{Where: "bot.Bot.openDeny open OpenViewContext", What: "the form of a denial", API: "views.open"},
		Write{Where: "bot.Bot.openSecret open OpenViewContext", What: "the view for a secret", API: "views.open"},
		Write{Where: "bot.Bot.openSecret fill#1 UpdateViewContext", What: "why there is no secret to see", API: "views.update"},
		Write{Where: "bot.Bot.openSecret fill#2 UpdateViewContext", What: "the secret", API: "views.update"},
		Write{Where: "bot.Bot.openBreakGlass open OpenViewContext", What: "the form that asks why the glass is broken", API: "views.open"},
		Write{Where: "bot.Bot.openReview open OpenViewContext", What: "the form of a review", API: "views.open"},
		Write{Where: "bot.Bot.fillForm fill UpdateViewContext", What: "one of these forms with its target, or why this person may not", API: "views.update"},
		Write{Where: "bot.Bot.publishHome PublishViewContext", What: "an App Home", API: "views.publish"},

		// What needs no Redis.
		Write{Where: "bot.Bot.announceOutage announce PostMessageContext", What: "the message that Redis does not answer", API: "chat.postMessage"},
		Write{Where: "bot.Bot.announceRecovery announce PostMessageContext", What: "the message that it does again", API: "chat.postMessage"},
		Write{Where: "bot.Bot.notifyLostWrites alarm PostMessageContext", What: "the message that Redis has lost confirmed writes", API: "chat.postMessage"},
		Write{Where: "bot.Bot.notifyResumed alarm PostMessageContext", What: "the message that it goes on all the same", API: "chat.postMessage"},
		Write{Where: "bot.Bot.announceRecovery UpdateMessageContext", What: "the first one, which is over", API: "chat.update"},
	)
	in(Disk,
		Write{Where: "approvals.Watermark.write replace", What: "the watermark: what Redis has confirmed"},
		Write{Where: "audit.Log.write writeAt#1", What: "the record of an event"},
		Write{Where: "audit.Log.write writeAt#2", What: "its hashes"},
		Write{Where: "audit.Log.write replace", What: "the checkpoint over it"},
		Write{Where: "audit.Log.settle writeAt#1", What: "the files of a new log"},
		Write{Where: "audit.Log.settle truncate#1", What: "an unfinished record is cut off"},
		Write{Where: "audit.Log.settle truncate#2", What: "the hashes of an unfinished record are cut off"},
		Write{Where: "audit.Log.settle writeAt#2", What: "hashes that were lost are written anew"},
		Write{Where: "audit.Log.settle replace", What: "the checkpoint of a log that is opened"},
	)
	return list
}

// carriers carry what others write, whose call stands further up.
func carriers() []string {
	return []string{"entra.guardTransport.RoundTrip", "bot.deadlineTransport.RoundTrip"}
}

// beside are ways out of the program that are no writes of the bot, and why.
func beside() map[string]string {
	return map[string]string{
		"approvals.readAt Run":                      "a script that only reads",
		"approvals.Store.elapsed Run":               "a script that only reads",
		"approvals.Store.compareWatermark Run":      "a script that only reads",
		"approvals.checkWritable SetArgs":           "writes over what is never there: it asks whether Redis would",
		"approvals.missingACLRules Exec":            "a transaction that Redis drops: it asks what is allowed",
		"approvals.Watermark.lock Lock":             "a file that only carries a lock",
		"approvals.Store.OpenWatermark Replace":     "with which Watermark.write writes",
		"audit.open Lock":                           "the same",
		"audit.open MkdirAll":                       "the folder of a log: made where it is not there",
		"audit.osDisk.change OpenFile":              "what is written through audit.disk: the callers are on the list",
		"audit.osDisk.replace Replace":              "the same",
		"internal/files.Lock OpenFile":              "made for its callers",
		"internal/files.Lock NewFile":               "made for its callers",
		"internal/files.Replace OpenFile":           "made for its callers, which are on the list",
		"internal/files.Replace Rename":             "the same",
		"entra.guardTransport.RoundTrip RoundTrip":  "carries what others write",
		"bot.deadlineTransport.RoundTrip RoundTrip": "the same",
		"cmd/countersign.serveSandbox MkdirTemp":    "the sandbox is for trying out",
		"cmd/countersign.serveSandbox MkdirAll":     "the same",
		"cmd/countersign.serveSandbox WriteFile":    "the same",
	}
}

// helpers are functions that hand the error of a write on to their callers, of
// which each makes something else of it. So each of these callers is an entry
// of the list, and the helper is none. What keeps the error to itself, as
// whisper and ack do in package bot, is one write however many call it.
func helpers() []string {
	return []string{
		"approvals.Store.run", "approvals.Store.note", "approvals.Store.decide", "approvals.Service.decide",
		"approvals.Store.advance", "approvals.execution.advance", "approvals.execution.journal",
		"approvals.Store.storeSecret", "approvals.Store.dropSecret", "approvals.Store.lead",
		"bot.Bot.postDirect", "bot.Bot.note", "bot.Bot.warn", "bot.Bot.postToApprovals", "bot.Bot.announce", "bot.Bot.alarm", "bot.Bot.show", "bot.Bot.open", "bot.Bot.fill",
		"entra.Client.sendChange", "entra.Client.sendRawChange", "entra.Client.setPhone", "entra.Client.setEmail",
	}
}
