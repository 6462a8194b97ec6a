#!/usr/bin/env bash
# node.sh DIR NAME ADDRESS RATE: process 1 of one node. Started by login.sh in a network, hostname, mount and pid namespace of its own.
DIR=$1 NAME=$2 ADDRESS=$3 RATE=$4
export SLURM_CONF=$DIR/etc/slurm.conf

hostname "$NAME"
mount -t proc proc /proc
# What nodes of a real cluster do not share: shared memory and slurmd's spool. Everything else is one "network" filesystem.
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs "$DIR/spool"
mkdir "$DIR/spool/$NAME"

ip link set lo up
until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done # login.sh makes the link once it knows our pid
ip addr add "$ADDRESS/24" dev eth0
ip link set eth0 up
[ -z "$RATE" ] || tc qdisc add dev eth0 root tbf rate "$RATE" burst 256k latency 50ms

slurmd -N "$NAME"
while :; do # bash as process 1 collects the orphans of ended jobs
  sleep 3600 &
  wait $!
done
