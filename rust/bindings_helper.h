/* SPDX-License-Identifier: GPL-2.0 */
/* Headers whose declarations `kernel::bindings` lacks; bindgen_parameters picks from them. */
#include <linux/anon_inodes.h>
#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/eventfd.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/interval_tree.h>
#include <linux/iommu.h>
#include <linux/iommufd.h>
#include <linux/iova_bitmap.h>
#include <linux/kernel.h>
#include <linux/mdev.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/mount.h>
#include <linux/panic.h>
#include <linux/pm_runtime.h>
#include <linux/pseudo_fs.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/vfio.h>
#include <linux/vmalloc.h>

#include "helpers.h"
#include "../include/linux/ioasid.h"
#include "../include/linux/mdev_peer.h"
#include "../include/linux/vfio_group.h"
#include "../include/uapi/vfio_group.h"
#include "../include/uapi/vfio_pamu.h"
