package mountevents

import (
	"testing"

	"github.com/cosi-os/cosi/plugins/internal/doorbell/doorbelltest"
)

func TestProgramsPassTheVerifier(t *testing.T) { doorbelltest.Verify(t, loadProbe) }
