package boot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/cosi-os/cosi/hack/netnstest"
	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/uki"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/book"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/dhcp"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/image"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/image/imagetest"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/nettest"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/seen"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

const (
	plain  = "52:54:00:aa:bb:01" // boots the image, with an argument
	secret = "52:54:00:aa:bb:02" // has user data, too
	other  = "52:54:00:aa:bb:03" // is known by what it says
	arm    = "52:54:00:aa:bb:04" // boots the image for arm64
	id     = "11111111-2222-3333-4444-555555555555"

	secrets = "metadata: {type: certificates, id: node}\nspec: {serving_key: secret}\n"
)

// served is a boot server with a book, for clients of the loopback, all of whom are one machine.
type served struct {
	*Server
	t          *testing.T
	plain, tls *httptest.Server
	files      map[string][]byte
	machine    string // of whoever asks; "" cannot be seen
	dir        string
	answers    atomic.Bool // a node's API
}

func serve(t *testing.T) *served {
	t.Helper()
	s := &served{t: t, dir: t.TempDir(), machine: plain}
	_, s.files = imagetest.Write(t, s.dir, 300_000)
	imagetest.WriteARM(t, s.dir, 300_000)
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("secret.yaml", secrets)
	write("machines.yaml", fmt.Sprintf(`machines:
  - {mac: %q, image: cosi-tiny-amd64, arguments: [quiet]}
  - {mac: %q, image: cosi-tiny-amd64, user_data: secret.yaml, arguments: [quiet]}
  - {uuid: %s, image: cosi-tiny-amd64, arguments: [by=uuid]}
  - {serial: "S 1", mac: %q, image: cosi-tiny-amd64, arguments: [by=serial]}
  - {mac: %q, image: cosi-tiny-arm64}
  - {mac: "52:54:00:aa:bb:09", image: none}
`, plain, secret, id, other, arm))
	machines, err := book.Open(filepath.Join(s.dir, "machines.yaml"), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	s.Server = New(Config{
		Book: machines, Images: &image.Store{Dir: s.dir}, Seen: seen.New(100, time.Now), Log: t.Logf,
		Neighbour: func(netip.Addr) (net.HardwareAddr, bool) {
			mac, err := net.ParseMAC(s.machine)
			return mac, err == nil
		},
		Probe: func(context.Context, netip.Addr) error {
			if s.answers.Load() {
				return nil
			}
			return errors.New("nobody")
		},
	})
	s.plain, s.tls = httptest.NewServer(s.Handler(false)), httptest.NewTLSServer(s.Handler(true))
	t.Cleanup(func() { s.plain.Close(); s.tls.Close() })
	s.HTTP, s.HTTPS, s.Firmware = s.plain.URL, s.tls.URL, s.plain.URL
	return s
}

// get returns what a URL has, and the status.
func (s *served) get(url string) (string, int) {
	s.t.Helper()
	r, err := s.tls.Client().Get(url)
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Body.Close()
	data, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(data), r.StatusCode
}

// from returns what a machine gets from its own directory.
func (s *served) from(mac, file string) (string, int) {
	s.t.Helper()
	return s.get(s.HTTP + "/boot/" + strings.ReplaceAll(mac, ":", "-") + "/" + file)
}

func (s *served) expectStage(mac string, stage seen.Stage, problem string) {
	s.t.Helper()
	if m, _ := s.Seen.Get(mac); m.Stage != stage || (m.Problem == "") != (problem == "") || !strings.Contains(m.Problem, problem) {
		s.t.Errorf("%s is at stage %q, problem %q; want %q, %q", mac, m.Stage, m.Problem, stage, problem)
	}
}

func client(mac string, f dhcp.Firmware) dhcp.Client {
	hardware, _ := net.ParseMAC(mac)
	return dhcp.Client{MAC: hardware, Firmware: f, Arch: "amd64", BIOS: f == dhcp.IPXE, Begins: true}
}

// A machine with an ARM processor is told of iPXE for it; what is for another processor no machine is told of, and the list says why.
func TestProcessorsGetWhatIsForThem(t *testing.T) {
	s := serve(t)
	s.machine = arm
	for _, tc := range []struct {
		mac, arch string
		firmware  dhcp.Firmware
		want      string // "" is a refusal
	}{
		{arm, "arm64", dhcp.UEFI, "52-54-00-aa-bb-04/ipxe-arm64.efi"},
		{arm, "arm64", dhcp.UEFIHTTP, s.Firmware + "/boot/52-54-00-aa-bb-04/uefi.efi"},
		{arm, "arm64", dhcp.IPXE, s.HTTP + "/boot/52-54-00-aa-bb-04/start.ipxe"},
		{arm, "amd64", dhcp.BIOS, ""}, {arm, "amd64", dhcp.UEFI, ""}, {arm, "amd64", dhcp.UEFIHTTP, ""}, {arm, "amd64", dhcp.IPXE, ""},
		{plain, "arm64", dhcp.UEFI, ""}, {plain, "arm64", dhcp.UEFIHTTP, ""}, {plain, "arm64", dhcp.IPXE, ""},
	} {
		c := client(tc.mac, tc.firmware)
		c.Arch = tc.arch
		if file, ok := s.Answer(c); ok != (tc.want != "") || file != tc.want {
			t.Errorf("%s of %s on %s is told %q, %v; want %q", tc.firmware, tc.mac, tc.arch, file, ok, tc.want)
		}
		problem := ""
		if tc.want == "" {
			problem = ": the firmware says that this machine is " + tc.arch
		}
		s.expectStage(tc.mac, seen.DHCP, problem)
	}
	f, err := s.OpenTFTP(netip.MustParseAddr("127.0.0.1"), "52-54-00-aa-bb-04/ipxe-arm64.efi")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	s.EndedTFTP(netip.MustParseAddr("127.0.0.1"), "52-54-00-aa-bb-04/ipxe-arm64.efi", nil)
	s.expectStage(arm, seen.Loader, "")
	for _, missing := range []string{"undionly.kpxe", "snponly.efi"} {
		if _, err := s.OpenTFTP(netip.MustParseAddr("127.0.0.1"), "52-54-00-aa-bb-04/"+missing); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s of an image for arm64: %v", missing, err)
		}
	}
}

// A machine with a BIOS goes from DHCP to the kernel, and the list shows each step.
func TestABootByBIOS(t *testing.T) {
	s := serve(t)
	expect := func(f dhcp.Firmware, want string) {
		t.Helper()
		if file, ok := s.Answer(client(plain, f)); !ok || file != want {
			t.Errorf("%s is told %q, %v; want %q", f, file, ok, want)
		}
	}
	expect(dhcp.BIOS, "52-54-00-aa-bb-01/undionly.kpxe")
	s.expectStage(plain, seen.DHCP, "")
	f, err := s.OpenTFTP(netip.MustParseAddr("127.0.0.1"), "52-54-00-aa-bb-01/undionly.kpxe")
	if err != nil || f.Size() != int64(len(s.files[".undionly.kpxe"])) {
		t.Fatalf("OpenTFTP: %v", err)
	}
	f.Close()
	s.EndedTFTP(netip.MustParseAddr("127.0.0.1"), "52-54-00-aa-bb-01/undionly.kpxe", nil)
	s.expectStage(plain, seen.Loader, "")
	expect(dhcp.IPXE, s.HTTP+"/boot/52-54-00-aa-bb-01/start.ipxe")
	s.expectStage(plain, seen.Loader, "")

	if got, status := s.from(plain, "start.ipxe"); status != 200 || !strings.HasPrefix(got, "#!ipxe\n") || !strings.Contains(got, "machine.ipxe?uuid=${uuid}") {
		t.Errorf("start.ipxe: %d\n%s", status, got)
	}
	if got, status := s.from(plain, "machine.ipxe?uuid=22222222-2222-3333-4444-555555555555&serial=%00S+7%0a"); status != 200 || got != "#!ipxe\nset arguments quiet\nchain cosi-tiny-amd64.ipxe\n" {
		t.Errorf("machine.ipxe: %d\n%s", status, got)
	}
	s.expectStage(plain, seen.Script, "")
	for _, suffix := range []string{".ipxe", ".initramfs"} {
		if got, status := s.from(plain, imagetest.Name+suffix); status != 200 || got != string(s.files[suffix]) {
			t.Errorf("%s: %d, %d bytes; want %d", suffix, status, len(got), len(s.files[suffix]))
		}
		s.expectStage(plain, seen.Script, "")
	}
	if got, status := s.from(plain, imagetest.Name+".vmlinuz"); status != 200 || got != string(s.files[".vmlinuz"]) {
		t.Errorf(".vmlinuz: %d, %d bytes", status, len(got))
	}
	m := s.reaches(plain, seen.Kernel)
	if m.Boots != 1 || m.Firmware != "BIOS" || m.Image != imagetest.Name || m.Serial != "S 7" || fmt.Sprint(m.UUIDs) != "[22222222-2222-3333-4444-555555555555]" || !m.Address.IsLoopback() {
		t.Errorf("the list has %+v", m)
	}
	expect(dhcp.BIOS, "52-54-00-aa-bb-01/undionly.kpxe")
	if m, _ := s.Seen.Get(plain); m.Boots != 2 || m.Stage != seen.DHCP {
		t.Errorf("when it boots again, the list has %+v", m)
	}
}

// reaches waits until a machine has come so far: what it was sent is noted behind its back.
func (s *served) reaches(mac string, stage seen.Stage) seen.Machine {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	for {
		_, now, _ := s.Seen.Since(1 << 62)
		m, _ := s.Seen.Get(mac)
		if m.Stage == stage {
			return m
		}
		if err := s.Seen.Wait(ctx, now); err != nil {
			s.t.Fatalf("%s is at %q (%s); want %q", mac, m.Stage, m.Problem, stage)
		}
	}
}

// Firmware that boots by HTTP gets the image's unified kernel image with the machine's own arguments in it, and the node finds its user data by them.
func TestABootByHTTP(t *testing.T) {
	s := serve(t)
	s.machine = secret
	url, ok := s.Answer(client(secret, dhcp.UEFIHTTP))
	if want := s.Firmware + "/boot/52-54-00-aa-bb-02/uefi.efi"; !ok || url != want {
		t.Fatalf("UEFI is told %q, %v; want %q", url, ok, want)
	}
	length, err := s.tls.Client().Head(url)
	if err != nil || length.Header.Get("Content-Type") != "application/efi" {
		t.Fatalf("HEAD: %v, %v", length, err)
	}
	s.expectStage(secret, seen.DHCP, "")
	got, status := s.get(url)
	if status != 200 || int64(len(got)) != length.ContentLength {
		t.Errorf("GET: %d, %d bytes; HEAD said %d", status, len(got), length.ContentLength)
	}
	s.reaches(secret, seen.Kernel)
	_, argument, _ := strings.Cut(got, imagetest.Arguments+" cosi.userdata=")
	argument, _, _ = strings.Cut(argument, "\x00")
	address, rest, _ := strings.Cut(argument, " ")
	if rest != "quiet" || !strings.HasPrefix(address, s.HTTPS+"/user-data/") || !strings.HasSuffix(address, "#sha256="+digest([]byte(secrets))) {
		t.Fatalf("the arguments are %q", argument)
	}
	want, err := uki.Extend(bytes.NewReader(s.files[".efi"]), "cosi.userdata="+argument)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(content.Reader(want)); err != nil || string(data) != got {
		t.Errorf("the image is another: %d bytes; want %d, %v", len(got), len(data), err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	address, _, _ = strings.Cut(address, "#")
	if data, status := s.get(address); status != 200 || data != secrets {
		t.Errorf("user data: %d\n%s", status, data)
	}
	s.reaches(secret, seen.UserData)
	s.answers.Store(true)
	s.reaches(secret, seen.Serving)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// User data is a machine's own: nobody gets it who is another, whom nobody can see, who has no ticket, or an old one, or who asks without TLS.
func TestUserDataIsGivenToItsMachineAlone(t *testing.T) {
	s := serve(t)
	now := time.Now()
	s.tickets.now = func() time.Time { return now }
	script := func() (string, int) { return s.from(secret, "machine.ipxe") }
	ticketIn := func(script string) string {
		t.Helper()
		_, url, ok := strings.Cut(script, "cosi.userdata=")
		url, _, _ = strings.Cut(url, "#")
		if !ok {
			t.Fatalf("no user data in %q", script)
		}
		return url
	}
	for _, who := range []string{plain, other, ""} {
		s.machine = who
		if got, status := script(); status != http.StatusForbidden || strings.Contains(got, "user-data") {
			t.Errorf("%q gets the script: %d\n%s", who, status, got)
		}
		if got, status := s.from(secret, "uefi.efi"); status != http.StatusForbidden || strings.Contains(got, "user-data") {
			t.Errorf("%q gets the image: %d, %d bytes", who, status, len(got))
		}
	}
	s.expectStage(secret, "", "MAC address cannot be seen")
	s.machine = secret
	got, status := script()
	url := ticketIn(got)
	if again, _ := script(); status != 200 || again != got {
		t.Errorf("the second time, the script is another:\n%s%s", got, again)
	}
	for _, who := range []string{plain, ""} {
		s.machine = who
		if got, status := s.get(url); status != http.StatusForbidden {
			t.Errorf("%q gets %d\n%s", who, status, got)
		}
	}
	s.machine = secret
	for _, wrong := range []string{strings.Replace(url, s.HTTPS, s.HTTP, 1), url + "A", s.HTTPS + "/user-data/", s.HTTPS + "/user-data/secret.yaml", s.HTTPS + "/user-data/..%2fsecret.yaml"} {
		if got, status := s.get(wrong); status != http.StatusNotFound {
			t.Errorf("%s: %d\n%s", wrong, status, got)
		}
	}
	if got, status := s.get(url); status != 200 || got != secrets {
		t.Errorf("its own machine gets %d\n%s", status, got)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "secret.yaml"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, status := s.get(url); status != http.StatusInternalServerError {
		t.Errorf("after a change: %d", status)
	}
	s.expectStage(secret, seen.UserData, "has changed")
	got, _ = script()
	if next := ticketIn(got); next == url {
		t.Error("for other user data there is the same ticket")
	} else if _, status := s.get(url); status != http.StatusNotFound {
		t.Errorf("with the old ticket: %d", status)
	} else {
		now = now.Add(ticketTime)
		if _, status := s.get(next); status != http.StatusNotFound {
			t.Errorf("after an hour: %d", status)
		}
	}
	s.machine, s.Routed = "", true
	if _, status := s.get(ticketIn(first(script()))); status != 200 {
		t.Errorf("with --routed, a machine that cannot be seen gets %d", status)
	}
}

func first(text string, _ int) string { return text }

func TestMachinesByUUIDAndSerialNumber(t *testing.T) {
	s := serve(t)
	s.machine = other
	for query, want := range map[string]string{"uuid=" + strings.ToUpper(id): "set arguments by=uuid\n", "uuid=x&serial=S%201": "set arguments by=serial\n"} {
		if file, ok := s.Answer(client(other, dhcp.UEFI)); !ok || file != "52-54-00-aa-bb-03/snponly.efi" {
			t.Errorf("before it has said its serial number it is told %q, %v", file, ok)
		}
		f, err := s.OpenTFTP(netip.Addr{}, "52-54-00-aa-bb-03/snponly.efi")
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if file, ok := s.Answer(client(other, dhcp.UEFIHTTP)); ok {
			t.Errorf("UEFI HTTP, which says no serial number, is told %q", file)
		}
		if got, status := s.from(other, "uefi.efi"); status != 404 {
			t.Errorf("the image for UEFI HTTP: %d, %d bytes", status, len(got))
		}
		if got, status := s.from(other, "machine.ipxe?"+query); status != 200 || !strings.Contains(got, want) {
			t.Errorf("%s: %d\n%s", query, status, got)
		}
		s.Seen.Note(other, func(m *seen.Machine) { m.UUIDs, m.Serial = nil, "" })
	}
}

// QEMU's machines for arm64 have none, unless they are given one.
func TestAMachineWithoutAUUID(t *testing.T) {
	s := serve(t)
	for _, none := range []string{"00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", ""} {
		if got, status := s.from(plain, "machine.ipxe?uuid="+none); status != 200 {
			t.Errorf("uuid=%s: %d\n%s", none, status, got)
		}
		if m, _ := s.Seen.Get(plain); len(m.UUIDs) != 0 {
			t.Errorf("uuid=%s: the list has the UUIDs %s", none, m.UUIDs)
		}
	}
}

func TestWhatIsNotThere(t *testing.T) {
	s := serve(t)
	for _, path := range []string{
		"/", "/boot/", "/boot/52-54-00-aa-bb-01/", "/boot/52-54-00-aa-bb-03/undionly.kpxe/", "/boot/52-54-00-aa-bb-01/none", "/boot/52-54-00-aa-bb-01/machines.yaml", "/boot/52-54-00-aa-bb-01/..%2fmachines.yaml",
		"/boot/52-54-00-aa-bb-01/cosi-tiny-amd64.manifest.json", "/boot/52:54:00:aa:bb:01/start.ipxe", "/boot/52-54-00-AA-BB-01/start.ipxe", "/boot/..%2f..%2fetc/passwd", "/boot/x/start.ipxe", "/user-data/x",
	} {
		if got, status := s.get(s.HTTP + path); status != http.StatusNotFound {
			t.Errorf("%s: %d\n%s", path, status, got)
		}
	}
	for _, name := range []string{"", "undionly.kpxe", "52-54-00-aa-bb-01", "52-54-00-aa-bb-01/../machines.yaml", "/etc/passwd", "52-54-00-aa-bb-01/" + filepath.Join(s.dir, "machines.yaml"), "../52-54-00-aa-bb-01/start.ipxe"} {
		if _, err := s.OpenTFTP(netip.MustParseAddr("127.0.0.1"), name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("by TFTP, %q: %v", name, err)
		}
	}
	for mac, want := range map[string]string{"52:54:00:aa:bb:08": "no image is named for it", "52:54:00:aa:bb:09": "outputs: [pxe]"} {
		if file, ok := s.Answer(client(mac, dhcp.UEFI)); ok {
			t.Errorf("%s is told %q", mac, file)
		}
		s.expectStage(mac, seen.DHCP, want)
	}
}

// The kernel's table knows who is on the link, and not who is elsewhere.
func TestNeighbours(t *testing.T) {
	link, _ := nettest.Link(t)
	hardware, _ := net.ParseMAC(plain)
	address := net.IPv4(192, 0, 2, 77)
	if err := netlink.NeighAdd(&netlink.Neigh{LinkIndex: link.Index, State: netlink.NUD_PERMANENT, IP: address, HardwareAddr: hardware}); err != nil {
		t.Fatal(err)
	}
	look := Neighbours(link, t.Logf)
	if mac, ok := look(netip.MustParseAddr("192.0.2.77")); !ok || mac.String() != plain {
		t.Errorf("the neighbour is %v, %v", mac, ok)
	}
	for _, unseen := range []string{"192.0.2.78", "192.0.2.1", "::1"} {
		if mac, ok := look(netip.MustParseAddr(unseen)); ok {
			t.Errorf("%s is %v", unseen, mac)
		}
	}
}

func FuzzPaths(f *testing.F) {
	s := &served{dir: f.TempDir()}
	imagetest.Write(f, s.dir, 10)
	if err := os.WriteFile(filepath.Join(s.dir, "machines.yaml"), []byte("default: {image: cosi-tiny-amd64}\n"), 0o600); err != nil {
		f.Fatal(err)
	}
	machines, err := book.Open(filepath.Join(s.dir, "machines.yaml"), f.Logf)
	if err != nil {
		f.Fatal(err)
	}
	server := New(Config{
		Book: machines, Images: &image.Store{Dir: s.dir}, Seen: seen.New(10, time.Now), Log: func(string, ...any) {},
		Neighbour: func(netip.Addr) (net.HardwareAddr, bool) { return nil, false },
	})
	f.Add("52-54-00-aa-bb-01", "machine.ipxe", "uuid="+id+"&serial=S%201")
	f.Add("52-54-00-aa-bb-01", "uefi.efi", "")
	f.Fuzz(func(t *testing.T, directory, name, query string) {
		server.OpenTFTP(netip.Addr{}, directory+"/"+name)
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL.RawQuery = query
		r.SetPathValue("machine", directory)
		r.SetPathValue("file", name)
		w := httptest.NewRecorder()
		server.bootFile(w, r)
		if strings.Contains(w.Body.String(), "default:") {
			t.Errorf("%q/%q gives the book", directory, name)
		}
	})
}
