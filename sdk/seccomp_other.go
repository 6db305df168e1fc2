//go:build !linux || !(amd64 || arm64)

package sdk

// denyExec does nothing where there is no filter for it: a node is Linux on amd64 or arm64.
func denyExec() error { return nil }
