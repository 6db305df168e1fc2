package userdata

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

const (
	// metadataAddress is where a platform's metadata service is on all of them.
	metadataAddress = "http://169.254.169.254"
	// requestTimeout bounds one request: a service answers from the machine's own host.
	requestTimeout = 5 * time.Second
)

// services are how each platform's is asked, at an address, for user data. They return nil if there is none.
var services = map[platform]func(ctx context.Context, address string) ([]byte, error){
	platformAWS:       askAWS,
	platformAzure:     askAzure,
	platformGCP:       askGCP,
	platformOpenStack: askOpenStack,
}

// askService reads user data from a platform's metadata service. What an OpenStack network carries, a neighbour could have changed; the other
// platforms' hosts answer themselves.
func askService(ctx context.Context, p platform, address string) *found {
	f := &found{source: string(p), id: string(p), name: "user data of " + string(p), unauthenticated: p == platformOpenStack, missing: "the machine has none"}
	f.data, f.err = services[p](ctx, address)
	if len(bytes.TrimSpace(f.data)) == 0 {
		f.data = nil
	}
	return f
}

// askAWS speaks IMDSv2: a token first, and the request with it. Source: "Use the Instance Metadata Service to access instance metadata", EC2
// User Guide. The token's hop limit is of no concern to the instance itself.
func askAWS(ctx context.Context, address string) ([]byte, error) {
	token, err := ask(ctx, http.MethodPut, address+"/latest/api/token", http.Header{"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": {"60"}}, nil)
	switch {
	case err != nil:
		return nil, err
	case token.status == http.StatusForbidden:
		return nil, refused("the instance's metadata is turned off")
	case token.status != http.StatusOK:
		return nil, token.unexpected()
	}
	got, err := ask(ctx, http.MethodGet, address+"/latest/user-data", http.Header{"X-Aws-Ec2-Metadata-Token": {string(token.body)}}, nil)
	if err != nil {
		return nil, err
	}
	return got.orNone()
}

// askGCP reads the attribute user-data of the instance. Source: "About VM metadata", Compute Engine. Both sides say the same header: the request
// lest a program be tricked into it, the answer lest another server be believed.
func askGCP(ctx context.Context, address string) ([]byte, error) {
	const flavor, google = "Metadata-Flavor", "Google"
	got, err := ask(ctx, http.MethodGet, address+"/computeMetadata/v1/instance/attributes/user-data", http.Header{flavor: {google}}, nil)
	if err != nil {
		return nil, err
	}
	if got.header.Get(flavor) != google {
		return nil, fmt.Errorf("%s: the answer is not of Google's: it has no %s: %s", got.address, flavor, google)
	}
	return got.orNone()
}

// askAzure reads the user data of the machine. Source: "Azure Instance Metadata Service". What az vm create takes as custom data is not there, but
// on a disk in UDF: it is not read.
func askAzure(ctx context.Context, address string) ([]byte, error) {
	got, err := ask(ctx, http.MethodGet, address+"/metadata/instance/compute/userData?api-version=2021-01-01&format=text", http.Header{"Metadata": {"true"}}, nil)
	if err != nil {
		return nil, err
	}
	text, err := got.orNone()
	if err != nil || text == nil {
		return nil, err
	}
	data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, refused("%s: user data: %v", got.address, err)
	}
	return data, nil
}

// askOpenStack reads what nova was given as --user-data. Source: "Metadata", Nova's user documentation.
func askOpenStack(ctx context.Context, address string) ([]byte, error) {
	got, err := ask(ctx, http.MethodGet, address+"/openstack/latest/user_data", nil, nil)
	if err != nil {
		return nil, err
	}
	return got.orNone()
}

// answer is what a service said.
type answer struct {
	address string
	status  int
	header  http.Header
	body    []byte
}

func (a *answer) unexpected() error {
	return fmt.Errorf("%s: %d %s", a.address, a.status, http.StatusText(a.status))
}

// orNone returns the body, nil if there is nothing at the address.
func (a *answer) orNone() ([]byte, error) {
	switch a.status {
	case http.StatusOK:
		return a.body, nil
	case http.StatusNotFound:
		return nil, nil
	}
	return nil, a.unexpected()
}

// ask makes one request. A service is no place to be sent elsewhere from, and none behind a proxy: its answer is the first server's own.
func ask(ctx context.Context, method, address string, header http.Header, body io.Reader) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		request.Header[name] = values
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	a := &answer{address: address, status: response.StatusCode, header: response.Header}
	if a.body, err = readAll(response.Body); err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	return a, nil
}
