package userdata

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"strings"
)

// vmware reads the variable guestinfo.userdata, which the virtual machine's owner has set, in one of the encodings that
// guestinfo.userdata.encoding may name.
func (c *controller) vmware() *found {
	const variable = "guestinfo.userdata"
	f := &found{source: string(platformVMware), id: string(platformVMware), name: variable, missing: "no variable " + variable}
	text, err := c.guestinfo(variable)
	if err == nil && text != "" {
		var encoding string
		if encoding, err = c.guestinfo(variable + ".encoding"); err == nil {
			f.data, err = decodeGuestinfo(text, encoding)
		}
	}
	if err != nil {
		f.err = fmt.Errorf("%s: %w", variable, err)
	}
	return f
}

func decodeGuestinfo(text, encoding string) ([]byte, error) {
	switch encoding {
	case "":
		return []byte(text), nil
	case "base64", "b64", "gzip+base64", "gz+b64":
	default:
		return nil, fmt.Errorf("encoding %q is neither base64 nor gzip+base64", encoding)
	}
	data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil || !strings.HasPrefix(encoding, "gz") {
		return data, err
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return readAll(z)
}

// guestinfo asks the host for a variable; "" if it is not set.
func guestinfo(name string) (string, error) {
	if !onVMware() {
		return "", fmt.Errorf("the processor is not VMware's")
	}
	reply, err := (&rpc{call: backdoor}).ask("info-get " + name)
	if err != nil {
		return "", err
	}
	// "1 " and the value, or "0 " and why there is none.
	value, ok := strings.CutPrefix(reply, "1 ")
	if !ok && !strings.HasPrefix(reply, "0 ") {
		return "", fmt.Errorf("the host answers %.40q", reply)
	}
	if !ok {
		return "", nil
	}
	return strings.TrimRight(value, "\x00"), nil
}
