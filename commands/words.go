package commands

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"countersign/entra"
)

// Plain makes text from elsewhere (names, device names, justifications,
// tickets, Graph's messages) fit to be shown to somebody who decides by it:
// one line, without control, bidirectional and invisible characters, and
// visibly cut after max characters. Zero means uncut.
//
// It does not escape anything: how the text is marked up is the business of
// whoever shows it.
func Plain(s string, max int) string {
	var b strings.Builder
	marks := 0
	pending := false
	for _, r := range s {
		switch {
		case unicode.IsSpace(r):
			pending = b.Len() > 0
			marks = 0
			continue
		case !visible(r):
			continue
		case unicode.Is(unicode.M, r):
			// Piled-up accents would cover the lines above and below.
			if marks++; marks > 3 {
				continue
			}
		default:
			marks = 0
		}
		if pending {
			b.WriteByte(' ')
			pending = false
		}
		b.WriteRune(r)
	}
	out := b.String()
	if max > 0 && utf8.RuneCountInString(out) > max {
		out = strings.TrimRight(string([]rune(out)[:max-1]), " ") + "…"
	}
	return out
}

// visible says that r may be shown. Of the format characters only the two
// joiners may: several scripts and most emoji need them.
func visible(r rune) bool {
	switch {
	case r == '\u200c' || r == '\u200d':
		return true
	case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Cs, unicode.Co):
		return false
	case r >= 0xfff0 && r <= 0xfffb: // fillers and annotations
		return false
	}
	return true
}

// maxName is how much of a device's or provider's name is shown.
const maxName = 60

// kindWords names the kind of a method. One that Countersign does not know
// has its OData type for a name.
func kindWords(m entra.Method) string {
	switch m.Kind {
	case entra.KindPhone:
		return "Phone"
	case entra.KindEmail:
		return "Reset e-mail"
	case entra.KindAuthenticator:
		return "Microsoft Authenticator"
	case entra.KindSoftwareOATH:
		return "Software token"
	case entra.KindHardwareOATH:
		return "Hardware token"
	case entra.KindPasskey:
		return "Passkey"
	case entra.KindWindowsHello:
		return "Windows Hello"
	case entra.KindPlatformCredential:
		return "Platform credential"
	case entra.KindPass:
		return "Temporary Access Pass"
	case entra.KindExternal:
		return "External method"
	case entra.KindQRCode:
		return "QR code"
	case entra.KindPassword:
		return "Password"
	}
	if name := Plain(strings.TrimPrefix(m.ODataType, "#microsoft.graph."), 80); name != "" {
		return name
	}
	return "A method without a type"
}

// whichWords tells one method of a kind from the others. It is empty where
// Graph tells nothing.
func whichWords(m entra.Method) string {
	var parts []string
	switch m.Kind {
	case entra.KindPhone:
		words := m.Masked()
		if t := phoneType(m.PhoneType); t != "" {
			words += " (" + t + ")"
		}
		return words
	case entra.KindEmail:
		return m.Masked()
	case entra.KindPass:
		switch {
		case !m.Usable:
			parts = append(parts, "not usable")
			if why := Plain(m.UsableReason, 40); why != "" {
				parts[0] += " (" + why + ")"
			}
		case m.ValidUntil.IsZero():
			parts = append(parts, "valid now")
		default:
			parts = append(parts, "valid until "+moment(m.ValidUntil))
		}
		if m.OneTime {
			parts = append(parts, "for one sign-in")
		}
		return strings.Join(parts, ", ")
	}
	name, model := Plain(m.Name, maxName), Plain(m.Model, maxName)
	if name != "" {
		parts = append(parts, "“"+name+"”")
	}
	if model != "" && !strings.EqualFold(model, name) {
		parts = append(parts, model)
	}
	if serial := []rune(Plain(m.Serial, 0)); len(serial) > 4 {
		parts = append(parts, "serial number …"+string(serial[len(serial)-4:]))
	}
	if m.Kind == entra.KindHardwareOATH && !m.Usable {
		parts = append(parts, "not active")
	}
	return strings.Join(parts, ", ")
}

// methodWords is one method in the middle of a sentence.
func methodWords(m entra.Method) string {
	kind, which := kindWords(m), whichWords(m)
	switch m.Kind {
	case entra.KindAuthenticator, entra.KindWindowsHello, entra.KindPlatformCredential:
		if which != "" {
			which = "on " + which
		}
	case entra.KindPass:
		which = "(" + which + ")"
	}
	switch m.Kind {
	case entra.KindAuthenticator, entra.KindWindowsHello, entra.KindPass, entra.KindQRCode, entra.KindUnknown:
	default:
		kind = strings.ToLower(kind[:1]) + kind[1:]
	}
	return strings.TrimSpace(kind + " " + which)
}

func phoneType(t string) string {
	if t == "alternateMobile" {
		return "alternate mobile"
	}
	return Plain(t, 20)
}

// moment is an instant for people anywhere.
func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// sentence puts words from elsewhere into the shape of a sentence.
func sentence(s string) string {
	s = strings.TrimRight(s, ". ")
	if s == "" {
		return ""
	}
	r, n := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(r)) + s[n:] + "."
}

// series joins parts as a sentence does: a, b and c.
func series(parts []string) string {
	if len(parts) < 2 {
		return strings.Join(parts, "")
	}
	last := len(parts) - 1
	return strings.Join(parts[:last], ", ") + " and " + parts[last]
}
