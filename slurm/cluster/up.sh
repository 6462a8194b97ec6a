#!/usr/bin/env bash
# Starts a real SLURM cluster on this one machine and waits until its nodes are idle; says so if it is up already.
#
# Every node is a network, hostname, mount and pid namespace of its own, on a bridge inside one outer namespace (the login
# node). The machine's own network, /etc and process table stay as they are, and the end of one process (down.sh) ends it all.
#
#   DTK_CLUSTER_DIR             everything lives here (default ${TMPDIR:-/tmp}/dtk-slurm-$UID); one cluster per directory
#   DTK_CLUSTER_NODES           nodes n1, n2, ... (4)
#   DTK_CLUSTER_CPUS _GPUS _MEM  of each node, the GPUs fake, the memory in MB (4, 2, 4000)
#   DTK_CLUSTER_KILL_WAIT _SLURMD_TIMEOUT _GRACE   seconds, see slurm.conf(5): KillWait, SlurmdTimeout, GraceTime (5, 10, 5)
#   DTK_CLUSTER_RATE            of each node's link, as tc(8) writes it: 100mbit (no limit)
#   DTK_CLUSTER_DELAY           milliseconds that a packet takes from one node to another; half of it to the login node (0)
#   DTK_CLUSTER_PROCTRACK       cgroup or linuxproc (cgroup where the kernel has the v1 freezer and we are root)
#   DTK_CLUSTER_CONF            further lines of slurm.conf
#   DTK_CLUSTER_LEASE           number of an open pipe's read end: the cluster ends when the last write end is closed
#
# Exit: 0 up; 1 it did not come up; 2 nothing was started, this machine or this request does not fit.
set -euo pipefail
export LC_ALL=C
started=${EPOCHREALTIME/./}
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
no_arguments "$@"
export DIR
export NODES=${DTK_CLUSTER_NODES:-4} CPUS=${DTK_CLUSTER_CPUS:-4} GPUS=${DTK_CLUSTER_GPUS:-2} MEM=${DTK_CLUSTER_MEM:-4000}
export KILL_WAIT=${DTK_CLUSTER_KILL_WAIT:-5} SLURMD_TIMEOUT=${DTK_CLUSTER_SLURMD_TIMEOUT:-10} GRACE=${DTK_CLUSTER_GRACE:-5}
export CONF=${DTK_CLUSTER_CONF:-}
RATE=${DTK_CLUSTER_RATE:-} DELAY=${DTK_CLUSTER_DELAY:-0}
LEASE=${DTK_CLUSTER_LEASE:-}

refuse() { # these two words let a test tell "cannot" from "failed"
  echo "cannot start: $1" >&2
  exit 2
}

half() { awk -v of="$1" 'BEGIN { print of / 2 }'; } # a packet passes two links

answering() { "$HERE/in.sh" sinfo -h -N -p main -o %T 2>/dev/null | grep -cxE 'idle|mixed|allocated' || true; }

check_request() {
  local name
  for name in NODES CPUS GPUS MEM KILL_WAIT SLURMD_TIMEOUT GRACE; do
    [[ ${!name} =~ ^[0-9]+$ ]] || refuse "DTK_CLUSTER_$name=${!name} is not a number"
  done
  [[ $RATE =~ ^([0-9]+[kmg]?bit)?$ ]] || refuse "DTK_CLUSTER_RATE=$RATE; a rate is 100mbit, 512kbit or 1gbit"
  [[ $DELAY =~ ^[0-9]+(\.[0-9]+)?$ ]] || refuse "DTK_CLUSTER_DELAY=$DELAY is not a number of milliseconds"
  [[ $DELAY =~ ^[0.]+$ ]] && DELAY=
  ((CPUS >= 1)) || refuse "DTK_CLUSTER_CPUS=$CPUS; a node has at least one"
  ((NODES >= 1 && NODES <= 200)) || refuse "DTK_CLUSTER_NODES=$NODES; 1 to 200 fit on the cluster's network"
  # slurm.conf has no quoting, and a socket's path holds at most 107 bytes
  [[ $DIR =~ ^[A-Za-z0-9/._+-]+$ && ${#DIR} -le 90 ]] ||
    refuse "DTK_CLUSTER_DIR=$DIR; it needs at most 90 characters of A-Z a-z 0-9 / . _ + -"
  # a directory that is not ours is never emptied
  [ ! -e "$DIR" ] || [ -e "$DIR/etc/slurm.conf" ] || [ -z "$(ls -A "$DIR")" ] ||
    refuse "$DIR holds something else; choose another DTK_CLUSTER_DIR"
}

check_machine() {
  local tool missing=()
  [ "$(uname -s)" = Linux ] || refuse "a cluster of namespaces needs Linux"
  for tool in munged slurmctld slurmd sbatch ip nsenter unshare; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  [ ${#missing[@]} = 0 ] || refuse "${missing[*]} not found; run slurm/cluster/install.sh"
  [ -z "$RATE" ] || command -v tc >/dev/null || refuse "tc not found, which DTK_CLUSTER_RATE needs; install iproute2"
  [ -z "$DELAY" ] || [[ -w /dev/net/tun && $(id -u) = 0 ]] || refuse "DTK_CLUSTER_DELAY needs root and /dev/net/tun"
  if [ "$(id -u)" != 0 ]; then
    namespaces=(-U --map-current-user --keep-caps "${namespaces[@]}") # a plain user is root in a namespace of users
  elif [ -w "$FREEZER/cgroup.procs" ]; then
    PROCTRACK=cgroup
  fi
  PROCTRACK=${DTK_CLUSTER_PROCTRACK:-$PROCTRACK}
  [ "$PROCTRACK" = linuxproc ] || namespaces+=(-C)
  unshare "${namespaces[@]}" mount -t proc proc /proc 2>/dev/null ||
    refuse "this machine lets $(id -un) make no namespaces (unshare ${namespaces[*]})"
}

write_files() {
  local i
  rm -rf "${DIR:?}"/{etc,log,state,run,dev,spool,cgroup}
  mkdir -p "$DIR"/{etc,log,state,run,dev,spool,cgroup/freezer}
  echo "$conf" >"$DIR/etc/slurm.conf"
  (umask 077 && head -c 128 /dev/urandom >"$DIR/etc/munge.key")
  {
    echo "127.0.0.1 localhost"
    echo "10.77.0.254 login"
    for ((i = 1; i <= NODES; i++)); do echo "10.77.0.$i n$i"; done
  } >"$DIR/etc/hosts"
  printf 'CgroupPlugin=cgroup/v1\nCgroupMountpoint=%s\n' "$DIR/cgroup" >"$DIR/etc/cgroup.conf"
  echo "AutoDetect=off" >"$DIR/etc/gres.conf"
  for ((i = 0; i < GPUS; i++)); do # slurmd wants a character device; CUDA_VISIBLE_DEVICES then comes out right
    ln -s /dev/null "$DIR/dev/gpu$i"
    echo "NodeName=n[1-$NODES] Name=gpu File=$DIR/dev/gpu$i" >>"$DIR/etc/gres.conf"
  done
}

start() {
  if [ "$PROCTRACK" = cgroup ]; then mkdir "$GROUP"; fi
  # env -i: daemons of a real cluster know nothing of the shell that somebody submits from
  (
    if [ "$PROCTRACK" = cgroup ]; then echo "$BASHPID" >"$GROUP/cgroup.procs"; fi
    exec setsid unshare "${namespaces[@]}" env -i PATH="$PATH" HOME="$HOME" bash "$HERE/login.sh" "$DIR" "$NODES" "$RATE" "${DELAY:+$(half "$DELAY")}" "$LEASE"
  ) >"$DIR/log/login.out" 2>&1 </dev/null 9<&- &
}

namespaces=(-n -u -m -p -f --kill-child)
PROCTRACK=linuxproc
check_request
check_machine
export PROCTRACK
conf=$("$HERE/conf.sh")
mkdir -p "$DIR"
lock
if init_pid >/dev/null; then
  [ "$conf" = "$(<"$SLURM_CONF")" ] ||
    refuse "a cluster with other settings is up in $DIR; end it with slurm/cluster/down.sh, or choose another DTK_CLUSTER_DIR"
  n=$(answering)
  [ "$n" = "$NODES" ] || refuse "the cluster in $DIR is up, but $n of $NODES nodes answer; in.sh start NODE, or down.sh"
  echo "already up: $NODES nodes in $DIR"
  exit 0
fi
take_down # what a killed machine may have left
write_files
start
for _ in {1..300}; do
  if [ "$(answering)" = "$NODES" ]; then
    took=$((${EPOCHREALTIME/./} - started))
    printf 'up: %d nodes in %s (%d.%03d s, proctrack/%s)\n' "$NODES" "$DIR" $((took / 1000000)) $((took / 1000 % 1000)) "$PROCTRACK"
    exit 0
  fi
  kill -0 $! 2>/dev/null || break
  sleep 0.1
done
{
  echo "slurm/cluster/up.sh: $(answering) of $NODES nodes answer after $SECONDS s; the ends of the logs in $DIR/log:"
  tail -n 5 "$DIR"/log/*
} >&2
take_down
exit 1
