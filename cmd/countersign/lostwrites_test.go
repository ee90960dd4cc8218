package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"countersign/approvals"
)

// administrate runs a redis tool on the configuration of this world.
func (w *fixture) administrate(args ...string) (said string, err error) {
	w.Helper()
	path := filepath.Join(w.TempDir(), "countersign.yaml")
	raw, err := yaml.Marshal(w.service.config)
	if err != nil {
		w.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		w.Fatal(err)
	}
	environ := map[string]string{"COUNTERSIGN_KEYS": w.key, "COUNTERSIGN_REDIS_PASSWORD": redisPassword}
	if w.service.config.Redis.hasSentinel() {
		environ["COUNTERSIGN_REDIS_SENTINEL_PASSWORD"] = redisPassword
	}
	var out bytes.Buffer
	args = append([]string{"redis", args[0], "-config", path}, args[1:]...)
	err = run(context.Background(), args, environment{Getenv: func(name string) string { return environ[name] }, Stdout: &out, Stderr: &out})
	return out.String(), err
}

// says checks what somebody was told.
func (w *fixture) says(text string, parts ...string) {
	w.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			w.Errorf("%q is not in:\n%s", part, text)
		}
	}
}

// Redis goes back to an older copy, under a bot at work or while it is stopped.
// People hear that Countersign has stopped, why, and what is lost; whoever
// presses or types hears it too; an administrator looks, resumes it, and it goes
// on.
func TestRedisLosesWrites(t *testing.T) {
	for _, running := range []bool{true, false} {
		t.Run(map[bool]string{true: "under a bot at work", false: "while no bot runs"}[running], func(t *testing.T) {
			watermark := filepath.Join(t.TempDir(), "watermark")
			w := startBot(t, shortTimings, func(c *config) {
				c.Redis.Watermark, c.Slack.SecurityChannel = watermark, "C0AUDIT"
			})
			if said, err := w.administrate("resume", "-yes"); err != nil || !strings.Contains(said, "nothing to resume") {
				t.Errorf("of a sound Redis it says %q (%v)", said, err)
			}
			hanna, ravi, olga := w.as("U0HANNA", "C0HELPDESK"), w.as("U0RAVI", "C0APPROVE"), w.as("U0OLGA", "C0AUDIT")
			hanna.types("/entra-revoke-sessions @mina her laptop is gone")
			kept := ravi.reads("Mina Haddad", "Approve")
			restore := w.redis.Save(t)
			hanna.types("/entra-revoke-sessions @dana her laptop is gone")
			lost := ravi.reads("Dana Whitfield", "Approve")
			id := requestID.FindString(lost.Text())
			if running {
				restore()
			} else {
				w.stop()
				restore()
				w.start()
			}
			olga.reads("Countersign has stopped", "One write", id+": requested", "countersign redis resume")
			ravi.reads("Countersign has stopped", "One write", id+": requested", "block the account in the Entra admin center")
			home := func(parts ...string) {
				t.Helper()
				w.waitFor("an App Home", func() bool {
					views, err := ravi.p.Views()
					return ravi.p.Home() == nil && err == nil && views.Home != nil && strings.HasPrefix(views.Home.Text(), "🛑") == (len(parts) > 0) && views.Home.Contains(parts...)
				})
			}
			home("Countersign has stopped", "nothing is decided")
			ravi.presses(kept, "approve")
			ravi.reads("Countersign has stopped, because its Redis has lost confirmed writes", "was not recorded")
			hanna.types("/entra-methods @dana")
			hanna.reads("Countersign has stopped, because its Redis has lost confirmed writes", "was not recorded")

			before := w.redis.Dump(t)
			said, err := w.administrate("resume")
			if err == nil || !strings.Contains(err.Error(), "-yes") {
				t.Errorf("without -yes: %v", err)
			}
			w.says(said, "This Redis has lost confirmed writes. One write", "  "+id+": requested, by account ", "  "+id+" is not there",
				" confirmed; ", " lost.", "countersign audit -dir ... -list -request R-...", "The audit channel and the audit log on disk may know events")
			if again, _ := w.administrate("resume"); again != said || w.redis.Dump(t)["{countersign}:lost"] != before["{countersign}:lost"] {
				t.Error("looking at it changed something")
			}
			said, err = w.administrate("resume", "-yes", "-by", "Olga on the console")
			if err != nil {
				t.Errorf("with -yes: %v", err)
			}
			w.says(said, id+": requested", "Countersign has resumed")
			for _, h := range []*slackUser{olga, ravi} {
				h.reads("Countersign has resumed.", "keep their old cards", "Ask again only for what it does not show as carried out")
			}
			home()
			ravi.presses(lost, "approve")
			ravi.reads("Countersign does not know "+id+" any more", "Redis lost it", "The audit channel has its record")
			olga.reads("Alarm", "Redis had lost confirmed writes", "Olga on the console resumed Countersign")
			w.waitFor("what was there to be decided", func() bool {
				ravi.p.Press(ravi.channel, kept.TS, "approve", "") // the button goes with the press that counts
				return w.countChanges("revokeSignInSessions") == 1
			})
			hanna.types("/entra-revoke-sessions @dana her laptop is gone")
			w.waitFor("what was lost to be asked again", func() bool { return len(ravi.messagesWith("Dana Whitfield", "Approve")) == 2 })
			if said, err := w.administrate("resume"); err != nil || !strings.Contains(said, "nothing to resume") {
				t.Errorf("afterwards it says %q (%v)", said, err)
			}
		})
	}
}

// The numbers of a record, in words.
func TestLostWritesInRedisNumbers(t *testing.T) {
	for want, lost := range map[string]approvals.LostWrites{
		"It had seen commits up to 126 confirmed; Redis has those up to 119: 120 to 126 are lost.":                                                                             {Known: 126, Kept: 119, Sequence: 119},
		"It had seen commits up to 126 confirmed; Redis has those up to 125: 126 is lost.":                                                                                     {Known: 126, Kept: 125, Sequence: 125},
		"It had seen commits up to 126 confirmed; Redis has those up to 90: 91 to 126 are lost.":                                                                               {Known: 126, Kept: 119, Sequence: 90},
		"It had seen commits up to 126 confirmed; what it knows of, Redis has up to 119: what it wrote after that is lost. Redis counted to 200 then, with what others wrote.": {Known: 126, Kept: 119, Sequence: 200},
		"It had seen commits up to 126 confirmed, and not all up to there is what Redis has.":                                                                                  {Known: 126, Kept: 126, Sequence: 130},
	} {
		if got := lossCount(lost); got != want {
			t.Errorf("%+v: %s, want %s", lost, got, want)
		}
	}
}

// A Redis that was away and comes back older than it was is no good news, and
// the approvers hear that nothing goes on.
func TestRedisIsRestoredFromABackup(t *testing.T) {
	t.Parallel()
	w := startBot(t, shortTimings, func(c *config) {
		c.Timing.Outage, c.Slack.SecurityChannel = 1500*time.Millisecond, "C0AUDIT"
	})
	hanna, ravi := w.as("U0HANNA", "C0HELPDESK"), w.as("U0RAVI", "C0APPROVE")
	restore := w.redis.Save(t)
	hanna.types("/entra-revoke-sessions @dana her laptop is gone")
	ravi.reads("Dana Whitfield", "Approve")
	w.redis.Kill(t)
	ravi.reads("has not been able to reach its Redis since", "is kept there", "block the account in the Entra admin center")
	restore()
	ravi.reads("Redis answers Countersign again", "it has lost something", "Countersign has stopped until an administrator resumes it")
	ravi.reads("🛑", "One write", "countersign redis resume")
	if n := len(ravi.messagesWith("Waiting requests continue")); n != 0 {
		t.Error("the channel says that all goes on, and nothing does")
	}
}

// What a bot without a watermark cannot tell, it says once; one whose watermark is
// of no use does not start.
func TestRedisWithoutAWatermark(t *testing.T) {
	w := startBot(t)
	const cannot = "cannot be detected"
	if n := strings.Count(w.log.String(), cannot); n != 1 {
		t.Errorf("it says %d times what it cannot tell", n)
	}
	w.stop()
	path := filepath.Join(t.TempDir(), "watermark")
	w.service.config.Redis.Watermark = path
	w.start()
	if n := strings.Count(w.log.String(), cannot); n != 1 {
		t.Error("with a watermark it says that it cannot tell")
	}
	w.stop()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("there is no watermark: %v", err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.service.run(t.Context()); err == nil || !strings.Contains(fmt.Sprint(err), path+" is unusable") {
		t.Errorf("with half a watermark it starts: %v", err)
	}
	w.service.config.Redis.Username = "nobody"
	if said, err := w.administrate("resume"); w.redis.Real() && (err == nil || !strings.Contains(err.Error(), "refuses the user name or the password")) {
		t.Errorf("somebody whom Redis does not know reads %q, %v", said, err)
	}
}
