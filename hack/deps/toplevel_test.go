package deps

import (
	"os/exec"
	"strings"
	"testing"
)

// topLevel is all that lies in the repository's top directory, with the reason why it is there.
var topLevel = map[string]string{
	"api":       "the contract; plugins and clients outside this repository import it",
	"engine":    "PID 1 and the runtime",
	"plugins":   "one folder a plugin",
	"sdk":       "what a plugin is written with; those outside this repository import it",
	"kernel":    "which kernel, pinned, and how it is fetched",
	"initramfs": "the archive that the kernel unpacks",
	"images":    "definitions, and the writers of every output format",
	"tools":     "programs for the host",
	"hack":      "what the project needs to work on itself",
	"docs":      "records that a command adds to and nobody builds from, as the soak tests' runs; how the boot server is used",

	"Makefile": "everything that is done with this repository", "README.md": "the way in", "LICENSE": "Apache-2.0",
	"go.mod": "one module", "go.sum": "and its dependencies by hash", ".ci": "what a newcomer does", ".gitignore": "build/",
}

// A place for everything: what is new goes into one of the folders, or changes the architecture.
func TestTopLevelIsThatOfTheArchitecture(t *testing.T) {
	out, err := exec.Command("git", "-c", "safe.directory=*", "ls-files", "--full-name", ":/").Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	there := map[string]bool{}
	for path := range strings.Lines(string(out)) {
		name, _, _ := strings.Cut(strings.TrimSpace(path), "/")
		there[name] = true
		if topLevel[name] == "" {
			t.Errorf("%s: %q is not on the list of what lies at the top", strings.TrimSpace(path), name)
		}
	}
	for name, why := range topLevel {
		if !there[name] {
			t.Errorf("%q is gone: %s", name, why)
		}
	}
}
