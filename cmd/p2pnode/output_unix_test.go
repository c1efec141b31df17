//go:build !windows

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestGetWritesIntoPipes(t *testing.T) {
	g := newGateway(t)
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Skip(err)
	}
	type result struct {
		data []byte
		err  error
	}
	read := make(chan result, 1)
	go func() {
		data, err := os.ReadFile(pipe)
		read <- result{data, err}
	}()
	h, code := g.get(t, "-o", pipe)
	if code != exitDone {
		t.Fatalf("exit code %d: %s", code, h.errs.String())
	}
	if got := <-read; got.err != nil || !bytes.Equal(got.data, g.data) {
		t.Errorf("read %d bytes from the pipe, %v", len(got.data), got.err)
	}
	if info, err := os.Lstat(pipe); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		t.Errorf("the pipe was replaced: %v, %v", info, err)
	}
	checkGone(t, pipe)
}
