package entra

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	sandbox "countersign/sandbox/entra"
)

type secrets struct {
	Password      string `json:"password"`
	MustChange    bool   `json:"must_change"`
	MustChangeMFA bool   `json:"must_change_with_mfa"`
	Pass          string `json:"pass"`
}

func (x *tenant) secrets(t *testing.T, user string) (s secrets) {
	t.Helper()
	x.admin(t, "GET", "/sandbox/tenant/users/"+user+"/secrets", nil, &s)
	return s
}

func TestSetPassword(t *testing.T) {
	const password = "Kd4t-mx7r-hhp2-9wkc"
	x := newTenant(t, func(o *sandbox.Options) {
		o.Domains = []sandbox.Domain{{Name: "fernhill.example", Default: true}, {Name: "branch.example", Federated: true}}
		o.Users = append(o.Users, sandbox.User{ID: "6d1e0f43-9c1c-4b39-8ff5-c1f2a7c9a3d0", UserPrincipalName: "fay@branch.example", DisplayName: "Fay"})
	})
	before, err := x.User(t.Context(), dana)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.SetPassword(t.Context(), dana, password, false); err != nil {
		t.Fatal(err)
	}
	after, err := x.User(t.Context(), dana)
	if got := x.secrets(t, dana); err != nil || got.Password != password || !got.MustChange || got.MustChangeMFA || !after.LastPasswordChange.After(before.LastPasswordChange) {
		t.Errorf("%+v, %v", got, err)
	}
	if err := x.SetPassword(t.Context(), bo, password, true); err != nil {
		t.Fatal(err)
	}
	if got := x.secrets(t, bo); !got.MustChangeMFA {
		t.Errorf("%+v", got)
	}

	if err := x.SetPassword(t.Context(), quinn, password, false); !errors.Is(err, ErrSynced) {
		t.Errorf("a synced account: %v", err)
	}
	err = x.SetPassword(t.Context(), gloria, password, false)
	if !errors.Is(err, ErrForbidden) || !strings.Contains(err.Error(), "User-PasswordProfile.ReadWrite.All and assign the directory role User Administrator to its service principal") {
		t.Errorf("an administrator: %v", err)
	}
	if e := asError(t, x.SetPassword(t.Context(), dana, "weak", false)); e.Status != 400 || errors.Is(e, ErrSynced) {
		t.Errorf("a weak one: %v", e)
	}
	if x.SetPassword(t.Context(), dana, "", false) == nil || x.SetPassword(t.Context(), "..", password, false) == nil {
		t.Error("no password and no account")
	}
	x.fault(t, sandbox.Fault{Kind: "status", Status: 400, Code: "Request_BadRequest", Message: "Not " + password + ", please."})
	if err := x.SetPassword(t.Context(), dana, password, false); err == nil || strings.Contains(fmt.Sprintf("%v %+v %v", err, err, errors.Unwrap(err)), password) || !strings.Contains(err.Error(), "Not ••••, please.") {
		t.Errorf("a password in an error: %v", err)
	}

	for name, want := range map[string]bool{"fernhill.example": false, "BRANCH.example": true} {
		if d, err := x.Domain(t.Context(), name); err != nil || d.Federated != want {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
	for _, name := range []string{"other.example", "", ".."} {
		if d, err := x.Domain(t.Context(), name); err == nil {
			t.Errorf("%q: %+v", name, d)
		}
	}
}

func TestPerUserMFA(t *testing.T) {
	x := newTenant(t)
	for _, want := range []string{"disabled", "enforced"} {
		x.admin(t, "PATCH", "/sandbox/tenant/users/"+dana, map[string]any{"per_user_mfa": want}, nil)
		if got, err := x.PerUserMFA(t.Context(), dana); err != nil || got != want {
			t.Errorf("%q, %v", got, err)
		}
	}
	if _, err := x.PerUserMFA(t.Context(), "00000000-1111-4222-8333-444444444444"); !errors.Is(err, ErrNotFound) {
		t.Errorf("nobody: %v", err)
	}
}
