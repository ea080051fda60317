"""What each call of the simulator does: it takes a Request and returns a Reply. HTTP itself is in web.py.

The addresses are those of the product's guide; the fields beyond externalStorageSettings are our own.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from receiver.mock_platform import bodies, keyfiles
from receiver.mock_platform.crowd import Crowd
from receiver.mock_platform.json_values import JSONObject
from receiver.mock_platform.keys import KeyFault, KeyPair, StoreKeys
from receiver.mock_platform.migration import migrate
from receiver.mock_platform.model import Refusal, StorageSettings, Tenant
from receiver.mock_platform.platform import Platform
from receiver.mock_platform.reach import Reach
from receiver.mock_platform.regions import REGIONS, Restriction
from receiver.mock_platform.runtime import Runtime, Visitor


class Simulator:
    """State shared by the calls: the platform, its runtime, the crowd, and the folder of a receiver's keys."""

    def __init__(self, platform: Platform, keys_folder: Path | None = None) -> None:
        self.platform, self.keys_folder = platform, keys_folder
        self.runtime = Runtime(platform)
        self.crowd: Crowd | None = None
        self.reach = Reach()


@dataclass(frozen=True)
class Request:
    """A call: the ``simulator``, the tenant ``named`` by the header, the valid ``body``, and ``after`` of the query."""

    simulator: Simulator
    named: str | None
    body: JSONObject
    after: int = 0

    @property
    def platform(self) -> Platform:
        """The simulator's platform."""
        return self.simulator.platform

    @property
    def tenant(self) -> Tenant:
        """The named tenant, or the first one if none is named; raises Refusal."""
        return self.platform.tenant(_uuid(self.named)) if self.named else next(iter(self.platform.tenants.values()))


@dataclass(frozen=True)
class Reply:
    """The answer: a JSON ``value`` and a ``status``."""

    value: object
    status: int = 200


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise Refusal(404, "there is nothing with that id, because it is not a UUID") from None


def list_stores(request: Request) -> Reply:
    """GET /api/admin/1/stores."""
    return Reply([store.as_json() for store in request.platform.stores.values()])


def register_store(request: Request) -> Reply:
    """POST /api/admin/1/stores: only this answer contains the keys that the receiver's operator must configure."""
    body = dict(request.body)
    given = [body.pop(name, None) for name in ("platformKey", "receiverKey")]
    keys = None
    if any(given):
        try:
            keys = StoreKeys(*(KeyPair.parse(members) for members in given))
        except KeyFault as fault:
            raise Refusal(400, f"platformKey and receiverKey: each {fault}") from None
        if not keys.platform.jwk.has_private:
            raise Refusal(400, "platformKey: must be a private key, because the platform signs with it")
    store = request.platform.register(**body, keys=keys)
    return Reply(store.as_json() | ({} if keys else _for_the_receiver(store.in_use)), 201)


def _for_the_receiver(keys: StoreKeys) -> JSONObject:
    return {"platformKey": keys.platform.public(), "receiverKey": keys.receiver.private()}


def show_store(request: Request, name: str) -> Reply:
    """GET /api/admin/1/stores/{store}, by id or name; the answer says whether the store is healthy."""
    store = request.platform.store(name)
    return Reply(store.as_json() | {"isWell": request.platform.channel(store.id, str(uuid.UUID(int=0))).is_well()})


def make_keys(request: Request, name: str) -> Reply:
    """POST /api/admin/1/stores/{store}/keys: make new pairs, which the receiver must have before they are used."""
    store = request.platform.store(name)
    folder = request.simulator.keys_folder if request.body["export"] else None
    if request.body["export"] and folder is None:
        raise Refusal(409, "the simulator does not know where the receiver reads its keys")
    keys = store.make_keys()
    if folder is None:
        return Reply(store.as_json() | _for_the_receiver(keys), 201)
    try:
        written = [path.name for path in keyfiles.write(folder, keys)]
    except OSError as cause:
        store.made = None
        raise Refusal(507, f"the key files cannot be written: {cause.strerror}") from None
    return Reply(store.as_json() | {"files": written}, 201)


def use_keys(request: Request, name: str) -> Reply:
    """POST /api/admin/1/stores/{store}/keys/use: use the new pairs and still accept replies to the old ones."""
    store = request.platform.store(name)
    store.use_keys()
    return Reply(store.as_json())


def retire_keys(request: Request, name: str) -> Reply:
    """POST /api/admin/1/stores/{store}/keys/retire: drop the old pairs."""
    store = request.platform.store(name)
    store.retire_keys()
    return Reply(store.as_json())


def show_tenant(request: Request) -> Reply:
    """GET /api/admin/1/tenant."""
    return Reply(request.tenant.as_json())


def change_tenant(request: Request) -> Reply:
    """POST /api/admin/1/tenant: change the given fields; a new UUID in ManyWhoTenant creates a tenant."""
    body, platform = request.body, request.platform
    storage = _storage(platform, body.get("externalStorageSettings"))
    named = request.named
    tenant = platform.add_tenant(_uuid(named), "A tenant") if named else request.tenant
    for name in (flows := body.get("flows", {})):
        tenant.flow(name)
    tenant.name = body.get("developerName", tenant.name)
    tenant.storage = storage or tenant.storage
    if "restrictions" in body:
        tenant.restriction = _restriction(body["restrictions"])
    tenant.flow_restrictions |= {name: _restriction(flow["restrictions"]) for name, flow in flows.items()}
    return Reply(tenant.as_json())


def _storage(platform: Platform, body: JSONObject | None) -> StorageSettings | None:
    if body is None:
        return None
    store = platform.store(body["globalStoreId"]).id if body["globalStoreId"] else None
    settings = StorageSettings(body["enableStates"], body["enableReplication"], store)
    settings.check()
    return settings


def _restriction(body: JSONObject) -> Restriction:
    return Restriction(frozenset(body["regions"]), frozenset(body["countries"]))


def migrate_states(request: Request, name: str) -> Reply:
    """POST /api/admin/1/{store}/migrate."""
    body, platform = request.body, request.platform
    store = platform.store(name)
    return Reply(migrate(platform, request.tenant, store, body["batchSize"], body["batches"]).as_json())


def start_run(request: Request) -> Reply:
    """POST /api/run/1/state."""
    body, tenant = request.body, request.tenant
    visitor = Visitor(body["country"], body["user"] and str(body["user"]))
    for _ in range(body["runs"]):
        last = request.simulator.runtime.start(tenant, body["flow"], visitor, body["bytes"], body["drawn"])
    return Reply(last | ({"started": body["runs"]} if body["runs"] > 1 else {}), 201)


def act_in_run(request: Request, id: str) -> Reply:
    """POST /api/run/1/state/{id}."""
    body, tenant = request.body, request.tenant
    visitor = Visitor(body["country"], body["user"] and str(body["user"]))
    return Reply(request.simulator.runtime.act(tenant, _uuid(id), body["action"], visitor, body["outcome"]))


def show_run(request: Request, id: str) -> Reply:
    """GET /api/run/1/state/{id}."""
    return Reply(request.simulator.runtime.look(request.tenant, _uuid(id)))


def delete_run(request: Request, id: str) -> Reply:
    """DELETE /api/run/1/state/{id}."""
    request.simulator.runtime.delete(request.tenant, _uuid(id))
    return Reply(None, 204)


def start_crowd(request: Request) -> Reply:
    """POST /api/simulator/1/crowd."""
    body, simulator = request.body, request.simulator
    if simulator.crowd and simulator.crowd.is_running:
        raise Refusal(409, "a crowd is already running")
    simulator.crowd = Crowd(simulator.runtime, request.tenant, body["users"], body["seconds"])
    return Reply(simulator.crowd.report(), 202)


def show_crowd(request: Request) -> Reply:
    """GET /api/simulator/1/crowd."""
    if request.simulator.crowd is None:
        raise Refusal(404, "there has been no crowd yet")
    return Reply(request.simulator.crowd.report())


def end_crowd(request: Request) -> Reply:
    """POST /api/simulator/1/crowd/end: stop the users, read their states back and return the complete report."""
    if request.simulator.crowd:
        request.simulator.crowd.end()
    return show_crowd(request)


def show_overview(request: Request) -> Reply:
    """GET /api/simulator/1/overview?after=N: everything that the page shows, with only the calls numbered above N."""
    simulator, tenant = request.simulator, request.tenant
    after = request.after
    counts, admitted = simulator.runtime.regions(tenant), tenant.restriction.regions or REGIONS
    return Reply(
        {
            "regions": [
                {"code": one.code, "host": one.host, "place": one.place, "runs": counts[one.code]}
                | {"admitted": one.code in admitted}
                for one in REGIONS.values()
            ],
            "tenant": tenant.as_json() | {"held": len(simulator.platform.held.ids(tenant.id))},
            "tenants": [{"id": one.id, "developerName": one.name} for one in simulator.platform.tenants.values()],
            "stores": [
                store.as_json() | {"answers": simulator.reach.answers(store.endpoint)}
                for store in simulator.platform.stores.values()
            ],
            "runs": simulator.runtime.latest(tenant, 10),
            "calls": simulator.platform.traffic.after(after),
            "counts": simulator.platform.traffic.counts(),
            "crowd": simulator.crowd.report() if simulator.crowd else None,
        }
    )


@dataclass(frozen=True)
class Call:
    """An address, the schema of its request body, and the function that serves it."""

    method: str
    rule: str
    do: Callable[..., Reply]
    body: type[bodies.Body] | None = None


CALLS = (
    Call("GET", "/api/admin/1/stores", list_stores),
    Call("POST", "/api/admin/1/stores", register_store, bodies.StoreBody),
    Call("GET", "/api/admin/1/stores/<name>", show_store),
    Call("POST", "/api/admin/1/stores/<name>/keys", make_keys, bodies.KeysBody),
    Call("POST", "/api/admin/1/stores/<name>/keys/use", use_keys, bodies.Body),
    Call("POST", "/api/admin/1/stores/<name>/keys/retire", retire_keys, bodies.Body),
    Call("GET", "/api/admin/1/tenant", show_tenant),
    Call("POST", "/api/admin/1/tenant", change_tenant, bodies.TenantBody),
    Call("POST", "/api/admin/1/<name>/migrate", migrate_states, bodies.MigrationBody),
    Call("POST", "/api/run/1/state", start_run, bodies.StartBody),
    Call("POST", "/api/run/1/state/<id>", act_in_run, bodies.ActionBody),
    Call("GET", "/api/run/1/state/<id>", show_run),
    Call("DELETE", "/api/run/1/state/<id>", delete_run),
    Call("POST", "/api/simulator/1/crowd", start_crowd, bodies.CrowdBody),
    Call("GET", "/api/simulator/1/crowd", show_crowd),
    Call("POST", "/api/simulator/1/crowd/end", end_crowd, bodies.Body),
    Call("GET", "/api/simulator/1/overview", show_overview),
)
