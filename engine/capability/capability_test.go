package capability

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNumber(t *testing.T) {
	for name, want := range map[string]int{
		"CAP_CHOWN":              unix.CAP_CHOWN,
		"CAP_SYS_ADMIN":          unix.CAP_SYS_ADMIN,
		"CAP_SETFCAP":            unix.CAP_SETFCAP,
		"CAP_CHECKPOINT_RESTORE": unix.CAP_CHECKPOINT_RESTORE,
	} {
		if got, ok := Number(name); !ok || got != want {
			t.Errorf("Number(%q) = %d, %v; want %d", name, got, ok, want)
		}
	}
	if _, ok := Number("CAP_FLY"); ok {
		t.Error(`Number("CAP_FLY") found something`)
	}
}

func TestNamesGoByNumber(t *testing.T) {
	set := Set(1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_CHOWN | 1<<41)
	if got, want := set.Names(), []string{"CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_41"}; !slices.Equal(got, want) {
		t.Errorf("Names() = %v; want %v", got, want)
	}
	if got := Set(0).Names(); got != nil {
		t.Errorf("Names() of nothing = %v", got)
	}
}
