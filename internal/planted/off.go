//go:build !planted

package planted

// Built says whether bugs can be planted.
const Built = false

// Is says whether the bug is planted: never, in this build.
func Is(Bug) bool { return false }
