# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154,SC2164
#
# Namespaces: where we may mount, and where nothing is left behind.

# The unshare command that lets us mount; asked once.
find_unshare() {
	[[ -z ${unshare_command:-} ]] || return 0
	unshare_command=(unshare --mount --propagation private)
	if [[ $EUID != 0 ]]; then
		[[ -n $(type -P newuidmap) ]] ||
			die "without root this needs newuidmap: ask root for 'apt install uidmap', or run as root"
		unshare_command+=(--user --map-root-user --map-auto)
	fi
	"${unshare_command[@]}" true 2>/dev/null || die "$(why_no_namespace)"
}

why_no_namespace() {
	if [[ $EUID == 0 ]]; then
		echo "this root may not mount (a container?): give it CAP_SYS_ADMIN, or run outside of the container"
	elif ! grep -q "^$(id -un):\|^$UID:" /etc/subuid /etc/subgid 2>/dev/null; then
		echo "without root this needs a range of user ids: ask root for 'usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $(id -un)', or run as root"
	else
		echo "this kernel gives no user namespaces to you: ask root for 'sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000', or run as root"
	fi
}

# in_namespace COMMAND [ARG...]: as root, with mounts of its own.
in_namespace() {
	find_unshare
	"${unshare_command[@]}" -- "$@"
}

# The same in the background, as process $step, with all its processes in a namespace which ends
# when this script does, be it by kill -9.
start_step() {
	find_unshare
	"${unshare_command[@]}" -- setpriv --pdeathsig KILL -- unshare --pid --fork --kill-child -- "$@" &
	step=$!
}

# Before a command: a step within the build root, with network. What make was told is not for it.
in_root=(env --unset=MAKEFLAGS --unset=MFLAGS "$self" __inside net /)

exec_in_root() {
	local network=none kernel=stock
	while [[ ${1:-} == --* && $1 != -- ]]; do
		case $1 in
		--net) network=net ;;
		--kernel)
			check_kernel "${2:-}"
			kernel=$2
			shift
			;;
		*) break ;;
		esac
		shift
	done
	[[ ${1:-} == -- ]] || die "usage: tools/testing/buildroot exec [--net] [--kernel KERNEL] -- COMMAND [ARG...]"
	shift
	[[ $# -gt 0 ]] || die "exec: there is no command"
	need_arch "$(arch_of "$kernel")"
	if is_arm64 "$kernel" || is_powerpc "$kernel"; then
		set -- "$self" __for "$kernel" "$@"
	fi
	if [[ -e /.buildroot ]]; then
		exec "$@"
	fi
	find_unshare
	[[ $network == net ]] || unshare_command+=(--net)
	exec "${unshare_command[@]}" -- "$self" __inside "$network" "$PWD" "$@"
}

# inside net|none FOLDER COMMAND [ARG...]: in a fresh mount namespace, puts the root
# together on a tmpfs and runs COMMAND in it. The root itself stays as it was made.
inside() {
	local network=$1 folder=$2
	shift 2
	root=$(root_dir)
	new=$cache/mnt
	mkdir -p "$new"
	mount -t tmpfs -o mode=755 buildroot "$new"
	bind_host_readonly
	bind_root
	for dir in /proc /dev /sys /tmp; do
		bind_host "$dir"
	done
	bind_host "$repo"
	bind_host "$cache"
	bind_folder
	touch "$new/.buildroot"
	[[ $network == net ]] || chroot "$new" busybox ip link set lo up
	exec chroot "$new" env -i --chdir="$folder" "${environment[@]}" "$@"
}

# The environment within the root.
set_environment() {
	local name
	environment=(
		HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
		CARGO_HOME="$cache/cargo" XDG_CACHE_HOME="${cache%/*}"
	)
	for name in MAKEFLAGS CI TERM http_proxy https_proxy no_proxy KERNEL_SERIES; do
		[[ -z ${!name:-} ]] || environment+=("$name=${!name}")
	done
}
set_environment

bind_host_readonly() {
	local point options
	mkdir "$new/host"
	mount --rbind / "$new/host"
	while read -r _ _ _ _ point options _; do
		[[ $point == "$new/host"* && $point != *\\* ]] || continue
		mount -o "remount,bind,${options/#rw/ro}" "$point" 2>/dev/null || true
	done <<<"$(</proc/self/mountinfo)"
}

# The top level of the root: what it has been filled with, and empty folders for the rest.
# How to reach the network, and whom to trust there, is as on the host.
bind_root() {
	local entry name
	for entry in "$root"/*; do
		name=${entry##*/}
		if [[ -L $entry ]]; then
			cp -P "$entry" "$new/$name"
		elif [[ -d $entry && $name =~ ^(usr|etc|var|opt|srv)$ ]]; then
			mkdir "$new/$name"
			mount -o bind,ro "$entry" "$new/$name"
		elif [[ -d $entry ]]; then
			mkdir -p "$new/$name"
		fi
	done
	for name in resolv.conf hosts ssl/certs/ca-certificates.crt; do
		[[ ! -e /etc/$name ]] || mount --bind "$(realpath "/etc/$name")" "$new/etc/$name"
	done
}

# Shows a folder of the host under its own path.
bind_host() {
	local dir=$1 seen
	for seen in "${bound[@]}"; do
		[[ $dir/ != "$seen"/* ]] || return 0
	done
	mkdir -p "$new$dir" 2>/dev/null || mkdir -p "$root$dir"
	mount --rbind "$dir" "$new$dir"
	bound+=("$dir")
}
bound=()

# The folder where the command runs; one that the root has too is shown below /host.
bind_folder() {
	case $folder/ in
	//*) ;;
	/usr/* | /etc/* | /var/* | /bin/* | /sbin/* | /lib*/* | /opt/* | /srv/* | /run/* | /boot/*)
		folder=/host$folder ;;
	*) bind_host "$folder" ;;
	esac
}
