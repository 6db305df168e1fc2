package main

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/cosi-os/cosi/hack/guestcount"
	"github.com/cosi-os/cosi/tools/qemu"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// powerOn is a way to boot.
type powerOn struct {
	boot    node.Boot
	name    string
	targets map[string]float64
}

// boot counts guest instructions from power-on under OVMF and under SeaBIOS: the raw image, an address by DHCP, user data by fw_cfg. Counts,
// unlike seconds, hardly depend on what else the machine does.
func boot(ctx context.Context) ([]figure, error) {
	return bootBy(ctx, image,
		powerOn{node.UEFI, "boot to ", map[string]float64{guestcount.TLS: 3.2, guestcount.Ready: 3.8}},
		powerOn{node.BIOS, "boot by a BIOS to ", nil}) // there is one for our own kernel only
}

// ownImage is the base image on our own kernel.
const ownImage = "cosi-own-amd64"

// bootOwn counts the same of that image.
func bootOwn(ctx context.Context) ([]figure, error) {
	return bootBy(ctx, ownImage,
		powerOn{node.UEFI, "boot our own kernel to ", map[string]float64{guestcount.TLS: 2.4}},
		powerOn{node.BIOS, "boot our own kernel by a BIOS to ", map[string]float64{guestcount.TLS: 2.0}})
}

func bootBy(ctx context.Context, image string, ways ...powerOn) ([]figure, error) {
	var figures []figure
	for _, by := range ways {
		events, err := count(ctx, image, by.boot, guestcount.Marks(by.boot))
		if err != nil {
			return figures, err
		}
		for _, e := range events {
			figures = append(figures, figure{by.name + e.Name, float64(e.Instructions) / 1e9, "G instructions", by.targets[e.Name]})
		}
	}
	return figures, nil
}

// split counts where the instructions of a boot go, from stage to stage as the engine prints them in the image of images/bench.yaml. Its
// plugin gauge and its prints come on top of what the base image needs.
func split(ctx context.Context) ([]figure, error) {
	parts := []struct{ what, until string }{
		{"firmware", "EFI stub:"}, {"kernel", "(?m)^engine: COSI"}, {"engine", "stage runtime-started after"}, {"runtime", "stage runtime after"},
		{"network", "stage address after"}, {"API", "stage api after"},
	}
	var marks []guestcount.Mark
	for _, p := range parts {
		marks = append(marks, guestcount.Mark{Name: p.what, Pattern: regexp.MustCompile(p.until)})
	}
	events, err := count(ctx, gaugeImage, node.UEFI, marks)
	if err != nil {
		return nil, err
	}
	var figures []figure
	var before uint64
	for _, e := range events {
		figures = append(figures, figure{"of the boot, until " + e.Name, float64(e.Instructions-before) / 1e9, "G instructions", 0})
		before = e.Instructions
	}
	return figures, nil
}

func count(ctx context.Context, image string, boot node.Boot, marks []guestcount.Mark) ([]guestcount.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	host, err := qemu.Find(ctx, qemu.AMD64)
	if err != nil {
		return nil, err
	}
	o, remove, err := options(image)
	if err != nil {
		return nil, err
	}
	defer remove()
	o.Boot = boot
	return guestcount.Measure(ctx, host, filepath.Join(outputs, "cache/guestcount"), o, marks)
}

// options are those of a node that starts from an image, with keys of its own in its user data. remove removes those.
func options(image string) (o node.Options, remove func(), err error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return o, nil, err
	}
	remove = func() { os.RemoveAll(dir) }
	defer func() {
		if err != nil {
			remove()
		}
	}()
	id, err := node.LoadIdentity(dir, "bench", time.Now())
	if err != nil {
		return o, nil, err
	}
	data, err := id.UserData()
	if err != nil {
		return o, nil, err
	}
	userData := filepath.Join(dir, "user-data.yaml")
	if err := os.WriteFile(userData, data, 0o600); err != nil {
		return o, nil, err
	}
	return node.Options{Image: filepath.Join(outputs, image+".raw"), Identity: id, UserData: userData}, remove, nil
}
