"""One trial: a store with acknowledged states is damaged; what its receiver answers from then on, and after a start."""

import contextlib
import http.client
import json
import random
import shutil
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from receiver.mock_platform.client import Client
from receiver.mock_platform.flow_states import FlowRun
from receiver.mock_platform.keys import new_store as new_keys
from tests.chaos.damage.kinds import RESTART, RUNNING, Damage, Place
from tests.chaos.faults import Fault
from tests.chaos.stores import StoreUnderTest
from tests.chaos.subject import Receiver, Subject, environment_of, running
from tests.support.waiting import until

STATES = 16
_ENOUGH = 4
REFUSED_START = 78


@dataclass
class Outcome:
    """What was seen: each answer to a load by its kind ("right", "5xx", "404", "wrong", "none"), and the ``starts``."""

    damage: Damage
    when: str
    loads: Counter = field(default_factory=Counter)
    starts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_bad(self) -> bool:
        """Whether something acknowledged was answered 404 or with another content, or a start failed in another way.

        404 and older contents do not count where nobody could notice.
        """
        is_noticed = not self.damage.is_undetectable
        misread = is_noticed and (self.loads["404"] or self.loads["wrong"])
        return bool(misread or set(self.starts) - {"started", "refused (78)"})

    @property
    def word(self) -> str:
        if self.damage.is_undetectable and (self.loads["wrong"] or self.loads["404"]):
            return "undetectable, documented"
        if self.loads["wrong"]:
            return f"WRONG CONTENT × {self.loads['wrong']}"
        if self.loads["404"]:
            return f"404 × {self.loads['404']}"
        if self.is_bad:
            return "START FAILED"
        return "refused" if self.loads["5xx"] or "refused (78)" in self.starts else "harmless"

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(self.loads.items()))
        return (
            f"{self.damage.store:6} {self.damage.name}, {self.when}: {self.word} ({counts}; {', '.join(self.starts)})"
        )


class Trial:
    """A store of the kind of ``damage`` in ``folder``, its receiver, and what it has acknowledged."""

    def __init__(self, damage: Damage, when: str, folder: Path, seed: int) -> None:
        self.damage, self.folder, self.keys = damage, folder, new_keys()
        self.chance = random.Random(f"{seed} {damage.store} {damage.name} {when}")
        self.outcome = Outcome(damage, when)
        self.path = self._path_in(folder / "store")
        self.kept: dict[tuple[str, str], str] = {}
        self.tenants = [str(uuid.UUID(int=self.chance.getrandbits(128), version=4)) for _ in range(2)]
        self.flows = [FlowRun(tenant, number) for number, tenant in enumerate(self.tenants)]

    def _path_in(self, folder: Path) -> Path:
        folder.mkdir()
        return folder / ("states.db" if self.damage.store == "sqlite" else "states")

    def run(self) -> Outcome:
        """Do it all; return the outcome."""
        if "another" in self.damage.name:
            self._copied(self._filled(self._path_in(self.folder / "elsewhere")), "other")
        self.kept.clear()
        with self._receiver(self.path) as subject:
            self._save(subject.receivers[0].url, STATES)
            subject.receivers[0].stop()  # so that SQLite's file itself holds states, and not the log alone
        with self._receiver(self.path) as subject:
            receiver = subject.receivers[0]
            self._save(receiver.url, STATES // 3, new=False)
            self._copied(self.path, "older")
            self._save(receiver.url, STATES // 3, new=False)
            self._save(receiver.url, STATES // 2)
            if self.outcome.when == RUNNING:
                self._damage()
                self._look(receiver.url)
                self._save(receiver.url, 4)
                self._look(receiver.url)
            receiver.is_wanted = False
            receiver.kill_all()
            if self.outcome.when == RESTART:
                self._damage()
        self._start_and_look()
        return self.outcome

    def _filled(self, path: Path) -> Path:
        """Fill another store at ``path``, whose receiver then ends by SIGKILL."""
        with self._receiver(path) as subject:
            self._save(subject.receivers[0].url, STATES)
            subject.receivers[0].is_wanted = False
            subject.receivers[0].kill_all()
        return path

    def _copied(self, path: Path, name: str) -> None:
        until(lambda: self._is_copied(path.parent, self.folder / name), 20, "files come and go", pause=0.2)

    def _is_copied(self, source: Path, target: Path) -> bool:
        """Copy ``source``; return whether nothing was removed meanwhile, as the receiver's own temporary files are."""
        shutil.rmtree(target, ignore_errors=True)
        with contextlib.suppress(shutil.Error, FileNotFoundError):
            shutil.copytree(source, target)
            return True
        return False

    @contextlib.contextmanager
    def _receiver(self, path: Path):
        fault = Fault()
        store = StoreUnderTest(
            self.damage.store, f"{'sqlite://' if path.suffix else 'file://'}{'/' * bool(path.suffix)}{path}", path
        )
        subject = Subject(fault, store, self.folder, self.keys, environment_of(store, self.keys, self.folder, 2))
        with running(subject):
            yield subject

    def _damage(self) -> None:
        states = {tenant: sorted(id for owner, id in self.kept if owner == tenant) for tenant in self.tenants}
        place = Place(
            self.path,
            self.folder / "older" / self.path.name,
            self.folder / "other" / self.path.name,
            self.chance,
            states,
        )
        self.damage.apply(place)

    def _save(self, url: str, count: int, new: bool = True) -> None:
        """Save so many states of each tenant, new ones or newer versions; remember what is acknowledged."""
        for flow in self.flows:
            with contextlib.closing(Client(url, flow.tenant, self.keys, timeout=30)) as client:
                known = [id for tenant, id in self.kept if tenant == flow.tenant]
                for number in range(count):
                    flow.step()
                    flow.entries[:] = flow.entries[-3:]
                    id = str(uuid.UUID(int=self.chance.getrandbits(128), version=4)) if new else known[number]
                    content = json.dumps({"id": id, "text": self.chance.randbytes(900).hex()})
                    state = flow.state() | {"id": id, "content": content}
                    with contextlib.suppress(OSError, http.client.HTTPException):
                        if client.save(state).status == 204:
                            self.kept[flow.tenant, id] = content

    def _look(self, url: str) -> None:
        """Load all that was acknowledged, of each tenant; a few when that is refused, which takes its time."""
        for tenant in self.tenants:
            with contextlib.closing(Client(url, tenant, self.keys, timeout=30)) as client:
                found = Counter()
                for id in [id for owner, id in self.kept if owner == tenant]:
                    found[self._loaded(client, id)] += 1
                    if set(found) == {"5xx"} and found["5xx"] == _ENOUGH:
                        break
                self.outcome.loads += found

    def _loaded(self, client: Client, id: str) -> str:
        try:
            answer = client.load(id)
        except (OSError, http.client.HTTPException):
            return "none"
        if answer.status >= 500:
            return "5xx"
        if answer.status == 200 and client.open(id, answer) == self.kept[client.tenant, id]:
            return "right"
        return "404" if answer.status == 404 else "wrong"

    def _start_and_look(self) -> None:
        """Start a receiver on what is there; note how that went, and look."""
        with self._started() as receiver:
            if receiver is not None:
                self._look(receiver.url)

    @contextlib.contextmanager
    def _started(self):
        store = StoreUnderTest(self.damage.store, "", self.path)
        scheme = "sqlite:///" if self.damage.store == "sqlite" else "file://"
        store.url = f"{scheme}{self.path}"
        environment = environment_of(store, self.keys, self.folder, 2)
        subject = Subject(Fault(), store, self.folder, self.keys, environment)
        receiver = Receiver(subject, 1)
        receiver.start()
        receiver.is_wanted = False
        try:
            until(
                lambda: receiver.process.poll() is not None or self._listens(receiver), 30, "it neither serves nor ends"
            )
            status = receiver.process.poll()
            self.outcome.starts.append(
                "started"
                if status is None
                else f"refused ({status})"
                if status == REFUSED_START
                else f"ended with {status}"
            )
            yield receiver if status is None else None
        finally:
            if receiver.process.poll() is None:
                receiver.kill_all()

    def _listens(self, receiver) -> bool:
        with (
            contextlib.suppress(OSError),
            contextlib.closing(Client(receiver.url, self.tenants[0], self.keys, 5)) as client,
        ):
            return client.health().status in (200, 503)
        return False


def try_out(damage: Damage, when: str, folder: Path, seed: int = 1) -> Outcome:
    """Return what came of ``damage`` in a new trial in ``folder``."""
    folder.mkdir(parents=True)
    return Trial(damage, when, folder, seed).run()
