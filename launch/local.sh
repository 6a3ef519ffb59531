#!/usr/bin/env bash
# Several processes of one run on this machine: launch/local.sh [options] [--] FLAGS of `sparsejax train`
#   --processes=N   how many                                                              2
#   --platform=P    cpu or gpu; process i gets the i-th of the visible GPUs alone         cpu
#   --devices=K     simulated devices of each process, on cpu                             1
#   --port=PORT     where process 0 listens                                               any free one
#   --grace=S       seconds that the others have to end when one has failed               60
#   --dry-run       print the commands
# Every flag takes its value behind "=" or as the next word. GPUs are those of CUDA_VISIBLE_DEVICES, ROCR_VISIBLE_DEVICES
# or HIP_VISIBLE_DEVICES where a scheduler or you set it, else the first ones of the machine.
# Ctrl-C and SIGTERM go to every process, which saves and ends. Returns the first exit code that is not 0.
#   SPARSEJAX       the program                                                           sparsejax on PATH
set -euo pipefail

refuse() {
  echo "local.sh: ${1//[[:cntrl:]]/ }" >&2
  exit 2
}

processes=2 platform=cpu devices=1 port='' grace=60 dry_run=''
flags=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --processes | --platform | --devices | --port | --grace)
      [[ $# -gt 1 ]] || refuse "$1: needs a value; see --help"
      set -- "$1=$2" "${@:3}"
      continue
      ;;
    --processes=*) processes=${1#*=} ;;
    --platform=*) platform=${1#*=} ;;
    --devices=*) devices=${1#*=} ;;
    --port=*)
      port=${1#*=}
      [[ -n $port ]] || refuse "$1: must be a whole number, at least 1"
      ;;
    --grace=*) grace=${1#*=} ;;
    --dry-run) dry_run=1 ;;
    -h | --help)
      sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    --)
      shift
      flags+=("$@")
      break
      ;;
    *) flags+=("$1") ;;
  esac
  shift
done

for setting in "processes=$processes" "devices=$devices" "grace=$grace" "port=${port:-1}"; do
  [[ ${setting#*=} =~ ^[1-9][0-9]{0,8}$ ]] || refuse "--$setting: must be a whole number, at least 1"
done
[[ $platform == cpu || $platform == gpu ]] || refuse "--platform=$platform: must be cpu or gpu"
[[ $platform == cpu || $devices == 1 ]] || refuse "--devices=$devices: only CPUs are simulated; a process has one GPU"
given() {
  local flag
  for flag in "${flags[@]}"; do
    [[ $flag != "$1" && $flag != "$1="* ]] || return 0
  done
  return 1
}
given --config || refuse "--config=configs/<file>.py is missing; see --help"
given --workdir || refuse "--workdir=<run directory> is missing; see --help"
for flag in --coordinator --num_processes --process_id --distributed; do
  ! given "$flag" || refuse "$flag: is given by this script; leave it out"
done
sparsejax=${SPARSEJAX:-sparsejax}
[[ -n $dry_run ]] || command -v "$sparsejax" >/dev/null || refuse "$sparsejax was not found: pip install -e ."

free_port() {
  local candidate
  for _ in {1..50}; do
    candidate=$((20000 + RANDOM % 20000))
    # Nobody answers where nobody listens.
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$candidate") 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  refuse "found no free port; give one with --port"
}

if [[ -z $port ]]; then
  if [[ -n $dry_run ]]; then port=PORT; else port=$(free_port); fi
fi

# The GPUs that may be used, in the order of the processes: those that were given to this job, and nobody else's.
gpu_variable=CUDA_VISIBLE_DEVICES
gpus=()
find_gpus() {
  local name set_ones=()
  for name in CUDA_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES HIP_VISIBLE_DEVICES; do
    [[ -z ${!name+set} ]] || set_ones+=("$name")
  done
  if [[ ${#set_ones[@]} -gt 1 ]]; then
    refuse "${set_ones[*]}: are all set, and each counts among the devices of another; unset all but one"
  fi
  if [[ ${#set_ones[@]} == 1 ]]; then
    gpu_variable=${set_ones[0]}
    IFS=, read -r -a gpus <<<"${!gpu_variable}"
    for ((index = 0; index < ${#gpus[@]}; index++)); do
      # As the runtimes read it: what comes behind an entry that is no device does not count.
      if [[ ! ${gpus[index]} =~ ^[[:space:]]*([0-9]+|GPU-.+|MIG-.+)[[:space:]]*$ ]]; then
        gpus=("${gpus[@]:0:index}")
        break
      fi
      gpus[index]=${BASH_REMATCH[1]}
    done
    ((${#gpus[@]} >= processes)) ||
      refuse "--processes=$processes: $gpu_variable=${!gpu_variable} gives ${#gpus[@]} GPUs; a process has one"
  elif [[ -n ${SLURM_JOB_ID-} ]]; then
    refuse "--platform=gpu: this SLURM job was given no GPU (CUDA_VISIBLE_DEVICES is not set); ask for some with --gpus"
  else
    for ((index = 0; index < processes; index++)); do gpus+=("$index"); done
  fi
}
if [[ $platform == gpu ]]; then
  find_gpus
  # The flag is what is asked for now.
  [[ ${JAX_PLATFORMS-} != cpu ]] || unset JAX_PLATFORMS
fi

command_of() {
  local process=$1
  command=(env "JAX_PLATFORMS=cpu" "JAX_NUM_CPU_DEVICES=$devices")
  [[ $platform == cpu ]] || command=(env "$gpu_variable=${gpus[process]}")
  command+=("$sparsejax" train "${flags[@]}")
  command+=("--coordinator=127.0.0.1:$port" "--num_processes=$processes" "--process_id=$process")
}

if [[ -n $dry_run ]]; then
  for ((process = 0; process < processes; process++)); do
    command_of "$process"
    printf '%s' "${command[1]}"
    printf ' %q' "${command[@]:2}"
    echo
  done
  exit 0
fi

# Through a proxy the processes do not find each other.
unset http_proxy https_proxy ftp_proxy all_proxy HTTP_PROXY HTTPS_PROXY FTP_PROXY ALL_PROXY

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkfifo "$folder/ended"
exec 3<>"$folder/ended"

# In the background: one process, each line of its output marked as its own, and at the end "<process> <exit code>".
attend() {
  local code=0
  # The process gets the same signals; this shell is still to report its end, and sed to pass on its last words.
  trap : TERM INT HUP
  "${command[@]}" > >(
    trap '' TERM INT HUP
    exec sed -u "s/^/[$1] /"
  ) 2>&1 </dev/null || code=$?
  echo "$1 $code" >&3
}

kill_all() {
  local group
  for group in "${groups[@]}"; do kill -s "$1" -- "-$group" 2>/dev/null || true; done
}

# With job control every process has a group of its own: the terminal's Ctrl-C reaches this script alone, which hands
# it on, and a process can be killed with all that it started.
set -m
groups=()
trap 'kill_all TERM' TERM HUP
trap 'kill_all INT' INT
for ((process = 0; process < processes; process++)); do
  command_of "$process"
  attend "$process" &
  groups+=($!)
  disown
done

result=0 left=$processes
ended=()
# Seconds since this script began; until one has failed there is no hurry.
deadline=999999999

note_end() {
  local process=$1 code=$2
  [[ -z ${ended[process]-} ]] || return 0
  ended[process]=$code
  left=$((left - 1))
  if [[ $code != 0 && $result == 0 ]]; then
    result=$code
    deadline=$((SECONDS + grace))
    ((left == 0)) || echo "local.sh: process $process ended with exit code $code; the others have $grace s" >&2
    # 75 and 130: all are saving. Else the others may wait for the lost one for ever.
    [[ $code == 75 || $code == 130 ]] || kill_all TERM
  fi
}

while ((left > 0)); do
  if read -r -t 1 process code <&3; then
    note_end "$process" "$code"
    continue
  fi
  if ((SECONDS >= deadline)); then
    echo "local.sh: killing the $left that did not end" >&2
    kill_all KILL
    break
  fi
  # Who was killed together with the shell that attends it reports nothing.
  for ((process = 0; process < processes; process++)); do
    kill -0 -- "-${groups[process]}" 2>/dev/null || note_end "$process" 143
  done
done
exit "$result"
