//go:build !race

package log

// every is how many of the cuts are tried: all.
const every = 1
