package oci

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMergeAccounts(t *testing.T) {
	const own = "work:x:1000:1000:work:/home/work:/bin/bash\n"
	for name, c := range map[string]struct{ image, want string }{
		"nothing":        {"", "root:x:0:0:root:/root:/sbin/nologin\n" + own},
		"stays":          {"root:x:0:0::/:/bin/sh\ndaemon:x:1:1::/:/bin/false\n", "root:x:0:0::/:/bin/sh\ndaemon:x:1:1::/:/bin/false\n" + own},
		"same number":    {"root:x:0:0::/:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\n", "root:x:0:0::/:/bin/sh\n" + own},
		"same name":      {"root:x:0:0::/:/bin/sh\nwork:x:7:7::/:/bin/sh\n", "root:x:0:0::/:/bin/sh\n" + own},
		"no line's end":  {"root:x:0:0::/:/bin/sh", "root:x:0:0::/:/bin/sh\n" + own},
		"nonsense":       {"root:x:0:0::/:/bin/sh\n\x00\x01\n::\n+::::::\nx:y:z\n", "root:x:0:0::/:/bin/sh\n" + own},
		"Windows' lines": {"root:x:0:0::/:/bin/sh\r\n", "root:x:0:0::/:/bin/sh\n" + own},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, string(mergePasswd([]byte(c.image), "/bin/bash"))); diff != "" {
				t.Error(diff)
			}
		})
	}
	if got, want := string(mergeGroup([]byte("root:x:0:\nusers:x:100:work\nnode:x:1000:a\n"))), "root:x:0:\nusers:x:100:work\nwork:x:1000:\n"; got != want {
		t.Errorf("groups are %q, want %q", got, want)
	}
}
