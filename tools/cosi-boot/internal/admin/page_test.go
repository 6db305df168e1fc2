package admin

import (
	"context"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/cosi-os/cosi/tools/cosi-boot/internal/seen"
)

// browser starts a headless Chromium. Without one the test is skipped, except where CI is set.
func browser(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil && os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.NoFirstRun, chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true))
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(func() { chromedp.Cancel(ctx); cancel() })
	return ctx
}

// The page shows the list, follows it, takes what machines say for text, says when the server is gone, and finds it again.
func TestThePageFollowsTheList(t *testing.T) {
	ctx := browser(t)
	list := newList()
	list.Note("52:54:00:aa:bb:02", func(m *seen.Machine) { m.Begin(); m.Firmware, m.Image = "UEFI", "cosi-base-amd64" })
	server := httptest.NewServer(Handler(list, nil))
	address := server.Listener.Addr().String()
	defer func() { server.CloseClientConnections(); server.Close() }()
	// shows waits until the page's text is so: the state, and of each machine the cells but for the time.
	shows := func(want ...string) {
		t.Helper()
		const script = `[document.getElementById("state").textContent, ...[...document.querySelectorAll("tbody tr")].map(
			(row) => [...row.cells].filter((c) => c.className !== "last").map((c) => c.textContent).join("|"))].join("\n")`
		for {
			got, err := chromedp.Run(ctx, chromedp.Evaluate[string](script))
			if err != nil {
				t.Fatalf("%v; want:\n%s", err, strings.Join(want, "\n"))
			}
			if got == strings.Join(want, "\n") {
				return
			}
			select {
			case <-ctx.Done():
				t.Fatalf("the page shows:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	if err := chromedp.Do(ctx, chromedp.Navigate(server.URL)); err != nil {
		t.Fatal(err)
	}
	two := "52:54:00:aa:bb:02||UEFI|cosi-base-amd64|dhcp|1|"
	shows("1 machine", two)
	list.Note("52:54:00:aa:bb:01", func(m *seen.Machine) {
		m.Begin()
		m.Serial = `<img src=x onerror="document.title='bad'">`
		m.Refuse(m.Serial)
	})
	one := `52:54:00:aa:bb:01||||dhcp|1|<img src=x onerror="document.title='bad'">`
	shows("2 machines", one, two)
	list.Note("52:54:00:aa:bb:02", func(m *seen.Machine) { m.Reach(seen.Serving) })
	two = strings.Replace(two, "|dhcp|", "|serving|", 1)
	shows("2 machines", one, two)
	if title, err := chromedp.Run(ctx, chromedp.Title()); err != nil || title != "cosi-boot" {
		t.Errorf("the title is %q, %v: what a machine says was run", title, err)
	}
	for i := range 12 { // more than the list takes: the first make room
		list.Note(fmt.Sprintf("52:54:00:aa:cc:%02d", i), (*seen.Machine).Begin)
	}
	all := []string{"10 machines"}
	for i := 2; i < 12; i++ {
		all = append(all, fmt.Sprintf("52:54:00:aa:cc:%02d||||dhcp|1|", i))
	}
	shows(all...)

	server.CloseClientConnections()
	server.Close()
	shows(append([]string{"the boot server does not answer"}, all[1:]...)...)
	again := newList()
	again.Note("52:54:00:aa:bb:09", (*seen.Machine).Begin)
	server = httptest.NewUnstartedServer(Handler(again, nil))
	server.Listener.Close()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server.Listener = listener
	server.Start()
	shows("1 machine", "52:54:00:aa:bb:09||||dhcp|1|")
}
