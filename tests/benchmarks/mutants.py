"""Break the code on purpose, one small change at a time, and count how many of the breaks the tests notice.

    pip install mutmut                                                  # whose mutation operators make the mutants
    python tests/benchmarks/mutants.py --sample 2000                    # operators, a sample by module, about 40 minutes
    python tests/benchmarks/mutants.py operators/mass.py --sample 0     # all mutants of one module

A mutant is the package with one change of mutmut's: `<=` for `<`, 3 for 2, an argument left out, None for a value. A test that
fails kills it. A mutant that lives shows a line whose effect no test states, or a line without effect.

How: the tests are collected once; then each mutant gets a fork of this process, in which the changed function's code is put in
place and the tests that ran its line (traced once) run until the first failure, those of tests/<package>/test_<module>.py
first, then the fastest. Processes that tests start see the mutant too: it is on disk, in a temporary copy of the tree. A survivor
whose function had run before the fork, while the tests were imported, is tried again by its mirrored tests in a fresh process.

What is mutated, and what is left out: `mutations.py`. The order is random: after Ctrl-C, the table tells of those tried. A mutant
that exceeds its time counts as killed, as mutmut has it. Tests on downloaded data are skipped. Linux only.
"""

import argparse
import contextlib
import gc
import json
import math
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from pathlib import Path
from types import FunctionType
from typing import NamedTuple

os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "NEURALPDE_DATA": os.devnull}

import pytest
from _pytest.runner import runtestprotocol
from mutations import LIVES, UNREACHED, Coverage, Mutant, Mutations, put_in_place, sample
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
KILLED, TIMEOUT, INVALID = "killed", "timeout", "not Python"
REBUILD = 3  # the exit status of a fork that could not put the code in place
MEMORY = 6 * 2**30
PYTEST = ["-qqs", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib", "-o", "tmp_path_retention_policy=none"]


def fork(work: Callable[[], int], cpu: float) -> int:
    """The exit status of work() in a child with bounded time and memory; negative if a signal ended it."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        try:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # it, or what its tests have left behind
    status = 1
    try:
        os.setpgid(0, 0)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1), os.dup2(null, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(cpu), resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        signal.alarm(math.ceil(10 * cpu) + 30)  # for one asleep; the machine may be busy
        status = work()
    finally:
        os._exit(status)


def passes(item: pytest.Item) -> bool:
    return not any(report.failed for report in runtestprotocol(item, log=False, nextitem=None))


class Trial(NamedTuple):
    """A test that passes without a mutant, its CPU time, and the lines that it ran."""

    item: pytest.Item
    seconds: float
    lines: dict[str, set[int]]


def tracer(paths: Collection[str]) -> Coverage:
    coverage = Coverage(data_file=None, config_file=False, include=list(paths), messages=False)
    coverage.set_option("run:disable_warnings", ["no-data-collected"])
    return coverage


class Campaign:
    """A pytest plugin that runs the tests on every mutant instead of once."""

    def __init__(self, mutants: list[Mutant], budget: float) -> None:
        self.mutants, self.budget = mutants, budget
        self.paths = {str(Path(mutant.path).resolve()): mutant.path for mutant in mutants}
        self.imported, self.failing, self.trials = tracer(self.paths), [], []

    def pytest_sessionstart(self) -> None:
        from hypothesis import Phase, settings  # pytest wants to rewrite it first

        settings.register_profile("mutants", settings.get_profile("laws"), phases=(Phase.explicit, Phase.generate))
        settings.load_profile("mutants")  # A failure is enough, none is shrunk.
        self.imported.start()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.imported.stop()
        functions = (thing for thing in gc.get_objects() if type(thing) is FunctionType)
        self.functions = [function for function in functions if function.__code__.co_filename in self.paths]
        gc.freeze()  # or every fork copies what the collector touches
        files = defaultdict(list)
        for item in session.items:
            files[item.path].append(item)
        with Progress(auto_refresh=False, console=Console(highlight=False, soft_wrap=True)) as bar:
            for path in bar.track(files, description="tests"):
                self.trace(files[path])
                bar.refresh()
            # In any order, so that those tried before Ctrl-C are a sample too.
            for mutant in bar.track(random.sample(self.mutants, len(self.mutants)), description="mutants"):
                self.attempt(mutant)
                if mutant.lives:
                    bar.console.print(f"{mutant.path}:{mutant.line}: {mutant.fate}\n{mutant.diff}\n", markup=False)
                bar.refresh()
        return True

    def trace(self, items: list[pytest.Item]) -> None:
        """Run the tests of a file once, to see which lines they reach."""

        def work() -> int:
            passed, seconds, seen = [], [], tracer(self.paths)
            seen.start()
            for number, item in enumerate(items):
                seen.switch_context(str(number))
                start = time.process_time()
                passed.append(passes(item))
                seconds.append(time.process_time() - start)
            seen.stop()
            lines = [defaultdict(set) for _ in items]
            for file, path in self.paths.items():
                for line, numbers in seen.get_data().contexts_by_lineno(file).items():
                    for number in filter(None, numbers):
                        lines[int(number)][path].add(line)
            pickle.dump((passed, seconds, lines), results)
            results.flush()
            return 0

        with tempfile.TemporaryFile() as results:
            fork(work, cpu=3600)
            results.seek(0)
            for item, passed, *trial in zip(items, *pickle.load(results), strict=True):
                if passed:
                    self.trials.append(Trial(item, *trial))
                else:
                    self.failing.append(item.nodeid)

    def attempt(self, mutant: Mutant) -> None:
        """Find the mutant's fate."""
        path, body = Path(mutant.path), set(range(mutant.first, mutant.last + 1))
        mirror = Path("tests") / path.parent / f"test_{path.name}"
        tests, seconds = [], 0.0
        for trial in self.reaching({mutant.line}, path) or self.reaching(body, path) or self.naming(path):
            if not tests or seconds + trial.seconds <= self.budget:
                tests.append(trial.item)
                seconds += trial.seconds

        def work() -> int:
            if not put_in_place(mutant, self.functions):
                return REBUILD
            for number, item in enumerate(tests):
                os.pwrite(current.fileno(), number.to_bytes(4), 0)
                if not passes(item):
                    return 1
            return 0

        try:
            compile(mutant.source, path, "exec")
        except SyntaxError:
            mutant.fate = INVALID
            return
        path.write_text(mutant.source, encoding="utf-8")
        with tempfile.TemporaryFile() as current:
            status = fork(work, cpu=10 + 3 * seconds)
            mutant.fate = fate(status) if tests else UNREACHED
            if mutant.fate in (KILLED, TIMEOUT) and status != REBUILD:
                mutant.test = tests[int.from_bytes(current.read(4))].nodeid
        imported = self.imported.get_data().lines(str(path.resolve())) or ()
        if status == REBUILD or (mutant.lives and body.intersection(imported)):
            self.afresh(mutant, mirror)
        path.write_text(mutant.module.code, encoding="utf-8")

    def reaching(self, lines: set[int], path: Path) -> list[Trial]:
        """The tests that run one of these lines, in the order in which they are tried."""
        return self.ordered([trial for trial in self.trials if lines & trial.lines.get(str(path), set())], path)

    def naming(self, path: Path) -> list[Trial]:
        """All tests of files that name the module: it may run in processes of theirs."""
        files = {file for file in {trial.item.path for trial in self.trials} if path.stem in file.read_text(encoding="utf-8")}
        return self.ordered([trial for trial in self.trials if trial.item.path in files], path)

    def ordered(self, trials: list[Trial], path: Path) -> list[Trial]:
        return sorted(trials, key=lambda trial: (trial.item.path.name != f"test_{path.name}", trial.seconds))

    def afresh(self, mutant: Mutant, mirror: Path) -> None:
        """The mirrored tests in a process of their own, which imports the mutant."""
        command = [sys.executable, "-m", "pytest", *PYTEST, "-x", str(mirror)]
        command += [part for test in self.failing for part in ("--deselect", test)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        try:
            mutant.fate = fate(subprocess.run(command, timeout=600, check=False, **quiet).returncode)
        except subprocess.TimeoutExpired:
            mutant.fate = TIMEOUT
        mutant.test = "" if mutant.lives else str(mirror)


def fate(status: int) -> str:
    return {0: LIVES, -signal.SIGXCPU: TIMEOUT, -signal.SIGALRM: TIMEOUT}.get(status, KILLED)


# -- The report


def wilson(share: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share seen in n draws (Wilson 1927, J. Am. Stat. Assoc. 22)."""
    middle, half = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))


def report(tried: list[Mutant], sizes: dict[str, int]) -> dict:
    """The table by module, printed and as data; in the last line modules weigh as much as they have mutants."""
    names = ("mutants", "tried", KILLED, TIMEOUT, "lived")
    table = Table("module", *names, "score", "95 %")
    rows, score, variance = [], 0.0, 0.0
    for path, size in sizes.items():
        fates = Counter(mutant.fate for mutant in tried if mutant.path == path)
        count, lived = fates.total() - fates[INVALID], fates[LIVES] + fates[UNREACHED]
        share, weight = 1 - lived / count, size / sum(sizes.values())
        score, variance = score + weight * share, variance + weight**2 / count
        rows.append(dict(zip(names, (size, count, fates[KILLED], fates[TIMEOUT], lived), strict=True)))
        low, high = wilson(share, count)
        table.add_row(path, *map(str, rows[-1].values()), f"{share:.1%}", f"{low:.0%} to {high:.0%}")
    low, high = wilson(score, 1 / variance)
    table.add_section()
    table.add_row("all", *(str(sum(row[name] for row in rows)) for name in names), f"{score:.1%}", f"{low:.1%} to {high:.1%}")
    Console(width=max(100, Console().width)).print(table)
    keys = ("path", "line", "fate", "test", "diff")
    fates = [{key: getattr(mutant, key) for key in keys} for mutant in tried]
    return {"score": score, "low": low, "high": high, "modules": dict(zip(sizes, rows, strict=True)), "mutants": fates}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", default=["operators"], help="packages, or files of packages [operators]")
    parser.add_argument("--tests", nargs="+", help="test files and folders [the mirrored ones; the laws too for operators]")
    parser.add_argument("--sample", type=int, default=2000, help="how many mutants, 0 for all [2000]")
    parser.add_argument("--seed", type=int, default=0, help="of the sample [0]")
    parser.add_argument("--budget", type=float, default=15.0, help="CPU seconds of tests that a mutant must live through [15]")
    parser.add_argument("--json", type=Path, help="write the numbers and the fate of each mutant here")
    options = parser.parse_args()
    start, file = time.monotonic(), options.json and options.json.absolute()
    with tempfile.TemporaryDirectory() as copy:
        unneeded = shutil.ignore_patterns(".*", "__pycache__", "runs")
        shutil.copytree(ROOT, copy, ignore=unneeded, symlinks=True, dirs_exist_ok=True)
        os.chdir(copy)
        sys.path.insert(0, copy)
        os.environ["PYTHONPATH"] = os.pathsep.join([copy, os.environ.get("PYTHONPATH", "")])
        tests = options.tests or [
            str(Path("tests") / (t if Path(t).is_dir() else Path(t).with_name(f"test_{Path(t).name}"))) for t in options.targets
        ]
        if not options.tests and any(Path(target).parts[0] == "operators" for target in options.targets):
            tests.append("tests/test_operator_laws.py")
        paths = [path for t in map(Path, options.targets) for path in (sorted(t.glob("*.py")) if t.is_dir() else [t])]
        found = {str(path): Mutations(str(path)) for path in paths}
        mutants = {path: visitor.mutants for path, visitor in found.items() if visitor.mutants}
        campaign = Campaign(sample(mutants, options.sample, options.seed), options.budget)
        pytest.main([*PYTEST, *tests], plugins=[campaign])
    tried = [mutant for mutant in campaign.mutants if mutant.fate]
    if len(tried) < len(campaign.mutants):
        print(f"stopped after {len(tried)} of {len(campaign.mutants)} mutants: modules without any are left out")
    for test in campaign.failing:
        print(f"not used, since it fails without a mutant: {test}")
    if not tried:
        sys.exit("no mutant was tried")
    record = report(tried, {path: len(mutants[path]) for path in mutants if any(mutant.path == path for mutant in tried)})
    texts = sum(visitor.texts for visitor in found.values())
    print(f"{texts} mutants of texts and pictures left out; seed {options.seed}; {(time.monotonic() - start) / 60:.0f} minutes")
    if file:
        record |= {"command": sys.argv, "seed": options.seed, "texts": texts}
        file.write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
