"""Imports go one way, down the order of tests/support/imports.py; nothing goes round."""

import ast

import pytest

from tests.support import imports


@pytest.fixture(scope="module")
def parsed():
    return imports.modules()


@pytest.fixture(scope="module")
def arrows(parsed):
    return imports.arrows(parsed)


def test_every_folder_and_file_has_its_place_in_the_order(parsed):
    assert {imports.room_of(name) for name in parsed if name} == set(imports.ORDER)


def test_imports_go_down(arrows):
    assert imports.against_the_order(arrows) == []


def test_nothing_imports_in_a_circle(arrows):
    assert imports.circles(arrows) == []
    assert imports.circles(set(imports.between_rooms(arrows))) == []


def test_flask_is_imported_where_http_is_answered_and_nowhere_else(parsed):
    found = {name for name, tree in parsed.items() if "flask" in _libraries(tree)}
    assert found == imports.FLASK


def test_gunicorn_is_imported_by_the_server_alone(parsed):
    found = {imports.room_of(name) for name, tree in parsed.items() if "gunicorn" in _libraries(tree)}
    assert found == {"server"}


def test_what_goes_up_or_round_is_found():
    assert imports.against_the_order({("stores.sql", "keys.keyring")}) == [("stores.sql", "keys.keyring")]
    assert imports.against_the_order({("conformance.run", "problems")}) == [("conformance.run", "problems")]
    assert imports.against_the_order({("routes", "problems"), ("stores.sql", "stores.rows")}) == []
    assert imports.circles({("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")}) == [["a", "b", "c"]]


def _libraries(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found
