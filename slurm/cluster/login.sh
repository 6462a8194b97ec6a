#!/usr/bin/env bash
# login.sh DIR NODES RATE DELAY [LEASE_FD]: the login node, and process 1 of the whole cluster. Started by up.sh inside namespaces of its
# own. Runs munge and slurmctld, starts the nodes, then waits for the orders that in.sh writes to DIR/run/ctl.
DIR=$1 NODES=$2 RATE=$3 DELAY=$4 LEASE=${5:-}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export SLURM_CONF=$DIR/etc/slurm.conf

# /proc is still the machine's: it tells the pid that down.sh will need. Noted first, so that no running cluster is unknown.
read -r pid _ </proc/self/stat
echo "$pid" >"$DIR/init.pid"

hostname login
mount -t proc proc /proc
mount --bind "$DIR/etc/hosts" /etc/hosts
# With a cgroup namespace around us this shows our own group as the root: what SLURM makes stays inside it.
if grep -q '^ProctrackType=proctrack/cgroup' "$SLURM_CONF"; then
  mount -t cgroup -o freezer cgroup "$DIR/cgroup/freezer"
fi
ip link set lo up
ip link add br0 type bridge
ip addr add 10.77.0.254/24 dev br0
ip link set br0 up

mkfifo "$DIR/run/ctl"
exec 3<>"$DIR/run/ctl"
if [ -n "$LEASE" ]; then # the end of file arrives when the last holder of the other end has died
  {
    read -r _ <&"$LEASE"
    echo end >&3
  } &
  exec {LEASE}<&-
fi

munged --force --key-file="$DIR/etc/munge.key" --socket="$DIR/run/munge.sock" --pid-file="$DIR/run/munged.pid" \
  --log-file="$DIR/log/munged.log" --seed-file="$DIR/run/munged.seed" 3>&-
slurmctld 3>&-

wires=() # the process of each link, where frames are delayed
start_node() {
  local unshared pid
  [ -z "${wires[$1]:-}" ] || kill "${wires[$1]}" 2>/dev/null
  ip link del "v$1" 2>/dev/null
  unshare -n -u -m -p -f --kill-child bash "$HERE/node.sh" "$DIR" "n$1" "10.77.0.$1" "$RATE" 3>&- >>"$DIR/log/n$1.out" 2>&1 &
  unshared=$!
  until pid=$(cat "/proc/$unshared/task/$unshared/children") && [ -n "$pid" ]; do sleep 0.01; done
  pid=${pid% }
  echo "$pid" >"$DIR/run/n$1.pid" # the number it has here, in the login node's namespace
  if [ -n "$DELAY" ]; then
    python3 "$HERE/wire.py" "$pid" "$1" "$DELAY" 3>&- >>"$DIR/log/wire$1.out" 2>&1 &
    wires[$1]=$!
    return
  fi
  ip link add "v$1" type veth peer name eth0 netns "$pid"
  ip link set "v$1" master br0 up
}
crash_node() { # the processes die, their peers see connections reset
  kill -9 "$(<"$DIR/run/n$1.pid")"
  rm "$DIR/run/n$1.pid" # the number may soon be another process's
}
stop_node() { # power cut: the link goes first, so no FIN and no RST leaves the node
  ip link set "v$1" down
  crash_node "$1"
}

for ((i = 1; i <= NODES; i++)); do start_node "$i"; done
while read -r order node <&3; do
  case $order in
    start | stop | crash) "${order}_node" "$node" ;;
    end) exit ;;
  esac
done
