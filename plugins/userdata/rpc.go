package userdata

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// registers are the processor's at a call of VMware's backdoor: an IN from a port, by which the host sees to the rest.
type registers struct{ ax, bx, cx, dx, si, di uint32 }

// Source: message.c, backdoor_def.h and guest_msg_def.h of open-vm-tools.
const (
	backdoorMagic = 0x564d5868
	backdoorPort  = 0x5658

	commandMessage = 30
	protocolRPCI   = 0x49435052
	flagCookie     = 0x80000000 // the host gives a cookie, which every later call has to show

	// What a message call does: the upper half of cx.
	messageOpen           = 0
	messageSendSize       = 1
	messageSendPayload    = 2
	messageReceiveSize    = 3
	messageReceivePayload = 4
	messageReceiveStatus  = 5
	messageClose          = 6

	// What came of it, in the same place.
	statusSuccess = 1
	statusReply   = 2 // there is one to be received
)

// rpc is a channel to the host for one question. Four bytes go with a call: user data of 64 KiB takes 16,000, of some microseconds each.
type rpc struct {
	call      func(*registers) error
	channel   uint32 // in the upper half
	high, low uint32 // the cookie
}

// message makes a call with an argument and returns the registers after it.
func (r *rpc) message(what, argument uint32) (registers, error) {
	regs := registers{backdoorMagic, argument, what<<16 | commandMessage, r.channel | backdoorPort, r.high, r.low}
	if err := r.call(&regs); err != nil {
		return regs, err
	}
	if regs.cx>>16&statusSuccess == 0 {
		return regs, fmt.Errorf("the host refuses message %d: %#x", what, regs.cx>>16)
	}
	return regs, nil
}

// ask sends a question and returns the reply.
func (r *rpc) ask(question string) (reply string, err error) {
	regs, err := r.message(messageOpen, protocolRPCI|flagCookie)
	if err != nil {
		return "", err
	}
	r.channel, r.high, r.low = regs.dx&0xffff0000, regs.si, regs.di
	defer func() {
		_, closeErr := r.message(messageClose, 0)
		err = errors.Join(err, closeErr)
	}()
	if err := r.send([]byte(question)); err != nil {
		return "", err
	}
	return r.receive()
}

func (r *rpc) send(b []byte) error {
	if _, err := r.message(messageSendSize, uint32(len(b))); err != nil {
		return err
	}
	for len(b) > 0 {
		var word [4]byte
		b = b[copy(word[:], b):]
		if _, err := r.message(messageSendPayload, binary.LittleEndian.Uint32(word[:])); err != nil {
			return err
		}
	}
	return nil
}

func (r *rpc) receive() (string, error) {
	regs, err := r.message(messageReceiveSize, 0)
	switch {
	case err != nil:
		return "", err
	case regs.cx>>16&statusReply == 0 || regs.dx>>16 != messageSendSize:
		return "", errors.New("the host does not reply")
	case regs.bx > maxSize:
		return "", errTooBig
	}
	size := int(regs.bx)
	var b []byte
	for len(b) < size {
		regs, err := r.message(messageReceivePayload, statusSuccess)
		if err != nil {
			return "", err
		}
		if regs.dx>>16 != messageSendPayload {
			return "", fmt.Errorf("the host's reply ends after %d of %d bytes", len(b), size)
		}
		b = binary.LittleEndian.AppendUint32(b, regs.bx)
	}
	_, err = r.message(messageReceiveStatus, statusSuccess)
	return string(b[:size]), err
}
