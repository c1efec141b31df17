package node

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A socket is for this user alone from its first moment; one that a process left
// behind is replaced, one that is listened on, and any other file, is not.
func TestAdminSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.sock")
	addr := UnixPrefix + path
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if l, err := listenAdmin(addr); err == nil {
		t.Errorf("a socket that is listened on is taken over: %v", l.Close())
	}
	stale.SetUnlinkOnClose(false)
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := listenAdmin(addr)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket: %v, %v", info.Mode(), err)
	}
	if adminURL(l) != addr {
		t.Errorf("the address is %s, want %s", adminURL(l), addr)
	}
	c, err := net.Dial("unix", path) //nolint:noctx // on this machine
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenAdmin(addr); err == nil {
		t.Error("a file is replaced by a socket")
	}
}

func TestCheckAdmin(t *testing.T) {
	for s, ok := range map[string]bool{
		"127.0.0.1:0": true, "unix:/run/p2pnode/admin.sock": true,
		"unix:": false, "unix:a.sock": false, "unix:/a/../b": false, "unix:/" + strings.Repeat("a", 88): false, "0.0.0.0:1": false,
	} {
		if err := checkAdmin("admin", s); (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
	}
}
