// Package storage gives a node's runtime the store that outlives a reboot, or says why there is none.
//
// The runtime's main opens it once, with what PID 1 says of the STATE partition. What is damaged is left as it is: the node starts from
// its user data in memory, people's writes to the durable namespaces are refused (Frozen), and a StateReset, which Resetter answers, moves
// the damaged log aside.
package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/log"
	"github.com/cosi-os/cosi/engine/wire"
	"golang.org/x/sys/unix"
)

// Statuses is the kind that shows where configuration is kept, StatusID the id of its one resource.
var Statuses = state.Kind{Namespace: "status", Type: "StateStatuses.machine.cosi.dev"}

const StatusID = "state"

const (
	logName = "log"
	// asidePrefix and a time name a log that was given up.
	asidePrefix = "log-given-up-"
	// resetName is the file that says: give the log up before it is opened the next time.
	resetName = "reset"
	// kept is how many logs that were given up stay.
	kept = 2
)

// Storage is the durable store of a node, or the want of one.
type Storage struct {
	dir    string // of PID 1's, empty without one
	store  *log.Store
	status *machinepb.StateStatus
}

// Open opens the log in the directory that h names. Without one, or when the log is damaged, everything lives in memory, and Status says
// why. Any other error of the disk is returned: the runtime is started again, and tries again.
func Open(h *wire.Storage, o log.Options) (*Storage, error) {
	if h == nil || h.Dir == "" {
		return &Storage{status: without(h)}, nil
	}
	s := &Storage{dir: h.Dir, status: &machinepb.StateStatus{Device: h.Device}}
	if err := s.finishReset(time.Now()); err != nil {
		return nil, fmt.Errorf("reset of the state: %w", err)
	}
	store, err := log.Open(filepath.Join(h.Dir, logName), o)
	var damaged *log.DamagedError
	switch {
	case errors.As(err, &damaged):
		s.status.Reason, s.status.Message, s.status.File, s.status.Offset = ReasonDamaged, damaged.Error(), damaged.File, damaged.Offset
	case errors.Is(err, log.ErrVersion):
		s.status.Reason, s.status.Message = ReasonDamaged, err.Error()
	case err != nil:
		return nil, fmt.Errorf("state: %w", err)
	default:
		s.store, s.status.Durable = store, true
	}
	return s, nil
}

// without is the status of a node that keeps everything in memory.
func without(h *wire.Storage) *machinepb.StateStatus {
	switch {
	case h == nil || h.Reason == "":
		return &machinepb.StateStatus{Reason: "NoBootDisk", Message: "no disk of its own, what the API writes is gone with the next boot"}
	case h.Reason == wire.StorageDamaged:
		return &machinepb.StateStatus{Reason: ReasonDamaged, Message: h.Message, Device: h.Device, File: h.Device}
	}
	return &machinepb.StateStatus{Reason: h.Reason, Message: h.Message, Device: h.Device}
}

// State returns the durable store, nil if everything lives in memory.
func (s *Storage) State() state.State {
	if s.store == nil {
		return nil
	}
	return s.store
}

// Status says where configuration is kept.
func (s *Storage) Status() *machinepb.StateStatus { return s.status }

// Frozen returns why people must not write to the durable namespaces, "" if they may.
func (s *Storage) Frozen() string {
	if s.status.GetReason() != ReasonDamaged {
		return ""
	}
	return s.status.GetMessage()
}

// Run does what the store has to do in the background, until ctx is done.
func (s *Storage) Run(ctx context.Context) error {
	if s.store == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.store.Run(ctx)
}

// Close ends the store.
func (s *Storage) Close() error {
	if s.store == nil {
		return nil
	}
	return s.store.Close()
}

// giveUp has the log moved aside when it is opened the next time. Until then it is written to as before.
func (s *Storage) giveUp() error {
	if s.dir == "" {
		return errors.New("this node keeps no state on a disk: a reboot is all it takes")
	}
	file, err := os.Create(filepath.Join(s.dir, resetName))
	if err != nil {
		return err
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return err
	}
	return syncDirectory(s.dir)
}

// finishReset moves the log aside if that was asked for. It may be interrupted anywhere and is then done by the next start.
func (s *Storage) finishReset(now time.Time) error {
	mark := filepath.Join(s.dir, resetName)
	if _, err := os.Lstat(mark); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	aside := filepath.Join(s.dir, asidePrefix+now.UTC().Format("20060102T150405.000000000"))
	if err := os.Rename(filepath.Join(s.dir, logName), aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := syncDirectory(s.dir); err != nil {
		return err
	}
	if err := os.Remove(mark); err != nil {
		return err
	}
	if err := syncDirectory(s.dir); err != nil {
		return err
	}
	return s.forget()
}

// forget removes all but the last logs that were given up.
func (s *Storage) forget() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	var old []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), asidePrefix) {
			old = append(old, e.Name())
		}
	}
	for _, name := range old[:max(0, len(old)-kept)] {
		if err := os.RemoveAll(filepath.Join(s.dir, name)); err != nil {
			return err
		}
	}
	return nil
}

func syncDirectory(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Fsync(fd); err != nil {
		return &os.PathError{Op: "fsync", Path: path, Err: err}
	}
	return nil
}
