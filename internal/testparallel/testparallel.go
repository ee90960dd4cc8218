// Package testparallel sets how many parallel tests of a package run at a time.
package testparallel

import (
	"flag"
	"fmt"
	"runtime"
)

// Double lets twice as many parallel tests run as there are processors, unless
// the command line says how many. It is for packages whose tests mostly wait:
// for leases to run out, for servers to fail over. Call it in TestMain.
func Double() {
	flag.Parse()
	said := false
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == "test.parallel" })
	if !said {
		flag.Set("test.parallel", fmt.Sprint(2*runtime.GOMAXPROCS(0)))
	}
}
