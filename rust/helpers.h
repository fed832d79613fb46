/* SPDX-License-Identifier: GPL-2.0 */
/* Macros and inline functions of C headers, as functions that Rust can call. */
#ifndef KERNEL_EXT_HELPERS_H
#define KERNEL_EXT_HELPERS_H

/* Also on 32-bit machines. */
#if !defined(CONFIG_PHYS_ADDR_T_64BIT) || !defined(CONFIG_ARCH_DMA_ADDR_T_64BIT)
#error "These modules need a kernel with physical and DMA addresses of 64 bits (CONFIG_PHYS_ADDR_T_64BIT)"
#endif

#include <linux/debugfs.h>
#include <linux/fs.h>
#include <linux/iommu.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/vfio.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

static const fmode_t KERNEL_EXT_FMODE_PREAD = FMODE_PREAD;
static const fmode_t KERNEL_EXT_FMODE_PWRITE = FMODE_PWRITE;

void kernel_ext_mutex_lock_nested(struct mutex *lock);
void kernel_ext_kunit_skip(const char *reason);
void kernel_ext_list_del(struct list_head *entry);
void kernel_ext_device_lock(struct device *dev);
void kernel_ext_device_unlock(struct device *dev);
struct cdev *kernel_ext_inode_cdev(const struct inode *inode);
struct workqueue_struct *kernel_ext_singlethread_workqueue(const char *name);
__poll_t kernel_ext_vfs_poll(struct file *file, struct poll_table_struct *pt);
int kernel_ext_pm_runtime_get(struct device *dev);
void kernel_ext_pm_runtime_put(struct device *dev);
int kernel_ext_iova_bitmap_report(unsigned long iova, size_t length, unsigned long page_size,
				  u64 __user *data, void *opaque, iova_bitmap_fn_t fn);
void kernel_ext_iova_bitmap_set(struct iova_bitmap *bitmap, unsigned long iova, size_t length);

/* A task that sleeps until its key is woken. */
struct kernel_ext_keyed_wait {
	struct wait_queue_entry entry;
	u64 key;
};

/*
 * Sleeping tasks, spread over several queues: a wakeup visits all tasks in the queue of its key, with
 * interrupts disabled.
 */
struct kernel_ext_keyed_waits {
	struct wait_queue_head heads[16];
};

void kernel_ext_keyed_waits_init(struct kernel_ext_keyed_waits *waits);
void kernel_ext_keyed_wait_begin(struct kernel_ext_keyed_waits *waits,
				 struct kernel_ext_keyed_wait *wait, u64 key, bool killable);
void kernel_ext_keyed_wait_end(struct kernel_ext_keyed_waits *waits,
			       struct kernel_ext_keyed_wait *wait);
void kernel_ext_keyed_wake(struct kernel_ext_keyed_waits *waits, u64 key);

#ifdef CONFIG_PPC
/* kernel::bindings don't know what a message is. */
struct msi_desc;
struct msi_desc *kernel_ext_msi_first(struct pci_dev *dev);
struct msi_desc *kernel_ext_msi_next(struct pci_dev *dev);
u64 kernel_ext_msi_address(const struct msi_desc *desc);
int kernel_ext_msi_set_address(const struct msi_desc *desc, u64 address);
#endif

unsigned long kernel_ext_page_to_pfn(const struct page *page);
struct page *kernel_ext_pfn_to_page(unsigned long pfn);
void *kernel_ext_page_address(struct page *page);
bool kernel_ext_pfn_is_ram(unsigned long pfn);
int kernel_ext_iommu_get_msi_cookie(struct iommu_domain *domain, dma_addr_t base);
struct mem_cgroup *kernel_ext_memcg_of_current(void);
void kernel_ext_memcg_put(struct mem_cgroup *memcg);
struct mem_cgroup *kernel_ext_set_active_memcg(struct mem_cgroup *memcg);
int kernel_ext_account_locked_vm(struct mm_struct *mm, unsigned long pages, bool inc,
				 const struct task_struct *task, bool bypass);
unsigned long kernel_ext_memlock_limit(const struct task_struct *task);
unsigned long kernel_ext_untagged_addr(struct mm_struct *mm, unsigned long addr);
bool kernel_ext_fatal_signal_pending(void);
void kernel_ext_cond_resched(void);
bool kernel_ext_ratelimit(void);
void *kernel_ext_vmalloc_user(unsigned long size);
void *kernel_ext_zeroed_page(void);
int kernel_ext_remap_memory(struct vm_area_struct *vma, const void *memory);
unsigned long kernel_ext_copy_to_user(void __user *to, const void *from, unsigned long size);
unsigned long kernel_ext_copy_from_user(void *to, const void __user *from, unsigned long size);
void kernel_ext_copy_from_page(void *to, struct page *page, size_t offset, size_t size);
void kernel_ext_copy_to_page(struct page *page, size_t offset, const void *from, size_t size);
bool kernel_ext_pid_has_process(struct pid *pid);
bool kernel_ext_access_ok(const void __user *address, unsigned long size);
int kernel_ext_kstrtoul(const char *s, unsigned int base, unsigned long *result);
bool kernel_ext_is_pci(const struct device *dev);
struct device *kernel_ext_pci_controller(struct device *dev);
int kernel_ext_walk_pci_devices(void *data, int (*fn)(struct device *dev, void *data));
int kernel_ext_device_driver(struct device *dev, char *name, size_t size);
struct dentry *kernel_ext_debugfs_create_dir(const char *name, struct dentry *parent);
struct dentry *kernel_ext_debugfs_create_file(const char *name, umode_t mode, struct dentry *parent,
					      void *data, const struct file_operations *fops);
void kernel_ext_debugfs_remove(struct dentry *dentry);

void kernel_ext_xa_init(struct xarray *xa);
int kernel_ext_xa_alloc(struct xarray *xa, u32 *id, void *entry, u32 min, u32 max, gfp_t gfp);
int kernel_ext_xa_insert(struct xarray *xa, unsigned long index, void *entry, gfp_t gfp);
void *kernel_ext_xa_erase(struct xarray *xa, unsigned long index);
void *kernel_ext_xa_erase_if(struct xarray *xa, unsigned long index, void *entry);
void *kernel_ext_xa_load_rcu(struct xarray *xa, unsigned long index);
void *kernel_ext_xa_mk_value(unsigned long value);
unsigned long kernel_ext_xa_to_value(const void *entry);

unsigned long kernel_ext_spin_lock_irqsave(spinlock_t *lock);
bool kernel_ext_spin_trylock_irqsave(spinlock_t *lock, unsigned long *flags);
void kernel_ext_spin_unlock_irqrestore(spinlock_t *lock, unsigned long flags);

#endif
