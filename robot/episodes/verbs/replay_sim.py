"""An episode of a simulated world, played again in that world."""

from dataclasses import replace
from typing import Any

import numpy as np
from tqdm import tqdm

from robot.episodes.episode import STEPS, Episode, Header, action_topic, is_picture, topic_of
from robot.episodes.verbs.comparing import Outcome, largest
from robot.errors import ArmatureError, EpisodeError

ENDLESS = 10**9


def world_of(header: Header) -> Any:
    """The `EnvConfig` of the world that an episode was recorded in, without cameras, and one that does not end.

    Raises:
        EpisodeError: It was not recorded in a simulated world of ours.
    """
    from robot.episodes.formats import robosuite_replay
    from robot.sim.config import CamerasConfig, EnvConfig

    if header.clock != STEPS:
        raise EpisodeError(
            f"The episode was recorded from {header.source!r}, not in a simulated world. Replay it through a bridge: "
            "bridge=tcp://127.0.0.1:5555."
        )
    try:
        known = header.notes.get("env")
        config = EnvConfig(**known) if known else robosuite_replay.world_of(header.specs)
    except (ArmatureError, TypeError) as error:
        raise EpisodeError(f"The world of the episode cannot be made again: {error}") from error
    # What is drawn for pictures may come before what is drawn for the physics.
    cameras = config.cameras if config.randomisation.enabled else CamerasConfig()
    return replace(config, horizon=ENDLESS, success_hold=ENDLESS, cameras=cameras)


def replay(episode: Episode, stage: str) -> Outcome:
    """Play the actions of one stage from the episode's seed.

    Raises:
        EpisodeError: It is of no simulated world, or of one that observes something else.
    """
    from robot import sim

    actions = episode.channels[action_topic(stage)].values
    world = sim.make(world_of(episode.header))
    try:
        # What cameras gave is not looked at again: pictures, depth, points.
        given = world.specs.observation
        seen_before = episode.header.specs.observation
        wanted = {key: spec for key, spec in seen_before.items() if key in given and not is_picture(spec)}
        ours = replace(world.specs, observation={key: given[key] for key in wanted})
        if lines := replace(episode.header.specs, observation=wanted).difference(ours):
            raise EpisodeError(f"The world is not as it was recorded: {'; '.join(lines)}.")
        seen, success = _played(world, episode.header.seed, actions)
    finally:
        world.close()
    pairs = {key: (episode.channels[topic_of(key)].values, np.stack([row[key] for row in seen])) for key in wanted}
    t_s = np.arange(len(actions)) * episode.header.specs.dt_s
    return Outcome(len(actions), largest(wanted, pairs, t_s), success)


def _played(world: Any, seed: int, actions: np.ndarray) -> tuple[list[dict[str, np.ndarray]], bool]:
    """What was observed before each action, and whether the task is fulfilled after the last."""
    observation, info = world.reset(seed=seed)
    seen, success = [], bool(info.get("success", False))
    for action in tqdm(actions, unit="step", desc="replaying"):
        seen.append(observation)
        observation, _, _, _, info = world.step(action)
        success = bool(info["success"])
    return seen, success
