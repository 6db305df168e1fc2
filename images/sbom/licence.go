package sbom

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/licensecheck"
	"golang.org/x/mod/module"
)

// licenceFile is a file that says what a module is under.
var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|unlicense)([.-].*)?$`)

// sure is how much of a file must be the text of known licences, in percent.
const sure = 75

// inCache finds the licence of a module in a module cache: an SPDX expression, empty if nobody knows.
func inCache(cache, path, version string) string {
	escapedPath, err := module.EscapePath(path)
	if err != nil || cache == "" {
		return ""
	}
	escapedVersion, err := module.EscapeVersion(version)
	if err != nil {
		return ""
	}
	dir := filepath.Join(cache, filepath.FromSlash(escapedPath)+"@"+escapedVersion)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	var all []string
	for _, entry := range entries {
		if !entry.Type().IsRegular() || !licenceFile.MatchString(entry.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return ""
		}
		coverage := licensecheck.Scan(text)
		if coverage.Percent < sure {
			return "" // there is more to it than is known
		}
		for _, match := range coverage.Match {
			if !match.IsURL && !slices.Contains(all, match.ID) {
				all = append(all, match.ID)
			}
		}
	}
	slices.Sort(all)
	return strings.Join(all, " AND ")
}
