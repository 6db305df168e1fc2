// Package admin is what the boot server's owner has of it: the list of machines, as JSON and as a page that stays as new as the list, and the images that
// are built on request.
//
// It has no passwords: it is for those who work on the machine that it runs on, and answers on its loopback alone. What a web page from elsewhere has a
// browser ask for is refused.
package admin

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/cosi-os/cosi/images/definition"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/image"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/seen"
)

//go:embed static
var static embed.FS

// maxDefinition is how large a definition may be.
const maxDefinition = 1 << 20

// listeners is how many pages are kept up to date at a time.
const listeners = 32

// Builder builds the images of definitions. The error is a definition.Problems if the definition is at fault.
type Builder interface {
	Build(ctx context.Context, definition []byte) (*image.Built, error)
}

// Handler serves the list and the page; builder is nil where nothing is built.
func Handler(list *seen.List, builder Builder) http.Handler {
	pages, err := fs.Sub(static, "static")
	if err != nil {
		panic(err) // it is there
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(pages))
	mux.HandleFunc("GET /machines", func(w http.ResponseWriter, _ *http.Request) {
		all, _, _ := list.Since(0)
		reply(w, Machines{Whole: true, Machines: all})
	})
	open := make(chan struct{}, listeners)
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) {
		select {
		case open <- struct{}{}:
			defer func() { <-open }()
			events(w, r, list)
		default:
			http.Error(w, "too many pages are open", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("POST /images", func(w http.ResponseWriter, r *http.Request) { post(w, r, builder) })
	return guard(http.NewCrossOriginProtection().Handler(mux))
}

// guard refuses what is not asked of this machine by its own name: a page from elsewhere may have a browser look that up as the loopback's address.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !Local(r.Host) {
			http.Error(w, "ask for localhost", http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// Local reports whether a host, with a port or without, is the loopback.
func Local(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

// Machines are those of the list, or of them those that have changed.
type Machines struct {
	Whole    bool           `json:"whole"`
	Machines []seen.Machine `json:"machines"`
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) // if it fails, nobody listens
}

const (
	// gather is how long changes are gathered before they are sent: 100 machines that boot make thousands.
	gather = 100 * time.Millisecond
	// sendTime is how long a page may take to read them.
	sendTime = 10 * time.Second
)

// events sends the list, and then what has changed in it, as server-sent events until the page is closed.
func events(w http.ResponseWriter, r *http.Request, list *seen.List) {
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	for sequence := uint64(0); ; {
		all, now, whole := list.Since(sequence)
		data, err := json.Marshal(Machines{whole, all})
		if err != nil || control.SetWriteDeadline(time.Now().Add(sendTime)) != nil {
			return
		}
		if _, err := fmt.Fprintf(w, "event: machines\ndata: %s\n\n", data); err != nil || control.Flush() != nil {
			return
		}
		sequence = now
		if list.Wait(r.Context(), sequence) != nil {
			return
		}
		select {
		case <-time.After(gather):
		case <-r.Context().Done():
			return
		}
	}
}

// post builds the image of a definition.
func post(w http.ResponseWriter, r *http.Request, builder Builder) {
	if builder == nil {
		http.Error(w, "this server builds nothing: it takes --tree and a source tree", http.StatusNotImplemented)
		return
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxDefinition))
	if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
		http.Error(w, fmt.Sprintf("a definition has at most %d bytes", maxDefinition), http.StatusRequestEntityTooLarge)
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	built, err := builder.Build(r.Context(), text)
	switch problems := (definition.Problems)(nil); {
	case errors.As(err, &problems):
		http.Error(w, err.Error(), http.StatusBadRequest)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		reply(w, built)
	}
}
