package client

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestConfigGoesToTheFileAndBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cosi", "config.yaml")
	config, err := LoadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := config.Context(""); !errors.Is(err, ErrNoContext) {
		t.Errorf("Context of an empty config: %v", err)
	}
	config.Contexts["lab"] = &Context{Endpoint: "192.0.2.1", Node: "n1", CA: "-----BEGIN\nx\n"}
	config.Current = "lab"
	if err := config.Save(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	read, err := LoadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	context, err := read.Context("")
	if err != nil || *context != *config.Contexts["lab"] {
		t.Errorf("%+v, %v", context, err)
	}
	if _, err := read.Context("office"); err == nil || !strings.Contains(err.Error(), "[lab]") {
		t.Errorf("an unknown context: %v", err)
	}
}

func TestLoadConfigNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	for _, text := range []string{"contexts: [", "contxts: {}\n", "contexts: {a: null}\n", "current: [a]\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadConfig(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("LoadConfig(%q): %v", text, err)
		}
	}
}
