# shellcheck shell=bash disable=SC2034  # the scripts that source this file use the variables
# Sourced by up.sh, down.sh and in.sh: where the cluster lives, which process is its first, and how it is ended.
PATH=$PATH:/usr/sbin:/sbin # Debian keeps the daemons out of a plain user's PATH
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DIR=$(realpath -m "${DTK_CLUSTER_DIR:-${TMPDIR:-/tmp}/dtk-slurm-$UID}")
export SLURM_CONF=$DIR/etc/slurm.conf

# Where the kernel has the v1 freezer, each cluster owns one group in it. Without that, job 1 on n1 of two clusters would be
# the same group, and each would signal the other's processes.
FREEZER=/sys/fs/cgroup/freezer
GROUP=$FREEZER/dtk-cluster-$(printf %s "$DIR" | cksum | cut -d' ' -f1)

# Two calls of up.sh and down.sh on one directory take turns. The lock is on the directory: it leaves no file behind.
lock() {
  exec 9<"$DIR"
  flock 9
}

# Prints the pid of the cluster's first process; fails if it does not run. Pids are reused: the command line has to name us.
init_pid() {
  local pid args
  pid=$(cat "$DIR/init.pid" 2>/dev/null) && [ -n "$pid" ] || return 1
  mapfile -d '' args 2>/dev/null <"/proc/$pid/cmdline" || return 1
  [[ ${args[1]:-} == */login.sh && ${args[2]:-} == "$DIR" ]] || return 1
  echo "$pid"
}

# A frozen process cannot die.
thaw() {
  [ ! -d "$GROUP" ] || find "$GROUP" -mindepth 1 -name freezer.state -exec sh -c 'echo THAWED >"$1"' _ {} \; 2>/dev/null || true
}

# The end of the first process is the end of its pid namespace: the kernel ends every daemon and job in it, and with the last
# of them go the mounts and the network links.
take_down() {
  local pid try
  if pid=$(init_pid); then
    kill -9 "$pid"
    for ((try = 0; try < 500; try++)); do
      init_pid >/dev/null || break
      thaw
      sleep 0.02
    done
  fi
  for ((try = 0; try < 250; try++)); do
    [ ! -d "$GROUP" ] || find "$GROUP" -depth -type d -exec rmdir {} \; 2>/dev/null || true
    [ -d "$GROUP" ] || break
    sleep 0.02
  done
  if init_pid >/dev/null || [ -d "$GROUP" ]; then
    echo "slurm/cluster: the cluster in $DIR did not end; still there: pid $(init_pid || echo none), processes in $GROUP" >&2
    return 1
  fi
  rm -f "$DIR/init.pid"
}

no_arguments() { # --help prints the comment at the top of the script; anything else is a mistake
  case ${1:-} in
    '') ;;
    -h | --help) sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "$0" && exit 0 ;;
    *) echo "${0##*/} takes no arguments, but variables: ${0##*/} --help" >&2 && exit 2 ;;
  esac
}
