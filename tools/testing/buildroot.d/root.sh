# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154,SC2164
#
# The build root: a Debian with the compiler that built the distribution's kernel, and with QEMU.

packages=(
	# Rust for the kernel, and for the programs in the guest
	rustc rust-src bindgen rustfmt rust-clippy cargo
	# C, for gcc kernels and for clang kernels
	gcc g++ clang lld llvm libc6-dev pahole
	# what the kernel's build wants
	make bc bison flex cpio kmod perl python3 rsync xz-utils zstd dpkg-dev
	libelf-dev libssl-dev libdw-dev uuid-dev
	# guests
	qemu-system-x86 busybox-static
	ca-certificates
)

# QEMU 10 crashes now and then when a guest of several processors sets up its PCI devices
# (iotlb_to_section: Assertion failed); QEMU 11 no more has that code.
pins="Package: src:qemu src:seabios
Pin: release n=$SUITE-backports
Pin-Priority: 600"

root_dir() {
	echo "$cache/root-$(key "$SUITE" "${packages[@]}" "$pins" "$(declare -f make_root)")"
}

need_root() {
	make_complete "$(root_dir)" make_root
}

make_root() {
	local dir=$1 log=$1.log
	[[ $(dpkg --print-architecture 2>/dev/null) == amd64 ]] ||
		die "this works on Debian 12 or 13 on amd64 only, by its apt and dpkg"
	need_mmdebstrap
	print_sources >"$dir.list"
	: >"$log"
	# shellcheck disable=SC2016
	run_step "making the build root: ${#packages[@]} packages of Debian $SUITE and what they need" "$log" \
		env PINS="$pins" mmdebstrap --mode=root --variant=apt --include="${packages[*]}" \
		--setup-hook='echo "$PINS" >"$1/etc/apt/preferences.d/buildroot"' \
		--customize-hook='touch "$1/etc/resolv.conf" "$1/etc/hosts"; rm -rf "$1"/var/cache/apt/archives/*.deb' \
		"$SUITE" "$dir" "$dir.list"
	dpkg-query --admindir="$dir/var/lib/dpkg" --show >"$dir/packages"
	rm -f "$dir.list" "$log"
}

need_mmdebstrap() {
	local missing=()
	[[ -n $(type -P mmdebstrap) ]] || missing+=(mmdebstrap)
	compgen -G "/usr/share/keyrings/debian-archive-$SUITE-stable.*" >/dev/null || missing+=(debian-archive-keyring)
	[[ ${#missing[@]} -gt 0 ]] || return 0
	[[ $EUID == 0 ]] || die "the build root needs ${missing[*]}: ask root for 'apt install ${missing[*]}'"
	say "installing ${missing[*]}"
	apt-get update -q >&2
	DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >&2
}

# The mirrors are those which apt uses on this machine.
print_sources() {
	local main security
	main=$(debian_mirror Debian '^[a-z]+$')
	[[ -n $main ]] || die "apt on this machine knows no Debian mirror: put one into /etc/apt/sources.list"
	printf "deb $main %s main\n" "$SUITE" "$SUITE-updates" "$SUITE-backports"
	security=$(debian_mirror Debian-Security '-security$')
	[[ -z $security ]] || echo "deb $security $SUITE-security main"
}

# debian_mirror LABEL RELEASE-PATTERN; before the first 'apt-get update' the labels are not known.
debian_mirror() {
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT) $(LABEL)' 'Created-By: Packages' |
		awk -v label="$1" -v release="$2" \
			'$3 == "main" && $2 ~ release && ($4 == label || $4 == "$(LABEL)") { print $1; exit }'
}

# The versions of what decides how a kernel and its modules come out.
toolchain() {
	grep -E '^(rust|libstd-rust|bindgen|gcc-|clang-|libclang|lld-|llvm-|binutils|libc6-dev)' "$(root_dir)/packages"
}
