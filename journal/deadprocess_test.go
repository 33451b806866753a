package journal

import (
	"errors"
	"testing"

	"tidemark/internal/vfs"
)

// TestNamesAndSizesOfADeadProcess: what a process that died had not synced, the next one may find in memory, build on, and lose to a power cut.
func TestNamesAndSizesOfADeadProcess(t *testing.T) {
	t.Run("a spare's size", func(t *testing.T) {
		mem := vfs.NewMem()
		j := newTestJournal(t, mem)
		f, err := mem.Open(testDir+"/spare-7", vfs.ReadWrite|vfs.Create)
		if err == nil {
			err = f.Allocate(64 << 10)
		}
		if err != nil {
			t.Fatal(err)
		}
		j.Close()
		reopenAfterPowerLoss(t, mem.CrashKeepAll())
	})
	t.Run("a segment's name", func(t *testing.T) {
		mem := vfs.NewMem()
		faulty := vfs.NewFaulty(mem)
		j := newTestJournal(t, faulty)
		faulty.SetHooks(vfs.FailNth(vfs.OpSyncDir, 1, errors.New("killed")))
		if _, err := j.Maintain(0, false); err == nil {
			t.Fatal("the directory was synced")
		}
		j.Close()
		reopenAfterPowerLoss(t, mem.CrashKeepAll())
	})
}

// reopenAfterPowerLoss writes a little into the second segment, cuts the power, and wants everything back.
func reopenAfterPowerLoss(t *testing.T, mem *vfs.Mem) {
	t.Helper()
	j, _, err := Open(testOptions(mem))
	if err != nil {
		t.Fatal(err)
	}
	for j.Append.End() <= 64<<10 {
		if _, err := appendFrame(j, 1, make([]byte, 4000)); err != nil {
			t.Fatal(err)
		}
		flushAll(t, j)
	}
	end := j.Append.End()
	mem = mem.CrashKeepNothing()
	j.Close()
	j, r, err := Open(testOptions(mem))
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if r.End != end {
		t.Errorf("the stream ends at %d, it was flushed to %d", r.End, end)
	}
}
