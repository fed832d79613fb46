/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Software groups: the groups of VFIO devices that have no IOMMU of their own. Only the vfio.ko of
 * this project can change them. A driver that works on other kernels too takes the function with
 * symbol_get().
 */
#ifndef LINUX_VFIO_GROUP_H
#define LINUX_VFIO_GROUP_H

struct iommu_group;
struct vfio_device;

/**
 * vfio_move_device() - move a device to another software group
 * @device: the device, registered with vfio_register_emulated_iommu_dev(). The caller does not
 *          unregister it before the function returns.
 * @group: the group of another such device, on which the caller holds a reference. If it is NULL, or
 *         if no device of it is registered any more, the device gets a group of its own. Take the
 *         reference with iommu_group_get() while the other device cannot be unregistered, for
 *         example when it has been registered.
 * @commit: called once with @data if the move succeeds, before the function returns. It must not
 *          fail, and must not call functions of vfio.ko.
 * @data: the argument of @commit
 *
 * The devices of a group have one user. While the function runs, neither of the two groups and none
 * of their devices can be opened. The device is already in the new group when @commit is called. A
 * group that is left without devices is removed, with its node in /dev/vfio.
 *
 * Context: process context. Takes the lock of all groups, with which @commit is called. The caller
 * may hold locks around this function and vfio_register_emulated_iommu_dev(), but not around
 * functions that its callbacks of struct vfio_device_ops wait for.
 *
 * Return: 0 on success, a negative errno otherwise; nothing changes on error. -EBUSY: one of the two
 * groups or one of their devices is open. -ENODEV: the device is in no software group. -ENOMEM, or
 * an error of sysfs.
 */
int vfio_move_device(struct vfio_device *device, struct iommu_group *group,
		     void (*commit)(void *data), void *data);

#endif
