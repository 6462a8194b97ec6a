"""Where this process stands among the ranks, read once from the environment. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dist_toolkit.errors import ConfigError


@dataclass(frozen=True)
class World:
    """The place of this process among all ranks.

    A process that no launcher started is the one rank of a world of one, so `python train.py` is the same program.
    """

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    node_rank: int = 0
    num_nodes: int = 1
    restart_count: int = 0
    launched: bool = False
    """Whether a launcher (torchrun, dtk) set the variables."""

    def __post_init__(self) -> None:
        for name, value, size in (
            ("RANK", self.rank, self.world_size),
            ("LOCAL_RANK", self.local_rank, self.local_world_size),
            ("GROUP_RANK", self.node_rank, self.num_nodes),
        ):
            if not 0 <= value < size:
                raise ConfigError(
                    f"{name}={value} is not in 0 to {size - 1}; the launcher's variables contradict each other"
                )
        if self.local_world_size > self.world_size:
            raise ConfigError(f"LOCAL_WORLD_SIZE={self.local_world_size} is more than WORLD_SIZE={self.world_size}")

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0. Never put a collective behind it."""
        return self.rank == 0

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> World:
        """Read torchrun's variables.

        Without RANK and WORLD_SIZE this is a world of one; one without the other is an error.

        Raises:
            ConfigError: a variable is missing, not a number, or contradicts another.
        """
        present = [name for name in ("RANK", "WORLD_SIZE") if name in env]
        if not present:
            return cls()
        if len(present) == 1:
            missing = "WORLD_SIZE" if present == ["RANK"] else "RANK"
            raise ConfigError(
                f"{present[0]} is set but {missing} is not; start with `dtk launch` or torchrun, or unset it"
            )
        world_size = _number(env, "WORLD_SIZE", None)
        rank = _number(env, "RANK", None)
        local_world_size = _number(env, "LOCAL_WORLD_SIZE", world_size)
        return cls(
            rank=rank,
            local_rank=_number(env, "LOCAL_RANK", rank % local_world_size if local_world_size > 0 else rank),
            world_size=world_size,
            local_world_size=local_world_size,
            node_rank=_number(env, "GROUP_RANK", rank // local_world_size if local_world_size > 0 else 0),
            num_nodes=_number(
                env, "GROUP_WORLD_SIZE", -(-world_size // local_world_size) if local_world_size > 0 else 1
            ),
            restart_count=_number(env, "TORCHELASTIC_RESTART_COUNT", 0),
            launched=True,
        )


TUNING = (
    "DTK_OFFLOAD", "DTK_ZERO_STAGE", "DTK_DEEPSPEED_CONFIG", "DTK_FSDP_WRAP", "DTK_FSDP_RESHARD",
    "DTK_FSDP_ACTIVATION_CHECKPOINTING",
)  # fmt: skip
"""Options of a strategy that a launcher can give."""


@dataclass(frozen=True)
class LaunchSettings:
    """What the launcher, or the user's shell, says about the run (docs/wire.md)."""

    run_dir: str | None = None
    run_name: str | None = None
    strategy: str = "auto"
    device: str = "auto"
    live: bool = False
    desync_guard: bool = True
    precision: str | None = None
    tuning: tuple[tuple[str, str], ...] = ()
    """The variables of TUNING that are set, with their values."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> LaunchSettings:
        """Read the DTK_* variables.

        Raises:
            ConfigError: DTK_DEVICE or DTK_PRECISION is not a known one, or DTK_DESYNC_GUARD is neither 0 nor 1.
        """
        guard = env.get("DTK_DESYNC_GUARD") or "1"
        if guard not in ("0", "1"):
            raise ConfigError(f"DTK_DESYNC_GUARD={guard!r} is neither 0 (off) nor 1 (on)")
        device = env.get("DTK_DEVICE") or "auto"
        if device not in ("auto", "cpu", "cuda"):
            raise ConfigError(f"DTK_DEVICE={device!r} is not a device; known: auto, cpu, cuda")
        precision = env.get("DTK_PRECISION") or "auto"
        if precision not in ("auto", "fp32", "bf16", "fp16"):
            raise ConfigError(f"DTK_PRECISION={precision!r} is not a precision; known: auto, fp32, bf16, fp16")
        return cls(
            run_dir=env.get("DTK_RUN_DIR") or None,
            run_name=env.get("DTK_RUN_NAME") or None,
            strategy=env.get("DTK_STRATEGY") or "auto",
            device=device,
            live=env.get("DTK_LIVE") == "1",
            desync_guard=guard != "0",
            precision=None if precision == "auto" else precision,
            tuning=tuple((name, env[name]) for name in TUNING if env.get(name)),
        )


def _number(env: Mapping[str, str], name: str, default: int | None) -> int:
    text = env.get(name)
    if text is None:
        if default is None:
            raise ConfigError(f"{name} is not set; start with `dtk launch` or torchrun")
        return default
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{name}={text!r} is not a number") from None
