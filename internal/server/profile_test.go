package server

import (
	"os"
	"path/filepath"
	"testing"

	"backendai/internal/client"
)

func TestProfile(t *testing.T) {
	cfg, a := settings(t, nil), newAccounts()
	first, stop := start(t, cfg, scripted(a))
	path := filepath.Join(t.TempDir(), "config", "backend.ai", "profile.toml")

	ours, err := first.WriteProfile(path)
	if err != nil || !ours {
		t.Fatalf("WriteProfile = %t, %v", ours, err)
	}
	p, err := client.ReadProfile(path)
	if err != nil || p.Endpoint != first.Endpoint() || p.AccessKey != "AKIAADMIN" || p.SecretKey != "secret" {
		t.Errorf("profile %+v, %v", p, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}

	p.AccessKey = "AKIAOTHER" // of an earlier life of the address: replaced on a first start
	if err := client.WriteProfile(path, p); err != nil {
		t.Fatal(err)
	}
	if ours, err := first.WriteProfile(path); err != nil || !ours {
		t.Errorf("WriteProfile = %t, %v", ours, err)
	}
	if p, err = client.ReadProfile(path); err != nil || p.AccessKey != "AKIAADMIN" {
		t.Errorf("profile %+v, %v", p, err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}

	other, _ := start(t, settings(t, nil), scripted(newAccounts()))
	if ours, err := other.WriteProfile(path); err != nil || ours {
		t.Errorf("a profile for another server: WriteProfile = %t, %v", ours, err)
	}
	if now, err := client.ReadProfile(path); err != nil || now != p {
		t.Errorf("the profile for another server was changed: %+v, %v", now, err)
	}
}
