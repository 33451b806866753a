package batch

import (
	"encoding/binary"
	"hash/crc32"
)

// A control batch ends a transaction in one partition: one record, whose key says how (version, type: two int16), and whose value (version int16, coordinator epoch int32) nobody here needs. It is Kafka's
// (clients/src/main/java/org/apache/kafka/common/record/EndTransactionMarker.java).
const (
	controlRecordBytes = 17
	controlBytes       = HeaderBytes + controlRecordBytes
	controlTypeAt      = HeaderBytes + 7
	controlAbort       = 0
	controlCommit      = 1
)

// Control makes the control batch that ends a producer's transaction at a time.
func Control(producerID int64, epoch int16, commit bool, ms int64) []byte {
	b := make([]byte, controlBytes)
	be := binary.BigEndian
	be.PutUint32(b[8:], controlBytes-lengthFrom)
	be.PutUint32(b[12:], ^uint32(0))
	b[16] = 2
	be.PutUint16(b[21:], attrTransactional|attrControl)
	be.PutUint64(b[27:], uint64(ms))
	be.PutUint64(b[35:], uint64(ms))
	be.PutUint64(b[43:], uint64(producerID))
	be.PutUint16(b[51:], uint16(epoch))
	be.PutUint32(b[53:], ^uint32(0)) // no sequence
	be.PutUint32(b[57:], 1)
	r := b[HeaderBytes:]
	r[0] = 2 * (controlRecordBytes - 1) // zigzag: the length behind it; attributes, time and offset delta are 0
	r[4] = 2 * 4                        // the key's length
	if commit {
		be.PutUint16(b[controlTypeAt:], controlCommit)
	}
	r[9] = 2 * 6 // the value's length
	be.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
	return b
}

// Committed says whether a control batch commits; ok: it is one of a kind that is known here.
func Committed(b []byte) (commit, ok bool) {
	if len(b) < controlTypeAt+2 {
		return false, false
	}
	switch binary.BigEndian.Uint16(b[controlTypeAt:]) {
	case controlAbort:
		return false, true
	case controlCommit:
		return true, true
	}
	return false, false
}
