#!/usr/bin/env bash
# in.sh CMD...                   runs CMD on the login node of the cluster of DTK_CLUSTER_DIR, in the current directory
# in.sh -n n2 CMD...             runs it on node n2
# in.sh stop|crash|start n2      cuts the power of, crashes or starts a node; sinfo shows the effect a little later
set -euo pipefail
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
export -n DTK_CLUSTER_DIR # CMD is to see what a user of a real cluster would

refuse() {
  echo "in.sh: $1" >&2
  exit 2
}
known() { # is $1 a node?
  local nodes
  nodes=$(grep -o ' n[0-9][0-9]*$' "$DIR/etc/hosts" | xargs)
  [[ -n ${1:-} && " $nodes " == *" $1 "* ]] || refuse "no node '${1:-}'; the nodes: $nodes"
}
children() { cat "/proc/$1/task/$1/children" 2>/dev/null || true; }

# Prints the pid that node $1's first process has here; fails if the node is not running. These processes are grandchildren of
# the cluster's first (login.sh -> unshare -> node.sh). NSpid lists the number a process has in each namespace it is in; the
# last but one is the login node's, which login.sh wrote down.
pid_here() {
  local want child grandchild nspid nodes below
  want=$(cat "$DIR/run/$1.pid" 2>/dev/null) || return 1
  read -r -a nodes < <(children "$init"; echo)
  for child in "${nodes[@]}"; do
    read -r -a below < <(children "$child"; echo)
    for grandchild in "${below[@]}"; do
      read -r -a nspid < <(grep ^NSpid: "/proc/$grandchild/status" 2>/dev/null || echo - -)
      [ "${nspid[-2]}" != "$want" ] || { echo "$grandchild" && return; }
    done
  done
  return 1
}

init=$(init_pid) || refuse "no cluster is up in $DIR; start one with slurm/cluster/up.sh"
case ${1:-} in
  '' | -h | --help)
    sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}"
    exit
    ;;
  stop | crash)
    known "${2:-}"
    pid_here "$2" >/dev/null || refuse "node $2 is not running"
    echo "$1 ${2#n}" >"$DIR/run/ctl"
    exit
    ;;
  start)
    known "${2:-}"
    ! pid_here "$2" >/dev/null || refuse "node $2 is running; if its slurmd has died, stop it first"
    echo "start ${2#n}" >"$DIR/run/ctl"
    exit
    ;;
esac
target=$init
if [ "$1" = -n ]; then
  known "${2:-}"
  target=$(pid_here "$2") || refuse "node $2 is not running"
  shift 2
fi
namespaces=(-n -u -m -p)
[ "$(id -u)" = 0 ] || namespaces+=(-U --preserve-credentials)
exec nsenter -t "$target" "${namespaces[@]}" --wdns="$PWD" -- "$@"
