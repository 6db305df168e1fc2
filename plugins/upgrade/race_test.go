//go:build race

package upgrade

// tries is how often power is cut between two syncs. Under the race detector, which makes it ten times slower and finds nothing in one goroutine, it is once.
// make test cuts more often without it.
const tries = 1
