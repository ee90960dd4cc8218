package main

import (
	"context"
	"strings"
	"testing"

	"countersign/sandbox"
)

// What identifies a method in the clear never gets into a channel, the log
// or Redis, and Redis tells no names at all.
func TestNothingLeaks(t *testing.T) {
	w := begin(t)
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
				clear = append(clear, digits, digits[len(digits)-7:])
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
					if strings.Contains(everything, secret) {
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
	for key, value := range dump {
		for _, secret := range append([]string{"Dana", "Whitfield", "dana.", "Hanna", "hanna.", "ravi.menon", "fernhill.example", "lost phone", "INC-1042", "iPhone", "commands/T0FERNHILL/", "actions/T0FERNHILL/"}, clear...) {
			if strings.Contains(key+value, secret) {
				t.Errorf("%q stands in Redis at %s:\n%s", secret, key, value)
			}
		}
	}
	w.stop()
	log := w.log.String()
	for _, secret := range append([]string{sandbox.BotToken, sandbox.AppToken, sandbox.ClientSecret, "Bearer "}, clear...) {
		if strings.Contains(log, secret) {
			t.Errorf("%q stands in the log", secret)
		}
	}
	if err := context.Cause(t.Context()); err != nil {
		t.Fatal(err)
	}
}
