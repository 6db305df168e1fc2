package userdata

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"strings"
)

// argument is the kernel argument that holds user data or says where it is:
//
//	cosi.userdata=data:;base64,BASE64     inline (RFC 2397)
//	cosi.userdata=https://host/path#sha256=HEX
const argument = "cosi.userdata="

// cmdline returns the value of the last cosi.userdata argument, "" without one.
func cmdline(root string) (string, error) {
	data, err := readFile(filepath.Join(root, "proc/cmdline"))
	if err != nil {
		return "", err
	}
	value := ""
	for _, word := range strings.Fields(string(data)) {
		if v, ok := strings.CutPrefix(word, argument); ok {
			value = strings.Trim(v, `"`)
		}
	}
	return value, nil
}

// inline reads a data: URL. A private key in it is refused: every process of the node can read the kernel's arguments, and boot
// servers and logs keep them.
func inline(value string) *found {
	f := &found{source: sourceCmdline, id: sourceCmdline, name: "kernel argument cosi.userdata"}
	f.data, f.err = decodeDataURL(value)
	if f.err == nil && bytes.Contains(f.data, []byte("PRIVATE KEY")) {
		f.data, f.err = nil, refused("kernel argument cosi.userdata holds a private key, which every process could read: use fw_cfg, a CIDATA disk or the ESP")
	}
	return f
}

func decodeDataURL(value string) ([]byte, error) {
	head, body, ok := strings.Cut(strings.TrimPrefix(value, "data:"), ",")
	if !ok {
		return nil, errors.New("kernel argument cosi.userdata: data: URL without a comma")
	}
	if len(body) > maxSize {
		return nil, errTooBig
	}
	text, err := url.PathUnescape(body)
	if err != nil {
		return nil, fmt.Errorf("kernel argument cosi.userdata: %w", err)
	}
	if !strings.HasSuffix(head, ";base64") {
		return []byte(text), nil
	}
	data, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	if err != nil {
		return nil, fmt.Errorf("kernel argument cosi.userdata: %w", err)
	}
	return data, nil
}

var errTooBig = fmt.Errorf("more than %d bytes", maxSize)

// readAll reads r up to maxSize and returns bytes that are not nil.
func readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxSize {
		return nil, errTooBig
	}
	return append([]byte{}, data...), nil
}
