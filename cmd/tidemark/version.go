package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// VersionCmd is `tidemark version`.
type VersionCmd struct{}

// Help is kong's detailed help.
func (VersionCmd) Help() string {
	return "Prints one line.\n\nExample:\n\n    tidemark version"
}

// Run prints what the build recorded.
func (VersionCmd) Run(e *env) error {
	info, _ := debug.ReadBuildInfo()
	_, err := fmt.Fprintln(e.stdout, versionLine(info))
	return err
}

// versionLine is "tidemark VERSION[ (revision REV[, modified])] GO OS/ARCH". info may be nil.
func versionLine(info *debug.BuildInfo) string {
	version, revision := "(devel)", ""
	if info != nil {
		if info.Main.Version != "" {
			version = info.Main.Version
		}
		settings := make(map[string]string, len(info.Settings))
		for _, s := range info.Settings {
			settings[s.Key] = s.Value
		}
		if rev := settings["vcs.revision"]; rev != "" {
			revision = " (revision " + rev
			if settings["vcs.modified"] == "true" {
				revision += ", modified"
			}
			revision += ")"
		}
	}
	return fmt.Sprintf("tidemark %s%s %s %s/%s", version, revision, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
