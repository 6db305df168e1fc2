package userdata

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/sdk"
	"github.com/diskfs/go-diskfs/disk"
	"github.com/diskfs/go-diskfs/filesystem"
	"google.golang.org/protobuf/encoding/protojson"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestWhatBecomesOfTheSources holds what the plugin says of each source, as JSON by id. The console's own test begins with these files.
func TestWhatBecomesOfTheSources(t *testing.T) {
	const mistakes = document1 + `---
metadata: {type: MountPiont, id: unknown}
spec: {source: tmpfs}
---
metadata: {type: mount, id: wrong}
spec: {source: tmpfs, target: /var/wrong, fstype: tmpfs, flags: [nosiud]}
`
	served := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(mistakes)) }))
	defer served.Close()
	key := "data:;base64," + base64.StdEncoding.EncodeToString([]byte("-----BEGIN PRIVATE KEY-----"))
	for name, c := range map[string]struct {
		argument string
		files    map[string]string
		esp      bool
	}{
		"applied":     {"", map[string]string{fwCfgFile: document1 + "---\n" + strings.Replace(document1, "id: data", "id: more", 1)}, true},
		"none":        {"", map[string]string{fwCfgDir + "/rev": "3\n"}, false},
		"bad":         {"cosi.userdata=" + served.URL, nil, true},
		"unreachable": {"cosi.userdata=http://127.0.0.1:1/user-data", nil, true},
		"refused":     {"cosi.userdata=" + key, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			r, root := plugintest.Start(t, declaration), t.TempDir()
			put(t, root, "proc/cmdline", "console=ttyS0 "+c.argument+"\n")
			put(t, root, defaultsFile, defaults)
			for path, content := range c.files {
				put(t, root, path, content)
			}
			if c.esp {
				makeDevice(t, root, "vda2", 40<<20, disk.FilesystemSpec{FSType: filesystem.TypeFat32, VolumeLabel: "ESP"}, map[string]string{"EFI/x": ""})
			}
			node := newController(root)
			node.now = func() time.Time { return time.Date(2026, 11, 22, 10, 30, 3, 0, time.UTC) } // it stands still: a URL is tried once
			runController(t, r, node)
			golden(t, name+".json", outcomes(t, r))
		})
	}
}

// runController runs the plugin until its test ends.
func runController(t *testing.T, r *plugintest.Runtime, c *controller) {
	t.Helper()
	t.Setenv(sdk.EnvEndpoint, r.Endpoint)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sdk.Run(ctx, c.plugin()) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	r.Wait("all sources have been looked at", func() bool { return source(r, summaryID).GetState() != "" })
}

// outcomes are the sources without the summary.
func outcomes(t *testing.T, r *plugintest.Runtime) []byte {
	t.Helper()
	all := map[string]json.RawMessage{}
	for _, id := range []string{sourceImage, sourceFwCfg, sourceCmdline, sourceCIDATA, sourceESP, sourceESP + "-vda2", sourceURL} {
		s := &machinepb.UserDataSource{}
		if r.Get(id, s) == nil {
			continue
		}
		data, err := protojson.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		all[id] = data
	}
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(data, '\n')
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", file)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
	}
}

// A disk that comes later is shown in the place of its absence, and an absence of its own is forgotten with the disk.
func TestAbsenceIsForgotten(t *testing.T) {
	r, root := plugintest.Start(t, declaration), t.TempDir()
	put(t, root, "proc/cmdline", "\n")
	c := newController(root)
	runController(t, r, c)
	shown := func(id string) bool { return r.Get(id, &machinepb.UserDataSource{}) != nil }
	wake := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.wake()
	}
	if !shown(sourceCIDATA) {
		t.Error("the absence of a disk is not shown")
	}
	makeDevice(t, root, "vdb", 40<<20, disk.FilesystemSpec{FSType: filesystem.TypeFat32, VolumeLabel: "CIDATA"}, nil)
	wake()
	r.Wait("the empty disk is shown in its place", func() bool { return shown("cidata-vdb") && !shown(sourceCIDATA) })
	if err := os.RemoveAll(filepath.Join(root, "sys/class/block/vdb")); err != nil {
		t.Fatal(err)
	}
	wake()
	r.Wait("the disk is gone", func() bool { return !shown("cidata-vdb") && shown(sourceCIDATA) })
}
