// Package setuptest runs hack/setup on machines that lack this and that. A machine is a directory with commands that only say what the
// script asks them, and an apt that brings what the test took away.
package setuptest

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// packages are what hack/setup may install, with the file by which it knows each.
var packages = map[string]string{
	"qemu-system-x86": "bin/qemu-system-x86_64", "qemu-utils": "bin/qemu-img", "ovmf": "usr/share/OVMF/OVMF_CODE_4M.fd", "e2fsprogs": "sbin/mke2fs",
	"gcc": "bin/cc", "dosfstools": "sbin/fsck.vfat", "gdisk": "sbin/sgdisk", "cpio": "bin/cpio", "xorriso": "bin/xorriso",
	"sbsigntool": "bin/sbverify", "erofs-utils": "bin/fsck.erofs", "mtools": "bin/mcopy", "openssl": "bin/openssl", "etcd-server": "bin/etcd",
	"zstd": "bin/zstd", "xz-utils": "bin/xz", "acpica-tools": "bin/iasl", "curl": "bin/curl", "chromium": "bin/chromium",
	"qemu-system-arm": "bin/qemu-system-aarch64", "qemu-efi-aarch64": "usr/share/AAVMF/AAVMF_CODE.fd",
	"cryptsetup-bin": "sbin/veritysetup", "osslsigncode": "bin/osslsigncode", "swtpm": "bin/swtpm", "softhsm2": "bin/softhsm2-util",
	"make": "bin/make", "bc": "bin/bc", "bison": "bin/bison", "flex": "bin/flex", "lz4": "bin/lz4",
	"dwarves": "bin/pahole", "libelf-dev": "usr/include/libelf.h", "gcc-x86-64-linux-gnu": "bin/x86_64-linux-gnu-gcc",
	"gcc-aarch64-linux-gnu": "bin/aarch64-linux-gnu-gcc",
}

// Commands of the machine. What they do is written down in the file log.
const (
	qemu   = "#!/bin/sh\necho 'QEMU emulator version VERSION (Debian 1:VERSION+ds-1)'\n"
	golang = `#!/bin/sh
case "$*" in
"env GOVERSION") echo GOVERSION ;;
"env GOTOOLCHAIN") echo GOTOOLCHAIN ;;
*) exit 1 ;;
esac
`
	apt = `#!/bin/sh
echo "apt-get $*" >>"$COSI_SETUP_ROOT/log"
for package; do
	[ ! -d "$COSI_SETUP_ROOT/archive/$package" ] || cp -a "$COSI_SETUP_ROOT/archive/$package/." "$COSI_SETUP_ROOT"
done
`
	sudo         = "#!/bin/sh\n[ \"$1\" = -n ] || exit 1\nshift\n[ \"$1\" = true ] || echo \"as root: $1\" >>\"$COSI_SETUP_ROOT/log\"\nexec \"$@\"\n"
	refusingSudo = "#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n"
)

type machine struct {
	t    *testing.T
	root string
}

// debian is a machine of root's that lacks nothing.
func debian(t *testing.T, codename string) *machine {
	t.Helper()
	m := &machine{t, t.TempDir()}
	for _, command := range []string{"sh", "true", "awk", "sed", "tr", "grep", "cat", "tee", "env", "cp", "dirname"} {
		path, err := exec.LookPath(command)
		if err != nil {
			t.Fatal(err)
		}
		m.write("bin/"+command, "")
		if err := errors.Join(os.Remove(m.path("bin/"+command)), os.Symlink(path, m.path("bin/"+command))); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range packages {
		m.write(file, "#!/bin/sh\n")
	}
	for _, of := range []string{"x86_64", "aarch64"} {
		m.write("bin/qemu-system-"+of, strings.ReplaceAll(qemu, "VERSION", "10.0.2"))
	}
	m.golang("go1.26.1", "auto")
	m.write("bin/apt-get", apt)
	m.write("bin/id", "#!/bin/sh\necho 0\n")
	m.write("etc/os-release", "ID=debian\nVERSION_CODENAME="+codename+"\n")
	m.write("etc/apt/sources.list.d/.keep", "")
	return m
}

func (m *machine) path(file string) string { return filepath.Join(m.root, file) }

func (m *machine) write(file, content string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(file)), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(m.path(file), []byte(content), 0o755); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) read(file string) string {
	m.t.Helper()
	data, err := os.ReadFile(m.path(file))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.t.Fatal(err)
	}
	return string(data)
}

// lacks takes packages away; apt has them.
func (m *machine) lacks(names ...string) {
	m.t.Helper()
	for _, name := range names {
		m.write("archive/"+name+"/"+packages[name], m.read(packages[name]))
		if err := os.Remove(m.path(packages[name])); err != nil {
			m.t.Fatal(err)
		}
	}
}

// oldQEMU puts Debian 12's in the place of a new one, which apt has.
func (m *machine) oldQEMU() {
	m.lacks("qemu-system-x86")
	m.write("bin/qemu-system-x86_64", strings.ReplaceAll(qemu, "VERSION", "7.2.15"))
}

func (m *machine) golang(version, toolchain string) {
	m.write("bin/go", strings.NewReplacer("GOVERSION)", "GOVERSION)", "echo GOVERSION", "echo "+version, "echo GOTOOLCHAIN", "echo "+toolchain).Replace(golang))
}

// ofSomebody makes it a machine whose user is not root and has this sudo.
func (m *machine) ofSomebody(sudo string) {
	m.write("bin/id", "#!/bin/sh\necho 1000\n")
	m.write("bin/sudo", sudo)
}

// setup runs hack/setup and returns what it says, and whether it is content.
func (m *machine) setup(goal string) (says string, content bool) {
	m.t.Helper()
	script, err := filepath.Abs("../setup")
	if err != nil {
		m.t.Fatal(err)
	}
	cmd := exec.Command(script, goal)
	cmd.Env = []string{"COSI_SETUP_ROOT=" + m.root, "PATH=" + m.path("bin")}
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		m.t.Fatal(err)
	}
	return string(out), err == nil
}

// files are all that lies on the machine, with the content.
func (m *machine) files() string {
	m.t.Helper()
	var all bytes.Buffer
	err := filepath.WalkDir(m.root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		all.WriteString(path + "\n")
		if entry.Type().IsRegular() {
			all.WriteString(m.read(strings.TrimPrefix(path, m.root)))
		}
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return all.String()
}

// refuses runs hack/setup, which should change nothing and say each of wants.
func (m *machine) refuses(goal string, wants ...string) {
	m.t.Helper()
	before := m.files()
	says, content := m.setup(goal)
	if content {
		m.t.Errorf("setup is content, and says %q", says)
	}
	for _, want := range wants {
		if !strings.Contains(says, want) {
			m.t.Errorf("setup says %q; want %q", says, want)
		}
	}
	if m.files() != before {
		m.t.Error("it has changed the machine")
	}
}

// installs runs hack/setup, which should do this, and then have nothing left to do.
func (m *machine) installs(goal, log string) {
	m.t.Helper()
	if says, content := m.setup(goal); !content {
		m.t.Errorf("setup fails: %s", says)
	}
	if got := m.read("log"); got != log {
		m.t.Errorf("it did\n%s\nwant\n%s", got, log)
	}
	m.silent(goal)
}

// silent runs hack/setup, which should say and change nothing.
func (m *machine) silent(goal string) {
	m.t.Helper()
	before := m.files()
	if says, content := m.setup(goal); !content || says != "" {
		m.t.Errorf("setup %s says %q, content %v; want silence", goal, says, content)
	}
	if m.files() != before {
		m.t.Errorf("setup %s has changed the machine", goal)
	}
}

func TestNothingIsMissing(t *testing.T) {
	for _, codename := range []string{"bookworm", "trixie"} {
		m := debian(t, codename)
		m.silent("run")
		m.silent("test")
		m.silent("arm64")
		m.silent("kernel")
		m.silent("kernel-arm64")
		m.ofSomebody(refusingSudo)
		m.silent("test")
		m.lacks("gcc", "dosfstools", "gdisk", "cpio", "xorriso", "sbsigntool", "erofs-utils", "mtools", "openssl", "etcd-server", "zstd", "xz-utils",
			"qemu-system-arm", "qemu-efi-aarch64", "cryptsetup-bin", "osslsigncode", "swtpm")
		m.silent("run") // which needs none of them
	}
}

func TestGo(t *testing.T) {
	for _, test := range []struct{ version, toolchain, says string }{
		{"go1.26.1", "local", ""},
		{"go1.27rc1", "local", ""},
		{"go1.21.0", "auto", ""}, // fetches the toolchain
		{"go1.24.4", "local", "Go 1.24.4 is too old to build this or to fetch a newer toolchain"},
		{"go1.19.8", "auto", "Go 1.19.8 is too old to build this or to fetch a newer toolchain (Debian 12's own is): install Go 1.26 or newer from https://go.dev/dl/"},
	} {
		t.Run(test.version+" "+test.toolchain, func(t *testing.T) {
			m := debian(t, "bookworm")
			m.golang(test.version, test.toolchain)
			if test.says == "" {
				m.silent("run")
				return
			}
			m.lacks("gcc") // it is not even begun with
			m.refuses("test", test.says)
		})
	}
	m := debian(t, "bookworm")
	if err := os.Remove(m.path("bin/go")); err != nil {
		t.Fatal(err)
	}
	m.refuses("run", "Go is missing: install Go 1.26 or newer")
}

func TestAnUnknownGoalIsRefused(t *testing.T) {
	m := debian(t, "trixie")
	m.lacks("gcc") // which would be installed
	m.refuses("tset", "tset is not what one can be set up for: run, test, arm64, kernel, kernel-arm64 or generate")
}

func TestWithoutRightsItPrintsTheOneCommand(t *testing.T) {
	script, err := filepath.Abs("../setup")
	if err != nil {
		t.Fatal(err)
	}
	m := debian(t, "trixie")
	m.lacks("ovmf", "gcc")
	m.ofSomebody(refusingSudo)
	m.refuses("test", "missing: ovmf gcc libc6-dev", "\tsudo "+script+" test\n")
	m.refuses("run", "missing: ovmf \n", "\tsudo "+script+" run\n")
	if err := os.Remove(m.path("bin/sudo")); err != nil {
		t.Fatal(err)
	}
	m.refuses("run", "missing: ovmf \n", "\tsudo "+script+" run\n")
}

func TestWithoutAptItSaysWhatIsMissing(t *testing.T) {
	m := debian(t, "trixie")
	m.oldQEMU()
	m.lacks("mtools")
	for _, file := range []string{"bin/apt-get", "etc/os-release"} {
		if err := os.Remove(m.path(file)); err != nil {
			t.Fatal(err)
		}
	}
	m.refuses("test", "there is no apt here: qemu-system-x86 qemu-system-common qemu-system-data seabios mtools (QEMU must be 10 or newer)")
}

func TestMissingPackagesAreInstalled(t *testing.T) {
	m := debian(t, "trixie")
	m.lacks("qemu-system-x86", "gcc", "gdisk")
	m.installs("test", `apt-get update -qq
apt-get install -y -qq --no-install-recommends qemu-system-x86 qemu-system-common qemu-system-data seabios gcc libc6-dev gdisk
`)
	m = debian(t, "bookworm")
	m.lacks("qemu-utils") // with a new QEMU the release's packages will do
	m.ofSomebody(sudo)
	m.installs("run", `as root: apt-get
apt-get update -qq
as root: env
apt-get install -y -qq --no-install-recommends qemu-utils
`)
}

// Nobody needs what is for arm64 who does not ask for it.
func TestPackagesForARM(t *testing.T) {
	m := debian(t, "trixie")
	m.lacks("qemu-system-arm", "qemu-efi-aarch64")
	m.silent("test")
	m.installs("arm64", `apt-get update -qq
apt-get install -y -qq --no-install-recommends qemu-system-arm qemu-system-common qemu-system-data qemu-efi-aarch64
`)
	m = debian(t, "bookworm")
	m.write("etc/apt/sources.list", "deb http://mirror.example/debian bookworm-backports main\n")
	m.lacks("qemu-system-arm")
	m.write("bin/qemu-system-aarch64", strings.ReplaceAll(qemu, "VERSION", "7.2.15"))
	m.installs("arm64", `apt-get update -qq
apt-get install -y -qq --no-install-recommends -t bookworm-backports qemu-system-arm qemu-system-common qemu-system-data qemu-utils
apt-get install -y -qq --no-install-recommends qemu-system-arm qemu-system-common qemu-system-data
`)
}

// The machine's own compiler builds a kernel of its kind; for another kind there is a compiler beside it.
func TestPackagesForAKernel(t *testing.T) {
	m := debian(t, "trixie")
	m.lacks("bc", "bison", "flex", "lz4", "make", "xz-utils", "dwarves", "libelf-dev", "gcc-aarch64-linux-gnu")
	m.silent("run")
	m.installs("kernel", `apt-get update -qq
apt-get install -y -qq --no-install-recommends make bc bison flex lz4 xz-utils dwarves libelf-dev
`)
	m.write("log", "")
	m.installs("kernel-arm64", `apt-get update -qq
apt-get install -y -qq --no-install-recommends gcc-aarch64-linux-gnu
`)
	m = debian(t, "bookworm")
	m.lacks("gcc", "gcc-x86-64-linux-gnu")
	m.write("archive/gcc/bin/x86_64-linux-gnu-gcc", "#!/bin/sh\n")
	m.installs("kernel", `apt-get update -qq
apt-get install -y -qq --no-install-recommends gcc libc6-dev
`)
}

func TestWhatAptDoesNotBringIsSaid(t *testing.T) {
	m := debian(t, "trixie")
	m.lacks("ovmf", "qemu-utils")
	if err := os.RemoveAll(m.path("archive/ovmf")); err != nil {
		t.Fatal(err)
	}
	if says, content := m.setup("run"); content || !strings.Contains(says, "still missing after installing: ovmf \n") {
		t.Errorf("setup says %q, content %v; want that ovmf is still missing", says, content)
	}
}

// Debian 12 has QEMU 7: the backports come from the machine's own mirror, under its own key.
func TestBackportsAreDerivedFromTheMachinesOwnEntry(t *testing.T) {
	const derived = "etc/apt/sources.list.d/cosi-backports.sources"
	for _, test := range []struct{ name, file, sources, want string }{
		{"deb822", "debian.sources", `# Security first.
Types: deb
URIs: http://security.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/security.gpg

Types: deb deb-src
# The mirror.
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main non-free-firmware
Signed-By: /usr/share/keyrings/archive.gpg
`, `Types: deb deb-src
URIs: http://mirror.example/debian
Signed-By: /usr/share/keyrings/archive.gpg
Suites: bookworm-backports
Components: main
`},
		{"a line with its key", "debian.list", `# deb http://old.example/debian bookworm main
deb-src http://mirror.example/debian bookworm main
deb http://security.example/debian-security bookworm-security main
deb [ broken
deb [arch=amd64 signed-by=/usr/share/keyrings/archive.gpg] http://mirror.example/debian bookworm main contrib
deb http://other.example/debian bookworm main
`, `Types: deb
URIs: http://mirror.example/debian
Signed-By: /usr/share/keyrings/archive.gpg
Suites: bookworm-backports
Components: main
`},
		{"a line", "../sources.list", "deb http://mirror.example/debian bookworm main\n", `Types: deb
URIs: http://mirror.example/debian
Suites: bookworm-backports
Components: main
`},
		{"they are there already", "backports.list", "deb http://mirror.example/debian bookworm-backports main\n", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := debian(t, "bookworm")
			m.oldQEMU()
			m.lacks("mtools")
			m.write("etc/apt/sources.list.d/"+test.file, test.sources)
			m.installs("test", `apt-get update -qq
apt-get install -y -qq --no-install-recommends -t bookworm-backports qemu-system-x86 qemu-system-common qemu-system-data qemu-utils seabios
apt-get install -y -qq --no-install-recommends qemu-system-x86 qemu-system-common qemu-system-data seabios mtools
`)
			if got := m.read(derived); got != test.want {
				t.Errorf("the new entry is\n%s\nwant\n%s", got, test.want)
			}
		})
	}
	m := debian(t, "bookworm")
	m.oldQEMU()
	m.refuses("run", "no apt entry for bookworm found to derive its backports from")
}
