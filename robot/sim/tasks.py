"""The tasks by name.

A new one is an entry here, a name in `robot.sim.config` and a YAML file in `configs/env/`; its expert is a file in
`robot/sim/experts/`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from robot.errors import unknown_name


@dataclass(frozen=True)
class Task:
    """One task of robosuite's.

    Attributes:
        name: Our name of it.
        robosuite_name: Name that robosuite knows it by.
        words: What is to be done, in words; goes into datasets.
        objects: Objects whose poses an observation contains: our name to `body:` or `site:` and MuJoCo's name.
        joints: Joints of the world whose positions an observation contains: our name to MuJoCo's name.
        arms: Arms that the task takes.
        measures: Names in `robot.sim.observing.MEASURES` of numbers that an observation also contains.
    """

    name: str
    robosuite_name: str
    words: str
    objects: Mapping[str, str] = field(default_factory=dict)
    joints: Mapping[str, str] = field(default_factory=dict)
    arms: int = 1
    measures: tuple[str, ...] = ()


_ALL = (
    Task("lift", "Lift", "Lift the cube from the table.", {"cube": "body:cube_main"}),
    Task(
        "stack",
        "Stack",
        "Stack the red cube on the green cube.",
        {"cube_a": "body:cubeA_main", "cube_b": "body:cubeB_main"},
    ),
    Task(
        "pick_place_can",
        "PickPlaceCan",
        "Put the can into its compartment of the bin.",
        {"can": "body:Can_main", "target": "body:VisualCan_main"},
    ),
    Task(
        "pick_place",
        "PickPlace",
        "Put each object into its compartment of the bin.",
        {
            **{name.lower(): f"body:{name}_main" for name in ("Milk", "Bread", "Cereal", "Can")},
            **{f"{name.lower()}_target": f"body:Visual{name}_main" for name in ("Milk", "Bread", "Cereal", "Can")},
        },
    ),
    Task(
        "nut_assembly_square",
        "NutAssemblySquare",
        "Put the square nut onto the square peg.",
        {"nut": "body:SquareNut_main", "handle": "site:SquareNut_handle_site", "peg": "body:peg1"},
    ),
    Task(
        "nut_assembly",
        "NutAssembly",
        "Put each nut onto its peg.",
        {
            "square_nut": "body:SquareNut_main",
            "square_handle": "site:SquareNut_handle_site",
            "square_peg": "body:peg1",
            "round_nut": "body:RoundNut_main",
            "round_handle": "site:RoundNut_handle_site",
            "round_peg": "body:peg2",
        },
    ),
    Task(
        "door",
        "Door",
        "Open the door by its handle.",
        {"frame": "body:Door_frame", "door": "body:Door_door", "handle": "site:Door_handle"},
        {"hinge": "Door_hinge", "latch": "Door_latch_joint"},
    ),
    Task("wipe", "Wipe", "Wipe the table clean.", measures=("wiped", "dirt")),
    Task(
        "tool_hang",
        "ToolHang",
        "Put the frame into the stand and hang the tool on it.",
        {"stand": "body:stand_root", "frame": "body:frame_root", "tool": "body:tool_root"},
    ),
    Task(
        "two_arm_lift",
        "TwoArmLift",
        "Lift the pot by both handles and keep it level.",
        {"pot": "body:pot_root", "handle0": "site:pot_handle0", "handle1": "site:pot_handle1"},
        arms=2,
    ),
    Task(
        "two_arm_peg_in_hole",
        "TwoArmPegInHole",
        "Put the peg that one arm holds into the hole that the other holds.",
        {"peg": "body:peg_main", "hole": "body:hole_main"},
        arms=2,
    ),
    Task(
        "two_arm_handover",
        "TwoArmHandover",
        "Hand the hammer over from the first arm to the second.",
        {"hammer": "body:hammer_root"},
        arms=2,
    ),
    Task(
        "two_arm_transport",
        "TwoArmTransport",
        "Take the lid off, pass the payload into the target bin, and put the trash into the trash bin.",
        {
            "payload": "body:payload_root",
            "trash": "body:trash_main",
            "lid": "body:transport_start_bin_lid_root",
            "start_bin": "body:transport_start_bin_root",
            "target_bin": "body:transport_target_bin_root",
            "trash_bin": "body:transport_trash_bin_root",
        },
        arms=2,
    ),
)

TASKS = {known.name: known for known in _ALL}
_BY_ROBOSUITES_NAME = {known.robosuite_name: known for known in _ALL}


def task(name: str) -> Task:
    """The task of that name, ours (`pick_place_can`) or robosuite's (`PickPlaceCan`). Raises `UnknownNameError`."""
    if name in _BY_ROBOSUITES_NAME:
        return _BY_ROBOSUITES_NAME[name]
    if name not in TASKS:
        raise unknown_name("task", name, TASKS)
    return TASKS[name]
