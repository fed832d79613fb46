/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * The registers of pamu_dma, a copy engine behind a PAMU. They are region 0 of the device. A
 * program accesses them with pread() and pwrite() of 4 or 8 aligned bytes; they are little-endian.
 */
#ifndef PAMU_DMA_H
#define PAMU_DMA_H

#define PAMU_DMA_COMMAND	0x00	/* 32 bits; a write executes it and returns when it is done */
#define PAMU_DMA_READ		1	/* DATA = 8 bytes at SOURCE */
#define PAMU_DMA_WRITE		2	/* 8 bytes at DESTINATION = DATA */
#define PAMU_DMA_COPY		3	/* LENGTH bytes from SOURCE to DESTINATION */
#define PAMU_DMA_INTERRUPT	4	/* writes MSI_DATA to MSI_ADDRESS by DMA, like any device */
#define PAMU_DMA_STATUS		0x04	/* 32 bits: 0, or the error number of the last command */
#define PAMU_DMA_SOURCE		0x08	/* 64 bits */
#define PAMU_DMA_DESTINATION	0x10	/* 64 bits */
#define PAMU_DMA_LENGTH		0x18	/* 32 bits */
#define PAMU_DMA_LIODN		0x1c	/* 32 bits: LIODN to use, for tests; its own after reset */
#define PAMU_DMA_MSI_ADDRESS	0x20	/* 64 bits, read-only: set by VFIO_DEVICE_SET_IRQS */
#define PAMU_DMA_MSI_DATA	0x28	/* 32 bits, read-only */
#define PAMU_DMA_DATA		0x30	/* 64 bits */
#define PAMU_DMA_SIZE		0x38

#endif
