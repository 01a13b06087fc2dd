import os
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitreous.core.config import (
    check_types,
    did_you_mean,
    dump_toml,
    from_mapping,
    load_toml,
    merge,
    parse_assignments,
    to_mapping,
)
from vitreous.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    name: str | None = None


@dataclass(frozen=True)
class Outer:
    count: int
    kind: Literal["a", "b"] = "a"
    sizes: tuple[int, ...] = ()
    pair: tuple[float, float] = (1.0, 2.0)
    flag: bool = False
    inner: Inner = field(default_factory=Inner)


@given(
    st.builds(
        Outer,
        count=st.integers(-(2**63), 2**63 - 1),
        kind=st.sampled_from(["a", "b"]),
        sizes=st.lists(st.integers(0, 9)).map(tuple),
        flag=st.booleans(),
        inner=st.builds(
            Inner,
            rate=st.floats(allow_nan=False),
            # lone surrogates can't be written as UTF-8 in any file
            name=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
        ),
    )
)
def test_a_configuration_survives_its_file(config):
    import tomllib

    assert from_mapping(Outer, tomllib.loads(dump_toml(config))) == config


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"cuont": 1}, "unknown setting 'cuont': did you mean 'count'?"),
        ({"count": 1, "inner": {"rat": 1.0}}, "'inner.rat': did you mean 'rate'?"),
        ({}, "'count' is missing"),
        ({"count": "1"}, "'count' is '1', not a whole number"),
        ({"count": True}, "not a whole number"),
        ({"count": 1.0}, "not a whole number"),
        ({"count": 1, "flag": 1}, "not true or false"),
        ({"count": 1, "kind": "c"}, "allowed: a, b"),
        ({"count": 1, "pair": [1.0]}, "1 values, not 2"),
        ({"count": 1, "sizes": 3}, "not a list"),
        ({"count": 1, "inner": 3}, "is a section"),
        ({"count": 1, "inner": {"rate": "1e-3"}}, "not a number"),
    ],
)
def test_a_wrong_setting_is_named(values, words):
    with pytest.raises(ConfigError) as error:
        from_mapping(Outer, values)
    assert words in str(error.value)
    if values:  # where some may be missing, those that are there are checked alike
        with pytest.raises(ConfigError) as error:
            check_types(Outer, values)
        assert words in str(error.value)


def test_some_settings_are_checked_without_the_others():
    for values in ({}, {"inner": {}}, {"inner": {"rate": 2}, "pair": [1.0, 2.0]}):
        check_types(Outer, values)


def test_whole_numbers_are_fine_where_numbers_are_wanted():
    assert from_mapping(Outer, {"count": 1, "inner": {"rate": 1}}).inner.rate == 1.0


def test_assignments_are_toml_values_or_bare_words():
    found = parse_assignments(["a.b=1e-3", "a.c=word", "d=[1, 2]", "a.e='x=y'", "f=true"])
    assert found == {"a": {"b": 1e-3, "c": "word", "e": "x=y"}, "d": [1, 2], "f": True}
    with pytest.raises(ConfigError, match=r"write section\.name=value"):
        parse_assignments(["a.b"])


def test_merging_changes_neither_side():
    base, change = {"a": {"x": 1, "y": 2}, "b": 3}, {"a": {"y": 4}}
    assert merge(base, change) == {"a": {"x": 1, "y": 4}, "b": 3}
    assert base == {"a": {"x": 1, "y": 2}, "b": 3}


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "c.toml").write_text("a = ")
    with pytest.raises(ConfigError, match=r"c\.toml is not valid TOML"):
        load_toml(tmp_path / "c.toml")
    with pytest.raises(ConfigError, match="no configuration file"):
        load_toml(tmp_path / "missing.toml")


def test_names_far_from_all_get_no_guess():
    assert did_you_mean("zzz", ["epochs"]) == "allowed: epochs"


def test_of_a_thousand_names_some_are_shown_and_the_nearest():
    told = did_you_mean("clas 098", [f"class {number:03}" for number in range(1000)])
    assert told.startswith("did you mean 'class 098'?")
    assert told.endswith(", class 049 and 950 more")


def test_none_is_left_out_of_a_file():
    assert "name" not in to_mapping(Outer(1))["inner"]


def test_a_folder_is_no_file_of_settings(tmp_path):
    words = f"can't read {tmp_path}, .*: name {tmp_path}/config.toml"
    with pytest.raises(ConfigError, match=words):
        load_toml(tmp_path)


def test_a_file_may_hold_a_path_that_is_no_utf8_and_a_byte_order_mark(tmp_path):
    file = tmp_path / "c.toml"
    file.write_bytes(b'\xef\xbb\xbfsource = "L\xf6we"\n')
    assert load_toml(file) == {"source": os.fsdecode(b"L\xf6we")}
