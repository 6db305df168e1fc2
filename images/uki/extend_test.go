package uki

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// An image with more arguments is the one that New makes with them, to the byte, and can be given more again.
func TestExtendIsWhatNewMakes(t *testing.T) {
	for _, release := range []string{"", "ID=cosi\n"} {
		s := testSpec()
		s.OSRelease, s.PolicyKey, s.PolicySignature = release, "", ""
		img, err := New(testStub(1024), s)
		if err != nil {
			t.Fatal(err)
		}
		s.CommandLine += " cosi.userdata=https://192.0.2.1/x quiet"
		want, err := New(testStub(1024), s)
		if err != nil {
			t.Fatal(err)
		}
		once, err := Extend(img, "cosi.userdata=https://192.0.2.1/x")
		if err != nil {
			t.Fatal(err)
		}
		twice, err := Extend(once, "quiet")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(readAll(t, twice), readAll(t, want)) {
			t.Errorf("with os-release %q, Extend gives other bytes than New", release)
		}
	}
}

func TestExtendRefusesWhatNewHasNotMade(t *testing.T) {
	s := testSpec()
	policy, err := New(testStub(1024), s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Extend(policy, "a"); !errors.Is(err, ErrSigned) {
		t.Errorf("Extend of an image that a policy is signed for = %v; want ErrSigned", err)
	}
	s.PolicyKey, s.PolicySignature = "", ""
	img, err := New(testStub(1024), s)
	if err != nil {
		t.Fatal(err)
	}
	good := readAll(t, img)
	signed := bytes.Clone(good)
	binary.LittleEndian.PutUint32(signed[0x40+coffSize+112+8*certificateTable+4:], 100)
	if _, err := Extend(bytes.NewReader(signed), "a"); !errors.Is(err, ErrSigned) {
		t.Errorf("Extend of a signed image = %v; want ErrSigned", err)
	}
	for name, bad := range map[string][]byte{"nothing": nil, "a stub": testStub(1024), "half an image": good[:len(good)/2], "text": []byte("MZ, but no program")} {
		if _, err := Extend(bytes.NewReader(bad), "a"); err == nil {
			t.Errorf("Extend of %s succeeded", name)
		}
	}
}

func FuzzExtend(f *testing.F) {
	img, err := New(testStub(1024), Spec{CommandLine: "a", Uname: "6", Initrd: bytes.NewReader([]byte("i")), Linux: bytes.NewReader(testStub(1024))})
	if err != nil {
		f.Fatal(err)
	}
	good := make([]byte, img.Size())
	if _, err := img.ReadAt(good, 0); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		extended, err := Extend(bytes.NewReader(data), "b")
		if err == nil {
			readAll(t, extended)
		}
	})
}
