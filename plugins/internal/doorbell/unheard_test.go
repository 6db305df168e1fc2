package doorbell

import "testing"

func TestPreempts(t *testing.T) {
	for _, test := range []struct {
		release, version string
		want             bool
	}{
		{"6.1.0-50-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.176-1 (2026-10-20)", false},
		{"6.12.107+deb13-cloud-arm64", "#1 SMP Debian 6.12.107-1 (2026-11-01)", false},
		{"6.12.107+deb13-rt-amd64", "#1 SMP PREEMPT_RT Debian 6.12.107-1 (2026-11-01)", true},
		{"6.12.107-own", "#1 SMP PREEMPT Thu Nov 26 18:26:02 UTC 2026", true},
		{"7.3.4+deb13-cloud-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 7.3.4-1~bpo13+1 (2026-11-15)", true},
		{"10.0.1", "#1 SMP PREEMPT_LAZY", true},
	} {
		if got := preempts(test.release, test.version); got != test.want {
			t.Errorf("preempts(%q, %q) = %v; want %v", test.release, test.version, got, test.want)
		}
	}
}
