package mount

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	kernelpb "github.com/cosi-os/cosi/api/cosi/kernel/v1alpha1"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/plugins/internal/mountinfo"
	"github.com/cosi-os/cosi/sdk"
)

type (
	point  = sdk.Resource[*storagepb.MountPoint]
	status = sdk.Resource[*storagepb.MountPointStatus]
)

// Reasons of a status.
const (
	reasonMounted       = "Mounted"
	reasonWaiting       = "Waiting"
	reasonSourceMissing = "SourceMissing"
	reasonMountFailed   = "MountFailed"
	reasonUnmountFailed = "UnmountFailed"
	reasonTargetBusy    = "TargetBusy"
)

// mounter makes the mount table what the MountPoints say.
type mounter struct {
	// applied is what was last given to the kernel for an id. After a restart it is empty, and a remount brings it up to date.
	applied map[string]applied
	// modules are those that the runtime has spoken of.
	modules []sdk.Resource[*kernelpb.KernelModuleStatus]
}

// applied is what the kernel was given, and how it answered.
type applied struct {
	spec *storagepb.MountPoint
	err  error // of the remount
}

// reconcile unmounts what nobody asks for any more, deepest first, then mounts what is asked for, outermost first. Everything is
// tried; the error, which has the controller called again soon, is about what could not be unmounted.
func (m *mounter) reconcile(ctx context.Context, s *sdk.State) error {
	m.modules = sdk.List[*kernelpb.KernelModuleStatus](s, moduleType)
	points := sdk.List[*storagepb.MountPoint](s, pointType)
	slices.SortStableFunc(points, func(a, b point) int { return cmp.Compare(a.Spec.GetTarget(), b.Spec.GetTarget()) })
	var errs []error
	claims := claim(s, points)
	for _, p := range slices.Backward(points) {
		if p.TearingDown() {
			errs = append(errs, m.release(ctx, s, p, claims))
		}
	}
	for _, st := range slices.Backward(sdk.List[*storagepb.MountPointStatus](s, statusType)) {
		if _, ok := sdk.Get[*storagepb.MountPoint](s, pointType, st.GetId()); !ok {
			errs = append(errs, m.orphan(ctx, s, st))
		}
	}
	claims = claim(s, points) // some targets are free now
	for _, p := range points {
		if !p.TearingDown() {
			errs = append(errs, m.apply(ctx, s, p, claims))
		}
	}
	return errors.Join(errs...)
}

// release lets go of a MountPoint that is being torn down: unmounted, status gone, finalizer off.
func (m *mounter) release(ctx context.Context, s *sdk.State, p point, claims map[string]string) error {
	st, ok := sdk.Get[*storagepb.MountPointStatus](s, statusType, p.GetId())
	if ok && len(st.GetFinalizers()) > 0 {
		// Those who use the mount let go first.
		return s.Delete(ctx, statusType, p.GetId())
	}
	record := st.Spec
	if record.GetTarget() == "" && claims[p.Spec.GetTarget()] == p.GetId() {
		record = unrecorded(p.Spec)
	}
	if err := unmountRecorded(record); err != nil {
		return errors.Join(fmt.Errorf("unmount %q: %w", p.GetId(), err), s.Write(ctx, statusType, p.GetId(), unmountFailed(p, record, err), p.Metadata))
	}
	if err := s.Delete(ctx, statusType, p.GetId()); err != nil {
		return err
	}
	delete(m.applied, p.GetId())
	return s.RemoveFinalizer(ctx, p.Metadata)
}

// unrecorded is the record of a mount whose status was never written, because plugin or runtime ended in between.
func unrecorded(p *storagepb.MountPoint) *storagepb.MountPointStatus {
	t, err := mountinfo.Read()
	if now, ok := t.At(p.GetTarget()); err == nil && ok && wanted(p, now) {
		return statusOf(now)
	}
	return nil
}

// orphan cleans up after a MountPoint that went without waiting for the finalizer.
func (m *mounter) orphan(ctx context.Context, s *sdk.State, st status) error {
	if err := unmountRecorded(st.Spec); err != nil {
		return fmt.Errorf("unmount %q: %w", st.GetId(), err)
	}
	delete(m.applied, st.GetId())
	return s.Delete(ctx, statusType, st.GetId())
}

// unmountRecorded unmounts what the status says we mounted, unless it is gone or something else covers it.
func unmountRecorded(st *storagepb.MountPointStatus) error {
	if st.GetTarget() == "" {
		return nil
	}
	t, err := mountinfo.Read()
	if err != nil {
		return err
	}
	if now, ok := t.At(st.GetTarget()); ok && recorded(st, now) {
		return unmountAt(st.GetTarget())
	}
	return nil
}

// recorded reports whether the status speaks of now.
func recorded(st *storagepb.MountPointStatus, now mountinfo.Mount) bool {
	return st.GetTarget() == now.Target && st.GetSource() == now.Source && st.GetFstype() == now.Fstype
}

// claim gives each target to one MountPoint: to the one that is mounted there, else to the first by id.
func claim(s *sdk.State, points []point) map[string]string {
	claims := map[string]string{}
	for _, p := range points {
		st, ok := sdk.Get[*storagepb.MountPointStatus](s, statusType, p.GetId())
		if ok && st.Spec.GetTarget() == p.Spec.GetTarget() {
			claims[p.Spec.GetTarget()] = p.GetId()
		}
	}
	for _, p := range points {
		if claims[p.Spec.GetTarget()] == "" {
			claims[p.Spec.GetTarget()] = p.GetId()
		}
	}
	return claims
}

// apply brings one MountPoint about and writes its status. The error is one of the runtime, or about an unmount to be repeated.
func (m *mounter) apply(ctx context.Context, s *sdk.State, p point, claims map[string]string) error {
	if err := s.AddFinalizer(ctx, p.Metadata); err != nil {
		return err
	}
	var record *storagepb.MountPointStatus
	if st, ok := sdk.Get[*storagepb.MountPointStatus](s, statusType, p.GetId()); ok {
		record = st.Spec
	}
	result, retry := m.converge(p, record, claims)
	result.ObservedVersion = p.GetVersion()
	return errors.Join(retry, s.Write(ctx, statusType, p.GetId(), result, p.Metadata))
}

// converge makes what is at the target of p what p asks for, and says what is there then. retry is an unmount that has to be
// tried again without any sign from outside.
func (m *mounter) converge(p point, record *storagepb.MountPointStatus, claims map[string]string) (result *storagepb.MountPointStatus, retry error) {
	if record.GetTarget() != "" && record.GetTarget() != p.Spec.GetTarget() {
		if err := unmountRecorded(record); err != nil {
			return unmountFailed(p, record, err), fmt.Errorf("unmount %q: %w", p.GetId(), err)
		}
		record = nil
	}
	if err := checkTarget(p.Spec.GetTarget()); err != nil {
		return failed(reasonMountFailed, err), nil
	}
	if other := claims[p.Spec.GetTarget()]; other != p.GetId() {
		return failed(reasonTargetBusy, fmt.Errorf("MountPoint %q has the same target", other)), nil
	}
	t, err := mountinfo.Read()
	if err != nil {
		return failed(reasonMountFailed, err), nil
	}
	now, ok := t.At(p.Spec.GetTarget())
	switch {
	case !ok:
		return m.mount(p, t, claims), nil
	case wanted(p.Spec, now):
		return m.refresh(p, record, now), nil
	case recorded(record, now):
		if err := unmountAt(now.Target); err != nil {
			return unmountFailed(p, record, err), fmt.Errorf("unmount %q: %w", p.GetId(), err)
		}
		return m.mount(p, t, claims), nil
	}
	return failed(reasonTargetBusy, fmt.Errorf("%s (%s) is mounted there by somebody else", now.Source, now.Fstype)), nil
}

// wanted reports whether now is of p's source and file system.
func wanted(p *storagepb.MountPoint, now mountinfo.Mount) bool {
	if p.GetFstype() != now.Fstype {
		return false
	}
	device, err := deviceOf(p.GetSource())
	if device != 0 {
		return device == now.Device
	}
	// A device that was pulled out leaves its mount behind: that stays until the device or the MountPoint changes.
	return p.GetSource() == now.Source && (err == nil || errors.Is(err, errSourceMissing))
}

// mount mounts p where nothing is mounted.
func (m *mounter) mount(p point, t mountinfo.Table, claims map[string]string) *storagepb.MountPointStatus {
	if outer, id := missingOuter(p.Spec.GetTarget(), t, claims); id != "" {
		return failed(reasonWaiting, fmt.Errorf("MountPoint %q comes first: %s is not mounted", id, outer))
	}
	err := mountAt(p.Spec)
	switch {
	case errors.Is(err, errSourceMissing):
		return failed(reasonSourceMissing, err)
	case errors.Is(err, errNoFileSystem):
		return failed(reasonMountFailed, fmt.Errorf("%w%s", err, m.whyNot(p.Spec.GetFstype())))
	case err != nil:
		return failed(reasonMountFailed, err)
	}
	m.applied[p.GetId()] = applied{spec: proto.CloneOf(p.Spec)}
	return observed(p.Spec.GetTarget())
}

// whyNot is what the runtime says of the module of a file system, which it has loaded for each MountPoint.
func (m *mounter) whyNot(fstype string) string {
	for _, module := range m.modules {
		if module.GetId() == "fs-"+fstype && !module.Spec.GetReady() {
			return ": " + module.Spec.GetMessage()
		}
	}
	return " yet"
}

// missingOuter returns the nearest directory above target that a MountPoint claims and where nothing is mounted yet.
func missingOuter(target string, t mountinfo.Table, claims map[string]string) (outer, id string) {
	for dir := filepath.Dir(target); dir != "/"; dir = filepath.Dir(dir) {
		if id := claims[dir]; id != "" {
			if _, ok := t.At(dir); !ok {
				return dir, id
			}
		}
	}
	return "", ""
}

// refresh gives flags and data of p to what is mounted already, if they are new to the kernel.
func (m *mounter) refresh(p point, record *storagepb.MountPointStatus, now mountinfo.Mount) *storagepb.MountPointStatus {
	last, known := m.applied[p.GetId()]
	if !known && record.GetReady() && record.GetObservedVersion() == p.GetVersion() {
		last, known = applied{spec: p.Spec}, true // by the plugin that ran before
	}
	if !known || !proto.Equal(last.spec, p.Spec) {
		last = applied{proto.CloneOf(p.Spec), remountAt(p.Spec)}
	}
	m.applied[p.GetId()] = last
	result := observed(now.Target)
	if last.err != nil {
		result.Ready, result.Reason, result.Message = false, reasonMountFailed, "remount: "+last.err.Error()
	}
	if _, err := deviceOf(p.Spec.GetSource()); errors.Is(err, errSourceMissing) {
		result.Ready, result.Reason, result.Message = false, reasonSourceMissing, err.Error()+"; its mount is still there"
	}
	return result
}

// observed is the status of what is mounted at target.
func observed(target string) *storagepb.MountPointStatus {
	t, err := mountinfo.Read()
	if err != nil {
		return failed(reasonMountFailed, err)
	}
	now, ok := t.At(target)
	if !ok {
		return failed(reasonMountFailed, errors.New("it was mounted and is gone again"))
	}
	return statusOf(now)
}

func statusOf(now mountinfo.Mount) *storagepb.MountPointStatus {
	return &storagepb.MountPointStatus{
		Ready: true, Reason: reasonMounted, Message: fmt.Sprintf("%s (%s) on %s", now.Source, now.Fstype, now.Target),
		Source: now.Source, Target: now.Target, Fstype: now.Fstype, Flags: now.Flags, Data: dataOf(now),
	}
}

// dataOf returns the file system's options without the word that is in flags already.
func dataOf(now mountinfo.Mount) string {
	first, rest, _ := strings.Cut(now.Options, ",")
	if first == "rw" || first == "ro" {
		return rest
	}
	return now.Options
}

// failed is the status of something that is not mounted.
func failed(reason string, err error) *storagepb.MountPointStatus {
	return &storagepb.MountPointStatus{Reason: reason, Message: err.Error()}
}

// unmountFailed is the status of what should be gone and is still there.
func unmountFailed(p point, record *storagepb.MountPointStatus, err error) *storagepb.MountPointStatus {
	result := proto.CloneOf(record)
	result.ObservedVersion, result.Ready, result.Reason = p.GetVersion(), false, reasonUnmountFailed
	if errors.Is(err, errBusy) {
		result.Reason = reasonTargetBusy
	}
	result.Message = fmt.Sprintf("unmount %s: %v", record.GetTarget(), err)
	return result
}
