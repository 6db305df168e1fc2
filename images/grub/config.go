package grub

import (
	"fmt"
	"strings"

	"github.com/cosi-os/cosi/images/uki"
)

const directory = "grub"

// ConfigFile is the configuration's place on the ESP.
const ConfigFile = directory + "/grub.cfg"

// DiskConfig is the configuration of a disk, which never changes: it boots what the environment block says, by a configuration that is named for
// the root. See package bootentry. Nothing on trial is booted that could not be counted.
const DiskConfig = `# Written with the image. Upgrades change grubenv.
load_env
set entry=$good
if [ "$left" = 3 ]; then set next=2
elif [ "$left" = 2 ]; then set next=1
elif [ "$left" = 1 ]; then set next=0
fi
if [ -n "$next" ]; then
  set left=$next
  if save_env left; then set entry=$trial; fi
fi
source $prefix/$entry.cfg
sleep 30
reboot
`

// Image is a unified kernel image: *uki.Image.
type Image interface {
	// Section returns where the data of a section lies in the file.
	Section(name string) (offset, size int64)
}

// Config returns the configuration that starts the kernel and the initramfs in a unified kernel image, a file of the ESP, with arguments. They
// are read where they lie in it: a second copy would double the size of every image. A node that cannot boot says why, and tries again.
//
// It fails for an argument that GRUB would change.
func Config(file string, image Image, arguments string) (string, error) {
	linux, err := blocks(image, uki.Linux)
	if err != nil {
		return "", err
	}
	initrd, err := blocks(image, uki.Initrd)
	if err != nil {
		return "", err
	}
	words := strings.Fields(arguments)
	for i, word := range words {
		if strings.ContainsAny(word, `'"\`) {
			return "", fmt.Errorf("kernel argument %s: GRUB passes no quotes and backslashes on unchanged", word)
		}
		words[i] = "'" + word + "'"
	}
	return fmt.Sprintf(`# Written with the image. A BIOS boots the kernel, the initramfs and the arguments of the file that UEFI starts.
loopback uki /%s
linux (uki)%s %s
initrd (uki)%s
boot
sleep 30
reboot
`, file, linux, strings.Join(words, " "), initrd), nil
}

// blocks returns where a section lies in the image, as GRUB writes it: the first sector, and how many.
func blocks(image Image, section string) (string, error) {
	offset, size := image.Section(section)
	if offset%sector != 0 || size == 0 {
		return "", fmt.Errorf("section %s of the unified kernel image: %d bytes at %d: GRUB reads whole sectors", section, size, offset)
	}
	return fmt.Sprintf("%d+%d", offset/sector, (size+sector-1)/sector), nil
}
