"""Where jobs are kept, as configured."""

from pathlib import Path

from graph.jobs.files import Files
from graph.jobs.jobs import Jobs
from graph.jobs.sqlite import SqliteStore
from graph.settings import FolderStore, JobsSettings

ROOT = Path(__file__).resolve().parents[2]
"""Of this project: what relative folders are in, wherever a replica runs."""


def jobs_of(settings: JobsSettings) -> Jobs:
    """Return the jobs of a configured store, not yet open. Raises ValueError without a password."""
    store = settings.store
    if isinstance(store, FolderStore):
        folder = ROOT / store.folder
        return Jobs(SqliteStore(folder / "jobs.sqlite"), Files(str(folder / "files")))
    from graph.jobs.redis import RedisStore  # streaq and its client only where they are used

    return Jobs(RedisStore(store.url, store.password), Files(store.files))
