"""Content fidelity: what was saved is what is answered, or it is refused. Table D of the cases."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver import envelope, strictjson
from receiver.encoding import EncodingFault, as_ascii
from receiver.idempotency import Effect
from receiver.jose.compact import TokenFault
from receiver.jose.jws import verify_jws
from receiver.mock_platform import tokens
from receiver.mock_platform.flow_states import FlowRun
from tests.support.platform_client import assert_problem, loaded, ring_of


@pytest.mark.case("D03", "D04", "D05")
@pytest.mark.parametrize(
    "content",
    [
        *('{"b":1, "a" : 2,"b":3}', "[1e400,1.0,-0,-0.0]", "123456789012345678901234567890", "NaN", "1e131071"),
        *("", "not JSON", "null", '"', "{", " ", "\n\r\t", "\\u0000", '{"a":"\\ud800"}'),
        *(
            "\U0001f469\u200d\U0001f680",
            "\u05e9\u05dc\u05d5\u05dd \u202eabc",
            "\ufeff{}",
            "\u2028\u2029",
            "e\u0301 \u00e9",
        ),
        *("\x01\x1f\x7f\x80\x9f", "\ufffe\uffff\ufffd", "\U0010ffff", "'; drop table states; --", "a" * 100_000),
    ],
    ids=lambda text: ascii(text)[:30],
)
def test_content_comes_back_as_it_went_in(platform, state, content):
    assert platform.save(state | {"content": content}).status == 204
    assert loaded(platform, state["id"]) == content


@pytest.mark.case("D04")
@pytest.mark.parametrize("content", [{}, [], None, 1, True, "a\0b", "\ud800", "\udfff\ud800", "\0"], ids=ascii)
def test_content_that_no_store_could_keep_is_refused(platform, state, unchanged, content):
    with unchanged():
        assert_problem(platform.save(state | {"content": content}), 400, "item 0: content")


contents = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=300)


@given(
    content=contents,
    alg=st.sampled_from(["ECDH-ES+A192KW", "ECDH-ES+A256KW"]),
    enc=st.sampled_from(["A192CBC-HS384", "A256CBC-HS512"]),
    compressed=st.booleans(),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_content_makes_the_round_trip(platform, state, content, alg, enc, compressed):
    answer = platform.save(state | {"content": content}, alg=alg, enc=enc, compressed=compressed)
    assert answer.status == 204
    assert loaded(platform, state["id"]) == content


@given(content=contents, now=st.integers(0, 2**33))
@settings(max_examples=50, deadline=None)
def test_what_the_envelope_seals_the_platform_opens(content, now):
    keys, run = _KEYS, FlowRun("11111111-2222-4333-8444-555555555555", seed=3)
    state = _opened(run.state() | {"content": content}, keys, now)
    ring = ring_of(keys)
    token = envelope.seal_state(
        state,
        ring.find("platform", keys.platform.kid, run.tenant),
        ring.find("receiver", keys.receiver.kid, run.tenant),
        now,
    ).decode()
    assert tokens.open_reply(token, run.tenant, run.id, keys, now) == content


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=15,
)
texts = st.one_of(
    st.builds(
        lambda value, spaced, escaped: json.dumps(
            value, ensure_ascii=escaped, separators=(", ", ": ") if spaced else (",", ":")
        ).encode("utf-8", "surrogatepass"),
        values,
        st.booleans(),
        st.booleans(),
    ),
    st.builds(  # a member twice, a number that has two spellings, an escape that is not needed: all of it compact
        lambda names, between: b"{%b}" % b",".join(b'"%b":%b' % pair for pair in zip(names, between, strict=False)),
        st.lists(st.sampled_from([b"a", b"b", b"\\u0061", b"\\\\", b"a\\\\"]), max_size=4),
        st.lists(
            st.sampled_from([b"1", b"1.0", b"-0", b"1e2", b'"x"', b'"\\""', b'"\\\\"', b"{}"]), min_size=4, max_size=4
        ),
    ),
    st.binary(max_size=40),
)


@pytest.mark.parametrize("depth", [253, 254, 255, 256, 1023, 1024, 1025, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_what_is_nested_deep_is_a_value_or_refused(depth, opening, closing):
    data = depth * opening + b"1" + depth * closing
    try:
        value = strictjson.loads(data)
    except strictjson.NotJson:
        assert depth > 254  # what one of the parsers cannot
    else:
        for _ in range(depth):
            (value,) = value.values() if isinstance(value, dict) else value
        assert value == 1


@given(text=texts)
@settings(max_examples=1000, deadline=None)
def test_the_quick_parser_answers_what_the_strict_one_does(text):
    def outcome(data):
        try:
            return repr(strictjson.loads(data))  # 1 and 1.0 are equal, their texts are not
        except strictjson.NotJson:
            return None

    assert outcome(text) == outcome(text + b" ")  # which the quick one would not write


def _opened(claims, keys, now):
    token = tokens.seal(tokens.sign(tokens.state_claims(claims, now), keys.platform), keys.receiver)
    (state,) = envelope.open_states([token], claims["tenant"], ring_of(keys), now, 0, 10**6)
    return state


_KEYS = tokens.StoreKeys(tokens.KeyPair.generate(), tokens.KeyPair.generate())


@given(data=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(max_examples=300, deadline=None)
def test_no_bytes_break_the_json_reader(data):
    try:
        value = strictjson.loads(data)
    except strictjson.NotJson:
        return
    assert strictjson.loads(strictjson.dumps(value)) == value


@given(
    token=st.text(max_size=200)
    | st.from_regex(r"[\w-]{0,60}(\.[\w-]{0,60}){1,5}", fullmatch=True)
    | st.none()
    | st.integers()
)
@settings(max_examples=300, deadline=None)
def test_no_text_breaks_the_token_readers(token):
    with pytest.raises((TokenFault, EncodingFault)):
        verify_jws(as_ascii(token), lambda _kid: None)
    with pytest.raises(envelope.BadRequest):
        envelope.open_states([token], "11111111-2222-4333-8444-555555555555", ring_of(_KEYS), 0, 0, 1000)


def test_an_effect_counts_what_was_stored_and_what_was_ignored(platform, flow, store):
    old = flow.state()
    flow.step()
    new = flow.state()
    assert platform.save(new, old).status == 204
    assert loaded(platform, flow.id) == new["content"]
    found = store.find(flow.tenant, flow.id)
    assert store.save(flow.tenant, [found, found], None) == Effect(stored=2)
