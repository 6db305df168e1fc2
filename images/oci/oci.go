// Package oci puts an image into an OCI artifact ("OCI Image Format Specification" 1.1), so that registries can keep and serve it: an image
// layout in a tar archive, as skopeo (oci-archive:) and crane push take it. The image builder writes with it. The same Spec gives the same bytes.
//
// Each file is a layer of its own, as it is: not in an archive, not compressed again. Its path is the annotation org.opencontainers.image.title.
package oci

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/cosi-os/cosi/images/content"
)

// Media types. That of the configuration tells what the artifact is.
const (
	Config   types.MediaType = "application/vnd.cosi.image.config.v1+json"
	UKI      types.MediaType = "application/vnd.cosi.image.uki.v1"           // the unified kernel image, with the root in it
	GRUB     types.MediaType = "application/vnd.cosi.image.grub.v1"          // the configuration by which a BIOS boots that
	Manifest types.MediaType = "application/vnd.cosi.image.manifest.v1+gzip" // of what the image is made: JSON
	Upgrade  types.MediaType = "application/vnd.cosi.image.upgrade.v1"       // what a node upgrades itself with
)

// Annotations are of the manifest, by the names that the specification has for them.
const (
	title   = "org.opencontainers.image.title"
	version = "org.opencontainers.image.version"
	created = "org.opencontainers.image.created"
)

// Spec is an artifact.
type Spec struct {
	Name, Version string
	Arch          string // as Go calls it
	Time          time.Time
	Files         []File
}

// File is one layer.
type File struct {
	Path string
	Type types.MediaType
	content.Content
}

// Write writes the archive to w.
func (s Spec) Write(w io.Writer) error {
	if err := s.write(w); err != nil {
		return fmt.Errorf("oci: %w", err)
	}
	return nil
}

func (s Spec) write(w io.Writer) error {
	image, err := s.image()
	if err != nil {
		return err
	}
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{
		Platform:    &v1.Platform{OS: "linux", Architecture: s.Arch},
		Annotations: map[string]string{title: s.Name, version: s.Version},
	}})
	list, err := index.RawManifest()
	if err != nil {
		return err
	}
	archive := &archiver{tar.NewWriter(w), s.Time}
	archive.put("oci-layout", content.String(`{"imageLayoutVersion":"1.0.0"}`), &err)
	archive.put("index.json", bytes.NewReader(list), &err)
	manifest, manifestErr := image.RawManifest()
	config, configErr := image.RawConfigFile()
	if err := errors.Join(manifestErr, configErr); err != nil {
		return err
	}
	for _, blob := range [][]byte{manifest, config} {
		archive.blob(bytes.NewReader(blob), &err)
	}
	for _, f := range s.Files {
		archive.blob(f, &err)
	}
	if err != nil {
		return err
	}
	return archive.Close()
}

// image describes the files.
func (s Spec) image() (v1.Image, error) {
	config, err := empty.Image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", s.Arch, v1.Time{Time: s.Time.UTC()}
	image, err := mutate.ConfigFile(mutate.MediaType(empty.Image, types.OCIManifestSchema1), config)
	if err != nil {
		return nil, err
	}
	for _, f := range s.Files {
		hash, _, err := v1.SHA256(content.Reader(f))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
		image, err = mutate.Append(image, mutate.Addendum{Layer: layer{f, hash}, MediaType: f.Type, Annotations: map[string]string{title: f.Path}})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	image = mutate.ConfigMediaType(image, Config) // last: the library leaves a configuration alone that is not Docker's or OCI's
	annotated := mutate.Annotations(image, map[string]string{title: s.Name, version: s.Version, created: s.Time.UTC().Format(time.RFC3339)})
	return annotated.(v1.Image), nil
}

// layer is a file as the library sees it.
type layer struct {
	file File
	hash v1.Hash
}

func (l layer) Digest() (v1.Hash, error)             { return l.hash, nil }
func (l layer) DiffID() (v1.Hash, error)             { return l.hash, nil }
func (l layer) Compressed() (io.ReadCloser, error)   { return io.NopCloser(content.Reader(l.file)), nil }
func (l layer) Uncompressed() (io.ReadCloser, error) { return l.Compressed() }
func (l layer) Size() (int64, error)                 { return l.file.Size(), nil }
func (l layer) MediaType() (types.MediaType, error)  { return l.file.Type, nil }

// archiver writes files of one time. Its methods do nothing once there was an error.
type archiver struct {
	*tar.Writer
	time time.Time
}

func (a *archiver) put(name string, c content.Content, err *error) {
	if *err != nil {
		return
	}
	if *err = a.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: c.Size(), ModTime: a.time, Format: tar.FormatUSTAR}); *err == nil {
		_, *err = io.Copy(a, content.Reader(c))
	}
}

func (a *archiver) blob(c content.Content, err *error) {
	if *err != nil {
		return
	}
	var hash v1.Hash
	if hash, _, *err = v1.SHA256(content.Reader(c)); *err == nil {
		a.put("blobs/sha256/"+hash.Hex, c, err)
	}
}
