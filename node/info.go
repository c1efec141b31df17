package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Info says where a running node is reached; as JSON it is the ready line.
type Info struct {
	// Event is "ready".
	Event string `json:"event"`
	// Peer is the peer ID; Addrs are its addresses, each with /p2p/ID.
	Peer  string   `json:"peer"`
	Addrs []string `json:"addrs"`
	// Proxy and Admin are the URLs of the HTTP faces; Admin is unix:PATH for a
	// socket.
	Proxy string `json:"proxy,omitempty"`
	Admin string `json:"admin,omitempty"`
	// ProxyCert is the SHA-256 sum, in hexadecimal, of the certificate that the
	// proxy shows; empty where it speaks no TLS.
	ProxyCert string `json:"proxy_cert_sha256,omitempty"`
	// Supernode is an address of the embedded supernode, the value of
	// --supernode for other nodes.
	Supernode string `json:"supernode,omitempty"`
}

// daemonFile is where a running node says, in its data directory, where its
// faces are, for the other commands.
const daemonFile = "daemon.json"

// running is what daemonFile holds.
type running struct {
	Proxy string `json:"proxy,omitempty"`
	Admin string `json:"admin"`
	// ProxyCert lets the commands of this machine know the proxy by its
	// certificate, whatever name that is for.
	ProxyCert string `json:"proxy_cert_sha256,omitempty"`
	PID       int    `json:"pid"`
}

// announce writes daemonFile; the caller removes it at the end.
func (i Info) announce(dataDir string) error {
	text, err := json.Marshal(running{Proxy: i.Proxy, Admin: i.Admin, ProxyCert: i.ProxyCert, PID: os.Getpid()})
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dataDir, daemonFile), text)
}

func withdraw(dataDir string) {
	_ = os.Remove(filepath.Join(dataDir, daemonFile)) // a stale one is noticed by who reads it
}

// writeFile replaces a file, mode 0600, by one rename.
func writeFile(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
	}
	return nil
}
