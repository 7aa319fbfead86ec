"""The mock device refuses what a GPU refuses, and notes what a GPU would be waited for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn


@pytest.fixture
def mock(request):
    """The mock's module, with the device entered."""
    if request.config.getoption("--device") != "mock":
        pytest.skip("about the mock")
    module = pytest.importorskip("tests.device.mock", exc_type=ImportError)
    with module.Mock() as mock:
        module.mock = mock
        yield module


def test_a_tensor_knows_where_it_lies(mock):
    x = torch.ones(2, 3, device="mock")
    assert x.device == torch.device("mock", 0)
    assert (x + 1).sum().item() == 12
    assert x.cpu().device.type == "cpu"
    assert torch.zeros(2).device.type == "cpu"
    with pytest.raises(TypeError, match="numpy"):
        x.numpy()


@pytest.mark.parametrize(
    "meet",
    [
        lambda a, b: a + b,
        lambda a, b: b.mul_(a),
        lambda a, b: a @ b,
        lambda a, b: torch.cat([a, b]),
        lambda a, b: torch.stack([a.sum(), b.sum()]),
        lambda a, b: torch._foreach_add([a], [b]),
        lambda a, b: F.conv2d(a[None, None], b[None, None]),
        lambda a, b: a.index_select(0, torch.tensor([1])),
        lambda a, b: b.sum().add_(a.sum()),
        lambda a, b: F.l1_loss(a, b),
        lambda a, b: torch.randn(2, device="mock", generator=torch.Generator()),
        lambda a, b: torch.randn(2, generator=torch.Generator("mock")),
    ],
)
def test_tensors_and_generators_of_two_devices_do_not_meet(mock, meet):
    with pytest.raises(mock.DeviceError):
        meet(torch.ones(3, 3, device="mock"), torch.ones(3, 3))


def test_scalars_of_the_host_are_taken_where_a_gpu_takes_them(mock):
    x, scalar = torch.ones(3, device="mock"), torch.tensor(2.0)
    assert (x * scalar).tolist() == (scalar * x).tolist() == torch.where(x > 0, scalar, x).tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("work", "what"),
    [
        (lambda x: x.sum().item(), "_local_scalar_dense"),
        (lambda x: bool((x > 0).all()), "_local_scalar_dense"),
        (lambda x: x.tolist(), "copy to the host"),
        (lambda x: x.cpu(), "copy to the host"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: x[x > 0], "by a mask"),
        (lambda x: x.masked_select(x > 0), "masked_select"),
        (lambda x: x.unique(), "unique"),
        (lambda x: torch.equal(x, x), "equal"),
        (lambda x: x[[0, 1]], "copy to the device"),
        (lambda x: x[torch.tensor([0, 1])], "lies on the host"),
        (lambda x: torch.ones(3).to("mock"), "blocking copy to the device"),
        (lambda x: torch.tensor([1.0, 2.0], device="mock"), "blocking copy to the device"),
        (lambda x: torch.ones(3).to("mock", non_blocking=True), "not pinned"),
        (lambda x: x.copy_(torch.ones(3)), "blocking copy to the device"),
    ],
)
def test_what_the_host_waits_for_is_noted(mock, work, what):
    x = torch.arange(3.0, device="mock")
    assert mock.mock.waits == []
    work(x)
    assert [what in wait for wait in mock.mock.waits] == [True]


def test_nothing_is_waited_for_in_a_plain_step(mock):
    pinned = torch.rand(2, 3, 8, 8).pin_memory()
    assert pinned.is_pinned()
    net = nn.Conv2d(3, 3, 3).to("mock")
    mock.mock.waits.clear()
    optimizer = torch.optim.Adam(net.parameters(), fused=True)
    net(pinned.to("mock", non_blocking=True)).abs().mean().backward()
    optimizer.step()
    assert mock.mock.waits == []


def test_a_wait_names_the_line_that_asked_for_it(mock):
    from mrda_utils.resize import imresize

    imresize(torch.ones(1, 1, 7, 13, device="mock"), 3)  # a size that no cache has
    assert mock.mock.waits
    assert all(wait.startswith("blocking copy to the device at mrda_utils/resize.py:") for wait in mock.mock.waits)


def test_kernels_are_counted_views_and_memory_are_not(mock):
    x = torch.ones(4, 4, device="mock").requires_grad_()
    before = mock.mock.launches
    y = x.view(2, 8)[:, 1:].t()
    torch.empty(3, device="mock")
    torch.ones(3) + 1
    assert mock.mock.launches == before
    (y * 2).sum()
    assert mock.mock.launches == before + 2


@pytest.mark.parametrize("part", ["grad", "exp_avg"])
def test_fused_adam_takes_one_layout_alone(mock, part):
    weight = nn.Parameter(torch.zeros(8, 8, 3, 3, device="mock"))
    optimizer = torch.optim.Adam([weight], fused=True)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    other = torch.ones(8, 8, 3, 3, device="mock").contiguous(memory_format=torch.channels_last)
    if part == "grad":
        weight.grad = other
    else:
        optimizer.state[weight][part] = other
    with pytest.raises(mock.DeviceError, match="strides"):
        optimizer.step()


def test_autocast_lowers_convolutions_and_keeps_losses(mock):
    x, net = torch.rand(1, 3, 8, 8, device="mock"), nn.Conv2d(3, 3, 3).to("mock")
    with torch.autocast("mock", torch.bfloat16):
        y = net(x)
        assert y.dtype == torch.bfloat16
        assert F.l1_loss(y, torch.zeros_like(y)).dtype == torch.float32
    assert net(x).dtype == torch.float32


def test_the_devices_generator_draws_other_numbers_than_the_cpus_and_repeats_them(mock):
    generator = torch.Generator("mock")
    drawn = [torch.randn(3, device="mock", generator=generator.manual_seed(1)).tolist() for _ in range(2)]
    assert drawn[0] == drawn[1] != torch.randn(3, generator=torch.Generator().manual_seed(1)).tolist()


def test_outside_of_it_nothing_has_changed(mock):
    x = torch.ones(3, device="mock")
    mock.mock.__exit__(None, None, None)
    try:
        with pytest.raises(mock.DeviceError, match="outside"):
            x + 1
        net = nn.Linear(2, 2)
        parameter = net.weight
        assert net.double().weight is parameter
        assert type(torch.Generator()) is torch.Generator
        assert torch.inference_mode.__enter__ is mock.ENTER_INFERENCE_MODE
    finally:
        mock.mock.__enter__()
