/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Peer-to-peer groups: mediated devices that share resources and therefore have a single user. This
 * is the interface for drivers in C; Documentation/mdev.rst describes the groups. Only the mdev.ko of
 * this project has these functions.
 *
 * A driver embeds a struct mdev_peer in the structure of each device that can be in a group with
 * others. It registers such a device with mdev_peer_register() instead of
 * vfio_register_emulated_iommu_dev(), and calls mdev_peer_opened() and mdev_peer_closed() where VFIO
 * opens and closes the device. Devices of one driver are either all registered in this way or never
 * in a group.
 */
#ifndef LINUX_MDEV_PEER_H
#define LINUX_MDEV_PEER_H

#include <linux/types.h>
#include <linux/vfio.h>

struct mdev_peer;
/* Devices of a group. Valid during the call of the function that has it as an argument. */
struct mdev_peer_members;

/**
 * struct mdev_peer_ops - what a driver decides and does for its groups
 * @admit: decides whether @peer may join a group with @members, which are devices of the same driver.
 *         There is at least one. With an error, the write to peer_to_peer_resource_uuid fails and
 *         changes nothing; -EXDEV is no failure, but means that @peer cannot share with these members
 *         and gets another group with the same UUID. Without the function, devices of one parent can
 *         share.
 *         The lock of all groups is held, so the function must not wait for anything. The members may
 *         be open, and may be opened and closed meanwhile: it must not call mdev_peer_is_open(), nor
 *         access the memory of a process.
 * @first_open: called when the first device of a group, @peer, is opened. If it fails, so does
 *              mdev_peer_opened(). Optional.
 * @last_close: called when the last open device of a group, @peer, is closed. Optional.
 *
 * A negative value is an error. @admit and @first_open succeed with any other one.
 *
 * Between @first_open and @last_close, no device joins the group, and a device leaves it only by being
 * removed. The functions may sleep, except where @admit says otherwise. They must not call
 * mdev_peer_opened(), mdev_peer_closed() or mdev_peer_for_each(): they have the members as an argument.
 */
struct mdev_peer_ops {
	int (*admit)(struct mdev_peer *peer, const struct mdev_peer_members *members);
	int (*first_open)(struct mdev_peer *peer, const struct mdev_peer_members *members);
	void (*last_close)(struct mdev_peer *peer, const struct mdev_peer_members *members);
};

/**
 * struct mdev_peer - a device that can be in a group with others
 * @device: the device
 * @ops: the functions of the driver
 * @pasid: belongs to the driver, for its own functions: mdev.ko does not use it. mdev_peer_register()
 *         sets it before another thread can see the device as a member. It may be a PASID of
 *         ioasid_alloc_owned(), or IOMMU_PASID_INVALID.
 * @entry: belongs to mdev.ko; NULL while the device is not registered
 */
struct mdev_peer {
	struct vfio_device *device;
	const struct mdev_peer_ops *ops;
	u32 pasid;
	void *entry;
};

int mdev_peer_register_with(struct mdev_peer *peer, int (*register_device)(struct vfio_device *device),
			    void (*unregister_device)(struct vfio_device *device));
void mdev_peer_unregister_with(struct mdev_peer *peer,
			       void (*unregister_device)(struct vfio_device *device));

/**
 * mdev_peer_register() - register a device with VFIO, in a group of its own
 * @peer: zeroed, except for @pasid. It exists until mdev_peer_unregister().
 * @device: the device, initialised with vfio_alloc_device() for the device of the bus that is being
 *          bound. It exists until mdev_peer_unregister().
 * @ops: the functions of the driver
 * @pasid: the PASID of the device, or IOMMU_PASID_INVALID
 *
 * Called by the probe function of the driver. The device can be opened before this returns. It gets the
 * attribute peer_to_peer_resource_uuid, unless the kernel's own vfio.ko is in use, which can't move
 * devices.
 *
 * Return: 0; -EINVAL if @device or @ops is NULL, or if @device does not belong to a device of the bus
 * mdev that is being bound; -ENOMEM; or an error of VFIO or sysfs.
 */
static inline int mdev_peer_register(struct mdev_peer *peer, struct vfio_device *device,
				     const struct mdev_peer_ops *ops, u32 pasid)
{
	peer->device = device;
	peer->ops = ops;
	peer->pasid = pasid;
	return mdev_peer_register_with(peer, vfio_register_emulated_iommu_dev, vfio_unregister_group_dev);
}

/**
 * mdev_peer_unregister() - unregister a device from VFIO and remove it from its group
 * @peer: was registered
 *
 * Called by the remove function of the driver. Waits until the device is closed, and until no other
 * thread uses the members of its group. The driver must not hold a lock that its functions take for a
 * member.
 */
static inline void mdev_peer_unregister(struct mdev_peer *peer)
{
	mdev_peer_unregister_with(peer, vfio_unregister_group_dev);
}

/**
 * mdev_peer_opened() - count a device as open
 * @peer: is registered
 *
 * Called by open_device() of struct vfio_device_ops. Calls first_open() if no other device of the group
 * is open. Waits for threads in mdev_peer_for_each(). From then on, functions for other devices may
 * access the memory of the process through this one. If open_device() fails after this succeeded, it
 * must call mdev_peer_closed().
 *
 * Return: 0; a negative error of first_open(); or -EINVAL if the device is counted already or is not
 * registered. On an error, nothing changes.
 */
int mdev_peer_opened(struct mdev_peer *peer);

/**
 * mdev_peer_closed() - count a device as closed
 * @peer: was counted by mdev_peer_opened(); otherwise a warning is the only effect
 *
 * Called by close_device() of struct vfio_device_ops. Waits for threads in mdev_peer_for_each(), which
 * may be accessing the memory of the process through this device. Calls last_close() if no other device
 * of the group is open.
 */
void mdev_peer_closed(struct mdev_peer *peer);

/**
 * mdev_peer_for_each() - call a function for each member of a device's group
 * @peer: is registered
 * @fn: called with each member, @peer among them, and with @data. If it returns something other than
 *      zero, no further member follows.
 * @data: the argument of @fn
 *
 * No member joins or leaves the group meanwhile, and none is opened or closed. May sleep.
 *
 * @fn may access the memory of the process through a member for which mdev_peer_is_open() returns true:
 * this one stays open. It must not do so through another device. Pages that it pins through a member and
 * does not unpin are those of this member, whose close_device() unpins them after mdev_peer_closed().
 *
 * @fn must not wait for a device to be opened or closed, nor for one to join or leave the group, and must
 * not call this function. A lock that is held around the call must not be one that @fn takes for another
 * member: a thread that begins with that member would wait for this one, and this one for it. For the
 * same reason, the driver must not hold a lock that @fn takes around mdev_peer_opened() and
 * mdev_peer_closed().
 *
 * Any thread may call this from mdev_peer_register() to mdev_peer_unregister(), also while no device of
 * the group is open. In that case @fn must not wait for long, because writes to
 * peer_to_peer_resource_uuid, of all devices, wait for it.
 *
 * Return: the last value that @fn returned; 0 if @peer is being unregistered and has left its group;
 * -EINVAL if it is not registered or @fn is NULL.
 */
int mdev_peer_for_each(struct mdev_peer *peer, int (*fn)(struct mdev_peer *member, void *data),
		       void *data);

/**
 * mdev_peer_is_open() - whether a member is open
 * @member: the argument of a function that mdev_peer_for_each() calls, or that
 *          mdev_peer_members_for_each() calls in first_open() or last_close()
 *
 * Return: true from the end of mdev_peer_opened() to the beginning of mdev_peer_closed(). It does not
 * change until mdev_peer_for_each(), first_open() or last_close() ends. In the last two no member is
 * open.
 */
bool mdev_peer_is_open(const struct mdev_peer *member);

/**
 * mdev_peer_members_for_each() - call a function for each of some members
 * @members: the argument of a function of struct mdev_peer_ops
 * @fn: as for mdev_peer_for_each(); in admit() it must not wait, see there
 * @data: the argument of @fn
 *
 * Return: the last value that @fn returned; -EINVAL if @fn is NULL.
 */
int mdev_peer_members_for_each(const struct mdev_peer_members *members,
			       int (*fn)(struct mdev_peer *member, void *data), void *data);

#endif
