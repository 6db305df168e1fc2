package tftp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Operations, from RFC 1350 and 2347.
const (
	opRead   = 1
	opWrite  = 2
	opData   = 3
	opAck    = 4
	opError  = 5
	opOptAck = 6
)

// Codes of errors, from RFC 1350.
const (
	codeUndefined = 0
	codeNotFound  = 1
	codeDenied    = 2
	codeIllegal   = 4
)

const (
	// maxRequest is the longest request there is (RFC 2347).
	maxRequest = 512
	// defaultBlock is what a client that asks for no other size gets; maxBlock is what fits into an Ethernet frame.
	defaultBlock, maxBlock = 512, 1468
	// maxWindow is how many blocks are sent before an answer is waited for (RFC 7440), at most.
	maxWindow = 32
)

// request is what a client wants to read, and how.
type request struct {
	name    string
	options options
}

// options are those of RFC 2348, 2349 and 7440, with what a transfer goes by where the client does not say: then it is not acknowledged.
type options struct {
	block, window int
	timeout       time.Duration
	size          bool // the client asks for the file's size

	accepted []string // the names and values of those that are acknowledged; the value of tsize is still to come
}

// refusal is an error that the client is told.
type refusal struct {
	code int
	text string
}

func (r *refusal) Error() string { return r.text }

// errNoRequest is that of a packet that gets no answer.
var errNoRequest = errors.New("no request")

// parse reads a request. The error is a *refusal if the client is told of it.
func parse(packet []byte) (*request, error) {
	if len(packet) < 2 || len(packet) > maxRequest {
		return nil, errNoRequest
	}
	switch binary.BigEndian.Uint16(packet) {
	case opRead:
	case opWrite:
		return nil, &refusal{codeDenied, "this server only gives"}
	default:
		return nil, errNoRequest
	}
	body, whole := bytes.CutSuffix(packet[2:], []byte{0})
	fields := strings.Split(string(body), "\x00")
	if !whole || len(fields) < 2 || fields[0] == "" {
		return nil, &refusal{codeIllegal, "not a request of RFC 1350"}
	}
	if !strings.EqualFold(fields[1], "octet") {
		return nil, &refusal{codeIllegal, fmt.Sprintf("mode %q: only octet is given", fields[1])}
	}
	r := &request{name: fields[0], options: options{block: defaultBlock, window: 1, timeout: time.Second}}
	for i := 2; i+1 < len(fields); i += 2 {
		r.options.accept(strings.ToLower(fields[i]), fields[i+1])
	}
	return r, nil
}

// accept takes an option, if it is known and makes sense; others are not acknowledged, as RFC 2347 says.
func (o *options) accept(name, value string) {
	n, err := strconv.Atoi(value)
	if err != nil || len(o.accepted) >= 8 {
		return
	}
	switch {
	case name == "blksize" && n >= 8 && n <= 65464:
		o.block = min(n, maxBlock)
		value = strconv.Itoa(o.block)
	case name == "windowsize" && n >= 1 && n <= 65535:
		o.window = min(n, maxWindow)
		value = strconv.Itoa(o.window)
	case name == "timeout" && n >= 1 && n <= 255:
		o.timeout = time.Duration(n) * time.Second
	case name == "tsize" && n == 0:
		o.size = true
	default:
		return
	}
	o.accepted = append(o.accepted, name, value)
}

// acknowledgement is the packet that says which options a transfer of size bytes goes by; nil if there are none.
func (o *options) acknowledgement(size int64) []byte {
	if len(o.accepted) == 0 {
		return nil
	}
	packet := []byte{0, opOptAck}
	for i := 0; i < len(o.accepted); i += 2 {
		name, value := o.accepted[i], o.accepted[i+1]
		if name == "tsize" {
			value = strconv.FormatInt(size, 10)
		}
		packet = append(append(append(append(packet, name...), 0), value...), 0)
	}
	return packet
}

// failure is the packet that tells a client of an error.
func failure(code int, text string) []byte {
	return append(append([]byte{0, opError, 0, byte(code)}, text...), 0)
}

// answer is what a client says during a transfer.
type answer struct {
	block uint16 // that it acknowledges
	gone  error  // why it wants no more
}

// parseAnswer reads an answer; ok is false for what is none.
func parseAnswer(packet []byte) (a answer, ok bool) {
	if len(packet) < 4 {
		return a, false
	}
	switch binary.BigEndian.Uint16(packet) {
	case opAck:
		return answer{block: binary.BigEndian.Uint16(packet[2:])}, true
	case opError:
		text, _, _ := bytes.Cut(packet[4:], []byte{0})
		return answer{gone: fmt.Errorf("%w: error %d: %.100q", ErrUnwanted, binary.BigEndian.Uint16(packet[2:]), text)}, true
	}
	return a, false
}
