package crash

import "testing"

func TestGuardOutsidePID1LetsThePanicGoOn(t *testing.T) {
	defer func() {
		if got := recover(); got != "reason" {
			t.Errorf("recovered %v; want the panic's own value", got)
		}
	}()
	func() {
		defer Guard()
		panic("reason")
	}()
	t.Error("the panic was lost")
}

func TestGuardWithoutAPanicDoesNothing(t *testing.T) {
	func() { defer Guard() }()
}
