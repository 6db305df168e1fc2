package client

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v4"

	"github.com/cosi-os/cosi/tools/pki"
)

// Context is how a node is reached and known.
type Context struct {
	// Endpoint is HOST[:PORT] or unix:///PATH.
	Endpoint string `yaml:"endpoint"`
	// Node is the name that the node's certificate must hold, whatever address is dialled.
	Node string `yaml:"node,omitempty"`
	// CA is the PEM of the authority that signs serving certificates.
	CA string `yaml:"ca,omitempty"`
	// Certificate and Key are the client's own, as PEM.
	Certificate string `yaml:"certificate,omitempty"`
	Key         string `yaml:"key,omitempty"`
	// Fingerprint, if set, is the SHA-256 of the one serving certificate that is accepted; Node and CA do not count then.
	Fingerprint string `yaml:"fingerprint,omitempty"`
	// ServingKey, if set, is the SHA-256 of a public key that the node is known by, too: who holds it may show a certificate that has
	// expired. No configuration has it, it is for renewing such a certificate.
	ServingKey string `yaml:"-"`
}

// Config is the client's configuration file.
type Config struct {
	Current  string              `yaml:"current,omitempty"`
	Contexts map[string]*Context `yaml:"contexts,omitempty"`
}

// ErrNoContext says that nothing tells which node is meant.
var ErrNoContext = errors.New("no context is chosen")

// ConfigPath is where the configuration is: $XDG_CONFIG_HOME/cosi/config.yaml.
func ConfigPath() (string, error) {
	dir, err := ConfigDir()
	return filepath.Join(dir, "config.yaml"), err
}

// ConfigDir is $XDG_CONFIG_HOME/cosi.
func ConfigDir() (string, error) {
	dir, err := os.UserConfigDir()
	return filepath.Join(dir, "cosi"), err
}

// LoadConfig reads a configuration. A file that does not exist is an empty one.
func LoadConfig(path string) (*Config, error) {
	config := &Config{Contexts: map[string]*Context{}}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return config, nil
	}
	if err != nil {
		return nil, err
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(config); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for name, context := range config.Contexts {
		if context == nil {
			return nil, fmt.Errorf("%s: contexts.%s is empty", path, name)
		}
	}
	if config.Contexts == nil {
		config.Contexts = map[string]*Context{}
	}
	return config, nil
}

// Save replaces the file as a whole, with mode 0600.
func (c *Config) Save(path string) error {
	data, err := yaml.Dump(c)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return pki.WriteFile(path, data, 0o600)
}

// Context returns the context called name, or the current one for "".
func (c *Config) Context(name string) (*Context, error) {
	if name == "" {
		name = c.Current
	}
	if name == "" {
		return nil, ErrNoContext
	}
	context, ok := c.Contexts[name]
	if !ok {
		return nil, fmt.Errorf("there is no context %q (there are %v)", name, c.Names())
	}
	return context, nil
}

// Names returns the names of all contexts, sorted.
func (c *Config) Names() []string { return slices.Sorted(maps.Keys(c.Contexts)) }
