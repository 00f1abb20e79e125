"""MeshPDE: equations on meshes as data, and what predicts them from five frames, in one harness.

    from neuralpde import meshpde

    train, test = meshpde.cases(meshpde.Pde.HEAT.equation, meshpde.Truth.SURFACE, folder)
    train = [case.first(trajectories=3, frames=151) for case in train]
    folder = meshpde.RunFolder(Path("runs/mine"))
    rows = meshpde.run_table("mine", [meshpde.Persistence(), meshpde.Gcn(), Mine()], train, test, folder)

A row of yours is a `Method` (learn from cases, roll out from five frames), or a `Network`, which writes `build` alone and is
trained as the others are. `neuralpde reproduce meshpde` is this for the published table.
"""

from neuralpde.heat_data import Truth
from neuralpde.mesh_baselines import ExplicitMass, ExplicitRobust, ImplicitEuler, Persistence, Zero
from neuralpde.mesh_baselines_stencils import FourParameters, OwnRate, OwnTwoParameters, Rate, TwoParameters
from neuralpde.mesh_case import Case, Given, Scene
from neuralpde.mesh_data import cases, read_case
from neuralpde.mesh_equation import MeshEquation
from neuralpde.mesh_equation_advection import MeshAdvection
from neuralpde.mesh_equation_cahn_hilliard import MeshCahnHilliard
from neuralpde.mesh_equation_heat import MeshHeat
from neuralpde.mesh_equation_wave import MeshWave
from neuralpde.mesh_method import Fitted, Method, autoregressive
from neuralpde.mesh_methods import methods_of
from neuralpde.mesh_networks_egnn import Egnn
from neuralpde.mesh_networks_gcn import Gcn
from neuralpde.mesh_networks_meshgraphnet import MeshGraphNet
from neuralpde.mesh_networks_mpnn import Mpnn
from neuralpde.mesh_networks_spectral import Spectral
from neuralpde.mesh_ours import Ours
from neuralpde.mesh_pde import Pde
from neuralpde.mesh_table import run_table
from neuralpde.mesh_training import Network, SceneModel
from neuralpde.mesh_unitary import RUniMeshMethod, Unitary
from neuralpde.run_folder import RunFolder

__all__ = [
    "Case", "Egnn", "ExplicitMass", "ExplicitRobust", "Fitted", "FourParameters", "Gcn", "Given", "ImplicitEuler",
    "MeshAdvection", "MeshCahnHilliard", "MeshEquation", "MeshGraphNet", "MeshHeat", "MeshWave", "Method", "Mpnn", "Network",
    "Ours", "OwnRate", "OwnTwoParameters", "Pde", "Persistence", "RUniMeshMethod", "Rate", "RunFolder", "Scene", "SceneModel",
    "Spectral", "Truth", "TwoParameters", "Unitary", "Zero", "autoregressive", "cases", "methods_of", "read_case", "run_table",
]  # fmt: skip
