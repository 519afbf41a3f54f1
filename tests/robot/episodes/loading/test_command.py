import numpy as np
import pytest

from robot.episodes.formats.lerobot_writer import write
from robot.episodes.loading.command import main
from robot.episodes.loading.decoding import decoded
from robot.errors import ConfigError, DatasetError
from tests.robot.episodes.fakes import random_dataset
from tests.robot.episodes.loading.pictures import picture_source


@pytest.fixture
def folder(tmp_path, monkeypatch) -> str:
    monkeypatch.setenv("ARMATURE_CACHE", str(tmp_path / "frames"))
    monkeypatch.setenv("ARMATURE_CACHE_GB", "3")
    write(picture_source((4, 3), size=(32, 48)), tmp_path / "dataset")
    return str(tmp_path / "dataset")


def said(capsys, *overrides: str) -> str:
    assert main([*overrides, "workers=0"]) == 0
    return capsys.readouterr().out


def test_decode_see_and_clear(folder, capsys):
    assert "holds no decoded pictures; it may hold 3.00 GB" in said(capsys)
    assert "14 pictures of 2 cameras in 4 files, 0.1 MB, 4 of them new" in said(capsys, f"dataset={folder}")
    assert "4 files, 0.1 MB, 0 of them new" in said(capsys, f"dataset={folder}")
    assert "4 files, 0.0 MB, 4 of them new" in said(capsys, f"dataset={folder}", "size=[16,24]")
    assert "holds 8 files, 0.1 MB; it may hold 3.00 GB. What was not used for longest was used 0 days" in said(capsys)
    assert "Removed 4 files" in said(capsys, f"dataset={folder}", "size=[16,24]", "clear=true")
    assert "holds 4 files" in said(capsys)
    source = picture_source((2,))
    held = decoded(source, np.array([2]), workers=0)
    assert "Removed 4 files, 0.1 MB" in said(capsys, "clear=true")
    assert "Removed 0 files, 0.0 MB, from" in (text := said(capsys, "clear=true"))
    assert "2 files, 0.0 MB stay, which a running process reads" in text
    del held
    assert "Removed 2 files" in said(capsys, "clear=true")


@pytest.mark.parametrize("override", ["size=[96]", "size=[0,96]", "workers=-1"])
def test_wrong_values_are_refused(override, folder):
    with pytest.raises(ConfigError):
        main([f"dataset={folder}", override])


def test_datasets_without_pictures_are_told_of(folder, tmp_path):
    write(random_dataset().rows(), tmp_path / "vectors")
    with pytest.raises(DatasetError, match="vectors has no pictures"):
        main([f"dataset={tmp_path / 'vectors'}"])
    with pytest.raises(DatasetError, match="no dataset folder"):
        main([f"dataset={tmp_path / 'nothing'}"])
