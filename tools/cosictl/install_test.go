package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
)

// installation returns what was written.
func (p *pluginUpgrade) installation() *machinepb.Installation {
	p.t.Helper()
	wanted := &machinepb.Installation{}
	r, err := p.client.Get(p.t.Context(), p.kinds["Installations"], "cosictl")
	if err == nil {
		err = proto.Unmarshal(r.GetSpec().GetProtoSpec(), wanted)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return wanted
}

// A file is pushed as one is to upgrade; the node that reboots need not come back.
func TestInstallPushesAFile(t *testing.T) {
	p := newPerson(t, "unix://"+startRuntime(t))
	path, data := upgradeFile(t, p)
	node := newPluginUpgrade(t, p.endpoint)
	failed := make(chan error, 1)
	go func() {
		err := node.take(t.Context(), func(received, size uint64) status {
			return &machinepb.InstallationStatus{ObservedVersion: "1", Reason: "Receiving", Received: received, Size: size}
		}, len(data))
		failed <- errors.Join(err, node.say(&machinepb.InstallationStatus{ObservedVersion: "1", Reason: "Rebooting", Version: "2.0.0", Ready: true}))
	}()
	text := p.want(exitOK, "install", path, "--disk", "name=vda")
	if err := <-failed; err != nil {
		t.Error(err)
	}
	if !slices.Equal(node.received, data) {
		t.Errorf("%d bytes have arrived, which are not those of the file, %d", len(node.received), len(data))
	}
	if !strings.Contains(text, "Receiving, 60 % of 2 MB\n") || !strings.HasSuffix(text, "\nRebooting version 2.0.0\n") {
		t.Errorf("it said\n%s", text)
	}
	if n := node.chunks(); n != 0 {
		t.Errorf("%d chunks are left", n)
	}
	if i := node.installation(); !i.GetPushed() || i.GetMedium() || i.GetUrl() != "" || len(i.GetDigest()) != 64 {
		t.Errorf("it wrote %v", i)
	}
}

func TestInstall(t *testing.T) {
	p := newPerson(t, "unix://"+startRuntime(t))
	node := newPluginUpgrade(t, p.endpoint)
	digest, fingerprint := strings.Repeat("ab", 32), strings.Repeat("cd", 16)
	documents := p.file("user-data.yaml", "metadata: {}\n")
	for i, test := range []struct {
		args string
		want *machinepb.Installation
		is   *machinepb.InstallationStatus
		code int
		says string
	}{
		{
			"--disk serial=S1,min_size=1000 --disk transport=nvme", &machinepb.Installation{Medium: true, Disk: &machinepb.Installation_Selector{Serial: "S1", MinSize: 1000, Transport: "nvme"}},
			&machinepb.InstallationStatus{Reason: "Refused", Message: "/dev/vda holds a partition table: fingerprint: " + fingerprint, Done: true, Fingerprint: fingerprint},
			exitError, "cosictl: installation/cosictl: Refused: /dev/vda holds a partition table: fingerprint: " + fingerprint + "\nThe node looks at it again when disks come or go. To take it back: cosictl delete installation cosictl\n",
		},
		{
			"--disk serial=S1 --fingerprint " + fingerprint + " --no-reboot --version 1.2.3 --user-data " + documents,
			&machinepb.Installation{
				Medium: true, Disk: &machinepb.Installation_Selector{Serial: "S1"}, Fingerprint: fingerprint, NoReboot: true, Version: "1.2.3", UserData: "metadata: {}\n",
			},
			&machinepb.InstallationStatus{Reason: "Installed", Version: "1.2.3", Done: true, Ready: true}, exitOK, "Installed version 1.2.3\n",
		},
		{
			"https://x/y --disk name=sda --digest " + digest, &machinepb.Installation{Url: "https://x/y", Digest: digest, Disk: &machinepb.Installation_Selector{Name: "sda"}},
			&machinepb.InstallationStatus{Reason: "Rebooting", Ready: true}, exitOK, "Rebooting\n",
		},
		{
			"--disk name=sda --keep-state", &machinepb.Installation{Medium: true, KeepState: true, Disk: &machinepb.Installation_Selector{Name: "sda"}},
			&machinepb.InstallationStatus{Reason: "Rebooting", Ready: true}, exitOK, "Rebooting\n",
		},
	} {
		test.is.ObservedVersion = fmt.Sprint(i + 1)
		if err := node.say(test.is); err != nil {
			t.Fatal(err)
		}
		args := append([]string{"install"}, strings.Fields(test.args)...)
		if text := p.want(test.code, args...); !strings.HasSuffix(text, test.says) {
			t.Errorf("%q said %q; want %q", args, text, test.says)
		}
		if got := node.installation(); !proto.Equal(got, test.want) {
			t.Errorf("%q wrote %v; want %v", args, got, test.want)
		}
	}
}

func TestWhatNoInstallationIs(t *testing.T) {
	p := newPerson(t, "unix://"+startRuntime(t))
	path, _ := upgradeFile(t, p)
	for want, args := range map[string]string{
		"--disk: want what one disk has, as in --disk serial=":                                path,
		"--disk size=1: want one of name, serial, model, wwid, transport, min_size, max_size": "--disk size=1",
		"--disk min_size=1T: want a number of bytes":                                          "--disk min_size=1T",
		"--digest: want the SHA-256":                                                          "https://x/y --disk name=sda",
		"--disk serial=: says nothing":                                                        "--disk transport=nvme,serial=",
		"2 arguments do not fit":                                                              path + " another --disk name=sda",
	} {
		if text := p.want(exitUsage, append([]string{"install"}, strings.Fields(args)...)...); !strings.Contains(text, want) {
			t.Errorf("%q said %q; want %q", args, text, want)
		}
	}
	for want, args := range map[string]string{
		"--user-data: open": "--disk name=sda --user-data " + p.home + "/nothing",
		"no such file":      p.home + "/nothing --disk name=sda",
	} {
		if text := p.want(exitError, append([]string{"install"}, strings.Fields(args)...)...); !strings.Contains(text, want) {
			t.Errorf("%q said %q; want %q", args, text, want)
		}
	}
}

func TestCompletionOffersDisksAndFiles(t *testing.T) {
	p := newPerson(t, "unix://"+startRuntime(t))
	for want, args := range map[string][]string{
		"name=\nserial=\nmodel=\n": {"install", "--disk", ""},
		"upgrade\n:8\n":            {"upgrade", ""},
		":4\n":                     {"install", "x.upgrade", ""},
	} {
		if text := p.want(exitOK, append([]string{"__complete"}, args...)...); !strings.Contains(text, want) {
			t.Errorf("%q offers %q; want %q", args, text, want)
		}
	}
}
