// SPDX-License-Identifier: GPL-2.0

//! The bus of mediated devices: registration and removal of parents and drivers.

use crate::{
    harness::{
        Failure,
        cases, //
    },
    mdev::{
        Mdev,
        UUIDS,
        create,
        store,
        type_attribute,
        type_folder, //
    },
    modules::{
        load,
        unload, //
    },
    stall::LIMIT,
    uevent::Listener, //
};
use anyhow::Result;
use std::{
    fs,
    path::{
        Path,
        PathBuf, //
    },
    thread,
    time::{
        Duration,
        Instant, //
    },
};
use support::kmsg::Log;
use vfio_client::Errno;

cases! {
    #[rows("M1")] bus_attributes,
    #[rows("M2")] mdev_bus_class,
    #[rows("M2", "M3")] parent_with_bound_driver,
    #[rows("M4")] names_and_descriptions,
    #[rows("M5")] create_while_parent_is_unregistered,
    #[rows("M5")] #[requires(mdev(Rust))] remove_while_parent_is_unregistered,
    #[rows("M5")] #[requires(mdev(Rust))] create_while_registration_fails,
    #[rows("M7")] concurrent_removes,
    #[rows("M8")] uevents_of_parent,
    #[rows("M8")] uevents_of_device,
    #[rows("M9")] unregistering_parent_removes_devices,
    #[rows("M9")] unloading_module_removes_devices,
    #[rows("M9")] open_device_holds_module,
    #[rows("M10")] driver_without_device_api,
    #[rows("M10")] driver_without_probe,
    #[rows("M11")] no_driver_binds_by_itself,
    #[rows("M12")] available_instances_of_all_types,
    #[rows("M14")] log_messages,
}

/// The C driver whose devices are not VFIO devices. Its parent is a device on the `platform` bus.
const TEST: &str = "vfio_mdev_test";
const UUID: &str = UUIDS[0];

fn bus() -> &'static Path {
    Path::new("/sys/bus/mdev")
}

fn names(folder: impl AsRef<Path>) -> Result<Vec<String>> {
    let mut names: Vec<_> = fs::read_dir(folder)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

fn same(a: impl AsRef<Path>, b: impl AsRef<Path>) -> Result<()> {
    assert_eq!(fs::canonicalize(a)?, fs::canonicalize(b)?);
    Ok(())
}

/// The parent of the test driver is unbound from its driver. Dropping this binds it again.
#[derive(Debug)]
struct Unbound;

impl Unbound {
    fn attribute(name: &str) -> PathBuf {
        Path::new("/sys/bus/platform/drivers").join(TEST).join(name)
    }

    fn new() -> Result<Self> {
        fs::write(Self::attribute("unbind"), TEST)?;
        Ok(Self)
    }

    fn end(self) -> Result<()> {
        std::mem::forget(self);
        Ok(fs::write(Self::attribute("bind"), TEST)?)
    }
}

impl Drop for Unbound {
    fn drop(&mut self) {
        let _ = fs::write(Self::attribute("bind"), TEST);
    }
}

fn bus_attributes() -> Result<()> {
    assert_eq!(names(bus().join("devices"))?, [""; 0]);
    let drivers = names(bus().join("drivers"))?;
    for driver in ["mbochs", "mdpy", "mtty", TEST] {
        assert!(drivers.iter().any(|name| name == driver), "{drivers:?}");
        // The users of a driver hold these, so only the first ones show that the driver is
        // present.
        same(
            bus().join("drivers").join(driver).join("module"),
            Path::new("/sys/module").join(driver),
        )?;
    }
    assert!(Path::new("/sys/module/mdev").is_dir());
    let mdev = Mdev::new("mtty-1", UUID)?;
    assert_eq!(names(bus().join("devices"))?, [UUID]);
    same(bus().join("drivers/mtty").join(UUID), mdev.folder())
}

fn mdev_bus_class() -> Result<()> {
    let parents = names("/sys/class/mdev_bus")?;
    for parent in ["mbochs", "mdpy", "mtty"] {
        assert!(parents.iter().any(|name| name == parent), "{parents:?}");
        same(
            Path::new("/sys/class/mdev_bus").join(parent),
            format!("/sys/devices/virtual/{parent}/{parent}"),
        )?;
    }
    Ok(())
}

/// Types are named after the parent's driver, or after its class if it has no driver.
fn parent_with_bound_driver() -> Result<()> {
    let parent = Path::new("/sys/devices/platform").join(TEST);
    same(Path::new("/sys/class/mdev_bus").join(TEST), &parent)?;
    assert_eq!(
        names(parent.join("mdev_supported_types"))?,
        ["vfio_mdev_test-large", "vfio_mdev_test-small"]
    );
    Ok(())
}

fn names_and_descriptions() -> Result<()> {
    for (name, pretty, description) in [
        ("vfio_mdev_test-small", "small\n", "of small\n"),
        (
            "vfio_mdev_test-large",
            "A large one, ½\tof all\n",
            "of large\n",
        ),
    ] {
        assert_eq!(type_attribute(name, "name")?, pretty);
        assert_eq!(type_attribute(name, "description")?, description);
        assert_eq!(type_attribute(name, "device_api")?, "vfio-platform\n");
        assert_eq!(type_attribute(name, "available_instances")?, "2\n");
    }
    Ok(())
}

/// Creates devices until `end`, but at least one if that does not take too long. Removes the
/// created ones. Returns the errnos of both, and how many devices were created.
fn create_until(end: Instant, remove: bool) -> (Vec<Errno>, usize) {
    let (mut errors, mut made) = (Vec::new(), 0);
    while Instant::now() < if made > 0 { end } else { end + LIMIT } {
        let outcome = create("vfio_mdev_test-small", UUID).and_then(|()| {
            made += 1;
            if !remove {
                return Ok(());
            }
            store(bus().join("devices").join(UUID).join("remove"), "1")
        });
        if outcome.is_err() {
            errors.push(outcome.errno());
        }
    }
    (errors, made)
}

fn create_while_parent_is_unregistered() -> Result<()> {
    unregister_beside_creator(false)
}

/// The C module can remove the device twice, and the kernel then follows a null pointer.
fn remove_while_parent_is_unregistered() -> Result<()> {
    unregister_beside_creator(true)
}

/// Registers and unregisters the parent while a thread creates a device, and removes it if `remove`.
fn unregister_beside_creator(remove: bool) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(2);
    let creator = thread::spawn(move || create_until(end, remove));
    while !creator.is_finished() {
        Unbound::new()?.end()?;
    }
    let (errors, made) = creator.join().expect("the thread has panicked");
    assert!(made > 0);
    // A device exists until the removal of the parent has removed it.
    let expected = [Errno::ENODEV, Errno::ENOENT, Errno::EEXIST];
    for error in errors {
        assert!(expected.contains(&error), "{error}");
    }
    assert_eq!(names(bus().join("devices"))?, [""; 0]);
    assert_eq!(
        type_attribute("vfio_mdev_test-small", "available_instances")?,
        "2\n"
    );
    Ok(())
}

/// The second type of the parent cannot be added. The C module then keeps a device that is created
/// before that, with a parent that is gone.
fn create_while_registration_fails() -> Result<()> {
    unload(c"vfio_mdev_test")?;
    load(&[TEST, "twins=1"])?;
    let (mut refused, mut made) = (0, 0);
    let end = Instant::now() + Duration::from_secs(2);
    let binder = thread::spawn(move || {
        while Instant::now() < end {
            let bound = fs::write(Unbound::attribute("bind"), TEST);
            assert!(bound.is_err(), "the parent was registered");
        }
    });
    // The class has no link to the parent yet.
    let types = Path::new("/sys/devices/platform")
        .join(TEST)
        .join("mdev_supported_types");
    while !binder.is_finished() && made == 0 {
        let outcome = store(types.join("vfio_mdev_test-small/create"), UUID);
        match outcome {
            Ok(()) => made += 1,
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ENODEV) => refused += 1,
                // The type is not there at this moment.
                error => assert_eq!(error, Some(Errno::ENOENT)),
            },
        }
    }
    binder.join().expect("the thread has panicked");
    // A device whose parent is gone cannot be removed.
    assert_eq!(made, 0);
    assert!(refused > 0);
    unload(c"vfio_mdev_test")?;
    load(&[TEST])?;
    Ok(())
}

/// When two threads remove a device, exactly one of them succeeds.
fn concurrent_removes() -> Result<()> {
    for _ in 0..50 {
        let mdev = Mdev::new("vfio_mdev_test-small", UUID)?;
        let outcomes = thread::scope(|scope| {
            [(); 2]
                .map(|()| scope.spawn(|| mdev.remove()))
                .map(|remover| remover.join().expect("the thread has panicked"))
        });
        let mut done = 0;
        for outcome in outcomes {
            match outcome {
                Ok(()) => done += 1,
                Err(error) => {
                    let errno = Err::<(), _>(error).errno();
                    assert!([Errno::ENODEV, Errno::ENOENT].contains(&errno), "{errno}");
                }
            }
        }
        assert!(done > 0);
        assert!(!mdev.folder().exists());
    }
    Ok(())
}

fn uevents_of_parent() -> Result<()> {
    let listener = Listener::new()?;
    let path = format!("/devices/platform/{TEST}");
    // Changes made by the parent itself may come in between.
    let state = || -> Result<(String, String)> {
        loop {
            let event = listener.about(&path)?;
            if let Some(state) = event.get("MDEV_STATE") {
                let action = event.get("ACTION").unwrap_or_default();
                return Ok((action.to_owned(), state.to_owned()));
            }
        }
    };
    let unbound = Unbound::new()?;
    assert_eq!(state()?, ("change".into(), "unregistered".into()));
    unbound.end()?;
    assert_eq!(state()?, ("change".into(), "registered".into()));
    Ok(())
}

fn uevents_of_device() -> Result<()> {
    let listener = Listener::new()?;
    let mdev = Mdev::new("mtty-1", UUID)?;
    mdev.remove()?;
    let path = format!("/devices/virtual/mtty/mtty/{UUID}");
    for action in ["add", "bind", "unbind", "remove"] {
        let event = listener.about(&path)?;
        assert_eq!(event.get("ACTION"), Some(action));
        assert_eq!(event.get("SUBSYSTEM"), Some("mdev"));
        let driver = (action == "bind").then_some("mtty");
        assert!(action != "bind" || event.get("DRIVER") == driver);
        assert_eq!(event.get("MDEV_STATE"), None);
    }
    Ok(())
}

fn unregistering_parent_removes_devices() -> Result<()> {
    let children = [
        Mdev::new("vfio_mdev_test-small", UUIDS[0])?,
        Mdev::new("vfio_mdev_test-large", UUIDS[1])?,
    ];
    let folder = type_folder("vfio_mdev_test-small");
    let other = Mdev::new("mtty-1", UUIDS[2])?;
    let unbound = Unbound::new()?;
    for child in &children {
        assert!(!child.folder().exists());
    }
    assert!(!folder.exists());
    assert!(!Path::new("/sys/class/mdev_bus").join(TEST).exists());
    assert!(other.folder().exists(), "it is of another parent");
    // The names can be used again.
    let again = Mdev::new("mtty-1", UUIDS[0])?;
    drop(again);
    unbound.end()?;
    assert_eq!(
        type_attribute("vfio_mdev_test-large", "available_instances")?,
        "2\n"
    );
    assert_eq!(names(folder.join("devices"))?, [""; 0]);
    Ok(())
}

fn unloading_module_removes_devices() -> Result<()> {
    let children = [
        Mdev::new("mtty-1", UUIDS[0])?,
        Mdev::new("mtty-2", UUIDS[1])?,
    ];
    let group = children[0].group()?;
    unload(c"mtty")?;
    assert_eq!(group.status().errno(), Errno::ENODEV);
    for child in &children {
        assert!(!child.folder().exists());
    }
    for path in ["/sys/class/mdev_bus/mtty", "/sys/bus/mdev/drivers/mtty"] {
        assert!(!Path::new(path).exists(), "{path}");
    }
    load(&["mtty"])?;
    assert_eq!(type_attribute("mtty-1", "available_instances")?, "24\n");
    Ok(())
}

fn open_device_holds_module() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUID)?;
    let open = mdev.open()?;
    assert_eq!(unload(c"mtty"), Err(Errno::EAGAIN));
    assert_eq!(unload(c"mdev"), Err(Errno::EAGAIN));
    assert_eq!(open.device.info()?.irqs, 5, "it still works");
    assert!(mdev.folder().exists());
    Ok(())
}

fn driver_without_device_api() -> Result<()> {
    unload(c"vfio_mdev_test")?;
    let error = load(&[TEST, "api=0"]).map_err(|error| error.to_string());
    load(&[TEST])?;
    let text = error.err().unwrap_or_default();
    assert!(text.contains("Invalid argument"), "{text:?}");
    Ok(())
}

fn driver_without_probe() -> Result<()> {
    let mdev = Mdev::new("vfio_mdev_test-small", UUID)?;
    same(
        mdev.folder().join("driver"),
        bus().join("drivers").join(TEST),
    )?;
    same(
        mdev.folder().join("mdev_type"),
        type_folder("vfio_mdev_test-small"),
    )?;
    assert!(!mdev.folder().join("iommu_group").exists());
    Ok(())
}

fn no_driver_binds_by_itself() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUID)?;
    let driver = bus().join("drivers/mtty");
    fs::write(driver.join("unbind"), UUID)?;
    assert!(mdev.folder().exists());
    for link in ["driver", "iommu_group", "vfio-dev"] {
        assert!(!mdev.folder().join(link).exists(), "{link}");
    }
    assert_eq!(type_attribute("mtty-1", "available_instances")?, "24\n");
    // Neither a name nor an id of a driver matches the device, so it has no driver.
    fs::write(bus().join("drivers_probe"), UUID)?;
    assert!(!mdev.folder().join("driver").exists());
    assert_eq!(fs::write(driver.join("bind"), UUID).errno(), Errno::ENODEV);
    assert_eq!(create("mtty-1", UUID).errno(), Errno::EEXIST);
    mdev.remove()?;
    assert!(!mdev.folder().exists());
    Ok(())
}

fn available_instances_of_all_types() -> Result<()> {
    let available = || -> Result<[String; 2]> {
        Ok([
            type_attribute("vfio_mdev_test-small", "available_instances")?,
            type_attribute("vfio_mdev_test-large", "available_instances")?,
        ])
    };
    let first = Mdev::new("vfio_mdev_test-small", UUIDS[0])?;
    assert_eq!(available()?, ["1\n", "1\n"]);
    let second = Mdev::new("vfio_mdev_test-large", UUIDS[1])?;
    assert_eq!(available()?, ["0\n", "0\n"]);
    for name in ["vfio_mdev_test-small", "vfio_mdev_test-large"] {
        assert_eq!(create(name, UUIDS[2]).errno(), Errno::EUSERS);
        // Name conflicts are detected first.
        assert_eq!(create(name, UUIDS[0]).errno(), Errno::EEXIST);
    }
    first.remove()?;
    assert_eq!(available()?, ["1\n", "1\n"]);
    second.remove()?;
    assert_eq!(available()?, ["2\n", "2\n"]);
    Ok(())
}

fn log_messages() -> Result<()> {
    let mut log = Log::follow()?;
    let unbound = Unbound::new()?;
    let line = |text| format!("vfio_mdev_test vfio_mdev_test: MDEV: {text}");
    assert!(log.has(&[&line("Unregistering")]), "{}", log.text());
    unbound.end()?;
    assert!(log.has(&[&line("Registered")]), "{}", log.text());
    unload(c"mtty")?;
    load(&["mtty"])?;
    for text in ["Unregistering", "Registered"] {
        let line = format!("mtty mtty: MDEV: {text}");
        assert!(log.has(&[&line]), "{}", log.text());
    }
    Ok(())
}
