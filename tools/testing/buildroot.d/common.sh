# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154,SC2164
#
# Messages, the lock, and steps which are either done or not there.

start=$SECONDS

say() {
	printf '[%4ds] %s\n' $((SECONDS - start)) "$*" >&2
}

die() {
	printf 'buildroot: %s\n' "$*" >&2
	exit 1
}

# A short name for what the arguments say.
key() {
	printf '%s\n' "$@" | sha256sum | cut -c 1-12
}

# One run at a time makes things; the lock goes when the last process that has it open ends.
take_lock() {
	[[ -z ${lock_taken:-} ]] || return 0
	mkdir -p "$cache"
	exec {lock_fd}>"$cache/lock"
	if ! flock --nonblock "$lock_fd"; then
		say "waiting for another run that prepares this cache"
		flock "$lock_fd"
	fi
	lock_taken=yes
	remove_unfinished
}

# What an interrupted run has left: folders without their mark, and logs.
remove_unfinished() {
	local path
	for path in "$cache"/{root,clients,linux,stock,test,debug,config}-*; do
		if [[ -d $path ]] && ! is_complete "$path"; then
			in_namespace rm -rf --one-file-system "$path"
		fi
	done
	rm -f "$cache"/*.log "$cache"/*.list
}

# A folder of the cache counts only with this mark in it, which is put there last.
is_complete() {
	[[ -e $1/.complete ]]
}

# make_complete DIR FUNCTION [ARG...]: FUNCTION fills the empty folder DIR, unless that was done.
# Kernel output folders hold their own path, so they can't be made elsewhere and renamed.
make_complete() {
	local dir=$1
	shift
	is_complete "$dir" && return
	take_lock
	is_complete "$dir" && return
	mkdir "$dir"
	"$@" "$dir"
	touch "$dir/.complete"
}

# run_step TEXT LOG COMMAND [ARG...]: shows that COMMAND is at work, and the end of its log if it fails.
run_step() {
	local text=$1 log=$2 began=$SECONDS
	shift 2
	say "$text"
	start_step "$@" >>"$log" 2>&1 </dev/null
	while sleep 0.5 && kill -0 "$step" 2>/dev/null; do
		show_progress "$text" "$log" $((SECONDS - began))
	done
	[[ ! -t 2 ]] || printf '\r\033[K' >&2
	if ! wait "$step"; then
		tail -n 25 "$log" >&2
		die "failed: $text (the whole log is $log)"
	fi
}

# fetch_packages TEXT LOG DIR OPTIONS COMMAND PACKAGE...: fetches packages with apt-get's OPTIONS, and
# unpacks them into DIR. COMMAND is "download", or "install" for those that they need, too.
fetch_packages() {
	local text=$1 log=$2 dir=$3 apt=$4 command=$5
	shift 5
	mkdir -p "$dir/apt/lists/partial" "$dir/apt/archives/partial"
	apt+=" -o Dir::State=$dir/apt -o Dir::Cache=$dir/apt -o APT::Sandbox::User=root -o Debug::NoLocking=true"
	[[ $command != install ]] || command="install --yes --download-only --no-install-recommends"
	# "download" fetches to the current folder.
	run_step "fetching $text: $*" "$log" "${in_root[@]}" bash -ec \
		"cd $dir/apt/archives; apt-get $apt update; apt-get $apt $command $*"
	run_step "unpacking them" "$log" "${in_root[@]}" bash -ec \
		"for deb in $dir/apt/archives/*.deb; do dpkg -x \$deb $dir; done"
	rm -rf "$dir/apt"
}

# set_over_usr NAME DIR: sets 'over_usr' to words that run a command within the build root with DIR/usr laid
# over /usr.
set_over_usr() {
	# shellcheck disable=SC2016
	over_usr=(unshare --mount --propagation private -- bash -ec
		'busybox mount -t overlay -o "ro,lowerdir=$1/usr:/usr" "$0" /usr; shift; exec "$@"' "$1" "$2")
}

# On a terminal a line that counts; elsewhere one line a minute.
last_shown=0
show_progress() {
	local text=$1 log=$2 seconds=$3
	if [[ -t 2 ]]; then
		printf '\r\033[K[%4ds] %s: %d s, %d lines of log' $((SECONDS - start)) "$text" "$seconds" "$(wc -l <"$log")" >&2
	elif ((seconds - last_shown >= 60 || seconds < last_shown)); then
		((seconds < 60)) || say "... $seconds s, $(wc -l <"$log") lines of log"
		last_shown=$((seconds - seconds % 60))
	fi
}
