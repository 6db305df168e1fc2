//go:build !race

package upgrade

// tries is how often power is cut between two syncs.
const tries = 5
