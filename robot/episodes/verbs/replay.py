"""`armature episodes replay`: send an episode's actions again, in its simulated world or through a bridge."""

from dataclasses import dataclass

from robot.config import load
from robot.episodes.episode import ACTIONS, APPLIED, STEPS, Episode, action_topic
from robot.episodes.log_reader import EpisodeReader
from robot.episodes.verbs.choosing import chosen, require_folder
from robot.episodes.verbs.comparing import Outcome
from robot.errors import EpisodeError, unknown_name

SIM = "sim"
PLAYABLE = tuple(stage for stage in ACTIONS if stage != APPLIED)


@dataclass(kw_only=True)
class ReplayConfig:
    """See `configs/episodes_replay.yaml`."""

    episodes: str
    number: int
    action: str
    bridge: str
    keys: str
    seed: int | None
    near: float

    def __post_init__(self) -> None:
        if self.action not in PLAYABLE:
            raise unknown_name("stage of actions", self.action, PLAYABLE)


def main(overrides: list[str]) -> int:
    """Run the verb; 1 where the task ended otherwise than it was recorded."""
    config = load("episodes_replay", ReplayConfig, overrides)
    path = chosen(require_folder(config.episodes), [config.number])[0]
    reader = EpisodeReader(path)
    episode = reader.read()
    if action_topic(config.action) not in episode.channels:
        held = [stage for stage in PLAYABLE if action_topic(stage) in episode.channels]
        raise EpisodeError(f"{path} has no actions of stage {config.action!r}. It has {', '.join(held) or 'none'}.")
    outcome = _in_its_world(episode, config) if config.bridge == SIM else _through_a_bridge(episode, config)
    return _told(outcome, reader.outcome.success_final)


def _in_its_world(episode: Episode, config: ReplayConfig) -> Outcome:
    from robot.episodes.verbs import replay_sim

    return replay_sim.replay(episode, config.action)


def _through_a_bridge(episode: Episode, config: ReplayConfig) -> Outcome:
    """Ctrl-C leaves the block: the client disarms, lets go of the lease, and the arm comes to rest."""
    from robot.bridge.client import BridgeClient
    from robot.episodes.verbs.replay_bridge import Replay

    seed = config.seed
    if seed is None and (episode.header.clock == STEPS or "seed" in episode.header.notes):
        seed = episode.header.seed
    with BridgeClient(config.bridge, name="replay", keys=config.keys) as client:
        return Replay(client, episode, config.action, config.near).run(seed)


def _told(outcome: Outcome, recorded: bool) -> int:
    print(f"{outcome.actions} actions played.")
    if outcome.differences and not any(found.value for found in outcome.differences):
        print("What was observed is what was recorded, to the bit.")
    for found in (found for found in outcome.differences if found.value):
        print(f"Largest difference from what was recorded: {found.words()}.")
    if outcome.success is None:
        print("Nothing here tells whether the task is fulfilled.")
        return 0
    agrees = outcome.success == recorded
    words = ["no success", "success"]
    print(f"Ended with {words[outcome.success]}, recorded was {words[recorded]}{'' if agrees else ': not the same'}.")
    return 0 if agrees else 1
