# SPDX-License-Identifier: GPL-2.0
"""The machine of the request sequences: that of the guest tests, and the driver that pins pages."""

import pathlib
import tempfile

REPO = pathlib.Path(__file__).resolve().parents[3]
EDU = "edu,dma_mask=0xffffffffffffffff"
BOUND = ("0000:00:03.0", "0000:00:04.0", "0000:00:05.0")


def disk():
    """Returns a disk image for one machine; closing the file removes it."""
    file = tempfile.NamedTemporaryFile(prefix="differential.")
    file.truncate(4 << 20)
    return file


def options(kernel, disk_path):
    """Returns the options for vm/run."""
    words = ["--append", "hugepages=8", "--load", REPO / f"build/tests-{kernel}/vfio_pin_test.ko"]
    words += ["--device", f"{EDU},bus=pcie.0,addr=3.0"]
    words += ["--qemu-arg=-drive", "--qemu-arg", f"if=none,id=disk,format=raw,file={disk_path}"]
    words += ["--device", "nvme,drive=disk,serial=guest,bus=pcie.0,addr=4.0"]
    words += ["--device", f"{EDU},bus=pcie.0,addr=5.0,multifunction=on"]
    words += ["--device", "virtio-rng-pci,bus=pcie.0,addr=5.1"]
    for bdf in BOUND:
        words += ["--bind", bdf]
    return words
