"""How time advances: dx/dt = f(t, x) → x(t)."""

from integrators import engine
from integrators.adaptive import Adaptive
from integrators.adjoint import Adjoint
from integrators.ark324 import ARK324
from integrators.autopilot import Auto
from integrators.backward_euler import BackwardEuler
from integrators.bdf2 import BDF2
from integrators.bosh3 import Bosh3
from integrators.caratheodory_fejer import CaratheodoryFejer
from integrators.checkpointed import Checkpointed
from integrators.controller import Controller
from integrators.crank_nicolson import CrankNicolson
from integrators.dopri5 import Dopri5
from integrators.etdrk2 import ETDRK2
from integrators.etdrk4 import ETDRK4
from integrators.events import integrate_until
from integrators.explicit import ExplicitPair
from integrators.exponential import ExactFlow, Exponential
from integrators.fixed import Euler, FixedStep, TruncatedTaylor
from integrators.gradients import Direct, GradientMode
from integrators.implicit_midpoint import ImplicitMidpoint
from integrators.integrate import integrate
from integrators.integrator import Integrator, LinearPart
from integrators.interpolated import Interpolated
from integrators.newton_krylov import NewtonKrylov
from integrators.norms import ErrorNorm, RMSNorm, RowNorm
from integrators.odeint import as_torchdiffeq
from integrators.radau import RadauIIA5
from integrators.ragged import PerSample, PerSegment
from integrators.reversible import Reversible
from integrators.rk4 import RK4
from integrators.rkc2 import RKC2
from integrators.rkl2 import RKL2
from integrators.sbdf2 import SBDF2
from integrators.sdirk2 import SDIRK2
from integrators.sdirk3 import SDIRK3
from integrators.solution import Solution, SolveError, SolverWarning, State, Statistics, Status
from integrators.spectral_radius import spectral_radius
from integrators.splitting import Strang, YoshidaSplitting
from integrators.tsit5 import Tsit5
from integrators.verlet import StoermerVerlet
from integrators.yoshida import Yoshida4, Yoshida6

__all__ = [
    "ARK324",
    "BDF2",
    "ETDRK2",
    "ETDRK4",
    "RK4",
    "RKC2",
    "RKL2",
    "SBDF2",
    "SDIRK2",
    "SDIRK3",
    "Adaptive",
    "Adjoint",
    "Auto",
    "BackwardEuler",
    "Bosh3",
    "CaratheodoryFejer",
    "Checkpointed",
    "Controller",
    "CrankNicolson",
    "Direct",
    "Dopri5",
    "ErrorNorm",
    "Euler",
    "ExactFlow",
    "ExplicitPair",
    "Exponential",
    "FixedStep",
    "GradientMode",
    "ImplicitMidpoint",
    "Integrator",
    "Interpolated",
    "LinearPart",
    "NewtonKrylov",
    "PerSample",
    "PerSegment",
    "RMSNorm",
    "RadauIIA5",
    "Reversible",
    "RowNorm",
    "Solution",
    "SolveError",
    "SolverWarning",
    "State",
    "Statistics",
    "Status",
    "StoermerVerlet",
    "Strang",
    "TruncatedTaylor",
    "Tsit5",
    "Yoshida4",
    "Yoshida6",
    "YoshidaSplitting",
    "as_torchdiffeq",
    "engine",
    "integrate",
    "integrate_until",
    "spectral_radius",
]
