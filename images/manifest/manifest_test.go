package manifest

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/cosi-os/cosi/kernel/lock"
)

func example() *Manifest {
	return &Manifest{
		Image: "cosi-base-amd64", Source: "images/base.yaml", Definition: "name: base\n", Kernel: "6.12", CommandLine: "quiet",
		Inputs:   &Inputs{Files: map[string]string{"go.mod": "01"}, Go: "go1.26.8", Version: "0.1", Epoch: time.Unix(1, 0).UTC()},
		Packages: []lock.Package{{Role: "kernel-cloud", Architecture: "amd64", Name: "linux", Version: "1", Path: "l.deb", SHA256: "02"}},
		Outputs:  []File{{Name: "cosi-base-amd64.raw", Size: 1, SHA256: "03"}},
	}
}

// What is in the root cannot name the outputs: they are made of it.
func TestBothForms(t *testing.T) {
	m := example()
	file := filepath.Join(t.TempDir(), "m.json")
	data, err := m.JSON()
	if err == nil {
		err = os.WriteFile(file, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Read(file); err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("Read = %+v, %v; want %+v", got, err, m)
	}
	packed, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	m.Outputs = nil
	if got, err := Unpack(packed); err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("Unpack = %+v, %v; want %+v", got, err, m)
	}
}

func FuzzUnpack(f *testing.F) {
	packed, err := example().Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := Unpack(data); err != nil && !errors.Is(err, errNone) || err == nil && m.Inputs == nil {
			t.Errorf("Unpack = %+v, %v", m, err)
		}
	})
}
