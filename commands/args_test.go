package commands

import "testing"

// What the boxes of a modal collect becomes canonical values, which are
// written so that they are read back.
func FuzzArgs(f *testing.F) {
	for _, c := range Table() {
		f.Add(c.Name, "U0DANA", "mobile", "+1 (425) 555-0142 x12", "2 days ago")
		f.Add(c.Name, "", "a@b.example", "“iPad” Air", "once more +1 425")
		f.Add(c.Name, "U1", "passkey \"x", "+49 30 901820", "office")
		f.Add(c.Name, "U1", "60m", "once", "everything 4 2")
		f.Add(c.Name, "", "\\", "••42", "•• (x)")
	}
	f.Fuzz(func(t *testing.T, name, mentioned, first, second, why string) {
		c, ok := Lookup(name)
		if !ok || !c.Target {
			return
		}
		in := Input{Command: c, Justification: Plain(why, MaxJustification)}
		if mention.MatchString("@" + mentioned) {
			in.Target = Ref{Slack: mentioned, Typed: "<@" + mentioned + ">"}
		}
		for _, typed := range []string{first, second} {
			for _, a := range c.Args {
				value, sentence := a.Read(typed)
				if sentence != "" || value == "" {
					continue
				}
				if again, sentence := a.Read(value); again != value || sentence != "" || value != Plain(value, 0) {
					t.Errorf("%q is %q and then %q %q", typed, value, again, sentence)
				}
				in.setArg(a.Field, value)
			}
		}
		again, problems := Parse(c, in.String())
		if len(problems) > 0 || !same(again, in) {
			t.Errorf("%+v\nis written as %q\nand read back as %+v %v", show(in), in.String(), show(again), problems)
		}
	})
}
