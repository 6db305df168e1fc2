package mountevents

import (
	"context"
	"encoding/binary"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func words(all ...uint32) (b []byte) {
	for _, word := range all {
		b = binary.NativeEndian.AppendUint32(b, word)
	}
	return b
}

func TestDecode(t *testing.T) {
	for _, n := range []note{{at: 7 * time.Second, what: mounted}, {at: 2, what: unmounted}, {at: 1, what: changed}} {
		b := append(binary.NativeEndian.AppendUint64(nil, uint64(n.at)), words(uint32(n.what), 0)...)
		if got, ok := decode(append(b, 0)); !ok || got != n {
			t.Errorf("decode = %+v, %v; want %+v", got, ok, n)
		}
		if got, ok := decode(b[:len(b)-1]); ok {
			t.Errorf("decode of one byte less = %+v", got)
		}
	}
	for _, w := range []uint32{0, uint32(faulty)} {
		if got, ok := decode(append(make([]byte, 8), words(w, 0)...)); ok {
			t.Errorf("decode of %d = %+v", w, got)
		}
	}
}

// event is a struct fanotify_event_metadata and what follows it.
func event(mask uint64, records ...[]byte) []byte {
	var behind []byte
	for _, r := range records {
		behind = append(behind, r...)
	}
	b := words(uint32(eventSize+len(behind)), 3|eventSize<<16)
	b = binary.NativeEndian.AppendUint64(b, mask)
	return append(append(b, words(^uint32(0), 0)...), behind...)
}

func record(kind byte, all ...uint32) []byte {
	return words(append([]uint32{uint32(kind) | uint32(4+4*len(all))<<16}, all...)...)
}

func TestDecodeFaults(t *testing.T) {
	fid := record(unix.FAN_EVENT_INFO_TYPE_FID, 7, 8, 8, handleINO32, 12, 0)
	for what, tc := range map[string]struct {
		read   []byte
		faults []fault
		whole  bool
	}{
		"nothing": {nil, nil, true},
		"two errors": {
			append(event(unix.FAN_FS_ERROR, record(unix.FAN_EVENT_INFO_TYPE_ERROR, uint32(unix.EUCLEAN), 3), fid),
				event(unix.FAN_FS_ERROR, record(unix.FAN_EVENT_INFO_TYPE_ERROR, ^uint32(unix.EIO)+1, 1), record(unix.FAN_EVENT_INFO_TYPE_FID, 9, 0, 0, 0xff))...),
			[]fault{{unix.Fsid{Val: [2]int32{7, 8}}, 12, unix.EUCLEAN, 3}, {unix.Fsid{Val: [2]int32{9, 0}}, 0, unix.EIO, 1}}, true,
		},
		"a record that we do not know": {event(unix.FAN_FS_ERROR, record(99, 1), fid), []fault{{fsid: unix.Fsid{Val: [2]int32{7, 8}}, inode: 12}}, true},
		"its queue was full":           {event(unix.FAN_Q_OVERFLOW), nil, false},
		"half an event":                {event(unix.FAN_FS_ERROR, fid)[:30], nil, true},
	} {
		faults, whole := decodeFaults(tc.read)
		if !reflect.DeepEqual(faults, tc.faults) || whole != tc.whole {
			t.Errorf("%s: decodeFaults = %+v, %v; want %+v, %v", what, faults, whole, tc.faults, tc.whole)
		}
	}
}

// FuzzDecodeFaults: whatever the kernel writes, reading it ends.
func FuzzDecodeFaults(f *testing.F) {
	f.Add(event(unix.FAN_FS_ERROR, record(unix.FAN_EVENT_INFO_TYPE_ERROR, 117, 3), record(unix.FAN_EVENT_INFO_TYPE_FID, 7, 8, 8, 1, 12, 0)))
	f.Add(event(unix.FAN_Q_OVERFLOW))
	f.Fuzz(func(t *testing.T, b []byte) {
		if faults, _ := decodeFaults(b); len(faults) > len(b)/eventSize {
			t.Errorf("%d faults in %d bytes", len(faults), len(b))
		}
	})
}

// The table is looked at again some time after an error.
func TestAnErrorIsHeardAndThenTheTableLookedAt(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	f := &faults{fd: fds[0]}
	defer f.close()
	ctx, cancel := context.WithCancel(t.Context())
	heard, lost, done := make(chan note, 10), make(chan uint64, 10), make(chan error, 1)
	go func() { done <- f.listen(ctx, func(n note) { heard <- n }, func(n uint64) { lost <- n }) }()
	for _, b := range [][]byte{event(unix.FAN_FS_ERROR, record(unix.FAN_EVENT_INFO_TYPE_ERROR, 117, 1)), event(unix.FAN_Q_OVERFLOW)} {
		if _, err := unix.Write(fds[1], b); err != nil {
			t.Fatal(err)
		}
	}
	first, second := <-heard, <-heard
	if first.what != faulty || first.fault.err != unix.EUCLEAN || second.what != something || second.at-first.at < settles/2 {
		t.Errorf("heard %+v, %+v; want the error, and that there is something to look at a second later", first, second)
	}
	if n := <-lost; n != 1 {
		t.Errorf("%d lost; want 1, at least", n)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
