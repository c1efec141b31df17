package host_test

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/p2pnode/p2pnode/node/host"
)

func TestKeyIsMadeOnceAndKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "key.pem")
	keys := make([]crypto.PrivKey, 8)
	var all sync.WaitGroup
	for i := range keys {
		all.Go(func() {
			var err error
			if keys[i], err = host.LoadOrCreateKey(path); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, k := range keys[1:] {
		if !k.Equals(keys[0]) {
			t.Fatal("two calls at once return two keys")
		}
	}
	if keys[0].Type() != crypto.Ed25519 {
		t.Errorf("key type %v", keys[0].Type())
	}
	stat, err := os.Stat(path)
	if err != nil || stat.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, error %v", stat, err)
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
		t.Errorf("left beside the key: %v, error %v", files, err)
	}
}

func TestBadKeyFiles(t *testing.T) {
	good := filepath.Join(t.TempDir(), "key.pem")
	if _, err := host.LoadOrCreateKey(good); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	const ec = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2
OF/2NxApJCzGCEDdfSp6VQO30hyhRANCAAQRWz+jn65BtOMvdyHKcvjBeBSDZH2r
1RTwjmYSi9R/zpBnuQ4EiMnCqfMPWiZqB4QdbAd0E7oH50VpuZ1P087G
-----END PRIVATE KEY-----
`
	for _, c := range []struct {
		name string
		text []byte
		mode os.FileMode
		want []string
	}{
		{"empty", nil, 0o600, []string{"is damaged"}},
		{"cut short", text[:60], 0o600, []string{"is damaged"}},
		{"flipped", bytes.Replace(text, text[30:40], []byte("AAAAAAAAAA"), 1), 0o600, []string{"is damaged"}},
		{"other type", []byte(ec), 0o600, []string{"is damaged", "Ed25519"}},
		{"large", bytes.Repeat([]byte("x"), 1<<20), 0o600, []string{"is damaged"}},
		{"world-readable", text, 0o644, []string{"0644", "chmod 600"}},
		{"group-readable", text, 0o640, []string{"0640", "chmod 600"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.mode != 0o600 && runtime.GOOS == "windows" {
				t.Skip("windows has no such bits")
			}
			path := filepath.Join(t.TempDir(), "key.pem")
			if err := os.WriteFile(path, c.text, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.mode); err != nil {
				t.Fatal(err)
			}
			_, err := host.LoadOrCreateKey(path)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range append(c.want, path) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, c.text) {
				t.Errorf("the file was changed, error %v", err)
			}
		})
	}
}

func TestKeyInADirectoryThatIsAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(file, "key.pem")
	if _, err := host.LoadOrCreateKey(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v does not name %s", err, path)
	}
}
