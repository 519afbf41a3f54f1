"""Which channels an episode has, by topic, as its header says."""

from robot.episodes.episode import (
    ACTIONS,
    APPLIED,
    STEP_FIELDS,
    STEP_TOPIC,
    STEPS,
    Header,
    action_topic,
    is_picture,
    topic_of,
)
from robot.specs import ArraySpec, Specs

EVENTS_TOPIC = "/events"
CALIBRATION = "/calibration"
"""What follows the topic of a camera in that of its calibration."""


def vector_topics(header: Header) -> Specs:
    """Specs of every channel of vectors that an episode may have, by topic."""
    observation = header.specs.observation
    topics = {topic_of(key): spec for key, spec in observation.items() if not is_picture(spec)}
    topics |= {action_topic(stage): header.specs.action for stage in ACTIONS}
    if header.clock == STEPS:
        topics[STEP_TOPIC] = ArraySpec("step", (len(STEP_FIELDS),), "float64", names=STEP_FIELDS)
    return topics | header.channels


def picture_topics(header: Header) -> Specs:
    """Specs of every channel of pictures, by topic."""
    return {topic_of(key): spec for key, spec in header.specs.observation.items() if is_picture(spec)}


def required_topics(header: Header) -> list[str]:
    """Channels that have a message for every control step; others may, if the world or the robot reports them."""
    optional = {action_topic(APPLIED), *header.channels}
    return [topic for topic in (vector_topics(header) | picture_topics(header)) if topic not in optional]
