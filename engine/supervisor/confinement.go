package supervisor

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/cosi-os/cosi/engine/capability"
	"github.com/cosi-os/cosi/engine/wire"
)

// readConfinement reads what the kernel enforces on a process.
func readConfinement(pid int) (*wire.Confined, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, err
	}
	confined := parseStatus(string(status))
	confined.PID = pid
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(groups)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			confined.Cgroup = strings.TrimSpace(path)
		}
	}
	return confined, nil
}

// parseStatus reads the text of /proc/PID/status. Lines that it does not know, or cannot read, are left out.
func parseStatus(text string) *wire.Confined {
	c := &wire.Confined{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		if len(fields) == 0 {
			continue
		}
		switch key {
		case "Uid":
			c.UID = effective(fields)
		case "Gid":
			c.GID = effective(fields)
		case "Groups":
			for _, field := range fields {
				if gid, err := strconv.ParseUint(field, 10, 32); err == nil {
					c.Groups = append(c.Groups, uint32(gid))
				}
			}
		case "CapEff":
			c.Effective = capabilities(fields[0])
		case "CapBnd":
			c.Bounding = capabilities(fields[0])
		case "NoNewPrivs":
			c.NoNewPrivs = fields[0] == "1"
		case "Seccomp_filters":
			c.SeccompFilters, _ = strconv.Atoi(fields[0])
		}
	}
	return c
}

// effective is the second of real, effective, saved and file system id.
func effective(fields []string) uint32 {
	if len(fields) < 2 {
		return 0
	}
	id, _ := strconv.ParseUint(fields[1], 10, 32)
	return uint32(id)
}

func capabilities(hex string) []string {
	set, _ := strconv.ParseUint(hex, 16, 64)
	return capability.Set(set).Names()
}
