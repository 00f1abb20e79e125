"""The report of the directional derivatives."""

from neuralpde.directional_figures import write_directional_report
from neuralpde.run_folder import row


def test_the_report_shows_every_table_and_the_papers_numbers(tmp_path):
    rows = [
        row("padgn-derivatives-f1", "sdl", "mse", [0.012, 0.011], "u", published=0.0097),
        row("padgn-derivatives-f1", "ours", "mse", [0.0, 0.0], "u", published=None),
        row("padgn-derivatives-sparse", "ours", "mse", [1e-7, 2e-7], "u", published=None, nodes=350),
    ]
    write_directional_report(tmp_path, rows, 30)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for text in ("padgn-derivatives-f1", "padgn-derivatives-sparse", "ours, 350 nodes", "0.97"):
        assert text in page
    assert all((tmp_path / "figures" / name).stat().st_size > 0 for name in ("placement.png", "error.png"))
