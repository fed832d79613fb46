// SPDX-License-Identifier: GPL-2.0
/* The exported symbols, and which are GPL-only, match the kernel's vfio.ko. */
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/vfio.h>

#include "../include/linux/vfio_group.h"

int vfio_register_iommu_driver(const void *ops);
void vfio_unregister_iommu_driver(const void *ops);

EXPORT_SYMBOL_GPL(_vfio_alloc_device);
EXPORT_SYMBOL_GPL(vfio_assign_device_set);
EXPORT_SYMBOL_GPL(vfio_combine_iova_ranges);
EXPORT_SYMBOL_GPL(vfio_device_put_registration);
EXPORT_SYMBOL_GPL(vfio_device_set_open_count);
EXPORT_SYMBOL_GPL(vfio_device_try_get_registration);
EXPORT_SYMBOL_GPL(vfio_file_enforced_coherent);
EXPORT_SYMBOL_GPL(vfio_file_is_valid);
EXPORT_SYMBOL_GPL(vfio_file_set_kvm);
EXPORT_SYMBOL_GPL(vfio_find_device_in_devset);
EXPORT_SYMBOL_GPL(vfio_info_cap_add);
EXPORT_SYMBOL_GPL(vfio_mig_get_next_state);
EXPORT_SYMBOL_GPL(vfio_register_emulated_iommu_dev);
EXPORT_SYMBOL_GPL(vfio_register_group_dev);
EXPORT_SYMBOL_GPL(vfio_register_iommu_driver);
EXPORT_SYMBOL_GPL(vfio_unregister_group_dev);
EXPORT_SYMBOL_GPL(vfio_unregister_iommu_driver);
EXPORT_SYMBOL_GPL(vfio_virqfd_disable);
EXPORT_SYMBOL_GPL(vfio_virqfd_enable);
EXPORT_SYMBOL_GPL(vfio_virqfd_flush_thread);

#if IS_ENABLED(CONFIG_VFIO_GROUP)
EXPORT_SYMBOL_GPL(vfio_file_has_dev);
EXPORT_SYMBOL_GPL(vfio_file_iommu_group);
EXPORT_SYMBOL_GPL(vfio_file_is_group);
#endif

#if IS_ENABLED(CONFIG_IOMMUFD)
EXPORT_SYMBOL_GPL(vfio_iommufd_device_ictx);
EXPORT_SYMBOL_GPL(vfio_iommufd_emulated_attach_ioas);
EXPORT_SYMBOL_GPL(vfio_iommufd_emulated_bind);
EXPORT_SYMBOL_GPL(vfio_iommufd_emulated_detach_ioas);
EXPORT_SYMBOL_GPL(vfio_iommufd_emulated_unbind);
EXPORT_SYMBOL_GPL(vfio_iommufd_get_dev_id);
EXPORT_SYMBOL_GPL(vfio_iommufd_physical_attach_ioas);
EXPORT_SYMBOL_GPL(vfio_iommufd_physical_bind);
EXPORT_SYMBOL_GPL(vfio_iommufd_physical_detach_ioas);
EXPORT_SYMBOL_GPL(vfio_iommufd_physical_pasid_attach_ioas);
EXPORT_SYMBOL_GPL(vfio_iommufd_physical_pasid_detach_ioas);
EXPORT_SYMBOL_GPL(vfio_iommufd_physical_unbind);

MODULE_IMPORT_NS("IOMMUFD_VFIO");
#endif
/* The kernel's vfio.ko has it on each kernel. */
MODULE_IMPORT_NS("IOMMUFD");

/* Not in the kernel's: include/linux/vfio_group.h. */
EXPORT_SYMBOL_GPL(vfio_move_device);

EXPORT_SYMBOL(vfio_dma_rw);
EXPORT_SYMBOL(vfio_info_add_capability);
EXPORT_SYMBOL(vfio_info_cap_shift);
EXPORT_SYMBOL(vfio_pin_pages);
EXPORT_SYMBOL(vfio_set_irqs_validate_and_prepare);
EXPORT_SYMBOL(vfio_unpin_pages);

#if IS_ENABLED(CONFIG_VFIO_CONTAINER)
MODULE_ALIAS_MISCDEV(VFIO_MINOR);
MODULE_ALIAS("devname:vfio/vfio");
#endif
MODULE_VERSION("0.3");
MODULE_SOFTDEP("post: vfio_iommu_type1 vfio_iommu_spapr_tce");
