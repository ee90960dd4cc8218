package main

import (
	"strings"
	"testing"
)

// What cannot be read is said in the words of the configuration, never in those
// of Go.
func TestYAMLErrors(t *testing.T) {
	for yaml, want := range map[string]string{
		"people: {match_emails: true}":                    "line 1: people.match_emails is no setting; did you mean match_email?",
		"policy:\n  classes:\n    read: {requests: [a]}":  "line 3: policy.classes.read.requests is no setting; did you mean request?",
		"redis: {usernames: x, sentinel: {masters: m}}":   "line 1: redis.usernames is no setting; did you mean username?\nline 1: redis.sentinel.masters is no setting; did you mean master?",
		"timing: {coffee: 3m}":                            "line 1: timing.coffee is no setting",
		"colour: red":                                     "line 1: colour is no setting",
		"timing: {warn: 30}":                              `line 1: "30" is not what belongs there, which is a duration; a duration needs a unit, such as 30m`,
		"policy: {reads_a_minute: many}":                  `line 1: "many" is not what belongs there, which is a whole number`,
		"people: {match_email: perhaps}":                  `line 1: "perhaps" is not what belongs there, which is true or false`,
		"policy: {protected_groups: x}":                   `line 1: "x" is not what belongs there, which is a list, such as [a, b]`,
		"slack: C0APPROVE":                                `line 1: "C0APPROVE" is not what belongs there, which is a group of settings, each as key: value`,
		"policy: {groups: {desk: {people: {a: b}}}}":      `line 1: that is not what belongs there, which is a list, such as [a, b]`,
		"policy: {classes: {contain: {lifetime: 1s}}}":    "policy.classes.contain.lifetime: 1s is too short",
		"policy: {commands: {methods: {lifetime: 59s}}}":  "policy.commands.methods.lifetime: 59s is too short",
		"timing: {secret_life: 16m}\n":                    "timing.secret_life: 15m at most",
		"timing: {secret_life: 16m}\nentra: {graph: 'x'}": "entra.tenant",
	} {
		_, err := readConfig(strings.NewReader(yaml))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "type ") {
			t.Errorf("%s: %v, want %s", yaml, err, want)
		}
		if err != nil && strings.Contains(yaml, "graph") && strings.Contains(err.Error(), "secret_life") {
			t.Errorf("the sandbox may keep secrets longer: %v", err)
		}
	}
}
