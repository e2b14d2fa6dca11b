"""A virtual camera cannot be made in a test: what is proven is its refusal, and the pictures that go to it."""

import sys
from pathlib import Path

import numpy as np
import pytest

from client.errors import CameraUnavailable, OrderInvalid
from client.virtual_camera import BARS, VirtualCamera, camera_fix, fit, read_size

no_camera = pytest.mark.skipif(
    sys.platform != "linux" or any(Path("/dev").glob("video*")), reason="there may be a virtual camera here"
)


@no_camera
def test_a_missing_kernel_module_is_told_with_the_way_to_install_it():
    with pytest.raises(CameraUnavailable) as caught:
        VirtualCamera(640, 480, None)
    assert "v4l2loopback" in str(caught.value) and "sudo modprobe v4l2loopback exclusive_caps=1" in str(caught.value)
    assert "apt install v4l2loopback-dkms" in str(caught.value) and "dnf install" in str(caught.value)


@no_camera
def test_a_device_that_is_not_there_is_named():
    with pytest.raises(CameraUnavailable, match="/dev/video97"):
        VirtualCamera(640, 480, "/dev/video97")


def test_a_missing_package_is_told_with_the_way_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(CameraUnavailable, match=r"pip install '\.\[client\]'"):
        VirtualCamera(640, 480, None)


def test_other_systems_have_advice_of_their_own():
    assert "OBS" in camera_fix("darwin") and "OBS" in camera_fix("win32")
    assert "modprobe" not in camera_fix("darwin") + camera_fix("win32")


@pytest.mark.parametrize("size", [(640, 360), (360, 640), (128, 128), (1280, 720)])
def test_a_picture_fits_whole_and_in_the_middle(size):
    width, height = size
    picture = np.zeros((256, 256, 3), np.uint8)
    picture[:, :, 0] = 200
    out = fit(picture, width, height)
    edge = min(size)
    red = out[:, :, 0] > 100
    assert out.shape == (height, width, 3) and red.sum() == edge * edge
    rows, columns = np.nonzero(red)
    assert rows.min() == (height - edge) // 2 and columns.min() == (width - edge) // 2
    assert (out[~red] == BARS).all()


@pytest.mark.parametrize("text", ["", "big", "640", "640x", "-640x480", "641x480", "10x10", "9999x480"])
def test_a_size_that_no_camera_has_is_refused_with_its_value(text):
    with pytest.raises(OrderInvalid, match=text or "''"):
        read_size(text)


def test_a_size_is_read():
    assert read_size("1280X720") == (1280, 720)
