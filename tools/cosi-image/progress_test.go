package main

import (
	"bytes"
	"testing"
	"time"
)

func TestProgressIsALineForEachPhaseThatEnded(t *testing.T) {
	out := &bytes.Buffer{}
	p := newProgress(out)
	now := time.Unix(0, 0)
	p.now, p.began = func() time.Time { return now }, now
	kernel := p.phase("kernel")
	now = now.Add(time.Second)
	programs := p.phase("programs")
	now = now.Add(500 * time.Millisecond)
	programs("compiled")
	p.log("WARNING: %s", "old")
	kernel("")
	p.stop()
	p.stop()
	const want = "   0.50 s  programs     compiled\nWARNING: old\n   1.50 s  kernel\n"
	if out.String() != want {
		t.Errorf("progress printed\n%s\nwant\n%s", out, want)
	}
	if len(p.running) != 0 || p.elapsed() != 1.5 {
		t.Errorf("%d phases run, %v s", len(p.running), p.elapsed())
	}
}

func TestProgressDrawsRunningPhasesOnATerminalAndWipesThem(t *testing.T) {
	out := &bytes.Buffer{}
	p := newProgress(out)
	now := time.Unix(0, 0)
	p.now = func() time.Time { return now }
	done := p.phase("kernel")
	p.phase("programs")
	now = now.Add(1200 * time.Millisecond)
	p.downloaded("kernel", 12_345_678)
	p.draw()
	done("")
	p.draw()
	p.stop()
	p.draw()
	const want = "          kernel 1.2 s, 12.3 MB · programs 1.2 s\r\x1b[K   1.20 s  kernel\n          programs 1.2 s\r\x1b[K"
	if out.String() != want {
		t.Errorf("progress drew %q; want %q", out, want)
	}
}
