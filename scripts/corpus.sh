#!/usr/bin/env bash
# Keeps what fuzzing found in the tree: the inputs that took each decoder a new way, the smallest first. corpus.sh [at most N a target, default 40]. Run it after scripts/fuzz.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
most=${1:-40}
found="$(go env GOCACHE)/fuzz/$(go list -m)"
while IFS=: read -r file _ rest; do
  target=$(sed -E 's/^func (Fuzz[A-Za-z0-9]+).*/\1/' <<<"$rest")
  from="$found/$(dirname "$file")/$target" to="$(dirname "$file")/testdata/fuzz/$target"
  [ -d "$from" ] || continue
  mkdir -p "$to"
  find "$from" -type f -size -5k -printf '%s %p\n' | sort -n | sed -n "1,${most}p" | cut -d' ' -f2- | xargs -r cp -t "$to"
  echo "$to: $(find "$to" -type f | wc -l) inputs"
done < <(git ls-files '*_test.go' | grep -v '^scripts/e2e/' | xargs grep -n '^func Fuzz')
