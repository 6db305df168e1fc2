package main

import (
	"strings"
	"testing"
)

func TestCommandLinesThatMakeNoSense(t *testing.T) {
	p := newPerson(t, "unix:///nowhere")
	var said strings.Builder
	for _, args := range [][]string{
		{"gett"}, {"frobnicate"}, {"get", "--wrong"}, {"get", "a", "b", "c"}, {"get", "mounts", "-o", "xml"}, {"get", "mounts", "-l", "a b"}, {"get", "mount", "a", "-l", "x"},
		{"apply"}, {"apply", "x"}, {"apply", "-f", "x", "--wait", "--dry-run"}, {"describe", "mount"}, {"logs"}, {"logs", "x", "--tail", "-1"}, {"watch", "mounts", "--from", "?"},
		{"gen", "client", "me", "--role", ""}, {"context", "add", "x"}, {"context", "add", "x", "--client", "me"}, {"context", "frobnicate"}, {"completion", "frobnicate"}, {"validate"},
	} {
		said.WriteString("$ cosictl " + strings.Join(args, " ") + "\n")
		if args[0] == "context" && args[1] == "add" {
			p.endpoint = map[bool]string{true: "http://192.0.2.1"}[len(args) > 3]
		}
		said.WriteString(p.want(exitUsage, args...))
		p.endpoint = "unix:///nowhere"
	}
	golden(t, "usage", said.String())
}

func TestErrorsWithoutANode(t *testing.T) {
	p := newPerson(t, "unix:///nowhere")
	if text := p.want(exitError, "get", "mounts"); !strings.HasPrefix(text, "cosictl: the node cannot be reached: ") {
		t.Errorf("said %q", text)
	}
	p.endpoint = ""
	if text := p.want(exitError, "get", "mounts"); !strings.Contains(text, "no context is chosen") {
		t.Errorf("said %q", text)
	}
	if text := p.want(exitError, "apply", "-f", "/no/such/file"); !strings.Contains(text, "no such file") && !strings.Contains(text, "no context") {
		t.Errorf("said %q", text)
	}
	p.want(exitOK, "explain", "mount", "--offline")
	p.want(exitOK, "version", "--client")
}

func TestHelp(t *testing.T) {
	p := newPerson(t, "")
	var said strings.Builder
	for _, args := range [][]string{{}, {"get", "--help"}, {"apply", "--help"}, {"gen", "--help"}, {"context", "add", "--help"}} {
		said.WriteString("$ cosictl " + strings.Join(args, " ") + "\n" + p.want(exitOK, args...) + "\n")
	}
	golden(t, "help", said.String())
}

// What stands twice is taken from the first document in user data, and was written twice by apply: it is a mistake in either.
func TestAResourceThatIsDescribedTwiceIsAMistake(t *testing.T) {
	p := newPerson(t, "")
	first, second := p.file("a.yaml", mountYAML), p.file("b.yaml", "# Again.\n"+mountYAML)
	want := second + ":4: metadata.id: mountpoint/data is described by " + first + ":1 already\ncosictl: 1 problem\n"
	text := p.want(exitError, "validate", "-f", first, "-f", second)
	if text != want {
		t.Errorf("said %q; want %q", text, want)
	}
	p.want(exitOK, "validate", "-f", first)
}
