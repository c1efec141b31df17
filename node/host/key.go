package host

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/libp2p/go-libp2p/core/crypto"
)

const (
	pemType = "PRIVATE KEY"
	// maxKeyFile bounds what is read of a key file; a right one has 119 bytes.
	maxKeyFile = 4 << 10
)

// LoadOrCreateKey returns the Ed25519 key in the file at path (PEM, PKCS #8),
// making both if there is none. The file is created whole, with mode 0600;
// of two processes that create it at once both get the same key. A file that
// others can read, or that holds no such key, is an error that says so and is
// left as it is.
func LoadOrCreateKey(path string) (crypto.PrivKey, error) {
	key, err := loadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key file %s: %w", path, err)
	}
	text, err := formatKey(priv)
	if err == nil {
		err = createFile(path, text)
	}
	if err != nil {
		return nil, fmt.Errorf("make key file %s: %w", path, err)
	}
	return loadKey(path)
}

func loadKey(path string) (crypto.PrivKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open key file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open key file: %w", err)
	}
	// Windows has no such bits: the directory's access list guards the file.
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("key file %s has mode %#o, so others can read it: chmod 600 it, or delete it for a new identity", path, mode)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("read key file %s: %w", path, err)
	}
	key, err := parseKey(text)
	if err != nil {
		return nil, fmt.Errorf("key file %s is damaged: %w: restore it, or delete it for a new identity", path, err)
	}
	return key, nil
}

func formatKey(key ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), err
}

func parseKey(text []byte) (crypto.PrivKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != pemType {
		return nil, fmt.Errorf("no PEM block of type %q", pemType)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	priv, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("it holds a %T, want an Ed25519 key", parsed)
	}
	return crypto.UnmarshalEd25519PrivateKey(priv)
}

// createFile writes a new file; one that is there already stays as it is.
func createFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp, err := writeTemp(path, data)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp) }()
	err = os.Link(tmp, path) // unlike Rename it replaces nothing
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return os.Rename(tmp, path) // a file system without links
	}
	return nil
}

// replaceFile writes path so that a reader, or a crash, sees the old content or
// the new.
func replaceFile(path string, data []byte) error {
	tmp, err := writeTemp(path, data)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}

// writeTemp writes a synced file of mode 0600 beside path and returns its name.
func writeTemp(path string, data []byte) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}
