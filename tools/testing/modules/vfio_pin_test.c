// SPDX-License-Identifier: GPL-2.0
/*
 * An emulated device, whose driver pins, reads and writes user pages like the driver of a mediated
 * device, but on request of the guest tests, with one call for each request.
 */
#include <linux/highmem.h>
#include <linux/module.h>
#include <linux/overflow.h>
#include <linux/platform_device.h>
#include <linux/slab.h>
#include <linux/vfio.h>
#include <linux/xarray.h>

#include "vfio_pin_test.h"

#define MAX_PAGES	512
#define MAX_BYTES	SZ_1M

struct pin_test_device {
	struct vfio_device vdev;
	struct mutex lock;		/* protects pages */
	struct xarray pages;		/* indexed by iova >> PAGE_SHIFT */
	atomic_t unmaps;
	unsigned long misbehaviour;	/* PIN_TEST_KEEP and others */
	u64 given_up;			/* iova of the previous dma_unmap(); one request at a time */
};

static struct pin_test_device *to_pin_test(struct vfio_device *vdev)
{
	return container_of(vdev, struct pin_test_device, vdev);
}

static int pin_test_init(struct vfio_device *vdev)
{
	struct pin_test_device *dev = to_pin_test(vdev);

	mutex_init(&dev->lock);
	xa_init(&dev->pages);
	return 0;
}

static void pin_test_release(struct vfio_device *vdev)
{
	xa_destroy(&to_pin_test(vdev)->pages);
}

static void unpin_range(struct pin_test_device *dev, u64 iova, u64 length)
{
	unsigned long index;
	struct page *page;
	u64 last;

	if (!length)
		return;
	if (check_add_overflow(iova, length - 1, &last))
		last = U64_MAX;
	mutex_lock(&dev->lock);
	xa_for_each_range(&dev->pages, index, page, iova >> PAGE_SHIFT, last >> PAGE_SHIFT) {
		xa_erase(&dev->pages, index);
		vfio_unpin_pages(&dev->vdev, (dma_addr_t)index << PAGE_SHIFT, 1);
	}
	mutex_unlock(&dev->lock);
}

static bool misbehaves(struct pin_test_device *dev, unsigned long how)
{
	return READ_ONCE(dev->misbehaviour) & how;
}

static void pin_test_close(struct vfio_device *vdev)
{
	struct pin_test_device *dev = to_pin_test(vdev);

	if (misbehaves(dev, PIN_TEST_KEEP_CLOSED))
		xa_destroy(&dev->pages);
	else
		unpin_range(dev, 0, U64_MAX);
	WRITE_ONCE(dev->misbehaviour, 0);
}

static void pin_again(struct pin_test_device *dev, u64 iova)
{
	struct page *page;

	mutex_lock(&dev->lock);
	if (vfio_pin_pages(&dev->vdev, iova, 1, IOMMU_READ, &page) == 1)
		xa_store(&dev->pages, iova >> PAGE_SHIFT, page, GFP_KERNEL);
	mutex_unlock(&dev->lock);
}

static void pin_test_dma_unmap(struct vfio_device *vdev, u64 iova, u64 length)
{
	struct pin_test_device *dev = to_pin_test(vdev);

	atomic_inc(&dev->unmaps);
	if (misbehaves(dev, PIN_TEST_KEEP))
		return;
	unpin_range(dev, iova, length);
	if (misbehaves(dev, PIN_TEST_PIN_AGAIN))
		pin_again(dev, iova);
	if (misbehaves(dev, PIN_TEST_PIN_EARLIER) && dev->given_up != iova)
		pin_again(dev, dev->given_up);
	dev->given_up = iova;
}

/* Keeps one reference to each page, however often it was pinned. */
static int remember_one(struct pin_test_device *dev, u64 iova, struct page *page)
{
	struct page *old = xa_store(&dev->pages, iova >> PAGE_SHIFT, page, GFP_KERNEL);

	if (old)
		vfio_unpin_pages(&dev->vdev, iova, 1);
	if (xa_is_err(old))
		return xa_err(old);
	return old && old != page ? -ESTALE : 0;
}

static int remember(struct pin_test_device *dev, u64 iova, struct page **pages, int count)
{
	int i, ret;

	for (i = 0; i < count; i++, iova += PAGE_SIZE) {
		ret = remember_one(dev, iova, pages[i]);
		if (!ret)
			continue;
		if (i + 1 < count)
			vfio_unpin_pages(&dev->vdev, iova + PAGE_SIZE, count - i - 1);
		return ret;
	}
	return 0;
}

static long do_pin(struct pin_test_device *dev, struct pin_test *arg)
{
	struct page **pages = kcalloc(MAX_PAGES + 1, sizeof(*pages), GFP_KERNEL);
	long ret;

	if (!pages)
		return -ENOMEM;
	if (arg->count > MAX_PAGES + 1) {
		ret = -EINVAL;
		goto out;
	}
	mutex_lock(&dev->lock);
	ret = vfio_pin_pages(&dev->vdev, arg->iova, arg->count, arg->prot, pages);
	if (ret > 0) {
		arg->word = *(u64 *)page_address(pages[0]);
		ret = remember(dev, arg->iova, pages, ret) ?: ret;
	}
	mutex_unlock(&dev->lock);
out:
	kfree(pages);
	return ret;
}

/* Does not record the pages, so that a benchmark measures only vfio_pin_pages(). */
static long do_pin_only(struct pin_test_device *dev, struct pin_test *arg)
{
	struct page **pages;
	long ret;

	if (arg->count > MAX_PAGES)
		return -EINVAL;
	pages = kmalloc_array(MAX_PAGES, sizeof(*pages), GFP_KERNEL);
	if (!pages)
		return -ENOMEM;
	ret = vfio_pin_pages(&dev->vdev, arg->iova, arg->count, arg->prot, pages);
	kfree(pages);
	return ret;
}

static long do_poke(struct pin_test_device *dev, struct pin_test *arg)
{
	struct page *page;
	long ret = -ENOENT;

	mutex_lock(&dev->lock);
	page = xa_load(&dev->pages, arg->iova >> PAGE_SHIFT);
	if (page) {
		*(u64 *)page_address(page) = arg->word;
		ret = 0;
	}
	mutex_unlock(&dev->lock);
	return ret;
}

static long do_rw(struct pin_test_device *dev, struct pin_test *arg, u8 __user *data, bool write)
{
	void *buf;
	long ret;

	if (arg->count > MAX_BYTES)
		return -EINVAL;
	buf = kvzalloc(max(arg->count, 1U), GFP_KERNEL);
	if (!buf)
		return -ENOMEM;
	ret = -EFAULT;
	if (write && copy_from_user(buf, data, arg->count))
		goto out;
	ret = vfio_dma_rw(&dev->vdev, arg->iova, buf, arg->count, write);
	if (!ret && !write && copy_to_user(data, buf, arg->count))
		ret = -EFAULT;
out:
	kvfree(buf);
	return ret;
}

static long count_pinned(struct pin_test_device *dev)
{
	unsigned long index;
	struct page *page;
	long count = 0;

	mutex_lock(&dev->lock);
	xa_for_each(&dev->pages, index, page)
		count++;
	mutex_unlock(&dev->lock);
	return count;
}

static long pin_test_request(struct pin_test_device *dev, unsigned int cmd, struct pin_test *arg,
			     u8 __user *data)
{
	switch (cmd) {
	case PIN_TEST_PIN:
		return do_pin(dev, arg);
	case PIN_TEST_UNPIN:
		unpin_range(dev, arg->iova, (u64)arg->count << PAGE_SHIFT);
		return 0;
	case PIN_TEST_UNPIN_STRAY:
		vfio_unpin_pages(&dev->vdev, arg->iova, arg->count);
		return 0;
	case PIN_TEST_PIN_ONLY:
		return do_pin_only(dev, arg);
	case PIN_TEST_POKE:
		return do_poke(dev, arg);
	case PIN_TEST_READ:
		return do_rw(dev, arg, data, false);
	case PIN_TEST_WRITE:
		return do_rw(dev, arg, data, true);
	default:
		return -ENOTTY;
	}
}

static long pin_test_ioctl(struct vfio_device *vdev, unsigned int cmd, unsigned long user)
{
	struct pin_test_device *dev = to_pin_test(vdev);
	struct pin_test __user *from = (void __user *)user;
	struct pin_test arg;
	long ret;

	switch (cmd) {
	case PIN_TEST_MISBEHAVE:
		WRITE_ONCE(dev->misbehaviour, user);
		return 0;
	case PIN_TEST_PINNED:
		return count_pinned(dev);
	case PIN_TEST_UNMAPS:
		return atomic_read(&dev->unmaps);
	}
	if (copy_from_user(&arg, from, sizeof(arg)))
		return -EFAULT;
	ret = pin_test_request(dev, cmd, &arg, from->data);
	if (copy_to_user(from, &arg, sizeof(arg)))
		return -EFAULT;
	return ret;
}

static const struct vfio_device_ops pin_test_ops = {
	.name		= "vfio-pin-test",
	.init		= pin_test_init,
	.release	= pin_test_release,
	.close_device	= pin_test_close,
	.ioctl		= pin_test_ioctl,
	.dma_unmap	= pin_test_dma_unmap,
	.bind_iommufd	= vfio_iommufd_emulated_bind,
	.unbind_iommufd	= vfio_iommufd_emulated_unbind,
	.attach_ioas	= vfio_iommufd_emulated_attach_ioas,
	.detach_ioas	= vfio_iommufd_emulated_detach_ioas,
};

static int pin_test_probe(struct platform_device *pdev)
{
	struct pin_test_device *dev;
	int ret;

	dev = vfio_alloc_device(pin_test_device, vdev, &pdev->dev, &pin_test_ops);
	if (IS_ERR(dev))
		return PTR_ERR(dev);
	ret = vfio_register_emulated_iommu_dev(&dev->vdev);
	if (ret)
		vfio_put_device(&dev->vdev);
	else
		platform_set_drvdata(pdev, dev);
	return ret;
}

static void pin_test_remove(struct platform_device *pdev)
{
	struct pin_test_device *dev = platform_get_drvdata(pdev);

	vfio_unregister_group_dev(&dev->vdev);
	vfio_put_device(&dev->vdev);
}

static struct platform_driver pin_test_driver = {
	.probe	= pin_test_probe,
	.remove	= pin_test_remove,
	.driver	= { .name = "vfio_pin_test" },
};

static struct platform_device *pin_test_pdev;

static int __init pin_test_module_init(void)
{
	int ret = platform_driver_register(&pin_test_driver);

	if (ret)
		return ret;
	pin_test_pdev = platform_device_register_simple("vfio_pin_test", 0, NULL, 0);
	if (IS_ERR(pin_test_pdev)) {
		platform_driver_unregister(&pin_test_driver);
		return PTR_ERR(pin_test_pdev);
	}
	return 0;
}

static void __exit pin_test_module_exit(void)
{
	platform_device_unregister(pin_test_pdev);
	platform_driver_unregister(&pin_test_driver);
}

module_init(pin_test_module_init);
module_exit(pin_test_module_exit);

MODULE_DESCRIPTION("VFIO device that pins pages on demand, for tests");
MODULE_LICENSE("GPL");
