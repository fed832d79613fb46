/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Devices behind a PAMU in software, which vfio_iommu_pamu.ko has with software=1: what their drivers do in
 * place of the hardware. All functions may sleep.
 */
#ifndef VFIO_PAMU_KERNEL_H
#define VFIO_PAMU_KERNEL_H

#include <linux/types.h>

struct device;
struct vfio_pamu_msi;

/*
 * Reads size bytes of memory from a device address on into data, or writes them there, as a device
 * with this LIODN.
 *
 * Returns 0; -ENODEV if there is no PAMU in software; -EFAULT if the access was refused, and then the
 * LIODN is shut off. What lies before the address that was refused was read or written.
 */
int vfio_pamu_dma(u16 liodn, u64 address, void *data, size_t size, bool write);

/*
 * Gives a device an interrupt: it is raised by a write of *data, a little-endian word, to *address, and then
 * signals the eventfd. The device has an fsl,liodn. bank is the number of the bank that it is wired
 * to, or negative for any that is mapped.
 *
 * Returns an ERR_PTR: -EINVAL if the bank isn't mapped for the device, -EBADF or -EINVAL for no eventfd,
 * -ENODEV, -ENOSPC, -ENOMEM. The bank can't be unmapped until the interrupt was given back.
 */
struct vfio_pamu_msi *vfio_pamu_msi_get(struct device *dev, int bank, int fd, u64 *address,
					u32 *data);

/* Gives an interrupt back. */
void vfio_pamu_msi_put(struct vfio_pamu_msi *msi);

#endif /* VFIO_PAMU_KERNEL_H */
