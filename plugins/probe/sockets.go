package probe

import (
	"context"
	"encoding/hex"
	"fmt"
	"log"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cosi-os/cosi/sdk"
)

// tables are the kernel's lists of sockets. They show those of the whole network namespace to everybody.
var tables = []string{"tcp", "tcp6", "udp", "udp6", "raw", "raw6", "packet"}

// lookAgain is how often the lists are read: nothing tells of a new socket.
const lookAgain = time.Second

// sockets prints who waits for packets on this machine, again when that has changed: "sockets: tcp [::]:50000 uid 900, …".
type sockets struct {
	directory string
	last      string
}

func (*sockets) watch(ctx context.Context, wake func()) error {
	ticker := time.NewTicker(lookAgain)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			wake()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *sockets) reconcile(context.Context, *sdk.State) error {
	var waiting []string
	for _, table := range tables {
		text, err := os.ReadFile(p.directory + "/" + table)
		if err != nil {
			waiting = append(waiting, table+" "+err.Error())
			continue
		}
		for line := range strings.Lines(string(text)) {
			if s := waits(table, strings.Fields(line)); s != "" {
				waiting = append(waiting, s)
			}
		}
	}
	slices.Sort(waiting)
	if now := strings.Join(slices.Compact(waiting), ", "); now != p.last {
		p.last = now
		log.Printf("sockets: %s", now)
	}
	return nil
}

// listening is the kernel's TCP_LISTEN.
const listening = "0A"

// waits describes one line of a table; "" if it is the heading, or a TCP socket that does not listen.
func waits(table string, field []string) string {
	if table == "packet" { // sk RefCnt Type Proto Iface R Rmem User Inode
		if len(field) < 9 || field[0] == "sk" {
			return ""
		}
		return fmt.Sprintf("packet protocol %s uid %s", field[3], field[7])
	}
	// sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid …
	if len(field) < 8 || field[0] == "sl" || strings.HasPrefix(table, "tcp") && field[3] != listening {
		return ""
	}
	return fmt.Sprintf("%s %s uid %s", table, endpoint(field[1]), field[7])
}

// endpoint reads "0100007F:C350": the address in words of the machine's byte order, which is little-endian where we run.
func endpoint(text string) string {
	address, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(address)
	number, portErr := strconv.ParseUint(port, 16, 16)
	if err != nil || portErr != nil {
		return text
	}
	for i := 0; i+4 <= len(raw); i += 4 {
		slices.Reverse(raw[i : i+4])
	}
	ip, ok := netip.AddrFromSlice(raw)
	if !ok {
		return text
	}
	return netip.AddrPortFrom(ip, uint16(number)).String()
}
