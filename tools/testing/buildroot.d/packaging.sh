# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154,SC2164
#
# What makes packages and checks them, unpacked into a folder of its own and laid over the root's /usr
# for the commands that need it. And the packages' machine: a Debian with the kernels that they are
# for, in which their test installs them. Adding to either rebuilds no kernel.

packaging_packages=(
	debhelper dh-dkms lintian
	# the documentation's JavaScript, by links
	sphinx-common libjs-sphinxdoc
	# other families
	rpm rpmlint makepkg
)

machine_packages=(
	initramfs-tools kmod openssl xz-utils dkms
	# what the other packages need
	man-db bash-completion libjs-sphinxdoc
	# programs that use the headers
	gcc g++ libc6-dev pkgconf
	# what vfio-rust-dkms needs
	bc bindgen bison flex libdw-dev libelf-dev libssl-dev make pahole perl python3 rust-src rustc
)

# The kernels need a newer one than the release has.
machine_pins="Package: linux-base
Pin: release n=$SUITE-backports
Pin-Priority: 600"

# Packages which the build root already has are not fetched, so the key names the build root.
# The name begins with "root-": remove_unfinished() removes what an interrupted run has left of it.
packaging_dir() {
	local root
	root=$(root_dir)
	echo "$cache/root-packaging-$(key "${root##*/}" "${packaging_packages[@]}" "$(declare -f make_packaging fetch_packages)")"
}

need_packaging() {
	[[ ! -e /.buildroot ]] || is_complete "$(packaging_dir)" ||
		die "the tools for packages are missing: run 'tools/testing/buildroot prepare packaging' on the host"
	need_root
	make_complete "$(packaging_dir)" make_packaging
}

make_packaging() {
	local dir=$1 log=$1.log
	: >"$log"
	fetch_packages "the tools for packages" "$log" "$dir" "-o Dir::State::status=/var/lib/dpkg/status" \
		install "${packaging_packages[@]}"
	rm -f "$log"
}

# package COMMAND [ARG...]: runs COMMAND within the build root, with the tools for packages.
exec_with_packaging() {
	need_packaging
	set_over_usr packaging "$(packaging_dir)"
	exec_in_root -- "${over_usr[@]}" "$@"
}

# machine_releases: the releases of the kernels that the packages are for, the newest first.
machine_releases() {
	local kernel
	for kernel in stock "stock-$OTHER_SERIES"; do
		cat "$(kernel_dir "$kernel")/version"
	done
}

machine_dir() {
	echo "$cache/root-machine-$(key "$SUITE" "${machine_packages[@]}" "$machine_pins" "$(machine_releases)" "$(declare -f make_machine)")"
}

need_machine() {
	[[ ! -e /.buildroot ]] || is_complete "$(machine_dir)" ||
		die "the packages' machine is missing: run 'tools/testing/buildroot prepare machine' on the host"
	need_kernel stock
	need_kernel "stock-$OTHER_SERIES"
	make_complete "$(machine_dir)" make_machine
}

# The kernels are those of the build root; the source is only that of the newest.
make_machine() {
	local dir=$1 log=$1.log releases
	need_mmdebstrap
	print_sources >"$dir.list"
	mapfile -t releases < <(machine_releases)
	: >"$log"
	# shellcheck disable=SC2016
	run_step "making the packages' machine: a Debian $SUITE with Linux ${releases[*]}" "$log" \
		env PINS="$machine_pins" mmdebstrap --mode=root --variant=minbase \
		--include="${machine_packages[*]} ${releases[*]/#/linux-image-} ${releases[*]/#/linux-headers-} linux-source-$KERNEL_SERIES" \
		--dpkgopt=force-unsafe-io --setup-hook='echo "$PINS" >"$1/etc/apt/preferences.d/machine"' \
		--customize-hook='rm -rf "$1"/var/cache/apt/archives/*.deb "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap' \
		"$SUITE" "$dir" "$dir.list"
	rm -f "$dir.list" "$log"
}
