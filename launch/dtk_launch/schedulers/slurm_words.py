"""What SLURM's refusals mean, and what to do. Pure."""

from __future__ import annotations

import re

_MEANINGS = (
    ("Invalid account or account/partition", "no such account, or it may not use this partition; {assoc}"),
    ("Invalid qos", "no such quality of service for you; {assoc}"),
    ("nvalid partition", "sinfo -s lists the partitions"),
    ("No partition specified", "this cluster has no default one: pass --partition; sinfo -s lists them"),
    (
        "Requested node configuration is not available",
        "no set of nodes has all that is asked for; sinfo -Nel lists them",
    ),
    ("Invalid feature", "no node has this feature; sinfo -o '%N %f' lists them"),
    ("Invalid node name", "no such node; sinfo -N lists them"),
    ("Invalid license", "no such licence; scontrol show licenses lists them"),
    ("reservation is invalid", "no such reservation; scontrol show reservation lists them"),
    ("Requested reservation", "scontrol show reservation says who may use it, and when"),
    ("Memory specification can not be satisfied", "no node has so much memory; sinfo -o '%N %m' lists it in MB"),
    ("generic resource", "no node has such GPUs; sinfo -o '%N %G' lists them, and --gpus-per-node takes TYPE:N"),
    ("Time limit specification required", "this site wants to know how long the job takes; pass --time"),
    ("time limit is invalid", "longer than the partition or your account allows; sinfo -o '%P %l' lists the limits"),
    ("More processors requested than permitted", "--cpus-per-task is more than a node has; sinfo -o '%N %c' lists it"),
    ("violates accounting/QOS policy", "a limit of your account or its quality of service is reached; {assoc}"),
    ("Job dependency problem", "the job to wait for is not known any more, or the form is not TYPE:JOB[:JOB]"),
    ("Invalid job array", "the cluster allows numbers below MaxArraySize; scontrol show config | grep MaxArraySize"),
    ("Access/permission denied", "you may not use this partition, or not as this user; ask the admin"),
    ("Invalid job id", "SLURM does not know this job, or has forgotten it: some minutes after its end it does"),
    ("Invalid user id", "this user is not known on the cluster; log in there"),
    (
        "resolve_ctls_from_dns_srv|establish a configuration source",
        "this host has SLURM's programs and no slurm.conf, so it is no login node of a cluster; run dtk on one",
    ),
    ("nable to contact slurm controller", "slurmctld does not answer; scontrol ping, and try again in a minute"),
    ("Unable to open file|No such file", "a file that the job names is not there"),
    ("[Uu]ser's group not permitted", "your groups (id -Gn) may not use this partition; ask the admin"),
    (
        "unrecognized option|Invalid --\\w+ specification|Invalid time specification",
        "sbatch does not take this option or this value, which --sbatch hands to it as they are; sbatch --help",
    ),
    ("Unspecified error", "the site's submit filter may have refused it; its admin knows the rules"),
)
_ASSOC = "sacctmgr show assoc user=$USER format=account,partition,qos lists yours"
_LATER = re.compile(
    r"Requested nodes are busy|not available \(down, drained|Requested partition configuration not available"
)
_START = re.compile(r"to start at (\S+)")
_ONLY_NOISE = re.compile(
    r"^((sbatch|scancel|srun): )?(slurm_load_jobs |scontrol_print_job )?(error: )?(allocation failure: )?"
)


def meaning(words: str) -> str:
    """What to make of a refusal, '' where it is not known."""
    for form, text in _MEANINGS:
        if re.search(form, words):
            return text.format(assoc=_ASSOC)
    return ""


def explained(words: str) -> str:
    """SLURM's words without its prefixes, and what they mean."""
    lines = list(dict.fromkeys(_ONLY_NOISE.sub("", line).strip() for line in words.splitlines() if line.strip()))
    said = "; ".join(lines) or "no reason given"
    found = meaning(words)
    return f"{said}. It means: {found}" if found else said


def may_wait(words: str) -> bool:
    """Whether this refusal of a test is only for now: the job may be queued."""
    return _LATER.search(words) is not None


def start_of(words: str) -> str:
    """When the job could start, in what `sbatch --test-only` said; '' if it does not say."""
    match = _START.search(words)
    return match[1].replace("T", " ") if match else ""
