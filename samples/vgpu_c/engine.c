// SPDX-License-Identifier: GPL-2.0
/*
 * The registers, the memory and the configuration space, and the commands. The thread that writes the
 * register COMMAND runs the command.
 */
#include <linux/overflow.h>
#include <linux/pci_regs.h>
#include <linux/uaccess.h>
#include <linux/unaligned.h>

#include "vgpu_c.h"

#define REGISTER_ID		0x00
#define REGISTER_MEMORY_SIZE	0x04
#define REGISTER_PASID		0x08
#define REGISTER_LINK		0x0c
#define REGISTER_PEERS		0x10
#define REGISTER_OPERANDS	0x20
#define REGISTER_COMMAND	0x50
#define REGISTER_STATUS		0x54
#define REGISTER_COMPLETED	0x58

#define COMMAND_LOAD			1
#define COMMAND_STORE			2
#define COMMAND_COPY_FROM_PEER		3
#define COMMAND_LOAD_THROUGH_PEER	4

#define STATUS_DONE		0
#define STATUS_INVALID		1
#define STATUS_FAULT		2
#define STATUS_NO_PEER		3

#define CONFIG_MSI		0x50

static void reset_config(struct vgpu *vgpu)
{
	u8 *config = vgpu->config;

	memset(config, 0, VGPU_CONFIG_SIZE);
	put_unaligned_le32(0x0fff1b36, config);			/* device, vendor */
	put_unaligned_le16(0x0010, config + PCI_STATUS);	/* has capabilities */
	put_unaligned_le32(0x12000001, config + PCI_CLASS_REVISION);
	put_unaligned_le32(0x0fff1b36, config + PCI_SUBSYSTEM_VENDOR_ID);
	config[PCI_CAPABILITY_LIST] = CONFIG_MSI;
	config[CONFIG_MSI] = PCI_CAP_ID_MSI;
	put_unaligned_le16(PCI_MSI_FLAGS_64BIT, config + CONFIG_MSI + PCI_MSI_FLAGS);
}

/* Returns the writable bits of a byte of the configuration space. */
static u8 writable(struct vgpu *vgpu, unsigned int at)
{
	switch (at) {
	case PCI_COMMAND:
		return PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	case PCI_COMMAND + 1:
		return PCI_COMMAND_INTX_DISABLE >> 8;
	case PCI_BASE_ADDRESS_0 ... PCI_BASE_ADDRESS_0 + 3:
		return ~(VGPU_REGISTERS_SIZE - 1U) >> 8 * (at - PCI_BASE_ADDRESS_0);
	case PCI_BASE_ADDRESS_2 ... PCI_BASE_ADDRESS_2 + 3:
		return ~((u32)vgpu->size - 1) >> 8 * (at - PCI_BASE_ADDRESS_2);
	case PCI_INTERRUPT_LINE:
		return 0xff;
	case CONFIG_MSI + PCI_MSI_FLAGS:
		return PCI_MSI_FLAGS_ENABLE;
	case CONFIG_MSI + PCI_MSI_ADDRESS_LO:
		return 0xfc;
	case CONFIG_MSI + PCI_MSI_ADDRESS_LO + 1 ... CONFIG_MSI + PCI_MSI_DATA_64 + 1:
		return 0xff;
	}
	return 0;
}

/* Called when the device has no user, or with its lock held. */
void vgpu_reset(struct vgpu *vgpu)
{
	reset_config(vgpu);
	memset(&vgpu->operands, 0, sizeof(vgpu->operands));
	vgpu->status = STATUS_DONE;
	vgpu->completed = 0;
	memset(vgpu->memory, 0, vgpu->size);
}

/* Copies between the device's memory and that which the program has mapped for an open device. */
static u32 copy_program_memory(struct vgpu *vgpu, struct vfio_device *mapped, u32 offset, u32 length,
			       bool store)
{
	u64 address = le32_to_cpu(vgpu->operands.address) |
		      (u64)le32_to_cpu(vgpu->operands.address_high) << 32;
	u64 last;

	if (!length)
		return STATUS_DONE;
	if (check_add_overflow(address, length - 1, &last))
		return STATUS_FAULT;
	if (vfio_dma_rw(mapped, address, vgpu->memory + offset, length, store))
		return STATUS_FAULT;
	return STATUS_DONE;
}

/* A command that uses the peer with the UUID in the operands. */
struct peer_command {
	struct vgpu *vgpu;
	u32 offset;
	u32 length;
	u32 status;
};

static bool is_wanted(const struct vgpu *peer, const struct peer_command *command)
{
	return peer != command->vgpu &&
	       !memcmp(peer->uuid, command->vgpu->operands.peer, sizeof(peer->uuid));
}

static int copy_if_wanted(struct mdev_peer *member, void *data)
{
	struct vgpu *from = container_of(member, struct vgpu, peer);
	struct peer_command *copy = data;
	u32 offset = le32_to_cpu(copy->vgpu->operands.peer_offset);

	if (!is_wanted(from, copy))
		return 0;
	if (offset > from->size || copy->length > from->size - offset) {
		copy->status = STATUS_INVALID;
		return 1;
	}
	memcpy(copy->vgpu->memory + copy->offset, from->memory + offset, copy->length);
	copy->status = STATUS_DONE;
	return 1;
}

/* Does not take the lock of the peer, because that of the device is held around the walk. */
static int load_if_wanted(struct mdev_peer *member, void *data)
{
	struct vgpu *through = container_of(member, struct vgpu, peer);
	struct peer_command *load = data;

	if (!is_wanted(through, load))
		return 0;
	if (mdev_peer_is_open(member))
		load->status = copy_program_memory(load->vgpu, &through->vdev, load->offset,
						   load->length, false);
	else
		load->status = STATUS_FAULT;
	return 1;
}

static u32 with_peer(struct vgpu *vgpu, u32 offset, u32 length,
		     int (*fn)(struct mdev_peer *member, void *command))
{
	struct peer_command command = {
		.vgpu = vgpu,
		.offset = offset,
		.length = length,
		.status = STATUS_NO_PEER,
	};

	if (vgpu->type->has_peers)
		mdev_peer_for_each(&vgpu->peer, fn, &command);
	return command.status;
}

static u32 run(struct vgpu *vgpu, u32 command)
{
	u32 offset = le32_to_cpu(vgpu->operands.offset);
	u32 length = le32_to_cpu(vgpu->operands.length);

	if (offset > vgpu->size || length > vgpu->size - offset)
		return STATUS_INVALID;
	switch (command) {
	case COMMAND_LOAD:
		return copy_program_memory(vgpu, &vgpu->vdev, offset, length, false);
	case COMMAND_STORE:
		return copy_program_memory(vgpu, &vgpu->vdev, offset, length, true);
	case COMMAND_COPY_FROM_PEER:
		return with_peer(vgpu, offset, length, copy_if_wanted);
	case COMMAND_LOAD_THROUGH_PEER:
		return with_peer(vgpu, offset, length, load_if_wanted);
	}
	return STATUS_INVALID;
}

static int count_member(struct mdev_peer *member, void *count)
{
	++*(u32 *)count;
	return 0;
}

static u32 read_register(struct vgpu *vgpu, unsigned int at)
{
	u32 count = 0;

	switch (at) {
	case REGISTER_ID:
		return 0x55504756;	/* VGPU */
	case REGISTER_MEMORY_SIZE:
		return vgpu->size;
	case REGISTER_PASID:
		return vgpu->pasid;
	case REGISTER_LINK:
		return READ_ONCE(vgpu->link);
	case REGISTER_PEERS:
		if (!vgpu->type->has_peers)
			return 1;
		mdev_peer_for_each(&vgpu->peer, count_member, &count);
		return count;
	case REGISTER_OPERANDS ... REGISTER_OPERANDS + sizeof(vgpu->operands) - 1:
		return get_unaligned_le32((u8 *)&vgpu->operands + at - REGISTER_OPERANDS);
	case REGISTER_STATUS:
		return vgpu->status;
	case REGISTER_COMPLETED:
		return vgpu->completed;
	}
	return 0;
}

static void write_register(struct vgpu *vgpu, unsigned int at, u32 value)
{
	switch (at) {
	case REGISTER_OPERANDS ... REGISTER_OPERANDS + sizeof(vgpu->operands) - 1:
		put_unaligned_le32(value, (u8 *)&vgpu->operands + at - REGISTER_OPERANDS);
		break;
	case REGISTER_COMMAND:
		if (!value)
			break;
		vgpu->status = run(vgpu, value);
		vgpu->completed++;
		if (vgpu->msi)
			eventfd_signal(vgpu->msi);
		break;
	}
}

/* Finds the region of an access. Returns how much of it is inside, or an error. */
static ssize_t locate(struct vgpu *vgpu, loff_t pos, size_t count, unsigned int *index, u32 *offset)
{
	u64 at = pos & ((1ULL << VGPU_REGION_SHIFT) - 1);
	size_t size;

	if (pos < 0 || pos >> VGPU_REGION_SHIFT >= VFIO_PCI_NUM_REGIONS)
		return -EINVAL;
	*index = pos >> VGPU_REGION_SHIFT;
	size = vgpu_region_size(vgpu, *index);
	if (at > size || (at == size && count))
		return -EINVAL;
	*offset = at;
	return min_t(size_t, count, size - at);
}

/* Reads or writes four bytes of registers, or one byte of the configuration space. */
static int access(struct vgpu *vgpu, unsigned int index, u32 at, u8 *value, size_t count, bool write)
{
	if (index == VFIO_PCI_CONFIG_REGION_INDEX) {
		u8 bits = writable(vgpu, at);

		if (write)
			vgpu->config[at] = (vgpu->config[at] & ~bits) | (*value & bits);
		else
			*value = vgpu->config[at];
		return 1;
	}
	if (at % 4 || count < 4)
		return -EINVAL;
	if (write)
		write_register(vgpu, at, get_unaligned_le32(value));
	else
		put_unaligned_le32(read_register(vgpu, at), value);
	return 4;
}

/* Copies between the program and a region, all of it or up to the first error. */
static ssize_t transfer(struct vgpu *vgpu, char __user *user, size_t count, loff_t pos, bool write)
{
	unsigned int index;
	ssize_t inside, done = 0, ret;
	u32 offset;
	u8 word[4];

	inside = locate(vgpu, pos, count, &index, &offset);
	if (inside <= 0)
		return inside;
	if (index == VFIO_PCI_BAR2_REGION_INDEX) {
		if (write)
			return copy_from_user(vgpu->memory + offset, user, inside) ? -EFAULT : inside;
		return copy_to_user(user, vgpu->memory + offset, inside) ? -EFAULT : inside;
	}
	while (done < inside) {
		size_t some = min_t(size_t, sizeof(word), inside - done);

		ret = -EFAULT;
		if (write && copy_from_user(word, user + done, some))
			break;
		ret = access(vgpu, index, offset + done, word, some, write);
		if (ret < 0)
			break;
		if (!write && copy_to_user(user + done, word, ret)) {
			ret = -EFAULT;
			break;
		}
		done += ret;
	}
	return done ?: ret;
}

ssize_t vgpu_read(struct vfio_device *vdev, char __user *to, size_t count, loff_t *pos)
{
	struct vgpu *vgpu = to_vgpu(vdev);
	ssize_t ret;

	mutex_lock(&vgpu->lock);
	ret = transfer(vgpu, to, count, *pos, false);
	mutex_unlock(&vgpu->lock);
	if (ret > 0)
		*pos += ret;
	return ret;
}

ssize_t vgpu_write(struct vfio_device *vdev, const char __user *from, size_t count, loff_t *pos)
{
	struct vgpu *vgpu = to_vgpu(vdev);
	ssize_t ret;

	mutex_lock(&vgpu->lock);
	ret = transfer(vgpu, (char __user *)from, count, *pos, true);
	mutex_unlock(&vgpu->lock);
	if (ret > 0)
		*pos += ret;
	return ret;
}
