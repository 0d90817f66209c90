package config_test

import (
	"strings"
	"testing"
	"time"

	"backendai/internal/config"
)

func TestStorage(t *testing.T) {
	c, err := config.Load(config.Source{
		Flags: map[string]string{"state-dir": "/state", "storage-hosts": "nas:vol1=/mnt/nas", "folder-quota": "10g", "user-quota": "1t", "max-folders": "7", "trash-retention": "2d", "trusted-proxies": "127.0.0.1, 10.1.2.3/8"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if hosts := c.Hosts(); len(hosts) != 2 || hosts["nas:vol1"] != "/mnt/nas" || hosts[config.LocalHost] != "/state/folders" {
		t.Errorf("Hosts = %v", hosts)
	}
	if folder, user, folders := c.Quotas(); folder != 10<<30 || user != 1<<40 || folders != 7 {
		t.Errorf("Quotas = %d, %d, %d", folder, user, folders)
	}
	if c.TrashTime() != 48*time.Hour || c.DefaultHost != config.LocalHost {
		t.Errorf("%v, %q", c.TrashTime(), c.DefaultHost)
	}
	if p := c.Proxies(); len(p) != 2 || p[0].String() != "127.0.0.1/32" || p[1].String() != "10.0.0.0/8" {
		t.Errorf("Proxies = %v", p)
	}
}

func TestBadStorage(t *testing.T) {
	for key, value := range map[string]string{
		"default-storage-host": "nas", "folder-quota": "much", "user-quota": "-1", "max-folders": "-2", "trash-retention": "x", "trusted-proxies": "proxy",
	} {
		_, err := config.Load(config.Source{Flags: map[string]string{"state-dir": "/state", key: value}})
		if err == nil || !strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), value) {
			t.Errorf("%s=%s: %v", key, value, err)
		}
	}
	if _, err := config.Load(config.Source{Flags: map[string]string{"state-dir": "/state", "storage-hosts": "a b=/x,c=y"}}); err == nil || !strings.Contains(err.Error(), `"a b"`) || !strings.Contains(err.Error(), `"y"`) {
		t.Errorf("a bad name and a bad directory: %v", err)
	}
}
