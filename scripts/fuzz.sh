#!/usr/bin/env bash
# Runs every fuzz target of the module for a while: fuzz.sh [BUDGET each, default 10s].
# A budget is a time (10s) or a number of inputs (20000x). CI gives a number: with a time, Go up to 1.26 may end a
# target that found nothing with "context deadline exceeded", when its coordinator's deadline passes while a worker
# is still at an input (golang/go#75804).
set -euo pipefail
cd "$(dirname "$0")/.."
each=${1:-10s}
count=0
while IFS=: read -r file _ rest; do
  target=$(sed -E 's/^func (Fuzz[A-Za-z0-9]+).*/\1/' <<<"$rest")
  echo "fuzz $target in $(dirname "$file") for $each"
  go test -run '^$' -fuzz "^$target\$" -fuzztime "$each" "./$(dirname "$file")"
  count=$((count + 1))
done < <(git ls-files '*_test.go' | grep -v '^scripts/e2e/' | xargs grep -n '^func Fuzz')
echo "$count passed, 0 failed"
