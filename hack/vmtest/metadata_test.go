package vmtest_test

import (
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// The addresses of every platform's metadata service, and of Azure's wire server.
const (
	metadataAddress = "169.254.169.254"
	wireAddress     = "168.63.129.16"
)

// busyFirst does not serve the first request: all services ask to be asked again then.
func busyFirst(h http.Handler) http.Handler {
	asked := atomic.Bool{}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Swap(true) {
			h.ServeHTTP(w, r)
		} else {
			http.Error(w, "busy", http.StatusServiceUnavailable)
		}
	})
}

// instanceMetadata is EC2's, version 2 alone: "Use the Instance Metadata Service to access instance metadata", EC2 User Guide.
func instanceMetadata(data []byte) http.Handler {
	const token = "AQAEAJXtf9A-SH-tCXt_Z1wZrQ=="
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /latest/api/token", func(w http.ResponseWriter, r *http.Request) {
		const seconds = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
		var n int
		_, err := fmt.Sscan(r.Header.Get(seconds), &n)
		switch {
		case r.Header.Get("X-Forwarded-For") != "":
			w.WriteHeader(http.StatusForbidden)
		case err != nil || n < 1 || n > 21600:
			w.WriteHeader(http.StatusBadRequest)
		default:
			w.Header().Set(seconds, fmt.Sprint(n))
			io.WriteString(w, token)
		}
	})
	mux.HandleFunc("GET /latest/user-data", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Aws-Ec2-Metadata-Token") != token {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Write(data)
	})
	return mux
}

// googleMetadata is Compute Engine's: "About VM metadata".
func googleMetadata(data []byte) http.Handler {
	const flavor = "Metadata-Flavor"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(flavor, "Google")
		w.Header().Set("Server", "Metadata Server for VM")
		switch {
		case r.Header.Get(flavor) != "Google" || r.Header.Get("X-Forwarded-For") != "":
			w.WriteHeader(http.StatusForbidden)
		case r.Method == http.MethodGet && r.URL.Path == "/computeMetadata/v1/instance/attributes/user-data":
			w.Header().Set("Content-Type", "application/text")
			w.Write(data)
		default:
			http.NotFound(w, r)
		}
	})
}

// azureMetadata is "Azure Instance Metadata Service".
func azureMetadata(data []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		switch {
		case r.Header.Get("Metadata") != "true" || r.Header.Get("X-Forwarded-For") != "" || query.Get("api-version") != "2021-01-01":
			http.Error(w, `{"error": "Bad request"}`, http.StatusBadRequest)
		case r.Method == http.MethodGet && r.URL.Path == "/metadata/instance/compute/userData" && query.Get("format") == "text":
			io.WriteString(w, base64.StdEncoding.EncodeToString(data))
		default:
			http.NotFound(w, r)
		}
	})
}

// novaMetadata is OpenStack's: "Metadata", Nova's user documentation.
func novaMetadata(data []byte) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /openstack/latest/user_data", func(w http.ResponseWriter, _ *http.Request) { w.Write(data) })
	return mux
}

// serveWire is Azure's wire server. The channel is closed when the machine that it asks for has reported that it is ready.
func serveWire(t *testing.T) <-chan struct{} {
	t.Helper()
	const incarnation, container, instance = "1", "a511aa6d-29e7-4f53-8788-55655dfe848f", "f6cd1d7ef1644557b9059345e5ba890c._node"
	ready, told := make(chan struct{}), atomic.Bool{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /machine/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("comp") != "goalstate" || r.Header.Get("X-Ms-Version") != "2012-11-30" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "text/xml; charset=utf-8")
		fmt.Fprintf(w, `<?xml version="1.0" encoding="utf-8"?>
<GoalState xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation="goalstate10.xsd"><Version>2012-11-30</Version>
<Incarnation>%s</Incarnation><Machine><ExpectedState>Started</ExpectedState></Machine><Container><ContainerId>%s</ContainerId>
<RoleInstanceList><RoleInstance><InstanceId>%s</InstanceId><State>Started</State></RoleInstance></RoleInstanceList></Container></GoalState>`, incarnation, container, instance)
	})
	mux.HandleFunc("POST /machine", func(w http.ResponseWriter, r *http.Request) {
		var report struct {
			XMLName     xml.Name `xml:"Health"`
			Incarnation string   `xml:"GoalStateIncarnation"`
			Container   string   `xml:"Container>ContainerId"`
			Instance    string   `xml:"Container>RoleInstanceList>Role>InstanceId"`
			State       string   `xml:"Container>RoleInstanceList>Role>Health>State"`
		}
		err := xml.NewDecoder(r.Body).Decode(&report)
		switch {
		case r.URL.Query().Get("comp") != "health" || r.Header.Get("X-Ms-Version") != "2012-11-30" || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/xml") || err != nil:
			w.WriteHeader(http.StatusBadRequest)
		case report.Incarnation != incarnation || report.Container != container || report.Instance != instance || report.State != "Ready":
			t.Errorf("the report is %+v", report)
		case !told.Swap(true):
			close(ready)
		}
	})
	serveAt(t, wireAddress, mux)
	return ready
}
