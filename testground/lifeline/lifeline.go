// Package lifeline ends a process together with the one that started it,
// however that one ends: the child's standard input is a pipe whose other end
// only the parent has, and the kernel closes it.
package lifeline

import (
	"io"
	"os"
)

// Variable tells a process, by the value stdin, that its standard input is its
// lifeline.
const Variable = "P2PNODE_TESTGROUND_LIFELINE"

// Hold ends this process, with code 1, when the one that started it has ended.
// It returns at once, and does nothing where Variable is not set, as under
// Testground's own runners.
func Hold() {
	if os.Getenv(Variable) != "stdin" {
		return
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
}
