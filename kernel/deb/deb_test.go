package deb

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// pack makes a package as dpkg-deb does, with the data archive compressed by compress.
func pack(t testing.TB, suffix string, compress func(io.Writer) io.WriteCloser, headers ...tar.Header) []byte {
	t.Helper()
	data := &bytes.Buffer{}
	compressed := compress(data)
	archive := tar.NewWriter(compressed)
	for _, h := range headers {
		content := "content of " + h.Name
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(content))
		}
		h.Mode = 0o644
		if err := archive.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			io.WriteString(archive, content)
		}
	}
	archive.Close()
	compressed.Close()

	deb := bytes.NewBufferString(arMagic)
	for _, m := range []struct {
		name string
		data []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar" + suffix, []byte("odd")}, {"data.tar" + suffix, data.Bytes()}} {
		fmt.Fprintf(deb, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.name, 0, 0, 0, "100644", len(m.data))
		deb.Write(m.data)
		if len(m.data)%2 == 1 {
			deb.WriteByte('\n')
		}
	}
	return deb.Bytes()
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func plain(w io.Writer) io.WriteCloser { return nopCloser{w} }

func TestWalkReadsRegularFilesInEveryCompression(t *testing.T) {
	for suffix, compress := range map[string]func(io.Writer) io.WriteCloser{
		"":    plain,
		".gz": func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		".xz": func(w io.Writer) io.WriteCloser { z, _ := xz.NewWriter(w); return z },
		".zst": func(w io.Writer) io.WriteCloser {
			z, _ := zstd.NewWriter(w)
			return z
		},
	} {
		t.Run("data.tar"+suffix, func(t *testing.T) {
			data := pack(t, suffix, compress,
				tar.Header{Name: "./boot/", Typeflag: tar.TypeDir},
				tar.Header{Name: "./boot/vmlinuz", Typeflag: tar.TypeReg},
				tar.Header{Name: "./boot/link", Linkname: "/etc/passwd", Typeflag: tar.TypeSymlink},
				tar.Header{Name: "./usr/lib/a.ko.xz", Typeflag: tar.TypeReg})
			got := map[string]string{}
			err := Walk(bytes.NewReader(data), func(f File) error {
				content, err := io.ReadAll(f)
				got[f.Path] = string(content)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"boot/vmlinuz": "content of ./boot/vmlinuz", "usr/lib/a.ko.xz": "content of ./usr/lib/a.ko.xz"}
			if !maps.Equal(got, want) {
				t.Errorf("Walk visited %q; want %q", got, want)
			}
		})
	}
}

func TestWalkRefuses(t *testing.T) {
	whole := pack(t, "", plain, tar.Header{Name: "./a", Typeflag: tar.TypeReg})
	for name, data := range map[string][]byte{
		"nothing":                    nil,
		"another format":             []byte("PK\x03\x04 and so on"),
		"a package without data":     whole[:bytes.Index(whole, []byte("data.tar"))],
		"an unknown compression":     bytes.Replace(whole, []byte("data.tar  "), []byte("data.tar.q"), 1),
		"a path that leaves":         pack(t, "", plain, tar.Header{Name: "../../etc/passwd", Typeflag: tar.TypeReg}),
		"an absolute path":           pack(t, "", plain, tar.Header{Name: "/etc/passwd", Typeflag: tar.TypeReg}),
		"a size that is not one":     bytes.Replace(whole, []byte("4         `"), []byte("-4        `"), 1),
		"a header without its end":   bytes.Replace(whole, []byte("`\n"), []byte("~\n"), 1),
		"an archive that breaks off": whole[:len(whole)-1600],
	} {
		t.Run(name, func(t *testing.T) {
			err := Walk(bytes.NewReader(data), func(f File) error { _, err := io.Copy(io.Discard, f); return err })
			if err == nil {
				t.Error("Walk = nil; want an error")
			}
			if name != "an archive that breaks off" && !errors.Is(err, ErrFormat) {
				t.Errorf("Walk = %v; want ErrFormat", err)
			}
		})
	}
}

func TestWalkReturnsTheVisitorsErrorWithThePath(t *testing.T) {
	stop := errors.New("disk full")
	data := pack(t, "", plain, tar.Header{Name: "./a", Typeflag: tar.TypeReg}, tar.Header{Name: "./b", Typeflag: tar.TypeReg})
	var seen []string
	err := Walk(bytes.NewReader(data), func(f File) error { seen = append(seen, f.Path); return stop })
	if !errors.Is(err, stop) || !strings.Contains(err.Error(), "a: ") || !slices.Equal(seen, []string{"a"}) {
		t.Errorf("Walk = %v after %q", err, seen)
	}
}

func FuzzWalk(f *testing.F) {
	f.Add(pack(f, "", plain, tar.Header{Name: "./a", Typeflag: tar.TypeReg}))
	f.Add(pack(f, ".xz", func(w io.Writer) io.WriteCloser { z, _ := xz.NewWriter(w); return z }, tar.Header{Name: "./a", Typeflag: tar.TypeReg}))
	f.Fuzz(func(t *testing.T, data []byte) {
		Walk(bytes.NewReader(data), func(file File) error {
			if strings.HasPrefix(file.Path, "/") || strings.HasPrefix(file.Path, "..") {
				t.Errorf("Walk visited %q", file.Path)
			}
			_, err := io.Copy(io.Discard, io.LimitReader(file, 1<<20))
			return err
		})
	})
}
