"""`init()` gives a Runtime: the one object that a training script holds."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader
from typing_extensions import Unpack

from dist_toolkit import logs, metrics, seeding
from dist_toolkit.checkpoint import Checkpointer
from dist_toolkit.checkpoint.build import build_checkpointer, named
from dist_toolkit.checkpoint.parts import RngPart
from dist_toolkit.checkpoint.retention import retention_from
from dist_toolkit.checkpoint.schedule import Schedule
from dist_toolkit.data import Choices, Loader, Place, Sharded, WorkerOptions, build_loader, on_every_rank, shard
from dist_toolkit.data.arguments import check_options
from dist_toolkit.decisions import Decisions
from dist_toolkit.devices import choose_device
from dist_toolkit.errors import ConfigError, Preempted
from dist_toolkit.metric_log import MetricLog
from dist_toolkit.process_group import Group, open_group
from dist_toolkit.signals import STOP_SIGNALS, Signals
from dist_toolkit.storage import open_storage
from dist_toolkit.strategies import EMA, Engine, Strategy, resolve_strategy, set_up
from dist_toolkit.strategies.request import BatchWeight, ModelSource, OptimizerFactory, SchedulerFactory, SetupRequest
from dist_toolkit.strategies.told import settle_precision, tuned
from dist_toolkit.world import LaunchSettings, World


def init(
    seed: int = 0, *, device: str = "auto", backend: str = "auto", timeout: float = 1800.0, log_every: int = 50,
    tensorboard: bool | str | Path = False, desync_guard: bool = True, env: Mapping[str, str] | None = None,
) -> Runtime:  # fmt: skip
    """Join the other ranks, or start as the only one. Collective. Use as `with dtk.init(seed=0) as rt:`.

    Args:
        seed: a 64-bit integer; fixes the weights, the sample order, dropout and augmentation.
        device: `auto` (this rank's GPU, or the CPU), `cpu` or `cuda`; DTK_DEVICE speaks where this is `auto`.
        backend: of torch.distributed; `auto` is gloo on CPU and `cpu:gloo,cuda:nccl` on GPUs.
        timeout: seconds after which a collective that not all ranks entered fails.
        log_every: steps between two lines of `rt.log`.
        tensorboard: also write what `rt.log` prints for TensorBoard: True: to `tensorboard` in the run directory; or
            the directory.
        desync_guard: name, within seconds, a collective call that not all ranks make (DesyncError); DTK_DESYNC_GUARD=0
            in the environment of every rank switches it off as well.
        env: the environment to read (default: the process's).

    Raises:
        ConfigError: the environment or the arguments contradict each other or the machine; or ranks were given another
            seed or log_every, or only some tensorboard: on every rank.
    """
    env = os.environ if env is None else env
    if not isinstance(seed, int) or not -(2**63) <= seed < 2**63:
        raise ConfigError(f"seed={seed!r} is not a 64-bit integer")
    if log_every < 1:
        raise ConfigError(f"log_every={log_every} is not a positive number of steps")
    settings = LaunchSettings.from_env(env)
    world = World.from_env(env)
    if dist.is_initialized() and not world.launched:
        world = World(dist.get_rank(), dist.get_rank(), dist.get_world_size(), dist.get_world_size())
    place = choose_device(world, settings.device if device == "auto" else device)
    group = open_group(world, place, backend, timeout, env, desync_guard and settings.desync_guard)
    try:
        _refuse_different(group, seed=seed, log_every=int(log_every), tensorboard=bool(tensorboard))
        return Runtime(group, settings, seed, log_every, tensorboard)
    except BaseException:
        group.close(failed=True)
        raise


class Runtime(Decisions):
    """The ranks of this run, and what a script makes with them.

    Random numbers: until the first model is set up, or the first loader or checkpointer is in use, all ranks draw the
    same (so a random split is the same split); from then on each rank has a stream of its own (so dropout differs).

    Attributes:
        world: this rank's place among all.
        device: where this rank computes.
        group: collectives and messages.
        run_dir: the directory of this run; `runs/<script>` without a launcher.
    """

    def __init__(
        self, group: Group, settings: LaunchSettings, seed: int, log_every: int,
        tensorboard: bool | str | Path = False,
    ) -> None:  # fmt: skip
        self.group, self.seed, self.settings = group, seed, settings
        self.world, self.device = group.world, group.device
        script = Path(sys.argv[0]).stem or "run"
        self.run_dir = Path(settings.run_dir) if settings.run_dir else Path("runs") / script
        self.logger = logs.logger(self.world.rank, self.world.world_size)
        live = self.run_dir / "ranks" / "0.live" if settings.live else None
        self.progress = logs.Progress(self.world.is_main, live)
        board = self.run_dir / "tensorboard" if tensorboard is True else Path(tensorboard) if tensorboard else None
        self._batch_weight = BatchWeight()
        self.log = MetricLog(
            group, self.progress, self.run_dir, log_every, board, weight=lambda: self._batch_weight.value
        )
        self._engines = 0
        self._streams_are_common = True
        self._loaders: list[Loader] = []
        self._checkpointers: list[Checkpointer] = []
        self._signals = Signals()
        self._signals.handle(signal.SIGUSR1)
        seeding.seed_all(seed)

    def setup(
        self, model: nn.Module | Callable[[], nn.Module],
        optimizer: OptimizerFactory | torch.optim.Optimizer | None = None, *,
        scheduler: SchedulerFactory | None = None, strategy: str | Strategy | None = None,
        precision: str | None = None, ema: EMA | None = None,
    ) -> Engine:  # fmt: skip
        """Make an engine of a model and its optimizer. Collective; call it again for a second model.

        Args:
            model: a factory, called with random numbers that depend on the seed alone; or a module (every rank then
                trains from rank 0's weights).
            optimizer: a factory from parameters to an optimizer, such as `partial(torch.optim.AdamW, lr=3e-4)`.
            scheduler: a factory from the optimizer to a learning-rate schedule, which `engine.step` steps.
            strategy: a name or a strategy object; default: what the launcher says, `auto` without one.
            precision: `fp32`, `bf16` or `fp16`: what forward and backward compute in; weights stay fp32. Default: what
                the launcher says, `fp32` without one.
            ema: keep averaged weights, for `engine.averaged()`.

        Raises:
            ConfigError: the strategy is unknown, contradicts the launcher's, or cannot train this model here; or ranks
                were given different arguments: on every rank.
        """

        number, self._engines = self._engines, self._engines + 1

        def read() -> tuple[Strategy, SetupRequest]:
            chosen = tuned(resolve_strategy(self._strategy(strategy), self.world), self.settings.tuning)
            source = ModelSource(model, self.device, seeding.derive(self.seed, "model", number))
            compute = settle_precision(precision, self.settings.precision)
            return chosen, SetupRequest(source, optimizer, self.group, scheduler, compute, ema, self._batch_weight)

        with self.group.watched("rt.setup"):
            engine = set_up(read, self.group)
        self._split_streams()
        return engine

    def loader(
        self, dataset: Any, *, global_batch_size: int | None = None, train: bool = True, shuffle: bool | None = None,
        drop_last: bool | None = None, weights: Any = None, num_samples: int | None = None,
        lengths: Sequence[int] | Callable[[int], int] | None = None, batch_sampler: Any = None,
        sharded: Sharded = None, sample_rng: bool | None = None, micro_batches: int = 1,
        **options: Unpack[WorkerOptions],
    ) -> Loader:  # fmt: skip
        """A loader over a map-style or an iterable data set. Collective.

        Args:
            global_batch_size: samples of one step over all ranks; None where `batch_sampler` says.
            train: position kept from one `for` to the next, shuffled, incomplete last batch dropped; otherwise in
                order, each sample exactly once.
            shuffle, drop_last: override what `train` says. A training tail that is kept is shared out as evenly as it
                can be; `Loader.weight` says how much of it this rank has.
            weights, num_samples: draw `num_samples` an epoch (default: as many as there are), with replacement, each
                sample with probability weight / sum.
            lengths: of all samples, or a function of the index: batches hold samples of near-equal length.
            batch_sampler: gives global batches of indices, the same on all ranks.
            sharded: of an iterable data set: True: it divides itself by rank and worker; "workers": by torch's
                get_worker_info alone; False: share out its items, the same in all readers; None: find out.
            sample_rng: seed the generators for each sample; None: unless no code of yours fetches it.
            micro_batches: in how many `engine.accumulate` will split each rank's part, which must then divide.
            options: for torch's DataLoader.

        Raises:
            ConfigError: on every rank, if on any the data set is empty or an argument does not fit it, the others or
                the number of ranks.
        """
        place = Place(self.world, self.device, self.seed, self.group)

        def make() -> Loader:
            check_options(options)
            choices = Choices(
                global_batch_size, train, shuffle, drop_last, sample_rng, weights, num_samples, lengths, batch_sampler,
                sharded, micro_batches,
            )  # fmt: skip
            return build_loader(dataset, place, choices, options)

        return self._adopt(on_every_rank(self.group, make))

    def shard(self, loader: DataLoader[Any], *, train: bool | None = None) -> Loader:
        """Make a torch DataLoader right for this number of ranks; see `dist_toolkit.data.shard`. Collective."""
        place = Place(self.world, self.device, self.seed, self.group)
        return self._adopt(on_every_rank(self.group, lambda: shard(loader, place, train=train)))

    def checkpointer(
        self, root: str | Path | None = None, *, engine: Engine | Mapping[str, Engine] | None = None,
        loader: Loader | Mapping[str, Loader] | None = None, state: Mapping[str, Any] | None = None,
        every: int | Literal["auto"] | None = None, failures_per_day: float | None = None,
        keep_last: int | None = None, keep_best: str | None = None, keep_every: int | None = None,
        waive: Collection[str] = (), background: bool = True,
    ) -> Checkpointer:  # fmt: skip
        """A checkpointer for these engines, loaders and other objects, and for the random generators of every rank.

        Args:
            root: the directory, shared by all nodes, or a URL (`s3://bucket/run`); default: `checkpoints` in the run
                directory.
            engine, loader: one, or several by name.
            state: other objects with state_dict and load_state_dict, by name; the same on every rank.
            every: steps between saves; `auto`: as often as loses least, by what a save is found to cost and by
                `failures_per_day` (Young/Daly); None: only at the end, and when preempted.
            failures_per_day: for `auto`, of the whole run (default: 1).
            keep_last: how many of the newest checkpoints to keep; None: all.
            keep_best: `max:NAME` or `min:NAME` of a metric given to `report`: its best checkpoint is kept as well.
            keep_every: steps that are a multiple of this are kept as well.
            background: the saves of `steps` keep training waiting only while the state is copied.
            waive: parts (`rng`, `loader`, a name) that a resume may do without where a checkpoint lacks them.

        Raises:
            ConfigError: an argument is out of range, or an object has no state.
        """
        self._split_streams()
        checkpointer = build_checkpointer(
            self.group,
            open_storage(self.run_dir / "checkpoints" if root is None else root),
            named("engine", engine),
            named("loader", loader),
            state,
            RngPart(self.world.rank, self.world.world_size, self.device, self.seed),
            schedule=Schedule(every, failures_per_day),
            retention=retention_from(keep_last, keep_best, keep_every),
            waive=waive,
            background=background,
            signals=self._signals,
            run_dir=self.run_dir if self.settings.run_dir else None,
        )
        self._signals.leave = self._leave
        self._signals.handle(*STOP_SIGNALS)
        self._checkpointers.append(checkpointer)
        return checkpointer

    def mean(self) -> metrics.Mean:
        """A new mean over all samples of all ranks: `update` with one value a sample, then `compute`."""
        return metrics.Mean(self.group)

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """All ranks' tensors, concatenated along dimension 0, which may differ in size. Collective.

        A scalar counts as one element; a rank that has nothing may pass `torch.empty(0)`.

        Raises:
            ConfigError: on every rank, if types or other dimensions differ.
        """
        with self.group.watched("rt.gather"):
            return torch.cat(self.group.all_gather(tensor if tensor.ndim else tensor.reshape(1)))

    def print(self, *values: object, sep: str = " ") -> None:
        """Print a line as `print` does, once: on rank 0."""
        self.progress.line(sep.join(map(str, values)))

    def close(self, failed: bool = False) -> None:
        """End loader workers and the process group; `failed` if a peer may be gone. `with` does this."""
        self._signals.listen()  # what has come to its end is not interrupted any more
        try:
            for checkpointer in self._checkpointers:
                checkpointer.close(failed)
        except BaseException:
            failed = True
            raise
        finally:
            for loader in self._loaders:
                loader.close()
            self._end_requests(failed)
            self._end(failed)
            self._signals.restore()

    def _end(self, failed: bool) -> None:
        self.log.close()
        self.progress.close()
        self.group.close(failed)

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        in_order = kind is None or (isinstance(value, SystemExit) and value.code in (None, 0, Preempted.EXIT_CODE))
        alone = isinstance(value, Preempted) and not value.together
        if alone:
            self.logger.warning("preempted outside the training loop; started again, it goes on")
        self.close(failed=alone or not in_order)

    def _leave(self) -> Preempted | None:
        """What a signal outside the loop of `steps` ends this rank with; None: something is unsaved."""
        if all(checkpointer.is_current for checkpointer in self._checkpointers):
            return Preempted(max(checkpointer.step for checkpointer in self._checkpointers), together=False)
        return None

    def _strategy(self, wanted: str | Strategy | None) -> str | Strategy:
        told = self.settings.strategy
        if wanted is None:
            return told
        other: Any = wanted
        if not isinstance(other, (str, Strategy)):
            given = f"{other.__name__}, a class" if isinstance(other, type) else repr(other)
            raise ConfigError(f"strategy={given}: pass a name such as 'ddp', or an object such as dtk.DDP()")
        name = wanted if isinstance(wanted, str) else wanted.name
        if told not in ("auto", name) and name != "auto":
            raise ConfigError(
                f"the script asks for strategy {name!r}, the launcher for {told!r} (DTK_STRATEGY); drop one of the two"
            )
        return told if wanted == "auto" else wanted

    def _adopt(self, loader: Loader) -> Loader:
        loader.on_iter(self._split_streams)
        loader.on_batch(partial(self._batch_weight.handed_out, id(loader)))
        loader.on_end(partial(self._batch_weight.ended, id(loader)))
        self._loaders.append(loader)
        return loader

    def _split_streams(self) -> None:
        if self._streams_are_common:
            self._streams_are_common = False
            seeding.seed_all(seeding.derive(self.seed, "rank", self.world.rank))


def _refuse_different(group: Group, **arguments: int) -> None:
    with group.unwatched():  # no call of the user's: the guard counts from the first one
        given = group.all_gather_json(arguments)
    for name, first in given[0].items():
        for rank, other in enumerate(given):
            if other[name] != first:
                hint = "each still draws random numbers of its own" if name == "seed" else "rank 0 alone writes"
                raise ConfigError(
                    f"init({name}=...) is {first} on rank 0 and {other[name]} on rank {rank}; "
                    f"pass the same on every rank ({hint})"
                )
