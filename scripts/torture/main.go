// Torture tries to break a real server and checks that nothing that was acknowledged is lost.
//
//	go run ./scripts/torture kill9 [--rounds 10] [--seed N]
//
// It builds the server, runs it on a port of the system's choice with its data in a temporary folder, and ends only processes that it started. Every run prints its seed and ends with
// "N passed, N failed".
package main

import (
	"fmt"
	"os"
)

// forms are the ways to torture, each in its own file.
var forms = map[string]func(args []string) (passed, failed int, err error){
	"kill9": kill9,
}

func main() {
	if len(os.Args) < 2 || forms[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: torture kill9 [--rounds N] [--seed N]")
		os.Exit(2)
	}
	passed, failed, err := forms[os.Args[1]](os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		failed++
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 || passed == 0 {
		os.Exit(1)
	}
}
