"""Every way to play chunks by name: what `execution=` selects."""

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
