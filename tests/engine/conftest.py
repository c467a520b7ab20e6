"""Fills all memory of the cache that no request holds with NaN, so that no test can read it."""

import pytest

from engine.cache import Cache
from engine.page_table import PageTable


@pytest.fixture(autouse=True, scope="session")
def _poison_free_pages():
    patch = pytest.MonkeyPatch()
    build, free_row = Cache.__init__, PageTable.free_row

    def build_poisoned(self: Cache, *given: object, **named: object) -> None:
        build(self, *given, **named)
        self.pages.poisoned = self.pool.fill_(float("nan"))

    def free_poisoned(self: PageTable, slot: int, row: int) -> None:
        before = len(self._free)
        free_row(self, slot, row)
        if hasattr(self, "poisoned"):  # some tests have a table without a cache
            self.poisoned[:, :, self._free[before:]] = float("nan")

    patch.setattr(Cache, "__init__", build_poisoned)
    patch.setattr(PageTable, "free_row", free_poisoned)
    yield
    patch.undo()
