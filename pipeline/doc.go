// Package pipeline takes a request to its acknowledgement: one stage a file, one goroutine a stage, watermarks between them.
//
//	submitters         admit.go        write.go           flush.go ──────► flushed ──┐
//	(IO goroutines) ─► admission ────► serialize ──┬────► pwritev2, synced           │ respond.go
//	                   queue           into the    │                                 ├─► pending callbacks ─► Owner.Answer
//	                                   JournalCache└────► replicate.go ──► replicated┤   (by marks)
//	                                   written ►                           committed─┤
//	                                                                                 └► follow.go ─► index.go: indexed ─► read.go
//	                                                                                               apply.go: applied
//	beside the path:   mark.go (the mark file)   upkeep.go (segments, spares, index files, snapshots, retention)
//
// The goroutines:
//
//	stage    owns                                     reads              advances                        wakes
//	write    Journal.Append, Partition.Next and .Seq  admission queues   written, replicated             flush; respond, for callbacks that need no flush; upkeep, for a segment
//	flush    Journal.Flush                            written            flushed, committed              respond, follow, mark; write, if it waits
//	respond  pending callbacks                        all watermarks     –                               owners (Answer), connections (Wake)
//	follow   the catalog, the index's tail            committed          indexed, applied                respond, for commands; fetches; write, if it waits; upkeep
//	mark     the mark file                            flushed            marked                          –
//	upkeep   segments and spares, index files         written, indexed   log start                       write, if it waits
//
// Beside the watermarks, the write stage leaves the follow stage a note of each frame's batches (placed.go), and the flush stage leaves the respond stage the times of its flushes (times.go).
//
// A watermark moves before its readers are woken, and a request is with the respond stage before written passes it: so a wake-up that finds nothing to do is
// possible, a request that nobody looks at is not. A stage that waits for another raises a flag and looks again before it sleeps.
//
// What is not done: no stage calls into the next one, since a slow disk or a slow client would then hold up those who wait for neither; and there is no wake-up for each message, only one
// for each turn. Two exceptions, which wait for neither: the flush goroutine runs respond's turn itself when nothing more waits for a flush (ADR 10), and a submitter that brings much runs write's turn (ADR 13).
//
// After a failed write or sync of the journal or the mark (Pipeline.fatal) every stage ends, what is pending is failed, and the process is expected to stop.
package pipeline
