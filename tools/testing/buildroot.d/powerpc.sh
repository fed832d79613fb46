# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154,SC2164
#
# 32-bit PowerPC, for the PAMU. Debian has no release for it, hence no kernel and no programs: the
# kernels, busybox, Rust's standard library and QEMU, with our PAMU, are compiled here. The tools are
# in folders of their own, which are laid over the root's /usr like those of cross.sh.

# Kernels from one source: one without a driver for the PAMU, for our modules, and one with the
# kernel's own driver.
powerpc_kernels=(test-powerpc test-powerpc-pamu)

powerpc_packages=(
	gcc-powerpc-linux-gnu libc6-dev-powerpc-cross
	# The kernel's Rust works on 32-bit PowerPC with 1.95 or later.
	rustc rust-src
)

powerpc_pins="Package: src:rustc
Pin: release n=$SUITE-backports
Pin-Priority: 990"

# What configures and compiles QEMU, not needed afterwards.
qemu_packages=(
	ninja-build meson pkgconf
	python3-venv python3-distlib python3-pycotap python3-setuptools python3-wheel
	libglib2.0-dev zlib1g-dev libfdt-dev libpixman-1-dev
)

is_powerpc() {
	[[ " ${powerpc_kernels[*]} " == *" $1 "* ]]
}

powerpc_dir() {
	local root
	root=$(root_dir)
	echo "$cache/root-powerpc-$(key "${root##*/}" "${powerpc_packages[@]}" "$powerpc_pins" \
		"$(declare -f make_powerpc fetch_packages)")"
}

powerpc_programs_dir() {
	local tools linux
	tools=$(powerpc_dir)
	linux=$(linux_dir)
	echo "$cache/root-powerpc-programs-$(key "${tools##*/}" "${linux##*/}" \
		"$(declare -f make_powerpc_programs fetch_source compile_busybox compile_std print_bindings)")"
}

# The version in the release of the root: the mirror doesn't always have the source of that in
# backports.
qemu_dir() {
	local root
	root=$(root_dir)
	echo "$cache/root-qemu-ppc-$(key "${root##*/}" "${qemu_packages[@]}" "$(declare -f make_qemu fetch_packages fetch_source compile_qemu)" \
		"$(find "$here/qemu" -type f ! -name '*.py' -print0 | sort -z | xargs -0 cat)")"
}

# What is laid over /usr: the tools, and what was made of the rest. Nothing is compiled with QEMU, and
# no kernel with the standard library.
powerpc_layers() {
	local dir
	for dir in "$(qemu_dir)" "$(powerpc_programs_dir)"; do
		! is_complete "$dir" || printf '%s/usr:' "$dir"
	done
	echo "$(powerpc_dir)/usr"
}

need_powerpc() {
	[[ ! -e /.buildroot ]] || is_complete "$(powerpc_dir)" ||
		die "the tools for powerpc are missing: run 'tools/testing/buildroot prepare powerpc' on the host"
	make_complete "$(powerpc_dir)" make_powerpc
}

# Before programs for guests are compiled, and before guests run.
need_powerpc_programs() {
	[[ ! -e /.buildroot ]] || is_complete "$(powerpc_programs_dir)" ||
		die "what programs for powerpc need is missing: run 'tools/testing/buildroot prepare powerpc' on the host"
	need_powerpc
	make_complete "$(linux_dir)" make_linux
	make_complete "$(powerpc_programs_dir)" make_powerpc_programs
}

# Before guests run.
need_qemu() {
	is_powerpc "$1" || return 0
	need_powerpc_programs
	[[ ! -e /.buildroot ]] || is_complete "$(qemu_dir)" ||
		die "QEMU for powerpc is missing: run 'tools/testing/buildroot prepare powerpc' on the host"
	make_complete "$(qemu_dir)" make_qemu
}

# with_usr LAYERS COMMAND [ARG...]: runs COMMAND with LAYERS over the root's /usr.
with_usr() {
	# shellcheck disable=SC2016
	unshare --mount --propagation private -- bash -ec \
		'busybox mount -t overlay -o "ro,lowerdir=$1:/usr" cross /usr; shift; exec "$@"' bash "$@"
}

# fetch_source LOG DIR PACKAGE: fetches the source of a package of the root's release, and unpacks it into
# DIR.
fetch_source() {
	local log=$1 dir=$2 package=$3 apt
	mkdir -p "$dir/apt/lists/partial" "$dir/apt/archives/partial"
	print_sources | grep -v "$SUITE-backports" | sed 's/^deb /deb-src /' >"$dir/apt/source.list"
	apt="-o Dir::State=$dir/apt -o Dir::Cache=$dir/apt -o Dir::State::status=/var/lib/dpkg/status -o APT::Sandbox::User=root -o Debug::NoLocking=true"
	apt+=" -o Dir::Etc::sourcelist=$dir/apt/source.list -o Dir::Etc::sourceparts=/dev/null"
	run_step "fetching the source of $package" "$log" "${in_root[@]}" bash -ec \
		"cd $dir/apt
		apt-get $apt update
		apt-get $apt source --download-only --tar-only $package
		tar --extract --file ${package}_*.orig.tar.*[z2] --strip-components=1 --directory=$dir"
	rm -rf "$dir/apt"
}

make_powerpc() {
	local dir=$1 log=$1.log
	: >"$log"
	mkdir "$dir/apt"
	echo "$powerpc_pins" >"$dir/apt/preferences"
	fetch_packages "the tools for powerpc" "$log" "$dir" \
		"-o Dir::State::status=/var/lib/dpkg/status -o Dir::Etc::preferences=$dir/apt/preferences" \
		install "${powerpc_packages[@]}"
	rm -f "$log"
}

# What guests and the compilation of programs for them need beside the tools: busybox, Rust's standard
# library, which Debian has for its own architectures only, and the declarations of <linux/vfio.h>,
# which the crate vfio-bindings has for 64 bits only.
make_powerpc_programs() {
	local dir=$1 log=$1.log
	: >"$log"
	mkdir "$dir"/{std,linux}
	fetch_source "$log" "$dir/busybox" busybox
	run_step "compiling busybox for guests on powerpc" "$log" "${in_root[@]}" bash -ec \
		"$(declare -f with_usr compile_busybox); export -f compile_busybox
		with_usr $(powerpc_dir)/usr bash -ec 'compile_busybox $dir'"
	run_step "compiling Rust's standard library for powerpc" "$log" "${in_root[@]}" bash -ec \
		"$(declare -f with_usr compile_std); export -f compile_std
		with_usr $(powerpc_dir)/usr bash -ec 'compile_std $dir'"
	run_step "translating <linux/vfio.h> for programs on powerpc" "$log" "${in_root[@]}" bash -ec \
		"$(declare -f print_bindings); print_bindings $dir $(linux_dir)"
	rm -rf "$dir"/{busybox,std,linux} "$log"
}

# Runs in the build root, with the compiler.
compile_busybox() {
	local dir=$1
	cd "$dir/busybox"
	make ARCH=powerpc CROSS_COMPILE=powerpc-linux-gnu- defconfig
	# tc.c uses what newer headers of the kernel no more have; HWACCEL is for x86 only. The small
	# modprobe takes no parameters from the kernel's command line.
	sed -i -e 's/.*CONFIG_STATIC[ =].*/CONFIG_STATIC=y/' \
		-e 's/^\(CONFIG_TC\|CONFIG_MODPROBE_SMALL\|CONFIG_SHA[0-9]*_HWACCEL\)=y/# \1 is not set/' .config
	yes '' | make ARCH=powerpc CROSS_COMPILE=powerpc-linux-gnu- oldconfig
	make ARCH=powerpc CROSS_COMPILE=powerpc-linux-gnu- -j"$(nproc)" busybox busybox.links
	install -D busybox "$dir/guest/usr/bin/busybox"
	install -D -m 644 busybox.links "$dir/guest/usr/share/busybox.links"
}

# Runs in the build root, with the compiler. The library's own manifest also wants crates for its
# tests, which Debian's source leaves out, so a crate that depends on it is compiled.
compile_std() {
	local dir=$1 target=powerpc-unknown-linux-gnu library=/usr/lib/rustlib/src/rust/library name
	cd "$dir/std"
	cat >Cargo.toml <<-END
		[package]
		name = "all"
		edition = "2024"
		[lib]
		path = "all.rs"
		[dependencies]
		sysroot = { path = "$library/sysroot" }
		[patch.crates-io]
	END
	for name in core alloc std; do
		echo "rustc-std-workspace-$name = { path = \"$library/rustc-std-workspace-$name\" }"
	done >>Cargo.toml
	# As the library's manifest has it: each function can be left out by itself.
	printf '[profile.release.package.compiler_builtins]\ncodegen-units = 10000\n' >>Cargo.toml
	printf '#![feature(no_core)]\n#![no_core]\n' >all.rs
	RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zforce-unstable-if-unmarked -Cembed-bitcode=yes" CARGO_HOME="$PWD/cargo" \
		CARGO_TARGET_POWERPC_UNKNOWN_LINUX_GNU_LINKER=powerpc-linux-gnu-gcc \
		cargo build --release --offline --target $target --target-dir build \
		--config 'source.crates-io.replace-with="vendor"' --config "source.vendor.directory=\"$library/vendor\""
	mkdir -p "$dir/usr/lib/rustlib/$target/lib"
	rm build/$target/release/deps/liball-*.rlib
	cp build/$target/release/deps/*.rlib "$dir/usr/lib/rustlib/$target/lib"
}

# Runs in the build root.
print_bindings() {
	local dir=$1 linux=$2
	cd "$dir/linux"
	make -C "$linux/source" O="$PWD" ARCH=powerpc headers
	bindgen --with-derive-default --rust-target 1.85 --rust-edition 2024 --allowlist-file '.*/linux/vfio.h' \
		--output "$dir/vfio_bindings.rs" usr/include/linux/vfio.h -- --target=powerpc-linux-gnu \
		-nostdinc -isystem usr/include
}

make_qemu() {
	local dir=$1 log=$1.log
	: >"$log"
	fetch_packages "what compiles QEMU" "$log" "$dir/deps" "-o Dir::State::status=/var/lib/dpkg/status" \
		install "${qemu_packages[@]}"
	fetch_source "$log" "$dir/source" qemu
	run_step "adding the PAMU to QEMU" "$log" "${in_root[@]}" bash -ec \
		"cd $dir/source
		for patch in $here/qemu/*.patch; do patch -p1 <\$patch; done
		(cd $here/qemu && find hw configs -type f) | while read -r file; do install -m 644 -D $here/qemu/\$file \$file; done"
	run_step "compiling QEMU for powerpc" "$log" "${in_root[@]}" bash -ec \
		"$(declare -f with_usr compile_qemu); export -f compile_qemu
		with_usr $dir/deps/usr bash -ec 'compile_qemu $dir'"
	rm -rf "$dir/source" "$dir/deps" "$log"
}

# Runs in the build root. What guests have is in configs/devices/ppc-softmmu/pamu.mak.
compile_qemu() {
	local dir=$1
	mkdir "$dir/source/build"
	cd "$dir/source/build"
	../configure --prefix=/usr --firmwarepath=/usr/share/qemu:/usr/lib/ipxe/qemu --target-list=ppc-softmmu \
		--without-default-features --without-default-devices --with-devices-ppc=pamu --disable-docs \
		--disable-install-blobs --disable-tools --disable-guest-agent --disable-user --enable-fdt=system \
		--enable-tcg --enable-virtfs --enable-attr
	ninja -j"$(nproc)" qemu-system-ppc
	install -D --strip qemu-system-ppc "$dir/usr/bin/qemu-system-ppc"
}

# The kernel's source, with corrections of its Rust on 32-bit PowerPC.
linux_powerpc_dir() {
	local linux
	linux=$(linux_dir)
	echo "$cache/linux-powerpc-$(key "${linux##*/}" "$(declare -f make_linux_powerpc)" "$(<"$here/kernel/powerpc.patch")")"
}

make_linux_powerpc() {
	local dir=$1 log=$1.log
	: >"$log"
	run_step "patching the source of Linux for powerpc" "$log" bash -ec \
		"cp -al '$(linux_dir)/source' '$dir/source'
		patch -p1 -d '$dir/source' <'$here/kernel/powerpc.patch'
		cp '$(linux_dir)/version' '$dir/version'"
	rm -f "$log"
}

powerpc_kernel_dir() {
	local linux tools
	linux=$(linux_powerpc_dir)
	tools=$(powerpc_dir)
	echo "$cache/$1-$(key "${linux##*/}" "$(<"$linux/version")" "${tools##*/}" \
		"$(declare -f configure_own configure_powerpc compile_powerpc; powerpc_fragments "$1" | xargs cat)")"
}

powerpc_fragments() {
	echo "$here/kernel/powerpc.config"
	[[ $1 != *-pamu ]] || echo "$here/kernel/powerpc-pamu.config"
}

# That with the driver differs in little, so it begins with what is compiled for the other one.
make_kernel_powerpc() {
	local kernel=$1 dir=$2 log=$2.log linux files in_root_for
	linux=$(linux_powerpc_dir)
	files=$(powerpc_fragments "$kernel" | xargs)
	set_in_root_for "$kernel"
	: >"$log"
	[[ $kernel != *-pamu ]] || cp -a "$(powerpc_kernel_dir test-powerpc)/out" "$dir/out"
	run_step "configuring the $kernel kernel" "$log" "${in_root_for[@]}" \
		bash -ec "$(declare -f configure_own configure_powerpc); configure_powerpc $linux $dir $files"
	run_step "compiling the $kernel kernel" "$log" "${in_root_for[@]}" \
		bash -ec "$(declare -f compile_powerpc); compile_powerpc $dir"
	rm -f "$log"
}

configure_powerpc() {
	local linux=$1 dir=$2
	shift 2
	configure_own "$linux" "$dir" '' "$@"
	# The name of the test kernel is that of another architecture's.
	echo "-vfio-powerpc" >"$dir/out/localversion"
}

compile_powerpc() {
	local dir=$1
	cd "$dir/out"
	make -j"$(nproc)" LOCALVERSION= vmlinux modules
	make LOCALVERSION= INSTALL_MOD_PATH="$dir/modules" INSTALL_MOD_STRIP=1 modules_install
	ln -f vmlinux "$dir/image"
	cat include/config/kernel.release >"$dir/version"
}
