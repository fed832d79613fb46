// SPDX-License-Identifier: GPL-2.0
/*
 * Copy engines behind a software PAMU, for programs that use them through VFIO. The firmware node
 * of each engine has its LIODN. All of its accesses go through the PAMU, including its interrupts:
 * an interrupt is a write to the doorbell of an MSI bank, at the address where the program has
 * mapped it.
 *
 * For tests only: a register lets the program select the LIODN of an engine, so that the engine can
 * act as any other device.
 */
#include <linux/bits.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/property.h>
#include <linux/slab.h>
#include <linux/vfio.h>

#include "include/pamu_sim.h"
#include "samples/pamu_dma/pamu_dma.h"

#define BUFFER	SZ_4K
#define FIRST_LIODN	16
#define MAX_DEVICES	16

static unsigned int devices = 2;
module_param(devices, uint, 0444);
MODULE_PARM_DESC(devices, "Number of devices (2); their LIODNs are 16, 17 and so on");

struct registers {
	__le32	command;
	__le32	status;
	__le64	source;
	__le64	destination;
	__le32	length;
	__le32	liodn;
	__le64	msi_address;
	__le32	msi_data;
	__le32	reserved;
	__le64	data;
};
static_assert(sizeof(struct registers) == PAMU_DMA_SIZE);
static_assert(offsetof(struct registers, data) == PAMU_DMA_DATA);

struct pamu_dma {
	struct vfio_device	vdev;
	struct mutex		lock;	/* protects regs, msi and the use of buffer */
	struct registers	regs;
	struct pamu_sim_msi	*msi;
	void			*buffer;
	u32			liodn;
	u32			bank;
};

static struct pamu_dma *to_pamu_dma(struct vfio_device *vdev)
{
	return container_of(vdev, struct pamu_dma, vdev);
}

static void pamu_dma_reset(struct pamu_dma *dev)
{
	struct registers *regs = &dev->regs;

	*regs = (struct registers) {
		.liodn		= cpu_to_le32(dev->liodn),
		.msi_address	= regs->msi_address,
		.msi_data	= regs->msi_data,
	};
}

/* --- Commands ---------------------------------------------------------------------------------- */

static int do_copy(struct pamu_dma *dev, u16 liodn)
{
	u64 source = le64_to_cpu(dev->regs.source);
	u64 destination = le64_to_cpu(dev->regs.destination);
	u32 left = le32_to_cpu(dev->regs.length);

	while (left) {
		u32 size = min_t(u32, left, BUFFER);
		int ret = pamu_sim_dma(liodn, source, dev->buffer, size, false);

		if (!ret)
			ret = pamu_sim_dma(liodn, destination, dev->buffer, size, true);
		if (ret)
			return ret;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
		source += size;
		destination += size;
		left -= size;
	}
	return 0;
}

static int do_command(struct pamu_dma *dev)
{
	struct registers *regs = &dev->regs;
	u16 liodn = le32_to_cpu(regs->liodn);

	switch (le32_to_cpu(regs->command)) {
	case PAMU_DMA_READ:
		return pamu_sim_dma(liodn, le64_to_cpu(regs->source), &regs->data,
				     sizeof(regs->data), false);
	case PAMU_DMA_WRITE:
		return pamu_sim_dma(liodn, le64_to_cpu(regs->destination), &regs->data,
				     sizeof(regs->data), true);
	case PAMU_DMA_COPY:
		return do_copy(dev, liodn);
	case PAMU_DMA_INTERRUPT:
		if (!dev->msi)
			return -ENXIO;
		return pamu_sim_dma(liodn, le64_to_cpu(regs->msi_address), &regs->msi_data,
				     sizeof(regs->msi_data), true);
	default:
		return -EINVAL;
	}
}

/* --- Registers --------------------------------------------------------------------------------- */

static bool is_access(size_t count, loff_t pos)
{
	return (count == 4 || count == 8) && IS_ALIGNED(pos, count) &&
	       pos >= 0 && pos <= PAMU_DMA_SIZE - count;
}

static ssize_t pamu_dma_read(struct vfio_device *vdev, char __user *buf, size_t count, loff_t *ppos)
{
	struct pamu_dma *dev = to_pamu_dma(vdev);
	u8 value[8];

	if (!is_access(count, *ppos))
		return -EINVAL;
	mutex_lock(&dev->lock);
	memcpy(value, (u8 *)&dev->regs + *ppos, count);
	mutex_unlock(&dev->lock);
	if (copy_to_user(buf, value, count))
		return -EFAULT;
	*ppos += count;
	return count;
}

static ssize_t pamu_dma_write(struct vfio_device *vdev, const char __user *buf, size_t count,
			      loff_t *ppos)
{
	struct pamu_dma *dev = to_pamu_dma(vdev);
	loff_t pos = *ppos;
	u8 value[8];

	if (!is_access(count, pos))
		return -EINVAL;
	if (copy_from_user(value, buf, count))
		return -EFAULT;
	*ppos += count;
	if (pos >= PAMU_DMA_MSI_ADDRESS && pos < PAMU_DMA_DATA)
		return count;
	mutex_lock(&dev->lock);
	memcpy((u8 *)&dev->regs + pos, value, count);
	if (pos == PAMU_DMA_COMMAND)
		dev->regs.status = cpu_to_le32(-do_command(dev));
	mutex_unlock(&dev->lock);
	return count;
}

/* --- Interrupt --------------------------------------------------------------------------------- */

static void put_msi(struct pamu_dma *dev)
{
	if (!dev->msi)
		return;
	pamu_sim_msi_put(dev->msi);
	dev->msi = NULL;
	dev->regs.msi_address = 0;
	dev->regs.msi_data = 0;
}

static int set_msi(struct pamu_dma *dev, s32 fd)
{
	struct pamu_sim_msi *msi;
	u64 address;
	u32 data;

	put_msi(dev);
	if (fd < 0)
		return 0;
	msi = pamu_sim_msi_get(dev->vdev.dev, dev->bank, fd, &address, &data);
	if (IS_ERR(msi))
		return PTR_ERR(msi);
	dev->msi = msi;
	dev->regs.msi_address = cpu_to_le64(address);
	dev->regs.msi_data = cpu_to_le32(data);
	return 0;
}

static int set_irqs(struct pamu_dma *dev, void __user *arg)
{
	size_t minsz = offsetofend(struct vfio_irq_set, count);
	struct vfio_irq_set set;
	size_t size = 0;
	s32 fd = -1;
	int ret;

	if (copy_from_user(&set, arg, minsz))
		return -EFAULT;
	ret = vfio_set_irqs_validate_and_prepare(&set, 1, 1, &size);
	if (ret)
		return ret;
	if ((set.flags & VFIO_IRQ_SET_ACTION_TYPE_MASK) != VFIO_IRQ_SET_ACTION_TRIGGER)
		return -EINVAL;
	switch (set.flags & VFIO_IRQ_SET_DATA_TYPE_MASK) {
	case VFIO_IRQ_SET_DATA_NONE:
		if (set.count)
			return -EINVAL;
		break;
	case VFIO_IRQ_SET_DATA_EVENTFD:
		if (size != sizeof(fd))
			return -EINVAL;
		if (copy_from_user(&fd, arg + minsz, size))
			return -EFAULT;
		break;
	default:
		return -EINVAL;
	}
	mutex_lock(&dev->lock);
	ret = set_msi(dev, fd);
	mutex_unlock(&dev->lock);
	return ret;
}

/* --- Device ------------------------------------------------------------------------------------ */

static long get_info(void __user *arg)
{
	size_t minsz = offsetofend(struct vfio_device_info, num_irqs);
	struct vfio_device_info info;

	if (copy_from_user(&info, arg, minsz))
		return -EFAULT;
	if (info.argsz < minsz)
		return -EINVAL;
	info.flags = VFIO_DEVICE_FLAGS_PLATFORM | VFIO_DEVICE_FLAGS_RESET;
	info.num_regions = 1;
	info.num_irqs = 1;
	return copy_to_user(arg, &info, minsz) ? -EFAULT : 0;
}

static int pamu_dma_region_info(struct vfio_device *vdev, struct vfio_region_info *info,
				struct vfio_info_cap *caps)
{
	if (info->index)
		return -EINVAL;
	info->flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
	info->size = PAMU_DMA_SIZE;
	info->offset = 0;
	return 0;
}

static long get_irq_info(void __user *arg)
{
	size_t minsz = offsetofend(struct vfio_irq_info, count);
	struct vfio_irq_info info;

	if (copy_from_user(&info, arg, minsz))
		return -EFAULT;
	if (info.argsz < minsz || info.index)
		return -EINVAL;
	info.flags = VFIO_IRQ_INFO_EVENTFD;
	info.count = 1;
	return copy_to_user(arg, &info, minsz) ? -EFAULT : 0;
}

static long pamu_dma_ioctl(struct vfio_device *vdev, unsigned int cmd, unsigned long arg)
{
	struct pamu_dma *dev = to_pamu_dma(vdev);

	switch (cmd) {
	case VFIO_DEVICE_GET_INFO:
		return get_info((void __user *)arg);
	case VFIO_DEVICE_GET_IRQ_INFO:
		return get_irq_info((void __user *)arg);
	case VFIO_DEVICE_SET_IRQS:
		return set_irqs(dev, (void __user *)arg);
	case VFIO_DEVICE_RESET:
		mutex_lock(&dev->lock);
		pamu_dma_reset(dev);
		mutex_unlock(&dev->lock);
		return 0;
	default:
		return -ENOTTY;
	}
}

static int pamu_dma_open(struct vfio_device *vdev)
{
	struct pamu_dma *dev = to_pamu_dma(vdev);

	mutex_lock(&dev->lock);
	pamu_dma_reset(dev);
	mutex_unlock(&dev->lock);
	return 0;
}

static void pamu_dma_close(struct vfio_device *vdev)
{
	struct pamu_dma *dev = to_pamu_dma(vdev);

	mutex_lock(&dev->lock);
	put_msi(dev);
	mutex_unlock(&dev->lock);
}

static int pamu_dma_init(struct vfio_device *vdev)
{
	struct pamu_dma *dev = to_pamu_dma(vdev);
	int ret;

	ret = device_property_read_u32(vdev->dev, "fsl,liodn", &dev->liodn);
	if (ret)
		return ret;
	ret = device_property_read_u32(vdev->dev, "fsl,msi-bank", &dev->bank);
	if (ret)
		return ret;
	dev->buffer = kmalloc(BUFFER, GFP_KERNEL);
	if (!dev->buffer)
		return -ENOMEM;
	mutex_init(&dev->lock);
	return 0;
}

static void pamu_dma_release(struct vfio_device *vdev)
{
	kfree(to_pamu_dma(vdev)->buffer);
}

static const struct vfio_device_ops pamu_dma_ops = {
	.name			= "pamu_dma",
	.init			= pamu_dma_init,
	.release		= pamu_dma_release,
	.open_device		= pamu_dma_open,
	.close_device		= pamu_dma_close,
	.read			= pamu_dma_read,
	.write			= pamu_dma_write,
	.ioctl			= pamu_dma_ioctl,
	.get_region_info_caps	= pamu_dma_region_info,
};

static int pamu_dma_probe(struct platform_device *pdev)
{
	struct pamu_dma *dev;
	int ret;

	dev = vfio_alloc_device(pamu_dma, vdev, &pdev->dev, &pamu_dma_ops);
	if (IS_ERR(dev))
		return PTR_ERR(dev);
	ret = vfio_register_emulated_iommu_dev(&dev->vdev);
	if (ret)
		vfio_put_device(&dev->vdev);
	else
		platform_set_drvdata(pdev, dev);
	return ret;
}

static void pamu_dma_remove(struct platform_device *pdev)
{
	struct pamu_dma *dev = platform_get_drvdata(pdev);

	vfio_unregister_group_dev(&dev->vdev);
	vfio_put_device(&dev->vdev);
}

static struct platform_driver pamu_dma_driver = {
	.probe	= pamu_dma_probe,
	.remove	= pamu_dma_remove,
	.driver	= { .name = "pamu_dma" },
};

/* --- Module ------------------------------------------------------------------------------------ */

static struct platform_device *made[MAX_DEVICES];

static void remove_devices(void)
{
	unsigned int i;

	for (i = 0; i < devices; i++)
		platform_device_unregister(made[i]);
}

static int make_device(unsigned int nr)
{
	const struct property_entry properties[] = {
		PROPERTY_ENTRY_U32("fsl,liodn", FIRST_LIODN + nr),
		PROPERTY_ENTRY_U32("fsl,msi-bank", nr % 3),
		{ }
	};
	const struct platform_device_info info = {
		.name		= "pamu_dma",
		.id		= nr,
		.properties	= properties,
	};

	made[nr] = platform_device_register_full(&info);
	return PTR_ERR_OR_ZERO(made[nr]);
}

static int __init pamu_dma_module_init(void)
{
	unsigned int i;
	u8 nothing;
	int ret;

	if (devices > MAX_DEVICES)
		return -EINVAL;
	/* Fails if there is no software PAMU. */
	ret = pamu_sim_dma(FIRST_LIODN, 0, &nothing, 0, false);
	if (ret)
		return ret;
	ret = platform_driver_register(&pamu_dma_driver);
	if (ret)
		return ret;
	for (i = 0; i < devices; i++) {
		ret = make_device(i);
		if (ret) {
			devices = i;
			remove_devices();
			platform_driver_unregister(&pamu_dma_driver);
			return ret;
		}
	}
	return 0;
}

static void __exit pamu_dma_module_exit(void)
{
	remove_devices();
	platform_driver_unregister(&pamu_dma_driver);
}

module_init(pamu_dma_module_init);
module_exit(pamu_dma_module_exit);

MODULE_INFO(test, "Y");
MODULE_DESCRIPTION("Copy engines behind a software PAMU");
MODULE_LICENSE("GPL");
