"""From options to what is run: observe, check, decide, render, record. The sequence of launch, explain and rerun."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from dtk_launch.config import Settings, resolve
from dtk_launch.errors import PlanError
from dtk_launch.facts import HostFacts
from dtk_launch.given import with_source
from dtk_launch.meeting import look
from dtk_launch.needs import check_needs
from dtk_launch.options import LaunchOptions
from dtk_launch.plan import LaunchPlan, build_plan
from dtk_launch.runfolder import check_run_folder
from dtk_launch.script import check_script
from dtk_launch.sources import complete
from dtk_launch.torchrun import Command, check_pet, render
from dtk_launch.values import parse_env


@dataclass(frozen=True)
class Launch:
    """Everything that is decided; nothing has been started."""

    plan: LaunchPlan
    command: Command
    options: LaunchOptions
    facts: HostFacts

    def hints(self) -> tuple[str, ...]:
        """What is probably not meant. Of several nodes the first says it."""
        from dtk_launch import hints

        if self.plan.topology.node != "0":
            return ()
        script = None if self.options.module else self.facts.cwd / self.options.script
        source = script.read_text(encoding="utf-8", errors="replace") if script is not None else None
        return hints.hints(self.plan, dict(self.facts.environ), source)

    def values(self) -> dict[str, Any]:
        """The plan as plain values, with all that is needed to run it: what --json prints."""
        from dtk_launch.explain import plan_json

        return plan_json(self.plan, self.command)

    def record(self) -> dict[str, Any]:
        """What plan.json is to hold. Looks at the source tree."""
        from dtk_launch import record

        around = record.observe(self.plan, self.facts, self.options)
        return record.record(self.plan, self.command, self.options, around)


def from_command_line(given: Mapping[str, Any]) -> Launch:
    """A launch of what the command line, the environment and the file of settings ask for. Raises DtkError."""
    facts = HostFacts.probe()
    return decide(resolve(LaunchOptions, given, dict(facts.environ), facts.cwd), facts)


def _among_nodes(options: LaunchOptions, facts: HostFacts) -> HostFacts:
    """The facts, with how the nodes reach each other. Raises PlanError; a dry run shows names that nobody knows."""
    from dtk_launch.reach import addressed, gloo_interface

    step, meeting = facts.allocation, facts.meeting
    if step is None:
        head = meeting.addresses[0] if meeting is not None and meeting.addresses else ""
        return replace(facts, gloo_interface=gloo_interface(head))
    with suppress(*((PlanError,) if options.dry_run else ())):
        step = addressed(step)
    return replace(facts, allocation=step, gloo_interface=gloo_interface(step.head_address or step.head))


def _alone(settings: Settings[LaunchOptions], facts: HostFacts) -> HostFacts:
    """The facts of one node, with whether its ranks find it. A name that torchrun is told by PET_LOCAL_ADDR stays.

    Raises PlanError where no process of this host reaches another.
    """
    from dtk_launch.reach import FIX_LOOPBACK, loopback_is_down, unnamed

    if not settings.options.dry_run and loopback_is_down():
        raise PlanError(f"the loopback interface of this host is down, so no rank would find torchrun; {FIX_LOOPBACK}")
    told = "PET_LOCAL_ADDR" in {**dict(facts.environ), **dict(parse_env(settings.options.env))}
    return facts if told else replace(facts, unnamed=unnamed())


def decide(settings: Settings[LaunchOptions], facts: HostFacts) -> Launch:
    """A launch of these options on this host. Raises PlanError."""
    environ = dict(facts.environ)
    check_script(settings.options.script, settings.options.module, facts.cwd, settings.options.env)
    check_needs(settings.options, facts.cwd, environ, settings.sources)
    if settings.options.rdzv:
        facts = replace(facts, meeting=look(settings.options.rdzv))
    try:
        plan = build_plan(settings, facts)
        if plan.topology.nodes > 1:
            facts = _among_nodes(settings.options, facts)
            plan = build_plan(settings, facts)
        elif (alone := _alone(settings, facts)) != facts:
            facts, plan = alone, build_plan(settings, alone)
        plan = complete(check_pet(plan, environ), settings, environ)
        check_run_folder(plan.run_dir)
    except PlanError as error:
        raise PlanError(with_source(str(error), settings.sources)) from None
    return Launch(plan, render(plan), settings.options, facts)
