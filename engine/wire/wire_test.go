package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestFramesArriveAsTheyWereSent(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	var stream bytes.Buffer
	conn := NewConn(&stream)
	sent := []Up{
		{Hello: &Hello{Version: Version, PID1: true, Root: "/", Built: at, Booted: at}},
		{Started: &Started{Name: "mount", PID: 7, At: at, Restarts: 2}},
		{Confined: &Confined{Name: "mount", PID: 7, UID: 901, Groups: []uint32{1}, Effective: []string{"CAP_SYS_ADMIN"}, NoNewPrivs: true}},
		{Output: &Output{Name: "mount", Stream: "stdout", Sequence: 9, At: at, Line: "line \"with\" \x00 \u2028 bytes"}},
		{Exited: &Exited{Name: "mount", PID: 7, At: at, How: "exit 1", NextStart: at}},
		{Stage: &Stage{Name: "root", Milliseconds: 12}},
		{Synced: &Synced{}},
		{Stopping: &Stopping{Reboot: true, Reason: "asked"}},
	}
	for _, up := range sent {
		if err := conn.Send(up); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range sent {
		var got Up
		if err := conn.Receive(&got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("received %+v; want %+v", got, want)
		}
	}
	if err := conn.Receive(&Up{}); err != io.EOF {
		t.Errorf("at the end: %v; want io.EOF", err)
	}
}

func TestSendersDoNotMixTheirFrames(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	conn := NewConn(a)
	var senders sync.WaitGroup
	for range 4 {
		senders.Go(func() {
			for range 50 {
				conn.Send(Down{Console: &Console{Lines: []string{strings.Repeat("x", 500)}}})
			}
		})
	}
	receiver := NewConn(b)
	for range 200 {
		var down Down
		if err := receiver.Receive(&down); err != nil || down.Console == nil || len(down.Console.Lines[0]) != 500 {
			t.Fatalf("received %+v, %v", down, err)
		}
	}
	senders.Wait()
}

func TestANewerSideMaySayMore(t *testing.T) {
	var got Up
	if err := NewConn(frame(`{"started":{"name":"x","pid":1,"mood":"good"},"later":{}}`)).Receive(&got); err != nil || got.Started.Name != "x" {
		t.Errorf("received %+v, %v", got, err)
	}
}

func TestWhatIsNoFrameIsAnError(t *testing.T) {
	for name, stream := range map[string]*bytes.Buffer{
		"cut in the head": bytes.NewBufferString("\x00\x00"),
		"cut in the body": bytes.NewBufferString("\x00\x00\x00\x09{}"),
		"too long":        bytes.NewBufferString("\xff\xff\xff\xff{}"),
		"not JSON":        frame("hello"),
		"a wrong type":    frame(`{"started":{"pid":"one"}}`),
	} {
		if err := NewConn(stream).Receive(&Up{}); err == nil || err == io.EOF {
			t.Errorf("%s: %v; want an error that is not the end", name, err)
		}
	}
	if err := NewConn(&bytes.Buffer{}).Send(Up{Output: &Output{Line: strings.Repeat("x", MaxFrame)}}); err == nil {
		t.Error("a frame beyond the limit was sent")
	}
	if err := NewConn(bytes.NewBufferString("\x00")).Receive(&Up{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("one byte: %v; want io.ErrUnexpectedEOF", err)
	}
}

func frame(body string) *bytes.Buffer {
	return bytes.NewBuffer(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
}

// FuzzReceive: whatever the bytes, the other side neither panics nor gets more than it can send on.
func FuzzReceive(f *testing.F) {
	f.Add(frame(`{"shutdown":{"reboot":true,"reason":"x"}}`).Bytes())
	f.Add(frame(`{"console":{"lines":["a","b"]},"start":{"name":"x"}}`).Bytes())
	f.Add([]byte("\x00\x00\x00\x02{}\x00\x00\x00\x04null\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		in := NewConn(bytes.NewBuffer(data))
		for {
			var down Down
			if in.Receive(&down) != nil {
				return
			}
			var stream bytes.Buffer
			out := NewConn(&stream)
			if err := out.Send(down); err != nil {
				continue // escapes made it longer than a frame
			}
			var again Down
			if err := out.Receive(&again); err != nil || !reflect.DeepEqual(again, down) {
				t.Fatalf("%+v became %+v, %v", down, again, err)
			}
		}
	})
}
