// Package testseed gives their seed to the tests that make up their own input.
//
// Such a test must not fail by chance in a run that has nothing to do with it,
// and must still look for new failures. So the seed is the same in every run,
// unless COUNTERSIGN_TEST_SEED is set:
//
//	random   a new seed in each run, for long runs that look for failures
//	a number that seed, to repeat a run that failed
//
// Each test logs its seed, so that a failure can be repeated. Only tests import
// this package.
package testseed

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// Variable is the environment variable that chooses the seed.
const Variable = "COUNTERSIGN_TEST_SEED"

// fixed is the seed of a run that asks for none.
const fixed = 1

// Seed returns the seed of this run, and logs how to get the same one again.
// It fails the test when the environment variable holds something else than a
// seed.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed := uint64(fixed)
	switch text := os.Getenv(Variable); text {
	case "":
	case "random":
		seed = rand.Uint64()
	default:
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s is %q; it is \"random\" or a number from 0 to 18446744073709551615", Variable, text)
		}
	}
	t.Logf("to repeat this run: %s=%d", Variable, seed)
	return seed
}
