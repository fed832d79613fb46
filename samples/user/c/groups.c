// SPDX-License-Identifier: GPL-2.0
/*
 * Lets the devices of two groups use one address space, without opening /dev/vfio/vfio.
 *
 *	groups GROUP OTHER-GROUP
 *
 * Merges the groups, maps a page for all of their devices, and undoes all of that. All devices of the
 * groups must be bound to VFIO drivers; the example 'devices' lists them.
 */

#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vfio_group.h"

#define PAGE	4096

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
