"""HDF5's values as JSON and back to the bit, and the file beneath that outlives a full disk."""

import json
import resource
import signal

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from robot.episodes.formats.hdf5_record import restored, taken
from robot.episodes.formats.hdf5_sink import Sink
from robot.episodes.formats.hdf5_values import attributes_to_json, put_attribute
from robot.errors import DatasetError
from tests.robot.episodes.formats.hdf5_files import differences

DTYPES = ["<f8", ">f4", "<f2", "i1", "<u2", ">i4", "<i8", "<u8", "?", "<c16", "S5"]
TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=3000)


def arrays():
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=3)
    return st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(np.dtype(dtype), shapes))


@settings(max_examples=60, deadline=None)
@given(st.lists(arrays(), max_size=3), TEXT, st.lists(TEXT, min_size=1, max_size=3))
def test_values_come_back_to_the_bit(tmp_path_factory, values, text, texts):
    folder = tmp_path_factory.mktemp("values")
    with h5py.File(folder / "a.h5", "w") as file:
        group = file.create_group("data")
        for i, value in enumerate(values):
            group.attrs[f"attribute{i}"] = value
            group.create_dataset(f"deep/er/{i}", data=value)
        group.attrs["text"] = text
        group.attrs.create("ascii", "plain", dtype=h5py.string_dtype("ascii"))
        group.attrs.create("texts", texts, dtype=h5py.string_dtype())
        group.create_dataset("texts", data=texts, dtype=h5py.string_dtype())
        group.attrs["nothing"] = h5py.Empty("f4")
        record = json.loads(json.dumps(taken(group), allow_nan=False))
    with h5py.File(folder / "b.h5", "w") as file:
        restored(file.create_group("data"), record, lambda path: None)
    assert differences(folder / "a.h5", folder / "b.h5") == []


def test_what_is_common_is_readable(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["count"], file.attrs["rate"], file.attrs["flag"], file.attrs["name"] = 3, 0.5, True, "Lift"
        assert attributes_to_json(file) == {"count": 3, "rate": 0.5, "flag": True, "name": "Lift"}
        file.attrs["model"] = "<body/>" * 10_000
        assert len(json.dumps(attributes_to_json(file))) < 1000


def test_damaged_json_is_told_of(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file, pytest.raises(DatasetError, match="damaged on its way"):
        put_attribute(file, "a", {"dtype": "<f8", "shape": [1], "deflated": "AAAA"})


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.binary(min_size=1, max_size=100)), max_size=12), st.integers(0, 12))
def test_a_sink_reads_what_was_written_whatever_the_disk_takes(tmp_path_factory, writes, healthy):
    """From some write on, the disk takes nothing more; the sink's reader does not notice."""
    path = tmp_path_factory.mktemp("sink") / "a"
    truth = bytearray(500)
    with Sink(path) as sink:
        for number, (offset, data) in enumerate(writes):
            if number == healthy:
                sink._error = OSError(28, "No space left on device")
            sink.seek(offset)
            assert sink.write(data) == len(data)
            truth[offset : offset + len(data)] = data
        sink.seek(0)
        assert sink.read(500) == bytes(truth)
        if healthy < len(writes):
            with pytest.raises(OSError, match="No space"):
                sink.check()
        else:
            sink.check()


def test_a_sink_remembers_the_first_refusal(tmp_path):
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with Sink(tmp_path / "a") as sink:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
            sink.write(bytes(600))
            sink.check()
            sink.write(b"x" * 600)  # 400 of them fit
            with pytest.raises(OSError, match="too large"):
                sink.check()
            sink.seek(900)
            assert sink.read(300) == b"x" * 300
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
