package volume

import (
	"bytes"
	"cmp"
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
	"github.com/cosi-os/cosi/api/layout/mapper"
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
		before, _ := sdk.Get[*status](s, statusType, v.GetId())
		st, retry := c.converge(v, before.Spec)
		st.ObservedVersion = v.GetVersion()
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
	delete(c.opened, id)
	if !isName(id) {
		return nil // it was never opened
	}
	node, err := c.mapped.find(id)
	if err == nil && node != "" {
		err = c.mapped.close(id)
	}
	if err != nil {
		return err
	}
	if err := os.Remove(c.link(id)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// link is by what name people find the device.
func (c *controller) link(id string) string { return filepath.Join(c.links, id) }

// isName reports whether an id can be a Volume's: it becomes the name of a device, and of a file beside that of device mapper itself.
func isName(id string) bool { return named.MatchString(id) && id != filepath.Base(mapper.Control) }

var named = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// converge opens a volume, and makes it first if that is asked for, and says what is so then. before is what it said last, nil if it never did. retry is
// what may go another time without any sign from outside.
func (c *controller) converge(v wish, before *status) (st *status, retry error) {
	id := v.GetId()
	st = &status{Source: v.Spec.GetSource()}
	if !isName(id) {
		st.Reason, st.Message = reasonFailed, fmt.Sprintf("%q is no name of a volume: want lower-case letters, digits and hyphens, and not %q", id, filepath.Base(mapper.Control))
		return st, nil
	}
	node, err := c.mapped.find(id)
	if was := cmp.Or(before.GetSource(), st.Source); err == nil && node != "" && (was != st.Source || missing(was)) {
		if err = c.close(id); err != nil { // mounted, say
			st.Source, err = was, fmt.Errorf("close what is on %s: %w", was, err)
		}
		node = ""
	}
	if err == nil && node == "" {
		node, err = c.openVolume(v)
	} else if _, known := c.opened[id]; err == nil && !known { // by the plugin before it was restarted
		c.opened[id] = opening{before.GetPolicy(), before.GetUnlockedBy()}
	}
	if err == nil {
		err = symlink(node, c.link(id))
	}
	switch {
	case err == nil:
		st.Ready, st.Reason, st.Device = true, reasonOpen, c.link(id)
		st.Sealed, st.Policy, st.UnlockedBy = true, c.opened[id].policy, c.opened[id].by
		return st, nil
	case errors.Is(err, fs.ErrNotExist):
		st.Reason = reasonSourceMissing
	case errors.Is(err, errNotAVolume):
		st.Reason = reasonNotAVolume
	case errors.Is(err, errLocked):
		st.Reason, st.Sealed = reasonLocked, true
	default:
		st.Reason, retry = reasonFailed, fmt.Errorf("volume %q: %w", id, err)
	}
	st.Message = err.Error()
	return st, retry
}

// missing reports whether a device has gone: what showed it shows nothing any more, not even when it comes again.
func missing(device string) bool {
	_, err := os.Lstat(device)
	return errors.Is(err, fs.ErrNotExist)
}

// symlink makes a name for a device.
func symlink(node, name string) error {
	to, err := os.Readlink(name)
	if err == nil && to == node {
		return nil
	}
	if err == nil { // of a device before
		err = os.Remove(name)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(node, name)
}

// errNotAVolume says that a device holds something else.
var errNotAVolume = errors.New("it holds something that is no volume, and is left as it is")

// openVolume opens what is on the device of a Volume, and returns the device that shows it.
func (c *controller) openVolume(v wish) (node string, err error) {
	source := v.Spec.GetSource()
	f, err := openDevice(source, 0)
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
			node, err = c.present(v.GetId(), source, opened, byTPM)
			return err
		})
		if errors.Is(err, errNoTPM) {
			err = fmt.Errorf("%s: %w: %w", source, errLocked, err)
		}
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

// present shows what is in a volume, and remembers who opened it.
func (c *controller) present(id, source string, v *vault, by string) (node string, err error) {
	if node, _, err = c.mapped.open(id, source, v); err == nil {
		c.opened[id] = opening{v.policy, by}
	}
	return node, err
}

// least is how large a device has to be.
const least = luks2.DataOffset + ext4.Size

// format makes a volume with a file system on an empty device. The header is written last: before, the device is an empty one.
func (c *controller) format(k keeper, f *os.File, v wish) (node string, err error) {
	if size, err := f.Seek(0, io.SeekEnd); err != nil || size < least {
		return "", errors.Join(err, fmt.Errorf("%s: it has %d MiB, and a volume takes %d", v.Spec.GetSource(), size>>20, least>>20))
	}
	_, recovery, err := k.create(f, v.GetId(), func(made *vault) error {
		if node, err = c.present(v.GetId(), v.Spec.GetSource(), made, byTPM); err != nil {
			return err
		}
		return c.fill(node, v.GetId())
	})
	if err == nil {
		err = c.keepRecoveryKey(v.GetId(), recovery)
	}
	if err != nil && node != "" {
		err = errors.Join(err, c.mapped.close(v.GetId()))
	}
	return node, err
}

// fill makes a file system on a device, of the device's size.
func (c *controller) fill(node, id string) error {
	f, err := openDevice(node, 0)
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
