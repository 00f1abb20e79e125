"""The report of the Laplacians."""

from neuralpde.laplacian_983 import relaxed_points
from neuralpde.laplacian_983_figures import write_laplacian_report
from neuralpde.run_folder import row


def test_the_report_shows_the_table_and_the_papers_numbers(tmp_path):
    torus = relaxed_points(100, 0)
    rows = [
        row("laplacian-983", method, metric, [1.5, 1.6], "u", published=0.138 if method == "mesh-op" else None)
        for method in ("mesh-op", "ours")
        for metric in ("mse", "rne")
    ]
    results = {method: [{"by_node": [1.0] * 99 + [0.0]}] for method in ("mesh-op", "ours")}
    write_laplacian_report(tmp_path, rows, results, torus)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "laplacian-983" in page
    assert "0.138" in page
    assert all((tmp_path / "figures" / name).stat().st_size > 0 for name in ("function.png", "error-map.png"))
