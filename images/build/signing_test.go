package build

import (
	"bytes"
	"context"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cosi-os/cosi/api/layout/bootentry"
	"github.com/cosi-os/cosi/images/internal/judge"
	"github.com/cosi-os/cosi/images/secureboot"
)

// signed is the small tree with a definition that names keys.
func signed(t *testing.T, outputs string) (o Options, keys string) {
	t.Helper()
	o = fixture(t)
	keys = filepath.Join(o.Tree, "images/keys")
	if _, err := secureboot.WriteKeys(keys, "test", time.Unix(1700000000, 0)); err != nil {
		t.Fatal(err)
	}
	o.change(t, "images/dev.yaml", "initramfs: {compression: lz4}", `secure_boot: {key: keys/db.key, certificate: keys/db.crt, enroll: force, variables: keys}
pcr_policy: {key: keys/pcr.key, public_key: keys/pcr.pub}
initramfs: {compression: none}`)
	o.change(t, "images/dev.yaml", "outputs: [raw, qcow2, iso, pxe]", "outputs: "+outputs)
	return o, keys
}

func TestASignedImage(t *testing.T) {
	o, keys := signed(t, "[raw, qcow2, iso, pxe, oci]")
	_, m := build(t, o)
	if len(m.Signatures) != 5 { // of two unified kernel images and of their policies, and of the boot loader
		t.Errorf("%d signatures in the manifest", len(m.Signatures))
	}
	plan, err := Explain(t.Context(), o, o.definition())
	if err != nil || !strings.Contains(plan.String(), "secure_boot.enroll ") || !strings.Contains(plan.String(), "pcr_policy.key ") {
		t.Errorf("the plan says nothing of keys (%v):\n%s", err, plan)
	}
	certificate := filepath.Join(keys, "db.crt")
	raw, iso := filepath.Join(o.Output, m.Image+".raw"), filepath.Join(o.Output, m.Image+".iso")
	for _, file := range []string{
		filepath.Join(o.Output, m.Image+".efi"), esp(t, raw, "EFI/BOOT/BOOTX64.EFI"), esp(t, raw, kernelOf(t, raw)),
		esp(t, iso, "EFI/BOOT/BOOTX64.EFI"), esp(t, iso, kernelOf(t, iso)),
	} {
		judge.Run(t, "sbverify", "--cert", certificate, file)
	}
	for _, name := range []string{"PK.auth", "KEK.auth", "db.auth"} {
		got, err := os.ReadFile(esp(t, raw, "loader/keys/auto/"+name))
		if err != nil {
			t.Fatal(err)
		}
		if want, err := os.ReadFile(filepath.Join(keys, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not the one that the definition names (%v)", name, err)
		}
	}
	config, err := os.ReadFile(esp(t, raw, "loader/loader.conf"))
	if err != nil || string(config) != bootentry.Config+"secure-boot-enroll force\n" {
		t.Errorf("loader.conf: %q, %v", config, err)
	}
	config, err = os.ReadFile(esp(t, iso, "grub/grub.cfg"))
	if err != nil || !strings.Contains(string(config), "loopback uki /"+kernelOf(t, iso)+"\n") {
		t.Errorf("grub.cfg: %q, %v", config, err)
	}
	dir := t.TempDir()
	judge.Run(t, "tar", "-xf", filepath.Join(o.Output, m.Image+".oci.tar"), "-C", dir)
	if got := layersOf(t, dir); !slices.Equal(got, layers) {
		t.Errorf("layers of the artifact: %q; want %q", got, layers)
	}
	r := report(t, raw)
	var of []string
	for _, s := range r.Signatures[:2] {
		of = append(of, s.Of)
		if s.Signer != "CN=test db" || s.Wrong != "" || s.Certificate == nil || s.Certificate.Issuer != "CN=test db" {
			t.Errorf("%+v", s)
		}
	}
	if !slices.Equal(of, []string{"boot loader", "boot image"}) || r.Signatures[2].String() != "kernel: not signed" {
		t.Errorf("signatures: %q", r.Signatures)
	}
	if value, err := hex.DecodeString(r.PCR11); err != nil || len(value) != 32 || !strings.Contains(r.String(), "\n  PCR 11       "+r.PCR11) {
		t.Errorf("PCR 11 is %q in\n%s", r.PCR11, r)
	}
	for _, private := range []string{"db.key", "pcr.key"} {
		if data, err := os.ReadFile(filepath.Join(keys, private)); err != nil || m.Inputs.Files["images/keys/"+private] != "" || m.Inputs.Files["images/keys/db.crt"] == "" || strings.Contains(m.Definition, string(data)) {
			t.Errorf("%s is an input, or its certificate is none: %v", private, err)
		}
	}
}

// keyless makes the private keys of a definition unreadable.
func keyless(t *testing.T, keys string) {
	t.Helper()
	for _, name := range []string{"PK.key", "KEK.key", "db.key", "pcr.key"} {
		if err := os.Remove(filepath.Join(keys, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestASignedImageIsVerifiedWithoutThePrivateKey(t *testing.T) {
	o, keys := signed(t, "[raw, qcow2, iso, pxe, raw.zst]")
	_, m := build(t, o)
	keyless(t, keys)
	for suffix, signatures := range map[string]int{".raw": 3, ".qcow2": 3, ".iso": 5, ".efi": 2, ".initramfs": 0, ".manifest.json": 5} {
		v := verify(t, o, filepath.Join(o.Output, m.Image+suffix))
		if !v.Equal() || v.Signed != signatures || v.Covered != signatures || strings.Contains(v.String(), "signatures  ") != (signatures > 0) {
			t.Errorf("%s:\n%s", suffix, v)
		}
	}
	// The signature of what was changed afterwards is over what was built.
	v := verify(t, o, changed(t, filepath.Join(o.Output, m.Image+".efi"), "console=ttyS0", "console=ttyS9"))
	if v.Equal() || v.Covered != 2 || !strings.Contains(v.String(), "signatures  2 of 2 are over what was built again, without a private key") {
		t.Errorf("with another argument:\n%s", v)
	}
	// Whoever signs another argument with the same key, says something else.
	evil, keys := signed(t, "[uki]")
	for _, name := range []string{"db.crt", "pcr.pub"} {
		data, err := os.ReadFile(filepath.Join(keys, name))
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(o.Tree, "images/keys", name), data)
	}
	evil.change(t, "images/dev.yaml", "console=ttyS0", "console=ttyS9")
	_, other := build(t, evil)
	if covered := inBoth(other.Signatures, m.Signatures); covered != 0 {
		t.Errorf("%d signatures of another image are those of this one", covered)
	}
}

func TestTheWrongKeyIsRefused(t *testing.T) {
	o, _ := signed(t, "[uki]")
	o.change(t, "images/dev.yaml", "key: keys/db.key", "key: keys/PK.key")
	if _, err := Run(context.Background(), o, o.definition()); err == nil || !strings.Contains(err.Error(), "dev.yaml:5: secure_boot.key: ") || !strings.Contains(err.Error(), "PK.key is not the key that it is said to be") {
		t.Errorf("with another's key: %v", err)
	}
	o.change(t, "images/dev.yaml", "key: keys/PK.key", "key: keys/none.key")
	if _, err := Run(context.Background(), o, o.definition()); err == nil || !strings.Contains(err.Error(), "dev.yaml:5: secure_boot.key: open ") {
		t.Errorf("without a key: %v", err)
	}
}

// An image built with signatures of another is not taken for one that was signed.
func TestWhatWasNotSignedIsBuiltAgain(t *testing.T) {
	o, keys := signed(t, "[uki]")
	_, m := build(t, o)
	o.Signatures = filepath.Join(t.TempDir(), "none.manifest.json")
	m.Signatures = nil
	data, err := m.JSON()
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, o.Signatures, data)
	o.Output = filepath.Join(t.TempDir(), "out")
	_, without := build(t, o)
	image := filepath.Join(o.Output, m.Image+".efi")
	if r := report(t, image); !strings.Contains(r.Signatures[0].Wrong, "verification error") {
		t.Errorf("without a signature: %q", r.Signatures)
	}
	o.Signatures = ""
	if result, again := build(t, o); result.UpToDate || again.Outputs[0] == without.Outputs[0] {
		t.Error("with the key, nothing was built")
	}
	judge.Run(t, "sbverify", "--cert", filepath.Join(keys, "db.crt"), image)
}
