"""The power fails: every moment of a recording, not one moment of a run (tests.chaos.powercut)."""

from tests.chaos.evidence import Window
from tests.chaos.faults import FILE, SQLITE, Fault, fault
from tests.chaos.powercut.recording import Orders
from tests.chaos.powercut.run import Result, run
from tests.chaos.powercut.served import wrong_images
from tests.chaos.shim import Shim, on_memory

_IMAGES_A_SECOND = 20  # of the time that the run is given
_SERVED_IMAGES = 15  # for each second of the load
_FULL = 600  # images, from which on a recording has its full length
_FAILED_SYNCS = 10


@fault
class PowerCut(Fault):
    name = "power-cut"
    stores = (SQLITE, FILE)
    injects = "a power cut at hundreds of moments, each with everything unsynced dropped, kept, kept in part or in another order"
    guarantees = "A store opens, has all that was acknowledged with its receipts and nothing half done, and goes on."
    sample_seconds, overhead = 5, 10
    needs = ("gcc",)
    failed_syncs = 0

    def own_run(self, plan, folder):
        images = int(plan.seconds * _IMAGES_A_SECOND)
        changes, sessions = (30, 7) if images >= _FULL else (8, 4)
        orders = Orders(plan.store, plan.seed, changes, sessions, plan.defect, self.failed_syncs)
        return as_json(run(orders, images), plan)


@fault
class FailedSyncs(PowerCut):
    name = "power-cut-failed-syncs"
    injects = "the same after syncs that failed and lost for good what they were to make durable"
    failed_syncs = _FAILED_SYNCS


@fault
class ServedPowerCut(Fault):
    name = "power-cut-served"
    stores = (SQLITE, FILE)
    injects = "a power cut at moments of a load that a receiver serves"
    guarantees = PowerCut.guarantees
    seconds, sample_seconds, overhead = 20, None, 30
    needs = ("gcc",)

    def plan(self, chance, seconds):
        return ()

    def prepare(self, subject):
        shim = subject.memory["shim"] = Shim(subject.store.path.parent, subject.folder)
        subject.environment |= shim.environment()

    def look(self, subject, evidence):
        shim, images = subject.memory["shim"], int(_SERVED_IMAGES * (evidence.ended - evidence.began))
        url = subject.store.url.replace(str(subject.store.path.parent), "{root}")
        with on_memory("powercut-") as folder:
            count, evidence.wrong = wrong_images(shim.log, url, evidence.keys, 1, images, folder)
        evidence.windows = [Window(evidence.began, evidence.ended, f"{count} images")]


def as_json(result: Result, plan) -> dict:
    """Return the figures of ``result`` as tests.chaos.report has those of other runs."""
    return {
        **plan.as_json(),
        "seconds": plan.seconds,
        "took": round(result.seconds + result.recorded_seconds, 1),
        "operations": result.acknowledged,
        "acknowledged states": result.acknowledged_states,
        "faults": result.images,
        "images": result.images,
        "images a second": round(result.images / result.seconds, 1),
        "moments": result.points,
        "failed": sum(result.refusals.values()),
        "failed by place": dict(result.refusals),
        "lost": result.lost,
        "stale": 0,
        "other findings": len(result.faults) - result.lost,
        "longest without a save, s": None,
        "longest request, s": None,
        "recovery, s": None,
        "statuses": {},
        "findings": [
            {
                "check": one.kind,
                "promise": 1,
                "at": one.at,
                "text": f"image {one.point}.{one.variant}: {'; '.join(one.wrong[:3])}",
            }
            for one in result.faults
        ],
        "excused": [],
        "schedule": [],
    }
