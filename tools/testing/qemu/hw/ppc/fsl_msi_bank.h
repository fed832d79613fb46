/* SPDX-License-Identifier: GPL-2.0 */
#ifndef HW_PPC_FSL_MSI_BANK_H
#define HW_PPC_FSL_MSI_BANK_H

#define TYPE_FSL_MSI_BANK       "fsl-msi-bank"
#define FSL_MSI_BANK_REGISTERS  8
#define FSL_MSI_BANK_SIZE       0x200
#define FSL_MSI_BANK_PAGE       0x1000

#endif
