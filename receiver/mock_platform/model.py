"""Tenants and stores as the platform keeps them (protocol, section 1)."""

import uuid
from dataclasses import dataclass, field
from enum import StrEnum

from receiver.mock_platform.keys import StoreKeys, new_store
from receiver.mock_platform.live_runs import Flow
from receiver.mock_platform.regions import Region, Restriction

NONE = Restriction()
FLOWS = ("Claim", "Onboarding", "Survey")


class Refusal(Exception):
    """What the platform will not do; ``status`` is that of the answer, the text its reason. Holds no key or content."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Mode(StrEnum):
    """Who keeps a tenant's states."""

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
        """Who keeps the states: with replication the platform keeps its copy, and the store gets one."""
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
        """Raise a Refusal where the three contradict each other."""
        if self.enable_replication and not self.enable_states:
            raise Refusal(400, "enableReplication needs enableStates")
        if self.enable_states and not self.global_store_id:
            raise Refusal(400, "enableStates needs globalStoreId, the id of a store")

    def as_json(self) -> dict[str, object]:
        """Return the three as the administrative calls write them."""
        return {
            "enableStates": self.enable_states,
            "enableReplication": self.enable_replication,
            "globalStoreId": self.global_store_id,
        }


@dataclass
class Tenant:
    """A tenant with its flows; restrictions hold for all of them, or for the flow of that name."""

    id: str
    name: str
    storage: StorageSettings = StorageSettings()
    restriction: Restriction = NONE
    flow_restrictions: dict[str, Restriction] = field(default_factory=dict)
    flows: dict[str, Flow] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.flows = {name: Flow.named(self.id, name) for name in FLOWS}

    def flow(self, name: str) -> Flow:
        """Return the flow called ``name``; raises a Refusal where there is none."""
        if name not in self.flows:
            raise Refusal(404, f"the tenant has no such flow; it has {', '.join(self.flows)}")
        return self.flows[name]

    def check_access(self, flow: str, region: Region, country: str) -> None:
        """Raise a Refusal unless a user in ``country``, served by ``region``, may run the flow called ``flow``."""
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
    """A registered store. Of its key pairs one set is in use, one may be made for later, others still accepted."""

    name: str
    endpoint: str
    location: str | None = None
    in_use: StoreKeys = field(default_factory=new_store, repr=False)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    made: StoreKeys | None = field(default=None, repr=False)
    accepted: tuple[StoreKeys, ...] = field(default=(), repr=False)

    def make_keys(self) -> StoreKeys:
        """Return new pairs, which are not used yet: first the receiver must have them. Raises Refusal."""
        if self.made:
            raise Refusal(409, "new keys were made already and are not in use yet")
        self.made = new_store()
        return self.made

    def use_keys(self) -> None:
        """Use the pairs that were made; replies to the former ones are still accepted. Raises Refusal."""
        if not self.made:
            raise Refusal(409, "there are no new keys; make them first")
        self.accepted, self.in_use, self.made = (*self.accepted, self.in_use), self.made, None

    def retire_keys(self) -> None:
        """Accept replies to the pairs in use only."""
        self.accepted = ()

    def accepts(self, keys: StoreKeys) -> bool:
        """Tell whether a reply to a request that was made with ``keys`` is still accepted."""
        return keys is self.in_use or any(keys is one for one in self.accepted)

    def as_json(self) -> dict[str, object]:
        """Return the store as the administrative calls show it: kids, no key."""
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
