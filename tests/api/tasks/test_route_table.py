"""docs/architecture.md's table of routes is what the application does."""

from typing import Any

import pytest
from fastapi.routing import iter_route_contexts

from api.routes.documentation import IDEMPOTENCY
from tests.api.tasks.conftest import Everything, codes_file
from tests.api.tasks.test_every_route import ROUTES, Route
from tests.docs.pages import page, rows, sections

KINDS = {
    "music": "language model", "sound": "language model", "codec": "codec",
    "diffusion": "diffusion", "judge": "discriminators", "media": "media",
}  # fmt: skip
DIFFUSE = Route(
    "/v1/mbd/decode",
    {"files": {"codes_file": ("a.safetensors", codes_file())}, "data": {"seed": "3"}},
    "diffuse",
)
NO_TASK = {"/v1/jobs", "/v1/jobs/{job_id}/cancel"}


def table() -> dict[str, list[str]]:
    """Return the page's rows by path."""
    found = rows(sections(page("architecture.md"))["One path for every request"])
    return {
        cells[0].strip("`").removeprefix("POST "): cells[1:]
        for cells in found
        if cells[0].startswith("`POST")
    }


def unseeded(sent: dict[str, Any]) -> dict[str, Any]:
    """Return a request without its seed."""
    return {
        key: {k: v for k, v in value.items() if k != "seed"} if key in ("json", "data") else value
        for key, value in sent.items()
    }


async def kept(everything: Everything, path: str, sent: dict[str, Any]) -> bool:
    """Return whether a request's answer is kept for the next one."""
    answers = [await everything.http.post(path, **sent) for _ in range(2)]
    assert [one.status_code for one in answers] == [200, 200], answers[0].text
    return answers[1].headers.get("x-cache") == "hit"


@pytest.mark.parametrize("route", [*ROUTES, DIFFUSE], ids=lambda route: route.path)
async def test_a_row_is_what_its_route_does(everything: Everything, route: Route):
    charges, cache, key, events, job = table()[route.path]
    charged: list[str] = []
    admit = everything.ledger.accounts.admit

    def note(ingress: str, number: str, charge: Any, *rest: Any) -> Any:
        charged.append(KINDS[charge.model])
        return admit(ingress, number, charge, *rest)

    book = everything.ledger.accounts.book

    def note_booked(ingress: str, number: str, charge: Any) -> None:
        if KINDS[charge.model] not in charged:
            charged.append(KINDS[charge.model])
        book(ingress, number, charge)

    everything.ledger.accounts.admit = note  # type: ignore[method-assign]
    everything.ledger.accounts.book = note_booked  # type: ignore[method-assign]
    once = await everything.http.post(
        route.path, **route.sent, headers={"idempotency-key": "table"}
    )
    assert once.status_code == 200, once.text
    assert ", ".join(charged) == charges
    seeded = await kept(everything, route.path, route.sent)
    plain = await kept(everything, route.path, unseeded(route.sent))
    assert cache == ("always" if plain else "with a seed" if seeded else "")
    again = await everything.http.post(
        route.path, **route.sent, headers={"idempotency-key": "table"}
    )
    assert key == ("yes" if again.headers.get("idempotent-replayed") else "")
    streamed = await everything.http.post(
        route.path, **route.sent, headers={"accept": "text/event-stream"}
    )
    is_stream = streamed.headers["content-type"].startswith("text/event-stream")
    assert events == ("yes" if is_stream else "")
    assert job.strip("`") == (route.job or "")


def test_every_route_is_in_the_table(everything: Everything):
    app = everything.http._transport.app  # type: ignore[attr-defined]
    posts = {one.path for one in iter_route_contexts(app.routes) if "POST" in (one.methods or ())}
    assert posts - NO_TASK == set(table())


def test_every_route_of_the_table_is_described_with_its_key(everything: Everything):
    document = everything.http._transport.app.openapi()  # type: ignore[attr-defined]
    for path in table():
        parameters = document["paths"][path]["post"].get("parameters", [])
        assert IDEMPOTENCY["name"] in [one["name"] for one in parameters], path
