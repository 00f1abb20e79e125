"""What a strategy draws, counted, and what it shrinks to: always the same draws."""

from collections import Counter

from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

DRAW = settings(derandomize=True, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
SEARCH = settings(derandomize=True, database=None, deadline=None, max_examples=1000, phases=[Phase.generate, Phase.shrink])


def drawn(strategy, count):
    """So many examples, as they come in a test that draws other things besides: alone, no zero field would come twice."""
    examples = []

    @settings(DRAW, max_examples=count)
    @given(strategy, st.integers(0, 2**62))
    def collect(example, other):
        examples.append(example)

    collect()
    return examples


def shares(examples, kinds_of):
    """The share of the examples that are of each kind; `kinds_of` gives the kinds of one."""
    counts = Counter(kind for example in examples for kind in set(kinds_of(example)))
    return Counter({kind: count / len(examples) for kind, count in counts.items()})


def least(strategy, predicate):
    """The minimal example that Hypothesis finds within 1000 draws."""
    return find(strategy, predicate, settings=SEARCH)
