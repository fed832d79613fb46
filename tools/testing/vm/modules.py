# SPDX-License-Identifier: GPL-2.0
"""Selects the modules of the guest: the kernel's own, and ours below updates/."""

import lzma
import os
import subprocess
from pathlib import Path

from report import Unusable

REPO = Path(__file__).resolve().parents[3]
# The modules that replace modules of the kernel, and the option that selects between the two.
REPLACED = {"vfio": "core", "vfio_iommu_type1": "type1", "mdev": "mdev"}
# Modules that the Rust stack depends on.
NEEDED = ("vfio_rust", "iommu_group")
VFIO = ("vfio", "vfio_iommu_type1", "vfio_pci")
SHARE = ("9p", "9pnet_virtio")
# That of the guest's architecture.
STRIP = os.environ.get("CROSS_COMPILE", "") + "strip"
# The end of a signed module, which cannot be changed.
SIGNED = b"~Module signature appended~\n"


def canonical(path):
    """Returns the kernel's name of a module."""
    return os.path.basename(path).split(".ko")[0].replace("-", "_")


class Kernel:
    """The kernel's own modules, as listed in its modules.dep."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.version = self.folder.name
        self.path, self.needs = {}, {}
        for line in (self.folder / "modules.dep").read_text().splitlines():
            path, _, needs = line.partition(":")
            self.path[canonical(path)] = path
            self.needs[canonical(path)] = [canonical(need) for need in needs.split()]

    def content(self, name):
        """Returns the content of a module, decompressed."""
        path = self.folder / self.path[name]
        return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()


class Ours:
    """The modules of this project that were built for this kernel, and those given by path."""

    def __init__(self, kernel_name, version):
        self.version = version
        self.folder = REPO / "build" / kernel_name
        self.path = {canonical(path): path for path in sorted(self.folder.rglob("*.ko"))}
        self.given = set()

    def add(self, path):
        self.path[canonical(path)] = path
        self.given.add(canonical(path))

    def check(self, name):
        """Raises Unusable if the module was built for another kernel version."""
        built_for = modinfo(self.path[name], "vermagic").split()[:1]
        if built_for != [self.version]:
            raise Unusable(f"{self.path[name]} is for {' '.join(built_for)}, the guest runs {self.version}: "
                           f"run make for that kernel")

    def needs(self, name):
        return [canonical(need) for need in modinfo(self.path[name], "depends").split(",") if need]


def modinfo(path, field):
    done = subprocess.run(["modinfo", "-F", field, path], capture_output=True, text=True)
    if done.returncode:
        raise Unusable(f"{path} is no kernel module")
    return done.stdout.strip()


def stage(options, folder, resolve):
    """Fills FOLDER with the guest's module tree; returns the modprobe command lines, in order.

    RESOLVE maps a path that the user gave to one within the build root.
    """
    kernel = Kernel(options.modules)
    ours = Ours(options.kernel, kernel.version)
    loads = []
    for module, *parameters in options.load:
        if module.endswith(".ko"):
            ours.add(resolve(module))
        loads.append([canonical(module), *parameters])

    # A kernel without containers has no type 1. The Rust module is for containers only, too. On PowerPC
    # type 1 of the kernel can't be selected, so it is the only one.
    only = options.arch == "powerpc" and options.type1 == "rust"
    vfio = [name for name in VFIO if name in kernel.path or name != "vfio_iommu_type1" or only]
    wanted = [*vfio, *(load[0] for load in loads)]
    if options.iommu == "virtio":
        wanted.append("virtio_iommu")
    if options.share:
        wanted += SHARE
    if options.mdev:
        wanted.append("mdev")
    own = choose(options, ours, kernel, wanted)
    place(own, closure(wanted, own, ours, kernel), ours, kernel, folder)

    first = [] if options.stack == "none" else vfio
    first += ["mdev"] if options.mdev else []
    return [[name] for name in first] + loads


def is_kernels(name, options):
    """Returns whether the options select the kernel's module of this name."""
    return name in REPLACED and (getattr(options, REPLACED[name]) or options.stack) == "c"


def choose(options, ours, kernel, wanted):
    """Returns the names of the modules that the guest gets from this project."""
    own = {name for name in ours.path if name in ours.given or not is_kernels(name, options)}
    demanded = [name for name, option in REPLACED.items() if getattr(options, option) == "rust"]
    if options.stack == "none":
        demanded = []
    elif demanded:
        demanded += NEEDED
    missing = [name for name in demanded if name not in own]
    if missing:
        raise Unusable(f"{ours.folder.relative_to(REPO)} has no {', '.join(f'{m}.ko' for m in missing)}: "
                       f"run `make KERNEL={options.kernel}`, or take the kernel's own by --stack c")
    for name in wanted:
        if name not in own and name not in kernel.path and not builtin(options, name):
            raise Unusable(f"there is no module {name}: neither the kernel {kernel.version} nor "
                           f"{ours.folder.relative_to(REPO)} has it")
    if not demanded and options.stack == "c":
        # The modules in build/ may be outdated: use only those that are requested, and their
        # dependencies.
        own &= reach(set(wanted) & own, ours, own)
    for name in own:
        ours.check(name)
    return own


def builtin(options, name):
    """Returns whether the kernel may do without a module NAME: not if it is given by --load."""
    without = ["virtio_iommu", *SHARE]
    if options.arch == "powerpc" and options.stack == "none":
        without += VFIO
    return name in without and name not in (load[0] for load in options.load)


def reach(names, ours, own):
    """Returns the names and their dependencies among our modules."""
    reached, todo = set(), list(names)
    while todo:
        name = todo.pop()
        if name in own and name not in reached:
            reached.add(name)
            todo += ours.needs(name)
    return reached


def closure(wanted, own, ours, kernel):
    """Returns the names of the kernel's modules for the guest, with all dependencies."""
    found, todo = set(), [*wanted, *(need for name in own for need in ours.needs(name))]
    while todo:
        name = todo.pop()
        if name in kernel.path and name not in found:
            found.add(name)
            todo += kernel.needs[name]
    return found


def without_debug_info(module, copy):
    """Copies a module, without the debug information: it is ten times as large as the rest."""
    if module.read_bytes().endswith(SIGNED):
        copy.write_bytes(module.read_bytes())
    else:
        subprocess.run([STRIP, "--strip-debug", "-o", copy, module], check=True)


def place(own, theirs, ours, kernel, folder):
    """Writes the modules to lib/modules/VERSION below FOLDER, and runs depmod."""
    tree = Path(folder) / "lib" / "modules" / kernel.version
    (tree / "updates").mkdir(parents=True)
    for name in own:
        without_debug_info(Path(ours.path[name]), tree / "updates" / f"{name}.ko")
    for name in theirs:
        path = tree / kernel.path[name].removesuffix(".xz")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(kernel.content(name))
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        source = kernel.folder / name
        (tree / name).write_bytes(source.read_bytes() if source.exists() else b"")
    subprocess.run(["depmod", "-b", folder, kernel.version], check=True)
