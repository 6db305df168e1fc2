package upgrade

import (
	"regexp"
	"strings"
)

// challenge is what a server wants to hear of who asks (RFC 9110, 11.6.1).
type challenge struct {
	scheme     string            // in lower case
	parameters map[string]string // by their names, in lower case
}

// challengePart is a parameter, or else a scheme.
var challengePart = regexp.MustCompile(`([\w!#$%&'*+.^|~\x60-]+)(\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([\w!#$%&'*+.^|~\x60-]+)))?`)

var quotedPair = regexp.MustCompile(`\\(.)`)

// challenges reads the fields WWW-Authenticate of an answer. There may be several in one.
func challenges(fields []string) (all []challenge) {
	for _, field := range fields {
		before := len(all)
		for _, m := range challengePart.FindAllStringSubmatch(field, -1) {
			switch {
			case m[2] == "":
				all = append(all, challenge{strings.ToLower(m[1]), map[string]string{}})
			case len(all) > before: // of what has a scheme
				all[len(all)-1].parameters[strings.ToLower(m[1])] = quotedPair.ReplaceAllString(m[3], "$1") + m[4]
			}
		}
	}
	return all
}

// by is the first challenge of a scheme.
func by(scheme string, all []challenge) (challenge, bool) {
	for _, c := range all {
		if c.scheme == scheme {
			return c, true
		}
	}
	return challenge{}, false
}
