package files

import (
	"errors"
	"os"
	"syscall"
)

// Lock takes the lock for this process, or says that another has it. A file
// opened without sharing cannot be opened twice; the system frees it with the
// process, however that ends.
func Lock(name string) (*os.File, bool, error) {
	path, err := syscall.UTF16PtrFromString(name)
	if err != nil {
		return nil, false, err
	}
	const sharingViolation = syscall.Errno(32)
	h, err := syscall.CreateFile(path, syscall.GENERIC_READ|syscall.GENERIC_WRITE, 0, nil,
		syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	if errors.Is(err, sharingViolation) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, &os.PathError{Op: "lock", Path: name, Err: err}
	}
	return os.NewFile(uintptr(h), name), true, nil
}

// syncDir does nothing: Windows cannot sync a directory, and NTFS journals the
// rename.
func syncDir(string) error { return nil }
