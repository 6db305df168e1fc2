// Package definition reads image definitions: YAML files that say what goes into an image.
//
// A definition is inert: the plan is made of it, and the build of the plan. Reading it finds every mistake at once, with file, line and
// field, and says what may have been meant.
package definition

import (
	"crypto/ed25519"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/cosi-os/cosi/images/extension"
	"github.com/cosi-os/cosi/images/pkcs11"
	"github.com/cosi-os/cosi/initramfs"
)

// Definition is an image definition, with what it extends merged in.
type Definition struct {
	// Name is part of every output's name: cosi-NAME-ARCH.raw.
	Name string `yaml:"name"`
	// Extends is another definition's path, relative to this one's. Of its lists this definition's are continuations, except for
	// outputs, which replace, and resources: one of the same name replaces that one. Everything else said here replaces what is said
	// there, and an empty text takes it back.
	Extends string `yaml:"extends"`
	// Without takes away from what Extends brings, before anything said here is added.
	Without Without `yaml:"without"`
	// Arch is the processor as Go and Debian call it: amd64.
	Arch string `yaml:"arch"`
	// Platform is who runs the machine, and has its own way to hand user data in. Empty: a node finds out by what the machine says of itself.
	Platform string `yaml:"platform"`
	Kernel   Kernel `yaml:"kernel"`
	// Initramfs says how it is packed.
	Initramfs Initramfs `yaml:"initramfs"`
	// Plugins are folders of plugins/ that the multi-call executable holds.
	Plugins []string `yaml:"plugins"`
	// SeparatePlugins are folders of plugins/ that become executables of their own, as other people's plugins are.
	SeparatePlugins []string `yaml:"separate_plugins"`
	// Extensions are paths, relative to the definition's, of system extensions: see package extension.
	Extensions []string `yaml:"extensions"`
	// Resources are the image's default resources, the weakest of all: what user data and people write wins.
	Resources []yaml.Node `yaml:"resources"`
	UserData  UserData    `yaml:"user_data"`
	// SecureBoot has what UEFI starts signed, PCRPolicy what a TPM is to find.
	SecureBoot SecureBoot `yaml:"secure_boot"`
	PCRPolicy  PCRPolicy  `yaml:"pcr_policy"`
	// Partitions are those of the disk; State is the one that the node makes itself.
	Partitions Partitions `yaml:"partitions"`
	State      State      `yaml:"state"`
	// Upgrade is about the output of this name.
	Upgrade Upgrade  `yaml:"upgrade"`
	Outputs []Output `yaml:"outputs"`
	// Epoch is the time of everything in the image if neither SOURCE_DATE_EPOCH nor a git commit says another.
	Epoch time.Time `yaml:"epoch"`

	// Merged are the Extensions, read.
	Merged []*extension.Extension `yaml:"-"`
	// File is where the definition was read from.
	File string `yaml:"-"`
	// Files are File and what it extends.
	Files []string `yaml:"-"`

	origins map[string]Origin `yaml:"-"` // by field, and by field and item of a list: see Origin
}

// Without names items of lists.
type Without struct {
	Plugins         []string `yaml:"plugins"`
	SeparatePlugins []string `yaml:"separate_plugins"`
	// Kernel names modules, whether loaded at boot or shipped, and arguments.
	Kernel WithoutKernel `yaml:"kernel"`
	// Resources are named TYPE/ID.
	Resources []string `yaml:"resources"`
	// Partitions are extra ones.
	Partitions []string `yaml:"partitions"`
	// Extensions are named, without their directory.
	Extensions []string `yaml:"extensions"`
}

// WithoutKernel is Without's part for the kernel.
type WithoutKernel struct {
	Modules   []string `yaml:"modules"`
	Arguments []string `yaml:"arguments"`
}

// Kernel is which kernel and what of it.
type Kernel struct {
	// Flavour is "cloud" (Debian's for virtual machines: no USB, no AHCI), "metal" (Debian's for all machines), or "own" (built by make kernel,
	// of Debian's source, without modules).
	Flavour string `yaml:"flavour"`
	// Series is another than the one that nodes run, "6.1" or "backports" (the newest), and one that kernel/lock.yaml pins.
	Series  string  `yaml:"series"`
	Modules Modules `yaml:"modules"`
	// Arguments is the kernel command line.
	Arguments []string `yaml:"arguments"`
}

// Modules by name; what they need comes along, and what is built into the kernel may be named too.
type Modules struct {
	// Boot are loaded in this order before the plugins start. Each costs boot time.
	Boot []string `yaml:"boot"`
	// Ship are in the image, to be loaded for a device that asks for them or by a plugin that declares them.
	Ship []string `yaml:"ship"`
}

// Initramfs is how the initial file system is packed.
type Initramfs struct {
	Compression initramfs.Compression `yaml:"compression"`
}

// UserData says where a node looks for user data, beyond what it always does.
type UserData struct {
	// DisksUnderSecureBoot lets a node read user data from disks and media under Secure Boot: from its EFI system partition, where anybody with
	// the disk in his hands may have put it, and from CIDATA disks and config drives, which anybody may plug in.
	DisksUnderSecureBoot bool `yaml:"disks_under_secure_boot"`
	// URLCA is the path, relative to the definition's, of a PEM file with the certificates that vouch for an https URL of user data. A
	// node without shows what such a URL brings as unauthenticated, unless the URL says its SHA-256.
	URLCA string `yaml:"url_ca"`

	// URLCertificates is what the file URLCA holds.
	URLCertificates []byte `yaml:"-"`
}

// Partitions says what is different from the usual table (see package disk).
type Partitions struct {
	// ESP is the size of the EFI system partition, which holds the kernel and the initramfs; Root that of each of the two slots for a root.
	ESP  Size `yaml:"esp"`
	Root Size `yaml:"root"`
	// Extra partitions come behind these and before the state. They are kept when an image is replaced by another with the same table.
	Extra []Partition `yaml:"extra"`
}

// Partition is one that a definition adds to the disk.
type Partition struct {
	Name string `yaml:"name"`
	Size Size   `yaml:"size"`
	// Content is the path, relative to the definition's, of a file that the partition begins with: a file system. Without, it is empty.
	Content string `yaml:"content"`
}

// State is the partition that a node makes on its disk for what outlives a reboot.
type State struct {
	// Size is how large it becomes at most, "64MiB" or more; empty: all of the disk that is left. One that is there never shrinks.
	Size Size `yaml:"size"`
	// Seal says whether it is encrypted, with a key that the machine's TPM keeps. The plugin volume does that.
	Seal Seal `yaml:"seal"`
}

// Seal is whether a new state is sealed to a TPM; one that is there stays as it is.
type Seal string

const (
	SealAuto   Seal = "auto"   // where there is a TPM 2.0 and the image has a pcr_policy; as without a word
	SealAlways Seal = "always" // or none is made: the node keeps nothing
	SealNever  Seal = "never"
)

// Seals are all there are.
var Seals = []Seal{SealAuto, SealAlways, SealNever}

// Sealer is the plugin that seals.
const Sealer = "volume"

// Upgrade is how nodes take the version that is built for one to upgrade to.
type Upgrade struct {
	// Key and PublicKey are paths, relative to the definition's, of the two halves of an Ed25519 key, both PEM, that upgrades are signed with; empty: they
	// are not signed. Only a build opens Key, which may be in a token: see SecureBoot. What nodes trust, their UpgradePolicies say.
	Key       string `yaml:"key"`
	PublicKey string `yaml:"public_key"`
	// Floor is the lowest version of a node that takes it; empty: any.
	Floor string `yaml:"floor"`

	Token *pkcs11.URI `yaml:"-"`
	// Public is the key that was read.
	Public ed25519.PublicKey `yaml:"-"`
}

// Size is a number of bytes for people: "512MiB", "10GiB", "1TiB".
type Size string

// MiB returns the size, or false if s is none.
func (s Size) MiB() (int64, bool) {
	for unit, each := range map[string]int64{"MiB": 1, "GiB": 1 << 10, "TiB": 1 << 20} {
		if digits, is := strings.CutSuffix(string(s), unit); is {
			n, err := strconv.ParseInt(digits, 10, 32)
			return n * each, err == nil && n > 0
		}
	}
	return 0, false
}

// Bytes returns the size, 0 if s is none.
func (s Size) Bytes() int64 {
	n, _ := s.MiB()
	return n << 20
}

// Output is a kind of file that a build makes.
type Output string

const (
	Raw    Output = "raw"    // a GPT disk
	QCOW2  Output = "qcow2"  // the same disk, compressed
	ISO    Output = "iso"    // a UEFI CD
	UKI    Output = "uki"    // one .efi file: for boot loaders
	Direct Output = "direct" // .vmlinuz and .initramfs: for qemu -kernel
	PXE    Output = "pxe"    // all of these, .ipxe, a script of iPXE, and iPXE itself: for the network
	VHD    Output = "vhd"    // the disk for Azure
	VMDK   Output = "vmdk"   // the disk for VMware, compressed
	OVA    Output = "ova"    // a virtual machine for VMware
	GCP    Output = "gcp"    // the disk for Google, in a .tar.gz
	OCI    Output = "oci"    // an artifact for a registry: an image layout in a .tar

	// The disk, compressed for download.
	RawZstandard Output = "raw.zst"
	RawGzip      Output = "raw.gz"
	RawXZ        Output = "raw.xz"

	UpgradeFile Output = "upgrade" // what a node that runs from a disk upgrades itself with
)

// Outputs are all there are.
var Outputs = []Output{Raw, QCOW2, ISO, PXE, UKI, Direct, VHD, VMDK, OVA, GCP, OCI, RawZstandard, RawGzip, RawXZ, UpgradeFile}

// Architectures and Flavours are those that there are kernels for, Platforms those whose user data a node can read.
var (
	Platforms     = []string{"aws", "azure", "gcp", "openstack", "vmware"}
	Architectures = []string{"amd64", "arm64"}
	Flavours      = []string{"cloud", "metal", "own"}
)
