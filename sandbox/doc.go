// Package sandbox simulates a small company for Countersign: a Slack workspace and a Microsoft Entra tenant in one process, on
// one TCP address, with a web page. The demo and all end-to-end tests run against it.
//
// The bot uses the real protocols: Socket Mode over a WebSocket, Slack's Web API over HTTP, and the OAuth token endpoint and
// Microsoft Graph over TLS. Packages sandbox/slack and sandbox/entra simulate the two services; their documentation lists what
// they refuse. This package puts them on one address, fills them with people (fernhill.go), serves the page (page/) and has a
// client for everything that a person does (Client). It does not depend on the bot.
//
// It is only a sandbox: the people do not exist, the tokens give access to nothing else, and anybody who can reach the address
// can do everything.
//
// # The address
//
// The first byte of a connection decides: 0x16 begins TLS, anything else is plain HTTP. The certificate is signed by a certificate
// authority that is created for each run; the authority's certificate is in /sandbox/info, Sandbox.CAPEM and Sandbox.HTTPClient.
//
//	/                        the page
//	/sandbox/…               the JSON API below
//	/api/<method>            Slack's Web API; a client uses http://<address>/api/ as its base URL
//	/link/?ticket=…          Socket Mode
//	/commands/…, /actions/…  Slack's response URLs
//	/v1.0/…, /beta/…         Microsoft Graph, over TLS only
//	/{tenant}/…              the login endpoint, over TLS only
//
// # The JSON API
//
// The page uses this API, and scripts can use it too. Requests and responses are JSON. An invalid request gets a 4xx status and
// {"error":"code","message":"sentence"}; what Slack's client would show as a failure is a 200 with {"ok":false,"error","message"}.
// "as" is always the Slack id of the person who acts or reads. An unknown field in a request is refused.
//
//	GET  /sandbox/info       {"sandbox":true,"name","app","started","url","secure_url","ca_pem",
//	                          "slack":{"api_url","team_id","app_id","bot_user_id","bot_token","app_token"},
//	                          "entra":{"authority","graph_url","scope","tenant_id","domain","client_id","client_secret"},
//	                          "hints","welcome","pitch","tour","epilogue"}
//	GET  /sandbox/stream     server-sent events: data: {"n":N}, one immediately and one after each visible change
//
// What a person does in Slack:
//
//	GET  /sandbox/people                              [{"id","handle","name","title","email","guest","deactivated","bot","color"}]
//	GET  /sandbox/channels?as=U                       [{"id","name","kind":"public|private|dm","shared","members","last_ts","with"}], only
//	                                                  those the person is in; the direct message with the app once it exists
//	GET  /sandbox/messages?as=U&channel=C             [{"ts","user","bot","text","blocks","ephemeral","edited"}], oldest first; of the
//	                                                  ephemeral ones only this person's; with &oldest=ts those after that
//	GET  /sandbox/commands                            [{"command","description","usage_hint","should_escape"}]
//	POST /sandbox/command  {"as","channel","text"}    types a slash command; responds when the app has acknowledged it, or
//	                                                  after three seconds. {"ok":true,"response":…} or {"ok":false,"error":
//	                                                  "operation_timeout|dispatch_failed|unknown_command","message"}. Like the responses to
//	                                                  press and submit it has the "envelope_id" of the envelope sent to the app
//	POST /sandbox/press    {"as","channel","ts","action_id"}, or {"as","view_id","action_id"}
//	                                                  presses a button or chooses in a select. "value" or "block_id" distinguish
//	                                                  equal action ids, "selected" is what was chosen (a string or a list),
//	                                                  "values" are the current values of the view's inputs
//	GET  /sandbox/views?as=U                          {"modals":[view, the top one last],"home":view or null}
//	POST /sandbox/submit   {"as","view_id","values"}  values: {block_id:{action_id: string or list of strings}}. {"ok":true}, or
//	                                                  {"ok":false,"errors":{block_id:sentence}}, or a failure as above
//	POST /sandbox/close    {"as","view_id"}
//	POST /sandbox/options  {"as","view_id" or "channel","ts","action_id","block_id","value"}
//	                                                  the options of an external select for the text typed so far
//	POST /sandbox/home     {"as"}                     opens the App Home
//	POST /sandbox/reload   {"as"}                     reloads Slack: removes this person's ephemeral messages
//
// Faults and counters of Slack:
//
//	GET  /sandbox/slack/calls                         counts of calls and envelopes
//	GET, PUT, DELETE /sandbox/slack/faults            {"faults":[{"method":"chat.postMessage","times":1,
//	                                                  "kind":"ratelimit|error|hang|drop_reply|status","error","status","retry_after","apply"}]}
//	POST /sandbox/slack/disconnect {"reason":"warning|refresh_requested|link_disabled|cut"}
//	POST /sandbox/slack/redeliver  {"envelope_id"}    sends an envelope once more; the last one if the id is empty
//
// The state of the tenant, and changes that other administrators make. A user is named by object id or UPN:
//
//	GET  /sandbox/tenant/users                        [{"id","upn","name","mail","enabled","guest","synced","title","department","roles",
//	                                                  "eligible","groups","sessions_valid_from","last_password_change","default_method",
//	                                                  "methods":[{"type":"#microsoft.graph.…","id",…}]}]
//	POST /sandbox/tenant/users                        {"upn","name","methods":[{"type",…}]}: a new user
//	GET, PATCH /sandbox/tenant/users/{user}
//	POST   /sandbox/tenant/users/{user}/methods       {"type",…}
//	DELETE /sandbox/tenant/users/{user}/methods/{id}
//	GET, PUT /sandbox/grant                           {"roles":["User.Read.All",…]}: the app's application permissions; takes effect at once
//	GET  /sandbox/entra/calls                         the app's calls, and the permissions that they required
//	GET, PUT, DELETE /sandbox/entra/faults            {"faults":[{"method":"DELETE","path":"phoneMethods","times":1,"kind":"throttle|status|
//	                                                  hang|apply_hang|drop_request|drop_reply|apply_late","status","retry_after",
//	                                                  "delay_ms"}]}
//
// # The whole scenario with curl
//
// With the bot connected and B set to the address, for example B=http://127.0.0.1:8080/sandbox:
//
//	ready() { until curl -s "$1" | grep -q "$2"; do sleep 0.1; done; }
//	last()  { grep -o "\"$1\":\"[^\"]*\"" | tail -n 1 | cut -d '"' -f 4; }
//
//	# Hanna, at the help desk, submits a request. A form opens, because her command has no caller verification.
//	curl -s $B/command -d '{"as":"U0HANNA","channel":"C0HELPDESK","text":"/entra-require-reregister @dana lost phone"}'
//	ready "$B/views?as=U0HANNA" '"action_id":"verified"'
//	VIEW=$(curl -s "$B/views?as=U0HANNA" | grep -o '"id":"V[^"]*"' | last id)
//	curl -s $B/submit -d '{"as":"U0HANNA","view_id":"'$VIEW'","values":{"verified":{"verified":"callback"}}}'
//
//	# The card is in #identity-approvals. Ravi presses Approve.
//	ready "$B/messages?as=U0RAVI&channel=C0APPROVE" '"action_id":"approve"'
//	TS=$(curl -s "$B/messages?as=U0RAVI&channel=C0APPROVE" | last ts)
//	curl -s $B/press -d '{"as":"U0RAVI","channel":"C0APPROVE","ts":"'$TS'","action_id":"approve"}'
//
//	# The request is executed. #identity-audit has an audit event; in the tenant, Dana's phones are gone and her passkey is still there.
//	ready "$B/messages?as=U0RAVI&channel=C0AUDIT" '[Ss]ucceeded'
//	curl -s "$B/messages?as=U0RAVI&channel=C0AUDIT"
//	curl -s $B/tenant/users/dana.whitfield@fernhill.example
package sandbox
