//go:build pkcs11

package build

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cosi-os/cosi/api/upgrade"
	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/definition"
	"github.com/cosi-os/cosi/images/internal/judge"
	"github.com/cosi-os/cosi/images/internal/softhsm"
	"github.com/cosi-os/cosi/images/uki"
	"github.com/cosi-os/cosi/images/uki/ukitest"
)

// inToken puts the keys of a signed tree into a token, and one for upgrades besides. It returns how to get at them.
func inToken(t *testing.T, keys string) (query string) {
	t.Helper()
	module := softhsm.New(t)
	softhsm.Token(t, "build")
	in := func(name string) string { return filepath.Join(keys, name) }
	judge.Run(t, "openssl", "genpkey", "-algorithm", "ed25519", "-out", in("up.key"))
	judge.Run(t, "openssl", "pkey", "-in", in("up.key"), "-pubout", "-out", in("up.pub"))
	judge.Run(t, "openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", in("ec.key"))
	for id, name := range []string{"db", "pcr", "up", "ec"} {
		softhsm.Import(t, "build", in(name+".key"), name, "0"+string(rune('1'+id)))
	}
	return "?module-path=" + module + "&pin-value=" + softhsm.Escaped
}

// uri is what YAML has for a key in the token.
func uri(name, query string) string { return `"pkcs11:token=build;object=` + name + query + `"` }

// signedBy signs, with the keys of the tree's definition, a boot image, its policy and an upgrade with that.
func signedBy(t *testing.T, o Options) (boot, file []byte, signatures [][]byte) {
	t.Helper()
	d, err := definition.Load(o.definition(), "")
	if err != nil {
		t.Fatal(err)
	}
	in := &Inputs{}
	in.Epoch = time.Unix(1700000000, 0)
	k, err := openKeys(o, d, in)
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	image, err := k.unify(ukitest.Program("stub"), uki.Spec{CommandLine: "quiet", Initrd: content.String("initrd"), Linux: bytes.NewReader(ukitest.Program("kernel"))})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := k.sign(image)
	if err != nil {
		t.Fatal(err)
	}
	if boot, err = io.ReadAll(content.Reader(signed)); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	m := upgrade.Manifest{Image: "cosi-dev-amd64", Version: "1.2.3", Arch: "amd64", Root: upgrade.Root{Hash: kernelHash, Data: 1}}
	if err := upgrade.Write(&out, m, k.upgrade, strings.NewReader("root"), bytes.NewReader(boot), nil); err != nil {
		t.Fatal(err)
	}
	return boot, out.Bytes(), *k.made
}

func TestATokenSignsTheSameBytes(t *testing.T) {
	o, keys := signed(t, "[uki]")
	query := inToken(t, keys)
	o.change(t, "images/dev.yaml", "initramfs:", "upgrade: {key: keys/up.key, public_key: keys/up.pub}\ninitramfs:")
	wantBoot, wantFile, want := signedBy(t, o)
	for _, name := range []string{"db", "pcr", "up"} {
		o.change(t, "images/dev.yaml", "key: keys/"+name+".key", "key: "+uri(name, query))
		if err := os.Remove(filepath.Join(keys, name+".key")); err != nil {
			t.Fatal(err)
		}
	}
	boot, file, signatures := signedBy(t, o)
	if !bytes.Equal(boot, wantBoot) || !bytes.Equal(file, wantFile) || len(signatures) != 3 || !slices.EqualFunc(signatures, want, bytes.Equal) {
		t.Errorf("a token signs other bytes than a file: %x; want %x", signatures, want)
	}
	signed := filepath.Join(t.TempDir(), "boot.efi")
	writeFile(t, signed, boot)
	judge.Run(t, "sbverify", "--cert", filepath.Join(keys, "db.crt"), signed)
}

// What a build writes, and what it says, shows which key signed, and nothing of the PIN: no image is another for it.
func TestNoPINIsInAnImage(t *testing.T) {
	o, keys := signed(t, "[uki]")
	query := inToken(t, keys)
	o.change(t, "images/dev.yaml", "key: keys/db.key", "key: "+uri("db", query))
	_, m := build(t, o)
	judge.Run(t, "sbverify", "--cert", filepath.Join(keys, "db.crt"), filepath.Join(o.Output, m.Image+".efi"))
	plan, err := Explain(t.Context(), o, o.definition())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(m.Definition, "key: pkcs11:token=build;object=db\n") || !strings.Contains(plan.String(), "pkcs11:token=build;object=db ") {
		t.Errorf("which key it is, is not in\n%s%s", m.Definition, plan)
	}
	written := []string{plan.String()}
	err = filepath.WalkDir(o.Output, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		written = append(written, string(data))
		return err
	})
	if err != nil || len(written) < 4 {
		t.Errorf("%d texts, %v", len(written), err)
	}
	for _, text := range written {
		if strings.Contains(text, softhsm.PIN) || strings.Contains(text, softhsm.Escaped) || strings.Contains(text, "pin-value") {
			t.Error("a PIN was written")
		}
	}
	o.change(t, "images/dev.yaml", "pin-value="+softhsm.Escaped, "pin-value=another")
	if result, _ := build(t, o); !result.UpToDate {
		t.Error("with another PIN, the image is built again")
	}
}

func TestWhatATokenDoesNotSign(t *testing.T) {
	o, keys := signed(t, "[uki]")
	query := inToken(t, keys)
	before := "key: keys/db.key"
	for _, tc := range []struct{ key, want string }{
		{uri("none", query), `pkcs11:token=build;object=none: token "build": no such private key is there`},
		{uri("ec", query), `pkcs11:token=build;object=ec: token "build": the key is an EC key`},
		{uri("pcr", query), "pkcs11:token=build;object=pcr is not the key that it is said to be: its public half is another"},
		{uri("up", query), "pkcs11:token=build;object=up is not the key that it is said to be: its public half is another"},
		{uri("db", strings.ReplaceAll(query, softhsm.Escaped, "7350")), `pkcs11:token=build;object=db: token "build": the PIN is wrong; it was tried once`},
		{uri("db", strings.ReplaceAll(query, "softhsm", "none")), `pkcs11:token=build;object=db: module: lstat /`},
	} {
		after := "key: " + tc.key
		o.change(t, "images/dev.yaml", before, after)
		before = after
		_, err := Run(t.Context(), o, o.definition())
		if err == nil || !strings.Contains(err.Error(), "dev.yaml:5: secure_boot.key: "+tc.want) || strings.Contains(err.Error(), "735") || strings.Contains(err.Error(), "pin-value") {
			t.Errorf("%s: %v; want %s", tc.key, err, tc.want)
		}
	}
}
