package upgrade

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strings"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/sdk"
)

// credentials are those of a registry. With none, username and password are empty.
type credentials struct {
	host               string // the id of the RegistryCredentials
	username, password string
	ca                 string
}

func (c credentials) none() bool { return c.username == "" }

func (c credentials) String() string { return fmt.Sprintf("RegistryCredentials %q", c.host) }

func (c credentials) basic() string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.username+":"+c.password))
}

// pool holds the certificates that the registry's is checked against: those of the image, unless it says others. nil: there are none.
func (c credentials) pool(image *x509.CertPool) (*x509.CertPool, error) {
	if c.ca == "" {
		return image, nil
	}
	own := x509.NewCertPool()
	if !own.AppendCertsFromPEM([]byte(c.ca)) {
		return nil, fmt.Errorf("%s: ca: no PEM certificate in it", c)
	}
	return own, nil
}

// registryOf is the host of the registry at a location, as the id of its RegistryCredentials has it; empty if that is no registry.
func registryOf(location string) string {
	rest, isRegistry := strings.CutPrefix(location, "oci://")
	if !isRegistry {
		return ""
	}
	host, _, _ := strings.Cut(rest, "/")
	return strings.ToLower(host)
}

// credentialsFor are those of the registry at a location, and which these are.
func credentialsFor(s *sdk.State, location string) (is credentials, which string) {
	host := registryOf(location)
	if host == "" {
		return credentials{}, ""
	}
	r, ok := sdk.Get[*machinepb.RegistryCredentials](s, credentialsType, host)
	if !ok || r.TearingDown() {
		return credentials{host: host}, ""
	}
	return credentialsOf(r), written(r.Metadata)
}

func credentialsOf(r sdk.Resource[*machinepb.RegistryCredentials]) credentials {
	return credentials{r.GetId(), r.Spec.GetUsername(), r.Spec.GetPassword(), r.Spec.GetCa()}
}

// credentialStatuses says of all RegistryCredentials whether their registries can be told them.
func credentialStatuses(ctx context.Context, s *sdk.State) error {
	var there []string
	for _, r := range sdk.List[*machinepb.RegistryCredentials](s, credentialsType) {
		if r.TearingDown() {
			continue
		}
		there = append(there, r.GetId())
		is := &machinepb.RegistryCredentialsStatus{ObservedVersion: r.GetVersion()}
		is.Reason, is.Message = credentialsOf(r).judge(caFile)
		is.Ready = is.Reason == reasonInForce
		if err := s.Write(ctx, credentialsStatusType, r.GetId(), is, r.Metadata); err != nil {
			return err
		}
	}
	for _, id := range s.Outputs(credentialsStatusType) {
		if !slices.Contains(there, id) {
			if err := s.Delete(ctx, credentialsStatusType, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// Reasons of an UpgradePolicyStatus and a RegistryCredentialsStatus.
const (
	reasonInForce   = "InForce"
	reasonInvalid   = "Invalid"
	reasonUnchecked = "Unchecked"
)

// judge says whether credentials can be told anybody, if a file holds the certificates of the image.
func (c credentials) judge(image string) (reason, message string) {
	u, err := url.Parse("https://" + c.host)
	if err != nil || u.Host != c.host || registryOf("oci://"+c.host+"/x") != c.host {
		return reasonInvalid, "the id is not the host of oci://HOST/REPOSITORY, in lower case, with its port if it has one"
	}
	f, err := newFetcher(image, c)
	if err != nil {
		return reasonInvalid, err.Error()
	}
	if !f.checks {
		return reasonUnchecked, unchecked
	}
	return reasonInForce, ""
}

// unchecked is why a server is not told credentials.
const unchecked = "the registry's certificate cannot be checked: they have no ca, and the image's definition has no user_data.url_ca"
