#!/usr/bin/env bash
# One worker of a TPU slice, in the foreground: environment, stale lock, compile cache, then `sparsejax train FLAGS...`.
# The exit code is the trainer's: 0 finished, 2 bad input, 3 does not fit, 4 diverged, 75 preempted and saved.
#   SPARSEJAX                   the program                           sparsejax on PATH
#   JAX_COMPILATION_CACHE_DIR   directory of compiled programs        none
#   LIBTPU_LOCK                 libtpu's lock of this machine         /tmp/libtpu_lockfile
set -euo pipefail

sparsejax=${SPARSEJAX:-sparsejax}
lock=${LIBTPU_LOCK:-/tmp/libtpu_lockfile}
if ! command -v "$sparsejax" >/dev/null; then
  echo "run_tpu.sh: $sparsejax was not found: install sparsejax, or name it in SPARSEJAX" >&2
  exit 2
fi

# The workers reach each other directly; through a proxy their start-up hangs.
unset http_proxy https_proxy ftp_proxy all_proxy HTTP_PROXY HTTPS_PROXY FTP_PROXY ALL_PROXY
export PYTHONUNBUFFERED=1

# A trainer that was killed leaves libtpu's lock behind, and every later one fails. It may go when nobody holds it.
if [[ -e $lock ]]; then
  holder=
  for descriptor in /proc/[0-9]*/fd/*; do
    if [[ $descriptor -ef $lock ]]; then
      holder=${descriptor#/proc/}
      holder=${holder%%/*}
      break
    fi
  done
  if [[ -n $holder ]]; then
    echo "run_tpu.sh: process $holder holds the TPU ($lock): stop it first" >&2
    exit 1
  elif [[ -O $lock ]]; then
    rm -f "$lock"
    echo "run_tpu.sh: removed the stale lock $lock"
  else
    echo "run_tpu.sh: $lock belongs to another user and no process of yours holds it: sudo rm $lock" >&2
    exit 1
  fi
fi

# A cache that cannot be written would cost the compilation at every start, or hang: found out before the TPU is held.
cache=${JAX_COMPILATION_CACHE_DIR:-}
if [[ $cache == \~ || $cache == \~/* ]]; then
  # The machine that launched could not know this home.
  cache=$HOME${cache#\~}
  export JAX_COMPILATION_CACHE_DIR=$cache
fi
if [[ $cache == *://* ]]; then
  # With the library that JAX writes it with, which the same environment holds.
  python=$(dirname "$(command -v "$sparsejax")")/python
  if ! reason=$("$python" - "$cache" 2>&1 <<'PROBE'
import os, socket, sys
from etils import epath
probe = epath.Path(sys.argv[1]) / f".probe-{socket.gethostname()}-{os.getpid()}"
probe.parent.mkdir(parents=True, exist_ok=True)
probe.write_text("")
probe.unlink()
PROBE
  ); then
    echo "run_tpu.sh: JAX_COMPILATION_CACHE_DIR=$cache: cannot be written (${reason##*$'\n'})" >&2
    exit 2
  fi
elif [[ -n $cache ]]; then
  if ! mkdir -p "$cache" 2>/dev/null || [[ ! -w $cache ]]; then
    echo "run_tpu.sh: JAX_COMPILATION_CACHE_DIR=$cache: cannot be written" >&2
    exit 2
  fi
fi

# The trainer replaces this shell: signals reach it, and its exit code is the one seen outside.
exec "$sparsejax" train "$@"
