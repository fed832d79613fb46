#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs in the guest, as 'client container' or 'client compat': dpdk-testpmd forwards packets between
# an igb and an e1000e on the same wire.

drivers=/usr/lib/$(uname -m)-linux-gnu/dpdk/pmds-25.0
said=/tmp/said

# Keeps testpmd's input open until it forwards packets and for some seconds more. testpmd exits at
# the end of its input.
some_seconds() {
	local tries=60
	until grep -q 'Press enter' $said || [ $tries = 0 ]; do
		tries=$((tries - 1))
		sleep 1
	done
	sleep 4
}

if [ "$1" = compat ]; then
	ln -sf ../iommu /dev/vfio/vfio || exit
fi
mkdir -p /dev/hugepages
clients mount -t hugetlbfs -o pagesize=2M none /dev/hugepages
touch $said
# testpmd must flush each line, although its output is a file.
some_seconds | clients env LD_PRELOAD="/usr/libexec/coreutils/libstdbuf.so /guest/usr/lib/client_trace.so" \
	_STDBUF_O=L VFIO_TRACE=/tmp/trace setarch --addr-no-randomize dpdk-testpmd -l 0,1 -a 0000:01:00.0 -a 0000:02:00.0 --iova-mode=va -m 32 \
	--no-telemetry -d "$drivers/librte_net_e1000.so" -d "$drivers/librte_mempool_ring.so" \
	-- --total-num-mbufs=4096 --auto-start --tx-first --forward-mode=io --nb-cores=1 >$said 2>&1
cat $said
echo '=== trace'
cat /tmp/trace
