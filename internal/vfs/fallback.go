package vfs

import "errors"

// ErrNoDirect says that direct synced writes cannot be had in a directory, so that the page cache and fdatasync are used.
var ErrNoDirect = errors.New("vfs: no direct synced writes")

// allocateByWriting extends a file to size by writing zeros behind its end.
func allocateByWriting(f File, size int64) error {
	have, err := f.Size()
	if err != nil {
		return err
	}
	if size <= have {
		return nil
	}
	zeros := AlignedBytes(1 << 20)
	for off := have - have%BlockBytes; off < size; off += int64(len(zeros)) {
		n := min(int64(len(zeros)), size-off)
		skip := max(have-off, 0) // the block that the old end lies in keeps its bytes
		if skip > 0 {
			if _, err := f.WriteAt(zeros[:n-skip], off+skip); err != nil {
				return err
			}
			continue
		}
		if _, err := f.WriteAt(zeros[:n], off); err != nil {
			return err
		}
	}
	return nil
}
