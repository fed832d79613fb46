# SPDX-License-Identifier: GPL-2.0
#
# VFIO in Rust, as modules outside of the kernel tree. 'make help' lists what there is.

# The kernel to build for, and where the results go.
KDIR ?= /lib/modules/$(shell uname -r)/build
OUT ?= build/native

buildroot := tools/testing/buildroot

.PHONY: all
all: modules

.DELETE_ON_ERROR:

# --- Building ------------------------------------------------------------------------------

# A module's output never goes into the source tree, so that builds for several kernels stand side by side.
kbuild = $(MAKE) --no-print-directory -C $(KDIR) M=$(sources) MO=$(abspath $(OUT)) CLIPPY_CONF_DIR=$(CURDIR) $(kbuild_warnings)

sources = $(CURDIR)

# One build at a time writes to a folder.
locked = flock $(OUT)/.lock

# WERROR=1 makes warnings errors, in Rust and in C.
ifeq ($(WERROR),1)
kbuild_warnings := KRUSTFLAGS=-Dwarnings KCFLAGS=-Werror
endif

# KERNEL=stock|test|debug: the same again, within the build root, for a kernel that is made there.
in_buildroot = set -e; \
	kdir=$$($(buildroot) kdir $(KERNEL)); \
	args=$$($(buildroot) make-args $(KERNEL)); \
	MAKEFLAGS= $(buildroot) exec -- \
		make --no-print-directory -j$$(nproc) $@ KERNEL= KDIR="$$kdir" $$args OUT=$(kernel_out) \
		WERROR=$(or $(WERROR),1) $(if $(V),V=$(V)) $(if $(filter debug,$(KERNEL)),$(coverage))
# tools/testing/fuzz asks which of our code was reached.
coverage = KCOV_INSTRUMENT=y
kernel_out = build/$(KERNEL)

.PHONY: modules clippy rustdoc rust-analyzer test-drivers kernel-samples ioasid-tests mdev-tests
ifneq ($(KERNEL),)
clippy: kernel_out = build/clippy-$(KERNEL)
test-drivers: kernel_out = build/tests-$(KERNEL)
ioasid-tests: kernel_out = build/ioasid-tests-$(KERNEL)
mdev-tests: kernel_out = build/mdev-tests-$(KERNEL)
kernel-samples: kernel_out = build/samples-$(KERNEL)
modules clippy rustdoc rust-analyzer test-drivers kernel-samples ioasid-tests mdev-tests:
	@$(in_buildroot)
else
modules: check-kdir
	@mkdir -p $(OUT)
	+@$(locked) $(kbuild) modules

# Always with warnings as errors: what has passed is not compiled again, so it would warn no more.
clippy: kbuild_warnings = KRUSTFLAGS=-Dwarnings
clippy: check-kdir
	@mkdir -p $(OUT)
	+@$(locked) $(kbuild) CLIPPY=1 modules
	+@$(MAKE) --no-print-directory mdev-tests crates=$(OUT) OUT=$(OUT)/mdev-tests CLIPPY=1 WERROR=1

# Users of ioasid in C. They need its symbols, so the modules of the same kernel come first.
ioasid-tests: sources = $(CURDIR)/tools/testing/modules/ioasid
ioasid-tests: symbols = $(CURDIR)/$(OUT:build/ioasid-tests-%=build/%)/Module.symvers
ioasid-tests: check-kdir
	@mkdir -p $(OUT)
	+@$(locked) $(kbuild) KBUILD_EXTRA_SYMBOLS=$(symbols) modules

# A driver in Rust for the guest tests, likewise on top of the modules of the same kernel.
crates = $(OUT:build/mdev-tests-%=build/%)
mdev-tests: sources = $(CURDIR)/tools/testing/modules/mdev_pin_test
mdev-tests: check-kdir
	@mkdir -p $(OUT)
	+@$(locked) $(kbuild) CRATES=$(abspath $(crates)) KBUILD_EXTRA_SYMBOLS=$(abspath $(crates))/Module.symvers modules

# Drivers in C for the guest tests, against the kernel's own headers.
test-drivers: sources = $(CURDIR)/tools/testing/modules
test-drivers: check-kdir
	@mkdir -p $(OUT)
	+@$(locked) $(kbuild) modules

# The kernel's own sample drivers of mediated devices, which a distribution does not ship.
kernel-samples: sources = $(realpath $(KDIR)/source)/samples/vfio-mdev
kernel-samples: kbuild_warnings =
kernel-samples: check-kdir
	@mkdir -p $(OUT)
	+@$(locked) $(kbuild) $(addprefix CONFIG_SAMPLE_VFIO_MDEV_,MTTY=m MDPY=m MBOCHS=m) modules

rustdoc: modules
	@tools/crates --out $(OUT) rustdoc build/rustdoc
	@echo 'The documentation starts at build/rustdoc/vfio_core/index.html'

rust-analyzer: modules
	@mkdir -p $(OUT)/rust-analyzer
	+@$(MAKE) --no-print-directory -C $(KDIR) M=$(abspath $(OUT))/rust-analyzer rust-analyzer
	@tools/crates --out $(OUT) rust-project $(OUT)/rust-analyzer/rust-project.json >rust-project.json
endif

.PHONY: check-kdir
check-kdir:
	@tools/check-kdir $(KDIR)

.PHONY: stock test-modules debug-modules
stock:
	@$(MAKE) --no-print-directory modules KERNEL=stock
test-modules debug-modules:
	@$(MAKE) --no-print-directory modules KERNEL=$(@:-modules=)

# --- Installing ----------------------------------------------------------------------------

# depmod prefers updates/ to the kernel's own folder, so these modules take the place of those.
INSTALL_MOD_DIR ?= updates
override INSTALL_MOD_PATH := $(abspath $(INSTALL_MOD_PATH))

# Kbuild has noted in OUT for which kernel that is.
built_for = $(or $(shell sed -n 's/^export KBUILD_OUTPUT = //p' $(OUT)/Makefile 2>/dev/null),$(error nothing has been built in $(OUT)))
release = $(shell cat $(KDIR)/include/config/kernel.release)
installed = $(INSTALL_MOD_PATH)/lib/modules/$(release)/$(INSTALL_MOD_DIR)
depmod = PATH=$$PATH:/usr/sbin:/sbin depmod $(if $(INSTALL_MOD_PATH),-b $(INSTALL_MOD_PATH)) $(release)
# Without a key there is nothing to sign with.
no_signing = $(shell grep -qx 'CONFIG_MODULE_SIG_KEY=' $(KDIR)/include/config/auto.conf && echo CONFIG_MODULE_SIG_ALL=)
module_names = $(patsubst %.o,%,$(shell sed -n 's/^obj-m *+*:*= *//p' Kbuild))

.PHONY: modules_install modules_uninstall
modules_install modules_uninstall: KDIR = $(built_for)
ifneq ($(KERNEL),)
modules_install modules_uninstall: OUT = build/$(KERNEL)
endif

modules_install:
	+@$(kbuild) $(no_signing) INSTALL_MOD_DIR=$(INSTALL_MOD_DIR) INSTALL_MOD_PATH=$(INSTALL_MOD_PATH) modules_install
	$(depmod)

modules_uninstall:
	@echo "  REMOVE  $(module_names:%=$(installed)/%.ko)"
	@rm -f $(foreach name,$(module_names),$(installed)/$(name).ko $(installed)/$(name).ko.*)
	$(depmod)

# --- Formatting ----------------------------------------------------------------------------

# The crates of the kernel modules; the programs have another edition, which cargo knows.
kernel_rust_files = $(shell find * \( -path build -o -path tools -o -path samples/user \) -prune -o -name '*.rs' -print) \
	$(shell find tools/testing/modules -name '*.rs')

.PHONY: rustfmt rustfmtcheck
rustfmt:
	@MAKEFLAGS= $(buildroot) exec -- rustfmt $(kernel_rust_files)
	@MAKEFLAGS= $(buildroot) exec -- cargo fmt --all
rustfmtcheck:
	@MAKEFLAGS= $(buildroot) exec -- rustfmt --check --color never $(kernel_rust_files)
	@MAKEFLAGS= $(buildroot) exec -- cargo fmt --all --check -- --color never

# --- Testing -------------------------------------------------------------------------------

.PHONY: test test-all soak selftests bench demo
test:
	@MAKEFLAGS= tools/testing/test $(STEPS)
test-all:
	@MAKEFLAGS= tools/testing/test-all $(STEPS)
soak:
	@MAKEFLAGS= tools/testing/soak/run --hours $(or $(HOURS),1) $(if $(SEED),--seed $(SEED)) $(if $(STACK),--stack $(STACK))
selftests:
	@MAKEFLAGS= tools/testing/selftests/run
bench:
	@MAKEFLAGS= tools/testing/bench/run
	@MAKEFLAGS= tools/testing/bench/ioasid
demo:
	@MAKEFLAGS= tools/testing/demo

# --- Cleaning ------------------------------------------------------------------------------

.PHONY: clean cache-clean
clean:
	rm -rf build rust-project.json
cache-clean:
	@$(buildroot) clean

# --- Help ----------------------------------------------------------------------------------

define help_text
Building:
  all                the modules, for the kernel in KDIR, into OUT (default target)
  stock              the same for Debian's kernel, in the build root, into build/stock
  test-modules       the same for the small kernel with KUnit, into build/test
  debug-modules      the same for the kernel that checks itself, into build/debug
  test-drivers       with KERNEL=: drivers in C which the guest tests use, into build/tests-KERNEL
  kernel-samples     with KERNEL=: the kernel's own samples of mediated devices, into build/samples-KERNEL
  mdev-tests         with KERNEL=: a driver in Rust which the guest tests use, on top of its modules, into build/mdev-tests-KERNEL
  ioasid-tests       with KERNEL=: users of ioasid in C, on top of its modules, into build/ioasid-tests-KERNEL
  modules_install    installs what is in OUT into $(INSTALL_MOD_DIR)/ of its kernel's modules, which depmod prefers
  modules_uninstall  takes them away, which gives the kernel's own back

Checking:
  test               everything there is, or STEPS="..." of it; the last line says how many passed and failed
  test-all           test, then hours of fuzzing, soak, concurrent requests and other IOMMUs, or STEPS="..." of it
  soak               HOURS=n (default 1): all users of VFIO at once, with little memory and processor hotplug; SEED=, STACK=c
  selftests          the kernel's own tests of VFIO, on the C modules and on these, side by side
  bench              what requests cost, in instructions, memory and time, on the C modules and on these
  demo               reads a disk by a userspace NVMe driver through these modules, on Debian's kernel
  clippy             lints; any warning is an error
  rustfmt            formats the Rust files
  rustfmtcheck       says which of them are not formatted

Reading:
  rustdoc            documentation of the crates, into build/rustdoc
  rust-analyzer      rust-project.json, for editors

Cleaning:
  clean              removes what was built
  cache-clean        removes the build root and the kernels

Variables:
  KDIR=FOLDER        the kernel build tree (default: that of the running kernel)
  OUT=FOLDER         where results go (default: build/native)
  KERNEL=stock|test|debug   for that kernel, in the build root
  WERROR=1           warnings are errors
  V=1                shows the commands
  INSTALL_MOD_PATH=FOLDER   installs below FOLDER in place of /
endef

.PHONY: help
help:
	$(info $(help_text))
	@:
