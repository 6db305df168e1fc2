package log

import (
	"os"
	"testing"
)

// TestCreateMakesAFileOfItsOwn: what the kernel remembers of the one before, a failed sync perhaps, is not its own.
func TestCreateMakesAFileOfItsOwn(t *testing.T) {
	d, err := openDirectory(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var infos [2]os.FileInfo
	for i := range infos {
		f, err := d.Create("x")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if infos[i], err = f.(osFile).Stat(); err != nil {
			t.Fatal(err)
		}
	}
	if os.SameFile(infos[0], infos[1]) {
		t.Error("created twice, it is the same file")
	}
}
