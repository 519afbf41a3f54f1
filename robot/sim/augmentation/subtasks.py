"""What the subtasks of a task are about: a table to which a new task is an entry.

A subtask is done with respect to one object: where that one stands elsewhere, the subtask is done elsewhere.
"""

from dataclasses import dataclass, field

from robot.errors import ConfigError
from robot.sim.augmentation.poses import FREE

RAISED, RELEASED, END = "raised", "released", "end"


@dataclass(frozen=True)
class Subtask:
    """One part of a demonstration.

    Attributes:
        object: The object that the motion belongs to (a name in `Task.objects`).
        held: The object in the hand, which is what moves with respect to `object`; empty where that is the hand.
        ends: What ends it: `raised` (the object has left what it stood on, for the last time), `released` (the held
            object has been let go and the hand is on its way), `end` (of the demonstration).
    """

    object: str
    held: str = ""
    ends: str = END


@dataclass(frozen=True)
class Declaration:
    """The subtasks of a task, and what its objects look like when they are turned.

    Attributes:
        subtasks: In their order; the last one ends with the demonstration.
        symmetry: Of objects, see `robot.sim.augmentation.poses.displacement`; 1 where nothing is said.
    """

    subtasks: tuple[Subtask, ...]
    symmetry: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.subtasks or self.subtasks[-1].ends != END:
            raise ConfigError("The last subtask of a task ends with the demonstration.")

    @property
    def objects(self) -> tuple[str, ...]:
        """Every object that a subtask belongs to, once."""
        return tuple(dict.fromkeys(subtask.object for subtask in self.subtasks))


DECLARATIONS = {
    "lift": Declaration((Subtask("cube"),), {"cube": 4}),
    "stack": Declaration(
        (Subtask("cube_a", ends=RAISED), Subtask("cube_b", held="cube_a")), {"cube_a": 4, "cube_b": 4}
    ),
    "pick_place_can": Declaration((Subtask("can", ends=RAISED), Subtask("target", held="can")), {"can": FREE}),
    "nut_assembly_square": Declaration((Subtask("nut", ends=RAISED), Subtask("peg", held="nut")), {"peg": 4}),
    "tool_hang": Declaration(
        (
            Subtask("frame", ends=RAISED),
            Subtask("stand", held="frame", ends=RELEASED),
            Subtask("tool", ends=RAISED),
            Subtask("frame", held="tool"),
        )
    ),
}
"""Declaration by the name of its task."""


def declaration(task: str) -> Declaration:
    """What a task's subtasks are. Raises `ConfigError` where nobody has said."""
    if task not in DECLARATIONS:
        raise ConfigError(
            f"Nobody has declared the subtasks of {task}; those of {', '.join(DECLARATIONS)} are. Declare them in "
            "robot/sim/augmentation/subtasks.py, or try segments=automatic, which cuts where the gripper closes and "
            "opens."
        )
    return DECLARATIONS[task]
