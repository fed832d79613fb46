# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154,SC2164
#
# Three kernels from one source: the distribution's own, a small one with KUnit, one that checks
# itself. The distribution's own of the other series that the modules are for, and its own for arm64.
# Kernels with other configurations than the small one, made of its build tree.

arch=$host_arch
# The distribution's kernels for arm64, by page size.
arm64_flavours=(arm64 arm64-16k)

# Kernels are built by clang only where KASAN for Rust wants it.
make_args() {
	if [[ $1 == debug ]]; then echo LLVM=1; fi
	case $(arch_of "$1") in
	"$host_arch") ;;
	arm64) echo ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- ;;
	powerpc) echo ARCH=powerpc CROSS_COMPILE=powerpc-linux-gnu- ;;
	esac
}

check_kernel() {
	[[ ${1:-} =~ ^(stock|test|debug)$ || ${1:-} == "stock-$OTHER_SERIES" ]] || is_arm64 "${1:-}" || is_powerpc "${1:-}" || is_config "${1:-}" ||
		die "which kernel? stock, stock-$OTHER_SERIES, ${arm64_flavours[*]/#/stock-}, test, ${powerpc_kernels[*]}, debug, or $(configs | xargs)"
}

is_arm64() {
	[[ " ${arm64_flavours[*]/#/stock-} " == *" $1 "* ]]
}

arch_of() {
	if is_arm64 "$1"; then echo arm64; elif is_powerpc "$1"; then echo powerpc; else echo "$host_arch"; fi
}

# cargo puts programs for another architecture than the machine's into a folder of that target.
# Programs know the page size when they are compiled.
programs_dir() {
	local folder=build/cargo target=
	[[ $1 != *-16k ]] || folder+=-16k
	case $(arch_of "$1") in
	"$host_arch") ;;
	arm64) target=aarch64-unknown-linux-gnu/ ;;
	powerpc) target=powerpc-unknown-linux-gnu/ ;;
	esac
	echo "$folder/${target}release"
}

# select_series KERNEL: the series of the kernel.
select_series() {
	if [[ $1 == stock-"$OTHER_SERIES" ]]; then KERNEL_SERIES=$OTHER_SERIES; fi
}

# The names of the configurations.
configs() {
	local file
	for file in "$here"/kernel/configs/*.config; do
		file=${file##*/}
		echo "config-${file%.config}"
	done
}

is_config() {
	[[ $1 == config-* && -e $here/kernel/configs/${1#config-}.config ]]
}

need_kernel() {
	check_kernel "$@"
	need_arch "$(arch_of "$1")"
	local KERNEL_SERIES=$KERNEL_SERIES
	select_series "$1"
	if is_arm64 "$1"; then
		make_complete "$(linux_arm64_dir)" make_linux_arm64
	else
		make_complete "$(linux_dir)" make_linux
	fi
	case $1 in
	stock*) make_complete "$(kernel_dir "$1")" make_stock "$1" ;;
	test-powerpc*)
		make_complete "$(linux_powerpc_dir)" make_linux_powerpc
		[[ $1 != *-pamu ]] || need_kernel test-powerpc
		make_complete "$(kernel_dir "$1")" make_kernel_powerpc "$1"
		;;
	config-*)
		need_kernel test
		make_complete "$(kernel_dir "$1")" make_config "$1"
		;;
	*) make_complete "$(kernel_dir "$1")" make_own "$1" ;;
	esac
}

need_image() {
	need_kernel "$@"
	need_qemu "$1"
}

# The distribution's packages of the series, unpacked.
linux_dir() {
	echo "$cache/linux-$(key "$KERNEL_SERIES" "$(declare -f make_linux unpack_linux)")"
}

# The folder below which the kernel's packages and its source are: pkg, source, version.
linux_of() {
	if is_arm64 "$1"; then
		echo "$(linux_arm64_dir)/${1#stock-}"
	else
		linux_dir
	fi
}

# The distribution's kernels for arm64, unpacked, each in a folder of its own.
linux_arm64_dir() {
	echo "$cache/linux-arm64-$(key "$KERNEL_SERIES" "${arm64_flavours[@]}" "$(declare -f make_linux_arm64 find_packages_arm64 unpack_linux_arm64)")"
}

kernel_dir() {
	local linux recipe KERNEL_SERIES=$KERNEL_SERIES
	if is_powerpc "$1"; then
		powerpc_kernel_dir "$1"
		return
	fi
	select_series "$1"
	linux=$(linux_of "$1")
	if [[ $1 == stock* ]]; then
		recipe=$(declare -f stock_in_root)
	elif [[ $1 == config-* ]]; then
		recipe=$(declare -f configure_own compile_own copy_tree shrink_tree; kernel_dir test; fragments "$1" | xargs cat)
	else
		recipe=$(declare -f configure_own compile_own; fragments "$1" | xargs cat)
	fi
	echo "$cache/$1-$(key "${linux##*/}" "$(<"$linux/version")" "$(toolchain)" "$recipe")"
}

# The config files of one of our kernels; what a later one says goes.
fragments() {
	echo "$here/kernel/test.config"
	case $1 in
	debug) echo "$here/kernel/debug.config" ;;
	config-*) echo "$here/kernel/configs/${1#config-}.config" ;;
	esac
}

make_linux() {
	local dir=$1 log=$1.log apt names
	: >"$log"
	mkdir -p "$dir/apt/lists/partial" "$dir/apt/archives/partial" "$dir/debs"
	apt="-o Dir::State=$dir/apt -o Dir::Cache=$dir/apt -o Dir::State::status=/var/lib/dpkg/status -o APT::Sandbox::User=root"
	run_step "asking the mirror for kernels" "$log" "${in_root[@]}" bash -ec \
		"apt-get $apt update && apt-cache $apt dumpavail | awk '/^Package: linux-/ { p = \$2 } /^Version:/ && p { print p, \$2; p = \"\" }' >$dir/available"
	names=$(find_packages "$dir/available")
	run_step "fetching Linux $KERNEL_SERIES: $(wc -w <<<"$names") packages" "$log" "${in_root[@]}" bash -ec \
		"cd $dir/debs && apt-get $apt download ${names//$'\n'/ }"
	run_step "unpacking them" "$log" "${in_root[@]}" bash -ec "$(declare -f unpack_linux); unpack_linux $dir"
	rm -rf "$dir/apt" "$dir/debs" "$log"
}

make_linux_arm64() {
	local dir=$1 log=$1.log apt names
	: >"$log"
	mkdir -p "$dir/apt/lists/partial" "$dir/apt/archives/partial" "$dir/debs"
	apt="-o Dir::State=$dir/apt -o Dir::Cache=$dir/apt -o Dir::State::status=/dev/null -o APT::Sandbox::User=root -o APT::Architecture=arm64 -o APT::Architectures=arm64"
	run_step "asking the mirror for kernels for arm64" "$log" "${in_root[@]}" bash -ec \
		"apt-get $apt update && apt-cache $apt dumpavail | awk '/^Package: linux-/ { p = \$2 } /^Version:/ && p { print p, \$2; p = \"\" }' >$dir/available"
	names=$(find_packages_arm64 "$dir/available")
	run_step "fetching Linux $KERNEL_SERIES for arm64: $(wc -w <<<"$names") packages" "$log" "${in_root[@]}" bash -ec \
		"cd $dir/debs && apt-get $apt download ${names//$'\n'/ }"
	run_step "unpacking them" "$log" "${in_root[@]}" bash -ec \
		"$(declare -f unpack_linux_arm64); unpack_linux_arm64 $dir ${arm64_flavours[*]}"
	rm -rf "$dir/apt" "$dir/debs" "$log"
}

# The packages of all flavours, in the version that the source has.
find_packages_arm64() {
	local available=$1 arch found names=
	for arch in "${arm64_flavours[@]}"; do
		found=$(find_packages "$available") || return
		names+=$found$'\n'
	done
	sort -u <<<"${names%$'\n'}"
}

# Runs in the build root: DIR/debs to FLAVOUR/pkg and FLAVOUR/source below DIR.
unpack_linux_arm64() {
	local flavour deb
	cd "$1"
	shift
	dpkg -x debs/linux-source-*.deb .
	mkdir source
	tar --extract --file usr/src/linux-source-*.tar.xz --strip-components=1 --directory=source
	rm -rf usr
	for flavour; do
		mkdir "$flavour"
		for deb in debs/linux-*+deb*-"${flavour}"_*.deb; do
			dpkg -x "$deb" "$flavour/pkg"
		done
		ln -s ../source "$flavour/source"
		basename "$flavour"/pkg/usr/lib/modules/* >"$flavour/version"
	done
}

# The packages of the series, when all of them are there in the version that the source has.
find_packages() {
	local source version names
	source=linux-source-$KERNEL_SERIES
	version=$(awk -v p="$source" '$1 == p { print $2 }' "$1")
	names=$(awk -v v="$version" -v n="-${version%%-*}[+]deb[0-9.]+-$arch\$" \
		'$2 == v && $1 ~ "^linux-(binary-unsigned|modules|headers)" n { print $1 }' "$1")
	[[ $(wc -w <<<"$names") == 3 ]] || die "the mirror has no whole Linux $KERNEL_SERIES any more, but" \
		"$(series_in "$1"); the modules build for 7.3 and $OTHER_SERIES: see Without packages in Documentation/install.rst"
	printf '%s\n' "$source" "$names"
}

series_in() {
	awk '/^linux-source-/ { source[$2] = substr($1, 14) }
		/^linux-binary-unsigned-.*-'"$arch"' / && $1 !~ /-(rt|cloud)-/ { binary[$2] = 1 }
		END { for (v in source) if (v in binary) print source[v] }' "$1" | sort -V | xargs
}

# Runs in the build root: DIR/debs to DIR/pkg and DIR/source.
unpack_linux() {
	cd "$1"
	for deb in debs/*.deb; do
		dpkg -x "$deb" pkg
	done
	mkdir source
	tar --extract --file pkg/usr/src/linux-source-*.tar.xz --strip-components=1 --directory=source
	rm -f pkg/usr/src/linux-source-*.tar.xz
	basename pkg/usr/lib/modules/* >version
}

# No kernel is compiled: the shipped config, the Rust crates, and the shipped kernel's symbol list.
make_stock() {
	local dir=$2 log=$2.log linux in_root_for
	linux=$(linux_of "$1")
	set_in_root_for "$1"
	: >"$log"
	run_step "preparing the stock kernel $(<"$linux/version") for building modules" "$log" \
		"${in_root_for[@]}" bash -ec "$(declare -f stock_in_root); stock_in_root $linux $dir"
	rm -f "$log"
}

stock_in_root() {
	local linux=$1 dir=$2 version headers
	version=$(<"$linux/version")
	headers=$linux/pkg/usr/src/linux-headers-$version
	mkdir -p "$dir/out" "$dir/modules/lib/modules"
	cd "$dir/out"
	cp "$headers/.config" .config
	# These name files which only the distribution has.
	"$linux/source/scripts/config" --set-str SYSTEM_TRUSTED_KEYS "" --set-str MODULE_SIG_KEY ""
	make -C "$linux/source" O="$PWD" olddefconfig
	echo "+${version#*+}" >localversion
	make -C "$linux/source" O="$PWD" -j"$(nproc)" LOCALVERSION= modules_prepare
	cp "$headers/Module.symvers" Module.symvers
	cp -al "$linux/pkg/usr/lib/modules/$version" "$dir/modules/lib/modules/"
	depmod -b "$dir/modules" "$version"
	ln "$linux/pkg/usr/lib/modules/$version/vmlinuz.unsigned" "$dir/image"
	echo "$version" >"$dir/version"
}

# Our own kernels: the fragments over allnoconfig.
make_own() {
	local kernel=$1 dir=$2 log=$2.log linux files
	linux=$(linux_dir)
	files=$(fragments "$kernel" | xargs)
	: >"$log"
	run_step "configuring the $kernel kernel" "$log" "${in_root[@]}" \
		bash -ec "$(declare -f configure_own); configure_own $linux $dir '$(make_args "$kernel")' $files"
	run_step "compiling the $kernel kernel" "$log" "${in_root[@]}" \
		bash -ec "$(declare -f compile_own); compile_own $dir '$(make_args "$kernel")'"
	rm -f "$log"
}

configure_own() {
	local linux=$1 dir=$2 args=$3
	shift 3
	mkdir -p "$dir/out"
	cd "$dir/out"
	cat "$@" >fragments
	echo "-vfio-$(basename "$dir" | cut -d - -f 1)" >localversion
	make -C "$linux/source" O="$PWD" ${args:+"$args"} KCONFIG_ALLCONFIG="$PWD/fragments" allnoconfig
	# What was asked for last must be what is there.
	awk -F = '
		{ name = $1 }
		/^# CONFIG_.* is not set/ { split($0, word, " "); name = word[2] }
		FILENAME == ".config" { real[name] = $0; next }
		name ~ /^CONFIG_/ { wanted[name] = $0 }
		END {
			for (name in wanted) {
				is = name in real ? real[name] : "# " name " is not set"
				if (wanted[name] != is) {
					print "wanted: " wanted[name] ", got: " is
					bad = 1
				}
			}
			exit bad
		}' fragments .config
}

# Another configuration, compiled in a copy of the test kernel's tree: Kbuild compiles what depends on
# an option that differs.
make_config() {
	local name=$1 dir=$2 log=$2.log linux files
	linux=$(linux_dir)
	files=$(fragments "$name" | xargs)
	: >"$log"
	run_step "copying the tree of the test kernel" "$log" "${in_root[@]}" \
		bash -ec "$(declare -f copy_tree); copy_tree $(kernel_dir test) $dir"
	run_step "configuring $name" "$log" "${in_root[@]}" \
		bash -ec "$(declare -f configure_own); configure_own $linux $dir '' $files"
	run_step "compiling $name" "$log" "${in_root[@]}" \
		bash -ec "$(declare -f compile_own shrink_tree); compile_own $dir '' && shrink_tree $dir"
	rm -f "$log"
}

# The commands of Rust crates have the path of the tree, and a changed command is run again.
copy_tree() {
	local from=$1 to=$2
	cp -a --reflink=auto "$from/out" "$to/out"
	grep -rlZF --include='.*.cmd' "$from/" "$to/out" | xargs -0 sed -i "s|$from/|$to/|g"
}

# Leaves what modules are built with.
shrink_tree() {
	cd "$1/out"
	find . -type f -not -path './scripts/*' -not -path './tools/*' \
		\( -name '*.o' -o -name '*.a' -o -name '*.ko' -o -name '.*.cmd' -o -name '*.symtypes' \) -delete
	rm -f vmlinux vmlinux.unstripped .tmp_vmlinux* arch/x86/boot/bzImage arch/x86/boot/vmlinux.bin \
		arch/x86/boot/compressed/vmlinux*
}

compile_own() {
	local dir=$1 args=$2
	cd "$dir/out"
	make -j"$(nproc)" ${args:+"$args"} LOCALVERSION= bzImage modules
	make ${args:+"$args"} LOCALVERSION= INSTALL_MOD_PATH="$dir/modules" INSTALL_MOD_STRIP=1 modules_install
	ln -f arch/x86/boot/bzImage "$dir/image"
	cat include/config/kernel.release >"$dir/version"
}
