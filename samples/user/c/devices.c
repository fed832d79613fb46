// SPDX-License-Identifier: GPL-2.0
/*
 * Lists the devices of an IOMMU group.
 *
 *	devices /dev/vfio/GROUP
 *	devices /dev/vfio/devices/vfioN
 *
 * A device file is bound to an iommufd first; the devices are those of the group of its device.
 */

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vfio_group.h"

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

/* Binds a device file to an iommufd of its own; does nothing with the file of a group. */
static void bind_device(int device)
{
	struct vfio_device_bind_iommufd bind = { .argsz = sizeof(bind) };

	bind.iommufd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	/* A kernel without IOMMUFD has no device files. */
	if (bind.iommufd < 0 && (errno == ENOENT || errno == ENODEV))
		return;
	if (bind.iommufd < 0)
		err(1, "/dev/iommu");
	if (!ioctl(device, VFIO_DEVICE_BIND_IOMMUFD, &bind))
		printf("the device is bound to an iommufd\n");
	else if (errno != ENOTTY)
		err(1, "VFIO_DEVICE_BIND_IOMMUFD");
	close(bind.iommufd);
}

int main(int argc, char **argv)
{
	struct vfio_group_devices *devices = NULL;
	__u32 needed = sizeof(*devices);
	__u32 size, i;
	int file;

	if (argc != 2)
		errx(2, "usage: devices /dev/vfio/GROUP|/dev/vfio/devices/vfioN");
	file = open(argv[1], O_RDWR | O_CLOEXEC);
	if (file < 0)
		err(1, "%s", argv[1]);
	bind_device(file);

	/* A device may come while we ask. */
	do {
		size = needed;
		devices = realloc(devices, size);
		if (!devices)
			err(1, "%u bytes", size);
		devices->argsz = size;
		devices->flags = 0;
		if (ioctl(file, VFIO_GROUP_GET_DEVICES, devices))
			err(1, "VFIO_GROUP_GET_DEVICES");
		needed = devices->argsz;
	} while (needed > size);

	for (i = 0; i < devices->count; i++) {
		const struct vfio_group_device *device = &devices->devices[i];

		printf("%s %s\n", device->name, state_of(device));
		if (device->holder_pid)
			printf("\topened by %u (%s)\n", device->holder_pid, device->holder_comm);
	}
	free(devices);
	return 0;
}
