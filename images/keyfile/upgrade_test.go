package keyfile

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/api/document"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/api/upgrade"
	"github.com/cosi-os/cosi/images/internal/judge"
)

// The pair is one, as builders and nodes read it, and the policy is a valid resource that lets that key in and nobody else.
func TestAKeyForUpgradesIsMadeOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	names, err := WriteUpgrade(dir)
	if err != nil || !slices.Equal(names, []string{"upgrade.key", "upgrade.pub", "upgrade-policy.yaml"}) {
		t.Fatalf("WriteUpgrade = %q, %v", names, err)
	}
	read := func(name string, mode os.FileMode) string {
		t.Helper()
		file := filepath.Join(dir, name)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want the mode %v", name, info, err, mode)
		}
		return string(data)
	}
	private, err := upgrade.ParsePrivateKey([]byte(read("upgrade.key", 0o600)))
	if err != nil {
		t.Fatal(err)
	}
	text := read("upgrade.pub", 0o644)
	public, err := upgrade.ParseKey(text)
	if err != nil || !public.Equal(private.Public()) {
		t.Errorf("the public half is %x, %v", public, err)
	}
	documents, problems := document.Parse("policy", []byte(read("upgrade-policy.yaml", 0o644)))
	if len(documents) != 1 || len(problems) > 0 {
		t.Fatalf("the policy is %d documents, %v", len(documents), problems)
	}
	resource, problems := documents[0].Resolve(builtin.Set())
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	spec := &machinepb.UpgradePolicy{}
	if err := proto.Unmarshal(resource.GetSpec().GetProtoSpec(), spec); err != nil || len(spec.GetKeys()) != 1 || spec.GetAllowUnsigned() {
		t.Fatalf("%v, %v", spec, err)
	}
	if key, err := upgrade.ParseKey(spec.GetKeys()[0]); err != nil || !key.Equal(public) {
		t.Errorf("the policy's key is %x, %v; want %x", key, err, ed25519.PublicKey(public))
	}
	if said := judge.Run(t, "openssl", "pkey", "-in", filepath.Join(dir, "upgrade.key"), "-pubout"); said != text {
		t.Errorf("openssl says that the public half is\n%s\nwant\n%s", said, text)
	}
	if err := os.Remove(filepath.Join(dir, "upgrade.key")); err != nil {
		t.Fatal(err)
	}
	if names, err := WriteUpgrade(dir); len(names) > 0 || err == nil || !strings.HasSuffix(err.Error(), "upgrade.pub is there already") {
		t.Errorf("with one half there: %q, %v", names, err)
	}
	if read("upgrade.pub", 0o644) != text {
		t.Error("the public half was replaced")
	}
}
