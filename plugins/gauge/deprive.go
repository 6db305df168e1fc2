package gauge

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/api/declaration"
)

// deprive hides a plugin's declaration behind one without some capabilities. The launcher reads it whenever it starts the plugin.
func deprive(plugin string, capabilities []string) error {
	declared := filepath.Join(declaration.Dir, plugin+".json")
	data, err := os.ReadFile(declared)
	if err != nil {
		return err
	}
	if data, err = without(data, capabilities); err != nil {
		return fmt.Errorf("%s: %w", declared, err)
	}
	changed := filepath.Join("/run", plugin+".json")
	if err := os.WriteFile(changed, data, 0o644); err != nil {
		return err
	}
	if err := unix.Mount(changed, declared, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", changed, declared, err)
	}
	return nil
}

// without is a declaration without some capabilities. It fails if there is one that the plugin does not have.
func without(data []byte, capabilities []string) ([]byte, error) {
	d, err := declaration.Parse(data)
	if err != nil {
		return nil, err
	}
	for _, c := range capabilities {
		at := slices.Index(d.Capabilities, c)
		if at < 0 {
			return nil, fmt.Errorf("capabilities: %q is not among %q", c, d.Capabilities)
		}
		d.Capabilities = slices.Delete(d.Capabilities, at, at+1)
	}
	return json.Marshal(d)
}
