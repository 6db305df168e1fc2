package vmtest_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// kernelText is where Linux for amd64 begins, if it is told nokaslr: code that has run when anything else does, and is not run again.
const kernelText = 0xffffffff81000000

// lockUp has the processor of each trial spin while the kernel starts, as long before PID 1 as the kernel's own detectors are at work.
func lockUp(ctx context.Context, t *testing.T, k *keeper) {
	dir, err := os.MkdirTemp("", "gdb") // t.TempDir is too long a name for a socket
	if err != nil {
		t.Error(err)
		return
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	command := map[string]string{"command-line": "gdbserver unix:" + socket + ",server=on,wait=off"}
	if err := k.Monitor.Execute(ctx, "human-monitor-command", command, nil); err != nil {
		t.Error(err)
		return
	}
	for from := k.Console.Position(); ; {
		m, err := k.Console.Wait(ctx, from, regexp.MustCompile(`(?s)^.*?NET: Registered PF_INET `))
		if err != nil {
			return
		}
		from += len(m[0])
		for spins := false; !spins; {
			if spins, err = spin(socket); err != nil {
				t.Errorf("gdbserver: %v", err)
				return
			}
		}
	}
}

// spin has the VM's processor run nothing but a jump to itself from now on, with interrupts on. It does not if it finds it with interrupts off, where
// only an NMI would tell, and there is none.
func spin(socket string) (bool, error) {
	conn, err := net.Dial("unix", socket) // this stops the VM
	if err != nil {
		return false, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	g := debugger{conn, bufio.NewReader(conn)}
	text, err := g.ask("g")
	if err != nil {
		return false, err
	}
	// Sixteen registers, rip and eflags, in which bit 9 is IF.
	registers, err := hex.DecodeString(text)
	if err != nil || len(registers) < 18*8 {
		return false, fmt.Errorf("registers: %q", text)
	}
	rip, flags := registers[16*8:17*8], binary.LittleEndian.Uint32(registers[17*8:])
	spins := binary.LittleEndian.Uint64(rip) >= kernelText && flags&(1<<9) != 0
	if spins {
		binary.LittleEndian.PutUint64(rip, kernelText)
		for _, command := range []string{fmt.Sprintf("M%x,2:ebfe", uint64(kernelText)), "G" + hex.EncodeToString(registers[:17*8])} {
			if answer, err := g.ask(command); err != nil || answer != "OK" {
				return false, fmt.Errorf("%.20s: %q, %v", command, answer, err)
			}
		}
	}
	_, err = g.ask("D") // it goes on
	return spins, err
}

// debugger speaks to QEMU as gdb does: "Remote Protocol", Debugging with GDB.
type debugger struct {
	net.Conn
	answers *bufio.Reader
}

// ask sends a command and returns the answer.
func (g debugger) ask(command string) (string, error) {
	var sum byte
	for i := range len(command) {
		sum += command[i]
	}
	if _, err := fmt.Fprintf(g, "$%s#%02x", command, sum); err != nil {
		return "", err
	}
	if _, err := g.answers.ReadString('$'); err != nil { // behind what says that the command has arrived
		return "", err
	}
	text, err := g.answers.ReadString('#')
	if err != nil {
		return "", err
	}
	if _, err := g.answers.Discard(2); err != nil {
		return "", err
	}
	_, err = g.Write([]byte("+"))
	return text[:len(text)-1], err
}
