import importlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robot import cli
from robot.errors import ArmatureError, unknown_name

ROOT = Path(__file__).parents[2]


def test_help_imports_nothing_heavy_and_is_fast() -> None:
    program = (
        "import sys; from robot.cli import main; main(['--help']); "
        "print(sorted({'torch', 'mujoco', 'robosuite', 'numpy', 'hydra', 'zmq'} & sys.modules.keys()))"
    )
    durations = []
    for _ in range(3):
        begin = time.perf_counter()
        result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
        durations.append(time.perf_counter() - begin)
    assert result.stdout.endswith("[]\n")
    assert all(verb in result.stdout for verb in cli.VERBS)
    assert min(durations) < 0.5


@pytest.mark.parametrize("verb", cli.VERBS.values(), ids=cli.VERBS)
def test_every_verb_resolves(verb: cli.Verb) -> None:
    module, function = verb.function.split(":")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("name", cli.VERBS)
def test_every_verb_explains_its_keys(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*name.split(), "--help"]) == 0
    out = capsys.readouterr().out
    assert cli.VERBS[name].example in out
    assert "keys:" in out


def test_unknown_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trian"]) == 2
    assert "Unknown verb 'trian'. Did you mean 'train'?" in capsys.readouterr().err


def test_unknown_key_and_option_exit_2_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["record", "episods=1"], ["train", "policy=difusion"], ["bridge", "arm=twn"]):
        assert cli.main(arguments) == 2
        err = capsys.readouterr().err
        assert "Did you mean" in err
        assert err.count("\n") == 1


def test_errors_of_users_become_one_line_and_ours_keep_their_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(error: BaseException) -> int:
        def run(name: str, arguments: list[str]) -> int:
            raise error

        monkeypatch.setattr(cli, "_run", run)
        return cli.main(["record"])

    assert fails(ArmatureError("no such file")) == 1
    assert capsys.readouterr().err == "armature record: no such file\n"
    assert fails(KeyboardInterrupt()) == 130
    with pytest.raises(ZeroDivisionError):
        fails(ZeroDivisionError())


def test_robot_framework_in_the_same_environment_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "7.5")
    assert cli.main(["record"]) == 2
    assert "Robot Framework 7.5" in capsys.readouterr().err


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(cli.VERBS, "record", cli.Verb("not_installed_here.x:main", "", ""))
    assert cli.main(["record"]) == 2
    assert "not_installed_here" in capsys.readouterr().err


def test_unknown_name_lists_all_where_nothing_is_near() -> None:
    assert str(unknown_name("task", "zzz", ["lift", "stack"])) == "Unknown task 'zzz'. Available: lift, stack."
