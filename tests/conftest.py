"""What holds for every test."""

import signal
from collections.abc import Iterator

import pytest

# A shell without job control starts background commands, and so a test run in the background, with SIGINT ignored;
# processes inherit that. The tests press Ctrl-C on processes that they start, as a terminal would.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TIMED = (
    *("tests/hardware/", "tests/robot/bridge/", "tests/robot/episodes/", "tests/robot/sim/augmentation/"),
    *("tests/robot/sim/test_vector", "tests/policies/test_node", "tests/policies/test_train"),
    "tests/policies/test_eval",
)
"""Where tests start processes and wait for what they do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test in which processes meet deadlines may be run again: shared machines stall for longer than these.

    A defect fails three times; what passed only again is told at the end of the run.
    """
    for item in items:
        if item.nodeid.startswith(TIMED):
            item.add_marker(pytest.mark.flaky(reruns=2))


@pytest.fixture(scope="session", autouse=True)
def frame_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded pictures of tests are not kept among those of the user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARMATURE_CACHE", str(tmp_path_factory.mktemp("frames")))
        yield
