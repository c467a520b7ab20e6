"""Jobs on the running application, through the death of those that work on them."""

import httpx

from tests.cluster.conftest import Deployed
from tests.waiting import until

JOBS = "/v1/jobs"
BODY = {"prompt": "calm piano", "duration": 5, "seed": 3}
ENDED = ("finished", "failed", "cancelled")


def look(deployed: Deployed, job: str) -> dict[str, object] | None:
    """Return a job; None while no ingress answers."""
    try:
        answer = deployed.http.get(f"{JOBS}/{job}")
    except httpx.TransportError:
        return None
    return answer.json() if answer.status_code == 200 else None


def test_killed_ingresses_lose_no_job_and_make_none_twice(deployed: Deployed):
    """What runs is begun anew by the next ingress; what it makes is the same."""
    alone = deployed.http.post("/v1/generations", json=BODY)
    bodies = [BODY | {"seed": seed} for seed in range(3, 7)]
    made = deployed.http.post(JOBS, json=bodies)
    assert made.status_code == 202, made.text
    jobs = [job["id"] for job in made.json()["jobs"]]
    until(lambda: any(look(deployed, job)["progress"] > 0 for job in jobs))
    deployed.replica("ingress").kill()

    def ended() -> list[dict[str, object]] | None:
        found = [look(deployed, job) for job in jobs]
        return found if all(one and one["status"] in ENDED for one in found) else None

    found = until(ended, 120)
    assert [one["status"] for one in found] == ["finished"] * 4
    audio = deployed.http.get(f"{JOBS}/{jobs[0]}/audio")
    assert audio.content == alone.content
    until(lambda: deployed.load().running == 0)


def test_a_cancelled_job_frees_its_slots(deployed: Deployed):
    job = deployed.http.post(JOBS, json=BODY | {"duration": 30, "n": 4}).json()["id"]
    until(lambda: deployed.load().running == 4)
    assert deployed.http.post(f"{JOBS}/{job}/cancel").json()["status"] == "cancelled"
    until(lambda: deployed.load().running == 0)


def test_a_key_is_one_generation_though_its_client_leaves(deployed: Deployed):
    body, key = BODY | {"seed": 99}, {"idempotency-key": "a key"}
    steps = deployed.load().steps
    with deployed.http.stream("POST", "/v1/generations", json=body, headers=key) as response:
        del response
    answer = deployed.http.post("/v1/generations", json=body, headers=key)
    assert answer.status_code == 200
    again = deployed.http.post("/v1/generations", json=body, headers=key)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.content == answer.content
    assert deployed.load().steps - steps < 1.5 * BODY["duration"] * 50
