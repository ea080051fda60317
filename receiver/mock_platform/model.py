"""Tenants and stores, as the platform knows them (protocol, section 1)."""

import uuid
from dataclasses import dataclass, field
from enum import StrEnum

from receiver.mock_platform.keys import StoreKeys, new_store
from receiver.mock_platform.live_runs import Flow
from receiver.mock_platform.regions import Region, Restriction

NONE = Restriction()
FLOWS = ("Claim", "Onboarding", "Survey")


class Refusal(Exception):
    """The platform refuses a call: the answer's ``status``, and the reason as text, without keys or content."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Mode(StrEnum):
    """Where a tenant's states are kept."""

    PLATFORM = "platform only"
    EXTERNAL = "external only"
    BOTH = "both at once"


@dataclass(frozen=True)
class StorageSettings:
    """The tenant's externalStorageSettings."""

    enable_states: bool = False
    enable_replication: bool = False
    global_store_id: str | None = None

    @property
    def mode(self) -> Mode:
        """Where the states are kept. With replication, the platform keeps its copy and the store gets one."""
        if not self.enable_states:
            return Mode.PLATFORM
        return Mode.BOTH if self.enable_replication else Mode.EXTERNAL

    @property
    def store_id(self) -> str:
        """The id of the tenant's store; raises a Refusal if it has none."""
        if self.global_store_id is None:
            raise Refusal(404, "the tenant has no store")
        return self.global_store_id

    def check(self) -> None:
        """Raise a Refusal if the three settings contradict each other."""
        if self.enable_replication and not self.enable_states:
            raise Refusal(400, "enableReplication needs enableStates")
        if self.enable_states and not self.global_store_id:
            raise Refusal(400, "enableStates needs globalStoreId, a store's id")

    def as_json(self) -> dict[str, object]:
        """Return the settings as the administrative calls show them."""
        return {
            "enableStates": self.enable_states,
            "enableReplication": self.enable_replication,
            "globalStoreId": self.global_store_id,
        }


@dataclass
class Tenant:
    """A tenant with its flows. ``restriction`` applies to all flows, ``flow_restrictions`` to the named ones."""

    id: str
    name: str
    storage: StorageSettings = StorageSettings()
    restriction: Restriction = NONE
    flow_restrictions: dict[str, Restriction] = field(default_factory=dict)
    flows: dict[str, Flow] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.flows = {name: Flow.named(self.id, name) for name in FLOWS}

    def flow(self, name: str) -> Flow:
        """Return the flow ``name``; raises a Refusal if there is none."""
        if name not in self.flows:
            raise Refusal(404, f"the tenant has no such flow; it has {', '.join(self.flows)}")
        return self.flows[name]

    def check_access(self, flow: str, region: Region, country: str) -> None:
        """Raise a Refusal unless a user in ``country``, served by ``region``, may run the flow ``flow``."""
        for what, restriction in (
            (f"the tenant {self.name}", self.restriction),
            (f"the flow {flow}", self.flow_restrictions.get(flow, NONE)),
        ):
            if reason := restriction.refusal(what, region, country):
                raise Refusal(403, reason)

    def as_json(self) -> dict[str, object]:
        """Return the tenant as the administrative calls show it."""
        return {
            "id": self.id,
            "developerName": self.name,
            "externalStorageSettings": self.storage.as_json(),
            "mode": self.storage.mode,
            "restrictions": self.restriction.as_json(),
            "flows": {
                name: {"id": flow.id, "restrictions": self.flow_restrictions.get(name, NONE).as_json()}
                for name, flow in self.flows.items()
            },
        }


@dataclass
class Store:
    """A registered store. One set of key pairs is in use, one may be made for later, and others are still accepted."""

    name: str
    endpoint: str
    location: str | None = None
    in_use: StoreKeys = field(default_factory=new_store, repr=False)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    made: StoreKeys | None = field(default=None, repr=False)
    accepted: tuple[StoreKeys, ...] = field(default=(), repr=False)

    def make_keys(self) -> StoreKeys:
        """Make and return new pairs. They are used only after the receiver has them. Raises Refusal."""
        if self.made:
            raise Refusal(409, "new keys have already been made and are not in use yet")
        self.made = new_store()
        return self.made

    def use_keys(self) -> None:
        """Use the new pairs, and still accept replies to the old ones. Raises Refusal."""
        if not self.made:
            raise Refusal(409, "there are no new keys; make them first")
        self.accepted, self.in_use, self.made = (*self.accepted, self.in_use), self.made, None

    def retire_keys(self) -> None:
        """Accept only replies to the pairs in use."""
        self.accepted = ()

    def accepts(self, keys: StoreKeys) -> bool:
        """Return whether a reply to a request with ``keys`` is still accepted."""
        return keys is self.in_use or any(keys is one for one in self.accepted)

    def as_json(self) -> dict[str, object]:
        """Return the store as the administrative calls show it: with key ids, but no keys."""
        stages = [("in use", self.in_use), *(("still accepted", keys) for keys in self.accepted)]
        if self.made:
            stages.append(("made, not in use", self.made))
        return {
            "id": self.id,
            "name": self.name,
            "endpoint": self.endpoint,
            "location": self.location,
            "keys": [
                {"stage": stage, "platformKeyId": keys.platform.kid, "receiverKeyId": keys.receiver.kid}
                for stage, keys in stages
            ],
        }
