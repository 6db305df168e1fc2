package fetch

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// entry is one archive in apt's configuration.
type entry struct {
	uri      string
	suites   []string
	signedBy string // empty: whatever the machine trusts; may be several lines (an embedded key)
	trusted  bool   // the user lets it pass without a signature: a mirror of his own
}

// entries reads every enabled binary archive below etc that offers the component main. What cannot be read is left out: it is the
// user's configuration, of which one entry is enough.
func entries(etc string) []entry {
	var all []entry
	files, _ := filepath.Glob(filepath.Join(etc, "sources.list.d", "*.sources"))
	for _, file := range files {
		if data, err := os.ReadFile(file); err == nil {
			all = append(all, parseStanzas(data)...)
		}
	}
	files, _ = filepath.Glob(filepath.Join(etc, "sources.list.d", "*.list"))
	for _, file := range append([]string{filepath.Join(etc, "sources.list")}, files...) {
		if data, err := os.ReadFile(file); err == nil {
			all = append(all, parseLines(data)...)
		}
	}
	return all
}

// parseStanzas reads the deb822 format of *.sources files; see sources.list(5).
func parseStanzas(data []byte) []entry {
	var all []entry
	fields, last := map[string]string{}, ""
	flush := func() {
		words := func(name string) []string { return strings.Fields(fields[name]) }
		if slices.Contains(words("types"), "deb") && slices.Contains(words("components"), "main") && fields["enabled"] != "no" {
			for _, uri := range words("uris") {
				all = append(all, entry{uri: uri, suites: words("suites"), signedBy: fields["signed-by"], trusted: fields["trusted"] == "yes"})
			}
		}
		fields, last = map[string]string{}, ""
	}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimRight(line, "\r\n")
		name, value, found := strings.Cut(line, ":")
		switch {
		case strings.TrimSpace(line) == "":
			flush()
		case line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if last != "" {
				fields[last] += "\n" + line
			}
		case found:
			last = strings.ToLower(name)
			fields[last] = strings.TrimSpace(value)
		}
	}
	flush()
	return all
}

// parseLines reads the one-line format: deb [signed-by=FILE …] URI SUITE COMPONENT…
func parseLines(data []byte) []entry {
	var all []entry
	scanner := bufio.NewScanner(bytes.NewReader(data))
	for scanner.Scan() {
		line, _, _ := strings.Cut(scanner.Text(), "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb ")
		if !ok {
			continue
		}
		e := entry{}
		if options, after, found := strings.Cut(rest, "]"); found && strings.HasPrefix(strings.TrimSpace(options), "[") {
			for _, option := range strings.Fields(strings.TrimPrefix(strings.TrimSpace(options), "[")) {
				if value, ok := strings.CutPrefix(option, "signed-by="); ok {
					e.signedBy = value
				}
				e.trusted = e.trusted || option == "trusted=yes"
			}
			rest = after
		}
		words := strings.Fields(rest)
		if len(words) < 3 || !slices.Contains(words[2:], "main") {
			continue
		}
		e.uri, e.suites = words[0], words[1:2]
		all = append(all, e)
	}
	return all
}

// derive writes the sources of suite with the archives and keys that the machine uses for its own suite; backports are in one archive, which
// is neither updated nor secured by others. It fails with ErrNoSource if
// the machine has no entry for own, or is no Debian.
func derive(all []entry, own, suite string) (sources []byte, uri string, err error) {
	if own == "" {
		return nil, "", ErrNoSource
	}
	out := &bytes.Buffer{}
	pairs := [][2]string{{own, suite}}
	if !strings.HasSuffix(suite, "-backports") {
		pairs = append(pairs, [2]string{own + "-updates", suite + "-updates"}, [2]string{own + "-security", suite + "-security"})
	}
	for _, pair := range pairs {
		i := slices.IndexFunc(all, func(e entry) bool { return slices.Contains(e.suites, pair[0]) })
		if i < 0 {
			continue
		}
		if uri == "" {
			if pair[0] != own {
				break
			}
			uri = all[i].uri
		}
		fmt.Fprintf(out, "Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n", all[i].uri, pair[1])
		if all[i].signedBy != "" {
			fmt.Fprintf(out, "Signed-By: %s\n", all[i].signedBy)
		}
		if all[i].trusted {
			out.WriteString("Trusted: yes\n")
		}
		out.WriteByte('\n')
	}
	if uri == "" {
		return nil, "", fmt.Errorf("no entry for %s: %w", own, ErrNoSource)
	}
	return out.Bytes(), uri, nil
}

// codename is the suite that the machine itself runs; empty unless it is a Debian.
func codename(osRelease string) string {
	data, err := os.ReadFile(osRelease)
	if err != nil {
		return ""
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		fields[name] = strings.Trim(value, `"'`)
	}
	if fields["ID"] != "debian" {
		return ""
	}
	return fields["VERSION_CODENAME"]
}
