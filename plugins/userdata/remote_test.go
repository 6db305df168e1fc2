package userdata

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/diskfs/go-diskfs/disk"
	"github.com/diskfs/go-diskfs/filesystem"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
)

// ofPlatform is a node whose image names a platform, with its services at addresses of the test.
func ofPlatform(t *testing.T, p platform, metadata, wire string) *controller {
	t.Helper()
	root := t.TempDir()
	put(t, root, "proc/cmdline", "\n")
	put(t, root, "usr/lib/cosi/image.json", `{"platform": "`+string(p)+`"}`)
	c := newController(root)
	c.metadata, c.wire = metadata, wire
	return c
}

func TestThePlatformsUserDataIsApplied(t *testing.T) {
	for p, serve := range clouds {
		t.Run(string(p), func(t *testing.T) {
			server := httptest.NewServer(serve(document1))
			defer server.Close()
			var report string
			r := plugintest.Start(t, declaration)
			runController(t, r, ofPlatform(t, p, server.URL, wireServer(t, &report).URL))
			if s := source(r, string(p)); s.State != stateApplied || !source(r, summaryID).Complete {
				t.Errorf("%s is %v", p, s)
			}
			if r.Get("data", &storagepb.MountPoint{}) == nil {
				t.Error("the mount is not there")
			}
			if (report != "") != (p == platformAzure) {
				t.Errorf("Azure was told %q", report)
			}
		})
	}
}

// TestAWrongGuessIsGivenUp: a machine that only looks as if it were of a platform is ready without that platform's answer, soon. One that is named
// is waited for.
func TestAWrongGuessIsGivenUp(t *testing.T) {
	for _, named := range []bool{false, true} {
		c := ofPlatform(t, platformAWS, "http://127.0.0.1:1", "")
		c.named = named
		var later atomic.Int64
		c.now = func() time.Time { return time.Unix(1e9+later.Load(), 0) }
		r := plugintest.Start(t, declaration)
		runController(t, r, c)
		if s := source(r, string(platformAWS)); s.State != stateUnreachable || source(r, summaryID).Complete {
			t.Fatalf("at first aws is %v", s)
		}
		wake := func(seconds int64) {
			later.Store(seconds)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.wake()
		}
		wake(int64(guessPatience / time.Second))
		if named {
			r.Wait("it is tried again", func() bool { return source(r, string(platformAWS)).NextTry.AsTime().Unix() > 1e9+100 })
		} else {
			r.Wait("it is given up", func() bool { return source(r, string(platformAWS)).State == stateAbsent })
		}
		r.Wait("the node knows", func() bool { return source(r, summaryID).Complete != named })
	}
}

// TestASourceThatHasNothingIsAskedOnce: disks come and go, and each wakes the plugin.
func TestASourceThatHasNothingIsAskedOnce(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		http.NotFound(w, r)
	}))
	defer server.Close()
	c := ofPlatform(t, platformOpenStack, server.URL, "")
	r := plugintest.Start(t, declaration)
	runController(t, r, c)
	r.Wait("all have been looked at", func() bool { return source(r, summaryID).Complete })
	makeDevice(t, c.root, "vdb", 40<<20, disk.FilesystemSpec{FSType: filesystem.TypeFat32, VolumeLabel: "CIDATA"}, nil)
	c.mu.Lock()
	c.wake()
	c.mu.Unlock()
	r.Wait("the disk is seen", func() bool { return source(r, "cidata-vdb").State == stateAbsent })
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// TestAConfigDriveIsAskedInTheServicesPlace: they hold the same, and the second would find all of it written.
func TestAConfigDriveIsAskedInTheServicesPlace(t *testing.T) {
	c := ofPlatform(t, platformOpenStack, "http://127.0.0.1:1", "")
	makeDevice(t, c.root, "vdb", 40<<20, disk.FilesystemSpec{FSType: filesystem.TypeFat32, VolumeLabel: "config-2"}, map[string]string{configDriveFile: document1})
	r := plugintest.Start(t, declaration)
	runController(t, r, c)
	if s := source(r, "config-drive-vdb"); s.State != stateApplied || !source(r, summaryID).Complete {
		t.Errorf("the config drive is %v, all is %v", s, source(r, summaryID))
	}
	if s := source(r, string(platformOpenStack)); s.State != "" {
		t.Errorf("the service was asked: %v", s)
	}
}

// TestARefusedConfigDriveKeepsNobodyFromAsking: it may be anybody's, whom it would serve that the node does not get its own user data.
func TestARefusedConfigDriveKeepsNobodyFromAsking(t *testing.T) {
	server := httptest.NewServer(clouds[platformOpenStack](document1))
	defer server.Close()
	c := ofPlatform(t, platformOpenStack, server.URL, "")
	put(t, c.root, efiDir+"/x", "")
	put(t, c.root, bootParams, params(secureBootEnabled))
	planted := strings.Replace(document1, "id: data", "id: planted", 1)
	makeDevice(t, c.root, "vdb", 40<<20, disk.FilesystemSpec{FSType: filesystem.TypeFat32, VolumeLabel: "config-2"}, map[string]string{configDriveFile: planted})
	r := plugintest.Start(t, declaration)
	runController(t, r, c)
	if s := source(r, "config-drive-vdb"); s.State != stateRefused || r.Get("planted", &storagepb.MountPoint{}) != nil {
		t.Errorf("the config drive is %v; want it refused", s)
	}
	if s := source(r, string(platformOpenStack)); s.State != stateApplied || r.Get("data", &storagepb.MountPoint{}) == nil {
		t.Errorf("the service is %v; want it applied", s)
	}
}

// TestVMwaresVariableIsApplied, and a named platform that the machine is not of is a failure to be seen.
func TestVMwaresVariableIsApplied(t *testing.T) {
	c := ofPlatform(t, platformVMware, "", "")
	c.guestinfo = func(name string) (string, error) {
		return map[string]string{"guestinfo.userdata": document1}[name], nil
	}
	r := plugintest.Start(t, declaration)
	runController(t, r, c)
	if s := source(r, string(platformVMware)); s.State != stateApplied || r.Get("data", &storagepb.MountPoint{}) == nil {
		t.Errorf("vmware is %v", s)
	}
	if onVMware() {
		t.Skip("the machine of the test is VMware's: it has the backdoor")
	}
	r = plugintest.Start(t, declaration)
	runController(t, r, ofPlatform(t, platformVMware, "", ""))
	if s := source(r, string(platformVMware)); s.State != stateFailed || s.Message != "guestinfo.userdata: the processor is not VMware's" {
		t.Errorf("vmware, elsewhere, is %v", s)
	}
}

// inNamespace says that the test has a network namespace of its own.
const inNamespace = "COSI_TEST_METADATA_NETNS"

// TestServicesAreWhereTheyAre asks every service at the address that it has in the cloud, in a network namespace of the test's own.
func TestServicesAreWhereTheyAre(t *testing.T) {
	if os.Getenv(inNamespace) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), inNamespace+"=1", "HTTP_PROXY=http://127.0.0.1:1") // a proxy is for others
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
		out, err := cmd.CombinedOutput()
		if os.Geteuid() != 0 && cmd.ProcessState == nil {
			t.Skipf("a network namespace: %v", err)
		}
		if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"169.254.169.254/32", "168.63.129.16/32"} {
		a, err := netlink.ParseAddr(address)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.AddrAdd(lo, a); err != nil {
			t.Fatal(err)
		}
	}
	var report string
	relay(t, "168.63.129.16:80", wireServer(t, &report).Config.Handler)
	if err := reportReady(t.Context(), wireAddress); err != nil || report == "" {
		t.Errorf("reportReady = %v, and the server has got %q", err, report)
	}
	for p, serve := range clouds {
		stop := relay(t, "169.254.169.254:80", serve(document1))
		if f := askService(t.Context(), p, metadataAddress); f.err != nil || string(f.data) != document1 {
			t.Errorf("askService(%s) = %q, %v", p, f.data, f.err)
		}
		stop()
	}
}

// relay serves at an address until its test ends, or stop is called.
func relay(t *testing.T, address string, h http.Handler) (stop func()) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: listener, Config: &http.Server{Handler: h}}
	s.Start()
	t.Cleanup(s.Close)
	return s.Close
}
