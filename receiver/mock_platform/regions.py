"""The platform's regions, which region serves a user, and restrictions by region and country."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Region:
    """A region: its ``code``, public ``host``, the name of its ``place``, and the UTC offset of its times."""

    code: str
    host: str
    place: str
    offset_hours: int


# The hosts are examples of the product's public regional ones: nothing here ever calls them.
REGIONS = {
    region.code: region
    for region in (
        Region("US", "us.flow-prod.boomi.com", "United States", -5),
        Region("CA", "ca.flow-prod.boomi.com", "Canada", -4),
        Region("EU", "eu.flow-prod.boomi.com", "European Union", 1),
        Region("GB", "gb.flow-prod.boomi.com", "United Kingdom", 0),
        Region("AU", "au.flow-prod.boomi.com", "Australia", 10),
        Region("SG", "sg.flow-prod.boomi.com", "Singapore", 8),
    )
}

# ISO 3166-1 alpha-2, all of them. A continent belongs to the region that lies nearest to most of it ...
_CONTINENTS = {
    "US": "AG AI AR AW BB BL BM BO BQ BR BS BV BZ CL CO CR CU CW DM DO EC FK GD GF GP GS GT GY HN HT JM KN KY LC MF MQ "
    "MS MX NI PA PE PR PY SR SV SX TC TT US UM UY VC VE VG VI CA GL PM",
    "EU": "AD AL AT AX BA BE BG BY CH CY CZ DE DK EE ES FI FR GR HR HU IT LI LT LU LV MC MD ME MK MT NL NO PL PT RO RS "
    "RU SE SI SJ SK SM UA VA FO GB GG GI IE IM IS JE "  # Europe
    "AE AM AZ BH GE IL IQ IR JO KG KW KZ LB OM PS QA SA SY TJ TM TR UZ YE "  # western and central Asia
    "AO BF BI BJ BW CD CF CG CI CM CV DJ DZ EG EH ER ET GA GH GM GN GQ GW KE LR LS LY MA ML MR MW MZ NA NE NG RW SD "
    "SH SL SN SO SS ST SZ TD TG TN TZ UG ZA ZM ZW KM MG MU RE SC YT",  # Africa
    "SG": "AF BD BN BT CN HK ID IN IO JP KH KP KR LA LK MM MN MO MV MY NP PH PK SG TH TL TW VN",
    "AU": "AQ AS AU CC CK CX FJ FM GU HM KI MH MP NC NF NR NU NZ PF PG PN PW SB TF TK TO TV VU WF WS",
}
# ... except these, which another one is nearer to.
_EXCEPTIONS = {
    "CA": "CA GL PM",
    "GB": "GB GG IE IM JE FO IS",
    "SG": "MU RE SC CC CX FM GU MP PW",
}
_NEAREST = {
    country: code
    for table in (_CONTINENTS, _EXCEPTIONS)
    for code, countries in table.items()
    for country in countries.split()
}
COUNTRIES = frozenset(_NEAREST)


def nearest(country: str) -> Region:
    """Return the region that serves ``country`` (two capital letters); raises KeyError for an unknown one."""
    return REGIONS[_NEAREST[country]]


@dataclass(frozen=True)
class Restriction:
    """Limits runs to these ``regions`` and to users from these ``countries``. Empty means no limit."""

    regions: frozenset[str] = frozenset()
    countries: frozenset[str] = frozenset()

    def refusal(self, what: str, region: Region, country: str) -> str | None:
        """Return why a user in ``country``, served by ``region``, may not run ``what``; None if they may."""
        if self.countries and country not in self.countries:
            return f"{what} accepts users from {_list(self.countries)} only; this one is in {country}"
        if self.regions and region.code not in self.regions:
            return f"{what} runs in {_list(self.regions)} only; a user in {country} is served by {region.code}"
        return None

    def as_json(self) -> dict[str, list[str]]:
        """Return both lists, sorted, as the tenant's settings show them."""
        return {"regions": sorted(self.regions), "countries": sorted(self.countries)}


def _list(codes: Iterable[str]) -> str:
    return ", ".join(sorted(codes))
