//go:build !pkcs11

package build

import (
	"context"
	"strings"
	"testing"
)

func TestAKeyInATokenTakesAnotherBuilder(t *testing.T) {
	o, _ := signed(t, "[uki]")
	o.change(t, "images/dev.yaml", "key: keys/db.key", `key: "pkcs11:token=build;object=db?pin-value=7351"`)
	_, err := Run(context.Background(), o, o.definition())
	if err == nil || !strings.Contains(err.Error(), "dev.yaml:5: secure_boot.key: pkcs11:token=build;object=db: this program was built without PKCS #11") || strings.Contains(err.Error(), "7351") {
		t.Errorf("%v", err)
	}
}
