package upgrade

import (
	"net/url"
	"reflect"
	"testing"
)

func TestChallenges(t *testing.T) {
	type values = map[string]string
	for _, tc := range []struct {
		fields []string
		want   []challenge
	}{
		{nil, nil},
		{[]string{""}, nil},
		{[]string{"Basic"}, []challenge{{"basic", values{}}}},
		{[]string{`Basic realm="a, b", charset="UTF-8"`}, []challenge{{"basic", values{"realm": "a, b", "charset": "UTF-8"}}}},
		{[]string{`Basic realm="a \"b\" \\", Bearer Realm = "https://c/d?e=f", scope=g`}, []challenge{
			{"basic", values{"realm": `a "b" \`}}, {"bearer", values{"realm": "https://c/d?e=f", "scope": "g"}},
		}},
		{[]string{"Negotiate YWJj==", `realm="nobody's"`, `BEARER realm=""`}, []challenge{{"negotiate", values{}}, {"ywjj", values{}}, {"bearer", values{"realm": ""}}}},
		{[]string{`Bearer realm="https://unclosed`}, []challenge{{"bearer", values{}}, {"realm", values{}}, {"https", values{}}, {"unclosed", values{}}}},
	} {
		if got := challenges(tc.fields); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%q: %v; want %v", tc.fields, got, tc.want)
		}
	}
}

func TestTokenURL(t *testing.T) {
	for field, want := range map[string]string{
		`Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull"`: "https://auth.example/token?scope=repository%3Aa%2Fb%3Apull&service=registry.example",
		`bearer realm="https://auth.example/token?x=1", error="invalid_token"`:                             "https://auth.example/token?x=1",
		`Basic realm="x", Bearer realm="https://auth.example/token?scope=b",scope="a"`:                     "https://auth.example/token?scope=a&scope=b",
		`Bearer service="registry.example"`:                                                                `it has tokens fetched from "": want an https URL`,
		`Bearer realm="http://auth.example/token"`:                                                         `it has tokens fetched from "http://auth.example/token": want an https URL`,
		`Bearer realm="file:///etc/passwd",service=x`:                                                      `it has tokens fetched from "file:///etc/passwd": want an https URL`,
	} {
		bearer, ok := by("bearer", challenges([]string{field}))
		got, err := tokenURL(bearer)
		if err != nil {
			got = err.Error()
		}
		if !ok || got != want {
			t.Errorf("%s: %s; want %s", field, got, want)
		}
	}
}

// Whatever a registry says, a token is fetched by https or not at all.
func FuzzTokenURL(f *testing.F) {
	f.Add(`Bearer realm="https://auth.example/token?a=b",service="registry.example",scope="repository:a/b:pull"`)
	f.Add(`Basic realm="a \"b\"", bearer realm=https`)
	f.Fuzz(func(t *testing.T, field string) {
		for _, c := range challenges([]string{field}) {
			where, err := tokenURL(c)
			if err != nil {
				continue
			}
			if u, err := url.Parse(where); err != nil || u.Scheme != "https" || u.Host == "" {
				t.Errorf("%q: %q (%v)", field, where, err)
			}
		}
	})
}
