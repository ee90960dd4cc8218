package approvals

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
)

func ring(t *testing.T, text string) *Ring {
	t.Helper()
	r, err := ParseRing(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func key(b byte) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, 32)) }

func TestSealedDataOpensOnlyWhereItBelongs(t *testing.T) {
	mine := ring(t, "k1:"+key(1))
	const number = "+1 425 555 0100"
	sealed := mine.Seal("request", "R-1", []byte(number))
	// The whole number, because some ciphertext has any three letters in it.
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimPrefix(sealed, "k1."))
	if err != nil || strings.Contains(sealed, number) || bytes.Contains(raw, []byte(number)) {
		t.Fatalf("%q shows what it seals, or is no base64: %v", sealed, err)
	}
	if plain, err := mine.Open("request", "R-1", sealed); err != nil || string(plain) != number {
		t.Fatalf("it opens to %q, %v", plain, err)
	}
	flip := func(at int) string {
		changed := bytes.Clone(raw)
		changed[(at+len(raw))%len(raw)] ^= 1
		return "k1." + base64.RawStdEncoding.EncodeToString(changed)
	}
	for name, tt := range map[string]struct {
		ring             *Ring
		kind, id, sealed string
	}{
		"another request's":        {mine, "request", "R-2", sealed},
		"another kind":             {mine, "event", "R-1", sealed},
		"kind and id run over":     {mine, "reques", "t\x00R-1", sealed},
		"another key, same name":   {ring(t, "k1:"+key(2)), "request", "R-1", sealed},
		"a key nobody has":         {ring(t, "k2:"+key(1)), "request", "R-1", sealed},
		"under another key's name": {ring(t, "k1:"+key(2)+",k2:"+key(1)), "request", "R-1", sealed},
		"its nonce changed":        {mine, "request", "R-1", flip(0)},
		"its text changed":         {mine, "request", "R-1", flip(14)},
		"its tag changed":          {mine, "request", "R-1", flip(-1)},
		"cut short":                {mine, "request", "R-1", sealed[:len(sealed)-4]},
		"cut to almost nothing":    {mine, "request", "R-1", "k1.AAAA"},
		"no ciphertext":            {mine, "request", "R-1", "k1."},
		"no key":                   {mine, "request", "R-1", strings.TrimPrefix(sealed, "k1.")},
		"nothing":                  {mine, "request", "R-1", ""},
		"no base64":                {mine, "request", "R-1", "k1.*"},
		"words":                    {mine, "request", "R-1", "Nothing.that"},
		"an empty key's name":      {mine, "request", "R-1", strings.TrimPrefix(sealed, "k1")},
		"no key's name":            {mine, "request", "R-1", strings.Replace(sealed, "k1", "k 1", 1)},
	} {
		plain, err := tt.ring.Open(tt.kind, tt.id, tt.sealed)
		if !errors.Is(err, ErrSeal) || plain != nil {
			t.Errorf("%s: %q, %v", name, plain, err)
		}
		// Only this may open for somebody else.
		if absent := name == "a key nobody has"; errors.Is(err, ErrNoKey) != absent || absent && !strings.Contains(err.Error(), `"k1"`) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if once, twice := mine.Seal("request", "R-1", []byte("a")), mine.Seal("request", "R-1", []byte("a")); once == twice {
		t.Error("sealing twice gives the same ciphertext")
	}
}

func TestKeysAreRotated(t *testing.T) {
	before := ring(t, "old:"+key(1))
	during := ring(t, "new:"+key(2)+",old:"+key(1))
	after := ring(t, "new:"+key(2))

	old := before.Seal("request", "R-1", []byte("made before"))
	if plain, err := during.Open("request", "R-1", old); err != nil || string(plain) != "made before" {
		t.Errorf("the old key does not open any more: %q, %v", plain, err)
	}
	if _, err := after.Open("request", "R-1", old); !errors.Is(err, ErrSeal) {
		t.Errorf("without the old key: %v", err)
	}
	fresh := during.Seal("request", "R-2", []byte("made during"))
	if plain, err := after.Open("request", "R-2", fresh); err != nil || string(plain) != "made during" {
		t.Errorf("the first key does not seal: %q, %v", plain, err)
	}
}

func TestParseRing(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "it is not set. A key is written name:base64",
		key(1):                           "name:base64",
		":" + key(1):                     "name:base64",
		"k.1:" + key(1):                  "name:base64",
		"k1:" + key(1) + ",":             "name:base64",
		"k1:c2hvcnQ=":                    "not 32 bytes",
		"k1:" + key(1) + "!":             "not 32 bytes",
		"k1:" + key(1) + ",k1:" + key(2): "there twice",
		" k1:" + key(1) + " , k2:" + key(2) + "\n": "",
	} {
		_, err := ParseRing(text)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), key(1)) {
			t.Errorf("the error shows a key: %v", err)
		}
	}
}

func TestAFingerprintRevealsNothing(t *testing.T) {
	a, b := ring(t, "k1:"+key(1)), ring(t, "k1:"+key(2))
	if again := ring(t, "k1:"+key(1)+",k2:"+key(2)); a.print("add-phone", dana.ID, "+14255550100") != again.print("add-phone", dana.ID, "+14255550100") {
		t.Error("two processes of one first key make different prints")
	}
	for name, other := range map[string]string{
		"another number": a.print("add-phone", dana.ID, "+14255550101"),
		"another key":    b.print("add-phone", dana.ID, "+14255550100"),
		"other borders":  a.print("add-phone", dana.ID+"+1", "4255550100"),
	} {
		if other == a.print("add-phone", dana.ID, "+14255550100") {
			t.Errorf("%s has the same print", name)
		}
	}
}
