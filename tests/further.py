"""Further variants: tests of `make test-full` alone, each with what holds the same in `make test`; and slow tests.

Of a slow law with several parameters, `make test` has every value of every parameter, and not every pair of them.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SLOW = frozenset(Path(__file__).with_name("slow.txt").read_text(encoding="utf-8").splitlines()[1:])
WHOLE = frozenset({"test_densities_and_gradients_agree_to_1e_12"})  # slow laws of which no pair is left out
MANY = 2000  # tests; where so many are collected, every pattern must find some

FURTHER = {  # of the names of tests
    r"test_joint_law.*given_simulated_data.*numpyro(?<!lkj_inside-numpyro)\]":
        "the same law by Pyro; densities, gradients and draws of both backends are compared in test_laws",
    r"test_laws.*gradient_of_a_constant_tilt.*-numpyro\]":
        "the same law by Pyro, and by NumPyro in test_conditional and test_svi; densities in test_laws",
    r"test_parity.*two_learning_steps_agree.*\[(?!joint_ebm-|.*-short_run_mle\])":
        "every algorithm on joint_ebm, which has layers and several tilts; short_run_mle on every model",
    r"test_pages.*every_algorithm_takes_a_step.*\[\w+-(?!_template-|.*-short_run_mle\])":
        "every algorithm on the template, short_run_mle on every model; on joint_ebm, both backends, in test_parity",
    r"test_checking.*goes_with_a_model_page\[\w+-joint_ebm\]":
        "every algorithm with latent_ebm; steps on joint_ebm in test_parity",
    r"test_conditional.*every_page_learns.*\[(?!short_run_mle|variational_joint|noise_contrastive)":
        "one page of every source of negative samples but pools, whose rows are those of test_sources",
    r"test_sampler.*every_posterior_against_the_closed_form.*centered-numpyro(?<!-noncentered-numpyro)\]":
        "NumPyro in noncentered coordinates, Pyro in both; test_parity has the coordinates of both backends",
    r"test_long_training.*choices_of_the_variational_page.*-numpyro\]":
        "the same choices by Pyro; variational_joint on both backends in test_parity",
    r"test_transposed.*a_chain_through_a_convolutional_decoder.*\[True\]":
        "the same chain by its graph, every form of its operations; a compiled chain of dense layers in test_hot_loop",
    r"test_tempering_crosses_where_hmc_cannot\[pyro\]":
        "the same by NumPyro; swaps and laws of every strength on both backends",
    r"test_importance_weights_of_a_flow.*(?:mean_field|top_down)-pyro\]":
        "every family by NumPyro, the ladder by Pyro",
    r"test_rotated_gaussians\[2-numpyro\]": "the same by Pyro, and by NumPyro in more dimensions",
    r"test_every_datum_adapts_for_itself\[mams-pyro\]": "the same by NumPyro; the default by both",
    r"test_a_noncentered_funnel_and_a_banana\[numpyro\]": "the same by Pyro",
    r"test_supports_of_many_kinds\[pyro\]": "the same by NumPyro; further supports by both in test_sampler",
    r"test_tempering_finds_the_shares_of_modes_six.*\[pyro\]": "the same by NumPyro",
    r"test_chains_in_a_mode_of_no_mass_are_moved.*\[(?:mala-pyro|hmc-numpyro)\]":
        "the same by the other kernel, and by the other backend",
    r"test_no_chain_of_32_stands_still.*\[(?:steep-pyro|necked-numpyro)\]":
        "the other posterior by this backend",
    r"test_svi_of_the_hosts_finds_the_maximum.*pyro_slope\](?<!numpyro_slope\])":
        "the same by NumPyro; one step of both against its closed form",
    r"test_parallel.*spawned_processes_are_those_of_a_script":
        "the processes of a script; how they are started is Lightning Fabric's",
    r"test_gpu_benchmark.*learns_and_tells_its_time\[latent_ebm-":
        "the same networks by joint_ebm, which has more",
    r"test_benchmarks.*all_candidates_end_at_the_same_latents":
        "what the benchmark compares runs in bench-speed, which checks the same first",
    r"test_optimizer.*another_rule_goes_on_bit_for_bit\[\w+-1\]":
        "the same with gradients accumulated over two batches",
    r"test_to_arviz.*diagnosis_of_good_chains_and_of_bad_ones\[pyro\]":
        "the same by NumPyro; draws of both in test_sampler",
    r"test_estimators.*within_errors_of_the_truth\[(?!univariate-|joint-|.*-ais\])":
        "every estimator on two cases, annealed importance sampling on all",
    r"test_estimators.*within_errors_of_the_truth\[(?:linear_6|bimodal|counts|positive)-ais\]":
        "the same by the other cases; the whole table by benchmarks/evidence.py",
    r"test_bounds_bracket_in_every_run\[[3-5]\]": "further seeds",
    r"test_notebooks.*it_runs\[(?!00|03|10)": "the other notebooks; what these call is in the tests of the rooms",
}  # fmt: skip


def is_further(name: str) -> bool:
    """Whether a test is a further variant."""
    return any(re.search(pattern, name) for pattern in FURTHER)


def pairs_beyond(items: Sequence[Any]) -> list[Any]:
    """Tests of slow laws whose parameters all stand, value by value, in other tests of the same law.

    The first test of a law is kept, then in turn the one with the most values that none has yet, and of those the one
    whose values the others have least: both backends have about the same share.
    """
    laws = defaultdict(list)
    for item in items:
        is_a_case = hasattr(item, "callspec") and item.originalname not in WHOLE
        if is_a_case and is_slow(item.nodeid) and not is_further(item.nodeid):
            laws[item.nodeid.partition("[")[0]].append(item)
    beyond = []
    for left in laws.values():
        values = {item.nodeid: {(name, repr(a)) for name, a in item.callspec.params.items()} for item in left}
        used: Counter[Any] = Counter()
        while wanted := {value for of_item in values.values() for value in of_item} - set(used):
            best = max(
                left, key=lambda item: (len(wanted & values[item.nodeid]), -sum(used[v] for v in values[item.nodeid]))
            )
            used.update(values[best.nodeid])
            left.remove(best)
        beyond += left
    return beyond


def is_slow(name: str) -> bool:
    """Whether a test takes more than about a third of a second."""
    return name.rpartition("::")[2].partition("[")[0] in SLOW


def unmatched(names: list[str]) -> list[str]:
    """Patterns, and names of slow tests, that find no test."""
    lost = [pattern for pattern in FURTHER if not any(re.search(pattern, name) for name in names)]
    return lost + sorted(SLOW - {name.rpartition("::")[2].partition("[")[0] for name in names})
