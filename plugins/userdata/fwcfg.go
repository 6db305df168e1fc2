package userdata

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	// fwCfgDir is there when the machine has the device.
	fwCfgDir = "sys/firmware/qemu_fw_cfg"
	// fwCfgName is the file's name on QEMU's command line: names below opt/ are for users, by reversed domain.
	fwCfgName = "opt/dev.cosi/user-data"
)

// fwCfgFile is where the kernel's qemu_fw_cfg module shows what QEMU was given with "-fw_cfg name=opt/dev.cosi/user-data,file=…".
// Source: docs/specs/fw_cfg.rst of QEMU.
const fwCfgFile = fwCfgDir + "/by_name/" + fwCfgName + "/raw"

// fwCfg reads user data that the virtual machine's host handed in.
func fwCfg(root string) *found {
	f := &found{source: sourceFwCfg, id: sourceFwCfg, name: "fw_cfg", missing: "no file " + fwCfgName}
	if _, err := os.Stat(filepath.Join(root, fwCfgDir)); errors.Is(err, fs.ErrNotExist) {
		f.missing = "no such device"
	}
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
