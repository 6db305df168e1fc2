package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// descriptors are what PID 1 has handed over, by name.
type descriptors map[string]int

// parseDescriptors reads COSI_FDS: NAME=NUMBER, separated by commas.
func parseDescriptors(text string) (descriptors, error) {
	fds := descriptors{}
	for entry := range strings.SplitSeq(text, ",") {
		name, number, ok := strings.Cut(entry, "=")
		fd, err := strconv.Atoi(number)
		if !ok || name == "" || err != nil || fd < 3 {
			return nil, fmt.Errorf("%q is not NAME=NUMBER", entry)
		}
		if _, twice := fds[name]; twice {
			return nil, fmt.Errorf("%q is there twice", name)
		}
		fds[name] = fd
	}
	return fds, nil
}

// file returns the descriptor as a file that a child of ours, if there ever is one, does not inherit.
func (d descriptors) file(name string) (*os.File, error) {
	fd, ok := d[name]
	if !ok {
		return nil, fmt.Errorf("the engine handed over no descriptor %q", name)
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name), nil
}

// conn returns the descriptor as a connection and closes the original.
func (d descriptors) conn(name string) (net.Conn, error) {
	file, err := d.file(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("descriptor %q: %w", name, err)
	}
	return conn, nil
}

// listener returns the descriptor, which listens, as a listener and closes the original.
func (d descriptors) listener(name string) (net.Listener, error) {
	file, err := d.file(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	listener, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("descriptor %q: %w", name, err)
	}
	return listener, nil
}

// backlog is how many connections wait to be accepted.
const backlog = 128

// listen makes a bound socket listen.
func (d descriptors) listen(name string) (net.Listener, error) {
	fd, ok := d[name]
	if !ok {
		return nil, fmt.Errorf("the engine handed over no descriptor %q", name)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return d.listener(name)
}

// port returns the TCP port that a socket is bound to, 0 without one.
func (d descriptors) port(name string) int {
	fd, ok := d[name]
	if !ok {
		return 0
	}
	switch address, _ := unix.Getsockname(fd); a := address.(type) {
	case *unix.SockaddrInet4:
		return a.Port
	case *unix.SockaddrInet6:
		return a.Port
	}
	return 0
}
