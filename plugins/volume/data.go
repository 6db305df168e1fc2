package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/google/uuid"

	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/api/layout/ext4"
	"github.com/cosi-os/cosi/api/layout/luks2"
	"github.com/cosi-os/cosi/sdk"
)

type wish = sdk.Resource[*storagepb.Volume]

// volumes opens what is asked for, and closes what is not any more.
func (c *controller) volumes(ctx context.Context, s *sdk.State) error {
	var errs []error
	for _, v := range sdk.List[*storagepb.Volume](s, volumeType) {
		if v.TearingDown() {
			errs = append(errs, c.release(ctx, s, v))
			continue
		}
		if err := s.AddFinalizer(ctx, v.Metadata); err != nil {
			errs = append(errs, err)
			continue
		}
		if v.GetId() == stateID {
			continue // its status is the state's own
		}
		st, retry := c.converge(v)
		st.ObservedVersion, st.Source = v.GetVersion(), v.Spec.GetSource()
		errs = append(errs, retry, s.Write(ctx, statusType, v.GetId(), st, v.Metadata))
	}
	for _, id := range s.Outputs(statusType) {
		if _, wanted := sdk.Get[*storagepb.Volume](s, volumeType, id); !wanted && id != stateID {
			errs = append(errs, c.close(id), s.Delete(ctx, statusType, id))
		}
	}
	return errors.Join(errs...)
}

// release closes a volume that is being torn down.
func (c *controller) release(ctx context.Context, s *sdk.State, v wish) error {
	if v.GetId() != stateID {
		if err := c.close(v.GetId()); err != nil {
			return fmt.Errorf("close %q: %w", v.GetId(), err) // mounted, say: tried again
		}
		if err := s.Delete(ctx, statusType, v.GetId()); err != nil {
			return err
		}
	}
	return s.RemoveFinalizer(ctx, v.Metadata)
}

func (c *controller) close(id string) error {
	delete(c.recovered, id)
	if !named.MatchString(id) {
		return nil // it was never opened
	}
	if node, err := c.mapped.find(id); err != nil || node == "" {
		return err
	}
	if err := c.mapped.close(id); err != nil {
		return err
	}
	return os.Remove(c.link(id))
}

// link is by what name people find the device.
func (c *controller) link(id string) string { return filepath.Join(c.links, id) }

// named are the ids of Volumes: they become names of devices and files.
var named = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// converge opens a volume, and makes it first if that is asked for, and says what is so then. retry is what may go another time without any sign
// from outside.
func (c *controller) converge(v wish) (st *status, retry error) {
	if !named.MatchString(v.GetId()) {
		return &status{Reason: reasonFailed, Message: fmt.Sprintf("%q is no name of a device: want lower-case letters, digits and hyphens", v.GetId())}, nil
	}
	node, err := c.mapped.find(v.GetId())
	st = &status{Sealed: true, Policy: c.policies[v.GetId()]}
	if err == nil && node == "" {
		node, err = c.openVolume(v)
		st.Policy = c.policies[v.GetId()]
	}
	if err == nil {
		err = symlink(node, c.link(v.GetId()))
	}
	switch {
	case err == nil:
		st.Ready, st.Reason, st.Device, st.UnlockedBy = true, reasonOpen, c.link(v.GetId()), byTPM
		if c.recovered[v.GetId()] {
			st.UnlockedBy = byRecovery
		}
		return st, nil
	case errors.Is(err, fs.ErrNotExist):
		st.Reason, st.Sealed = reasonSourceMissing, false
	case errors.Is(err, errNotAVolume):
		st.Reason, st.Sealed = reasonNotAVolume, false
	case errors.Is(err, errLocked), errors.Is(err, errNoTPM):
		st.Reason = reasonLocked
	default:
		st.Reason, retry = reasonFailed, fmt.Errorf("volume %q: %w", v.GetId(), err)
	}
	st.Message = err.Error()
	return st, retry
}

// symlink makes a name for a device.
func symlink(node, name string) error {
	if to, err := os.Readlink(name); err == nil && to == node {
		return nil
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(node, name)
}

// errNotAVolume says that a device holds something else.
var errNotAVolume = errors.New("it holds something that is no volume, and is left as it is")

// openVolume opens what is on the device of a Volume, and returns the device that shows it.
func (c *controller) openVolume(v wish) (node string, err error) {
	source := v.Spec.GetSource()
	f, err := openDevice(source)
	if err != nil {
		return "", err
	}
	defer f.Close()
	magic := make([]byte, len(luks2.Magic))
	if _, err := f.ReadAt(magic, 0); err != nil {
		return "", fmt.Errorf("%s: %w", source, err)
	}
	if string(magic) == luks2.Magic {
		err = c.withTPM(func(k keeper) error {
			opened, err := k.open(f)
			if err != nil {
				return fmt.Errorf("%s: %w", source, err)
			}
			c.policies[v.GetId()] = opened.policy
			node, _, err = c.mapped.open(v.GetId(), source, opened)
			return err
		})
		return node, err
	}
	if empty, err := blank(f); err != nil || !empty || v.Spec.GetFormat() == "" {
		return "", errors.Join(err, fmt.Errorf("%s: %w", source, errNotAVolume))
	}
	err = c.withTPM(func(k keeper) error {
		node, err = c.format(k, f, v)
		return err
	})
	return node, err
}

// format makes a volume with a file system on an empty device. The header is written last: before, the device is an empty one.
func (c *controller) format(k keeper, f *os.File, v wish) (node string, err error) {
	made, recovery, err := k.create(f, v.GetId(), func(made *vault) error {
		if node, _, err = c.mapped.open(v.GetId(), v.Spec.GetSource(), made); err != nil {
			return err
		}
		return c.fill(node, v.GetId())
	})
	if err == nil {
		c.policies[v.GetId()] = made.policy
		err = c.keepRecoveryKey(v.GetId(), recovery)
	}
	if err != nil && node != "" {
		err = errors.Join(err, c.mapped.close(v.GetId()))
	}
	return node, err
}

// fill makes a file system on a device, of the device's size.
func (c *controller) fill(node, id string) error {
	f, err := openDevice(node)
	if err != nil {
		return err
	}
	err = ext4.Write(f, ext4.Options{UUID: uuid.New(), Label: id[:min(len(id), 16)], Time: time.Now()})
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return c.grow(node)
}

// blank reports whether the first and the last MiB of a device are zeros: there all file systems, partition tables and arrays have their marks.
func blank(f *os.File) (bool, error) {
	const some = 1 << 20
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return false, err
	}
	part := make([]byte, some)
	for _, at := range []int64{0, max(0, size-some)} {
		n, err := f.ReadAt(part, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		if len(bytes.TrimLeft(part[:n], "\x00")) > 0 {
			return false, nil
		}
	}
	return true, nil
}
