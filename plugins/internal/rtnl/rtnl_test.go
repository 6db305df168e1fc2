package rtnl

import "testing"

func TestAddressMessageThatIsCutIsLeftOut(t *testing.T) {
	for _, m := range [][]byte{nil, {2, 24, 0}, {2, 24, 0, 0, 2, 0, 0, 0}, {2, 24, 0, 0, 2, 0, 0, 0, 200, 0, 2, 0, 1}} {
		if a, ok := parseAddress(m); ok {
			t.Errorf("parseAddress(%v) = %+v; want nothing", m, a)
		}
	}
}
