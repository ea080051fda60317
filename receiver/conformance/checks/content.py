"""Content fidelity: a content comes back as it was saved, or its save is refused. Cases, table D."""

import json
import random
import uuid

from receiver.conformance.registry import check
from receiver.conformance.trial import LATER, Trial
from receiver.mock_platform.flow_states import FlowRun
from receiver.mock_platform.json_values import JSONObject


def _saved(trial: Trial, *contents: str) -> list[JSONObject]:
    states = [trial.state(content=content) for content in contents]
    for state in states:
        answer = trial.client.save(state)
        trial.expect(answer, 204, what=f"POST of {state['content'][:30]!a}")
    return states


def _identical(trial: Trial, *contents: str) -> None:
    """Fail unless each of ``contents``, which may be any text, comes back unchanged."""
    for state in _saved(trial, *contents):
        trial.expect_exactly(state["id"], state["content"])


def _equal(trial: Trial, *contents: str) -> None:
    """Fail unless each of ``contents``, all JSON, comes back as the same value: a jsonb column keeps no more."""
    for state in _saved(trial, *contents):
        trial.expect_content(state["id"], state["content"])


@check(
    "content.spelling",
    "should",
    "Spaces, line ends and the order of members stay as they are, because content is text and not a value.",
    "D03",
)
def spelling(trial: Trial) -> None:
    _identical(trial, '{"b":1, "a" : 2}', '{ "z": [ ] ,\r\n\t"a": { } }', '{"\\u00e9": "\\/\\u0041"}')


@check("content.duplicates", "should", "A member that occurs twice stays twice.", "D03")
def duplicates(trial: Trial) -> None:
    _identical(trial, '{"b":3,"a":2,"b":1}')


@check("content.numbers", "should", "Numbers keep their digits.", "D03")
def numbers(trial: Trial) -> None:
    _identical(trial, "[1e400,1.0,-0,-0.0,1E+2,0.10]", "[123456789012345678901234567890]", "[1e131071]")


@check("content.unicode", "must", "Emoji, right-to-left text and characters beyond 16 bits come back unchanged.", "D05")
def unicode(trial: Trial) -> None:
    _equal(trial, '"größe 住所 \U0001f469\u200d\U0001f680"', '"\u05e9\u05dc\u05d5\u05dd \u202eabc"', '"\U0010fffd"')


@check("content.normal-forms", "must", "Composed and combining characters are not converted into one another.", "D05")
def normal_forms(trial: Trial) -> None:
    _equal(trial, '"e\u0301 \u00e9 \u212b \u00c5 \ufb01 \u1e9b\u0323"')


@check("content.separators", "should", "U+FEFF, U+2028 and U+2029 stay where they are.", "D05")
def separators(trial: Trial) -> None:
    _identical(trial, "\ufeff{}", '"\u2028\u2029"', '"a\ufeffb"')


@check("content.trailing", "should", "Spaces and line ends at both ends belong to the content.", "D03")
def trailing(trial: Trial) -> None:
    _identical(trial, "  {} ", "{}\n", "\r\n{}\r\n")


@check(
    "content.controls",
    "should",
    "Every character except U+0000 comes back, even those that XML cannot represent.",
    "D05",
)
def controls(trial: Trial) -> None:
    _identical(trial, "\x01\x1f\x7f\x80\x9f", "\ufffe\uffff\ufffd")


@check("content.not-json", "should", "Content is opaque: even text that is not JSON comes back.", "D04")
def not_json(trial: Trial) -> None:
    _identical(trial, "not JSON", "{", '"', "NaN", "'; drop table states; --")


@check("content.empty", "should", "An empty content comes back empty.", "D04")
def empty(trial: Trial) -> None:
    _identical(trial, "", " ")


@check(
    "content.escapes",
    "should",
    "Escapes inside the JSON stay escapes, including those of U+0000 and of lone surrogates.",
    "D03",
)
def escapes(trial: Trial) -> None:
    _identical(trial, '{"a":"\\u0000"}', '{"a":"\\ud800"}', '"\\\\n\\n"')


@check(
    "content.nul",
    "should",
    "U+0000 is refused with 400, because not every database can store it.",
    "protocol, section 5.6",
)
def nul(trial: Trial) -> None:
    _refused(trial, "a\0b", "\0")


@check(
    "content.surrogates",
    "should",
    "A lone surrogate is refused with 400, because UTF-8 cannot represent it.",
    "protocol, section 5.6",
)
def surrogates(trial: Trial) -> None:
    _refused(trial, "\ud800", "\udfff\ud800")


@check("content.no-text", "should", "Content that is not a string is refused with 400.", "D04")
def no_text(trial: Trial) -> None:
    _refused(trial, {}, [], 1, True, None)


def _refused(trial: Trial, *contents: object) -> None:
    state = trial.state()
    for content in contents:
        trial.expect(trial.post(trial.token(state, content=content)), 400, what=f"content {content!a}")
    trial.expect_absent(state["id"], "each save of it was refused")


@check(
    "content.bytes",
    "should",
    "A flow's content comes back byte for byte, not just as the same value.",
    "protocol, section 10.5",
)
def byte_for_byte(trial: Trial) -> None:
    run = FlowRun(trial.tenant, uuid.uuid4().int)
    document = run.document()
    compact = json.dumps(document, separators=(",", ":"))
    spaced = json.dumps(document, ensure_ascii=False, indent=2)
    large = json.dumps([document] * (500_000 // len(compact)), separators=(",", ":"))
    _identical(trial, run.state()["content"], compact, spaced, large)


@check(
    "content.64k",
    "must",
    "Contents around 64 KiB, where some database columns end, come back whole.",
    "protocol, section 5.6",
)
def around_64k(trial: Trial) -> None:
    _equal(trial, *(json.dumps("x" * (size - 2)) for size in (65_534, 65_535, 65_536, 65_537, 70_000)))


@check(
    "content.64k-bytes",
    "must",
    "Contents whose UTF-8 form passes 64 KiB, although they have fewer characters, come back whole.",
    "protocol, section 5.6",
)
def around_64k_bytes(trial: Trial) -> None:
    _equal(trial, json.dumps("ü" * 40_000, ensure_ascii=False), json.dumps("\U0001f680" * 20_000, ensure_ascii=False))


@check("content.500k", "must", "A state of 500 KB, the usual upper limit, comes back whole.", "protocol, section 5.6")
def usual_upper_end(trial: Trial) -> None:
    chance = random.Random(5)  # noqa: S311 - data that compresses badly
    _equal(trial, json.dumps([chance.random() for _ in range(25_000)]))


@check("content.500k-plain", "must", "A state of 500 KB comes back whole without compression too.", "B11")
def plain(trial: Trial) -> None:
    state = trial.state(content=json.dumps(["äöü page"] * 40_000, ensure_ascii=False))
    trial.expect(trial.client.save(state, compressed=False), 204, what="POST of 500 KB without zip")
    trial.expect_content(state["id"], state["content"])


@check("content.1mb", "must", "A state of 1 MB comes back whole.", "B11")
def one_megabyte(trial: Trial) -> None:
    _equal(trial, _sized(1))


@check("content.5mb", "must", "A state of 5 MB comes back whole.", "B11")
def five_megabytes(trial: Trial) -> None:
    _equal(trial, _sized(5))


@check("content.10mb", "should", "A state of 10 MB comes back whole.", "B11")
def ten_megabytes(trial: Trial) -> None:
    _equal(trial, json.dumps(["äöü page"] * 1_000_000, ensure_ascii=False))  # 10 MB of text, which compresses well


def _sized(megabytes: int) -> str:
    chance = random.Random(megabytes)  # noqa: S311 - filling
    block = json.dumps({"values": [chance.random() for _ in range(5_000)]})
    return json.dumps([block] * (megabytes * 1_000_000 // len(block))).ljust(megabytes * 1_000_000)


@check(
    "content.shrinks", "must", "A later, shorter content replaces a longer one completely.", "protocol, section 10.5"
)
def shrinks(trial: Trial) -> None:
    state = trial.stored(content=json.dumps("x" * 200_000))
    trial.expect(trial.client.save(state | {"updatedAt": LATER, "content": "{}"}), 204, what="a shorter content")
    trial.expect_content(state["id"], "{}", "the shorter content")
