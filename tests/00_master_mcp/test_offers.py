"""Every resource, template and prompt leads back to the one service that has it, or is refused."""

import pytest

from fleetkit.errors import Invalid, NotFound
from fleetkit.settings import SpokeRow
from master_mcp.catalog.offers import PROMPTS, RESOURCES, TEMPLATES, Offers

CMDB = SpokeRow(number=12, namespace="cmdb")
ONE = SpokeRow(number=90, namespace="ext.one", names="verbatim")
TWO = SpokeRow(number=91, namespace="ext.two", names="verbatim")


@pytest.fixture
def offers() -> Offers:
    """Three services that offer nothing yet."""
    made = Offers()
    for name, row in (("cmdb", CMDB), ("one", ONE), ("two", TWO)):
        made.know(name, row)
    return made


def resources(*uris: str) -> list[dict[str, str]]:
    return [{"uri": uri, "name": uri} for uri in uris]


def templates(*texts: str) -> list[dict[str, str]]:
    return [{"uriTemplate": text, "name": text} for text in texts]


def shown(offers: Offers, kind: str) -> list[str]:
    return [offer.name for offer in offers.all(kind)]


def test_a_resource_keeps_its_uri_and_its_service(offers: Offers) -> None:
    offers.replace("one", RESOURCES, resources("file:///b", "file:///a"))
    offers.replace("cmdb", RESOURCES, resources("cmdb://classes"))
    assert shown(offers, RESOURCES) == ["cmdb://classes", "file:///a", "file:///b"]
    place = offers.place("file:///a")
    assert (place.service, place.namespace, place.uri, place.prefix) == ("one", "ext.one", "file:///a", "")


def test_a_uri_of_two_services_is_shown_by_each_behind_its_namespace(offers: Offers) -> None:
    for service in ("one", "two"):
        offers.replace(service, RESOURCES, resources("file:///readme"))
    assert shown(offers, RESOURCES) == ["ext.one+file:///readme", "ext.two+file:///readme"]
    assert [offer.definition["uri"] for offer in offers.all(RESOURCES)] == shown(offers, RESOURCES)
    place = offers.place("ext.two+file:///readme")
    assert (place.service, place.uri, place.prefix) == ("two", "file:///readme", "ext.two+")
    with pytest.raises(Invalid, match=r"say one of ext\.one\+file:///readme, ext\.two\+file:///readme"):
        offers.place("file:///readme")


def test_a_uri_is_plain_again_when_only_one_has_it(offers: Offers) -> None:
    for service in ("one", "two"):
        offers.replace(service, RESOURCES, resources("file:///readme"))
    offers.forget("two")
    assert shown(offers, RESOURCES) == ["file:///readme"]
    assert offers.place("file:///readme").service == "one"


@pytest.mark.parametrize("uri", ["cmdb://ci/7", "CMDB://ci/7", "cmdb+file:///x"])
def test_nobody_shows_a_resource_under_the_scheme_of_another(offers: Offers, uri: str) -> None:
    offers.replace("one", RESOURCES, resources(uri, "file:///mine"))
    offers.replace("one", TEMPLATES, templates(f"{uri}/{{id}}"))
    assert shown(offers, RESOURCES) == ["file:///mine"]
    assert shown(offers, TEMPLATES) == []
    assert offers.place(uri).service == "cmdb"


def test_a_service_that_becomes_known_takes_its_scheme_back(offers: Offers) -> None:
    offers.replace("one", RESOURCES, resources("late://thing"))
    assert offers.place("late://thing").service == "one"
    offers.know("late", SpokeRow(number=20, namespace="late"))
    assert shown(offers, RESOURCES) == []
    assert offers.place("late://thing").service == "late"


def test_a_scheme_leads_to_its_service_even_when_nothing_like_it_is_listed(offers: Offers) -> None:
    place = offers.place("cmdb://ci/ci-7")
    assert (place.service, place.uri) == ("cmdb", "cmdb://ci/ci-7")


def test_a_namespace_before_a_uri_leads_to_its_service(offers: Offers) -> None:
    place = offers.place("ext.one+https://example.com/a+b")
    assert (place.service, place.uri, place.prefix) == ("one", "https://example.com/a+b", "ext.one+")


def test_a_listed_resource_wins_over_a_template(offers: Offers) -> None:
    offers.replace("one", TEMPLATES, templates("file:///{name}"))
    offers.replace("two", RESOURCES, resources("file:///a"))
    assert (offers.place("file:///a").service, offers.place("file:///b").service) == ("two", "one")


def test_a_uri_that_fits_templates_of_two_services_is_ambiguous(offers: Offers) -> None:
    offers.replace("one", TEMPLATES, templates("file:///{name}"))
    offers.replace("two", TEMPLATES, templates("file:///{+path}"))
    with pytest.raises(Invalid, match=r"ext\.one\+file:///a, ext\.two\+file:///a"):
        offers.place("file:///a")
    assert offers.place("file:///a/b").service == "two"


def test_a_template_of_two_services_is_shown_by_each(offers: Offers) -> None:
    for service in ("one", "two"):
        offers.replace(service, TEMPLATES, templates("file:///{name}"))
    assert shown(offers, TEMPLATES) == ["ext.one+file:///{name}", "ext.two+file:///{name}"]
    place = offers.template("ext.two+file:///{name}")
    assert (place.service, place.uri) == ("two", "file:///{name}")


def test_a_template_that_cannot_be_understood_is_listed_and_matches_nothing(offers: Offers) -> None:
    offers.replace("one", TEMPLATES, templates("file:///{a}{b}"))
    assert shown(offers, TEMPLATES) == ["file:///{a}{b}"]
    with pytest.raises(NotFound):
        offers.place("file:///x")
    assert offers.place("ext.one+file:///x").uri == "file:///x"


def test_what_nobody_has_is_not_found(offers: Offers) -> None:
    with pytest.raises(NotFound, match="resources/list"):
        offers.place("file:///nowhere")
    with pytest.raises(NotFound, match="prompts/list"):
        offers.prompt("nothing")
    with pytest.raises(NotFound):
        offers.template("file:///{x}")


@pytest.mark.parametrize("spelling", ["cmdb_planOutage", "cmdb.planOutage", "cmdb_plan_outage", "cmdb.plan_outage"])
def test_a_prompt_has_the_spellings_of_a_tool(offers: Offers, spelling: str) -> None:
    offers.replace("cmdb", PROMPTS, [{"name": "plan_outage"}])
    assert shown(offers, PROMPTS) == ["cmdb_planOutage"]
    assert (offers.prompt(spelling).service, offers.prompt(spelling).upstream) == ("cmdb", "plan_outage")


def test_a_spoke_of_the_fleet_says_the_id_of_its_prompt(offers: Offers) -> None:
    offers.replace("cmdb", PROMPTS, [{"name": "cmdb_planOutage", "_meta": {"fleet/id": "cmdb.planOutage"}}])
    assert shown(offers, PROMPTS) == ["cmdb_planOutage"]
    assert offers.prompt("cmdb.planOutage").upstream == "cmdb_planOutage"


def test_a_verbatim_prompt_whose_name_is_taken_goes_behind_its_namespace(offers: Offers) -> None:
    for service in ("one", "two"):
        offers.replace(service, PROMPTS, [{"name": "review"}])
    assert shown(offers, PROMPTS) == ["ext_two_review", "review"]
    assert (offers.prompt("review").service, offers.prompt("ext_two_review").service) == ("one", "two")
    assert offers.prompt("ext.one.review").service == "one"


def test_a_name_that_is_taken_both_ways_is_refused(offers: Offers) -> None:
    offers.replace("one", PROMPTS, [{"name": "review"}, {"name": "ext_two_review"}])
    offers.replace("two", PROMPTS, [{"name": "review"}])
    assert [(offer.name, offer.service) for offer in offers.all(PROMPTS)] == [
        ("ext_two_review", "one"),
        ("review", "one"),
    ]


def test_only_news_is_news(offers: Offers) -> None:
    assert offers.replace("one", RESOURCES, resources("file:///a"))
    before = offers.version
    assert not offers.replace("one", RESOURCES, resources("file:///a"))
    assert not offers.replace("one", TEMPLATES, [])
    assert offers.version == before
    assert offers.replace("one", RESOURCES, [])
    assert (offers.version, shown(offers, RESOURCES)) == (before + 1, [])
