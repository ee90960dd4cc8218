package audit

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// unsignedOrigin is the first line of a checkpoint without a key. With a key
// it is the key's name, as https://c2sp.org/tlog-checkpoint asks.
const unsignedOrigin = "countersign/audit"

// key signs checkpoints and recognises them again. It takes both halves to
// continue a log: one must not sign over a history that somebody else wrote.
type key struct {
	signer   note.Signer
	verifier note.Verifier
}

// parseKey reads a signing key as [note.GenerateKey] makes it and derives its
// public half.
func parseKey(secret string) (*key, error) {
	signer, err := note.NewSigner(secret)
	if err != nil {
		return nil, errors.New("audit: the signing key is not one of golang.org/x/mod/sumdb/note, which look like PRIVATE+KEY+name+hash+data")
	}
	// NewSigner has checked the five parts; the seed follows one byte that
	// names the algorithm.
	data, err := base64.StdEncoding.DecodeString(strings.SplitN(secret, "+", 5)[4])
	if err != nil || len(data) != 1+ed25519.SeedSize {
		return nil, errors.New("audit: the signing key is not an Ed25519 key")
	}
	public := ed25519.NewKeyFromSeed(data[1:]).Public().(ed25519.PublicKey)
	text, err := note.NewEd25519VerifierKey(signer.Name(), public)
	if err != nil {
		return nil, err
	}
	verifier, err := note.NewVerifier(text)
	if err != nil {
		return nil, err
	}
	return &key{signer, verifier}, nil
}

// formatCheckpoint writes the checkpoint of a tree, signed when there is a key.
func formatCheckpoint(tree tlog.Tree, k *key) ([]byte, error) {
	if k == nil {
		return []byte(checkpointText(unsignedOrigin, tree)), nil
	}
	return note.Sign(&note.Note{Text: checkpointText(k.signer.Name(), tree)}, k.signer)
}

func checkpointText(origin string, tree tlog.Tree) string {
	return fmt.Sprintf("%s\n%d\n%s\n", origin, tree.N, tree.Hash)
}

// parseCheckpoint reads a checkpoint file. With a verifier, the checkpoint must
// be signed by it; without one, whose signature it bears is returned but
// not checked. The tree is returned with an error about the signature too, so
// that the records can still be compared with it.
func parseCheckpoint(data []byte, verifier note.Verifier) (tree tlog.Tree, signedBy string, err error) {
	text, _, signed := bytes.Cut(data, []byte("\n\n"))
	if signed {
		text = append(bytes.Clone(text), '\n')
	}
	origin, tree, err := parseTree(string(text))
	if err != nil {
		return tlog.Tree{}, "", err
	}
	if !signed {
		switch {
		case verifier != nil:
			return tree, "", fmt.Errorf("is not signed, but %s signs this log's checkpoints", verifier.Name())
		case origin != unsignedOrigin:
			return tree, "", fmt.Errorf("begins with %q, not with %q", origin, unsignedOrigin)
		}
		return tree, "", nil
	}

	known := note.VerifierList()
	if verifier != nil {
		known = note.VerifierList(verifier)
	}
	n, err := note.Open(data, known)
	if unverified, ok := errors.AsType[*note.UnverifiedNoteError](err); ok {
		if verifier != nil {
			return tree, "", fmt.Errorf("is not signed by %s", verifier.Name())
		}
		n, err = unverified.Note, nil
		signedBy = n.UnverifiedSigs[0].Name
	} else if err == nil {
		signedBy = n.Sigs[0].Name
	}
	switch {
	case err != nil:
		return tree, "", fmt.Errorf("has a signature that does not hold (%w)", err)
	case signedBy != origin:
		return tree, "", fmt.Errorf("is about the log %q but signed by %q", origin, signedBy)
	}
	return tree, signedBy, nil
}

// parseTree reads the text of a checkpoint and accepts only what
// [checkpointText] writes.
func parseTree(text string) (origin string, tree tlog.Tree, err error) {
	malformed := errors.New("is not a checkpoint: it needs three lines, a name, the number of records and the tree hash")
	lines := strings.Split(text, "\n")
	if len(lines) != 4 {
		return "", tlog.Tree{}, malformed
	}
	n, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || n < 0 || n > 1<<48 {
		return "", tlog.Tree{}, malformed
	}
	hash, err := tlog.ParseHash(lines[2])
	if err != nil {
		return "", tlog.Tree{}, malformed
	}
	tree = tlog.Tree{N: n, Hash: hash}
	if lines[0] == "" || checkpointText(lines[0], tree) != text {
		return "", tlog.Tree{}, malformed
	}
	return lines[0], tree, nil
}

// parseKept reads a checkpoint that was kept elsewhere: as it was written, or as
// it came back from a chat or a printout, with blanks around it or without its
// signature.
func parseKept(text string) (tlog.Tree, error) {
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(text, "\r\n", "\n")), "\n")
	if len(lines) > 3 {
		lines = lines[:3]
	}
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	_, tree, err := parseTree(strings.Join(lines, "\n") + "\n")
	return tree, err
}
