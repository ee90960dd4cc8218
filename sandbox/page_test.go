package sandbox_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"countersign/sandbox"
	"countersign/sandbox/entra"
	"countersign/sandbox/slack"
)

// browser starts Chromium for this test. Warnings and errors in the page's console fail the test.
func browser(t *testing.T) context.Context {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome", "headless-shell"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("there is no Chromium on the PATH; CI requires it")
		}
		t.Skip("there is no Chromium on the PATH")
	}
	options := []chromedp.ExecAllocatorOption{chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.NoFirstRun, chromedp.WindowSize(1440, 900)}
	for _, flag := range []string{"headless", "no-sandbox", "disable-gpu", "disable-quic", "disable-background-networking", "disable-component-update", "disable-sync", "hide-scrollbars"} {
		options = append(options, chromedp.Flag(flag, true))
	}
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	var mu sync.Mutex
	var said []string
	if err := chromedp.Listen(ctx, func(event any) {
		mu.Lock()
		defer mu.Unlock()
		switch event := event.(type) {
		case *runtime.EventConsoleAPICalled:
			if event.Type == runtime.ConsoleAPICalledTypeError || event.Type == runtime.ConsoleAPICalledTypeWarning {
				for _, arg := range event.Args {
					said = append(said, string(arg.Value)+arg.Description)
				}
			}
		case *runtime.EventExceptionThrown:
			said = append(said, event.ExceptionDetails.Text)
			if e := event.ExceptionDetails.Exception; e != nil {
				said = append(said, e.Description)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		for _, problem := range said {
			t.Error("the page logged: ", problem)
		}
	})
	return ctx
}

type step = chromedp.Action[chromedp.Void]

// stepTimeout is the time limit of one call of do or read.
const stepTimeout = 60 * time.Second

// retryStep runs a step. It retries when the page has replaced the node that was
// just found, because the step has not acted on it yet.
func retryStep(ctx context.Context, s step) error {
	for {
		err := chromedp.Do(ctx, s)
		if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "Could not find node with given id") {
			return err
		}
	}
}

// do runs steps in the page; what describes them in errors.
func do(t *testing.T, ctx context.Context, what string, steps ...step) {
	t.Helper()
	limited, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	for _, s := range steps {
		err := retryStep(limited, s)
		if err == nil {
			continue
		}
		failed, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		if b, err := chromedp.Run(failed, chromedp.CaptureScreenshot()); err == nil {
			os.WriteFile(filepath.Join(t.ArtifactDir(), "failed.png"), b, 0o644)
		}
		t.Fatalf("%s: %v", what, err)
	}
}

// read evaluates a JavaScript expression in the page.
func read[T any](t *testing.T, ctx context.Context, expression string) T {
	t.Helper()
	limited, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	v, err := chromedp.Run(limited, chromedp.Evaluate[T](expression))
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return v
}

func value(testid string) string { return fmt.Sprintf("document.querySelector(%q).value", id(testid)) }

func id(testid string) string { return `[data-testid="` + testid + `"]` }

// open navigates to a state of the page and waits until it is rendered.
func open(s *testSandbox, fragment string) step {
	return chromedp.Steps(chromedp.Navigate("about:blank"), chromedp.Navigate(s.URL()+"/#"+fragment), visible(`body[data-ready]`))
}

func click(testid string) step { return press(id(testid)) }

func press(selector string) step { return chromedp.Click(chromedp.CSS(selector)) }

func visible(selector string) step { return chromedp.WaitVisible(chromedp.CSS(selector)) }

func invisible(selector string) step { return chromedp.WaitNotVisible(chromedp.CSS(selector)) }

func absent(selector string) step { return chromedp.WaitNotPresent(chromedp.CSS(selector)) }

// Not SendKeys: it reads the attributes of the node while the browser reports
// that they change, which the race detector sees.
func keys(selector, text string) step {
	return chromedp.Steps(chromedp.Focus(chromedp.CSS(selector)), chromedp.KeyEvent(text))
}

// clearField empties a field, like selecting all and deleting.
func clearField(testid string) step {
	return chromedp.Evaluate[chromedp.Void](fmt.Sprintf("{ const field = document.querySelector(%q); field.value = ''; field.dispatchEvent(new Event('input')) }", id(testid)))
}

// shows waits until a visible element contains this text.
func shows(selector, text string) step {
	return chromedp.Poll[chromedp.Void](fmt.Sprintf(`[...document.querySelectorAll(%q)].some((e) => e.checkVisibility() && e.innerText.includes(%q))`, selector, text), chromedp.WithPollingTimeout(0)) // do ends it
}

// waitAnimations waits until all finite animations have ended.
func waitAnimations() step {
	return chromedp.Poll[chromedp.Void](`document.getAnimations().every((a) => a.playState !== 'running' || a.effect.getComputedTiming().iterations === Infinity || a.effect.getComputedTiming().duration > 5000)`, chromedp.WithPollingTimeout(0))
}

// screenshot saves a screenshot of the page with the test's artifacts.
func screenshot(t *testing.T, name string) step {
	return chromedp.Steps(waitAnimations(), chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		b, err := chromedp.CaptureScreenshot()(ctx, target)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(t.ArtifactDir(), "page-"+name+".png"), b, 0o644)
	}))
}

// scheme sets the colour scheme, light or dark.
func scheme(scheme string) step {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
		return err
	})
}

func phone() step {
	return chromedp.EmulateViewport(390, 844, chromedp.EmulateMobile, chromedp.EmulateTouch, chromedp.EmulateScale(2))
}

// TestPageTour follows the tour as a first-time visitor does.
func TestPageTour(t *testing.T) {
	s := newSandbox(t)
	startBot(t, s)
	ctx := browser(t)
	do(t, ctx, "the first view", scheme("light"), chromedp.EmulateViewport(1440, 900), open(s, ""),
		shows(id("tour-step-1"), "Dana has lost her phone"), shows("#talk-head", "help-desk"), shows("#talk-head", "Hanna Okafor"),
		shows(id("tenant-"+sandbox.DanaID), "+1 4255550142"), shows(id("person-U0RAVI"), "approves"), screenshot(t, "first"))
	do(t, ctx, "step 1 fills in the command", click("tour-go-1"), screenshot(t, "composed"))
	if typed := read[string](t, ctx, value("composer")); typed != "/entra-require-reregister @dana lost phone" {
		t.Errorf("the message field contains %q", typed)
	}
	do(t, ctx, "the form", keys(id("composer"), "\r"), visible(id("modal")), shows(id("modal"), "How did you make sure it was Dana?"), screenshot(t, "modal"))
	if focus := read[string](t, ctx, `document.querySelector('#message').focus(), document.activeElement.dataset.testid`); focus != "action-verified" {
		t.Errorf("the focus is on %q: it left the form", focus)
	}
	if typed := read[string](t, ctx, value("action-justification")); typed != "lost phone" {
		t.Errorf("the justification field contains %q", typed)
	}
	do(t, ctx, "a required field", click("modal-submit"), shows(id("error-verified"), "required"), screenshot(t, "modal-error"))
	do(t, ctx, "the form is sent", keys(id("action-verified"), "I called"), click("modal-submit"), invisible(id("modal")),
		visible(id("tour-step-1")+".done"), visible(id("person-U0RAVI")+" .dot"))

	do(t, ctx, "the requester is not allowed to approve", click("channel-C0APPROVE"), visible(id("action-approve")), click("action-approve"), shows(id("confirm"), "dana.whitfield@fernhill.example"), screenshot(t, "confirm"),
		click("confirm-ok"), shows(".ephemeral", "somebody else has to approve"), shows(".ephemeral", "Only visible to you"))
	do(t, ctx, "step 2 switches to Ravi", click("tour-go-2"), shows("#talk-head", "Ravi Menon"), visible(id("action-approve")), screenshot(t, "card"))
	others, url := read[int](t, ctx, `document.querySelectorAll('.ephemeral').length`), read[string](t, ctx, `location.href`)
	if others != 0 || !strings.HasSuffix(url, "#as=U0RAVI&channel=C0APPROVE") {
		t.Errorf("Ravi sees %d ephemeral messages, at %s", others, url)
	}
	do(t, ctx, "Ravi approves", click("action-approve"), click("confirm-ok"), shows(".message", "Done. Requested by @Hanna Okafor"), shows(".message", "(edited)"),
		shows(id("tenant-feed"), "Microsoft Authenticator removed"), visible(id("tour-step-2")+".done"), screenshot(t, "approved"))
	do(t, ctx, "the tenant", absent(id("tenant-"+sandbox.DanaID)+" "+id("method-3179e48a-750b-4051-897c-87b9720928f7")), visible(id("method-A8nLw0cQyEi5sJ2pXeRk7g2")),
		shows(id("tenant-"+sandbox.DanaID), "deactivated"))
	do(t, ctx, "step 3 shows the audit log", click("tour-go-3"), shows(".message", "require-reregister of dana.whitfield@fernhill.example, requested by @Hanna Okafor, approved by @Ravi Menon"),
		visible(id("tour-step-3")+".done"), screenshot(t, "audit"), scheme("dark"), screenshot(t, "audit-dark"))
	do(t, ctx, "back", chromedp.NavigateBack(), shows("#talk-head", "identity-approvals"))
}

// TestPageDrawsBlocks checks every kind of block, field and text, and that data is never interpreted as HTML.
func TestPageDrawsBlocks(t *testing.T) {
	s := newSandbox(t)
	startBot(t, s)
	ctx := browser(t)
	hanna := s.Client().As(sandbox.Hanna)
	if a, err := hanna.Command(sandbox.HelpDesk, "/entra-gallery"); err != nil || !a.OK {
		t.Fatal(a, err)
	}
	message, err := hanna.WaitMessage(testContext(t), sandbox.HelpDesk, func(m sandbox.Message) bool { return m.Bot })
	if err != nil {
		t.Fatal(err)
	}
	in := id("message-"+message.TS) + " "
	const state = "as=U0HANNA&channel=C0HELPDESK&tour=off"
	do(t, ctx, "the gallery", scheme("light"), chromedp.EmulateViewport(1440, 1400), open(s, state), visible(strings.TrimSpace(in)), screenshot(t, "gallery"), scheme("dark"), screenshot(t, "gallery-dark"), scheme("light"))
	for _, tt := range []struct{ what, script, want string }{
		{"bold", `[...document.querySelectorAll(IN + '.prose strong')].map((e) => e.innerText).slice(0, 2).join('|')`, "bold|bold with @Ravi Menon inside"},
		{"other marks", `['em', 's', 'code'].map((tag) => document.querySelector(IN + tag).innerText).join('|')`, "italic|struck|code"},
		{"marks inside words", `String(document.querySelectorAll(IN + '.prose')[1].innerText.includes('snake_case_name 2*3*4 <b>not markup</b> &amp;'))`, "true"},
		{"quotes", `[...document.querySelectorAll(IN + 'blockquote')].map((e) => e.innerText).join('|')`, "a quote\nof two lines|what they said"},
		{"links", `[...document.querySelectorAll(IN + 'a')].map((e) => e.getAttribute('href')).join(' ')`, "https://fernhill.example/a?b=1&c=2 https://fernhill.example/plain https://fernhill.example/"},
		{"mentions", `[...document.querySelectorAll(IN + '.mention')].map((e) => e.innerText).join(' ')`, "@Ravi Menon #general @here @Gloria Adeyemi"},
		{"plain text", `String(document.querySelector(IN).innerText.includes('<img src=x onerror=alert(1)> *stays as it is*'))`, "true"},
		{"no HTML from data", `String(document.querySelectorAll(IN + 'img, ' + IN + 'script, ' + IN + 'b').length)`, "0"},
		{"lists", `[...document.querySelectorAll(IN + 'li')].map((e) => e.innerText).join('|')`, "first|second|deeper"},
		{"preformatted", `document.querySelector(IN + 'pre').innerText`, "GET /v1.0/users\n  200 OK"},
		{"emoji", `[...document.querySelectorAll(IN + '.emoji')].map((e) => e.getAttribute('aria-label')).join('|')`, "lock|hourglass flowing sand|warning|hourglass flowing sand|rotating light"},
		{"image", `document.querySelector(IN + '[role=img].image').innerText`, "a picture of a lock"},
	} {
		got := read[string](t, ctx, `(() => { const IN = `+fmt.Sprintf("%q", in)+`; return `+tt.script+` })()`)
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.what, got, tt.want)
		}
	}

	do(t, ctx, "a select acts at once", keys(in+id("action-pick"), "Second"), shows(".ephemeral", "pick 2"))
	do(t, ctx, "people are searched while typing", press(in+id("action-who")), keys(in+id("action-who"), "glo\r"), shows(".ephemeral", "who U0GLORIA"))
	do(t, ctx, "a menu", press(in+id("action-more")), visible(id("option-mute")), click("option-mute"), shows(".ephemeral", "more mute"))
	do(t, ctx, "a confirmation can be refused", press(in+id("action-danger")), shows(id("confirm"), "This cannot be undone."), screenshot(t, "confirm-danger"), click("confirm-cancel"),
		invisible(id("confirm")), press(in+id("action-danger")), click("confirm-ok"), shows(".ephemeral", "danger d"))

	do(t, ctx, "every field", keys(id("composer"), "/entra-gallery form\r"), visible(id("modal")), screenshot(t, "form"))
	const unlabelled = `[...document.querySelectorAll('button, input, select, textarea')].filter((e) => e.checkVisibility() && !e.labels?.length && !e.ariaLabel && !e.innerText?.trim()).map((e) => e.outerHTML).join('\n')`
	if found := read[string](t, ctx, unlabelled); found != "" {
		t.Errorf("controls without an accessible name:\n%s", found)
	}
	do(t, ctx, "filled in", keys(id("action-line"), "a line"), press(id("action-one")+" "+id("option-destroy")),
		press(id("action-some")+" "+id("option-target")), keys("#modal "+id("action-who"), "mina\r"),
		keys(id("action-which"), "ph"), visible(id("option-INC-7")), screenshot(t, "form-options"), keys(id("action-which"), "\r"), absent(".wrong"),
		click("action-many"), click("option-passkey"), click("modal-submit"), shows(id("error-when"), "This day is over."), screenshot(t, "form-error"))
	kept := read[string](t, ctx, `JSON.stringify([document.querySelector('[data-testid=action-line]').value, document.querySelector('#modal [data-testid=action-who]').value, document.querySelector('[data-testid=action-which]').value, document.querySelector('#modal .chip').innerText])`)
	if kept != `["a line","Mina Haddad","INC-7 Lost phone","Passkey×"]` {
		t.Errorf("after an error the form contains %s", kept)
	}
	do(t, ctx, "a modal closes", chromedp.KeyEvent("\x1b"), invisible(id("modal")))
	if err := s.Client().Wait(testContext(t), func() (bool, error) {
		views, err := hanna.Views()
		return len(views.Modals) == 0, err
	}); err != nil {
		t.Errorf("the modal is still open in Slack: %v", err)
	}
}

// TestPageComposer: completion of commands and people, and failures shown in the conversation.
func TestPageComposer(t *testing.T) {
	s := newSandbox(t)
	startBot(t, s)
	ctx := browser(t)
	do(t, ctx, "commands", scheme("light"), chromedp.EmulateViewport(1440, 900), open(s, "as=U0HANNA&channel=C0HELPDESK"), keys(id("composer"), "/entra-r"),
		shows(id("completion-/entra-revoke-sessions"), "Sign the person out everywhere"), screenshot(t, "completion"), keys(id("composer"), "\t"))
	do(t, ctx, "people", keys(id("composer"), "@al"), visible(id("completion-alexm")), screenshot(t, "completion-people"), click("completion-alexm"))
	if typed := read[string](t, ctx, value("composer")); typed != "/entra-require-reregister @alexm " {
		t.Errorf("completed to %q", typed)
	}
	do(t, ctx, "a whole name offers nothing, so Enter sends", clearField("composer"), keys(id("composer"), "/entra-methods @dana\r"),
		shows(".ephemeral", "/entra-methods for @Dana Whitfield: 14 methods"))
	do(t, ctx, "no such command", keys(id("composer"), "/nonsense\r"), shows(id("notice"), "/nonsense is not a command"))
	do(t, ctx, "the Home tab", click("channel-home"), shows(id("home"), "Your requests"), screenshot(t, "home"), press(id("home")+" "+id("action-details")), shows(id("modal"), "Request R-7Q2"))
	if !read[bool](t, ctx, `document.querySelector('#modal').innerText.includes('<script>alert(1)</script> & bold a link not a link') && document.querySelectorAll('#modal script').length === 0 && document.querySelectorAll('#modal a').length === 1`) {
		t.Error("the modal does not show the text unchanged")
	}
	do(t, ctx, "a link to a channel that Sam is not in", open(s, "as=U0SAM&channel=C0AUDIT&tour=off&account="+sandbox.SamID+"&compose=%2Fentra-methods+%40sam"),
		shows("#talk-head", "general"), shows("#talk-head", "Sam Ito"), shows(id("tenant-"+sandbox.SamID), "+1 2065550119"), absent("#tour:not([hidden])"))
	if typed := read[string](t, ctx, value("composer")); typed != "/entra-methods @sam" {
		t.Errorf("the link filled in %q", typed)
	}
}

// TestPageShowsTimeout: an app that does not acknowledge in time.
func TestPageShowsTimeout(t *testing.T) {
	s := newSandbox(t, func(o *sandbox.Options) {
		o.Tune = func(s *slack.Options, _ *entra.Options) { s.AckTimeout = 100 * time.Millisecond }
	})
	startBot(t, s)
	ctx := browser(t)
	do(t, ctx, "an app that does not answer", chromedp.EmulateViewport(1440, 900), open(s, "as=U0HANNA&channel=C0HELPDESK"),
		keys(id("composer"), "/entra-silent\r"), shows(id("notice"), "operation_timeout"), screenshot(t, "notice"))
}

// TestPageSimulatesFailures: the failure buttons work, and changes made directly in the tenant are shown.
func TestPageSimulatesFailures(t *testing.T) {
	s := newSandbox(t)
	startBot(t, s)
	ctx, c := browser(t), s.Client()
	mina := id("tenant-" + sandbox.MinaID)
	do(t, ctx, "an account", scheme("light"), chromedp.EmulateViewport(1440, 900), open(s, "as=U0HANNA&channel=C0HELPDESK&tour=off&account="+sandbox.MinaID), shows(mina, "+1 3605550164"),
		click("meddle-register-"+sandbox.MinaID), shows(mina, "Spare phone"), shows(id("tenant-feed"), "Microsoft Authenticator added"),
		click("meddle-enabled-"+sandbox.MinaID), shows(mina, "blocked"), screenshot(t, "meddled"))
	if u, err := c.User(sandbox.MinaID); err != nil || u.Enabled || len(u.Methods) != 3 {
		t.Errorf("%+v %v", u, err)
	}
	do(t, ctx, "failures", press(id("trouble")+" summary"), visible(id("trouble")+"[data-ready]"), click("trouble-throttle"), shows(id("faults"), "throttle"), click("trouble-drop"), shows(id("faults"), "drop reply DELETE"),
		click("trouble-ratelimit"), shows(id("faults"), "chat.postMessage"), click("grant-User.RevokeSessions.All"), chromedp.ScrollIntoView(chromedp.CSS(id("trouble"))), screenshot(t, "trouble"))
	if faults, err := c.EntraFaults(); err != nil || len(faults) != 2 {
		t.Errorf("%v %v", faults, err)
	}
	if err := c.Wait(testContext(t), func() (bool, error) {
		grant, err := c.Grant()
		return !strings.Contains(strings.Join(grant, " "), "User.RevokeSessions.All"), err
	}); err != nil {
		t.Error(err)
	}
	do(t, ctx, "faults cleared", click("trouble-clear"), absent(id("faults")+" li"))
}

// TestPageOnAPhone: an approver decides on a narrow screen, one part of the page at a time.
func TestPageOnAPhone(t *testing.T) {
	s := newSandbox(t)
	startBot(t, s)
	ctx := browser(t)
	hanna := s.Client().As(sandbox.Hanna)
	if a, err := hanna.Command(sandbox.HelpDesk, "/entra-require-reregister @dana lost phone"); err != nil || !a.OK {
		t.Fatal(a, err)
	}
	modal, err := hanna.WaitModal(testContext(t), func(sandbox.View) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	do(t, ctx, "the form on a phone", scheme("light"), phone(), open(s, "as=U0HANNA&channel=C0HELPDESK"), visible(id("modal")), screenshot(t, "phone-modal"))
	if a, err := hanna.Submit(modal.ID, map[string]map[string]any{"verified": {"verified": "video"}}); err != nil || !a.OK {
		t.Fatal(a, err)
	}
	do(t, ctx, "the card", open(s, "as=U0RAVI&channel=C0APPROVE&tour=off"), visible(id("action-approve")), screenshot(t, "phone-card"), scheme("dark"), screenshot(t, "phone-card-dark"), scheme("light"))
	if width := read[int](t, ctx, `document.documentElement.scrollWidth`); width > 390 {
		t.Errorf("the page is %d pixels wide on a phone of 390", width)
	}
	do(t, ctx, "approve", click("action-approve"), visible(id("confirm")), screenshot(t, "phone-confirm"), click("confirm-ok"), shows(".message", "Done."))
	do(t, ctx, "the other parts", press(`#tabs [data-go=tenant]`), shows(id("tenant-"+sandbox.DanaID), "Passkey"), screenshot(t, "phone-tenant"),
		press(`#tabs [data-go=rail]`), visible(id("person-U0OLGA")), screenshot(t, "phone-rail"), click("person-U0OLGA"), shows("#talk-head", "Olga Lindqvist"))
	do(t, ctx, "the introduction", open(s, ""), visible(id("tour-go-1")), screenshot(t, "phone-first"))
}
