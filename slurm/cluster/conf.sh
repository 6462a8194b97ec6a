#!/usr/bin/env bash
# Prints the cluster's slurm.conf. Called by up.sh, which sets every variable used here.
set -euo pipefail
cat <<CONF
ClusterName=dtk
SlurmctldHost=login(10.77.0.254)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$DIR/run/munge.sock
CredType=cred/munge
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool/%n
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmdPidFile=$DIR/run/slurmd.%n.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd.%n.log
ProctrackType=proctrack/$PROCTRACK
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none

# No slurmdbd, so no sacct: finished jobs stay visible to scontrol for an hour, and in a file.
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$DIR/log/jobcomp.txt
MinJobAge=3600

SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
# The nodes are what this file says, not what slurmd finds on the one machine below them.
SlurmdParameters=config_overrides

# A test must not wait for a scheduler that batches its work for the sake of thousands of jobs.
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
KillWait=$KILL_WAIT
SlurmdTimeout=$SLURMD_TIMEOUT
InactiveLimit=0
# A node that was cut off serves again as soon as it answers.
ReturnToService=2
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
$CONF

NodeName=DEFAULT CPUs=$CPUS Boards=1 SocketsPerBoard=1 CoresPerSocket=$CPUS ThreadsPerCore=1 RealMemory=$MEM State=UNKNOWN
CONF
for ((i = 1; i <= NODES; i++)); do
  echo "NodeName=n$i NodeAddr=10.77.0.$i$([ "$GPUS" = 0 ] || echo " Gres=gpu:$GPUS")"
done
cat <<CONF
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=10 PriorityTier=1 PreemptMode=REQUEUE GraceTime=$GRACE State=UP
PartitionName=hi Nodes=ALL MaxTime=INFINITE DefaultTime=10 PriorityTier=10 PreemptMode=OFF State=UP
CONF
