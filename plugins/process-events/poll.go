package processevents

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/plugins/internal/doorbell"
)

// poll hears of kills for want of memory, which control groups count. What a process ended with nobody can look up afterwards.
func poll(groups string, every time.Duration) (doorbell.Listener[note], error) {
	before, err := kills(groups)
	if err != nil {
		return nil, err
	}
	return doorbell.Poller[note]{Every: every, Look: func() (notes []note, err error) {
		now, err := kills(groups)
		if err != nil {
			return nil, err
		}
		for group, count := range since(before, now) {
			for range count {
				notes = append(notes, note{at: doorbell.Now(), what: oomKilled, code: exitCode(unix.SIGKILL), cgroup: group})
			}
		}
		before = now
		return notes, nil
	}}, nil
}

// kills returns how often the kernel has killed in each group and below it. The root has no count.
func kills(groups string) (map[string]int, error) {
	all := map[string]int{}
	err := filepath.WalkDir(groups, func(dir string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && dir != groups {
			return nil // it has gone meanwhile
		}
		if err != nil || !e.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, "memory.events"))
		if err != nil {
			return nil // the root, without the controller, or gone
		}
		all[path.Clean("/"+strings.TrimPrefix(dir, groups))] = int(countOf("oom_kill", string(data)))
		return nil
	})
	return all, err
}

// countOf reads a line "oom_kill 3".
func countOf(key, text string) uint64 {
	for line := range strings.Lines(text) {
		if count, ok := strings.CutPrefix(line, key+" "); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(count), 10, 63)
			return n
		}
	}
	return 0
}

// since returns how often the kernel has killed in a group itself. Of one that has gone meanwhile the group above it knows.
func since(before, now map[string]int) map[string]int {
	own := map[string]int{}
	for group, count := range now {
		more := count - before[group]
		if more < 0 {
			more = count // another one of the name
		}
		own[group] += more
		if above := path.Dir(group); above != group {
			own[above] -= more
		}
	}
	return own
}
