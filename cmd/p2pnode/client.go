package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/p2pnode/p2pnode/node"
)

// Bounds of what is asked from a daemon's admin API.
const (
	adminTimeout = 5 * time.Second
	maxAnswer    = 64 << 20
)

// errNoDaemon: the data directory names no daemon, or one that is gone.
var errNoDaemon = errors.New("no daemon runs there")

// running is what a daemon writes into daemon.json: where its faces are.
type running struct {
	Admin string `json:"admin"`
	Proxy string `json:"proxy"`
	PID   int    `json:"pid"`
	// ProxyCert is the SHA-256 sum of the certificate that the proxy shows, in
	// hexadecimal, where it speaks TLS.
	ProxyCert string `json:"proxy_cert_sha256"`
}

// findDaemon returns the faces of the daemon of a data directory once it has
// answered, or errNoDaemon.
func findDaemon(ctx context.Context, dataDir string) (running, error) {
	path := filepath.Join(dataDir, "daemon.json")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return running{}, fmt.Errorf("data directory %s: %w: start one with `p2pnode daemon`, or name its --data-dir", dataDir, errNoDaemon)
	}
	if err != nil {
		return running{}, fmt.Errorf("look for a daemon: %w", err)
	}
	d, err := readRunning(text)
	if err != nil {
		return running{}, fmt.Errorf("%s is damaged: restart the daemon", path)
	}
	if err := d.check(ctx, dataDir); err != nil {
		if ctx.Err() != nil {
			return running{}, ctx.Err()
		}
		return running{}, fmt.Errorf("daemon of %s (pid %d) is not at %s: %w: %w: start it with `p2pnode daemon`", dataDir, d.PID, d.Admin, err, errNoDaemon)
	}
	return d, nil
}

// readRunning reads a daemon.json.
func readRunning(text []byte) (d running, err error) {
	if err = json.Unmarshal(text, &d); err == nil && d.Admin == "" {
		err = errors.New("it names no admin API")
	}
	return d, err
}

// check wants the process at the admin port to be the one of the data
// directory: after a crash another may have got the port.
func (d running) check(ctx context.Context, dataDir string) error {
	body, err := adminGet(ctx, d, "/v1/status")
	if err != nil {
		return err
	}
	var status struct{ Peer string }
	_ = json.Unmarshal(body, &status) // what is no status names no peer
	id, err := node.PeerID(dataDir)
	if err != nil {
		return err
	}
	if status.Peer != id.String() {
		return fmt.Errorf("the process there is not %s", id)
	}
	return nil
}

// page is the URL of a page of the admin API.
func (d running) page(path string) string {
	if strings.HasPrefix(d.Admin, node.UnixPrefix) {
		return "http://localhost" + path
	}
	return d.Admin + path
}

// transport reaches the admin API, with a connection of its own for each request.
func (d running) transport() *http.Transport {
	t := &http.Transport{DisableKeepAlives: true}
	if socket, ok := strings.CutPrefix(d.Admin, node.UnixPrefix); ok {
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}
	}
	return t
}

// adminGet returns the body of one page of the admin API.
func adminGet(ctx context.Context, d running, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.page(path), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("ask %s%s: %w", d.Admin, path, err)
	}
	client := &http.Client{Transport: d.transport()}
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the daemon: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read %s%s: %w", d.Admin, path, err)
	}
	if res.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("%s has no page %s: a supernode alone shows its tasks in `p2pnode status`", d.Admin, path)
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask %s%s: the daemon answered %s", d.Admin, path, res.Status)
	}
	return body, nil
}
