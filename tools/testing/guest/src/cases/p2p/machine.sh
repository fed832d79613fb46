#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# What management software does with the devices of a virtual machine before it starts the machine,
# and after it has stopped:
#
#   machine.sh start UUID DEVICE...    UUID is that of the machine
#   machine.sh stop DEVICE...
#
# It knows nothing about the types, drivers and parents of the devices.

set -eu

verb=$1
shift
if [ "$verb" = start ]; then
	machine=$1
	shift
fi
for device; do
	uuid=/sys/bus/mdev/devices/$device/peer_to_peer_resource_uuid
	[ -e "$uuid" ] || continue
	case $verb in
	start) echo "$machine" >"$uuid" ;;
	stop) cat /proc/sys/kernel/random/uuid >"$uuid" ;;
	esac
done
