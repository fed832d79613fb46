#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs in the guest, as 'client container', 'client compat' or 'client iommufd': QEMU, with the
# guest's e1000e assigned. Its nested guest is iPXE, which requests an address and a file over that
# device, and executes the file.

device=vfio-pci,host=0000:01:00.0
case $1 in
compat) ln -sf ../iommu /dev/vfio/vfio || exit ;;
iommufd)
	device="$device,iommufd=iommufd"
	object="-object iommufd,id=iommufd"
	;;
esac
# shellcheck disable=SC2086
timeout 150 clients env LD_PRELOAD=/guest/usr/lib/client_trace.so VFIO_TRACE=/tmp/trace \
	setarch --addr-no-randomize qemu-system-x86_64 -name small,debug-threads=on -nodefaults -no-user-config \
	-display none -no-reboot -M q35,graphics=off -vga none -accel tcg -m 64 \
	$object -device $device -kernel /usr/lib/ipxe/ipxe.lkrn -serial stdio </dev/null 2>&1 |
	tr -d '\033\r'
echo '=== trace'
cat /tmp/trace
