#!/usr/bin/env bash
# One case of the end-to-end test: bash cases.sh FUNCTION [ARGUMENT...]. run.sh runs it under a time limit and gives it, by environment:
#   E2E_BOOTSTRAP  the server's address         E2E_INPUT, E2E_LINES  numbered lines to send, and how many
#   E2E_CASE       this case's name; also its topic's   E2E_SCRATCH   an empty directory, removed afterwards
#   E2E_TIDEMARK, E2E_CLIENTS, E2E_KAFKAJS, E2E_JAVA  programs, and the Java client's folder
#   E2E_DATA       the data directory, once the server is stopped
# The last line of standard output is the case's figures; the last line of standard error says why it failed.
set -euo pipefail

fail() { printf '%s\n' "$*" >&2; exit 1; }

create_topic() { "$E2E_TIDEMARK" topic create "$1" --partitions "$2" --bootstrap "$E2E_BOOTSTRAP" >&2; }

# Seconds with milliseconds since FROM, a former $EPOCHREALTIME.
since() { awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.2fs", to - from }'; }

# kcat counts on the broker to keep order while it has many requests under way: nothing may be refused.
send() { kcat -P -b "$E2E_BOOTSTRAP" -t "$@"; }

# With the default of queued.min.messages, kcat's librdkafka naps for a second whenever 100,000 records wait to be printed.
receive() { kcat -C -b "$E2E_BOOTSTRAP" -X check.crcs=true -X queued.min.messages=10000000 -o beginning -e -t "$@"; }

first_lines() { head -n "$1" "$E2E_INPUT" >"$E2E_SCRATCH/expected"; }

# end_offset TOPIC PARTITION: the offset that the next record will get. kcat answers "TOPIC [PARTITION] offset N".
end_offset() { kcat -Q -b "$E2E_BOOTSTRAP" -t "$1:$2:-1" | awk '{ print $NF }'; }

# await_end TOPIC N waits until partition 0 ends at N, at most 10 s: below acks=all an answer does not mean that readers see the record yet.
await_end() {
  local deadline=$((SECONDS + 10)) end=''
  until end=$(end_offset "$1" 0) && [[ $end == "$2" ]]; do
    ((SECONDS < deadline)) || fail "$1 ends at $end after 10 s, want $2"
    sleep 0.02
  done
}

# same_lines GOT WANT: byte-identical, or the first difference.
same_lines() {
  cmp "$1" "$2" >&2 || fail "$(wc -l <"$1") lines came back for $(wc -l <"$2"): $(cmp "$1" "$2" 2>&1 || true)"
}

# same_union WANT: reads "PARTITION LINE" from standard input. In each partition the lines' numbers must grow, and all together must be WANT.
same_union() {
  local dir=$E2E_SCRATCH/partitions
  mkdir "$dir"
  awk -v dir="$dir" '
    { number = $2 + 0 }
    number <= last[$1] { print "partition " $1 ": line " number " came after line " last[$1]; exit 1 }
    { last[$1] = number; print substr($0, length($1) + 2) > (dir "/" $1) }' >&2 || fail "order is lost"
  sort -m -n -t ' ' -k 1,1 "$dir"/* >"$E2E_SCRATCH/union" # each is in order: merging sorts
  same_lines "$E2E_SCRATCH/union" "$1"
  wc -l "$dir"/* | awk '$2 != "total" { printf "%s%d", sep, $1; sep = "+" }' >"$E2E_SCRATCH/spread"
}

# --- kcat: real input, every codec ---

kcat_one_partition() {
  local codec=$1 idempotent=$2 begin sent
  create_topic "$E2E_CASE" 1
  begin=$EPOCHREALTIME
  send "$E2E_CASE" -X compression.codec="$codec" -X enable.idempotence="$idempotent" <"$E2E_INPUT"
  sent=$(since "$begin") begin=$EPOCHREALTIME
  receive "$E2E_CASE" -p 0 >"$E2E_SCRATCH/got"
  echo "lines=$E2E_LINES produce=$sent consume=$(since "$begin") identical"
  same_lines "$E2E_SCRATCH/got" "$E2E_INPUT"
}

kcat_four_partitions() {
  local codec=$1 idempotent=$2 begin sent received
  create_topic "$E2E_CASE" 4
  begin=$EPOCHREALTIME
  # Without lingering on one partition, every request carries several.
  send "$E2E_CASE" -X compression.codec="$codec" -X enable.idempotence="$idempotent" \
    -X topic.partitioner=random -X sticky.partitioning.linger.ms=0 <"$E2E_INPUT"
  sent=$(since "$begin") begin=$EPOCHREALTIME
  receive "$E2E_CASE" -f '%p %s\n' >"$E2E_SCRATCH/got"
  received=$(since "$begin")
  same_union "$E2E_INPUT" <"$E2E_SCRATCH/got"
  [[ $(ls "$E2E_SCRATCH/partitions") == $'0\n1\n2\n3' ]] || fail "not all four partitions have records"
  echo "lines=$E2E_LINES partitions=$(cat "$E2E_SCRATCH/spread") produce=$sent consume=$received identical"
}

# --- kcat: questions ---

kcat_list() {
  local listing
  create_topic "$E2E_CASE-1" 1
  create_topic "$E2E_CASE-7" 7
  listing=$(kcat -L -b "$E2E_BOOTSTRAP")
  for want in "topic \"$E2E_CASE-1\" with 1 partitions" "topic \"$E2E_CASE-7\" with 7 partitions" "$E2E_BOOTSTRAP"; do
    grep -qF "$want" <<<"$listing" || fail "kcat -L does not say: $want"
  done
  echo "topics=$(grep -c '^  topic ' <<<"$listing")"
}

# kcat_offset_for_time TOPIC asks for the earliest and the latest offset, and for the times of the first and of a middle record: the answer
# is the first offset that is not before that time, for which the broker must look into a compressed batch.
kcat_offset_for_time() {
  local topic=$1 first_time middle_time want got
  receive "$topic" -p 0 -f '%o %T\n' >"$E2E_SCRATCH/times"
  [[ -s $E2E_SCRATCH/times ]] || fail "$topic is empty"
  first_time=$(awk 'NR == 1 { print $2; exit }' "$E2E_SCRATCH/times")
  middle_time=$(awk -v n="$(($(wc -l <"$E2E_SCRATCH/times") / 2))" 'NR == n { print $2; exit }' "$E2E_SCRATCH/times")
  want=$(awk -v t="$middle_time" '$2 >= t { print $1; exit }' "$E2E_SCRATCH/times")
  # Two separate arguments for one partition would be one question to kcat: ask one by one.
  ask() { kcat -Q -b "$E2E_BOOTSTRAP" -t "$topic:0:$1" | awk '{ print $NF }'; }
  got="$(ask -2) $(ask -1) $(ask "$first_time") $(ask "$middle_time")"
  [[ $got == "0 $(wc -l <"$E2E_SCRATCH/times") 0 $want" ]] ||
    fail "earliest, latest, first record's time, middle record's: $got, want 0 $(wc -l <"$E2E_SCRATCH/times") 0 $want"
  echo "earliest=0 latest=$(wc -l <"$E2E_SCRATCH/times") first-time=0 middle-time=$want"
}

# --- acks ---

kcat_acks() {
  local acks=$1 begin
  first_lines 1000
  create_topic "$E2E_CASE" 1
  begin=$EPOCHREALTIME
  send "$E2E_CASE" -X acks="$acks" <"$E2E_SCRATCH/expected"
  echo -n "lines=1000 produce=$(since "$begin")"
  if [[ $acks != -1 && $acks != 104 ]]; then # those two were committed when they were answered: readers must see them at once
    begin=$EPOCHREALTIME
    await_end "$E2E_CASE" 1000
    echo -n " seen=+$(since "$begin")"
  fi
  receive "$E2E_CASE" -p 0 >"$E2E_SCRATCH/got"
  same_lines "$E2E_SCRATCH/got" "$E2E_SCRATCH/expected"
  echo " identical"
}

# --- Go clients and KafkaJS ---

# go_client CLIENT PARTITIONS|auto COUNT [FLAG...]: what the client reads back must have the checksum of what it was given; it checks order itself.
go_client() {
  local client=$1 partitions=$2 count=$3 produced consumed want
  shift 3
  first_lines "$count"
  want=$(sha256sum <"$E2E_SCRATCH/expected" | cut -d ' ' -f 1)
  [[ $partitions == auto ]] || create_topic "$E2E_CASE" "$partitions"
  produced=$("$E2E_CLIENTS" --client "$client" --bootstrap "$E2E_BOOTSTRAP" --topic "$E2E_CASE" --mode produce --input "$E2E_SCRATCH/expected" "$@")
  consumed=$("$E2E_CLIENTS" --client "$client" --bootstrap "$E2E_BOOTSTRAP" --topic "$E2E_CASE" --mode consume)
  [[ $consumed == *"sha256=$want"* ]] || fail "produced: $produced; consumed: $consumed; want sha256=$want"
  echo "produced: $produced; consumed: ${consumed/$want/"${want:0:8}…"}"
}

kafkajs() {
  local count=$1 begin sent
  shift
  first_lines "$count"
  create_topic "$E2E_CASE" 4
  begin=$EPOCHREALTIME
  node "$E2E_KAFKAJS/produce.js" --bootstrap "$E2E_BOOTSTRAP" --topic "$E2E_CASE" --input "$E2E_SCRATCH/expected" "$@" >&2
  sent=$(since "$begin")
  receive "$E2E_CASE" -f '%p %s\n' >"$E2E_SCRATCH/got"
  same_union "$E2E_SCRATCH/expected" <"$E2E_SCRATCH/got"
  echo "records=$count partitions=$(cat "$E2E_SCRATCH/spread") produce=$sent identical"
}

# --- consumer groups ---

# start_member KIND NAME TOPIC: a member of the group that goes by the topic's name, which prints "PARTITION OFFSET LINE" into the file NAME. Its process is the newest in the background.
start_member() {
  local kind=$1 name=$2 topic=$3
  case $kind in
    kcat)
      kcat -b "$E2E_BOOTSTRAP" -G "$topic" -X session.timeout.ms=3000 -X heartbeat.interval.ms=500 -X auto.commit.interval.ms=200 -X auto.offset.reset=earliest \
        -q -u -f '%p %o %s\n' "$topic" >>"$E2E_SCRATCH/$name" &
      ;;
    kafkajs) node "$E2E_KAFKAJS/member.js" --bootstrap "$E2E_BOOTSTRAP" --topic "$topic" >>"$E2E_SCRATCH/$name" & ;;
    java | java-848)
      local protocol=classic
      [[ $kind == java ]] || protocol=consumer
      java -XX:TieredStopAtLevel=1 -cp "$E2E_JAVA/lib/*" "$E2E_JAVA/Member.java" "$E2E_BOOTSTRAP" "$topic" "$protocol" >>"$E2E_SCRATCH/$name" &
      ;;
    *) "$E2E_CLIENTS" --client "${kind%-848}" --member "$kind" --mode member --bootstrap "$E2E_BOOTSTRAP" --topic "$topic" --group "$topic" >>"$E2E_SCRATCH/$name" & ;;
  esac
}

describe_group() { "$E2E_TIDEMARK" group describe "$1" --bootstrap "$E2E_BOOTSTRAP"; }

# shares TOPIC N: the group has N members, and each has partitions.
shares() {
  describe_group "$1" 2>/dev/null >"$E2E_SCRATCH/described" && grep -q ": Stable, $2 members" "$E2E_SCRATCH/described" &&
    awk -v n="$2" 'NR > 2 && $6 != "-" { has[$6]++; all++ } END { for (m in has) k++; exit !(k == n && all == 4) }' "$E2E_SCRATCH/described"
}

# has_lines N FILE...: so many different records are in the files.
has_lines() { (($(sort -u "${@:2}" | wc -l) >= $1)); }

# await SECONDS WHAT COMMAND...: until the command says yes.
await() {
  local deadline=$((SECONDS + $1))
  until "${@:3}"; do
    ((SECONDS < deadline)) || { cat "$E2E_SCRATCH/described" >&2 || true; wc -l "$E2E_SCRATCH"/[abc] >&2 || true; fail "not after $1 s: $2"; }
    sleep 0.05 # between two looks
  done
}

# stop_member PID asks it to end, which has it commit and leave.
stop_member() {
  kill -TERM "$1"
  local deadline=$((SECONDS + 20))
  while kill -0 "$1" 2>/dev/null; do
    ((SECONDS < deadline)) || fail "the member did not end within 20 s"
    sleep 0.05
  done
}

# all_committed TOPIC: of all four partitions, to their ends.
all_committed() {
  describe_group "$1" >"$E2E_SCRATCH/described" && awk 'NR > 2 && $3 != "-" && $5 == 0 { n++ } END { exit n != 4 }' "$E2E_SCRATCH/described"
}

spread_lines() { send "$1" -X topic.partitioner=random -X sticky.partitioning.linger.ms=0; }

# group_takeover KIND: two members share four partitions; while more is sent one is killed, and the other goes on with all of them. Nothing is missed, and what was read is committed.
group_takeover() {
  local kind=$1 a b begin took
  trap 'kill -KILL $(jobs -p) 2>/dev/null || true' EXIT
  first_lines 4000
  create_topic "$E2E_CASE" 4
  start_member "$kind" a "$E2E_CASE"
  a=$!
  start_member "$kind" b "$E2E_CASE"
  b=$!
  await 40 "two members share four partitions" shares "$E2E_CASE" 2
  sed -n 1,2000p "$E2E_SCRATCH/expected" | spread_lines "$E2E_CASE"
  await 30 "both have read the first half" has_lines 2000 "$E2E_SCRATCH/a" "$E2E_SCRATCH/b"
  [[ -s $E2E_SCRATCH/a && -s $E2E_SCRATCH/b ]] || fail "one member has read nothing"
  tail -n +2001 "$E2E_SCRATCH/expected" | spread_lines "$E2E_CASE" &
  kill -KILL "$a"
  begin=$EPOCHREALTIME
  await 40 "the other has read the rest" has_lines 4000 "$E2E_SCRATCH/a" "$E2E_SCRATCH/b"
  took=$(since "$begin")
  stop_member "$b"
  sort -u "$E2E_SCRATCH/a" "$E2E_SCRATCH/b" | cut -d ' ' -f 3- | sort -n -t ' ' -k 1,1 >"$E2E_SCRATCH/union"
  same_lines "$E2E_SCRATCH/union" "$E2E_SCRATCH/expected"
  all_committed "$E2E_CASE" || { cat "$E2E_SCRATCH/described" >&2; fail "not all was committed"; }
  echo "lines=4000 members=$(wc -l <"$E2E_SCRATCH/a")+$(wc -l <"$E2E_SCRATCH/b") taken-over=$took again=$(($(cat "$E2E_SCRATCH"/[ab] | wc -l) - 4000))"
}

# group_resumes KIND TOPIC: the server was killed meanwhile. The group still has its offsets, and a member goes on where it was.
group_resumes() {
  local kind=$1 topic=$2 c
  trap 'kill -KILL $(jobs -p) 2>/dev/null || true' EXIT
  all_committed "$topic" || { cat "$E2E_SCRATCH/described" >&2; fail "offsets are gone"; }
  first_lines 100
  spread_lines "$topic" <"$E2E_SCRATCH/expected"
  start_member "$kind" c "$topic"
  c=$!
  await 40 "a member has read what is new" has_lines 100 "$E2E_SCRATCH/c"
  stop_member "$c"
  cut -d ' ' -f 3- "$E2E_SCRATCH/c" | sort -n -t ' ' -k 1,1 >"$E2E_SCRATCH/union"
  same_lines "$E2E_SCRATCH/union" "$E2E_SCRATCH/expected"
  all_committed "$topic" || fail "not all was committed"
  echo "lines=100 and none of the old ones"
}

# The command line's own: a group is listed, reset and deleted.
group_commands() {
  local tidemark=("$E2E_TIDEMARK" group) at=(--bootstrap "$E2E_BOOTSTRAP")
  first_lines 40
  create_topic "$E2E_CASE" 4
  spread_lines "$E2E_CASE" <"$E2E_SCRATCH/expected"
  consume() { "$E2E_TIDEMARK" consume "$E2E_CASE" "${at[@]}" --group "$E2E_CASE" --count "$1" | sort -n -t ' ' -k 1,1; }
  consume 40 >"$E2E_SCRATCH/got"
  same_lines "$E2E_SCRATCH/got" "$E2E_SCRATCH/expected"
  "${tidemark[@]}" list "${at[@]}" | grep -Eq "^$E2E_CASE +Empty +0 +0$" || fail "group list does not have it"
  "${tidemark[@]}" reset "$E2E_CASE" --to earliest --dry-run "${at[@]}" >&2
  all_committed "$E2E_CASE" || fail "a dry run has set something"
  "${tidemark[@]}" reset "$E2E_CASE" --to earliest "${at[@]}" >&2
  consume 40 >"$E2E_SCRATCH/got"
  same_lines "$E2E_SCRATCH/got" "$E2E_SCRATCH/expected"
  "${tidemark[@]}" delete "$E2E_CASE" "${at[@]}" >&2
  ! describe_group "$E2E_CASE" 2>"$E2E_SCRATCH/err" || fail "it is still there"
  grep -q 'no group of this name' "$E2E_SCRATCH/err" || fail "describe says: $(cat "$E2E_SCRATCH/err")"
  echo "consumed twice, reset and deleted"
}

# --- transactions ---

# own_server starts a server of the case's own, on the address that it had before.
own_server() {
  local log=$E2E_SCRATCH/server.log line='' deadline=$((SECONDS + 60))
  : >"$log"
  "$E2E_TIDEMARK" serve --data-dir "$E2E_SCRATCH/data" --listen "${own_address:-127.0.0.1:0}" --admin-listen '' --set group.session.min=1s \
    --set journal.segment.bytes=16MiB --set journal.cache.bytes=16MiB 2>"$log" &
  own_pid=$!
  until line=$(grep -m1 '"message":"listening"' "$log"); do
    kill -0 "$own_pid" 2>/dev/null && ((SECONDS < deadline)) || { tail -n 5 "$log" >&2; fail "the server does not start"; }
    sleep 0.02 # between two looks at the log
  done
  [[ $line =~ \"listen\":\"([^\"]+)\" ]] || fail "no address in: $line"
  own_address=${BASH_REMATCH[1]} E2E_BOOTSTRAP=${BASH_REMATCH[1]}
}

transform() { java -XX:TieredStopAtLevel=1 -cp "$E2E_JAVA/lib/*" "$E2E_JAVA/Transform.java" "$E2E_BOOTSTRAP" in out >>"$E2E_SCRATCH/committed" 2>>"$E2E_SCRATCH/transform.err" & }

# committed_since N: so many lines more than N say that a transaction was committed, or the application has ended.
committed_since() { (($(wc -l <"$E2E_SCRATCH/committed") >= $1 + 2)) || ! kill -0 "$app" 2>/dev/null; }

caught_up() { "$E2E_TIDEMARK" group list --bootstrap "$E2E_BOOTSTRAP" >"$E2E_SCRATCH/described" && grep -Eq '^transform-in +[A-Za-z]+ +[0-9]+ +0$' "$E2E_SCRATCH/described"; }

# java_exactly_once ROUNDS: the Java client reads, transforms and writes in transactions. In each round it is killed, and in two of three the server with it. In the end each line is there once for who reads what is committed.
java_exactly_once() {
  local rounds=$1 done=0 servers=0 before app own_pid own_address='' each=400
  trap 'kill -KILL $(jobs -p) 2>/dev/null || true' EXIT
  first_lines $((rounds * each))
  : >"$E2E_SCRATCH/committed"
  own_server
  create_topic in 4
  create_topic out 4
  for ((round = 0; round < rounds; round++)); do
    sed -n "$((round * each + 1)),$(((round + 1) * each))p" "$E2E_SCRATCH/expected" | spread_lines in
    before=$(wc -l <"$E2E_SCRATCH/committed")
    transform
    app=$!
    await 60 "two transactions are committed" committed_since "$before"
    sleep "0.0$((RANDOM % 10))" # when to strike
    kill -KILL "$app" 2>/dev/null && done=$((done + 1))
    wait "$app" 2>/dev/null || true
    if ((RANDOM % 3)); then
      kill -KILL "$own_pid"
      wait "$own_pid" 2>/dev/null || true
      servers=$((servers + 1))
      own_server
    fi
  done
  while ! caught_up; do # it ends with its first error, and is started again
    ((SECONDS < 1200)) || fail "it does not come to the end of its input: $(tail -n 1 "$E2E_SCRATCH/transform.err")"
    kill -0 "$app" 2>/dev/null || { transform; app=$!; }
    sleep 0.2 # between two looks
  done
  kill -KILL "$app" 2>/dev/null || true
  receive out -X isolation.level=read_committed -f '%s\n' | sort >"$E2E_SCRATCH/got"
  sed 's/^/T /' "$E2E_SCRATCH/expected" | sort >"$E2E_SCRATCH/want"
  same_lines "$E2E_SCRATCH/got" "$E2E_SCRATCH/want"
  echo "rounds=$rounds applications-killed=$done servers-killed=$servers transactions=$(wc -l <"$E2E_SCRATCH/committed") lines=$(wc -l <"$E2E_SCRATCH/got") sha256=$(sha256sum <"$E2E_SCRATCH/got" | cut -c 1-8)…"
}

# --- the journal, once the server is stopped ---

journal_is_sound() {
  "$E2E_TIDEMARK" journal verify "$E2E_DATA" >&2
  echo "bytes=$(du -sb "$E2E_DATA" | cut -f 1)"
}

# journal_has_codec CODEC: in every topic whose name has the codec, most records must have come under it. Clients send a batch that would not
# get smaller as it is, which those of few records are, so not all, nor most of the batches; a broker whose versions make a client drop its codec without a word shows here and nowhere else.
journal_has_codec() {
  local codec=$1 dump=$E2E_DATA.dump
  [[ -e $dump ]] || "$E2E_TIDEMARK" journal dump "$E2E_DATA" >"$dump"
  # A line: record offset=80 kind=batch partition=TOPIC-0 base=0 count=5 bytes=101 codec=none ...
  awk -v codec="$codec" '
    / kind=batch / && match($0, / partition=[^ ]+/) {
      topic = substr($0, RSTART + 11, RLENGTH - 11)
      sub(/-[0-9]+$/, "", topic)
      if (index(topic, "-" codec "-") == 0) next
      match($0, / count=[0-9]+/)
      count = substr($0, RSTART + 7, RLENGTH - 7)
      records[topic] += count
      if ($0 ~ " codec=" codec " ") { asked[topic] += count; all++ } else others++
    }
    END {
      for (topic in records) {
        topics++
        if (asked[topic] * 2 <= records[topic]) { print topic ": " asked[topic] + 0 " of " records[topic] " records" >"/dev/stderr"; bad = 1 }
      }
      if (topics == 0) { print "no topic" >"/dev/stderr"; bad = 1 }
      print "topics=" topics + 0, "batches=" all + 0, "others=" others + 0
      exit bad
    }' "$dump" || fail "codec=$codec is not what the journal has where it was asked for"
}

"$@"
