package figures

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Run is what the figures of one run depend on.
type Run struct {
	Started time.Time `json:"started"`
	TookS   float64   `json:"took_s"`
	Machine string    `json:"machine"`
	Kernel  string    `json:"kernel"`
	Go      string    `json:"go"`
	Disk    string    `json:"disk"`
	Commit  string    `json:"commit"`
	Command string    `json:"command"`
}

// Begin describes a run of a script that begins now and has its data in a folder.
func Begin(script, dir string) Run {
	r := Run{
		Started: time.Now().UTC().Truncate(time.Second), Go: runtime.Version(), Machine: fmt.Sprintf("%d × %s", runtime.NumCPU(), processor()),
		Commit: "unknown", Command: strings.Join(append([]string{"go run ./" + script}, os.Args[1:]...), " "),
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		r.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	}
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) == nil {
		r.Disk = fmt.Sprintf("file system of type %#x", uint32(st.Type))
		if name, ok := map[int64]string{unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs"}[st.Type]; ok {
			r.Disk = name
		}
	}
	if out, err := exec.Command("git", "describe", "--always", "--dirty").Output(); err == nil {
		r.Commit = strings.TrimSpace(string(out))
	}
	return r
}

// Done notes how long it took.
func (r *Run) Done() { r.TookS = time.Since(r.Started).Round(time.Second).Seconds() }

// String is a list for a document.
func (r Run) String() string {
	return fmt.Sprintf("- Command: `%s`, %s, %.0f s\n- Commit: %s\n- Machine: %s, shared by clients and server; %s; %s; %s\n",
		r.Command, r.Started.Format("2006-01-02 15:04 MST"), r.TookS, r.Commit, r.Machine, r.Kernel, r.Disk, r.Go)
}

func processor() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// Short has three digits that count, or all of a large number.
func Short(v float64) string {
	switch {
	case v >= 1000:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// Answer is the JSON object that a child printed.
type Answer map[string]any

// Num is one of its numbers, 0 if it has none of that name.
func (a Answer) Num(name string) float64 {
	v, _ := a[name].(float64)
	return v
}

// Sub is one of its objects.
func (a Answer) Sub(name string) Answer {
	v, _ := a[name].(map[string]any)
	return v
}

// Child runs a program and takes the object that it prints. When ctx ends so does the program.
func Child(ctx context.Context, program string, args ...string) (Answer, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", filepath.Base(program), strings.Join(args, " "), err)
	}
	var a Answer
	if err := json.NewDecoder(bytes.NewReader(out)).Decode(&a); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(program), err)
	}
	return a, nil
}

// settle is how long a measurement waits for what the one before it left behind.
const settle = 500 * time.Millisecond

// Calm lets the disk finish what was left to it.
func Calm() {
	unix.Sync()
	time.Sleep(settle)
}

// DropCached drops a file from the page cache, so that it is read from disk.
func DropCached(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("%s: dropping it from the page cache: %w", file, err)
	}
	return nil
}

// Write puts a run's values into NAME.json of a folder, and its text into that section of RESULTS.md there.
func Write(dir, name string, values any, text string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(values, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, name+".json"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	return WriteSection(filepath.Join(dir, "RESULTS.md"), resultsHead, name, text)
}

const resultsHead = "# Results\n\nEach part is from one run, and every round of it is in the JSON file beside this one. What was tried and did not help is in NOTES.md.\n"

// WriteSection replaces one section of a document, or appends it; a document that is not there begins with head.
func WriteSection(path, head, name, text string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		b, err = []byte(head), nil
	}
	if err != nil {
		return err
	}
	begin, end := fmt.Sprintf("<!-- begin %s -->", name), fmt.Sprintf("<!-- end %s -->", name)
	section := begin + "\n\n" + strings.TrimSpace(text) + "\n\n" + end
	doc := string(b)
	if from, rest, ok := strings.Cut(doc, begin); ok {
		_, after, ok := strings.Cut(rest, end)
		if !ok {
			return fmt.Errorf("%s: section %s has no end", path, name)
		}
		doc = from + section + after
	} else {
		doc += "\n" + section + "\n"
	}
	return os.WriteFile(path, []byte(doc), 0o644)
}
