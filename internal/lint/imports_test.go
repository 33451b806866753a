// Package lint has the rules of the house that a compiler does not know, as tests.
package lint

import (
	"bytes"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mayImport is the import table: which of our packages each package may use. Data goes one way: server → pipeline → journal. qos is a leaf, and so is everything under internal.
var mayImport = map[string][]string{
	"internal/vfs":     {},
	"internal/batch":   {},
	"internal/bufpool": {},
	"internal/kwire":   {},
	"internal/planted": {},
	"qos":              {},
	"journal":          {"internal/planted", "internal/vfs"},
	"journal/index":    {"internal/vfs", "journal"},
	"catalog":          {"internal/planted", "internal/batch", "internal/vfs", "journal", "qos"},
	"pipeline":         {"internal/planted", "catalog", "internal/batch", "internal/bufpool", "internal/vfs", "journal", "journal/index", "qos"},
	"server/group":     {},
	"server/kafka":     {"catalog", "internal/batch", "internal/bufpool", "internal/planted", "journal", "pipeline", "qos", "server/group"},
	"server":           {"internal/bufpool", "pipeline", "qos", "server/kafka"},
	"cmd/tidemark": {"catalog", "internal/batch", "internal/kwire", "internal/vfs", "journal", "journal/index", "pipeline", "qos",
		"server", "server/kafka"},
	"scripts/node":        {},
	"scripts/torture":     {"catalog", "internal/batch", "internal/kwire", "internal/planted", "internal/vfs", "journal", "journal/index", "pipeline", "qos", "scripts/node", "server/kafka"},
	"scripts/groups":      {"internal/kwire", "scripts/node"},
	"scripts/waiting":     {"internal/kwire", "internal/vfs", "scripts/node"},
	"scripts/bench":       {"internal/kwire", "scripts/figures", "scripts/node"},
	"scripts/bench-peers": {"scripts/figures", "scripts/node"},
	"scripts/figures":     {},
	"scripts/yardstick":   {"scripts/figures"},
	"scripts/picture":     {},
	"scripts/beside":      {"internal/kwire", "qos", "scripts/node", "server"},
}

// only names the packages of others that are kept to a few of ours: each stands for a rule in the design.
var only = map[string][]string{
	"github.com/rs/zerolog":                          {"server", "cmd/tidemark"},
	"github.com/panjf2000/gnet/v2":                   {"server", "cmd/tidemark"},
	"github.com/twmb/franz-go/pkg/kmsg":              {"server", "server/kafka", "cmd/tidemark", "internal/kwire", "scripts/beside", "scripts/groups", "scripts/torture", "scripts/waiting"},
	"golang.org/x/sys/unix":                          {"internal/vfs", "journal", "server", "cmd/tidemark", "scripts/bench", "scripts/figures", "scripts/torture", "scripts/yardstick"},
	"github.com/prometheus/client_golang/prometheus": {"pipeline", "server", "cmd/tidemark"},
}

// noClock are the packages that may not read a clock. qos has durations, and is handed the time.
var noClock = []string{"journal", "journal/index", "catalog", "qos", "internal/batch"}

// clockUse is how package time reads a clock or waits for one.
var clockUse = regexp.MustCompile(`\btime\.(Now|Since|Until|After|AfterFunc|Sleep|Tick|NewTimer|NewTicker)\b`)

// eachFile parses every file of ours, tests left out.
func eachFile(t *testing.T, fn func(pkg, file string, imports []string)) {
	t.Helper()
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() {
			if strings.HasPrefix(d.Name(), ".") && rel != "." || rel == filepath.Join("scripts", "e2e") || rel == filepath.Join("scripts", "bench-peers", "load") || d.Name() == "node_modules" {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		var imports []string
		for _, i := range f.Imports {
			name, _ := strconv.Unquote(i.Path.Value)
			imports = append(imports, name)
		}
		fn(filepath.ToSlash(filepath.Dir(rel)), rel, imports)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestImportTable(t *testing.T) {
	seen := map[string]bool{}
	eachFile(t, func(pkg, file string, imports []string) {
		seen[pkg] = true
		allowed, known := mayImport[pkg]
		if !known {
			t.Errorf("%s: package %s is not in the import table", file, pkg)
			return
		}
		for _, name := range imports {
			if ours, ok := strings.CutPrefix(name, "tidemark/"); ok && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s, which the import table does not allow", file, ours)
			}
			if users, ok := only[name]; ok && !slices.Contains(users, pkg) {
				t.Errorf("%s imports %s, which is kept to %v", file, name, users)
			}
		}
		if slices.Contains(noClock, pkg) {
			b, err := os.ReadFile(filepath.Join("..", "..", file))
			if err != nil {
				t.Fatal(err)
			}
			if use := clockUse.Find(b); use != nil {
				t.Errorf("%s uses %s: package %s reads no clock", file, use, pkg)
			}
		}
	})
	for pkg := range mayImport {
		if !seen[pkg] {
			t.Errorf("the import table has package %s, which is not there", pkg)
		}
	}
}

// maxLines is how long a file may grow before it is two things.
const maxLines = 600

func TestFilesAreReadableInOneSitting(t *testing.T) {
	eachFile(t, func(_, file string, _ []string) {
		n := lines(t, filepath.Join("..", "..", file))
		if n > maxLines {
			t.Errorf("%s has %d lines, more than %d: split it by meaning", file, n, maxLines)
		}
	})
}

func lines(t *testing.T, file string) int {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(b, []byte{'\n'})
}
