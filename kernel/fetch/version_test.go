package fetch

import "testing"

func TestCompareVersions(t *testing.T) {
	// Each is older than the next.
	sorted := []string{"1.0~rc1-1", "1.0-1~bpo12+1", "1.0-1", "1.0-1+deb13u1", "1.0-2", "1.0+b1-1", "1.0.1-1", "1.9-1", "1.10-1", "6.12.9-1", "6.12.107-1", "257.13-1~deb13u1", "1:0.1"}
	for i, a := range sorted {
		for j, b := range sorted {
			got := compareVersions(a, b)
			if (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("compareVersions(%q, %q) = %d", a, b, got)
			}
		}
	}
}
