// Package wire is what PID 1 and the runtime say to each other over their inherited socket pair: frames of a 4-byte big-endian
// length and a JSON object. Both sides import it; it needs the standard library only.
//
// A frame carries exactly one of the pointers of Up or Down. An unknown field is ignored, so that a newer side may say more.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
)

// Version is the version of the frames. A runtime that reads another one in Hello exits with a reason.
const Version = 1

// MaxFrame is the longest frame in bytes.
const MaxFrame = 1 << 20

// Descriptors that PID 1 hands to the runtime, as names in the environment variable COSI_FDS: "engine=4,network=5,plugin/mount=6,…".
const (
	// EnvDescriptors lists NAME=NUMBER, separated by commas.
	EnvDescriptors = "COSI_FDS"
	// FDEngine is the socket pair of this package.
	FDEngine = "engine"
	// FDNetwork is a TCP socket bound to port 50000 of all addresses. It does not listen until the runtime calls listen(2).
	FDNetwork = "network"
	// FDPluginPrefix and a plugin's name is that plugin's listening socket.
	FDPluginPrefix = "plugin/"
	// FDLocal is the listening socket ROOT/run/cosi/runtime.sock for programs of the user who started engine --root; absent on a machine.
	FDLocal = "local"
)

// Environment variables of a plugin.
const (
	// EnvEndpoint is the plugin's socket: unix:///run/cosi/plugin/NAME.sock.
	EnvEndpoint = "COSI_ENDPOINT"
	// EnvName is the plugin's name.
	EnvName = "COSI_PLUGIN"
	// EnvRoot is the directory of engine --root. On a machine it is not set.
	EnvRoot = "COSI_ROOT"
)

// Up is what PID 1 tells the runtime.
type Up struct {
	Hello    *Hello    `json:"hello,omitempty"`
	Started  *Started  `json:"started,omitempty"`
	Confined *Confined `json:"confined,omitempty"`
	Exited   *Exited   `json:"exited,omitempty"`
	Output   *Output   `json:"output,omitempty"`
	Stage    *Stage    `json:"stage,omitempty"`
	// Synced follows the replay of the rings and of all running processes that a (re)started runtime gets after Hello.
	Synced *Synced `json:"synced,omitempty"`
	// Watchdog is fed from now on.
	Watchdog *Watchdog `json:"watchdog,omitempty"`
	// Module is what came of a LoadModule.
	Module *Module `json:"module,omitempty"`
	// Stopping: the node goes down.
	Stopping *Stopping `json:"stopping,omitempty"`
}

// Hello is the first frame.
type Hello struct {
	Version       int    `json:"version"`
	EngineVersion string `json:"engineVersion"`
	// PID1 is false under engine --root.
	PID1 bool `json:"pid1"`
	// Root is the directory of engine --root, "/" on a machine.
	Root         string    `json:"root"`
	BootID       string    `json:"bootId"`
	Kernel       string    `json:"kernel"`
	Architecture string    `json:"architecture"`
	Hostname     string    `json:"hostname"`
	Built        time.Time `json:"built"`
	Booted       time.Time `json:"booted"`
	// ClockSet says that PID 1 moved a clock that stood before Built.
	ClockSet bool `json:"clockSet,omitempty"`
	// Storage is where the runtime keeps what outlives the boot; nil under engine --root.
	Storage *Storage `json:"storage,omitempty"`
}

// Storage is the STATE partition as PID 1 has prepared it, or why there is none.
type Storage struct {
	// Dir is a mounted directory that belongs to the runtime's user; empty when everything must live in memory.
	Dir string `json:"dir,omitempty"`
	// Device is the partition, as far as one was found: "/dev/vda5".
	Device string `json:"device,omitempty"`
	// Reason says in one word why Dir is empty: NoBootDisk, Ambiguous (two disks claim to be it), NoSpace, ReadOnly, Damaged (there is a
	// partition, and it is not touched until it is reset), Locked (it is encrypted, and the TPM does not open it), Error.
	Reason string `json:"reason,omitempty"`
	// Frozen says that there is a partition that holds something and cannot be used: what is written in its stead would be gone.
	Frozen bool `json:"frozen,omitempty"`
	// Message says it in words.
	Message string `json:"message,omitempty"`
}

// StorageDamaged is the Reason of a partition that is there and cannot be used.
const StorageDamaged = "Damaged"

// StorageLocked is that of one that is encrypted, and was not opened.
const StorageLocked = "Locked"

// Started says that a process runs.
type Started struct {
	Name     string    `json:"name"`
	PID      int       `json:"pid"`
	At       time.Time `json:"at"`
	Restarts int       `json:"restarts"`
}

// Confined says what the kernel enforces on a process, read from /proc/PID/status after it has executed its program.
type Confined struct {
	Name           string   `json:"name"`
	PID            int      `json:"pid"`
	UID            uint32   `json:"uid"`
	GID            uint32   `json:"gid"`
	Groups         []uint32 `json:"groups,omitempty"`
	Effective      []string `json:"effective,omitempty"`
	Bounding       []string `json:"bounding,omitempty"`
	NoNewPrivs     bool     `json:"noNewPrivs"`
	SeccompFilters int      `json:"seccompFilters"`
	Landlock       bool     `json:"landlock"`
	Cgroup         string   `json:"cgroup"`
	DeviceFilter   bool     `json:"deviceFilter"`
}

// Exited says that a process has ended.
type Exited struct {
	Name string    `json:"name"`
	PID  int       `json:"pid"`
	At   time.Time `json:"at"`
	// How is "exit 0", "exit 1", "signal killed", or why it could not be started.
	How string `json:"how"`
	// NextStart is zero when it will not be started again.
	NextStart time.Time `json:"nextStart,omitzero"`
}

// Output is a line of a process.
type Output struct {
	Name     string    `json:"name"`
	Stream   string    `json:"stream"` // stdout, stderr
	Sequence uint64    `json:"sequence"`
	At       time.Time `json:"at"`
	Line     string    `json:"line"`
}

// Stage is a moment of the boot, in milliseconds of CLOCK_BOOTTIME.
type Stage struct {
	Name         string `json:"name"`
	Milliseconds uint64 `json:"milliseconds"`
}

// Watchdog is what resets the machine should PID 1 hang.
type Watchdog struct {
	// Identity is what its driver calls it.
	Identity string `json:"identity"`
}

// Synced ends the replay.
type Synced struct{}

// Module says what came of a LoadModule.
type Module struct {
	LoadModule
	// Reason is one of the Module… words.
	Reason  string `json:"reason"`
	Message string `json:"message,omitempty"`
}

// Reasons of a Module: the first two are good.
const (
	ModuleLoaded  = "Loaded"
	ModuleBuiltIn = "BuiltIn" // the kernel has it without a module
	ModuleMissing = "Missing" // the image has none
	ModuleFailed  = "Failed"
)

// Stopping says that PID 1 has begun to take the node down.
type Stopping struct {
	Reboot bool   `json:"reboot"`
	Reason string `json:"reason"`
}

// Down is what the runtime tells PID 1. PID 1 obeys nothing else.
type Down struct {
	Start    *Process  `json:"start,omitempty"`
	Stop     *Process  `json:"stop,omitempty"`
	Shutdown *Shutdown `json:"shutdown,omitempty"`
	Console  *Console  `json:"console,omitempty"`
	Stage    *Stage    `json:"stage,omitempty"`
	// ResetStorage gives up a STATE partition that is Damaged: it is formatted at the next boot. The runtime asks for the reboot.
	ResetStorage *ResetStorage `json:"resetStorage,omitempty"`
	LoadModule   *LoadModule   `json:"loadModule,omitempty"`
}

// LoadModule has a module loaded. Twice is harmless. The answer is a Module.
type LoadModule struct {
	// Name of the module, or one of its aliases.
	Name string `json:"name"`
	// Parameters as the kernel takes them.
	Parameters string `json:"parameters,omitempty"`
}

// ResetStorage says who asked for it, for the log.
type ResetStorage struct {
	Reason string `json:"reason"`
}

// Process names a process that PID 1 knows.
type Process struct {
	Name string `json:"name"`
}

// Shutdown takes the node down: stop every process in reverse order of their start, unmount, sync, power off or reboot.
type Shutdown struct {
	Reboot bool   `json:"reboot"`
	Reason string `json:"reason"`
}

// Console replaces the status that PID 1 shows on the consoles.
type Console struct {
	Lines []string `json:"lines"`
}

// Conn sends and receives frames. Send may be called by several goroutines, Receive by one.
type Conn struct {
	rw io.ReadWriter

	mu sync.Mutex // guards writes to rw
}

// NewConn returns a Conn over a stream.
func NewConn(rw io.ReadWriter) *Conn { return &Conn{rw: rw} }

// Send writes one frame.
func (c *Conn) Send(frame any) error {
	body, err := json.Marshal(frame)
	if err != nil {
		return err
	}
	if len(body) > MaxFrame {
		return fmt.Errorf("frame of %d bytes: the limit is %d", len(body), MaxFrame)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err = c.rw.Write(append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body))), body...))
	return err
}

// Receive reads one frame into frame, a *Up or *Down. At the end of the stream between frames it returns io.EOF.
func (c *Conn) Receive(frame any) error {
	var head [4]byte
	if _, err := io.ReadFull(c.rw, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > MaxFrame {
		return fmt.Errorf("frame of %d bytes: the limit is %d", n, MaxFrame)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c.rw, body); err != nil {
		return fmt.Errorf("frame cut short: %w", err)
	}
	return json.Unmarshal(body, frame)
}
