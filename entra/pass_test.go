package entra

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	sandbox "countersign/sandbox/entra"
)

func TestPassPolicy(t *testing.T) {
	x := newTenant(t)
	want := PassPolicy{Enabled: true, Everyone: true, DefaultLifetime: time.Hour, MinimumLifetime: time.Hour, MaximumLifetime: 8 * time.Hour}
	got, err := x.PassPolicy(t.Context())
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	x.admin(t, "PATCH", "/sandbox/tenant", map[string]any{"pass_policy": map[string]any{"disabled": true, "once_only": true, "include_groups": []string{helpdesk},
		"minimum_lifetime": 10, "maximum_lifetime": 43200, "default_lifetime": 30}}, nil)
	want = PassPolicy{Included: []string{helpdesk}, DefaultLifetime: 30 * time.Minute, MinimumLifetime: 10 * time.Minute, MaximumLifetime: 30 * 24 * time.Hour, OneTimeOnly: true}
	got, err = x.PassPolicy(t.Context())
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestPassPolicyCovers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		policy PassPolicy
		want   bool
	}{
		{"nobody", PassPolicy{}, false},
		{"everybody", PassPolicy{Everyone: true}, true},
		{"a group", PassPolicy{Included: []string{"x", "g1"}}, true},
		{"another group", PassPolicy{Included: []string{"g9"}}, false},
		{"the person", PassPolicy{Included: []string{"u1"}}, true},
		{"everybody but a group", PassPolicy{Everyone: true, Excluded: []string{"g2"}}, false},
		{"a group but the person", PassPolicy{Included: []string{"g1"}, Excluded: []string{"u1"}}, false},
	} {
		if got := tt.policy.Covers("U1", []string{"G1", "g2"}); got != tt.want {
			t.Errorf("%s: %t", tt.name, got)
		}
	}
}

func TestIssuePass(t *testing.T) {
	x := newTenant(t)
	first, err := x.IssuePass(t.Context(), dana, 90*time.Minute, true)
	if err != nil {
		t.Fatal(err)
	}
	if value := x.secrets(t, dana).Pass; first.Value != value || value == "" || !first.OneTime || first.ID == "" ||
		first.ValidUntil.Sub(first.ValidFrom) != 90*time.Minute || time.Since(first.ValidFrom).Abs() > time.Minute {
		t.Errorf("%s: %+v", first, first.ValidUntil)
	}
	passes, err := x.Passes(t.Context(), dana)
	if err != nil || len(passes) != 1 || passes[0].ID != first.ID || passes[0].Kind != KindPass || !passes[0].OneTime || !passes[0].Usable || !passes[0].ValidUntil.Equal(first.ValidUntil) {
		t.Errorf("%+v, %v", passes, err)
	}
	second, err := x.IssuePass(t.Context(), dana, time.Hour, false)
	if err != nil || second.OneTime || second.ID == first.ID {
		t.Errorf("%s, %v", second, err)
	}
	if passes, err = x.Passes(t.Context(), dana); err != nil || len(passes) != 1 || passes[0].ID != second.ID {
		t.Errorf("%+v, %v", passes, err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("issued", "pass", second)
	if text := fmt.Sprint(second, &second) + fmt.Sprintf("%v %+v %#v %s", second, second, second, []Pass{second}) + log.String(); strings.Contains(text, second.Value) {
		t.Errorf("the pass's value is in %s", text)
	}

	if passes, err := x.Passes(t.Context(), olga); err != nil || len(passes) != 0 {
		t.Errorf("%+v, %v", passes, err)
	}
	if e := asError(t, errOf(x.IssuePass(t.Context(), dana, 5*time.Minute, true))); e.Status != 400 || e.Unsure {
		t.Errorf("too short: %v", e)
	}
	if e := asError(t, errOf(x.IssuePass(t.Context(), pat, time.Hour, true))); e.Status != 400 {
		t.Errorf("a guest: %v", e)
	}
	x.fault(t, sandbox.Fault{Method: "POST", Kind: "drop_reply"})
	if err := errOf(x.IssuePass(t.Context(), dana, time.Hour, true)); !errors.Is(err, ErrUnreachable) || !asError(t, err).Unsure {
		t.Errorf("a lost answer: %v", err)
	}
}

func errOf[T any](_ T, err error) error { return err }
