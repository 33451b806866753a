package catalog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"
	"slices"

	"github.com/fxamacker/cbor/v2"

	"tidemark/internal/vfs"
	"tidemark/journal"
	"tidemark/qos"
)

// The snapshot file: magic "TDMC", version u32, body bytes u64, body CRC-32C u32, header CRC-32C u32 over the 20 bytes before it, all little-endian, and
// the body as CBOR.
const (
	snapshotName        = "catalog.snapshot"
	snapshotMagic       = "TDMC"
	snapshotVersion     = 4 // 1 knew no policies, 2 no groups, 3 no transactions
	snapshotHeaderBytes = 24
	maxSnapshotBytes    = 4 << 30
)

type snapshot struct {
	Offset          journal.Offset  `cbor:"1,keyasint"`
	NextPartitionID uint32          `cbor:"2,keyasint"`
	NextProducerID  int64           `cbor:"3,keyasint"`
	Topics          []snapshotTopic `cbor:"4,keyasint"`
	Policies        []*qos.Policy   `cbor:"5,keyasint,omitempty"`
	PolicyNames     []string        `cbor:"6,keyasint,omitempty"`
	Groups          []snapshotGroup `cbor:"7,keyasint,omitempty"`
	Txns            []snapshotTxn   `cbor:"8,keyasint,omitempty"`
}

type snapshotTopic struct {
	ID         TopicID             `cbor:"1,keyasint"`
	Name       string              `cbor:"2,keyasint"`
	Config     map[string]string   `cbor:"3,keyasint,omitempty"`
	Partitions []snapshotPartition `cbor:"4,keyasint"`
}

type snapshotPartition struct {
	ID        uint32                `cbor:"1,keyasint"`
	Next      journal.LogicalOffset `cbor:"2,keyasint"`
	LogStart  journal.LogicalOffset `cbor:"3,keyasint"`
	Epochs    []EpochStart          `cbor:"4,keyasint,omitempty"`
	Producers []snapshotProducer    `cbor:"5,keyasint,omitempty"`
	Open      []openTxn             `cbor:"6,keyasint,omitempty"`
	Aborted   []Aborted             `cbor:"7,keyasint,omitempty"`
}

type snapshotProducer struct {
	ID     int64    `cbor:"1,keyasint"`
	Epoch  int16    `cbor:"2,keyasint"`
	LastMs int64    `cbor:"3,keyasint"`
	Recent []Placed `cbor:"4,keyasint"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode lays out the whole catalog. Apply goroutine only. Producers that wrote nothing since expireBeforeMs are forgotten.
func (c *Catalog) Encode(expireBeforeMs int64) ([]byte, error) {
	s := snapshot{Offset: c.offset, NextPartitionID: c.nextPartitionID, NextProducerID: c.nextProducerID,
		Policies: c.View().Policies.All(), PolicyNames: c.View().policyNames, Groups: c.groups.snapshot(), Txns: c.txns.snapshot()}
	for _, t := range c.View().Topics {
		st := snapshotTopic{ID: t.ID, Name: t.Name, Config: t.Config}
		for _, p := range t.Partitions {
			p.appliedSeq.Expire(expireBeforeMs)
			st.Partitions = append(st.Partitions, p.snapshot(c))
		}
		s.Topics = append(s.Topics, st)
	}
	slices.SortFunc(s.Topics, func(a, b snapshotTopic) int { return slices.Compare(a.ID[:], b.ID[:]) })
	body, err := cbor.Marshal(s)
	if err != nil {
		return nil, err
	}
	b := make([]byte, snapshotHeaderBytes, snapshotHeaderBytes+len(body))
	copy(b, snapshotMagic)
	le := binary.LittleEndian
	le.PutUint32(b[4:], snapshotVersion)
	le.PutUint64(b[8:], uint64(len(body)))
	le.PutUint32(b[16:], crc32.Checksum(body, castagnoli))
	le.PutUint32(b[20:], crc32.Checksum(b[:20], castagnoli))
	return append(b, body...), nil
}

func (p *Partition) snapshot(c *Catalog) snapshotPartition {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.txns.aborted.Add(int64(-p.forgetAborted()))
	sp := snapshotPartition{ID: p.ID, Next: p.HighWatermark(), LogStart: p.LogStart(), Epochs: slices.Clone(p.epochs), Open: slices.Clone(p.txns.open), Aborted: slices.Clone(p.txns.aborted)}
	for id, pr := range p.appliedSeq.m {
		sp.Producers = append(sp.Producers, snapshotProducer{ID: id, Epoch: pr.epoch, LastMs: pr.lastMs, Recent: slices.Clone(pr.recent[:pr.n])})
	}
	slices.SortFunc(sp.Producers, func(a, b snapshotProducer) int { return int(min(max(a.ID-b.ID, -1), 1)) })
	return sp
}

// Save makes an encoded snapshot durable in a data directory: its copy, and then itself in one step.
func Save(fsys vfs.FS, dataDir string, encoded []byte) error {
	return journal.WriteFileTwice(fsys, path.Join(dataDir, snapshotName), encoded)
}

// Load reads the snapshot of a data directory; without one the catalog is empty and stands at 0. A damaged one is a journal.CorruptError: what it held may no
// longer be in the journal.
func Load(fsys vfs.FS, dataDir string) (*Catalog, error) {
	c, _, err := load(fsys, path.Join(dataDir, snapshotName))
	if errors.Is(err, fs.ErrNotExist) {
		return New(), nil
	}
	return c, err
}

var errVersion = errors.New("version is unknown to this build")

func load(fsys vfs.FS, name string) (c *Catalog, encoded []byte, err error) {
	b, err := journal.ReadFile(fsys, name, maxSnapshotBytes)
	if err != nil {
		return nil, nil, err
	}
	if c, err = Decode(b); errors.Is(err, errVersion) { // sound, for another build
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	} else if err != nil {
		return nil, nil, &journal.CorruptError{Segment: -1, File: name, Cause: err.Error()}
	}
	return c, b, nil
}

// CheckCopy says what is wrong with the copy of a snapshot that there is.
func CheckCopy(fsys vfs.FS, dataDir string) error {
	_, _, err := load(fsys, path.Join(dataDir, snapshotName+journal.CopySuffix))
	return err
}

// Repair loads a snapshot that may be damaged or missing, else its copy, else, if whole says that the journal has everything from its beginning, none. mended says what it did with the file, with write, or would do.
func Repair(fsys vfs.FS, dataDir string, whole, write bool) (c *Catalog, mended string, err error) {
	name := path.Join(dataDir, snapshotName)
	c, _, err = load(fsys, name)
	missing := errors.Is(err, fs.ErrNotExist)
	if !missing && !errors.As(err, new(*journal.CorruptError)) { // sound, or of a newer build, or not to be read now
		return c, "", err
	}
	c, encoded, cerr := load(fsys, name+journal.CopySuffix)
	switch {
	case cerr == nil:
		if write {
			cerr = Save(fsys, dataDir, encoded)
		}
		return c, fmt.Sprintf("%s is taken from its copy: %v", name, err), cerr
	case !whole:
		return nil, "", &journal.CorruptError{Segment: -1, File: name, Cause: fmt.Sprintf("%v; its copy: %v; and the journal does not go back to its beginning", err, cerr)}
	case missing && errors.Is(cerr, fs.ErrNotExist): // none was taken yet, or it can be done without
		return New(), "", nil
	}
	if write && !missing {
		if rerr := fsys.Remove(name); rerr != nil {
			return nil, "", rerr
		}
		if serr := fsys.SyncDir(dataDir); serr != nil {
			return nil, "", serr
		}
	}
	return New(), fmt.Sprintf("%s is made anew by the next start, from the journal, which nothing was dropped of: %v", name, err), nil
}

// Decode reads an encoded snapshot.
func Decode(b []byte) (*Catalog, error) {
	le := binary.LittleEndian
	if len(b) < snapshotHeaderBytes || string(b[:4]) != snapshotMagic {
		return nil, errors.New("not a catalog snapshot")
	}
	if crc32.Checksum(b[:20], castagnoli) != le.Uint32(b[20:]) {
		return nil, errors.New("snapshot header checksum mismatch")
	}
	if v := le.Uint32(b[4:]); v < 1 || v > snapshotVersion {
		return nil, fmt.Errorf("snapshot %w: %d, up to %d are known: use a newer tidemark", errVersion, v, snapshotVersion)
	}
	body := b[snapshotHeaderBytes:]
	if le.Uint64(b[8:]) != uint64(len(body)) || crc32.Checksum(body, castagnoli) != le.Uint32(b[16:]) {
		return nil, errors.New("snapshot body checksum mismatch")
	}
	return decodeBody(body)
}

func decodeBody(body []byte) (*Catalog, error) {
	var s snapshot
	if err := decoder.Unmarshal(body, &s); err != nil {
		return nil, err
	}
	c := New()
	c.offset, c.nextPartitionID, c.nextProducerID = s.Offset, s.NextPartitionID, s.NextProducerID
	for _, st := range s.Topics {
		if err := c.restore(st); err != nil {
			return nil, err
		}
	}
	for _, p := range s.Policies {
		if p == nil {
			return nil, errors.New("a policy is missing")
		}
		if res := c.setPolicy(&SetPolicy{Policy: *p}); res.Err != nil {
			return nil, res.Err
		}
	}
	if len(s.PolicyNames) > maxPolicyNames+qos.MaxPolicies {
		return nil, fmt.Errorf("%d names of policies", len(s.PolicyNames))
	}
	for _, x := range s.Txns {
		if !c.txns.restore(x, c.partitions) {
			return nil, fmt.Errorf("transactional id %q is not possible", x.Txn.ID)
		}
	}
	for _, sg := range s.Groups {
		for _, o := range sg.Offsets {
			if t := c.View().ByID[o.Topic]; t == nil || o.Index < 0 || int(o.Index) >= len(t.Partitions) || o.Offset < 0 {
				return nil, fmt.Errorf("group %q: offset %d of partition %d is not possible", sg.Name, o.Offset, o.Index)
			}
			c.groups.set(sg.Name, o.Topic, o.Index, Committed{o.Offset, o.LeaderEpoch, o.Metadata, o.AtMs})
		}
	}
	v := c.change()
	v.policyNames = s.PolicyNames
	c.view.Store(v)
	return c, nil
}

func (c *Catalog) restore(st snapshotTopic) error {
	res := c.createTopic(&CreateTopic{Name: st.Name, ID: st.ID, Config: st.Config})
	if res.Err != nil {
		return fmt.Errorf("topic %q: %w", st.Name, res.Err)
	}
	t := res.Topic
	for i, sp := range st.Partitions {
		if sp.ID == 0 || sp.ID >= c.nextPartitionID || c.partitions[sp.ID] != nil || sp.LogStart > sp.Next {
			return fmt.Errorf("topic %q partition %d is not possible", st.Name, i)
		}
		p := &Partition{ID: sp.ID, TopicID: st.ID, Topic: st.Name, Index: int32(i), epochs: sp.Epochs}
		p.logStart.Store(int64(sp.LogStart))
		p.highWatermark.Store(int64(sp.Next))
		p.txns = partitionTxns{open: sp.Open, aborted: sp.Aborted}
		c.txns.aborted.Add(int64(len(sp.Aborted)))
		p.unstable.Store(-1)
		if len(sp.Open) > 0 {
			p.unstable.Store(int64(sp.Open[0].First))
		}
		for _, pr := range sp.Producers {
			if len(pr.Recent) == 0 || len(pr.Recent) > keptBatches {
				return fmt.Errorf("topic %q partition %d: producer %d with %d batches", st.Name, i, pr.ID, len(pr.Recent))
			}
			one := &producer{epoch: pr.Epoch, lastMs: pr.LastMs, n: uint8(len(pr.Recent))}
			copy(one.recent[:], pr.Recent)
			if p.appliedSeq.m == nil {
				p.appliedSeq.m = make(map[int64]*producer)
			}
			p.appliedSeq.m[pr.ID] = one
		}
		c.partitions[p.ID] = p
		t.Partitions = append(t.Partitions, p) // not published to anyone yet
	}
	return nil
}
