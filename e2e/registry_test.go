//go:build integration

package e2e

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// TestPull starts a session of an image that only a registry has: it is
// downloaded first, and whoever watches is told.
func TestPull(t *testing.T) {
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	told := make(chan struct{})
	hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			<-told // nothing comes before the user has been told that it is fetched
		}
		inner.ServeHTTP(w, r)
	}))
	defer hub.Close()
	host := hub.Listener.Addr().String()
	ref := push(t, host+"/team/tools:1")
	p := newPlatform(t.TempDir(), "--insecure-registries", host, "--public-images", "tools="+ref)
	p.run(t)
	u := p.admin
	start := exec.CommandContext(t.Context(), program, "start", "-t", "pulled", "tools")
	start.Env = u.env
	messages := &lockedBuffer{}
	start.Stderr = messages
	if err := start.Start(); err != nil {
		t.Fatal(err)
	}
	messages.wait(t, 0, ref)
	close(told)
	if err := start.Wait(); err != nil || !strings.Contains(messages.tail(1000), "sshd, ttyd") {
		t.Errorf("start: %v: %s", err, messages.tail(1000))
	}
	if r := u.inside(t, "pulled", "echo $BACKENDAI_KERNEL_IMAGE"); r.out != ref+"\n" {
		t.Errorf("inside: %v", r)
	}
	// What a session uses is kept, whatever happens to its name.
	u.must(t, "image", "rm", ref)
	p.restart(t)
	if r := u.inside(t, "pulled", "ls /bin/busybox"); r.code != 0 {
		t.Errorf("after its image was removed: %v", r)
	}
	u.must(t, "rm", "pulled")
	u.must(t, "image", "pull", ref)
	u.must(t, "image", "rm", ref)

	refused(t, u.run(t, "start", "-t", "pulled", host+"/team/nothing:1"), 1, host+"/team/nothing:1")
	refused(t, u.run(t, "image", "pull", host+"/team/nothing:1"), 1, host+"/team/nothing:1")
	hub.CloseClientConnections()
	hub.Close()
	refused(t, u.run(t, "start", "-t", "pulled", ref), 1, host)
	if r := u.run(t, "ps", "--name-only"); strings.Contains(r.out, "pulled") {
		t.Errorf("sessions are left: %v", r)
	}
	p.nothingLeft(t)
}

// TestPullBreaksOff downloads an image of which a registry sends no end.
func TestPullBreaksOff(t *testing.T) {
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") && !strings.HasPrefix(r.Header.Get("User-Agent"), pusher) {
			w.Header().Set("Content-Length", "1000000")
			_, _ = w.Write([]byte("not all of it"))
			panic(http.ErrAbortHandler)
		}
		inner.ServeHTTP(w, r)
	}))
	defer hub.Close()
	host := hub.Listener.Addr().String()
	ref := push(t, host+"/broken:1")
	p := newPlatform(t.TempDir(), "--insecure-registries", host)
	p.run(t)
	refused(t, p.admin.run(t, "start", "-t", "broken-one", ref), 1, ref)
	if r := p.admin.run(t, "image", "list", "--output", "json"); strings.Contains(fmt.Sprint(r), "broken") {
		t.Errorf("image list: %v", r)
	}
	p.nothingLeft(t)
}

// pusher begins the user agent of push.
const pusher = "push"

// push puts a small image into a registry under its name there, and gives it back.
func push(t *testing.T, ref string) string {
	t.Helper()
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	image, err := tarball.ImageFromPath(busybox(t).image(t, ref, "amd64"), &tag)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, image, remote.WithUserAgent(pusher)); err != nil {
		t.Fatal(err)
	}
	return ref
}
