// Package files has what the standard library lacks for files that several
// processes share, and that must survive a power cut.
package files

import (
	"errors"
	"os"
	"path/filepath"
)

// Replace puts data in the place of a file, all or nothing, and returns when
// that survives a power cut, as everything does that was created beside it. Of
// two callers at one moment one has to wait: see [Lock].
func Replace(name string, data []byte) error {
	temporary := name + ".new"
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temporary, name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}
