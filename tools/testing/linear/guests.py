# SPDX-License-Identifier: GPL-2.0
"""The machines of the rounds."""

import pathlib

REPO = pathlib.Path(__file__).resolve().parents[3]
EDU = "edu,dma_mask=0xffffffffffffffff"


def edus(*places):
    """Returns the options for edu devices that are bound to vfio-pci."""
    words = []
    for place in places:
        bdf = f"0000:00:0{place.split(',')[0]}"
        words += ["--device", f"{EDU},bus=pcie.0,addr={place}", "--bind", bdf]
    return words


def container(kernel):
    """Two devices behind an IOMMU, each a group, and the driver that pins pages."""
    return ["--load", REPO / f"build/tests-{kernel}/vfio_pin_test.ko", *edus("3.0", "4.0")]


def device_files(kernel):
    """A device with a group of its own, two in one group, the driver that pins pages, and a sample driver of
    mediated devices."""
    words = ["--load", REPO / f"build/tests-{kernel}/vfio_pin_test.ko", "--load", "mtty"]
    return [*words, *edus("3.0", "5.0,multifunction=on", "5.1")]
