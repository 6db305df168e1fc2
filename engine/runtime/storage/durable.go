package storage

import (
	"slices"

	"github.com/cosi-os/cosi/engine/wire"
)

// Namespaces are those that outlive a reboot, on a node that has a disk for them.
func Namespaces() []string { return []string{"audit", "config", "meta"} }

// Durable reports whether a namespace is one of Namespaces.
func Durable(namespace string) bool { return slices.Contains(Namespaces(), namespace) }

// ReasonDamaged in a StateStatus: there is a state, and it cannot be trusted.
const ReasonDamaged = "StateDamaged"

// ReasonLocked in a StateStatus: there is a state, and the TPM does not open it. A VolumeUnlock does.
const ReasonLocked = wire.StorageLocked

// ReasonMisfits in a StateStatus that is durable: there are resources that this image does not understand. They are served as they are.
const ReasonMisfits = "Misfits"
