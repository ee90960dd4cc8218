// Command summary reads what "go test -json" says from standard input and
// prints what a person wants to know: what does not build, the output of each
// failed test, one line a package, what was skipped and why, and the totals.
//
// It fails when a test failed, when none ran, or when one was skipped for want
// of a program that this project's runs must have. With -without it is in order
// that tests were skipped without that one, because another run has it.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// needed is what a skipped test must not have lacked.
var needed = regexp.MustCompile(`(?i)redis|chrom|browser|curl`)

type event struct {
	Action, Package, Test, Output, FailedBuild string
}

func main() {
	without := flag.String("without", "", "the `name` of what this run does not have on purpose, as the tests say it when they are skipped")
	flag.Parse()
	output := make(map[string]*strings.Builder) // of each running test, by package and test
	passed, failed, packages, broken := 0, 0, 0, 0
	var skipped, wanting []string

	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 64<<20)
	for in.Scan() {
		var e event
		if err := json.Unmarshal(in.Bytes(), &e); err != nil {
			fmt.Println(in.Text()) // the go command's own words
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "build-output":
			fmt.Print(e.Output)
		case "output":
			if e.Test == "" && isResult(e.Output) {
				fmt.Print(e.Output)
				continue
			}
			if output[key] == nil {
				output[key] = new(strings.Builder)
			}
			output[key].WriteString(e.Output)
		case "pass", "skip", "fail":
			said := ""
			if b := output[key]; b != nil {
				said = b.String()
				delete(output, key)
			}
			switch {
			case e.Test == "" && e.Action == "fail":
				broken++
				if e.FailedBuild == "" {
					fmt.Print(said)
				}
			case e.Test == "":
				if e.Action == "pass" {
					packages++
				}
			case e.Action == "pass":
				passed++
			case e.Action == "fail":
				failed++
				fmt.Print(said)
			default:
				line := fmt.Sprintf("%s %s: %s", e.Package, e.Test, reason(said))
				skipped = append(skipped, line)
				if needed.MatchString(said) && (*without == "" || !strings.Contains(said, *without)) {
					wanting = append(wanting, line)
				}
			}
		}
	}
	if err := in.Err(); err != nil {
		fmt.Println("reading the test output:", err)
		broken++
	}

	fmt.Printf("\n%d tests passed, %d failed, %d skipped; %d packages passed, %d failed\n", passed, failed, len(skipped), packages, broken)
	for _, line := range skipped {
		fmt.Println("skipped:", line)
	}
	switch {
	case failed+broken > 0:
		os.Exit(1)
	case passed == 0:
		fmt.Println("no test ran")
		os.Exit(1)
	case len(wanting) > 0:
		fmt.Printf("%d tests were skipped although this run must have what they need\n", len(wanting))
		os.Exit(1)
	}
}

// isResult tells the line that go test prints about a package.
func isResult(line string) bool {
	for _, prefix := range []string{"ok  \t", "FAIL\t", "?   \t"} {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return false
}

// reason picks the words of a skip out of a test's output.
func reason(said string) string {
	var words []string
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			words = append(words, line)
		}
	}
	return strings.Join(words, " ")
}
