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
    variants: tuple[tuple[str, str], ...] = ()
    """What on the command line makes it another thing, and the YAML that holds the keys of that."""


VERBS = {
    "record": Verb(
        "robot.episodes.record:main",
        "write one MCAP file per episode, of a demonstrator in the world or of an arm behind a bridge",
        "armature record env=lift source=expert episodes=50\n"
        "  armature record source=bridge bridge=tcp://127.0.0.1:5555 cameras=[front] task='Lift it.' out=data/real",
        (("source=bridge", "record_bridge"),),
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
    "convert": Verb(
        "robot.episodes.formats.convert:main",
        "read robomimic HDF5, RLDS, LeRobot or episodes, and write LeRobot v3 or robomimic HDF5",
        "armature convert source=demo.hdf5 out=data/demo",
    ),
    "episodes list": Verb(
        "robot.episodes.verbs.listing:main",
        "tell what a folder of episodes holds, a line each",
        "armature episodes list episodes=data/lift/episodes",
    ),
    "episodes show": Verb(
        "robot.episodes.verbs.show:main",
        "draw an episode: a plot of its channels and a contact sheet of its pictures",
        "armature episodes show episodes=data/lift/episodes number=3",
    ),
    "episodes label": Verb(
        "robot.episodes.verbs.label:main",
        "say afterwards whether episodes succeeded, or add a note",
        "armature episodes label episodes=data/lift/episodes numbers=[3,7] success=false",
    ),
    "episodes discard": Verb(
        "robot.episodes.verbs.discard:main",
        "put episodes aside, so that nothing uses them; or bring them back",
        "armature episodes discard episodes=data/lift/episodes numbers=[3]",
    ),
    "episodes recover": Verb(
        "robot.episodes.verbs.recover:main",
        "make episodes of what a killed recorder left",
        "armature episodes recover episodes=data/lift/episodes",
    ),
    "episodes replay": Verb(
        "robot.episodes.verbs.replay:main",
        "send an episode's actions again, in simulation or through a bridge",
        "armature episodes replay episodes=data/lift/episodes number=3",
    ),
    "episodes quality": Verb(
        "robot.episodes.curation.report:main",
        "measure demonstrations: divergence, diversity, smoothness, duration, coverage",
        "armature episodes quality episodes=data/lift/episodes",
    ),
    "episodes augment": Verb(
        "robot.sim.augmentation.augment:main",
        "make new demonstrations by moving segments with their objects, checked by replay in simulation",
        "armature episodes augment episodes=data/lift/episodes out=data/lift/augmented count=50",
    ),
    "dataset info": Verb(
        "robot.episodes.care.info:main",
        "tell what a dataset holds",
        "armature dataset info dataset=data/lift/dataset",
    ),
    "dataset validate": Verb(
        "robot.episodes.care.validate:main",
        "check every row, frame, index and statistic of a dataset",
        "armature dataset validate dataset=data/lift/dataset",
    ),
    "dataset stats": Verb(
        "robot.episodes.care.stats:main",
        "show the distribution of every column, as a table and plots",
        "armature dataset stats dataset=data/lift/dataset",
    ),
    "dataset frames": Verb(
        "robot.episodes.loading.command:main",
        "decode a dataset's pictures ahead of a training; see what decoded pictures take, or remove them",
        "armature dataset frames dataset=data/lift/dataset",
    ),
    "dataset merge": Verb(
        "robot.episodes.care.merge:main",
        "make one dataset of several of the same robot",
        "armature dataset merge datasets=[data/a,data/b] out=data/both",
    ),
    "dataset split": Verb(
        "robot.episodes.care.split:main",
        "divide a dataset by episodes, e.g. into training and validation",
        "armature dataset split dataset=data/lift/dataset out=data/lift parts={train:0.9,valid:0.1}",
    ),
    "dataset relabel": Verb(
        "policies.relabel:main",
        "give action-free episodes proxy actions from an inverse dynamics model",
        "armature dataset relabel dataset=data/videos labelled=data/lift/dataset out=data/relabelled",
    ),
}
"""Each verb by its name: one word, or two where several do something to the same thing."""


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
    words = 2 if arguments[0] in _groups() and len(arguments) > 1 else 1
    return _guarded(" ".join(arguments[:words]), arguments[words:])


def _groups() -> set[str]:
    """First words of the verbs that have two."""
    return {name.split()[0] for name in VERBS if " " in name}


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
    group = name.split()[0]
    if group in _groups() and name.split()[1:] in ([], ["-h"], ["--help"], ["help"]):
        print(_group_help(group))
        return 0 if name != group else 2
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


def _lines(verbs: dict[str, Verb]) -> list[str]:
    width = max(map(len, verbs))
    return [f"  {name:<{width}}  {verb.summary}" for name, verb in verbs.items()]


def _group_help(group: str) -> str:
    verbs = {name: verb for name, verb in VERBS.items() if name.split()[0] == group}
    return "\n".join([f"usage: armature {group} VERB [key=value ...]", "", *_lines(verbs)])


def _help() -> str:
    lines = [
        "usage: armature VERB [key=value ...]",
        "",
        "Collect demonstrations, train a policy and run it on an arm.",
        "",
        *_lines(VERBS),
        "",
        "Each verb reads what the one before it wrote. `armature VERB --help` shows its keys and their values.",
    ]
    return "\n".join(lines)


def _verb_help(name: str, verb: Verb) -> str:
    from robot.config import described

    lines = [
        f"usage: armature {name} [key=value ...]",
        "",
        verb.summary,
        "",
        f"  {verb.example}",
        "",
        described(name.replace(" ", "_")),
    ]
    for choice, yaml in verb.variants:
        lines += ["", f"with {choice}:", "", described(yaml)]
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
