"""The report is whole, self-contained, escaped, and faithful to the fields it was given."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import image
from numpy.typing import NDArray

from neuralpde import report
from neuralpde.report import MeshMovie, Picture, Table, write_report

HOSTILE = '</script><script>alert("1")</script> & <!-- $title'
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def sphere(rings: int = 12, around: int = 24) -> tuple[NDArray[Any], NDArray[Any]]:
    """A latitude-longitude sphere whose seam and poles are not welded: enough to draw."""
    theta, phi = np.meshgrid(np.linspace(0, np.pi, rings), np.linspace(0, 2 * np.pi, around), indexing="ij")
    xyz = np.stack([np.sin(theta) * np.cos(phi), np.cos(theta), -np.sin(theta) * np.sin(phi)], axis=-1)
    a = (np.arange(rings - 1)[:, None] * around + np.arange(around - 1)).ravel()
    faces = np.stack([a, a + around, a + 1, a + 1, a + around, a + around + 1], axis=-1).reshape(-1, 3)
    return xyz.reshape(-1, 3), faces


def movie(steps: int = 5, title: str = "Heat", first: str = "truth", **panels: NDArray[Any]) -> MeshMovie:
    vertices, faces = sphere()
    times = np.linspace(0, 1, steps)
    truth = np.exp(-3 * times)[:, None] * vertices[:, 1]
    return MeshMovie(title, "A caption.", vertices, faces, times, {first: truth, **panels})


def write(path: Path, **parts: Any) -> str:
    blank: dict[str, Any] = {"lead": "", "facts": {}, "tables": [], "pictures": [], "movies": []}
    write_report(path, **{"title": "A run", **blank, **parts})
    return path.read_text(encoding="utf-8")


def picture(folder: Path, title: str = "Loss") -> Picture:
    image.imsave(folder / "loss.png", np.full((8, 24, 3), 0.5))
    return Picture(title, "Over the epochs.", folder / "loss.png")


def embedded(page: str) -> list[dict[str, Any]]:
    texts = re.findall(r'<script type="application/json">(.*?)</script>', page, re.S)
    return [json.loads(text) for text in texts]


def decoded(text: str, kind: str) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(text), kind)


def test_nothing_in_the_file_points_outside_it(tmp_path: Path) -> None:
    table = Table("T", "c", ["method", "error"], [["ours", "1"]])
    page = write(tmp_path / "report.html", tables=[table], pictures=[picture(tmp_path)], movies=[movie()])
    assert not re.search(r"https?:|//[a-z0-9-]+\.[a-z]|url\(|@import", page)
    targets = re.findall(r"\b(?:src|href)\s*=\s*[\"']?([^\"'\s>]*)", page)
    assert len(targets) == 2  # the empty icon and the picture
    assert all(target.startswith("data:") for target in targets)
    assert "default-src 'none'" in page
    assert str(tmp_path) not in page


def test_all_text_is_escaped_also_inside_json(tmp_path: Path) -> None:
    table = Table(HOSTILE, HOSTILE, [HOSTILE], [[HOSTILE]], frozenset({0}))
    hostile = movie(title=HOSTILE, first=HOSTILE)
    page = write(
        tmp_path / "report.html",
        title=HOSTILE,
        lead=HOSTILE,
        facts={HOSTILE: HOSTILE},
        tables=[table],
        pictures=[picture(tmp_path, HOSTILE)],
        movies=[hostile],
    )
    assert "alert(" in page
    assert "<script>alert" not in page
    assert page.count("<script") == page.count("</script>") == 2  # the data of the one movie, and the viewer
    assert [panel["name"] for panel in embedded(page)[0]["panels"]] == [HOSTILE]


def test_assets_cannot_end_the_element_that_holds_them() -> None:
    assert "</script" not in report._asset("viewer.js").lower()
    assert "</style" not in report._asset("report.css").lower()


def test_columns_of_numbers_are_aligned_and_emphasis_is_marked(tmp_path: Path) -> None:
    rows = [["ours", "7.1 ± 0.4", "1,731", "3D mesh", "—"], ["GCN", "1.2e-3", "nan", "4", "0.3 %"]]
    table = Table("T", "c", ["method", "a", "b", "c", "d"], rows, frozenset({1}))
    page = write(tmp_path / "report.html", tables=[table])
    assert page.count('<tr class="emphasis">') == 1
    assert re.findall(r'<(t[hd]) class="number">([^<]*)<', page) == [
        *(("th", "a"), ("th", "b"), ("th", "d")),
        *(("td", "7.1 ± 0.4"), ("td", "1,731"), ("td", "—")),
        *(("td", "1.2e-3"), ("td", "nan"), ("td", "0.3 %")),
    ]


@settings(max_examples=30, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(0, 2**32 - 1))
def test_a_value_is_kept_to_half_a_code_and_clipped(low: float, span: float, seed: int) -> None:
    vertices, faces = sphere(3, 4)
    rng = np.random.default_rng(seed)
    truth, model = low + span * rng.random((3, 12)), low + span * (3 * rng.random((3, 12)) - 1)
    panels = {"truth": truth, "model": model}
    data, clipped = report._encode(MeshMovie("m", "", vertices, faces, np.arange(3.0), panels))
    lo, hi = data["range"]
    assert (lo, hi) == (truth.min(), truth.max())
    for panel, stored in zip(panels.values(), data["panels"], strict=True):
        back = lo + decoded(stored["values"], "u1").reshape(3, 12) * ((hi - lo) / 255)
        assert np.abs(back - panel.clip(lo, hi)).max() <= (hi - lo) / 255 / 2 + 1e-9 * (abs(lo) + abs(hi))
    assert clipped == {"truth": 0.0, "model": np.mean((model < lo) | (model > hi))}


def test_surface_times_and_colours_survive_the_round_trip(tmp_path: Path) -> None:
    given_movie = movie()
    (data,) = embedded(write(tmp_path / "report.html", movies=[given_movie]))
    codes = decoded(data["positions"], "<u2").reshape(-1, 3)
    back = np.array(data["origin"]) + codes * (data["extent"] / 65535)
    assert data["count"] == len(given_movie.vertices)
    np.testing.assert_allclose(back, given_movie.vertices, atol=data["extent"] / 65535)
    np.testing.assert_array_equal(decoded(data["faces"], "<u2").reshape(-1, 3), given_movie.faces)
    assert data["labels"] == ["0", "0.25", "0.5", "0.75", "1"]
    assert decoded(data["colours"], "u1").reshape(256, 3)[[0, 255]].tolist() == [[68, 1, 84], [253, 231, 37]]
    turn = np.array(data["view"]).reshape(3, 3)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-5)
    assert np.linalg.det(turn) == pytest.approx(1, abs=1e-5)


def test_large_surfaces_get_four_byte_indices() -> None:
    vertices, faces = sphere(257, 257)
    big = MeshMovie("big", "", vertices, faces, np.zeros(1), {"truth": vertices[None, :, 0]})
    np.testing.assert_array_equal(decoded(report._encode(big)[0]["faces"], "<u4").reshape(-1, 3), faces)


def test_a_sheet_is_seen_from_its_thin_side() -> None:
    sheet = np.random.default_rng(0).random((50, 3)) * [2, 0.01, 1]
    assert report._view(sheet)[2] @ [0, 1, 0] > 0.8


@pytest.mark.parametrize("steps", [1, 2, 59, 60, 61, 1000])
def test_frames_are_thinned_and_the_ends_are_kept(steps: int) -> None:
    truth = np.repeat(np.linspace(0, 1, steps)[:, None], len(sphere()[0]), axis=1)
    vertices, faces = sphere()
    times = np.arange(float(steps))
    data, _ = report._encode(MeshMovie("m", "", vertices, faces, times, {"truth": truth}))
    codes = decoded(data["panels"][0]["values"], "u1").reshape(-1, len(vertices))
    shown = np.array(data["labels"], float)
    assert len(shown) == len(codes) == min(steps, 60)
    assert (shown[0], shown[-1]) == (0, times[-1])
    if steps > 1:
        assert np.ptp(np.diff(shown)) <= 1
        assert (codes[0] == 0).all()
        assert (codes[-1] == 255).all()


def test_times_that_differ_read_differently() -> None:
    assert report._labels([1000.0, 1000.001, 1000.002]) == ["1000", "1000.001", "1000.002"]


def test_a_constant_truth_and_a_broken_panel_still_make_a_movie(tmp_path: Path) -> None:
    vertices, faces = sphere()
    bad = np.zeros((3, len(vertices)))
    bad[1, 4], bad[2] = np.nan, np.inf
    panels = {"truth": np.full_like(bad, 2.0), "bad": bad}
    odd = MeshMovie("m", "", vertices, faces, np.arange(3.0), panels)
    (data,) = embedded(write(tmp_path / "report.html", movies=[odd]))
    assert data["range"] == [1.0, 3.0]
    assert [panel["broken"] for panel in data["panels"]] == [[], [1, 2]]


def test_a_usual_movie_stays_below_a_megabyte() -> None:
    n, rng = 1731, np.random.default_rng(0)
    panels = {name: rng.random((60, n)) for name in "abcd"}
    usual = MeshMovie("m", "", rng.random((n, 3)), rng.integers(0, n, (2 * n, 3)), np.arange(60.0), panels)
    assert len(report._movie(usual)) < 1e6


V, F = sphere(3, 4)
U = np.zeros((2, 12))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"panels": {"truth": U, "beltrami": U[:, :5]}},
            r"panel 'beltrami': shape \(2, 5\), expected .* \(2, 12\)",
        ),
        ({"panels": {"truth": U, "beltrami": U[:1]}}, r"panel 'beltrami'"),
        ({"panels": {"truth": U + np.nan}}, "panel 'truth'.*must be finite"),
        ({"panels": {}}, "at least one panel"),
        ({"vertices": V[:, :2]}, r"vertices must have shape \(n, 3\)"),
        ({"vertices": V * np.nan}, "vertices and times must be finite"),
        ({"faces": F[:, :2]}, r"faces must have shape \(m, 3\)"),
        ({"faces": F.astype(float)}, "faces must be integers"),
        ({"faces": F + 1}, "faces name 1 to 12, n = 12"),
        ({"times": np.zeros((2, 1))}, r"times must have shape \(T,\)"),
        ({"times": np.array([0, np.inf])}, "vertices and times must be finite"),
    ],
)
def test_a_movie_that_does_not_fit_says_where(tmp_path: Path, parts: dict[str, Any], message: str) -> None:
    whole: dict[str, Any] = {"vertices": V, "faces": F, "times": np.arange(2.0), "panels": {"truth": U}}
    with pytest.raises(ValueError, match=f"movie 'Heat'.*{message}"):
        write(tmp_path / "report.html", movies=[MeshMovie("Heat", "", **{**whole, **parts})])
    assert not any(tmp_path.iterdir())


def test_tables_and_pictures_that_do_not_fit_say_where(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="table 'T': row 1 has 1 cells, the header has 2"):
        write(tmp_path / "report.html", tables=[Table("T", "", ["a", "b"], [["1", "2"], ["1"]])])
    with pytest.raises(ValueError, match=r"table 'T': emphasis names rows \[1\] of 1"):
        write(tmp_path / "report.html", tables=[Table("T", "", ["a"], [["1"]], frozenset({1}))])
    (tmp_path / "no.png").write_bytes(b"GIF89a")
    with pytest.raises(ValueError, match=r"picture 'P': .*no\.png is not a PNG"):
        write(tmp_path / "report.html", pictures=[Picture("P", "", tmp_path / "no.png")])


@pytest.mark.parametrize("breaks", ["write", "replace"])
def test_an_older_report_survives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaks: str) -> None:
    path = tmp_path / "report.html"
    before = write(path, title="The older one")

    def half(self: Path, text: str, **_: Any) -> None:
        self.write_bytes(text[: len(text) // 2].encode())
        raise OSError("disk full")

    def refuse(*_: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        if breaks == "write":
            patch.setattr(Path, "write_text", half)
        else:
            patch.setattr("os.replace", refuse)
        with pytest.raises(OSError, match="disk full"):
            write(path, title="The newer one")
    assert path.read_text(encoding="utf-8") == before
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def chromium(page: Path, *flags: str) -> tuple[str, str, list[str]]:
    """Open the page; return the document its script left, the console, and the addresses it asked for."""
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH")
    log = page.with_name("net.json")
    quiet = "--headless=new --no-sandbox --disable-quic --no-first-run --disable-background-networking "
    quiet += "--disable-component-update --disable-sync --enable-logging=stderr --v=0"
    places = [f"--user-data-dir={page.with_name('profile')}", f"--log-net-log={log}", page.as_uri()]
    done = subprocess.run(
        [CHROMIUM, *quiet.split(), "--host-resolver-rules=MAP * ~NOTFOUND", *flags, *places],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    console = "\n".join(line for line in done.stderr.splitlines() if ":CONSOLE" in line)
    asked = []  # a request of the browser itself has no origin; one of the page has the origin "null"
    for line in log.read_text(encoding="utf-8").splitlines():
        if '"initiator":"' in line and '"initiator":"not an origin"' not in line:
            asked += re.findall(r'"url":"((?:https?|wss?|ftp)://[^"]*)"', line)
    return done.stdout, console, asked


def test_a_request_or_an_error_would_be_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<img src="http://elsewhere.invalid/x.png"><script>missing()</script>')
    _, console, asked = chromium(page, "--dump-dom")
    assert "http://elsewhere.invalid/x.png" in asked
    assert "missing is not defined" in console


def test_a_browser_draws_it_without_console_errors_or_requests(tmp_path: Path) -> None:
    top = np.ones((1, len(sphere()[0])))
    page = tmp_path / "report.html"
    write(page, pictures=[picture(tmp_path)], movies=[movie(1, model=top, again=top)])
    shot = tmp_path / "shot.png"
    flags = "--use-angle=swiftshader --enable-unsafe-swiftshader --ignore-gpu-blocklist"
    flags += " --window-size=1200,900"
    document, console, asked = chromium(page, *flags.split(), "--dump-dom")
    assert 'data-ready="true"' in document
    assert console == ""
    assert asked == []
    if 'data-webgl="yes"' not in document:
        pytest.skip("this Chromium has no WebGL: drawn pixels not looked at")
    _, console, _ = chromium(page, *flags.split(), f"--screenshot={shot}")
    assert console == ""
    red, green, blue = np.moveaxis(image.imread(shot)[..., :3], -1, 0)
    yellow = (red > 0.6) & (green > 0.55) & (blue < 0.4)  # two of three spheres, each about 290 pixels wide
    assert 0.08 < yellow.mean() < 0.2


def test_without_webgl_a_sentence_stands_in(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    write(page, movies=[movie()])
    document, console, asked = chromium(page, "--disable-3d-apis", "--dump-dom")
    assert 'data-ready="true" data-webgl="no"' in document
    assert re.search(r'<p class="missing">This browser offers no WebGL', document)
    assert (console, asked) == ("", [])
