package boot

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"path"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/book"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/seen"
)

// Handler serves what machines boot; secure adds user data, which is given over HTTPS only.
func (s *Server) Handler(secure bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /boot/{machine}/{file}", s.bootFile)
	if secure {
		mux.HandleFunc("GET /user-data/{ticket}", s.userData)
	}
	return mux
}

// peer is who asks.
func peer(r *http.Request) netip.Addr {
	address, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{} // known to no neighbour table
	}
	return address.Addr().Unmap()
}

func (s *Server) bootFile(w http.ResponseWriter, r *http.Request) {
	client, name := peer(r), r.PathValue("file")
	a, err := s.ask(client, r.PathValue("machine"))
	if err != nil {
		fail(w, err)
		return
	}
	switch name {
	case startScript:
		text(w, start)
		return
	case machineScript:
		err = s.machineScript(w, r, a)
	default:
		err = s.give(w, r, a, name)
	}
	if err != nil {
		s.refuse(a.mac, err)
		fail(w, err)
	}
}

// fail tells a machine that it gets nothing. Why, the server's owner is told.
func fail(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		http.Error(w, "there is nothing", http.StatusNotFound)
	case errors.Is(err, errOther), errors.Is(err, errUnseen):
		http.Error(w, "not for you", http.StatusForbidden)
	default:
		http.Error(w, "not now", http.StatusInternalServerError)
	}
}

func text(w http.ResponseWriter, script string) {
	w.Header().Set("Content-Type", "text/plain; charset=us-ascii")
	w.Header().Set("Cache-Control", "no-store")
	io.WriteString(w, script)
}

// give serves a file, and notes when the machine has all of it.
func (s *Server) give(w http.ResponseWriter, r *http.Request, a *asking, name string) error {
	f, stage, err := s.open(a, name)
	if err != nil {
		return err
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	if path.Ext(name) == ".efi" {
		w.Header().Set("Content-Type", "application/efi") // UEFI 2.10, 24.7.3: by which firmware knows a program
	}
	var reader io.ReadSeeker = content.Reader(f)
	if plain, ok := f.(*content.File); ok {
		reader = plain.File // which the kernel sends without showing it to us
	}
	http.ServeContent(w, r, "", time.Time{}, reader)
	at, err := reader.Seek(0, io.SeekCurrent)
	if stage != "" && r.Method == http.MethodGet && err == nil && at == f.Size() {
		s.reached(a.mac, peer(r), stage)
	}
	return nil
}

// start has iPXE ask for its script, with what it knows of the machine, until it gets it and what that names.
const start = `#!ipxe
:again
chain ` + machineScript + `?uuid=${uuid}&serial=${serial:uristring} ||
echo The boot server has nothing for this machine yet. Again in 10 seconds.
sleep 10
goto again
`

// machineScript boots the machine's image, with its arguments.
func (s *Server) machineScript(w http.ResponseWriter, r *http.Request, a *asking) error {
	var uuids []string
	if id, err := uuid.Parse(r.URL.Query().Get("uuid")); err == nil && !book.NoUUID(id) {
		uuids = []string{id.String()}
	}
	serial := printable(r.URL.Query().Get("serial"))
	s.Seen.Note(a.mac, func(m *seen.Machine) { m.UUIDs, m.Serial = uuids, serial })
	var err error
	if a.entry, a.image, err = s.find(s.Book.Find, book.Machine{MAC: a.mac, UUIDs: uuids, Serial: serial}); err != nil {
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	arguments, err := s.arguments(a)
	if err != nil {
		return err
	}
	s.reached(a.mac, peer(r), seen.Script)
	s.Seen.Note(a.mac, func(m *seen.Machine) { m.Image = a.image.Name })
	text(w, fmt.Sprintf("#!ipxe\nset arguments %s\nchain %s.ipxe\n", arguments, a.image.Name))
	return nil
}

// printable is the beginning of a text that a machine says of itself, as far as it is for people.
func printable(s string) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s))
	return s[:min(len(s), 128)]
}

// errUnseen says that user data is asked for by somebody whose MAC address cannot be seen.
var errUnseen = errors.New("it has user data, and its MAC address cannot be seen: it is behind a router (--routed believes it)")

// arguments are those of the machine's kernel, behind the image's.
func (s *Server) arguments(a *asking) (string, error) {
	all := strings.Join(a.entry.Arguments, " ")
	if a.entry.UserData == "" {
		return all, nil
	}
	if !a.verified && !s.Routed {
		return "", errUnseen
	}
	data, err := os.ReadFile(a.entry.UserData)
	if err != nil {
		return "", err
	}
	t := s.tickets.get(a.mac, a.entry.UserData, data)
	// By its digest the node knows that nobody has changed it, whatever certificate the server has.
	return strings.TrimSpace(fmt.Sprintf("cosi.userdata=%s/user-data/%s#sha256=%s %s", s.HTTPS, t.secret, t.digest, all)), nil
}

// userData gives a machine its user data, if it has the ticket that was in its arguments.
func (s *Server) userData(w http.ResponseWriter, r *http.Request) {
	t, ok := s.tickets.find(r.PathValue("ticket"))
	if !ok {
		s.Log("%s asks for user data with a ticket that is none, or was once", peer(r))
		fail(w, fs.ErrNotExist)
		return
	}
	client := peer(r)
	neighbour, known := s.Neighbour(client)
	if known && neighbour.String() != t.mac || !known && !s.Routed {
		s.refuse(t.mac, fmt.Errorf("%s asks for its user data, and is another", client))
		fail(w, errOther)
		return
	}
	data, err := os.ReadFile(t.file)
	if err == nil && digest(data) != t.digest {
		err = fmt.Errorf("%s has changed since this machine was told of it: it takes another boot", t.file)
	}
	if err != nil {
		s.refuse(t.mac, err)
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/yaml")
	w.Header().Set("Cache-Control", "no-store")
	if _, err := w.Write(data); err == nil && r.Method == http.MethodGet {
		s.reached(t.mac, client, seen.UserData)
		s.await(t.mac, client)
	}
}
