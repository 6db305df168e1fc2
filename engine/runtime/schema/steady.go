package schema

import "sync"

// steady keeps the definition of a kind as it is while a resource of the kind is written: what is judged by one definition must not be
// committed under another. Writers of a kind do not exclude each other.
type steady struct{ locks sync.Map } // *sync.RWMutex by type

func (s *steady) of(typ string) *sync.RWMutex {
	if lock, ok := s.locks.Load(typ); ok {
		return lock.(*sync.RWMutex)
	}
	lock, _ := s.locks.LoadOrStore(typ, &sync.RWMutex{})
	return lock.(*sync.RWMutex)
}

// writing begins the write of a resource and returns what ends it. Types that nobody has defined leave nothing behind.
func (s *State) writing(typ string) (done func()) {
	if typ == Definitions.Type || s.kinds.Load().ByType(typ) == nil {
		return func() {}
	}
	lock := s.steady.of(typ)
	lock.RLock()
	return lock.RUnlock
}

// defined begins a change of the definition of a type, when the writes of its resources have ended, and returns what ends it.
func (s *State) defined(typ string) (done func()) {
	lock := s.steady.of(typ)
	lock.Lock()
	return lock.Unlock
}
