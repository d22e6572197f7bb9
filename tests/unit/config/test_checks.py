"""The lists of what there is, and the shapes of files."""

from __future__ import annotations

from osimager.config.checks import all_requests, list_named
from osimager.config.request import Request
from osimager.config.schema import KINDS, make_schema
from osimager.config.shapes import KEYS, check_shape

from .conftest import Tree


def test_platforms_and_locations_are_named(tree: Tree) -> None:
    catalog = tree.catalog()
    assert [named.name for named in list_named(catalog, "locations")] == ["local"]
    assert [named.name for named in list_named(catalog, "platforms")] == ["qemu"]


def test_a_spec_is_checked_on_a_platform_that_it_is_for(tree: Tree) -> None:
    tree.write("specs/platforms/other.yml", "description: another\n")
    tree.write("specs/base/spec.yml", "platforms: [other]\n")
    tree.write("specs/web/spec.yml", 'provides: {dist: web, versions: ["1"], arches: [x86_64]}\ninclude: base\n')
    catalog = tree.catalog()
    assert all_requests(catalog) == [Request(target="other/local/web-1-x86_64")]


def test_schemas_name_every_key() -> None:
    for kind in KINDS:
        schema = make_schema(kind)
        assert schema["type"] == "object"
        if kind in KEYS:
            assert set(schema["properties"]) == set(KEYS[kind])
        references = str(schema).split("'$ref': '#/$defs/")[1:]
        assert {reference.partition("'")[0] for reference in references} <= set(schema.get("$defs", {}))


def test_shipped_files_have_the_shapes_that_schemas_tell() -> None:
    from osimager.config.catalog import Catalog, Roots
    from osimager.paths import shipped

    catalog = Catalog.open(Roots(specs=(shipped("specs"),)))
    for path in catalog.spec_files():
        assert check_shape("spec", catalog.document(path)) == []
    for kind in ("platforms", "locations", "profiles"):
        for named in list_named(catalog, kind):
            assert named.path is None or check_shape(kind[:-1], catalog.document(named.path)) == []
