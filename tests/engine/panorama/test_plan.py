import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zellige.engine.device import parse_bytes
from zellige.engine.panorama.plan import plan_batch
from zellige.errors import BudgetError

MIB = 2**20
sizes = st.integers(1, 2**40)


@given(
    budget=sizes, fixed=st.integers(0, 2**40), each=sizes, knee=st.integers(1, 1000), most=st.integers(1, 250)
)  # fmt: skip
def test_a_plan_keeps_to_the_budget_and_uses_it(budget: int, fixed: int, each: int, knee: int, most: int) -> None:
    def predict(batch: int) -> int:
        return fixed + each * min(batch, knee)

    try:
        plan = plan_batch(budget, predict, most)
    except BudgetError:
        assert predict(1) > budget
        return
    assert plan.predicted_bytes == predict(plan.batch) <= budget
    assert 1 <= plan.batch <= most
    assert plan.batch == most or predict(plan.batch + 1) > budget


@given(budget=sizes, fixed=st.integers(0, 2**40), each=sizes)
def test_the_budget_that_the_error_names_is_the_smallest_that_works(budget: int, fixed: int, each: int) -> None:
    def predict(batch: int) -> int:
        return fixed + batch * each

    try:
        plan_batch(budget, predict, 16)
    except BudgetError as error:
        named = re.search(r"Try --memory (\w+)\.$", str(error))
        assert named, error
        enough = parse_bytes(named[1])
        assert enough > budget
        assert plan_batch(enough, predict, 16).batch >= 1
        with pytest.raises(BudgetError):
            plan_batch(enough - MIB, predict, 16)


def test_the_sentence_about_a_small_budget_does_not_contradict_itself() -> None:
    with pytest.raises(BudgetError) as caught:
        plan_batch(5 * MIB - 100, lambda batch: (4 + batch) * MIB, 8, name="planet")
    assert str(caught.value) == (
        f"planet needs at least 5MiB for one patch; --memory {5 * MIB - 100} is too small. Try --memory 5MiB."
    )
