package node

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Image is what PID 1 reads of /usr/lib/cosi/image.json, written by the image builder.
type Image struct {
	Version string    `json:"version"`
	Built   time.Time `json:"built"`
}

// ReadImage reads the file below root. Without one the version is "unknown" and the time zero; the error is for the console.
func ReadImage(root string) (Image, error) {
	image := Image{Version: "unknown"}
	file := filepath.Join(root, "usr/lib/cosi/image.json")
	data, err := os.ReadFile(file)
	if err != nil {
		return image, err
	}
	if err := json.Unmarshal(data, &image); err != nil {
		return Image{Version: "unknown"}, fmt.Errorf("%s: %w", file, err)
	}
	return image, nil
}
