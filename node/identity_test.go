package node

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestPeerID(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "data")
	first, err := PeerID(dir)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := PeerID(dir); err != nil || again != first {
		t.Errorf("second call: %v, %v; want %v", again, err, first)
	}
	if other, err := PeerID(t.TempDir()); err != nil || other == first {
		t.Errorf("another directory: %v, %v", other, err)
	}
	if _, embedded, err := identity(dir, embeddedFile); err != nil || embedded == first {
		t.Errorf("the embedded supernode: %v, %v; want another ID", embedded, err)
	}
}

func TestPeerIDRefuses(t *testing.T) {
	var field *FieldError
	if _, err := PeerID(""); !errors.As(err, &field) || field.Field != "data-dir" {
		t.Errorf("no directory: got %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if id, err := PeerID(file); err == nil {
		t.Errorf("a file in the place of the directory: got %v", id)
	}
}
