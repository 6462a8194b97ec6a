"""Which parameters are trained: fixed when the engine is made, because strategies reduce and split just those."""

from __future__ import annotations

from torch import nn

from dist_toolkit.errors import ConfigError
from dist_toolkit.strategies.state import strip_wrappers
from dist_toolkit.strategies.unused import listed


class TrainedParameters:
    """The parameters of a model, and which of them require a gradient now."""

    def __init__(self, module: nn.Module) -> None:
        named = list(module.named_parameters())
        self._names = [strip_wrappers(name) for name, _ in named]
        self._parameters = [parameter for _, parameter in named]
        self._flags = self._now()

    def check(self) -> None:
        """Refuse another choice than at the beginning; some nanoseconds a parameter.

        Raises:
            ConfigError: names what was frozen or unfrozen.
        """
        now = self._now()
        if now == self._flags:
            return
        changed = [name for name, was, is_ in zip(self._names, self._flags, now, strict=True) if was != is_]
        what = "unfrozen" if now[self._names.index(changed[0])] else "frozen"
        raise ConfigError(
            f"{len(changed)} parameters were {what} since rt.setup: {listed(changed)}; what is trained is fixed "
            "then: choose before it, set a learning rate of 0, or use `with engine.frozen()` for a backward pass"
        )

    def _now(self) -> list[bool]:
        return [parameter.requires_grad for parameter in self._parameters]
