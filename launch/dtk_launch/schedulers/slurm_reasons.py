"""Why a job waits, or ended as it did, in words and with what to do. Pure."""

from __future__ import annotations

import re

_LIMITS = (
    "sacctmgr show assoc user=$USER format=account,partition,grptres,maxtres lists the limits, squeue who uses them"
)
_REASONS = (
    ("Priority", "jobs of a higher priority are before it"),
    ("Resources", "it is next, and waits until nodes are free"),
    ("BeginTime", "it may not start before {start}: {begin}"),
    ("DependencyNeverSatisfied", "the job that it waits for has not ended as asked, so it never starts; cancel it"),
    ("Dependency", "it waits for another job ({dependency})"),
    ("JobHeldUser", "you have held it; scontrol release {job} lets it go on"),
    ("JobHeldAdmin", "an admin has held it, or it was requeued too often; ask them"),
    (
        "launch[_ ]failed[_ ]requeued[_ ]held",
        "its start failed on a node, and SLURM holds it; the node's slurmd log tells why, and "
        "scontrol release {job} tries again",
    ),
    ("JobArrayTaskLimit", "as many tasks of the array run as its %N allows"),
    ("PartitionNodeLimit", "it asks for more nodes than the partition gives a job; cancel it and submit with fewer"),
    (
        "PartitionTimeLimit",
        "it asks for more time than the partition allows; scontrol update jobid={job} timelimit=...",
    ),
    ("PartitionDown|PartitionInactive", "the partition takes no jobs now; sinfo -s shows which do"),
    ("AccountNotAllowed|QOSNotAllowed", "the partition does not take jobs of this account or quality of service"),
    (
        "ReqNodeNotAvail",
        "nodes that it asks for are down, drained or reserved for maintenance (sinfo -R tells); with a shorter --time "
        "it may fit in before",
    ),
    ("NodeDown", "a node that it needs is down; sinfo -R tells why"),
    ("Reservation", "it waits for its reservation to begin; scontrol show reservation lists them"),
    ("BadConstraints", "no node has what it asks for any more; cancel it, and ask for less"),
    ("Licenses", "it waits for a licence that others use; scontrol show licenses lists them"),
    ("MaxNodePerAccount|MaxCpuPerAccount|MaxJobsPerAccount", "your account runs as much as it may; {limits}"),
    ("Assoc\\w*Limit|Assoc(Grp|Max)\\w*", "your account, or you in it, has as much as it may at a time; {limits}"),
    ("QOS\\w*", "its quality of service allows no more at a time; sacctmgr show qos lists the limits"),
    ("InvalidAccount|InvalidQOS", "its account or quality of service is not known any more; cancel it and submit anew"),
    ("Prolog", "the site's prolog prepares its nodes"),
    ("Cleaning", "what is left of its earlier attempt is being ended"),
    ("JobLaunchFailure", "its script could not be started; often the folder of its log is not there on the node"),
    ("NonZeroExitCode", ""),
    (
        "TimeLimit",
        "its time was up; submit again, with more --time if it is to end: a training goes on from its last checkpoint, "
        "if it has saved one, and a benchmark with --resume",
    ),
    ("OutOfMemory", "it used more memory than it had asked for; --mem asks for more"),
    ("RaisedSignal:?.*", "a signal ended it"),
)


_REQUEUED = "SLURM keeps a requeued job for two minutes"
_ASKED = "the --begin that was asked for"


def reason_words(reason: str, job: str, start: str = "", dependency: str = "", restarts: int | None = None) -> str:
    """What a reason of SLURM means, and what to do; '' where it is not known, or says nothing.

    `restarts` None: not known.
    """
    for form, text in _REASONS:
        if re.fullmatch(form, reason.split(",")[0].strip("() "), re.IGNORECASE):
            found = {
                "job": job,
                "start": start or "its time",
                "dependency": dependency or "scontrol show job tells which",
                "begin": f"{_ASKED}, or {_REQUEUED}" if restarts is None else _REQUEUED if restarts else _ASKED,
            }
            return text.format(limits=_LIMITS, **found)
    return ""
