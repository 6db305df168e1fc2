package userdata

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const wireGoalState = `<?xml version="1.0" encoding="utf-8"?>
<GoalState xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:xsd="http://www.w3.org/2001/XMLSchema" xsi:noNamespaceSchemaLocation="goalstate10.xsd">
  <Version>2012-11-30</Version>
  <Incarnation>7</Incarnation>
  <Machine><ExpectedState>Started</ExpectedState></Machine>
  <Container>
    <ContainerId>a511aa6d-29e7-4f53-8788-55655dfe848f</ContainerId>
    <RoleInstanceList>
      <RoleInstance><InstanceId>f6cd1d7ef1644557b9059345e5ba890c.vm_1</InstanceId><State>Started</State></RoleInstance>
    </RoleInstanceList>
  </Container>
</GoalState>`

// wireServer is Azure's, and keeps the report.
func wireServer(t *testing.T, report *string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query().Get("comp")
		switch {
		case r.Header.Get("x-ms-version") != "2012-11-30":
			w.WriteHeader(http.StatusBadRequest)
		case r.Method == http.MethodGet && query == "goalstate":
			io.WriteString(w, wireGoalState)
		case r.Method == http.MethodPost && query == "health" && strings.HasPrefix(r.Header.Get("Content-Type"), "text/xml"):
			b, _ := io.ReadAll(r.Body)
			*report = string(b)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func TestReportReady(t *testing.T) {
	var report string
	if err := reportReady(t.Context(), wireServer(t, &report).URL); err != nil {
		t.Fatal(err)
	}
	const want = `<?xml version="1.0" encoding="UTF-8"?>
<Health><GoalStateIncarnation>7</GoalStateIncarnation><Container><ContainerId>a511aa6d-29e7-4f53-8788-55655dfe848f</ContainerId>` +
		`<RoleInstanceList><Role><InstanceId>f6cd1d7ef1644557b9059345e5ba890c.vm_1</InstanceId><Health><State>Ready</State></Health></Role></RoleInstanceList></Container></Health>`
	if report != want {
		t.Errorf("the report is\n%s\nwant\n%s", report, want)
	}
}

func TestReportReadyFailsInWords(t *testing.T) {
	for _, c := range []struct {
		name  string
		serve http.Handler
		want  string
	}{
		{"not there", fixed(http.StatusServiceUnavailable, ""), "goalstate: 503"},
		{"no XML", fixed(http.StatusOK, "<"), "goalstate: XML syntax error"},
		{"nobody's", fixed(http.StatusOK, "<GoalState><Incarnation>1</Incarnation></GoalState>"), "does not name the machine"},
		{"the report is not taken", first(fixed(http.StatusOK, wireGoalState), fixed(http.StatusInternalServerError, "")), "health: 500"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(c.serve)
			defer server.Close()
			if err := reportReady(t.Context(), server.URL); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("reportReady = %v; want %q", err, c.want)
			}
		})
	}
}
