"""Every row of the survey of what the libraries below us do with bad input ends in a typed error or a correct answer.

The cases are the scripts in tests/hazards, run in processes of their own, with and without `python -O`: after a crash
or a hang, the last line they printed says which case it was. To run one alone: python tests/hazards/damaged_files.py NAME.
"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "hazards"
SECONDS = 120  # for one script; they take about five

# The rows of the survey by library, of which robust_laplacian, potpourri3d and torchdiffeq crash, hang or lie silently.
SURVEY = {
    "robust_laplacian": """pc_k0 mesh_all_faces_dup mesh_dup_face mesh_dup_face_flipped mesh_face_repeated_index_aaa
        mesh_face_repeated_index_aab mesh_faces_bool mesh_faces_float_fractional mesh_mollify_1 mesh_mollify_nan
        mesh_mollify_negative mesh_nan_unreferenced_vertex mesh_only_degenerate_face mesh_sliver_1e12
        mesh_unreferenced_vertex mesh_verts_complex mesh_zero_area_collinear pc_duplicates pc_inf pc_many_dup_of_one
        pc_nan pc_outlier pc_permutation pc_volume_random mesh_all_nan mesh_all_vertices_same mesh_huge_1e150
        mesh_huge_1e160 mesh_huge_1e308 mesh_inf_vertex mesh_nan_vertex mesh_offset_1e16 mesh_tiny_1e_160
        mesh_zero_area_coincident mesh_zero_area_collinear_mollify0 pc_tiny mesh_empty_both mesh_empty_faces
        mesh_empty_verts_with_face mesh_faces_int8_wrapped mesh_index_2pow31 mesh_index_2pow62 mesh_index_eq_nV
        mesh_index_huge mesh_index_minus1 mesh_quads mesh_torch_input mesh_verts_2d pc_1_point pc_2_points pc_3_points
        pc_all_same pc_collinear pc_empty pc_fewer_points_than_neighbors pc_huge pc_k1 pc_k2 pc_k_float pc_k_ge_n pc_kneg
        pc_vertex_permutation mesh_obtuse_boundary""",
    "potpourri3d": """heat_index_neg heat_source_huge heat_source_oob pc_oob vheat_oob_source io_ply_truncated
        io_stl_truncated_binary cotan_float32_large_offset cotan_int32_overflow cotan_obtuse cotan_sliver
        cotan_zero_area_eps flip_face_oob heat_disconnected heat_float_faces heat_index_oob heat_multisource_oob
        heat_source_neg heat_tcoef0 heat_tcoef_neg heat_unreferenced io_obj_2coord io_obj_huge_index io_obj_nan io_obj_oob
        io_obj_text io_obj_truncated io_obj_two_vertex_face io_off_bad io_ply_binary_biglist io_ply_binary_garbage
        io_ply_oob vertex_areas_unreferenced vheat_connlap_oob vheat_unreferenced_frames cotan_huge cotan_nan
        cotan_repeated_index cotan_tiny cotan_zero_area heat_multisource_empty vheat_disconnected_extend
        vheat_disconnected_log cotan_empty cotan_index_minus1 cotan_oob edges_oob flip_disconnected flip_oob
        flip_same_vertex heat_all_same heat_empty heat_huge heat_inf_vertex heat_list_of_triangles heat_nan_vertex
        heat_no_faces heat_source_float heat_tcoef_nan heat_tiny io_empty io_missing io_obj_binary io_obj_negative
        io_obj_quad_tri_mix io_obj_zero_index io_off_truncated io_ply_header_lies_count io_unknown_ext pc_collinear
        pc_empty pc_few pc_nan pc_same vertex_areas_oob vheat_bowtie vheat_inconsistent vheat_nan_value vheat_nonmanifold
        validate_mesh""",
    "torchdiffeq": """blowup_y2_scipy event_nan event_never_happens inf_rhs_scipy_solver requires_grad_memory_dopri5
        rhs_inplace_mutation_dopri5 rhs_stochastic_dropout stiff_linear_1e8_dopri5 stiff_vdp_1e6_dopri5
        t_dependent_rhs_big_offset_f32_state t_inf y_float32_default_tol_long_oscillator adams_nonuniform_grid
        adams_uniform_grid adjoint_double_backward_mixed_loss adjoint_eq_autograd_complex_t adjoint_unregistered_param
        event_skips_double_crossing event_tangent_missed implicit_adams_nonuniform_grid no_step_size_silent_coarse
        options_min_step_bypasses_error rhs_inplace_mutation_rk4 rhs_returns_same_buffer rhs_wrong_shape_rk4_scalar
        rk4_offgrid_linear_interp rtol_negative scipy_failure_shape scipy_no_grad stiff_rk4_unstable t_big_offset_f32
        unknown_option_typo y_bfloat16 y_complex_dopri8 y_int_rk4 y_real_complex_rhs y_real_complex_rhs_rk4
        y_tuple_mixed_dtype blowup_y2_rk4 inf_rhs_euler inf_rhs_explicit_adams inf_rhs_heun2 inf_rhs_heun3
        inf_rhs_implicit_adams inf_rhs_midpoint inf_rhs_rk4 nan_after_half_euler nan_after_half_explicit_adams
        nan_after_half_heun2 nan_after_half_heun3 nan_after_half_implicit_adams nan_after_half_midpoint
        nan_after_half_rk4 nan_after_half_scipy_solver nan_rhs_euler nan_rhs_explicit_adams nan_rhs_heun2 nan_rhs_heun3
        nan_rhs_implicit_adams nan_rhs_midpoint nan_rhs_rk4 nan_rhs_scipy_solver stiff_implicit_adams
        y_float32_default_tol_stiffish adjoint_double_backward adjoint_lambda atol0_rtol0 atol0_zero_state
        blowup_y2_dopri5 dt_underflow_singular inf_rhs_adaptive_heun inf_rhs_bosh3 inf_rhs_dopri5 inf_rhs_dopri8
        inf_rhs_fehlberg2 nan_after_half_adaptive_heun nan_after_half_bosh3 nan_after_half_dopri5 nan_after_half_dopri8
        nan_after_half_fehlberg2 nan_one_component_dopri5 nan_rhs_adaptive_heun nan_rhs_bosh3 nan_rhs_dopri5
        nan_rhs_dopri8 nan_rhs_fehlberg2 nan_y0_dopri5 rhs_broadcast_shape1 rhs_none rhs_python_float rhs_scalar
        rhs_wrong_shape_col rhs_wrong_shape_rk4_col rtol_nan step_size_nan step_size_negative step_size_tiny_oom
        step_size_zero stiff_max_num_steps t_2d t_empty t_inf_rk4_step t_integer t_list t_nan t_nonmonotone t_repeated
        t_repeated_last vmap_func vmap_rk4 y_complex_scipy_solver y_dict_state y_empty y_empty_tuple y_float16 y_int
        y_list_state y_scalar_float python_O_nan_rhs python_O_nonmonotone min_step tolerance_proportionality
        off_grid_output""",
    "torch.sparse": """col_oob_huge_matvec col_oob_matmat crow_last_exceeds_nnz col_neg_matvec col_oob_matvec
        coo_uncoalesced_values_op corrupted_csr_load_weights_only crow_first_nonzero crow_float crow_not_monotone_matvec
        crow_wrong_length grad_wrt_unsorted_values_mm to_sparse_coo_of_unsorted_is_flagged_coalesced inf_values
        nan_values_zero_mult batched_rhs_3d bf16_values col_oob_checked col_oob_todense coo_oob csr_abs_trace_diag
        csr_mul_rowscale csr_solve csr_sum_axis deepcopy_module dtype_mismatch_matvec dup_cols_checked
        grad_wrt_dup_values_mm gradcheck_matvec_complex gradcheck_mm_complex gradgrad_mm half_values int_values
        jvp_forward_ad pickle_multiprocess_spawn_share real_A_complex_x real_A_complex_x_coo unsorted_checked
        invariants_default""",
    "torch_geometric": """lap_directed lap_directed_sym lap_isolated_no_num_nodes lap_isolated_rw lap_isolated_sym
        lap_negative_weight softmax_half_deg_1e5 softmax_isolated lap_nan_weight lap_negative_weight_sym
        softmax_neginf_row softmax_posinf lap_int_weight lap_neg_index lap_oob scatter_oob""",
    "files": """ply_binary_half ply_byte_flipped ply_face_count_lies vtk_mutants ply_minus_10_bytes
        ply_vertex_count_plus_1 obj_mutants ply_ascii_minus_12_bytes ply_ascii_half stl_half stl_count_1e6 save_kill_9""",
}

# Rows that no call of ours can reach, with the reason.
UNREACHABLE = {
    "robust_laplacian takes no mollification from the user": "mesh_mollify_1 mesh_mollify_nan mesh_mollify_negative",
    "geodesics of point clouds are not offered": "pc_oob",
    "a default of torch, which we never rely on": "invariants_default",
}


started: list[subprocess.Popen[str]] = []


@pytest.fixture(scope="module", autouse=True)
def _no_child_outlives_the_tests() -> Iterator[None]:
    """A twin whose test was not selected is never asked."""
    yield
    for child in started:
        if child.poll() is None:
            child.kill()
        if child.stdout is not None and not child.stdout.closed:
            child.communicate()


@functools.cache
def start(script: str, optimized: bool) -> subprocess.Popen[str]:
    command = [sys.executable, *(["-O"] if optimized else []), str(HERE / f"{script}.py")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    started.append(child)
    return child


@functools.cache
def outcomes(script: str, optimized: bool) -> dict[str, str | None]:
    """What became of each case; started beside its twin, since both mostly wait for imports."""
    child, _ = start(script, optimized), start(script, not optimized)
    try:
        output, errors = child.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        output, errors = child.communicate()
        errors = f"hang: over {SECONDS} s. {errors}"
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    if child.returncode != 0:
        last = [line["started"] for line in lines if "started" in line][-1:]
        pytest.fail(f"{script}.py ended with {child.returncode} in {last}: {errors[-1500:]}")
    ended = [line for line in lines if "name" in line]
    assert all(line["optimized"] == optimized for line in ended)
    return {line["name"]: line["problem"] for line in ended}


SCRIPTS = sorted(path.stem for path in HERE.glob("*.py") if path.stem != "cases")


@pytest.mark.parametrize("optimized", [False, True], ids=["python", "python -O"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_every_case_ends_in_a_typed_error_or_a_correct_answer(script: str, optimized: bool) -> None:
    problems = {name: problem for name, problem in outcomes(script, optimized).items() if problem is not None}
    assert problems == {}


def test_every_row_of_the_survey_has_a_case_or_cannot_reach_us() -> None:
    rows = {row for block in SURVEY.values() for row in block.split()}
    excused = [row for block in UNREACHABLE.values() for row in block.split()]
    tried = {name for script in SCRIPTS for name in outcomes(script, False)}
    assert len(excused) == len(set(excused))
    assert set(excused) <= rows, "excuses for rows that do not exist"
    assert set(excused) & tried == set(), "rows that are tried need no excuse"
    assert rows - tried - set(excused) == set(), "rows without a case"
