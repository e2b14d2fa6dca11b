"""What the GPU backends share, as far as a CPU can tell."""

import pytest
import torch

from engine.compile.gpu import Downloads, Uploads, program_on
from engine.s3dnerf.checkpoint import load_checkpoint
from engine.s3dnerf.stage_examples import stages_of
from tests.engine.compile.stages import two

CPU, META = torch.device("cpu"), torch.device("meta")


def test_arguments_lie_where_they_lay_before():
    uploads = Uploads("two", [(1, 4), (3, 2)], 2, CPU)
    first, second = torch.randn(2, 4), torch.randn(6, 2)
    placed = uploads.put([first, second])
    addresses = [x.data_ptr() for x in uploads.device]
    assert [x.data_ptr() for x in placed] == addresses
    assert placed[0].equal(first) and placed[1].equal(second)
    assert [x.data_ptr() for x in uploads.put([first[:1], second[:3]])] == addresses


@pytest.mark.parametrize(
    "shapes",
    [
        [(3, 4), (9, 2)],  # too many rows
        [(0, 4), (0, 2)],
        [(2, 4), (3, 2)],  # not the same number
        [(1, 5), (3, 2)],
        [(1, 4)],
        [],
    ],
)
def test_arguments_of_other_shapes_are_refused(shapes):
    uploads = Uploads("two", [(1, 4), (3, 2)], 2, CPU)
    with pytest.raises(ValueError, match=r"the two stage takes 1 to 2 times \[\(1, 4\), \(3, 2\)\]"):
        uploads.put([torch.zeros(shape) for shape in shapes])


def test_results_stay_until_the_next():
    downloads, result = Downloads([(8, 3)], CPU), torch.randn(2, 3)
    (taken,) = downloads.take([result])
    wanted = result.clone()
    result.zero_()
    assert taken.equal(wanted)


def test_a_program_moves_and_the_stage_stays():
    stage, example = two()
    program = program_on(META, stage, example)
    assert {x.device for x in program.state_dict.values()} == {META}
    assert {x.device for x in stage.parameters()} == {CPU}


def test_a_program_takes_as_many_rows_as_were_asked_for():
    stage, (example,) = stages_of(load_checkpoint().model, gpu=True)["hear"]
    program = program_on(CPU, stage, (example,), 8).module(check_guards=False)
    for rows in (1, 3, 8):
        windows = torch.randn(rows, *example.shape[1:])
        with torch.no_grad():
            for given, wanted in zip(program(windows), stage(windows), strict=True):
                torch.testing.assert_close(given, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["hear", "deform", "render", "render_thrifty", "paint"])
def test_a_moved_stage_leaves_nothing_behind_on_the_cpu(name):
    """The meta device, like a GPU, refuses to compute with tensors of the CPU."""
    stage, example = stages_of(load_checkpoint().model, gpu=True)[name]
    program = program_on(META, stage, example).module(check_guards=False)
    given = program(*(x.to(META) for x in example))
    assert {x.device for x in (given if isinstance(given, tuple) else (given,))} == {META}
