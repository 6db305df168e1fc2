package vmtest

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// turns are those of the tests that run beside each other: as many at once as "go test -parallel" says.
var turns turnstile

func TestMain(m *testing.M) {
	flag.Parse()
	parallel := flag.Lookup("test.parallel").Value
	n, err := strconv.Atoi(parallel.String())
	if err == nil {
		turns.free, err = n, parallel.Set(strconv.Itoa(math.MaxInt32)) // all of them come to the turnstile
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "-parallel:", err)
		os.Exit(2)
	}
	os.Exit(m.Run())
}

// Parallel has t run beside other tests, as t.Parallel does, but of those that wait the longest first: no long one is left to run alone in the end.
// takes is how long it takes, in seconds, roughly, where everything is emulated.
func Parallel(t *testing.T, takes int) {
	t.Helper()
	t.Parallel()
	began := time.Now()
	turns.enter(takes)
	t.Cleanup(turns.leave)
	t.Logf("began after %v", time.Since(began).Round(time.Second))
}

type turnstile struct {
	mu      sync.Mutex
	free    int
	waiting []waiter
}

type waiter struct {
	takes int
	turn  chan struct{} // closed when it has come
}

// enter returns when there is room and nobody waits who takes longer.
func (s *turnstile) enter(takes int) {
	s.mu.Lock()
	w := waiter{takes, make(chan struct{})}
	s.waiting = append(s.waiting, w)
	s.admit()
	s.mu.Unlock()
	<-w.turn
}

func (s *turnstile) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free++
	s.admit()
}

// admit needs mu.
func (s *turnstile) admit() {
	for ; s.free > 0 && len(s.waiting) > 0; s.free-- {
		next := 0
		for i, w := range s.waiting {
			if w.takes > s.waiting[next].takes {
				next = i
			}
		}
		close(s.waiting[next].turn)
		s.waiting = append(s.waiting[:next], s.waiting[next+1:]...)
	}
}

// The longest of those that wait comes first, and no more are in than there is room for.
func TestTheLongestComesFirst(t *testing.T) {
	s := &turnstile{free: 1}
	s.enter(1)
	came := make(chan int)
	for _, takes := range []int{20, 40, 30} {
		go func() { s.enter(takes); came <- takes }()
	}
	for waiting := 0; waiting < 3; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		waiting = len(s.waiting)
		s.mu.Unlock()
	}
	for _, want := range []int{40, 30, 20} {
		s.leave()
		if got := <-came; got != want {
			t.Errorf("%d comes; want %d", got, want)
		}
	}
	if s.free != 0 || len(s.waiting) != 0 {
		t.Errorf("%d free, %d wait; want one that is in", s.free, len(s.waiting))
	}
}

// Nobody passes the turnstile by: t.Parallel alone would have a test run at once, however many do.
func TestAllWaitForTheirTurn(t *testing.T) {
	files, err := filepath.Glob("*_test.go")
	if err != nil || len(files) < 20 {
		t.Fatalf("files %q, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if file != "turn_test.go" && bytes.Contains(text, []byte("t.Parallel()")) {
			t.Errorf("%s: t.Parallel(); want vmtest.Parallel, which waits for a turn", file)
		}
	}
}
