package archive_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"backendai/internal/archive"
)

type entry struct {
	Name, Link, Content string
	Type                byte
}

func write(t testing.TB, entries []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := archive.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.Name, Linkname: e.Link, Typeflag: e.Type, Size: int64(len(e.Content)), Mode: 0o640, ModTime: time.Unix(1e9, 0)}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.Content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// read gives what is certain, checkpoint by checkpoint.
func read(stream io.Reader) (certain []entry, err error) {
	var pending []entry
	r := archive.NewReader(stream, func() error {
		certain, pending = append(certain, pending...), nil
		return nil
	})
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return certain, nil
		}
		if err != nil {
			return certain, err
		}
		content, err := io.ReadAll(r)
		if err != nil {
			return certain, err
		}
		pending = append(pending, entry{h.Name, h.Linkname, string(content), h.Typeflag})
	}
}

var samples = []entry{
	{"dir/", "", "", tar.TypeDir}, {"dir/file", "", "content", tar.TypeReg}, {"dir/empty", "", "", tar.TypeReg}, {"dir/link", "../other", "", tar.TypeSymlink},
	{"ü \n-x", "", "bytes\x00\xff", tar.TypeReg}, {strings.Repeat("x", 255), "", "", tar.TypeReg}, {strings.Repeat("d/", 100) + "deep", "", "y", tar.TypeReg}, {"\xff\xfe", "", "", tar.TypeReg},
}

func TestStream(t *testing.T) {
	entries := samples
	for i := range 2000 {
		entries = append(entries, entry{fmt.Sprintf("many/%d", i), "", strings.Repeat("z", i), tar.TypeReg})
	}
	stream := write(t, entries)
	got, err := read(bytes.NewReader(stream))
	want := append([]entry{}, entries...)
	want[0].Name = "dir"
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	// Whatever breaks, what is certain is right.
	for _, at := range []int{0, 1, 511, 512, 5000, len(stream) / 2, len(stream) - 2048, len(stream) - 1700} {
		got, err := read(bytes.NewReader(stream[:at]))
		if err == nil || len(got) > 0 && cmp.Diff(want[:len(got)], got) != "" {
			t.Errorf("cut at %d: %d entries, %v", at, len(got), err)
		}
		broken := bytes.Clone(stream)
		broken[at] ^= 0x20
		got, err = read(bytes.NewReader(broken))
		if len(got) > 0 && cmp.Diff(want[:len(got)], got) != "" {
			t.Errorf("broken at %d: wrong entries are certain, %v", at, err)
		}
	}
}

func TestHostileStreams(t *testing.T) {
	for _, e := range []entry{
		{"/etc/passwd", "", "x", tar.TypeReg}, {"../x", "", "", tar.TypeReg}, {"a/../../x", "", "", tar.TypeReg}, {"a/..", "", "", tar.TypeDir},
		{"link", "/etc", "", tar.TypeSymlink}, {"link", "..", "", tar.TypeSymlink}, {"a/link", "../../x", "", tar.TypeSymlink}, {"link", "a/../../b", "", tar.TypeSymlink},
		{"hard", "file", "", tar.TypeLink}, {"null", "", "", tar.TypeChar}, {"disk", "", "", tar.TypeBlock}, {"pipe", "", "", tar.TypeFifo},
		{strings.Repeat("x", 256), "", "", tar.TypeReg}, {strings.Repeat("d/", 300) + "x", "", "", tar.TypeReg},
	} {
		stream := write(t, []entry{{"good", "", "x", tar.TypeReg}, e})
		got, err := read(bytes.NewReader(stream))
		if _, ok := errors.AsType[*archive.EntryError](err); !ok || len(got) > 0 {
			t.Errorf("%.40q: %v, %v", e.Name, got, err)
		}
	}
	// A tar without checksums, and one that goes on after its end.
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "x", Typeflag: tar.TypeReg}), w.Close()); err != nil {
		t.Fatal(err)
	}
	if got, err := read(&b); !errors.Is(err, archive.ErrTruncated) || len(got) > 0 {
		t.Errorf("without checksums: %v, %v", got, err)
	}
	b.Reset()
	w = tar.NewWriter(&b)
	for range 2000 {
		if err := w.WriteHeader(&tar.Header{Name: "x", Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := read(&b); err == nil || !strings.Contains(err.Error(), "last checkpoint") {
		t.Errorf("too much without a checkpoint: %v", err)
	}
	b.Reset()
	w = tar.NewWriter(&b)
	bomb := &tar.Header{Name: "x", Typeflag: tar.TypeReg, Size: 512, PAXRecords: map[string]string{"GNU_sparse.major": "1", "GNU_sparse.minor": "0", "GNU_sparse.realsize": "1099511627776", "GNU_sparse.name": "x"}}
	if err := w.WriteHeader(bomb); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(append([]byte("0\n"), make([]byte, 510)...)); err != nil {
		t.Fatal(err)
	}
	if _, err := read(bytes.NewReader(bytes.ReplaceAll(b.Bytes(), []byte("GNU_"), []byte("GNU.")))); err == nil || !strings.Contains(err.Error(), "is sparse") {
		t.Errorf("a sparse entry: %v", err)
	}
	stream := write(t, samples[1:2])
	stream = append(stream[:len(stream)-1024], write(t, samples[2:3])...)
	if _, err := read(bytes.NewReader(stream)); err == nil {
		t.Error("a second archive after the end was taken")
	}
}

func FuzzReader(f *testing.F) {
	f.Add(write(f, samples))
	f.Add(write(f, []entry{{"../x", "", "", tar.TypeReg}}))
	f.Add(write(f, []entry{{"l", "/etc", "", tar.TypeSymlink}}))
	f.Fuzz(func(t *testing.T, stream []byte) {
		certain, err := read(bytes.NewReader(stream))
		for _, e := range certain {
			if path.IsAbs(e.Name) || e.Name != path.Clean(e.Name) || e.Name == ".." || strings.HasPrefix(e.Name, "../") {
				t.Errorf("name %q, %v", e.Name, err)
			}
			if e.Type == tar.TypeSymlink && (path.IsAbs(e.Link) || strings.HasPrefix(path.Join(path.Dir(e.Name), e.Link)+"/", "../")) {
				t.Errorf("link %q to %q, %v", e.Name, e.Link, err)
			}
		}
	})
}
