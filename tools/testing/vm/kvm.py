# SPDX-License-Identifier: GPL-2.0
"""Finds out whether a guest boots with KVM by booting one; caches the result until a reboot."""

import copy
import os
from pathlib import Path

import initramfs
import qemu

SECONDS = 15


def works(options, folder):
    if options.icount or options.tcg or not qemu.native(options.arch) or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    memory = Path(os.environ["XDG_CACHE_HOME"], "vfio-rust", "kvm")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    known = memory.read_text().split() if memory.exists() else []
    if known[:1] != [boot]:
        known = [boot, "yes" if guest_boots(options, folder) else "no"]
        memory.write_text(" ".join(known) + "\n")
    return known[1] == "yes"


def guest_boots(options, folder):
    """Boots a minimal guest on the selected kernel with KVM; returns whether it ran its command."""
    bare = copy.copy(options)
    bare.device, bare.qemu_arg, bare.append = [], [], []
    bare.iommu = qemu.MACHINES[options.arch].default_iommu
    modules, archive = os.path.join(folder, "none"), os.path.join(folder, "probe")
    os.makedirs(os.path.join(modules, "lib/modules"))
    initramfs.make(archive, modules, {"shares": "", "modules": "", "bind": ""}, ["true"], [])
    outcome = qemu.run(qemu.command_line(bare, archive, [], True), SECONDS, bus=qemu.MACHINES[options.arch].bus)
    return outcome.messages("exit") == ["0"]
