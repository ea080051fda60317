"""All keys of a receiver rotate while it serves: the platform's, its own, those at rest and those of TLS."""

import contextlib
import json

import pytest

from receiver.keys.keyring import Keyring
from receiver.mock_platform.flow_states import FlowRun
from receiver.mock_platform.keys import new_store
from receiver.stores import open_store
from tests.support import certificates
from tests.support.backends import url_of_an_empty_store
from tests.support.commands import receiver
from tests.support.key_files import put
from tests.support.reloading import Caller, calling, hang_up, log_of
from tests.support.sealing import seal
from tests.support.serving import children_of, serving
from tests.support.waiting import until

pytestmark = pytest.mark.slow


class Reader(Caller):
    """Loads what it saved and compares it; its run goes on as long as it is told to."""

    def __init__(self, connect, seed):
        super().__init__(connect, seed)
        self.flow = None

    def call(self, client):
        self.flow = self.flow or FlowRun(client.tenant, self.seed)
        super().call(client)
        self.flow.step()
        state = self.flow.state()
        self.answered += 1
        if client.save(state).status != 204:
            self.wrong.append("a save")
        if client.open(self.flow.id, client.load(self.flow.id)) != state["content"]:
            self.wrong.append("another content")
        del self.flow.entries[6:]


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.case("G12", "H03", "B19")
def test_every_key_is_exchanged_under_load_and_no_request_fails(request, keys, platform_at, tmp_path, backend):
    url = url_of_an_empty_store(request, backend, tmp_path / "states")
    old, new = new_store(), new_store()
    put(tmp_path / "keys", old)
    first = seal(tmp_path)
    context = certificates.trusting()

    def connect(pair):
        return lambda: platform_at(running.url, context, keys=pair)

    with serving(keys, tmp_path, DATABASE_URL=url, STORAGE_LOG_LEVEL="info", **certificates.write(tmp_path)) as running:
        until(lambda: len(children_of(running.process.pid)) == 2)
        with calling(connect(old), range(2), Reader) as with_old:
            put(tmp_path / "keys", new)
            hang_up(running, tmp_path)
            with calling(connect(new), range(2, 4), Reader) as with_new:
                callers = with_old + with_new

                def served(count):
                    goals = [caller.answered + count for caller in callers]
                    until(
                        lambda: all(
                            one.answered >= goal or one.wrong for one, goal in zip(callers, goals, strict=True)
                        ),
                        60,
                    )

                served(6)
                second = seal(tmp_path)
                hang_up(running, tmp_path)
                served(6)
                ran = receiver(
                    "store", "reseal", "--stopped", "--json", cwd=tmp_path, DATABASE_URL=url
                )  # no worker uses the old one
                (row,) = json.loads(ran.stdout)
                assert (ran.returncode, row["key"], row["left"], row["damaged"]) == (0, second, {}, [])
                (tmp_path / f"keys/sealing-{first}.json").unlink()
                certificates.write(tmp_path)
                hang_up(running, tmp_path)
                served(6)
                for caller in with_old:
                    caller.stop()
                for pair in (old.platform, old.receiver):
                    (path,) = (tmp_path / "keys").glob(f"*{pair.kid}*")
                    path.unlink()
                hang_up(running, tmp_path)
                callers = with_new
                served(6)
        assert [caller.wrong for caller in with_old + with_new] == [[]] * 4
        assert len(with_new[0].shown) == 2  # certificates
    print(
        f"{sum(one.answered for one in with_old + with_new)} requests while all four kinds of keys rotated, none failed"
    )
    with contextlib.closing(open_store(url, 10)) as store:
        assert {one.sealing_key for one in store.summaries()} == {second}
        assert {kid for role, kid in store.key_uses() if role == "sealing"} == {second}
    assert "Traceback" not in log_of(tmp_path)


def test_a_ring_that_is_replaced_brings_its_sealing_keys_along():
    ring, other = Keyring(), Keyring()
    ring.replace(other)
    assert ring.sealing is other.sealing
