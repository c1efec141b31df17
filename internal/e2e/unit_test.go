package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestUnit: systemd understands every line of the unit and finds its sandbox good,
// and what the unit starts knows the flags.
func TestUnit(t *testing.T) {
	text, err := os.ReadFile("../../deploy/p2pnode.service")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\nExecStart=")
	start, _, _ := strings.Cut(rest, "\n")
	command := strings.Fields(start)
	if len(command) < 2 {
		t.Fatalf("the unit starts %q", start)
	}
	dir, bin := t.TempDir(), binary(t, "")
	t.Run("flags", func(t *testing.T) {
		args := command[1:]
		for i := range args {
			args[i] = strings.Replace(args[i], "/etc/p2pnode/config.yaml", filepath.Join(dir, "none.yaml"), 1)
		}
		out, err := exec.CommandContext(t.Context(), bin, args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "none.yaml") || strings.Contains(string(out), "flag") {
			t.Errorf("without its configuration it ends with %v and says %q", err, out)
		}
	})
	t.Run("systemd", func(t *testing.T) {
		analyze, err := exec.LookPath("systemd-analyze")
		if err != nil {
			t.Skip("nobody looks at the unit: no systemd-analyze on this machine")
		}
		unit := filepath.Join(dir, "p2pnode.service")
		// The program need not be installed here.
		if err := os.WriteFile(unit, []byte(strings.Replace(string(text), command[0], bin, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), analyze, "verify", unit).CombinedOutput()
		if err != nil || len(out) > 0 { // it warns of keys that it does not know, and ends well
			t.Errorf("systemd-analyze verify: %v: %s", err, out)
		}
		// Of 100; a unit without any sandbox has 96.
		out, err = exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--no-pager", "--threshold=20", unit).CombinedOutput()
		if err != nil {
			t.Errorf("systemd-analyze security: %v: %s", err, out)
		}
	})
}
