"""For tests and docstring examples alike."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def no_user_cache(tmp_path_factory):
    """Keeps what tests index out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
