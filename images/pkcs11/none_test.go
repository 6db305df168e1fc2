//go:build !pkcs11

package pkcs11

import (
	"strings"
	"testing"
)

func TestAProgramWithoutSaysHowToBuildOne(t *testing.T) {
	u, err := Parse("pkcs11:token=build;object=db?pin-value=7351", "")
	if err != nil {
		t.Fatal(err)
	}
	const want = "pkcs11:token=build;object=db: this program was built without PKCS #11"
	if _, err := Open(u); err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "make build TAGS=pkcs11") {
		t.Errorf("Open = %v", err)
	}
}
