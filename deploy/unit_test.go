//go:build linux

package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// systemd must take the unit without a complaint.
func TestUnit(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	text, err := os.ReadFile("backend.ai.service")
	if err != nil {
		t.Fatal(err)
	}
	const binary = "/usr/local/bin/backend.ai"
	if !strings.Contains(string(text), "ExecStart="+binary+" server\n") {
		t.Fatalf("the unit does not start %s", binary)
	}
	unit := filepath.Join(t.TempDir(), "backend.ai.service")
	installed := strings.ReplaceAll(string(text), "ExecStart="+binary, "ExecStart=/bin/true") // it must exist
	if err := os.WriteFile(unit, []byte(installed), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", unit).CombinedOutput(); err != nil || len(out) != 0 {
		t.Errorf("systemd says: %s, %v", out, err)
	}
}
