package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// UnixPrefix begins an admin address that is a Unix socket: unix:/run/x.sock.
const UnixPrefix = "unix:"

// maxSocketPath is the length of a path at which all systems take a socket, also
// while it is made, which adds some.
const maxSocketPath = 88

// checkAdmin checks an admin address: a Unix socket, or host:port on loopback.
func checkAdmin(field, s string) *FieldError {
	path, ok := strings.CutPrefix(s, UnixPrefix)
	switch {
	case !ok:
		return checkHostPort(field, s)
	case !filepath.IsAbs(path) || filepath.Clean(path) != path:
		return &FieldError{field, s, "names no socket: write unix: and an absolute path, like unix:/run/p2pnode/admin.sock"}
	case len(path) > maxSocketPath:
		return &FieldError{field, s, fmt.Sprintf("is too long a path for a socket: take one of at most %d bytes", maxSocketPath)}
	}
	return nil
}

// listenAdmin binds the admin face. A Unix socket is for this user alone: it is
// made in a directory that nobody else can enter and then moved to its path,
// since between its making and a change of its mode others could open it.
func listenAdmin(addr string) (net.Listener, error) {
	path, ok := strings.CutPrefix(addr, UnixPrefix)
	if !ok {
		return listen("admin", addr)
	}
	l, err := listenUnix(path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w: choose another path with --admin", addr, err)
	}
	return l, nil
}

func listenUnix(path string) (net.Listener, error) {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != os.ModeSocket:
		return nil, errors.New("there is a file that is no socket")
	default:
		dialer := net.Dialer{Timeout: time.Second}
		if c, err := dialer.DialContext(context.Background(), "unix", path); err == nil {
			_ = c.Close()
			return nil, errors.New("another process listens there")
		} // else one that has ended left it behind
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".s*")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // what is left is empty
	made := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(made, 0o600); err == nil {
		err = os.Rename(made, path)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &socket{UnixListener: l, path: path}, nil
}

// socket is a Unix socket that was moved after it was made.
type socket struct {
	*net.UnixListener
	path string
}

// Addr implements net.Listener.
func (s *socket) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

// Close implements net.Listener, and removes the file.
func (s *socket) Close() error {
	err := s.UnixListener.Close()
	if err == nil {
		err = os.Remove(s.path)
	}
	return err
}

// adminURL is where the admin face is: http://host:port, or unix:path.
func adminURL(l net.Listener) string {
	if l.Addr().Network() == "unix" {
		return UnixPrefix + l.Addr().String()
	}
	return "http://" + l.Addr().String()
}
