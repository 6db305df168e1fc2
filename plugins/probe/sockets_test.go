package probe

import (
	"bytes"
	"log"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const heading = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

func TestSocketsThatWaitAreTold(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"tcp": heading + "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000   903        0 1 1 0 100 0 0 10 0\n" +
			"   1: 0F02000A:C350 0202000A:D431 01 00000000:00000000 00:00000000 00000000   900        0 2 1 0 20 4 30 10 -1\n",
		"tcp6":   heading + "   0: 00000000000000000000000000000000:C350 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3 1 0 100 0 0 10 0\n",
		"udp":    heading + "  12: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000   904        0 4 2 0 0\n",
		"udp6":   heading,
		"raw":    heading,
		"raw6":   heading,
		"packet": "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n0000000000000000 3      2    0800   2     1 0      904    5\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	log.SetOutput(&out)
	defer log.SetOutput(os.Stderr)
	s := &sockets{directory: dir}
	for range 2 { // told once
		if err := s.reconcile(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	want := "sockets: packet protocol 0800 uid 904, tcp 127.0.0.1:8080 uid 903, tcp6 [::]:50000 uid 0, udp 0.0.0.0:68 uid 904\n"
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, want) {
		t.Errorf("printed %q; want %q once", got, want)
	}
}

func TestATableThatCannotBeReadIsTold(t *testing.T) {
	var out bytes.Buffer
	log.SetOutput(&out)
	defer log.SetOutput(os.Stderr)
	if err := (&sockets{directory: t.TempDir()}).reconcile(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "tcp6 open ") {
		t.Errorf("printed %q", out.String())
	}
}
