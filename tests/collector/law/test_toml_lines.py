"""Lines of keys: held against tomllib, which knows the keys and not their lines, on odd texts of every kind."""

import json
import tomllib

from hypothesis import given, settings
from hypothesis import strategies as st

from flopmeter.collector.law.toml_lines import Place, places

TEXT = """\
# a = 1 is no key
title = "x"   # [not.a.table]
'odd "key"' = '''
trap = 1
[trap]
'''
a.b."c.d" = [1, # two = 2
  { e = "}", f = ["]"] }, \"\"\"
g = "in a string\\\\\"\"\"]

[table]
  key=2026-11-22 00:00:00Z
[[list]]
x = 1
[list.sub]
y = 1
  [[list]]
x = 2
[[list.inner]]
z = 3
[a.later]
"""


def test_a_text_with_every_trap():
    found = places(TEXT)
    assert found == {
        ("title",): Place(2, 1),
        ('odd "key"',): Place(3, 1),
        ("a",): Place(7, 1),
        ("a", "b"): Place(7, 1),
        ("a", "b", "c.d"): Place(7, 1),
        ("a", "b", "c.d", 0): Place(7, 14),
        ("a", "b", "c.d", 1): Place(8, 3),
        ("a", "b", "c.d", 1, "e"): Place(8, 5),
        ("a", "b", "c.d", 1, "f"): Place(8, 14),
        ("a", "b", "c.d", 1, "f", 0): Place(8, 19),
        ("a", "b", "c.d", 2): Place(8, 27),
        ("table",): Place(11, 1),
        ("table", "key"): Place(12, 3),
        ("list",): Place(13, 1),
        ("list", 0): Place(13, 1),
        ("list", 0, "x"): Place(14, 1),
        ("list", 0, "sub"): Place(15, 1),
        ("list", 0, "sub", "y"): Place(16, 1),
        ("list", 1): Place(17, 3),
        ("list", 1, "x"): Place(18, 1),
        ("list", 1, "inner"): Place(19, 1),
        ("list", 1, "inner", 0): Place(19, 1),
        ("list", 1, "inner", 0, "z"): Place(20, 1),
        ("a", "later"): Place(21, 1),
    }


NAMES = st.sampled_from(["a", "b-c", "d_1", "1", "é", "", "x.y", 'q"', "end = ]", "tab\t"])
BLANKS = st.sampled_from(["", " ", "\t", "  "])
COMMENTS = st.sampled_from(["", " # note", "# a = 1", "#[x]", '# """'])


def bare(name: str) -> bool:
    return bool(name) and all(c.isascii() and (c.isalnum() or c in "-_") for c in name)


@st.composite
def names(draw: st.DrawFn) -> str:
    name = draw(NAMES)
    ways = [json.dumps(name, ensure_ascii=draw(st.booleans()))]
    if bare(name):
        ways.append(name)
    if "'" not in name:
        ways.append(f"'{name}'")
    return draw(st.sampled_from(ways))


@st.composite
def keys(draw: st.DrawFn) -> str:
    blank = draw(BLANKS)
    return f"{blank}.{blank}".join(draw(st.lists(names(), min_size=1, max_size=3)))


SCALARS = st.sampled_from(
    [
        *("1", "-1_000", "0xff", "1e25", "0.33", "inf", "nan", "true", "2026-11-22", "07:32:00"),
        *("2026-11-22T00:00:00Z", "2026-11-22 00:00:00", '"a\\"#]}"', "'lit\\'", '""', "''", '"\\\\"'),
        *('"""\na = 1\n[b]\n"""', "'''\nc = \"\"\"\n'''", '"""two quotes: """""', '"""\\\n   cont"""'),
        "''''quoted''''",
    ]
)


@st.composite
def values(draw: st.DrawFn, depth: int = 0) -> str:
    kind = draw(st.integers(0, 4)) if depth < 3 else 0
    if kind == 1:
        inner = draw(st.lists(values(depth + 1), max_size=3))
        gap = draw(st.sampled_from(["", " ", "\n", "\n  # note ]\n", " # ,\n"]))
        return (
            "["
            + gap
            + f"{gap},{gap}".join(inner)
            + (gap + "," if inner and draw(st.booleans()) else "")
            + gap
            + "]"
        )
    if kind == 2:
        pairs = draw(st.lists(st.tuples(keys(), values(depth + 1)), max_size=3))
        return "{ " + ", ".join(f"{k} = {v}" for k, v in pairs) + " }"
    return draw(SCALARS)


@st.composite
def lines(draw: st.DrawFn) -> str:
    blank, comment = draw(BLANKS), draw(COMMENTS)
    kind = draw(st.integers(0, 6))
    if kind == 0:
        return blank + comment
    if kind == 1:
        return f"{blank}[{blank}{draw(keys())}{blank}]{blank}{comment}"
    if kind == 2:
        return f"{blank}[[{draw(keys())}{blank}]]{comment}"
    return f"{blank}{draw(keys())}{blank}={blank}{draw(values())}{blank}{comment}"


def paths(value: object, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    own = {path} if path else set()
    if isinstance(value, dict):
        return own.union(*(paths(v, (*path, k)) for k, v in value.items()))
    if isinstance(value, list):
        return own.union(*(paths(v, (*path, n)) for n, v in enumerate(value)))
    return own


@settings(max_examples=400)
@given(st.lists(lines(), max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_every_key_that_tomllib_finds_has_a_place_and_stands_there(parts, end):
    text = "\n".join(parts).replace("\n", end)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        places(text)  # never raises
        return
    found = places(text)
    assert found.keys() == paths(data)
    shown = text.split(end)
    for path, place in found.items():
        rest = shown[place.line - 1][place.column - 1 :]
        assert rest
        if isinstance(path[-1], str) and bare(path[-1]) and not rest.startswith("["):
            assert path[-1] in rest


@given(st.text(max_size=200))
def test_whatever_the_text_is_there_is_an_answer(text):
    places(text)


def test_deep_nesting_is_no_crash():
    places("a = " + "[" * 100_000)
