package node

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/proto"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/document"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/pki"
)

// Identity is what a node and its first client know each other by.
type Identity struct {
	Name               string // the node's
	CA, Serving, Admin *pki.Pair
}

// admin is the name of the client that LoadIdentity makes.
const admin = "admin"

// LoadIdentity reads the identity of the node called name from dir/keys, and makes what is missing
// there. Certificates that have expired are an error that says what to do.
func LoadIdentity(dir, name string, now time.Time) (*Identity, error) {
	store := pki.Store{Dir: filepath.Join(dir, "keys")}
	maker := pki.Maker{Now: now, Rand: rand.Reader}
	id := &Identity{Name: name}
	for _, p := range []struct {
		name string
		pair **pki.Pair
		make func() (*pki.Pair, error)
	}{
		{pki.CAName, &id.CA, func() (*pki.Pair, error) { return maker.CA(name + " CA") }},
		{pki.NodeName(name), &id.Serving, func() (*pki.Pair, error) { return maker.Node(id.CA, name) }},
		{pki.ClientName(admin), &id.Admin, func() (*pki.Pair, error) { return maker.Client(id.CA, admin, pki.RoleAdmin) }},
	} {
		pair, err := store.Load(p.name)
		if errors.Is(err, fs.ErrNotExist) {
			if pair, err = p.make(); err == nil {
				err = store.Save(p.name, pair)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("keys: %s: %w", p.name, err)
		}
		if pair.Expired(now) {
			return nil, fmt.Errorf("keys: %s has expired: remove %s to start with new keys", store.CertFile(p.name), dir)
		}
		*p.pair = pair
	}
	return id, nil
}

// UserData returns the document that makes a node serve with id's certificate and trust its CA. The
// CA's key is not in it.
func (id *Identity) UserData() ([]byte, error) {
	spec, err := proto.Marshal(&machinepb.Certificates{
		ClientCas:          []string{string(id.CA.CertPEM)},
		ServingCertificate: string(id.Serving.CertPEM),
		ServingKey:         string(id.Serving.KeyPEM),
	})
	if err != nil {
		return nil, err
	}
	kind, err := builtin.Set().Lookup("certificates")
	if err != nil {
		return nil, err
	}
	node, err := document.Node(&resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Type: kind.Type(), Id: "node"},
		Spec:     &resourcepb.Spec{ProtoSpec: spec},
	}, kind)
	if err != nil {
		return nil, err
	}
	return document.YAML(node)
}

// Context returns how the admin reaches the node at endpoint.
func (id *Identity) Context(endpoint string) client.Context {
	return client.Context{
		Endpoint: endpoint, Node: id.Name, CA: string(id.CA.CertPEM),
		Certificate: string(id.Admin.CertPEM), Key: string(id.Admin.KeyPEM),
	}
}
