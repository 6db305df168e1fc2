// Package declaration describes what a plugin is and what it may do: the file NAME.json in /usr/lib/cosi/plugins of a node.
//
// The image builder writes it from the plugin.json in the plugin's source folder, PID 1 starts and confines the plugin by it, the
// runtime takes the plugin's kinds and rights from it. It imports the standard library only, because PID 1 does.
package declaration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Dir is where a node keeps the declarations of its plugins.
const Dir = "/usr/lib/cosi/plugins"

// Declaration is a plugin's identity and rights. Registration may narrow them, never widen them.
type Declaration struct {
	// Name is the plugin's name: its socket, its cgroup, the owner of what it writes.
	Name string `json:"name"`
	// Description is one line for people.
	Description string `json:"description"`

	// Argv starts the plugin. The image builder fills it in.
	Argv []string `json:"argv,omitempty"`
	// UID and GID are the plugin's alone on the node. The image builder fills them in.
	UID uint32 `json:"uid,omitempty"`
	GID uint32 `json:"gid,omitempty"`

	// AfterAPI has the plugin start when the node's API listens, so that what it needs the processor for does not delay that. On a node
	// that serves no API it starts a moment later than the others.
	AfterAPI bool `json:"afterAPI,omitempty"`

	// Capabilities by name: "CAP_SYS_ADMIN". Everything else leaves the bounding set.
	Capabilities []string `json:"capabilities,omitempty"`
	// Devices below /dev that the plugin may open: the launcher gives its group access to them, and the cgroup allows no other.
	Devices []Device `json:"devices,omitempty"`
	// Paths that Landlock leaves the plugin, beside its own executable and its socket.
	Paths []Path `json:"paths,omitempty"`
	// NoLandlock is for plugins that call mount(2): the kernel refuses it inside a Landlock domain.
	NoLandlock bool `json:"noLandlock,omitempty"`
	// Seccomp names the classes of system calls that are not denied: see Classes.
	Seccomp []Class `json:"seccomp,omitempty"`

	// Modules are kernel modules, by name, that the plugin may need. PID 1 loads them once the boot's critical path is done, so that a
	// plugin needs no right to load modules; until then the plugin retries.
	Modules []string `json:"modules,omitempty"`

	// Inputs are the kinds that the plugin may read.
	Inputs []Input `json:"inputs,omitempty"`
	// Outputs are the types that the plugin may write, as their owner.
	Outputs []string `json:"outputs,omitempty"`
	// Operator lets the plugin write any kind of the namespaces config and requests with no owner, as people do, and define kinds. For
	// user data.
	Operator bool `json:"operator,omitempty"`
	// Power lets the plugin ask PID 1 to power off or reboot, by writing ShutdownStatuses with the reason Draining.
	Power bool `json:"power,omitempty"`

	// Definitions is a google.protobuf.FileDescriptorSet with the messages of the plugin's kinds. It is a file of its own,
	// NAME.binpb beside NAME.json, because the runtime alone reads it: see LoadDefinitions. The image builder writes it.
	Definitions []byte `json:"-"`
}

// Input is a type that a plugin may read.
type Input struct {
	Type string `json:"type"`
	// Finalizers says that the plugin adds and removes its own finalizer on resources of the type.
	Finalizers bool `json:"finalizers,omitempty"`
}

// Device is a device node, or all that match a pattern of path/filepath.Match.
type Device struct {
	Path  string `json:"path"`
	Write bool   `json:"write,omitempty"`
}

// Path is a file or directory tree.
type Path struct {
	Path  string `json:"path"`
	Write bool   `json:"write,omitempty"`
	// List opens the directories alone, and none of the files.
	List bool `json:"list,omitempty"`
}

// Class is a class of system calls that the launcher's filter denies with EPERM unless the declaration names it.
type Class string

const (
	ClassMount      Class = "mount"       // mount, umount2, pivot_root, move_mount, fsopen, …
	ClassModule     Class = "module"      // init_module, finit_module, delete_module
	ClassBPF        Class = "bpf"         // bpf, perf_event_open
	ClassPtrace     Class = "ptrace"      // ptrace, process_vm_readv, process_vm_writev, kcmp, pidfd_getfd
	ClassNamespaces Class = "namespaces"  // unshare, setns, clone with CLONE_NEW*
	ClassKeys       Class = "keys"        // add_key, request_key, keyctl
	ClassReboot     Class = "reboot"      // reboot, kexec_load, kexec_file_load, swapon, swapoff
	ClassRawNetwork Class = "raw-network" // socket with AF_PACKET or SOCK_RAW
	ClassTime       Class = "time"        // settimeofday, clock_settime, clock_adjtime, adjtimex
)

// Classes are all classes there are.
var Classes = []Class{ClassMount, ClassModule, ClassBPF, ClassPtrace, ClassNamespaces, ClassKeys, ClassReboot, ClassRawNetwork, ClassTime}

var namePattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)

// Parse reads a declaration. Unknown fields are errors: a misspelt right must not be lost in silence.
func Parse(data []byte) (*Declaration, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	d := &Declaration{}
	if err := decoder.Decode(d); err != nil {
		return nil, err
	}
	return d, d.validate()
}

func (d *Declaration) validate() error {
	if !namePattern.MatchString(d.Name) {
		return fmt.Errorf("name: %q is not a plugin name (lower-case letters, digits, hyphens; at most 31)", d.Name)
	}
	for i, c := range d.Capabilities {
		if !strings.HasPrefix(c, "CAP_") {
			return fmt.Errorf("capabilities[%d]: %q does not begin with CAP_", i, c)
		}
	}
	for i, class := range d.Seccomp {
		if !slices.Contains(Classes, class) {
			return fmt.Errorf("seccomp[%d]: %q is not a class (%v)", i, class, Classes)
		}
	}
	for i, p := range d.Paths {
		if !filepath.IsAbs(p.Path) || filepath.Clean(p.Path) != p.Path {
			return fmt.Errorf("paths[%d]: %q is not an absolute, clean path", i, p.Path)
		}
		if p.Write && p.List {
			return fmt.Errorf("paths[%d]: %q is to be written to, and to be listed only", i, p.Path)
		}
	}
	for i, dev := range d.Devices {
		if !strings.HasPrefix(dev.Path, "/dev/") || filepath.Clean(dev.Path) != dev.Path {
			return fmt.Errorf("devices[%d]: %q is not a clean path below /dev", i, dev.Path)
		}
	}
	return nil
}

// Reads reports whether typ is an input.
func (d *Declaration) Reads(typ string) bool {
	return slices.ContainsFunc(d.Inputs, func(in Input) bool { return in.Type == typ })
}

// Finalizes reports whether typ is an input whose resources may carry the plugin's finalizer.
func (d *Declaration) Finalizes(typ string) bool {
	return slices.ContainsFunc(d.Inputs, func(in Input) bool { return in.Type == typ && in.Finalizers })
}

// Writes reports whether typ is an output.
func (d *Declaration) Writes(typ string) bool { return slices.Contains(d.Outputs, typ) }

// CheckClaims fails when two plugins take the same desired kind: both write its statuses, and would undo each other's work. desired
// returns the type whose status has a type, "" if there is none.
func CheckClaims(all []*Declaration, desired func(observed string) string) error {
	claimed := map[string]string{}
	for _, d := range all {
		for _, output := range d.Outputs {
			typ := desired(output)
			if typ == "" {
				continue
			}
			if other, taken := claimed[typ]; taken {
				return fmt.Errorf("plugins %s and %s both take %s (they write %s): an image has one of them", other, d.Name, typ, output)
			}
			claimed[typ] = d.Name
		}
	}
	return nil
}

// DefinitionsFile is the name of the file with the definitions of a plugin's kinds.
func DefinitionsFile(plugin string) string { return plugin + ".binpb" }

// LoadDefinitions reads the definitions of d from dir. A plugin may bring none.
func (d *Declaration) LoadDefinitions(dir string) error {
	data, err := os.ReadFile(filepath.Join(dir, DefinitionsFile(d.Name)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	d.Definitions = data
	return nil
}

// Load reads every *.json of dir in the order of their names. The error names the file.
func Load(dir string) ([]*Declaration, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	var all []*Declaration
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		d, err := Parse(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, d)
	}
	return all, nil
}
