package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"text/tabwriter"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/admin"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/book"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/boot"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/dhcp"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/image"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/seen"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/tftp"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

const (
	// machines is how many the list has, connections how many there are at a time for each of HTTP and HTTPS, transfers by TFTP.
	machines, connections, transfers = 1024, 1024, 512
	// fileTime is how long a machine may take for a file.
	fileTime = 30 * time.Minute
	// tftpPort is where firmware asks, which can be told no other.
	tftpPort = 69
	// probeTime is how long a node is waited for that may serve.
	probeTime = 5 * time.Second
)

// server is all that serve runs, with its sockets bound.
type server struct {
	running []func(context.Context) error
	bound   [][3]string // what, where, what for
	title   string
	warn    string
	close   []io.Closer
}

// logger returns a function that writes lines with the time of day.
func logger(out io.Writer) func(format string, args ...any) {
	return log.New(out, "", log.LstdFlags|log.Lmsgprefix).Printf
}

// prepare binds all sockets.
func (o *options) prepare(logf func(format string, args ...any)) (*server, error) {
	if err := o.sense(); err != nil {
		return nil, commandline.Usage(err)
	}
	link, network, err := o.address()
	if err != nil {
		return nil, err
	}
	state, err := o.stateDir()
	if err != nil {
		return nil, err
	}
	all, err := book.Open(o.machines, logf)
	if err != nil {
		return nil, err
	}
	s := &server{title: fmt.Sprintf("cosi-boot on %s, %s, as %s says", link.Name, network, o.machines)}
	list := seen.New(machines, time.Now)
	images := &image.Store{Dir: filepath.Join(state, "images")}
	b := boot.New(boot.Config{
		Book: all, Images: images, Seen: list, Neighbour: boot.Neighbours(link, logf), Routed: o.routed, Probe: probe, Log: logf,
	})
	s.running = append(s.running, b.Run)
	builder, err := o.builder(state, images, all, logf)
	if err != nil {
		return nil, err
	}
	for _, name := range all.Images() {
		if _, err := images.Open(name); name != "" && err != nil {
			logf("WARNING: %s: %v", o.machines, err) // it may be built before somebody boots it
		}
	}
	for _, step := range []func() error{
		func() error { return s.web(o, network.Addr(), state, b, logf) },
		func() error { return s.dhcp(o, link, network, state, b, logf) },
		func() error { return s.tftp(o, network.Addr(), b) },
		func() error { return s.admin(o, admin.Handler(list, builder)) },
	} {
		if err := step(); err != nil {
			s.end()
			return nil, err
		}
	}
	return s, nil
}

// probe asks whether a node's API answers. Whether the node is ready it tells only those whom it knows.
func probe(ctx context.Context, address netip.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	_, err := client.ServingCertificate(ctx, net.JoinHostPort(address.String(), client.Port))
	return err
}

// hint says what to do about a port that may not be bound: other, where another server has it.
func hint(err error, other string) error {
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: ports below 1024 take root, or setcap cap_net_bind_service+ep on this program", err)
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%w: another server on this machine has it; %s", err, other)
	}
	return err
}

func (s *server) end() {
	for _, c := range s.close {
		c.Close()
	}
}

// says notes what is bound.
func (s *server) says(what, where, use string) {
	s.bound = append(s.bound, [3]string{what, where, use})
}

// web binds HTTP and HTTPS, and tells b how they are reached.
func (s *server) web(o *options, address netip.Addr, state string, b *boot.Server, logf func(string, ...any)) error {
	certificate, file, err := o.certificate(state, address, time.Now(), logf)
	if err != nil {
		return err
	}
	bind := func(scheme string, port uint16) (net.Listener, string, error) {
		l, err := net.Listen("tcp4", netip.AddrPortFrom(address, port).String())
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", scheme, hint(err, "--"+scheme+" PORT takes another port"))
		}
		s.close = append(s.close, l)
		return netutil.LimitListener(l, connections), scheme + "://" + l.Addr().String(), nil
	}
	plain, url, err := bind("http", o.http)
	if err != nil {
		return err
	}
	secure, secureURL, err := bind("https", o.https)
	if err != nil {
		return err
	}
	b.HTTP, b.HTTPS, b.Firmware = url, secureURL, url
	if o.firmware == "https" {
		b.Firmware = secureURL
	}
	quiet := log.New(writer(logf), "", 0)
	s.serveHTTP(plain, &http.Server{Handler: b.Handler(false), WriteTimeout: fileTime, ErrorLog: quiet})
	s.serveHTTP(tls.NewListener(secure, o.secure(certificate)),
		&http.Server{Handler: b.Handler(true), WriteTimeout: fileTime, ErrorLog: quiet})
	s.says("HTTP", url, "scripts, kernels, images")
	s.says("HTTPS", secureURL, "these and user data; the certificate is "+file)
	return nil
}

// writer is an io.Writer that logs.
type writer func(format string, args ...any)

func (w writer) Write(p []byte) (int, error) { w("%s", p); return len(p), nil }

// serveHTTP adds a server of HTTP to what runs.
func (s *server) serveHTTP(l net.Listener, h *http.Server) {
	h.ReadHeaderTimeout, h.ReadTimeout, h.IdleTimeout, h.MaxHeaderBytes = 10*time.Second, 30*time.Second, time.Minute, 1<<14
	s.running = append(s.running, func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() { h.Close() })()
		if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
}

func (s *server) dhcp(o *options, link *net.Interface, network netip.Prefix, state string, b *boot.Server, logf func(string, ...any)) error {
	if o.dhcp == "off" {
		return nil
	}
	c := dhcp.Config{Interface: link.Name, Address: network, Boot: b.Answer, Leased: b.Leased, Log: logf, Leases: filepath.Join(state, "leases.json")}
	var err error
	if c.Pool, c.Router, c.DNS, err = o.addressing(network); err != nil {
		return commandline.Usage(err)
	}
	d, err := dhcp.Listen(c)
	if err != nil {
		return hint(err, "--dhcp off leaves DHCP to it")
	}
	s.running = append(s.running, d.Serve)
	if c.Pool == nil {
		s.says("DHCP", link.Name+":67, "+link.Name+":4011", "beside the DHCP server that is there (proxy)")
	} else {
		s.says("DHCP", link.Name+":67", fmt.Sprintf("it gives %s to %s; the network must have no other DHCP server", c.Pool.First, c.Pool.Last))
	}
	return nil
}

func (s *server) tftp(o *options, address netip.Addr, b *boot.Server) error {
	if !o.tftp {
		return nil
	}
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(address, tftpPort)))
	if err != nil {
		return fmt.Errorf("tftp: %w", hint(err, "--tftp=false leaves TFTP to it"))
	}
	s.close = append(s.close, conn)
	t := &tftp.Server{Open: b.OpenTFTP, Ended: b.EndedTFTP, Transfers: transfers}
	s.running = append(s.running, func(ctx context.Context) error { return t.Serve(ctx, conn) })
	s.says("TFTP", conn.LocalAddr().String(), "iPXE, for firmware; reading only")
	return nil
}

func (s *server) admin(o *options, handler http.Handler) error {
	l, err := net.Listen("tcp", o.admin)
	if err != nil {
		return fmt.Errorf("--admin: %w", hint(err, "--admin 127.0.0.1:PORT takes another port"))
	}
	s.close = append(s.close, l)
	s.serveHTTP(netutil.LimitListener(l, connections), &http.Server{Handler: handler})
	s.says("page", "http://"+l.Addr().String()+"/", "the list of machines; for everybody on this machine")
	return nil
}

// serve says what is bound and runs until ctx ends, or something fails.
func (s *server) serve(ctx context.Context, out io.Writer) error {
	fmt.Fprintln(out, s.title)
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	for _, b := range s.bound {
		fmt.Fprintf(table, "  %s\t%s\t%s\n", b[0], b[1], b[2])
	}
	if err := table.Flush(); err != nil {
		s.end()
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, run := range s.running {
		group.Go(func() error { return run(ctx) })
	}
	return group.Wait()
}
