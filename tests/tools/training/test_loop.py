"""A run by steps: the same whether it was interrupted or not, and nothing is lost on the way."""

import signal
import time

import numpy as np
import pytest
import torch

from tools.training.loop import Run, cosine, draw_ahead, draw_apart, pick_device, rng_of, train


class Line:
    """Fits a line; noise on its inputs and in its step."""

    name = "line"

    def __init__(self, steps: int, slow_s: float = 0.0) -> None:
        torch.manual_seed(7)
        self.steps, self.seed, self.slow_s = steps, 3, slow_s
        self.weight = torch.nn.Linear(2, 1)
        self.optimiser = torch.optim.AdamW(self.weight.parameters(), 0.1)
        self.shown = 0

    def draw(self, rng, step):
        x = rng.standard_normal((8, 2)).astype(np.float32)
        return {"x": torch.from_numpy(x), "y": torch.from_numpy(x.sum(1, keepdims=True))}

    def learn(self, batch, step):
        time.sleep(self.slow_s)
        for group in self.optimiser.param_groups:
            group["lr"] = 0.1 * cosine(step, self.steps)
        loss = (self.weight(batch["x"] + 0.1 * torch.randn(8, 2)) - batch["y"]).pow(2).mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return {"loss": loss}

    def state(self):
        return dict(weight=self.weight.state_dict(), optimiser=self.optimiser.state_dict())

    def restore(self, state):
        self.weight.load_state_dict(state["weight"])
        self.optimiser.load_state_dict(state["optimiser"])

    def show(self, path):
        self.shown += 1


def stop_after(steps: int, stage: Line, run: Run) -> bool:
    """Run until ``steps`` are done, as if time were over then."""
    learn = stage.learn

    def counted(batch, step):
        told = learn(batch, step)
        if step + 1 >= steps:
            object.__setattr__(run, "stop_at", time.monotonic())
        return told

    stage.learn = counted  # type: ignore[method-assign]
    return train(stage, run)


def test_an_interrupted_run_ends_where_the_unbroken_one_does(tmp_path):
    whole = Line(12)
    assert train(whole, Run(out=tmp_path / "whole.pt"))
    assert not stop_after(5, Line(12), Run(out=tmp_path / "parts.pt"))
    assert torch.load(tmp_path / "parts.pt")["step"] == 5
    rest = Line(12)
    assert train(rest, Run(out=tmp_path / "parts.pt", resume=True))
    for one, other in zip(whole.weight.parameters(), rest.weight.parameters(), strict=True):
        assert torch.equal(one, other)


def test_without_resume_a_run_begins_anew(tmp_path):
    run = Run(out=tmp_path / "a.pt")
    assert not stop_after(3, Line(6), run)
    first = Line(6)
    train(first, Run(out=tmp_path / "a.pt"))
    second = Line(6)
    train(second, Run(out=tmp_path / "b.pt"))
    assert torch.equal(first.weight.weight, second.weight.weight)


def test_a_finished_run_is_not_run_again(tmp_path):
    run = Run(out=tmp_path / "a.pt", resume=True)
    train(Line(2), run)
    written = run.out.stat().st_mtime_ns
    again = Line(2)
    assert train(again, run)
    assert again.shown == 0 and run.out.stat().st_mtime_ns == written


def test_what_goes_wrong_while_drawing_stops_the_run():
    def draw(step):
        if step == 2:
            raise OSError("the clip is damaged")
        return {"step": torch.tensor(step)}

    batches = draw_ahead(draw, 0, 5)
    assert [next(batches)["step"].item() for _ in range(2)] == [0, 1]
    with pytest.raises(OSError, match="damaged"):
        next(batches)


def test_processes_draw_the_same_batches_in_the_same_order():
    def draw(step):
        return {"step": torch.tensor(step), "noise": torch.from_numpy(rng_of(1, step).standard_normal(3))}

    before = signal.getsignal(signal.SIGCHLD)
    apart = list(draw_apart(draw, 3, 9, 2, pin=False))
    assert signal.getsignal(signal.SIGCHLD) is before
    assert [batch["step"].item() for batch in apart] == list(range(3, 9))
    for batch, wanted in zip(apart, draw_ahead(draw, 3, 9), strict=True):
        assert batch["noise"].equal(wanted["noise"])


def test_a_device_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        assert pick_device("auto").type == "cuda"
    else:
        assert pick_device("auto").type == "cpu"
        with pytest.raises(ValueError, match="no GPU"):
            pick_device("cuda")


def test_the_rate_rises_then_falls():
    rates = [cosine(step, 100, warm_up=10, least=0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1, rel=0.01) and max(rates) == rates[9] or max(rates) == rates[10]
    assert rates[-1] == pytest.approx(0.1, rel=0.02)
