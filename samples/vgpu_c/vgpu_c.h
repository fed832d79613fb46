/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The devices of vgpu_c, and the parts of the driver. The registers are those of samples/vgpu_p2p; its
 * registers.rs describes them.
 */
#ifndef VGPU_C_H
#define VGPU_C_H

#include <linux/eventfd.h>
#include <linux/mdev.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/uuid.h>
#include <linux/vfio.h>

#include <linux/mdev_peer.h>

#define VGPU_REGISTERS_SIZE	4096
#define VGPU_CONFIG_SIZE	256
#define VGPU_MEMORY_UNIT	SZ_64K
#define VGPU_CAPACITY		2048
#define VGPU_MOST_PEERS		8
#define VGPU_NONE		U32_MAX

/* A type of a card. */
struct vgpu_type {
	struct mdev_type type;
	struct vgpu_card *card;
	const char *description;
	unsigned int cost;
	bool has_peers;
};

enum vgpu_type_index {
	VGPU_DOUBLE,
	VGPU_SINGLE,
	VGPU_ISOLATED,
	VGPU_TYPES,
};

/* A parent of devices. */
struct vgpu_card {
	struct mdev_parent parent;
	struct device *dev;
	struct vgpu_type types[VGPU_TYPES];
	struct mdev_type *type_pointers[VGPU_TYPES];
	spinlock_t lock;		/* protects used and links */
	unsigned int used;		/* units of VGPU_CAPACITY */
	u64 links;			/* bitmap of the links in use */
	bool registered;
};

/* The registers that a command has as operands. */
struct vgpu_operands {
	__le32 address;
	__le32 address_high;
	__le32 offset;
	__le32 length;
	__u8 peer[16];			/* in the order of the text */
	__le32 peer_offset;
};

/* A device. */
struct vgpu {
	struct vfio_device vdev;
	struct mdev_peer peer;		/* unless the type has no peers */
	struct vgpu_type *type;
	u8 uuid[16];			/* in the order of the text */
	u64 pasid;			/* the handle, if there is a PASID */
	u32 link;			/* changed on the first open and the last close of the group */
	u8 *memory;
	size_t size;
	/* Protects the rest. Held around walks of the members, which take it for no other device. */
	struct mutex lock;
	u8 config[VGPU_CONFIG_SIZE];
	struct vgpu_operands operands;
	u32 status;
	u32 completed;
	struct eventfd_ctx *msi;
};

static inline struct vgpu *to_vgpu(struct vfio_device *vdev)
{
	return container_of(vdev, struct vgpu, vdev);
}

/* engine.c: the registers, the memory and the commands */
void vgpu_reset(struct vgpu *vgpu);
ssize_t vgpu_read(struct vfio_device *vdev, char __user *to, size_t count, loff_t *pos);
ssize_t vgpu_write(struct vfio_device *vdev, const char __user *from, size_t count, loff_t *pos);

/* requests.c: what <linux/vfio.h> defines */
long vgpu_ioctl(struct vfio_device *vdev, unsigned int cmd, unsigned long arg);
int vgpu_region_info(struct vfio_device *vdev, struct vfio_region_info *info,
		     struct vfio_info_cap *caps);
int vgpu_mmap(struct vfio_device *vdev, struct vm_area_struct *vma);
size_t vgpu_region_size(struct vgpu *vgpu, unsigned int index);
void vgpu_clear_msi(struct vgpu *vgpu);

/* The index of a region is in the high bits of a position in the device file. */
#define VGPU_REGION_SHIFT	40

#endif
