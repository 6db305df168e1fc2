// Package tftp gives files to firmware that boots over the network: TFTP (RFC 1350), reading only, with block size, window size, timeout and
// size (RFC 2347 to 2349, 7440).
//
// A name is looked up by whoever serves; this package opens nothing. Transfers have a socket each, connected to their client, a block of memory,
// and an end: there are at most Transfers at a time, and one whose client has gone is given up.
package tftp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"sync"
	"time"
)

// File is what a client reads.
type File interface {
	io.ReaderAt
	Size() int64
	Close() error
}

// Server serves by TFTP. Its fields do not change while it does.
type Server struct {
	// Open returns what a client asks for by a name. What it fails with, fs.ErrNotExist above all, is not shown to the client.
	Open func(client netip.Addr, name string) (File, error)
	// Ended is told how a transfer has ended: err is nil when the client has acknowledged all of it.
	Ended func(client netip.Addr, name string, err error)
	// Transfers is how many there are at a time, at most. A client that is one too many is not answered, and asks again.
	Transfers int

	mu      sync.Mutex // guards running
	running map[netip.AddrPort]bool
}

// attempts is how often a window is sent before its client is taken for gone.
const attempts = 6

// ErrGone says that a client has ceased to answer.
var ErrGone = errors.New("the client answers no more")

// ErrUnwanted says that a client wants no more. UEFI does that at first, when it has been told how long a file is.
var ErrUnwanted = errors.New("the client wants no more")

// Serve answers on conn until ctx ends or conn fails. It returns when no transfer is left; conn is closed then.
func (s *Server) Serve(ctx context.Context, conn *net.UDPConn) error {
	s.running = map[netip.AddrPort]bool{}
	var transfers sync.WaitGroup
	defer transfers.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	buffer := make([]byte, maxRequest+1)
	for {
		n, peer, err := conn.ReadFromUDPAddrPort(buffer)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("tftp: %w", err)
		}
		if err != nil {
			continue // of an earlier answer that nobody wanted
		}
		r, err := parse(buffer[:n])
		if refused := (*refusal)(nil); errors.As(err, &refused) {
			conn.WriteToUDPAddrPort(failure(refused.code, refused.text), peer) // if it is lost, it is asked for again
		}
		if err != nil || !s.begin(peer) {
			continue
		}
		transfers.Go(func() {
			defer s.end(peer)
			err := s.transfer(ctx, conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr(), peer, r)
			s.Ended(peer.Addr().Unmap(), r.name, err)
		})
	}
}

// begin reports whether peer gets a transfer. It has one already if it asks again before the first answer has come.
func (s *Server) begin(peer netip.AddrPort) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[peer] || len(s.running) >= s.Transfers {
		return false
	}
	s.running[peer] = true
	return true
}

func (s *Server) end(peer netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, peer)
}

// transfer answers one request, from a port of its own.
func (s *Server) transfer(ctx context.Context, local netip.Addr, peer netip.AddrPort, r *request) error {
	conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0)), net.UDPAddrFromAddrPort(peer))
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	file, err := s.Open(peer.Addr().Unmap(), r.name)
	if err != nil {
		code, text := codeUndefined, "not now"
		if errors.Is(err, fs.ErrNotExist) {
			code, text = codeNotFound, "no such file"
		}
		conn.Write(failure(code, text)) // if it is lost, it is asked for again
		return err
	}
	defer file.Close()
	t := &transfer{conn: conn, file: file, options: r.options, buffer: make([]byte, 4+r.options.block), input: make([]byte, maxRequest)}
	return t.run()
}

// transfer sends a file in windows of blocks.
//
//	options ──ack 0──► window ──ack of its last block──► next window … ──ack of the last block──► done
//	                     └ ack of another block of it, or no ack: again from the block behind the one that was acknowledged last
type transfer struct {
	conn    *net.UDPConn
	file    File
	options options
	buffer  []byte // of a block to send
	input   []byte
}

func (t *transfer) run() error {
	if oack := t.options.acknowledgement(t.file.Size()); oack != nil {
		send := func() error { _, err := t.conn.Write(oack); return err }
		if _, err := t.exchange(send, 0, 0); err != nil {
			return err
		}
	}
	last := t.file.Size()/int64(t.options.block) + 1 // it is shorter than a block, empty perhaps
	for acknowledged := int64(0); acknowledged < last; {
		first, end := acknowledged+1, min(acknowledged+int64(t.options.window), last)
		send := func() error {
			for block := first; block <= end; block++ {
				if err := t.send(block); err != nil {
					return err
				}
			}
			return nil
		}
		var err error
		if acknowledged, err = t.exchange(send, first, end); err != nil {
			return err
		}
	}
	return nil
}

// send sends a block.
func (t *transfer) send(block int64) error {
	binary.BigEndian.PutUint16(t.buffer, opData)
	binary.BigEndian.PutUint16(t.buffer[2:], uint16(block)) // of a large file they begin anew
	off := (block - 1) * int64(t.options.block)
	data := t.buffer[4:min(int64(len(t.buffer)), 4+t.file.Size()-off)]
	if n, err := t.file.ReadAt(data, off); n < len(data) {
		t.conn.Write(failure(codeUndefined, "not now"))
		return errors.Join(io.ErrUnexpectedEOF, err)
	}
	_, err := t.conn.Write(t.buffer[:4+len(data)])
	return err
}

// exchange sends the blocks from first to end, again as often as it takes, until one of them is acknowledged, and returns which. An answer to an
// earlier block is no reason to send anything: both sides would go on to send everything twice.
func (t *transfer) exchange(send func() error, first, end int64) (int64, error) {
	for range attempts {
		if err := send(); err != nil {
			return 0, err
		}
		for deadline := time.Now().Add(t.options.timeout); ; {
			if err := t.conn.SetReadDeadline(deadline); err != nil {
				return 0, err
			}
			n, err := t.conn.Read(t.input)
			if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
				break
			}
			if err != nil {
				return 0, err
			}
			a, ok := parseAnswer(t.input[:n])
			if a.gone != nil {
				return 0, a.gone
			}
			// How far behind first the block is, of the 65536 that have a number.
			if ahead := int64(a.block - uint16(first)); ok && ahead <= end-first {
				return first + ahead, nil
			}
		}
	}
	return 0, ErrGone
}
