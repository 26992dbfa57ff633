from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from litellm_plugin.config import ConfigError, default_paths
from litellm_plugin.config.report import Report
from litellm_plugin.config.sources import Dropped, read_tree, substitute
from litellm_plugin.config.yaml12 import Value
from tests.config.conftest import Read, Write

ENVIRON = {"X": " value ", "EMPTY": "", "NAME": "X", "FILE": "text.txt"}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain", "plain"),
        ("${X}", "value"),
        ("${ X }", "value"),
        ("p-${X}-s", "p-value-s"),
        ("${X}${EMPTY}${X}", "valuevalue"),
        ("${EMPTY}", ""),
        ("${UNSET}", None),
        ("p-${X}-${UNSET}", None),
        ("${UNSET:-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${X:-d}", "value"),
        ("${UNSET:- d }", "d"),
        ("${UNSET:-a:-b}", "a:-b"),
        ("${UNSET:-http://127.0.0.1:4010}", "http://127.0.0.1:4010"),
        ("${UNSET:-}", None),
        ("${EMPTY:-}", None),
        ("$${X}", "${X}"),
        ("$$${X}", "$${X}"),
        ("$$$${X}", "$$${X}"),
        ("$X", "$X"),
        ("${X", "${X"),
        ("${}", None),
        ("${X-d}", None),
        ("${{X}}", "${{X}}"),
    ],
)
def test_variables_are_filled_in_as_backstage_does(text: str, result: str | None) -> None:
    filled, _ = substitute(text, ENVIRON)
    assert (None if isinstance(filled, Dropped) else filled) == result


def test_variables_are_filled_in_once_and_stay_text() -> None:
    assert substitute("${A}", {"A": "${B}", "B": "x"})[0] == "${B}"
    assert substitute("${A}", {"A": "5"})[0] == "5"


def test_a_dropped_value_names_its_variable() -> None:
    assert substitute("${X} ${UNSET:-}", ENVIRON)[0] == Dropped("UNSET is not set")


@pytest.mark.parametrize(
    ("yaml", "value"),
    [
        ("a: ${UNSET}\nb: 1", {"b": 1}),
        ("a: [x, '${UNSET}', '${X}']", {"a": ["x", "value"]}),
        ("${X}: ${X}", {"${X}": "value"}),
        ("a: {b: {c: ['${X}']}}", {"a": {"b": {"c": ["value"]}}}),
    ],
)
def test_variables_are_filled_in_everywhere_but_in_keys(
    read: Read, yaml: str, value: Value
) -> None:
    assert read(yaml, environ=ENVIRON) == value


INCLUDED = {
    "text.txt": " some ${X} text \n\n",
    "sub/text.txt": "below\n",
    "data.yaml": "a: {b: 5, c: '${X}'}\ns: x-${X}\nl: [{$env: X}]\ntop: {$env: X}\n",
    "data.json": '{"k": ["${X}", {"$file": "text.txt"}]}',
    "sub/data.yml": "own: {$file: text.txt}\nup: {$include: ../data.yaml#a.c}\n",
    "empty.yaml": "",
    "self.yaml": "a: {b: {$include: self.yaml#c}}\nc: 1",
    "loop.yaml": "a: {$include: loop.yaml}",
    "bad.yaml": "a: 1\na: 2\n",
    "bad.json": '{"a":\n}',
}


@pytest.fixture
def included(write: Write) -> None:
    for name, text in INCLUDED.items():
        write(name, text)


@pytest.mark.usefixtures("included")
@pytest.mark.parametrize(
    ("include", "value"),
    [
        ("{$env: X}", "value"),
        ("{$env: '${NAME}'}", "value"),
        ("{$env: EMPTY}", ""),
        ("{$env: UNSET}", None),
        ("{$file: text.txt}", " some ${X} text"),
        ("{$file: '${FILE}'}", " some ${X} text"),
        ("{$include: data.yaml#a}", {"b": 5, "c": "value"}),
        ("{$include: data.yaml#a.b}", 5),
        ("{$include: data.yaml#s}", "x-value"),
        ("{$include: data.yaml#l}", ["value"]),
        ("{$include: data.yaml#top}", {"$env": "X"}),
        ("{$include: data.yaml#nope}", None),
        ("{$include: data.json}", {"k": ["value", " some ${X} text"]}),
        ("{$include: sub/data.yml}", {"own": "below", "up": "value"}),
        ("{$include: empty.yaml}", None),
        ("{$include: self.yaml}", {"a": {"b": 1}, "c": 1}),
        ("{$other: 1}", {"$other": 1}),
    ],
)
def test_includes_give_what_they_name(read: Read, include: str, value: Value) -> None:
    expected: Value = {} if value is None else {"v": value}
    assert read(f"v: {include}", environ=ENVIRON) == expected


@pytest.mark.usefixtures("included")
@pytest.mark.parametrize(
    ("include", "problem"),
    [
        ("{$env: X, a: 1}", "$env in 0.yaml stands beside other keys"),
        ("{$env: 5}", "$env in 0.yaml must be a string"),
        ("{$env: '${UNSET}'}", "$env in 0.yaml: UNSET is not set"),
        ("{$file: nope.txt}", "$file nope.txt in 0.yaml does not exist; looked in {dir}"),
        ("{$file: sub}", "$file sub in 0.yaml can't be read (Is a directory); looked in {dir}"),
        ("{$include: text.txt}", "$include text.txt in 0.yaml must name a .yaml, .yml or"),
        ("{$include: nope.yaml#a}", "$include nope.yaml#a in 0.yaml does not exist"),
        ("{$include: data.yaml#s.x}", "$include data.yaml#s.x in 0.yaml: the path leads"),
        ("{$include: data.yaml#nope.x}", "$include data.yaml#nope.x in 0.yaml: the path leads"),
        ("{$include: bad.yaml}", "$include bad.yaml in 0.yaml: line 2, column 1: the key 'a'"),
        ("{$include: bad.json}", "$include bad.json in 0.yaml: line 2: not JSON"),
    ],
)
def test_an_include_that_fails_names_its_key_and_its_file(
    read: Read, tmp_path: Path, include: str, problem: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        read(f"a:\n  b: [x, {include}]", environ=ENVIRON)
    [line] = raised.value.problems
    assert line.startswith(f"a.b[1]: {problem.replace('{dir}', str(tmp_path))}")


@pytest.mark.usefixtures("included")
def test_a_file_that_includes_itself_is_an_error(read: Read) -> None:
    with pytest.raises(ConfigError, match=r"^v\.a: .* in loop\.yaml includes itself"):
        read("v: {$include: loop.yaml}")


@pytest.mark.parametrize(
    ("earlier", "later", "merged"),
    [
        ("a: {b: 1, c: 2}", "a: {b: 3}", {"a": {"b": 3, "c": 2}}),
        ("a: [1, 2]", "a: [3]", {"a": [3]}),
        ("{a: 1, b: 2}", "a: null", {"b": 2}),
        ("a: {b: 1}", "a: null", {}),
        ("a: {b: 1}", "a: {b: null}", {"a": {}}),
        ("a: 1", "a: {b: 2}", {"a": {"b": 2}}),
        ("a: {b: 2}", "a: 1", {"a": 1}),
        ("a: {b: 2}", "a: {}", {"a": {"b": 2}}),
        ("a: x", "a: ''", {"a": ""}),
        ("{}", "a: {b: null, c: {d: null}}", {"a": {"c": {}}}),
        ("{}", "a: [null, {b: null, c: 1}]", {"a": [None, {"c": 1}]}),
    ],
)
def test_objects_are_merged_and_null_removes(
    read: Read, earlier: str, later: str, merged: Value
) -> None:
    assert read(earlier, later) == merged


def test_a_value_knows_its_files(write: Write) -> None:
    files = [
        write("base.yaml", "a: {b: 1, c: 1, d: [1]}"),
        write("over.yaml", "a: {d: [{$include: 'list.yaml'}]}"),
    ]
    write("list.yaml", "x: 1")
    tree = read_tree(files, {"APP_CONFIG_a_c": "2"}, Report())
    origins = {key: tree.origins_of(("a", key)) for key in "bcd"}
    assert origins == {"b": ["base.yaml"], "c": ["env"], "d": ["over.yaml", "list.yaml"]}
    assert tree.origins_of(("a",)) == ["base.yaml", "over.yaml", "list.yaml", "env"]
    assert tree.origins_of(("z",)) == []


def test_an_unset_variable_lets_the_earlier_value_through(read: Read) -> None:
    assert read("a: 1\nb: 1", "a: ${UNSET}\nb: ''") == {"a": 1, "b": ""}


@pytest.mark.parametrize("text", ["", "# only a comment\n", "null\n"])
def test_an_empty_file_says_nothing(read: Read, text: str) -> None:
    assert read("a: 1", text) == {"a": 1}


@pytest.mark.parametrize("text", ["[]", "text", "5", "{$env: X}", "{$file: nope}"])
def test_the_root_is_an_object(read: Read, text: str) -> None:
    with pytest.raises(ConfigError, match=r"^0\.yaml: "):
        read(text, environ=ENVIRON)


@pytest.mark.parametrize(
    ("environ", "value"),
    [
        ({"APP_CONFIG_a_b": "text"}, {"a": {"b": "text", "old": 1}}),
        ({"APP_CONFIG_a_b": "5"}, {"a": {"b": 5, "old": 1}}),
        ({"APP_CONFIG_a_b": '"5"'}, {"a": {"b": "5", "old": 1}}),
        ({"APP_CONFIG_a_b": '["x"]'}, {"a": {"b": ["x"], "old": 1}}),
        ({"APP_CONFIG_a_b": "${X}"}, {"a": {"b": "${X}", "old": 1}}),
        ({"APP_CONFIG_a_b": "NaN"}, {"a": {"b": "NaN", "old": 1}}),
        ({"APP_CONFIG_a_b": "Infinity"}, {"a": {"b": "Infinity", "old": 1}}),
        ({"APP_CONFIG_a_b": "1e999"}, {"a": {"b": "1e999", "old": 1}}),
        ({"APP_CONFIG_a_b": "[" * 100000}, {"a": {"b": "[" * 100000, "old": 1}}),
        ({"APP_CONFIG_a_b": ""}, {"a": {"old": 1}}),
        ({"APP_CONFIG_a": '{"old": null}'}, {"a": {}}),
        ({"APP_CONFIG_a": '{"x": 1}', "APP_CONFIG_a_b": "2"}, {"a": {"x": 1, "b": 2, "old": 1}}),
        ({"APP_CONFIG_a-b:c": "1"}, {"a": {"old": 1}, "a-b:c": 1}),
        ({"app_config_a_b": "1"}, {"a": {"old": 1}}),
    ],
)
def test_the_environment_sets_keys_last(
    read: Read, environ: Mapping[str, str], value: Value
) -> None:
    assert read("a: {old: 1}", environ=environ) == value


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"APP_CONFIG_a__b": "1"}, "APP_CONFIG_a__b: not the name of a"),
        ({"APP_CONFIG_": "1"}, "APP_CONFIG_: not the name"),
        ({"APP_CONFIG_1a": "1"}, "APP_CONFIG_1a: not the name"),
        ({"APP_CONFIG_a": "null"}, "APP_CONFIG_a: null"),
        (
            {"APP_CONFIG_a": "1", "APP_CONFIG_a_b": "2"},
            "APP_CONFIG_a_b: APP_CONFIG_a has a value that is no object",
        ),
        (
            {"APP_CONFIG_a_b": "2", "APP_CONFIG_a": "1"},
            "APP_CONFIG_a: another variable sets this key already",
        ),
        (
            {"APP_CONFIG_a": '{"b": 1}', "APP_CONFIG_a_b": "2"},
            "APP_CONFIG_a_b: another variable sets this key already",
        ),
    ],
)
def test_variables_that_name_no_key_or_clash_are_errors(
    read: Read, environ: Mapping[str, str], problem: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        read("{}", environ=environ)
    [line] = raised.value.problems
    assert line.startswith(problem)


def names(environ: Mapping[str, str], cwd: Path) -> list[str]:
    return [str(path.relative_to(cwd)) for path in default_paths(environ, cwd)]


def test_the_usual_files_are_read_in_backstages_order(tmp_path: Path) -> None:
    assert names({}, tmp_path) == ["app-config.yaml"]
    for middle in ("local", "ci", "prod.local", "other"):
        (tmp_path / f"app-config.{middle}.yaml").touch()
    assert names({}, tmp_path) == ["app-config.yaml", "app-config.local.yaml"]
    assert names({"BACKSTAGE_ENV": " ci,, prod"}, tmp_path) == [
        "app-config.yaml",
        "app-config.ci.yaml",
        "app-config.local.yaml",
        "app-config.prod.local.yaml",
    ]


def test_a_list_of_files_replaces_the_usual_ones(tmp_path: Path) -> None:
    (tmp_path / "app-config.local.yaml").touch()
    environ = {"LITELLM_PLUGIN_CONFIG": "a.yaml, sub/b.yaml,", "BACKSTAGE_ENV": "ci"}
    assert names(environ, tmp_path) == ["a.yaml", "sub/b.yaml"]
    assert default_paths({"LITELLM_PLUGIN_CONFIG": "/etc/c.yaml"}, tmp_path) == [
        Path("/etc/c.yaml")
    ]
    assert names({"LITELLM_PLUGIN_CONFIG": " , "}, tmp_path)[0] == "app-config.yaml"
