package build

import (
	"fmt"
	"os"
	"path/filepath"
)

// CacheDir is the Cache of whoever names no other: what COSI_CACHE says, or cosi in the user's cache directory.
func CacheDir() (string, error) {
	if dir := os.Getenv("COSI_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("%w; say where in COSI_CACHE", err)
	}
	return filepath.Join(dir, "cosi"), nil
}
