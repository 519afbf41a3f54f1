"""The `armature` command: a table of verbs, each resolved only when it is called.

`armature --help` therefore imports neither torch nor MuJoCo, and `robot` may name functions of packages above it
without importing them.
"""

import importlib
import importlib.metadata
import sys
from dataclasses import dataclass

from robot.errors import ArmatureError, ConfigError, unknown_name


@dataclass(frozen=True)
class Verb:
    """One verb: where its function lives, and the line that help shows."""

    function: str
    summary: str
    example: str


VERBS = {
    "record": Verb(
        "robot.episodes.record:main",
        "run a demonstrator in the world and write one MCAP file per episode",
        "armature record env=lift source=expert episodes=50",
    ),
    "build": Verb(
        "robot.episodes.build:main",
        "turn episodes into a LeRobotDataset v3 with normalisation statistics",
        "armature build episodes=data/lift/episodes out=data/lift/dataset",
    ),
    "train": Verb(
        "policies.train:main",
        "train a policy head on a dataset; resumes where it was interrupted",
        "armature train policy=diffusion dataset=data/lift/dataset",
    ),
    "evaluate": Verb(
        "policies.evaluate:main",
        "measure a checkpoint's success in simulation on fixed initial states",
        "armature evaluate checkpoint=runs/lift/diffusion episodes=50",
    ),
    "bridge": Verb(
        "hardware.bridge:main",
        "hold an arm in a real-time process behind a ZMQ gateway",
        "armature bridge arm=twin task=lift",
    ),
    "keys": Verb(
        "hardware.keys:main",
        "make keys, and say which clients may connect to a bridge",
        "armature keys authorise=alice.key",
    ),
    "doctor": Verb(
        "hardware.doctor.command:main",
        "say what this machine brings for a real-time bridge, and what to change",
        "armature doctor arm=franka",
    ),
    "watch": Verb(
        "robot.bridge.watch:main",
        "show a bridge live: state, lease, rates, clamps, faults",
        "armature watch bridge=tcp://127.0.0.1:5555",
    ),
    "deploy": Verb(
        "policies.deploy:main",
        "drive the arm behind a bridge with a checkpoint",
        "armature deploy checkpoint=runs/lift/diffusion episodes=10",
    ),
    "calibrate": Verb(
        "robot.bridge.calibrate:main",
        "measure how late the arm behind a bridge acts and its cameras see",
        "armature calibrate latency axis=y out=latency.json",
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run one verb; 0 on success, 1 on a user's error, 2 on a wrong command line, 130 on Ctrl-C."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from robot import __version__

        print(f"armature {__version__}")
        return 0
    return _guarded(arguments[0], arguments[1:])


def _guarded(name: str, arguments: list[str]) -> int:
    try:
        _refuse_robot_framework()
        return _run(name, arguments)
    except ArmatureError as error:
        print(f"armature {name}: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        print(f"armature {name}: interrupted.", file=sys.stderr)
        return 130


def _run(name: str, arguments: list[str]) -> int:
    if name not in VERBS:
        raise unknown_name("verb", name, VERBS, "See `armature --help`.")
    verb = VERBS[name]
    if any(argument in ("-h", "--help") for argument in arguments):
        print(_verb_help(name, verb))
        return 0
    module, function = verb.function.split(":")
    try:
        entry = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{name!r} needs the Python package {error.name!r}, which is not installed here. "
            "Install what this machine is for: `pip install '.[sim,data,train]'` in a checkout, or `make setup`."
        ) from error
    return entry(arguments)


def _help() -> str:
    width = max(map(len, VERBS))
    lines = [
        "usage: armature VERB [key=value ...]",
        "",
        "Collect demonstrations, train a policy and run it on an arm.",
        "",
        *(f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items()),
        "",
        "Each verb reads what the one before it wrote. `armature VERB --help` shows its keys and their values.",
    ]
    return "\n".join(lines)


def _verb_help(name: str, verb: Verb) -> str:
    from robot.config import described

    lines = [f"usage: armature {name} [key=value ...]", "", verb.summary, "", f"  {verb.example}", "", described(name)]
    return "\n".join(lines)


def _refuse_robot_framework() -> None:
    try:
        found = importlib.metadata.version("robotframework")
    except importlib.metadata.PackageNotFoundError:
        return
    raise ConfigError(
        f"Robot Framework {found} is installed here and also calls its Python package 'robot'; the two cannot share "
        "an environment. Install Armature into an environment of its own (`make setup`)."
    )


if __name__ == "__main__":
    sys.exit(main())
