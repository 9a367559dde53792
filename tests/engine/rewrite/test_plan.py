"""A plan measures the forms of every layer, and what it puts in their place computes the same."""

import copy
import json
import logging
from collections.abc import Callable
from itertools import chain, repeat
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from zellige.engine.layers.convolutions import CodedConv, JoinedConvTranspose2d, PaddedConv, UpConv
from zellige.engine.rewrite.forms import forms
from zellige.engine.rewrite.plan import AS_TRAINED, Choice, apply, plan, rewritten, rewritten_as
from zellige.errors import ConfigError
from zellige.kernels.winograd_conv.op import native_dtypes

from .judge import layer
from .timed import LAYERS, TILES, Timer, Tiny, by_layer, folder, given, needs_tiles, run, subject, timer

__all__ = ["folder", "timer"]

STRIDED = [f"winograd, {cells} x {cells}" for cells in (3, 2, 1)] if TILES else []


class TestForms:
    def test_of_an_up_convolution(self) -> None:
        expected = ["phases", "winograd"] if TILES else ["phases"]
        for padding in ("zeros", "replicate", "none"):
            assert list(forms(layer(UpConv, 3, 16, padding))) == expected

    def test_of_an_up_convolution_on_a_gpu(self) -> None:
        assert list(forms(UpConv(3, 16, "zeros").to("meta"))) == ["phases", "transposed"]

    @needs_tiles
    def test_of_an_up_convolution_that_cuts_cells_off(self) -> None:
        assert list(forms(layer(UpConv, 3, 16, "none", spare=1))) == ["winograd"]

    def test_of_a_coded_convolution(self) -> None:
        expected = ["constant channels", "constant channels, winograd"] if TILES else ["constant channels"]
        assert list(forms(layer(CodedConv, 4, 3, 16))) == expected

    @needs_tiles
    @pytest.mark.parametrize("dtype", native_dtypes())
    def test_of_a_convolution(self, dtype: torch.dtype) -> None:
        for padding in ("zeros", "replicate", "none"):
            assert list(forms(PaddedConv(3, 16, padding).to(dtype))) == ["winograd"]
        assert list(forms(nn.Conv2d(3, 16, 3, padding=1).to(dtype))) == ["winograd"]

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
    def test_winograd_is_for_dtypes_of_its_kernel(self, dtype: torch.dtype) -> None:
        assert not forms(PaddedConv(3, 16, "zeros").to(dtype))
        assert list(forms(UpConv(3, 16, "zeros").to(dtype))) == ["phases"]

    def test_winograd_is_for_many_outputs(self) -> None:
        assert not forms(PaddedConv(3, 15, "zeros"))
        assert list(forms(UpConv(3, 15, "zeros"))) == ["phases"]

    @pytest.mark.parametrize(
        "other",
        [
            nn.Conv2d(3, 16, 1), nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(3, 16, 3, padding=2), nn.Conv2d(3, 16, 4, 2),
            nn.Conv2d(3, 16, 4, 2, 1, padding_mode="reflect"), nn.Conv2d(4, 16, 4, 2, 1, groups=2),
            JoinedConvTranspose2d((16, 3), 16, 4, 1, 0), nn.Conv2d(3, 16, 4, padding=1),
            nn.ConvTranspose2d(3, 16, 4, 2), nn.ConvTranspose2d(3, 16, 4, padding=1),
            nn.Conv2d(3, 16, 3, dilation=2, padding=2), nn.Conv2d(3, 16, 3, dilation=2), nn.Conv2d(4, 16, 3, groups=2),
            nn.Conv2d(3, 16, 3, padding=(1, 0)), nn.Conv2d(3, 16, 3, padding=1, padding_mode="reflect"),
            nn.ConvTranspose2d(3, 16, 3), nn.Linear(3, 16), UpConv(3, 16, "zeros", mode="bilinear"),
            spectral_norm(nn.Conv2d(3, 16, 3, padding=1)), spectral_norm(UpConv(3, 16, "zeros")),
            spectral_norm(nn.Conv2d(3, 16, 4, 2, 1)), spectral_norm(nn.ConvTranspose2d(3, 16, 4)),
        ],
        ids=str,
    )  # fmt: skip
    def test_of_other_layers_there_are_none(self, other: nn.Module) -> None:
        assert not forms(other)

    def test_of_a_convolution_that_halves(self) -> None:
        assert list(forms(nn.Conv2d(3, 16, 4, 2, 1))) == STRIDED
        assert not forms(nn.Conv2d(3, 15, 4, 2, 1)) and not forms(nn.Conv2d(3, 16, 4, 2, 1).half())
        assert not forms(nn.Conv2d(3, 16, 4, 2, 1, device="meta"))

    def test_of_a_transposed_convolution_that_doubles(self) -> None:
        assert list(forms(nn.ConvTranspose2d(3, 16, 4, 2, 1))) == ["phases", *STRIDED]
        assert list(forms(JoinedConvTranspose2d((16, 3), 16, 4, 2, 1))) == ["phases", *STRIDED]
        assert list(forms(nn.ConvTranspose2d(3, 5, 4, 2, 1))) == ["phases"]
        assert list(forms(nn.ConvTranspose2d(3, 16, 4, 2, 1, device="meta"))) == ["phases"]

    @pytest.mark.parametrize("device", ["cpu", "meta"])
    def test_of_a_convolution_that_may_cover_its_map(self, device: str) -> None:
        for kind in (nn.Conv2d, nn.ConvTranspose2d):
            assert list(forms(kind(3, 1, 4, device=device))) == ["matrix product"]
            assert list(forms(kind(3, 16, (5, 4), device=device))) == ["matrix product"]

    def test_a_subclass_that_computes_something_else_has_none(self) -> None:
        class Scaled(nn.Conv2d):
            def forward(self, x: Tensor) -> Tensor:
                return 2 * super().forward(x)

        assert not forms(Scaled(3, 16, 3, padding=1))

    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize(
        ("kind", "sizes"),
        [
            (UpConv, (3, 16, "zeros")), (UpConv, (3, 16, "replicate")), (UpConv, (3, 16, "none")),
            (CodedConv, (4, 3, 16)), (PaddedConv, (3, 16, "replicate")), (PaddedConv, (3, 16, "none")),
            (nn.Conv2d, (3, 16, 3)), (nn.Conv2d, (3, 16, 4, 2, 1)), (nn.Conv2d, (3, 16, 4)),
            (nn.Conv2d, (3, 16, (5, 6))), (nn.ConvTranspose2d, (3, 16, 4, 2, 1)), (nn.ConvTranspose2d, (3, 16, 4)),
        ],
    )  # fmt: skip
    def test_all_equal_the_layer(self, kind: type[nn.Module], sizes: tuple[Any, ...], bias: bool) -> None:
        trained = layer(kind, *sizes, bias=bias).requires_grad_(False)
        inputs = given() if kind is CodedConv else given()[:1]
        for build in forms(trained).values():
            made = build()
            assert not made.training
            torch.testing.assert_close(made(*inputs), trained(*inputs), rtol=1e-5, atol=1e-5)


class TestChoosing:
    def test_a_plan_changes_nothing_and_apply_does(self, timer: Timer) -> None:
        timer(PhaseUpConv=0.1, ConstantChannelsConv=0.1)
        network = Tiny()
        before, modules = copy.deepcopy(network.state_dict()), list(network.modules())
        expected = run(network)()
        choices = plan(network, run(network))
        assert list(network.modules()) == modules and not any(part._forward_pre_hooks for part in modules)
        after = network.state_dict()
        assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
        apply(network, choices)
        assert [type(part).__name__ for part in (network.up, network.coded)] == ["PhaseUpConv", "ConstantChannelsConv"]
        torch.testing.assert_close(run(network)(), expected, rtol=1e-5, atol=1e-4)

    def test_every_layer_that_runs_and_has_forms_gets_a_choice_in_order(self) -> None:
        network = Tiny()
        choices = plan(network, run(network))
        assert [choice.layer for choice in choices] == LAYERS
        up, coded = choices[:2]
        assert (up.kind, up.shapes, up.dtype) == ("UpConv", "2x3x5x6", "float32")
        assert (coded.kind, coded.shapes) == ("CodedConv", "2x16x10x12, 2x4")
        for choice in choices:
            times = choice.milliseconds
            assert times.keys() == {AS_TRAINED, *forms(network.get_submodule(choice.layer))}
            assert all(0 < time < 1e4 for time in times.values())
            assert choice.gain == times[AS_TRAINED] / times[choice.form]
            assert json.loads(json.dumps(choice.row())) == choice.row() and choice.row()["gain"] == choice.gain

    @needs_tiles
    def test_the_fastest_is_chosen(self, timer: Timer) -> None:
        network = Tiny()
        timer(PhaseUpConv=0.5, WinogradConv=0.6, ConstantChannelsConv=0.7)
        expected = {"up": "phases", "coded": "constant channels, winograd", "same.0": "winograd"}
        assert by_layer(plan(network, run(network))) == expected

    def test_a_slow_form_is_not_chosen(self, timer: Timer) -> None:
        timer(PhaseUpConv=2.0, WinogradConv=2.0, ConstantChannelsConv=2.0)
        network = Tiny()
        choices = rewritten(network, run(network))
        assert {choice.form for choice in choices} == {AS_TRAINED}
        assert type(network.up) is UpConv and type(network.coded) is CodedConv

    @pytest.mark.parametrize(("time", "form"), [(0.98, AS_TRAINED), (0.96, "phases"), (1.0, AS_TRAINED)])
    def test_a_form_must_win_by_more_than_noise(self, timer: Timer, time: float, form: str) -> None:
        timer(PhaseUpConv=time, WinogradConv=3.0)
        network = Tiny()
        assert by_layer(plan(network, run(network)))["up"] == form

    def test_the_least_of_the_rounds_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        times = chain([9.0, 9.0, 0.3, 0.5], repeat(9.0))
        monkeypatch.setattr(subject, "_milliseconds", lambda form, inputs: next(times))
        network = nn.Sequential(layer(UpConv, 3, 8, "zeros"))
        (choice,) = plan(network, lambda: network(given()[0]))
        assert choice.milliseconds == {AS_TRAINED: 0.3, "phases": 0.5} and choice.form == AS_TRAINED

    def test_no_time_is_zero(self, timer: Timer) -> None:
        timer(PhaseUpConv=1e-9, WinogradConv=1.0)
        network = Tiny()
        choice = plan(network, run(network))[0]
        assert choice.form == "phases" and 0 < choice.gain < float("inf")
        assert plan(network, run(network))[0].cached

    @pytest.mark.parametrize("fails", ["when built", "when run"])
    def test_a_form_that_fails_is_left_out_with_a_warning(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, timer: Timer, fails: str
    ) -> None:
        class Broken(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                if fails == "when built":
                    raise MemoryError("no room")

            def forward(self, x: Tensor) -> Tensor:
                raise RuntimeError("no room")

        own = forms

        def with_broken(part: nn.Module) -> dict[str, Callable[[], nn.Module]]:
            return own(part) | ({"broken": Broken} if isinstance(part, UpConv) else {})

        monkeypatch.setattr(subject, "forms", with_broken)
        timed = timer(PhaseUpConv=0.5, WinogradConv=2.0)
        network = Tiny()
        with caplog.at_level(logging.WARNING):
            choice = plan(network, run(network))[0]
        assert caplog.messages == ["up does not run in the form 'broken', which is left out: no room"]
        assert choice.form == "phases" and "broken" not in choice.milliseconds
        timed.clear()  # it is tried again the next time, as the cause may be gone
        again = plan(network, run(network))
        assert timed and not again[0].cached and again[1].cached

    def test_a_failing_network_leaves_no_hooks(self) -> None:
        network = Tiny()
        with pytest.raises(RuntimeError):
            plan(network, lambda: network(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4)))
        assert not any(part._forward_pre_hooks for part in network.modules())

    def test_inputs_of_inference_serve_and_the_result_is_for_autograd(self) -> None:
        network = Tiny()
        with torch.inference_mode():
            inputs = tuple(tensor.clone() for tensor in given())
            choices = plan(network, lambda: network(*inputs))
        apply(network, [forced(network, choice, last=False) for choice in choices])
        assert not any(t.is_inference() for t in (*network.parameters(), *network.buffers()))

    @pytest.mark.parametrize("last", [False, True])
    def test_another_process_takes_over_the_forms_with_the_same_bits(self, last: bool) -> None:
        network, other = Tiny(), Tiny()
        choices = [forced(network, choice, last) for choice in plan(network, run(network))]
        apply(network, choices)
        rewritten_as(other, {choice.layer: choice.form for choice in choices})
        assert [type(part) for part in other.modules()] == [type(part) for part in network.modules()]
        assert torch.equal(run(other)(), run(network)())

    @pytest.mark.parametrize("chosen", [{"nowhere": AS_TRAINED}, {"up": "of gold"}, {"": "phases"}, {"last": "phases"}])
    def test_forms_that_a_network_lacks_are_refused(self, chosen: dict[str, str]) -> None:
        network = Tiny()
        with pytest.raises(ConfigError, match=r"^the layer .* has no form '.*'$"):
            rewritten_as(network, chosen)
        assert [type(part) for part in network.modules()] == [type(part) for part in Tiny().modules()]

    def test_random_numbers_go_on_as_if_nothing_was_measured(self) -> None:
        network = Tiny()
        state = torch.get_rng_state()
        rewritten(network, run(network))
        assert torch.equal(torch.get_rng_state(), state)


def forced(network: nn.Module, choice: Choice, last: bool) -> Choice:
    names = list(forms(network.get_submodule(choice.layer)))
    return Choice(**(vars(choice) | {"form": names[-1 if last else 0]}))
