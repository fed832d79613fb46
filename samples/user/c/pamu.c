// SPDX-License-Identifier: GPL-2.0
/*
 * Sets up the windows of a container behind a PAMU.
 *
 *	pamu GROUP
 *
 * Maps a page of memory in window 0 and MSI banks in windows 1 and 2, one by its number and one by the
 * file of all banks. Prints what the kernel says about the windows, unmaps all of that, and waits for
 * no violation.
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

static void get(int container, struct vfio_pamu_attr *attr, __u32 attribute)
{
	*attr = (struct vfio_pamu_attr){ .argsz = sizeof(*attr), .attribute = attribute };
	if (ioctl(container, VFIO_IOMMU_PAMU_GET_ATTR, attr))
		err(1, "VFIO_IOMMU_PAMU_GET_ATTR of attribute %u", attribute);
}

/* Divides the addresses that devices can use into windows. */
static void set_windows(int container)
{
	struct vfio_pamu_attr geometry = { .attr_info.attr.aperture_end = WINDOWS * WINDOW - 1 };
	struct vfio_pamu_attr windows = { .attr_info.windows = WINDOWS };
	struct vfio_pamu_attr most;

	set(container, &geometry, VFIO_ATTR_GEOMETRY);
	/* Until it is set, the value is the maximum. */
	get(container, &most, VFIO_ATTR_WINDOWS);
	if (most.attr_info.windows < WINDOWS)
		errx(1, "there can be %u windows at most", most.attr_info.windows);
	set(container, &windows, VFIO_ATTR_WINDOWS);

	get(container, &geometry, VFIO_ATTR_GEOMETRY);
	get(container, &windows, VFIO_ATTR_WINDOWS);
	printf("%u windows from %#llx to %#llx\n", windows.attr_info.windows,
	       (unsigned long long)geometry.attr_info.attr.aperture_start,
	       (unsigned long long)geometry.attr_info.attr.aperture_end);
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

/* Maps bank 0 as if it were memory, for programs that only map memory. */
static void map_bank_by_file(int group, int container, __u64 iova)
{
	struct vfio_iommu_type1_dma_map map = { .argsz = sizeof(map), .iova = iova, .size = PAGE };
	void *page;
	int file;

	file = ioctl(group, VFIO_GROUP_GET_MSI_FD);
	if (file < 0)
		err(1, "VFIO_GROUP_GET_MSI_FD");
	page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0 * PAGE);
	if (page == MAP_FAILED)
		err(1, "mmap of bank 0");
	map.flags = VFIO_DMA_MAP_FLAG_WRITE;
	map.vaddr = (uintptr_t)page;
	if (ioctl(container, VFIO_IOMMU_MAP_DMA, &map))
		err(1, "VFIO_IOMMU_MAP_DMA of bank 0");
	/* The bank stays mapped for the devices. */
	munmap(page, PAGE);
	close(file);
}

static void unmap_bank(int container, __u64 iova)
{
	struct vfio_pamu_msi_bank_unmap unmap = { .argsz = sizeof(unmap), .iova = iova };

	if (ioctl(container, VFIO_IOMMU_PAMU_UNMAP_MSI_BANK, &unmap))
		err(1, "VFIO_IOMMU_PAMU_UNMAP_MSI_BANK");
}

static void unmap_all(int container)
{
	struct vfio_iommu_type1_dma_unmap unmap = { .argsz = sizeof(unmap), .size = WINDOWS * WINDOW };

	if (ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap))
		err(1, "VFIO_IOMMU_UNMAP_DMA");
	printf("%llu bytes were unmapped\n", (unsigned long long)unmap.size);
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
	map_bank_by_file(group, container, 2 * WINDOW);
	print_windows(container);

	/* Here a program would start its device, and poll the eventfd with all others. */
	event = (struct pollfd){ .fd = violations, .events = POLLIN };
	if (poll(&event, 1, 0))
		print_violations(container);

	unmap_bank(container, 1 * WINDOW);
	unmap_all(container);
	print_windows(container);
	return 0;
}
