"""How time advances: dx/dt = f(t, x) → x(t)."""

from integrators.adaptive import Adaptive, Bosh3, Dopri5
from integrators.exponential import Exponential
from integrators.fixed import RK4, Euler, FixedStep, TruncatedTaylor
from integrators.gradients import Adjoint, Direct
from integrators.implicit import BackwardEuler
from integrators.integrate import integrate
from integrators.integrator import Integrator, LinearPart
from integrators.solution import Solution, SolveError, SolverWarning, State, Statistics, Status

__all__ = [
    "RK4",
    "Adaptive",
    "Adjoint",
    "BackwardEuler",
    "Bosh3",
    "Direct",
    "Dopri5",
    "Euler",
    "Exponential",
    "FixedStep",
    "Integrator",
    "LinearPart",
    "Solution",
    "SolveError",
    "SolverWarning",
    "State",
    "Statistics",
    "Status",
    "TruncatedTaylor",
    "integrate",
]
