// SPDX-License-Identifier: GPL-2.0
/*
 * A small virtual accelerator, whose devices can copy from each other's memory if they are peers: the
 * driver of samples/vgpu_p2p in C, without migration. It shows the use of <linux/mdev_peer.h>.
 *
 *   modprobe -a mdev ioasid    # ioasid is optional: it gives each device a PASID
 *   insmod build/native/vgpu_c.ko
 *   uuidgen >/sys/class/mdev_bus/vgpu_c/mdev_supported_types/vgpu_c-p2p-1x/create
 *
 * With name=vgpu_p2p, samples/user/vgpu_copy finds its devices.
 */
#include <linux/bitops.h>
#include <linux/gfp.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/unaligned.h>

#include <linux/ioasid.h>

#include "vgpu_c.h"

static char *name = "vgpu_c";
module_param(name, charp, 0444);
MODULE_PARM_DESC(name, "Name of the driver and of its first parent (default: vgpu_c)");

static unsigned int cards = 1;
module_param(cards, uint, 0444);
MODULE_PARM_DESC(cards, "Number of parents: vgpu_c, vgpu_c.1, ... (default: 1)");

static struct class *vgpu_class;
static struct vgpu_card *vgpu_cards;

/* Peers */

static struct vgpu *of_peer(struct mdev_peer *peer)
{
	return container_of(peer, struct vgpu, peer);
}

struct candidate {
	struct vgpu *vgpu;
	unsigned int members;
};

static int check_member(struct mdev_peer *member, void *data)
{
	struct candidate *candidate = data;

	candidate->members++;
	return of_peer(member)->type->card == candidate->vgpu->type->card ? 0 : -EXDEV;
}

static int vgpu_admit(struct mdev_peer *peer, const struct mdev_peer_members *members)
{
	struct candidate candidate = { .vgpu = of_peer(peer) };
	int ret = mdev_peer_members_for_each(members, check_member, &candidate);

	if (!ret && candidate.members >= VGPU_MOST_PEERS)
		ret = -ENOSPC;
	return ret;
}

static int set_link(struct mdev_peer *member, void *link)
{
	WRITE_ONCE(of_peer(member)->link, *(u32 *)link);
	return 0;
}

/* Peers use one link of their card, which they get when the first of them is opened. */
static int vgpu_first_open(struct mdev_peer *peer, const struct mdev_peer_members *members)
{
	struct vgpu_card *card = of_peer(peer)->type->card;
	u32 link;

	spin_lock(&card->lock);
	link = card->links == U64_MAX ? VGPU_NONE : __ffs64(~card->links);
	if (link != VGPU_NONE)
		card->links |= BIT_ULL(link);
	spin_unlock(&card->lock);
	if (link == VGPU_NONE)
		return -ENOSPC;
	return mdev_peer_members_for_each(members, set_link, &link);
}

static void vgpu_last_close(struct mdev_peer *peer, const struct mdev_peer_members *members)
{
	struct vgpu_card *card = of_peer(peer)->type->card;
	u32 link = of_peer(peer)->link, none = VGPU_NONE;

	mdev_peer_members_for_each(members, set_link, &none);
	spin_lock(&card->lock);
	card->links &= ~BIT_ULL(link);
	spin_unlock(&card->lock);
}

static const struct mdev_peer_ops vgpu_peer_ops = {
	.admit		= vgpu_admit,
	.first_open	= vgpu_first_open,
	.last_close	= vgpu_last_close,
};

/* Devices */

static int take_share(struct vgpu_type *type)
{
	struct vgpu_card *card = type->card;
	int ret = 0;

	spin_lock(&card->lock);
	if (card->used + type->cost > VGPU_CAPACITY)
		ret = -EUSERS;
	else
		card->used += type->cost;
	spin_unlock(&card->lock);
	return ret;
}

static void give_share(struct vgpu_type *type)
{
	spin_lock(&type->card->lock);
	type->card->used -= type->cost;
	spin_unlock(&type->card->lock);
}

/* Without ioasid.ko the device has no PASID. */
static u64 alloc_pasid(void)
{
	u64 (*alloc)(ioasid_t min, ioasid_t max) = symbol_get(ioasid_alloc_owned);
	u64 handle = VGPU_NONE;

	if (alloc) {
		handle = alloc(1, (1U << 20) - 1);
		if ((u32)handle == INVALID_IOASID)
			symbol_put(ioasid_alloc_owned);
	}
	return handle;
}

static void free_pasid(u64 handle)
{
	void (*free)(u64 handle);

	if ((u32)handle == INVALID_IOASID)
		return;
	free = symbol_get(ioasid_free_owned);
	if (!WARN_ON(!free)) {
		free(handle);
		symbol_put(ioasid_free_owned);
	}
	symbol_put(ioasid_alloc_owned);
}

static int vgpu_init(struct vfio_device *vdev)
{
	struct vgpu *vgpu = to_vgpu(vdev);
	struct mdev_device *mdev = to_mdev_device(vdev->dev);
	int ret;

	vgpu->type = container_of(mdev->type, struct vgpu_type, type);
	ret = take_share(vgpu->type);
	if (ret)
		return ret;
	vgpu->size = vgpu->type->cost * VGPU_MEMORY_UNIT;
	vgpu->memory = alloc_pages_exact(vgpu->size, GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	if (!vgpu->memory) {
		give_share(vgpu->type);
		return -ENOMEM;
	}
	mutex_init(&vgpu->lock);
	vgpu->link = VGPU_NONE;
	vgpu->pasid = alloc_pasid();
	/* The first three fields of a guid_t are little endian. */
	put_unaligned_be32(get_unaligned_le32(mdev->uuid.b), vgpu->uuid);
	put_unaligned_be16(get_unaligned_le16(mdev->uuid.b + 4), vgpu->uuid + 4);
	put_unaligned_be16(get_unaligned_le16(mdev->uuid.b + 6), vgpu->uuid + 6);
	memcpy(vgpu->uuid + 8, mdev->uuid.b + 8, 8);
	vgpu_reset(vgpu);
	return 0;
}

static void vgpu_release(struct vfio_device *vdev)
{
	struct vgpu *vgpu = to_vgpu(vdev);

	free_pasid(vgpu->pasid);
	free_pages_exact(vgpu->memory, vgpu->size);
	give_share(vgpu->type);
}

static int vgpu_open(struct vfio_device *vdev)
{
	struct vgpu *vgpu = to_vgpu(vdev);

	return vgpu->type->has_peers ? mdev_peer_opened(&vgpu->peer) : 0;
}

static void vgpu_close(struct vfio_device *vdev)
{
	struct vgpu *vgpu = to_vgpu(vdev);

	vgpu_clear_msi(vgpu);
	/* The next user finds nothing of this one. */
	vgpu_reset(vgpu);
	if (vgpu->type->has_peers)
		mdev_peer_closed(&vgpu->peer);
}

static const struct vfio_device_ops vgpu_ops = {
	.name			= "vgpu_c",
	.init			= vgpu_init,
	.release		= vgpu_release,
	.open_device		= vgpu_open,
	.close_device		= vgpu_close,
	.read			= vgpu_read,
	.write			= vgpu_write,
	.ioctl			= vgpu_ioctl,
	.get_region_info_caps	= vgpu_region_info,
	.mmap			= vgpu_mmap,
	.bind_iommufd		= vfio_iommufd_emulated_bind,
	.unbind_iommufd		= vfio_iommufd_emulated_unbind,
	.attach_ioas		= vfio_iommufd_emulated_attach_ioas,
	.detach_ioas		= vfio_iommufd_emulated_detach_ioas,
};

static int vgpu_probe(struct mdev_device *mdev)
{
	struct vgpu *vgpu = vfio_alloc_device(vgpu, vdev, &mdev->dev, &vgpu_ops);
	int ret;

	if (IS_ERR(vgpu))
		return PTR_ERR(vgpu);
	if (vgpu->type->has_peers)
		ret = mdev_peer_register(&vgpu->peer, &vgpu->vdev, &vgpu_peer_ops, vgpu->pasid);
	else
		ret = vfio_register_emulated_iommu_dev(&vgpu->vdev);
	if (ret) {
		vfio_put_device(&vgpu->vdev);
		return ret;
	}
	dev_set_drvdata(&mdev->dev, vgpu);
	return 0;
}

static void vgpu_remove(struct mdev_device *mdev)
{
	struct vgpu *vgpu = dev_get_drvdata(&mdev->dev);

	if (vgpu->type->has_peers)
		mdev_peer_unregister(&vgpu->peer);
	else
		vfio_unregister_group_dev(&vgpu->vdev);
	vfio_put_device(&vgpu->vdev);
}

static unsigned int vgpu_available(struct mdev_type *mtype)
{
	struct vgpu_type *type = container_of(mtype, struct vgpu_type, type);

	return (VGPU_CAPACITY - READ_ONCE(type->card->used)) / type->cost;
}

static ssize_t vgpu_description(struct mdev_type *mtype, char *page)
{
	return sysfs_emit(page, "%s\n", container_of(mtype, struct vgpu_type, type)->description);
}

static struct mdev_driver vgpu_driver = {
	.device_api		= VFIO_DEVICE_API_PCI_STRING,
	.driver			= { .owner = THIS_MODULE },
	.probe			= vgpu_probe,
	.remove			= vgpu_remove,
	.get_available		= vgpu_available,
	.show_description	= vgpu_description,
};

/* Cards */

static void set_type(struct vgpu_card *card, enum vgpu_type_index index, char *sysfs_name,
		     const char *description)
{
	struct vgpu_type *type = &card->types[index];

	type->type.sysfs_name = sysfs_name;
	type->type.pretty_name = sysfs_name;
	type->card = card;
	type->description = description;
	type->cost = index == VGPU_DOUBLE ? 2 : 1;
	type->has_peers = index != VGPU_ISOLATED;
	card->type_pointers[index] = &type->type;
}

static int add_card(struct vgpu_card *card, unsigned int number)
{
	int ret;

	spin_lock_init(&card->lock);
	set_type(card, VGPU_DOUBLE, "p2p-2x", "128 KiB of memory, copies from its peers");
	set_type(card, VGPU_SINGLE, "p2p-1x", "64 KiB of memory, copies from its peers");
	set_type(card, VGPU_ISOLATED, "isolated", "64 KiB of memory, has no peers");
	card->dev = number ? device_create(vgpu_class, NULL, 0, NULL, "%s.%u", name, number) :
			     device_create(vgpu_class, NULL, 0, NULL, "%s", name);
	if (IS_ERR(card->dev))
		return PTR_ERR(card->dev);
	ret = mdev_register_parent(&card->parent, card->dev, &vgpu_driver, card->type_pointers,
				   VGPU_TYPES);
	if (ret)
		device_unregister(card->dev);
	else
		card->registered = true;
	return ret;
}

static void remove_cards(void)
{
	unsigned int number;

	for (number = 0; number < cards && vgpu_cards[number].registered; number++) {
		mdev_unregister_parent(&vgpu_cards[number].parent);
		device_unregister(vgpu_cards[number].dev);
	}
}

static int __init vgpu_module_init(void)
{
	unsigned int number;
	int ret;

	vgpu_cards = kcalloc(cards, sizeof(*vgpu_cards), GFP_KERNEL);
	if (!vgpu_cards)
		return -ENOMEM;
	vgpu_driver.driver.name = name;
	ret = mdev_register_driver(&vgpu_driver);
	if (ret)
		goto free_cards;
	vgpu_class = class_create(name);
	if (IS_ERR(vgpu_class)) {
		ret = PTR_ERR(vgpu_class);
		goto unregister;
	}
	for (number = 0; number < cards; number++) {
		ret = add_card(&vgpu_cards[number], number);
		if (ret)
			goto remove;
	}
	return 0;
remove:
	remove_cards();
	class_destroy(vgpu_class);
unregister:
	mdev_unregister_driver(&vgpu_driver);
free_cards:
	kfree(vgpu_cards);
	return ret;
}

static void __exit vgpu_module_exit(void)
{
	remove_cards();
	class_destroy(vgpu_class);
	mdev_unregister_driver(&vgpu_driver);
	kfree(vgpu_cards);
}

module_init(vgpu_module_init);
module_exit(vgpu_module_exit);
MODULE_DESCRIPTION("Sample driver in C for mediated devices with peer-to-peer groups");
MODULE_LICENSE("GPL");
