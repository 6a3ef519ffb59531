#!/usr/bin/env bash
# One worker of a TPU slice, as launch/tpu.py talks to it: install, start and watch a run that outlives the connection.
#   worker.sh setup EXTRAS     make the environment and install the checkout with these extras of pyproject.toml
#   worker.sh start FLAGS...   start run_tpu.sh with these flags, unless it is running, and return
#   worker.sh state            running, exited code=N, lost (it ended without a code) or idle
#   worker.sh log LINES        the end of the log
#   worker.sh follow LINES     the end of the log and what comes after it
# Every answer is a line "sparsejax-worker HOST state=...": ssh to many workers loses their exit codes.
#   SPARSEJAX_BASE   where venv/ and run/ are   the directory above the checkout
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
checkout=$(dirname "$here")
base=${SPARSEJAX_BASE:-$(dirname "$checkout")}
venv=$base/venv
run=$base/run

answer() {
  printf 'sparsejax-worker %s state=%s\n' "$(hostname)" "$*"
}

# After a reboot the recorded process may be another one, hence its command line.
running() {
  local process
  [[ -f $run/pid ]] || return 1
  process=$(cat "$run/pid")
  kill -0 "$process" 2>/dev/null && grep -qs worker.sh "/proc/$process/cmdline"
}

find_python() {
  local name
  for name in python3.12 python3.11; do
    if command -v "$name" >/dev/null && "$name" -c 'import ensurepip, venv' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  # The images of TPU machines have an older Python: uv brings one of its own.
  python3 -m pip install --user --quiet 'uv>=0.5,<1' >&2
  "$HOME/.local/bin/uv" python install --quiet 3.12 >&2
  "$HOME/.local/bin/uv" python find 3.12
}

setup() {
  local python version
  if [[ ! -x $venv/bin/python ]]; then
    python=$(find_python)
    "$python" -m venv "$venv"
  fi
  version=$("$venv/bin/python" -c 'import sys; print("%d%d" % sys.version_info[:2])')
  "$venv/bin/python" -m pip --disable-pip-version-check install --quiet \
    --constraint "$checkout/constraints/py$version.txt" --editable "${checkout}[$1]"
  answer installed
}

start() {
  if running; then
    answer running
    return
  fi
  mkdir -p "$run"
  rm -f "$run/code"
  # A session of its own stays when the connection closes.
  setsid nohup bash "$here/worker.sh" attend "$@" >"$run/log" 2>&1 </dev/null &
  echo $! >"$run/pid"
  answer started
}

# In the background: the run, then its exit code, whole or not at all.
attend() {
  local code=0
  # The trainer gets the same signal, saves and ends; its code is still to be written.
  trap : TERM
  cd "$checkout"
  SPARSEJAX=${SPARSEJAX:-$venv/bin/sparsejax} bash "$here/run_tpu.sh" "$@" || code=$?
  echo "$code" >"$run/code.part"
  mv "$run/code.part" "$run/code"
}

state() {
  # In this order: what has just ended has left its code.
  if running; then
    answer running
    tail -n 1 "$run/log"
  elif [[ -f $run/code ]]; then
    answer exited "code=$(cat "$run/code")"
  elif [[ -f $run/pid ]]; then
    answer lost
  else
    answer idle
  fi
}

log() {
  printf '==> %s <==\n' "$(hostname)"
  tail -n "$1" "$run/log" 2>/dev/null || echo "no log yet"
}

follow() {
  tail -n "$1" -F "$run/log"
}

verb=${1:-}
[[ $# -eq 0 ]] || shift
case $verb in
  setup | start | attend | state | log | follow) "$verb" "$@" ;;
  *)
    echo "worker.sh: ${verb:-nothing}: no such verb; the head of this file lists them" >&2
    exit 2
    ;;
esac
