/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Additions to the ioctls of a VFIO group: listing the devices of a group, and sharing an address
 * space between groups without passing a container between processes. Other kernels return ENOTTY,
 * or EINVAL on a device file that is not bound to an iommufd.
 *
 * VFIO_GROUP_GET_DEVICES also works on a device file that is bound. The others return ENOTTY there:
 * devices that are attached to one IOAS of an iommufd share its address space.
 */
#ifndef VFIO_GROUP_H
#define VFIO_GROUP_H

#include <linux/types.h>
#include <linux/vfio.h>

/* Ioctls: 0x40 to 0x43 of VFIO_TYPE. The kernel's own ones start at VFIO_BASE, which is 0x64. */

/* No driver is bound; does not block the group. */
#define VFIO_GROUP_DEVICE_UNBOUND	0
/* A VFIO driver offers the device to userspace. */
#define VFIO_GROUP_DEVICE_VFIO		1
/*
 * Bound to a driver with driver_managed_dma, such as a bridge driver; does not block
 * the group.
 */
#define VFIO_GROUP_DEVICE_UNMANAGED	2
/* Bound to a kernel driver; blocks the group. Unbind the driver. */
#define VFIO_GROUP_DEVICE_KERNEL	3
/* A driver is being bound or unbound. Try again. */
#define VFIO_GROUP_DEVICE_CHANGING	4

/* A device of the group. Strings are null-terminated and truncated to fit. */
struct vfio_group_device {
	char	name[64];
	char	driver[32];
	__u32	state;		/* VFIO_GROUP_DEVICE_* */
	/*
	 * PID, in the caller's PID namespace, of the process that opened the device; 0 if not
	 * visible, if it has exited since, or not open.
	 */
	__u32	holder_pid;
	char	holder_comm[16];	/* name of that process */
	__u64	held_ms;	/* time since the open in ms; 0 if not open */
};

/*
 * VFIO_GROUP_GET_DEVICES - _IO(VFIO_TYPE, 0x40, struct vfio_group_devices)
 *
 * Lists the devices of the group. argsz is the size of the structure including the array. The
 * kernel writes as many devices as fit, sets count to the number of devices in the group, and sets
 * argsz to the size needed for all of them.
 *
 * Also works on a device file (/dev/vfio/devices/vfioN) that is bound, for the group of the device.
 *
 * Errors: EFAULT; EINVAL if argsz is smaller than the header, flags is not 0, or a device file is
 * not bound; ENODEV if the last device has left the group.
 */
struct vfio_group_devices {
	__u32	argsz;
	__u32	flags;
	__u32	count;
	__u32	reserved;
#ifndef __cplusplus	/* which has no such members; the devices follow the structure */
	struct vfio_group_device devices[];
#endif
};
#define VFIO_GROUP_GET_DEVICES	_IO(VFIO_TYPE, 0x40)

/*
 * VFIO_GROUP_MERGE - _IO(VFIO_TYPE, 0x41, __s32)
 *
 * Adds another group to the address space of this group. The argument points to the file descriptor
 * of the other group, which must be in no container and have no open device. Same as
 * VFIO_GROUP_SET_CONTAINER on the other group with this group's container, which is created if
 * there is none. Fails if the IOMMU driver cannot attach the group.
 *
 * A process that has this group's file can thus add groups to a container that it cannot open.
 * Their devices reach only memory that the group's own devices already reach.
 *
 * Errors: EFAULT; EBADF if the file is not open; EINVAL if the descriptor is negative, is not a
 * group's or is this group's, if the other group is in a container, or if one of the groups is in
 * an iommufd; EBUSY if one of the groups is not viable; errors of the IOMMU driver. Nothing changes
 * on error.
 */
#define VFIO_GROUP_MERGE	_IO(VFIO_TYPE, 0x41)

/*
 * VFIO_GROUP_UNMERGE - _IO(VFIO_TYPE, 0x42)
 *
 * Removes this group from the shared address space. The other groups keep it.
 *
 * Errors: EINVAL if the address space is not shared; EBUSY while a device of this group is open.
 */
#define VFIO_GROUP_UNMERGE	_IO(VFIO_TYPE, 0x42)

/*
 * VFIO_GROUP_GET_IOMMU_FD - _IO(VFIO_TYPE, 0x43)
 *
 * Returns a file descriptor (O_CLOEXEC) of the group's container. Creates the container, and an
 * address space, if there is none. All merged groups return the same container.
 *
 * The argument is required; 0 for any. It is the type of the address space, as for VFIO_SET_IOMMU. With
 * 0 a new address space has the type VFIO_TYPE1v2_IOMMU, and an existing one any type. A program that
 * passes no argument passes an undefined one, which is refused at random.
 *
 * Works only for containers created by this ioctl or by VFIO_GROUP_MERGE: every process that has
 * the file of one of their groups can map and unmap in them. A container opened as /dev/vfio/vfio
 * is accessible only through that file.
 *
 * Errors: EPERM if the container was opened as /dev/vfio/vfio; EINVAL if the group is in an
 * iommufd, or if the address space has another type; EBUSY if the group is not viable; ENODEV, also
 * if no IOMMU driver has the type; EMFILE; errors of the IOMMU driver.
 */
#define VFIO_GROUP_GET_IOMMU_FD	_IO(VFIO_TYPE, 0x43)

#endif /* VFIO_GROUP_H */
