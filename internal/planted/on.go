//go:build planted

package planted

import "os"

// Built says whether bugs can be planted.
const Built = true

var active = Bug(os.Getenv(Variable))

// Is says whether the bug is planted.
func Is(b Bug) bool { return b == active }
