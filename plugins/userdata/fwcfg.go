package userdata

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// fwCfgFile is where the kernel's qemu_fw_cfg module shows what QEMU was given with "-fw_cfg name=opt/dev.cosi/user-data,file=…".
// Source: docs/specs/fw_cfg.rst of QEMU; names below opt/ are for users, by reversed domain.
const fwCfgFile = "sys/firmware/qemu_fw_cfg/by_name/opt/dev.cosi/user-data/raw"

// fwCfg reads user data that the virtual machine's host handed in.
func fwCfg(root string) *found {
	f := &found{source: sourceFwCfg, id: sourceFwCfg, name: "fw_cfg"}
	f.data, f.err = readFile(filepath.Join(root, fwCfgFile))
	return f
}

// readFile returns the content of a file, nil if there is none.
func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readAll(file)
}
