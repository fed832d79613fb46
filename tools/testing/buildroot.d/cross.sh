# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154,SC2164
#
# Other architectures: what the build root needs to build for arm64 and to emulate it, unpacked into
# a folder of its own. It is laid over the root's /usr for the commands that need it, so adding to it
# rebuilds nothing else.

# The architecture of this machine, which the build root has.
host_arch=$(dpkg --print-architecture 2>/dev/null || echo amd64)

cross_packages=(
	# C for kernel modules, and for linking programs
	gcc-aarch64-linux-gnu libc6-dev-arm64-cross
	# guests
	qemu-system-arm
)

# Libraries for arm64, in the versions that the root has for its own architecture.
cross_libraries=(
	# Rust's standard library
	libstd-rust-dev
	# what the kernel's VFIO selftests are linked with
	uuid-dev libuuid1
)

# What the guest itself has, and the shared libraries of programs in it.
cross_guest_packages=(
	busybox-static dash kmod libgcc-s1 libuuid1
)

# Packages which the build root already has are not fetched, so the key names the build root.
# The name begins with "root-": remove_unfinished() removes what an interrupted run has left of it.
cross_dir() {
	local root
	root=$(root_dir)
	echo "$cache/root-arm64-$(key "${root##*/}" "${cross_packages[@]}" "${cross_libraries[@]}" "${cross_guest_packages[@]}" \
		"$(declare -f make_cross fetch_packages)")"
}

# need_arch ARCH: the build root can build for ARCH.
need_arch() {
	need_root
	[[ $1 != "$host_arch" ]] || return 0
	if [[ $1 == powerpc ]]; then
		need_powerpc
		return
	fi
	[[ $1 == arm64 ]] || die "this machine is $host_arch; it can build for arm64 and powerpc, too, but not for $1"
	[[ ! -e /.buildroot ]] || is_complete "$(cross_dir)" ||
		die "the tools for arm64 are missing: run 'tools/testing/buildroot prepare cross' on the host"
	make_complete "$(cross_dir)" make_cross
}

need_cross() {
	need_arch arm64
}

make_cross() {
	local dir=$1 log=$1.log tools guest library libraries=()
	: >"$log"
	tools="-o Dir::State::status=/var/lib/dpkg/status -o APT::Architectures::=amd64 -o APT::Architectures::=arm64"
	guest="-o Dir::State::status=/dev/null -o APT::Architecture=arm64 -o APT::Architectures=arm64"
	mapfile -t libraries < <(for library in "${cross_libraries[@]}"; do
		awk -v p="$library" '$1 == p ":amd64" || $1 == p { print p ":arm64=" $2 }' "$(root_dir)/packages"
	done)
	fetch_packages "the tools for arm64" "$log" "$dir" "$tools" install "${cross_packages[@]}"
	fetch_packages "libraries for arm64" "$log" "$dir" "$tools" download "${libraries[@]}"
	fetch_packages "programs for guests on arm64" "$log" "$dir/guest" "$guest" install "${cross_guest_packages[@]}"
	rm -f "$log"
}

# in_root_for: before a command, as in_root: a step within the build root that builds for KERNEL.
set_in_root_for() {
	in_root_for=("${in_root[@]}" "$self" __for "$1")
}

# for_kernel KERNEL COMMAND [ARG...]: runs COMMAND with what builds for KERNEL, within the build root.
for_kernel() {
	local kernel=$1 arch settings=(BUILDROOT_KERNEL="$1") before=()
	shift
	arch=$(arch_of "$kernel")
	if [[ ${BUILDROOT_KERNEL:-} == "$kernel" ]]; then
		exec "$@"
	fi
	if [[ $kernel == *-16k ]]; then
		# Programs know the page size when they are compiled.
		settings+=(RUSTFLAGS='--cfg page_size="16384"' CARGO_TARGET_DIR="$repo/build/cargo-16k")
	fi
	if [[ $arch == powerpc ]]; then
		settings+=(
			BUILDROOT_GUEST="$(powerpc_programs_dir)/guest"
			ARCH=powerpc CROSS_COMPILE=powerpc-linux-gnu- CC=powerpc-linux-gnu-gcc
			CARGO_BUILD_TARGET=powerpc-unknown-linux-gnu
			CARGO_TARGET_POWERPC_UNKNOWN_LINUX_GNU_LINKER=powerpc-linux-gnu-gcc
			# Guests have no shared libraries.
			CARGO_TARGET_POWERPC_UNKNOWN_LINUX_GNU_RUSTFLAGS=-Ctarget-feature=+crt-static
			VFIO_BINDINGS="$(powerpc_programs_dir)/vfio_bindings.rs"
		)
		with_usr "$(powerpc_layers)" env "${settings[@]}" "$@"
		return
	fi
	if [[ $arch != "$host_arch" ]]; then
		settings+=(
			BUILDROOT_GUEST="$(cross_dir)/guest"
			ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- CC=aarch64-linux-gnu-gcc
			CARGO_BUILD_TARGET=aarch64-unknown-linux-gnu
			CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
		)
		set_over_usr cross "$(cross_dir)"
		before=("${over_usr[@]}")
	fi
	exec "${before[@]}" env "${settings[@]}" "$@"
}
