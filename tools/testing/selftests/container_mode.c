// SPDX-License-Identifier: GPL-2.0
/*
 * Linked to the kernel's own tests: those which leave the choice of an IOMMU interface to their
 * library, whose choice is iommufd, take a container.
 */
extern const char *default_iommu_mode;

static void __attribute__((constructor)) choose_container(void)
{
	default_iommu_mode = "vfio_type1v2_iommu";
}
