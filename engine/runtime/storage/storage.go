// Package storage gives a node's runtime the store that outlives a reboot, or says why there is none.
//
// The runtime's main opens it once, with what PID 1 says of the STATE partition. A state that cannot be used, for whatever reason, is left as
// it is: the node starts from its user data in memory, people's writes to the durable namespaces are refused (Frozen), and a StateReset,
// which Resetter answers, moves the damaged log aside, or has the partition formatted where that cannot be done.
package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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

// Open opens the log in the directory that h names. Without one, or when the log cannot be read, everything lives in memory, and Status
// says why. It fails with log.ErrLocked while another process has the log: that one is about to end.
func Open(h *wire.Storage, o log.Options) (*Storage, error) {
	if h == nil || h.Dir == "" {
		return &Storage{status: without(h)}, nil
	}
	s := &Storage{dir: h.Dir, status: &machinepb.StateStatus{Device: h.Device}}
	err := s.finishReset(time.Now())
	if err == nil {
		s.store, err = log.Open(filepath.Join(h.Dir, logName), o)
	} else {
		err = fmt.Errorf("reset of the state: %w", err)
	}
	if errors.Is(err, log.ErrLocked) {
		return nil, fmt.Errorf("state: %w", err)
	}
	if err != nil {
		s.damaged(err)
	}
	s.status.Durable = err == nil
	return s, nil
}

// damaged has Status say why the log cannot be used.
func (s *Storage) damaged(err error) {
	s.status.Reason, s.status.Message, s.status.Frozen = ReasonDamaged, err.Error(), true
	var damaged *log.DamagedError
	var path *fs.PathError
	if errors.As(err, &damaged) {
		s.status.File, s.status.Offset = damaged.File, damaged.Offset
	} else if errors.As(err, &path) {
		s.status.File = path.Path
	}
}

// without is the status of a node that keeps everything in memory.
func without(h *wire.Storage) *machinepb.StateStatus {
	if h == nil || h.Reason == "" {
		return &machinepb.StateStatus{Reason: "NoBootDisk", Message: "no disk of its own, what the API writes is gone with the next boot"}
	}
	status := &machinepb.StateStatus{Reason: h.Reason, Message: h.Message, Device: h.Device, Frozen: h.Frozen}
	if h.Reason == wire.StorageDamaged {
		status.Reason, status.File = ReasonDamaged, h.Device
	}
	return status
}

// State returns the durable store, nil if everything lives in memory.
func (s *Storage) State() state.State {
	if s.store == nil {
		return nil
	}
	return s.store
}

// Kinds returns, in the order of their types, those that the durable store holds or has held something of.
func (s *Storage) Kinds() []state.Kind {
	if s.store == nil {
		return nil
	}
	all := s.store.Kinds()
	slices.SortFunc(all, func(a, b state.Kind) int { return strings.Compare(a.Type, b.Type) })
	return all
}

// Status says where configuration is kept.
func (s *Storage) Status() *machinepb.StateStatus { return s.status }

// Frozen returns why people must not write to the durable namespaces, "" if they may.
func (s *Storage) Frozen() string {
	switch {
	case !s.status.GetFrozen():
		return ""
	case s.status.GetReason() == ReasonDamaged:
		return s.status.GetMessage() + "; \"cosictl reset state\" gives it up and starts afresh"
	case s.status.GetReason() == ReasonLocked:
		return s.status.GetMessage() + "; a VolumeUnlock \"state\" with the recovery key opens it"
	default:
		return s.status.GetMessage()
	}
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
		return errors.New("this node keeps no state on a disk that a reset could give up")
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
