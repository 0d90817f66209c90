package service_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"backendai/internal/image/service"
)

func FuzzServicePorts(f *testing.F) {
	for _, s := range []string{"jupyter:http:8080", "a:tcp:[9000,9001],b:pty:3000", "a:tcp:[", ",,", "[:]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, label string) {
		apps, err := service.ParseServicePorts(label)
		if err != nil {
			return
		}
		again, err := service.ParseServicePorts(service.FormatServicePorts(apps))
		if err != nil {
			t.Fatalf("%q was read, but not what was written of it: %v", label, err)
		}
		if diff := cmp.Diff(apps, again); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzDefinition(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte(`{"command": "a 'b'", "shell": null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := service.ParseDefinition(data)
		if err != nil {
			return
		}
		if len(d.Command) == 0 && !d.Noop {
			t.Fatal("a definition with nothing to start was taken")
		}
		v := service.NewVariables([]int{8080}, "", "127.0.0.1")
		for _, a := range d.Prestart {
			_, _ = a.Expand(v)
		}
		argv, _, err := d.Invocation(v, service.Request{}, nil)
		if err == nil && len(argv) < len(d.Command) {
			t.Fatalf("the command %q lost words: %q", d.Command, argv)
		}
	})
}

func FuzzTemplate(f *testing.F) {
	for _, s := range []string{"{ports[0]}", "${{ cfg }}", "${{HOME}}", "{{}}", "}", "{ports[", "$"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, template string) {
		v := service.Variables{"cfg": service.Text("x")}
		got, err := v.Expand(template)
		if err == nil && !strings.ContainsAny(template, "{}") && got != template {
			t.Fatalf("%q without braces became %q", template, got)
		}
		// Braces doubled, any text must come through as it is.
		quoted := strings.NewReplacer("{", "{{", "}", "}}").Replace(strings.ReplaceAll(template, "$", ""))
		if got, err := v.Expand(quoted); err != nil || got != strings.ReplaceAll(template, "$", "") {
			t.Fatalf("%q quoted became %q, %v", template, got, err)
		}
	})
}
