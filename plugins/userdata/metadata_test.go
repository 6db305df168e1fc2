package userdata

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// cloud is a platform's metadata service as its documentation has it, with user data; "" has none.
type cloud func(data string) http.Handler

var clouds = map[platform]cloud{
	platformAWS: func(data string) http.Handler {
		const token = "AQAAAB_token=="
		mux := http.NewServeMux()
		mux.HandleFunc("PUT /latest/api/token", func(w http.ResponseWriter, r *http.Request) {
			var seconds int
			fmt.Sscan(r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds"), &seconds)
			switch {
			case r.Header.Get("X-Forwarded-For") != "":
				w.WriteHeader(http.StatusForbidden)
			case seconds < 1 || seconds > 21600:
				w.WriteHeader(http.StatusBadRequest)
			default:
				io.WriteString(w, token)
			}
		})
		mux.HandleFunc("GET /latest/user-data", func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-aws-ec2-metadata-token") != token {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			text(w, data)
		})
		return mux
	},
	platformGCP: func(data string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Metadata-Flavor", "Google")
			if r.Header.Get("Metadata-Flavor") != "Google" {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			if r.URL.Path == "/computeMetadata/v1/instance/attributes/user-data" {
				text(w, data)
				return
			}
			http.NotFound(w, r)
		})
	},
	platformAzure: func(data string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Metadata") != "true" || r.Header.Get("X-Forwarded-For") != "" || r.URL.Query().Get("api-version") != "2021-01-01" {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			if r.URL.Path == "/metadata/instance/compute/userData" && r.URL.Query().Get("format") == "text" {
				io.WriteString(w, base64.StdEncoding.EncodeToString([]byte(data))) // without user data, an empty answer
				return
			}
			http.NotFound(w, r)
		})
	},
	platformOpenStack: func(data string) http.Handler {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /openstack/latest/user_data", func(w http.ResponseWriter, _ *http.Request) { text(w, data) })
		return mux
	},
}

func text(w http.ResponseWriter, data string) {
	if data == "" {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	io.WriteString(w, data)
}

// fixed answers everything alike.
func fixed(status int, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	})
}

// first answers the first request by one handler, and the others by another.
func first(one, others http.Handler) http.Handler {
	asked := false
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := others
		if !asked {
			h = one
		}
		asked = true
		h.ServeHTTP(w, r)
	})
}

func TestAskService(t *testing.T) {
	google := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Metadata-Flavor", "Google")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	elsewhere := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) })
	type test struct {
		name     string
		platform platform
		serve    http.Handler
		want     string
		wantErr  string
		refused  bool
	}
	tests := []test{
		{"AWS, turned off", platformAWS, fixed(http.StatusForbidden, ""), "", "turned off", true},
		{"AWS, a token of another time", platformAWS, first(fixed(http.StatusOK, "old"), clouds[platformAWS](document1)), "", "401 Unauthorized", false},
		{"AWS, too busy", platformAWS, fixed(http.StatusServiceUnavailable, ""), "", "/latest/api/token: 503 Service Unavailable", false},
		{"GCP, not Google's server", platformGCP, fixed(http.StatusOK, document1), "", "not of Google's", false},
		{"GCP, not Google's server and nothing", platformGCP, http.NotFoundHandler(), "", "not of Google's", false},
		{"GCP, busy", platformGCP, google, "", "503", false},
		{"Azure, gone for an update", platformAzure, fixed(http.StatusGone, ""), "", "410 Gone", false},
		{"Azure, throttled", platformAzure, fixed(http.StatusTooManyRequests, ""), "", "429", false},
		{"Azure, of another model", platformAzure, http.NotFoundHandler(), "", "", false},
		{"Azure, not base64", platformAzure, fixed(http.StatusOK, "#cloud"), "", "illegal base64", true},
		{"OpenStack, broken", platformOpenStack, fixed(http.StatusInternalServerError, ""), "", "500", false},
		{"OpenStack, blanks", platformOpenStack, fixed(http.StatusOK, " \n"), "", "", false},
		{"OpenStack, sent elsewhere", platformOpenStack, elsewhere, "", "302 Found", false},
		{"OpenStack, too much", platformOpenStack, fixed(http.StatusOK, strings.Repeat("#", maxSize+1)), "", errTooBig.Error(), false},
	}
	for p, serve := range clouds {
		tests = append(tests, test{string(p), p, serve(document1), document1, "", false}, test{string(p) + " without user data", p, serve(""), "", "", false})
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(c.serve)
			defer server.Close()
			f := askService(t.Context(), c.platform, server.URL)
			if c.wantErr != "" {
				if f.err == nil || !strings.Contains(f.err.Error(), c.wantErr) || errors.Is(f.err, errRefused) != c.refused || f.data != nil {
					t.Fatalf("askService = %q, %v; want an error with %q, refused %v", f.data, f.err, c.wantErr, c.refused)
				}
				return
			}
			if f.err != nil || string(f.data) != c.want || f.absent() != (c.want == "") || f.id != string(c.platform) || f.unauthenticated != (c.platform == platformOpenStack) {
				t.Fatalf("askService = %+v %q; want %q", f, f.data, c.want)
			}
		})
	}
}
