import pytest
from app_clips import write_clip

from gen1_jax.app.session import AppOptions, EditSession
from gen1_jax.commands.common import keeping_programs


@pytest.fixture(scope="session")
def session(tiny_model):
    with EditSession(AppOptions(model=str(tiny_model), max_upload_mb=1, max_frames=12)) as session:
        yield session


@pytest.fixture(scope="module")
def programs_of_commands():
    """What the session runs, it runs as commands do: a program that both of them need is traced and compiled once."""
    with keeping_programs("the app"):
        yield


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "my clip.mp4")


@pytest.fixture
def broken(tmp_path):
    (tmp_path / "broken.mp4").write_text("not a video\n" * 100)
    return tmp_path / "broken.mp4"


@pytest.fixture(scope="module")
def page(session):
    """The page of the session, closed afterwards."""
    from gen1_jax.app.page import Page

    page = Page(session)
    yield page
    page.close()
