package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

// script plays QEMU's side: it greets, and answers each command with what answer returns.
func script(t *testing.T, answer func(command string, id int) string) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		theirs.Write([]byte(`{"QMP": {"version": {}, "capabilities": []}}` + "\n"))
		lines := bufio.NewScanner(theirs)
		for lines.Scan() {
			var m struct {
				Execute string
				ID      int
			}
			if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
				return
			}
			out := `{"return": {}, "id": ID}`
			if m.Execute != "qmp_capabilities" {
				out = answer(m.Execute, m.ID)
			}
			if out == "" {
				return
			}
			id, _ := json.Marshal(m.ID)
			theirs.Write([]byte(strings.ReplaceAll(out, "ID", string(id)) + "\n"))
		}
	}()
	return ours
}

func connect(t *testing.T, conn net.Conn) *QMP {
	t.Helper()
	q, err := NewQMP(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

func TestExecuteDecodesTheAnswer(t *testing.T) {
	q := connect(t, script(t, func(string, int) string {
		return `{"event": "RESUME", "data": {}}` + "\n" + `{"return": {"status": "running"}, "id": ID}`
	}))
	var status struct{ Status string }
	if err := q.Execute(t.Context(), "query-status", nil, &status); err != nil || status.Status != "running" {
		t.Errorf("Execute = %+v, %v", status, err)
	}
	if _, err := q.WaitEvent(t.Context(), func(e Event) bool { return e.Name == "RESUME" }); err != nil {
		t.Errorf("WaitEvent for what has come already = %v", err)
	}
}

func TestExecuteReturnsARefusal(t *testing.T) {
	q := connect(t, script(t, func(string, int) string {
		return `{"error": {"class": "DeviceNotFound", "desc": "Device 'x' not found"}, "id": ID}`
	}))
	var refusal *CommandError
	err := q.Execute(t.Context(), "device_del", map[string]string{"id": "x"}, nil)
	if !errors.As(err, &refusal) || refusal.Class != "DeviceNotFound" || err.Error() != "monitor: device_del: Device 'x' not found" {
		t.Errorf("Execute = %v", err)
	}
}

func TestEndOfQEMUEndsEverything(t *testing.T) {
	q := connect(t, script(t, func(string, int) string { return "" }))
	if err := q.Execute(t.Context(), "quit", nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Execute = %v; want ErrClosed", err)
	}
	if _, err := q.WaitEvent(t.Context(), func(Event) bool { return true }); !errors.Is(err, ErrClosed) {
		t.Errorf("WaitEvent = %v; want ErrClosed", err)
	}
}

func TestNoGreetingIsAnError(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := NewQMP(ctx, ours); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("NewQMP = %v", err)
	}
}

// Whatever comes from the other side, the reader ends with the connection and Execute with it.
func FuzzQMP(f *testing.F) {
	f.Add([]byte(`{"QMP": {}}` + "\n" + `{"return": {}, "id": 1}` + "\n"))
	f.Add([]byte(`{"QMP": {}}` + "\n" + `{"error": {"class": 1}}` + "\n"))
	f.Add([]byte("{\n"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			theirs.SetDeadline(time.Now().Add(time.Second))
			go theirs.Read(make([]byte, 4096))
			theirs.Write(sent)
		}()
		if q, err := NewQMP(t.Context(), ours); err == nil {
			q.Execute(t.Context(), "query-status", nil, nil)
			q.Close()
		}
	})
}
