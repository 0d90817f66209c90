package oci

import "testing"

func TestAtLeast(t *testing.T) {
	for release, want := range map[string]bool{
		"6.8.0": true, "6.8": true, "6.18.44-fc-v657": true, "7.0-rc1": true, "10.1": true,
		"6.7.12": false, "6.1.0-56-cloud-amd64": false, "5.15.0": false, "": false, "six": false,
	} {
		if got := atLeast(release, 6, 8); got != want {
			t.Errorf("atLeast(%q, 6, 8) = %v", release, got)
		}
	}
}
