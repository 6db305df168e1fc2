package userdata

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/disk"
	"github.com/diskfs/go-diskfs/filesystem"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
)

const document1 = "metadata: {type: mount, id: data}\nspec: {source: tmpfs, target: /var/data, fstype: tmpfs}\n"

// put writes a file below root.
func put(t *testing.T, root, path, content string) {
	t.Helper()
	path = filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFwCfg(t *testing.T) {
	root := t.TempDir()
	if f := fwCfg(root); !f.absent() {
		t.Fatalf("without the file: %+v; want absent", f)
	}
	put(t, root, fwCfgFile, document1)
	if f := fwCfg(root); string(f.data) != document1 || f.unauthenticated {
		t.Fatalf("fwCfg = %+v", f)
	}
}

func TestTooMuchUserDataIsAnError(t *testing.T) {
	root := t.TempDir()
	put(t, root, fwCfgFile, strings.Repeat("#", maxSize+1))
	if f := fwCfg(root); !errors.Is(f.err, errTooBig) {
		t.Fatalf("err = %v; want %v", f.err, errTooBig)
	}
}

func TestCmdlineTakesTheLastArgument(t *testing.T) {
	root := t.TempDir()
	put(t, root, "proc/cmdline", "quiet cosi.userdata=http://a/ x=y cosi.userdata=\"http://b/\"\n")
	if got, err := cmdline(root); got != "http://b/" || err != nil {
		t.Fatalf("cmdline = %q, %v", got, err)
	}
}

func TestInline(t *testing.T) {
	encoded := base64.StdEncoding.EncodeToString([]byte(document1))
	for _, c := range []struct{ name, value, want, wantErr string }{
		{"base64", "data:;base64," + encoded, document1, ""},
		{"base64 without padding", "data:;base64," + strings.TrimRight(encoded, "="), document1, ""},
		{"percent", "data:,a%3A%20b", "a: b", ""},
		{"no comma", "data:;base64", "", "without a comma"},
		{"bad base64", "data:;base64,###", "", "illegal base64"},
		{"private key", "data:,-----BEGIN%20PRIVATE%20KEY-----", "", "holds a private key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := inline(c.value)
			if string(f.data) != c.want || (c.wantErr == "") != (f.err == nil) || f.err != nil && !strings.Contains(f.err.Error(), c.wantErr) {
				t.Fatalf("inline(%q) = %q, %v; want %q, %q", c.value, f.data, f.err, c.want, c.wantErr)
			}
		})
	}
}

func FuzzDecodeDataURL(f *testing.F) {
	f.Add("data:;base64,YQ==")
	f.Add("data:,%zz")
	f.Fuzz(func(t *testing.T, value string) {
		if data, err := decodeDataURL(value); err == nil && len(data) > len(value) {
			t.Fatalf("decodeDataURL(%q) made %d bytes of %d", value, len(data), len(value))
		}
	})
}

// makeDevice makes a disk image below root/dev and lists it in root/sys/class/block.
func makeDevice(t *testing.T, root, name string, size int64, spec disk.FilesystemSpec, files map[string]string) {
	t.Helper()
	path := filepath.Join(root, "dev", name)
	for _, dir := range []string{filepath.Dir(path), filepath.Join(root, "sys/class/block", name)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d, err := diskfs.Create(path, size, diskfs.SectorSizeDefault)
	if err != nil {
		t.Fatal(err)
	}
	d.LogicalBlocksize = 2048
	if spec.FSType != filesystem.TypeISO9660 {
		d.LogicalBlocksize = 512
	}
	files2, err := d.CreateFilesystem(spec)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if dir := filepath.Dir(name); dir != "." {
			if err := files2.Mkdir(dir); err != nil {
				t.Fatal(err)
			}
		}
		file, err := files2.OpenFile(name, os.O_CREATE|os.O_RDWR)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if iso, ok := files2.(*iso9660.FileSystem); ok {
		if err := iso.Finalize(iso9660.FinalizeOptions{RockRidge: true, VolumeIdentifier: spec.VolumeLabel}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestDisks(t *testing.T) {
	const mib = 1 << 20
	long := document1 + strings.Repeat("#", 900-len(document1)) // the third read of io.ReadAll begins and ends in one cluster
	for _, c := range []struct {
		name   string
		size   int64
		spec   disk.FilesystemSpec
		files  map[string]string
		source string // "": not a source
		data   string
	}{
		{"CIDATA on ISO 9660", 10 * mib, disk.FilesystemSpec{FSType: filesystem.TypeISO9660, VolumeLabel: "cidata"}, map[string]string{"user-data": document1}, sourceCIDATA, document1},
		{"CIDATA on FAT32", 40 * mib, disk.FilesystemSpec{FSType: filesystem.TypeFat32, VolumeLabel: "CIDATA"}, map[string]string{"user-data": document1}, sourceCIDATA, document1},
		{"a long document on FAT32", 40 * mib, disk.FilesystemSpec{FSType: filesystem.TypeFat32, VolumeLabel: "CIDATA"}, map[string]string{"user-data": long}, sourceCIDATA, long},
		{"a long document on FAT16", 20 * mib, disk.FilesystemSpec{FSType: filesystem.TypeFat16, VolumeLabel: "CIDATA"}, map[string]string{"user-data": long}, sourceCIDATA, long},
		{"CIDATA on FAT16", 20 * mib, disk.FilesystemSpec{FSType: filesystem.TypeFat16, VolumeLabel: "CIDATA"}, map[string]string{"user-data": document1}, sourceCIDATA, document1},
		{"CIDATA on FAT12", 2 * mib, disk.FilesystemSpec{FSType: filesystem.TypeFat12, VolumeLabel: "CIDATA"}, map[string]string{"user-data": document1}, sourceCIDATA, document1},
		{"a config drive on ISO 9660", 10 * mib, disk.FilesystemSpec{FSType: filesystem.TypeISO9660, VolumeLabel: "config-2"}, map[string]string{configDriveFile: document1}, sourceConfigDrive, document1},
		{"a config drive on FAT32", 40 * mib, disk.FilesystemSpec{FSType: filesystem.TypeFat32, VolumeLabel: "config-2"}, map[string]string{configDriveFile: document1}, sourceConfigDrive, document1},
		{"a config drive without user data", 40 * mib, disk.FilesystemSpec{FSType: filesystem.TypeFat32, VolumeLabel: "config-2"}, map[string]string{"openstack/latest/meta_data.json": "{}"}, sourceConfigDrive, ""},
		{"CIDATA without a file", 40 * mib, disk.FilesystemSpec{FSType: filesystem.TypeFat32, VolumeLabel: "CIDATA"}, nil, sourceCIDATA, ""},
		{"ESP", 40 * mib, disk.FilesystemSpec{FSType: filesystem.TypeFat32, VolumeLabel: "ESP"}, map[string]string{"EFI/x": "", "user-data.yaml": document1}, sourceESP, document1},
		{"ESP without a file", 40 * mib, disk.FilesystemSpec{FSType: filesystem.TypeFat32, VolumeLabel: "ESP"}, map[string]string{"EFI/x": ""}, sourceESP, ""},
		{"a stick with photos", 40 * mib, disk.FilesystemSpec{FSType: filesystem.TypeFat32, VolumeLabel: "PHOTOS"}, map[string]string{"user-data.yaml": document1}, "", ""},
		{"another ISO", 10 * mib, disk.FilesystemSpec{FSType: filesystem.TypeISO9660, VolumeLabel: "debian"}, map[string]string{"user-data": document1}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			makeDevice(t, root, "vdb", c.size, c.spec, c.files)
			all := disks(root)
			var sources []string
			for _, f := range all {
				sources = append(sources, f.source)
			}
			want := []string{sourceCIDATA, sourceESP}
			if c.source == sourceConfigDrive {
				want = slices.Insert(want, 1, sourceConfigDrive)
			}
			if !slices.Equal(sources, want) {
				t.Fatalf("disks has %q; want %q", sources, want)
			}
			for _, f := range all {
				id, data := f.source, ""
				if f.source == c.source {
					id, data = c.source+"-vdb", c.data
				}
				if f.id != id || string(f.data) != data || f.err != nil || f.absent() != (data == "") || f.missing == "" {
					t.Errorf("disks has %+v %q; want %s with %q", f, f.data, id, data)
				}
			}
		})
	}
}

// What the kernel was handed at its start.
const (
	efiDir             = "sys/firmware/efi"
	bootParams         = "sys/kernel/boot_params/data"
	secureBootOffset   = 0x1ec
	secureBootDisabled = 2
	secureBootEnabled  = 3
)

// params is what a kernel of x86 was handed, under that mode of Secure Boot.
func params(mode byte) string {
	data := make([]byte, 4096)
	data[secureBootOffset] = mode
	return string(data)
}

const (
	allowsDisks      = `{"disk_user_data_under_secure_boot": true}`
	allowsDisksField = "user_data.disks_under_secure_boot: true"
)

func TestWhenDisksAreAllowed(t *testing.T) {
	for _, c := range []struct {
		name    string
		files   map[string]string
		refusal string // "": allowed
	}{
		{"no EFI", map[string]string{"sys/kernel/x": ""}, ""},
		{"no EFI, and the byte was not set", map[string]string{bootParams: params(0)}, ""},
		{"disabled", map[string]string{efiDir + "/x": "", bootParams: params(secureBootDisabled)}, ""},
		{"enabled", map[string]string{efiDir + "/x": "", bootParams: params(secureBootEnabled)}, "under Secure Boot, unless"},
		{"enabled, and the image allows it", map[string]string{efiDir + "/x": "", bootParams: params(secureBootEnabled), "usr/lib/cosi/image.json": allowsDisks}, ""},
		{"enabled, and image.json is broken", map[string]string{efiDir + "/x": "", bootParams: params(secureBootEnabled), "usr/lib/cosi/image.json": allowsDisks[1:]}, "under Secure Boot"},
		{"the boot loader left it unset", map[string]string{efiDir + "/x": "", bootParams: params(0)}, "not known"},
		{"the firmware answered with an error", map[string]string{efiDir + "/x": "", bootParams: params(1)}, "not known"},
		{"a value of later kernels", map[string]string{efiDir + "/x": "", bootParams: params(4)}, "not known"},
		{"the kernel does not tell", map[string]string{efiDir + "/x": ""}, "not known"},
		{"too short", map[string]string{efiDir + "/x": "", bootParams: params(0)[:secureBootOffset]}, "not known"},
		{"cannot be read", map[string]string{efiDir + "/x": "", bootParams + "/x": ""}, "not known"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			for path, content := range c.files {
				put(t, root, path, content)
			}
			for _, source := range []string{sourceCIDATA, sourceConfigDrive, sourceESP} {
				err := (&controller{root: root, trusted: new(bool)}).diskAllowed(source)
				if c.refusal == "" {
					if err != nil {
						t.Errorf("diskAllowed(%q) = %v; want none", source, err)
					}
					continue
				}
				if !errors.Is(err, errRefused) || !strings.Contains(err.Error(), c.refusal) || !strings.Contains(err.Error(), allowsDisksField) {
					t.Errorf("diskAllowed(%q) = %v; want a refusal with %q and %q", source, err, c.refusal, allowsDisksField)
				}
			}
		})
	}
}

// anotherCA serves with a certificate of its own: httptest's servers share theirs.
func anotherCA(t *testing.T, serve http.Handler) *httptest.Server {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(serve)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: key}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

func TestFetch(t *testing.T) {
	var plain, secure, other *httptest.Server
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/user-data":
			w.Write([]byte(document1))
		case "/to-http":
			http.Redirect(w, r, plain.URL+"/user-data", http.StatusFound)
		case "/to-https":
			http.Redirect(w, r, secure.URL+"/user-data", http.StatusFound)
		case "/to-other":
			http.Redirect(w, r, other.URL+"/user-data", http.StatusFound)
		case "/there-and-back": // whoever changes http on the way can send the node anywhere, to another server of the pinned CA too
			http.Redirect(w, r, plain.URL+"/to-https", http.StatusFound)
		case "/round":
			http.Redirect(w, r, "/round", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	})
	plain, secure = httptest.NewServer(serve), httptest.NewTLSServer(serve)
	defer plain.Close()
	defer secure.Close()
	other = anotherCA(t, serve)
	sum := sha256.Sum256([]byte(document1))
	digest := hex.EncodeToString(sum[:])

	pinned := t.TempDir()
	put(t, pinned, caFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})))
	foreign := t.TempDir()
	put(t, foreign, caFile, "no certificate at all")
	unreadable := t.TempDir()
	if err := os.MkdirAll(filepath.Join(unreadable, caFile), 0o755); err != nil {
		t.Fatal(err)
	}

	for _, c := range []struct {
		name, root, url string
		unauthenticated bool
		wantErr         string
		refused         bool
	}{
		{"http", "", plain.URL + "/user-data", true, "", false},
		{"http with digest", "", plain.URL + "/user-data#sha256=" + digest, false, "", false},
		{"https without a pinned CA", "", secure.URL + "/user-data", true, "", false},
		{"https with the pinned CA", pinned, secure.URL + "/user-data", false, "", false},
		{"https with another CA", foreign, secure.URL + "/user-data", false, "certificate", false},
		{"https with a CA that cannot be read", unreadable, secure.URL + "/user-data", false, "userdata-ca.pem", false},
		{"wrong digest", "", plain.URL + "/user-data#sha256=" + strings.Repeat("0", 64), false, "SHA-256 is", true},
		{"bad fragment", "", plain.URL + "/user-data#md5=1", false, "is not #sha256=", true},
		{"ftp", "", "ftp://127.0.0.1/x", false, "neither http", true},
		{"missing", "", plain.URL + "/other", true, "404", false},
		{"https redirects to https", pinned, secure.URL + "/to-https", false, "", false},
		{"http redirects to https", pinned, plain.URL + "/to-https", true, "", false},
		{"https redirects to http", pinned, secure.URL + "/to-http", false, secure.URL + "/to-http redirects to http://", true},
		{"https without a pinned CA redirects to http", "", secure.URL + "/to-http", true, "away from https", true},
		{"https by way of http to https", pinned, secure.URL + "/there-and-back", false, "away from https", true},
		{"https redirects to a server of another CA", pinned, secure.URL + "/to-other", false, "certificate", false},
		{"round and round", "", plain.URL + "/round", true, "more than 10 redirects", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := c.root
			if root == "" {
				root = t.TempDir()
			}
			f := fetch(t.Context(), root, c.url)
			if c.wantErr != "" {
				if f.err == nil || !strings.Contains(f.err.Error(), c.wantErr) || errors.Is(f.err, errRefused) != c.refused || f.data != nil {
					t.Fatalf("fetch = %q, %v; want an error with %q, refused %v", f.data, f.err, c.wantErr, c.refused)
				}
				return
			}
			if f.err != nil || string(f.data) != document1 || f.unauthenticated != c.unauthenticated {
				t.Fatalf("fetch = %+v; want unauthenticated %v", f, c.unauthenticated)
			}
		})
	}
}
