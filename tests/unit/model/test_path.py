"""The paths people type: short ones name the default project and namespace, long ones are verbatim."""

import pytest

from prontodb.errors import InvalidInputError, InvalidKeyError, InvalidPathError
from prontodb.model.path import key_of, namespace_scope


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("key", "key"),
        ("default.key", "key"),
        ("default.default.key", "key"),
        ("ns.key", "ns.key"),
        ("default.ns.key", "ns.key"),
        ("p.default.key", "p.default.key"),
        ("p.ns.key", "p.ns.key"),
        ("default", "default"),
        ("default.default", "default"),
        ("default.default.default", "default"),
        ("a.b.c.d", "a.b.c.d"),
        ("default.b.c.d", "default.b.c.d"),
        ("ns.key__ctx", "ns.key__ctx"),
    ],
)
def test_a_path_names_a_key(path: str, key: str) -> None:
    assert key_of(path) == key


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"project": "p", "namespace": "n"}, "p.n.k"),
        ({"namespace": "n"}, "n.k"),
        ({"project": "p"}, "p.default.k"),
        ({"project": "default", "namespace": "n"}, "n.k"),
        ({"project": "default", "namespace": "default"}, "k"),
    ],
)
def test_options_stand_before_the_path(options: dict[str, str], key: str) -> None:
    assert key_of("k", **options) == key


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b", "..", "a.b.", "default."])
def test_an_empty_part_is_refused(path: str) -> None:
    with pytest.raises(InvalidPathError, match="empty part"):
        key_of(path)


@pytest.mark.parametrize(
    "options", [{"namespace": "a.b"}, {"project": "a.b"}, {"project": ""}, {"namespace": ""}, {"project": "a."}]
)
def test_an_option_is_one_part(options: dict[str, str]) -> None:
    with pytest.raises(InvalidPathError):
        key_of("k", **options)


def test_a_path_after_a_namespace_alone_is_refused_because_it_would_mean_two_things() -> None:
    with pytest.raises(InvalidPathError, match="-n"):
        key_of("a.b", namespace="n")


def test_another_delimiter_separates_and_a_dot_in_a_part_is_refused() -> None:
    assert key_of("p:n:k", delimiter=":") == "p.n.k"
    assert key_of("p::n::k", delimiter="::") == "p.n.k"
    with pytest.raises(InvalidPathError, match="--raw"):
        key_of("p:n.m:k", delimiter=":")
    for delimiter in ("", "\n", "x" * 9):
        with pytest.raises(InvalidPathError, match="delimiter"):
            key_of("a", delimiter=delimiter)


@pytest.mark.parametrize("path", ["a\nb", "a.\x00", "x" * 2_000])
def test_a_path_must_name_a_key(path: str) -> None:
    with pytest.raises(InvalidInputError):
        key_of(path)


@pytest.mark.parametrize(
    ("scope", "namespace"),
    [
        ("ns", "ns"),
        ("p.ns", "p.ns"),
        ("default", ""),
        ("default.default", ""),
        ("default.ns", "ns"),
        ("a.b.c", "a.b.c"),
    ],
)
def test_a_scope_names_a_namespace(scope: str, namespace: str) -> None:
    assert namespace_scope(scope) == namespace


@pytest.mark.parametrize(
    ("scope", "error"), [("", InvalidPathError), ("a.", InvalidPathError), ("a\nb", InvalidKeyError)]
)
def test_a_scope_that_names_none_is_refused(scope: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        namespace_scope(scope)
