// Package catalog is what the journal says the world is: topics, their partitions and settings, and producer ids.
//
// It is one state machine. Commands (command.go) are journal records, written at level ALL and applied in order behind committed (catalog.go);
// they carry intent, and ids are allotted when they are applied, so every node that applies the same journal comes to the same state. A snapshot (snapshot.go) bounds
// how much of the journal is applied again at start.
//
// The apply goroutine alone changes the catalog. Everyone else reads a View: an immutable picture that is swapped as a whole. A Partition is the exception: it is shared by
// the stages, and each of its fields says whose it is (partition.go).
package catalog
