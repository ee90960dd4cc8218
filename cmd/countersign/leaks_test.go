package main

import (
	"context"
	"regexp"
	"strings"
	"testing"

	"countersign/sandbox"
)

// What identifies a method in the clear never gets into a channel, the log
// or Redis, and Redis tells no names at all.
func TestNothingLeaks(t *testing.T) {
	w := startBot(t)
	dana, err := w.client.User(danaUPN)
	if err != nil {
		t.Fatal(err)
	}
	var clear []string // phone numbers and addresses as Graph has them
	for _, m := range dana.Methods {
		for _, field := range []string{"phoneNumber", "emailAddress"} {
			value, _ := m.Properties[field].(string)
			if value == "" {
				continue
			}
			clear = append(clear, value)
			if field == "phoneNumber" {
				digits := strings.Map(func(r rune) rune {
					if r < '0' || r > '9' {
						return -1
					}
					return r
				}, value)
				clear = append(clear, digits, digits[len(digits)-10:], digits[len(digits)-7:])
			}
		}
	}
	if len(clear) < 6 {
		t.Fatalf("Dana has too few phones and addresses for this test: %q", clear)
	}

	hanna := w.as(sandbox.Hanna, sandbox.HelpDesk)
	hanna.types("/entra-methods @dana")
	hanna.reads("Dana Whitfield", "Passkey")
	tellStory(w)

	for _, who := range []string{sandbox.Hanna, sandbox.Ravi, sandbox.Gloria, sandbox.Olga} {
		p := w.client.As(who)
		channels, err := p.Channels()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range channels {
			messages, err := p.Messages(c.ID)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range messages {
				everything := m.Fallback + m.Text()
				for _, raw := range m.Blocks {
					everything += string(raw)
				}
				for _, secret := range clear {
					if tells(everything, secret) {
						t.Errorf("%q stands in #%s as %s reads it:\n%s", secret, c.Name, who, m.Text())
					}
				}
			}
		}
	}
	dump := w.redis.Dump(t)
	if len(dump) < 5 {
		t.Errorf("the dump of Redis has only %d keys", len(dump))
	}
	// What is sealed is random text, in which a word as short as Dana stands
	// once in 17 million places.
	name, _, _ := strings.Cut(w.key, ":")
	sealed, n := regexp.MustCompile(regexp.QuoteMeta(name)+`\.[0-9A-Za-z+/]{38,}`), 0
	for key, value := range dump {
		n += len(sealed.FindAllString(value, -1))
		value = sealed.ReplaceAllString(value, "(sealed)")
		for _, secret := range append([]string{"Dana", "Whitfield", "dana.", "Hanna", "hanna.", "ravi.menon", "fernhill.example", "lost phone", "INC-1042", "iPhone", "commands/T0FERNHILL/", "actions/T0FERNHILL/"}, clear...) {
			if tells(key+value, secret) {
				t.Errorf("%q stands in Redis at %s:\n%s", secret, key, value)
			}
		}
	}
	if n < 5 {
		t.Errorf("only %d values in Redis are sealed", n)
	}
	w.stop()
	log := w.log.String()
	for _, secret := range append([]string{sandbox.BotToken, sandbox.AppToken, sandbox.ClientSecret, "Bearer "}, clear...) {
		if tells(log, secret) {
			t.Errorf("%q stands in the log", secret)
		}
	}
	if err := context.Cause(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// tells says that a text has a secret in it. The few digits of a local number
// must stand alone: Redis is full of instants in milliseconds, and one in ten
// million has the same.
func tells(text, secret string) bool {
	if len(secret) == 7 && strings.Trim(secret, "0123456789") == "" {
		return regexp.MustCompile(`(?:^|[^0-9])` + secret + `(?:[^0-9]|$)`).MatchString(text)
	}
	return strings.Contains(text, secret)
}
