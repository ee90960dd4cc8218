package redistest

import (
	"os"
	"path/filepath"
	"testing"
)

// Save copies what a real server holds. What it returns puts that back, as
// somebody does who restores yesterday's copy: the server is killed and started
// again with it. miniredis makes no copies, and there the test is skipped.
func (s *Server) Save(t testing.TB) (restore func()) {
	t.Helper()
	if !s.Real() {
		t.Skip("miniredis makes no copies of what it holds")
	}
	if s.appendOnly {
		t.Fatal("redistest: a server with an append-only file starts from that and not from a copy")
	}
	rdb := s.client() // in a cluster, of the node that Restart brings back
	defer rdb.Close()
	if err := rdb.Save(t.Context()).Err(); err != nil {
		t.Fatalf("redistest: saving: %v", err)
	}
	name := filepath.Join(s.dir, "dump.rdb")
	saved, err := os.ReadFile(name)
	if err != nil {
		t.Fatalf("redistest: saving: %v", err)
	}
	return func() {
		t.Helper()
		s.Kill(t)
		if err := os.WriteFile(name, saved, 0o600); err != nil {
			t.Fatalf("redistest: restoring: %v", err)
		}
		s.Restart(t)
	}
}
