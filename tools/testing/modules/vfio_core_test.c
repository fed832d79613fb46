// SPDX-License-Identifier: GPL-2.0
/*
 * Calls the functions that the core exports to device drivers, KVM and IOMMU backends, on request
 * of the guest tests. Has two devices with as few callbacks as possible, both in one device set.
 */
#include <linux/delay.h>
#include <linux/file.h>
#include <linux/interval_tree.h>
#include <linux/iommu.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/platform_device.h>
#include <linux/slab.h>
#include <linux/vfio.h>
#include <linux/workqueue.h>

#include "vfio_core_test.h"

static struct vfio_device *devices[2];

/* --- Files ------------------------------------------------------------------------------- */

static long test_file(int fd)
{
	struct file *file = fget(fd);
	long ret = 0;

	if (!file)
		return -EBADF;
	if (vfio_file_is_group(file))
		ret |= CORE_TEST_FILE_IS_GROUP;
	if (vfio_file_is_valid(file))
		ret |= CORE_TEST_FILE_IS_VALID;
	if (vfio_file_enforced_coherent(file))
		ret |= CORE_TEST_FILE_ENFORCED_COHERENT;
	if (vfio_file_has_dev(file, devices[0]))
		ret |= CORE_TEST_FILE_HAS_DEV;
#if IS_ENABLED(CONFIG_VFIO_GROUP)
	if (vfio_file_iommu_group(file))
		ret |= CORE_TEST_FILE_IOMMU_GROUP;
#endif
	/* Remove the reference from the file's group to a virtual machine. */
	vfio_file_set_kvm(file, NULL);
	fput(file);
	return ret;
}

static long test_kvm(void)
{
	struct vfio_device_set *set = devices[0]->dev_set;
	bool linked;

	mutex_lock(&set->lock);
	linked = devices[0]->kvm;
	mutex_unlock(&set->lock);
	return linked;
}

/* --- Devices ----------------------------------------------------------------------------- */

static const struct vfio_device_ops bare_ops = {
	.name		= "vfio-core-test",
	.bind_iommufd	= vfio_iommufd_emulated_bind,
	.unbind_iommufd	= vfio_iommufd_emulated_unbind,
	.attach_ioas	= vfio_iommufd_emulated_attach_ioas,
	.detach_ioas	= vfio_iommufd_emulated_detach_ioas,
};

static long test_offer(struct core_test_offer *arg)
{
	struct vfio_device *vdev;
	struct device *dev;
	long ret;

	arg->name[sizeof(arg->name) - 1] = 0;
	dev = bus_find_device_by_name(&pci_bus_type, NULL, arg->name);
	if (!dev)
		return -ENXIO;
	vdev = _vfio_alloc_device(sizeof(*vdev), dev, &bare_ops);
	ret = PTR_ERR_OR_ZERO(vdev);
	if (!ret) {
		ret = vfio_register_group_dev(vdev);
		if (!ret)
			vfio_unregister_group_dev(vdev);
		vfio_put_device(vdev);
	}
	put_device(dev);
	return ret;
}

static long test_set(void)
{
	struct vfio_device_set *set = devices[0]->dev_set;
	long ret = 0;

	if (set == devices[1]->dev_set)
		ret |= CORE_TEST_SET_IS_SHARED;
	mutex_lock(&set->lock);
	if (vfio_find_device_in_devset(set, devices[0]->dev) == devices[0])
		ret |= CORE_TEST_SET_FINDS_FIRST;
	if (vfio_find_device_in_devset(set, devices[1]->dev) == devices[1])
		ret |= CORE_TEST_SET_FINDS_SECOND;
	if (vfio_find_device_in_devset(set, &platform_bus))
		ret |= CORE_TEST_SET_FINDS_OTHER;
	ret |= vfio_device_set_open_count(set) << CORE_TEST_SET_OPEN_SHIFT;
	mutex_unlock(&set->lock);
	return ret;
}

/* A device that a work item adds to a device set. */
struct joiner {
	struct work_struct work;
	struct completion begun, done;
	struct vfio_device *vdev;
	void *set_id;
	int ret;
};

static void join_set(struct work_struct *work)
{
	struct joiner *joiner = container_of(work, struct joiner, work);

	complete(&joiner->begun);
	joiner->ret = vfio_assign_device_set(joiner->vdev, joiner->set_id);
	complete(&joiner->done);
}

static int joiner_start(struct joiner *joiner, void *set_id)
{
	joiner->vdev = _vfio_alloc_device(sizeof(*joiner->vdev), devices[0]->dev, &bare_ops);
	if (IS_ERR(joiner->vdev))
		return PTR_ERR(joiner->vdev);
	joiner->set_id = set_id ?: joiner->vdev;
	init_completion(&joiner->begun);
	init_completion(&joiner->done);
	INIT_WORK_ONSTACK(&joiner->work, join_set);
	queue_work(system_dfl_wq, &joiner->work);
	wait_for_completion(&joiner->begun);
	return 0;
}

static int joiner_end(struct joiner *joiner)
{
	flush_work(&joiner->work);
	destroy_work_on_stack(&joiner->work);
	vfio_put_device(joiner->vdev);
	return joiner->ret;
}

static long test_set_held(void)
{
	struct vfio_device_set *set = devices[0]->dev_set;
	struct joiner waits, goes_on;
	bool in_time = false;
	long ret;

	mutex_lock(&set->lock);
	ret = joiner_start(&waits, set->set_id);
	if (ret) {
		mutex_unlock(&set->lock);
		return ret;
	}
	/* The work item has started, so it waits for the lock by then. */
	msleep(200);
	ret = joiner_start(&goes_on, NULL);
	if (!ret)
		in_time = wait_for_completion_timeout(&goes_on.done, 10 * HZ);
	mutex_unlock(&set->lock);
	if (!ret)
		ret = joiner_end(&goes_on);
	return joiner_end(&waits) ?: ret ?: in_time ? 0 : -ETIMEDOUT;
}

static long test_next_state(struct core_test_next_state *arg)
{
	struct vfio_device *vdev = devices[1];
	enum vfio_device_mig_state next = arg->next;
	long ret;

	mutex_lock(&vdev->dev_set->lock);
	vdev->migration_flags = arg->flags;
	ret = vfio_mig_get_next_state(vdev, arg->current_state, arg->target, &next);
	vdev->migration_flags = 0;
	mutex_unlock(&vdev->dev_set->lock);
	arg->next = next;
	return ret;
}

/* --- Backends ---------------------------------------------------------------------------- */

/* The layout of struct vfio_iommu_driver_ops, which no public header defines. */
struct backend_ops {
	char *name;
	struct module *owner;
	void *(*open)(unsigned long arg);
	void (*release)(void *data);
	long (*ioctl)(void *data, unsigned int cmd, unsigned long arg);
	void *attach_detach_pin_unpin[4];
	void (*register_device)(void *data, struct vfio_device *vdev);
	void (*unregister_device)(void *data, struct vfio_device *vdev);
	void *rest[2];
};

#if IS_ENABLED(CONFIG_VFIO_CONTAINER)
int vfio_register_iommu_driver(const struct backend_ops *ops);
void vfio_unregister_iommu_driver(const struct backend_ops *ops);
#else
static inline int vfio_register_iommu_driver(const struct backend_ops *ops)
{
	return -EOPNOTSUPP;
}

static inline void vfio_unregister_iommu_driver(const struct backend_ops *ops)
{
}
#endif

static void *backend_open(unsigned long arg)
{
	return ERR_PTR(-EDOM);
}

static void backend_release(void *data)
{
}

static long backend_ioctl(void *data, unsigned int cmd, unsigned long arg)
{
	if (cmd == VFIO_CHECK_EXTENSION && arg == CORE_TEST_EXTENSION)
		return CORE_TEST_ANSWER;
	return 0;
}

static void backend_device(void *data, struct vfio_device *vdev)
{
}

static const struct backend_ops backend = {
	.name		= "vfio-core-test",
	.owner		= THIS_MODULE,
	.open		= backend_open,
	.release	= backend_release,
	.ioctl		= backend_ioctl,
};

static const struct backend_ops half_a_backend = {
	.name			= "vfio-core-test-half",
	.owner			= THIS_MODULE,
	.open			= backend_open,
	.release		= backend_release,
	.ioctl			= backend_ioctl,
	.register_device	= backend_device,
};

static long test_backend(unsigned long what)
{
	switch (what) {
	case CORE_TEST_BACKEND_UNREGISTER:
		vfio_unregister_iommu_driver(&backend);
		return 0;
	case CORE_TEST_BACKEND_REGISTER:
		return vfio_register_iommu_driver(&backend);
	case CORE_TEST_BACKEND_REGISTER_HALF:
		return vfio_register_iommu_driver(&half_a_backend);
	default:
		return -EINVAL;
	}
}

/* --- Structures for userspace ------------------------------------------------------------ */

static long test_irqs(struct core_test_irqs *arg)
{
	struct vfio_irq_set header = {
		.argsz = arg->argsz,
		.flags = arg->flags,
		.index = arg->index,
		.start = arg->start,
		.count = arg->count,
	};
	size_t size = 0;
	long ret;

	ret = vfio_set_irqs_validate_and_prepare(&header, arg->vectors, arg->types,
						 arg->no_size ? NULL : &size);
	arg->size = size;
	return ret;
}

static long test_caps(struct core_test_caps *arg)
{
	struct vfio_info_cap caps = {};
	u32 i;

	for (i = 0; i < min(arg->count, 4); i++) {
		struct vfio_info_cap_header *header;

		/* Allocations too large to succeed are tested elsewhere. */
		if (arg->sizes[i] < sizeof(*header) || arg->sizes[i] > sizeof(arg->chain))
			return -EINVAL;
		header = vfio_info_cap_add(&caps, arg->sizes[i], i + 1, 0x70 + i);
		if (IS_ERR(header))
			return PTR_ERR(header);
		memset(header + 1, 0xc0 + i, arg->sizes[i] - sizeof(*header));
	}
	if (arg->shift)
		vfio_info_cap_shift(&caps, arg->shift);
	arg->size = caps.size;
	memcpy(arg->chain, caps.buf, min(caps.size, sizeof(arg->chain)));
	kfree(caps.buf);
	return 0;
}

static long test_combine(struct core_test_combine *arg)
{
	struct interval_tree_node nodes[ARRAY_SIZE(arg->ranges)], *node;
	struct rb_root_cached root = RB_ROOT_CACHED;
	u32 i;

	if (!arg->count || arg->count > ARRAY_SIZE(nodes) || !arg->wanted)
		return -EINVAL;
	for (i = 0; i < arg->count; i++) {
		nodes[i].start = arg->ranges[i].start;
		nodes[i].last = arg->ranges[i].last;
		interval_tree_insert(&nodes[i], &root);
	}
	vfio_combine_iova_ranges(&root, arg->count, arg->wanted);
	arg->count = 0;
	for (node = interval_tree_iter_first(&root, 0, ULONG_MAX); node;
	     node = interval_tree_iter_next(node, 0, ULONG_MAX)) {
		arg->ranges[arg->count].start = node->start;
		arg->ranges[arg->count++].last = node->last;
	}
	return 0;
}

/* --- Eventfds ---------------------------------------------------------------------------- */

static struct virqfd *slot;
static unsigned long listen_flags;
static atomic_t handler_runs, thread_runs;

static int run_handler(void *opaque, void *data)
{
	atomic_inc(&handler_runs);
	return listen_flags & CORE_TEST_LISTEN_THREAD;
}

static void run_thread(void *opaque, void *data)
{
	msleep(100);
	atomic_inc(&thread_runs);
}

static long test_listen(struct core_test_listen *arg)
{
	if (!READ_ONCE(slot))
		listen_flags = arg->flags;
	return vfio_virqfd_enable(NULL, run_handler, run_thread, NULL, &slot, arg->fd);
}

static long test_counts(struct core_test_counts *arg)
{
	arg->handler = atomic_xchg(&handler_runs, 0);
	arg->thread = atomic_xchg(&thread_runs, 0);
	return 0;
}

/* --- Device file ------------------------------------------------------------------------- */

union core_test_arg {
	struct core_test_offer offer;
	struct core_test_next_state next_state;
	struct core_test_irqs irqs;
	struct core_test_listen listen;
	struct core_test_counts counts;
	struct core_test_caps caps;
	struct core_test_combine combine;
};

static size_t size_of_arg(unsigned int cmd)
{
	switch (cmd) {
	case CORE_TEST_OFFER:
		return sizeof(struct core_test_offer);
	case CORE_TEST_NEXT_STATE:
		return sizeof(struct core_test_next_state);
	case CORE_TEST_IRQS:
		return sizeof(struct core_test_irqs);
	case CORE_TEST_LISTEN:
		return sizeof(struct core_test_listen);
	case CORE_TEST_COUNTS:
		return sizeof(struct core_test_counts);
	case CORE_TEST_CAPS:
		return sizeof(struct core_test_caps);
	case CORE_TEST_COMBINE:
		return sizeof(struct core_test_combine);
	default:
		return 0;
	}
}

static long with_value(unsigned int cmd, unsigned long value)
{
	switch (cmd) {
	case CORE_TEST_FILE:
		return test_file(value);
	case CORE_TEST_KVM:
		return test_kvm();
	case CORE_TEST_SET:
		return test_set();
	case CORE_TEST_SET_HELD:
		return test_set_held();
	case CORE_TEST_BACKEND:
		return test_backend(value);
	case CORE_TEST_IGNORE:
		vfio_virqfd_disable(&slot);
		return 0;
	case CORE_TEST_FLUSH:
		vfio_virqfd_flush_thread(&slot);
		return 0;
	case CORE_TEST_LISTENING:
		return !!READ_ONCE(slot);
	default:
		return -ENOTTY;
	}
}

static long with_arg(unsigned int cmd, union core_test_arg *arg)
{
	switch (cmd) {
	case CORE_TEST_OFFER:
		return test_offer(&arg->offer);
	case CORE_TEST_NEXT_STATE:
		return test_next_state(&arg->next_state);
	case CORE_TEST_IRQS:
		return test_irqs(&arg->irqs);
	case CORE_TEST_LISTEN:
		return test_listen(&arg->listen);
	case CORE_TEST_COUNTS:
		return test_counts(&arg->counts);
	case CORE_TEST_CAPS:
		return test_caps(&arg->caps);
	default:
		return test_combine(&arg->combine);
	}
}

static long core_test_ioctl(struct file *file, unsigned int cmd, unsigned long user)
{
	size_t size = size_of_arg(cmd);
	union core_test_arg *arg;
	long ret;

	if (!size)
		return with_value(cmd, user);
	arg = memdup_user((void __user *)user, size);
	if (IS_ERR(arg))
		return PTR_ERR(arg);
	ret = with_arg(cmd, arg);
	if (copy_to_user((void __user *)user, arg, size))
		ret = -EFAULT;
	kfree(arg);
	return ret;
}

static const struct file_operations core_test_fops = {
	.owner		= THIS_MODULE,
	.unlocked_ioctl	= core_test_ioctl,
};

static struct miscdevice core_test_misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "vfio_core_test",
	.fops	= &core_test_fops,
};

/* --- Module ------------------------------------------------------------------------------ */

static int core_test_probe(struct platform_device *pdev)
{
	struct vfio_device *vdev;
	int ret;

	vdev = _vfio_alloc_device(sizeof(*vdev), &pdev->dev, &bare_ops);
	if (IS_ERR(vdev))
		return PTR_ERR(vdev);
	ret = vfio_assign_device_set(vdev, devices) ?: vfio_register_emulated_iommu_dev(vdev);
	if (ret) {
		vfio_put_device(vdev);
		return ret;
	}
	devices[pdev->id] = vdev;
	return 0;
}

static void core_test_remove(struct platform_device *pdev)
{
	vfio_unregister_group_dev(devices[pdev->id]);
	vfio_put_device(devices[pdev->id]);
}

static struct platform_driver core_test_driver = {
	.probe	= core_test_probe,
	.remove	= core_test_remove,
	.driver	= { .name = "vfio_core_test" },
};

static struct platform_device *parents[ARRAY_SIZE(devices)];

static void remove_all(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(parents); i++)
		platform_device_unregister(parents[i]);
	platform_driver_unregister(&core_test_driver);
}

static int __init core_test_init(void)
{
	int ret, i;

	ret = platform_driver_register(&core_test_driver);
	for (i = 0; i < ARRAY_SIZE(parents) && !ret; i++) {
		parents[i] = platform_device_register_simple("vfio_core_test", i, NULL, 0);
		ret = PTR_ERR_OR_ZERO(parents[i]);
	}
	if (!ret && (!devices[0] || !devices[1]))
		ret = -ENODEV;
	if (!ret)
		ret = misc_register(&core_test_misc);
	if (ret)
		remove_all();
	return ret;
}

static void __exit core_test_exit(void)
{
	misc_deregister(&core_test_misc);
	vfio_virqfd_disable(&slot);
	vfio_unregister_iommu_driver(&backend);
	remove_all();
}

module_init(core_test_init);
module_exit(core_test_exit);

MODULE_DESCRIPTION("Calls what the VFIO core offers to other modules, for tests");
MODULE_LICENSE("GPL");
