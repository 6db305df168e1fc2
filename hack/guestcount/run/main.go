// Command run measures boots of an image in guest instructions and prints a line for each event:
//
//	go run ./hack/guestcount/run -image build/cosi-base-amd64.raw -n 3
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/cosi-os/cosi/hack/guestcount"
	"github.com/cosi-os/cosi/tools/qemu"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

func main() {
	image := flag.String("image", "build/cosi-base-amd64.raw", "boot this `file`")
	runs := flag.Int("n", 1, "boot this `many` times")
	cache := flag.String("cache", "build/cache/guestcount", "keep the counter in this `directory`")
	boot := node.UEFI
	flag.Func("fw", "uefi, bios or kernel", func(s string) (err error) { boot, err = node.ParseBoot(s); return err })
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	for range *runs {
		if err := measure(ctx, *cache, *image, boot); err != nil {
			fmt.Fprintln(os.Stderr, "guestcount:", err)
			os.Exit(1)
		}
	}
}

// measure boots image with fresh keys.
func measure(ctx context.Context, cache, image string, boot node.Boot) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	arch, err := node.Arch(image)
	if err != nil {
		return err
	}
	host, err := qemu.Find(ctx, arch)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "guestcount")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	id, err := node.LoadIdentity(dir, "cosi", time.Now())
	if err != nil {
		return err
	}
	data, err := id.UserData()
	if err != nil {
		return err
	}
	userData := filepath.Join(dir, "user-data.yaml")
	if err := os.WriteFile(userData, data, 0o600); err != nil {
		return err
	}
	o := node.Options{Image: image, Boot: boot, Identity: id, UserData: userData}
	events, err := guestcount.Measure(ctx, host, cache, o, guestcount.Marks(boot))
	if err != nil {
		return err
	}
	for _, e := range events {
		fmt.Printf("%-10s %8.0f M  %6.1fs\n", e.Name, float64(e.Instructions)/1e6, e.Wall.Seconds())
	}
	return nil
}
