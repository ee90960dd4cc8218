package commands

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"countersign/approvals"
	"countersign/sandbox"
)

func TestReadAddress(t *testing.T) {
	long := strings.Repeat("a", 65) + "@b.example"
	tests := map[string]string{
		"dana@mailbox.example":                 "dana@mailbox.example",
		"“dana@mailbox.example”,":              "dana@mailbox.example",
		"`dana@mailbox.example`":               "dana@mailbox.example",
		"mailto:dana@mailbox.example":          "dana@mailbox.example",
		"Dana.W+sspr@MailBox.Example":          "Dana.W+sspr@mailbox.example",
		"sean.o'hara@mailbox.example":          "sean.o'hara@mailbox.example",
		"dana@xn--mnchen-3ya.example":          "dana@xn--mnchen-3ya.example",
		"Dana <dana@mailbox.example>":          "",
		"dana@a.example,eve@b.example":         "",
		"dana@a.example eve@b.example":         "",
		`"dana whitfield"@mailbox.example`:     "",
		"dana@mailbox":                         "",
		"dana@mailbox.example.":                "dana@mailbox.example", // the end of a sentence
		"dana@[10.0.0.1]":                      "",
		"dana@10.0.0.1":                        "",
		"dana@-mailbox.example":                "",
		"dana@mailbox..example":                "",
		".dana@mailbox.example":                "",
		"dana..w@mailbox.example":              "",
		"dаna@mailbox.example":                 "", // a Cyrillic letter
		"dana@mаilbox.example":                 "",
		"dana":                                 "",
		"@mailbox.example":                     "",
		"dana@":                                "",
		long:                                   "",
		"d@" + strings.Repeat("a.", 130) + "b": "",
	}
	for typed, want := range tests {
		got, sentence := readAddress(typed)
		if got != want || (sentence == "") != (want != "") {
			t.Errorf("%q is read as %q %q, want %q", typed, got, sentence, want)
		}
		if again, _ := readAddress(got); want != "" && again != got {
			t.Errorf("%q is read back as %q", got, again)
		}
	}
}

func TestParseAddEmail(t *testing.T) {
	tests := map[string]struct {
		text, address, why string
		bad                []Field
	}{
		"as the help says":     {"<@U1> dana@mailbox.example lost password", "dana@mailbox.example", "lost password", nil},
		"Slack's link":         {"<@U1> <mailto:dana@mailbox.example|dana@mailbox.example> x", "dana@mailbox.example", "x", nil},
		"the link, not label":  {"<@U1> <mailto:eve@mailbox.example|dana@mailbox.example> x", "eve@mailbox.example", "x", nil},
		"a linked domain":      {"<@U1> dana@<http://mailbox.example|mailbox.example>", "dana@mailbox.example", "", nil},
		"behind a key":         {"<@U1> ticket=7 dana@mailbox.example", "dana@mailbox.example", "", nil},
		"a mention":            {"<@U1> <@U2|dana> x", "", "x", []Field{FieldAddress}},
		"not quite":            {"<@U1> dana@mailbox x", "", "x", []Field{FieldAddress}},
		"an address in a why":  {"<@U1> a@mailbox.example asked by b@mailbox.example", "a@mailbox.example", "asked by b@mailbox.example", nil},
		"none":                 {"<@U1> lost password", "", "lost password", nil},
		"by name":              {"<@U1> x address=a@mailbox.example", "a@mailbox.example", "x", nil},
		"by name, not quite":   {`<@U1> address="Dana <a@mailbox.example>"`, "", "", []Field{FieldAddress}},
		"two of them directly": {"<@U1> a@mailbox.example b@mailbox.example", "a@mailbox.example", "b@mailbox.example", nil},
	}
	c := command(t, "add-email")
	for title, tt := range tests {
		in, problems := Parse(c, tt.text)
		var bad []Field
		for _, p := range problems {
			bad = append(bad, p.Field)
		}
		if in.Args[FieldAddress] != tt.address || in.Justification != tt.why || !slices.Equal(bad, tt.bad) {
			t.Errorf("%s: got %q, why %q, %v", title, in.Args, in.Justification, problems)
		}
		if again, problems := Parse(c, in.String()); len(problems) > 0 || !same(again, in) {
			t.Errorf("%s: written as %q and read back as %+v %v", title, in.String(), show(again), problems)
		}
	}
	// Without a person, the address must not be taken for one.
	in := Input{Command: c, Args: map[Field]string{FieldAddress: "a@mailbox.example"}}
	if again, _ := Parse(c, in.String()); !again.Target.Empty() || !maps.Equal(again.Args, in.Args) {
		t.Errorf("%q is read back as %+v", in.String(), show(again))
	}
}

func TestPlanToAddEmail(t *testing.T) {
	s := newStage(t)
	tests := map[string]struct {
		id, address, step string
		warns, calm       []string
		nothing, refused  string
	}{
		"add": {id: sandbox.MinaID, address: "mina@elsewhere.example", step: "Add reset e-mail m••••@e••••.example, for password reset",
			warns: []string{"The address serves self-service password reset, not sign-in and not MFA."}, calm: []string{"It is the mailbox", "The account is blocked"}},
		"replace": {id: sandbox.DanaID, address: "dana@elsewhere.example", step: "Replace reset e-mail d••••@m••••.example by d••••@e••••.example, for password reset"},
		"replace by a look-alike": {id: sandbox.DanaID, address: "dana.vvhitfield@mailbox.example",
			step: "Replace reset e-mail d••••@m••••.example by d••••@m••••.example, another address that looks the same when masked, for password reset"},
		"their own mailbox": {id: sandbox.MinaID, address: "mina.haddad@fernhill.example", step: "Add reset e-mail m••••@f••••.example, for password reset", warns: []string{"It is the mailbox of this very account"}},
		"blocked":           {id: sandbox.BoID, address: "bo@elsewhere.example", step: "Add reset e-mail b••••@e••••.example, for password reset", warns: []string{"The account is blocked"}},
		"already so":        {id: sandbox.DanaID, address: "Dana.Whitfield@mailbox.example", nothing: "There is nothing to do: d••••@m••••.example is already the reset e-mail of Dana Whitfield"},
		"protected":         {id: sandbox.EliasID, address: "elias@elsewhere.example", refused: "Elias Brandt (elias.brandt@fernhill.example) is a protected target."},
		"nonsense":          {id: sandbox.DanaID, address: "dana", refused: "“dana” is not one complete e-mail address."},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p, err := s.plan("add-email", tt.id, "address", tt.address)
			if tt.nothing != "" || tt.refused != "" {
				_, nothing := err.(*NothingToDo)
				_, refused := err.(*approvals.Refusal)
				if err == nil || !strings.HasPrefix(err.Error(), tt.nothing+tt.refused) || nothing != (tt.nothing != "") || refused != (tt.refused != "") {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := wordsOf(p.Steps); !slices.Equal(got, []string{tt.step}) {
				t.Errorf("steps %q, want %q", got, tt.step)
			}
			if p.Args != tt.address || p.Class != approvals.ClassTakeover || p.Assumes[factListed] == "" || !slices.Contains(p.Keeps, "password") {
				t.Errorf("%+v", p)
			}
			warnsOf(t, p, tt.warns, tt.calm)
			if tt.address != p.Target.UPN { // which is no secret
				masksArgs(t, p, s.user(tt.id), tt.address)
			}
		})
	}
}
