//go:build race

package log

// every is how many of the cuts are tried: under the race detector, which makes them ten times slower and finds nothing in one goroutine, one
// in ten. make test tries all of them without it.
const every = 10
