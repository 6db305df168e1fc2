package powerevents

import (
	"errors"
	"os"
	"testing"

	"github.com/cilium/ebpf"
)

// Every program gets past the verifier of this machine's kernel, where that lets it in at all.
func TestProgramsPassTheVerifier(t *testing.T) {
	spec, err := loadProbe()
	if err != nil {
		t.Fatal(err)
	}
	for name := range spec.Programs {
		t.Run(name, func(t *testing.T) {
			one := spec.Copy()
			for other := range one.Programs {
				if other != name {
					delete(one.Programs, other)
				}
			}
			collection, err := ebpf.NewCollection(one)
			if errors.Is(err, os.ErrPermission) {
				t.Skipf("this kernel does not permit programs of type %v: %v", spec.Programs[name].Type, err)
			}
			if err != nil {
				t.Fatalf("%+v", err)
			}
			collection.Close()
		})
	}
}
