"""The power fails: every moment of a recording, not one moment of a run (tests.chaos.powercut)."""

from tests.chaos.faults import FILE, SQLITE, Fault, fault
from tests.chaos.powercut.recording import Orders
from tests.chaos.powercut.run import Result, run

_IMAGES_A_SECOND = 20  # of the time that the run is given
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


def as_json(result: Result, plan) -> dict:
    """Return the figures of ``result`` as tests.chaos.report has those of other runs."""
    return {
        "fault": plan.fault.name,
        "store": plan.store,
        "seed": plan.seed,
        "defect": plan.defect,
        "injects": plan.fault.injects,
        "guarantees": plan.fault.guarantees,
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
