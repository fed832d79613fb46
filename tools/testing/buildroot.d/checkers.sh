# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154
#
# The checkers: linters and Sphinx, unpacked into a folder of their own. Programs in the build root
# find them by the environment, so adding a checker rebuilds no kernel.

checker_packages=(
	shellcheck codespell
	# make docs
	python3-sphinx
	# fetches ruff
	python3-pip
)

# Debian $SUITE has no ruff.
ruff="ruff==0.17.6 --hash=sha256:aa3b08254a732acba246891089a152c47c5733dc36b8ecb76ce8602f8326e5e4"

# Packages which the build root already has are not fetched, so the key names the build root.
# The name begins with "root-": remove_unfinished() removes what an interrupted run has left of it.
checkers_dir() {
	local root
	root=$(root_dir)
	echo "$cache/root-checkers-$(key "${root##*/}" "${checker_packages[@]}" "$ruff" "$(declare -f make_checkers fetch_packages with_checkers)")"
}

need_checkers() {
	[[ ! -e /.buildroot ]] || is_complete "$(checkers_dir)" ||
		die "the checkers are missing: run 'tools/testing/buildroot prepare checkers' on the host"
	need_root
	make_complete "$(checkers_dir)" make_checkers
}

make_checkers() {
	local dir=$1 log=$1.log
	: >"$log"
	fetch_packages "the checkers" "$log" "$dir" "-o Dir::State::status=/var/lib/dpkg/status" \
		install "${checker_packages[@]}"
	# Debian's packages have the paths of their data in these files.
	sed -i "s|'/usr/share/|'$dir/usr/share/|" "$dir"/usr/lib/python3/dist-packages/{docutils,sphinx}/__init__.py
	echo "$ruff" >"$dir/requirements"
	run_step "fetching ruff" "$log" "${in_root[@]}" bash -ec "$(declare -f with_checkers); with_checkers $dir \
		python3 -m pip install --no-cache-dir --no-deps --only-binary :all: --require-hashes \
			--requirement $dir/requirements --target $dir/pip"
	rm -f "$log"
}

# with_checkers DIR COMMAND [ARG...]: runs COMMAND so that it finds the checkers in DIR.
with_checkers() {
	local dir=$1
	shift
	PATH="$dir/pip/bin:$dir/usr/bin:$PATH" LD_LIBRARY_PATH="$dir/usr/lib/x86_64-linux-gnu" \
		PYTHONPATH="$dir/usr/lib/python3/dist-packages" PYTHONDONTWRITEBYTECODE=1 "$@"
}

# check COMMAND [ARG...]: runs COMMAND within the build root, with the checkers.
exec_with_checkers() {
	need_checkers
	exec_in_root -- bash -ec "$(declare -f with_checkers); with_checkers \"\$@\"" bash "$(checkers_dir)" "$@"
}
