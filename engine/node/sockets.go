package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/engine/wire"
)

// socket is a descriptor for the runtime and its name in COSI_FDS.
type socket struct {
	name string
	file *os.File
}

// backlog of plugin sockets: a plugin holds one connection, and may be here before the runtime accepts.
const backlog = 16

// bind makes the sockets that outlive a runtime: one a plugin, the network's, and off a machine the local one. A plugin's socket that
// cannot be made is left out; the errors are for the console.
func (n *Node) bind() ([]socket, []error) {
	var (
		all      []socket
		problems []error
	)
	add := func(name string, file *os.File, err error) {
		if err != nil {
			problems = append(problems, fmt.Errorf("socket %s: %w", name, err))
			return
		}
		all = append(all, socket{name, file})
	}
	network, err := bindNetwork(n.Port, !n.Machine)
	add(wire.FDNetwork, network, err)
	if !n.Machine {
		local, err := listen(filepath.Join(n.Root, "run/cosi/runtime.sock"), -1, -1)
		add(wire.FDLocal, local, err)
	}
	for _, d := range n.declarations {
		uid, gid := owner(d)
		file, err := listen(n.endpoint(d.Name), uid, gid)
		add(wire.FDPluginPrefix+d.Name, file, err)
	}
	return all, problems
}

// endpoint is the path of a plugin's socket.
func (n *Node) endpoint(plugin string) string {
	return filepath.Join(n.Root, "run/cosi/plugin", plugin+".sock")
}

// owner is whom a plugin's files belong to: the declared user, or, if that stays the engine's, nobody in particular.
func owner(d *declaration.Declaration) (uid, gid int) {
	if os.Geteuid() != 0 || d.UID == 0 {
		return -1, -1
	}
	return int(d.UID), int(d.GID)
}

// listen makes a Unix socket that only its owner may connect to.
func listen(path string, uid, gid int) (*os.File, error) {
	const longest = 107 // of sun_path, without its end
	if len(path) > longest {
		return nil, fmt.Errorf("%s: the path of a socket has at most %d bytes, this one %d", path, longest, len(path))
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), path)
	// The file gets the socket's mode: nobody can connect before it is narrowed.
	err = errors.Join(
		os.NewSyscallError("fchmod", unix.Fchmod(fd, 0o600)),
		os.NewSyscallError("bind "+path, unix.Bind(fd, &unix.SockaddrUnix{Name: path})))
	if err == nil && uid >= 0 {
		err = os.Lchown(path, uid, gid)
	}
	if err == nil {
		err = os.NewSyscallError("listen", unix.Listen(fd, backlog))
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// bindNetwork binds the TCP port on all addresses, of IPv4 alone where the kernel has no IPv6. It does not listen: the runtime does when
// it has a trust anchor. With again, connections of an earlier node may still have the port; but until the runtime listens, anybody else can
// take it too who sets the same option, and then the runtime cannot. A machine has had no node before.
func bindNetwork(port int, again bool) (*os.File, error) {
	family, address := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: port})
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		family, address = unix.AF_INET, &unix.SockaddrInet4{Port: port}
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	}
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), "network")
	if family == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
	}
	if again {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	}
	err = errors.Join(err, os.NewSyscallError(fmt.Sprintf("bind port %d", port), unix.Bind(fd, address)))
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}
