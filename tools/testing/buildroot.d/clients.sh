# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2153,SC2154,SC2164
#
# The clients root: other people's programs that use VFIO, as the distribution has them, to be run in
# a guest. It is a root of its own, so that a change in it makes nobody build a kernel.

client_packages=(
	# dpdk-testpmd, and what it drives igb and e1000e by
	dpdk-dev librte-net-e1000-25
	# QEMU, with iPXE as a small guest
	qemu-system-x86 ipxe
	mdevctl strace
	# libvirt, without what needs systemd
	libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients
)

# For guests of another architecture: DPDK, and what its run needs. These packages are unpacked, not
# configured, because nothing of them runs here.
arm64_client_packages=(
	dpdk-dev librte-net-e1000-25
	base-files coreutils dash mount util-linux
)

# clients_dir [KERNEL]
clients_dir() {
	if [[ $(arch_of "${1:-stock}") != "$host_arch" ]]; then
		echo "$cache/clients-arm64-$(key "$SUITE" "${arm64_client_packages[@]}" "$(declare -f make_clients_arm64 extract_clients)")"
		return
	fi
	echo "$cache/clients-$(key "$SUITE" "${client_packages[@]}" "$(declare -f make_clients)")"
}

# need_clients [KERNEL]
need_clients() {
	local what=clients make=make_clients
	[[ $(arch_of "${1:-stock}") == "$host_arch" ]] || { what=clients-arm64; make=make_clients_arm64; }
	[[ ! -e /.buildroot ]] || is_complete "$(clients_dir "$@")" ||
		die "the clients root is not made yet: run 'tools/testing/buildroot prepare $what' on the host"
	make_complete "$(clients_dir "$@")" $make
}

# extract_clients SUITE DIR PACKAGE...
extract_clients() {
	local suite=$1 dir=$2
	shift 2
	mmdebstrap --mode=root --variant=extract --architectures=arm64 --include="$*" "$suite" "$dir" "$dir.list"
	mkdir "$dir/guest"
	# As the packages' scripts would.
	rmdir "$dir/var/run"
	ln -s /run "$dir/var/run"
	rm -rf "$dir"/usr/share/{doc,man,locale}
}

make_clients_arm64() {
	local dir=$1 log=$1.log
	need_mmdebstrap
	print_sources | grep -v "$SUITE-backports" >"$dir.list"
	: >"$log"
	run_step "making the clients root for arm64: ${#arm64_client_packages[@]} packages of Debian $SUITE and what they need" "$log" \
		bash -ec "$(declare -f extract_clients); extract_clients $SUITE $dir ${arm64_client_packages[*]}"
	rm -f "$dir.list" "$log"
}

make_clients() {
	local dir=$1 log=$1.log
	need_mmdebstrap
	print_sources | grep -v "$SUITE-backports" >"$dir.list"
	: >"$log"
	# shellcheck disable=SC2016
	run_step "making the clients root: ${#client_packages[@]} packages of Debian $SUITE and what they need" "$log" \
		mmdebstrap --mode=root --variant=apt --include="${client_packages[*]}" \
		--customize-hook='mkdir "$1/guest"; rm -rf "$1"/var/cache/apt/archives/*.deb "$1"/usr/share/{doc,man,locale}' \
		"$SUITE" "$dir" "$dir.list"
	dpkg-query --admindir="$dir/var/lib/dpkg" --show >"$dir/packages"
	rm -f "$dir.list" "$log"
}
