# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2016,SC2034,SC2153,SC2154,SC2164
#
# The disk of an installed Debian, with systemd and a boot loader, for tools/testing/installation. And what
# makes disks and firmware, unpacked into a folder of its own and laid over the root's /usr for the commands
# that need it.

disk_tools=(
	# disks
	dosfstools e2fsprogs fdisk mtools qemu-utils
	# a firmware that verifies signatures
	ovmf
)

disk_packages=(
	systemd-sysv udev dbus kmod initramfs-tools zstd openssl xz-utils e2fsprogs
	# booting, as Debian's installer sets it up
	grub-efi-amd64-signed shim-signed mokutil
	# signing
	dkms
	# machines that are given devices
	libvirt-daemon-system libvirt-clients qemu-system-x86 mdevctl
)

# As in the packages' machine. Few modules make a small initramfs, which emulation needs less time for; vfio
# is one of them, so that the machine loads it from there.
disk_initramfs_modules="virtio_pci virtio_blk ext4 vfio"
# Drivers that this machine has no use for are left out: depmod takes long for them where it is emulated.
disk_left_out=(
	sound net/{netfilter,sched}
	drivers/{bluetooth,comedi,edac,gpu,hid,hwmon,i2c,iio,infiniband,input,leds,media,mmc,mtd,net,platform}
	drivers/{thermal,usb,video,w1,watchdog}
)
disk_cmdline="console=ttyS0 intel_iommu=on no_timer_check"
# An emulated machine on a busy host is not hung after 90 seconds.
disk_timeouts="DefaultTimeoutStartSec=20min DefaultTimeoutStopSec=5min DefaultDeviceTimeoutSec=20min"

disk_tools_dir() {
	local root
	root=$(root_dir)
	echo "$cache/root-disk-tools-$(key "${root##*/}" "${disk_tools[@]}" "$(declare -f make_disk_tools fetch_packages)")"
}

need_disk_tools() {
	[[ ! -e /.buildroot ]] || is_complete "$(disk_tools_dir)" ||
		die "the tools for disks are missing: run 'tools/testing/buildroot prepare disk' on the host"
	need_root
	make_complete "$(disk_tools_dir)" make_disk_tools
}

make_disk_tools() {
	local dir=$1 log=$1.log
	: >"$log"
	fetch_packages "the tools for disks" "$log" "$dir" "-o Dir::State::status=/var/lib/dpkg/status" \
		install "${disk_tools[@]}"
	rm -f "$log"
}

# disk-exec COMMAND [ARG...]: runs COMMAND within the build root, with the tools for disks and the firmware.
exec_with_disk_tools() {
	need_disk_tools
	set_over_usr disk-tools "$(disk_tools_dir)"
	exec_in_root -- "${over_usr[@]}" "$@"
}

# What the disk is made of. The first of the releases is installed later.
disk_key() {
	local tools
	tools=$(disk_tools_dir)
	key "$SUITE" "${disk_packages[@]}" "$machine_pins" "$disk_initramfs_modules" "$disk_cmdline" "$disk_timeouts" "${disk_left_out[*]}" "$(machine_releases)" \
		"${tools##*/}" "$(<"$here/installation/agent")" "$(<"$here/installation/agent.service")" \
		"$(declare -f make_disk make_disk_root make_disk_image disk_grub_cfg)"
}

disk_dir() {
	echo "$cache/root-disk-$(disk_key)"
}

need_disk() {
	[[ ! -e /.buildroot ]] || is_complete "$(disk_dir)" ||
		die "the installed Debian is missing: run 'tools/testing/buildroot prepare disk' on the host"
	need_kernel stock
	need_kernel "stock-$OTHER_SERIES"
	need_disk_tools
	make_complete "$(disk_dir)" make_disk
}

make_disk() {
	local dir=$1 log=$1.log releases
	need_mmdebstrap
	print_sources >"$dir.list"
	mapfile -t releases < <(machine_releases)
	: >"$log"
	run_step "making a Debian $SUITE with Linux ${releases[1]}" "$log" bash -ec \
		"$(declare -f make_disk_root); make_disk_root \"\$@\"" bash "$dir" "$SUITE" "$here/installation" "$machine_pins" \
		"${releases[*]}" "$disk_initramfs_modules" "$disk_cmdline" "$disk_timeouts" "${disk_left_out[*]}" \
		"${disk_packages[*]}"
	run_step "making a disk of it" "$log" "$self" disk-exec bash -ec \
		"$(declare -f make_disk_image disk_grub_cfg); make_disk_image \"\$@\"" bash "$dir" "${releases[1]}" "$disk_cmdline"
	in_namespace rm -rf --one-file-system "$dir/root"
	rm -f "$dir.list" "$log"
}

# The packages of the newer kernel are fetched, not installed.
make_disk_root() {
	local dir=$1 suite=$2 files=$3 pins=$4 kernels=$5 modules=$6 cmdline=$7 timeouts=$8 left_out=$9 packages=${10} new old
	read -r new old <<<"$kernels"
	export pins new modules cmdline timeouts left_out files
	mmdebstrap --mode=root --variant=minbase --include="$packages linux-image-$old linux-headers-$old" \
		--dpkgopt=force-unsafe-io --setup-hook='echo "$pins" >"$1/etc/apt/preferences.d/disk"' \
		--essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/etc/default"
			printf "path-exclude=/usr/lib/modules/*/kernel/%s/*\n" $left_out >"$1/etc/dpkg/dpkg.cfg.d/modules"
			printf "MODULES=list\nCOMPRESS=gzip\nCOMPRESSLEVEL=1\n" >"$1/etc/initramfs-tools/conf.d/small"
			printf "%s\n" $modules >"$1/etc/initramfs-tools/modules"
			printf "GRUB_TIMEOUT=0\nGRUB_RECORDFAIL_TIMEOUT=0\nGRUB_CMDLINE_LINUX_DEFAULT=\nGRUB_CMDLINE_LINUX=\"%s\"\n" "$cmdline" >"$1/etc/default/grub"' \
		--customize-hook='APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get install --yes --download-only --no-install-recommends "linux-image-$new"
			mkdir "$1/srv/kernel"; mv "$1"/var/cache/apt/archives/linux-*.deb "$1/srv/kernel"
			rm -f "$1"/var/cache/apt/archives/*.deb "$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
			install "$files/agent" "$1/usr/local/sbin/agent"; install -m 644 "$files/agent.service" "$1/etc/systemd/system/"
			chroot "$1" systemctl enable agent.service
			chroot "$1" systemctl disable libvirtd.service virtlogd.service libvirt-guests.service e2scrub_reap.service
			chroot "$1" systemctl mask getty@tty1.service serial-getty@ttyS0.service apt-daily.timer apt-daily-upgrade.timer man-db.timer fstrim.timer e2scrub_all.timer dpkg-db-backup.timer
			mkdir "$1/etc/systemd/system.conf.d"
			printf "%s\n" "[Manager]" $timeouts >"$1/etc/systemd/system.conf.d/emulated.conf"
			printf "LABEL=disk / ext4 errors=remount-ro 0 1\nLABEL=ESP /boot/efi vfat umask=0077 0 1\n" >"$1/etc/fstab"
			mkdir -p "$1/boot/efi"; echo machine >"$1/etc/hostname"; echo "127.0.0.1 localhost machine" >"$1/etc/hosts"
			: >"$1/etc/machine-id"; rm -f "$1/var/lib/dbus/machine-id"; touch "$1/etc/.updated" "$1/var/.updated"' \
		"$suite" "$dir/root" "$dir.list"
}

# The first menu. The kernels' packages replace it by that of update-grub.
disk_grub_cfg() {
	cat <<-END
		search --no-floppy --label --set=root disk
		linux /boot/vmlinuz-$1 root=LABEL=disk ro $2
		initrd /boot/initrd.img-$1
		boot
	END
}

# Runs in the build root, with the tools for disks: DIR/root to DIR/disk, with a partition for the firmware,
# and a second one with everything else.
make_disk_image() {
	local dir=$1 release=$2 cmdline=$3 esp
	mkdir -p "$dir/root/boot/grub"
	disk_grub_cfg "$release" "$cmdline" >"$dir/root/boot/grub/grub.cfg"
	esp=$dir/esp
	truncate --size 64M "$esp"
	mkfs.vfat -n ESP "$esp"
	# The firmware starts this one if it knows no other.
	mmd -i "$esp" ::EFI ::EFI/BOOT ::EFI/debian
	mcopy -i "$esp" "$dir/root/usr/lib/shim/shimx64.efi.signed" ::EFI/BOOT/BOOTX64.EFI
	mcopy -i "$esp" "$dir/root/usr/lib/shim/mmx64.efi.signed" ::EFI/BOOT/mmx64.efi
	mcopy -i "$esp" "$dir/root/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed" ::EFI/BOOT/grubx64.efi
	printf '%s\n' 'search --no-floppy --label --set=root disk' 'set prefix=($root)/boot/grub' 'configfile $prefix/grub.cfg' |
		mcopy -i "$esp" - ::EFI/debian/grub.cfg
	truncate --size 6G "$dir/disk"
	printf '%s\n' 'label: gpt' 'start=2048, size=131072, type=uefi' 'start=133120, type=linux' | sfdisk "$dir/disk"
	dd if="$esp" of="$dir/disk" bs=1M seek=1 conv=notrunc
	mke2fs -q -t ext4 -L disk -d "$dir/root" -E "offset=$((133120 * 512))" "$dir/disk" "$((6 * 1024 - 66))M"
	rm "$esp"
}
