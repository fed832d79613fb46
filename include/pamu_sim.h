/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Devices behind a software PAMU (pamu_sim.ko): what their drivers do in place of the hardware. All
 * functions may sleep.
 */
#ifndef PAMU_SIM_H
#define PAMU_SIM_H

#include <linux/types.h>

struct device;
struct pamu_sim_msi;

/*
 * Reads size bytes from a device address into data, or writes them there, as a device with this
 * LIODN.
 *
 * Returns 0; -ENODEV if there is no software PAMU; -EFAULT if the PAMU refused the access, which
 * also disables the LIODN. The data before the refused address was read or written.
 */
int pamu_sim_dma(u16 liodn, u64 address, void *data, size_t size, bool write);

/*
 * Allocates an interrupt for a device: a write of *data, a little-endian word, to *address signals
 * the eventfd. The device has an fsl,liodn. bank is the number of the MSI bank that the device is
 * wired to, or negative for any bank that is mapped.
 *
 * Returns an ERR_PTR: -EINVAL if the bank isn't mapped for the device, -EBADF or -EINVAL if fd isn't
 * an eventfd, -ENODEV, -ENOSPC, -ENOMEM. The bank can't be unmapped until pamu_sim_msi_put().
 */
struct pamu_sim_msi *pamu_sim_msi_get(struct device *dev, int bank, int fd, u64 *address, u32 *data);

/* Frees an interrupt. */
void pamu_sim_msi_put(struct pamu_sim_msi *msi);

#endif /* PAMU_SIM_H */
