//go:build linux

package netlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Namespace is one machine of a lab.
type Namespace struct {
	// Dev is its interface, IP that one's IPv4 address.
	Dev, IP string
	// Outside is the address at which the public segment sees it.
	Outside string

	lab  *Lab
	name string
	port string // its end on the public segment
}

// run runs a small command in the namespace.
func (n *Namespace) run(name string, args ...string) (string, error) {
	return command("ip", append([]string{"netns", "exec", n.name, name}, args...)...)
}

func (n *Namespace) must(name string, args ...string) {
	n.lab.t.Helper()
	if _, err := n.run(name, args...); err != nil {
		n.lab.t.Fatal(err)
	}
}

// Command returns a command that runs in the namespace, not yet started. Its
// process is the command's own.
func (n *Namespace) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", n.name, name}, args...)...) //nolint:noctx // the lab's end kills it
}

// Do calls f on a thread that is in the namespace: sockets that f makes stay
// there. f must not start goroutines that make any.
func (n *Namespace) Do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked where the way back fails: the thread ends with the goroutine
		done <- n.enter(f)
	}()
	return <-done
}

func (n *Namespace) enter(f func() error) (err error) {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	there, err := os.Open(filepath.Join(netnsDir, n.name))
	if err != nil {
		return err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter namespace %s: %w", n.name, err)
	}
	err = f()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, fmt.Errorf("leave namespace %s: %w", n.name, back))
	}
	runtime.UnlockOSThread()
	return err
}

// Listen listens on a TCP address of the namespace.
func (n *Namespace) Listen(addr string) (l net.Listener, err error) {
	err = n.Do(func() error {
		l, err = new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
		return err
	})
	return l, err
}

// Dial connects to a TCP address, a literal one, from the namespace.
func (n *Namespace) Dial(ctx context.Context, network, addr string) (c net.Conn, err error) {
	err = n.Do(func() error {
		c, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		return err
	})
	return c, err
}

// Client returns an HTTP client that is in the namespace. Its requests go to
// where they say; timeout bounds each with its body.
func (n *Namespace) Client(timeout time.Duration) *http.Client {
	return &http.Client{Timeout: timeout, Transport: &http.Transport{DialContext: n.Dial, DisableKeepAlives: true, DisableCompression: true}}
}
