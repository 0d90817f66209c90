package oci

import (
	"os"
	"path/filepath"
	"testing"
)

func TestResolver(t *testing.T) {
	const none = "# no DNS: this session has no way to a name server of its host\n"
	stub := "nameserver 127.0.0.53\noptions edns0\n"
	for name, c := range map[string]struct {
		files []string
		want  string
	}{
		"ordinary":          {[]string{"nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch a b\n"}, "nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch a b\n"},
		"stub resolver":     {[]string{stub, "nameserver 192.0.2.9\n"}, "nameserver 192.0.2.9\n"},
		"loopback alone":    {[]string{stub}, none},
		"IPv6 alone":        {[]string{"nameserver 2001:db8::1\nnameserver fe80::1%eth0\n"}, none},
		"IPv4 in IPv6":      {[]string{"nameserver ::ffff:192.0.2.1\n"}, "nameserver 192.0.2.1\n"},
		"twice":             {[]string{"nameserver 192.0.2.1\nnameserver 192.0.2.1\n"}, "nameserver 192.0.2.1\n"},
		"comments, rubbish": {[]string{"# nameserver 192.0.2.3\n;x\nnameserver\nnameserver x\nnameserver 0.0.0.0\nsortlist 1\nnameserver\t192.0.2.1 # here\n"}, "nameserver 192.0.2.1\n"},
		"no file":           {nil, none},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			names := []string{filepath.Join(dir, "missing")}
			for i, text := range c.files {
				name := filepath.Join(dir, string(rune('a'+i)))
				if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				names = append(names, name)
			}
			if got := hostResolver(names).file(); got != c.want {
				t.Errorf("resolv.conf is %q, want %q", got, c.want)
			}
		})
	}
}
