"""Keys and settings as people have them: numbers of other lengths, other wrappings, other formats. Case B22."""

import base64
import codecs
import json
import uuid
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from receiver import files, sealing, settings
from receiver.commands.conformance import conformance
from receiver.jose.p384 import point_of, private_key
from receiver.keys import keyring, passphrase
from receiver.keys.keyring import parse_key
from receiver.mock_platform import keyfiles
from receiver.mock_platform.forging import b64, unb64
from receiver.mock_platform.keys import KeyFault as MockKeyFault
from receiver.mock_platform.keys import KeyPair, new_store
from receiver.network import tls
from receiver.sealing import SealingFault
from receiver.secret import Secret
from receiver.settings.key_sources import KeyFault
from tests.support import certificates
from tests.support.key_files import load, write_private

SIZE = 48


def key_with_zero(name: str) -> dict:
    """Return the first private JWK, counting private numbers from 1000, whose number ``name`` begins with a zero."""
    for number in range(1000, 10_000):
        x, y = point_of(private_key(number.to_bytes(SIZE)).public_key())
        numbers = {"x": x, "y": y, "d": number.to_bytes(SIZE)}
        if numbers[name][0] == 0:
            texts = {name: b64(data) for name, data in numbers.items()}
            return {"kty": "EC", "crv": "P-384", "kid": str(uuid.UUID(int=number))} | texts
    raise AssertionError(name)


def without_zeros(text: str) -> str:
    return b64(unb64(text).lstrip(b"\0"))


def with_sign(text: str) -> str:
    return b64(b"\0" + unb64(text))


def numbers_of(handle):
    return handle.private_numbers() if hasattr(handle, "private_numbers") else handle.public_numbers()


@pytest.mark.case("B22")
@pytest.mark.parametrize("name", ["x", "y", "d"])
@pytest.mark.parametrize("spelled", [without_zeros, with_sign])
@pytest.mark.parametrize("role", keyring.ROLES)
def test_a_number_of_a_key_may_lack_zeros_or_have_a_sign_octet(name, spelled, role):
    whole = key_with_zero(name)
    odd = whole | {name: spelled(whole[name])}
    assert len(unb64(odd[name])) != SIZE
    expected, found = (parse_key(json.dumps(one), role, "a test") for one in (whole, odd))
    assert (found.thumbprint, numbers_of(found.handle)) == (expected.thumbprint, numbers_of(expected.handle))
    assert KeyPair.parse(odd).private() == KeyPair.parse(whole).private()


@pytest.mark.case("B22")
@pytest.mark.parametrize("name", ["x", "y", "d"])
def test_a_number_that_is_too_long_or_empty_is_refused(name):
    whole = key_with_zero("x")
    for data in (b"\1" + unb64(whole[name]), bytes(2) + unb64(whole[name]), b""):
        odd = json.dumps(whole | {name: b64(data)})
        with pytest.raises(KeyFault, match=f'^must have "{name}": 48 bytes'):
            parse_key(odd, "receiver", "a test")
        with pytest.raises(MockKeyFault):
            KeyPair.parse(json.loads(odd))


@pytest.fixture(scope="module")
def store():
    return new_store()


@pytest.fixture(scope="module")
def text(store) -> str:
    return json.dumps(store.receiver.private())


ACCEPTED = {
    "a byte order mark": lambda text: "\ufeff" + text,
    "CRLF": lambda text: json.dumps(json.loads(text), indent=2).replace("\n", "\r\n") + "\r\n",
    "a byte order mark and CRLF": lambda text: "\ufeff" + json.dumps(json.loads(text), indent=2).replace("\n", "\r\n"),
    "a set of one": lambda text: json.dumps({"keys": [json.loads(text)]}),
    "spaces": lambda text: f" \t{text}\n\n",
    "no key_ops": lambda text: json.dumps(json.loads(text) | {"key_ops": []}),
}


@pytest.mark.parametrize("form", ACCEPTED)
def test_a_key_is_read_in_every_form_in_which_it_is_whole(store, text, form, tmp_path):
    odd = ACCEPTED[form](text)
    variables = {"PLATFORM_KEY": json.dumps(store.platform.public())}
    path = write_private(tmp_path / "elsewhere", "")
    path.write_bytes(odd.encode())
    (tmp_path / "none").mkdir()
    for given in ({"RECEIVER_KEY": odd}, {"RECEIVER_KEY_FILE": str(path)}):
        found, mistakes = settings.read(variables | given | {"STORAGE_KEYS": str(tmp_path / "none")})
        ring, more = keyring.load(found)
        assert (mistakes, more, len(list(ring))) == ([], [], 2)
    (tmp_path / "keys").mkdir()
    write_private(tmp_path / "keys" / "receiver.json", "").write_bytes(odd.encode())
    ring, mistakes = load(variables, tmp_path / "keys")
    assert (mistakes, len(list(ring))) == ([], 2)
    (tmp_path / "mock").mkdir()
    (tmp_path / "mock" / "mock-platform-x.json").write_bytes(json.dumps(store.platform.private()).encode())
    (tmp_path / "mock" / "receiver-x.json").write_bytes(odd.encode())
    assert keyfiles.read(tmp_path / "mock").receiver.private()["d"] == store.receiver.private()["d"]
    protected = passphrase.protect(odd, "a phrase")
    for one in (protected, "\ufeff" + protected.replace("\n", "\r\n")):
        ring, mistakes = load(variables | {"RECEIVER_KEY": one}, key_passphrase=Secret("a phrase"))
        assert (mistakes, len(list(ring))) == ([], 2)


def pem(store, private: bool = True) -> str:
    key = store.receiver.jwk.get_op_key("sign")
    if private:
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def encoded(text: str) -> str:
    return base64.encodebytes(text.encode()).decode()


# What it is called in the message.
NAMED = {
    "PEM": (lambda store, text: pem(store), "is a PEM file; a JWK is needed: "),
    "a public key in PEM": (lambda store, text: pem(store, False), "is a PEM file; a JWK is needed: "),
    "PEM in one line": (lambda store, text: pem(store).replace("\n", "\\n"), "is a PEM file; a JWK is needed: "),
    "PEM with a byte order mark": (lambda store, text: "\ufeff" + pem(store), "is a PEM file; a JWK is needed: "),
    "PEM in base64": (lambda store, text: encoded(pem(store)), "is a PEM file in base64; a JWK is needed: "),
    "PEM without its first and last line": (
        lambda store, text: "".join(pem(store).splitlines()[1:-1]),
        "is a key in DER and base64; a JWK is needed: ",
    ),
    "OpenSSH": (lambda store, text: "ecdsa-sha2-nistp384 AAAAE2VjZHNh me", "is an OpenSSH key; a JWK is needed: "),
    "base64": (lambda store, text: encoded(text), "is in base64: decode it once"),
    "base64url": (lambda store, text: b64(text.encode()), "is in base64: decode it once"),
    "a set of two": (lambda store, text: f'{{"keys": [{text}, {text}]}}', "is a JWK set of 2 keys: give each key "),
    "a set of none": (lambda store, text: '{"keys": []}', "is a JWK set without a key in it"),
    "single quotes": (lambda store, text: f"'{text}'", "has quotes around it: take them off"),
    "double quotes": (lambda store, text: f'"{text}"', "has quotes around it: take them off"),
    "a JSON string": (lambda store, text: json.dumps(text), "has quotes around it: take them off"),
    "typographic quotes around": (lambda store, text: f"\u201c{text}\u201d", "has quotes around it: take them off"),
    "typographic quotes": (lambda store, text: text.replace('"', "\u201d"), "has typographic quotes"),
    "quotes with backslashes": (lambda store, text: text.replace('"', '\\"'), "has backslashes before its quotes"),
    "single quotes inside": (lambda store, text: text.replace('"', "'"), "has single quotes in it"),
    "no quotes, as a shell leaves it": (lambda store, text: text.replace('"', ""), "has lost its quotes"),
    "its first line": (lambda store, text: "{", "is cut off"),
    "a part": (lambda store, text: text[:-9], "is cut off"),
    "a member twice": (lambda store, text: text[:-1] + ', "kty": "EC"}', "holds a member twice"),
    "a path": (lambda store, text: "/run/secrets/receiver.json", "is the path of a file: set the variable with _FILE"),
    "a path of Windows": (lambda store, text: "C:\\keys\\receiver.json", "is the path of a file"),
    "a token": (lambda store, text: f"{b64(text.encode())}.YQ.YQ", "is a token (JWT), not a key"),
    "nothing but a line end": (lambda store, text: "\n", "must be one JWK as a JSON object; it is empty"),
    "the answer of a registration": (
        lambda store, text: f'{{"receiverKey": {text}}}',
        "holds the key as one member of something larger",
    ),
}


@pytest.mark.parametrize("form", NAMED)
def test_what_is_no_jwk_is_named_with_its_remedy_and_nothing_of_it_is_printed(store, text, form, tmp_path):
    make, named = NAMED[form]
    odd = make(store, text)
    variables = {"PLATFORM_KEY": json.dumps(store.platform.public())}
    (mistake,) = load(variables | {"RECEIVER_KEY": odd})[1]
    assert mistake.startswith(f"RECEIVER_KEY: {named}")
    (tmp_path / "receiver.json").touch(mode=0o600)
    (tmp_path / "receiver.json").write_text(odd)
    (from_file,) = load(variables, tmp_path)[1]
    assert from_file == mistake.replace("RECEIVER_KEY", str(tmp_path / "receiver.json"), 1)
    with pytest.raises(MockKeyFault) as mock_fault:
        KeyPair.read(odd if form != "a member twice" else "{}")  # the platform's simulator takes the last one
    with pytest.raises(KeyFault) as protect_fault:
        passphrase.protect(odd, "x")
    secret = store.receiver.private()
    private = [secret["d"], secret["x"], b64(text.encode())[:40], "".join(pem(store).splitlines()[1:-1])[:40]]
    for message in (mistake, str(mock_fault.value), str(protect_fault.value)):
        assert message.isprintable() and not any(part in message for part in private)


@pytest.mark.parametrize("form", [form for form, (_, named) in NAMED.items() if "set of 2" not in named])
def test_what_is_no_sealing_key_is_named_likewise(store, form):
    made = sealing.generate(1_700_000_000)
    make, named = NAMED[form]
    with pytest.raises(SealingFault) as fault:
        sealing.parse_keys(make(store, json.dumps(made)), "a test")
    assert str(fault.value).startswith(named) and made["k"] not in str(fault.value)
    if "a JWK is needed" in named:
        assert str(fault.value).endswith("a JWK is needed: `receiver keys sealing` makes one")
    for odd in ("\ufeff" + json.dumps(made), json.dumps({"keys": [made]}), json.dumps(made) + "\r\n"):
        assert [key.kid for key in sealing.parse_keys(odd, "a test")] == [made["kid"]]


@pytest.mark.parametrize("name", ["receiver.pem", "server.key", "receiver.DER", "store.p12"])
def test_a_file_of_another_format_is_named_in_the_directory(tmp_path, store, text, name):
    (tmp_path / name).write_text(pem(store))
    variables = {"PLATFORM_KEY": json.dumps(store.platform.public()), "RECEIVER_KEY": text}
    (mistake,) = load(variables, tmp_path)[1]
    assert mistake.startswith(f"{tmp_path}/{name}: must be named ")
    assert mistake.endswith("; its name says that it holds no JWK, which is needed")


@pytest.mark.parametrize("form", ["PEM", "a set of two", "a byte order mark", "a set of one"])
def test_conformance_reads_its_keys_likewise(tmp_path, store, text, form):
    (tmp_path / "platform.json").write_text(json.dumps(store.platform.private()))
    (tmp_path / "receiver.json").write_text((ACCEPTED.get(form) or (lambda text: NAMED[form][0](store, text)))(text))
    words = ["--platform-key", str(tmp_path / "platform.json"), "--receiver-key", str(tmp_path / "receiver.json")]
    # Its address is refused only when both keys were read.
    done = CliRunner().invoke(conformance, ["--url", "https://127.0.0.1:9", "--client-key", words[1], *words])
    assert done.exit_code == 2
    assert (
        f"receiver.json must be a JWK of the receiver (EC, P-384, with a kid): it {form_of(form)}" in done.output
    ) == (form in NAMED), done.output


def form_of(form: str) -> str:
    return {"PEM": "is a PEM file; a JWK is needed", "a set of two": "is a JWK set of 2 keys"}.get(form, "?")


def test_a_file_in_utf_16_is_named(tmp_path, text):
    for name in ("utf-16-le", "utf-16-be"):
        mark = codecs.BOM_UTF16_LE if name.endswith("le") else codecs.BOM_UTF16_BE
        (tmp_path / name).write_bytes(mark + text.encode(name))
        with pytest.raises(ValueError, match=r"^is text in UTF-16, as PowerShell writes it: save it in UTF-8$"):
            files.read_text(tmp_path / name)


WRAPPED = [('"{}"', "quotes around it"), ("'{}'", "quotes around it"), ("{}\n", "a line end"), ("{}\r", "a line end")]


@pytest.mark.parametrize(("wrapping", "named"), WRAPPED)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("PORT", "8080"), ("STORAGE_WORKERS", "2"), ("STORAGE_MAX_BODY", "32MiB"), ("STORAGE_REPLAY", "off")),
        *(("DATABASE_PASSWORD", "hunter2"), ("DATABASE_USERNAME", "hunter2"), ("STORAGE_CLOCK_SKEW", "3")),
        *(("STORAGE_BIND", "127.0.0.1:0"), ("STORAGE_TENANTS", str(uuid.UUID(int=1))), ("STORAGE_KEYS", "/tmp")),
        *(("STORAGE_TRUSTED_PROXIES", "10.0.0.1"), ("STORAGE_TLS_CERT", "/etc/passwd"), ("STORAGE_DRAIN", "3")),
        (f"STORAGE_TENANT_{uuid.UUID(int=1)}", "postgresql://u:hunter2@h/d"),
        ("DATABASE_URL", "postgresql://u:hunter2@h/d"),
        ("JDBC_DATABASE_URL", "jdbc:postgresql://h/d?user=u&password=hunter2"),
    ],
)
def test_a_value_that_came_with_its_wrapping_is_named_as_that(name, value, wrapping, named):
    found, mistakes = settings.read({name: wrapping.format(value)})
    if mistakes == []:  # spaces around are no part of an address, a UUID or a URL
        assert "line end" in named and name in ("STORAGE_TENANTS", "STORAGE_TRUSTED_PROXIES", *URLS)
        assert found == settings.read({name: value})[0]
        return
    (mistake,) = mistakes
    assert mistake.startswith(f"{name}: ") and named in mistake.rpartition("(")[2]
    assert "hunter2" not in mistake
    assert settings.read({name: value})[1] == []


URLS = ("DATABASE_URL", "JDBC_DATABASE_URL")


@pytest.mark.parametrize(("wrapping", "named"), WRAPPED)
def test_the_path_of_a_file_that_came_with_its_wrapping_is_named_as_that(tmp_path, wrapping, named):
    (tmp_path / "value").write_text("8080")
    (mistake,) = settings.read({"PORT_FILE": wrapping.format(tmp_path / "value")})[1]
    assert mistake.startswith("PORT_FILE: the file it names cannot be read (No such file or directory) (it ")
    assert named in mistake


def test_what_a_file_holds_is_judged_alike_but_for_line_ends(tmp_path):
    for content, named in (
        ('"8080"\n', "quotes around it"),
        (" 8080", "spaces around it"),
        ('8080"', "a quote at one"),
    ):
        (tmp_path / "value").write_text(content)
        (mistake,) = settings.read({"PORT_FILE": str(tmp_path / "value")})[1]
        assert mistake.startswith("PORT_FILE: must be a whole number") and named in mistake
    (tmp_path / "value").write_bytes(b"\xef\xbb\xbf8080\r\n")
    found, mistakes = settings.read({"PORT_FILE": str(tmp_path / "value"), "STORAGE_WORKERS": "\ufeff3"})
    assert (mistakes, found.port, found.workers) == ([], 8080, 3)


def test_a_passphrase_with_quotes_is_taken_as_it_is_and_named_where_it_does_not_open(store, text):
    for phrase in ('"a phrase"', "a phrase\n"):
        protected = passphrase.protect(text, phrase)
        assert passphrase.open_text(protected, phrase) == text
        with pytest.raises(KeyFault, match=r"its passphrase \(it (has quotes around|ends in a line end)"):
            passphrase.open_text(passphrase.protect(text, "a phrase"), phrase)


NOT_PEM = {
    "UTF-16": (lambda data: data.decode().encode("utf-16"), "it is text in UTF-16"),
    "DER": (lambda data: base64.b64decode(b"".join(data.splitlines()[1:-1])), "it is in DER or PKCS #12"),
    "a JWK": (lambda data: b'{"kty": "EC"}', "it is JSON, perhaps a JWK"),
    "one line": (lambda data: data.replace(b"\n", b"\\n"), "its line ends were lost"),
}


@pytest.mark.parametrize("form", NOT_PEM)
@pytest.mark.parametrize("name", ["STORAGE_TLS_CERT", "STORAGE_TLS_KEY", "STORAGE_TLS_CLIENT_CA"])
def test_what_is_no_pem_file_is_named(tmp_path, form, name):
    make, named = NOT_PEM[form]
    environ = certificates.write(tmp_path) | {"STORAGE_TLS_CLIENT_CA": str(tmp_path / "ca.pem")}
    good = Path(environ["STORAGE_TLS_CERT"]).read_bytes()
    (tmp_path / "ca.pem").write_bytes(good)
    path = Path(environ[name])
    whole = path.read_bytes()
    path.write_bytes(codecs.BOM_UTF8 + whole)
    assert tls.load(settings.read(environ)[0])[1] == []
    first = whole[: whole.index(b"-----END") + len(b"-----END CERTIFICATE-----\n")]
    path.write_bytes(make(first if name != "STORAGE_TLS_KEY" else whole))
    path.chmod(0o600)
    _, (mistake,) = tls.load(settings.read(environ)[0])
    assert mistake.startswith(f"{name}: must hold ") and named in mistake
