//go:build unix

package main

import "syscall"

// keepToOwner makes all files that this process creates from now on its user's
// alone, whatever code creates them.
func keepToOwner() { syscall.Umask(0o077) }
