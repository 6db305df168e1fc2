package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/cosi-os/cosi/images/definition"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/image"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/seen"
)

// builder is one that refuses, fails or builds, as the definition says.
type builder struct{}

func (builder) Build(_ context.Context, text []byte) (*image.Built, error) {
	switch string(text) {
	case "refuse":
		return nil, definition.Problems{{File: "posted.yaml", Line: 1, Message: "no"}}
	case "fail":
		return nil, errors.New("no space")
	}
	return &image.Built{ID: "sha256:1", Name: "cosi-x-amd64"}, nil
}

func serve(t *testing.T, list *seen.List, b Builder) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(Handler(list, b))
	t.Cleanup(server.Close)
	return server
}

func newList() *seen.List { return seen.New(10, time.Now) }

// ask sends a request with headers and returns the answer.
func ask(t *testing.T, method, url, body string, headers ...string) (string, int) {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		} else {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data), answer.StatusCode
}

// What a web page from elsewhere has a browser ask for is refused, under whatever name.
func TestPagesFromElsewhereAreRefused(t *testing.T) {
	s := serve(t, newList(), builder{})
	for _, tc := range []struct {
		method, path string
		headers      []string
		status       int
	}{
		{"GET", "/machines", nil, 200},
		{"GET", "/machines", []string{"Host", "localhost:8068"}, 200},
		{"GET", "/machines", []string{"Host", "[::1]:8068"}, 200},
		{"GET", "/machines", []string{"Host", "rebound.example"}, 403},
		{"GET", "/machines", []string{"Host", "127.0.0.1.example:8068"}, 403},
		{"POST", "/images", nil, 200},
		{"POST", "/images", []string{"Host", "rebound.example:8068"}, 403},
		{"POST", "/images", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"POST", "/images", []string{"Origin", "http://elsewhere.example"}, 403},
		{"DELETE", "/images", nil, 405},
		{"GET", "/none", nil, 404},
		{"GET", "/..%2fadmin.go", nil, 404},
	} {
		if got, status := ask(t, tc.method, s.URL+tc.path, "", tc.headers...); status != tc.status {
			t.Errorf("%s %s %v: %d; want %d\n%s", tc.method, tc.path, tc.headers, status, tc.status, got)
		}
	}
}

func TestPosting(t *testing.T) {
	s := serve(t, newList(), builder{})
	for _, tc := range []struct {
		definition string
		status     int
		want       string
	}{
		{"good", 200, `{"id":"sha256:1","name":"cosi-x-amd64","cached":false}` + "\n"},
		{"refuse", 400, "posted.yaml:1: no\n"},
		{"fail", 500, "no space\n"},
		{strings.Repeat("x", maxDefinition+1), 413, "a definition has at most 1048576 bytes\n"},
	} {
		if got, status := ask(t, "POST", s.URL+"/images", tc.definition); status != tc.status || got != tc.want {
			t.Errorf("%.10s: %d %q; want %d %q", tc.definition, status, got, tc.status, tc.want)
		}
	}
	if got, status := ask(t, "POST", serve(t, newList(), nil).URL+"/images", "good"); status != 501 || !strings.Contains(got, "--tree") {
		t.Errorf("where nothing is built: %d %q", status, got)
	}
}

// Whoever listens has the whole list first, and then each machine that has changed.
func TestEvents(t *testing.T) {
	list := newList()
	list.Note("a", (*seen.Machine).Begin)
	list.Note("b", (*seen.Machine).Begin)
	s := serve(t, list, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", s.URL+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	lines := bufio.NewScanner(stream.Body)
	next := func() (m Machines) {
		t.Helper()
		for lines.Scan() {
			if data, is := strings.CutPrefix(lines.Text(), "data: "); is {
				if err := json.Unmarshal([]byte(data), &m); err != nil {
					t.Fatal(err)
				}
				return m
			}
		}
		t.Fatalf("no event: %v", lines.Err())
		return m
	}
	if m := next(); !m.Whole || len(m.Machines) != 2 || stream.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("at first: %+v", m)
	}
	list.Note("b", func(m *seen.Machine) { m.Reach(seen.Kernel) })
	if m := next(); m.Whole || len(m.Machines) != 1 || m.Machines[0].MAC != "b" || m.Machines[0].Stage != seen.Kernel {
		t.Errorf("then: %+v", m)
	}
}
