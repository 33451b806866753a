package journal

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"
	"strconv"

	"tidemark/internal/vfs"
)

// MetaVersion is the newest layout of a data directory that this build reads and the one that it writes.
const MetaVersion = 1

// Meta is a data directory's identity: written once, checked at every start. It lies in the file "meta" as one line
// "tidemark <version> <crc32c of the rest>" and JSON behind it, so that a person can read it.
type Meta struct {
	ClusterID string        `json:"cluster_id"`
	NodeID    int32         `json:"node_id"`
	Journals  []JournalMeta `json:"journals"`
}

// JournalMeta is what never changes about one journal.
type JournalMeta struct {
	ID           int    `json:"id"`
	Salt         string `json:"salt"` // 16 hex digits
	SegmentBytes int64  `json:"segment_bytes"`
}

// SaltBytes returns the journal's salt.
func (m JournalMeta) SaltBytes() (Salt, error) {
	var s Salt
	b, err := hex.DecodeString(m.Salt)
	if err != nil || len(b) != len(s) {
		return s, fmt.Errorf("meta: salt %q of journal %d is not %d hex digits", m.Salt, m.ID, 2*len(s))
	}
	return Salt(b), nil
}

// JournalDir is where a data directory keeps journal id.
func JournalDir(dataDir string, id int) string {
	return path.Join(dataDir, "journal", strconv.Itoa(id))
}

const metaName = "meta"

// CopySuffix ends the name of the second copy of a small file that nothing else could bring back. The copy is written first: it is not older, unless a build that writes none ran in between.
const CopySuffix = ".copy"

// maxMetaBytes bounds what is read of a file that may be anything.
const maxMetaBytes = 1 << 20

// LoadMeta reads the identity of dataDir. A directory without one is fs.ErrNotExist, a damaged one a CorruptError.
func LoadMeta(fsys vfs.FS, dataDir string) (Meta, error) {
	return loadMeta(fsys, path.Join(dataDir, metaName))
}

// LoadMetaCopy reads the copy of dataDir's identity, for a repair.
func LoadMetaCopy(fsys vfs.FS, dataDir string) (Meta, error) {
	return loadMeta(fsys, path.Join(dataDir, metaName+CopySuffix))
}

func loadMeta(fsys vfs.FS, name string) (Meta, error) {
	var m Meta
	b, err := ReadFile(fsys, name, maxMetaBytes)
	if err != nil {
		return m, err
	}
	damaged := func(cause string) (Meta, error) {
		return Meta{}, &CorruptError{Segment: -1, File: name, Cause: cause}
	}
	line, body, ok := bytes.Cut(b, []byte{'\n'})
	var version int
	var sum uint32
	if _, err := fmt.Sscanf(string(line), "tidemark %d %x", &version, &sum); !ok || err != nil {
		return damaged("the first line is not \"tidemark VERSION CHECKSUM\"")
	}
	if version > MetaVersion {
		return m, fmt.Errorf("%s has format version %d; this build reads up to %d: use a newer tidemark", name, version, MetaVersion)
	}
	if crc32.Checksum(body, castagnoli) != sum {
		return damaged("checksum mismatch")
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return damaged(err.Error())
	}
	return m, nil
}

// SaveMeta writes the identity and its copy, and makes them durable.
func SaveMeta(fsys vfs.FS, dataDir string, m Meta) error {
	body, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	body = append(body, '\n')
	head := fmt.Sprintf("tidemark %d %08x\n", MetaVersion, crc32.Checksum(body, castagnoli))
	return WriteFileTwice(fsys, path.Join(dataDir, metaName), append([]byte(head), body...))
}

// ReadFile reads a whole file of at most limit bytes.
func ReadFile(fsys vfs.FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name, vfs.ReadOnly)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	n, err := f.Size()
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, fmt.Errorf("%s has %d bytes, more than %d: not read", name, n, limit)
	}
	b := make([]byte, n)
	if m, err := f.ReadAt(b, 0); err != nil && (!errors.Is(err, io.EOF) || m != len(b)) {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// WriteFileTwice is WriteFileAtomic of a file's copy and then of the file.
func WriteFileTwice(fsys vfs.FS, name string, content []byte) error {
	if err := WriteFileAtomic(fsys, name+CopySuffix, content); err != nil {
		return err
	}
	return WriteFileAtomic(fsys, name, content)
}

// WriteFileAtomic is ReplaceFile with bytes that are there.
func WriteFileAtomic(fsys vfs.FS, name string, content []byte) error {
	return ReplaceFile(fsys, name, 0, func(f vfs.File) error {
		_, err := f.WriteAt(content, 0)
		return err
	})
}

// ReplaceFile replaces a file by way of a synced temporary one, which write fills, a rename and a sync of the directory. A crash leaves the old or the new content. mode is vfs.Direct or 0.
func ReplaceFile(fsys vfs.FS, name string, mode vfs.Mode, write func(vfs.File) error) error {
	tmp := name + ".tmp"
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.Open(tmp, vfs.ReadWrite|vfs.Create|vfs.Exclusive|mode)
	if err != nil {
		return err
	}
	if err = write(f); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		fsys.Remove(tmp)
		return err
	}
	if err := fsys.Rename(tmp, name); err != nil {
		return err
	}
	return fsys.SyncDir(path.Dir(name))
}
