// SPDX-License-Identifier: GPL-2.0
/* The requests of <linux/vfio.h>. */
#include <linux/mm.h>
#include <linux/uaccess.h>

#include "vgpu_c.h"

size_t vgpu_region_size(struct vgpu *vgpu, unsigned int index)
{
	switch (index) {
	case VFIO_PCI_BAR0_REGION_INDEX:
		return VGPU_REGISTERS_SIZE;
	case VFIO_PCI_BAR2_REGION_INDEX:
		return vgpu->size;
	case VFIO_PCI_CONFIG_REGION_INDEX:
		return VGPU_CONFIG_SIZE;
	}
	return 0;
}

int vgpu_region_info(struct vfio_device *vdev, struct vfio_region_info *info,
		     struct vfio_info_cap *caps)
{
	if (info->index >= VFIO_PCI_NUM_REGIONS)
		return -EINVAL;
	info->offset = (u64)info->index << VGPU_REGION_SHIFT;
	info->size = vgpu_region_size(to_vgpu(vdev), info->index);
	info->flags = 0;
	if (info->size)
		info->flags |= VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
	if (info->index == VFIO_PCI_BAR2_REGION_INDEX)
		info->flags |= VFIO_REGION_INFO_FLAG_MMAP;
	return 0;
}

int vgpu_mmap(struct vfio_device *vdev, struct vm_area_struct *vma)
{
	struct vgpu *vgpu = to_vgpu(vdev);
	unsigned long shift = VGPU_REGION_SHIFT - PAGE_SHIFT;
	unsigned long first = vma->vm_pgoff & ((1UL << shift) - 1);
	unsigned long pages = vgpu->size >> PAGE_SHIFT;

	if (vma->vm_pgoff >> shift != VFIO_PCI_BAR2_REGION_INDEX)
		return -EINVAL;
	if (first > pages || vma_pages(vma) > pages - first)
		return -EINVAL;
	/* Not pages that could be pinned, and then used after the device is closed. */
	return remap_pfn_range(vma, vma->vm_start, (virt_to_phys(vgpu->memory) >> PAGE_SHIFT) + first,
			       vma->vm_end - vma->vm_start, vma->vm_page_prot);
}

static long get_info(void __user *arg)
{
	struct vfio_device_info info;
	unsigned long minsz = offsetofend(struct vfio_device_info, num_irqs);

	if (copy_from_user(&info, arg, minsz))
		return -EFAULT;
	if (info.argsz < minsz)
		return -EINVAL;
	info.flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET;
	info.num_regions = VFIO_PCI_NUM_REGIONS;
	info.num_irqs = VFIO_PCI_NUM_IRQS;
	return copy_to_user(arg, &info, minsz) ? -EFAULT : 0;
}

static long get_irq_info(void __user *arg)
{
	struct vfio_irq_info info;
	unsigned long minsz = offsetofend(struct vfio_irq_info, count);

	if (copy_from_user(&info, arg, minsz))
		return -EFAULT;
	if (info.argsz < minsz || info.index >= VFIO_PCI_NUM_IRQS)
		return -EINVAL;
	info.count = info.index == VFIO_PCI_MSI_IRQ_INDEX;
	info.flags = info.count ? VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE : 0;
	return copy_to_user(arg, &info, minsz) ? -EFAULT : 0;
}

static void replace_msi(struct vgpu *vgpu, struct eventfd_ctx *msi)
{
	struct eventfd_ctx *old;

	mutex_lock(&vgpu->lock);
	old = vgpu->msi;
	vgpu->msi = msi;
	mutex_unlock(&vgpu->lock);
	if (old)
		eventfd_ctx_put(old);
}

void vgpu_clear_msi(struct vgpu *vgpu)
{
	replace_msi(vgpu, NULL);
}

static long set_irqs(struct vgpu *vgpu, void __user *arg)
{
	unsigned long minsz = offsetofend(struct vfio_irq_set, count);
	struct vfio_irq_set header;
	struct eventfd_ctx *msi;
	size_t size = 0;
	s32 fd = 0;
	int ret;

	if (copy_from_user(&header, arg, minsz))
		return -EFAULT;
	ret = vfio_set_irqs_validate_and_prepare(&header, header.index == VFIO_PCI_MSI_IRQ_INDEX,
						 VFIO_PCI_NUM_IRQS, &size);
	if (ret)
		return ret;
	if ((header.flags & VFIO_IRQ_SET_ACTION_TYPE_MASK) != VFIO_IRQ_SET_ACTION_TRIGGER)
		return -ENOTTY;
	if (!header.count) {
		vgpu_clear_msi(vgpu);
		return 0;
	}
	if (copy_from_user(&fd, arg + minsz, min(size, sizeof(fd))))
		return -EFAULT;
	if (header.flags & VFIO_IRQ_SET_DATA_EVENTFD) {
		msi = fd < 0 ? NULL : eventfd_ctx_fdget(fd);
		if (IS_ERR(msi))
			return PTR_ERR(msi);
		replace_msi(vgpu, msi);
		return 0;
	}
	mutex_lock(&vgpu->lock);
	/* The data of VFIO_IRQ_SET_DATA_BOOL is one byte. */
	if (vgpu->msi && (*(u8 *)&fd || header.flags & VFIO_IRQ_SET_DATA_NONE))
		eventfd_signal(vgpu->msi);
	mutex_unlock(&vgpu->lock);
	return 0;
}

long vgpu_ioctl(struct vfio_device *vdev, unsigned int cmd, unsigned long arg)
{
	struct vgpu *vgpu = to_vgpu(vdev);
	void __user *user = (void __user *)arg;

	switch (cmd) {
	case VFIO_DEVICE_GET_INFO:
		return get_info(user);
	case VFIO_DEVICE_GET_IRQ_INFO:
		return get_irq_info(user);
	case VFIO_DEVICE_SET_IRQS:
		return set_irqs(vgpu, user);
	case VFIO_DEVICE_RESET:
		mutex_lock(&vgpu->lock);
		vgpu_reset(vgpu);
		mutex_unlock(&vgpu->lock);
		return 0;
	}
	return -ENOTTY;
}
