package kafka

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"strings"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"tidemark/catalog"
	"tidemark/internal/batch"
	"tidemark/journal"
	"tidemark/pipeline"
	"tidemark/qos"
)

// sentinels are the exported errors of the packages below, by package directory. Those under never cannot come to a client: the reason is beside each.
var sentinels = map[string]struct {
	mapped map[string]error
	never  map[string]string
}{
	"../../pipeline": {mapped: map[string]error{
		"ErrBusy": pipeline.ErrBusy, "ErrTimedOut": pipeline.ErrTimedOut, "ErrExpired": pipeline.ErrExpired, "ErrNoSpace": pipeline.ErrNoSpace, "ErrTooLarge": pipeline.ErrTooLarge,
		"ErrFailed": pipeline.ErrFailed, "ErrClosed": pipeline.ErrClosed, "ErrDeleted": pipeline.ErrDeleted, "ErrOutOfRange": pipeline.ErrOutOfRange, "ErrTerm": pipeline.ErrTerm, "ErrCommand": pipeline.ErrCommand,
	}, never: map[string]string{"ErrProfiling": "it is for the admin listener"}},
	"../../catalog": {mapped: map[string]error{
		"ErrTopicExists": catalog.ErrTopicExists, "ErrUnknownTopic": catalog.ErrUnknownTopic, "ErrUnknownPartition": catalog.ErrUnknownPartition, "ErrPartitionCount": catalog.ErrPartitionCount,
		"ErrOffsetRange": catalog.ErrOffsetRange, "ErrTooMany": catalog.ErrTooMany, "ErrOutOfOrder": catalog.ErrOutOfOrder, "ErrFenced": catalog.ErrFenced,
		"ErrUnknownGroup": catalog.ErrUnknownGroup, "ErrOffsetsBytes": catalog.ErrOffsetsBytes,
		"ErrUnknownProducer": catalog.ErrUnknownProducer, "ErrTxnState": catalog.ErrTxnState, "ErrTxnChanged": catalog.ErrTxnChanged, "ErrTxnBytes": catalog.ErrTxnBytes,
	}},
	"../../internal/batch": {
		mapped: map[string]error{
			"ErrEmpty": batch.ErrEmpty, "ErrMagic": batch.ErrMagic, "ErrLength": batch.ErrLength, "ErrCount": batch.ErrCount, "ErrCRC": batch.ErrCRC, "ErrCodec": batch.ErrCodec,
			"ErrSequence": batch.ErrSequence, "ErrTimestamp": batch.ErrTimestamp, "ErrControl": batch.ErrControl, "ErrRecord": batch.ErrRecord, "ErrUnpacked": batch.ErrUnpacked,
		},
	},
	"../../qos": {mapped: map[string]error{
		"ErrPolicy": qos.ErrPolicy, "ErrPolicyTie": qos.ErrPolicyTie, "ErrNoPolicy": qos.ErrNoPolicy, "ErrPolicyKnown": qos.ErrPolicyKnown, "ErrPolicies": qos.ErrPolicies,
	}},
	"../../journal": {
		mapped: map[string]error{"ErrGone": journal.ErrGone},
		never: map[string]string{
			"ErrNoSegment": "the write stage waits, or refuses with pipeline.ErrNoSpace", "ErrCacheFull": "the write stage waits", "ErrCachePinned": "the write stage waits",
		},
	},
}

func TestEverySentinelHasACode(t *testing.T) {
	used := map[error]bool{}
	for dir, s := range sentinels {
		found := exportedErrors(t, dir)
		for name := range s.mapped {
			if !found[name] {
				t.Errorf("%s: %s is listed here and not declared there", dir, name)
			}
		}
		for name := range found {
			err := s.mapped[name]
			if err == nil {
				if s.never[name] == "" {
					t.Errorf("%s: %s is new: give it a code in errors.go, or say here why it never reaches a client", dir, name)
				}
				continue
			}
			used[err] = true
			code := Code(fmt.Errorf("partition 3: %w", err))
			if code == 0 || code == kerr.UnknownServerError.Code || kerr.ErrorForCode(code) == kerr.ThrottlingQuotaExceeded || code != Code(err) {
				t.Errorf("%s: %s has code %d, wrapped %d", dir, name, Code(err), code)
			}
		}
	}
	for _, row := range codes {
		if !used[row.err] {
			t.Errorf("%q has a code and is not listed here", row.err)
		}
	}
	for err, want := range map[error]*kerr.Error{
		&journal.CorruptError{}:                                  kerr.KafkaStorageError,
		&pipeline.MismatchError{Partition: &catalog.Partition{}}: kerr.KafkaStorageError,
		&fs.PathError{Op: "read", Path: "x", Err: syscall.EIO}:   kerr.KafkaStorageError,
		errors.New("any other"):                                  kerr.UnknownServerError,
	} {
		if got := Code(fmt.Errorf("wrapped: %w", err)); got != want.Code {
			t.Errorf("%T: code %d, want %d", err, got, want.Code)
		}
	}
	if Code(nil) != 0 {
		t.Error("nil has a code")
	}
}

// exportedErrors reads the names of a package's variables that begin with Err.
func exportedErrors(t *testing.T, dir string) map[string]bool {
	t.Helper()
	notTest := func(f fs.FileInfo) bool { return !strings.HasSuffix(f.Name(), "_test.go") }
	pkgs, err := parser.ParseDir(token.NewFileSet(), dir, notTest, parser.SkipObjectResolution)
	if err != nil || len(pkgs) != 1 {
		t.Fatalf("%s: %d packages, %v", dir, len(pkgs), err)
	}
	found := map[string]bool{}
	for pkg := range maps.Values(pkgs) {
		for file := range maps.Values(pkg.Files) {
			for _, d := range file.Decls {
				decl, ok := d.(*ast.GenDecl)
				if !ok || decl.Tok != token.VAR {
					continue
				}
				for _, spec := range decl.Specs {
					for _, name := range spec.(*ast.ValueSpec).Names {
						if strings.HasPrefix(name.Name, "Err") {
							found[name.Name] = true
						}
					}
				}
			}
		}
	}
	return found
}
