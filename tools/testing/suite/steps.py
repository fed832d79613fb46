# SPDX-License-Identifier: GPL-2.0
"""The steps of 'make test', and the further steps of 'make test-all'."""

import functools
import itertools

import kunit
import results
from schedule import LIMIT_SECONDS, Step


def make(name, *arguments, after=()):
    """Returns a step that makes a target of the top Makefile, as one test."""
    return Step(name, ["make", "--no-print-directory", *arguments], results.of_exit_status(" ".join(arguments)), after)


def script(name, *command, after=(), limit_seconds=LIMIT_SECONDS):
    """Returns a step that runs a script which prints 'ok NAME' and 'not ok NAME'."""
    return Step(name, list(command), results.checks, after, limit_seconds=limit_seconds)


def one(name, *command, after=()):
    """Returns a step that runs a command, as one test."""
    return Step(name, list(command), results.of_exit_status(" ".join(command)), after)


def modules_of(options):
    """Returns which modules a guest with these options tests: "C", "Rust", or None for a mix."""
    given = dict(itertools.pairwise(options))
    core, type1 = (given.get(option, given.get("--stack")) for option in ("--core", "--type1"))
    return {"c": "C", "rust": "Rust"}[core] if core == type1 else None


def guest(name, *options, kernel="stock", after=()):
    """Returns a step that runs guest tests on a kernel, with the modules that OPTIONS select."""
    # The debug kernel takes ten times as long, as does the emulation of another architecture; and the
    # host may run other guests.
    patience = ["--timeout", "3000"] if kernel == "debug" or is_foreign(kernel) else []
    command = ["tools/testing/guest/run", "--no-build", "--kernel", kernel, *patience, *options]
    modules = (f"build-{kernel}",) if "rust" in options else ()
    if "--driver" in options and "p2p" not in options:
        modules += (f"mdev-tests-{kernel}",)
    if {"exports", "failing", "iommufd", "mdev", "pinning", "stalls"} & {*options}:
        modules += (f"drivers-{kernel}",)
    if "mdev" in options and kernel.startswith("stock"):
        modules += (f"samples-{kernel}",)
    return Step(name, command, results.libtest, after=(programs(kernel), *modules, *after),
                modules=modules_of(options))


def is_foreign(kernel):
    """Returns whether a kernel is for another architecture than the machine's."""
    return "arm64" in kernel or "powerpc" in kernel


def programs(kernel):
    """Returns the name of the step that compiles the programs for guests with a kernel."""
    return f"programs-{kernel}" if is_foreign(kernel) else "programs"


def foreign_programs(kernel, *packages):
    """Returns the step that compiles programs for guests of another architecture."""
    return one(programs(kernel), "tools/testing/buildroot", "exec", "--kernel", kernel, "--",
               *"cargo build --offline --locked --release".split(), *(f"--package={package}" for package in packages))


def arm64_steps(kernel):
    """Returns steps on one of Debian's kernels for arm64, with an SMMU."""
    name = kernel.removeprefix("stock-")
    built = (f"build-{kernel}", programs(kernel))
    return [
        make(f"build-{kernel}", "modules", f"KERNEL={kernel}", "WERROR=1"),
        foreign_programs(kernel, "guest-tests", "nvme_read", "client_trace"),
        one(f"{name}-demo", "tools/testing/demo", "--kernel", kernel, after=built),
        *(guest(f"{name}-{stack}", "--stack", stack, kernel=kernel) for stack in ("c", "rust")),
        script(f"{name}-selftests", "tools/testing/selftests/run", "--no-build", "--kernel", kernel, after=built),
    ]


def arm64_4k_steps(kernel):
    """Returns more steps on Debian's kernel for arm64 with pages of 4 KiB."""
    built = (f"build-{kernel}", programs(kernel))
    return [
        *(guest(f"arm64-nic-{stack}", "--stack", stack, "--set", "nic", kernel=kernel) for stack in ("c", "rust")),
        make(f"mdev-{kernel}", "kernel-mdev", f"KERNEL={kernel}"),
        make(f"samples-{kernel}", "kernel-samples", f"KERNEL={kernel}", after=(f"mdev-{kernel}",)),
        make(f"drivers-{kernel}", "test-drivers", f"KERNEL={kernel}", "WERROR=1", after=(f"mdev-{kernel}",)),
        *(guest(f"arm64-mdev-{stack}", "--stack", stack, "--set", "mdev", kernel=kernel) for stack in ("c", "rust")),
        guest("arm64-p2p", "--stack", "rust", "--set", "p2p", kernel=kernel),
        *(script(f"arm64-coherency-{stack}", "tools/testing/check-coherency", "--stack", stack,
                 after=(f"build-{kernel}",)) for stack in ("c", "rust")),
        script("arm64-clients", "tools/testing/clients/run", "--no-build", "--kernel", kernel, after=built),
        script("arm64-abi", "tools/testing/check-abi", "--kernel", kernel, after=built),
    ]


def powerpc_steps(repo):
    """Returns steps on 32-bit PowerPC, and of the PAMU in QEMU."""
    kernel = "test-powerpc"
    # Groups of devices without an IOMMU are no groups for these cases, and the others want mbochs or 64-bit
    # addresses.
    not_there = """mixed:: device_without_logging page_sizes_without_and_with_iommu stop_copy_length
        mdev_supported_types mbochs_regions bus_attributes mdev_bus_class
        start_alignment report_depends_on_iova_bitmap_support mapping_too_large_for_dirty_tracking""".split()
    without_iommu = ("--iommu", "none", "--append", "vfio.enable_unsafe_noiommu_mode=1")
    return [
        make(f"build-{kernel}", "modules", f"KERNEL={kernel}", "WERROR=1"),
        foreign_programs(kernel, "guest-tests"),
        kunit_step("powerpc-kunit", repo, kernel, "--iommu", "none", without=("ioasid",)),
        *(guest(f"powerpc-noiommu-{stack}", "--stack", stack, "--set", "noiommu", kernel=kernel)
          for stack in ("c", "rust")),
        make(f"drivers-{kernel}", "test-drivers", f"KERNEL={kernel}", "WERROR=1"),
        guest("powerpc-mdev", "--stack", "rust", "--set", "mdev", *without_iommu, "--",
              *(word for case in not_there for word in ("--skip", case)), kernel=kernel),
        guest("pamu-hardware", "--stack", "rust", "--set", "pamu-hardware", kernel=kernel),
        # The PCI controllers have a driver before the module is loaded.
        guest("pamu-stub", "--stack", "rust", "--set", "pamu-hardware", "--load", "pci-stub ids=1957:0030", "--",
              "pamu_driver::", kernel=kernel),
        one("pamu-model", "tools/testing/buildroot", "exec", "--kernel", "test-powerpc", "--",
            *"python3 -B tools/testing/qemu/test_pamu.py".split()),
        script("pamu-fsl", "tools/testing/check-pamu"),
    ]


def pamu_map(name):
    """Returns a step that sets up the RFC's memory map behind a PAMU, in one 1 GiB hugepage."""
    return Step(
        name,
        ["tools/testing/vm/run", "--mem", "4G", "--append", "hugepagesz=1G hugepages=1"]
        + ["--load", "pamu_sim", "--load", "pamu_dma"]
        + ["--copy", "build/cargo/release/pamu_dma", "--", "pamu_dma"],
        results.of_exit_status("the memory map of the RFC behind a PAMU"),
        after=("programs", "build-stock"),
    )


def kunit_step(name, repo, kernel, *options, without=()):
    """Returns a step with the KUnit suites of all modules but WITHOUT, which run when a module is loaded.

    debugfs has the results.
    """
    expected = {key: cases for key, cases in kunit.in_sources(repo).items() if key[0] not in without}
    modules = sorted({module for module, _ in expected})
    return Step(
        name,
        ["tools/testing/vm/run", "--kernel", kernel, "--stack", "rust", "--mdev", "rust", *options]
        + [word for module in modules for word in ("--load", module)]
        + ["--", "sh", "-c", "cat /sys/kernel/debug/kunit/*/results"],
        lambda output, _status: kunit.judge(expected, output),
        after=(f"build-{kernel}",),
        notes=functools.partial(kunit.counts, expected),
    )


def ioasid_step(name, kernel):
    """Returns a step with the KUnit suite of the C users of ioasid, without the other suites."""
    module = f"build/ioasid-tests-{kernel}/ioasid_test.ko"
    return Step(
        name,
        ["tools/testing/vm/run", "--kernel", kernel, "--stack", "none", "--load", "ioasid", "--load", module]
        + ["--append", "kunit.filter_glob=ioasid_c*"]
        + ["--", "cat", "/sys/kernel/debug/kunit/ioasid_c/results"],
        lambda output, _status: [
            results.Result(f"{suite}::{case}", passed) for suite, case, passed in results.ktap_cases(output)
        ],
        after=(f"ioasid-tests-{kernel}",),
    )


def vfioctl_step(stack, *after, kernel="stock"):
    """Returns a step that runs vfioctl in a guest."""
    command = ["tools/testing/vfioctl/run", "--no-build", "--stack", stack]
    if kernel == "stock":
        name = f"vfioctl-{stack}"
    else:
        # What this kernel has, and the stock kernel has not.
        name = f"vfioctl-{kernel}-{stack}"
        command += ["--kernel", kernel, "--", "device_files::"]
    return Step(name, command, results.libtest, after=("programs", *after), modules=modules_of(["--stack", stack]))


def series_steps(series):
    """Returns steps on Debian's kernel of another series than that of all other steps."""
    kernel, name = f"stock-{series}", f"series-{series}"
    built = (f"build-{kernel}", "programs")
    steps = [
        guest(f"{name}-c", "--stack", "c", kernel=kernel),
        guest(f"{name}-rust", "--stack", "rust", kernel=kernel),
        script(f"{name}-selftests", "tools/testing/selftests/run", "--no-build", "--kernel", kernel, after=built),
        one(f"{name}-demo", "tools/testing/demo", "--kernel", kernel, after=built),
    ]
    return [
        make(f"build-{kernel}", "modules", f"KERNEL={kernel}", "WERROR=1"),
        *steps,
        # The last one: by its name, all of them can be run.
        script(name, "tools/testing/check-abi", "--kernel", kernel, after=tuple(step.name for step in steps)),
    ]


# The guest tests on kernels with other configurations than the test kernel's: sets, and filters. For
# the other configurations the modules are only built. As for "no-iommufd" and "no-noiommu", all tests
# on the stock kernel run on such a kernel; the others have no tests yet.
ON_CONFIGS = {
    "no-device-files": (("main",), ("iommufd", "iommufd_group::")),
    "no-group": (("iommufd",),),
}


def config_steps(name):
    """Returns steps for the kernel with the configuration NAME."""
    kernel = f"config-{name}"
    # Its tree is made of the test kernel's.
    steps = [make(f"build-{kernel}", "modules", f"KERNEL={kernel}", "WERROR=1", after=("build-test",))]
    if name in ON_CONFIGS:
        steps += [
            script(f"abi-{kernel}", "tools/testing/check-abi", "--kernel", kernel, after=(f"build-{kernel}",)),
            make(f"drivers-{kernel}", "test-drivers", f"KERNEL={kernel}", "WERROR=1", after=(f"build-{kernel}",)),
        ]
    for tests, *filters in ON_CONFIGS.get(name, ()):
        words = [kernel, tests, *(word.removesuffix("::") for word in filters)]
        steps += (guest("-".join((*words, stack)), "--stack", stack, "--set", tests, "--", *filters, kernel=kernel)
                  for stack in ("c", "rust"))
    return steps


def package_steps():
    """Returns steps that build the packages and install them in a Debian."""
    check = "tools/testing/check-packages"
    return [
        script("packages", check, *"lint rpm files modules page interrupt sign".split(),
               after=("build-stock", "build-stock-7.2", "programs", "docs")),
        script("packages-dkms", check, "--no-build", "dkms", after=("packages",)),
    ]


def installation_steps():
    """Returns steps that boot an installed Debian and install the packages there."""
    run = ("tools/testing/installation/run", "--no-build")
    return [
        *(script(f"installation-{part}", *run, part, after=("packages",)) for part in ("install", "secure-boot")),
        # It boots the machine seven times.
        script("installation-power-cut", *run, "power-cut", after=("packages",), limit_seconds=2 * LIMIT_SECONDS),
        make("samples-stock-7.2", "kernel-samples", "KERNEL=stock-7.2"),
        script("installation-libvirt", *run, "libvirt", after=("packages", "samples-stock-7.2", "build-test")),
    ]


def main_steps(repo):
    """Returns the steps of 'make test', by priority: the first one that is ready runs next."""
    return [
        one("harness", "python3", "-B", "tools/testing/suite/selftest.py"),
        one("vm-report", *"python3 -B -m unittest discover --start-directory tools/testing/vm".split()),
        one("differential-report",
            *"python3 -B -m unittest discover --start-directory tools/testing/differential".split()),
        one("selftests-report", *"python3 -B -m unittest discover --start-directory tools/testing/selftests".split()),
        one("bench-report", *"python3 -B -m unittest discover --start-directory tools/testing/bench".split()),
        script("unsafe", "tools/testing/check-unsafe"),
        script("kdir", "tools/testing/check-kdir"),
        script("headers", "tools/testing/check-headers"),
        script("reference", "tools/testing/check-reference"),
        make("build-stock", "modules", "KERNEL=stock", "WERROR=1"),
        one("programs", "cargo", "build", "--offline", "--locked", "--release", "--workspace"),
        Step("models-ids", "cargo test --offline --locked --package ids-model".split(), results.libtest,
             after=("programs",)),
        make("build-test", "modules", "KERNEL=test", "WERROR=1"),
        Step("models", "cargo test --offline --locked --release -p models -- --show-output".split(), results.libtest,
             after=("programs",)),
        guest("guest-rust", "--stack", "rust"),
        guest("guest-c", "--stack", "c"),
        guest("guest-test-rust", "--stack", "rust", kernel="test"),
        guest("guest-test-c", "--stack", "c", kernel="test"),
        kunit_step("kunit", repo, "test"),
        make("ioasid-tests-test", "ioasid-tests", "KERNEL=test", "WERROR=1", after=("build-test",)),
        ioasid_step("ioasid", "test"),
        make("format", "rustfmtcheck"),
        make("clippy", "clippy", "KERNEL=stock"),
        make("clippy-kunit", "clippy", "KERNEL=test", after=("build-test",)),
        make("rustdoc", "rustdoc", "KERNEL=stock"),
        *(one(linter, "tools/testing/lint", linter) for linter in ("shellcheck", "ruff", "codespell", "checkpatch")),
        make("docs", "docs"),
        one("programs-clippy", *"cargo clippy --offline --locked --workspace --all-targets -- -Dwarnings".split()),
        one("demo", "tools/testing/demo", after=("build-stock", "programs")),
        guest("guest-rust-core-c-type1", "--core", "rust", "--type1", "c"),
        guest("guest-c-core-rust-type1", "--core", "c", "--type1", "rust"),
        script("selftests", "tools/testing/selftests/run", "--no-build", after=("build-stock", "programs")),
        script("clients", "tools/testing/clients/run", "--no-build", after=("build-stock", "programs")),
        script("selftests-iommufd", "tools/testing/selftests/run", "--no-build", "--kernel", "test",
               after=("build-test", "programs")),
        script("clients-iommufd", "tools/testing/clients/run", "--no-build", "--kernel", "test",
               after=("build-test", "programs")),
        script("abi", "tools/testing/check-abi", after=("build-stock",)),
        script("abi-test", "tools/testing/check-abi", "--kernel", "test", after=("build-test",)),
        script("signing", "tools/testing/check-signing", after=("build-test",)),
        script("mdevctl", "tools/testing/check-mdevctl", after=("build-stock", "samples-stock")),
        script("modprobe", "tools/testing/check-modprobe", after=("build-stock",)),
        script("mixed-versions", "tools/testing/check-mixed-versions", after=("build-stock",)),
        script("examples", "tools/testing/check-examples", after=("build-stock", "build-test")),
        script("doc-examples", "tools/testing/check-doc-examples", after=("build-test", "programs")),
        one("recipes-page", *"python3 -B -m unittest discover --start-directory tools/testing/recipes".split()),
        # libvirt's takes the longest; it is a further step.
        script("recipes", "tools/testing/recipes/run", "--no-build", "--skip", "libvirt",
               after=("build-stock", "build-test", "programs")),
        # Without optimisation, so that sums which overflow panic.
        Step("vfio-client", "cargo test --offline --locked --package vfio_client --all-features --lib".split(),
             results.libtest, after=("programs",)),
        one("vfio-client-doc", *"cargo test --offline --locked --package vfio_client --all-features --doc".split(),
            after=("programs",)),
        one("vfio-client-rustdoc", "env", "RUSTDOCFLAGS=-Dwarnings",
            *"cargo doc --offline --locked --no-deps --package vfio_client --all-features".split(),
            after=("programs",)),
        one("vfio-client-package", *"cargo package --offline --locked --allow-dirty --package vfio_client".split(),
            after=("programs",)),
        Step("vfioctl", "cargo test --offline --locked --release --package vfioctl".split(), results.libtest,
             after=("programs",)),
        vfioctl_step("c", "samples-stock"),
        vfioctl_step("rust", "build-stock"),
        vfioctl_step("c", kernel="test"),
        vfioctl_step("rust", "build-test", kernel="test"),
        guest("nointremap-c", "--stack", "c", "--set", "nointremap"),
        guest("nointremap-rust", "--stack", "rust", "--set", "nointremap"),
        guest("amd-rust", "--stack", "rust", "--iommu", "amd"),
        guest("virtio-rust", "--stack", "rust", "--iommu", "virtio"),
        make("drivers-test", "test-drivers", "KERNEL=test", "WERROR=1"),
        guest("mdev-c", "--stack", "c", "--set", "mdev", kernel="test"),
        guest("mdev-rust", "--stack", "rust", "--set", "mdev", kernel="test"),
        make("samples-stock", "kernel-samples", "KERNEL=stock"),
        guest("mdev-stock-c", "--stack", "c", "--set", "mdev"),
        guest("mdev-stock-rust", "--stack", "rust", "--set", "mdev"),
        make("drivers-stock", "test-drivers", "KERNEL=stock", "WERROR=1"),
        script("bench-guard", "tools/testing/bench/guard", "--no-build",
               after=("build-stock", "drivers-stock", "programs")),
        guest("pinning-c", "--stack", "c", "--set", "pinning"),
        guest("pinning-rust", "--stack", "rust", "--set", "pinning"),
        make("mdev-tests-stock", "mdev-tests", "KERNEL=stock", "WERROR=1", after=("build-stock",)),
        guest("pinning-in-rust-c", "--stack", "c", "--set", "pinning", "--driver", "rust"),
        guest("pinning-in-rust-rust", "--stack", "rust", "--set", "pinning", "--driver", "rust"),
        guest("stalls-c", "--stack", "c", "--set", "stalls"),
        guest("stalls-rust", "--stack", "rust", "--set", "stalls"),
        guest("exports-c", "--stack", "c", "--set", "exports"),
        guest("exports-rust", "--stack", "rust", "--set", "exports"),
        script("differential", "tools/testing/differential/run", "--no-build",
               after=("build-stock", "drivers-stock", "programs")),
        one("linear-self", *"cargo test --offline --locked --release --package guest-linear".split(),
            after=("programs",)),
        script("linear-c", "tools/testing/linear/run", "--no-build", "--stack", "c",
               after=("drivers-stock", "programs")),
        script("linear-rust", "tools/testing/linear/run", "--no-build", "--stack", "rust",
               after=("build-stock", "drivers-stock", "programs")),
        *(script(f"linear-iommufd-{stack}", "tools/testing/linear/run", "--no-build", "--kernel", "test",
                 "--device-files", "--requests", "4000", "--stack", stack,
                 after=("build-test", "drivers-test", "programs"))
          for stack in ("c", "rust")),
        one("fuzz-report", *"python3 -B -m unittest discover --start-directory tools/testing/fuzz".split()),
        script("fuzz-c", "tools/testing/fuzz/run", "--no-build", "--replay", "--stack", "c",
               after=("drivers-stock", "programs")),
        script("fuzz-rust", "tools/testing/fuzz/run", "--no-build", "--replay",
               after=("build-stock", "drivers-stock", "programs")),
        *(script(f"fuzz-iommufd-{stack}", "tools/testing/fuzz/run", "--no-build", "--replay", "--device-files",
                 "--kernel", "test", "--stack", stack, after=("build-test", "drivers-test", "programs"))
          for stack in ("c", "rust")),
        guest("nic-c", "--stack", "c", "--set", "nic"),
        guest("nic-rust", "--stack", "rust", "--set", "nic"),
        guest("pamu", "--stack", "rust", "--set", "pamu"),
        pamu_map("pamu-map"),
        guest("pamu-c-core", "--stack", "rust", "--core", "c", "--set", "pamu"),
        guest("p2p", "--stack", "rust", "--set", "p2p"),
        guest("p2p-in-c", "--stack", "rust", "--set", "p2p", "--driver", "c"),
        one("p2p-copy", *"tools/testing/vm/run --stack rust --mdev rust --load ioasid --load vgpu_p2p".split(),
            *"--copy build/cargo/release/vgpu_copy -- vgpu_copy".split(), after=("build-stock", "programs")),
        guest("hotplug-c", "--stack", "c", "--set", "hotplug"),
        guest("hotplug-rust", "--stack", "rust", "--set", "hotplug"),
        guest("noiommu-c", "--stack", "c", "--set", "noiommu", kernel="test"),
        guest("noiommu-rust", "--stack", "rust", "--set", "noiommu", kernel="test"),
        *(guest(f"nointremap-test-{stack}", "--stack", stack, "--set", "nointremap", kernel="test")
          for stack in ("c", "rust")),
        guest("iommufd-c", "--stack", "c", "--set", "iommufd", kernel="test"),
        guest("iommufd-rust", "--stack", "rust", "--set", "iommufd", kernel="test"),
        *(guest(f"p2p-{name}", "--stack", "rust", "--set", "p2p", *driver, "--", "device_files", kernel="test")
          for name, driver in (("iommufd", ()), ("iommufd-in-c", ("--driver", "c")))),
        # Other tests of this set crash the C modules: see Documentation/c-vfio-defects.rst.
        guest("stress-c", "--stack", "c", "--set", "stress", "--", "concurrent::", kernel="test"),
        guest("stress-rust", "--stack", "rust", "--set", "stress", kernel="test"),
        guest("failing-c", "--stack", "c", "--set", "failing", kernel="test"),
        guest("failing-rust", "--stack", "rust", "--set", "failing", kernel="test"),
        script("vm-runner", "tools/testing/vm/selftest", after=("build-test",)),
    ]


def further_steps(repo):
    """Returns the further steps of 'make test-all', mainly on the debug kernel and other IOMMUs."""
    steps = [
        make("build-debug", "modules", "KERNEL=debug", "WERROR=1"),
        script("debug-abi", "tools/testing/check-abi", "--kernel", "debug", after=("build-debug",)),
        kunit_step("debug-kunit", repo, "debug"),
        make("drivers-debug", "test-drivers", "KERNEL=debug", "WERROR=1"),
        make("mdev-tests-debug", "mdev-tests", "KERNEL=debug", "WERROR=1", after=("build-debug",)),
        make("ioasid-tests-debug", "ioasid-tests", "KERNEL=debug", "WERROR=1", after=("build-debug",)),
        ioasid_step("debug-ioasid", "debug"),
        guest("debug-guest", "--stack", "rust", kernel="debug"),
        *(guest(f"debug-{name}", "--stack", "rust", "--set", name, kernel="debug")
          for name in ("mdev", "pinning", "iommufd", "stalls", "failing", "stress", "pamu")),
        guest("debug-pinning-in-rust", "--stack", "rust", "--set", "pinning", "--driver", "rust", kernel="debug"),
        # The tests in many:: create a thousand devices, which would take minutes.
        *(guest(f"debug-{name}", "--stack", "rust", "--set", "p2p", *driver, "--", "--skip", "many::", kernel="debug")
          for name, driver in (("p2p", ()), ("p2p-in-c", ("--driver", "c")))),
        *(step for path in sorted((repo / "tools/testing/kernel/configs").glob("*.config"))
          for step in config_steps(path.stem)),
        script("recipes-libvirt", "tools/testing/recipes/run", "--no-build", "libvirt",
               after=("build-stock", "programs")),
        *series_steps("7.2"),
        *package_steps(),
        *installation_steps(),
        *arm64_steps("stock-arm64"),
        *arm64_4k_steps("stock-arm64"),
        *arm64_steps("stock-arm64-16k"),
        *powerpc_steps(repo),
        guest("stalls-in-rust", "--stack", "rust", "--set", "stalls", "--driver", "rust"),
        make("mdev-tests-test", "mdev-tests", "KERNEL=test", "WERROR=1", after=("build-test",)),
        *(guest(f"iommufd-in-rust-{stack}", "--stack", stack, "--set", "iommufd", "--driver", "rust", kernel="test")
          for stack in ("c", "rust")),
        *(script(f"linear-{kernel}", "tools/testing/linear/run", "--no-build", "--kernel", kernel,
                 after=(f"build-{kernel}", f"drivers-{kernel}", "programs"))
          for kernel in ("test", "debug")),
        script("linear-iommufd-debug", "tools/testing/linear/run", "--no-build", "--kernel", "debug",
               "--device-files", "--requests", "4000", after=("build-debug", "drivers-debug", "programs")),
    ]
    for iommu in ("amd", "virtio"):
        steps += [
            # This needs the -rust step: the comparison of their tests is only made if both have
            # run.
            guest(f"{iommu}-c", "--stack", "c", "--iommu", iommu, after=(f"{iommu}-rust",)),
            guest(f"pinning-{iommu}", "--stack", "rust", "--set", "pinning", "--iommu", iommu),
            guest(f"stalls-{iommu}", "--stack", "rust", "--set", "stalls", "--iommu", iommu),
            script(f"clients-{iommu}", "tools/testing/clients/run", "--no-build", "--only", "dpdk", "--iommu", iommu,
                   after=("build-stock", "programs")),
            script(f"differential-{iommu}", "tools/testing/differential/run", "--no-build", "--", "--iommu", iommu,
                   after=("build-stock", "drivers-stock", "programs")),
            script(f"linear-{iommu}", "tools/testing/linear/run", "--no-build", "--iommu", iommu,
                   after=("build-stock", "drivers-stock", "programs")),
        ]
    return steps
