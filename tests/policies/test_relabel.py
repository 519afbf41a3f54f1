import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from policies import inverse_dynamics, relabel
from policies import inverse_dynamics_checkpoint as store
from policies.inverse_dynamics_checkpoint import Trained
from policies.relabel import IS_PROXY, IS_UNCERTAIN, PROXY_STD, Relabelled
from robot.cli import main as cli
from robot.contract import EnvironmentSpecs
from robot.episodes.dataset import Dataset
from robot.episodes.formats import lerobot_writer
from robot.episodes.formats.lerobot_reader import LeRobotSource
from robot.episodes.rows import Held, Rows, Schema
from robot.errors import DatasetError
from robot.specs import ArraySpec
from tests.policies.worlds import GOAL, SPECS, demonstrations

STATE = "observation.state"
LEARN = ["learn.epochs=60", "learn.width=32", "learn.lr=3e-3", "learn.members=3", "learn.batch_size=64"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """`labelled`: true actions; `bare`: other episodes of the same world, stored by somebody else, without actions."""
    path = tmp_path_factory.mktemp("relabel")
    lerobot_writer.write(demonstrations(12, 20).rows(), path / "labelled")
    lerobot_writer.write(demonstrations(4, 15).rows(), path / "bare")
    _take_actions(path / "bare")
    return path


def _take_actions(root: Path) -> None:
    """Make a dataset of ours one of LeRobot's without the feature `action`."""
    (root / "meta/armature.json").unlink()
    shutil.rmtree(root / "meta/armature")
    info = json.loads((root / "meta/info.json").read_text())
    del info["features"]["action"]
    (root / "meta/info.json").write_text(json.dumps(info))
    for path in root.glob("data/**/*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns(["action"]), path)


@pytest.fixture(scope="module")
def trained() -> Trained:
    dataset = demonstrations(16, 20)
    config = inverse_dynamics.InverseDynamicsConfig(epochs=80, width=32, lr=3e-3, members=3, batch_size=64)
    model, validation = inverse_dynamics.train(dataset, [STATE, GOAL], config)
    return store.identified(Trained(model, dataset.specs, (STATE, GOAL), validation, dataset.identity))


def base(change=None, specs=SPECS, extras=None) -> Held:
    """Two episodes with true actions, changed."""
    source = demonstrations(2, 12).rows()
    episodes = []
    for number in range(2):
        columns = {key: np.array(values) for key, values in source.read(number).columns.items()}
        if change is not None:
            change(number, columns)
        episodes.append(Rows(columns, {}, "go", {"file": f"e{number}"}, ("train",)))
    return Held(Schema(specs, extras or {}), episodes)


def test_the_verb_gives_actions_to_a_dataset_without(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        cli(["dataset", "relabel", f"dataset={folder}/bare", f"labelled={folder}/labelled", f"out={out}", *LEARN]) == 0
    )
    text = capsys.readouterr().out
    assert "0: error" in text
    assert "60 rows, 60 with a proxy action" in text
    found, truth = Dataset.open(out), demonstrations(4, 15)
    np.testing.assert_array_equal(found.columns[STATE], truth.columns[STATE])
    rows = [LeRobotSource(out).read(number) for number in range(4)]
    sure = np.concatenate([~row.columns[IS_UNCERTAIN] for row in rows])
    assert sure.mean() > 0.5
    error = np.square(found.columns["action"] - truth.columns["action"])[sure].mean()
    assert error < 0.15 * np.square(truth.columns["action"] - truth.columns["action"].mean(axis=0)).mean()
    assert found.specs.action == SPECS.action
    assert found.specs.robot == "Point"
    for row in rows:
        assert row.columns[IS_PROXY].all()
        assert (row.columns[PROXY_STD] > 0).all()
        assert row.columns[PROXY_STD].shape == (15, 2)
        assert row.origin["proxy_rows"] == 15


def test_a_kept_model_is_used_again(folder, tmp_path, capsys):
    model = f"model={tmp_path}/model"
    first = ["dataset", "relabel", f"dataset={folder}/bare", f"labelled={folder}/labelled", model, *LEARN]
    assert cli([*first, f"out={tmp_path}/a"]) == 0
    assert cli(["dataset", "relabel", f"dataset={folder}/bare", model, f"out={tmp_path}/b"]) == 0
    np.testing.assert_array_equal(
        Dataset.open(tmp_path / "a").columns["action"], Dataset.open(tmp_path / "b").columns["action"]
    )


def test_only_rows_without_an_action_get_one(trained):
    def lose(number, columns):
        columns["action"][3:5] = np.nan
        columns["action"][7, 1] = np.inf

    source = Relabelled(base(lose), trained, relabel.MISSING, 0.5)
    rows, truth = source.read(0), base().read(0)
    np.testing.assert_array_equal(np.flatnonzero(rows.columns[IS_PROXY]), [3, 4, 7])
    kept = ~rows.columns[IS_PROXY]
    np.testing.assert_array_equal(rows.columns["action"][kept], truth.columns["action"][kept])
    assert np.abs(rows.columns["action"] - truth.columns["action"]).max() < 0.5
    assert not rows.columns[PROXY_STD][kept].any()
    assert not rows.columns[IS_UNCERTAIN][kept].any()
    assert (rows.columns[PROXY_STD][~kept] > 0).all()
    assert rows.origin == {"file": "e0", "proxy_rows": 3, "proxy_model": trained.digest}
    assert (rows.task, rows.subsets) == ("go", ("train",))


def test_zeros_are_actions_unless_said_otherwise_and_then_only_of_whole_episodes(trained):
    def still(number, columns):
        columns["action"][: None if number else 5] = 0.0

    counts = {
        rows: [
            int(Relabelled(base(still), trained, rows, 0.5).read(number).columns[IS_PROXY].sum()) for number in (0, 1)
        ]
        for rows in (relabel.MISSING, relabel.ZEROS, relabel.ALL)
    }
    assert counts == {"missing": [0, 0], "zeros": [0, 12], "all": [12, 12]}


def test_proxies_of_before_stay_proxies(trained):
    extras = {key: spec for key, spec in Relabelled(base(), trained, "all", 0.5).schema.extras.items()}

    def marked(number, columns):
        columns["action"][2] = np.nan
        columns[IS_PROXY] = np.arange(12) == 9
        columns[PROXY_STD] = np.where(columns[IS_PROXY][:, None], 0.25, 0.0) * np.ones((12, 2), np.float32)
        columns[PROXY_STD] = columns[PROXY_STD].astype(np.float32)
        columns[IS_UNCERTAIN] = np.arange(12) == 9

    rows = Relabelled(base(marked, extras=extras), trained, relabel.MISSING, 0.5).read(0)
    np.testing.assert_array_equal(np.flatnonzero(rows.columns[IS_PROXY]), [2, 9])
    np.testing.assert_array_equal(rows.columns[PROXY_STD][9], [0.25, 0.25])
    assert rows.columns[IS_UNCERTAIN][9]


def test_what_the_model_has_not_seen_is_uncertain(trained):
    def far(number, columns):
        columns[STATE] = columns[STATE] + 50 * np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)

    near, away = (
        Relabelled(base(change), trained, relabel.ALL, 0.5).read(0).columns[IS_UNCERTAIN] for change in (None, far)
    )
    assert away.mean() > 0.8 > near.mean()


def test_identity_follows_the_model_the_choices_and_the_base(trained):
    def lose(number, columns):
        columns["action"][3] = np.nan

    ids = {
        Relabelled(source, model, rows, threshold).identity(0)
        for source, model, rows, threshold in [
            (base(), trained, "all", 0.5),
            (base(), trained, "all", 0.6),
            (base(), trained, "missing", 0.5),
            (base(lose), trained, "all", 0.5),
            (base(), Trained(**{**vars(trained), "digest": "other"}), "all", 0.5),
        ]
    }
    assert len(ids) == 5


def changed(**changes) -> EnvironmentSpecs:
    return EnvironmentSpecs(**{**vars(SPECS), **changes})


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (changed(robot="Panda"), "robot is 'Panda', expected 'Point'"),
        (changed(dt_s=0.1), "10 rows per second, expected 20"),
        (changed(observation={STATE: ArraySpec(STATE, (3,))}), r"shape \(3,\), expected \(2,\)"),
        (changed(observation={STATE: ArraySpec(STATE, (2,), names=("y", "x"))}), "names"),
        (changed(observation={STATE: ArraySpec(STATE, (2,), names=("x", "y"), unit="mm")}), None),
    ],
)
def test_another_robot_rate_or_observation_is_refused(other, message):
    if message is None:  # a unit that only one of them says is no difference
        relabel.check_fit(SPECS, other, [STATE])
        return
    with pytest.raises(DatasetError, match=message):
        relabel.check_fit(SPECS, other, [STATE])


def test_a_dataset_that_names_no_robot_is_taken_for_the_same():
    relabel.check_fit(SPECS, changed(robot="unknown"), [STATE])


def test_pictures_alone_are_refused():
    picture = ArraySpec("observation.images.front", (8, 8, 3), "uint8")
    with pytest.raises(DatasetError, match="vectors, not pictures"):
        relabel.common_vectors(SPECS, changed(observation={picture.key: picture}))


def test_actions_of_another_kind_are_kept_by_nobody(trained):
    other = changed(action_space="joint_position")
    with pytest.raises(DatasetError, match="rows=all"):
        Relabelled(base(specs=other), trained, relabel.MISSING, 0.5)
    assert Relabelled(base(specs=other), trained, relabel.ALL, 0.5).schema.specs.action_space == "ee_delta"


def test_an_observation_that_is_not_finite_names_its_row(trained):
    def broken(number, columns):
        columns[STATE][4, 0] = np.nan

    with pytest.raises(DatasetError, match="Episode 1: the observation of row 4"):
        Relabelled(base(broken), trained, relabel.ALL, 0.5).read(1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["out=o"], "dataset"),
        (["dataset=/nowhere", "out=o", "labelled=l"], "/nowhere"),
        (["dataset=d", "out=d", "labelled=l"], "is the dataset itself"),
        (["dataset=d", "out=o", "rows=some"], "missing"),
        (["dataset=d", "out=o", "learn.ahead=0"], "at least 1"),
        (["dataset=d", "out=o", "threshold=0"], "above 0"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    assert cli(["dataset", "relabel", *arguments]) in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_nothing_to_learn_from_is_said(folder, tmp_path, capsys):
    assert cli(["dataset", "relabel", f"dataset={folder}/bare", f"out={tmp_path}/o"]) == 2
    assert "labelled=FOLDER" in capsys.readouterr().err
    assert (
        cli(["dataset", "relabel", f"dataset={folder}/labelled", f"labelled={folder}/bare", f"out={tmp_path}/o"]) == 1
    )
    assert not (tmp_path / "o").exists()


def test_an_element_that_cannot_be_told_is_named(trained):
    blind = Trained(
        **{
            **vars(trained),
            "validation": inverse_dynamics.Validation(2, [0.1, 1.0], [1.0, 1.0], 0.95, 7),
        }
    )
    lines = relabel.described(blind)
    assert "no better" not in lines[1]
    assert "no better than a constant" in lines[2]


def test_pictures_and_other_columns_are_carried_over(trained):
    picture = ArraySpec("observation.images.front", (4, 4, 3), "uint8")
    specs = changed(observation={**SPECS.observation, picture.key: picture})
    reward = ArraySpec("next.reward", ())
    pictures = np.zeros((12, 4, 4, 3), np.uint8)
    columns = {**base().read(0).columns, "next.reward": np.arange(12, dtype=np.float32)}
    source = Held(Schema(specs, {"next.reward": reward}), [Rows(columns, {picture.key: pictures}, ("a", "b") * 6)])
    relabelled = Relabelled(source, trained, relabel.ALL, 0.5)
    rows = relabelled.read(0)
    assert rows.pictures[picture.key] is pictures
    np.testing.assert_array_equal(rows.columns["next.reward"], np.arange(12))
    assert rows.task == ("a", "b") * 6
    assert set(relabelled.schema.columns) == set(rows.columns)
    np.testing.assert_array_equal(columns["action"], base().read(0).columns["action"])  # the source is as it was
