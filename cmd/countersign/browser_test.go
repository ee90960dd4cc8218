package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"countersign/sandbox"
)

// chromium starts a headless browser of its own for one test. Without a
// Chromium the test is skipped, but never in CI.
func chromium(t *testing.T) context.Context {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("CI needs Chromium: apt-get install chromium")
		}
		t.Skip("no Chromium on the PATH: apt-get install chromium")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("hide-scrollbars", false))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// step is one thing a visitor does or waits for.
type step = chromedp.Action[chromedp.Void]

// at is an element by its data-testid.
func at(id string) chromedp.CSS { return chromedp.CSS(fmt.Sprintf(`[data-testid="%s"]`, id)) }

// said is a message that has all of these.
func said(parts ...string) chromedp.Search {
	path := "//article"
	for _, part := range parts {
		path += fmt.Sprintf("[contains(., %q)]", part)
	}
	return chromedp.Search(path)
}

// on is a button of the message that has this text.
func on(text, id string) chromedp.Search {
	return chromedp.Search(fmt.Sprintf("//article[contains(., %q)]//*[@data-testid=%q]", text, id))
}

// asked is a dialog that has this text.
func asked(text string) chromedp.Search {
	return chromedp.Search(fmt.Sprintf("//dialog[contains(., %q)]", text))
}

// stepOnce takes a step. Where the page has drawn anew what was just found, it is
// found again: nothing was done to it yet.
func stepOnce(ctx context.Context, s step) error {
	for {
		err := chromedp.Do(ctx, s)
		if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "Could not find node with given id") {
			return err
		}
	}
}

// A visitor goes through the whole story on the page, and nothing but the
// page.
func TestStoryInTheBrowser(t *testing.T) {
	ctx := chromium(t)
	w := startBot(t)
	do := func(what string, steps ...step) {
		t.Helper()
		for _, s := range steps {
			err := stepOnce(ctx, s)
			if err == nil {
				continue
			}
			late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second) // ctx may have ended
			defer cancel()
			if shot, err := chromedp.Run(late, chromedp.CaptureScreenshot()); err == nil {
				os.WriteFile(filepath.Join(t.ArtifactDir(), "failed.png"), shot, 0o644)
			}
			t.Fatalf("%s: %v", what, err)
		}
	}
	shoot := func(name string) {
		t.Helper()
		shot, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(t.ArtifactDir(), name), shot, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	do("opening the page",
		chromedp.EmulateViewport(1440, 900),
		chromedp.Navigate(w.box.URL()+"/"),
		chromedp.Click(at("person-"+sandbox.Hanna)),
		chromedp.Click(at("channel-"+sandbox.HelpDesk)),
	)
	do("typing the command",
		chromedp.Click(at("composer")),
		chromedp.KeyEvent("/entra-require-reregister @dana lost phone"), // into what was clicked
		chromedp.Click(at("send")),
	)
	do("the form",
		chromedp.WaitVisible(at("modal-submit")),
		chromedp.WaitVisible(asked("How did you make sure who was asking?")),
		chromedp.WaitVisible(asked(danaUPN)), // filled in behind, for which the page draws the form anew
	)
	shoot("form.png")
	do("filling in the form",
		chromedp.SetValue(at("action-verified"), "callback"),
		chromedp.Click(at("modal-submit")),
		chromedp.WaitVisible(said("is requested as")),
	)
	do("becoming the approver",
		chromedp.Click(at("person-"+sandbox.Ravi)),
		chromedp.Click(at("channel-"+sandbox.Approvals)),
		chromedp.WaitVisible(on("lost phone", "action-approve")),
	)
	shoot("card.png")
	do("approving",
		chromedp.Click(on("lost phone", "action-approve")),
		chromedp.WaitVisible(at("confirm-ok")),
		chromedp.WaitVisible(asked(danaUPN)),
	)
	shoot("confirm.png")
	do("confirming",
		chromedp.Click(at("confirm-ok")),
		chromedp.WaitVisible(said("lost phone", "Require re-registration: done")),
	)
	dana := w.account(danaUPN, func(u sandbox.User) bool { return len(u.OfType("#microsoft.graph.phoneAuthenticationMethod")) == 0 })
	passkeys := dana.OfType("#microsoft.graph.fido2AuthenticationMethod")
	if len(passkeys) == 0 {
		t.Fatal("Dana's passkey is gone")
	}
	do("the tenant beside it", chromedp.WaitReady(at("method-"+passkeys[0].ID)))
	shoot("done.png")
	do("the audit channel",
		chromedp.Click(at("channel-"+sandbox.Audit)),
		chromedp.WaitVisible(said("ucceeded", danaUPN, "ravi.menon@fernhill.example")),
	)
	shoot("audit.png")
}
