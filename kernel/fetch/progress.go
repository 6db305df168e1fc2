package fetch

import (
	"os"
	"time"
)

// watched calls do, which downloads into dir, and tells f.Progress how many bytes are there while it runs, and none when it has ended.
func (f *Fetcher) watched(dir string, do func() error) error {
	if f.Progress == nil {
		return do()
	}
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-quit:
				return
			case <-ticker.C:
				f.Progress(sizeOf(dir))
			}
		}
	}()
	err := do()
	close(quit)
	<-ended
	f.Progress(0)
	return err
}

// sizeOf is how many bytes the files in dir have.
func sizeOf(dir string) (size int64) {
	entries, _ := os.ReadDir(dir) // of what cannot be read nothing is shown
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			size += info.Size()
		}
	}
	return size
}
