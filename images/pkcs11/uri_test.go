package pkcs11

import (
	"maps"
	"strings"
	"testing"
)

func TestAURIIsRead(t *testing.T) {
	for text, want := range map[string]struct {
		text     string
		key, how map[string]string
	}{
		"pkcs11:token=build;object=db": {"pkcs11:token=build;object=db", map[string]string{"token": "build", "object": "db"}, nil},
		"pkcs11:slot-id=007?module-path=/usr/lib/a%20b.so&pin-value=1%262": {"pkcs11:slot-id=007", map[string]string{"slot-id": "7"},
			map[string]string{"module-path": "/usr/lib/a b.so", "pin-value": "1&2"}},
		"pkcs11:model=SoftHSM%20v2;serial=0a;id=%01%FF;type=private?pin-source=file:///etc/pin": {"pkcs11:model=SoftHSM%20v2;serial=0a;id=%01%FF;type=private",
			map[string]string{"model": "SoftHSM v2", "serial": "0a", "id": "\x01\xff", "type": "private"}, map[string]string{"pin-source": "/etc/pin"}},
		"pkcs11:?pin-source=keys/pin":      {"pkcs11:", nil, map[string]string{"pin-source": "/dir/keys/pin"}},
		"pkcs11:?pin-source=file:/etc/pin": {"pkcs11:", nil, map[string]string{"pin-source": "/etc/pin"}},
	} {
		u, err := Parse(text, "/dir")
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if u.String() != want.text || !maps.Equal(u.key, want.key) || !maps.Equal(u.how, want.how) {
			t.Errorf("%s: %s, %q, %q", text, u, u.key, u.how)
		}
	}
}

// Whatever is wrong with a URI, the error shows nothing of the PIN.
func TestAMistakeInAURI(t *testing.T) {
	for text, want := range map[string]string{
		"pkcs11:tokens=build":                                `want NAME=VALUE, with ";" between them, of object, id, type, token, manufacturer, model, serial, slot-id`,
		"pkcs11:token=build;":                                "want NAME=VALUE",
		"pkcs11:token=build&object=db?pin-value":             `behind the "?": pin-value is empty`,
		"pkcs11:token=":                                      "token is empty",
		"pkcs11:token=%zz":                                   "token is empty, or has a %",
		"pkcs11:token=a;token=b":                             "token is there twice",
		"pkcs11:token=a;slot-id=one":                         "slot-id is not a number",
		"pkcs11:object=a;type=cert":                          "type: want private",
		"pkcs11:object=a;pin-value=7351":                     `pin-value belongs behind a "?"`,
		"pkcs11:object=a?token=b":                            `behind the "?": want NAME=VALUE, with "&" between them, of module-path, pin-source, pin-value`,
		"pkcs11:object=a?7351":                               `behind the "?": want NAME=VALUE`,
		"pkcs11:object=a?pin-value:7351":                     `behind the "?": want NAME=VALUE`,
		"pkcs11:object=a?pin-value=a&7351=b":                 `behind the "?": want NAME=VALUE`,
		"pkcs11:object=a?pin-value=7351%":                    "pin-value is empty, or has a %",
		"pkcs11:object=a?pin-value=7351&pin-source=/etc/pin": "pin-source and pin-value are both there",
		"pkcs11:object=a?pin-source=|echo%207351":            "pin-source: a build runs no program for a PIN",
		"pkcs11:object=a?pin-value=7351&module-path=a.so":    "module-path is not an absolute path",
	} {
		u, err := Parse(text, "/dir")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v; want %s", text, u, err, want)
		} else if strings.Contains(err.Error(), "7351") {
			t.Errorf("%s: the PIN is in %q", text, err)
		}
	}
}

func TestATextWithoutPINs(t *testing.T) {
	const text = "secure_boot: {key: \"pkcs11:token=a?pin-value=7351&module-path=/a.so\", certificate: a}\nupgrade:\n  key: pkcs11:token=b?pin-value=7351\n"
	want := strings.ReplaceAll(text, "7351", "")
	if got := string(WithoutPINs([]byte(text))); got != want {
		t.Errorf("WithoutPINs(%q) = %q", text, got)
	}
}
