package definition

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/cosi-os/cosi/images/pkcs11"
)

// Foreign finds the mistakes in a definition's text that came from elsewhere and is to lie in file: those that one file alone shows, and every file that
// it names beside the definition that it extends, which has to be one of the same directory. Whoever sends a definition is not to have the machine's
// files put into an image. It reads no file.
func Foreign(file string, text []byte) error {
	d, lines, problems := parse(file, text)
	if d == nil {
		return problems
	}
	names := func(field, path string) {
		if path != "" {
			problems = append(problems, Problem{File: file, Line: lines[field], Field: field, Message: fmt.Sprintf("%q: a definition that is sent names no files", pkcs11.WithoutPINs([]byte(path)))})
		}
	}
	if d.Extends != "" && (filepath.Base(d.Extends) != d.Extends || d.Extends == ".." || filepath.Ext(d.Extends) != ".yaml") {
		problems = append(problems, Problem{File: file, Line: lines["extends"], Field: "extends", Message: fmt.Sprintf("%q: a definition that is sent extends one by its name alone, as base.yaml", d.Extends)})
	}
	names("user_data.url_ca", d.UserData.URLCA)
	names("upgrade.key", d.Upgrade.Key)
	names("upgrade.public_key", d.Upgrade.PublicKey)
	names("secure_boot.key", d.SecureBoot.Key)
	names("secure_boot.certificate", d.SecureBoot.Certificate)
	names("secure_boot.variables", d.SecureBoot.Variables)
	names("pcr_policy.key", d.PCRPolicy.Key)
	names("pcr_policy.public_key", d.PCRPolicy.PublicKey)
	for i, path := range d.Extensions {
		names(fmt.Sprintf("extensions[%d]", i), path)
	}
	for i, p := range d.Partitions.Extra {
		names(fmt.Sprintf("partitions.extra[%d].content", i), p.Content)
	}
	if len(problems) == 0 {
		return nil
	}
	slices.SortStableFunc(problems, func(a, b Problem) int { return a.Line - b.Line })
	return problems
}
