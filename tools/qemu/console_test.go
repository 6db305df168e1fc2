package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestConsoleWaitsForWhatComesLater(t *testing.T) {
	c := NewConsole(nil)
	go func() {
		for _, s := range []string{"boot\nre", "ady on 5", "0000\n"} {
			fmt.Fprint(c, s)
			time.Sleep(time.Millisecond)
		}
	}()
	m, err := c.Wait(t.Context(), 0, regexp.MustCompile(`ready on (\d+)\n`))
	if err != nil || m[1] != "50000" {
		t.Errorf("Wait = %q, %v", m, err)
	}
}

func TestConsoleWaitLooksFromAPositionOn(t *testing.T) {
	c := NewConsole(nil)
	fmt.Fprint(c, "ready\n")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.Wait(ctx, c.Position(), regexp.MustCompile("ready")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait behind the only match = %v", err)
	}
	c.end(nil)
	if _, err := c.Wait(t.Context(), c.Position(), regexp.MustCompile("ready")); !errors.Is(err, ErrEnded) {
		t.Errorf("Wait on an ended console = %v; want ErrEnded", err)
	}
	if _, err := c.Wait(t.Context(), 0, regexp.MustCompile("ready")); err != nil {
		t.Errorf("Wait for what an ended console showed = %v", err)
	}
}

// A guest that ends QEMU, or somebody who does, is named.
func TestConsoleSaysWhatTheVMDiedOf(t *testing.T) {
	vm, err := Start(t.Context(), host(t), Machine{Memory: 64, Extra: []string{"-S"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	vm.Kill()
	_, err = vm.Console.Wait(t.Context(), 0, regexp.MustCompile("ready"))
	if !errors.Is(err, ErrEnded) || !strings.Contains(err.Error(), "signal: killed") {
		t.Errorf("Wait = %v; want that it was killed", err)
	}
}

func TestConsoleKeepsTheLastMiB(t *testing.T) {
	c := NewConsole(nil)
	line := strings.Repeat("x", 1023) + "\n"
	for range 5000 {
		fmt.Fprint(c, line)
	}
	at := c.Position()
	if at != 5000*1024 {
		t.Errorf("Position = %d; want %d", at, 5000*1024)
	}
	if len(c.data) < consoleSize || len(c.data) > 2*consoleSize {
		t.Errorf("%d bytes are kept", len(c.data))
	}
	fmt.Fprint(c, "the end\n")
	if _, err := c.Wait(t.Context(), at, regexp.MustCompile("^the end")); err != nil {
		t.Error(err)
	}
}

func TestConsoleTailIsPlain(t *testing.T) {
	var tee bytes.Buffer
	c := NewConsole(&tee)
	fmt.Fprint(c, "\x1b[2J\x1b[01;01Hone\r\ntwo\r\n\x1b[0mthree\r\n")
	if got := c.Tail(2); got != "two\nthree" {
		t.Errorf("Tail(2) = %q", got)
	}
	if !strings.Contains(tee.String(), "\x1b[2J") {
		t.Errorf("the copy reads %q", tee.String())
	}
}
