package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

func TestParse(t *testing.T) {
	o, err := parse([]string{"-image", "x.iso", "-fw", "kernel", "--mem", "512", "-check"})
	if err != nil || o.image != "x.iso" || o.boot != node.Kernel || o.memory != 512 || !o.check || o.console {
		t.Errorf("parse = %+v, %v", o, err)
	}
	for _, bad := range [][]string{{"-fw", "grub"}, {"x.raw"}, {"-nothing"}, {"-mem", "3"}, {"-port", "99999"}, {"-port", "-1"}, {"-timeout", "-1s"}} {
		if _, err := parse(bad); err == nil {
			t.Errorf("parse(%q) succeeded", bad)
		}
	}
}

func TestSecondRunFindsTheSameNode(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	first, userData, err := prepare(dir)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(userData)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), strings.TrimSpace(strings.Split(string(first.CA.KeyPEM), "\n")[1])) {
		t.Error("the CA's key is in the user data")
	}
	mine := append(data, "---\n# added by hand\n"...)
	if err := os.WriteFile(userData, mine, 0o600); err != nil {
		t.Fatal(err)
	}
	second, _, err := prepare(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Serving.KeyPEM, second.Serving.KeyPEM) || !bytes.Equal(first.Admin.CertPEM, second.Admin.CertPEM) {
		t.Error("the second run has other keys")
	}
	if got, _ := os.ReadFile(userData); !bytes.Equal(got, mine) {
		t.Error("the second run has changed the user data")
	}
}

func TestDataDiskIsKept(t *testing.T) {
	dir := t.TempDir()
	disk, err := dataDisk(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(disk.File); err != nil || st.Size() != dataSize {
		t.Errorf("the disk: %v, %v", st, err)
	}
	if err := os.WriteFile(disk.File, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := dataDisk(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(disk.File); string(got) != "mine" {
		t.Error("the second run has made a new disk")
	}
}

func TestReportShowsTheNodesStages(t *testing.T) {
	var out bytes.Buffer
	r := newReport(&out)
	r.inside(&machinepb.MachineStatus{})
	r.inside(&machinepb.MachineStatus{Stages: []*machinepb.MachineStatus_Stage{{Name: "engine", Milliseconds: 812}, {Name: "api", Milliseconds: 1500}}})
	if want := "         on the node's own clock: engine 0.81s api 1.50s\n"; out.String() != want {
		t.Errorf("inside prints %q; want %q", out.String(), want)
	}
}
