package catalog

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"tidemark/internal/vfs"
	"tidemark/journal"
)

// TestSnapshotOfANewerBuild: it is not taken for damage, and a repair by an older build leaves it alone.
func TestSnapshotOfANewerBuild(t *testing.T) {
	mem := vfs.NewMem()
	if err := mem.MkdirAll("data"); err != nil {
		t.Fatal(err)
	}
	b, err := New().Encode(0)
	if err != nil {
		t.Fatal(err)
	}
	binary.LittleEndian.PutUint32(b[4:], snapshotVersion+1)
	binary.LittleEndian.PutUint32(b[20:], crc32.Checksum(b[:20], castagnoli))
	if err := Save(mem, "data", b); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(mem, "data"); !errors.Is(err, errVersion) || errors.As(err, new(*journal.CorruptError)) {
		t.Errorf("load: %v", err)
	}
	if _, _, err := Repair(mem, "data", true, true); !errors.Is(err, errVersion) {
		t.Errorf("repair: %v", err)
	}
	if kept, err := journal.ReadFile(mem, "data/"+snapshotName, 1<<20); err != nil || string(kept) != string(b) {
		t.Errorf("the snapshot is changed: %v", err)
	}
}
