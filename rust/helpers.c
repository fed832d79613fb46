// SPDX-License-Identifier: GPL-2.0
/*
 * Exported, because generic Rust code that calls them is compiled into the modules that use it.
 */
#include <kunit/test-bug.h>
#include <kunit/test.h>
#include <linux/export.h>
#include <linux/highmem.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/msi.h>
#include <linux/pagemap.h>
#include <linux/pci.h>
#include <linux/pm_runtime.h>
#include <linux/ratelimit.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>
#include <linux/xarray.h>
#include <linux/vmalloc.h>

#include "helpers.h"

void kernel_ext_list_del(struct list_head *entry)
{
	list_del(entry);
}
EXPORT_SYMBOL_GPL(kernel_ext_list_del);

#if IS_ENABLED(CONFIG_KUNIT)
void kernel_ext_kunit_skip(const char *reason)
{
	struct kunit *test = kunit_get_current_test();

	if (test)
		kunit_mark_skipped(test, "%s", reason);
}
EXPORT_SYMBOL_GPL(kernel_ext_kunit_skip);
#endif

void kernel_ext_device_lock(struct device *dev)
{
	device_lock(dev);
}
EXPORT_SYMBOL_GPL(kernel_ext_device_lock);

void kernel_ext_device_unlock(struct device *dev)
{
	device_unlock(dev);
}
EXPORT_SYMBOL_GPL(kernel_ext_device_unlock);

void kernel_ext_mutex_lock_nested(struct mutex *lock)
{
	mutex_lock_nested(lock, SINGLE_DEPTH_NESTING);
}
EXPORT_SYMBOL_GPL(kernel_ext_mutex_lock_nested);

struct cdev *kernel_ext_inode_cdev(const struct inode *inode)
{
	return inode->i_cdev;
}
EXPORT_SYMBOL_GPL(kernel_ext_inode_cdev);

int kernel_ext_iommu_get_msi_cookie(struct iommu_domain *domain, dma_addr_t base)
{
	return iommu_get_msi_cookie(domain, base);
}
EXPORT_SYMBOL_GPL(kernel_ext_iommu_get_msi_cookie);

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

void kernel_ext_iova_bitmap_set(struct iova_bitmap *bitmap, unsigned long iova, size_t length)
{
	iova_bitmap_set(bitmap, iova, length);
}
EXPORT_SYMBOL_GPL(kernel_ext_iova_bitmap_set);

void kernel_ext_keyed_waits_init(struct kernel_ext_keyed_waits *waits)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(waits->heads); i++)
		init_waitqueue_head(&waits->heads[i]);
}
EXPORT_SYMBOL_GPL(kernel_ext_keyed_waits_init);

static struct wait_queue_head *head_of(struct kernel_ext_keyed_waits *waits, u64 key)
{
	return &waits->heads[key % ARRAY_SIZE(waits->heads)];
}

static int wake_if_key(struct wait_queue_entry *entry, unsigned int mode, int flags, void *key)
{
	struct kernel_ext_keyed_wait *wait = container_of(entry, struct kernel_ext_keyed_wait, entry);

	if (wait->key != *(u64 *)key)
		return 0;
	return autoremove_wake_function(entry, mode, flags, key);
}

void kernel_ext_keyed_wait_begin(struct kernel_ext_keyed_waits *waits,
				 struct kernel_ext_keyed_wait *wait, u64 key, bool killable)
{
	init_wait_func(&wait->entry, wake_if_key);
	wait->key = key;
	prepare_to_wait(head_of(waits, key), &wait->entry,
			killable ? TASK_KILLABLE : TASK_UNINTERRUPTIBLE);
}
EXPORT_SYMBOL_GPL(kernel_ext_keyed_wait_begin);

void kernel_ext_keyed_wait_end(struct kernel_ext_keyed_waits *waits,
			       struct kernel_ext_keyed_wait *wait)
{
	schedule();
	finish_wait(head_of(waits, wait->key), &wait->entry);
}
EXPORT_SYMBOL_GPL(kernel_ext_keyed_wait_end);

void kernel_ext_keyed_wake(struct kernel_ext_keyed_waits *waits, u64 key)
{
	__wake_up(head_of(waits, key), TASK_NORMAL, 0, &key);
}
EXPORT_SYMBOL_GPL(kernel_ext_keyed_wake);

unsigned long kernel_ext_page_to_pfn(const struct page *page)
{
	return page_to_pfn(page);
}
EXPORT_SYMBOL_GPL(kernel_ext_page_to_pfn);

struct page *kernel_ext_pfn_to_page(unsigned long pfn)
{
	return pfn_to_page(pfn);
}
EXPORT_SYMBOL_GPL(kernel_ext_pfn_to_page);

/* Of a page that is not high memory. */
void *kernel_ext_page_address(struct page *page)
{
	return page_address(page);
}
EXPORT_SYMBOL_GPL(kernel_ext_page_address);

/* Whether the frame is memory that the page allocator manages, and so counts as locked. */
bool kernel_ext_pfn_is_ram(unsigned long pfn)
{
	return pfn_valid(pfn) && !PageReserved(pfn_to_page(pfn));
}
EXPORT_SYMBOL_GPL(kernel_ext_pfn_is_ram);

/* A reference to the memory cgroup of the calling process; null where there are none. */
struct mem_cgroup *kernel_ext_memcg_of_current(void)
{
	return get_mem_cgroup_from_mm(current->mm);
}
EXPORT_SYMBOL_GPL(kernel_ext_memcg_of_current);

void kernel_ext_memcg_put(struct mem_cgroup *memcg)
{
	mem_cgroup_put(memcg);
}
EXPORT_SYMBOL_GPL(kernel_ext_memcg_put);

struct mem_cgroup *kernel_ext_set_active_memcg(struct mem_cgroup *memcg)
{
	return set_active_memcg(memcg);
}
EXPORT_SYMBOL_GPL(kernel_ext_set_active_memcg);

int kernel_ext_account_locked_vm(struct mm_struct *mm, unsigned long pages, bool inc,
				 const struct task_struct *task, bool bypass)
{
	int ret = 0;

	/* Uncharge even if the caller is being killed: another process may have been charged. */
	if (inc)
		ret = mmap_write_lock_killable(mm);
	else
		mmap_write_lock(mm);
	if (ret)
		return ret;
	ret = __account_locked_vm(mm, pages, inc, task, bypass);
	mmap_write_unlock(mm);
	return ret;
}
EXPORT_SYMBOL_GPL(kernel_ext_account_locked_vm);

unsigned long kernel_ext_memlock_limit(const struct task_struct *task)
{
	return task_rlimit(task, RLIMIT_MEMLOCK);
}
EXPORT_SYMBOL_GPL(kernel_ext_memlock_limit);

unsigned long kernel_ext_untagged_addr(struct mm_struct *mm, unsigned long addr)
{
	return untagged_addr_remote(mm, addr);
}
EXPORT_SYMBOL_GPL(kernel_ext_untagged_addr);

bool kernel_ext_fatal_signal_pending(void)
{
	return fatal_signal_pending(current);
}
EXPORT_SYMBOL_GPL(kernel_ext_fatal_signal_pending);

void kernel_ext_cond_resched(void)
{
	cond_resched();
}
EXPORT_SYMBOL_GPL(kernel_ext_cond_resched);

/* One rate limit for all warnings that userspace can trigger. */
bool kernel_ext_ratelimit(void)
{
	static DEFINE_RATELIMIT_STATE(state, DEFAULT_RATELIMIT_INTERVAL, DEFAULT_RATELIMIT_BURST);

	return __ratelimit(&state);
}
EXPORT_SYMBOL_GPL(kernel_ext_ratelimit);

bool kernel_ext_is_pci(const struct device *dev)
{
	return dev_is_pci(dev);
}
EXPORT_SYMBOL_GPL(kernel_ext_is_pci);

/* Returns the parent of the bridge at the root of a PCI device's bus, or NULL. */
struct device *kernel_ext_pci_controller(struct device *dev)
{
	if (!IS_ENABLED(CONFIG_PCI) || !dev_is_pci(dev))
		return NULL;
	return pci_find_host_bridge(to_pci_dev(dev)->bus)->dev.parent;
}
EXPORT_SYMBOL_GPL(kernel_ext_pci_controller);

int kernel_ext_walk_pci_devices(void *data, int (*fn)(struct device *dev, void *data))
{
#ifdef CONFIG_PCI
	return bus_for_each_dev(&pci_bus_type, NULL, data, fn);
#else
	return 0;
#endif
}
EXPORT_SYMBOL_GPL(kernel_ext_walk_pci_devices);

struct driver_search {
	const struct device *dev;
	const struct device_driver *driver;
	char *name;
	size_t size;
};

static int describe_driver(struct device_driver *driver, void *data)
{
	struct driver_search *search = data;

	if (driver != search->driver)
		return 0;
	strscpy(search->name, driver->name, search->size);
	return dev_is_pci(search->dev) && to_pci_driver(driver)->driver_managed_dma ? 2 : 1;
}

/*
 * Stores the name of the driver. Returns 0: none; 1: uses the DMA API; 2: driver_managed_dma;
 * negative: being bound or unbound.
 *
 * Does not lock the device: vfio-pci resets a device only if it can lock it and its bridge at once.
 * The walk of the drivers keeps each driver registered while it looks at it.
 */
int kernel_ext_device_driver(struct device *dev, char *name, size_t size)
{
	struct driver_search search = {
		.dev = dev,
		.driver = READ_ONCE(dev->driver),
		.name = name,
		.size = size,
	};
	int found = 0;

	if (!search.driver)
		return 0;
	if (device_is_bound(dev))
		found = bus_for_each_drv(dev->bus, NULL, &search, describe_driver);
	return found ?: -EBUSY;
}
EXPORT_SYMBOL_GPL(kernel_ext_device_driver);

struct dentry *kernel_ext_debugfs_create_dir(const char *name, struct dentry *parent)
{
	return debugfs_create_dir(name, parent);
}
EXPORT_SYMBOL_GPL(kernel_ext_debugfs_create_dir);

struct dentry *kernel_ext_debugfs_create_file(const char *name, umode_t mode, struct dentry *parent,
					      void *data, const struct file_operations *fops)
{
	return debugfs_create_file(name, mode, parent, data, fops);
}
EXPORT_SYMBOL_GPL(kernel_ext_debugfs_create_file);

void kernel_ext_debugfs_remove(struct dentry *dentry)
{
	debugfs_remove(dentry);
}
EXPORT_SYMBOL_GPL(kernel_ext_debugfs_remove);

bool kernel_ext_pid_has_process(struct pid *pid)
{
	return pid_has_task(pid, PIDTYPE_TGID);
}
EXPORT_SYMBOL_GPL(kernel_ext_pid_has_process);

bool kernel_ext_access_ok(const void __user *address, unsigned long size)
{
	return access_ok(address, size);
}
EXPORT_SYMBOL_GPL(kernel_ext_access_ok);

int kernel_ext_kstrtoul(const char *s, unsigned int base, unsigned long *result)
{
	return kstrtoul(s, base, result);
}
EXPORT_SYMBOL_GPL(kernel_ext_kstrtoul);

/* Its own lock class, and a lock that may be taken in interrupts. */
void kernel_ext_xa_init(struct xarray *xa)
{
	xa_init_flags(xa, XA_FLAGS_ALLOC | XA_FLAGS_LOCK_IRQ);
}
EXPORT_SYMBOL_GPL(kernel_ext_xa_init);

int kernel_ext_xa_alloc(struct xarray *xa, u32 *id, void *entry, u32 min, u32 max, gfp_t gfp)
{
	unsigned long flags;
	int ret;

	xa_lock_irqsave(xa, flags);
	ret = __xa_alloc(xa, id, entry, XA_LIMIT(min, max), gfp);
	xa_unlock_irqrestore(xa, flags);
	return ret;
}
EXPORT_SYMBOL_GPL(kernel_ext_xa_alloc);

int kernel_ext_xa_insert(struct xarray *xa, unsigned long index, void *entry, gfp_t gfp)
{
	unsigned long flags;
	int ret;

	xa_lock_irqsave(xa, flags);
	ret = __xa_insert(xa, index, entry, gfp);
	xa_unlock_irqrestore(xa, flags);
	return ret;
}
EXPORT_SYMBOL_GPL(kernel_ext_xa_insert);

void *kernel_ext_xa_erase(struct xarray *xa, unsigned long index)
{
	unsigned long flags;
	void *entry;

	xa_lock_irqsave(xa, flags);
	entry = __xa_erase(xa, index);
	xa_unlock_irqrestore(xa, flags);
	return entry;
}
EXPORT_SYMBOL_GPL(kernel_ext_xa_erase);

void *kernel_ext_xa_erase_if(struct xarray *xa, unsigned long index, void *entry)
{
	unsigned long flags;
	void *found;

	xa_lock_irqsave(xa, flags);
	found = __xa_cmpxchg(xa, index, entry, NULL, GFP_NOWAIT);
	xa_unlock_irqrestore(xa, flags);
	return found;
}
EXPORT_SYMBOL_GPL(kernel_ext_xa_erase_if);

/* xa_load() for callers that have the RCU read lock already, of an array without reserved entries. */
void *kernel_ext_xa_load_rcu(struct xarray *xa, unsigned long index)
{
	XA_STATE(xas, xa, index);
	void *entry;

	do {
		entry = xas_load(&xas);
	} while (xas_retry(&xas, entry));
	return entry;
}
EXPORT_SYMBOL_GPL(kernel_ext_xa_load_rcu);

void *kernel_ext_xa_mk_value(unsigned long value)
{
	return xa_mk_value(value);
}
EXPORT_SYMBOL_GPL(kernel_ext_xa_mk_value);

unsigned long kernel_ext_xa_to_value(const void *entry)
{
	return xa_to_value(entry);
}
EXPORT_SYMBOL_GPL(kernel_ext_xa_to_value);

void *kernel_ext_vmalloc_user(unsigned long size)
{
	return vmalloc_user(size);
}
EXPORT_SYMBOL_GPL(kernel_ext_vmalloc_user);

void *kernel_ext_zeroed_page(void)
{
	return (void *)get_zeroed_page(GFP_KERNEL);
}
EXPORT_SYMBOL_GPL(kernel_ext_zeroed_page);

/*
 * Maps kernel pages into a VMA that is being set up, as VM_PFNMAP, so they cannot be pinned.
 */
int kernel_ext_remap_memory(struct vm_area_struct *vma, const void *memory)
{
	unsigned long address;
	int ret;

	if (!is_vmalloc_addr(memory))
		return remap_pfn_range(vma, vma->vm_start, PHYS_PFN(virt_to_phys((void *)memory)),
				       vma->vm_end - vma->vm_start, vma->vm_page_prot);
	for (address = vma->vm_start; address < vma->vm_end; address += PAGE_SIZE) {
		ret = remap_pfn_range(vma, address, vmalloc_to_pfn(memory), PAGE_SIZE,
				      vma->vm_page_prot);
		if (ret)
			return ret;
		memory += PAGE_SIZE;
	}
	return 0;
}
EXPORT_SYMBOL_GPL(kernel_ext_remap_memory);

unsigned long kernel_ext_copy_to_user(void __user *to, const void *from, unsigned long size)
{
	return copy_to_user(to, from, size);
}
EXPORT_SYMBOL_GPL(kernel_ext_copy_to_user);

unsigned long kernel_ext_copy_from_user(void *to, const void __user *from, unsigned long size)
{
	return copy_from_user(to, from, size);
}
EXPORT_SYMBOL_GPL(kernel_ext_copy_from_user);

void kernel_ext_copy_from_page(void *to, struct page *page, size_t offset, size_t size)
{
	memcpy_from_page(to, page, offset, size);
}
EXPORT_SYMBOL_GPL(kernel_ext_copy_from_page);

void kernel_ext_copy_to_page(struct page *page, size_t offset, const void *from, size_t size)
{
	memcpy_to_page(page, offset, from, size);
}
EXPORT_SYMBOL_GPL(kernel_ext_copy_to_page);

unsigned long kernel_ext_spin_lock_irqsave(spinlock_t *lock)
{
	unsigned long flags;

	spin_lock_irqsave(lock, flags);
	return flags;
}
EXPORT_SYMBOL_GPL(kernel_ext_spin_lock_irqsave);

bool kernel_ext_spin_trylock_irqsave(spinlock_t *lock, unsigned long *flags)
{
	return spin_trylock_irqsave(lock, *flags);
}
EXPORT_SYMBOL_GPL(kernel_ext_spin_trylock_irqsave);

void kernel_ext_spin_unlock_irqrestore(spinlock_t *lock, unsigned long flags)
{
	spin_unlock_irqrestore(lock, flags);
}
EXPORT_SYMBOL_GPL(kernel_ext_spin_unlock_irqrestore);

#ifdef CONFIG_PPC
/* The message signalled interrupts of a device that were set up. */
struct msi_desc *kernel_ext_msi_first(struct pci_dev *dev)
{
	return msi_first_desc(&dev->dev, MSI_DESC_ASSOCIATED);
}
EXPORT_SYMBOL_GPL(kernel_ext_msi_first);

struct msi_desc *kernel_ext_msi_next(struct pci_dev *dev)
{
	return msi_next_desc(&dev->dev, MSI_DEFAULT_DOMAIN, MSI_DESC_ASSOCIATED);
}
EXPORT_SYMBOL_GPL(kernel_ext_msi_next);

u64 kernel_ext_msi_address(const struct msi_desc *desc)
{
	return (u64)desc->msg.address_hi << 32 | desc->msg.address_lo;
}
EXPORT_SYMBOL_GPL(kernel_ext_msi_address);

/* Returns -ERANGE if the device has no room for the address. */
int kernel_ext_msi_set_address(const struct msi_desc *desc, u64 address)
{
	struct msi_msg message = desc->msg;

	if (upper_32_bits(address) && !desc->pci.msi_attrib.is_msix && !desc->pci.msi_attrib.is_64)
		return -ERANGE;
	message.address_hi = upper_32_bits(address);
	message.address_lo = lower_32_bits(address);
	pci_write_msi_msg(desc->irq, &message);
	return 0;
}
EXPORT_SYMBOL_GPL(kernel_ext_msi_set_address);
#endif

MODULE_IMPORT_NS("IOMMUFD");
MODULE_IMPORT_NS("IOMMUFD_VFIO");
