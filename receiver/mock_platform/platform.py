"""The platform: its tenants, its stores, the states it holds itself, and a channel to each store."""

import random
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlsplit

from receiver.mock_platform.delivery import Network, StoreChannel
from receiver.mock_platform.json_values import JSONObject
from receiver.mock_platform.keys import StoreKeys, new_store
from receiver.mock_platform.model import Refusal, Store, Tenant
from receiver.mock_platform.traffic import Traffic

_MOST_STORES, _MOST_TENANTS, _MOST_HELD_BYTES = 100, 1_000, 1 << 30
_MOST_CONTENT = 16 << 20  # so that no single state exceeds what a receiver takes by default


@dataclass
class Held:
    """A state that the platform holds. ``stored`` maps a store's id to the updatedAt that the store acknowledged."""

    state: JSONObject
    stored: dict[str, str] = field(default_factory=dict)


class Holdings:
    """The states that the platform itself holds, by tenant and id. Thread-safe."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, str], Held] = {}
        self._lock = threading.Lock()
        self._bytes = 0

    def put(self, state: JSONObject) -> Held:
        """Hold ``state`` in place of its former version and return it; raises a Refusal beyond the limits."""
        key, size = (state["tenant"], state["id"]), len(state["content"])
        with self._lock:
            former = self._states.get(key)
            grown = self._bytes + size - (len(former.state["content"]) if former else 0)
            if grown > _MOST_HELD_BYTES or size > _MOST_CONTENT:
                raise Refusal(507, "the platform has no space for more states")
            self._bytes = grown
            self._states[key] = Held(state, former.stored if former else {})
            return self._states[key]

    def find(self, tenant: str, id: str) -> Held | None:
        """Return the held state ``id``, or None."""
        with self._lock:
            return self._states.get((tenant, id))

    def drop(self, tenant: str, id: str, unless_newer_than: str | None = None) -> bool:
        """Drop the state ``id`` unless its updatedAt differs from ``unless_newer_than``; return whether it was held."""
        with self._lock:
            held = self._states.get((tenant, id))
            if held is None or (unless_newer_than and held.state["updatedAt"] != unless_newer_than):
                return False
            del self._states[tenant, id]
            self._bytes -= len(held.state["content"])
            return True

    def ids(self, tenant: str) -> list[str]:
        """Return the ids of all states held for ``tenant``, sorted."""
        with self._lock:
            return sorted(id for owner, id in self._states if owner == tenant)


class Platform:
    """Everything the simulated platform knows. ``clock`` returns the current time; ``seed`` makes runs repeatable."""

    def __init__(
        self,
        network: Network | None = None,
        patience: float = 15,
        context: ssl.SSLContext | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        seed: int | None = None,
    ) -> None:
        self.network, self.patience, self.context, self.clock = network or Network(), patience, context, clock
        self.traffic = Traffic()
        self.held = Holdings()
        self.tenants: dict[str, Tenant] = {}
        self.stores: dict[str, Store] = {}
        self._channels: dict[tuple[str, str], StoreChannel] = {}
        self._random = random.Random(seed)  # noqa: S311 - made-up data, not a secret
        self._lock = threading.RLock()

    def register(
        self,
        name: str,
        endpoint: str,
        location: str | None = None,
        keys: StoreKeys | None = None,
        id: str | None = None,
    ) -> Store:
        """Register and return a new store, with new key pairs unless ``keys`` are given. Raises Refusal."""
        store = Store(name, checked_endpoint(endpoint), location, keys or new_store(), id or str(uuid.uuid4()))
        with self._lock:
            if any(name in (one.name, one.id) for one in self.stores.values()):
                raise Refusal(409, "a store with that name already exists")
            if len(self.stores) >= _MOST_STORES:
                raise Refusal(507, f"there may be at most {_MOST_STORES} stores")
            self.stores[store.id] = store
        return store

    def store(self, name: str) -> Store:
        """Return the store with that id or name; raises a Refusal if there is none."""
        for store in list(self.stores.values()):
            if name in (store.id, store.name):
                return store
        raise Refusal(404, "there is no such store")

    def tenant(self, id: str) -> Tenant:
        """Return the tenant ``id``; raises a Refusal if there is none."""
        if id not in self.tenants:
            raise Refusal(404, "there is no such tenant")
        return self.tenants[id]

    def add_tenant(self, id: str, name: str) -> Tenant:
        """Return the tenant ``id``, a new one if necessary; raises a Refusal if there are too many."""
        with self._lock:
            if id not in self.tenants and len(self.tenants) >= _MOST_TENANTS:
                raise Refusal(507, f"there may be at most {_MOST_TENANTS} tenants")
            return self.tenants.setdefault(id, Tenant(id, name))

    def channel(self, store_id: str, tenant: str) -> StoreChannel:
        """Return the channel to a store for ``tenant``, always the same one."""
        with self._lock:
            key = (store_id, tenant)
            if key not in self._channels:
                store = self.store(store_id)
                self._channels[key] = StoreChannel(
                    store, tenant, self.traffic, self.network, self.patience, self.context
                )
            return self._channels[key]

    def channels(self) -> Iterator[StoreChannel]:
        """Yield all channels in use."""
        with self._lock:
            yield from list(self._channels.values())

    def seed(self) -> int:
        """Return a seed for the next run."""
        with self._lock:
            return self._random.getrandbits(64)

    def close(self) -> None:
        """Close all connections."""
        for channel in self.channels():
            channel.close()


def checked_endpoint(endpoint: str) -> str:
    """Return ``endpoint`` without a trailing slash; raises a Refusal unless it is the http(s) URL of a host only.

    An endpoint has no path of its own, because signatures name each call's path from /api on.
    """
    try:
        parts = urlsplit(endpoint)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        valid = False
    if not valid or not endpoint.isascii() or not endpoint.isprintable() or " " in endpoint:
        raise Refusal(400, "endpoint must be a URL such as https://store.example.com or http://127.0.0.1:8080")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise Refusal(400, "endpoint must have no path, query or fragment")
    return f"{parts.scheme}://{parts.netloc}"
