#!/usr/bin/env bash
# Installs what the test cluster needs (Debian, Ubuntu), and shellcheck, which checks these scripts. Root. Quiet unless it fails.
set -euo pipefail
packages=(munge slurmctld slurmd slurm-client iproute2 util-linux shellcheck)

refuse() {
  echo "slurm/cluster/install.sh: $1" >&2
  exit 2
}

command -v apt-get >/dev/null || refuse "this machine has no apt-get; install by hand: ${packages[*]}"

# Nothing to do is the common case, and then neither root nor a network is needed.
# shellcheck disable=SC2016  # ${...} is dpkg-query's own syntax
installed=$(dpkg-query -W -f '${db:Status-Status}\n' "${packages[@]}" 2>/dev/null | grep -cx installed || true)
if [ "$installed" = "${#packages[@]}" ]; then
  echo "already installed: ${packages[*]}"
  exit 0
fi
[ "$(id -u)" = 0 ] || refuse "needs root to install ${packages[*]}; try: sudo slurm/cluster/install.sh"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
quietly() {
  "$@" >"$log" 2>&1 || {
    cat "$log" >&2
    echo "slurm/cluster/install.sh: failed: $*" >&2
    exit 1
  }
}

# RUNLEVEL=1 asks the packages' scripts not to start their daemons: the cluster starts its own, with its own files.
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
quietly apt-get update -qq
quietly apt-get install -y -qq --no-install-recommends "${packages[@]}"
echo "installed: ${packages[*]}"
