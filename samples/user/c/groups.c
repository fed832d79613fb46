// SPDX-License-Identifier: GPL-2.0
/*
 * Lets the devices of two groups use one address space, without opening /dev/vfio/vfio.
 *
 *	groups GROUP OTHER-GROUP
 *
 * Lists the devices of both groups, merges the groups, maps a page for all of their devices, and
 * undoes all of that. All devices of the groups must be bound to VFIO drivers.
 */

#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vfio_group.h"

#define PAGE	4096
#define ARRAY_SIZE(array)	(sizeof(array) / sizeof((array)[0]))

static const char *const states[] = {
	[VFIO_GROUP_DEVICE_UNBOUND] = "has no driver",
	[VFIO_GROUP_DEVICE_VFIO] = "can be opened",
	[VFIO_GROUP_DEVICE_UNMANAGED] = "has a driver that does no DMA",
	[VFIO_GROUP_DEVICE_KERNEL] = "has a driver of the host: unbind it",
	[VFIO_GROUP_DEVICE_CHANGING] = "is being bound or unbound",
};

static const char *state_of(const struct vfio_group_device *device)
{
	return device->state < ARRAY_SIZE(states) ? states[device->state] : "?";
}

static int open_group(const char *number)
{
	char path[64];
	int group;

	snprintf(path, sizeof(path), "/dev/vfio/%s", number);
	group = open(path, O_RDWR | O_CLOEXEC);
	if (group < 0)
		err(1, "%s", path);
	return group;
}

static void list_devices(const char *number, int group)
{
	struct vfio_group_devices *devices = NULL;
	__u32 needed = sizeof(*devices);
	__u32 size, i;

	/* A device may come while we ask. */
	do {
		size = needed;
		devices = realloc(devices, size);
		if (!devices)
			err(1, "%u bytes", size);
		devices->argsz = size;
		devices->flags = 0;
		if (ioctl(group, VFIO_GROUP_GET_DEVICES, devices))
			err(1, "VFIO_GROUP_GET_DEVICES of group %s", number);
		needed = devices->argsz;
	} while (needed > size);

	for (i = 0; i < devices->count; i++) {
		const struct vfio_group_device *device = &devices->devices[i];

		printf("group %s: %s %s\n", number, device->name, state_of(device));
		if (device->holder_pid)
			printf("\topened by %u (%s)\n", device->holder_pid, device->holder_comm);
	}
	free(devices);
}

int main(int argc, char **argv)
{
	struct vfio_iommu_type1_dma_unmap unmap = { .argsz = sizeof(unmap), .size = PAGE };
	struct vfio_iommu_type1_dma_map map = { .argsz = sizeof(map), .size = PAGE };
	int group, other, container;
	void *page;

	if (argc != 3)
		errx(2, "usage: groups GROUP OTHER-GROUP");
	group = open_group(argv[1]);
	other = open_group(argv[2]);
	list_devices(argv[1], group);
	list_devices(argv[2], other);

	if (ioctl(group, VFIO_GROUP_MERGE, &other))
		err(1, "VFIO_GROUP_MERGE");
	container = ioctl(group, VFIO_GROUP_GET_IOMMU_FD, VFIO_TYPE1v2_IOMMU);
	if (container < 0)
		err(1, "VFIO_GROUP_GET_IOMMU_FD");

	page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		err(1, "mmap");
	map.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
	map.vaddr = (uintptr_t)page;
	if (ioctl(container, VFIO_IOMMU_MAP_DMA, &map))
		err(1, "VFIO_IOMMU_MAP_DMA");
	printf("the devices of both groups reach a page of this program at iova 0\n");

	if (ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap))
		err(1, "VFIO_IOMMU_UNMAP_DMA");
	if (unmap.size != PAGE)
		errx(1, "%llu bytes were unmapped", (unsigned long long)unmap.size);
	if (ioctl(other, VFIO_GROUP_UNMERGE))
		err(1, "VFIO_GROUP_UNMERGE");
	close(container);
	close(other);
	close(group);
	return 0;
}
