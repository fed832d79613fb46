// SPDX-License-Identifier: GPL-2.0
/*
 * Sets up the windows of a container behind a PAMU.
 *
 *	pamu GROUP
 *
 * Maps a page of memory in window 0 and an MSI bank in window 1, prints what the kernel says about
 * the windows, and waits for no violation.
 */

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vfio_pamu.h"

#define PAGE	4096
#define WINDOW	PAGE
#define WINDOWS	4

static void set(int container, struct vfio_pamu_attr *attr, __u32 attribute)
{
	attr->argsz = sizeof(*attr);
	attr->attribute = attribute;
	if (ioctl(container, VFIO_IOMMU_PAMU_SET_ATTR, attr))
		err(1, "VFIO_IOMMU_PAMU_SET_ATTR of attribute %u", attribute);
}

/* Divides the addresses that devices can use into windows. */
static void set_windows(int container)
{
	struct vfio_pamu_attr geometry = { .attr_info.attr.aperture_end = WINDOWS * WINDOW - 1 };
	struct vfio_pamu_attr windows = { .attr_info.windows = WINDOWS };

	set(container, &geometry, VFIO_ATTR_GEOMETRY);
	set(container, &windows, VFIO_ATTR_WINDOWS);
}

static void map_memory(int container, __u64 iova)
{
	struct vfio_iommu_type1_dma_map map = { .argsz = sizeof(map), .iova = iova, .size = PAGE };
	void *page;

	page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		err(1, "mmap");
	map.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
	map.vaddr = (uintptr_t)page;
	if (ioctl(container, VFIO_IOMMU_MAP_DMA, &map))
		err(1, "VFIO_IOMMU_MAP_DMA");
}

static void map_bank(int container, __u64 iova)
{
	struct vfio_pamu_msi_bank_map map = { .argsz = sizeof(map), .iova = iova };
	int banks;

	banks = ioctl(container, VFIO_IOMMU_PAMU_GET_MSI_BANK_COUNT);
	if (banks < 0)
		err(1, "VFIO_IOMMU_PAMU_GET_MSI_BANK_COUNT");
	printf("%d MSI banks\n", banks);
	map.flags = VFIO_DMA_MAP_FLAG_WRITE;
	map.msi_bank_index = banks - 1;
	if (ioctl(container, VFIO_IOMMU_PAMU_MAP_MSI_BANK, &map))
		err(1, "VFIO_IOMMU_PAMU_MAP_MSI_BANK");
}

static void print_windows(int container)
{
	__u32 i;

	for (i = 0; i < WINDOWS; i++) {
		struct vfio_pamu_window window = { .argsz = sizeof(window), .window = i };

		if (ioctl(container, VFIO_IOMMU_PAMU_GET_WINDOW, &window))
			err(1, "VFIO_IOMMU_PAMU_GET_WINDOW of window %u", i);
		printf("window %u at %#llx: ", i, (unsigned long long)window.iova);
		if (window.flags & VFIO_PAMU_WINDOW_MEMORY)
			printf("%llu bytes of memory\n", (unsigned long long)window.size);
		else if (window.flags & VFIO_PAMU_WINDOW_MSI)
			printf("MSI bank %u\n", window.bank);
		else
			printf("free\n");
	}
}

/* Prints the violation of each device that the PAMU has shut off. */
static void print_violations(int container)
{
	struct vfio_pamu_violation violation = { .argsz = sizeof(violation) };

	for (; !ioctl(container, VFIO_IOMMU_PAMU_GET_VIOLATION, &violation); violation.liodn++) {
		printf("LIODN %u accessed %#llx\n", violation.liodn, (unsigned long long)violation.iova);
		if (ioctl(container, VFIO_IOMMU_PAMU_REVIVE, &violation.liodn))
			err(1, "VFIO_IOMMU_PAMU_REVIVE");
	}
	if (errno != ENOENT)
		err(1, "VFIO_IOMMU_PAMU_GET_VIOLATION");
}

int main(int argc, char **argv)
{
	int container, group, violations;
	struct pollfd event;
	char path[64];

	if (argc != 2)
		errx(2, "usage: pamu GROUP");
	snprintf(path, sizeof(path), "/dev/vfio/%s", argv[1]);
	container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	group = open(path, O_RDWR | O_CLOEXEC);
	if (container < 0 || group < 0)
		err(1, "%s", container < 0 ? "/dev/vfio/vfio" : path);
	if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container))
		err(1, "VFIO_GROUP_SET_CONTAINER");
	if (ioctl(container, VFIO_SET_IOMMU, VFIO_FSL_PAMU_IOMMU))
		err(1, "VFIO_SET_IOMMU: is there a PAMU?");

	violations = eventfd(0, EFD_CLOEXEC);
	if (violations < 0)
		err(1, "eventfd");
	if (ioctl(container, VFIO_IOMMU_PAMU_SET_VIOLATION_EVENTFD, &violations))
		err(1, "VFIO_IOMMU_PAMU_SET_VIOLATION_EVENTFD");

	set_windows(container);
	map_memory(container, 0 * WINDOW);
	map_bank(container, 1 * WINDOW);
	print_windows(container);

	/* Here a program would start its device, and poll the eventfd with all others. */
	event = (struct pollfd){ .fd = violations, .events = POLLIN };
	if (poll(&event, 1, 0))
		print_violations(container);
	return 0;
}
