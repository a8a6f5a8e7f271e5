"""The page in headless Chromium: as a visitor meets it."""

import shutil
import time
from urllib.parse import urlsplit

import pytest
from app_clips import write_clip

from gen1_jax.media import open_video
from gen1_jax.media.provenance import verify

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("Chromium is not installed: apt-get install chromium", allow_module_level=True)
pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[app]'")

STEPS = 3  # as in the tests of the session, so that programs are shared


@pytest.fixture(scope="module")
def address(session):
    from gen1_jax.app.page import Page

    page = Page(session)
    yield page.serve("127.0.0.1", None)
    page.close()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture
def visitor(browser, address):
    """A visitor on the page, all of whose requests are noted, with the demo clip before them."""
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.requested, page.faults = [], []
    page.on("request", lambda request: page.requested.append(request.url))
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#structure img")
    yield page
    assert {urlsplit(url).hostname for url in page.requested if url.startswith("http")} == {"127.0.0.1"}
    assert not page.faults
    context.close()


def upload(page, path, where="#clip"):
    if page.query_selector(f"{where} input[type=file]") is None:  # there is a file already
        page.click(f"{where} [aria-label='Clear']")
    page.set_input_files(f"{where} input[type=file]", str(path))


def status(page, text):
    page.wait_for_function("text => document.querySelector('#status').innerText.includes(text)", arg=text)


def set_steps(page, steps):
    page.fill("#steps input[type=number]", str(steps))
    page.keyboard.press("Tab")
    page.wait_for_function("n => document.querySelector('#command').innerText.includes(`--steps ${n} `)", arg=steps)


def test_upload_look_edit_play_download(visitor, tmp_path):
    upload(visitor, write_clip(tmp_path / "my clip.mp4", frames=4))  # as many as in the tests of the session
    visitor.wait_for_function("document.querySelector('#clip-line').innerText.includes('my clip.mp4: 48×32, 4 frames')")
    before = visitor.get_attribute("#structure img", "src")
    visitor.fill("#blur input[type=number]", "5")
    visitor.keyboard.press("Tab")
    visitor.wait_for_function("src => document.querySelector('#structure img').src != src", arg=before)
    set_steps(visitor, STEPS)
    visitor.click("#edit")
    status(visitor, "done")
    visitor.wait_for_function("document.querySelector('#result video')?.currentTime > 0")
    assert visitor.evaluate("document.querySelector('#result video').videoWidth") == 3 * 20 + 2 * 4
    visitor.wait_for_selector("#slider img")
    visitor.wait_for_function("document.querySelectorAll('#slider img').length == 2")
    assert visitor.input_value("#history input").startswith("1 · an oil painting of")
    with visitor.expect_download() as download:
        visitor.click("#download")
    assert download.value.suggested_filename == "my clip_edit.mp4"
    download.value.save_as(tmp_path / "out.mp4")
    with open_video(tmp_path / "out.mp4") as reader:
        assert (reader.info.width, reader.info.height, len(list(reader))) == (48, 32, 4)
    assert "identifies nobody" in visitor.inner_text("#signed") and verify(tmp_path / "out.mp4").state == "Valid"


def test_the_button_and_what_it_does_are_in_sight_wherever_the_form_is(visitor):
    in_sight = "id => (r => r.top >= 0 && r.bottom <= innerHeight)(document.getElementById(id).getBoundingClientRect())"
    assert visitor.evaluate("document.body.scrollHeight > 2 * innerHeight")
    for top in (0, 500, 100_000):
        visitor.evaluate("top => scrollTo(0, top)", top)
        assert visitor.evaluate(in_sight, "edit") and visitor.evaluate(in_sight, "status")


def test_two_visitors_queue_and_who_cancels_or_leaves_makes_room(visitor, browser, address, session):
    second = browser.new_context()
    other = second.new_page()
    other.goto(address)
    other.wait_for_selector("#structure img")
    for page in (visitor, other):
        set_steps(page, 100)
    session._queue._work, work = lambda job, request: hold(job), session._queue._work
    try:
        visitor.click("#edit")
        status(visitor, "sampling")
        other.click("#edit")
        status(other, "waiting: 1 before you")
        visitor.click("#cancel")
        status(visitor, "cancelled")
        status(other, "sampling")
        visitor.click("#edit")
        status(visitor, "waiting: 1 before you")
        second.close()  # leaves while it has the device
        status(visitor, "sampling")
    finally:
        visitor.click("#cancel")
        session._queue._work = work
    status(visitor, "cancelled")


def hold(job):
    """Work without end."""
    while True:
        job.report("sampling", 1, 2)
        time.sleep(0.05)


def test_wrong_files_are_one_clear_line(visitor, broken, tmp_path):
    upload(visitor, broken)
    visitor.wait_for_selector("#clip-line .gen1-error")
    assert visitor.inner_text("#clip-line").startswith("broken.mp4: not a video")
    visitor.click("#edit")
    status(visitor, "broken.mp4: not a video")
    assert "Traceback" not in visitor.content() and not visitor.is_visible("#result")
    (tmp_path / "large.mp4").write_bytes(bytes(2**20 + 1))
    upload(visitor, tmp_path / "large.mp4")
    visitor.wait_for_selector("text=/exceeds|too large|maximum/i")
    upload(visitor, write_clip(tmp_path / "long.mp4", frames=14))
    visitor.wait_for_function("document.querySelector('#clip-line').innerText.includes('first 12 of 14 frames')")
    visitor.click("#kind >> text=a picture")
    visitor.wait_for_selector("#picture")
    upload(visitor, broken, "#picture")
    status(visitor, "broken.mp4: not a picture")
    visitor.click("#kind >> text=a prompt")
    visitor.wait_for_function("document.querySelector('#status').innerText.trim() == ''")


def test_masks_by_click_and_by_brush(visitor):
    visitor.click("#mask button")
    visitor.click("#mask-kind label:has-text('a click')")
    visitor.wait_for_selector("#mask-click img")
    command = lambda text: visitor.wait_for_function(
        "text => document.querySelector('#command').innerText.includes(text)", arg=text
    )
    before = visitor.get_attribute("#structure img", "src")
    visitor.click("#mask-click img")  # in its middle
    command("--mask click:12")  # of 256, but for how the browser rounds
    visitor.wait_for_function("src => document.querySelector('#structure img').src != src", arg=before)
    visitor.click("#mask-kind label:has-text('a brush')")
    command("# paint over what may change")
    visitor.wait_for_selector("#mask-brush canvas")
    visitor.wait_for_timeout(1000)  # until it is drawn
    box = visitor.query_selector("#mask-brush canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    visitor.mouse.move(x, y)
    visitor.mouse.down()
    visitor.mouse.move(x + 30, y + 10, steps=5)
    visitor.mouse.up()
    command("@0 --frames")


def test_further_contents_and_the_clips_own_noise(visitor):
    for accordion in ("contents", "advanced"):
        visitor.click(f"#{accordion} button")
    visitor.fill("#weight-first :is(input, textarea)", "1..0")
    visitor.fill("#second-prompt :is(input, textarea)", "a lava world")
    visitor.fill("#second-weight :is(input, textarea)", "0..1")
    visitor.click("#inverted input")
    visitor.wait_for_function("document.querySelector('#command').innerText.includes('--inverted-noise')")
    told = visitor.inner_text("#command")
    assert "snowy field at dusk:1..0' --content 'prompt=a lava world:0..1'" in told and "--prompt" not in told
