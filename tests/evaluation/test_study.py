"""A study of preferences: the page hides who made what, answers are kept as they come, shares have intervals."""

import json
import re
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest

from gen1_jax.cli import main
from gen1_jax.errors import UserError
from gen1_jax.evaluation.study import answers as study_answers
from gen1_jax.evaluation.study.answers import read_answers, read_key, results
from gen1_jax.evaluation.study.making import ruined
from gen1_jax.evaluation.study.serving import AnswerStore, make_server
from gen1_jax.media import VideoWriter, load_video

CLIPS = ("a", "b", "c")


def write(path, seed):
    path.parent.mkdir(exist_ok=True)
    frames = np.random.default_rng(seed).integers(0, 256, (4, 24, 24, 3), np.uint8).repeat(2, 1).repeat(2, 2)
    with VideoWriter(path, width=48, height=48, frame_rate=12) as writer:
        for frame in frames:
            writer.write(frame)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Of two editors and three clips."""
    root = tmp_path_factory.mktemp("study")
    for seed, name in enumerate(CLIPS):
        for who, more in (("footage", 0), ("mine", 10), ("theirs", 20)):
            write(root / who / f"{name}.mp4", seed + more)
    (root / "prompts.csv").write_text("source,prompt\n" + "".join(f"{name},</script> {name}\n" for name in CLIPS))
    editors = [str(root / "mine"), f"rival={root / 'theirs'}"]
    given = ["--sources", str(root / "footage"), "--prompts", str(root / "prompts.csv"), "--out", str(root / "out")]
    assert main(["study", "make", "--videos", *editors, *given, "--trials", "2", "--check-every", "2", "--json"]) == 0
    assert main(["study", "make", "--videos", *editors, *given]) == 2  # it is there
    return root / "out"


def answer(key, trial, chosen, rater="rater0001", left=None):
    pair = (key["trials"] | key["checks"])[trial]["pair"]
    clip = next(clip for clip, who in pair.items() if who == chosen)
    return {"study": key["study"], "rater": rater, "trial": trial, "left": left or min(pair), "chosen": clip}


def kept_apart(study, tmp_path):
    """The study with answers of its own."""
    copy = tmp_path / "study"
    copy.mkdir()
    (copy / "key.json").write_text((study / "key.json").read_text())
    return copy, AnswerStore(copy)


def test_the_page_tells_nothing_of_who_made_what(study):
    page, key = (study / "page" / "index.html").read_text(), read_key(study)
    told = json.loads(re.search(r"const STUDY = (.*);", page)[1])
    assert (len(told["trials"]), len(told["checks"]), told["most"], told["every"]) == (3, 3, 2, 2)
    assert not re.search(r"mine|rival|ruined", page) and page.count("</script>") == 1 == page.count("<script>")
    assert told["trials"][0]["prompt"] == "</script> a"
    files = {path.stem for path in (study / "page" / "clips").iterdir()}
    assert files == set(key["clips"]) and len(files) == 3 * 5  # source, two edits and both ruined
    for trial in (*told["trials"], *told["checks"]):
        assert {trial["source"], *trial["pair"]} <= files and trial["pair"] == sorted(trial["pair"])
    check = key["checks"][told["checks"][0]["id"]]
    assert check["pair"][check["right"]] == "mine" and {*check["pair"].values()} == {"mine", "mine, ruined"}
    by = {who["by"]: load_video(study / "page" / "clips" / f"{c}.mp4") for c, who in key["clips"].items()}
    assert by["mine"].shape == by["mine, ruined"].shape and by["mine"].std() > 2 * by["mine, ruined"].std()


def test_ruined_clips_have_the_mean_colours_of_blocks():
    frames = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), np.uint8)
    blocks = ruined(frames, np.random.default_rng(0))
    assert blocks.shape == frames.shape and (blocks[:, :5, :5] == blocks[:, :1, :1]).all()
    found = sorted(blocks[:, 0, 0].tolist())
    assert found == sorted(frames[:, :5, :5].mean((1, 2)).astype(np.uint8).tolist())


@pytest.fixture
def server(study, tmp_path):
    folder, _ = kept_apart(study, tmp_path)
    (folder / "page").symlink_to(study / "page")
    with make_server(folder, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


def request(url, data=None, **headers):
    """Status, body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=10) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_the_server_keeps_answers_and_shows_nothing_else(server, study):
    url, folder = server
    key = read_key(study)
    clip = next(iter(key["clips"]))
    data = (study / "page" / "clips" / f"{clip}.mp4").read_bytes()
    assert request(url)[1] == (study / "page" / "index.html").read_bytes()
    assert request(f"{url}/clips/{clip}.mp4") == (200, data)
    assert request(f"{url}/clips/{clip}.mp4", Range="bytes=2-5") == (206, data[2:6])
    assert request(f"{url}/clips/{clip}.mp4", Range=f"bytes={len(data)}-")[0] == 416
    for hidden in ("key.json", "../key.json", "answers", "clips/../../key.json", "clips/abc.mp4"):
        assert request(f"{url}/{hidden}")[0] == 404
    trial = next(iter(key["trials"]))
    good = answer(key, trial, "mine")
    assert request(f"{url}/answers", json.dumps(good).encode()) == (204, b"")
    for wrong in ({"rater": "../../etc"}, {"study": "x"}, {"chosen": "x"}, {"trial": [1]}):
        bad = good | wrong
        assert request(f"{url}/answers", json.dumps(bad).encode())[0] == 400
    assert request(f"{url}/answers", b"{")[0] == request(f"{url}/answers", b" " * 5000)[0] == 400
    assert [path.name for path in (folder / "answers").iterdir()] == ["rater0001.jsonl"]
    assert results(folder)["answers"] == 1
    with pytest.raises(UserError, match="cannot be listened to"):
        make_server(folder, "127.0.0.1", int(url.rpartition(":")[2]))


def test_answers_become_shares(study, tmp_path, capsys):
    folder, store = kept_apart(study, tmp_path)
    key = read_key(study)
    checks = list(key["checks"])
    for number in range(8):
        rater = f"rater{number:04}"
        for trial in key["trials"]:
            mine = key["trials"][trial]["name"] != "c" or number < 4
            store.add(answer(key, trial, "mine" if mine else "rival", rater))
        who = key["checks"][checks[0]]["pair"].values()
        store.add(answer(key, checks[0], next(w for w in who if ("ruined" in w) == (number == 7)), rater))
    trial = next(iter(key["trials"]))
    store.add(answer(key, trial, "rival", "rater0000"))  # for a second time, and so in vain
    with (folder / "answers" / "rater0001.jsonl").open("a") as file:
        file.write('{"study": "cut o')
    right = key["checks"][checks[1]]["pair"][key["checks"][checks[1]]["right"]]
    store.add(answer(key, checks[1], right, "rater0001"))  # goes to a line of its own
    late = [answer(key, trial, "rival", "rater0099")]
    (folder / "answers" / "answers-rater0099.json").write_text(json.dumps(late))
    assert len(read_answers(folder, key)) == 8 * 4 + 2
    assert main(["study", "results", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["raters"], found["failed_checks"], found["unchecked"]) == (9, ["rater0007"], ["rater0099"])
    (preference,) = found["preferences"]
    assert (preference["editor"], preference["over"]) == ("mine", "rival")
    assert (preference["won"], preference["answers"], preference["clips"]) == (18, 22, 3)  # 7 + 7 + 4 of 8 + 7 + 7
    assert preference["share"][1] == pytest.approx(0.615, abs=0.01) and preference["sign_test"] < 0.01
    assert preference["over_clips"][0] == pytest.approx((7 / 8 + 1 + 4 / 7) / 3)
    assert found["preferences_of_all"][0]["answers"] == 25
    assert main(["study", "results", str(folder)]) == 0
    assert "mine over rival: 18 of 22, 81.82%" in capsys.readouterr().out
    (folder / "answers" / "other.json").write_text("[1]")
    assert main(["study", "results", str(folder)]) == 2
    assert "take it away" in capsys.readouterr().err


def test_nothing_is_claimed_of_no_answers(study, tmp_path):
    folder, _ = kept_apart(study, tmp_path)
    found = results(folder)
    assert found["preferences"][0]["share"] == [None] * 3 and found["answers"] == 0
    assert list(study_answers.lines(found))[1] == "0 raters, 0 answers; 0 failed the checks and do not count"


def test_the_papers_own(capsys):
    assert main(["study", "results", "--paper"]) == 0
    out = capsys.readouterr().out
    assert "30 of 34, 88.24% [73.4%, 95.3%]" in out and "27 of 34, 79.41% [63.2%, 89.7%]" in out
    assert "31 of 34, 91.18% [77.0%, 97.0%]" in out


def test_wrong_input_is_one_line(study, tmp_path, capsys):
    given = ["--sources", f"{study}/../footage", "--prompts", f"{study}/../prompts.csv", "--out", f"{tmp_path}/x"]
    mine, rival = f"{study}/../mine", f"{study}/../theirs"
    for arguments, word in [
        (["make", "--videos", mine, *given], "two editors or more"),
        (["make", "--videos", mine, rival, *given, "--check-every", "0"], "every at least 1"),
        (["make", "--videos", mine, rival, *given, "--question", " "], "--question is empty"),
        (["results", str(tmp_path)], "is no study"),
        (["results"], "--paper"),
        (["serve", str(tmp_path)], "is no study"),
    ]:
        assert main(["study", *arguments]) == 2
        err = capsys.readouterr().err
        assert len(err.splitlines()) == 1 and word in err, err
    assert not (tmp_path / "x").exists()
