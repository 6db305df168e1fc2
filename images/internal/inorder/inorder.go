// Package inorder works on many things at once and hands out what became of them in the order of the things. The writers of compressed
// formats call it: one input gives the same bytes on any number of processors.
package inorder

import (
	"runtime"

	"golang.org/x/sync/errgroup"
)

// job is an item on its way; done receives its result, or is closed without one after an error.
type job[Item, Result any] struct {
	item Item
	done chan Result
}

// Each calls add with the result of each item that items yields, one after the other, in their order. On as many goroutines as there are
// processors it makes results by functions that worker returns, each with memory of its own. It returns the first error of any of the
// three; all goroutines have ended then.
func Each[Item, Result any](items func(yield func(Item) bool) error, worker func() (func(Item) (Result, error), error), add func(Result) error) error {
	workers := runtime.GOMAXPROCS(0)
	var g errgroup.Group
	work := make(chan job[Item, Result], workers)
	inOrder := make(chan job[Item, Result], 16*workers) // bounds how far the workers run ahead
	stop := make(chan struct{})
	g.Go(func() error {
		defer close(work)
		defer close(inOrder)
		return items(func(item Item) bool {
			j := job[Item, Result]{item, make(chan Result, 1)}
			for _, c := range []chan job[Item, Result]{inOrder, work} {
				select {
				case c <- j:
				case <-stop:
					return false
				}
			}
			return true
		})
	})
	for range workers {
		g.Go(func() error { return run(worker, work) })
	}
	g.Go(func() error {
		defer close(stop)
		for j := range inOrder {
			result, ok := <-j.done
			if !ok {
				return nil // its worker returns the error
			}
			if err := add(result); err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}

// run makes results until work is closed. After an error it only drains.
func run[Item, Result any](worker func() (func(Item) (Result, error), error), work <-chan job[Item, Result]) error {
	do, err := worker()
	for j := range work {
		var result Result
		if err == nil {
			result, err = do(j.item)
		}
		if err == nil {
			j.done <- result
		}
		close(j.done)
	}
	return err
}
