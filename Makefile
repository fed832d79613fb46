# SPDX-License-Identifier: GPL-2.0
#
# VFIO in Rust, as out-of-tree kernel modules. 'make help' lists all targets.

# The build tree of the kernel to build for, and the output folder.
KDIR ?= /lib/modules/$(shell uname -r)/build
OUT ?= build/native

buildroot := tools/testing/buildroot

.PHONY: all
all: modules

.DELETE_ON_ERROR:

# --- Building ------------------------------------------------------------------------------

# Build output never goes into the source tree, so that builds for several kernels can coexist.
kbuild = $(MAKE) --no-print-directory -C $(KDIR) M=$(sources) MO=$(abspath $(OUT)) CLIPPY_CONF_DIR=$(CURDIR) $(kbuild_warnings)

sources = $(CURDIR)

# Only one build at a time writes to an output folder.
locked = flock $(OUT)/.lock

# WERROR=1 turns Rust and C warnings into errors.
ifeq ($(WERROR),1)
kbuild_warnings := KRUSTFLAGS=-Dwarnings KCFLAGS=-Werror
endif

# KERNEL=stock|stock-7.2|stock-arm64|stock-arm64-16k|test|test-powerpc|debug|config-NAME runs the same
# target within the build root, for a kernel or build tree of the build root.
in_buildroot = set -e; \
	kdir=$$($(buildroot) kdir $(KERNEL)); \
	args=$$($(buildroot) make-args $(KERNEL)); \
	MAKEFLAGS= $(buildroot) exec --kernel $(KERNEL) -- \
		make --no-print-directory -j$$(nproc) $@ KERNEL= KDIR="$$kdir" $$args OUT=$(kernel_out) \
		WERROR=$(or $(WERROR),1) $(if $(V),V=$(V)) $(if $(filter debug,$(KERNEL)),$(coverage))
# tools/testing/fuzz measures the code coverage of the modules.
coverage = KCOV_INSTRUMENT=y
kernel_out = build/$(KERNEL)

.PHONY: modules clippy rustdoc rust-analyzer test-drivers kernel-mdev kernel-samples ioasid-tests mdev-tests
ifneq ($(KERNEL),)
clippy: kernel_out = build/clippy-$(KERNEL)
test-drivers: kernel_out = build/tests-$(KERNEL)
ioasid-tests: kernel_out = build/ioasid-tests-$(KERNEL)
mdev-tests: kernel_out = build/mdev-tests-$(KERNEL)
kernel-mdev: kernel_out = build/mdev-$(KERNEL)
kernel-samples: kernel_out = build/samples-$(KERNEL)
modules clippy rustdoc rust-analyzer test-drivers kernel-mdev kernel-samples ioasid-tests mdev-tests:
	@$(in_buildroot)
else
modules: check-kdir
	@mkdir -p $(OUT)
	+@$(locked) $(kbuild) modules

# Warnings are always errors: a crate that compiled with warnings would not be compiled again, and
# the next run would not show them.
clippy: kbuild_warnings = KRUSTFLAGS=-Dwarnings
clippy: check-kdir
	@mkdir -p $(OUT)
	+@$(locked) $(kbuild) CLIPPY=1 modules
	+@$(MAKE) --no-print-directory mdev-tests crates=$(OUT) OUT=$(OUT)/mdev-tests CLIPPY=1 WERROR=1

# Test modules in C that use ioasid. They need its symbols, so build the modules of the same kernel
# first.
ioasid-tests: sources = $(CURDIR)/tools/testing/modules/ioasid
ioasid-tests: symbols = $(CURDIR)/$(OUT:build/ioasid-tests-%=build/%)/Module.symvers
ioasid-tests: check-kdir
	@mkdir -p $(OUT)
	+@$(locked) $(kbuild) KBUILD_EXTRA_SYMBOLS=$(symbols) modules

# A driver in Rust for the guest tests. It needs the modules of the same kernel, too.
crates = $(OUT:build/mdev-tests-%=build/%)
mdev-tests: sources = $(CURDIR)/tools/testing/modules/mdev_pin_test
mdev-tests: check-kdir
	@mkdir -p $(OUT)
	+@$(locked) $(kbuild) CRATES=$(abspath $(crates)) KBUILD_EXTRA_SYMBOLS=$(abspath $(crates))/Module.symvers modules

# Drivers in C for the guest tests, built against the kernel's own headers.
test-drivers: sources = $(CURDIR)/tools/testing/modules
test-drivers: check-kdir
	@mkdir -p $(OUT)
	+@$(locked) $(kbuild) $(call mdev_symbols,tests) modules

# The kernel's module for mediated devices, where the distribution ships none.
kernel-mdev: sources = $(realpath $(KDIR)/source)/drivers/vfio/mdev
kernel-mdev: kbuild_warnings =
kernel-mdev: check-kdir
	@mkdir -p $(OUT)
	+@$(locked) $(kbuild) CONFIG_VFIO_MDEV=m modules

# $(call mdev_symbols,DRIVERS): for drivers in build/DRIVERS-KERNEL, its symbols if the kernel has none.
mdev_symbols = $(shell grep -qw mdev_register_parent $(KDIR)/Module.symvers || \
	echo KBUILD_EXTRA_SYMBOLS=$(abspath $(OUT:build/$(1)-%=build/mdev-%)/Module.symvers))

# The kernel's sample drivers of mediated devices, which distributions do not ship.
kernel-samples: sources = $(realpath $(KDIR)/source)/samples/vfio-mdev
kernel-samples: kbuild_warnings =
kernel-samples: check-kdir
	@mkdir -p $(OUT)
	+@$(locked) $(kbuild) $(call mdev_symbols,samples) \
		$(addprefix CONFIG_SAMPLE_VFIO_MDEV_,MTTY=m MDPY=m MBOCHS=m) modules

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
# SERIES=7.2 is for Debian's kernel of that series, ARCH=arm64 for that for arm64, PAGES=16k for that
# with such pages.
stock: suffixes = $(filter-out 7.3,$(SERIES)) $(filter-out amd64 x86 x86_64,$(ARCH:aarch64=arm64)) $(filter-out 4k,$(PAGES))
stock:
	@$(MAKE) --no-print-directory modules KERNEL=$(subst $() ,-,$(strip stock $(suffixes)))
# ARCH=powerpc is for the one for 32-bit PowerPC.
test-modules debug-modules:
	@$(MAKE) --no-print-directory modules KERNEL=$(@:-modules=)$(addprefix -,$(filter-out amd64 x86 x86_64,$(ARCH)))

.PHONY: vfioctl
vfioctl:
	@MAKEFLAGS= $(buildroot) exec --net -- cargo build --release --locked --package vfioctl
	@mkdir -p build/vfioctl
	@MAKEFLAGS= $(buildroot) exec -- build/cargo/release/vfioctl generate build/vfioctl
	@cp build/cargo/release/vfioctl build/vfioctl/vfioctl
	@echo 'The program, its man pages and the completions are in build/vfioctl'

# --- Installing ----------------------------------------------------------------------------

# depmod prefers updates/ to the kernel's own folder, so these modules replace the kernel's.
INSTALL_MOD_DIR ?= updates
override INSTALL_MOD_PATH := $(abspath $(INSTALL_MOD_PATH))

# Kbuild records in OUT the kernel that the modules were built for.
built_for = $(or $(shell sed -n 's/^export KBUILD_OUTPUT = //p' $(OUT)/Makefile 2>/dev/null),$(error nothing has been built in $(OUT)))
release = $(shell cat $(KDIR)/include/config/kernel.release)
installed = $(INSTALL_MOD_PATH)/lib/modules/$(release)/$(INSTALL_MOD_DIR)
depmod = PATH=$$PATH:/usr/sbin:/sbin depmod $(if $(INSTALL_MOD_PATH),-b $(INSTALL_MOD_PATH)) $(release)

# SIGN_KEY= and SIGN_CERT= sign the modules before they are compressed. Kbuild has no variable for the
# certificate, and goes on if it could not sign. Without them Kbuild signs if the kernel tree has a key.
SIGN_HASH ?= $(shell sed -n 's/^CONFIG_MODULE_SIG_HASH=//p' $(KDIR)/include/config/auto.conf)
SIGN_FILE ?= $(KDIR)/scripts/sign-file
sign_key = $(if $(filter pkcs11:%,$(SIGN_KEY)),$(SIGN_KEY),$(abspath $(SIGN_KEY)))
ifneq ($(SIGN_KEY)$(SIGN_CERT),)
signing = 'cmd_sign=$(SIGN_FILE) $(SIGN_HASH) "$(sign_key)" "$(abspath $(SIGN_CERT))" $$@'
else
signing = $(shell grep -qx 'CONFIG_MODULE_SIG_KEY=' $(KDIR)/include/config/auto.conf && echo CONFIG_MODULE_SIG_ALL=)
endif
check_signed = for file in $(call installed_files,$(module_names)); do \
	[ ! -e $$file ] || [ -n "$$(PATH=$$PATH:/usr/sbin:/sbin modinfo -F sig_id $$file)" ] || \
		{ echo "$$file was not signed" >&2; exit 1; }; \
done

# The lines of Kbuild that name modules, not those that leave some out.
module_names = $(patsubst %.o,%,$(shell sed -n '/filter-out/!s/^obj-m *+*:*= *//p' Kbuild))
sample_names = $(patsubst %.o,%,$(shell sed -n 's/^obj-m *+= *//p' Kbuild))
installed_files = $(foreach name,$(1),$(installed)/$(name).ko $(installed)/$(name).ko.*)

.PHONY: modules_install modules_uninstall
modules_install modules_uninstall: KDIR = $(built_for)
ifneq ($(KERNEL),)
modules_install modules_uninstall: OUT = build/$(KERNEL)
endif

modules_install: check-signing
	+@$(kbuild) $(signing) INSTALL_MOD_DIR=$(INSTALL_MOD_DIR) INSTALL_MOD_PATH=$(INSTALL_MOD_PATH) modules_install
	@rm -f $(call installed_files,$(sample_names))
	@$(if $(SIGN_KEY),$(check_signed))
	$(depmod)

.PHONY: check-signing
check-signing:
ifneq ($(SIGN_KEY)$(SIGN_CERT),)
	@[ -n "$(SIGN_KEY)" ] && [ -e "$(SIGN_CERT)" ] || \
		{ echo "signing needs SIGN_KEY=, a private key, and SIGN_CERT=, the file with its certificate" >&2; exit 1; }
	@[ -x "$(SIGN_FILE)" ] || \
		{ echo "there is no $(SIGN_FILE), which the tree of a kernel with CONFIG_MODULE_SIG has; give SIGN_FILE=" >&2; exit 1; }
endif

modules_uninstall:
	@echo "  REMOVE  $(module_names:%=$(installed)/%.ko)"
	@rm -f $(call installed_files,$(module_names))
	$(depmod)

# What is not a module, below $(DESTDIR)$(PREFIX): the program, what programs and drivers in C include,
# the documentation, and the sources for DKMS. 'make vfioctl' and 'make docs' have built the first
# and the third.
PREFIX ?= /usr/local
to = $(DESTDIR)$(PREFIX)
version := $(shell sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' dkms.conf)
VFIOCTL ?= build/vfioctl
DOCS ?= build/docs
SBIN_DIR ?= $(PREFIX)/sbin
ZSH_DIR ?= $(PREFIX)/share/zsh/vendor-completions
PKGCONFIG_DIR ?= $(PREFIX)/share/pkgconfig
HTML_DIR ?= $(PREFIX)/share/doc/vfio-rust/html
DKMS_DIR ?= /usr/src/vfio-rust-$(version)

.PHONY: install_tools install_dev install_doc install_dkms
install_tools:
	install -D -m 755 $(VFIOCTL)/vfioctl $(DESTDIR)$(SBIN_DIR)/vfioctl
	install -d $(to)/share/man/man8
	install -m 644 $(VFIOCTL)/vfioctl*.8 $(to)/share/man/man8
	install -D -m 644 $(VFIOCTL)/vfioctl.bash $(to)/share/bash-completion/completions/vfioctl
	install -D -m 644 $(VFIOCTL)/_vfioctl $(DESTDIR)$(ZSH_DIR)/_vfioctl
	install -D -m 644 $(VFIOCTL)/vfioctl.fish $(to)/share/fish/vendor_completions.d/vfioctl.fish

install_dev:
	install -d $(to)/include/vfio-rust/kernel/linux $(DESTDIR)$(PKGCONFIG_DIR)
	install -m 644 include/uapi/*.h $(to)/include/vfio-rust
	install -m 644 include/linux/*.h $(to)/include/vfio-rust/kernel/linux
	sed 's|@PREFIX@|$(PREFIX)|;s|@VERSION@|$(version)|' packaging/vfio-rust.pc.in >$(DESTDIR)$(PKGCONFIG_DIR)/vfio-rust.pc

install_doc:
	install -D -m 644 $(DOCS)/man/vfio-rust.7 $(to)/share/man/man7/vfio-rust.7
	install -d $(DESTDIR)$(HTML_DIR)
	cd $(DOCS)/html && find . -name .buildinfo -o -name .doctrees -prune -o -type f \
		-exec install -D -m 644 '{}' '$(abspath $(DESTDIR)$(HTML_DIR))/{}' ';'

# All that make needs for a KDIR. The samples are in Kbuild, but only modules of dkms.conf are installed.
dkms_files = Kbuild Makefile dkms.conf COPYING include ioasid iommu_group pamu_sim rust vfio_core vfio_iommu_pamu \
	vfio_iommu_type1 vfio_mdev samples/mdev_null samples/pamu_dma samples/vgpu_c samples/vgpu_p2p \
	tools/check-kdir tools/dkms tools/rust-symvers
install_dkms:
	find $(dkms_files) -type f -perm /100 -exec install -D -m 755 '{}' '$(abspath $(DESTDIR)$(DKMS_DIR))/{}' ';'
	find $(dkms_files) -type f ! -perm /100 -exec install -D -m 644 '{}' '$(abspath $(DESTDIR)$(DKMS_DIR))/{}' ';'

# --- Packages ------------------------------------------------------------------------------

.PHONY: deb
deb:
	@packaging/build-deb

# --- Formatting ----------------------------------------------------------------------------

# The crates of the kernel modules. The programs use another edition; cargo formats them.
kernel_rust_files = $(shell find * \( -path build -o -path tools -o -path samples/user \) -prune -o -name '*.rs' -print) \
	$(shell find tools/testing/modules -name '*.rs')

.PHONY: rustfmt rustfmtcheck
rustfmt:
	@MAKEFLAGS= $(buildroot) exec -- rustfmt $(kernel_rust_files)
	@MAKEFLAGS= $(buildroot) exec -- cargo fmt --all
rustfmtcheck:
	@MAKEFLAGS= $(buildroot) exec -- rustfmt --check --color never $(kernel_rust_files)
	@MAKEFLAGS= $(buildroot) exec -- cargo fmt --all --check -- --color never

# --- Linting and documentation -------------------------------------------------------------

.PHONY: lint docs
lint:
	@MAKEFLAGS= tools/testing/lint
docs:
	@mkdir -p build/docs
	@for builder in html man; do \
		MAKEFLAGS= $(buildroot) check python3 -m sphinx --quiet --fail-on-warning --keep-going \
			--doctree-dir build/docs/doctrees --builder $$builder \
			Documentation build/docs/$$builder || exit; \
	done
	@echo 'The documentation starts at build/docs/html/index.html; the man page is build/docs/man/vfio-rust.7'

# --- Testing -------------------------------------------------------------------------------

.PHONY: test test-all soak selftests bench bench-guard demo
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
bench-guard:
	@MAKEFLAGS= tools/testing/bench/guard
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
  all                build the modules for the kernel in KDIR into OUT (default target)
  stock              build them for Debian's kernel in the build root, into build/stock; with
                     SERIES=7.2 for Debian's kernel 7.2, into build/stock-7.2; with ARCH=arm64 for
                     Debian's kernel for arm64, into build/stock-arm64, and with PAGES=16k, too, for
                     the one with pages of 16 KiB, into build/stock-arm64-16k
  test-modules       build them for the small kernel with KUnit, into build/test; with ARCH=powerpc for
                     that for 32-bit PowerPC, into build/test-powerpc
  debug-modules      build them for the debug kernel, into build/debug
  test-drivers       with KERNEL=: build the C drivers of the guest tests, into build/tests-KERNEL
  kernel-mdev        with KERNEL=: build the kernel's module for mediated devices, which Debian's
                     kernel for arm64 lacks, into build/mdev-KERNEL; the drivers for it need it
  kernel-samples     with KERNEL=: build the kernel's sample drivers of mediated devices, into
                     build/samples-KERNEL
  mdev-tests         with KERNEL=: build the Rust driver of the guest tests, into
                     build/mdev-tests-KERNEL; needs the modules of that kernel
  ioasid-tests       with KERNEL=: build the C users of ioasid, into build/ioasid-tests-KERNEL;
                     needs the modules of that kernel
  vfioctl            build the program vfioctl, its man pages and the completions for shells, into
                     build/vfioctl
  modules_install    install the modules in OUT for their kernel, below $(INSTALL_MOD_DIR)/, which
                     depmod prefers
  modules_uninstall  remove the installed modules, so that the kernel's own are used again
  install_tools      install vfioctl, its man pages and completions below $(PREFIX); build it first
  install_dev        install the headers and vfio-rust.pc
  install_doc        install the documentation; build it first, with 'make docs'
  install_dkms       install the sources for DKMS below /usr/src

Packages:
  deb                build Debian packages, into build/deb

Testing:
  test               run the tests, or only STEPS="..."; the last line has the numbers of passed and
                     failed tests
  test-all           run test, and the tests that take hours (debug kernel, Linux 7.2, other IOMMUs, fuzzing,
                     soak, concurrent requests), or only STEPS="..."
  soak               run all users of VFIO concurrently, with little memory and CPU hotplug;
                     HOURS=n (default: 1), SEED=n, STACK=c
  selftests          compare the kernel's VFIO selftests on the C and the Rust modules
  bench              compare the cost of requests on the C and the Rust modules: instructions,
                     memory and time; then compare the four ways to do DMA, type 1 and IOMMUFD.
                     Takes an hour without KVM
  bench-guard        fail if a request takes over 3 % more or fewer instructions than recorded
  demo               read a disk with a userspace NVMe driver through these modules, on Debian's
                     kernel

Checking:
  clippy             run clippy; warnings are errors
  rustfmt            format the Rust files
  rustfmtcheck       list the Rust files that are not formatted
  lint               run shellcheck, ruff, codespell and the kernel's checkpatch.pl

Documentation and editors:
  docs               write the documentation as HTML and a man page to build/docs; warnings are
                     errors
  rustdoc            write the documentation of the crates to build/rustdoc
  rust-analyzer      write rust-project.json

Cleaning:
  clean              remove all build output
  cache-clean        remove the build root and the kernels

Variables:
  KDIR=FOLDER        kernel build tree (default: that of the running kernel)
  OUT=FOLDER         output folder (default: build/native)
  KERNEL=stock|stock-7.2|stock-arm64|stock-arm64-16k|test|test-powerpc|debug   build for this kernel of
                     the build root
  SERIES=7.2|7.3     with stock: the series of Debian's kernel (default: 7.3)
  ARCH=amd64|arm64   with stock: its architecture (default: amd64)
  ARCH=amd64|powerpc with test-modules: likewise
  PAGES=4k|16k       with stock and ARCH=arm64: the size of its pages (default: 4k)
  WERROR=1           turn warnings into errors
  V=1                show the commands
  INSTALL_MOD_PATH=FOLDER   install below FOLDER instead of /
  PREFIX=FOLDER DESTDIR=FOLDER   with install_*: where (default: /usr/local, and nothing)
  SIGN_KEY=FILE SIGN_CERT=FILE   with modules_install: sign the modules with this key
  SIGN_HASH=NAME     the hash of the signatures (default: that of the kernel)
  SIGN_FILE=FILE     the program that signs (default: scripts/sign-file in the kernel tree)
endef

.PHONY: help
help:
	$(info $(help_text))
	@:
