package testseed

import (
	"fmt"
	"strings"
	"testing"
)

// recorder is a test that keeps what is logged and that it failed.
type recorder struct {
	testing.TB
	lines  []string
	failed bool
}

func (r *recorder) Helper() {}
func (r *recorder) Logf(format string, a ...any) {
	r.lines = append(r.lines, fmt.Sprintf(format, a...))
}
func (r *recorder) Fatalf(format string, a ...any) {
	r.failed = true
	r.Logf(format, a...)
}

func TestSeed(t *testing.T) {
	for name, tt := range map[string]struct {
		variable string
		seed     uint64
		says     string
		fails    bool
	}{
		"not set":                {"", fixed, "COUNTERSIGN_TEST_SEED=1", false},
		"a number":               {"1795997566188395990", 1795997566188395990, "COUNTERSIGN_TEST_SEED=1795997566188395990", false},
		"zero is a seed as well": {"0", 0, "COUNTERSIGN_TEST_SEED=0", false},
		"no number":              {"today", 0, `"today"`, true},
		"below zero":             {"-1", 0, `"-1"`, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(Variable, tt.variable)
			r := &recorder{TB: t}
			seed := Seed(r)
			if r.failed != tt.fails || !tt.fails && seed != tt.seed || !strings.Contains(r.lines[0], tt.says) {
				t.Errorf("the seed is %d, failed: %v, it says %q", seed, r.failed, r.lines)
			}
		})
	}
}

func TestRandomSeedsDiffer(t *testing.T) {
	t.Setenv(Variable, "random")
	r := &recorder{TB: t}
	one, two := Seed(r), Seed(r)
	if one == two || !strings.Contains(r.lines[1], fmt.Sprintf("%s=%d", Variable, two)) {
		t.Errorf("the seeds are %d and %d, and it says %q", one, two, r.lines)
	}
}
