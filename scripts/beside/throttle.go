package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// throttle has the kernel let a process write at most rate bytes a second to the disk that dir lies on, by a control group of its own: blkio of version 1, or io of version 2. It wants root. undo puts the process back into the root group and removes its own.
func throttle(pid int, dir string, rate int64) (undo func() error, err error) {
	disk, err := diskOf(dir)
	if err != nil {
		return nil, err
	}
	root, file, limit := "/sys/fs/cgroup/blkio", "blkio.throttle.write_bps_device", fmt.Sprintf("%s %d", disk, rate)
	if _, err := os.Stat(root); err != nil {
		root, file, limit = "/sys/fs/cgroup", "io.max", fmt.Sprintf("%s wbps=%d", disk, rate)
		if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+io"), 0); err != nil {
			return nil, err
		}
	}
	group := filepath.Join(root, "tidemark-beside-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil {
		return nil, err
	}
	join := func(group string) error {
		return os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
	}
	undo = func() error { return errors.Join(join(root), os.Remove(group)) }
	if err := errors.Join(os.WriteFile(filepath.Join(group, file), []byte(limit), 0), join(group)); err != nil {
		return nil, errors.Join(err, undo())
	}
	return undo, nil
}

// diskOf is the number of the disk, as major:minor, that has dir's file system. Limits belong to whole disks.
func diskOf(dir string) (string, error) {
	device, err := exec.Command("findmnt", "-no", "MAJ:MIN", "--target", dir).Output()
	if err != nil {
		return "", fmt.Errorf("findmnt: %w", err)
	}
	sys, err := filepath.EvalSymlinks("/sys/dev/block/" + strings.TrimSpace(string(device)))
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(sys, "partition")); err == nil {
		sys = filepath.Dir(sys)
	}
	number, err := os.ReadFile(filepath.Join(sys, "dev"))
	return strings.TrimSpace(string(number)), err
}
