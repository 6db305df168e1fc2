package log

import (
	"fmt"
	"sync"
)

// spare is the file of the next snapshot. It has its room before a segment is begun that the snapshot will have to hold: a snapshot is what
// makes room on a full disk, so it must never need any. Each has a name of its own, which recovery takes for that of a snapshot that was
// not finished: one may still be synced when the next is made.
type spare struct {
	mu   sync.Mutex // guards the fields below
	file file       // nil: there is none
	name string
	size int64 // that was allocated
	made int   // so many
}

// grow makes room for a snapshot of size bytes, or leaves it as it is. It never gives any back.
func (s *spare) grow(d disk, size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.make(d); err != nil || s.size >= size {
		return err
	}
	if err := s.file.Allocate(size); err != nil {
		return err
	}
	s.size = size
	return nil
}

// shrink gives back what is beyond size.
func (s *spare) shrink(size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.size <= size {
		return nil
	}
	if err := s.file.Truncate(size); err != nil {
		return err
	}
	s.size = size
	return nil
}

// open returns the file to write a snapshot into, which stays the spare until it is taken or dropped.
func (s *spare) open(d disk) (file, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.make(d)
	return s.file, err
}

// make makes the file if there is none. mu is held.
func (s *spare) make(d disk) error {
	if s.file != nil {
		return nil
	}
	s.made++
	name := fmt.Sprintf("next-%d%s%s", s.made, imageSuffix, unborn)
	f, err := d.Create(name)
	if err != nil {
		return err
	}
	s.file, s.name = f, name
	return nil
}

// take returns the file, which is the spare no more, and its name.
func (s *spare) take() (file, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.file
	s.file, s.size = nil, 0
	return f, s.name
}

// drop gives up the file: after an error, nobody knows what becomes of what was written to it.
func (s *spare) drop(d disk) {
	if f, name := s.take(); f != nil {
		f.Close()
		d.Remove(name)
	}
}
