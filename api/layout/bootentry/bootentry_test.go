package bootentry

import (
	"strings"
	"testing"

	"github.com/cosi-os/cosi/api/layout/verity"
)

var root = verity.Hash{1, 2, 3}

func TestNames(t *testing.T) {
	for name, want := range map[string]Entry{
		"cosi-00000001.conf":     {Number: 1, State: Good},
		"cosi-00000002+3.conf":   {Number: 2, State: Trying, Left: 3},
		"cosi-00000002+2-1.conf": {Number: 2, State: Trying, Left: 2, Done: 1},
		"cosi-00000012+0-3.conf": {Number: 12, State: Bad, Done: 3},
	} {
		want.Version, want.Root = "1.2.3", root
		got, err := Parse(name, want.Text())
		if err != nil || got != want {
			t.Errorf("Parse(%q) = %+v, %v; want %+v", name, got, err, want)
		}
		if want.Name() != name || !IsEntry(name) {
			t.Errorf("Name() = %q; want %q", want.Name(), name)
		}
	}
}

func TestWhatIsNoEntry(t *testing.T) {
	good := Entry{Number: 1, State: Good, Version: "1", Root: root}
	for _, test := range []struct{ name, text, want string }{
		{"other.conf", good.Text(), "no entry of ours"},
		{"cosi-1+x.conf", good.Text(), "no entry of ours"},
		{"cosi-00000001.conf", "title x\n", "names no unified kernel image"},
		{"cosi-00000001.conf", "efi /EFI/other/" + root.String() + ".efi\n", "not named for a root"},
		{"cosi-00000001.conf", "efi /EFI/cosi/linux.efi\n", "not named for a root"},
	} {
		if _, err := Parse(test.name, test.text); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("Parse(%q, %q) = %v; want %q", test.name, test.text, err, test.want)
		}
	}
}

func TestEnv(t *testing.T) {
	for _, want := range []Env{{Good: root}, {Good: root, Trial: verity.Hash{9}, Left: 3}, {Good: root, Trial: verity.Hash{9}}} {
		data := want.Encode()
		if got, err := ParseEnv(data); err != nil || got != want || len(data) != 1024 {
			t.Errorf("ParseEnv = %+v, %v; want %+v", got, err, want)
		}
		if strings.Trim(string(data[512:]), "#") != "" {
			t.Errorf("%+v takes more than a sector", want)
		}
	}
	whole := string(Env{Good: root, Trial: root, Left: 3}.Encode())
	for want, text := range map[string]string{
		"no environment block":                    "good=x",
		"grub/grubenv: left: ":                    strings.Replace(whole, "left=3", "left=x", 1),
		"grub/grubenv: it names nothing to boot":  strings.Replace(whole, "good", "goop", 1),
		`grub/grubenv: trial: "` + "010203000000": strings.Replace(whole, "trial="+root.String(), "trial="+root.String()[:62]+"#\n", 1),
	} {
		if _, err := ParseEnv([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseEnv(%.80q) = %v; want %q", text, err, want)
		}
	}
}
