# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154,SC2164
#
# The clients root: other people's programs that use VFIO, as the distribution has them, to be run in
# a guest. It is a root of its own, so that a change in it makes nobody build a kernel.

client_packages=(
	# dpdk-testpmd, and what it drives igb and e1000e by
	dpdk-dev librte-net-e1000-25
	# QEMU, with iPXE as a small guest
	qemu-system-x86 ipxe
	mdevctl strace
)

clients_dir() {
	echo "$cache/clients-$(key "$SUITE" "${client_packages[@]}" "$(declare -f make_clients)")"
}

need_clients() {
	[[ ! -e /.buildroot ]] || is_complete "$(clients_dir)" ||
		die "the clients root is not made yet: run 'tools/testing/buildroot prepare clients' on the host"
	make_complete "$(clients_dir)" make_clients
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
