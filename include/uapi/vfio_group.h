/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Requests on a VFIO group's file beyond those of <linux/vfio.h>: who is in the group, and groups
 * that share one address space without a container being passed around.
 *
 * A kernel without them answers ENOTTY.
 */
#ifndef VFIO_GROUP_H
#define VFIO_GROUP_H

#include <linux/types.h>
#include <linux/vfio.h>

/* Nothing is bound to the device: it does not block the group. */
#define VFIO_GROUP_DEVICE_UNBOUND	0
/* A VFIO driver offers the device to userspace. */
#define VFIO_GROUP_DEVICE_VFIO		1
/* A driver that leaves DMA alone, such as that of a bridge: it does not block the group. */
#define VFIO_GROUP_DEVICE_UNMANAGED	2
/* A driver of the kernel's own uses the device: it blocks the group. Unbind it. */
#define VFIO_GROUP_DEVICE_KERNEL	3
/* A driver is just being bound or unbound. Ask again. */
#define VFIO_GROUP_DEVICE_CHANGING	4

/* A member of a group. Strings end in a zero byte; too long ones are cut. */
struct vfio_group_device {
	char	name[64];
	char	driver[32];
	__u32	state;		/* VFIO_GROUP_DEVICE_* */
	/*
	 * The process that opened the device, by its number in the PID namespace of the caller: zero if
	 * it is not visible there, or if the device is not open.
	 */
	__u32	holder_pid;
	char	holder_comm[16];	/* its name */
	__u64	held_ms;	/* for how long, in milliseconds; zero if the device is not open */
};

/*
 * VFIO_GROUP_GET_DEVICES - _IO(VFIO_TYPE, VFIO_BASE + 64, struct vfio_group_devices)
 *
 * Lists the devices of the group. The caller gives in argsz the size of the structure with room
 * for some devices behind it. count is the number of devices in the group; as many as there is room
 * for are written, and argsz becomes the size that all of them take.
 *
 * Errors: EFAULT; EINVAL if argsz is too small for the structure itself or flags is not zero;
 * ENODEV once the last device has left the group.
 */
struct vfio_group_devices {
	__u32	argsz;
	__u32	flags;
	__u32	count;
	__u32	reserved;
	struct vfio_group_device devices[];
};
#define VFIO_GROUP_GET_DEVICES	_IO(VFIO_TYPE, VFIO_BASE + 64)

/*
 * VFIO_GROUP_MERGE - _IO(VFIO_TYPE, VFIO_BASE + 65, __s32)
 *
 * Lets another group, whose file descriptor the argument points at, join this group's address
 * space. That group must be idle: in no container, no device open. This one may be in use. It is the
 * same as VFIO_GROUP_SET_CONTAINER of the other group with this group's container, which is made if
 * there is none yet. Merging is a request: where the IOMMU refuses, use the groups apart.
 *
 * So a process that has a group's file can let further groups join the group's container, even if it
 * can't reach the container itself: their devices reach no memory that the group's own do not.
 *
 * Errors: EFAULT; EBADF for no open file; EINVAL for a negative number, another kind of file, this
 * group itself, or a group that is not idle; EBUSY if one of the groups is not viable; else
 * what the IOMMU backend says. Then both groups are as they were.
 */
#define VFIO_GROUP_MERGE	_IO(VFIO_TYPE, VFIO_BASE + 65)

/*
 * VFIO_GROUP_UNMERGE - _IO(VFIO_TYPE, VFIO_BASE + 66)
 *
 * Takes this group out of the address space that it shares; the others keep it.
 *
 * Errors: EINVAL if it shares none; EBUSY while a device of this group is open.
 */
#define VFIO_GROUP_UNMERGE	_IO(VFIO_TYPE, VFIO_BASE + 66)

/*
 * VFIO_GROUP_GET_IOMMU_FD - _IO(VFIO_TYPE, VFIO_BASE + 67)
 *
 * Returns a file descriptor (close-on-exec) of the group's container, with its address space: both
 * are made if the group has none yet, the latter as VFIO_TYPE1v2_IOMMU. All merged groups give
 * the same container.
 *
 * Only a container that was made for a group, by this request or by VFIO_GROUP_MERGE, can be had so. To
 * such a container the files of its groups are the keys: a process that gets one of them can map and
 * unmap for all groups in it. A container that a program opened as /dev/vfio/vfio stays with those that got
 * its descriptor from that program, as without these requests.
 *
 * Errors: EPERM for a container that was opened as /dev/vfio/vfio; EBUSY if the group is not viable;
 * ENODEV; EMFILE; else what the IOMMU backend says.
 */
#define VFIO_GROUP_GET_IOMMU_FD	_IO(VFIO_TYPE, VFIO_BASE + 67)

#endif /* VFIO_GROUP_H */
