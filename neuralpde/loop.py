"""The simulator in the loop: physics with learned parts, trained through the solver, and what observations say of a model.

    from neuralpde import loop

    step = loop.CorrectedStep(loop.SolverStep(coarse, SBDF2(dt=0.02), dt=0.02), loop.ConservativeClosure(L))
    print(loop.compare(step, train, test))                    # beside the uncorrected one, and beside the ablation
    found = loop.estimate(heat, loop.Observations(times, nodes, values, noise), initial=u0)
    print(loop.receipt(lambda: loss(heat), heat))             # is the gradient through all of it right?

Correction: `Corrected` inside the right-hand side, `CorrectedStep` after each step of any simulator; `Closure` and
`ConservativeClosure` are networks of local invariants. Training: `fit`, with `Unrolled`, `Pushforward` or `OneStep`; `Transfer`
brings a fine truth to a coarse mesh. Long rollouts: `Guarded`. Estimation: `estimate`, by `GaussNewton`, `LBFGS` or `Adam`,
with a `Smooth` prior.
"""

from neuralpde.ablation import Comparison, compare, relative_error, rollout
from neuralpde.closure import Closure, ConservativeClosure, LocalInvariants
from neuralpde.correction import Corrected
from neuralpde.descent import LBFGS, Adam
from neuralpde.estimation import Estimate, estimate
from neuralpde.fitting import fit, load
from neuralpde.gauss_newton import GaussNewton
from neuralpde.guard import Bound, Damp, Event, FallBack, Growth, Guarded, Hull, Limit, Stop
from neuralpde.inverse_problem import InitialState, Parameter
from neuralpde.objectives import Objective, OneStep, Pushforward, Unrolled
from neuralpde.observations import Observations
from neuralpde.priors import CrossValidation, Discrepancy, LCurve, Smooth, WeightChoice
from neuralpde.receipt import Receipt, Verdict, receipt
from neuralpde.stepper import CorrectedStep, SolverStep, Stepper
from neuralpde.transfer import Transfer, grid_transfer, mesh_transfer, sphere_transfer

__all__ = [
    "LBFGS",
    "Adam",
    "Bound",
    "Closure",
    "Comparison",
    "ConservativeClosure",
    "Corrected",
    "CorrectedStep",
    "CrossValidation",
    "Damp",
    "Discrepancy",
    "Estimate",
    "Event",
    "FallBack",
    "GaussNewton",
    "Growth",
    "Guarded",
    "Hull",
    "InitialState",
    "LCurve",
    "Limit",
    "LocalInvariants",
    "Objective",
    "Observations",
    "OneStep",
    "Parameter",
    "Pushforward",
    "Receipt",
    "Smooth",
    "SolverStep",
    "Stepper",
    "Stop",
    "Transfer",
    "Unrolled",
    "Verdict",
    "WeightChoice",
    "compare",
    "estimate",
    "fit",
    "grid_transfer",
    "load",
    "mesh_transfer",
    "receipt",
    "relative_error",
    "rollout",
    "sphere_transfer",
]
