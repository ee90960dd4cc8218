//go:build unix

package redistest

import "testing"

func TestAFailOverKeepsOrLosesWhatItIsToldTo(t *testing.T) {
	f := StartFailover(t)
	rdb := f.Client(t)
	write := func(key string) {
		t.Helper()
		if err := rdb.Set(t.Context(), key, "v", 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	write("replicated")
	f.Level(t)
	f.CutOff(t)
	write("confirmed by the master alone")
	f.KillMaster(t)
	f.until(t, "the client to find the new master", func() bool { return rdb.Ping(t.Context()).Err() == nil })
	if n := rdb.Exists(t.Context(), "replicated").Val(); n != 1 {
		t.Error("what the replicas had is gone")
	}
	if n := rdb.Exists(t.Context(), "confirmed by the master alone").Val(); n != 0 {
		t.Error("what the replicas did not have is there")
	}
}
