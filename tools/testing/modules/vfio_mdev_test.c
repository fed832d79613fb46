// SPDX-License-Identifier: GPL-2.0
/*
 * The smallest mdev parent that the interface of mdev.ko allows: its mdev driver has no probe() and
 * no remove(), and the bus counts the instances. The parent device can be unbound from its driver
 * while it has children.
 */
#include <linux/mdev.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/vfio.h>

#define NAME "vfio_mdev_test"

static bool api = true;
module_param(api, bool, 0444);
MODULE_PARM_DESC(api, "name the interface of the devices, which a driver must");

static bool twins;
module_param(twins, bool, 0444);
MODULE_PARM_DESC(twins, "give both types one name, so that the parent cannot be registered");

static struct mdev_type small, large;
static struct mdev_type *types[] = { &small, &large };
static struct mdev_parent parent;

static ssize_t describe(struct mdev_type *type, char *buf)
{
	return sysfs_emit(buf, "of %s\n", type->sysfs_name);
}

static struct mdev_driver driver = {
	.device_api = VFIO_DEVICE_API_PLATFORM_STRING,
	.max_instances = 2,
	.show_description = describe,
	.driver = {
		.name = NAME,
		.owner = THIS_MODULE,
		.mod_name = KBUILD_MODNAME,
	},
};

static int parent_probe(struct platform_device *pdev)
{
	small = (struct mdev_type){ .sysfs_name = "small" };
	large = (struct mdev_type){ .sysfs_name = "large", .pretty_name = "A large one, \xc2\xbd\tof all" };
	if (twins)
		large.sysfs_name = small.sysfs_name;
	return mdev_register_parent(&parent, &pdev->dev, &driver, types, ARRAY_SIZE(types));
}

static void parent_remove(struct platform_device *pdev)
{
	mdev_unregister_parent(&parent);
}

static struct platform_driver parent_driver = {
	.probe = parent_probe,
	.remove = parent_remove,
	.driver.name = NAME,
};

static struct platform_device *device;

static int __init test_init(void)
{
	int ret;

	if (!api)
		driver.device_api = NULL;
	ret = mdev_register_driver(&driver);
	if (ret)
		return ret;
	ret = platform_driver_register(&parent_driver);
	if (ret)
		goto out_driver;
	device = platform_device_register_simple(NAME, PLATFORM_DEVID_NONE, NULL, 0);
	ret = PTR_ERR_OR_ZERO(device);
	if (ret)
		goto out_parent_driver;
	return 0;

out_parent_driver:
	platform_driver_unregister(&parent_driver);
out_driver:
	mdev_unregister_driver(&driver);
	return ret;
}
module_init(test_init);

static void __exit test_exit(void)
{
	platform_device_unregister(device);
	platform_driver_unregister(&parent_driver);
	mdev_unregister_driver(&driver);
}
module_exit(test_exit);

MODULE_DESCRIPTION("Parent of mediated devices for tests");
MODULE_LICENSE("GPL");
