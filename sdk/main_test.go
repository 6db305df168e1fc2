package sdk

import (
	"context"
	"strings"
	"testing"
)

func TestStart(t *testing.T) {
	declared := `{"name": "copy", "description": "copies"}`
	for _, test := range []struct {
		name, declaration string
		args              []string
		code              int
		out               string
	}{
		{"version", declared, []string{"--version"}, 0, "copy 1.2\n"},
		{"declaration", declared, []string{"--declaration"}, 0, declared},
		{"help", declared, []string{"--help"}, 0, ""},
		{"unknown flag", declared, []string{"--nothing"}, 2, ""},
		{"argument", declared, []string{"argument"}, 2, ""},
		{"broken declaration", `{"nmae": ""}`, []string{"--version"}, 1, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out strings.Builder
			code := start(Plugin{Declaration: []byte(test.declaration), Version: "1.2"}, test.args, &out)
			if code != test.code || out.String() != test.out {
				t.Errorf("start(%q) = %d, %q; want %d, %q", test.args, code, out.String(), test.code, test.out)
			}
		})
	}
}

func TestBackoffDoublesAndEnds(t *testing.T) {
	var b backoff
	for _, want := range []string{"100ms", "200ms", "400ms", "800ms", "1.6s", "3.2s", "6.4s", "12.8s", "25.6s", "30s", "30s"} {
		if got := b.failed().String(); got != want {
			t.Errorf("failed() = %s; want %s", got, want)
		}
	}
	b.succeeded()
	if got := b.failed(); got != backoffFirst {
		t.Errorf("after success failed() = %v; want %v", got, backoffFirst)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if sleep(ctx, backoffLast) {
		t.Error("sleep has waited though ctx is done")
	}
}
