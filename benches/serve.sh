#!/usr/bin/env bash
# Requests a second of hello, a fresh instance for each request, beside `wasmtime serve` in the same run: one core for the
# server, another for the load, five rounds in turn, the median of each.
#   benches/serve.sh [SECONDS A ROUND]
# Needs wrk and taskset, and wasmtime (cargo install --locked wasmtime-cli --version 48.0.8; WASMTIME names it).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export RUST_BACKTRACE=0
seconds=${1:-5}
washlet=${WASHLET_BIN:-${CARGO_TARGET_DIR:-target}/release/washlet}
wasmtime=${WASMTIME:-wasmtime}
work=$(mktemp -d)
servers=()
finish() {
  kill "${servers[@]}" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

mkdir "$work/p3"
sed 's/hello\.wasm/hello-p3.wasm/' examples/hello/workload.yaml >"$work/p3/workload.yaml"
cp e2e/guests/wasm/hello-p3.wasm "$work/p3/"
serve() { timeout -k 1 300 taskset -c 0 "$@" >/dev/null 2>&1 & servers+=($!); }
fresh=(-O pooling-allocator=y --max-instance-reuse-count 1)
serve "$washlet" run --no-watch --http-listen 127.0.0.1:18101 examples/hello
serve "$wasmtime" serve "${fresh[@]}" --addr 127.0.0.1:18102 examples/hello/hello.wasm
serve "$washlet" run --no-watch --http-listen 127.0.0.1:18103 "$work/p3"
serve "$wasmtime" serve "${fresh[@]}" -S p3=y -W component-model-async=y --addr 127.0.0.1:18104 "$work/p3/hello-p3.wasm"
for port in 18101 18102 18103 18104; do
  for _ in $(seq 100); do curl -sf "http://127.0.0.1:$port/" >/dev/null && break; sleep 0.1; done
done

for _ in 1 2 3 4 5; do
  for port in 18101 18102 18103 18104; do
    taskset -c 1 wrk -t1 -c32 -d"${seconds}s" "http://127.0.0.1:$port/" | awk '/Requests\/sec/ {print $2}' >>"$work/$port"
  done
done
median() { sort -n "$work/$1" | sed -n 3p; }
for pair in "p2 18101 18102" "p3 18103 18104"; do
  read -r name ours theirs <<<"$pair"
  awk -v n="$name" -v a="$(median "$ours")" -v b="$(median "$theirs")" \
    'BEGIN {printf "%s: washlet %.0f/s, wasmtime serve %.0f/s, ratio %.1f\n", n, a, b, a / b}'
done
