"""Faults in content: it does not come back as it was saved."""

import dataclasses
import json
import unicodedata

from receiver.states import Content
from receiver.stores.sqlite import SqliteStore
from tests.support.faults.declaring import fault


def changing_content(change):
    whole = SqliteStore.save

    def save(self, tenant, found, receipt):
        changed = [dataclasses.replace(state, content=Content(change(state.content.text))) for state in found]
        return whole(self, tenant, changed, receipt)

    SqliteStore.save = save


@fault("content.64k", "content.500k")
def truncates_at_64_KB():
    changing_content(lambda text: text[:65_535])


@fault("content.64k-bytes")
def truncates_at_64_KB_of_UTF_8():
    changing_content(lambda text: text.encode()[:65_536].decode(errors="ignore") if not text.isascii() else text)


@fault("content.spelling", "content.duplicates", "content.numbers", "content.bytes")
def serialises_JSON_anew():
    def anew(text):
        try:
            return json.dumps(json.loads(text))
        except ValueError:
            return text

    changing_content(anew)


@fault("content.unicode", "content.normal-forms")
def decodes_content_as_latin_1():
    changing_content(lambda text: text.encode().decode("latin-1"))


@fault("content.normal-forms")
def normalises_unicode():
    changing_content(lambda text: unicodedata.normalize("NFC", text))


@fault("content.unicode")
def keeps_three_bytes_of_a_character():
    changing_content(lambda text: "".join(one if ord(one) < 65536 else "?" for one in text))


@fault("content.trailing")
def strips_content():
    changing_content(str.strip)


@fault("content.separators")
def drops_byte_order_marks():
    changing_content(lambda text: text.replace("\ufeff", ""))
