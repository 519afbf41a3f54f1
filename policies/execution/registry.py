"""Every way to play chunks by name: what `execution=` selects."""

from dataclasses import asdict
from enum import Enum
from typing import Any

from policies.execution.asynchronous import AsynchronousConfig
from policies.execution.base import ExecutionConfig
from policies.execution.ensembling import EnsemblingConfig
from policies.execution.realtime import RealtimeConfig
from policies.execution.synchronous import SynchronousConfig

EXECUTIONS: dict[str, type[ExecutionConfig]] = {
    "synchronous": SynchronousConfig,
    "asynchronous": AsynchronousConfig,
    "ensembling": EnsemblingConfig,
    "realtime": RealtimeConfig,
}
"""Name to config; the config builds the execution."""


def described(config: ExecutionConfig) -> dict[str, Any]:
    """Name and keys, as result files hold them."""
    name = next(name for name, schema in EXECUTIONS.items() if schema is type(config))
    return {
        "name": name,
        **{key: value.value if isinstance(value, Enum) else value for key, value in asdict(config).items()},
    }
