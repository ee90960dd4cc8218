package approvals

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Ring seals what goes into Redis with AES-256-GCM and random nonces. The
// first key seals; every key opens. A new key is put last on every process
// before it is put first on any, so that nobody seals what others cannot open.
type Ring struct {
	names []string
	keys  map[string]cipher.AEAD
	mac   []byte // of the first key, for names of keys that must not be guessed
}

// ErrSeal means that a ciphertext does not open: it was changed, stood in
// another place, or was made with another key than it says, or [ErrNoKey].
var ErrSeal = errors.New("approvals: sealed data does not open: it was changed or moved")

// ErrNoKey is the [ErrSeal] of a ciphertext that names a key which is not in
// the ring. Another process may have it.
var ErrNoKey = errors.New("approvals: sealed with a key that is not in COUNTERSIGN_KEYS")

// missingKeyError is an ErrNoKey.
type missingKeyError struct{ name string }

func (e missingKeyError) Error() string        { return fmt.Sprintf("%v: %q", ErrNoKey, e.name) }
func (e missingKeyError) Is(target error) bool { return target == ErrNoKey || target == ErrSeal }

// missingKeyName is the name of the key that was missing.
func missingKeyName(err error) (name string, ok bool) {
	e, ok := errors.AsType[missingKeyError](err)
	return e.name, ok
}

// ParseRing reads "name:base64,name:base64": 32 bytes a key.
func ParseRing(text string) (*Ring, error) {
	if strings.TrimSpace(text) == "" {
		return nil, errors.New(`it is not set. A key is written name:base64, for example k1:… made with "openssl rand -base64 32"`)
	}
	ring := &Ring{keys: map[string]cipher.AEAD{}}
	for entry := range strings.SplitSeq(strings.TrimSpace(text), ",") {
		name, encoded, ok := strings.Cut(strings.TrimSpace(entry), ":")
		if !ok || name == "" || strings.ContainsAny(name, ".\n ") {
			return nil, errors.New(`a key is written name:base64, for example k1:… made with "openssl rand -base64 32"`)
		}
		raw, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil || len(raw) != 32 {
			return nil, fmt.Errorf(`key %q is not 32 bytes of base64: make one with "openssl rand -base64 32"`, name)
		}
		if ring.keys[name] != nil {
			return nil, fmt.Errorf("key %q is there twice", name)
		}
		block, err := aes.NewCipher(raw)
		if err != nil {
			return nil, err
		}
		if ring.keys[name], err = cipher.NewGCMWithRandomNonce(block); err != nil {
			return nil, err
		}
		ring.names = append(ring.names, name)
		if ring.mac == nil {
			ring.mac = digest(raw, "countersign fingerprint")
		}
	}
	return ring, nil
}

// Seal encrypts plain for one place: what kind of thing it is, and which.
func (r *Ring) Seal(kind, id string, plain []byte) string {
	name := r.names[0]
	sealed := r.keys[name].Seal(nil, nil, plain, associatedData(kind, id))
	return name + "." + base64.RawStdEncoding.EncodeToString(sealed)
}

// Open decrypts what Seal made for the same place. ErrSeal otherwise; ErrNoKey
// where it looks like what Seal makes, with another ring.
func (r *Ring) Open(kind, id, sealed string) ([]byte, error) {
	name, encoded, _ := strings.Cut(sealed, ".")
	key := r.keys[name]
	raw, err := base64.RawStdEncoding.DecodeString(encoded)
	switch {
	case err != nil, len(raw) < sealOverhead, name == "", strings.ContainsAny(name, "\n "):
		return nil, ErrSeal
	case key == nil:
		return nil, missingKeyError{name[:min(len(name), 64)]} // whoever wrote it may have written a book
	}
	plain, err := key.Open(nil, nil, raw, associatedData(kind, id))
	if err != nil {
		return nil, ErrSeal
	}
	return plain, nil
}

// sealOverhead is the nonce and the tag of AES-GCM.
const sealOverhead = 12 + 16

// print is the same for the same words and tells nobody which they are: a
// plain hash of a phone number is undone by trying all of them. Another first
// key makes another print, so it is worked out once and then kept.
func (r *Ring) print(words ...string) string {
	return hex.EncodeToString(digest(r.mac, strings.Join(words, "\x00"))[:16])
}

func digest(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

func associatedData(kind, id string) []byte { return []byte(kind + "\x00" + id) }
