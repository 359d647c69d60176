"""Link format: the RFC's own documents, round trips, filters, and garbage.

The contract under test: `parse` inverts `build`; whatever it is given, it returns links or raises
`CoapError`; `select` keeps the links that a query of RFC 6690 section 4.1 asks for.
"""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amistack.coap.link_format import DOCUMENT_SIZE_MAX, LINK_COUNT_MAX, Link, build, parse, select
from amistack.errors import CoapError, LocalProtocolError

# RFC 6690 section 5, examples: sensors, types and interfaces, further attributes.
SENSORS = b"""</sensors/temp>;if="sensor",</sensors/light>;if="sensor\""""
LIGHTS = (
    b'</sensors>;ct=40;title="Sensor Index",</sensors/temp>;rt="temperature-c";if="sensor",'
    b'</sensors/light>;rt="light-lux";if="sensor",'
    b'<http://www.example.com/sensors/t123>;anchor="/sensors/temp";rel="describedby",'
    b'</t>;anchor="/sensors/temp";rel="alternate"'
)
LIGHT = Link("/sensors/light", ("light-lux", "core.sen-light"), ("sensor",))
INDEX = Link("/sensors", content_formats=(40,), title="Sensor Index")
FIRMWARE = Link("/firmware/v2.1", ("firmware",), size=262144, is_observable=True)
MANY = Link("/m", content_formats=(60, 112))
LINKS = (LIGHT, INDEX, FIRMWARE, MANY)


def test_documents_of_the_rfc_are_read() -> None:
    assert parse(SENSORS) == (
        Link("/sensors/temp", interfaces=("sensor",)),
        Link("/sensors/light", interfaces=("sensor",)),
    )
    assert parse(LIGHTS) == (
        Link("/sensors", content_formats=(40,), title="Sensor Index"),
        Link("/sensors/temp", ("temperature-c",), ("sensor",)),
        Link("/sensors/light", ("light-lux",), ("sensor",)),
        Link("http://www.example.com/sensors/t123"),
        Link("/t"),
    )
    assert parse(b'</firmware/v2.1>;rt="firmware";sz=262144') == (
        Link("/firmware/v2.1", ("firmware",), size=262144),
    )


def test_a_document_is_written_as_the_rfc_writes_it() -> None:
    assert build(LINKS) == (
        b'</sensors/light>;rt="light-lux core.sen-light";if="sensor",'
        b'</sensors>;ct=40;title="Sensor Index",'
        b'</firmware/v2.1>;rt="firmware";sz=262144;obs,'
        b'</m>;ct="60 112"'
    )


@pytest.mark.parametrize(
    ("document", "links"),
    [
        (b"", ()),
        (b",, </a> ,,", (Link("/a"),)),
        (b"</a>;rt=x", (Link("/a", ("x",)),)),
        (b'</a> ; rt = "x  y" ,\r\n </b>', (Link("/a", ("x", "y")), Link("/b"))),
        (b'</a>;rt="x";rt="y"', (Link("/a", ("x",)),)),
        (b'</a>;title="a\\"b\\\\c,</d>;"', (Link("/a", title='a"b\\c,</d>;'),)),
        (
            b"</a>;obs;other;else=1;more=\"2\";title*=UTF-8'de'x",
            (Link("/a", is_observable=True, attributes=(("other", None), ("else", 1))),),
        ),
        ('</a>;title="Zähler"'.encode(), (Link("/a", title="Zähler"),)),
    ],
)
def test_every_legal_way_of_writing_is_read(document: bytes, links: tuple[Link, ...]) -> None:
    assert parse(document) == links


@pytest.mark.parametrize(
    "document",
    [
        b"/a",
        b"<>",
        b"</a",
        b"</a b>",
        b"</a></b>",
        b"</a>;",
        b"</a>;=x",
        b'</a>;rt="x',
        b"</a>;sz=x",
        b"</a>;sz=-1",
        b"</a>;sz=99999999999",
        b"</a>;sz",
        b'</a>;ct="40 x"',
        b"</a>x",
        b"\xff",
        b"</" + b"a" * DOCUMENT_SIZE_MAX + b">",
        b"</a>," * (LINK_COUNT_MAX + 1),
    ],
    ids=lambda document: repr(document[:20]),
)
def test_what_is_no_document_is_refused(document: bytes) -> None:
    with pytest.raises(CoapError, match="bad link format"):
        parse(document)


QUERIES = {
    "rt=light-lux": (LIGHT,),
    "rt=core.sen-light": (LIGHT,),
    "rt=light-lux core.sen-light": (),
    "rt=light*": (LIGHT,),
    "rt=core*": (LIGHT,),
    "rt=*": (LIGHT, FIRMWARE),
    "rt=light": (),
    "if=sensor": (LIGHT,),
    "href=/sensors*": (LIGHT, INDEX),
    "href=/sensors": (INDEX,),
    "ct=40": (INDEX,),
    "ct=112": (MANY,),
    "sz=262144": (FIRMWARE,),
    "title=Sensor*": (INDEX,),
    "title=Index*": (),
    "obs=": (FIRMWARE,),
    "unknown=*": (),
}


@pytest.mark.parametrize(("query", "links"), QUERIES.items(), ids=QUERIES.keys())
def test_a_query_keeps_the_links_it_asks_for(query: str, links: tuple[Link, ...]) -> None:
    assert select(LINKS, [query]) == links


def test_no_query_keeps_all_and_several_must_all_fit() -> None:
    assert select(LINKS, []) == LINKS
    assert select(LINKS, ["if=sensor", "rt=light*"]) == (LIGHT,)
    assert select(LINKS, ["if=sensor", "rt=firmware"]) == ()


@pytest.mark.parametrize("query", ["", "rt", "=x"])
def test_a_query_that_is_no_filter_is_refused(query: str) -> None:
    with pytest.raises(CoapError, match="bad filter"):
        select(LINKS, [query])


@pytest.mark.parametrize(
    "link",
    [
        Link(""),
        Link("/a b"),
        Link("/a>"),
        Link("/ä"),
        Link("/a", ("x y",)),
        Link("/a", ("",)),
        Link("/a", interfaces=('"',)),
        Link("/a", content_formats=(-1,)),
        Link("/a", size=10**10),
        Link("/a", title="\ud800"),
        Link("/" + "a" * DOCUMENT_SIZE_MAX),
    ],
    ids=lambda link: repr(link)[:40],
)
def test_what_nobody_could_read_is_not_written(link: Link) -> None:
    with pytest.raises(LocalProtocolError):
        build([link])


def test_more_links_than_the_bound_are_not_written() -> None:
    assert len(parse(build([Link("/a")] * LINK_COUNT_MAX))) == LINK_COUNT_MAX
    with pytest.raises(LocalProtocolError):
        build([Link("/a")] * (LINK_COUNT_MAX + 1))


words = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='"\\'),
    min_size=1,
    max_size=8,
)
targets = st.text("/abcXYZ019-._~%:=;,", min_size=1, max_size=12)
numbers = st.integers(0, 9_999_999_999)
links = st.builds(
    Link,
    targets,
    st.lists(words, max_size=3).map(tuple),
    st.lists(words, max_size=2).map(tuple),
    st.lists(numbers, max_size=3).map(tuple),
    st.none() | numbers,
    st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.booleans(),
)


@given(st.lists(links, max_size=5))
def test_parse_inverts_build(listed: list[Link]) -> None:
    assert parse(build(listed)) == tuple(listed)


@given(
    st.one_of(st.binary(max_size=60), st.text('</a>;,="\\ rtcsz1*\n', max_size=60).map(str.encode))
)
def test_arbitrary_octets_give_links_or_coap_error(document: bytes) -> None:
    try:
        found = parse(document)
    except CoapError:
        return
    assert all(link.target for link in found)


@pytest.mark.parametrize("piece", [b'"', b"\\", b";a", b"<", b" ", b'</a>;t="\\', b';a="b"', b","])
def test_no_document_takes_long(piece: bytes) -> None:
    """A long row of anything is read, or refused, in time that grows with its length only."""
    document = (b"</a>" + piece * DOCUMENT_SIZE_MAX)[:DOCUMENT_SIZE_MAX]
    began = time.process_time()
    try:
        parse(document)
    except CoapError:
        pass
    assert time.process_time() - began < 1


def test_attributes_that_repeat_are_written_read_and_filtered_by() -> None:
    """As the EDHOC resource says what it takes (RFC 9668 section 6)."""
    edhoc = Link(
        "/.well-known/edhoc",
        ("core.edhoc",),
        attributes=(("ed-csuite", 2), ("ed-csuite", 3), ("ed-comb-req", None)),
    )
    document = build([edhoc, Link("/other")])
    assert document == (
        b'</.well-known/edhoc>;rt="core.edhoc";ed-csuite=2;ed-csuite=3;ed-comb-req,</other>'
    )
    assert parse(document) == (edhoc, Link("/other"))
    assert select(parse(document), ["ed-csuite=3"]) == (edhoc,)
    assert select(parse(document), ["ed-csuite=4"]) == ()


@pytest.mark.parametrize("name", ["rt", "obs", "", "two words", "a=b"])
def test_attribute_that_has_a_field_of_its_own_or_is_no_name_is_not_written(name: str) -> None:
    with pytest.raises(LocalProtocolError):
        build([Link("/a", attributes=((name, 1),))])
