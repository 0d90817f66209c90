package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"backendai"
	"backendai/internal/config"
)

func file(text string) func(string) ([]byte, error) {
	return func(string) ([]byte, error) { return []byte(text), nil }
}

func TestPrecedence(t *testing.T) {
	env := map[string]string{"BACKEND_SERVER_LISTEN": "127.0.0.1:2", "BACKEND_SERVER_CPU": "1.5", "BACKEND_SERVER_INSECURE_REGISTRIES": "a:5000, b"}
	c, err := config.Load(config.Source{
		Flags: map[string]string{"listen": "127.0.0.1:3"},
		Env:   func(name string) string { return env[name] },
		File:  "x.toml",
		Read:  file("listen = \"127.0.0.1:1\"\nmem = \"4g\"\ncpu = 9\nstate-dir = \"/s\"\n[public-images]\npython = \"docker.io/x/y:z\"\n"),
	})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, s := range c.Settings() {
		got[s.Key] = s.Value + " | " + s.Origin
	}
	want := map[string]string{
		"listen": "127.0.0.1:3 | flag --listen", "cpu": "1.5 | environment BACKEND_SERVER_CPU", "mem": "4g | file x.toml",
		"state-dir": "/s | file x.toml", "run-dir": " | default", "engine": "oci | default",
		"public-images":       "python=docker.io/x/y:z | file x.toml",
		"insecure-registries": "a:5000,b | environment BACKEND_SERVER_INSECURE_REGISTRIES",
		"tls-cert":            " | default", "tls-key": " | default", "runtime": " | default", "network": "nat | default",
		"log-level": "info | default", "log-format": "text | default", "log-retention": "30d | default",
		"storage-hosts": " | default", "default-storage-host": "local:default | default", "folder-quota": " | default", "user-quota": " | default",
		"max-folders": " | default", "trash-retention": "30d | default", "trusted-proxies": " | default",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	capacity, err := c.Capacity()
	if diff := cmp.Diff(backendai.Slots{"cpu": 1500, "mem": 4 << 30}, capacity); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if c.Retention() != 30*24*time.Hour {
		t.Errorf("Retention = %s", c.Retention())
	}
}

func TestAllFaultsAreTold(t *testing.T) {
	_, err := config.Load(config.Source{
		Flags: map[string]string{
			"state-dir": "relative", "listen": "nowhere", "tls-cert": "x", "engine": "docker", "network": "fe80::/64",
			"cpu": "-1", "mem": "0", "log-level": "loud", "log-format": "xml", "log-retention": "-5h", "public-images": "python",
		},
		Env: func(string) string { return "" },
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, key := range []string{"state-dir", "listen", "tls-cert", "engine", "network", "cpu", "mem", "log-level", "log-format", "log-retention", "public-images"} {
		if !strings.Contains(err.Error(), key+" (flag --"+key+"): ") {
			t.Errorf("the fault of %s is not told in:\n%v", key, err)
		}
	}
}

func TestFileFaultsNameKeyAndFile(t *testing.T) {
	for text, want := range map[string]string{
		"listn = \"x\"\nstat = 1": "x.toml: unknown key \"listn\"\nx.toml: unknown key \"stat\"",
		"listen = true":           "x.toml: listen: a value of type bool is not understood",
		"listen = ":               "x.toml",
	} {
		_, err := config.Load(config.Source{File: "x.toml", Read: file(text)})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", text, err, want)
		}
	}
	if _, err := config.Load(config.Source{File: t.TempDir() + "/none.toml"}); err == nil {
		t.Error("a missing file is no error")
	}
}
