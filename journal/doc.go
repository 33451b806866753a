// Package journal is the byte stream: frames in segment files with a window of them in memory.
//
// A journal is one contiguous stream of frames. The write goroutine builds a frame at its end in the JournalCache (append.go, cache.go); the flush goroutine makes
// the stream durable in segment files (flush.go, segment.go, spare.go); a mark beside it remembers how far that went (mark.go); recovery finds the end again (recover.go,
// scan.go). Readers take bytes from the cache or from a segment (read.go).
//
//	data/meta                                     identity, written once
//	data/journal/0/mark                           two slots: the synced end
//	data/journal/0/00000000000000000000.journal   a segment: frames, one behind the other
//	data/journal/0/00000000000000000000.index     its index, once it is full (package index)
//	data/journal/0/spare-3                        a file to become a segment
//
// The format's tables are in docs/format.md. What a crash leaves, operation by operation:
//
//   - a flush: every sector of the range old or new. All of it lies above flushed, so nobody was told.
//   - a segment's naming: the old name or the new one; nothing is placed in it before the directory was synced.
//   - a mark: the slot that is written is torn or whole; the other one is older and sound.
//   - a cut: recorded in the mark first; recovery finishes it before anything else.
//
// The package starts no goroutine and reads no clock. Who may call what is said by each type: Append belongs to the write goroutine, Flush to the flush goroutine,
// Maintain and DropHead to the maintenance goroutine, WriteMark to one goroutine at a time; reading is for anyone.
package journal
