#!/usr/bin/env bash
# End-to-end test: a real server on a real disk, real Kafka clients against it. See README.md beside this file.
#
#   bash scripts/e2e/run.sh [--quick] [--keep] [--only REGEXP] [--set KEY=VALUE]...
#
# This file is the driver: it gets the tools, builds, starts the server, runs the cases and counts. What a case does is in cases.sh.
set -euo pipefail
export LC_ALL=C # sort, awk and head must see bytes, not characters

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
case_timeout=300
start_timeout=60
stop_timeout=60

quick=false keep=false only='' settings=()
passed=0 failed=0 server_pid='' case_pid='' work=''

usage() {
  cat <<'TXT'
usage: run.sh [--quick] [--keep] [--only REGEXP] [--set KEY=VALUE]...
  --quick        50,000 lines and fewer combinations, for CI
  --keep         leave the work directory (data, logs) behind and say where it is
  --only REGEXP  run only the cases whose name matches
  --set K=V      give the server a setting, as its --set does: server.transport=net
TXT
}

say() { printf '%s\n' "$*" >&2; }
die() { say "e2e: $*"; exit 1; }

parse_arguments() {
  while (($# > 0)); do
    case $1 in
      --quick) quick=true ;;
      --keep) keep=true ;;
      --only) only=${2:?--only needs a regular expression}; shift ;;
      --set) settings+=(--set "${2:?--set needs KEY=VALUE}"); shift ;;
      -h | --help) usage; exit 0 ;;
      *) usage >&2; die "unknown argument: $1" ;;
    esac
    shift
  done
}

# --- tools ---

# need COMMAND PACKAGE... installs Debian's packages if the command is not there.
need() {
  local command=$1
  shift
  command -v "$command" >/dev/null && return
  say "e2e: $command is missing, installing $*"
  local sudo=()
  ((EUID == 0)) || sudo=(sudo)
  if [[ ! -e $work/apt-updated ]]; then # a fresh machine has no package lists at all
    "${sudo[@]}" apt-get update >"$work/apt.log" 2>&1 || say "e2e: apt-get update failed, trying without"
    : >"$work/apt-updated"
  fi
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y --no-install-recommends "$@" >>"$work/apt.log" 2>&1 ||
    { tail -n 20 "$work/apt.log" >&2; die "cannot install $*"; }
}

get_tools() {
  command -v go >/dev/null || die "Go is needed"
  need gcc gcc libc6-dev # confluent-kafka-go is cgo around a static librdkafka
  need kcat kcat
  need node nodejs npm
  need npm npm
}

build() {
  say "e2e: building"
  export E2E_TIDEMARK=$work/bin/tidemark E2E_CLIENTS=$work/bin/clients
  (cd "$root" && go build -o "$E2E_TIDEMARK" ./cmd/tidemark)
  (cd "$here/clients" && CGO_ENABLED=1 go build -o "$E2E_CLIENTS" .)
  (cd "$here/kafkajs" && npm ci --ignore-scripts --no-audit --no-fund) >"$work/npm.log" 2>&1 ||
    { tail -n 20 "$work/npm.log" >&2; die "npm ci failed"; }
  export E2E_KAFKAJS=$here/kafkajs
  get_java
}

# get_java gets the Java client's jars, if there are Java and Maven. Without them its cases are named as missing.
get_java() {
  java_missing=''
  if ! command -v java javac mvn >/dev/null; then
    java_missing="no Java compiler or no Maven here"
    return
  fi
  export E2E_JAVA=$work/java
  cp -r "$here/java" "$E2E_JAVA"
  (cd "$E2E_JAVA" && mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies -DoutputDirectory=lib) >"$work/mvn.log" 2>&1 ||
    java_missing="its jars cannot be had: $(grep -m1 ERROR "$work/mvn.log")"
}

# make_input writes the Go source tree as one file whose every line starts with its number: no line is blank, which kcat would drop, and
# the number tells order and loss. One line of that tree is longer than the megabyte that clients and broker take by default: left out.
# Null bytes, because awk may end a line there.
make_input() {
  export E2E_INPUT=$work/input.txt
  local source limit
  source=$(go env GOROOT)/src
  if $quick; then limit=50000; else limit=0; fi
  find "$source" -type f -name '*.go' -print0 >"$work/files"
  if (($(xargs -0 cat <"$work/files" | wc -l) < 500000)); then
    find "$source" -type f \( -name '*.go' -o -name '*.s' -o -name '*.txt' \) -print0 >"$work/files"
  fi
  sort -z "$work/files" | xargs -0 cat | tr -d '\000' |
    awk -v limit="$limit" 'length($0) < 900000 && (!limit || n < limit) { print ++n " " $0 }' >"$E2E_INPUT"
  E2E_LINES=$(wc -l <"$E2E_INPUT")
  export E2E_LINES
  ((limit > 0 || E2E_LINES >= 500000)) || die "the Go source tree has only $E2E_LINES lines"
  say "e2e: input is $E2E_LINES lines, $(wc -c <"$E2E_INPUT") bytes"
}

# --- server ---

start_server() { # [ADDRESS]
  local log=$work/server.log deadline=$((SECONDS + start_timeout)) line=''
  "$E2E_TIDEMARK" serve --data-dir "$work/data" --listen "${1:-127.0.0.1:0}" --admin-listen 127.0.0.1:0 --set group.session.min=1s --set group.consumer.heartbeat=500ms --set group.consumer.session=3s "${settings[@]}" \
    2>"$log" >"$work/server.out" &
  server_pid=$!
  until line=$(grep -m1 '"message":"listening"' "$log"); do
    server_runs || { tail -n 20 "$log" >&2; die "the server ended at its start"; }
    ((SECONDS < deadline)) || { tail -n 20 "$log" >&2; die "the server did not say \"listening\" within $start_timeout s"; }
    sleep 0.05 # between two looks at the log
  done
  [[ $line =~ \"listen\":\"([^\"]+)\" ]] || die "no address in: $line"
  export E2E_BOOTSTRAP=${BASH_REMATCH[1]}
  say "e2e: server $server_pid listens on $E2E_BOOTSTRAP"
}

server_runs() { [[ -n $server_pid ]] && kill -0 "$server_pid" 2>/dev/null; }

# stop_server asks the server to end, and says in its status whether it did so in time and with exit code 0.
stop_server() {
  local pid=$server_pid deadline=$((SECONDS + stop_timeout)) code=0
  kill -TERM "$pid" 2>/dev/null || true
  while kill -0 "$pid" 2>/dev/null; do
    if ((SECONDS >= deadline)); then
      say "e2e: the server did not stop within $stop_timeout s, killing it"
      kill -KILL "$pid" 2>/dev/null || true
      break
    fi
    sleep 0.05
  done
  wait "$pid" || code=$?
  server_pid=''
  return "$code"
}

# shellcheck disable=SC2317 # the trap calls it
clean_up() {
  [[ -z $case_pid ]] || kill "$case_pid" 2>/dev/null || true
  [[ -z $server_pid ]] || stop_server || true
  if [[ -z $work ]]; then
    return
  elif $keep; then
    say "e2e: kept $work"
  else
    rm -rf "$work"
  fi
}

# --- cases ---

report() { # ok|FAIL NAME FIGURES...
  if [[ $1 == ok ]]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
  printf '%-4s %-34s %s\n' "$1" "$2" "${*:3}"
}

# try NAME FUNCTION [ARGUMENT...] runs one case of cases.sh under the time limit. Its last line of output is its figures.
try() {
  local name=$1 begin=$SECONDS code=0
  shift
  [[ $name =~ $only ]] || return 0
  export E2E_CASE=$name E2E_SCRATCH=$work/case/$name
  local out=$work/log/$name.out err=$work/log/$name.err
  mkdir -p "$E2E_SCRATCH" "$work/log"
  timeout --kill-after=10 "$case_timeout" bash "$here/cases.sh" "$@" >"$out" 2>"$err" </dev/null &
  case_pid=$! # in the background, so that Ctrl-C is heard at once
  wait "$case_pid" || code=$?
  case_pid=''
  if ((code == 0)); then
    report ok "$name" "$(tail -n 1 "$out")"
  else
    local why
    why=$(grep -v '^% Reached end of topic' "$err" | tail -n 1)
    ((code != 124 && code != 137)) || why="no end after $case_timeout s${why:+; $why}"
    report FAIL "$name" "${why:-exit code $code} ($((SECONDS - begin)) s)"
    tail -n 8 "$err" | sed 's/^/     | /' >&2
  fi
  rm -rf "$E2E_SCRATCH" # each holds copies of the input
  if [[ -n $server_pid ]] && ! server_runs; then
    tail -n 20 "$work/server.log" | sed 's/^/     | /' >&2
    report FAIL server "it ended during $name"
    finish
  fi
}

cases_kcat() {
  local codec
  for codec in none gzip snappy lz4 zstd; do
    try "kcat-1-$codec-plain" kcat_one_partition "$codec" false
    try "kcat-1-$codec-idempotent" kcat_one_partition "$codec" true
    if ! $quick || [[ $codec == none ]]; then try "kcat-4-$codec-plain" kcat_four_partitions "$codec" false; fi
    if ! $quick || [[ $codec == zstd ]]; then try "kcat-4-$codec-idempotent" kcat_four_partitions "$codec" true; fi
  done
}

cases_kcat_queries() {
  local codec
  try kcat-list kcat_list
  for codec in none gzip snappy lz4 zstd; do
    try "kcat-offset-for-time-$codec" kcat_offset_for_time "kcat-1-$codec-plain"
  done
}

cases_acks() {
  local acks
  for acks in 0 1 -1 101 102 103 104; do
    try "acks-${acks/#-/minus-}" kcat_acks "$acks"
  done
}

cases_go_clients() {
  local franz=100000 others=50000
  if $quick; then franz=20000 others=10000; fi
  try franz-go-default go_client franz 4 "$franz" --codec default
  try franz-go-auto-create go_client franz auto "$franz" --codec default --auto-create
  try confluent-none-plain go_client confluent 4 "$others" --codec none
  try confluent-zstd-idempotent go_client confluent 4 "$others" --codec zstd --idempotent
  try sarama-none-plain go_client sarama 4 "$others" --codec none
  try sarama-lz4-idempotent go_client sarama 4 "$others" --codec lz4 --idempotent
  try segmentio-none-plain go_client segmentio 4 "$others" --codec none
  try segmentio-snappy-plain go_client segmentio 4 "$others" --codec snappy
}

cases_kafkajs() {
  local count=20000
  if $quick; then count=5000; fi
  try kafkajs-none-plain kafkajs "$count" --codec none
  try kafkajs-none-idempotent kafkajs "$count" --codec none --idempotent
  try kafkajs-gzip-plain kafkajs "$count" --codec gzip
  try kafkajs-gzip-idempotent kafkajs "$count" --codec gzip --idempotent
  try kafkajs-acks102 kafkajs "$count" --codec none --acks 102
}

# cases_groups kills the server once all groups have committed, and has them go on behind that.
cases_groups() {
  local kind kinds=(kcat franz franz-848 confluent confluent-848 sarama segmentio kafkajs java java-848)
  if [[ -n $java_missing ]]; then
    printf '%-4s %-34s %s\n' MISS group-java "$java_missing"
    unset 'kinds[8]' 'kinds[9]'
  fi
  for kind in "${kinds[@]}"; do try "group-$kind" group_takeover "$kind"; done
  try group-commands group_commands
  say "e2e: killing the server"
  kill -KILL "$server_pid"
  wait "$server_pid" 2>/dev/null || true
  start_server "$E2E_BOOTSTRAP"
  for kind in "${kinds[@]}"; do try "group-$kind-after-kill" group_resumes "$kind" "group-$kind"; done
}

cases_transactions() {
  local rounds=200 case_timeout=2400
  if $quick; then rounds=5; fi
  if [[ -n $java_missing ]]; then
    printf '%-4s %-34s %s\n' MISS java-exactly-once "$java_missing"
  else
    try java-exactly-once java_exactly_once $rounds
  fi
}

# cases_stopped looks at the data directory, which the running server keeps for itself.
cases_stopped() {
  local code=0 begin=$SECONDS
  stop_server || code=$?
  if ((code == 0)); then
    report ok server-stop "$((SECONDS - begin)) s"
  else
    tail -n 20 "$work/server.log" | sed 's/^/     | /' >&2
    report FAIL server-stop "exit code $code"
  fi
  export E2E_DATA=$work/data
  local codec
  try journal-verify journal_is_sound
  for codec in none gzip snappy lz4 zstd; do
    try "journal-dump-$codec" journal_has_codec "$codec"
  done
}

finish() {
  printf '%d passed, %d failed\n' "$passed" "$failed"
  ((failed == 0 && passed > 0)) || exit 1
  exit 0
}

parse_arguments "$@"
trap clean_up EXIT
trap 'exit 130' INT TERM
work=$(mktemp -d "${TMPDIR:-/var/tmp}/tidemark-e2e.XXXXXX")
mkdir -p "$work/bin"
get_tools
build
make_input
start_server
cases_kcat
cases_kcat_queries
cases_acks
cases_go_clients
cases_kafkajs
cases_groups
cases_transactions
cases_stopped
finish
