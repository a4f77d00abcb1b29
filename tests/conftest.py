"""Shared test settings: two host devices, shapes and types enforced, quick compilation, and a fixture for 64 bits."""

import gc
import os
import re
from pathlib import Path

# Before JAX starts: two devices on the host, so that sharding is tested on any machine.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["GRADSTARVE_CACHE"] = "off"  # what a test compiles is compiled by it
os.environ.pop("COLUMNS", None)  # the width of what commands print, which processes of tests are given

import jax
import jaxlib
import pytest
from jaxtyping import install_import_hook

# What JAX remembers of thousands of programs is not looked through for garbage again and again: a twentieth of the time.
gc.set_threshold(10_000, 20, 20)


# Marked "slow", for the sake of ten minutes: what another test shows with another loss, depth or size, and what the
# catalogue tries as well. `pytest -m slow` runs them.
TRIED = "sign|cross-entropy|fates|exact-descent|softmax|hinge-max-margin"
SLOW = re.compile(
    "|".join(
        (
            r"test_broken_formulas.py::test_every_changed_equation_fails\[(?!.*cross-entropy)",
            r"test_printers.py::test_generated_code_(runs|agrees|keeps).*\[(?!.*cross-entropy)",
            r"test_solve_mode.py::(test_gradients_match|test_float32|TestPhysics).*\[(?!cross|hinge)",
            r"test_depth.py::test_(times_are|derivatives|weights).*\[(exp|squared)",
            r"test_softmax.py::test_the_clock_of_a_softmax_is_its_integral\[(2|999)",
            r"test_cli.py::test_overlay_writes.*flow",
            r"test_momentum.py::test_the_law_is_an_equality.*(nesterov|exponential|squared)",
            r"test_decay.py::.*(exponential|squared)",
            r"test_mode.py::test_every_step_holds\[(?!.*cross-entropy|.*hinge)",
            r"test_solve.py::test_(curves_of_the_classes|descent_is_an_equality).*(exponential|squared)",
            r"test_solve_mode.py::test_float64.*\[(exponential|squared)",
            r"test_flow.py::test_balance_is_conserved\[float32",
            r"test_ensemble.py::test_kappa_against.*\[(?!1\])",
            r"test_(features|feature_study).py::.*(exponential|squared)",
            r"test_broken_formulas.py::test_every_changed_equation_fails\[linearised",
            r"test_sweep_growth.py::test_(it_is_read|settings_become|phases_and|code_of|other_blocks|what_does.*change[023]|a_sweep.*fused)",
            r"test_engines.py::test_engines_agree.*-(exponential|squared|hinge)\]",
            r"test_derivatives_everywhere.py::test_a_mode_has.*cross-entropy-time_to_logit",
            r"test_late_derivatives.py::test_late_derivatives_have.*float32",
            r"test_near_the_border.py::.*float32|test_no_times.py::.*depth_mode.(weights|time)",
            r"test_laws_in_jit.py::test_argument_of_jit\[(softmax|shared|starving|mode, one|solve, one|depth)",
            r"test_engines.py::test_shapes\[(nesterov.*-130|one point.*-130|nesterov.*-6-600)",
            r"test_engines.py::test_engines_agree.*(nesterov|momentum)|test_engines.py::test_float32_agrees",
            r"test_faint_modes.py::test_plateau_of_one_neuron\[(softmax|exponential|squared|cross-entropy-float32|hinge-float32)",
            r"test_direction.py::test_norms_of_any_size.*(float32|huge-float64)",
            r"test_depth.py::test_descent_tends_to_the_law_at_first_order\[[3-6]",
            r"test_printers.py::test_generated_code_(runs|agrees|keeps).*\[(?!mode|depth)",
            r"test_printers.py::test_latex_holds_every_step\[mode-hinge|test_printers.py::test_printed_code.*\[inflection",
            r"test_broken_formulas.py::test_every_changed_part_of_a_mode_fails\[(squared|exponential)",
            r"test_broken_formulas.py::test_every_changed_equation_fails\[(momentum|softmax|starvation)",
            r"test_mode.py::test_every_step_holds\[(?!mode)|test_against_theory.py::test_the_derived_logit.*squared",
            r"test_solve_mode.py::(test_float32|TestPhysics).*\[hinge|test_solve_mode.py::TestPhysics::test_starts_where",
            r"test_flow.py::test_(a_violent_start|a_flow_that_slides.*\[squared)",
            r"test_pallas.py::test_interpreted.*(nesterov|decay|plain)|test_pallas.py::test_tilings.*float32",
            r"test_untold.py::test_no_alarm_where_labels_cancel\[(True-1|False-0)|test_untold.py::test_a_kernel_may_be",
            r"test_jacobian.py::test_kernels_are.*dictionary",
            r"test_edges.py::test_edges_reached.*\[2-6|test_decay.py::test_curve_against.*float32",
            r"test_starvation.py::test_exponential_loss_in_closed_form\[float32|test_starvation.py::.*at_depth_2",
            r"test_house.py::test_examples_run\[gradstarve.(studies|page)\.",
            r"test_cli.py::test_overlay_writes.*exponential|test_remedies.py::test_what_is_measured",
            r"test_ends_of_the_range.py::.*float32|test_networks_of_any_depth.py::test_(softmax_descent|one_drawn)",
            r"test_separability.py::test_rounding_in_a_random_frame.*float32",
            r"test_own_loss.py::test_the_four_losses.*\[(cross-entropy|squared|.*float32)",
            r"test_own_loss.py::test_networks_train.*\[(own1|own0-antipodal)|test_curves_of_both.py::test_first_times.*exponential",
            r"symbolic/test_mode.py::test_every_step_holds\[mode-hinge",
            r"test_own_loss.py::test_(derivatives_in_the|the_derivative_of_a_time|label_smoothing.*\[(?!0.1)|above_its_rest|the_four_losses.*\[exp|networks.*orth)",
            r"test_own_loss.py::test_the_time_to_a_loss_is.*\[(cross|exp|squared)|test_penalty.py::test_the_laws_of_descent",
            r"test_engines.py::test_shapes\[(one|nesterov).*-70|test_simulate.py::test_(stopping|a_batch)|test_sweep.py::test_the_network_of",
            r"test_broken_formulas.py::test_every_changed_part_of_a_mode_fails\[hinge|test_printers.py::test_latex_holds",
            r"test_jacobian.py::test_kernels_are.*equinox|test_hinge_exact.py::test_(a_margin_that_touches|event_times_to_forty)",
            r"test_edges.py::test_two_thousand.*\[4-3-False|test_flow.py::test_hinge_stops_each|test_softmax.py::test_derivatives",
            r"test_own_loss.py::test_a_smoothed_hinge|test_ntk.py::test_logistic_flow_is_what.*graded|test_phase.py::TestAngle",
            r"test_own_loss.py::test_the_time_to_a_loss_below|test_laws_of_modified.*(\[(focal|shift|temperature)|a_temperature)",
            r"test_derivatives_of_solve.py::test_slope_in|test_hinge_exact.py::test_(starts_whose.*1e-160|the_closed_form)",
            r"test_mode.py::test_other_random_points|test_mode.py::test_time_of_a_mode.*(squared|exponential)",
            r"test_against_theory.py::test_the_derived_inflections.*(squared|exponential)|test_printers.py::test_markdown",
            r"test_broken_formulas.py::test_(check_names|every_changed_equation_fails\[(depth|descent|decay))",
            r"test_earlier.py::test_another_run.*\[change[023]|test_edges.py::test_a_sweep_in_many",
            r"test_engines.py::test_(repeated_points|shapes\[one point a step-6-600)|test_ensemble.py::test_float32",
            r"test_house.py::test_examples_run\[gradstarve\.(problem\._networks|theorems\.|special\.|comparison\.)",
            r"test_phases.py::test_(the_flow_is|the_flow_under|who_is.*ends1|steps_through.*(orthogonal-cross|antipodal-hinge))",
            r"test_steps.py::test_(derivatives_where|the_law.*schedule, m)|test_mini_batches.py::test_training_over",
            r"test_own_loss.py::test_(the_time_to_a_loss_(from_both|next.*float32)|label_smoothing|a_residual_that_never)",
            r"test_leaky.py::test_(fast_training.*9|simulate_flow.*exp)|test_engines.py::test_schedules.*-(30-7|300_2)",
            r"test_hinge_exact.py::test_starts_whose.*1e-200|test_curves_of_both.py::test_first_times_of_a_network.*loss-hinge",
            r"test_laws_of_modified.*flipped_hinge|test_solve.py::test_the_rebuilt|test_plots.py::test_both_classes.*cross",
            r"test_derivatives_everywhere.py::test_a_mode_has_its.*hinge-every",
            r"test_hinge_exact.py::test_one_line|test_phases.py::test_steps_through.*antipodal|test_cones.py::test_the_bounds_are_never",
            r"test_against_theory.py::test_the_derived_modified|test_broken_formulas.py::test_every_changed_equation_fails\[leaky",
            r"test_engines.py::test_schedules.*-300_0|test_cones.py::test_a_class_on_a_line|test_starvation.py::test_hinge_freezes.*2\]",
            r"test_against_theory.py::test_the_derived_step_of_a_leaky.*(hinge|exp|squared)",
            r"test_steps.py::test_the_law_is_training\[(schedule|.*orthogonal)|test_phased_runs.py::test_a_flow_goes_on",
            # Of each section of the theory an entry or two, and of each room some examples of docstrings.
            rf"test_catalogue.py::test_(entry_holds|dropping).*\[(?!({TRIED})(-one)?\])",
            r"test_house.py::test_examples_run\[gradstarve\.(theory|simulation|diagnosis|symbolic)\.(?!_mode|_simulate)",
        )
    )
)

# Marked "platform": a minute or two that touches every room, for other versions of Python, of JAX and of the rest.
# `pytest -m "platform and not slow"` runs them.
PLATFORM = re.compile(
    "|".join(
        (
            r"test_lambertw.py::test_(float64|float32|derivatives.*-0.2)|test_expint.py::test_float|test_binomial.py::test_tail_against",
            r"test_clock.py::test_(the_nodes|large_logits\[60.0-0.4-|the_integral.*cross-entropy0|a_clock)",
            r"test_losses.py|test_digits.py|test_bad_input.py|test_network.py::test_bad|test_separability.py::.*\[2-float",
            r"test_derivation.py|symbolic/test_mode.py::test_every_step_holds\[mode-cross",
            r"test_printers.py::test_generated_code_runs.*\[mode-cross-entropy",
            r"test_solve_mode.py::(test_float32.*\[cross|TestPhysics::test_(weights|time_to|wrong).*\[cross)",
            r"theory/test_solve.py::test_(descent_is.*cross|neurons_active|data_)",
            r"test_ntk.py::test_(the_nodes|one_feature|figure_6|features_of)|test_no_times.py|test_direction.py::test_(float32|scale)",
            r"theory/test_depth.py::test_(float32|deep_hinge)|test_sgd.py::test_time_to_learn|test_features.py::test_hinge_moves",
            r"test_engines.py::test_(shapes.*\[(nesterov|one).*-3-70|the_choice|the_marks)|test_threefry.py|test_histogram.py",
            r"test_pallas.py::test_(simulate|lowering|the_kernel_lowers.*-(cross-entropy|hinge)-float)",
            r"test_flow.py::test_(the_flow_is|progress)|test_hinge_exact.py::test_(events_are|a_network)",
            r"test_sweep_directory.py::test_(a_second|damaged|other|strange)|test_sweep.py::test_(statistics_are|xarray|table)",
            r"test_gaps.py::test_(theory_and|not_finite)|test_plots.py::test_file|test_phase.py::TestFailure::test_intervals",
            r"theorems/test_verify.py|test_catalogue.py::test_entry.*\[(exact-descent|cross-entropy|hinge-exact|softmax)-one\]",
            r"test_starvation_report.py::test_(the_patch|times_that)|page/test_page(_files)?.py",
            r"test_cli.py::test_(overlay.*antip|sweep_writes|derive_prints|derive_lists|root_help|verify)|test_cli_stop.py",
            r"test_cli_starve.py::test_it_writes|test_house.py::test_(importing|lazy|public)|test_style.py|test_readme.py",
        )
    )
)


# Compiling is most of what the tests cost, so that by default it is made quick, in two ways that change rounding at most.
# XLA emits loops in its older, plainer way (a flag that ends the process where it is not known, so that only versions that
# have it are given it). And machine code is not optimised, save in the files that are about what that could spoil, the last
# digits of a special function and the bits of engines and sweeps, and where more is computed than compiled, in the
# catalogue. A choice of marks without "not slow" compiles as for a user: `pytest -m slow`, `pytest -m ''` for all tests.
PLAIN_EMITTER = "--xla_cpu_use_fusion_emitters=false"
HAVE_PLAIN_EMITTER = ("0.8.", "0.9.", "0.10.")
OPTIMISED = re.compile(r"/special/|/test_(engines|sweep\w*|compile)\.py")
UNOPTIMISED = pytest.StashKey[bool]()


def quick(config):
    return "not slow" in config.option.markexpr


def leave_unoptimised(config, wanted):
    if config.stash.get(UNOPTIMISED, False) != wanted:
        config.stash[UNOPTIMISED] = wanted
        jax.config.update("jax_disable_most_optimizations", wanted)
        jax.clear_caches()  # what one file compiled must not depend on which were run before it


def pytest_configure(config):
    """Before the library is imported and anything is compiled."""
    # Every annotation of every module is checked at run time, here and nowhere else: by the platform tests and by a run of
    # all tests. It is a seventh of the time of the default run, which shows no annotation that these do not.
    if config.option.markexpr != "not slow":
        install_import_hook("gradstarve", "beartype.beartype")
    if quick(config) and jaxlib.__version__.startswith(HAVE_PLAIN_EMITTER):
        os.environ["XLA_FLAGS"] += f" {PLAIN_EMITTER}"
    leave_unoptimised(config, quick(config))


# Every compiled program keeps some memory maps, of which Linux gives a process 65,530; beyond, compiling is a segmentation
# fault. Half an hour of tests gets there.
MAPS = Path("/proc/self/maps")
MANY_MAPS = 20_000


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """Between two files, when there is a lot of it: forget what was compiled."""
    between = nextitem is not None and nextitem.path != item.path
    if between and MAPS.exists() and len(MAPS.read_bytes().splitlines()) > MANY_MAPS:
        jax.clear_caches()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    leave_unoptimised(item.config, quick(item.config) and not OPTIMISED.search(item.path.as_posix()))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Optimised files first, then the slowest, so that no process is left alone with one at the end; and the mark."""
    slowest = ("test_own_loss.py", "test_bad_values.py", "test_hinge_exact.py", "test_catalogue.py", "test_solve.py")
    slowest += ("test_solve_mode.py", "test_curves_of_both.py", "test_flow.py", "test_simulate.py")
    items.sort(key=lambda item: (not OPTIMISED.search(item.path.as_posix()), item.path.name not in slowest))
    for item in items:
        if SLOW.search(item.nodeid):
            item.add_marker(pytest.mark.slow)
        if PLATFORM.search(item.nodeid):
            item.add_marker(pytest.mark.platform)
        if item.path.name == "test_docs.py" or "chromium" in item.fixturenames:
            item.add_marker(pytest.mark.extras)


@pytest.fixture
def x64():
    """64-bit JAX for one test."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(autouse=True)
def _close_figures():
    """Figures left open would pile up (and warn) over a run."""
    yield
    import sys

    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
