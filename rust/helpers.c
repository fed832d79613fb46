// SPDX-License-Identifier: GPL-2.0
/*
 * Exported, because generic Rust code that calls them is compiled into the modules that use it.
 */
#include <linux/export.h>
#include <linux/module.h>
#include <linux/pm_runtime.h>

#include "helpers.h"

struct cdev *kernel_ext_inode_cdev(const struct inode *inode)
{
	return inode->i_cdev;
}
EXPORT_SYMBOL_GPL(kernel_ext_inode_cdev);

struct workqueue_struct *kernel_ext_singlethread_workqueue(const char *name)
{
	return create_singlethread_workqueue(name);
}
EXPORT_SYMBOL_GPL(kernel_ext_singlethread_workqueue);

__poll_t kernel_ext_vfs_poll(struct file *file, struct poll_table_struct *pt)
{
	return vfs_poll(file, pt);
}
EXPORT_SYMBOL_GPL(kernel_ext_vfs_poll);

int kernel_ext_pm_runtime_get(struct device *dev)
{
	return pm_runtime_resume_and_get(dev);
}
EXPORT_SYMBOL_GPL(kernel_ext_pm_runtime_get);

void kernel_ext_pm_runtime_put(struct device *dev)
{
	pm_runtime_put(dev);
}
EXPORT_SYMBOL_GPL(kernel_ext_pm_runtime_put);

int kernel_ext_iova_bitmap_report(unsigned long iova, size_t length, unsigned long page_size,
				  u64 __user *data, void *opaque, iova_bitmap_fn_t fn)
{
	struct iova_bitmap *bitmap = iova_bitmap_alloc(iova, length, page_size, data);
	int ret;

	if (IS_ERR(bitmap))
		return PTR_ERR(bitmap);
	ret = iova_bitmap_for_each(bitmap, opaque, fn);
	iova_bitmap_free(bitmap);
	return ret;
}
EXPORT_SYMBOL_GPL(kernel_ext_iova_bitmap_report);

MODULE_IMPORT_NS("IOMMUFD");
