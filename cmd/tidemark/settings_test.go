package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tidemark/server/kafka"
)

// A setting without a value is no text "<nil>": a server on a directory of that name would look as if everything were lost.
func TestSettingWithoutValue(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	for _, key := range []string{"data.dir", "admin.listen", "journal.segment.bytes"} {
		if err := os.WriteFile(file, []byte(key+":\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := loadSettings(file, nil, nil); err == nil || !strings.HasPrefix(err.Error(), key+": no value") {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// A batch that is allowed fits into a request that is, whatever the segments' size makes of both.
func TestBatchFitsRequest(t *testing.T) {
	for _, flags := range []map[string]string{
		nil, {"journal.segment.bytes": "1MiB", "journal.cache.bytes": "4MiB"}, {"journal.segment.bytes": "8MiB"}, {"request.max": "2MiB"}, {"request.max": "8KiB"},
	} {
		s, err := loadSettings("", nil, flags)
		if err != nil {
			t.Fatalf("%v: %v", flags, err)
		}
		if s.MaxMessageBytes+kafka.RequestRoom > s.RequestMax || s.MaxMessageBytes < 4096 {
			t.Errorf("%v: batches of %d bytes, requests of %d", flags, s.MaxMessageBytes, s.RequestMax)
		}
	}
	for _, flags := range []map[string]string{{"request.max": "8191"}, {"request.max": "2MiB", "max.message.bytes": "2MiB"}} {
		if _, err := loadSettings("", nil, flags); err == nil || !strings.Contains(err.Error(), "request") {
			t.Errorf("%v: %v", flags, err)
		}
	}
}
