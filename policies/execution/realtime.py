"""Real-time chunking: a chunk is made so that it goes on from the rows that play while it is made.

Asynchronous, but the policy is told what is planned: the d rows that will have been played when the chunk is ready are
fixed, and it has to agree with them. With `prefix` they are all it is told (Black et al. 2025, "Training-time action
conditioning for efficient real-time chunking"); with `guided` and `constant` it is drawn to the other planned rows too,
the less the farther they are (Black et al. 2025, "Real-time execution of action chunking flow policies", equation 5).
"""

import math
from dataclasses import dataclass

import numpy as np

from policies.continuing import Continuation, ContinuingPolicy, Method
from policies.execution.asynchronous import Asynchronous
from policies.execution.base import ExecutionConfig
from robot.contract import Policy, PolicySpecs
from robot.errors import ConfigError


class Realtime(Asynchronous):
    """Asks as `Asynchronous` does, with what is planned; at the seam nothing is left to be mixed."""

    def __init__(self, specs: PolicySpecs, config: "RealtimeConfig", most: int) -> None:
        """Nothing is planned yet.

        Args:
            specs: Of the policy.
            config: How the policy is told.
            most: Rows that the policy can keep as they are.
        """
        super().__init__(specs)
        self._config, self._most = config, most

    def _continuation(self, tick: int) -> Continuation | None:
        rows = self.rows_from(tick)
        fixed = min(self.delay.rows, len(rows), self._most)
        if len(rows) == 0 or (fixed == 0 and self._config.method is Method.prefix):
            return None
        fading = 0 if self._config.method is Method.prefix else len(rows) - fixed
        weights = np.concatenate([soft_weights(fixed, fading), np.zeros(len(rows) - fixed - fading)])
        return Continuation(rows, weights, self._config.method, self._config.beta, self._config.prior_std)


def soft_weights(fixed: int, fading: int) -> np.ndarray:
    """How firmly planned rows are kept: `fixed` ones, then `fading` that fall to nearly nothing; (fixed + fading,).

    c (e^c - 1) / (e - 1) with c falling evenly from just below 1 to just above 0.
    """
    c = np.arange(fading, 0, -1) / (fading + 1)
    return np.concatenate([np.ones(fixed), c * np.expm1(c) / np.expm1(1.0)])


@dataclass(kw_only=True)
class RealtimeConfig(ExecutionConfig):
    """Keys of `configs/execution/realtime.yaml`.

    Attributes:
        method: How the policy is told what is planned.
        beta: Strongest pull on a predicted row, for `guided`.
        prior_std: Spread of normalised actions that `guided` expects where the network is not sure yet.
    """

    method: Method = Method.guided
    beta: float = 5.0
    prior_std: float = 1.0

    def __post_init__(self) -> None:
        for key in ("beta", "prior_std"):
            if not 0 < getattr(self, key) < math.inf:
                raise ConfigError(f"execution.{key} is {getattr(self, key)}, expected a finite number above 0.")

    def build(self, policy: Policy) -> Realtime:
        """The execution for a policy that can be told what is planned.

        Raises:
            ConfigError: It cannot, or not by this method.
        """
        methods = policy.methods if isinstance(policy, ContinuingPolicy) else {}
        if self.method not in methods:
            known = ", ".join(f"execution.method={method.value}" for method in methods)
            hint = " `prefix` needs a diffusion head trained with policy.prefix_max above 0." if known else ""
            raise ConfigError(
                f"execution=realtime execution.method={self.method.value}: this policy cannot go on from planned rows "
                f"like that.{hint} What works with it: {known or 'no method'}; or execution=asynchronous, "
                "execution=ensembling, execution=synchronous."
            )
        return Realtime(policy.specs, self, methods[self.method])
